package journal

import (
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// forgetful is a file system of which one file's first sync fails. After that no sync of the
// file does anything, as on a system that counts what it could not write as clean.
type forgetful struct {
	vfs.FS
	name   string
	failed atomic.Bool
}

func (f *forgetful) Open(name string, mode vfs.Mode) (vfs.File, error) {
	file, err := f.FS.Open(name, mode)
	if err != nil || name != f.name {
		return file, err
	}
	return &forgetfulFile{file, f}, nil
}

type forgetfulFile struct {
	vfs.File
	fs *forgetful
}

func (f *forgetfulFile) Sync() error {
	if !f.fs.failed.Swap(true) {
		return syscall.EIO
	}
	return nil
}

// TestFailedFill proves that no round goes into a file of the ring of which a sync failed while
// it was filled, and that the failure is told to the one who has to take notice of it.
func TestFailedFill(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data"); err != nil {
		t.Fatal(err)
	}
	if err := mem.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	disk := &forgetful{FS: mem, name: "data/journal/0000.ring"}
	cfg := testConfig(disk)
	told := 0
	cfg.Sync = func(f vfs.File) error {
		err := f.Sync()
		if err != nil {
			told++
		}
		return err
	}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	j.Start()
	j.AllowWrites()
	j.Fill(new(atomic.Bool))
	if !disk.failed.Load() || told != 1 {
		t.Fatalf("a sync failed: %v; it was told of %d times", disk.failed.Load(), told)
	}
	j.Fill(new(atomic.Bool)) // it goes on with the others
	const writes = 3 * ringFiles
	for i := range writes {
		var m Image
		m.Add(Part{Kind: Bytes, Dir: "topic-0", Pos: int64(i)}, [][]byte{{byte(i)}}, j.RoundSize)
		if err := j.Write(&m); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(5) {
		after, err := Open(testConfig(mem.Crash(rand.New(rand.NewPCG(seed, 8)))))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		if _, err := after.Scan(Mark{Round: 1}, false, func(*Round) error { found++; return nil }); err != nil {
			t.Fatal(err)
		}
		if found != writes {
			t.Errorf("seed %d: %d of %d writes are found after a power cut", seed, found, writes)
		}
		after.Close()
	}
}

// TestFailedWriteOfFill proves that no round goes into a file of the ring into which zeros could not be
// written, unless the disk had no room for them.
func TestFailedWriteOfFill(t *testing.T) {
	for cause, isUsed := range map[error]bool{syscall.EIO: false, vfs.ErrNoSpace: true} {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("data"); err != nil {
			t.Fatal(err)
		}
		const bad = "data/journal/0000.ring"
		failed, used := false, false
		cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
			if op != vfs.OpWrite || name != bad {
				return nil
			}
			if used = failed; failed {
				return nil
			}
			failed = true
			return cause
		}))
		j, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		j.Start()
		j.AllowWrites()
		j.Fill(new(atomic.Bool))
		if !failed {
			t.Fatal("no write failed")
		}
		for i := range ringFiles {
			var m Image
			m.Add(Part{Kind: Bytes, Dir: "topic-0", Pos: int64(i)}, [][]byte{{byte(i)}}, j.RoundSize)
			if err := j.Write(&m); err != nil {
				t.Fatal(err)
			}
		}
		if used != isUsed {
			t.Errorf("%v: rounds go into the file: %v", cause, used)
		}
		j.Close()
	}
}
