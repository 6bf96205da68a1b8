package group

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/mirror/position"
)

// A link to another cluster has the positions of the groups there be those of the groups here. It asks what the groups have, decides, and sends changes, each with what the position was then:
//
//	link -- Question: groups ------------> Machine.TellLink
//	link -- Question: changes -----------> Machine.ChangeForLink: the group has no members, and the position is as it was -> the record, with the link's id
//
// The comparison and the records are of one step, so that no commit of a client comes between. Records are marked with the link's id, by which the link knows later what it has made.

// LinkedTopics are the topics that mirror by a link, by name, with their ids here.
type LinkedTopics func(topic string) (id [16]byte, ok bool)

// findStored finds the offset of a partition; nil: there is none. The group may be nil.
func (g *group) findStored(topic string, partition int32) *storedOffset {
	if g == nil {
		return nil
	}
	list := g.offsets.ofTopic(topic)
	if i, ok := searchPartition(list, partition); ok {
		return &list[i]
	}
	return nil
}

// isActiveHere tells whether a group has members, or is about to have some. The group may be nil.
func (g *group) isActiveHere() bool { return g != nil && !g.classic.IsIdle() }

// isIt tells whether an offset is the one that a link has seen; nil: there was none.
func (k *storedOffset) isIt(was *position.Stored, link [16]byte) bool {
	if k == nil || was == nil {
		return k == nil && was == nil
	}
	return k.at == was.Offset && k.time == was.Time && (k.isOfLink() && k.extra.link == link) == was.IsOurs
}

// TellLink tells a link of a group, as far as size bytes are enough, but of one position at least: those behind a place of topics that mirror by the link.
func (m *Machine) TellLink(s *coord.Step, q *position.Question, name string, mirrors LinkedTopics, size int) position.ToldGroup {
	told := position.ToldGroup{Name: position.Text(name)}
	g := m.findGroup(s, name)
	if g == nil {
		return told
	}
	told.IsActive = g.isActiveHere()
	aging := m.settings().Retention.Milliseconds() / 2
	for _, t := range g.offsets.sortTopics() {
		id, ok := mirrors(t.text)
		if !ok || t.text < q.AfterTopic {
			continue
		}
		list := g.offsets.topics[t]
		for i := range list {
			k := &list[i]
			if t.text == q.AfterTopic && k.partition <= q.AfterPartition || isOtherTopic(k.topic, id) {
				continue
			}
			o := k.toOffset()
			p := position.ToldPosition{
				Topic: t.text, Partition: k.partition, Epoch: o.Epoch, Metadata: position.Text(o.Metadata),
				Stored: position.Stored{Offset: o.At, Time: o.Time, IsOurs: o.Link == q.Link}, IsAging: k.isOfLink() && s.Now.UnixMilli()-m.lastUsed(g, k) >= aging,
			}
			if size -= p.Size(); size < 0 && len(told.Positions) > 0 {
				told.IsMore = true
				return told
			}
			told.Positions = append(told.Positions, p)
		}
	}
	return told
}

// ListForLink lists the groups that have positions which a link has made.
func (m *Machine) ListForLink(s *coord.Step, link [16]byte) (names []string) {
	s.After(m.last)
	for _, g := range m.groups {
		if g.hasPositionsOf(link) {
			names = append(names, g.id)
		}
	}
	return names
}

func (g *group) hasPositionsOf(link [16]byte) bool {
	for _, list := range g.offsets.topics {
		if slices.ContainsFunc(list, func(k storedOffset) bool { return k.extra != nil && k.extra.link == link }) {
			return true
		}
	}
	return false
}

// ChangeForLink makes changes of a link, all of groups of this partition, and returns how each has ended if the step's records are committed.
func (m *Machine) ChangeForLink(s *coord.Step, link [16]byte, changes []*position.Change, mirrors LinkedTopics) []position.Outcome {
	outcomes := make([]position.Outcome, len(changes))
	growth := int64(0)
	for i, c := range changes {
		id, ok := mirrors(c.Topic)
		switch g := m.findGroup(s, string(c.Group)); {
		case !ok:
			outcomes[i] = position.NotHere
		case g.isActiveHere() || g.isUnstable(c.Topic, c.Partition):
			outcomes[i] = position.WasActive
		case !g.findStored(c.Topic, c.Partition).isIt(c.Was, link):
			if k := g.findStored(c.Topic, c.Partition); c.Was != nil || k == nil || !isOtherTopic(k.topic, id) { // that of a deleted topic of the name is none
				outcomes[i] = position.WasChanged
			}
		}
		if outcomes[i] != position.Done || c.Kind != position.Commits {
			continue
		}
		more := groupBytes + classic.Size(string(c.Group)) + topicEntryBytes + nameSize(len(c.Topic)) + storedOffsetSize(len(c.Metadata), true)
		if growth+more > m.memory.Room() {
			m.memory.WarnFull(s.Now, string(c.Group), growth+more)
			outcomes[i] = position.Failed
			continue
		}
		growth += more
	}
	next := 0
	var put func()
	put = func() {
		for ; next < len(changes); next++ {
			if isBatchFull(s) {
				s.Then(put)
				return
			}
			if outcomes[next] == position.Done {
				m.putForLink(s, link, changes[next], mirrors)
			}
		}
	}
	put()
	return outcomes
}

