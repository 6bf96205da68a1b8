package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/vfs"
	"github.com/leatstream/leat/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world has what the metadata and the data directories of a cluster's nodes have: their keys, their
// addresses, and raft's ids of their quorums.
type world struct {
	t   testing.TB
	log *slog.Logger

	mu        sync.Mutex
	keys      map[int32]credential.NodeKey
	addresses map[int32]string
	raftIDs   map[uint64]int32 // as the metadata have them
	behind    int32            // a node that does not have them
	nodes     map[int32]*node  // that run
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		t: tb, log: slog.New(slog.DiscardHandler), keys: map[int32]credential.NodeKey{}, addresses: map[int32]string{},
		raftIDs: map[uint64]int32{}, nodes: map[int32]*node{},
	}
	if testing.Verbose() {
		w.log = slog.New(slog.NewTextHandler(&lines{t: tb}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return w
}

// lines writes a log to a test's.
type lines struct{ t testing.TB }

func (l *lines) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// addKey makes the key of a node that was admitted.
func (w *world) addKey(id int32) {
	k, err := credential.NewNodeKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[id] = k
}

// FindNode is of credential.Directory.
func (w *world) FindNode(id int32) (credential.Member, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, ok := w.keys[id]
	if !ok {
		return credential.Member{}, false
	}
	return credential.Member{Key: k.Public()}, true
}

// FindToken is of credential.Directory.
func (*world) FindToken(credential.TokenID) (v credential.Verifier, ok bool) { return v, false }

// FindAgentToken is of credential.Directory.
func (*world) FindAgentToken(credential.TokenID) (v credential.Verifier, ok bool) { return v, false }

func (w *world) self(id int32) credential.Self {
	w.mu.Lock()
	defer w.mu.Unlock()
	return credential.Self{Versions: credential.Range{Min: 1, Max: 2}, Cluster: credential.ClusterID{7}, Epoch: 1, NodeID: id, Key: w.keys[id]}
}

func incarnationOf(id int32) credential.Incarnation { return credential.Incarnation{byte(id)} }

// find finds a node for the Links of another one.
func (w *world) find(from, to int32) (peer.Target, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.keys[to]; !ok {
		return peer.Target{}, credential.ErrUnknownNode
	}
	return peer.Target{
		Addresses: []string{w.addresses[to]},
		Dialler: func() *credential.Dialler {
			return credential.DialAsNode(w.self(from), incarnationOf(from), credential.Target{Nodes: w, NodeID: to}, rand.Reader)
		},
	}, nil
}

// nodeOf finds the node that has a raft id, in the metadata as a node knows them.
func (w *world) nodeOf(self int32, raftID uint64) (int32, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, ok := w.raftIDs[raftID]
	return id, ok && self != w.behind
}

// register has the metadata know a node's id of raft.
func (w *world) register(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raftIDs[n.quorum.Status().RaftID] = n.id
}

// others lists all nodes but one.
func (w *world) others(but int32) []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Keys(w.keys)), func(id int32) bool { return id == but })
}

// node is a node of the cluster: a quorum, and a server on a port of the loopback with a door.
type node struct {
	w    *world
	id   int32
	disk *vfs.Mem
	text *machine // nil: it has another state

	links     *peer.Links
	transport *Quorum
	quorum    *quorum.Node
	server    *wire.Server
	listener  net.Listener
	door      *peer.Door
	clients   wire.Handler                     // nil: there are none
	work      *budget.Budget                   // nil: it is not bounded
	notify    atomic.Pointer[func(peer.Event)] // nil: only the transport is told of events
	closers   []func()                         // of what a test has added, the last first
	served    chan error
	cancel    context.CancelFunc
}

// options are what a node has besides its quorum.
type options struct {
	founds bool // it makes a new quorum, if its disk is empty
	// state is what the entries are applied to; nil: a machine.
	state interface {
		apply(u quorum.Update) error
		capture() (encode func() []byte)
	}
	// extend adds to a node whose quorum runs, and is not reached by others yet.
	extend func(n *node, ctx context.Context) (handlers []peer.Handler)
}

// start starts a node on a disk; nil: a new one.
func (w *world) start(id int32, disk *vfs.Mem, o options) *node {
	w.t.Helper()
	if disk == nil {
		disk = vfs.NewMem()
	}
	if _, ok := w.FindNode(id); !ok {
		w.addKey(id)
	}
	n := &node{w: w, id: id, disk: disk, served: make(chan error, 1)}
	if o.state == nil {
		n.text = new(machine)
		o.state = n.text
	}
	var err error
	w.mu.Lock()
	address, ok := w.addresses[id]
	w.mu.Unlock()
	if !ok {
		address = "127.0.0.1:0"
	}
	if n.listener, err = net.Listen("tcp", address); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.addresses[id], w.nodes[id] = n.listener.Addr().String(), n
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.links = peer.NewLinks(ctx, peer.LinksConfig{
		Find: func(to int32) (peer.Target, error) { return w.find(id, to) },
		Notify: func(e peer.Event) {
			n.transport.Notify(e)
			if also := n.notify.Load(); also != nil {
				(*also)(e)
			}
		},
	})
	n.transport = NewQuorum(ctx, QuorumConfig{NodeID: id, Links: n.links, Others: func() []int32 { return w.others(id) }, NodeOf: func(raftID uint64) (int32, bool) { return w.nodeOf(id, raftID) }})
	if n.quorum, err = quorum.Open(quorum.Config{
		ID: id, Dir: "quorum", FS: disk, Logger: w.log.With("node", id), Apply: o.state.apply, Capture: o.state.capture, SnapshotBytes: 64 << 10,
		Transport: n.transport, Cluster: "c", Join: !o.founds,
	}); err != nil {
		w.t.Fatal(err)
	}
	n.transport.Attach(n.quorum)
	handlers := n.transport.Handlers()
	if o.extend != nil {
		handlers = append(handlers, o.extend(n, ctx)...)
	}
	if n.door, err = peer.NewDoor(peer.DoorConfig{
		Self: func() credential.Self { return w.self(id) }, Directory: w, Handlers: handlers,
		Admit: func(_ context.Context, p credential.Peer) (credential.Welcome, error) {
			return credential.Welcome{NodeID: p.NodeID}, nil
		},
	}); err != nil {
		w.t.Fatal(err)
	}
	n.server = wire.NewServer(wire.Config{
		Logger: w.log.With("node", id), Work: n.work, Peers: wire.Peers{Handshake: peer.Handshake(), Expected: func() bool { return true }, Conns: 100, Waiting: 16, Memory: 64 << 20},
	}, n)
	go func() { n.served <- n.server.Serve(&wire.Listener{Listener: n.listener, Name: "PLAINTEXT"}) }()
	w.t.Cleanup(n.kill)
	return n
}

