package sim

import (
	"errors"
	"iter"
	"slices"
	"time"
)

// errNotLeader ends a proposal that is not known to be committed, which it may be all the same.
var errNotLeader = errors.New("not the leader")

// metaEntry is a committed entry of the metadata log.
type metaEntry struct {
	term     uint64
	data     []byte   // nil: the first entry of a term
	commands [][]byte // data, parted into the records of each command
}

// proposal is an entry that a leader has appended and that is not committed yet.
type proposal struct {
	metaEntry
	from   int32
	life   int
	index  uint64        // once it is committed
	ready  time.Duration // when enough disks may have it
	ended  bool
	notify func(err error)
}

// metaQuorum behaves as package quorum promises; see the package's documentation. It knows what no
// node knows: which entries are committed.
type metaQuorum struct {
	c      *cluster
	voters []int32
	log    []metaEntry // committed; the first one has index 1

	term      uint64
	leader    int32 // of the term; 0: nobody
	life      int   // of the leader's node
	pending   []*proposal
	retrying  bool
	sickSince time.Duration // since when the leader cannot commit; 0: it can
	patience  time.Duration // for how long that may last
	stored    [maxNodes + 1]uint64
	lost      [maxNodes + 1]bool // the voter has lost its disk, and does not count until it has all entries
}

func newQuorum(c *cluster) *metaQuorum {
	return &metaQuorum{c: c, voters: c.plan.voters, patience: 100 * ms}
}

func (q *metaQuorum) begin() { q.c.after(30*ms, q.tick) }

func (q *metaQuorum) committed() uint64 { return uint64(len(q.log)) }

// tick lets the leader go that cannot commit for too long, and elects one where there is none.
func (q *metaQuorum) tick() {
	q.c.after(25*ms, q.tick)
	if q.leader != 0 {
		switch {
		case q.canCommit():
			q.sickSince = 0
		case q.sickSince == 0:
			q.sickSince = q.c.now
		case q.c.now-q.sickSince > q.patience || !q.isLeaderUp():
			q.depose()
		}
	}
	if q.leader == 0 {
		q.electLeader()
	}
}

func (q *metaQuorum) isLeaderUp() bool {
	n := q.c.node(q.leader)
	return n.up && n.life == q.life
}

// isServing tells whether a voter could vote and write now.
func (q *metaQuorum) isServing(id int32) bool {
	n := q.c.node(id)
	return n.up && !q.lost[id] && q.c.now >= n.stalledUntil && q.c.now >= n.disk.hungUntil
}

// hasMajority tells whether a voter reaches enough others.
func (q *metaQuorum) hasMajority(id int32) bool {
	n := 0
	for _, v := range q.voters {
		if v == id || q.isServing(v) && q.c.net.isConnected(id, v) {
			n++
		}
	}
	return 2*n > len(q.voters)
}

func (q *metaQuorum) canCommit() bool {
	return q.isLeaderUp() && q.isServing(q.leader) && q.hasMajority(q.leader)
}

// depose ends a leader's term. The leader learns of it later: one that is stalled some time after it goes on.
func (q *metaQuorum) depose() {
	old, term := q.c.node(q.leader), q.term
	q.c.note(note{what: "leads the quorum in term %d no more", node: q.leader, a: int64(term)})
	q.leader = 0
	if old.up {
		old.later(max(0, old.stalledUntil-q.c.now)+q.c.random(200*ms), func() { old.member.endTerm(term) })
	}
}

// confirm returns nil if most voters say that a node, which believes to lead in a term, does.
func (q *metaQuorum) confirm(n *node, term uint64) error {
	if q.leader == n.id && q.life == n.life && q.term == term && q.canCommit() {
		return nil
	}
	q.c.saw("controller not confirmed")
	return errNotLeader
}

// electLeader makes a voter the leader that has all committed entries and reaches a majority.
func (q *metaQuorum) electLeader() {
	first := q.c.rng.IntN(len(q.voters))
	for i := range q.voters {
		id := q.voters[(first+i)%len(q.voters)]
		if q.isServing(id) && q.hasMajority(id) && q.stored[id] >= q.committed() {
			q.elect(id)
			return
		}
	}
}

