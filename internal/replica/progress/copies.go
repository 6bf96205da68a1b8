package progress

import (
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// The rules in this file are about a replica whose data directory was put back from a copy that was made while the same
// registration of its node went on. The controller cannot tell it from the directory itself, so it keeps its place; and it lacks
// the records since the copy was made.
//
//	a follower is such a copy   it leaves the in-sync set and is not eligible: it shows less on disk than is committed
//	the leader is such a copy   a member with the records objects instead of cutting them, and the leader gives up
//
// A member is a replica in sync or eligible, which has all committed records. It may not know that they are committed: one that
// has not heard so yet cuts its log as before.

// parting is what the leader knows of a follower whose log it has not found to agree with its own.
type parting struct {
	isKnown bool
	// end bounds the records that it has on disk and in common with the leader: the logs part there, or before.
	end      record.Offset
	objected bool          // it has committed records that the leader lacks
	hasCut   bool          // its log agrees with that of the leader, who is behind
	askedAt  time.Duration // when it has fetched last
}

// noteParting takes a fetch which shows that the logs differ.
func (r *follower) noteParting(f *Fetch, v Verdict, own Ends, tail Tail) {
	if r.compared {
		return // it is an earlier fetch
	}
	end := min(f.Offset, f.Durable, own.End)
	if v == Diverged {
		end = min(end, tail.End)
	}
	r.parting.isKnown, r.parting.end = true, end
}

// isIncomplete tells whether a follower lacks committed records on its disk. In a sound history no member ever does: the high
// watermark that this leader knows is at most the end that each has had on disk. What a leader that is behind lacks, those lack
// whose logs agree with its own.
func isIncomplete(l *Leader, r *follower) bool {
	return r.compared && r.durable < l.hw || r.isParted(l.hw) || (r.compared || r.parting.hasCut) && l.IsBehind()
}

// isParted tells whether the log of a follower was found to part from the leader's before an offset.
func (r *follower) isParted(before record.Offset) bool {
	return r.parting.isKnown && r.parting.end < before
}

// LacksCommitted tells whether a replica that counts as complete lacks committed records.
func (l *Leader) LacksCommitted(id int32) bool {
	r := l.follower(id)
	return r != nil && l.assigned.isMember(id) && isIncomplete(l, r)
}

// noteObjection takes that a follower has committed records that the leader lacks. It was a member when it said so, even if it is
// none by now. It is not believed if it lacks committed records itself. A copy from before an unclean election is believed
// where this leader knows of no committed record that it lacks.
func noteObjection(l *Leader, now time.Duration, r *follower) {
	if !r.parting.isKnown || r.isParted(l.hw) {
		return
	}
	r.parting.objected, r.parting.askedAt = true, now
	if !l.isOpposed {
		l.isOpposed, l.opposedAt = true, now
	}
}

// IsBehind tells whether the leader lacks committed records that another replica may have. Then it commits nothing, and no
// follower is compared with it any more: those that were have lost the records, too. When no such replica is left the leader
// goes on.
func (l *Leader) IsBehind() bool {
	return l.isOpposed && slices.ContainsFunc(l.followers, func(r follower) bool { return mayHaveMore(l, &r) })
}

// mayHaveMore tells whether a follower may have committed records that the leader lacks: a member whose log was not found to agree
// with the leader's. One that has objected may have left the sets since, by a proposal that was under way; it counts while it is there.
func mayHaveMore(l *Leader, r *follower) bool {
	if r.compared || r.parting.hasCut || r.isParted(l.hw) {
		return false
	}
	return l.assigned.isMember(r.id) || r.parting.objected && l.isPresent(r)
}

// hasKeptAll tells whether a follower may have committed records that the leader lacks, and does not cut them: it has objected, was not
// told that the logs differ, or has asked again since nobody is told that any more.
func hasKeptAll(l *Leader, r *follower) bool {
	return mayHaveMore(l, r) && (r.parting.objected || !r.parting.isKnown || r.parting.askedAt > l.opposedAt)
}

// isPresent tells whether the metadata know a follower's broker as the incarnation that has fetched, and as one that may join.
func (l *Leader) isPresent(r *follower) bool {
	b := l.brokers[r.id]
	return b.MayJoin && b.Epoch == r.brokerEpoch
}

// findComplete finds the in-sync set to which a leader that is behind gives its place: those that have kept what it lacks.
// The first one has fetched since, so that it is not one that has just died; if it is not the one that has objected, it
// objects when that one leads.
func findComplete(l *Leader) (members []Member, ok bool) {
	if !l.IsBehind() {
		return nil, false
	}
	for i := range l.followers {
		r := &l.followers[i]
		if !hasKeptAll(l, r) || !l.isPresent(r) {
			continue
		}
		m := Member{ID: r.id, BrokerEpoch: r.brokerEpoch}
		if r.parting.askedAt >= l.opposedAt && !r.refusal.lasts && !ok {
			members, ok = slices.Insert(members, 0, m), true
		} else {
			members = append(members, m)
		}
	}
	return members, ok
}
