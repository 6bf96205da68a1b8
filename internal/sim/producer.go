package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/record"
)

// produceOutcome is what a producer is told.
type produceOutcome uint8

const (
	acknowledged      produceOutcome = iota
	notLeader                        // also if nobody has answered
	tooFewInSync                     // nothing was appended
	tooFewAfterAppend                // the records may be kept or not
	outOfOrder                       // the sequence does not follow the one before
)

var (
	errNoOffsets    = errors.New("the coordinator of committed offsets does not answer")
	errNotProduced  = errors.New("a producer is not answered")
	errNotConsumed  = errors.New("a consumer has not read all records")
	errNotConverged = errors.New("the replicas are not equal")
)

// producer sends records to one partition, one request at a time. An idempotent one gives each record
// a sequence, and sends a request again until it is acknowledged.
type producer struct {
	c          *cluster
	topic      string
	number     int32
	acksAll    bool
	idempotent bool

	id       uint32 // producer id
	next     uint32 // sequence of the next new record
	request  []uint64
	attempts int
	since    int // events since all faults ended, when it was acknowledged last
}

// firstSequence is not zero, so that a value is never zero.
const firstSequence = 1

func (p *producer) start() {
	p.renew()
	p.c.after(p.c.random(60*ms), p.act)
}

// renew gives the producer a new id.
func (p *producer) renew() {
	p.c.values++
	p.id, p.next, p.request = p.c.values+firstProducer, firstSequence, nil
	if p.idempotent && p.acksAll {
		p.c.strict[p.id] = true
	}
}

// Ids below firstProducer are those of consumer groups.
const firstProducer = 1000

func (p *producer) partition() *partition { return p.c.truth.find(p.topic, p.number) }

func (p *producer) isDone() error {
	if p.partition() == nil || p.since > 0 {
		return nil
	}
	return fmt.Errorf("%w: it sends %d to %s-%d", errNotProduced, p.request, p.topic, p.number)
}

// act sends the next request, or the one before again.
func (p *producer) act() {
	c := p.c
	part := p.partition()
	if part == nil {
		c.after(30*ms, p.act)
		return
	}
	if c.healing && p.since > 3 && len(p.request) == 0 {
		return
	}
	if len(p.request) == 0 {
		p.attempts = 0
		for range 1 + c.rng.IntN(3) {
			p.request = append(p.request, valueOf(p.id, p.next))
			p.next++
		}
	}
	p.attempts++
	values, open := p.request, true
	end := func(o produceOutcome) {
		if open {
			open = false
			p.take(o)
		}
	}
	c.after(answerTimeout+c.random(50*ms), func() { end(notLeader) })
	to := c.guessLeader(part)
	if to == 0 {
		return
	}
	c.net.send(firstClient, to, "produce", func() {
		n := c.node(to)
		n.takeProduce(part, values, p, func(o produceOutcome) {
			c.net.send(to, firstClient, "produced", func() { end(o) })
		})
		n.act()
	})
}

// isWaitingFor tells whether a request is the present one, and not a late copy.
func (p *producer) isWaitingFor(values []uint64) bool { return slices.Equal(p.request, values) }

// take takes the outcome of a request.
func (p *producer) take(o produceOutcome) {
	c := p.c
	pause := c.random(12 * ms)
	switch o {
	case acknowledged:
		c.saw("record acknowledged")
		p.request = nil
		if c.txns != nil { // a pipeline makes a transaction of a few records
			pause += c.random(200 * ms)
		}
		if c.healing {
			p.since++
		}
	case outOfOrder:
		c.saw("sequence out of order")
		if !p.acksAll || p.attempts > 10 { // a leader that is replaced may say it, too
			p.renew()
		}
		pause += 20 * ms
	case notLeader, tooFewInSync, tooFewAfterAppend:
		pause += 10*ms + c.random(30*ms)
		if !p.idempotent { // it is another record for the checks
			for i := range p.request {
				p.request[i] = valueOf(p.id, p.next)
				p.next++
			}
			if p.attempts > 3 {
				p.request = nil
			}
		}
	}
	c.after(pause, p.act)
}

// guessLeader asks any node who leads a partition; 0: nobody knows.
func (c *cluster) guessLeader(p *partition) int32 {
	n := c.anyNode()
	if n == nil {
		return 0
	}
	if mp := p.in(n.image); mp != nil && mp.Leader > 0 {
		return mp.Leader
	}
	return 0
}

// takeProduce appends a producer's records if this node leads. Each record is a batch of its own.
func (n *node) takeProduce(part *partition, values []uint64, p *producer, answer func(produceOutcome)) {
	r := n.replica(part)
	if r == nil || r.leader == nil {
		answer(notLeader)
		return
	}
	if p.acksAll && !r.leader.EnoughInSync() {
		n.c.saw("append refused: too few in sync")
		answer(tooFewInSync)
		return
	}
	end, outcome := r.appendSequences(values, p.idempotent)
	if outcome == outOfOrder && p.acksAll && p.isWaitingFor(values) && part.isLed(r) && !part.isLossy() && !part.copies.lacks(n.id) {
		part.fail("the sequence of %x is out of order, though all before it was acknowledged", values)
	}
	if outcome != acknowledged {
		answer(outcome)
		return
	}
	r.waiting = append(r.waiting, &ackWait{end, p.acksAll, answer})
}

// keptBatches is how many of a producer's last batches are recognised.
const keptBatches = 5

// appendSequences appends the values that are not there yet, by storage's rules for sequences, and
// returns the end of the last one.
func (r *replica) appendSequences(values []uint64, idempotent bool) (end record.Offset, o produceOutcome) {
	for _, v := range values {
		last, known := r.log.producers.state[producerOf(v)]
		seq := sequenceOf(v)
		switch {
		case !idempotent || !known || seq == last.sequence+1:
			end = r.append(v) + 1
		case seq <= last.sequence && seq+keptBatches > last.sequence:
			r.n.c.saw("duplicate recognised")
			end = r.offsetOf(v, last) + 1
		default:
			return 0, outOfOrder
		}
	}
	return end, acknowledged
}

// offsetOf finds the offset of a producer's record before its last one. Records that are deleted had
// lower offsets than those that are left.
func (r *replica) offsetOf(value uint64, last lastSequence) record.Offset {
	for o := last.offset; o >= r.log.Start(); o-- {
		if e, ok := r.log.EntryAt(o); ok && e.Value == value {
			return o
		}
	}
	return r.log.Start() - 1
}
