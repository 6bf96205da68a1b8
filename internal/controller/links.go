package controller

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// LinksKind is a kind of change of links between clusters, and of the topics and partitions that mirror by them. A change of any kind may be asked for twice.
type LinksKind string

// The kinds.
const (
	// CreateLink makes Link, ChangeLink changes the link LinkID as Change says, and RemoveLink removes it.
	CreateLink LinksKind = "create link"
	ChangeLink LinksKind = "change link"
	RemoveLink LinksKind = "remove link"

	// CreateMirrors makes Topics that mirror, and ExtendMirrors adds partitions to them.
	CreateMirrors LinksKind = "create mirrors"
	ExtendMirrors LinksKind = "extend mirrors"
	// PauseMirrors and ResumeMirrors have Topics pause, and go on.
	PauseMirrors  LinksKind = "pause mirrors"
	ResumeMirrors LinksKind = "resume mirrors"
	// PromoteMirrors begins the promotion of Topics: none of their partitions follows the source any more.
	PromoteMirrors LinksKind = "promote mirrors"

	// RestoreMirrors has Topics that clients of this cluster have written mirror those of a cluster that has mirrored them, and was promoted: each partition is cut where the logs part, and mirrors from then on.
	RestoreMirrors LinksKind = "restore mirrors"

	// ChangeLinkACLs and ChangeLinkQuotas change ACLs and quotas that the link LinkID makes as its source has them.
	ChangeLinkACLs   LinksKind = "change link ACLs"
	ChangeLinkQuotas LinksKind = "change link quotas"

	// SetMirrorStates says how far Partitions mirror.
	SetMirrorStates LinksKind = "set mirror states"
	// CutMirrors has all replicas of Partitions end their logs at an offset, and raises the leader epochs by one.
	CutMirrors LinksKind = "cut mirrors"
	// RaiseEpochs raises the leader epochs of Partitions that mirror, so that they are not below those of the batches that the source has.
	RaiseEpochs LinksKind = "raise epochs"
	// DecidePromotions sets how the transactions end that are open in Partitions whose topics are being promoted. It has the link and DecidedSum in LinkID and Decided.
	DecidePromotions LinksKind = "decide promotions"
	// FinishPromotions makes ordinary partitions of Partitions whose topics are being promoted, in a new leader epoch.
	FinishPromotions LinksKind = "finish promotions"
)

// MaxLinkItems is how many topics or partitions, ACLs or quotas one LinksChange may have.
const MaxLinkItems = 1000

// LinksChange asks for a change. It has Topics, Partitions, ACLs or Quotas according to its kind, and each of them is changed, or refused, by itself.
type LinksChange struct {
	Kind       LinksKind         `json:"kind"`
	Link       *meta.Link        `json:"link,omitempty"` // who asks has drawn its id, so that it is made once however often that is asked for
	LinkID     meta.UUID         `json:"linkId"`
	Change     *LinkChange       `json:"change,omitempty"`
	Topics     []MirrorTopic     `json:"topics,omitempty"`
	Partitions []MirrorPartition `json:"partitions,omitempty"`
	Decided    uint64            `json:"decided,omitempty"` // of DecidePromotions: the DecidedSum that who decides has seen
	ACLs       []LinkACL         `json:"acls,omitempty"`
	Quotas     []LinkQuota       `json:"quotas,omitempty"`
}

// countItems counts what is changed, each by itself.
func (q LinksChange) countItems() int {
	return len(q.Topics) + len(q.Partitions) + len(q.ACLs) + len(q.Quotas)
}

// LinkChange is what changes of a link. What it does not name stays as it is.
type LinkChange struct {
	Settings map[string]*string `json:"settings,omitempty"` // nil values are unset
	Secret   *[]byte            `json:"secret,omitempty"`   // sealed; empty: there is none any more
	Paused   *bool              `json:"paused,omitempty"`
	// Source is the cluster id of the source, of a link that was made before it was known.
	Source string       `json:"source,omitempty"`
	Agent  *AgentChange `json:"agent,omitempty"`
}

// AgentChange is a change of the tokens for agents of a link. It has one of the fields.
type AgentChange struct {
	Made    *meta.LinkAgent     `json:"made,omitempty"`    // a new token
	Revoked *credential.TokenID `json:"revoked,omitempty"` // its agent is let in no more
	Used    *AgentUse           `json:"used,omitempty"`
	Now     int64               `json:"now,omitempty"` // of who asks, in ms since 1970: tokens that have ended unused are forgotten when another one is made
}

