package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/node"
)

// stopTimeout is how long a node may take to stop.
const stopTimeout = 10 * time.Second

// newUp makes the verb that runs a node until it is stopped.
func (a *app) newUp() *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", SuggestFor: []string{"start", "serve", "server", "run", "broker"},
		Short: "Run a node: a broker on localhost:9092 with its data in ./leat-data",
		Long: `Run a node until it is stopped (Ctrl-C, SIGTERM or SIGHUP).

Without any flag it serves Kafka's protocol on port 9092 of this machine's loopback addresses and keeps its data in ./leat-data,
which it creates at the first start.

A node joins the cluster of other nodes by --join, at its first start. It needs a join token, which "leat cluster token" makes where
a node of the cluster runs. Afterwards the same command starts it again, and so does one without --join and the token.

With --secure the first start of a cluster secures it: clients log in over TLS, ACLs decide what they may do, and the node makes a
certificate authority, its own certificate, which it renews, and the user admin, whose password is shown once. It says what to paste into
clients. The sealing key, which it makes beside the data directory, belongs into a backup of its own. Later starts need no flag.

With --nodes 3 the verb runs a cluster of three nodes on this machine, to try out what happens when one is killed. Their data are in
the directories 1, 2 and 3 of the data directory, by default of ./` + defaultCluster + `. The same command starts them again.

These variables of the environment set the same as flags: LEAT_DATA, LEAT_LISTEN, LEAT_ADVERTISE, LEAT_HTTP, LEAT_ID, LEAT_RACK,
LEAT_JOIN, LEAT_TOKEN, LEAT_TOKEN_FILE, LEAT_SECURE, LEAT_SEALING_KEY, LEAT_BOOTSTRAP_USER, LEAT_BOOTSTRAP_PASSWORD_FILE, LEAT_CONFIG, LEAT_LOG_FORMAT, LEAT_LOG_LEVEL, and LEAT_SET_<NAME> for Kafka's broker configs, with underscores for dots, such as
LEAT_SET_NUM_PARTITIONS. Flags win over the environment, and the environment wins over the config file. Two flags, two variables, or two lines of
the file must not contradict each other.

If there are several listeners, they have names, as in Kafka. A client is told the address of the listener that it connected to.`,
		Example: `  leat up
  leat up --listen :9092 --data /var/lib/leat
  leat up --listen IN=:9094,OUT=:9092 --advertise IN=leat:9094,OUT=localhost:9092
  leat up --listen :9092 --join one.example:9092 --token-file token
  leat up --set num.partitions=3 --set log.retention.hours=24
  leat up --config leat.yaml
  leat up --config server.properties
  leat up --secure --listen :9092 --advertise broker1.example.com:9092
  leat up --nodes 3`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.String("data", node.DefaultData, "data directory")
	f.StringArray("listen", nil, "address to serve clients on, host:port, :port, NAME=host:port or NAME=PROTOCOL://host:port; may be repeated, or have several separated by commas (default: port 9092 of the loopback addresses)")
	f.StringArray("advertise", nil, "address that clients and other nodes are told, host:port, or NAME=host:port if there are several listeners; may be repeated (default: the address that each client used)")
	f.String("http", node.DefaultHTTP, `address of health, metrics and profiles, or "off"`)
	f.Int32("id", 0, "node id (default: what the data directory says, 1 at the first start)")
	f.String("rack", "", "rack or zone of this machine")
	f.String("config", "", "file with these settings and Kafka's broker configs, in YAML or as a server.properties of Kafka (also LEAT_CONFIG)")
	f.StringArray("set", nil, "a broker config by Kafka's name, as name=value; may be repeated")
	f.String("log-format", "", "text or json (default: text on a terminal, else json)")
	f.String("log-level", "info", "debug, info, warn or error; kafka-configs --entity-type broker-loggers changes it while the node runs")
	f.StringArray("join", nil, "address of a node, host:port, whose cluster to join at the first start; may be repeated, or have several separated by commas")
	f.String("token", "", "join token, which \"leat cluster token\" makes; other users of the machine may see it in the list of processes")
	f.String("token-file", "", "file that has the join token, such as /dev/stdin")
	cmd.MarkFlagsMutuallyExclusive("token", "token-file")
	f.Bool("secure", false, "secure the cluster at its first start: TLS, logins and ACLs, with a certificate authority of its own; or refuse to join a cluster that is not secured")
	f.String("sealing-key", "", "file of the sealing key of a secured cluster, outside the data directory (default: the data directory's name with .key at the end)")
	f.String("bootstrap-user", "", "first user of a cluster, NAME:PASSWORD, or NAME with --bootstrap-password-file: made if the cluster has never had a user, and a super user of this node")
	f.String("bootstrap-password-file", "", "file whose first line is the password of --bootstrap-user")
	f.Int("nodes", 1, "run so many nodes as processes of their own on this machine, to try out what a cluster does")
	f.Bool(untilEOF, false, "stop when the standard input ends, as it does when the parent of the process is gone")
	if err := f.MarkHidden(untilEOF); err != nil {
		panic("BUG: " + err.Error())
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := readSettings(cmd, os.Environ())
		switch {
		case err != nil:
			return explainSettings(err)
		case cmd.Flag("nodes").Changed:
			return a.runNodes(cmd, &cfg)
		}
		return runUp(cmd, cfg)
	}
	return cmd
}

