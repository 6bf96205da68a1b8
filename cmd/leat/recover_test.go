//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestRecoverCluster proves that a cluster of which two of three nodes are lost goes on with the third one by one command,
// which changes nothing before it is confirmed; that no acknowledged record is lost; that another node joins anew; and that
// one of the lost nodes that comes back ends with a sentence.
func TestRecoverCluster(t *testing.T) {
	t.Parallel()
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	nodes := []*process{up(t, dirs[0])}
	token := makeToken(t, dirs[0])
	for _, dir := range dirs[1:] {
		nodes = append(nodes, up(t, dir, "--join", nodes[0].addr, "--token", token))
	}
	awaitCluster(t, nodes[0].addr, "all nodes vote", func(c *clusterSight) bool { return c.countVoters() == 3 && c.countActive() == 3 })
	tryVerb(t, t.TempDir(), "", "topic create t --partitions 3 --bootstrap "+nodes[0].addr).expect(t, 0)
	var lines []string
	for i := range 50 {
		lines = append(lines, fmt.Sprint("record ", i))
	}
	tryVerb(t, t.TempDir(), strings.Join(lines, "\n")+"\n", "produce t --bootstrap "+nodes[0].addr).expect(t, 0)

	left := dirs[2]
	running := tryVerb(t, t.TempDir(), "", "cluster recover --yes --data "+left)
	running.expect(t, 1)
	if !strings.Contains(running.stderr, "another leat is running in it") {
		t.Errorf("while the node runs it says %s", running.stderr)
	}
	nodes[2].kill()
	others := tryVerb(t, t.TempDir(), "", "cluster recover --yes --data "+left)
	others.expect(t, 1)
	if !strings.Contains(others.stderr, "another node of the cluster still runs: node ") {
		t.Errorf("while others run it says %s", others.stderr)
	}
	nodes[0].kill()
	nodes[1].kill()
	for range 2 { // it changes nothing
		plan := tryVerb(t, t.TempDir(), "", "cluster recover --data "+left)
		plan.expect(t, 2)
		if !strings.Contains(plan.stdout, "removed for good: nodes 1 and 2\nnode 3 leads 3 partitions\n") || !strings.Contains(plan.stderr, "nothing was changed: add --yes") {
			t.Errorf("unconfirmed it says %s%s", plan.stdout, plan.stderr)
		}
	}
	done := tryVerb(t, t.TempDir(), "", "cluster recover --yes -o json --data "+left)
	done.expect(t, 0)
	var told struct {
		Recovered bool
		Removed   []int32
		Leads     int
		Lost      []string
	}
	if err := json.Unmarshal([]byte(done.stdout), &told); err != nil || !told.Recovered || !slices.Equal(told.Removed, []int32{1, 2}) || told.Leads != 3 || len(told.Lost) > 0 {
		t.Errorf("it tells %s, %v", done.stdout, err)
	}
	if !strings.Contains(done.stderr, "leat cluster token") {
		t.Errorf("it does not say what to do next: %s", done.stderr)
	}
	again := tryVerb(t, t.TempDir(), "", "cluster recover --yes --data "+left)
	again.expect(t, 1)
	if !strings.Contains(again.stderr, "the only one of its cluster") {
		t.Errorf("a second time it says %s", again.stderr)
	}

	p := upAt(t, left, nodes[2].addr)
	r := tryVerb(t, t.TempDir(), "", "consume t --from start --exit --bootstrap "+p.addr)
	r.expect(t, 0)
	got := strings.Split(strings.TrimSpace(r.stdout), "\n")
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("%d records are left of %d: %v", len(got), len(lines), got)
	}
	up(t, t.TempDir(), "--join", p.addr, "--token", makeToken(t, left))
	back := launch(t, dirs[0], nodes[0].addr, "--http", "off")
	back.awaitEnd(t)
	if text := back.out.String(); back.exitCode() == 0 || !strings.Contains(text, "the cluster was recovered without this node's data") {
		t.Errorf("a node that comes back ends with %d: %s", back.exitCode(), text)
	}
	none := tryVerb(t, t.TempDir(), "", "cluster recover --data "+t.TempDir())
	none.expect(t, 3)
}
