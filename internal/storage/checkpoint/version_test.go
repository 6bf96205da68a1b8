package checkpoint

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// newDisk has a pair of files that was saved twice.
func newDisk(t *testing.T) *Disk {
	t.Helper()
	d := &Disk{
		FS: vfs.NewMem(), Dir: "data", Log: slog.New(slog.DiscardHandler),
		Sync: vfs.File.Sync, IsFull: func(error) bool { return false },
	}
	d.SyncDir = d.FS.SyncDir
	if err := d.FS.MkdirAll("data"); err != nil {
		t.Fatal(err)
	}
	p := NewPair(d, "checkpoint")
	for i := range 2 {
		s := Sheet{Metadata: uint64(i), Points: map[record.LogID]Point{{Partition: 1}: {Next: 5, Snapshot: -1}}}
		if err := p.Save(&s); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// change rewrites the first bytes of a file; sound says that its checksum fits afterwards.
func change(t *testing.T, d *Disk, name string, sound bool, do func(b []byte)) {
	t.Helper()
	f, err := d.FS.Open(name, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.Size()
	b := make([]byte, n)
	if err == nil {
		_, _ = f.ReadAt(b, 0)
		b = b[:headLen+be.Uint32(b[16:])]
		do(b)
		if sound {
			be.PutUint32(b[12:], checksum(b))
		}
		_, err = f.WriteAt(b, 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestVersions proves that a file of another version is refused, whichever of the two it is
// and before anything is written; and that a flipped bit of the version is damage, for which
// there is the other file.
func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		sound bool
		do    func(b []byte)
		want  error
	}{
		"newer":   {true, func(b []byte) { be.PutUint16(b[8:], version+1) }, ErrNewer},
		"older":   {true, func(b []byte) { copy(b, oldMagic+"1") }, ErrOlder},
		"flipped": {false, func(b []byte) { b[9] ^= 2 }, nil},
	} {
		for _, file := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
			d := newDisk(t)
			change(t, d, file, c.sound, c.do)
			if err := NewPair(d, "checkpoint").CheckVersion(); !errors.Is(err, c.want) {
				t.Errorf("%s %s: the check says %v", name, file, err)
			}
			newest, _, err := NewPair(d, "checkpoint").Load()
			if !errors.Is(err, c.want) {
				t.Errorf("%s %s: %v", name, file, err)
			}
			if c.want == nil && (newest == nil || len(newest.Points) != 1) {
				t.Errorf("%s %s: the other file has %+v", name, file, newest)
			}
		}
	}
}

// TestNoFilesHaveNoVersion proves that a new directory passes.
func TestNoFilesHaveNoVersion(t *testing.T) {
	d := &Disk{FS: vfs.NewMem(), Dir: "data", Log: slog.New(slog.DiscardHandler)}
	if err := NewPair(d, "points").CheckVersion(); err != nil {
		t.Error(err)
	}
}
