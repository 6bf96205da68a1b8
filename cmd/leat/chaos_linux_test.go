package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// campaign is a cluster under load that meets one fault after the other.
type campaign struct {
	*chaosCluster
	*chaosLoad
	rng   *rand.Rand
	pause time.Duration // how long a fault lasts
	rows  []chaosRow

	admin     *chaosAdmin
	stopAdmin context.CancelFunc
}

// chaosRow is a line of the report.
type chaosRow struct {
	fault   string
	records int           // acknowledged from the fault on until all was healed
	gap     time.Duration // the longest time in which no record of some partition was acknowledged
	where   string        // the partition of that gap
	healed  time.Duration
}

// awaitProgress waits until a few more records of every partition are acknowledged.
func (c *campaign) awaitProgress(t *testing.T, when string) {
	t.Helper()
	const few, limit = 5, 2 * time.Minute
	before, _ := c.count()
	for until := time.Now().Add(limit); ; pause(t.Context(), 5*time.Millisecond) {
		now, _ := c.count()
		if enough(before, now, few) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s not every partition takes records within %v: %v before, %v now", when, limit, before, now)
		}
	}
}

// lastAtLeast lets a fault last as long as the campaign's faults do. All partitions must take records before it
// ends.
func (c *campaign) lastAtLeast(t *testing.T, when string) {
	t.Helper()
	began := time.Now()
	pause(t.Context(), c.pause/3) // records that were under way are no progress
	c.awaitProgress(t, when)
	pause(t.Context(), c.pause-time.Since(began))
	c.awaitProgress(t, when)
}

func enough(before, now []int, few int) bool {
	for i := range before {
		if now[i] < before[i]+few {
			return false
		}
	}
	return true
}

// meet lets the cluster meet a fault, waits until it has healed, and checks the history.
func (c *campaign) meet(t *testing.T, f chaosFault) {
	t.Helper()
	c.awaitProgress(t, "before "+f.name)
	_, before := c.count()
	c.beginGaps()
	f.run(t, c)
	ended := time.Now()
	c.awaitProgress(t, "after "+f.name)
	c.awaitHealed(t)
	healed := time.Since(ended)
	gap, where := c.longestGap()
	_, after := c.count()
	c.awaitSeen(t, f.name)
	for _, err := range c.faults() {
		t.Error(err)
	}
	row := chaosRow{f.name, after - before, gap, where, healed}
	c.rows = append(c.rows, row)
	t.Logf("%s  %-45s %7d records, longest gap %6d ms (%s), healed after %6d ms", time.Now().UTC().Format("15:04:05.000"), row.fault, row.records, row.gap.Milliseconds(), row.where, row.healed.Milliseconds())
	if t.Failed() {
		t.FailNow()
	}
}

// awaitSeen waits until consumers have seen all records that were acknowledged so far.
func (c *campaign) awaitSeen(t *testing.T, when string) {
	t.Helper()
	c.check()
	c.mu.Lock()
	target := map[*sheet]int{}
	for name, sheets := range c.sheets {
		for _, s := range sheets {
			if c.topics[name].isSure() {
				target[s] = len(s.acked)
			}
		}
	}
	c.mu.Unlock()
	for until := time.Now().Add(healLimit); ; pause(t.Context(), 10*time.Millisecond) {
		c.check()
		c.mu.Lock()
		left := 0
		for s, end := range target {
			left += max(0, end-s.checked)
		}
		c.mu.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(until) {
			t.Errorf("after %s no consumer sees %d acknowledged records within %v", when, left, healLimit)
			return
		}
	}
}

// finish ends the load and proves that all replicas are equal.
func (c *campaign) finish(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), healLimit)
	defer cancel()
	c.stopAdmin()
	if err := c.stopWriters(ctx); err != nil {
		t.Fatal(err)
	}
	c.awaitSeen(t, "all faults")
	c.awaitHealed(t)
	c.admin.check(t, c.chaosCluster)
	c.reading()
	c.readers.Wait()
	for _, err := range c.faults() {
		t.Error(err)
	}
	for _, m := range c.machines {
		signal(t, m.p, syscall.SIGTERM)
	}
	for _, m := range c.machines {
		m.p.awaitEnd(t)
	}
	c.compareReplicas(t)
	t.Log(c.history)
}

func startCampaign(t *testing.T, plan chaosPlan, rng *rand.Rand) *campaign {
	t.Helper()
	c := &campaign{rng: rng, pause: plan.pause}
	c.chaosCluster = newChaosCluster(t, plan.nodes, "--set", "broker.session.timeout.ms=3000")
	topics := chaosTopics()
	c.createTopics(t, topics)
	c.chaosLoad = startChaosLoad(t, c.addrs(), topics)
	ctx, cancel := context.WithCancel(t.Context())
	c.stopAdmin = cancel
	c.admin = c.addAdministrator(ctx, t, plan.nodes, rng.Uint64())
	c.awaitProgress(t, "at the beginning")
	return c
}

