package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

func (a *app) newCluster() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "cluster", Short: "Show a cluster's nodes, or change which ones it has", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Show the nodes of a cluster, who of them keeps the metadata, what each has and leads, and whether all
partitions are as they should be. Other clusters than Leat's tell less.

With --wait it waits until all nodes serve, as many vote on the metadata as are to, and all replicas are in sync, and fails if they are not by
then: so a script knows when the next node may be restarted.`,
		Example: `  leat cluster
  leat cluster --wait 10m`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.awaitCluster(cmd.Context(), wait)
			if c == nil {
				return err
			}
			return errors.Join(a.show(c, func() string { return clusterText(c) }), err)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for all nodes to serve and to vote that are to, and for all replicas to be in sync")
	cmd.AddCommand(a.newClusterAPIs(), a.newClusterLogDirs(), a.newClusterLogLevel(), a.newClusterQuorum(), a.newClusterToken(), a.newClusterDrain(), a.newClusterRemove(), a.newClusterRecover(), a.newClusterFinalize())
	return a.addOutputFlag(a.addClientFlags(cmd))
}

// lookEvery is how often a verb looks whether what it waits for has happened.
const lookEvery = 500 * time.Millisecond

// awaitCluster describes the cluster when nothing is missing in it, or, with an error, when the time is over. If that is 0
// it describes the cluster as it is.
func (a *app) awaitCluster(ctx context.Context, wait time.Duration) (c *admin.Cluster, err error) {
	over := time.Now().Add(wait)
	for {
		err = a.withClient(ctx, func(ctx context.Context, cl *kgo.Client) (err error) {
			c, err = admin.DescribeCluster(ctx, cl)
			return err
		})
		left := time.Until(over)
		switch {
		case wait == 0 || ctx.Err() != nil:
			return c, err
		case err == nil && describeMissing(c) == "":
			return c, nil
		case left <= 0 && err == nil:
			return c, fmt.Errorf("after %s something is missing: %s", formatDuration(wait), describeMissing(c))
		case left <= 0 || errors.Is(err, errUsage):
			return nil, err
		} // a node that restarts may answer nobody, or with an error
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(lookEvery, left)):
		}
	}
}

// describeMissing says what a cluster lacks that a cluster of which all nodes are well has; "": nothing.
func describeMissing(c *admin.Cluster) string {
	var all []string
	serving := 0
	for _, n := range c.Brokers {
		if n.State == admin.Active && n.Err() == nil {
			serving++
		}
	}
	if serving < len(c.Brokers) {
		all = append(all, fmt.Sprintf("%d of %s serve", serving, formatCount(len(c.Brokers), "node")))
	}
	if c.Controller < 0 {
		all = append(all, "no controller is active")
	}
	if c.Voters < c.WantedVoters {
		all = append(all, fmt.Sprintf("%d of %s on the metadata", c.Voters, formatCount(c.WantedVoters, "voter")))
	}
	if c.Offline > 0 {
		all = append(all, formatCount(c.Offline, "partition")+" offline")
	}
	if c.UnderReplicated > 0 {
		all = append(all, formatCount(c.UnderReplicated, "partition")+" under-replicated")
	}
	return strings.Join(all, ", ")
}

// clusterText describes a cluster for people.
func clusterText(c *admin.Cluster) string {
	t := columns{head: []string{">NODE", "ADDRESS", "RACK", "STATE", "ROLE", ">LAG", "LEVELS", ">LEADS", ">REPLICAS", ">DATA", ">FREE"}}
	hasRole := slices.ContainsFunc(c.Brokers, func(n admin.Node) bool { return n.Role != "" })
	for _, n := range c.Brokers {
		role := n.Role
		if n.ID == c.Controller && !hasRole && len(c.Others) == 0 {
			role = "controller"
		}
		t.addRow(strconv.Itoa(int(n.ID)), n.Address, n.Rack, string(n.State), textOrDash(role), numberOrDash(n.Lag), levelsText(n),
			strconv.Itoa(n.Leads), strconv.Itoa(n.Replicas), formatSizeOrDash(n.LogBytes), roomText(n))
	}
	for _, n := range c.Others {
		t.addRow(strconv.Itoa(int(n.ID)), n.Address, n.Rack, "no broker", textOrDash(n.Role), numberOrDash(n.Lag), "-", "-", "-", "-", "-")
	}
	internal := ""
	if c.Internal > 0 { // "leat topic list" leaves them out
		internal = fmt.Sprintf(" (%s internal)", formatNumber(int64(c.Internal)))
	}
	level := ""
	if c.Feature != "" && c.Level >= 0 {
		level = fmt.Sprintf(", level %d of %s", c.Level, c.Feature)
	}
	lines := []string{fmt.Sprintf("cluster %s: %s, %s in %s%s%s\n", c.ID, formatCount(len(c.Brokers)+len(c.Others), "node"),
		formatCount(c.Partitions, "partition"), formatCount(c.Topics, "topic"), internal, level), t.String()}
	return strings.Join(append(lines, clusterRemarks(c)...), "\n") + "\n"
}

// clusterRemarks are the sentences below the table of a cluster.
func clusterRemarks(c *admin.Cluster) (lines []string) {
	if c.Controller < 0 {
		lines = append(lines, "No controller is active: too few of the nodes that keep the metadata reach each other. Nothing can be changed until they do, and what is shown here may be old.")
	}
	if c.Offline == 0 && c.UnderReplicated == 0 && c.Controller >= 0 {
		lines = append(lines, "All partitions have a leader, and all their replicas are in sync.")
	}
	if c.Offline > 0 {
		lines = append(lines, formatCount(c.Offline, "partition")+" offline: there is no node that can lead.")
	}
	if c.UnderReplicated > 0 {
		lines = append(lines, formatCount(c.UnderReplicated, "partition")+" under-replicated: some of the replicas are not in sync.")
	}
	if c.Voters < c.WantedVoters {
		lines = append(lines, fmt.Sprintf("%s on the metadata, and %d are to: until the cluster has made the others voters, which it does by itself, do not stop a node that votes.", describeVotes(c.Voters), c.WantedVoters))
	}
	if highest, ok := commonLevel(c); ok && highest > c.Level && c.Feature == admin.LeatLevels {
		lines = append(lines, fmt.Sprintf("All nodes know level %d of the metadata: \"leat cluster finalize\" raises it, after which no older version of Leat can be started on their data.", highest))
	}
	for _, n := range c.Brokers {
		if n.Err() != nil {
			lines = append(lines, escapeLine(fmt.Sprintf("Node %d does not answer (%s).", n.ID, describeNetwork(n.Err()))))
		}
	}
	if c.Note != "" {
		lines = append(lines, escapeLine(c.Note))
	}
	if len(c.NotTold) > 0 {
		lines = append(lines, "This cluster does not tell "+phrase.Join(c.NotTold, "and")+".")
	}
	return lines
}

// describeVotes says how many nodes vote.
func describeVotes(voters int) string {
	if voters == 1 {
		return "1 node votes"
	}
	return fmt.Sprintf("%d nodes vote", voters)
}

// commonLevel is the highest level of the metadata that all nodes know that were asked. It is not known
// if one did not say.
func commonLevel(c *admin.Cluster) (level int16, ok bool) {
	for i, n := range c.Brokers {
		if n.HighestLevel < 0 {
			return 0, false
		}
		if i == 0 || n.HighestLevel < level {
			level = n.HighestLevel
		}
	}
	return level, len(c.Brokers) > 0
}

func levelsText(n admin.Node) string {
	switch {
	case n.HighestLevel < 0:
		return "-"
	case n.LowestLevel == n.HighestLevel:
		return strconv.Itoa(int(n.HighestLevel))
	default:
		return fmt.Sprintf("%d-%d", n.LowestLevel, n.HighestLevel)
	}
}

// roomText says how much of a node's disk is free.
func roomText(n admin.Node) string {
	if n.DiskUsable < 0 || n.DiskTotal < 0 {
		return "-"
	}
	return fmt.Sprintf("%s of %s", formatSize(float64(n.DiskUsable)), formatSize(float64(n.DiskTotal)))
}

func textOrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// numberOrDash writes a number; a negative one is unknown.
func numberOrDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return formatNumber(n)
}

// formatCount writes a number of things, such as "1 topic" or "2 topics".
func formatCount(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return formatNumber(int64(n)) + " " + thing + "s"
}
