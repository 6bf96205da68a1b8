package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// following is a partition's part as a follower: the machine that says what to fetch and what to do
// with an answer. The partition has one from the time when it begins to follow until it leads or is
// removed, whoever leads meanwhile.
type following struct {
	p *Partition

	// These are guarded by Partition.mu.
	machine *progress.Follower // nil: the log was not looked at yet
	slot    *slot              // in the fetcher of its leader; nil: nobody leads
	start   record.Offset      // the log's start, as far as it is durable
	// heard is the leader epoch in which the leader has answered (NoEpoch: none), and leaderStart the start
	// of its log then.
	heard       record.Epoch
	leaderStart record.Offset
	// A log that cannot be opened, or has a fault, has no machine. toldIn is the leadership in which the leader was told so
	// last, and tellAt is when it is told again.
	toldIn *Leadership
	tellAt time.Duration
	// objectedIn is the last leader epoch in which the leader was told that it lacks committed records; it belongs to the goroutine that
	// fetches.
	objectedIn record.Epoch
	behind     bool // the leader's log ends beyond the own one, or nothing was heard from it yet
}

// isCurrentLocked tells whether the partition still follows from a slot.
func (fo *following) isCurrentLocked(sl *slot) bool {
	return fo.p.following == fo && fo.slot == sl
}

// prepare looks at the log, which it opens, and makes the machine.
func (fo *following) prepare() error {
	p := fo.p
	p.mu.Lock()
	isReady := fo.machine != nil
	p.mu.Unlock()
	if isReady {
		return nil
	}
	seen, err := readLogEnds(p)
	if err != nil {
		return err
	}
	log, ends := seen.log, seen.ends
	if err := log.Fault(); err != nil {
		return err
	}
	hw, err := log.HighWatermark()
	if err != nil {
		return err
	}
	start, err := storage.DurableStart(log)
	if err != nil {
		return err
	}
	last := lastEpoch(log, ends)
	p.opened.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lead.Load()
	if p.following != fo || !p.host.follows(l) || l.mustCut(p) || seen.shortened != p.cuts.shortened.Load() {
		return nil // the slot is due again when the log was cut
	}
	ends.Durable, _ = log.Committed() // commits since then have found no machine
	fo.machine = progress.NewFollower(p.host.cfg.NodeID, p.host.brokerEpoch.Load(), p.host.replication.Load().FetchBackoff,
		progress.Following{Log: ends, LastEpoch: last, HighWatermark: max(hw, record.Offset(p.hw.Load()))})
	fo.followLocked(l)
	fo.start = start
	p.committed = ends.Durable
	p.hw.Store(int64(fo.machine.HighWatermark()))
	return nil
}

// lastEpoch is the epoch of a log's last record; NoEpoch: it has none.
func lastEpoch(log *storage.Log, ends progress.Ends) record.Epoch {
	if ends.Start >= ends.End {
		return record.NoEpoch
	}
	return log.EpochAt(ends.End - 1)
}

// nextFetch returns the next fetch from a slot. If there is none now, retry is the time from which
// on there may be one; -1: something else must happen first.
func (fo *following) nextFetch(sl *slot, now time.Duration) (q progress.Fetch, retry time.Duration, ok bool) {
	p := fo.p
	if p.log.Load().Fault() != nil {
		return fo.tellUnusable(sl, now)
	}
	if p.lead.Load().mustCut(p) {
		return q, -1, false
	}
	if err := fo.prepare(); err != nil {
		if errors.Is(err, storage.ErrClosed) {
			return q, -1, false
		}
		return fo.tellUnusable(sl, now)
	}
	fo.tryStoring()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !fo.isCurrentLocked(sl) || fo.machine == nil || p.lead.Load().mustCut(p) {
		return q, -1, false
	}
	if wait := fo.throttleLocked(now); wait > 0 {
		return q, now + wait, false
	}
	if q, ok = fo.machine.NextFetch(now); ok {
		q.Start = min(q.Start, fo.start)
		return q, -1, true
	}
	if at, isReady := fo.machine.RetryAt(); isReady {
		return q, max(at, now+1), false
	}
	return q, -1, false
}

// throttleLocked is how long a throttled replica that is behind must not fetch (KIP-73); 0: it may.
func (fo *following) throttleLocked(now time.Duration) time.Duration {
	if !fo.behind || !fo.isThrottled() {
		return 0
	}
	return fo.p.host.asFollower.delay(now)
}

