package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/peer"
)

// holderHelp is the part of a verb's help that says who may run it.
const holderHelp = `It runs on the machine of a node, by a user who may read the node's data directory, and proves that to the
node by the key in it. It finds the directory by --data, LEAT_DATA or LEAT_CONFIG, else it is ./` + node.DefaultData + `, and the node by
what the directory says of its address, or by --bootstrap. LEAT_BOOTSTRAP counts only if the directory does not say.`

// addDataFlag gives a verb the flag that names the data directory of a node.
func addDataFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("data", "", "data directory of the node on this machine (default: LEAT_DATA, or ./"+node.DefaultData+")")
	return cmd
}

// heldNode is the node whose data directory is on this machine, and a connection to it on which the verb has
// proven to hold the directory.
type heldNode struct {
	node.Holder
	conn  *peer.Conn
	admin cluster.Administrator
}

// addresses are those at which other nodes are told to reach the node, host and port.
func (n *heldNode) addresses() (list []string) {
	for _, m := range n.conn.Welcome().Members {
		if m.NodeID != n.NodeID {
			continue
		}
		for _, address := range m.Addresses {
			hostPort, _, _ := peer.SplitAddress(address)
			list = append(list, hostPort)
		}
	}
	return list
}

// withHolder runs fn with the node whose data directory is on this machine. All of it takes no longer than
// --timeout.
func (a *app) withHolder(cmd *cobra.Command, fn func(ctx context.Context, n *heldNode) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), orDefault(a.timeout))
	defer cancel()
	dir, h, err := readHolder(cmd)
	if err != nil {
		return err
	}
	addresses := h.Addresses
	if cmd.Flag("bootstrap").Changed || len(addresses) == 0 { // LEAT_BOOTSTRAP is for clients, and may name another node
		if addresses, err = splitAddresses(a.bootstrap); err != nil {
			return err
		}
	}
	conn, err := a.dialNode(ctx, &h, dir, addresses)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err = fn(ctx, &heldNode{h, conn, cluster.Administrator{Conn: conn}}); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the cluster has not answered for %s; what was asked for may be done, or not: run it again; if most of the voters are gone for good, \"leat cluster recover\" is the way", formatDuration(orDefault(a.timeout)))
	}
	return err
}

// readHolder finds the data directory, and reads which node runs on it.
func readHolder(cmd *cobra.Command) (dir string, h node.Holder, err error) {
	if dir, err = findDirectory(cmd, os.Environ()); err != nil {
		return "", node.Holder{}, err
	}
	if h, err = node.ReadHolder(dir); err != nil {
		return "", node.Holder{}, explainDirectory(cmd, dir, err)
	}
	return dir, h, nil
}

// findDirectory finds the data directory by the flag, or by the settings of a node in the environment.
func findDirectory(cmd *cobra.Command, environ []string) (string, error) {
	if data := cmd.Flag("data"); data.Changed {
		return data.Value.String(), nil
	}
	cfg, err := settingsBeside(cmd, environ)
	return cfg.Data, err
}

