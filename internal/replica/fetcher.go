package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// maxAsked is the largest number of partitions about which one request has news, and of those that
// leave the session with it, so that requests are small and a node with many partitions has the first
// of them soon.
const maxAsked = MaxNamed

// fetcher fetches the records of all partitions that one node leads and this node follows. It has at
// most one fetch under way, in a session that the leader keeps (FetchRequest). A request names only
// the partitions about which there is news: those that are due.
//
//	      addDue           a request has it             its answer has come
//	idle --------> due --------------------> asked --------------------------> due
//	               ^ |                         |
//	               | | not now                 | the session is lost
//	               | v                         v
//	            delayed <----------------------+
//
// An idle or asked partition costs nothing. A second goroutine tells the leader of durable ends, since
// the fetch may be parked.
type fetcher struct {
	host   *host
	leader int32
	cancel context.CancelFunc // ends both goroutines

	wake   chan struct{} // of size 1; filled: something is due
	report chan struct{} // of size 1; filled: reports is not empty

	// These belong to the goroutine that fetches.
	session uint64 // 0: the next request begins one
	number  uint32 // of the next request in the session
	largest int    // batch that the settings of the partitions in the session allow, when they were asked for

	mu        sync.Mutex // guards the fields below, and those of slots that say so
	slots     map[PartitionID]*slot
	due       []*slot
	delayed   []delayedSlot
	forgotten []PartitionID // they are in the session, and have no slot any more
	asked     int           // slots with a fetch that stands
	reports   []*slot       // there may be a durable end to report
	repeats   []*slot       // a durable end was reported since the last request
}

// slot is a partition's place with the fetcher of its leader.
type slot struct {
	f  *fetcher
	fo *following

	// These belong to the goroutine that fetches.
	sent  uint64       // the machine's number of the fetch that was sent last
	epoch record.Epoch // the leader epoch of that fetch

	// These are guarded by fetcher.mu.
	isAsked    bool // a fetch stands in the session
	isDue      bool // it is in fetcher.due
	isKnown    bool // it is in the session
	isReported bool // it is in fetcher.reports
	isLeft     bool // it was removed
	// reported is what was reported since the last request; nil: nothing.
	reported *PartitionReport
}

// delayedSlot is a slot that is due at a time.
type delayedSlot struct {
	at time.Duration
	sl *slot
}

// fetchers has a fetcher for each node that leads a partition which this node follows. Only Set.Apply
// uses it.
type fetchers struct {
	host     *host
	byLeader map[int32]*fetcher
}

// follow takes a change of a partition's leadership: the partition gets a slot with the fetcher of its
// leader, or leaves the one that it has. It opens no log.
func (fs *fetchers) follow(p *Partition, l *Leadership) {
	if fs.host.cfg.Transport == nil || l.Leader == fs.host.cfg.NodeID {
		fs.drop(p)
		return
	}
	var to *fetcher
	if l.Leader >= 0 {
		to = fs.fetcherOf(l.Leader)
	}
	p.mu.Lock()
	fo := p.following
	if fo == nil {
		fo = &following{p: p, behind: true, heard: record.NoEpoch, objectedIn: record.NoEpoch}
		p.following, p.leading.machine = fo, nil
	}
	if fo.machine != nil {
		fo.followLocked(l)
	}
	was := fo.slot
	switch {
	case to == nil:
		fo.slot = nil
	case was == nil || was.f != to:
		fo.slot, fo.behind = &slot{f: to, fo: fo}, true
	}
	at := fo.slot
	p.mu.Unlock()
	if was != nil && was != at {
		was.f.removeSlot(was)
	}
	if at != nil {
		at.f.addDue(at)
	}
}

// drop ends a partition's part as a follower. An answer that comes later changes nothing.
func (*fetchers) drop(p *Partition) {
	p.mu.Lock()
	fo := p.following
	p.following = nil
	p.mu.Unlock()
	if fo != nil && fo.slot != nil {
		fo.slot.f.removeSlot(fo.slot)
	}
}