// elect begins a term. Of the entries that the leader before has not committed, the first ones may
// be in the new leader's log: they are committed with the first entry of the term.
func (q *metaQuorum) elect(id int32) {
	n := q.c.node(id)
	kept := q.c.rng.IntN(len(q.pending) + 1)
	for _, p := range q.pending[kept:] {
		p.ended = true
		q.c.saw("proposal dropped")
	}
	q.pending = q.pending[:kept]
	q.c.seen["proposal kept by the next leader"] += kept
	q.term++
	q.leader, q.life, q.sickSince, q.patience = id, n.life, 0, 60*ms+q.c.random(200*ms)
	q.c.saw("controller elected")
	q.c.note(note{what: "leads the quorum in term %d, which has %d entries of earlier terms to commit", node: id, a: int64(q.term), b: int64(kept)})
	for _, p := range q.pending {
		p.term = q.term // as far as commits go
	}
	q.append(&proposal{metaEntry: metaEntry{term: q.term}, from: id, life: n.life})
	n.member.beginTerm(q.term, q.committed()+uint64(len(q.pending)))
	q.spread()
}

// append appends an entry to the leader's log.
func (q *metaQuorum) append(p *proposal) {
	n := q.c.node(q.leader)
	p.ready = q.c.now + ms + q.c.random(4*ms) + n.disk.drawDelay()
	if k := len(q.pending); k > 0 {
		p.ready = max(p.ready, q.pending[k-1].ready)
	}
	q.pending = append(q.pending, p)
	q.c.after(p.ready-q.c.now, q.commitReady)
}

// propose appends an entry for a node that believes to lead in a term. notify is called when the
// node knows the outcome, if it lives so long.
func (q *metaQuorum) propose(n *node, term uint64, commands [][]byte, notify func(err error)) {
	m := &n.member
	if m.term != term {
		notify(errNotLeader)
		return
	}
	p := &proposal{metaEntry: metaEntry{term, slices.Concat(commands...), commands}, from: n.id, life: n.life, notify: notify}
	m.waiting = append(m.waiting, p)
	if q.leader == n.id && q.life == n.life && q.term == term {
		q.append(p)
	}
}

// commitReady commits the entries for which it is time.
func (q *metaQuorum) commitReady() {
	n := 0
	for len(q.pending) > 0 && q.pending[0].ready <= q.c.now && q.leader != 0 {
		if !q.canCommit() {
			q.retryLater()
			break
		}
		p := q.pending[0]
		q.pending = q.pending[1:]
		q.log = append(q.log, p.metaEntry)
		p.index = q.committed()
		q.c.truth.followMetadata(p.index, p.commands)
		n++
	}
	if n == 0 {
		return
	}
	for _, v := range q.voters {
		if v == q.leader || q.isServing(v) && q.c.net.isConnected(v, q.leader) {
			q.stored[v] = q.committed()
		}
	}
	q.spread()
}

// retryLater has commitReady called once more after a while.
func (q *metaQuorum) retryLater() {
	if !q.retrying {
		q.retrying = true
		q.c.after(12*ms, func() {
			q.retrying = false
			q.commitReady()
		})
	}
}

// spread tells all nodes of the committed entries.
func (q *metaQuorum) spread() {
	term, leader, upTo := q.term, q.leader, q.committed()
	for _, n := range q.c.nodes {
		if n.id == leader {
			n.later(q.c.random(2*ms), func() { n.member.hear(term, leader, upTo) })
		} else if n.up {
			q.c.net.send(leader, n.id, "committed", func() { n.member.hear(term, leader, upTo) })
		}
	}
}

// entries iterates over the committed entries after an index, up to another one.
func (q *metaQuorum) entries(after, upTo uint64) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := after; i < upTo; i++ {
			if !yield(i+1, q.log[i].data) {
				return
			}
		}
	}
}

// noteApplied takes that a node has applied the log up to an index.
func (q *metaQuorum) noteApplied(id int32, upTo uint64) {
	q.stored[id] = max(q.stored[id], upTo)
	if upTo == q.committed() {
		q.lost[id] = false
	}
}
