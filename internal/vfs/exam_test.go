package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExam proves that every implementation does what the interfaces promise.
func TestExam(t *testing.T) {
	for name, fsys := range map[string]interface {
		FS
		Locker
	}{
		"OS": OS{}, "Mem": NewMem(),
		"Faulty": NewFaulty(NewMem(), func(Op, string) error { return nil }),
	} {
		t.Run(name, func(t *testing.T) {
			dir := "a/b"
			if name == "OS" {
				dir = filepath.ToSlash(t.TempDir())
			} else if err := fsys.MkdirAll(dir); err != nil {
				t.Fatal(err)
			}
			t.Run("modes", func(t *testing.T) { examModes(t, fsys, dir+"/modes") })
			t.Run("bytes", func(t *testing.T) { examBytes(t, fsys, dir+"/bytes") })
			t.Run("parts", func(t *testing.T) { examParts(t, fsys, dir+"/parts") })
			t.Run("directories", func(t *testing.T) { examDirectories(t, fsys, dir+"/dirs") })
			t.Run("lock", func(t *testing.T) { examLock(t, fsys, dir+"/lock") })
			t.Run("volume", func(t *testing.T) { examVolume(t, fsys, dir+"/volume") })
			t.Run("concurrency", func(t *testing.T) { examConcurrency(t, fsys, dir+"/busy") })
		})
	}
}

// examVolume syncs all there is; what that is good for, TestVolume shows.
func examVolume(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	volumes, ok := fsys.(Volumer)
	if !ok {
		t.Skip("it has none on this system")
	}
	v, err := volumes.Volume(dir)
	if errors.Is(err, ErrNoVolume) {
		t.Skip(err)
	}
	must(t, err)
	write(t, fsys, dir+"/f", "hello")
	must(t, v.Sync())
	must(t, v.Close())
}

func examModes(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	for _, mode := range []Mode{Existing, ReadOnly} {
		if _, err := fsys.Open(dir+"/none", mode); !errors.Is(err, ErrNotExist) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mode %d of a missing file: %v", mode, err)
		}
	}
	if _, err := fsys.Open(dir+"/none/f", Create); !errors.Is(err, ErrNotExist) {
		t.Errorf("create without a parent: %v", err)
	}
	write(t, fsys, dir+"/f", "hello")
	for _, mode := range []Mode{Existing, ReadOnly, Create} {
		f := open(t, fsys, dir+"/f", mode)
		if got := text(t, f); got != "hello" {
			t.Errorf("mode %d: %q", mode, got)
		}
		if _, err := f.WriteAt([]byte("H"), 0); (err != nil) != (mode == ReadOnly) {
			t.Errorf("write in mode %d: %v", mode, err)
		}
		must(t, f.Truncate(5), mode == ReadOnly)
		_, err := f.WriteAt([]byte("h"), 0)
		must(t, err, mode == ReadOnly)
		must(t, f.Close())
		if err := f.Close(); err == nil {
			t.Error("a second Close did not fail")
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("read of a closed file: %v", err)
		}
	}
	f := open(t, fsys, dir+"/f", Fresh)
	defer f.Close()
	if got := text(t, f); got != "" {
		t.Errorf("fresh file has %q", got)
	}
}

func examBytes(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	f := open(t, fsys, dir+"/f", Create)
	defer f.Close()
	_, err := f.WriteAt([]byte("abc"), 4)
	must(t, err)
	if got, want := text(t, f), "\x00\x00\x00\x00abc"; got != want {
		t.Errorf("a hole: %q, want %q", got, want)
	}
	b := make([]byte, 10)
	if n, err := f.ReadAt(b, 5); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	if n, err := f.ReadAt(b, 100); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read beyond the end: %d, %v", n, err)
	}
	must(t, f.Truncate(5))
	must(t, f.Truncate(7))
	if got, want := text(t, f), "\x00\x00\x00\x00a\x00\x00"; got != want {
		t.Errorf("cut and grown: %q, want %q", got, want)
	}
	must(t, f.Allocate(2, 3)) // inside: nothing changes
	must(t, f.Allocate(0, 9))
	if got, want := text(t, f), "\x00\x00\x00\x00a\x00\x00\x00\x00"; got != want {
		t.Errorf("allocated: %q, want %q", got, want)
	}
	must(t, f.Sync())
	info, err := fsys.Stat(dir + "/f")
	must(t, err)
	if diff := cmp.Diff(Info{Name: "f", Size: 9}, info); diff != "" {
		t.Error(diff)
	}
}

