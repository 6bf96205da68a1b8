package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// partition knows what was promised of a partition.
//
// A promise holds as long as one of the replicas that are in sync or eligible has not lost records;
// checkEligible proves that nobody is forgotten who has them. Beyond that the partition is exempt
// until it has another leader. An election that may lose records cuts the committed ones to those
// that the new leader has, and what the leaders before it still do does not count.
type partition struct {
	c       *cluster
	index   int16 // its number in the cluster, from 1
	topic   meta.UUID
	name    string
	number  int32
	isDirty bool

	committed []memlog.Entry // by offset
	start     record.Offset  // the highest start of a leader's log
	needed    int            // the fewest copies with which records were committed
	sequences map[uint32]lastSequence
	leaders   map[record.Epoch]leadership
	shown     []shownEnd

	tainted  [maxNodes + 1]bool // the node's log has lost records, and the metadata do not know it yet
	copies   copies
	exempt   bool
	cutEpoch record.Epoch // leaders of earlier epochs do not count; 0: all do
	// forcedUntil is the time until which an administrator, or a config that was changed since, may
	// have a leader elected that lacks records.
	forcedUntil time.Duration
}

// leadership names the process that leads in an epoch.
type leadership struct {
	node int32
	life int
}

// shownEnd is the highest high watermark that readers were told by the leader of an epoch.
type shownEnd struct {
	epoch record.Epoch
	hw    record.Offset
}

func newPartition(c *cluster, topic meta.UUID, number int32) *partition {
	p := &partition{
		c: c, topic: topic, number: number, needed: maxNodes, sequences: map[uint32]lastSequence{}, leaders: map[record.Epoch]leadership{},
	}
	p.copies.p = p
	return p
}

func (p *partition) isOffsets() bool { return p == p.c.truth.offsets }

func (p *partition) end() record.Offset { return record.Offset(len(p.committed)) }

// isLossy tells whether acknowledged records may be lost.
func (p *partition) isLossy() bool { return p.exempt || p.cutEpoch > 0 }

// isTrusted tells whether a log must have the committed records as far as its high watermark goes.
func (p *partition) isTrusted(l *diskLog) bool {
	return !p.exempt && l.agreed >= p.cutEpoch || !p.isLossy()
}

// in is the partition in an image, or nil.
func (p *partition) in(m *meta.Image) *meta.Partition {
	t := m.TopicByID(p.topic)
	if t == nil || int(p.number) >= len(t.Partitions) {
		return nil
	}
	return &t.Partitions[p.number]
}

// now is the partition in the newest metadata.
func (p *partition) now() *meta.Partition { return p.in(p.c.truth.image) }

// isLed tells whether a replica leads by the newest metadata.
func (p *partition) isLed(r *replica) bool {
	mp := p.now()
	return mp.Leader == r.n.id && record.Epoch(mp.LeaderEpoch) == r.leader.Epoch()
}

// touch has the partition checked at the end of the event.
func (p *partition) touch() {
	if !p.isDirty {
		p.isDirty = true
		p.c.truth.dirty = append(p.c.truth.dirty, p)
	}
}

func (p *partition) fail(format string, args ...any) { p.c.fail(p.index, format, args...) }

func (p *partition) noteMetadata(index uint64, mp *meta.Partition) {
	text := fmt.Appendf(nil, "leader %d in epoch %d.%d, in sync %v, replicas %v", mp.Leader, mp.LeaderEpoch, mp.PartitionEpoch, mp.ISR, mp.Replicas)
	for _, set := range []struct {
		name string
		ids  []int32
	}{{"eligible", mp.Eligible}, {"last", mp.LastEligible}, {"adding", mp.Adding}, {"removing", mp.Removing}} {
		if len(set.ids) > 0 {
			text = fmt.Appendf(text, ", %s %v", set.name, set.ids)
		}
	}
	p.c.note(note{what: "entry %d:", part: p.index, a: int64(index), text: string(text)})
}

// commit takes what a leader has committed.
func (p *partition) commit(r *replica) {
	hw, epoch := r.leader.HighWatermark(), r.leader.Epoch()
	if hw <= p.end() || epoch < p.cutEpoch || p.cutEpoch > 0 && hw <= r.begunWith {
		return // what a leader knows from before an unclean election does not count
	}
	if r.log.End() < hw {
		p.fail("node %d commits up to %d, and its log ends at %d", r.n.id, hw, r.log.End())
		return
	}
	p.needed = min(p.needed, r.assigned.MinISR)
	for o := p.end(); o < hw; o++ {
		e, ok := r.log.EntryAt(o)
		if !ok && p.cutEpoch > 0 && o < r.log.Start() { // it was committed before, and lost by the leader after that
			p.committed = append(p.committed, unknownRecord)
			continue
		}
		if !ok {
			p.fail("node %d commits %d, which it does not have", r.n.id, o)
			return
		}
		p.checkSequence(r, e, o)
		p.committed = append(p.committed, e)
	}
	p.c.seen["records committed"]++
	p.touch()
}

