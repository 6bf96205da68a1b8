package coord

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/record"
)

// phase is where a shard is in its life; the package doc draws it.
type phase uint8

const (
	loading phase = iota // only the loader uses the machine
	active               // only the holder of mu uses the machine
	stopped              // the machine is not used any more
)

// loadBytes is how many bytes of the log one read of the loader asks for.
const loadBytes = 1 << 20

// maxInflated bounds the decompressed size of a log's batch.
const maxInflated = 256 << 20

// MaxBatch bounds the records of one step, in bytes.
const MaxBatch = 16 << 20

// warnEvery is how often, at most, a shard logs that it cannot append.
const warnEvery = 10 * time.Second

// maxTimersFired bounds how many timers run under one hold of the mutex.
const maxTimersFired = 64

// maxAlarmDelay is how late the alarm may ring. If it rings later, the process was stopped.
const maxAlarmDelay = time.Second

// shard runs one machine on one partition's log.
type shard[M Machine] struct {
	rt        *Runtime[M]
	partition int32
	log       Log
	stop      chan struct{} // closed when the phase becomes stopped

	mu      sync.Mutex
	phase   phase
	epoch   record.Epoch  // of this node's leadership
	end     record.Offset // while active: the offset after the last record that the shard has loaded or appended
	unknown unknown       // records that the machine did not understand
	machine M
	timers  *Timers
	alarm   *time.Timer // calls fireTimers; nil until the first timer is set
	alarmAt time.Time   // when the alarm rings; zero if it is not set
	builder record.Builder

	hasLarge bool // the builder keeps the memory of a large batch

	lastWarning time.Time // when it was last logged that a batch could not be appended
}

// unknown counts the records of a log that the machine did not understand. They are
// skipped, and one line in the log tells of all of them. A record that is ErrNewer is
// not among them: it fails the load.
type unknown struct {
	count    int
	first    record.Offset
	err      error // of the first one
	reported bool
}

// runStep runs op as a step: it decides, appends and applies. The caller sees to the
// step's replies.
func (sh *shard[M]) runStep(s *Step, op func(m M, s *Step)) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch sh.phase {
	case loading:
		return ErrLoading
	case stopped:
		return ErrNotLeading
	case active:
	}
	s.Now, s.epoch = time.Now(), sh.epoch
	op(sh.machine, s)
	sh.takeRecords(s)
	sh.armLocked(s.Now)
	return nil
}

// takeRecords appends and applies the records of a step. Memory of large batches is used again for
// further batches of the step, but not kept. The caller holds mu.
func (sh *shard[M]) takeRecords(s *Step) {
	s.appendAndApply(sh)
	s.trim()
	if sh.hasLarge {
		sh.builder, sh.hasLarge = record.Builder{}, false
	}
}

