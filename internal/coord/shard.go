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
	loading phase = iota // the machine belongs to the loader, which reads or waits
	active               // the machine belongs to the holder of mu
	stopped              // the machine is nobody's
)

// loadBytes is how much of the log one read of the loader asks for.
const loadBytes = 1 << 20

// maxInflated bounds what a compressed batch of a log may decompress to.
const maxInflated = 256 << 20

// MaxBatch bounds the records of one step, in bytes.
const MaxBatch = 16 << 20

// warnEvery is how often a shard says that it cannot append.
const warnEvery = 10 * time.Second

// maxFired bounds how many timers run under one hold of the mutex.
const maxFired = 64

// shard runs one machine on one partition's log.
type shard[M Machine] struct {
	rt        *Runtime[M]
	partition int32
	log       Log
	stop      chan struct{} // closed when the phase becomes stopped

	mu      sync.Mutex
	phase   phase
	epoch   record.Epoch  // of our leadership
	end     record.Offset // active: where the log ends as far as this shard has written it
	unknown unknown       // records that the machine did not understand
	machine M
	timers  *Timers
	alarm   *time.Timer // wakes fire; nil until the first timer is set
	alarmAt time.Time   // zero: it is not set
	builder record.Builder
	warned  time.Time // when it was last said that nothing can be appended
}

// unknown counts the records of a log that the machine did not understand. They are
// skipped, as they would be at every load, and one line tells of all of them. One that is
// ErrNewer ends the load instead.
type unknown struct {
	count    int
	first    record.Offset
	err      error // of the first one
	reported bool
}

// do runs one operation. The step is released by the caller.
func (sh *shard[M]) do(s *Step, op func(m M, s *Step)) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch sh.phase {
	case loading:
		return ErrLoading
	case stopped:
		return ErrNotLeading
	case active:
	}
	s.Now = time.Now()
	op(sh.machine, s)
	s.decide(sh)
	sh.armLocked(s.Now)
	return nil
}

