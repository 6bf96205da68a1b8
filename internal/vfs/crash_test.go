package vfs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// crashes collects the contents that a file has after many power cuts; "-" means that it
// is missing.
func crashes(m *Mem, name string) map[string]int {
	seen := map[string]int{}
	for seed := range uint64(400) {
		after := m.Crash(rand.New(rand.NewPCG(seed, 1)))
		f, err := after.Open(name, ReadOnly)
		if err != nil {
			seen["-"]++
			continue
		}
		n, _ := f.Size()
		b := make([]byte, n)
		_, _ = f.ReadAt(b, 0)
		seen[string(b)]++
	}
	return seen
}

func expect(t *testing.T, what string, seen map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("%s: never saw %.20q (%d bytes)", what, w, len(w))
		}
		delete(seen, w)
	}
	for s, n := range seen {
		t.Errorf("%s: saw %.20q (%d bytes) %d times", what, s, len(s), n)
	}
}

// TestCrashNames proves that a name is durable once its directory, and all directories
// above, were synced, and that unsynced changes of names survive in their order.
func TestCrashNames(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d"))
	f := open(t, m, "d/f", Create)
	_, err := f.WriteAt([]byte("x"), 0)
	must(t, err)
	must(t, f.Sync())
	expect(t, "synced file without a synced name", crashes(m, "d/f"), "-", "x")
	must(t, m.SyncDir("d"))
	expect(t, "the directory's own name is not synced", crashes(m, "d/f"), "-", "x")
	must(t, m.SyncDir(""))
	expect(t, "all synced", crashes(m, "d/f"), "x")

	g := open(t, m, "d/g", Create)
	_, err = g.WriteAt([]byte("y"), 0)
	must(t, err)
	must(t, g.Sync())
	must(t, m.Rename("d/g", "d/f"))
	expect(t, "renamed over another file", crashes(m, "d/f"), "x", "y")
	for seed := range uint64(200) {
		after := m.Crash(rand.New(rand.NewPCG(seed, 2)))
		_, gErr := after.Stat("d/g")
		if got := text(t, open(t, after, "d/f", ReadOnly)); gErr == nil && got == "y" {
			t.Fatal("a rename happened by half")
		}
	}
	must(t, m.Remove("d"))
	expect(t, "removed without a sync", crashes(m, "d/f"), "x", "y", "-")
	must(t, m.SyncDir(""))
	expect(t, "removed", crashes(m, "d/f"), "-")
}

// TestCrashRenameAcross proves that syncing one end of a rename between two
// directories makes both ends durable, with what came before it.
func TestCrashRenameAcross(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("a"))
	must(t, m.MkdirAll("b"))
	must(t, m.SyncDir("/"))
	write(t, m, "a/f", "")
	must(t, m.Rename("a/f", "b/f"))
	must(t, m.SyncDir("b"))
	expect(t, "new name", crashes(m, "b/f"), "")
	expect(t, "old name", crashes(m, "a/f"), "-")
}

// TestCrashLinks proves that a second name of a file is durable when its directory was synced, whatever becomes of the
// first one, that a crash leaves the same bytes under both names, and that their space is counted once.
func TestCrashLinks(t *testing.T) {
	m := NewMem()
	m.SetFree(1000)
	must(t, m.MkdirAll("a"))
	must(t, m.MkdirAll("b"))
	f := open(t, m, "a/f", Create)
	_, err := f.WriteAt([]byte("x"), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, m.SyncDir("a"))
	must(t, m.SyncDir(""))
	must(t, m.Link("a/f", "b/g"))
	expect(t, "a second name that is not synced", crashes(m, "b/g"), "-", "x")
	must(t, m.SyncDir("b"))
	_, err = f.WriteAt([]byte("yz"), 0)
	must(t, err)
	for seed := range uint64(100) {
		after := m.Crash(rand.New(rand.NewPCG(seed, 3)))
		one, other := text(t, openUntilEnd(t, after, "a/f", ReadOnly)), text(t, openUntilEnd(t, after, "b/g", ReadOnly))
		if one != other {
			t.Fatalf("after a crash it is %q by one name and %q by the other", one, other)
		}
		if avail, _, _ := after.Free(""); avail != 1000-int64(len(one)) {
			t.Fatalf("%d bytes are free with %q", avail, one)
		}
	}
	must(t, m.Remove("a/f"))
	must(t, m.SyncDir("a"))
	expect(t, "the first name is gone", crashes(m, "a/f"), "-")
	must(t, f.Sync())
	must(t, f.Close())
	expect(t, "the second name", crashes(m, "b/g"), "yz")
	if avail, _, _ := m.Free(""); avail != 998 {
		t.Errorf("%d bytes are free while the second name is there", avail)
	}
	must(t, m.Remove("b/g"))
	if avail, _, _ := m.Free(""); avail != 1000 {
		t.Errorf("%d bytes are free in the end", avail)
	}
}

