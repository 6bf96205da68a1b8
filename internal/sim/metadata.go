package sim

import (
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// member is a node's part of the quorum. It ends with the node's life.
type member struct {
	n        *node
	applied  uint64 // the index that the node's image shows
	known    uint64 // the committed index that the node has heard of
	hint     int32  // who may lead; 0: unknown
	waiting  []*proposal
	applying bool
	nextPull time.Duration

	term      uint64 // in which the node believes to lead; 0: it does not
	termStart uint64 // the index of the term's first entry
}

// leading returns the term in which the node leads, once it has applied the term's first entry.
func (m *member) leading() (term uint64, ok bool) {
	return m.term, m.term != 0 && m.applied >= m.termStart
}

func (m *member) beginTerm(term, start uint64) {
	m.endTerm(m.term)
	m.term, m.termStart, m.hint = term, start, m.n.id
	m.n.control = nil
}

// endTerm takes that a term has ended. The outcome of what the node has proposed in it is unknown.
func (m *member) endTerm(term uint64) {
	if m.term != term || term == 0 {
		return
	}
	m.term, m.hint = 0, 0
	m.n.control = nil
	waiting := m.waiting
	m.waiting = nil
	for _, p := range waiting {
		m.n.c.saw("proposal of unknown outcome")
		p.notify(errNotLeader)
	}
}

// answerApplied answers the proposals that the node has applied.
func (m *member) answerApplied() {
	for len(m.waiting) > 0 {
		p := m.waiting[0]
		if p.index == 0 || p.index > m.applied {
			return
		}
		m.waiting = m.waiting[1:]
		p.notify(nil)
	}
}

// pull asks another node how far the metadata log is committed.
func (m *member) pull() {
	n := m.n
	m.nextPull = n.c.now + 50*ms + n.c.random(40*ms)
	to := 1 + (n.id+n.c.rng.Int32N(int32(len(n.c.nodes)-1)))%int32(len(n.c.nodes))
	n.call(to, "pull metadata", func(at *node, answer func(func())) {
		term, leader, upTo := at.member.term, at.member.hint, at.member.known
		answer(func() { m.hear(term, leader, upTo) })
	}, func() {})
}

// hear takes that the metadata log is committed up to an index. term is 0 if it is not
// said by a leader.
func (m *member) hear(term uint64, leader int32, upTo uint64) {
	if m.term != 0 && m.term < term {
		m.endTerm(m.term)
	}
	if m.term == 0 && leader != 0 {
		m.hint = leader
	}
	m.known = max(m.known, upTo)
	m.applySoon()
}

// applySoon applies what the node has heard of, after a while.
func (m *member) applySoon() {
	n := m.n
	if m.applying || m.applied >= m.known {
		return
	}
	m.applying = true
	d := n.c.random(2 * ms)
	if n.c.now < n.lagUntil {
		d += n.c.random(150 * ms)
	}
	n.later(d, func() {
		m.applying = false
		m.apply()
		m.applySoon()
		n.act()
	})
}

// apply applies committed entries: one at a time, some or all of them, or a snapshot.
func (m *member) apply() {
	n, c := m.n, m.n.c
	before, from := n.image, m.applied
	to := m.known
	if c.chance(0.4) {
		to = from + 1 + c.rng.Uint64N(to-from)
	}
	var d *meta.Delta
	var err error
	if from == 0 && to > 3 || c.chance(0.02) {
		c.saw("metadata snapshot")
		n.image = c.truth.imageAt(to)
		d = meta.Diff(before, n.image)
	} else {
		n.image, d, err = meta.ApplyAll(before, c.quorum.entries(from, to))
		c.must(err)
	}
	m.applied = to
	n.disk.metadata = to
	c.note(note{what: "applies the metadata up to %d", node: n.id, a: int64(to)})
	c.truth.checkImage(n, to)
	c.quorum.noteApplied(n.id, to)
	n.followImage(d)
	m.answerApplied()
}
