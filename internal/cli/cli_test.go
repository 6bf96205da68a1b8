package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// TestMain lets the scripts run this package as the program leat.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"leat": func() { os.Exit(Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// scripts numbers the scripts of a run, so that each has names of its own even
// where all of them use one broker.
var scripts atomic.Int64

// TestScripts proves what a user sees of each verb: output, errors and exit codes.
// The broker is kfake, or the one that LEAT_TEST_BOOTSTRAP names, so that the same
// scripts say whether the verbs and a real broker agree.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			addr := os.Getenv("LEAT_TEST_BOOTSTRAP")
			if addr == "" {
				c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(2))
				if err != nil {
					return err
				}
				env.Defer(c.Close)
				addr = c.ListenAddrs()[0]
			}
			id := fmt.Sprintf("%d-%d", time.Now().UnixNano(), scripts.Add(1))
			env.Setenv("LEAT_BOOTSTRAP", addr)
			env.Setenv("TOPIC", "topic-"+id)
			env.Setenv("GROUP", "group-"+id)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "kfake" {
				return false, fmt.Errorf("there is no condition %q", cond)
			}
			return os.Getenv("LEAT_TEST_BOOTSTRAP") == "", nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "join": joinGroup,
		},
	})
}

// exits runs a command and checks its exit code: exits 3 leat topic describe x.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	want := "exit status " + args[0]
	if args[0] == "0" && err != nil || args[0] != "0" && (err == nil || !strings.Contains(err.Error(), want)) {
		ts.Fatalf("%v, want %s", err, want)
	}
}

// joinGroup makes a member of a group that reads a topic until the script ends: join GROUP
// TOPIC. With -consumer it is a group of Kafka 4's protocol, with -share a share group.
func joinGroup(ts *testscript.TestScript, neg bool, args []string) {
	kind := ""
	if len(args) == 3 {
		kind, args = args[0], args[1:]
	}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: join [-consumer | -share] GROUP TOPIC")
	}
	opts := []kgo.Opt{kgo.SeedBrokers(ts.Getenv("LEAT_BOOTSTRAP")), kgo.ConsumeTopics(args[1])}
	switch kind {
	case "-share":
		opts = append(opts, kgo.ShareGroup(args[0]))
	case "-consumer":
		opts = append(opts, kgo.ConsumerGroup(args[0]), kgo.ServerSideBalancer())
	default:
		opts = append(opts, kgo.ConsumerGroup(args[0]))
	}
	cl, err := kgo.NewClient(opts...)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ts.Defer(func() { cancel(); cl.Close() })
	go func() { // a member of a share group joins by its first poll
		for ctx.Err() == nil {
			cl.PollFetches(ctx)
		}
	}()
	until := time.Now().Add(20 * time.Second)
	for {
		groups, err := admin.FindGroups(ctx, cl, nil, nil)
		ts.Check(err)
		described, err := admin.DescribeGroups(ctx, cl, slices.DeleteFunc(groups, func(g admin.Group) bool { return g.Name != args[0] }))
		if err == nil && len(described) == 1 && len(described[0].Members) == 1 && described[0].State == "Stable" && described[0].Members[0].Partitions > 0 {
			return
		}
		if time.Now().After(until) {
			ts.Fatalf("nobody let us into group %s: %v, %v", args[0], described, err)
		}
	}
}

// TestDemo proves that the demo makes its topic, moves the log through it, and says
// where the data are, with a broker that is none of ours.
func TestDemo(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(1))
	t.Cleanup(c.Close)
	var stopped bool
	start := func(context.Context, nodeOptions) (string, func() error, error) {
		return c.ListenAddrs()[0], func() error { stopped = true; return nil }, nil
	}
	var out strings.Builder
	a := &app{out: &out, err: &out}
	data := filepath.Join(t.TempDir(), "data")
	err := a.runDemo(t.Context(), demoFlags{rate: 500, span: 2500 * time.Millisecond, data: data}, start)
	if err != nil {
		t.Fatal(err)
	}
	if !stopped {
		t.Error("the node was left running")
	}
	for _, want := range []string{c.ListenAddrs()[0], "records/s", "p99", "leat up --data " + data} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), demoTopic)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	if total < 500 {
		t.Errorf("only %d records in %s", total, demoTopic)
	}
}

// TestDemoFails proves that a node which does not start is told in a sentence, and
// that a directory which is there is not touched.
func TestDemoFails(t *testing.T) {
	start := func(context.Context, nodeOptions) (string, func() error, error) {
		return "", nil, context.DeadlineExceeded
	}
	a := &app{out: &strings.Builder{}}
	if err := a.runDemo(t.Context(), demoFlags{rate: 1}, start); err == nil || !strings.Contains(err.Error(), "starting a node") {
		t.Error(err)
	}
	if err := a.runDemo(t.Context(), demoFlags{rate: 1, data: t.TempDir()}, start); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Error(err)
	}
}
