package storage

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestThaw proves that a recovery which finds the disk full holds back only the logs
// that lack records, says why, keeps the journal that has them, also over checkpoints,
// other logs' commits and another power cut, and goes on by itself when there is room.
func TestThaw(t *testing.T) {
	for name, again := range map[string]bool{"room comes": false, "another power cut first": true} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { thawRun(t, again) }) })
	}
}

func thawRun(t *testing.T, again bool) {
	t.Helper()
	mem := vfs.NewMem()
	mem.SetFree(10_000_000)
	cfg := testConfig(mem, "data")
	cfg.CheckpointEvery = time.Second
	s := openStore(t, cfg)
	settle := func() { // checkpoints are made, recovery is tried again
		time.Sleep(3 * thawEvery)
		synctest.Wait()
	}
	const whole = 5
	for n := range 3 { // each of the two lacking logs has some records in its file, too
		for i := range 2 {
			mustAppend(t, testLog(s, i, testOptions()), batch(t, n, 1, 5000))
		}
		s.Commit()
		if n == 0 {
			mustAppend(t, testLog(s, whole, testOptions()), batch(t, 0, 1, 5000))
			s.Commit()
			settle()
		}
	}
	needed := s.journal.base.Load()
	boot := func(name string) {
		cfg.FS, cfg.BootID = mem, name
		var err error
		if s, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	mem = mem.Crash(rand.New(rand.NewPCG(1, 7)))
	cutTo(t, mem, 0, 1)
	cutTo(t, mem, 1, 1)
	mem.SetFree(0)
	boot("second")
	waits := func() {
		for i := range 2 {
			l := testLog(s, i, testOptions())
			if _, err := l.End(); !errors.Is(err, ErrDiskFull) {
				t.Errorf("log %d: %v", i, err)
			}
			if it := appendOne(t, l, batch(t, 3, 1, 10)); !errors.Is(it.Err, ErrDiskFull) {
				t.Errorf("an append to log %d: %v", i, it.Err)
			}
		}
		expectValues(t, testLog(s, whole, testOptions()), 1)
		s.keeper.again()
		settle()
		if at := s.journal.base.Load(); at != needed {
			t.Errorf("recovery would begin with round %d, and round %d is needed", at, needed)
		}
	}
	waits()
	waits() // it has tried, in vain
	if again {
		next := mem.Crash(rand.New(rand.NewPCG(2, 7)))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		mem = next
		mem.SetFree(0)
		boot("third")
		waits()
	}
	mem.SetFree(9_000_000)
	settle()
	check := func(n int) {
		for i := range 2 {
			expectValues(t, testLog(s, i, testOptions()), n)
			mustAppend(t, testLog(s, i, testOptions()), batch(t, n, 1, 100))
		}
		s.Commit()
	}
	check(3)
	next := mem.Crash(rand.New(rand.NewPCG(3, 7)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.journal.isPinned() {
		t.Error("the journal is still held")
	}
	mem = next
	boot("last")
	check(4)
	expectValues(t, testLog(s, whole, testOptions()), 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// cutTo leaves the first n batches of a log in its file, as a power cut may.
func cutTo(t *testing.T, mem *vfs.Mem, i, n int) {
	t.Helper()
	f, err := mem.Open("data/"+dirName("topic", int32(i))+"/"+fileName(0, logSuffix), vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(n * batch(t, 0, 1, 5000).Size())
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
