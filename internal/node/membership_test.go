package node

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage/lastrun"
	"github.com/leatstream/leat/internal/vfs"
)

// ownController is the registrar of a node that is the active controller itself.
type ownController struct {
	*controller.Controller
	now func() time.Duration
}

// RegisterBroker registers the node at the controller's present time. The process before this one has
// ended.
func (c ownController) RegisterBroker(ctx context.Context, g *controller.Registration) (epoch int64, refused *controller.Error, err error) {
	c.ProcessEnded(c.now(), g.Broker.ID)
	return c.Controller.RegisterBroker(ctx, c.now(), g)
}

// Heartbeat brings a heartbeat at the controller's present time.
func (c ownController) Heartbeat(ctx context.Context, beat *controller.Beat) (controller.BeatAnswer, *controller.Error, error) {
	return c.Controller.Heartbeat(ctx, c.now(), beat)
}

// member is a node that has nothing but its membership, over metadata in memory.
type member struct {
	*Node
	asked atomic.Int64 // how often anybody asked the controller
	beats atomic.Int64 // of this node
}

// Heartbeat counts the node's heartbeats.
func (m *member) Heartbeat(ctx context.Context, beat *controller.Beat) (controller.BeatAnswer, *controller.Error, error) {
	m.beats.Add(1)
	return ownController{m.controller, m.clock}.Heartbeat(ctx, beat)
}

// RegisterBroker is not counted.
func (m *member) RegisterBroker(ctx context.Context, g *controller.Registration) (int64, *controller.Error, error) {
	return ownController{m.controller, m.clock}.RegisterBroker(ctx, g)
}

func (*member) followMembers() {}

func (*member) keepLinks() {}

func (*member) activeController() int32 { return -1 }

func newMember(t *testing.T) *member {
	t.Helper()
	static, err := config.NewStatic(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Node: &Node{
		fs: vfs.NewMem(), id: identity{nodeID: 1}, static: static, failure: failure{failed: make(chan error, 1)}, loggers: newLoggers(slog.DiscardHandler, slog.LevelInfo),
		membership: membership{incarnation: meta.NewUUID(), began: time.Now(), nodesChanged: make(chan struct{}, 1), applied: func() uint64 { return 0 }, lostMetadata: func() bool { return false }},
	}}
	m.ctx, m.cancel = context.WithCancel(t.Context())
	m.failing, m.fail = context.WithCancel(m.ctx)
	m.image.Store(meta.Empty())
	m.securing = newSecuring(m.Node)
	var mu sync.Mutex
	m.controller = controller.New(controller.Config{
		Image: m.image.Load, Static: static,
		Leading: func() (uint64, bool) {
			m.asked.Add(1)
			return 1, true
		},
		Propose: func(_ context.Context, _ uint64, records []byte) error {
			mu.Lock()
			defer mu.Unlock()
			img, d, err := meta.Apply(m.image.Load(), records)
			if err != nil {
				return err
			}
			m.publish(d, img)
			return nil
		},
	})
	m.registrar, m.nodeLinks = m, m
	m.set = replica.NewSet(replica.Config{NodeID: 1, Static: static})
	t.Cleanup(m.set.Close)
	return m
}

// join registers a node, which then asks to serve.
func (m *member) join(t *testing.T, id int32, incarnation meta.UUID) (epoch int64) {
	t.Helper()
	g := controller.Registration{Broker: meta.Broker{ID: id, Incarnation: incarnation, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()}}}
	epoch, refused, err := m.RegisterBroker(t.Context(), &g)
	if err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	m.hear(t, id, epoch)
	return epoch
}

// hear brings a heartbeat of a node.
func (m *member) hear(t *testing.T, id int32, epoch int64) {
	t.Helper()
	beat := controller.Beat{Registered: controller.Registered{ID: id, Epoch: epoch}, Applied: m.applied(), Caught: true}
	if a, refused, err := m.controller.Heartbeat(t.Context(), m.clock(), &beat); err != nil || refused != nil || a.Fenced {
		t.Fatal(a, refused, err)
	}
}

