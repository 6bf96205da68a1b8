package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A mutant is a patch of this package that breaks one rule. Its file in testdata/mutants begins
// with a sentence about the broken rule and a line "seed N" with the history that finds it.
//
// These are the mutants that are tried each time; LEAT_TEST_MUTANTS=all tries all of them, and
// LEAT_TEST_MUTANTS=search looks for a new seed for each and writes it into the file.
var usualMutants = []string{"committed-set-only", "page-cache-counts", "cut-at-the-leaders-end"}

// TestMutants proves that the model test sees broken rules: with each patch applied, the history
// that its file names ends with a failure.
func TestMutants(t *testing.T) {
	mode := os.Getenv("LEAT_TEST_MUTANTS")
	if testing.Short() && mode == "" {
		t.Skip("it builds the package's tests several times")
	}
	files, err := filepath.Glob("testdata/mutants/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 8 {
		t.Fatalf("there are only %d mutants", len(files))
	}
	tried := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".patch")
		if mode == "" && !slices.Contains(usualMutants, name) {
			continue
		}
		tried++
		t.Run(name, func(t *testing.T) { tryMutant(t, file, mode == "search") })
	}
	if tried < len(usualMutants) {
		t.Errorf("only %d of the usual mutants are there", tried)
	}
}

var (
	seedLine  = regexp.MustCompile(`(?m)^seed (\d+)$`)
	seedFound = regexp.MustCompile(`seed (\d+): `)
)

// tryMutant runs the model test with a patch. search: with many seeds, and it keeps the first one
// that finds the mutant.
func tryMutant(t *testing.T, file string, search bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seed := seedLine.FindSubmatch(text)
	if seed == nil {
		t.Fatal("the file names no seed")
	}
	env := "LEAT_TEST_SEED=" + string(seed[1])
	if search {
		env = "LEAT_TEST_SEEDS=2000"
	}
	run := exec.CommandContext(t.Context(), buildMutant(t, string(text)), "-test.run", "^TestModel$")
	run.Env = append(os.Environ(), env)
	out, err := run.CombinedOutput()
	found := seedFound.FindSubmatch(out)
	if exit := (*exec.ExitError)(nil); found == nil || !errors.As(err, &exit) {
		t.Fatalf("%s does not find it (%v). LEAT_TEST_MUTANTS=search may find another seed.\n%.2000s", env, err, out)
	}
	if search {
		text = seedLine.ReplaceAll(text, append([]byte("seed "), found[1]...))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// buildMutant builds this package's tests with patched copies of its files, and returns the
// program.
func buildMutant(t *testing.T, patch string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for part := range strings.SplitSeq(patch, "--- a/") {
		name, diff, ok := strings.Cut(part, "\n")
		if !ok || !strings.Contains(diff, "@@") {
			continue // what is before the first file
		}
		original, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		patched, err := applyDiff(string(original), diff)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		copied := filepath.Join(dir, name)
		if err := os.WriteFile(copied, []byte(patched), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(here, name)] = copied
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", list, "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// applyDiff applies the hunks of a unified diff of one file. The line numbers are not heeded:
// the lines of a hunk must be in the file once.
func applyDiff(text, diff string) (string, error) {
	_, diff, _ = strings.Cut(diff, "\n@@")
	for i, hunk := range strings.Split("\n@@"+diff, "\n@@")[1:] {
		_, hunk, _ = strings.Cut(hunk, "\n")
		var before, after strings.Builder
		for line := range strings.Lines(hunk) {
			line = strings.TrimSuffix(line, "\n") + "\n"
			if line[0] == ' ' || line[0] == '-' {
				before.WriteString(line[1:])
			}
			if line[0] == ' ' || line[0] == '+' {
				after.WriteString(line[1:])
			}
		}
		if n := strings.Count(text, before.String()); n != 1 {
			return "", fmt.Errorf("the lines of hunk %d are in the file %d times", i+1, n)
		}
		text = strings.Replace(text, before.String(), after.String(), 1)
	}
	return text, nil
}
