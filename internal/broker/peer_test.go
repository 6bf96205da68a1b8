package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// members are the nodes 1 and 2 of a cluster, one of which runs the rig, and a token.
type members struct {
	keys  map[int32]credential.NodeKey
	token credential.Token
}

var (
	peersCluster  = credential.ClusterID{7}
	peersVersions = credential.Range{Min: 1, Max: 1}
)

func newMembers(tb testing.TB) *members {
	tb.Helper()
	m := &members{keys: map[int32]credential.NodeKey{}}
	for id := int32(1); id <= 2; id++ {
		m.keys[id] = m.makeKey(tb)
	}
	var err error
	if m.token, err = credential.NewToken(peersCluster, rand.Reader); err != nil {
		tb.Fatal(err)
	}
	return m
}

func (*members) makeKey(tb testing.TB) credential.NodeKey {
	tb.Helper()
	k, err := credential.NewNodeKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func (m *members) FindNode(id int32) (credential.Member, bool) {
	k, ok := m.keys[id]
	if !ok {
		return credential.Member{}, false
	}
	return credential.Member{Key: k.Public()}, true
}

func (m *members) FindToken(id credential.TokenID) (credential.Verifier, bool) {
	return m.token.Verifier(time.Now().Add(time.Hour)), id == m.token.ID()
}

func (*members) FindAgentToken(credential.TokenID) (v credential.Verifier, ok bool) { return v, false }

func (m *members) self(id int32) credential.Self {
	return credential.Self{Versions: peersVersions, Cluster: peersCluster, NodeID: id, Key: m.keys[id]}
}

// door is that of node 1. It admits everybody, and serves every private key to nodes.
func (m *members) door(tb testing.TB) *peer.Door {
	tb.Helper()
	var handlers []peer.Handler
	for _, key := range peer.BeyondHandshake() {
		handlers = append(handlers, peer.Handler{Key: key, From: peer.Nodes, Serve: func(_ *peer.Identity, r *wire.Request) error {
			if !peer.IsOneWay(key) {
				r.Send(r.Begin())
			}
			return nil
		}})
	}
	d, err := peer.NewDoor(peer.DoorConfig{
		Self: func() credential.Self { return m.self(1) }, Directory: m, Handlers: handlers,
		Admit: func(_ context.Context, p credential.Peer) (credential.Welcome, error) {
			if p.Kind == credential.KindJoiner {
				p.NodeID = 9
			}
			return credential.Welcome{NodeID: p.NodeID}, nil
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// principal is who asks for an API.
type principal struct {
	name    string
	dialler func(m *members) *credential.Dialler // nil: it proves nothing
	kinds   peer.Kinds
}

func principals(tb testing.TB) []principal {
	tb.Helper()
	target := func(m *members) credential.Target { return credential.Target{Nodes: m, NodeID: 1} }
	return []principal{
		{"a client", nil, 0},
		{"a node", func(m *members) *credential.Dialler {
			return credential.DialAsNode(m.self(2), credential.Incarnation{2}, target(m), rand.Reader)
		}, peer.Nodes},
		{"an administrator", func(m *members) *credential.Dialler {
			return credential.DialAsAdministrator(m.self(2), target(m), rand.Reader)
		}, peer.Administrators},
		{"a joiner", func(m *members) *credential.Dialler {
			return credential.DialAsJoiner(credential.Join{Token: m.token, Versions: peersVersions, Key: m.makeKey(tb), NodeID: credential.AnyNode}, rand.Reader)
		}, peer.Joiners},
	}
}

// rawRequest is a request whose body is given.
type rawRequest struct {
	kmsg.Request
	body []byte
}

func (r rawRequest) AppendTo(b []byte) []byte { return append(b, r.body...) }

// privateRequest is a request with a private key.
type privateRequest struct {
	kmsg.ApiVersionsRequest // for its methods
	key                     int16
}

func (r *privateRequest) Key() int16 { return r.key }

func (*privateRequest) AppendTo(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// connect opens a connection as a principal.
func (p *principal) connect(t *testing.T, m *members, addr string) *client {
	t.Helper()
	c := dial(t, addr)
	if p.dialler == nil {
		return c
	}
	d := p.dialler(m)
	exchange := func(key int16, body []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c.send(rawRequest{&privateRequest{key: key}, body})
		b, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	hello, err := d.Hello()
	proof, err2 := d.Prove(exchange(peer.PeerHello, hello, err))
	if _, _, err := d.Finish(exchange(peer.PeerProve, proof, err2)); err != nil {
		t.Fatal(err)
	}
	return c
}

// isRefused sends a request, and tells whether it ends the connection without an answer. A request
// that is not answered is followed by one that is.
func (c *client) isRefused(req kmsg.Request, oneWay bool) bool {
	c.t.Helper()
	c.send(req)
	if oneWay {
		c.send(at(0, kmsg.NewPtrApiVersionsRequest()))
	}
	_, err := c.frame()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("%d: neither an answer nor an end", req.Key())
	}
	return err != nil
}

// TestPeerAPIsNeedTheProof walks every API that only nodes use, the private ones and those of Kafka, in
// every version: each is refused, as an unknown API is, to a client, to an administrator and to a
// joiner, and answered to a node. None is advertised, not even to a node. Where the broker has no door, nobody can use them.
func TestPeerAPIsNeedTheProof(t *testing.T) {
	m := newMembers(t)
	g := newRig(t, func(c *Config) { c.Peers = m.door(t) })
	closed := newRig(t)
	var kafkas, served []api
	for key := range interBroker() {
		if a := g.broker.apis[key]; a != nil { // empty requests are answered
			served = append(served, *a)
			continue
		}
		first := int16(0)
		if key == 7 {
			first = 1 // version 0 has a header of its own
		}
		kafkas = append(kafkas, api{key: key, name: kmsg.NameForKey(key), min: first, max: kmsg.RequestForKey(key).MaxVersion(), raw: func(_ *session, r *wire.Request) error {
			r.Send(r.Begin())
			return nil
		}})
	}
	for _, b := range []*Broker{g.broker, closed.broker} {
		if err := b.registerAPIs(slices.Clone(kafkas)); err != nil {
			t.Fatal(err)
		}
	}
	kafkas = append(kafkas, served...)
	for _, p := range principals(t) {
		for key := peer.FirstKey; key <= peer.LastKey; key++ {
			req := &privateRequest{key: key}
			served := p.kinds == peer.Nodes && slices.Contains(peer.BeyondHandshake(), key)
			if key == peer.PeerHello && p.kinds == 0 {
				continue // anybody may begin: see internal/peer
			}
			if got := p.connect(t, m, g.addr).isRefused(req, peer.IsOneWay(key)); got == served {
				t.Errorf("%s, %s: refused is %v", peer.NameOf(key), p.name, got)
			}
		}
		for i := range kafkas {
			a := &kafkas[i]
			served := interBroker()[a.key]&p.kinds != 0
			for version := a.min; version <= a.max; version++ {
				req := kmsg.RequestForKey(a.key)
				req.SetVersion(version)
				if got := p.connect(t, m, g.addr).isRefused(req, false); got == served {
					t.Errorf("%s v%d, %s: refused is %v", a.name, version, p.name, got)
				}
			}
		}
		keys := ask[*kmsg.ApiVersionsResponse](p.connect(t, m, g.addr), at(0, kmsg.NewPtrApiVersionsRequest())).ApiKeys
		for _, k := range keys {
			if _, secret := interBroker()[k.ApiKey]; secret || peer.IsPrivate(k.ApiKey) {
				t.Errorf("%d is advertised to %s", k.ApiKey, p.name)
			}
		}
	}
	for key := peer.FirstKey; key <= peer.LastKey; key++ {
		if !dial(t, closed.addr).isRefused(&privateRequest{key: key}, false) {
			t.Errorf("%s is served without a door", peer.NameOf(key))
		}
	}
	for i := range kafkas {
		req := kmsg.RequestForKey(kafkas[i].key)
		req.SetVersion(kafkas[i].min)
		if !dial(t, closed.addr).isRefused(req, false) {
			t.Errorf("%s is served without a door", kafkas[i].name)
		}
	}
}

// TestRefusedPeersSeeNothing proves that what a client sees of a peer's API is what it sees of an
// unknown one: the answers to its requests before that, and the end.
func TestRefusedPeersSeeNothing(t *testing.T) {
	m := newMembers(t)
	g := newRig(t, func(c *Config) { c.Peers = m.door(t) })
	g.topic("events", 1)
	var seen [][]byte
	for _, key := range []int16{999, peer.Forward, peer.PeerProve, peer.LastKey, 56} {
		c := dial(t, g.addr)
		c.send(at(0, kmsg.NewPtrApiVersionsRequest()), &privateRequest{key: key})
		if err := c.c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c.c)
		if err != nil && !errors.Is(err, net.ErrClosed) && len(b) == 0 {
			t.Fatal(err)
		}
		seen = append(seen, b)
	}
	for i := range seen {
		if !slices.Equal(seen[i], seen[0]) || len(seen[i]) == 0 {
			t.Errorf("%d: %x, for an unknown key %x", i, seen[i], seen[0])
		}
	}
}

// TestOnlyANodeFetchesAsItself proves that a fetch with a replica id is refused unless the connection
// has proven to be that node's.
func TestOnlyANodeFetchesAsItself(t *testing.T) {
	m := newMembers(t)
	g := newRig(t, func(c *Config) { c.Peers = m.door(t) })
	id := g.topic("events", 1)
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("events", 0, -1, batch(t, "secret")))
	for _, p := range principals(t) {
		c := p.connect(t, m, g.addr)
		for replica := range int32(10) {
			old := get("events", 0, 0)
			old.ReplicaID = replica
			late := at(17, get("events", 0, 0))
			late.Topics[0].TopicID, late.ReplicaState.ID = id, replica
			for _, req := range []*kmsg.FetchRequest{old, late} {
				got := fetched(t, ask[*kmsg.FetchResponse](c, req))
				if may := p.kinds == peer.Nodes && replica == 2; may != (got.ErrorCode == 0 && len(got.RecordBatches) > 0) || !may && got.ErrorCode != kerr.TopicAuthorizationFailed.Code {
					t.Errorf("%s as replica %d, version %d: code %d, %d bytes", p.name, replica, req.Version, got.ErrorCode, len(got.RecordBatches))
				}
			}
		}
		if got := fetched(t, ask[*kmsg.FetchResponse](c, get("events", 0, 0))); len(got.RecordBatches) == 0 {
			t.Errorf("%s as a client: %+v", p.name, got)
		}
	}
}
