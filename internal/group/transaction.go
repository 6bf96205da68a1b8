package group

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/record"
)

// Offsets that are sent in a transaction (KIP-98, KIP-447) are pending until a marker of the transaction's
// coordinator comes. Then they are committed, or forgotten:
//
//	TxnOffsetCommit -> records of the producer -> pending --marker: commit--> committed
//	                                                 |-----marker: abort----> forgotten
//	                                                 '--the offset or its group is deleted--> forgotten
//
// A pending offset is outdated if one was committed whose record is behind its own, and then its transaction's
// end changes nothing: the log's order counts, not the order of the markers.

// topicPartition is a partition of a topic.
type topicPartition struct {
	topic     string
	partition int32
}

// pendingOffset is an offset that a producer has sent in its transaction.
type pendingOffset struct {
	producer   int64
	written    record.Offset // the offset after its record
	isOutdated bool
	offset     offset
}

// transaction is the open transaction of a producer.
type transaction struct {
	places map[pendingPlace]struct{} // of its offsets
}

// pendingPlace is a partition for which a group has a pending offset.
type pendingPlace struct {
	group string
	topicPartition
}

// About how much memory pending offsets take, with the allocator's part.
const (
	pendingBytes     = 320 // an offset, without the characters of names and metadata, and its place in two tables
	transactionBytes = 128
)

// pendingSize is about how many bytes a pending offset takes.
func pendingSize(group, topic string, metadata int) int64 {
	return int64(pendingBytes + len(group) + 2*len(topic) + metadata)
}

// CommitInTransaction handles TxnOffsetCommit, whose fields are those of a commit. The code is that of the whole
// request; those of the partitions are in the topics. The topics of req must exist and have their names. req has the version of the commit
// with whose codes it is answered.
func (m *Machine) CommitInTransaction(s *coord.Step, by coord.Producer, req *kmsg.OffsetCommitRequest) ([]kmsg.OffsetCommitResponseTopic, int16) {
	g := m.findGroup(s, req.Group)
	code := int16(0)
	switch {
	case g != nil:
		code = classic.AcceptTransactional(g.classic, req)
	case req.Generation >= 0 && req.Version >= 9:
		code = groupIDNotFound
	case req.Generation >= 0:
		code = illegalGeneration
	}
	if code != 0 {
		return nil, code
	}
	return m.putCommit(s, req, m.pendingGrowth(g, req), &by)
}

// pendingGrowth is about how many more bytes the machine keeps at most while a transaction has the offsets of a
// commit, and when it is committed. The group may be nil.
func (m *Machine) pendingGrowth(g *group, req *kmsg.OffsetCommitRequest) int64 {
	n := m.commitGrowth(g, req) + transactionBytes + groupBytes + classic.Size(req.Group)
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			n += pendingSize(req.Group, t.Topic, len(stringOrEmpty(t.Partitions[j].Metadata)))
		}
	}
	return n
}

// addPending adds an offset of a transaction, in the place of one that the same producer has sent before.
func (m *Machine) addPending(g *group, by coord.Producer, at topicPartition, o pendingOffset) {
	t := m.open[by.ID]
	if t == nil {
		t = &transaction{places: map[pendingPlace]struct{}{}}
		m.open[by.ID] = t
		m.memory.Add(transactionBytes)
	}
	m.removePending(g, by.ID, at)
	if g.pending == nil {
		g.pending = map[topicPartition][]pendingOffset{}
	}
	g.pending[at] = append(g.pending[at], o)
	t.places[pendingPlace{g.id, at}] = struct{}{}
	m.memory.Add(pendingSize(g.id, at.topic, len(o.offset.Metadata)))
}

// removePending removes the offset that a producer has sent for a partition, if there is one, and returns it. The
// producer's transaction still has the place.
func (m *Machine) removePending(g *group, producer int64, at topicPartition) (o pendingOffset) {
	list := g.pending[at]
	i := slices.IndexFunc(list, func(o pendingOffset) bool { return o.producer == producer })
	if i < 0 {
		return pendingOffset{}
	}
	o = list[i]
	m.memory.Add(-pendingSize(g.id, at.topic, len(o.offset.Metadata)))
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(g.pending, at)
	} else {
		g.pending[at] = list
	}
	return o
}

// dropPendingAt forgets all pending offsets of a group for a partition.
func (m *Machine) dropPendingAt(g *group, at topicPartition) {
	for list := g.pending[at]; len(list) > 0; list = g.pending[at] {
		producer := list[0].producer
		m.removePending(g, producer, at)
		m.forgetPlace(producer, pendingPlace{g.id, at})
	}
}

// dropPending forgets all pending offsets of a group.
func (m *Machine) dropPending(g *group) {
	for at := range g.pending {
		m.dropPendingAt(g, at)
	}
}

// forgetPlace forgets a place of a transaction, and the transaction after its last one.
func (m *Machine) forgetPlace(producer int64, at pendingPlace) {
	t := m.open[producer]
	delete(t.places, at)
	if len(t.places) == 0 {
		delete(m.open, producer)
		m.memory.Add(-transactionBytes)
	}
}

// outdatePending notes that an offset was committed for a partition whose record ends at an offset of the log.
func (g *group) outdatePending(at topicPartition, written record.Offset) {
	list := g.pending[at]
	for i := range list {
		list[i].isOutdated = list[i].isOutdated || list[i].written < written
	}
}

// isUnstable tells whether a transaction is open that has an offset for a partition. The group may be nil.
func (g *group) isUnstable(topic string, partition int32) bool {
	return g != nil && len(g.pending[topicPartition{topic, partition}]) > 0
}

// EndTransaction commits or forgets the pending offsets of a producer.
func (m *Machine) EndTransaction(s *coord.Step, end coord.Marker) {
	m.last = s.Next()
	t := m.open[end.ID]
	if t == nil {
		return
	}
	for at := range t.places {
		g := m.groups[at.group] // it is there: a group that is deleted takes its places along
		g.last = s.Next()
		o := m.removePending(g, end.ID, at.topicPartition)
		m.forgetPlace(end.ID, at)
		if end.Commit && !o.isOutdated {
			g.offsets.setOffset([]byte(at.topic), at.partition, &o.offset)
			g.outdatePending(at.topicPartition, o.written)
		}
	}
}
