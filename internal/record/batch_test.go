package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// lax accepts every batch that is well formed.
var lax = &Rules{Internal: true, Before: -1, After: -1, TimestampType: LogAppendTime}

// sameBytes tells null from empty, and spares cmp the bytes one by one.
var sameBytes = cmp.Comparer(func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) })

// read collects the records of a batch as copies.
func read(b Batch, limit int64) ([]Record, error) {
	var r Reader
	defer r.Close()
	var all []Record
	for r.Reset(b, limit); r.Next(); {
		c := r.Record
		c.Key, c.Value = bytes.Clone(c.Key), bytes.Clone(c.Value)
		c.Headers = nil
		for _, h := range r.Record.Headers {
			c.Headers = append(c.Headers, Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
		}
		all = append(all, c)
	}
	return all, r.Err()
}

func mustRead(t *testing.T, b Batch) []Record {
	t.Helper()
	all, err := read(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// build makes a batch in memory of its own.
func build(tb testing.TB, bu *Builder, records []Record) Batch {
	tb.Helper()
	bu.Reset()
	for _, r := range records {
		bu.Append(r.Timestamp, r.Key, r.Value, r.Headers...)
	}
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Clone(b)
}

// golden cuts a segment file into its batches.
func golden(t *testing.T, path string) []Batch {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []Batch
	for len(data) > 0 {
		var b Batch
		if b, data, err = Next(data); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// TestGolden proves that batches which Kafka's Java producer and librdkafka wrote,
// in every codec, pass the checks and give the records that went in.
func TestGolden(t *testing.T) {
	for _, client := range []string{"java", "librdkafka"} {
		for c := None; c <= Zstd; c++ {
			t.Run(client+"/"+c.String(), func(t *testing.T) {
				i := 0
				for _, b := range golden(t, filepath.Join("testdata", client, c.String()+".batch")) {
					if err := b.Check(lax); err != nil {
						t.Fatal(err)
					}
					found, err := b.CheckRecords(t.Context(), nil, lax)
					if err != nil {
						t.Fatal(err)
					}
					if found.MaxTimestamp != b.MaxTimestamp() {
						t.Errorf("largest timestamp %d, the header says %d", found.MaxTimestamp, b.MaxTimestamp())
					}
					for _, r := range mustRead(t, b) {
						want := fmt.Sprintf("the value number %d of a golden batch, which compresses rather", i) + strings.Repeat(" well", 3)
						if key := fmt.Sprintf("key-%d", i); string(r.Key) != key || string(r.Value) != want || r.Offset != Offset(i) {
							t.Fatalf("record %d: %d %q %q", i, r.Offset, r.Key, r.Value)
						}
						if client == "librdkafka" && (len(r.Headers) != 2 || string(r.Headers[1].Key) != "h2" || string(r.Headers[1].Value) != "x") {
							t.Fatalf("record %d: headers %q", i, r.Headers)
						}
						i++
					}
				}
				if i != 40 {
					t.Errorf("%d records, want 40", i)
				}
			})
		}
	}
}

// records draws records that a client could send, with null, empty and large fields,
// headers, and timestamps before and after the first one.
func records() *rapid.Generator[[]Record] {
	field := rapid.OneOf(
		rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 20),
		rapid.Map(rapid.IntRange(1, 40_000), func(n int) []byte { return bytes.Repeat([]byte("water "), n/6+1) }),
	)
	header := rapid.Custom(func(t *rapid.T) Header {
		return Header{Key: append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "name")...), Value: field.Draw(t, "header")}
	})
	one := rapid.Custom(func(t *rapid.T) Record {
		r := Record{
			Timestamp: rapid.Int64Range(-1, 1<<42).Draw(t, "time"), Key: field.Draw(t, "key"), Value: field.Draw(t, "value"),
		}
		if n := rapid.IntRange(0, 3).Draw(t, "headers"); n > 0 {
			r.Headers = rapid.SliceOfN(header, n, n).Draw(t, "list")
		}
		return r
	})
	return rapid.SliceOfN(one, 1, 12)
}

// TestRoundTrip proves that all batches of a Builder pass the checks, and that a Reader
// returns their records in every codec and after every change of codec.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := records().Draw(rt, "records")
		bu := Builder{
			Codec: Codec(rapid.IntRange(0, 4).Draw(rt, "codec")), Level: rapid.IntRange(-2, 23).Draw(rt, "level"),
			LeaderEpoch: 7,
		}
		bu.SetProducer(5, 3, 11)
		b := build(t, &bu, want)
		largest := NoTimestamp
		for i := range want {
			want[i].Offset = Offset(100 + i)
			largest = max(largest, want[i].Timestamp)
		}
		if err := b.Check(lax); err != nil {
			rt.Fatal(err)
		}
		b.SetBaseOffset(100)
		to := Codec(rapid.IntRange(0, 4).Draw(rt, "to"))
		again, err := b.Recompress(t.Context(), nil, &Target{Codec: to})
		if err != nil {
			rt.Fatal(err)
		}
		for _, b := range []Batch{b, again} {
			found, err := b.CheckRecords(t.Context(), nil, lax)
			if err != nil {
				rt.Fatal(err)
			}
			got, err := read(b, 0)
			if err != nil {
				rt.Fatal(err)
			}
			if d := cmp.Diff(want, got, sameBytes); d != "" {
				rt.Fatal(d)
			}
			if found.MaxTimestamp != largest || b.MaxTimestamp() != largest || b.Verify() != nil {
				rt.Fatalf("largest timestamp %d, header %d, want %d; %v", found.MaxTimestamp, b.MaxTimestamp(), largest, b.Verify())
			}
		}
		if again.Codec() != to || again.ProducerID() != 5 || again.BaseSequence() != 11 || again.LeaderEpoch() != 7 {
			rt.Fatalf("the header changed: %v", again[:HeaderLen])
		}
	})
}

