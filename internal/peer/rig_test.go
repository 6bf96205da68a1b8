package peer_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	here     = credential.ClusterID{1, 2, 3}
	versions = credential.Range{Min: 1, Max: 1}
)

// world is a cluster of the nodes 1 to 3, a removed node 4 and one token, as its metadata and its
// data directories have it.
type world struct {
	tb    testing.TB
	keys  map[int32]credential.NodeKey
	token credential.Token

	mu     sync.Mutex
	nodes  map[int32]credential.Member
	tokens map[credential.TokenID]credential.Verifier
	agents map[credential.TokenID]credential.Verifier
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		tb: tb, keys: map[int32]credential.NodeKey{},
		nodes: map[int32]credential.Member{}, tokens: map[credential.TokenID]credential.Verifier{},
	}
	for id := int32(1); id <= 4; id++ {
		w.keys[id] = w.makeKey()
		w.nodes[id] = credential.Member{Key: w.keys[id].Public(), Removed: id == 4}
	}
	var err error
	if w.token, err = credential.NewToken(here, rand.Reader); err != nil {
		tb.Fatal(err)
	}
	w.tokens[w.token.ID()] = w.token.Verifier(time.Now().Add(time.Hour))
	return w
}

func (w *world) makeKey() credential.NodeKey {
	w.tb.Helper()
	k, err := credential.NewNodeKey(rand.Reader)
	if err != nil {
		w.tb.Fatal(err)
	}
	return k
}

func (w *world) FindNode(id int32) (credential.Member, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.nodes[id]
	return m, ok
}

func (w *world) FindToken(id credential.TokenID) (credential.Verifier, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.tokens[id]
	return v, ok
}

func (w *world) FindAgentToken(id credential.TokenID) (credential.Verifier, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.agents[id]
	return v, ok
}

func (w *world) self(id int32) credential.Self {
	return credential.Self{Versions: versions, Cluster: here, Epoch: 1, NodeID: id, Key: w.keys[id]}
}

func incarnationOf(id int32) credential.Incarnation { return credential.Incarnation{0xaa, byte(id)} }

// dialler makes the dialler of a node that wants another one.
func (w *world) dialler(from, to int32) *credential.Dialler {
	return credential.DialAsNode(w.self(from), incarnationOf(from), credential.Target{Nodes: w, NodeID: to}, rand.Reader)
}

func (w *world) administrator(id int32) *credential.Dialler {
	return credential.DialAsAdministrator(w.self(id), credential.Target{Nodes: w, NodeID: credential.AnyNode}, rand.Reader)
}

func (w *world) joiner() *credential.Dialler {
	join := credential.Join{Token: w.token, Versions: versions, Key: w.makeKey(), NodeID: credential.AnyNode}
	return credential.DialAsJoiner(join, rand.Reader)
}

func (w *world) welcome(id int32) credential.Welcome {
	return credential.Welcome{NodeID: id, Level: 7, Members: []credential.Contact{{NodeID: 2, Key: w.keys[2].Public(), Addresses: []string{"two:9092"}}}}
}

// admit admits everybody; a joiner becomes node 9.
func (w *world) admit(_ context.Context, p credential.Peer) (credential.Welcome, error) {
	if p.Kind == credential.KindJoiner {
		return w.welcome(9), nil
	}
	return w.welcome(p.NodeID), nil
}

// logLines collects what a server logs.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// node is node 2: a wire.Server with a door. It serves Metadata to anybody, and everything else
// that is not private to nobody, as a broker does.
type node struct {
	tb     testing.TB
	door   *peer.Door
	server *wire.Server
	log    logLines
	addr   string // "": it has no listener
	tls    *tls.Config
}

type config struct {
	door peer.DoorConfig
	wire wire.Config
	tls  *tls.Config // nil: it listens without TLS
}

// echoes are handlers that answer each key that is answered with its body, from all kinds.
func echoes() (list []peer.Handler) {
	for _, key := range []int16{peer.PullMetadata, peer.MetadataSnapshot, peer.Forward, peer.TokenMake, peer.TokenRevoke, peer.NodeRemove, peer.Finalize} {
		list = append(list, peer.Handler{Key: key, From: peer.Nodes | peer.Administrators | peer.Joiners, Serve: func(_ *peer.Identity, r *wire.Request) error {
			reply(r, r.Body())
			return nil
		}})
	}
	return list
}

