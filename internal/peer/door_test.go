package peer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// TestEachKindProvesItself proves over a socket that a node, an administrator and a joiner get a
// connection on which their calls are answered, that each end knows who the other one is, and that
// both have the same session.
func TestEachKindProvesItself(t *testing.T) {
	w := newWorld(t)
	var met peer.Identity
	n := startNode(t, w, func(c *config) {
		c.door.Handlers = []peer.Handler{{Key: peer.TokenMake, From: peer.Nodes | peer.Administrators | peer.Joiners, Serve: func(id *peer.Identity, r *wire.Request) error {
			met = *id
			reply(r, r.Body())
			return nil
		}}}
	})
	for _, c := range []struct {
		dialler *credential.Dialler
		want    peer.Identity
	}{
		{w.dialler(1, 2), peer.Identity{Peer: credential.Peer{Kind: credential.KindNode, NodeID: 1, Key: w.keys[1].Public(), Incarnation: incarnationOf(1)}}},
		{w.administrator(2), peer.Identity{Peer: credential.Peer{Kind: credential.KindAdministrator, NodeID: 2, Key: w.keys[2].Public()}}},
		{w.joiner(), peer.Identity{Peer: credential.Peer{Kind: credential.KindJoiner, NodeID: 9, Token: w.token.ID()}}},
	} {
		p := dial(t, n.addr, c.dialler)
		body, err := p.Call(t.Context(), peer.TokenMake, []byte("who am I?"))
		if err != nil || string(body) != "who am I?" {
			t.Fatalf("%q, %v", body, err)
		}
		s := p.Session()
		if want := (credential.Peer{Kind: credential.KindNode, NodeID: 2, Key: w.keys[2].Public()}); s.Peer != want {
			t.Errorf("the dialler's peer is %+v", s.Peer)
		}
		if met.SessionID != s.ID || met.Version != s.Version || s.ID == [32]byte{} {
			t.Errorf("the sessions are %v and %v", met, s)
		}
		if c.want.Kind == credential.KindJoiner {
			c.want.Key = met.Key
		}
		c.want.SessionID, c.want.Version = s.ID, 1
		if d := cmp.Diff(c.want, met); d != "" {
			t.Error("the acceptor's identity:", d)
		}
		if d := cmp.Diff(w.welcome(met.NodeID), p.Welcome()); d != "" {
			t.Error("the welcome:", d)
		}
		if met.IsNode(1) != (met.Kind == credential.KindNode) || met.IsNode(2) {
			t.Errorf("%+v is the wrong node", met)
		}
		p.Close()
	}
	if got := new(peer.Session).Identity(); got != (peer.Identity{}) || got.IsAny(peer.Nodes|peer.Administrators|peer.Joiners) {
		t.Errorf("before the proof, the identity is %+v", got)
	}
}

