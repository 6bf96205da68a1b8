//go:build unix

package main_test

import (
	"strings"
	"testing"
)

// TestHealth proves that a check finds the node by its data directory alone, as in a container, and that it
// fails as an unreachable broker does when the node does not answer.
func TestHealth(t *testing.T) {
	t.Parallel()
	data, dir := t.TempDir(), t.TempDir()
	r := tryVerb(t, dir, "", "health --data "+data)
	r.expect(t, 3)
	p := up(t, data)
	r = tryVerb(t, dir, "", "health --data "+data)
	r.expect(t, 0)
	if r.stdout != "node 1 answers clients on "+p.addr+"\n" {
		t.Errorf("it says %q", r.stdout)
	}
	if err := p.freeze(); err != nil {
		t.Fatal(err)
	}
	r = tryVerb(t, dir, "", "health --timeout 1s --data "+data)
	r.expect(t, 4)
	p.kill()
	r = tryVerb(t, dir, "", "health --timeout 1s --data "+data)
	r.expect(t, 4)
	if !strings.Contains(r.stderr, p.addr) {
		t.Errorf("it says %q", r.stderr)
	}
}
