package checkpoint

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// TestVersions proves that either of the two files is refused if it has another version, before
// anything is written, and that a flipped bit of the version is damage, after which the other
// file is used.
func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		sound bool
		do    func(b []byte)
		want  error
	}{
		"newer":   {true, func(b []byte) { be.PutUint16(b[8:], version+1) }, ErrNewer},
		"older":   {true, func(b []byte) { copy(b, oldMagic+"1") }, ErrOlder},
		"flipped": {false, func(b []byte) { b[9] ^= 8 }, nil},
	} {
		for _, file := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
			d := newDisk(t)
			change(t, d, file, c.sound, c.do)
			if _, err := NewPair(d, "checkpoint").Look(); !errors.Is(err, c.want) {
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

// TestNoFilesHaveNoVersion proves that a new directory is not refused.
func TestNoFilesHaveNoVersion(t *testing.T) {
	d := &Disk{FS: vfs.NewMem(), Dir: "data", Log: slog.New(slog.DiscardHandler)}
	if _, err := NewPair(d, "points").Look(); err != nil {
		t.Error(err)
	}
}

// TestFormat proves that a file has the bytes that it had when its format was promised, and that
// files of this version and of earlier ones are decoded correctly.
func TestFormat(t *testing.T) {
	s := func(closed int64) Sheet {
		p := Point{
			Vouched: true, Gaps: true, Base: 9, Pos: 10, Next: 11, Start: 12, HighWatermark: 13, Snapshot: 14, ProducersAt: 15, Oldest: 16,
			Closed: closed,
		}
		return Sheet{
			Generation: 3, Journal: [16]byte{1, 15: 2}, At: Mark{File: 4, Pos: 8192, Round: 5, Prev: 0x01020304}, Metadata: 6,
			Points: map[record.LogID]Point{{Topic: [16]byte{7}, Partition: 8}: p, {Topic: [16]byte{7}, Partition: 9}: UnknownPoint()},
		}
	}
	lost := s(17)
	lost.Points[record.LogID{Topic: [16]byte{7}, Partition: 9}] = Point{Lost: true, Start: 1, Snapshot: -1, ProducersAt: -1, Oldest: TimeUnknown, Closed: BytesUnknown}
	txns := s(17)
	txns.Transactional = true
	for id, p := range txns.Points {
		if p.Vouched {
			p.Transactional, p.TransactionsFrom, p.Stable = true, 0x0102, 0x0304
			txns.Points[id] = p
		}
	}
	cut := s(17)
	cut.Transactional, cut.Cut = true, true
	for _, c := range []struct {
		version uint16
		want    Sheet
		hex     string
	}{
		{1, s(BytesUnknown), "4c454154434b505400010000e3f60b4a000000de0000000000000003010000000000000000000000000000020000000400000000000020000000000000000005010203040000000000000006000000020700000000000000000000000000000000000008030000000000000009000000000000000a000000000000000b000000000000000c000000000000000d000000000000000e000000000000000f000000000000001007000000000000000000000000000000000000090000000000000000000000000000000000000000000000000000000000000000000000000000000000fffffffffffffffffffffffffffffffffffffffffffffffe"},
		{2, lost, "4c454154434b505400020000a3a78bbe000000ee0000000000000003010000000000000000000000000000020000000400000000000020000000000000000005010203040000000000000006000000020700000000000000000000000000000000000008030000000000000009000000000000000a000000000000000b000000000000000c000000000000000d000000000000000e000000000000000f0000000000000010000000000000001107000000000000000000000000000000000000090400000000000000000000000000000000000000000000000000000000000000010000000000000000fffffffffffffffffffffffffffffffffffffffffffffffeffffffffffffffff"},
		{3, txns, "4c454154434b5054000300004f7912ca0000010e00000000000000030100000000000000000000000000000200000004000000000000200000000000000000050102030400000000000000060000000207000000000000000000000000000000000000080b0000000000000009000000000000000a000000000000000b000000000000000c000000000000000d000000000000000e000000000000000f000000000000001000000000000000110000000000000102000000000000030407000000000000000000000000000000000000090000000000000000000000000000000000000000000000000000000000000000000000000000000000fffffffffffffffffffffffffffffffffffffffffffffffeffffffffffffffff00000000000000000000000000000000"},
		{4, cut, "4c454154434b505400040000ded613250000010e0000000000000003010000000000000000000000000000020000000400000000000020000000000000000005010203040000000000000006000000020700000000000000000000000000000000000008030000000000000009000000000000000a000000000000000b000000000000000c000000000000000d000000000000000e000000000000000f000000000000001000000000000000110000000000000000000000000000000007000000000000000000000000000000000000090000000000000000000000000000000000000000000000000000000000000000000000000000000000fffffffffffffffffffffffffffffffffffffffffffffffeffffffffffffffff00000000000000000000000000000000"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(c.want.Encode()); c.version >= version2 && got != c.hex {
			t.Errorf("it is written as %s, and was %s", got, c.hex)
		}
		if got, err := Decode(b); err != nil || cmp.Diff(&c.want, got) != "" {
			t.Errorf("version %d: %v: (-was +is)\n%s", c.version, err, cmp.Diff(&c.want, got))
		}
	}
}
