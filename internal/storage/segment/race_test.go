package segment_test

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// memSubject is a subject and its file system.
type memSubject struct {
	*subject
	fs *vfs.Mem
}

func newMemSubject(tb testing.TB, seed uint64) memSubject {
	tb.Helper()
	mem := vfs.NewMem()
	return memSubject{newSubject(tb, newFiles(tb, mem, 4), seeded(seed), 0), mem}
}

// expectPrefix proves that a chunk has whole bytes of a history from a batch on.
func expectPrefix(t *testing.T, c *segment.Chunk, all []byte, at int64) {
	t.Helper()
	b := make([]byte, c.Len())
	if _, err := c.ReadAt(b, 0); err != nil || !bytes.HasPrefix(all[at:], b) {
		t.Errorf("%d bytes at %d: other bytes, %v", len(b), at, err)
	}
}

// TestReadersBesideAppends proves that a segment can be read and searched, and its indexes
// flushed, while it grows, is sealed and is closed, and that its indexes are the same at the
// end.
func TestReadersBesideAppends(t *testing.T) {
	const batches = 1500
	alone, busy := newMemSubject(t, 3), newMemSubject(t, 3)
	s := busy.subject
	bufs := s.grow(t, batches) // all of the history is known from the beginning
	var written atomic.Int64   // batches
	var done atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		rng := seeded(uint64(100 + w))
		wg.Go(func() {
			for !done.Load() {
				n := written.Load()
				if n == 0 {
					continue
				}
				i := rng.IntN(int(n))
				from := s.batches[i].BaseOffset()
				switch rng.IntN(6) {
				case 0:
					if got, err := s.g.Locate(from); err != nil || got.Base != from {
						t.Errorf("batch %d lies at %+v, %v", i, got, err)
					}
				case 1:
					if err := s.g.FlushIndexes(); err != nil {
						t.Error(err)
					}
				case 2:
					if got, err := s.g.LastBaseAt(s.at[i]); err != nil || got != from {
						t.Errorf("batch %d: %d, %v", i, got, err)
					}
				case 3:
					ms := s.stamps[i][0].Time
					if at, ok, err := s.g.FindTime(segment.Work{Ctx: t.Context()}, ms, s.base); err != nil || !ok || at.Time < ms {
						t.Errorf("time %d: %+v, %v, %v", ms, at, ok, err)
					}
				default:
					c, err := s.g.Read(from, record.Offset(1<<40), 1+rng.IntN(20_000))
					if err != nil || c == nil {
						t.Errorf("batch %d: %v", i, err)
						continue
					}
					expectPrefix(t, c, s.bytes, s.at[i])
					c.Release()
				}
			}
		})
	}
	for len(bufs) > 0 {
		n := min(len(bufs), 3)
		must(t, s.g.Append(bufs[:n], 100))
		bufs = bufs[n:]
		written.Add(int64(n))
	}
	must(t, s.g.Seal())
	s.g.Close()
	done.Store(true)
	wg.Wait()

	alone.interval = 100
	must(t, alone.g.Append(alone.grow(t, batches), 100))
	alone.close()
	for _, suffix := range []string{segment.LogSuffix, segment.IndexSuffix, segment.TimeSuffix} {
		want, got := contents(t, alone.fs, alone.g.Path(suffix)), contents(t, busy.fs, s.g.Path(suffix))
		if len(want) == 0 && suffix != segment.TimeSuffix || !bytes.Equal(want, got) {
			t.Errorf("%s: %d bytes, alone %d, or others", suffix, len(got), len(want))
		}
	}
}

// TestReadersBesideDiscard proves that readers of a segment that is being discarded get its
// records or an error that says so, and that no file stays open.
func TestReadersBesideDiscard(t *testing.T) {
	for seed := range uint64(20) {
		m := newMemSubject(t, seed)
		m.append(30)
		m.close()
		var wg sync.WaitGroup
		for w := range 3 {
			rng := seeded(uint64(w))
			wg.Go(func() {
				for range 50 {
					i := rng.IntN(len(m.batches))
					c, err := m.g.Read(m.batches[i].BaseOffset(), m.next, 500)
					if err != nil {
						if !errors.Is(err, vfs.ErrNotExist) {
							t.Error(err)
						}
						return
					}
					expectPrefix(t, c, m.bytes, m.at[i])
					c.Release()
				}
			})
		}
		wg.Go(func() {
			if _, err := m.g.Discard(); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if n := m.fs.Handles(); n != 0 {
			t.Fatalf("seed %d: %d files are open", seed, n)
		}
	}
}

// TestIndexesMadeAnewBesideReaders proves that readers which find an index wrong at the same
// time all get right answers.
func TestIndexesMadeAnewBesideReaders(t *testing.T) {
	for seed := range uint64(10) {
		m := newMemSubject(t, seed)
		m.append(60)
		m.close()
		m.reopen()
		put(t, m.fs, m.g.Path(segment.IndexSuffix), bytes.Repeat([]byte{9}, 400))
		put(t, m.fs, m.g.Path(segment.TimeSuffix), bytes.Repeat([]byte{9}, 400))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i, b := range m.batches {
					if got, err := m.g.Locate(b.BaseOffset()); err != nil || got != m.info(i) {
						t.Errorf("seed %d, batch %d: %+v, %v", seed, i, got, err)
					}
				}
				if ms, err := m.g.MaxTime(false); err != nil || ms != m.maxTime(m.base) {
					t.Errorf("seed %d: the largest time is %d, %v", seed, ms, err)
				}
				if _, err := m.g.Locate(m.next); !errors.Is(err, io.EOF) {
					t.Errorf("seed %d: beyond the end: %v", seed, err)
				}
			})
		}
		wg.Wait()
		m.coarse = true
		m.check("made anew", false)
	}
}
