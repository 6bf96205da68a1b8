package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/leatstream/leat/internal/budget"
)

// allocated is how many bytes f allocates, with pools that are empty at the beginning. The
// collector does not run meanwhile, since it would empty them once more.
func allocated(f func()) int64 {
	runtime.GC()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// packedAs is a batch whose records another program has compressed with a codec.
func packedAs(tb testing.TB, records Batch, c Codec, payload []byte) Batch {
	tb.Helper()
	b := append(append(Batch{}, records[:HeaderLen]...), payload...)
	b[atAttributes+1] = b[atAttributes+1]&^attrCodec | byte(c)
	b, err := b.writeLengthAndCRC()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// zeros is a batch with one record of so many bytes.
func zeros(tb testing.TB, n int) Batch {
	tb.Helper()
	var bu Builder
	bu.Append(now, nil, make([]byte, n))
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// foreign are batches that need much memory, as other programs may make them: with large
// windows, with large blocks, with one bare block.
func foreign(tb testing.TB, plain Batch) map[string]Batch {
	tb.Helper()
	all := map[string]Batch{}
	for c := None; c <= Zstd; c++ {
		b, err := plain.Recompress(tb.Context(), nil, &Target{Codec: c})
		if err != nil {
			tb.Fatal(err)
		}
		all["our "+c.String()] = b
	}
	for _, window := range []int{1 << 20, 8 << 20, 64 << 20} {
		var out cappedBuffer
		e, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		if err != nil {
			tb.Fatal(err)
		}
		_, err = e.Write(plain.recordBytes())
		if err := errors.Join(err, e.Close()); err != nil {
			tb.Fatal(err)
		}
		all[fmt.Sprintf("zstd, window of %d MiB", window>>20)] = packedAs(tb, plain, Zstd, out.b)
	}
	var out cappedBuffer
	w := lz4.NewWriter(&out)
	err := w.Apply(lz4.BlockSizeOption(lz4.Block4Mb), lz4.BlockChecksumOption(true))
	if err == nil {
		_, err = w.Write(plain.recordBytes())
	}
	if err := errors.Join(err, w.Close()); err != nil {
		tb.Fatal(err)
	}
	all["lz4, blocks of 4 MiB"] = packedAs(tb, plain, LZ4, out.b)
	return all
}

// TestPlanCoversMemory proves that decompressing takes no more memory than was
// reserved for it, whatever the batch claims.
func TestPlanCoversMemory(t *testing.T) {
	for _, size := range []int{100, 100 << 10, 20 << 20} {
		for name, b := range foreign(t, zeros(t, size)) {
			p, err := makePlan(b.Codec(), b.recordBytes())
			if err != nil {
				t.Fatal(err)
			}
			window := make([]byte, windowLen)
			took := allocated(func() {
				f, err := newInflater(b.Codec(), &p)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for err == nil {
					var k int
					k, err = f.Read(window)
					n += k
				}
				if !errors.Is(err, io.EOF) || n < size {
					t.Errorf("%d bytes, %v", n, err)
				}
				f.close()
			})
			const inflaterMemory = 4 << 10 // the struct, and what the test takes
			if took > p.memory+inflaterMemory {
				t.Errorf("%s, %d bytes of records: took %d bytes, %d were planned", name, size, took, p.memory)
			}
		}
	}
}

// TestEncoderMemory proves that encoding takes no more memory than was reserved.
func TestEncoderMemory(t *testing.T) {
	plain := benchBatch(t, None, 3000, 1000)
	for c := None; c <= Zstd; c++ {
		for _, level := range []int{0, 1, 2, 3, 5, 7, 9, 17, 22} {
			buffer := make([]byte, 0, 4<<20)
			encode := func() {
				out := &cappedBuffer{b: buffer}
				e, err := newEncoder(out, c, level)
				if err != nil {
					t.Fatal(err)
				}
				for p := plain.recordBytes(); len(p) > 0; {
					n := min(windowLen, len(p))
					if _, err := e.Write(p[:n]); err != nil {
						t.Fatal(err)
					}
					p = p[n:]
				}
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				e.release()
			}
			took := min(allocated(encode), allocated(encode)) // what else runs in this process may allocate, too
			if want := encoderMemory(c, level); took > want+1<<10 {
				t.Errorf("%s level %d: took %d bytes, %d are reserved", c, level, took, want)
			}
		}
	}
}

// nothingHeld fails the test if a budget has not got all of its memory back.
func nothingHeld(t *testing.T, work *budget.Budget) {
	t.Helper()
	for c := budget.Peer; c <= budget.Parked; c++ {
		if u := work.Usage(c); u.Used != 0 || u.Waiting != 0 {
			t.Errorf("%s: %+v", c, u)
		}
	}
}

// TestSmallBatchLargeWindow proves that a batch of some bytes whose frame claims a window
// of 128 MiB takes only the memory that its content needs.
func TestSmallBatchLargeWindow(t *testing.T) {
	const claims128MiB = 17 << 3
	plain := zeros(t, 5)
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, claims128MiB, byte(len(plain.recordBytes())<<3 | 1), 0, 0}
	b := packedAs(t, plain, Zstd, append(frame, plain.recordBytes()...))
	work := budget.New(budget.Config{Bytes: budget.MinBytes})
	took := allocated(func() {
		if _, err := b.CheckRecords(t.Context(), work, lax); err != nil {
			t.Error(err)
		}
		if at, ok, err := b.FirstAt(t.Context(), work, 0, 0); at.Offset != 0 || !ok || err != nil {
			t.Error(at, ok, err)
		}
	})
	if took > 2<<20 {
		t.Errorf("a batch of %d bytes took %d", len(b), took)
	}
	nothingHeld(t, work)
}

// TestNeverFits proves that records which need more memory than a node has for them
// are refused as too large, with a sentence that names the setting, and that
// nothing is held afterwards.
func TestNeverFits(t *testing.T) {
	b := foreign(t, zeros(t, 70<<20))["zstd, window of 64 MiB"]
	work := budget.New(budget.Config{Bytes: 64 << 20})
	_, err := b.CheckRecords(t.Context(), work, lax)
	if !errors.Is(err, ErrTooLarge) || !errors.Is(err, budget.ErrTooLarge) {
		t.Error(err)
	}
	if _, _, err := b.FirstAt(t.Context(), work, 0, 0); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := b.CheckRecords(t.Context(), budget.New(budget.Config{Bytes: 512 << 20}), lax); err != nil {
		t.Errorf("with more memory: %v", err)
	}
	nothingHeld(t, work)
}

// TestShortWorkIsShort proves that a batch which claims to be small, and so goes before
// large ones, is refused if it is large, and that small ones are read.
func TestShortWorkIsShort(t *testing.T) {
	long := foreign(t, zeros(t, 3<<20))["our gzip"]
	if _, err := long.CheckRecords(t.Context(), nil, lax); err != nil {
		t.Fatal(err)
	}
	lies := append(Batch{}, long...)
	copy(lies[len(lies)-4:], []byte{100, 0, 0, 0})
	lies, err := lies.writeLengthAndCRC()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lies.CheckRecords(t.Context(), nil, lax); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "longer than they say") {
		t.Error(err)
	}
	for name, b := range foreign(t, zeros(t, 500<<10)) {
		p, err := makePlan(b.Codec(), b.recordBytes())
		if err != nil || p.maxBytes > smallLimit || p.maxBytes < 500<<10 {
			t.Errorf("%s: %d bytes at most, %v", name, p.maxBytes, err)
		}
	}
}

// TestBadBatchesHoldNothing proves that all memory goes back to the budget if a batch is
// bad, at any position.
func TestBadBatchesHoldNothing(t *testing.T) {
	work := budget.New(budget.Config{Bytes: budget.MinBytes})
	rnd := rand.New(rand.NewPCG(1, 2))
	for c := Gzip; c <= Zstd; c++ {
		good := sample(t, c)
		for range 300 {
			b := append(Batch{}, good...)
			for range 1 + rnd.IntN(3) {
				b[HeaderLen+rnd.IntN(len(b)-HeaderLen)] ^= 1 << rnd.IntN(8)
			}
			_, _ = b.CheckRecords(t.Context(), work, rules()) // whatever it says
			_, _, _ = b.FirstAt(t.Context(), work, 2, now)
			_, _ = b.Recompress(t.Context(), work, &Target{Codec: (c + 1) % 5})
		}
	}
	nothingHeld(t, work)
}

// TestWaitsForMemory proves that a look-up in a batch waits while others have the memory,
// and gives up when its context ends.
func TestWaitsForMemory(t *testing.T) {
	b := foreign(t, zeros(t, 20<<20))["zstd, window of 8 MiB"]
	synctest.Test(t, func(t *testing.T) {
		work := budget.New(budget.Config{Bytes: budget.MinBytes})
		held, ok := work.TryReserve(budget.Codec, work.Most(budget.Codec))
		if !ok {
			t.Fatal("it is not free")
		}
		ctx, cancel := context.WithCancel(t.Context())
		given, served := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := b.CheckRecords(ctx, work, lax)
			given <- err
		}()
		go func() {
			_, _, err := b.FirstAt(t.Context(), work, 0, 0)
			served <- err
		}()
		synctest.Wait()
		if u := work.Usage(budget.Codec); u.Waiting != 2 {
			t.Errorf("%+v, and two should wait", u)
		}
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		held.Release()
		if err := <-served; err != nil {
			t.Error(err)
		}
		nothingHeld(t, work)
	})
}

