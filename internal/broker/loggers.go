package broker

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
)

// Broker loggers (KIP-412) are resources of type BROKER_LOGGER. The configs of one are the
// levels of a broker's loggers by name. DescribeConfigs shows them and
// IncrementalAlterConfigs sets them, for this broker and until it stops: they are not part
// of the cluster's metadata.

// rootLogger is the logger whose level can be changed but not removed.
const rootLogger = "root"

// logLevels are Kafka's levels, the most verbose first. No line has the level TRACE or
// FATAL here, so a logger with the level FATAL is silent.
var logLevels = []struct {
	name  string
	level slog.Level
}{
	{"TRACE", slog.LevelDebug - 4},
	{"DEBUG", slog.LevelDebug},
	{"INFO", slog.LevelInfo},
	{"WARN", slog.LevelWarn},
	{"ERROR", slog.LevelError},
	{"FATAL", slog.LevelError + 4},
}

// LevelName is Kafka's name of a level, or of the next more verbose one.
func LevelName(l slog.Level) string {
	name := logLevels[0].name
	for _, known := range logLevels {
		if l >= known.level {
			name = known.name
		}
	}
	return name
}

// parseLevel is the level that Kafka's name stands for.
func parseLevel(name string) (slog.Level, bool) {
	for _, known := range logLevels {
		if name == known.name {
			return known.level, true
		}
	}
	return 0, false
}

// describeLoggers lists the levels of this broker's loggers.
func (b *Broker) describeLoggers() []config.Entry {
	if b.cfg.LogLevels == nil {
		return nil
	}
	levels := b.cfg.LogLevels()
	entries := make([]config.Entry, 0, len(levels))
	for _, name := range slices.Sorted(maps.Keys(levels)) {
		entries = append(entries, config.Entry{Def: &config.Def{Name: name}, Value: LevelName(levels[name]), Source: config.LoggerSource})
	}
	return entries
}

// alterLoggers makes all changes of this broker's loggers, or none if one is refused.
func (b *Broker) alterLoggers(c *controller.ConfigChanges, validateOnly bool) *controller.Error {
	levels := map[string]slog.Level{}
	if b.cfg.LogLevels != nil {
		levels = b.cfg.LogLevels()
	}
	for i := range c.Changes {
		if err := checkLogger(levels, &c.Changes[i]); err != nil {
			return err
		}
	}
	if validateOnly {
		return nil
	}
	for i := range c.Changes {
		ch := &c.Changes[i]
		if l, ok := parseLevel(ch.Value); ok && ch.Op == controller.Set {
			b.cfg.SetLogLevel(ch.Key, &l)
		} else {
			b.cfg.SetLogLevel(ch.Key, nil)
		}
	}
	return nil
}

// checkLogger returns why a logger cannot be changed so; nil: it can.
func checkLogger(levels map[string]slog.Level, ch *controller.ConfigChange) *controller.Error {
	refuse := func(kind controller.Kind, format string, args ...any) *controller.Error {
		return &controller.Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
	}
	switch ch.Op {
	case controller.Set, controller.Delete:
	case controller.Append, controller.Subtract:
		return refuse(controller.InvalidRequest, "%v operation is not allowed for the BROKER_LOGGER resource", ch.Op)
	default:
		return refuse(controller.InvalidRequest, "Unknown operation type %d is not allowed for the BROKER_LOGGER resource", ch.Op)
	}
	if _, ok := levels[ch.Key]; !ok {
		return refuse(controller.InvalidConfig, "Logger %s does not exist!", ch.Key)
	}
	if ch.Op == controller.Delete {
		if ch.Key == rootLogger {
			return refuse(controller.InvalidRequest, "Removing the log level of the %s logger is not allowed", rootLogger)
		}
		return nil
	}
	if _, ok := parseLevel(ch.Value); !ok {
		names := make([]string, len(logLevels))
		for i := range logLevels {
			names[i] = logLevels[i].name
		}
		slices.Sort(names)
		return refuse(controller.InvalidConfig, "Cannot set the log level of %s to %s as it is not a supported log level. Valid log levels are %s",
			ch.Key, ch.Value, strings.Join(names, ", "))
	}
	return nil
}
