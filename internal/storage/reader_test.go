package storage

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// TestReadersOfOldRecords proves that readers who read on from where they stopped get every byte of
// the log in its order, however much each of them asks for, in whatever order they read, and while
// the log grows. Each answer begins with the batch that was asked for, ends where a batch ends, and
// is nearly as long as it may be.
func TestReadersOfOldRecords(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := openStore(t, testConfig(vfs.NewMem(), "data"))
		o := testOptions()
		o.SegmentBytes, o.IndexInterval = 20_000+rng.Int64N(200_000), 100+rng.IntN(3000)
		o.FlushMessages = 1 << 60 // records are committed when they are written
		l := testLog(s, 0, o)
		var all []record.Batch
		grow := func(n int) {
			for range n {
				first := 0
				if len(all) > 0 {
					first = int(all[len(all)-1].NextOffset())
				}
				b := batch(t, first, 1+rng.IntN(20), 1+rng.IntN(200))
				mustAppend(t, l, b)
				all = append(all, b)
			}
		}
		grow(1500)
		readers := make([]struct{ at, max int }, 1+rng.IntN(5))
		for i := range readers {
			readers[i].max = 1 + rng.IntN(30_000)
		}
		for range 3000 {
			r := &readers[rng.IntN(len(readers))]
			if r.at == len(all) {
				r.at = rng.IntN(len(all))
			}
			r.at += readBatches(t, l, all[r.at:], r.max)
			if rng.IntN(100) == 0 {
				grow(rng.IntN(20))
			}
		}
	}
}

// readBatches reads from the first batch of want on, checks the bytes, and returns how many batches
// came whole.
func readBatches(t *testing.T, l *Log, want []record.Batch, maxBytes int) (n int) {
	t.Helper()
	end, err := l.Committed()
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Read(want[0].BaseOffset(), end, maxBytes)
	if err != nil || c == nil {
		t.Fatalf("read at %d: %v", want[0].BaseOffset(), err)
	}
	defer c.Release()
	b := make([]byte, c.Len())
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for len(b) > 0 && n < len(want) && bytes.HasPrefix(b, want[n]) {
		b = b[len(want[n]):]
		n++
	}
	if n == 0 {
		t.Fatalf("a read of %d bytes at %d does not begin with that batch", maxBytes, want[0].BaseOffset())
	}
	if len(b) > 0 && !bytes.HasPrefix(want[n], b) {
		t.Fatalf("a read of %d bytes at %d goes wrong after %d batches", maxBytes, want[0].BaseOffset(), n)
	}
	return n
}

// TestReaderOfOldRecordsNeedsNoIndex proves that a reader of a whole old log opens its index files
// a few times and not at every read.
func TestReaderOfOldRecordsNeedsNoIndex(t *testing.T) {
	var opens atomic.Int64
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if op == vfs.OpOpen && strings.HasSuffix(path, segment.IndexSuffix) {
			opens.Add(1)
		}
		return nil
	})
	s := openStore(t, testConfig(fs, "data"))
	o := testOptions()
	o.SegmentBytes, o.IndexInterval, o.FlushMessages = 1<<20, 1000, 1<<60
	l := testLog(s, 0, o)
	var all []record.Batch
	for i := range 6000 {
		all = append(all, batch(t, i, 1, 1000))
		mustAppend(t, l, all[i])
	}
	for _, size := range []int{1, 10_000, 60_000} {
		opens.Store(0)
		reads := 0
		for at := 0; at < len(all)-512; reads++ {
			at += readBatches(t, l, all[at:], size)
		}
		if n := int(opens.Load()); n*2 > reads {
			t.Errorf("%d reads of %d bytes opened an index %d times", reads, size, n)
		}
	}
}

// TestReadersLeaveFilesForAppends proves that readers which keep their chunks cannot keep more
// files open than they may, so that appends still find files. A read that was refused succeeds when
// other readers have given their chunks back.
func TestReadersLeaveFilesForAppends(t *testing.T) {
	fs := &countingFS{FS: vfs.NewMem()}
	cfg := testConfig(fs, "data")
	cfg.OpenFiles = 8
	s := openStore(t, cfg)
	const logs = 20
	read := func(n int) (*Chunk, error) { return testLog(s, n, testOptions()).Read(0, 1, 1<<20) }
	for n := range logs {
		mustAppend(t, testLog(s, n, testOptions()), batch(t, 0, 1, 100))
	}
	s.Commit()
	before := fs.open.Load()
	var held []*Chunk
	for n := range logs {
		c, err := read(n)
		switch {
		case err == nil:
			held = append(held, c)
		case !errors.Is(err, ErrBusy):
			t.Errorf("log %d: %v", n, err)
		}
	}
	if len(held) != 6 {
		t.Errorf("readers hold %d files of 8", len(held))
	}
	c, err := read(0) // a file that is open for one chunk can serve others
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	for n := range logs {
		mustAppend(t, testLog(s, n, testOptions()), batch(t, 1, 1, 100))
	}
	if more := fs.open.Load() - before; more > 1 {
		t.Errorf("%d files more are open than before", more)
	}
	for _, c := range held {
		c.Release()
	}
	for n := range logs {
		c, err := read(n)
		if err != nil {
			t.Fatalf("nobody holds anything, but log %d: %v", n, err)
		}
		c.Release()
	}
}

// countingFS counts the segment files that are open.
type countingFS struct {
	vfs.FS

	open atomic.Int64
}

func (c *countingFS) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := c.FS.Open(name, mode)
	if err != nil || !strings.HasSuffix(name, segment.LogSuffix) {
		return f, err
	}
	c.open.Add(1)
	return &countedFile{f, &c.open}, nil
}

type countedFile struct {
	vfs.File

	open *atomic.Int64
}

func (f *countedFile) Close() error {
	f.open.Add(-1)
	return f.File.Close()
}
