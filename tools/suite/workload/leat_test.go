package workload

import (
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/server"
)

// buildLeat builds the program that is measured.
func buildLeat(t *testing.T) *server.Program {
	t.Helper()
	leat := filepath.Join(t.TempDir(), "leat")
	build := exec.Command("go", "build", "-o", leat, "./cmd/leat")
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return &server.Program{Command: func(dir, addr string) (string, []string) {
		return leat, []string{"up", "--data", dir, "--listen", addr, "--http", "off", "--set", "group.initial.rebalance.delay.ms=0"}
	}}
}

// TestLeat proves that each workload measures Leat: it has the steps that it is made of,
// and in them as many records as were asked for.
func TestLeat(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	p := buildLeat(t)
	srv, err := p.Start(t.Context(), filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	for name, test := range map[string]struct {
		run   Func
		from  Options
		set   func(o *Options)
		makes bool             // it makes its topics itself
		want  map[string]int64 // records of steps
	}{
		"spread": {
			run: Spread, from: SpreadDefaults(), want: map[string]int64{SpreadFirst: 40},
			set: func(o *Options) { o.Partitions, o.Duration = 40, 50*time.Millisecond },
		},
		"create": {
			run: Create, from: CreateDefaults(), makes: true, want: map[string]int64{CreateWritable: 300, CreateWritable + CreateAgain: 300},
			set: func(o *Options) { o.Partitions = 300 },
		},
		"groups": {
			run: Groups, from: GroupsDefaults(), want: map[string]int64{GroupsCommit: 150, GroupsProduce: 150},
			set: func(o *Options) {
				o.Members, o.Groups, o.Interval, o.Duration = 20, 30, 20*time.Millisecond, 100*time.Millisecond
			},
		},
		"cold": {
			run: Cold, from: ColdDefaults(), makes: true, want: map[string]int64{ColdAlone: 1100, ColdTail: 1100},
			set: func(o *Options) { o.Records, o.Duration, o.Data = 16_000, 100*time.Millisecond, srv.Dir },
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := test.from
			test.set(&o)
			o.Brokers, o.Topic, o.PIDs = []string{srv.Addr}, name, []int{srv.PID()}
			if !test.makes {
				makeTopic(t, &o)
			}
			r, err := test.run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range r.Steps {
				if want, ok := test.want[s.Name]; ok && s.Records != want || s.Seconds <= 0 {
					t.Errorf("%+v", s)
				}
				if s.Name != ColdDisk && s.Name != ColdConsume && s.Server == nil {
					t.Errorf("the server was not measured: %+v", s)
				}
			}
			for step := range test.want {
				if r.Step(step) == nil {
					t.Errorf("there is no step %q in %+v", step, r)
				}
			}
			if r.Kind != bench.Kind(name) {
				t.Error(r.Kind)
			}
		})
	}
	t.Run("restart", func(t *testing.T) {
		o := RestartDefaults()
		o.Topic, o.Records, o.Partitions, o.Extra = "restart", 1600, 3, 30
		r, err := Restart(t.Context(), p, filepath.Join(t.TempDir(), "data"), o)
		if err != nil {
			t.Fatal(err)
		}
		if s := r.Step(RestartKill); len(r.Steps) != 3 || s.Seconds <= 0 || s.Server.CPU <= 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("transactions", func(t *testing.T) { testTransactions(t, srv) })
	t.Run("compaction", func(t *testing.T) {
		told := *p
		told.Command = func(dir, addr string) (string, []string) {
			name, args := p.Command(dir, addr)
			return name, append(args, "--set", "log.cleaner.backoff.ms=20", "--log-level", "debug")
		}
		testCompaction(t, &told)
	})
}

// testTransactions proves that every transaction is measured, that as many records are committed, and that a run is
// void if the topic has others.
func testTransactions(t *testing.T, srv *server.Server) {
	t.Helper()
	o := Defaults()
	o.Brokers, o.PIDs, o.Topic = []string{srv.Addr}, []int{srv.PID()}, "transactions"
	o.Producers, o.Partitions, o.Batch, o.Size, o.Rate, o.Duration = 3, 2, 10, 20, 0, 300*time.Millisecond
	makeTopic(t, &o)
	r, err := Transactions(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != KindTransactions || r.Requests < 3 || r.Records != 10*r.Requests || int64(r.Ack.Count) != r.Requests || r.EndToEnd.Count != r.Ack.Count ||
		r.EndToEnd.P50 <= r.Ack.P50 || r.Server == nil {
		t.Errorf("%+v", r)
	}
	if _, err := Transactions(t.Context(), o); !errors.Is(err, ErrVoid) {
		t.Errorf("a topic that had records: %v", err)
	}
	o.Topic, o.Rate, o.Duration = "transactions-paced", 100, 300*time.Millisecond
	makeTopic(t, &o)
	if r, err = Transactions(t.Context(), o); err != nil || r.Requests != 30 {
		t.Errorf("%+v, %v", r, err)
	}
	o.Producers = 0
	if _, err := Transactions(t.Context(), o); err == nil {
		t.Error("nobody made transactions")
	}
}

// testCompaction proves that the broker's log is read right, that nothing is counted before all is compacted, and that
// a run is void if a record is missing that should be there.
func testCompaction(t *testing.T, p *server.Program) {
	t.Helper()
	o := CompactionDefaults()
	o.Topic, o.Records, o.Keys = "compaction", 120_000, 5_000
	r, err := Compaction(t.Context(), p, filepath.Join(t.TempDir(), "data"), o)
	if err != nil {
		t.Fatal(err)
	}
	s := r.Step(CompactionClean)
	if s == nil || s.Seconds <= 0 || s.Requests < 1 || s.Server.CPU <= 0 || s.Bytes < 98*s.Records || s.Bytes > 102*s.Records || s.Records < 100_000 || s.Records >= 120_000 {
		t.Errorf("%+v", s)
	}
	o.Keys, o.Rate, o.Duration, o.Records = 0, 100, time.Millisecond, 60_000
	if _, err := CompactionWithProducer(t.Context(), p, filepath.Join(t.TempDir(), "data"), o); err == nil || !strings.Contains(err.Error(), "needs more records") {
		t.Errorf("a compaction of a moment took longer than a second: %v", err)
	}
	srv, err := p.Start(t.Context(), filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	o.Brokers, o.Topic, o.Keys, o.Records, o.Duration = []string{srv.Addr}, "void", 50, 1_000, 0
	makeTopic(t, &o)
	topic := &keyedTopic{o: o}
	if err := topic.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := topic.verify(t.Context()); err != nil { // as if all were in the last segment
		t.Error(err)
	}
	topic.closed = 900
	if err := topic.verify(t.Context()); !errors.Is(err, ErrVoid) {
		t.Errorf("older records of keys were there: %v", err)
	}
	topic.closed, topic.o.Records = 0, 1_100
	if err := topic.verify(t.Context()); !errors.Is(err, ErrVoid) {
		t.Errorf("records were missing: %v", err)
	}
}

// TestCleanings proves that the logs of both brokers are read right, and only what they say of the partition.
func TestCleanings(t *testing.T) {
	leat := `{"time":"2026-11-30T10:00:00Z","level":"INFO","msg":"a log was compacted","logger":"storage","log":"bench-0","from":0,"to":4400,"read":9,"records":9,"kept":9,"took":"1.5s"}
{"level":"INFO","msg":"a log was compacted","log":"bench-01","to":99999,"took":"1h"}
{"level":"INFO","msg":"another thing","log":"bench-0","to":99999,"took":"1h"}
no JSON "a log was compacted" bench-0
{"level":"INFO","msg":"a log was compacted","log":"bench-0","from":4400,"to":9900,"took":"250ms"}
`
	kafka := `[2026-11-30 10:00:00,000] INFO [kafka-log-cleaner-thread-0]:
	Log cleaner thread 0 cleaned log bench-0 (dirty section = [0, 4400])
	1,907.3 MB of log processed in 1,001.5 seconds (77.4 MB/sec).
	Indexed 953.7 MB in 4.3 seconds (221.8 Mb/sec, 34.9% of total time)
	Buffer utilization: 89.9%
[2026-11-30 10:00:20,000] INFO [kafka-log-cleaner-thread-0]:
	Log cleaner thread 0 cleaned log warm-bench-0 (dirty section = [0, 99999])
	190.7 MB of log processed in 2.5 seconds (76.3 MB/sec).
[2026-11-30 10:00:30,000] INFO [kafka-log-cleaner-thread-0]:
	Log cleaner thread 0 cleaned log bench-0 (dirty section = [4400, 9900])
	190.7 MB of log processed in 0.5 seconds (76.3 MB/sec).
`
	for output, want := range map[string]cleanings{
		"": {}, leat: {2, 1750 * time.Millisecond, 9900}, kafka: {2, 1002 * time.Second, 9900},
	} {
		if got := findCleanings([]byte(output), "bench-0"); got != want {
			t.Errorf("%+v, not %+v, of\n%s", got, want, output)
		}
	}
}