// TestNodeKeepsItsMembership proves that the only node of a cluster asks nothing of the controller
// over time; that once there is another one it sends heartbeats, so that it stays active, and has
// the controller fence that one when it is silent; and that a process ends whose node was
// registered by another one.
func TestNodeKeepsItsMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.brokerEpoch.Store(m.join(t, 1, m.incarnation))
		var ended sync.WaitGroup
		ended.Go((&upkeep{n: m.Node}).run)
		defer ended.Wait()
		defer m.cancel()
		isActive := func(id int32) bool { return m.image.Load().Brokers[id].State == meta.BrokerActive }
		sleepAlone := func() {
			t.Helper()
			synctest.Wait()
			before := m.asked.Load()
			time.Sleep(24 * time.Hour)
			if asked := m.asked.Load() - before; asked != 0 || m.beats.Load() != 0 {
				t.Errorf("a node alone has asked the controller %d times, and sent %d heartbeats", asked, m.beats.Load())
			}
		}
		sleepAlone()
		epoch := m.join(t, 2, meta.UUID{2})
		time.Sleep(8 * time.Second)
		if n := m.beats.Load(); !isActive(1) || !isActive(2) || n < 4 || n > 6 {
			t.Errorf("after 8 s: active %v, %v, %d heartbeats", isActive(1), isActive(2), n)
		}
		m.hear(t, 2, epoch)
		time.Sleep(8 * time.Second)
		if !isActive(2) {
			t.Error("a node that was heard 8 s ago is fenced")
		}
		time.Sleep(2 * time.Second)
		if isActive(2) || !isActive(1) {
			t.Errorf("after 10 s of silence: active %v, %v", isActive(1), isActive(2))
		}
		if refused, err := m.controller.UnregisterBroker(t.Context(), 2); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		synctest.Wait()
		m.beats.Store(0)
		sleepAlone()
		m.join(t, 1, meta.UUID{3})
		if err := <-m.failed; !strings.Contains(err.Error(), "node 1") {
			t.Error(err)
		}
	})
}

// TestOldClusterLearnsTheKey proves that a cluster of the first level learns the key of its node as
// soon as its level is raised.
func TestOldClusterLearnsTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.id.public, m.id.directory = credential.PublicKey{7}, meta.UUID{8}
		m.brokerEpoch.Store(m.join(t, 1, m.incarnation))
		var ended sync.WaitGroup
		ended.Go((&upkeep{n: m.Node}).run)
		defer ended.Wait()
		defer m.cancel()
		synctest.Wait()
		if n := len(m.image.Load().Nodes); n != 0 {
			t.Errorf("%d nodes at the first level", n)
		}
		if refused, err := m.controller.Finalize(t.Context(), meta.LevelFeature, meta.LevelCluster); err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		synctest.Wait()
		if got := m.image.Load().Nodes[1]; got == nil || got.Key != m.id.public || got.Directory != m.id.directory {
			t.Errorf("the cluster knows %+v", got)
		}
	})
}

// TestActivationWaitsForAController proves that a node asks again to serve while there is no active
// controller, and ends with its start's context.
func TestActivationWaitsForAController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		defer m.cancel()
		m.set = replica.NewSet(replica.Config{NodeID: 1, Static: m.static}) // which follows the image once the node is active
		defer m.set.Close()
		epoch, refused, err := m.RegisterBroker(t.Context(), &controller.Registration{Broker: meta.Broker{ID: 1, Incarnation: m.incarnation}})
		if err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		m.brokerEpoch.Store(epoch)
		away := &absent{registrar: m.registrar}
		m.registrar = away
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.activate(ctx); err == nil || m.image.Load().Brokers[1].State != meta.BrokerFenced {
			t.Errorf("active without a controller: %v", err)
		}
		go func() {
			time.Sleep(10 * time.Second)
			away.back.Store(true)
		}()
		if err := m.activate(t.Context()); err != nil || m.image.Load().Brokers[1].State != meta.BrokerActive {
			t.Errorf("not active: %v", err)
		}
	})
}

