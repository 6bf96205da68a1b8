package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatstream/leat/internal/record"
)

// The tests of this file are what Jepsen has found in the transactions of Kafka, Redpanda and Bufstream, and the bugs of
// Kafka that have made its protocol what it is, each as a history of requests. The same rules stand, against many histories, in
// sim.TestTransactions and txn.TestModel; txn's known_bugs.txt has those that are the coordinator's alone.

// wireProducer is a transactional producer whose requests a test sends one by one, in any order and more than once.
type wireProducer struct {
	t     *testing.T
	to    *kgo.Broker
	id    string
	newer bool // it knows transaction.version 2
	has   kmsg.InitProducerIDResponse
}

// versionsOf are the versions of requests that a client of a flow sends.
func versionsOf(newer bool) *kversion.Versions {
	versions := kversion.V3_7_0()
	versions.SetMaxKeyVersion(24, 3) // later ones of AddPartitionsToTxn are for leaders
	if newer {
		versions = kversion.Tip()
		versions.SetMaxKeyVersion(0, 12) // later ones of Produce name topics by their ids
		versions.SetMaxKeyVersion(26, 5) // EndTxn
		versions.SetMaxKeyVersion(28, 5) // TxnOffsetCommit
	}
	return versions
}

// newWireProducer makes a producer of one of the flows, which has got its epoch.
func newWireProducer(t *testing.T, n *Node, id string, newer bool) *wireProducer {
	t.Helper()
	cl := client(t, n, kgo.MaxVersions(versionsOf(newer)))
	w := &wireProducer{t: t, to: cl.SeedBrokers()[0], id: id, newer: newer}
	for kind, key := range []string{"group", id} { // their topics are made when a coordinator is looked for
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKeys = int8(kind), []string{key}
		ask(w, req, func(r *kmsg.FindCoordinatorResponse) int16 { return r.Coordinators[0].ErrorCode })
	}
	w.init()
	return w
}

