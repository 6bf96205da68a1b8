package compact

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
)

func TestLatestRecordOfAKeyStays(t *testing.T) {
	left, _ := round{upper: 6}.run(t,
		makeBatch(t, 0, shape{}, of("a", "1"), of("b", "1"), of("a", "2")),
		makeBatch(t, 3, shape{}, of("a", "3")),
		makeBatch(t, 4, shape{}, of("c", "1"), of("", "empty key")))
	wantBatches(t, left, "0-2[1:b=1]", "3-3[3:a=3]", "4-5[4:c=1 5:=empty key]")
}

func TestCleanRecordsStayUnlessTheDirtyPartHasTheirKey(t *testing.T) {
	left, _ := round{first: 2, upper: 3}.run(t,
		makeBatch(t, 0, shape{}, of("a", "1"), of("b", "1")),
		makeBatch(t, 2, shape{}, of("a", "2")))
	wantBatches(t, left, "0-1[1:b=1]", "2-2[2:a=2]")
}

func TestRecordWithoutAKeyGoes(t *testing.T) {
	left, _ := round{upper: 3}.run(t, makeBatch(t, 0, shape{}, of("-", "x"), of("a", "1")), makeBatch(t, 2, shape{}, of("b", "1")))
	wantBatches(t, left, "0-1[1:a=1]", "2-2[2:b=1]")
}

func TestRecordsAboveTheMapsEndStay(t *testing.T) {
	var batches []record.Batch
	for i := range 100 { // the smallest map has room for 33 keys
		batches = append(batches, makeBatch(t, record.Offset(2*i), shape{}, of(string(rune('A'+i)), "1"), of("-", "no key")))
	}
	left, _ := round{upper: 200}.run(t, batches...)
	if len(left) != 100 {
		t.Fatalf("%d batches are left", len(left))
	}
	for i, b := range left {
		want := 1 // below the end the record without a key goes
		if i >= 33 {
			want = 2
		}
		if int(b.Count()) != want {
			t.Errorf("batch %d has %d records", i, b.Count())
		}
	}
}

func TestTombstoneStaysUntilItsHorizon(t *testing.T) {
	c := round{upper: 4, now: 5000, retention: 100}
	left, _ := c.run(t,
		makeBatch(t, 0, shape{}, of("a", "1")),
		makeBatch(t, 1, shape{}, of("a", "-"), of("b", "1")),
		makeBatch(t, 3, shape{}, of("c", "1")))
	wantBatches(t, left, "1-2[1:a=- 2:b=1]@5100", "3-3[3:c=1]")
	c.first, c.now = 4, 5099
	left, _ = c.run(t, left...)
	wantBatches(t, left, "1-2[1:a=- 2:b=1]@5100", "3-3[3:c=1]")
	c.now = 5100
	left, _ = c.run(t, left...)
	wantBatches(t, left, "1-2[2:b=1]@5100", "3-3[3:c=1]")
	for _, r := range readBatch(t, left[0]) {
		if r.ms != 1000 {
			t.Errorf("the timestamp is %d", r.ms)
		}
	}
}

// TestTombstoneAboveTheMapsEndGetsNoHorizon: its older records are still there, so a consumer that reads them
// later must have as long to see it.
func TestTombstoneAboveTheMapsEndGetsNoHorizon(t *testing.T) {
	var batches []record.Batch
	for i := range 33 {
		batches = append(batches, makeBatch(t, record.Offset(i), shape{}, of(string(rune('A'+i)), "1")))
	}
	batches = append(batches, makeBatch(t, 33, shape{}, of("A", "-"), of("zzz", "1"), of("B", "-")))
	c := round{upper: 36, now: 1000, retention: 50}
	left, _ := c.run(t, batches...)
	last := left[len(left)-1]
	if _, ok := last.DeleteHorizon(); ok || last.Count() != 3 {
		t.Fatalf("%v", show(t, left[len(left)-1:]))
	}
	c.first, c.now = 34, 2000
	left, _ = c.run(t, left...)
	wantBatches(t, left[len(left)-1:], "33-35[33:A=- 34:zzz=1 35:B=-]@2050")
}

