package sim

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/errcode"
	"github.com/leatstream/leat/internal/record"
	engine "github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/txn"
)

// Kafka's error codes that matter here. noAnswer stands for a request whose outcome is not known.
const (
	noAnswer int16 = -1
	none     int16 = 0
)

var (
	notLeaderCode       = kerr.NotLeaderForPartition.Code
	notCoordinator      = kerr.NotCoordinator.Code
	notEnoughReplicas   = kerr.NotEnoughReplicas.Code
	loadInProgress      = kerr.CoordinatorLoadInProgress.Code
	unavailable         = kerr.CoordinatorNotAvailable.Code
	concurrent          = kerr.ConcurrentTransactions.Code
	abortable           = kerr.TransactionAbortable.Code
	producerFenced      = kerr.ProducerFenced.Code
	oldEpoch            = kerr.InvalidProducerEpoch.Code
	wrongState          = kerr.InvalidTxnState.Code
	outOfOrderCode      = kerr.OutOfOrderSequenceNumber.Code
	unknownProducerID   = kerr.InvalidProducerIDMapping.Code
	networkException    = kerr.NetworkException.Code
	unstableOffset      = kerr.UnstableOffsetCommit.Code
	notEnoughAfterwards = kerr.NotEnoughReplicasAfterAppend.Code
)

// txnWrite is a batch of a transaction that a client sends, or the offset of its group.
type txnWrite struct {
	id       string // transactional id
	by       coord.Producer
	sequence int32
	bumps    bool // each transaction has an epoch of its own
	value    *txnValue
}

// version is the version of the transaction: see storage.Claim.
func (w *txnWrite) version() int16 {
	if w.bumps {
		return 2
	}
	return 0
}

// takeTransactional appends a batch of a transaction if this node leads, as package broker does: where the transaction
// is not open, its coordinator is asked before.
func (n *node) takeTransactional(part *partition, w *txnWrite, answer func(code int16)) {
	r := n.replica(part)
	if r == nil || r.leader == nil {
		answer(notLeaderCode)
		return
	}
	n.verify(r, w, func(v *engine.Verification, code int16) {
		if code != none {
			answer(unverifiedCode(code, w.bumps))
			return
		}
		r.appendTransactional(w, func(code int16) {
			if code == wrongState && v != nil && v.IsMoved() {
				code = notLeaderCode
			}
			answer(code)
		})
	})
}

// verify asks the coordinator whether a partition is part of a transaction, unless that is open in the log. The
// verification ends when then returns.
func (n *node) verify(r *replica, w *txnWrite, then func(v *engine.Verification, code int16)) {
	if r.log.transactions().state.HasOpen(w.by.ID, w.by.Epoch) {
		then(nil, none)
		return
	}
	v := r.verifications.Begin(w.by.ID, w.by.Epoch, w.sequence, w.version())
	n.askCoordinator(r.part, w, func(code int16) {
		if code == none {
			v.Confirm()
			n.c.saw("partition verified")
		}
		then(v, code)
		v.End()
	})
}

// unverifiedCode is the code of the answer if the coordinator has answered with a code.
func unverifiedCode(code int16, bumps bool) int16 {
	switch code {
	case producerFenced:
		return oldEpoch
	case concurrent:
		if bumps {
			return concurrent
		}
	case networkException, loadInProgress, unavailable, notCoordinator:
	default:
		return code
	}
	return notEnoughReplicas
}

// verificationLimit is how long a leader waits for the coordinator.
const verificationLimit = 600 * ms

