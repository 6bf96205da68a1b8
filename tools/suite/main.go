// Suite compares Leat with the floor program, Apache Kafka and NATS on one machine, and
// writes a document in Markdown. scripts/bench.sh builds the programs and runs it;
// CONTRIBUTING.md says how.
//
//	suite [-quick] [-only EXPRESSION] [-resume] [-out FILE.md]
//
// Rows (rows.go) are workloads with the contenders that take part; a contender is a
// program (programs.go) with the settings of its topics. A suite (suite.go) measures
// them in the order of a plan (plan.go) and fills a report (report.go), which becomes
// tables (table.go), targets (claims.go) and plots (plot.go). Package workload has the
// measurements beyond those of "leat bench", package cluster those of clusters of three
// nodes (clusters.go), package nats those of NATS, package server the processes, and floor
// is the least that a broker must do. Everything runs on one
// goroutine, since two measurements at a time would measure one another.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

var errNoLinux = errors.New("the suite needs Linux: it reads the servers' CPU and memory from /proc")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) //nolint:forbidigo // this is a main
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

// settings of the command line.
type flags struct {
	places
	dir, out, only string
	rounds         int
	quick, resume  bool
	run            time.Duration
	mebibytes      int64
}

// parseFlags reads the command line.
func parseFlags(args []string, stderr io.Writer) (*flags, error) {
	beside := "bin"
	if exe, err := os.Executable(); err == nil {
		beside = filepath.Dir(exe)
	}
	f := &flags{}
	set := flag.NewFlagSet("suite", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.leat, "leat", filepath.Join(beside, "leat"), "the leat program")
	set.StringVar(&f.before, "before", "", "another leat program, measured in turns with the first: what a change costs or gains")
	set.StringVar(&f.floor, "floor", filepath.Join(beside, "floor"), "the floor program")
	set.StringVar(&f.kafka, "kafka-home", os.Getenv("KAFKA_HOME"), "directory of Apache Kafka, whose libs has its jars")
	set.StringVar(&f.nats, "nats", "nats-server", "the nats-server program")
	set.StringVar(&f.dir, "dir", "", "directory for the servers' data (default: a temporary one)")
	set.StringVar(&f.out, "out", "", "file to write, with the figures and plots in a directory beside it (default: to the terminal)")
	set.StringVar(&f.only, "only", "", "run only the workloads that match this expression, say ^consume")
	set.IntVar(&f.rounds, "rounds", 0, "how often each measurement is taken (default: 5, or 3 with -quick)")
	set.DurationVar(&f.run, "run", 0, "how long one run lasts (default: 3s, or 1s with -quick)")
	set.Int64Var(&f.mebibytes, "mib", 0, "MiB that one run produces at most (default: 2048, or 512 with -quick)")
	set.BoolVar(&f.quick, "quick", false, "short runs and fewer of them: less than ten minutes")
	set.BoolVar(&f.resume, "resume", false, "leave out the workloads that the last run into the same -out, which was cut, has measured")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", set.Arg(0))
	}
	return f, nil
}

// run runs the suite that the arguments ask for.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	if runtime.GOOS != "linux" {
		return errNoLinux
	}
	s, err := f.newSuite(stderr)
	if err != nil {
		return err
	}
	old, beside := &report{}, strings.TrimSuffix(f.out, filepath.Ext(f.out))
	if f.out != "" {
		if err := os.MkdirAll(beside, 0o755); err != nil {
			return err
		}
		results := filepath.Join(beside, "results.json")
		if old, err = loadReport(results); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		s.written = func(r *report) error { return errors.Join(r.save(results), r.write(f.out, beside)) }
	}
	s.report = s.newReport(old, "scripts/bench.sh "+strings.Join(args, " "), f.only != "" || f.resume)
	if err := s.runAll(ctx, f.dir); err != nil {
		return err
	}
	if f.out != "" {
		return nil // it was written after each workload
	}
	_, err = io.WriteString(stdout, s.report.document(""))
	return err
}

// newSuite is a suite as the flags want it.
func (f *flags) newSuite(log io.Writer) (*suite, error) {
	s := &suite{rounds: 5, run: 3 * time.Second, bytes: 2 << 30, quick: f.quick, resume: f.resume, kafka: f.kafka, log: log}
	var err error
	if s.only, err = regexp.Compile(f.only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if f.quick {
		s.rounds, s.run, s.bytes = 3, time.Second, 512<<20
	}
	if f.rounds != 0 {
		s.rounds = f.rounds
	}
	if f.run != 0 {
		s.run = f.run
	}
	if f.mebibytes != 0 {
		s.bytes = f.mebibytes << 20
	}
	if s.rounds < 1 || s.run <= 0 || s.bytes <= 0 {
		return nil, errors.New("-rounds, -run and -mib must be more than nothing")
	}
	if _, err := os.Stat(f.leat); err != nil {
		return nil, fmt.Errorf("-leat: %w", err)
	}
	if f.before != "" {
		if _, err := os.Stat(f.before); err != nil {
			return nil, fmt.Errorf("-before: %w", err)
		}
	}
	s.programs, s.missing = findPrograms(&f.places)
	s.written = func(*report) error { return nil }
	s.began = takenOn{Date: now(), Machine: machine(), Rounds: s.rounds, Run: s.run.String(), MostBytes: s.bytes}
	return s, nil
}