// TestAgainstFranz proves that franz-go, which shares no code with this package, reads
// the same headers and records from our batches in every codec.
func TestAgainstFranz(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := records().Draw(rt, "records")
		bu := Builder{Codec: Codec(rapid.IntRange(0, 4).Draw(rt, "codec")), Transactional: rapid.Bool().Draw(rt, "txn"), LeaderEpoch: 9}
		bu.SetProducer(1<<40, 3, math.MaxInt32)
		b := build(t, &bu, want)

		var k kmsg.RecordBatch
		if err := k.ReadFrom(b); err != nil {
			rt.Fatal(err)
		}
		header := kmsg.RecordBatch{
			FirstOffset: int64(b.BaseOffset()), Length: int32(b.Size() - 12), PartitionLeaderEpoch: int32(b.LeaderEpoch()),
			Magic: b.Magic(), CRC: int32(b.CRC()), Attributes: int16(b.Attributes()), LastOffsetDelta: b.LastOffsetDelta(),
			FirstTimestamp: b.BaseTimestamp(), MaxTimestamp: b.MaxTimestamp(), ProducerID: b.ProducerID(),
			ProducerEpoch: b.ProducerEpoch(), FirstSequence: b.BaseSequence(), NumRecords: b.Count(), Records: b.recordBytes(),
		}
		if d := cmp.Diff(k, header, sameBytes); d != "" {
			rt.Fatal(d)
		}
		p := kmsg.FetchResponseTopicPartition{RecordBatches: b}
		fetched, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{}, &p, kgo.DefaultDecompressor(), nil)
		if fetched.Err != nil {
			rt.Fatal(fetched.Err)
		}
		var got []Record
		for _, r := range fetched.Records {
			o := Record{Offset: Offset(r.Offset), Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				o.Headers = append(o.Headers, Header{Key: []byte(h.Key), Value: h.Value})
			}
			got = append(got, o)
		}
		for i := range want {
			want[i].Offset = Offset(i)
		}
		if d := cmp.Diff(want, got, sameBytes); d != "" {
			rt.Fatal(d)
		}
	})
}

