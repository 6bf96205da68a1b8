package meta

import (
	"errors"
	"fmt"
	"slices"
)

// Limits of mirrors.
const (
	// MaxPath is over how many clusters a topic may come.
	MaxPath = 16
	// MaxLineages is how many lineages a partition keeps, and MaxCuts how many cuts.
	MaxLineages = 16
	MaxCuts     = 8
	// MaxMirrorReason is how many bytes PartitionMirror.Reason may have.
	MaxMirrorReason = 200
	// MaxDecisions is how many decisions a partition has.
	MaxDecisions = 2000
)

// MirrorPathConfig is a config of a topic that mirrors, which nobody can set: the ids of the clusters over which its records have come to this one, the one first in which clients write. By it a
// cluster that mirrors the topic in turn knows that it must not go back to one of them.
const MirrorPathConfig = "leat.mirror.path"

// ClusterTagConfig is a config of any topic, which nobody can set and who does not ask for it by its name is not told of: the cluster's part of producer ids (Image.Tag). Two clusters with one tag
// cannot be linked.
const ClusterTagConfig = "leat.cluster.tag"

// Mirror is what a topic has that mirrors another one, or has mirrored one and was promoted. It never changes, so that an equal pointer means an equal one.
type Mirror struct {
	Link    UUID   // zero: the topic was promoted, and its link is gone
	Topic   string // its name at the source
	TopicID UUID   // its id at the source; zero: the source has no topic ids
	// Path is the ids of clusters from the one where clients write the topic to the source. The id of this cluster is never in it. The path of a topic that was
	// promoted is of no use to who mirrors that topic: it begins with this cluster.
	Path  []string
	State MirrorState
}

// MirrorState says what a topic does with the one that it mirrors.
//
//	MirrorActive <---> MirrorPaused
//	   |                    |
//	   '---------.----------'
//	             v
//	       MirrorPromoting: all of its partitions are PartitionPromoting, or PartitionPromoted by now
//	             |
//	             v
//	       MirrorPromoted: all of them are PartitionPromoted
type MirrorState uint8

// The states. A number never gets another meaning; 0 has none.
const (
	MirrorActive MirrorState = iota + 1
	MirrorPaused
	MirrorPromoting
	MirrorPromoted
)

// Equal tells whether two mirrors are the same in everything.
func (r *Mirror) Equal(o *Mirror) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.Link == o.Link && r.Topic == o.Topic && r.TopicID == o.TopicID && r.State == o.State && slices.Equal(r.Path, o.Path)
}

// Check returns what a mirror lacks, or has too much of.
func (r *Mirror) Check() error {
	switch {
	case r.State < MirrorActive || r.State > MirrorPromoted:
		return fmt.Errorf("state %d of a mirror", r.State)
	case r.Link == UUID{} && r.State != MirrorPromoted:
		return errors.New("a mirror without a link")
	case r.Topic == "" || len(r.Topic) > maxSourceTopic:
		return fmt.Errorf("a mirror of the topic %.100q", r.Topic)
	case len(r.Path) == 0 || len(r.Path) > MaxPath:
		return fmt.Errorf("a mirror that comes over %d clusters", len(r.Path))
	}
	for i, id := range r.Path {
		if !isClusterID(id) || slices.Contains(r.Path[:i], id) {
			return fmt.Errorf("a mirror comes over the cluster %.100q, or twice", id)
		}
	}
	return nil
}

// MirrorSet sets what a topic mirrors. With MirrorPromoting all of its partitions that mirror become PartitionPromoting, and
// with MirrorActive and MirrorPaused those that were promoted become PartitionMirrors. If Mirror is nil, the topic and its partitions mirror
// nothing any more, which is possible while no partition has cuts.
type MirrorSet struct {
	Topic  UUID
	Mirror *Mirror
}

