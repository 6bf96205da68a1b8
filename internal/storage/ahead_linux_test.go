//go:build linux && !portable

package storage

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/leatstream/leat/internal/vfs"
)

// TestReadAhead proves that a file is read ahead of a reader where it is on disk
// only, so far and no farther, and left alone where the page cache has it.
func TestReadAhead(t *testing.T) {
	const size = 20 << 20
	f, err := vfs.OS{}.Open(filepath.ToSlash(filepath.Join(t.TempDir(), "file")), vfs.Fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	var c cursor
	if c.readAhead(f, 1<<20, size); c.ahead != inCache {
		t.Fatalf("a file that was just written is read ahead up to %d", c.ahead)
	}
	d, _ := f.(vfs.Descriptor)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if !isCold(f, 1<<20) {
		t.Skip("this file system keeps files in memory")
	}
	c = cursor{}
	for _, at := range []struct{ end, ahead int64 }{
		{1 << 20, 17 << 19}, {2 << 20, 19 << 19}, {9 << 18, 10 << 20}, {6 << 20, 27 << 19}, {14 << 20, 21 << 20}, {19 << 20, size},
	} {
		if c.readAhead(f, at.end, size); c.ahead != min(at.ahead, size) {
			t.Errorf("at %d it is read ahead up to %d, not %d", at.end, c.ahead, at.ahead)
		}
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < size {
		t.Fatal(err)
	}
	if isCold(f, 1<<20) {
		t.Error("what was just read is not in the cache")
	}
}
