package progress

import (
	"math"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// maxLandmarks bounds how many times are kept of a kind.
const maxLandmarks = 64

// freshness says as of when the log here is complete.
type freshness struct {
	// asOf is a time at which the source had committed nothing that is not here; Never: none is known. It is proven by the log's end having been at heldTo, or beyond.
	asOf   time.Duration
	heldTo record.Offset
	// reached are such times, which ascend, for the present leader epoch of the source. A leader that was deposed and does not know it yet says them, too.
	reached []time.Duration
	// confirmed is the last of them that was before another broker still knew the same leader; Never: there is none.
	confirmed time.Duration
	// goal is a high watermark of the source that has not been reached here yet, and latest a later one.
	goal, latest sample
	// tombstones is the time since which all tombstones of the source were there to be read; Never: none is known.
	tombstones time.Duration
	// missed is a high watermark below which tombstones may be missing. If that is accepted, those beyond it are there to be read since it was asked for.
	missed sample
	// landmarks are ends of the log, which ascend, each with a time at which it was there.
	landmarks []landmark
	size      float64 // bytes of a record, about; 0: not known
}

// sample is a high watermark of the source, which it had not before a time.
type sample struct {
	at            time.Duration
	highWatermark record.Offset // -1: there is no sample
}

type landmark struct {
	at  time.Duration
	end record.Offset
}

func (f *freshness) forget() {
	none := sample{highWatermark: -1}
	*f = freshness{asOf: Never, confirmed: Never, tombstones: Never, goal: none, latest: none, missed: none, size: f.size}
}

// forgetLeader takes that another leader has been elected at the source. What the one before has said may be short of what was committed by then.
func (f *freshness) forgetLeader() {
	f.goal.highWatermark, f.latest.highWatermark, f.reached = -1, -1, nil
}

// lead takes that a leadership begins, with a log that ends at an offset.
func (f *freshness) lead(now time.Duration, end record.Offset, age Age, wasLeading bool) {
	asOf, heldTo, confirmed, tombstones, landmarks := f.asOf, f.heldTo, f.confirmed, f.tombstones, f.landmarks
	f.forget()
	if age.Held >= 0 {
		f.asOf, f.heldTo = now-age.Held, end
	}
	if age.Tombstones >= 0 {
		f.tombstones = now - age.Tombstones
	}
	f.landmarks = []landmark{{now, end}}
	if !wasLeading {
		return
	}
	if asOf > f.asOf && end >= heldTo {
		f.asOf, f.heldTo, f.confirmed = asOf, heldTo, confirmed
	}
	f.tombstones = max(f.tombstones, tombstones)
	for len(landmarks) > 0 && landmarks[len(landmarks)-1].end > end {
		landmarks = landmarks[:len(landmarks)-1]
	}
	f.landmarks = append(landmarks, f.landmarks...)
}

// take takes a high watermark of the source's leader, which was asked for at a time.
func (f *freshness) take(at time.Duration, highWatermark, end record.Offset) {
	f.latest = sample{at, highWatermark}
	if f.goal.highWatermark < 0 {
		f.goal = f.latest
	}
	f.reach(end)
}

// reach takes the log's end.
func (f *freshness) reach(end record.Offset) {
	for _, s := range []*sample{&f.goal, &f.latest} {
		if s.highWatermark < 0 || end < s.highWatermark {
			continue
		}
		if s.at > f.asOf {
			f.asOf, f.heldTo = s.at, s.highWatermark
			f.tombstones = max(f.tombstones, s.at)
			f.reached = append(f.reached, s.at)
		}
		s.highWatermark = -1
	}
	if f.goal.highWatermark < 0 {
		f.goal, f.latest.highWatermark = f.latest, -1
	}
	if len(f.reached) > maxLandmarks {
		f.reached = halve(f.reached)
	}
}

// halve drops every second element, but not the last one.
func halve[T any](all []T) []T {
	kept := all[:0]
	for i, one := range all {
		if i%2 == (len(all)-1)%2 {
			kept = append(kept, one)
		}
	}
	return kept
}

// accept takes that the metadata have accepted a loss.
func (f *freshness) accept(r Range) {
	if f.missed.highWatermark >= 0 && r.To == f.missed.highWatermark {
		f.tombstones = max(f.tombstones, f.missed.at)
	}
}

// confirm takes that at a time, or later, another broker of the source knew the leader that has answered since it was elected. Brokers learn of a new leader soon, but one that is cut off from all others does
// not learn of it, and goes on to answer with its own high watermark.
func (f *freshness) confirm(asked time.Duration) {
	for len(f.reached) > 0 && f.reached[0] < asked {
		f.confirmed, f.reached = max(f.confirmed, f.reached[0]), f.reached[1:]
	}
}

// stored takes that records were appended.
func (f *freshness) stored(now time.Duration, end, gained record.Offset, bytes int) {
	if gained > 0 && bytes > 0 {
		size := float64(bytes) / float64(gained)
		if f.size > 0 {
			size = 0.9*f.size + 0.1*size
		}
		f.size = size
	}
	f.landmarks = append(f.landmarks, landmark{now, end})
	if len(f.landmarks) > maxLandmarks { // what was appended before one that goes was here by the next one
		f.landmarks = halve(f.landmarks)
	}
	f.reach(end)
}

// areTombstonesLost tells whether tombstones may have been dropped at the source before they were read, if records up to an offset are appended: it drops them when they have been there for some time,
// and for longer than that the log here was not complete.
func (f *freshness) areTombstonesLost(now time.Duration, h *here, end record.Offset) bool {
	s := &h.assignment.Settings
	return s.IsCompacted && s.KeepTombstones > 0 && elapsed(now, f.tombstones) > s.KeepTombstones && !h.isLossAccepted(Range{h.log.End, end})
}

// Status is what a Mirror knows, for people and for a promotion.
type Status struct {
	State   State
	Reason  string // why it does not mirror
	Range   Range  // with Gap and TombstonesLost
	RetryAt time.Duration
	Source  Source
	Log     Log
	Lag     Lag
	// Tombstones is for how long, at most, tombstones may have been missed; negative: nobody knows.
	Tombstones time.Duration
}

// Lag is how far a mirror is behind its source, as far as is known. Nothing of it is negative.
type Lag struct {
	Records int64 // offsets that the source is known to have committed and that are not here: no fewer than the records
	Bytes   int64 // about
	// RPO is how long ago, at most, the mirror had all that the source had committed: what a failover now loses was written since. IsKnown tells whether that is known.
	RPO     time.Duration
	IsKnown bool
	// Behind is 0 while the mirror has all that is known of, and else the RPO.
	Behind time.Duration
}

// Status tells how the partition does.
func (m *Mirror) Status(now time.Duration) Status {
	s := Status{State: m.state(), Reason: m.pause.reason, RetryAt: m.pause.until, Source: m.source.Source, Log: m.log, Lag: m.fresh.lag(now, m.source.HighWatermark, m.position()), Tombstones: -1}
	if d := &m.assignment.Durable; m.isHalted() && d.State != Restoring { // which waits for something, too
		s.Reason = d.Reason
		if d.State == Gap || d.State == TombstonesLost {
			s.Range = d.Range
		}
	}
	if m.fresh.tombstones != Never {
		s.Tombstones = max(0, now-m.fresh.tombstones)
	}
	return s
}

func (m *Mirror) state() State {
	d := m.assignment.Durable.State
	switch {
	case !m.isLeading:
		return Idle
	case d == Promoting || d == Promoted:
		return d
	case m.assignment.IsPaused:
		return Paused
	case d != Mirroring:
		return d
	case m.want.Kind == Cut:
		return Cutting
	case m.pause.failures > 0:
		return Waiting
	case !m.assignment.Durable.HasBegun || !m.source.isLeaderKnown || m.comparison.isNeeded(&m.here, m.source.isOld) || m.comparison.stage != notSearching:
		return Preparing
	}
	return Mirroring
}

// lag is the lag of a mirror that copies the records from an offset on next.
func (f *freshness) lag(now time.Duration, highWatermark, next record.Offset) Lag {
	l := Lag{Records: max(0, int64(highWatermark-next)), IsKnown: f.asOf != Never}
	l.Bytes = int64(float64(l.Records) * f.size)
	if l.IsKnown {
		l.RPO = max(0, now-f.asOf)
	}
	if l.Records > 0 {
		l.Behind = l.RPO
	}
	return l
}

// Loss is what a report says of a partition that fails over.
type Loss struct {
	MirrorEnd     record.Offset
	HighWatermark record.Offset // of the source, the last that was heard of; -1: none
	End           record.Offset // of the source, the highest that was heard of: records beyond the high watermark may have been committed
	SinceContact  time.Duration // negative: there was no contact
	Lag           Lag
}

// Loss tells what a failover now may lose.
func (m *Mirror) Loss(now time.Duration) Loss {
	l := Loss{m.log.End, m.source.HighWatermark, m.source.End, -1, m.fresh.lag(now, m.source.HighWatermark, m.position())}
	if m.source.Contact != Never {
		l.SinceContact = max(0, now-m.source.Contact)
	}
	return l
}

// Later is a time that will not be.
const Later time.Duration = math.MaxInt64

// HeldAt tells what the log proves about transactions. At the time asOf the source had committed nothing that is not here (Never: no such time is known): the leader has said so, and since then another
// broker still knew this leader, by a Description. The record at an offset was here at the time mirroredBy, or before (Later: it is not here). Both count as long as this node leads.
func (m *Mirror) HeldAt(o record.Offset) (asOf, mirroredBy time.Duration) {
	mirroredBy = Later
	for _, l := range m.fresh.landmarks {
		if l.end > o {
			mirroredBy = l.at
			break
		}
	}
	return m.fresh.confirmed, mirroredBy
}
