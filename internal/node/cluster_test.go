package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/vfs"
)

// machines are the places of a cluster's nodes: each keeps its directory and its port.
type machines struct {
	t     *testing.T
	dirs  []string
	ports []string
	nodes []*Node           // nil: it does not run
	tls   map[string]string // settings with which all nodes listen with TLS; nil: they listen without it
	// settings are more settings of all nodes.
	settings map[string]string
	// files is the file system of nodes that do not have the system's.
	files map[int]vfs.FS
	// logins are settings with which all nodes ask for a login; nil: they do not.
	logins map[string]string
}

// newCluster starts nodes that join the first one, and waits until all serve.
func newCluster(t *testing.T, count int) *machines {
	t.Helper()
	return newClusterWith(t, count, nil)
}

// newClusterWith is newCluster for nodes that listen with TLS, with these settings.
func newClusterWith(t *testing.T, count int, tls map[string]string) *machines {
	t.Helper()
	m := &machines{t: t, tls: tls}
	m.begin(count)
	return m
}

// begin starts so many nodes, which join the first one, and waits until all serve.
func (m *machines) begin(count int) {
	m.t.Helper()
	m.nodes = make([]*Node, count)
	for len(m.ports) < count {
		// The system gives ports from 32768 on to connections, also while a node of the test is away.
		port := fmt.Sprintf("127.0.0.1:%d", 12_000+mathrand.IntN(20_000))
		if l, err := net.Listen("tcp", port); err == nil {
			l.Close()
			m.dirs, m.ports = append(m.dirs, m.t.TempDir()), append(m.ports, port)
		}
	}
	m.start(0, Config{})
	token := m.makeToken(0)
	for i := 1; i < count; i++ {
		m.start(i, Config{Join: m.ports[:1], Token: token})
	}
}