// putForLink makes one change that is accepted.
func (m *Machine) putForLink(s *coord.Step, link [16]byte, c *position.Change, mirrors LinkedTopics) {
	switch c.Kind {
	case position.Commits:
		id, _ := mirrors(c.Topic)
		putOffset(s, string(c.Group), c.Topic, c.Partition, &offset{
			At: c.Offset, Epoch: c.Epoch, Time: s.Now.UnixMilli(), Expires: noExpiry, Topic: id, Link: link, Metadata: string(c.Metadata),
		})
	case position.Deletes:
		putOffset(s, string(c.Group), c.Topic, c.Partition, nil)
	case position.Confirms: // no record: another coordinator counts from its load on
		if k := m.groups[string(c.Group)].findStored(c.Topic, c.Partition); k != nil && k.isOfLink() {
			k.extra.confirmed = s.Now.UnixMilli()
		}
	}
}

// ServeLink answers a link, changes first. reply is called once, as those of the other methods.
func (sv *Service) ServeLink(q *position.Question, mirrors LinkedTopics, reply func(*position.Answer)) {
	a := &position.Answer{}
	hasSession := sv.cfg.HasSession() // before anything is read
	if !hasSession {
		a.Problem = "the node has no contact with the active controller"
	}
	sv.changeForLink(q, mirrors, a, hasSession, func() {
		if !q.Lists || !hasSession {
			sv.tellLink(q, mirrors, a, hasSession, func() { reply(a) })
			return
		}
		sv.listForLink(q, a, func() { sv.tellLink(q, mirrors, a, hasSession, func() { reply(a) }) })
	})
}

// changeForLink makes the changes, those of each partition in one step.
func (sv *Service) changeForLink(q *position.Question, mirrors LinkedTopics, a *position.Answer, hasSession bool, done func()) {
	n := sv.cfg.Partitions()
	a.Outcomes = make([]position.Outcome, len(q.Changes))
	byPartition := map[int32][]int{}
	for i := range q.Changes {
		a.Outcomes[i] = position.Failed
		if n > 0 && hasSession {
			p := coord.PartitionOf(string(q.Changes[i].Group), n)
			byPartition[p] = append(byPartition[p], i)
		}
	}
	type part struct {
		outcomes []position.Outcome
		err      error
	}
	order := make([]int32, 0, len(byPartition))
	for p := range byPartition {
		order = append(order, p)
	}
	out := newGather(len(order), func(parts []part) {
		for k, of := range parts {
			if of.err != nil {
				a.Problem = of.err.Error()
				continue
			}
			for j, i := range byPartition[order[k]] {
				a.Outcomes[i] = of.outcomes[j]
			}
		}
		done()
	})
	for k, p := range order {
		changes := make([]*position.Change, len(byPartition[p]))
		for j, i := range byPartition[p] {
			changes[j] = &q.Changes[i]
		}
		var of part
		err := sv.rt.Do(p, func(m *Machine, s *coord.Step) {
			of.outcomes = m.ChangeForLink(s, q.Link, changes, mirrors)
			s.Reply(func(err error) {
				of.err = err
				out.setPart(k, of)
			})
		})
		if err != nil {
			out.setPart(k, part{err: err})
		}
	}
}

// listForLink lists the groups that have positions which the link has made.
func (sv *Service) listForLink(q *position.Question, a *position.Answer, done func()) {
	type part struct {
		names []string
		err   error
	}
	partitions := sv.rt.Partitions()
	out := newGather(len(partitions), func(parts []part) {
		var names []string
		for _, of := range parts {
			if of.err != nil {
				a.Problem = of.err.Error()
			}
			names = append(names, slices.DeleteFunc(of.names, func(name string) bool { return name <= string(q.AfterGroup) && q.AfterGroup != "" })...)
		}
		slices.SortFunc(names, strings.Compare)
		size := 0
		for _, name := range names {
			if size += 8 + 2*len(name); size > position.MaxMessage && len(a.Listed) > 0 {
				a.IsMore = true
				break
			}
			a.Listed = append(a.Listed, position.Text(name))
		}
		done()
	})
	for i, p := range partitions {
		var of part
		err := sv.rt.Do(p, func(m *Machine, s *coord.Step) {
			of.names = m.ListForLink(s, q.Link)
			s.Reply(func(err error) {
				of.err = err
				out.setPart(i, of)
			})
		})
		if err != nil {
			out.setPart(i, part{err: err})
		}
	}
}

// noRoom is the problem of a group for which a message has no room.
const noRoom = "there is no room"

// tellLink tells of the groups that are asked for, as far as the message has room.
func (sv *Service) tellLink(q *position.Question, mirrors LinkedTopics, a *position.Answer, hasSession bool, done func()) {
	asked := q.Groups[:min(len(q.Groups), position.MaxAsked)]
	out := newGather(len(asked), func(told []position.ToldGroup) {
		if i := slices.IndexFunc(told, func(g position.ToldGroup) bool { return g.Name == "" && g.Problem == noRoom }); i >= 0 {
			told = told[:i]
		}
		a.Groups = told
		done()
	})
	size := 0
	for i, name := range asked {
		told := position.ToldGroup{Name: name, Problem: "the node has no contact with the active controller"}
		n := sv.cfg.Partitions()
		if n <= 0 || !hasSession {
			if n <= 0 {
				told.Problem = coord.ErrNotLeading.Error()
			}
			out.setPart(i, told)
			continue
		}
		if size > position.MaxMessage/2 {
			out.setPart(i, position.ToldGroup{Problem: noRoom})
			continue
		}
		err := sv.rt.Do(coord.PartitionOf(string(name), n), func(m *Machine, s *coord.Step) {
			told = m.TellLink(s, q, string(name), mirrors, position.MaxMessage-size)
			for k := range told.Positions {
				size += told.Positions[k].Size()
			}
			size += 60 + 2*len(name)
			s.Reply(func(err error) {
				if err != nil {
					told = position.ToldGroup{Name: name, Problem: err.Error()}
				}
				out.setPart(i, told)
			})
		})
		if err != nil {
			out.setPart(i, position.ToldGroup{Name: name, Problem: err.Error()})
		}
	}
}
