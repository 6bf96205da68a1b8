package group

import (
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/record"
)

// Commit handles OffsetCommit: the code is for the whole request, those of the
// partitions are in the topics. The topics must exist; their names are filled in.
func (m *Machine) Commit(s *coord.Step, req *kmsg.OffsetCommitRequest) ([]kmsg.OffsetCommitResponseTopic, int16) {
	g := m.find(s, req.Group)
	if fault := mayCommit(s, g, req); fault != 0 {
		return nil, fault
	}
	if sizeOf(req) > coord.MaxBatch {
		return nil, invalidCommitOffsetSize
	}
	if n := m.growth(g, req); n > m.memory.Room() {
		m.memory.Refuse(s.Now, req.Group, n)
		return nil, coordinatorNotAvailable
	}
	limit := m.settings().MaxMetadata
	o := offset{time: s.Now.UnixMilli(), expires: noExpiry}
	if req.RetentionTimeMillis >= 0 {
		o.expires = o.time + req.RetentionTimeMillis
	}
	topics := make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		topics[i].Topic, topics[i].TopicID = t.Topic, t.TopicID
		topics[i].Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		o.topic = t.TopicID
		for j := range t.Partitions {
			p := &t.Partitions[j]
			out := &topics[i].Partitions[j]
			out.Partition = p.Partition
			o.metadata = deref(p.Metadata)
			if tooLong(o.metadata, limit) {
				out.ErrorCode = offsetMetadataTooLarge
				continue
			}
			o.at, o.epoch = record.Offset(p.Offset), record.Epoch(p.LeaderEpoch)
			putOffset(s, req.Group, t.Topic, p.Partition, &o)
		}
	}
	return topics, 0
}

// sizeOf is about how many bytes a commit's records take. Each of them names the
// group: a small request can ask for large ones.
func sizeOf(req *kmsg.OffsetCommitRequest) (n int) {
	const fixed = 80 // bytes of an offset's record besides names and metadata
	for i := range req.Topics {
		t := &req.Topics[i]
		n += len(t.Partitions) * (fixed + len(req.Group) + len(t.Topic))
		for j := range t.Partitions {
			n += len(deref(t.Partitions[j].Metadata))
		}
	}
	return n
}

// growth is about how many bytes more the machine keeps when a commit is applied. The
// group may be nil. Where there is room for all of it, as if nothing had been committed
// before, it is not looked at more closely.
func (m *Machine) growth(g *group, req *kmsg.OffsetCommitRequest) int64 {
	expires, most := req.RetentionTimeMillis >= 0, groupCost+classic.Size(req.Group)
	for i := range req.Topics {
		t := &req.Topics[i]
		most += placeCost + nameSize(len(t.Topic))
		for j := range t.Partitions {
			most += keptSize(len(deref(t.Partitions[j].Metadata)), expires)
		}
	}
	if g == nil || most <= m.memory.Room() {
		return most
	}
	n := int64(0)
	for i := range req.Topics {
		n += g.offsets.growth(&req.Topics[i], expires)
	}
	return n
}

// mayCommit tells whether a commit is accepted: 0, or the answer's code.
func mayCommit(s *coord.Step, g *group, req *kmsg.OffsetCommitRequest) int16 {
	switch {
	case g != nil:
		return g.classic.MayCommit(s, req)
	case req.Generation < 0:
		return 0 // a simple group comes to be
	case req.Version >= 9:
		return groupIDNotFound
	}
	return illegalGeneration
}

// tooLong tells whether metadata passes the limit, counted as Java does: in UTF-16.
func tooLong(s string, limit int) bool {
	if len(s) <= limit {
		return false
	}
	if len(s) > limit*utf8.UTFMax {
		return true
	}
	n := 0
	for _, r := range s {
		n += max(utf16.RuneLen(r), 1)
	}
	return n > limit
}

// Fetch answers OffsetFetch for one group: the topics asked for, or, where none are
// named (nil), all that the group has.
func (m *Machine) Fetch(s *coord.Step, req *kmsg.OffsetFetchRequestGroup) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = req.Group
	g := m.find(s, req.Group)
	if req.Topics == nil {
		resp.Topics = g.all()
		return resp
	}
	resp.Topics = make([]kmsg.OffsetFetchResponseGroupTopic, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		out := &resp.Topics[i]
		out.Topic, out.TopicID = t.Topic, t.TopicID
		out.Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			var o offset
			ok := false
			if g != nil {
				o, ok = g.offsets.get(t.Topic, p)
			}
			if ok && otherTopic(o.topic, t.TopicID) {
				ok = false // a topic of that name was deleted and made again
			}
			out.Partitions[j] = fetched(p, o, ok)
		}
	}
	return resp
}

// otherTopic tells whether two ids, where both are known, are not the same.
func otherTopic(a, b [16]byte) bool { return a != b && a != [16]byte{} && b != [16]byte{} }

// all are the group's offsets, in order. The group may be nil.
func (g *group) all() []kmsg.OffsetFetchResponseGroupTopic {
	if g == nil {
		return []kmsg.OffsetFetchResponseGroupTopic{}
	}
	topics := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(g.offsets.topics))
	for _, name := range g.offsets.sorted() {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic = name.text
		for i := range g.offsets.topics[name] {
			k := &g.offsets.topics[name][i]
			t.TopicID = k.topic
			t.Partitions = append(t.Partitions, fetched(k.partition, k.offset(), true))
		}
		topics = append(topics, t)
	}
	return topics
}

