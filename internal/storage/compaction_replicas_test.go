package storage

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/vfs"
)

// tableEntry is what the model has of an offset: a record, or a marker.
type tableEntry struct {
	key, value string
	isDeleted  bool
	producer   int64 // -1: none
	seq        int32
	isTxn      bool
	isEnd      bool // it is a marker
	isCommit   bool
}

// tableReplica is a replica of a compacted partition.
type tableReplica struct {
	mem      *vfs.Mem
	s        *Store
	l        *Log
	isInSync bool
	compared record.Epoch // in which the leader has found no difference between the logs
	history  []tableEntry // of its log
}

// tableClient is an idempotent producer with one request at a time.
type tableClient struct {
	next    int32
	pending *tableEntry // it was sent, and the client knows of no answer; nil: nothing was
}

const (
	tableClients = 3 // producers 0 to 2
	tableTxns    = 2 // producers 10 and 11 have transactions
)

// tables is a compacted partition of three replicas, each of which compacts when it likes, and what a client knows of it. Leaders
// change only to replicas that are in sync.
type tables struct {
	t       *testing.T
	rng     *rand.Rand
	all     []*tableReplica
	leader  int
	epoch   record.Epoch
	hw      record.Offset
	clients [tableClients]tableClient
	now     time.Time
	rounds  int
	number  int
}

func newTables(t *testing.T, seed uint64) *tables {
	t.Helper()
	w := &tables{t: t, rng: rand.New(rand.NewPCG(seed, 11)), epoch: 1, now: time.Now()}
	for range 3 {
		r := &tableReplica{mem: vfs.NewMem(), isInSync: true}
		w.start(r)
		w.all = append(w.all, r)
	}
	return w
}

func (w *tables) start(r *tableReplica) {
	cfg := testConfig(r.mem, "data")
	if w.rng.IntN(3) == 0 {
		cfg.Cleaner.MapBytes = compact.MinMapBytes
	}
	cfg.Cleaner.Off = true // compact calls it
	s, err := Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() }) // it may have been closed
	r.s = s
	allow(s)
	o := compactedOptions()
	o.SegmentBytes, o.Replicated = 1024, true
	if w.rng.IntN(3) == 0 {
		o.Compaction.DirtyRatio = 0.5
	}
	r.l = testLog(r.s, 0, o)
}

func (w *tables) end(r *tableReplica) record.Offset {
	end, err := r.l.Committed()
	if err != nil {
		w.t.Fatal(err)
	}
	return end
}

// history is the leader's log.
func (w *tables) history() []tableEntry { return w.all[w.leader].history }

func (w *tables) commit(r *tableReplica) {
	if err := r.s.commit.awaitEntered(); err != nil {
		w.t.Fatal(err)
	}
}

// cut cuts a replica's log where it has parted from the leader's. It tells whether it has.
func (w *tables) cut(r *tableReplica) bool {
	leader, end := w.all[w.leader], w.end(r)
	if end == 0 {
		return false
	}
	last := r.l.EpochAt(end - 1)
	e, at := last, w.end(leader)
	if last != w.epoch {
		var err error
		if e, at, err = leader.l.EpochEnd(last); err != nil {
			w.t.Fatal(err)
		}
	}
	if e == last && at >= end {
		return false
	}
	_, own, err := r.l.EpochEnd(e)
	to := min(at, own, end)
	if err != nil || to < w.hw && r.isInSync {
		w.t.Fatalf("a replica in sync up to %d is cut at %d, below the high watermark %d: %v", end, to, w.hw, err)
	}
	if err := r.l.Truncate(to); err != nil {
		w.t.Fatal(err)
	}
	r.history = r.history[:w.end(r)]
	return true
}

// fetch has a replica copy some of the leader's log, or cut its own where it has parted from that.
func (w *tables) fetch(r *tableReplica) {
	leader := w.all[w.leader]
	if r == leader {
		return
	}
	if w.cut(r) {
		return
	}
	end := w.end(r)
	r.compared = w.epoch
	c, err := leader.l.Read(end, w.end(leader), 200+w.rng.IntN(3000))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { r.l.SetHighWatermark(min(w.hw, w.end(r))) }()
	if c == nil {
		return
	}
	b := make([]byte, c.Len())
	_, err = c.ReadAt(b, 0)
	c.Release()
	var items []Item
	for err == nil && len(b) > 0 {
		var one record.Batch
		if one, b, err = record.Next(b); err == nil {
			items = append(items, Item{Batch: one})
		}
	}
	r.l.AppendAt(items)
	for _, it := range items {
		if it.Err != nil {
			w.t.Fatal(it.Err)
		}
	}
	w.commit(r)
	r.history = slices.Concat(r.history, leader.history[len(r.history):w.end(r)])
}

