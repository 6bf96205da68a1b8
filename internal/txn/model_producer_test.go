package txn

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// noAnswer is the code of a request whose outcome is not known.
const noAnswer int16 = -1

// producer is a client: it gets an epoch, and runs one transaction after the other until it dies, or is told
// that it is fenced.
type producer struct {
	w     *world
	id    string // transactional id
	name  string
	bumps bool // its epoch rises with each transaction
	has   producerEpoch
	dead  bool
	added map[int32]bool // the partitions that it has added to its transaction
	t     *attempt
}

// attempt is a transaction as its producer sees it.
type attempt struct {
	p       *producer
	n       int
	values  []*value
	outcome outcome
}

type outcome uint8

const (
	unknownOutcome outcome = iota
	toldCommitted
	toldAborted
)

// startProducer starts a producer. Others with its transactional id may still be there.
func (w *world) startProducer(id string) {
	if w.healing {
		return
	}
	p := &producer{w: w, id: id, name: fmt.Sprintf("%s%d", id, len(w.producers)), bumps: w.rng.IntN(3) > 0, has: producerEpoch{noProducer, noEpoch}}
	w.producers = append(w.producers, p)
	w.note("%s starts, its epoch rises: %v", p.name, p.bumps)
	p.initialise(producerEpoch{noProducer, noEpoch})
}

// ask sends a request to the coordinator. reply gets its code, or noAnswer.
func (p *producer) ask(what string, op func(m *Machine, s *coord.Step, reply func(int16)), reply func(int16)) {
	w := p.w
	lost := func() { reply(noAnswer) }
	w.send(func() {
		if !w.co.up {
			w.send(func() { reply(16) }, lost)
			return
		}
		owner := w.check.owners[p.id]
		w.check.unanswered++
		w.co.step(func(m *Machine, s *coord.Step) {
			op(m, s, func(code int16) {
				w.check.unanswered--
				w.note("%s %s: %s", p.name, what, name(code))
				w.seen[what+": "+name(code)]++
				if code == 0 && owner != nil && owner != p && what != "init" { // anybody may begin anew
					w.fail("%s was fenced by %s, but its %s is done", p.name, owner.name, what)
				}
				w.send(func() { reply(code) }, lost)
			})
		})
	}, lost)
}

// later goes on after a pause, unless the producer is dead by then. Some pauses are long: others take it for dead.
func (p *producer) later(do func()) {
	pause := ms + p.w.random(10*ms)
	if !p.w.healing && p.w.chance(0.04) {
		pause += p.w.random(700 * ms)
	}
	p.w.after(pause, func() {
		if p.dead {
			return
		}
		if !p.w.healing && p.w.chance(0.01) {
			p.w.note("%s dies", p.name)
			p.dead = true
			return
		}
		do()
	})
}

// isRetriable tells whether a client asks again that has this code.
func isRetriable(code int16) bool {
	switch code {
	case noAnswer, loadInProgress, coordinatorNotAvailable, 16, concurrentTransactions:
		return true
	}
	return false
}

// initialise gets an epoch; has is what the producer says that it has.
func (p *producer) initialise(has producerEpoch) {
	var got producerEpoch
	op := func(m *Machine, s *coord.Step, reply func(int16)) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &p.id, int32(100+p.w.rng.IntN(3)*100)
		req.ProducerID, req.ProducerEpoch = has.id, has.epoch
		asked := p.w.steps
		p.w.check.inits[p] = asked
		m.InitProducerID(s, req, func(r *kmsg.InitProducerIDResponse) {
			got = producerEpoch{r.ProducerID, r.ProducerEpoch}
			if r.ErrorCode == 0 {
				p.w.check.granted(p, asked, has, got)
			} else if has.id != noProducer {
				p.w.check.refusedInit(p, r.ErrorCode)
			}
			reply(r.ErrorCode)
		})
	}
	what := "init"
	if has.id != noProducer {
		what = "init again"
	}
	p.ask(what, op, func(code int16) {
		switch {
		case code == 0:
			p.has = got
			p.later(p.begin)
		case isRetriable(code):
			p.later(func() { p.initialise(has) })
		default:
			p.fenced(what, code)
		}
	})
}

// fenced ends a producer, or has it start anew, as an application does.
func (p *producer) fenced(what string, code int16) {
	p.w.note("%s gives up after %s: %s", p.name, what, name(code))
	p.dead = true
	if !p.w.healing && p.w.chance(0.5) {
		p.w.after(p.w.random(100*ms), func() { p.w.startProducer(p.id) })
	}
}

// begin begins the next transaction.
func (p *producer) begin() {
	if p.w.healing {
		return
	}
	p.t = &attempt{p: p, n: len(p.w.check.attempts)}
	p.w.check.attempts = append(p.w.check.attempts, p.t)
	p.added = map[int32]bool{}
	p.produce(p.w.rng.IntN(5))
}

