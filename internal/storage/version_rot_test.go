package storage

import (
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestOneBitOfVersionAllowsStart proves that a start succeeds if one bit of the version is wrong in
// one of two checkpoint files, since the other file is whole. The version lies before the bytes
// that the file's checksum covers.
func TestOneBitOfVersionAllowsStart(t *testing.T) {
	for _, name := range []string{"checkpoint-a", "checkpoint-b", "points-a"} {
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		for i := range 2 {
			s := quietStore(t, cfg)
			mustAppend(t, testLog(s, 0, testOptions()), batch(t, i, 1, 100))
			s.Commit()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		f, err := mem.Open("data/"+name, vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], 9); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 4
		if _, err := f.WriteAt(b[:], 9); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		s, err := openDir(cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = s.Close()
	}
}