// settle has replicas in sync, or not, and moves the high watermark.
func (w *tables) settle() {
	leader := w.all[w.leader]
	leader.compared = w.epoch
	low := w.end(leader)
	for _, r := range w.all {
		end := w.end(r)
		switch isCompared := r.compared == w.epoch; {
		case isCompared && end >= w.hw:
			r.isInSync = true
		case w.rng.IntN(3) == 0 && end < w.end(leader):
			r.isInSync = false
		}
		if r.isInSync && r.compared != w.epoch {
			low = min(low, w.hw)
		} else if r.isInSync {
			low = min(low, end)
		}
	}
	w.hw = max(w.hw, low)
	leader.l.SetHighWatermark(w.hw)
}

// catchUp copies everything to all replicas.
func (w *tables) catchUp() {
	for _, r := range w.all {
		for range 1000 {
			if w.fetch(r); w.end(r) == w.end(w.all[w.leader]) && r.l.EpochAt(w.end(r)-1) == w.all[w.leader].l.EpochAt(w.end(r)-1) {
				break
			}
		}
		if w.end(r) != w.end(w.all[w.leader]) {
			w.t.Fatalf("a replica does not come beyond %d of %d", w.end(r), w.end(w.all[w.leader]))
		}
	}
	w.settle()
	for _, r := range w.all {
		w.fetch(r)
	}
}

// append appends a batch at the leader, or finds that it was there already.
func (w *tables) append(b record.Batch, e tableEntry) {
	leader := w.all[w.leader]
	items := []Item{{Batch: b, Claim: Claim{Verified: true}}}
	leader.l.Append(w.epoch, items)
	it := items[0]
	at := slices.IndexFunc(w.history(), func(h tableEntry) bool {
		return !e.isEnd && h.producer == e.producer && e.producer >= 0 && h.seq == e.seq && !h.isEnd
	})
	switch {
	case it.Err != nil:
		w.t.Fatalf("producer %d's batch %d is refused: %v", e.producer, e.seq, it.Err)
	case at >= 0 && (!it.Dup || it.Base != record.Offset(at)):
		w.t.Fatalf("producer %d's batch %d, which is at %d, is stored again at %d", e.producer, e.seq, at, it.Base)
	case at < 0 && (it.Dup || it.Base != record.Offset(len(w.history()))):
		w.t.Fatalf("producer %d's batch %d counts as one at %d", e.producer, e.seq, it.Base)
	case at < 0:
		leader.history = append(leader.history, e)
	}
	w.commit(leader)
}

// build builds the batch of a record.
func (w *tables) build(e tableEntry) record.Batch {
	bu := record.Builder{Transactional: e.isTxn}
	if e.producer >= 0 {
		bu.SetProducer(e.producer, 0, e.seq)
	}
	value := []byte(e.value)
	if e.isDeleted {
		value = nil
	}
	bu.Append(1_700_000_000_000, []byte(e.key), value)
	b, err := bu.Build()
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.Clone(b)
}

// produce has some client do the next thing.
func (w *tables) produce() {
	w.number++
	e := tableEntry{
		key: fmt.Sprint("k", w.rng.IntN(7)), value: fmt.Sprint(w.number, strings.Repeat("v", w.rng.IntN(200))),
		isDeleted: w.rng.IntN(6) == 0, producer: -1,
	}
	switch w.rng.IntN(4) {
	case 0:
		w.append(w.build(e), e)
	case 1:
		w.transact(e)
	default:
		id := w.rng.IntN(tableClients)
		c := &w.clients[id]
		if c.pending == nil {
			e.producer, e.seq = int64(id), c.next
			c.pending, c.next = &e, c.next+1
		}
		w.append(w.build(*c.pending), *c.pending)
		w.takeAnswers()
	}
}

// takeAnswers has clients hear, sometimes, that their batches are committed.
func (w *tables) takeAnswers() {
	for i := range w.clients {
		c := &w.clients[i]
		if c.pending == nil || w.rng.IntN(2) == 0 {
			continue
		}
		if at := slices.IndexFunc(w.history(), func(h tableEntry) bool { return h.producer == int64(i) && h.seq == c.pending.seq }); at >= 0 && record.Offset(at) < w.hw {
			c.pending = nil
		}
	}
}

