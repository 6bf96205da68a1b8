package lastrun

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/vfs"
)

func newNotes(t *testing.T) (*vfs.Mem, *Notes) {
	t.Helper()
	mem := vfs.NewMem()
	if err := errors.Join(mem.MkdirAll("data"), vfs.SyncPath(mem, "data")); err != nil {
		t.Fatal(err)
	}
	return mem, reopen(mem)
}

func reopen(fsys vfs.FS) *Notes { return Open(fsys, "data", slog.New(slog.DiscardHandler)) }

// TestNotesAreDurable proves that what was noted is on the disk when the call returns, also where
// many topics are noted at the same time, and where a call before it has failed at any point.
func TestNotesAreDurable(t *testing.T) {
	for fails := range 6 {
		mem, _ := newNotes(t)
		calls := 0
		n := reopen(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if !op.Changes() {
				return nil
			}
			if calls++; calls == fails {
				return errors.New("medium error")
			}
			return nil
		}))
		after := func() Run {
			t.Helper()
			return reopen(mem.Crash(rand.New(rand.NewPCG(uint64(fails), 3)))).Last()
		}
		for n.Begin(5) != nil {
			if last := after(); last.Epoch != 0 && last.Epoch != 5 {
				t.Errorf("failure %d: %+v", fails, last)
			}
		}
		if diff := cmp.Diff(Run{Epoch: 5}, after()); diff != "" {
			t.Errorf("failure %d: begun: (-want +got)\n%s", fails, diff)
		}
		calls = 0
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for topic := range byte(8) {
					id := [16]byte{(topic + byte(i)) % 8, 1}
					for n.NoteCached(id) != nil { // the next call writes it again
					}
				}
			})
		}
		all.Wait()
		if last := after(); last.Epoch != 5 || len(last.Unsynced) != 8 || last.Clean {
			t.Errorf("failure %d: noted: %+v", fails, last)
		}
		for n.Begin(6) != nil {
		}
		if last := after(); last.Epoch != 6 || len(last.Unsynced) != 8 || last.Clean {
			t.Errorf("failure %d: registered again: %+v", fails, last)
		}
		for n.NoteClean() != nil {
		}
		if last := after(); last.Epoch != 6 || !last.Clean {
			t.Errorf("failure %d: ended: %+v", fails, last)
		}
	}
}

// TestManyTopicsAreNotListed proves that the notes have a bound, beyond which nothing of the run is
// believed unless it ends in order.
func TestManyTopicsAreNotListed(t *testing.T) {
	mem, n := newNotes(t)
	if err := n.Begin(3); err != nil {
		t.Fatal(err)
	}
	for i := range maxCached + 3 {
		var topic [16]byte
		be.PutUint32(topic[:], uint32(i))
		if err := n.NoteCached(topic); err != nil {
			t.Fatal(err)
		}
		if i == maxCached-1 {
			if last := reopen(mem.KillClone(nil)).Last(); last.Epoch != 3 || len(last.Unsynced) != maxCached {
				t.Errorf("at the bound: epoch %d with %d topics", last.Epoch, len(last.Unsynced))
			}
		}
	}
	if diff := cmp.Diff(Run{}, reopen(mem.KillClone(nil)).Last()); diff != "" {
		t.Errorf("beyond the bound: (-want +got)\n%s", diff)
	}
	if err := n.NoteClean(); err != nil {
		t.Fatal(err)
	}
	if last := reopen(mem).Last(); !last.Clean || last.Epoch != 3 {
		t.Errorf("after a clean stop: epoch %d, clean %v", last.Epoch, last.Clean)
	}
}

// TestFormat proves that the file has the bytes that it had when its format was promised,
// and that a file of which any byte was changed, or that has something else in it, is not believed.
func TestFormat(t *testing.T) {
	want := Run{Epoch: 258, Clean: true, Unsynced: [][16]byte{{9, 15: 8}}}
	var b []byte
	b = appendEntry(b, entryRun, be.AppendUint64(nil, 258))
	b = appendEntry(b, entryCached, want.Unsynced[0][:])
	b = appendEntry(b, entryClean, nil)
	const format = "" +
		"00000001000000000000000000000000000001020000000000000000ff3aad30" +
		"000000020000000000000000090000000000000000000000000000085a902a45" +
		"0000000300000000000000000000000000000000000000000000000085949bce"
	if got := hex.EncodeToString(b); got != format {
		t.Errorf("it is written as %s", got)
	}
	for _, end := range []string{"", "\x00", strings.Repeat("\x00", 64), strings.Repeat("x", entryLen-1)} {
		if got, ok := decode(append(slices.Clone(b), end...)); !ok || cmp.Diff(want, got) != "" {
			t.Errorf("with %d bytes behind it: %+v, %v", len(end), got, ok)
		}
	}
	for i := range b {
		changed := slices.Clone(b)
		changed[i] ^= 16
		if got, ok := decode(changed); ok {
			t.Errorf("with byte %d changed: %+v", i, got)
		}
	}
	cached, clean, unknown := b[entryLen:2*entryLen], b[2*entryLen:], appendEntry(nil, 5, nil)
	for _, wrong := range [][]byte{cached, clean, slices.Concat(b, b), slices.Concat(b, cached), slices.Concat(b[:entryLen], unknown), slices.Concat(b[:entryLen], b)} {
		if got, ok := decode(wrong); ok {
			t.Errorf("% x is read as %+v", wrong, got)
		}
	}
}

// FuzzDecode proves that no file makes a start fail, and that what is believed is written the same
// way.
func FuzzDecode(f *testing.F) {
	b := appendEntry(nil, entryRun, be.AppendUint64(nil, 1))
	f.Add(b)
	f.Add(appendEntry(slices.Clone(b), entryMany, nil))
	f.Add(appendEntry(appendEntry(b, entryCached, []byte{1}), entryClean, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		last, ok := decode(b)
		if !ok || last.Epoch == 0 {
			return
		}
		again := appendEntry(nil, entryRun, be.AppendUint64(nil, uint64(last.Epoch)))
		for _, topic := range last.Unsynced {
			again = appendEntry(again, entryCached, topic[:])
		}
		if last.Clean {
			again = appendEntry(again, entryClean, nil)
		}
		if got, ok := decode(again); !ok || cmp.Diff(last, got) != "" {
			t.Errorf("%+v is read as %+v", last, got)
		}
	})
}
