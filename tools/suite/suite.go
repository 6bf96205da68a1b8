package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// A suite runs workloads against contenders in turns (A B C A B C ...), since a
// machine's speed changes from minute to minute and only neighbours can be
// compared. Programs are started when they are first needed, on empty
// directories; those not measured are idle.

// suite is one run of all.
type suite struct {
	programs map[string]*server.Program
	missing  map[string]string // program: why it is not there
	running  map[string]*server.Server
	clusters map[string]*server.Cluster // that run
	dir      string
	kafka    string            // directory of Apache Kafka
	steady   map[string]string // topics that have reached their retention, by contender and kind
	rounds   int
	run      time.Duration // of one measurement
	bytes    int64         // that one measurement produces at most
	quick    bool
	only     *regexp.Regexp
	resume   bool // leave out the rows that the report's run has measured already
	log      io.Writer
	topics   int        // made so far
	stale    []staleOne // topics to delete before the next turn
	began    takenOn
	report   *report
	written  func(*report) error // called after each workload
}

// staleOne is a topic that was measured.
type staleOne struct {
	server *server.Server
	topic  string
}

// newReport describes this run. The figures of an earlier one stay until they are measured
// again, and one that measures some workloads only leaves its head as well.
func (s *suite) newReport(old *report, command string, some bool) *report {
	r := &report{
		takenOn: s.began, Command: strings.TrimSpace(command), Workloads: map[string]map[string]*series{}, Taken: map[string]takenOn{},
	}
	if old != nil && old.Workloads != nil {
		r.Workloads, r.Taken = old.Workloads, old.Taken
		if some {
			r.takenOn, r.Command = old.takenOn, old.Command
		}
		if s.resume {
			s.began.Date = old.Date // it is the same run
		}
	}
	for _, name := range programNames() {
		a := about{Name: name, Missing: s.missing[name]}
		if p := s.programs[name]; p != nil {
			a.Command = p.About
		}
		if a.Command != "" || a.Missing != "" {
			r.Programs = append(r.Programs, a)
		}
	}
	return r
}

// runAll runs everything and fills the report.
func (s *suite) runAll(ctx context.Context, dir string) (err error) {
	if dir, err = os.MkdirTemp(dir, "leat-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s.dir, s.running, s.steady, s.clusters = dir, map[string]*server.Server{}, map[string]string{}, map[string]*server.Cluster{}
	defer func() {
		for _, srv := range s.running {
			err = errors.Join(err, srv.Stop())
		}
		err = errors.Join(err, s.stopClusters())
	}()
	return s.makePlan().run(ctx, s)
}

func (s *suite) logf(format string, args ...any) { _, _ = fmt.Fprintf(s.log, format+"\n", args...) }

// runner is a contender in a workload.
type runner struct {
	contender
	topic string // that it keeps; "": none
	series
}

// measure runs a workload against its contenders, round after round.
func (s *suite) measure(ctx context.Context, w *row) error {
	all := s.runners(w)
	var failed []error
	first, rounds := s.roundsOf(w)
	for round := first; round <= rounds; round++ {
		for _, c := range all {
			if c.Why != "" {
				continue
			}
			began := time.Now()
			r, err := s.takeTurn(ctx, w, c, round)
			about := fmt.Sprintf("  round %d of %d, %s", round, rounds, c.title)
			switch {
			case errors.Is(err, bench.ErrBehind):
				s.logf("%s: could not keep up", about)
				c.Behind++
				r = nil
			case errors.Is(err, workload.ErrNoClient):
				s.logf("%s: %v", about, err)
				c.fail(err)
				continue
			case err != nil && ctx.Err() == nil: // the others can still be measured
				s.logf("%s: %v", about, err)
				c.fail(err)
				failed = append(failed, fmt.Errorf("%s: %w", c.name, err))
				continue
			case err != nil:
				return err
			case round > 0:
				s.logf("%s: %s; took %.1f s", about, w.summary(r), time.Since(began).Seconds())
			default:
				s.logf("  warm-up, %s: took %.1f s", c.title, time.Since(began).Seconds())
			}
			if round > 0 {
				c.add(w.figures, r)
			}
		}
	}
	if w.calls {
		failed = append(failed, s.countCalls(ctx, w, all))
	}
	for _, c := range all {
		s.report.set(w.name, c.name, &c.series)
		if srv := s.running[c.program]; srv != nil && c.topic != "" && w.topic != steady {
			s.stale = append(s.stale, staleOne{srv, c.topic})
		}
	}
	return errors.Join(failed...)
}

// fail notes why a contender has no figures, or no more of them.
func (r *runner) fail(err error) {
	const most = 300 // characters: it is a cell of a table
	why := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "|", "/")), " ")
	r.Why = why[:min(len(why), most)]
}

