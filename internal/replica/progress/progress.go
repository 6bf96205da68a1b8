// Package progress has the rules by which a partition makes progress, as pure
// functions: who must have a record before it is committed, whether there are enough
// of them, how far the high watermark is. There are no locks, clocks or logs here;
// package replica asks, and acts.
package progress

import "github.com/leatstream/leat/internal/record"

// Member is a replica of whose log's end on disk this node knows.
type Member struct {
	ID  int32
	End record.Offset // everything below it is on the replica's disk
}

// State is what the rules look at: the partition's part of the metadata, and the ends
// that are known.
type State struct {
	ISR      []int32  // the in-sync set
	Replicas int      // how many replicas the partition has
	MinISR   int      // min.insync.replicas
	Known    []Member // in no order; a member that is not here has an unknown end
}

// EnoughInSync tells whether a record may be taken that all in-sync replicas must have:
// acks=all promises min.insync.replicas copies. A partition with fewer replicas than
// that asks for all that it has.
func (s *State) EnoughInSync() bool {
	return len(s.ISR) > 0 && len(s.ISR) >= min(s.MinISR, s.Replicas)
}

// InSyncEnd is the least end over the in-sync set: what a failover to any of its
// members keeps. ok is false where the end of a member is not known, or there is none.
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

// HighWatermark is where the high watermark is next, from where it is now. It never
// falls. A member whose end is unknown holds it, and so does an in-sync set that is too
// small for acks=all (KIP-966): what only few replicas have is shown to nobody.
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
