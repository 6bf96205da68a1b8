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
					for n.NoteCached(id, 0) != nil { // the next call writes it again
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

// TestTopicsBecomeDurable proves that a topic is noted as long as one of its partitions is page-cached, and no longer; that others stay
// noted meanwhile, also those that come at the same time; and that this is so after a power cut at any call, and a failure of any.
func TestTopicsBecomeDurable(t *testing.T) {
	turning, other, late := [16]byte{1}, [16]byte{2}, [16]byte{3}
	for fails := range 8 {
		mem, _ := newNotes(t)
		calls := 0
		must := map[[16]byte]bool{}
		n := reopen(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
			if !op.Changes() {
				return nil
			}
			last := reopen(mem.Crash(rand.New(rand.NewPCG(uint64(calls), 3)))).Last()
			for topic := range must {
				if !slices.Contains(last.Unsynced, topic) {
					t.Errorf("failure %d, call %d: topic %d is not noted: %+v", fails, calls, topic[0], last)
				}
			}
			if calls++; calls == fails {
				return errors.New("medium error")
			}
			return nil
		}))
		do := func(f func() error) {
			for f() != nil { // the next call writes it again
			}
		}
		do(func() error { return n.Begin(5) })
		note := func(topic [16]byte, partition int32) {
			do(func() error { return n.NoteCached(topic, partition) })
			must[topic] = true
		}
		note(turning, 0)
		note(other, 0)
		note(turning, 1)
		n.ForgetCached(turning, 0)
		do(n.Flush)
		if n.IsCached(turning, 0) || !n.IsCached(turning, 1) {
			t.Errorf("failure %d: partition 0 is cached: %v, partition 1: %v", fails, n.IsCached(turning, 0), n.IsCached(turning, 1))
		}
		delete(must, turning)
		n.ForgetCached(turning, 1)
		n.ForgetCached(turning, 1)
		note(late, 0)
		do(n.Flush)
		if last := reopen(mem.KillClone(nil)).Last(); cmp.Diff(Run{Epoch: 5, Unsynced: [][16]byte{other, late}}, last) != "" {
			t.Errorf("failure %d: %+v", fails, last)
		}
		note(turning, 0)
		do(n.RaiseGeneration)
		n.ForgetCached(other, 0)
		note(other, 0)
		do(n.Flush)
		if last := reopen(mem.KillClone(nil)).Last(); cmp.Diff(Run{Epoch: 5, Generation: 1, Unsynced: [][16]byte{late, turning, other}}, last) != "" {
			t.Errorf("failure %d: noted again: %+v", fails, last)
		}
	}
}

// TestGenerationRises proves that a directory's generation is on disk before it is told, and that it never falls: with the next runs, and
// whatever fails.
func TestGenerationRises(t *testing.T) {
	for fails := range 10 {
		mem, _ := newNotes(t)
		calls := 0
		open := func() *Notes {
			return reopen(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
				if !op.Changes() {
					return nil
				}
				if calls++; calls == fails {
					return errors.New("medium error")
				}
				return nil
			}))
		}
		told := int64(0)
		for run := range int64(3) {
			n := open()
			if n.Generation() < told {
				t.Errorf("failure %d: run %d begins with generation %d after %d", fails, run, n.Generation(), told)
			}
			if err := n.RaiseGeneration(); err != nil || n.Generation() > told {
				t.Errorf("failure %d: raised to %d before the run has begun, %v", fails, n.Generation(), err)
			}
			for n.Begin(7+run) != nil {
			}
			before := n.Generation()
			for range 2 {
				for n.RaiseGeneration() != nil {
				}
			}
			if told = n.Generation(); told != before+2 {
				t.Errorf("failure %d: generation %d after %d", fails, told, before)
			}
			if err := n.NoteCached([16]byte{1}, 0); err != nil && fails > calls {
				t.Fatal(err)
			}
			mem = mem.Crash(rand.New(rand.NewPCG(uint64(run), 4)))
			if last := reopen(mem).Last(); last.Generation < told || last.Epoch != 7+run {
				t.Errorf("failure %d: after a power cut: %+v, and %d was told", fails, last, told)
			}
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
		if err := n.NoteCached(topic, 0); err != nil {
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
	const withGeneration = "0000000100000000000000000000000000000102000000000000012c"
	if got := hex.EncodeToString(encodeRun(258, 300)); got[:len(withGeneration)] != withGeneration {
		t.Errorf("an entry with a generation is written as %s", got)
	}
	if got, ok := decode(encodeRun(258, 300)); !ok || got.Epoch != 258 || got.Generation != 300 {
		t.Errorf("an entry with a generation is read as %+v, %v", got, ok)
	}
	var b []byte
	b = append(b, encodeRun(258, 0)...)
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
	b := encodeRun(1, 2)
	f.Add(b)
	f.Add(appendEntry(slices.Clone(b), entryMany, nil))
	f.Add(appendEntry(appendEntry(b, entryCached, []byte{1}), entryClean, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		last, ok := decode(b)
		if !ok || last.Epoch == 0 {
			return
		}
		again := encodeRun(last.Epoch, last.Generation)
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
