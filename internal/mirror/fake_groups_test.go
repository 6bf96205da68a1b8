package mirror_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/group/commit"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/position"
	"github.com/leatstream/leat/internal/record"
)

// fakeSourceGroups are the groups of a fakeCluster as clients may ask for them. Broker 1 coordinates all of them.
type fakeSourceGroups struct {
	positions     map[string]map[position.Place]int64
	hidden        map[string]bool // groups that the login may not see
	deniesRecords bool            // the login may not read __consumer_offsets
	deniesLists   bool            // the login may not list groups
}

func (g *fakeSourceGroups) find(q *kmsg.FindCoordinatorRequest) kmsg.Response {
	r := kmsg.NewPtrFindCoordinatorResponse()
	for _, key := range q.CoordinatorKeys {
		one := kmsg.FindCoordinatorResponseCoordinator{Key: key, NodeID: 1, Host: "b1", Port: 9092}
		if g.hidden[key] {
			one.ErrorCode = kerr.GroupAuthorizationFailed.Code
		}
		r.Coordinators = append(r.Coordinators, one)
	}
	return r
}

func (g *fakeSourceGroups) list(broker int32) kmsg.Response {
	r := kmsg.NewPtrListGroupsResponse()
	if g.deniesLists {
		r.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return r
	}
	for name := range g.positions {
		if broker == 1 && !g.hidden[name] {
			r.Groups = append(r.Groups, kmsg.ListGroupsResponseGroup{Group: name, ProtocolType: "consumer", GroupState: "Empty"})
		}
	}
	return r
}

func (g *fakeSourceGroups) fetch(q *kmsg.OffsetFetchRequest) kmsg.Response {
	r := kmsg.NewPtrOffsetFetchResponse()
	for i := range q.Groups {
		one := kmsg.NewOffsetFetchResponseGroup()
		one.Group = q.Groups[i].Group
		if g.hidden[one.Group] {
			one.ErrorCode = kerr.GroupAuthorizationFailed.Code
			r.Groups = append(r.Groups, one)
			continue
		}
		for at, offset := range g.positions[one.Group] {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic = at.Topic
			p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			p.Partition, p.Offset, p.Metadata = at.Partition, offset, new("")
			t.Partitions = append(t.Partitions, p)
			one.Topics = append(one.Topics, t)
		}
		r.Groups = append(r.Groups, one)
	}
	return r
}

// topicOf is a topic by its id or its name.
func (c *fakeCluster) topicOf(name string, id [16]byte) *fakeTopic {
	for n, t := range c.topics {
		if id != [16]byte{} && t.id == id || id == [16]byte{} && n == name {
			return t
		}
	}
	return nil
}

// append appends a batch of one record of a group to a partition of __consumer_offsets; nil: a tombstone.
func (c *fakeCluster) append(partition int, bu *record.Builder, group string, at position.Place, o *commit.Offset) {
	c.t.Helper()
	c.change(func() {
		p := c.topics["__consumer_offsets"].partitions[partition]
		bu.LeaderEpoch = record.Epoch(p.epoch)
		var value []byte
		if o != nil {
			value = o.AppendTo(nil)
		}
		bu.Append(time.Now().UnixMilli(), commit.AppendKey(nil, group, at.Topic, at.Partition), value)
		b, err := bu.Build()
		if err != nil {
			c.t.Error(err)
			return
		}
		b = slices.Clone(b)
		b.SetBaseOffset(record.Offset(p.high))
		p.batches = append(p.batches, b)
		p.high++
	})
}

// commit has a group commit an offset at the source, now.
func (c *fakeCluster) commit(group, topic string, partition int32, offset record.Offset) {
	c.t.Helper()
	c.append(0, &record.Builder{}, group, position.Place{Topic: topic, Partition: partition}, &commit.Offset{At: offset, Epoch: record.NoEpoch, Time: time.Now().UnixMilli(), Expires: commit.NoExpiry})
}

// forget has a group's offset be deleted at the source.
func (c *fakeCluster) forget(group, topic string, partition int32) {
	c.t.Helper()
	c.append(0, &record.Builder{}, group, position.Place{Topic: topic, Partition: partition}, nil)
}

// groupsHere are the groups of the cluster here, which node 1 coordinates if their names are of an even length, and else node 2.
type groupsHere struct {
	*rig

	mu        sync.Mutex // guards the fields below
	positions map[string]map[position.Place]position.ToldPosition
	active    map[string]bool
	away      map[int32]error // nodes that do not answer
	changes   []position.Change
	questions int
	page      int // positions of an answer about a group
}

