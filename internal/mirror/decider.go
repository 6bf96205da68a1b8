package mirror

import (
	"context"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// decideTime is how long the controller may take. Then the machine asks again.
const decideTime = 10 * time.Second

// decision is a change that a partition asks the controller for.
type decision struct {
	p   *partition
	a   progress.Action
	cut int32 // of Cut: its number
	// isFinish tells that the partition is promoted, whose log ends at end then.
	isFinish bool
	end      record.Offset
	since    int64 // of a Declare that only tells since when no tombstone was missed: that time, in ms since 1970; 0: it is another one
}

// decider asks the controller for changes, for many partitions at once, by one goroutine.
type decider struct {
	queue queue[decision]
	ask   func(ctx context.Context, q *controller.LinksChange) (results []*controller.Error, refused *controller.Error, err error)
}

func (d *decider) add(one decision) { _ = d.queue.add(one) } // it is only refused when the Service is closed

func (d *decider) run(ctx context.Context) {
	for {
		list, ok := d.queue.take(ctx, controller.MaxLinkItems)
		if !ok {
			return
		}
		byKind := map[controller.LinksKind][]decision{}
		for _, one := range list {
			k := kindOf(one.a.Kind)
			if one.isFinish {
				k = controller.FinishPromotions
			}
			byKind[k] = append(byKind[k], one)
		}
		for _, k := range []controller.LinksKind{controller.RaiseEpochs, controller.CutMirrors, controller.SetMirrorStates, controller.FinishPromotions} {
			d.decide(ctx, k, byKind[k])
		}
	}
}

func kindOf(k progress.ActionKind) controller.LinksKind {
	switch k {
	case progress.Raise:
		return controller.RaiseEpochs
	case progress.Cut:
		return controller.CutMirrors
	default:
		return controller.SetMirrorStates
	}
}

// decide asks for changes of one kind. No partition is twice in a change, since a machine asks for one thing at a time, and the controller refuses the second one of others.
func (d *decider) decide(ctx context.Context, k controller.LinksKind, list []decision) {
	if len(list) == 0 {
		return
	}
	q := &controller.LinksChange{Kind: k}
	for i := range list {
		q.Partitions = append(q.Partitions, list[i].request())
	}
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	results, refused, err := d.ask(ctx, q)
	for i := range list {
		one, r := &list[i], refused
		if err == nil && r == nil && i < len(results) {
			r = results[i]
		}
		if one.a.ID != 0 {
			one.p.decided(&one.a, decisionTrouble(r, err))
		}
	}
}

func (d *decision) request() controller.MirrorPartition {
	q := d.p.mirrorPartition(d.a.Local)
	if d.isFinish {
		q.End, q.Parting = int64(d.end), d.p.parting()
		return q
	}
	switch d.a.Kind {
	case progress.Raise:
		q.Epoch = int32(d.a.Epoch)
	case progress.Cut:
		q.Cut = meta.Cut{Number: d.cut, Offset: int64(d.a.Offset)}
	default:
		put(&q, &d.a.Durable, &d.a.Was)
		q.TombstonesSince = d.since
		if d.a.Durable.HasBegun && !d.a.Was.HasBegun { // nothing is here yet that a tombstone could delete
			q.TombstonesSince = time.Now().UnixMilli()
		}
	}
	return q
}
