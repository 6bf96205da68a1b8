package progress

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// checker knows what was promised, and compares it with what there is.
type checker struct {
	w         *world
	committed []memlog.Entry // by offset: all that was ever below a high watermark
	leaders   map[record.Epoch]*node
	shown     map[record.Epoch]record.Offset // the highest high watermark that readers saw, by leader epoch
	highest   map[*node]watermark
	trimmed   record.Offset // clients were told that all records below it are deleted
	cuts      []pastCut
	ackCount  int
	err       error
}

// watermark is the last high watermark of a replica, in one life of its node.
type watermark struct {
	life int
	log  *memlog.Log
	cut  int32
	hw   record.Offset
}

func newChecker(w *world) *checker {
	return &checker{w: w, leaders: map[record.Epoch]*node{}, shown: map[record.Epoch]record.Offset{}, highest: map[*node]watermark{}}
}

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
		c.w.note("failure: %v", c.err)
	}
}

// step checks the world after an event.
func (c *checker) step() {
	for _, n := range c.w.nodes {
		if n.up && n.leader != nil {
			c.commit(n)
		}
	}
	for _, n := range c.w.nodes {
		if n.up {
			c.checkWatermark(n)
		}
		c.checkEqual(n, min(n.log.HighWatermark(), c.limitOf(n)), "below its high watermark")
		c.checkTails(n)
	}
	img := &c.w.ctl.now
	for _, id := range slices.Concat(img.ISR, img.Eligible) {
		n := c.w.node(id)
		if n.tainted {
			continue
		}
		end := record.Offset(len(c.committed))
		if limit := c.limitOf(n); end > limit {
			c.fail("node %d is in sync or eligible, and has not made the cut at %d, but there are committed records up to %d", id, limit, end)
			return
		}
		if have := n.log.Committed(); have < end {
			c.fail("node %d is in sync or eligible with its records below %d, but there are committed ones up to %d", id, have, end)
			return
		}
		c.checkEqual(n, end, "though it is in sync or eligible")
	}
}

// commit takes what a leader has committed.
func (c *checker) commit(n *node) {
	hw := min(n.leader.HighWatermark(), c.limitIn(n.leader.Epoch()))
	from := record.Offset(len(c.committed))
	if hw <= from {
		return
	}
	es, err := n.log.Read(from, int(hw-from))
	if err != nil || len(es) != int(hw-from) {
		c.fail("node %d commits up to %d what it does not have: it has %d to %d, and %d was committed", n.id, hw, n.log.Start(), n.log.End(), from)
		return
	}
	c.committed = append(c.committed, es...)
	c.w.seen["committed records"] += len(es)
}

// checkWatermark proves that a high watermark is not above the log's end and does not fall while
// the node lives.
func (c *checker) checkWatermark(n *node) {
	now := watermark{n.life, n.log, n.log.CutNumber(), n.log.HighWatermark()}
	if now.hw > n.log.End() || min(now.hw, c.limitOf(n)) > record.Offset(len(c.committed)) {
		c.fail("node %d has the high watermark %d, but its end is %d and %d records are committed", n.id, now.hw, n.log.End(), len(c.committed))
	}
	was, ok := c.highest[n]
	if ok && was.life == now.life && was.log == now.log && was.cut == now.cut && now.hw < was.hw {
		c.fail("the high watermark of node %d falls from %d to %d", n.id, was.hw, now.hw)
	}
	c.highest[n] = now
}

// checkEqual proves that a log has the committed records below an offset.
func (c *checker) checkEqual(n *node, below record.Offset, why string) {
	start := n.log.Start()
	es, err := n.log.Read(start, int(max(0, below-start)))
	if err != nil {
		c.fail("node %d: %v", n.id, err)
	}
	for i, e := range es {
		o := start + record.Offset(i)
		if int(o) >= len(c.committed) || c.committed[o] != e {
			c.fail("node %d has %v at %d %s, which is not what was committed", n.id, e, o, why)
			return
		}
	}
}