// explainDirectory says why a directory does not serve, and what to do.
func explainDirectory(cmd *cobra.Command, dir string, err error) error {
	switch {
	case errors.Is(err, node.ErrNoNode):
		return notFoundf("there is no node in %s: run this on the machine of a node that has started, and name its data directory with --data", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("only who may read the data directory of the node can do this, and you may not read %s: run \"%s\" as the user that runs the node", dir, cmd.CommandPath())
	default:
		return err
	}
}

// dialNode connects to the node at the first address at which it answers.
func (a *app) dialNode(ctx context.Context, h *node.Holder, dir string, addresses []string) (*peer.Conn, error) {
	var worst error
	for _, address := range addresses {
		if _, _, err := net.SplitHostPort(address); err != nil { // the port may be left out
			address = net.JoinHostPort(address, strconv.Itoa(node.DefaultPort))
		}
		conn, err := h.Dial(ctx, address)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		if errors.Is(err, credential.ErrRefused) {
			err = a.explainRefusedProof(ctx, h, dir, address)
		} else {
			err = explainDial(err, h, dir, address)
		}
		if worst == nil || errors.Is(worst, errUnreachable) { // who answers says more than who does not
			worst = err
		}
	}
	return nil, worst
}

// explainDial says why a node does not let the holder of its directory in, and what to do.
func explainDial(err error, h *node.Holder, dir, address string) error {
	said := lastWords(err)
	isNode := errors.Is(err, credential.ErrVersion) || errors.Is(err, credential.ErrNodeRemoved) || errors.Is(err, credential.ErrDiallerBehind) ||
		errors.Is(err, credential.ErrAcceptorBehind) || errors.Is(err, credential.ErrUnbound) || errors.Is(err, credential.ErrUnavailable)
	switch {
	case isNode:
		return fmt.Errorf("the node on %s: %s", address, said)
	case errors.Is(err, credential.ErrForeignCluster):
		return fmt.Errorf("the node on %s belongs to another cluster than %s, which is of cluster %v: name the node of that directory with --bootstrap, or the directory of that node with --data",
			address, dir, h.Cluster)
	case errors.Is(err, credential.ErrWrongNode):
		return fmt.Errorf("on %s %s, whose directory is %s: name the address of that one with --bootstrap, or another directory with --data", address, said, dir)
	case errors.Is(err, credential.ErrStranger):
		return fmt.Errorf("the node on %s says that it is node %d, and does not prove it by the key in %s: nothing was told to it", address, h.NodeID, dir)
	case errors.Is(err, peer.ErrHandshake):
		return fmt.Errorf("what listens on %s does not answer as a node of Leat that knows join tokens (%s): name the address of the node in %s with --bootstrap HOST:PORT",
			address, describeNetwork(err), dir)
	default:
		return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("no node answers on %s (%s): start the one in %s with \"leat up --data %s\", or name its address with --bootstrap HOST:PORT",
			address, describeNetwork(err), dir, dir)}
	}
}

// explainRefusedProof says why a node of the cluster does not know the key in its own directory. Before
// the metadata have the level that knows keys, they have none.
func (a *app) explainRefusedProof(ctx context.Context, h *node.Holder, dir, address string) error {
	a.bootstrap = address
	level := int16(-1)
	err := a.withBroker(ctx, a.tellPerson, nil, func(ctx context.Context, b *broker) (err error) {
		_, level, err = admin.DescribeLevel(ctx, b.cl)
		return err
	})
	if err == nil && level < leastLevel {
		return fmt.Errorf("the metadata of this cluster have level %d, which knows no keys of nodes and no join tokens: raise it with \"leat cluster finalize --bootstrap %s\", once all nodes run this version of Leat",
			level, address)
	}
	return fmt.Errorf("the node on %s does not know node %d by the key in %s: that directory is a copy, or was restored, or belongs to a node that was replaced", address, h.NodeID, dir)
}

// leastLevel is the level of the metadata that knows nodes by their keys.
const leastLevel = 1

// lastWords is the innermost sentence of an error of package credential, without the address and the like
// that were put before it.
func lastWords(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, ": "); ok {
		return rest
	}
	return text
}

// explainCommand makes a sentence of what the cluster has refused, or of why nobody has decided.
func explainCommand(refused *controller.Error, err error) error {
	switch {
	case err != nil && (errors.Is(err, cluster.ErrFailed) || errors.Is(err, cluster.ErrBusy)):
		return fmt.Errorf("the cluster cannot do that now (%w): try again", err)
	case err != nil:
		return err
	case refused == nil:
		return nil
	}
	sentence := strings.TrimSuffix(refused.Message, ".")
	switch refused.Kind { //nolint:exhaustive // the others are as they are
	case controller.BrokerNotRegistered:
		return notFoundf("%s: \"leat cluster\" shows the nodes", sentence)
	case controller.PolicyViolation:
		if strings.Contains(sentence, "by force") {
			sentence += " (--force)"
		}
	case controller.UnknownToken:
		return notFoundf("%s: it was never made, or was forgotten a day after its end", sentence)
	}
	return errors.New(sentence)
}
