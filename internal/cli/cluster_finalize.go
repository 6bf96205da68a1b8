package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// finalizedLevel is the output of the verb that raises the level of the metadata.
type finalizedLevel struct {
	Feature string `json:"feature"`
	From    int16  `json:"from"`
	To      int16  `json:"to"` // as From if there was nothing to raise
}

func (a *app) newClusterFinalize() *cobra.Command {
	return &cobra.Command{
		Use: "finalize", Short: "Finish an upgrade: let the metadata have what only the newer version of Leat knows", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Raise the level of the metadata to the highest one that all nodes know, which finishes an upgrade of
all of them. Until then the nodes write only what the version before knows, so that the upgrade can be undone.
Afterwards no older version of Leat can be started on their data, and no such node can join.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.withClient(cmd.Context(), a.finalizeLevel) },
	}
}

func (a *app) finalizeLevel(ctx context.Context, cl *kgo.Client) error {
	c, err := admin.DescribeCluster(ctx, cl)
	if err != nil {
		return err
	}
	done, err := planLevel(c)
	if err != nil {
		return err
	}
	if done.To > done.From {
		if err := admin.RaiseLevel(ctx, cl, done.Feature, done.To); err != nil {
			return err
		}
	}
	return a.show(done, done.String)
}

// planLevel chooses the level to which a cluster can be raised. Nodes that are fenced did not say what they
// know: the cluster refuses a level that is too high for one of them.
func planLevel(c *admin.Cluster) (finalizedLevel, error) {
	if c.Feature != admin.LeatLevels {
		return finalizedLevel{}, errors.New("this is no cluster of Leat, whose metadata have levels of " + admin.LeatLevels + ": use the tools of its own")
	}
	highest := int16(-1)
	for _, n := range c.Brokers {
		switch {
		case n.HighestLevel >= 0 && (highest < 0 || n.HighestLevel < highest):
			highest = n.HighestLevel
		case n.Err() != nil:
			return finalizedLevel{}, fmt.Errorf("node %d does not answer (%s), so it is not known which levels it knows: start it, or wait until the cluster takes it for dead",
				n.ID, describeNetwork(n.Err()))
		}
	}
	return finalizedLevel{Feature: c.Feature, From: c.Level, To: max(highest, c.Level)}, nil
}

// String is the text for people.
func (f finalizedLevel) String() string {
	if f.To == f.From {
		return fmt.Sprintf("the metadata have level %d of %s already, the highest one that all nodes know: there is nothing to do\n", f.From, f.Feature)
	}
	return fmt.Sprintf("raised the level of %s from %d to %d\n", f.Feature, f.From, f.To)
}
