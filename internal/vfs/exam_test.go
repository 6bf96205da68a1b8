package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExam proves that every implementation keeps the promises of the interfaces.
func TestExam(t *testing.T) {
	for name, fsys := range map[string]interface {
		FS
		Locker
		Linker
	}{
		"OS": OS{}, "Mem": NewMem(), "Faulty": NewFaulty(NewMem(), func(Op, string) error { return nil }),
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
			t.Run("names", func(t *testing.T) { examNames(t, fsys, dir+"/names") })
			t.Run("links", func(t *testing.T) { examLinks(t, fsys, dir+"/links") })
			t.Run("handles", func(t *testing.T) { examHandles(t, fsys, dir+"/handles") })
			t.Run("lock", func(t *testing.T) { examLock(t, fsys, dir+"/lock") })
			t.Run("volume", func(t *testing.T) { examVolume(t, fsys, dir+"/volume") })
			t.Run("concurrency", func(t *testing.T) { examConcurrency(t, fsys, dir+"/busy") })
		})
	}
}

// examVolume proves that a volume can be synced and closed. TestVolume proves the effect.
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
	for _, mode := range []Mode{Fresh, Secret} {
		for _, name := range []string{"/f", fmt.Sprint("/new", mode)} {
			f := open(t, fsys, dir+name, mode)
			if got := text(t, f); got != "" {
				t.Errorf("fresh file has %q", got)
			}
			_, err := f.WriteAt([]byte("x"), 0)
			must(t, err)
			must(t, f.Close())
		}
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

// examParts writes more buffers than one system call takes.
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
		if diff := cmp.Diff(want, list(t, fsys, dir)); diff != "" {
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

// examNames proves that a name of 255 bytes is good everywhere, and one of 256 nowhere.
func examNames(t *testing.T, fsys FS, dir string) {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	good, bad := strings.Repeat("n", 255), strings.Repeat("n", 256)
	must(t, fsys.MkdirAll(dir+"/"+good))
	write(t, fsys, dir+"/"+good+"/"+good, "hello")
	must(t, fsys.Rename(dir+"/"+good+"/"+good, dir+"/f"))
	must(t, fsys.Rename(dir+"/f", dir+"/"+good+"/"+good))
	if got := text(t, openUntilEnd(t, fsys, dir+"/"+good+"/"+good, ReadOnly)); got != "hello" {
		t.Errorf("under a name of 255 bytes: %q", got)
	}
	write(t, fsys, dir+"/f", "")
	for _, name := range []string{dir + "/" + bad, dir + "/" + bad + "/f"} {
		for what, err := range map[string]error{
			"open": second(fsys.Open(name, ReadOnly)), "create": second(fsys.Open(name, Create)),
			"mkdir": fsys.MkdirAll(name), "rename to": fsys.Rename(dir+"/f", name), "rename from": fsys.Rename(name, dir+"/g"),
			"list": second(fsys.ReadDir(name)), "stat": second(fsys.Stat(name)), "sync": fsys.SyncDir(name),
		} {
			if err == nil || runtime.GOOS != "windows" && !errors.Is(err, syscall.ENAMETOOLONG) {
				t.Errorf("%s: a name of 256 bytes: %v", what, err)
			}
		}
	}
	if diff := cmp.Diff([]Info{{"f", 0, false}, {good, 0, true}}, list(t, fsys, dir)); diff != "" {
		t.Errorf("refused calls left something: %s", diff)
	}
}

// examLinks proves that two names of a file stand for the same bytes, that these stay until the last name is gone, and
// that no name of another file is taken.
func examLinks(t *testing.T, fsys interface {
	FS
	Linker
}, dir string,
) {
	t.Helper()
	must(t, fsys.MkdirAll(dir+"/sub"))
	write(t, fsys, dir+"/f", "hello")
	must(t, fsys.Link(dir+"/f", dir+"/sub/g"))
	f := open(t, fsys, dir+"/f", Existing)
	_, err := f.WriteAt([]byte("J"), 0)
	must(t, err)
	must(t, f.Close())
	must(t, fsys.Remove(dir+"/f"))
	if got := text(t, openUntilEnd(t, fsys, dir+"/sub/g", ReadOnly)); got != "Jello" {
		t.Errorf("under the name that is left: %q", got)
	}
	write(t, fsys, dir+"/f", "")
	for what, err := range map[string]error{
		"a taken name": fsys.Link(dir+"/f", dir+"/sub/g"), "a missing file": fsys.Link(dir+"/none", dir+"/h"),
		"a directory": fsys.Link(dir+"/sub", dir+"/h"), "a missing directory": fsys.Link(dir+"/f", dir+"/none/h"),
	} {
		if err == nil {
			t.Errorf("a link of %s is made", what)
		}
	}
	if diff := cmp.Diff([]Info{{"f", 0, false}, {"sub", 0, true}}, list(t, fsys, dir)); diff != "" {
		t.Errorf("refused calls left something: %s", diff)
	}
}

// examHandles proves that with as many files open as may be, calls that open one
// fail and change nothing, all others succeed, and closing one file ends it.
func examHandles(t *testing.T, fsys interface {
	FS
	Locker
}, dir string,
) {
	t.Helper()
	must(t, fsys.MkdirAll(dir+"/full/sub"))
	write(t, fsys, dir+"/f", "hello")
	write(t, fsys, dir+"/g", "")
	before := list(t, fsys, dir)
	limitHandles(t, fsys)
	var files []File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var err error
	for err == nil && len(files) < 1000 {
		var f File
		if f, err = fsys.Open(dir+"/f", Existing); err == nil {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		t.Fatalf("not one file can be opened: %v", err)
	}
	volume := ErrNoHandles // where there are none
	if v, ok := fsys.(Volumer); ok {
		if _, volume = v.Volume(dir); errors.Is(volume, ErrNoVolume) {
			volume = ErrNoHandles
		}
	}
	for what, err := range map[string]error{
		"open": err, "create": second(fsys.Open(dir+"/new", Create)), "empty": second(fsys.Open(dir+"/f", Fresh)),
		"list": second(fsys.ReadDir(dir)), "sync": fsys.SyncDir(dir), "lock": second(fsys.Lock(dir + "/lock")),
		"remove a full directory": fsys.Remove(dir + "/full"), "volume": volume,
	} {
		if !errors.Is(err, ErrNoHandles) {
			t.Errorf("%s without a handle: %v", what, err)
		}
	}
	if _, err := fsys.Stat(dir + "/f"); err != nil {
		t.Error(err)
	}
	must(t, fsys.Rename(dir+"/g", dir+"/h"))
	must(t, fsys.Rename(dir+"/h", dir+"/g"))
	must(t, fsys.MkdirAll(dir+"/gone/sub"))
	must(t, fsys.Remove(dir+"/gone/sub"))
	must(t, fsys.Remove(dir+"/gone"))
	_, err = files[0].WriteAt([]byte("H"), 0)
	must(t, err)
	if got := text(t, files[0]); got != "Hello" {
		t.Errorf("the open file has %q", got)
	}
	must(t, files[0].Sync())
	must(t, files[0].Close())
	files = files[1:]
	if diff := cmp.Diff(before, list(t, fsys, dir)); diff != "" {
		t.Errorf("calls that failed changed something: %s", diff)
	}
	again := open(t, fsys, dir+"/f", Existing)
	must(t, again.Close())
}

// limitMemHandles lets few more files be opened on a Mem, or on one that Faulty wraps.
func limitMemHandles(t *testing.T, fsys FS) {
	t.Helper()
	if f, ok := fsys.(*Faulty); ok {
		fsys = f.fs
	}
	m, ok := fsys.(*Mem)
	if !ok {
		t.Fatalf("BUG: no way to limit the handles of a %T", fsys)
	}
	m.LimitHandles(m.Handles() + 5)
	t.Cleanup(func() { m.LimitHandles(math.MaxInt) })
}

func list(t *testing.T, fsys FS, dir string) []Info {
	t.Helper()
	infos, err := fsys.ReadDir(dir)
	must(t, err)
	return infos
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
	must(t, l.Close(), true)
	l, err = fsys.Lock(dir + "/l")
	must(t, err)
	must(t, l.Close())
}

// examConcurrency has writers and readers share a file, under the race detector, and
// checks the bytes.
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

// must fails the test on an error or, if wanted is true, without one.
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

// openUntilEnd opens a file for as long as the test runs.
func openUntilEnd(t *testing.T, fsys FS, name string, mode Mode) File {
	t.Helper()
	f := open(t, fsys, name, mode)
	t.Cleanup(func() { f.Close() })
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
