package main_test

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// chaosTopic is a topic to which a campaign writes. The records of each of its writers and partitions
// have numbers of their own, from 1 on.
type chaosTopic struct {
	*loadTopic
	acks       kgo.Acks
	idempotent bool
	writers    []int64
}

// isSure tells whether an acknowledged record of the topic is never lost.
func (ct *chaosTopic) isSure() bool { return ct.acks == kgo.AllISRAcks() }

func chaosTopics() []*chaosTopic {
	small := map[string]string{"segment.bytes": "1048576"}
	return []*chaosTopic{
		{&loadTopic{name: "sequences", partitions: 6, padding: 600, configs: small}, kgo.AllISRAcks(), true, []int64{1, 2, 3}},
		{&loadTopic{name: "plain", partitions: 3, padding: 600}, kgo.AllISRAcks(), false, []int64{4}},
		{&loadTopic{name: "hasty", partitions: 3, padding: 600}, kgo.LeaderAck(), false, []int64{5}},
	}
}

// recordOf is the record with a number of a writer in a partition: its writer's number names both, so that
// a record that turns up in another partition is known.
func recordOf(writer int64, partition int32, seq int64) recordID {
	return recordID{writer*100 + int64(partition), seq}
}

// history has all that clients were told of a cluster's topics, and finds contradictions in it as they
// come. It is safe for concurrent use.
type history struct {
	topics map[string]*chaosTopic
	names  []string // of the topics

	mu        sync.Mutex
	sheets    map[string][]*sheet       // by topic, then partition; guarded by mu
	committed map[string]map[int32]span // a group's offsets by topic and partition; guarded by mu
	commits   int                       // guarded by mu
	wrong     []error                   // guarded by mu
}

// span has the highest offset of a group whose commit was acknowledged, and the highest one that a member
// has tried to commit.
type span struct{ acked, tried int64 }

// sheet is the history of one partition. Its history's mutex guards it.
type sheet struct {
	acked   []recordID // by offset; zero: no answer named the offset
	seen    []recordID // by offset, without gaps: records that a consumer saw
	next    map[int64]int64
	checked int // the acknowledgements below this offset were compared with seen
	count   int // of acknowledgements
	lost    int // acknowledged by a leader alone, and replaced later
	last    time.Time
	gap     time.Duration // the longest time without an acknowledgement
}

func newHistory(topics []*chaosTopic) *history {
	h := &history{topics: map[string]*chaosTopic{}, sheets: map[string][]*sheet{}, committed: map[string]map[int32]span{}}
	for _, topic := range topics {
		h.topics[topic.name], h.committed[topic.name] = topic, map[int32]span{}
		h.names = append(h.names, topic.name)
		for range topic.partitions {
			h.sheets[topic.name] = append(h.sheets[topic.name], &sheet{next: map[int64]int64{}})
		}
	}
	return h
}

// complain notes a contradiction. The caller holds mu.
func (h *history) complain(topic string, partition int32, format string, args ...any) {
	if len(h.wrong) < 100 {
		h.wrong = append(h.wrong, fmt.Errorf("%s %s-%d: %w", time.Now().UTC().Format("15:04:05.000"), topic, partition, fmt.Errorf(format, args...)))
	}
}

// answered notes the answer to a record.
func (h *history) answered(topic *chaosTopic, id recordID, r *kgo.Record, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		if topic.idempotent { // its client tries again for ever, unless it is told that records were lost
			h.complain(topic.name, r.Partition, "record %v failed: %w", id, err)
		}
		return
	}
	s := h.sheets[topic.name][r.Partition]
	now := time.Now()
	if !s.last.IsZero() {
		s.gap = max(s.gap, now.Sub(s.last))
	}
	s.last = now
	s.count++
	if r.Offset < 0 { // the broker has the record, but no longer knows where
		return
	}
	for int64(len(s.acked)) <= r.Offset {
		s.acked = append(s.acked, recordID{})
	}
	other := s.acked[r.Offset]
	if topic.isSure() && other != (recordID{}) && other != id {
		h.complain(topic.name, r.Partition, "offset %d was acknowledged for %v and for %v", r.Offset, other, id)
	}
	s.acked[r.Offset] = id
	if int64(s.checked) > r.Offset {
		h.compare(topic, r.Partition, s, r.Offset)
	}
}

// compare compares an acknowledgement with the record that consumers saw. The caller holds mu.
func (h *history) compare(topic *chaosTopic, partition int32, s *sheet, offset int64) {
	acked, seen := s.acked[offset], s.seen[offset]
	switch {
	case acked == (recordID{}) || acked == seen:
	case topic.isSure():
		h.complain(topic.name, partition, "offset %d was acknowledged for %v, and a consumer saw %v", offset, acked, seen)
	default:
		s.lost++
	}
}

