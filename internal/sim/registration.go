package sim

import (
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// register asks the active controller for a registration.
func (n *node) register() {
	if n.registering {
		return
	}
	n.registering = true
	g := &controller.Registration{
		PreviousEpoch: n.disk.recorded, Generation: n.disk.generation, Clean: n.clean, Unsynced: n.unsynced,
		Broker: meta.Broker{
			ID: n.id, Incarnation: n.incarnation, Directory: n.disk.directory, Rack: []string{"a", "b"}[n.id%2],
			Features: []meta.FeatureRange{meta.SupportedLevels()},
		},
	}
	n.callController("register", func(a *activeController, answer func(func())) {
		a.register(g, func(epoch int64, refused *controller.Error, err error) {
			answer(func() {
				n.registering = false
				if refused != nil {
					n.c.note(note{what: "is not registered:", node: n.id, text: refused.Error()})
					n.c.saw("registration refused")
				} else if err == nil && n.epoch == 0 {
					n.takeEpoch(epoch)
				}
			})
		})
	}, func() { n.registering = false })
}

// takeEpoch notes the epoch of the registration on disk.
func (n *node) takeEpoch(epoch int64) {
	n.epoch = epoch
	n.c.note(note{what: "is registered with epoch %d", node: n.id, a: epoch})
	n.later(ms+n.disk.drawDelay(), func() { n.disk.record(epoch) })
}

// beat sends a heartbeat.
func (n *node) beat() {
	n.nextBeat = n.c.now + beatEvery
	epoch, began := n.epoch, n.now()
	if n.stopping { // its leaders will be moved
		n.sessionEnds = 0
	}
	beat := &controller.Beat{
		Registered: controller.Registered{ID: n.id, Epoch: epoch}, Applied: n.member.applied,
		Caught: n.isCaughtUp(), WantsStop: n.stopping, Generation: n.disk.generation,
	}
	n.callController("heartbeat", func(a *activeController, answer func(func())) {
		a.heartbeat(beat, func(got controller.BeatAnswer, refused *controller.Error, err error) {
			answer(func() {
				if err == nil && refused == nil && !got.Fenced && !n.stopping {
					n.sessionEnds = began + ownSession
				}
				n.takeBeatAnswer(got, refused, err)
			})
		})
	}, func() {})
}

// hasSession tells whether no controller can have fenced the node for its silence yet, as it is in package
// node.
func (n *node) hasSession() bool { return n.now() < n.sessionEnds }

// isCaughtUp tells whether the image shows the node's registration, and the disk has its epoch.
func (n *node) isCaughtUp() bool {
	b := n.image.Brokers[n.id]
	return b != nil && b.Epoch == n.epoch && b.Incarnation == n.incarnation && n.disk.recorded == n.epoch
}

func (n *node) takeBeatAnswer(got controller.BeatAnswer, refused *controller.Error, err error) {
	switch {
	case err != nil:
	case refused != nil: // another process is registered: this one has to end
		n.c.note(note{what: "is not registered any more:", node: n.id, text: refused.Error()})
		n.c.saw("registration superseded")
		n.kill()
		n.restartAfter(n.c.random(100 * ms))
	case n.stopping && got.MayStop:
		n.stop()
	}
}

// stop ends the process in order.
func (n *node) stop() {
	n.c.note(note{what: "stops", node: n.id})
	n.c.saw("controlled shutdown")
	for l := range n.disk.each {
		l.Close()
		l.part.touch()
	}
	n.disk.clean = true
	n.end()
	n.restartAfter(50*ms + n.c.random(400*ms))
}

// callController calls the node that may be the active controller. lost runs if it is not, too.
func (n *node) callController(what string, handle func(a *activeController, answer func(func())), lost func()) {
	to := n.member.hint
	if to == 0 {
		to = 1 + n.c.rng.Int32N(int32(len(n.c.nodes)))
	}
	n.call(to, what, func(at *node, answer func(func())) {
		a := at.decider()
		if a == nil {
			hint := at.member.hint
			answer(func() {
				if n.member.term == 0 {
					n.member.hint = hint
				}
				lost()
			})
			return
		}
		handle(a, answer)
	}, func() {
		if n.member.term == 0 {
			n.member.hint = 0
		}
		lost()
	})
}

// decider is the node's active controller, or nil if it is not the one.
func (n *node) decider() *activeController {
	if _, ok := n.member.leading(); !ok {
		return nil
	}
	if n.control == nil {
		n.beginControl()
	}
	return n.control
}
