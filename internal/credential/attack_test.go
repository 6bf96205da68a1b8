package credential_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/leatstream/leat/internal/credential"
)

// TestUnprovenDiallerLearnsNothing is an attack by one who knows ids and no secret, and wants to
// know which tokens and nodes exist and in which state they are. All that an acceptor sends must
// have the same length, and the last message must be the same.
func TestUnprovenDiallerLearnsNothing(t *testing.T) {
	probe := func(t *testing.T, w *world, d *credential.Dialler, proofLen int) (challengeLen int, reply []byte) {
		t.Helper()
		a := w.accept(2)
		hello, err := d.Hello()
		challenge := mustOf(t)(a.Challenge(mustOf(t)(hello, err)))
		_, reply, err = a.Verify(append([]byte{3, 1}, make([]byte, proofLen)...), now)
		if err == nil {
			t.Fatal("a proof of zeros is accepted")
		}
		return len(challenge), reply
	}
	compare := func(t *testing.T, cases map[string]func(w *world) *credential.Dialler, proofLen int) {
		t.Helper()
		var challengeLen int
		var reply []byte
		for name, dial := range cases {
			w := newWorld(t)
			n, r := probe(t, w, dial(w), proofLen)
			if reply == nil {
				challengeLen, reply = n, r
			}
			if n != challengeLen || !bytes.Equal(r, reply) {
				t.Errorf("%s is told apart: a challenge of %d bytes and the reply %x, instead of %d and %x", name, n, r, challengeLen, reply)
			}
		}
	}
	join := func(change func(w *world, j *credential.Join)) func(w *world) *credential.Dialler {
		return func(w *world) *credential.Dialler {
			j := w.join()
			j.Token = w.forgeToken()
			change(w, &j)
			return credential.DialAsJoiner(j, w.random)
		}
	}
	compare(t, map[string]func(w *world) *credential.Dialler{
		"a known token":    join(func(*world, *credential.Join) {}),
		"an unknown token": join(func(w *world, _ *credential.Join) { clear(w.tokens) }),
		"an ended token":   join(func(w *world, _ *credential.Join) { w.tokens[w.token.ID()] = w.token.Verifier(now) }),
		"a revoked token":  join(func(w *world, _ *credential.Join) { w.revokeToken() }),
		"a member's id":    join(func(_ *world, j *credential.Join) { j.NodeID = 3 }),
	}, 128)
	node := func(id int32, change func(w *world)) func(w *world) *credential.Dialler {
		return func(w *world) *credential.Dialler {
			change(w)
			self := w.self(1)
			self.NodeID, self.Key = id, w.makeKey()
			return credential.DialAsNode(self, incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
		}
	}
	compare(t, map[string]func(w *world) *credential.Dialler{
		"a member":        node(1, func(*world) {}),
		"the acceptor":    node(2, func(*world) {}),
		"an unknown node": node(77, func(*world) {}),
		"a removed node":  node(4, func(*world) {}),
		"a living node": node(1, func(w *world) {
			w.nodes[1] = credential.Member{Key: w.keys[1].Public(), Living: credential.Incarnation{1}}
		}),
	}, 64)
}

// TestReflection is an attack by one who has no key and answers a node with that node's own messages: it
// hands the hello to the acceptor of the same node.
func TestReflection(t *testing.T) {
	w := newWorld(t)
	for _, want := range []int32{2, credential.AnyNode} {
		o := shake(w.dial(1, want), w.accept(1), w, 1, nil)
		if !errors.Is(o.dialError, credential.ErrWrongNode) || o.succeeded() {
			t.Errorf("a node that wants %d is answered by itself: %v, %v", want, o.dialError, o.acceptError)
		}
	}
}

// TestCopyOfNodeIsRefused proves that an acceptor refuses a node that has the acceptor's own key and
// id, and that an administrator beside the node is let in.
func TestCopyOfNodeIsRefused(t *testing.T) {
	w := newWorld(t)
	for kind, want := range map[credential.Kind]error{credential.KindNode: credential.ErrNodeAlive, credential.KindAdministrator: nil} {
		s := newStranger(w)
		s.kind, s.node, s.incarnation, s.key = kind, 1, incarnationOf(1), w.keys[1]
		if err := s.attack(w.accept(1)); !errors.Is(err, want) {
			t.Errorf("a %v: %v", kind, err)
		}
	}
}

// TestAcceptorsProofIsNoDiallersProof is an attack by one who uses a node as a signing machine: it
// dials node 1, which signs as an acceptor, and hands that signature to node 2 as the proof of a
// dialler named 1.
func TestAcceptorsProofIsNoDiallersProof(t *testing.T) {
	w, must := newWorld(t), mustOf(t)
	victim := w.accept(2)
	s := newStranger(w)
	s.kind, s.node, s.incarnation = credential.KindNode, 1, incarnationOf(1)
	must(victim.Challenge(s.hello()))
	signed := must(w.accept(1).Challenge(s.hello()))
	if _, _, err := victim.Verify(append([]byte{3, 1}, signed[80:144]...), now); !errors.Is(err, credential.ErrWrongProof) {
		t.Error("the acceptor's signature:", err)
	}
}

// TestReplay is an attack by one who has recorded a whole handshake: the messages of each end are
// sent again to a new machine of the other one.
func TestReplay(t *testing.T) {
	w := newWorld(t)
	for name, dial := range w.diallers() {
		o := shake(dial(), w.accept(2), w, 5, nil)
		if !o.succeeded() {
			t.Fatal(name, o.dialError, o.acceptError)
		}
		a := w.accept(2)
		mustOf(t)(a.Challenge(o.hello))
		if _, _, err := a.Verify(o.proof, now); !errors.Is(err, credential.ErrWrongProof) {
			t.Errorf("%s: a proof that was recorded: %v", name, err)
		}
		d := dial()
		mustOf(t)(d.Hello())
		if _, err := d.Prove(o.challenge); !errors.Is(err, credential.ErrStranger) {
			t.Errorf("%s: a challenge that was recorded: %v", name, err)
		}
		d, a = dial(), w.accept(2)
		mustOf(t)(d.Prove(mustOf(t)(a.Challenge(mustOf(t)(d.Hello())))))
		if _, _, err := d.Finish(o.verdict); !errors.Is(err, credential.ErrStranger) {
			t.Errorf("%s: a verdict that was recorded: %v", name, err)
		}
	}
}

// diallers makes a dialler of each kind that node 2 accepts. The node id that is given must be 5.
func (w *world) diallers() map[string]func() *credential.Dialler {
	w.keys[5] = w.makeKey()
	w.nodes[5] = credential.Member{Key: w.keys[5].Public()}
	target := credential.Target{Nodes: w, NodeID: 2}
	join := w.join()
	return map[string]func() *credential.Dialler{
		"node":          func() *credential.Dialler { return w.dial(5, 2) },
		"administrator": func() *credential.Dialler { return credential.DialAsAdministrator(w.self(5), target, w.random) },
		"joiner":        func() *credential.Dialler { return credential.DialAsJoiner(join, w.random) },
	}
}

// TestRelayWithSwappedNames is an attack by one who stands between honest ends and makes each
// believe that the other one has another name.
func TestRelayWithSwappedNames(t *testing.T) {
	put := func(message string, at int, part []byte) func(string, []byte) []byte {
		return func(name string, b []byte) []byte {
			if name != message {
				return b
			}
			b = bytes.Clone(b)
			copy(b[at:], part)
			return b
		}
	}
	id := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	w := newWorld(t)
	insider := w.keys[1].Public()
	const helloBody, challengeNode, challengeKey = 59, 12, 16
	for _, c := range []struct {
		name    string
		dialler *credential.Dialler
		relay   func(string, []byte) []byte
		want    error
	}{
		{"led to node 3", w.dial(1, 2), nil, credential.ErrWrongNode},
		{"led to node 3, which is called 2", w.dial(1, 2), put("challenge", challengeNode, id(2)), credential.ErrStranger},
		{
			"led to node 3, which is called 2 and has its key", w.dial(1, 2),
			put("challenge", challengeNode, append(id(2), bytesOf(w.keys[2].Public())...)), credential.ErrStranger,
		},
		{"node 1 is called 2", w.dial(1, credential.AnyNode), put("hello", helloBody, id(2)), credential.ErrStranger},
		{"another incarnation", w.dial(1, credential.AnyNode), put("hello", helloBody+4, []byte{1}), credential.ErrStranger},
		{"the joiner's key is another's", credential.DialAsJoiner(w.join(), w.random), put("hello", helloBody+8, bytesOf(insider)), credential.ErrStranger},
		{"the joiner wants another id", credential.DialAsJoiner(w.join(), w.random), put("hello", helloBody+56, id(9)), credential.ErrStranger},
		{"the acceptor's key is another's", credential.DialAsJoiner(w.join(), w.random), put("challenge", challengeKey, bytesOf(insider)), credential.ErrStranger},
		{"the acceptor's name is another's", credential.DialAsJoiner(w.join(), w.random), put("challenge", challengeNode, id(1)), credential.ErrStranger},
	} {
		if o := shake(c.dialler, w.accept(3), w, 1, c.relay); !errors.Is(o.dialError, c.want) || o.succeeded() {
			t.Errorf("%s: %v, %v", c.name, o.dialError, o.acceptError)
		}
	}
}

// TestSplicedSessions is an attack by one who stands between ends that have two handshakes at once, and
// swaps one message of them.
func TestSplicedSessions(t *testing.T) {
	w, must := newWorld(t), mustOf(t)
	for name, dial := range w.diallers() {
		start := func() (*credential.Dialler, *credential.Acceptor, []byte) {
			d, a := dial(), w.accept(2)
			return d, a, must(a.Challenge(must(d.Hello())))
		}
		d1, _, _ := start()
		_, _, challenge2 := start()
		if _, err := d1.Prove(challenge2); !errors.Is(err, credential.ErrStranger) {
			t.Errorf("%s: the other session's challenge: %v", name, err)
		}
		_, a1, _ := start()
		d2, _, challenge2 := start()
		if _, _, err := a1.Verify(must(d2.Prove(challenge2)), now); !errors.Is(err, credential.ErrWrongProof) {
			t.Errorf("%s: the other session's proof: %v", name, err)
		}
		d1, _, challenge1 := start()
		d2, a2, challenge2 := start()
		must(d1.Prove(challenge1))
		if _, _, err := a2.Verify(must(d2.Prove(challenge2)), now); err != nil {
			t.Fatal(err)
		}
		verdict2, _, err := a2.Accept(w.welcome(5))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := d1.Finish(verdict2); !errors.Is(err, credential.ErrStranger) {
			t.Errorf("%s: the other session's verdict: %v", name, err)
		}
	}
}

// TestDowngrade is an attack by one who stands between ends that both speak the versions 1 to 3,
// and makes them agree on 1.
func TestDowngrade(t *testing.T) {
	lower := func(messages ...string) func(string, []byte) []byte {
		return func(name string, b []byte) []byte {
			b = bytes.Clone(b)
			for _, m := range messages {
				if name == m {
					b[5] = 1 // the highest version, in hello and challenge
				}
				if name == m && name == "challenge" {
					b[7] = 1 // the version that was chosen
				}
			}
			return b
		}
	}
	for _, messages := range [][]string{{"hello"}, {"challenge"}, {"hello", "challenge"}} {
		w := newWorld(t)
		from, to := w.self(1), w.self(2)
		from.Versions, to.Versions = credential.Range{Min: 1, Max: 3}, credential.Range{Min: 1, Max: 3}
		d := credential.DialAsNode(from, incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
		if o := shake(d, credential.NewAcceptor(to, w, w.random), w, 1, lower(messages...)); !errors.Is(o.dialError, credential.ErrStranger) || o.succeeded() {
			t.Errorf("%v: %v, %v", messages, o.dialError, o.acceptError)
		}
	}
}

// TestForgedRefusal is an attack by one who stands between the ends and sends a refusal with each
// code. Nothing that would make a node give up its data can be said in one.
func TestForgedRefusal(t *testing.T) {
	for code := range 256 {
		for _, message := range []string{"challenge", "verdict"} {
			w := newWorld(t)
			forged := []byte{5, 1, byte(code), 0, 1, 0, 1}
			o := shake(w.dial(1, 2), w.accept(2), w, 1, func(name string, b []byte) []byte {
				if name == message {
					return forged
				}
				return b
			})
			var told bool
			for _, known := range []error{credential.ErrMalformed, credential.ErrVersion, credential.ErrForeignCluster, credential.ErrRefused} {
				told = told || errors.Is(o.dialError, known)
			}
			if !told || code > 4 && !errors.Is(o.dialError, credential.ErrMalformed) {
				t.Errorf("a refusal with code %d instead of the %s: %v", code, message, o.dialError)
			}
		}
	}
}

// TestForgedVerdict is an attack by one who relays the handshake of a joiner, and puts its own key
// among those of the members, or turns a yes into a no.
func TestForgedVerdict(t *testing.T) {
	for name, forge := range map[string]func(w *world, b []byte) []byte{
		"a member's key": func(w *world, b []byte) []byte {
			return bytes.Replace(b, bytesOf(w.keys[1].Public()), bytesOf(w.makeKey().Public()), 1)
		},
		"removed":   func(_ *world, b []byte) []byte { return append([]byte{4, 1, 18}, b[len(b)-32:]...) },
		"no member": func(_ *world, b []byte) []byte { return append(append(b[:9:9], 0, 0), b[len(b)-32:]...) },
	} {
		w := newWorld(t)
		o := shake(credential.DialAsJoiner(w.join(), w.random), w.accept(2), w, 5, func(message string, b []byte) []byte {
			if message == "verdict" {
				return forge(w, b)
			}
			return b
		})
		if !errors.Is(o.dialError, credential.ErrStranger) {
			t.Errorf("%s: %v", name, o.dialError)
		}
	}
}

// TestEveryChangedByteIsRefused is an attack by one who changes one bit of a message on its way: in no
// case do both ends go on.
func TestEveryChangedByteIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, dial := range w.diallers() {
		whole := shake(dial(), w.accept(2), w, 5, nil)
		for message, size := range map[string]int{
			"hello": len(whole.hello), "challenge": len(whole.challenge), "proof": len(whole.proof), "verdict": len(whole.verdict),
		} {
			for at := range size {
				o := shake(dial(), w.accept(2), w, 5, func(m string, b []byte) []byte {
					if m == message {
						b = bytes.Clone(b)
						b[at] ^= 1 << (at % 8)
					}
					return b
				})
				if o.dialError == nil || message != "verdict" && o.acceptError == nil {
					t.Errorf("%s: byte %d of the %s was changed: %v, %v", name, at, message, o.dialError, o.acceptError)
				}
			}
		}
	}
}

// TestVerifierIsNoToken is an attack by one who has read the metadata, such as a removed node: what
// it has of a token does not let it join.
func TestVerifierIsNoToken(t *testing.T) {
	w := newWorld(t)
	v := w.tokens[w.token.ID()]
	for name, seed := range map[string][]byte{"the acceptor's key": v.Acceptor[:], "the public key": bytesOf(v.Key)} {
		s := newStranger(w)
		s.kind, s.node, s.token, s.tokenSeed = credential.KindJoiner, credential.AnyNode, v.ID, seed
		if err := s.attack(w.accept(2)); !errors.Is(err, credential.ErrWrongProof) {
			t.Errorf("a joiner that signs with %s: %v", name, err)
		}
	}
	s := newStranger(w)
	s.kind, s.node, s.token, s.tokenSeed = credential.KindJoiner, credential.AnyNode, v.ID, seedOf(w.token)
	if err := s.attack(w.accept(2)); err != nil {
		t.Error("a joiner that has the secret:", err)
	}
}

// TestDishonestAcceptor is an attack by one who answers a dialler, and is a member, or has read the
// metadata: it lies where it is not bound by what it can prove.
func TestDishonestAcceptor(t *testing.T) {
	joiner := func(w *world) *credential.Dialler { return credential.DialAsJoiner(w.join(), w.random) }
	node := func(w *world) *credential.Dialler { return w.dial(1, credential.AnyNode) }
	modern := func(w *world) *credential.Dialler {
		self := w.self(1)
		self.Versions.Max = 3
		return credential.DialAsNode(self, incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
	}
	for _, c := range []struct {
		name string
		dial func(*world) *credential.Dialler
		lie  func(w *world, i *impostor)
		want error
	}{
		{"it is honest to a node", node, func(*world, *impostor) {}, nil},
		{"it is honest to a joiner", joiner, func(*world, *impostor) {}, nil},
		{"a joiner gets the key of another node", joiner, func(w *world, i *impostor) { i.key = w.keys[3] }, credential.ErrStranger},
		{"it does not know the token", joiner, func(_ *world, i *impostor) { i.mac[0] ^= 1 }, credential.ErrStranger},
		{"a node gets another key", node, func(w *world, i *impostor) { i.claimed = w.keys[3].Public() }, credential.ErrStranger},
		{"it has another key", node, func(w *world, i *impostor) { i.key, i.claimed = w.keys[3], w.keys[3].Public() }, credential.ErrStranger},
		{"it signs with another key", node, func(w *world, i *impostor) { i.key = w.keys[3] }, credential.ErrStranger},
		{"it was removed", node, func(w *world, i *impostor) { i.node, i.key, i.claimed = 4, w.keys[4], w.keys[4].Public() }, credential.ErrUnknownNode},
		{"it is unknown", node, func(_ *world, i *impostor) { i.node = 6 }, credential.ErrUnknownNode},
		{"it chooses a low version", modern, func(*world, *impostor) {}, credential.ErrVersion},
		{"it chooses the highest version", modern, func(_ *world, i *impostor) { i.version = 3 }, nil},
		{"it gives a node another id", node, func(_ *world, i *impostor) { i.given = 3 }, credential.ErrMalformed},
	} {
		w := newWorld(t)
		i := newImpostor(w)
		c.lie(w, i)
		session, err := i.answer(c.dial(w))
		if !errors.Is(err, c.want) || (err == nil) != (session.ID != [32]byte{}) {
			t.Errorf("%s: %v, %v", c.name, session, err)
		}
	}
}

// TestDishonestEpoch is an attack by a member that goes on although its data is of another life of
// the cluster than the acceptor's.
func TestDishonestEpoch(t *testing.T) {
	w := newWorld(t)
	for epoch, want := range []error{credential.ErrDiallerBehind, nil, credential.ErrAcceptorBehind} {
		s := newStranger(w)
		s.kind, s.node, s.incarnation, s.key, s.epoch = credential.KindNode, 1, incarnationOf(1), w.keys[1], byte(epoch)
		if err := s.attack(w.accept(2)); !errors.Is(err, want) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

// TestJoinerMustHaveItsKey is an attack by one who has a token and registers the public key of
// another node as its own.
func TestJoinerMustHaveItsKey(t *testing.T) {
	w := newWorld(t)
	s := newStranger(w)
	s.kind, s.node, s.token, s.tokenSeed = credential.KindJoiner, credential.AnyNode, w.token.ID(), seedOf(w.token)
	s.claimed = w.keys[1].Public()
	if err := s.attack(w.accept(2)); !errors.Is(err, credential.ErrWrongProof) {
		t.Error("a joiner with another node's key:", err)
	}
}

// TestShareThatEverybodyKnows is an attack by a member that sends a share of small order, so that
// the keys of the session would be known to all who see it.
func TestShareThatEverybodyKnows(t *testing.T) {
	w := newWorld(t)
	for _, share := range [][32]byte{{}, {1}} {
		s := newStranger(w)
		s.kind, s.node, s.incarnation, s.key, s.share = credential.KindNode, 1, incarnationOf(1), w.keys[1], share
		if err := s.attack(w.accept(2)); !errors.Is(err, credential.ErrMalformed) {
			t.Errorf("share %x: %v", share, err)
		}
	}
}

func bytesOf(k credential.PublicKey) []byte { return k[:] }
