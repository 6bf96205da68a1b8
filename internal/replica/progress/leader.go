package progress

import (
	"math"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Ends are the limits of a log.
type Ends struct {
	Start   record.Offset // the first offset that can be read
	End     record.Offset // the offset after the last record
	Durable record.Offset // everything below it is on disk
}

// Tail is the answer of a log to the question where the records of the epochs up to a given one
// end: the largest epoch that is not above it, and the offset after its last record.
type Tail struct {
	Epoch record.Epoch // NoEpoch: the log does not know
	End   record.Offset
}

// Assignment is a partition's part of the metadata. It never changes.
type Assignment struct {
	PartitionEpoch int32
	Replicas       []int32 // all of them, with those that are being added
	Adding         []int32 // of Replicas, those that a reassignment is adding
	AddingSince    int32   // the partition epoch at which that reassignment began
	ISR            []int32 // the in-sync set
	Eligible       []int32 // not in sync, and known to have all committed records
	MinISR         int     // min.insync.replicas
}

// needed is the least size of an in-sync set that can commit: min.insync.replicas, or the
// number of replicas if there are fewer. A replica that is being added does not raise it,
// since the partition did without it so far.
func (a *Assignment) needed() int {
	return max(1, min(a.MinISR, len(a.Replicas)-len(a.Adding)))
}

// isMember tells whether a replica has all committed records, as far as the metadata know.
func (a *Assignment) isMember(id int32) bool {
	return slices.Contains(a.ISR, id) || slices.Contains(a.Eligible, id)
}

// EnoughInSync tells whether records with acks=all can be accepted, which promises
// min.insync.replicas copies.
func (a *Assignment) EnoughInSync() bool { return len(a.ISR) >= a.needed() }

// Broker is the metadata's knowledge of a broker.
type Broker struct {
	Epoch   int64 // of its present registration
	MayJoin bool  // it is neither fenced nor shutting down
}

// Brokers is the metadata's knowledge of all brokers. It never changes.
type Brokers map[int32]Broker

// Config is what a Leader keeps to.
type Config struct {
	ID    int32         // of this node
	Lag   time.Duration // replica.lag.time.max.ms
	Retry time.Duration // the pause after the answer to a proposal
}

// Fetch is a follower's request for records. It is also its report.
type Fetch struct {
	ID          uint64 // the follower's number for it
	Replica     int32
	BrokerEpoch int64         // of the follower's registration
	Epoch       record.Epoch  // the leader epoch that the follower knows
	Assigned    int32         // the partition epoch that it knows
	Offset      record.Offset // the end of its log
	LastEpoch   record.Epoch  // the epoch of its last record; NoEpoch: unknown
	Start       record.Offset // the start of its log
	Durable     record.Offset // everything below it is on its disk
	// CannotStore says that the follower's log takes no records, or cannot even be read. Such a fetch asks for
	// none, and its ends mean nothing but for Offset, the end of the log where that is known.
	CannotStore bool
	// IsDamaged says that the log has lost records which it had, so that it is to be rebuilt. CannotStore is set, too.
	IsDamaged bool
}

// Report is a follower's news, between its fetches, that more of its records are on disk. Before the leader has compared
// the logs it is an objection: everything below Durable is committed, and the leader lacks some of it.
type Report struct {
	Replica     int32
	BrokerEpoch int64
	Epoch       record.Epoch
	Assigned    int32
	Durable     record.Offset
}

// Verdict is the leader's judgement of a fetch.
type Verdict uint8

// These are the verdicts.
const (
	Served       Verdict = iota // records from the fetch's offset on may be sent
	Diverged                    // the logs have parted
	OutOfRange                  // the offset is not in the leader's log
	FencedEpoch                 // the follower's leader epoch has ended
	UnknownEpoch                // the leader does not know the follower's leader epoch, or its place, yet
	StaleBroker                 // the follower has registered again since
	Unavailable                 // the leader's node cannot answer, for another reason
	Rebuild                     // the follower's log is damaged, nobody counts on it, and the leader has the records: another log is to take its place
)

// Compare judges the end of another replica's log: offset, and the epoch of the record before
// it (NoEpoch: unknown). own are the limits of this log, and tail its answer for lastEpoch.
// The verdict is Served, Diverged or OutOfRange.
func Compare(offset record.Offset, lastEpoch record.Epoch, own Ends, tail Tail) Verdict {
	switch {
	case offset < own.Start:
		return OutOfRange
	case lastEpoch == record.NoEpoch:
		if offset > own.End {
			return OutOfRange
		}
		return Served
	case tail.Epoch == record.NoEpoch || tail.End < 0:
		return OutOfRange
	case tail.Epoch < lastEpoch || tail.End < offset:
		return Diverged
	}
	return Served
}

// never is the time at which a replica had everything that never had it.
const never = time.Duration(math.MinInt64 / 2)

// Leader is the machine of the replica that leads a partition, for one leader epoch.
type Leader struct {
	cfg        Config
	epoch      record.Epoch
	epochStart record.Offset // the end of the own log when the epoch began
	own        Ends
	hw         record.Offset
	assigned   Assignment
	brokers    Brokers
	followers  []follower // one for each other replica
	change     change
	log        LogState
	logSince   time.Duration // since when the log is in that state
	isOpposed  bool          // a member has committed records that this leader lacks
	opposedAt  time.Duration // when that was known
}

// follower is the leader's knowledge of one follower.
type follower struct {
	id          int32
	brokerEpoch int64 // of the incarnation that has fetched last; 0: none has
	// addedAt is the partition epoch at which it was added; 0: it was there from the start.
	// A node that was removed and added again has a new log, of which messages from before
	// say nothing.
	addedAt int32
	// compared tells that the end of its log was found to agree with the leader's, in this
	// leader epoch and that incarnation. Before that the ends below are not known.
	compared   bool
	comparedIn int32 // the partition epoch that it knew then
	start      record.Offset
	fetched    record.Offset
	durable    record.Offset // never above fetched at the time, nor above the leader's end

	// At caughtUp it had on disk everything that the leader had then. The next proof of that
	// is a durable end that reaches goal, the leader's end at goalSet.
	caughtUp time.Duration
	goal     record.Offset
	goalSet  time.Duration

	refusal refusal
	damage  damage
	heard   heard
	parting parting
}

// Start is the state of the replica when it begins to lead.
type Start struct {
	Epoch         record.Epoch
	EpochStart    record.Offset // the offset at which the epoch begins: the log's end, unless it has records already
	Log           Ends
	HighWatermark record.Offset // as far as this replica knows
	// WasCut tells that the metadata have had the log end at CutTo, or before it, in this leader epoch. What was committed of earlier
	// epochs beyond that is not committed any more.
	WasCut bool
	CutTo  record.Offset
}

// NewLeader makes the machine of a leader whose epoch begins, and whose log has been cut if the metadata have a cut that it had
// not made. The log must know the epoch, so that Tails end where it begins, but that of a leader that mirrors: see TailOfMirror.
//
// A replica that was in sync has all records below its high watermark on disk. One that was not,
// and was elected all the same, may have heard of a high watermark above that.
func NewLeader(now time.Duration, cfg Config, s Start, a Assignment, b Brokers) *Leader {
	if s.WasCut {
		s.HighWatermark = min(s.HighWatermark, s.CutTo)
	}
	l := &Leader{
		cfg: cfg, epoch: s.Epoch, epochStart: s.EpochStart, own: s.Log,
		hw: min(max(s.HighWatermark, s.Log.Start), s.Log.Durable), brokers: b,
	}
	l.assign(now, a)
	l.advance(now)
	return l
}

// Epoch is the leader epoch.
func (l *Leader) Epoch() record.Epoch { return l.epoch }

// HighWatermark is the offset below which all records are committed.
func (l *Leader) HighWatermark() record.Offset { return l.hw }

// Readable is the high watermark as readers may be told it. ok is false until it has reached the
// start of the epoch: the leader before may have told readers of a higher one.
func (l *Leader) Readable() (hw record.Offset, ok bool) { return l.hw, l.hw >= l.epochStart }

// EnoughInSync tells whether records with acks=all can be accepted.
func (l *Leader) EnoughInSync() bool { return l.assigned.EnoughInSync() }

// Acked judges whether records with acks=all that end at an offset can be acknowledged. done:
// they are committed. If enough is false then, too few replicas are in sync by now, and the
// producer is told that.
func (l *Leader) Acked(end record.Offset) (done, enough bool) {
	return l.hw >= end, l.maximalSize() >= l.assigned.needed()
}

// LowWatermark is the lowest start of the replicas that are in sync or whose brokers are alive: no reader
// sees a record below it again, as long as leaders are elected without loss. It is -1 while the in-sync set
// is smaller than min.insync.replicas: then a replica that is away may be elected, too (KIP-966).
func (l *Leader) LowWatermark() record.Offset {
	if !l.EnoughInSync() {
		return -1
	}
	low := l.own.Start
	for i := range l.followers {
		f := &l.followers[i]
		if l.inMaximal(f.id) || l.brokers[f.id].MayJoin {
			low = min(low, f.start)
		}
	}
	return low
}

// Moved takes the limits of the leader's own log after they have changed. A follower that had
// everything until now was not late so far, however long ago its last fetch was: while nothing is
// appended a follower need not fetch.
func (l *Leader) Moved(now time.Duration, own Ends) {
	if own.End > l.own.End {
		for i := range l.followers {
			if r := &l.followers[i]; r.compared && !r.refusal.lasts && r.durable >= l.own.End {
				r.caughtUp, r.goal, r.goalSet = now, own.End, now
			}
		}
	}
	l.own = own
	l.advance(now)
}

// Assigned takes a change of the metadata that goes on with the same leader epoch. Changes
// must come in the order of the metadata log.
func (l *Leader) Assigned(now time.Duration, a Assignment) {
	l.assign(now, a)
	l.advance(now)
}

// BrokersChanged takes a change of the brokers.
func (l *Leader) BrokersChanged(now time.Duration, b Brokers) {
	l.brokers = b
	l.advance(now)
}

// Tick lets time pass.
func (l *Leader) Tick(now time.Duration) { l.advance(now) }

// AwaitsTime tells whether time alone may have the leader do something: the pause after a proposal
// ends, or a follower that is waited for counts as late. If it does not, Tick and Propose need not
// be called before the next event.
func (l *Leader) AwaitsTime() bool {
	if l.change.state == waiting || l.log != LogSound && len(l.followers) > 0 {
		return true
	}
	for i := range l.followers {
		r := &l.followers[i]
		member := l.inMaximal(r.id)
		if (member || l.mayJoin(r)) && (!r.compared || r.durable < l.own.End) || !member && l.mayJoin(r) && r.refusal.pause > 0 {
			return true
		}
	}
	return false
}

// FollowerEnds are the limits of a follower's log as its last fetch had them. ok is false if it has
// not fetched in this epoch, or is no replica.
func (l *Leader) FollowerEnds(id int32) (start, end record.Offset, ok bool) {
	r := l.follower(id)
	if r == nil || !r.compared {
		return -1, -1, false
	}
	return r.start, r.fetched, true
}

// Fetched takes a follower's fetch and judges it. tail is the own log's answer for the fetch's
// LastEpoch.
func (l *Leader) Fetched(now time.Duration, f *Fetch, tail Tail) Verdict {
	r := l.follower(f.Replica)
	switch {
	case f.Epoch < l.epoch:
		return FencedEpoch
	case f.Epoch > l.epoch || r == nil || f.Assigned < r.addedAt:
		return UnknownEpoch
	case f.BrokerEpoch < r.brokerEpoch || f.BrokerEpoch < l.brokers[f.Replica].Epoch:
		return StaleBroker
	}
	if f.BrokerEpoch > r.brokerEpoch {
		r.brokerEpoch, r.compared, r.durable = f.BrokerEpoch, false, 0
		r.refusal.lasts, r.damage, r.parting = false, damage{}, parting{}
		if !l.inMaximal(r.id) {
			r.caughtUp = never // nobody waits for it before it has caught up: it may come with an empty disk
		}
	}
	if f.CannotStore {
		return l.judgeUnusable(now, r, f)
	}
	if l.log == LogUnreadable {
		return Unavailable
	}
	r.damage = damage{}
	r.parting.askedAt = now
	v := Compare(f.Offset, f.LastEpoch, l.own, tail)
	if l.IsBehind() {
		r.parting.hasCut = r.parting.hasCut || v == Served
		return Unavailable // nobody else cuts committed records that this leader lacks
	}
	if v != Served {
		r.noteParting(f, v, l.own, tail)
		return v
	}
	if !r.compared {
		if f.Offset == l.own.Start && f.Start < f.Offset {
			// The leader has deleted the records that could tell whether the follower's are the same, so
			// the follower must not keep them either, nor what it knows of their producers.
			return OutOfRange
		}
		r.compared, r.goal, r.goalSet = true, l.own.End, now
		r.comparedIn, r.parting.isKnown = f.Assigned, false
	}
	r.start, r.fetched = f.Start, f.Offset
	l.endRefusal(now, r)
	l.noteDurable(now, r, min(f.Durable, f.Offset))
	return Served
}

// Reported takes a follower's report. It counts as a durable end only if the leader has compared the logs in
// this epoch: the follower's records may differ from the leader's before that. Then it is an objection.
func (l *Leader) Reported(now time.Duration, p Report) {
	r := l.follower(p.Replica)
	switch {
	case r == nil || p.Epoch != l.epoch || p.Assigned < r.addedAt || p.BrokerEpoch != r.brokerEpoch:
	case !r.compared:
		noteObjection(l, now, r)
	case p.Assigned >= r.comparedIn: // else it is an objection that comes late
		l.noteDurable(now, r, p.Durable)
	}
}

// noteDurable takes a follower's durable end. An older message may come after a newer one, so
// the end never falls.
func (l *Leader) noteDurable(now time.Duration, r *follower, durable record.Offset) {
	r.durable = max(r.durable, min(durable, l.own.End))
	switch {
	case r.durable >= l.own.End:
		r.caughtUp, r.goal, r.goalSet = now, l.own.End, now
	case r.durable >= r.goal:
		r.caughtUp, r.goal, r.goalSet = max(r.caughtUp, r.goalSet), l.own.End, now
	}
	l.advance(now)
}

// assign replaces the assignment. What is known of replicas that stay is kept. The metadata may
// come with several changes at once, so a replica that was removed and added again is known by
// AddingSince alone.
func (l *Leader) assign(now time.Duration, a Assignment) {
	if a.PartitionEpoch > l.assigned.PartitionEpoch {
		l.change = change{attempt: l.change.attempt}
	}
	old, was := l.followers, l.assigned.ISR
	l.assigned, l.followers = a, nil
	for _, id := range a.Replicas {
		if id == l.cfg.ID {
			continue
		}
		r := follower{id: id, caughtUp: never, heard: heard{at: never}}
		if i := slices.IndexFunc(old, func(r follower) bool { return r.id == id }); i >= 0 {
			r = old[i]
		}
		if slices.Contains(a.Adding, id) && a.AddingSince > r.addedAt {
			r = follower{id: id, addedAt: a.AddingSince, caughtUp: never, heard: r.heard}
		}
		r.strike(&a)
		if slices.Contains(a.ISR, id) && !slices.Contains(was, id) {
			r.caughtUp = now // from now on it has Lag to show itself
		}
		l.followers = append(l.followers, r)
	}
}

func (l *Leader) follower(id int32) *follower {
	for i := range l.followers {
		if l.followers[i].id == id {
			return &l.followers[i]
		}
	}
	return nil
}

// advance raises the high watermark as far as the rules allow.
func (l *Leader) advance(now time.Duration) {
	if !l.EnoughInSync() || l.log == LogUnreadable || l.IsBehind() {
		return
	}
	end, known := l.own.Durable, 0
	for i := range l.followers {
		r := &l.followers[i]
		member := l.inMaximal(r.id)
		if member && !r.compared {
			return
		}
		if member {
			known++
		}
		// A replica that is about to join is waited for. Otherwise it might never meet the
		// high watermark while records come.
		if member || l.isExpected(now, r) && !l.lags(now, r) {
			end = min(end, r.durable)
		}
	}
	if l.inMaximal(l.cfg.ID) {
		known++
	}
	if known == l.maximalSize() {
		l.hw = max(l.hw, end)
	}
}

// lags tells whether a follower cannot store, or did not have everything on disk for longer than is allowed.
func (l *Leader) lags(now time.Duration, r *follower) bool {
	return r.refusal.lasts || (!r.compared || r.durable < l.own.End) && now-r.caughtUp > l.cfg.Lag
}

// mayJoin tells whether a follower may be in an in-sync set: it can store, and the metadata knows its broker
// as the incarnation that fetches, and as one that is neither fenced nor leaving.
func (l *Leader) mayJoin(r *follower) bool {
	return r.compared && !r.refusal.lasts && l.isPresent(r)
}

// isExpected tells whether a follower may join now: the pause after its last refusal is over.
func (l *Leader) isExpected(now time.Duration, r *follower) bool {
	return l.mayJoin(r) && now >= r.refusal.joinFrom
}