// appendRecords makes one batch of a step's records and appends it. It returns the offset
// after the last one. The caller holds mu.
func (sh *shard[M]) appendRecords(s *Step) (record.Offset, error) {
	sh.builder.Reset()
	sh.builder.Transactional = s.txn != nil
	if s.txn != nil {
		sh.builder.SetProducer(s.txn.ID, s.txn.Epoch, record.NoSequence)
	} else {
		sh.builder.ForgetProducer()
	}
	for _, r := range s.records {
		sh.builder.Append(s.Now.UnixMilli(), r.Key, r.Value)
	}
	b, err := sh.builder.Build()
	if err != nil {
		return 0, err
	}
	sh.hasLarge = sh.hasLarge || len(b) > maxRecycledBytes
	if len(b) > MaxBatch {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	next, err := sh.log.AppendBatch(b, sh.epoch)
	return sh.noteAppend(s.Now, next, err)
}

// appendMarker appends a step's marker. The caller holds mu.
func (sh *shard[M]) appendMarker(s *Step) (record.Offset, error) {
	b, err := record.BuildMarker(s.Now.UnixMilli(), s.marker.ID, s.marker.Epoch, s.marker.Marker)
	if err != nil {
		return 0, err
	}
	next, err := sh.log.AppendMarker(b, sh.epoch, s.marker.Version)
	return sh.noteAppend(s.Now, next, err)
}

// noteAppend takes the result of an append, and returns it. The caller holds mu.
func (sh *shard[M]) noteAppend(now time.Time, next record.Offset, err error) (record.Offset, error) {
	if err == nil {
		sh.end = next
	}
	if err != nil && now.Sub(sh.lastWarning) >= warnEvery {
		sh.lastWarning = now
		sh.rt.cfg.Logger.Warn("a coordinator's records could not be appended",
			slog.Int("partition", int(sh.partition)), slog.Any("err", err))
	}
	return next, err
}

// applyRecord applies a record that a step has appended. The caller holds mu.
func (sh *shard[M]) applyRecord(s *Step, r Record) {
	_ = sh.applyOrCount(s, r) // reportUnknown reports the error
	sh.reportUnknown()
}

// endTransaction has the machine end a transaction. The caller holds mu.
func (sh *shard[M]) endTransaction(s *Step, m Marker) { endTransaction(sh.machine, s, m) }

// applyOrCount applies a record, and counts it if the machine does not understand it.
func (sh *shard[M]) applyOrCount(s *Step, r Record) error {
	err := sh.machine.Apply(s, r)
	if err == nil {
		return nil
	}
	if sh.unknown.count == 0 {
		sh.unknown.first, sh.unknown.err = s.next-1, err
	}
	sh.unknown.count++
	return err
}

// reportUnknown logs, once in the shard's life, that there are records which the
// machine did not understand.
func (sh *shard[M]) reportUnknown() {
	if sh.unknown.count == 0 || sh.unknown.reported {
		return
	}
	sh.unknown.reported = true
	sh.rt.cfg.Logger.Error("a coordinator's log has records that this version does not understand; they are skipped",
		slog.Int("partition", int(sh.partition)), slog.Int("records", sh.unknown.count),
		slog.Int64("first", int64(sh.unknown.first)), slog.Any("err", sh.unknown.err))
}

// commitAndReply commits the records that a step has appended, and sees to its replies.
// No lock may be held.
func (sh *shard[M]) commitAndReply(s *Step) {
	if s.appended {
		sh.log.Commit()
	}
	sh.replyWhenCommitted(s)
}

// replyWhenCommitted calls a step's replies once the records that they depend on are
// committed, which may be at once. No lock may be held.
func (sh *shard[M]) replyWhenCommitted(s *Step) {
	if s.err != nil || len(s.replies) == 0 || !s.claims || sh.log.IsCommitted(s.epoch, s.after) {
		s.replyAndRecycle(nil)
		return
	}
	sh.log.Await(s.epoch, s.after, sh.rt.cfg.ReplyTimeout(), s.replyFunc)
}

// armLocked sets the alarm so that it rings at the earliest deadline or before. It
// never moves the alarm to a later time: an alarm that rings too early finds no timer due,
// and is set again. Heartbeats, which move deadlines to later times, then cost no call
// of the runtime's timers.
func (sh *shard[M]) armLocked(now time.Time) {
	at, ok := sh.timers.Next()
	if !ok || !sh.alarmAt.IsZero() && !at.Before(sh.alarmAt) {
		return
	}
	sh.alarmAt = at
	if sh.alarm == nil {
		sh.alarm = time.AfterFunc(at.Sub(now), sh.fireTimers)
		return
	}
	sh.alarm.Reset(at.Sub(now))
}

// fireTimers runs all timers that are due, each as a step of its own.
func (sh *shard[M]) fireTimers() {
	for more := true; more; {
		var steps []*Step
		steps, more = sh.fireDueTimers()
		for _, s := range steps {
			sh.commitAndReply(s)
		}
	}
}

// fireDueTimers runs at most maxTimersFired timers that are due. Their steps, which it returns, are
// applied and still have to be committed. more tells that further timers may be due.
func (sh *shard[M]) fireDueTimers() (steps []*Step, more bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.phase != active {
		return nil, false
	}
	now := time.Now()
	if late := now.Sub(sh.alarmAt); !sh.alarmAt.IsZero() && late > maxAlarmDelay {
		sh.timers.Delay(late)
	}
	sh.alarmAt = time.Time{}
	for len(steps) < maxTimersFired {
		t := sh.timers.Due(now)
		if t == nil {
			sh.armLocked(now)
			return steps, false
		}
		s := sh.rt.takeStep()
		s.Now, s.epoch = now, sh.epoch
		t.Fire(s)
		sh.takeRecords(s)
		steps = append(steps, s)
	}
	return steps, true
}

// replayAll applies the whole log up to its present end, which it returns. Only the
// loader calls it.
func (sh *shard[M]) replayAll() (end record.Offset, err error) {
	began := time.Now()
	end, err = sh.log.End()
	s := sh.rt.takeStep()
	s.Now = began
	n := 0
	if err == nil {
		n, err = sh.replayUpTo(s, end)
	}
	s.replyAndRecycle(err)
	if err == nil && n > 0 {
		sh.rt.cfg.Logger.Info("loaded a coordinator's partition", slog.Int("partition", int(sh.partition)),
			slog.Int("records", n), slog.Duration("took", time.Since(began)))
	}
	return end, err
}

// catchUp waits until the high watermark has reached the end of the loaded records.
func (sh *shard[M]) catchUp(end record.Offset) error {
	e := sh.currentEpoch()
	if sh.log.IsCommitted(e, end) {
		return nil
	}
	sh.log.Commit() // records that this node has appended in an earlier epoch may not be on disk yet
	reached := make(chan error, 1)
	sh.log.Await(e, end, 0, func(err error) { reached <- err })
	select {
	case err := <-reached:
		if err != nil && !sh.log.IsCommitted(e, end) { // they may be, on fewer replicas than are to be in sync
			return fmt.Errorf("waiting until the loaded records are committed: %w", err)
		}
	case <-sh.stop:
		return ErrNotLeading
	}
	return nil
}

// currentEpoch is the epoch of this node's leadership.
func (sh *shard[M]) currentEpoch() record.Epoch {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.epoch
}

// activate makes a shard active that has loaded its log up to the end, unless the
// shard was stopped meanwhile.
func (sh *shard[M]) activate(end record.Offset) {
	s := sh.rt.takeStep()
	sh.becomeActive(s, end)
	sh.commitAndReply(s)
}

// becomeActive changes the phase and tells the machine, as the step s.
func (sh *shard[M]) becomeActive(s *Step, end record.Offset) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.phase == stopped {
		return
	}
	sh.phase, sh.end = active, end
	sh.reportUnknown()
	s.Now, s.epoch = time.Now(), sh.epoch
	sh.machine.Loaded(s)
	sh.takeRecords(s)
	sh.armLocked(s.Now)
}

