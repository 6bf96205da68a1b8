package peer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	listener "github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// selfSigned makes a certificate that nobody has signed but itself, as anybody can.
func selfSigned(tb testing.TB) *tls.Config {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// startWithTLS starts node 2 with TLS, and versions 1 to 3 of the protocol unless others are given.
func startWithTLS(tb testing.TB, w *world, versions credential.Range, most uint16, met chan<- peer.Identity) *node {
	tb.Helper()
	cfg := selfSigned(tb)
	cfg.MaxVersion = most
	return startNode(tb, w, func(c *config) {
		c.tls = cfg
		c.door.Self = func() credential.Self {
			s := w.self(2)
			s.Versions = versions
			return s
		}
		c.door.Handlers = []peer.Handler{{Key: peer.TokenMake, From: peer.Nodes | peer.Administrators | peer.Joiners, Serve: func(id *peer.Identity, r *wire.Request) error {
			met <- *id
			reply(r, r.Body())
			return nil
		}}}
	})
}

// dialTLS opens connections with TLS and checks no certificate. isTold says so.
func dialTLS(isTold bool, most uint16) peer.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		hostPort, _, _ := peer.SplitAddress(address)
		nc, err := new(net.Dialer).DialContext(ctx, network, hostPort)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MaxVersion: most})
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, nc.Close())
		}
		if isTold {
			return peer.Unverified{Conn: conn}, nil
		}
		return conn, nil
	}
}

