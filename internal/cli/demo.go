package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

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
}

func (a *app) newDemo(start startNode) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "Show a broker at work: a web site's access log flows through it", Args: cobra.NoArgs,
		Long: `Start a node with a fresh data directory, replay a real web site's access log into a
topic, read it with a consumer group, and show what happens, until Ctrl-C. Its data are deleted
at the end unless --keep or --data is given.

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
			return a.runDemo(cmd.Context(), f, start)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&f.rate, "rate", demoRate, "records a second")
	fl.DurationVar(&f.span, "for", 0, "stop after this long, as in 30s (default: at Ctrl-C)")
	fl.StringVar(&f.data, "data", "", "the data directory to create (default: a fresh one among the temporary files)")
	fl.IntVar(&f.port, "port", 0, fmt.Sprintf("port to serve clients on (default: %d, or any free one)", node.DefaultPort))
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
	addr, stop, err := start(ctx, nodeOptions{data: dir.data, port: f.port})
	if err != nil {
		return errors.Join(fmt.Errorf("starting a node: %w", err), dir.removeTemporary())
	}
	a.bootstrap = addr
	err = a.runDemoLoad(ctx, f, lines)
	return errors.Join(err, stop(), dir.removeTemporary(), a.tellWhereDataAre(dir))
}

// runDemoLoad makes the topic, sends the log through it, and draws what happens.
func (a *app) runDemoLoad(ctx context.Context, f demoFlags, lines []accessLine) error {
	if err := a.withAdmin(ctx, makeDemoTopic); err != nil {
		return err
	}
	if f.span > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.span)
		defer cancel()
	}
	stats := new(demoStats)
	load, err := a.startLoad(ctx, f.rate, lines, stats)
	if err != nil {
		return err
	}
	err = a.drawDemo(ctx, stats, load.failed)
	return errors.Join(load.stopLoad(), err)
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
func (a *app) tellWhereDataAre(dir demoDirectory) error {
	if dir.temporary != "" {
		_, err := fmt.Fprintln(a.out, "Its data are deleted; with --keep they stay.")
		return err
	}
	_, err := fmt.Fprintf(a.out, "The data are in %s. To serve them again:\n  %s up --data %s\n", dir.data, programName(os.Args[0]), dir.data)
	return err
}