// ask sends a request, again for as long as a client would do so.
func ask[R kmsg.Response](w *wireProducer, req kmsg.Request, codeOf func(R) int16) R {
	w.t.Helper()
	for ctx := deadline(w.t); ; {
		resp, err := w.to.Request(ctx, req)
		if err != nil {
			w.t.Fatal(err)
		}
		got, ok := resp.(R)
		if !ok {
			w.t.Fatalf("the answer is a %T", resp)
		}
		if !slices.Contains([]int16{kerr.ConcurrentTransactions.Code, kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code, kerr.NotEnoughReplicas.Code}, codeOf(got)) {
			return got
		}
		pause(ctx, 10*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// init gets an epoch, which fences those before.
func (w *wireProducer) init() {
	w.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &w.id, 20_000
	got := ask(w, req, func(r *kmsg.InitProducerIDResponse) int16 { return r.ErrorCode })
	if got.ErrorCode != 0 {
		w.t.Fatalf("%s: InitProducerId: %v", w.id, kerr.ErrorForCode(got.ErrorCode))
	}
	w.has = *got
}

// produceRequest makes the request with one value; the sequence counts the values of the producer's epoch in the partition.
func (w *wireProducer) produceRequest(partition, sequence int32, value string) *kmsg.ProduceRequest {
	w.t.Helper()
	b := record.Builder{Transactional: true, LeaderEpoch: record.NoEpoch}
	b.SetProducer(w.has.ProducerID, w.has.ProducerEpoch, sequence)
	b.Append(time.Now().UnixMilli(), nil, []byte(value))
	batch, err := b.Build()
	if err != nil {
		w.t.Fatal(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = &w.id, -1, 10_000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "t"
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	return req
}

// produce sends such a request, and returns the offset of the value, or the error.
func (w *wireProducer) produce(req *kmsg.ProduceRequest) (int64, error) {
	w.t.Helper()
	of := func(r *kmsg.ProduceResponse) *kmsg.ProduceResponseTopicPartition { return &r.Topics[0].Partitions[0] }
	got := of(ask(w, req, func(r *kmsg.ProduceResponse) int16 { return of(r).ErrorCode }))
	return got.BaseOffset, kerr.ErrorForCode(got.ErrorCode)
}

// write adds the partition, if the flow needs that, and writes a value.
func (w *wireProducer) write(partition, sequence int32, value string) (offset int64) {
	w.t.Helper()
	if !w.newer {
		if err := w.add(partition); err != nil {
			w.t.Fatal(err)
		}
	}
	offset, err := w.produce(w.produceRequest(partition, sequence, value))
	if err != nil {
		w.t.Fatalf("%s: %s: %v", w.id, value, err)
	}
	return offset
}

func (w *wireProducer) add(partition int32) error {
	w.t.Helper()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = w.id, w.has.ProducerID, w.has.ProducerEpoch
	topic := kmsg.NewAddPartitionsToTxnRequestTopic()
	topic.Topic, topic.Partitions = "t", []int32{partition}
	req.Topics = append(req.Topics, topic)
	of := func(r *kmsg.AddPartitionsToTxnResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode }
	return kerr.ErrorForCode(of(ask(w, req, of)))
}

// endRequest makes the request that ends the present transaction.
func (w *wireProducer) endRequest(commit bool) *kmsg.EndTxnRequest {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = w.id, w.has.ProducerID, w.has.ProducerEpoch, commit
	return req
}

// end sends such a request. Of the newer flow the producer has another epoch afterwards, unless it was told something old.
func (w *wireProducer) end(req *kmsg.EndTxnRequest) error {
	w.t.Helper()
	got := ask(w, req, func(r *kmsg.EndTxnResponse) int16 { return r.ErrorCode })
	if got.ErrorCode == 0 && w.newer && got.ProducerEpoch > w.has.ProducerEpoch {
		w.has.ProducerID, w.has.ProducerEpoch = got.ProducerID, got.ProducerEpoch
	}
	return kerr.ErrorForCode(got.ErrorCode)
}

func (w *wireProducer) mustEnd(commit bool) {
	w.t.Helper()
	if err := w.end(w.endRequest(commit)); err != nil {
		w.t.Fatalf("%s: end, commit %v: %v", w.id, commit, err)
	}
}

// startWithTopic starts a node with the topic t of two partitions.
func startWithTopic(t *testing.T, dir string) *Node {
	t.Helper()
	n := start(t, Config{Data: dir})
	if made, err := kadm.NewClient(client(t, n)).CreateTopics(deadline(t), 2, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	return n
}

// readCommitted reads what readers of committed records see of the topic t up to its end: an ordinary record with a
// value of its own is written behind, so that a transaction that hangs is found out.
func readCommitted(t *testing.T, n *Node) []string {
	t.Helper()
	ctx := deadline(t)
	end := fmt.Sprint("end ", time.Now().UnixNano())
	cl := client(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for p := range int32(2) {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: p, Key: []byte("end"), Value: []byte(end)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	values := []string{}
	for ends := 0; ends < 2; {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			t.Fatalf("a transaction hangs: after %v: %v", values, err)
		}
		f.EachRecord(func(r *kgo.Record) {
			switch {
			case string(r.Value) == end:
				ends++
			case r.Key == nil:
				values = append(values, string(r.Value))
			}
		})
	}
	slices.Sort(values)
	return values
}

func wantCommitted(t *testing.T, n *Node, want ...string) {
	t.Helper()
	if got := readCommitted(t, n); !slices.Equal(got, want) {
		t.Errorf("readers of committed records see %q, want %q", got, want)
	}
}

// bothFlows runs a test with a producer of each flow.
func bothFlows(t *testing.T, run func(t *testing.T, newer bool)) {
	t.Helper()
	for _, newer := range []bool{true, false} {
		t.Run(map[bool]string{true: "newer", false: "older"}[newer], func(t *testing.T) { run(t, newer) })
	}
}

// TestDelayedCommitDoesNotEndTheNextTransaction is KAFKA-17754, which Jepsen has found in Bufstream and in Kafka: a commit that is
// sent again, or was delayed by the network, reaches the next transaction of its producer. In the newer flow it is told what has become of
// its own transaction, and ends nothing.
func TestDelayedCommitDoesNotEndTheNextTransaction(t *testing.T) {
	n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
	w := newWireProducer(t, n, "a", true)
	w.write(0, 0, "first")
	late := w.endRequest(true)
	if err := w.end(late); err != nil {
		t.Fatal(err)
	}
	w.write(0, 0, "second")
	if err := w.end(late); err == nil {
		t.Error("a commit of the transaction before is answered as if it were one of the open transaction")
	}
	w.write(1, 0, "second too")
	w.mustEnd(false)
	wantCommitted(t, n, "first")
}

// TestDelayedAbortDoesNotTearTheNextTransaction is the same finding with an abort: writes of a transaction that is committed
// were lost.
func TestDelayedAbortDoesNotTearTheNextTransaction(t *testing.T) {
	n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
	w := newWireProducer(t, n, "a", true)
	w.write(0, 0, "first")
	late := w.endRequest(false)
	if err := w.end(late); err != nil {
		t.Fatal(err)
	}
	w.write(0, 0, "second")
	_ = w.end(late)
	w.write(1, 0, "second too")
	_ = w.end(late)
	w.mustEnd(true)
	wantCommitted(t, n, "second", "second too")
}

// TestOlderFlowClosesTheHoleByItsEpoch proves that a client of the older flow, which cannot tell its transactions apart, is safe from a
// commit that was delayed when it does what Jepsen and KIP-360 ask for: it gets another epoch when it does not know an outcome.
func TestOlderFlowClosesTheHoleByItsEpoch(t *testing.T) {
	n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
	w := newWireProducer(t, n, "a", false)
	w.write(0, 0, "first")
	late := w.endRequest(true) // no answer comes
	w.init()
	w.write(0, 0, "second")
	if err := w.end(late); err == nil {
		t.Error("a commit with the epoch before is done")
	}
	w.mustEnd(false)
	wantCommitted(t, n)
}

// TestRecordBehindItsCommit is KAFKA-14402 and KAFKA-12671, the hanging transaction: a record overtakes nothing, but comes over another
// connection when its transaction has ended already. It must not begin a transaction that nobody ends.
func TestRecordBehindItsCommit(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
		w := newWireProducer(t, n, "a", newer)
		w.write(0, 0, "in time")
		late, lateElsewhere := w.produceRequest(0, 1, "late"), w.produceRequest(1, 0, "late elsewhere")
		w.mustEnd(true)
		wantCommitted(t, n, "in time") // the marker is written: a record that comes before it is a part of the transaction
		for i, req := range []*kmsg.ProduceRequest{late, lateElsewhere, late} {
			if _, err := w.produce(req); err == nil {
				t.Errorf("late record %d was taken", i)
			}
		}
		wantCommitted(t, n, "in time")
		w.write(1, 0, "next")
		w.mustEnd(true)
		wantCommitted(t, n, "in time", "next")
	})
}

// TestAbortedRead is G1a, which Jepsen has found in Redpanda 21.10 (#3036) and Bufstream: no reader of committed records sees a
// record of a transaction that is open or aborted, wherever it begins to read.
func TestAbortedRead(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
		w := newWireProducer(t, n, "a", newer)
		for i := range int32(3) {
			w.write(0, i, fmt.Sprint("aborted ", i))
		}
		plain := client(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := plain.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("amid")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		read := func(from int64, count int) []string {
			return readValues(t, client(t, n, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
				kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(from)}})), count)
		}
		ends, err := kadm.NewClient(plain).ListCommittedOffsets(deadline(t), "t")
		if o, ok := ends.Lookup("t", 0); err != nil || !ok || o.Offset != 0 {
			t.Errorf("the last stable offset is %+v, %v", o, err)
		}
		w.mustEnd(false)
		for from := range int64(4) {
			if got := read(from, 1); !slices.Equal(got, []string{"amid"}) {
				t.Errorf("from %d a reader sees %q", from, got)
			}
		}
	})
}

// TestCircularInformationFlow is G1c, which Jepsen has found in Redpanda 21.10: of two transactions that are open at the same time neither
// sees what the other one writes.
func TestCircularInformationFlow(t *testing.T) {
	n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
	a, b := newWireProducer(t, n, "a", true), newWireProducer(t, n, "b", true)
	a.write(0, 0, "a")
	b.write(1, 0, "b")
	adm := kadm.NewClient(client(t, n))
	for p := range int32(2) {
		ends, err := adm.ListCommittedOffsets(deadline(t), "t")
		if o, ok := ends.Lookup("t", p); err != nil || !ok || o.Offset != 0 {
			t.Errorf("partition %d can be read up to %+v, %v", p, o, err)
		}
	}
	a.mustEnd(true)
	b.mustEnd(true)
	wantCommitted(t, n, "a", "b")
}

// TestWriteCycle is G0, of which Jepsen says that Kafka's protocol allows it: two transactions write to two partitions, each
// first where the other one writes second. Both are committed whole, in the order of their records.
func TestWriteCycle(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
		a, b := newWireProducer(t, n, "a", newer), newWireProducer(t, n, "b", newer)
		a.write(0, 0, "a0")
		b.write(1, 0, "b1")
		b.write(0, 0, "b0")
		a.write(1, 0, "a1")
		b.mustEnd(true)
		adm := kadm.NewClient(client(t, n))
		ends, err := adm.ListCommittedOffsets(deadline(t), "t")
		if o, ok := ends.Lookup("t", 0); err != nil || !ok || o.Offset != 0 {
			t.Errorf("partition 0, whose first record is of an open transaction, can be read up to %+v, %v", o, err)
		}
		a.mustEnd(true)
		wantCommitted(t, n, "a0", "a1", "b0", "b1")
	})
}

