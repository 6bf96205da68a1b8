package credential_test

import (
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/credential"
)

var (
	here   = credential.ClusterID{1, 2, 3}
	now    = time.Unix(1_800_000_000, 0)
	range1 = credential.Range{Min: 1, Max: 1}
)

// metadata is a small Directory.
type metadata struct {
	nodes  map[int32]credential.Member
	tokens map[credential.TokenID]credential.Verifier
	agents map[credential.TokenID]credential.Verifier
}

func (m *metadata) FindNode(id int32) (credential.Member, bool) {
	n, ok := m.nodes[id]
	return n, ok
}

func (m *metadata) FindToken(id credential.TokenID) (credential.Verifier, bool) {
	v, ok := m.tokens[id]
	return v, ok
}

func (m *metadata) FindAgentToken(id credential.TokenID) (credential.Verifier, bool) {
	v, ok := m.agents[id]
	return v, ok
}

// world is a cluster of the nodes 1 to 3, a removed node 4, one token, and random bytes that are the same
// each time.
type world struct {
	t      testing.TB
	random io.Reader
	keys   map[int32]credential.NodeKey
	token  credential.Token
	metadata
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{
		t: tb, random: rand.NewChaCha8([32]byte{7}), keys: map[int32]credential.NodeKey{},
		metadata: metadata{map[int32]credential.Member{}, map[credential.TokenID]credential.Verifier{}, map[credential.TokenID]credential.Verifier{}},
	}
	for id := int32(1); id <= 4; id++ {
		w.keys[id] = w.makeKey()
		w.nodes[id] = credential.Member{Key: w.keys[id].Public(), Removed: id == 4}
	}
	w.token = w.makeToken(here)
	w.tokens[w.token.ID()] = w.token.Verifier(now.Add(time.Hour))
	return w
}

func (w *world) makeKey() credential.NodeKey {
	w.t.Helper()
	k, err := credential.NewNodeKey(w.random)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) makeToken(cluster credential.ClusterID) credential.Token {
	w.t.Helper()
	k, err := credential.NewToken(cluster, w.random)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) self(id int32) credential.Self {
	return credential.Self{Versions: range1, Cluster: here, Epoch: 1, NodeID: id, Key: w.keys[id]}
}

func (w *world) join() credential.Join {
	return credential.Join{Token: w.token, Versions: range1, Key: w.makeKey(), Directory: credential.DirectoryID{9}, NodeID: credential.AnyNode}
}

// dial makes the dialler of one node that wants another.
func (w *world) dial(from, to int32) *credential.Dialler {
	return credential.DialAsNode(w.self(from), incarnationOf(from), credential.Target{Nodes: w, NodeID: to}, w.random)
}

func (w *world) accept(id int32) *credential.Acceptor {
	return credential.NewAcceptor(w.self(id), w, w.random)
}

func incarnationOf(id int32) credential.Incarnation { return credential.Incarnation{0xaa, byte(id)} }

func (w *world) welcome(id int32) credential.Welcome {
	return credential.Welcome{NodeID: id, Level: 7, Members: []credential.Contact{
		{NodeID: 1, Key: w.keys[1].Public(), Addresses: []string{"one:9092", "[::1]:9093"}},
		{NodeID: 2, Key: w.keys[2].Public(), Addresses: nil},
	}}
}

// outcome is what both ends have after a handshake.
type outcome struct {
	dialler, acceptor       credential.Session
	welcome                 credential.Welcome
	peer                    credential.Peer // as Verify returned it
	dialError, acceptError  error
	hello, challenge, proof []byte
	verdict                 []byte
}

// succeeded tells whether an end has a session.
func (o *outcome) succeeded() bool { return o.dialError == nil || o.acceptError == nil }

// shake runs a handshake. A relay between the ends may change each message, which it gets with its
// name; nil: none does. given is the node id that the cluster gives.
func shake(d *credential.Dialler, a *credential.Acceptor, w *world, given int32, relay func(name string, b []byte) []byte) *outcome {
	if relay == nil {
		relay = func(_ string, b []byte) []byte { return b }
	}
	o := &outcome{}
	if o.hello, o.dialError = d.Hello(); o.dialError != nil {
		return o
	}
	if o.challenge, o.acceptError = a.Challenge(relay("hello", o.hello)); o.challenge == nil {
		return o
	}
	if o.proof, o.dialError = d.Prove(relay("challenge", o.challenge)); o.dialError != nil || o.acceptError != nil {
		if o.acceptError == nil {
			o.acceptError = io.ErrUnexpectedEOF // the dialler hangs up
		}
		return o
	}
	o.peer, o.verdict, o.acceptError = a.Verify(relay("proof", o.proof), now)
	if o.acceptError == nil {
		o.verdict, o.acceptor, o.acceptError = a.Accept(w.welcome(given))
	}
	if o.verdict != nil {
		o.dialler, o.welcome, o.dialError = d.Finish(relay("verdict", o.verdict))
	}
	return o
}
