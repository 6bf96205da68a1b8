package segment_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

var errInjected = errors.New("injected")

// faults makes the nth call that a filter picks fail, or none if n < 0. A close never
// fails, since nothing depends on it.
type faults struct {
	n     int
	short int64 // of a write that fails: how many bytes get through
	only  func(op vfs.Op, path string) bool
	hit   []vfs.Op // those that failed
}

func (f *faults) hook(op vfs.Op, path string) error {
	if f.n < 0 || op == vfs.OpClose || f.only != nil && !f.only(op, path) {
		return nil
	}
	if f.n--; f.n >= 0 {
		return nil
	}
	f.hit = append(f.hit, op)
	if op == vfs.OpWrite {
		return &vfs.ShortWriteError{N: f.short, Err: errInjected}
	}
	return errInjected
}

// TestAppendFails proves, for a failure of each call of an append and for each length of a
// write, that readers see nothing of the append, that it leaves no bytes, not even after a
// power cut, or returns ErrTainted, and that the next append succeeds.
func TestAppendFails(t *testing.T) {
	for _, prealloc := range []int64{0, 5000} {
		for call := range 2 {
			for short := int64(0); short < 700; short += 97 {
				mem := vfs.NewMem()
				f := &faults{n: -1, short: short}
				s := newSubject(t, newFiles(t, vfs.NewFaulty(mem, f.hook), 4), seeded(uint64(short)), prealloc)
				s.append(5)
				must(t, s.g.Sync())
				must(t, mem.SyncDir(dirName))
				must(t, mem.SyncDir("."))
				s.g.CloseFile()
				keep := len(s.batches)
				f.n = call // 0: the file cannot be opened; 1: the write fails
				if err := s.g.Append(s.grow(t, 3), s.interval); !errors.Is(err, errInjected) || errors.Is(err, segment.ErrTainted) {
					t.Fatalf("call %d, %d bytes: %v", call, short, err)
				}
				s.cut(keep)
				what := fmt.Sprintf("call %d, %d bytes", call, short)
				s.check(what, true)
				s.append(2)
				s.check(what+", appended", true)
				must(t, s.g.Sync())
				for cut := range uint64(3) {
					after := contents(t, mem.Crash(seeded(cut)), s.g.Path(segment.LogSuffix))
					if !strings.HasPrefix(string(after), string(s.bytes)) || strings.Trim(string(after[s.size():]), "\x00") != "" {
						t.Fatalf("%s: a power cut leaves other bytes", what)
					}
				}
			}
		}
	}
}

// TestAppendTainted proves that an append whose bytes cannot be cut off returns ErrTainted.
func TestAppendTainted(t *testing.T) {
	for _, broken := range []vfs.Op{vfs.OpTruncate, vfs.OpSync} {
		fail := false
		fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, _ string) error {
			switch {
			case fail && op == vfs.OpWrite:
				return &vfs.ShortWriteError{N: 30, Err: vfs.ErrNoSpace}
			case fail && op == broken:
				return errInjected
			}
			return nil
		})
		s := newSubject(t, newFiles(t, fs, 4), seeded(1), 0)
		s.append(5)
		keep := len(s.batches)
		fail = true
		err := s.g.Append(s.grow(t, 1), s.interval)
		if !errors.Is(err, segment.ErrTainted) || !errors.Is(err, vfs.ErrNoSpace) || !errors.Is(err, errInjected) {
			t.Errorf("%s failed, too: %v", broken, err)
		}
		fail = false
		s.cut(keep)
		s.check("tainted", true)
	}
}

// TestAppendOnFullDisk proves that no byte of a write is left if the disk becomes full in
// the middle of it.
func TestAppendOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	s := newSubject(t, newFiles(t, mem, 4), seeded(2), 0)
	s.append(5)
	keep := len(s.batches)
	bufs := s.grow(t, 4)
	mem.SetFree(int64(len(bufs[0]) + 10))
	if err := s.g.Append(bufs, s.interval); !errors.Is(err, vfs.ErrNoSpace) || errors.Is(err, segment.ErrTainted) {
		t.Fatal(err)
	}
	s.cut(keep)
	s.check("full", true)
	if got := contents(t, mem, s.g.Path(segment.LogSuffix)); string(got) != string(s.bytes) {
		t.Errorf("%d bytes are in the file, not %d", len(got), s.size())
	}
	mem.SetFree(1 << 20)
	s.append(4)
	s.check("room again", true)
}

