package storage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
	"github.com/leatstream/leat/internal/vfs"
)

// transactionWorld has the model of one log with transactions.
type transactionWorld struct {
	*world
	m *modelLog
}

func newTransactionWorld(t *testing.T, seed uint64) *transactionWorld {
	t.Helper()
	w := &world{tb: t, rng: rand.New(rand.NewPCG(seed, 5)), transacts: true}
	return &transactionWorld{w, &modelLog{topic: "topic"}}
}

// transactionOptions are those of a log whose segments have few batches.
func transactionOptions() Options {
	o := testOptions()
	o.SegmentBytes = 2000
	return o
}

// allow has the store admit transactions.
func allow(s *Store) {
	s.keeper.txns.wanted.Store(true)
	s.keeper.checkpointNow()
}

// fill appends batches of transactions to the log.
func (w *transactionWorld) fill(l *Log, n int) {
	w.tb.Helper()
	for range n {
		w.add(l, w.transact(w.m))
	}
}

// add appends a batch that the model has.
func (w *transactionWorld) add(l *Log, it Item) {
	w.tb.Helper()
	items := []Item{it}
	l.Append(1, items)
	if it := items[0]; it.Err != nil || int(it.Next) != len(w.m.records) {
		w.tb.Fatalf("a batch of a transaction got %d: %v", it.Base, it.Err)
	}
}

// addOwn appends a batch of a transaction of a producer of its own, or its commit.
func (w *transactionWorld) addOwn(l *Log, isEnd bool) {
	w.tb.Helper()
	const id = firstTransactor + modelTransactors
	bu := record.Builder{Transactional: true}
	bu.SetProducer(id, 0, record.NoSequence)
	b, nums := w.fillNumbers(&bu, 1, 10)
	var err error
	if isEnd {
		b, err = record.BuildMarker(1, id, 0, record.Marker{Commit: true})
		nums = []int64{isMarker}
	}
	if err != nil {
		w.tb.Fatal(err)
	}
	w.m.txns = append(w.m.txns, newModelTxn(b, record.Offset(len(w.m.records))))
	w.m.add(1, nums...)
	w.add(l, Item{Batch: b, Claim: Claim{Verified: true}})
}

// expect compares the log with the model, many parts of it.
func (w *transactionWorld) expect(l *Log) {
	w.tb.Helper()
	start, err := l.Start()
	if err != nil {
		w.tb.Fatal(err)
	}
	end, _ := l.End()
	if int(end) != len(w.m.records) {
		w.tb.Fatalf("the log ends at %d, want %d", end, len(w.m.records))
	}
	for range 60 {
		w.compareTransactions(0, w.m, l, start, end)
	}
}

// files reads the files of a log that end with a suffix.
func logFiles(t *testing.T, mem *vfs.Mem, suffix string) map[string][]byte {
	t.Helper()
	infos, err := mem.ReadDir("data/topic-0")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, i := range infos {
		if !strings.HasSuffix(i.Name, suffix) {
			continue
		}
		f, err := mem.Open("data/topic-0/"+i.Name, vfs.ReadOnly)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, i.Size)
		_, _ = f.ReadAt(b, 0)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		all["data/topic-0/"+i.Name] = b
	}
	return all
}

// TestTransactions proves what readers are told of transactions, while they go on, and after each kind
// of end of the store.
func TestTransactions(t *testing.T) {
	for seed := range uint64(12) {
		mem := vfs.NewMem()
		w := newTransactionWorld(t, seed)
		s := quietStore(t, testConfig(mem, "data"))
		allow(s)
		for range 8 {
			l := testLog(s, 0, transactionOptions())
			w.fill(l, 30)
			w.expect(l)
			s.Commit()
			if w.rng.IntN(3) == 0 {
				s.keeper.checkpointNow()
			}
			if w.rng.IntN(2) == 0 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				mem = mem.KillClone(nil)
			} else {
				mem = mem.Crash(w.rng)
			}
			s = quietStore(t, testConfig(mem, "data"))
			w.expect(testLog(s, 0, transactionOptions()))
		}
	}
}

