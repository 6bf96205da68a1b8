package credential_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/credential"
)

var range3 = credential.Range{Min: 1, Max: 3}

// channel is a connection with TLS: the same number is the same connection.
func channel(n byte) credential.Channel {
	return credential.Channel{TLS: true, Exporter: bytes.Repeat([]byte{n}, credential.ExporterSize)}
}

// over makes a dialler and an acceptor use a connection each. That is one connection, unless somebody is between them.
func over(d *credential.Dialler, dials credential.Channel, a *credential.Acceptor, accepts credential.Channel) (*credential.Dialler, *credential.Acceptor) {
	d.UseChannel(dials)
	a.UseChannel(accepts)
	return d, a
}

// modern makes diallers of each kind that speak version 3, and acceptors of node 2 with versions of their own.
func (w *world) modern() (diallers map[string]func() *credential.Dialler, accept func(versions credential.Range) *credential.Acceptor) {
	self, join := w.self(1), w.join()
	self.Versions, join.Versions = range3, range3
	self.Addresses = []string{"SASL_SSL://one:9093", "PLAINTEXT://one:9092", "one:9094"}
	join.NodeID = 1
	w.nodes[1] = credential.Member{Key: w.keys[1].Public()}
	target := credential.Target{Nodes: w, NodeID: 2}
	join.Key = w.keys[1] // one that has joined and did not get the answer
	secure := join
	secure.Token = join.Token.WithTLS()
	diallers = map[string]func() *credential.Dialler{
		"node":                     func() *credential.Dialler { return credential.DialAsNode(self, incarnationOf(1), target, w.random) },
		"administrator":            func() *credential.Dialler { return credential.DialAsAdministrator(self, target, w.random) },
		"joiner":                   func() *credential.Dialler { return credential.DialAsJoiner(join, w.random) },
		"joiner whose token needs": func() *credential.Dialler { return credential.DialAsJoiner(secure, w.random) },
	}
	accept = func(versions credential.Range) *credential.Acceptor {
		own := w.self(2)
		own.Versions = versions
		return credential.NewAcceptor(own, w, w.random)
	}
	return diallers, accept
}

// TestChannelsAreBound proves when a handshake is bound to the connection beneath it, when it is not, and when it is refused: a relay that
// ends TLS, on both sides or on one, gets nothing out of a dialler of this version.
func TestChannelsAreBound(t *testing.T) {
	old := credential.Range{Min: 1, Max: 2}
	noExporter := credential.Channel{TLS: true}
	must := func(c credential.Channel) credential.Channel {
		c.MustBind = true
		return c
	}
	for _, c := range []struct {
		name           string
		dials, accepts credential.Channel
		acceptor       credential.Range
		bound          bool
		want           error // of the dialler
		token          error // of a joiner whose token needs TLS
	}{
		{"one connection with TLS", channel(1), channel(1), range3, true, nil, nil},
		{"one with TLS, whose certificate was not checked", must(channel(1)), channel(1), range3, true, nil, nil},
		{"no TLS", credential.Channel{}, credential.Channel{}, range3, false, nil, credential.ErrUnbound},
		{"no TLS, where it must be", must(credential.Channel{}), credential.Channel{}, range3, false, credential.ErrUnbound, credential.ErrUnbound},
		{"a relay with TLS on both sides", channel(1), channel(2), range3, false, credential.ErrStranger, credential.ErrStranger},
		{"a relay with TLS on the dialler's side", channel(1), credential.Channel{}, range3, false, credential.ErrStranger, credential.ErrStranger},
		{"a relay with TLS on the acceptor's side", credential.Channel{}, channel(1), range3, false, credential.ErrStranger, credential.ErrUnbound},
		{"no exporter", noExporter, noExporter, range3, false, credential.ErrRefused, credential.ErrUnbound},
		{"no exporter on the dialler's side", noExporter, channel(1), range3, false, credential.ErrStranger, credential.ErrUnbound},
		{"no exporter on the dialler's side, which says that of its own", noExporter, credential.Channel{}, range3, false, credential.ErrUnbound, credential.ErrUnbound},
		{"a short exporter", credential.Channel{TLS: true, Exporter: []byte{1}}, channel(1), range3, false, credential.ErrStranger, credential.ErrUnbound},
		{"an older acceptor", channel(1), channel(1), old, false, nil, credential.ErrVersion},
		{"an older acceptor behind a relay", channel(1), channel(2), old, false, nil, credential.ErrVersion},
		{"an older acceptor without an exporter", noExporter, noExporter, old, false, nil, credential.ErrUnbound},
		{"an older acceptor, whose certificate was not checked", must(channel(1)), channel(1), old, false, credential.ErrVersion, credential.ErrVersion},
		{"an older acceptor behind a relay, whose certificate was not checked", must(channel(1)), channel(2), old, false, credential.ErrVersion, credential.ErrVersion},
	} {
		w := newWorld(t)
		diallers, accept := w.modern()
		for kind, dial := range diallers {
			want := c.want
			if strings.Contains(kind, "needs") {
				want = c.token
			}
			d, a := over(dial(), c.dials, accept(c.acceptor), c.accepts)
			o := shake(d, a, w, 1, nil)
			switch {
			case !errors.Is(o.dialError, want) || want == nil && o.dialError != nil:
				t.Errorf("%s, %s: %v, want %v", c.name, kind, o.dialError, want)
			case want != nil && o.proof != nil:
				t.Errorf("%s, %s: something was proven", c.name, kind)
			case want == nil && (o.acceptError != nil || o.dialler.IsBound != c.bound || o.acceptor.IsBound != c.bound):
				t.Errorf("%s, %s: %v; bound: %v, %v", c.name, kind, o.acceptError, o.dialler.IsBound, o.acceptor.IsBound)
			}
		}
	}
}

