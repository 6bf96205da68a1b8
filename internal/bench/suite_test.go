package bench

import (
	"bytes"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// serverEnv makes this test's own program a server on the address that it holds.
const serverEnv = "LEAT_BENCH_TEST_SERVER"

func TestMain(m *testing.M) {
	addr := os.Getenv(serverEnv)
	if addr == "" {
		m.Run()
		return
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	if _, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(n)); err != nil {
		panic(err)
	}
	select {} // until it is killed
}

// TestSuite proves that the suite starts servers, measures them in turns, counts
// what was produced, writes the tables, names who is missing and leaves nothing.
func TestSuite(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fake := func(_, addr string) (string, []string) { return "/usr/bin/env", []string{serverEnv + "=" + addr, exe} }
	var log bytes.Buffer
	s := &suite{
		programs: map[string]*program{"leat": {about: "the fake", command: fake}, "floor": {about: "another", command: fake}},
		missing:  map[string]string{"floor-sync": "not built", "kafka": "no java"},
		rounds:   2, run: 50 * time.Millisecond, bytes: 1 << 20, log: &log,
		only: regexp.MustCompile("^(produce, 1 KiB records, 16|consume, 64)"),
	}
	dir := t.TempDir()
	report, err := s.all(t.Context(), dir)
	if err != nil {
		t.Fatal(err, log.String())
	}
	for _, want := range []string{
		"## Produce, 1 KiB records, 16 a batch", "| Leat (durable) | **", "| Leat, page cache | **", "| floor program | **",
		"## Consume, 64 KiB a request", "kafka did not take part: no java", "- `the fake`",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("%q is missing in\n%s", want, report)
		}
	}
	bars := 0
	for line := range strings.Lines(report) { // every row of a table is as long as its head
		if strings.HasPrefix(line, "| contender") {
			bars = strings.Count(line, "|")
		}
		if strings.HasPrefix(line, "|") && strings.Count(line, "|") != bars {
			t.Errorf("%d bars, not %d: %s", strings.Count(line, "|"), bars, line)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestSuiteVoid proves that a server that does not start ends the suite with what it said.
func TestSuiteVoid(t *testing.T) {
	p := &program{command: func(string, string) (string, []string) {
		return "/bin/sh", []string{"-c", "echo the port is taken; exit 3"}
	}}
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	_, err := p.start(t.Context(), t.TempDir()+"/p")
	if err == nil || !strings.Contains(err.Error(), "the port is taken") {
		t.Error(err)
	}
}

// TestSpread proves medians, pairs and what a cell shows.
func TestSpread(t *testing.T) {
	for want, v := range map[spread][]float64{
		{2, 1, 3}: {3, 1, 2}, {2.5, 1, 4}: {4, 1, 2, 3}, {7, 7, 7}: {7}, {}: nil,
	} {
		if got := spreadOf(v); got != want {
			t.Errorf("%v: %v, expected %v", v, got, want)
		}
	}
	if got := cell([]float64{1000, 10, 100}, digits); got != "**100** (10.0 .. 1000)" {
		t.Error(got)
	}
	if got := pairRatio([]float64{2, 4, 9}, []float64{1, 2, 3}); got != 2 {
		t.Error(got)
	}
}

// TestProcess proves that this process's own figures are read from the system.
func TestProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	pids := []int{os.Getpid()}
	now, peak, err := processMemory(pids)
	if err != nil || now < 1<<20 || peak < now/2 {
		t.Errorf("%d, %d, %v", now, peak, err)
	}
	before := ownCPU()
	for ownCPU()-before < 50*time.Millisecond {
		now++
	}
	if cpu, err := processCPU(pids); err != nil || cpu < 40*time.Millisecond || cpu > ownCPU()+time.Second {
		t.Errorf("%v, %v", cpu, err)
	}
	if _, err := processCPU([]int{1 << 30}); err == nil || !strings.Contains(err.Error(), "no process") {
		t.Error(err)
	}
}
