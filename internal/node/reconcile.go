package node

import (
	"fmt"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/record"
)

// apply follows the metadata log, on the quorum's goroutine.
func (n *Node) apply(u quorum.Update) {
	if u.Snapshot != nil {
		img, _, err := meta.Apply(meta.Empty(), u.Snapshot)
		if err != nil {
			n.fail(fmt.Errorf("cannot read the metadata snapshot: %w", err))
			return
		}
		n.publish(meta.Diff(n.image.Load(), img), img)
	}
	for _, e := range u.Entries {
		img, d, err := meta.ApplyAt(n.image.Load(), e.Index, e.Data)
		if err != nil {
			// What follows rests on this entry: better to stop than to guess.
			n.fail(fmt.Errorf("cannot read entry %d of the metadata log: %w", e.Index, err))
			return
		}
		n.publish(d, img)
	}
}

func (n *Node) publish(d *meta.Delta, img *meta.Image) {
	n.image.Store(img)
	if n.set != nil && n.broker != nil {
		n.reconcile(d, img)
	}
}

// reconcile brings everything on this node to where the image has it, in this order:
// partitions first, then what runs on them.
func (n *Node) reconcile(d *meta.Delta, img *meta.Image) {
	n.set.Apply(d, img)
	for _, ch := range d.Topics {
		switch {
		case ch.New != nil && ch.New.Name == group.Topic:
			n.lead(ch.New)
		case ch.New == nil && ch.Old.Name == group.Topic:
			for i := range ch.Old.Partitions {
				n.groups.StopLeading(int32(i))
			}
		case ch.New == nil:
			n.groups.TopicDeleted(ch.Old.Name, ch.Old.ID)
		}
	}
	for r := range d.Configs {
		if r.Type == config.Broker && n.wire != nil {
			n.wire.SetLimits(n.limits())
			break
		}
	}
}

// lead starts and stops coordinators where this node leads the offsets topic.
func (n *Node) lead(t *meta.Topic) {
	for i := range t.Partitions {
		mp := &t.Partitions[i]
		if p := n.set.Partition(t.Name, int32(i)); p != nil && mp.Leader == n.id.nodeID {
			n.groups.StartLeading(int32(i), record.Epoch(mp.LeaderEpoch), p)
		} else {
			n.groups.StopLeading(int32(i))
		}
	}
}

// offsetsPartitions is how many partitions the offsets topic has; 0: it is not there.
func (n *Node) offsetsPartitions() int32 {
	t := n.image.Load().Topic(group.Topic)
	if t == nil {
		return 0
	}
	return int32(len(t.Partitions))
}
