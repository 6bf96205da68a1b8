package local

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/node"
)

// freePort finds a port that is free now, and some after it.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestPlan proves that nodes get ports that nobody uses, that those which were there keep theirs, and that a
// directory of something else, or of more nodes, is refused.
func TestPlan(t *testing.T) {
	dir := t.TempDir()
	n, err := node.Start(t.Context(), node.Config{Data: filepath.Join(dir, "2"), Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
	if err != nil {
		t.Fatal(err)
	}
	address := n.Info().Addresses[0]
	plan := func(count, port int) (*Cluster, error) {
		c := &Cluster{cfg: Config{Dir: dir, Nodes: count, Port: port}}
		return c, c.planNodes(t.Context())
	}
	if _, err := plan(3, freePort(t)); err == nil || !strings.Contains(err.Error(), address+" is taken by another program") || !strings.Contains(err.Error(), "node 2") {
		t.Errorf("while node 2 runs it says %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c, err := plan(3, taken.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{taken.Addr().String(): true}
	for i, one := range c.Nodes() {
		if one.Number != i+1 || one.Dir != filepath.Join(dir, strconv.Itoa(i+1)) || seen[one.Address] || one.isMember != (i == 1) || one.State() != Absent || one.PID() != 0 {
			t.Errorf("node %d: %+v", i+1, one)
		}
		seen[one.Address] = true
	}
	if c.Nodes()[1].Address != address {
		t.Errorf("node 2 had %s and gets %s", address, c.Nodes()[1].Address)
	}
	if _, err := plan(1, freePort(t)); err == nil || !strings.Contains(err.Error(), "has more than 1 nodes") {
		t.Errorf("of a directory with more nodes it says %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.properties"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := plan(3, freePort(t)); err == nil || !strings.Contains(err.Error(), "is the data directory of one node") {
		t.Errorf("of a node's directory it says %v", err)
	}
}

// TestStartFails proves that a node which does not start is told with its own words, and that the others are
// not left running.
func TestStartFails(t *testing.T) {
	script := filepath.Join(t.TempDir(), "leat")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'leat: the sky has fallen' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var lines []string
	cfg := Config{Program: script, Dir: t.TempDir(), Nodes: 1, Port: freePort(t), Log: func(_ int, line string) { lines = append(lines, line) }}
	if _, err := Start(t.Context(), cfg); err == nil || err.Error() != "node 1 has not started: the sky has fallen" {
		t.Errorf("it says %v", err)
	}
	if len(lines) != 1 || lines[0] != "leat: the sky has fallen" {
		t.Errorf("its log is %q", lines)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread end\nexit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Log = func(int, string) {}
	ended := make(chan error)
	go func() {
		_, err := Start(ctx, cfg)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) { // it has seen the end of its standard input
		t.Errorf("a start that was given up says %v", err)
	}
}
