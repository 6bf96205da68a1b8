package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/node"
)

// recoveredCluster is the output of the verb that recovers a cluster.
type recoveredCluster struct {
	Cluster   string   `json:"cluster"`
	Node      int32    `json:"node"`
	Recovered bool     `json:"recovered"` // false: nothing was changed
	Entry     uint64   `json:"entry"`
	Uncertain int      `json:"uncertain"`
	Removed   []int32  `json:"removed"`
	Leads     int      `json:"leads"`
	Behind    []string `json:"behind"`
	Lost      []string `json:"lost"`
}

func (a *app) newClusterRecover() *cobra.Command {
	var isMeant bool
	cmd := &cobra.Command{
		Use: "recover", Short: "Make one node the whole cluster, when most of the voters are lost for good", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Make the node of a data directory the whole cluster. This is the way back when most of the nodes that vote on
the metadata are lost for good, with their disks: without a majority of them nothing can be decided. If their disks
are left, start them instead, and nothing is lost.

The node must not run, and neither may any other node of the cluster. Without --yes the verb only says what
would be left. With --yes all other nodes are removed from the cluster, which is another one for them from then
on: they are refused, and end, if they come back with their old data directories. Start the node, make a join
token with "leat cluster token", and let other nodes join with new data directories.

What the lost nodes alone had is lost: changes of topics, configs and nodes that this node had not received, the
partitions of which it has no replica, and records that were acknowledged after it had left the in-sync replicas
without hearing of it. If several nodes are left, use the one with the highest entry of the metadata log,
and among equals the one that leads the most partitions.

The verb finds the directory by --data, LEAT_DATA or LEAT_CONFIG, else it is ./` + node.DefaultData + `.`,
		Example: `  leat cluster recover --data /var/lib/leat
  leat cluster recover --data /var/lib/leat --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.recoverCluster(cmd, isMeant) },
	}
	cmd.Flags().BoolVar(&isMeant, "yes", false, "do it; without it the verb only says what would be left")
	return addDataFlag(cmd)
}

func (a *app) recoverCluster(cmd *cobra.Command, isMeant bool) error {
	cfg, err := settingsBeside(cmd, os.Environ())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), orDefault(a.timeout))
	defer cancel()
	cfg.Logger = newLogger(cmd.ErrOrStderr(), cfg.LogFormat)
	r, err := node.RecoverCluster(ctx, cfg, isMeant)
	switch {
	case errors.Is(err, node.ErrConfig):
		return explainSettings(err)
	case err != nil:
		return explainDirectory(cmd, cfg.Data, err)
	}
	found := recoveredCluster{
		Cluster: r.ClusterID, Node: r.NodeID, Recovered: isMeant, Entry: r.Entry, Uncertain: r.Uncertain, Removed: r.Removed,
		Leads: len(r.Leads), Behind: namePartitions(r.Behind), Lost: namePartitions(r.Lost),
	}
	if err := a.show(found, func() string { return recoveryText(&found) }); err != nil {
		return err
	}
	if !isMeant {
		return usagef("nothing was changed: add --yes to make node %d the whole cluster, if the disks of the others are lost for good", r.NodeID)
	}
	a.tellPerson(fmt.Sprintf("the cluster is recovered: start node %d with \"leat up --data %s\", and let other nodes join with new data directories by a token of \"leat cluster token\"",
		r.NodeID, cfg.Data))
	return nil
}

// settingsBeside reads the settings of a node by the flag that names its directory, and by its settings in the environment.
func settingsBeside(cmd *cobra.Command, environ []string) (node.Config, error) {
	sources, err := settingsOfEnvironment("", environ)
	if err != nil {
		return node.Config{}, explainSettings(err)
	}
	cfg, err := node.Combine(sources...)
	if err != nil {
		return node.Config{}, explainSettings(err)
	}
	if data := cmd.Flag("data"); data.Changed {
		cfg.Data = data.Value.String()
	}
	return cfg, nil
}

// maxNamedPartitions is how many partitions a sentence names.
const maxNamedPartitions = 20

func namePartitions(list []controller.Partition) []string {
	names := make([]string, 0, len(list)) // never nil, which JSON shows as null
	for _, p := range list {
		names = append(names, p.Topic+"-"+strconv.Itoa(int(p.Number)))
	}
	return names
}

// recoveryText tells a person what a recovery leaves, or would leave.
func recoveryText(r *recoveredCluster) string {
	lines := []string{fmt.Sprintf("cluster %s, as node %d has it up to entry %s of the metadata log", r.Cluster, r.Node, formatNumber(int64(r.Entry)))}
	if r.Uncertain > 0 {
		lines = append(lines, fmt.Sprintf("the last %s of the log may not have been agreed to by the other nodes, but count from now on", formatEntries(r.Uncertain)))
	}
	lines = append(lines,
		fmt.Sprintf("removed for good: %s", removedText(r.Removed)),
		fmt.Sprintf("node %d leads %s", r.Node, formatCount(r.Leads, "partition")))
	if len(r.Behind) > 0 {
		lines = append(lines, fmt.Sprintf("%s without a leader, since the replica here may lack records; kafka-leader-election --election-type unclean has it lead all the same: %s",
			formatCount(len(r.Behind), "partition"), partitionsText(r.Behind)))
	}
	if len(r.Lost) > 0 {
		lines = append(lines, fmt.Sprintf("%s lost, since there is no replica here: %s", formatCount(len(r.Lost), "partition"), partitionsText(r.Lost)))
	}
	lines = append(lines, "lost besides: what only the other nodes had, such as topics, configs and records of the time after this node had heard from them last")
	return strings.Join(lines, "\n") + "\n"
}

func formatEntries(n int) string {
	if n == 1 {
		return "entry"
	}
	return formatNumber(int64(n)) + " entries"
}

func removedText(ids []int32) string {
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, strconv.Itoa(int(id)))
	}
	if len(names) == 0 {
		return "no node"
	}
	if len(names) == 1 {
		return "node " + names[0]
	}
	return "nodes " + phrase.Join(names, "and")
}

// partitionsText names the first ones of some partitions.
func partitionsText(names []string) string {
	text := strings.Join(names[:min(len(names), maxNamedPartitions)], ", ")
	if more := len(names) - maxNamedPartitions; more > 0 {
		text += fmt.Sprintf(" and %s more (--output json lists all)", formatNumber(int64(more)))
	}
	return text
}
