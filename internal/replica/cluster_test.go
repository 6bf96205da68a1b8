package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// cluster is several nodes with a Set each, on disks in memory. The metadata are decided by the rules
// of the real controller, which never fails, and come to the nodes as they do in a cluster: each
// applies entries one after the other, some later than others. Time is that of synctest.
type cluster struct {
	t        testing.TB
	settings map[string]string // the nodes' own
	static   *config.Static    // the controller's
	nodes    []*member         // by id - 1
	work     sync.WaitGroup
	closed   chan struct{}
	// coordinates has each node run a coordinator on the topic t; set before the nodes start.
	coordinates bool
	// scrub is how many bytes a second the nodes read to look for damage; 0: none. It is set before the nodes start.
	scrub int64

	mu      sync.Mutex
	image   *meta.Image // guarded by mu
	entries [][]byte    // guarded by mu: the metadata log
	cuts    map[[2]int32]bool
	// meddle is called with each message, and may delay it; an error loses it. guarded by mu.
	meddle func(from, to int32, what any) error
	// comesLate is asked for each message that is lost whether it comes later after all, and after what
	// time; nil: none does. guarded by mu.
	comesLate func() (time.Duration, bool)
	trace     []string // guarded by mu: what has happened
	began     time.Time
}

// note notes an event, for tests that fail.
func (c *cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(format, args...)
}

func (c *cluster) noteLocked(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf("%v ", time.Since(c.began).Round(time.Microsecond))+fmt.Sprintf(format, args...))
}

// nodeLog notes the log lines of a node.
type nodeLog struct {
	c    *cluster
	node int32
}

func (nodeLog) Enabled(context.Context, slog.Level) bool { return true }
func (h nodeLog) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h nodeLog) WithGroup(string) slog.Handler          { return h }
func (h nodeLog) Handle(_ context.Context, r slog.Record) error {
	s := r.Message
	r.Attrs(func(a slog.Attr) bool { s += " " + a.String(); return true })
	h.c.note("node %d: %s", h.node, s)
	return nil
}

// controllerID is the controller's number on the network.
const controllerID = 0

var errCut = errors.New("the connection is cut")

// member is a node and its disk.
type member struct {
	c         *cluster
	id        int32
	directory meta.UUID
	rack      string

	starting sync.Mutex // held while the node is started

	mu    sync.Mutex
	disk  *vfs.Mem
	hook  vfs.Hook // guarded by mu; nil: the disk has no faults
	life  *life    // guarded by mu; nil: the node is down
	epoch int64    // the last recorded broker epoch
}

// life is a node from its start to its end.
type life struct {
	m     *member
	store *storage.Store
	set   *Set
	coord *coord.Runtime[*keeper] // nil: the cluster has no coordinators
	wake  chan struct{}
	stop  chan struct{}
	done  sync.WaitGroup
	dead  atomic.Bool // nothing that it says or hears counts any more
}

// runCluster runs a test on nodes that are started, within a synctest bubble. configs are those of the
// brokers.
func runCluster(t *testing.T, nodes int, test func(c *cluster), configs ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nodes, configs...)
		defer c.close()
		for _, m := range c.nodes {
			m.start()
		}
		test(c)
	})
}

func newCluster(tb testing.TB, nodes int, configs ...string) *cluster {
	tb.Helper()
	settings := map[string]string{}
	for i := 0; i < len(configs); i += 2 {
		settings[configs[i]] = configs[i+1]
	}
	static, err := config.NewStatic(controllerID, settings)
	if err != nil {
		tb.Fatal(err)
	}
	c := &cluster{t: tb, static: static, settings: settings, began: time.Now(), image: meta.Empty(), cuts: map[[2]int32]bool{}, closed: make(chan struct{})}
	c.decide(func(*controller.Rules) ([]byte, bool) {
		return meta.Append(meta.Append(nil, meta.ClusterCreated{ID: "AAAAAAAAAAAAAAAAAAAAAA", Tag: 1}),
			meta.FeatureSet{Name: meta.LevelFeature, Level: meta.LevelCluster}), false
	})
	for id := range int32(nodes) {
		c.nodes = append(c.nodes, &member{c: c, id: id + 1, directory: meta.NewUUID(), disk: vfs.NewMem()})
	}
	return c
}