func TestRetentionOfTombstonesMayBeZeroOrForEver(t *testing.T) {
	c := round{upper: 2, now: 10, retention: 1<<63 - 1}
	left, _ := c.run(t, makeBatch(t, 0, shape{}, of("a", "-")), makeBatch(t, 1, shape{}, of("b", "1")))
	wantBatches(t, left, "0-0[0:a=-]@9223372036854775807", "1-1[1:b=1]")
	c.retention = 0
	left, _ = c.run(t, makeBatch(t, 0, shape{}, of("a", "-")), makeBatch(t, 1, shape{}, of("b", "1")))
	wantBatches(t, left, "0-0[0:a=-]@10", "1-1[1:b=1]")
	left, _ = c.run(t, left...)
	wantBatches(t, left, "1-1[1:b=1]")
}

func TestLastBatchOfTheRoundStaysEmpty(t *testing.T) {
	c := round{upper: 3}
	batches := []record.Batch{
		makeBatch(t, 0, shape{}, of("a", "1")),
		makeBatch(t, 1, shape{codec: record.Zstd}, of("-", "x"), of("-", "y")),
	}
	left, _ := c.run(t, batches...)
	wantBatches(t, left, "0-0[0:a=1]", "1-2[]")
	if b := left[1]; b.Codec() != record.None || b.MaxTimestamp() != 1000 || b.BaseTimestamp() != record.NoTimestamp || b.LeaderEpoch() != 3 {
		t.Errorf("attributes %x, times %d and %d, epoch %d", b.Attributes(), b.BaseTimestamp(), b.MaxTimestamp(), b.LeaderEpoch())
	}
	again, _ := c.run(t, left...)
	if !bytes.Equal(again[1], left[1]) {
		t.Error("an empty batch changed")
	}
	c.first, c.upper = 3, 4 // the next round has another last batch
	left, _ = c.run(t, append(left, makeBatch(t, 3, shape{}, of("b", "1")))...)
	wantBatches(t, left, "0-0[0:a=1]", "3-3[3:b=1]")
}

func TestLastSequenceOfAProducerStaysInAnEmptyBatch(t *testing.T) {
	c := round{upper: 9, producers: map[int64]LastOfProducer{5: {Data: 2, Epoch: 1}}}
	left, _ := c.run(t,
		makeBatch(t, 0, shape{producer: 5, epoch: 1, seq: 7}, of("a", "1")),
		makeBatch(t, 1, shape{producer: 5, epoch: 1, seq: 8}, of("a", "1"), of("b", "1")),
		makeBatch(t, 3, shape{producer: 6, seq: 8}, of("a", "2")), // the log does not know it any more
		makeBatch(t, 4, shape{}, of("a", "3"), of("b", "3")))
	wantBatches(t, left, "1-2[]", "4-5[4:a=3 5:b=3]")
	if b := left[0]; b.ProducerID() != 5 || b.ProducerEpoch() != 1 || b.BaseSequence() != 8 || b.LastSequence() != 9 {
		t.Errorf("producer %d, epoch %d, sequences %d to %d", b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.LastSequence())
	}
	c.producers = nil
	left, _ = c.run(t, left...)
	wantBatches(t, left, "4-5[4:a=3 5:b=3]")
}

