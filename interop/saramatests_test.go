package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// saramaSkips are the functional tests of Sarama that run other programs.
var saramaSkips = []struct{ name, reason string }{
	{"TestJava.*", "Java's clients, which TestClients and TestTools run"},
	{"TestFuncJavaInterop.*", "Java's clients, which TestClients and TestTools run"},
}

const (
	// saramaBrokers is how many brokers the tests of Sarama need, and firstSaramaPort the port of the first one, to
	// which their addresses are bound.
	saramaBrokers   = 5
	firstSaramaPort = 29_091
	// dockerEnv has the URL of the test that starts and stops the brokers for this binary when it is run as docker.
	dockerEnv = "LEAT_INTEROP_DOCKER"
	// saramaEnv has a pattern for the names of those tests that are wanted.
	saramaEnv = "LEAT_INTEROP_SARAMA"
)

// saramaKit holds the source of Sarama as the module proxy serves it.
var saramaKit = kit{
	name:   "sarama-source",
	inputs: []string{"go.mod"},
	fill: func(ctx context.Context, dir string) error {
		return copyModule(ctx, "github.com/IBM/sarama", filepath.Join(dir, "src"))
	},
}

// toxiproxyKit holds the proxy by which the tests of Sarama break connections.
var toxiproxyKit = kit{
	name:   "toxiproxy",
	inputs: []string{"saramatests_test.go"},
	fill: func(ctx context.Context, dir string) error {
		return command(ctx, dir, []string{"GOBIN=" + dir}, "go", "install", "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0")
	},
}

// TestSaramaOwnTests proves that the tests by which Sarama's authors check their client against five brokers of Apache
// Kafka pass against five of these.
func TestSaramaOwnTests(t *testing.T) {
	if sharedNodes(t) == 1 {
		t.Skip(nodesEnv + " is not set: the tests of Sarama take minutes (make test-interop-cluster)")
	}
	t.Parallel()
	src, proxy := filepath.Join(saramaKit.have(t), "src"), filepath.Join(toxiproxyKit.have(t), "server")
	c := ownPlannedCluster(t, clusterPlan{
		nodes: saramaBrokers,
		set: []string{
			quick, "auto.create.topics.enable=false", "default.replication.factor=2", "offsets.topic.replication.factor=2",
			"replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector",
		},
		tell: func(id int, _ string) string { return saramaAddr(id) },
	})
	toxic := startToxiproxy(t, proxy, c)
	docker := httptest.NewServer(&dockerServer{c: c})
	defer docker.Close()
	bin := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(bin, "docker"))
	}
	if err != nil {
		t.Fatal(err)
	}
	var skips []string
	for _, s := range saramaSkips {
		skips = append(skips, "^"+s.name+"$")
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-count=1", "-vet=off", "-tags=functional", "-timeout=25m", "-run", os.Getenv(saramaEnv), "-skip", strings.Join(skips, "|"), ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "TOXIPROXY_ADDR="+toxic, "KAFKA_VERSION=4.3.1", "GOWORK=off", "PATH="+bin+":"+os.Getenv("PATH"),
		dockerEnv+"="+docker.URL)
	out, err := cmd.CombinedOutput()
	if err != nil {
		var failed strings.Builder
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "--- FAIL") {
				failed.WriteString(line)
			}
		}
		log := filepath.Join(t.ArtifactDir(), "sarama.log")
		t.Fatalf("go test of sarama: %v\n%s\n%s\n%v", err, failed.String(), out[max(0, len(out)-10_000):], os.WriteFile(log, out, 0o600))
	}
	// A test that found no broker, or was renamed, would have proved nothing.
	contains(t, string(out), "--- PASS: TestFuncProducingIdempotentWithBrokerFailure", "--- PASS: TestConsumerFetchFollowerFailover", "--- PASS: TestFuncConsumerGroupFuzzy",
		"--- PASS: TestFuncTxnProduceWithBrokerFailure", "--- PASS: TestFuncTxnProduceEpochBump", "--- PASS: TestFuncTxnAbortedProduce", "--- PASS: TestFuncAdminQuotas")
}

func saramaAddr(id int) string { return "127.0.0.1:" + strconv.Itoa(firstSaramaPort+id-1) }

// startToxiproxy starts the proxy with an address of its own before each node, and returns the URL of its API.
func startToxiproxy(t *testing.T, program string, c *cluster) string {
	t.Helper()
	port, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	log := &tail{}
	cmd := exec.Command(program, "-host", "127.0.0.1", "-port", strconv.Itoa(port[0]))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	api := "http://127.0.0.1:" + strconv.Itoa(port[0])
	for i, b := range c.nodes {
		proxy := map[string]any{"name": fmt.Sprintf("kafka%d", i+1), "listen": saramaAddr(i + 1), "upstream": b.outside, "enabled": true}
		content, err := json.Marshal(proxy)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "toxiproxy has an address before a node", func() bool {
			resp, err := http.Post(api+"/proxies", "application/json", bytes.NewReader(content))
			if err != nil {
				time.Sleep(5 * time.Millisecond)
				return false
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				said, _ := io.ReadAll(resp.Body)
				t.Fatalf("toxiproxy: %s: %s\n%s", resp.Status, said, log)
			}
			return true
		})
	}
	return api
}

// dockerServer starts and stops brokers for tests that ask docker to do it.
type dockerServer struct {
	c  *cluster
	mu sync.Mutex // guards the nodes' processes
}

// ServeHTTP does what docker was asked by its arguments, one a line.
func (d *dockerServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	args := strings.Fields(string(body))
	id, err := strconv.Atoi(strings.TrimPrefix(args[len(args)-1], "kafka-"))
	if err != nil || len(args) < 3 || args[0] != "compose" || id < 1 || id > len(d.c.nodes) {
		http.Error(w, fmt.Sprintf("there is no docker here, and nothing that does %q", args), http.StatusBadRequest)
		return
	}
	b := d.c.nodes[id-1]
	switch {
	case args[1] == "stop" && !closed(b.done):
		err = b.stop()
	case args[1] == "start" && closed(b.done):
		b.cmd = exec.Command(b.cmd.Path, b.again...)
		err = b.run()
	case args[1] == "logs":
		_, err = io.WriteString(w, b.log.String())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// askDocker has this binary do what docker would.
func askDocker(url string, args []string) error {
	resp, err := http.Post(url, "text/plain", strings.NewReader(strings.Join(args, "\n")))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(said)))
	}
	_, err = os.Stdout.Write(said)
	return err
}
