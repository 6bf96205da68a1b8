package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

const (
	// askLinksTime is how long another node may take to tell of the partitions that it mirrors.
	askLinksTime = 3 * time.Second
	// mostDescribed is how many partitions an answer lists. With the longest names and reasons they fit into maxCommand.
	mostDescribed = 380
	// mostTransactions is how many transactions an answer lists of a partition; of several it lists no more than twice as many.
	mostTransactions = 1000
	// mostSentences is how many problems, warnings and steps an answer has, each, and mostSentence how many bytes each of their texts.
	mostSentences = 100
	mostSentence  = 1000
	// mostLinkSecrets is how many bytes the secrets of a request have together, and mostLinkText how many each name has.
	mostLinkSecrets = 15 << 10 // sealed, they are not longer than what a link may have
	mostLinkText    = 249
	// mostReason is how many bytes the reason of a state has in an answer, and each note of a task. mostNotes is how many notes a task has, mostDifferences how many configs that differ, and mostValue how
	// many bytes a value of them has.
	mostReason      = 300
	mostNotes       = 20
	mostDifferences = 100
	mostValue       = 200
	// mostTailProblems is how many problems with tails, and replicas that cannot be cut, a node tells of, and mostCounted how many of its tails are counted.
	mostTailProblems = 20
	mostCounted      = 10_000
)

func serveLinks(c *Controller) *command[LinkRequest, LinkAnswer] {
	return &command[LinkRequest, LinkAnswer]{
		key: peer.LinksServe, from: peer.Administrators, isLocal: true, about: describeLinkChange, hasChanged: tellLinkChange,
		decide: func(ctx context.Context, q *LinkRequest, _ bool) (a LinkAnswer, refused *controller.Error, err error) {
			if refused = checkLinkRequest(q); refused != nil {
				return a, refused, nil
			}
			m := c.cfg.Image()
			isNew := q.Verb == LinkCreate || q.Verb == LinkList || q.Verb == LinkCheck && len(q.Settings) > 0
			link := m.Links().FindName(q.Name)
			switch {
			case !isNew && link == nil:
				return a, refuseLink(controller.UnknownLink, "There is no link %q in this cluster, which is %s.", q.Name, m.ClusterID), nil
			case q.Verb == LinkList:
				return listLinks(ctx, c, m), nil, nil
			case q.Verb == LinkDescribe:
				return describeLink(ctx, c, link, q)
			case c.cfg.Linking == nil:
				return a, nil, fmt.Errorf("%w: links", errRequest)
			}
			a, refused, err = c.cfg.Linking.ServeLink(ctx, q)
			a.fit()
			return a, refused, err
		},
	}
}

// ServeLinks has the node do something about the links of its cluster.
func (a Administrator) ServeLinks(ctx context.Context, q *LinkRequest) (s LinkAnswer, refused *controller.Error, err error) {
	return askFor(ctx, a.Conn, serveLinks(new(Controller)), q)
}

