package sim

import (
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
)

// fetchItem is a partition's part of a fetch.
type fetchItem struct {
	r *replica // the follower's
	f *progress.Follower
	q progress.Fetch
}

// fetchAnswer is a partition's part of an answer.
type fetchAnswer struct {
	fetchItem
	answer  progress.Answer
	entries []memlog.Entry
}

// parkedFetch is a fetch that waits for records.
type parkedFetch struct {
	items  []fetchItem
	until  time.Duration
	answer func(func())
	from   *node
}

// fetcher fetches for the replicas of a node that follow, and answers those of others.
type fetcher struct {
	n      *node
	busy   [maxNodes + 1]bool // a fetch from the node is under way
	parked []*parkedFetch
}

// sendFetches sends the fetches of all partitions that follow a node and are ready, as one request.
// One request at a time is under way to each node.
func (e *fetcher) sendFetches(to int32) {
	n := e.n
	if e.busy[to] || to == n.id {
		return
	}
	var items []fetchItem
	for _, r := range n.replicas {
		if r == nil || r.follower == nil {
			continue
		}
		if leader, _ := r.follower.Leader(); leader != to {
			continue
		}
		if q, ok := r.follower.NextFetch(n.now()); ok {
			items = append(items, fetchItem{r, r.follower, q})
			r.note("fetches %d, %d are durable", int64(q.Offset), int64(q.Durable))
		}
	}
	if len(items) == 0 {
		return
	}
	e.busy[to] = true
	n.call(to, "fetch", func(at *node, answer func(func())) {
		at.fetcher.takeFetch(n, items, answer)
	}, func() {
		e.busy[to] = false
		for _, it := range items {
			if it.isCurrent() {
				it.f.FetchLost(n.now(), it.q.ID)
			}
		}
		n.act()
	})
}

// isCurrent tells whether the follower that has asked is still there.
func (it *fetchItem) isCurrent() bool {
	return it.r.follower == it.f && it.r.n.replica(it.r.part) == it.r
}

// takeFetch answers a follower's fetch. If there is nothing to say, it waits for a while.
func (e *fetcher) takeFetch(from *node, items []fetchItem, answer func(func())) {
	n := e.n
	answers := e.judgeFetch(items)
	n.act()
	news := slices.ContainsFunc(answers, func(a fetchAnswer) bool { return a.answer.Verdict != progress.Served || len(a.entries) > 0 })
	if news {
		e.answerFetch(from, answers, answer)
		return
	}
	e.parked = append(e.parked, &parkedFetch{items, n.c.now + 10*ms + n.c.random(30*ms), answer, from})
}

func (e *fetcher) judgeFetch(items []fetchItem) []fetchAnswer {
	n := e.n
	answers := make([]fetchAnswer, len(items))
	for i, it := range items {
		a := &answers[i]
		a.fetchItem = it
		a.answer = progress.Answer{ID: it.q.ID, Verdict: progress.Unavailable}
		r := n.replica(it.r.part)
		if r == nil || r.leader == nil {
			n.c.seen[verdictNames[a.answer.Verdict]]++
			continue
		}
		var tail progress.Tail
		tail.Epoch, tail.End = r.log.EpochEnd(it.q.LastEpoch)
		a.answer.Verdict, a.answer.Diverging = r.leader.Fetched(n.now(), &it.q, tail), tail
		n.c.seen[verdictNames[a.answer.Verdict]]++
		if a.answer.Verdict == progress.Served {
			r.noteFetched(&it.q)
		}
		r.fillAnswer(a)
	}
	return answers
}

// fillAnswer reads records for an answer.
func (r *replica) fillAnswer(a *fetchAnswer) {
	r.touch()
	a.answer.HighWatermark, a.answer.Start, a.answer.End = r.leader.HighWatermark(), r.log.Start(), r.log.End()
	if a.answer.Verdict != progress.Served {
		return
	}
	from := a.q.Offset
	a.entries = r.readFrom(from, r.log.End(), 1+r.n.c.rng.IntN(8))
	a.answer.Batches = nil
	for i, e := range a.entries {
		o := from + record.Offset(i)
		a.answer.Batches = append(a.answer.Batches, progress.Batch{Base: o, Next: o + 1, Epoch: e.Epoch})
	}
}

func (e *fetcher) answerFetch(from *node, answers []fetchAnswer, answer func(func())) {
	id := e.n.id
	answer(func() { from.fetcher.takeAnswers(id, answers) })
}

// wakeParked answers the fetches that wait for a partition's records.
func (e *fetcher) wakeParked(p *partition) {
	e.parked = slices.DeleteFunc(e.parked, func(k *parkedFetch) bool {
		if !slices.ContainsFunc(k.items, func(it fetchItem) bool { return it.r.part == p }) {
			return false
		}
		e.answerParked(k)
		return true
	})
}

