package txn

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// ServiceConfig configures a Service.
type ServiceConfig struct {
	Logger   *slog.Logger
	NodeID   int32
	Settings Settings
	// PartitionOf returns the partition of Topic that a transactional id belongs to, or -1 if the topic does not exist.
	PartitionOf func(id string) int32
	// Exists tells whether a partition of any topic exists.
	Exists func(topic string, partition int32) bool
	IDs    ProducerIDs
	// Memory is how many bytes all transactional ids may keep; 0 means memory.Max.
	Memory int64
	// HasSession tells whether the active controller has heard from this node so lately that it
	// cannot have given the node's partitions to others for its silence; nil: that is always so. Without a session
	// nothing is answered, since another coordinator may have decided something else; see package coord.
	HasSession func() bool
	// Leaders reach the leaders of partitions, for the markers.
	Leaders Leaders
}

const (
	// replyTime is how long an answer waits until what it says is committed.
	replyTime = 5 * time.Second
	// maxLoggedID is how much of a transactional id a log line has, in bytes.
	maxLoggedID = 249
)

// Service coordinates the transactions whose partitions of Topic this node leads, and has the markers written that
// end them. Its methods run on the caller's goroutine and never wait. reply is called exactly once, by the caller's
// goroutine or later by another, with no lock held; it must not block.
type Service struct {
	cfg    ServiceConfig
	rt     *coord.Runtime[*Machine]
	memory *memory.Budget
	sender *sender
	counts Counts
}

// NewService makes a service that leads nothing yet. What it sends to other nodes ends with ctx, or with Close.
func NewService(ctx context.Context, cfg *ServiceConfig) *Service {
	sv := &Service{cfg: *cfg, memory: memory.NewTransactionBudget(cfg.Logger, cfg.Memory)}
	if sv.cfg.HasSession == nil {
		sv.cfg.HasSession = func() bool { return true }
	}
	settings := func() Settings { return cfg.Settings }
	abortions := NewAbortions(cfg.Logger)
	sv.rt = coord.New(coord.Config[*Machine]{
		Logger:       cfg.Logger,
		ReplyTimeout: func() time.Duration { return replyTime },
		New: func(partition int32, t *coord.Timers) *Machine {
			return New(Config{
				Settings: settings, IDs: cfg.IDs, Memory: sv.memory, Counts: &sv.counts, Abortions: abortions, Mirrors: cfg.Leaders.Mirrors,
				Send: func(d Decision) { sv.sender.send(partition, &d) },
			}, t)
		},
	})
	sv.sender = newSender(ctx, cfg, sv.rt.Stage)
	return sv
}

// StartLeading gives the service a partition of Topic that this node now leads.
func (sv *Service) StartLeading(partition int32, e record.Epoch, log coord.Log) {
	sv.sender.noteLeading(partition)
	sv.rt.StartLeading(partition, e, log)
}

// StopLeading takes a partition from the service. Markers that were sent may still be written.
func (sv *Service) StopLeading(partition int32) {
	sv.rt.StopLeading(partition)
	sv.sender.noteStopped(partition)
}

// MemoryUsed is about how many bytes all transactional ids that are coordinated here keep.
func (sv *Service) MemoryUsed() int64 { return sv.memory.Used() }

// Counts are the numbers of all transactions that are coordinated here.
func (sv *Service) Counts() *Counts { return &sv.counts }

// Close stops leading everything, and waits for what is under way.
func (sv *Service) Close() {
	sv.sender.close()
	sv.rt.Close()
}

// runOnID runs op on the machine of a transactional id. If the code is not 0, op did not run.
func (sv *Service) runOnID(id string, op func(m *Machine, s *coord.Step)) int16 {
	pending, code := sv.stageOnID(id, op)
	pending.Commit()
	return code
}

// stageOnID is runOnID without the commit.
func (sv *Service) stageOnID(id string, op func(m *Machine, s *coord.Step)) (coord.PendingCommit, int16) {
	if id == "" { // whatever node is asked
		return coord.PendingCommit{}, invalidRequest
	}
	p := sv.cfg.PartitionOf(id)
	if p < 0 { // as in Kafka, where each node knows how many partitions Topic is going to have
		return coord.PendingCommit{}, notCoordinator
	}
	if !sv.cfg.HasSession() { // before anything is read
		return coord.PendingCommit{}, notCoordinator
	}
	pending, err := sv.rt.Stage(p, op)
	return pending, codeOr(err, 0)
}

// InitProducerID handles InitProducerId of a transactional producer, versions 0 to 5: see Machine.InitProducerID.
func (sv *Service) InitProducerID(req *kmsg.InitProducerIDRequest, reply func(*kmsg.InitProducerIDResponse)) {
	code := sv.runOnID(*req.TransactionalID, func(m *Machine, s *coord.Step) { m.InitProducerID(s, req, reply) })
	if code != 0 {
		resp := kmsg.NewPtrInitProducerIDResponse()
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = code, noProducer, noEpoch
		reply(resp)
	}
}

// AddPartitions handles the transactions of an AddPartitionsToTxn, versions 0 to 5, of which each has its answer, in their
// order. If a partition does not exist, or there are too many, none of its transaction's is added. One commit is made for
// all of them.
func (sv *Service) AddPartitions(version int16, transactions []kmsg.AddPartitionsToTxnRequestTransaction, reply func([]kmsg.AddPartitionsToTxnResponseTransaction)) {
	out := newGather(len(transactions), reply)
	sv.addEach(version, transactions, func(i int, x *kmsg.AddPartitionsToTxnResponseTransaction) { out.setPart(i, *x) })
}

