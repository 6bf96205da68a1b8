package sim

import (
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/replica/progress"
)

// node is a broker, which is also a part of the metadata quorum. Its process ends and starts again;
// its disk stays.
type node struct {
	c      *cluster
	id     int32
	disk   *disk
	clock  clock
	static *config.Static

	up           bool
	life         int           // counts the starts; events of an earlier life do nothing
	stalledUntil time.Duration // until then nothing happens
	lagUntil     time.Duration // until then the metadata is applied slowly
	usedEpoch    int64         // of the last registration in which the node was active
	process
}

// process is what a node's process has in memory.
type process struct {
	incarnation meta.UUID
	clean       bool        // the process before has written everything
	registering bool        // a request is under way
	epoch       int64       // of its registration; 0: not registered yet
	following   bool        // it acts on changes of the metadata
	stopping    bool        // it is to end
	unsynced    []meta.UUID // as the disk was when the process began
	nextBeat    time.Duration
	sessionEnds time.Duration // on its own clock

	member  member
	image   *meta.Image
	control *activeController // nil: it does not lead the quorum, or has not begun to decide
	brokers progress.Brokers

	replicas []*replica // by the partition's number - 1; nil: none
	fetcher  fetcher
	markers  markers
}

func newNode(c *cluster, id int32) *node {
	n := &node{c: c, id: id, clock: clock{rate: 1000}}
	n.disk = newDisk(n)
	var err error
	n.static, err = config.NewStatic(id, nil)
	c.must(err)
	return n
}

// now is the node's own time.
func (n *node) now() time.Duration { return n.clock.read(n.c.now) }

// start begins a process.
func (n *node) start() {
	if n.up {
		return
	}
	n.up, n.life, n.stalledUntil = true, n.life+1, 0
	n.process = process{incarnation: n.c.newUUID(), clean: n.disk.clean, unsynced: n.disk.cached}
	n.disk.clean = false
	n.fetcher.n, n.markers.n = n, n
	n.member = member{n: n, known: n.disk.metadata}
	n.image = n.c.truth.imageAt(n.disk.metadata)
	n.member.applied = n.disk.metadata
	n.c.note(note{what: "starts, with the metadata up to %d", node: n.id, a: int64(n.disk.metadata)})
	n.c.saw("start")
	n.later(n.c.random(tickEvery), n.tick)
}

// end ends the process.
func (n *node) end() {
	n.up = false
	n.process = process{}
	n.disk.syncing = false
}

// kill ends the process without an orderly end. Its records stay in the page cache.
func (n *node) kill() {
	n.c.note(note{what: "is killed", node: n.id})
	n.disk.crash(false)
	n.end()
	n.c.reportDeath(n.id)
}

// cutPower ends the process, and loses what is not on disk.
func (n *node) cutPower() {
	n.c.note(note{what: "has no power", node: n.id})
	n.disk.crash(true)
	n.end()
}

// restartAfter starts the node after a while, if it is down then.
func (n *node) restartAfter(d time.Duration) { n.c.after(d, n.start) }

// later does something after a delay, if the process lives on by then. A stalled process does it
// later.
func (n *node) later(d time.Duration, do func()) {
	life := n.life
	n.c.after(d, func() {
		switch {
		case !n.up || n.life != life:
		case n.c.now < n.stalledUntil:
			n.later(n.stalledUntil-n.c.now, do)
		default:
			do()
		}
	})
}

// call sends a request to another node. handle runs there, and may send an answer; at the end either
// that or lost runs here, once.
func (n *node) call(to int32, what string, handle func(at *node, answer func(func())), lost func()) {
	n.callWithin(answerTimeout, to, what, handle, lost)
}

// callWithin is call with a limit of its own.
func (n *node) callWithin(limit time.Duration, to int32, what string, handle func(at *node, answer func(func())), lost func()) {
	life, ended := n.life, false
	end := func(do func()) {
		if !ended && n.up && n.life == life {
			ended = true
			do()
		}
	}
	n.later(limit, func() { end(lost) })
	at := n.c.node(to)
	n.c.net.send(n.id, to, what, func() {
		handle(at, func(do func()) {
			n.c.net.send(to, n.id, "answer: "+what, func() { end(do) })
		})
	})
}

// tick lets time pass.
func (n *node) tick() {
	n.later(tickEvery-2*ms+n.c.random(4*ms), n.tick)
	if n.c.now >= n.member.nextPull {
		n.member.pull()
	}
	switch {
	case n.epoch == 0:
		n.register()
	case n.c.now >= n.nextBeat:
		n.beat()
	}
	if n.control == nil && n.member.term != 0 {
		n.beginControl()
	}
	if n.control != nil && n.c.chance(0.7) { // its timer is another one: a heartbeat may come first
		n.control.tick()
	}
	for _, r := range n.replicas {
		if r != nil && r.leader != nil {
			r.leader.Tick(n.now())
			r.touch()
		}
	}
	n.fetcher.expireParked()
	n.act()
}

// act does what is to be done after any event.
func (n *node) act() {
	n.disk.sync()
	for _, r := range n.replicas {
		if r != nil {
			r.act()
		}
	}
	for id := range int32(len(n.c.nodes)) {
		n.fetcher.sendReports(id + 1)
		n.fetcher.sendFetches(id + 1)
	}
}
