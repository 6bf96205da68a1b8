package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// How the broker under test is chosen; without any, ../cmd/leat is built and started.
const (
	brokerEnv = "LEAT_INTEROP_BROKER" // "kafka": Apache Kafka, from the jars that the tools are in
	addrEnv   = "LEAT_INTEROP_ADDR"   // HOST:PORT of a broker that runs already
	binaryEnv = "LEAT_INTEROP_BINARY" // path of a leat that was built before
	nodesEnv  = "LEAT_INTEROP_NODES"  // how many nodes the shared brokers have, 1 unless set
)

const (
	readyTimeout = 3 * time.Minute  // Kafka's format and start on a busy machine
	stopTimeout  = 20 * time.Second // longer is a failure to stop cleanly
)

// broker is a broker process under test.
type broker struct {
	addr    string
	dataDir string // "" when it runs elsewhere
	set     []string
	factor  int // how many replicas the tests' topics have

	aside         string // the address of its HTTP port, or that of Apache Kafka's controller
	outside, told string // the address of its second listener, and the one that clients are told there; told is "" if there is none

	more  []listener        // its other listeners
	ports map[string]string // the ports of these, by name

	again []string // the arguments with which it is started again

	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when the process has been waited for
}

// brokers are shared by the tests that need nothing special; they are started
// at first use and stopped by TestMain.
var brokers struct {
	mu      sync.Mutex
	started map[string]*cluster
}

// shared returns the broker with these settings, as name=value words in Kafka's
// names; all tests with the same words share it. If the suite runs against several
// nodes, it is one of them, by which clients find the others.
func shared(t *testing.T, set ...string) *broker {
	t.Helper()
	brokers.mu.Lock()
	defer brokers.mu.Unlock()
	key := strings.Join(set, " ")
	if c := brokers.started[key]; c != nil {
		for _, b := range c.nodes {
			if b.cmd != nil && closed(b.done) {
				t.Fatalf("the broker has died:\n%s", b.log)
			}
		}
		return c.nodes[0]
	}
	dir, err := os.MkdirTemp("", "leat-interop-") //nolint:usetesting // it outlives the test that comes first
	if err != nil {
		t.Fatal(err)
	}
	c, err := startCluster(t, dir, clusterPlan{nodes: sharedNodes(t), set: set})
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	if brokers.started == nil {
		brokers.started = map[string]*cluster{}
	}
	brokers.started[key] = c
	return c.nodes[0]
}

// sharedNodes is how many nodes the shared brokers have.
func sharedNodes(t *testing.T) int {
	t.Helper()
	text := os.Getenv(nodesEnv)
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no number of nodes", nodesEnv, text)
	}
	return n
}

// stopBrokers ends the shared brokers and removes their data.
func stopBrokers() {
	brokers.mu.Lock()
	defer brokers.mu.Unlock()
	for _, c := range brokers.started {
		if err := c.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop broker:", err)
		}
		for _, b := range c.nodes {
			if b.dataDir != "" {
				_ = os.RemoveAll(filepath.Dir(filepath.Dir(b.dataDir))) // DIR/ATTEMPT/NODE
			}
		}
	}
}

// ownBroker starts a broker for one test, which ends with it.
func ownBroker(t *testing.T, set ...string) *broker {
	t.Helper()
	return ownCluster(t, 1, set...).nodes[0]
}

// runsKafka tells whether the suite runs against Apache Kafka.
func runsKafka() bool { return os.Getenv(brokerEnv) == "kafka" }

// run starts the process and waits until it answers.
func (b *broker) run() error {
	b.log = &tail{}
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	b.done = make(chan struct{})
	if err := b.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(b.done)
		_ = b.cmd.Wait()
	}()
	if err := b.waitReady(); err != nil {
		_ = b.cmd.Process.Kill()
		<-b.done
		return fmt.Errorf("%w\n%s said:\n%s", err, b.cmd.Path, b.log)
	}
	return nil
}

// waitReady returns when the broker answers a client.
func (b *broker) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		if err = cl.Ping(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil || b.done != nil && closed(b.done) {
			return fmt.Errorf("broker at %s is not ready: %w", b.addr, err)
		}
		// Refused connections come back at once; give the process its core.
		time.Sleep(5 * time.Millisecond)
	}
}

// stop asks the process to end, as an operator does, and waits.
func (b *broker) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return b.awaitEnd()
}

// awaitEnd waits for a process that was asked to end.
func (b *broker) awaitEnd() error {
	select {
	case <-b.done:
		return nil
	case <-time.After(stopTimeout):
		_ = b.cmd.Process.Kill()
		<-b.done
		return fmt.Errorf("%s did not stop within %v of SIGTERM:\n%s", b.cmd.Path, stopTimeout, b.log)
	}
}

// restart kills the process as kill -9 does and starts it again on its data.
func (b *broker) restart(t *testing.T) {
	t.Helper()
	b.kill(t)
	b.startAgain(t)
}

// kill ends the process as kill -9 does.
func (b *broker) kill(t *testing.T) {
	t.Helper()
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.done
}

// startAgain starts a process that has ended again, on its data.
func (b *broker) startAgain(t *testing.T) {
	t.Helper()
	b.cmd = exec.Command(b.cmd.Path, b.again...)
	if err := b.run(); err != nil {
		t.Fatal(err)
	}
}

// segments returns the files with this extension in the folders of a topic's partitions.
func (b *broker) segments(t *testing.T, topic, ext string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(b.dataDir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running broker removes files
		}
		if err == nil && !d.IsDir() && filepath.Ext(path) == ext && strings.HasPrefix(filepath.Base(filepath.Dir(path)), topic+"-") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var build struct {
	once sync.Once
	path string
	err  error
}

// leatBinary builds ../cmd/leat once.
func leatBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(binaryEnv); path != "" {
		return path
	}
	build.once.Do(func() {
		var dir string
		if dir, build.err = cacheDir("bin"); build.err != nil {
			return
		}
		build.path = filepath.Join(dir, "leat")
		cmd := exec.Command("go", "build", "-o", build.path, "./cmd/leat")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("go build ./cmd/leat: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// The ports of brokers are below those that the system gives to outgoing connections: one of these could take the
// port of a broker that is being restarted.
const (
	lowestPort = 20_000
	ports      = 9000 // so many
)

// freePorts returns ports of the loopback that nobody listens on now.
func freePorts(n int) (found []int, err error) {
	for range 100 {
		port := lowestPort + rand.IntN(ports)
		l, listenErr := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if listenErr != nil {
			err = listenErr
			continue
		}
		defer l.Close() //nolint:revive // all stay open until all are known, so that they differ
		if found = append(found, port); len(found) == n {
			return found, nil
		}
	}
	return nil, fmt.Errorf("no %d ports are free: %w", n, err)
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// tail keeps the end of what a process prints. It is safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 16 << 10

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if over := len(w.buf) - tailBytes; over > tailBytes {
		w.buf = append([]byte(nil), w.buf[over:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.TrimSpace(w.buf[max(0, len(w.buf)-tailBytes):]))
}
