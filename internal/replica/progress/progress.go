// Package progress has the rules by which a partition makes progress, as pure functions of a
// State: which replicas must have a record before it is committed, whether enough of them are
// in sync, and where the high watermark is. It has no locks, clocks or logs; package replica
// calls it and acts on the results. Any goroutine may call anything here on its own State.
package progress

import "github.com/leatstream/leat/internal/record"

// Member is a replica whose end on disk this node knows.
type Member struct {
	ID  int32
	End record.Offset // everything below it is on the replica's disk
}

// State is the input of the rules: the partition's part of the metadata, and the known ends.
type State struct {
	ISR      []int32  // the in-sync set
	Replicas int      // how many replicas the partition has
	MinISR   int      // min.insync.replicas
	Known    []Member // in no order; the end of a replica that is not here is unknown
}

// EnoughInSync tells whether records with acks=all can be accepted, which promises
// min.insync.replicas copies. A partition with fewer replicas than that needs all that it has.
func (s *State) EnoughInSync() bool {
	return len(s.ISR) > 0 && len(s.ISR) >= min(s.MinISR, s.Replicas)
}

// InSyncEnd is the lowest end in the in-sync set: a failover to any of its members keeps the
// records below it. ok is false if the end of a member is unknown, or the set is empty.
func (s *State) InSyncEnd() (end record.Offset, ok bool) {
	for i, id := range s.ISR {
		e, known := s.endOf(id)
		if !known {
			return 0, false
		}
		if i == 0 || e < end {
			end = e
		}
	}
	return end, len(s.ISR) > 0
}

// HighWatermark is the next high watermark after now, which is never lower. It stays if the
// end of a member is unknown, or if the in-sync set is too small for acks=all (KIP-966):
// records that too few replicas have are not shown to readers.
func (s *State) HighWatermark(now record.Offset) record.Offset {
	end, ok := s.InSyncEnd()
	if !ok || !s.EnoughInSync() {
		return now
	}
	return max(now, end)
}

func (s *State) endOf(id int32) (record.Offset, bool) {
	for i := range s.Known {
		if s.Known[i].ID == id {
			return s.Known[i].End, true
		}
	}
	return 0, false
}