// TestRefusals proves that those who must not be let in are not, whatever the reason: the dialler
// gets the reason that it may learn, the node logs the whole one, and the connection ends.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, c *config)
		dial   func(w *world) *credential.Dialler
		want   error
		log    string
	}{
		"an unknown node": {
			change: func(w *world, _ *config) { delete(w.nodes, 1) },
			want:   credential.ErrRefused, log: credential.ErrUnknownNode.Error(),
		},
		"a wrong key": {
			change: func(w *world, _ *config) { w.nodes[1] = credential.Member{Key: w.keys[3].Public()} },
			want:   credential.ErrRefused, log: credential.ErrWrongProof.Error(),
		},
		"a removed node": {
			dial: func(w *world) *credential.Dialler { return w.dialler(4, 2) },
			want: credential.ErrNodeRemoved, log: "removed from the cluster",
		},
		"a living node": {
			change: func(w *world, _ *config) {
				w.nodes[1] = credential.Member{Key: w.keys[1].Public(), Living: credential.Incarnation{1}}
			},
			want: credential.ErrNodeAlive, log: "another process is running",
		},
		"another cluster": {
			change: func(_ *world, c *config) {
				self := c.door.Self
				c.door.Self = func() credential.Self {
					s := self()
					s.Cluster = credential.ClusterID{9}
					return s
				}
			},
			want: credential.ErrForeignCluster, log: "another cluster",
		},
		"a token that has ended": {
			change: func(_ *world, c *config) { c.door.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } },
			dial:   (*world).joiner,
			want:   credential.ErrTokenExpired, log: "join token has ended",
		},
		"a joiner whose id is taken by now": {
			change: func(_ *world, c *config) {
				c.door.Admit = func(context.Context, credential.Peer) (credential.Welcome, error) {
					return credential.Welcome{}, fmt.Errorf("in the entry before: %w", credential.ErrNodeIDTaken)
				}
			},
			dial: (*world).joiner,
			want: credential.ErrNodeIDTaken, log: "in the entry before",
		},
		"no decision": {
			change: func(_ *world, c *config) {
				c.door.Admit = func(context.Context, credential.Peer) (credential.Welcome, error) {
					return credential.Welcome{}, errors.New("the quorum has no leader")
				}
			},
			want: credential.ErrUnavailable, log: "the quorum has no leader",
		},
		"a verdict that cannot be written": {
			change: func(_ *world, c *config) {
				c.door.Admit = func(context.Context, credential.Peer) (credential.Welcome, error) {
					return credential.Welcome{NodeID: 3}, nil
				}
			},
			want: peer.ErrHandshake, log: "the verdict for node 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			n := startNode(t, w, func(cfg *config) {
				if c.change != nil {
					c.change(w, cfg)
				}
			})
			d := w.dialler(1, 2)
			if c.dial != nil {
				d = c.dial(w)
			}
			if _, err := peer.Dial(t.Context(), n.addr, d, nil); !errors.Is(err, c.want) {
				t.Errorf("the dialler gets: %v", err)
			}
			eventually(t, "the reason is logged", func() bool { return strings.Contains(n.log.String(), c.log) })
			eventually(t, "the connection has ended", func() bool {
				st := n.server.Stats()
				return st.Conns.Load() == 0 && st.Peers.Load() == 0
			})
		})
	}
}