// TestSessionEndsBeforeTheFencing proves that a node which no controller answers takes its session for
// ended before a controller can have fenced it, and for begun again with the next answer, as soon as it has
// applied what that was decided by; that it has none once it asks to stop; that a node which is answered, and does not apply the metadata, has none either;
// and that the only node of a cluster needs no answer.
func TestSessionEndsBeforeTheFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		m.brokerEpoch.Store(m.join(t, 1, m.incarnation))
		away := &absent{registrar: m.registrar}
		away.back.Store(true)
		m.registrar = away
		var ended sync.WaitGroup
		ended.Go((&upkeep{n: m.Node}).run)
		defer ended.Wait()
		defer m.cancel()
		time.Sleep(24 * time.Hour)
		if !hasSession(m.Node) {
			t.Error("the only node has no session")
		}
		epoch := m.join(t, 2, meta.UUID{2})
		if !hasSession(m.Node) {
			t.Error("no session at the moment when another node joins")
		}
		time.Sleep(time.Second)
		timeout := m.serverSettings().SessionTimeout
		if synctest.Wait(); !hasSession(m.Node) {
			t.Error("a node that is answered has no session")
		}
		away.ahead.Store(1)
		for range 4 {
			m.hear(t, 2, epoch)
			time.Sleep(timeout / 4)
		}
		if synctest.Wait(); hasSession(m.Node) {
			t.Error("a node that is answered, and has not applied what was decided a session before, has a session")
		}
		away.ahead.Store(0)
		if time.Sleep(time.Second); !hasSession(m.Node) {
			t.Error("no session, though the node has applied all")
		}
		away.back.Store(false)
		m.hear(t, 2, epoch)
		if time.Sleep(timeout / 2); !hasSession(m.Node) {
			t.Error("the session has ended after half of its timeout")
		}
		m.hear(t, 2, epoch)
		time.Sleep(timeout / 4)
		if synctest.Wait(); hasSession(m.Node) || m.image.Load().Brokers[1].State != meta.BrokerActive {
			t.Errorf("it has a session: %v; it is %v", hasSession(m.Node), m.image.Load().Brokers[1].State)
		}
		away.ahead.Store(1)
		away.back.Store(true)
		if time.Sleep(timeout / 4); hasSession(m.Node) {
			t.Error("it has a session, and does not show yet what it has lost meanwhile")
		}
		away.ahead.Store(0)
		if time.Sleep(timeout / 4); !hasSession(m.Node) {
			t.Error("no session, though it is answered again, and shows what the controller has decided")
		}
		if answer, err := sendHeartbeat(t.Context(), m.Node, true); err != nil || hasSession(m.Node) {
			t.Errorf("it has a session though it asked to stop: %+v, %v", answer, err)
		}
		time.Sleep(timeout / 4)
		if synctest.Wait(); hasSession(m.Node) {
			t.Error("another heartbeat has brought the session back")
		}
	})
}

// absent is a controller that does not lead until it is back.
type absent struct {
	registrar
	back  atomic.Bool
	ahead atomic.Uint64 // how many entries of the metadata log the node lacks

	clockAhead, takes time.Duration // how far its clock is ahead of the node's, and how long an answer takes
}

// Heartbeat is refused until the controller is back.
func (a *absent) Heartbeat(ctx context.Context, beat *controller.Beat) (controller.BeatAnswer, *controller.Error, error) {
	if !a.back.Load() {
		return controller.BeatAnswer{}, nil, quorum.ErrNotLeader
	}
	time.Sleep(a.takes / 2)
	answer, refused, err := a.registrar.Heartbeat(ctx, beat)
	answer.Applied += a.ahead.Load()
	answer.Clock = time.Now().Add(a.clockAhead).UnixMilli()
	time.Sleep(a.takes / 2)
	return answer, refused, err
}

