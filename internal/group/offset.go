package group

import (
	"maps"
	"slices"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/record"
)

// Commit handles OffsetCommit. The code is that of the whole request; those of the
// partitions are in the topics. The topics of req must exist and have their names.
func (m *Machine) Commit(s *coord.Step, req *kmsg.OffsetCommitRequest) ([]kmsg.OffsetCommitResponseTopic, int16) {
	g := m.findGroup(s, req.Group)
	if code := acceptCommit(s, g, req); code != 0 {
		return nil, code
	}
	return m.putCommit(s, req, m.commitGrowth(g, req), nil)
}

// putCommit adds the records of a commit that is accepted to the step, if they are not too large and the growth of
// the memory has room. They belong to the transaction of a producer, unless that is nil.
func (m *Machine) putCommit(s *coord.Step, req *kmsg.OffsetCommitRequest, growth int64, by *coord.Producer) ([]kmsg.OffsetCommitResponseTopic, int16) {
	if recordsSize(req) > coord.MaxBatch {
		return nil, invalidCommitOffsetSize
	}
	if growth > m.memory.Room() {
		m.memory.WarnFull(s.Now, req.Group, growth)
		return nil, coordinatorNotAvailable
	}
	topics := make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		topics[i].Topic, topics[i].TopicID = t.Topic, t.TopicID
		topics[i].Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
	}
	m.putInBatches(s, req, topics, by)
	return topics, 0
}

// putInBatches adds a commit's records to the step, in as many batches as that needs, and notes
// the outcome of each partition in topics.
func (m *Machine) putInBatches(s *coord.Step, req *kmsg.OffsetCommitRequest, topics []kmsg.OffsetCommitResponseTopic, by *coord.Producer) {
	limit := m.settings().MaxMetadata
	o := offset{Time: s.Now.UnixMilli(), Expires: noExpiry}
	if req.RetentionTimeMillis >= 0 {
		o.Expires = o.Time + req.RetentionTimeMillis
	}
	i, j := 0, 0
	var put func()
	put = func() {
		if by != nil {
			s.SetProducer(*by)
		}
		for ; i < len(req.Topics); i, j = i+1, 0 {
			t := &req.Topics[i]
			o.Topic = t.TopicID
			for ; j < len(t.Partitions); j++ {
				if isBatchFull(s) {
					s.Then(put)
					return
				}
				p, out := &t.Partitions[j], &topics[i].Partitions[j]
				out.Partition = p.Partition
				o.Metadata = stringOrEmpty(p.Metadata)
				if isTooLong(o.Metadata, limit) {
					out.ErrorCode = offsetMetadataTooLarge
					continue
				}
				o.At, o.Epoch = record.Offset(p.Offset), record.Epoch(p.LeaderEpoch)
				putOffset(s, req.Group, t.Topic, p.Partition, &o)
			}
		}
	}
	put()
}

// recordsSize is about how many bytes a commit's records take. Each record has the
// group's name, so that a small request can make large records.
func recordsSize(req *kmsg.OffsetCommitRequest) (n int) {
	const fixed = 80 // bytes of an offset's record without names and metadata
	for i := range req.Topics {
		t := &req.Topics[i]
		n += len(t.Partitions) * (fixed + len(req.Group) + len(t.Topic))
		for j := range t.Partitions {
			n += len(stringOrEmpty(t.Partitions[j].Metadata))
		}
	}
	return n
}

// commitGrowth is about how many more bytes the machine keeps when a commit is applied.
// The group may be nil. It compares the commit with the group's offsets only if there
// is no room for the commit of a group that has none.
func (m *Machine) commitGrowth(g *group, req *kmsg.OffsetCommitRequest) int64 {
	expires, most := req.RetentionTimeMillis >= 0, groupBytes+classic.Size(req.Group)
	for i := range req.Topics {
		t := &req.Topics[i]
		most += topicEntryBytes + nameSize(len(t.Topic))
		for j := range t.Partitions {
			most += storedOffsetSize(len(stringOrEmpty(t.Partitions[j].Metadata)), expires)
		}
	}
	if g == nil || most <= m.memory.Room() {
		return most
	}
	n := int64(0)
	for i := range req.Topics {
		n += g.offsets.topicGrowth(&req.Topics[i], expires)
	}
	return n
}

