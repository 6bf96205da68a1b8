package quorum

import (
	"context"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// TestSnapshotFlippedBits proves that a changed byte of a snapshot never passes.
func TestSnapshotFlippedBits(t *testing.T) {
	s := snapshot{at: position{7, 3}, voters: []uint64{1, 2, 3}, data: []byte("the state")}
	whole := append(s.head(), s.data...)
	got, err := parseSnapshot(whole)
	if err != nil || got.at != s.at || !slices.Equal(got.voters, s.voters) || string(got.data) != string(s.data) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range whole {
		bad := slices.Clone(whole)
		bad[i] ^= 1
		if _, err := parseSnapshot(bad); err == nil {
			t.Errorf("byte %d", i)
		}
		if _, err := parseSnapshot(whole[:i]); err == nil {
			t.Errorf("cut at %d", i)
		}
	}
}

// FuzzScan proves that no bytes make the reader of log files panic, and that what
// it accepts is what would be written again.
func FuzzScan(f *testing.F) {
	fs := newFS()
	m := &machine{}
	n, err := open(config(fs, m), small)
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range count(0, 20) {
		_ = n.Propose(context.Background(), []byte(l))
	}
	n.Close()
	file, _ := fs.Open("data/meta/"+fileName(1, logSuffix), vfs.ReadOnly)
	b, _ := readAll(file)
	f.Add(b, uint64(1))
	f.Add(b[:100], uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, first uint64) {
		var again []byte
		end, next, err := scan(b, first, func(at, size int, r *records) error {
			if at != len(again) {
				t.Fatalf("frame at %d, expected at %d", at, len(again))
			}
			again = append(again, b[at:min(at+size, len(b))]...)
			for _, e := range r.entries {
				if p := parseEntry(appendEntry(nil, e)[recordHead:]); p.GetIndex() != e.GetIndex() {
					t.Fatal("an entry changes by being written")
				}
			}
			return nil
		})
		if err == nil && (end < len(again) || next < first) {
			t.Fatalf("ends at %d, number %d", end, next)
		}
	})
}

// FuzzParse proves that records whose checksum happens to be right make no panic.
func FuzzParse(f *testing.F) {
	h := fileHead{id: 1, voters: []uint64{1}}
	f.Add(h.append(nil))
	f.Add([]byte{kindEntry, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parse(b); err == nil && len(b) > 0 && r.head == nil && r.state == nil && r.entries == nil {
			t.Fatal("bytes were accepted and became nothing")
		}
	})
}

// FuzzSnapshot proves that no bytes make the reader of snapshots panic.
func FuzzSnapshot(f *testing.F) {
	s := snapshot{at: position{7, 3}, voters: []uint64{1}, data: []byte("x")}
	f.Add(append(s.head(), s.data...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSnapshot(b)
		if err == nil && string(append(s.head(), s.data...)) != string(b) {
			t.Fatal("a snapshot changes by being written")
		}
	})
}