// checkSequence proves that the records of an idempotent producer are committed once, in their order.
// If some of them were deleted, its sequences may have been forgotten.
func (p *partition) checkSequence(r *replica, e memlog.Entry, at record.Offset) {
	id := producerOf(e.Value)
	last, known := p.sequences[id]
	p.sequences[id] = lastSequence{sequenceOf(e.Value), at}
	if known && sequenceOf(e.Value) != last.sequence+1 && !p.isLossy() && p.c.strict[id] && last.offset >= p.start {
		p.fail("node %d commits %x at %d after the sequence %x of that producer at %d", r.n.id, e.Value, at, last.sequence, last.offset)
	}
}

// noteLeader takes that a node begins to lead.
func (p *partition) noteLeader(r *replica, epoch record.Epoch) {
	me := leadership{r.n.id, r.n.life}
	if other, ok := p.leaders[epoch]; ok {
		p.fail("nodes %d and %d lead in epoch %d, in their lives %d and %d", other.node, me.node, epoch, other.life, me.life)
	}
	p.leaders[epoch] = me
	if p.copies.lacks(r.n.id) {
		p.copies.led = append(p.copies.led, epoch)
	}
	mp := p.now()
	// A node that is behind with the metadata may begin to lead in an epoch that has ended.
	if int32(epoch) == mp.LeaderEpoch && r.log.End() < p.end() && !p.exempt && !p.copies.lack[r.n.id] {
		p.fail("node %d leads in epoch %d from %d, and %d records are committed", r.n.id, epoch, r.log.End(), p.end())
	}
}

// noteAcked takes an acknowledgement with acks=all: the record must have as many copies as were
// promised.
func (p *partition) noteAcked(r *replica, end record.Offset) {
	p.c.saw("record acknowledged with acks=all")
	p.commit(r)
	if p.exempt || r.leader.Epoch() < p.cutEpoch || p.cutEpoch > 0 && end <= r.begunWith {
		return
	}
	if end > p.end() {
		p.fail("node %d acknowledges records up to %d, and %d are committed", r.n.id, end, p.end())
		return
	}
	if ids := r.members(); len(ids) < r.assigned.MinISR {
		p.fail("node %d acknowledges records up to %d with %v in sync, and %d are needed", r.n.id, end, ids, r.assigned.MinISR)
	}
	if p.now().PartitionEpoch != r.assigned.PartitionEpoch {
		return // some of those that had a copy may have no replica any more
	}
	copies := 0
	for _, n := range p.c.nodes {
		l := n.disk.find(p)
		if p.tainted[n.id] || p.copies.lack[n.id] || l != nil && (l.Committed() >= end && p.hasCommitted(l, end-1) || l.Start() >= end) {
			copies++
		}
	}
	if copies < r.assigned.MinISR {
		p.fail("node %d acknowledges records up to %d, of which there are %d copies, and %d are needed", r.n.id, end, copies, r.assigned.MinISR)
	}
}

// unknownRecord is a committed record that the leader has deleted before it could be looked at.
var unknownRecord memlog.Entry

// hasCommitted tells whether a log has the committed record at an offset, or has deleted it.
func (p *partition) hasCommitted(l *diskLog, at record.Offset) bool {
	e, ok := l.EntryAt(at)
	return at < l.Start() || ok && (e == p.committed[at] || p.committed[at] == unknownRecord)
}

// noteShown takes what a reader was told by a leader. It must not be told less later, by that leader
// or the next ones.
func (p *partition) noteShown(r *replica, hw record.Offset) {
	epoch := r.leader.Epoch()
	if epoch < p.cutEpoch || p.exempt || slices.Contains(p.copies.led, epoch) {
		return
	}
	at := -1
	for i, s := range p.shown {
		if s.epoch <= epoch && hw < s.hw {
			p.fail("the leader of epoch %d tells readers of the high watermark %d, and that of epoch %d has told them of %d", epoch, hw, s.epoch, s.hw)
		}
		if s.epoch == epoch {
			at = i
		}
	}
	if at < 0 {
		p.shown = append(p.shown, shownEnd{epoch, hw})
		return
	}
	p.shown[at].hw = max(p.shown[at].hw, hw)
}

