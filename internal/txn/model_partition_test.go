package txn

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// partition is the leader of a partition, with what it knows of producers, as Kafka's keeps it.
type partition struct {
	w      *world
	topic  string
	n      int32
	gone   bool // it was deleted
	states map[int64]*producerState
}

// producerState is what a partition knows of one producer id.
type producerState struct {
	epoch       int16
	coordinator record.Epoch // of the last marker
	open        []*value     // of the transaction that has no marker yet
	openEpoch   int16
	verified    int // counts the markers, so that a verification from before one does not count
}

// value is a record of a transaction.
type value struct {
	t      *attempt
	p      *partition
	stored bool
	acked  bool
	state  valueState
}

type valueState uint8

const (
	valueOpen valueState = iota
	valueCommitted
	valueAborted
)

func newPartition(w *world, n int32) *partition {
	return &partition{w: w, topic: "t", n: n, states: map[int64]*producerState{}}
}

func (p *partition) stateOf(id int64) *producerState {
	st := p.states[id]
	if st == nil {
		st = &producerState{epoch: noEpoch, coordinator: -1}
		p.states[id] = st
	}
	return st
}

func (p *partition) delete() {
	p.w.note("partition %d is deleted", p.n)
	p.w.seen["partition gone"]++
	p.gone = true
	clear(p.states)
}

// append appends a value for a producer. It first asks the coordinator if the producer has no open
// transaction of its epoch here: whether the partition is part of one (KIP-890 part 1) or, for
// producers whose epoch rises, to make it part of one (part 2).
func (p *partition) append(v *value, pe producerEpoch, done func(code int16)) {
	st := p.stateOf(pe.id)
	switch {
	case p.gone:
		done(transactionAbortable)
	case v.stored:
		done(0)
	case pe.epoch < st.epoch:
		done(invalidProducerEpoch)
	case len(st.open) > 0 && st.openEpoch == pe.epoch:
		p.store(st, v, pe)
		done(0)
	default:
		p.askCoordinator(v, pe, done)
	}
}

func (p *partition) askCoordinator(v *value, pe producerEpoch, done func(code int16)) {
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch, x.VerifyOnly = v.t.p.id, pe.id, pe.epoch, !v.t.p.bumps
	x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: p.topic, Partitions: []int32{p.n}}}
	st := p.stateOf(pe.id)
	verified := st.verified
	v.t.p.ask("add by partition", func(m *Machine, s *coord.Step, reply func(int16)) {
		m.AddPartitions(s, 5, &x, func(r *kmsg.AddPartitionsToTxnResponseTransaction) { reply(r.Topics[0].Partitions[0].ErrorCode) })
	}, func(code int16) {
		switch {
		case code != 0:
			done(code)
		case p.gone, st.verified != verified: // a marker has come meanwhile, so what was verified has ended
			done(transactionAbortable)
		case pe.epoch < st.epoch:
			done(invalidProducerEpoch)
		default:
			if !v.stored {
				p.store(st, v, pe)
			}
			done(0)
		}
	})
}

func (p *partition) store(st *producerState, v *value, pe producerEpoch) {
	if len(st.open) > 0 && st.openEpoch != pe.epoch {
		p.w.fail("partition %d gets a record of %v while the transaction of the epoch %d is open", p.n, pe, st.openEpoch)
	}
	p.w.check.accepted(v.t.p, "a record")
	st.epoch, st.openEpoch = pe.epoch, pe.epoch
	st.open = append(st.open, v)
	v.stored = true
}

// takeMarker writes a marker, as Kafka's partition leaders do.
func (p *partition) takeMarker(d Decision) Outcome {
	if p.gone {
		return PartitionGone
	}
	st := p.stateOf(d.ProducerID)
	switch {
	case d.Version == bumpEpoch && d.ProducerEpoch == st.epoch && len(st.open) == 0: // it comes again
	case d.Version == bumpEpoch && d.ProducerEpoch <= st.epoch, d.ProducerEpoch < st.epoch, d.CoordinatorEpoch < st.coordinator:
		p.w.seen["marker refused"]++
		return CoordinatorFenced
	}
	if d.CoordinatorEpoch < st.coordinator {
		p.w.seen["marker refused"]++
		return CoordinatorFenced
	}
	st.epoch, st.coordinator = d.ProducerEpoch, d.CoordinatorEpoch
	st.verified++
	for _, v := range st.open {
		v.state = valueAborted
		if d.Commit {
			v.state = valueCommitted
		}
		p.w.check.ended(v)
	}
	st.open = nil
	return MarkerWritten
}
