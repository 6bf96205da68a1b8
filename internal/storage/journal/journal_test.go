package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// fate says how a write must be found by a scan.
type fate uint8

const (
	open  fate = iota // it did not return, or failed: whole or not at all, until a start has decided
	acked             // it is found whole
	gone              // it is never found whole
)

// written is a write and the parts that it had.
type written struct {
	fate  fate
	parts [][]byte // part i has partition i+1, and its data begin at startOf(i)
}

func startOf(part int) int64 { return int64(part) * 100_000 }

// saved is what a checkpoint file would hold: where a scan begins, and the first write that
// it meets there.
type saved struct {
	at    Mark
	first int
}

// ring is a journal on a file system that can crash, and the model of what it must hold.
type ring struct {
	tb  testing.TB
	rng *rand.Rand
	mem *vfs.Mem
	cfg Config
	j   *Journal

	writes     []written
	hot, older saved
	lives      int
	distrust   bool // a sync failed on this kernel

	crashIn  int // changing calls until the crash; 0: none is wanted
	kill     bool
	unnamed  map[string]bool // directories of which a sync failed in this life
	fallen   *vfs.Mem
	expected []written
	marks    [2]saved

	failIn  int // changing calls until one fails; 0: none does
	failErr error
}

func newRing(tb testing.TB, seed uint64) *ring {
	tb.Helper()
	r := &ring{tb: tb, rng: rand.New(rand.NewPCG(seed, 2)), mem: vfs.NewMem()}
	if err := errors.Join(r.mem.MkdirAll("data"), r.mem.SyncDir("/")); err != nil {
		tb.Fatal(err)
	}
	r.cfg = testConfig(r.mem)
	r.cfg.Size = ringFiles * block * int64(4+r.rng.IntN(12))
	r.open(r.mem)
	r.hot.at = r.j.Start()
	r.older = r.hot
	r.j.AllowWrites()
	return r
}

func testConfig(fs vfs.FS) Config {
	return Config{
		FS: fs, Dir: "data", ID: [16]byte{7}, Size: ringFiles * 4 * block, Log: slog.New(slog.DiscardHandler),
		Sync:    func(f vfs.File) error { return f.Sync() },
		SyncDir: fs.SyncDir,
		IsFull:  func(err error) bool { return errors.Is(err, vfs.ErrNoSpace) },
		HasRoom: func(int64) bool { return true },
		Written: func(bool, bool) {},
	}
}

