//go:build unix

package main_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// recordID is a record's number among those of its writer. The record's bytes follow from it.
type recordID struct{ writer, seq int64 }

// noise has the bytes from which records are padded.
var noise = func() []byte {
	b := make([]byte, 1<<16)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

func (id recordID) value(topic *loadTopic) []byte {
	rng := rand.New(rand.NewPCG(uint64(id.writer), uint64(id.seq)))
	n := rng.IntN(topic.padding)
	from := rng.IntN(len(noise) - n)
	return fmt.Appendf(nil, "%d/%d %s", id.writer, id.seq, noise[from:from+n])
}

// parseRecord tells which record it is, and refuses a record with any other byte.
func parseRecord(topic *loadTopic, value []byte) (recordID, error) {
	var id recordID
	head, _, _ := bytes.Cut(value, []byte(" "))
	if _, err := fmt.Sscanf(string(head), "%d/%d", &id.writer, &id.seq); err != nil {
		return id, fmt.Errorf("%.40q is no record of the load: %w", value, err)
	}
	if !bytes.Equal(id.value(topic), value) {
		return id, fmt.Errorf("record %d/%d has other bytes than were sent", id.writer, id.seq)
	}
	return id, nil
}

// book has the answers that clients were given and the records that they saw, to be compared with
// the records of a node. It is safe for concurrent use.
type book struct {
	topics []*loadTopic
	power  bool // the test cuts the power: acknowledgements that rest on the page cache may be lost

	mu      sync.Mutex
	pages   map[string][]*page // by topic, then partition; guarded by mu
	answers int                // guarded by mu
	sure    int                // those of answers that are acknowledgements which survive a power cut; guarded by mu
	lives   int                // lives of the node so far; guarded by mu
	wrong   []error            // guarded by mu
	cutOff  int                // acknowledgements that a power cut took, and was allowed to take; guarded by mu
	probes  int64              // guarded by the test's goroutine
}

// page has the answers and records of one partition. Its book's mutex guards it.
type page struct {
	acked map[int64]ack
	seen  map[int64]recordID // records that a consumer saw, by offset
	high  int64              // the highest end that a consumer was told
	old   map[recordID]bool  // acknowledged by topics of the same name that were deleted
}

// ack is an answer to a producer.
type ack struct {
	id   recordID
	sure bool // the record survives a power cut
	life int  // the life of the node in which it was given
}

func newBook(power bool) *book {
	b := &book{topics: loadTopics(), power: power, pages: map[string][]*page{}}
	for _, topic := range b.topics {
		for range topic.partitions {
			b.pages[topic.name] = append(b.pages[topic.name], &page{acked: map[int64]ack{}, seen: map[int64]recordID{}, old: map[recordID]bool{}})
		}
	}
	return b
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := fmt.Sprintf("%d answers in %d lives, %d of them sure to last, %d cut off as they might be;", b.answers, b.lives+1, b.sure, b.cutOff)
	for _, topic := range b.topics {
		s += " " + topic.name
		for _, pg := range b.pages[topic.name] {
			s += fmt.Sprintf(" %d", len(pg.acked))
		}
	}
	return s
}

func (b *book) countAnswers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.answers
}

func (b *book) countSure() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sure
}

// nextEra notes that a topic's acknowledgements have another meaning from now on. gone says that
// the topic is about to be deleted with all that was acknowledged.
func (b *book) nextEra(topic *loadTopic, gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	topic.era.Add(1)
	if !gone {
		return
	}
	for _, pg := range b.pages[topic.name] {
		for _, a := range pg.acked {
			pg.old[a.id] = true
		}
		clear(pg.acked)
	}
}

// answered notes the answer to a record that was sent in an era of its topic.
func (b *book) answered(topic *loadTopic, id recordID, era int64, r *kgo.Record, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers++
	holds := topic.era.Load() == era && era%2 == 0
	if err != nil {
		if topic.sure() || !b.power && !topic.replaced {
			b.wrong = append(b.wrong, fmt.Errorf("%s-%d: record %v failed: %w", topic.name, r.Partition, id, err))
		}
		return
	}
	if topic.replaced && !holds {
		return // the record may be in any of the topics of that name
	}
	pg := b.pages[topic.name][r.Partition]
	if other, ok := pg.acked[r.Offset]; ok && other.id != id && (other.sure || other.life == b.lives || !b.power) {
		b.wrong = append(b.wrong, fmt.Errorf("%s-%d: offset %d was acknowledged for %v and for %v", topic.name, r.Partition, r.Offset, other.id, id))
	}
	pg.acked[r.Offset] = ack{id, holds, b.lives}
	if holds {
		b.sure++
	}
}

