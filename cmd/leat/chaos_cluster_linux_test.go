package main_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wan"
)

// machine is the place of a node: its disk and its address stay the same through all lives of the node.
type machine struct {
	number int // of the node, from 1 on
	site   *wan.Site
	disk   *disk
	addr   string
	out    *output // of all lives
	p      *process
	client *kgo.Client // asks this node alone
}

// chaosCluster is a cluster of processes, each with a disk of its own.
type chaosCluster struct {
	machines []*machine
	settings []string
	token    string
	network  *wan.Network // the first site is the clients'
}

// healLimit is how long a cluster may take until all its replicas are in sync when nothing is broken any
// more. Healthy clusters take a few seconds.
const healLimit = time.Minute

// newChaosCluster starts nodes that join the first one, and waits until they are active.
func newChaosCluster(t *testing.T, count int, settings ...string) *chaosCluster {
	t.Helper()
	c := &chaosCluster{settings: settings, network: newChaosNetwork(t, count)}
	for i := range count {
		site := c.nodeSites()[i]
		m := &machine{number: i + 1, site: site, out: &output{}, addr: site.At(9092)}
		m.disk = newDisk(t, 12288) // a long campaign keeps all its records; nothing is written to what is not used
		cl, err := kgo.NewClient(kgo.SeedBrokers(m.addr), kgo.RequestRetries(0), kgo.DialTimeout(time.Second),
			kgo.RequestTimeoutOverhead(2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		m.client = cl
		t.Cleanup(cl.Close)
		t.Cleanup(func() {
			if m.p != nil && t.Failed() {
				_ = m.p.cmd.Process.Signal(syscall.SIGQUIT) // its log then ends with the stacks of all goroutines
				select {
				case <-m.p.done:
				case <-time.After(5 * time.Second): // it stands still
				}
			}
			if m.p != nil {
				m.p.kill()
			}
			if !t.Failed() {
				return
			}
			log := filepath.Join(t.ArtifactDir(), fmt.Sprintf("node-%d.log", m.number))
			if err := os.WriteFile(log, []byte(m.out.String()), 0o600); err != nil {
				t.Error(err)
			}
			text := m.out.String()
			t.Logf("node %d said (all of it with -artifacts):\n%s", m.number, text[max(0, len(text)-3000):])
		})
		c.machines = append(c.machines, m)
	}
	c.start(t, c.machines[0])
	c.token = strings.TrimSpace(tryVerb(t, t.TempDir(), "", "cluster token --data "+c.machines[0].data()).stdout)
	for _, m := range c.machines[1:] {
		c.start(t, m, "--join", c.machines[0].addr, "--token", c.token)
	}
	c.awaitVoters(t, 3) // until then the death of the first node would be the end of the metadata
	c.awaitHealed(t)
	return c
}

func (m *machine) data() string { return filepath.Join(m.disk.dir, "data") }

func (c *chaosCluster) addrs() (addrs []string) {
	for _, m := range c.machines {
		addrs = append(addrs, m.addr)
	}
	return addrs
}

// launch starts a node and does not wait for anything.
func (c *chaosCluster) launch(t *testing.T, m *machine, args ...string) {
	t.Helper()
	args = append([]string{"up", "--data", m.data(), "--listen", m.addr, "--http", "off", "--rack", fmt.Sprintf("rack-%d", m.number)}, args...)
	m.p = &process{addr: m.addr, cmd: exec.Command(leat, append(args, c.settings...)...), out: m.out, done: make(chan struct{})}
	m.p.cmd.Stdout, m.p.cmd.Stderr = m.out, m.out
	m.p.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "LEAT_") })
	p := m.p
	fmt.Fprintf(m.out, "-- %s: start\n", time.Now().UTC().Format("15:04:05.000"))
	if err := m.site.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
}

// start starts a node and waits until it answers.
func (c *chaosCluster) start(t *testing.T, m *machine, args ...string) {
	t.Helper()
	c.launch(t, m, args...)
	m.p.awaitReady(t)
}

// killMachines ends nodes at once.
func killMachines(machines ...*machine) {
	for _, m := range machines {
		_ = m.p.cmd.Process.Kill() // an error means that it has ended already
	}
	for _, m := range machines {
		<-m.p.done
		fmt.Fprintf(m.out, "-- %s: was killed\n", time.Now().UTC().Format("15:04:05.000"))
	}
}

// cutPower cuts the power of nodes while they stand still, and brings their disks back. The other nodes and the
// clients hear nothing of it.
func (c *chaosCluster) cutPower(t *testing.T, how uint32, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		c.network.SetBetween(m.site, c.network.Sites(), wan.Settings{Cut: true})
		signal(t, m.p, syscall.SIGSTOP)
	}
	for _, m := range machines {
		awaitStopped(t, m.p)
		m.disk.cut(t, how)
	}
	killMachines(machines...)
	for _, m := range machines {
		c.network.SetBetween(m.site, c.network.Sites(), wan.Settings{})
		m.disk.again(t)
	}
}