// replayUpTo applies the log's records below the offset end, and counts them.
func (sh *shard[M]) replayUpTo(s *Step, end record.Offset) (n int, err error) {
	off := sh.log.Start()
	for off < end {
		select {
		case <-sh.stop:
			return n, ErrNotLeading
		default:
		}
		b, err := sh.log.ReadBatches(off, end, loadBytes)
		if err != nil {
			return n, fmt.Errorf("at offset %d: %w", off, err)
		}
		if len(b) == 0 { // compaction has removed all that was left below the end since that was asked for
			return n, nil
		}
		next, read, err := sh.replayBatches(s, b, off)
		n += read
		if err != nil {
			return n, fmt.Errorf("at offset %d: %w", next, err)
		}
		if next <= off {
			return n, fmt.Errorf("at offset %d: %w", off, errNoProgress)
		}
		off = next
	}
	return n, nil
}

// errTransaction is the error of a load of a machine without transactions that meets one. Only a later version
// writes one there, and what it has written was acknowledged.
var errTransaction = fmt.Errorf("records of a transaction: %w", ErrNewer)

// replayBatches applies the records and the markers of whole batches, from offset off on, and returns
// the offset after them.
func (sh *shard[M]) replayBatches(s *Step, b []byte, off record.Offset) (next record.Offset, n int, err error) {
	next = off
	var r record.Reader
	defer r.Close()
	for len(b) > 0 {
		var batch record.Batch
		if batch, b, err = record.Next(b); err != nil {
			return next, n, err
		}
		if err := batch.Verify(); err != nil {
			return next, n, err
		}
		if batch.Control() {
			next, s.epoch = batch.NextOffset(), batch.LeaderEpoch()
			if batch.BaseOffset() >= off {
				sh.replayMarker(s, batch)
			}
			continue
		}
		s.txn = nil
		if batch.Transactional() {
			if _, ok := Machine(sh.machine).(Transactional); !ok {
				return batch.BaseOffset(), n, errTransaction
			}
			s.txn = &Producer{ID: batch.ProducerID(), Epoch: batch.ProducerEpoch()}
		}
		next, s.epoch = batch.NextOffset(), batch.LeaderEpoch()
		for r.Reset(batch, maxInflated); r.Next(); {
			if r.Record.Offset < off {
				continue
			}
			s.next = r.Record.Offset + 1
			err := sh.applyOrCount(s, Record{Key: r.Record.Key, Value: r.Record.Value})
			if errors.Is(err, ErrNewer) {
				return r.Record.Offset, n, err
			}
			n++
		}
		if err := r.Err(); err != nil {
			return next, n, err
		}
	}
	s.txn = nil
	return next, n, nil
}

