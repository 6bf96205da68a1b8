package quorum

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a state machine that keeps the text of every entry. It cannot apply an
// entry that is "poison".
type machine struct {
	mu    sync.Mutex
	lines []string
	calls []Update
}

func (m *machine) apply(u Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, u)
	if u.Snapshot != nil {
		m.lines = nil
		if len(u.Snapshot) > 0 {
			m.lines = strings.Split(string(u.Snapshot), "\n")
		}
	}
	for _, e := range u.Entries {
		if string(e.Data) == "poison" {
			return fmt.Errorf("entry %d is poison", e.Index)
		}
		m.lines = append(m.lines, string(e.Data))
	}
	return nil
}

func (m *machine) capture() func() []byte {
	lines := m.state()
	return func() []byte { return []byte(strings.Join(lines, "\n")) }
}

func (m *machine) state() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.lines)
}

// small makes log files small, so that a test has many of them.
var small = tuning{first: 2048, segment: 2048, reserve: 1024, tick: 100 * time.Millisecond, part: 3000}

func config(fs vfs.FS, m *machine) Config {
	return Config{
		ID: 1, Dir: "data/meta", FS: fs, Logger: slog.New(slog.DiscardHandler),
		Apply: m.apply, Capture: m.capture, SnapshotBytes: 4096,
	}
}

// newFS makes a file system with the node's data directory in it.
func newFS() *vfs.Mem {
	fs := vfs.NewMem()
	_ = fs.MkdirAll("data")
	_ = fs.SyncDir("/")
	return fs
}

func start(t *testing.T, fs vfs.FS) (*Node, *machine) {
	t.Helper()
	m := &machine{}
	n, err := openTuned(config(fs, m), small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNode(n) })
	return n, m
}

func closeNode(n *Node) error { return n.Close(context.Background()) }

// put proposes in the term in which the node leads.
func put(ctx context.Context, n *Node, data []byte) error {
	term, _ := n.Leading()
	return n.Propose(ctx, term, data)
}