// saw notes a record that a consumer got. A sure partition has no gaps, and the numbers of each of its
// idempotent writers rise by one.
func (h *history) saw(reader string, r *kgo.Record) {
	topic := h.topics[r.Topic]
	id, err := parseRecord(topic.loadTopic, r.Value)
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sheets[r.Topic][r.Partition]
	switch next := int64(len(s.seen)); {
	case err != nil:
		h.complain(r.Topic, r.Partition, "offset %d: %w", r.Offset, err)
	case r.Offset > next:
		h.complain(r.Topic, r.Partition, "%s got offset %d, and nobody has seen %d", reader, r.Offset, next)
		for int64(len(s.seen)) < r.Offset {
			s.seen = append(s.seen, recordID{})
		}
		s.seen = append(s.seen, id)
		s.next[id.writer] = id.seq
	case r.Offset < next:
		if other := s.seen[r.Offset]; other != id {
			h.complain(r.Topic, r.Partition, "%s got %v at offset %d, where a consumer saw %v", reader, id, r.Offset, other)
		}
	default:
		s.seen = append(s.seen, id)
		if before := s.next[id.writer]; topic.idempotent && id.seq != before+1 {
			h.complain(r.Topic, r.Partition, "offset %d has %v, after %d of that writer", r.Offset, id, before)
		}
		s.next[id.writer] = id.seq
	}
}

// check compares the acknowledgements that came since the last check with the records that consumers saw
// since. It returns the number of acknowledged records that no consumer has seen yet.
func (h *history) check() (unseen int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, sheets := range h.sheets {
		topic := h.topics[name]
		for i, s := range sheets {
			for ; s.checked < min(len(s.acked), len(s.seen)); s.checked++ {
				h.compare(topic, int32(i), s, int64(s.checked))
			}
			if topic.isSure() {
				unseen += len(s.acked) - s.checked
			}
		}
	}
	return unseen
}

// beginGaps begins to measure how long no record is acknowledged.
func (h *history) beginGaps() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, sheets := range h.sheets {
		for _, s := range sheets {
			s.last, s.gap = time.Now(), 0
		}
	}
}

// longestGap is the longest time in which no record of some partition was acknowledged by all in sync,
// since beginGaps.
func (h *history) longestGap() (longest time.Duration, where string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, sheets := range h.sheets {
		if !h.topics[name].isSure() {
			continue
		}
		for i, s := range sheets {
			if gap := max(s.gap, time.Since(s.last)); gap > longest {
				longest, where = gap, fmt.Sprintf("%s-%d", name, i)
			}
		}
	}
	return longest, where
}

// count returns how many records were acknowledged: in each sure partition, and in all.
func (h *history) count() (counts []int, all int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range h.names {
		if h.topics[name].isSure() {
			for _, s := range h.sheets[name] {
				counts = append(counts, s.count)
			}
		}
		for _, s := range h.sheets[name] {
			all += s.count
		}
	}
	return counts, all
}

// faults returns the contradictions that were found so far.
func (h *history) faults() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clip(h.wrong)
}

// tryCommit notes that a member of the group is about to commit an offset.
func (h *history) tryCommit(topic string, partition int32, offset int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.committed[topic][partition]
	c.tried = max(c.tried, offset)
	h.committed[topic][partition] = c
}

// ackCommit notes that a commit was acknowledged.
func (h *history) ackCommit(topic string, partition int32, offset int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commits++
	c := h.committed[topic][partition]
	c.acked = max(c.acked, offset)
	h.committed[topic][partition] = c
}

// ackedCommit is the highest offset whose commit was acknowledged so far.
func (h *history) ackedCommit(topic string, partition int32) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.committed[topic][partition].acked
}

// sawCommitted notes a committed offset that a client was told. least is what ackedCommit said before the
// client asked.
func (h *history) sawCommitted(who, topic string, partition int32, offset, least int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if tried := h.committed[topic][partition].tried; offset < least || offset > tried {
		h.complain(topic, partition, "%s is told that offset %d is committed; %d was acknowledged before, and %d is the highest that was tried", who, offset, least, tried)
	}
}

func (h *history) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf("%d commits;", h.commits)
	for _, name := range h.names {
		text += " " + name
		for _, s := range h.sheets[name] {
			text += fmt.Sprintf(" %d", s.count)
			if s.lost > 0 {
				text += fmt.Sprintf("(-%d)", s.lost)
			}
		}
	}
	return text
}
