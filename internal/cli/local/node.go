package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// State is the state of a node's process.
type State int8

// The states.
const (
	Absent State = iota
	Starting
	Ready
)

func (s State) String() string { return [...]string{"stopped", "starting", "running"}[s] }

// Node is a node of a cluster on this machine, whether it runs or not.
type Node struct {
	Number  int
	Dir     string
	Address string

	cluster     *Cluster
	isMember    bool   // the directory had a node before the cluster was started
	join, token string // while it joins
	choosesID   bool   // while it joins: its number becomes its id

	mu      sync.Mutex
	process *process // guarded by mu; nil: none runs
}

// process is a process of a node.
type process struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	ready   chan struct{} // closed when it serves
	done    chan struct{} // closed when it has ended; then err does not change
	err     error
	reading sync.WaitGroup // of its output

	mu       sync.Mutex
	lastLine string // guarded by mu: of its log
	wanted   bool   // guarded by mu: it was asked to end
}

// State is the state of the node's process.
func (n *Node) State() State {
	p := n.current()
	switch {
	case p == nil:
		return Absent
	case isClosed(p.ready):
		return Ready
	default:
		return Starting
	}
}

// PID is the id of the node's process; 0: it has none.
func (n *Node) PID() int {
	if p := n.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Start starts the node and returns when it serves. It does nothing if the node runs.
func (n *Node) Start(ctx context.Context) error {
	p, err := n.launch()
	if err != nil {
		return err
	}
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		return fmt.Errorf("node %d has not started: %s", n.Number, p.lastWords())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// launch starts the process, unless there is one.
func (n *Node) launch() (*process, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		return n.process, nil
	}
	p := &process{ready: make(chan struct{}), done: make(chan struct{})}
	p.cmd = exec.Command(n.cluster.cfg.Program, n.arguments()...) //nolint:noctx // it ends by its standard input, in order
	if n.token != "" {
		p.cmd.Env = append(os.Environ(), "LEAT_TOKEN="+n.token) // not as a flag, which others can see
	}
	stdin, err := p.cmd.StdinPipe()
	var stdout, stderr io.Reader
	if err == nil {
		stdout, err = p.cmd.StdoutPipe()
	}
	if err == nil {
		stderr, err = p.cmd.StderrPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting node %d: %w", n.Number, err)
	}
	p.stdin = stdin
	n.process = p
	p.reading.Go(func() { readLines(stdout, p.noteReady) })
	p.reading.Go(func() { readLines(stderr, func(line string) { p.noteLine(line); n.cluster.cfg.Log(n.Number, line) }) })
	go n.awaitEnd(p) // Stop and Kill wait for it
	return p, nil
}

// arguments are those of the node's process.
func (n *Node) arguments() []string {
	cfg := &n.cluster.cfg
	args := append([]string{"up", "--until-eof", "--data", n.Dir, "--listen", n.Address}, cfg.Args...)
	if n.join != "" {
		args = append(args, "--join", n.join)
	}
	if n.choosesID {
		args = append(args, "--id", strconv.Itoa(n.Number))
	}
	switch {
	case cfg.HTTP == "off" || n.Number > 1 && cfg.HTTP == "":
		args = append(args, "--http", "off")
	case n.Number > 1:
		args = append(args, "--http", "127.0.0.1:0")
	case cfg.HTTP != "":
		args = append(args, "--http", cfg.HTTP)
	}
	return args
}

// readLines reads lines until the end. A line that is too long ends the telling, but not the reading.
func readLines(r io.Reader, tell func(line string)) {
	const longest = 1 << 20
	s := bufio.NewScanner(r)
	s.Buffer(nil, longest)
	for s.Scan() {
		tell(s.Text())
	}
	_, _ = io.Copy(io.Discard, r) // the process must not wait for a reader
}

// noteReady notes that the process serves: it says so in the only line on its standard output.
func (p *process) noteReady(string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isClosed(p.ready) {
		close(p.ready)
	}
}

func (p *process) noteLine(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasPrefix(line, "leat: ") || p.lastLine == "" {
		p.lastLine = strings.TrimPrefix(line, "leat: ")
	}
}

// lastWords are why the process has ended, as it or the system says.
func (p *process) lastWords() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastLine != "" {
		return p.lastLine
	}
	if p.err != nil {
		return p.err.Error()
	}
	return "it has ended"
}

// awaitEnd waits for the end of a process.
func (n *Node) awaitEnd(p *process) {
	p.reading.Wait()
	p.err = p.cmd.Wait()
	n.mu.Lock()
	n.process = nil
	n.mu.Unlock()
	p.mu.Lock()
	tells := !p.wanted && isClosed(p.ready)
	p.mu.Unlock()
	close(p.done)
	if tells {
		n.cluster.cfg.Ended(n, p.err)
	}
}

// ask asks the process to end, by a function, and waits until it has.
func (n *Node) ask(end func(p *process) error) error {
	p := n.current()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	p.wanted = true
	p.mu.Unlock()
	err := end(p)
	<-p.done
	return err
}

// Kill ends the node as kill -9 does.
func (n *Node) Kill() error {
	return n.ask(func(p *process) error { return ignoreEnded(p.cmd.Process.Kill()) })
}

// Stop stops the node in order.
func (n *Node) Stop() error {
	return n.ask(func(p *process) error {
		if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
		select {
		case <-p.done:
		case <-time.After(stopTime):
			return errors.Join(fmt.Errorf("node %d has not stopped in %v and was killed", n.Number, stopTime), ignoreEnded(p.cmd.Process.Kill()))
		}
		return nil
	})
}

func ignoreEnded(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
