package credential_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/credential"
)

// TestEachKindIsAccepted proves that a node, an administrator beside its own node, and joiners get
// a session, that both ends have the same one, and that each knows who the other one is.
func TestEachKindIsAccepted(t *testing.T) {
	w := newWorld(t)
	anybody := credential.Target{Nodes: w, NodeID: credential.AnyNode}
	joiner, wanting, retrying := w.join(), w.join(), w.join()
	wanting.NodeID, retrying.NodeID = 8, 9
	w.nodes[1] = credential.Member{Key: w.keys[1].Public(), Living: incarnationOf(1)} // has another connection
	w.nodes[9] = credential.Member{Key: retrying.Key.Public()}                        // the answer to its first join was lost
	joined := func(j credential.Join, id int32) credential.Peer {
		return credential.Peer{Kind: credential.KindJoiner, Key: j.Key.Public(), NodeID: id, Token: w.token.ID(), Directory: j.Directory}
	}
	for name, c := range map[string]struct {
		dialler *credential.Dialler
		given   int32
		want    credential.Peer
	}{
		"a node": {w.dial(1, 2), 1, credential.Peer{Kind: credential.KindNode, Key: w.keys[1].Public(), NodeID: 1, Incarnation: incarnationOf(1)}},
		"an administrator": {
			credential.DialAsAdministrator(w.self(2), anybody, w.random), 2,
			credential.Peer{Kind: credential.KindAdministrator, Key: w.keys[2].Public(), NodeID: 2},
		},
		"a joiner":                         {credential.DialAsJoiner(joiner, w.random), 5, joined(joiner, 5)},
		"a joiner that wants an id":        {credential.DialAsJoiner(wanting, w.random), 8, joined(wanting, 8)},
		"a joiner that has an id, retried": {credential.DialAsJoiner(retrying, w.random), 9, joined(retrying, 9)},
	} {
		t.Run(name, func(t *testing.T) {
			o := shake(c.dialler, w.accept(2), w, c.given, nil)
			if o.dialError != nil || o.acceptError != nil {
				t.Fatalf("the dialler: %v; the acceptor: %v", o.dialError, o.acceptError)
			}
			if o.dialler.ID != o.acceptor.ID || o.dialler.ID == [32]byte{} || o.dialler.Version != 1 || o.acceptor.Version != 1 {
				t.Errorf("the sessions differ: %v, %v", o.dialler, o.acceptor)
			}
			if diff := cmp.Diff(c.want, o.acceptor.Peer); diff != "" {
				t.Error("the acceptor's peer:", diff)
			}
			if want := (credential.Peer{Kind: credential.KindNode, Key: w.keys[2].Public(), NodeID: 2}); o.dialler.Peer != want {
				t.Errorf("the dialler's peer is %v", o.dialler.Peer)
			}
			if diff := cmp.Diff(w.welcome(c.given), o.welcome); diff != "" {
				t.Error("the welcome:", diff)
			}
		})
	}
}

// refusal is a case in which one end or both refuse the other.
type refusal struct {
	name                    string
	change                  func(w *world, self *credential.Self, join *credential.Join)
	dialError, acceptError  error
	sentence                string // a part of the dialler's error
	sentenceForTheAcceptors string // a part of the acceptor's error, which it logs
}