// chaosPlan says how long a campaign is.
type chaosPlan struct {
	nodes, rounds int
	pause         time.Duration
	isShort       bool
}

// chaosPlans reads LEAT_CHAOS. Without it there is one plan, of the short form.
func chaosPlans(t *testing.T) (plans []chaosPlan) {
	t.Helper()
	for text := range strings.FieldsSeq(os.Getenv("LEAT_CHAOS")) {
		var p chaosPlan
		var seconds int
		if _, err := fmt.Sscanf(text, "%dx%dx%d", &p.nodes, &p.rounds, &seconds); err != nil {
			t.Fatalf("LEAT_CHAOS has %q, which is not nodes x rounds x seconds, such as 3x2x30: %v", text, err)
		}
		p.pause = time.Duration(seconds) * time.Second
		plans = append(plans, p)
	}
	if len(plans) == 0 {
		plans = append(plans, chaosPlan{3, 1, 2 * time.Second, true})
	}
	return plans
}

// TestChaos proves that a cluster of processes loses and doubles nothing that was acknowledged, and goes
// on by itself, through kills, power cuts, stops, cuts of the network and failing disks. LEAT_CHAOS has
// campaigns instead of the short form: of each the number of nodes, of rounds through all faults, and the
// seconds for which a fault lasts, such as "3x2x30 5x1x10". LEAT_CHAOS_ONLY has a part of the names of the
// faults that are wanted, and LEAT_CHAOS_REPORT a file for the report.
func TestChaos(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	if !enterChaos(t) {
		return
	}
	seed, _ := seedAndRounds(t, 0)
	var report strings.Builder
	for _, plan := range chaosPlans(t) {
		t.Run(fmt.Sprintf("%d nodes", plan.nodes), func(t *testing.T) {
			c := startCampaign(t, plan, rand.New(rand.NewPCG(seed, 3)))
			faults := slices.DeleteFunc(chaosFaults(), func(f chaosFault) bool {
				return plan.isShort && !f.isShort || !strings.Contains(f.name, os.Getenv("LEAT_CHAOS_ONLY"))
			})
			for round := range plan.rounds {
				if round > 0 {
					c.rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
				}
				for _, f := range faults {
					c.meet(t, f)
				}
			}
			c.finish(t)
			c.writeReport(&report, plan)
		})
	}
	if path := os.Getenv("LEAT_CHAOS_REPORT"); path != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(chaosPreface+report.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

const chaosPreface = `# Clusters under faults

This page is written by ` + "`make chaos`" + `, which needs root, on Linux. It shows what clients saw of a cluster while its nodes, disks and networks failed.

Each node is a process with a network and an ext4 file system of its own, in which nothing but the fault is unusual. Five producers with acks=all or acks=1, most of them idempotent, two
consumers and a group of two write, read and commit without pause. After every fault all nodes must be active, all replicas in sync and all partitions writable again, without
help. The history of what the clients were told is checked all the time: no record that was acknowledged with acks=all is lost, none of an idempotent producer is there
twice or in another order, no offset ever has two records, and no committed offset is behind one that was acknowledged. In the end the files of all replicas must be equal. A row is only here if all of that held.

"Longest gap" is the longest time in which some partition acknowledged no record with acks=all; the nodes' session timeout was 3 s. It includes the time for which clients wait for an answer of a silent
node before they ask another one (5 s).
`

// writeReport writes a table of what a campaign has met. Rows of one fault are joined.
func (c *campaign) writeReport(w *strings.Builder, plan chaosPlan) {
	_, all := c.count()
	fmt.Fprintf(w, "\n## %d nodes\n\n%d records were acknowledged, and %d commits. A fault lasted %v where it has a length.\n\n", plan.nodes, all, c.commits, plan.pause)
	fmt.Fprint(w, "| fault | times | records meanwhile | longest gap | in sync after | verdict |\n|---|---|---|---|---|---|\n")
	var joined []chaosRow
	times := map[string]int{}
	for _, r := range c.rows {
		times[r.fault]++
		i := slices.IndexFunc(joined, func(j chaosRow) bool { return j.fault == r.fault })
		if i < 0 {
			joined = append(joined, r)
			continue
		}
		j := &joined[i]
		j.records, j.gap, j.healed = j.records+r.records, max(j.gap, r.gap), max(j.healed, r.healed)
	}
	for _, r := range joined {
		fmt.Fprintf(w, "| %s | %d | %d | %.1f s | %.1f s | nothing lost |\n", r.fault, times[r.fault], r.records, r.gap.Seconds(), r.healed.Seconds())
	}
}
