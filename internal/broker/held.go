package broker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// A Produce request with batches of a transaction is held if a partition does not have the producer's
// transaction open: the coordinator is asked whether the partition is part of it (KIP-890). From
// version 12 on it becomes part of it. A goroutine waits for the coordinator and appends the batches
// then, and the connection goes on with other requests. Later requests of the same producers
// on the connection are held, too, until the batches of the earlier ones were appended, so that
// their order is kept:
//
//	produce --all partitions are open, no earlier request of the producer is held--> collected
//	   |
//	   '--> held --the earlier ones are appended--> asking --the coordinator has answered--> appended --> answered
//
// A held request keeps its body, whose memory counts as that of requests that are read. It is in no list of the
// session, which does not touch it any more. It is answered within its timeout and a moment.

const (
	// knowsAbortable is the version of Produce from which on clients know TRANSACTION_ABORTABLE.
	knowsAbortable = 11
	// addsPartitions is the version from which on a request makes its partitions part of the transaction.
	addsPartitions = 12
	// longestAsk bounds the time for one answer of the coordinator, as request.timeout.ms does in Kafka.
	longestAsk = 30 * time.Second
)

// held is a Produce request that is held. It belongs to its goroutine once it runs.
type held struct {
	s         *session
	p         *produce
	producers []int64                 // of all its batches
	checks    []*replica.Verification // by partition; nil: none is needed. All nil: they are not begun
	hasLeft   bool                    // leave was called

	earlier int     // requests that it waits for; guarded by heldRequests.mu
	later   []*held // requests that wait for it; guarded by heldRequests.mu
}

// heldRequests are those of a session.
type heldRequests struct {
	count atomic.Int32 // of the requests; changed with mu held
	mu    sync.Mutex
	last  map[int64]*held // by producer: the last one with its batches; guarded by mu
}

// hold holds a request that must not be collected now. It returns false if it may be.
func (s *session) hold(p *produce) bool {
	if !p.transactional && s.held.count.Load() == 0 {
		return false
	}
	if p.transactional && !p.checkProducer() {
		return false
	}
	isFirst := s.held.count.Load() == 0
	if isFirst && p.isOpenEverywhere() {
		return false
	}
	h := &held{s: s, p: p, producers: p.listProducers()}
	if (isFirst || !s.held.hasAny(h.producers)) && !h.beginChecks() {
		return false
	}
	s.Flush() // the producer's batches of earlier requests come first
	p.keepBody()
	if s.held.add(h) {
		s.b.done.Go(h.run)
	}
	return true
}

// keepBody keeps the body of a request, which may move it, and has the request refer to where it is then. No batch was
// recompressed yet.
func (p *produce) keepBody() {
	p.r.KeepBody()
	again := produce{version: p.version}
	again.decodeBody(p.r.Body(), len(p.topics)+len(p.parts))
	p.txnID = again.txnID
	for i := range p.topics {
		p.topics[i].name = again.topics[i].name
	}
	for i := range p.parts {
		p.parts[i].records = again.parts[i].records
	}
}

// isOpenEverywhere tells whether all partitions with transactional batches have the producer's transaction open.
func (p *produce) isOpenEverywhere() bool {
	for i := range p.parts {
		q := &p.parts[i]
		b := record.Batch(q.records)
		if q.code == none && b.Transactional() && !replica.HasTransaction(q.part, b.ProducerID(), b.ProducerEpoch()) {
			return false
		}
	}
	return true
}

