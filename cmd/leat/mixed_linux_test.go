package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// previousVersion is the commit from which the previous version is built. There is no release yet; this is the first
// commit whose nodes form clusters.
const previousVersion = "d32b1880f6c4cd5a14793aed31e414c5b0da2462"

// buildPrevious builds the previous version from the history of the repository, and returns the program.
func buildPrevious(t *testing.T) string {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("LEAT_TEST_REQUIRE_ALL") == "1" {
		skip = t.Fatalf
	}
	git, err := exec.LookPath("git")
	if err != nil {
		skip("the previous version is built from the history of the repository, and there is no git")
	}
	if out, err := exec.CommandContext(t.Context(), git, "cat-file", "-e", previousVersion+"^{commit}").CombinedOutput(); err != nil {
		skip("the previous version, commit %s, is not in this copy of the repository: fetch all of its history with \"git fetch --unshallow\" (%s)", previousVersion[:7], out)
	}
	dir := t.TempDir()
	runProgram(t, filepath.Join("..", ".."), git, "archive", "--format=tar", "--output="+filepath.Join(dir, "previous.tar"), previousVersion)
	runProgram(t, dir, "tar", "-x", "-f", "previous.tar")
	program := filepath.Join(dir, "leat-previous")
	// The paths of temporary directories are kept out, so that what was compiled is found again next time.
	runProgram(t, dir, "go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./cmd/leat")
	return program
}

var latestLevel = regexp.MustCompile(`LatestLevel = (\w+)`)

// buildNext builds this version with a level of the metadata that the previous one does not know, and returns the
// program. It differs in nothing else.
func buildNext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, err := filepath.Abs(filepath.Join("..", "..", "internal", "meta", "level.go"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil || len(latestLevel.FindAll(text, -1)) != 1 {
		t.Fatalf("%s does not say which level is the latest: %v", source, err)
	}
	raised := filepath.Join(dir, "level.go")
	write(t, raised, latestLevel.ReplaceAllString(string(text), "LatestLevel = $1 + 1"))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: raised}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), string(overlay))
	program := filepath.Join(dir, "leat-next")
	runProgram(t, ".", "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	return program
}

func runProgram(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// keptAddr returns an address of the loopback that nobody listens on now, and that the system gives to no outgoing
// connection while the node there is down.
func keptAddr(t *testing.T) string {
	t.Helper()
	for {
		const lowest, count = 12_000, 20_000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(count)))
		if err != nil {
			continue // somebody else's
		}
		addr := l.Addr().String()
		l.Close()
		return addr
	}
}

// mixedCluster is a cluster of which every node can be of another version.
type mixedCluster struct {
	*campaign
	endMember func() // has the strict member leave its group
}

// newMixedCluster starts three nodes of a version, under load.
func newMixedCluster(t *testing.T, program string) *mixedCluster {
	t.Helper()
	c := &chaosCluster{}
	m := &mixedCluster{campaign: &campaign{chaosCluster: c}}
	for i := range 3 {
		n := &machine{number: i + 1, out: &output{}, addr: keptAddr(t), disk: &disk{dir: t.TempDir()}}
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		n.client = cl
		t.Cleanup(cl.Close)
		c.machines = append(c.machines, n)
		var join []string
		if i > 0 {
			token, err := exec.CommandContext(t.Context(), program, "cluster", "token", "--data", c.machines[0].data()).Output()
			if err != nil {
				t.Fatal(err)
			}
			join = []string{"--join", c.machines[0].addr, "--token", strings.TrimSpace(string(token))}
		}
		launchAs(t, n, program, join...)
		n.p.awaitReady(t)
	}
	c.awaitVoters(t, 3)
	c.awaitHealed(t)
	topics := []*chaosTopic{
		{&loadTopic{name: "sequences", partitions: 6, padding: 600, configs: map[string]string{"segment.bytes": "1048576"}}, kgo.AllISRAcks(), true, []int64{1, 2}},
		{&loadTopic{name: "plain", partitions: 3, padding: 600}, kgo.AllISRAcks(), false, []int64{3}},
	}
	c.createTopics(t, topics)
	m.chaosLoad = startChaosLoad(t, c.addrs(), topics, false)
	m.awaitProgress(t, "at the beginning")
	return m
}

// launchAs starts a node as a version, and does not wait for anything.
func launchAs(t *testing.T, n *machine, program string, args ...string) {
	t.Helper()
	args = append([]string{"up", "--data", n.data(), "--listen", n.addr, "--http", "off", "--rack", fmt.Sprintf("rack-%d", n.number)}, args...)
	n.p = &process{addr: n.addr, cmd: exec.Command(program, args...)}
	n.p.start(t, n.data())
}

// restartAs stops a node in order, starts it as a version, and waits until all replicas are in sync.
func (m *mixedCluster) restartAs(t *testing.T, n *machine, program, when string) {
	t.Helper()
	n.p.stop(t)
	launchAs(t, n, program)
	n.p.awaitReady(t)
	m.awaitProgress(t, when)
	m.awaitHealed(t)
	m.administrate(t, when)
	for _, err := range m.faults() {
		t.Errorf("%s: %v", when, err)
	}
}