func propose(t *testing.T, n *Node, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if err := put(t.Context(), n, []byte(l)); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitSnapshot returns when a snapshot that was asked for is on disk: a stop does not
// wait for one that has not been begun.
func awaitSnapshot(fs vfs.FS) {
	awaitFile(fs, func(name string) bool { return strings.HasSuffix(name, snapshotSuffix) })
}

// awaitSpare returns when the log's next file is made.
func awaitSpare(fs vfs.FS) { awaitFile(fs, func(name string) bool { return name == spareName }) }

func awaitFile(fs vfs.FS, isIt func(name string) bool) {
	for {
		if infos, _ := fs.ReadDir("data/meta"); slices.ContainsFunc(infos, func(i vfs.Info) bool { return isIt(i.Name) }) {
			return
		}
		runtime.Gosched()
	}
}

func count(from, to int) (lines []string) {
	for i := from; i < to; i++ {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	return lines
}

// TestRestart proves that a node leads at once, that proposals are applied when Propose
// returns, in order, and that restarts keep them.
func TestRestart(t *testing.T) {
	fs := newFS()
	term := uint64(0)
	for life := range 30 {
		n, m := start(t, fs)
		if diff := cmp.Diff(count(0, life*7), m.state()); diff != "" {
			t.Fatal(diff)
		}
		for _, l := range count(life*7, life*7+7) {
			propose(t, n, l)
			if got := m.state(); got[len(got)-1] != l {
				t.Fatalf("%q was acknowledged before it was applied", l)
			}
		}
		s := n.Status()
		if s.Leader != 1 || s.Term <= term || s.Commit != s.Applied || !slices.Equal(s.Voters, []int32{1}) {
			t.Fatalf("after term %d: %+v", term, s)
		}
		term = s.Term
		if err := closeNode(n); err != nil {
			t.Fatal(err)
		}
		if err := put(t.Context(), n, []byte("x")); !errors.Is(err, ErrNotLeader) {
			t.Fatalf("a closed node: %v", err)
		}
	}
}

// TestSnapshots proves that the log is bounded, since a written snapshot replaces it, that
// restarts begin with the snapshot, and that no old file stays.
func TestSnapshots(t *testing.T) {
	fs := newFS()
	n, m := start(t, fs)
	look := func() (snapshots int, bytes int64) {
		infos, _ := fs.ReadDir("data/meta")
		for _, i := range infos {
			switch _, suffix := splitName(i.Name); suffix {
			case logSuffix:
				bytes += i.Size
			case snapshotSuffix:
				snapshots++
			}
		}
		return snapshots, bytes
	}
	propose(t, n, count(0, 1000)...)
	snapshots, bytes := look()
	for i := 1000; i < 5000 && (snapshots != 1 || bytes > 4*4096); i++ { // snapshots are made beside the loop
		propose(t, n, count(i, i+1)...)
		snapshots, bytes = look()
	}
	closeNode(n)
	if snapshots != 1 || bytes > 4*4096 {
		t.Errorf("%d snapshots, %d bytes of log", snapshots, bytes)
	}
	n, again := start(t, fs)
	if diff := cmp.Diff(m.state(), again.state()); diff != "" {
		t.Error(diff)
	}
	if again.calls[0].Snapshot == nil || len(again.calls) > 1 {
		t.Errorf("%d updates, the first one has a snapshot of %d bytes", len(again.calls), len(again.calls[0].Snapshot))
	}
	propose(t, n, "after")
}

// TestFirstStartSyncs proves that a start in an empty directory syncs a file for the vote and
// for the first entry, and each directory once, and that a proposal needs one more sync.
func TestFirstStartSyncs(t *testing.T) {
	var mu sync.Mutex
	syncs := map[vfs.Op]int{}
	fs := vfs.NewFaulty(newFS(), func(op vfs.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		syncs[op]++
		return nil
	})
	n, err := Open(config(fs, &machine{}))
	if err != nil {
		t.Fatal(err)
	}
	if syncs[vfs.OpSync] != 2 || syncs[vfs.OpSyncDir] != 2 {
		t.Errorf("first start: %v", syncs)
	}
	propose(t, n, "x")
	closeNode(n)
	if syncs[vfs.OpSync] != 3 {
		t.Errorf("first proposal: %v", syncs)
	}
}

var errPower = errors.New("no power")

// life runs a node until its disk has done limit changes, then calls cut and fails all further
// ones. It returns how many lines were acknowledged, and whether that was all of them.
func life(disk *vfs.Mem, limit int, lines []string, cut func()) (acked int, all bool) {
	var mu sync.Mutex
	done := 0
	fs := vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if !op.Changes() {
			return nil
		}
		if done++; done == limit {
			cut()
		}
		if done >= limit {
			return errPower
		}
		return nil
	})
	n, err := openTuned(config(fs, &machine{}), small)
	if err != nil {
		return 0, false
	}
	defer closeNode(n)
	for i, l := range lines {
		err := put(context.Background(), n, []byte(l))
		mu.Lock()
		// A sync that began before the cut may end after it, since another goroutine's call can
		// make the cut: the disk at the cut need not have a line that is acknowledged then.
		over := done >= limit
		mu.Unlock()
		if err != nil || over {
			return i, false
		}
	}
	return len(lines), true
}

// TestFirstStartCut proves that a power cut or a kill before any single change of the disk,
// during the first start and the first proposals, leaves a directory that starts and has all
// acknowledged lines.
func TestFirstStartCut(t *testing.T) {
	lines := count(0, 60)
	for limit := 1; ; limit++ {
		disk := newFS()
		var left []*vfs.Mem
		acked, all := life(disk, limit, lines, func() {
			rng := rand.New(rand.NewPCG(uint64(limit), 1))
			for range 8 {
				left = append(left, disk.Crash(rng))
			}
			killed := disk.KillClone(nil)
			left = append(left, killed, killed.Crash(rng))
		})
		if all {
			if limit < 100 {
				t.Fatalf("only %d changes: this proves little", limit)
			}
			return
		}
		for i, fs := range left {
			if err := verify(fs, lines, acked); err != nil {
				t.Fatalf("cut before change %d, outcome %d: %v", limit, i, err)
			}
		}
	}
}

