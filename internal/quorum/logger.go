package quorum

import (
	"fmt"
	"log/slog"
)

// raftLogger writes raft's log lines to slog. Raft's information, such as an election, is not
// interesting for the operator of a node, and is written as debugging.
type raftLogger struct{ l *slog.Logger }

const raftLine = "raft"

func (r raftLogger) Debug(v ...any)            { r.l.Debug(raftLine, "line", fmt.Sprint(v...)) }
func (r raftLogger) Debugf(f string, v ...any) { r.l.Debug(raftLine, "line", fmt.Sprintf(f, v...)) }
func (r raftLogger) Info(v ...any)             { r.Debug(v...) }
func (r raftLogger) Infof(f string, v ...any)  { r.Debugf(f, v...) }

func (r raftLogger) Warning(v ...any) { r.l.Warn(raftLine, "line", fmt.Sprint(v...)) }
func (r raftLogger) Warningf(f string, v ...any) {
	r.l.Warn(raftLine, "line", fmt.Sprintf(f, v...))
}
func (r raftLogger) Error(v ...any)            { r.l.Error(raftLine, "line", fmt.Sprint(v...)) }
func (r raftLogger) Errorf(f string, v ...any) { r.l.Error(raftLine, "line", fmt.Sprintf(f, v...)) }

// Fatal panics: raft calls it, as Panic, for broken invariants.
func (raftLogger) Fatal(v ...any)            { panic("BUG: raft: " + fmt.Sprint(v...)) }
func (raftLogger) Fatalf(f string, v ...any) { panic("BUG: raft: " + fmt.Sprintf(f, v...)) }
func (raftLogger) Panic(v ...any)            { panic("BUG: raft: " + fmt.Sprint(v...)) }
func (raftLogger) Panicf(f string, v ...any) { panic("BUG: raft: " + fmt.Sprintf(f, v...)) }
