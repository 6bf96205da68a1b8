package txn

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/coord"
)

// checker checks what was promised.
type checker struct {
	w          *world
	attempts   []*attempt
	owners     map[string]*producer        // who has got an epoch last, by transactional id
	grants     map[producerEpoch]*producer // who has got which epoch
	states     map[string]state            // by the committed records
	used       map[int64]string            // the transactional id that has had a producer id
	over       map[producerEpoch]string    // epochs that were ended by a higher one, and how
	sentAs     map[string]Decision         // by id and offset
	decided    map[*attempt]valueState     // by the first of its values
	inits      map[*producer]int           // when a producer has asked for an epoch last
	since      map[string]int              // when the owner has asked for its own, by transactional id
	unanswered int                         // requests that have come to a coordinator and have no answer
	upTo       int                         // the committed records that were looked at
}

func newChecker(w *world) *checker {
	return &checker{
		w: w, owners: map[string]*producer{}, grants: map[producerEpoch]*producer{}, states: map[string]state{},
		used: map[int64]string{}, over: map[producerEpoch]string{}, sentAs: map[string]Decision{}, decided: map[*attempt]valueState{}, inits: map[*producer]int{}, since: map[string]int{},
	}
}

// granted takes that a producer gets the epoch for which it has asked. No other one has it, or had a later one.
func (c *checker) granted(p *producer, asked int, has, got producerEpoch) {
	if got.epoch > 32766 || got.epoch < 0 {
		c.w.fail("%s gets %v", p.name, got)
	}
	if other := c.grants[got]; other != nil && other != p {
		c.w.fail("%s and %s get %v", other.name, p.name, got)
	}
	if has.id != noProducer && got.id != has.id {
		c.w.seen["another producer id by init"]++
	}
	c.grants[got] = p
	c.owners[p.id], c.since[p.id] = p, asked
}

// refusedInit takes that a producer that says what it has gets no epoch. That is right only if another one
// has come.
func (c *checker) refusedInit(p *producer, code int16) {
	if code != producerFenced || c.owners[p.id] != p {
		return
	}
	for other, asked := range c.inits {
		if other.id == p.id && other != p && asked > c.since[p.id] {
			return
		}
	}
	c.w.fail("%s gets no epoch, although nobody else has asked for one", p.name)
}

// accepted takes that something of a producer is taken.
func (c *checker) accepted(p *producer, what string) {
	if owner := c.owners[p.id]; owner != nil && owner != p {
		c.w.fail("%s was fenced by %s, but %s of it is taken", p.name, owner.name, what)
	}
}

// committedUpTo looks at the records that are committed: epochs never go back, rise one by one, and an
// epoch that was ended by a higher one has no further decision.
func (c *checker) committedUpTo(end int) {
	for ; c.upTo < end; c.upTo++ {
		r := c.w.co.log[c.upTo]
		id, err := decodeKey(r.Key)
		if err != nil {
			c.w.fail("record %d: %v", c.upTo, err)
			return
		}
		before, known := c.states[id]
		if r.Value == nil {
			c.w.seen["expired"]++
			if known && !before.isIdle() {
				c.w.fail("record %d deletes %s, which is %v", c.upTo, id, before.status)
			}
			delete(c.states, id)
			continue
		}
		st, err := decodeValue(r.Value)
		if err != nil {
			c.w.fail("record %d: %v", c.upTo, err)
			return
		}
		c.w.note("committed %d: %s %v %d/%d", c.upTo, id, st.status, st.producer, st.epoch)
		c.w.seen[fmt.Sprintf("%v to %v", before.status, st.status)]++
		c.checkEpochs(id, before, st, known)
		if st.isEnding() || before.status == ongoing && st.isIdle() {
			c.checkDecision(id, before, st)
		}
		c.states[id] = st
	}
}

func (c *checker) checkEpochs(id string, before, st state, known bool) {
	switch {
	case known && st.producer == before.producer:
		if st.epoch < before.epoch || st.epoch > before.epoch+1 {
			c.w.fail("record %d: the epoch of %s goes from %d to %d", c.upTo, id, before.epoch, st.epoch)
		}
	case c.used[st.producer] != "":
		c.w.fail("record %d: %s gets the producer id %d again, which %s has had", c.upTo, id, st.producer, c.used[st.producer])
	case known && before.epoch < exhausted:
		c.w.fail("record %d: %s gets the producer id %d though its epoch is %d", c.upTo, id, st.producer, before.epoch)
	case known:
		c.w.seen["another producer id"]++
	}
	c.used[st.producer] = id
}