// administrate proves that every node serves administrators, whichever version it and the active controller have, and
// that what one node did is known to all.
func (m *mixedCluster) administrate(t *testing.T, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range m.machines {
		// A topic for each node: a request to a node that is not the controller is carried to that one.
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.MetadataMinAge(10*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		adm := kadm.NewClient(cl)
		name := fmt.Sprintf("made-at-%d", n.number)
		made, err := adm.CreateTopic(ctx, 2, -1, map[string]*string{"retention.ms": new("3600000")}, name)
		if err := errors.Join(err, made.Err); err != nil {
			t.Fatalf("%s, node %d makes a topic: %v", when, n.number, err)
		}
		altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: new("7200000")}}, name)
		if err != nil || altered[0].Err != nil {
			t.Errorf("%s, node %d sets a config: %v, %v", when, n.number, err, altered)
		}
		grown, err := adm.UpdatePartitions(ctx, 4, name)
		if err = errors.Join(err, grown.Error()); err != nil {
			t.Errorf("%s, node %d adds partitions: %v", when, n.number, err)
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("x")}).FirstErr(); err != nil {
			t.Errorf("%s, node %d: a record of the new topic: %v", when, n.number, err)
		}
		for _, other := range m.machines {
			eventually(t, fmt.Sprintf("%s, node %d knows what node %d did", when, other.number, n.number), func() bool {
				md, err := other.metadata(ctx)
				return err == nil && slices.ContainsFunc(md.Topics, func(t kmsg.MetadataResponseTopic) bool { return *t.Topic == name && len(t.Partitions) == 4 })
			})
		}
		var moves kadm.AlterPartitionAssignmentsReq
		moves.Assign(name, 0, []int32{1, 2})
		moved, err := adm.AlterPartitionAssignments(ctx, moves)
		if err = errors.Join(err, moved.Error()); err != nil {
			t.Errorf("%s, node %d moves replicas: %v", when, n.number, err)
		}
		if _, err := adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil); err != nil {
			t.Errorf("%s, node %d elects leaders: %v", when, n.number, err)
		}
		groups, err := adm.DescribeGroups(ctx, chaosGroup)
		if err != nil || groups.Error() != nil {
			t.Errorf("%s, node %d describes the group: %v, %+v", when, n.number, err, groups)
		}
		deleted, err := adm.DeleteTopic(ctx, name)
		if err = errors.Join(err, deleted.Err); err != nil {
			t.Errorf("%s, node %d deletes a topic: %v", when, n.number, err)
		}
		cl.Close()
	}
}

// addStrictMember adds a member of another group, which may meet no error but those that clients try again after.
func (m *mixedCluster) addStrictMember(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cl := m.client(t, kgo.ConsumerGroup("strict"), kgo.ConsumeTopics("sequences"), kgo.AutoCommitInterval(200*time.Millisecond))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachError(func(topic string, partition int32, err error) {
				if kafka, ok := errors.AsType[*kerr.Error](err); ok && !kafka.Retriable {
					t.Errorf("a member of a group meets an error with %s-%d: %v", topic, partition, err)
				}
			})
		}
	}()
	m.endMember = sync.OnceFunc(func() {
		cancel()
		<-done
		cl.CloseAllowingRebalance()
	})
	t.Cleanup(m.endMember)
}

// finalize runs the verb that raises the level of the metadata, and proves how it ends and that it says all of these things.
func (m *mixedCluster) finalize(t *testing.T, program string, code int, want ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "cluster", "finalize", "--bootstrap", m.machines[1].addr)
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("leat cluster finalize ends with %d, want %d", got, code)
	}
	for _, text := range want {
		if !strings.Contains(string(out), text) {
			t.Errorf("leat cluster finalize does not say %q:\n%s", text, out)
		}
	}
}

// TestMixedVersions proves that a cluster is upgraded node by node under load: no acknowledged record is lost or
// doubled, clients meet no error that they do not get over, and administrators are served throughout. A node can go back to the
// version before until the upgrade is finalized, which it cannot be before all nodes have the new version. Then the version before is
// refused with a sentence.
func TestMixedVersions(t *testing.T) {
	if testing.Short() {
		t.Skip("two versions are built, and restarted under load")
	}
	t.Parallel()
	previous, next := buildPrevious(t), buildNext(t)
	m := newMixedCluster(t, previous)
	m.addStrictMember(t)
	m.administrate(t, "before the upgrade")
	for i, n := range slices.Backward(m.machines) {
		m.restartAs(t, n, next, fmt.Sprintf("with %d new nodes", len(m.machines)-i))
	}
	m.restartAs(t, m.machines[1], previous, "with a node that went back")
	m.finalize(t, next, 1, "nothing was raised", "the upgrade is not finished: node 2 ("+m.machines[1].addr+") knows level 1 of leat.metadata instead of ",
		"and level 0 of transaction.version instead of 2: upgrade it, and run this again")
	m.restartAs(t, m.machines[1], next, "with new nodes only")
	m.finalize(t, next, 0, "raised the level of leat.metadata from 1 to ", "raised the level of transaction.version from 0 to 2")
	m.finalize(t, next, 0, "there is nothing to do")
	refused := m.machines[0]
	refused.p.stop(t)
	launchAs(t, refused, previous)
	refused.p.awaitEnd(t)
	if text := refused.p.out.String(); refused.p.exitCode() == 0 || !strings.Contains(text, "newer version of leat") {
		t.Errorf("the previous version ends with %d: %s", refused.p.exitCode(), text)
	}
	launchAs(t, refused, next)
	refused.p.awaitReady(t)
	m.awaitHealed(t)
	m.finishUpgrade(t)
}

// finishUpgrade ends the load, and proves that clients have seen every acknowledged record once, and that all replicas are equal.
func (m *mixedCluster) finishUpgrade(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), healLimit)
	defer cancel()
	if err := m.stopWriters(ctx); err != nil {
		t.Fatal(err)
	}
	m.awaitSeen(t, "the upgrade")
	m.awaitHealed(t)
	m.reading()
	m.readers.Wait()
	for _, err := range m.faults() {
		t.Error(err)
	}
	m.endMember() // else its coordinator may append records that nobody follows any more while the nodes stop
	for _, n := range m.machines {
		n.p.stop(t)
	}
	m.compareReplicas(t)
	t.Log(m.history)
}
