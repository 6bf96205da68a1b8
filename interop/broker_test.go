package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
)

const (
	readyTimeout = 60 * time.Second // Kafka's format and start on a busy machine
	stopTimeout  = 20 * time.Second // longer is a failure to stop cleanly
)

// broker is a broker process under test.
type broker struct {
	addr    string
	dataDir string // "" when it runs elsewhere
	set     []string

	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when the process has been waited for
}

// brokers are shared by the tests that need nothing special; they are started
// at first use and stopped by TestMain.
var brokers struct {
	mu      sync.Mutex
	started map[string]*broker
}

// shared returns the broker with these settings, as name=value words in Kafka's
// names; all tests with the same words share it.
func shared(t *testing.T, set ...string) *broker {
	t.Helper()
	brokers.mu.Lock()
	defer brokers.mu.Unlock()
	key := strings.Join(set, " ")
	if b := brokers.started[key]; b != nil {
		if b.cmd != nil && closed(b.done) {
			t.Fatalf("the broker has died:\n%s", b.log)
		}
		return b
	}
	dir, err := os.MkdirTemp("", "leat-interop-") //nolint:usetesting // it outlives the test that comes first
	if err != nil {
		t.Fatal(err)
	}
	b, err := startBroker(t, dir, set)
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	if brokers.started == nil {
		brokers.started = map[string]*broker{}
	}
	brokers.started[key] = b
	return b
}

// stopBrokers ends the shared brokers and removes their data.
func stopBrokers() {
	brokers.mu.Lock()
	defer brokers.mu.Unlock()
	for _, b := range brokers.started {
		if b.cmd != nil {
			if err := b.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop broker:", err)
			}
		}
		if b.dataDir != "" {
			_ = os.RemoveAll(b.dataDir)
		}
	}
}

// ownBroker starts a broker for one test, which ends with it.
func ownBroker(t *testing.T, set ...string) *broker {
	t.Helper()
	if os.Getenv(addrEnv) != "" {
		t.Skip("needs a broker of its own; " + addrEnv + " names a running one")
	}
	b, err := startBroker(t, t.TempDir(), set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !closed(b.done) {
			if err := b.stop(); err != nil {
				t.Errorf("stop broker: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("broker said:\n%s", b.log)
		}
	})
	return b
}

func startBroker(t *testing.T, dir string, set []string) (*broker, error) {
	t.Helper()
	if addr := os.Getenv(addrEnv); addr != "" {
		b := &broker{addr: addr}
		return b, b.waitReady()
	}
	b := &broker{dataDir: dir, set: set}
	kafka := os.Getenv(brokerEnv) == "kafka"
	var leat string
	if !kafka {
		leat = leatBinary(t)
	}
	// A free port can be taken by someone else before the broker listens on it.
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(2)
		if err != nil {
			return nil, err
		}
		b.addr = "127.0.0.1:" + strconv.Itoa(ports[0])
		if kafka {
			err = b.prepareKafka(t, ports[1])
		} else {
			args := []string{"up", "--data", dir, "--listen", b.addr, "--http", "127.0.0.1:" + strconv.Itoa(ports[1])}
			for _, s := range set {
				args = append(args, "--set", s)
			}
			b.cmd = exec.Command(leat, args...)
		}
		if err != nil {
			return nil, err
		}
		if err = b.run(); err == nil {
			return b, nil
		}
		if attempt == 3 {
			return nil, err
		}
	}
}

// prepareKafka formats the directory of an Apache Kafka of one node and sets
// the command that runs it.
func (b *broker) prepareKafka(t *testing.T, controllerPort int) error {
	t.Helper()
	conf := map[string]string{
		"process.roles": "broker,controller", "node.id": "1",
		"controller.quorum.voters":                         fmt.Sprintf("1@127.0.0.1:%d", controllerPort),
		"listeners":                                        fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d", b.addr, controllerPort),
		"controller.listener.names":                        "CONTROLLER",
		"log.dirs":                                         filepath.Join(b.dataDir, "log"),
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"offsets.topic.num.partitions":                     "4",
		"share.coordinator.state.topic.replication.factor": "1",
	}
	for _, s := range b.set {
		name, value, _ := strings.Cut(s, "=")
		conf[name] = value
	}
	var text strings.Builder
	for name, value := range conf {
		fmt.Fprintf(&text, "%s=%s\n", name, value)
	}
	path := filepath.Join(b.dataDir, "server.properties")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.dataDir, "log", "meta.properties")); errors.Is(err, fs.ErrNotExist) {
		out, err := java(t, 128, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("format: %w: %s", err, out)
		}
	}
	b.cmd = java(t, 512, "kafka.Kafka", path)
	return nil
}

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
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.done
	b.cmd = exec.Command(b.cmd.Path, b.cmd.Args[1:]...)
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

// freePorts returns ports of the loopback that nobody listens on now.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() //nolint:revive // all stay open until all are known, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
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
