package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

// metadata is a state of the quorum that is the cluster's metadata.
type metadata struct {
	image atomic.Pointer[meta.Image]

	mu     sync.Mutex
	follow func(d *meta.Delta, img *meta.Image) // guarded by mu; nil: nobody follows
}

func newMetadata() *metadata {
	m := new(metadata)
	m.image.Store(meta.Empty())
	return m
}

// setFollow has a function called with all changes from now on, and with what is there as the first one.
func (m *metadata) setFollow(follow func(d *meta.Delta, img *meta.Image)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follow = follow
	img := m.image.Load()
	follow(meta.Diff(meta.Empty(), img), img)
}

func (m *metadata) apply(u quorum.Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.image.Load()
	img := before
	if u.Snapshot != nil {
		var err error
		if img, _, err = meta.Apply(meta.Empty(), u.Snapshot); err != nil {
			return err
		}
	}
	img, _, err := meta.ApplyAll(img, func(yield func(uint64, []byte) bool) {
		for i := range u.Entries {
			if !yield(u.Entries[i].Index, u.Entries[i].Data) {
				return
			}
		}
	})
	m.image.Store(img)
	if m.follow != nil {
		m.follow(meta.Diff(before, img), img)
	}
	return err
}

func (m *metadata) capture() (encode func() []byte) {
	img := m.image.Load()
	return func() []byte { return meta.Encode(img) }
}

// member is a node with a controller.
type member struct {
	*node
	meta  *metadata
	local *controller.Controller
	ctl   *Controller
	epoch atomic.Int64 // of its registration
	// serveClient serves the requests of other nodes' clients; nil: there are none.
	serveClient func(ctx context.Context, q *wire.Carried, r *wire.Request) error
}

