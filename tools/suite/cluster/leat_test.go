package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// startLeat builds the program that is measured, and runs it as a cluster of three.
func startLeat(t *testing.T) *server.Cluster {
	t.Helper()
	dir := t.TempDir()
	leat, token := filepath.Join(dir, "leat"), filepath.Join(dir, "token")
	build := exec.Command("go", "build", "-o", leat, "./cmd/leat")
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p := &server.Program{Ensemble: &server.Ensemble{
		Nodes: 3,
		Invite: func(ctx context.Context, places []server.Place) error {
			made, err := exec.CommandContext(ctx, leat, "cluster", "token", "--data", places[0].Dir).Output()
			if err != nil {
				return err
			}
			return os.WriteFile(token, made, 0o600)
		},
		Command: func(places []server.Place, node int, joins bool) (string, []string) {
			args := []string{"up", "--data", places[node].Dir, "--listen", places[node].Addr, "--http", "off", "--set", "broker.session.timeout.ms=1000", "--set", "broker.heartbeat.interval.ms=200"}
			if joins && node > 0 {
				args = append(args, "--join", places[0].Addr, "--token-file", token)
			}
			return leat, args
		},
	}}
	c, err := p.StartCluster(t.Context(), filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLeat proves that each workload measures a cluster of Leat: it has the steps that it is made of, in them
// as many records as were asked for and a time for each fault, and it leaves a cluster that is healthy.
func TestLeat(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	c := startLeat(t)
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	ctx := t.Context() // a node that is started again lives as long as it
	for _, test := range []struct {
		name  string
		run   Func
		kind  bench.Kind
		set   func(o *workload.Options)
		steps map[string]int64 // the records of each step, 0: it counts none
	}{
		{"produce", Produce, KindProduce, func(o *workload.Options) { o.Partitions, o.Records, o.Duration = 3, 4800, 0 }, nil},
		{"latency", Latency, KindLatency, func(o *workload.Options) { o.Partitions, o.Duration = 1, 100*time.Millisecond }, map[string]int64{LatencyOften: 1100, LatencySeldom: 2}},
		{"catch-up", CatchUp, KindCatchUp, func(o *workload.Options) { o.Partitions, o.Records = 2, 3200 }, map[string]int64{CatchUpProduce: 3200, CatchUpStart: 0, CatchUpFetch: 3200}},
		{"kill", LeaderKilled, KindFault, func(o *workload.Options) { o.Faults = 2 }, map[string]int64{FaultGap: 0}},
		{"stop", LeaderStopped, KindFault, func(o *workload.Options) { o.Faults = 1 }, map[string]int64{FaultGap: 0}},
		{"silence", LeaderSilent, KindFault, func(o *workload.Options) { o.Faults = 1 }, map[string]int64{FaultGap: 0}},
		{"controller", ControllerKilled, KindFault, func(o *workload.Options) { o.Faults = 1 }, map[string]int64{FaultChange: 0}},
		{"many", Many, KindMany, func(o *workload.Options) { o.Partitions = 60 }, map[string]int64{
			ManyCreate: 60, ManyWritable: 60, ManyFailover: 60, ManyReturn: 60, ManyRestart: 60, ManyRejoin: 60,
		}},
		{"idle", Idle, KindIdle, func(o *workload.Options) { o.Partitions, o.Duration = 30, 100*time.Millisecond }, map[string]int64{IdleBusiest: 0, IdleLargest: 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := workload.Defaults()
			o.Brokers, o.PIDs, o.Topic, o.Replication, o.Size = c.Brokers(), c.PIDs(), test.name, 3, 100
			o.Configs = []string{"min.insync.replicas=2"}
			test.set(&o)
			r, err := test.run(ctx, c, o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind != test.kind || len(r.Steps) != len(test.steps) {
				t.Errorf("%+v", r)
			}
			for name, records := range test.steps {
				s := r.Step(name)
				if s == nil || s.Seconds <= 0 || s.Records != records || test.kind == KindFault && s.Ack.Count != o.Faults {
					t.Errorf("step %q: %+v", name, s)
				}
			}
			if test.name == "produce" && (r.Records != o.Records || r.Server == nil || r.Server.CPU <= 0) {
				t.Errorf("%+v", r)
			}
			if !c.Whole() {
				t.Fatal("not all nodes run")
			}
			if err := awaitHealth(ctx, c); err != nil {
				t.Fatal(err)
			}
		})
	}
}
