package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/tunnel"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/sealing"
)

// linking has a node mirror topics of other clusters, and serves what administrators ask for about links: a cluster.LinkServer.
type linking struct {
	n       *Node
	service atomic.Pointer[mirror.Service] // nil: not built yet, or closed
	tails   keptTails
	hub     *tunnel.Hub // the agents that are connected; made before the node lets anybody in
}

// secretKind is the kind of links' secrets, for package sealing.
const secretKind = "link"

// openLinks builds what mirrors topics of other clusters. It does nothing before the node follows the metadata.
func openLinks(n *Node) {
	n.linking.tails.set.Store(n.set)
	n.linking.service.Store(mirror.New(n.ctx, &mirror.Config{
		NodeID: n.id.nodeID, Logger: n.loggers.loggerOf("mirror"), Image: n.image.Load, Static: n.static,
		ChangeLinks: func(ctx context.Context, q *controller.LinksChange) ([]*controller.Error, *controller.Error, error) {
			return cluster.ChangeLinks(ctx, n.peers.commands, q)
		},
		AlterConfigs: func(ctx context.Context, q []controller.ConfigChanges) ([]*controller.Error, error) {
			return n.controller.AlterConfigs(ctx, q, false)
		},
		IsController: func() bool {
			_, is := n.quorum.Leading()
			return is && n.built.Load()
		},
		Recorded: func(c *mirror.AccessChange) { recordAccess(n, c) },
		Partition: func(id mirror.PartitionID) mirror.Log {
			t := n.set.TopicByID(id.Topic)
			if t == nil || t.Partition(id.Number) == nil {
				return nil
			}
			return mirror.NewReplicaLog(t.Partition(id.Number))
		},
		Transactions: func(id mirror.PartitionID) mirror.Transactions {
			t := n.set.TopicByID(id.Topic)
			if t == nil || t.Partition(id.Number) == nil {
				return mirror.NoTransactions{}
			}
			return mirror.NewReplicaTransactions(t.Partition(id.Number))
		},
		AskNode: func(ctx context.Context, node int32, question json.RawMessage) (json.RawMessage, error) {
			return cluster.AskClaims(ctx, n.peers.commands, node, question)
		},
		DialByAgent: n.linking.hub.Dial,
		Commit:      n.set.Commit, CountCommits: func() int64 { return replica.CountCommits(n.set) }, OpenSecret: n.linking.openSecret, Memory: n.work,
		Groups: linkPositions{n}.groupsHere(), PositionBytes: linkPositions{n}.memory(),
	}))
}

// close ends all mirroring, if it was built, and the connections of agents.
func (l *linking) close() {
	if s := l.service.Load(); s != nil {
		s.Close()
	}
	l.hub.Close()
}

// follow follows a change of the metadata.
func (l *linking) follow(d *meta.Delta, img *meta.Image) {
	if s := l.service.Load(); s != nil {
		s.Apply(d, img)
	}
	if d.Brokers && l.hub != nil {
		l.hub.NoteNodes()
	}
	if len(d.Links) > 0 {
		l.n.noteNodes() // so that agents whose tokens were revoked are let go
	}
}

// memory is how much of Go's heap answers of sources, and what is known of them, may take; 0: there are no links.
func (l *linking) memory() int64 {
	if l.n.image.Load().Links().Len() == 0 {
		return 0
	}
	return l.n.work.Usage(budget.Mirror).Limit + linkPositions{l.n}.memory()
}

func (l *linking) purpose() sealing.Purpose {
	return sealing.Purpose{Kind: secretKind, Cluster: l.n.id.clusterID}
}

// ring is the sealing keys of the cluster.
func (l *linking) ring() (*sealing.Ring, error) {
	kept := l.n.keys.kept()
	if kept == nil {
		return nil, errors.New(strings.TrimSuffix(l.n.keys.whyNone(), "."))
	}
	return kept.readRing(l.n.fs)
}

func (l *linking) openSecret(sealed []byte) ([]byte, error) {
	ring, err := l.ring()
	if err != nil {
		return nil, err
	}
	return ring.Open(l.purpose(), sealed)
}

