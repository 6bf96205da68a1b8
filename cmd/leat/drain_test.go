//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestDrainNode proves that a node is drained under load by one command, which changes nothing in a dry run and says what it keeps; and
// that the node can be removed without force then, and nothing is lost.
func TestDrainNode(t *testing.T) {
	t.Parallel()
	first := t.TempDir()
	nodes := []*process{up(t, first)}
	token := makeToken(t, first)
	for range 2 {
		nodes = append(nodes, up(t, t.TempDir(), "--join", nodes[0].addr, "--token", token))
	}
	at := " --bootstrap " + nodes[0].addr
	awaitCluster(t, nodes[0].addr, "all nodes vote", func(c *clusterSight) bool { return c.countVoters() == 3 && c.countActive() == 3 })
	tryVerb(t, t.TempDir(), "", "topic create single --partitions 6 --replication 1"+at).expect(t, 0)
	tryVerb(t, t.TempDir(), "", "topic create double --partitions 6 --replication 2"+at).expect(t, 0)
	tryVerb(t, t.TempDir(), "", "topic create triple --partitions 3 --replication 3"+at).expect(t, 0)
	cl, err := kgo.NewClient(kgo.SeedBrokers(nodes[0].addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	stored := map[string]bool{}
	produce := func() {
		t.Helper()
		for _, topic := range []string{"single", "double", "triple"} {
			value := fmt.Sprint("record ", len(stored))
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			stored[value] = true
		}
	}
	for range 20 {
		produce()
	}
	held := func() (replicas, leaders, kept int) {
		t.Helper()
		fresh, err := kgo.NewClient(kgo.SeedBrokers(nodes[0].addr)) // the other one keeps what it has been told for a while
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		topics, err := kadm.NewClient(fresh).ListTopicsWithInternal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			for _, p := range topic.Partitions {
				if slices.Contains(p.Replicas, 3) {
					if replicas++; len(p.Replicas) == 3 {
						kept++
					}
				}
				if p.Leader == 3 {
					leaders++
				}
			}
		}
		return replicas, leaders, kept
	}
	before, leads, _ := held()
	if before == 0 || leads == 0 {
		t.Fatalf("node 3 has %d replicas and leads %d partitions", before, leads)
	}
	dry := tryVerb(t, t.TempDir(), "", "cluster drain 3 --dry-run"+at)
	dry.expect(t, 0)
	if !strings.Contains(dry.stdout, "WOULD BE") || !strings.Contains(dry.stdout, "node 3 keeps replicas of ") {
		t.Error(dry.stdout)
	}
	if now, _, _ := held(); now != before {
		t.Errorf("a dry run has left %d of %d replicas", now, before)
	}

	v := runVerb(t, nodes[0].addr, "cluster", "drain", "3", "--at-once", "3", "-o", "json")
	ended := make(chan int, 1)
	go func() { ended <- v.await(t) }()
	for code := -1; code < 0; {
		produce()
		select {
		case code = <-ended:
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, v.err)
			}
		case <-time.After(20 * time.Millisecond):
		}
	}
	var told struct{ Node, Moved, Kept int }
	if err := json.Unmarshal([]byte(v.out.String()), &told); err != nil {
		t.Fatalf("%v: %s", err, v.out)
	}
	after, leads, kept := held()
	if told.Node != 3 || told.Kept != kept || after != kept || told.Moved != before-after || leads != 0 {
		t.Errorf("it tells %+v; node 3 has %d of %d replicas, %d of which no other node may have, and leads %d", told, after, before, kept, leads)
	}
	if again := tryVerb(t, t.TempDir(), "", "cluster drain 3"+at); again.code != 0 || !strings.Contains(again.stdout, "node 3 is drained (0 partitions moved)") {
		t.Errorf("again: %d, %s%s", again.code, again.stdout, again.stderr)
	}
	if r := tryVerb(t, t.TempDir(), "", "cluster drain 9"+at); r.code != 3 || !strings.Contains(r.stderr, "there is no node 9") {
		t.Errorf("%d: %s", r.code, r.stderr)
	}

	for i, n := range nodes {
		if strings.Contains(n.out.String(), "may lack acknowledged records") {
			t.Errorf("node %d tells of an unclean election", i+1)
		}
	}
	nodes[2].stop(t)
	tryVerb(t, t.TempDir(), "", "cluster remove 3 --data "+first).expect(t, 0)
	produce()
	left := len(stored)
	for _, topic := range []string{"single", "double", "triple"} {
		r := tryVerb(t, t.TempDir(), "", "consume "+topic+" --from start --exit"+at)
		r.expect(t, 0)
		for line := range strings.Lines(r.stdout) {
			if !stored[strings.TrimSpace(line)] {
				t.Errorf("%q is there twice, or was never stored", line)
			}
			delete(stored, strings.TrimSpace(line))
		}
	}
	if len(stored) != 0 {
		t.Errorf("%d of %d records are lost", len(stored), left)
	}
}