// askCoordinator asks the coordinator of a transaction, on whatever node it is, about a partition. Nobody asks twice.
func (n *node) askCoordinator(part *partition, w *txnWrite, then func(code int16)) {
	at := n.c.txns.stateOf(w.id)
	if at == nil || at.in(n.image) == nil || at.in(n.image).Leader < 1 {
		then(unavailable)
		return
	}
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch, x.VerifyOnly = w.id, w.by.ID, w.by.Epoch, !w.bumps
	x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: part.name, Partitions: []int32{part.number}}}
	handle := func(to *node, answer func(code int16)) {
		to.coordinate(w.id, answer, func(m *txn.Machine, s *coord.Step, answer func(code int16)) {
			m.AddPartitions(s, 5, &x, func(resp *kmsg.AddPartitionsToTxnResponseTransaction) {
				answer(resp.Topics[0].Partitions[0].ErrorCode)
			})
		})
	}
	to := at.in(n.image).Leader
	if to == n.id {
		handle(n, then)
		return
	}
	n.callWithin(verificationLimit, to, "verify a transaction", func(at *node, answer func(func())) {
		handle(at, func(code int16) {
			pause := time.Duration(0)
			if !n.c.healing && n.c.chance(0.1) {
				pause = n.c.random(verificationLimit)
				n.c.saw("slow verification")
			}
			at.later(pause, func() {
				answer(func() {
					then(code)
					n.act() // it may have appended
				})
			})
		})
		at.act()
	}, func() { then(networkException) })
}

// appendTransactional appends a batch of a transaction, and answers when it is committed.
func (r *replica) appendTransactional(w *txnWrite, answer func(code int16)) {
	if r.leader == nil {
		answer(notLeaderCode)
		return
	}
	if !r.leader.EnoughInSync() {
		answer(notEnoughReplicas)
		return
	}
	c := r.n.c
	b := c.txns.newBatch(w.by, w.sequence, nil, []byte(w.value.String()))
	items := []storage.Item{{Batch: b}}
	r.verifications.Append(items, func() {
		earlier, isDuplicate, err := r.log.transactions().state.Check(b, items[0].Claim)
		switch {
		case err != nil:
			items[0].Err = err
		case isDuplicate:
			c.saw("transactional duplicate recognised")
			items[0].Next = earlier.LastOffset + 1
		default:
			c.saw("transactional record appended")
			items[0].Next = r.appendContent(&content{batch: b, value: w.value, name: w.value.String()}) + 1
		}
	})
	if items[0].Err != nil {
		answer(errcode.Of(items[0].Err))
		return
	}
	r.waiting = append(r.waiting, &ackWait{items[0].Next, true, func(o produceOutcome) { answer(codeOfOutcome(o)) }})
}

func codeOfOutcome(o produceOutcome) int16 {
	switch o {
	case acknowledged:
		return none
	case tooFewAfterAppend:
		return notEnoughAfterwards
	case tooFewInSync:
		return notEnoughReplicas
	case notLeader, outOfOrder:
	}
	return notLeaderCode
}

// coordinate runs an operation on the machine of a transactional id, if this node coordinates it.
func (n *node) coordinate(id string, answer func(code int16), op func(m *txn.Machine, s *coord.Step, answer func(code int16))) {
	part := n.c.txns.stateOf(id)
	if part == nil || !n.hasSession() {
		answer(notCoordinator)
		return
	}
	n.runMachine(part, answer, func(s *coord.Step, sh *machineShard, answer func(code int16)) {
		op(sh.ofTransactions(), s, answer)
	})
}

// runMachine runs an operation on the machine of a partition, if this node leads that.
func (n *node) runMachine(part *partition, answer func(code int16), op func(s *coord.Step, sh *machineShard, answer func(code int16))) {
	r := n.replica(part)
	switch {
	case r == nil || r.machine == nil:
		answer(notCoordinator)
	case !r.machine.active:
		answer(loadInProgress)
	default:
		sh := r.machine
		inOrder := sh.newRequest()
		sh.run(func(s *coord.Step) {
			op(s, sh, func(code int16) { inOrder(func() { answer(code) }) })
		})
	}
}

