package txn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// committedLog is a memLog whose commits move the high watermark.
type committedLog struct {
	memLog
	held atomic.Pointer[chan struct{}] // commits wait until it is closed; nil: they do not
}

func (l *committedLog) Commit() {
	if held := l.held.Load(); held != nil {
		<-*held
	}
	l.commit()
}

// hold has commits wait until a channel is closed.
func (l *committedLog) hold(until chan struct{}) { l.held.Store(&until) }

// fleet is a node with a Service, node 1, and the leaders of partitions on it and on others.
type fleet struct {
	t        *testing.T
	sv       *Service
	log      *committedLog
	hasTopic bool

	mu        sync.Mutex
	leaders   map[string]int32 // by topic-partition; without an entry the partition does not exist; guarded by mu
	isCurrent bool             // guarded by mu
	written   []string         // "node: topic-partition commit epoch of coordinator", guarded by mu
	underWay  map[string]int   // markers by decision and partition, guarded by mu
	attempts  map[int32]int    // requests by node, guarded by mu
	// answer judges a marker for a node: its code, after it has waited. It is called with no lock held.
	answer func(ctx context.Context, node int32, place string) (code int16, err error)
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{
		t: t, log: &committedLog{memLog: memLog{room: -1}}, hasTopic: true, leaders: map[string]int32{"a-0": 1, "b-0": 2, "b-1": 2, "c-0": 3}, isCurrent: true,
		underWay: map[string]int{}, attempts: map[int32]int{},
		answer: func(context.Context, int32, string) (int16, error) { return 0, nil },
	}
	f.sv = f.newService()
	f.sv.StartLeading(0, 5, f.log)
	return f
}

func (f *fleet) newService() *Service {
	sv := NewService(f.t.Context(), &ServiceConfig{
		Logger: slog.New(slog.DiscardHandler), NodeID: 1, Settings: Settings{AddWait: -1},
		PartitionOf: func(id string) int32 {
			switch {
			case !f.hasTopic:
				return -1
			case strings.HasPrefix(id, "other"):
				return int32(len(id))
			}
			return 0
		},
		Exists: func(topic string, partition int32) bool { _, exists := f.FindLeader(topic, partition); return exists },
		IDs:    &blockOfIDs{1000, 2000}, Leaders: f,
	})
	f.t.Cleanup(sv.Close)
	return sv
}

func placeOf(topic string, partition int32) string { return fmt.Sprintf("%s-%d", topic, partition) }

func (f *fleet) FindLeader(topic string, partition int32) (node int32, exists bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, exists = f.leaders[placeOf(topic, partition)]
	return node, exists
}

// Mirrors is so of no partition.
func (*fleet) Mirrors(string, int32) bool { return false }

func (f *fleet) IsCurrent(time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isCurrent
}

// attemptsTo returns how many requests were sent to a node.
func (f *fleet) attemptsTo(node int32) (n int) {
	f.change(func() { n = f.attempts[node] })
	return n
}

// change changes what the metadata say, or how nodes answer.
func (f *fleet) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fleet) WriteHere(req *kmsg.WriteTxnMarkersRequest, reply func(*kmsg.WriteTxnMarkersResponse)) {
	go func() {
		resp, _ := f.write(f.t.Context(), 1, req)
		reply(resp)
	}()
}

func (f *fleet) WriteThere(ctx context.Context, node int32, req *kmsg.WriteTxnMarkersRequest) (*kmsg.WriteTxnMarkersResponse, error) {
	return f.write(ctx, node, req)
}