// isThrottled tells whether follower.replication.throttled.replicas has the replica.
func (fo *following) isThrottled() bool {
	return fo.p.topic.Settings().FollowerThrottled.Has(fo.p.id.Partition, fo.p.host.cfg.NodeID)
}

// loseFetch takes that a fetch from a slot gets no answer.
func (fo *following) loseFetch(sl *slot, now time.Duration) {
	fo.p.mu.Lock()
	defer fo.p.mu.Unlock()
	if fo.isCurrentLocked(sl) && fo.machine != nil {
		fo.machine.FetchLost(now, sl.sent)
	}
}

// presentSlot is the slot that the partition has now; nil: none.
func (fo *following) presentSlot() *slot {
	fo.p.mu.Lock()
	defer fo.p.mu.Unlock()
	if fo.p.following != fo {
		return nil
	}
	return fo.slot
}

// syncedLocked takes that more of the log is on disk, and returns the slot whose leader may have to
// be told; nil: there is none. The committed end is read here: if it had been read before mu was
// taken, records behind a cut could count that are not those which were on disk.
func (fo *following) syncedLocked() *slot {
	if fo == nil || fo.machine == nil {
		return nil
	}
	durable, err := fo.p.log.Load().Committed()
	if err != nil {
		return nil
	}
	fo.p.committed = durable
	fo.machine.Synced(durable)
	return fo.slot
}

// nextReport returns a report of the durable end, if the leader of a slot is to be told of it.
func (fo *following) nextReport(sl *slot) (progress.Report, bool) {
	fo.p.mu.Lock()
	defer fo.p.mu.Unlock()
	if !fo.isCurrentLocked(sl) || fo.machine == nil {
		return progress.Report{}, false
	}
	return fo.machine.NextReport()
}

// takeAnswer does what an answer to the fetch from a slot asks for. bytes are the records in it. It
// returns how many bytes were stored.
func (fo *following) takeAnswer(sl *slot, a *PartitionAnswer, bytes []byte) (stored int64) {
	p := fo.p
	now := p.host.Now()
	if a.Verdict == progress.Rebuild {
		fo.rebuild(sl)
		return 0
	}
	own, err := fo.findOwnTail(a)
	if err != nil {
		fo.loseFetch(sl, now)
		return 0
	}
	answer := progress.Answer{
		ID: sl.sent, Verdict: a.Verdict, Diverging: progress.Tail{Epoch: a.DivergingEpoch, End: a.DivergingEnd},
		HighWatermark: a.HighWatermark, Start: a.Start, End: a.End,
	}
	var items []storage.Item
	if a.Verdict == progress.Served {
		if items, answer.Batches, err = cutBatches(bytes); err != nil && len(items) == 0 {
			p.host.cfg.Logger.Warn("a leader has sent records that are damaged; they are fetched again",
				"topic", p.topic.Name, "partition", p.id.Partition, "leader", sl.f.leader, "err", err)
			fo.loseFetch(sl, now)
			return 0
		}
	}
	p.mu.Lock()
	if !fo.isCurrentLocked(sl) || fo.machine == nil {
		p.mu.Unlock()
		return 0
	}
	step := fo.machine.Answered(now, &answer, own)
	if _, e := fo.machine.Leader(); a.Verdict == progress.Served && e == sl.epoch {
		fo.behind = len(items) > 0 && answer.Batches[len(items)-1].Next < a.End
		fo.heard, fo.leaderStart = e, a.Start
		fo.showLocked()
	}
	woken := fo.keepWatermarkLocked()
	objects := fo.machine.IsObjecting()
	p.mu.Unlock()
	wakePolls(woken)
	wakeCommitted(p)
	if objects {
		fo.objectToLeader(sl)
	}
	switch step.Kind {
	case progress.NoStep:
	case progress.Restart:
		fo.beginAnew(step.To)
	case progress.Truncate:
		fo.cutLog(step.To)
	case progress.Append:
		return fo.appendItems(items[:step.Batches])
	}
	return 0
}