// TestTornTransaction is what Jepsen calls a torn, or fractured, transaction: of one whose commit was acknowledged, all writes are seen,
// also if the node stops before the markers are everywhere.
func TestTornTransaction(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "data")
		n := startWithTopic(t, dir)
		want := []string{}
		for i := range 3 {
			w := newWireProducer(t, n, "a", newer)
			for p := range int32(2) {
				want = append(want, fmt.Sprintf("%d %d", i, p))
				w.write(p, 0, want[len(want)-1])
			}
			w.mustEnd(true)
			stop(t, n)
			n = start(t, Config{Data: dir})
		}
		wantCommitted(t, n, want...)
	})
}

// TestNoOffsetIsMadeUp is Bufstream's finding of zeros: acknowledged records had the offset 0, and groups were told
// the offset 0. The offset of each record is its own, also if it is sent again; a group whose transaction is aborted has the offset from before.
func TestNoOffsetIsMadeUp(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "data")
		n := startWithTopic(t, dir)
		w := newWireProducer(t, n, "a", newer)
		if at := w.write(0, 0, "first"); at != 0 {
			t.Errorf("the first record is at %d", at)
		}
		second := w.produceRequest(0, 1, "second")
		for range 3 {
			if at, err := w.produce(second); err != nil || at != 1 {
				t.Errorf("the second record is at %d: %v", at, err)
			}
		}
		w.sendOffset(10)
		w.mustEnd(true)
		w.wantOffset(10)
		w.write(0, map[bool]int32{true: 0, false: 2}[newer], "third")
		w.sendOffset(20)
		w.mustEnd(false)
		w.wantOffset(10)
		stop(t, n)
		n = start(t, Config{Data: dir})
		w.to = client(t, n, kgo.MaxVersions(versionsOf(newer))).SeedBrokers()[0]
		w.wantOffset(10)
		wantCommitted(t, n, "first", "second")
	})
}

