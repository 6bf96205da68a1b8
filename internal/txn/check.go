package txn

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Check asks whether partitions are part of a producer's transaction.
type Check struct {
	TransactionalID string
	ProducerID      int64
	ProducerEpoch   int16
	Partitions      []TopicPartitions
	// Limit is how long the answer is of use; 0: for checkTime.
	Limit time.Duration
	// Add has the coordinator make them part of it, and begin the transaction if there is none (KIP-890, for
	// producers whose epoch rises with each transaction). Otherwise they are only looked for.
	Add bool
}

const (
	// checkVersion is the version in which coordinators on other nodes are asked.
	checkVersion = 5
	// checkTime bounds how long a coordinator on another node is waited for.
	checkTime = 5 * time.Second
	// ChecksUnderWay is how many requests with checks are under way to a node at a time, each for another partition of Topic and on
	// a connection of its own: answers come in the order of their requests, and one waits for the replicas of its partition.
	ChecksUnderWay = 4
	// maxChecksSent is how many checks one request to another node has.
	maxChecksSent = 500
	// maxChecks is how many checks wait for coordinators at a time.
	maxChecks = 10_000
)

// CheckerConfig says how a Checker reaches coordinators.
type CheckerConfig struct {
	NodeID  int32
	Service *Service // of this node
	// FindCoordinator returns the node that coordinates a transactional id, or -1 if none does now.
	FindCoordinator func(id string) int32
	// Ask sends a request to another node's Service, and returns the answer. No two requests to a node are under way with the same
	// connection, which is a number below ChecksUnderWay.
	Ask func(ctx context.Context, node int32, connection int, req *kmsg.AddPartitionsToTxnRequest) (*kmsg.AddPartitionsToTxnResponse, error)
}

// Checker asks the coordinators of transactions, on whatever node they are, for the leaders of partitions on this
// node. Checks for one partition of Topic share requests. Those for other partitions wait for none of these, unless
// ChecksUnderWay partitions of a node are slow at the same time. Safe for concurrent use.
type Checker struct {
	cfg     CheckerConfig
	lanes   *lanes[*check]
	waiting atomic.Int64 // checks that have no answer yet

	mu          sync.Mutex
	connections map[int32]chan int // by node: those that no request uses; guarded by mu
}

// check is a Check that waits for its answer.
type check struct {
	Check
	reply   func(codes []int16)
	overdue time.Time // when the answer is of no use any more
}

// NewChecker makes a Checker. What it asks of other nodes ends with the context, or with Close.
func NewChecker(ctx context.Context, cfg CheckerConfig) *Checker {
	k := &Checker{cfg: cfg, connections: map[int32]chan int{}}
	k.lanes = newLanes(ctx, maxChecksSent, k.askNode)
	return k
}

// CheckPartitions makes a check. reply is called exactly once, by the caller's goroutine or by another one, with no
// lock held, and must not block. It gets one code for each partition in the order of q.Partitions: 0 if the
// partition is part of the transaction, TRANSACTION_ABORTABLE if it is not, and for all partitions
// NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS or CONCURRENT_TRANSACTIONS if it is not known
// now, INVALID_PRODUCER_ID_MAPPING or PRODUCER_FENCED if the producer has no such transaction. The call does not wait.
func (k *Checker) CheckPartitions(q *Check, reply func(codes []int16)) {
	c := &check{Check: *q}
	if c.Limit <= 0 || c.Limit > checkTime {
		c.Limit = checkTime
	}
	c.overdue = time.Now().Add(c.Limit)
	if k.waiting.Add(1) > maxChecks {
		k.waiting.Add(-1)
		reply(c.unavailable())
		return
	}
	c.reply = func(codes []int16) {
		k.waiting.Add(-1)
		reply(codes)
	}
	k.ask(c)
}

// Close answers the checks that wait, with COORDINATOR_NOT_AVAILABLE.
func (k *Checker) Close() { k.lanes.close() }