// startMember starts a node with a controller on a disk; nil: a new one. extend adds more to it; it may
// be nil.
func (w *world) startMember(id int32, disk *vfs.Mem, o options, extend func(m *member, ctx context.Context) []peer.Handler) *member {
	w.t.Helper()
	m := &member{meta: newMetadata()}
	o.state = m.meta
	o.extend = func(n *node, ctx context.Context) []peer.Handler {
		m.node = n
		static, err := config.NewStatic(id, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		began := time.Now()
		m.local = controller.New(controller.Config{
			Image: m.meta.image.Load, Leading: n.quorum.Leading, Propose: n.quorum.Propose, Applied: n.quorum.Applied, Static: static,
		})
		m.ctl = NewController(ctx, ControllerConfig{
			Links: n.links, Quorum: n.transport, Local: m.local, Image: m.meta.image.Load,
			Now: func() time.Duration { return time.Since(began) }, Logger: w.log.With("node", id),
			ServeClient: func(ctx context.Context, q *wire.Carried, r *wire.Request) error {
				if m.serveClient == nil {
					return quorum.ErrNotLeader
				}
				return m.serveClient(ctx, q, r)
			},
		})
		n.closers = append(n.closers, m.ctl.Close)
		notify := m.ctl.Notify
		n.notify.Store(&notify)
		handlers := m.ctl.Handlers()
		if extend != nil {
			handlers = append(handlers, extend(m, ctx)...)
		}
		return handlers
	}
	w.start(id, disk, o)
	return m
}

// registrationOf is what a member registers.
func registrationOf(m *member) *controller.Registration {
	address := m.listener.Addr().(*net.TCPAddr)
	return &controller.Registration{Broker: meta.Broker{
		ID: m.id, Incarnation: meta.UUID(incarnationOf(m.id)), Directory: meta.UUID{0xd, byte(m.id)}, Features: []meta.FeatureRange{meta.SupportedLevels(), meta.TransactionLevels()}, RaftID: m.quorum.Status().RaftID,
		Listeners: []meta.Listener{{Name: "PLAINTEXT", Host: address.IP.String(), Port: int32(address.Port)}},
	}}
}

// join registers a member, and has it unfenced.
func (m *member) join() {
	m.w.t.Helper()
	m.w.register(m.node)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	epoch, refused, err := m.ctl.RegisterBroker(ctx, registrationOf(m))
	if err != nil || refused != nil {
		m.w.t.Fatal(refused, err)
	}
	m.epoch.Store(epoch)
	eventually(m.w.t, "the node is unfenced", func() bool {
		answer, refused, err := m.beat(ctx)
		if err != nil || refused != nil {
			m.w.t.Fatal(refused, err)
		}
		return !answer.Fenced
	})
}

func (m *member) beat(ctx context.Context) (controller.BeatAnswer, *controller.Error, error) {
	b := m.meta.image.Load().Brokers[m.id]
	return m.ctl.Heartbeat(ctx, &controller.Beat{
		Registered: controller.Registered{ID: m.id, Epoch: m.epoch.Load()}, Applied: m.quorum.Applied(), Caught: b != nil && b.Epoch == m.epoch.Load(),
	})
}

// startMembers starts nodes with controllers, of which the first ones are the voters.
func (w *world) startMembers(count, voters int, extend func(m *member, ctx context.Context) []peer.Handler) (all []*member) {
	w.t.Helper()
	for id := int32(1); id <= int32(count); id++ {
		m := w.startMember(id, nil, options{founds: id == 1}, extend)
		if id == 1 {
			if err := m.local.Bootstrap(context.Background(), "AAAAAAAAAAAAAAAAAAAAAA"); err != nil {
				w.t.Fatal(err)
			}
		}
		m.join()
		all = append(all, m)
	}
	if voters > 1 {
		var nodes []*node
		for _, m := range all[:voters] {
			nodes = append(nodes, m.node)
		}
		promote(w.t, nodes[0], nodes...)
	}
	return all
}

// leading waits until one of the members leads.
func leading(tb testing.TB, all []*member) *member {
	tb.Helper()
	var nodes []*node
	for _, m := range all {
		nodes = append(nodes, m.node)
	}
	lead := leader(tb, nodes...)
	for _, m := range all {
		if m.node == lead {
			return m
		}
	}
	return nil
}

// without lists all members but one.
func without(all []*member, one *member) (rest []*member) {
	for _, m := range all {
		if m != one {
			rest = append(rest, m)
		}
	}
	return rest
}

// TestCommandsReachTheController proves that commands of all nodes, voters or not, are carried out by
// the active controller; that their effect is in the image of the node that has given them when they
// return; and that this goes on, without an error, when the active controller ends.
func TestCommandsReachTheController(t *testing.T) {
	w := newWorld(t)
	all := w.startMembers(4, 3, nil)
	lead := leading(t, all)
	var blocks sync.Map
	work := func(m *member, round int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		name := fmt.Sprintf("topic-%d-%d", m.id, round)
		if err := m.ctl.EnsureTopic(ctx, name); err != nil {
			t.Error(err)
		} else if m.meta.image.Load().Topic(name) == nil {
			t.Errorf("node %d has made %s and does not know it", m.id, name)
		}
		first, err := m.ctl.AllocateProducerIDs(ctx, 10)
		if err != nil {
			t.Error(err)
		}
		if by, ok := blocks.LoadOrStore(first, m.id); ok {
			t.Errorf("the nodes %v and %d have the same producer ids", by, m.id)
		}
		if answer, refused, err := m.beat(ctx); err != nil || refused != nil || answer.Fenced {
			t.Errorf("heartbeat: %+v, %v, %v", answer, refused, err)
		}
	}
	const rounds = 30
	rest := without(all, lead)
	halfway := make(chan struct{}, len(rest))
	var working sync.WaitGroup
	for _, m := range rest {
		working.Go(func() {
			for round := range rounds {
				if round == rounds/2 {
					halfway <- struct{}{}
				}
				work(m, round)
			}
		})
	}
	for range rest {
		<-halfway
	}
	lead.kill()
	working.Wait()
	for _, m := range rest {
		if t.Failed() {
			break
		}
		eventually(t, "all nodes know all topics", func() bool { return m.meta.image.Load().NumTopics() == rounds*len(rest) })
	}
}

// TestEndOfANodeIsNoticed proves that the active controller fences a node soon after the end of its
// process, without waiting for its session's end.
func TestEndOfANodeIsNoticed(t *testing.T) {
	w := newWorld(t)
	all := w.startMembers(2, 1, nil)
	all[0].ctl.KeepLinks()
	all[0].links.Get(t.Context(), 2, peer.Commands)
	all[1].beat(t.Context())
	all[1].kill()
	eventually(t, "it is fenced", func() bool {
		if err := all[0].local.Tick(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		return all[0].meta.image.Load().Brokers[2].State == meta.BrokerFenced
	})
}

// TestMovedNodeIsRegistered proves that a process at another address than the registered one, with its data directory, is refused
// while somebody listens there, since it may be a copy; and that it need not wait when the port refuses.
func TestMovedNodeIsRegistered(t *testing.T) {
	w := newWorld(t)
	m := w.startMembers(1, 1, nil)[0]
	registered, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registered.Close()
	register := func(incarnation byte, port int) *controller.Error {
		t.Helper()
		g := registrationOf(m)
		g.Broker.ID, g.Broker.Directory, g.Broker.Incarnation, g.Broker.RaftID = 2, meta.UUID{2}, meta.UUID{incarnation}, 2
		g.Broker.Listeners[0].Port = int32(port)
		_, refused, err := m.ctl.register().decide(t.Context(), g, false)
		if err != nil {
			t.Fatal(err)
		}
		return refused
	}
	port := registered.Addr().(*net.TCPAddr).Port
	if refused := register(20, port); refused != nil {
		t.Fatal(refused)
	}
	if refused := register(21, port+1); refused == nil || refused.Kind != controller.DuplicateBroker {
		t.Errorf("beside the registered one: %v", refused)
	}
	registered.Close()
	if refused := register(21, port+1); refused != nil {
		t.Errorf("the registered one is gone: %v", refused)
	}
}

// TestCommandsWaitForAController proves that a command waits while there is no active controller, until
// its context ends, and goes on when there is one again.
func TestCommandsWaitForAController(t *testing.T) {
	w := newWorld(t)
	all := w.startMembers(3, 3, nil)
	lead := leading(t, all)
	rest := without(all, lead)
	disk, id := lead.disk, lead.id
	lead.kill()
	rest[0].kill()
	last := rest[1]
	eventually(t, "nobody leads", func() bool { return last.transport.Leader() < 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := last.ctl.AllocateProducerIDs(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := last.ctl.AllocateProducerIDs(t.Context(), 1)
		waits <- err
	}()
	w.startMember(id, disk, options{}, nil)
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

// TestOnlyItself proves that a node cannot give commands about another one, that an administrator cannot
// give those of nodes, and that nobody gives any without proof.
func TestOnlyItself(t *testing.T) {
	w := newWorld(t)
	one := w.startMembers(1, 1, nil)[0]
	address := one.listener.Addr().String()
	for _, h := range one.ctl.Handlers() {
		c := rawConn(t, address)
		c.Write(frame(h.Key, []byte("{}")))
		if !isClosedWithout(c) {
			t.Errorf("%s is served to anybody", peer.NameOf(h.Key))
		}
	}
	w.addKey(2)
	dial := func(d *credential.Dialler) *peer.Conn {
		c, err := peer.Dial(t.Context(), address, d, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	target := credential.Target{Nodes: w, NodeID: 1}
	for name, c := range map[string]struct {
		key           int16
		body          string
		administrator bool
	}{
		"a heartbeat of another node":            {peer.NodeHeartbeat, `{"ID":1,"Epoch":1}`, false},
		"a registration of another node":         {peer.NodeRegister, `{"Broker":{"ID":1,"Incarnation":[2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}`, false},
		"a registration of another process":      {peer.NodeRegister, `{"Broker":{"ID":2,"Incarnation":[1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}`, false},
		"no JSON":                                {peer.NodeHeartbeat, `{"ID":2`, false},
		"a command that is too large":            {peer.TopicsEnsure, `{"names":["` + strings.Repeat("x", maxCommand) + `"]}`, false},
		"a heartbeat of an administrator":        {peer.NodeHeartbeat, `{"ID":1,"Epoch":1}`, true},
		"producer ids for an administrator":      {peer.ProducerIDs, `{"count":1}`, true},
		"all producer ids":                       {peer.ProducerIDs, `{"count":1048577}`, false},
		"an admission by an administrator":       {peer.NodeAdmit, `{"NodeID":9}`, true},
		"topics' creation by an administrator":   {peer.TopicsEnsure, `{"names":["x"]}`, true},
		"a change of links by an administrator":  {peer.LinksChange, `{"kind":"remove link"}`, true},
		"a change of links with half an id":      {peer.LinksChange, `{"kind":"remove link","linkId":"x"}`, false},
		"a node that manages links":              {peer.LinksServe, `{"verb":"list"}`, false},
		"an administrator that asks for mirrors": {peer.LinksShow, `{}`, true},
		"a node that manages tails":              {peer.TailsServe, `{"verb":"list"}`, false},
		"an administrator that asks for tails":   {peer.TailsShow, `{"verb":"list"}`, true},
		"an administrator that asks for groups":  {peer.LinkPositions, `{}`, true},
		"an administrator that asks for ends":    {peer.MirrorEnds, `{}`, true},
	} {
		d := credential.DialAsNode(w.self(2), incarnationOf(2), target, rand.Reader)
		if c.administrator {
			d = credential.DialAsAdministrator(w.self(2), target, rand.Reader)
		}
		if _, err := dial(d).Call(t.Context(), c.key, []byte(c.body)); !errors.Is(err, peer.ErrClosedByPeer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	conn := dial(credential.DialAsNode(w.self(2), incarnationOf(2), target, rand.Reader))
	answer, err := conn.Call(t.Context(), peer.NodeHeartbeat, []byte(`{"ID":2,"Epoch":1}`))
	if err == nil {
		answer, err = splitAnswer(answer)
	}
	if err != nil || !strings.Contains(string(answer), "not currently registered") {
		t.Errorf("%s, %v", answer, err)
	}
}

// TestAdministrators proves that an administrator's commands reach the active controller by any node, are
// seen there when they return, and may be given twice, as after a lost answer; and that refusals come back.
func TestAdministrators(t *testing.T) {
	w := newWorld(t)
	all := w.startMembers(2, 1, nil)
	asked := all[1]
	conn, err := peer.Dial(t.Context(), asked.listener.Addr().String(),
		credential.DialAsAdministrator(w.self(1), credential.Target{Nodes: w, NodeID: 2}, rand.Reader), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := Administrator{conn}
	token, err := credential.NewToken(credential.ClusterID{7}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := token.Verifier(time.Now().Add(time.Hour))
	for range 2 {
		if refused, err := a.MakeToken(t.Context(), &v); refused != nil || err != nil {
			t.Error(refused, err)
		}
	}
	if got := asked.meta.image.Load().Tokens[v.ID]; got == nil || got.Verifier().Key != v.Key {
		t.Errorf("the token is %+v", got)
	}
	other := v
	other.Key[0]++
	if refused, err := a.MakeToken(t.Context(), &other); refused == nil || refused.Kind != controller.InvalidRequest || err != nil {
		t.Error("a second token of one id:", refused, err)
	}
	listed, err := a.ListTokens(t.Context())
	if want := (controller.ListedToken{ID: v.ID, Expires: v.Expires.UnixMilli()}); err != nil || len(listed) != 1 || listed[0] != want {
		t.Errorf("the list has %+v, %v", listed, err)
	}
	admission := &controller.Admission{Token: v.ID, Key: credential.PublicKey{5}, NodeID: credential.AnyNode}
	for range 2 {
		if id, err := asked.ctl.AdmitNode(t.Context(), admission); id != 3 || err != nil {
			t.Error(id, err)
		}
	}
	if n := asked.meta.image.Load().Nodes[3]; n == nil || n.Key != admission.Key {
		t.Errorf("the node is %+v", n)
	}
	for range 2 {
		if refused, err := a.RevokeToken(t.Context(), v.ID); refused != nil || err != nil {
			t.Error(refused, err)
		}
	}
	if n := asked.meta.image.Load().Nodes[3]; n != nil {
		t.Errorf("the node has not registered, its token is revoked, and it is still there: %+v", n)
	}
	admission.Key[0]++
	if _, err := asked.ctl.AdmitNode(t.Context(), admission); !errors.Is(err, credential.ErrTokenRevoked) {
		t.Error(err)
	}
	v.ID[0]++
	if refused, err := a.MakeToken(t.Context(), &v); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	admission.Token = v.ID
	id, err := asked.ctl.AdmitNode(t.Context(), admission)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if refused, err := a.RemoveNode(t.Context(), id, false); refused != nil || err != nil {
			t.Error(refused, err)
		}
	}
	if n := asked.meta.image.Load().Nodes[id]; n == nil || !n.Removed {
		t.Errorf("the node is %+v", n)
	}
	if refused, err := a.RemoveNode(t.Context(), 9, false); refused == nil || refused.Kind != controller.BrokerNotRegistered || err != nil {
		t.Error(refused, err)
	}
	if refused, err := a.Finalize(t.Context(), meta.LevelFeature, meta.LatestLevel+1); refused == nil || err != nil {
		t.Error(refused, err)
	}
	if refused, err := a.Finalize(t.Context(), meta.LevelFeature, meta.LatestLevel); refused != nil || err != nil {
		t.Error(refused, err)
	}
	if shown, err := a.Authority(t.Context()); shown != nil || err != nil {
		t.Error(shown, err)
	}
	next := &meta.Authority{Number: 1, Round: 1, Certificates: [][]byte{{1}}, SealedKey: []byte{2}}
	for range 2 {
		if refused, err := a.SetAuthority(t.Context(), nil, next); refused != nil || err != nil {
			t.Error(refused, err)
		}
	}
	if shown, err := a.Authority(t.Context()); err != nil || shown == nil || shown.Round != 1 || string(shown.SealedKey) != "\x02" {
		t.Error(shown, err)
	}
	if refused, err := a.SetAuthority(t.Context(), nil, &meta.Authority{Number: 1, Round: 2, Certificates: [][]byte{{1}}, SealedKey: []byte{3}}); refused == nil || err != nil {
		t.Error("another first authority:", refused, err)
	}
	all[0].kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := a.Finalize(ctx, meta.LevelFeature, meta.LatestLevel); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("without a controller:", err)
	}
}

// TestErrorsTravel proves that errors on which callers depend are the same on both ends, with their
// texts, that others are told as failures, and that answers which cannot be read are errors.
func TestErrorsTravel(t *testing.T) {
	for _, known := range errorStatuses() {
		sent := fmt.Errorf("why: %w", known.err)
		_, err := splitAnswer(appendError(nil, sent))
		if !errors.Is(err, known.err) || err.Error() != sent.Error() {
			t.Errorf("%v becomes %v", sent, err)
		}
	}
	_, err := splitAnswer(appendError(nil, errors.New("why")))
	if !errors.Is(err, ErrFailed) || err.Error() != "why" {
		t.Error(err)
	}
	_, err = splitAnswer(appendError(nil, &notLeaderError{7}))
	var elsewhere *notLeaderError
	if !errors.As(err, &elsewhere) || elsewhere.leader != 7 || !errors.Is(err, quorum.ErrNotLeader) {
		t.Error(err)
	}
	long := appendError(nil, errors.New(strings.Repeat("x", 1<<20)))
	if len(long) > 1+maxReason {
		t.Errorf("%d bytes", len(long))
	}
	for _, b := range [][]byte{nil, {}, {byte(statusNotLeader), 1}, {200, 'x'}} {
		if body, err := splitAnswer(b); err == nil {
			t.Errorf("%v is %q", b, body)
		}
	}
	if body, err := splitAnswer([]byte{0, 'x'}); err != nil || string(body) != "x" {
		t.Error(body, err)
	}
}
