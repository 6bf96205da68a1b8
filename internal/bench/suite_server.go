package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	readyWithin = time.Minute
	stopWithin  = 30 * time.Second
)

// program is a server that can be started on an empty directory.
type program struct {
	about string // for the report: what was run
	// prepare is what must be done before a first start, and is not timed.
	prepare func(ctx context.Context, dir, addr string) error
	command func(dir, addr string) (name string, args []string)
	probe   func(ctx context.Context, addr string) error // nil: asks as a client of Kafka
}

// server is a running program.
type server struct {
	addr  string
	dir   string
	cmd   *exec.Cmd
	began time.Time
	ready time.Duration // from the process's start to its first answer
	log   string
	file  *os.File
}

// Names of programs.
const (
	programLeat      = "leat"
	programFloor     = "floor"
	programFloorSync = "floor -sync"
	programJournal   = "floor -journal"
	programRecycle   = "floor -recycle"
	programRecycle64 = "floor -recycle, small"
	programDiscard   = "floor -store discard"
	programKafka     = "Apache Kafka"
	programNATS      = "NATS"
)

// programNames lists them in the order of the report.
func programNames() []string {
	return []string{programLeat, programFloor, programFloorSync, programJournal, programRecycle, programRecycle64, programDiscard, programKafka, programNATS}
}

// asksNothing tells whether a program keeps too little to be asked for what it got.
func asksNothing(program string) bool { return strings.HasPrefix(program, programFloor) }

// places is where programs are; "": not there.
type places struct{ leat, floor, kafka, nats string }

// programs names those that can be had, and why others cannot.
func programs(at *places) (have map[string]*program, missing map[string]string) {
	have, missing = map[string]*program{}, map[string]string{}
	leat, floor, kafka := at.leat, at.floor, at.kafka
	if p, err := natsProgram(at.nats); err != nil {
		missing[programNATS] = err.Error()
	} else {
		have[programNATS] = p
	}
	have[programLeat] = &program{
		about: "leat up --data DIR --listen ADDR --http off" + strings.Join(settings(" --set "), ""),
		command: func(dir, addr string) (string, []string) {
			args := []string{"up", "--data", dir, "--listen", addr, "--http", "off", "--log-level", "warn"}
			return leat, append(args, settings("--set=")...)
		},
	}
	for name, flags := range map[string][]string{
		programFloor: nil, programFloorSync: {"-sync"}, programJournal: {"-journal", "256"}, programDiscard: {"-store", "discard"},
		programRecycle:   {"-recycle", "-ring", strconv.Itoa(steadyBytes >> 20)},
		programRecycle64: {"-recycle", "-ring", strconv.Itoa(wideBytes >> 20 / wideSteady)},
	} {
		if _, err := os.Stat(floor); err != nil {
			missing[name] = "there is no " + floor + "; scripts/bench.sh builds it"
			continue
		}
		have[name] = &program{
			about: strings.Join(append([]string{"floor"}, flags...), " ") + " -addr ADDR -dir DIR",
			command: func(dir, addr string) (string, []string) {
				return floor, slices.Concat(flags, []string{"-addr", addr, "-dir", dir})
			},
		}
	}
	if why := kafkaMissing(kafka); why != "" {
		missing[programKafka] = why
		return have, missing
	}
	java := func(dir string, class ...string) []string {
		args := []string{
			"-Xmx1g", "-Xms1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
			"-XX:InitiatingHeapOccupancyPercent=35", "-cp", filepath.Join(kafka, "libs", "*"),
		}
		return append(append(args, class...), filepath.Join(dir, "server.properties"))
	}
	have[programKafka] = &program{
		about: "java -Xmx1g -Xms1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 kafka.Kafka server.properties, " + kafkaVersion(kafka) +
			", one KRaft node, defaults and" + strings.Join(settings(" "), ""),
		prepare: func(ctx context.Context, dir, addr string) error { return formatKafka(ctx, dir, addr, java) },
		command: func(dir, _ string) (string, []string) { return "java", java(dir, "kafka.Kafka") },
	}
	return have, missing
}

