package storage

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/vfs"
)

// boundEvery is the time from one look at the producers of all logs to the next one, while there
// are too many.
const boundEvery = time.Second

// ProducerBudget bounds what all logs remember of idempotent producers.
type ProducerBudget = producer.Budget

// NewProducerBudget makes a ProducerBudget of a number of bytes.
func NewProducerBudget(bytes int64) *ProducerBudget { return producer.NewBudget(bytes) }

// producerBound has the producers of logs bounded that are not appended to. An append sees to
// those of its own log.
type producerBound struct {
	s      *Store
	wanted atomic.Bool // there are too many in logs other than the one that found out
	at     time.Time   // when all logs may be looked at again; only the keeper uses it
}

// boundSoon has the producers of all logs bounded. A log's mu may be held.
func (p *producerBound) boundSoon() {
	if !p.wanted.Swap(true) {
		p.s.keeper.wakeUp()
	}
}

// boundIfDue bounds the producers of all logs if that is wanted and some time has passed, or if
// it is their turn anyway.
func (p *producerBound) boundIfDue(now time.Time, isTurn bool) {
	if isTurn || p.wanted.Load() && !now.Before(p.at) {
		p.at = now.Add(boundEvery)
		p.wanted.Store(false)
		p.boundAll(now)
	}
}

// before is the earlier one of a time and that of the next look.
func (p *producerBound) before(next time.Time) time.Time {
	if p.wanted.Load() && p.at.Before(next) {
		return p.at
	}
	return next
}

// boundAll forgets producers of all logs, as appends do.
func (p *producerBound) boundAll(now time.Time) {
	for _, l := range p.s.allLogs() {
		if p.s.closing.Load() {
			return
		}
		if !l.isOpen() {
			continue
		}
		l.mu.Lock()
		if l.writer != nil {
			l.writer.boundProducers(now.UnixMilli())
		}
		l.mu.Unlock()
	}
}

// boundProducers forgets producers of the log: those that its settings say, and others for want
// of memory.
func (w *writer) boundProducers(now int64) {
	w.producers.Expire(now, w.l.options().ProducerExpiration.Milliseconds())
	if w.producers.Evict() {
		w.l.s.producers.boundSoon()
	}
}

// dropWriterLocked ends the use of a log's writer, and gives back the memory that it has. The
// next append prepares another one. The log's mu is held.
func dropWriterLocked(l *Log) {
	if l.writer != nil {
		l.writer.producers.Release()
		l.writer = nil
	}
}

// dropWriters ends the use of the writers of logs that are closed.
func dropWriters(logs []*Log) {
	for _, l := range logs {
		l.mu.Lock()
		dropWriterLocked(l)
		l.mu.Unlock()
	}
}

// readProducers reads a producer snapshot. A missing one is as bad as an empty one.
func readProducers(fs vfs.FS, name string, ps *producer.State, now int64) error {
	f, err := fs.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return producer.ErrSnapshot
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	n, err := f.Size()
	if err != nil {
		return err
	}
	return ps.Decode(io.NewSectionReader(f, 0, n), now)
}