// acceptCommit returns the code of a commit that is refused, or 0 if it is accepted,
// which restarts its member's session. The group may be nil.
func acceptCommit(s *coord.Step, g *group, req *kmsg.OffsetCommitRequest) int16 {
	switch {
	case g != nil:
		return g.classic.AcceptCommit(s, req)
	case req.Generation < 0:
		return 0 // the commit makes a simple group
	case req.Version >= 9:
		return groupIDNotFound
	}
	return illegalGeneration
}

// isTooLong tells whether metadata is longer than the limit, which counts UTF-16 units
// as Java does.
func isTooLong(s string, limit int) bool {
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

// Fetch answers OffsetFetch for one group: the topics that the request names, or all
// that the group has if its list is nil. If the asker wants stable offsets, it gets none of a partition
// for which a transaction is open (KIP-447).
func (m *Machine) Fetch(s *coord.Step, req *kmsg.OffsetFetchRequestGroup, stable bool) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = req.Group
	g := m.findGroup(s, req.Group)
	if req.Topics == nil {
		resp.Topics = g.listOffsets(m, stable)
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
				o, ok = g.offsets.getOffset(t.Topic, p)
			}
			if ok && isOtherTopic(o.Topic, t.TopicID) {
				ok = false // the offset is that of a deleted topic with the same name
			}
			out.Partitions[j] = fetchedPartition(p, m.withinFork(t.Topic, p, o), ok)
			if stable && g.isUnstable(t.Topic, p) {
				out.Partitions[j] = unstablePartition(p)
			}
		}
	}
	return resp
}

// isOtherTopic tells whether two topic ids are known and differ.
func isOtherTopic(a, b [16]byte) bool { return a != b && a != [16]byte{} && b != [16]byte{} }

// listOffsets returns all offsets of the group, in order. Offsets of a deleted topic, and of a
// later one of its name, are told apart by their ids. The group, which m has, may be nil. stable is that of Fetch.
func (g *group) listOffsets(m *Machine, stable bool) []kmsg.OffsetFetchResponseGroupTopic {
	if g == nil {
		return []kmsg.OffsetFetchResponseGroupTopic{}
	}
	topics := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(g.offsets.topics))
	for _, name := range g.offsets.sortTopics() {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic = name.text
		for i := range g.offsets.topics[name] {
			k := &g.offsets.topics[name][i]
			if i > 0 && isOtherTopic(t.TopicID, k.topic) {
				topics = append(topics, t)
				t.Partitions = nil
			}
			t.TopicID = k.topic
			p := fetchedPartition(k.partition, m.withinFork(name.text, k.partition, k.toOffset()), true)
			if stable && g.isUnstable(name.text, k.partition) {
				p = unstablePartition(k.partition)
			}
			t.Partitions = append(t.Partitions, p)
		}
		topics = append(topics, t)
	}
	return topics
}

// withinFork is a committed offset that is not of records which another cluster had and this one never got: see Config.Forks.
func (m *Machine) withinFork(topic string, partition int32, o offset) offset {
	if m.forks == nil || o.Link == [16]byte{} {
		return o
	}
	if begin, ok := m.forks(topic, partition); ok && o.At > begin {
		o.At, o.Epoch, o.Metadata = begin, record.NoEpoch, "" // they belong to another offset
	}
	return o
}

// fetchedPartition is the answer for a partition. Its offset is -1 if ok is false.
func fetchedPartition(partition int32, o offset, ok bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	if !ok {
		o = offset{At: -1, Epoch: record.NoEpoch}
	}
	return kmsg.OffsetFetchResponseGroupTopicPartition{
		Partition: partition, Offset: int64(o.At), LeaderEpoch: int32(o.Epoch), Metadata: &o.Metadata,
	}
}

