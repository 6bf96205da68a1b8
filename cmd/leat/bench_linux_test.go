package main_test

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// benchRun is what is looked at of a run's result.
type benchRun struct {
	Kind    string
	Seconds float64
	Records int64
	Steps   []struct {
		Name     string
		Seconds  float64
		Records  int64
		Requests int64
		Server   *struct {
			CPU float64 `json:"cpu_s"`
		}
	}
}

// TestBench proves that each kind of run measures this node: it has the steps that
// it is made of, and in them as many records as were asked for.
func TestBench(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := up(t, dir, "--set", "group.initial.rebalance.delay.ms=0")
	bench := func(t *testing.T, args ...string) *benchRun {
		t.Helper()
		cmd := exec.Command(leat, append([]string{"bench"}, args...)...)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
		var r benchRun
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	server := []string{"-o", "json", "-b", p.addr, "--pid", strconv.Itoa(p.cmd.Process.Pid)}
	const writes = "writable 300, writable, again 300, "
	for _, run := range []struct{ args, records string }{
		{"spread -t spread --partitions 40 -d 50ms", "first pass 40, "},
		{"create -t create --partitions 300", writes},
		{"groups -t groups --members 20 --groups 30 --interval 20ms -d 100ms", "commit 150, produce 150, "},
		{"cold -t cold --data " + dir + " --records 16000 -d 100ms", "tail alone 1100, tail beside the cold reader 1100, "},
	} {
		name, _, _ := strings.Cut(run.args, " ")
		t.Run(name, func(t *testing.T) {
			r := bench(t, append(strings.Fields(run.args), server...)...)
			got := ""
			for _, s := range r.Steps {
				if s.Seconds <= 0 || s.Name != "disk" && s.Name != "consume cold" && s.Server == nil {
					t.Errorf("%+v", s)
				}
				if strings.Contains(run.records, s.Name+" "+strconv.FormatInt(s.Records, 10)+", ") {
					got += s.Name + " " + strconv.FormatInt(s.Records, 10) + ", "
				}
			}
			if got != run.records || r.Kind != name {
				t.Errorf("%q, not %q, in %+v", got, run.records, r)
			}
		})
	}
	t.Run("restart", func(t *testing.T) {
		r := bench(t, "restart", "-o", "json", "--records", "1600", "--partitions", "3", "--extra", "30")
		if len(r.Steps) != 3 || r.Steps[1].Seconds <= 0 || r.Steps[1].Server.CPU <= 0 {
			t.Errorf("%+v", r)
		}
	})
}