// verify starts a node, checks that it has the acknowledged lines and at most one more, and
// that it accepts a proposal.
func verify(fs vfs.FS, lines []string, acked int) error {
	m := &machine{}
	n, err := openTuned(config(fs, m), small)
	if err != nil {
		return err
	}
	defer closeNode(n)
	got := m.state()
	if len(got) < acked || len(got) > acked+1 || !slices.Equal(got, lines[:len(got)]) {
		return fmt.Errorf("%d lines were acknowledged, %d are there: %q", acked, len(got), got)
	}
	return put(context.Background(), n, []byte("more"))
}

// TestCrash proves, with many seeds, that power cuts and kills at random moments, one after
// another, lose no acknowledged line and add none that was never proposed.
func TestCrash(t *testing.T) {
	seeds := uint64(1500)
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		if err := crashSeed(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func crashSeed(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	disk := newFS()
	var have []string // acknowledged or found
	sure := 0         // so many of them: what was only found may be lost until something was acknowledged after it
	for i := range 4 {
		// Each line has its own length, so that frames lie across sectors.
		var lines []string
		for j := range 60 {
			lines = append(lines, fmt.Sprintf("%d-%d-%s", i, j, strings.Repeat("x", rng.IntN(200))))
		}
		var next *vfs.Mem
		limit := 1 + rng.IntN(160)
		if rng.IntN(3) == 0 {
			limit = 1 + rng.IntN(12) // within the start
		}
		acked, _ := life(disk, limit, lines, func() {
			if next = disk.KillClone(rng2(rng)); rng.IntN(3) > 0 {
				next = disk.Crash(rng)
			}
		})
		if next == nil {
			next = disk.Crash(rng)
		}
		disk = next
		m := &machine{}
		n, err := openTuned(config(disk.KillClone(nil), m), small) // a clone: the next life starts from disk itself
		if err != nil {
			return fmt.Errorf("life %d: %w", i, err)
		}
		closeNode(n)
		got := m.state()
		want := slices.Concat(have, lines)
		if acked > 0 {
			sure = len(have) + acked
		}
		if len(got) < sure || len(got) > len(have)+acked+1 || !slices.Equal(got, want[:len(got)]) {
			return fmt.Errorf("life %d: %d found, then %d acknowledged; %d sure, %d there", i, len(have), acked, sure, len(got))
		}
		have = got
	}
	return nil
}

// rng2 is nil half of the time: then a kill cuts no write. The cut comes before a
// change is made, so the write before it may be one that was acknowledged; only a
// sync makes it safe from being cut, and KillClone knows that.
func rng2(rng *rand.Rand) *rand.Rand {
	if rng.IntN(2) == 0 {
		return nil
	}
	return rng
}

// TestFaults proves that after a failed write or sync no proposal is acknowledged, that this
// is logged once, and that a restart has all acknowledged lines.
func TestFaults(t *testing.T) {
	errDisk := errors.New("medium error")
	for _, bad := range []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpSyncDir, vfs.OpRename} {
		t.Run(bad.String(), func(t *testing.T) {
			var mu sync.Mutex
			broken := false
			disk := newFS()
			fs := vfs.NewFaulty(disk, func(op vfs.Op, path string) error {
				mu.Lock()
				defer mu.Unlock()
				// The spare file is made ahead, and may fail without harm.
				if broken && op == bad && !strings.Contains(path, spareName+tmpSuffix) {
					return errDisk
				}
				return nil
			})
			var text strings.Builder
			m := &machine{}
			cfg := config(fs, m)
			cfg.Logger = slog.New(slog.NewTextHandler(&text, nil))
			n, err := openTuned(cfg, small)
			if err != nil {
				t.Fatal(err)
			}
			propose(t, n, count(0, 5)...)
			mu.Lock()
			broken = true
			mu.Unlock()
			acked := 5
			for err == nil { // a rename fails when the file is full
				if err = put(t.Context(), n, fmt.Appendf(nil, "line %d", acked)); err == nil {
					acked++
				}
			}
			if !errors.Is(err, ErrFaulted) || acked > 200 {
				t.Fatalf("after %d: %v", acked, err)
			}
			mu.Lock()
			broken = false
			mu.Unlock()
			if err := put(t.Context(), n, []byte("x")); !errors.Is(err, ErrFaulted) {
				t.Fatalf("a faulted node: %v", err)
			}
			closeNode(n)
			if lines := strings.Count(text.String(), "level=ERROR"); lines != 1 {
				t.Errorf("%d lines were logged:\n%s", lines, text.String())
			}
			if err := verify(disk.Crash(rand.New(rand.NewPCG(1, 1))), count(0, acked+1), acked); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestartAfterFailedSync proves that a start makes durable the entries that a failed sync
// has left in the page cache only, before later entries depend on them: after a power cut at
// any change after the restart, the disk has them, or it has no later entry.
func TestRestartAfterFailedSync(t *testing.T) {
	disk := newFS()
	var fails atomic.Bool
	fs := vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
		if fails.Load() && op == vfs.OpSync {
			return errPower
		}
		return nil
	})
	n, _ := start(t, fs)
	lines := count(0, 20)
	propose(t, n, lines[:3]...)
	fails.Store(true)
	if err := put(t.Context(), n, []byte(lines[3])); !errors.Is(err, ErrFaulted) {
		t.Fatal(err)
	}
	closeNode(n)
	for limit := 1; ; limit++ {
		again := disk.KillClone(nil)
		var left []*vfs.Mem
		acked, all := life(again, limit, lines[4:8], func() {
			rng := rand.New(rand.NewPCG(uint64(limit), 3))
			for range 20 {
				left = append(left, again.Crash(rng))
			}
		})
		if all {
			return
		}
		for i, fs := range left {
			m := &machine{}
			n, err := openTuned(config(fs, m), small)
			if err != nil {
				t.Fatalf("cut before change %d, outcome %d: %v", limit, i, err)
			}
			closeNode(n)
			got := m.state()
			if len(got) < 3 || acked > 0 && len(got) < 4+acked || !slices.Equal(got, lines[:len(got)]) {
				t.Fatalf("cut before change %d, outcome %d: %q", limit, i, got)
			}
		}
	}
}

// TestRestartAfterUnsyncedNames proves that a start makes durable the names that a killed
// process has made and not synced: lines that are acknowledged after such a restart survive a
// power cut.
func TestRestartAfterUnsyncedNames(t *testing.T) {
	disk := newFS()
	var killed []*vfs.Mem // as the process left it each time before it synced names
	fs := vfs.NewFaulty(disk, func(op vfs.Op, _ string) error {
		if op == vfs.OpSyncDir {
			killed = append(killed, disk.KillClone(nil))
		}
		return nil
	})
	n, err := openTuned(config(fs, &machine{}), small)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, n, count(0, 60)...)
	closeNode(n)
	if len(killed) < 6 {
		t.Fatalf("names were synced %d times only: the log has hardly been rotated", len(killed))
	}
	for i, again := range killed {
		n, err := openTuned(config(again, &machine{}), small)
		if err != nil {
			t.Fatalf("killed before sync %d of names: %v", i, err)
		}
		propose(t, n, "acknowledged")
		rng := rand.New(rand.NewPCG(uint64(i), 5))
		var left []*vfs.Mem
		for range 20 {
			left = append(left, again.Crash(rng))
		}
		closeNode(n)
		for j, fs := range left {
			m := &machine{}
			n, err := openTuned(config(fs, m), small)
			if err != nil {
				t.Fatalf("killed before sync %d of names, outcome %d of the power cut: %v", i, j, err)
			}
			closeNode(n)
			if got := m.state(); len(got) == 0 || got[len(got)-1] != "acknowledged" {
				t.Fatalf("killed before sync %d of names, outcome %d of the power cut: %q", i, j, got)
			}
		}
	}
}

// TestCutTail proves that a torn last write loses only itself, and that none of its bytes stay
// in the file, where they could follow later frames.
func TestCutTail(t *testing.T) {
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, "kept", strings.Repeat("cut", 50))
	closeNode(n)
	name := "data/meta/" + fileName(1, logSuffix)
	f, err := fs.Open(name, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := readAll(f)
	at := strings.Index(string(b), "cutcut") + 30
	write(t, fs, name, make([]byte, 512), int64(at))
	n, m := start(t, fs)
	if diff := cmp.Diff([]string{"kept"}, m.state()); diff != "" {
		t.Error(diff)
	}
	closeNode(n)
	if b, _ := readAll(f); strings.Contains(string(b), "cutcut") {
		t.Error("the rest of the cut write is still there")
	}
}

// TestFullDisk proves that on a full disk a node accepts proposals while its log has room,
// then refuses them with ErrDiskFull without harm, can be restarted many times, and accepts
// proposals when there is room again.
func TestFullDisk(t *testing.T) {
	fs := newFS()
	n, _ := start(t, fs)
	propose(t, n, count(0, 5)...)
	awaitSpare(fs)
	fs.SetFree(0)
	acked := 5
	var err error
	for err == nil {
		if err = put(t.Context(), n, fmt.Appendf(nil, "line %d", acked)); err == nil {
			acked++
		}
	}
	if !errors.Is(err, ErrDiskFull) || acked < 8 {
		t.Fatalf("after %d: %v", acked, err)
	}
	for range 5 {
		closeNode(n)
		var m *machine
		n, m = start(t, fs)
		if diff := cmp.Diff(count(0, acked), m.state()); diff != "" {
			t.Fatal(diff)
		}
		if err := put(t.Context(), n, []byte("x")); !errors.Is(err, ErrDiskFull) {
			t.Fatalf("after a restart: %v", err)
		}
	}
	fs.SetFree(1 << 20)
	propose(t, n, count(acked, acked+100)...)
	closeNode(n)
	if err := verify(fs, count(0, acked+100), acked+100); err != nil {
		t.Error(err)
	}
}

// TestFullDiskSnapshot proves that if there is no room for a snapshot only the log grows, and
// that the snapshot is made later.
func TestFullDiskSnapshot(t *testing.T) {
	var mu sync.Mutex
	full := true
	mem := newFS()
	fs := vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		if full && op == vfs.OpWrite && strings.Contains(path, snapshotSuffix) {
			return vfs.ErrNoSpace
		}
		return nil
	})
	n, _ := start(t, fs)
	propose(t, n, count(0, 300)...)
	mu.Lock()
	full = false
	mu.Unlock()
	propose(t, n, count(300, 400)...)
	awaitSnapshot(mem)
	closeNode(n)
	infos, _ := mem.ReadDir("data/meta")
	if !slices.ContainsFunc(infos, func(i vfs.Info) bool { return strings.HasSuffix(i.Name, snapshotSuffix) }) {
		t.Errorf("no snapshot: %v", infos)
	}
	if err := verify(mem, count(0, 400), 400); err != nil {
		t.Error(err)
	}
}

