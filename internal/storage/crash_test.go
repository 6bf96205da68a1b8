package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// modelLog is what a test knows of one log: which record must be at each offset.
type modelLog struct {
	id        LogID
	topic     string
	pageCache bool
	records   []int64       // by offset, numbers never used twice
	start     record.Offset // acknowledged
	asked     record.Offset // of a SetStart that may or may not have happened
	committed record.Offset // reported
	written   record.Offset // appended
	sent      []sent        // the producer's batches, in order
	seq       int32         // its next sequence
	unopened  bool          // since a crash
	cut       bool          // the power was, since it was opened
}

// sent is a batch of the idempotent producer.
type sent struct {
	b    record.Batch
	base record.Offset
}

func (m *modelLog) clone() *modelLog {
	c := *m
	c.records = append([]int64(nil), m.records...)
	c.sent = append([]sent(nil), m.sent...)
	return &c
}

// world is a store on a file system that can crash, and the model of what it must hold.
type world struct {
	tb   testing.TB
	rng  *rand.Rand
	cfg  Config
	mem  *vfs.Mem
	s    *Store
	logs []*Log

	mu       sync.Mutex
	model    []*modelLog // guarded by mu
	lastID   int         // guarded by mu
	lastNum  int64       // guarded by mu
	crashIn  int         // guarded by mu: changing calls until the crash; 0: none is wanted
	kill     bool        // the process dies, not the machine
	before   []*modelLog // guarded by mu: the model before the last call
	fallen   *vfs.Mem    // guarded by mu: what the crash left
	expected []*modelLog // guarded by mu: what must be in it
	boots    int

	failIn  int   // guarded by mu: changing calls until one fails; 0: none will
	failErr error // guarded by mu
	sick    bool  // calls fail in this run
}

const modelLogs = 4

func newWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := &world{tb: tb, rng: rand.New(rand.NewPCG(seed, 1)), mem: vfs.NewMem()}
	w.cfg = testConfig(nil, "data")
	w.cfg.Journal = 1 << 17
	w.cfg.block = 128
	w.cfg.atOnce = int(1 + seed%3)                           // so that the volume is synced as a whole, or not
	w.cfg.alone = []int64{1, 1000, syncAlone}[w.rng.IntN(3)] // rounds of one file: a sync of it, both, the journal
	w.cfg.crowd = []int64{1000, 1, 2}[seed/3%3]              // so that appends are late, or not
	w.cfg.late = []int64{lateAll, 3000}[seed/9%2]
	for i := range modelLogs {
		w.lastID++
		w.model = append(w.model, &modelLog{id: testID(w.lastID * 10), topic: fmt.Sprintf("t%d", i), pageCache: i == 3})
		w.model[i].id.Partition = 0
		w.model[i].id.Topic[0] = byte(w.lastID)
	}
	w.before = w.cloneModel()
	return w
}

// hook stands before each call that changes the file system: the crash happens there.
func (w *world) hook(op vfs.Op, path string) error {
	if !op.Changes() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if testing.Verbose() {
		w.tb.Logf("%d: %v %s", w.crashIn, op, path)
	}
	if w.crashIn > 0 {
		w.crashIn--
		if w.crashIn == 0 {
			w.fall()
		}
	}
	if w.failIn > 0 {
		if w.failIn--; w.failIn == 0 {
			if testing.Verbose() {
				w.tb.Logf("%v %s fails: %v", op, path, w.failErr)
			}
			if w.crashIn > 0 { // what failed is first dealt with: noted, taken out of the model
				w.crashIn = max(w.crashIn, 30)
			}
			return w.failErr
		}
	}
	if op == vfs.OpWrite { // a kill may find it half done
		w.before = w.cloneModel()
	}
	return nil
}

// fall takes the picture of what is left. mu is held.
func (w *world) fall() {
	w.expected = w.cloneModel()
	switch {
	case !w.kill:
		w.fallen = w.mem.Crash(w.rng)
	case w.rng.IntN(2) == 0:
		w.fallen = w.mem.KillClone(nil)
	default: // it died inside of the last write, which nothing relied on yet
		w.fallen = w.mem.KillClone(w.rng)
		for i, m := range w.expected {
			if m.pageCache {
				if was := w.before[i]; was.id == m.id {
					m.committed = min(m.committed, was.committed)
				} else {
					m.committed = 0
				}
			}
		}
	}
}

func (w *world) cloneModel() []*modelLog {
	c := make([]*modelLog, len(w.model))
	for i, m := range w.model {
		c[i] = m.clone()
	}
	return c
}

func (m *modelLog) options() Options {
	o := testOptions()
	o.SegmentBytes = 3000
	o.IndexInterval = 200
	if m.pageCache {
		o.FlushMessages = 1 << 40
	}
	if m.topic != "t1" { // the next segment takes over a dropped one's file
		o.FileDeleteDelay = time.Hour
	}
	return o
}

