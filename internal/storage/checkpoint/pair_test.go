package checkpoint_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/vfs"
)

const dirName = "data"

var errInjected = errors.New("injected")

// failureOf is how a call fails that may be made again: a sync of a directory did not begin,
// since Disk.SyncDir tries none again that failed.
func failureOf(op vfs.Op) error {
	if op == vfs.OpSyncDir {
		return errors.Join(errInjected, vfs.ErrNoHandles)
	}
	return errInjected
}

// newMem is a file system with the durable directory of the files.
func newMem(tb testing.TB) *vfs.Mem {
	tb.Helper()
	mem := vfs.NewMem()
	must(tb, mem.MkdirAll(dirName))
	must(tb, mem.SyncDir("."))
	return mem
}

func newDisk(fs vfs.FS) *checkpoint.Disk {
	return &checkpoint.Disk{
		FS: fs, Dir: dirName, Log: slog.New(slog.DiscardHandler), Sync: vfs.File.Sync, SyncDir: fs.SyncDir,
		IsFull: func(err error) bool { return errors.Is(err, vfs.ErrNoSpace) },
	}
}

func newPair(fs vfs.FS) *checkpoint.Pair { return checkpoint.NewPair(newDisk(fs), "checkpoint") }

// numbered is a sheet that says which one it is.
func numbered(n uint64) *checkpoint.Sheet {
	s := randomSheet(seeded(n), int(n*37%11))
	s.Metadata = n
	return s
}

// newest loads the newest sheet's number; 0: there is none.
func newest(tb testing.TB, fs vfs.FS) uint64 {
	tb.Helper()
	s, older, err := newPair(fs).Load()
	must(tb, err)
	if s == nil {
		return 0
	}
	want := numbered(s.Metadata)
	want.Generation = s.Generation
	if d := diff(want, s); d != "" {
		tb.Fatal(d)
	}
	if older != nil && older.Generation >= s.Generation {
		tb.Errorf("the older sheet is of generation %d, the newest of %d", older.Generation, s.Generation)
	}
	return s.Metadata
}

// TestPair proves that sheets are written into two files in turn, and that the last two can be
// read.
func TestPair(t *testing.T) {
	mem := newMem(t)
	p := newPair(mem)
	if s, older, err := p.Load(); s != nil || older != nil || err != nil {
		t.Fatalf("an empty directory: %v, %v, %v", s, older, err)
	}
	for n := uint64(1); n < 10; n++ {
		s := numbered(n)
		must(t, p.Save(s))
		if n%4 == 0 {
			p = newPair(mem) // another start
		}
		got, older, err := newPair(mem).Load()
		must(t, err)
		if d := diff(s, got); d != "" || got.Generation != n {
			t.Fatalf("sheet %d: %s", n, d)
		}
		if n > 1 && (older == nil || older.Metadata != n-1) {
			t.Errorf("sheet %d: the older one is %v", n, older)
		}
		if n%4 == 0 {
			_, _, err := p.Load()
			must(t, err)
		}
	}
	if infos, err := mem.ReadDir(dirName); err != nil || len(infos) != 2 {
		t.Errorf("files: %v, %v", infos, err)
	}
}

// TestPairCrash proves that after a power cut or a kill at any moment the newest sheet or the one
// before it is whole, and that it is also whole after a crash that follows its load.
func TestPairCrash(t *testing.T) {
	mem := newMem(t)
	before, under := uint64(0), uint64(0) // the last sheet that was saved, and the one that is being saved
	moments := 0
	look := func(op vfs.Op, path string) {
		moments++
		what := fmt.Sprintf("before %s of %s, sheet %d", op, path, under)
		for seed := range uint64(6) {
			for how, after := range map[string]*vfs.Mem{"power": mem.Crash(seeded(seed)), "kill": mem.KillClone(seeded(seed))} {
				n := newest(t, after)
				if n != before && n != under {
					t.Fatalf("%s, %s, seed %d: sheet %d is there, %d was saved", what, how, seed, n, before)
				}
				if again := newest(t, after.Crash(seeded(seed+100))); again != n {
					t.Fatalf("%s, %s, seed %d: sheet %d was loaded, and %d after a power cut", what, how, seed, n, again)
				}
			}
		}
	}
	fs := vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if op.Changes() {
			look(op, path)
		}
		return nil
	})
	p := newPair(fs)
	for n := uint64(1); n < 8; n++ {
		under = n
		must(t, p.Save(numbered(n)))
		before = n
		look(vfs.OpClose, "nothing")
	}
	if moments < 20 {
		t.Errorf("only %d moments", moments)
	}
}

