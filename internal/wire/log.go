package wire

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// logBurst lines a second are written about what clients do wrong: a flood of
// bad clients must not become a flood of lines.
const logBurst = 10

// lineLimit bounds the number of lines a second.
type lineLimit struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	second  int64
	lines   int
	dropped int
}

// line returns the logger for one more line, which says how many were dropped
// before it; nil when this one is to be dropped too.
func (l *lineLimit) line() *slog.Logger {
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

// report writes the one line about why a connection ended.
func (c *Conn) report(reason error) {
	s := c.srv
	var p *panicError
	switch {
	case errors.As(reason, &p):
		s.stats.Panics.Add(1)
		s.cfg.Logger.Error("BUG: a handler panicked; its connection was closed", "client", c.RemoteAddr(), "panic", p.value, "stack", string(p.stack))
	case reason == nil, errors.Is(reason, errShutdown), errors.Is(reason, errIdle), errors.Is(reason, errGone):
		s.cfg.Logger.Debug("connection ended", "client", c.RemoteAddr(), "reason", reason)
	default:
		if log := s.lines.line(); log != nil {
			log.Warn("connection closed", "client", c.RemoteAddr(), "reason", reason)
		}
	}
}

// gone marks an error of the network as the end of the client, which is nobody's
// fault; others, of files and limits, are as they were.
func gone(err error) error {
	var op *net.OpError
	if errors.As(err, &op) || ended(err) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	for _, e := range []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ETIMEDOUT, syscall.EHOSTUNREACH} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", errGone, err)
		}
	}
	return err
}

// ended tells that an error only means that a connection or listener was closed.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