// TestCreateFails proves that a segment that could not be created leaves no file, or that
// the error is ErrTainted.
func TestCreateFails(t *testing.T) {
	for n := range 3 {
		mem := vfs.NewMem()
		f := &faults{n: -1}
		files := newFiles(t, vfs.NewFaulty(mem, f.hook), 4)
		dir := segment.NewDir(dirName)
		if n == 2 { // neither the space nor the removal
			f.only = func(op vfs.Op, _ string) bool { return op == vfs.OpRemove }
			mem.SetFree(100)
			f.n = 0
		} else {
			f.n = n
		}
		_, err := segment.Create(files, dir, 7, 1000, 1)
		infos, listErr := mem.ReadDir(dirName)
		must(t, listErr)
		if err == nil || errors.Is(err, segment.ErrTainted) != (len(infos) > 0) {
			t.Errorf("call %d: %v, and %d files are left", n, err, len(infos))
		}
		if handles := mem.Handles(); handles != 0 {
			t.Errorf("call %d: %d files are open", n, handles)
		}
		f.n = -1
		mem.SetFree(1 << 20)
		if _, err := segment.Create(files, dir, 7, 1000, 1); err != nil {
			t.Errorf("call %d, again: %v", n, err)
		}
	}
}

// TestSealFails proves, for a failure of each call of a seal, that batches can be appended
// to the segment, that it can be sealed later, and that its preallocated space is given
// back then.
func TestSealFails(t *testing.T) {
	for n := range 20 {
		mem := vfs.NewMem()
		f := &faults{n: -1, short: 5}
		s := newSubject(t, newFiles(t, vfs.NewFaulty(mem, f.hook), 4), seeded(uint64(n)), 100_000)
		s.clock = rising
		s.append(30)
		s.g.CloseFile()
		f.n = n
		err := s.g.Seal()
		f.n = -1
		if sealed := len(f.hit) == 0 || f.hit[0] == vfs.OpRead; sealed != (err == nil) {
			t.Errorf("call %d, %v: %v", n, f.hit, err)
		}
		s.check("after a seal", true)
		if err != nil {
			s.append(20)
			s.check("after a seal that failed", true)
		}
		s.close()
		s.reopen()
		s.check("sealed", false)
		if got := contents(t, mem, s.g.Path(segment.LogSuffix)); string(got) != string(s.bytes) {
			t.Errorf("call %d: the file has %d bytes of %d", n, len(got), s.size())
		}
		if len(f.hit) == 0 {
			return // there are no more calls
		}
	}
	t.Error("a seal makes more calls than the test knows")
}

// TestTrim proves that a segment whose file was cut to its length must be synced once more,
// and that one without reserved space is not changed.
func TestTrim(t *testing.T) {
	mem := vfs.NewMem()
	s := newSubject(t, newFiles(t, mem, 4), seeded(1), 10_000)
	s.append(3)
	must(t, s.g.Sync())
	if synced, _ := s.g.Synced(); synced != s.size() {
		t.Fatalf("%d of %d bytes are synced", synced, s.size())
	}
	must(t, s.g.Trim())
	if synced, _ := s.g.Synced(); synced >= s.size() {
		t.Error("the cut counts as synced")
	}
	if got := contents(t, mem, s.g.Path(segment.LogSuffix)); string(got) != string(s.bytes) {
		t.Errorf("the file has %d bytes", len(got))
	}
	must(t, s.g.Sync())
	must(t, s.g.Trim())
	if synced, named := s.g.Synced(); synced != s.size() || named {
		t.Errorf("%d bytes are synced, named: %v", synced, named)
	}
	s.g.SetNamed()
	if _, named := s.g.Synced(); !named || s.g.StartSync() != 0 {
		t.Error("it is not durable")
	}
}