// fetcherOf finds or starts the fetcher of a leader.
func (fs *fetchers) fetcherOf(leader int32) *fetcher {
	f := fs.byLeader[leader]
	if f == nil {
		f = &fetcher{
			host: fs.host, leader: leader, slots: map[PartitionID]*slot{},
			wake: make(chan struct{}, 1), report: make(chan struct{}, 1),
		}
		f.cancel = fs.host.start(f.run)
		if fs.byLeader == nil {
			fs.byLeader = map[int32]*fetcher{}
		}
		fs.byLeader[leader] = f
	}
	return f
}

// endIdle ends the fetchers that have no partitions any more.
func (fs *fetchers) endIdle() {
	for leader, f := range fs.byLeader {
		f.mu.Lock()
		isIdle := len(f.slots) == 0
		f.mu.Unlock()
		if isIdle {
			f.cancel()
			delete(fs.byLeader, leader)
		}
	}
}

// addDue has the next request look at a slot. The first time it enters the fetcher.
func (f *fetcher) addDue(sl *slot) {
	f.mu.Lock()
	f.slots[sl.fo.p.id] = sl
	f.addDueLocked(sl)
	f.mu.Unlock()
	fill(f.wake)
}

func (f *fetcher) addDueLocked(sl *slot) {
	if !sl.isDue && !sl.isLeft {
		sl.isDue = true
		f.due = append(f.due, sl)
	}
}

// removeSlot takes a partition from the fetcher, and from its session.
func (f *fetcher) removeSlot(sl *slot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := sl.fo.p.id
	sl.isLeft = true
	if f.slots[id] == sl {
		delete(f.slots, id)
	}
	if sl.isAsked {
		sl.isAsked = false
		f.asked--
	}
	if sl.isKnown {
		f.forgotten = append(f.forgotten, id)
		fill(f.wake)
	}
}

// reportSoon has the leader told of a slot's durable end.
func (f *fetcher) reportSoon(sl *slot) {
	f.mu.Lock()
	if !sl.isReported && !sl.isLeft {
		sl.isReported = true
		f.reports = append(f.reports, sl)
	}
	f.mu.Unlock()
	fill(f.report)
}

// run fetches and reports until ctx ends.
func (f *fetcher) run(ctx context.Context) {
	var reporting sync.WaitGroup
	reporting.Go(func() { f.sendReports(ctx) })
	f.fetchAll(ctx)
	reporting.Wait()
}

func (f *fetcher) fetchAll(ctx context.Context) {
	for ctx.Err() == nil {
		r := f.makeRequest()
		if r == nil {
			f.awaitDue(ctx, f.untilDue())
			continue
		}
		a, err := f.host.cfg.Transport.Fetch(ctx, f.leader, r)
		switch {
		case err == nil:
			f.takeAnswer(a)
		case ctx.Err() != nil:
		default:
			f.host.cfg.Logger.Debug("a fetch from the leader has failed", "leader", f.leader, "err", err)
			f.loseSession()
			if !errors.Is(err, ErrSessionLost) {
				pause(ctx, f.host.retryPause())
			}
		}
	}
}

