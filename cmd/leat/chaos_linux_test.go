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
	stop  time.Duration // how long a node stands still
	rows  []chaosRow
	// isGreen tells that all promises held, of the last one to the comparison of all replicas.
	isGreen bool

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
	isGreen bool // all promises held
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
			for _, m := range c.machines {
				t.Logf("%v has %d MB free, and sees %s", m, m.disk.free()>>20, describePartitions(t.Context(), m))
			}
			t.Fatalf("%s not every partition takes records within %v: %v before, %v now", when, limit, before, now)
		}
	}
}

// lastAtLeast lets a fault last for a while. All partitions must take records before it ends.
func (c *campaign) lastAtLeast(t *testing.T, d time.Duration, when string) {
	t.Helper()
	began := time.Now()
	pause(t.Context(), d/3) // records that were under way are no progress
	c.awaitProgress(t, when)
	pause(t.Context(), d-time.Since(began))
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

// meet lets the cluster meet a fault, waits until it has healed, and checks the history. It ends the test if a
// promise was broken.
func (c *campaign) meet(t *testing.T, f chaosFault) {
	t.Helper()
	row := chaosRow{fault: f.name}
	defer func() { c.rows = append(c.rows, row) }()
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
	c.awaitTransactions(t, "after "+f.name)
	for _, err := range append(c.faults(), c.money.faults()...) {
		t.Error(err)
	}
	row = chaosRow{f.name, after - before, gap, where, healed, !t.Failed()}
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
	c.awaitCommittedSeen(t, "after all faults")
	c.awaitHealed(t)
	c.admin.check(t, c.chaosCluster)
	c.reading()
	c.readers.Wait()
	for _, err := range append(c.faults(), c.money.faults()...) {
		t.Error(err)
	}
	c.money.compareReaders(t, committedReaderName, rackReaderName)
	for _, m := range c.machines {
		signal(t, m.p, syscall.SIGTERM)
	}
	for _, m := range c.machines {
		m.p.awaitEnd(t)
	}
	c.compareReplicas(t)
	t.Log(c.history)
	t.Log(c.money.summary())
}

func startCampaign(t *testing.T, plan chaosPlan, rng *rand.Rand) *campaign {
	t.Helper()
	c := &campaign{rng: rng, pause: plan.pause, stop: plan.stop()}
	c.chaosCluster = newChaosCluster(t, plan.nodes, "--set", "broker.session.timeout.ms=3000")
	topics := chaosTopics()
	c.createTopics(t, append(transactionTopics(), topics...))
	c.chaosLoad = startChaosLoad(t, c.addrs(), topics, true)
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

// stop is how long a node stands still.
func (p *chaosPlan) stop() time.Duration {
	if p.isShort {
		return p.pause
	}
	return max(p.pause, 30*time.Second)
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
// seconds for which a fault lasts, such as "3x2x30 5x1x10". LEAT_CHAOS_ONLY has parts of the names of the
// faults that are wanted, with commas between them, LEAT_CHAOS_REPORT a file for the report, and LEAT_CHAOS_COMMIT the commit that the report names.
func TestChaos(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	if !enterChaos(t) {
		return
	}
	seed, _ := seedAndRounds(t, 0)
	rng := rand.New(rand.NewPCG(seed, 3))
	report := chaosReport{commit: os.Getenv("LEAT_CHAOS_COMMIT")}
	for _, plan := range chaosPlans(t) {
		t.Run(fmt.Sprintf("%d nodes", plan.nodes), func(t *testing.T) { report.add(plan, runPlan(t, plan, rng)) })
	}
	if path := os.Getenv("LEAT_CHAOS_REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(report.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// mostBrokenClusters is how many clusters a plan may break before its other faults are left out.
const mostBrokenClusters = 10

// runPlan runs a plan. After a fault that has broken a promise the others meet another cluster.
func runPlan(t *testing.T, plan chaosPlan, rng *rand.Rand) (met []*campaign) {
	t.Helper()
	left := chooseFaults(plan, rng)
	for started := true; started && len(left) > 0 && len(met) < mostBrokenClusters; {
		started = false
		t.Run(fmt.Sprintf("cluster %d", len(met)+1), func(t *testing.T) {
			c := startCampaign(t, plan, rng)
			met, started = append(met, c), true
			for len(left) > 0 {
				f := left[0]
				left = left[1:]
				c.meet(t, f)
			}
			c.finish(t)
			c.isGreen = !t.Failed()
		})
	}
	return met
}

// chooseFaults returns the faults of all rounds of a plan.
func chooseFaults(plan chaosPlan, rng *rand.Rand) (all []chaosFault) {
	faults := slices.DeleteFunc(chaosFaults(), func(f chaosFault) bool {
		isWanted := func(part string) bool { return strings.Contains(f.name, part) }
		return plan.isShort && !f.isShort || !slices.ContainsFunc(strings.Split(os.Getenv("LEAT_CHAOS_ONLY"), ","), isWanted)
	})
	for round := range plan.rounds {
		if round > 0 {
			rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		}
		all = append(all, faults...)
	}
	return all
}
