package progress

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// recently is how long ago at most something was at the source that a mirror has acted on.
const recently = 3 * time.Second

// checker knows what was promised, and compares it with what there is.
type checker struct {
	w *world
	// begunAt is when the first record was copied into an empty log.
	begunAt time.Duration
	told    told // what the last leader has told of itself
	err     error
}

// told is what a leader has told of itself.
type told struct {
	at         time.Duration
	end        record.Offset
	cutNumber  int
	lag        Lag
	tombstones time.Duration
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
		if n.up && n.leads != nil {
			c.checkStatus(n)
		}
	}
}

// checkStatus proves that a leader tells no lies of itself: no lag is negative, and the time as of which it has everything is right.
func (c *checker) checkStatus(n *node) {
	s := n.mirror.Status(n.clock())
	if s.Lag.Records < 0 || s.Lag.Bytes < 0 || s.Lag.RPO < 0 || s.Lag.Behind < 0 {
		c.fail("node %d has the lag %+v", n.id, s.Lag)
	}
	if s.Log != n.log.state() && !n.mirror.isChangingLog() {
		c.fail("node %d knows its log as %+v, and it is %+v", n.id, s.Log, n.log.state())
	}
	if img := &c.w.ctl.now; img.leader != n.id || n.leads.epoch != img.epoch {
		return // others have taken over
	}
	if c.w.chance(0.01) {
		c.told = told{c.w.now, n.log.end, n.log.cutNumber, s.Lag, s.Tombstones}
	}
	confirmed, _ := n.mirror.HeldAt(0)
	c.checkHeld(n, "for sure", confirmed, behindOthers)
	if s.Lag.IsKnown {
		c.checkHeld(n, "as the leader says", n.clock()-s.Lag.RPO, cutOff)
	}
}

// A broker of the source that is not cut off learns within behindOthers who leads, and one that is cut off within cutOff.
const (
	behindOthers = 120 * ms
	cutOff       = 1200 * ms
)

// checkHeld proves that a log has all that the source had committed at a time, or somewhat before.
func (c *checker) checkHeld(n *node, how string, asOf, before time.Duration) {
	if asOf == Never {
		return
	}
	at, topic := asOf-n.skew-before, c.topicOf(n)
	for _, b := range c.w.source.batches {
		if b.topic == topic && b.root == b && b.committedAt != Never && b.committedAt < at && b.lostAt == 0 && !b.isRemoved && b.Next > n.log.end && !c.isAccepted(b.Base, b.Next) {
			c.fail("node %d says that it has all as of %v, %s, and ends at %d, but the batch at %d was committed at %v", n.id, asOf-n.skew, how, n.log.end, b.Base, b.committedAt)
		}
	}
}

// topicOf is the topic whose records a node has; nil: it has none.
func (*checker) topicOf(n *node) *topic {
	if k := len(n.log.batches); k > 0 {
		return n.log.batches[k-1].topic
	}
	return nil
}

// isAccepted tells whether the metadata have said that offsets are lost.
func (c *checker) isAccepted(from, to record.Offset) bool {
	return slices.ContainsFunc(c.w.ctl.accepted, func(r Range) bool { return r.From <= from && to <= r.To })
}

// appends proves that a batch follows what a log has: it is the one that came next in one history of the source, or what lies between is compacted, or lost with the metadata's consent.
func (c *checker) appends(n *node, b *batch) {
	d := n.leads.assignment.Durable
	if b.Base < n.log.end && len(n.log.batches) > 0 {
		c.fail("node %d appends %d to a log that ends at %d", n.id, b.Base, n.log.end)
	}
	if b.root.committedAt == Never {
		c.fail("node %d appends the batch at %d, which was never committed", n.id, b.Base)
	}
	c.w.seen["batches appended"]++
	k := len(n.log.batches)
	if k == 0 {
		c.begunAt = c.w.now
		if !d.HasBegun || b.Next <= d.Begin && n.log.end >= d.Begin {
			c.fail("node %d appends the batch at %d to an empty log before the mirror begins: %+v", n.id, b.Base, d)
		}
		if b.Base > max(n.log.end, d.Begin) && !c.isHole(b.root.prev, nil, max(n.log.end, d.Begin)) {
			c.fail("node %d appends the batch at %d to an empty log that ends at %d", n.id, b.Base, n.log.end)
		}
		return
	}
	last := n.log.batches[k-1]
	c.checkTombstones(n, b, last)
	if c.w.hadNoIDs && b.topic != last.topic && last.Base < b.topic.highest {
		c.w.seen["another topic that nobody can tell"]++ // its first records are deleted, so that there is nothing to compare
		return
	}
	if last.root.lostAt > 0 && last.Next <= b.topic.highest && b.topic == last.topic {
		c.w.seen["parted where the source has deleted"]++ // nobody can tell what was the same there; it is about to be deleted here, too
		return
	}
	if !c.isHole(b.root.prev, last.root, n.log.end) {
		c.fail("node %d appends the batch at %d of topic %d after that at %d of topic %d, which did not precede it at the source", n.id, b.Base, b.topic.number, last.Base, last.topic.number)
	}
}

