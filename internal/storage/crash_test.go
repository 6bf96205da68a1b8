package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/vfs"
)

// noRecord stands in a model for an offset that lies in a gap.
const noRecord = -1

// modelLog is a test's knowledge of one log: which record must be at each offset.
type modelLog struct {
	id        LogID
	topic     string
	pageCache bool                   // as it is configured now
	switching bool                   // the next append changes its mode, since it was configured after the last one
	mirror    bool                   // it is appended to with given offsets, and truncated
	records   []int64                // by offset, numbers never used twice; noRecord
	epochs    []record.Epoch         // by offset
	start     record.Offset          // acknowledged, or seen after a start
	acked     record.Offset          // a start that was acknowledged
	asked     record.Offset          // of a start that may or may not have moved
	committed record.Offset          // reported
	sure      record.Offset          // committed while it was durable: a power cut does not take it
	written   record.Offset          // appended
	high      record.Offset          // the high watermark that was set last; a truncation lowers it
	highKept  record.Offset          // a high watermark that no crash takes back
	sent      []sent                 // the batches of producer 7, in order
	crowd     int                    // other producers that have sent a batch
	seq       int32                  // its next sequence
	cutting   record.Offset          // it is being truncated to there; -1: it is not
	unopened  bool                   // since a crash
	compacts  bool                   // it is compacted
	lossy     bool                   // a power cut may have taken records, since it was opened
	txns      []modelTxn             // the batches of transactions, in order
	gone      map[record.Offset]bool // that compaction may have removed
	modelCuts                        // see TestCrashInCuts
	deleted   *modelLog              // the one that had the same identity: a crash may undo its deletion while this one has nothing
}

// sent is a batch of the idempotent producer.
type sent struct {
	b     record.Batch
	base  record.Offset
	crowd int // other producers that had sent a batch before it
}

func (x sent) next() record.Offset { return x.base + record.Offset(x.b.Count()) }

func (m *modelLog) clone() *modelLog {
	c := *m
	c.records = append([]int64(nil), m.records...)
	c.epochs = append([]record.Epoch(nil), m.epochs...)
	c.sent = append([]sent(nil), m.sent...)
	c.txns = append([]modelTxn(nil), m.txns...)
	c.gone = maps.Clone(m.gone)
	c.modelCuts = m.modelCuts.clone()
	return &c
}

// cutAt forgets everything from an offset on.
func (m *modelLog) cutAt(end record.Offset) {
	m.records, m.epochs = m.records[:end], m.epochs[:end]
	m.written = end
	m.committed, m.sure = min(m.committed, end), min(m.sure, end)
	m.high, m.highKept = min(m.high, end), min(m.highKept, end)
	m.dropSent(end)
	m.dropTxns(end)
	maps.DeleteFunc(m.gone, func(o record.Offset, _ bool) bool { return o >= end })
}

func (m *modelLog) dropSent(end record.Offset) {
	for len(m.sent) > 0 && m.sent[len(m.sent)-1].next() > end { // one in which the log begins goes as a whole
		m.seq -= m.sent[len(m.sent)-1].b.Count()
		m.sent = m.sent[:len(m.sent)-1]
	}
}

// remembered are the last batches of the producer that the log must know: between two of them, and
// after them, few others came.
func (m *modelLog) remembered() []sent {
	n, crowd := len(m.sent), m.crowd
	for n > 0 && crowd-m.sent[n-1].crowd < leastKept {
		n--
		crowd = m.sent[n].crowd
	}
	return m.sent[max(n, len(m.sent)-producer.KeptBatches, min(m.sureSent, len(m.sent))):]
}

// mayForget tells whether the log may not know the producer, since so many others came after it.
func (m *modelLog) mayForget() bool {
	return len(m.remembered()) == 0
}

// ending is the way in which a run of a world ends.
type ending int