// addEach is AddPartitions with a reply for each transaction.
func (sv *Service) addEach(version int16, transactions []kmsg.AddPartitionsToTxnRequestTransaction, reply func(i int, x *kmsg.AddPartitionsToTxnResponseTransaction)) {
	var last coord.PendingCommit
	for i := range transactions {
		x := &transactions[i]
		if refused := sv.refusePartitions(x); refused != nil {
			reply(i, refused)
			continue
		}
		pending, code := sv.stageOnID(x.TransactionalID, func(m *Machine, s *coord.Step) {
			m.AddPartitions(s, version, x, func(answer *kmsg.AddPartitionsToTxnResponseTransaction) { reply(i, answer) })
		})
		if pending.Exists() {
			last = pending
		}
		if code != 0 {
			reply(i, answerAdd(x, nil, code))
		}
	}
	last.Commit()
}

// refusePartitions is the answer to a transaction whose partitions cannot be part of any; nil: they can be.
func (sv *Service) refusePartitions(x *kmsg.AddPartitionsToTxnRequestTransaction) *kmsg.AddPartitionsToTxnResponseTransaction {
	count, missing := 0, 0
	for i := range x.Topics {
		for _, p := range x.Topics[i].Partitions {
			if count++; count > maxPartitions {
				return answerAdd(x, nil, transactionAbortable)
			}
			if !sv.cfg.Exists(x.Topics[i].Topic, p) {
				missing++
			}
		}
	}
	if missing == 0 {
		return nil
	}
	resp := answerAdd(x, nil, operationNotAttempted)
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			if !sv.cfg.Exists(t.Topic, t.Partitions[j].Partition) {
				t.Partitions[j].ErrorCode = unknownTopicOrPartition
			}
		}
	}
	return resp
}

// AddOffsets handles AddOffsetsToTxn, versions 0 to 4: see Machine.AddOffsets. partition is that of the group's offsets.
func (sv *Service) AddOffsets(req *kmsg.AddOffsetsToTxnRequest, partition int32, reply func(*kmsg.AddOffsetsToTxnResponse)) {
	code := sv.runOnID(req.TransactionalID, func(m *Machine, s *coord.Step) { m.AddOffsets(s, req, partition, reply) })
	if code != 0 {
		resp := kmsg.NewPtrAddOffsetsToTxnResponse()
		resp.ErrorCode = code
		reply(resp)
	}
}

// EndTxn handles EndTxn, versions 0 to 5: see Machine.EndTxn.
func (sv *Service) EndTxn(req *kmsg.EndTxnRequest, reply func(*kmsg.EndTxnResponse)) {
	code := sv.runOnID(req.TransactionalID, func(m *Machine, s *coord.Step) { m.EndTxn(s, req, reply) })
	if code != 0 {
		resp := kmsg.NewPtrEndTxnResponse()
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = code, noProducer, noEpoch
		reply(resp)
	}
}

// Describe answers the transactional ids of a DescribeTransactions, in order.
func (sv *Service) Describe(ids []string, reply func([]kmsg.DescribeTransactionsResponseTransactionState)) {
	out := newGather(len(ids), reply)
	for i, id := range ids {
		fail := func(code int16) {
			resp := kmsg.NewDescribeTransactionsResponseTransactionState()
			resp.TransactionalID, resp.ErrorCode = id, code
			out.setPart(i, resp)
		}
		code := sv.runOnID(id, func(m *Machine, s *coord.Step) {
			resp := m.Describe(s, id)
			s.Reply(func(err error) {
				if err != nil {
					fail(codeOr(err, 0))
					return
				}
				out.setPart(i, resp)
			})
		})
		if code != 0 {
			fail(code)
		}
	}
}

// List answers a ListTransactions with those of all partitions that this node leads, but for the pattern of the filter
// (Filter.KeepMatching). If a partition has a code that is not 0, the first such code is the answer's.
func (sv *Service) List(f *Filter, reply func(list []kmsg.ListTransactionsResponseTransactionState, code int16)) {
	type part struct {
		list []kmsg.ListTransactionsResponseTransactionState
		code int16
	}
	if !sv.cfg.HasSession() {
		reply(nil, coordinatorNotAvailable)
		return
	}
	partitions := sv.rt.Partitions()
	out := newGather(len(partitions), func(parts []part) {
		var list []kmsg.ListTransactionsResponseTransactionState
		for _, p := range parts {
			if p.code != 0 {
				reply(nil, p.code)
				return
			}
			list = append(list, p.list...)
		}
		reply(list, 0)
	})
	for i, n := range partitions {
		var p part
		finish := func(err error) {
			// A partition that has moved away is listed by its new leader.
			if p.code = codeOr(err, 0); p.code == notCoordinator {
				p = part{}
			}
			out.setPart(i, p)
		}
		err := sv.rt.Do(n, func(m *Machine, s *coord.Step) {
			p.list = m.List(s, f)
			s.Reply(finish)
		})
		if err != nil {
			finish(err)
		}
	}
}

// gather collects the parts of an answer, which come in any order, and calls done with all of them after the last one.
type gather[T any] struct {
	mu    sync.Mutex
	parts []T // guarded by mu
	left  int // how many parts are missing; guarded by mu
	done  func([]T)
}

// newGather makes a gather of n parts. It calls done at once if n is 0.
func newGather[T any](n int, done func([]T)) *gather[T] {
	if n == 0 {
		done([]T{})
	}
	return &gather[T]{parts: make([]T, n), left: n, done: done}
}

// setPart stores a part, and calls done after the last one.
func (g *gather[T]) setPart(i int, part T) {
	g.mu.Lock()
	g.parts[i] = part
	g.left--
	isLast := g.left == 0
	g.mu.Unlock()
	if isLast {
		g.done(g.parts)
	}
}
