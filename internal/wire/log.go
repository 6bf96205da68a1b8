package wire

import (
	"log/slog"
	"sync"
	"time"
)

// logBurst is the number of lines a second about mistakes of clients, so that a flood of bad
// clients does not become a flood of lines.
const logBurst = 10

// scarcityPause is the time between two lines about a shortage of file descriptors.
const scarcityPause = 10 * time.Second

// lineLimit bounds the number of lines in a period. Safe for concurrent use.
type lineLimit struct {
	log    *slog.Logger
	burst  int
	period time.Duration

	mu      sync.Mutex // guards the fields below
	began   time.Time  // the period of the last line
	lines   int
	dropped int
}

func newLineLimit(log *slog.Logger, burst int, period time.Duration) *lineLimit {
	return &lineLimit{log: log, burst: burst, period: period}
}

// nextLine returns the logger for one more line, which tells how many were dropped before it.
// It returns nil if this line must be dropped too.
func (l *lineLimit) nextLine() *slog.Logger {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.began) >= l.period {
		l.began, l.lines = now, 0
	}
	if l.lines++; l.lines > l.burst {
		l.dropped++
		return nil
	}
	dropped := l.dropped
	l.dropped = 0
	if dropped == 0 {
		return l.log
	}
	return l.log.With("lines_dropped", dropped)
}
