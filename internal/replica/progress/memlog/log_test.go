package memlog

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
)

// TestExam proves that a log in memory is equal to itself over operations and crashes: what the
// exam asks of others, it can ask of every log.
func TestExam(t *testing.T) {
	for seed := range uint64(20) {
		if err := Exam(New(false), seed, 300); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExamFindsFaults proves that the exam sees a log that differs.
func TestExamFindsFaults(t *testing.T) {
	for name, log := range map[string]Examined{
		"commits at once":           &hasty{New(false)},
		"keeps the records of cuts": &uncut{New(false)},
		"forgets epochs":            &epochless{New(false)},
	} {
		if err := Exam(log, 1, 300); err == nil {
			t.Errorf("it sees no fault in a log that %s", name)
		}
	}
}

type hasty struct{ *Log }

func (l *hasty) Committed() record.Offset { return l.End() }

type uncut struct{ *Log }

func (*uncut) Truncate(record.Offset) error { return nil }

type epochless struct{ *Log }

func (*epochless) BeginEpoch(record.Epoch) error { return nil }

// TestCrash proves what a crash leaves: what was committed, of the rest no more than was said,
// and the high watermark of the last commit.
func TestCrash(t *testing.T) {
	l := New(false)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Append(1, 10, 11))
	l.SetHighWatermark(1)
	l.Commit()
	must(l.Append(2, 12, 13, 14))
	l.SetHighWatermark(2)
	if l.Committed() != 2 || l.End() != 5 {
		t.Errorf("committed %d of %d", l.Committed(), l.End())
	}
	must(l.BeginEpoch(3))
	if e, end := l.EpochEnd(2); e != 2 || end != 5 {
		t.Errorf("epoch %d ends at %d", e, end)
	}
	l.Crash(1)
	if l.End() != 3 || l.HighWatermark() != 1 || l.EpochAt(2) != 2 {
		t.Errorf("it ends at %d, the high watermark is %d", l.End(), l.HighWatermark())
	}
	if e, end := l.EpochEnd(3); e != record.NoEpoch || end != -1 {
		t.Errorf("the epoch without records: %d, %d", e, end)
	}
	must(l.SetStart(2))
	if _, err := l.Read(1, 1); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("a deleted record: %v", err)
	}
	l.Break()
	for _, err := range []error{l.Append(4, 1), l.AppendAt(3, Entry{4, 1}), l.BeginEpoch(4), l.Truncate(2), l.SetStart(3), l.Clear(9), l.Fault()} {
		if !errors.Is(err, ErrFaulted) {
			t.Errorf("a broken log: %v", err)
		}
	}
}

// TestPageCache proves that a log in page-cache mode commits at once, and loses that in a crash.
func TestPageCache(t *testing.T) {
	l := New(true)
	if err := l.Append(1, 10, 11); err != nil {
		t.Fatal(err)
	}
	if l.Committed() != 2 || l.Durable() != 0 {
		t.Errorf("committed %d, durable %d", l.Committed(), l.Durable())
	}
	l.Crash(0)
	if l.End() != 0 || l.Committed() != 0 {
		t.Errorf("it ends at %d, %d is committed", l.End(), l.Committed())
	}
}

// TestConfigure proves that a log whose mode is changed keeps what it has committed, that the next
// append makes all earlier records durable, and that it is committed by the new mode.
func TestConfigure(t *testing.T) {
	l := New(true)
	appendOne := func(wantCommitted, wantDurable record.Offset) {
		t.Helper()
		if err := l.Append(1, 7); err != nil {
			t.Fatal(err)
		}
		if l.Committed() != wantCommitted || l.Durable() != wantDurable {
			t.Errorf("committed %d, durable %d; want %d, %d", l.Committed(), l.Durable(), wantCommitted, wantDurable)
		}
	}
	appendOne(1, 0)
	l.Configure(false)
	if l.Committed() != 1 || l.Durable() != 0 || !l.PageCache() {
		t.Errorf("before the next append: committed %d, durable %d, page cache %v", l.Committed(), l.Durable(), l.PageCache())
	}
	appendOne(1, 1)
	l.CommitTo(9)
	if l.Committed() != 2 || l.Durable() != 2 {
		t.Errorf("after a commit: committed %d, durable %d", l.Committed(), l.Durable())
	}
	appendOne(2, 2)
	l.Configure(true)
	appendOne(4, 3)
}

var update = flag.Bool("update", false, "write what the log answers into the scripts")

// TestScripts runs the scripts in testdata on a log in memory. The log of the storage engine runs them,
// too.
func TestScripts(t *testing.T) {
	scripts, err := Scripts(os.DirFS("testdata"))
	if err != nil || len(scripts) < 3 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for name, want := range scripts {
		got, err := RunScript(New(false), want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", name), got, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestScriptErrors proves that a script with a mistake is not taken for one without commands.
func TestScriptErrors(t *testing.T) {
	for _, script := range []string{"tidy\n", "copy 0 x:1\n", "copy 0 1:x\n"} {
		if _, err := RunScript(New(false), []byte(script)); err == nil {
			t.Errorf("%q has no error", script)
		}
	}
}