// TestOlderDiallerIsNotBound proves that a node of the version before is let in over TLS as before, and that its session does not count as bound.
func TestOlderDiallerIsNotBound(t *testing.T) {
	w := newWorld(t)
	_, accept := w.modern()
	a := accept(range3)
	a.UseChannel(channel(1))
	o := shake(w.dialWithNote(1, 2, 7, credential.Voucher{}), a, w, 1, nil)
	if o.dialError != nil || o.acceptError != nil || o.acceptor.Version != 2 || o.acceptor.IsBound || o.dialler.IsBound {
		t.Errorf("%v, %v: %+v", o.dialError, o.acceptError, o.acceptor)
	}
}

// TestRelayCannotLowerTheVersion is an attack by one who ends TLS on both sides, and changes the versions in all combinations, so that the ends
// would agree on one whose proofs are not bound.
func TestRelayCannotLowerTheVersion(t *testing.T) {
	const hello, chosen, both = 1, 2, 4
	for change := 1; change < 8; change++ {
		w := newWorld(t)
		diallers, accept := w.modern()
		for kind, dial := range diallers {
			d, a := over(dial(), channel(1), accept(range3), channel(2))
			o := shake(d, a, w, 1, func(name string, b []byte) []byte {
				b = bytes.Clone(b)
				switch {
				case name == "hello" && change&hello != 0:
					b[3], b[5] = 1, 2
				case name == "challenge" && change&both != 0:
					b[3], b[5], b[7] = 1, 2, 2
				case name == "challenge" && change&chosen != 0:
					b[7] = 2
				}
				return b
			})
			if !errors.Is(o.dialError, credential.ErrStranger) || o.proof != nil || o.succeeded() {
				t.Errorf("change %d, %s: %v, %v", change, kind, o.dialError, o.acceptError)
			}
		}
	}
}

// TestDishonestDiallerOverRelay is an attack by a member of the cluster's past who dials with a key that is good, over a relay, and does not look
// at the acceptor's proof: the acceptor must not take the session for one that is bound to its connection.
func TestDishonestDiallerOverRelay(t *testing.T) {
	w := newWorld(t)
	_, accept := w.modern()
	for _, own := range []byte{1, 2} { // the exporter that it signs, and that the acceptor has is 1
		s := newStranger(w)
		s.kind, s.node, s.incarnation, s.key = credential.KindAdministrator, 1, incarnationOf(1), w.keys[1]
		s.version, s.channel = 3, channel(own).Exporter
		a := accept(range3)
		a.UseChannel(channel(1))
		if err := s.attack(a); (err == nil) != (own == 1) || err != nil && !errors.Is(err, credential.ErrWrongProof) {
			t.Errorf("it signs exporter %d: %v", own, err)
		}
	}
}