// AgentUse is the first use of a token. It is decided here who is first.
type AgentUse struct {
	Token  credential.TokenID   `json:"token"`
	Holder credential.PublicKey `json:"holder"`
}

// Format prints the kind and how much is changed, and no secret, whatever the verb.
func (q LinksChange) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "links: %s, %d topics, %d partitions, %d ACLs, %d quotas", q.Kind, len(q.Topics), len(q.Partitions), len(q.ACLs), len(q.Quotas))
}

// ChangeLinks makes a change. refused says why nothing was changed. Otherwise results are in the order of the topics, partitions, ACLs or quotas of the change, and nil means that one was
// changed, or was so already.
func ChangeLinks(ctx context.Context, c *Controller, q *LinksChange) (results []*Error, refused *Error, err error) {
	by := ofClients
	if len(q.Partitions) > 0 { // what leaders ask for: their partitions stand still until then
		by = ofCluster
	}
	err = c.runItems(ctx, by, q.countItems(), func(r *Rules, from int) ([]byte, int) {
		d, some, e := Links{Rules: r, NewID: c.cfg.NewID, MaxPartitions: c.cfg.MaxPartitions}.Change(q, from)
		results, refused = append(results[:from], some...), e
		return d.Records, from + len(some)
	})
	if err != nil || refused != nil {
		return nil, refused, err
	}
	return results, nil, nil
}

// Links decide changes of links, and of what mirrors by them, as Rules decide other changes.
type Links struct {
	*Rules

	NewID         func() meta.UUID // draws the ids of topics
	MaxPartitions int              // that the cluster may have
}

// Change decides a change of a link, or as many of the topics, partitions, ACLs or quotas, beginning with one of them, as fit into one part.
func (l Links) Change(q *LinksChange, from int) (d Part, results []*Error, refused *Error) {
	if refused := checkLevel(l.Image, meta.LevelLinks, "A link to another cluster"); refused != nil {
		return Part{}, nil, refused
	}
	if items := q.countItems(); items > MaxLinkItems {
		return Part{}, nil, refuse(InvalidRequest, "%d topics, partitions, ACLs and quotas are more than one change of links may have, which is %d.", items, MaxLinkItems)
	}
	switch q.Kind {
	case CreateMirrors, ExtendMirrors, PauseMirrors, ResumeMirrors, PromoteMirrors, RestoreMirrors:
		d, results = l.changeTopics(q, from)
		return d, results, nil
	case SetMirrorStates, CutMirrors, RaiseEpochs, DecidePromotions, FinishPromotions:
		return changeMirrorPartitions(l.Rules, q, from)
	case ChangeLinkACLs, ChangeLinkQuotas:
		return changeAccess(l.Rules, q.LinkID, q.ACLs, q.Quotas, from)
	default:
		d = l.newPart()
		d.Records, refused = changeLink(l.Image, q)
		return d, nil, refused
	}
}

func changeLink(m *meta.Image, q *LinksChange) (records []byte, refused *Error) {
	switch q.Kind {
	case CreateLink:
		if q.Link == nil {
			return nil, refuse(InvalidRequest, "There is no link to make.")
		}
		return createLink(m, *q.Link)
	case ChangeLink:
		l := m.Links().Find(q.LinkID)
		if l == nil {
			return nil, refuse(UnknownLink, "There is no link of the id %s.", q.LinkID)
		}
		if q.Change == nil {
			return nil, nil
		}
		return q.Change.apply(m, l)
	case RemoveLink:
		return removeLink(m, q.LinkID)
	default:
		return nil, refuse(InvalidRequest, "There is no change %q of links.", q.Kind)
	}
}

func createLink(m *meta.Image, l meta.Link) (records []byte, refused *Error) {
	if known := m.Links().Find(l.ID); known != nil && known.Equal(&l) {
		return nil, nil
	}
	switch {
	case !meta.IsLinkName(l.Name):
		return nil, refuse(InvalidRequest, "A link cannot have the name %.100q: it has 1 to %d characters, which are ASCII alphanumerics, '.', '_' and '-'.", l.Name, meta.MaxLinkName)
	case m.Links().FindName(l.Name) != nil:
		return nil, refuse(DuplicateResource, "There is a link %q already: give the new one another name.", l.Name)
	case m.Links().Find(l.ID) != nil:
		return nil, refuse(DuplicateResource, "There is a link of the id %s already.", l.ID)
	case l.Source == m.ClusterID:
		return nil, refuseOwnSource(&l)
	case m.Links().Len() >= meta.MaxLinks:
		return nil, refuse(PolicyViolation, "A cluster has at most %d links: remove one that is not used.", meta.MaxLinks)
	}
	return setLink(&l)
}