// replayMarker applies a control batch that ends a transaction. Others have no records of a machine.
func (sh *shard[M]) replayMarker(s *Step, b record.Batch) {
	t, ok := Machine(sh.machine).(Transactional)
	m, err := record.ReadMarker(b)
	if !ok || err != nil {
		return
	}
	s.next = b.NextOffset()
	t.EndTransaction(s, Marker{Producer: Producer{b.ProducerID(), b.ProducerEpoch()}, Marker: m})
}

var errNoProgress = errors.New("the log gives no batch that goes on from there")

// continueInEpoch takes the shard into an epoch without a load, and tells whether that
// was possible: the epoch must be the shard's own, or the one after it while the log
// ends at the shard's last record.
func (sh *shard[M]) continueInEpoch(e record.Epoch) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e == sh.epoch {
		return true
	}
	if sh.phase != active || e != sh.epoch+1 {
		return false
	}
	if end, err := sh.log.End(); err != nil || end != sh.end {
		return false
	}
	sh.epoch = e
	return true
}

// discardLoad throws away the state that a failed load has made. Only the loader calls
// it.
func (sh *shard[M]) discardLoad() {
	sh.unknown = unknown{}
	sh.timers = new(Timers)
	sh.machine = sh.rt.cfg.New(sh.partition, sh.timers)
}

// stopServing ends the shard. Requests that wait are answered: the clients look for
// the coordinator elsewhere.
func (sh *shard[M]) stopServing() {
	s := sh.rt.takeStep()
	s.Now = time.Now()
	sh.becomeStopped(s)
	s.replyAndRecycle(nil)
}

// becomeStopped changes the phase and tells the machine, as the step s.
func (sh *shard[M]) becomeStopped(s *Step) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.phase == stopped {
		return
	}
	if sh.phase == active {
		sh.machine.Unload(s)
	}
	sh.phase = stopped
	if sh.alarm != nil {
		sh.alarm.Stop()
	}
	close(sh.stop)
}