// TestRefusedNodes proves that each reason to refuse a node has its error on each end.
func TestRefusedNodes(t *testing.T) {
	for _, c := range []refusal{
		{
			"another version", func(_ *world, s *credential.Self, _ *credential.Join) { s.Versions = credential.Range{Min: 2, Max: 3} },
			credential.ErrVersion, credential.ErrVersion, "the other one speaks 1, and this one 2 to 3", "speaks 2 to 3",
		},
		{
			"another cluster", func(_ *world, s *credential.Self, _ *credential.Join) { s.Cluster = credential.ClusterID{5} },
			credential.ErrForeignCluster, credential.ErrForeignCluster, "than this node, which belongs to BQ", "a node dialled",
		},
		{
			"unknown", func(w *world, _ *credential.Self, _ *credential.Join) { delete(w.nodes, 1) },
			credential.ErrRefused, credential.ErrUnknownNode, "", "node 1",
		},
		{
			"another key", func(w *world, s *credential.Self, _ *credential.Join) { s.Key = w.makeKey() },
			credential.ErrRefused, credential.ErrWrongProof, "", "node 1",
		},
		{
			"removed", func(w *world, s *credential.Self, _ *credential.Join) { s.NodeID, s.Key = 4, w.keys[4] },
			credential.ErrNodeRemoved, credential.ErrNodeRemoved, "join with a new data directory", "node 4",
		},
		{"living", func(w *world, _ *credential.Self, _ *credential.Join) {
			w.nodes[1] = credential.Member{Key: w.keys[1].Public(), Living: credential.Incarnation{1}}
		}, credential.ErrNodeAlive, credential.ErrNodeAlive, "run no copy of a data directory", "node 1"},
		{
			"before the recovery", func(_ *world, s *credential.Self, _ *credential.Join) { s.Epoch = 0 },
			credential.ErrDiallerBehind, nil, "recovered without this node's data", "",
		},
		{
			"after the recovery", func(_ *world, s *credential.Self, _ *credential.Join) { s.Epoch = 2 },
			credential.ErrAcceptorBehind, nil, "from before it was recovered", "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			self := w.self(1)
			c.change(w, &self, nil)
			d := credential.DialAsNode(self, incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
			o := shake(d, w.accept(2), w, self.NodeID, nil)
			c.check(t, o)
			if c.acceptError == nil && o.proof != nil {
				t.Error("the dialler proves itself to an acceptor that it does not accept")
			}
		})
	}
}

// TestRefusedJoiners proves that each reason to refuse a joiner has its error on each end.
func TestRefusedJoiners(t *testing.T) {
	for _, c := range []refusal{
		{
			"another cluster's token", func(w *world, _ *credential.Self, j *credential.Join) { j.Token = w.makeToken(credential.ClusterID{5}) },
			credential.ErrForeignCluster, credential.ErrForeignCluster, "than the token, which is for BQ", "a joiner dialled",
		},
		{
			"an unknown token", func(w *world, _ *credential.Self, j *credential.Join) { j.Token = w.makeToken(here) },
			credential.ErrStranger, nil, "the cluster has forgotten the token", "",
		},
		{
			"a wrong secret", func(w *world, _ *credential.Self, j *credential.Join) { j.Token = w.forgeToken() },
			credential.ErrStranger, nil, "the cluster has forgotten the token", "",
		},
		{
			"an ended token", func(w *world, _ *credential.Self, j *credential.Join) { w.tokens[j.Token.ID()] = j.Token.Verifier(now) },
			credential.ErrTokenExpired, credential.ErrTokenExpired, "make a new one", "",
		},
		{
			"a revoked token", func(w *world, _ *credential.Self, _ *credential.Join) { w.revokeToken() },
			credential.ErrTokenRevoked, credential.ErrTokenRevoked, "make a new one", "",
		},
		{
			"a member's id", func(_ *world, _ *credential.Self, j *credential.Join) { j.NodeID = 3 },
			credential.ErrNodeIDTaken, credential.ErrNodeIDTaken, "--id", "node id 3",
		},
		{
			"a removed node's id", func(w *world, _ *credential.Self, j *credential.Join) { j.NodeID, j.Key = 4, w.keys[4] },
			credential.ErrNodeIDTaken, credential.ErrNodeIDTaken, "not given again", "node id 4",
		},
		{
			"another version", func(_ *world, _ *credential.Self, j *credential.Join) { j.Versions = credential.Range{Min: 2, Max: 2} },
			credential.ErrVersion, credential.ErrVersion, "the other one speaks 1, and this one 2", "speaks 2",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			join := w.join()
			c.change(w, nil, &join)
			c.check(t, shake(credential.DialAsJoiner(join, w.random), w.accept(2), w, max(join.NodeID, 5), nil))
		})
	}
}

func (c *refusal) check(t *testing.T, o *outcome) {
	t.Helper()
	if !errors.Is(o.dialError, c.dialError) || !strings.Contains(o.dialError.Error(), c.sentence) {
		t.Errorf("the dialler gets: %v", o.dialError)
	}
	if c.acceptError != nil && (!errors.Is(o.acceptError, c.acceptError) || !strings.Contains(o.acceptError.Error(), c.sentenceForTheAcceptors)) {
		t.Errorf("the acceptor gets: %v", o.acceptError)
	}
	if o.acceptError == nil {
		t.Error("the acceptor accepts")
	}
}