// relay is somebody between two nodes: it ends TLS with a certificate of its own, dials the node anew, and passes on what each end says. It returns
// its address, and a function that returns all that it has read.
func relay(tb testing.TB, to string, in, out bool) (address string, read func() string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if in {
		l = tls.NewListener(l, selfSigned(tb))
	}
	var mu sync.Mutex
	var all strings.Builder
	pass := func(from io.Reader, to io.Writer) {
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			mu.Lock()
			all.Write(b[:n])
			mu.Unlock()
			if _, werr := to.Write(b[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				var next net.Conn
				var err error
				if out {
					next, err = tls.Dial("tcp", to, &tls.Config{InsecureSkipVerify: true})
				} else {
					next, err = net.Dial("tcp", to)
				}
				if err != nil {
					return
				}
				running.Go(func() { defer nc.Close(); pass(next, nc) })
				pass(nc, next)
				next.Close()
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String(), func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

// modern has a node speak versions 1 to 3.
func (w *world) modern(id int32) credential.Self {
	s := w.self(id)
	s.Versions = credential.Range{Min: 1, Max: 3}
	return s
}

func (w *world) modernJoiner(token credential.Token) *credential.Dialler {
	join := credential.Join{Token: token, Versions: credential.Range{Min: 1, Max: 3}, Key: w.makeKey(), NodeID: credential.AnyNode}
	return credential.DialAsJoiner(join, rand.Reader)
}

// TestTLSIsBound proves that a node, an administrator and a joiner that knows only its token get a session over TLS, of which both ends know
// that nobody is between them, without a look at the certificate; and that with a real relay on the way, which ends TLS and passes the
// handshake through, none of them does, nor is anything proven to it.
func TestTLSIsBound(t *testing.T) {
	w := newWorld(t)
	both := credential.Range{Min: 1, Max: 3}
	target := credential.Target{Nodes: w, NodeID: 2}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		met := make(chan peer.Identity, 1)
		n := startWithTLS(t, w, both, version, met)
		between, read := relay(t, n.addr, true, true)
		for kind, dialler := range map[string]func() *credential.Dialler{
			"node": func() *credential.Dialler {
				return credential.DialAsNode(w.modern(1), incarnationOf(1), target, rand.Reader)
			},
			"administrator": func() *credential.Dialler { return credential.DialAsAdministrator(w.modern(2), target, rand.Reader) },
			"joiner":        func() *credential.Dialler { return w.modernJoiner(w.token.WithTLS()) },
		} {
			c, err := peer.Dial(t.Context(), n.addr, dialler(), dialTLS(true, version))
			if err != nil {
				t.Fatal(kind, err)
			}
			if _, err := c.Call(t.Context(), peer.TokenMake, []byte("secret")); err != nil {
				t.Fatal(kind, err)
			}
			if id := <-met; !c.Session().IsBound || !id.IsBound || id.Version != 3 || id.SessionID != c.Session().ID || id.Kind.String() != kind {
				t.Errorf("TLS %x, %s: %+v", version, kind, id)
			}
			c.Close()
			for _, isTold := range []bool{true, false} { // also if the certificate was checked, and somebody has one that is good
				if c, err := peer.Dial(t.Context(), between, dialler(), dialTLS(isTold, 0)); !errors.Is(err, credential.ErrStranger) || !strings.Contains(err.Error(), "something on the way ends TLS") {
					t.Errorf("TLS %x, %s over a relay: %v", version, kind, err)
					c.Close()
				}
			}
		}
		const hello, proof = "\x4e\x20\x00\x00", "\x4e\x21\x00\x00" // the keys and versions of both requests
		if text := read(); !strings.Contains(text, hello) || strings.Contains(text, proof) {
			t.Error("the relay has read a proof, or nothing at all")
		}
	}
}

// TestHalfRelays proves that a relay with TLS on one side only is refused, and that a plain connection goes on as before.
func TestHalfRelays(t *testing.T) {
	w := newWorld(t)
	target := credential.Target{Nodes: w, NodeID: 2}
	dialler := func() *credential.Dialler {
		return credential.DialAsNode(w.modern(1), incarnationOf(1), target, rand.Reader)
	}
	both := credential.Range{Min: 1, Max: 3}
	met := make(chan peer.Identity, 1)
	secured := startWithTLS(t, w, both, 0, met)
	plain := startNode(t, w, func(c *config) { c.door.Self = func() credential.Self { return w.modern(2) } })
	adds, _ := relay(t, secured.addr, false, true)
	if _, err := peer.Dial(t.Context(), adds, dialler(), nil); !errors.Is(err, credential.ErrStranger) {
		t.Error("a relay that adds TLS:", err)
	}
	ends, _ := relay(t, plain.addr, true, false)
	if _, err := peer.Dial(t.Context(), ends, dialler(), dialTLS(false, 0)); !errors.Is(err, credential.ErrStranger) {
		t.Error("a relay that ends TLS:", err)
	}
	through, _ := relay(t, plain.addr, false, false)
	for _, address := range []string{through, "PLAINTEXT://" + plain.addr} {
		c, err := peer.Dial(t.Context(), address, dialler(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.Session().IsBound || c.Session().Version != 3 {
			t.Errorf("without TLS: %+v", c.Session())
		}
		c.Close()
	}
	for name, dial := range map[string]peer.DialFunc{"without TLS": nil, "with TLS, which the relay ends": dialTLS(false, 0)} {
		if _, err := peer.Dial(t.Context(), map[bool]string{true: plain.addr, false: ends}[dial == nil], w.modernJoiner(w.token.WithTLS()), dial); err == nil {
			t.Errorf("a joiner whose token needs TLS gets in %s", name)
		}
	}
}

// TestVersionBefore proves that nodes of the version before still talk with those of this one over TLS, both ways, and that a dialler that has not
// checked the certificate does not talk to one: it says that it must be upgraded, or certificates checked.
func TestVersionBefore(t *testing.T) {
	w := newWorld(t)
	old := credential.Range{Min: 1, Max: 2}
	target := credential.Target{Nodes: w, NodeID: 2}
	met := make(chan peer.Identity, 1)
	before, now := startWithTLS(t, w, old, 0, met), startWithTLS(t, w, credential.Range{Min: 1, Max: 3}, 0, met)
	oldSelf := w.self(1)
	oldSelf.Versions = old
	for name, c := range map[string]struct {
		self    credential.Self
		address string
	}{"an older acceptor": {w.modern(1), before.addr}, "an older dialler": {oldSelf, now.addr}, "two older ones": {oldSelf, before.addr}} {
		conn, err := peer.Dial(t.Context(), c.address, credential.DialAsNode(c.self, incarnationOf(1), target, rand.Reader), dialTLS(false, 0))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := conn.Call(t.Context(), peer.TokenMake, nil); err != nil {
			t.Fatal(err)
		}
		if id := <-met; id.IsBound || conn.Session().IsBound || id.Version != 2 {
			t.Errorf("%s: %+v", name, id)
		}
		conn.Close()
	}
	_, err := peer.Dial(t.Context(), before.addr, credential.DialAsNode(w.modern(1), incarnationOf(1), target, rand.Reader), dialTLS(true, 0))
	if !errors.Is(err, credential.ErrVersion) || !strings.Contains(err.Error(), "set ssl.truststore.location") {
		t.Error("an older acceptor whose certificate was not checked:", err)
	}
	_, err = peer.Dial(t.Context(), before.addr, w.modernJoiner(w.token.WithTLS()), dialTLS(false, 0))
	if !errors.Is(err, credential.ErrVersion) {
		t.Error("an older acceptor, and a token that needs TLS:", err)
	}
}

// TestHalfOpenLinks proves that an end which stops in the middle, of TLS or of the handshake over it, costs the other end a bounded time.
func TestHalfOpenLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	speaksTLS := tls.NewListener(must(t)(net.Listen("tcp", "127.0.0.1:0")), selfSigned(t))
	defer speaksTLS.Close()
	var accepting sync.WaitGroup
	for _, l := range []net.Listener{silent, speaksTLS} {
		accepting.Go(func() {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, nc) // until the dialler hangs up; it is told nothing
			nc.Close()
		})
	}
	target := credential.Target{Nodes: w, NodeID: 2}
	for name, l := range map[string]net.Listener{"no TLS": silent, "no challenge": speaksTLS} {
		began := time.Now()
		_, err := peer.Dial(t.Context(), l.Addr().String(), credential.DialAsNode(w.modern(1), incarnationOf(1), target, rand.Reader), dialTLS(true, 0))
		if took := time.Since(began); err == nil || took > 20*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	accepting.Wait()
}

func must(tb testing.TB) func(l net.Listener, err error) net.Listener {
	tb.Helper()
	return func(l net.Listener, err error) net.Listener {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return l
	}
}

// TestAddresses proves how addresses with and without a protocol are written and read.
func TestAddresses(t *testing.T) {
	f := func(address, hostPort string, p listener.Protocol, isKnown bool) {
		t.Helper()
		h, got, known := peer.SplitAddress(address)
		if h != hostPort || got != p || known != isKnown {
			t.Errorf("%s: %s, %v, %v", address, h, got, known)
		}
	}
	f(peer.FormatAddress(listener.SASLSSL, "::1", 9092), "[::1]:9092", listener.SASLSSL, true)
	f(peer.FormatAddress(listener.Plaintext, "one", 1), "one:1", listener.Plaintext, true)
	f("one:9092", "one:9092", listener.Plaintext, false)
	f("QUIC://one:9092", "one:9092", listener.Plaintext, false)
	f("://", "", listener.Plaintext, false)
}