// takeOffsets has the group's coordinator keep an offset until the transaction ends, as package broker does.
func (x *transactions) takeOffsets(n *node, w *txnWrite, topic string, number int32, offset int64, answer func(code int16)) {
	part := x.offsets()
	r := n.replica(part)
	if r == nil || r.machine == nil {
		answer(notCoordinator)
		return
	}
	n.verify(r, w, func(v *engine.Verification, code int16) {
		if code != none {
			answer(unverifiedOffsetsCode(code))
			return
		}
		n.runMachine(part, answer, func(s *coord.Step, sh *machineShard, answer func(code int16)) {
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Group, req.Generation = groupOf(w.id), -1
			req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: number, Offset: offset, LeaderEpoch: -1}}}}
			_, refused := sh.ofGroups().CommitInTransaction(s, w.by, req)
			b := x.newBatch(w.by, record.NoSequence, nil, nil)
			items := []storage.Item{{Batch: b}}
			sh.r.verifications.Append(items, func() { // the replica may be another one by now
				_, _, items[0].Err = sh.r.log.transactions().state.Check(b, items[0].Claim)
			})
			if v != nil && v.IsEnded() {
				x.c.saw("late offset refused")
				items[0].Err = storage.ErrTransactionState
			}
			if items[0].Err != nil {
				s.Refuse(items[0].Err)
			}
			s.Reply(func(err error) {
				code := errcode.OfCoordinator(err)
				if code == none {
					code = refused
				}
				if code == wrongState && v != nil && v.IsMoved() {
					code = notCoordinator
				}
				answer(code)
			})
		})
	})
}

func unverifiedOffsetsCode(code int16) int16 {
	switch code {
	case producerFenced:
		return oldEpoch
	case networkException:
		return loadInProgress
	}
	return code
}

// fetchOffset answers with the offset that a group has committed.
func (x *transactions) fetchOffset(n *node, groupID, topic string, number int32, answer func(offset int64, code int16)) {
	if !n.hasSession() {
		answer(0, notCoordinator)
		return
	}
	refuse := func(code int16) { answer(0, code) }
	n.runMachine(x.offsets(), refuse, func(s *coord.Step, sh *machineShard, _ func(code int16)) {
		req := kmsg.NewOffsetFetchRequestGroup()
		req.Group = groupID
		req.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{number}}}
		resp := sh.ofGroups().Fetch(s, &req, true)
		p := resp.Topics[0].Partitions[0]
		inOrder := sh.newRequest()
		s.Reply(func(err error) {
			code := errcode.OfCoordinator(err)
			if code == none {
				code = p.ErrorCode
			}
			inOrder(func() { answer(max(p.Offset, 0), code) })
		})
	})
}

// takeMarker writes a marker, if this node leads the partition.
func (n *node) takeMarker(part *partition, m coord.Marker, answer func(o txn.Outcome)) {
	r := n.replica(part)
	switch {
	case r == nil || r.leader == nil || !r.leader.EnoughInSync():
		answer(txn.AskAgain)
	case part == n.c.txns.offsets():
		n.runMachine(part, func(int16) { answer(txn.AskAgain) }, func(s *coord.Step, sh *machineShard, _ func(code int16)) {
			inOrder := sh.newRequest()
			if _, err := r.checkMarker(m); err != nil {
				s.Refuse(err)
			}
			s.PutMarker(m)
			s.Reply(func(err error) { inOrder(func() { answer(outcomeOf(err)) }) })
		})
	default:
		b, err := r.checkMarker(m)
		if err != nil {
			answer(outcomeOf(err))
			return
		}
		at := r.appendContent(&content{batch: b, name: nameOfMarker(m)})
		r.waiting = append(r.waiting, &ackWait{at + 1, true, func(o produceOutcome) {
			if o == acknowledged {
				answer(txn.MarkerWritten)
			} else {
				answer(txn.AskAgain)
			}
		}})
	}
}

// checkMarker makes a marker, and has the log check it. It makes verifications outdated.
func (r *replica) checkMarker(m coord.Marker) (record.Batch, error) {
	b := r.n.c.txns.newMarker(m)
	items := []storage.Item{{Batch: b, Claim: storage.Claim{Version: m.Version}}}
	r.verifications.Append(items, func() {
		_, _, items[0].Err = r.log.transactions().state.Check(b, items[0].Claim)
	})
	if items[0].Err != nil {
		r.n.c.saw("marker refused")
		r.note("refuses a marker of %d/%d", m.ID, int64(m.Epoch))
	}
	return b, items[0].Err
}

// outcomeOf is what the sender of a marker makes of an error.
func outcomeOf(err error) txn.Outcome {
	switch {
	case err == nil:
		return txn.MarkerWritten
	case errors.Is(err, engine.ErrProducerFenced), errors.Is(err, engine.ErrCoordinatorFenced):
		return txn.CoordinatorFenced
	}
	return txn.AskAgain
}