// noteLoss takes that a node's log has lost records that it has called committed.
func (p *partition) noteLoss(id int32) {
	mp := p.now()
	p.tainted[id] = true
	if mp == nil || !slices.Contains(membersOf(mp), id) {
		return
	}
	p.c.saw("replica in sync has lost records")
	p.c.note(note{what: "its replica may have lost committed records", node: id, part: p.index})
	p.weighLosses(mp)
}

// weighLosses finds out whether all replicas that must have all committed records have lost some.
func (p *partition) weighLosses(mp *meta.Partition) {
	lost := 0
	for _, id := range membersOf(mp) {
		if !p.tainted[id] && !p.copies.lacks(id) {
			return
		}
		lost++
	}
	if !p.exempt && len(p.committed) > 0 {
		p.exempt = true
		p.c.saw("more losses than the promise covers")
		p.c.note(note{what: "no promise holds: all %d replicas may have lost records", part: p.index, a: int64(lost)})
	}
}

// endExemption ends the exemption if, after all losses are known, those that must have all committed
// records have them.
func (p *partition) endExemption(m *meta.Image) {
	mp := p.in(m)
	if !p.exempt || mp == nil || slices.Contains(p.tainted[:], true) || len(membersOf(mp)) < p.needed {
		return
	}
	for _, id := range membersOf(mp) {
		if l := p.c.node(id).disk.find(p); l == nil || l.Committed() < p.end() || p.commonEnd(l) < p.end() {
			return
		}
	}
	p.exempt = false
	p.c.note(note{what: "the promise holds again", part: p.index})
}

// check compares the promise with what the nodes have.
func (p *partition) check() {
	if p.c.txns != nil && p.isLossy() {
		p.c.txns.noteVoid()
	}
	for _, n := range p.c.nodes {
		if l := n.disk.find(p); l != nil {
			p.checkWatermark(n, l)
		}
	}
	mp := p.now()
	if mp == nil {
		return
	}
	p.copies.followCopies(mp)
	if p.exempt || len(p.committed) == 0 {
		return
	}
	for _, id := range membersOf(mp) {
		if p.tainted[id] || p.copies.lacks(id) {
			continue
		}
		l := p.c.node(id).disk.find(p)
		if l == nil || l.Committed() < p.end() {
			have := record.Offset(0)
			if l != nil {
				have = l.Committed()
			}
			p.fail("node %d is in sync or eligible with its records up to %d, and %d are committed", id, have, p.end())
			return
		}
		p.compare(p.c.node(id), l, p.end(), "though it is in sync or eligible")
	}
}

// checkWatermark proves that a replica's high watermark is not above its end, that it does not go
// back while the process lives, and that the records below it are the committed ones.
func (p *partition) checkWatermark(n *node, l *diskLog) {
	hw := l.HighWatermark()
	if hw > l.End() {
		p.fail("node %d has the high watermark %d, and its log ends at %d", n.id, hw, l.End())
	}
	if !p.isTrusted(l) {
		l.highest = 0
		return
	}
	if p.isLossy() { // a follower may know of a high watermark that an unclean election has lost
		hw = min(hw, p.end())
	}
	if hw > p.end() {
		p.fail("node %d has the high watermark %d, and %d records are committed", n.id, hw, p.end())
		return
	}
	if n.up && l.life == n.life && hw < l.highest && !p.copies.lack[n.id] { // it may lead before all that it was told of is on its disk
		p.fail("the high watermark of node %d goes back from %d to %d", n.id, l.highest, hw)
	}
	l.highest, l.life = hw, n.life
	p.compare(n, l, hw, "below its high watermark")
}

// compare proves that a log has the committed records below an offset.
func (p *partition) compare(n *node, l *diskLog, below record.Offset, why string) {
	from := max(l.verified, l.Start())
	if p.copies.wasCopy(n.id) {
		from = max(from, p.start) // nobody is left who could tell it that deleted records were others
	}
	for o := from; o < below; o++ {
		if !p.hasCommitted(l, o) {
			e, _ := l.EntryAt(o)
			p.fail("node %d has %x of epoch %d at %d %s, and %x of epoch %d was committed",
				n.id, e.Value, e.Epoch, o, why, p.committed[o].Value, p.committed[o].Epoch)
			return
		}
	}
	l.verified = max(l.verified, below)
}