// sendOffset sends an offset of the group "group" in the transaction.
func (w *wireProducer) sendOffset(offset int64) {
	w.t.Helper()
	if !w.newer {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = w.id, w.has.ProducerID, w.has.ProducerEpoch, "group"
		if got := ask(w, req, func(r *kmsg.AddOffsetsToTxnResponse) int16 { return r.ErrorCode }); got.ErrorCode != 0 {
			w.t.Fatal(kerr.ErrorForCode(got.ErrorCode))
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = w.id, w.has.ProducerID, w.has.ProducerEpoch, "group", -1
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic = "t"
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset = offset
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	of := func(r *kmsg.TxnOffsetCommitResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode }
	if code := of(ask(w, req, of)); code != 0 {
		w.t.Fatal(kerr.ErrorForCode(code))
	}
}

// wantOffset checks the offset of the group when no transaction is open that has another one.
func (w *wireProducer) wantOffset(want int64) {
	w.t.Helper()
	for ctx := deadline(w.t); ; pause(ctx, 10*time.Millisecond) {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.RequireStable = true
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "group"
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.Partitions = "t", []int32{0}
		g.Topics = append(g.Topics, topic)
		req.Groups = append(req.Groups, g)
		req.Version = 9
		resp, err := w.to.Request(ctx, req)
		if err != nil {
			w.t.Fatal(err)
		}
		got, ok := resp.(*kmsg.OffsetFetchResponse)
		if !ok || len(got.Groups) == 0 || got.Groups[0].ErrorCode != 0 || got.Groups[0].Topics[0].Partitions[0].ErrorCode != 0 {
			continue // it loads, or the marker is on its way
		}
		if at := got.Groups[0].Topics[0].Partitions[0].Offset; at != want {
			w.t.Errorf("the group is told the offset %d, want %d", at, want)
		}
		return
	}
}

// TestZombieWritesNothing proves that a producer that was replaced, and comes back with what it had under way, neither
// writes into the transaction of its successor nor ends it.
func TestZombieWritesNothing(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
		zombie := newWireProducer(t, n, "a", newer)
		zombie.write(0, 0, "of the zombie")
		again, more, end := zombie.produceRequest(0, 0, "of the zombie"), zombie.produceRequest(0, 1, "more of the zombie"), zombie.endRequest(true)
		successor := newWireProducer(t, n, "a", newer)
		successor.write(0, 0, "of the successor")
		for _, req := range []*kmsg.ProduceRequest{again, more} {
			if _, err := zombie.produce(req); err == nil {
				t.Error("a record of the zombie was taken")
			}
		}
		if err := zombie.end(end); err == nil {
			t.Error("the zombie has ended a transaction")
		}
		successor.mustEnd(true)
		wantCommitted(t, n, "of the successor")
	})
}

