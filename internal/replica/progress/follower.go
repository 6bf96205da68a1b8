package progress

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Batch is a batch of an answer, as far as the rules look at it.
type Batch struct {
	Base  record.Offset
	Next  record.Offset // the offset after its last record
	Epoch record.Epoch
}

// Answer is the leader's answer to a fetch.
type Answer struct {
	ID            uint64 // of the fetch
	Verdict       Verdict
	Diverging     Tail          // if Diverged: the leader's answer for the fetch's LastEpoch
	HighWatermark record.Offset // the leader's
	Start, End    record.Offset // of the leader's log
	Batches       []Batch       // if Served
}

// Step is work on the log that an answer asks for. The owner does it and calls Wrote or
// WriteFailed.
type Step struct {
	Kind    StepKind
	To      record.Offset // of Truncate and Restart
	Batches int           // of Append: how many of the answer's batches
}

// StepKind is a kind of work on the log.
type StepKind uint8

// These are the kinds of work.
const (
	NoStep   StepKind = iota
	Truncate          // cut the log, so that no record lies at To or beyond
	Restart           // drop all records and begin anew at To
	Append            // append the answer's first batches with their offsets and epochs
)

// followerState is a state of a Follower; the package's documentation has the drawing.
type followerState uint8

const (
	idle     followerState = iota // nobody leads
	ready                         // the next fetch is to be sent, from the time retry on
	fetching                      // a fetch is under way
	writing                       // the owner does a Step
	fenced                        // the leader knows a newer epoch: metadata will come
)

// Following is the state of a replica's log when it begins to follow.
type Following struct {
	Log           Ends
	LastEpoch     record.Epoch // the epoch of the last record, as the log knows it; NoEpoch: it has none
	HighWatermark record.Offset
}

// Follower is the machine of a replica that follows the leader.
type Follower struct {
	id          int32
	brokerEpoch int64
	backoff     time.Duration // the pause after an answer that was of no use

	state    followerState
	leader   int32 // -1: none
	epoch    record.Epoch
	assigned int32 // the partition epoch
	isMember bool  // the metadata have this replica in sync or eligible: so it has all that is committed
	log      Ends
	last     record.Epoch // the epoch of the last record; an empty answer and a moved start leave it (KAFKA-15510)
	hw       record.Offset

	fetchID uint64
	retry   time.Duration
	// compared tells that the leader of this epoch has found no difference between the logs.
	compared bool
	reported record.Offset // the highest durable end that this leader was told
	// objection is the end of the committed records that this replica has, while the leader is to be told that it lacks some
	// of them; 0: it is not.
	objection record.Offset
	told      Answer // while an append is under way: its answer
	// mustCut tells that the metadata have a cut which the log has not made, and isVoid that the Step which is under way was asked for
	// before such a cut.
	mustCut, isVoid bool

	storing storing
	isTold  bool // the last fetch said that the log cannot store
}

// storing says whether the log takes records.
type storing uint8

const (
	canStore   storing = iota
	mayRecover         // it does not, for now
	cannotEver         // it has a fault, so that the replica has to be rebuilt
)

// NewFollower makes the machine of a replica whose broker is registered with an epoch. Nobody is
// followed yet.
func NewFollower(id int32, brokerEpoch int64, backoff time.Duration, s Following) *Follower {
	f := &Follower{id: id, brokerEpoch: brokerEpoch, backoff: backoff, leader: -1, epoch: record.NoEpoch, last: s.LastEpoch, hw: s.HighWatermark}
	f.setLog(s.Log)
	return f
}

// Leader is the node that is followed (-1: none), and its epoch.
func (f *Follower) Leader() (int32, record.Epoch) { return f.leader, f.epoch }

// HighWatermark is the offset below which all records are committed, as far as this replica
// knows. It is never above the end of the own log.
func (f *Follower) HighWatermark() record.Offset { return f.hw }

// Start is the start that the own log should have: the leader's, which is never above the high
// watermark. A follower deletes no record by rules of its own.
func (f *Follower) Start() record.Offset { return f.log.Start }

// CannotStore tells that the log takes no records, as far as is known. The leader is told so, and asked for none. isLasting:
// it never takes any again.
func (f *Follower) CannotStore() (cannot, isLasting bool) {
	return f.storing != canStore, f.storing == cannotEver
}

// TryStoring has the next fetch ask for records again, unless the log has a fault, or the leader is still to be told that it
// cannot store.
func (f *Follower) TryStoring() {
	if f.storing == mayRecover && f.isTold {
		f.storing = canStore
	}
}

// LogFailed takes that the log has a fault. The leader is told at once.
func (f *Follower) LogFailed(now time.Duration) {
	if f.storing == cannotEver {
		return
	}
	f.storing = cannotEver
	if f.state == ready || f.state == fetching {
		f.resume(now)
	}
}