// runners are a workload's contenders as far as they can be had.
func (s *suite) runners(w *row) (all []*runner) {
	for _, c := range contenders() {
		if (slices.Contains(w.who, c.name) || slices.Contains(w.who, c.beside)) && s.programs[c.program] != nil {
			all = append(all, &runner{contender: c})
		}
	}
	return all
}

// countCalls counts each contender's system calls in one short run.
func (s *suite) countCalls(ctx context.Context, w *row, all []*runner) error {
	short := *w
	short.run = workload.Syscalls
	short.set = func(o *workload.Options) {
		w.set(o)
		o.Duration = min(o.Duration, 500*time.Millisecond)
	}
	var failed []error
	f := callsFigure()
	for _, c := range all {
		if c.program == programNATS || s.report.NoCalls != "" || c.Why != "" {
			continue
		}
		r, err := s.takeTurn(ctx, &short, c, s.rounds)
		if errors.Is(err, workload.ErrNoTracer) {
			s.report.NoCalls = err.Error()
			continue
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: system calls: %w", c.name, err))
			continue
		}
		if c.Figures == nil { // it could never keep up
			c.Figures = map[string][]float64{}
		}
		c.Figures[f.name] = []float64{f.value(r)}
	}
	return errors.Join(failed...)
}

// takeTurn is one measurement of one contender.
func (s *suite) takeTurn(ctx context.Context, w *row, c *runner, round int) (*workload.Result, error) {
	if w.cluster != nil {
		return s.measureCluster(ctx, w, c)
	}
	if w.own {
		return s.measureAlone(ctx, w, c)
	}
	srv, err := s.findOrStart(ctx, c.program)
	if err != nil {
		return nil, err
	}
	if err := s.deleteStaleTopics(ctx); err != nil {
		return nil, err
	}
	o := s.options(w, srv, &c.contender)
	if round == 0 { // a quarter warms as well, if the row does not say more
		o.Records, o.Duration = max(1, o.Records/4), cmp.Or(w.warm, o.Duration/4)
	}
	if c.program == programNATS {
		s.topics++
		o.Topic = fmt.Sprintf("bench-%d", s.topics)
		workload.SyncDisks()
		workload.TouchMemory(s.bytes + s.bytes/4)
		return w.nats(ctx, o)
	}
	if o.Topic = c.topic; o.Topic == "" {
		if o.Topic, err = s.findOrMakeTopic(ctx, w, &c.contender, &o); err != nil {
			return nil, err
		}
	}
	if c.topic = o.Topic; w.topic == fresh {
		c.topic, s.stale = "", append(s.stale, staleOne{srv, o.Topic})
	}
	workload.SyncDisks() // the disk must not be busy with an earlier run's records
	if w.topic == fresh && !w.pristine {
		workload.TouchMemory(s.bytes + s.bytes/4)
	}
	var before int64
	if w.topic == steady {
		if before, err = workload.CountRecords(ctx, &o); err != nil {
			return nil, err
		}
	}
	r, err := w.run(ctx, o)
	if err != nil {
		return nil, err
	}
	if keepsRecords(r.Kind) && !forgets(c.program) && (round > 0 || w.topic == steady) {
		err = workload.Verify(ctx, &o, workload.Proof{Records: before + r.Records, Cut: w.topic == steady, Offsets: s.quick && round < s.rounds})
	}
	if err == nil && w.heavy { // thousands of files are not deleted while others are measured
		err = s.deleteStaleTopics(ctx)
	}
	return r, err
}

// keepsRecords tells whether all records of a run are in its topic.
func keepsRecords(k bench.Kind) bool {
	return slices.Contains([]bench.Kind{bench.KindProduce, bench.KindLatency, workload.KindSpread, workload.KindClient}, k)
}

// deleteStaleTopics deletes the topics that were measured. It is called only when the next
// turn begins, which then finds their memory at once: a virtual machine may have to ask
// its host for memory that was free for a while.
func (s *suite) deleteStaleTopics(ctx context.Context) error {
	for _, t := range s.stale {
		if t.server.Ended() {
			continue
		}
		if err := bench.DeleteTopic(ctx, &bench.Options{Brokers: []string{t.server.Addr}, Topic: t.topic}); err != nil {
			return err
		}
	}
	s.stale = nil
	return nil
}

