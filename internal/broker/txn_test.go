package broker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn"
)

// emptyLog is a coordinator's log that has no records, and takes none.
type emptyLog struct{ coord.Log }

func (emptyLog) IsCommitted(record.Epoch, record.Offset) bool { return true }

func (emptyLog) Start() record.Offset { return 0 }

func (emptyLog) End() (record.Offset, error) { return 0, nil }

func (emptyLog) AppendBatch(record.Batch, record.Epoch) (record.Offset, error) {
	return 0, errors.New("a log that takes no records")
}

// ownLeaders has all partitions led by the broker itself, which the service needs only when a transaction has ended.
type ownLeaders struct{ cfg *Config }

func (l ownLeaders) FindLeader(topic string, partition int32) (node int32, exists bool) {
	t := l.cfg.Image().Topic(topic)
	return 1, t != nil && int(partition) < len(t.Partitions)
}

// Mirrors is so of no partition.
func (ownLeaders) Mirrors(string, int32) bool { return false }

func (ownLeaders) IsCurrent(time.Time) bool { return true }

func (l ownLeaders) WriteHere(req *kmsg.WriteTxnMarkersRequest, reply func(*kmsg.WriteTxnMarkersResponse)) {
	(&Broker{cfg: *l.cfg}).WriteMarkers(req, reply)
}

func (ownLeaders) WriteThere(context.Context, int32, *kmsg.WriteTxnMarkersRequest) (*kmsg.WriteTxnMarkersResponse, error) {
	return nil, errors.New("there is no other node")
}

// newTxns makes the coordinators of a rig's transactions.
func newTxns(tb testing.TB, c *Config, partitionOf func(id string) int32) *txn.Service {
	tb.Helper()
	sv := txn.NewService(tb.Context(), &txn.ServiceConfig{
		Logger: c.Logger, NodeID: 1, PartitionOf: partitionOf, Leaders: ownLeaders{c}, IDs: new(testIDs),
		Exists: func(topic string, partition int32) bool {
			t := c.Image().Topic(topic)
			return t != nil && partition >= 0 && int(partition) < len(t.Partitions)
		},
	})
	tb.Cleanup(sv.Close)
	return sv
}

// testIDs are producer ids.
type testIDs struct {
	mu   sync.Mutex
	next int64 // guarded by mu
}

func (i *testIDs) Take() (int64, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.next++
	return 100 + i.next, true
}

// ownChecks ask the coordinators of the rig itself.
type ownChecks struct{ *txn.Checker }

func (c ownChecks) Verify(q VerifyRequest, done func(codes []int16)) {
	asked := &txn.Check{TransactionalID: q.TransactionalID, ProducerID: q.ProducerID, ProducerEpoch: q.ProducerEpoch, Add: q.Add, Limit: q.Limit}
	for _, p := range q.Partitions {
		asked.Partitions = append(asked.Partitions, txn.TopicPartitions{Topic: p.Topic, Partitions: []int32{p.Partition}})
	}
	c.CheckPartitions(asked, done)
}

// newTxnRig starts a broker that coordinates groups and transactions; topics for them are made when they are asked for.
func newTxnRig(t *testing.T) *rig {
	t.Helper()
	var g *rig
	partitions := func(topic string) int32 {
		if t := g.image.Load().Topic(topic); t != nil {
			return int32(len(t.Partitions))
		}
		return 0
	}
	groups := group.New(group.Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return partitions(group.Topic) }})
	t.Cleanup(groups.Close)
	g = newRig(t, func(c *Config) {
		c.Groups = groups
		c.Txns = newTxns(t, c, func(id string) int32 {
			if n := partitions(txn.Topic); n > 0 {
				return coord.PartitionOf(id, n)
			}
			return -1
		})
		checker := txn.NewChecker(t.Context(), txn.CheckerConfig{NodeID: 1, Service: c.Txns, FindCoordinator: func(string) int32 { return 1 }})
		t.Cleanup(checker.Close)
		c.Transactions = ownChecks{checker}
		c.EnsureTopic = func(_ context.Context, name string) error {
			g.topic(name, 5)
			for i := range int32(5) {
				if p := g.set.Partition(name, i); name == txn.Topic {
					c.Txns.StartLeading(i, 0, p)
				} else {
					groups.StartLeading(i, 0, p)
				}
			}
			return nil
		}
	})
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{
		ID: 1, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "127.0.0.1", Port: 9092}}, Epoch: 1, Features: SupportedFeatures(),
	}})
	return g
}

// initTransactional asks for the producer id of a transactional id until there is one.
func initTransactional(t *testing.T, c *client, id string) *kmsg.InitProducerIDResponse {
	t.Helper()
	req := initProducer(5, &id, -1, -1)
	req.TransactionTimeoutMillis = 60_000
	for limit := time.Now().Add(20 * time.Second); ; {
		resp := ask[*kmsg.InitProducerIDResponse](c, req)
		switch code := resp.ErrorCode; {
		case code == none:
			return resp
		case code != kerr.CoordinatorLoadInProgress.Code && code != kerr.ConcurrentTransactions.Code || time.Now().After(limit):
			t.Fatalf("InitProducerId: code %d", code)
		}
	}
}

