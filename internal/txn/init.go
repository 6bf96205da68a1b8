package txn

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// producerEpoch is a producer id with an epoch.
type producerEpoch struct {
	id    int64
	epoch int16
}

// InitProducerID handles InitProducerId, versions 0 to 5, of a transactional producer; the transactional id must
// not be nil. The producer gets an epoch that fences those before it. With the id and epoch that it has
// (KIP-360, version 3) it gets the next epoch only if nobody else has got one since; if it asks a
// second time with them, it gets the same answer. If a transaction is open, it is aborted, and the client
// asks again until that has ended.
func (m *Machine) InitProducerID(s *coord.Step, req *kmsg.InitProducerIDRequest, reply func(*kmsg.InitProducerIDResponse)) {
	const knowsFenced = 4 // the version from which on clients know PRODUCER_FENCED
	p, code := m.decideInit(s, req)
	m.countRefusal(code)
	s.Reply(func(err error) {
		resp := kmsg.NewPtrInitProducerIDResponse()
		resp.ErrorCode = codeForVersion(codeOr(err, code), req.Version, knowsFenced)
		resp.ProducerID, resp.ProducerEpoch = noProducer, noEpoch
		if resp.ErrorCode == 0 {
			resp.ProducerID, resp.ProducerEpoch = p.id, p.epoch
		}
		reply(resp)
	})
}

// decideInit decides an InitProducerId.
func (m *Machine) decideInit(s *coord.Step, req *kmsg.InitProducerIDRequest) (producerEpoch, int16) {
	id := *req.TransactionalID
	has := producerEpoch{req.ProducerID, req.ProducerEpoch}
	timeout := time.Duration(req.TransactionTimeoutMillis) * time.Millisecond
	switch {
	case id == "" || len(id) > maxIDBytes, (has.id == noProducer) != (has.epoch == noEpoch):
		return producerEpoch{}, invalidRequest
	case timeout <= 0 || timeout > m.settings().MaxTimeout:
		return producerEpoch{}, invalidTxnTimeout
	}
	t := m.find(s, id)
	switch {
	case t == nil:
		return m.initNew(s, id, has, req.TransactionTimeoutMillis)
	case t.isEnding():
		return producerEpoch{}, concurrentTransactions
	case !t.knowsProducer(has):
		return producerEpoch{}, producerFenced
	case t.status == ongoing:
		return producerEpoch{}, m.initAmidTransaction(s, t, has)
	}
	return m.initIdle(s, t, has, req.TransactionTimeoutMillis)
}

// knowsProducer tells whether a producer that asks with what it has may be one that nobody has fenced: it
// has the present producer id, or asks again and had another one before.
func (t *transaction) knowsProducer(has producerEpoch) bool {
	return has.id == noProducer || has.id == t.producer || has == t.lastProducer()
}

// lastProducer is the producer as it was before it got its epoch; it has no epoch if nobody may ask again.
func (t *transaction) lastProducer() producerEpoch {
	if t.epoch == 0 {
		return producerEpoch{t.previous, t.last}
	}
	return producerEpoch{t.producer, t.last}
}

// initNew gives an epoch to the first producer of a transactional id, which may have had another producer id
// before the transactional id has expired.
func (m *Machine) initNew(s *coord.Step, id string, has producerEpoch, timeout int32) (producerEpoch, int16) {
	st := newState(0, timeout, s.Now.UnixMilli())
	if !m.hasRoom(s, id, sizeOf(id, &st)) {
		return producerEpoch{}, coordinatorNotAvailable
	}
	producer, ok := m.cfg.IDs.Take()
	if !ok {
		return producerEpoch{}, loadInProgress
	}
	st.producer, st.previous = producer, producer
	if has.id != noProducer {
		st.previous, st.last = has.id, has.epoch
	}
	putState(s, id, &st)
	return producerEpoch{producer, 0}, 0
}

// initAmidTransaction aborts an open transaction. A producer that says what it has must have the epoch of
// the transaction. Kafka aborts it for any epoch, so that one that was fenced can end the
// transaction of its successor.
func (m *Machine) initAmidTransaction(s *coord.Step, t *transaction, has producerEpoch) int16 {
	if has.id != noProducer && has != (producerEpoch{t.producer, t.epoch}) {
		return producerFenced
	}
	if code := m.fence(s, t, "a producer or an administrator has asked for a new epoch of its id"); code != 0 {
		return code
	}
	return concurrentTransactions
}

// initIdle gives an epoch to a producer while there is no transaction.
func (m *Machine) initIdle(s *coord.Step, t *transaction, has producerEpoch, timeout int32) (producerEpoch, int16) {
	now, last := s.Now.UnixMilli(), noEpoch
	var next state
	switch {
	case has.id != noProducer && has == t.lastProducer():
		// It asks again. That needs no record, unless it wants something else than before, or its transaction was
		// aborted for it meanwhile: then it is a new producer that has begun none.
		if timeout != t.timeout || t.status != empty {
			next = t.reset(timeout, now)
			next.previous = t.previous
			putState(s, t.id, &next)
		}
		return producerEpoch{t.producer, t.epoch}, 0
	case has.id != noProducer && has != (producerEpoch{t.producer, t.epoch}):
		return producerEpoch{}, producerFenced
	case has.id != noProducer:
		last = t.epoch
	}
	if t.isExhausted() {
		producer, code := m.nextProducer(t)
		if code != 0 {
			return producerEpoch{}, code
		}
		next = t.rotated(producer, last, timeout, now)
	} else {
		next = t.bumped(last, timeout, now)
	}
	putState(s, t.id, &next)
	return producerEpoch{next.producer, next.epoch}, 0
}