func (c *cluster) close() {
	for _, m := range c.nodes {
		m.stop()
	}
	close(c.closed)
	c.work.Wait()
}

// decide has the controller write what rules decide on its newest image, in parts.
func (c *cluster) decide(part func(r *controller.Rules) (records []byte, more bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for more := true; more; {
		var records []byte
		records, more = part(&controller.Rules{Image: c.image, Static: c.static})
		if len(records) == 0 {
			continue
		}
		img, _, err := meta.Apply(c.image, records)
		if err != nil {
			panic(err)
		}
		c.image = img
		c.entries = append(c.entries, records)
		if t := img.Topic("t"); t != nil {
			p := &t.Partitions[0]
			c.noteLocked("controller: leader %d in epoch %d.%d, ISR %v, replicas %v, adding %v, eligible %v", p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.ISR, p.Replicas, p.Adding, p.Eligible)
		}
	}
	for _, m := range c.nodes {
		if l := m.present(); l != nil {
			fill(l.wake)
		}
	}
}

// write has the controller write records as they are.
func (c *cluster) write(recs ...meta.Record) {
	c.decide(func(*controller.Rules) ([]byte, bool) {
		var entry []byte
		for _, r := range recs {
			entry = meta.Append(entry, r)
		}
		return entry, false
	})
}

func (c *cluster) snapshot() (img *meta.Image, entries [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.image, c.entries
}

// partition is partition 0 of a topic in the newest image.
func (c *cluster) partition(topic string) *meta.Partition {
	img, _ := c.snapshot()
	if t := img.Topic(topic); t != nil {
		return &t.Partitions[0]
	}
	return nil
}

// topic makes a topic with one partition, whose replicas are on the given nodes. The first one leads.
func (c *cluster) topic(name string, replicas ...int32) {
	id := meta.NewUUID()
	c.write(meta.TopicCreated{ID: id, Name: name},
		meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: replicas, ISR: replicas, Leader: replicas[0]}}})
}

// configure has the controller set a config of a topic.
func (c *cluster) configure(topic, key, value string) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		d, errs := r.AlterConfigs([]controller.ConfigChanges{{
			Resource: config.Resource{Type: config.Topic, Name: topic}, Changes: []controller.ConfigChange{{Op: controller.Set, Key: key, Value: value}},
		}})
		if errs[0] != nil {
			panic(errs[0])
		}
		return d.Records, d.More
	})
}

func (c *cluster) configureBrokers(key, value string) {
	c.write(meta.ConfigSet{Resource: config.Resource{Type: config.Broker}, Key: key, Value: value})
}

// fence has the controller fence a node.
func (c *cluster) fence(id int32) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		b := r.Image.Brokers[id]
		if b == nil || b.State == meta.BrokerFenced {
			return nil, false
		}
		d, err := r.FenceBroker(id, b.Epoch)
		if err != nil {
			panic(err)
		}
		return d.Records, d.More
	})
}

// unfence has the controller unfence a node that runs.
func (c *cluster) unfence(id int32) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		b := r.Image.Brokers[id]
		if b == nil || b.State != meta.BrokerFenced {
			return nil, false
		}
		d, err := r.UnfenceBroker(id, b.Epoch)
		if err != nil {
			panic(err)
		}
		return d.Records, d.More
	})
}

// prefer has the controller make the first replica of a topic's partition the leader.
func (c *cluster) prefer(topic string) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		d, _ := r.ElectLeaders([]controller.Partition{{Topic: topic}}, false)
		return d.Records, false
	})
}

// moveTo has the controller make a member of the in-sync set the leader of a topic's partition.
func (c *cluster) moveTo(topic string, id int32) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		t := r.Image.Topic(topic)
		p := t.Partitions[0]
		return meta.Append(nil, meta.PartitionChanged{
			Topic: t.ID, ISR: p.ISR, Leader: id, LeaderEpoch: p.LeaderEpoch + 1, PartitionEpoch: p.PartitionEpoch + 1,
			Eligible: p.Eligible, LastEligible: p.LastEligible,
		}), false
	})
}

// reassign has the controller move a topic's partition to other nodes.
func (c *cluster) reassign(topic string, replicas ...int32) {
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		d, errs := r.AlterReassignments([]controller.Reassignment{{Partition: controller.Partition{Topic: topic}, Replicas: replicas}}, true)
		if errs[0] != nil {
			panic(errs[0])
		}
		return d.Records, false
	})
}

