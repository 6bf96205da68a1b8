package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/node"
)

// nodeHealth is the output of the health verb.
type nodeHealth struct {
	Node      int32  `json:"node,omitempty"` // 0: it was asked by its address, which does not tell
	Addresses string `json:"addresses"`      // separated by commas; one of them has answered
}

func (a *app) newHealth() *cobra.Command {
	cmd := &cobra.Command{
		Use: "health", Short: "Tell whether the node on this machine answers clients", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Ask the node on this machine, and no other one, whether it answers clients: for a check that restarts what does not.
What else is wrong, such as a full disk or a lost controller, is on its page /readyz and in "leat cluster".

It finds the node by what its data directory says of its address (--data, LEAT_DATA or LEAT_CONFIG, else ./` + node.DefaultData + `),
or by --bootstrap.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.checkHealth(cmd) },
	}
	return addDataFlag(a.addOutputFlag(a.addClientFlags(cmd)))
}

// checkHealth asks the node whose data directory is on this machine, or the one that --bootstrap names.
func (a *app) checkHealth(cmd *cobra.Command) error {
	health := nodeHealth{}
	if !cmd.Flag("bootstrap").Changed && os.Getenv("LEAT_BOOTSTRAP") == "" {
		dir, err := findDirectory(cmd, os.Environ())
		if err != nil {
			return err
		}
		h, err := node.ReadHolder(dir)
		if err != nil {
			return explainDirectory(cmd, dir, err)
		}
		health.Node = h.NodeID
		if len(h.Addresses) > 0 {
			a.bootstrap = strings.Join(h.Addresses, ",")
		}
	}
	health.Addresses = a.bootstrap
	return a.withClient(cmd.Context(), func(context.Context, *kgo.Client) error { // it has answered
		return a.show(health, func() string {
			if health.Node == 0 {
				return fmt.Sprintf("the node on %s answers clients\n", health.Addresses)
			}
			return fmt.Sprintf("node %d answers clients on %s\n", health.Node, health.Addresses)
		})
	})
}