// expireParked answers the fetches that have waited long enough.
func (e *fetcher) expireParked() {
	e.parked = slices.DeleteFunc(e.parked, func(k *parkedFetch) bool {
		if e.n.c.now < k.until {
			return false
		}
		e.answerParked(k)
		return true
	})
}

// answerParked reads again for a fetch that was judged before. Of a partition that this node does not
// lead in that epoch any more it says so.
func (e *fetcher) answerParked(k *parkedFetch) {
	n := e.n
	answers := make([]fetchAnswer, len(k.items))
	for i, it := range k.items {
		a := &answers[i]
		a.fetchItem = it
		a.answer = progress.Answer{ID: it.q.ID, Verdict: progress.Unavailable}
		r := n.replica(it.r.part)
		if r == nil || r.leader == nil || r.leader.Epoch() != it.q.Epoch {
			continue
		}
		a.answer.Verdict = progress.Served
		if it.q.Offset < r.log.Start() {
			a.answer.Verdict = progress.OutOfRange
		}
		r.fillAnswer(a)
	}
	e.answerFetch(k.from, answers, k.answer)
}

// takeAnswers does what the answers of a fetch ask for.
func (e *fetcher) takeAnswers(from int32, answers []fetchAnswer) {
	n := e.n
	e.busy[from] = false
	for i := range answers {
		if a := &answers[i]; a.isCurrent() {
			a.r.takeAnswer(a)
		}
	}
	n.act()
}

// takeAnswer does the step that an answer asks for, at once or a little later.
func (r *replica) takeAnswer(a *fetchAnswer) {
	n, f := r.n, r.follower
	_, epoch := f.Leader()
	var own progress.Tail
	own.Epoch, own.End = r.log.EpochEnd(a.answer.Diverging.Epoch)
	s := f.Answered(n.now(), &a.answer, own)
	if a.answer.Verdict == progress.Served && epoch == a.q.Epoch {
		r.log.agreed = max(r.log.agreed, epoch)
	}
	r.touch()
	if s.Kind == progress.NoStep {
		return
	}
	do := func() {
		if a.isCurrent() {
			r.doStep(s, a)
		}
	}
	if n.c.chance(0.1) {
		n.later(n.c.random(15*ms), func() {
			do()
			n.act()
		})
		return
	}
	do()
}

func (r *replica) doStep(s progress.Step, a *fetchAnswer) {
	c, end := r.n.c, r.log.End()
	switch s.Kind {
	case progress.Truncate:
		r.part.copies.checkCut(r, s.To)
		r.note("truncates to %d from %d", int64(s.To), int64(end))
		c.saw("truncation")
		c.must(r.log.cut(s.To))
	case progress.Restart:
		if s.To < r.log.End() {
			r.part.copies.checkCut(r, s.To)
		}
		r.note("begins anew at %d, it ended at %d", int64(s.To), int64(end))
		c.saw("begin anew")
		c.must(r.log.beginAnew(s.To))
	case progress.Append:
		r.noteMode()
		c.must(r.log.appendAsFollower(a.answer.Batches[0].Base, r.pageCache, a.entries[:s.Batches]))
		r.note("copies %d..%d", int64(end), int64(r.log.End()))
	case progress.NoStep:
	}
	r.touch()
	r.follower.Wrote(r.n.now(), r.ends(), r.lastEpoch())
}

// sendReports sends the durable ends of all partitions that follow a node.
func (e *fetcher) sendReports(to int32) {
	n := e.n
	var list []progress.Report
	var of []*partition
	var objected []bool
	for _, r := range n.replicas {
		if r == nil || r.follower == nil {
			continue
		}
		if leader, _ := r.follower.Leader(); leader != to {
			continue
		}
		objects := r.follower.IsObjecting()
		if p, ok := r.follower.NextReport(); ok {
			list, of = append(list, p), append(of, r.part)
			if objects {
				r.note("tells the leader %d that it lacks records below %d", int64(to), int64(p.Durable))
				n.c.saw("leader told that it lacks records")
			}
			objected = append(objected, objects)
		}
	}
	if len(list) == 0 {
		return
	}
	n.c.net.send(n.id, to, "durable ends", func() {
		at := n.c.node(to)
		for i, p := range of {
			if r := at.replica(p); r != nil && r.leader != nil {
				r.leader.Reported(at.now(), list[i])
				r.noteReported(&list[i], objected[i])
			}
		}
		at.act()
	})
}

// verdictNames are the names of what a leader says to a fetch.
var verdictNames = [...]string{
	progress.Served: "fetch served", progress.Diverged: "fetch: logs have parted", progress.OutOfRange: "fetch out of range",
	progress.FencedEpoch: "fetch fenced", progress.UnknownEpoch: "fetch of an unknown epoch", progress.StaleBroker: "fetch of a stale broker",
	progress.Unavailable: "fetch unavailable",
}