// cut cuts the network between two nodes, both ways, or mends it.
func (c *cluster) cut(a, b int32, isCut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts[[2]int32{a, b}], c.cuts[[2]int32{b, a}] = isCut, isCut
}

// isolate cuts a node off from all others, or ends that.
func (c *cluster) isolate(id int32, isCut bool) {
	for other := range int32(len(c.nodes) + 1) {
		c.cut(id, other, isCut)
	}
}

func (c *cluster) setMeddle(fn func(from, to int32, what any) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meddle = fn
}

// pass passes a message from one node to another, or loses it.
func (c *cluster) pass(from, to int32, what any) error {
	c.mu.Lock()
	meddle, isCut := c.meddle, c.cuts[[2]int32{from, to}]
	c.mu.Unlock()
	if isCut {
		return errCut
	}
	if meddle != nil {
		if err := meddle(from, to, what); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Microsecond)
	return nil
}

func (c *cluster) node(id int32) *member { return c.nodes[id-1] }

// present is the present life of a node; nil: it is down.
func (m *member) present() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// setFree leaves room for n more bytes on the node's disk.
func (m *member) setFree(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk.SetFree(n)
}

// callHook is the disk's hook.
func (m *member) callHook(op vfs.Op, path string) error {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op, path)
}

func (m *member) setHook(hook vfs.Hook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// start starts the node: it is registered, follows the metadata, and is unfenced when it has applied
// its registration.
func (m *member) start() {
	m.starting.Lock()
	defer m.starting.Unlock()
	if m.present() != nil {
		return
	}
	c := m.c
	m.mu.Lock()
	disk := m.disk
	m.mu.Unlock()
	store, err := storage.Open(storage.Config{FS: vfs.NewFaulty(disk, m.callHook), Dir: "data", Logger: slog.New(nodeLog{c, m.id}), Scrub: cmp.Or(c.scrub, -1), Reserve: 1 << 16, Journal: 1 << 20})
	if err != nil {
		panic(fmt.Sprintf("node %d: %v", m.id, err))
	}
	static, err := config.NewStatic(m.id, c.settings)
	if err != nil {
		panic(err)
	}
	l := &life{m: m, store: store, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	l.set = NewSet(Config{NodeID: m.id, Store: store, Static: static, Transport: link{l}, Logger: slog.New(nodeLog{c, m.id})})
	if c.coordinates {
		l.coord = newCoordinators(nodeLog{c, m.id})
	}
	c.note("node %d starts", m.id)
	incarnation := meta.NewUUID()
	var epoch int64
	c.decide(func(r *controller.Rules) ([]byte, bool) {
		d, e, refused := r.RegisterBroker(&controller.Registration{
			Broker:        meta.Broker{ID: m.id, Incarnation: incarnation, Directory: m.directory, Rack: m.rack, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()}},
			PreviousEpoch: m.epoch,
		}, false)
		if refused != nil {
			panic(refused)
		}
		epoch = e
		return d.Records, d.More
	})
	m.mu.Lock()
	m.life, m.epoch = l, epoch
	m.mu.Unlock()
	l.done.Go(func() { l.follow(incarnation) })
	l.done.Go(l.expire)
	fill(l.wake)
	c.unfence(m.id)
}

// follow applies the metadata. As a node does, it begins with all that there is when it is active.
func (l *life) follow(incarnation meta.UUID) {
	img, active, applied := meta.Empty(), false, 0
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			return
		}
		_, entries := l.m.c.snapshot()
		for applied < len(entries) {
			to := len(entries)
			if l.m.c.pass(controllerID, l.m.id, metadata{}) != nil {
				time.Sleep(5 * time.Millisecond)
				if l.dead.Load() {
					return
				}
				continue
			}
			next, d, err := meta.ApplyAll(img, func(yield func(uint64, []byte) bool) {
				for i := applied; i < to; i++ {
					if !yield(uint64(i+1), entries[i]) {
						return
					}
				}
			})
			if err != nil {
				panic(err)
			}
			applied = to
			if !active {
				b := next.Brokers[l.m.id]
				active = b != nil && b.Incarnation == incarnation && b.State != meta.BrokerFenced
				d = meta.Diff(meta.Empty(), next)
			}
			img = next
			if active {
				l.set.Apply(d, img)
				l.changeCoordinator()
				if p := l.set.Partition("t", 0); p != nil {
					at := p.Leadership()
					l.m.c.note("node %d applied %d: leader %d in epoch %d.%d", l.m.id, applied, at.Leader, at.Epoch, at.PartitionEpoch)
				}
			}
		}
	}
}