// TestPairFails proves, for a failure of each call of a save, that the sheet before is still
// there, that the next save succeeds, and that its generation is above all on disk.
func TestPairFails(t *testing.T) {
	for saved := range uint64(3) {
		for call := range 20 {
			mem := newMem(t)
			left := -1
			hit := false
			fs := vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
				if left--; left != 0 {
					return nil
				}
				hit = true
				if op == vfs.OpWrite {
					return &vfs.ShortWriteError{N: 50, Err: errInjected}
				}
				return failureOf(op)
			})
			p := newPair(fs)
			for n := range saved {
				must(t, p.Save(numbered(n+1)))
			}
			left = call + 1
			err := p.Save(numbered(saved + 1))
			left = -1
			what := fmt.Sprintf("call %d of save %d", call, saved+1)
			if hit != errors.Is(err, errInjected) {
				t.Fatalf("%s: %v", what, err)
			}
			if !hit {
				break
			}
			if n := newest(t, mem.Crash(seeded(uint64(call)))); n != saved && n != saved+1 {
				t.Errorf("%s: sheet %d is there", what, n)
			}
			next := numbered(saved + 2)
			must(t, p.Save(next))
			for _, after := range []*vfs.Mem{mem, mem.Crash(seeded(9))} {
				if n := newest(t, after); n != saved+2 {
					t.Errorf("%s: sheet %d is there, not the one saved next", what, n)
				}
			}
		}
	}
}

// TestGenerationOfFailedSaves proves that a sheet whose save has failed at its last step, and
// which is on disk nevertheless, has a lower generation than those that were saved later into
// the other pair: its points may be of records that were cut off since.
func TestGenerationOfFailedSaves(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpClose, vfs.OpSyncDir} {
		mem := newMem(t)
		broken := false
		disk := newDisk(vfs.NewFaulty(mem, func(o vfs.Op, path string) error {
			if broken && o == op && (op == vfs.OpSyncDir || strings.Contains(path, "points")) {
				return errInjected
			}
			return nil
		}))
		points, hot := checkpoint.NewPair(disk, "points"), checkpoint.NewPair(disk, "checkpoint")
		table := checkpoint.NewTable(nil, nil)
		table.Set(logID(1), checkpoint.Point{Vouched: true, Next: 100, Pos: 1000})
		must(t, hot.Save(&checkpoint.Sheet{Points: table.All()}))
		broken = true
		if err := points.Save(&checkpoint.Sheet{Points: table.All()}); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		broken = false
		table.Lower(logID(1), 0, 500, 50, 0)
		changed, _ := table.Changed()
		must(t, hot.Save(&checkpoint.Sheet{Points: changed}))

		disk = newDisk(mem.KillClone(nil))
		base, _, err := checkpoint.NewPair(disk, "points").Load()
		must(t, err)
		newest, _, err := checkpoint.NewPair(disk, "checkpoint").Load()
		must(t, err)
		if p := checkpoint.NewTable(base, newest).Get(logID(1)); p.Next != 50 {
			t.Errorf("%s failed: the log is vouched for up to offset %d, and was cut at 50", op, p.Next)
		}
	}
}

