package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// listedNodes finds the nodes in what "leat up --nodes" says when it is ready.
var listedNodes = regexp.MustCompile(`(?m)^ +(\d)  (127\.0\.0\.1:\d+) +(\d+)  (\S+)$`)

// threeNodes are three nodes that one command runs.
type threeNodes struct {
	*process
	addrs []string
	pids  []int
}

// upNodes runs "leat up --nodes 3" and waits until it is ready.
func upNodes(t *testing.T, dir string, args ...string) *threeNodes {
	t.Helper()
	n := &threeNodes{process: launchNodes(t, dir, args...)}
	eventually(t, "the nodes are ready", func() bool {
		select {
		case <-n.done:
			t.Fatalf("it has ended: %v\n%s", n.err, n.out)
		default:
		}
		return strings.Contains(n.out.String(), "stop all with Ctrl-C")
	})
	for _, m := range listedNodes.FindAllStringSubmatch(n.out.String(), -1) {
		pid, _ := strconv.Atoi(m[3])
		n.addrs, n.pids = append(n.addrs, m[2]), append(n.pids, pid)
	}
	if len(n.pids) != 3 {
		t.Fatalf("it says\n%s", n.out)
	}
	return n
}

func launchNodes(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	return launchLine(t, append([]string{"up", "--nodes", "3", "--data", dir, "--http", "off"}, args...)...)
}