func TestMarkerStaysWhileItsTransactionHasARecord(t *testing.T) {
	c := round{upper: 3, now: 100, retention: 10}
	left, _ := c.run(t,
		makeBatch(t, 0, shape{producer: 5, transactional: true}, of("a", "1")),
		makeMarker(t, 1, 5, true),
		makeBatch(t, 2, shape{}, of("b", "1")))
	wantBatches(t, left, "0-0[0:a=1]", "c1-1[1:m=m]", "2-2[2:b=1]")
	c.first, c.upper = 3, 4
	left, _ = c.run(t, append(left, makeBatch(t, 3, shape{}, of("a", "2")))...)
	wantBatches(t, left, "c1-1[1:m=m]", "2-2[2:b=1]", "3-3[3:a=2]") // this round has still read the record
	left, _ = c.run(t, left...)
	wantBatches(t, left, "c1-1[1:m=m]@110", "2-2[2:b=1]", "3-3[3:a=2]")
	marker, err := record.ReadMarker(left[0])
	if err != nil || !marker.Commit || marker.CoordinatorEpoch != 7 || readBatch(t, left[0])[0].ms != 2000 {
		t.Errorf("marker %+v, %v", marker, err)
	}
	c.first, c.now = 4, 109
	left, _ = c.run(t, left...)
	wantBatches(t, left, "c1-1[1:m=m]@110", "2-2[2:b=1]", "3-3[3:a=2]")
	c.now = 110
	left, _ = c.run(t, left...)
	wantBatches(t, left, "2-2[2:b=1]", "3-3[3:a=2]")
}

func TestLastMarkerOfAProducerWithoutRecordsStaysEmpty(t *testing.T) {
	c := round{upper: 9, now: 100, producers: map[int64]LastOfProducer{5: {Data: -1}}}
	left, _ := c.run(t, makeMarker(t, 1, 5, true), makeMarker(t, 2, 6, true))
	wantBatches(t, left, "c1-1[1:m=m]@100", "c2-2[2:m=m]@100")
	left, _ = c.run(t, left...)
	wantBatches(t, left, "c1-1[]")
	if !left[0].Transactional() {
		t.Error("it is not transactional any more")
	}
	left, _ = c.run(t, left...)
	wantBatches(t, left, "c1-1[]")
}

func TestRecordsOfAbortedTransactionsGoWithTheirEntries(t *testing.T) {
	entry := Aborted{Producer: 5, First: 1, Last: 3, LastStable: 4}
	c := round{upper: 6, now: 100, retention: 10, aborted: []Aborted{entry, entry}, producers: map[int64]LastOfProducer{5: {Data: 2}}}
	left, index := c.run(t,
		makeBatch(t, 0, shape{}, of("a", "1")),
		makeBatch(t, 1, shape{producer: 5, transactional: true}, of("a", "2"), of("b", "2")), // does not replace a=1
		makeMarker(t, 3, 5, false),
		makeBatch(t, 4, shape{producer: 5, seq: 2, transactional: true}, of("c", "1")), // of the next transaction
		makeMarker(t, 5, 5, true))
	wantBatches(t, left, "0-0[0:a=1]", "1-2[]", "c3-3[3:m=m]", "4-4[4:c=1]", "c5-5[5:m=m]")
	if !slices.Equal(index, []Aborted{entry}) {
		t.Errorf("the index has %v: the empty batch is still part of the transaction", index)
	}
	c.producers = map[int64]LastOfProducer{5: {Data: 4}}
	left, index = c.run(t, left...)
	wantBatches(t, left, "0-0[0:a=1]", "c3-3[3:m=m]", "4-4[4:c=1]", "c5-5[5:m=m]")
	if !slices.Equal(index, []Aborted{entry}) {
		t.Errorf("the index has %v: this round has still read the empty batch", index)
	}
	left, index = c.run(t, left...)
	wantBatches(t, left, "0-0[0:a=1]", "c3-3[3:m=m]@110", "4-4[4:c=1]", "c5-5[5:m=m]")
	if len(index) != 0 {
		t.Errorf("the index has %v", index)
	}
	c.now, c.aborted = 110, nil
	left, _ = c.run(t, left...)
	wantBatches(t, left, "0-0[0:a=1]", "4-4[4:c=1]", "c5-5[5:m=m]")
}