// fetched is the answer for a partition; the offset is -1 where there is none.
func fetched(partition int32, o offset, ok bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	if !ok {
		o = offset{at: -1, epoch: record.NoEpoch}
	}
	return kmsg.OffsetFetchResponseGroupTopicPartition{
		Partition: partition, Offset: int64(o.at), LeaderEpoch: int32(o.epoch), Metadata: &o.metadata,
	}
}

// consumerType is the protocol type of members whose topics the coordinator knows.
const consumerType = "consumer"

// DeleteOffsets handles OffsetDelete: offsets of topics that the group's members
// consume stay.
func (m *Machine) DeleteOffsets(s *coord.Step, req *kmsg.OffsetDeleteRequest) ([]kmsg.OffsetDeleteResponseTopic, int16) {
	g := m.find(s, req.Group)
	switch {
	case g == nil:
		return nil, groupIDNotFound
	case !g.classic.Empty() && g.classic.ProtocolType() != consumerType:
		return nil, nonEmptyGroup
	}
	topics := make([]kmsg.OffsetDeleteResponseTopic, len(req.Topics))
	for i, t := range req.Topics {
		topics[i].Topic = t.Topic
		topics[i].Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(t.Partitions))
		consumed := g.classic.Consumes(t.Topic)
		for j, p := range t.Partitions {
			out := &topics[i].Partitions[j]
			out.Partition = p.Partition
			if consumed {
				out.ErrorCode = groupSubscribedToTopic
				continue
			}
			if _, ok := g.offsets.get(t.Topic, p.Partition); ok {
				putOffset(s, g.id, t.Topic, p.Partition, nil)
			}
		}
	}
	return topics, 0
}

// Delete handles DeleteGroups for one group.
func (m *Machine) Delete(s *coord.Step, id string) int16 {
	g := m.find(s, id)
	switch {
	case g == nil:
		return groupIDNotFound
	case !g.classic.Empty():
		return nonEmptyGroup
	}
	g.bury(s)
	return 0
}

// bury decides that a group and its offsets are gone, in as many batches as it takes.
func (g *group) bury(s *coord.Step) {
	for topic, list := range g.offsets.topics {
		for i := range list {
			if full(s) {
				s.Then(func() { g.bury(s) })
				return
			}
			putOffset(s, g.id, topic.text, list[i].partition, nil)
		}
	}
	classic.Put(s, g.id, nil)
}

// What deletes offsets decides only so many records and bytes at a time, so that no
// batch grows with the group or the partition.
const (
	maxTombstones     = 10_000
	maxTombstoneBytes = 1 << 20
)

// full tells whether a step has decided enough deletions for one batch.
func full(s *coord.Step) bool {
	return len(s.Records()) >= maxTombstones || len(s.Buffer()) >= maxTombstoneBytes
}

// TopicsDeleted deletes what any group has committed for topics that are gone, named
// with their ids, and tells whether more is left to delete. Offsets known to belong
// to a later topic of such a name stay.
func (m *Machine) TopicsDeleted(s *coord.Step, gone map[string][16]byte) (more bool) {
	for _, g := range m.groups {
		for topic, list := range g.offsets.topics {
			id, deleted := gone[topic.text]
			if !deleted {
				continue
			}
			for i := range list {
				if otherTopic(list[i].topic, id) {
					continue
				}
				if full(s) {
					return true
				}
				putOffset(s, g.id, topic.text, list[i].partition, nil)
			}
		}
	}
	return false
}

// scanPause is the time between two steps of one scan.
const scanPause = time.Millisecond

// expireOffsets deletes offsets whose time is over, and groups that are left with
// nothing (KIP-211). It runs by the timer.
func (m *Machine) expireOffsets(s *coord.Step) {
	set := m.settings()
	for _, g := range m.groups {
		left := g.expire(s, set.Retention)
		if full(s) {
			m.timers.Set(&m.scan, s.Now.Add(scanPause))
			return
		}
		if left == 0 && g.classic.Idle() {
			classic.Put(s, g.id, nil)
		}
	}
	m.timers.Set(&m.scan, s.Now.Add(set.RetentionScan))
}

// expire deletes a group's expired offsets and counts those that are left.
func (g *group) expire(s *coord.Step, retention time.Duration) (left int) {
	for topic, list := range g.offsets.topics {
		for i := range list {
			o := list[i].offset()
			if full(s) || !g.expired(s.Now, topic.text, &o, retention) {
				left++
				continue
			}
			putOffset(s, g.id, topic.text, list[i].partition, nil)
		}
	}
	return left
}

// expired tells whether an offset's time is over: as its commit demanded; or, for a
// group that has had members, so long after the last one left; for a simple group
// so long after the commit; in a stable group of consumers likewise, for topics that
// they do not consume any more.
func (g *group) expired(now time.Time, topic string, o *offset, retention time.Duration) bool {
	if g.classic.InUse(topic) {
		return false
	}
	if o.expires != noExpiry {
		return now.UnixMilli() >= o.expires
	}
	since := o.time
	if ms, ok := g.classic.EmptySince(); ok {
		since = ms
	}
	return now.UnixMilli()-since >= retention.Milliseconds()
}
