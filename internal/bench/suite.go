package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// A suite runs workloads against contenders in turns (A B C A B C ...), since a
// machine's speed changes from minute to minute and only neighbours can be
// compared. Programs are started when they are first needed, on empty
// directories; those not measured are idle.

var errSuiteLinux = errors.New("the suite needs Linux: it reads the servers' CPU and memory from /proc")

// suite is one run of all.
type suite struct {
	programs map[string]*program
	missing  map[string]string // program: why it is not there
	running  map[string]*server
	dir      string
	kafka    string            // directory of Apache Kafka
	steady   map[string]string // topics that have reached their retention, by contender and kind
	rounds   int
	run      time.Duration // of one measurement
	bytes    int64         // that one measurement produces at most
	quick    bool
	only     *regexp.Regexp
	resume   bool // leave out what the report's run has measured already
	log      io.Writer
	topics   int        // made so far
	stale    []staleOne // topics to delete before the next turn
	began    takenOn
	report   *report
	written  func(*report) error // called after each workload
}

// staleOne is a topic that was measured.
type staleOne struct {
	server *server
	topic  string
}

// suiteFlags are the flags of the command.
type suiteFlags struct {
	places
	dir, out, only string
	rounds         int
	quick, resume  bool
	run            time.Duration
	mebibytes      int64
}