// TestAdmissionMayTakeLong proves that a peer whose admission is not decided keeps nobody from being
// served, is admitted whenever that is decided, and that the decision is given up when the peer
// hangs up, or says more before the verdict.
func TestAdmissionMayTakeLong(t *testing.T) {
	w := newWorld(t)
	decide, asked, ended := make(chan struct{}), make(chan int32, 4), make(chan error, 4)
	n := startNode(t, w, func(c *config) {
		c.door.Admit = func(ctx context.Context, p credential.Peer) (credential.Welcome, error) {
			if p.NodeID != 1 {
				return w.admit(ctx, p)
			}
			asked <- p.NodeID
			select {
			case <-decide:
				return w.admit(ctx, p)
			case <-ctx.Done():
				ended <- ctx.Err()
				return credential.Welcome{}, ctx.Err()
			}
		}
	})
	hangsUp := dialRaw(t, n.addr)
	hangsUp.prove(w.dialler(1, 2))
	<-asked
	dial(t, n.addr, w.dialler(3, 2)).Close()
	hangsUp.Close()
	if err := <-ended; err == nil {
		t.Error("the decision goes on")
	}
	speaks := dialRaw(t, n.addr)
	speaks.prove(w.dialler(1, 2))
	<-asked
	speaks.Write(frame(peer.Forward, 0, 3, nil))
	if b := speaks.awaitClosed(); len(b) > 0 {
		t.Errorf("%d bytes came", len(b))
	}
	<-ended
	var dialling sync.WaitGroup
	dialling.Go(func() {
		c, err := peer.Dial(t.Context(), n.addr, w.dialler(1, 2), nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if _, err := c.Call(t.Context(), peer.Forward, nil); err != nil {
			t.Error(err)
		}
	})
	<-asked
	close(decide)
	dialling.Wait()
}

// TestNothingWithoutProof proves that each private key, known or not, with or without a body, is refused
// to a connection that has not proven itself, to one that has only said hello, and to identities that
// it is not for; that a message of the handshake out of turn is refused too; and that the other end
// sees the same as for a key that Kafka does not know, so that it learns nothing.
func TestNothingWithoutProof(t *testing.T) {
	w := newWorld(t)
	n := startNode(t, w, func(c *config) {
		c.door.Handlers = nil
		for _, key := range peer.BeyondHandshake() {
			c.door.Handlers = append(c.door.Handlers, peer.Handler{Key: key, From: peer.Nodes, Serve: func(id *peer.Identity, _ *wire.Request) error {
				t.Errorf("%s was served to %v", peer.NameOf(key), id)
				return nil
			}})
		}
	})
	hello := func() []byte {
		b, err := w.dialler(1, 2).Hello()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	type opening struct {
		name    string
		open    func(c *raw)
		answers int // of the opening
	}
	openings := []opening{
		{"at once", func(*raw) {}, 0},
		{"behind another request", func(c *raw) { c.Write(frame(18, 0, 7, nil)) }, 1},
		{"behind a hello", func(c *raw) { c.Write(frame(peer.PeerHello, 0, 1, hello())) }, 1},
		{"from an administrator", func(c *raw) { c.prove(w.administrator(1)) }, 1},
		{"from a joiner", func(c *raw) { c.prove(w.joiner()) }, 1},
	}
	try := func(o opening, key, version int16, body []byte) {
		t.Helper()
		c := dialRaw(t, n.addr)
		o.open(c)
		for range o.answers {
			if _, _, err := c.receive(); err != nil {
				t.Fatal(err)
			}
		}
		c.Write(frame(key, version, 99, body))
		if b := c.awaitClosed(); len(b) > 0 {
			t.Errorf("%s %s: %d bytes came", peer.NameOf(key), o.name, len(b))
		}
	}
	for _, o := range openings {
		try(o, 999, 0, nil) // what an unknown key looks like
		for key := peer.FirstKey; key <= peer.LastKey; key++ {
			if key == peer.PeerHello && o.answers == 0 {
				continue // that is how it begins
			}
			if key == peer.PeerProve && o.name == "behind a hello" {
				continue // it is answered: see TestRefusals
			}
			for _, body := range [][]byte{nil, bytes.Repeat([]byte{0}, 100)} {
				try(o, key, 0, body)
			}
		}
		try(o, peer.Forward, 1, nil)
	}
}

// TestRefusedRequestsAreLogged proves that the log says why a request with a private key has ended its
// connection.
func TestRefusedRequestsAreLogged(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		dialler *credential.Dialler // nil: nothing is proven
		key     int16
		want    error
	}{
		{nil, peer.Forward, peer.ErrUnproven},
		{nil, peer.PeerProve, peer.ErrOutOfTurn},
		{w.administrator(1), peer.Forward, peer.ErrNotAllowed},
		{w.dialler(1, 2), peer.TokenMake, peer.ErrNotServed},
		{w.dialler(1, 2), peer.LastKey, peer.ErrNotServed},
		{w.dialler(1, 2), peer.PeerProve, peer.ErrOutOfTurn},
	} {
		n := startNode(t, w, func(cfg *config) {
			cfg.door.Handlers = []peer.Handler{{Key: peer.Forward, From: peer.Nodes, Serve: func(*peer.Identity, *wire.Request) error { return nil }}}
		})
		p := dialRaw(t, n.addr)
		if c.dialler != nil {
			p.prove(c.dialler)
			if _, _, err := p.receive(); err != nil {
				t.Fatal(err)
			}
		}
		p.Write(frame(c.key, 0, 3, nil))
		p.awaitClosed()
		sentence := peer.NameOf(c.key) + ": " + c.want.Error()
		eventually(t, sentence, func() bool { return strings.Contains(n.log.String(), sentence) })
	}
}

// TestRefusedHellos proves that a hello and a proof with any bytes are answered with a refusal at
// most, and end the connection.
func TestRefusedHellos(t *testing.T) {
	w := newWorld(t)
	n := startNode(t, w, nil)
	for _, body := range [][]byte{nil, []byte("hello"), make([]byte, credential.MaxMessage+1), bytes.Repeat([]byte{1}, 80)} {
		c := dialRaw(t, n.addr)
		c.Write(frame(peer.PeerHello, 0, 1, body))
		if _, answer, err := c.receive(); err != nil || len(answer) > 16 || answer[0] != 5 {
			t.Errorf("%d bytes are answered with %d: %v", len(body), len(answer), err)
		}
		c.awaitClosed()
		d, err := w.dialler(1, 2).Hello()
		if err != nil {
			t.Fatal(err)
		}
		c = dialRaw(t, n.addr)
		c.Write(frame(peer.PeerHello, 0, 1, d))
		if _, _, err := c.receive(); err != nil {
			t.Fatal(err)
		}
		c.Write(frame(peer.PeerProve, 0, 2, body))
		if _, answer, err := c.receive(); err != nil || len(answer) > 16 || answer[0] != 5 {
			t.Errorf("a proof of %d bytes is answered with %d: %v", len(body), len(answer), err)
		}
		c.awaitClosed()
	}
	for _, version := range []int16{1, -1} {
		c := dialRaw(t, n.addr)
		c.Write(frame(peer.PeerHello, version, 1, nil))
		c.awaitClosed()
	}
}

// TestRemovedNodesAreSentAway proves that the connections of a node that is not wanted any more end,
// also while its admission is decided, and that those of others stay.
func TestRemovedNodesAreSentAway(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{}, 1)
	slow := false
	n := startNode(t, w, func(c *config) {
		c.door.Admit = func(ctx context.Context, p credential.Peer) (credential.Welcome, error) {
			if slow {
				asked <- struct{}{}
				<-ctx.Done()
			}
			return w.admit(ctx, p)
		}
	})
	stays, goes, joiner := dial(t, n.addr, w.dialler(3, 2)), dial(t, n.addr, w.dialler(1, 2)), dial(t, n.addr, w.joiner())
	n.door.Retain(func(p credential.Peer) bool { return p.NodeID == 3 || p.NodeID == 9 })
	<-goes.Done()
	if err := goes.Err(); !errors.Is(err, peer.ErrClosedByPeer) {
		t.Error(err)
	}
	for _, c := range []*peer.Conn{stays, joiner} {
		if _, err := c.Call(t.Context(), peer.Forward, nil); err != nil {
			t.Error(err)
		}
	}
	slow = true
	deciding := dialRaw(t, n.addr)
	deciding.prove(w.dialler(1, 2))
	<-asked
	n.door.Retain(func(p credential.Peer) bool { return p.NodeID != 1 })
	if b := deciding.awaitClosed(); len(b) > 0 {
		t.Errorf("%d bytes came", len(b))
	}
}

