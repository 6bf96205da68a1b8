package txn

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// memLog is a partition's log in memory, whose high watermark moves when the test says so.
type memLog struct {
	mu      sync.Mutex
	batches [][]byte
	end, hw record.Offset
	waits   []func(error)
	room    int // how many batches the disk takes; below 0: any number
}

func (l *memLog) AppendMarker(b record.Batch, e record.Epoch, _ int16) (record.Offset, error) {
	return l.AppendBatch(b, e)
}

func (l *memLog) AppendBatch(b record.Batch, e record.Epoch) (record.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.room == 0 {
		return 0, replica.ErrDiskFull
	}
	l.room--
	b.SetBaseOffset(l.end)
	b.SetLeaderEpoch(e)
	l.end = b.NextOffset()
	l.batches = append(l.batches, bytes.Clone(b))
	return l.end, nil
}

func (*memLog) Commit() {}

func (l *memLog) Await(_ record.Epoch, off record.Offset, _ time.Duration, fn func(error)) {
	l.mu.Lock()
	if l.hw >= off {
		l.mu.Unlock()
		fn(nil)
		return
	}
	defer l.mu.Unlock()
	l.waits = append(l.waits, fn)
}

// commit moves the high watermark to the end.
func (l *memLog) commit() {
	l.mu.Lock()
	l.hw = l.end
	due := l.waits
	l.waits = nil
	l.mu.Unlock()
	for _, fn := range due {
		fn(nil)
	}
}

func (l *memLog) IsCommitted(_ record.Epoch, off record.Offset) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return off <= l.hw
}

func (l *memLog) ReadBatches(off, _ record.Offset, _ int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		if record.Batch(b).NextOffset() > off {
			return b, nil
		}
	}
	return nil, nil
}

func (*memLog) Start() record.Offset { return 0 }

func (l *memLog) End() (record.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end, nil
}