// PartitionMirror is what a partition has that mirrors one of another cluster, or has mirrored one and was promoted. It never changes, so that an equal pointer means
// an equal one. A change of the partition's leader, its replicas or its in-sync set leaves it as it is.
type PartitionMirror struct {
	State  PartitionMirrorState
	Reason string // why it is in that state, for people, at most MaxMirrorReason bytes
	// Gap is, with PartitionGap, the offsets that the source has no more and this partition has not fetched; with PartitionTombstonesLost, those in which tombstones may be missing here. With
	// another state it is the last such range that the partition was allowed to leave out; zero: there was none.
	Gap OffsetRange
	// Begin says where the partition began to mirror.
	Begin MirrorBegin
	// TombstonesSince is a time, in ms since 1970: whatever the source has deleted by tombstones since then was there to be read when it was read. 0: no such time is known.
	TombstonesSince int64
	// Lineages say which clusters wrote the partition, the oldest first, at most MaxLineages: the starts ascend, and the epochs do not fall.
	Lineages []Lineage
	// Cuts are in the order of their numbers and of their offsets, at most MaxCuts: see WithCut. The last cut stays for ever.
	Cuts []Cut
	// With IsDecided it is decided how each transaction ends that was open when the topic was promoted: as Decisions say, at most MaxDecisions, and one that they do not name is aborted. It comes in a leader
	// epoch above all epochs of the source, in which the leader writes the markers. Both are set once, and then stay, since other partitions of the link follow them; they end if the partition mirrors again.
	IsDecided bool
	Decisions []MirrorDecision
	// Parting is, of a partition that was promoted, what was known of its source then; nil: its leader has told nothing, or it was not promoted. It ends if the partition mirrors again.
	Parting *Parting
}

// Parting is what the leader of a partition knew of its source when the promotion of the partition began. What is lost by the promotion is told from it. It never changes.
type Parting struct {
	State     PartitionMirrorState // what the partition did then; 0: that is not known
	End       int64                // from where on records of the source are missing here: the end of the log, unless a loss behind it was accepted
	SourceEnd int64                // the last high watermark of the source that was known; -1: none was
	Bytes     int64                // about how many bytes the source has from End up to SourceEnd; -1: that is not known
	// These are times in ms since 1970; 0: not known. ContactMs is when the source last answered, AsOfMs a time at which it had committed nothing that is not here, and BegunMs when the leader learned of the promotion.
	ContactMs, AsOfMs, BegunMs int64
}

// Check returns what a parting has that cannot be.
func (p *Parting) Check() error {
	if p == nil {
		return nil
	}
	if p.State >= PartitionPromoting || p.End < 0 || p.SourceEnd < -1 || p.Bytes < -1 || p.ContactMs < 0 || p.AsOfMs < 0 || p.BegunMs < 0 {
		return fmt.Errorf("it parts from its source with %+v", *p)
	}
	return nil
}

// isEqual tells whether two say the same.
func (p *Parting) isEqual(o *Parting) bool {
	if p == nil || o == nil {
		return p == o
	}
	return *p == *o
}

// MirrorDecision says how a transaction ends in a partition that is promoted.
type MirrorDecision struct {
	Producer    int64 `json:"producer"`
	Epoch       int16 `json:"epoch"`       // of its records
	MarkerEpoch int16 `json:"markerEpoch"` // of the marker that ends it
	First       int64 `json:"first"`       // the offset of its first record; -1: nothing is open, it is only to be told of
	Commit      bool  `json:"commit"`
	Outcome     uint8 `json:"outcome"` // why: a progress.Outcome
}

// PartitionMirrorState says what a partition does with the one that it mirrors.
//
//	PartitionRestoring: an ordinary partition that is to mirror
//	        | a cut
//	        v
//	PartitionMirrors <---> PartitionGap, PartitionTombstonesLost, PartitionRecreated, PartitionDeleted, PartitionFailed, PartitionEmptying
//	        |                                        |
//	        '--------------------.-------------------'
//	                             | the topic becomes MirrorPromoting
//	                             v
//	                    PartitionPromoting
//	                             |
//	                             v
//	                    PartitionPromoted: it is an ordinary partition, and clients write to it
type PartitionMirrorState uint8