// TestReplayOnAnotherConnection is an attack by one who has recorded a handshake that was bound, and sends the messages of each end again, on another
// connection and with the same random bytes, as after the copy of a virtual machine.
func TestReplayOnAnotherConnection(t *testing.T) {
	record := func(n byte) (*outcome, *world) {
		w := newWorld(t)
		diallers, accept := w.modern()
		d, a := over(diallers["node"](), channel(n), accept(range3), channel(n))
		return shake(d, a, w, 1, nil), w
	}
	first, _ := record(1)
	second, w := record(2) // all that is drawn is the same
	if first.dialError != nil || second.dialError != nil || !bytes.Equal(first.hello, second.hello) {
		t.Fatal(first.dialError, second.dialError)
	}
	if bytes.Equal(first.challenge, second.challenge) || bytes.Equal(first.proof, second.proof) || first.dialler.ID == second.dialler.ID {
		t.Error("two connections have the same proofs")
	}
	diallers, accept := w.modern()
	d, a := over(diallers["node"](), channel(3), accept(range3), channel(3))
	must := mustOf(t)
	must(d.Hello())
	if _, err := d.Prove(first.challenge); !errors.Is(err, credential.ErrStranger) {
		t.Error("a challenge that was recorded:", err)
	}
	must(a.Challenge(first.hello))
	if _, _, err := a.Verify(first.proof, now); !errors.Is(err, credential.ErrWrongProof) {
		t.Error("a proof that was recorded:", err)
	}
}

// TestReflectionOverTLS is an attack by one who answers a node with that node's own acceptor, and hands its own connections to both.
func TestReflectionOverTLS(t *testing.T) {
	w := newWorld(t)
	self := w.self(1)
	self.Versions = range3
	for _, accepts := range []byte{1, 2} {
		d, a := over(credential.DialAsNode(self, incarnationOf(1), credential.Target{Nodes: w, NodeID: credential.AnyNode}, w.random), channel(1),
			credential.NewAcceptor(self, w, w.random), channel(accepts))
		if o := shake(d, a, w, 1, nil); !errors.Is(o.dialError, credential.ErrWrongNode) || o.succeeded() {
			t.Errorf("%v, %v", o.dialError, o.acceptError)
		}
	}
}

// TestAddressesHaveProtocols proves that nodes of this version tell each other addresses with their protocols, and that those of the version
// before get and send them without.
func TestAddressesHaveProtocols(t *testing.T) {
	full, bare := []string{"SASL_SSL://one:9093", "PLAINTEXT://one:9092", "one:9094"}, []string{"one:9093", "one:9092", "one:9094"}
	for version, want := range map[uint16][]string{2: bare, 3: full} {
		w := newWorld(t)
		diallers, accept := w.modern()
		a := accept(credential.Range{Min: 1, Max: version})
		d, must := diallers["node"](), mustOf(t)
		p, _, err := a.Verify(must(d.Prove(must(a.Challenge(must(d.Hello()))))), now)
		if err != nil || !slices.Equal(p.Note.Addresses, want) {
			t.Errorf("version %d: the acceptor is told %v: %v", version, p.Note, err)
		}
		welcome := credential.Welcome{NodeID: 1, Members: []credential.Contact{{NodeID: 1, Key: w.keys[1].Public(), Addresses: full}}}
		verdict, _, err := a.Accept(welcome)
		if err != nil {
			t.Fatal(err)
		}
		_, got, err := d.Finish(verdict)
		if err != nil || !slices.Equal(got.Members[0].Addresses, want) {
			t.Errorf("version %d: the dialler is told %v: %v", version, got, err)
		}
		if !slices.Equal(welcome.Members[0].Addresses, full) {
			t.Error("the caller's welcome was changed")
		}
	}
}

// TestBoundHandshakesAreKept proves of version 3 what TestFormatsAreKept proves of the versions before.
func TestBoundHandshakesAreKept(t *testing.T) {
	w := newWorld(t)
	var b strings.Builder
	fmt.Fprintf(&b, "token %s\n", w.token.WithTLS().Text())
	diallers, accept := w.modern()
	for _, kind := range []string{"node", "administrator", "joiner", "joiner whose token needs"} {
		for _, c := range []credential.Channel{{}, channel(1)} {
			if kind == "joiner whose token needs" && !c.TLS {
				continue
			}
			d, a := over(diallers[kind](), c, accept(range3), c)
			o := shake(d, a, w, 1, nil)
			if o.dialError != nil || o.acceptError != nil {
				t.Fatal(kind, o.dialError, o.acceptError)
			}
			fmt.Fprintf(&b, "\n%s, TLS: %v\nhello %x\nchallenge %x\nproof %x\nverdict %x\nsession %x\n", kind, c.TLS, o.hello, o.challenge, o.proof, o.verdict, o.acceptor.ID)
		}
	}
	checkFile(t, "testdata/formats-3.txt", &b)
}