func (w *world) open() {
	w.cfg.FS = vfs.NewFaulty(w.mem, w.hook)
	w.cfg.BootID = "boot" + strconv.Itoa(w.boots)
	if testing.Verbose() {
		w.cfg.Logger = slog.New(slog.NewTextHandler(w.tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := open(w.cfg) // nothing runs beside the test: a seed always does the same
	if err != nil {
		w.tb.Fatalf("open: %v", err)
	}
	s.background = func(fn func()) { fn() }
	w.s = s
	w.logs = make([]*Log, len(w.model))
	for i := range w.model {
		w.know(i)
	}
}

// know makes the i-th log known to the store.
func (w *world) know(i int) {
	m := w.model[i]
	w.logs[i] = w.s.Log(m.id, m.topic, m.options(), func(l *Log) {
		end, err := l.Committed()
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if m := w.model[i]; m.id == l.ID() {
			m.committed = max(m.committed, end)
		}
	})
}

// numbers is a batch of n records that carry numbers used nowhere else.
func (w *world) numbers(n int, seq int32) (record.Batch, []int64) {
	var bu record.Builder
	if seq >= 0 {
		bu.SetProducer(7, 0, seq)
	}
	var nums []int64
	w.mu.Lock()
	for range n {
		w.lastNum++
		nums = append(nums, w.lastNum)
	}
	w.mu.Unlock()
	for _, num := range nums {
		v := make([]byte, 8+w.rng.IntN(300))
		binary.BigEndian.PutUint64(v, uint64(num))
		bu.Append(1_700_000_000_000+num, nil, v)
	}
	b, err := bu.Build()
	if err != nil {
		w.tb.Fatal(err)
	}
	return b, nums
}

// append appends some batches to the i-th log. The model has them before they are
// written, since a crash in between may leave them.
func (w *world) append(i int) {
	m, l := w.model[i], w.logs[i]
	var items []Item
	for range 1 + w.rng.IntN(3) {
		n, seq := 1+w.rng.IntN(3), int32(-1)
		if w.rng.IntN(2) == 0 {
			seq = m.seq
		}
		b, nums := w.numbers(n, seq)
		w.mu.Lock()
		if seq >= 0 {
			m.sent = append(m.sent, sent{append(record.Batch(nil), b...), record.Offset(len(m.records))})
			m.seq += int32(n)
		}
		m.records = append(m.records, nums...)
		w.mu.Unlock()
		items = append(items, Item{Batch: b})
	}
	first := int(m.written)
	l.Append(record.Epoch(w.boots), items)
	if w.sick && w.someFailed(m, l, items, first) {
		return
	}
	for k := range items {
		it := &items[k]
		if it.Err != nil || int(it.Base) != first || it.Dup {
			w.tb.Fatalf("append to %s: base %d, want %d, dup %v, err %v", l.dir, it.Base, first, it.Dup, it.Err)
		}
		first = int(it.Next)
	}
	w.mu.Lock()
	m.written = record.Offset(first)
	m.commitCached(l)
	w.mu.Unlock()
}

// commitCached notes what an append of a page-cache log has committed itself. world.mu is held.
func (m *modelLog) commitCached(l *Log) {
	if m.pageCache {
		end, _ := l.Committed()
		m.committed = max(m.committed, end)
	}
}

// someFailed takes items that were refused out of the model.
func (w *world) someFailed(m *modelLog, l *Log, items []Item, first int) bool {
	failed := false
	for _, it := range items {
		failed = failed || it.Err != nil
	}
	if !failed {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	nums := m.records[first:]
	m.records = append([]int64(nil), m.records[:first]...)
	for len(m.sent) > 0 && int(m.sent[len(m.sent)-1].base) >= first {
		m.seq -= m.sent[len(m.sent)-1].b.Count()
		m.sent = m.sent[:len(m.sent)-1]
	}
	for _, it := range items {
		n := int(it.Batch.Count())
		if it.Err == nil {
			w.stored(m, it, nums[:n])
		}
		nums = nums[n:]
	}
	m.written = record.Offset(len(m.records))
	m.commitCached(l)
	return true
}

// stored puts one item back into the model. mu is held.
func (w *world) stored(m *modelLog, it Item, nums []int64) {
	if int(it.Base) != len(m.records) {
		w.tb.Fatalf("%s: base %d, want %d", m.topic, it.Base, len(m.records))
	}
	m.records = append(m.records, nums...)
	if it.Batch.ProducerID() < 0 {
		return
	}
	if len(m.sent) == 0 {
		m.seq = it.Batch.BaseSequence() // of an unknown producer any will do
	}
	if it.Batch.BaseSequence() != m.seq {
		w.tb.Fatalf("%s: sequence %d was let in after %d", m.topic, it.Batch.BaseSequence(), m.seq)
	}
	m.sent = append(m.sent, sent{append(record.Batch(nil), it.Batch...), it.Base})
	m.seq += int32(len(nums))
}

// step does one random thing.
func (w *world) step() {
	i := w.rng.IntN(len(w.logs))
	if w.model[i].unopened {
		return
	}
	if testing.Verbose() {
		w.tb.Logf("log %d: committed %d, written %d, start %d", i, w.model[i].committed, w.model[i].written, w.model[i].start)
	}
	switch p := w.rng.IntN(100); {
	case p < 60:
		w.append(i)
	case p < 85:
		w.s.Commit()
	case p < 90:
		w.s.keeper.checkpointNow()
	case p < 92:
		w.s.keeper.step()
	case p < 95:
		w.setStart(i)
	case p < 97:
		w.recreate(i)
	case p < 98:
		if w.sick {
			return // what a Close that fails leaves is another story
		}
		if err := w.s.Close(); err != nil {
			w.tb.Fatalf("close: %v", err)
		}
		w.mu.Lock()
		for _, m := range w.model {
			if !m.unopened {
				m.committed = m.written
			}
		}
		w.mu.Unlock()
		w.open()
	default:
		w.check(i, w.model[i], w.s, true)
	}
}

func (w *world) setStart(i int) {
	m := w.model[i]
	if m.committed == 0 {
		return
	}
	to := record.Offset(w.rng.Int64N(int64(m.committed) + 1))
	w.mu.Lock()
	m.asked = max(m.asked, to)
	w.mu.Unlock()
	if err := w.logs[i].SetStart(to); err != nil {
		if !w.sick {
			w.tb.Fatalf("SetStart: %v", err)
		}
		return
	}
	w.mu.Lock()
	m.start = max(m.start, to)
	w.mu.Unlock()
}

// recreate deletes a topic and makes one of the same name.
func (w *world) recreate(i int) {
	w.s.Delete(w.model[i].id)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastID++
	m := &modelLog{id: w.model[i].id, topic: w.model[i].topic, pageCache: w.model[i].pageCache}
	m.id.Topic[0], m.id.Topic[1] = byte(w.lastID), byte(w.lastID>>8)
	w.model[i] = m
	w.know(i)
}

// check compares a log with what it must hold; exact: nothing may be missing.
func (w *world) check(i int, m *modelLog, s *Store, exact bool) record.Offset {
	l := s.Log(m.id, m.topic, m.options(), func(*Log) {})
	start, err := l.Start()
	if err != nil && w.sick {
		return 0
	}
	if err != nil {
		w.tb.Fatalf("log %d: %v", i, err)
	}
	if f := l.Fault(); f != nil && w.sick {
		return 0
	} else if f != nil {
		w.tb.Fatalf("log %d: %v", i, f)
	}
	end, _ := l.End()
	if w.sick && l.writeOut() != nil {
		return 0 // it cannot be read then
	}
	least := m.committed
	if exact {
		least = m.written
	}
	if start < m.start && end > 0 || start > max(m.start, m.asked) {
		w.tb.Fatalf("log %d starts at %d, want %d to %d (end %d)", i, start, m.start, m.asked, end)
	}
	if end < least || int(end) > len(m.records) {
		w.tb.Fatalf("log %d ends at %d; %d are committed, %d were appended", i, end, m.committed, len(m.records))
	}
	from := start
	committed, _ := l.Committed()
	for _, b := range readAll(w.tb, l, start, 1+w.rng.IntN(5000)) {
		for k, v := range values(w.tb, []record.Batch{b}) {
			if o := b.BaseOffset() + record.Offset(k); m.records[o] != int64(v) {
				w.tb.Fatalf("log %d has record %d at %d, want %d", i, v, o, m.records[o])
			}
		}
		from = b.NextOffset()
	}
	if from != max(committed, start) {
		w.tb.Fatalf("log %d was read to %d of %d", i, from, committed)
	}
	return end
}

// recovered starts on what a crash left, checks it, and goes on from there.
func (w *world) recovered() {
	if err := w.s.Close(); err != nil && !w.sick { // the one that lives in the past
		w.tb.Fatalf("close: %v", err)
	}
	w.sick = false
	w.mu.Lock()
	w.mem, w.model, w.fallen = w.fallen, w.expected, nil
	w.crashIn, w.failIn, w.before = 0, 0, w.cloneModel()
	if !w.kill {
		w.boots++
	}
	w.mu.Unlock()
	if testing.Verbose() {
		w.tb.Logf("crashed; killed: %v", w.kill)
	}
	w.open()
	for i, m := range w.model {
		if m.pageCache && !w.kill {
			m.committed, m.cut = 0, true // a power cut may take what was in the page cache only
		}
		if m.unopened = w.rng.IntN(4) == 0; m.unopened {
			continue // it is not opened in this run: the next one must manage, too
		}
		end := w.check(i, m, w.s, false)
		w.mu.Lock()
		m.records = m.records[:end]
		m.committed, m.written, m.asked = end, end, max(m.start, min(m.asked, end))
		m.start, _ = w.logs[i].Start()
		for len(m.sent) > 0 && m.sent[len(m.sent)-1].base >= end {
			m.seq -= m.sent[len(m.sent)-1].b.Count()
			m.sent = m.sent[:len(m.sent)-1]
		}
		w.mu.Unlock()
		cut := m.cut
		m.cut = false
		below := len(m.sent) > 0 && m.sent[len(m.sent)-1].base < m.start
		if cut && (m.start == end || below) {
			w.recreate(i) // the model cannot tell what the log still knows of the producer
			continue
		}
		w.retry(i, m)
	}
	w.mu.Lock()
	w.before = w.cloneModel()
	w.mu.Unlock()
}

// retry sends the producer's last batches again: they must be known.
func (w *world) retry(i int, m *modelLog) {
	from := max(0, len(m.sent)-keptBatches)
	for _, x := range m.sent[from:] {
		if x.base < m.start {
			continue // it may have been forgotten with its records
		}
		it := appendOne(w.tb, w.logs[i], append(record.Batch(nil), x.b...))
		if it.Err != nil || !it.Dup || it.Base != x.base {
			w.tb.Fatalf("log %d: a retry of the batch at %d got %d, dup %v, err %v", i, x.base, it.Base, it.Dup, it.Err)
		}
	}
}

// seeds are those that a test of crashes runs.
func seeds(tb testing.TB) (from, to int) {
	tb.Helper()
	n := 1500
	if raceDetector {
		n = 150
	}
	if testing.Short() {
		n = 50
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

// TestCrash proves, over many seeds, that what was reported as committed survives
// a power cut or a kill -9 at any call, in order and once, that what survives is a
// prefix of what was appended and of this topic, and that retries are recognised.
func TestCrash(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { crashRun(t, uint64(seed), false) })
	}
}

// TestCrashAgain proves the same for seeds that once found something, which are too
// rare to be among the first.
func TestCrashAgain(t *testing.T) {
	for _, c := range []struct {
		seed uint64
		sick bool
	}{
		{11404, false}, // a deleted segment that was back in part was taken for damage
		{17991, false}, // half a commit was played back, cut off, and back after the next power cut
		{71, false},    // a kill while the directory of a late log was made
		{249, true},    // late records could not be read while their file could not be written
		{331, true},    // late records of before a power cut came back over those written since
		{534, true},    // the file of a segment that could not begin was taken for one
		{672, true},    // a dropped segment came back from the journal in front of a log without a point
		{3085, true},   // as 534
		{6419, true},   // a log that was empty at its last sync had a point at its end
		{6583, true},   // a dropped segment could not be removed, one behind it was: a gap below the start
		{9174, true},   // late records whose file could not be made left the journal
		{6528, true},   // the mark of a deletion went while a round of the journal that had failed was in it
	} {
		t.Run(strconv.FormatUint(c.seed, 10), func(t *testing.T) { crashRun(t, c.seed, c.sick) })
	}
}

// TestCrashAfterError proves the same where calls of the file system fail before
// the crash: syncs, short writes, a full disk.
func TestCrashAfterError(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { crashRun(t, uint64(seed), true) })
	}
}

var errBadDisk = errors.New("input/output error")

func crashRun(t *testing.T, seed uint64, sick bool) {
	t.Helper()
	w := newWorld(t, seed)
	w.open()
	for range 2 + w.rng.IntN(4) {
		w.mu.Lock()
		if sick {
			w.sick = true
			w.failIn = 1 + w.rng.IntN(100)
			w.failErr = [...]error{
				errBadDisk, vfs.ErrNoSpace,
				&vfs.ShortWriteError{N: w.rng.Int64N(1000), Err: vfs.ErrNoSpace},
				&vfs.ShortWriteError{N: w.rng.Int64N(1000), Err: errBadDisk},
			}[w.rng.IntN(4)]
		}
		w.kill = w.rng.IntN(3) == 0
		w.crashIn = 1 + w.rng.IntN(1<<(2+w.rng.IntN(8)))
		w.mu.Unlock()
		for range 400 {
			w.step()
			w.mu.Lock()
			fallen := w.fallen != nil
			w.mu.Unlock()
			if fallen {
				break
			}
		}
		w.mu.Lock()
		if w.fallen == nil {
			w.fall()
		}
		w.mu.Unlock()
		w.recovered()
	}
	w.s.scrub(unpaced) // whatever happened, what is left is whole
	for i, l := range w.logs {
		if err := l.Fault(); err != nil {
			t.Errorf("log %d: %v", i, err)
		}
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
}