// TestConcurrent proves that the proposals of many callers are all applied once, those of each
// caller in order, and that proposals which wait share a sync.
func TestConcurrent(t *testing.T) {
	const callers, each = 16, 50
	var mu sync.Mutex
	syncs := 0
	fs := vfs.NewFaulty(newFS(), func(op vfs.Op, path string) error {
		if op == vfs.OpSync && strings.HasSuffix(path, logSuffix) {
			mu.Lock()
			syncs++
			mu.Unlock()
			for range 20 {
				runtime.Gosched() // others come meanwhile, as with a real disk
			}
		}
		return nil
	})
	n, m := start(t, fs)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if err := put(t.Context(), n, fmt.Appendf(nil, "%d %d", c, i)); err != nil {
					t.Error(err)
				}
				n.Status()
			}
		})
	}
	wg.Wait()
	next := [callers]int{}
	for _, l := range m.state() {
		var c, i int
		fmt.Sscan(l, &c, &i)
		if i != next[c] {
			t.Fatalf("caller %d: %d follows %d", c, i, next[c]-1)
		}
		next[c]++
	}
	for c, got := range next {
		if got != each {
			t.Errorf("caller %d: %d applied", c, got)
		}
	}
	mu.Lock() // the next file of the log may still be made
	defer mu.Unlock()
	if syncs > callers*each*3/4 { // how many wait together is the scheduler's choice
		t.Errorf("%d syncs for %d proposals", syncs, callers*each)
	}
}

