package broker

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// txnCoordinator is a coordinator of transactions in memory, with one transaction for each transactional id.
type txnCoordinator struct {
	mu     sync.Mutex
	asked  []VerifyRequest
	parts  map[string]map[TopicPartition]bool // of the open transactions, by transactional id
	answer func(q *VerifyRequest) int16       // its code, if it is not 0, is that of all partitions; nil: it is 0
	held   []func()                           // answers that are held back
	holds  bool
}

func newTxnCoordinator() *txnCoordinator {
	return &txnCoordinator{parts: map[string]map[TopicPartition]bool{}}
}

// Verify answers at once, or when release is called.
func (c *txnCoordinator) Verify(q VerifyRequest, done func([]int16)) {
	c.mu.Lock()
	c.asked = append(c.asked, q)
	codes := make([]int16, len(q.Partitions))
	code := int16(0)
	if c.answer != nil {
		code = c.answer(&q)
	}
	for i, p := range q.Partitions {
		switch {
		case code != 0:
			codes[i] = code
		case q.Add:
			c.addLocked(q.TransactionalID, p)
		case !c.parts[q.TransactionalID][p]:
			codes[i] = kerr.TransactionAbortable.Code
		}
	}
	if c.holds {
		c.held = append(c.held, func() { done(codes) })
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	done(codes)
}

func (c *txnCoordinator) addLocked(id string, p TopicPartition) {
	if c.parts[id] == nil {
		c.parts[id] = map[TopicPartition]bool{}
	}
	c.parts[id][p] = true
}

func (c *txnCoordinator) add(id, topic string, partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(id, TopicPartition{topic, partition})
}

// takeEnd forgets a transaction, and returns its partitions.
func (c *txnCoordinator) takeEnd(id string) (list []TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.parts[id] {
		list = append(list, p)
	}
	delete(c.parts, id)
	return list
}

func (c *txnCoordinator) setHolds(holds bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds = holds
}

// setAnswer sets the code of all answers.
func (c *txnCoordinator) setAnswer(code int16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = func(*VerifyRequest) int16 { return code }
}

// release gives the answers that are held back, when there are so many.
func (c *txnCoordinator) release(t *testing.T, n int) {
	t.Helper()
	c.awaitHeld(t, n)
	c.mu.Lock()
	held := c.held
	c.held = nil
	c.mu.Unlock()
	for _, f := range held {
		f()
	}
}

func (c *txnCoordinator) awaitHeld(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the coordinator is asked %d times", n), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.held) == n
	})
}

func (c *txnCoordinator) numAsked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// txnRig is a rig with a coordinator of transactions.
func txnRig(t *testing.T, c *txnCoordinator, change ...func(*Config)) *rig {
	t.Helper()
	return newRig(t, append(change, func(cfg *Config) { cfg.Transactions = c })...)
}

// txnBatch makes a transactional batch.
func txnBatch(tb testing.TB, producer int64, epoch int16, seq int32, values ...string) []byte {
	tb.Helper()
	return producerBatch(tb, true, producer, epoch, seq, values...)
}

func producerBatch(tb testing.TB, transactional bool, producer int64, epoch int16, seq int32, values ...string) []byte {
	tb.Helper()
	b := record.Builder{Transactional: transactional, LeaderEpoch: record.NoEpoch}
	b.SetProducer(producer, epoch, seq)
	for _, v := range values {
		b.Append(time.Now().UnixMilli(), []byte("key"), []byte(v))
	}
	out, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Clone(out)
}

// putTxn is a produce request of a transaction for one partition.
func putTxn(version int16, id, topic string, partition int32, records []byte) *kmsg.ProduceRequest {
	req := put(topic, partition, -1, records)
	req.Version, req.TransactionID = version, &id
	return req
}

// produceOne is the answer to a produce request for one partition.
func produceOne(c *client, req *kmsg.ProduceRequest) kmsg.ProduceResponseTopicPartition {
	return ask[*kmsg.ProduceResponse](c, req).Topics[0].Partitions[0]
}

