package main_test

import (
	"fmt"
	"slices"
	"strings"
)

// chaosReport is the page about some campaigns.
type chaosReport struct {
	commit string // on which it was run
	plans  strings.Builder
	red    int // rows and ends of campaigns in which a promise was broken
}

const chaosPreface = `# Clusters under faults

This page is written by ` + "`make chaos`" + `, which needs root, on Linux. It shows what clients saw of a cluster while its nodes, disks and networks failed.

Each node is a process with a network and an ext4 file system of its own, in which nothing but the fault is unusual. Five producers with acks=all or acks=1, most of them idempotent, two
consumers and a group of two write, read and commit without pause. After every fault all nodes must be active, all replicas in sync and all partitions writable again, without
help. The history of what the clients were told is checked all the time: no record that was acknowledged with acks=all is lost, none of an idempotent producer is there
twice or in another order, no offset ever has two records, and no committed offset is behind one that was acknowledged. Four producers write to several partitions in each of
their transactions, and commit or abort; one of them uses the older flow of transactions, and one is sometimes too slow for its timeout. Two pipelines move orders from one topic to another, each batch in a
transaction with the offsets of their group. Two readers of committed records see each value of a committed transaction once, none of an aborted one, all values of a
transaction or none, and each order once; and after every fault all producers commit again. In the end the files of all replicas must be equal. A row says
"nothing lost" only if all of that held. After a row that says "broken" the next faults meet a new cluster.

"Longest gap" is the longest time in which some partition acknowledged no record with acks=all; the nodes' session timeout was 3 s. It includes the time for which clients wait for an answer of a silent
node before they ask another one (5 s).
`

// add adds a table of what the clusters of a plan have met. Rows of one fault are joined.
func (r *chaosReport) add(plan chaosPlan, met []*campaign) {
	w := &r.plans
	records, commits, ended := 0, 0, ""
	var joined []chaosRow
	times := map[string]int{}
	end := "In the end the files of all replicas were equal."
	for _, c := range met {
		_, all := c.count()
		records, commits = records+all, commits+c.commits
		ended += " " + c.money.summary()
		joined = c.joinRows(joined, times)
		if !c.isGreen {
			r.red++
			end = fmt.Sprintf("Of %d clusters some were broken, and their replicas not compared.", len(met))
		}
	}
	fmt.Fprintf(w, "\n## %d nodes\n\n%d records were acknowledged, and %d commits.%s A fault lasted %v where it has a length, and a SIGSTOP %v. %s\n\n",
		plan.nodes, records, commits, ended, plan.pause, plan.stop(), end)
	fmt.Fprint(w, "| fault | times | records meanwhile | longest gap | in sync after | verdict |\n|---|---|---|---|---|---|\n")
	for _, j := range joined {
		if !j.isGreen {
			r.red++
			fmt.Fprintf(w, "| %s | %d | | | | **broken** |\n", j.fault, times[j.fault])
			continue
		}
		fmt.Fprintf(w, "| %s | %d | %d | %.1f s | %.1f s | nothing lost |\n", j.fault, times[j.fault], j.records, j.gap.Seconds(), j.healed.Seconds())
	}
}

// joinRows joins a campaign's rows with those that are there.
func (c *campaign) joinRows(joined []chaosRow, times map[string]int) []chaosRow {
	for _, r := range c.rows {
		times[r.fault]++
		i := slices.IndexFunc(joined, func(j chaosRow) bool { return j.fault == r.fault })
		if i < 0 {
			joined = append(joined, r)
			continue
		}
		j := &joined[i]
		j.records, j.gap, j.healed, j.isGreen = j.records+r.records, max(j.gap, r.gap), max(j.healed, r.healed), j.isGreen && r.isGreen
	}
	return joined
}

func (r *chaosReport) String() string {
	verdict := "All of it held."
	if r.red > 0 {
		verdict = "Some promises were broken: see the verdicts."
	}
	return fmt.Sprintf("%s\nIt was run on commit %s. %s\n%s", chaosPreface, r.commit, verdict, r.plans.String())
}