// TestRuntime proves on a coord.Runtime that answers and decisions wait for the high watermark, that
// markers have the leader's epoch, and that the next leader goes on with a decision that it loads. The ids are counted, by their state,
// where they are coordinated, and nowhere else.
func TestRuntime(t *testing.T) {
	sent := make(chan Decision, 1)
	ids := &blockOfIDs{1000, 2000}
	var counts Counts
	expectCounts := func(want map[string]int64) {
		t.Helper()
		for state, n := range counts.States() {
			if n != want[state] {
				t.Errorf("%d ids are counted as %s, want %d", n, state, want[state])
			}
		}
	}
	newRuntime := func() *coord.Runtime[*Machine] {
		rt := coord.New(coord.Config[*Machine]{
			Logger: slog.New(slog.DiscardHandler),
			New: func(_ int32, tm *coord.Timers) *Machine {
				return New(Config{Counts: &counts, IDs: ids, Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0), Send: func(d Decision) { sent <- d }}, tm)
			},
		})
		t.Cleanup(rt.Close)
		return rt
	}
	log := &memLog{room: -1}
	rt := newRuntime()
	rt.StartLeading(0, 5, log)
	answers := 0
	do := func(what string, op func(m *Machine, s *coord.Step)) {
		t.Helper()
		before := answers
		if err := rt.Do(0, op); err != nil {
			t.Fatal(err)
		}
		if answers != before {
			t.Errorf("%s is answered before it is committed", what)
		}
		log.commit()
		if answers != before+1 {
			t.Errorf("%s is not answered when it is committed", what)
		}
	}
	id := "x"
	do("InitProducerId", func(m *Machine, s *coord.Step) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
		m.InitProducerID(s, req, func(*kmsg.InitProducerIDResponse) { answers++ })
	})
	expectCounts(map[string]int64{"Empty": 1})
	do("AddPartitionsToTxn", func(m *Machine, s *coord.Step) {
		x := kmsg.NewAddPartitionsToTxnRequestTransaction()
		x.TransactionalID, x.ProducerID = id, 1000
		x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "t", Partitions: []int32{1}}}
		m.AddPartitions(s, 5, &x, func(*kmsg.AddPartitionsToTxnResponseTransaction) { answers++ })
	})
	expectCounts(map[string]int64{"Ongoing": 1})
	if err := rt.Do(0, func(m *Machine, s *coord.Step) {
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 5, id, 1000, 7
		m.EndTxn(s, req, func(*kmsg.EndTxnResponse) {})
	}); err != nil || counts.Fenced() != 1 {
		t.Errorf("%d requests of fenced producers are counted, %v", counts.Fenced(), err)
	}
	do("EndTxn", func(m *Machine, s *coord.Step) {
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.Commit = 5, id, 1000, true
		m.EndTxn(s, req, func(*kmsg.EndTxnResponse) {
			answers++
			if len(sent) > 0 {
				t.Error("the decision is sent before the client's answer")
			}
		})
		if len(sent) > 0 {
			t.Error("the decision is sent before it is committed")
		}
	})
	first := <-sent
	if first.CoordinatorEpoch != 5 || !first.Commit || first.ProducerID != 1000 || first.ProducerEpoch != 1 || first.Offset != 3 {
		t.Errorf("%+v", first)
	}
	expectCounts(map[string]int64{"PrepareCommit": 1})
	rt.StopLeading(0)
	expectCounts(nil)

	rt = newRuntime()
	rt.StartLeading(0, 7, log)
	again := <-sent
	expectCounts(map[string]int64{"PrepareCommit": 1})
	if again.CoordinatorEpoch != 7 || again.Offset != first.Offset || again.ProducerEpoch != 1 || len(again.Partitions) != 1 {
		t.Errorf("%+v", again)
	}
	if err := rt.Do(0, func(m *Machine, s *coord.Step) {
		m.ReportMarkers(s, id, first.Offset, []MarkerResult{{"t", 1, MarkerWritten}})
	}); err != nil {
		t.Fatal(err)
	}
	log.commit()
	if err := rt.Do(0, func(m *Machine, s *coord.Step) {
		if d := m.Describe(s, id); d.State != "CompleteCommit" {
			t.Errorf("%+v", d)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestWaitingMeetsFullDisk proves that all requests that wait for the end of a transaction are answered if the
// end could be recorded, and the disk has no room for what they ask for.
func TestWaitingMeetsFullDisk(t *testing.T) {
	log := &memLog{room: -1}
	rt := coord.New(coord.Config[*Machine]{
		Logger: slog.New(slog.DiscardHandler),
		New: func(_ int32, tm *coord.Timers) *Machine {
			return New(Config{
				Settings: func() Settings { return Settings{AddWait: time.Hour} },
				IDs:      &blockOfIDs{1000, 2000}, Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0), Send: func(Decision) {},
			}, tm)
		},
	})
	defer rt.Close()
	rt.StartLeading(0, 1, log)
	id := "x"
	var codes []int16
	add := func(m *Machine, s *coord.Step, epoch int16, partition int32) {
		x := kmsg.NewAddPartitionsToTxnRequestTransaction()
		x.TransactionalID, x.ProducerID, x.ProducerEpoch = id, 1000, epoch
		x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "t", Partitions: []int32{partition}}}
		m.AddPartitions(s, 5, &x, func(r *kmsg.AddPartitionsToTxnResponseTransaction) {
			codes = append(codes, r.Topics[0].Partitions[0].ErrorCode)
		})
	}
	for _, op := range []func(m *Machine, s *coord.Step){
		func(m *Machine, s *coord.Step) {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
			m.InitProducerID(s, req, func(*kmsg.InitProducerIDResponse) {})
		},
		func(m *Machine, s *coord.Step) { add(m, s, 0, 1) },
		func(m *Machine, s *coord.Step) {
			req := kmsg.NewPtrEndTxnRequest()
			req.Version, req.TransactionalID, req.ProducerID, req.Commit = 5, id, 1000, true
			m.EndTxn(s, req, func(*kmsg.EndTxnResponse) {})
		},
		func(m *Machine, s *coord.Step) { add(m, s, 1, 1) },
		func(m *Machine, s *coord.Step) { add(m, s, 1, 2) },
		func(m *Machine, s *coord.Step) { add(m, s, 1, 3) },
	} {
		if err := rt.Do(0, op); err != nil {
			t.Fatal(err)
		}
		log.commit()
	}
	if len(codes) != 1 {
		t.Fatalf("%d answers while the transaction ends", len(codes))
	}
	log.room = 2 // for the end, and what the first one asks for
	if err := rt.Do(0, func(m *Machine, s *coord.Step) { m.ReportMarkers(s, id, 3, []MarkerResult{{"t", 1, MarkerWritten}}) }); err != nil {
		t.Fatal(err)
	}
	log.commit()
	// A step has one outcome, so the first one is told to ask again as well, and then finds its partition there.
	if want := []int16{0, coordinatorNotAvailable, coordinatorNotAvailable, coordinatorNotAvailable}; !slices.Equal(codes, want) {
		t.Errorf("codes %v, want %v", codes, want)
	}
	if err := rt.Do(0, func(m *Machine, s *coord.Step) {
		if d := m.Describe(s, id); d.State != "Ongoing" || len(d.Topics) != 1 || !slices.Equal(d.Topics[0].Partitions, []int32{1}) {
			t.Errorf("%+v", d)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestTransactionIsBounded proves that a transaction takes no more partitions, and no longer names, than
// the limits say, and that what it has is still committed.
func TestTransactionIsBounded(t *testing.T) {
	w := newStage(t)
	w.init(words{}, nil)
	add := func(topics ...kmsg.AddPartitionsToTxnRequestTransactionTopic) (code int16) {
		x := kmsg.NewAddPartitionsToTxnRequestTransaction()
		x.TransactionalID, x.ProducerID, x.Topics = "x", 1000, topics
		w.step(func(s *coord.Step) {
			w.m.AddPartitions(s, 5, &x, func(r *kmsg.AddPartitionsToTxnResponseTransaction) { code = r.Topics[0].Partitions[0].ErrorCode })
		})
		return code
	}
	many := make([]int32, maxPartitions)
	for i := range many {
		many[i] = int32(i)
	}
	if c := add(kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: "t", Partitions: slices.Concat(many, many)}); c != transactionAbortable {
		t.Error(name(c)) // it has too many, although each of them twice
	}
	if c := add(kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: "t", Partitions: many}); c != 0 {
		t.Fatal(name(c))
	}
	if c := add(kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: "u", Partitions: []int32{0}}); c != transactionAbortable {
		t.Error(name(c))
	}
	if c := add(kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: "t", Partitions: []int32{0}}); c != 0 {
		t.Error(name(c))
	}
	w.out = nil
	w.end(words{"p": "1000/0", "v": "5"}, []string{"commit"})
	if w.out[0] != "ok 1000/1" || len(w.sent) != 1 || len(w.sent[0].Partitions[0].Partitions) != maxPartitions {
		t.Error(w.out[0])
	}
	w.marker(words{}, []string{"written"})
	var long []kmsg.AddPartitionsToTxnRequestTransactionTopic
	for i := range 5 {
		long = append(long, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: strings.Repeat(string(rune('a'+i)), maxSetBytes/4), Partitions: []int32{0}})
	}
	if c := add(long...); c != producerFenced { // its epoch is 1 now
		t.Error(name(c))
	}
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch, x.Topics = "x", 1000, 1, long
	w.step(func(s *coord.Step) {
		w.m.AddPartitions(s, 5, &x, func(r *kmsg.AddPartitionsToTxnResponseTransaction) {
			if c := r.Topics[0].Partitions[0].ErrorCode; c != transactionAbortable {
				t.Error(name(c))
			}
		})
	})
	w.checkMemory()
}

