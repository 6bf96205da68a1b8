package sim

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSeeds proves that clusters keep their promises over many histories of faults: see the package's
// documentation for what is checked. LEAT_TEST_SEEDS is how many, or which, such as 2000-3999; LEAT_TEST_SEED
// runs one seed alone.
// The first seed that fails is printed with the last events of the partition concerned, of which there
// are LEAT_TEST_EVENTS; LEAT_TEST_FAILURES is how many seeds may fail before no other one is begun.
func TestSeeds(t *testing.T) { testSeeds(t, Run, 200, Coverage.Missing) }

func testSeeds(t *testing.T, run func(seed uint64) *Result, usual int, findMissing func(c Coverage, seeds int) []string) {
	t.Helper()
	first, seeds := chosenSeeds(t, usual)
	began := time.Now()
	s := runSeeds(run, uint64(first), uint64(seeds), number(t, "LEAT_TEST_FAILURES", 1))
	took := time.Since(began)
	t.Logf("%d seeds, %d events, %d faults in %v: %.0f events a second", s.seeds, s.events, s.faults, took.Round(time.Millisecond), float64(s.events)/took.Seconds())
	for _, r := range s.failed[min(1, len(s.failed)):] {
		t.Error(r.Err)
	}
	if len(s.failed) > 0 {
		t.Fatalf("%s\n%v", formatHistory(t, s.failed[0]), s.failed[0].Err)
	}
	if seeds == 1 {
		t.Logf("%s", formatHistory(t, s.fewest))
	}
	if testing.Verbose() {
		for _, what := range s.seen.Names() {
			t.Logf("%9d %s", s.seen[what], what)
		}
	}
	if s.fewest.Events < 2000 || s.fewestFaults.Faults < 5 {
		t.Errorf("seed %d has %d events, and seed %d has %d faults", s.fewest.Seed, s.fewest.Events, s.fewestFaults.Seed, s.fewestFaults.Faults)
	}
	if missing := findMissing(s.seen, seeds); seeds >= 200 && len(missing) > 0 {
		t.Errorf("in %d seeds these never happened: %q", seeds, missing)
	}
}

// chosenSeeds is the first seed to run, and how many.
func chosenSeeds(t *testing.T, usual int) (first, seeds int) {
	t.Helper()
	if one := number(t, "LEAT_TEST_SEED", -1); one >= 0 {
		return one, 1
	}
	text := os.Getenv("LEAT_TEST_SEEDS")
	var last int
	if n, _ := fmt.Sscanf(text, "%d-%d", &first, &last); n == 2 {
		return first, last - first + 1
	}
	if testing.Short() && text == "" {
		return 0, usual / 10
	}
	return 0, number(t, "LEAT_TEST_SEEDS", usual)
}

// formatHistory formats the end of a seed's history.
func formatHistory(t *testing.T, r *Result) string {
	t.Helper()
	var text strings.Builder
	if err := r.WriteHistory(&text, number(t, "LEAT_TEST_EVENTS", 150)); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// summary is the outcome of many seeds.
type summary struct {
	mu                   sync.Mutex
	next, end            uint64 // seeds that are not begun; guarded by mu
	seeds                int
	events, faults       int
	seen                 Coverage
	failed               []*Result // by seed
	mostFailed           int       // no seed is begun after so many have failed
	fewest, fewestFaults *Result
}

// runSeeds runs seeds on all processors, until some have failed.
func runSeeds(run func(seed uint64) *Result, first, n uint64, mostFailed int) *summary {
	s := &summary{next: first, end: first + n, mostFailed: mostFailed, seen: Coverage{}}
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for {
				seed, ok := s.take()
				if !ok {
					return
				}
				s.add(run(seed))
			}
		})
	}
	all.Wait()
	return s
}

func (s *summary) take() (seed uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == s.end || len(s.failed) >= s.mostFailed {
		return 0, false
	}
	s.next++
	return s.next - 1, true
}

func (s *summary) add(r *Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeds++
	s.events += r.Events
	s.faults += r.Faults
	s.seen.Add(r.Seen)
	if r.Err != nil {
		s.failed = append(s.failed, r)
		slices.SortFunc(s.failed, func(a, b *Result) int { return cmp.Compare(a.Seed, b.Seed) })
	}
	if s.fewest == nil || r.Events < s.fewest.Events {
		s.fewest = r
	}
	if s.fewestFaults == nil || r.Faults < s.fewestFaults.Faults {
		s.fewestFaults = r
	}
}

// TestReplay proves that a seed is the same history each time, also beside others.
func TestReplay(t *testing.T) {
	for seed := range uint64(3) {
		want := Run(seed)
		var all sync.WaitGroup
		var got [2]*Result
		for i := range got {
			all.Go(func() { got[i] = Run(seed) })
		}
		all.Wait()
		for _, r := range got {
			if r.Digest != want.Digest || r.Events != want.Events {
				t.Errorf("seed %d has two histories: %d and %d events", seed, want.Events, r.Events)
			}
		}
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
