package sim

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn"
)

// A pipeline consumes a partition of the input, makes a record of each, and sends the offset of its group in the
// same transaction: in the end there is one visible record for each of the input.

// input is the partition that a pipeline reads.
func (k *txnClient) input() *partition { return k.c.truth.find(inputTopic, k.s.input) }

// beginPipeline reads what is next, after it has asked for its offset if it does not know that.
func (k *txnClient) beginPipeline() {
	if k.fetched == noOffset {
		k.fetchOffset()
		return
	}
	k.read()
}

// fetchOffset asks for the offset of the group, which no open transaction has.
func (k *txnClient) fetchOffset() {
	x := k.c.txns
	known := x.committedOffset(k.id)
	k.ask(x.offsets(), "fetch an offset", false, func(at *node, answer func(reply)) {
		x.fetchOffset(at, groupOf(k.id), inputTopic, k.s.input, func(offset int64, code int16) { answer(reply{code: code, offset: offset}) })
	}, func(a reply) {
		if a.code != none {
			k.later(k.fetchOffset)
			return
		}
		if a.offset < known && !x.isVoid {
			k.c.fail(x.offsets().index, "%s is told the offset %d, though %d was committed before it asked", k.name, a.offset, known)
		}
		k.fetched = a.offset
		k.later(k.read)
	})
}

// read reads the next records of the input.
func (k *txnClient) read() {
	c := k.c
	p := k.input()
	if p == nil {
		c.after(50*ms, k.begin)
		return
	}
	k.isIdle = c.healing && record.Offset(k.fetched) == p.end()
	from, most := record.Offset(k.fetched), 1+c.rng.IntN(4)
	if c.healing {
		most = min(12, int(k.timeout/(50*ms))) // a transaction of more would never end in time
	}
	var got []uint64
	k.ask(p, "consume the input", false, func(at *node, answer func(reply)) {
		r := at.replica(p)
		if r == nil || r.leader == nil {
			answer(reply{code: notLeaderCode})
			return
		}
		if hw, ok := r.leader.Readable(); ok {
			for _, e := range r.readFrom(from, hw, most) {
				got = append(got, e.Value)
			}
		}
		answer(reply{})
	}, func(reply) {
		if len(got) == 0 {
			c.after(20*ms+c.random(40*ms), func() {
				if !k.dead {
					k.read()
				}
			})
			return
		}
		k.isIdle = false
		k.newAttempt()
		for _, source := range got {
			k.newValue(source)
		}
		k.t.offset = k.fetched + int64(len(got))
		c.saw("input transformed")
		k.produce()
	})
}

// sendOffset sends the offset of the group in the transaction. A client of the older flow adds the group first.
func (k *txnClient) sendOffset() {
	offsets := k.c.txns.offsets()
	if k.bumps || offsets == nil || len(k.added) > 0 && k.added[len(k.added)-1] == offsets {
		k.commitOffset()
		return
	}
	by := k.has
	k.askCoordinator("add offsets", false, func(m *txn.Machine, s *coord.Step, answer func(reply)) {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = 3, k.id, by.ID, by.Epoch, groupOf(k.id)
		m.AddOffsets(s, req, 0, func(r *kmsg.AddOffsetsToTxnResponse) { answer(reply{code: r.ErrorCode}) })
	}, func(a reply) {
		switch {
		case a.code == none:
			k.added = append(k.added, offsets)
			k.commitOffset()
		case isRetriable(a.code):
			k.later(k.sendOffset)
		default:
			k.wrote(a.code)
		}
	})
}

func (k *txnClient) commitOffset() {
	w := &txnWrite{id: k.id, by: k.has, sequence: record.NoSequence, bumps: k.bumps}
	offset := k.t.offset
	k.ask(k.c.txns.offsets(), "offset in a transaction", k.bumps, func(at *node, answer func(reply)) {
		k.c.txns.takeOffsets(at, w, inputTopic, k.s.input, offset, func(code int16) { answer(reply{code: code}) })
	}, func(a reply) {
		switch {
		case a.code == none:
			k.later(func() { k.end(k.c.healing || k.c.chance(0.8)) })
		case isRetriable(a.code):
			k.later(k.commitOffset)
		default:
			k.wrote(a.code)
		}
	})
}

// committedOffset is the highest offset that a pipeline was told to be committed.
func (x *transactions) committedOffset(id string) (offset int64) {
	for _, t := range x.attempts {
		if t.k.id == id && t.outcome == toldCommitted {
			offset = max(offset, t.offset)
		}
	}
	return offset
}
