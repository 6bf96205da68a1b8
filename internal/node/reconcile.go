package node

import (
	"fmt"
	"iter"
	"log/slog"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/record"
)

// follower is how far the node acts on the metadata. Only the goroutine that applies
// it changes it.
//
//	replaying --- everything is built, and the image has this start active ---> following
//
// While it is replaying only the image moves. The step to following brings everything
// on this node to where the image is, and from then on each change does: no change is
// lost between the two, and nothing is led or deleted before the image has all that was
// decided in this node's former lives.
type follower uint8

const (
	replaying follower = iota
	following
)

// apply follows the metadata log, on the quorum's goroutine. With an error the image
// stays, and the node ends: see Node.watchQuorum.
func (n *Node) apply(u quorum.Update) error {
	before := n.image.Load()
	base := before
	if u.Snapshot != nil {
		var err error
		if base, _, err = meta.Apply(meta.Empty(), u.Snapshot); err != nil {
			return fmt.Errorf("the metadata snapshot: %w", err)
		}
	}
	img, d, err := meta.ApplyAll(base, records(u.Entries))
	if err != nil {
		return err
	}
	deleted := d.Deleted
	if u.Snapshot != nil {
		d = meta.Diff(before, img)
	}
	if n.follower == replaying {
		n.deleted.add(deleted)
	}
	n.publish(d, img)
	if n.follower == following && len(u.Entries) > 0 {
		n.store.NoteMetadata(u.Entries[len(u.Entries)-1].Index)
	}
	return nil
}

func records(entries []quorum.Entry) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := range entries {
			if !yield(entries[i].Index, entries[i].Data) {
				return
			}
		}
	}
}

func (n *Node) publish(d *meta.Delta, img *meta.Image) {
	n.image.Store(img)
	if n.follower == replaying {
		if !n.built.Load() || !n.isActive(img) {
			return
		}
		n.follower, d = following, meta.Diff(meta.Empty(), img)
	}
	n.reconcile(d, img)
}

// isActive tells whether the image has this very start of the node as one that serves.
func (n *Node) isActive(img *meta.Image) bool {
	b := img.Brokers[n.id.nodeID]
	return b != nil && b.Incarnation == n.incarnation && b.State != meta.BrokerFenced
}

// reconcile brings everything on this node to where the image has it, in this order:
// partitions first, then what runs on them; of the latter what is gone first, since a
// topic may be deleted and made again under its name in one step.
func (n *Node) reconcile(d *meta.Delta, img *meta.Image) {
	n.set.Apply(d, img)
	for _, ch := range d.Topics {
		switch {
		case ch.New == nil && ch.Old.Name == group.Topic:
			for i := range ch.Old.Partitions {
				n.groups.StopLeading(int32(i))
			}
		case ch.New == nil:
			n.groups.TopicDeleted(ch.Old.Name, ch.Old.ID)
		}
	}
	for _, ch := range d.Topics {
		if ch.New != nil && ch.New.Name == group.Topic {
			n.lead(ch)
		}
	}
	limited, warned := false, 0
	for r := range d.Configs {
		limited = limited || r.Type == config.Broker
		if warned < maxConfigWarnings && warnIneffective(n.loggers.logger(rootLogger), r, img.Overrides(r)) {
			warned++
		}
	}
	if limited {
		n.wire.SetLimits(n.limits())
	}
}

// maxConfigWarnings is how many resources one step of the metadata is warned of: a start is one
// step for all of them.
const maxConfigWarnings = 20

// warnIneffective logs which of the configs that were set have no effect, and tells whether
// there are any: the protocol has no place for that in the answer of a change that succeeds.
func warnIneffective(logger *slog.Logger, r config.Resource, set map[string]string) bool {
	sentences := config.Ineffective(r.Type, set)
	for _, w := range sentences {
		logger.Warn("a config changes nothing", "of", r.Type.String(), "name", r.Name, "why", w)
	}
	return len(sentences) > 0
}

// lead starts and stops coordinators where the leadership of the offsets topic has
// changed.
func (n *Node) lead(ch meta.TopicChange) {
	for i := range ch.New.Partitions {
		mp := &ch.New.Partitions[i]
		if ch.Old != nil && i < len(ch.Old.Partitions) && ch.Old.Partitions[i].Leader == mp.Leader && ch.Old.Partitions[i].LeaderEpoch == mp.LeaderEpoch {
			continue
		}
		if p := n.set.Partition(ch.New.Name, int32(i)); p != nil && mp.Leader == n.id.nodeID {
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