func refuseLink(kind controller.Kind, format string, args ...any) *controller.Error {
	return &controller.Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// describeLinkChange is what an audit log may have of a request: the verb, the link, and the topics and partitions; "" if it changes nothing.
func describeLinkChange(q *LinkRequest) string {
	if q.DryRun || q.Verb == LinkList || q.Verb == LinkDescribe || q.Verb == LinkCheck {
		return ""
	}
	words := []string{string(q.Verb), q.Name}
	switch {
	case q.Agent != nil:
		words = append(words, q.Agent.Token.String())
	case q.Token != credential.TokenID{}:
		words = append(words, q.Token.String())
	}
	if len(q.Topics) > 0 {
		words = append(words, strings.Join(q.Topics, ","))
	}
	for _, p := range q.Partitions {
		words = append(words, strconv.Itoa(int(p)))
	}
	if q.Verb == LinkFailover && q.Force {
		words = append(words, "by force")
	}
	return strings.Join(words, " ")
}

// tellLinkChange tells whether a link was changed, and that it was not since problems were found.
func tellLinkChange(a *LinkAnswer) (changed bool, whyNot error) {
	if n := len(a.Problems); n > 0 && !a.Changed {
		return false, fmt.Errorf("nothing was changed, since the check found problems: %d, of which the first is: %s", n, a.Problems[0].Text)
	}
	return a.Changed, nil
}

// checkLinkRequest refuses a request that cannot be served whatever the cluster is like.
func checkLinkRequest(q *LinkRequest) *controller.Error {
	verbs := []LinkVerb{LinkCreate, LinkAlter, LinkDelete, LinkPause, LinkResume, LinkSkip, LinkPromote, LinkFailover, LinkRestore, LinkCheck, LinkList, LinkDescribe, LinkAgentToken, LinkAgentRevoke}
	size, secrets := 0, 0
	for _, s := range q.Settings {
		size += len(s.Key) + len(s.Value)
	}
	for _, s := range q.Secrets {
		secrets += len(s.Key) + len(s.Value)
	}
	isLong := func(text string) bool { return text == "" || len(text) > mostLinkText }
	needsName := q.Verb != LinkList && (q.Verb != LinkCheck || len(q.Settings) == 0)
	switch {
	case !slices.Contains(verbs, q.Verb):
		return refuseLink(controller.InvalidRequest, "This version of Leat does not know %.40q.", q.Verb)
	case needsName && !meta.IsLinkName(q.Name):
		return refuseLink(controller.InvalidRequest, "A link cannot have the name %.100q: it has 1 to %d characters, which are ASCII alphanumerics, '.', '_' and '-'.", q.Name, meta.MaxLinkName)
	case len(q.Settings) > meta.MaxLinkSettings || len(q.Unset) > meta.MaxLinkSettings || size > meta.MaxLinkSettingBytes:
		return refuseLink(controller.InvalidRequest, "A link has at most %d settings of %d bytes together.", meta.MaxLinkSettings, meta.MaxLinkSettingBytes)
	case len(q.Secrets) > meta.MaxLinkSettings || secrets > mostLinkSecrets:
		return refuseLink(controller.InvalidRequest, "The secrets of a link have at most %d bytes together.", mostLinkSecrets)
	case len(q.Topics) > controller.MaxLinkItems || len(q.Partitions) > controller.MaxLinkItems:
		return refuseLink(controller.InvalidRequest, "One request is for at most %d topics or partitions.", controller.MaxLinkItems)
	case slices.ContainsFunc(q.Topics, isLong) || slices.ContainsFunc(q.Unset, isLong):
		return refuseLink(controller.InvalidRequest, "A name is empty, or has more than %d bytes.", mostLinkText)
	case q.Verb == LinkSkip && len(q.Topics) != 1:
		return refuseLink(controller.InvalidRequest, "Name one topic whose losses are to be accepted.")
	case q.Verb == LinkAgentToken && (q.Agent == nil || q.Agent.IsUsed() || q.Agent.Expires <= 0 || q.Agent.Key == credential.PublicKey{}):
		return refuseLink(controller.InvalidRequest, "The token for an agent lacks something.")
	case slices.ContainsFunc(q.Partitions, func(n int32) bool { return n < 0 }) || q.Within < 0:
		return refuseLink(controller.InvalidRequest, "A partition or a time span is negative.")
	}
	for i := range q.Settings {
		switch key := q.Settings[i].Key; {
		case key == "" || i > 0 && key <= q.Settings[i-1].Key:
			return refuseLink(controller.InvalidRequest, "The settings are not in the order of their keys.")
		case isSecretKey(key):
			return refuseLink(controller.InvalidRequest, "%s is a secret, and everybody may see the settings.", key)
		}
	}
	for i := range q.Secrets {
		if !isSecretKey(q.Secrets[i].Key) {
			return refuseLink(controller.InvalidRequest, "%.40q is not one of the secrets of a link.", q.Secrets[i].Key)
		}
	}
	return nil
}

// isSecretKey tells whether a setting is one that is never shown.
func isSecretKey(key string) bool { return key == PasswordKey || key == KeyKey }

// fit cuts off what an answer has too much of.
func (a *LinkAnswer) fit() {
	if n := len(a.Topics); n > MaxLinkTopics {
		a.Topics, a.More = a.Topics[:MaxLinkTopics], a.More+n-MaxLinkTopics
	}
	a.Problems, a.Warnings = fitProblems(a.Problems), fitProblems(a.Warnings)
	if n := len(a.Steps); n > mostSentences {
		a.Steps = append(a.Steps[:mostSentences-1:mostSentences-1], fmt.Sprintf("%d more", n-mostSentences+1))
	}
	for i := range a.Steps {
		a.Steps[i] = cutText(a.Steps[i], mostSentence)
	}
}

func fitProblems(list []LinkProblem) []LinkProblem {
	if n := len(list); n > mostSentences {
		list = append(list[:mostSentences-1:mostSentences-1], LinkProblem{Text: fmt.Sprintf("There are %d more.", n-mostSentences+1)})
	}
	for i := range list {
		p := &list[i]
		p.About, p.Text, p.Do = cutText(p.About, mostSentence), cutText(p.Text, mostSentence), cutText(p.Do, mostSentence)
	}
	return list
}

// cutText cuts a text, which need not be of whole characters then: JSON replaces half ones.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// linkQuestion asks a node for what it knows of links.
type linkQuestion struct {
	// Link is the one of which the partitions are asked for that lie behind After, up to and with Through; zero: none are, and it is asked how all links do.
	Link    meta.UUID       `json:"link"`
	Topics  []string        `json:"topics,omitempty"` // with Link: those alone; none: all
	After   *PartitionPlace `json:"after,omitempty"`  // nil: from the first one on
	Through PartitionPlace  `json:"through"`
	// Claims is a question of another node that promotes topics, for LinkServer.AnswerClaims; nothing else is asked then.
	Claims json.RawMessage `json:"claims,omitempty"`
}

// nodeLinks is what a node knows of links, for the partitions that it leads.
type nodeLinks struct {
	Shares     []linkShare       `json:"shares"`
	Tasks      []TaskStatus      `json:"tasks"`
	Partitions []PartitionStatus `json:"partitions"`
	Claims     json.RawMessage   `json:"claims,omitempty"`
	Tails      TailSum           `json:"tails,omitzero"` // of the replicas of the link on this node
	Uncut      []UncutReplica    `json:"uncut,omitempty"`
	Agents     []AgentStatus     `json:"agents"`
}

// linkShare is how a link does, for the partitions that one node leads.
type linkShare struct {
	Link        meta.UUID      `json:"link"`
	States      map[string]int `json:"states"`
	Lag         Lag            `json:"lag"`
	Unknown     int            `json:"unknown"`
	LastContact time.Time      `json:"lastContact"`
}

// add adds a partition.
func (s *linkShare) add(p *PartitionStatus) {
	if s.States == nil {
		s.States = map[string]int{}
	}
	s.States[p.State]++
	if p.LastContact.After(s.LastContact) {
		s.LastContact = p.LastContact
	}
	if p.State == statePromoted {
		return
	}
	s.Lag.Add(&p.Lag)
	if !p.Lag.isKnown() {
		s.Unknown++
	}
}

// addTo adds the share of a node to the whole of a link.
func (s *linkShare) addTo(l *LinkStatus) {
	for state, n := range s.States {
		l.States[state] += n
	}
	l.Lag.Add(&s.Lag)
	l.Unknown += s.Unknown
	if s.LastContact.After(l.LastContact) {
		l.LastContact = s.LastContact
	}
}

// statePromoted is the state of a partition that is an ordinary one.
const statePromoted = "PROMOTED"

// stateByMeta names the state of a partition that no node has told of, by what the metadata say.
func stateByMeta(l *meta.Link, t *meta.Topic, r *meta.PartitionMirror) string {
	switch {
	case r == nil:
		return StateUnknown
	case r.State == meta.PartitionPromoted:
		return statePromoted
	case r.State == meta.PartitionPromoting:
		return "PROMOTING"
	case l.Paused || t.Mirror.State == meta.MirrorPaused:
		return "PAUSED"
	}
	return haltedState(r.State)
}

// statusByMeta is the status of a partition that no node has told of.
func statusByMeta(l *meta.Link, t *meta.Topic, n int) PartitionStatus {
	p := &t.Partitions[n]
	s := PartitionStatus{
		Link: l.ID, PartitionPlace: PartitionPlace{t.Name, int32(n)}, Source: t.Mirror.Topic, Node: p.Leader, State: stateByMeta(l, t, p.Mirror),
		End: -1, SourceEnd: -1, Lag: UnknownLag(), Open: -1,
	}
	if r := p.Mirror; r != nil {
		s.Reason = r.Reason
		if r.State == meta.PartitionGap || r.State == meta.PartitionTombstonesLost {
			s.From, s.To = r.Gap.Start, r.Gap.End
		}
	}
	return s
}

// mirrorsOf lists the topics of a link in the order of their names, those of some names or all.
func mirrorsOf(m *meta.Image, link meta.UUID, names []string) []*meta.Topic {
	var list []*meta.Topic
	for t := range m.Mirrors(link) {
		if len(names) == 0 || slices.Contains(names, t.Name) {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *meta.Topic) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// isBehind tells whether a place comes after another one; nil: any does.
func (p *PartitionPlace) isBehind(o *PartitionPlace) bool {
	return o == nil || p.Topic > o.Topic || p.Topic == o.Topic && p.Partition > o.Partition
}

// listOwnMirrors tells of the partitions of a link that this node leads.
func listOwnMirrors(c *Controller, l *meta.Link, topics []*meta.Topic) (list []PartitionStatus) {
	reported := map[PartitionPlace]*PartitionStatus{}
	if c.cfg.Linking != nil {
		all := c.cfg.Linking.ListMirrors(l.ID)
		for i := range all {
			reported[all[i].PartitionPlace] = &all[i]
		}
	}
	self := c.cfg.Quorum.cfg.NodeID
	for _, t := range topics {
		for n := range t.Partitions {
			if t.Partitions[n].Leader != self {
				continue
			}
			s := statusByMeta(l, t, n)
			if r := reported[s.PartitionPlace]; r != nil && s.State != statePromoted {
				s = *r
				s.Link, s.Node, s.Reason = l.ID, self, cutText(s.Reason, mostReason)
			}
			list = append(list, s)
		}
	}
	return list
}

// tellLinks tells what this node knows.
func tellLinks(c *Controller, q *linkQuestion) (a nodeLinks) {
	m := c.cfg.Image()
	if c.cfg.Linking != nil {
		a.Tasks = c.cfg.Linking.ListTasks()
		for i := range a.Tasks {
			t := &a.Tasks[i]
			t.Node, t.Reason = c.cfg.Quorum.cfg.NodeID, cutText(t.Reason, mostReason)
			if t.Link != q.Link || q.After != nil {
				t.Notes, t.Differences = nil, nil
			}
			t.fit(q.Topics)
		}
	}
	if c.cfg.Linking != nil {
		a.Agents = c.cfg.Linking.ListAgents()
		for i := range a.Agents {
			a.Agents[i].Node, a.Agents[i].Problem = c.cfg.Quorum.cfg.NodeID, cutText(a.Agents[i].Problem, mostReason)
		}
	}
	if l := m.Links().Find(q.Link); l != nil {
		a.Tails, a.Uncut = tellCuts(c, m, l, q.Topics)
		for _, p := range listOwnMirrors(c, l, mirrorsOf(m, l.ID, q.Topics)) {
			if p.isBehind(q.After) && !p.isBehind(&q.Through) && len(a.Partitions) < mostDescribed {
				a.Partitions = append(a.Partitions, p)
			}
		}
	}
	for _, l := range m.Links().All() {
		share := linkShare{Link: l.ID}
		for _, p := range listOwnMirrors(c, l, mirrorsOf(m, l.ID, nil)) {
			share.add(&p)
		}
		a.Shares = append(a.Shares, share)
	}
	return a
}

// fit cuts off what a task tells too much of, and the configs of other topics than those that are asked for; none: all are.
func (t *TaskStatus) fit(topics []string) {
	if n := len(t.Notes); n > mostNotes {
		t.Notes = append(t.Notes[:mostNotes-1:mostNotes-1], fmt.Sprintf("There are %d more.", n-mostNotes+1))
	}
	for i := range t.Notes {
		t.Notes[i] = cutText(t.Notes[i], mostReason)
	}
	var some []ConfigDifference
	for _, d := range t.Differences {
		if len(some) < mostDifferences && (len(topics) == 0 || slices.Contains(topics, d.Topic)) {
			d.Key, d.Source, d.Here, d.Why = cutText(d.Key, mostValue), cutText(d.Source, mostValue), cutText(d.Here, mostValue), cutText(d.Why, mostValue)
			some = append(some, d)
		}
	}
	t.Differences = some
}

func showLinks(c *Controller) *command[linkQuestion, nodeLinks] {
	return &command[linkQuestion, nodeLinks]{
		key: peer.LinksShow, from: peer.Nodes,
		decide: func(_ context.Context, q *linkQuestion, _ bool) (a nodeLinks, refused *controller.Error, err error) {
			if q.Claims != nil {
				a.Claims, err = answerClaims(c, q.Claims)
				return a, nil, err
			}
			return tellLinks(c, q), nil, nil
		},
	}
}

// answerClaims has this node answer what another one asks that promotes topics.
func answerClaims(c *Controller, question json.RawMessage) (json.RawMessage, error) {
	if c.cfg.Linking == nil {
		return nil, fmt.Errorf("%w: links", errRequest)
	}
	return c.cfg.Linking.AnswerClaims(question)
}

// AskClaims asks a node, this one or another, by its LinkServer.AnswerClaims.
func AskClaims(ctx context.Context, c *Controller, node int32, question json.RawMessage) (json.RawMessage, error) {
	if node == c.cfg.Quorum.cfg.NodeID {
		return answerClaims(c, question)
	}
	a, err := askNodeForLinks(ctx, c, node, &linkQuestion{Claims: question})
	return a.Claims, err
}

// linkAnswers are the answers of nodes to a linkQuestion.
type linkAnswers struct {
	byNode map[int32]nodeLinks
	silent []SilentNode // in the order of the ids
}

// askForLinks asks all nodes that may lead partitions.
func askForLinks(ctx context.Context, c *Controller, m *meta.Image, q *linkQuestion) linkAnswers {
	ctx, cancel := context.WithTimeout(ctx, askLinksTime)
	defer cancel()
	var mu sync.Mutex // guards all
	all := linkAnswers{byNode: map[int32]nodeLinks{}}
	var asking sync.WaitGroup
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		if m.Brokers[id].State == meta.BrokerFenced {
			continue
		}
		asking.Go(func() {
			a, err := askNodeForLinks(ctx, c, id, q)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				all.byNode[id] = a
			case errors.Is(err, context.DeadlineExceeded):
				all.silent = append(all.silent, SilentNode{id, "it does not answer"})
			default:
				all.silent = append(all.silent, SilentNode{id, cutText(err.Error(), mostReason)})
			}
		})
	}
	asking.Wait()
	slices.SortFunc(all.silent, func(a, b SilentNode) int { return int(a.Node) - int(b.Node) })
	return all
}

func askNodeForLinks(ctx context.Context, c *Controller, node int32, q *linkQuestion) (a nodeLinks, err error) {
	if node == c.cfg.Quorum.cfg.NodeID {
		return tellLinks(c, q), nil
	}
	k := showLinks(c)
	body, err := k.encode(q)
	if err != nil {
		return a, err
	}
	answer, err := c.call(ctx, node, k.purpose(), k.key, body)
	if err != nil {
		return a, err
	}
	o, err := k.decodeOutcome(answer)
	return o.Answer, err
}

// sumUp tells how a link does by the answers of all nodes. Of partitions whose leader has not answered it tells what the metadata say.
func (all *linkAnswers) sumUp(m *meta.Image, l *meta.Link) LinkStatus {
	s := LinkStatus{ID: l.ID, Name: l.Name, Source: l.Source, Settings: slices.Clone(l.Settings), Secrets: len(l.Secret) > 0, Paused: l.Paused, States: map[string]int{}, Tasks: []TaskStatus{}}
	for i := range l.Agents {
		a := &l.Agents[i]
		s.Tokens = append(s.Tokens, AgentToken{ID: a.Token.String(), Used: a.IsUsed(), Expires: time.UnixMilli(a.Expires).UTC()})
	}
	var rest linkShare
	for _, t := range mirrorsOf(m, l.ID, nil) {
		s.Topics++
		for n := range t.Partitions {
			if _, ok := all.byNode[t.Partitions[n].Leader]; !ok {
				p := statusByMeta(l, t, n)
				rest.add(&p)
			}
		}
	}
	rest.addTo(&s)
	for _, id := range slices.Sorted(maps.Keys(all.byNode)) {
		a := all.byNode[id]
		for i := range a.Shares {
			if a.Shares[i].Link == l.ID {
				a.Shares[i].addTo(&s)
			}
		}
		for _, t := range a.Tasks {
			if t.Link == l.ID {
				s.Tasks = append(s.Tasks, t)
			}
		}
		for i := range a.Agents {
			if a.Agents[i].Link == l.ID {
				s.Agents = append(s.Agents, a.Agents[i])
			}
		}
	}
	return s
}

// serversKey is the setting of a link with the addresses of its source.
const serversKey = "bootstrap.servers"

// listLinks tells how all links do.
func listLinks(ctx context.Context, c *Controller, m *meta.Image) (a LinkAnswer) {
	if m.Links().Len() == 0 {
		return a
	}
	all := askForLinks(ctx, c, m, &linkQuestion{})
	a.Silent = all.silent
	for _, l := range m.Links().All() {
		s := all.sumUp(m, l)
		s.Settings = nil // certificates are long
		if servers, ok := l.Setting(serversKey); ok {
			s.Settings = []meta.LinkSetting{{Key: serversKey, Value: cutText(servers, mostSentence)}}
		}
		a.Links = append(a.Links, s)
	}
	return a
}

// describeLink tells how a link and its partitions do.
func describeLink(ctx context.Context, c *Controller, l *meta.Link, q *LinkRequest) (a LinkAnswer, refused *controller.Error, err error) {
	m := c.cfg.Image()
	topics := mirrorsOf(m, l.ID, q.Topics)
	for _, name := range q.Topics {
		if !slices.ContainsFunc(topics, func(t *meta.Topic) bool { return t.Name == name }) {
			return a, refuseLink(controller.UnknownTopic, "The link %q has no topic %s here.", l.Name, name), nil
		}
	}
	transactions := 0
	for _, t := range topics {
		for n := range t.Partitions {
			switch p := statusByMeta(l, t, n); {
			case !p.isBehind(q.After):
			case len(a.Partitions) < mostDescribed && transactions < mostTransactions && a.More == 0:
				a.Partitions = append(a.Partitions, p)
				transactions += countTransactions(t.Partitions[n].Mirror)
			default:
				a.More++
			}
		}
	}
	question := &linkQuestion{Link: l.ID, Topics: q.Topics, After: q.After}
	if n := len(a.Partitions); n > 0 {
		question.Through = a.Partitions[n-1].PartitionPlace
	}
	all := askForLinks(ctx, c, m, question)
	told := map[PartitionPlace]*PartitionStatus{}
	for _, of := range all.byNode {
		for i := range of.Partitions {
			told[of.Partitions[i].PartitionPlace] = &of.Partitions[i]
		}
	}
	for i := range a.Partitions {
		if p := told[a.Partitions[i].PartitionPlace]; p != nil {
			a.Partitions[i] = *p
		}
	}
	addPartings(m, topics, a.Partitions)
	all.addCuts(&a)
	a.Silent, a.Links = all.silent, []LinkStatus{all.sumUp(m, l)}
	return a, nil, nil
}

// DescribeMirrors tells how the partitions of topics do that mirror by a link, or of all of its topics, by the answers of all nodes, and which nodes have not answered.
func DescribeMirrors(ctx context.Context, c *Controller, l *meta.Link, topics []string) (list []PartitionStatus, silent []SilentNode, err error) {
	q := &LinkRequest{Verb: LinkDescribe, Name: l.Name, Topics: topics}
	for {
		a, refused, err := describeLink(ctx, c, l, q)
		switch {
		case err != nil:
			return nil, nil, err
		case refused != nil: // a topic was deleted just now
			return nil, nil, errors.New(refused.Message)
		}
		list, silent = append(list, a.Partitions...), a.Silent
		if a.More == 0 || len(a.Partitions) == 0 {
			return list, silent, nil
		}
		q.After = &a.Partitions[len(a.Partitions)-1].PartitionPlace
	}
}

// listOwnUncut lists some of the replicas of this node that cannot make a cut, in their order.
func listOwnUncut(c *Controller, isWanted func(topic string) bool) []UncutReplica {
	list := slices.DeleteFunc(c.cfg.Tails.ListUncut(), func(r UncutReplica) bool { return !isWanted(r.Topic) })
	slices.SortFunc(list, compareUncut)
	list = list[:min(len(list), mostTailProblems)]
	for i := range list {
		list[i].Node, list[i].Problem = c.cfg.Quorum.cfg.NodeID, cutText(list[i].Problem, mostReason)
	}
	return list
}

func compareUncut(a, b UncutReplica) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Node, b.Node))
}