// TestTruncate proves that a segment can be cut after each of its batches, that the cut is
// durable, and that no trace is left of the later batches.
func TestTruncate(t *testing.T) {
	for seed := range uint64(8) {
		for _, active := range []bool{true, false} {
			mem := vfs.NewMem()
			s := newSubject(t, newFiles(t, mem, 4), seeded(seed), int64(seed%2)*50_000)
			s.append(20)
			must(t, s.g.Sync())
			must(t, mem.SyncDir(dirName))
			must(t, mem.SyncDir("."))
			for keep := len(s.batches); keep >= 0; keep -= 1 + s.rng.IntN(3) {
				what := fmt.Sprintf("seed %d, %d batches are left", seed, keep)
				old, oldNext := s.g, s.next
				if !active {
					s.close()
				}
				must(t, s.truncate(keep))
				after := contents(t, mem.Crash(s.rng), s.g.Path(segment.LogSuffix))
				if string(after) != string(s.bytes) {
					t.Fatalf("%s: after a power cut there are %d bytes", what, len(after))
				}
				if c, err := old.Read(s.next, oldNext, 1<<20); err == nil && c != nil {
					c.Release() // a reader of the one before finds its way, or an error, but no harm
				}
				must(t, s.g.Activate(s.interval))
				s.check(what, true)
				s.append(1)
				s.check(what+", appended", true)
				must(t, s.truncate(keep))
				must(t, s.g.Activate(s.interval))
			}
		}
	}
}

// TestTruncateFails proves, for a failure of each call, that a truncation which fails
// before its cut changes nothing, and that one whose cut may not be durable returns an
// error.
func TestTruncateFails(t *testing.T) {
	for n := range 10 {
		mem := vfs.NewMem()
		f := &faults{n: -1}
		s := newSubject(t, newFiles(t, vfs.NewFaulty(mem, f.hook), 4), seeded(uint64(n)), 0)
		s.append(20)
		s.close()
		f.n = n
		old := s.g
		err := s.truncate(10)
		f.n = -1
		if (err != nil) != (len(f.hit) > 0) {
			t.Fatalf("call %d, %v: %v", n, f.hit, err)
		}
		if err == nil {
			return
		}
		if s.g != old {
			t.Fatalf("call %d: another segment took its place", n)
		}
		if got := contents(t, mem, s.g.Path(segment.LogSuffix)); f.hit[0] <= vfs.OpTruncate && f.hit[0] != vfs.OpRemove {
			if string(got) != string(s.bytes) {
				t.Errorf("call %d: %d of %d bytes are left", n, len(got), s.size())
			}
			s.check("nothing was cut", false)
		}
		must(t, s.truncate(10)) // once more
		must(t, s.g.Activate(s.interval))
		s.check("cut at last", true)
	}
	t.Error("a truncation makes more calls than the test knows")
}

// TestCrash proves that after a power cut at any time the synced bytes of a segment are
// there, and that it can be recovered whatever is left of its indexes.
func TestCrash(t *testing.T) {
	for seed := range uint64(60) {
		rng := seeded(seed)
		mem := vfs.NewMem()
		s := newSubject(t, newFiles(t, mem, 4), rng, int64(rng.IntN(2)*20_000))
		must(t, mem.SyncDir(dirName))
		must(t, mem.SyncDir("."))
		synced := 0
		for range 1 + rng.IntN(6) {
			s.append(rng.IntN(10))
			if rng.IntN(2) == 0 {
				must(t, s.g.Sync())
				synced = len(s.batches)
			}
			if rng.IntN(2) == 0 {
				must(t, s.g.FlushIndexes())
			}
			if rng.IntN(3) == 0 {
				must(t, mem.SyncDir(dirName))
			}
		}
		if rng.IntN(2) == 0 {
			must(t, s.g.Seal())
		}
		after := mem.Crash(rng)
		s.takeUp(newFiles(t, after, 4), after, synced)
		s.check(fmt.Sprintf("seed %d: after the crash", seed), true)
		s.append(rng.IntN(10))
		s.close()
		s.reopen()
		s.check(fmt.Sprintf("seed %d: closed", seed), false)
	}
}