// write does what a leader's node does with markers.
func (f *fleet) write(ctx context.Context, node int32, req *kmsg.WriteTxnMarkersRequest) (*kmsg.WriteTxnMarkersResponse, error) {
	resp := kmsg.NewPtrWriteTxnMarkersResponse()
	f.change(func() { f.attempts[node]++ })
	var failure error
	for _, m := range req.Markers {
		rm := kmsg.WriteTxnMarkersResponseMarker{ProducerID: m.ProducerID}
		for _, topic := range m.Topics {
			rt := kmsg.WriteTxnMarkersResponseMarkerTopic{Topic: topic.Topic}
			for _, p := range topic.Partitions {
				place := placeOf(topic.Topic, p)
				key := fmt.Sprint(m.ProducerID, m.ProducerEpoch, place)
				var answer func(context.Context, int32, string) (int16, error)
				f.change(func() {
					if f.underWay[key]++; f.underWay[key] > 1 {
						f.t.Errorf("two markers of one decision are under way for %s", place)
					}
					answer = f.answer
				})
				code, err := answer(ctx, node, place)
				f.change(func() {
					f.underWay[key]--
					if code == 0 && err == nil {
						f.written = append(f.written, fmt.Sprintf("%d: %s %v %d", node, place, m.Committed, m.CoordinatorEpoch))
					}
				})
				failure = errors.Join(failure, err)
				rt.Partitions = append(rt.Partitions, kmsg.WriteTxnMarkersResponseMarkerTopicPartition{Partition: p, ErrorCode: code})
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	if failure != nil {
		return nil, failure
	}
	return resp, nil
}

// begin begins a transaction with partitions, as "topic-partition", and returns its producer.
func (f *fleet) begin(id string, places ...string) producerEpoch {
	f.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &id, 600_000
	var p producerEpoch
	f.sv.InitProducerID(req, func(resp *kmsg.InitProducerIDResponse) {
		if resp.ErrorCode != 0 {
			f.t.Errorf("InitProducerId: code %d", resp.ErrorCode)
		}
		p = producerEpoch{resp.ProducerID, resp.ProducerEpoch}
	})
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch = id, p.id, p.epoch
	for _, place := range places {
		var n int32
		topic, number, _ := strings.Cut(place, "-")
		if _, err := fmt.Sscan(number, &n); err != nil {
			f.t.Fatal(err)
		}
		x.Topics = append(x.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: topic, Partitions: []int32{n}})
	}
	f.sv.AddPartitions(5, []kmsg.AddPartitionsToTxnRequestTransaction{x}, func(answers []kmsg.AddPartitionsToTxnResponseTransaction) {
		for _, topic := range answers[0].Topics {
			if code := topic.Partitions[0].ErrorCode; code != 0 {
				f.t.Errorf("AddPartitionsToTxn, %s: code %d", topic.Topic, code)
			}
		}
	})
	return p
}

// end ends a transaction by the newer flow.
func (f *fleet) end(id string, p producerEpoch, commit bool) {
	f.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = 5, id, p.id, p.epoch, commit
	f.sv.EndTxn(req, func(resp *kmsg.EndTxnResponse) {
		if resp.ErrorCode != 0 {
			f.t.Errorf("EndTxn: code %d", resp.ErrorCode)
		}
	})
}

func (f *fleet) state(id string) (state string) {
	f.sv.Describe([]string{id}, func(list []kmsg.DescribeTransactionsResponseTransactionState) { state = list[0].State })
	return state
}

// want checks which markers were written, in no order, and forgets them; and the state of the id.
func (f *fleet) want(id, state string, written ...string) {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	got := slices.Sorted(slices.Values(f.written))
	f.written = nil
	f.mu.Unlock()
	if diff := cmp.Diff(written, got); diff != "" && len(got)+len(written) > 0 {
		f.t.Errorf("markers (-want +got):\n%s", diff)
	}
	if got := f.state(id); got != state {
		f.t.Errorf("the id is %s, want %s", got, state)
	}
}

// run runs a test of a fleet with a clock of its own.
func runFleet(t *testing.T, do func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(newFleet(t)) })
}

// TestMarkersReachLeaders proves that the markers of a transaction go to the leaders of its partitions, here and on
// other nodes, one request for each node, and that the transaction is complete then.
func TestMarkersReachLeaders(t *testing.T) {
	runFleet(t, func(f *fleet) {
		p := f.begin("x", "a-0", "b-0", "b-1", "c-0")
		f.want("x", "Ongoing")
		f.end("x", p, true)
		f.want("x", "CompleteCommit", "1: a-0 true 5", "2: b-0 true 5", "2: b-1 true 5", "3: c-0 true 5")
		if f.attemptsTo(2) != 1 {
			t.Errorf("%d requests were sent to node 2", f.attemptsTo(2))
		}
		f.end("x", f.begin("x", "b-0"), false)
		f.want("x", "CompleteAbort", "2: b-0 false 5")
	})
}