// marker is a WriteTxnMarkers request with one marker.
func marker(producer int64, epoch int16, coordinator int32, commit bool, version int8, parts ...TopicPartition) *kmsg.WriteTxnMarkersRequest {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch, m.Committed, m.TransactionVersion = producer, epoch, coordinator, commit, version
	for _, p := range parts {
		m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: p.Topic, Partitions: []int32{p.Partition}})
	}
	req.Markers = append(req.Markers, m)
	return req
}

// writeMarkers writes markers and returns the codes of all partitions.
func (g *rig) writeMarkers(req *kmsg.WriteTxnMarkersRequest) (codes []int16) {
	g.t.Helper()
	answer := make(chan *kmsg.WriteTxnMarkersResponse, 1)
	g.broker.WriteMarkers(req, func(resp *kmsg.WriteTxnMarkersResponse) { answer <- resp })
	select {
	case resp := <-answer:
		for _, m := range resp.Markers {
			for _, t := range m.Topics {
				for _, p := range t.Partitions {
					codes = append(codes, p.ErrorCode)
				}
			}
		}
	case <-time.After(20 * time.Second):
		g.t.Fatal("the markers are never written")
	}
	return codes
}

// committed is a fetch of committed records.
func committed(topic string, partition int32, offset int64) *kmsg.FetchRequest {
	req := get(topic, partition, offset)
	req.IsolationLevel = readCommitted
	return req
}

// readCommittedOf reads the values that a client shows which reads committed records: it leaves out those of
// aborted transactions, by the rules of Kafka's clients.
func readCommittedOf(tb testing.TB, p *kmsg.FetchResponseTopicPartition) (out []string) {
	tb.Helper()
	aborted := map[int64]bool{}
	list := p.AbortedTransactions
	for b := p.RecordBatches; len(b) > 0; {
		one, rest, err := record.Next(b)
		if err != nil {
			break
		}
		b = rest
		for len(list) > 0 && list[0].FirstOffset <= int64(one.LastOffset()) {
			aborted[list[0].ProducerID] = true
			list = list[1:]
		}
		switch {
		case one.Control():
			if m, err := record.ReadMarker(one); err != nil {
				tb.Error(err)
			} else if !m.Commit {
				delete(aborted, one.ProducerID())
			}
		case one.Transactional() && aborted[one.ProducerID()]:
		default:
			out = append(out, values(tb, one)...)
		}
	}
	return out
}

