package txn

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// firstBumping is the version of EndTxn from which on the epoch rises with each transaction (KIP-890).
const firstBumping = 5

// knowsAbortable is the version of EndTxn from which on clients know TRANSACTION_ABORTABLE (KIP-890).
const knowsAbortable = 4

// EndTxn handles EndTxn, versions 0 to 5: it commits or aborts the transaction. From version 5 on the
// answer has the producer id and epoch for the next transaction, and a client that has lost the
// answer may ask again. The answer does not wait for the markers.
func (m *Machine) EndTxn(s *coord.Step, req *kmsg.EndTxnRequest, reply func(*kmsg.EndTxnResponse)) {
	const knowsFenced = 2 // the version from which on clients know PRODUCER_FENCED
	next := producerEpoch{noProducer, noEpoch}
	var code int16
	if req.Version < firstBumping {
		code = m.endWithSameEpoch(s, req)
	} else {
		next, code = m.endWithBump(s, req)
	}
	m.countRefusal(code)
	s.Reply(func(err error) {
		resp := kmsg.NewPtrEndTxnResponse()
		resp.ErrorCode = codeForVersion(codeOr(err, code), req.Version, knowsFenced)
		resp.ProducerID, resp.ProducerEpoch = noProducer, noEpoch
		if resp.ErrorCode == 0 {
			resp.ProducerID, resp.ProducerEpoch = next.id, next.epoch
		}
		reply(resp)
	})
}

// isTakenOver tells whether a partition of a transaction mirrors another cluster's by now. A transaction that is committed then would be torn.
func (c *Config) isTakenOver(t *transaction) bool {
	if c.Mirrors == nil {
		return false
	}
	for i := range t.partitions {
		of := &t.partitions[i]
		if slices.ContainsFunc(of.Partitions, func(p int32) bool { return c.Mirrors(of.Topic, p) }) {
			return true
		}
	}
	return false
}

// endWithSameEpoch ends a transaction of a client that keeps its epoch. After the end, a request with the
// same outcome counts as asked again.
func (m *Machine) endWithSameEpoch(s *coord.Step, req *kmsg.EndTxnRequest) int16 {
	if req.TransactionalID == "" {
		return invalidRequest
	}
	t := m.find(s, req.TransactionalID)
	switch {
	case t == nil, t.producer != req.ProducerID:
		return invalidProducerIDMapping
	case t.epoch != req.ProducerEpoch:
		return producerFenced
	case t.isEnding():
		return concurrentTransactions
	case t.status == ongoing && req.Commit && m.cfg.isTakenOver(t):
		if req.Version < knowsAbortable {
			return invalidTxnState
		}
		return transactionAbortable
	case t.status == ongoing:
		next := t.prepared(req.Commit, sameEpoch, noProducer, s.Now.UnixMilli())
		putState(s, t.id, &next)
		return 0
	case t.status == completeCommit && req.Commit, t.status == completeAbort && !req.Commit:
		return 0
	}
	return invalidTxnState
}

// endWithBump ends a transaction of a client whose epoch rises with each one. In the states without a
// transaction it answers
//
//	                abort, with the epoch     commit, with the epoch
//	                before       present      before       present
//	Empty           fenced       bump         fenced       refused
//	CompleteAbort   done         bump         invalid      refused
//	CompleteCommit  invalid      bump         done         refused
//
// "Done" is for clients that have lost the answer, "bump" for those that abort to be sure, and do not
// know whether their transaction has begun here. The codes of "fenced" are PRODUCER_FENCED and
// INVALID_PRODUCER_ID_MAPPING, that of "invalid" and "refused" is INVALID_TXN_STATE.
func (m *Machine) endWithBump(s *coord.Step, req *kmsg.EndTxnRequest) (producerEpoch, int16) {
	if req.TransactionalID == "" {
		return producerEpoch{}, invalidRequest
	}
	t := m.find(s, req.TransactionalID)
	switch {
	case t == nil:
		return producerEpoch{}, invalidProducerIDMapping
	case t.isEnding(): // first: the producer may have been told of a producer id that follows when the end is complete
		return producerEpoch{}, concurrentTransactions
	case t.endedWith(req.ProducerID, req.ProducerEpoch):
		if req.Commit != (t.status == completeCommit) {
			return producerEpoch{}, invalidTxnState
		}
		return producerEpoch{t.producer, t.epoch}, 0
	case t.producer != req.ProducerID:
		return producerEpoch{}, invalidProducerIDMapping
	case t.epoch != req.ProducerEpoch:
		return producerEpoch{}, producerFenced
	case t.isIdle() && req.Commit:
		return producerEpoch{}, invalidTxnState
	case req.Commit && m.cfg.isTakenOver(t):
		return producerEpoch{}, transactionAbortable
	}
	follows, code := m.nextProducer(t)
	if code != 0 {
		return producerEpoch{}, code
	}
	now := s.Now.UnixMilli()
	next := t.prepared(req.Commit, bumpEpoch, follows, now)
	done := next.completed(now)
	if len(next.partitions) == 0 { // no marker is needed
		next = done
	}
	putState(s, t.id, &next)
	return producerEpoch{done.producer, done.epoch}, 0
}
