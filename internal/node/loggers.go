package node

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"

	"github.com/leatstream/leat/internal/broker"
)

// rootLogger is Kafka's name of the logger whose level applies to all loggers without a level
// of their own.
const rootLogger = "root"

// inherited stands for the level of a logger that has none of its own.
const inherited = math.MinInt64

// loggers are the named loggers of a node, one for each part that logs, with their levels.
// Clients can change levels while the node runs, as Kafka's broker loggers; the changes are
// lost when it stops.
type loggers struct {
	to     slog.Handler
	levels map[string]*atomic.Int64 // slog.Level, or inherited; the keys never change
	limit  *lineLimit
}

// newLoggers makes the loggers of a node, which write to a handler. That must write all
// levels; level is the root's.
func newLoggers(to slog.Handler, level slog.Level) *loggers {
	ls := &loggers{to: to, levels: map[string]*atomic.Int64{}, limit: newLineLimit()}
	for _, name := range []string{rootLogger, auditLogger, "broker", "cluster", "group", "mirror", "quorum", "replica", "storage", "txn", "wire"} {
		ls.levels[name] = new(atomic.Int64)
		ls.levels[name].Store(inherited)
	}
	ls.levels[rootLogger].Store(int64(level))
	return ls
}

// loggerOf returns the logger of a part, whose lines have its name.
func (ls *loggers) loggerOf(name string) *slog.Logger {
	h := leveled{ls.to, ls.levels[name], ls.levels[rootLogger], ls.limit}
	return slog.New(h.WithAttrs([]slog.Attr{slog.String("logger", name)}))
}

// effectiveLevels are the lowest levels that the loggers write, by name.
func (ls *loggers) effectiveLevels() map[string]slog.Level {
	m := make(map[string]slog.Level, len(ls.levels))
	for name, l := range ls.levels {
		m[name] = leveled{own: l, root: ls.levels[rootLogger]}.effectiveLevel()
	}
	return m
}

// setLevel gives a logger a level of its own, or takes it away (nil). The logger must exist,
// and the root must keep a level.
func (ls *loggers) setLevel(name string, level *slog.Level) {
	value, shown := int64(inherited), "that of root"
	if level != nil {
		value, shown = int64(*level), broker.LevelName(*level)
	}
	tell := func() { ls.loggerOf(rootLogger).Info("a log level was changed", "of", name, "level", shown) }
	if level != nil && *level > slog.LevelInfo {
		tell() // before the change may hide the line: a log that ends without a word looks like a node that hangs
		ls.levels[name].Store(value)
		return
	}
	ls.levels[name].Store(value)
	tell()
}

// leveled is a handler that drops lines below a level, which can change, and those above their
// limit.
type leveled struct {
	slog.Handler
	own, root *atomic.Int64
	limit     *lineLimit
}

func (h leveled) effectiveLevel() slog.Level {
	if l := h.own.Load(); l != inherited {
		return slog.Level(l)
	}
	return slog.Level(h.root.Load())
}

// Enabled tells whether a line of that level is written.
func (h leveled) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.effectiveLevel() && h.Handler.Enabled(ctx, l)
}

// Handle writes a line, unless there were too many of its kind.
func (h leveled) Handle(ctx context.Context, r slog.Record) error {
	ok, dropped := h.limit.allowLine(&r)
	if !ok {
		return nil
	}
	if dropped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("lines_dropped", dropped))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes to each line.
func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// WithGroup returns a handler that puts the attributes of lines into a group.
func (h leveled) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