// The states. A number never gets another meaning; 0 has none.
const (
	PartitionMirrors        PartitionMirrorState = iota + 1
	PartitionGap                                 // the source has begun beyond the end of this partition
	PartitionTombstonesLost                      // the source may have dropped tombstones that this partition has not fetched: deleted keys live on
	PartitionRecreated                           // the source has another topic of the name
	PartitionDeleted                             // the source has no such partition any more
	PartitionFailed                              // what the source has cannot be mirrored
	PartitionEmptying                            // all records here are to be cut, and are then mirrored anew
	PartitionRestoring                           // clients have written it here; it is to mirror the cluster of the last lineage, and all replicas are cut first where the logs part
	PartitionPromoting
	PartitionPromoted
)

// MirrorBegin says where a partition began to mirror, and of which topic of the source all its later records are.
type MirrorBegin struct {
	IsDecided bool // false: it has no records, and the rest has no meaning
	Offset    int64
	Topic     UUID // zero: the source has no topic ids
}

// OffsetRange is the offsets from Start on and below End.
type OffsetRange struct{ Start, End int64 }

// Lineage says which cluster wrote a range of a partition: from Start on, up to the next lineage's start.
type Lineage struct {
	Cluster string // its id
	Epoch   int32  // the first leader epoch of the range, at that cluster
	Start   int64  // an offset
}

// Cut says that every replica has the log end at Offset, once, before it does anything else from the cut on.
type Cut struct {
	Number int32 // counts from 1 in each partition
	Offset int64
}

// LastCut is the newest cut; zero: there was none.
func (r *PartitionMirror) LastCut() Cut {
	if r == nil || len(r.Cuts) == 0 {
		return Cut{}
	}
	return r.Cuts[len(r.Cuts)-1]
}

// PendingCut is what a replica has to cut that has obeyed all cuts up to the number done: its log ends at the offset then, and the number is the one that it has
// obeyed. ok is false if there is nothing to cut.
func (r *PartitionMirror) PendingCut(done int32) (c Cut, ok bool) {
	if r == nil {
		return Cut{}, false
	}
	i := slices.IndexFunc(r.Cuts, func(c Cut) bool { return c.Number > done })
	if i < 0 {
		return Cut{}, false
	}
	return Cut{Number: r.LastCut().Number, Offset: r.Cuts[i].Offset}, true // offsets ascend: the first one is the lowest
}

// WithCut is the same with one more cut, which has the next number, and without the lineages beyond it. A cut takes the place of those that do not lie below it. If there
// are too many, the two oldest become one that has the higher number and the lower offset: who has obeyed only the first one cuts more than it must, and fetches it again.
func (r *PartitionMirror) WithCut(offset int64) *PartitionMirror {
	next := *r
	next.Cuts = slices.DeleteFunc(slices.Clone(r.Cuts), func(c Cut) bool { return c.Offset >= offset })
	next.Cuts = append(next.Cuts, Cut{Number: r.LastCut().Number + 1, Offset: offset})
	if len(next.Cuts) > MaxCuts {
		next.Cuts[1].Offset = next.Cuts[0].Offset
		next.Cuts = next.Cuts[1:]
	}
	next.Lineages = slices.DeleteFunc(slices.Clone(r.Lineages), func(l Lineage) bool { return l.Start > offset })
	return &next
}

// WithLineage is the same with one more lineage, which takes the place of those that do not begin before it. If there are too many, the oldest one takes over the range of
// the next.
func (r *PartitionMirror) WithLineage(l Lineage) *PartitionMirror {
	next := *r
	next.Lineages = slices.DeleteFunc(slices.Clone(r.Lineages), func(o Lineage) bool { return o.Start >= l.Start })
	next.Lineages = append(next.Lineages, l)
	if len(next.Lineages) > MaxLineages {
		next.Lineages = slices.Delete(next.Lineages, 1, 2)
	}
	return &next
}