// TestSlowLeader proves that a leader which does not answer for long gets no second marker of the decision, that other
// leaders get theirs, and that the transaction is complete when it has answered.
func TestSlowLeader(t *testing.T) {
	runFleet(t, func(f *fleet) {
		f.answer = func(_ context.Context, node int32, _ string) (int16, error) {
			if node == 1 {
				time.Sleep(25 * time.Second) // more than twice as long as the machine waits
			}
			return 0, nil
		}
		p := f.begin("x", "a-0", "b-0", "c-0")
		f.end("x", p, true)
		f.want("x", "PrepareCommit", "2: b-0 true 5", "3: c-0 true 5")
		time.Sleep(24 * time.Second)
		f.want("x", "PrepareCommit")
		time.Sleep(2 * time.Second)
		f.want("x", "CompleteCommit", "1: a-0 true 5")
	})
}

// TestMovingLeader proves that a partition is asked again after a refusal or a lost connection, and that its
// new leader is found, also after a time without one.
func TestMovingLeader(t *testing.T) {
	runFleet(t, func(f *fleet) {
		const notLeader = 6
		f.answer = func(_ context.Context, node int32, _ string) (int16, error) {
			if node == 3 {
				return 0, nil
			}
			if f.attemptsTo(2)%2 == 0 {
				return 0, errors.New("the connection is lost")
			}
			return notLeader, nil
		}
		p := f.begin("x", "b-0", "c-0")
		f.end("x", p, true)
		time.Sleep(5 * time.Second)
		f.want("x", "PrepareCommit", "3: c-0 true 5")
		f.change(func() { f.leaders["b-0"] = -1 })
		before := f.attemptsTo(2)
		time.Sleep(5 * time.Second)
		f.want("x", "PrepareCommit")
		if before < 3 || f.attemptsTo(2) != before {
			t.Errorf("%d requests while node 2 leads, %d later", before, f.attemptsTo(2)-before)
		}
		f.change(func() { f.leaders["b-0"] = 3 })
		time.Sleep(2 * time.Second)
		f.want("x", "CompleteCommit", "3: b-0 true 5")
	})
}

// TestDeletedPartition proves that a partition which the metadata do not have needs no marker, but only if
// this node has all metadata of before it has become the coordinator.
func TestDeletedPartition(t *testing.T) {
	runFleet(t, func(f *fleet) {
		p := f.begin("x", "b-0", "c-0")
		f.change(func() {
			delete(f.leaders, "b-0")
			f.isCurrent = false
		})
		f.end("x", p, true)
		time.Sleep(5 * time.Second)
		f.want("x", "PrepareCommit", "3: c-0 true 5")
		f.change(func() { f.isCurrent = true })
		time.Sleep(2 * time.Second)
		f.want("x", "CompleteCommit")
	})
}

// TestFencedMarker proves that a leader which knows a later marker is asked again after a long pause.
func TestFencedMarker(t *testing.T) {
	runFleet(t, func(f *fleet) {
		f.answer = func(context.Context, int32, string) (int16, error) { return transactionCoordinatorFenced, nil }
		p := f.begin("x", "b-0")
		f.end("x", p, true)
		time.Sleep(9 * time.Second)
		f.want("x", "PrepareCommit")
		if f.attemptsTo(2) != 1 {
			t.Errorf("%d requests", f.attemptsTo(2))
		}
		f.change(func() { f.answer = func(context.Context, int32, string) (int16, error) { return 0, nil } })
		time.Sleep(2 * time.Second)
		f.want("x", "CompleteCommit", "2: b-0 true 5")
	})
}

// TestCoordinatorStops proves that a node which stops leading sends no further markers, and that it goes on when it leads
// again, without a second marker beside one that is still under way.
func TestCoordinatorStops(t *testing.T) {
	runFleet(t, func(f *fleet) {
		release := make(chan struct{})
		f.answer = func(_ context.Context, node int32, _ string) (int16, error) {
			if node == 2 {
				<-release
			}
			return 0, nil
		}
		p := f.begin("x", "b-0")
		f.end("x", p, true)
		synctest.Wait() // the first marker is under way
		y := f.begin("y", "b-1")
		f.end("y", y, true)
		f.want("y", "PrepareCommit")
		f.sv.StopLeading(0)
		if got := f.state("x"); got != "" {
			t.Errorf("the id is %s", got)
		}
		f.sv.StartLeading(0, 7, f.log)
		synctest.Wait()
		close(release)
		time.Sleep(time.Second)
		f.want("x", "CompleteCommit", "2: b-0 true 5", "2: b-1 true 7")
		f.want("y", "CompleteCommit")
	})
}

// endKeepingEpoch ends a transaction by the older flow.
func (f *fleet) endKeepingEpoch(id string, p producerEpoch, commit bool) {
	f.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = 4, id, p.id, p.epoch, commit
	f.sv.EndTxn(req, func(resp *kmsg.EndTxnResponse) {
		if resp.ErrorCode != 0 {
			f.t.Errorf("EndTxn: code %d", resp.ErrorCode)
		}
	})
}

