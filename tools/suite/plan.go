package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/workload"
)

// A suite says before it starts how long it will take, and goes on saying it: who
// waits for an hour wants to know. What a row took the last time is the best guess.

// plan is the rows that a suite will measure.
type plan struct {
	rows []planned
	left time.Duration // expected of the rows that are not begun
}

// planned is a row with the time that it is expected to take.
type planned struct {
	row
	expected time.Duration
}

// readRate is how many bytes a second an ordinary client gives back, and making the
// topic, syncing the disks and finding memory take turnCosts besides.
const (
	readRate  = 800 << 20
	turnCosts = 700 * time.Millisecond
)

// makePlan lists the rows that are to be measured.
func (s *suite) makePlan() *plan {
	p := &plan{}
	for _, w := range rows() {
		if !s.only.MatchString(w.name) || s.quick && w.long {
			continue
		}
		if taken, ok := s.report.Taken[w.name]; s.resume && ok && taken.Date == s.report.Date {
			continue
		}
		r := planned{row: w, expected: s.guessTime(&w)}
		p.rows = append(p.rows, r)
		p.left += r.expected
	}
	return p
}

// roundsOf are the numbers of a workload's first and last round. Round 0 is not counted: it
// pays for the memory and the compiled code that the first one of its kind has to find. Heavy runs bring the machine
// into motion for seconds; none is thrown away.
func (s *suite) roundsOf(w *row) (first, last int) {
	last = s.rounds
	if w.most > 0 {
		last = min(last, w.most)
	}
	switch {
	case w.once, w.heavy && s.quick:
		return 1, 1
	case w.heavy, w.warms:
		return 1, last
	default:
		return 0, last
	}
}

// guessTime guesses how long a workload takes.
func (s *suite) guessTime(w *row) time.Duration {
	if taken, ok := s.report.Taken[w.name]; ok && taken.Seconds > 0 && taken.like(s.describe(w)) {
		return time.Duration(taken.Seconds * float64(time.Second))
	}
	first, last := s.roundsOf(w)
	turn := w.turn
	switch {
	case turn > 0 && s.quick && w.large:
		turn /= 3 // much of it stays as it is
	case turn > 0:
	case w.warms:
		turn = bench.WarmUp + s.run + turnCosts
	default: // some end before their time, with all bytes; half of them are floor programs' and not read back
		turn = s.run*7/10 + turnCosts + time.Duration(float64(s.bytes)/readRate*float64(time.Second))/2
	}
	rounds := float64(last)
	if first == 0 {
		rounds += 0.4
	}
	one := float64(turn)*rounds + float64(w.warm)
	return time.Duration(one * float64(len(s.runners(w)))).Round(time.Second)
}

// describe says how this run measures a workload.
func (s *suite) describe(w *row) *takenOn {
	t := s.began
	_, t.Rounds = s.roundsOf(w)
	return &t
}

// run measures all rows. One that fails does not keep others from being measured.
func (p *plan) run(ctx context.Context, s *suite) error {
	var failed []error
	began, due := time.Now(), p.left
	s.logf("%s to measure, about %s", bench.FormatCounted(len(p.rows), "workload"), minutes(due))
	for i := range p.rows {
		w := &p.rows[i]
		_, rounds := s.roundsOf(&w.row)
		s.logf("[%d/%d] %s: %s, %s, about %s", i+1, len(p.rows), w.name, bench.FormatCounted(len(s.runners(&w.row)), "contender"),
			bench.FormatCounted(rounds, "round"), minutes(w.expected))
		start := time.Now()
		if err := s.measure(ctx, &w.row); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed = append(failed, fmt.Errorf("%s: %w", w.name, err))
		}
		took := time.Since(start)
		t := s.describe(&w.row)
		t.Seconds = took.Seconds()
		s.report.Taken[w.name] = *t
		if err := s.written(s.report); err != nil {
			return err
		}
		p.left -= w.expected
		// A machine that is slow today stays so.
		pace := float64(time.Since(began)) / float64(max(due-p.left, time.Second))
		s.logf("[%d/%d] took %s; %s in all, about %s to go", i+1, len(p.rows), minutes(took), minutes(time.Since(began)),
			minutes(time.Duration(float64(p.left)*pace)))
	}
	return errors.Join(failed...)
}

// minutes shows a time that matters to people.
func minutes(d time.Duration) string {
	if d = d.Round(time.Second); d < time.Minute {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d:%02d min", d/time.Minute, d%time.Minute/time.Second)
}

// summary is a line about a turn: the workload's first figures.
func (w *row) summary(r *workload.Result) string {
	const most = 4
	var all []string
	for i := range w.figures {
		f := &w.figures[i]
		if v := f.value(r); v == v && len(all) < most { // NaN is no figure
			all = append(all, f.name+": "+f.format(v))
		}
	}
	return strings.Join(all, "; ")
}