func TestAbortedTransactionThatIsNotInTheListStopsTheRound(t *testing.T) {
	m, _ := NewMap(MinMapBytes)
	data := makeBatch(t, 0, shape{producer: 5, transactional: true}, of("a", "1"))
	for name, c := range map[string]struct {
		marker bool
		list   []Aborted
	}{
		"missing":   {false, nil},
		"committed": {true, []Aborted{{Producer: 5, First: 0, Last: 1}}},
	} {
		x := NewIndexer(m, 0, c.list)
		_, _ = x.AddBatch(t.Context(), nil, data)
		if _, err := x.AddBatch(t.Context(), nil, makeMarker(t, 1, 5, c.marker)); !errors.Is(err, ErrTransactions) {
			t.Errorf("%s: indexer: %v", name, err)
		}
		f := NewFilter(Rules{Map: m, Aborted: c.list})
		_, _ = f.Judge(t.Context(), nil, data)
		if _, err := f.Judge(t.Context(), nil, makeMarker(t, 1, 5, c.marker)); !errors.Is(err, ErrTransactions) {
			t.Errorf("%s: filter: %v", name, err)
		}
	}
}

func TestControlBatchOfAnotherKindStaysAsItIs(t *testing.T) {
	bu := record.Builder{Control: true}
	bu.Append(1, []byte{0, 0, 0, 9}, []byte{0, 0, 0, 0, 0, 0})
	b, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	left, _ := round{upper: 9}.run(t, b)
	if len(left) != 1 || !bytes.Equal(left[0], b) {
		t.Errorf("left is %v", show(t, left))
	}
}

// TestRewrittenBatchKeepsItsHeader goes through all codecs and both types of timestamps.
func TestRewrittenBatchKeepsItsHeader(t *testing.T) {
	for codec := record.None; codec <= record.Zstd; codec++ {
		for _, appendTime := range []int64{0, 7777} {
			s := shape{codec: codec, producer: 9, epoch: 2, seq: 40, appendTime: appendTime}
			recs := []rec{of("gone", "1"), of("a", "1"), of("gone", "2"), of("b", "-"), of("gone", "3")}
			for i := range recs {
				recs[i].ms = 1000 + int64(i)
				recs[i].headers = []record.Header{{Key: []byte("h"), Value: []byte("v")}, {Key: []byte("n")}}
			}
			b := makeBatch(t, 10, s, recs...)
			left, _ := round{upper: 99, now: 5000, retention: 5}.run(t, b, makeBatch(t, 15, shape{}, of("gone", "4")))
			wantBatches(t, left, "10-14[11:a=1 13:b=-]@5005", "15-15[15:gone=4]")
			got := left[0]
			maxTime := int64(1003)
			if appendTime != 0 {
				maxTime = appendTime
			}
			if got.Codec() != codec || got.ProducerID() != 9 || got.ProducerEpoch() != 2 || got.BaseSequence() != 40 ||
				got.LastSequence() != 44 || got.LeaderEpoch() != 3 || got.TimestampType() != b.TimestampType() || got.MaxTimestamp() != maxTime {
				t.Errorf("%s: header %x", codec, got[:record.HeaderLen])
			}
			before, after := readBatch(t, b), readBatch(t, got)
			if !sameRecord(before[1], after[0]) || !sameRecord(before[3], after[1]) {
				t.Errorf("%s: %v became %v", codec, before, after)
			}
		}
	}
}

// TestBaseTimestampIsTheFirstRecords proves that a batch without a horizon has the timestamp of its first
// record as its base, as one that a producer made.
func TestBaseTimestampIsTheFirstRecords(t *testing.T) {
	late, early := of("a", "1"), of("b", "1")
	late.ms, early.ms = 3000, 2000
	left, _ := round{upper: 99}.run(t, makeBatch(t, 0, shape{}, late, early), makeBatch(t, 2, shape{}, of("a", "2")))
	if b := left[0]; b.BaseTimestamp() != 2000 || b.MaxTimestamp() != 2000 {
		t.Errorf("base %d, max %d", b.BaseTimestamp(), b.MaxTimestamp())
	}
}

