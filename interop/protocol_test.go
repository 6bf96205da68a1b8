package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// replyMark starts each line that is an answer and not a library's own noise.
const replyMark = "@leat "

// driverTimeout bounds one request to a driver, its start included: a client
// that hangs fails its own test and not the whole suite by the go tool's limit.
const driverTimeout = 2 * time.Minute

// request is one order to a driver. Which fields count depends on Op.
type request struct {
	Op          string            `json:"op"`
	Addr        string            `json:"addr"`
	Topic       string            `json:"topic,omitempty"`
	Partitions  int               `json:"partitions,omitempty"`
	Replication int               `json:"replication,omitempty"`
	Configs     map[string]string `json:"configs,omitempty"`
	Partition   int32             `json:"partition"`
	Codec       string            `json:"codec,omitempty"`
	Acks        string            `json:"acks,omitempty"`
	Idempotent  bool              `json:"idempotent"`
	File        string            `json:"file,omitempty"`
	Offset      int64             `json:"offset"`
	Count       int               `json:"count,omitempty"`
	Timestamp   int64             `json:"ts,omitempty"`
	Group       string            `json:"group,omitempty"`
	SessionMS   int               `json:"session_ms,omitempty"`
	WaitMS      int               `json:"wait_ms,omitempty"`
	Class       string            `json:"class,omitempty"`
	Args        []string          `json:"args,omitempty"`
	Input       string            `json:"input,omitempty"`
	Txn         string            `json:"txn,omitempty"`    // the transactional id
	TxnMS       int               `json:"txn_ms,omitempty"` // the transaction's time-out
	Committed   bool              `json:"committed"`        // read only what is committed
	Values      []string          `json:"values,omitempty"` // what to write in a transaction
	Login       *login            `json:"login,omitempty"`  // nil: neither TLS nor a login
}

// login says how a client reaches a listener with TLS, and who it is. Its certificate and its password are both optional.
type login struct {
	CA          string `json:"ca"`                    // file with the certificate of the authority that signs the servers' ones
	Certificate string `json:"certificate,omitempty"` // file with the client's key and certificate
	Mechanism   string `json:"mechanism,omitempty"`   // of SASL, in its full name; "" is none
	User        string `json:"user,omitempty"`
	Password    string `json:"password,omitempty"`
	Token       string `json:"token,omitempty"` // file with the token of OAUTHBEARER
}

// response is a driver's answer. Code is the protocol's error code when the
// library told it, or the library's own (negative in librdkafka).
type response struct {
	OK         bool          `json:"ok"`
	Error      string        `json:"error,omitempty"`
	Code       int           `json:"code"`
	Partitions int           `json:"partitions"`
	Leaders    int           `json:"leaders"`
	Offsets    []int64       `json:"offsets"`
	Offset     int64         `json:"offset"`
	Count      int           `json:"count"`
	Records    []groupRecord `json:"records"`
	Output     string        `json:"output"`
	Exit       int           `json:"exit"`
	ThrottleMS int           `json:"throttle_ms"` // the longest time for which the broker had the client wait
}

// groupRecord is a record that a group member was given.
type groupRecord struct {
	Partition int32  `json:"p"`
	Offset    int64  `json:"o"`
	Value     string `json:"v"`
}

// driver is one running driver process. Requests are made one at a time; only
// the test that started it may call it.
type driver struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	replies chan string   // closed when the process has closed its output
	died    chan struct{} // closed when the process has been waited for

	mu    sync.Mutex
	noise []string // the newest lines that were no answers, for failure messages
}

// start runs cmd as a driver and ends it with the test.
func start(t *testing.T, name string, cmd *exec.Cmd) *driver {
	t.Helper()
	d := &driver{name: name, cmd: cmd, replies: make(chan string, 1), died: make(chan struct{})}
	// A group of its own, so that kill reaches what a driver runs in turn (kcat).
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.stdin = stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: start driver: %v", name, err)
	}
	var readers sync.WaitGroup
	readers.Go(func() {
		defer close(d.replies)
		d.read(stdout, func(line string) { d.replies <- line })
	})
	readers.Go(func() { d.read(stderr, func(string) {}) })
	go func() {
		defer close(d.died)
		readers.Wait()
		_ = cmd.Wait()
	}()
	t.Cleanup(func() { d.stop(t) })
	return d
}

// read splits r into lines, hands answers to reply and keeps the rest.
func (d *driver) read(r io.Reader, reply func(string)) {
	lines := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := lines.ReadString('\n')
		if text, ok := strings.CutPrefix(line, replyMark); ok {
			reply(text)
		} else if line = strings.TrimSpace(line); line != "" {
			d.mu.Lock()
			if d.noise = append(d.noise, line); len(d.noise) > 60 {
				d.noise = d.noise[1:]
			}
			d.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// said returns the newest lines that the library itself printed.
func (d *driver) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.noise, "\n\t")
}

// ask sends one request and returns the answer, which may be an error of the
// client. A driver that breaks off or hangs ends the test.
func (d *driver) ask(t *testing.T, q request) response {
	t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.stdin.Write(append(line, '\n')); err != nil {
		t.Fatalf("%s: %s: driver is gone: %v\n\t%s", d.name, q.Op, err, d.said())
	}
	select {
	case line, ok := <-d.replies:
		if !ok {
			t.Fatalf("%s: %s: driver ended without an answer\n\t%s", d.name, q.Op, d.said())
		}
		var a response
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%s: %s: answer %.200q: %v", d.name, q.Op, line, err)
		}
		return a
	case <-time.After(driverTimeout):
		d.kill()
		t.Fatalf("%s: %s: no answer within %v\n\t%s", d.name, q.Op, driverTimeout, d.said())
	}
	return response{}
}

// must is ask for a request that has to succeed.
func (d *driver) must(t *testing.T, q request) response {
	t.Helper()
	a := d.ask(t, q)
	if !a.OK {
		t.Fatalf("%s: %s %s: %s (code %d)\n\t%s", d.name, q.Op, q.Topic, a.Error, a.Code, d.said())
	}
	return a
}

// kill ends the driver and all that it runs at once, as kill -9 does.
func (d *driver) kill() {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
	for range d.replies { // only drained, so that the reader ends
		continue
	}
	<-d.died
}

// stop asks the driver to end by closing its input, and kills it when it does not.
func (d *driver) stop(t *testing.T) {
	t.Helper()
	_ = d.stdin.Close()
	go func() {
		for range d.replies { // only drained, so that the reader ends
			continue
		}
	}()
	select {
	case <-d.died:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.died
	}
	if t.Failed() {
		if said := d.said(); said != "" {
			t.Logf("%s said:\n\t%s", d.name, said)
		}
	}
}

// coded is an error with the code that the broker or the library gave it.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// ops is a driver in Go: what it does for each request.
type ops map[string]func(request) (response, error)

// serve is the driver's side of the protocol: it answers until input ends.
func (o ops) serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var q request
		if err := json.Unmarshal(line, &q); err != nil {
			return err
		}
		reply, err := json.Marshal(o.do(q))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s%s\n", replyMark, reply); err != nil {
			return err
		}
	}
}

func (o ops) do(q request) response {
	do, ok := o[q.Op]
	if !ok {
		return response{Error: "this driver has no " + q.Op}
	}
	a, err := do(q)
	if err == nil {
		a.OK = true
		return a
	}
	a = response{Error: err.Error()}
	if c, ok := errors.AsType[*coded](err); ok {
		a.Code = c.code
	}
	return a
}

// goDriver returns the command that runs the named Go driver: this test binary again.
func goDriver(name string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), driverEnv+"="+name)
	return cmd
}
