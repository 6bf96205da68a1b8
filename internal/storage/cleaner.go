package storage

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/storage/compact"
)

// CleanerConfig says how logs are compacted. Zero fields mean the default.
type CleanerConfig struct {
	Off            bool
	MapBytes       int64         // of memory for the keys of a round; 16 MiB. It is taken as it is needed
	BytesPerSecond float64       // that are read and written at most; 0: no limit
	Backoff        time.Duration // from a look that finds nothing to do to the next one; 15 s
}

func (c CleanerConfig) withDefaults() CleanerConfig {
	setDefault(&c.MapBytes, defaultMap)
	setDefault(&c.Backoff, defaultBackoff)
	return c
}

const (
	defaultMap     = 16 << 20
	defaultBackoff = 15 * time.Second

	// openedAtOnce is how many logs that nobody has used since the start a look opens, to see whether
	// they are to be compacted. If there are more, the next look comes soon.
	openedAtOnce = 16
	soon         = time.Second

	// noRoomPause is how long a log is left alone after the disk had no room for a round of it: to find that out again may
	// take as much work as the round.
	noRoomPause = time.Minute
)

// cleaner compacts logs, one at a time, the dirtiest one first.
type cleaner struct {
	s    *Store
	cfg  atomic.Pointer[CleanerConfig]
	wake chan struct{} // size 1

	appended atomic.Int64 // bytes that others have appended, in all

	rounds, bytesRead, bytesWritten, bytesSaved atomic.Int64
	backlog, overdue                            atomic.Int64 // at the last look: bytes, ms
	dirtiest                                    atomic.Int64 // in millionths
	lookedAt, roundAt                           atomic.Int64 // ms; 0: never

	// These are of the goroutine that looks.
	unopened bool // some logs were not opened by the last look
	told     told

	complained atomic.Int64 // ms: when the log told last that the disk has no room
}

func (c *cleaner) init(s *Store) {
	c.s, c.wake = s, make(chan struct{}, 1)
	cfg := s.cfg.Cleaner.withDefaults()
	c.cfg.Store(&cfg)
}

func (c *cleaner) config() *CleanerConfig { return c.cfg.Load() }