// saw notes the records that a consumer got.
func (b *book) saw(p kgo.FetchTopicPartition) {
	if p.Err != nil { // the node may be gone
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	topic := b.topic(p.Topic)
	pg := b.pages[p.Topic][p.Partition]
	pg.high = max(pg.high, p.HighWatermark)
	for _, r := range p.Records {
		id, err := parseRecord(topic, r.Value)
		if other, ok := pg.seen[r.Offset]; err == nil && ok && other != id && (topic.sure() || !b.power) {
			err = fmt.Errorf("a consumer saw %v and later %v", other, id)
		}
		if err != nil {
			b.wrong = append(b.wrong, fmt.Errorf("%s-%d: offset %d: %w", p.Topic, p.Partition, r.Offset, err))
		}
		pg.seen[r.Offset] = id
	}
}

func (b *book) topic(name string) *loadTopic {
	return b.topics[slices.IndexFunc(b.topics, func(t *loadTopic) bool { return t.name == name })]
}

// found has the records of a partition that a node has.
type found struct {
	start, end int64
	ids        map[int64]recordID
	bytes      int64
}

// compare proves that a node has all records that it must have. After a power cut the
// acknowledgements that rest on the page cache may end sooner, but at one point: a record that is
// there is the one that was acknowledged.
func (b *book) compare(t *testing.T, p *process, power bool) {
	t.Helper()
	cl := p.client(t)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	details, err := adm.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range b.topics {
		if topic.replaced && topic.era.Load()%2 == 1 {
			continue
		}
		if d := details[topic.name]; d.Err != nil || d.ID != topic.id || len(d.Partitions) != int(topic.partitions) {
			t.Errorf("topic %s %v is there as %v, %d partitions, %v", topic.name, topic.id, d.ID, len(d.Partitions), d.Err)
			continue
		}
		parts := readTopic(t, p, adm, topic)
		b.mu.Lock()
		for i, f := range parts {
			b.comparePartition(t, topic, i, f, power)
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, err := range b.wrong[:min(5, len(b.wrong))] {
		t.Error(err)
	}
}

// comparePartition compares one partition. The caller holds mu.
func (b *book) comparePartition(t *testing.T, topic *loadTopic, partition int, f *found, power bool) {
	t.Helper()
	pg := b.pages[topic.name][partition]
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, offset := range slices.Sorted(maps.Keys(pg.acked)) {
		a := pg.acked[offset]
		id, there := f.ids[offset]
		switch {
		case there && id == a.id, offset < f.start && topic.configs["retention.bytes"] != "":
		case offset >= f.end && power && !a.sure:
			delete(pg.acked, offset)
			b.cutOff++
		case there:
			complain("offset %d was acknowledged for %v (sure: %v), and has %v", offset, a.id, a.sure, id)
		default:
			complain("offset %d was acknowledged for %v (sure: %v), and is lost", offset, a.id, a.sure)
		}
	}
	if topic.sure() || !b.power && !topic.replaced {
		if f.end < pg.high {
			complain("a consumer was told that %d is the end, now it is %d", pg.high, f.end)
		}
		for _, offset := range slices.Sorted(maps.Keys(pg.seen)) {
			if id, there := f.ids[offset]; offset >= f.start && (!there || id != pg.seen[offset]) {
				complain("a consumer saw %v at %d, now it is %v (there: %v)", pg.seen[offset], offset, id, there)
			}
		}
	}
	last := map[int64]int64{0: -1, 1: -1}
	for offset := f.start; offset < f.end; offset++ {
		id, there := f.ids[offset]
		if !there {
			complain("nothing at %d, between %d and %d", offset, f.start, f.end)
			break
		}
		if before, idempotent := last[id.writer]; idempotent {
			if before >= id.seq {
				complain("offset %d has %v of an idempotent producer, after its %d", offset, id, before)
			}
			last[id.writer] = max(id.seq, before)
		}
		if pg.old[id] {
			complain("offset %d has %v, which a deleted topic of this name acknowledged", offset, id)
		}
	}
	if topic.configs["retention.bytes"] != "" && f.start > 0 && f.bytes < retained/2 {
		complain("retention left %d bytes", f.bytes)
	}
	if len(wrong) > 0 {
		t.Errorf("%s-%d [%d, %d), power cut %v: %d acknowledgements, %d faults, the first: %s\nthe last: %s", topic.name, partition, f.start, f.end, power,
			len(pg.acked), len(wrong), wrong[0], wrong[len(wrong)-1])
	}
}

// readTopic reads all records of a topic that nobody writes to, as a consumer sees them.
func readTopic(t *testing.T, p *process, adm *kadm.Client, topic *loadTopic) []*found {
	t.Helper()
	starts, err := adm.ListStartOffsets(t.Context(), topic.name)
	ends, endErr := adm.ListEndOffsets(t.Context(), topic.name)
	if err != nil || endErr != nil {
		t.Fatal(err, endErr)
	}
	var parts []*found
	from, left := map[int32]kgo.Offset{}, map[int32]bool{}
	for i := range topic.partitions {
		s, _ := starts.Lookup(topic.name, i)
		e, ok := ends.Lookup(topic.name, i)
		if !ok || s.Err != nil || e.Err != nil {
			t.Fatalf("%s-%d: %v, %v, %v", topic.name, i, ok, s.Err, e.Err)
		}
		parts = append(parts, &found{start: s.Offset, end: e.Offset, ids: map[int64]recordID{}})
		if s.Offset < e.Offset {
			from[i], left[i] = kgo.NewOffset().At(s.Offset), true
		}
	}
	cl := p.client(t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic.name: from}), kgo.FetchMaxWait(50*time.Millisecond))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), readyLimit)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading %s, of which %v are left: %v", topic.name, left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			f := parts[r.Partition]
			id, err := parseRecord(topic, r.Value)
			if err != nil {
				t.Errorf("%s-%d: offset %d: %v", topic.name, r.Partition, r.Offset, err)
			}
			f.ids[r.Offset] = id
			f.bytes += int64(len(r.Value))
			if r.Offset == f.end-1 {
				delete(left, r.Partition)
			}
		})
	}
	return parts
}
