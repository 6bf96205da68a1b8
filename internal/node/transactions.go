package node

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn"
)

// coordinators are the services that coordinate for the partitions of their topics which this node leads, and linking, which mirrors those that mirror.
type coordinators struct {
	linking linking
	groups  *group.Service
	txns    *txn.Service
	checker *txn.Checker
}

// coordinator is one of those services.
type coordinator interface {
	StartLeading(partition int32, e record.Epoch, log coord.Log)
	StopLeading(partition int32)
}

// coordinatorOf is the service whose records are in a topic; nil: there is none.
func (c *coordinators) coordinatorOf(topic string) coordinator { //nolint:ireturn // it is one of several
	switch topic {
	case group.Topic:
		return c.groups
	case txn.Topic:
		return c.txns
	}
	return nil
}

// openTransactions builds what coordinates transactions. Other nodes can be reached by then.
func openTransactions(n *Node) {
	s := &n.serverSettings().Txns
	others, places := cluster.NewTransactions(n.peers.links), txnPlaces{n.image.Load}
	n.txns = txn.NewService(n.ctx, &txn.ServiceConfig{
		Logger: n.loggers.loggerOf("txn"), NodeID: n.id.nodeID,
		Settings:    txn.Settings{MaxTimeout: s.MaxTimeout, Expiration: s.Expiration, ExpirationScan: s.ExpirationScan, AddWait: s.AddWait},
		PartitionOf: places.partitionOf, Exists: places.hasPartition,
		IDs:        lateIDs{n},
		Memory:     n.sizes.transactions,
		HasSession: func() bool { return hasSession(n) },
		Leaders:    &leaders{n, others},
	})
	n.checker = txn.NewChecker(n.ctx, txn.CheckerConfig{
		NodeID: n.id.nodeID, Service: n.txns, FindCoordinator: places.findCoordinator, Ask: others.AddPartitions,
	})
}

// closeTransactions ends what coordinates transactions, if it was built.
func (c *coordinators) closeTransactions() {
	if c.txns != nil {
		c.checker.Close()
		c.txns.Close()
	}
}

// txnPlaces are where transactions are coordinated, and their partitions.
type txnPlaces struct{ image func() *meta.Image }

// partitionOf is the partition of txn.Topic that a transactional id belongs to; -1: there is no such topic.
func (p txnPlaces) partitionOf(id string) int32 {
	t := p.image().Topic(txn.Topic)
	if t == nil || len(t.Partitions) == 0 {
		return -1
	}
	return coord.PartitionOf(id, int32(len(t.Partitions)))
}

// findCoordinator is the node that coordinates a transactional id; -1: none does now.
func (p txnPlaces) findCoordinator(id string) int32 {
	t := p.image().Topic(txn.Topic)
	if t == nil || len(t.Partitions) == 0 {
		return -1
	}
	return t.Partitions[coord.PartitionOf(id, int32(len(t.Partitions)))].Leader
}

// hasPartition tells whether a partition exists.
func (p txnPlaces) hasPartition(topic string, partition int32) bool {
	t := p.image().Topic(topic)
	return t != nil && partition >= 0 && int(partition) < len(t.Partitions)
}

// lateIDs are the producer ids of the broker, which is built later. Coordinators take some only while the node follows
// the metadata, when it is there.
type lateIDs struct{ n *Node }

// Take takes a producer id.
func (l lateIDs) Take() (int64, bool) { return l.n.broker.Take() }

// leaders are how markers reach the leaders of partitions: a txn.Leaders.
type leaders struct {
	n      *Node
	others *cluster.Transactions
}

// FindLeader finds the node that leads a partition. One that mirrors does not exist for transactions of this cluster: its source ends those that it has open, since it took over from here.
func (l *leaders) FindLeader(topic string, partition int32) (node int32, exists bool) {
	t := l.n.image.Load().Topic(topic)
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) || t.Partitions[partition].IsMirror() {
		return -1, false
	}
	return t.Partitions[partition].Leader, true
}

// Mirrors tells whether a partition mirrors another cluster's.
func (l *leaders) Mirrors(topic string, partition int32) bool {
	t := l.n.image.Load().Topic(topic)
	return t != nil && partition >= 0 && int(partition) < len(t.Partitions) && t.Partitions[partition].IsMirror()
}

// IsCurrent tells whether this node has the metadata that were decided before a time: a heartbeat was sent since whose answer
// has begun its session anew, or there is no other node.
func (l *leaders) IsCurrent(since time.Time) bool {
	if len(l.n.image.Load().Brokers) <= 1 {
		return true
	}
	heard := time.Duration(l.n.sessionEnds.Load()) - l.n.serverSettings().SessionTimeout*3/4
	return heard > since.Sub(l.n.began)
}

// WriteHere writes markers into partitions of this node.
func (l *leaders) WriteHere(req *kmsg.WriteTxnMarkersRequest, reply func(*kmsg.WriteTxnMarkersResponse)) {
	l.n.broker.WriteMarkers(req, reply)
}

// WriteThere has another node write markers.
func (l *leaders) WriteThere(ctx context.Context, node int32, req *kmsg.WriteTxnMarkersRequest) (*kmsg.WriteTxnMarkersResponse, error) {
	return l.others.WriteMarkers(ctx, node, req)
}

// checks are how the broker asks the coordinators of transactions: a broker.Transactions.
type checks struct{ *txn.Checker }

// Verify asks whether partitions are part of a transaction, or makes them part of it.
func (c checks) Verify(q broker.VerifyRequest, done func(codes []int16)) {
	asked := &txn.Check{TransactionalID: q.TransactionalID, ProducerID: q.ProducerID, ProducerEpoch: q.ProducerEpoch, Add: q.Add, Limit: q.Limit}
	for _, p := range q.Partitions { // in the same order: the codes are
		if n := len(asked.Partitions); n == 0 || asked.Partitions[n-1].Topic != p.Topic {
			asked.Partitions = append(asked.Partitions, txn.TopicPartitions{Topic: p.Topic})
		}
		last := &asked.Partitions[len(asked.Partitions)-1]
		last.Partitions = append(last.Partitions, p.Partition)
	}
	c.CheckPartitions(asked, done)
}