func (l *linking) sealSecret(secret []byte) ([]byte, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	ring, err := l.ring()
	if err != nil {
		return nil, err
	}
	return ring.Seal(l.purpose(), secret)
}

// resealSecret seals a secret by the key of a ring that seals.
func (l *linking) resealSecret(ring *sealing.Ring, sealed []byte) ([]byte, error) {
	secret, err := ring.Open(l.purpose(), sealed)
	if err != nil {
		return nil, err
	}
	return ring.Seal(l.purpose(), secret)
}

// ListMirrors is that of cluster.LinkServer.
func (l *linking) ListMirrors(link meta.UUID) (list []cluster.PartitionStatus) {
	s := l.service.Load()
	if s == nil {
		return nil
	}
	all := s.Status(link)
	for i := range all {
		list = append(list, l.statusOf(&all[i]))
	}
	return list
}

func (l *linking) statusOf(s *mirror.PartitionStatus) cluster.PartitionStatus {
	lag := cluster.UnknownLag()
	if s.Status.Source.HighWatermark >= 0 {
		lag.Records, lag.Bytes = s.Lag.Records, s.Lag.Bytes
	}
	if missing := int64(s.Range.To - s.Log.End); s.State == progress.Gap && missing > lag.Records {
		lag.Records = missing // the source begins there, and has not said since how far it goes
	}
	if lag.Records > 0 && s.Lag.Bytes == 0 {
		lag.Bytes = -1 // nothing was read here from which it could be told
	}
	if s.Lag.IsKnown {
		lag.Behind, lag.RPO = s.Lag.Behind, s.Lag.RPO
	}
	return cluster.PartitionStatus{
		Link: s.Link, PartitionPlace: cluster.PartitionPlace{Topic: s.Topic, Partition: s.Number}, Source: s.Source, Node: l.n.id.nodeID,
		State: s.State.String(), Reason: s.Reason, From: int64(s.Range.From), To: int64(s.Range.To),
		End: int64(s.Log.End), SourceEnd: int64(s.Status.Source.HighWatermark), Lag: lag, LastContact: s.LastContact, RetryIn: s.RetryIn, Open: s.Open,
	}
}

// ListTasks is that of cluster.LinkServer.
func (l *linking) ListTasks() (list []cluster.TaskStatus) {
	s := l.service.Load()
	if s == nil {
		return nil
	}
	for _, t := range s.Tasks() {
		one := cluster.TaskStatus{Link: t.Link, Task: t.Task, Node: l.n.id.nodeID, State: string(t.State), Reason: t.Reason, Last: t.Last, Notes: slices.Clone(t.Notes)}
		for _, d := range t.Differences {
			one.Differences = append(one.Differences, cluster.ConfigDifference{Topic: d.Topic, Key: d.Key, Source: d.Source, Here: d.Here, Fate: string(d.Fate), Why: d.Why, At: d.At})
		}
		if p := t.Positions; p != nil {
			one.Positions = &cluster.PositionsStatus{
				Mode: string(p.Mode), Why: p.Why, Groups: p.Groups, Positions: p.Positions, Open: p.Open, Loading: p.Loading, Ahead: p.Ahead, Held: p.Held,
			}
		}
		list = append(list, one)
	}
	return list
}

// AnswerClaims is that of cluster.LinkServer.
func (l *linking) AnswerClaims(question json.RawMessage) (json.RawMessage, error) {
	s := l.service.Load()
	if s == nil {
		return nil, errors.New("the node has not started yet")
	}
	return s.AnswerClaims(question)
}

