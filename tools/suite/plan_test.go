package main

import (
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPlan proves that a suite that was cut goes on with the rows that it has not measured,
// that of heavy workloads no round is thrown away, and that a row is expected to take as long
// as it took before, if it is measured in the same way.
func TestPlan(t *testing.T) {
	s := &suite{rounds: 5, run: time.Second, bytes: 1 << 20, log: io.Discard, only: regexp.MustCompile("^produce, 1|^idle"), missing: map[string]string{}}
	s.began = takenOn{Date: "2026-02-01 10:00:00", Rounds: 5, Run: "1s", MostBytes: 1 << 20}
	old := &report{takenOn: s.began, Workloads: map[string]map[string]*series{}, Taken: map[string]takenOn{}}
	old.Date = "2026-01-01 10:00:00"
	for name, took := range map[string]float64{produceBatches: 77, produceLarge: 66} {
		taken := old.takenOn
		taken.Seconds = took
		if name == produceLarge {
			taken.Run = "9s"
		}
		old.Taken[name] = taken
	}
	s.report = s.newReport(old, "all", false)
	names := func(p *plan) (all string) {
		for _, r := range p.rows {
			all += r.name + "\n"
		}
		return all
	}
	p := s.makePlan()
	for _, name := range []string{idleEmpty, idleMany, produceBatches, produceLarge, produceSmall} {
		if !strings.Contains(names(p), name+"\n") {
			t.Errorf("%q is not in\n%s", name, names(p))
		}
	}
	var sum time.Duration
	for _, r := range p.rows {
		sum += r.expected
		if r.name == produceBatches && r.expected != 77*time.Second || r.name == produceLarge && r.expected == 66*time.Second {
			t.Errorf("%s is expected to take %s", r.name, r.expected)
		}
		if first, last := s.roundsOf(&r.row); r.heavy && (first != 1 || last != 5) || !r.heavy && !r.warms && (first != 0 || last != 5) {
			t.Errorf("%s has rounds %d to %d", r.name, first, last)
		}
	}
	if sum != p.left {
		t.Errorf("%s in all, not %s", p.left, sum)
	}
	few := row{heavy: true, most: 2, warm: time.Minute, turn: time.Second}
	if first, last := s.roundsOf(&few); first != 1 || last != 2 {
		t.Errorf("a row of at most two rounds has %d to %d", first, last)
	}
	one := &suite{rounds: 1}
	if _, last := one.roundsOf(&few); last != 1 {
		t.Errorf("a suite of one round has %d", last)
	}
	s.resume = true
	s.report = s.newReport(old, "the rest", true)
	if got := names(s.makePlan()); strings.Contains(got, produceBatches+"\n") || !strings.Contains(got, idleEmpty) {
		t.Errorf("to be resumed:\n%s", got)
	}
	if s.report.Date != old.Date || s.report.Command != old.Command || s.describe(&row{}).Date != old.Date {
		t.Error("what goes on is another run:", s.report.Date, s.report.Command)
	}
}

// TestNotes proves that a document says of a table where it was measured otherwise than
// the rest, and gives the notes of its row.
func TestNotes(t *testing.T) {
	r := &report{takenOn: takenOn{Date: "2026-02-01 10:00:00", Rounds: 5, Run: "3s", MostBytes: 1e9}, Taken: map[string]takenOn{}}
	same := r.takenOn
	other := takenOn{Date: "2026-01-01 10:00:00", Rounds: 2, Run: "1s", MostBytes: 2e9}
	for name, taken := range map[string]takenOn{produceBatches: same, createMany: other} {
		r.set(name, leatCache, &series{})
		r.Taken[name] = taken
	}
	doc := r.document("")
	for _, want := range []string{
		"Measured on 2026-02-01 with", "## Produce, 1 KiB records, 16 a batch, 32 in flight\n\n| contender |",
		"Measured on 2026-01-01 by another run. Measured in 2 rounds. One run lasts 1s, or until 2.00 GB were produced. " + fewerNote + "\n\n| contender |",
		"Not measured: " + idleEmpty + "; ",
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("%q is missing in\n%s", want, doc)
		}
	}
}
