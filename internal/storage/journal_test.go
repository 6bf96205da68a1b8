package storage

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// rounds are the positions of the rounds in a ring file.
func rounds(t *testing.T, f vfs.File) []int64 {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	var at []int64
	var b [4]byte
	for pos := int64(0); pos < size; pos += journalBlock {
		if _, err := f.ReadAt(b[:], pos); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if be.Uint32(b[:]) == roundMagic {
			at = append(at, pos)
		}
	}
	return at
}

// TestHalfCommit proves that a commit whose last round was lost in a power cut is
// not played back at all: half a batch of it must not lie where the next run
// appends. And that one that is whole comes back with all its rounds, also behind
// one that is not.
func TestHalfCommit(t *testing.T) {
	for name, lost := range map[string]bool{"whole": false, "half": true} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(vfs.NewMem(), "data")
			cfg.Journal = ringFiles * 16 * journalBlock
			s := openStore(t, cfg)
			appendOne(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
			mustAppend(t, testLog(s, 1, testOptions()), batch(t, 0, 1, 5*journalBlock))
			mustAppend(t, testLog(s, 1, testOptions()), batch(t, 1, 1, 5*journalBlock))
			s.Commit()
			mem, _ := cfg.FS.(*vfs.Mem)
			mem = mem.KillClone(nil)
			ring, err := mem.Open("data/journal/0000.ring", vfs.Existing)
			if err != nil {
				t.Fatal(err)
			}
			at := rounds(t, ring)
			if len(at) != 2 {
				t.Fatalf("rounds at %d, want two", at)
			}
			if lost {
				if _, err := ring.WriteAt(zeros[:], at[1]); err != nil {
					t.Fatal(err)
				}
			}
			size := dropLogs(t, mem, 2)
			cfg.FS, cfg.BootID = mem, "after the power cut"
			s = openStore(t, cfg)
			for i := range 2 {
				info, err := mem.Stat(s.path(dirName("topic", int32(i)), fileName(0, logSuffix)))
				if err != nil {
					t.Fatal(err)
				}
				if want := size[i]; !lost && info.Size != want || lost && info.Size != 0 {
					t.Errorf("log %d: %d bytes were played back, of %d", i, info.Size, want)
				}
			}
			if !lost {
				expectValues(t, testLog(s, 1, testOptions()), 2)
				return
			}
			for i := range 2 { // what is committed next follows the half one in the journal
				mustAppend(t, testLog(s, i, testOptions()), batch(t, 0, 3, 50))
			}
			s.Commit()
			mem = mem.KillClone(nil)
			dropLogs(t, mem, 2)
			cfg.FS, cfg.BootID = mem, "after another one"
			s = openStore(t, cfg)
			for i := range 2 {
				expectValues(t, testLog(s, i, testOptions()), 3)
			}
		})
	}
}

// dropLogs takes away what the first n logs have in their files, and returns how
// much that was.
func dropLogs(t *testing.T, mem *vfs.Mem, n int) []int64 {
	t.Helper()
	var sizes []int64
	for i := range n {
		f, err := mem.Open("data/"+dirName("topic", int32(i))+"/"+fileName(0, logSuffix), vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err = errors.Join(err, f.Truncate(0), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, size)
	}
	return sizes
}

// TestJournalOnDisk proves on a real file system, where rounds are written around
// the page cache, that what was committed can be made again from the journal alone:
// batches that their appends copied into a round, and those that were too large for
// it and were read back.
func TestJournalOnDisk(t *testing.T) {
	cfg := testConfig(vfs.OS{}, t.TempDir())
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.background = func(fn func()) { fn() }
	const logs = 3
	room := s.journal.roundSize
	want := make([]int, logs)
	commit := func(sizes ...int) {
		for i, size := range sizes {
			mustAppend(t, testLog(s, i, testOptions()), batch(t, want[i], 1, size))
			want[i]++
		}
		s.Commit()
	}
	commit(10, 20, 30)
	s.journal.fill()
	for first := s.journal.current; s.journal.current == first; { // it was not filled; the next one is
		commit(room/4, 100, room/4)
	}
	if d := s.journal.current.direct; d == nil || d == s.journal.current.f {
		t.Log("the file system has no direct writes")
	}
	commit(10, 5000, 3*journalBlock)
	commit(room/2, room, 100)
	commit(2*room, 10, 2*room)
	commit(1)
	s.journal.close()
	s.files.closeAll()
	for i := range logs {
		path := s.path(dirName("topic", int32(i)), fileName(0, logSuffix))
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	cfg.BootID = "after the power cut"
	s = openStore(t, cfg)
	for i := range logs {
		expectValues(t, testLog(s, i, testOptions()), want[i])
	}
}

// TestReadOnce proves that after a kill, where the files have all that was written,
// recovery reads and writes each round once, and that of rounds that only an older
// checkpoint needs it reads no more than the heads.
func TestReadOnce(t *testing.T) {
	mem := vfs.NewMem()
	var reads, writes atomic.Int64
	hook := func(op vfs.Op, path string) error {
		switch {
		case !strings.HasSuffix(path, ringSuffix):
		case op == vfs.OpRead:
			reads.Add(1)
		case op == vfs.OpWrite:
			writes.Add(1)
		}
		return nil
	}
	cfg := testConfig(mem, "data")
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.background = func(fn func()) { fn() }
	const rounds = 40
	commit := func() {
		for i := range rounds {
			mustAppend(t, testLog(s, 0, testOptions()), batch(t, i, 1, 100))
			s.Commit()
		}
	}
	for range 2 {
		commit()
		s.keeper.checkpointNow()
	}
	commit()
	fallen := mem.KillClone(nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.FS = vfs.NewFaulty(fallen, hook)
	s = openStore(t, cfg)
	const files = 16 // looked into for the round that is missing
	if n := reads.Load(); n < 3*rounds || n > 3*rounds+2*files {
		t.Errorf("%d reads of %d rounds' heads and %d rounds", n, rounds, rounds)
	}
	if n := writes.Load(); n != rounds {
		t.Errorf("%d writes of %d rounds", n, rounds)
	}
	l := testLog(s, 0, testOptions())
	if end, err := l.End(); err != nil || end != 3*rounds {
		t.Errorf("the log ends at %d: %v", end, err)
	}
}