// hangingDisk makes syncs wait while hang is set, until goOn is closed.
type hangingDisk struct {
	hang    atomic.Bool
	entered chan struct{} // one for each sync that waits
	goOn    chan struct{}
}

func newHangingFS() (vfs.FS, *hangingDisk) {
	d := &hangingDisk{entered: make(chan struct{}, 100), goOn: make(chan struct{})}
	return vfs.NewFaulty(newFS(), func(op vfs.Op, _ string) error {
		if op == vfs.OpSync && d.hang.Load() {
			d.entered <- struct{}{}
			<-d.goOn
		}
		return nil
	}), d
}

// TestHanging proves that a caller waits for a hanging disk only until its context ends, that
// Close answers proposals that wait, and that an entry which the disk has written is not lost.
func TestHanging(t *testing.T) {
	fs, disk := newHangingFS()
	n, _ := start(t, fs)
	disk.hang.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- put(ctx, n, []byte("first")) }()
	<-disk.entered
	go func() { second <- put(ctx, n, []byte("second")) }() // never handed over
	cancel()
	for _, c := range []chan error{first, second} {
		if err := <-c; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	third := make(chan error, 1)
	go func() { third <- put(t.Context(), n, []byte("third")) }()
	n.closing.Do(func() { close(n.stop) })
	close(disk.goOn)
	closeNode(n)
	if err := <-third; err != nil && !errors.Is(err, ErrNotLeader) {
		t.Error(err)
	}
	_, m := start(t, fs) // the first was committed, whether or not this life has come to apply it
	if got := m.state(); len(got) == 0 || got[0] != "first" {
		t.Errorf("applied %q", got)
	}
}

