// Package bench is a load generator for brokers that speak Kafka's protocol:
// "leat bench". It shares the machine with the broker that it measures, so it is
// made to cost far less than any broker does.
//
// Requests are encoded once, before the clock starts, and sent again and again
// from a buffer that stays in the processor's cache, many a write, while answers
// are read many a time. On Linux each connection is a blocking socket in a thread
// of its own, or one of many that a thread serves; elsewhere Go's sockets serve.
// Consuming looks at the head of each answer and at its first batch, and lets the
// kernel throw the rest away as long as batches are alike.
//
// A run (produce.go, consume.go, latency.go, idle.go, syscalls.go) fills in a
// Result; one that measures several things has steps (spread.go, create.go,
// groups.go, load.go, cold.go, restart.go). The suite (suite.go and what follows)
// starts servers, runs them in turns and writes a table. All of it knows brokers only by the protocol; requests that are not
// timed are kmsg's (client.go), those that are timed are patched templates
// (request.go).
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/record"
)

// Options are the settings of a run.
type Options struct {
	Brokers     []string      `json:"brokers"`
	Topic       string        `json:"topic"`
	Partitions  int           `json:"partitions"` // 0: those that the topic has
	Replication int           `json:"replication,omitempty"`
	Configs     []string      `json:"configs,omitempty"` // of a topic that is made, name=value
	Connections int           `json:"connections"`       // 0: one for each partition
	Duration    time.Duration `json:"duration_ns"`
	Records     int64         `json:"records,omitempty"` // end after so many; 0: no limit
	Size        int           `json:"size"`              // of a record's value
	Batch       int           `json:"batch"`             // records in a batch, which is a request
	InFlight    int           `json:"in_flight"`         // requests, on each connection
	Acks        string        `json:"acks"`
	Compression string        `json:"compression,omitempty"`
	WriteBytes  int           `json:"write_bytes,omitempty"` // of requests sent by one call, at least one request
	FetchBytes  int           `json:"fetch_bytes,omitempty"`
	Passes      int           `json:"passes,omitempty"`      // 0: until Duration is over
	Rate        int           `json:"rate,omitempty"`        // records a second
	PerRequest  int           `json:"per_request,omitempty"` // partitions in one produce request; 0: one
	Congestion  string        `json:"congestion,omitempty"`  // TCP_CONGESTION of the client's sockets; "": the system's
	Threads     int           `json:"threads,omitempty"`     // of the client; 0: as many as serve best
	Members     int           `json:"members,omitempty"`     // of the group that is joined
	Groups      int           `json:"groups,omitempty"`      // that commit
	Interval    time.Duration `json:"interval_ns,omitempty"` // between two commits of a group
	Extra       int           `json:"extra,omitempty"`       // partitions with one record each, besides
	Settle      time.Duration `json:"settle_ns,omitempty"`   // before an idle server is looked at
	Data        string        `json:"data,omitempty"`        // the server's data directory, where this program may read
	PIDs        []int         `json:"-"`                     // server processes to watch

	progress  io.Writer // nil: none
	step      string    // that the progress is of; "": the run has none
	kafkaHome string    // of the suite: where Apache Kafka's own client is
	input     string    // of the suite: the file that an ordinary client produces
}

// Command returns the verb "bench".
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a broker: throughput, latency, CPU",
		Long: `Measure a broker that speaks Kafka's protocol: Leat, Apache Kafka, or any other.

The topic is made when it is missing. With --pid the CPU and memory of a server process on this machine are shown beside the
figures, and they tell more than throughput does: client and server share the machine.`,
		Example: `  leat bench produce --size 1024 --batch 16 --duration 10s
  leat bench consume --fetch-bytes 1048576
  leat bench latency --rate 1000 --size 100 --acks all
  leat bench produce -o json > before.json
  leat bench compare before.json after.json`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(produceCommand(), consumeCommand(), latencyCommand(), idleCommand(), spreadCommand(), createCommand(), groupsCommand(),
		loadCommand(), coldCommand(), syscallsCommand(), restartCommand(), compareCommand(), suiteCommand())
	return cmd
}

