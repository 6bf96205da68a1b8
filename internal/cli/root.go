// Package cli is the leat program. Each verb has a file of its own. The verbs up and demo run a node;
// all others are ordinary clients of Kafka's protocol and work with any Kafka.
//
// Main runs the program. An app is the state that the verbs of one run share; only one goroutine uses
// it, except where a verb says otherwise.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// interruptGrace is how long a verb may take to end after Ctrl-C.
const interruptGrace = 950 * time.Millisecond

// runGroup is the id of the group of verbs that run a node.
const runGroup = "run"

// defaultBootstrap is the address of a node without any settings.
const defaultBootstrap = "localhost:9092"

// app is one run of the program.
type app struct {
	in       io.Reader
	out, err io.Writer

	bootstrap string        // addresses, separated by commas
	identity  identity      // who the client is
	timeout   time.Duration // how long to wait for brokers that do not answer
	output    string        // of lists and descriptions: "table" or "json"
	running   bool          // the arguments were accepted: a failure is no longer one of usage
}

// Main runs the program and returns its exit code. The args are those after the program's name. Main
// returns soon after ctx ends.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, err: stderr}
	root := a.newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	asked, _, err := root.Find(args)
	runsNode := err == nil && asked.GroupID == runGroup
	type end struct {
		cmd *cobra.Command
		err error
	}
	ended := make(chan end, 1)
	go func() {
		cmd, err := root.ExecuteContextC(ctx)
		ended <- end{cmd, err}
	}()
	select {
	case e := <-ended:
		return a.reportEnd(e.cmd, e.err)
	case <-ctx.Done():
	}
	// An interrupted verb ends by itself, unless it writes into a pipe that nobody reads. A node may
	// have data to write, so it gets all the time that it needs.
	grace := time.After(interruptGrace)
	if runsNode {
		grace = nil
	}
	select {
	case e := <-ended:
		return a.reportEnd(e.cmd, e.err)
	case <-grace:
		a.tellPerson(interrupted)
		return exitFailed
	}
}

// newRoot makes the root of all verbs.
func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "leat",
		Short: "A stream platform that speaks Kafka's protocol, in one program",
		Long: `leat runs a stream platform that speaks Kafka's protocol, and works with it.

Start with "leat demo", which shows a broker at work, or "leat up", which runs one. All
other verbs are clients of any Kafka, by default of the one on ` + defaultBootstrap + `
(--bootstrap or LEAT_BOOTSTRAP names another).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a topic, group or other thing that was
named does not exist, 4 no broker could be reached, or none answered for the time of --timeout.`,
		Args:          cobra.ArbitraryArgs,
		RunE:          onlySubcommands,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddGroup(&cobra.Group{ID: runGroup, Title: "Run a node:"}, &cobra.Group{ID: "data", Title: "Write and read:"},
		&cobra.Group{ID: "admin", Title: "Manage a cluster:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group(runGroup, a.newUp(), a.newDemo(startLocalNode))
	group("data", a.newProduce(), a.newConsume(), a.newBench())
	group("admin", a.newTopic(), a.newGroup(), a.newTxn(), a.newConfig(), a.newCluster(), a.newUser(), a.newToken(), a.newQuota(), a.newACL(), a.newRole(), a.newAudit(), a.newCert(), a.newSecure(), a.newLink(a.dialLinks), a.newHealth())
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp())
	root.AddCommand(newCompletion(), a.newVersion())
	root.Version = readVersion().String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(explainFlag)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", helpWidth)))
	a.prepareVerb(root)
	return root
}

// newHelp makes the verb that shows the help of another verb.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB...]", Short: "Show how to use a verb",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if of, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), prefix) {
						names = append(names, c.Name())
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of := cmd.Root()
			for _, name := range args {
				at := slices.IndexFunc(of.Commands(), func(c *cobra.Command) bool { return c.Name() == name || c.HasAlias(name) })
				if at < 0 {
					return noSuchVerbError(of, name)
				}
				of = of.Commands()[at]
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// newParent makes a verb that only has other verbs below it.
func newParent(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: onlySubcommands}
	cmd.AddCommand(subs...)
	return cmd
}

// onlySubcommands shows the help of a verb that does nothing by itself.
func onlySubcommands(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return noSuchVerbError(cmd, args[0])
	}
	return cmd.Help()
}

// addClientFlags gives a verb and those below it the flags of a client.
func (a *app) addClientFlags(cmd *cobra.Command) *cobra.Command {
	def := os.Getenv("LEAT_BOOTSTRAP")
	if def == "" {
		def = defaultBootstrap
	}
	cmd.PersistentFlags().StringVarP(&a.bootstrap, "bootstrap", "b", def, "brokers to ask first, as host:port, separated by commas (also LEAT_BOOTSTRAP, else those of --client-config)")
	a.addLoginFlags(cmd)
	cmd.PersistentFlags().DurationVar(&a.timeout, "timeout", defaultTimeout, "how long to wait for brokers that do not answer")
	return cmd
}

// addOutputFlag gives a verb and those below it the choice between tables and JSON.
func (a *app) addOutputFlag(cmd *cobra.Command) *cobra.Command {
	a.output = "table"
	cmd.PersistentFlags().VarP(choice{&a.output, []string{"table", "json"}}, "output", "o", `"table" for people or "json" for programs`)
	a.completeFlag(cmd, "output", completeWords("table", "json"))
	return cmd
}
