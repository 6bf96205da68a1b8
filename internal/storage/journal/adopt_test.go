package journal

import (
	"errors"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

// lapped is a directory with a journal of many laps around its ring, of which a checkpoint would
// have the mark.
func lapped(t *testing.T, writes int) (*vfs.Mem, *Journal, Mark) {
	t.Helper()
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data"); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(mem)
	cfg.Size = ringFiles * 16 * block
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	at := j.Start()
	j.AllowWrites()
	for i := range writes {
		var m Image
		m.Add(Part{Kind: Bytes, Dir: "topic-0", Pos: int64(i)}, [][]byte{make([]byte, 100+i%3*block)}, j.RoundSize)
		if err := j.Write(&m); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		if i%10 == 9 {
			before := at
			at = j.BeginCheckpoint()
			j.Recycle(before.Round)
		}
	}
	return mem, j, at
}

// TestAdopt proves that Adopt finds a journal whose mark and id are unknown, with every round that
// a checkpoint would have named, up to the newest one, after any number of laps; and that it
// prefers an id only if there are rounds with that id.
func TestAdopt(t *testing.T) {
	for writes := 1; writes < 300; writes += 7 {
		mem, j, at := lapped(t, writes)
		for _, prefer := range [][16]byte{{}, {1, 2, 3}, j.ID()} {
			cfg := testConfig(mem)
			cfg.Size, cfg.ID = ringFiles*16*block, [16]byte{9}
			found, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			from, whole, ok := found.Adopt(prefer)
			if !ok || !whole || found.ID() != j.ID() || from.Round > at.Round {
				t.Fatalf("%d writes: from %+v, %v, %v; the checkpoint has %+v", writes, from, whole, ok, at)
			}
			want := from.Round
			end, err := found.Scan(from, false, func(r *Round) error {
				if r.Broken || r.Number != want {
					t.Errorf("%d writes: round %d, broken %v, want %d", writes, r.Number, r.Broken, want)
				}
				want++
				return nil
			})
			if err != nil || end.Round != j.Next() {
				t.Errorf("%d writes: it ends with %d, %v, want %d", writes, end.Round, err, j.Next())
			}
			found.Close()
		}
	}
}

// TestAdoptDamaged proves that Adopt notices a damaged round among those that it finds.
func TestAdoptDamaged(t *testing.T) {
	mem, j, _ := lapped(t, 200)
	cfg := testConfig(mem)
	cfg.Size = ringFiles * 16 * block
	newest := j.current
	for _, f := range j.files {
		if f == newest || f.last+5 < j.Next() && f.last > 0 {
			continue
		}
		head := (&scanner{j: j}).readHead(f, 0)
		file, err := mem.Open(f.name, vfs.Existing)
		if err == nil {
			_, err = file.WriteAt([]byte{0xff}, 30)
		}
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		found, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		from, whole, ok := found.Adopt([16]byte{})
		if found.Close(); !ok || from.Round <= head.number || whole {
			t.Errorf("round %d is damaged: from %+v, %v, %v", head.number, from, whole, ok)
		}
		return
	}
	t.Error("no file had rounds that count")
}

// TestAdoptNothing proves that Adopt finds no journal if there are no files, or if none begins
// with a round.
func TestAdoptNothing(t *testing.T) {
	mem, _, _ := lapped(t, 1)
	for range 2 {
		j, err := Open(testConfig(mem))
		if err != nil {
			t.Fatal(err)
		}
		f := j.files[0]
		if _, err := f.f.WriteAt(make([]byte, block), 0); err != nil {
			t.Fatal(err)
		}
		if from, whole, ok := j.Adopt([16]byte{}); ok || !whole {
			t.Errorf("from %+v, %v, %v", from, whole, ok)
		}
		j.Close()
	}
}