// metadata is the message by which a node hears of the metadata.
type metadata struct{}

func (l *life) expire() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.set.Expire(l.set.Now())
		case <-l.stop:
			return
		}
	}
}

// end ends the node's life. What it does meanwhile reaches nobody.
func (l *life) end() {
	l.dead.Store(true)
	close(l.stop)
	l.done.Wait()
	if l.coord != nil {
		l.coord.Close()
	}
	l.set.Close()
	_ = l.store.Close() // its disk may be faulty
}

// take takes the life from a node that runs, and returns it; nil: it is down.
func (m *member) take() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.life
	m.life = nil
	if l != nil {
		l.dead.Store(true)
	}
	return l
}

// stop stops the node in an orderly way.
func (m *member) stop() {
	if l := m.take(); l != nil {
		l.end()
	}
}

// crash cuts the node's power.
func (m *member) crash(rng *rand.Rand) {
	l := m.take()
	if l == nil {
		return
	}
	m.mu.Lock()
	m.disk = m.disk.Crash(rng)
	m.mu.Unlock()
	m.c.note("node %d loses its power", m.id)
	l.end()
}

// kill kills the node's process.
func (m *member) kill() {
	l := m.take()
	if l == nil {
		return
	}
	m.mu.Lock()
	m.disk = m.disk.KillClone(nil)
	m.mu.Unlock()
	m.c.note("node %d is killed", m.id)
	l.end()
}

// link is the Transport of a node.
type link struct{ l *life }

// reach finds the life of another node, if a message can reach it. If the message is lost it may come
// later after all: then late is called, which nobody waits for.
func (k link) reach(to int32, what any, late func(other *life)) (*life, error) {
	c := k.l.m.c
	if k.l.dead.Load() {
		return nil, errCut
	}
	if err := c.pass(k.l.m.id, to, what); err != nil {
		c.mu.Lock()
		comesLate := c.comesLate
		c.mu.Unlock()
		if comesLate == nil {
			return nil, err
		}
		if after, ok := comesLate(); ok {
			c.work.Go(func() {
				time.Sleep(after)
				if to == controllerID {
					late(nil)
				} else if other := c.node(to).present(); other != nil {
					late(other)
				}
			})
		}
		return nil, err
	}
	if to == controllerID {
		return nil, nil //nolint:nilnil // the controller has no life
	}
	other := k.l.m.c.node(to).present()
	if other == nil {
		return nil, errCut
	}
	return other, nil
}

func (k link) Fetch(ctx context.Context, leader int32, r *FetchRequest) (*FetchAnswer, error) {
	sent := *r
	sent.Partitions, sent.Forgotten, sent.Reports = slices.Clone(r.Partitions), slices.Clone(r.Forgotten), slices.Clone(r.Reports)
	other, err := k.reach(leader, r, func(other *life) {
		sent.MaxWait = 0
		if a, err := other.set.ServeFetch(context.WithoutCancel(ctx), &sent); err == nil {
			a.Release()
		}
	})
	if err != nil {
		return nil, err
	}
	a, err := other.set.ServeFetch(ctx, &sent)
	if err != nil {
		return nil, err
	}
	got := &FetchAnswer{Session: a.Session, Partitions: slices.Clone(a.Partitions), Buffer: slices.Clone(a.Buffer)}
	got.Reuse = func(a *FetchAnswer) { clear(a.Buffer) } // nobody may use it any more
	clear(a.Buffer)
	a.Release()
	if other.dead.Load() || k.l.dead.Load() {
		return nil, errCut
	}
	if err := k.l.m.c.pass(leader, k.l.m.id, got); err != nil {
		return nil, err
	}
	return got, nil
}

func (k link) Report(_ context.Context, leader int32, r *Reports) error {
	other, err := k.reach(leader, r, func(other *life) { other.set.TakeReports(r) })
	if err != nil {
		return err
	}
	other.set.TakeReports(r)
	return nil
}