// Follow takes a change of the metadata: the leader (-1: none), its epoch, the partition epoch, and whether this
// replica is a member: in sync, or eligible.
func (f *Follower) Follow(now time.Duration, leader int32, epoch record.Epoch, assigned int32, isMember bool) {
	f.assigned, f.isMember = assigned, isMember
	if !isMember {
		f.objection = 0 // after a cut, one that names this partition epoch would be taken for a durable end
	}
	if leader == f.leader && epoch == f.epoch {
		return
	}
	f.leader, f.epoch = leader, epoch
	f.compared, f.reported, f.objection = false, -1, 0
	if f.state != writing {
		f.resume(now)
	}
}

// MustCut takes that the metadata have a cut which the log has not made. It comes before Follow, with the leader epoch of the cut. The
// machine fetches and reports nothing before WasCut: its records beyond the cut count for nobody, and no leader may be told of them.
func (f *Follower) MustCut() {
	f.mustCut, f.objection = true, 0
	f.isVoid = f.isVoid || f.state == writing
}

// WasCut takes that the log has made all cuts of the metadata: its limits, and the epoch of its last record (NoEpoch: it has none).
// What was committed beyond its end is not committed any more.
func (f *Follower) WasCut(now time.Duration, log Ends, last record.Epoch) {
	f.mustCut = false
	f.last, f.log, f.told = last, log, Answer{}
	f.hw = min(f.hw, log.End)
	f.compared, f.reported, f.objection = false, -1, 0
	if f.state != writing {
		f.resume(now)
	}
}

// isHeld tells whether nothing is fetched before the log is cut. One that has a fault is never cut: the leader is told so, and that another one
// is to take its place.
func (f *Follower) isHeld() bool { return f.mustCut && f.storing != cannotEver }

// MayWrite tells whether the Step that is under way may be done. If it may not, the owner calls StepDropped: the log was cut since it was
// asked for, or is to be.
func (f *Follower) MayWrite() bool { return f.state == writing && !f.isVoid && !f.mustCut }

// resume leads to the next fetch, at a time.
func (f *Follower) resume(at time.Duration) {
	f.state, f.retry, f.isVoid = ready, at, false
	if f.leader < 0 {
		f.state = idle
	}
}

// RetryAt is the time from which on NextFetch returns a fetch; ok is false if another event must
// come first.
func (f *Follower) RetryAt() (at time.Duration, ok bool) {
	return f.retry, f.state == ready && !f.mustCut
}

// NextFetch returns the next fetch, if one is to be sent now. Its sender must call Answered or
// FetchLost at the end.
func (f *Follower) NextFetch(now time.Duration) (Fetch, bool) {
	if f.state != ready || now < f.retry || f.isHeld() {
		return Fetch{}, false
	}
	f.state, f.isTold = fetching, f.storing != canStore
	f.fetchID++
	if !f.isTold {
		f.reported = f.log.Durable
	}
	return Fetch{
		ID: f.fetchID, Replica: f.id, BrokerEpoch: f.brokerEpoch, Epoch: f.epoch, Assigned: f.assigned,
		Offset: f.log.End, LastEpoch: f.last, Start: f.log.Start, Durable: f.log.Durable, CannotStore: f.isTold,
	}, true
}

// FetchLost takes that there will be no answer to a fetch.
func (f *Follower) FetchLost(now time.Duration, id uint64) {
	if f.state == fetching && id == f.fetchID {
		f.resume(now + f.backoff)
	}
}

// Answered takes the answer to a fetch, and returns the work on the log that it asks for. own is
// the own log's answer for the epoch of a.Diverging. An answer to an earlier fetch is not heeded.
func (f *Follower) Answered(now time.Duration, a *Answer, own Tail) Step {
	if f.state != fetching || a.ID != f.fetchID {
		return Step{}
	}
	if f.isTold && a.Verdict != FencedEpoch {
		f.resume(now + f.backoff)
		return Step{}
	}
	switch a.Verdict {
	case Served:
		return f.takeRecords(now, a)
	case Diverged:
		return f.cut(now, f.partingPoint(a.Diverging, own))
	case OutOfRange:
		return f.enterRange(now, a)
	case FencedEpoch:
		f.state = fenced
	case UnknownEpoch, StaleBroker, Unavailable, Rebuild:
		f.resume(now + f.backoff)
	}
	return Step{}
}

// partingPoint is the end of the records that can be the leader's too. leader is the leader's
// last epoch that is not above the own last one, with its end; own is the same of the own log
// for the leader's epoch. Own records of epochs that the leader does not have must go, even
// those below the leader's end (KIP-279).
func (f *Follower) partingPoint(leader, own Tail) record.Offset {
	if own.Epoch == record.NoEpoch {
		return min(leader.End, f.log.End)
	}
	return min(leader.End, own.End, f.log.End)
}

// cut asks for a truncation. A cut at the end would change nothing, so the answer is of no use.
func (f *Follower) cut(now time.Duration, to record.Offset) Step {
	if to >= f.log.End {
		f.resume(now + f.backoff)
		return Step{}
	}
	if f.mustKeep(to) {
		return f.object(now)
	}
	f.state, f.told = writing, Answer{}
	return Step{Kind: Truncate, To: max(to, f.log.Start)}
}

