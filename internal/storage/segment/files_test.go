package segment_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// manySegments makes closed segments of one batch each.
func manySegments(tb testing.TB, files *segment.Files, n int) []*segment.Segment {
	tb.Helper()
	dir := segment.NewDir(dirName)
	segs := make([]*segment.Segment, n)
	for i := range segs {
		h := newHistory(seeded(uint64(i)), record.Offset(1000*i))
		h.gaps = false
		g, err := segment.Create(files, dir, h.base, 0, 1)
		must(tb, err)
		must(tb, g.Append(h.grow(tb, 1), 100))
		must(tb, g.Seal())
		g.Close()
		segs[i] = g
	}
	return segs
}

// newChunk reads a segment's only batch.
func newChunk(tb testing.TB, g *segment.Segment) *segment.Chunk {
	tb.Helper()
	_, next := g.End()
	c, err := g.Read(g.Base(), next, 1)
	if err != nil || c == nil {
		tb.Fatalf("segment %d: %v", g.Base(), err)
	}
	return c
}

// expectWhole proves that a chunk is one whole batch with an offset.
func expectWhole(tb testing.TB, c *segment.Chunk, base record.Offset) {
	tb.Helper()
	b := make(record.Batch, c.Len())
	if _, err := c.ReadAt(b, 0); err != nil {
		tb.Error(err)
		return
	}
	if err := b.Verify(); err != nil || b.BaseOffset() != base {
		tb.Errorf("batch %d of segment %d: %v", b.BaseOffset(), base, err)
	}
}

// TestOpenFilesAreBounded proves that only files in use are open beyond the limit, and that
// their number falls again after that.
func TestOpenFilesAreBounded(t *testing.T) {
	const limit = 5
	mem := vfs.NewMem()
	files := newFiles(t, mem, limit)
	segs := manySegments(t, files, 30)
	for range 3 {
		for _, g := range segs {
			newChunk(t, g).Release()
			if n := mem.Handles(); n > limit {
				t.Fatalf("%d files are open", n)
			}
		}
	}
	var held []*segment.Chunk
	for _, g := range segs {
		held = append(held, newChunk(t, g))
	}
	if n := mem.Handles(); n != len(segs) {
		t.Errorf("%d files are open and %d in use", n, len(segs))
	}
	for i, c := range held {
		expectWhole(t, c, segs[i].Base())
		c.Release()
	}
	segs[0].CloseFile()
	newChunk(t, segs[0]).Release()
	if n := mem.Handles(); n > limit {
		t.Errorf("%d files are open after all uses ended", n)
	}
	files.Close()
	if n := mem.Handles(); n != 0 {
		t.Errorf("%d files are left open", n)
	}
}

// TestFileThatIsUsedOftenStaysOpen proves that files which are not used are closed before
// one that is used all the time.
func TestFileThatIsUsedOftenStaysOpen(t *testing.T) {
	opened := map[string]int{}
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, path string) error {
		if op == vfs.OpOpen {
			opened[path]++
		}
		return nil
	})
	segs := manySegments(t, newFiles(t, fs, 8), 30)
	busy := segs[29].Path(segment.LogSuffix)
	clear(opened)
	for range 3 {
		for _, g := range segs[:29] {
			newChunk(t, segs[29]).Release()
			newChunk(t, g).Release()
		}
	}
	if opened[busy] > 1 {
		t.Errorf("the busy file was opened %d times anew", opened[busy])
	}
}

// TestNoHandles proves that a process which may open no more files closes an unused one for
// one that is needed, returns an error if all are in use, and goes on when they are not.
func TestNoHandles(t *testing.T) {
	mem := vfs.NewMem()
	segs := manySegments(t, newFiles(t, mem, 100), 20)
	mem.LimitHandles(mem.Handles())
	for _, g := range segs {
		g.CloseFile()
	}
	mem.LimitHandles(3)
	for _, g := range segs {
		newChunk(t, g).Release()
		if base, err := g.LastBaseAt(1 << 30); err != nil || base != g.Base() { // needs an index file, too
			t.Fatalf("segment %d: %d, %v", g.Base(), base, err)
		}
	}
	held := []*segment.Chunk{newChunk(t, segs[0]), newChunk(t, segs[1]), newChunk(t, segs[2])}
	if c, err := segs[3].Read(segs[3].Base(), 1<<40, 1); !errors.Is(err, vfs.ErrNoHandles) {
		t.Errorf("with all files in use: %v, %v", c, err)
	}
	if _, err := segment.Create(newFiles(t, mem, 1), segment.NewDir(dirName), 1<<40, 0, 1); !errors.Is(err, vfs.ErrNoHandles) {
		t.Errorf("a segment that could not be made: %v", err)
	}
	for i, c := range held {
		expectWhole(t, c, segs[i].Base())
		c.Release()
	}
	newChunk(t, segs[3]).Release()
}

