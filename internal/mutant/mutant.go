// Package mutant builds the tests of a package with a broken rule. So a test proves that a model or a
// simulation sees such a rule. A Mutant is a file: a sentence about the broken rule, a line "seed N"
// with the history that finds it, and a unified diff. A Suite tries those of a directory. The package is for tests only.
package mutant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Mutant is a patch that breaks one rule.
type Mutant struct {
	Name string
	Seed uint64 // the history that finds it
	file string
	text string
}

var seedLine = regexp.MustCompile(`(?m)^seed (\d+)$`)

// List reads the mutants of a directory, ordered by name.
func List(dir string) ([]*Mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var list []*Mutant
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m := &Mutant{Name: strings.TrimSuffix(filepath.Base(file), ".patch"), file: file, text: string(text)}
		seed := seedLine.FindStringSubmatch(m.text)
		if seed == nil {
			return nil, fmt.Errorf("%s names no seed", file)
		}
		if m.Seed, err = strconv.ParseUint(seed[1], 10, 64); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// SetSeed writes another seed into the mutant's file.
func (m *Mutant) SetSeed(seed uint64) error {
	m.Seed = seed
	m.text = seedLine.ReplaceAllString(m.text, fmt.Sprintf("seed %d", seed))
	return os.WriteFile(m.file, []byte(m.text), 0o600)
}

// Build builds the tests of the package in the current directory with the patch applied, and returns
// the program. root is the directory to which the names in the patch are relative; temp gets the
// patched copies and the program.
func (m *Mutant) Build(ctx context.Context, root, temp string) (program string, err error) {
	patched, err := m.apply(root)
	if err != nil {
		return "", err
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for original, text := range patched {
		copied := filepath.Join(temp, strconv.Itoa(len(overlay.Replace))+".go")
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			return "", err
		}
		if original, err = filepath.Abs(original); err != nil {
			return "", err
		}
		overlay.Replace[original] = copied
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	list := filepath.Join(temp, "overlay.json")
	program = filepath.Join(temp, "mutant.test")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", list, "-o", program, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
}

// apply applies the patch, and returns the patched texts by the names of their files. It writes nothing.
func (m *Mutant) apply(root string) (patched map[string]string, err error) {
	patched = map[string]string{}
	for part := range strings.SplitSeq(m.text, "--- a/") {
		name, diff, ok := strings.Cut(part, "\n")
		if !ok || !strings.Contains(diff, "@@") {
			continue // what is before the first file
		}
		original := filepath.Join(root, name)
		text, err := os.ReadFile(original)
		if err != nil {
			return nil, err
		}
		if patched[original], err = applyDiff(string(text), diff); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(patched) == 0 {
		return nil, errors.New("the patch changes no file")
	}
	return patched, nil
}

// applyDiff applies the hunks of a unified diff of one file. The line numbers are not heeded: the
// lines of a hunk must be in the file once.
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

var seedFound = regexp.MustCompile(`seed (\d+)[:,]`)

// Run runs a program that Build has built: one test, with some variables in its environment. It
// returns the seed of the history that has failed; found is false if none has.
func Run(ctx context.Context, program, test string, env ...string) (seed uint64, found bool, output string) {
	cmd := exec.CommandContext(ctx, program, "-test.run", test)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	match := seedFound.FindSubmatch(out)
	if exit := (*exec.ExitError)(nil); match == nil || !errors.As(err, &exit) {
		return 0, false, string(out)
	}
	seed, err = strconv.ParseUint(string(match[1]), 10, 64)
	return seed, err == nil, string(out)
}
