package mirror

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// A promotion has these steps. Each is begun by what the metadata say, so that whoever leads, or runs the tasks, goes on after a crash.
//
//	the topic is promoting            leaders append nothing of the source any more
//	all of that is committed here     the node that runs the tasks asks the leaders what they can prove, and decides (promoter)
//	it is decided                     leaders write markers for what is open, in a new leader epoch (partition.promote)
//	the markers are committed         leaders ask for the end, and clients write in the next leader epoch

const (
	// endAgain is the pause after markers could not be written, and finishAgain after which the controller is asked again for the end of a promotion.
	endAgain    = 200 * time.Millisecond
	finishAgain = 2 * time.Second
	// mostMarkers is how many commit markers of the source are kept of all partitions together: one for each producer in a partition. Beyond that others of the partition go.
	mostMarkers = 200_000
)

// promotion is what a partition needs to be promoted. It is guarded by the partition's mu.
type promotion struct {
	committed map[int64]progress.Committed // the last commit marker of each producer
	// held is a time at which the source had committed nothing that was not here, and committed, and next one that counts when all up to its end is committed.
	held, next heldUpTo
	finishAt   time.Duration // when the controller was asked for the end; Never: it was not
	outcome    atomic.Pointer[endOutcome]
	awaited    *endOutcome // what is waited for; nil: nothing
}

// heldUpTo is a time of progress.Mirror.HeldAt, and where the log ended then.
type heldUpTo struct {
	asOf time.Duration
	end  record.Offset
}

// endOutcome is how the commit of markers has ended. It is another one for each leadership.
type endOutcome struct {
	end record.Offset
	err error
}

// begin takes that a leadership begins.
func (m *promotion) begin(s *Service) {
	s.markers.Add(-int64(len(m.committed)))
	m.committed, m.awaited, m.finishAt = nil, nil, progress.Never
	m.held, m.next = heldUpTo{progress.Never, 0}, heldUpTo{progress.Never, 0}
}

// noteMarkers notes the commit markers among batches that were appended.
func (m *promotion) noteMarkers(s *Service, batches []byte) {
	for len(batches) > 0 {
		b, rest, err := record.Next(batches)
		if err != nil {
			return
		}
		batches = rest
		if !b.Control() || b.ProducerID() < 0 {
			continue
		}
		if marker, err := record.ReadMarker(b); err != nil || !marker.Commit {
			continue
		}
		_, isKnown := m.committed[b.ProducerID()]
		if !isKnown && s.markers.Load() >= mostMarkers {
			for id := range m.committed { // any one: what is forgotten proves nothing
				delete(m.committed, id)
				s.markers.Add(-1)
				break
			}
		}
		if m.committed == nil {
			m.committed = map[int64]progress.Committed{}
		}
		if !isKnown {
			s.markers.Add(1)
		}
		m.committed[b.ProducerID()] = progress.Committed{Producer: b.ProducerID(), MarkerEpoch: b.ProducerEpoch(), Seen: s.now()}
	}
}

// noteHeld notes as of when the log has all that the source had committed, for when that is committed here, too.
func (p *partition) noteHeld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		return
	}
	ends, err := p.s.cfg.Transactions(p.id).Ends(p.at.epoch)
	if err != nil {
		return
	}
	asOf, _ := p.machine.HeldAt(0)
	p.promotion.note(asOf, &ends)
}

func (m *promotion) note(asOf time.Duration, ends *LogEnds) {
	if m.next.asOf != progress.Never && ends.HighWatermark >= m.next.end {
		m.held, m.next = m.next, heldUpTo{progress.Never, 0}
	}
	switch {
	case ends.isCommitted():
		m.held = heldUpTo{asOf, ends.End}
	case m.next.asOf == progress.Never:
		m.next = heldUpTo{asOf, ends.End}
	}
}

