package sim

import (
	"bytes"
	"maps"
	"slices"
	"strconv"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// truth knows what was promised: the metadata log, and the records of each partition that were
// committed. It compares both with what the nodes have.
type truth struct {
	c       *cluster
	image   *meta.Image // after all committed entries
	encoded [][]byte    // the image after each entry; that before the first one is at 0
	parts   []*partition
	names   []string // of parts
	byID    map[partitionID]*partition
	offsets *partition // of the committed offsets; nil: not made yet
	dirty   []*partition
	// losing are the nodes that are just being registered: a registration may end a replica's place.
	losing [maxNodes + 1]bool
	// unregistered are the nodes whose registration an administrator ends, until their next process is registered.
	unregistered [maxNodes + 1]bool
	// fencing are the nodes that are just being fenced.
	fencing [maxNodes + 1]bool
	// configured is set while an entry is taken that changes configs: eligible replicas are forgotten where enough are in sync by a lower min.insync.replicas (KIP-966).
	configured bool
	// mayStop are the last registrations of the nodes that were told that they may end.
	mayStop [maxNodes + 1]int64
}

// partitionID names a partition.
type partitionID struct {
	topic  meta.UUID
	number int32
}

func newTruth(c *cluster) *truth {
	return &truth{c: c, image: meta.Empty(), encoded: [][]byte{nil}, byID: map[partitionID]*partition{}}
}

// imageAt is the image after an entry, as a node reads it from its disk.
func (t *truth) imageAt(index uint64) *meta.Image {
	m, _, err := meta.Apply(meta.Empty(), t.encoded[index])
	t.c.must(err)
	return m
}

// partition finds a partition that was made.
func (t *truth) partition(topic meta.UUID, number int32) *partition {
	return t.byID[partitionID{topic, number}]
}

// find finds a partition by its topic's name, or returns nil.
func (t *truth) find(topic string, number int32) *partition {
	mt := t.image.Topic(topic)
	if mt == nil {
		return nil
	}
	return t.partition(mt.ID, number)
}

// checkDirty checks the partitions that an event has touched.
func (t *truth) checkDirty() {
	for _, p := range t.dirty {
		p.isDirty = false
		p.check()
	}
	t.dirty = t.dirty[:0]
}

// checkImage proves that a node's image after an entry is that of all others.
func (t *truth) checkImage(n *node, index uint64) {
	if !bytes.Equal(meta.Encode(n.image), t.encoded[index]) {
		t.c.fail(0, "the metadata of node %d after entry %d is not that of the others", n.id, index)
	}
}

// settings are what matters of a topic's settings in an image.
func (t *truth) settings(m *meta.Image, mt *meta.Topic) (minISR func(p *meta.Partition) int, durable, unclean bool) {
	s := meta.TopicSettings(m, t.c.nodes[0].static, mt)
	return func(p *meta.Partition) int { return place.MinISR(s, p) }, s.FlushMessages == 1, s.UncleanElection
}

// followMetadata takes a committed entry, and checks the change that each command makes.
func (t *truth) followMetadata(index uint64, commands [][]byte) {
	for _, records := range commands {
		prev := t.image
		next, d, err := meta.ApplyAt(prev, index, records)
		t.c.must(err)
		t.image, t.configured = next, len(d.Configs) > 0
		for id := range t.losing {
			t.noteRegistration(int32(id), prev, next)
		}
		ids := slices.SortedFunc(maps.Keys(d.Topics), func(a, b meta.UUID) int { return bytes.Compare(a[:], b[:]) })
		for _, id := range ids {
			if ch := d.Topics[id]; ch.New != nil {
				t.followTopic(index, ch, prev)
			}
		}
		for _, p := range t.parts {
			t.checkInvariants(p, next.TopicByID(p.topic))
		}
		if t.configured {
			t.c.note(note{what: "configs are changed by entry %d", a: int64(index)})
		}
		for id := range t.losing {
			t.endRegistration(int32(id), prev, next)
		}
	}
	t.encoded = append(t.encoded, meta.Encode(t.image))
}

// noteRegistration makes a note of a change of a broker.
func (t *truth) noteRegistration(id int32, prev, next *meta.Image) {
	old, b := prev.Brokers[id], next.Brokers[id]
	if b != nil && (old == nil || old.Epoch != b.Epoch || old.State != b.State) {
		t.fencing[id] = false
		if b.State == meta.BrokerActive && b.Epoch == t.mayStop[id] {
			t.c.fail(0, "node %d is active again in epoch %d, in which it was told that it may end", id, b.Epoch)
		}
		t.c.note(note{what: "the metadata has it in state %d with epoch %d", node: id, a: int64(b.State), b: b.Epoch})
		t.c.saw([...]string{meta.BrokerFenced: "broker fenced", meta.BrokerActive: "broker unfenced", meta.BrokerLeaving: "broker leaving"}[b.State])
	}
}

// mayForget tells whether the metadata may forget which records a node has.
func (t *truth) mayForget(id int32) bool { return t.losing[id] || t.unregistered[id] }

// noteUnregistering takes that a node is about to be unregistered, which ends its places. Until it is registered
// again, nobody can tell which records it has.
func (t *truth) noteUnregistering(id int32) {
	t.unregistered[id] = true
	for _, p := range t.parts {
		p.noteLoss(id)
	}
}

// endRegistration takes that a node's present process is registered: from here on the metadata know
// which records it has lost. It must not have kept a place for which it lacks records.
func (t *truth) endRegistration(id int32, prev, next *meta.Image) {
	old, b := prev.Brokers[id], next.Brokers[id]
	if b == nil || old != nil && old.Epoch == b.Epoch {
		return
	}
	t.losing[id] = false
	if b.Incarnation != t.c.node(id).incarnation {
		t.c.saw("earlier process registered")
		return
	}
	t.unregistered[id] = false
	for _, p := range t.parts {
		if !p.tainted[id] {
			continue
		}
		p.tainted[id] = false
		hasAll := p.commonEnd(t.c.node(id).disk.find(p)) >= p.end()
		if mp := p.in(next); mp != nil && slices.Contains(membersOf(mp), id) && !p.exempt && !hasAll && !p.copies.lack[id] {
			p.fail("node %d has lost records, and keeps its place after it is registered: in sync %v, eligible %v", id, mp.ISR, mp.Eligible)
		}
		p.endExemption(next)
	}
}

// membersOf are the replicas that have all committed records, as far as the metadata know.
func membersOf(mp *meta.Partition) []int32 { return slices.Concat(mp.ISR, mp.Eligible) }

// followTopic takes a change of a topic's partitions.
func (t *truth) followTopic(index uint64, ch meta.TopicChange, prev *meta.Image) {
	for i := range ch.New.Partitions {
		number := int32(i)
		mp := &ch.New.Partitions[i]
		if ch.Old == nil || i >= len(ch.Old.Partitions) {
			t.addPartition(ch.New, number).noteMetadata(index, mp)
			continue
		}
		old, p := &ch.Old.Partitions[i], t.partition(ch.New.ID, number)
		if old.PartitionEpoch == mp.PartitionEpoch && old.LeaderEpoch == mp.LeaderEpoch {
			continue
		}
		p.noteMetadata(index, mp)
		p.followChange(old, mp, ch.New, prev)
	}
}

func (t *truth) addPartition(mt *meta.Topic, number int32) *partition {
	p := newPartition(t.c, mt.ID, number)
	p.name = mt.Name
	t.parts = append(t.parts, p)
	p.index = int16(len(t.parts))
	t.names = append(t.names, mt.Name+"-"+strconv.Itoa(int(number)))
	t.byID[partitionID{mt.ID, number}] = p
	if mt.Name == offsetsTopic {
		t.offsets = p
	}
	return p
}

// checkInvariants checks what must be true of a partition's metadata.
func (t *truth) checkInvariants(p *partition, mt *meta.Topic) {
	mp := &mt.Partitions[p.number]
	minISR, _, _ := t.settings(t.image, mt)
	isReplica := func(id int32) bool { return slices.Contains(mp.Replicas, id) }
	isNot := func(is func(id int32) bool) func(id int32) bool { return func(id int32) bool { return !is(id) } }
	inSync := func(id int32) bool { return slices.Contains(mp.ISR, id) }
	leader := t.image.Brokers[mp.Leader]
	bad := ""
	switch {
	case mp.Leader >= 0 && !inSync(mp.Leader):
		bad = "the leader is not in sync"
	case mp.Leader >= 0 && (leader == nil || len(mp.Replicas) > 1 && leader.State == meta.BrokerFenced):
		bad = "a broker leads that is fenced or not registered"
	case mp.Leader >= 0 && len(mp.LastEligible) > 0:
		bad = "there is a leader, and a last leader"
	case slices.ContainsFunc(slices.Concat(membersOf(mp), mp.LastEligible, mp.Adding, mp.Removing), isNot(isReplica)):
		bad = "somebody has no replica"
	case slices.ContainsFunc(mp.Eligible, inSync):
		bad = "an eligible replica is in sync"
	case len(mp.Eligible) > 0 && len(mp.ISR) >= minISR(mp):
		bad = "a replica is eligible though records can be committed without it"
	case len(mp.Replicas) == len(mp.Adding):
		bad = "all replicas are being added"
	case len(slices.Compact(slices.Sorted(slices.Values(mp.Replicas)))) < max(1, len(mp.Replicas)):
		bad = "a replica is there twice, or there is none"
	}
	if bad != "" {
		p.fail("the metadata are wrong, %s: %+v", bad, *mp)
	}
}

// checkRegistration checks the decision about a registration of a node's present process: a replica
// that has lost nothing keeps its place.
func (t *truth) checkRegistration(g *controller.Registration, m *meta.Image, records []byte) {
	id := g.Broker.ID
	old := m.Brokers[id]
	if len(records) == 0 || old != nil && old.Incarnation == g.Broker.Incarnation {
		return
	}
	t.losing[id] = true
	isPresent := old != nil && g.Broker.Incarnation == t.c.node(id).incarnation
	// A controller whose term is over, and who does not know that, decides on an old image.
	if !isPresent || old.Directory != g.Broker.Directory || old.RecordedEpoch > g.PreviousEpoch || old.Epoch < g.PreviousEpoch || old.Generation > g.Generation {
		return
	}
	next, _, err := meta.Apply(m, records)
	t.c.must(err)
	for _, p := range t.parts {
		before, after := p.in(m), p.in(next)
		if before == nil || !slices.Contains(membersOf(before), id) || slices.Contains(membersOf(after), id) || !slices.Contains(after.Replicas, id) || p.tainted[id] {
			continue
		}
		_, durable, _ := t.settings(m, m.TopicByID(p.topic))
		if durable && !slices.Contains(g.Unsynced, p.topic) || g.Clean {
			p.fail("node %d has lost nothing, and its registration ends its place: %+v becomes %+v (%+v, %+v)", id, *before, *after, *g, *old)
		}
	}
	t.c.saw("place kept over a restart")
}