// restart starts nodes that are down, at the same time, and waits until they answer.
func (c *chaosCluster) restart(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		c.launch(t, m)
	}
	for _, m := range machines {
		m.p.awaitReady(t)
	}
}

// ask sends a request to one node.
func (m *machine) ask(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return m.client.SeedBrokers()[0].Request(ctx, req)
}

// metadata asks a node for the metadata of all topics.
func (m *machine) metadata(ctx context.Context) (*kmsg.MetadataResponse, error) {
	resp, err := m.ask(ctx, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return nil, err
	}
	answer, ok := resp.(*kmsg.MetadataResponse)
	if !ok {
		return nil, errors.New("the answer has another type")
	}
	return answer, nil
}

// ailment says which part of the cluster is not well as a node sees it; empty: none.
func (c *chaosCluster) ailment(ctx context.Context, m *machine) string {
	md, err := m.metadata(ctx)
	switch {
	case err != nil:
		return err.Error()
	case len(md.Brokers) != len(c.machines):
		return fmt.Sprintf("%d nodes are active", len(md.Brokers))
	}
	for _, topic := range md.Topics {
		for _, p := range topic.Partitions {
			if p.Leader < 0 || len(p.ISR) != len(p.Replicas) || topic.ErrorCode != 0 || p.ErrorCode != 0 {
				return fmt.Sprintf("%s-%d: leader %d, epoch %d, replicas %v, in sync %v, errors %d, %d",
					*topic.Topic, p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, topic.ErrorCode, p.ErrorCode)
			}
		}
	}
	return ""
}

// describePartitions describes the partitions of the load as a node sees them.
func describePartitions(ctx context.Context, m *machine) string {
	md, err := m.metadata(ctx)
	if err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%d nodes", len(md.Brokers))
	for _, topic := range md.Topics {
		for _, p := range topic.Partitions {
			if !strings.HasPrefix(*topic.Topic, temporaryTopics) {
				text += fmt.Sprintf("; %s-%d: leader %d, epoch %d, in sync %v, offline %v", *topic.Topic, p.Partition, p.Leader, p.LeaderEpoch, p.ISR, p.OfflineReplicas)
			}
		}
	}
	return text
}

// awaitHealed waits until all nodes are active and all replicas in sync, as every node sees it.
func (c *chaosCluster) awaitHealed(t *testing.T) {
	t.Helper()
	until := time.Now().Add(healLimit)
	for _, m := range c.machines {
		for ill := c.ailment(t.Context(), m); ill != ""; ill = c.ailment(t.Context(), m) {
			if time.Now().After(until) {
				t.Fatalf("the cluster has not healed within %v: node %d says: %s", healLimit, m.number, ill)
			}
			pause(t.Context(), 20*time.Millisecond)
		}
	}
}

// leaderOf is the node that leads a partition, as some node that answers sees it.
func (c *chaosCluster) leaderOf(t *testing.T, topic string, partition int32) (leader *machine) {
	t.Helper()
	eventually(t, "somebody leads the partition", func() bool {
		for _, m := range c.machines {
			md, err := m.metadata(t.Context())
			if err != nil {
				continue
			}
			for _, mt := range md.Topics {
				for _, p := range mt.Partitions {
					if *mt.Topic == topic && p.Partition == partition && p.Leader > 0 {
						leader = c.machines[p.Leader-1]
						return true
					}
				}
			}
		}
		return false
	})
	return leader
}

// quorum asks the nodes who leads the metadata quorum, and who votes in it.
func (c *chaosCluster) quorum(ctx context.Context) (leader int32, voters int, err error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	err = errors.New("nobody leads the metadata quorum")
	for _, m := range c.machines {
		resp, askErr := m.ask(ctx, req)
		if askErr != nil {
			err = askErr
			continue
		}
		r, ok := resp.(*kmsg.DescribeQuorumResponse)
		if !ok || r.ErrorCode != 0 || len(r.Topics) != 1 || r.Topics[0].Partitions[0].LeaderID <= 0 {
			continue
		}
		return r.Topics[0].Partitions[0].LeaderID, len(r.Topics[0].Partitions[0].CurrentVoters), nil
	}
	return 0, 0, err
}

// controller is the node that leads the metadata quorum.
func (c *chaosCluster) controller(t *testing.T) *machine {
	t.Helper()
	var leader int32
	eventually(t, "somebody leads the metadata quorum", func() (ok bool) {
		var err error
		leader, _, err = c.quorum(t.Context())
		return err == nil
	})
	return c.machines[leader-1]
}

// coordinator is the node that coordinates the group.
func (c *chaosCluster) coordinator(t *testing.T) *machine {
	t.Helper()
	return c.awaitCoordinator(t, "the group", func() *kmsg.FindCoordinatorRequest { return coordinatorOf(chaosGroup) })
}