func (r *ring) open(mem *vfs.Mem) {
	r.mem = mem
	r.cfg.FS = vfs.NewFaulty(mem, r.hook)
	r.unnamed = map[string]bool{}
	r.cfg.SyncDir = r.syncDir
	j, err := Open(r.cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.j = j
}

// hook stands before each call of the file system.
func (r *ring) hook(op vfs.Op, _ string) error {
	if !op.Changes() {
		return nil
	}
	if r.crashIn > 0 {
		if r.crashIn--; r.crashIn == 0 {
			r.fall()
		}
	}
	if r.failIn > 0 {
		if r.failIn--; r.failIn == 0 {
			if op == vfs.OpSync {
				r.distrust = true
			}
			if op == vfs.OpSyncDir && r.fallen == nil {
				r.kill = false // no process under the same kernel could bring the names back that are lost
			}
			return r.failErr
		}
	}
	return nil
}

// syncDir is a store's: it does not succeed after it failed.
func (r *ring) syncDir(dir string) error {
	if r.unnamed[dir] {
		return errNames
	}
	err := r.cfg.FS.SyncDir(dir)
	r.unnamed[dir] = err != nil
	return err
}

var errNames = errors.New("an earlier sync of the directory failed")

// fall takes the picture of what a crash leaves now.
func (r *ring) fall() {
	r.expected = append([]written(nil), r.writes...)
	r.marks = [2]saved{r.hot, r.older}
	if r.kill {
		r.fallen = r.mem.KillClone(r.rng)
	} else {
		r.fallen = r.mem.Crash(r.rng)
	}
}

// write writes some parts of random sizes.
func (r *ring) write() {
	var m Image
	w := written{}
	for i := range 1 + r.rng.IntN(4) {
		n := r.rng.IntN(300)
		switch r.rng.IntN(8) {
		case 0:
			n = r.rng.IntN(3 * r.j.RoundSize)
		case 1:
			n = 0
		}
		b := make([]byte, n)
		for k := range b {
			b[k] = byte(r.rng.Uint32())
		}
		w.parts = append(w.parts, b)
		cut := r.rng.IntN(n + 1)
		m.Add(r.part(len(r.writes), i), [][]byte{b[:cut], b[cut:]}, r.j.RoundSize)
	}
	r.writes = append(r.writes, w)
	err := r.j.Write(&m)
	last := &r.writes[len(r.writes)-1]
	switch {
	case err == nil:
		last.fate = acked
	case errors.Is(err, ErrLost):
		if r.j.Lost() == nil {
			r.tb.Fatal("a lost journal does not say so")
		}
	case errors.Is(err, ErrNoRoom):
		if r.j.Lost() != nil {
			r.tb.Fatalf("a journal without room is lost: %v", err)
		}
		last.fate = gone
	default:
		r.tb.Fatalf("write: %v", err)
	}
}

// part is the i-th part of a write, without data.
func (r *ring) part(write, i int) Part {
	return Part{
		Kind: Bytes, ID: record.LogID{Topic: [16]byte{byte(write >> 8), byte(write)}, Partition: int32(i + 1)},
		Dir: "topic-" + strconv.Itoa(i), Base: record.Offset(write), Pos: startOf(i), Offset: record.Offset(len(r.writes)),
	}
}

// checkpoint does what a store does: take a mark, save it, free what is before the last one.
func (r *ring) checkpoint() {
	s := saved{r.j.BeginCheckpoint(), len(r.writes)}
	if r.rng.IntN(4) == 0 { // bytes of some log could not be made durable
		held := max(s.at.Round, 3) - uint64(r.rng.IntN(3))
		if at := r.j.MarkBefore(held); at.Round > held && at.Round != r.older.at.Round || at.Round < r.older.at.Round {
			r.tb.Fatalf("the mark before %d is at %d", held, at.Round)
		} else if at.Round < s.at.Round {
			return // it keeps the one that it has
		}
	}
	r.older, r.hot = r.hot, s
	r.j.Recycle(min(r.older.at.Round, s.at.Round))
}

// story is a write as a scan found it.
type story struct {
	write   int
	whole   bool
	damaged bool // one of its rounds is broken
	parts   map[int][]byte
}

// scan reads the journal from a mark on and compares every part with the model.
func scan(tb testing.TB, j *Journal, from Mark, writes []written, rewrite bool) (found []story, at Mark, broken int) {
	tb.Helper()
	var now *story
	at, err := j.Scan(from, rewrite, func(e *Round) error {
		if e.Broken {
			broken++
			now = nil
		}
		for _, p := range e.Parts {
			w, i := int(p.Base), int(p.ID.Partition)-1
			if w >= len(writes) || i < 0 || i >= len(writes[w].parts) {
				return fmt.Errorf("round %d has a part that was never written: %+v", e.Number, p)
			}
			if e.Begins() && !e.Broken && now == nil || now == nil || now.write != w {
				found = append(found, story{write: w, damaged: e.Broken || !e.Begins(), parts: map[int][]byte{}})
				now = &found[len(found)-1]
			}
			now.damaged = now.damaged || e.Broken
			want := writes[w].parts[i]
			off := p.Pos - startOf(i)
			if off < 0 || off+int64(len(p.Data)) > int64(len(want)) || !bytes.Equal(p.Data, want[off:off+int64(len(p.Data))]) {
				return fmt.Errorf("round %d has other bytes of part %d of write %d", e.Number, i, w)
			}
			if !now.damaged && off != int64(len(now.parts[i])) {
				return fmt.Errorf("round %d: part %d of write %d goes on at %d, want %d", e.Number, i, w, off, len(now.parts[i]))
			}
			now.parts[i] = append(now.parts[i], p.Data...)
		}
		if now != nil && e.Ends() && !e.Broken {
			now.whole = !now.damaged
			if now.whole {
				for i, want := range writes[now.write].parts {
					if !bytes.Equal(now.parts[i], want) {
						return fmt.Errorf("write %d is said to be whole, and lacks bytes of part %d", now.write, i)
					}
				}
			}
			now = nil
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found, at, broken
}

// start scans what a crash left, compares it with the model and readies the journal.
func (r *ring) start() {
	from, first := r.hot, r.hot.first
	rewrite := r.distrust
	found, at, broken := scan(r.tb, r.j, from.at, r.writes, rewrite)
	if broken > 0 {
		r.tb.Fatalf("life %d: %d rounds are said to be broken, and nothing is", r.lives, broken)
	}
	whole := map[int]bool{}
	last := -1
	for _, s := range found {
		if s.write < last {
			r.tb.Fatalf("life %d: write %d is found behind %d", r.lives, s.write, last)
		}
		last = s.write
		if s.whole && r.writes[s.write].fate == gone {
			r.tb.Fatalf("life %d: write %d is found, which never came to its end", r.lives, s.write)
		}
		whole[s.write] = whole[s.write] || s.whole
	}
	for i, w := range r.writes {
		if i >= first && w.fate == acked && !whole[i] {
			r.tb.Fatalf("life %d: write %d of %d is lost (from %+v to %+v)", r.lives, i, len(r.writes), from.at, at)
		}
	}
	r.checkDamage(from, found)
	err := r.j.Resume(r.older.at, from.at, at)
	if r.fallen != nil {
		return
	}
	if err != nil {
		r.tb.Fatal(err)
	}
	for i := range r.writes {
		if r.writes[i].fate != acked && whole[i] {
			r.writes[i].fate = acked
		} else if r.writes[i].fate == open {
			r.writes[i].fate = gone
		}
	}
	r.j.AllowWrites()
}

// checkDamage damages the journal in some ways and compares what is found in it.
func (r *ring) checkDamage(from saved, want []story) {
	infos, err := r.mem.ReadDir("data/" + DirName)
	if err != nil || len(infos) == 0 {
		return // nothing was written yet
	}
	i := infos[r.rng.IntN(len(infos))]
	d := damaged{FS: r.mem, name: "data/" + DirName + "/" + i.Name, n: block, missing: true}
	r.expectDamage("without "+i.Name, &d, from, want, len(want))
	for range 3 {
		i := infos[r.rng.IntN(len(infos))]
		if i.Size == 0 {
			continue
		}
		at := r.rng.Int64N(i.Size)
		if r.rng.IntN(2) == 0 { // a head, or the bytes close behind it
			at = min(at/block*block+r.rng.Int64N(200), i.Size-1)
		}
		d := damaged{FS: r.mem, name: "data/" + DirName + "/" + i.Name, at: at, n: 1, mask: 1 << r.rng.IntN(8)}
		r.expectDamage(fmt.Sprintf("byte %d of %s flipped", at, i.Name), &d, from, want, 1)
		d.at, d.n, d.mask = at/block*block, block, 0
		r.expectDamage(fmt.Sprintf("block at %d of %s unreadable", d.at, i.Name), &d, from, want, 1)
	}
}

// expectDamage scans a damaged journal: at most some writes are missing, and where a later
// one is there, that is said.
func (r *ring) expectDamage(what string, fs vfs.FS, from saved, want []story, most int) {
	cfg := r.cfg
	cfg.FS = fs
	j, err := Open(cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	defer j.Close()
	found, _, broken := scan(r.tb, j, from.at, r.writes, false)
	have := map[int]bool{}
	lastWhole := -1
	for _, s := range found {
		if r.writes[s.write].fate == gone && !s.damaged && s.whole {
			r.tb.Fatalf("life %d: %s: write %d is found, which never came to its end", r.lives, what, s.write)
		}
		if s.whole {
			have[s.write] = true
			lastWhole = max(lastWhole, s.write)
		}
	}
	lost, said, known := 0, false, map[int]bool{}
	for _, s := range want {
		known[s.write] = true
		if s.whole && !have[s.write] {
			lost++
			said = said || s.write < lastWhole
		}
	}
	for _, s := range found {
		if !known[s.write] {
			r.tb.Fatalf("life %d: %s: parts of write %d appear, which were not in the journal", r.lives, what, s.write)
		}
	}
	if lost > most {
		r.tb.Fatalf("life %d: %s: %d writes are lost (of %d; broken %d)", r.lives, what, lost, len(want), broken)
	}
	if said && broken == 0 {
		r.tb.Fatalf("life %d: %s: %d writes are lost and nobody is told", r.lives, what, lost)
	}
	if broken > 0 && lost == 0 && most == 1 && !hasHalf(want) {
		r.tb.Fatalf("life %d: %s: nothing is lost, and %d rounds are said to be broken", r.lives, what, broken)
	}
}

func hasHalf(all []story) bool {
	for _, s := range all {
		if !s.whole {
			return true
		}
	}
	return false
}

// damaged is a file system of which one file is missing, or has some bytes that are others or
// cannot be read.
type damaged struct {
	vfs.FS
	name    string
	at, n   int64
	mask    byte // 0: they cannot be read
	missing bool
}

func (d *damaged) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := d.FS.Open(name, mode)
	if err != nil || name != d.name {
		return f, err
	}
	return &damagedFile{f, d}, nil
}

func (d *damaged) ReadDir(dir string) ([]vfs.Info, error) {
	infos, err := d.FS.ReadDir(dir)
	return slices.DeleteFunc(infos, func(i vfs.Info) bool { return d.missing && dir+"/"+i.Name == d.name }), err
}

// SyncDir does nothing: the undamaged files are of another journal.
func (*damaged) SyncDir(string) error { return nil }

type damagedFile struct {
	vfs.File
	d *damaged
}

func (f *damagedFile) ReadAt(b []byte, off int64) (int, error) {
	d := f.d
	if off >= d.at+d.n || off+int64(len(b)) <= d.at {
		return f.File.ReadAt(b, off)
	}
	if d.mask == 0 {
		return 0, syscall.EIO
	}
	n, err := f.File.ReadAt(b, off)
	if at := d.at - off; at >= 0 && at < int64(n) {
		b[at] ^= d.mask
	}
	return n, err
}

// live does random things until the crash.
func (r *ring) live() {
	r.kill = r.rng.IntN(3) == 0
	r.crashIn = 1 + r.rng.IntN(1<<(1+r.rng.IntN(8)))
	for n := 0; n < 200 && r.fallen == nil; n++ {
		switch p := r.rng.IntN(20); {
		case p < 16:
			r.write()
		case p < 19:
			r.checkpoint()
		default:
			r.fill()
		}
	}
	if r.fallen == nil {
		r.fall()
	}
}

func (r *ring) fill() {
	var stop atomic.Bool
	r.j.Fill(&stop)
}

// crash goes on with what the crash left.
func (r *ring) crash() {
	if !r.kill {
		r.distrust = false
	}
	r.j.Close()
	r.writes, r.hot, r.older = r.expected, r.marks[0], r.marks[1]
	mem := r.fallen
	r.crashIn, r.failIn, r.fallen = 0, 0, nil
	r.lives++
	if r.rng.IntN(5) == 0 { // the newest checkpoint rots
		r.hot = r.older
	}
	if r.rng.IntN(3) == 0 { // and the start itself is cut
		r.kill = r.rng.IntN(2) == 0
		r.crashIn = 1 + r.rng.IntN(8)
	}
	r.open(mem)
	if r.fallen == nil {
		r.start()
	}
	if r.fallen != nil {
		r.crash()
	}
	r.crashIn = 0
}

// seeds are those that a test of crashes runs.
func seeds(tb testing.TB, n int) (from, to int) {
	tb.Helper()
	if testing.Short() {
		n = min(n/20+1, n)
	}
	if v := os.Getenv("LEAT_TEST_SEED"); v != "" {
		seed, err := strconv.Atoi(v)
		if err != nil {
			tb.Fatal(err)
		}
		return seed, seed + 1
	}
	if v := os.Getenv("LEAT_TEST_SEEDS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			tb.Fatal(err)
		}
	}
	return 0, n
}

// TestCrash proves, with many seeds, that a write which has returned is found complete and in
// order after a power cut or a kill at any call; that a write which has not returned is found
// complete or not at all, and that it does not appear in a later start than the first; that no
// round of an earlier lap is found instead of one of this lap; and that an undamaged journal is
// never reported as damaged. If a bit of the journal is flipped, a block cannot be read, or a
// file is missing, all other writes are found, and the loss is reported, unless it is that of
// the last write, which looks like an incomplete one.
func TestCrash(t *testing.T) {
	t.Parallel()
	from, to := seeds(t, 200)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			r := newRing(t, uint64(seed))
			for range 2 + r.rng.IntN(5) {
				r.live()
				r.crash()
			}
			r.j.Close()
		})
	}
}