// unstablePartition is the answer for a partition for which a transaction is open.
func unstablePartition(partition int32) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := fetchedPartition(partition, offset{}, false)
	p.ErrorCode = unstableOffsetCommit
	return p
}

// consumerType is the protocol type of consumers. The coordinator knows which topics
// they consume.
const consumerType = "consumer"

// DeleteOffsets handles OffsetDelete. It refuses to delete offsets of topics that the
// group's members consume.
func (m *Machine) DeleteOffsets(s *coord.Step, req *kmsg.OffsetDeleteRequest) ([]kmsg.OffsetDeleteResponseTopic, int16) {
	g := m.findGroup(s, req.Group)
	switch {
	case g == nil:
		return nil, groupIDNotFound
	case !g.classic.IsEmpty() && g.classic.ProtocolType() != consumerType:
		return nil, nonEmptyGroup
	}
	topics := make([]kmsg.OffsetDeleteResponseTopic, len(req.Topics))
	for i, t := range req.Topics {
		topics[i].Topic = t.Topic
		topics[i].Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(t.Partitions))
		for j, p := range t.Partitions {
			topics[i].Partitions[j].Partition = p.Partition
			if g.classic.Consumes(t.Topic) {
				topics[i].Partitions[j].ErrorCode = groupSubscribedToTopic
			}
		}
	}
	g.deleteNamed(s, topics)
	return topics, 0
}

// deleteNamed deletes the group's offsets of the partitions that have no error, in as many
// batches as that needs.
func (g *group) deleteNamed(s *coord.Step, topics []kmsg.OffsetDeleteResponseTopic) {
	i, j := 0, 0
	var drop func()
	drop = func() {
		for ; i < len(topics); i, j = i+1, 0 {
			t := &topics[i]
			for ; j < len(t.Partitions); j++ {
				if isBatchFull(s) {
					s.Then(drop)
					return
				}
				p := t.Partitions[j]
				_, ok := g.offsets.getOffset(t.Topic, p.Partition)
				if (ok || g.isUnstable(t.Topic, p.Partition)) && p.ErrorCode == 0 {
					putOffset(s, g.id, t.Topic, p.Partition, nil)
				}
			}
		}
	}
	drop()
}

// Delete handles DeleteGroups for one group.
func (m *Machine) Delete(s *coord.Step, id string) int16 {
	g := m.findGroup(s, id)
	switch {
	case g == nil:
		return groupIDNotFound
	case !g.classic.IsEmpty():
		return nonEmptyGroup
	}
	g.deleteInBatches(s)
	return 0
}

// deleteInBatches deletes a group's offsets and then the group, in as many batches as
// that needs. Offsets that are pending have tombstones, too: that of the group goes when the log is compacted, and a load after
// that would commit them with their transaction's marker.
func (g *group) deleteInBatches(s *coord.Step) {
	for topic, list := range g.offsets.topics {
		for i := range list {
			if isBatchFull(s) {
				s.Then(func() { g.deleteInBatches(s) })
				return
			}
			putOffset(s, g.id, topic.text, list[i].partition, nil)
		}
	}
	for at := range g.pending {
		if isBatchFull(s) {
			s.Then(func() { g.deleteInBatches(s) })
			return
		}
		putOffset(s, g.id, at.topic, at.partition, nil)
	}
	classic.Put(s, g.id, nil)
}

// A batch has at most about this many offsets, so that none grows with the group, the partition
// or the request: each record has the group's name, so that a small request can make large ones.
const (
	maxBatchOffsets = 10_000
	maxBatchBytes   = 256 << 10
)

// isBatchFull tells whether a step has enough records of offsets for one batch.
func isBatchFull(s *coord.Step) bool {
	return len(s.Records()) >= maxBatchOffsets || len(s.Buffer()) >= maxBatchBytes
}

// goneTopics are the ids of deleted topics, by name. Several topics of one name may have been
// deleted one after the other.
type goneTopics map[string][][16]byte