// checkTombstones proves that a mirror of a compacted topic goes on only if the source has kept all tombstones since the mirror had all: if the next record is not older than that.
func (c *checker) checkTombstones(n *node, b, last *batch) {
	s := &n.leads.assignment.Settings
	if !s.IsCompacted || s.KeepTombstones == 0 || b.topic != last.topic || c.isAccepted(b.Base, b.Next) {
		return
	}
	oldest := b.root
	for p := oldest.prev; p != nil && p != last.root; p = p.prev {
		oldest = p
	}
	if since := max(oldest.committedAt, c.begunAt); since != Never && c.w.now-since > s.KeepTombstones+cutOff {
		c.fail("node %d appends %d after %d, which was committed at %v: tombstones are gone by now", n.id, b.Base, oldest.Base, oldest.committedAt)
	}
}

// isHole tells whether all batches from one back to another may be missing here; those before an offset count as deleted.
func (c *checker) isHole(b, last *batch, end record.Offset) bool {
	for ; b != last; b = b.prev {
		switch {
		case b == nil:
			return false
		case last == nil && b.Next <= end:
			return true
		case b.isRemoved:
		case c.isAccepted(max(b.Base, end), b.Next), c.isAccepted(max(b.Base, end), max(end, min(b.Next, b.topic.highest))) && b.Next <= b.topic.highest:
		default:
			return false
		}
	}
	return true
}

// trims proves that a log's start does not go beyond that of the source.
func (c *checker) trims(n *node, to record.Offset) {
	if t := c.topicOf(n); t != nil && to > t.highest && (!c.w.hadNoIDs || to > c.w.source.last.highest) {
		c.fail("node %d trims to %d, and the source has never begun beyond %d", n.id, to, t.highest)
	}
}

// skips proves that no record is dropped that the source still has.
func (c *checker) skips(n *node, to record.Offset) {
	d := n.leads.assignment.Durable
	switch t := c.topicOf(n); {
	case to < n.log.end:
		c.fail("node %d goes back to %d from %d", n.id, to, n.log.end)
	case len(n.log.batches) == 0 && to <= d.Begin:
	case !c.isAccepted(n.log.end, to) && len(n.log.batches) > 0:
		c.fail("node %d skips %d to %d, which nobody has accepted", n.id, n.log.end, to)
	case t != nil && to > t.highest && (!c.w.hadNoIDs || to > c.w.source.last.highest):
		c.fail("node %d skips to %d, and the source has never begun beyond %d", n.id, to, t.highest)
	}
	c.w.seen["skip"]++
}

// cuts proves that a cut removes nothing that the source's leader has committed, and has had for long.
func (c *checker) cuts(to record.Offset) {
	w := c.w
	w.seen["cut"]++
	if w.ctl.now.assignment.Durable.State == Cutting {
		return // a person wants it
	}
	l := w.source.leads()
	if w.ctl.now.leader < 0 || l == nil {
		return
	}
	if t := w.source.topic; t.lostIn == t.epoch && t.unclean == 0 {
		c.fail("a cut at %d follows a loss that no election explains", to)
	}
	for _, b := range w.nodes[w.ctl.now.leader].log.batches {
		if b.Next <= to || b.topic != w.source.topic || b.Next > l.hw || b.root.isRemoved {
			continue
		}
		isThere := slices.ContainsFunc(l.log, func(o *batch) bool { return o.root == b.root })
		if isThere && (b.root.lostAt == 0 || b.root.backAt > 0 && b.root.backAt < w.now-recently) {
			c.fail("a cut at %d removes the batch at %d, which the source has committed", to, b.Base)
		}
	}
}

// declares proves that a state for which a node asks is true, or was a while ago. When the controller sets it that may have changed, and is corrected at once.
func (c *checker) declares(n *node, d *Durable) {
	w, mirrored := c.w, c.topicOf(n)
	topicIs := w.source.topic
	last := w.source.last
	switch d.State {
	case Gap:
		if d.Range.To > last.highest && (mirrored == nil || d.Range.To > mirrored.highest) {
			c.fail("a gap up to %d is declared, and the source has never begun beyond %d", d.Range.To, last.highest)
		}
		if d.Range.From < n.log.end {
			c.fail("a gap from %d is declared, and node %d has records up to %d", d.Range.From, n.id, n.log.end)
		}
	case SourceDeleted:
		if topicIs != nil && w.source.goneAt == 0 {
			c.fail("the topic is said to be deleted, and it never was")
		}
	case SourceRecreated:
		if mirrored == nil || mirrored != last {
			return
		}
		if !w.hadNoIDs || mirrored.unclean == 0 && !w.source.saidGone {
			c.fail("the topic is said to be another one, and it is not")
		}
	case TombstonesLost:
		if !w.kind.isCompacted {
			c.fail("tombstones are said to be lost, and the topic is not compacted")
		}
	case Failed:
		if l := w.source.spoiledAt; w.calm && (l == 0 || l < w.now-recently) {
			c.fail("the partition is said to have failed, and the source has had no such fault: %s", d.Reason)
		}
	default:
	}
}