// TestAbortsAreDamaged proves that readers are told the same of aborted transactions when any file of
// them is missing, torn, flipped, that of another time, or longer than it was, and that the file of a closed segment is made anew.
func TestAbortsAreDamaged(t *testing.T) {
	mem := vfs.NewMem()
	w := newTransactionWorld(t, 3)
	s := quietStore(t, testConfig(mem, "data"))
	allow(s)
	l := testLog(s, 0, transactionOptions())
	w.fill(l, 20)
	s.Commit()
	s.keeper.checkpointNow()
	earlier := logFiles(t, mem, segment.TxnSuffix)
	w.fill(l, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole := logFiles(t, mem, segment.TxnSuffix)
	bases := slices.Sorted(func(yield func(string) bool) {
		for name := range whole {
			if !yield(name) {
				return
			}
		}
	})
	if len(bases) < 5 {
		t.Fatalf("there are only %d files", len(bases))
	}
	damages := map[string]func(name string, b []byte) []byte{
		"missing": func(string, []byte) []byte { return nil },
		"empty":   func(string, []byte) []byte { return []byte{} },
		"torn":    func(_ string, b []byte) []byte { return b[:len(b)/2] },
		"flipped": func(_ string, b []byte) []byte {
			b = slices.Clone(b)
			b[len(b)/3] ^= 4
			return b
		},
		"longer":     func(_ string, b []byte) []byte { return append(slices.Clone(b), make([]byte, 34)...) },
		"another's":  func(string, []byte) []byte { return whole[bases[0]] },
		"an earlier": func(name string, _ []byte) []byte { return earlier[name] },
		"not complete": func(string, []byte) []byte {
			return transaction.Encode(nil, 0, 0)
		},
		"of a longer log": func(string, []byte) []byte {
			return transaction.Encode([]Abort{{Producer: firstTransactor, First: 0, Last: 1 << 30, Stable: 1 << 30}}, 1<<30, 0)
		},
	}
	for what, damage := range damages {
		for i, name := range bases {
			isLast := i == len(bases)-1
			if what == "of a longer log" && !isLast {
				continue // the last checkpoint vouches for closed segments: nothing was cut there
			}
			t.Run(what+"/"+name, func(t *testing.T) {
				bad := mem.KillClone(nil)
				if b := damage(name, whole[name]); b == nil {
					if err := bad.Remove(name); err != nil {
						t.Fatal(err)
					}
				} else {
					put(t, bad, name, b)
				}
				w := &transactionWorld{&world{tb: t, rng: rand.New(rand.NewPCG(uint64(i), 6))}, w.m}
				s := quietStore(t, testConfig(bad, "data"))
				w.expect(testLog(s, 0, transactionOptions()))
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if got := logFiles(t, bad, segment.TxnSuffix)[name]; !bytes.Equal(got, whole[name]) && i > 0 {
					t.Errorf("it is %x afterwards, and was %x", got, whole[name])
				}
				s = quietStore(t, testConfig(bad, "data"))
				w.expect(testLog(s, 0, transactionOptions()))
			})
		}
	}
}

// TestAbortsWithoutSegment proves that a file of aborted transactions whose segment is gone, as a power
// cut leaves, is removed: another segment may get its name.
func TestAbortsWithoutSegment(t *testing.T) {
	mem := vfs.NewMem()
	w := newTransactionWorld(t, 3)
	s := quietStore(t, testConfig(mem, "data"))
	allow(s)
	w.fill(testLog(s, 0, transactionOptions()), 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := "data/topic-0/" + segment.FileName(record.Offset(len(w.m.records)+7), segment.TxnSuffix)
	put(t, mem, name, transaction.Encode(nil, 100, 100))
	s = quietStore(t, testConfig(mem, "data"))
	w.expect(testLog(s, 0, transactionOptions()))
	if _, err := mem.Stat(name); !errors.Is(err, vfs.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}

// TestFirstTransactionWaits proves that a store takes no batch of a transaction before a checkpoint says
// so which earlier versions refuse, that it takes them then, and that it writes the format of
// earlier versions as long as it has none.
func TestFirstTransactionWaits(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	w := newTransactionWorld(t, 1)
	version := func() byte {
		b, err := s.readFile(newestCheckpoint(t, mem))
		if err != nil {
			t.Fatal(err)
		}
		return b[9]
	}
	l := testLog(s, 0, testOptions())
	mustAppend(t, l, produced(t, 1, 0, 0, 1))
	s.keeper.checkpointNow()
	if v := version(); v != 2 {
		t.Errorf("without transactions the version is %d", v)
	}
	w.m.add(1, 0)
	b := w.transact(w.m).Batch
	for _, items := range [][]Item{{{Batch: b, Claim: Claim{Verified: true}}}, {{Batch: b, Claim: Claim{Verified: true}}}} {
		l.Append(1, items)
		if !errors.Is(items[0].Err, ErrBusy) {
			t.Errorf("before the checkpoint: %v", items[0].Err)
		}
	}
	at := slices.Clone(b)
	at.SetBaseOffset(1)
	at.SetLeaderEpoch(1)
	items := []Item{{Batch: at}}
	if l.AppendAt(items); !errors.Is(items[0].Err, ErrBusy) {
		t.Errorf("before the checkpoint, with an offset: %v", items[0].Err)
	}
	s.keeper.doDueWork() // the refusal has hurried a checkpoint
	if v := version(); v != 3 {
		t.Errorf("where transactions are wanted the version is %d", v)
	}
	items = []Item{{Batch: b, Claim: Claim{Verified: true}}}
	if l.Append(1, items); items[0].Err != nil {
		t.Errorf("after the checkpoint: %v", items[0].Err)
	}
	s.Commit()
	w.expect(l)
	for range 2 {
		s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
		w.expect(testLog(s, 0, testOptions()))
		if !s.keeper.txns.isSaved.Load() {
			t.Error("a start has forgotten that there are transactions")
		}
	}
}

// TestTransactionsAreRefused proves that a batch outside of a transaction that is known, and a marker
// of an old coordinator, are refused and change nothing.
func TestTransactionsAreRefused(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	allow(s)
	l := testLog(s, 0, testOptions())
	data := func(seq int32) record.Batch {
		bu := record.Builder{Transactional: true}
		bu.SetProducer(5, 0, seq)
		bu.Append(1, nil, make([]byte, 8))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	end := func(coordinator int32) record.Batch {
		b, err := record.BuildMarker(1, 5, 0, record.Marker{CoordinatorEpoch: coordinator})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, c := range []struct {
		batch record.Batch
		claim Claim
		want  error
		open  int
	}{
		{data(0), Claim{}, ErrTransactionState, 0},
		{data(0), Claim{Verified: true}, nil, 1},
		{data(1), Claim{}, nil, 1},
		{produced(t, 5, 0, 2, 1), Claim{}, ErrTransactionState, 1},
		{end(7), Claim{}, nil, 0},
		{end(6), Claim{}, ErrCoordinatorFenced, 0},
		{data(2), Claim{}, ErrTransactionState, 0},
	} {
		items := []Item{{Batch: c.batch, Claim: c.claim}}
		if l.Append(1, items); !errors.Is(items[0].Err, c.want) {
			t.Errorf("step %d: %v", i, items[0].Err)
		}
		open, err := OpenTransactions(l)
		isOpen, err2 := HasOpenTransaction(l, 5, 0)
		if len(open) != c.open || isOpen != (c.open > 0) || err != nil || err2 != nil {
			t.Errorf("step %d: open are %v, %v, %v, %v", i, open, isOpen, err, err2)
		}
	}
	list, err := l.Producers(9)
	if err != nil || len(list) != 1 || list[0].CoordinatorEpoch != 7 || list[0].TransactionStart != -1 {
		t.Errorf("it is described as %+v, %v", list, err)
	}
}

// TestTooManyTransactions proves that no transaction begins while the open ones of all logs fill the
// memory for producers, with an error after which clients try again.
func TestTooManyTransactions(t *testing.T) {
	const most = 10
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.Producers = NewProducerBudget(most * producer.EntryBytes)
	s := quietStore(t, cfg)
	allow(s)
	begin := func(id int64) error {
		bu := record.Builder{Transactional: true}
		bu.SetProducer(id, 0, 0)
		bu.Append(1, nil, nil)
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		items := []Item{{Batch: b, Claim: Claim{Verified: true}}}
		testLog(s, int(id%2), testOptions()).Append(1, items)
		return items[0].Err
	}
	for id := range int64(most) {
		if err := begin(id); err != nil {
			t.Fatalf("transaction %d: %v", id, err)
		}
	}
	if err := begin(most); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	b, err := record.BuildMarker(1, 4, 0, record.Marker{})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, testLog(s, 0, testOptions()), b)
	if err := begin(most); err != nil {
		t.Errorf("one more when another has ended: %v", err)
	}
}

// TestManyAborts proves that a segment ends when it has too many aborted transactions, since those of
// the active one are in memory, and that all of them are found.
func TestManyAborts(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	allow(s)
	l := testLog(s, 0, testOptions())
	const n, atOnce = maxAborts + 1000, 1000
	for first := 0; first < n; first += atOnce {
		var items []Item
		for i := range atOnce {
			bu := record.Builder{Transactional: true}
			bu.SetProducer(int64(i), 0, record.NoSequence)
			bu.Append(1, nil, nil)
			data, err := bu.Build()
			end, err2 := record.BuildMarker(1, int64(i), 0, record.Marker{})
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			items = append(items, Item{Batch: data, Claim: Claim{Verified: true}}, Item{Batch: end})
		}
		l.Append(1, items)
		for i := range items {
			if items[i].Err != nil {
				t.Fatal(items[i].Err)
			}
		}
	}
	segs := l.segments()
	if len(segs) != 2 || segs[1].Base() < 2*(maxAborts-1) || segs[1].Base() > 2*(maxAborts+1) {
		t.Errorf("there are %d segments, the last one from %d on", len(segs), segs[len(segs)-1].Base())
	}
	for range 2 {
		list, err := AbortedTransactions(l, 0, 2*n)
		if err != nil || len(list) != n {
			t.Errorf("%d of %d are found, %v", len(list), n, err)
		}
		if list, err = AbortedTransactions(l, 5000, 5002); err != nil || !slices.Equal(list, []Abort{{Producer: 2500 % atOnce, First: 5000, Last: 5001, Stable: 5002}}) {
			t.Errorf("%v are found, %v", list, err)
		}
		s.Commit()
		s.keeper.checkpointNow()
		s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
		l = testLog(s, 0, testOptions())
	}
}

// TestRetentionTakesAborts proves that a segment's file of aborted transactions goes with it, and that what
// is left is right: a transaction of which only a part is left, one that is open since before the start.
func TestRetentionTakesAborts(t *testing.T) {
	mem := vfs.NewMem()
	w := newTransactionWorld(t, 8)
	s := quietStore(t, testConfig(mem, "data"))
	allow(s)
	l := testLog(s, 0, transactionOptions())
	w.fill(l, 200)
	s.Commit()
	s.keeper.checkpointNow()
	for _, start := range []int{50, 120, len(w.m.records) - 20, len(w.m.records)} {
		if err := l.SetStart(record.Offset(start)); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			s.keeper.checkpointNow()
			s.keeper.removeDue(time.Now().Add(time.Hour))
		}
		w.expect(l)
		if logs, aborts := len(logFiles(t, mem, segment.LogSuffix)), len(logFiles(t, mem, segment.TxnSuffix)); aborts > logs {
			t.Errorf("from %d on there are %d segments, and %d files of aborted transactions", start, logs, aborts)
		}
		again := quietStore(t, testConfig(mem.KillClone(nil), "data"))
		w.expect(testLog(again, 0, transactionOptions()))
	}
}

// TestTruncationKeepsTransactions proves that a log which is truncated has the transactions that were open
// at the cut, and those that were aborted before it, at once and after starts. That is so also where the only
// snapshot of its producers lies behind the cut, and the segments before those that it has are gone.
func TestTruncationKeepsTransactions(t *testing.T) {
	for seed := range uint64(20) {
		for _, starts := range [][]int{{0}, {60}, {30, -40}} {
			mem := vfs.NewMem()
			w := newTransactionWorld(t, seed)
			s := quietStore(t, testConfig(mem, "data"))
			allow(s)
			l := testLog(s, 0, transactionOptions())
			for i, start := range starts {
				if i > 0 { // what ends here is not in the snapshot before, and its marker goes
					w.addOwn(l, true)
				}
				w.fill(l, 100)
				w.addOwn(l, false)
				s.Commit()
				if start < 0 {
					start += len(w.m.records)
				}
				if err := l.SetStart(record.Offset(start)); err != nil {
					t.Fatal(err)
				}
				s.keeper.checkpointNow() // it writes a snapshot, since segments go
			}
			for range 4 {
				to := record.Offset(len(w.m.records) - 1 - w.rng.IntN(8))
				if err := l.Truncate(to); err != nil {
					t.Fatal(err)
				}
				end, _ := l.End()
				w.m.cutAt(end)
				w.expect(l)
				if w.rng.IntN(2) == 0 {
					w.fill(l, w.rng.IntN(3))
					s.Commit()
				}
				again := quietStore(t, testConfig(mem.KillClone(nil), "data"))
				w.expect(testLog(again, 0, transactionOptions()))
			}
		}
	}
}

// TestTransactionsHoldReaders proves that after a start readers wait for a transaction whose marker
// lies above the high watermark, though the snapshot of the producers has it no more.
func TestTransactionsHoldReaders(t *testing.T) {
	mem := vfs.NewMem()
	s := quietStore(t, testConfig(mem, "data"))
	allow(s)
	l := testLog(s, 0, testOptions())
	w := newTransactionWorld(t, 1)
	add := func(id int64, commit bool) {
		b, err := record.BuildMarker(1, id, 0, record.Marker{Commit: commit})
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, b)
	}
	bu := record.Builder{Transactional: true}
	bu.SetProducer(1, 0, record.NoSequence)
	data, _ := w.fillNumbers(&bu, 10, 10)
	items := []Item{{Batch: data, Claim: Claim{Verified: true}}}
	mustAppend(t, l, batch(t, 0, 2, 10))
	if l.Append(1, items); items[0].Err != nil {
		t.Fatal(items[0].Err)
	}
	mustAppend(t, l, batch(t, 12, 3, 10))
	add(1, true) // at 15
	mustAppend(t, l, batch(t, 16, 4, 10))
	s.Commit()
	l.SetHighWatermark(14)
	expect := func(what string, limit, want record.Offset) {
		t.Helper()
		if got, err := StableEnd(l, limit); got != want || err != nil {
			t.Errorf("%s: below %d all is stable up to %d, %v, want %d", what, limit, got, err, want)
		}
	}
	expect("before", 14, 2)
	expect("before", 15, 2)
	expect("before", 16, 16)
	for _, what := range []string{"after a start", "after another one"} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = quietStore(t, testConfig(mem, "data"))
		l = testLog(s, 0, testOptions())
		expect(what, 14, 2)
		expect(what, 20, 20)
	}
	if p := s.points.Get(l.id); !p.Transactional || p.TransactionsFrom != 2 || p.Stable != 2 || p == (checkpoint.Point{}) {
		t.Errorf("the point is %+v", p)
	}
}

// TestTruncationOnFullDisk proves that a segment whose end is cut keeps no file of aborted transactions from
// before the cut, though there is no room for another one, and that the log is right afterwards.
func TestTruncationOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	full := false
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if full && op == vfs.OpWrite && strings.Contains(path, segment.TxnSuffix) {
			return vfs.ErrNoSpace
		}
		return nil
	}), "data")
	w := newTransactionWorld(t, 2)
	s := quietStore(t, cfg)
	allow(s)
	l := testLog(s, 0, testOptions())
	w.fill(l, 40)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(logFiles(t, mem, segment.TxnSuffix)) != 1 {
		t.Fatal("there is no file of aborted transactions")
	}
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	full = true
	if err := l.Truncate(record.Offset(len(w.m.records) - 9)); err != nil {
		t.Fatal(err)
	}
	end, _ := l.End()
	w.m.cutAt(end)
	if got := logFiles(t, mem, segment.TxnSuffix); len(got) != 0 {
		t.Errorf("after the cut there are %d", len(got))
	}
	w.fill(l, 9)
	w.expect(l)
	s.Commit()
	full = false
	s = quietStore(t, testConfig(mem.KillClone(nil), "data"))
	w.expect(testLog(s, 0, testOptions()))
}