// makeRequest makes the next request; nil: there is nothing to ask for.
func (f *fetcher) makeRequest() *FetchRequest {
	now := f.host.Now()
	due, forgotten := f.takeDue(now)
	f.moveStarts(due) // where an earlier try has failed
	s := f.host.replication.Load()
	r := &FetchRequest{
		Replica: f.host.cfg.NodeID, BrokerEpoch: f.host.brokerEpoch.Load(), Session: f.session, Number: f.number,
		IsFull: f.host.cfg.Store.IsFull(), MaxWait: s.FetchWait, MinBytes: s.FetchMinBytes, MaxBytes: s.FetchMaxBytes, PartitionBytes: s.PartitionBytes,
		Forgotten: forgotten,
	}
	for _, sl := range due {
		q, retry, ok := sl.fo.nextFetch(sl, now)
		if !ok {
			f.delaySlot(sl, retry)
			continue
		}
		sl.sent, sl.epoch = q.ID, q.Epoch
		f.largest = max(f.largest, sl.fo.p.topic.Settings().MaxMessageBytes)
		r.Partitions = append(r.Partitions, PartitionFetch{
			ID: sl.fo.p.id, Epoch: q.Epoch, Assigned: q.Assigned, Offset: q.Offset, LastEpoch: q.LastEpoch, Start: q.Start, Durable: q.Durable,
			CannotStore: q.CannotStore, IsDamaged: q.IsDamaged,
		})
		f.noteAsked(sl)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Reports, r.LargestBatch = f.takeRepeatsLocked(), f.largest
	if f.session == 0 && len(r.Partitions) == 0 || f.session != 0 && f.asked == 0 && len(forgotten) == 0 {
		return nil
	}
	return r
}

// takeDue takes the slots that are due, as many as fit into a request, and the partitions that leave
// the session.
func (f *fetcher) takeDue(now time.Duration) (due []*slot, forgotten []PartitionID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	later := f.delayed[:0]
	for _, d := range f.delayed {
		if d.at > now {
			later = append(later, d)
		} else {
			f.addDueLocked(d.sl)
		}
	}
	clear(f.delayed[len(later):])
	f.delayed = later
	n := min(len(f.due), maxAsked)
	due = append(due, f.due[:n]...)
	f.due = append(f.due[:0], f.due[n:]...)
	for _, sl := range due {
		sl.isDue = false
	}
	if len(f.due) > 0 {
		fill(f.wake)
	}
	n = min(len(f.forgotten), maxAsked)
	forgotten, f.forgotten = f.forgotten[:n:n], f.forgotten[n:]
	if len(f.forgotten) == 0 {
		f.forgotten = nil
	}
	return due, forgotten
}

// delaySlot has a slot be due at a time; -1: not before addDue is called.
func (f *fetcher) delaySlot(sl *slot, at time.Duration) {
	if at < 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delayed = append(f.delayed, delayedSlot{at, sl})
}

// noteAsked notes that the next request has a fetch for a slot. If the slot was removed meanwhile,
// the request after it has the session forget it.
func (f *fetcher) noteAsked(sl *slot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sl.isLeft {
		f.forgotten = append(f.forgotten, sl.fo.p.id)
		return
	}
	sl.isKnown, sl.reported = true, nil // the fetch has the durable end
	if !sl.isAsked {
		sl.isAsked = true
		f.asked++
	}
}

// takeRepeatsLocked takes the reports since the last request, but for those of partitions whose fetches
// are in this request.
func (f *fetcher) takeRepeatsLocked() (reports []PartitionReport) {
	n := min(len(f.repeats), MaxNamed)
	for _, sl := range f.repeats[:n] {
		if sl.reported != nil && sl.isKnown {
			reports = append(reports, *sl.reported)
		}
		sl.reported = nil
	}
	if f.repeats = f.repeats[n:]; len(f.repeats) == 0 {
		f.repeats = nil
	}
	return reports
}

// untilDue is the time until the first delayed slot is due; -1: there is none.
func (f *fetcher) untilDue() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := time.Duration(-1)
	for _, d := range f.delayed {
		if first < 0 || d.at < first {
			first = d.at
		}
	}
	if first < 0 {
		return -1
	}
	return max(first-f.host.Now(), 0)
}

// awaitDue waits until something is due, at most for a time (-1: there is no limit).
func (f *fetcher) awaitDue(ctx context.Context, limit time.Duration) {
	var over <-chan time.Time
	if limit >= 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-f.wake:
	case <-over:
	case <-ctx.Done():
	}
}

// pause waits for a time.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// loseSession takes that a request gets no answer, or that the leader does not have the session: no
// fetch stands any more, and the next request begins another session.
func (f *fetcher) loseSession() {
	f.session, f.number, f.largest = 0, 0, 0
	now := f.host.Now()
	var lost []*slot
	f.mu.Lock()
	f.forgotten, f.asked = nil, 0
	for _, sl := range f.slots {
		if sl.isAsked {
			lost = append(lost, sl)
		}
		sl.isAsked, sl.isKnown = false, false
	}
	f.mu.Unlock()
	for _, sl := range lost {
		sl.fo.loseFetch(sl, now)
		f.addDue(sl)
	}
}