func TestBatchOfWhichAllStaysIsCopied(t *testing.T) {
	b := makeBatch(t, 0, shape{codec: record.LZ4}, of("a", "1"), of("b", "1"))
	left, _ := round{upper: 2}.run(t, b)
	if len(left) != 1 || !bytes.Equal(left[0], b) {
		t.Error("it is not the same")
	}
}

func TestMalformedBatchIsAnError(t *testing.T) {
	m, _ := NewMap(MinMapBytes)
	whole := makeBatch(t, 5, shape{}, of("a", "1"))
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		b    record.Batch
		want error
	}{
		"a flipped bit":     {flipped, record.ErrCorrupt},
		"a cut end":         {whole[:len(whole)-1], record.ErrCorrupt},
		"no bytes":          {nil, record.ErrCorrupt},
		"offsets go back":   {makeBatch(t, 4, shape{}, of("a", "1"), of("b", "1")), record.ErrInvalid},
		"a batch once more": {whole, record.ErrInvalid},
	} {
		f, x := NewFilter(Rules{Map: m}), NewIndexer(m, 0, nil)
		if _, err := f.Judge(t.Context(), nil, whole); err != nil {
			t.Fatal(err)
		}
		if _, err := x.AddBatch(t.Context(), nil, whole); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Judge(t.Context(), nil, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: filter: %v", name, err)
		}
		if _, err := x.AddBatch(t.Context(), nil, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: indexer: %v", name, err)
		}
	}
}

func sameRecord(a, b rec) bool {
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	return a.offset == b.offset && a.ms == b.ms && same(a.key, b.key) && same(a.value, b.value) &&
		slices.EqualFunc(a.headers, b.headers, func(x, y record.Header) bool { return same(x.Key, y.Key) && same(x.Value, y.Value) })
}

// TestBatchWithMoreKeysThanTheMap proves that rounds get through a batch that has more keys than the Map has room for.
func TestBatchWithMoreKeysThanTheMap(t *testing.T) {
	var recs []rec
	for i := range 150 {
		recs = append(recs, of(string(rune('A'+i%100)), "1"))
	}
	b := makeBatch(t, 0, shape{codec: record.Zstd}, recs...)
	m, err := NewMap(MinMapBytes)
	if err != nil {
		t.Fatal(err)
	}
	first, rounds := record.Offset(0), 0
	for ; first < b.NextOffset(); rounds++ {
		x := NewIndexer(m, first, nil)
		full, err := x.AddBatch(t.Context(), nil, b)
		if err != nil || m.End() <= first || full != (m.End() < b.NextOffset()) {
			t.Fatalf("the map ends at %d after %d: %v, %v", m.End(), first, full, err)
		}
		if full { // it takes no other batch
			end := m.End()
			if again, err := x.AddBatch(t.Context(), nil, makeBatch(t, 150, shape{}, of("x", "1"))); err != nil || !again || m.End() != end {
				t.Fatal("a full map takes another batch")
			}
		}
		f := NewFilter(Rules{Map: m})
		v, err := f.Judge(t.Context(), nil, b)
		if err != nil {
			t.Fatal(err)
		}
		left, err := f.AppendTo(t.Context(), nil, nil, b, &v)
		if err != nil {
			t.Fatal(err)
		}
		if s := f.Stats(); s.Batches != 1 || s.Records != int64(b.Count()) || s.Kept != int64(record.Batch(left).Count()) || s.BytesIn != int64(len(b)) {
			t.Fatalf("%+v", s)
		}
		b, first = left, m.End()
	}
	if b.Count() != 100 || rounds < 4 || b.LastOffset() != 149 {
		t.Errorf("%d records after %d rounds, up to %d", b.Count(), rounds, b.LastOffset())
	}
}
