package compact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
)

// packFarBack compresses a batch with a codec that looks back eight times further than this program's does.
func packFarBack(t *testing.T, b record.Batch) record.Batch {
	t.Helper()
	const atLength, atCRC, atAttributes = 8, 17, 21
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	out := e.EncodeAll(b[record.HeaderLen:], bytes.Clone(b[:record.HeaderLen]))
	out[atAttributes+1] |= byte(record.Zstd)
	binary.BigEndian.PutUint32(out[atLength:], uint32(len(out)-atLength-4))
	binary.BigEndian.PutUint32(out[atCRC:], crc32.Checksum(out[atAttributes:], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

// growing is a batch of 260 kB that has 7 MB when it is compressed again: the same noise is repeated, further apart than this
// program looks back.
func growing(t *testing.T, base record.Offset) record.Batch {
	t.Helper()
	noise := make([]byte, 250_000)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var recs []rec
	for i := range 28 {
		recs = append(recs, of(fmt.Sprint("noise", i), string(noise)), of(fmt.Sprint("nothing", i), string(make([]byte, 1_200_000))))
	}
	return packFarBack(t, makeBatch(t, base, shape{}, recs...))
}

// TestBatchThatWouldGrowStaysWhole proves that a batch of few bytes, which would have very many when it is compressed
// again, costs neither memory nor room on the disk: it stays as it is, and so do the tombstones of what it has.
func TestBatchThatWouldGrowStaysWhole(t *testing.T) {
	big := growing(t, 0)
	next := big.NextOffset()
	batches := []record.Batch{
		big,
		makeBatch(t, next, shape{}, of("noise0", "-"), of("b", "1")),
		makeBatch(t, next+2, shape{}, of("b", "2")),
	}
	c := round{upper: next + 3, now: 10, mapBytes: 1 << 20}
	for range 3 {
		left, _ := c.run(t, batches...)
		if len(left) != 3 || !bytes.Equal(left[0], big) {
			t.Fatalf("%d batches are left, and a batch of %d bytes has %d", len(left), len(big), len(left[0]))
		}
		wantBatches(t, left[1:], fmt.Sprintf("%d-%d[%d:noise0=-]", next, next+1, next), fmt.Sprintf("%d-%d[%d:b=2]", next+2, next+2, next+2))
		batches, c.now = left, c.now+1000
	}
	c.first = c.upper // the batch goes when all of its keys have later records
	var later []rec
	for i := range 28 {
		later = append(later, of(fmt.Sprint("noise", i), "later"), of(fmt.Sprint("nothing", i), "later"))
	}
	batches = append(batches, makeBatch(t, c.upper, shape{}, later...), makeBatch(t, c.upper+56, shape{}, of("z", "1")))
	c.upper += 57
	if left, _ := c.run(t, batches...); len(left) != 3 || left[0].BaseOffset() != next+2 {
		t.Errorf("%d batches are left, from %d on", len(left), left[0].BaseOffset())
	}
}

// TestTombstonesOfAWholeBatchStayInLaterRounds proves that a tombstone of a record that has stayed in a whole batch stays, too, in rounds
// that do not read its key again: without it the record would be back.
func TestTombstonesOfAWholeBatchStayInLaterRounds(t *testing.T) {
	big := growing(t, 0)
	next := big.NextOffset()
	left := []record.Batch{big, makeBatch(t, next, shape{}, of("noise0", "-")), makeBatch(t, next+1, shape{}, of("b", "1"))}
	c := round{upper: next + 2, now: 10, mapBytes: 1 << 20}
	for n := range record.Offset(4) {
		left, _ = c.run(t, left...)
		if len(left) < 2 || !bytes.Equal(left[0], big) || show(t, left[1:2])[0] != fmt.Sprintf("%d-%d[%d:noise0=-]", next, next, next) {
			t.Fatalf("after round %d: %d batches are left, behind the first one: %v", n, len(left), show(t, left[1:]))
		}
		left = append(left, makeBatch(t, c.upper, shape{}, of(fmt.Sprint("later", n), "1")))
		c.first, c.upper, c.now = c.upper, c.upper+1, c.now+1000
	}
}

// TestBatchForWhichThereIsTooLittleMemoryStaysWhole proves that a batch which a node can check, but not compress again in the
// memory that it has, does not end the compaction of its log.
func TestBatchForWhichThereIsTooLittleMemoryStaysWhole(t *testing.T) {
	work := budget.New(budget.Config{Bytes: budget.MinBytes})
	big := growing(t, 0)
	if _, err := big.CheckRecords(t.Context(), work, &record.Rules{NeedKey: true, Before: -1, After: -1}); err != nil {
		t.Fatal(err)
	}
	m, err := NewMap(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	next := big.NextOffset()
	x := NewIndexer(m, 0, nil)
	batches := []record.Batch{big, makeBatch(t, next, shape{}, of("noise0", "later"))}
	for _, b := range batches {
		if _, err := x.AddBatch(t.Context(), work, b); err != nil {
			t.Fatal(err)
		}
	}
	f := NewFilter(Rules{Map: m, Upper: next + 1})
	for _, b := range batches {
		v, err := f.Judge(t.Context(), work, b)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := f.AppendTo(t.Context(), work, nil, b, &v); err != nil || !bytes.Equal(out, b) {
			t.Errorf("%d bytes are left of %d: %v", len(out), len(b), err)
		}
	}
	if s := f.Stats(); s.Whole != 1 || s.Kept != s.Records {
		t.Errorf("%+v", s)
	}
}