// TestWrittenMarkerIsNotSentAgain proves that a partition whose marker was written gets no second one before the machine has
// heard of it, while the disk of the coordinator is slow: that second one would be under way when the transaction is complete,
// and end the next one of a producer that keeps its epoch.
func TestWrittenMarkerIsNotSentAgain(t *testing.T) {
	runFleet(t, func(f *fleet) {
		const notLeader = 6
		disk, first, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
		codeOfC := int16(notLeader)
		f.answer = func(_ context.Context, node int32, _ string) (code int16, err error) {
			switch node {
			case 1:
				f.log.hold(disk) // the end of y is not on disk for long
			case 2:
				if f.attemptsTo(2) == 1 {
					<-first
				} else {
					<-second
				}
			case 3:
				f.change(func() { code = codeOfC })
			}
			return code, nil
		}
		x, y := f.begin("x", "b-0", "c-0"), f.begin("y", "a-0")
		f.endKeepingEpoch("x", x, true)
		synctest.Wait()
		f.end("y", y, true)
		synctest.Wait()
		close(first) // b-0 has its marker, which nobody can be told
		synctest.Wait()
		f.change(func() { codeOfC = 0 })
		time.Sleep(5 * time.Second) // c-0 is asked again meanwhile
		close(disk)
		time.Sleep(time.Second)
		if state := f.state("x"); state != "CompleteCommit" || f.attemptsTo(2) != 1 {
			t.Errorf("x is %s, and %d markers were sent to b-0", state, f.attemptsTo(2))
		}
		close(second)
		time.Sleep(time.Second)
	})
}

// TestNextCoordinator proves that the next coordinator writes the markers of a decision that it loads, under its epoch.
func TestNextCoordinator(t *testing.T) {
	runFleet(t, func(f *fleet) {
		f.answer = func(ctx context.Context, _ int32, _ string) (int16, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		p := f.begin("x", "b-0")
		f.end("x", p, true)
		f.want("x", "PrepareCommit")
		f.sv.Close()
		f.change(func() { f.answer = func(context.Context, int32, string) (int16, error) { return 0, nil } })
		f.sv = f.newService()
		f.sv.StartLeading(0, 8, f.log)
		time.Sleep(time.Second)
		f.want("x", "CompleteCommit", "2: b-0 true 8")
	})
}

// TestManyTransactions proves that markers which come while a request is under way share the next one, and that no
// marker is lost or doubled when many transactions end at once.
func TestManyTransactions(t *testing.T) {
	runFleet(t, func(f *fleet) {
		const count = 300
		f.answer = func(context.Context, int32, string) (int16, error) {
			time.Sleep(time.Millisecond)
			return 0, nil
		}
		for i := range count {
			id := fmt.Sprint("x", i)
			f.end(id, f.begin(id, "b-0", "c-0"), i%2 == 0)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i := range count {
			if got := f.state(fmt.Sprint("x", i)); got != "CompleteCommit" && got != "CompleteAbort" {
				t.Errorf("transaction %d is %s", i, got)
			}
		}
		if len(f.written) != 2*count || f.attemptsTo(2) > count/10 {
			t.Errorf("%d markers in %d requests to node 2", len(f.written), f.attemptsTo(2))
		}
		if s := f.sv.sender; s.count != 0 || len(s.flights) != 0 {
			t.Errorf("%d markers and %d decisions count as under way", s.count, len(s.flights))
		}
	})
}

// TestMissingPartitions proves that a transaction gets none of its partitions if one does not exist, as in Kafka.
func TestMissingPartitions(t *testing.T) {
	runFleet(t, func(f *fleet) {
		p := f.begin("x")
		x := kmsg.NewAddPartitionsToTxnRequestTransaction()
		x.TransactionalID, x.ProducerID, x.ProducerEpoch = "x", p.id, p.epoch
		x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "a", Partitions: []int32{0, 1}}, {Topic: "nowhere", Partitions: []int32{0}}}
		f.sv.AddPartitions(3, []kmsg.AddPartitionsToTxnRequestTransaction{x}, func(answers []kmsg.AddPartitionsToTxnResponseTransaction) {
			a, nowhere := answers[0].Topics[0].Partitions, answers[0].Topics[1].Partitions
			if a[0].ErrorCode != operationNotAttempted || a[1].ErrorCode != unknownTopicOrPartition || nowhere[0].ErrorCode != unknownTopicOrPartition {
				t.Errorf("%+v", answers)
			}
		})
		f.want("x", "Empty")
	})
}

