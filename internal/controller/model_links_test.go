package controller

import (
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/meta"
)

// modelMirror is the truth about a topic that mirrors, or has mirrored.
type modelMirror struct {
	link  meta.UUID
	state meta.MirrorState
	parts []*modelMirrorPart
}

// modelMirrorPart is the truth about one of its partitions.
type modelMirrorPart struct {
	state   meta.PartitionMirrorState
	raised  int32   // the leader epoch that was asked for
	cuts    []int64 // the offsets of all cuts, by their numbers
	decided []meta.MirrorDecision
}

// stepLinks changes a link, or a topic that mirrors.
func (w *modelWorld) stepLinks() {
	if w.chance(0.1) && len(w.late) > 0 {
		i := w.rng.IntN(len(w.late))
		q := w.late[i]
		if w.chance(0.5) {
			w.late = slices.Delete(w.late, i, i+1)
		}
		w.seen["mirrors: late change"]++
		w.changeLinks(q)
		return
	}
	t := w.pickMirror()
	switch n := w.rng.IntN(20); {
	case n == 0:
		w.changeLink()
	case n == 1 || t == nil:
		w.createMirror()
	case n == 2 && w.chance(0.4):
		w.deleteTopic(t)
	case n == 3 && w.chance(0.4):
		w.changeLinks(&LinksChange{Kind: PromoteMirrors, Topics: []MirrorTopic{{ID: t.ID}}})
	case n == 4:
		w.changeLinks(&LinksChange{Kind: ExtendMirrors, Topics: []MirrorTopic{{ID: t.ID, Partitions: int32(len(t.Partitions) + w.rng.IntN(2))}}})
	case n == 5:
		w.changeLinks(&LinksChange{Kind: []LinksKind{PauseMirrors, ResumeMirrors}[w.rng.IntN(2)], Topics: []MirrorTopic{{ID: t.ID}}})
	default:
		w.changePartitions(t)
	}
}

func (w *modelWorld) pickMirror() *meta.Topic {
	var topics []*meta.Topic
	for _, t := range w.rules().concerned(func(*meta.Partition) bool { return true }) {
		if t.Mirror != nil {
			topics = append(topics, t)
		}
	}
	if len(topics) == 0 {
		return nil
	}
	return topics[w.rng.IntN(len(topics))]
}

// changeLink makes the link, or tries to remove it.
func (w *modelWorld) changeLink() {
	l := w.m.Links().FindName("north")
	if l == nil {
		w.next++
		w.changeLinks(&LinksChange{Kind: CreateLink, Link: &meta.Link{ID: meta.UUID{3, byte(w.next), byte(w.next >> 8)}, Name: "north", Source: "source"}})
		return
	}
	w.changeLinks(&LinksChange{Kind: RemoveLink, LinkID: l.ID})
}

func (w *modelWorld) createMirror() {
	l := w.m.Links().FindName("north")
	if l == nil || len(w.mirrors) > 4 {
		return
	}
	w.next++
	name := fmt.Sprint("m", w.rng.IntN(6)) // a name is used again
	w.changeLinks(&LinksChange{Kind: CreateMirrors, Topics: []MirrorTopic{{
		Name: name, Partitions: int32(1 + w.rng.IntN(3)), ReplicationFactor: -1,
		Mirror: &meta.Mirror{Link: l.ID, Topic: "s", TopicID: meta.UUID{5, byte(w.next), byte(w.next >> 8)}, Path: []string{"source"}},
	}}})
}

// changePartitions changes some partitions of a topic, now or later, as their leaders ask for it, or one that was a leader.
func (w *modelWorld) changePartitions(t *meta.Topic) {
	q := &LinksChange{Kind: []LinksKind{SetMirrorStates, CutMirrors, CutMirrors, RaiseEpochs, RaiseEpochs, DecidePromotions, DecidePromotions, FinishPromotions, FinishPromotions}[w.rng.IntN(9)]}
	q.LinkID, q.Decided = t.Mirror.Link, DecidedSum(w.m, t.Mirror.Link)
	for i := range t.Partitions {
		if len(q.Partitions) > 0 && w.chance(0.6) {
			continue
		}
		p := &t.Partitions[i]
		end := len(w.parts[partitionID{t.ID, int32(i)}].committed)
		a := MirrorPartition{Topic: t.ID, Number: int32(i), LeaderEpoch: p.LeaderEpoch, Reason: fmt.Sprint(w.rng.IntN(3))}
		a.State, a.Gap = meta.PartitionMirrors+meta.PartitionMirrorState(w.rng.IntN(5)), meta.OffsetRange{Start: int64(end), End: int64(end) + 1}
		a.Cut = meta.Cut{Number: p.Mirror.LastCut().Number + 1, Offset: int64(w.rng.IntN(end + 1))}
		a.Epoch = p.LeaderEpoch + int32(w.rng.IntN(3))
		a.End = int64(end)
		if q.Kind == DecidePromotions && w.chance(0.5) {
			a.Decisions = []meta.MirrorDecision{{Producer: int64(w.rng.IntN(9)), MarkerEpoch: 1, First: int64(w.rng.IntN(9)), Commit: w.chance(0.5)}}
		}
		if w.chance(0.05) {
			a.LeaderEpoch = NoLeaderEpoch
		}
		q.Partitions = append(q.Partitions, a)
	}
	if w.chance(0.3) {
		w.late = append(w.late, q)
		if w.chance(0.5) {
			return
		}
	}
	w.changeLinks(q)
}

