//go:build unix

// The tests of this folder run the binary as a person would: as a process, by its command line, and
// over its ports. They know nothing of its insides.
package main_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// leat is the path of the binary under test, built by TestMain.
var leat string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "leat-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		leat = filepath.Join(dir, "leat")
		var out []byte
		if out, err = exec.Command("go", "build", "-buildvcs=auto", "-o", leat, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		panic(fmt.Sprintf("cannot build the binary: %v", err))
	}
	m.Run()
}

const (
	readyLimit = time.Minute      // generous, since the machine may be busy; a start takes milliseconds
	stopLimit  = 15 * time.Second // "within seconds"
)

// process is a running "leat up".
type process struct {
	cmd  *exec.Cmd
	addr string // the address of the Kafka port
	out  *output
	done chan struct{} // closed when it has ended; then err is set
	err  error
}

// output collects what a process prints. It is safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

var givenPorts sync.Map // that freeAddr has returned

// freeAddr returns an address of the loopback that nobody listens on now, and that it has not returned before. The system
// gives its port to nobody else: it is below those of connections and of listeners that ask for any port.
func freeAddr(t *testing.T) string {
	t.Helper()
	const lowest, ports = 12_000, 20_000
	for range 1000 {
		port := lowest + rand.IntN(ports)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// launch starts "leat up" on dir and addr and does not wait for anything.
func launch(t *testing.T, dir, addr string, args ...string) *process {
	t.Helper()
	p := &process{addr: addr, cmd: exec.Command(leat, append([]string{"up", "--data", dir, "--listen", addr}, args...)...)}
	p.start(t, dir)
	return p
}

// launchLine starts the binary with these arguments, and does not wait for anything.
func launchLine(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(leat, args...)}
	p.start(t, "")
	return p
}

// start starts p.cmd and does not wait for anything.
func (p *process) start(t *testing.T, dir string) {
	t.Helper()
	p.out, p.done = &output{}, make(chan struct{})
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := p.out.String()
			t.Logf("leat up --data %s said:\n%s", dir, text[max(0, len(text)-4000):])
		}
	})
}

// up starts a node on dir and waits until it answers.
func up(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	return upAt(t, dir, freeAddr(t), args...)
}

func upAt(t *testing.T, dir, addr string, args ...string) *process {
	t.Helper()
	p := launch(t, dir, addr, append([]string{"--http", "off"}, args...)...)
	p.awaitReady(t)
	return p
}

func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	until := time.Now().Add(readyLimit)
	for {
		err := ping(p.addr)
		if err == nil {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("leat up ended: %v\n%s", p.err, p.out)
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(until) {
			t.Fatalf("leat up does not answer within %v: %v\n%s", readyLimit, err, p.out)
		}
	}
}

// ping asks for the API versions with the oldest version of that request.
func ping(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	const correlation = 7
	if _, err := c.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, correlation, 0xff, 0xff}); err != nil {
		return err
	}
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != correlation {
		return fmt.Errorf("the answer has correlation id %d, want %d", id, correlation)
	}
	return nil
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // an error means that it has ended already
	<-p.done
}

// stop ends the process as an operator does. The process must end soon, and with success.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.awaitEnd(t)
	if p.err != nil {
		t.Fatalf("after SIGTERM: %v\n%s", p.err, p.out)
	}
}

func (p *process) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		t.Fatalf("leat up has not ended within %v\n%s", stopLimit, p.out)
	}
}

// exitCode is the exit status of a process that has ended.
func (p *process) exitCode() int {
	if e, ok := errors.AsType[*exec.ExitError](p.err); ok {
		return e.ExitCode()
	}
	return 0
}

// client returns a client of the node, which is closed when the test ends.
func (p *process) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(p.addr)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}
