package cluster

import (
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// partingOf is what the metadata say of how a partition has parted from its source; nil: it was not promoted.
func partingOf(m *meta.Image, r *meta.PartitionMirror) *PartingStatus {
	if r == nil || r.State != meta.PartitionPromoted {
		return nil
	}
	s := &PartingStatus{State: StateUnknown, End: -1, Start: -1, SourceEnd: -1, Records: -1, Bytes: -1}
	for _, l := range r.Lineages {
		if l.Cluster == m.ClusterID {
			s.Start, s.End = l.Start, l.Start
		}
	}
	for i := range r.Decisions {
		d := &r.Decisions[i]
		switch name := outcomeName(d.Outcome); {
		case name == "":
		case len(s.Transactions) == mostTransactions:
			s.More++
		default:
			s.Transactions = append(s.Transactions, PartedTransaction{d.Producer, d.Epoch, d.First, d.Commit, name})
		}
	}
	p := r.Parting
	if p == nil {
		return s
	}
	s.State, s.End, s.SourceEnd, s.Bytes = partingState(p.State), p.End, p.SourceEnd, p.Bytes
	if p.SourceEnd >= 0 {
		s.Records = max(0, p.SourceEnd-p.End)
	}
	s.Contact, s.AsOf, s.Begun = timeOf(p.ContactMs), timeOf(p.AsOfMs), timeOf(p.BegunMs)
	return s
}

// timeOf is a time in ms since 1970; 0: it is not known.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func partingState(s meta.PartitionMirrorState) string {
	if s == meta.PartitionMirrors {
		return "MIRRORING"
	}
	return haltedState(s)
}

// haltedState names the state of a partition that stands still; StateUnknown: it is not known to.
func haltedState(s meta.PartitionMirrorState) string {
	switch s { //nolint:exhaustive // the others do not stand still
	case meta.PartitionGap:
		return "GAP"
	case meta.PartitionTombstonesLost:
		return "TOMBSTONES_LOST"
	case meta.PartitionEmptying:
		return "CUTTING"
	case meta.PartitionRestoring:
		return "RESTORING"
	case meta.PartitionRecreated:
		return "SOURCE_RECREATED"
	case meta.PartitionDeleted:
		return "SOURCE_DELETED"
	case meta.PartitionFailed:
		return "FAILED"
	}
	return StateUnknown
}

// outcomeName names how a transaction has ended, by the number of a progress.Outcome; "": as at the source.
func outcomeName(outcome uint8) string {
	names := [...]string{"", "", "COMMITTED_BY_MARKER", "ABORTED_UNDECIDED", "ABORTED_LACKING", "TORN"}
	if int(outcome) < len(names) {
		return names[outcome]
	}
	return StateUnknown
}

// countTransactions is how many transactions are told of in the status of a partition.
func countTransactions(r *meta.PartitionMirror) (n int) {
	if r == nil || r.State != meta.PartitionPromoted {
		return 0
	}
	for i := range r.Decisions {
		if outcomeName(r.Decisions[i].Outcome) != "" {
			n++
		}
	}
	return min(n, mostTransactions)
}

// addPartings adds to partitions in the order of a list of topics how they have parted from their sources.
func addPartings(m *meta.Image, topics []*meta.Topic, list []PartitionStatus) {
	byName := map[string]*meta.Topic{}
	for _, t := range topics {
		byName[t.Name] = t
	}
	for i := range list {
		if t := byName[list[i].Topic]; int(list[i].Partition) < len(t.Partitions) {
			list[i].Parting = partingOf(m, t.Partitions[list[i].Partition].Mirror)
		}
	}
}
