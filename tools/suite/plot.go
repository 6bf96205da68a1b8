package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/bench"
)

// Plots are SVG: a panel a workload, a row a contender. They bring their own paper,
// since the page around may be dark where the system is light and the other way round.

const (
	plotWidth  = 920
	plotLeft   = 320 // where bars begin; names are before
	plotRight  = 730 // where they end; values are behind
	plotSecond = 820 // where a second value stands
	plotRow    = 22
	plotHead   = 34
	plotMargin = 16
)

// plotBeyond is how far a bar's panel reaches beyond the largest median: one round
// that went wrong must not make all bars too short to be compared.
const plotBeyond = 1.25

const plotStyle = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.paper { fill: #ffffff } .head { font-weight: 600 } .dim { fill: #59636e }
.line { stroke: #1f2328; stroke-opacity: .6; stroke-width: 1.5; fill: none } .grid { stroke: #8c959f; stroke-opacity: .35 }
.leat { fill: #0969da } .floor { fill: #8c959f } .kafka { fill: #e5534b } .nats { fill: #2da44e }
@media (prefers-color-scheme: dark) {
 text { fill: #f0f6fc } .paper { fill: #0d1117 } .dim { fill: #9198a1 } .line { stroke: #f0f6fc }
 .leat { fill: #4493f8 } .floor { fill: #6e7681 } .kafka { fill: #da3633 } .nats { fill: #238636 }
}
</style>
`

// plot is a drawing that grows downwards.
type plot struct {
	b strings.Builder
	y int
}

func (p *plot) text(x int, class, anchor, s string) {
	fmt.Fprintf(&p.b, "<text x=%q y=%q class=%q text-anchor=%q>%s</text>\n", fmt.Sprint(x), fmt.Sprint(p.y+15), class, anchor, html.EscapeString(s))
}

func (p *plot) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&p.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

func (p *plot) dot(x, r float64, class, title string) {
	fmt.Fprintf(&p.b, `<circle cx="%.1f" cy="%d" r="%.1f" class="%s"><title>%s</title></circle>`+"\n", x, p.y+plotRow/2, r, class, html.EscapeString(title))
}

func (p *plot) head(s string) {
	p.y += plotMargin
	p.text(plotMargin, "head", "start", s)
	p.y += plotHead - plotMargin
}

func (p *plot) String() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d">`+
		"\n%[3]s<path d=\"M0 0h%[1]dv%[2]dH0z\" class=\"paper\"/>\n%[4]s</svg>\n",
		plotWidth, p.y+plotMargin, plotStyle, p.b.String())
}

// bars draws a figure's medians, with the least and the largest value as a line.
func (r *report) bars(p *plot, workload string, f *figure) {
	most, high := 0.0, 0.0
	for _, c := range contenders() {
		s := spreadOf(r.values(workload, c.name, f.name))
		most, high = max(most, s.median), max(high, s.high)
	}
	if most <= 0 {
		return
	}
	most = min(high, most*plotBeyond)
	p.head(capital(workload) + ": " + f.name)
	at := func(v float64) float64 { return plotLeft + v/most*(plotRight-plotLeft) }
	unit := f.name[strings.LastIndex(f.name, ", ")+1:]
	for _, c := range contenders() {
		s := spreadOf(r.values(workload, c.name, f.name))
		if s.median < 0 {
			continue
		}
		p.text(plotLeft-8, "", "end", c.title)
		fmt.Fprintf(&p.b, `<rect x="%d" y="%d" width="%.1f" height="%d" class="%s"/>`+"\n", plotLeft, p.y+4, at(s.median)-plotLeft, plotRow-8, c.class())
		p.whisker(at(s.low), at(s.high))
		p.text(plotRight+8, "", "start", f.format(s.median)+" "+strings.TrimSpace(unit))
		p.y += plotRow
	}
}

// whisker draws a line between two values, with an end to each that is inside the panel.
func (p *plot) whisker(low, high float64) {
	const end = 4
	middle := float64(p.y) + plotRow/2
	p.line(low, middle, min(high, plotRight), middle, "line")
	p.line(low, middle-end, low, middle+end, "line")
	if high <= plotRight {
		p.line(high, middle-end, high, middle+end, "line")
	} else { // it goes on
		p.line(plotRight-end, middle-end, plotRight, middle, "line")
		p.line(plotRight-end, middle+end, plotRight, middle, "line")
	}
}

// times draws quantiles on a logarithmic axis: a large dot for p50, smaller ones
// for the others, up to the largest value.
func (r *report) times(p *plot, workload string, quantiles []figure) {
	low, high := math.Inf(1), 0.0
	for _, c := range contenders() {
		for i := range quantiles {
			if v := spreadOf(r.values(workload, c.name, quantiles[i].name)).median; v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if high == 0 {
		return
	}
	first, last := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high)+1e-9)
	at := func(v float64) float64 { return plotLeft + (math.Log10(v)-first)/(last-first)*(plotRight-plotLeft) }
	kind, _, _ := strings.Cut(quantiles[0].name, ",")
	p.head(capital(workload) + ": " + kind)
	p.text(plotLeft, "dim", "start", "p50 (large), p90, p99, p99.9, max")
	p.text(plotRight+8, "dim", "start", "p50")
	p.text(plotSecond, "dim", "start", "p99")
	p.y += plotRow
	top := float64(p.y)
	for _, c := range contenders() {
		if spreadOf(r.values(workload, c.name, quantiles[0].name)).median <= 0 {
			continue
		}
		p.text(plotLeft-8, "", "end", c.title)
		var x []float64
		for i := range quantiles {
			if v := spreadOf(r.values(workload, c.name, quantiles[i].name)).median; v > 0 {
				x = append(x, at(v))
			}
		}
		middle := float64(p.y) + plotRow/2
		p.line(slices.Min(x), middle, slices.Max(x), middle, "line")
		for i := range quantiles {
			v := spreadOf(r.values(workload, c.name, quantiles[i].name)).median
			if v <= 0 {
				continue
			}
			radius := 3.0
			if i == 0 {
				radius = 6
			}
			p.dot(at(v), radius, c.class(), quantiles[i].name+": "+bench.FormatMicros(v))
		}
		p.text(plotRight+8, "", "start", medianText(r.values(workload, c.name, quantiles[quantileP50].name)))
		p.text(plotSecond, "", "start", medianText(r.values(workload, c.name, quantiles[quantileP99].name)))
		p.y += plotRow
	}
	for e := first; e <= last; e++ {
		p.line(at(math.Pow(10, e)), top, at(math.Pow(10, e)), float64(p.y), "grid")
		p.text(int(at(math.Pow(10, e))), "dim", "middle", decadeText(e))
	}
	p.y += plotRow
}

// medianText is a time's median, nothing where it was not measured.
func medianText(values []float64) string {
	if s := spreadOf(values); s.median > 0 {
		return bench.FormatMicros(s.median)
	}
	return ""
}

// decadeText names a power of ten of microseconds.
func decadeText(e float64) string {
	switch {
	case e < 3:
		return fmt.Sprintf("%.0f us", math.Pow(10, e))
	case e < 6:
		return fmt.Sprintf("%.0f ms", math.Pow(10, e-3))
	default:
		return fmt.Sprintf("%.0f s", math.Pow(10, e-6))
	}
}

// class is the contender's colour.
func (c *contender) class() string {
	switch c.program {
	case programLeat, programBefore:
		return "leat"
	case programKafka:
		return "kafka"
	case programNATS:
		return "nats"
	default:
		return "floor"
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// plots are the drawings of a report by their files' names; one without figures is
// left out.
func (r *report) plots() map[string]string {
	all := map[string]string{}
	add := func(name string, draw func(p *plot)) {
		p := &plot{}
		if draw(p); p.y > 0 {
			all[name] = p.String()
		}
	}
	cpu, rate, record := cpuByteFigure(), rateFigure(), cpuRecordFigure()
	add("cpu.svg", func(p *plot) {
		r.bars(p, produceBatches, &cpu)
		r.bars(p, produceSmall, &record)
		r.bars(p, produceWide, &cpu)
		r.bars(p, consumeLarge, &cpu)
		r.bars(p, consumeSmall, &cpu)
	})
	add("rates.svg", func(p *plot) {
		r.bars(p, produceBatches, &rate)
		r.bars(p, produceSmall, &rate)
		r.bars(p, produceWide, &rate)
		r.bars(p, consumeLarge, &rate)
		r.bars(p, consumeSmall, &rate)
	})
	add("latency.svg", func(p *plot) {
		for _, w := range []string{latencySmall, latencyLarge} {
			r.times(p, w, endFigures())
			r.times(p, w, ackFigures())
		}
	})
	return all
}