// kill ends the node as the end of its process does. Its disk stays.
func (n *node) kill() {
	n.w.mu.Lock()
	isRunning := n.w.nodes[n.id] == n
	if isRunning {
		delete(n.w.nodes, n.id)
	}
	n.w.mu.Unlock()
	if !isRunning {
		return
	}
	n.cancel()
	ended, end := context.WithCancel(context.Background())
	end()
	_ = n.listener.Close()
	_ = n.server.Shutdown(ended) // it has closed what was left
	if err := <-n.served; err != nil {
		n.w.t.Error(err)
	}
	for _, f := range slices.Backward(n.closers) {
		f()
	}
	if err := n.quorum.Close(context.Background()); err != nil {
		n.w.t.Error(err)
	}
	n.transport.Close()
	n.links.Close()
}

// Open is of wire.Handler.
func (n *node) Open(c *wire.Conn) wire.Session {
	s := &session{peer: n.door.Open(c)}
	if n.clients != nil {
		s.client = n.clients.Open(c)
	}
	return s
}

// session is a connection's: of a peer or of a client.
type session struct {
	peer   *peer.Session
	client wire.Session
}

func (s *session) Serve(r *wire.Request) error {
	switch {
	case peer.IsPrivate(r.Key):
		return s.peer.Serve(r)
	case s.client != nil:
		return s.client.Serve(r)
	}
	return errors.New("it is not served")
}

func (s *session) Flush() {
	if s.client != nil {
		s.client.Flush()
	}
}

func (s *session) Close() {
	s.peer.Close()
	if s.client != nil {
		s.client.Close()
	}
}

// machine is a state machine that keeps the text of every entry.
type machine struct {
	mu   sync.Mutex
	text []string
}

func (m *machine) apply(u quorum.Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.Snapshot != nil {
		m.text = strings.Split(string(u.Snapshot), "\n")
	}
	for _, e := range u.Entries {
		m.text = append(m.text, string(e.Data))
	}
	return nil
}

func (m *machine) capture() (encode func() []byte) {
	text := m.lines()
	return func() []byte { return []byte(strings.Join(text, "\n")) }
}

func (m *machine) lines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.text)
}

func (m *machine) has(line string) bool { return slices.Contains(m.lines(), line) }

// propose proposes a line on a node that leads.
func (n *node) propose(line string) error {
	term, ok := n.quorum.Leading()
	if !ok {
		return quorum.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return n.quorum.Propose(ctx, term, []byte(line))
}

// leader waits until one of the nodes leads.
func leader(tb testing.TB, nodes ...*node) *node {
	tb.Helper()
	var found *node
	eventually(tb, "a node leads", func() bool {
		for _, n := range nodes {
			if _, ok := n.quorum.Leading(); ok {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// promote makes nodes the voters, among them the one that leads.
func promote(tb testing.TB, lead *node, voters ...*node) {
	tb.Helper()
	var ids, learners []uint64
	for _, n := range voters {
		id := n.quorum.Status().RaftID
		if ids = append(ids, id); n != lead {
			learners = append(learners, id)
		}
	}
	self := lead.quorum.Status().RaftID
	for _, want := range []quorum.Members{{Voters: []uint64{self}, Learners: learners}, {Voters: ids}} {
		eventually(tb, "the members are changed", func() bool {
			term, _ := lead.quorum.Leading()
			ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
			defer cancel()
			return lead.quorum.ChangeMembers(ctx, term, want) == nil
		})
	}
	// Until another voter knows that the change is committed, none could be elected without the leader,
	// which was the only voter.
	eventually(tb, "all voters know of each other", func() bool {
		return !slices.ContainsFunc(voters, func(n *node) bool {
			s := n.quorum.Status()
			return s.IsChanging || len(s.Members.Voters) != len(voters)
		})
	})
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in a minute: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// rawConn is a connection of somebody who has proven nothing.
func rawConn(tb testing.TB, address string) net.Conn {
	tb.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// frame is a request in the oldest form of header.
func frame(key int16, body []byte) []byte {
	size := 10 + len(body)
	return append([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), byte(key >> 8), byte(key), 0, 0, 0, 0, 0, 1, 0xff, 0xff}, body...)
}

// isClosedWithout tells whether the other end closes a connection without an answer.
func isClosedWithout(c net.Conn) bool {
	b, err := io.ReadAll(c)
	return len(bytes.TrimSpace(b)) == 0 && (err == nil || !errors.Is(err, context.DeadlineExceeded))
}
