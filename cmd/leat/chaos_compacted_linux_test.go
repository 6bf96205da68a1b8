package main_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

// isCompacted tells whether a partition, by the name of its directory, is of a topic that is compacted: its replicas compact their
// logs at times of their own, so that they have different batches.
func isCompacted(name string) bool {
	return strings.HasPrefix(name, "__consumer_offsets-") || strings.HasPrefix(name, "__transaction_state-")
}

// compactedReplica is what replicas of a compacted partition have in common.
type compactedReplica struct {
	latest map[string]string // by key: the value of the last record that counts; a deleted key has none
	all    map[int64]string  // by offset: the key and the value of each record
	count  int               // batches
}

// readCompacted reads the files of a partition of a compacted topic. Records of a transaction count if its marker commits them.
func readCompacted(t *testing.T, dir string) compactedReplica {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	type entry struct {
		offset int64
		key    string
		value  *string
	}
	c := compactedReplica{latest: map[string]string{}, all: map[int64]string{}}
	open := map[int64][]entry{} // by producer
	var counts []entry
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for len(b) >= record.HeaderLen && binary.BigEndian.Uint32(b[8:]) != 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			b, c.count = rest, c.count+1
			if one.Control() {
				m, err := record.ReadMarker(one)
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				if m.Commit {
					counts = append(counts, open[one.ProducerID()]...)
				}
				delete(open, one.ProducerID())
				continue
			}
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(one); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for raw := batch.Records; len(raw) > 0; {
				length, n := binary.Varint(raw)
				if n <= 0 || length < 0 || int(length)+n > len(raw) {
					t.Fatalf("%s: a record is cut short", file)
				}
				var r kmsg.Record
				if err := r.ReadFrom(raw[:int(length)+n]); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				raw = raw[int(length)+n:]
				e := entry{offset: batch.FirstOffset + int64(r.OffsetDelta), key: string(r.Key)}
				if r.Value != nil {
					e.value = new(string(r.Value))
				}
				c.all[e.offset] = fmt.Sprintf("%x = %x", r.Key, r.Value)
				if one.Transactional() {
					open[one.ProducerID()] = append(open[one.ProducerID()], e)
				} else {
					counts = append(counts, e)
				}
			}
		}
	}
	slices.SortFunc(counts, func(a, b entry) int { return int(a.offset - b.offset) })
	for _, e := range counts {
		if e.value == nil {
			delete(c.latest, e.key)
		} else {
			c.latest[e.key] = *e.value
		}
	}
	return c
}

// compareCompacted fails the test unless replicas of a compacted partition, by node, have the same latest values, and the same record
// wherever both have one at an offset. It returns the number of batches of the longest.
func compareCompacted(t *testing.T, name string, dirs map[int]string) (batches int) {
	t.Helper()
	numbers := slices.Sorted(maps.Keys(dirs))
	first := readCompacted(t, dirs[numbers[0]])
	batches = first.count
	for _, number := range numbers[1:] {
		other := readCompacted(t, dirs[number])
		batches = max(batches, other.count)
		if !maps.Equal(first.latest, other.latest) {
			for key, value := range first.latest {
				if got, ok := other.latest[key]; !ok || got != value {
					t.Errorf("%s: nodes %d and %d differ at key %x: %x and %x (it is there: %v)", name, numbers[0], number, key, value, got, ok)
					break
				}
			}
			t.Errorf("%s: node %d has %d keys and node %d has %d", name, numbers[0], len(first.latest), number, len(other.latest))
		}
		for at, text := range first.all {
			if got, ok := other.all[at]; ok && got != text {
				t.Errorf("%s: nodes %d and %d differ at offset %d: %s and %s", name, numbers[0], number, at, text, got)
				break
			}
		}
	}
	return batches
}