// and returns all topics of both, of which it changes none.
func (gone goneTopics) and(more goneTopics) goneTopics {
	if len(more) == 0 {
		return gone
	}
	all := maps.Clone(more)
	for topic, ids := range gone {
		all[topic] = slices.Concat(all[topic], ids)
	}
	return all
}

// TopicsDeleted deletes the offsets of all groups for topics that were deleted, and tells
// whether more offsets are left to delete. It keeps offsets that are known to belong to
// another topic of the same name.
func (m *Machine) TopicsDeleted(s *coord.Step, gone goneTopics) (more bool) {
	for _, g := range m.groups {
		for topic, list := range g.offsets.topics {
			ids := gone[topic.text]
			for i := range list {
				if !slices.ContainsFunc(ids, func(id [16]byte) bool { return !isOtherTopic(list[i].topic, id) }) {
					continue
				}
				if isBatchFull(s) {
					return true
				}
				putOffset(s, g.id, topic.text, list[i].partition, nil)
			}
		}
		for at, list := range g.pending {
			isKept := func(id [16]byte) bool {
				return !slices.ContainsFunc(gone[at.topic], func(deleted [16]byte) bool { return !isOtherTopic(id, deleted) })
			}
			committed, ok := g.offsets.getOffset(at.topic, at.partition)
			if ok && isKept(committed.Topic) || slices.ContainsFunc(list, func(o pendingOffset) bool { return isKept(o.offset.Topic) }) {
				continue // a tombstone would take that of the later topic, too
			}
			if isBatchFull(s) {
				return true
			}
			putOffset(s, g.id, at.topic, at.partition, nil)
		}
	}
	return false
}

// scanPause is the time between two batches of one scan.
const scanPause = time.Millisecond

// expireOffsets deletes offsets that have expired, and idle groups that have no offsets
// left (KIP-211). The timer scan calls it.
func (m *Machine) expireOffsets(s *coord.Step) {
	set := m.settings()
	for _, g := range m.groups {
		left := m.expireOffsetsOf(s, g, set.Retention)
		if isBatchFull(s) {
			m.timers.Set(&m.scan, s.Now.Add(scanPause))
			return
		}
		if left == 0 && len(g.pending) == 0 && g.classic.IsIdle() {
			classic.Put(s, g.id, nil)
		}
	}
	m.timers.Set(&m.scan, s.Now.Add(set.RetentionScan))
}

// expireOffsetsOf deletes the expired offsets of a group and counts those that are left.
func (m *Machine) expireOffsetsOf(s *coord.Step, g *group, retention time.Duration) (left int) {
	for topic, list := range g.offsets.topics {
		for i := range list {
			if isBatchFull(s) || g.isUnstable(topic.text, list[i].partition) || !m.isExpired(s.Now, g, topic.text, &list[i], retention) {
				left++
				continue
			}
			putOffset(s, g.id, topic.text, list[i].partition, nil)
		}
	}
	return left
}

// isExpired tells whether an offset has expired. An offset whose topic is in use never
// does. A commit may have named a time of its own; otherwise an offset expires when the
// retention has passed since it was last in use.
func (m *Machine) isExpired(now time.Time, g *group, topic string, k *storedOffset, retention time.Duration) bool {
	if g.classic.MayNeedOffsets(topic) {
		return false
	}
	if k.extra != nil && k.extra.expires != noExpiry {
		return now.UnixMilli() >= k.extra.expires
	}
	return now.UnixMilli()-m.lastUsed(g, k) >= retention.Milliseconds()
}

// lastUsed is when an offset was last in use, in ms: when the group's last member left or, in a group that has or
// never had members, when the commit was made. One that a link has made is in use while the source has it: it counts
// as in use at the load, since only the link can tell.
func (m *Machine) lastUsed(g *group, k *storedOffset) int64 {
	since, ok := g.classic.EmptySince()
	if !ok {
		since = k.time
	}
	if k.isOfLink() {
		since = max(since, k.time, k.extra.confirmed, m.loaded)
	}
	return since
}
