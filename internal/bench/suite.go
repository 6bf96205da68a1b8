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
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A suite runs workloads against contenders in turns (A B C A B C ...), since a
// machine's speed changes from minute to minute and only neighbours can be
// compared. All programs run at the same time and those not measured are idle.

// pageCache makes a topic acknowledge what is written but not synced, as Kafka does.
const pageCache = "flush.messages=9223372036854775807"

// contender is a program with the settings of its topics.
type contender struct {
	name    string
	program string
	durable bool // acknowledged means on disk
	configs []string
}

var errSuiteLinux = errors.New("the suite needs Linux: it reads the servers' CPU and memory from /proc")

// contenders lists all, in the order of the tables.
func contenders() []contender {
	return []contender{
		{name: "Leat", program: "leat", durable: true},
		{name: "floor program, -sync", program: "floor-sync", durable: true},
		{name: "Apache Kafka, flush.messages=1", program: "kafka", durable: true, configs: []string{"flush.messages=1"}},
		{name: "Leat, page cache", program: "leat", configs: []string{pageCache}},
		{name: "floor program", program: "floor"},
		{name: "Apache Kafka", program: "kafka"},
	}
}

// workload is what is asked of each contender in turn.
type workload struct {
	name   string
	run    func(context.Context, Options) (*Result, error)
	set    func(o *Options)
	filled bool // the topic is filled once and kept
}

func workloads() []workload {
	shape := func(size, batch, inFlight int) func(o *Options) {
		return func(o *Options) { o.Size, o.Batch, o.InFlight = size, batch, inFlight }
	}
	fetch := func(bytes int) func(o *Options) {
		return func(o *Options) { o.FetchBytes, o.Passes = bytes, 0 }
	}
	rate := func(n, size int) func(o *Options) {
		return func(o *Options) { o.Rate, o.Size = n, size }
	}
	return []workload{
		{name: "produce, 1 KiB records, 16 a batch, 32 in flight", run: Produce, set: shape(1024, 16, 32)},
		{name: "produce, 1 KiB records, 1,000 a batch, 5 in flight", run: Produce, set: shape(1024, 1000, 5)},
		{name: "produce, 100 B records, 160 a batch, 32 in flight", run: Produce, set: shape(100, 160, 32)},
		{name: "produce, one 1 KiB record a request, 256 in flight", run: Produce, set: shape(1024, 1, 256)},
		{name: "consume, 1 MiB a request", run: Consume, set: fetch(1 << 20), filled: true},
		{name: "consume, 64 KiB a request", run: Consume, set: fetch(64 << 10), filled: true},
		{name: "latency, 100 B records, 1,000/s", run: Latency, set: rate(1000, 100)},
		{name: "latency, 1 KiB records, 5,000/s", run: Latency, set: rate(5000, 1024)},
	}
}

// suite is one run of all.
type suite struct {
	programs map[string]*program
	missing  map[string]string // program: why it is not there
	running  map[string]*server
	dir      string
	rounds   int
	run      time.Duration // of one measurement
	bytes    int64         // that one measurement produces at most
	only     *regexp.Regexp
	log      io.Writer
	topics   int // made so far
}

