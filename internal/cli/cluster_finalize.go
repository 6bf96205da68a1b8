package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
)

// finalizedLevel is the output of the verb that raises the level of the metadata.
type finalizedLevel struct {
	Feature string `json:"feature"`
	From    int16  `json:"from"`
	To      int16  `json:"to"` // as From if there was nothing to raise
	// HeldBy are the nodes that know only lower levels than the newest node: the upgrade is not finished until they are upgraded.
	HeldBy []heldLevel `json:"held_by,omitempty"`
	// Transactions is the same of the flow of transactions that clients use; nil: the cluster has no transactions.
	Transactions *finalizedLevel `json:"transactions,omitempty"`

	newest int16 // the highest level that a node knows
}

// heldLevel is a node beyond whose highest level a feature cannot be raised.
type heldLevel struct {
	Node    int32  `json:"node"`
	Address string `json:"address"`
	Highest int16  `json:"highest"`
}

func (a *app) newClusterFinalize() *cobra.Command {
	return &cobra.Command{
		Use: "finalize", Short: "Finish an upgrade: let the metadata have what only the newer version of Leat knows", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Raise the level of the metadata to the highest one that all nodes know, which finishes an upgrade of
all of them, and have clients use the newest flow of transactions. Until then the nodes write only what the version before knows, so that the upgrade can be undone.
Afterwards no older version of Leat can be started on their data, and no such node can join.

It fails if a node is of an older version than another one, and says which node that is: the upgrade is not finished then.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.withClient(cmd.Context(), a.finalizeLevel) },
	}
}

func (a *app) finalizeLevel(ctx context.Context, cl *kgo.Client) error {
	c, err := admin.DescribeCluster(ctx, cl)
	if err != nil {
		return err
	}
	done, err := planLevels(c)
	if err != nil {
		return err
	}
	var failed []error
	for f := &done; f != nil; f = f.Transactions {
		if err := f.raise(ctx, cl); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 && !done.isRaised() {
		return errors.Join(failed...)
	}
	failed = append(failed, a.show(done, done.String), done.describeHolders())
	return errors.Join(failed...)
}

// raise has the planned level be in force. The cluster refuses one that a node does not know, also one that does not run.
func (f *finalizedLevel) raise(ctx context.Context, cl *kgo.Client) error {
	if f.To == f.From {
		return nil
	}
	err := admin.RaiseLevel(ctx, cl, f.Feature, f.To)
	if err == nil {
		return nil
	}
	f.To = f.From
	if r, ok := errors.AsType[*admin.RefusedError](err); ok && errors.Is(err, kerr.InvalidUpdateVersion) {
		r.Message = strings.TrimSuffix(r.Message, ".") + ": upgrade that node, or remove it with \"leat cluster remove\", and run this again"
	}
	return err
}

// planLevels chooses the levels to which a cluster can be raised. Nodes that are fenced did not say what they
// know: the cluster refuses a level that is too high for one of them.
func planLevels(c *admin.Cluster) (finalizedLevel, error) {
	if c.Feature != admin.LeatLevels {
		return finalizedLevel{}, errors.New("this is no cluster of Leat, whose metadata have levels of " + admin.LeatLevels + ": use the tools of its own")
	}
	for _, n := range c.Brokers {
		if n.HighestLevel < 0 && n.Err() != nil {
			return finalizedLevel{}, fmt.Errorf("node %d does not answer (%s), so it is not known which levels it knows: start it, or wait until the cluster takes it for dead",
				n.ID, describeNetwork(n.Err()))
		}
	}
	plan := planLevel(c, c.Feature, c.Level, func(n *admin.Node) int16 { return n.HighestLevel })
	transactions := planLevel(c, admin.TransactionLevels, c.TransactionLevel, func(n *admin.Node) int16 { return n.HighestTransactions })
	if transactions.newest > 0 {
		plan.Transactions = &transactions
	}
	return plan, nil
}

// planLevel plans the level of one feature. A node that is fenced knows an unknown level, below 0.
func planLevel(c *admin.Cluster, feature string, inForce int16, highest func(*admin.Node) int16) finalizedLevel {
	f := finalizedLevel{Feature: feature, From: inForce, To: inForce, newest: inForce}
	lowest := int16(-1)
	for i := range c.Brokers {
		level := highest(&c.Brokers[i])
		if level >= 0 && (lowest < 0 || level < lowest) {
			lowest = level
		}
		f.newest = max(f.newest, level)
	}
	f.To = max(inForce, lowest)
	for i := range c.Brokers {
		n := &c.Brokers[i]
		if level := highest(n); level >= 0 && level < f.newest {
			f.HeldBy = append(f.HeldBy, heldLevel{n.ID, n.Address, level})
		}
	}
	return f
}

func (f *finalizedLevel) isRaised() bool {
	return f.To > f.From || f.Transactions != nil && f.Transactions.isRaised()
}

// isHeld tells whether a node is of an older version than another one.
func (f *finalizedLevel) isHeld() bool {
	return len(f.HeldBy) > 0 || f.Transactions != nil && f.Transactions.isHeld()
}

// describeHolders says which nodes are to be upgraded before the levels can be raised to what the newest node knows;
// nil: none.
func (f *finalizedLevel) describeHolders() error {
	if !f.isHeld() {
		return nil
	}
	var holders, levels []string
	for ; f != nil; f = f.Transactions {
		for _, h := range f.HeldBy {
			if name := fmt.Sprintf("node %d (%s)", h.Node, h.Address); !slices.Contains(holders, name) {
				holders = append(holders, name)
			}
		}
		if len(f.HeldBy) > 0 {
			lowest := slices.MinFunc(f.HeldBy, func(a, b heldLevel) int { return int(a.Highest) - int(b.Highest) })
			levels = append(levels, fmt.Sprintf("level %d of %s instead of %d", lowest.Highest, f.Feature, f.newest))
		}
	}
	verb, them := "knows", "it"
	if len(holders) > 1 {
		verb, them = "know", "them"
	}
	return fmt.Errorf("the upgrade is not finished: %s %s %s: upgrade %s, and run this again",
		phrase.Join(holders, "and"), verb, phrase.Join(levels, "and"), them)
}

// String is the text for people.
func (f *finalizedLevel) String() string {
	text := fmt.Sprintf("raised the level of %s from %d to %d\n", f.Feature, f.From, f.To)
	switch {
	case f.To > f.From:
	case f.isHeld():
		text = fmt.Sprintf("the metadata have level %d of %s, the highest one that all nodes know: nothing was raised\n", f.From, f.Feature)
	default:
		text = fmt.Sprintf("the metadata have level %d of %s already, the highest one that all nodes know: there is nothing to do\n", f.From, f.Feature)
	}
	if t := f.Transactions; t != nil && t.To > t.From {
		text += t.String()
	}
	return text
}
