package progress

import (
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Member is a member of a proposed in-sync set.
type Member struct {
	ID          int32
	BrokerEpoch int64 // of the incarnation that has fetched; 0: none has yet, since it was in sync before
}

// Proposal is a request to the controller to change the in-sync set (AlterPartition). The
// controller accepts it only at the present leader and partition epoch, if no member is fenced,
// leaving, or registered again since. Each one that it accepts raises the partition epoch, even
// if the set is the present one.
type Proposal struct {
	Attempt        uint64
	Epoch          record.Epoch
	PartitionEpoch int32
	ISR            []Member
	// GivesUp tells that the leader gives its place to Successor, a member of ISR.
	GivesUp   bool
	Successor int32
	// Damaged are replicas that have lost records, so that they are not eligible.
	Damaged []int32
}

// changeState is the state of a change of the in-sync set; the package's documentation has
// the drawing.
type changeState uint8

const (
	settled  changeState = iota // nothing was proposed at this partition epoch
	proposed                    // an answer is to come
	waiting                     // it has come, and a pause goes on until the next proposal
)

// change is all that was proposed at the present partition epoch.
type change struct {
	state   changeState
	attempt uint64
	until   time.Duration // the end of the pause
	joining []int32       // replicas that were proposed and are not in the in-sync set
}

// inMaximal tells whether a replica is in the in-sync set, or may be without this leader's
// knowledge.
func (l *Leader) inMaximal(id int32) bool {
	return slices.Contains(l.assigned.ISR, id) || slices.Contains(l.change.joining, id)
}

func (l *Leader) maximalSize() int { return len(l.assigned.ISR) + len(l.change.joining) }

// Propose returns the next proposal, if there is one to be made now. Its sender must call
// Answered with the attempt at the end, also if no answer came. It is to be called after other
// events.
func (l *Leader) Propose(now time.Duration) (Proposal, bool) {
	c := &l.change
	if c.state == proposed || c.state == waiting && now < c.until {
		return Proposal{}, false
	}
	if c.state == settled && !l.wantsChange(now) {
		return Proposal{}, false
	}
	damaged := l.findDamaged()
	members, successor, givesUp := l.wanted(now)
	for _, m := range members {
		if !l.inMaximal(m.ID) {
			c.joining = append(c.joining, m.ID)
		}
	}
	c.state = proposed
	c.attempt++
	return Proposal{
		Attempt: c.attempt, Epoch: l.epoch, PartitionEpoch: l.assigned.PartitionEpoch, ISR: members, GivesUp: givesUp, Successor: successor,
		Damaged: damaged,
	}, true
}

// Answered ends an attempt: it was accepted or refused, or no answer came. The set itself
// changes only with the metadata.
func (l *Leader) Answered(now time.Duration, attempt uint64) {
	if c := &l.change; c.state == proposed && c.attempt == attempt {
		c.state, c.until = waiting, now+l.cfg.Retry
	}
}

// wantsChange tells whether the in-sync set that the rules ask for is not the present one.
func (l *Leader) wantsChange(now time.Duration) bool {
	for i := range l.followers {
		r := &l.followers[i]
		if l.mustLeave(now, r) || l.canJoin(now, r) {
			return true
		}
	}
	_, _, givesUp := l.wanted(now)
	return givesUp || len(l.findDamaged()) > 0
}

// wanted is the in-sync set that the rules ask for. If the leader gives up, it is without the leader where the leader's
// log is not to be trusted any more.
func (l *Leader) wanted(now time.Duration) (members []Member, successor int32, givesUp bool) {
	if members, ok := findComplete(l); ok {
		return members, members[0].ID, true
	}
	for _, id := range l.assigned.ISR {
		r := l.follower(id)
		switch {
		case r == nil: // the leader itself
			members = append(members, Member{ID: id, BrokerEpoch: l.brokers[id].Epoch})
		case !l.mustLeave(now, r):
			members = append(members, Member{ID: id, BrokerEpoch: r.brokerEpoch})
		}
	}
	for i := range l.followers {
		if r := &l.followers[i]; l.canJoin(now, r) {
			members = append(members, Member{ID: r.id, BrokerEpoch: r.brokerEpoch})
		}
	}
	successor, givesUp = l.findSuccessor(members)
	if givesUp && l.log == LogFaulted {
		members = slices.DeleteFunc(members, func(m Member) bool { return m.ID == l.cfg.ID })
	}
	return members, successor, givesUp
}

// mustLeave tells whether a follower is in the in-sync set, and is late, cannot store, or lacks committed records. Nobody
// leaves a leader whose log is faulted: it appends nothing more, and perhaps its log cannot be read either, so that it would be
// the only member.
func (l *Leader) mustLeave(now time.Duration, r *follower) bool {
	return l.log < LogFaulted && slices.Contains(l.assigned.ISR, r.id) && (l.lags(now, r) || isIncomplete(l, r))
}

// canJoin tells whether a follower is to be added to the in-sync set. Beyond the high watermark as
// this leader knows it there may be committed records of earlier epochs, but none from the start of
// its own epoch on. One that still has records which the leader has deleted would show them again if it led.
func (l *Leader) canJoin(now time.Duration, r *follower) bool {
	isComplete := r.durable >= l.hw && r.durable >= l.epochStart && r.start >= l.own.Start
	return !slices.Contains(l.assigned.ISR, r.id) && l.isExpected(now, r) && isComplete && !l.IsBehind()
}
