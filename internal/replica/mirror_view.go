package replica

import (
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// ErrEpochBack is returned for a batch that is mirrored and has a lower epoch than the one before it.
var ErrEpochBack = storage.ErrEpochBack

// CountCommits counts the commits for which producers on any connection have waited.
func CountCommits(s *Set) int64 { return s.prompt.Load() }

// MirrorEnds are the limits of the log of a partition that mirrors. Unlike readers, who mirrors sees what is not committed.
func MirrorEnds(p *Partition) (ends Limits, err error) {
	log := p.log.Load()
	all, err := logEnds(log)
	if err != nil {
		return Limits{LastEpoch: record.NoEpoch}, err
	}
	return Limits{all.Start, all.End, log.EpochAt(all.End)}, nil
}

// Limits are those of the log of a partition that mirrors.
type Limits struct {
	Start, End record.Offset
	LastEpoch  record.Epoch // of its last record, also if that is deleted; NoEpoch: it had none
}

// MirrorEpochEnd finds the largest epoch of the log that is not above e, and the offset after its last record, as MirrorEnds sees them. It is NoEpoch if there is none, or if e is above the last one.
func MirrorEpochEnd(p *Partition, e record.Epoch) (record.Epoch, record.Offset, error) {
	return p.log.Load().EpochEnd(e)
}
