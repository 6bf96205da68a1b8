package broker

import (
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/replica"
)

// collected are Produce requests whose batches are appended together, with one write for each partition. A session
// has one for the requests of a read, and a request that was held has one of its own. One goroutine at a time
// uses it.
type collected struct {
	b            *Broker
	queue        []*produce           // in order
	appends      replica.Appends      // the batches of the requests in queue
	recompressed []budget.Reservation // the memory of those batches that were recompressed
}

// collect checks the batches of a request, and adds them.
func (c *collected) collect(p *produce) {
	c.queue = append(c.queue, p)
	now := time.Now().UnixMilli()
	for j := range p.parts {
		q := &p.parts[j]
		if q.code != none {
			continue
		}
		err := p.checkBatch(q, now)
		if err == nil {
			err = c.recompress(p, q)
		}
		if err != nil {
			p.refusePartition(q, err)
			continue
		}
		c.appends.Add(q.part, q.batch, p.replicaAcks(), p, int32(j))
	}
}

// writeAppends appends the collected batches, and gives back the memory of those that were
// recompressed.
func (c *collected) writeAppends() {
	c.appends.Write()
	c.releaseRecompressed()
}

func (c *collected) releaseRecompressed() {
	for i := range c.recompressed {
		c.recompressed[i].Release()
	}
	c.recompressed = c.recompressed[:0]
}

// answerOrWait answers the requests whose batches were written, as far as their answers do not depend on the commit, and
// counts what was stored.
func (c *collected) answerOrWait() {
	var bytes, records int64
	for i, p := range c.queue {
		bytes, records = bytes+p.bytes, records+p.stored
		p.answerOrWait()
		c.queue[i] = nil
	}
	c.b.stats.bytesIn.Add(bytes)
	c.b.stats.recordsIn.Add(records)
}

// drop forgets the batches that are not appended, which may be overwritten by now.
func (c *collected) drop() {
	c.appends.Drop()
	c.releaseRecompressed()
	for _, p := range c.queue {
		if p != nil {
			p.memory.Release()
		}
	}
}
