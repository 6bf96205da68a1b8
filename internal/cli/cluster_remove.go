package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// removedNode is the output of the verb that removes a node.
type removedNode struct {
	Node    int32 `json:"node"`
	Removed bool  `json:"removed"`
}

func (a *app) newClusterRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Remove a node from the cluster for good, also a dead one", Args: cobra.ExactArgs(1),
		Long: `Remove a node from the cluster for good: its key is worth nothing from then on, its id is never given
again, and all join tokens are revoked. Its process ends, if there is one. Other nodes get its replicas,
if there are any that have none of the same partition. A cluster refuses to remove a node that is running
and votes on the metadata, or that alone has all records of a partition: --force removes it all the same.

` + holderHelp + ` The node to remove may be any other one.`,
		Example: `  leat cluster remove 3
  leat cluster remove 3 --force --data /var/lib/leat`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 32)
			if err != nil || id < 0 {
				return usagef("%s is not the id of a node: \"leat cluster\" shows the ids", args[0])
			}
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error { return a.removeNode(ctx, n, int32(id), force) })
		},
	}
	cmd.ValidArgsFunction = a.completeBrokers(1)
	cmd.Flags().BoolVar(&force, "force", false, "remove it although it runs and votes, or alone has records, which are lost then")
	return addDataFlag(cmd)
}

func (a *app) removeNode(ctx context.Context, n *heldNode, id int32, force bool) error {
	if err := explainCommand(n.admin.RemoveNode(ctx, id, force)); err != nil {
		return fmt.Errorf("removing node %d: %w", id, err)
	}
	return a.show(removedNode{Node: id, Removed: true}, func() string {
		return fmt.Sprintf("removed node %d: its id is not given again, and all join tokens are revoked\n", id)
	})
}