// listProducers lists the producers of a request's batches, each once.
func (p *produce) listProducers() (ids []int64) {
	for i := range p.parts {
		if q := &p.parts[i]; q.code == none {
			if id := record.Batch(q.records).ProducerID(); id >= 0 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// checkProducer refuses a request with transactional batches of several producers, as Kafka does. It
// returns false then.
func (p *produce) checkProducer() bool {
	var first record.Batch
	for i := range p.parts {
		q := &p.parts[i]
		b := record.Batch(q.records)
		if q.code != none || !b.Transactional() {
			continue
		}
		if first == nil {
			first = b
		}
		if b.ProducerID() != first.ProducerID() || b.ProducerEpoch() != first.ProducerEpoch() {
			for i := range p.parts {
				p.refusePartition(&p.parts[i], kerr.InvalidProducerIDMapping)
			}
			return false
		}
	}
	return true
}

// hasAny tells whether a request with batches of any of the producers is held.
func (l *heldRequests) hasAny(producers []int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(producers, func(id int64) bool { return l.last[id] != nil })
}

// add adds a request, and tells whether it need not wait for an earlier one.
func (l *heldRequests) add(h *held) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Add(1)
	if l.last == nil {
		l.last = map[int64]*held{}
	}
	for _, id := range h.producers {
		if before := l.last[id]; before != nil && !slices.Contains(before.later, h) {
			before.later = append(before.later, h)
			h.earlier++
		}
		l.last[id] = h
	}
	return h.earlier == 0
}

// remove removes a request, and returns those that waited for it only.
func (l *heldRequests) remove(h *held) (ready []*held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.Add(-1)
	for _, id := range h.producers {
		if l.last[id] == h {
			delete(l.last, id)
		}
	}
	for _, next := range h.later {
		if next.earlier--; next.earlier == 0 {
			ready = append(ready, next)
		}
	}
	h.later = nil
	return ready
}

// run asks the coordinator, appends the request's batches, and answers it.
func (h *held) run() {
	p := h.p
	defer p.r.Conn.Contain()
	defer h.leave()
	defer h.endChecks()
	if p.transactional {
		until := time.Now().Add(h.limit())
		p.b.cfg.Set.ExpectTransactions() // the data directory is made ready while the coordinator is asked
		h.verifyAll()
		p.b.awaitAdmission(time.Until(until))
	}
	c := collected{b: p.b, appends: replica.Appends{Set: p.b.cfg.Set}}
	c.collect(p)
	c.writeAppends()
	for i, v := range h.checks {
		if q := &p.parts[i]; v != nil && q.code == kerr.InvalidTxnState.Code && v.IsMoved() {
			p.refusePartition(q, replica.ErrNotLeader) // the client tries again
		}
	}
	h.endChecks()
	h.leave()
	c.answerOrWait()
	c.appends.Commit()
}

// leave lets later requests of the producers go on.
func (h *held) leave() {
	if h.hasLeft {
		return
	}
	h.hasLeft = true
	for _, next := range h.s.held.remove(h) {
		h.s.b.done.Go(next.run)
	}
}

// beginChecks begins the verification of each partition that does not have the transaction open, and tells
// whether there is any.
func (h *held) beginChecks() bool {
	p := h.p
	version := int16(0)
	if p.version >= addsPartitions {
		version = 2
	}
	for i := range p.parts {
		q := &p.parts[i]
		b := record.Batch(q.records)
		if q.code != none || !b.Transactional() {
			continue
		}
		if v := replica.BeginVerification(q.part, b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), version); v != nil {
			if h.checks == nil {
				h.checks = make([]*replica.Verification, len(p.parts))
			}
			h.checks[i] = v
		}
	}
	return h.checks != nil
}

func (h *held) endChecks() {
	for _, v := range h.checks {
		if v != nil {
			v.End()
		}
	}
	h.checks = nil
}

// verifyAll asks the coordinator about the partitions that do not have the transaction open, and refuses those that
// are not part of it.
func (h *held) verifyAll() {
	if h.checks == nil && !h.beginChecks() {
		return
	}
	for i, code := range h.askCoordinator() {
		switch v := h.checks[i]; {
		case v == nil:
		case code == none:
			v.Confirm()
		default:
			h.p.refusePartition(&h.p.parts[i], unverifiedError(code, h.p.version))
		}
	}
}

// askCoordinator asks the coordinator once, and returns the code of each partition of the request.
func (h *held) askCoordinator() []int16 {
	p := h.p
	q := VerifyRequest{TransactionalID: string(p.txnID), Add: p.version >= addsPartitions, Limit: h.limit()}
	places := map[*replica.Partition]int{} // in q.Partitions: a request may name a partition twice
	for i, v := range h.checks {
		if v == nil {
			continue
		}
		part := &p.parts[i]
		b := record.Batch(part.records)
		q.ProducerID, q.ProducerEpoch = b.ProducerID(), b.ProducerEpoch()
		if _, again := places[part.part]; !again {
			places[part.part] = len(q.Partitions)
			q.Partitions = append(q.Partitions, TopicPartition{part.part.Topic().Name, part.index})
		}
	}
	answer := h.s.b.askTransaction(q)
	codes := make([]int16, len(p.parts))
	for i, v := range h.checks {
		if v != nil {
			codes[i] = answer[places[p.parts[i].part]]
		}
	}
	return codes
}

// limit is how long the answer of the coordinator is waited for.
func (h *held) limit() time.Duration {
	p := h.p
	limit := time.Duration(p.timeoutMS) * time.Millisecond
	if p.deadline != 0 {
		limit = p.deadline - p.b.cfg.Set.Now()
	}
	return max(time.Millisecond, min(limit, longestAsk))
}

// askTransaction asks the coordinator of a transaction, and waits for the answer. It is NETWORK_EXCEPTION if none comes
// in time. Without transaction.partition.verification.enable, nobody is asked whether partitions were added before.
func (b *Broker) askTransaction(q VerifyRequest) []int16 {
	code := kerr.NetworkException.Code
	if !q.Add && b.cfg.Static != nil && !meta.ServerSettings(b.cfg.Image(), b.cfg.Static).Txns.VerifyPartitions {
		return make([]int16, len(q.Partitions))
	}
	if b.cfg.Transactions == nil {
		code = kerr.InvalidProducerIDMapping.Code
	} else {
		answer := make(chan []int16, 1)
		t := time.NewTimer(q.Limit)
		defer t.Stop()
		b.cfg.Transactions.Verify(q, func(codes []int16) { answer <- codes })
		select {
		case codes := <-answer:
			return codes
		case <-t.C:
		case <-b.stop:
		}
	}
	codes := make([]int16, len(q.Partitions))
	for i := range codes {
		codes[i] = code
	}
	return codes
}

// awaitAdmission waits until logs take transactions: before the first one of a data directory a checkpoint must say that there
// are some. A client that were refused meanwhile may wait for seconds before it asks again. After the limit the logs
// refuse the batches. Neither a lock nor work memory may be held.
func (b *Broker) awaitAdmission(limit time.Duration) {
	admitted := b.cfg.Set.ExpectTransactions()
	select {
	case <-admitted:
		return
	default:
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-admitted:
	case <-t.C:
	case <-b.stop:
	}
}

// unverifiedError is the error of a partition for which the coordinator has answered with a code. Older clients do not
// know all codes of the coordinator. NOT_ENOUGH_REPLICAS has them try again without asking for metadata.
func unverifiedError(code, version int16) error {
	if code == kerr.TransactionAbortable.Code && version < knowsAbortable {
		code = kerr.InvalidTxnState.Code
	}
	err := kerr.TypedErrorForCode(code)
	switch code {
	case kerr.ProducerFenced.Code:
		return kerr.InvalidProducerEpoch
	case kerr.InvalidTxnState.Code:
		return &explainedError{kerr.InvalidTxnState, "The partition is not part of the transaction."}
	case kerr.ConcurrentTransactions.Code:
		if version >= addsPartitions {
			return err
		}
	case kerr.NetworkException.Code, kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code:
	default:
		return err
	}
	return &explainedError{kerr.NotEnoughReplicas, fmt.Sprintf("It cannot be verified that the partition is part of the transaction: %s", err.Message)}
}
