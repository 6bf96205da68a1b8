package compact

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

// tester is a test, of this package or of rapid.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// rec is a record of a test.
type rec struct {
	offset     record.Offset
	ms         int64
	key, value []byte
	headers    []record.Header
}

// of makes a record; the key "-" and the value "-" are null.
func of(key, value string) rec {
	r := rec{ms: 1000}
	if key != "-" {
		r.key = []byte(key)
	}
	if value != "-" {
		r.value = []byte(value)
	}
	return r
}

// shape is how a batch of a test is made.
type shape struct {
	codec         record.Codec
	producer      int64 // 0: none
	epoch         int16
	seq           int32
	transactional bool
	appendTime    int64 // ms, 0: the producer's
}

func makeBatch(t tester, base record.Offset, s shape, recs ...rec) record.Batch {
	t.Helper()
	bu := record.Builder{Codec: s.codec, Transactional: s.transactional, LeaderEpoch: 3}
	if s.producer != 0 {
		bu.SetProducer(s.producer, s.epoch, s.seq)
	}
	for _, r := range recs {
		bu.Append(r.ms, r.key, r.value, r.headers...)
	}
	b, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	b.SetBaseOffset(base)
	if s.appendTime != 0 {
		b.SetLogAppendTime(s.appendTime)
	}
	return bytes.Clone(b)
}

func makeMarker(t tester, base record.Offset, producer int64, commit bool) record.Batch {
	t.Helper()
	b, err := record.BuildMarker(2000, producer, 0, record.Marker{Commit: commit, CoordinatorEpoch: 7})
	if err != nil {
		t.Fatal(err)
	}
	b.SetBaseOffset(base)
	b.SetLeaderEpoch(3)
	return b
}

// readBatch reads all records of a batch, and checks that it is right as a whole.
func readBatch(t tester, b record.Batch) []rec {
	t.Helper()
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	var out []rec
	var r record.Reader
	defer r.Close()
	for r.Reset(b, 0); r.Next(); {
		one := rec{offset: r.Record.Offset, ms: r.Record.Timestamp, key: bytes.Clone(r.Record.Key), value: bytes.Clone(r.Record.Value)}
		for _, h := range r.Record.Headers {
			one.headers = append(one.headers, record.Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
		}
		out = append(out, one)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	if len(out) != int(b.Count()) {
		t.Fatalf("%d records where the header says %d", len(out), b.Count())
	}
	return out
}

// String is the record in short.
func (r rec) String() string {
	show := func(b []byte) string {
		if b == nil {
			return "-"
		}
		return string(b)
	}
	return fmt.Sprintf("%d:%s=%s", r.offset, show(r.key), show(r.value))
}

// splitBatches cuts bytes into batches.
func splitBatches(t tester, data []byte) []record.Batch {
	t.Helper()
	var out []record.Batch
	for len(data) > 0 {
		b, rest, err := record.Next(data)
		if err != nil {
			t.Fatal(err)
		}
		out, data = append(out, b), rest
	}
	return out
}

// round runs one round over batches: those from first on are dirty, up to upper. It returns what is left.
type round struct {
	first, upper record.Offset
	mapBytes     int64
	now          int64
	retention    int64
	aborted      []Aborted
	producers    map[int64]LastOfProducer
}

func (c round) run(t *testing.T, batches ...record.Batch) (left []record.Batch, index []Aborted) {
	t.Helper()
	m, err := NewMap(max(c.mapBytes, MinMapBytes))
	if err != nil {
		t.Fatal(err)
	}
	x := NewIndexer(m, c.first, c.aborted)
	for _, b := range batches {
		if b.NextOffset() <= c.first || b.BaseOffset() >= c.upper {
			continue
		}
		full, err := x.AddBatch(t.Context(), nil, b)
		if err != nil {
			t.Fatal(err)
		}
		if full {
			break
		}
	}
	x.Finish(c.upper)
	f := NewFilter(Rules{Map: m, First: c.first, Upper: c.upper, Now: c.now, Retention: c.retention, Aborted: c.aborted, Producers: c.producers})
	var out []byte
	for _, b := range batches {
		before := bytes.Clone(b)
		v, err := f.Judge(t.Context(), nil, b)
		if err != nil {
			t.Fatal(err)
		}
		was := len(out)
		if out, err = f.AppendTo(t.Context(), nil, out, b, &v); err != nil {
			t.Fatal(err)
		}
		if int64(len(out)-was) > v.Memory(b) {
			t.Fatalf("%d bytes where %d is the bound", len(out)-was, v.Memory(b))
		}
		if !bytes.Equal(before, b) {
			t.Fatal("the batch itself was changed")
		}
	}
	return splitBatches(t, out), f.TakeAborted()
}

// show tells of each batch its offsets and its records, such as "0-2[0:k=v 2:-=x]". A control batch has a
// "c" in front, and one with a delete horizon "@ms" at its end.
func show(t tester, batches []record.Batch) []string {
	t.Helper()
	var out []string
	for _, b := range batches {
		var recs []string
		kind := ""
		for _, r := range readBatch(t, b) {
			if b.Control() {
				r.key, r.value = []byte("m"), []byte("m")
			}
			recs = append(recs, r.String())
		}
		if b.Control() {
			kind = "c"
		}
		text := fmt.Sprintf("%s%d-%d%v", kind, b.BaseOffset(), b.LastOffset(), recs)
		if ms, ok := b.DeleteHorizon(); ok {
			text += fmt.Sprintf("@%d", ms)
		}
		out = append(out, text)
	}
	return out
}

func wantBatches(t *testing.T, got []record.Batch, want ...string) {
	t.Helper()
	if text := show(t, got); !slices.Equal(text, want) {
		t.Errorf("left is\n%q, and should be\n%q", text, want)
	}
}
