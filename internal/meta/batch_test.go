package meta

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/config"
)

// logOf numbers entries as the metadata log does, from an index on.
func logOf(first uint64, entries [][]byte) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, e := range entries {
			if !yield(first+uint64(i), e) {
				return
			}
		}
	}
}

// entriesOf are entries that make, change, configure and delete topics.
func entriesOf(topics int) (entries [][]byte) {
	var ids []UUID
	for i := range topics {
		id := UUID{1, byte(i), byte(i >> 8), byte(i >> 16), 15: byte(i * 7)}
		ids = append(ids, id)
		name := fmt.Sprintf("topic-%d", i)
		e := Append(nil, TopicCreated{ID: id, Name: name})
		e = Append(e, PartitionsSet{Topic: id, Partitions: []Partition{{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}}})
		entries = append(entries, e)
		if i%3 == 1 {
			entries = append(entries, Append(nil, ConfigSet{Resource: config.Resource{Type: config.Topic, Name: name}, Key: "retention.ms", Value: "7"}))
			entries = append(entries, Append(nil, PartitionChanged{Topic: id, ISR: []int32{1}, Leader: 1, LeaderEpoch: 1, PartitionEpoch: 1}))
		}
		if i%5 == 4 {
			entries = append(entries, Append(nil, TopicDeleted{ID: ids[i-2]}), Append(nil, FeatureSet{Name: "group.version", Level: int16(i%3 + 1)}))
		}
	}
	return entries
}

// TestApplyAll proves that entries which are applied in one step, or in several, make the
// same image as one by one, and that the Delta leads from the first image to the last.
func TestApplyAll(t *testing.T) {
	entries := entriesOf(100)
	one := Empty()
	for i, e := range entries {
		var err error
		if one, _, err = ApplyAt(one, uint64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	for _, cut := range []int{0, 1, 40, len(entries)} {
		first, _, err := ApplyAll(Empty(), logOf(1, entries[:cut]))
		if err != nil {
			t.Fatal(err)
		}
		before := Encode(first)
		all, d, err := ApplyAll(first, logOf(uint64(cut+1), entries[cut:]))
		if err != nil || !bytes.Equal(Encode(all), Encode(one)) || all.NumPartitions() != one.NumPartitions() {
			t.Fatalf("cut at %d: the images differ, %v", cut, err)
		}
		if !bytes.Equal(Encode(first), before) {
			t.Fatalf("cut at %d: the image before has changed", cut)
		}
		want := Diff(first, all)
		if len(d.Topics) != len(want.Topics) {
			t.Errorf("cut at %d: %d topics changed, the step notes %d", cut, len(want.Topics), len(d.Topics))
		}
		for id, ch := range want.Topics {
			if d.Topics[id] != ch {
				t.Errorf("cut at %d: topic %x: %+v, want %+v", cut, id, d.Topics[id], ch)
			}
		}
	}
}

// TestApplyAllRefusesAll proves that no entry is applied if one of them does not fit, and
// that the error names that one.
func TestApplyAllRefusesAll(t *testing.T) {
	entries := entriesOf(10)
	bad := slices.Insert(slices.Clone(entries), 5, Append(nil, TopicDeleted{ID: UUID{9, 9}}))
	m, d, err := ApplyAll(Empty(), logOf(100, bad))
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "entry 105") || d != nil || m.NumTopics() != 0 {
		t.Errorf("%d topics, %v", m.NumTopics(), err)
	}
}

// BenchmarkApplyAll measures the replay of many small entries, in one step and one by
// one.
func BenchmarkApplyAll(b *testing.B) {
	entries := entriesOf(80_000)
	b.Run("at once", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := ApplyAll(Empty(), logOf(1, entries)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			m := Empty()
			for i, e := range entries {
				var err error
				if m, _, err = ApplyAt(m, uint64(i+1), e); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
