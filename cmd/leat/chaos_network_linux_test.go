package main_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/leatstream/leat/internal/wan"
)

// chaosMTU is how large a packet between two places of a campaign may be, in bytes.
const chaosMTU = 9000

// A campaign runs in a process that has a network of its own, which ends with it. Each node has a network of its own again: all packets between nodes, and between nodes and clients, go through
// the paths of a wan.Network, in which each of them is a site.

// enterChaos runs the test again in a process with a network of its own, and returns false when
// that has ended. In that process it returns true.
func enterChaos(t *testing.T) bool {
	t.Helper()
	const inside = "LEAT_CHAOS_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	skip := t.Skipf
	if os.Getenv("LEAT_TEST_REQUIRE_ALL") == "1" {
		skip = t.Fatalf
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		t.Skip("networks of nodes need root and /dev/net/tun")
	}
	args := []string{"-test.run=^" + t.Name() + "$"}
	for _, name := range []string{"test.v", "test.timeout", "test.artifacts", "test.outputdir"} {
		args = append(args, fmt.Sprintf("-%s=%s", name, flag.Lookup(name).Value))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		skip("a process with a network of its own cannot be started: %v", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-t.Context().Done():
			_ = cmd.Process.Kill()
		case <-ended:
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Errorf("in its own network: %v", err)
	}
	return false
}

// newChaosNetwork connects the clients, which are the first site and in this process, and so many nodes.
func newChaosNetwork(t *testing.T, nodes int) *wan.Network {
	t.Helper()
	const clients = "clients"
	sites := []string{clients}
	for i := range nodes {
		sites = append(sites, fmt.Sprintf("node-%d", i+1))
	}
	n, err := wan.New(t.Context(), wan.Config{Sites: sites, Kind: wan.Namespaces, Here: clients, MTU: chaosMTU})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// nodeSites are the sites of all nodes.
func (c *chaosCluster) nodeSites() []*wan.Site { return c.network.Sites()[1:] }

// setBetweenNodes changes the paths between all nodes.
func (c *chaosCluster) setBetweenNodes(s wan.Settings) {
	for _, site := range c.nodeSites() {
		c.network.SetBetween(site, c.nodeSites(), s)
	}
}