// TestClockThatIsOff proves that a node says once how far its clock is from that of the active controller, in the log and
// for as long as that is so in its health; that the time which an answer takes is not held against the clock; and
// that the session does not depend on it.
func TestClockThatIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMember(t)
		defer m.cancel()
		var log strings.Builder
		m.loggers = newLoggers(slog.NewTextHandler(&log, nil), slog.LevelInfo)
		m.brokerEpoch.Store(m.join(t, 1, m.incarnation))
		m.join(t, 2, meta.UUID{2})
		for _, c := range []struct {
			ahead, takes time.Duration
			says, remark string // "": nothing
		}{
			{clockTolerance, 0, "", ""},
			{10 * time.Second, 0, "level=WARN", "the clock of this node is 10s behind that of the active controller"},
			{11 * time.Second, 0, "", "the clock of this node is 11s behind"},
			{-time.Hour, 0, "", "the clock of this node is 1h0m0s ahead of"},
			{0, 0, "level=INFO", ""},
			{clockTolerance + 500*time.Millisecond, 1500 * time.Millisecond, "", ""},
			{-clockTolerance - time.Second, 1500 * time.Millisecond, "level=WARN", "3s ahead of"},
		} {
			log.Reset()
			away := &absent{registrar: m, clockAhead: c.ahead, takes: c.takes}
			away.back.Store(true)
			m.registrar = away
			if _, err := sendHeartbeat(t.Context(), m.Node, false); err != nil || !hasSession(m.Node) {
				t.Fatalf("%v: %v, a session: %v", c.ahead, err, hasSession(m.Node))
			}
			if text := log.String(); c.says == "" && text != "" || !strings.Contains(text, c.says) {
				t.Errorf("%v ahead, it logs %q", c.ahead, text)
			}
			if text := m.clocks.describeDifference(); c.remark == "" && text != "" || !strings.Contains(text, c.remark) {
				t.Errorf("%v ahead, it says %q", c.ahead, text)
			}
		}
	})
}

