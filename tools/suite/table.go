package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/bench"
)

// spread is a figure's median, least and largest value in some rounds.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	v := slices.DeleteFunc(slices.Sorted(slices.Values(values)), func(x float64) bool { return x < 0 })
	if len(v) == 0 {
		return spread{unmeasured, unmeasured, unmeasured}
	}
	mid := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return spread{mid, v[0], v[len(v)-1]}
}

// cell shows a spread; nothing where nothing was measured.
func cell(values []float64, format func(float64) string) string {
	s := spreadOf(values)
	switch {
	case s.median < 0:
		return "-"
	case s.low == s.high:
		return format(s.median)
	default:
		return fmt.Sprintf("**%s** (%s .. %s)", format(s.median), format(s.low), format(s.high))
	}
}

// pairRatio is the median of the ratios of neighbours, which had the same machine.
func pairRatio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if a[i] >= 0 && b[i] > 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return spreadOf(ratios).median
}

// kept begins the text that people have written at a document's end.
const kept = "<!-- make bench writes all above this line and keeps what is below. -->"

// document is the whole report for people; plots are in dir, "" for none.
func (r *report) document(dir string) string {
	var b strings.Builder
	r.writeHead(&b)
	r.writeClaims(&b)
	if plots := r.plots(); dir != "" && len(plots) > 0 {
		b.WriteString("## Plots\n\n")
		for _, name := range slices.Sorted(maps.Keys(plots)) {
			fmt.Fprintf(&b, "![%s](%s)\n\n", strings.TrimSuffix(name, ".svg"), dir+"/"+name)
		}
	}
	r.writeHow(&b)
	for _, w := range rows() {
		r.writeWorkload(&b, &w)
	}
	return b.String() + kept + "\n"
}

func (r *report) writeHead(b *strings.Builder) {
	fmt.Fprintf(b, "# Benchmarks\n\nMeasured on %s with `%s`: %s.\n\n", r.day(), r.Command, r.Machine)
	fmt.Fprintf(b, `Each figure is the median of %s, or of as many as stand above its table, in which the contenders take turns on one machine
(A B C A B C ...); behind it stand the least and the largest one. The load generator runs there too, so that server CPU tells more than
rates do, and the machine's speed changes, so that only ratios are compared: each is the median of the rounds' own ratios. The *floor* is
a program that does only what a broker must do for its bytes (receive, checksum, write, answer). Durable means that an acknowledged
record is on disk; else it is in the page cache.

`, bench.FormatCounted(r.Rounds, "round"))
}

// day is the date without the time.
func (t *takenOn) day() string {
	day, _, _ := strings.Cut(t.Date, " ")
	return day
}