// natsProgram is NATS with JetStream, as it comes.
func natsProgram(path string) (*program, error) {
	said, err := exec.Command(path, "--version").Output() //nolint:gosec,noctx // whoever runs the suite names the programs, and this one ends at once
	if err != nil {
		return nil, errors.New("there is no nats-server; scripts/bench.sh installs it")
	}
	return &program{
		about: "nats-server -js -sd DIR -a ADDR -p PORT, " + natsVersion(string(said)),
		probe: natsReady,
		command: func(dir, addr string) (string, []string) {
			host, port, _ := net.SplitHostPort(addr) // it is one of ours
			return path, []string{"-js", "-sd", dir, "-a", host, "-p", port}
		},
	}, nil
}

// settings are those of both brokers that differ from their defaults: a log that
// has reached its retention must be cut while it is measured, and the time of a
// group's rebalance is not the time that it is told to wait.
func settings(before string) (all []string) {
	for _, s := range []string{"log.retention.check.interval.ms=1000", "group.initial.rebalance.delay.ms=0"} {
		all = append(all, before+s)
	}
	return all
}

// kafkaVersion is told by the name of a jar.
func kafkaVersion(home string) string {
	jars, _ := filepath.Glob(filepath.Join(home, "libs", "kafka-clients-*.jar")) // the pattern is fine
	if len(jars) == 0 {
		return "of an unknown version"
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(jars[0]), "kafka-clients-"), ".jar")
}

func kafkaMissing(home string) string {
	if home == "" {
		return "KAFKA_HOME is not set"
	}
	jars, err := filepath.Glob(filepath.Join(home, "libs", "kafka-server-*.jar"))
	if all, _ := filepath.Glob(filepath.Join(home, "libs", "*.jar")); err != nil || len(jars) == 0 && len(all) == 0 {
		return home + "/libs has no jars"
	}
	if _, err := exec.LookPath("java"); err != nil {
		return "there is no java"
	}
	return ""
}

// formatKafka does the step that Kafka needs before its first start.
func formatKafka(ctx context.Context, dir, addr string, java func(dir string, class ...string) []string) error {
	controller, err := freeAddress()
	if err != nil {
		return err
	}
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
log.dirs=%[3]s
offsets.topic.replication.factor=1
%[4]s
`, addr, controller, filepath.Join(dir, "log"), strings.Join(settings(""), "\n"))
	if err := os.WriteFile(filepath.Join(dir, "server.properties"), []byte(properties), 0o600); err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	id[0] &= 0x7f           // or one in 64 begins with a dash, which the tool takes for a flag
	args := java(dir, "kafka.tools.StorageTool", "format", "-t", base64.RawURLEncoding.EncodeToString(id[:]), "-c")
	if out, err := exec.CommandContext(ctx, "java", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format: %w: %s", err, out)
	}
	return nil
}

// freeAddress finds a port of the loopback that nobody uses now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start runs the program in dir and waits until it answers.
func (p *program) start(ctx context.Context, dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if p.prepare != nil {
		if err := p.prepare(ctx, dir, addr); err != nil {
			return nil, err
		}
	}
	return p.launch(ctx, dir, addr)
}

// launch starts the program where it may have run before.
func (p *program) launch(ctx context.Context, dir, addr string) (*server, error) {
	var err error
	s := &server{addr: addr, dir: dir, log: strings.TrimSuffix(dir, "/") + ".log"}
	if s.file, err = os.Create(s.log); err != nil {
		return nil, err
	}
	name, args := p.command(dir, addr)
	s.cmd = exec.CommandContext(ctx, name, args...) //nolint:gosec // whoever runs the suite names the programs
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = stopWithin
	s.cmd.Stdout, s.cmd.Stderr = s.file, s.file
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	probe := p.probe
	if probe == nil {
		probe = answers
	}
	for {
		err := probe(ctx, addr)
		if err == nil {
			s.ready = time.Since(s.began)
			return s, nil
		}
		if ctx.Err() != nil || time.Since(s.began) > readyWithin || s.ended() {
			return nil, errors.Join(fmt.Errorf("it does not answer: %w; it says: %s", err, s.tail()), s.stop())
		}
		time.Sleep(time.Millisecond)
	}
}

// answers tells whether a broker answers.
func answers(ctx context.Context, addr string) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	c.close()
	return nil
}

// ended tells whether the process is gone; stop still has to wait for it.
func (s *server) ended() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid()))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// tail is the end of what the program said.
func (s *server) tail() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// kill ends the program as a crash does.
func (s *server) kill() error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it says that it was killed
	return errors.Join(err, s.file.Close())
}

// stop ends the program.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
	kill := time.AfterFunc(stopWithin, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return errors.Join(err, s.file.Close())
	}
	return s.file.Close()
}