// ServeLink is that of cluster.LinkServer.
func (l *linking) ServeLink(ctx context.Context, q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
	if l.service.Load() == nil {
		return a, nil, errors.New("the node has not started yet")
	}
	r := linkRequest{l: l, q: q, link: l.n.image.Load().Links().FindName(q.Name)}
	if r.link == nil && q.Verb != cluster.LinkCreate && (q.Verb != cluster.LinkCheck || len(q.Settings) == 0) {
		return a, refuseLink(controller.UnknownLink, "There is no link %q any more.", q.Name), nil
	}
	switch q.Verb {
	case cluster.LinkCreate:
		refused, err = r.create(ctx)
	case cluster.LinkAlter:
		refused, err = r.alter(ctx)
	case cluster.LinkDelete:
		refused, err = r.change(ctx, &controller.LinksChange{Kind: controller.RemoveLink, LinkID: r.link.ID})
	case cluster.LinkPause:
		refused, err = r.setPaused(ctx, true)
	case cluster.LinkResume:
		refused, err = r.setPaused(ctx, false)
	case cluster.LinkSkip:
		refused, err = r.skip(ctx)
	case cluster.LinkRestore:
		refused, err = r.restore(ctx)
	case cluster.LinkPromote, cluster.LinkFailover:
		refused, err = r.promote(ctx)
	case cluster.LinkCheck:
		refused, err = r.checkOnly(ctx)
	case cluster.LinkAgentToken:
		refused, err = r.makeAgentToken(ctx)
	case cluster.LinkAgentRevoke:
		refused, err = r.revokeAgentToken(ctx)
	default:
		refused = refuseLink(controller.InvalidRequest, "This version of Leat does not know %q.", q.Verb)
	}
	return r.a, refused, err
}

func refuseLink(kind controller.Kind, format string, args ...any) *controller.Error {
	return &controller.Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// linkRequest is one request of an administrator, with its answer.
type linkRequest struct {
	l    *linking
	q    *cluster.LinkRequest
	link *meta.Link // nil: there is none of the name
	tag  uint32     // of the source; 0: it has none
	a    cluster.LinkAnswer
}

// change has the controller make a change, unless it is only to be tried.
func (r *linkRequest) change(ctx context.Context, c *controller.LinksChange) (*controller.Error, error) {
	r.a.Changed = true
	if r.q.DryRun {
		return nil, nil
	}
	results, refused, err := cluster.ChangeLinks(ctx, r.l.n.peers.commands, c)
	if i := slices.IndexFunc(results, func(e *controller.Error) bool { return e != nil }); i >= 0 && refused == nil {
		refused = results[i]
	}
	r.a.Changed = refused == nil && err == nil
	return refused, err
}

// check validates a link, and puts what was found into the answer.
func (r *linkRequest) check(ctx context.Context, link *meta.Link, secrets []byte) {
	if r.q.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.q.Within)
		defer cancel()
	}
	r.tellAgents(link)
	found := r.l.service.Load().Check(ctx, link, secrets)
	r.tag = found.Tag
	r.a.Source, r.a.Steps = found.Source, append(r.a.Steps, found.Steps...)
	r.a.Problems, r.a.Warnings = append(r.a.Problems, problemsOf(found.Problems)...), append(r.a.Warnings, problemsOf(found.Warnings)...)
	for _, t := range found.Topics {
		r.a.Topics = append(r.a.Topics, cluster.LinkTopic{Source: t.Source, Name: t.Here, Partitions: t.Partitions})
	}
}

func problemsOf(list []mirror.Finding) (all []cluster.LinkProblem) {
	for _, f := range list {
		all = append(all, cluster.LinkProblem{About: f.About, Text: f.Text, Do: f.Do})
	}
	return all
}

// canSeal tells whether secrets can be sealed, and makes a problem of it if not.
func (r *linkRequest) canSeal(secrets []byte) bool {
	if len(secrets) == 0 {
		return true
	}
	if _, err := r.l.ring(); err != nil {
		r.a.Problems = append(r.a.Problems, cluster.LinkProblem{
			About: "secrets", Text: fmt.Sprintf("The password or key of the link could not be encrypted, and would lie open in the metadata: %v.", err), Do: "Secure this cluster first: leat secure.",
		})
		return false
	}
	return true
}