var errNotEqual = errors.New("the mirror is not equal to its source")

// isHealed tells whether the state is the true one, and what there is to be mirrored is.
func (c *checker) isHealed() error {
	w := c.w
	img := &w.ctl.now
	if img.leader < 0 {
		return errors.New("nobody leads")
	}
	n := w.nodes[img.leader]
	if n.leads == nil || n.leads.epoch != img.epoch {
		return fmt.Errorf("node %d does not lead in epoch %d", n.id, img.epoch)
	}
	s := n.mirror.Status(n.clock())
	t, mirrored := w.source.topic, c.topicOf(n)
	isOther := mirrored != nil && t != nil && mirrored != t
	switch {
	case t == nil && s.State != SourceDeleted:
		return fmt.Errorf("the topic is deleted, and the state is %v: %s", s.State, s.Reason)
	case t == nil:
		return nil
	case isOther && s.State != SourceRecreated:
		return fmt.Errorf("the topic is another one, and the state is %v: %s", s.State, s.Reason)
	case isOther, s.State == SourceRecreated && img.assignment.Durable.Topic != t.id:
		return nil
	case s.State == SourceRecreated && w.hadNoIDs && (t.unclean > 0 || w.source.saidGone) && !w.copiesAnew: // nothing that was here is left there
		return nil
	case s.State != Mirroring:
		return fmt.Errorf("the state is %v: %s", s.State, s.Reason)
	}
	return c.isEqual(n, &s)
}

// isEqual tells whether all replicas have what the source's leader has.
func (c *checker) isEqual(n *node, s *Status) error {
	w := c.w
	l := w.source.leads()
	if l == nil || l.hw != l.end() {
		return errors.New("the source has not settled")
	}
	var want []*batch
	for _, b := range l.log {
		if b.Next > max(l.start, n.log.start) && b.Next > w.ctl.now.assignment.Durable.Begin && !c.isAccepted(b.Base, b.Next) {
			want = append(want, b.root)
		}
	}
	for _, one := range w.nodes {
		var have []*batch
		for _, b := range one.log.batches {
			if b.Next > max(l.start, n.log.start) && !b.root.isRemoved && !c.isAccepted(b.Base, b.Next) {
				have = append(have, b.root)
			}
		}
		if len(have) > 0 && len(want) > 0 && have[0] != want[0] && have[0].Next <= w.ctl.now.assignment.Durable.Begin {
			have = have[1:]
		}
		if !slices.Equal(have, want) {
			return fmt.Errorf("%w: node %d has %d batches, %d..%d, and the source %d, %d..%d", errNotEqual, one.id, len(have), one.log.start, one.log.end, len(want), l.start, l.end())
		}
		if one.log.end != l.end() || one.log.start != max(l.start, one.log.start) {
			return fmt.Errorf("%w: node %d has %d..%d, and the source %d..%d", errNotEqual, one.id, one.log.start, one.log.end, l.start, l.end())
		}
	}
	if s.Lag.Records > 0 || s.Lag.Behind > 0 || !s.Lag.IsKnown && len(l.epochs) > 0 && l.epochs[len(l.epochs)-1].epoch == l.epoch || s.Lag.RPO > time.Second {
		return fmt.Errorf("%w: the lag is %+v, of the source %+v", errNotEqual, s.Lag, s.Source)
	}
	for _, b := range n.log.batches {
		if b.Epoch > n.leads.epoch {
			return fmt.Errorf("the batch at %d has epoch %d, and the local leader epoch is %d", b.Base, b.Epoch, n.leads.epoch)
		}
	}
	return nil
}

func (w *world) dump() {
	for _, r := range w.source.replicas {
		w.note("replica %d: up %v start %d end %d hw %d n %d epochs %v leader %d epoch %d knows %v", r.id, r.up, r.start, r.end(), r.hw, len(r.log), r.epochs, r.leader, r.epoch, r.knows == w.source.topic)
	}
	if w.source.topic != nil {
		w.note("isr %v leader %d epoch %d", w.source.topic.isr, w.source.topic.leader, w.source.topic.epoch)
	}
	for _, n := range w.nodes {
		w.note("node %d: %d..%d dur %d n %d epochs %v cut %d", n.id, n.log.start, n.log.end, n.log.durable, len(n.log.batches), n.log.epochs, n.log.cutNumber)
	}
}