// TestHandlerFails proves that an error of a handler ends the connection, and its panic that one
// only, and that what was answered before is sent.
func TestHandlerFails(t *testing.T) {
	w := newWorld(t)
	n := startNode(t, w, func(c *config) {
		c.door.Handlers = append(c.door.Handlers, peer.Handler{Key: peer.QuorumMessages, From: peer.Nodes, Serve: func(_ *peer.Identity, r *wire.Request) error {
			if len(r.Body()) == 0 {
				panic("a bug in a handler")
			}
			return errors.New("this is no message of the quorum")
		}})
	})
	good := dial(t, n.addr, w.dialler(3, 2))
	for _, body := range []string{"", "garbage"} {
		c := dialRaw(t, n.addr)
		c.prove(w.dialler(1, 2))
		if _, _, err := c.receive(); err != nil {
			t.Fatal(err)
		}
		c.Write(append(frame(peer.Forward, 0, 3, []byte("before")), frame(peer.QuorumMessages, 0, 4, []byte(body))...))
		if body == "garbage" {
			if _, answer, err := c.receive(); err != nil || string(answer) != "before" {
				t.Errorf("%q, %v", answer, err)
			}
		}
		c.awaitClosed()
	}
	eventually(t, "both are logged", func() bool {
		log := n.log.String()
		return strings.Contains(log, "QuorumMessages: node 1: this is no message") && strings.Contains(log, "a bug in a handler")
	})
	if _, err := good.Call(t.Context(), peer.Forward, nil); err != nil {
		t.Error("another connection:", err)
	}
}