// TestPlacesAfterAnUncleanEnd proves that a node which was killed keeps its places in the in-sync
// sets of durable topics and leaves those of page-cached ones, but not of one that has become durable,
// without a record since; and that it keeps all places after a clean stop, and none if its data
// directory is another one, was restored from a copy of an earlier run, or from one of the same run that
// was made before the directory had its last generation.
func TestPlacesAfterAnUncleanEnd(t *testing.T) {
	cfg := Config{
		Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"broker.session.timeout.ms": "3600000"},
	}
	disk := vfs.NewMem()
	var log *lines // of the newest start
	start := func(disk *vfs.Mem) *Node {
		t.Helper()
		log = &lines{}
		cfg := cfg
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		n, err := startOn(t.Context(), cfg, disk, "boot")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, n) })
		return n
	}
	n := start(disk)
	// Another node, which never serves a client.
	other := controller.Registration{Broker: meta.Broker{ID: 2, Directory: meta.UUID{2}, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels(), {Name: "metadata.version", Min: 1, Max: 99}}}}
	epoch, refused, err := n.controller.RegisterBroker(t.Context(), n.clock(), &other)
	if err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	beat := controller.Beat{Registered: controller.Registered{ID: 2, Epoch: epoch}, Applied: n.applied(), Caught: true}
	if _, refused, err := n.controller.Heartbeat(t.Context(), n.clock(), &beat); err != nil || refused != nil {
		t.Fatal(refused, err)
	}
	many := "1000000"
	var topics []controller.NewTopic
	for _, name := range []string{"durable", "cached", "unused", "changed"} {
		topic := controller.NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1, Assignments: []controller.Assignment{{Replicas: []int32{1, 2}}}}
		if name != "durable" {
			topic.Configs = map[string]*string{"flush.messages": &many}
		}
		topics = append(topics, topic)
	}
	made, err := n.controller.CreateTopics(t.Context(), topics, false)
	if err != nil || slices.ContainsFunc(made, func(c controller.CreatedTopic) bool { return c.Err != nil }) {
		t.Fatal(made, err)
	}
	cl := client(t, n, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	for _, name := range []string{"durable", "cached", "changed"} {
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: name, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	changes := []controller.ConfigChanges{{
		Resource: config.Resource{Type: config.Topic, Name: "changed"}, Changes: []controller.ConfigChange{{Op: controller.Delete, Key: "flush.messages"}},
	}}
	if errs, err := n.controller.AlterConfigs(t.Context(), changes, false); err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
	check := func(when, says string, n *Node, places map[string]bool) {
		t.Helper()
		if text := log.String(); says == "" && strings.Contains(text, "this data directory") || !strings.Contains(text, says) {
			t.Errorf("%s: it does not say %q: %s", when, says, text)
		}
		for name, has := range places {
			p := n.image.Load().Topic(name).Partitions[0]
			if slices.Contains(p.ISR, 1) != has || !slices.Contains(p.ISR, 2) {
				t.Errorf("%s: %s has %v in sync", when, name, p.ISR)
			}
		}
	}
	none := map[string]bool{"durable": false, "cached": false, "unused": false, "changed": false}
	copied := disk.KillClone(nil)
	if err := n.lastRun.RaiseGeneration(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the metadata have the generation", func() bool {
		if _, err := sendHeartbeat(t.Context(), n, false); err != nil {
			t.Fatal(err)
		}
		return n.image.Load().Brokers[1].Generation == 1
	})
	changed := n.image.Load().Topic("changed").ID
	eventually(t, "the topic that has changed counts as durable", func() bool {
		last := lastrun.Open(disk.KillClone(nil), "/data", slog.New(slog.DiscardHandler)).Last()
		return last.Epoch > 0 && !slices.Contains(last.Unsynced, [16]byte(changed))
	})
	killed, older, putBack := disk.KillClone(nil), disk.KillClone(nil), disk.KillClone(nil)
	copyFile(t, putBack, copied, "/data/last-run")
	check("put back from a copy of the same run", "it has generation 0, and has had 1 in the same run", start(putBack), none)
	check("killed", "", start(killed), map[string]bool{"durable": true, "cached": false, "unused": false, "changed": true})
	stop(t, n)
	n = start(disk)
	all := map[string]bool{"durable": true, "cached": true, "unused": true, "changed": true}
	check("stopped", "", n, all)
	if b := n.image.Load().Brokers[1]; b.Directory != n.id.directory || b.RecordedEpoch != b.Epoch || b.Directory == (meta.UUID{}) {
		t.Errorf("registered as %+v in directory %v", b, n.id.directory)
	}
	stop(t, n)
	restored := disk.KillClone(nil)
	copyFile(t, restored, older, "/data/last-run")
	check("restored", "this data directory is older than what the cluster knows", start(restored), none)
	replaced := disk.KillClone(nil)
	b, err := readFile(replaced, "/data/"+identityFile)
	if err != nil {
		t.Fatal(err)
	}
	without, _, _ := strings.Cut(string(b), directoryProperty)
	if err := writeFile(replaced, "/data/"+identityFile, []byte(without), vfs.Fresh); err != nil {
		t.Fatal(err)
	}
	check("replaced", "this data directory has the id ", start(replaced), none)
}

// copyFile puts a file of another disk in the place of one.
func copyFile(t *testing.T, disk, from *vfs.Mem, name string) {
	t.Helper()
	b, err := readFile(from, name)
	if err == nil {
		err = writeFile(disk, name, b, vfs.Fresh)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStartOnAFullDisk proves that a node starts where there is no room to note its registration,
// serves what it has, and starts again.
func TestStartOnAFullDisk(t *testing.T) {
	disk, full := vfs.NewMem(), false
	faulty := vfs.NewFaulty(disk, func(op vfs.Op, path string) error {
		if full && op == vfs.OpWrite && strings.HasSuffix(path, "/last-run.tmp") {
			return vfs.ErrNoSpace
		}
		return nil
	})
	cfg := Config{Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler)}
	for run, isFull := range []bool{false, true, true, false} {
		full = isFull
		n, err := startOn(t.Context(), cfg, faulty, "boot")
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		cl := client(t, n, kgo.AllowAutoTopicCreation())
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
			t.Errorf("run %d: %v", run, err)
		}
		cl.Close()
		stop(t, n)
	}
}