// TestTwoPairs proves that a table which is written to two pairs of files, with all points or
// those that changed, is read back as it was at the last successful save or a later one, after
// kills, power cuts and failures at any call.
func TestTwoPairs(t *testing.T) {
	for seed := range uint64(150) {
		rng := seeded(seed)
		mem := newMem(t)
		left := -1
		var at []map[record.LogID]checkpoint.Point // the tables that may come back
		load := func() (*checkpoint.Table, *checkpoint.Pair, *checkpoint.Pair) {
			disk := newDisk(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
				if left--; left == 0 {
					return failureOf(op)
				}
				return nil
			}))
			points, hot := checkpoint.NewPair(disk, "points"), checkpoint.NewPair(disk, "checkpoint")
			newest, _, err := hot.Load()
			must(t, err)
			base, _, err := points.Load()
			must(t, err)
			return checkpoint.NewTable(base, newest), points, hot
		}
		at = append(at, map[record.LogID]checkpoint.Point{})
		table, points, hot := load()
		for step := range 40 {
			for range rng.IntN(4) {
				changeTable(table, logID(rng.IntN(5)), rng.IntN(4), randomPoint(rng))
			}
			if rng.IntN(6) == 0 {
				left = 1 + rng.IntN(12)
			}
			all := table.All()
			at = append(at, all)
			var err error
			if rng.IntN(3) == 0 {
				if err = points.Save(&checkpoint.Sheet{Points: all}); err == nil {
					table.NoteWritten(all)
				}
			} else {
				changed, _ := table.Changed()
				err = hot.Save(&checkpoint.Sheet{Points: changed})
			}
			left = -1
			if err == nil {
				at = at[len(at)-1:]
			}
			switch rng.IntN(8) {
			case 0:
				mem = mem.KillClone(nil)
			case 1:
				mem = mem.Crash(rng)
			default:
				continue
			}
			table, points, hot = load()
			found := false
			for _, old := range at {
				found = found || cmp.Equal(old, table.All())
			}
			if !found {
				t.Fatalf("seed %d, step %d: no table that was saved: %s", seed, step, cmp.Diff(at[0], table.All()))
			}
			at = []map[record.LogID]checkpoint.Point{table.All()}
		}
	}
}

// changeTable makes one change of any kind but Forget: the points of a log that was deleted may
// come back.
func changeTable(table *checkpoint.Table, id record.LogID, kind int, p checkpoint.Point) {
	switch kind {
	case 0:
		table.RaiseStart(id, p.Start)
	case 1:
		table.Lower(id, p.Base, p.Pos, p.Next, 0)
	default:
		table.Set(id, p)
	}
}

// TestPairOnFullDisk proves that the next checkpoints are saved on a full disk, since the files
// have room from the start, and that one which is too large for that does no harm.
func TestPairOnFullDisk(t *testing.T) {
	mem := newMem(t)
	p := newPair(mem)
	for n := range uint64(2) {
		must(t, p.Save(numbered(n+1)))
	}
	mem.SetFree(0)
	for n := uint64(3); n < 9; n++ {
		must(t, p.Save(numbered(n)))
		if got := newest(t, mem.Crash(seeded(n))); got != n {
			t.Fatalf("sheet %d is there, not %d", got, n)
		}
	}
	if err := p.Save(randomSheet(seeded(1), 2000)); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("more than fits: %v", err)
	}
	if got := newest(t, mem.Crash(seeded(1))); got != 8 {
		t.Errorf("sheet %d is there, not 8", got)
	}
	must(t, p.Save(numbered(9)))
	mem.SetFree(1 << 20)
	must(t, p.Save(randomSheet(seeded(1), 2000)))
}

// TestFirstSaveOnFullDisk proves that a first save fails without room, and succeeds with room
// for only itself.
func TestFirstSaveOnFullDisk(t *testing.T) {
	mem := newMem(t)
	p := newPair(mem)
	mem.SetFree(10)
	if err := p.Save(numbered(1)); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("no room: %v", err)
	}
	if n := newest(t, mem.Crash(seeded(1))); n != 0 {
		t.Errorf("sheet %d is there", n)
	}
	mem.SetFree(3000) // less than the room that a file reserves
	must(t, p.Save(numbered(2)))
	if n := newest(t, mem.Crash(seeded(1))); n != 2 {
		t.Errorf("sheet %d is there", n)
	}
}