// ConfigureCleaner changes how logs are compacted, from the next round on.
func ConfigureCleaner(s *Store, cfg CleanerConfig) {
	cfg = cfg.withDefaults()
	s.cleaner.cfg.Store(&cfg)
	select {
	case s.cleaner.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// runLoop compacts logs until the store is closed.
func (c *cleaner) runLoop() {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // the store's own work ends with it
	defer cancel()
	c.s.work.Go(func() {
		<-c.s.quit
		cancel()
	})
	timer := time.NewTimer(c.config().Backoff)
	defer timer.Stop()
	for {
		select {
		case <-c.s.quit:
			return
		case <-c.wake:
		case <-timer.C:
		}
		if !c.config().Off {
			c.compactDue(ctx, time.Now())
		}
		pause := c.config().Backoff
		if c.unopened {
			pause = min(pause, soon)
		}
		timer.Reset(pause)
	}
}

// errNoRoom ends a round on a disk that is nearly full: what is left is for records.
var errNoRoom = errors.New("the disk has too little room to compact a log")

// candidate is a log that may be compacted, and the round that it could have.
type candidate struct {
	l    *Log
	plan compact.Round
}

// compactDue compacts all logs that are due, the dirtiest one first. Each has one round, and those that need more, since not all
// their keys fit into memory, have one in each further pass.
func (c *cleaner) compactDue(ctx context.Context, now time.Time) {
	began := time.Now()
	passed := func() time.Time { return now.Add(time.Since(began)) } // a pass may take hours, and horizons count from a round's time
	for isUnfinished := true; isUnfinished; {
		isUnfinished = false
		due := c.findDue(passed())
		slices.SortFunc(due, func(a, b candidate) int { return compact.CompareRounds(a.plan, b.plan) })
		for _, next := range due {
			if c.s.closing.Load() || c.config().Off {
				return
			}
			isUnfinished = c.compactOne(ctx, next.l, passed()) || isUnfinished
			c.tellRounds()
		}
	}
	c.tellRounds()
}

// compactOne compacts a log if that is due, and deals with a failure: one that may pass ends the round only. It tells
// whether the log needs another round now. Else it is left alone for a while: records that come all the time do not
// have it compacted all the time.
func (c *cleaner) compactOne(ctx context.Context, l *Log, now time.Time) (isUnfinished bool) {
	isUnfinished, err := c.compactLog(ctx, l, now)
	pause := c.config().Backoff
	if errors.Is(err, errNoRoom) {
		pause = max(pause, noRoomPause)
	}
	l.pub.Lock()
	l.compacted.tried = err
	if err != nil || !isUnfinished {
		l.compacted.restsUntil = time.Now().Add(pause)
	}
	l.pub.Unlock()
	if err == nil {
		if r := (&compaction{l: l, c: c, now: now.UnixMilli()}); r.planRound() == nil { // so that it is not shown as it was before
			noteLook(l, &r.plan)
		}
		return isUnfinished
	}
	c.noteFailure(l, err)
	return false
}

// noteFailure deals with a failure of a round.
func (c *cleaner) noteFailure(l *Log, err error) {
	switch {
	case errors.Is(err, errNoRoom):
		c.complainOfRoom(l)
		return
	case errors.Is(err, errChanged), errors.Is(err, errUnsettled), errors.Is(err, context.Canceled), l.isFaulted():
		c.s.log.Debug("a log could not be compacted now", "log", l.name, "err", err)
		return
	}
	switch classify(err) {
	case none, gone:
	case full:
		c.s.noteRefusal(err)
		c.complainOfRoom(l)
	case transient:
		c.s.log.Debug("a log could not be compacted now", "log", l.name, "err", err)
	case tainted:
		l.pub.Lock()
		first := l.compacted.failed == nil
		l.compacted.failed = err
		l.pub.Unlock()
		if first {
			c.s.log.Error("a log is not compacted any more until the next start, and keeps all its records", "log", l.name, "err", err)
		}
	}
}

// complainOfRoom tells that the disk has no room to compact a log, but not for each log.
func (c *cleaner) complainOfRoom(l *Log) {
	now := time.Now().UnixMilli()
	if before := c.complained.Load(); now-before < complainEvery.Milliseconds() || !c.complained.CompareAndSwap(before, now) {
		return
	}
	free, _ := c.s.DiskSpace()
	c.s.log.Warn("the disk has too little room to compact logs, which keep all their records until it has; the last of it is for new records", "log", l.name, "free", free)
}

// findDue finds the logs that are due, and counts what there is to do.
func (c *cleaner) findDue(now time.Time) (due []candidate) {
	opened := 0
	c.unopened = false
	backlog, overdue, dirtiest := int64(0), int64(0), 0.0
	for _, l := range c.s.allLogs() {
		if c.s.closing.Load() {
			return nil
		}
		settlePending(l)
		if !l.options().Compact || l.isFaulted() || UncleanableError(l) != nil {
			continue
		}
		if !l.isOpen() {
			if opened++; opened > openedAtOnce {
				c.unopened = true
				continue
			}
		}
		r := &compaction{l: l, c: c, now: now.UnixMilli()}
		if err := r.planRound(); err != nil {
			c.s.log.Debug("a log could not be looked at for compaction", "log", l.name, "err", err)
			continue
		}
		noteLook(l, &r.plan)
		dirtiest, overdue = max(dirtiest, r.plan.Ratio()), max(overdue, r.plan.Overdue)
		if r.plan.Due != compact.NotDue {
			backlog += r.plan.Dirty
			if !isResting(l) {
				due = append(due, candidate{l, r.plan})
			}
		}
	}
	c.lookedAt.Store(time.Now().UnixMilli())
	c.backlog.Store(backlog)
	c.overdue.Store(overdue)
	c.dirtiest.Store(int64(dirtiest * ratioUnit))
	return due
}

// isResting tells whether a log is left alone after its last round.
func isResting(l *Log) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return time.Now().Before(l.compacted.restsUntil)
}

// settlePending tries again to settle a swap that an earlier round could not settle.
func settlePending(l *Log) {
	if l.compacted.pendingSwap() == nil || l.isFaulted() {
		return
	}
	l.compacted.swapping.Lock()
	defer l.compacted.swapping.Unlock()
	if err := l.compacted.advanceSwap(); err != nil {
		l.s.log.Debug("a compacted segment could not be settled yet", "log", l.name, "err", err)
	}
}

const ratioUnit = 1e6

// told is what the log has told of rounds. It tells of all together, now and then: there may be very many.
type told struct {
	at                           time.Time // when it told last
	rounds, read, written, saved int64     // up to then
}

// tellRounds has the log tell of the rounds since it told last, if that is not a moment ago.
func (c *cleaner) tellRounds() {
	t := &c.told
	now := told{time.Now(), c.rounds.Load(), c.bytesRead.Load(), c.bytesWritten.Load(), c.bytesSaved.Load()}
	if now.rounds == t.rounds || now.at.Sub(t.at) < complainEvery {
		return
	}
	c.s.log.Info("logs were compacted", "rounds", now.rounds-t.rounds, "read", now.read-t.read, "written", now.written-t.written, "saved", now.saved-t.saved)
	*t = now
}