// examParts writes more parts than one call of the system takes.
func examParts(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	f := open(t, fsys, dir+"/f", Create)
	defer f.Close()
	var bufs [][]byte
	want := []byte("head")
	for i := range 3000 {
		b := bytes.Repeat([]byte{byte(i)}, i%7)
		bufs = append(bufs, b)
		want = append(want, b...)
	}
	_, err := f.WriteAt([]byte("headOVERWRITTEN"), 0)
	must(t, err)
	n, err := f.WriteVAt(bufs, 4)
	if err != nil || n != int64(len(want)-4) {
		t.Fatalf("wrote %d of %d: %v", n, len(want)-4, err)
	}
	if !bytes.Equal([]byte(text(t, f)), want) {
		t.Error("other bytes are read than were written")
	}
	for i, b := range bufs {
		if !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, i%7)) {
			t.Fatal("WriteVAt changed its argument")
		}
	}
	if n, err := f.WriteVAt(nil, 0); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
}

func examDirectories(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir+"/x/y"))
	must(t, fsys.MkdirAll(dir+"/x/y"))
	write(t, fsys, dir+"/x/y/1", "one")
	write(t, fsys, dir+"/x/2", "two")
	write(t, fsys, dir+"/x/3", "three")
	list := func(dir string, want ...Info) {
		t.Helper()
		got, err := fsys.ReadDir(dir)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	list(dir+"/x", Info{"2", 3, false}, Info{"3", 5, false}, Info{"y", 0, true})
	must(t, fsys.Rename(dir+"/x/3", dir+"/x/2"))
	list(dir+"/x", Info{"2", 5, false}, Info{"y", 0, true})
	must(t, fsys.Rename(dir+"/x/y", dir+"/z"))
	list(dir, Info{"x", 0, true}, Info{"z", 0, true})
	list(dir+"/z", Info{"1", 3, false})
	must(t, fsys.SyncDir(dir+"/z"))
	must(t, fsys.SyncDir(dir))

	// A file that is open stays readable whatever becomes of its name.
	f := open(t, fsys, dir+"/x/2", ReadOnly)
	must(t, fsys.Remove(dir+"/x"))
	must(t, fsys.Remove(dir+"/x"))
	if got := text(t, f); got != "three" {
		t.Errorf("a removed file reads %q", got)
	}
	must(t, f.Close())
	list(dir, Info{"z", 0, true})
	for what, err := range map[string]error{
		"rename": fsys.Rename(dir+"/x", dir+"/y"), "sync": fsys.SyncDir(dir + "/x"),
		"list": second(fsys.ReadDir(dir + "/x")), "stat": second(fsys.Stat(dir + "/x")),
	} {
		if !errors.Is(err, ErrNotExist) {
			t.Errorf("%s of what is missing: %v", what, err)
		}
	}
	if err := fsys.MkdirAll(dir + "/z/1/2"); err == nil {
		t.Error("a directory was made below a file")
	}
	avail, total, err := fsys.Free(dir)
	if err != nil || avail <= 0 || total < avail {
		t.Errorf("free: %d of %d, %v", avail, total, err)
	}
}

func examLock(t *testing.T, fsys interface {
	FS
	Locker
}, dir string,
) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	l, err := fsys.Lock(dir + "/l")
	must(t, err)
	if _, err := fsys.Lock(dir + "/l"); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second lock: %v", err)
	}
	must(t, l.Close())
	l, err = fsys.Lock(dir + "/l")
	must(t, err)
	must(t, l.Close())
}

// examConcurrency lets writers and readers share a file; the race detector and
// the bytes tell.
func examConcurrency(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	f := open(t, fsys, dir+"/f", Create)
	defer f.Close()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			b := bytes.Repeat([]byte{byte('a' + w)}, 100)
			for i := range 50 {
				off := int64((i*4 + w) * 100)
				if _, err := f.WriteVAt([][]byte{b[:30], b[30:]}, off); err != nil {
					t.Error(err)
				}
				got := make([]byte, 100)
				if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, b) {
					t.Errorf("%q, %v", got, err)
				}
				write(t, fsys, dir+"/"+string(b[:1]), "x")
			}
		})
	}
	wg.Wait()
	if n, err := f.Size(); n != 4*50*100 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
}

// must fails the test on an error, or without one where it was wanted.
func must(t *testing.T, err error, wanted ...bool) {
	t.Helper()
	if (err != nil) != (len(wanted) > 0 && wanted[0]) {
		t.Fatalf("error: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func open(t *testing.T, fsys FS, name string, mode Mode) File {
	t.Helper()
	f, err := fsys.Open(name, mode)
	must(t, err)
	return f
}

func write(t *testing.T, fsys FS, name, data string) {
	t.Helper()
	f := open(t, fsys, name, Fresh)
	defer f.Close()
	_, err := f.WriteAt([]byte(data), 0)
	must(t, err)
}

func text(t *testing.T, f File) string {
	t.Helper()
	n, err := f.Size()
	must(t, err)
	b := make([]byte, n)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	return string(b)
}