// produce writes so many records, one after the other or all at once, and ends the transaction.
func (p *producer) produce(n int) {
	if n > 1 && p.w.chance(0.5) {
		left, refused := n, int16(0)
		for range n {
			p.write(p.newValue(), func(code int16) {
				if refused == 0 {
					refused = code
				}
				if left--; left == 0 {
					p.wrote(0, refused)
				}
			})
		}
		return
	}
	p.wrote(n, 0)
}

// wrote goes on after a record, of which so many are left.
func (p *producer) wrote(left int, code int16) {
	switch {
	case code == transactionAbortable:
		p.later(func() { p.end(false) })
	case code != 0:
		p.lostEpoch("produce", code)
	case left == 0:
		p.end(p.w.chance(0.75))
	default:
		p.write(p.newValue(), func(code int16) { p.wrote(left-1, code) })
	}
}

func (p *producer) newValue() *value {
	v := &value{t: p.t, p: p.w.parts[p.w.rng.IntN(len(p.w.parts))]}
	p.t.values = append(p.t.values, v)
	return v
}

// write writes a record. A producer of the older flow adds the partition first.
func (p *producer) write(v *value, done func(code int16)) {
	again := func() { p.later(func() { p.write(v, done) }) }
	if !p.bumps && !p.added[v.p.n] {
		p.add(v, done)
		return
	}
	t, pe := p.t, p.has
	deliver := func(answer func(int16)) { v.p.append(v, pe, answer) }
	p.w.send(func() {
		deliver(func(code int16) {
			p.w.send(func() {
				if isRetriable(code) {
					again()
					return
				}
				v.acked = code == 0
				p.later(func() { done(code) })
			}, again)
		})
		if p.bumps {
			p.w.sendTwice(func() {
				if t.outcome != unknownOutcome {
					p.w.seen["record of a transaction that has ended"]++
				}
				deliver(func(int16) {})
			})
		}
	}, again)
}

// add makes a partition part of the transaction, and then writes.
func (p *producer) add(v *value, done func(code int16)) {
	p.ask("add", func(m *Machine, s *coord.Step, reply func(int16)) {
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 3, p.id, p.has.id, p.has.epoch
		req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: v.p.topic, Partitions: []int32{v.p.n}}}
		m.AddPartitions(s, 3, SingleTransaction(req), func(r *kmsg.AddPartitionsToTxnResponseTransaction) { reply(SingleAnswer(r)[0].Partitions[0].ErrorCode) })
	}, func(code int16) {
		p.later(func() {
			switch {
			case code == 0:
				p.added[v.p.n] = true
				p.write(v, done)
			case isRetriable(code):
				p.add(v, done)
			default:
				done(code)
			}
		})
	})
}

// lostEpoch is what a producer does that is told that its epoch is old. It may have timed out, and then can
// abort to be sure, or ask for its next epoch.
func (p *producer) lostEpoch(what string, code int16) {
	switch {
	case code == invalidProducerIDMapping || p.w.chance(0.3):
		p.fenced(what, code)
	case p.bumps:
		p.later(func() { p.end(false) })
	default:
		p.later(func() { p.initialise(p.has) })
	}
}

// end commits or aborts the transaction.
func (p *producer) end(commit bool) {
	t, has := p.t, p.has
	var next producerEpoch
	op := func(m *Machine, s *coord.Step, reply func(int16)) {
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.Commit = 4, p.id, commit
		if p.bumps {
			req.Version = 5
		}
		req.ProducerID, req.ProducerEpoch = has.id, has.epoch
		m.EndTxn(s, req, func(r *kmsg.EndTxnResponse) {
			next = producerEpoch{r.ProducerID, r.ProducerEpoch}
			reply(r.ErrorCode)
		})
	}
	if p.bumps {
		p.w.sendTwice(func() { p.ask("late end", op, func(int16) {}) })
	}
	p.ask("end", op, func(code int16) {
		switch {
		case code == 0:
			t.outcome = toldAborted
			if commit {
				t.outcome = toldCommitted
			}
			if p.bumps {
				p.has = next
			}
			p.ended()
		case isRetriable(code):
			p.later(func() { p.end(commit) })
		case code == invalidTxnState && commit:
			t.outcome = toldAborted
			p.refused()
		default:
			p.lostEpoch("end", code)
		}
	})
}

// ended goes on after a transaction.
func (p *producer) ended() {
	if p.w.chance(0.1) && !p.w.healing {
		p.later(func() { p.initialise(p.has) })
		return
	}
	p.later(p.begin)
}

// refused goes on after a commit that is not possible: there was nothing to commit, or it was aborted.
func (p *producer) refused() {
	if p.bumps {
		p.later(func() { p.end(false) })
		return
	}
	p.later(func() { p.initialise(p.has) })
}

func (pe producerEpoch) String() string { return fmt.Sprintf("%d/%d", pe.id, pe.epoch) }
