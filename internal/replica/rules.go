package replica

import (
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// rules has the machine that computes a partition's high watermark, with the input that the
// machine has. Guarded by Partition.mu.
type rules struct {
	machine *progress.Leader // nil: this node does not lead, or the log was not used yet
	of      *Leadership
	minISR  int
}

// begin makes the machine of a leader epoch.
func (r *rules) begin(now time.Duration, cfg progress.Config, s progress.Start, l *Leadership, minISR int) {
	r.machine = progress.NewLeader(now, cfg, s, assignment(l, minISR), nil)
	r.of, r.minISR = l, minISR
}

// leadsIn tells whether there is a machine for a leader epoch.
func (r *rules) leadsIn(e record.Epoch) bool { return r.machine != nil && r.machine.Epoch() == e }

// advance tells the machine of the leadership and the log's ends, and returns the high
// watermark; -1: this node does not lead.
func (r *rules) advance(now time.Duration, l *Leadership, minISR int, ends progress.Ends) record.Offset {
	if r.machine == nil {
		return -1
	}
	if r.of != l || r.minISR != minISR {
		r.machine.Assigned(now, assignment(l, minISR))
		r.of, r.minISR = l, minISR
	}
	r.machine.Moved(now, ends)
	return r.machine.HighWatermark()
}

// assignment is the partition's part of the metadata as the rules see it.
func assignment(l *Leadership, minISR int) progress.Assignment {
	return progress.Assignment{
		PartitionEpoch: l.PartitionEpoch, Replicas: l.Replicas, Adding: l.Adding, ISR: l.ISR, MinISR: minISR,
	}
}

// logEnds are a log's ends. The committed one is read first, so that it is never above the end.
func logEnds(log *storage.Log) (ends progress.Ends, err error) {
	if ends.Durable, err = log.Committed(); err != nil {
		return ends, err
	}
	if ends.Start, err = log.Start(); err != nil {
		return ends, err
	}
	ends.End, err = log.End()
	return ends, err
}

// beginning is the state in which a replica begins to lead.
func beginning(log *storage.Log, l *Leadership, ends progress.Ends) progress.Start {
	s := progress.Start{Epoch: l.Epoch, EpochStart: ends.End, Log: ends}
	// The log may have begun the epoch, and have records of it.
	if e, at, err := log.EpochEnd(l.Epoch - 1); err == nil && e != record.NoEpoch {
		s.EpochStart = at
	} else if l.Epoch == 0 {
		s.EpochStart = ends.Start
	}
	if hw, err := log.HighWatermark(); err == nil {
		s.HighWatermark = hw
	}
	return s
}