// TestDoorConfigs proves that a door with a wrong table of handlers is refused.
func TestDoorConfigs(t *testing.T) {
	w := newWorld(t)
	good := peer.DoorConfig{Self: func() credential.Self { return w.self(2) }, Directory: w, Admit: w.admit}
	serve := func(*peer.Identity, *wire.Request) error { return nil }
	with := func(list ...peer.Handler) peer.DoorConfig {
		c := good
		c.Handlers = list
		return c
	}
	for name, c := range map[string]peer.DoorConfig{
		"nothing":       {},
		"the handshake": with(peer.Handler{Key: peer.PeerProve, From: peer.Nodes, Serve: serve}),
		"no such key":   with(peer.Handler{Key: peer.LastKey, From: peer.Nodes, Serve: serve}),
		"a public key":  with(peer.Handler{Key: 1, From: peer.Nodes, Serve: serve}),
		"twice":         with(peer.Handler{Key: peer.Forward, From: peer.Nodes, Serve: serve}, peer.Handler{Key: peer.Forward, From: peer.Nodes, Serve: serve}),
		"nobody":        with(peer.Handler{Key: peer.Forward, Serve: serve}),
		"no Serve":      with(peer.Handler{Key: peer.Forward, From: peer.Nodes}),
	} {
		if _, err := peer.NewDoor(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := peer.NewDoor(with(peer.Handler{Key: peer.Forward, From: peer.Nodes, Serve: serve})); err != nil {
		t.Error(err)
	}
}

// TestPeersAmongACrowd proves that at the limit of clients' connections, while a thousand more are
// tried, and others hold all memory for requests, a node is let in and answered, and one that was
// there before goes on.
func TestPeersAmongACrowd(t *testing.T) {
	const limit, memory, tries = 100, 2 << 20, 1000
	w := newWorld(t)
	n := startNode(t, w, func(c *config) {
		c.wire.MaxConns, c.wire.RequestMemory = limit, memory
	})
	before := dial(t, n.addr, w.dialler(3, 2))
	for range limit {
		c := dialRaw(t, n.addr)
		c.Write(append([]byte{0, 0, 0xea, 0x60}, make([]byte, 33_000)...)) // a part of 60,000 bytes
	}
	eventually(t, "the clients have all connections and memory", func() bool {
		return n.server.Stats().Conns.Load() == limit && n.server.Stats().RequestMemory() >= memory
	})
	stop := make(chan struct{})
	var crowd sync.WaitGroup
	for range 4 {
		crowd.Go(func() {
			for range tries / 4 {
				nc, err := net.Dial("tcp", n.addr)
				if err != nil {
					t.Error(err)
					return
				}
				nc.SetDeadline(time.Now().Add(time.Minute))
				nc.Write(frame(18, 0, 1, nil)) // it may be closed already
				nc.Read(make([]byte, 1))
				nc.Close()
			}
		})
	}
	var silent sync.WaitGroup
	silent.Go(func() { // these wait in the room, and leave it for those that come
		for {
			nc, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Error(err)
				return
			}
			nc.SetDeadline(time.Now().Add(time.Minute))
			nc.Read(make([]byte, 1))
			nc.Close()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 20 {
		var c *peer.Conn
		eventually(t, "the node is let in", func() bool {
			var err error
			c, err = peer.Dial(t.Context(), n.addr, w.dialler(1, 2), nil)
			return err == nil
		})
		for _, p := range []*peer.Conn{c, before} {
			body := make([]byte, 30_000)
			rand.Read(body)
			if got, err := p.Call(t.Context(), peer.Forward, body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
		}
		c.Close()
	}
	crowd.Wait()
	close(stop)
	silent.Wait()
	if n.server.Stats().Conns.Load() < limit {
		t.Error("the crowd has gone, so this proves nothing")
	}
}
