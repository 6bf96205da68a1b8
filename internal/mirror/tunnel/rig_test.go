package tunnel

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	here     = credential.ClusterID{1, 2, 3}
	versions = credential.Range{Min: 1, Max: 3}
	north    = meta.UUID{15: 1}
)

// rig is a cluster with a link and some nodes, which are servers with a door and a Hub each.
type rig struct {
	*testing.T

	mu     sync.Mutex // guards the fields below
	tokens map[credential.TokenID]meta.UUID
	known  map[credential.TokenID]credential.Verifier
	nodes  map[int32]*testNode
}

// testNode is a node.
type testNode struct {
	id     int32
	key    credential.NodeKey
	hub    *Hub
	server *wire.Server
	addr   string
	log    logLines
}

// logLines collects what a server logs.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// count counts the lines that have a text.
func (l *logLines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{T: t, tokens: map[credential.TokenID]meta.UUID{}, known: map[credential.TokenID]credential.Verifier{}, nodes: map[int32]*testNode{}}
}

// FindNode is of credential.Directory.
func (*rig) FindNode(int32) (m credential.Member, ok bool) { return m, false }

// FindToken is of credential.Directory.
func (*rig) FindToken(credential.TokenID) (v credential.Verifier, ok bool) { return v, false }

// FindAgentToken is of credential.Directory.
func (r *rig) FindAgentToken(id credential.TokenID) (credential.Verifier, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.known[id]
	return v, ok
}

func (r *rig) newKey() credential.NodeKey {
	r.Helper()
	k, err := credential.NewNodeKey(rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	return k
}

// newToken makes a token for the link.
func (r *rig) newToken() credential.Token {
	r.Helper()
	token, err := credential.NewToken(here, rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	token = token.ForAgent()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[token.ID()], r.known[token.ID()] = north, token.Verifier(time.Now().Add(time.Hour))
	return token
}

// list lists the nodes as an agent reaches them.
func (r *rig) list(string) (list []Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range r.nodes {
		list = append(list, Node{id, []string{"PLAINTEXT://" + n.addr}})
	}
	slices.SortFunc(list, func(a, b Node) int { return int(a.ID - b.ID) })
	return list
}

// start starts a node, at an address that it had before or a new one.
func (r *rig) start(id int32, address string) *testNode {
	r.Helper()
	n := &testNode{id: id, key: r.newKey()}
	n.hub = NewHub(HubConfig{Nodes: r.list, Find: func(token credential.TokenID) (meta.UUID, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		l, ok := r.tokens[token]
		return l, ok
	}})
	door, err := peer.NewDoor(peer.DoorConfig{
		Self: func() credential.Self {
			return credential.Self{Versions: versions, Cluster: here, NodeID: id, Key: n.key}
		},
		Directory: r, Handlers: []peer.Handler{n.hub.Handler()},
		Admit: func(context.Context, credential.Peer) (credential.Welcome, error) {
			return credential.Welcome{NodeID: id}, nil
		},
	})
	if err != nil {
		r.Fatal(err)
	}
	n.server = wire.NewServer(wire.Config{Logger: slog.New(slog.NewTextHandler(&n.log, nil)), Peers: wire.Peers{Handshake: peer.Handshake(), Expected: func() bool { return true }, Conns: 100, Waiting: 16}}, handler{door})
	l, err := net.Listen("tcp", address)
	if err != nil {
		r.Fatal(err)
	}
	n.addr = l.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := n.server.Serve(&wire.Listener{Listener: l}); err != nil {
			r.Error(err)
		}
	}()
	r.Cleanup(func() {
		n.kill()
		<-served
	})
	r.mu.Lock()
	r.nodes[id] = n
	all := make([]*testNode, 0, len(r.nodes))
	for _, o := range r.nodes {
		all = append(all, o)
	}
	r.mu.Unlock()
	for _, o := range all {
		o.hub.NoteNodes()
	}
	return n
}

// kill ends a node's connections at once, as the end of its process does.
func (n *testNode) kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = n.server.Shutdown(ctx)
	n.hub.Close()
}

// handler opens sessions that serve the requests of peers alone.
type handler struct{ door *peer.Door }

func (h handler) Open(c *wire.Conn) wire.Session { return session{h.door.Open(c)} }

type session struct{ *peer.Session }

func (session) Flush() {}

// broker is a server beside the source that says what it is told.
func (r *rig) broker() (address string) { return r.serve(func(c net.Conn) { _, _ = io.Copy(c, c) }) }

// serve is a server beside the source.
func (r *rig) serve(do func(c net.Conn)) (address string) {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	r.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// agent runs an agent until the test ends, or stop is called.
func (r *rig) agent(token credential.Token, key credential.NodeKey, name string, to *testNode, allow ...string) (stop func()) {
	r.Helper()
	log := slog.New(slog.NewTextHandler(r.Output(), nil)).With("agent", name)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		err := Run(ctx, &AgentConfig{Token: token, Key: key, Versions: versions, Name: name, Nodes: []string{"PLAINTEXT://" + to.addr}, Reach: NewReach(allow, nil, log), Logger: log})
		if err != nil {
			r.Error(err)
		}
	})
	stop = func() {
		cancel()
		ended.Wait()
	}
	r.Cleanup(stop)
	return stop
}

// awaitAgents waits until some agents are connected to a node.
func (r *rig) awaitAgents(n *testNode, want int) {
	r.Helper()
	eventually(r.T, "agents are connected", func() bool { return len(n.hub.Status(north)) == want })
}

// dial connects to a broker, over the agents of a node.
func (r *rig) dial(n *testNode, address string) net.Conn {
	r.Helper()
	c, err := n.hub.Dial(r.Context(), north, address)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}