const (
	powerCut ending = iota // the machine loses its power
	killed                 // the process dies, and the page cache stays
	tornAway               // the volume is torn away and comes back to the same kernel
)

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
	epoch    record.Epoch
	crashIn  int         // guarded by mu: changing calls until the crash; 0: none is wanted
	ending   ending      // guarded by mu
	before   []*modelLog // guarded by mu: the model before the last call
	fallen   *vfs.Mem    // guarded by mu: what the crash left
	expected []*modelLog // guarded by mu: what must be in it
	boots    int

	failIn  int   // guarded by mu: changing calls until one fails; 0: none will
	failFor int   // guarded by mu: how many calls fail
	failErr error // guarded by mu
	sick    bool  // calls fail in this run

	hardship // see TestCrashInHardship

	transacts bool // there are transactions in this world, and the store admits them

	compacts bool                   // see TestCrashInCompaction
	keys     map[int64]string       // guarded by mu: of records, by number
	rounds   int                    // of compaction that did something
	seen     map[record.Offset]bool // records and markers that compare has read

	cuts bool // see TestCrashInCuts

	crowded bool          // see TestCrashInCrowd
	crowdAt map[int32]int // the producer's sequence in the last append -> crowd of sent
}

const modelLogs = 5

func newWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := &world{tb: tb, rng: rand.New(rand.NewPCG(seed, 1)), mem: vfs.NewMem()}
	w.cfg = testConfig(nil, "data")
	w.cfg.Journal = 1 << 17
	w.transacts = seed%4 != 0
	w.cfg.SyncTogether = int(1 + seed%3)                         // so that the volume is synced as a whole, or not
	w.cfg.SyncAlone = []int64{1, 1000, syncAlone}[w.rng.IntN(3)] // rounds of one file: a sync of it, both, the journal
	for i := range modelLogs {
		w.lastID++
		m := &modelLog{id: testID(w.lastID * 10), topic: fmt.Sprintf("t%d", i), pageCache: i == 3, mirror: i == 4, cutting: -1}
		m.id.Partition = 0
		m.id.Topic[0] = byte(w.lastID)
		w.model = append(w.model, m)
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
		w.failIn--
	}
	if w.hasNoRoom(op, path) {
		return vfs.ErrNoSpace
	}
	if w.failIn == 0 && w.failFor > 0 && canFail(op, path, w.failErr) {
		w.failFor--
		if testing.Verbose() {
			w.tb.Logf("%v %s fails: %v", op, path, w.failErr)
		}
		if op == vfs.OpSyncDir && w.fallen == nil && w.ending == killed && !errors.Is(w.failErr, vfs.ErrNoHandles) {
			w.ending = powerCut // no process under the same kernel could bring the names back that are lost
		}
		if w.crashIn > 0 { // the failure is first dealt with: noted, taken out of the model
			w.crashIn = max(w.crashIn, 30)
		}
		return w.failErr
	}
	if op == vfs.OpWrite { // a kill may find it half done
		w.before = w.cloneModel()
	}
	return nil
}

func (m *modelLog) options() Options {
	o := testOptions()
	o.SegmentBytes = 3000
	o.IndexInterval = 200
	if m.pageCache {
		o.FlushMessages = 1 << 40
	}
	if m.topic == "t2" {
		o.RetentionBytes = 9000
	}
	if m.topic == "t1" {
		o.FileDeleteDelay = time.Hour
	}
	if m.compacts {
		o.SegmentBytes = 1500
		o.Compact = true
		o.Compaction = Compaction{MaxLag: foreverLag}
	}
	return o
}

