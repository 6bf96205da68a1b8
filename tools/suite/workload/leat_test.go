package workload

import (
	"os/exec"
	"path/filepath"
	"runtime"
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
}
