package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// nodeWithin is how long a node may take from its start to its first answer. Several start at the same time,
// and may wait for each other.
const nodeWithin = 5 * time.Minute

// Place is where a node of a cluster runs.
type Place struct{ Dir, Addr string }

// Ensemble is how a program runs as a cluster of several nodes, each a process of its own.
type Ensemble struct {
	Nodes int
	// Prepare makes what the nodes need before their first start; nil: nothing.
	Prepare func(ctx context.Context, places []Place) error
	// Invite makes what the other nodes need to join the first one, which runs; nil: all nodes start
	// at the same time, since a node answers only when most of them run.
	Invite func(ctx context.Context, places []Place) error
	// Command is how a node is started. It joins the others at its first start.
	Command func(places []Place, node int, joins bool) (name string, args []string)
}

// Cluster is the nodes of an ensemble. A node that does not run is nil in Nodes. A Cluster belongs
// to one goroutine.
type Cluster struct {
	Nodes  []*Server
	Places []Place

	ensemble *Ensemble
}

// StartCluster runs the program's nodes in directories of dir, and waits until all of them answer.
func (p *Program) StartCluster(ctx context.Context, dir string) (*Cluster, error) {
	e := p.Ensemble
	c := &Cluster{ensemble: e, Nodes: make([]*Server, e.Nodes)}
	addrs, err := FreeAddresses(e.Nodes)
	if err != nil {
		return nil, err
	}
	for i, addr := range addrs {
		at := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		if err := os.MkdirAll(at, 0o750); err != nil {
			return nil, err
		}
		c.Places = append(c.Places, Place{Dir: at, Addr: addr})
	}
	if e.Prepare != nil {
		if err := e.Prepare(ctx, c.Places); err != nil {
			return nil, err
		}
	}
	first := 0
	if e.Invite != nil {
		err = c.launch(ctx, 0, true)
		if err == nil {
			err = e.Invite(ctx, c.Places)
		}
		first = 1
	}
	if err == nil {
		err = c.launchAll(ctx, first, true)
	}
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// launchAll starts the nodes from one on, all at the same time.
func (c *Cluster) launchAll(ctx context.Context, first int, joins bool) error {
	failed := make([]error, len(c.Nodes))
	var starting sync.WaitGroup
	for i := first; i < len(c.Nodes); i++ {
		starting.Go(func() { failed[i] = c.launch(ctx, i, joins) })
	}
	starting.Wait()
	return errors.Join(failed...)
}

func (c *Cluster) launch(ctx context.Context, node int, joins bool) error {
	p := Program{Within: nodeWithin, Command: func(string, string) (string, []string) { return c.ensemble.Command(c.Places, node, joins) }}
	s, err := p.Launch(ctx, c.Places[node].Dir, c.Places[node].Addr)
	if err != nil {
		return fmt.Errorf("node %d: %w", node+1, err)
	}
	c.Nodes[node] = s
	return nil
}

// Launch starts a node again, and waits until it answers.
func (c *Cluster) Launch(ctx context.Context, node int) error { return c.launch(ctx, node, false) }

// LaunchAll starts all nodes again at the same time, and waits until they answer.
func (c *Cluster) LaunchAll(ctx context.Context) error { return c.launchAll(ctx, 0, false) }

// Kill ends a node as a crash does.
func (c *Cluster) Kill(node int) error {
	s := c.Nodes[node]
	c.Nodes[node] = nil
	return s.Kill()
}

// StopNode ends a node in order, and waits until it has ended.
func (c *Cluster) StopNode(node int) error {
	s := c.Nodes[node]
	c.Nodes[node] = nil
	return s.Stop()
}

// Stop ends all nodes that run, at the same time.
func (c *Cluster) Stop() error {
	failed := make([]error, len(c.Nodes))
	var stopping sync.WaitGroup
	for i, s := range c.Nodes {
		if s != nil {
			stopping.Go(func() { failed[i] = c.StopNode(i) })
		}
	}
	stopping.Wait()
	return errors.Join(failed...)
}

// Whole tells whether all nodes run.
func (c *Cluster) Whole() bool {
	for _, s := range c.Nodes {
		if s == nil || s.Ended() {
			return false
		}
	}
	return true
}

// Brokers are the addresses of all nodes, whether they run or not.
func (c *Cluster) Brokers() (addrs []string) {
	for _, p := range c.Places {
		addrs = append(addrs, p.Addr)
	}
	return addrs
}

// Running are the addresses of the nodes that run.
func (c *Cluster) Running() (addrs []string) {
	for i, s := range c.Nodes {
		if s != nil {
			addrs = append(addrs, c.Places[i].Addr)
		}
	}
	return addrs
}

// PIDs are the processes of the nodes that run.
func (c *Cluster) PIDs() (pids []int) {
	for _, s := range c.Nodes {
		if s != nil {
			pids = append(pids, s.PID())
		}
	}
	return pids
}

// FreeAddresses finds ports of the loopback that are free, below those that the system gives to
// connections of clients: a node must find its port free when it starts again.
func FreeAddresses(count int) (addrs []string, err error) {
	const low, high, tries = 20_000, 32_000, 1000
	for range tries {
		if len(addrs) == count {
			return addrs, nil
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))) //nolint:noctx // it does not wait
		if err != nil {
			continue // it is taken
		}
		defer l.Close() //nolint:errcheck,revive // all are held until the last one is found
		addrs = append(addrs, l.Addr().String())
	}
	return nil, errors.New("no free ports were found")
}