// TestSequence proves that sequence numbers begin again at 0 after 2^31-1.
func TestSequence(t *testing.T) {
	f := func(seq, n, want int32) {
		t.Helper()
		if got := AddSequence(seq, n); got != want {
			t.Errorf("AddSequence(%d, %d) = %d, want %d", seq, n, got, want)
		}
	}
	f(0, 0, 0)
	f(5, 7, 12)
	f(math.MaxInt32, 0, math.MaxInt32)
	f(math.MaxInt32, 1, 0)
	f(math.MaxInt32-1, 5, 3)
	f(math.MaxInt32, math.MaxInt32, math.MaxInt32-1)

	var bu Builder
	b := build(t, &bu, make([]Record, 3))
	if got := b.LastSequence(); got != NoSequence {
		t.Errorf("without a producer the last sequence is %d", got)
	}
	bu.SetProducer(1, 0, math.MaxInt32)
	if got := build(t, &bu, make([]Record, 3)).LastSequence(); got != 1 {
		t.Errorf("last sequence %d, want 1", got)
	}
}

// TestTimes proves that setting the timestamp type changes what a reader sees,
// keeps the checksum right, and can be undone.
func TestTimes(t *testing.T) {
	bu := Builder{Codec: LZ4}
	b := build(t, &bu, []Record{{Timestamp: 10}, {Timestamp: 7}, {Timestamp: NoTimestamp}})
	before := bytes.Clone(b)
	b.SetMaxTimestamp(10)
	if !bytes.Equal(b, before) {
		t.Error("stating what is stated already changed the batch")
	}
	b.SetLogAppendTime(99)
	if err := b.Verify(); err != nil || b.TimestampType() != LogAppendTime {
		t.Fatal(err, b.TimestampType())
	}
	for _, r := range mustRead(t, b) {
		if r.Timestamp != 99 {
			t.Errorf("timestamp %d, want 99", r.Timestamp)
		}
	}
	b.SetMaxTimestamp(10)
	if !bytes.Equal(b, before) {
		t.Error("the producer's times did not come back")
	}
}

// TestNext proves how Next cuts bytes into batches, also with wrong lengths.
func TestNext(t *testing.T) {
	var bu Builder
	one := build(t, &bu, []Record{{Value: []byte("a")}})
	two := append(bytes.Clone(one), one...)
	b, rest, err := Next(two)
	if err != nil || !bytes.Equal(b, one) || len(rest) != len(one) || cap(b) != len(b) {
		t.Fatal(len(b), len(rest), err)
	}
	f := func(want error, n int, change func(b Batch)) {
		t.Helper()
		b := bytes.Clone(one)
		if change != nil {
			change(b)
		}
		if _, rest, err := Next(b[:n]); !errors.Is(err, want) || len(rest) != n {
			t.Errorf("%v with %d bytes left, want %v", err, len(rest), want)
		}
	}
	f(ErrShort, 0, nil)
	f(ErrShort, 16, nil)
	f(ErrShort, 17, nil)
	f(ErrShort, HeaderLen, nil)
	f(ErrShort, len(one)-1, nil)
	f(ErrMagic, 17, func(b Batch) { b[atMagic] = 1 })
	length := func(n uint32) func(Batch) { return func(b Batch) { be.PutUint32(b[atLength:], n) } }
	f(ErrCorrupt, len(one), length(0))
	f(ErrCorrupt, len(one), length(HeaderLen-prefixLen-1))
	f(ErrCorrupt, len(one), length(math.MaxUint32))
	f(ErrCorrupt, len(one), length(1<<31))
	f(ErrShort, len(one), length(math.MaxInt32))
}

// TestBuilder proves that an empty batch is refused, and that a Builder can be used again.
func TestBuilder(t *testing.T) {
	var bu Builder
	if _, err := bu.Build(); !errors.Is(err, ErrEmpty) {
		t.Error(err)
	}
	bu.Append(1, nil, []byte("first"))
	bu.Append(2, nil, nil)
	size := bu.Len()
	b, err := bu.Build()
	if err != nil || len(b) != size || bu.Count() != 2 {
		t.Error(err, len(b), size)
	}
	bu.Reset()
	bu.Append(3, []byte{}, []byte("second"), Header{Key: []byte("h")})
	if b, err = bu.Build(); err != nil {
		t.Fatal(err)
	}
	want := []Record{{Timestamp: 3, Key: []byte{}, Value: []byte("second"), Headers: []Header{{Key: []byte("h")}}}}
	if d := cmp.Diff(want, mustRead(t, b)); d != "" {
		t.Error(d)
	}
}