// takeAnswer appends the records of an answer, and asks for one commit of all of them. It waits for
// the commit only where a start moves beyond what is committed.
func (f *fetcher) takeAnswer(a *FetchAnswer) {
	defer a.Release()
	if f.session = a.Session; f.session != 0 {
		f.number++
	}
	answered := f.endAsked(a)
	wrote := false
	for i, sl := range answered {
		if sl == nil {
			continue
		}
		part := &a.Partitions[i]
		stored := sl.fo.takeAnswer(sl, part, a.Buffer[part.From:part.To])
		if stored > 0 && sl.fo.isThrottled() {
			f.host.asFollower.take(f.host.Now(), stored)
		}
		wrote = wrote || stored > 0
	}
	if wrote {
		f.host.commitInBackground()
	}
	f.moveStarts(answered)
	for _, sl := range answered {
		if sl == nil {
			continue
		}
		if at := sl.fo.presentSlot(); at != nil { // a write that has ended may have held up another fetcher
			at.f.addDue(at)
		}
	}
}

// endAsked finds the slots of the partitions in an answer, whose fetches do not stand any more. A
// slot is nil if the partition has left since, or has not asked.
func (f *fetcher) endAsked(a *FetchAnswer) []*slot {
	found := make([]*slot, len(a.Partitions))
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range a.Partitions {
		sl := f.slots[a.Partitions[i].ID]
		if sl == nil || !sl.isAsked {
			continue
		}
		sl.isAsked = false
		f.asked--
		found[i] = sl
	}
	return found
}

// moveStarts moves the starts of logs to those of their leaders, with one write for all of them. If that
// fails it is tried again soon.
func (f *fetcher) moveStarts(slots []*slot) {
	var moves []storage.StartMove
	var of []*slot
	for _, sl := range slots {
		if sl == nil {
			continue
		}
		if m, ok := sl.fo.nextStart(); ok {
			moves, of = append(moves, m), append(of, sl)
		}
	}
	if len(moves) == 0 {
		return
	}
	now := f.host.Now()
	if err := storage.SetStarts(f.host.cfg.Store, moves...); err != nil {
		f.host.cfg.Logger.Warn("starts of replicas could not be moved; that is tried again", "leader", f.leader, "err", err)
		for _, sl := range of {
			f.delaySlot(sl, now+f.host.retryPause())
		}
		return
	}
	for i, sl := range of {
		sl.fo.keepStart(moves[i].To)
		sl.fo.loseFetch(sl, now) // one that stands has the earlier start; another one takes its place
	}
}

// sendReports tells the leader of durable ends until ctx ends.
func (f *fetcher) sendReports(ctx context.Context) {
	for {
		select {
		case <-f.report:
		case <-ctx.Done():
			return
		}
		for {
			r := f.makeReports()
			if r == nil {
				break
			}
			if err := f.host.cfg.Transport.Report(ctx, f.leader, r); err != nil {
				f.host.cfg.Logger.Debug("durable ends could not be reported; the next request repeats them", "leader", f.leader, "err", err)
				break
			}
		}
	}
}

// makeReports makes the next message of reports; nil: there is none.
func (f *fetcher) makeReports() *Reports {
	r := &Reports{Replica: f.host.cfg.NodeID, BrokerEpoch: f.host.brokerEpoch.Load()}
	for len(r.Partitions) < MaxNamed {
		sl := f.takeReported()
		if sl == nil {
			break
		}
		if q, ok := sl.fo.nextReport(sl); ok {
			r.Partitions = append(r.Partitions, PartitionReport{ID: sl.fo.p.id, Epoch: q.Epoch, Assigned: q.Assigned, Durable: q.Durable})
			f.noteReported(sl, &r.Partitions[len(r.Partitions)-1])
		}
	}
	if len(r.Partitions) == 0 {
		return nil
	}
	return r
}

// noteReported has the next request repeat a report.
func (f *fetcher) noteReported(sl *slot, r *PartitionReport) {
	one := *r
	f.mu.Lock()
	defer f.mu.Unlock()
	if sl.reported == nil {
		f.repeats = append(f.repeats, sl)
	}
	sl.reported = &one
}

// takeReported takes the first slot of which there may be a durable end to report; nil: there is none.
func (f *fetcher) takeReported() *slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return nil
	}
	sl := f.reports[0]
	f.reports = f.reports[1:]
	if len(f.reports) == 0 {
		f.reports = nil
	}
	sl.isReported = false
	return sl
}