// TestFirstAt proves that FirstAt finds the record that a reader of all records
// finds, in every codec, from every offset and time.
func TestFirstAt(t *testing.T) {
	bu := Builder{}
	for i, ms := range []int64{now, now - 5, now + 20, now + 3, now + 20, now + 7} {
		bu.Append(ms, nil, make([]byte, i*20_000), Header{Key: []byte("h"), Value: make([]byte, 40_000)})
	}
	plain, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range foreign(t, plain) {
		b.SetBaseOffset(100)
		all := mustRead(t, b)
		for from := Offset(98); from < 108; from++ {
			latest := NoTimestamp
			for _, r := range all {
				if r.Offset >= from {
					latest = max(latest, r.Timestamp)
				}
			}
			if ms, err := b.MaxTimeFrom(t.Context(), nil, from); ms != latest || err != nil {
				t.Fatalf("%s: the largest time from %d is %d, %v, want %d", name, from, ms, err, latest)
			}
			for ms := int64(now - 6); ms < now+22; ms++ {
				var want Record
				for _, r := range slices.Backward(all) {
					if r.Offset >= from && r.Timestamp >= ms {
						want = r
					}
				}
				at, ok, err := b.FirstAt(t.Context(), nil, from, ms)
				if err != nil || ok != (want.Timestamp != 0) || ok && at != (Stamp{want.Offset, want.Timestamp}) {
					t.Fatalf("%s: from %d, time %d: %+v, %v, %v; want %d", name, from, ms-now, at, ok, err, want.Offset)
				}
			}
		}
		b.SetLogAppendTime(now + 50)
		if at, ok, err := b.FirstAt(t.Context(), nil, 103, now+50); at != (Stamp{103, now + 50}) || !ok || err != nil {
			t.Errorf("%s: with the broker's time: %+v, %v, %v", name, at, ok, err)
		}
		if ms, err := b.MaxTimeFrom(t.Context(), nil, 103); ms != now+50 || err != nil {
			t.Errorf("%s: the largest time with the broker's time: %d, %v", name, ms, err)
		}
		if _, ok, err := b.FirstAt(t.Context(), nil, 106, now); ok || err != nil {
			t.Errorf("%s: behind the last record: %v, %v", name, ok, err)
		}
	}
}