// bind adds the flags that all runs have and makes run the command's action.
func bind(cmd *cobra.Command, o *Options, run func(context.Context, Options) (*Result, error)) *cobra.Command {
	var output, bootstrap string
	f := cmd.Flags()
	f.StringVarP(&bootstrap, "bootstrap", "b", defaultBootstrap(), "brokers to ask first, host:port, with commas between (also LEAT_BOOTSTRAP)")
	f.StringVarP(&o.Topic, "topic", "t", "bench", "topic; it should hold nothing but what this program made")
	f.IntSliceVar(&o.PIDs, "pid", nil, "process ids of servers on this machine: show their CPU and memory (Linux)")
	f.StringVarP(&output, "output", "o", "table", `"table" for people or "json" for programs`)
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if output != "table" && output != "json" {
			return fmt.Errorf("--output %s: write table or json", output)
		}
		o.Brokers = strings.FieldsFunc(bootstrap, func(r rune) bool { return r == ',' || r == ' ' })
		if err := o.validate(); err != nil {
			return err
		}
		if stderr, ok := cmd.ErrOrStderr().(*os.File); ok && isTerminal(stderr) {
			o.progress = stderr
		}
		r, err := run(cmd.Context(), *o)
		if err != nil {
			return err
		}
		if output == "json" {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(r)
		}
		_, err = io.WriteString(cmd.OutOrStdout(), r.Text())
		return err
	}
	return cmd
}

// defaultBootstrap is what all verbs that are clients ask first.
func defaultBootstrap() string {
	if b := os.Getenv("LEAT_BOOTSTRAP"); b != "" {
		return b
	}
	return "localhost:9092"
}

// bindTopic adds the flags with which a missing topic is made.
func bindTopic(cmd *cobra.Command, o *Options) {
	f := cmd.Flags()
	f.IntVarP(&o.Partitions, "partitions", "p", o.Partitions, "partitions to use (0: all that the topic has; one when it is made)")
	f.IntVar(&o.Replication, "replication", -1, "replicas of a topic that is made (-1: the broker's default)")
	f.StringArrayVar(&o.Configs, "config", nil, "config of a topic that is made, name=value; may be repeated")
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (o *Options) validate() error {
	if len(o.Brokers) == 0 {
		return errors.New("--bootstrap is empty: name a broker as HOST:PORT")
	}
	for _, n := range []struct {
		flag string
		have int
		low  int
	}{
		{"partitions", o.Partitions, 0},
		{"connections", o.Connections, 0},
		{"size", o.Size, 0},
		{"batch", o.Batch, 1},
		{"in-flight", o.InFlight, 1},
		{"fetch-bytes", o.FetchBytes, 1},
		{"passes", o.Passes, 0},
		{"rate", o.Rate, 1},
		{"per-request", o.PerRequest, 0},
		{"threads", o.Threads, 0},
		{"members", o.Members, 0},
		{"groups", o.Groups, 0},
		{"extra", o.Extra, 0},
	} {
		if n.have < n.low {
			return fmt.Errorf("--%s %d is too small: at least %d", n.flag, n.have, n.low)
		}
	}
	if o.Records < 0 || o.Duration < 0 {
		return errors.New("--records and --duration cannot be negative")
	}
	if _, err := o.acks(); err != nil {
		return err
	}
	if _, err := o.codec(); err != nil {
		return err
	}
	for _, c := range o.Configs {
		if name, _, ok := strings.Cut(c, "="); !ok || name == "" {
			return fmt.Errorf("--config %q is not name=value", c)
		}
	}
	return nil
}

// defaults are the settings of what a command has no flags for.
func defaults() Options {
	return Options{
		Brokers: []string{defaultBootstrap()}, Topic: "bench", Replication: -1, Duration: 10 * time.Second,
		Size: 1024, Batch: 16, InFlight: 32, Acks: "all", Compression: "none",
		WriteBytes: 256 << 10, FetchBytes: 1 << 20, Passes: 1, Rate: 1000,
	}
}

func (o *Options) acks() (int16, error) {
	switch o.Acks {
	case "0":
		return 0, nil
	case "1":
		return 1, nil
	case "all", "-1":
		return -1, nil
	default:
		return 0, fmt.Errorf("--acks %q is not known: use 0, 1 or all", o.Acks)
	}
}

func (o *Options) codec() (record.Codec, error) {
	c, err := record.ParseCodec(o.Compression)
	if err != nil {
		return 0, fmt.Errorf("--compression %q is not known: use none, gzip, snappy, lz4 or zstd", o.Compression)
	}
	return c, nil
}
