package progress

import (
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// LogState says what the leader's log can do.
type LogState uint8

// These are the states of a leader's log. A leader whose log is not sound gives up, once another member of the in-sync
// set may take its place.
const (
	LogSound      LogState = iota
	LogRefuses             // it takes no records for now, as on a full disk; all that it has is right
	LogFaulted             // nothing is written to it any more, and committed records may be missing: the leader leaves the in-sync set
	LogUnreadable          // it cannot be opened, so nothing is known of it
)

// NewUnreadable makes the machine of a leader that cannot open its log. It judges no fetch, commits nothing, and
// changes nothing but the leader. When the log can be opened, a machine of NewLeader takes its place.
func NewUnreadable(now time.Duration, cfg Config, epoch record.Epoch, a Assignment, b Brokers) *Leader {
	l := &Leader{cfg: cfg, epoch: epoch, brokers: b, log: LogUnreadable, logSince: now}
	l.assign(now, a)
	return l
}

// LogState is the state of the log, as the leader was told last.
func (l *Leader) LogState() LogState { return l.log }

// LogChanged takes the state of the leader's own log. A fault does not end.
func (l *Leader) LogChanged(now time.Duration, s LogState) {
	if s != l.log && l.log < LogFaulted {
		l.log, l.logSince = s, now
	}
}

// heard is what a leader's node heard last from a follower's.
type heard struct {
	at          time.Duration
	brokerEpoch int64
	hasRoom     bool
}

// Heard takes that the leader's node heard a follower's at a time, and whether that one has room on its disk. A follower
// that has everything is silent about the partition, so fetches do not tell this.
func (l *Leader) Heard(id int32, brokerEpoch int64, at time.Duration, hasRoom bool) {
	if r := l.follower(id); r != nil && at >= r.heard.at {
		r.heard = heard{at, brokerEpoch, hasRoom}
	}
}

// findSuccessor finds the member of an in-sync set to which the leader gives its place: one that can store, and was heard
// since the leader's log is in its state. Otherwise a member could be chosen that has just died, and is not fenced yet.
func (l *Leader) findSuccessor(members []Member) (id int32, ok bool) {
	if l.log == LogSound {
		return -1, false
	}
	i := slices.IndexFunc(members, func(m Member) bool {
		r, b := l.follower(m.ID), l.brokers[m.ID]
		return r != nil && b.MayJoin && r.heard.at > l.logSince && r.heard.brokerEpoch == b.Epoch && r.heard.hasRoom && !r.refusal.lasts
	})
	if i < 0 {
		return -1, false
	}
	return members[i].ID, true
}

// leastPause is the time for which a follower stays out of the in-sync set after it could not store, at least.
const leastPause = time.Second

// refusal is the leader's knowledge of a follower that cannot store, or could not.
//
//	none ----> lasts ----> over, until joinFrom it may not join
//	             ^           |
//	             +-----------+
//
// The pause up to joinFrom doubles each time, up to the lag limit, so that a follower which can store now and then does not join
// and leave all the time.
type refusal struct {
	lasts    bool
	at       record.Offset // it lasts until the follower has fetched beyond this offset, or up to the leader's end
	pause    time.Duration
	joinFrom time.Duration
}

// damage is the leader's knowledge of a follower whose log is damaged.
//
//	none ----> noted ----> struck ----> none, when it fetches with another log
//	                 the partition epoch rises, and it is not in sync
//
// A follower that is struck has no ends, is neither in sync nor eligible, and nothing counts of it that was sent before it knew of that partition
// epoch. So it may delete its log: no message about the records in it is believed any more.
type damage struct {
	state damageState
	after int32 // the partition epoch above which it may be struck
}

type damageState uint8

const (
	undamaged damageState = iota
	damageNoted
	damageStruck
)

// judgeUnusable judges the fetch of a follower whose log takes no records.
func (l *Leader) judgeUnusable(now time.Duration, r *follower, f *Fetch) Verdict {
	l.noteRefusal(now, r, f.Offset)
	if !f.IsDamaged || l.log != LogSound || l.IsBehind() {
		return Unavailable
	}
	switch {
	case r.damage.state == undamaged:
		r.damage = damage{damageNoted, max(l.assigned.PartitionEpoch, f.Assigned)}
	case r.damage.state == damageStruck && !l.inMaximal(r.id):
		return Rebuild
	}
	return Unavailable
}

// strike takes that a damaged follower is neither in sync nor eligible from a partition epoch on. That may not be the first one after the damage
// was noted: a change that was under way has it leave the in-sync set, and be eligible.
func (r *follower) strike(a *Assignment) {
	if r.damage.state != damageNoted || a.PartitionEpoch <= r.damage.after || a.isMember(r.id) {
		return
	}
	*r = follower{id: r.id, brokerEpoch: r.brokerEpoch, addedAt: a.PartitionEpoch, caughtUp: never, refusal: r.refusal, damage: r.damage, heard: r.heard}
	r.damage.state = damageStruck
}

// findDamaged finds the followers that are to be struck, and those that lack committed records: the controller must not count
// them as eligible either.
func (l *Leader) findDamaged() (ids []int32) {
	for i := range l.followers {
		r := &l.followers[i]
		if l.log == LogSound && r.damage.state == damageNoted || l.log < LogFaulted && l.assigned.isMember(r.id) && isIncomplete(l, r) {
			ids = append(ids, r.id)
		}
	}
	return ids
}

// noteRefusal takes that a follower whose log ends at an offset cannot store.
func (l *Leader) noteRefusal(now time.Duration, r *follower, at record.Offset) {
	f := &r.refusal
	f.at = at
	if !f.lasts {
		if f.pause > 0 && now-f.joinFrom > l.cfg.Lag {
			f.pause = 0
		}
		f.lasts, f.pause = true, min(max(2*f.pause, leastPause), l.cfg.Lag)
		f.joinFrom = now + f.pause
		r.caughtUp = never // nobody waits for it before it has caught up
	}
	l.advance(now)
}

// endRefusal takes that a follower fetches as one that can store.
func (l *Leader) endRefusal(now time.Duration, r *follower) {
	if f := &r.refusal; f.lasts && (r.fetched > f.at || r.fetched >= l.own.End) {
		f.lasts = false
		r.goal, r.goalSet = l.own.End, now
	}
}
