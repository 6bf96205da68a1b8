package main_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestBenchTellsItsOwnLimits proves that bench does not blame the broker for what this program or its
// user may not do: it says whose limit it is and what to do, and makes no topic.
func TestBenchTellsItsOwnLimits(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	dir := t.TempDir()
	at := " --bootstrap " + p.addr
	tryVerb(t, dir, "", "topic create wide --partitions 100"+at).expect(t, 0)
	for args, says := range map[string]string{
		"bench produce --connections 100": `this program may have 64 files open, which are too few for 100 connections: raise that limit with "ulimit -n", or use --connections 52`,
		"bench consume --connections 100": "too few for 100 connections",
		"bench consume --partitions 90":   "too few for 90 connections",
		"bench consume --topic wide":      "too few for 100 connections",
		"bench produce --pid 4000000":     "--pid: there is no process 4000000 on this machine",
		"bench latency --pid 1073741824":  "--pid: there is no process 1073741824 on this machine",
		"bench produce --pid -1 --keep":   "--pid: there is no process -1 on this machine",
	} {
		out, err := exec.Command("sh", "-c", "ulimit -n 64 && exec "+leat+" "+args+at).CombinedOutput()
		code := 0
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			code = e.ExitCode()
		}
		if code != 2 || !strings.Contains(string(out), says) || strings.Contains(string(out), "broker") {
			t.Errorf("leat %s: exit code %d, %s", args, code, out)
		}
	}
	if left := tryVerb(t, dir, "", "topic list -q"+at).stdout; left != "wide\n" {
		t.Errorf("topics are left behind: %s", left)
	}
}