// append makes one batch of the records and appends it. The caller holds mu.
func (sh *shard[M]) append(now time.Time, records []Record) (record.Offset, error) {
	sh.builder.Reset()
	for _, r := range records {
		sh.builder.Append(now.UnixMilli(), r.Key, r.Value)
	}
	b, err := sh.builder.Build()
	if err != nil {
		return 0, err
	}
	if len(b) > MaxBatch {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	next, err := sh.log.AppendBatch(b, sh.epoch)
	if err == nil {
		sh.end = next
	}
	if err != nil && now.Sub(sh.warned) >= warnEvery {
		sh.warned = now
		sh.rt.cfg.Logger.Warn("a coordinator's records could not be appended",
			slog.Int("partition", int(sh.partition)), slog.Any("error", err))
	}
	return next, err
}

// apply is the machine's Apply for what a step has decided. The caller holds mu.
func (sh *shard[M]) apply(s *Step, r Record) {
	_ = sh.applyCounted(s, r) // it is reported
	sh.reportUnknown()
}

// applyCounted applies a record, and counts it where the machine does not understand it.
func (sh *shard[M]) applyCounted(s *Step, r Record) error {
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

// reportUnknown says, once in the shard's life, that there are records which are not
// understood.
func (sh *shard[M]) reportUnknown() {
	if sh.unknown.count == 0 || sh.unknown.reported {
		return
	}
	sh.unknown.reported = true
	sh.rt.cfg.Logger.Error("a coordinator's log has records that this version does not understand; they are skipped",
		slog.Int("partition", int(sh.partition)), slog.Int("records", sh.unknown.count),
		slog.Int64("first", int64(sh.unknown.first)), slog.Any("error", sh.unknown.err))
}

// release asks for the commit of what a step appended, and answers. No lock may be
// held.
func (sh *shard[M]) release(s *Step) {
	if s.appended {
		sh.log.Commit()
	}
	sh.answer(s)
}

// answer sends a step's replies as soon as what they rest on is committed. No lock
// may be held.
func (sh *shard[M]) answer(s *Step) {
	if s.err != nil || len(s.replies) == 0 || s.after <= sh.log.HighWatermark() {
		s.finish(nil)
		return
	}
	sh.log.Await(s.after, sh.rt.cfg.Patience(), s.done)
}

// armLocked sets the alarm to the earliest deadline. An alarm that rings too early
// finds nothing due and is set again: heartbeats, which move deadlines away, then
// cost no call of the runtime's timers.
func (sh *shard[M]) armLocked(now time.Time) {
	at, ok := sh.timers.Next()
	if !ok || !sh.alarmAt.IsZero() && !at.Before(sh.alarmAt) {
		return
	}
	sh.alarmAt = at
	if sh.alarm == nil {
		sh.alarm = time.AfterFunc(at.Sub(now), sh.fire)
		return
	}
	sh.alarm.Reset(at.Sub(now))
}

// fire runs the timers that are due, each as a step of its own.
func (sh *shard[M]) fire() {
	for more := true; more; {
		var steps []*Step
		steps, more = sh.fireSome()
		for _, s := range steps {
			sh.release(s)
		}
	}
}

func (sh *shard[M]) fireSome() (steps []*Step, more bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.phase != active {
		return nil, false
	}
	sh.alarmAt = time.Time{}
	now := time.Now()
	for len(steps) < maxFired {
		t := sh.timers.Due(now)
		if t == nil {
			sh.armLocked(now)
			return steps, false
		}
		s := sh.rt.step()
		s.Now = now
		t.Fire(s)
		s.decide(sh)
		steps = append(steps, s)
	}
	return steps, true
}

// replayAll applies the whole log, up to the end that it has now, which it returns.
// Only the loader calls it, and nobody else has the machine yet.
func (sh *shard[M]) replayAll() (end record.Offset, err error) {
	began := time.Now()
	end, err = sh.log.End()
	s := sh.rt.step()
	s.Now = began
	n := 0
	if err == nil {
		n, err = sh.replay(s, end)
	}
	s.finish(err)
	if err != nil && !errors.Is(err, ErrNotLeading) {
		sh.rt.cfg.Logger.Error("a coordinator's log cannot be read; its groups are unavailable until it can",
			slog.Int("partition", int(sh.partition)), slog.Any("error", err))
	}
	if err == nil && n > 0 {
		sh.rt.cfg.Logger.Info("loaded a coordinator's partition", slog.Int("partition", int(sh.partition)),
			slog.Int("records", n), slog.Duration("took", time.Since(began)))
	}
	return end, err
}

// catchUp waits until the high watermark has reached what was loaded.
func (sh *shard[M]) catchUp(end record.Offset) error {
	if sh.log.HighWatermark() >= end {
		return nil
	}
	sh.log.Commit() // what this node has appended in another epoch may not be on disk yet
	reached := make(chan error, 1)
	sh.log.Await(end, 0, func(err error) { reached <- err })
	select {
	case err := <-reached:
		if err != nil {
			return fmt.Errorf("waiting until what was loaded is committed: %w", err)
		}
	case <-sh.stop:
		return ErrNotLeading
	}
	return nil
}

// open makes a shard active that has loaded its log up to the end, unless it was
// stopped meanwhile.
func (sh *shard[M]) open(end record.Offset) {
	s := sh.rt.step()
	sh.openLocking(s, end)
	sh.release(s)
}

func (sh *shard[M]) openLocking(s *Step, end record.Offset) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.phase == stopped {
		return
	}
	sh.phase, sh.end = active, end
	sh.reportUnknown()
	s.Now = time.Now()
	sh.machine.Loaded(s)
	s.decide(sh)
	sh.armLocked(s.Now)
}

// replay applies the log up to an offset, counting records.
func (sh *shard[M]) replay(s *Step, end record.Offset) (n int, err error) {
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
		if len(b) == 0 {
			return n, fmt.Errorf("at offset %d of %d: %w", off, end, errNoProgress)
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

// replayBatches applies whole batches, from offset off on, and returns the offset
// after them. Control batches hold no records of ours; a transaction's records do
// not count before its end, and no transaction can write here yet.
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
		next = batch.NextOffset()
		if batch.Control() || batch.Transactional() {
			continue
		}
		for r.Reset(batch, maxInflated); r.Next(); {
			if r.Record.Offset < off {
				continue
			}
			s.next = r.Record.Offset + 1
			err := sh.applyCounted(s, Record{Key: r.Record.Key, Value: r.Record.Value})
			if errors.Is(err, ErrNewer) {
				return r.Record.Offset, n, err
			}
			n++
		}
		if err := r.Err(); err != nil {
			return next, n, err
		}
	}
	return next, n, nil
}

var errNoProgress = errors.New("the log gives no batch that goes on from there")

// continueIn tells whether the shard may go on in this epoch without a load: where it
// is the shard's own, or the one after it and the log ends where the shard left it.
func (sh *shard[M]) continueIn(e record.Epoch) bool {
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

// startOver forgets what a failed load has applied. Only the loader calls it.
func (sh *shard[M]) startOver() {
	sh.unknown = unknown{}
	sh.timers = new(Timers)
	sh.machine = sh.rt.cfg.New(sh.partition, sh.timers)
}

// halt ends the shard: whoever waits for an answer is told to look elsewhere.
func (sh *shard[M]) halt() {
	s := sh.rt.step()
	s.Now = time.Now()
	sh.haltLocking(s)
	s.finish(nil)
}

func (sh *shard[M]) haltLocking(s *Step) {
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
