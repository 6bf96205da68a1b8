package node

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
)

// rootLogger is Kafka's name of the logger whose level the others have that were
// given none.
const rootLogger = "root"

// asRoot is the level of a logger that was given none.
const asRoot = math.MinInt64

// loggers are the named loggers of a node, one for each part that logs, and from
// which level on each of them writes. Levels are changed while the node runs, as
// Kafka's broker loggers, and are forgotten when it stops.
type loggers struct {
	to     slog.Handler
	levels map[string]*atomic.Int64 // of slog.Level, or asRoot; the keys never change
}

// newLoggers makes the loggers of a node, which write to a handler that lets all
// pass that they do; level is the root's.
func newLoggers(to slog.Handler, level slog.Level) *loggers {
	ls := &loggers{to: to, levels: map[string]*atomic.Int64{}}
	for _, name := range []string{rootLogger, "broker", "group", "quorum", "storage", "wire"} {
		ls.levels[name] = new(atomic.Int64)
		ls.levels[name].Store(asRoot)
	}
	ls.levels[rootLogger].Store(int64(level))
	return ls
}

// logger returns the logger of a part, which says in each line whose it is.
func (ls *loggers) logger(name string) *slog.Logger {
	h := leveled{ls.to, ls.levels[name], ls.levels[rootLogger]}
	return slog.New(h.WithAttrs([]slog.Attr{slog.String("logger", name)}))
}

// effective are the levels from which on the loggers write, by name.
func (ls *loggers) effective() map[string]slog.Level {
	m := make(map[string]slog.Level, len(ls.levels))
	for name, l := range ls.levels {
		m[name] = leveled{own: l, root: ls.levels[rootLogger]}.level()
	}
	return m
}

// set gives a logger a level of its own; nil takes that back. There must be such
// a logger, and the root's level cannot be taken back.
func (ls *loggers) set(name string, level *slog.Level) {
	if level == nil {
		ls.levels[name].Store(asRoot)
		return
	}
	ls.levels[name].Store(int64(*level))
}

// leveled is a handler of lines from a level on that can change.
type leveled struct {
	slog.Handler
	own, root *atomic.Int64
}

func (h leveled) level() slog.Level {
	if l := h.own.Load(); l != asRoot {
		return slog.Level(l)
	}
	return slog.Level(h.root.Load())
}

// Enabled tells whether a line of that level is written.
func (h leveled) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level() && h.Handler.Enabled(ctx, l)
}

// WithAttrs returns a handler that adds attributes to each line.
func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// WithGroup returns a handler that puts what lines say into a group.
func (h leveled) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
