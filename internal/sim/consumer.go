package sim

import (
	"fmt"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// consumer reads a partition from its leader or, if it may, from any replica. It asks for the end of
// the partition now and then.
type consumer struct {
	c         *cluster
	topic     string
	number    int32
	followers bool
	at        record.Offset
}

func (k *consumer) start() { k.c.after(k.c.random(80*ms), k.act) }

func (k *consumer) partition() *partition { return k.c.truth.find(k.topic, k.number) }

func (k *consumer) isDone() error {
	p := k.partition()
	if p == nil || p.isLossy() || k.at >= p.end() {
		return nil
	}
	return fmt.Errorf("%w: it is at %d of %d in %s-%d", errNotConsumed, k.at, p.end(), k.topic, k.number)
}

func (k *consumer) act() {
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
	c.net.send(firstClient, to, "consume", func() {
		r := c.node(to).replica(p)
		switch {
		case r == nil:
		case r.leader != nil:
			k.readLeader(p, r)
		case k.followers && r.follower != nil:
			k.read(p, r, r.follower.HighWatermark())
		}
	})
}

// readLeader reads from the leader, if it can tell a high watermark.
func (k *consumer) readLeader(p *partition, r *replica) {
	hw, ok := r.leader.Readable()
	if !ok {
		k.c.saw("not readable yet")
		return
	}
	p.noteShown(r, hw)
	k.read(p, r, hw)
}

// read reads records below a high watermark. Those that were lost by an unclean election are not
// compared.
func (k *consumer) read(p *partition, r *replica, hw record.Offset) {
	c := k.c
	if start := r.log.Start(); k.at < start {
		k.at = start
	}
	es := r.readFrom(k.at, hw, 1+c.rng.IntN(20))
	if len(es) == 0 {
		return
	}
	c.saw("records consumed")
	if r.leader == nil {
		c.saw("records consumed from a follower")
	}
	if p.isTrusted(r.log) {
		k.compare(p, r, es)
	}
	k.at += record.Offset(len(es))
}

func (k *consumer) compare(p *partition, r *replica, es []memlog.Entry) {
	for i, e := range es {
		o := k.at + record.Offset(i)
		if o >= p.end() && !p.isLossy() || o < p.end() && !p.hasCommitted(r.log, o) {
			k.c.fail(p.index, "a consumer gets %x at %d of node %d, which is not what was committed", e.Value, o, r.n.id)
			return
		}
	}
}
