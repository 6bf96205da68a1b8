package sim

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn"
)

// markers brings the markers of decisions to the leaders of their partitions, and the results to the machine, by
// the rules of the sender in package txn: one attempt for each partition, and no second marker of one decision under way.
type markers struct {
	n        *node
	underWay map[string]bool
}

// send sends the markers of a decision that are not under way.
func (k *markers) send(coordinator *partition, d txn.Decision) {
	for _, t := range d.Partitions {
		for _, number := range t.Partitions {
			k.sendTo(coordinator, d, t.Topic, number)
		}
	}
}

func (k *markers) sendTo(coordinator *partition, d txn.Decision, topic string, number int32) {
	n, c := k.n, k.n.c
	key := fmt.Sprintf("%s %d %s %d", d.TransactionalID, d.Offset, topic, number)
	if k.underWay[key] {
		c.saw("marker under way")
		return
	}
	if k.underWay == nil {
		k.underWay = map[string]bool{}
	}
	k.underWay[key] = true
	part := c.truth.find(topic, number)
	report := func(o txn.Outcome) {
		delete(k.underWay, key)
		n.reportMarker(coordinator, d, txn.MarkerResult{Topic: topic, Partition: number, Outcome: o})
	}
	m := coord.Marker{
		Producer: coord.Producer{ID: d.ProducerID, Epoch: d.ProducerEpoch}, Version: d.Version,
		Marker: record.Marker{Commit: d.Commit, CoordinatorEpoch: int32(d.CoordinatorEpoch)},
	}
	mp := part.in(n.image)
	if mp == nil || mp.Leader < 1 {
		n.later(0, func() { report(txn.AskAgain) })
		return
	}
	pause := c.random(ms)
	if !c.healing && c.chance(0.05) {
		pause += c.random(300 * ms)
		c.saw("slow marker")
	}
	to := mp.Leader
	if to == n.id {
		n.later(pause, func() {
			n.takeMarker(part, m, func(o txn.Outcome) { n.later(0, func() { report(o) }) })
			n.act()
		})
		return
	}
	if d.Version == 2 && !c.healing && c.chance(0.06) {
		c.after(c.random(time.Second), func() {
			c.net.send(n.id, to, "late marker", func() {
				c.saw("late marker")
				c.node(to).takeMarker(part, m, func(txn.Outcome) {})
				c.node(to).act()
			})
		})
	}
	n.later(pause, func() {
		isOver, came := false, 0
		n.call(to, "marker", func(at *node, answer func(func())) {
			// A marker with the epoch of the records must not come twice, or when its sender has given it up.
			if came++; d.Version < 2 && (isOver || came > 1) {
				return
			}
			if came > 1 {
				c.saw("marker doubled")
			}
			at.takeMarker(part, m, func(o txn.Outcome) {
				answer(func() {
					isOver = true
					report(o)
				})
			})
			at.act()
		}, func() {
			isOver = true
			c.saw("marker lost")
			report(txn.AskAgain)
		})
	})
}

// reportMarker reports a result to the coordinator, if this node is it still.
func (n *node) reportMarker(coordinator *partition, d txn.Decision, result txn.MarkerResult) {
	n.runMachine(coordinator, func(int16) {}, func(s *coord.Step, sh *machineShard, _ func(code int16)) {
		sh.ofTransactions().ReportMarkers(s, d.TransactionalID, d.Offset, []txn.MarkerResult{result})
	})
	n.act()
}
