package storage

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestOlderMetadataIsRefused proves that a directory which was used with later metadata is not
// opened with older ones, and says what to do.
func TestOlderMetadataIsRefused(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	s := quietStore(t, cfg)
	s.NoteMetadata(17)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for index, ok := range map[uint64]bool{0: true, 16: false, 17: true, 18: true} {
		cfg.Metadata = index
		s, err := openDir(cfg)
		if (err == nil) != ok {
			t.Errorf("metadata up to %d: %v", index, err)
		}
		if err != nil {
			if !errors.Is(err, ErrMetadataBehind) || !strings.Contains(err.Error(), "entry 17") || !strings.Contains(err.Error(), "bring back") {
				t.Errorf("it says %q", err)
			}
			continue
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOlderMetadataAreRefusedByThePoints proves the same where both checkpoint files are
// damaged: the points files remember the metadata, too, and the next checkpoint still does.
func TestOlderMetadataAreRefusedByThePoints(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	mustAppend(t, testLog(s, 0, testOptions()), batch(t, 0, 1, 100))
	s.NoteMetadata(17)
	if err := s.Close(); err != nil { // writes the points
		t.Fatal(err)
	}
	emptyFile(t, mem, "data/checkpoint-a")
	emptyFile(t, mem, "data/checkpoint-b")
	for range 2 { // at the second start there is a checkpoint
		if used, err := CheckVersion(mem, "data", slog.New(slog.DiscardHandler)); used != 17 || err != nil {
			t.Errorf("the directory was used up to entry %d, %v", used, err)
		}
		cfg.Metadata = 16
		if _, err := openDir(cfg); !errors.Is(err, ErrMetadataBehind) {
			t.Errorf("metadata up to 16: %v", err)
		}
		cfg.Metadata = 17
		s = quietStore(t, cfg)
		if at := s.RememberedMetadata(); at != 17 {
			t.Errorf("entry %d is remembered", at)
		}
		s.keeper.checkpointNow()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		emptyFile(t, mem, "data/points-a")
		emptyFile(t, mem, "data/points-b")
	}
}
