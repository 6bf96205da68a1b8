package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// spread is a figure's median, least and largest value in some rounds.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return spread{mid, v[0], v[len(v)-1]}
}

// cell shows a spread; nothing where nothing was measured.
func cell(values []float64, format func(float64) string) string {
	if len(values) == 0 {
		return "-"
	}
	s := spreadOf(values)
	if len(values) == 1 {
		return format(s.median)
	}
	return fmt.Sprintf("**%s** (%s .. %s)", format(s.median), format(s.low), format(s.high))
}

// column is one of a workload's table.
type column struct {
	title  string
	value  func(r *Result) float64
	format func(float64) string
	floor  bool // its ratio to the floor program's is shown
}

func columns(w *workload, r *Result) []column {
	gb := func(r *Result) float64 { return float64(r.Bytes) / 1e9 }
	million := func(r *Result) float64 { return float64(r.Records) / 1e6 }
	if r.Kind == "latency" {
		q := func(title string, of func(r *Result) *Quantiles, at func(q *Quantiles) float64) column {
			return column{title: title, format: microsText, value: func(r *Result) float64 { return at(of(r)) }}
		}
		ack, end := func(r *Result) *Quantiles { return r.Ack }, func(r *Result) *Quantiles { return r.EndToEnd }
		return []column{
			q("acknowledged, p50", ack, func(q *Quantiles) float64 { return q.P50 }),
			q("p99", ack, func(q *Quantiles) float64 { return q.P99 }),
			q("p99.9", ack, func(q *Quantiles) float64 { return q.P999 }),
			q("end to end, p50", end, func(q *Quantiles) float64 { return q.P50 }),
			q("p99", end, func(q *Quantiles) float64 { return q.P99 }),
			q("p99.9", end, func(q *Quantiles) float64 { return q.P999 }),
			{"server CPU, us/record", func(r *Result) float64 { return r.Server.CPU / million(r) }, digits, true},
		}
	}
	all := []column{
		{"MB/s", func(r *Result) float64 { return gb(r) * 1e3 / r.Seconds }, digits, false},
		{"million records/s", func(r *Result) float64 { return million(r) / r.Seconds }, digits, false},
		{"server CPU, s/GB", func(r *Result) float64 { return r.Server.CPU / gb(r) }, digits, true},
		{"s/million records", func(r *Result) float64 { return r.Server.CPU / million(r) }, digits, false},
		{"client CPU, s/GB", func(r *Result) float64 { return r.ClientCPU / gb(r) }, digits, false},
		{"peak RSS", func(r *Result) float64 { return float64(r.Server.PeakRSS) }, mib, false},
	}
	if w.filled {
		return slices.Delete(all, 3, 4)
	}
	return all
}

func mib(bytes float64) string { return digits(bytes/(1<<20)) + " MiB" }

// writeTable shows what the contenders did in one workload, durable ones first.
func writeTable(b *strings.Builder, w *workload, all []*outcome) {
	fmt.Fprintf(b, "## %s\n\n", strings.ToUpper(w.name[:1])+w.name[1:])
	i := slices.IndexFunc(all, func(o *outcome) bool { return len(o.results) > 0 })
	if i < 0 {
		b.WriteString("Nobody could keep up.\n\n")
		return
	}
	cols := columns(w, all[i].results[0])
	b.WriteString("| contender |")
	for _, c := range cols {
		b.WriteString(" " + c.title + " |")
	}
	b.WriteString(" CPU / floor's |\n|---|" + strings.Repeat("---:|", len(cols)+1) + "\n")
	for _, o := range all {
		name := o.name
		if o.durable {
			name += " (durable)"
		}
		if o.behind > 0 {
			name += fmt.Sprintf("; could not keep up in %s", plural(o.behind, "round"))
		}
		fmt.Fprintf(b, "| %s |", name)
		ratio := "-"
		for _, c := range cols {
			values := o.values(&c)
			fmt.Fprintf(b, " %s |", cell(values, c.format))
			if floor := floorOf(all, o.durable); c.floor && floor != nil {
				if r := pairRatio(values, floor.values(&c)); r > 0 {
					ratio = digits(r)
				}
			}
		}
		fmt.Fprintf(b, " %s |\n", ratio)
	}
	b.WriteString("\n")
}

func (o *outcome) values(c *column) (v []float64) {
	for _, r := range o.results {
		v = append(v, c.value(r))
	}
	return v
}

// floorOf finds the floor program that makes the same promise.
func floorOf(all []*outcome, durable bool) *outcome {
	for _, o := range all {
		if o.durable == durable && strings.HasPrefix(o.program, "floor") {
			return o
		}
	}
	return nil
}

// pairRatio is the median of the ratios of neighbours, which had the same machine.
func pairRatio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return spreadOf(ratios).median
}

// footprintTable shows what programs need before any load.
func footprintTable(all []*footprint) string {
	var b strings.Builder
	b.WriteString("## Start and memory\n\n| | start to first answer | idle RSS | idle CPU, share of a core | " +
		"RSS with 1,000 topics | time to make them | RSS with 10,000 connections | time to open them |\n" +
		"|---|" + strings.Repeat("---:|", 7) + "\n")
	ms := func(s float64) string { return digits(s*1e3) + " ms" }
	names := map[string]string{"leat": "Leat", "floor": "floor program", "kafka": "Apache Kafka, already formatted"}
	for _, f := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", names[f.name], cell(f.start, ms), cell(f.idle, mib),
			cell(f.idleCPU, digits), cell(f.topics, mib), cell(f.makeTopics, ms), cell(f.conns, mib), cell(f.openSeconds, ms))
	}
	b.WriteString("\n")
	return b.String()
}

func (s *suite) writeHead(b *strings.Builder) {
	fmt.Fprintf(b, "# Benchmarks\n\nMeasured on %s with `make bench`: %s.\n\n", time.Now().Format(time.DateOnly), machine())
	fmt.Fprintf(b, "Each figure is the median of %d rounds, with the least and the largest one behind it. The contenders take turns on one machine,\n"+
		"and the load generator runs there too, so that CPU tells more than rates do; the machine's speed changes, so that only figures of one\n"+
		"table can be compared. The floor program does the least that a broker must do for its bytes (receive, checksum, write, answer).\n"+
		"\"CPU / floor's\" is the median of the rounds' ratios to the floor program that makes the same promise: durable means that an\n"+
		"acknowledged record is on disk, else it is in the page cache. Every produce run is counted afterwards.\n\n", s.rounds)
	for _, name := range []string{"leat", "floor", "floor-sync", "kafka"} {
		if why := s.missing[name]; why != "" {
			fmt.Fprintf(b, "- %s did not take part: %s.\n", name, why)
		} else {
			fmt.Fprintf(b, "- `%s`\n", strings.TrimSpace(s.programs[name].about))
		}
	}
	b.WriteString("\n")
}

func (s *suite) writeTail(b *strings.Builder) {
	fmt.Fprintf(b, "One run lasts %s, or until %s were produced; one partition, one connection, acks all, values that do not compress.\n",
		s.run, sizeText(float64(s.bytes)))
}

// machine describes the processor and the system.
func machine() string {
	cpu := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimSpace(strings.TrimLeft(name, " \t:"))
				break
			}
		}
	}
	system := runtime.GOOS
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system += " " + strings.TrimSpace(string(release))
	}
	return fmt.Sprintf("%s, %d cores, %s, %s", cpu, runtime.NumCPU(), system, runtime.Version())
}