// forgeToken makes a token with the id of the known one and another secret.
func (w *world) forgeToken() credential.Token {
	id := w.token.ID()
	forged, err := credential.NewToken(here, bytes.NewReader(append(id[:], make([]byte, 16)...)))
	if err != nil || forged.ID() != id {
		w.t.Fatal(err, forged)
	}
	return forged
}

func (w *world) revokeToken() {
	v := w.tokens[w.token.ID()]
	v.Revoked = true
	w.tokens[v.ID] = v
}

// TestCallerRefuses proves that a dialler gets the reason that the acceptor's caller gives, and a
// general one for a reason that has no code.
func TestCallerRefuses(t *testing.T) {
	for _, c := range []struct{ why, want error }{
		{fmt.Errorf("in the entry before: %w", credential.ErrNodeIDTaken), credential.ErrNodeIDTaken},
		{credential.ErrUnavailable, credential.ErrUnavailable},
		{errors.New("no leader"), credential.ErrUnavailable},
		{credential.ErrMalformed, credential.ErrUnavailable}, // is told by refusals only
	} {
		w := newWorld(t)
		d, a := w.dial(1, 2), w.accept(2)
		must := mustOf(t)
		peer, _, err := a.Verify(must(d.Prove(must(a.Challenge(must(d.Hello()))))), now)
		if err != nil || peer.NodeID != 1 {
			t.Fatal(peer, err)
		}
		if _, _, err := d.Finish(must(a.Refuse(c.why))); !errors.Is(err, c.want) {
			t.Errorf("%v: the dialler gets %v", c.why, err)
		}
		if _, _, err := a.Accept(w.welcome(1)); !errors.Is(err, credential.ErrOrder) {
			t.Error("a refused dialler is accepted:", err)
		}
	}
}