// TestCrashAfterError proves the same if a call of the file system fails before the crash.
func TestCrashAfterError(t *testing.T) {
	t.Parallel()
	from, to := seeds(t, 200)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			r := newRing(t, uint64(seed))
			for range 2 + r.rng.IntN(5) {
				r.failIn = 1 + r.rng.IntN(60)
				r.failErr = [...]error{
					syscall.EIO, vfs.ErrNoSpace, vfs.ErrNoHandles,
					&vfs.ShortWriteError{N: r.rng.Int64N(3 * block), Err: vfs.ErrNoSpace},
					&vfs.ShortWriteError{N: r.rng.Int64N(3 * block), Err: syscall.EIO},
				}[r.rng.IntN(5)]
				r.live()
				r.crash()
			}
			r.j.Close()
		})
	}
}

// FuzzScan proves that a scan of any bytes ends: the rounds that it finds have rising numbers,
// and it visits at most one round, and one broken round, for each block of the files. The input
// changes bytes of a journal. The checksums of heads are made right again, so that the heads
// have any numbers, lengths and flags.
func FuzzScan(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 24, 255, 1, 31, 7, 2, 40, 200, 3, 44, 2})
	f.Add([]byte{1, 31, 2, 1, 32, 0, 0, 44, 1, 1, 44, 1, 2, 44, 1, 3, 43, 0})
	f.Add([]byte{0, 24, 255, 0, 25, 255, 0, 26, 255, 0, 27, 255, 0, 28, 255, 0, 29, 255, 0, 30, 255, 0, 31, 255})
	mem := vfs.NewMem()
	j := filledJournal(f, mem)
	j.Close()
	f.Fuzz(func(t *testing.T, changes []byte) {
		mem := mem.KillClone(nil)
		file, err := mem.Open("data/journal/0000.ring", vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4*block)
		if _, err := file.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		for ; len(changes) >= 3; changes = changes[3:] {
			b[int(changes[0])%4*block+int(changes[1])] = changes[2]
		}
		for head := b; len(head) > 0; head = head[block:] {
			be.PutUint32(head[4:], crc32.Checksum(head[8:roundHead], castagnoli))
		}
		if _, err := file.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		j, err := Open(testConfig(mem))
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		visits, last := 0, uint64(0)
		at, err := j.Scan(Mark{Round: 1}, false, func(r *Round) error {
			if visits++; r.Number <= last || visits > 2*ringFiles*4 {
				t.Fatalf("visit %d: round %d after %d", visits, r.Number, last)
			}
			last = r.Number
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Resume(Mark{Round: 1}, Mark{Round: 1}, at); err != nil {
			t.Fatal(err)
		}
	})
}

// filledJournal is a journal with a file of four small rounds and some more.
func filledJournal(tb testing.TB, mem *vfs.Mem) *Journal {
	tb.Helper()
	if err := mem.MkdirAll("data"); err != nil {
		tb.Fatal(err)
	}
	j, err := Open(testConfig(mem))
	if err != nil {
		tb.Fatal(err)
	}
	j.Start()
	j.AllowWrites()
	for i := range 6 {
		var m Image
		m.Add(Part{Kind: Bytes, Dir: "topic-0", Pos: int64(10 * i)}, [][]byte{[]byte("some bytes")}, j.RoundSize)
		if err := j.Write(&m); err != nil {
			tb.Fatal(err)
		}
	}
	return j
}

// TestOtherSize proves that rounds after a damaged one are found in files that were made with
// other settings, larger or smaller.
func TestOtherSize(t *testing.T) {
	for _, size := range []int64{4, 64} {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("data"); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(mem)
		cfg.Size = 16 * block * ringFiles
		j, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		j.Start()
		j.AllowWrites()
		const writes = 30
		for i := range writes {
			var m Image
			m.Add(Part{Kind: Bytes, Dir: "topic-0", Pos: int64(i)}, [][]byte{{byte(i)}}, j.RoundSize)
			if err := j.Write(&m); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
		for lost := range writes - 1 {
			file := fmt.Sprintf("data/journal/%04d.ring", lost/16)
			cfg.FS = &damaged{FS: mem, name: file, at: int64(lost%16) * block, n: block}
			cfg.Size = size * block * ringFiles
			j, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			found, broken := 0, 0
			if _, err := j.Scan(Mark{Round: 1}, false, func(r *Round) error {
				if r.Broken {
					broken++
				} else {
					found++
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if found != writes-1 || broken != 1 {
				t.Errorf("files of %d blocks, write %d cannot be read: %d others are found, %d broken", size, lost, found, broken)
			}
			j.Close()
		}
	}
}

// TestFailedCreations proves that a file of the ring which could not be made is made later, and
// that a journal of which a sync has failed is lost from then on.
func TestFailedCreations(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data"); err != nil {
		t.Fatal(err)
	}
	failing := vfs.Op(255)
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, _ string) error {
		if op == failing {
			return vfs.ErrNoHandles
		}
		return nil
	}))
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	j.Start()
	j.AllowWrites()
	write := func() error {
		var m Image
		m.Add(Part{Kind: Bytes, Dir: "topic-0"}, [][]byte{make([]byte, 100)}, j.RoundSize)
		return j.Write(&m)
	}
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpMkdir, vfs.OpSyncDir} {
		failing = op
		for range 3 * ringFiles {
			if err := write(); !errors.Is(err, ErrNoRoom) || j.Lost() != nil {
				t.Fatalf("%v fails: %v", op, err)
			}
		}
	}
	failing = vfs.Op(255)
	for i := range 4 * (ringFiles + spareFiles) { // four in each file
		if err := write(); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	if err := write(); !errors.Is(err, ErrNoRoom) || j.Lost() != nil {
		t.Fatalf("the ring is full: %v", err)
	}
	j.Recycle(j.BeginCheckpoint().Round)
	if err := write(); err != nil {
		t.Fatal(err)
	}
	failing = vfs.OpSync
	if err := write(); !errors.Is(err, ErrLost) {
		t.Fatalf("a sync fails: %v", err)
	}
	failing = vfs.Op(255)
	if err := write(); !errors.Is(err, ErrLost) || !errors.Is(j.Lost(), ErrLost) {
		t.Fatalf("after a failed sync: %v", err)
	}
}

// BenchmarkWrite measures a write of one part, and what it allocates, without a disk.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			mem := vfs.NewMem()
			if err := mem.MkdirAll("data"); err != nil {
				b.Fatal(err)
			}
			cfg := testConfig(mem)
			cfg.Size = 4 << 20
			j, err := Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			j.Start()
			j.AllowWrites()
			bufs := [][]byte{make([]byte, size)}
			var m Image
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				m.Add(Part{Kind: Bytes, Dir: "topic-0"}, bufs, j.RoundSize)
				if err := j.Write(&m); err != nil {
					b.Fatal(err)
				}
				m.Reset()
				j.Recycle(j.BeginCheckpoint().Round)
			}
		})
	}
}

// TestAddAllocatesNothing proves that Add to an image that was used before allocates nothing.
func TestAddAllocatesNothing(t *testing.T) {
	var m Image
	bufs := [][]byte{make([]byte, 1000), make([]byte, 2000)}
	add := func() {
		for range 5 {
			m.Add(Part{Kind: Bytes, Dir: "topic-0"}, bufs, 1<<20)
		}
		m.Reset()
	}
	add()
	if n := testing.AllocsPerRun(100, add); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
