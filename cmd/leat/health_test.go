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
	// Variables for the clients of another cluster change nothing for the node of a directory.
	elsewhere := []string{"LEAT_BOOTSTRAP=127.0.0.1:1", "LEAT_USER=admin", "LEAT_PASSWORD=x", "LEAT_CA=none.pem", "LEAT_CLIENT_CONFIG=none.properties"}
	for _, line := range []string{"health --data " + data, "cluster token --list --data " + data} {
		tryVerbIn(t, elsewhere, dir, "", line).expect(t, 0)
	}
	tryVerbIn(t, append(elsewhere, "LEAT_DATA="+data), dir, "", "health").expect(t, 0)
	tryVerbIn(t, elsewhere[:1], dir, "", "health --timeout 1s").expect(t, 4)
	tryVerbIn(t, elsewhere, dir, "", "health --timeout 1s --data "+data+" -b 127.0.0.1:2").expect(t, 3) // the flag counts: the file of LEAT_CA is read
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