// TestMarkersOnDisk proves that a log's point holds readers at a transaction whose marker is in the page
// cache only, however high the high watermark is: a power cut may take the marker, and the point's high watermark is lower.
func TestMarkersOnDisk(t *testing.T) {
	s := quietStore(t, testConfig(vfs.NewMem(), "data"))
	allow(s)
	o := testOptions()
	o.FlushMessages = 1 << 40
	l := testLog(s, 0, o)
	w := newTransactionWorld(t, 1)
	begin := func() {
		bu := record.Builder{Transactional: true}
		bu.SetProducer(1, 0, record.NoSequence)
		b, _ := w.fillNumbers(&bu, 3, 10)
		items := []Item{{Batch: b, Claim: Claim{Verified: true}}}
		if l.Append(1, items); items[0].Err != nil {
			t.Fatal(items[0].Err)
		}
	}
	begin()
	l.pub.Lock()
	l.due.sync = true
	l.pub.Unlock()
	s.keeper.checkpointNow() // the records are on disk
	b, err := record.BuildMarker(1, 1, 0, record.Marker{Commit: true})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, b)
	l.SetHighWatermark(4)
	begin()
	l.keepListed()
	if p := s.points.Get(l.id); p.Next != 3 || p.HighWatermark != 3 || p.Stable != 0 {
		t.Errorf("the point is %+v", p)
	}
	if got, err := StableEnd(l, 4); got != 4 || err != nil {
		t.Errorf("all is stable up to %d, %v", got, err)
	}
}

