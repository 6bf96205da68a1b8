package storage

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestFailedSyncOfADirectoryIsFinal proves that a sync of a directory that failed, whatever the
// system says of it, is not tried again and believed: the names that it lost are not on the
// disk after the next one either. Only where there was no descriptor to open the directory it
// did not begin.
func TestFailedSyncOfADirectoryIsFinal(t *testing.T) {
	for name, c := range map[string]struct {
		dir  string
		err  error
		lone bool // rounds sync the log's file, else they go into the journal
		busy bool // the log is not read-only for it
	}{
		"a log's, no memory":           {dir: "data/topic-0", err: syscall.ENOMEM, lone: true},
		"a log's, bad disk":            {dir: "data/topic-0", err: errBadDisk, lone: true},
		"a log's, no descriptor":       {dir: "data/topic-0", err: vfs.ErrNoHandles, lone: true, busy: true},
		"the store's, for a log":       {dir: "data", err: syscall.EAGAIN, lone: true},
		"the store's, for the journal": {dir: "data", err: errBadDisk},
		"the store's, no descriptor":   {dir: "data", err: vfs.ErrNoHandles, lone: true, busy: true},
		"the journal's":                {dir: "data/journal", err: errBadDisk, busy: true},
		"the journal's, no descriptor": {dir: "data/journal", err: vfs.ErrNoHandles, busy: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(30) {
				mem := vfs.NewMem()
				ready, failed := false, false
				cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
					if ready && !failed && op == vfs.OpSyncDir && path == c.dir {
						failed = true
						return c.err
					}
					return nil
				}), "data")
				if c.lone {
					cfg.SyncAlone = 1
				}
				s := quietStore(t, cfg)
				ready = true
				l := testLog(s, 0, testOptions())
				appended := 0
				for range 4 {
					if it := appendOne(t, l, batch(t, appended, 1, 100)); it.Err == nil {
						appended++
					}
					s.Commit()
				}
				if !failed {
					t.Fatal("no sync failed")
				}
				committed, err := l.Committed()
				if err != nil {
					t.Fatal(err)
				}
				if faulted := l.Fault() != nil; faulted == c.busy {
					t.Errorf("read-only: %v, committed %d", l.Fault(), committed)
				}
				cfg.FS = mem.Crash(rand.New(rand.NewPCG(seed, 32)))
				l = testLog(quietStore(t, cfg), 0, testOptions())
				if end, err := l.End(); err != nil || end < committed {
					t.Fatalf("seed %d: it ends at %d, %v; %d were committed", seed, end, err, committed)
				}
			}
		})
	}
}

// TestKilledInItsFirstStart proves that the records of a data directory survive a power cut
// although the process that made it, the store's or its caller's, was killed at any call of its
// first start: the next one finds the directory, of which no name on the way may be on the disk.
func TestKilledInItsFirstStart(t *testing.T) {
	const dir = "srv/leat/data"
	for at := 1; ; at++ {
		mem, calls := vfs.NewMem(), 0
		var left *vfs.Mem
		quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if op.Changes() && left == nil {
				if calls++; calls == at {
					left = mem.KillClone(nil)
				}
			}
			return nil
		}), dir))
		if left == nil {
			if at < 5 {
				t.Errorf("a first start took %d calls", at-1)
			}
			return
		}
		cfg := testConfig(left, dir)
		s := quietStore(t, cfg)
		mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
		s.Commit()
		for seed := range uint64(12) {
			cfg.FS = left.Crash(rand.New(rand.NewPCG(seed, 36)))
			l := testLog(quietStore(t, cfg), 0, testOptions())
			if end, err := l.End(); err != nil || end != 1 {
				t.Errorf("killed at call %d, seed %d: the log ends at %d, %v", at, seed, end, err)
			}
		}
	}
}

// TestPathThatCannotBeRead proves that a store begins in a directory although one above it may
// not be read, or lies on a file system that cannot be written; but not where a sync of it failed.
func TestPathThatCannotBeRead(t *testing.T) {
	for _, c := range []struct {
		err    error
		begins bool
	}{{syscall.EACCES, true}, {syscall.EROFS, true}, {syscall.EIO, false}} {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("srv/data"); err != nil {
			t.Fatal(err)
		}
		s, err := openDir(testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
			if op == vfs.OpSyncDir && path == "." {
				return c.err
			}
			return nil
		}), "srv/data"))
		if (err == nil) != c.begins {
			t.Errorf("%v: %v", c.err, err)
		}
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestFailedMakingsLeaveNothing proves that tries to make a log's directory that fail, with or
// without their cleaning up, leave no more than one directory, and that the log is made once
// they succeed.
func TestFailedMakingsLeaveNothing(t *testing.T) {
	for name, noRemove := range map[string]bool{"cleaned up": false, "not even that": true} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			fail := true
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				switch {
				case fail && op == vfs.OpWrite && path == "data/topic-0/"+metadataFile:
					return &vfs.ShortWriteError{N: 7, Err: vfs.ErrNoSpace}
				case fail && noRemove && op == vfs.OpRemove && path == "data/topic-0":
					return errBadDisk
				}
				return nil
			}), "data")
			s := quietStore(t, cfg)
			l := testLog(s, 0, testOptions())
			count := func() (n int) {
				infos, err := mem.ReadDir("data")
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range infos {
					if strings.HasPrefix(i.Name, "topic-0") {
						n++
					}
				}
				return n
			}
			for range 5 {
				if it := appendOne(t, l, batch(t, 0, 1, 100)); it.Err == nil {
					t.Fatal("it was made")
				}
			}
			if want := map[bool]int{false: 0, true: 1}[noRemove]; count() != want || s.Strays() != 0 {
				t.Errorf("%d directories are left, %d set aside, want %d and none", count(), s.Strays(), want)
			}
			fail = false
			mustAppend(t, l, batch(t, 0, 1, 100))
			s.Commit()
			expectValues(t, l, 1)
			if count() != 1 || s.Strays() != 0 {
				t.Errorf("%d directories, %d set aside", count(), s.Strays())
			}
			cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 33)))
			expectValues(t, testLog(quietStore(t, cfg), 0, testOptions()), 1)
		})
	}
}
