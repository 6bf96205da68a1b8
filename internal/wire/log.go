package wire

import (
	"log/slog"
	"sync"
	"time"
)

// logBurst lines a second are written about mistakes of clients: a flood of
// bad clients must not become a flood of lines.
const logBurst = 10

// lineLimit bounds the number of lines a second.
type lineLimit struct {
	log *slog.Logger

	mu      sync.Mutex // guards the fields below
	second  int64
	lines   int
	dropped int
}

// nextLine returns the logger for one more line, which says how many were dropped
// before it; nil when this one is to be dropped too.
func (l *lineLimit) nextLine() *slog.Logger {
	now := time.Now().Unix()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now != l.second {
		l.second, l.lines = now, 0
	}
	if l.lines++; l.lines > logBurst {
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