// ask has the coordinator of a check asked. Only what this node's coordinator need not write is asked here.
func (k *Checker) ask(c *check) {
	switch node := k.cfg.FindCoordinator(c.TransactionalID); {
	case node == k.cfg.NodeID && !c.Add:
		k.askHere([]*check{c})
	case node < 0 || !k.lanes.put(lane{node, k.cfg.Service.cfg.PartitionOf(c.TransactionalID)}, c):
		c.reply(c.unavailable())
	}
}

// askHere asks the coordinators of this node. What they write has one commit.
func (k *Checker) askHere(batch []*check) {
	transactions := make([]kmsg.AddPartitionsToTxnRequestTransaction, len(batch))
	for i, c := range batch {
		transactions[i] = c.transaction()
	}
	k.cfg.Service.addEach(checkVersion, transactions, func(i int, x *kmsg.AddPartitionsToTxnResponseTransaction) {
		batch[i].reply(batch[i].codesOf(x))
	})
}

// askNode asks the coordinator of a partition on a node.
func (k *Checker) askNode(ctx context.Context, to lane, batch []*check) {
	if to.node == k.cfg.NodeID {
		k.askHere(batch)
		return
	}
	free := k.connectionsTo(to.node)
	var connection int
	select {
	case connection = <-free:
	case <-ctx.Done():
		for _, c := range batch {
			c.reply(c.unavailable())
		}
		return
	}
	defer func() { free <- connection }() // it has room: the number was taken from it
	k.askThere(ctx, to.node, connection, batch)
}

// connectionsTo has the connections to a node that no request uses.
func (k *Checker) connectionsTo(node int32) chan int {
	k.mu.Lock()
	defer k.mu.Unlock()
	free := k.connections[node]
	if free == nil {
		free = make(chan int, ChecksUnderWay)
		for i := range ChecksUnderWay {
			free <- i
		}
		k.connections[node] = free
	}
	return free
}

// askThere asks another node. It waits for the answer also when the checks are overdue: until that has come, the connection has
// no other answer.
func (k *Checker) askThere(ctx context.Context, node int32, connection int, batch []*check) {
	now := time.Now()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = checkVersion
	asked := batch[:0]
	for _, c := range batch {
		if now.After(c.overdue) {
			c.reply(c.unavailable())
			continue
		}
		asked = append(asked, c)
		req.Transactions = append(req.Transactions, c.transaction())
	}
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	resp, err := k.cfg.Ask(ctx, node, connection, req)
	if err == nil && len(resp.Transactions) != len(asked) {
		resp, err = nil, errAnswer
	}
	for i, c := range asked {
		if err != nil {
			c.reply(c.unavailable())
			continue
		}
		c.reply(c.codesOf(&resp.Transactions[i]))
	}
}

// transaction is the check as a request has it.
func (c *check) transaction() kmsg.AddPartitionsToTxnRequestTransaction {
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch, x.VerifyOnly = c.TransactionalID, c.ProducerID, c.ProducerEpoch, !c.Add
	for _, t := range c.Partitions {
		x.Topics = append(x.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	return x
}

// codesOf are the codes of an answer in the order of the check's partitions.
func (c *check) codesOf(x *kmsg.AddPartitionsToTxnResponseTransaction) []int16 {
	type place struct {
		topic     string
		partition int32
	}
	told := map[place]int16{}
	for i := range x.Topics {
		for _, p := range x.Topics[i].Partitions {
			told[place{x.Topics[i].Topic, p.Partition}] = p.ErrorCode
		}
	}
	codes := make([]int16, 0, len(told))
	for _, t := range c.Partitions {
		for _, p := range t.Partitions {
			code, ok := told[place{t.Topic, p}]
			if !ok {
				code = coordinatorNotAvailable
			}
			codes = append(codes, code)
		}
	}
	return codes
}

// unavailable is COORDINATOR_NOT_AVAILABLE for all partitions.
func (c *check) unavailable() []int16 {
	return slices.Repeat([]int16{coordinatorNotAvailable}, partitionSet(c.Partitions).countPartitions())
}