// takeUp recovers a segment: it walks the file to its last whole batch and cuts it there.
// The whole batches must have least bytes or more.
func (s *subject) takeUp(files *segment.Files, fs vfs.FS, least int) {
	s.t.Helper()
	s.files = files
	got := contents(s.t, fs, s.g.Path(segment.LogSuffix))
	s.g = segment.Attach(files, s.dir, s.base, int64(len(got)), 1)
	s.allowGaps()
	w, closeWalk, err := s.g.Walk(0, s.base, !s.gaps)
	must(s.t, err)
	n := 0
	for {
		b, err := w.Next()
		if err != nil {
			break
		}
		if n >= len(s.batches) || b.CRC() != s.batches[n].CRC() || b.BaseOffset() != s.batches[n].BaseOffset() {
			s.t.Fatalf("batch %d of %d is another one", n, len(s.batches))
		}
		n++
	}
	pos, next := w.Pos(), w.Least()
	closeWalk()
	if n < least || pos != s.end(n) || n > 0 && next != s.batches[n-1].NextOffset() {
		s.t.Fatalf("%d batches are left of %d that were synced, to byte %d, offset %d", n, least, pos, next)
	}
	f, err := fs.Open(s.g.Path(segment.LogSuffix), vfs.Existing)
	must(s.t, err)
	must(s.t, errors.Join(f.Truncate(pos), f.Sync(), f.Close()))
	s.cut(n)
	s.g.SetRecovered(pos, s.next, pos, true)
	must(s.t, s.g.Activate(s.interval))
}

// TestRewrite proves that bytes which a failed sync lost to the disk are there after a
// rewrite and a sync.
func TestRewrite(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{n: -1, only: func(op vfs.Op, _ string) bool { return op == vfs.OpSync }}
	s := newSubject(t, newFiles(t, vfs.NewFaulty(mem, f.hook), 4), seeded(1), 0)
	must(t, mem.SyncDir(dirName))
	must(t, mem.SyncDir("."))
	s.append(700) // more than one step of a rewrite
	must(t, s.g.Sync())
	from := s.size()
	s.value = 2000
	s.append(200)
	f.n = 0
	if err := s.g.Sync(); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	if synced, _ := s.g.Synced(); synced != from {
		t.Errorf("%d bytes count as synced", synced)
	}
	must(t, s.g.Rewrite(from, s.size()))
	must(t, s.g.Sync())
	if got := contents(t, mem.Crash(seeded(1)), s.g.Path(segment.LogSuffix)); string(got) != string(s.bytes) {
		t.Errorf("%d bytes survive of %d", len(got), s.size())
	}
	if err := s.g.Rewrite(s.size()-10, s.size()+10); err == nil {
		t.Error("more bytes were rewritten than there are")
	}
}

// TestAge proves that a segment's age is that of its records, or that of its file if they
// have no timestamps.
func TestAge(t *testing.T) {
	files := newFiles(t, vfs.NewMem(), 4)
	s := newSubject(t, files, seeded(1), 0)
	s.clock = constant
	if age := s.g.Age(firstMS+10, 101); age != 100 {
		t.Errorf("without records: %d", age)
	}
	s.append(3)
	if age := s.g.Age(firstMS+10, 101); age != 10 {
		t.Errorf("by its records: %d", age)
	}
	if age := s.g.Age(record.NoTimestamp, 101); age != 100 {
		t.Errorf("for a record without a time: %d", age)
	}
	s.close()
	s.reopen()
	must(t, s.g.Activate(0))
	if age := s.g.Age(firstMS+10, 101); age != 10 {
		t.Errorf("taken up again: %d", age)
	}
}