func (w *world) open() {
	w.cfg.FS = vfs.NewFaulty(w.mem, w.hook)
	w.cfg.BootID = "boot" + strconv.Itoa(w.boots)
	if testing.Verbose() {
		w.cfg.Logger = slog.New(slog.NewTextHandler(w.tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := openDir(w.cfg) // nothing runs beside the test: a seed always does the same
	if err != nil {
		w.tb.Fatalf("open: %v", err)
	}
	s.background = func(fn func()) { fn() }
	w.s = s
	w.logs = make([]*Log, len(w.model))
	w.hideLogs()
	known := map[LogID]bool{}
	for i, m := range w.model {
		if !w.hidden[i] {
			w.know(i)
			known[m.id] = true
		}
	}
	s.Sweep(func(id LogID) bool { return known[id] }, func(LogID) bool { return false }, nil)
	if w.isHard && w.rng.IntN(2) == 0 {
		s.keeper.doDueWork() // the sweep comes before anything else
	}
}

// know makes the i-th log known to the store.
func (w *world) know(i int) {
	m := w.model[i]
	w.logs[i] = w.s.Log(m.id, m.topic, m.options(), func(l *Log) { w.noteCommitted(i, l) })
}

// noteCommitted takes a log's committed end into the model.
func (w *world) noteCommitted(i int, l *Log) {
	end, err := l.Committed()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.model[i]
	if m.id != l.ID() {
		return
	}
	if m.cutting >= 0 { // rounds before a truncation may still report
		end = min(end, m.cutting)
	}
	m.committed = max(m.committed, end)
	if m.topic == "t2" { // its retention acts as it grows
		m.asked = max(m.asked, end)
	}
	if !m.pageCache && !m.switching { // else retention asks, and what is committed may be in the page cache only
		m.sure = max(m.sure, end)
	}
	m.raiseHighWatermark(l)
}

// raiseHighWatermark sets the log's high watermark as a leader does: some logs have no other
// replicas, with others one lags, and t0 has a leader that sets none.
func (m *modelLog) raiseHighWatermark(l *Log) {
	to := m.committed
	switch m.topic {
	case "t0":
		return
	case "t1", "t4":
		to -= to % 7
	}
	if to > m.high {
		m.high = to
		l.SetHighWatermark(to)
	}
}

// modelProducer is the producer that goes on writing.
const modelProducer = 7

// numbers is a batch of n records that carry numbers used nowhere else.
func (w *world) numbers(m *modelLog, n, size int, seq int32) (record.Batch, []int64) {
	var bu record.Builder
	switch {
	case seq >= 0:
		bu.SetProducer(modelProducer, 0, seq)
	case w.crowded: // a producer that sends one batch
		w.mu.Lock()
		m.crowd++
		bu.SetProducer(100+w.lastNum, 0, 0)
		w.mu.Unlock()
	}
	return w.fillNumbers(&bu, n, size)
}

// append appends some batches to the i-th log. The model has them before they are written,
// since a crash in between may leave them.
func (w *world) append(i int) {
	w.letLeave(i)
	m, l := w.model[i], w.logs[i]
	size := 300
	if w.rng.IntN(10) == 0 {
		size = 3000 // beyond the size of a segment
	}
	if w.rng.IntN(20) == 0 {
		w.epoch++
	}
	if m.mirror {
		was := w.epoch
		w.epoch = w.pickMirrorEpoch(m)
		w.appendAt(i, size)
		w.epoch = was
		return
	}
	w.admitTransactions()
	var items []Item
	w.crowdAt = map[int32]int{}
	for range 1 + w.rng.IntN(3) {
		if w.pickTransaction() {
			items = append(items, w.transact(m))
			continue
		}
		n, seq := 1+w.rng.IntN(3), int32(-1)
		if w.rng.IntN(2) == 0 {
			seq = m.seq
		}
		b, nums := w.numbers(m, n, size, seq)
		w.mu.Lock()
		if seq >= 0 {
			w.crowdAt[seq] = m.crowd
			m.sent = append(m.sent, sent{append(record.Batch(nil), b...), record.Offset(len(m.records)), m.crowd})
			m.seq += int32(n)
		}
		m.add(w.epoch, nums...)
		w.mu.Unlock()
		items = append(items, Item{Batch: b})
	}
	first := int(m.written)
	l.Append(w.epoch, items)
	w.appended(i, items, first)
}

// add adds records at the model's end.
func (m *modelLog) add(e record.Epoch, nums ...int64) {
	m.records = append(m.records, nums...)
	for range nums {
		m.epochs = append(m.epochs, e)
	}
}

// appendAt appends batches with given offsets and epochs to the i-th log.
func (w *world) appendAt(i, size int) {
	m, l := w.model[i], w.logs[i]
	var items []Item
	first := int(m.written)
	for range 1 + w.rng.IntN(3) {
		if w.pickTransaction() {
			it := w.transact(m)
			it.Batch.SetBaseOffset(m.txns[len(m.txns)-1].base)
			it.Batch.SetLeaderEpoch(w.epoch)
			items = append(items, it)
			continue
		}
		n := 1 + w.rng.IntN(3)
		b, nums := w.numbers(m, n, size, -1)
		w.mu.Lock()
		for range w.rng.IntN(3) * w.rng.IntN(5) {
			m.add(w.epoch, noRecord)
		}
		b.SetBaseOffset(record.Offset(len(m.records)))
		b.SetLeaderEpoch(w.epoch)
		m.add(w.epoch, nums...)
		w.mu.Unlock()
		items = append(items, Item{Batch: b})
	}
	l.AppendAt(items)
	w.appended(i, items, first)
}

// appended compares the outcome of an append with the model.
func (w *world) appended(i int, items []Item, first int) {
	m, l := w.model[i], w.logs[i]
	if slices.ContainsFunc(items, func(it Item) bool { return it.Err == nil }) {
		w.mu.Lock()
		m.switching = false
		w.mu.Unlock()
	}
	if w.sick && w.someFailed(m, items, first) {
		w.noteCached(i, l)
		return
	}
	for k := range items {
		it := &items[k]
		if it.Err != nil || int(it.Base) != first && !m.mirror || it.Dup {
			w.tb.Fatalf("append to %s: base %d, want %d, dup %v, err %v", l.name, it.Base, first, it.Dup, it.Err)
		}
		first = int(it.Next)
	}
	w.mu.Lock()
	m.written = record.Offset(first)
	for o := range items { // a leader's append stamps the log's epoch where that is higher
		for at := items[o].Base; at < items[o].Next; at++ {
			m.epochs[at] = items[o].Batch.LeaderEpoch()
		}
	}
	w.mu.Unlock()
	w.noteCached(i, l)
}

// noteCached notes what an append of a page-cached log has committed itself.
func (w *world) noteCached(i int, l *Log) {
	if w.model[i].pageCache {
		w.noteCommitted(i, l)
	}
}

// someFailed takes items that were refused out of the model.
func (w *world) someFailed(m *modelLog, items []Item, first int) bool {
	failed := false
	for _, it := range items {
		failed = failed || it.Err != nil
	}
	if !failed {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	nums, epochs := append([]int64(nil), m.records[first:]...), m.epochs[first:]
	m.records, m.epochs = m.records[:first], append([]record.Epoch(nil), m.epochs[:first]...)
	m.dropSent(record.Offset(first))
	m.dropTxns(record.Offset(first))
	at := first
	for _, it := range items {
		n := int(it.Batch.Count())
		for len(nums) > 0 && nums[0] == noRecord {
			nums, at = nums[1:], at+1
		}
		if it.Err == nil {
			w.stored(m, it, nums[:n])
		}
		nums, at = nums[n:], at+n
	}
	_ = epochs
	m.written = record.Offset(len(m.records))
	return true
}

// stored puts one item back into the model. mu is held.
func (w *world) stored(m *modelLog, it Item, nums []int64) {
	for m.mirror && int(it.Base) > len(m.records) {
		m.add(it.Batch.LeaderEpoch(), noRecord)
	}
	if int(it.Base) != len(m.records) {
		w.tb.Fatalf("%s: base %d, want %d", m.topic, it.Base, len(m.records))
	}
	m.add(it.Batch.LeaderEpoch(), nums...)
	if it.Batch.Transactional() {
		m.txns = append(m.txns, newModelTxn(it.Batch, it.Base))
	}
	if it.Batch.ProducerID() != modelProducer {
		return
	}
	if m.mayForget() {
		m.seq = it.Batch.BaseSequence() // of an unknown producer any will do
	}
	if it.Batch.BaseSequence() != m.seq {
		w.tb.Fatalf("%s: sequence %d was let in after %d", m.topic, it.Batch.BaseSequence(), m.seq)
	}
	m.sent = append(m.sent, sent{append(record.Batch(nil), it.Batch...), it.Base, w.crowdAt[m.seq]})
	m.seq += int32(len(nums))
}

// step does one random thing.
func (w *world) step() {
	i := w.rng.IntN(len(w.logs))
	if w.isHard && w.rng.IntN(100) == 0 {
		w.s.recoverWaiting()
	}
	if w.model[i].unopened {
		return
	}
	if w.compacts && w.rng.IntN(6) == 0 {
		w.compact(i)
		return
	}
	if w.cuts && w.stepCuts(i) {
		return
	}
	if testing.Verbose() {
		w.tb.Logf("log %d: committed %d, written %d, start %d", i, w.model[i].committed, w.model[i].written, w.model[i].start)
	}
	switch p := w.rng.IntN(100); {
	case p < 55:
		w.append(i)
	case p < 79:
		w.s.Commit()
	case p < 84:
		w.s.keeper.checkpointNow()
	case p < 86:
		w.s.keeper.doDueWork()
	case p < 88:
		w.retain(i)
	case p < 90:
		w.setStart(i)
	case p < 92:
		w.recreate(i, w.rng.IntN(2) == 0)
	case p < 94:
		w.changeMode(i)
	case p < 97:
		if w.model[i].mirror {
			w.truncate(i)
		}
	case p < 98:
		w.restart()
	default:
		w.check(i, w.model[i], w.s, true)
	}
}

// restart closes the store and opens it again.
func (w *world) restart() {
	if w.sick && w.isHard {
		w.closeSick()
		return
	}
	if w.sick {
		return
	}
	if err := w.s.Close(); err != nil {
		w.tb.Fatalf("close: %v", err)
	}
	w.mu.Lock()
	for _, m := range w.model {
		if !m.unopened {
			m.committed, m.sure = m.written, m.written
			m.highKept = m.high
		}
	}
	w.mu.Unlock()
	w.open()
}

// changeMode makes a durable log page-cached, or the other way round.
func (w *world) changeMode(i int) {
	w.mu.Lock()
	m := w.model[i]
	m.pageCache, m.switching = !m.pageCache, true
	o := m.options()
	w.mu.Unlock()
	w.logs[i].Configure(o)
}

// retain applies retention to the i-th log.
func (w *world) retain(i int) {
	m := w.model[i]
	w.mu.Lock()
	m.asked = max(m.asked, m.committed)
	w.mu.Unlock()
	w.s.retainOne(w.logs[i], time.UnixMilli(1_700_000_000_000))
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
	m.start, m.acked = max(m.start, to), max(m.acked, to)
	w.mu.Unlock()
}

// truncate cuts the i-th log somewhere.
func (w *world) truncate(i int) {
	m, l := w.model[i], w.logs[i]
	start, err := l.Start()
	if err != nil || start > m.written {
		return
	}
	to := start + record.Offset(w.rng.Int64N(int64(m.written-start)+1))
	if w.rng.IntN(2) == 0 {
		to = max(to, m.committed)
	}
	// The batch that holds the offset goes as a whole.
	for to > start && to < m.written && to > 0 && m.records[to] != noRecord && sameBatch(w.tb, l, to) {
		to--
	}
	w.mu.Lock()
	m.committed, m.sure, m.highKept, m.cutting = min(m.committed, to), min(m.sure, to), min(m.highKept, to), to
	w.mu.Unlock()
	err = l.Truncate(to)
	if err == nil || l.Fault() == nil { // else a recovery may finish it
		w.mu.Lock()
		m.cutting = -1
		w.mu.Unlock()
	}
	if err != nil {
		if !w.sick {
			w.tb.Fatalf("Truncate: %v", err)
		}
		return
	}
	end, err := l.End()
	if err != nil {
		w.tb.Fatal(err)
	}
	if end > to && to < m.written {
		w.tb.Fatalf("truncated to %d, it ends at %d", to, end)
	}
	w.mu.Lock()
	m.cutAt(end)
	w.mu.Unlock()
}

// sameBatch tells whether the records at an offset and before it are of one batch.
func sameBatch(tb testing.TB, l *Log, o record.Offset) bool {
	tb.Helper()
	end, _ := l.End()
	c, err := l.Read(o, end, 1)
	if err != nil || c == nil {
		return false
	}
	defer c.Release()
	b := make(record.Batch, c.Len())
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		tb.Fatal(err)
	}
	return b.BaseOffset() < o
}

// recreate deletes a topic and makes one of the same name, sometimes of the same identity: as
// a replica that moves away and back.
func (w *world) recreate(i int, again bool) {
	w.mu.Lock()
	w.model[i].areTailsGone = true // a crash may undo the deletion, but for them
	w.mu.Unlock()
	w.s.Delete(w.model[i].id)
	w.mu.Lock()
	old := w.model[i]
	if old.deleted != nil { // something of that one is left, so this one had nothing
		old = old.deleted
	}
	m := &modelLog{id: old.id, topic: old.topic, pageCache: old.pageCache, mirror: old.mirror, compacts: old.compacts, cutting: -1}
	if again {
		m.deleted = old
	} else {
		w.lastID++
		m.id.Topic[0], m.id.Topic[1] = byte(w.lastID), byte(w.lastID>>8)
	}
	w.model[i] = m
	w.mu.Unlock()
	w.know(i)
	if w.letLeave(i) && m.mirror && w.rng.IntN(2) == 0 {
		w.startAt(i)
	}
}

// letLeave has the keeper forget a deleted log of the same identity as the i-th one; ok is
// false where it cannot.
func (w *world) letLeave(i int) (ok bool) {
	id := w.model[i].id
	if w.s.hasWaiting() { // the journal keeps everything until there is room
		w.s.recoverWaiting()
	}
	for n := 0; n < 100 && w.s.isLeaving(id); n++ { // each turn removes some files only
		w.s.keeper.checkpointNow()
		w.s.keeper.removeDue(time.Now().Add(time.Minute))
	}
	ok = !w.s.isLeaving(id)
	if !ok && !w.sick {
		w.tb.Fatalf("log %d: something of the deleted one is left for ever", i)
	}
	if ok {
		w.mu.Lock()
		w.model[i].deleted = nil // no crash brings anything of it back
		w.mu.Unlock()
	}
	return ok
}

// checkUndone tells whether a crash undid the deletion of the log that the i-th one follows,
// which has nothing yet, and checks that it is that one.
func (w *world) checkUndone(i int) bool {
	m := w.model[i]
	if m.deleted == nil || len(m.records) > 0 {
		return false
	}
	if end, err := w.logs[i].End(); err != nil || end == 0 {
		return false
	}
	old := m.deleted.clone()
	old.asked = max(old.asked, old.start)
	old.committed, old.start, old.highKept = 0, 0, 0 // what was acknowledged of it does not count any more
	old.areTailsGone = true
	w.check(i, old, w.s, false)
	return true
}

// startAt has the i-th log, which is empty, begin above 0.
func (w *world) startAt(i int) {
	m, at := w.model[i], record.Offset(w.rng.IntN(50))
	w.mu.Lock()
	m.asked = at
	for range at {
		m.add(0, noRecord)
	}
	m.written = at
	w.mu.Unlock()
	if err := w.logs[i].StartAt(at); err != nil && !w.sick {
		w.tb.Fatalf("StartAt: %v", err)
	} else if err != nil {
		return
	}
	w.mu.Lock()
	m.start, m.acked, m.committed, m.sure = at, at, at, at
	w.mu.Unlock()
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
	least := m.committed
	if exact {
		least = m.written
	}
	if int(max(least, end)) > len(m.records) {
		w.tb.Fatalf("log %d ends at %d; %d are committed, %d were appended", i, end, least, len(m.records))
	}
	for least > start && (m.records[least-1] == noRecord || m.gone[least-1]) {
		least-- // nothing tells of a gap at the end
	}
	if start < m.start && end > 0 || start > max(m.start, m.asked) {
		w.tb.Fatalf("log %d starts at %d, want %d to %d (end %d)", i, start, m.start, m.asked, end)
	}
	if end < least {
		w.tb.Fatalf("log %d ends at %d; %d are committed, %d were appended", i, end, m.committed, len(m.records))
	}
	// A high watermark below the start says no more than the start (progress.NewLeader), and an empty log that only has a start
	// keeps none.
	if high, _ := l.HighWatermark(); high > min(m.high, end) || max(high, start) < min(m.highKept, end) || exact && max(high, start) != max(m.high, start) {
		w.tb.Fatalf("log %d, which ends at %d, has the high watermark %d, want %d to %d", i, end, high, m.highKept, m.high)
	}
	committed, _ := l.Committed()
	w.compare(i, m, l, start, committed)
	w.compareTransactions(i, m, l, start, end)
	w.compareTails(i, m, l)
	return end
}

// compare reads a log from start to end and compares each offset with the model.
func (w *world) compare(i int, m *modelLog, l *Log, start, end record.Offset) {
	from := start
	w.seen = map[record.Offset]bool{}
	maxBytes := 1 + w.rng.IntN(5000)
	for from < end {
		c, err := l.Read(from, end, maxBytes)
		if err != nil && w.sick {
			return
		}
		if err != nil {
			w.tb.Fatalf("log %d: read at %d: %v", i, from, err)
		}
		if c == nil {
			break
		}
		b := make([]byte, c.Len())
		if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			w.tb.Fatal(err)
		}
		c.Release()
		was := from
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if errors.Is(err, record.ErrShort) && from > was {
				break
			}
			if err == nil {
				err = one.Verify()
			}
			if err != nil {
				w.tb.Fatalf("log %d: read at %d of %d bytes, %d of %d left: %v", i, was, maxBytes, len(b), c.Len(), err)
			}
			w.compareBatch(i, m, l, one, from)
			from, b = max(from, one.NextOffset()), rest
		}
	}
	for ; from < end; from++ {
		if m.records[from] != noRecord && !m.gone[from] {
			w.tb.Fatalf("log %d was read to %d of %d", i, from, end)
		}
	}
}

func (w *world) compareBatch(i int, m *modelLog, l *Log, b record.Batch, from record.Offset) {
	if int(b.NextOffset()) > len(m.records) {
		w.tb.Fatalf("log %d has a batch up to %d, %d were appended", i, b.NextOffset(), len(m.records))
	}
	for ; from < b.BaseOffset(); from++ {
		if m.records[from] != noRecord && !m.gone[from] {
			w.tb.Fatalf("log %d lacks record %d at %d", i, m.records[from], from)
		}
	}
	nums := w.numbersOf(b)
	for o := b.BaseOffset(); o < b.NextOffset(); o++ {
		v, ok := nums[o]
		if !ok && (m.gone[o] || m.compacts && m.records[o] == noRecord) {
			continue
		}
		w.seen[o] = true
		if !ok || m.records[o] != v {
			w.tb.Fatalf("log %d has record %d (%v) at %d, want %d", i, v, ok, o, m.records[o])
		}
		if start, _ := l.Start(); o >= start && (b.LeaderEpoch() != m.epochs[o] || l.EpochAt(o) != m.epochs[o]) {
			w.tb.Fatalf("log %d has epoch %d (noted: %d) at %d, want %d", i, b.LeaderEpoch(), l.EpochAt(o), o, m.epochs[o])
		}
	}
}

// numbersOf are the numbers of a batch's records by offset, whose keys are compared.
func (w *world) numbersOf(b record.Batch) map[record.Offset]int64 {
	nums := map[record.Offset]int64{}
	if b.Control() {
		if b.Count() > 0 {
			nums[b.BaseOffset()] = isMarker
		}
		return nums
	}
	var r record.Reader
	defer r.Close()
	for r.Reset(b, 0); r.Next(); {
		num := int64(binary.BigEndian.Uint64(r.Record.Value))
		nums[r.Record.Offset] = num
		if want := w.keys[num]; string(r.Record.Key) != want {
			w.tb.Fatalf("record %d has the key %q, want %q", num, r.Record.Key, want)
		}
	}
	if err := r.Err(); err != nil {
		w.tb.Fatal(err)
	}
	return nums
}

// recovered starts on what a crash left, checks it, and goes on from there.
func (w *world) recovered() {
	if err := w.s.Close(); err != nil && !w.sick { // the one that lives in the past
		w.tb.Fatalf("close: %v", err)
	}
	w.sick = false
	w.mu.Lock()
	w.mem, w.model, w.fallen = w.fallen, w.expected, nil
	w.crashIn, w.failIn, w.failFor, w.before = 0, 0, 0, w.cloneModel()
	if w.ending == powerCut {
		w.boots++
	}
	w.mu.Unlock()
	if testing.Verbose() {
		w.tb.Logf("crashed: %v", w.ending)
	}
	w.openInHardship()
	for i, m := range w.model {
		if w.ending != killed {
			m.lossy = m.lossy || m.committed > m.sure
			m.committed = m.sure // a power cut may take records that were in the page cache only
		}
		m.cut.survive(w.ending)
		if m.unopened = w.rng.IntN(4) == 0 || w.hidden[i] || w.s.waitingError(m.id) != nil; m.unopened {
			continue // it is not opened in this run: the next one must manage, too
		}
		if w.checkUndone(i) {
			w.recreate(i, false)
			continue
		}
		end := w.check(i, m, w.s, false)
		number, _ := w.logs[i].CutNumber()
		w.mu.Lock()
		if m.deleted != nil {
			m.cutNumber, m.areTailsGone = number, true
		}
		if !w.s.isLeaving(m.id) {
			m.deleted = nil
		}
		m.cutting = -1
		if m.cut != nil {
			m.cutting = m.cut.end
		}
		m.cutAt(end)
		m.committed, m.asked = end, max(m.start, min(m.asked, end))
		if !m.pageCache {
			m.sure = end
		}
		m.start, _ = w.logs[i].Start()
		m.high, _ = w.logs[i].HighWatermark()
		w.mu.Unlock()
		lossy := m.lossy
		m.lossy = false
		below := len(m.sent) > 0 && m.sent[len(m.sent)-1].base < m.start
		if lossy && (m.start == end || below) {
			w.recreate(i, false) // the model cannot tell whether the log still knows the producer
			continue
		}
		if m.cut != nil {
			if w.rng.IntN(3) == 0 {
				w.replaceCut(i)
			}
			w.makeCut(i)
		}
		if w.model[i] == m {
			w.retry(i, m)
		}
	}
	w.mu.Lock()
	w.before = w.cloneModel()
	w.mu.Unlock()
}