// TestSizes proves that a proposal of the largest size is stored and read back, and that a
// larger one is refused.
func TestSizes(t *testing.T) {
	fs := newFS()
	m := &machine{}
	cfg := config(fs, m)
	cfg.SnapshotBytes = 1 << 30
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), n, make([]byte, MaxProposal+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	big := strings.Repeat("b", MaxProposal)
	propose(t, n, "before", big, "after")
	closeNode(n)
	n, m = start(t, fs)
	if got := m.state(); len(got) != 3 || got[1] != big || got[2] != "after" {
		t.Errorf("%d lines are there", len(got))
	}
	propose(t, n, "more")
}

// TestRefusals proves that a directory of another node, of a newer version, or with missing
// files is refused, with a reason.
func TestRefusals(t *testing.T) {
	made := func() *vfs.Mem {
		fs := newFS()
		n, _ := start(t, fs)
		propose(t, n, count(0, 150)...)
		awaitSnapshot(fs)
		closeNode(n)
		return fs
	}
	files := func(fs *vfs.Mem, suffix string) (names []string) {
		infos, _ := fs.ReadDir("data/meta")
		for _, i := range infos {
			if strings.HasSuffix(i.Name, suffix) {
				names = append(names, "data/meta/"+i.Name)
			}
		}
		return names
	}
	for _, c := range []struct {
		name  string
		spoil func(fs *vfs.Mem, cfg *Config)
		want  error
		says  string
	}{
		{"other node", func(_ *vfs.Mem, cfg *Config) { cfg.ID = 5 }, nil, "restore the whole data directory of node 5"},
		{"no log", func(fs *vfs.Mem, _ *Config) {
			for _, f := range files(fs, logSuffix) {
				_ = fs.Remove(f)
			}
		}, ErrDamaged, "missing"},
		{"no snapshot", func(fs *vfs.Mem, _ *Config) { _ = fs.Remove(files(fs, snapshotSuffix)[0]) }, ErrDamaged, "missing"},
		{"a gap", func(fs *vfs.Mem, cfg *Config) {
			long := *cfg
			long.SnapshotBytes = 1 << 30 // all files are needed from here on
			n, err := openTuned(long, small)
			if err != nil {
				t.Fatal(err)
			}
			propose(t, n, count(150, 300)...)
			closeNode(n)
			names := files(fs, logSuffix)
			_ = fs.Remove(names[len(names)-2])
		}, ErrDamaged, "are missing before"},
		{"another snapshot", func(fs *vfs.Mem, _ *Config) {
			_ = fs.Rename(files(fs, snapshotSuffix)[0], "data/meta/"+fileName(99999, snapshotSuffix))
		}, ErrDamaged, "another entry"},
		{"newer", func(fs *vfs.Mem, _ *Config) {
			b := append([]byte(fileMagic), 99)
			b = append(b, make([]byte, fileHead-4-len(b))...)
			write(t, fs, files(fs, logSuffix)[0], binary.LittleEndian.AppendUint32(b, checksum(b)), 0)
		}, ErrNewer, "format 99"},
		{"of another directory", func(fs *vfs.Mem, _ *Config) {
			// An operator who copies the newest file of another node over this one's.
			name := files(fs, logSuffix)[len(files(fs, logSuffix))-1]
			stem, _ := splitName(path.Base(name))
			first, err := strconv.ParseUint(stem, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			body := appendState(nil, &pb.HardState{Term: new(uint64(1)), Vote: new(uint64(77)), Commit: new(uint64(1))})
			write(t, fs, name, appendFrame(newFileHead(), fileHead, first, 77, body), 0)
		}, ErrDamaged, "of directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := made()
			m := &machine{}
			cfg := config(fs, m)
			c.spoil(fs, &cfg)
			n, err := openTuned(cfg, small)
			if err == nil {
				closeNode(n)
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestFlippedBits proves that a start refuses a directory with any flipped bit of an
// acknowledged frame, even of the last one, and names the file and the offset.
func TestFlippedBits(t *testing.T) {
	fs := newFS()
	m := &machine{}
	cfg := config(fs, m)
	cfg.SnapshotBytes = 1 << 20
	n, err := openTuned(cfg, small)
	if err != nil {
		t.Fatal(err)
	}
	propose(t, n, count(0, 12)...)
	closeNode(n)
	refused := 0
	infos, _ := fs.ReadDir("data/meta")
	for _, info := range infos {
		if !strings.HasSuffix(info.Name, logSuffix) {
			continue
		}
		f, _ := fs.Open("data/meta/"+info.Name, vfs.ReadOnly)
		b, _ := readAll(f)
		end := int64(strings.LastIndexByte(string(b), mark))
		for bit := range (end + 1) * 8 {
			bad := fs.KillClone(nil)
			write(t, bad, "data/meta/"+info.Name, []byte{b[bit/8] ^ 1<<(bit%8)}, bit/8)
			m := &machine{}
			n, err := openTuned(config(bad, m), small)
			if err == nil {
				closeNode(n)
				t.Fatalf("%s, bit %d of byte %d is not missed: %q", info.Name, bit%8, bit/8, m.state())
			}
			if !errors.Is(err, ErrDamaged) && bit/8 >= int64(len(fileMagic)+1) || !strings.Contains(err.Error(), info.Name) {
				t.Fatalf("%s, byte %d: %v", info.Name, bit/8, err)
			}
			refused++
		}
	}
	if refused < 10_000 {
		t.Errorf("%d refused: this proves little", refused)
	}
}

// TestOS proves that a node works on the real file system, and logs how long a start takes.
func TestOS(t *testing.T) {
	dir := t.TempDir()
	m := &machine{}
	cfg := config(vfs.OS{}, m)
	cfg.Dir = dir + "/meta"
	for life := range 3 {
		begin := time.Now()
		n, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("leader after", time.Since(begin))
		propose(t, n, fmt.Sprint(life))
		if err := closeNode(n); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, fs vfs.FS, name string, b []byte, off int64) {
	t.Helper()
	f, err := fs.Open(name, vfs.Create)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}
