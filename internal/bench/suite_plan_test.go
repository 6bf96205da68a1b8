package bench

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TestPlan proves that a suite that was cut goes on with what it has not measured, that
// of heavy workloads no round is thrown away, and that the time that one took before is what it
// is expected to take again, if it is measured in the same way.
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
	s.report = s.head(old, "all", false)
	names := func(p *plan) (all string) {
		for _, r := range p.rows {
			all += r.name + "\n"
		}
		return all
	}
	p := s.plan()
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
		if first, last := s.roundsOf(&r.workload); r.heavy && (first != 1 || last != 5) || !r.heavy && !r.warms && (first != 0 || last != 5) {
			t.Errorf("%s has rounds %d to %d", r.name, first, last)
		}
	}
	if sum != p.left {
		t.Errorf("%s in all, not %s", p.left, sum)
	}
	s.resume = true
	s.report = s.head(old, "the rest", true)
	if got := names(s.plan()); strings.Contains(got, produceBatches+"\n") || !strings.Contains(got, idleEmpty) {
		t.Errorf("to be resumed:\n%s", got)
	}
	if s.report.Date != old.Date || s.report.Command != old.Command || s.taken(&workload{}).Date != old.Date {
		t.Error("what goes on is another run:", s.report.Date, s.report.Command)
	}
}

// TestNotes proves that a document says of a table where it was measured otherwise than
// the rest, and what the reader has to know.
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

// TestInsist proves that what fails for a reason that passes is done again, less and
// less often, until there is no patience left, and anything else is not.
func TestInsist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, tries := time.Now(), 0
		err := insist(t.Context(), began.Add(time.Minute), func() error {
			if tries++; tries < 100 {
				return kerr.NotLeaderForPartition
			}
			return nil
		})
		if took := time.Since(began); err != nil || tries != 100 || took < 100*askSlowly/2 || took > 100*askSlowly {
			t.Errorf("%v after %d tries in %s", err, tries, took)
		}
		err = insist(t.Context(), time.Now().Add(time.Second), func() error { return kerr.NotLeaderForPartition })
		if !errors.Is(err, errPatience) || !errors.Is(err, kerr.NotLeaderForPartition) {
			t.Error(err)
		}
		tries = 0
		err = insist(t.Context(), time.Now().Add(time.Second), func() error { tries++; return errShort })
		if !errors.Is(err, errShort) || tries != 1 {
			t.Errorf("%v after %d tries", err, tries)
		}
	})
}