// TestCrashNamesApart proves that unsynced changes of two directories survive apart
// from each other, those of one in their order, and a rename between them as a whole.
func TestCrashNamesApart(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("a"))
	must(t, m.MkdirAll("b"))
	must(t, m.SyncDir("/"))
	for _, name := range []string{"a/1", "b/1", "a/2", "b/2"} {
		write(t, m, name, "")
	}
	must(t, m.Rename("a/1", "b/moved"))
	seen := map[string]int{}
	for seed := range uint64(2000) {
		after := m.Crash(rand.New(rand.NewPCG(seed, 7)))
		left := ""
		for _, dir := range []string{"a", "b"} {
			for _, f := range list(t, after, dir) {
				left += dir + "/" + f.Name + " "
			}
		}
		seen[left]++
	}
	expect(t, "two directories", seen, "", "a/1 ", "b/1 ", "a/1 b/1 ", "a/1 a/2 ", "b/1 b/2 ", "a/1 b/1 b/2 ", "a/1 a/2 b/1 ",
		"a/1 a/2 b/1 b/2 ", "a/2 b/1 b/2 b/moved ")
}

// TestCrashDirectoryMoves proves that no directory is lost between two places, or ends
// inside of itself, when moves survive apart from each other.
func TestCrashDirectoryMoves(t *testing.T) {
	m := NewMem()
	for _, dir := range []string{"p/a", "y/b", "x"} {
		must(t, m.MkdirAll(dir))
	}
	v, err := m.Volume("")
	must(t, err)
	must(t, v.Sync())
	must(t, m.Rename("p/a", "y/b/a"))
	must(t, m.Rename("y/b/a", "x/a"))
	must(t, m.Rename("y/b", "x/a/b"))
	for seed := range uint64(2000) {
		after, found := m.Crash(rand.New(rand.NewPCG(seed, 8))), map[string]int{}
		var walk func(dir string)
		walk = func(dir string) {
			for _, e := range list(t, after, dir) {
				found[e.Name]++
				walk(dir + "/" + e.Name)
			}
		}
		walk("")
		if found["a"] != 1 || found["b"] != 1 {
			t.Fatalf("seed %d: %v", seed, found)
		}
	}
}

