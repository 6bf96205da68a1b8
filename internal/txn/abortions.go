package txn

import (
	"log/slog"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/coord"
)

const (
	// abortionsTogether is how many lines about aborted transactions are logged within abortionsTime.
	abortionsTogether = 10
	abortionsTime     = time.Minute
)

// Abortions logs the transactions that the coordinators of a node abort without being asked by their producer. An
// operator finds there why a producer was fenced. Ten are logged in a minute; those beyond are counted in the next line.
type Abortions struct {
	log *slog.Logger

	mu     sync.Mutex // guards the fields below
	since  time.Time  // the minute began
	lines  int        // of that minute
	hidden int        // that were not logged since the last line
}

// abortion is a transaction that was aborted.
type abortion struct {
	id       string
	producer int64
	epoch    int16
	start    int64 // ms
	timeout  int32 // ms
	why      string
}

// NewAbortions returns an Abortions that logs there.
func NewAbortions(log *slog.Logger) *Abortions { return &Abortions{log: log} }

// noteAfter logs an abortion when the records of the step are committed.
func (l *Abortions) noteAfter(s *coord.Step, a abortion) {
	if l == nil {
		return
	}
	now := s.Now
	s.Reply(func(err error) {
		if err == nil {
			l.note(now, &a)
		}
	})
}

func (l *Abortions) note(now time.Time, a *abortion) {
	l.mu.Lock()
	if now.Sub(l.since) >= abortionsTime {
		l.since, l.lines = now, 0
	}
	if l.lines == abortionsTogether {
		l.hidden++
		l.mu.Unlock()
		return
	}
	l.lines++
	hidden := l.hidden
	l.hidden = 0
	l.mu.Unlock()
	attrs := []any{
		slog.String("transactional_id", a.id[:min(len(a.id), maxLoggedID)]), slog.Int64("producer_id", a.producer), slog.Int("producer_epoch", int(a.epoch)),
		slog.String("why", a.why), slog.Duration("age", now.Sub(time.UnixMilli(a.start)).Round(time.Millisecond)), slog.Duration("timeout", time.Duration(a.timeout)*time.Millisecond),
	}
	if hidden > 0 {
		attrs = append(attrs, slog.Int("others_since_the_last_line", hidden))
	}
	l.log.Info("a transaction is aborted, and its producer is fenced", attrs...)
}