func (w *modelWorld) deleteTopic(t *meta.Topic) {
	records, refused := decideDeleteTopics(w.m, []meta.UUID{t.ID}, func(meta.UUID, int) *Error { return nil })
	if refused[0] != nil {
		w.fail("delete %s: %v", t.Name, refused[0])
	}
	w.apply("delete", records, nil)
	delete(w.mirrors, t.ID)
	w.seen["mirrors: topic deleted"]++
	if w.chance(0.5) { // a client makes an ordinary one of the name
		w.createTopicOf(t.Name)
	}
}

// changeLinks has a change decided, part by part, and takes over what is accepted.
func (w *modelWorld) changeLinks(q *LinksChange) {
	newID := func() meta.UUID {
		w.next++
		return meta.UUID{9, byte(w.next), byte(w.next >> 8), 15: byte(w.next)}
	}
	for from, items := 0, len(q.Topics)+len(q.Partitions); ; {
		d, results, refused := Links{Rules: w.rules(), NewID: newID, MaxPartitions: 100}.Change(q, from)
		before := w.m
		if refused == nil {
			w.apply("mirrors: "+string(q.Kind), d.Records, nil)
		}
		if w.t.Failed() || items == 0 {
			w.acceptLink(q, refused)
			return
		}
		if refused != nil {
			if q.Kind != DecidePromotions || refused.Kind != InvalidUpdate {
				w.fail("%s: %v", q.Kind, refused)
			}
			w.seen["mirrors: decided by who has not seen all"]++
			return
		}
		for i, e := range results {
			switch {
			case e != nil:
				w.seen["mirrors: refused"]++
			case len(q.Topics) > 0:
				w.acceptTopic(q.Kind, &q.Topics[from+i])
			default:
				w.acceptPartition(before, q.Kind, &q.Partitions[from+i])
			}
		}
		if from += len(results); from == items || w.chance(0.1) {
			return
		}
		w.seen["mirrors: parts"]++
	}
}

func (w *modelWorld) acceptLink(q *LinksChange, refused *Error) {
	if q.Kind == CreateLink {
		if refused != nil {
			w.fail("a link is refused: %v", refused)
		}
		return
	}
	isUsed := false
	for _, m := range w.mirrors {
		isUsed = isUsed || m.link == q.LinkID && m.state != meta.MirrorPromoted
	}
	if isUsed != (refused != nil) {
		w.fail("the link is used: %t, and its removal: %v", isUsed, refused)
	}
	for _, m := range w.mirrors {
		if m.link == q.LinkID && refused == nil {
			m.link = meta.UUID{}
			w.seen["mirrors: link removed"]++
		}
	}
}

func (w *modelWorld) acceptTopic(kind LinksKind, a *MirrorTopic) {
	t := w.m.TopicByID(a.ID)
	if kind == CreateMirrors {
		t = w.m.Topic(a.Name)
		w.mirrors[t.ID] = &modelMirror{link: a.Mirror.Link}
		w.seen["mirrors: made"]++
	}
	m := w.mirrors[t.ID]
	switch kind {
	case CreateMirrors, ExtendMirrors:
		for len(m.parts) < int(a.Partitions) {
			m.parts = append(m.parts, &modelMirrorPart{state: meta.PartitionMirrors})
		}
		if kind == CreateMirrors {
			m.state = meta.MirrorActive
		}
	case PauseMirrors:
		m.state = meta.MirrorPaused
	case ResumeMirrors:
		m.state = meta.MirrorActive
	default:
		if m.state >= meta.MirrorPromoting {
			return
		}
		m.state = meta.MirrorPromoting
		for _, p := range m.parts {
			p.state = meta.PartitionPromoting
		}
	}
}

