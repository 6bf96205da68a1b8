package main

import (
	"bytes"
	"encoding/xml"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/server"
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
// the records that were produced, writes the tables, names the missing programs, goes on if a server
// does not start, and leaves nothing.
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
		programs: map[string]*server.Program{
			programLeat: {About: "the fake", Command: fake}, programFloor: {About: "another", Command: fake},
			programJournal: {Command: func(string, string) (string, []string) { return "/bin/sh", []string{"-c", "echo no disk; exit 3"} }},
		},
		missing: map[string]string{programFloorSync: "not built", programKafka: "no java", programNATS: "not installed"},
		rounds:  2, run: 50 * time.Millisecond, bytes: 1 << 20, log: &log,
		only: regexp.MustCompile("^(" + produceBatches + "|" + consumeSmall + "|" + idleEmpty + ")$"),
	}
	written := 0
	s.written = func(*report) error { written++; return nil }
	s.began = takenOn{Date: "2026-01-02 03:04:05", Rounds: 2}
	s.report = s.newReport(nil, "make bench", false)
	dir := t.TempDir()
	if err := s.runAll(t.Context(), dir); err == nil || strings.Count(err.Error(), "\n") > 3 || !strings.Contains(err.Error(), floorGroup) {
		t.Fatal(err, log.String())
	}
	doc := s.report.document("")
	for _, want := range []string{
		"## Produce, 1 KiB records, 16 a batch", "| floor program, -journal (durable); it does not answer: ", "| Leat (durable) | **", "| Leat, page cache | **", "| floor program | **",
		"## Consume, 64 KiB a request", "Apache Kafka did not take part: no java", "- leat: `the fake`", "`make bench`",
		"| 1 | produce, 1 KiB records, 16 a batch, 32 in flight | server CPU, s/GB |", "| 22 | idle, one connection | RSS |",
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("%q is missing in\n%s", want, doc)
		}
	}
	checkTables(t, doc)
	if written != 3 {
		t.Errorf("written after %d workloads, not 3", written)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestPlots proves that plots are SVG that shows each contender's median inside
// its frame, and that a document keeps the text that people wrote below it.
func TestPlots(t *testing.T) {
	r := &report{}
	cpu := cpuByteFigure()
	for name, v := range map[string][]float64{leatCache: {1, 2, 3}, kafkaPlain: {9, unmeasured, 20}} {
		r.set(produceBatches, name, &series{Figures: map[string][]float64{cpu.name: v}})
	}
	for i, f := range endFigures() {
		for _, c := range []string{leatCache, natsFile} {
			s := r.Workloads[latencySmall][c]
			if s == nil {
				s = &series{Figures: map[string][]float64{}}
				r.set(latencySmall, c, s)
			}
			s.Figures[f.name] = []float64{math.Pow(10, float64(i+1))}
		}
	}
	plots := r.plots()
	if got := slices.Sorted(maps.Keys(plots)); !slices.Equal(got, []string{"cpu.svg", "latency.svg"}) {
		t.Fatal(got)
	}
	for name, want := range map[string][]string{
		"cpu.svg":     {"Leat, page cache", ">2.00 s/GB<", ">14.5 s/GB<", "server CPU, s/GB"},
		"latency.svg": {"NATS JetStream", ">10.0 us<", ">100 ms<", "end to end, max: 100 ms"},
	} {
		for _, w := range want {
			if !strings.Contains(plots[name], w) {
				t.Errorf("%s: no %q in\n%s", name, w, plots[name])
			}
		}
		var shapes struct {
			Rect []struct {
				X     float64 `xml:"x,attr"`
				Width float64 `xml:"width,attr"`
			} `xml:"rect"`
			Circle []struct {
				X float64 `xml:"cx,attr"`
			} `xml:"circle"`
		}
		if err := xml.Unmarshal([]byte(plots[name]), &shapes); err != nil {
			t.Fatal(name, err)
		}
		for _, s := range shapes.Rect {
			if s.X < plotLeft || s.X+s.Width > plotRight+1 {
				t.Errorf("%s: a bar from %v, %v wide", name, s.X, s.Width)
			}
		}
		for _, s := range shapes.Circle {
			if s.X < plotLeft || s.X > plotRight+1 {
				t.Errorf("%s: a dot at %v", name, s.X)
			}
		}
	}
	dir := t.TempDir()
	doc := filepath.Join(dir, "b.md")
	if err := os.WriteFile(doc, []byte("old\n"+kept+"\nnotes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.write(doc, dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(doc)
	if err != nil || !strings.HasPrefix(string(got), "# Benchmarks") || !strings.HasSuffix(string(got), kept+"\nnotes\n") ||
		strings.Count(string(got), "notes") != 1 || !strings.Contains(string(got), "cpu.svg)") {
		t.Errorf("%v\n%s", err, got)
	}
}

// TestClaims proves the verdict on a target: met, missed and by how much, or not
// measured; and that every claim is about a figure that its workload measures.
func TestClaims(t *testing.T) {
	less, more := figure{less: true}, figure{}
	for _, test := range []struct {
		claim                claim
		value, ratio, better float64
		want                 string
	}{
		{claim{figure: less, toFloor: 1.4, toKafka: 7}, 1, 1.4, 7, "met"},
		{claim{figure: less, toFloor: 1.4, toKafka: 7}, 1, 2.1, 6.5, "**missed** the floor's by 50 %, Kafka's by 8 %"},
		{claim{figure: less, toFloor: 1.4, toKafka: 7}, 1, 1.3, unmeasured, "Kafka's not measured"},
		{claim{figure: more, toFloor: 0.6}, 1, 0.7, 9, "met"},
		{claim{figure: more, toFloor: 0.6, toKafka: 10}, 1, 0.2, 1, "**missed** the floor's by 3.00x, Kafka's by 10.0x"},
		{claim{figure: less, most: 10}, 11, unmeasured, unmeasured, "**missed** its own by 10 %"},
		{claim{figure: less}, 11, 1, 1, ""},
	} {
		if got := test.claim.mark(test.value, test.ratio, test.better); got != test.want {
			t.Errorf("%+v: %q", test.claim, got)
		}
	}
	all := map[string]row{}
	for _, w := range rows() {
		all[w.name] = w
	}
	for _, c := range claims() {
		w := all[c.workload]
		if !slices.ContainsFunc(w.figures, func(f figure) bool { return f.name == c.figure.name }) {
			t.Errorf("row %s: %q has no %q", c.row, c.workload, c.figure.name)
		}
		for _, who := range []string{c.leat, c.floor, c.kafka} {
			if who != "" && !slices.Contains(w.who, who) {
				t.Errorf("row %s: %s does not take part in %q", c.row, who, c.workload)
			}
		}
	}
}

// checkTables proves that every row of a table is as long as its head.
func checkTables(t *testing.T, doc string) {
	t.Helper()
	bars := 0
	for line := range strings.Lines(doc) {
		n := strings.Count(line, "|")
		if n == 0 {
			bars = 0
		} else if bars == 0 {
			bars = n
		}
		if n != bars {
			t.Errorf("%d bars, not %d: %s", n, bars, line)
		}
	}
}

// TestSuiteVoid proves that the error of a server that does not start has its last words.
func TestSuiteVoid(t *testing.T) {
	p := &server.Program{Command: func(string, string) (string, []string) {
		return "/bin/sh", []string{"-c", "echo the port is taken; exit 3"}
	}}
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs Linux")
	}
	_, err := p.Start(t.Context(), t.TempDir()+"/p")
	if err == nil || !strings.Contains(err.Error(), "the port is taken") {
		t.Error(err)
	}
}

// TestSpread proves medians, pairs and the text of a cell.
func TestSpread(t *testing.T) {
	for want, v := range map[spread][]float64{
		{2, 1, 3}: {3, 1, 2}, {2.5, 1, 4}: {4, 1, unmeasured, 2, 3}, {7, 7, 7}: {7}, {-1, -1, -1}: nil,
	} {
		if got := spreadOf(v); got != want {
			t.Errorf("%v: %v, expected %v", v, got, want)
		}
	}
	if got := cell([]float64{1000, 10, 100}, bench.FormatDigits); got != "**100** (10.0 .. 1000)" {
		t.Error(got)
	}
	if got := pairRatio([]float64{2, 4, unmeasured, 9}, []float64{1, 2, 5, 3}); got != 2 {
		t.Error(got)
	}
}