func (c *checker) checkDecision(id string, before, st state) {
	pe := producerEpoch{before.producer, before.epoch}
	how := fmt.Sprintf("%v in record %d", st.status, c.upTo)
	if first := c.over[pe]; first != "" {
		c.w.fail("the transaction of %s with %v is %s, but was %s", id, pe, how, first)
	}
	if st.version == bumpEpoch {
		c.over[pe] = how
		if st.epoch == 32767 {
			c.w.seen["decision at the last epoch"]++
		}
	}
	if before.status == ongoing && !st.isEnding() {
		c.w.fail("record %d: %s goes from Ongoing to %v", c.upTo, id, st.status)
	}
}

// sent takes a decision that goes out. It must be committed, and always the same.
func (c *checker) sent(d Decision) {
	if int(d.Offset) > c.upTo {
		c.w.fail("the decision at %d is sent before it is committed", d.Offset)
	}
	key := fmt.Sprintf("%s %d", d.TransactionalID, d.Offset)
	first, ok := c.sentAs[key]
	if !ok {
		c.sentAs[key] = d
		return
	}
	c.w.seen["decision sent again"]++
	if first.Commit != d.Commit || first.ProducerID != d.ProducerID || first.ProducerEpoch != d.ProducerEpoch || first.Version != d.Version {
		c.w.fail("a decision is %+v, and later %+v", first, d)
	}
}

// ended takes that a marker has ended a value: all values of a transaction end in the same way.
func (c *checker) ended(v *value) {
	first, ok := c.decided[v.t]
	if !ok {
		c.decided[v.t] = v.state
		return
	}
	if first != v.state {
		c.w.fail("transaction %d of %s is torn: one value is %d, another one %d", v.t.n, v.t.p.name, first, v.state)
	}
}

// checkReload proves that the log gives the state that the machine has, also when it was compacted. Of a
// transaction that ends, partitions with a marker may be missing in the machine.
func (c *checker) checkReload() {
	last := map[string]coord.Record{}
	for _, r := range c.w.co.log {
		last[string(r.Key)] = r
	}
	var compacted []coord.Record
	for _, key := range slices.Sorted(maps.Keys(last)) {
		compacted = append(compacted, last[key])
	}
	live := c.w.co.m
	for how, log := range map[string][]coord.Record{"log": c.w.co.log, "compacted log": compacted} {
		again, _ := c.w.co.loadLog(log, func(Decision) {})
		if len(again.ids) != len(live.ids) {
			c.w.fail("the machine has %d ids, the %s gives %d", len(live.ids), how, len(again.ids))
		}
		for id, t := range live.ids {
			other := again.ids[id]
			if other == nil {
				c.w.fail("the %s does not give %s", how, id)
				return
			}
			a, b := t.state, other.state
			if a.isEnding() && b.partitions.hasAll(a.partitions) {
				a.partitions, b.partitions = nil, nil
			}
			if diff := cmp.Diff(a, b, cmp.AllowUnexported(state{})); diff != "" {
				c.w.fail("%s (-machine +%s):\n%s", id, how, diff)
			}
		}
	}
}

// isHealed tells whether all transactions have ended.
func (c *checker) isHealed() error {
	if !c.w.co.up {
		return fmt.Errorf("the coordinator is down")
	}
	if c.unanswered != 0 {
		return fmt.Errorf("%d requests have no answer", c.unanswered)
	}
	for id, t := range c.w.co.m.ids {
		if !t.isIdle() {
			return fmt.Errorf("%s is %v", id, t.status)
		}
	}
	for _, p := range c.w.parts {
		for id, st := range p.states {
			if len(st.open) > 0 && !p.gone {
				return fmt.Errorf("a transaction of the producer id %d is open in partition %d", id, p.n)
			}
		}
	}
	return nil
}

// checkEnd proves that each transaction has become what its producer was told.
func (c *checker) checkEnd() {
	c.checkReload()
	for _, t := range c.attempts {
		committed := 0
		for _, v := range t.values {
			if v.p.gone {
				continue
			}
			if v.state == valueCommitted {
				committed++
			}
			if t.outcome == toldCommitted && v.acked && v.state != valueCommitted {
				c.w.fail("%s was told that transaction %d is committed, but an acknowledged value is %d", t.p.name, t.n, v.state)
			}
			if t.outcome == toldAborted && v.state == valueCommitted {
				c.w.fail("%s was told that transaction %d is aborted, but a value is committed", t.p.name, t.n)
			}
		}
		if committed > 0 {
			c.w.seen["committed transaction"]++
		}
	}
}
