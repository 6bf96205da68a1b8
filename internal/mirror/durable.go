package mirror

import (
	"slices"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// durableStates are the states of a partition in the metadata, by those of its machine; 0: such a state is not durable.
var durableStates = [...]meta.PartitionMirrorState{
	progress.Mirroring: meta.PartitionMirrors, progress.Gap: meta.PartitionGap, progress.TombstonesLost: meta.PartitionTombstonesLost,
	progress.SourceDeleted: meta.PartitionDeleted, progress.SourceRecreated: meta.PartitionRecreated, progress.Failed: meta.PartitionFailed,
	progress.Cutting: meta.PartitionEmptying, progress.Restoring: meta.PartitionRestoring, progress.Promoting: meta.PartitionPromoting, progress.Promoted: meta.PartitionPromoted,
}

// stateOf is the state of a machine by that in the metadata.
func stateOf(s meta.PartitionMirrorState) progress.State {
	return progress.State(max(0, slices.Index(durableStates[:], s)))
}

// durableOf is what the metadata have of a partition.
func durableOf(r *meta.PartitionMirror) progress.Durable {
	return progress.Durable{
		Fork: forkOf(r), State: stateOf(r.State), Reason: r.Reason, Range: progress.Range{From: record.Offset(r.Gap.Start), To: record.Offset(r.Gap.End)},
		HasBegun: r.Begin.IsDecided, Begin: record.Offset(r.Begin.Offset), Topic: progress.TopicID(r.Begin.Topic),
	}
}

// forkOf is where the source of a partition that is restored began to write it by itself.
func forkOf(r *meta.PartitionMirror) (f progress.Fork) {
	if n := len(r.Lineages); r.State == meta.PartitionRestoring && n > 0 {
		f = progress.Fork{Epoch: record.Epoch(r.Lineages[n-1].Epoch), Offset: record.Offset(r.Lineages[n-1].Start)}
	}
	return f
}

// put puts what a machine declares into a change. was is what it takes the metadata to have.
func put(q *controller.MirrorPartition, d, was *progress.Durable) {
	q.State, q.Reason, q.Gap = durableStates[d.State], d.Reason, gapOf(d)
	q.Begin = beginOf(d)
	q.Was = &meta.PartitionMirror{State: durableStates[was.State], Gap: gapOf(was), Begin: *beginOf(was)}
}

func gapOf(d *progress.Durable) meta.OffsetRange {
	if d.Range.IsEmpty() {
		return meta.OffsetRange{}
	}
	return meta.OffsetRange{Start: int64(d.Range.From), End: int64(d.Range.To)}
}

func beginOf(d *progress.Durable) *meta.MirrorBegin {
	if !d.HasBegun {
		return &meta.MirrorBegin{}
	}
	return &meta.MirrorBegin{IsDecided: true, Offset: int64(d.Begin), Topic: meta.UUID(d.Topic)}
}
