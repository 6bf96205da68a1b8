package replica

import (
	"slices"
	"strconv"

	"github.com/leatstream/leat/internal/record"
)

// deletion is the answer to a DeleteRecords: in a leader epoch a client was told that all below the start is
// deleted.
type deletion struct {
	epoch record.Epoch
	start record.Offset
}

// losses tells apart which acknowledged records a topic in the page cache may lose. A node that ends, by a power
// cut or by a kill, or whose disk fails, counts as one that has lost what was not synced, until it is registered
// again and is in sync or eligible by what it has fetched since. When no node is left that is in sync or eligible and has not
// ended, all that was acknowledged so far is excused: an era of the records ends.
type losses struct {
	isPossible bool
	era        int
	last       record.Epoch    // of leaders in the last era: replicas that are left in it may show what is lost
	ended      map[int32]int64 // the broker epochs with which nodes have ended last
	excused    map[string]bool // values that were acknowledged and may be lost
}

func (s *losses) excuse(value string) {
	if s.excused == nil {
		s.excused = map[string]bool{}
	}
	s.excused[value] = true
}

// areExcused tells whether all values of a producer with numbers from..to-1 may be lost.
func (s *losses) areExcused(producer string, from, to int) bool {
	for n := from; n < to; n++ {
		if !s.excused[producer+":"+strconv.Itoa(n)] {
			return false
		}
	}
	return from < to
}

// noteEnd notes that a node is about to end, and ends the era if nobody is left who has everything.
func (x *chaos) noteEnd(m *member) {
	if !x.losses.isPossible || m.present() == nil {
		return
	}
	img, _ := x.c.snapshot()
	x.mu.Lock()
	defer x.mu.Unlock()
	s := &x.losses
	if s.ended == nil {
		s.ended = map[int32]int64{}
	}
	s.ended[m.id] = img.Brokers[m.id].Epoch
	p := &img.Topic("t").Partitions[0]
	for _, id := range slices.Concat(p.ISR, p.Eligible) {
		if at, hasEnded := s.ended[id]; !hasEnded || img.Brokers[id].Epoch > at {
			return
		}
	}
	x.counts["page cache lost"]++
	x.c.note("all that was acknowledged may be lost with node %d", m.id)
	s.era, s.last = s.era+1, record.Epoch(p.LeaderEpoch)
	for v := range x.acked {
		s.excuse(v)
	}
	clear(x.acked)
	clear(x.seen)
	clear(x.shown)
	x.told = deletion{}
}

// isPast tells whether a reader may have seen what is lost.
func (s *losses) isPast(r *reading) bool { return r.era < s.era || s.era > 0 && r.at.Epoch <= s.last }

// era is the present era of losses.
func (x *chaos) era() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.losses.era
}

// noteDeletion notes what a client was told that has asked in an era.
func (x *chaos) noteDeletion(era int, d deletion) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if era == x.losses.era && d.start > x.told.start {
		x.counts["deletion answered"]++
		x.told = d
	}
}