// tellCuts tells what this node has kept of a link's topics, and which of its replicas of them cannot make a cut.
func tellCuts(c *Controller, m *meta.Image, l *meta.Link, topics []string) (sum TailSum, uncut []UncutReplica) {
	if c.cfg.Tails == nil {
		return sum, nil
	}
	isWanted := map[string]bool{}
	for _, t := range mirrorsOf(m, l.ID, topics) {
		isWanted[t.Name] = true
	}
	list, _, _ := c.cfg.Tails.ListTails(new(TailRequest), mostCounted)
	for i := range list {
		if isWanted[list[i].Topic] {
			sum.Tails, sum.Bytes = sum.Tails+1, sum.Bytes+list[i].Bytes
		}
	}
	return sum, listOwnUncut(c, func(topic string) bool { return isWanted[topic] })
}

// addCuts adds to the answer about a link what nodes have kept, and which of their replicas cannot make a cut.
func (all *linkAnswers) addCuts(a *LinkAnswer) {
	for _, id := range slices.Sorted(maps.Keys(all.byNode)) {
		of := all.byNode[id]
		a.Tails.Tails, a.Tails.Bytes = a.Tails.Tails+of.Tails.Tails, a.Tails.Bytes+of.Tails.Bytes
		a.Uncut = append(a.Uncut, of.Uncut[:min(len(of.Uncut), mostTailProblems)]...)
	}
	slices.SortFunc(a.Uncut, compareUncut)
	a.Uncut = a.Uncut[:min(len(a.Uncut), mostTailProblems)]
}