func refuseOwnSource(l *meta.Link) *Error {
	return refuse(PolicyViolation, "The cluster %s is this one: a link leads to another cluster.", l.Source)
}

// setLink makes the record of a link, or refuses one that lacks something or has too much of it.
func setLink(l *meta.Link) (records []byte, refused *Error) {
	if err := l.Check(); err != nil {
		return nil, refuse(InvalidRequest, "It cannot be a link: %v.", err)
	}
	return meta.Append(nil, meta.LinkSet{Link: *l}), nil
}

func (c *LinkChange) apply(m *meta.Image, l *meta.Link) (records []byte, refused *Error) {
	next, set := *l, map[string]string{}
	for _, s := range l.Settings {
		set[s.Key] = s.Value
	}
	for key, value := range c.Settings {
		if value == nil {
			delete(set, key)
		} else {
			set[key] = *value
		}
	}
	next.Settings = nil
	for _, key := range slices.Sorted(maps.Keys(set)) {
		next.Settings = append(next.Settings, meta.LinkSetting{Key: key, Value: set[key]})
	}
	if c.Secret != nil {
		next.Secret = *c.Secret
	}
	if c.Paused != nil {
		next.Paused = *c.Paused
	}
	if c.Source != "" && l.Source == "" {
		next.Source = c.Source
	}
	if next.Source == m.ClusterID {
		return nil, refuseOwnSource(&next)
	}
	if c.Agent != nil {
		if refused := c.Agent.apply(&next); refused != nil {
			return nil, refused
		}
	}
	if next.Equal(l) {
		return nil, nil
	}
	return setLink(&next)
}

// apply changes the tokens of a link. Any change may be asked for twice.
func (c *AgentChange) apply(l *meta.Link) *Error {
	l.Agents = slices.Clone(l.Agents)
	at := func(token credential.TokenID) int {
		return slices.IndexFunc(l.Agents, func(a meta.LinkAgent) bool { return a.Token == token })
	}
	switch {
	case c.Made != nil:
		if at(c.Made.Token) >= 0 {
			return nil
		}
		if c.Made.Expires-c.Now > maxTokenLife.Milliseconds() {
			return refuse(InvalidRequest, "A token can be used first within %v at most.", maxTokenLife)
		}
		l.Agents = slices.DeleteFunc(l.Agents, func(a meta.LinkAgent) bool { return !a.IsUsed() && a.Expires <= c.Now })
		if len(l.Agents) >= meta.MaxLinkAgents {
			return refuse(PolicyViolation, "The link %s has %d tokens for agents, and cannot have more: revoke one that is not used.", l.Name, len(l.Agents))
		}
		l.Agents = append(l.Agents, *c.Made)
		slices.SortFunc(l.Agents, func(a, b meta.LinkAgent) int { return bytes.Compare(a.Token[:], b.Token[:]) })
	case c.Revoked != nil:
		l.Agents = slices.DeleteFunc(l.Agents, func(a meta.LinkAgent) bool { return a.Token == *c.Revoked })
	case c.Used != nil:
		i := at(c.Used.Token)
		switch {
		case i < 0:
			return refuse(UnknownToken, "The link %s has no token %s for an agent.", l.Name, c.Used.Token)
		case l.Agents[i].IsUsed() && l.Agents[i].Holder != c.Used.Holder:
			return refuse(DuplicateResource, "The token %s was used by another agent.", c.Used.Token)
		}
		l.Agents[i].Holder = c.Used.Holder
	}
	return nil
}

// removeLink removes a link by which nothing mirrors any more.
func removeLink(m *meta.Image, id meta.UUID) (records []byte, refused *Error) {
	l := m.Links().Find(id)
	if l == nil {
		return nil, nil
	}
	count, first := 0, ""
	for t := range m.Mirrors(id) {
		if !t.IsMirror() {
			continue
		}
		if count++; first == "" || t.Name < first {
			first = t.Name
		}
	}
	switch {
	case count == 1:
		return nil, refuse(PolicyViolation, "The topic %s mirrors by the link %q: promote it first (\"leat link promote\", or \"leat link failover\" if the source is gone), or delete it.", first, l.Name)
	case count > 1:
		return nil, refuse(PolicyViolation, "%d topics mirror by the link %q, the first of them is %s: promote them first (\"leat link promote\", or \"leat link failover\" if the source is gone), or delete them.", count, l.Name, first)
	}
	return meta.Append(nil, meta.LinkRemoved{ID: id}), nil
}
