package sim

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/record"
)

// isHealed tells whether all transactions have ended.
func (x *transactions) isHealed() error {
	if x.isVoid {
		return nil
	}
	for _, p := range x.c.truth.parts {
		x.c.concerned = p.index
		r := x.c.node(p.now().Leader).replica(p)
		if p.isCoordinators() {
			if r.machine == nil || !r.machine.active {
				return fmt.Errorf("the machine of %s-%d does not serve", p.name, p.number)
			}
			for state, n := range r.machine.counts.States() {
				if n > 0 && slices.Contains([]string{"Ongoing", "PrepareCommit", "PrepareAbort"}, state) {
					return fmt.Errorf("%d transactions of %s-%d are in the state %s", n, p.name, p.number, state)
				}
			}
		}
		if stable := r.log.stableEnd(r.log.End()); stable < r.log.End() {
			return fmt.Errorf("a transaction is open in %s-%d: the last stable offset is %d of %d", p.name, p.number, stable, r.log.End())
		}
	}
	x.c.concerned = 0
	return nil
}

// checkEnd proves, when the cluster has healed, that each transaction has ended in one way, that it is what its client was
// told, and that readers have seen all of those that were committed and nothing else.
func (x *transactions) checkEnd() {
	if x.isVoid {
		return
	}
	visible := map[*partition][]*txnValue{}
	for _, p := range x.c.truth.parts {
		if p.name == outputTopic {
			visible[p] = x.decide(p)
		}
	}
	for _, t := range x.attempts {
		x.checkAttempt(t)
	}
	for _, k := range x.readers {
		p := k.partition()
		if !slices.Equal(k.seen, visible[p]) {
			p.fail("a reader has seen %v, and committed are %v", k.seen, visible[p])
		}
	}
	x.checkPipelines(visible)
}

// decide finds the values of a partition whose transactions are committed, in order, without the rules that the engine has.
func (x *transactions) decide(p *partition) []*txnValue {
	open := map[int64][]*txnValue{}
	committed := map[*txnValue]bool{}
	var all []*txnValue
	for o := range p.end() {
		ct := x.c.contentOf(p.committed[o].Value)
		id := ct.batch.ProducerID()
		if !ct.batch.Control() {
			if ct.value.at != unplaced {
				p.fail("%v is at %d and at %d", ct.value, ct.value.at, o)
			}
			ct.value.at = o
			if n := len(open[id]); n > 0 && open[id][n-1].t != ct.value.t {
				p.fail("%v at %d comes while transaction %d of its producer is open", ct.value, o, open[id][n-1].t.number)
			}
			open[id], all = append(open[id], ct.value), append(all, ct.value)
			continue
		}
		m, err := record.ReadMarker(ct.batch)
		x.c.must(err)
		for _, v := range open[id] {
			committed[v] = m.Commit
			if v.t.isDecided && v.t.committed != m.Commit {
				p.fail("transaction %d of %s is torn: whether the marker at %d commits it is %v, and another one has said %v", v.t.number, v.t.k.name, o, m.Commit, v.t.committed)
			}
			v.t.isDecided, v.t.committed = true, m.Commit
		}
		delete(open, id)
	}
	return slices.DeleteFunc(all, func(v *txnValue) bool { return !committed[v] })
}

// checkAttempt proves that a transaction has become what its client was told.
func (x *transactions) checkAttempt(t *attempt) {
	if t.isDecided && t.committed {
		x.c.saw("transaction committed")
		if t.outcome == toldAborted {
			x.c.fail(0, "%s was told that transaction %d is aborted, but it is committed", t.k.name, t.number)
		}
	}
	for i, v := range t.values {
		if v.acked && v.at == unplaced {
			v.part.fail("%v was acknowledged and is lost", v)
		}
		if t.isDecided && t.committed && v.at == unplaced {
			v.part.fail("%v is lost, and its transaction is committed", v)
		}
		if t.outcome == toldCommitted && !t.committed {
			v.part.fail("%s was told that transaction %d is committed, and %v is not", t.k.name, t.number, v)
		}
		if i > 0 && v.at != unplaced {
			for _, before := range t.values[:i] {
				if before.part == v.part && before.at > v.at {
					v.part.fail("%v is before %v", v, before)
				}
			}
		}
	}
}

// checkPipelines proves that pipelines have made one visible record of each of the input, in order for each partition.
func (x *transactions) checkPipelines(visible map[*partition][]*txnValue) {
	made := map[uint64]*txnValue{}
	for _, p := range x.c.truth.parts {
		for _, v := range visible[p] {
			if v.source == 0 {
				continue
			}
			if before := made[v.source]; before != nil {
				p.fail("%v and %v are both made of the record %x of the input", before, v, v.source)
			}
			made[v.source] = v
		}
	}
	for _, p := range x.c.truth.parts {
		if p.name != inputTopic {
			continue
		}
		for o, e := range p.committed {
			if made[e.Value] == nil {
				p.fail("nothing is made of the record %x of the input at %d", e.Value, o)
			}
		}
	}
}

// nameOfCode names a code.
func nameOfCode(code int16) string {
	switch code {
	case noAnswer:
		return "no answer"
	case none:
		return "ok"
	}
	return kerr.TypedErrorForCode(code).Message
}

// injectAtStep sometimes ends the leader of a coordinator's partition soon after a step, between that and the next one.
func (x *transactions) injectAtStep(r *replica) bool {
	c := x.c
	if c.healing || !c.chance(0.01) {
		return false
	}
	n, life := r.n, r.n.life
	c.after(c.random(5*ms), func() {
		if n.up && n.life == life && c.survivesLoss(n, n.disk.hasCached) {
			c.note(note{what: "FAULT: it dies between two steps", node: n.id})
			c.faults++
			c.endNode(n, n.kill)
		}
	})
	return true
}
