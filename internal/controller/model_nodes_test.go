package controller

import (
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/meta"
)

func (w *modelWorld) beat(n *modelNode) {
	if !w.serves(n.id) {
		return
	}
	n.recorded, n.served = n.epoch, n.epoch
	if w.chance(0.3) {
		n.generation++
	}
	w.run(fmt.Sprint("beat ", n.id), nil, func(r *Rules) (Part, *Error) {
		return r.Heartbeat(&Beat{Registered: Registered{n.id, n.epoch}, Caught: true, Generation: n.generation})
	})
}

func (w *modelWorld) fence(n *modelNode) {
	if b := w.m.Brokers[n.id]; b != nil && (!n.up || w.chance(0.2)) {
		w.run(fmt.Sprint("fence ", n.id), nil, func(r *Rules) (Part, *Error) { return r.FenceBroker(n.id, b.Epoch) })
	}
}

// stop shuts a node down in order.
func (w *modelWorld) stop(n *modelNode) {
	b := w.m.Brokers[n.id]
	if !w.serves(n.id) || b.State == meta.BrokerFenced || w.chance(0.5) {
		return
	}
	stopped := w.run(fmt.Sprint("stop ", n.id), nil, func(r *Rules) (Part, *Error) {
		return r.Heartbeat(&Beat{Registered: Registered{n.id, n.epoch}, Caught: true, WantsStop: true})
	})
	for t := range w.m.Topics() {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			others := slices.ContainsFunc(p.ISR, func(id int32) bool { return id != n.id && w.rules().isActive(id) })
			if stopped && p.Leader == n.id && others {
				w.fail("%d is to stop and still leads %s-%d: %+v", n.id, t.Name, i, *p)
			}
		}
	}
	if stopped && w.run(fmt.Sprint("stopped ", n.id), nil, func(r *Rules) (Part, *Error) { return r.FenceBroker(n.id, n.epoch) }) {
		w.seen["node stopped"]++
		n.up, n.clean = false, true
		for _, truth := range w.parts {
			if l := truth.logs[n.id]; l != nil {
				l.durable = len(l.records)
			}
		}
	}
}
