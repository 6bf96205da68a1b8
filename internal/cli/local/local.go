// Package local runs a cluster of several nodes on one machine, each as a process of its own, for trying out
// what a cluster does.
//
// A Cluster has its Nodes in the directories 1, 2, 3 and so on of one directory. Each is the program "leat
// up", with a pipe as its standard input: a node stops in order when the pipe is closed, which happens also
// when the process that runs the cluster dies. So nothing is left behind, on any system.
//
//	absent --start--> starting --first line on its standard output--> ready
//	   ^------------------------------ the process ends ---------------'
//
// Any goroutine may call the methods of a Cluster. The mutex of a Node is a leaf.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/node"
)

const (
	// portStep is the distance of the ports of two nodes.
	portStep = 2
	// portTries is how many ports are tried for a node.
	portTries = 200
	// MaxNodes is how many nodes a cluster has at most.
	MaxNodes = 9
	// stopTime is how long a node may take to stop. It ends by itself before that.
	stopTime = 15 * time.Second
)

// Config is what a cluster is started with.
type Config struct {
	Program string   // the file that is leat
	Dir     string   // has the directories of the nodes
	Nodes   int      // at least 1
	Port    int      // of the first node, if it has none yet; others have the next free ones
	HTTP    string   // of the first node: an address, "off" for all, or "" for the usual one; other nodes have any port
	Args    []string // of "leat up", for all nodes
	// Log takes the lines that nodes log. It is called by several goroutines.
	Log func(number int, line string)
	// Ended is told that the process of a node has ended though nobody has stopped it. It is called by
	// several goroutines.
	Ended func(n *Node, err error)
}

// Cluster is a cluster that runs.
type Cluster struct {
	cfg   Config
	nodes []*Node
}

// Start starts a cluster: that which the directory has, or a new one. The nodes that the directory lacks
// join it. It returns when all nodes serve.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg}
	if err := c.planNodes(ctx); err != nil {
		return nil, err
	}
	if err := c.startAll(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Nodes are the nodes of the cluster, by their numbers, which begin with 1.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Addresses are the addresses of all nodes, for clients.
func (c *Cluster) Addresses() (list []string) {
	for _, n := range c.nodes {
		list = append(list, n.Address)
	}
	return list
}

// Stop stops all nodes in order, at the same time, and waits for them.
func (c *Cluster) Stop() error {
	failed := make([]error, len(c.nodes))
	var stopping sync.WaitGroup
	for i, n := range c.nodes {
		stopping.Go(func() { failed[i] = n.Stop() })
	}
	stopping.Wait()
	return errors.Join(failed...)
}

// planNodes finds the nodes that the directory has, and chooses ports for all.
func (c *Cluster) planNodes(ctx context.Context) error {
	dir := c.cfg.Dir
	if _, err := os.Stat(filepath.Join(dir, "meta.properties")); err == nil {
		return fmt.Errorf("%s is the data directory of one node, and has no room for several: choose another directory with --data", dir)
	}
	if extra := filepath.Join(dir, strconv.Itoa(c.cfg.Nodes+1)); isThere(extra) {
		return fmt.Errorf("%s has more than %d nodes: give as many with --nodes as there are, or choose another directory with --data", dir, c.cfg.Nodes)
	}
	port := c.cfg.Port
	for number := 1; number <= c.cfg.Nodes; number++ {
		n := &Node{Number: number, Dir: filepath.Join(dir, strconv.Itoa(number)), cluster: c}
		h, err := node.ReadHolder(n.Dir)
		switch {
		case errors.Is(err, node.ErrNoNode):
			n.Address, err = c.findPort(ctx, &port)
		case err == nil && len(h.Addresses) > 0: // the others look for it there
			n.isMember = true
			n.Address, err = h.Addresses[0], checkFree(ctx, n, h.Addresses[0])
		case err == nil:
			n.isMember = true
			n.Address, err = c.findPort(ctx, &port)
		}
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	return nil
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// findPort finds the next address that nobody uses, on the loopback.
func (c *Cluster) findPort(ctx context.Context, next *int) (string, error) {
	for range portTries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(*next))
		*next += portStep
		if isFree(ctx, address) && !c.hasAddress(address) {
			return address, nil
		}
	}
	return "", fmt.Errorf("there is no free port among the %d after %d", portTries, c.cfg.Port)
}

func (c *Cluster) hasAddress(address string) bool {
	for _, n := range c.nodes {
		if n.Address == address {
			return true
		}
	}
	return false
}

// checkFree refuses a taken address of a node that the others know by it.
func checkFree(ctx context.Context, n *Node, address string) error {
	if !isFree(ctx, address) {
		return fmt.Errorf("%s is taken by another program, or by this cluster, which runs already; it is the address of node %d in %s: stop that program", address, n.Number, n.Dir)
	}
	return nil
}

// isFree tells whether nobody listens on an address.
func isFree(ctx context.Context, address string) bool {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// startAll starts all nodes: first those that are members, which need each other, or the first one of a new
// cluster; then those that join.
func (c *Cluster) startAll(ctx context.Context) error {
	var first, others []*Node
	for _, n := range c.nodes {
		if n.isMember || n.Number == 1 && !c.hasMember() {
			first = append(first, n)
		} else {
			others = append(others, n)
		}
	}
	if err := startNodes(ctx, first); err != nil || len(others) == 0 {
		return err
	}
	token, err := makeToken(ctx, first[0])
	if err != nil {
		return fmt.Errorf("making a join token: %w", err)
	}
	isNew := !c.hasMember()
	for _, n := range others {
		n.token, n.join, n.choosesID = token.Text(), first[0].Address, isNew
	}
	if err := startNodes(ctx, others); err != nil {
		return err
	}
	for _, n := range others {
		n.token, n.join, n.choosesID = "", "", false
	}
	return revokeToken(ctx, first[0], token.ID())
}

func (c *Cluster) hasMember() bool {
	for _, n := range c.nodes {
		if n.isMember {
			return true
		}
	}
	return false
}

// startNodes starts nodes at the same time, and waits until all serve.
func startNodes(ctx context.Context, nodes []*Node) error {
	failed := make([]error, len(nodes))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var starting sync.WaitGroup
	for i, n := range nodes {
		starting.Go(func() {
			if failed[i] = n.Start(ctx); failed[i] != nil {
				cancel() // the others may wait for it
			}
		})
	}
	starting.Wait()
	for _, err := range failed {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(failed...)
}
