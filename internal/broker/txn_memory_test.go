package broker

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/txn"
)

// allocatedBy is how many bytes are allocated while f runs, by everybody.
func allocatedBy(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// leastAllocated is the least that is allocated by some calls. What waits for room is encoded again, so that an answer
// costs more if its client is slow to read it.
func leastAllocated(f func()) int64 {
	least := int64(math.MaxInt64)
	for range 25 { // others of this process allocate, too
		least = min(least, allocatedBy(f))
	}
	return least
}

// TestMarkersOfStrangersAreBounded proves that a client which names one partition very often in one WriteTxnMarkers is
// refused before anything is written, since each is a batch that waits; and that as many as fit are written.
func TestMarkersOfStrangersAreBounded(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	req := at(1, marker(7, 3, 0, false, 0, TopicPartition{"events", 0}))
	topic := &req.Markers[0].Topics[0]
	topic.Partitions = make([]int32, 100_000)
	if got := dial(t, g.addr).outcome(req); got != closed {
		t.Fatalf("%.300s", got)
	}
	topic.Partitions = make([]int32, 1000)
	c := dial(t, g.addr)
	for _, p := range ask[*kmsg.WriteTxnMarkersResponse](c, req).Markers[0].Topics[0].Partitions {
		if p.ErrorCode != none {
			t.Fatalf("code %d", p.ErrorCode)
		}
	}
	if p := ask[*kmsg.FetchResponse](c, get("events", 0, 0)).Topics[0].Partitions[0]; p.HighWatermark != 1000 {
		t.Errorf("%d markers are in the log", p.HighWatermark)
	}
}

// TestManyDescribedProducersTakeLittle proves that a DescribeProducers of more partitions than fit into any answer is refused before it has
// taken memory for each of them.
func TestManyDescribedProducersTakeLittle(t *testing.T) {
	g := newRig(t)
	req := kmsg.NewPtrDescribeProducersRequest()
	req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "nowhere", Partitions: make([]int32, 900_000)}}
	for i := range req.Topics[0].Partitions {
		req.Topics[0].Partitions[i] = int32(i)
	}
	c := dial(t, g.addr)
	n := allocatedBy(func() {
		if got := c.outcome(req); got != closed {
			t.Fatalf("%.300s", got)
		}
	})
	if n > 64<<20 {
		t.Errorf("%d bytes were allocated for 3.6 MB", n)
	}
}

// longIDs makes n transactional ids of 30,000 bytes.
func longIDs(t *testing.T, g *rig, n int) *client {
	t.Helper()
	if err := g.broker.cfg.EnsureTopic(t.Context(), txn.Topic); err != nil {
		t.Fatal(err)
	}
	c := dial(t, g.addr)
	for i := range n {
		initTransactional(t, c, fmt.Sprintf("%06d", i)+strings.Repeat("a", 30_000))
	}
	return c
}

// TestListedTransactionsAreEncodedOneByOne proves that a list of transactions takes no memory for the whole answer, which may be
// as long as all that the coordinators keep, and that it has all of them.
func TestListedTransactionsAreEncodedOneByOne(t *testing.T) {
	const ids, length = 100, 30_006
	g := newTxnRig(t)
	c := longIDs(t, g, ids)
	for v := range int16(3) {
		req := at(v, kmsg.NewPtrListTransactionsRequest())
		req.StateFilters = []string{"Empty", "nonsense"}
		c.send(req)
		if resp, _ := c.receive(req).(*kmsg.ListTransactionsResponse); resp.ErrorCode != none || len(resp.TransactionStates) != ids || len(resp.UnknownStateFilters) != 1 ||
			len(resp.TransactionStates[ids-1].TransactionalID) != length {
			t.Fatalf("v%d: %d ids, code %d, %v", v, len(resp.TransactionStates), resp.ErrorCode, resp.UnknownStateFilters)
		}
		var frame []byte
		n := leastAllocated(func() {
			c.send(req)
			var err error
			if frame, err = c.frame(); err != nil {
				t.Fatal(err)
			}
		})
		if most := int64(len(frame)) * 2; n > most {
			t.Errorf("v%d: %d bytes were allocated, with those of the client, for an answer of %d", v, n, len(frame))
		}
	}
}

// TestDescribedTransactionsAreEncodedOneByOne proves that the description of many transactions takes no memory for the whole
// answer, and that it has all of them, in the order in which they were asked for.
func TestDescribedTransactionsAreEncodedOneByOne(t *testing.T) {
	const ids, partitions = 100, 9_000
	g := newTxnRig(t)
	g.topic("wide", partitions)
	if err := g.broker.cfg.EnsureTopic(t.Context(), txn.Topic); err != nil {
		t.Fatal(err)
	}
	c := dial(t, g.addr)
	all := make([]int32, partitions)
	for i := range all {
		all[i] = int32(i)
	}
	req := kmsg.NewPtrDescribeTransactionsRequest()
	for i := range ids {
		id := fmt.Sprintf("%06d", i)
		p := initTransactional(t, c, id)
		add := at(3, kmsg.NewPtrAddPartitionsToTxnRequest())
		add.TransactionalID, add.ProducerID, add.ProducerEpoch = id, p.ProducerID, p.ProducerEpoch
		add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "wide", Partitions: all}}
		if resp := ask[*kmsg.AddPartitionsToTxnResponse](c, add); resp.Topics[0].Partitions[0].ErrorCode != none {
			t.Fatal(resp.Topics[0].Partitions[0].ErrorCode)
		}
		req.TransactionalIDs = append(req.TransactionalIDs, id)
	}
	c.send(req)
	resp, _ := c.receive(req).(*kmsg.DescribeTransactionsResponse)
	for i, state := range resp.TransactionStates {
		if state.TransactionalID != req.TransactionalIDs[i] || state.ErrorCode != none || len(state.Topics) != 1 || len(state.Topics[0].Partitions) != partitions {
			t.Fatalf("%d: %s, code %d, %d topics", i, state.TransactionalID, state.ErrorCode, len(state.Topics))
		}
	}
	if len(resp.TransactionStates) != ids {
		t.Fatalf("%d ids", len(resp.TransactionStates))
	}
	var frame []byte
	n := leastAllocated(func() {
		c.send(req)
		var err error
		if frame, err = c.frame(); err != nil {
			t.Fatal(err)
		}
	})
	if most := int64(len(frame)) * 5 / 2; n > most {
		t.Errorf("%d bytes were allocated, with those of the client, for an answer of %d", n, len(frame))
	}
}

// TestSlowPatternsAreRefused proves that a pattern with which a long id would take seconds to match is refused, and that a plain one
// is not.
func TestSlowPatternsAreRefused(t *testing.T) {
	g := newTxnRig(t)
	c := longIDs(t, g, 20)
	for pattern, want := range map[string]int16{
		"(?:a*a*a*a*){300}b": kerr.InvalidRegularExpression.Code,
		"0000[01][0-9]a.*":   none,
	} {
		resp := ask[*kmsg.ListTransactionsResponse](c, at(2, &kmsg.ListTransactionsRequest{DurationFilterMillis: -1, TransactionalIDPattern: &pattern}))
		if resp.ErrorCode != want || want == none && len(resp.TransactionStates) != 20 {
			t.Errorf("%s: code %d, %d ids", pattern, resp.ErrorCode, len(resp.TransactionStates))
		}
	}
}
