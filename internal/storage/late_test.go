package storage

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// lateStore is a store that takes two logs for a crowd, and nothing happens there
// but what the test does.
func lateStore(tb testing.TB, fs vfs.FS) *Store {
	tb.Helper()
	cfg := testConfig(fs, "data")
	cfg.crowd = 2
	s, err := open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s.background = func(fn func()) { fn() }
	return s
}

// lateModes are logs of both modes.
func lateModes() map[string]Options {
	durable, cached := testOptions(), testOptions()
	cached.FlushMessages = 1 << 40
	return map[string]Options{"durable": durable, "page cache": cached}
}

// crowd writes to three logs, of which the third is late.
func crowd(tb testing.TB, s *Store, o Options) *Log {
	tb.Helper()
	for i := range 2 {
		mustAppend(tb, testLog(s, i, o), batch(tb, 0, 1, 100))
	}
	l := testLog(s, 2, o)
	mustAppend(tb, l, batch(tb, 0, 3, 100))
	return l
}

// fileOf is the size of a log's first file; -1: there is none.
func fileOf(tb testing.TB, s *Store, l *Log) int64 {
	tb.Helper()
	info, err := s.fs.Stat(s.path(l.dir, fileName(0, logSuffix)))
	if errors.Is(err, vfs.ErrNotExist) {
		return -1
	}
	if err != nil {
		tb.Fatal(err)
	}
	return info.Size
}

func wantRecords(tb testing.TB, l *Log, n int) {
	tb.Helper()
	if end, err := l.Committed(); err != nil || int(end) != n {
		tb.Fatalf("%d records are committed, want %d (%v)", end, n, err)
	}
	for i, v := range values(tb, readAll(tb, l, 0, 1<<20)) {
		if v != i {
			tb.Fatalf("record %d is %d", i, v)
		}
	}
}

// TestLate proves that where many logs are written to, the first records of one are
// committed by the journal and can be read before there is a file of it, that a
// checkpoint makes the file, that what comes then goes into it at once, and so does
// what is answered before it is committed.
func TestLate(t *testing.T) {
	for name, o := range lateModes() {
		t.Run(name, func(t *testing.T) {
			s := lateStore(t, vfs.NewMem())
			l := crowd(t, s, o)
			if end, _ := l.Committed(); end != 0 {
				t.Fatalf("%d records are committed, which are in memory only", end)
			}
			s.Commit()
			wantRecords(t, l, 3)
			if n := fileOf(t, s, l); n >= 0 {
				t.Errorf("its file has %d bytes, want none yet", n)
			}
			s.keeper.checkpointNow()
			if n := fileOf(t, s, l); n != l.usage() {
				t.Errorf("after a checkpoint its file has %d bytes, want %d", n, l.usage())
			}
			mustAppend(t, l, batch(t, 3, 2, 100))
			if n := fileOf(t, s, l); n != l.usage() {
				t.Errorf("its file has %d bytes, want %d: from now on it is written to", n, l.usage())
			}
			s.Commit()
			wantRecords(t, l, 5)
			l = testLog(s, 3, o)
			mustAppend(t, l, batch(t, 0, 2, 100))
			items := []Item{{Batch: batch(t, 2, 1, 100), Early: true}}
			l.Append(1, items)
			if n := fileOf(t, s, l); items[0].Err != nil || n != l.usage() {
				t.Errorf("its file has %d bytes of %d (%v)", n, l.usage(), items[0].Err)
			}
			s.Commit()
			wantRecords(t, l, 3)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if n := s.late.bytes.Load(); n != 0 {
				t.Errorf("%d bytes wait after the end", n)
			}
		})
	}
}