// acceptPartition takes over a change that was not refused: it is the present leader's, or a person's, or was made before.
func (w *modelWorld) acceptPartition(before *meta.Image, kind LinksKind, a *MirrorPartition) {
	m := w.mirrors[a.Topic]
	p := m.parts[a.Number]
	old, now := &before.TopicByID(a.Topic).Partitions[a.Number], &w.m.TopicByID(a.Topic).Partitions[a.Number]
	isChanged := old.LeaderEpoch != now.LeaderEpoch || !old.Mirror.Equal(now.Mirror)
	if isChanged && kind != RaiseEpochs && a.LeaderEpoch != old.LeaderEpoch && (a.LeaderEpoch != NoLeaderEpoch || kind != SetMirrorStates) {
		w.fail("%s of leader epoch %d changes %+v", kind, a.LeaderEpoch, *old)
	}
	switch kind {
	case SetMirrorStates:
		p.state = a.State
	case CutMirrors:
		if int(a.Cut.Number) == len(p.cuts)+1 {
			p.cuts = append(p.cuts, a.Cut.Offset)
			p.state = meta.PartitionMirrors
			w.seen["mirrors: cut"]++
		}
	case RaiseEpochs:
		p.raised = max(p.raised, a.Epoch)
		w.seen["mirrors: epoch raised"]++
	case DecidePromotions:
		if old.Mirror.IsDecided {
			return
		}
		last := now.Mirror.Lineages[len(now.Mirror.Lineages)-1]
		if !now.Mirror.IsDecided || last != (meta.Lineage{Cluster: "here", Epoch: now.LeaderEpoch, Start: a.End}) || now.LeaderEpoch <= max(p.raised, old.LeaderEpoch) {
			w.fail("the promotion of a partition was decided in leader epoch %d, and %d was raised: %+v", now.LeaderEpoch, p.raised, now.Mirror)
		}
		p.decided = now.Mirror.Decisions
		w.seen["mirrors: decided"]++
	default:
		if p.state == meta.PartitionPromoted {
			return
		}
		p.state = meta.PartitionPromoted
		if !old.Mirror.IsDecided || now.LeaderEpoch <= old.LeaderEpoch {
			w.fail("a partition was promoted in leader epoch %d after %d: %+v", now.LeaderEpoch, old.LeaderEpoch, old.Mirror)
		}
		if !slices.ContainsFunc(m.parts, func(p *modelMirrorPart) bool { return p.state != meta.PartitionPromoted }) {
			m.state = meta.MirrorPromoted
			w.seen["mirrors: promoted"]++
		}
	}
}

// checkCut checks that a cut comes with a raised leader epoch, and that none is lost; and takes it over into the logs: each replica obeys it before it does anything else.
func (w *modelWorld) checkCut(what string, c meta.TopicChange, number int32) {
	if c.Old == nil || int(number) >= len(c.Old.Partitions) {
		return
	}
	old, p := &c.Old.Partitions[number], &c.New.Partitions[number]
	had, has := old.Mirror.LastCut(), p.Mirror.LastCut()
	switch {
	case had == has:
		return
	case has.Number != had.Number+1, p.LeaderEpoch <= old.LeaderEpoch, p.PartitionEpoch <= old.PartitionEpoch:
		w.fail("%s: %s-%d goes from cut %+v to %+v, and from %+v to %+v", what, c.New.Name, number, had, has, *old, *p)
	}
	truth := w.parts[partitionID{c.New.ID, number}]
	for _, l := range truth.logs {
		l.cut(int(has.Offset))
	}
	truth.committed = truth.committed[:min(len(truth.committed), int(has.Offset))]
}

// checkMirrors compares the image with the truth: nothing has lost or changed a mirror that had not been asked to.
func (w *modelWorld) checkMirrors() {
	count := 0
	for t := range w.m.Topics() {
		m := w.mirrors[t.ID]
		if m == nil {
			m = &modelMirror{}
		} else {
			count++
		}
		if t.Mirror != nil && (t.Mirror.Link != m.link || t.Mirror.State != m.state) || (t.Mirror == nil) != (m.state == 0) || m.state != 0 && len(m.parts) != len(t.Partitions) {
			w.fail("%s is %+v of %d partitions, and should be %+v", t.Name, t.Mirror, len(t.Partitions), *m)
			return
		}
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if m.state == 0 {
				if p.Mirror != nil {
					w.fail("%s-%d mirrors: %+v", t.Name, i, p.Mirror)
				}
				continue
			}
			w.checkMirror(fmt.Sprint(t.Name, "-", i), p, m.parts[i])
		}
	}
	if count != len(w.mirrors) {
		w.fail("there are %d topics that mirror or have mirrored, and should be %d", count, len(w.mirrors))
	}
}

func (w *modelWorld) checkMirror(name string, p *meta.Partition, want *modelMirrorPart) {
	if p.Mirror != nil && !slices.Equal(p.Mirror.Decisions, want.decided) {
		w.fail("%s has the decisions %+v, and was given %+v", name, p.Mirror.Decisions, want.decided)
	}
	if p.Mirror == nil || p.Mirror.State != want.state || p.LeaderEpoch < want.raised || p.IsMirror() != (want.state != meta.PartitionPromoted) {
		w.fail("%s is %+v, and mirrors %+v; it should be %+v", name, *p, p.Mirror, *want)
		return
	}
	for done := range want.cuts {
		c, ok := p.Mirror.PendingCut(int32(done))
		if !ok || int(c.Number) != len(want.cuts) || c.Offset > slices.Min(want.cuts[done:]) {
			w.fail("%s: who has obeyed %d cuts of %v is to cut at %+v", name, done, want.cuts, c)
		}
	}
	if _, ok := p.Mirror.PendingCut(int32(len(want.cuts))); ok {
		w.fail("%s has more cuts than %v: %v", name, want.cuts, p.Mirror.Cuts)
	}
}
