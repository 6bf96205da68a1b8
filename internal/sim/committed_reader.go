package sim

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// committedReader reads what is committed of a partition of the output, from its leader or from any replica. It
// does what Kafka's clients do with the list of aborted transactions that comes with the records.
type committedReader struct {
	c         *cluster
	number    int32
	followers bool
	at        record.Offset
	seen      []*txnValue
	stable    []shownEnd // the last stable offsets that the leaders have told
}

func (k *committedReader) start() { k.c.after(k.c.random(80*ms), k.act) }

func (k *committedReader) partition() *partition { return k.c.truth.find(outputTopic, k.number) }

func (k *committedReader) isDone() error {
	p := k.partition()
	if p == nil || k.c.txns.isVoid || k.at >= p.end() {
		return nil
	}
	return fmt.Errorf("%w: a reader of what is committed is at %d of %d in %s-%d", errNotConsumed, k.at, p.end(), outputTopic, k.number)
}

func (k *committedReader) act() {
	c := k.c
	c.after(8*ms+c.random(30*ms), k.act)
	p := k.partition()
	if p == nil {
		return
	}
	to := c.guessLeader(p)
	if k.followers && c.chance(0.8) {
		if n := c.anyNode(); n != nil {
			to = n.id
		}
	}
	if to == 0 {
		return
	}
	c.net.send(firstClient, to, "consume what is committed", func() {
		r := c.node(to).replica(p)
		switch {
		case r == nil:
		case r.leader != nil:
			if hw, ok := r.leader.Readable(); ok {
				stable := r.log.stableEnd(hw)
				k.noteStable(p, r.leader.Epoch(), stable)
				k.read(r, hw, stable)
			}
		case k.followers && r.follower != nil:
			hw := r.follower.HighWatermark()
			k.read(r, hw, r.log.stableEnd(hw))
		}
	})
}

// noteStable takes the last stable offset that a leader tells: it never goes back.
func (k *committedReader) noteStable(p *partition, epoch record.Epoch, stable record.Offset) {
	if k.c.txns.isVoid {
		return
	}
	at := -1
	for i, s := range k.stable {
		if s.epoch <= epoch && stable < s.hw {
			p.fail("the leader of epoch %d tells the last stable offset %d, and that of epoch %d has told %d", epoch, stable, s.epoch, s.hw)
		}
		if s.epoch == epoch {
			at = i
		}
	}
	if at < 0 {
		k.stable = append(k.stable, shownEnd{epoch, stable})
		return
	}
	k.stable[at].hw = max(k.stable[at].hw, stable)
}

// read reads some records below the last stable offset.
func (k *committedReader) read(r *replica, hw, stable record.Offset) {
	c := k.c
	if stable < hw {
		c.saw("reader held back")
	}
	es := r.readFrom(k.at, stable, 1+c.rng.IntN(20))
	if len(es) == 0 {
		return
	}
	upper := k.at + record.Offset(len(es))
	aborted := transaction.Find(r.log.transactions().view.Aborted(), k.at, upper)
	slices.SortStableFunc(aborted, func(a, b transaction.Abort) int { return cmp.Compare(a.First, b.First) })
	k.take(es, aborted)
	if r.leader == nil {
		c.saw("committed records read from a follower")
	}
}

// take shows the records that are not of aborted transactions.
func (k *committedReader) take(es []memlog.Entry, aborted []transaction.Abort) {
	c := k.c
	skipped := map[int64]bool{}
	for _, e := range es {
		for len(aborted) > 0 && aborted[0].First <= k.at {
			skipped[aborted[0].Producer] = true
			aborted = aborted[1:]
		}
		k.at++
		ct := c.contentOf(e.Value)
		switch {
		case ct.batch.Control():
			delete(skipped, ct.batch.ProducerID())
		case skipped[ct.batch.ProducerID()]:
			c.saw("aborted record skipped")
		default:
			c.saw("committed record read")
			k.seen = append(k.seen, ct.value)
		}
	}
}
