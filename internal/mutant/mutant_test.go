package mutant

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const example = `It adds.
seed 7

--- a/sum/sum.go
+++ b/sum/sum.go
@@ -3,3 +3,3 @@
 func add(a, b int) int {
-	return a + b
+	return a - b
 }
`

// sumTest finds the example with seed 12, or among the first 100.
const sumTest = `package sum

import (
	"os"
	"testing"
)

func TestAdd(t *testing.T) {
	one, first := os.Getenv("LEAT_TEST_SEED"), os.Getenv("LEAT_TEST_SEEDS")
	if (one == "12" || first == "100") && add(1, 2) != 3 {
		t.Fatal("seed 12, event 3: wrong")
	}
}
`

// enterExample makes a module with a package and two mutants, goes to the package, and returns the mutants' directory.
func enterExample(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                "module example\n\ngo 1.26\n",
		"sum/sum.go":            "package sum\n\nfunc add(a, b int) int {\n\treturn a + b\n}\n",
		"sum/sum_test.go":       sumTest,
		"mutants/adds.patch":    example,
		"mutants/doubles.patch": strings.Replace(example, "a - b", "2 * (a + b)", 1),
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(root, "sum"))
	return "../mutants"
}

// TestMutant proves that a patch is applied to a copy of the file, that the package's tests see it,
// and that the seed which they name is found and can be noted.
func TestMutant(t *testing.T) {
	dir := enterExample(t)
	list, err := List(dir)
	if err != nil || len(list) != 2 || list[0].Name != "adds" || list[0].Seed != 7 {
		t.Fatal(list, err)
	}
	program, err := list[0].Build(t.Context(), "..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	seed, found, out := Run(t.Context(), program, "TestAdd", "LEAT_TEST_SEED=12")
	if !found || seed != 12 {
		t.Errorf("seed %d, %v: %s", seed, found, out)
	}
	if _, found, _ := Run(t.Context(), program, "TestAdd", "LEAT_TEST_SEED=7"); found {
		t.Error("a test that does not fail finds it")
	}
	if err := list[0].SetSeed(12); err != nil {
		t.Fatal(err)
	}
	if list, err = List(dir); err != nil || list[0].Seed != 12 {
		t.Error(list, err)
	}
	if _, err := (&Mutant{text: "It changes nothing.\nseed 1\n"}).Build(t.Context(), "..", t.TempDir()); err == nil {
		t.Error("a patch without a file is built")
	}
}

// TestSuite proves that a mutant is found by its seed alone if all are tried, in the usual run by the first seeds, too, and
// that only a search writes another seed into its file.
func TestSuite(t *testing.T) {
	s := Suite{Directory: enterExample(t), Root: "..", Test: "^TestAdd$"}
	list, err := List(s.Directory)
	if err != nil {
		t.Fatal(err)
	}
	program, err := list[0].Build(t.Context(), s.Root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode  mode
		seeds int
		found bool
		after uint64
	}{
		{all, 100, false, 7},
		{usual, 100, true, 7},
		{usual, 5, false, 7},
		{"adds", 5, false, 7},
		{"adds", 100, true, 12},
		{all, 100, true, 12},
		{usual, 5, true, 12},
		{search, 100, true, 12},
	} {
		out, err := s.find(t.Context(), list[0], program, c.mode, c.seeds)
		if (err == nil) != c.found {
			t.Errorf("mode %q with %d seeds: %v\n%s", c.mode, c.seeds, err, out)
		}
		if list, err = List(s.Directory); err != nil || list[0].Seed != c.after {
			t.Errorf("mode %q with %d seeds leaves seed %d, %v", c.mode, c.seeds, list[0].Seed, err)
		}
	}
}

// TestSuiteChooses proves which mutants are tried, and that a suite is refused which lacks some, or has one that does not
// fit the code.
func TestSuiteChooses(t *testing.T) {
	dir := enterExample(t)
	good := Suite{Directory: dir, Root: "..", Fewest: 2, Usual: []string{"adds"}}
	for m, want := range map[mode]int{usual: 1, all: 2, search: 2, "doubles": 1, "no such mutant": 0} {
		if list, err := good.choose(m); err != nil || len(list) != want {
			t.Errorf("mode %q: %d mutants, %v", m, len(list), err)
		}
	}
	for name, s := range map[string]Suite{
		"too few":     {Directory: dir, Root: "..", Fewest: 3},
		"one is gone": {Directory: dir, Root: "..", Usual: []string{"adds", "goes"}},
	} {
		if list, err := s.choose(usual); err == nil {
			t.Errorf("%s: %d mutants", name, len(list))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "late.patch"), []byte(strings.Replace(example, "return a + b", "return b + a", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := good.choose(usual); err == nil || !strings.Contains(err.Error(), "late") {
		t.Errorf("a mutant that does not fit the code: %v", err)
	}
}

// TestApplyDiff proves that a hunk must fit one place of the file.
func TestApplyDiff(t *testing.T) {
	const diff = "+++ b/x\n@@ -1 +1 @@\n-one\n+two\n"
	for text, want := range map[string]string{"one\n": "two\n", "zero\none\n": "zero\ntwo\n", strings.Repeat("one\n", 2): "", "three\n": ""} {
		got, err := applyDiff(text, diff)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q becomes %q, %v", text, got, err)
		}
	}
}