// TestTransactionalProduce proves how batches of a transaction are taken: only in a partition that the coordinator has in the
// transaction, which is asked once for a partition and a transaction; version 12 adds the partition. What is open is not
// read by readers of committed records, and what was aborted is told.
func TestTransactionalProduce(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 2)
	c := dial(t, g.addr)
	id := "app"
	for _, tc := range []struct {
		version int16
		code    *kerr.Error
	}{{9, kerr.InvalidTxnState}, {10, kerr.InvalidTxnState}, {11, kerr.TransactionAbortable}} {
		p := ask[*kmsg.ProduceResponse](c, putTxn(tc.version, id, "events", 0, txnBatch(t, 7, 0, 0, "no"))).Topics[0].Partitions[0]
		if p.ErrorCode != tc.code.Code || p.BaseOffset != -1 || p.LogStartOffset != -1 {
			t.Errorf("version %d, not part of the transaction: %+v", tc.version, p)
		}
	}
	co.add(id, "events", 0)
	if p := produceOne(c, putTxn(9, id, "events", 0, txnBatch(t, 7, 0, 0, "a"))); p.ErrorCode != none || p.BaseOffset != 0 {
		t.Fatalf("the first batch: %+v", p)
	}
	asked := co.numAsked()
	for seq := int32(1); seq < 4; seq++ {
		if p := produced(t, ask[*kmsg.ProduceResponse](c, putTxn(9, id, "events", 0, txnBatch(t, 7, 0, seq, "a")))); p.ErrorCode != none || p.BaseOffset != int64(seq) {
			t.Errorf("batch %d: %+v", seq, p)
		}
	}
	if co.numAsked() != asked {
		t.Error("the coordinator was asked again about an open transaction")
	}
	fetch := func(what string, req *kmsg.FetchRequest, want ...string) *kmsg.FetchResponseTopicPartition {
		t.Helper()
		p := &ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0]
		if got := readCommittedOf(t, p); p.ErrorCode != none || !slices.Equal(got, want) {
			t.Errorf("%s: %v, code %d, want %v", what, got, p.ErrorCode, want)
		}
		return p
	}
	if p := fetch("open", committed("events", 0, 0)); p.LastStableOffset != 0 || p.HighWatermark != 4 || p.AbortedTransactions == nil {
		t.Errorf("an open transaction: %+v", p)
	}
	if p := fetch("open, uncommitted", get("events", 0, 0), "a", "a", "a", "a"); p.LastStableOffset != 0 || p.AbortedTransactions != nil {
		t.Errorf("an open transaction, uncommitted: %+v", p)
	}
	list := at(4, kmsg.NewPtrListOffsetsRequest())
	list.IsolationLevel = readCommitted
	list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "events", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -1, CurrentLeaderEpoch: -1}}}}
	latest := func() int64 { return ask[*kmsg.ListOffsetsResponse](c, list).Topics[0].Partitions[0].Offset }
	if end := latest(); end != 0 {
		t.Errorf("the latest committed offset is %d", end)
	}
	list.Topics[0].Partitions[0].Timestamp = 0
	if first := latest(); first != -1 {
		t.Errorf("a look-up by time finds %d in an open transaction", first)
	}
	describe := kmsg.NewPtrDescribeProducersRequest()
	describe.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "events", Partitions: []int32{0}}}
	if a := ask[*kmsg.DescribeProducersResponse](c, describe).Topics[0].Partitions[0].ActiveProducers; len(a) != 1 || a[0].CurrentTxnStartOffset != 0 || a[0].CoordinatorEpoch != -1 {
		t.Errorf("described as %+v", a)
	}
	if codes := g.writeMarkers(marker(7, 0, 3, false, 0, co.takeEnd(id)...)); !slices.Equal(codes, []int16{0}) {
		t.Fatalf("the marker: %v", codes)
	}
	if a := ask[*kmsg.DescribeProducersResponse](c, describe).Topics[0].Partitions[0].ActiveProducers; len(a) != 1 || a[0].CurrentTxnStartOffset != -1 || a[0].CoordinatorEpoch != 3 {
		t.Errorf("described after the end as %+v", a)
	}
	if p := fetch("aborted", committed("events", 0, 0)); p.LastStableOffset != 5 || len(p.AbortedTransactions) != 1 || p.AbortedTransactions[0].FirstOffset != 0 {
		t.Errorf("an aborted transaction: %+v", p)
	}
	// The next transaction, of the newer flow: the request adds both partitions.
	req := putTxn(12, id, "events", 0, txnBatch(t, 7, 1, 0, "b"))
	addPart(req, "events", 1, txnBatch(t, 7, 1, 0, "c"))
	for _, p := range ask[*kmsg.ProduceResponse](c, req).Topics[0].Partitions {
		if p.ErrorCode != none {
			t.Errorf("the newer flow: %+v", p)
		}
	}
	last := co.asked[len(co.asked)-1]
	if !last.Add || len(last.Partitions) != 2 || last.TransactionalID != id || last.ProducerID != 7 || last.ProducerEpoch != 1 || last.Limit <= 0 {
		t.Errorf("asked %+v", last)
	}
	if codes := g.writeMarkers(marker(7, 2, 3, true, 2, co.takeEnd(id)...)); !slices.Equal(codes, []int16{0, 0}) {
		t.Fatalf("the markers: %v", codes)
	}
	fetch("committed", committed("events", 0, 0), "b")
	fetch("committed", committed("events", 1, 0), "c")
	list.Topics[0].Partitions[0].Timestamp = -1
	if end := latest(); end != 7 {
		t.Errorf("the latest committed offset is %d", end)
	}
	// A late batch of the transaction that has ended.
	if p := produced(t, ask[*kmsg.ProduceResponse](c, putTxn(12, id, "events", 0, txnBatch(t, 7, 1, 1, "late")))); p.ErrorCode != kerr.InvalidProducerEpoch.Code {
		t.Errorf("a late batch: %+v", p)
	}
	// Markers of an older coordinator, of an older epoch, and for what is not here.
	for what, tc := range map[string]struct {
		req  *kmsg.WriteTxnMarkersRequest
		code *kerr.Error
	}{
		"an older coordinator": {marker(7, 3, 2, true, 2, TopicPartition{"events", 0}), kerr.TransactionCoordinatorFenced},
		"an older epoch":       {marker(7, 1, 3, true, 2, TopicPartition{"events", 0}), kerr.InvalidProducerEpoch},
		"no such topic":        {marker(7, 3, 3, true, 2, TopicPartition{"nowhere", 0}), kerr.UnknownTopicOrPartition},
		"no such partition":    {marker(7, 3, 3, true, 2, TopicPartition{"events", 9}), kerr.UnknownTopicOrPartition},
	} {
		if codes := g.writeMarkers(tc.req); !slices.Equal(codes, []int16{tc.code.Code}) {
			t.Errorf("%s: %v", what, codes)
		}
	}
}