// isRunning tells whether a process runs; one that has ended and nobody has waited for does not.
func isRunning(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// client returns a client of all nodes.
func (n *threeNodes) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.addrs...), kgo.MetadataMinAge(50 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// TestThreeNodesOnOneMachine proves that one command runs a cluster of three nodes, which outlives any of
// them, and starts it again; that a node that dies is told of and not started; that Ctrl-C and the end of the
// command, whatever it is, stop all nodes; and that they keep what was acknowledged.
func TestThreeNodesOnOneMachine(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cluster")
	n := upNodes(t, dir)
	tryVerb(t, t.TempDir(), "", "topic create t --partitions 3 --bootstrap "+strings.Join(n.addrs, ",")).expect(t, 0)
	producer := n.client(t, kgo.DefaultProduceTopic("t"))
	sent := 0
	send := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 100 {
			sent++
			if err := producer.ProduceSync(ctx, kgo.StringRecord(strconv.Itoa(sent))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	send()
	if err := syscall.Kill(n.pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	send()
	eventually(t, "the end of the node is told", func() bool {
		return strings.Contains(n.out.String(), "node 1 has ended (signal: killed), and is not started again")
	})
	awaitCluster(t, n.addrs[1], "two nodes serve", func(c *clusterSight) bool { return c.countActive() == 2 && c.Offline == 0 })
	if isRunning(n.pids[0]) {
		t.Error("node 1 runs again")
	}
	if err := n.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	awaitNodesEnd(t, n)
	if n.exitCode() != 0 {
		t.Errorf("after Ctrl-C it ends with %d: %s", n.exitCode(), n.out)
	}

	n = upNodes(t, dir)
	awaitCluster(t, n.addrs[0], "all nodes serve, and all partitions are in sync", func(c *clusterSight) bool { return c.countActive() == 3 && c.Offline+c.Missing == 0 })
	producer = n.client(t, kgo.DefaultProduceTopic("t"))
	send()
	second := launchNodes(t, dir)
	second.awaitEnd(t)
	if text := second.out.String(); second.exitCode() != 1 || !strings.Contains(text, "is taken by another program, or by this cluster, which runs already") {
		t.Errorf("a second one ends with %d: %s", second.exitCode(), text)
	}
	n.kill()
	awaitNodesEnd(t, n)

	n = upNodes(t, dir)
	reader := n.client(t, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	read := map[string]int{}
	for len(read) < sent {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		fetches := reader.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(read), sent, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { read[string(r.Value)]++ })
	}
	for value, times := range read {
		if times != 1 {
			t.Errorf("record %s is there %d times", value, times)
		}
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitNodesEnd(t, n)
}

func awaitNodesEnd(t *testing.T, n *threeNodes) {
	t.Helper()
	eventually(t, "all processes have ended", func() bool { return !slices.ContainsFunc(n.pids, isRunning) })
	n.awaitEnd(t)
}

// TestReadmeStartsAClusterOfThree proves that the three commands of README.md, in three terminals, are a cluster
// that goes on when any of its nodes is killed.
func TestReadmeStartsAClusterOfThree(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "in three terminals of one machine:")
	part, _, _ = strings.Cut(part, "On machines of their own")
	lines := regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(part, -1)
	if len(lines) != 3 {
		t.Fatalf("README.md has %d commands: %q", len(lines), lines)
	}
	dir := t.TempDir()
	var addrs []string
	var all []*process
	for i, line := range lines {
		addr := freeAddr(t)
		addrs = append(addrs, addr)
		command := line[1]
		if i == 0 {
			command += " --listen " + addr
		}
		for port, mine := range map[string]string{"localhost:9092": addrs[0], "127.0.0.1:9094": addr, "127.0.0.1:9096": addr} {
			command = strings.ReplaceAll(command, port, mine)
		}
		p := &process{addr: addr, cmd: exec.Command("sh", "-c", "exec env "+command+" --http off")}
		p.cmd.Dir = dir
		p.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(leat)+":"+os.Getenv("PATH"))
		p.start(t, dir)
		p.awaitReady(t)
		all = append(all, p)
	}
	bootstrap := strings.Join(addrs, ",")
	awaitCluster(t, addrs[0], "all nodes vote", func(c *clusterSight) bool { return c.countVoters() == 3 && c.countActive() == 3 })
	producer := (&threeNodes{addrs: addrs}).client(t, kgo.DefaultProduceTopic("t"))
	tryVerb(t, dir, "", "topic create t --partitions 3 --bootstrap "+bootstrap).expect(t, 0)
	for i, p := range all {
		p.kill()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for range 20 {
			if err := producer.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
				t.Fatalf("without node %d: %v", i+1, err)
			}
		}
		cancel()
		again := &process{addr: p.addr, cmd: exec.Command(p.cmd.Path, p.cmd.Args[1:]...)}
		again.cmd.Dir, again.cmd.Env = p.cmd.Dir, p.cmd.Env
		again.start(t, dir)
		again.awaitReady(t)
		awaitCluster(t, p.addr, "all are in sync", func(c *clusterSight) bool { return c.countActive() == 3 && c.Offline+c.Missing == 0 })
	}
	read := tryVerb(t, dir, "", "consume t --from start --exit --bootstrap "+bootstrap)
	read.expect(t, 0)
	if got := strings.Count(read.stdout, "x\n"); got != 60 {
		t.Errorf("%d of 60 records are there", got)
	}
}

// TestNodesAreRefused proves that one command does not run several nodes where that makes no sense, and says
// why.
func TestNodesAreRefused(t *testing.T) {
	t.Parallel()
	single := t.TempDir()
	up(t, single).stop(t)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--nodes 0", 2, "give a number of nodes from 1 to 9"},
		{"--nodes many", 2, "write a whole number"},
		{"--nodes 3 --listen :9092 --id 4", 2, "leave out listen and id"},
		{"--nodes 3 --join one:9092", 2, "leave out join"},
		{"--nodes 3 --data " + single, 1, "is the data directory of one node"},
	} {
		p := launchLine(t, append([]string{"up"}, strings.Fields(c.args)...)...)
		p.awaitEnd(t)
		if text := p.out.String(); p.exitCode() != c.code || !strings.Contains(text, c.says) {
			t.Errorf("leat up %s ends with %d: %s", c.args, p.exitCode(), text)
		}
	}
}

// TestDemoOfNodes proves that a key kills a node of the demo, and starts it again, that records flow on
// meanwhile, and that the picture says so and leaves nothing behind.
func TestDemoOfNodes(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	_, port, err := net.SplitHostPort(keptAddr(t)) // other demos take the usual ports while a node is away
	if err != nil {
		t.Fatal(err)
	}
	tt := newTerminal(t, 100, 30)
	p := tt.runWith(t, []string{"TMPDIR=" + temporary}, "demo", "--nodes", "3", "--port", port)
	sees := func(what, pattern string) {
		t.Helper()
		seen := regexp.MustCompile(pattern)
		eventually(t, what, func() bool { return seen.MatchString(tt.String()) })
	}
	row := func(number int, state string) string {
		return fmt.Sprintf(`(?m)^%d +127\.0\.0\.1:\d+ +%s`, number, state)
	}
	for i := 1; i <= 3; i++ {
		sees("all nodes run", row(i, "running +[1-4] partition"))
	}
	records := func() int {
		m := regexp.MustCompile(`│ out .*│ +([0-9,]+) │`).FindStringSubmatch(tt.String())
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
		return n
	}
	tt.typeText(t, "2")
	sees("node 2 is killed", row(2, "killed"))
	sees("others have taken over", `Node 2 was killed \d+s ago: nothing is lost, and no record waited longer than [0-9.µms]+ for`)
	before := records()
	eventually(t, "records flow on", func() bool { return records() > before+2000 })
	tt.typeText(t, "2")
	sees("node 2 runs again", row(2, "running"))
	before = records()
	eventually(t, "records flow on", func() bool { return records() > before+2000 })
	tt.typeText(t, "23") // most of the nodes: nothing goes on until one is back
	sees("node 2 is killed", row(2, "killed"))
	sees("node 3 is killed", row(3, "killed"))
	time.Sleep(3 * time.Second) // clients fail in many ways meanwhile
	tt.typeText(t, "3")
	sees("node 3 runs again", row(3, "running"))
	before = records()
	eventually(t, "records flow on", func() bool { return records() > before+2000 })
	if shown := tt.String(); !strings.Contains(shown, "nothing is lost") || strings.Count(shown, "leat demo") != 1 {
		t.Errorf("it shows\n%s", shown)
	}
	tt.typeText(t, "\x03")
	p.awaitEnd(t)
	if p.exitCode() != 0 {
		t.Errorf("it ends with %d", p.exitCode())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v: %v", left, err)
	}
}