func (k link) AlterInSync(_ context.Context, changes []InSyncChange) error {
	if _, err := k.reach(controllerID, changes, func(*life) { k.decideInSync(changes) }); err != nil {
		return err
	}
	k.decideInSync(changes)
	return k.l.m.c.pass(controllerID, k.l.m.id, nil)
}

// decideInSync has the controller judge a proposal.
func (k link) decideInSync(changes []InSyncChange) {
	k.l.m.c.decide(func(r *controller.Rules) ([]byte, bool) {
		var asked []controller.InSyncChange
		for _, ch := range changes {
			a := controller.InSyncChange{Topic: ch.ID.Topic, Partition: ch.ID.Partition, LeaderEpoch: int32(ch.Epoch), PartitionEpoch: ch.PartitionEpoch, GivesUp: ch.GivesUp, Successor: ch.Successor, Damaged: ch.Damaged}
			for _, m := range ch.ISR {
				a.ISR = append(a.ISR, controller.Member{ID: m.ID, Epoch: m.BrokerEpoch})
			}
			asked = append(asked, a)
		}
		d, _, _ := r.AlterPartitions(k.l.m.id, k.l.set.brokerEpoch.Load(), asked)
		return d.Records, false
	})
}

// replica is a node's replica of partition 0 of a topic; nil: there is none.
func (m *member) replica(topic string) *Partition {
	l := m.present()
	if l == nil {
		return nil
	}
	return l.set.Partition(topic, 0)
}

// leader is the node that leads a topic's partition and knows so; nil: nobody does.
func (c *cluster) leader(topic string) *member {
	var leader *member
	last := record.NoEpoch
	for _, m := range c.nodes {
		p := m.replica(topic)
		if p == nil || p.CheckLeader(record.NoEpoch) != nil {
			continue
		}
		if e := p.Leadership().Epoch; e > last { // a node that is cut off may believe to lead in an earlier one
			leader, last = m, e
		}
	}
	return leader
}

// eventually waits until a condition holds, for at most a minute of the bubble's time.
func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	for range 6000 {
		synctest.Wait()
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatalf("it does not come to pass: %s\n%s%s", what, c.describe(), strings.Join(c.trace, "\n"))
}

// describe says how the replicas of all topics are.
func (c *cluster) describe() (s string) {
	img, _ := c.snapshot()
	for t := range img.Topics() {
		p := &t.Partitions[0]
		s += fmt.Sprintf("%s: leader %d in epoch %d.%d, ISR %v, replicas %v, adding %v, eligible %v\n", t.Name, p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.ISR, p.Replicas, p.Adding, p.Eligible)
		for _, m := range c.nodes {
			if p := m.replica(t.Name); p != nil {
				ends, err := logEnds(p.log.Load())
				s += fmt.Sprintf("  node %d: %+v, high watermark %d, %+v, %v\n", m.id, ends, p.hw.Load(), *p.lead.Load(), cmp.Or(err, p.Fault()))
				s += describeFollowing(p) + "    " + strings.Join(lastBatches(p), " ") + "\n"
			}
		}
	}
	return s
}

// lastBatches describes the last batches of a replica.
func lastBatches(p *Partition) (list []string) {
	end, _ := p.End()
	for off := p.Start(); off < end; {
		b, err := p.ReadBatches(off, end, 1<<20)
		if err != nil || len(b) == 0 {
			break
		}
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				break
			}
			list = append(list, fmt.Sprintf("%d-%d/%d", one.BaseOffset(), one.LastOffset(), one.LeaderEpoch()))
			off, b = one.NextOffset(), rest
		}
	}
	return list[max(0, len(list)-12):]
}

// describeFollowing says what a follower does.
func describeFollowing(p *Partition) string {
	p.mu.Lock()
	fo := p.following
	p.mu.Unlock()
	if fo == nil {
		return ""
	}
	s := "    follows"
	if fo.machine != nil {
		at, ready := fo.machine.RetryAt()
		s += fmt.Sprintf(" by %+v, ready %v at %v", fo.machine, ready, at)
	}
	if sl := fo.slot; sl != nil {
		sl.f.mu.Lock()
		s += fmt.Sprintf(", asked %v, due %v, known %v, left %v; %d delayed, session %x", sl.isAsked, sl.isDue, sl.isKnown, sl.isLeft, len(sl.f.delayed), sl.f.session)
		sl.f.mu.Unlock()
	}
	return s + "\n"
}