// TestDetach proves that all calls fail while a volume is detached, and that it comes back
// as after a power cut: it has all synced changes, and neither the open files and locks of
// before nor their space.
func TestDetach(t *testing.T) {
	lost := false
	for seed := range uint64(50) {
		m := NewMem()
		m.SetFree(1000)
		must(t, m.MkdirAll("d"))
		must(t, m.SyncDir(""))
		l, err := m.Lock("d/lock")
		must(t, err)
		v, err := m.Volume("d")
		must(t, err)
		f := open(t, m, "d/f", Create)
		_, err = f.WriteAt([]byte("synced"), 0)
		must(t, err)
		must(t, f.Sync())
		must(t, m.SyncDir("d"))
		_, err = f.WriteAt([]byte("SYNCED and more"), 0)
		must(t, err)
		write(t, m, "d/g", "unsynced")

		dead := func(what string) {
			t.Helper()
			for call, err := range map[string]error{
				"read": second(f.ReadAt(make([]byte, 1), 0)), "write": second(f.WriteAt([]byte("x"), 0)), "size": second(f.Size()),
				"truncate": f.Truncate(1), "allocate": f.Allocate(0, 10), "sync": f.Sync(), "sync the volume": v.Sync(),
			} {
				if !errors.Is(err, syscall.EIO) {
					t.Errorf("%s: %s: %v", what, call, err)
				}
			}
		}
		m.Detach()
		dead("torn away")
		for call, err := range map[string]error{
			"open": second(m.Open("d/f", ReadOnly)), "create": second(m.Open("d/h", Create)), "remove": m.Remove("d/f"),
			"rename": m.Rename("d/f", "d/h"), "mkdir": m.MkdirAll("e"), "list": second(m.ReadDir("d")), "stat": second(m.Stat("d/f")),
			"sync": m.SyncDir("d"), "lock": second(m.Lock("d/other")), "volume": second(m.Volume("d")), "lock again": second(m.Lock("d/lock")),
		} {
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("torn away: %s: %v", call, err)
			}
		}
		if _, _, err := m.Free(""); !errors.Is(err, syscall.EIO) {
			t.Errorf("torn away: free: %v", err)
		}
		m.Attach(rand.New(rand.NewPCG(seed, 9)))
		dead("back again")

		got := text(t, openUntilEnd(t, m, "d/f", Existing))
		if !strings.EqualFold(got[:6], "synced") {
			t.Fatalf("%q was synced, %q is there", "synced", got)
		}
		lost = lost || got == "synced"
		again, err := m.Lock("d/lock")
		must(t, err)
		for _, c := range []io.Closer{l, f, v} {
			must(t, c.Close())
		}
		if _, err := m.Lock("d/lock"); !errors.Is(err, ErrLocked) {
			t.Errorf("the dead lock's Close gave the new one back: %v", err)
		}
		must(t, again.Close())
		if m.Handles() != 1 {
			t.Errorf("%d handles are open, want 1", m.Handles())
		}
		must(t, m.Remove("d/g"))
		if avail, total, err := m.Free(""); err != nil || total != 1000 || avail > total-6 || avail < total-15 {
			t.Errorf("%d of %d bytes are free, %v", avail, total, err)
		}
	}
	if !lost {
		t.Error("no outcome lost what was not synced")
	}
}

// TestCrashBytes proves that unsynced bytes survive by sectors, sizes apart from
// them, and that synced ones always do.
func TestCrashBytes(t *testing.T) {
	m := NewMem()
	f := open(t, m, "f", Create)
	must(t, m.SyncDir(""))
	s := func(c string) string { return strings.Repeat(c, sector) }
	_, err := f.WriteAt([]byte(s("a")+s("a")), 0)
	must(t, err)
	must(t, f.Sync())
	expect(t, "synced", crashes(m, "f"), s("a")+s("a"))

	_, err = f.WriteAt([]byte(s("b")+s("b")), 0)
	must(t, err)
	expect(t, "overwritten", crashes(m, "f"), s("a")+s("a"), s("a")+s("b"), s("b")+s("a"), s("b")+s("b"))
	must(t, f.Sync())
	_, err = f.WriteAt([]byte("c"), 2*sector)
	must(t, err)
	expect(t, "grown", crashes(m, "f"), s("b")+s("b"), s("b")+s("b")+"c", s("b")+s("b")+"\x00")
	must(t, f.Sync())
	must(t, f.Truncate(sector))
	must(t, f.Truncate(2*sector))
	_, err = f.WriteAt([]byte("d"), sector)
	must(t, err)
	all := s("b") + s("b") + "c"
	half := "d" + strings.Repeat("\x00", sector-1)
	expect(t, "cut, grown and written", crashes(m, "f"), all, s("b"), s("b")+s("\x00"), s("b")+half)
}

// TestCrashProperty proves for random histories that bytes which were synced, and not
// written since, are always there, and that every other byte is one that the file had at
// that position at some time since the last sync, or a zero of a file that grew.
func TestCrashProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMem()
		f, _ := m.Open("f", Create)
		_ = m.SyncDir("")
		const size = 4 * sector
		var synced []byte
		var could [size]map[byte]bool // since the last sync
		read := func() []byte {
			n, _ := f.Size()
			b := make([]byte, n)
			_, _ = f.ReadAt(b, 0)
			return b
		}
		note := func(reset bool) {
			b := read()
			if reset {
				synced = b
			}
			for i := range could {
				if reset || could[i] == nil {
					could[i] = map[byte]bool{0: i >= len(b)}
				}
				if i < len(b) {
					could[i][b[i]] = true
				} else {
					could[i][0] = true
				}
			}
		}
		note(true)
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0:
				_ = f.Sync()
				note(true)
			case 1:
				_ = f.Truncate(rapid.Int64Range(0, size).Draw(t, "size"))
			case 2:
				_ = f.Allocate(0, rapid.Int64Range(1, size).Draw(t, "size"))
			default:
				off := rapid.IntRange(0, size-1).Draw(t, "off")
				n := rapid.IntRange(1, size-off).Draw(t, "n")
				_, _ = f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, n), int64(off))
			}
			note(false)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		after := m.Crash(rand.New(rand.NewPCG(seed, 3)))
		g, err := after.Open("f", ReadOnly)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := g.Size()
		b := make([]byte, n)
		_, _ = g.ReadAt(b, 0)
		for i, c := range b {
			// A file that grew may have zeros where its old end was.
			if !could[i][c] && (c != 0 || i < len(synced)) {
				t.Fatalf("byte %d is %d; it could be %v", i, c, could[i])
			}
		}
	})
}