// TestLookUpsAgreeWithChecks proves that a batch which passes the checks can be searched,
// even if its records decompress to more than a gigabyte: both have the same bound.
func TestLookUpsAgreeWithChecks(t *testing.T) {
	if inflateLimit(0) != MaxInflated || inflateLimit(1<<40) != MaxInflated || inflateLimit(5) != 5 {
		t.Errorf("the bounds are %d, %d, %d", inflateLimit(0), inflateLimit(1<<40), inflateLimit(5))
	}
	if testing.Short() {
		t.Skip("it decompresses 1.1 GiB three times")
	}
	const size = 1100 << 20 // of one record of zeros, in blocks of 4 bytes
	var head []byte
	rest := 1 + varintLen(0) + varintLen(0) + varintLen(-1) + varintLen(size) + size + varintLen(0)
	head = appendVarint(head, int64(rest))
	head = append(head, 0)
	for _, n := range []int64{0, 0, -1, size} {
		head = appendVarint(head, n)
	}
	const block = 128 << 10
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3} // a window of 128 KiB
	raw := func(b []byte, last uint32) {
		h := uint32(len(b))<<3 | last
		frame = append(append(frame, byte(h), byte(h>>8), byte(h>>16)), b...)
	}
	raw(head, 0)
	for range size / block {
		h := uint32(block)<<3 | 1<<1
		frame = append(frame, byte(h), byte(h>>8), byte(h>>16), 0)
	}
	raw(appendVarint(nil, 0), 1)
	b := packedAs(t, zeros(t, 1), Zstd, frame)
	work := budget.New(budget.Config{Bytes: budget.MinBytes})
	took := allocated(func() {
		found, err := b.CheckRecords(t.Context(), work, lax)
		if err != nil || found.Bytes != int64(len(head)+size+1) {
			t.Errorf("%+v, %v", found, err)
		}
		if at, ok, err := b.FirstAt(t.Context(), work, 0, now); at.Offset != 0 || !ok || err != nil {
			t.Errorf("the first record: %+v, %v, %v", at, ok, err)
		}
		if _, ok, err := b.FirstAt(t.Context(), work, 1, now); ok || err != nil {
			t.Errorf("behind it: %v, %v", ok, err)
		}
		_, err = b.Recompress(t.Context(), work, &Target{Codec: Gzip, MaxBytes: 100 << 10, Records: found.Bytes})
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("as gzip: %v", err)
		}
	})
	if took > 4<<20 {
		t.Errorf("a batch of %d bytes took %d", len(b), took)
	}
	nothingHeld(t, work)
}