// TestRetryAfterRestartIsNoDuplicate is Redpanda's #3039: a batch that is sent again, since its answer was lost with the node, is not
// there twice.
func TestRetryAfterRestartIsNoDuplicate(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "data")
		n := startWithTopic(t, dir)
		w := newWireProducer(t, n, "a", newer)
		w.write(0, 0, "first")
		second := w.produceRequest(0, 1, "second")
		at, err := w.produce(second)
		if err != nil {
			t.Fatal(err)
		}
		stop(t, n)
		n = start(t, Config{Data: dir})
		w.to = client(t, n, kgo.MaxVersions(versionsOf(newer))).SeedBrokers()[0]
		if again, err := w.produce(second); err != nil || again != at {
			t.Errorf("sent again it is at %d instead of %d: %v", again, at, err)
		}
		w.mustEnd(true)
		wantCommitted(t, n, "first", "second")
	})
}

// TestVanishedProducerHoldsNobodyBack is KAFKA-12671 from the readers' side: a producer that is gone for good holds readers of
// committed records back until its timeout, and no longer.
func TestVanishedProducerHoldsNobodyBack(t *testing.T) {
	bothFlows(t, func(t *testing.T, newer bool) {
		t.Helper()
		n := startWithTopic(t, filepath.Join(t.TempDir(), "data"))
		w := newWireProducer(t, n, "a", newer)
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &w.id, 300
		w.has = *ask(w, req, func(r *kmsg.InitProducerIDResponse) int16 { return r.ErrorCode })
		w.write(0, 0, "of the vanished")
		w.write(1, 0, "of the vanished")
		wantCommitted(t, n)
		if err := w.end(w.endRequest(true)); err == nil {
			t.Error("a transaction that has timed out was committed")
		}
	})
}