// objectToLeader has the leader of a slot told that it lacks committed records, which this replica keeps.
func (fo *following) objectToLeader(sl *slot) {
	p := fo.p
	if fo.objectedIn != sl.epoch {
		fo.objectedIn = sl.epoch
		p.host.cfg.Logger.Warn("the leader of a partition lacks records that are committed, as if its data directory was put back from an older copy: this replica keeps them, and has the leader give up",
			"topic", p.topic.Name, "partition", p.id.Partition, "leader", sl.f.leader)
	}
	sl.f.reportSoon(sl)
}

// showLocked has readers read, once the leader of the present epoch has answered and what it had deleted then
// is deleted here, too.
func (fo *following) showLocked() {
	if _, e := fo.machine.Leader(); fo.heard == e && fo.start >= fo.leaderStart {
		fo.p.readable.Store(int32(e))
	}
}

// findOwnTail finds the own log's answer for the epoch where it parts from the leader's, if it does.
func (fo *following) findOwnTail(a *PartitionAnswer) (own progress.Tail, err error) {
	if a.Verdict != progress.Diverged {
		return own, nil
	}
	own.Epoch, own.End, err = fo.p.log.Load().EpochEnd(a.DivergingEpoch)
	return own, err
}

// cutBatches cuts records into batches, whose checksums it checks. The last one may have been cut
// short. The error says what is wrong with the first batch that is not in the result.
func cutBatches(b []byte) (items []storage.Item, batches []progress.Batch, err error) {
	for len(b) > 0 {
		var one record.Batch
		one, b, err = record.Next(b)
		if errors.Is(err, record.ErrShort) && len(items) > 0 {
			return items, batches, nil
		}
		if err == nil {
			err = one.Verify()
		}
		if err == nil && one.LastOffsetDelta() < 0 {
			err = fmt.Errorf("%w: its last offset is before its first", record.ErrCorrupt)
		}
		if err != nil {
			return items, batches, err
		}
		items = append(items, storage.Item{Batch: one})
		batches = append(batches, progress.Batch{Base: one.BaseOffset(), Next: one.NextOffset(), Epoch: one.LeaderEpoch()})
	}
	return items, batches, nil
}

// appendItems appends batches as they are, as far as they can be stored, and returns how many bytes
// were.
func (fo *following) appendItems(items []storage.Item) int64 {
	p := fo.p
	p.fence.RLock()
	log := p.log.Load()
	if !fo.mayStep() {
		p.fence.RUnlock()
		fo.failStep(log, ErrNotLeader)
		return 0
	}
	log.AppendAt(items)
	p.fence.RUnlock()
	stored := countStored(items)
	if stored.bytes == 0 {
		if errors.Is(items[0].Err, ErrOffsetOutOfRange) { // it begins among records that were deleted
			fo.beginAnew(items[0].Batch.NextOffset())
		} else {
			fo.failStep(log, items[0].Err)
		}
		return 0
	}
	fo.finishStep(log)
	p.countForPolls(stored)
	return stored.bytes
}

// mayWrite tells whether the replica still follows. The caller holds fence.
func (fo *following) mayWrite() bool {
	return !fo.p.gone.Load() && fo.p.host.follows(fo.p.lead.Load())
}

// mayStep tells whether the machine's step may be done: the replica still follows, and its log was not cut, nor is to be, since the step
// was asked for. The caller holds fence.
func (fo *following) mayStep() bool {
	p := fo.p
	if !fo.mayWrite() || p.lead.Load().mustCut(p) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.following == fo && fo.machine != nil && fo.machine.MayWrite()
}

// cutLog cuts the log at an offset.
func (fo *following) cutLog(to record.Offset) {
	p := fo.p
	p.fence.RLock()
	log := p.log.Load()
	err := ErrNotLeader
	if fo.mayStep() {
		err = log.Truncate(to)
		p.cuts.noteShortened()
	}
	p.fence.RUnlock()
	if err != nil {
		fo.failStep(log, err)
		return
	}
	p.host.cfg.Logger.Info("records were removed that the leader does not have", "topic", p.topic.Name, "partition", p.id.Partition, "from", int64(to))
	fo.finishStep(log)
}