// measureAlone gives a turn a process of its own.
func (s *suite) measureAlone(ctx context.Context, w *row, c *runner) (r *workload.Result, err error) {
	s.topics++
	dir := filepath.Join(s.dir, fmt.Sprintf("own-%d", s.topics))
	if w.starts != nil {
		o := s.options(w, nil, &c.contender)
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		return w.starts(ctx, s.programs[c.program], dir, o)
	}
	srv, err := s.programs[c.program].Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.Stop(), os.RemoveAll(dir)) }()
	o := s.options(w, srv, &c.contender)
	if !w.pristine {
		if err := bench.MakeTopic(ctx, &o.Options); err != nil {
			return nil, err
		}
	}
	return w.run(ctx, o)
}

// options are the settings of a turn; srv is nil where the turn starts its server.
func (s *suite) options(w *row, srv *server.Server, c *contender) workload.Options {
	o := workload.Defaults()
	o.Topic, o.Duration, o.Partitions, o.Replication, o.KafkaHome = "bench", s.run, 1, 1, s.kafka
	if srv != nil {
		o.Brokers, o.Data, o.PIDs = []string{srv.Addr}, srv.Dir, []int{srv.PID()}
	}
	// Deleted topics must give their space back at once.
	o.Configs = append(slices.Clone(c.configs), "file.delete.delay.ms=0")
	o.Records = 0
	if w.set(&o); o.Records == 0 {
		o.Records = s.bytes / int64(o.Size)
	}
	if w.fewer != nil && (c.program == programKafka || c.program == programKafkaThree) {
		w.fewer(&o)
	}
	if w.large && s.quick {
		o.Records, o.Faults = o.Records/5, max(1, o.Faults/5)
	}
	return o
}

// findOrMakeTopic makes a new topic, and fills it where the workload needs that.
func (s *suite) findOrMakeTopic(ctx context.Context, w *row, c *contender, options *workload.Options) (string, error) {
	kind := fmt.Sprintf("%s, %d", c.name, options.Partitions)
	if t := s.steady[kind]; t != "" && w.topic == steady {
		return t, nil
	}
	s.topics++
	o := *options
	o.Topic = fmt.Sprintf("bench-%d", s.topics)
	if w.pristine {
		return o.Topic, nil
	}
	if err := bench.MakeTopic(ctx, &o.Options); err != nil || w.topic == fresh {
		return o.Topic, err
	}
	fill := min(s.bytes, 900<<20)
	if w.topic == steady {
		s.steady[kind] = o.Topic
		fill = steadyTotal(o.Partitions) * 3 / 2
	}
	o.Size, o.Batch, o.InFlight, o.WriteBytes, o.Duration = 1024, 16, 32, 256<<10, 0
	o.Records, o.PIDs = fill/int64(o.Size), nil
	_, err := bench.Produce(ctx, o.Options)
	return o.Topic, err
}

// findOrStart returns the program's server, started if it is not running. Java gets
// something to compile first.
func (s *suite) findOrStart(ctx context.Context, name string) (*server.Server, error) {
	if srv := s.running[name]; srv != nil {
		if !srv.Ended() {
			return srv, nil
		}
		s.logf("%s has ended by itself and is started again; it said: %s", name, srv.LastWords())
		delete(s.running, name)
		s.steady = map[string]string{} // others fill theirs again
		if err := errors.Join(srv.Stop(), os.RemoveAll(srv.Dir)); err != nil {
			return nil, err
		}
	}
	srv, err := s.programs[name].Start(ctx, filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	s.running[name] = srv
	if name != programKafka && name != programKafkaSecured {
		return srv, nil
	}
	s.logf("warming %s up with 5 GB", name)
	for i := range 5 {
		o := bench.Defaults()
		o.Brokers, o.Topic, o.Partitions, o.Replication = []string{srv.Addr}, fmt.Sprintf("bench-warm-%d", i), 1, 1
		o.Configs = []string{"file.delete.delay.ms=0"}
		o.Duration, o.Records = 0, 1<<30/int64(o.Size)
		o.Batch = []int{16, 1, 16, 1000, 100}[i]
		if o.Batch == 1 {
			o.Records /= 8
		}
		if err := bench.MakeTopic(ctx, &o); err != nil {
			return nil, err
		}
		if _, err := bench.Produce(ctx, o); err != nil {
			return nil, err
		}
		if _, err := bench.Consume(ctx, o); err != nil {
			return nil, err
		}
		s.stale = append(s.stale, staleOne{srv, o.Topic})
	}
	return srv, nil
}
