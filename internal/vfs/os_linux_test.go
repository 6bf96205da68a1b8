//go:build linux && !portable

package vfs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadCold proves that reads get the same bytes and errors if the page cache has
// nothing, a part or all of a file.
func TestReadCold(t *testing.T) {
	const size = 3<<20 + 123
	f, err := OS{}.Open(filepath.ToSlash(filepath.Join(t.TempDir(), "file")), Fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{3}).Read(data)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	d, _ := f.(Descriptor)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		if i%3 == 0 {
			if err := unix.Fadvise(int(d.Fd()), rng.Int64N(size), rng.Int64N(size), unix.FADV_DONTNEED); err != nil {
				t.Fatal(err)
			}
		}
		off := rng.Int64N(size + 10)
		b := make([]byte, rng.IntN(1<<20))
		want := data[min(off, size):min(off+int64(len(b)), size)]
		n, err := f.ReadAt(b, off)
		if !bytes.Equal(b[:n], want) {
			t.Fatalf("%d bytes at %d: %d bytes, or wrong ones", len(b), off, n)
		}
		if short := n < len(b); short != errors.Is(err, io.EOF) || !short && err != nil {
			t.Fatalf("%d bytes at %d: %d bytes and %v", len(b), off, n, err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a position below the file's beginning is read")
	}
}