// mustOf returns a function that ends the test if a machine returns an error.
func mustOf(tb testing.TB) func([]byte, error) []byte {
	tb.Helper()
	return func(b []byte, err error) []byte {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
}

// TestVersions proves that the highest common version is chosen.
func TestVersions(t *testing.T) {
	for _, c := range []struct {
		dialler, acceptor credential.Range
		want              uint16 // 0: none
	}{
		{credential.Range{Min: 1, Max: 3}, credential.Range{Min: 2, Max: 5}, 3},
		{credential.Range{Min: 2, Max: 5}, credential.Range{Min: 1, Max: 2}, 2},
		{credential.Range{Min: 1, Max: 1}, credential.Range{Min: 1, Max: 9}, 1},
		{credential.Range{Min: 3, Max: 4}, credential.Range{Min: 1, Max: 2}, 0},
		{credential.Range{Min: 1, Max: 2}, credential.Range{Min: 3, Max: 4}, 0},
	} {
		w := newWorld(t)
		from, to := w.self(1), w.self(2)
		from.Versions, to.Versions = c.dialler, c.acceptor
		d := credential.DialAsNode(from, incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
		o := shake(d, credential.NewAcceptor(to, w, w.random), w, 1, nil)
		if c.want == 0 && !errors.Is(o.dialError, credential.ErrVersion) || c.want != 0 && o.dialError != nil || o.dialler.Version != c.want {
			t.Errorf("%v and %v: version %d, %v", c.dialler, c.acceptor, o.dialler.Version, o.dialError)
		}
	}
}

// TestNewerHelloIsRefusedInWords proves that an acceptor tells its versions to a dialler whose hello
// it cannot read, since a newer binary made it.
func TestNewerHelloIsRefusedInWords(t *testing.T) {
	w := newWorld(t)
	d := w.dial(1, 2)
	o := shake(d, w.accept(2), w, 1, func(name string, b []byte) []byte {
		if name == "hello" {
			b = append([]byte{b[0], 2}, "of which this binary knows nothing"...)
		}
		return b
	})
	if !errors.Is(o.acceptError, credential.ErrVersion) || !errors.Is(o.dialError, credential.ErrVersion) {
		t.Errorf("the dialler: %v; the acceptor: %v", o.dialError, o.acceptError)
	}
}

// TestCallsOutOfTurn proves that a call out of turn fails, and that nothing works after it.
func TestCallsOutOfTurn(t *testing.T) {
	type machines struct {
		d                                *credential.Dialler
		a                                *credential.Acceptor
		hello, challenge, proof, verdict []byte
	}
	dialCalls := []func(m *machines) error{
		func(m *machines) (err error) { m.hello, err = m.d.Hello(); return err },
		func(m *machines) (err error) { m.proof, err = m.d.Prove(m.challenge); return err },
		func(m *machines) error { _, _, err := m.d.Finish(m.verdict); return err },
	}
	w := newWorld(t)
	acceptCalls := []func(m *machines) error{
		func(m *machines) (err error) { m.challenge, err = m.a.Challenge(m.hello); return err },
		func(m *machines) error { _, _, err := m.a.Verify(m.proof, now); return err },
		func(m *machines) (err error) { m.verdict, _, err = m.a.Accept(w.welcome(1)); return err },
		func(m *machines) error { _, err := m.a.Refuse(credential.ErrUnavailable); return err },
	}
	inTurn := []func(m *machines) error{dialCalls[0], acceptCalls[0], dialCalls[1], acceptCalls[1], acceptCalls[2], dialCalls[2]}
	// next is the call of each machine that is in turn after so many calls.
	dialNext, acceptNext := []int{0, 1, 1, 2, 2, 2, 3}, []int{0, 0, 1, 1, 2, 4, 4}
	for done := range len(inTurn) + 1 {
		try := func(calls []func(*machines) error, call int) {
			m := &machines{d: w.dial(1, 2), a: w.accept(2)}
			for _, f := range inTurn[:done] {
				if err := f(m); err != nil {
					t.Fatal(err)
				}
			}
			if err := calls[call](m); !errors.Is(err, credential.ErrOrder) {
				t.Errorf("after %d calls, call %d: %v", done, call, err)
			}
			for i, f := range calls {
				if err := f(m); !errors.Is(err, credential.ErrOrder) {
					t.Errorf("after a call out of turn, call %d: %v", i, err)
				}
			}
		}
		for call := range dialCalls {
			if call != dialNext[done] {
				try(dialCalls, call)
			}
		}
		for call := range acceptCalls {
			if call != acceptNext[done] && (acceptNext[done] != 2 || call != 3) {
				try(acceptCalls, call)
			}
		}
	}
}

// TestFailureIsForGood proves that a machine that got a wrong message does not take the right one.
func TestFailureIsForGood(t *testing.T) {
	w, must := newWorld(t), mustOf(t)
	d, a := w.dial(1, 2), w.accept(2)
	challenge := must(a.Challenge(must(d.Hello())))
	if _, err := d.Prove(challenge[:9]); !errors.Is(err, credential.ErrMalformed) {
		t.Fatal(err)
	}
	if _, err := d.Prove(challenge); !errors.Is(err, credential.ErrOrder) {
		t.Error("after a malformed challenge:", err)
	}
	if _, _, err := a.Verify([]byte("no proof"), now); !errors.Is(err, credential.ErrMalformed) {
		t.Fatal(err)
	}
	if _, _, err := a.Verify(nil, now); !errors.Is(err, credential.ErrOrder) {
		t.Error("after a malformed proof:", err)
	}
}

// TestTokenEnds proves that a token is usable until the moment at which it ends, not at it.
func TestTokenEnds(t *testing.T) {
	for _, c := range []struct {
		early time.Duration
		want  error
	}{{time.Nanosecond, nil}, {0, credential.ErrTokenExpired}, {-time.Hour, credential.ErrTokenExpired}} {
		w, must := newWorld(t), mustOf(t)
		d, a := credential.DialAsJoiner(w.join(), w.random), w.accept(2)
		proof := must(d.Prove(must(a.Challenge(must(d.Hello())))))
		if _, _, err := a.Verify(proof, w.tokens[w.token.ID()].Expires.Add(-c.early)); !errors.Is(err, c.want) {
			t.Errorf("%v before its end: %v", c.early, err)
		}
	}
}

// TestTokenThatGoesBetween proves that a token counts as unknown if it was forgotten between the
// challenge and the proof.
func TestTokenThatGoesBetween(t *testing.T) {
	w, must := newWorld(t), mustOf(t)
	d, a := credential.DialAsJoiner(w.join(), w.random), w.accept(2)
	proof := must(d.Prove(must(a.Challenge(must(d.Hello())))))
	clear(w.tokens)
	_, reply, err := a.Verify(proof, now)
	if !errors.Is(err, credential.ErrUnknownToken) {
		t.Error("the acceptor gets:", err)
	}
	if _, _, err := d.Finish(reply); !errors.Is(err, credential.ErrRefused) {
		t.Error("the dialler gets:", err)
	}
}

// TestLargeMessagesAreRefusedUnread proves that a message above the limit is refused, and that no
// memory of its size is allocated before a proof.
func TestLargeMessagesAreRefusedUnread(t *testing.T) {
	w, must := newWorld(t), mustOf(t)
	a, d := w.accept(2), w.dial(1, 2)
	must(a.Challenge(must(d.Hello())))
	large := func(kind byte) []byte { return append([]byte{kind, 1}, make([]byte, 16<<20)...) }
	for name, call := range map[string]func(b []byte) error{
		"hello":     func(b []byte) error { b[0] = 1; _, err := w.accept(2).Challenge(b); return err },
		"proof":     func(b []byte) error { b[0] = 3; _, _, err := a.Verify(b, now); return err },
		"challenge": func(b []byte) error { b[0] = 2; _, err := d.Prove(b); return err },
	} {
		var before, after runtime.MemStats
		b := large(0)
		runtime.ReadMemStats(&before)
		err := call(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, credential.ErrMalformed) {
			t.Errorf("a large %s: %v", name, err)
		}
		// The runtime may allocate some bytes at the same time.
		if got := after.TotalAlloc - before.TotalAlloc; got > 16*credential.MaxMessage {
			t.Errorf("a large %s allocated %d bytes", name, got)
		}
	}
}

// TestLimitsOfWelcome proves that a welcome at the limits arrives, and that one beyond them is
// refused where it is made.
func TestLimitsOfWelcome(t *testing.T) {
	address := strings.Repeat("a", 255)
	fill := func(members, addresses int, address string) (welcome credential.Welcome) {
		welcome.NodeID = 1
		for i := range members {
			c := credential.Contact{NodeID: int32(i)}
			for range addresses {
				c.Addresses = append(c.Addresses, address)
			}
			welcome.Members = append(welcome.Members, c)
		}
		return welcome
	}
	for _, c := range []struct {
		name    string
		welcome credential.Welcome
		fits    bool
	}{
		{"the largest", fill(256, 8, address), true},
		{"too many members", fill(257, 0, ""), false},
		{"too many addresses", fill(1, 9, "a"), false},
		{"too long an address", fill(1, 1, address+"a"), false},
		{"another node's", credential.Welcome{NodeID: 3}, false},
	} {
		w, must := newWorld(t), mustOf(t)
		d, a := w.dial(1, 2), w.accept(2)
		if _, _, err := a.Verify(must(d.Prove(must(a.Challenge(must(d.Hello()))))), now); err != nil {
			t.Fatal(err)
		}
		verdict, _, err := a.Accept(c.welcome)
		if (err == nil) != c.fits {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.fits {
			continue
		}
		if _, got, err := d.Finish(verdict); err != nil || !cmp.Equal(got, c.welcome) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestWithoutRandomBytes proves that nothing is made when the source of random bytes fails.
func TestWithoutRandomBytes(t *testing.T) {
	w, must := newWorld(t), mustOf(t)
	hello := must(w.dial(1, 2).Hello())
	short := func(n int) *bytes.Reader { return bytes.NewReader(make([]byte, n)) }
	for name, call := range map[string]func() error{
		"a node's key": func() error { _, err := credential.NewNodeKey(short(31)); return err },
		"a token":      func() error { _, err := credential.NewToken(here, short(23)); return err },
		"a hello": func() error {
			_, err := credential.DialAsNode(w.self(1), incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, short(31)).Hello()
			return err
		},
		"a challenge's key":   func() error { _, err := credential.NewAcceptor(w.self(2), w, short(31)).Challenge(hello); return err },
		"a challenge's share": func() error { _, err := credential.NewAcceptor(w.self(2), w, short(63)).Challenge(hello); return err },
	} {
		if call() == nil {
			t.Errorf("%s is made of too few random bytes", name)
		}
	}
}

// BenchmarkHandshake measures both ends of a handshake together.
func BenchmarkHandshake(b *testing.B) {
	w := newWorld(b)
	w.random = rand.Reader
	for b.Loop() {
		if o := shake(w.dial(1, 2), w.accept(2), w, 1, nil); o.dialError != nil || o.acceptError != nil {
			b.Fatal(o.dialError, o.acceptError)
		}
	}
}