// TestUnverifiedCodes proves the codes of batches that the coordinator does not verify, as
// AddPartitionsToTxnManager and ReplicaManager of Kafka 4.3.1 have them, by the version of the request.
func TestUnverifiedCodes(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 1)
	c := dial(t, g.addr)
	older, abortable, newer := int16(9), int16(11), int16(12)
	for _, tc := range []struct {
		answer   *kerr.Error
		versions []int16
		want     *kerr.Error
	}{
		{kerr.ProducerFenced, []int16{older, abortable, newer}, kerr.InvalidProducerEpoch},
		{kerr.InvalidProducerEpoch, []int16{older, abortable, newer}, kerr.InvalidProducerEpoch},
		{kerr.InvalidTxnState, []int16{older, abortable, newer}, kerr.InvalidTxnState},
		{kerr.InvalidProducerIDMapping, []int16{older, abortable, newer}, kerr.InvalidProducerIDMapping},
		{kerr.TransactionAbortable, []int16{older}, kerr.InvalidTxnState},
		{kerr.TransactionAbortable, []int16{abortable, newer}, kerr.TransactionAbortable},
		{kerr.NetworkException, []int16{older, abortable, newer}, kerr.NotEnoughReplicas},
		{kerr.CoordinatorLoadInProgress, []int16{older, abortable, newer}, kerr.NotEnoughReplicas},
		{kerr.CoordinatorNotAvailable, []int16{older, abortable, newer}, kerr.NotEnoughReplicas},
		{kerr.NotCoordinator, []int16{older, abortable, newer}, kerr.NotEnoughReplicas},
		{kerr.ConcurrentTransactions, []int16{older, abortable}, kerr.NotEnoughReplicas},
		{kerr.ConcurrentTransactions, []int16{newer}, kerr.ConcurrentTransactions},
	} {
		co.setAnswer(tc.answer.Code)
		for _, v := range tc.versions {
			p := produced(t, ask[*kmsg.ProduceResponse](c, putTxn(v, "app", "events", 0, txnBatch(t, 7, 0, 0, "x"))))
			if p.ErrorCode != tc.want.Code || p.BaseOffset != -1 {
				t.Errorf("%s, version %d: %+v", tc.answer.Message, v, p)
			}
		}
	}
	if hw := g.set.Partition("events", 0).HighWatermark(); hw != 0 {
		t.Errorf("%d records are stored", hw)
	}
	two := putTxn(9, "app", "events", 0, txnBatch(t, 7, 0, 0, "x"))
	g.topic("others", 1)
	addPart(two, "others", 0, txnBatch(t, 8, 0, 0, "x"))
	for _, topic := range ask[*kmsg.ProduceResponse](c, two).Topics {
		if p := topic.Partitions[0]; p.ErrorCode != kerr.InvalidProducerIDMapping.Code {
			t.Errorf("two producers in one request: %+v", p)
		}
	}
}

