package storage

import (
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// TestRefusedFilesAreReported proves that a log whose files cannot be opened, read or appended to
// is listed as refused and named in the log of the node, once, and that it is not any more when
// the files can be used.
func TestRefusedFilesAreReported(t *testing.T) {
	for _, tc := range []struct {
		use  use
		call func(l *Log) error
	}{
		{useOpen, func(l *Log) error { _, err := l.End(); return err }},
		{useRead, func(l *Log) error {
			c, err := l.Read(40, 41, 1)
			if c != nil {
				c.Release()
			}
			return err
		}},
		{useAppend, func(l *Log) error { return appendOne(t, l, batch(t, 0, 1, 100)).Err }},
	} {
		t.Run(string(tc.use), func(t *testing.T) {
			mem := vfs.NewMem()
			s := quietStore(t, testConfig(mem, "data"))
			for i := range 100 {
				mustAppend(t, testLog(s, 0, testOptions()), batch(t, i, 1, 100))
			}
			s.Commit()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			refused := true
			var log said
			cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
				isUse := tc.use == useOpen && op == vfs.OpReadDir || tc.use == useRead && op == vfs.OpRead || tc.use == useAppend && op == vfs.OpWrite
				if refused && isUse && strings.HasPrefix(path, "data/topic-0") {
					return fs.ErrPermission
				}
				return nil
			}), "data")
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			refused = false
			s = quietStore(t, cfg)
			l := testLog(s, 0, testOptions())
			if tc.use != useOpen {
				if _, err := l.End(); err != nil {
					t.Fatal(err)
				}
			}
			refused = true
			for range 3 {
				if err := tc.call(l); err == nil {
					t.Fatal("the call succeeds")
				}
			}
			if f := s.Faults(); len(f) != 1 || f[0].Kind != LogRefused || f[0].Log != l.name {
				t.Errorf("the faults are %v", f)
			}
			if n := strings.Count(log.String(), "the files of a log cannot be used"); n != 1 {
				t.Errorf("%d lines:\n%s", n, log.String())
			}
			refused = false
			if err := tc.call(l); err != nil {
				t.Fatal(err)
			}
			if f := s.Faults(); len(f) > 0 || !strings.Contains(log.String(), "a log can be used again") {
				t.Errorf("the faults are %v, the log says:\n%s", f, log.String())
			}
			if end, err := l.End(); err != nil || end < record.Offset(100) {
				t.Errorf("the log ends at %d, %v", end, err)
			}
		})
	}
}

// TestFailingCheckpointsAreOneLine proves that checkpoints that fail again and again are told of
// once a minute, and that the log says when they succeed again.
func TestFailingCheckpointsAreOneLine(t *testing.T) {
	mem := vfs.NewMem()
	broken := false
	var log said
	cfg := testConfig(vfs.NewFaulty(mem, func(op vfs.Op, path string) error {
		if broken && op == vfs.OpWrite && strings.HasPrefix(path, "data/checkpoint-") {
			return fs.ErrPermission
		}
		return nil
	}), "data")
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := quietStore(t, cfg)
	lines := func() int { return strings.Count(log.String(), "checkpoints fail") }
	broken = true
	for range 5 {
		s.keeper.checkpointNow()
	}
	if n := lines(); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	s.keeper.failedAt = time.Now().Add(-complainEvery)
	s.keeper.checkpointNow()
	if n := lines(); n != 2 {
		t.Errorf("%d lines after a minute:\n%s", n, log.String())
	}
	broken = false
	s.keeper.checkpointNow()
	if !strings.Contains(log.String(), "checkpoints succeed again") {
		t.Errorf("the log does not say that they succeed:\n%s", log.String())
	}
}