// ack is the end of a produce request.
type ack struct {
	base record.Offset
	err  error
}

// producing is a produce request to one partition that is under way.
type producing struct {
	l    *life
	w    Waiter
	base record.Offset
	end  chan ack
}

func (p *producing) Appended(_ int32, o Outcome) {
	p.base, p.w.Epoch = o.Base, o.Epoch
	if o.Err != nil {
		p.end <- ack{-1, o.Err}
	}
}

func (p *producing) Complete(_ int32, err error) {
	if p.l.dead.Load() {
		err = errCut
	}
	p.end <- ack{p.base, err}
}

// send sends a batch to a node, and returns the channel on which its end is told.
func (m *member) send(topic string, b record.Batch, acks Acks) <-chan ack {
	end := make(chan ack, 2)
	l, p := m.present(), m.replica(topic)
	if p == nil {
		end <- ack{-1, errCut}
		return end
	}
	r := &producing{l: l, end: end}
	a := Appends{Set: l.set}
	a.Add(p, b, acks, r, 0)
	a.Write()
	if len(end) == 0 {
		need := r.base + record.Offset(b.LastOffsetDelta()) + 1
		r.w = Waiter{Owner: r, Epoch: r.w.Epoch, Acks: acks, Deadline: l.set.Now() + 20*time.Second}
		p.Wait(&r.w, need)
	}
	a.Commit()
	return end
}

// produce sends a record with a value to the leader of a topic, and returns its end.
func (c *cluster) produce(topic, value string, acks Acks) ack {
	c.t.Helper()
	m := c.leader(topic)
	if m == nil {
		return ack{-1, ErrNotLeader}
	}
	return <-m.send(topic, oneRecord(c.t, value), acks)
}

// mustProduce sends records that must be acknowledged.
func (c *cluster) mustProduce(topic string, values ...string) {
	c.t.Helper()
	for _, v := range values {
		if a := c.produce(topic, v, AcksAll); a.err != nil {
			c.t.Fatalf("%q: %v\n%s", v, a.err, c.describe())
		}
	}
}

// values are the values of the records that a node's replica has, from its start on.
func (m *member) values(topic string) (list []string) {
	p := m.replica(topic)
	if p == nil {
		return nil
	}
	end, err := p.End()
	if err != nil {
		return nil
	}
	start := p.Start()
	for off := start; off < end; {
		b, err := p.ReadBatches(off, end, 1<<20)
		if err != nil || len(b) == 0 {
			return append(list, fmt.Sprint(err))
		}
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				panic(err)
			}
			var r record.Reader
			for r.Reset(one, 1<<20); r.Next(); {
				if r.Record.Offset >= start { // the start may lie within a batch
					list = append(list, string(r.Record.Value))
				}
			}
			r.Close()
			off, b = one.NextOffset(), rest
		}
	}
	return list
}

// isEqual tells whether all replicas of a topic are in sync, and have the same records, which are
// committed on all of them.
func (c *cluster) isEqual(topic string) bool {
	p := c.partition(topic)
	if p == nil || len(p.ISR) != len(p.Replicas) || len(p.Adding) > 0 {
		return false
	}
	leader := c.leader(topic)
	if leader == nil || leader.id != p.Leader {
		return false
	}
	want, end := leader.values(topic), leader.replica(topic).HighWatermark()
	hasSame := func(m *member) bool { // but for deleted records: one that has led may have deleted more
		got := m.values(topic)
		n := min(len(got), len(want))
		return slices.Equal(got[len(got)-n:], want[len(want)-n:])
	}
	if e, err := leader.replica(topic).End(); err != nil || e != end {
		return false
	}
	for _, id := range p.Replicas {
		r := c.node(id).replica(topic)
		if r == nil || r.hw.Load() != int64(end) || !hasSame(c.node(id)) {
			return false
		}
	}
	return true
}

// awaitEqual waits until all replicas of a topic are in sync and equal, and checks their records.
func (c *cluster) awaitEqual(topic string, want ...string) {
	c.t.Helper()
	c.eventually("equal replicas", func() bool { return c.isEqual(topic) })
	if got := c.leader(topic).values(topic); !slices.Equal(got, want) {
		c.t.Fatalf("the records are %q, want %q", got, want)
	}
}