// TestHeldBatchesKeepTheirOrder proves that the batches of a producer which come while its first one is held are appended after
// it and in their order, also those outside of the transaction, and that other producers of the same read do not wait.
func TestHeldBatchesKeepTheirOrder(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 2)
	c := dial(t, g.addr)
	co.add("warm", "events", 1)
	if p := produceOne(c, putTxn(9, "warm", "events", 1, txnBatch(t, 1, 0, 0, "x"))); p.ErrorCode != none {
		t.Fatal(p)
	}
	co.add("app", "events", 0)
	co.add("other", "events", 0)
	co.setHolds(true)
	reqs := []kmsg.Request{
		put("events", 1, -1, producerBatch(t, false, 5, 0, 0, "before")),
		putTxn(9, "app", "events", 0, txnBatch(t, 7, 0, 0, "0")),
		putTxn(9, "app", "events", 0, txnBatch(t, 7, 0, 1, "1")),
		put("events", 1, -1, producerBatch(t, false, 5, 0, 1, "plain")),
		putTxn(9, "other", "events", 0, txnBatch(t, 8, 0, 0, "other")),
		putTxn(9, "app", "events", 0, txnBatch(t, 7, 0, 2, "2")),
		put("events", 1, -1, batch(t, "nobody")),
	}
	c.send(reqs...)
	co.awaitHeld(t, 2) // app and other
	eventually(t, "the others are appended", func() bool { return g.set.Partition("events", 1).HighWatermark() == 4 })
	if hw := g.set.Partition("events", 0).HighWatermark(); hw != 0 {
		t.Errorf("%d records are stored before the coordinator has answered", hw)
	}
	co.setHolds(false)
	co.release(t, 2)
	for i, req := range reqs {
		if p := produced(t, c.receive(req).(*kmsg.ProduceResponse)); p.ErrorCode != none {
			t.Errorf("request %d: %+v", i, p)
		}
	}
	got := values(t, ask[*kmsg.FetchResponse](c, get("events", 0, 0)).Topics[0].Partitions[0].RecordBatches)
	got = slices.DeleteFunc(got, func(v string) bool { return v == "other" })
	if !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("the log has %v", got)
	}
	// An idempotent batch outside of the transaction waits, too, and is refused in it.
	co.add("late", "events", 0)
	co.setHolds(true)
	reqs = []kmsg.Request{
		putTxn(9, "late", "events", 0, txnBatch(t, 9, 0, 0, "3")),
		put("events", 0, -1, producerBatch(t, false, 9, 0, 1, "outside")),
	}
	c.send(reqs...)
	co.release(t, 1)
	if p := produced(t, c.receive(reqs[0]).(*kmsg.ProduceResponse)); p.ErrorCode != none {
		t.Errorf("the first: %+v", p)
	}
	if p := produced(t, c.receive(reqs[1]).(*kmsg.ProduceResponse)); p.ErrorCode != kerr.InvalidTxnState.Code {
		t.Errorf("a batch outside of the open transaction: %+v", p)
	}
}