// leads takes that a node begins to lead.
func (c *checker) leads(n *node, epoch record.Epoch) {
	if other, ok := c.leaders[epoch]; ok {
		c.fail("nodes %d and %d lead in epoch %d", other.id, n.id, epoch)
	}
	c.leaders[epoch] = n
	if int32(epoch) != c.w.ctl.now.leaderEpoch { // it is behind with the metadata, and the epoch has ended
		return
	}
	if limit := c.limitOf(n); limit < math.MaxInt64 {
		c.fail("node %d leads in epoch %d and has not made the cut at %d", n.id, epoch, limit)
	}
	if end := n.log.End(); end < record.Offset(len(c.committed)) {
		c.fail("node %d leads in epoch %d from %d, but %d records are committed", n.id, epoch, end, len(c.committed))
	}
	if start := n.log.Start(); start < c.trimmed {
		c.fail("node %d leads in epoch %d with records from %d on, but clients were told that those below %d are deleted", n.id, epoch, start, c.trimmed)
	}
}

// acked takes an acknowledgement with acks=all.
func (c *checker) acked(n *node, b batch) {
	c.ackCount++
	c.w.seen["acknowledgement"]++
	img := c.w.ctl.images[n.applied-1]
	inSync := slices.Clone(img.ISR)
	if n.propAt == img.PartitionEpoch {
		inSync = append(inSync, n.proposed...)
	}
	slices.Sort(inSync)
	if len(slices.Compact(inSync)) < img.needed() {
		c.fail("node %d acknowledges %d with too few in sync: %v", n.id, b.first, img.ISR)
	}
	c.commit(n)
	if b.end > c.limitIn(n.leader.Epoch()) {
		c.w.seen["acknowledgement beyond a cut"]++
		return // this leader does not know of it yet
	}
	if b.end > record.Offset(len(c.committed)) || !slices.Equal(c.committed[b.first:b.end], b.entries) {
		c.fail("node %d acknowledges records at %d that are not committed", n.id, b.first)
	}
}

// readerSaw takes what a reader was told by a leader. A reader that has seen a high watermark
// must not see a lower one from that leader or a later one.
func (c *checker) readerSaw(n *node, hw record.Offset) {
	c.w.seen["reader served"]++
	epoch := n.leader.Epoch()
	hw = min(hw, c.limitIn(epoch))
	for e, seen := range c.shown {
		if e <= epoch && hw < seen {
			c.fail("the leader of epoch %d tells readers of the high watermark %d, that of epoch %d told them of %d", epoch, hw, e, seen)
		}
	}
	c.shown[epoch] = max(hw, c.shown[epoch])
}

// survivesWithout tells whether a node may lose its page cache: it is the only one that has
// lost it, fewer than min.insync.replicas, and another one is in sync or eligible.
func (c *checker) survivesWithout(id int32) bool {
	img := &c.w.ctl.now
	return !slices.ContainsFunc(c.w.nodes, func(n *node) bool { return n.tainted }) &&
		slices.ContainsFunc(slices.Concat(img.ISR, img.Eligible), func(m int32) bool { return m != id })
}

var errNotEqual = errors.New("the replicas are not equal")

// isHealed tells whether all replicas are in sync and equal.
func (c *checker) isHealed() error {
	img := &c.w.ctl.now
	if img.leader < 0 {
		return fmt.Errorf("nobody leads; in sync %v, eligible %v", img.ISR, img.Eligible)
	}
	alive := without(img.Replicas, c.w.dead)
	if len(img.ISR) < len(alive) || len(img.Adding) > 0 {
		return fmt.Errorf("in sync are %v of %v, %v are being added", img.ISR, img.Replicas, img.Adding)
	}
	l := c.w.node(img.leader)
	if l.leader == nil || int32(l.leader.Epoch()) != img.leaderEpoch {
		return fmt.Errorf("node %d does not lead in epoch %d", l.id, img.leaderEpoch)
	}
	if hw, ok := l.leader.Readable(); !ok || hw < l.log.End() {
		return fmt.Errorf("the high watermark is %d of %d", hw, l.log.End())
	}
	for _, id := range alive {
		n := c.w.node(id)
		if n.log.CutNumber() != img.cuts.LastCut().Number {
			return fmt.Errorf("%w: node %d has made the cuts up to %d of %+v", errNotEqual, id, n.log.CutNumber(), img.cuts)
		}
		if n.log.End() != l.log.End() || n.log.HighWatermark() != n.log.End() || n.log.Durable() != n.log.End() || n.log.Start() < l.log.Start() { // one that led may have deleted more
			return fmt.Errorf("%w: node %d ends at %d, the high watermark is %d, it begins at %d; the leader ends at %d and begins at %d",
				errNotEqual, id, n.log.End(), n.log.HighWatermark(), n.log.Start(), l.log.End(), l.log.Start())
		}
	}
	return nil
}