func newGroupsHere() *groupsHere {
	return &groupsHere{positions: map[string]map[position.Place]position.ToldPosition{}, active: map[string]bool{}, away: map[int32]error{}, page: 3}
}

func (g *groupsHere) door() mirror.Groups {
	return mirror.Groups{
		Coordinator:  func(name string) int32 { return int32(len(name)%2) + 1 },
		Coordinators: func() ([]int32, bool) { return []int32{1, 2}, true },
		Prepare:      func(context.Context) error { return nil },
		Ask:          g.ask,
	}
}

func (g *groupsHere) ask(_ context.Context, node int32, q *position.Question) (*position.Answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.questions++
	size := 0
	for i := range q.Changes {
		size += q.Changes[i].Size()
	}
	if len(q.Groups) > position.MaxAsked || len(q.Changes) > position.MaxChanges || size > 2*position.MaxMessage {
		return nil, errors.New("the question is too large")
	}
	if err := g.away[node]; err != nil {
		return nil, err
	}
	a := &position.Answer{}
	for i := range q.Changes {
		a.Outcomes = append(a.Outcomes, g.change(&q.Changes[i]))
	}
	for _, name := range q.Groups {
		told := position.ToldGroup{Name: name, IsActive: g.active[string(name)]}
		list := []position.ToldPosition{}
		for _, p := range g.positions[string(name)] {
			if p.Topic > q.AfterTopic || p.Topic == q.AfterTopic && p.Partition > q.AfterPartition {
				list = append(list, p)
			}
		}
		slices.SortFunc(list, func(x, y position.ToldPosition) int {
			return cmp.Or(strings.Compare(x.Topic, y.Topic), cmp.Compare(x.Partition, y.Partition))
		})
		told.Positions = list[:min(len(list), g.page)]
		told.IsMore = len(list) > g.page
		a.Groups = append(a.Groups, told)
	}
	if q.Lists {
		for name, of := range g.positions {
			isOurs := false
			for _, p := range of {
				isOurs = isOurs || p.IsOurs
			}
			if isOurs && int32(len(name)%2)+1 == node && name > string(q.AfterGroup) {
				a.Listed = append(a.Listed, position.Text(name))
			}
		}
		slices.Sort(a.Listed)
		if a.IsMore = len(a.Listed) > 50; a.IsMore {
			a.Listed = a.Listed[:50]
		}
	}
	return a, nil
}

func (g *groupsHere) change(c *position.Change) position.Outcome {
	at := position.Place{Topic: c.Topic, Partition: c.Partition}
	was, ok := g.positions[string(c.Group)][at]
	switch {
	case g.active[string(c.Group)]:
		return position.WasActive
	case ok != (c.Was != nil) || ok && was.Stored != *c.Was:
		return position.WasChanged
	}
	g.changes = append(g.changes, *c)
	switch c.Kind {
	case position.Deletes:
		if delete(g.positions[string(c.Group)], at); len(g.positions[string(c.Group)]) == 0 {
			delete(g.positions, string(c.Group))
		}
	case position.Commits:
		g.setLocked(string(c.Group), at, c.Offset, true)
		p := g.positions[string(c.Group)][at]
		p.Metadata = c.Metadata
		g.positions[string(c.Group)][at] = p
	case position.Confirms:
		was.IsAging = false
		g.positions[string(c.Group)][at] = was
	}
	return position.Done
}

func (g *groupsHere) setLocked(group string, at position.Place, offset record.Offset, isOurs bool) {
	if g.positions[group] == nil {
		g.positions[group] = map[position.Place]position.ToldPosition{}
	}
	g.positions[group][at] = position.ToldPosition{
		Topic: at.Topic, Partition: at.Partition, Epoch: record.NoEpoch, Stored: position.Stored{Offset: offset, Time: time.Now().UnixMilli(), IsOurs: isOurs},
	}
}

// set changes the groups.
func (g *groupsHere) set(do func(g *groupsHere)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do(g)
}

// takeChanges returns what was changed since the last call.
func (g *groupsHere) takeChanges() []position.Change {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.changes
	g.changes = nil
	return list
}

// text has all positions of a group, as in topic-partition:offset; "-": there are none.
func (g *groupsHere) text(group string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for at, p := range g.positions[group] {
		all = append(all, fmt.Sprintf("%s-%d:%d", at.Topic, at.Partition, p.Offset))
	}
	if slices.Sort(all); len(all) == 0 {
		return "-"
	}
	return strings.Join(all, " ")
}
