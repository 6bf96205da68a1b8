package storage

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestFormatsOfOtherVersions proves that a directory of a newer version, and one of a version
// whose format was not promised, are refused with a sentence, and left as they are.
func TestFormatsOfOtherVersions(t *testing.T) {
	for name, c := range map[string]struct{ head, want string }{
		"newer": {"", "newer version of leat"},
		"older": {"LEATCP01", "development version of leat"},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			cfg := testConfig(mem, "data")
			s := quietStore(t, cfg)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
				b, err := s.readFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if b == nil {
					continue
				}
				if c.head != "" {
					copy(b, c.head)
				} else {
					b = newerSheet(b)
				}
				put(t, mem, file, b)
			}
			if _, err := openDir(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the start says %v", err)
			}
		})
	}
}

// newerSheet raises the version in a checkpoint file, checksum and all.
func newerSheet(b []byte) []byte {
	b = bytes.Clone(b)
	b[9] = 200
	end := 28 + binary.BigEndian.Uint32(b[16:])
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(b[12:], crc32.Update(crc32.Checksum(b[8:12], table), table, b[16:end]))
	return b
}