// TestKillClone proves that a killed process leaves all bytes that it wrote, synced or
// not, that only its last write can be cut, and that a power cut after the kill can still
// take the bytes that were not synced.
func TestKillClone(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d"))
	f := open(t, m, "d/f", Create)
	_, err := f.WriteAt([]byte("0123456789"), 0)
	must(t, err)
	_, err = f.WriteAt([]byte("abcdef"), 8)
	must(t, err)
	if got := text(t, open(t, m.KillClone(nil), "d/f", ReadOnly)); got != "01234567abcdef" {
		t.Errorf("uncut: %q", got)
	}
	seen := map[string]int{}
	for seed := range uint64(20) {
		after := m.KillClone(rand.New(rand.NewPCG(seed, 4)))
		seen[text(t, open(t, after, "d/f", ReadOnly))]++
		if names := crashes(after, "d/f"); names["-"] == 0 {
			t.Fatal("the clone took unsynced names for durable")
		}
	}
	for seed := range uint64(300) {
		seen[text(t, open(t, m.KillClone(rand.New(rand.NewPCG(seed, 5))), "d/f", ReadOnly))]++
	}
	expect(t, "cut", seen, "0123456789", "01234567a9", "01234567ab", "01234567abc", "01234567abcd",
		"01234567abcde", "01234567abcdef")
	for name, n := range map[string]int{"empty": 0, "refused": 1} { // a later one that wrote nothing
		m := m.KillClone(nil)
		f := open(t, m, "d/f", Existing)
		_, err := f.WriteAt([]byte("gh"), 14)
		must(t, err)
		m.SetFree(0)
		if _, err := f.WriteAt(make([]byte, n), 16); (err != nil) != (n > 0) {
			t.Fatal(err)
		}
		for seed := range uint64(50) {
			if got := text(t, open(t, m.KillClone(rand.New(rand.NewPCG(seed, 7))), "d/f", ReadOnly)); got != "01234567abcdefgh" {
				t.Fatalf("%s: a write that had returned was cut: %q", name, got)
			}
		}
	}
	must(t, f.Sync())
	for seed := range uint64(50) {
		if got := text(t, open(t, m.KillClone(rand.New(rand.NewPCG(seed, 6))), "d/f", ReadOnly)); len(got) != 14 {
			t.Fatalf("a synced write was cut: %q", got)
		}
	}
}

// TestSpace proves that a full Mem stores what fits and says so, that room comes
// back with the last user of a removed file, and that clones keep the account.
func TestSpace(t *testing.T) {
	m := NewMem()
	m.SetFree(10)
	f := open(t, m, "f", Create)
	n, err := f.WriteAt([]byte("0123456789abcdef"), 0)
	if n != 10 || !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d, %v", n, err)
	}
	_, err = f.WriteAt([]byte("x"), 3) // into a place that it has
	must(t, err)
	must(t, f.Allocate(5, 10), true)
	must(t, f.Sync())
	must(t, m.SyncDir(""))
	for what, c := range map[string]*Mem{"crash": m.Crash(rand.New(rand.NewPCG(1, 1))), "kill": m.KillClone(nil)} {
		if avail, _, _ := c.Free(""); avail != 0 {
			t.Errorf("%s: %d bytes free", what, avail)
		}
	}
	must(t, m.Remove("f"))
	if avail, _, _ := m.Free(""); avail != 0 {
		t.Errorf("%d bytes free while the file is open", avail)
	}
	must(t, f.Close())
	if avail, _, _ := m.Free(""); avail != 10 {
		t.Errorf("%d bytes free in the end", avail)
	}
	g := open(t, m, "g", Create)
	must(t, g.Allocate(0, 10))
	h := open(t, m, "h", Create)
	_, err = h.WriteAt([]byte("x"), 0)
	must(t, err, true)
	_, err = g.WriteAt([]byte("0123456789"), 0) // what was reserved is there
	must(t, err)
	must(t, g.Truncate(4))
	_, err = h.WriteAt([]byte("123456"), 0)
	must(t, err)
}