// TestNoCoordinator proves the codes of requests to a node that does not coordinate an id, or whose cluster has no
// coordinators yet, or that has lost its session.
func TestNoCoordinator(t *testing.T) {
	runFleet(t, func(f *fleet) {
		hasSession := true
		f.sv.cfg.HasSession = func() bool { return hasSession }
		codes := func() (codes []int16) {
			id := "x"
			f.sv.InitProducerID(&kmsg.InitProducerIDRequest{TransactionalID: &id, TransactionTimeoutMillis: 1, ProducerID: -1, ProducerEpoch: -1}, func(resp *kmsg.InitProducerIDResponse) { codes = append(codes, resp.ErrorCode) })
			f.sv.AddOffsets(&kmsg.AddOffsetsToTxnRequest{TransactionalID: id}, 0, func(resp *kmsg.AddOffsetsToTxnResponse) { codes = append(codes, resp.ErrorCode) })
			f.sv.EndTxn(&kmsg.EndTxnRequest{TransactionalID: id}, func(resp *kmsg.EndTxnResponse) { codes = append(codes, resp.ErrorCode) })
			f.sv.Describe([]string{id}, func(list []kmsg.DescribeTransactionsResponseTransactionState) {
				codes = append(codes, list[0].ErrorCode)
			})
			x := kmsg.AddPartitionsToTxnRequestTransaction{TransactionalID: id, Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "a", Partitions: []int32{0}}}}
			f.sv.AddPartitions(5, []kmsg.AddPartitionsToTxnRequestTransaction{x}, func(answers []kmsg.AddPartitionsToTxnResponseTransaction) {
				codes = append(codes, answers[0].Topics[0].Partitions[0].ErrorCode)
			})
			return codes
		}
		want := func(what string, code int16) {
			t.Helper()
			if got := codes(); !slices.Equal(got, slices.Repeat([]int16{code}, 5)) {
				t.Errorf("%s: codes %v, want %d", what, got, code)
			}
		}
		hasSession = false
		want("without a session", notCoordinator)
		hasSession, f.hasTopic = true, false
		want("without a topic", notCoordinator)
		f.sv.Describe([]string{""}, func(list []kmsg.DescribeTransactionsResponseTransactionState) {
			if code := list[0].ErrorCode; code != invalidRequest {
				t.Errorf("no id, without a topic: code %d", code)
			}
		})
		f.hasTopic = true
		f.sv.StopLeading(0)
		want("elsewhere", notCoordinator)
	})
}

// TestListFilters proves that List has the ids of all partitions, by state.
func TestListFilters(t *testing.T) {
	runFleet(t, func(f *fleet) {
		f.begin("x", "a-0")
		f.begin("y")
		filter, unknown, code := NewFilter(&kmsg.ListTransactionsRequest{StateFilters: []string{"Ongoing", "Odd"}})
		if code != 0 || !slices.Equal(unknown, []string{"Odd"}) {
			t.Errorf("unknown %v, code %d", unknown, code)
		}
		f.sv.List(filter, func(list []kmsg.ListTransactionsResponseTransactionState, code int16) {
			if code != 0 || len(list) != 1 || list[0].TransactionalID != "x" {
				t.Errorf("%v, code %d", list, code)
			}
		})
	})
}

