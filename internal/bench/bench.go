// Package bench is a load generator for brokers that speak Kafka's protocol: "leat
// bench" and the suite in tools/suite use it. It runs on the same machine as the broker
// that it measures, so it must cost far less than any broker does.
//
// Requests are encoded once, before the clock starts, and sent many times from a buffer
// that stays in the processor's cache, several with one write. Several answers are read at
// once. A consumer reads the head of each answer and of its first batch, and lets the kernel
// discard the rest as long as all batches have the same shape.
//
// Produce, Consume and Latency measure an existing topic as Options say, and return a
// Result; Compare compares two Results. Each makes a Run, which has the connections
// (package socket) and the clock. Requests that are not timed are kmsg's (package client);
// timed requests are templates that are patched (request.go). Nothing here depends on a
// broker's code, only on the protocol. Several runs may go on at the same time.
package bench

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// Options are the settings of a run.
type Options struct {
	Brokers     []string      `json:"brokers"`
	Topic       string        `json:"topic"`
	Partitions  int           `json:"partitions"` // 0: those that the topic has
	Replication int           `json:"replication,omitempty"`
	Configs     []string      `json:"configs,omitempty"` // of MakeTopic's topic, name=value
	Connections int           `json:"connections"`       // 0: one for each partition
	Duration    time.Duration `json:"duration_ns"`
	Records     int64         `json:"records,omitempty"` // the run ends after them; 0: no limit
	Size        int           `json:"size"`              // of a record's value
	Batch       int           `json:"batch"`             // records in a batch, which is a request
	InFlight    int           `json:"in_flight"`         // requests, on each connection
	Acks        string        `json:"acks"`
	Compression string        `json:"compression,omitempty"`
	WriteBytes  int           `json:"write_bytes,omitempty"` // of the requests of one write, which has at least one
	FetchBytes  int           `json:"fetch_bytes,omitempty"`
	Passes      int           `json:"passes,omitempty"`      // how often the topic is read; 0: until Duration is over
	Rate        int           `json:"rate,omitempty"`        // records a second
	PerRequest  int           `json:"per_request,omitempty"` // partitions in one produce request; 0: one
	Congestion  string        `json:"congestion,omitempty"`  // TCP_CONGESTION of the client's sockets; "": the system's
	Threads     int           `json:"threads,omitempty"`     // of the client; 0: as many as serve best
	PIDs        []int         `json:"-"`                     // server processes to watch
	Progress    io.Writer     `json:"-"`                     // a terminal that shows how far the run is; nil: none
}

// OptionError says which option cannot be used, and why. The run has not begun.
type OptionError struct{ Why string }

func (e *OptionError) Error() string { return e.Why }

func optionErrorf(format string, args ...any) error {
	return &OptionError{fmt.Sprintf(format, args...)}
}

// Defaults are the default settings of a run.
func Defaults() Options {
	return Options{
		Replication: -1, Duration: 10 * time.Second,
		Size: 1024, Batch: 16, InFlight: 32, Acks: "all", Compression: "none",
		WriteBytes: 256 << 10, FetchBytes: 1 << 20, Passes: 1, Rate: 1000,
	}
}

// Kind is the kind of a run.
type Kind string

// These are the kinds of runs.
const (
	KindProduce Kind = "produce"
	KindConsume Kind = "consume"
	KindLatency Kind = "latency"
)

// Validate returns an OptionError for settings that a run of the kind cannot have.
func (o *Options) Validate(k Kind) error {
	if err := o.validateRanges(); err != nil {
		return err
	}
	endless, timed := false, o.countTimed()
	switch k {
	case KindProduce:
		endless = o.Duration == 0 && o.Records == 0
	case KindConsume:
		endless = o.Duration == 0 && o.Passes == 0
	case KindLatency:
		endless = o.Duration == 0
		if o.Size < stampSize {
			return optionErrorf("--size %d is too small: at least %d", o.Size, stampSize)
		}
		if timed > maxSamples {
			return optionErrorf("%d records are too many to time: use a lower --rate or --duration", timed)
		}
	}
	if endless {
		return optionErrorf("the run would never end: use --duration")
	}
	if err := process.Check(o.PIDs); err != nil {
		return optionErrorf("--pid: %v", err)
	}
	connections := o.Connections
	if connections == 0 {
		connections = o.Partitions
	}
	return checkOpenFiles(max(1, connections))
}

// spareFiles is how many files this program has open beside the connections of a run: its standard ones,
// those of Go's poller, a connection for requests that are not timed, and some while a connection is made.
const spareFiles = 12

// checkOpenFiles returns an OptionError if this program may not have so many connections.
func checkOpenFiles(connections int) error {
	limit, ok := vfs.OpenFileLimit()
	if !ok || connections <= limit-spareFiles {
		return nil
	}
	return optionErrorf("this program may have %d files open, which are too few for %s: raise that limit with \"ulimit -n\", or use --connections %d",
		limit, FormatCounted(connections, "connection"), max(1, limit-spareFiles))
}

// validateRanges returns an OptionError for settings that no run can have.
func (o *Options) validateRanges() error {
	if len(o.Brokers) == 0 {
		return optionErrorf("--bootstrap is empty: name a broker as HOST:PORT")
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
		{"write-bytes", o.WriteBytes, 0},
		{"fetch-bytes", o.FetchBytes, 1},
		{"passes", o.Passes, 0},
		{"rate", o.Rate, 1},
		{"per-request", o.PerRequest, 0},
		{"threads", o.Threads, 0},
	} {
		if n.have < n.low {
			return optionErrorf("--%s %d is too small: at least %d", n.flag, n.have, n.low)
		}
	}
	if o.Records < 0 || o.Duration < 0 {
		return optionErrorf("--records and --duration cannot be negative")
	}
	if _, err := o.parseAcks(); err != nil {
		return err
	}
	if _, err := o.parseCodec(); err != nil {
		return err
	}
	for _, c := range o.Configs {
		if name, _, ok := strings.Cut(c, "="); !ok || name == "" {
			return optionErrorf("--config %q is not name=value", c)
		}
	}
	return nil
}

func (o *Options) parseAcks() (int16, error) {
	switch o.Acks {
	case "0":
		return 0, nil
	case "1":
		return 1, nil
	case "all", "-1":
		return -1, nil
	default:
		return 0, optionErrorf("--acks %q is not known: use 0, 1 or all", o.Acks)
	}
}

func (o *Options) parseCodec() (record.Codec, error) {
	c, err := record.ParseCodec(o.Compression)
	if err != nil {
		return 0, optionErrorf("--compression %q is not known: use none, gzip, snappy, lz4 or zstd", o.Compression)
	}
	return c, nil
}

// MakeTopic creates the topic of the options, with one partition if they give no number, and
// waits until its leaders serve.
func MakeTopic(ctx context.Context, o *Options) error {
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.MakeTopic(ctx, client.Topic{
		Name: o.Topic, Partitions: max(1, o.Partitions), Replication: o.Replication, Configs: o.Configs,
	})
}

// DeleteTopic deletes the topic of the options. A missing topic is no error.
func DeleteTopic(ctx context.Context, o *Options) error {
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.DeleteTopic(ctx, o.Topic)
}