// TestTransactionsInRace proves that readers who ask at any time are told no more than what is decided,
// while the log grows, rolls and is checkpointed, and that the last stable offset never moves back.
func TestTransactionsInRace(t *testing.T) {
	s := openStore(t, testConfig(vfs.NewMem(), "data"))
	allow(s)
	l := testLog(s, 0, transactionOptions())
	var over atomic.Bool
	var all sync.WaitGroup
	// The k-th transaction has the offsets 4k to 4k+2 and its marker 4k+3; the odd ones are aborted.
	all.Go(func() {
		defer over.Store(true)
		for k := range 300 {
			bu := record.Builder{Transactional: true}
			bu.SetProducer(int64(k%5), 0, record.NoSequence)
			for range 3 {
				bu.Append(1, nil, make([]byte, 8))
			}
			data, err := bu.Build()
			end, err2 := record.BuildMarker(1, int64(k%5), 0, record.Marker{Commit: k%2 == 0})
			if err := errors.Join(err, err2); err != nil {
				t.Error(err)
				return
			}
			for _, b := range []record.Batch{data, end} {
				items := []Item{{Batch: b, Claim: Claim{Verified: true}}}
				if l.Append(1, items); items[0].Err != nil {
					t.Error(items[0].Err)
					return
				}
			}
			s.Commit()
			if k%20 == 19 {
				s.keeper.checkpointNow()
			}
		}
	})
	for range 2 {
		all.Go(func() {
			last := record.Offset(0)
			for !over.Load() {
				end, _ := l.End()
				stable, err := StableEnd(l, end)
				if err != nil || stable < last || stable > end {
					t.Errorf("stable up to %d of %d after %d: %v", stable, end, last, err)
					return
				}
				last = stable
				from := max(stable-40, 0)
				list, err := AbortedTransactions(l, from, stable)
				var want []record.Offset
				for k := from / 4; 4*k < stable; k++ {
					if k%2 == 1 {
						want = append(want, 4*k)
					}
				}
				var got []record.Offset
				for _, a := range list {
					got = append(got, a.First)
				}
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("of [%d, %d) those from %v on were aborted, %v, want %v", from, stable, got, err, want)
					return
				}
			}
		})
	}
	all.Wait()
}