// TestIDsAreBounded proves that a transactional id that no record can have is refused.
func TestIDsAreBounded(t *testing.T) {
	w := newStage(t)
	for n, want := range map[int]string{maxIDBytes: "ok 1000/0", maxIDBytes + 1: "INVALID_REQUEST -1/-1", 0: "INVALID_REQUEST -1/-1"} {
		w.out = nil
		w.init(words{"id": strings.Repeat("x", n)}, nil)
		if w.out[0] != want {
			t.Errorf("%d bytes: %s", n, w.out[0])
		}
	}
	w.out = nil
	w.list(words{"pattern": strings.Repeat("x", maxPatternBytes+1)}, nil)
	if w.out[0] != "INVALID_REGULAR_EXPRESSION" {
		t.Error(w.out[0])
	}
	w.checkMemory()
}

// TestManyIDsExpire proves that more ids than one batch takes expire, in several batches.
func TestManyIDsExpire(t *testing.T) {
	w := newStage(t)
	const n = 2*maxBatchRecords + 10
	w.ids.end = w.ids.next + n
	var id [4]byte
	for i := range n {
		id = [4]byte{byte(i >> 16), byte(i >> 8), byte(i), 'x'}
		w.init(words{"id": string(id[:])}, nil)
	}
	if len(w.m.ids) != n {
		t.Fatalf("%d ids", len(w.m.ids))
	}
	w.pass(8 * 24 * time.Hour)
	if len(w.m.ids) != 0 || len(w.log) != 2*n {
		t.Errorf("%d ids are left, %d records", len(w.m.ids), len(w.log))
	}
	w.checkMemory()
}

// TestDocHasLimits proves that the limits in the package doc are those of the code.
func TestDocHasLimits(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for what, limit := range map[string]string{
		"length of a transactional id":        fmt.Sprint(maxIDBytes, " bytes"),
		"partitions of one transaction":       fmt.Sprint(maxPartitions),
		"their names and numbers in a record": fmt.Sprint(maxSetBytes, " bytes"),
		"pattern of ListTransactions":         fmt.Sprint(maxPatternBytes, " bytes"),
		"requests that wait for one id":       fmt.Sprint(maxWaiting),
		"tombstones in one batch":             fmt.Sprintf("%d, %d KiB", maxBatchRecords, maxBatchBytes>>10),
	} {
		if !regexp.MustCompile(`//\t` + what + ` +` + limit).Match(doc) {
			t.Errorf("the doc does not say that the limit of %s is %s", what, limit)
		}
	}
}

// TestTimeoutKeepsItsClock proves that a timeout is measured with the monotonic clock, so that it comes in time
// if the node's clock is put back meanwhile.
func TestTimeoutKeepsItsClock(t *testing.T) {
	now := time.Now()
	tx := transaction{state: state{timeout: 60_000, start: now.UnixMilli() - 20_000}}
	at := tx.deadline(now)
	if at.Sub(now) != 40*time.Second {
		t.Errorf("it ends in %v", at.Sub(now))
	}
	if !strings.Contains(at.String(), " m=") { // the documented mark of a monotonic reading
		t.Error("it ends by the wall clock")
	}
	for _, start := range []int64{-1 << 63, -1, 1<<63 - 1} { // no record can make it longer than the timeout
		tx.start = start
		if left := tx.deadline(now).Sub(now); left < 0 || left > time.Minute {
			t.Errorf("a transaction of %d ends in %v", start, left)
		}
	}
}