// TestFilesUnderConcurrency proves that readers always read from the file that they asked
// for, while files are opened, evicted and closed by others, and that none leaks.
func TestFilesUnderConcurrency(t *testing.T) {
	mem := vfs.NewMem()
	files := newFiles(t, mem, 3)
	segs := manySegments(t, files, 8)
	var wg sync.WaitGroup
	for w := range 6 {
		rng := seeded(uint64(w))
		wg.Go(func() {
			for range 300 {
				g := segs[rng.IntN(len(segs))]
				switch rng.IntN(10) {
				case 0:
					g.CloseFile()
				case 1:
					if _, err := g.Locate(g.Base()); err != nil {
						t.Error(err)
					}
				default:
					c := newChunk(t, g)
					expectWhole(t, c, g.Base())
					c.Release()
				}
			}
		})
	}
	wg.Wait()
	newChunk(t, segs[0]).Release()
	if n := mem.Handles(); n > 3 {
		t.Errorf("%d files are open", n)
	}
	files.Close()
	if n := mem.Handles(); n != 0 {
		t.Errorf("%d files are left open", n)
	}
}

// TestChunk proves that a chunk ends where it ends, wherever a read of it begins.
func TestChunk(t *testing.T) {
	s := newSubject(t, newFiles(t, vfs.NewMem(), 1), seeded(4), 0)
	s.append(3)
	c, err := s.g.Read(s.batches[1].BaseOffset(), s.next, 1)
	must(t, err)
	defer c.Release()
	want := s.bytes[s.at[1]:s.at[2]]
	if _, _, ok := c.Fd(); ok {
		t.Error("a file in memory has a descriptor")
	}
	for off := -1; off < len(want)+3; off++ {
		for _, n := range []int{0, 1, len(want) - 1, len(want), len(want) + 5} {
			b := make([]byte, n)
			got, err := c.ReadAt(b, int64(off))
			if off < 0 || off >= len(want) {
				if got != 0 || !errors.Is(err, io.EOF) {
					t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
				}
				continue
			}
			if k := min(n, len(want)-off); got != k || string(b[:got]) != string(want[off:off+k]) || (k < n) != errors.Is(err, io.EOF) {
				t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
			}
		}
	}
}

// TestDiscard proves that a segment's files get other names while readers go on to read
// their chunks, and that no file stays open after them, even if a reader came in between.
func TestDiscard(t *testing.T) {
	mem := vfs.NewMem()
	late := func() {}
	fs := vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
		if op == vfs.OpRename {
			late()
		}
		return nil
	})
	files := newFiles(t, fs, 10)
	g := manySegments(t, files, 1)[0]
	before := newChunk(t, g)
	once := sync.Once{}
	late = func() { once.Do(func() { newChunk(t, g).Release() }) }
	names, err := g.Discard()
	must(t, err)
	if len(names) != 3 {
		t.Errorf("it had the files %v", names)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, segment.DeletedSuffix) {
			t.Errorf("%s does not look deleted", name)
		}
		must(t, mem.Remove(name))
	}
	if infos, err := mem.ReadDir(dirName); err != nil || len(infos) > 0 {
		t.Errorf("files are left: %v, %v", infos, err)
	}
	expectWhole(t, before, g.Base())
	before.Release()
	if n := mem.Handles(); n != 0 {
		t.Errorf("%d files are open", n)
	}
	if _, err := g.Read(0, 1, 1); !errors.Is(err, vfs.ErrNotExist) {
		t.Errorf("a read of what is gone: %v", err)
	}
	if names, err := g.Discard(); err != nil || len(names) > 0 {
		t.Errorf("discarded twice: %v, %v", names, err)
	}
}

// TestDiscardFails proves that a discard which fails half-way returns the names of the
// files that it has renamed, and can be repeated.
func TestDiscardFails(t *testing.T) {
	for fail := range 3 {
		n := -1
		mem := vfs.NewMem()
		fs := vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if op == vfs.OpRename {
				if n++; n == fail {
					return errInjected
				}
			}
			return nil
		})
		g := manySegments(t, newFiles(t, fs, 10), 1)[0]
		first, err := g.Discard()
		if !errors.Is(err, errInjected) || len(first) != fail {
			t.Errorf("rename %d failed: %v, %v", fail, first, err)
		}
		second, err := g.Discard()
		if err != nil || len(first)+len(second) != 3 {
			t.Errorf("after rename %d failed: %v and %v, %v", fail, first, second, err)
		}
	}
}