func suiteCommand() *cobra.Command {
	var flags suiteFlags
	cmd := &cobra.Command{
		Use:   "suite",
		Short: "Compare Leat with the floor program, Apache Kafka and NATS on this machine",
		Long: `Compare Leat with the floor program, Apache Kafka and NATS on this machine, and write a document in Markdown.

The floor program does the least that a broker must do for its bytes. "make bench" builds it and runs this. Apache Kafka takes part
where KAFKA_HOME names a directory whose libs has its jars. The servers and the load share the machine, so compare CPU, not only rates.

With --out benchmarks.md the figures are written to benchmarks/results.json after each workload. What a run does not measure stays
there as it was, and the document says when it was measured. A run that was cut goes on with --resume.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.suite(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.leat, "leat", "", "the leat program (default: this one)")
	f.StringVar(&flags.floor, "floor", "", "the floor program (default: floor beside leat)")
	f.StringVar(&flags.kafka, "kafka-home", os.Getenv("KAFKA_HOME"), "directory of Apache Kafka")
	f.StringVar(&flags.nats, "nats", "nats-server", "the nats-server program")
	f.StringVar(&flags.dir, "dir", "", "directory for the servers' data (default: a temporary one)")
	f.StringVar(&flags.out, "out", "", "file to write (default: to the terminal)")
	f.StringVar(&flags.only, "only", "", "run only what matches this expression, say ^consume")
	f.IntVar(&flags.rounds, "rounds", 0, "how often each measurement is taken (default: 5, or 3 with --quick)")
	f.DurationVar(&flags.run, "run", 0, "how long one run lasts (default: 3s, or 1s with --quick)")
	f.Int64Var(&flags.mebibytes, "mib", 0, "MiB that one run produces at most (default: 2048, or 512 with --quick)")
	f.BoolVar(&flags.quick, "quick", false, "short runs and fewer of them: less than ten minutes")
	f.BoolVar(&flags.resume, "resume", false, "leave out what the last run into the same --out has measured, which was cut")
	return cmd
}

// suite runs the suite that the flags ask for.
func (f *suiteFlags) suite(cmd *cobra.Command) (err error) {
	if runtime.GOOS != "linux" {
		return errSuiteLinux
	}
	s := &suite{rounds: 5, run: 3 * time.Second, bytes: 2 << 30, quick: f.quick, resume: f.resume, log: cmd.ErrOrStderr()}
	if s.only, err = regexp.Compile(f.only); err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	if f.leat == "" {
		if f.leat, err = os.Executable(); err != nil {
			return err
		}
	}
	if f.floor == "" {
		f.floor = filepath.Join(filepath.Dir(f.leat), "floor")
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
		return errors.New("--rounds, --run and --mib must be more than nothing")
	}
	s.programs, s.missing = programs(&f.places)
	s.kafka = f.kafka
	s.written = func(*report) error { return nil }
	old := &report{}
	if f.out != "" {
		beside := strings.TrimSuffix(f.out, filepath.Ext(f.out))
		if err := os.MkdirAll(beside, 0o755); err != nil {
			return err
		}
		results := filepath.Join(beside, "results.json")
		if old, err = loadReport(results); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		s.written = func(r *report) error { return errors.Join(r.save(results), r.write(f.out, beside)) }
	}
	s.began = takenOn{Date: now(), Machine: machine(), Rounds: s.rounds, Run: s.run.String(), MostBytes: s.bytes}
	s.report = s.head(old, "leat bench suite "+strings.Join(os.Args[min(3, len(os.Args)):], " "), f.only != "" || f.resume)
	if err := s.all(cmd.Context(), f.dir); err != nil {
		return err
	}
	if f.out != "" {
		return nil // it was written after each workload
	}
	_, err = io.WriteString(cmd.OutOrStdout(), s.report.document(""))
	return err
}

// write writes the document, its plots and the figures. What people have written
// below the document's last line stays.
func (r *report) write(document, beside string) error {
	for name, svg := range r.plots() {
		if err := os.WriteFile(filepath.Join(beside, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	text := r.document(filepath.Base(beside))
	old, err := os.ReadFile(document)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, notes, ok := strings.Cut(string(old), kept+"\n"); ok {
		text += notes
	}
	return os.WriteFile(document, []byte(text), 0o644)
}

// head describes this run. The figures of an earlier one stay until they are measured
// again, and one that measures some workloads only leaves its head as well.
func (s *suite) head(old *report, command string, some bool) *report {
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
			a.Command = p.about
		}
		if a.Command != "" || a.Missing != "" {
			r.Programs = append(r.Programs, a)
		}
	}
	return r
}

// all runs everything and fills the report.
func (s *suite) all(ctx context.Context, dir string) (err error) {
	if dir, err = os.MkdirTemp(dir, "leat-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s.dir, s.running, s.steady = dir, map[string]*server{}, map[string]string{}
	defer func() {
		for _, srv := range s.running {
			err = errors.Join(err, srv.stop())
		}
	}()
	return s.plan().run(ctx, s)
}

func (s *suite) say(format string, args ...any) { _, _ = fmt.Fprintf(s.log, format+"\n", args...) }

// runner is a contender in a workload.
type runner struct {
	contender
	topic string // that it keeps; "": none
	series
}

// measure runs a workload against its contenders, round after round.
func (s *suite) measure(ctx context.Context, w *workload) error {
	all := s.runners(w)
	var failed []error
	first, rounds := s.roundsOf(w)
	for round := first; round <= rounds; round++ {
		for _, c := range all {
			if c.Why != "" {
				continue
			}
			began := time.Now()
			r, err := s.turn(ctx, w, c, round)
			about := fmt.Sprintf("  round %d of %d, %s", round, rounds, c.title)
			switch {
			case errors.Is(err, errBehind):
				s.say("%s: could not keep up", about)
				c.Behind++
				r = nil
			case errors.Is(err, errNoClient):
				s.say("%s: %v", about, err)
				c.fail(err)
				continue
			case err != nil && ctx.Err() == nil: // the others can still be measured
				s.say("%s: %v", about, err)
				c.fail(err)
				failed = append(failed, fmt.Errorf("%s: %w", c.name, err))
				continue
			case err != nil:
				return err
			case round > 0:
				s.say("%s: %s; took %.1f s", about, w.summary(r), time.Since(began).Seconds())
			default:
				s.say("  warm-up, %s: took %.1f s", c.title, time.Since(began).Seconds())
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
func (s *suite) runners(w *workload) (all []*runner) {
	for _, c := range contenders() {
		if slices.Contains(w.who, c.name) && s.missing[c.program] == "" {
			all = append(all, &runner{contender: c})
		}
	}
	return all
}

// countCalls counts each contender's system calls in one short run.
func (s *suite) countCalls(ctx context.Context, w *workload, all []*runner) error {
	short := *w
	short.run = Syscalls
	short.set = func(o *Options) {
		w.set(o)
		o.Duration = min(o.Duration, 500*time.Millisecond)
	}
	var failed []error
	f := callsFigure()
	for _, c := range all {
		if c.program == programNATS || s.report.NoCalls != "" || c.Why != "" {
			continue
		}
		r, err := s.turn(ctx, &short, c, s.rounds)
		if errors.Is(err, errNoTracer) {
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

// turn is one measurement of one contender.
func (s *suite) turn(ctx context.Context, w *workload, c *runner, round int) (*Result, error) {
	if w.own {
		return s.alone(ctx, w, c)
	}
	srv, err := s.start(ctx, c.program)
	if err != nil {
		return nil, err
	}
	if err := s.clean(ctx); err != nil {
		return nil, err
	}
	o := s.options(w, srv, &c.contender)
	if round == 0 { // a quarter warms as well
		o.Records, o.Duration = max(1, o.Records/4), o.Duration/4
	}
	if c.program == programNATS {
		s.topics++
		o.Topic = fmt.Sprintf("bench-%d", s.topics)
		syncDisks()
		touchMemory(s.bytes + s.bytes/4)
		return w.nats(ctx, o)
	}
	if o.Topic = c.topic; o.Topic == "" {
		if o.Topic, err = s.topic(ctx, w, &c.contender, &o); err != nil {
			return nil, err
		}
	}
	if c.topic = o.Topic; w.topic == fresh {
		c.topic, s.stale = "", append(s.stale, staleOne{srv, o.Topic})
	}
	syncDisks() // what an earlier run left to write is not this one's cost
	if w.topic == fresh && !w.pristine {
		touchMemory(s.bytes + s.bytes/4)
	}
	var before int64
	if w.topic == steady {
		if before, err = ended(ctx, &o); err != nil {
			return nil, err
		}
	}
	r, err := w.run(ctx, o)
	if err != nil {
		return nil, err
	}
	if r.produces() && !asksNothing(c.program) && (round > 0 || w.topic == steady) {
		err = verify(ctx, &o, proof{records: before + r.Records, cut: w.topic == steady, offsets: s.quick && round < s.rounds})
	}
	if err == nil && w.heavy { // thousands of files are not deleted while others are measured
		err = s.clean(ctx)
	}
	return r, err
}

// produces tells whether all records of the run are in its topic.
func (r *Result) produces() bool {
	return slices.Contains([]string{"produce", "latency", "spread", "client"}, r.Kind)
}

// clean deletes the topics that were measured. It is done only when the next turn
// begins, who finds their memory at once: a virtual machine may have to ask for
// memory that was free for a while.
func (s *suite) clean(ctx context.Context) error {
	for _, t := range s.stale {
		if t.server.ended() {
			continue
		}
		c, err := dial(ctx, t.server.addr)
		if err != nil {
			return err
		}
		err = c.atController(ctx, func(c *client) error { return c.remove(ctx, t.topic) })
		c.close()
		if err != nil {
			return err
		}
	}
	s.stale = nil
	return nil
}

// alone gives a turn a process of its own.
func (s *suite) alone(ctx context.Context, w *workload, c *runner) (r *Result, err error) {
	s.topics++
	dir := filepath.Join(s.dir, fmt.Sprintf("own-%d", s.topics))
	if w.restart != nil {
		o := s.options(w, &server{}, &c.contender)
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		return w.restart(ctx, s.programs[c.program], dir, o)
	}
	srv, err := s.programs[c.program].start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.stop(), os.RemoveAll(dir)) }()
	o := s.options(w, srv, &c.contender)
	if !w.pristine {
		if err := makeTopic(ctx, &o); err != nil {
			return nil, err
		}
	}
	return w.run(ctx, o)
}

func (s *suite) options(w *workload, srv *server, c *contender) Options {
	o := defaults()
	o.Brokers, o.Duration, o.Partitions, o.Replication = []string{srv.addr}, s.run, 1, 1
	if o.kafkaHome, o.Data = s.kafka, srv.dir; srv.cmd != nil {
		o.PIDs = []int{srv.pid()}
	}
	// Deleted topics must give their space back at once.
	o.Configs = append(slices.Clone(c.configs), "file.delete.delay.ms=0")
	o.Records = 0
	if w.set(&o); o.Records == 0 {
		o.Records = s.bytes / int64(o.Size)
	}
	if w.large && s.quick {
		o.Records /= 5
	}
	if w.fewer != nil && c.program == programKafka {
		w.fewer(&o)
	}
	return o
}

// topic makes a new topic, and fills it where the workload needs that.
func (s *suite) topic(ctx context.Context, w *workload, c *contender, options *Options) (string, error) {
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
	if err := makeTopic(ctx, &o); err != nil || w.topic == fresh {
		return o.Topic, err
	}
	fill := min(s.bytes, 900<<20)
	if w.topic == steady {
		s.steady[kind] = o.Topic
		fill = steadyTotal(o.Partitions) * 3 / 2
	}
	o.Size, o.Batch, o.InFlight, o.WriteBytes, o.Duration = 1024, 16, 32, 256<<10, 0
	o.Records, o.PIDs = fill/int64(o.Size), nil
	_, err := Produce(ctx, o)
	return o.Topic, err
}

// makeTopic makes a topic and waits until its leaders serve.
func makeTopic(ctx context.Context, o *Options) error {
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.topic(ctx, o, true)
	return err
}

// start returns the program's server, started if it is not running. Java gets
// something to compile first.
func (s *suite) start(ctx context.Context, name string) (*server, error) {
	if srv := s.running[name]; srv != nil {
		if !srv.ended() {
			return srv, nil
		}
		s.say("%s has ended by itself and is started again; it said: %s", name, srv.tail())
		delete(s.running, name)
		s.steady = map[string]string{} // others fill theirs again
		if err := errors.Join(srv.stop(), os.RemoveAll(srv.dir)); err != nil {
			return nil, err
		}
	}
	srv, err := s.programs[name].start(ctx, filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	s.running[name] = srv
	if name != programKafka {
		return srv, nil
	}
	s.say("warming Apache Kafka up with 5 GB")
	for i := range 5 {
		o := defaults()
		o.Brokers, o.Topic, o.Partitions, o.Replication = []string{srv.addr}, fmt.Sprintf("warm-%d", i), 1, 1
		o.Configs = []string{"file.delete.delay.ms=0"}
		o.Duration, o.Records = 0, 1<<30/int64(o.Size)
		o.Batch = []int{16, 1, 16, 1000, 100}[i]
		if o.Batch == 1 {
			o.Records /= 8
		}
		if err := makeTopic(ctx, &o); err != nil {
			return nil, err
		}
		if _, err := Produce(ctx, o); err != nil {
			return nil, err
		}
		if _, err := Consume(ctx, o); err != nil {
			return nil, err
		}
		s.stale = append(s.stale, staleOne{srv, o.Topic})
	}
	return srv, nil
}