func (r *linkRequest) create(ctx context.Context) (*controller.Error, error) {
	if r.link != nil {
		r.a.Existed, r.a.Source = true, r.link.Source
		return r.compare()
	}
	secrets, err := mirror.EncodeSecrets(r.q.Secrets)
	if err != nil {
		return nil, err
	}
	link := &meta.Link{ID: meta.NewUUID(), Name: r.q.Name, Settings: r.q.Settings}
	r.check(ctx, link, secrets)
	canSeal := r.canSeal(secrets)
	if len(r.a.Problems) > 0 && !r.q.Force {
		return nil, nil
	}
	switch link.Source = r.a.Source; {
	case link.Source == "" && !link.IsViaAgent(): // that of a link by agents is found when one is there
		return refuseLink(controller.InvalidRequest, "The source has not told its cluster id, without which there can be no link."), nil
	case !canSeal:
		return refuseLink(controller.PolicyViolation, "%s", r.a.Problems[len(r.a.Problems)-1].Text), nil
	}
	link.Settings = withTag(link.Settings, r.tag)
	if link.Secret, err = r.l.sealSecret(secrets); err != nil {
		return refuseKey("%v", err), nil
	}
	return r.change(ctx, &controller.LinksChange{Kind: controller.CreateLink, Link: link})
}

// withTag adds the tag of the source to the settings of a link, in the order of their keys.
func withTag(list []meta.LinkSetting, tag uint32) []meta.LinkSetting {
	list = slices.DeleteFunc(slices.Clone(list), func(s meta.LinkSetting) bool { return s.Key == mirror.TagSetting })
	if tag != 0 {
		list = append(list, meta.LinkSetting{Key: mirror.TagSetting, Value: strconv.FormatUint(uint64(tag), 10)})
	}
	slices.SortFunc(list, func(a, b meta.LinkSetting) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// isFoundOut tells whether a setting is one for which nobody asks.
func isFoundOut(key string) bool { return key == mirror.TagSetting || key == mirror.AheadSetting }

// compare says how a link that is there differs from the one that is asked for.
func (r *linkRequest) compare() (*controller.Error, error) {
	has, asked := map[string]string{}, map[string]string{}
	for _, s := range r.link.Settings {
		if !isFoundOut(s.Key) {
			has[s.Key] = s.Value
		}
	}
	for _, s := range r.q.Settings {
		asked[s.Key] = s.Value
	}
	for _, s := range append(slices.Clone(r.link.Settings), r.q.Settings...) {
		if isFoundOut(s.Key) {
			continue
		}
		hv, isSet := has[s.Key]
		av, isAsked := asked[s.Key]
		if isSet == isAsked && hv == av || slices.ContainsFunc(r.a.Differences, func(d cluster.LinkDifference) bool { return d.Key == s.Key }) {
			continue
		}
		d := cluster.LinkDifference{Key: s.Key}
		if isSet {
			d.Has = &hv
		}
		if isAsked {
			d.Asked = &av
		}
		r.a.Differences = append(r.a.Differences, d)
	}
	secrets, err := mirror.EncodeSecrets(r.q.Secrets)
	if err != nil {
		return nil, err
	}
	var kept []byte
	if len(r.link.Secret) > 0 {
		if kept, err = r.l.openSecret(r.link.Secret); err != nil {
			return refuseKey("%v", err), nil
		}
	}
	if string(kept) != string(secrets) {
		r.a.Differences = append(r.a.Differences, cluster.LinkDifference{Key: cluster.PasswordKey})
	}
	return nil, nil
}

func (r *linkRequest) alter(ctx context.Context) (*controller.Error, error) {
	change := &controller.LinkChange{Settings: map[string]*string{}}
	next := *r.link
	next.Settings = slices.DeleteFunc(slices.Clone(r.link.Settings), func(s meta.LinkSetting) bool {
		return slices.Contains(r.q.Unset, s.Key) || slices.ContainsFunc(r.q.Settings, func(o meta.LinkSetting) bool { return o.Key == s.Key })
	})
	for _, key := range r.q.Unset {
		change.Settings[key] = nil
	}
	for i := range r.q.Settings {
		s := &r.q.Settings[i]
		change.Settings[s.Key] = &s.Value
		next.Settings = append(next.Settings, *s)
	}
	var secrets []byte
	var err error
	switch {
	case r.q.Secrets != nil:
		secrets, err = mirror.EncodeSecrets(r.q.Secrets)
	case len(r.link.Secret) > 0:
		secrets, err = r.l.openSecret(r.link.Secret)
	}
	if err != nil {
		return refuseKey("%v", err), nil
	}
	r.check(ctx, &next, secrets)
	canSeal := r.q.Secrets == nil || r.canSeal(secrets)
	if len(r.a.Problems) > 0 && (!r.q.Force || !canSeal) {
		return nil, nil
	}
	if r.q.Secrets != nil {
		sealed, err := r.l.sealSecret(secrets)
		if err != nil {
			return refuseKey("%v", err), nil
		}
		change.Secret = &sealed
	}
	return r.change(ctx, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: r.link.ID, Change: change})
}

func (r *linkRequest) checkOnly(ctx context.Context) (*controller.Error, error) {
	if len(r.q.Settings) > 0 {
		secrets, err := mirror.EncodeSecrets(r.q.Secrets)
		if err != nil {
			return nil, err
		}
		r.check(ctx, &meta.Link{Name: r.q.Name, Settings: r.q.Settings}, secrets)
		r.canSeal(secrets)
		return nil, nil
	}
	var secrets []byte
	if len(r.link.Secret) > 0 {
		var err error
		if secrets, err = r.l.openSecret(r.link.Secret); err != nil {
			return refuseKey("%v", err), nil
		}
	}
	r.check(ctx, r.link, secrets)
	return nil, nil
}

// topicsOf finds the topics of a request, which mirror by its link.
func (r *linkRequest) topicsOf() (list []*meta.Topic, refused *controller.Error) {
	img := r.l.n.image.Load()
	for _, name := range r.q.Topics {
		t := img.Topic(name)
		if t == nil || t.Mirror == nil || t.Mirror.Link != r.link.ID {
			return nil, refuseLink(controller.InvalidRequest, "The topic %s does not mirror by the link %s.", name, r.link.Name)
		}
		list = append(list, t)
	}
	return list, nil
}

func (r *linkRequest) setPaused(ctx context.Context, paused bool) (*controller.Error, error) {
	if len(r.q.Topics) == 0 {
		if r.link.Paused == paused {
			return nil, nil
		}
		return r.change(ctx, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: r.link.ID, Change: &controller.LinkChange{Paused: &paused}})
	}
	topics, refused := r.topicsOf()
	if refused != nil {
		return refused, nil
	}
	c := &controller.LinksChange{Kind: controller.ResumeMirrors}
	if paused {
		c.Kind = controller.PauseMirrors
	}
	for _, t := range topics {
		if (t.Mirror.State == meta.MirrorPaused) != paused {
			c.Topics = append(c.Topics, controller.MirrorTopic{ID: t.ID})
		}
	}
	if len(c.Topics) == 0 {
		return nil, nil
	}
	return r.change(ctx, c)
}