// untilEOF is the flag of nodes that are the processes of "leat up --nodes".
const untilEOF = "until-eof"

func runUp(cmd *cobra.Command, cfg node.Config) error {
	started := time.Now()
	whole, cancelAll := context.WithCancel(cmd.Context())
	defer cancelAll()
	if cmd.Flag(untilEOF).Changed {
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, cmd.InOrStdin())
			cancelAll()
		}()
	}
	cfg.Logger = newLogger(cmd.ErrOrStderr(), cfg.LogFormat)
	node.LimitMemory()
	cfg.OwnsProcess = true
	_, cfg.Announced = terminalWidth(cmd.ErrOrStderr()) // the log is read by the person who reads the line of announceNode
	cfg.Announced = cfg.Announced && isTerminal(cmd.OutOrStdout())
	cfg.KeepMonitorAwake = os.Getenv("GOMAXPROCS") == "" // GOMAXPROCS in the environment means that the user controls the scheduler
	n, err := node.Start(whole, cfg)
	if errors.Is(err, node.ErrConfig) {
		return explainSettings(err)
	}
	if err != nil {
		return err
	}
	announceNode(cmd.OutOrStdout(), n.Info(), time.Since(started))
	if err := announceSecured(cmd.OutOrStdout(), n.Info().Secured, cmd.Flag(untilEOF).Changed); err != nil {
		return errors.Join(err, n.Stop(whole))
	}
	var failed error
	select {
	case <-whole.Done():
	case failed = <-n.Failed():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(whole), stopTimeout)
	defer cancel()
	return errors.Join(failed, n.Stop(ctx))
}

// explainSettings makes a sentence of an error about settings. The node does not start with them, so
// they are wrong usage, or name a file that does not exist.
func explainSettings(err error) error {
	sentence := strings.Replace(err.Error(), node.ErrConfig.Error()+": ", "", 1)
	if errors.Is(err, fs.ErrNotExist) {
		return notFoundf("%s", sentence)
	}
	return usagef("%s", sentence)
}

// readSettings combines the settings of the file, the environment and the flags. Later ones win.
func readSettings(cmd *cobra.Command, environ []string) (node.Config, error) {
	sources, err := settingsOfEnvironment(cmd.Flag("config").Value.String(), environ)
	if err != nil {
		return node.Config{}, err
	}
	var flags node.Source // each value names its flag
	for _, name := range []string{"listen", "advertise", "join"} {
		list, err := cmd.Flags().GetStringArray(name)
		if err != nil {
			return node.Config{}, err
		}
		if cmd.Flag(name).Changed { // repeated flags add up, while a later source replaces an earlier one
			at := "--" + name + " " + strings.Join(list, " --"+name+" ")
			flags.Values = append(flags.Values, node.Value{Name: name, Value: strings.Join(list, ","), At: at})
		}
	}
	for _, name := range []string{"data", "http", "id", "rack", "token", "token-file", "secure", "sealing-key", "bootstrap-user", "bootstrap-password-file", "log-level", "log-format"} {
		if fl := cmd.Flag(name); fl.Changed {
			flags.Values = append(flags.Values, node.Value{Name: name, Value: fl.Value.String(), At: "--" + name})
		}
	}
	set, err := cmd.Flags().GetStringArray("set")
	if err != nil {
		return node.Config{}, err
	}
	for _, kv := range set {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return node.Config{}, usagef("--set %s: write it as name=value", kv)
		}
		flags.Values = append(flags.Values, node.Value{Name: name, Value: value, At: "--set " + name}) // the value may be a secret
	}
	return node.Combine(append(sources, flags)...)
}

// settingsOfEnvironment reads the settings of the config file, which the environment may name, and those of
// the environment, which win.
func settingsOfEnvironment(path string, environ []string) (sources []node.Source, err error) {
	for _, kv := range environ {
		if p, ok := strings.CutPrefix(kv, "LEAT_CONFIG="); ok && path == "" {
			path = p
		}
	}
	if path != "" {
		src, err := node.FromFile(path)
		if err != nil {
			return nil, err
		}
		sources = append(sources, src)
	}
	return append(sources, node.FromEnv(environ)), nil
}

// announceNode tells the user that the node is ready, and where it can be reached.
func announceNode(w io.Writer, info node.Info, took time.Duration) {
	var reach string
	if info.LoopbackOnly {
		reach = " (this machine only; --listen :9092 opens it to the network)"
	}
	var health string
	if info.HTTP != "" {
		health = ", metrics on http" + map[bool]string{true: "s"}[info.HTTPEncrypted] + "://" + info.HTTP + "/metrics"
		if info.HTTPElsewhere != "" {
			health += " (since " + info.HTTPElsewhere + "; --http HOST:PORT chooses an address)"
		}
	}
	// A terminal that is gone does not stop the node.
	_, _ = fmt.Fprintf(w, "leat is ready after %d ms: Kafka clients on %s%s%s, data in %s\n",
		took.Milliseconds(), strings.Join(info.Addresses, " and "), reach, health, info.Data)
}

// newLogger makes a logger that writes text to a terminal and JSON to everything else, unless the
// format is given. It writes all levels: the node chooses among them. Durations have their units, in
// JSON too.
func newLogger(w io.Writer, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.Level(math.MinInt), ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if _, terminal := terminalWidth(w); format == "text" || format == "" && terminal {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}