func reply(r *wire.Request, body []byte) {
	p := r.Begin()
	p.B = append(p.B, body...)
	r.Send(p)
}

// newNode makes a node without a listener; change alters its configuration.
func newNode(tb testing.TB, w *world, change func(c *config)) *node {
	tb.Helper()
	n := &node{tb: tb}
	c := config{
		door: peer.DoorConfig{Self: func() credential.Self { return w.self(2) }, Directory: w, Admit: w.admit, Handlers: echoes()},
		wire: wire.Config{
			Logger: slog.New(slog.NewTextHandler(&n.log, nil)),
			Peers:  wire.Peers{Handshake: peer.Handshake(), Expected: func() bool { return true }, Conns: 100, Waiting: 16},
		},
	}
	if change != nil {
		change(&c)
	}
	var err error
	if n.door, err = peer.NewDoor(c.door); err != nil {
		tb.Fatal(err)
	}
	n.server, n.tls = wire.NewServer(c.wire, n), c.tls
	return n
}

// startNode starts a node on a port of the loopback.
func startNode(tb testing.TB, w *world, change func(c *config)) *node {
	tb.Helper()
	n := newNode(tb, w, change)
	n.listen("127.0.0.1:0")
	return n
}

func (n *node) listen(address string) {
	n.tb.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.addr = l.Addr().String()
	served := make(chan error, 1)
	wl := &wire.Listener{Listener: l}
	if n.tls != nil {
		wl.TLS = func() *tls.Config { return n.tls }
	}
	go func() { served <- n.server.Serve(wl) }()
	n.tb.Cleanup(func() {
		n.kill()
		if err := <-served; err != nil {
			n.tb.Error(err)
		}
	})
}

// kill ends the node's connections at once, as the end of its process does.
func (n *node) kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = n.server.Shutdown(ctx) // it has closed what was left
}

func (n *node) Open(c *wire.Conn) wire.Session { return &session{n.door.Open(c)} }

// session is a small broker's session.
type session struct{ peer *peer.Session }

func (s *session) Serve(r *wire.Request) error {
	switch {
	case peer.IsPrivate(r.Key):
		return s.peer.Serve(r)
	case r.Key == 3:
		req, err := r.Decode()
		if err != nil {
			return err
		}
		resp := kmsg.NewPtrMetadataResponse()
		for _, t := range req.(*kmsg.MetadataRequest).Topics {
			rt := kmsg.NewMetadataResponseTopic()
			rt.Topic = t.Topic
			resp.Topics = append(resp.Topics, rt)
		}
		r.Reply(resp)
		return nil
	case r.Key == 18:
		r.Reply(kmsg.NewPtrApiVersionsResponse())
		return nil
	}
	return errors.New("API or version is not supported")
}

func (*session) Flush() {}

func (s *session) Close() { s.peer.Close() }

// dial connects and proves, and closes the connection when the test ends.
func dial(tb testing.TB, address string, d *credential.Dialler) *peer.Conn {
	tb.Helper()
	c, err := peer.Dial(tb.Context(), address, d, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// raw is a connection without any manners.
type raw struct {
	tb testing.TB
	net.Conn
}

func dialRaw(tb testing.TB, address string) *raw {
	tb.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	return &raw{tb, nc}
}

// frame is a request in the oldest form of header.
func frame(key, version int16, id int32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	return append(append(b, 0xff, 0xff), body...)
}

// receive reads one answer.
func (c *raw) receive() (id int32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.BigEndian.Uint32(head[:])-4)
	_, err = io.ReadFull(c, body)
	return int32(binary.BigEndian.Uint32(head[4:])), body, err
}

// awaitClosed reads until the connection ends, and returns what came.
func (c *raw) awaitClosed() []byte {
	c.tb.Helper()
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.tb.Fatal("the connection is open")
	}
	return b
}

// prove does a handshake by hand.
func (c *raw) prove(d *credential.Dialler) {
	c.tb.Helper()
	hello, err := d.Hello()
	if err != nil {
		c.tb.Fatal(err)
	}
	c.Write(frame(peer.PeerHello, 0, 1, hello))
	_, challenge, err := c.receive()
	if err != nil {
		c.tb.Fatal(err)
	}
	proof, err := d.Prove(challenge)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.Write(frame(peer.PeerProve, 0, 2, proof))
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in 30 seconds: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
