package cli

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// How often the view is drawn on a terminal, and how often a line is written elsewhere.
const (
	drawEvery = 250 * time.Millisecond
	lineEvery = time.Second
)

// latencies is a histogram of durations: eight steps for each doubling, so that a
// quantile is right to an eighth. Any goroutine may add.
type latencies struct {
	n [64 * latencySteps]atomic.Int64
}

const latencySteps = 8

func (l *latencies) add(d time.Duration) {
	l.n[latencyBucket(uint64(max(d, latencySteps)))].Add(1)
}

// latencyBucket numbers the bucket of ns >= latencySteps.
func latencyBucket(ns uint64) int {
	e := bits.Len64(ns) - 4 // of the step, of which there are 8 to 15 in ns
	return e*latencySteps + int(ns>>e) - latencySteps
}

// bucketTop is the duration at which the bucket ends.
func bucketTop(i int) time.Duration {
	return time.Duration((i%latencySteps + latencySteps + 1) << (i / latencySteps))
}

// counts is a copy of the histogram at one moment.
func (l *latencies) counts() (c [64 * latencySteps]int64) {
	for i := range l.n {
		c[i] = l.n[i].Load()
	}
	return c
}

// quantile is the duration that the part q of what came between two moments did not
// exceed; 0 where nothing came.
func quantile(before, after *[64 * latencySteps]int64, q float64) time.Duration {
	var total int64
	for i := range after {
		total += after[i] - before[i]
	}
	if total == 0 {
		return 0
	}
	left := int64(q*float64(total)) + 1
	for i := range after {
		if left -= after[i] - before[i]; left <= 0 {
			return bucketTop(i)
		}
	}
	return bucketTop(len(after) - 1)
}

// moment is what the statistics were at one time.
type moment struct {
	at                      time.Time
	produced, producedBytes int64
	consumed, consumedBytes int64
	latency                 [64 * latencySteps]int64
}

func (s *demoStats) moment() moment {
	// Consumed before produced, so that the lag is never negative for want of a lock.
	m := moment{at: time.Now(), consumed: s.consumed.Load(), consumedBytes: s.consumedBytes.Load()}
	m.produced, m.producedBytes = s.produced.Load(), s.producedBytes.Load()
	m.latency = s.latency.counts()
	return m
}

// flow is what happened between two moments.
type flow struct {
	recordsIn, recordsOut float64 // a second
	bytesIn, bytesOut     float64
	totalIn, totalOut     int64
	lag                   int64
	p50, p99              time.Duration
}

func between(a, b *moment) flow {
	s := max(b.at.Sub(a.at).Seconds(), 1e-9)
	return flow{
		recordsIn: float64(b.produced-a.produced) / s, recordsOut: float64(b.consumed-a.consumed) / s,
		bytesIn: float64(b.producedBytes-a.producedBytes) / s, bytesOut: float64(b.consumedBytes-a.consumedBytes) / s,
		totalIn: b.produced, totalOut: b.consumed, lag: max(b.produced-b.consumed, 0),
		p50: quantile(&a.latency, &b.latency, 0.5), p99: quantile(&a.latency, &b.latency, 0.99),
	}
}