func suiteCommand() *cobra.Command {
	var leat, floor, kafka, dir, out, only string
	var rounds int
	var quick bool
	s := &suite{run: 4 * time.Second, bytes: 4 << 30}
	cmd := &cobra.Command{
		Use:   "suite",
		Short: "Compare Leat with the floor program and Apache Kafka on this machine",
		Long: `Compare Leat with the floor program and Apache Kafka on this machine, and write tables in Markdown.

The floor program does the least that a broker must do for its bytes. "make bench" builds it and runs this. Apache Kafka takes part
where KAFKA_HOME names a directory whose libs has its jars. The servers and the load share the machine, so compare CPU, not only rates.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if runtime.GOOS != "linux" {
				return errSuiteLinux
			}
			var err error
			if s.only, err = regexp.Compile(only); err != nil {
				return fmt.Errorf("--only: %w", err)
			}
			if leat == "" {
				if leat, err = os.Executable(); err != nil {
					return err
				}
			}
			if floor == "" {
				floor = filepath.Join(filepath.Dir(leat), "floor")
			}
			if s.rounds = rounds; quick {
				s.rounds, s.run, s.bytes = min(rounds, 3), 2*time.Second, 1<<30
			}
			if s.rounds < 1 {
				return errors.New("--rounds must be at least 1")
			}
			s.log = cmd.ErrOrStderr()
			s.programs, s.missing = programs(leat, floor, kafka)
			report, err := s.all(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if out == "" {
				_, err = io.WriteString(cmd.OutOrStdout(), report)
				return err
			}
			if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
				return err
			}
			return os.WriteFile(out, []byte(report), 0o644)
		},
	}
	f := cmd.Flags()
	f.StringVar(&leat, "leat", "", "the leat program (default: this one)")
	f.StringVar(&floor, "floor", "", "the floor program (default: floor beside leat)")
	f.StringVar(&kafka, "kafka-home", os.Getenv("KAFKA_HOME"), "directory of Apache Kafka")
	f.StringVar(&dir, "dir", "", "directory for the servers' data (default: a temporary one)")
	f.StringVar(&out, "out", "", "file to write (default: to the terminal)")
	f.StringVar(&only, "only", "", "run only what matches this expression, say ^consume")
	f.IntVar(&rounds, "rounds", 5, "how often each measurement is taken")
	f.BoolVar(&quick, "quick", false, "short runs, at most 3 rounds: a few minutes")
	return cmd
}

// all runs everything and returns the report.
func (s *suite) all(ctx context.Context, dir string) (report string, err error) {
	if dir, err = os.MkdirTemp(dir, "leat-bench-"); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s.dir, s.running = dir, map[string]*server{}
	defer func() {
		for _, srv := range s.running {
			err = errors.Join(err, srv.stop())
		}
	}()
	var b strings.Builder
	s.writeHead(&b)
	if s.only.MatchString(processTitle) {
		t, err := s.processes(ctx)
		if err != nil {
			return "", err
		}
		b.WriteString(t)
	}
	for _, w := range workloads() {
		if !s.only.MatchString(w.name) {
			continue
		}
		results, err := s.measure(ctx, &w)
		if err != nil {
			return "", fmt.Errorf("%s: %w", w.name, err)
		}
		writeTable(&b, &w, results)
	}
	s.writeTail(&b)
	return b.String(), nil
}

func (s *suite) say(format string, args ...any) { _, _ = fmt.Fprintf(s.log, format+"\n", args...) }

// outcome is what one contender did in all rounds of a workload.
type outcome struct {
	contender
	topic   string // that it has now; "": none
	results []*Result
	behind  int // rounds in which it could not keep up
}

// measure runs a workload against all contenders, round after round. The first
// round is not counted: it pays for memory that the system has to find.
func (s *suite) measure(ctx context.Context, w *workload) (all []*outcome, err error) {
	for _, c := range contenders() {
		if w.filled && c.durable || s.missing[c.program] != "" {
			continue // what is consumed does not depend on how it was produced
		}
		all = append(all, &outcome{contender: c})
	}
	for round := range s.rounds + 1 {
		for _, c := range all {
			r, err := s.turn(ctx, w, c)
			if errors.Is(err, errBehind) {
				s.say("%s, round %d of %d, %s: could not keep up", w.name, round, s.rounds, c.name)
				c.behind++
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			s.say("%s, round %d of %d, %s:\n%s", w.name, round, s.rounds, c.name, r.Text())
			if round > 0 {
				c.results = append(c.results, r)
			}
		}
	}
	return all, nil
}

// turn is one measurement of one contender.
func (s *suite) turn(ctx context.Context, w *workload, c *outcome) (*Result, error) {
	srv, err := s.start(ctx, c.program)
	if err != nil {
		return nil, err
	}
	o := s.options(w, srv, &c.contender)
	if o.Topic = c.topic; o.Topic == "" {
		if o.Topic, err = s.topic(ctx, w, o); err != nil {
			return nil, err
		}
		c.topic = o.Topic
	}
	syncDisks() // what an earlier run left to write is not this one's cost
	r, err := w.run(ctx, o)
	if w.filled || err != nil && !errors.Is(err, errBehind) {
		return r, err
	}
	c.topic = ""
	return r, errors.Join(err, s.finish(ctx, c.program, &o, r))
}

func (s *suite) options(w *workload, srv *server, c *contender) Options {
	o := defaults()
	o.Brokers, o.Duration, o.Partitions, o.Replication = []string{srv.addr}, s.run, 1, 1
	o.PIDs = []int{srv.pid()}
	// Deleted topics must give their space back soon.
	o.Configs = append(slices.Clone(c.configs), "file.delete.delay.ms=1000")
	w.set(&o)
	o.Records = s.bytes / int64(o.Size)
	return o
}

// topic names a new topic, and fills it where the workload needs that.
func (s *suite) topic(ctx context.Context, w *workload, o Options) (string, error) {
	s.topics++
	o.Topic = fmt.Sprintf("bench-%d", s.topics)
	if !w.filled {
		return o.Topic, nil
	}
	o.Size, o.Batch, o.Duration = 1024, 16, 0
	o.Records = min(s.bytes, 900<<20) / int64(o.Size) // less than the floor program keeps
	o.PIDs = nil
	r, err := Produce(ctx, o)
	if err != nil {
		return "", err
	}
	return o.Topic, s.count(ctx, &o, r)
}

// finish counts what arrived and deletes the topic. The floor program keeps too
// little to be asked.
func (s *suite) finish(ctx context.Context, program string, o *Options, r *Result) error {
	if r != nil && r.Kind == "produce" && program != "floor" && program != "floor-sync" {
		if err := s.count(ctx, o, r); err != nil {
			return err
		}
	}
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return err
	}
	defer c.close()
	return c.atController(ctx, func(c *client) error { return c.remove(ctx, o.Topic) })
}

// count makes a run void in which a record was lost.
func (*suite) count(ctx context.Context, o *Options, r *Result) error {
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return err
	}
	defer c.close()
	first, err := c.offset(ctx, o.Topic, 0, earliest)
	if err != nil {
		return err
	}
	next, err := c.offset(ctx, o.Topic, 0, latest)
	if err != nil {
		return err
	}
	if next-first != r.Records {
		return fmt.Errorf("%d records were acknowledged, but %d are there", r.Records, next-first)
	}
	return nil
}

// start returns the program's server, started if it is not running. Java gets
// something to compile first.
func (s *suite) start(ctx context.Context, name string) (*server, error) {
	if srv := s.running[name]; srv != nil {
		return srv, nil
	}
	srv, err := s.programs[name].start(ctx, filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	s.running[name] = srv
	if name != "kafka" {
		return srv, nil
	}
	s.say("warming Apache Kafka up with 5 GB")
	for i := range 5 {
		o := defaults()
		o.Brokers, o.Topic, o.Partitions, o.Replication = []string{srv.addr}, fmt.Sprintf("warm-%d", i), 1, 1
		o.Configs = []string{"file.delete.delay.ms=1000"}
		o.Duration, o.Records = 0, 1<<30/int64(o.Size)
		o.Batch = []int{16, 1, 16, 100, 16}[i]
		if o.Batch == 1 {
			o.Records /= 8
		}
		r, err := Produce(ctx, o)
		if err != nil {
			return nil, err
		}
		if _, err := Consume(ctx, o); err != nil {
			return nil, err
		}
		if err := s.finish(ctx, name, &o, r); err != nil {
			return nil, err
		}
	}
	return srv, nil
}

const (
	processTitle = "process"
	manyTopics   = 1000
	manyConns    = 10_000
)

// footprint is what a program needs before any load.
type footprint struct {
	name                    string
	start                   []float64 // s from process start to the first answer
	idle, topics, conns     []float64 // bytes
	idleCPU                 []float64 // share of a core
	openSeconds, makeTopics []float64
}

// processes measures starting, idling, many topics and many connections.
func (s *suite) processes(ctx context.Context) (string, error) {
	var all []*footprint
	for _, name := range []string{"leat", "floor", "kafka"} {
		if s.missing[name] == "" {
			all = append(all, &footprint{name: name})
		}
	}
	for round := range min(s.rounds, 3) {
		for _, f := range all {
			dir := filepath.Join(s.dir, fmt.Sprintf("%s-process-%d", f.name, round))
			if err := s.footprint(ctx, f, dir); err != nil {
				return "", fmt.Errorf("%s: %w", f.name, err)
			}
			s.say("%s: start, idle, topics and connections, round %d", f.name, round+1)
		}
	}
	return footprintTable(all), nil
}

func (s *suite) footprint(ctx context.Context, f *footprint, dir string) (err error) {
	srv, err := s.programs[f.name].start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.stop(), os.RemoveAll(dir)) }()
	f.start = append(f.start, srv.ready.Seconds())
	pids := []int{srv.pid()}
	rss := func() (float64, error) {
		now, _, err := processMemory(pids)
		return float64(now), err
	}
	o := defaults()
	o.Brokers, o.PIDs, o.Duration, o.Connections = []string{srv.addr}, pids, s.run, 1
	idle, err := Idle(ctx, o)
	if err != nil {
		return err
	}
	f.idle = append(f.idle, float64(idle.Server.RSS))
	f.idleCPU = append(f.idleCPU, idle.Server.CPU/idle.Seconds)
	o.Connections = manyConns
	many, err := Idle(ctx, o)
	if err != nil {
		return err
	}
	f.conns = append(f.conns, float64(many.Server.RSS))
	f.openSeconds = append(f.openSeconds, many.OpenSeconds)
	if f.name == "floor" {
		return nil // it has one topic
	}
	// A process of its own: memory that connections took is not given back at once.
	again, err := s.programs[f.name].start(ctx, dir+"-topics")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, again.stop(), os.RemoveAll(dir+"-topics")) }()
	pids[0] = again.pid()
	took, err := makeTopics(ctx, again.addr)
	if err != nil {
		return err
	}
	f.makeTopics = append(f.makeTopics, took.Seconds())
	o.Brokers, o.Connections = []string{again.addr}, 1
	if _, err := Idle(ctx, o); err != nil { // it settles
		return err
	}
	now, err := rss()
	f.topics = append(f.topics, now)
	return err
}

// makeTopics makes many topics by one request.
func makeTopics(ctx context.Context, addr string) (time.Duration, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(callWithin.Milliseconds())
	for i := range manyTopics {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = fmt.Sprintf("many-%d", i), 1, 1
		req.Topics = append(req.Topics, t)
	}
	began := time.Now()
	answer, err := c.call(ctx, req)
	if err != nil {
		return 0, err
	}
	resp, _ := answer.(*kmsg.CreateTopicsResponse)
	for _, t := range resp.Topics {
		if t.ErrorCode != 0 {
			return 0, fmt.Errorf("make topic %s: error %d", t.Topic, t.ErrorCode)
		}
	}
	return time.Since(began), nil
}
