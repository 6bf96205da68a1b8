package controller

import (
	"math"

	"github.com/leatstream/leat/internal/meta"
)

// restoreMirror has an ordinary topic mirror the one of the cluster that took over from this one. From that entry on no client writes here. Nothing is cut yet: the leader of each partition, in a new leader epoch,
// finds out where the logs part, and asks for the cut. Lineages say until then, and for ever, who wrote what.
func (l Links) restoreMirror(a *MirrorTopic) (records []byte, refused *Error) {
	t := l.Image.TopicByID(a.ID)
	switch {
	case t == nil:
		return nil, refuse(UnknownTopicID, "")
	case a.Mirror == nil || a.Mirror.TopicID == meta.UUID{}:
		return nil, refuse(InvalidRequest, "The topic %s can only mirror again one that has an id.", t.Name)
	}
	of := *a
	of.Name = t.Name
	link, refused := l.checkSource(&of)
	switch {
	case refused != nil:
		return nil, refused
	case t.IsMirror() && t.Mirror.Link == link.ID && t.Mirror.TopicID == a.Mirror.TopicID:
		return nil, nil
	case t.IsMirror():
		return nil, refuse(PolicyViolation, "The topic %s mirrors another one.", t.Name)
	case len(a.Forks) < len(t.Partitions):
		return nil, refuse(InvalidPartitions, "The topic %s has %d partitions here, and only %d at the source: a partition that the source lacks cannot mirror it. Copy its records elsewhere, and delete the topic here.", t.Name, len(t.Partitions), len(a.Forks))
	}
	mirror := *a.Mirror
	mirror.State = meta.MirrorActive
	records = meta.Append(nil, meta.MirrorSet{Topic: t.ID, Mirror: &mirror})
	m := mirrorDecision{Rules: l.Rules}
	for i := range t.Partitions {
		fork := a.Forks[i]
		switch {
		case fork.From != l.Image.ClusterID:
			return nil, refuse(PolicyViolation, "Partition %d of the topic %s at the source comes from the cluster %q, and not from this one: what is here cannot be compared with it.", i, t.Name, fork.From)
		case fork.Topic != t.ID:
			return nil, refuse(PolicyViolation, "Partition %d of the topic %s at the source was mirrored from another topic of that name, which is gone: what is here cannot be compared with it. Delete it here, and the link copies what the source has.", i, t.Name)
		case fork.Epoch < 1 || fork.Offset < 0 || fork.Epoch == math.MaxInt32:
			return nil, refuse(InvalidRequest, "The source has taken partition %d of the topic %s over at offset %d in epoch %d, which cannot be.", i, t.Name, fork.Offset, fork.Epoch)
		}
		raised, _, refused := m.raise(t, int32(i), t.Partitions[i].LeaderEpoch+1)
		if refused != nil {
			return nil, refused
		}
		next := meta.PartitionMirror{Lineages: []meta.Lineage{{Cluster: l.Image.ClusterID}}}
		if was := t.Partitions[i].Mirror; was != nil { // it was mirrored and promoted before
			next = *was
		}
		next = *next.WithLineage(meta.Lineage{Cluster: link.Source, Epoch: fork.Epoch, Start: fork.Offset})
		next.State, next.Reason, next.Gap, next.TombstonesSince = meta.PartitionRestoring, "", meta.OffsetRange{}, 0
		next.IsDecided, next.Decisions, next.Parting = false, nil, nil // of the promotion before
		next.Begin = meta.MirrorBegin{IsDecided: true, Topic: a.Mirror.TopicID}
		if err := next.Check(); err != nil {
			return nil, refuse(InvalidRequest, "Partition %d of the topic %s: the metadata cannot have that: %v.", i, t.Name, err)
		}
		records = append(records, raised...)
		records = meta.Append(records, meta.PartitionMirrorSet{Topic: t.ID, Partition: int32(i), PartitionMirror: next})
	}
	return records, nil
}