// beginAnew drops all records and has the log begin at an offset. A log that has records is deleted,
// and another one takes its place. That one is empty for the machine, which finds again where the
// leader begins; it can be written when nothing of the old one is left.
func (fo *following) beginAnew(to record.Offset) {
	p := fo.p
	p.fence.Lock()
	defer p.fence.Unlock()
	log := p.log.Load()
	if !fo.mayStep() {
		fo.failStep(log, ErrNotLeader)
		return
	}
	err := log.StartAt(to)
	switch {
	case err == nil:
		fo.finishStep(log)
		return
	case !errors.Is(err, ErrOffsetOutOfRange):
		fo.failStep(log, err)
		return
	}
	p.host.cfg.Logger.Info("a replica begins anew, since its leader has no records that follow its own",
		"topic", p.topic.Name, "partition", p.id.Partition, "at", int64(to))
	fo.replaceLog()
}

// replaceLog deletes the log, but for what cuts have taken from it, and has an empty one take its place, which has made no cut yet. The
// caller holds fence for writing.
func (fo *following) replaceLog() {
	p := fo.p
	p.host.cfg.Store.DeleteRecords(p.id)
	p.cuts.made = 0
	p.cuts.expect(p.lead.Load())
	p.log.Store(openLog(p))
	p.cuts.noteShortened()
	p.host.uncut.add(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	fo.machine, fo.heard, p.committed, p.begun = nil, record.NoEpoch, 0, record.NoEpoch
	p.hw.Store(0)
	p.readable.Store(int32(record.NoEpoch))
	p.audience.cutAt(0)
}

// failStep takes that a step failed and the log is as it was.
func (fo *following) failStep(log *storage.Log, err error) {
	fo.p.host.cfg.Logger.Debug("a replica cannot follow its leader for now", "topic", fo.p.topic.Name, "partition", fo.p.id.Partition, "err", err)
	fo.p.mu.Lock()
	defer fo.p.mu.Unlock()
	if fo.p.following != fo || fo.machine == nil {
		return
	}
	if errors.Is(err, ErrNotLeader) || errors.Is(err, ErrClosed) || errors.Is(err, storage.ErrUnprepared) { // the disk is sound
		fo.machine.StepDropped(fo.p.host.Now())
		return
	}
	fo.machine.WriteFailed(fo.p.host.Now(), log.Fault() != nil)
}

// finishStep takes that a step was done. Only this goroutine writes to the log, so that its end
// cannot have moved since.
func (fo *following) finishStep(log *storage.Log) {
	p := fo.p
	seen, err := readLogEnds(p)
	if err != nil {
		fo.failStep(log, err)
		return
	}
	ends, last := seen.ends, lastEpoch(log, seen.ends)
	start, _ := storage.DurableStart(log)
	p.mu.Lock()
	if p.following != fo || fo.machine == nil {
		p.mu.Unlock()
		return
	}
	if seen.shortened != p.cuts.shortened.Load() { // it was cut meanwhile
		p.mu.Unlock()
		fo.finishStep(log)
		return
	}
	ends.Durable, _ = log.Committed()
	fo.machine.Wrote(p.host.Now(), ends, last)
	fo.start = max(fo.start, start)
	fo.showLocked()
	p.committed = ends.Durable
	p.audience.cutAt(ends.End)
	woken := fo.keepWatermarkLocked()
	p.mu.Unlock()
	wakePolls(woken)
	wakeCommitted(p)
}

// keepWatermarkLocked makes the machine's high watermark the partition's. It returns the polls that
// this fires.
func (fo *following) keepWatermarkLocked() *Poll {
	p, hw := fo.p, fo.machine.HighWatermark()
	switch now := record.Offset(p.hw.Load()); {
	case hw > now:
		return raiseWatermarkLocked(p, hw)
	case hw < now: // the log was cut
		p.hw.Store(int64(hw))
		p.log.Load().SetHighWatermark(hw)
	}
	return nil
}

// nextStart is the start to which the log's is to be moved; ok is false if it is there.
func (fo *following) nextStart() (m storage.StartMove, ok bool) {
	fo.p.mu.Lock()
	defer fo.p.mu.Unlock()
	if fo.p.following != fo || fo.machine == nil || fo.machine.Start() <= fo.start {
		return m, false
	}
	return storage.StartMove{Log: fo.p.log.Load(), To: fo.machine.Start()}, true
}

// keepStart takes that the log's start was moved, durably.
func (fo *following) keepStart(to record.Offset) {
	fo.p.mu.Lock()
	defer fo.p.mu.Unlock()
	fo.start = max(fo.start, to)
	if fo.p.following == fo && fo.machine != nil {
		fo.showLocked()
	}
}
