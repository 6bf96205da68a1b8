package mutant

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
)

// Suite is the mutants that a test of a package must find. LEAT_TEST_MUTANTS says which are tried, and how:
//
//	         the usual ones, by the seeds of their files; if one of those has become another history, by the first seeds
//	all      all, by the seeds of their files only
//	search   all, by the first seeds; the one that finds a mutant is written into its file
//	a name   that one, as by search
type Suite struct {
	Directory string // has the mutants
	Root      string // the directory to which the names in the patches are relative
	Test      string // a pattern for the name of the test, which takes LEAT_TEST_SEED and LEAT_TEST_SEEDS
	Fewest    int    // so many mutants there must be
	Usual     []string
	Search    int // how many first seeds there are, unless LEAT_TEST_SEARCH says it
}

// mode is the value of LEAT_TEST_MUTANTS.
type mode string

const (
	usual  mode = ""
	all    mode = "all"
	search mode = "search"
)

// searches tells whether the seeds of mutants are looked for, and not those of their files tried.
func (m mode) searches() bool { return m != usual && m != all }

// Try proves that the test sees broken rules: it ends with a failure for each mutant that is tried. All patches must fit
// the code, also those of mutants that are not tried.
func (s *Suite) Try(t *testing.T) {
	t.Helper()
	m := mode(os.Getenv("LEAT_TEST_MUTANTS"))
	seeds := s.Search
	if text := os.Getenv("LEAT_TEST_SEARCH"); text != "" {
		var err error
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.choose(m)
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() && m == usual {
		t.Skip("it builds the package's tests several times")
	}
	if len(list) == 0 {
		t.Skipf("%s has no mutant %s", s.Directory, m)
	}
	for _, one := range list {
		t.Run(one.Name, func(t *testing.T) {
			program, err := one.Build(t.Context(), s.Root, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.find(t.Context(), one, program, m, seeds)
			t.Log(out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// choose lists the mutants that are tried in a mode: none if it is the name of no mutant. All must fit the code.
func (s *Suite) choose(m mode) (chosen []*Mutant, err error) {
	list, err := List(s.Directory)
	if err != nil {
		return nil, err
	}
	if len(list) < s.Fewest {
		return nil, fmt.Errorf("%s has only %d mutants", s.Directory, len(list))
	}
	for _, one := range list {
		if _, err := one.apply(s.Root); err != nil {
			return nil, fmt.Errorf("the mutant %s does not fit the code any more: %w", one.Name, err)
		}
		if m == all || m == search || m == mode(one.Name) || m == usual && slices.Contains(s.Usual, one.Name) {
			chosen = append(chosen, one)
		}
	}
	if m == usual && len(chosen) < len(s.Usual) {
		return nil, fmt.Errorf("%s has only %d of the usual mutants %q", s.Directory, len(chosen), s.Usual)
	}
	return chosen, nil
}

// find looks for a history that finds a mutant, by the program that Build has built, and returns the end of what the test
// has said.
func (s *Suite) find(ctx context.Context, one *Mutant, program string, m mode, seeds int) (out string, err error) {
	seed, found := one.Seed, false
	run := func(env string) {
		var text string
		seed, found, text = Run(ctx, program, s.Test, env)
		out = fmt.Sprintf("%s: %s", env, text[max(0, len(text)-500):])
	}
	if !m.searches() {
		run(fmt.Sprintf("LEAT_TEST_SEED=%d", one.Seed))
	}
	if !found && m != all {
		run(fmt.Sprintf("LEAT_TEST_SEEDS=%d", seeds))
	}
	if !found {
		return out, fmt.Errorf("it is not found; LEAT_TEST_MUTANTS=%s LEAT_TEST_SEARCH=%d may find another seed", one.Name, 10*seeds)
	}
	if m.searches() {
		return out, one.SetSeed(seed)
	}
	return out, nil
}