// TestTransactionOverTheWire proves that a transaction runs through all of its APIs, of the oldest and the newest version,
// and that tools see it.
func TestTransactionOverTheWire(t *testing.T) {
	g := newTxnRig(t)
	g.topic("events", 2)
	c := dial(t, g.addr)
	find := at(6, kmsg.NewPtrFindCoordinatorRequest())
	find.CoordinatorType, find.CoordinatorKeys = 1, []string{"mover"}
	if f := ask[*kmsg.FindCoordinatorResponse](c, find).Coordinators[0]; f.ErrorCode != none || f.NodeID != 1 {
		t.Fatalf("%+v", f)
	}
	for _, version := range []int16{0, 3} {
		p := initTransactional(t, c, "mover")
		add := at(version, kmsg.NewPtrAddPartitionsToTxnRequest())
		add.TransactionalID, add.ProducerID, add.ProducerEpoch = "mover", p.ProducerID, p.ProducerEpoch
		add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "events", Partitions: []int32{0, 1}}}
		for _, rp := range ask[*kmsg.AddPartitionsToTxnResponse](c, add).Topics[0].Partitions {
			if rp.ErrorCode != none {
				t.Fatalf("v%d: %+v", version, rp)
			}
		}
		offsets := at(min(version, 4), &kmsg.AddOffsetsToTxnRequest{TransactionalID: "mover", ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch, Group: "movers"})
		if code := ask[*kmsg.AddOffsetsToTxnResponse](c, offsets).ErrorCode; code != none {
			t.Fatalf("offsets v%d: code %d", version, code)
		}
		described := ask[*kmsg.DescribeTransactionsResponse](c, &kmsg.DescribeTransactionsRequest{TransactionalIDs: []string{"mover", "nobody", "mover"}}).TransactionStates
		if len(described) != 2 || described[0].State != "Ongoing" || len(described[0].Topics) != 2 || described[1].ErrorCode != kerr.TransactionalIDNotFound.Code {
			t.Errorf("%+v", described)
		}
		list := at(2, &kmsg.ListTransactionsRequest{StateFilters: []string{"Ongoing", "nonsense"}, DurationFilterMillis: -1, TransactionalIDPattern: new("m.*r")})
		listed := ask[*kmsg.ListTransactionsResponse](c, list)
		if len(listed.TransactionStates) != 1 || len(listed.UnknownStateFilters) != 1 || listed.TransactionStates[0].TransactionalID != "mover" {
			t.Errorf("%+v", listed)
		}
		list.TransactionalIDPattern = new("m.*e")
		if listed := ask[*kmsg.ListTransactionsResponse](c, list); len(listed.TransactionStates) != 0 {
			t.Errorf("a pattern that matches a part: %+v", listed)
		}
		end := at(version, &kmsg.EndTxnRequest{TransactionalID: "mover", ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch, Commit: true})
		if code := ask[*kmsg.EndTxnResponse](c, end).ErrorCode; code != none {
			t.Fatalf("end v%d: code %d", version, code)
		}
		if resp := ask[*kmsg.EndTxnResponse](c, end); resp.ErrorCode != none && resp.ErrorCode != kerr.ConcurrentTransactions.Code { // it asks again
			t.Errorf("end again v%d: code %d", version, resp.ErrorCode)
		}
	}
	// A check of a leader: many transactions, of which one does not exist.
	p := initTransactional(t, c, "mover")
	check := at(5, kmsg.NewPtrAddPartitionsToTxnRequest())
	for _, id := range []string{"mover", "nobody"} {
		check.Transactions = append(check.Transactions, kmsg.AddPartitionsToTxnRequestTransaction{
			TransactionalID: id, ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch, VerifyOnly: true,
			Topics: []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "events", Partitions: []int32{1}}},
		})
	}
	checked := ask[*kmsg.AddPartitionsToTxnResponse](c, check).Transactions
	if a, b := checked[0].Topics[0].Partitions[0].ErrorCode, checked[1].Topics[0].Partitions[0].ErrorCode; a != kerr.TransactionAbortable.Code || b != kerr.InvalidProducerIDMapping.Code {
		t.Errorf("codes %d and %d", a, b)
	}
}

// TestNoTransactionsWithAnOlderNode proves that nobody begins a transaction while a node of the cluster does not know them.
func TestNoTransactionsWithAnOlderNode(t *testing.T) {
	g := newTxnRig(t)
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 2, State: meta.BrokerFenced, Listeners: []meta.Listener{{Host: "127.0.0.1", Port: 9093}}, Epoch: 2}})
	c := dial(t, g.addr)
	find := at(6, kmsg.NewPtrFindCoordinatorRequest())
	find.CoordinatorType, find.CoordinatorKeys = 1, []string{"mover"}
	if f := ask[*kmsg.FindCoordinatorResponse](c, find).Coordinators[0]; f.ErrorCode != kerr.CoordinatorNotAvailable.Code || !strings.Contains(*f.ErrorMessage, "upgrade it") {
		t.Errorf("%+v", f)
	}
	id := "mover"
	if code := ask[*kmsg.InitProducerIDResponse](c, initProducer(4, &id, -1, -1)).ErrorCode; code != kerr.CoordinatorNotAvailable.Code {
		t.Errorf("code %d", code)
	}
}