// enterRange deals with a leader that does not have the end of the own log. If all own records are
// gone there, they are of no use. If it ends before, the own records that are below its end are
// compared next.
func (f *Follower) enterRange(now time.Duration, a *Answer) Step {
	if f.mustKeep(a.End) {
		return f.object(now)
	}
	if a.Start < f.log.End && f.log.Start <= a.End {
		return f.cut(now, a.End)
	}
	f.state, f.told = writing, Answer{HighWatermark: a.Start}
	return Step{Kind: Restart, To: a.Start}
}

// mustKeep tells whether this replica has committed records from an offset on, at which the leader's log ends or has parted
// from its own. A leader that was elected without loss has them all, so this one was put back from an older copy.
//
// The sets of the metadata tell such an election from an unclean one, after which the records must go: then nobody but
// the leader is in sync or eligible before it has compared its log with that leader's.
func (f *Follower) mustKeep(from record.Offset) bool { return f.isMember && f.committedEnd() > from }

// committedEnd is the end of the records on this disk that are known to be committed.
func (f *Follower) committedEnd() record.Offset { return min(f.hw, f.log.Durable) }

// object keeps the log as it is, and has the leader told of what it lacks. That is repeated after a pause, until the metadata
// have another leader, or do not count on this replica any more.
func (f *Follower) object(now time.Duration) Step {
	f.objection = f.committedEnd()
	f.resume(now + f.backoff)
	return Step{}
}

// takeRecords takes an answer without a difference.
func (f *Follower) takeRecords(now time.Duration, a *Answer) Step {
	f.compared = true
	n := f.countFollowing(a.Batches)
	switch {
	case n > 0:
		f.state, f.told = writing, *a
		return Step{Kind: Append, Batches: n}
	case len(a.Batches) > 0:
		f.heed(a) // if all own records are deleted at the leader, its next batch may begin among them
		f.resume(now + f.backoff)
	default:
		f.heed(a)
		f.resume(now)
	}
	return Step{}
}

// countFollowing counts the first batches that follow the own log: their offsets and epochs
// rise, and none is of an epoch after the leader's, who may have lost its place and appended
// another leader's records before it read them (KAFKA-18723). Only a log that has no records may
// begin within a batch, since the leader's start may lie there.
func (f *Follower) countFollowing(batches []Batch) int {
	end, last := f.log.End, f.last
	for i := range batches {
		b := &batches[i]
		if i == 0 && f.log.Start == f.log.End && b.Next > end {
			end = min(end, b.Base)
		}
		if b.Base < end || b.Next <= b.Base || b.Epoch < last || b.Epoch > f.epoch {
			return i
		}
		end, last = b.Next, b.Epoch
	}
	return len(batches)
}

// heed takes the leader's high watermark and start, as far as the own log has come.
func (f *Follower) heed(a *Answer) {
	f.hw = max(f.hw, min(a.HighWatermark, f.log.End))
	f.log.Start = max(f.log.Start, min(a.Start, f.hw))
}

// Wrote takes the end of a Step: the limits of the log and the epoch of its last record (NoEpoch:
// the log has none).
func (f *Follower) Wrote(now time.Duration, log Ends, last record.Epoch) {
	if f.state != writing {
		return
	}
	f.last = last
	f.setLog(log)
	f.heed(&f.told)
	f.told = Answer{}
	f.resume(now)
}

// StepDropped takes that a Step was not done, for a reason that is not the log's, and the log is as it was.
func (f *Follower) StepDropped(now time.Duration) {
	if f.state == writing {
		f.told = Answer{}
		f.resume(now + f.backoff)
	}
}

// WriteFailed takes that a Step failed and the log is as it was. The leader is told at once that the log cannot store. isLasting:
// every later Step will fail too.
func (f *Follower) WriteFailed(now time.Duration, isLasting bool) {
	if f.state != writing {
		return
	}
	f.told = Answer{}
	f.storing, f.isTold = max(f.storing, mayRecover), false
	if isLasting {
		f.storing = cannotEver
	}
	f.resume(now)
}

// Synced takes that more of the own log is on disk.
func (f *Follower) Synced(durable record.Offset) {
	f.log.Durable = max(f.log.Durable, min(durable, f.log.End))
}

// NextReport returns a report of the durable end, or of what the leader lacks, if the leader is to be told of it now. A lost
// report is made good by the next fetch, or its answer.
func (f *Follower) NextReport() (Report, bool) {
	if f.storing == cannotEver || f.leader < 0 || f.mustCut {
		return Report{}, false
	}
	r := Report{Replica: f.id, BrokerEpoch: f.brokerEpoch, Epoch: f.epoch, Assigned: f.assigned}
	switch {
	case f.objection > 0:
		r.Durable, f.objection = f.objection, 0
	case f.compared && f.log.Durable > f.reported:
		r.Durable, f.reported = f.log.Durable, f.log.Durable
	default:
		return Report{}, false
	}
	return r, true
}

// IsObjecting tells whether the leader is to be told, by the next report, that it lacks committed records.
func (f *Follower) IsObjecting() bool { return f.objection > 0 }

// setLog takes the limits of the own log. The high watermark of a log that has become shorter is
// its end.
func (f *Follower) setLog(log Ends) {
	f.log = log
	f.hw = min(max(f.hw, log.Start), log.End)
}