// TestEndOutdatesVerification proves that a batch whose partition was verified is refused if the transaction has ended before the
// batch was appended: it would begin a transaction that nobody ends. A leader epoch that has changed does the same.
func TestEndOutdatesVerification(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 1)
	c := dial(t, g.addr)
	co.add("app", "events", 0)
	if p := produceOne(c, putTxn(9, "app", "events", 0, txnBatch(t, 7, 0, 0, "x"))); p.ErrorCode != none {
		t.Fatal(p)
	}
	g.writeMarkers(marker(7, 0, 0, true, 0, TopicPartition{"events", 0}))
	co.setHolds(true)
	late := putTxn(9, "app", "events", 0, txnBatch(t, 7, 0, 1, "late"))
	c.send(late)
	co.awaitHeld(t, 1)
	g.writeMarkers(marker(7, 0, 0, false, 0, TopicPartition{"events", 0}))
	co.release(t, 1)
	if p := produced(t, c.receive(late).(*kmsg.ProduceResponse)); p.ErrorCode != kerr.InvalidTxnState.Code {
		t.Errorf("a late batch: %+v", p)
	}
	p := g.set.Partition("events", 0)
	var found replica.Found
	if err := p.Read(&replica.Query{Epoch: record.NoEpoch, LastEpoch: record.NoEpoch}, &found); err != nil || found.LastStable != found.HighWatermark {
		t.Errorf("a transaction hangs: %+v, %v", found, err)
	}
}

// TestSilentCoordinator proves that a held request is answered when its timeout is over, and that its producer can go on.
func TestSilentCoordinator(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 1)
	c := dial(t, g.addr)
	co.setHolds(true)
	req := putTxn(12, "app", "events", 0, txnBatch(t, 7, 0, 0, "x"))
	req.TimeoutMillis = 50
	if p := produced(t, ask[*kmsg.ProduceResponse](c, req)); p.ErrorCode != kerr.NotEnoughReplicas.Code || p.ErrorMessage == nil {
		t.Errorf("a silent coordinator: %+v", p)
	}
	co.setHolds(false)
	if p := produceOne(c, putTxn(12, "app", "events", 0, txnBatch(t, 7, 0, 0, "x"))); p.ErrorCode != none {
		t.Errorf("sent again: %+v", p)
	}
	co.release(t, 1) // an answer that comes too late
}

// TestHeldRequestOfClosedConnection proves that a connection whose client leaves while a request is held ends, and that all its
// memory is given back. The rig checks the latter.
func TestHeldRequestOfClosedConnection(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 1)
	co.setHolds(true)
	c := dial(t, g.addr)
	for i := range int32(3) {
		c.send(putTxn(12, "app", "events", 0, txnBatch(t, 7, 0, i, "x")))
	}
	co.awaitHeld(t, 1)
	_ = c.c.Close()
	eventually(t, "the connection ends", func() bool { return g.stats.Conns.Load() == 0 })
	co.setHolds(false)
	co.release(t, 1)
	eventually(t, "the memory of the requests is given back", func() bool { return g.stats.RequestMemory() == 0 })
}

// TestCommittedLongPoll proves that a long poll of a reader of committed records ends when a transaction does, and not
// when its records come, also if it wants many bytes.
func TestCommittedLongPoll(t *testing.T) {
	co := newTxnCoordinator()
	g := txnRig(t, co)
	g.topic("events", 1)
	c := dial(t, g.addr)
	if p := produceOne(c, putTxn(12, "app", "events", 0, txnBatch(t, 7, 0, 0, "x"))); p.ErrorCode != none {
		t.Fatal(p)
	}
	for i, bytes := range []int32{1, 50_000} {
		epoch := int16(i)
		wait := committed("events", 0, 0)
		wait.MaxWaitMillis, wait.MinBytes = 60_000, bytes
		reader := dial(t, g.addr)
		from := ask[*kmsg.FetchResponse](reader, committed("events", 0, 0)).Topics[0].Partitions[0].LastStableOffset
		wait.Topics[0].Partitions[0].FetchOffset = from
		reader.send(wait)
		eventually(t, "the poll is parked", func() bool { return g.broker.watched.Load() == 1 })
		big := string(make([]byte, 60_000))
		if p := produced(t, ask[*kmsg.ProduceResponse](c, putTxn(12, "app", "events", 0, txnBatch(t, 7, epoch, 1-int32(i), big)))); p.ErrorCode != none {
			t.Fatal(p)
		}
		if g.broker.watched.Load() != 1 {
			t.Error("the poll has ended by records of an open transaction")
		}
		g.writeMarkers(marker(7, epoch+1, 0, true, 2, TopicPartition{"events", 0}))
		p := &reader.receive(wait).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if got := readCommittedOf(t, p); len(got) == 0 || got[len(got)-1] != big {
			t.Errorf("read %d values", len(got))
		}
	}
}