// TestDir proves that nothing changes a directory after Leave, and that Leave waits for the
// calls of Do that run.
func TestDir(t *testing.T) {
	d := segment.NewDir("a/b")
	if got := d.Path("c", "d"); got != "a/b/c/d" {
		t.Error(got)
	}
	var wg sync.WaitGroup
	inside, left := make(chan struct{}), make(chan struct{})
	var mine bool // the directory is the log's own; without a lock but Dir's
	must(t, d.Do(func() error { mine = true; return nil }))
	wg.Go(func() {
		must(t, d.Do(func() error {
			close(inside)
			for range 100 {
				if !mine {
					t.Error("it was left while somebody was in it")
				}
			}
			return nil
		}))
	})
	<-inside
	wg.Go(func() {
		d.Leave()
		mine = false
		close(left)
	})
	for range 4 {
		wg.Go(func() {
			for {
				err := d.Do(func() error {
					if !mine {
						t.Error("somebody came in after it was left")
					}
					return nil
				})
				if err != nil {
					if !errors.Is(err, segment.ErrGone) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	<-left
	d.Leave()
	if err := d.Do(func() error { return fmt.Errorf("BUG: called") }); !errors.Is(err, segment.ErrGone) {
		t.Error(err)
	}
}

// TestGone proves that all methods which open or change a segment's files return ErrGone
// once the log has left its directory, and that another log's files there stay.
func TestGone(t *testing.T) {
	mem := vfs.NewMem()
	s := newSubject(t, newFiles(t, mem, 4), seeded(5), 0)
	s.append(30)
	s.close()
	s.reopen()
	s.dir.Leave()
	before := contents(t, mem, s.g.Path(segment.IndexSuffix))
	for what, call := range map[string]func() error{
		"read":    func() error { _, err := s.g.Read(s.base, s.next, 1); return err },
		"locate":  func() error { _, err := s.g.Locate(s.base); return err },
		"time":    func() error { _, err := s.g.MaxTime(false); return err },
		"take up": func() error { return s.g.Activate(0) },
		"apart":   func() error { _, err := s.g.OpenApart(); return err },
		"sync":    s.g.SyncIndexes,
		"discard": func() error { _, err := s.g.Discard(); return err },
		"create":  func() error { _, err := segment.Create(s.files, s.dir, 1<<40, 0, 1); return err },
	} {
		if err := call(); !errors.Is(err, segment.ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := contents(t, mem, s.g.Path(segment.IndexSuffix)); string(before) != string(after) {
		t.Error("the index file was changed")
	}
	if infos, err := mem.ReadDir(dirName); err != nil || len(infos) != 3 {
		t.Errorf("the directory has %v, %v", infos, err)
	}
}

// TestFileNames proves that a name stands for one offset and an offset for one name.
func TestFileNames(t *testing.T) {
	for _, o := range []record.Offset{0, 1, 42, 1<<63 - 1} {
		name := segment.FileName(o, segment.LogSuffix)
		if got, ok := segment.ParseFileName(name, segment.LogSuffix); !ok || got != o || len(name) != 24 {
			t.Errorf("%d: %s, %d, %v", o, name, got, ok)
		}
		if _, ok := segment.ParseFileName(name, segment.IndexSuffix); ok {
			t.Errorf("%s is no index", name)
		}
	}
	for _, name := range []string{
		"", ".log", "0.log", "0000000000000000000.log", "000000000000000000000.log", "99999999999999999999.log",
		"+0000000000000000001.log", "-0000000000000000000.log", "-0000000000000000001.log", "0x000000000000000001.log",
		"0000_000000000000001.log", " 0000000000000000001.log", "00000000000000000001.log.deleted",
	} {
		if o, ok := segment.ParseFileName(name, segment.LogSuffix); ok {
			t.Errorf("%q was taken for offset %d", name, o)
		}
	}
}

// FuzzFileName proves that the offset which is parsed from a file's name makes that name
// again.
func FuzzFileName(f *testing.F) {
	f.Add("00000000000000000042.log", segment.LogSuffix)
	f.Add("+0000000000000000042.index", segment.IndexSuffix)
	f.Fuzz(func(t *testing.T, name, suffix string) {
		if o, ok := segment.ParseFileName(name, suffix); ok && segment.FileName(o, suffix) != name {
			t.Errorf("%q was taken for %d", name, o)
		}
	})
}