// promote ends the transactions of a partition for which that is decided, and then asks for the end of the promotion. mu is held.
func (p *partition) promote() {
	o, m := p.at, &p.promotion
	if o == nil || o.mirror.State != meta.PartitionPromoting || !o.mirror.IsDecided || p.reading != nil {
		return
	}
	if m.awaited == nil {
		if err := p.endTransactions(o); err != nil {
			p.s.cfg.Logger.Warn("the transactions of a promoted partition cannot be ended; it is tried again", "topic", o.topic, "partition", p.id.Number, "err", err)
			p.s.timers.set(p, p.s.now()+endAgain, true)
			return
		}
	}
	outcome := m.outcome.Load()
	if outcome == nil || outcome != m.awaited { // the wait goes on, and has a turn when it ends
		return
	}
	if outcome.err != nil {
		m.awaited = nil
		p.s.timers.set(p, p.s.now()+endAgain, true)
		return
	}
	now := p.s.now()
	if m.finishAt == progress.Never || now-m.finishAt >= finishAgain {
		m.finishAt = now
		p.s.decider.add(decision{p: p, isFinish: true, a: progress.Action{Local: o.epoch}, end: outcome.end})
	}
	p.s.timers.set(p, m.finishAt+finishAgain, true)
}

// endTransactions writes the markers of transactions that are open, and begins to wait until all of the log is committed. One that no decision names is aborted. mu is held.
func (p *partition) endTransactions(o *order) error {
	tx := p.s.cfg.Transactions(p.id)
	open, err := tx.Open()
	if err != nil {
		return err
	}
	ends, err := tx.Ends(o.epoch)
	switch {
	case err != nil:
		return err
	case !ends.IsLast:
		return errNotPromoting
	}
	end := ends.End
	if len(open) > 0 {
		if end, err = tx.End(o.epoch, endingsOf(o.mirror, open)); err != nil {
			return err
		}
		p.appended = true
	}
	awaited := &endOutcome{end: end}
	p.promotion.awaited = awaited
	tx.AwaitCommit(o.epoch, end, func(err error) {
		awaited.err = err
		p.promotion.outcome.Store(awaited)
		p.s.turns.add(p)
	})
	return nil
}

// errNotPromoting says that the replica does not know yet that it is promoted in that leader epoch.
var errNotPromoting = errors.New("the replica does not know yet that it is promoted")

// endingsOf is how transactions end that are open in a partition.
func endingsOf(r *meta.PartitionMirror, open []OpenTransaction) []Ending {
	decided := make(map[int64]*meta.MirrorDecision, len(r.Decisions))
	for i := range r.Decisions {
		if d := &r.Decisions[i]; d.First >= 0 {
			decided[d.Producer] = d
		}
	}
	list := make([]Ending, len(open))
	for i, one := range open {
		list[i] = Ending{Transaction: one, Epoch: progress.BumpEpoch(one.Epoch)}
		if d := decided[one.Producer]; d != nil && d.Epoch == one.Epoch {
			list[i].Epoch, list[i].Commit = d.MarkerEpoch, d.Commit
		}
	}
	return list
}

// ended is what a partition had when nothing of the source came into it any more. Its node goes on to claim for it, since other partitions of its transactions may be promoted later.
type ended struct {
	link    meta.UUID
	epoch   int32 // the leader epoch in which that was so
	holding progress.Holding
}

// hasEnded tells whether the node goes on to claim for partitions of a link that it has promoted, while others of the link mirror.
func (s *Service) hasEnded(link meta.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetEndedLocked(link)
	for _, e := range s.ended {
		if e.link == link {
			return true
		}
	}
	return false
}

// forgetEndedLocked forgets what the link's partitions had that are gone, and all of it if nothing mirrors by the link any more. mu is held.
func (s *Service) forgetEndedLocked(link meta.UUID) {
	img := s.cfg.Image()
	mirrors := false
	for t := range img.Mirrors(link) {
		mirrors = mirrors || t.IsMirror()
	}
	for id, e := range s.ended {
		if t := img.TopicByID(id.Topic); e.link == link && (!mirrors || t == nil || t.Mirror == nil || !t.Partitions[id.Number].Mirror.IsEndOfSource()) {
			delete(s.ended, id)
		}
	}
}
