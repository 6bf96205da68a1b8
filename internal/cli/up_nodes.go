package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/local"
	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/node"
)

// defaultCluster is the directory of several nodes, unless another one is named.
const defaultCluster = "leat-cluster"

// votersTime is how long it may take until the nodes of a new cluster vote on its metadata. It takes about a
// second; until then the cluster does not outlive its first node.
const votersTime = 15 * time.Second

// runNodes runs several nodes on this machine until they are stopped.
func (a *app) runNodes(cmd *cobra.Command, cfg *node.Config) error {
	count, err := cmd.Flags().GetInt("nodes")
	if err != nil {
		return err
	}
	if err := checkNodes(count, cfg); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	started := time.Now()
	var running atomic.Int64
	running.Store(int64(count))
	allEnded := make(chan struct{})
	c, err := local.Start(cmd.Context(), local.Config{
		Program: program, Dir: directoryOfNodes(cmd, cfg), Nodes: count, Port: node.DefaultPort, HTTP: cfg.HTTP, Args: argumentsOfNodes(cmd, cfg),
		Log: a.logOfNodes(cfg.LogFormat),
		Ended: func(n *local.Node, err error) {
			a.tellPerson(fmt.Sprintf("node %d has ended (%s), and is not started again: stop this, and start it again with the same command", n.Number, endOf(err)))
			if running.Add(-1) == 0 {
				close(allEnded)
			}
		},
	})
	if err != nil {
		return err
	}
	a.awaitVoters(cmd.Context(), c)
	if _, err := fmt.Fprint(a.out, nodesText(c, time.Since(started))); err != nil {
		return errors.Join(err, c.Stop())
	}
	info, err := node.ReadSecured(c.Nodes()[0].Dir)
	if err == nil && info != nil && !info.WhileRunning { // else leat secure has shown it
		info.Address = strings.Join(c.Addresses(), ",")
		err = announceSecured(a.out, info, false)
	}
	if err != nil {
		return errors.Join(err, c.Stop())
	}
	var failed error
	select {
	case <-cmd.Context().Done():
	case <-allEnded:
		failed = errors.New("all nodes have ended")
	}
	return errors.Join(failed, c.Stop())
}

// checkNodes refuses settings that cannot be those of several nodes on one machine.
func checkNodes(count int, cfg *node.Config) error {
	if count < 1 || count > local.MaxNodes {
		return usagef("--nodes %d: give a number of nodes from 1 to %d", count, local.MaxNodes)
	}
	var given []string
	for _, s := range []struct {
		name    string
		isGiven bool
	}{
		{"listen", len(cfg.Listen) > 0}, {"advertise", len(cfg.Advertise) > 0}, {"id", cfg.ID != nil}, {"join", len(cfg.Join) > 0}, {"token", cfg.Token != ""},
	} {
		if s.isGiven {
			given = append(given, s.name)
		}
	}
	if len(given) > 0 {
		return usagef("with --nodes the nodes are on this machine only, and choose that for themselves: leave out %s, also in the environment and the config file", phrase.Join(given, "and"))
	}
	return nil
}

// directoryOfNodes is the directory that has those of the nodes.
func directoryOfNodes(cmd *cobra.Command, cfg *node.Config) string {
	if cfg.Data == node.DefaultData && !cmd.Flag("data").Changed {
		return defaultCluster
	}
	return cfg.Data
}

// argumentsOfNodes are the flags that the nodes are given as they are. They read the environment themselves.
func argumentsOfNodes(cmd *cobra.Command, cfg *node.Config) (args []string) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "rack", "log-level", "bootstrap-user", "bootstrap-password-file", "sealing-key":
			args = append(args, "--"+f.Name, f.Value.String())
		case "secure":
			args = append(args, "--secure="+f.Value.String())
		case "set":
			if list, ok := f.Value.(pflag.SliceValue); ok {
				for _, value := range list.GetSlice() {
					args = append(args, "--set", value)
				}
			}
		}
	})
	format := cfg.LogFormat
	if format == "" {
		format = "text" // a line begins with the number of its node
	}
	return append(args, "--log-format", format)
}

// logOfNodes writes the lines that nodes log. Lines of JSON stay as they are, for programs.
func (a *app) logOfNodes(format string) func(number int, line string) {
	return func(number int, line string) {
		if format == "json" {
			_, _ = fmt.Fprintln(a.err, line)
			return
		}
		_, _ = fmt.Fprintf(a.err, "node %d: %s\n", number, escapeLine(line))
	}
}

// endOf says how a process has ended.
func endOf(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return oneLine(err)
}

// awaitVoters waits until the nodes of a new cluster vote on its metadata, so that it outlives any of them. It
// gives up after a while, since the cluster serves without that.
func (a *app) awaitVoters(ctx context.Context, c *local.Cluster) {
	want := min(len(c.Nodes()), 3)
	if want < 3 {
		want = 1
	}
	whole, cancel := context.WithTimeout(ctx, votersTime)
	defer cancel()
	dir := c.Nodes()[0].Dir
	opts, canLogIn := firstLoginOptions(dir)
	if info, err := node.ReadSecured(dir); (err != nil || info != nil) && !canLogIn {
		return // nobody here can ask; only a new cluster has to be waited for
	}
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.Addresses()...))...)
	for err == nil {
		var q *admin.Quorum
		if q, err = admin.DescribeQuorum(whole, cl); err == nil && q.CountVoters() >= want {
			break
		}
		select {
		case <-time.After(checkEvery):
			err = nil
		case <-whole.Done():
			err = whole.Err()
		}
	}
	if cl != nil {
		cl.Close()
	}
	if err != nil && ctx.Err() == nil {
		a.tellPerson("the nodes serve, but do not all vote on the metadata yet: \"leat cluster\" shows when they do; before that the cluster may not outlive the first of them")
	}
}

// nodesText says where the nodes are, and what to try.
func nodesText(c *local.Cluster, took time.Duration) string {
	t := columns{head: []string{">NODE", "ADDRESS", ">PROCESS", "DATA"}}
	for _, n := range c.Nodes() {
		dir := n.Dir
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
		t.addRow(fmt.Sprint(n.Number), n.Address, fmt.Sprint(n.PID()), dir)
	}
	return fmt.Sprintf("leat is ready after %d ms: %s on this machine, for Kafka clients on any of the addresses\n\n%s\nLook at them with \"leat cluster --bootstrap %s\", kill one with \"kill -9\" and its process, and stop all with Ctrl-C.\n",
		took.Milliseconds(), formatCount(len(c.Nodes()), "node"), t.String(), c.Nodes()[len(c.Nodes())-1].Address)
}