// awaitCoordinator waits until a node coordinates what a request asks for.
func (c *chaosCluster) awaitCoordinator(t *testing.T, of string, ask func() *kmsg.FindCoordinatorRequest) (coordinator *machine) {
	t.Helper()
	eventually(t, of+" has a coordinator", func() bool {
		for _, m := range c.machines {
			resp, err := m.ask(t.Context(), ask())
			if err != nil {
				continue
			}
			r, ok := resp.(*kmsg.FindCoordinatorResponse)
			if ok && len(r.Coordinators) == 1 && r.Coordinators[0].ErrorCode == 0 {
				coordinator = c.machines[r.Coordinators[0].NodeID-1]
				return true
			}
		}
		return false
	})
	return coordinator
}

// awaitVoters waits until so many nodes vote in the metadata quorum.
func (c *chaosCluster) awaitVoters(t *testing.T, want int) {
	t.Helper()
	eventually(t, "enough nodes vote in the metadata quorum", func() bool {
		_, voters, err := c.quorum(t.Context())
		return err == nil && voters == want
	})
}

// createTopics makes the topics of a load. Their number of replicas follows the cluster.
func (c *chaosCluster) createTopics(t *testing.T, topics []*chaosTopic) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, topic := range topics {
		configs := map[string]*string{}
		for k, v := range topic.configs {
			configs[k] = &v
		}
		resp, err := kadm.NewClient(cl).CreateTopic(t.Context(), topic.partitions, -1, configs, topic.name)
		if err = errors.Join(err, resp.Err); err != nil {
			t.Fatal(err)
		}
	}
}

// others are all nodes but one.
func (c *chaosCluster) others(m *machine) []*machine {
	return slices.DeleteFunc(slices.Clone(c.machines), func(other *machine) bool { return other == m })
}

// compareReplicas compares the files of all replicas of all partitions. All nodes must have stopped in
// order.
func (c *chaosCluster) compareReplicas(t *testing.T) {
	t.Helper()
	replicas := map[string]map[int][]string{} // by partition's directory, then node
	compacted := map[string]map[int]string{}  // their directories
	for _, m := range c.machines {
		dirs, err := filepath.Glob(filepath.Join(m.data(), "*-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			name := filepath.Base(dir)
			if strings.HasSuffix(name, "-stray") {
				t.Errorf("node %d has set a directory aside: %s", m.number, name)
			}
			if _, err := os.Stat(filepath.Join(dir, "partition.metadata")); err != nil || strings.HasSuffix(name, "-delete") {
				continue
			}
			if replicas[name] == nil {
				replicas[name] = map[int][]string{}
			}
			replicas[name][m.number] = nil
			if !isCompacted(name) {
				replicas[name][m.number] = readBatches(t, dir)
				continue
			}
			if compacted[name] == nil {
				compacted[name] = map[int]string{}
			}
			compacted[name][m.number] = dir
		}
	}
	batches := 0
	for name, dirs := range compacted {
		batches += compareCompacted(t, name, dirs)
	}
	for _, name := range slices.Sorted(maps.Keys(replicas)) {
		if len(replicas[name]) != 3 {
			t.Errorf("%s is on %d nodes", name, len(replicas[name]))
		}
		var first int
		for _, number := range slices.Sorted(maps.Keys(replicas[name])) {
			if first == 0 {
				first, batches = number, batches+len(replicas[name][number])
				continue
			}
			a, b := replicas[name][first], replicas[name][number]
			for i := range max(len(a), len(b)) {
				if i >= len(a) || i >= len(b) || a[i] != b[i] {
					t.Errorf("%s: nodes %d and %d differ after %d batches (%d and %d batches): %s and %s", name, first, number, i, len(a), len(b),
						strings.Join(a[min(i, len(a)):min(i+1, len(a))], ""), strings.Join(b[min(i, len(b)):min(i+1, len(b))], ""))
					break
				}
			}
		}
	}
	t.Logf("%d partitions with %d batches are the same on all replicas", len(replicas), batches)
}

// readBatches returns the facts about all batches in the files of a partition: base offset, length, leader
// epoch, checksum.
func readBatches(t *testing.T, dir string) (batches []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files { // Glob sorts, and the names are numbers of one length
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		const head = 12 // base offset and length
		for len(b) >= head+9 {
			size := head + int(binary.BigEndian.Uint32(b[8:]))
			if size == head {
				break // made in advance
			}
			if size > len(b) {
				t.Fatalf("%s ends within a batch", file)
			}
			batches = append(batches, fmt.Sprintf("[offset %d, %d bytes, epoch %d, checksum %x]", binary.BigEndian.Uint64(b), size,
				binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[17:])))
			b = b[size:]
		}
	}
	return batches
}

func (m *machine) String() string { return "node " + strconv.Itoa(m.number) }