// TestChecks proves that leaders learn from coordinators, here and on another node, which partitions are part of a
// transaction; that many checks share a request; and what they are told when the coordinator cannot be asked.
func TestChecks(t *testing.T) {
	runFleet(t, func(f *fleet) {
		p := f.begin("x", "b-0")
		coordinator, requests := int32(1), 0
		var failure error
		k := NewChecker(f.t.Context(), CheckerConfig{
			NodeID: 1, Service: f.sv, FindCoordinator: func(string) int32 { return coordinator },
			Ask: func(ctx context.Context, node int32, _ int, req *kmsg.AddPartitionsToTxnRequest) (*kmsg.AddPartitionsToTxnResponse, error) {
				requests++
				if node == 3 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				time.Sleep(time.Millisecond)
				resp := kmsg.NewPtrAddPartitionsToTxnResponse()
				f.sv.AddPartitions(req.Version, req.Transactions, func(answers []kmsg.AddPartitionsToTxnResponseTransaction) { resp.Transactions = answers })
				return resp, failure
			},
		})
		defer k.Close()
		check := func(add bool, parts ...TopicPartitions) []int16 {
			answer := make(chan []int16, 1)
			k.CheckPartitions(&Check{TransactionalID: "x", ProducerID: p.id, ProducerEpoch: p.epoch, Partitions: parts, Add: add}, func(codes []int16) { answer <- codes })
			return <-answer
		}
		want := func(what string, got []int16, want ...int16) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s: codes %v, want %v", what, got, want)
			}
		}
		b := TopicPartitions{"b", []int32{1, 0}}
		want("here", check(false, b), transactionAbortable, 0)
		want("added here", check(true, TopicPartitions{"c", []int32{0}}), 0)
		coordinator = 2
		want("there", check(false, b, TopicPartitions{"c", []int32{0}}), transactionAbortable, 0, 0)
		want("added there", check(true, b), 0, 0)
		requests = 0
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { want("together", check(false, b), 0, 0) })
		}
		all.Wait()
		if requests > 10 {
			t.Errorf("%d requests for 100 checks", requests)
		}
		failure = errors.New("the connection is lost")
		want("lost", check(false, b), coordinatorNotAvailable, coordinatorNotAvailable)
		failure, coordinator = nil, 3
		want("silent", check(false, b), coordinatorNotAvailable, coordinatorNotAvailable)
		coordinator = -1
		want("nobody", check(false, b), coordinatorNotAvailable, coordinatorNotAvailable)
		k.Close()
		coordinator = 2
		want("closed", check(false, b), coordinatorNotAvailable, coordinatorNotAvailable)
	})
}

// TestSlowCoordinatorDelaysNoOther proves that checks for a partition of the coordinators' topic whose replicas are slow delay
// none for another one on the same node, that they share the next request, and that no two requests are under way on one connection.
func TestSlowCoordinatorDelaysNoOther(t *testing.T) {
	runFleet(t, func(f *fleet) {
		goOn := make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		var mu sync.Mutex
		var asked [][]string // the ids of each request; guarded by mu
		used := map[int]bool{}
		k := NewChecker(f.t.Context(), CheckerConfig{
			NodeID: 1, Service: f.sv, FindCoordinator: func(string) int32 { return 2 },
			Ask: func(_ context.Context, _ int32, connection int, req *kmsg.AddPartitionsToTxnRequest) (*kmsg.AddPartitionsToTxnResponse, error) {
				resp := kmsg.NewPtrAddPartitionsToTxnResponse()
				var ids []string
				for i := range req.Transactions {
					ids = append(ids, req.Transactions[i].TransactionalID)
					resp.Transactions = append(resp.Transactions, *answerAdd(&req.Transactions[i], partitionSet{{"b", []int32{0}}}, 0))
				}
				mu.Lock()
				asked = append(asked, ids)
				if used[connection] || connection < 0 || connection >= ChecksUnderWay {
					t.Errorf("connection %d is used", connection)
				}
				used[connection] = true
				mu.Unlock()
				if ids[0] == "slow" {
					<-goOn
				}
				mu.Lock()
				used[connection] = false
				mu.Unlock()
				return resp, nil
			},
		})
		defer k.Close()
		defer release()
		check := func(id string) <-chan []int16 {
			answer := make(chan []int16, 1)
			k.CheckPartitions(&Check{TransactionalID: id, Add: true, Partitions: []TopicPartitions{{"b", []int32{0}}}}, func(codes []int16) { answer <- codes })
			return answer
		}
		slow := []<-chan []int16{check("slow")}
		synctest.Wait()
		slow = append(slow, check("slow"), check("slow"))
		for i := range 3 * ChecksUnderWay {
			answer := check("other" + strings.Repeat("x", i))
			synctest.Wait()
			select {
			case codes := <-answer:
				if !slices.Equal(codes, []int16{0}) {
					t.Errorf("codes %v", codes)
				}
			default:
				t.Fatal("a check waits for one of another partition")
			}
		}
		release()
		for _, answer := range slow {
			if codes := <-answer; !slices.Equal(codes, []int16{0}) {
				t.Errorf("codes %v", codes)
			}
		}
		if last := asked[len(asked)-1]; !slices.Equal(last, []string{"slow", "slow"}) {
			t.Errorf("the last request has %v", last)
		}
	})
}

var _ Leaders = (*fleet)(nil)