// transact writes a record in a transaction, or ends it.
func (w *tables) transact(e tableEntry) {
	e.producer, e.isTxn = int64(10+w.rng.IntN(tableTxns)), true
	isOpen := false
	for _, h := range w.history() {
		if h.producer == e.producer {
			if isOpen = !h.isEnd; isOpen {
				e.seq = h.seq + 1
			}
		}
	}
	if !isOpen || w.rng.IntN(2) == 0 {
		w.append(w.build(e), e)
		return
	}
	w.endTransaction(e.producer, w.rng.IntN(2) == 0)
}

func (w *tables) endTransaction(id int64, commit bool) {
	b, err := record.BuildMarker(1, id, 0, record.Marker{Commit: commit})
	if err != nil {
		w.t.Fatal(err)
	}
	w.append(b, tableEntry{producer: id, isEnd: true, isCommit: commit})
}

// elect has another replica lead that is in sync, and the coordinator abort what was open.
func (w *tables) elect() {
	to := w.rng.IntN(len(w.all))
	r := w.all[to]
	if to == w.leader || !r.isInSync {
		return
	}
	w.leader, w.epoch = to, w.epoch+1
	r.compared = w.epoch
	if w.end(r) < w.hw {
		w.t.Fatalf("a replica in sync ends at %d, below the high watermark %d", w.end(r), w.hw)
	}
	if err := r.l.BeginEpoch(w.epoch); err != nil {
		w.t.Fatal(err)
	}
	for id := range int64(tableTxns) {
		w.endTransaction(10+id, false)
	}
}

// compact has a replica compacted.
func (w *tables) compact(r *tableReplica) {
	if compactNow(w.t, r.s, r.l, w.now) {
		w.rounds++
	}
}

// compactBeside has a replica compacted while the others, and it itself, go on.
func (w *tables) compactBeside(r *tableReplica) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.s.keeper.checkpointNow()
		r.s.cleaner.compactOne(context.WithoutCancel(w.t.Context()), r.l, w.now)
	}()
	for range 1 + w.rng.IntN(12) {
		switch w.rng.IntN(8) {
		case 0:
			w.elect()
		case 1, 2:
			w.fetch(r)
			w.settle()
		case 3, 4:
			w.fetch(w.all[w.rng.IntN(len(w.all))])
			w.settle()
		default:
			w.produce()
		}
	}
	<-done
}

// restart kills a replica, or cuts its power.
func (w *tables) restart(r *tableReplica) {
	if w.rng.IntN(2) == 0 {
		r.mem = r.mem.Crash(w.rng)
	} else {
		r.mem = r.mem.KillClone(nil)
	}
	end := w.end(r)
	_ = r.s.Close()
	w.start(r)
	if w.end(r) != end {
		w.t.Fatalf("a replica ended at %d, and ends at %d after a crash", end, w.end(r))
	}
	if r == w.all[w.leader] { // a start begins another epoch
		w.epoch++
		r.compared = w.epoch
		if err := r.l.BeginEpoch(w.epoch); err != nil {
			w.t.Fatal(err)
		}
	}
}

// rebuild has a replica that is not in sync begin anew.
func (w *tables) rebuild(r *tableReplica) {
	if r.isInSync {
		return
	}
	_ = r.s.Close()
	r.mem, r.compared, r.history = vfs.NewMem(), record.NoEpoch, nil
	w.start(r)
}

// modelTable is the table of the committed records below an offset, and the last stable offset where that is the high watermark.
func (w *tables) modelTable(hw record.Offset) (table map[string]string, stable record.Offset) {
	end := map[int64]int{} // by producer: the first marker behind
	outcome := make([]int, hw)
	for o := int(hw) - 1; o >= 0; o-- {
		switch h := w.history()[o]; {
		case h.isEnd:
			end[h.producer] = o + 1
		case h.isTxn:
			outcome[o] = end[h.producer]
		}
	}
	stable = hw
	for o := range w.history()[:hw] {
		if h := w.history()[o]; h.isTxn && !h.isEnd && outcome[o] == 0 {
			stable = record.Offset(o)
			break
		}
	}
	table = map[string]string{}
	for o, h := range w.history()[:stable] {
		if h.isEnd || h.isTxn && !w.history()[outcome[o]-1].isCommit {
			continue
		}
		if table[h.key] = h.value; h.isDeleted {
			delete(table, h.key)
		}
	}
	return table, stable
}

