package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
)

// newCertSealKey makes the verb that replaces the sealing key.
func (a *app) newCertSealKey() *cobra.Command {
	var finishes bool
	cmd := &cobra.Command{
		Use: "seal-key", Short: "Replace the sealing key of a secured cluster", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Replace the sealing key, by which the secrets in the metadata are encrypted, in two steps. First the node makes a new one, and all other nodes
take it from that node and write it into the files of their sealing keys; the old one goes on to seal. A node that is away takes it when it comes
back. Then --finish has the secrets be sealed by the new key, and the old one be removed from the files of all nodes. It changes nothing unless
all nodes have the new key. Back up the file of the sealing key after either step. A step that was interrupted is done by the same command again.

Who has had the old key and a data directory keeps what he has read: replace the certificate authority afterwards ("leat cert rotate").

` + holderHelp,
		Example: `  leat cert seal-key
  leat cert seal-key --finish
  leat cert seal-key --finish --data /var/lib/leat`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withHolder(cmd, func(ctx context.Context, n *heldNode) error {
				keys, refused, err := n.admin.RotateSealingKey(ctx, finishes)
				if err := explainCommand(refused, err); err != nil {
					return fmt.Errorf("replacing the sealing key: %w", err)
				}
				if keys.Nodes == nil {
					keys.Nodes = []cluster.SealingOf{}
				}
				return a.show(keys, func() string { return describeSealingKeys(&keys) })
			})
		},
	}
	cmd.Flags().BoolVar(&finishes, "finish", false, "seal the secrets by the new key, and remove the old one")
	return addDataFlag(cmd)
}

// describeSealingKeys says which nodes have the new key, and what is next.
func describeSealingKeys(keys *cluster.SealingKeys) string {
	if keys.Finished {
		return fmt.Sprintf("the sealing key %s is the only one, on all nodes: back up its file, and destroy the backups of the old one\n", keys.Key)
	}
	var have, lack []string
	for _, n := range keys.Nodes {
		if n.Has {
			have = append(have, fmt.Sprint(n.Node))
		} else {
			lack = append(lack, fmt.Sprintf("node %d does not have it yet: %s\n", n.Node, escapeLine(strings.TrimSuffix(n.Problem, "."))))
		}
	}
	text := fmt.Sprintf("there is a new sealing key, %s, which does not seal yet; these nodes have it: %s\n", keys.Key, strings.Join(have, ", ")) + strings.Join(lack, "")
	if len(lack) > 0 {
		return text + "when all nodes run, \"leat cert seal-key --finish\" gives it to them, and has it seal\n"
	}
	return text + "\"leat cert seal-key --finish\" has it seal\n"
}