// TestLateKill proves that after a kill, the records that only the journal has are
// there again: when their log is used, or with the first checkpoint where it is not;
// and that a second kill in between changes nothing. After a power cut those of the
// durable mode are.
func TestLateKill(t *testing.T) {
	for name, o := range lateModes() {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			s := lateStore(t, mem)
			l := crowd(t, s, o)
			s.Commit()
			mustAppend(t, l, batch(t, 3, 1, 100)) // of which nobody was told
			mem = mem.KillClone(nil)
			for range 2 {
				s = lateStore(t, mem)
				if n := fileOf(t, s, l); n >= 0 {
					t.Fatalf("the start made its file, of %d bytes", n)
				}
				mem = mem.KillClone(nil)
			}
			wantRecords(t, testLog(s, 2, o), 3)
			s = lateStore(t, mem)
			s.keeper.checkpointNow()
			if n := fileOf(t, s, l); n <= 0 {
				t.Errorf("after a checkpoint its file has %d bytes", n)
			}
			if len(s.held) > 0 {
				t.Errorf("%d logs are held after a checkpoint", len(s.held))
			}
			wantRecords(t, testLog(s, 2, o), 3)
			mem.KillClone(nil)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("power cut", func(t *testing.T) {
		mem := vfs.NewMem()
		s := lateStore(t, mem)
		crowd(t, s, lateModes()["durable"])
		s.Commit()
		cfg := s.cfg
		cfg.FS, cfg.BootID = mem.Crash(rand.New(rand.NewPCG(1, 1))), "another boot"
		wantRecords(t, testLog(openStore(t, cfg), 2, lateModes()["durable"]), 3)
	})
}

// TestLateFull proves that late records whose file cannot be written for want of room
// can be read, keep the journal's rounds, survive a kill, and reach their file when
// there is room.
func TestLateFull(t *testing.T) {
	for name, o := range lateModes() {
		t.Run(name, func(t *testing.T) {
			mem, full := vfs.NewMem(), false
			s := lateStore(t, vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				if full && op.Changes() && strings.Contains(path, "-2/") {
					return vfs.ErrNoSpace
				}
				return nil
			}))
			l := crowd(t, s, o)
			s.Commit()
			full = true
			s.keeper.checkpointNow()
			s.keeper.checkpointNow()
			wantRecords(t, l, 3)
			if err := l.Fault(); err != nil {
				t.Fatal(err)
			}
			wantRecords(t, testLog(lateStore(t, mem.KillClone(nil)), 2, o), 3)
			full = false
			s.keeper.checkpointNow()
			if n := fileOf(t, s, l); n != l.usage() {
				t.Errorf("its file has %d bytes of %d", n, l.usage())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestLateDeleted proves that a log which was deleted before it had a directory does
// not come back, and that another one of its name keeps its own records.
func TestLateDeleted(t *testing.T) {
	for _, cut := range []bool{false, true} {
		mem := vfs.NewMem()
		s := lateStore(t, mem)
		l := crowd(t, s, testOptions())
		s.Commit()
		s.Delete(l.ID())
		id := LogID{Topic: [16]byte{1}, Partition: 2}
		again := s.Log(id, "topic", testOptions(), func(*Log) {})
		mustAppend(t, again, batch(t, 0, 2, 100))
		s.Commit()
		cfg := s.cfg
		if cfg.FS = mem.KillClone(nil); cut {
			cfg.FS, cfg.BootID = mem.Crash(rand.New(rand.NewPCG(1, 1))), "another boot"
		}
		s = openStore(t, cfg)
		wantRecords(t, s.Log(id, "topic", testOptions(), func(*Log) {}), 2)
		s.keeper.checkpointNow()
		if topic, ok, err := s.owner(l.dir); !ok || topic != id.Topic {
			t.Errorf("the directory belongs to %v (%v)", topic, err)
		}
		if len(s.held) > 0 {
			t.Errorf("%d logs are held after a checkpoint", len(s.held))
		}
	}
}

// TestLateLimit proves that no more than a bounded number of bytes waits: what is
// beyond it goes to its file together with what waited there before.
func TestLateLimit(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.crowd, cfg.late = 1, 2000
	s := openStore(t, cfg)
	for i := range 20 {
		l := testLog(s, i%3, testOptions())
		mustAppend(t, l, batch(t, 0, 1, 300))
		if n := s.late.bytes.Load(); n > 2000 {
			t.Fatalf("%d bytes wait", n)
		}
	}
	s.Commit()
	for i := range 3 {
		l := testLog(s, i, testOptions())
		end, _ := l.End()
		if c, _ := l.Committed(); c != end || end < 6 {
			t.Errorf("log %d: %d of %d records are committed", i, c, end)
		}
		if got := readAll(t, l, 0, 1<<20); record.Offset(len(got)) != end {
			t.Errorf("log %d: %d of %d records were read", i, len(got), end)
		}
	}
}
