package sim

import (
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
)

// shard is the coordinator of the committed offsets on the leader of their partition. It follows the
// rules of package coord: it loads the whole log, serves when the high watermark has reached the
// end of that, applies a record when it is appended, and answers when the high watermark has passed
// the records that the answer depends on.
type shard struct {
	r       *replica
	epoch   record.Epoch
	end     record.Offset // the offset after the last record that it has loaded or appended
	active  bool
	offsets map[uint32]lastSequence // by group
	waiting []shardWait
}

type shardWait struct {
	end    record.Offset
	answer func()
}

// continueShard returns the coordinator of a leader epoch. One that was active in the epoch before
// goes on if nobody else has appended since.
func continueShard(before *shard, r *replica, epoch record.Epoch) *shard {
	if before != nil && before.active && epoch == before.epoch+1 && before.end == r.log.End() {
		before.epoch, before.waiting = epoch, nil
		r.n.c.saw("coordinator goes on")
		return before
	}
	s := &shard{r: r, epoch: epoch, end: r.log.End(), offsets: maps.Clone(r.log.producers.base)}
	for o := r.log.Start(); o < s.end; o++ {
		e, _ := r.log.EntryAt(o)
		s.offsets[producerOf(e.Value)] = lastSequence{sequenceOf(e.Value), o}
	}
	return s
}

func (s *shard) act() {
	hw := s.r.leader.HighWatermark()
	if !s.active && hw >= s.end {
		s.active = true
		s.r.note("coordinates from %d", int64(s.end), 0)
		s.r.n.c.saw("coordinator loaded")
	}
	left := s.waiting[:0]
	for _, w := range s.waiting {
		if w.end <= hw {
			w.answer()
		} else {
			left = append(left, w)
		}
	}
	s.waiting = left
}

// commit appends a committed offset. answer runs when it is committed.
func (s *shard) commit(group, offset uint32, answer func()) {
	if !s.active || !s.r.leader.EnoughInSync() {
		return
	}
	at := s.r.append(valueOf(group, offset))
	s.end = at + 1
	s.offsets[group] = lastSequence{offset, at}
	s.waiting = append(s.waiting, shardWait{s.end, answer})
}

// fetch answers with a group's committed offset.
func (s *shard) fetch(group uint32, answer func(offset uint32)) {
	if !s.active {
		return
	}
	have, ok := s.offsets[group]
	if !ok {
		answer(0)
		return
	}
	s.waiting = append(s.waiting, shardWait{have.offset + 1, func() { answer(have.sequence) }})
}

// group is a consumer group that commits offsets and asks for them.
type group struct {
	c        *cluster
	id       uint32
	sent     uint32 // the highest offset that was sent
	known    knownOffset
	answered bool // a request was answered since all faults ended
}

// knownOffset is the highest offset that was acknowledged or answered, with the epoch of the
// coordinator that did it.
type knownOffset struct {
	offset uint32
	epoch  record.Epoch
}

// mayBeOld tells whether a node may not know of what another coordinator has acknowledged: it is not in
// sync any more, which it cannot know before it hears of it, and was not fenced, which its session
// would have told. The session counts on clocks.
func (p *partition) mayBeOld(n *node) bool {
	b := p.c.truth.image.Brokers[n.id]
	isFenced := b == nil || b.Epoch != n.epoch || b.State == meta.BrokerFenced
	return !slices.Contains(p.now().ISR, n.id) && (!isFenced || p.c.now < p.c.clocksAgree)
}

func (k *knownOffset) raise(offset uint32, epoch record.Epoch) {
	if offset > k.offset {
		*k = knownOffset{offset, epoch}
	}
}

func (g *group) start() { g.c.after(g.c.random(60*ms), g.act) }

func (g *group) isDone() error {
	if g.answered || g.c.truth.offsets == nil {
		return nil
	}
	return errNoOffsets
}

// act makes the next request. A request whose answer does not come is never made good later: its
// connection is closed.
func (g *group) act() {
	c := g.c
	p := c.truth.offsets
	if p == nil {
		c.after(50*ms, g.act)
		return
	}
	open := true
	next := func() {
		if open {
			open = false
			c.after(5*ms+c.random(30*ms), g.act)
		}
	}
	c.after(2*answerTimeout, next)
	to := c.guessLeader(p)
	if to == 0 {
		return
	}
	commits, before := c.chance(0.6), g.known
	if commits {
		g.sent++
	}
	offset := g.sent
	c.net.send(firstClient, to, "request of a group", func() {
		at := c.node(to)
		r := at.replica(p)
		if !open || r == nil || r.shard == nil {
			return
		}
		s, epoch, mayBeOld, isCopy := r.shard, r.shard.epoch, p.mayBeOld(at), p.copies.lacks(to) || slices.Contains(p.copies.led, r.shard.epoch)
		hasSession := at.hasSession() // without it the answer is a refusal, whatever it has here
		back := func(do func()) {
			c.net.send(to, firstClient, "answer to a group", func() {
				if open {
					do()
					g.answered = g.answered || c.healing
					next()
				}
			})
		}
		if commits {
			s.commit(g.id, offset, func() { back(func() { g.noteCommitted(offset, epoch) }) })
		} else {
			s.fetch(g.id, func(have uint32) {
				back(func() {
					if !hasSession {
						c.saw("offset asked of a node without a session")
						return
					}
					if isCopy { // until it gives up nothing tells it how old it is
						return
					}
					g.noteFetched(p, knownOffset{have, epoch}, before, mayBeOld)
				})
			})
		}
		at.act()
	})
}

func (g *group) noteCommitted(offset uint32, epoch record.Epoch) {
	g.known.raise(offset, epoch)
	g.c.saw("offset committed")
}

// noteFetched checks a committed offset that was answered. before is what was known before the
// request; mayBeOld allows a coordinator that was replaced to not know of that.
func (g *group) noteFetched(p *partition, have, before knownOffset, mayBeOld bool) {
	g.c.saw("offset fetched")
	goesBack := have.offset < before.offset
	if goesBack && have.epoch < before.epoch && mayBeOld {
		g.c.saw("old offset of a replica that is not in sync")
		goesBack = false
	}
	if !p.isLossy() && (goesBack || have.offset > g.sent) {
		p.fail("the coordinator of epoch %d answers the offset %d for group %d, %d was known from epoch %d, and %d was sent",
			have.epoch, have.offset, g.id, before.offset, before.epoch, g.sent)
	}
	g.known.raise(have.offset, have.epoch)
}