// TestNamesMadeDurable proves that MakeNamesDurable makes the names of existing files durable
// with the next saves.
func TestNamesMadeDurable(t *testing.T) {
	mem := newMem(t)
	must(t, newPair(mem).Save(numbered(1)))
	synced := 0
	disk := newDisk(mem)
	disk.SyncDir = func(dir string) error { synced++; return mem.SyncDir(dir) }
	p := checkpoint.NewPair(disk, "checkpoint")
	_, _, err := p.Load()
	must(t, err)
	for _, want := range []int{1, 1, 0, 0} { // the second file is new, the first one is made durable again
		synced = 0
		p.MakeNamesDurable()
		if want == 0 {
			p = checkpoint.NewPair(disk, "checkpoint")
			_, _, err := p.Load()
			must(t, err)
			synced = 0
		}
		must(t, p.Save(numbered(2)))
		if synced != want {
			t.Errorf("the directory was synced %d times, not %d", synced, want)
		}
	}
}

// TestPairUnreadable proves that the other file is used if one cannot be read, and that a load
// fails if both cannot: they are not lost, and recovery needs them once they can be read again.
func TestPairUnreadable(t *testing.T) {
	mem := newMem(t)
	p := newPair(mem)
	must(t, p.Save(numbered(1)))
	must(t, p.Save(numbered(2)))
	for _, c := range []struct {
		bad  []string
		want uint64
	}{{[]string{"-a"}, 2}, {[]string{"-b"}, 1}, {[]string{"-a", "-b"}, 0}} {
		fs := vfs.NewFaulty(mem.KillClone(nil), func(op vfs.Op, path string) error {
			for _, suffix := range c.bad {
				if op == vfs.OpRead && strings.HasSuffix(path, suffix) {
					return syscall.EIO
				}
			}
			return nil
		})
		s, _, err := newPair(fs).Load()
		switch {
		case c.want == 0 && !errors.Is(err, syscall.EIO):
			t.Errorf("%v cannot be read: %v, %v", c.bad, s, err)
		case c.want > 0 && (err != nil || s == nil || s.Metadata != c.want):
			t.Errorf("%v cannot be read: %v, %v", c.bad, s, err)
		}
	}
}

// TestPairOfOtherVersions proves that a directory of another version is refused, even if one of
// the files is of this version.
func TestPairOfOtherVersions(t *testing.T) {
	for want, change := range map[error]func(b []byte){
		checkpoint.ErrNewer: func(b []byte) { b[9] = 7 },
		checkpoint.ErrOlder: func(b []byte) { copy(b, "LEATCP01") },
	} {
		for _, name := range []string{"checkpoint-a", "checkpoint-b"} {
			mem := newMem(t)
			p := newPair(mem)
			must(t, p.Save(numbered(1)))
			must(t, p.Save(numbered(2)))
			b := numbered(3).Encode()
			change(b)
			f, err := mem.Open(dirName+"/"+name, vfs.Existing)
			must(t, err)
			_, err = f.WriteAt(resum(b), 0)
			must(t, errors.Join(err, f.Close()))
			if s, _, err := newPair(mem).Load(); !errors.Is(err, want) {
				t.Errorf("%s: %v, %v", name, s, err)
			}
		}
	}
}

// TestPairFailsToLoad proves that a load which cannot open its files, or cannot make the newest
// one durable, returns an error.
func TestPairFailsToLoad(t *testing.T) {
	mem := newMem(t)
	p := newPair(mem)
	must(t, p.Save(numbered(1)))
	must(t, p.Save(numbered(2)))
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir} {
		fs := vfs.NewFaulty(mem.KillClone(nil), func(o vfs.Op, _ string) error {
			if o == op {
				return errInjected
			}
			return nil
		})
		if _, _, err := newPair(fs).Load(); !errors.Is(err, errInjected) {
			t.Errorf("%s failed: %v", op, err)
		}
	}
	mem.LimitHandles(0)
	if _, _, err := newPair(mem).Load(); !errors.Is(err, vfs.ErrNoHandles) {
		t.Errorf("without handles: %v", err)
	}
}