// watch draws the statistics until ctx ends or failed is closed.
func (a *app) watch(ctx context.Context, stats *demoStats, failed <-chan struct{}) {
	_, person := terminalWidth(a.out)
	every := lineEvery
	if person {
		every = drawEvery
	}
	v := demoView{out: a.out, addr: a.bootstrap}
	if !person {
		v.begin()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	// Rates are over the last second, also where the view is drawn more often.
	past := []moment{stats.moment()}
	for {
		select {
		case <-ctx.Done():
			return
		case <-failed:
			return
		case <-tick.C:
		}
		past = append(past, stats.moment())
		if over := len(past) - 1 - int(lineEvery/every); over > 0 {
			past = past[over:]
		}
		f := between(&past[0], &past[len(past)-1])
		if person {
			columns, rows, _ := terminalSize(a.out) // it may have been resized
			v.draw(f, columns, rows)
		} else {
			v.line(f)
		}
	}
}

// demoView writes what a person sees. Nothing is done about an output that cannot be
// written to: the demo ends with Ctrl-C or with its time.
type demoView struct {
	out           io.Writer
	addr          string
	columns, rows int // of the terminal when the last picture was drawn
	drawn         int // lines of the last picture
}

// fullColumns and fullRows are what the picture with a table needs.
const (
	fullColumns = 62
	fullRows    = 15
)

// invitation is how one's own client joins in.
func (v *demoView) invitation() string {
	return fmt.Sprintf("Point your own client at %s, topic %s. For example:\n  leat consume %s --bootstrap %s", v.addr, demoTopic, demoTopic, v.addr)
}

func (v *demoView) begin() { _, _ = fmt.Fprintln(v.out, v.invitation()) }

func (v *demoView) line(f flow) {
	_, _ = fmt.Fprintf(v.out, "in %s records/s %s/s, out %s records/s %s/s, lag %s, end to end p50 %s p99 %s, %s records so far\n",
		number(int64(f.recordsIn)), size(f.bytesIn), number(int64(f.recordsOut)), size(f.bytesOut), number(f.lag),
		duration(f.p50), duration(f.p99), number(f.totalOut))
}

// draw replaces the last picture, and fits it into a terminal of this size.
func (v *demoView) draw(f flow, columns, rows int) {
	picture := v.full(f)
	if columns < fullColumns || rows < fullRows {
		picture = v.compact(f)
	}
	lines := strings.Split(picture, "\n")
	// The last row is for the cursor: a picture as high as the terminal would scroll.
	picture = strings.Join(lines[:min(len(lines), max(1, rows-1))], "\n")
	picture = lipgloss.NewStyle().MaxWidth(columns).Render(picture)
	switch {
	case v.drawn == 0:
	case columns != v.columns || rows != v.rows:
		// Terminals set the lines of a picture anew when they are resized, each in its own way.
		_, _ = fmt.Fprint(v.out, "\x1b[H\x1b[2J")
	default:
		// Apart, because lipgloss leaves out what a terminal without colours cannot show.
		_, _ = fmt.Fprintf(v.out, "\x1b[%dA\r\x1b[J", v.drawn)
	}
	v.columns, v.rows, v.drawn = columns, rows, strings.Count(picture, "\n")+1
	_, _ = lipgloss.Fprintln(v.out, picture)
}

var (
	accent = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Color("6"))
	faint  = lipgloss.NewStyle().Faint(true)
)

// full is the picture with a table.
func (v *demoView) full(f flow) string {
	row := func(name string, records, bytes float64, total int64) []string {
		return []string{name, number(int64(records)), size(bytes), number(total)}
	}
	t := table.New().Border(lipgloss.RoundedBorder()).BorderStyle(faint).
		Headers("", "records/s", "bytes/s", "records so far").
		Row(row("in", f.recordsIn, f.bytesIn, f.totalIn)...).
		Row(row("out", f.recordsOut, f.bytesOut, f.totalOut)...).
		StyleFunc(func(r, col int) lipgloss.Style {
			s := lipgloss.NewStyle().Padding(0, 1)
			if col > 0 {
				s = s.Align(lipgloss.Right).Width(16)
			}
			if r == table.HeaderRow {
				return s.Faint(true)
			}
			return s
		})
	return accent.Render("leat demo") + faint.Render("  a web site's access log, keyed by client address, through one node") + "\n\n" +
		t.Render() + "\n" +
		fmt.Sprintf("  lag %s   end to end p50 %s  p99 %s\n\n", accent.Render(number(f.lag)), accent.Render(duration(f.p50)), accent.Render(duration(f.p99))) +
		v.invitation() + "\n" + faint.Render("Ctrl-C ends it.")
}

// compact is the picture for a small terminal. Its command is broken where a shell goes on, so
// that it can be copied.
func (v *demoView) compact(f flow) string {
	return accent.Render("leat demo") + faint.Render(" on "+v.addr) + "\n" +
		fmt.Sprintf("in  %s records/s, %s/s\n", number(int64(f.recordsIn)), size(f.bytesIn)) +
		fmt.Sprintf("out %s records/s, %s/s\n", number(int64(f.recordsOut)), size(f.bytesOut)) +
		fmt.Sprintf("lag %s, p50 %s, p99 %s\n", accent.Render(number(f.lag)), accent.Render(duration(f.p50)), accent.Render(duration(f.p99))) +
		fmt.Sprintf("leat consume %s \\\n  --bootstrap %s\n", demoTopic, v.addr) +
		faint.Render("Ctrl-C ends it.")
}