// start starts one of the nodes.
func (m *machines) start(i int, cfg Config) *Node {
	m.t.Helper()
	n, err := m.tryStart(i, cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

func (m *machines) tryStart(i int, cfg Config) (*Node, error) {
	m.t.Helper()
	cfg.Data, cfg.Listen, cfg.HTTP = m.dirs[i], m.ports[i:i+1], "off"
	cfg.Logger = slog.New(slog.NewTextHandler(m.t.Output(), nil)).With("machine", i)
	cfg.Settings = map[string]string{"group.initial.rebalance.delay.ms": "0"}
	maps.Copy(cfg.Settings, m.settings)
	if m.tls != nil {
		cfg.Listen = []string{"SSL://" + m.ports[i]}
		maps.Copy(cfg.Settings, m.tls)
	}
	if m.logins != nil {
		cfg.Listen = []string{"SASL_PLAINTEXT://" + m.ports[i]}
		maps.Copy(cfg.Settings, m.logins)
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	start := Start
	if fs := m.files[i]; fs != nil {
		start = func(ctx context.Context, cfg Config) (*Node, error) { return startOn(ctx, cfg, fs, "boot") }
	}
	n, err := start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m.nodes[i] = n
	m.t.Cleanup(func() { m.stop(i) })
	return n, nil
}

// stop stops a node, if it runs.
func (m *machines) stop(i int) {
	m.t.Helper()
	n := m.nodes[i]
	if n == nil {
		return
	}
	m.nodes[i] = nil
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Stop(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		m.t.Error(err)
	}
}

// makeToken makes a join token as the verb does.
func (m *machines) makeToken(i int) string {
	m.t.Helper()
	n := m.nodes[i]
	token, err := credential.NewToken(n.peers.self.Cluster, rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	v := token.Verifier(time.Now().Add(time.Hour))
	if refused, err := n.peers.commands.MakeToken(m.t.Context(), &v); err != nil || refused != nil {
		m.t.Fatal(refused, err)
	}
	return token.Text()
}

func (m *machines) client(opts ...kgo.Opt) *kgo.Client {
	m.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(m.ports...), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(cl.Close)
	return cl
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not in two minutes: %s", what)
		}
	}
}

// TestThreeNodes proves that two nodes join a third one by a token; that the three of them vote soon;
// that a topic gets three replicas; and that it goes on, with all acknowledged records, when any of the
// nodes is stopped, and when all of them were.
func TestThreeNodes(t *testing.T) {
	m := newCluster(t, 3)
	eventually(t, "all nodes vote", func() bool {
		for _, n := range m.nodes {
			if len(n.quorum.Status().Members.Voters) != 3 {
				return false
			}
		}
		return true
	})
	for i, n := range m.nodes { // each of them shows all voters and who leads them
		if s := quorumStatus(n); !slices.Equal(s.Voters, []int32{1, 2, 3}) || s.Wanted != 3 || s.Leader != 1 {
			t.Errorf("node %d shows the voters %v of %d, led by %d", i, s.Voters, s.Wanted, s.Leader)
		}
	}
	cl := m.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	adm := kadm.NewClient(cl)
	made, err := adm.CreateTopics(deadline(t), 6, 3, nil, "t")
	if err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	for i := range m.nodes { // each of them has the controller decide, and shows it at once
		cl, err := kgo.NewClient(kgo.SeedBrokers(m.ports[i]))
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("by", i)
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 30_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, -1
		req.Topics = append(req.Topics, topic)
		b := cl.SeedBrokers()[0]
		resp, err := b.Request(deadline(t), req)
		if err != nil || resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
			t.Fatal(resp, err)
		}
		look := kmsg.NewPtrMetadataRequest()
		named := kmsg.NewMetadataRequestTopic()
		named.Topic = &name
		look.Topics = append(look.Topics, named)
		if resp, err = b.Request(deadline(t), look); err != nil || resp.(*kmsg.MetadataResponse).Topics[0].ErrorCode != 0 {
			t.Errorf("node %d made a topic and does not show it: %v, %v", i, resp, err)
		}
		if replicas := m.nodes[i].image.Load().Topic(name).Partitions[0].Replicas; len(replicas) != 3 {
			t.Errorf("a topic that names no number of replicas has %v", replicas)
		}
		cl.Close()
	}
	sent := 0
	send := func() {
		t.Helper()
		for range 60 {
			r := &kgo.Record{Topic: "t", Partition: int32(sent % 6), Value: fmt.Append(nil, sent)}
			if err := cl.ProduceSync(deadline(t), r).FirstErr(); err != nil {
				t.Fatalf("record %d: %v", sent, err)
			}
			sent++
		}
	}
	send()
	for i := range m.nodes {
		m.stop(i)
		send()
		m.start(i, Config{})
		eventually(t, "all replicas are in sync", func() bool { return inSync(m.nodes[i].image.Load(), "t", 3) })
		send()
	}
	for i := range m.nodes {
		go m.nodes[i].Stop(deadline(t))
	}
	for i := range m.nodes {
		m.stop(i)
	}
	started := make(chan error, 3)
	for i := range m.nodes {
		go func() {
			_, err := m.tryStart(i, Config{})
			started <- err
		}()
	}
	for range m.nodes {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
	send()
	reader := m.client(kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := map[string]bool{}
	for len(seen) < sent {
		f := reader.PollFetches(deadline(t))
		if err := f.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(seen), sent, err)
		}
		f.EachRecord(func(r *kgo.Record) {
			if seen[string(r.Value)] {
				t.Errorf("record %s is there twice", r.Value)
			}
			seen[string(r.Value)] = true
		})
	}
}

// TestReplicaRemovedWhileDown proves that a node which was down when a reassignment removed its replica deletes
// the replica's directory when it comes back, and no other.
func TestReplicaRemovedWhileDown(t *testing.T) {
	m := newCluster(t, 3)
	cl := m.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	adm := kadm.NewClient(cl)
	assign := func(topic string, replicas ...int32) {
		t.Helper()
		var req kadm.AlterPartitionAssignmentsReq
		req.Assign(topic, 0, replicas)
		if resp, err := adm.AlterPartitionAssignments(deadline(t), req); err != nil || resp.Error() != nil {
			t.Fatal(resp, err)
		}
		eventually(t, "the replicas are moved", func() bool {
			p := m.nodes[0].image.Load().Topic(topic).Partitions[0]
			return slices.Equal(p.Replicas, replicas) && len(p.ISR) == len(replicas)
		})
	}
	eventually(t, "all nodes vote", func() bool { return len(m.nodes[0].quorum.Status().Members.Voters) == 3 })
	for _, topic := range []string{"moved", "kept"} {
		if made, err := adm.CreateTopics(deadline(t), 1, 2, nil, topic); err != nil || made[topic].Err != nil {
			t.Fatal(made, err)
		}
		assign(topic, 1, 2)
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: topic, Value: []byte("a")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	hasDir := func(topic string) bool {
		_, err := os.Stat(filepath.Join(m.dirs[1], topic+"-0"))
		return err == nil
	}
	eventually(t, "node 2 has both logs", func() bool { return hasDir("moved") && hasDir("kept") })
	m.stop(1)
	assign("moved", 1, 3)
	if !hasDir("moved") {
		t.Fatal("the directory of a node that is down has gone: the test proves nothing")
	}
	m.start(1, Config{})
	eventually(t, "the directory of the removed replica has gone", func() bool { return !hasDir("moved") })
	eventually(t, "the other replica is in sync", func() bool { return inSync(m.nodes[0].image.Load(), "kept", 2) })
	if !hasDir("kept") {
		t.Error("a directory whose replica stays was deleted")
	}
}

// inSync tells whether all partitions of a topic have so many replicas in sync.
func inSync(img *meta.Image, topic string, replicas int) bool {
	t := img.Topic(topic)
	for i := range t.Partitions {
		if len(t.Partitions[i].ISR) != replicas {
			return false
		}
	}
	return true
}

// TestJoinIsRefused proves that a node does not join without a token, with one that has ended or was
// revoked, with the id of another node, or from a directory of another cluster, and that it is told why;
// and that the same command starts the node again once it has joined.
func TestJoinIsRefused(t *testing.T) {
	m := newCluster(t, 2)
	token := m.makeToken(0)
	revoked := m.makeToken(0)
	parsed, err := credential.ParseToken(revoked)
	if err != nil {
		t.Fatal(err)
	}
	if refused, err := m.nodes[0].peers.commands.RevokeToken(t.Context(), parsed.ID()); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	foreign, err := credential.NewToken(credential.ClusterID{1}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	third := &machines{t: t, dirs: []string{t.TempDir()}, ports: []string{"127.0.0.1:0"}, nodes: make([]*Node, 1)}
	for _, c := range []struct {
		name, says string
		cfg        Config
	}{
		{"no token", "leat cluster token", Config{Join: m.ports[:1]}},
		{"a token alone", "--join", Config{Token: token}},
		{"a revoked token", "revoked", Config{Join: m.ports[:1], Token: revoked}},
		{"another cluster's token", "another cluster", Config{Join: m.ports[:1], Token: foreign.Text()}},
		{"a node that the others cannot reach", "--listen", Config{Join: []string{"host.example:9092"}, Token: token}},
		{"an id that is taken", "--id", Config{Join: m.ports[:1], Token: token, ID: new(int32(1))}},
	} {
		_, err := third.tryStart(0, c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	m.stop(1)
	if _, err := m.tryStart(1, Config{Join: m.ports[:1], Token: foreign.Text()}); err == nil || !strings.Contains(err.Error(), "belongs to cluster") {
		t.Errorf("a directory of another cluster: %v", err)
	}
	m.start(1, Config{Join: m.ports[:1], Token: revoked})
	other := newCluster(t, 1)
	other.stop(0)
	n, err := other.tryStart(0, Config{Join: m.ports[:1]})
	if err == nil {
		select {
		case err = <-n.Failed():
		case <-time.After(time.Minute):
		}
	}
	if err == nil || !strings.Contains(err.Error(), "another cluster") || !strings.Contains(err.Error(), "leave --join out") {
		t.Errorf("a directory of another cluster, without a token: %v", err)
	}
	other.stop(0)
	other.start(0, Config{})
}

// TestNodesMoveAtOnce proves that a cluster whose nodes have all got other addresses since they ran comes back when
// each is told the addresses of the others by --join.
func TestNodesMoveAtOnce(t *testing.T) {
	m := newCluster(t, 3)
	eventually(t, "all nodes vote", func() bool { return len(m.nodes[0].quorum.Status().Members.Voters) == 3 })
	for i := range m.nodes {
		m.stop(i)
	}
	moved := &machines{t: t, dirs: m.dirs, nodes: make([]*Node, 3)}
	for len(moved.ports) < 3 {
		port := fmt.Sprintf("127.0.0.1:%d", 12_000+mathrand.IntN(20_000))
		if l, err := net.Listen("tcp", port); err == nil {
			l.Close()
			moved.ports = append(moved.ports, port)
		}
	}
	var wait sync.WaitGroup
	for i := range moved.nodes {
		wait.Go(func() {
			if _, err := moved.tryStart(i, Config{Join: moved.ports}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

// TestFirstNodeMoves proves that in a cluster of two the second node finds the first one, which alone votes, when it comes back at
// another address, without --join.
func TestFirstNodeMoves(t *testing.T) {
	m := newCluster(t, 2)
	m.stop(0)
	for {
		m.ports[0] = fmt.Sprintf("127.0.0.1:%d", 12_000+mathrand.IntN(20_000))
		if l, err := net.Listen("tcp", m.ports[0]); err == nil {
			l.Close()
			break
		}
	}
	m.start(0, Config{})
	if made, err := kadm.NewClient(m.client()).CreateTopics(deadline(t), 1, 2, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	eventually(t, "the second node knows what was made since", func() bool { return m.nodes[1].image.Load().Topic("t") != nil })
}

// TestCopyOfTheFirstNodeEnds proves that the first node, started with a copy of its directory from the time when it was alone, ends with
// a sentence as soon as a node that it does not know shows what it has signed since; and that such a node is told what it met.
func TestCopyOfTheFirstNodeEnds(t *testing.T) {
	t.Run("its log is shorter", func(t *testing.T) { testCopyOfTheFirstNode(t, false) })
	t.Run("its log is longer", func(t *testing.T) { testCopyOfTheFirstNode(t, true) })
}

func testCopyOfTheFirstNode(t *testing.T, isLonger bool) {
	t.Helper()
	m := newCluster(t, 1)
	m.stop(0)
	old := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(old, os.DirFS(m.dirs[0])); err != nil {
		t.Fatal(err)
	}
	m.start(0, Config{})
	second := &machines{t: t, dirs: []string{t.TempDir()}, ports: []string{"127.0.0.1:0"}, nodes: make([]*Node, 1)}
	second.start(0, Config{Join: m.ports, Token: m.makeToken(0)})
	eventually(t, "the second node has what the first one has signed", func() bool {
		v := second.nodes[0].peers.notes.voucher(1)
		return v.Known() > 0
	})
	m.stop(0)
	m.dirs[0] = old
	elsewhere := &machines{t: t, dirs: m.dirs, ports: []string{"127.0.0.1:0"}, nodes: make([]*Node, 1)}
	if isLonger { // it writes a log of its own before the other one finds it
		n := elsewhere.start(0, Config{})
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.Info().Addresses...))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		for i := range 20 {
			if made, err := kadm.NewClient(cl).CreateTopics(deadline(t), 1, 1, nil, fmt.Sprint("t", i)); err != nil {
				t.Fatal(made, err)
			}
		}
		elsewhere.stop(0)
	}
	n, err := m.tryStart(0, Config{})
	if err == nil {
		select {
		case err = <-n.Failed():
		case <-time.After(time.Minute):
		}
	}
	if err == nil || !strings.Contains(err.Error(), "this node has signed") || !strings.Contains(err.Error(), "restored from a copy") {
		t.Errorf("a copy of the time when it was alone: %v", err)
	}
}

// TestRestoredVoterIsToldSo proves that a voter whose directory was replaced by an older copy ends with a sentence which says so,
// and that the cluster goes on, and takes in the node that is joined in its place.
func TestRestoredVoterIsToldSo(t *testing.T) {
	m := newCluster(t, 3)
	eventually(t, "all nodes vote", func() bool { return len(m.nodes[0].quorum.Status().Members.Voters) == 3 })
	m.stop(2)
	old := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(old, os.DirFS(m.dirs[2])); err != nil {
		t.Fatal(err)
	}
	m.start(2, Config{})
	adm := kadm.NewClient(m.client())
	if made, err := adm.CreateTopics(deadline(t), 1, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	eventually(t, "the last node knows the topic", func() bool { return m.nodes[2].image.Load().Topic("t") != nil })
	m.stop(2)
	m.dirs[2] = old
	n, err := m.tryStart(2, Config{})
	if err == nil {
		select {
		case err = <-n.Failed():
		case <-time.After(time.Minute):
		}
		m.stop(2)
	}
	for _, want := range []string{"restored from a copy", "leat cluster remove"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("a voter that was restored from a copy: %v", err)
		}
	}
	eventually(t, "the node is removed", func() bool {
		refused, err := m.nodes[0].peers.commands.RemoveNode(t.Context(), 3, false)
		return refused == nil && err == nil
	})
	m.dirs[2] = t.TempDir()
	m.start(2, Config{Join: m.ports[:1], Token: m.makeToken(0)})
}

// TestRemovedNodeEnds proves that a node that was removed ends and says why, also one that was away
// meanwhile; that its directory is of no use any more; and that the cluster goes on.
func TestRemovedNodeEnds(t *testing.T) {
	m := newCluster(t, 3)
	m.stop(2)
	for _, c := range []struct {
		machine int
		force   bool
	}{{1, true}, {2, false}} {
		id := int32(c.machine + 1)
		eventually(t, "a node is removed", func() bool {
			refused, err := m.nodes[0].peers.commands.RemoveNode(t.Context(), id, c.force)
			if refused != nil || err != nil {
				t.Log(refused, err)
			}
			return refused == nil && err == nil
		})
	}
	select {
	case err := <-m.nodes[1].Failed():
		if !strings.Contains(err.Error(), "removed") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a node that was removed goes on")
	}
	n, err := m.tryStart(2, Config{})
	if err == nil {
		select {
		case err = <-n.Failed():
		case <-time.After(time.Minute):
		}
	}
	if err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("a node that was removed while it was away: %v", err)
	}
	eventually(t, "the node that is left votes alone", func() bool { return len(m.nodes[0].quorum.Status().Members.Voters) == 1 })
	m.stop(1) // as its process does; until then it serves clients who ask it
	cl := m.client()
	if made, err := kadm.NewClient(cl).CreateTopics(deadline(t), 1, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t"}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestNodeWithoutMetadataLogEnds proves that a node of a cluster whose metadata log cannot be written ends with a sentence, since it
// would tell clients for ever who led what at that moment, and that the others take over what it led.
func TestNodeWithoutMetadataLogEnds(t *testing.T) {
	var broken atomic.Bool
	m := &machines{t: t, files: map[int]vfs.FS{0: vfs.NewFaulty(vfs.OS{}, func(op vfs.Op, name string) error {
		if broken.Load() && op == vfs.OpSync && strings.Contains(name, "/"+quorumDir+"/") {
			return errors.New("medium error")
		}
		return nil
	})}}
	m.begin(3)
	cl := m.client()
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(deadline(t), 6, 3, nil, "t"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all nodes vote, and know it", func() bool {
		return !slices.ContainsFunc(m.nodes, func(n *Node) bool {
			st := n.quorum.Status()
			return len(st.Members.Voters) < 3 || st.IsChanging
		})
	})
	broken.Store(true)
	_, _ = adm.CreateTopic(deadline(t), 1, 3, nil, "another")
	select {
	case err := <-m.nodes[0].Failed():
		if !errors.Is(err, quorum.ErrFaulted) {
			t.Errorf("it ends with: %v", err)
		}
	case <-deadline(t).Done():
		t.Fatal("the node goes on")
	}
	m.stop(0)
	for p := range int32(6) {
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Partition: p, Value: []byte("v")}).FirstErr(); err != nil {
			t.Errorf("partition %d: %v", p, err)
		}
	}
	broken.Store(false)
	m.start(0, Config{})
}