// writeClaims writes the headline table.
func (r *report) writeClaims(b *strings.Builder) {
	b.WriteString("## Targets\n\n\"of the floor\" is Leat's figure divided by the floor's, and \"better than Kafka\" says how many times.\n\n" +
		"| # | workload | figure | Leat | floor | Apache Kafka | of the floor | target | better than Kafka | target | |\n" +
		"|---|---|---|" + strings.Repeat("---:|", 7) + "---|\n")
	for _, c := range claims() {
		f := &c.figure
		leat := r.values(c.workload, c.leat, f.name)
		if spreadOf(leat).median < 0 {
			continue
		}
		floor, kafka := r.values(c.workload, c.floor, f.name), r.values(c.workload, c.kafka, f.name)
		title := c.title
		if title == "" {
			title = c.workload
		}
		ratio, better := pairRatio(leat, floor), pairRatio(leat, kafka)
		if f.less {
			better = pairRatio(kafka, leat)
		}
		cells := []string{
			c.row, title, f.name, cell(leat, f.format), cell(floor, f.format), cell(kafka, f.format),
			ratioText(ratio), floorTarget(&c), ratioText(better), kafkaTarget(&c), c.mark(spreadOf(leat).median, ratio, better),
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	b.WriteString("\n")
}

func ratioText(ratio float64) string {
	if ratio < 0 {
		return "-"
	}
	return bench.FormatDigits(ratio) + "x"
}

func floorTarget(c *claim) string {
	switch {
	case c.most > 0:
		return "<= " + c.figure.format(c.most) + " itself"
	case c.least > 0:
		return ">= " + c.figure.format(c.least) + " itself"
	case c.toFloor == 0:
		return ""
	case c.figure.less:
		return "<= " + bench.FormatDigits(c.toFloor)
	default:
		return ">= " + bench.FormatDigits(c.toFloor)
	}
}

func kafkaTarget(c *claim) string {
	if c.toKafka == 0 {
		return ""
	}
	return ">= " + bench.FormatDigits(c.toKafka)
}

// mark says whether the targets are met, and by how much they are missed.
func (c *claim) mark(value, ratio, better float64) string {
	var missed, unknown []string
	// short is by which part a target is missed, 0 or less where it is met.
	judge := func(whom string, target, got, short float64) {
		switch {
		case target == 0:
		case got < 0:
			unknown = append(unknown, whom)
		case short > 0:
			missed = append(missed, fmt.Sprintf("%s by %s", whom, missText(short)))
		}
	}
	short := ratio/c.toFloor - 1
	if !c.figure.less {
		short = c.toFloor/ratio - 1
	}
	judge("the floor's", c.toFloor, ratio, short)
	judge("Kafka's", c.toKafka, better, c.toKafka/better-1)
	judge("its own", c.most, value, value/c.most-1)
	judge("its own", c.least, value, c.least/value-1)
	switch {
	case len(missed) > 0:
		return "**missed** " + strings.Join(missed, ", ")
	case len(unknown) > 0:
		return strings.Join(unknown, ", ") + " not measured"
	case c.toFloor == 0 && c.toKafka == 0 && c.most == 0 && c.least == 0:
		return ""
	default:
		return "met"
	}
}

// missText is 12 % or 2.4x.
func missText(short float64) string {
	if short >= 1 || math.IsInf(short, 1) {
		return bench.FormatDigits(short+1) + "x"
	}
	return fmt.Sprintf("%.0f %%", max(1, math.Round(short*100)))
}

// writeHow tells how the figures came about.
func (r *report) writeHow(b *strings.Builder) {
	b.WriteString("## Contenders\n\n")
	for _, p := range r.Programs {
		if p.Missing != "" {
			fmt.Fprintf(b, "- %s did not take part: %s.\n", p.Name, p.Missing)
		} else {
			fmt.Fprintf(b, "- %s: `%s`\n", p.Name, p.Command)
		}
	}
	fmt.Fprintf(b, "\nOne run lasts %s, or until %s were produced; acks all, values that do not compress, one partition and one connection where\n"+
		"nothing else is said. The first round is not counted.\n", r.Run, bench.FormatSize(float64(r.MostBytes)))
	if r.NoCalls != "" {
		fmt.Fprintf(b, "System calls were not counted: %s.\n", r.NoCalls)
	}
	var left []string
	for _, w := range rows() {
		if len(r.Workloads[w.name]) == 0 {
			left = append(left, w.name)
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(b, "Not measured: %s.\n", strings.Join(left, "; "))
	}
	b.WriteString("\n")
}

// writeNotes writes how a table was measured, if otherwise than the rest, and its row's note.
func (r *report) writeNotes(b *strings.Builder, w *row) {
	var notes []string
	if t := r.Taken[w.name]; t.Rounds > 0 {
		if t.Date != r.Date {
			notes = append(notes, "Measured on "+t.day()+" by another run.")
		}
		if t.Rounds != r.Rounds {
			notes = append(notes, fmt.Sprintf("Measured in %s.", bench.FormatCounted(t.Rounds, "round")))
		}
		if t.Run != r.Run || t.MostBytes != r.MostBytes {
			notes = append(notes, fmt.Sprintf("One run lasts %s, or until %s were produced.", t.Run, bench.FormatSize(float64(t.MostBytes))))
		}
	}
	if w.note != "" {
		notes = append(notes, w.note)
	}
	if len(notes) > 0 {
		b.WriteString(strings.Join(notes, " ") + "\n\n")
	}
}

// writeWorkload writes the table of one workload.
func (r *report) writeWorkload(b *strings.Builder, w *row) {
	all := r.Workloads[w.name]
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n", capital(w.name))
	r.writeNotes(b, w)
	b.WriteString("| contender |")
	for _, f := range w.figures {
		b.WriteString(" " + f.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(w.figures)) + "\n")
	for _, c := range contenders() {
		s := all[c.name]
		if s == nil {
			continue
		}
		name := c.title
		if s.Behind > 0 {
			name += fmt.Sprintf("; could not keep up in %s", bench.FormatCounted(s.Behind, "round"))
		}
		if s.Why != "" {
			name += "; " + s.Why
		}
		fmt.Fprintf(b, "| %s |", name)
		for _, f := range w.figures {
			fmt.Fprintf(b, " %s |", cell(s.Figures[f.name], f.format))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}