// check compares what a reader of committed records finds on a replica that has all that is committed.
func (w *tables) check(r *tableReplica) {
	if r.l.Fault() != nil || UncleanableError(r.l) != nil {
		w.t.Fatal(r.l.Fault(), UncleanableError(r.l))
	}
	if w.end(r) < w.hw || r.compared != w.epoch {
		return
	}
	want, stable := w.modelTable(w.hw)
	at, err := StableEnd(r.l, w.hw)
	if err != nil || at > stable {
		w.t.Fatalf("readers get up to %d, and may get up to %d: %v", at, stable, err)
	}
	if at < stable && w.hw == w.end(r) && w.hw == record.Offset(len(w.history())) {
		w.t.Fatalf("readers get up to %d of %d", at, stable)
	}
	if at < stable {
		return
	}
	list, err := AbortedTransactions(r.l, 0, stable)
	if err != nil {
		w.t.Fatal(err)
	}
	aborted, got := map[int64]bool{}, map[string]string{}
	var rd record.Reader
	defer rd.Close()
	for _, b := range readAllWith(w.t, r.l, 0, 5000, true) {
		if b.BaseOffset() >= stable {
			break
		}
		for len(list) > 0 && list[0].First <= b.LastOffset() {
			aborted[list[0].Producer], list = true, list[1:]
		}
		if b.Control() {
			if m, err := record.ReadMarker(b); err == nil && !m.Commit {
				delete(aborted, b.ProducerID())
			}
			continue
		}
		for rd.Reset(b, 0); rd.Next(); {
			h := w.history()[rd.Record.Offset]
			if h.isEnd || h.key != string(rd.Record.Key) || h.isDeleted != (rd.Record.Value == nil) || !h.isDeleted && h.value != string(rd.Record.Value) {
				w.t.Fatalf("at %d it has %s=%s, and the leader had %+v", rd.Record.Offset, rd.Record.Key, rd.Record.Value, h)
			}
			if b.Transactional() && aborted[b.ProducerID()] {
				continue
			}
			if got[h.key] = h.value; h.isDeleted {
				delete(got, h.key)
			}
		}
		if err := rd.Err(); err != nil {
			w.t.Fatal(err)
		}
	}
	if !maps.Equal(got, want) {
		w.t.Fatalf("replica of leader %v, up to %d: it has %v, want %v", r == w.all[w.leader], stable, got, want)
	}
}

func (w *tables) step() {
	r := w.all[w.rng.IntN(len(w.all))]
	switch n := w.rng.IntN(100); {
	case n < 45:
		w.produce()
	case n < 70:
		w.fetch(r)
		w.settle()
	case n < 78:
		w.compact(r)
		w.check(r)
	case n < 84:
		w.compactBeside(r)
		w.check(r)
	case n < 88:
		w.elect()
	case n < 91:
		w.restart(r)
		w.check(r)
	case n < 93:
		w.rebuild(r)
	case n < 96: // a replica that copies for longer than delete.retention.ms may miss tombstones and markers, as in Kafka
		w.catchUp()
		w.now = w.now.Add(25 * time.Hour)
	default:
		w.takeAnswers()
	}
}

// TestCompactedReplicas proves that three replicas of a partition, each of which compacts at other times than the others, copies what they have
// left, is cut, killed and built anew, give who reads from the leader the latest committed record of each key, and nothing else; that producers
// whose requests are repeated to any leader have each record stored once; and that readers of committed records are held up by nothing. Rounds
// of compaction go on beside the rest at times, so that a seed that failed may need several tries.
func TestCompactedReplicas(t *testing.T) {
	t.Parallel()
	from, to := seeds(t)
	to = from + (to-from+9)/10 // a run takes as long as ten others
	rounds := 0
	for seed := from; seed < to; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			w := newTables(t, uint64(seed))
			for range 600 {
				w.step()
			}
			w.catchUp()
			for _, r := range w.all {
				w.compact(r)
				w.check(r)
			}
			rounds += w.rounds
		})
	}
	if to-from > 20 && rounds < 5*(to-from) {
		t.Errorf("%d rounds in %d runs", rounds, to-from)
	}
}