// TestFaulty proves that a hook fails, shortens and hangs calls, and that bytes
// whose sync failed are read but lost to the disk for good.
func TestFaulty(t *testing.T) {
	m := NewMem()
	errBad := errors.New("bad disk")
	verdict := map[Op]error{}
	fsys := NewFaulty(m, func(op Op, _ string) error { return verdict[op] })
	f := open(t, fsys, "f", Create)
	must(t, m.SyncDir(""))

	verdict[OpWrite] = &ShortWriteError{N: 5, Err: ErrNoSpace}
	n, err := f.WriteVAt([][]byte{[]byte("abc"), []byte("def"), []byte("ghi")}, 0)
	if n != 5 || !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%d, %v", n, err)
	}
	if got := text(t, f); got != "abcde" {
		t.Errorf("after a short write: %q", got)
	}
	delete(verdict, OpWrite)

	verdict[OpSync] = errBad
	if err := f.Sync(); !errors.Is(err, errBad) {
		t.Fatal(err)
	}
	delete(verdict, OpSync)
	must(t, f.Sync())
	if got := text(t, f); got != "abcde" {
		t.Errorf("after a failed sync: %q", got)
	}
	expect(t, "after a failed sync", crashes(m, "f"), "\x00\x00\x00\x00\x00")

	release := make(chan struct{})
	hung := NewFaulty(m, func(op Op, _ string) error {
		if op == OpSyncDir {
			<-release
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- hung.SyncDir("") }()
	select {
	case <-done:
		t.Error("a hanging call returned")
	default:
	}
	close(release)
	must(t, <-done)
}

// BenchmarkWriteVAt measures a write of 64 buffers, which must not allocate memory.
func BenchmarkWriteVAt(b *testing.B) {
	f, err := OS{}.Open(b.TempDir()+"/f", Create)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	bufs := make([][]byte, 64)
	for i := range bufs {
		bufs[i] = make([]byte, 256)
	}
	b.ReportAllocs()
	b.SetBytes(64 * 256)
	for b.Loop() {
		if _, err := f.WriteVAt(bufs, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCrash measures one Crash of a file system with many files.
func BenchmarkCrash(b *testing.B) {
	m := NewMem()
	for i := range 1000 {
		f, _ := m.Open("f"+string(rune(i+1000)), Create)
		_, _ = f.WriteAt(make([]byte, 1000), 0)
	}
	b.ReportAllocs()
	for seed := uint64(0); b.Loop(); seed++ {
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
	}
}

// TestVolume proves that a sync of the volume makes all files and names on it durable, and
// that after one that fails the syncs of the files fail, too.
func TestVolume(t *testing.T) {
	mem := NewMem()
	fails := false
	fsys := NewFaulty(mem, func(op Op, path string) error {
		if fails && op == OpSync && path == "d" {
			return errors.New("input/output error")
		}
		return nil
	})
	must(t, fsys.MkdirAll("d/e"))
	v, err := fsys.Volume("d")
	must(t, err)
	write(t, fsys, "d/e/one", "1")
	must(t, fsys.Rename("d/e/one", "d/two"))
	must(t, v.Sync())
	write(t, fsys, "d/three", "3")
	fails = true
	if v.Sync() == nil {
		t.Fatal("the sync did not fail")
	}
	f := open(t, fsys, "d/three", Existing)
	defer f.Close()
	if f.Sync() == nil {
		t.Error("nobody told that the file was not written")
	}
	for seed := range uint64(20) {
		after := mem.Crash(rand.New(rand.NewPCG(seed, 1)))
		two := open(t, after, "d/two", Existing)
		if got := text(t, two); got != "1" {
			t.Errorf("seed %d: %q was left", seed, got)
		}
		if three, err := after.Open("d/three", Existing); err == nil && text(t, three) == "3" {
			t.Errorf("seed %d: what could not be written is there", seed)
		}
	}
}
