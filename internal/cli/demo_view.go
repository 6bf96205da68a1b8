package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"

	"github.com/leatstream/leat/internal/cli/phrase"
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

func (l *latencies) addLatency(d time.Duration) {
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

// copyCounts is a copy of the histogram at one moment.
func (l *latencies) copyCounts() (c [64 * latencySteps]int64) {
	for i := range l.n {
		c[i] = l.n[i].Load()
	}
	return c
}

// findQuantile is the duration that the fraction q of the durations added between two copies do not
// exceed; it is 0 if none was added.
func findQuantile(before, after *[64 * latencySteps]int64, q float64) time.Duration {
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

// demoSample holds the statistics of one moment.
type demoSample struct {
	at                      time.Time
	produced, producedBytes int64
	consumed, consumedBytes int64
	latency                 [64 * latencySteps]int64
}

func (s *demoStats) takeSample() demoSample {
	// Consumed is read before produced, so that the lag is never negative although there is no lock.
	m := demoSample{at: time.Now(), consumed: s.consumed.Load(), consumedBytes: s.consumedBytes.Load()}
	m.produced, m.producedBytes = s.produced.Load(), s.producedBytes.Load()
	m.latency = s.latency.copyCounts()
	return m
}

// flow describes what happened between two samples.
type flow struct {
	recordsIn, recordsOut float64 // a second
	bytesIn, bytesOut     float64
	totalIn, totalOut     int64
	lag                   int64
	p50, p99              time.Duration
}

func flowBetween(a, b *demoSample) flow {
	s := max(b.at.Sub(a.at).Seconds(), 1e-9)
	return flow{
		recordsIn: float64(b.produced-a.produced) / s, recordsOut: float64(b.consumed-a.consumed) / s,
		bytesIn: float64(b.producedBytes-a.producedBytes) / s, bytesOut: float64(b.consumedBytes-a.consumedBytes) / s,
		totalIn: b.produced, totalOut: b.consumed, lag: max(b.produced-b.consumed, 0),
		p50: findQuantile(&a.latency, &b.latency, 0.5), p99: findQuantile(&a.latency, &b.latency, 0.99),
	}
}

// drawDemo draws the statistics until ctx ends, failed is closed, or nobody sees them any more.
func (a *app) drawDemo(ctx context.Context, stats *demoStats, failed <-chan struct{}, nodes *demoNodes) error {
	_, person := terminalWidth(a.out)
	every := lineEvery
	if person {
		every = drawEvery
	}
	addr, _, _ := strings.Cut(a.bootstrap, ",") // any node serves
	v := demoView{out: a.out, addr: addr, program: programName(os.Args[0]), nodes: nodes}
	if !person {
		if err := v.writeInvitation(); err != nil {
			return err
		}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	// Rates cover the last second, even if the view is drawn more often.
	past := []demoSample{stats.takeSample()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-failed:
			return nil
		case <-tick.C:
		}
		past = append(past, stats.takeSample())
		if over := len(past) - 1 - int(lineEvery/every); over > 0 {
			past = past[over:]
		}
		f := flowBetween(&past[0], &past[len(past)-1])
		var err error
		if person {
			columns, rows, _ := terminalSize(a.out) // it may have been resized
			err = v.drawPicture(f, columns, rows)
		} else {
			err = v.writeLine(f)
		}
		if err != nil {
			return err
		}
	}
}

// demoView writes what the user sees.
type demoView struct {
	out           io.Writer
	addr          string
	program       string // runs leat
	nodes         *demoNodes
	columns, rows int // of the terminal when the last picture was drawn
	drawn         int // lines of the last picture
}

// fullColumns and fullRows are what the picture with a table needs.
const (
	fullColumns = 62
	fullRows    = 15
)

// invitationText tells how the user's own client joins in.
func (v *demoView) invitationText(columns int) string {
	return fmt.Sprintf("Point your own client at %s, topic %s. For example:\n  %s", v.addr, demoTopic, v.commandText(columns-len("  ")))
}

// commandText is a command that reads the demo's topic. If it is too long for a line of so many columns it is split with
// a backslash, so that it can still be copied.
func (v *demoView) commandText(columns int) string {
	command := fmt.Sprintf("%s consume %s --bootstrap %s", v.program, demoTopic, v.addr)
	if len(command) > columns {
		command = strings.Replace(command, " --bootstrap", " \\\n    --bootstrap", 1)
	}
	return command
}

func (v *demoView) writeInvitation() error {
	_, err := fmt.Fprintln(v.out, v.invitationText(math.MaxInt))
	return err
}

func (v *demoView) writeLine(f flow) error {
	nodes := ""
	if v.nodes != nil {
		nodes = strings.TrimSpace("; " + v.nodes.states() + ". " + v.nodes.report())
	}
	_, err := fmt.Fprintf(v.out, "in %s records/s %s/s, out %s records/s %s/s, lag %s, end to end p50 %s p99 %s, %s records so far%s\n",
		formatNumber(int64(f.recordsIn)), formatSize(f.bytesIn), formatNumber(int64(f.recordsOut)), formatSize(f.bytesOut), formatNumber(f.lag),
		formatDuration(f.p50), formatDuration(f.p99), formatNumber(f.totalOut), nodes)
	return err
}

// drawPicture replaces the last picture, and fits it into a terminal of this size.
func (v *demoView) drawPicture(f flow, columns, rows int) error {
	picture := v.fullPicture(f, columns)
	if columns < fullColumns || rows < fullRows || v.nodes != nil && rows <= strings.Count(picture, "\n")+1 {
		picture = v.compactPicture(f, columns)
	}
	lines := strings.Split(picture, "\n")
	// The last row is for the cursor: a picture as high as the terminal would scroll.
	picture = strings.Join(lines[:min(len(lines), max(1, rows-1))], "\n")
	picture = lipgloss.NewStyle().MaxWidth(columns).Render(picture)
	switch {
	case v.drawn == 0:
	case columns != v.columns || rows != v.rows:
		// A terminal that is resized rearranges the lines of the old picture in its own way: clear it all.
		_, _ = fmt.Fprint(v.out, "\x1b[H\x1b[2J")
	default:
		// It is written apart from the picture, because lipgloss drops such codes for terminals without colours.
		_, _ = fmt.Fprintf(v.out, "\x1b[%dA\r\x1b[J", v.drawn)
	}
	v.columns, v.rows, v.drawn = columns, rows, strings.Count(picture, "\n")+1
	// While keys are read the terminal does not return its carriage by itself.
	_, err := lipgloss.Fprint(v.out, strings.ReplaceAll(picture, "\n", "\r\n")+"\r\n")
	return err
}

var (
	accent = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Color("6"))
	faint  = lipgloss.NewStyle().Faint(true)
)

// fullPicture is the picture with a table.
func (v *demoView) fullPicture(f flow, columns int) string {
	row := func(name string, records, bytes float64, total int64) []string {
		return []string{name, formatNumber(int64(records)), formatSize(bytes), formatNumber(total)}
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
	through, end := "one node", faint.Render("Ctrl-C ends it.")
	if v.nodes != nil {
		through = formatCount(len(v.nodes.cluster.Nodes()), "node")
		end = "\n" + v.nodes.table() + v.reportLines(columns, 2) + faint.Render(v.nodes.keysText())
	}
	return accent.Render("leat demo") + faint.Render("  a web site's access log, keyed by client address, through "+through) + "\n\n" +
		t.Render() + "\n" +
		fmt.Sprintf("  lag %s   end to end p50 %s  p99 %s\n\n", accent.Render(formatNumber(f.lag)), accent.Render(formatDuration(f.p50)), accent.Render(formatDuration(f.p99))) +
		v.invitationText(columns) + "\n" + end
}

// reportLines is the report about the node that was killed, in so many lines, which may be empty.
func (v *demoView) reportLines(columns, count int) string {
	lines := strings.Split(phrase.Wrap(v.nodes.report(), columns), "\n")
	for len(lines) < count {
		lines = append(lines, "")
	}
	return strings.Join(lines, "\n") + "\n"
}

// compactPicture is the picture for a small terminal. Its command is always split.
func (v *demoView) compactPicture(f flow, columns int) string {
	end := v.commandText(0) + "\n" + faint.Render("Ctrl-C ends it.")
	if v.nodes != nil {
		end = v.nodes.states() + "\n" + v.reportLines(columns, 1) + faint.Render(v.nodes.keysText())
	}
	return accent.Render("leat demo") + faint.Render(" on "+v.addr) + "\n" +
		fmt.Sprintf("in  %s records/s, %s/s\n", formatNumber(int64(f.recordsIn)), formatSize(f.bytesIn)) +
		fmt.Sprintf("out %s records/s, %s/s\n", formatNumber(int64(f.recordsOut)), formatSize(f.bytesOut)) +
		fmt.Sprintf("lag %s, p50 %s, p99 %s\n", accent.Render(formatNumber(f.lag)), accent.Render(formatDuration(f.p50)), accent.Render(formatDuration(f.p99))) +
		end
}
