package vfs

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// TestReadPassing proves that reading around the page cache reads the same as any other
// read, also where the cache has a part of it, and over the file's end.
func TestReadPassing(t *testing.T) {
	name := t.TempDir() + "/file"
	f, err := OS{}.Open(name, Fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it is thrown away
	rng := rand.New(rand.NewPCG(1, 6))
	content := make([]byte, 300_000)
	for i := range content {
		content[i] = byte(rng.Uint32())
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		off := rng.Int64N(int64(len(content)) + 1000)
		b := make([]byte, rng.IntN(150_000))
		if _, err := f.ReadAt(make([]byte, 5000), rng.Int64N(int64(len(content))-5000)); err != nil { // some of it is cached
			t.Fatal(err)
		}
		n, err := ReadPassing(f, b, off)
		want := content[min(off, int64(len(content))):]
		want = want[:min(len(want), len(b))]
		if n != len(want) || string(b[:n]) != string(want) {
			t.Fatalf("%d bytes at %d: %d bytes, want %d", len(b), off, n, len(want))
		}
		if short := n < len(b); errors.Is(err, io.EOF) != short || !short && err != nil {
			t.Fatalf("%d bytes at %d: %d, %v", len(b), off, n, err)
		}
	}
}