// skip accepts what partitions of a topic have lost, and has those that have failed try again.
func (r *linkRequest) skip(ctx context.Context) (*controller.Error, error) {
	topics, refused := r.topicsOf()
	if refused != nil {
		return refused, nil
	}
	t := topics[0]
	c := &controller.LinksChange{Kind: controller.SetMirrorStates}
	for i := range t.Partitions {
		p := t.Partitions[i].Mirror
		if p == nil || len(r.q.Partitions) > 0 && !slices.Contains(r.q.Partitions, int32(i)) {
			continue
		}
		switch p.State {
		case meta.PartitionGap, meta.PartitionTombstonesLost, meta.PartitionFailed:
			c.Partitions = append(c.Partitions, controller.MirrorPartition{Topic: t.ID, Number: int32(i), LeaderEpoch: controller.NoLeaderEpoch, State: meta.PartitionMirrors, Gap: p.Gap})
			if p.State != meta.PartitionFailed {
				r.a.Steps = append(r.a.Steps, fmt.Sprintf("partition %d goes on without the records from offset %d up to %d", i, p.Gap.Start, p.Gap.End))
			} else {
				r.a.Steps = append(r.a.Steps, fmt.Sprintf("partition %d tries again", i))
			}
		default:
		}
	}
	if len(c.Partitions) == 0 {
		return nil, nil
	}
	return r.change(ctx, c)
}
