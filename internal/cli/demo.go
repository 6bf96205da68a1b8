package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/cli/local"
	"github.com/leatstream/leat/internal/node"
)

// The topic and the group of the demo, and its rate.
const (
	demoTopic      = "web-access"
	demoGroup      = "demo"
	demoPartitions = 4
	demoRate       = 2000 // records a second
	maxDemoRate    = 1_000_000
)

// nodeOptions say what kind of node the demo needs.
type nodeOptions struct {
	data string // a directory that does not exist yet
	port int    // 0: the usual one, or any where that is taken
}

// startNode starts a node and tells the address for clients.
type startNode func(ctx context.Context, o nodeOptions) (addr string, stop func() error, err error)

// demoFlags are the flags of the demo verb.
type demoFlags struct {
	rate int
	span time.Duration // 0: until Ctrl-C
	data string        // "": a fresh directory among the temporary ones
	port int           // 0: see nodeOptions
	keep bool          // a temporary directory stays
	// nodes is how many nodes there are. One runs in this process, several in processes of their own.
	nodes int
}

func (a *app) newDemo(start startNode) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "Show a broker at work: a web site's access log flows through it", Args: cobra.NoArgs,
		Long: `Start a node with a fresh data directory, replay a real web site's access log into a
topic, read it with a consumer group, and show what happens, until Ctrl-C. Its data are deleted
at the end unless --keep or --data is given.

With --nodes 3 there are three nodes, each a process of its own, and keys that kill one and start it
again: the records flow on, and the demo says how long they had to wait, and whether any was lost.

Everything goes through Kafka's protocol, so your own client can join in: the address
is shown. If the output is not a terminal, the demo writes a plain line each second.`,
		ValidArgsFunction: completeNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.rate < 1 || f.rate > maxDemoRate {
				return usagef("--rate %d: give a number of records per second from 1 to %s", f.rate, formatNumber(maxDemoRate))
			}
			if f.port < 0 || f.port > 65535 {
				return usagef("--port %d: give a port from 1 to 65535", f.port)
			}
			if cmd.Flags().Changed("for") && f.span <= 0 {
				return usagef("--for %s: give a time span such as 30s", f.span)
			}
			if f.nodes < 1 || f.nodes > local.MaxNodes {
				return usagef("--nodes %d: give a number of nodes from 1 to %d", f.nodes, local.MaxNodes)
			}
			return a.runDemo(cmd.Context(), f, start)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&f.rate, "rate", demoRate, "records a second")
	fl.DurationVar(&f.span, "for", 0, "stop after this long, as in 30s (default: at Ctrl-C)")
	fl.StringVar(&f.data, "data", "", "the data directory to create (default: a fresh one among the temporary files)")
	fl.IntVar(&f.port, "port", 0, fmt.Sprintf("port to serve clients on (default: %d, or any free one)", node.DefaultPort))
	fl.IntVar(&f.nodes, "nodes", 1, "show so many nodes, which keys kill and start again")
	fl.BoolVar(&f.keep, "keep", false, "keep the data, and show where they are")
	return cmd
}

func (a *app) runDemo(ctx context.Context, f demoFlags, start startNode) error {
	lines, err := unpackAccessLog()
	if err != nil {
		return err
	}
	dir, err := makeDemoDirectory(f.data)
	if err != nil {
		return err
	}
	if f.keep {
		dir.temporary = ""
	}
	stats := new(demoStats)
	if f.nodes > 1 {
		return errors.Join(a.runDemoOfNodes(ctx, f, dir.data, lines, stats), dir.removeTemporary(), a.tellWhereDataAre(dir, f.nodes))
	}
	addr, stop, err := start(ctx, nodeOptions{data: dir.data, port: f.port})
	if err != nil {
		return errors.Join(fmt.Errorf("starting a node: %w", err), dir.removeTemporary())
	}
	a.bootstrap = addr
	err = a.runDemoLoad(ctx, f, lines, stats, nil)
	return errors.Join(err, stop(), dir.removeTemporary(), a.tellWhereDataAre(dir, 1))
}

// runDemoOfNodes is the demo of several nodes.
func (a *app) runDemoOfNodes(ctx context.Context, f demoFlags, data string, lines []accessLine, stats *demoStats) error {
	stats.ledger = newLedger()
	d, err := a.startDemoNodes(ctx, f, data, stats)
	if err != nil {
		return fmt.Errorf("starting the nodes: %w", err)
	}
	a.bootstrap = strings.Join(d.cluster.Addresses(), ",")
	err = a.runDemoLoad(ctx, f, lines, stats, d)
	if lost := stats.ledger.countLost(); lost > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d", errLostRecords, lost))
	}
	return errors.Join(err, d.stop())
}

// runDemoLoad makes the topic, sends the log through it, and draws what happens.
func (a *app) runDemoLoad(ctx context.Context, f demoFlags, lines []accessLine, stats *demoStats, nodes *demoNodes) error {
	if err := a.withAdmin(ctx, makeDemoTopic); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.span > 0 {
		var cancelSpan context.CancelFunc
		ctx, cancelSpan = context.WithTimeout(ctx, f.span)
		defer cancelSpan()
	}
	load, err := a.startLoad(ctx, f.rate, lines, stats)
	if err != nil {
		return err
	}
	err = a.watchDemo(ctx, cancel, stats, load.failed, nodes)
	return errors.Join(load.stopLoad(), err)
}

// watchDemo draws what happens, and obeys keys if there are several nodes.
func (a *app) watchDemo(ctx context.Context, interrupt func(), stats *demoStats, failed <-chan struct{}, nodes *demoNodes) error {
	if nodes == nil {
		return a.drawDemo(ctx, stats, failed, nil)
	}
	var watching sync.WaitGroup
	var watchFailed error
	watching.Go(func() { watchFailed = nodes.watchLeaders(ctx) })
	restore, err := nodes.readKeys(ctx, a.in, interrupt)
	if err == nil {
		err = a.drawDemo(ctx, stats, failed, nodes)
		restore()
	}
	interrupt()
	watching.Wait()
	return errors.Join(err, watchFailed)
}

func makeDemoTopic(ctx context.Context, adm *kadm.Client) error {
	res, err := adm.CreateTopic(ctx, demoPartitions, -1, nil, demoTopic)
	if err != nil {
		return answerError("topic "+demoTopic, err, res.ErrMessage)
	}
	return nil
}

// programName is what a person types to run this program again, whose first argument was arg: "go run" builds it into
// a directory of its own, which is gone afterwards.
func programName(arg string) string {
	if strings.Contains(filepath.ToSlash(arg), "/go-build") {
		return "go run ./cmd/leat"
	}
	return arg
}

// tellWhereDataAre tells the user where the data are, or that they are deleted.
func (a *app) tellWhereDataAre(dir demoDirectory, nodes int) error {
	if dir.temporary != "" {
		_, err := fmt.Fprintln(a.out, "Its data are deleted; with --keep they stay.")
		return err
	}
	several := ""
	if nodes > 1 {
		several = fmt.Sprintf(" --nodes %d", nodes)
	}
	_, err := fmt.Fprintf(a.out, "The data are in %s. To serve them again:\n  %s up%s --data %s\n", dir.data, programName(os.Args[0]), several, dir.data)
	return err
}
