package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// PartingStatus tells, of a partition that was promoted, what was known of its source when that began.
type PartingStatus struct {
	State     string `json:"state"`     // what the partition did until then, as in PartitionStatus.State; StateUnknown
	End       int64  `json:"end"`       // from where on records of the source are missing here; -1: not known
	Start     int64  `json:"start"`     // from where on clients write here; -1: not known
	SourceEnd int64  `json:"sourceEnd"` // the last high watermark of the source that was known; -1: none was
	Records   int64  `json:"records"`   // how many offsets lie between End and SourceEnd; -1: not known
	Bytes     int64  `json:"bytes"`     // about how many bytes; -1: not known
	// Contact is when the source last answered, AsOf a time at which it had committed nothing that is not here, and Begun when the promotion began; zero: not known.
	Contact time.Time `json:"contact,omitzero"`
	AsOf    time.Time `json:"asOf,omitzero"`
	Begun   time.Time `json:"begun,omitzero"`
}

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

// DescribeMirrors tells how the partitions of topics do that mirror by a link, or of all of its topics, by the answers of all nodes, and which nodes have not answered.
func DescribeMirrors(ctx context.Context, c *Controller, l *meta.Link, topics []string) (list []PartitionStatus, silent []SilentNode, err error) {
	q := &LinkRequest{Verb: LinkDescribe, Name: l.Name, Topics: topics}
	for {
		a, refused, err := describeLink(ctx, c, l, q)
		switch {
		case err != nil:
			return nil, nil, err
		case refused != nil: // a topic was deleted just now
			return nil, nil, errors.New(refused.Message)
		}
		list, silent = append(list, a.Partitions...), a.Silent
		if a.More == 0 || len(a.Partitions) == 0 {
			return list, silent, nil
		}
		q.After = &a.Partitions[len(a.Partitions)-1].PartitionPlace
	}
}
