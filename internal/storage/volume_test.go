package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// calls counts a store's calls of its file system, and those that concern a log's directory. Reads
// of the journal are not counted, because their number depends on the place in its files at which
// it ended.
type calls struct{ syncs, opens, reads, lists, logs atomic.Int64 }

func (c *calls) hook(op vfs.Op, name string) error {
	if strings.Contains(name, "/topic-") {
		c.logs.Add(1)
	}
	switch op {
	case vfs.OpSync, vfs.OpSyncDir:
		c.syncs.Add(1)
	case vfs.OpOpen:
		c.opens.Add(1)
	case vfs.OpRead:
		if !strings.Contains(name, "/journal/") {
			c.reads.Add(1)
		}
	case vfs.OpReadDir:
		c.lists.Add(1)
	default: // not counted
	}
	return nil
}

// TestCloseMany proves that a store with thousands of freshly written logs, durable and page-cached
// ones, closes with a handful of syncs. The next start looks at none of these logs, and after a
// power cut all of them have their records.
func TestCloseMany(t *testing.T) {
	const n = 3000
	mem := vfs.NewMem()
	var c calls
	cfg := testConfig(vfs.NewFaulty(mem, c.hook), "data")
	cfg.Journal = 16 << 20
	s := openStore(t, cfg)
	for i := range n {
		o := testOptions()
		if i%3 == 0 {
			o.FlushMessages = 1 << 40
		}
		l := testLog(s, i, o)
		mustAppend(t, l, batch(t, i, 1, 100))
		mustAppend(t, l, produced(t, int64(i), 0, 0, 1))
	}
	s.Commit()
	c.syncs.Store(0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.syncs.Load(); got > 20 {
		t.Errorf("closing %d logs took %d syncs", n, got)
	}
	c.opens.Store(0)
	c.reads.Store(0)
	c.lists.Store(0)
	c.logs.Store(0)
	cfg.FS, cfg.BootID = vfs.NewFaulty(mem.Crash(rand.New(rand.NewPCG(1, 1))), c.hook), "another boot"
	s = openStore(t, cfg)
	if opens, reads, lists := c.opens.Load(), c.reads.Load(), c.lists.Load(); opens+reads+lists > 60 {
		t.Errorf("a start after a clean stop opened %d files, read %d times and listed %d directories", opens, reads, lists)
	}
	if got := c.logs.Load(); got > 0 {
		t.Errorf("a start after a clean stop looked %d times into the logs' directories", got)
	}
	for i := range n {
		l := testLog(s, i, testOptions())
		if got := readAll(t, l, 0, 1<<20); len(got) != 2 || values(t, got[:1])[0] != i {
			t.Fatalf("log %d has %d batches", i, len(got))
		}
		if it := appendOne(t, l, produced(t, int64(i), 0, 0, 1)); !it.Dup || it.Base != 1 {
			t.Fatalf("log %d does not know its producer's batch: %+v", i, it)
		}
	}
}

// TestVolumeFails proves that each log is synced by itself if a sync of the volume fails. Logs
// whose files could be written go on, and the others report that theirs could not.
func TestVolumeFails(t *testing.T) {
	const n, bad = 10, 3
	mem := vfs.NewMem()
	var failing atomic.Bool
	hook := func(op vfs.Op, path string) error {
		if failing.Load() && op == vfs.OpSync && (path == "data" || path == fmt.Sprintf("data/topic-%d/%s", bad, segment.FileName(0, segment.LogSuffix))) {
			return errBadDisk
		}
		return nil
	}
	cfg := testConfig(vfs.NewFaulty(keeping{mem}, hook), "data")
	cfg.SyncTogether = 2
	s := openStore(t, cfg)
	var logs []*Log
	for i := range n {
		logs = append(logs, testLog(s, i, testOptions()))
		mustAppend(t, logs[i], batch(t, i, 1, 100))
	}
	s.Commit()
	failing.Store(true)
	s.keeper.checkpointNow()
	failing.Store(false)
	for i, l := range logs {
		if got, want := l.Fault() != nil, i == bad; got != want {
			t.Errorf("log %d: fault %v", i, l.Fault())
		}
	}
	if s.keeper.previous.Round != 1 {
		t.Error("the journal gives back the rounds that it alone has")
	}
	if s.volume.isUsable() {
		t.Error("a volume that failed is relied on")
	}
}

// TestVolumeAfterFailedSync proves that no sync of the volume is relied on if a sync of a directory
// has failed before it or meanwhile. A log whose directory's name is lost reports that, and no
// point says that the directory is there.
func TestVolumeAfterFailedSync(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		t.Run(fmt.Sprintf("meanwhile=%v", meanwhile), func(t *testing.T) {
			mem := vfs.NewMem()
			var failing atomic.Bool
			var s *Store
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				switch {
				case failing.Load() && op == vfs.OpSyncDir && path == "data":
					failing.Store(false)
					return errBadDisk
				case failing.Load() && meanwhile && op == vfs.OpSync && path == "data":
					if err := s.dirs.syncNames(); err == nil {
						t.Error("the sync of the directory did not fail")
					}
				default:
				}
				return nil
			}), "data")
			cfg.SyncTogether = 2
			s = quietStore(t, cfg)
			var logs []*Log
			for i := range 3 {
				logs = append(logs, testLog(s, i, testOptions()))
				mustAppend(t, logs[i], batch(t, 0, 1, 100))
			}
			s.Commit()
			failing.Store(true)
			if !meanwhile {
				if err := s.dirs.syncNames(); err == nil {
					t.Error("the sync of the directory did not fail")
				}
			}
			s.keeper.checkpointNow()
			for i, l := range logs {
				if l.Fault() == nil {
					t.Errorf("log %d was called durable", i)
				}
			}
			if s.volume.isUsable() {
				t.Error("the volume is relied on after a sync that failed")
			}
			cfg.FS = mem.Crash(rand.New(rand.NewPCG(1, 36)))
			cfg.BootID += "'"
			s = quietStore(t, cfg)
			for i := range logs {
				expectValues(t, testLog(s, i, testOptions()), 1)
			}
		})
	}
}

// keeping is a memory file system that keeps the bytes that a sync of the volume failed to write,
// so that a test can choose which files fail.
type keeping struct{ *vfs.Mem }

// BenchmarkClose closes a store of 5,000 logs that have one unsynced record each, by a sync of the
// volume or file by file.
func BenchmarkClose(b *testing.B) {
	for _, whole := range []bool{true, false} {
		b.Run(fmt.Sprintf("volume=%v", whole), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				cfg := testConfig(vfs.OS{}, b.TempDir())
				cfg.Journal, cfg.CheckpointEvery = 64<<20, time.Hour
				s, err := Open(cfg)
				if err != nil {
					b.Fatal(err)
				}
				if !whole {
					s.volume.closeVolume()
				}
				items := []Item{{Batch: batch(b, 0, 1, 1<<10)}}
				for i := range 5000 {
					l := testLog(s, i, testOptions())
					if l.Append(1, items); items[0].Err != nil {
						b.Fatal(items[0].Err)
					}
				}
				s.Commit()
				b.StartTimer()
				if err := s.Close(); err != nil && !errors.Is(err, ErrClosed) {
					b.Fatal(err)
				}
			}
		})
	}
}