// Equal tells whether two are the same in everything.
func (r *PartitionMirror) Equal(o *PartitionMirror) bool {
	if r == nil || o == nil || r == o {
		return r == o
	}
	return r.State == o.State && r.Reason == o.Reason && r.Gap == o.Gap && r.Begin == o.Begin && r.TombstonesSince == o.TombstonesSince && slices.Equal(r.Lineages, o.Lineages) && slices.Equal(r.Cuts, o.Cuts) &&
		r.Parting.isEqual(o.Parting) && r.hasDecisionsOf(o)
}

// hasDecisionsOf tells whether two have the same decisions.
func (r *PartitionMirror) hasDecisionsOf(o *PartitionMirror) bool {
	return r.IsDecided == o.IsDecided && slices.Equal(r.Decisions, o.Decisions)
}

// IsEndOfSource tells whether nothing of the source comes into the partition any more.
func (r *PartitionMirror) IsEndOfSource() bool { return r != nil && r.State >= PartitionPromoting }

// fits tells whether a partition can be in its state while its topic is in that of its own.
func (r *PartitionMirror) fits(topic *Mirror) bool {
	switch topic.State {
	case MirrorPromoting:
		return r.State >= PartitionPromoting
	case MirrorPromoted:
		return r.State == PartitionPromoted
	default:
		return r.State < PartitionPromoting
	}
}

// Check returns what a partition's mirror lacks, or has too much of.
func (r *PartitionMirror) Check() error {
	switch {
	case r.State < PartitionMirrors || r.State > PartitionPromoted:
		return fmt.Errorf("state %d of a partition that mirrors", r.State)
	case len(r.Reason) > MaxMirrorReason:
		return fmt.Errorf("a reason of %d bytes", len(r.Reason))
	case r.Gap != OffsetRange{} && (r.Gap.Start < 0 || r.Gap.End <= r.Gap.Start), r.Gap == OffsetRange{} && (r.State == PartitionGap || r.State == PartitionTombstonesLost):
		return fmt.Errorf("a gap of %+v in state %d", r.Gap, r.State)
	case r.Begin.Offset < 0 || !r.Begin.IsDecided && r.Begin != MirrorBegin{} || r.TombstonesSince < 0:
		return fmt.Errorf("it begins at %+v, with all tombstones since %d", r.Begin, r.TombstonesSince)
	case r.State == PartitionRestoring && len(r.Lineages) == 0:
		return errors.New("it is restored, and nobody knows by whom it was taken over")
	case len(r.Lineages) > MaxLineages || len(r.Cuts) > MaxCuts:
		return fmt.Errorf("%d lineages and %d cuts", len(r.Lineages), len(r.Cuts))
	}
	if err := r.checkDecisions(); err != nil {
		return err
	}
	for i, l := range r.Lineages {
		if !isClusterID(l.Cluster) || l.Epoch < 0 || l.Start < 0 || i > 0 && (l.Epoch < r.Lineages[i-1].Epoch || l.Start <= r.Lineages[i-1].Start) {
			return fmt.Errorf("lineages %+v", r.Lineages)
		}
	}
	for i, c := range r.Cuts {
		if c.Number < 1 || c.Offset < 0 || i > 0 && (c.Number <= r.Cuts[i-1].Number || c.Offset <= r.Cuts[i-1].Offset) {
			return fmt.Errorf("cuts %v", r.Cuts)
		}
	}
	return r.Parting.Check()
}

func (r *PartitionMirror) checkDecisions() error {
	if r.IsDecided && r.State < PartitionPromoting || !r.IsDecided && len(r.Decisions) > 0 || len(r.Decisions) > MaxDecisions {
		return fmt.Errorf("%d decisions about transactions in state %d", len(r.Decisions), r.State)
	}
	for _, d := range r.Decisions {
		if d.Producer < 0 || d.Epoch < 0 || d.MarkerEpoch < d.Epoch || d.First < -1 {
			return fmt.Errorf("a decision about a transaction: %+v", d)
		}
	}
	return nil
}

// PartitionMirrorSet sets how far a partition of a topic mirrors that has a Mirror. One with a new cut stands behind the record that raises the partition's leader epoch,
// in the same entry.
type PartitionMirrorSet struct {
	Topic     UUID
	Partition int32
	PartitionMirror
}