// TestHeldBodyMoves proves that a small request which is held while later ones come over the connection is appended as
// it was sent: its body is moved out of the receive buffer, where the later ones lie.
func TestHeldBodyMoves(t *testing.T) {
	c := newTxnCoordinator()
	g := txnRig(t, c)
	g.topic("events", 1)
	g.topic("plain", 1)
	conn := dial(t, g.addr)
	c.add("x", "events", 0)
	if p := produceOne(conn, putTxn(11, "x", "events", 0, txnBatch(t, 9, 0, 0, "first"))); p.ErrorCode != none {
		t.Fatalf("code %d", p.ErrorCode)
	}
	if codes := g.writeMarkers(marker(9, 0, 1, true, 0, TopicPartition{"events", 0})); codes[0] != none {
		t.Fatalf("codes %v", codes)
	}
	c.setHolds(true)
	held := putTxn(11, "x", "events", 0, txnBatch(t, 9, 0, 1, "held"))
	late := put("plain", 0, -1, batch(t, strings.Repeat("late", 2_000)))
	conn.send(held)
	c.awaitHeld(t, 1)
	other := dial(t, g.addr)
	for range 20 { // they use the receive buffer again
		conn.send(late)
		other.send(late)
		other.receive(late)
	}
	c.release(t, 1)
	if p := produced(t, conn.receive(held).(*kmsg.ProduceResponse)); p.ErrorCode != none {
		t.Errorf("code %d", p.ErrorCode)
	}
	for range 20 {
		if p := produced(t, conn.receive(late).(*kmsg.ProduceResponse)); p.ErrorCode != none {
			t.Errorf("later: code %d", p.ErrorCode)
		}
	}
}

// TestFirstTransactionWaitsForTheDirectory proves that markers, and offsets of a transaction, are taken as the first ones of a
// data directory: they wait for the checkpoint that must say before that there are transactions, and so do batches.
func TestFirstTransactionWaitsForTheDirectory(t *testing.T) {
	first := map[string]func(g *rig, c *client) int16{
		"batch": func(_ *rig, c *client) int16 {
			return produceOne(c, putTxn(12, "x", "events", 0, txnBatch(c.t, 9, 0, 0, "first"))).ErrorCode
		},
		"marker": func(g *rig, _ *client) int16 {
			return g.writeMarkers(marker(9, 0, 1, true, 0, TopicPartition{"events", 0}))[0]
		},
	}
	for name, send := range first {
		t.Run(name, func(t *testing.T) {
			g := txnRig(t, newTxnCoordinator())
			g.topic("events", 1)
			if code := send(g, dial(t, g.addr)); code != none {
				t.Errorf("code %d", code)
			}
		})
	}
	t.Run("offsets", func(t *testing.T) {
		g := newGroupRig(t)
		g.broker.cfg.Transactions = newTxnCoordinator()
		g.topic("events", 1)
		c := dial(t, g.addr)
		find := at(4, kmsg.NewPtrFindCoordinatorRequest())
		find.CoordinatorKeys = []string{"g"}
		ask[*kmsg.FindCoordinatorResponse](c, find)
		eventually(t, "the coordinator has loaded", func() bool {
			code := ask[*kmsg.OffsetCommitResponse](c, plainOffsets()).Topics[0].Partitions[0].ErrorCode
			return code == none
		})
		if code := ask[*kmsg.TxnOffsetCommitResponse](c, sendOffsets(5, "x", 9, 0, 1)).Topics[0].Partitions[0].ErrorCode; code != none {
			t.Errorf("code %d", code)
		}
	})
}

// plainOffsets is an OffsetCommit of one offset for the group g.
func plainOffsets() *kmsg.OffsetCommitRequest {
	req := at(8, kmsg.NewPtrOffsetCommitRequest())
	req.Group, req.Generation = "g", -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = 1
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	return req
}
