package node

import (
	"log/slog"
	"sync"
	"time"
)

// Requests of clients can cause lines. So that a flood of requests does not become a flood of lines, a
// message of the levels INFO and WARN is written at most lineBurst times in linePeriod, whatever its
// attributes are. The next line with that message tells how many were dropped. Errors are always written,
// and so are lines of DEBUG, since an operator who chooses that level wants every line.
const (
	lineBurst  = 20
	linePeriod = 10 * time.Second
	// mostMessages bounds the number of messages of which lines are counted. Messages are
	// constants of the program, of which there are fewer.
	mostMessages = 1000
)

// lineLimit bounds the lines of all loggers of a node together.
type lineLimit struct {
	mu       sync.Mutex
	messages map[string]*messageCount // guarded by mu
}

// messageCount counts the lines of one message. The mutex of its lineLimit guards it.
type messageCount struct {
	began   time.Time // when the present period began
	lines   int       // in it
	dropped int       // since the last line that was written
}

func newLineLimit() *lineLimit { return &lineLimit{messages: map[string]*messageCount{}} }

// allowLine tells whether a line may be written, and how many were dropped before it.
func (l *lineLimit) allowLine(r *slog.Record) (ok bool, dropped int) {
	if r.Level < slog.LevelInfo || r.Level >= slog.LevelError {
		return true, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.messages[r.Message]
	if m == nil {
		if len(l.messages) >= mostMessages {
			clear(l.messages)
		}
		m = new(messageCount)
		l.messages[r.Message] = m
	}
	if r.Time.Sub(m.began) >= linePeriod {
		m.began, m.lines = r.Time, 0
	}
	if m.lines >= lineBurst {
		m.dropped++
		return false, 0
	}
	m.lines++
	dropped, m.dropped = m.dropped, 0
	return true, dropped
}
