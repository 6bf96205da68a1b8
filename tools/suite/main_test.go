package main

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestRefusals proves that a wrong command line is refused before anything is started.
func TestRefusals(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	leat := filepath.Join(t.TempDir(), "leat")
	if err := os.WriteFile(leat, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--nope":                                     "flag provided but not defined",
		"more":                                       `"more" is not a flag`,
		"--leat " + leat + "-":                       "no such file",
		"--leat " + leat + " --only (":               "-only",
		"--leat " + leat + " --rounds -1":            "more than nothing",
		"--leat " + leat + " --run -1s":              "more than nothing",
		"--leat " + leat + " --out /dev/null/x/b.md": "not a directory",
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestQuick proves that the quick suite is shorter, and that a flag that is given counts
// more than it.
func TestQuick(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseFlags([]string{"--quick", "--rounds", "2", "--rounds", "4", "--leat", exe}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.newSuite(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s.rounds != 4 || s.run != time.Second || s.bytes != 512<<20 || !s.quick {
		t.Errorf("%d rounds of %s, %d bytes", s.rounds, s.run, s.bytes)
	}
}
