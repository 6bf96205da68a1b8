// Package workload is the things that the suite asks of a broker beyond those of "leat
// bench": idle connections, thousands of partitions, groups, cold reads, restarts,
// system calls, ordinary clients, transactions, compaction, logins and TLS. Each is a function that takes Options and returns a
// Result with Steps; Verify voids a run in which a record was lost. Workloads run one
// at a time, or they would measure one another.
package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/bench"
)

// Options are the settings of a workload: those of the load generator, and those that
// only some workloads have.
type Options struct {
	bench.Options
	Members   int           // of the group that is joined
	Groups    int           // that commit
	Interval  time.Duration // between two commits of a group
	Extra     int           // partitions with one record each, besides
	Settle    time.Duration // before an idle server is looked at
	Faults    int           // of a cluster, one after another
	Producers int           // that make transactions
	Keys      int64         // that records are spread over; 0: each has its own
	Data      string        // the server's data directory
	KafkaHome string        // where Apache Kafka's own client is; "": nowhere
	Entry     Entry         // by which listener of a secured broker the client comes
	Mechanism string        // of its login
	Resumes   bool          // a client over TLS resumes its last session
}

// Defaults are the settings of a workload that says nothing else.
func Defaults() Options { return Options{Options: bench.Defaults()} }

// Func is a workload.
type Func func(context.Context, Options) (*Result, error)

// The kinds of results beside those of the load generator.
const (
	KindIdle     bench.Kind = "idle"
	KindSpread   bench.Kind = "spread"
	KindCreate   bench.Kind = "create"
	KindGroups   bench.Kind = "groups"
	KindLoad     bench.Kind = "load"
	KindCold     bench.Kind = "cold"
	KindSyscalls bench.Kind = "syscalls"
	KindRestart  bench.Kind = "restart"
	KindClient   bench.Kind = "client"

	KindTransactions bench.Kind = "transactions"
	KindCompaction   bench.Kind = "compaction"
	KindConnections  bench.Kind = "connections"
)

// Produce is bench.Produce as a workload.
func Produce(ctx context.Context, o Options) (*Result, error) { return generate(ctx, o, bench.Produce) }

// Consume is bench.Consume as a workload.
func Consume(ctx context.Context, o Options) (*Result, error) { return generate(ctx, o, bench.Consume) }

// Latency is bench.Latency as a workload.
func Latency(ctx context.Context, o Options) (*Result, error) { return generate(ctx, o, bench.Latency) }

func generate(ctx context.Context, o Options, run func(context.Context, bench.Options) (*bench.Result, error)) (*Result, error) {
	r, err := run(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	return &Result{Result: *r}, nil
}

const (
	retryFirst  = 2 * time.Millisecond  // after an answer that said "not yet", and longer each time,
	retrySlowly = 50 * time.Millisecond // up to this
)

// errNoTime is returned where something took longer than timeFor.
var errNoTime = errors.New("that is as long as this run waits")

// timeFor is how long something may take with so many partitions: Apache Kafka needs
// 10 ms for each to be made, and twice that on a busy machine.
func timeFor(partitions int) time.Duration {
	return 30*time.Second + time.Duration(partitions)*20*time.Millisecond
}

// retryUntil does something until it succeeds, fails for a reason that does not pass, or
// the deadline is over.
func retryUntil(ctx context.Context, deadline time.Time, do func() error) error {
	for wait := retryFirst; ; wait = min(wait*3/2, retrySlowly) {
		err := do()
		if err == nil || !kerr.IsRetriable(err) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", errNoTime, err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// pause waits, unless the run ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
