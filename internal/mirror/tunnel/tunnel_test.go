package tunnel

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// TestBytesAreCarried proves that what a node and a broker say to each other comes over the agent as it is, of all sizes and in both directions at the same time, on many connections; and that the
// end of either ends the other one.
func TestBytesAreCarried(t *testing.T) {
	r := newRig(t)
	n := r.start(1, "127.0.0.1:0")
	echo := r.broker()
	bye := r.serve(func(c net.Conn) { _, _ = c.Write([]byte("bye")) })
	stop := r.agent(r.newToken(), r.newKey(), "a", n, echo, bye)
	r.awaitAgents(n, 1)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			c, err := n.hub.Dial(t.Context(), north, echo)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			random := mathrand.New(mathrand.NewPCG(uint64(i), 1))
			sent := make([]byte, 1+random.IntN(3<<20))
			for k := range sent {
				sent[k] = byte(random.Uint32())
			}
			all.Go(func() {
				for b := sent; len(b) > 0; {
					k := min(len(b), 1+random.IntN(200<<10))
					if _, err := c.Write(b[:k]); err != nil {
						t.Error(err)
						return
					}
					b = b[k:]
				}
			})
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("connection %d: %d bytes are not as they were sent: %v", i, len(sent), err)
			}
		})
	}
	all.Wait()
	eventually(t, "no connection is left", func() bool { return n.hub.Status(north)[0].Streams == 0 })

	c := r.dial(n, bye)
	if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
		t.Errorf("a broker that hangs up has said %q, %v", b, err)
	}
	c = r.dial(n, echo)
	stop()
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("an agent that is gone has said %q", b)
	}
	r.awaitAgents(n, 0)
	if _, err := n.hub.Dial(t.Context(), north, echo); !errors.Is(err, ErrNoAgent) {
		t.Errorf("without an agent: %v", err)
	}
}

// TestTLSGoesThrough proves that TLS between a node and a broker goes through the agent as it is, so that the node knows the broker by its certificate, and not another one.
func TestTLSGoesThrough(t *testing.T) {
	r := newRig(t)
	n := r.start(1, "127.0.0.1:0")
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "it is the broker") }))
	defer web.Close()
	address := web.Listener.Addr().String()
	r.agent(r.newToken(), r.newKey(), "a", n, address)
	r.awaitAgents(n, 1)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	for trusted, pool := range map[bool]*x509.CertPool{true: roots, false: x509.NewCertPool()} {
		c := tls.Client(r.dial(n, address), &tls.Config{RootCAs: pool, ServerName: "example.com"})
		if err := c.HandshakeContext(t.Context()); (err == nil) != trusted {
			t.Errorf("a node that trusts it, %t: %v", trusted, err)
		}
		if !trusted {
			continue
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(c); err != nil || !bytes.Contains(b, []byte("it is the broker")) {
			t.Errorf("it says %q, %v", b, err)
		}
	}
}

// TestStalledStreamsStallNoOther proves that connections which nobody reads hold a bounded amount each, and that another one goes on beside them.
func TestStalledStreamsStallNoOther(t *testing.T) {
	r := newRig(t)
	n := r.start(1, "127.0.0.1:0")
	var sent atomic.Int64
	flood := r.serve(func(c net.Conn) {
		b := make([]byte, 64<<10)
		for {
			k, err := c.Write(b)
			sent.Add(int64(k))
			if err != nil {
				return
			}
		}
	})
	echo := r.broker()
	r.agent(r.newToken(), r.newKey(), "a", n, flood, echo)
	r.awaitAgents(n, 1)
	const stalled = 5
	for range stalled {
		r.dial(n, flood)
	}
	last := int64(0)
	eventually(t, "the broker can send no more", func() bool { // its own system takes some, too
		time.Sleep(100 * time.Millisecond)
		now := sent.Load()
		full := now == last && now >= stalled*streamWindow
		last = now
		return full
	})
	fast := r.dial(n, echo)
	b := make([]byte, 512<<10)
	_, _ = rand.Read(b)
	for i := range 40 { // in sum far more than one window
		go func() { _, _ = fast.Write(b) }()
		got := make([]byte, len(b))
		if _, err := io.ReadFull(fast, got); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("round %d beside those that stand still: %v", i, err)
		}
	}
	n.hub.mu.Lock()
	held := 0
	for _, a := range n.hub.agents {
		a.end.mu.Lock()
		held += a.end.unread + len(a.end.out)
		a.end.mu.Unlock()
	}
	n.hub.mu.Unlock()
	if most := mostRequests*mostBytes + mostUnsent; held > most {
		t.Errorf("the node holds %d bytes of the connection itself, more than %d", held, most)
	}
}

// TestAgentsComeBack proves that an agent which was told one node dials all of them, that it comes back to a node that was killed and started anew, that a second agent is used beside it and alone, and that an agent which
// comes again takes the place of its older connection.
func TestAgentsComeBack(t *testing.T) {
	r := newRig(t)
	one, two := r.start(1, "127.0.0.1:0"), r.start(2, "127.0.0.1:0")
	echo := r.broker()
	token, key := r.newToken(), r.newKey()
	stop := r.agent(token, key, "a", one, echo)
	r.awaitAgents(one, 1)
	r.awaitAgents(two, 1)
	three := r.start(3, "127.0.0.1:0")
	r.awaitAgents(three, 1)
	try := func(n *testNode) {
		t.Helper()
		c := r.dial(n, echo)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("over node %d: %v", n.id, err)
		}
	}
	for _, n := range []*testNode{one, two, three} {
		try(n)
		n.kill()
		again := r.start(n.id, n.addr)
		r.awaitAgents(again, 1)
		try(again)
	}
	three = r.nodes[3]
	r.agent(r.newToken(), r.newKey(), "b", three, echo)
	r.awaitAgents(three, 2)
	stop()
	r.awaitAgents(three, 1)
	if s := three.hub.Status(north); s[0].Name != "b" || s[0].Since.IsZero() || s[0].Remote == "" {
		t.Errorf("the agent that is left is %+v", s)
	}
	try(three)

	first := r.connect(three, token, key)
	r.awaitAgents(three, 2)
	second := r.connect(three, token, key)
	<-first.Done()
	eventually(t, "the older connection has ended for that", func() bool { return three.log.count(errReplaced.Error()) == 1 })
	select {
	case <-second.Done():
		t.Error("the newer connection has ended:", second.Err())
	default:
	}
	r.awaitAgents(three, 2)
}

// connect connects as an agent does, and says hello.
func (r *rig) connect(n *testNode, token credential.Token, key credential.NodeKey) *peer.Conn {
	r.Helper()
	c, err := peer.Dial(r.Context(), n.addr, credential.DialAsAgent(token, versions, key, rand.Reader), nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(c.Close)
	if _, err := c.Call(r.Context(), peer.AgentBytes, (&hello{Version: protocolVersion, Name: "raw"}).encode()); err != nil {
		r.Fatal(err)
	}
	return c
}

// TestHostileAgents proves that an agent which does not keep to the protocol is let go: with more requests under way than it may have, larger ones, no hello or one of another version, bytes that are no frames, or streams of its own; and that
// the token of a link that is gone is of no use.
func TestHostileAgents(t *testing.T) {
	r := newRig(t)
	n := r.start(1, "127.0.0.1:0")
	raw := func() *peer.Conn { return r.connect(n, r.newToken(), r.newKey()) }
	begin := func(c *peer.Conn, body []byte) { // whether it is taken is seen by the end of the connection
		_, _ = c.Begin(t.Context(), peer.AgentBytes, body, mostBytes)
	}
	for why, attack := range map[error]func(c *peer.Conn){
		errFlood: func(c *peer.Conn) { begin(c, make([]byte, mostBytes+1)) },
		errEnded: func(c *peer.Conn) { begin(c, bytes.Repeat([]byte{7}, 100)) }, // which are no frames
		errOpened: func(c *peer.Conn) {
			end := newAgentEnd(context.Background(), c)
			t.Cleanup(func() { end.Close() })
			mux, err := yamux.Server(end, muxConfig())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { mux.Close() })
			_, _ = mux.OpenStream()
		},
	} {
		c := raw()
		attack(c)
		<-c.Done()
		eventually(t, "it was let go for that: "+why.Error(), func() bool { return n.log.count(why.Error()) == 1 })
	}
	c := raw()
	n.hub.mu.Lock()
	for _, a := range n.hub.agents {
		a.end.mu.Lock()
		a.end.used = -1 << 40 // nothing that comes is read
		a.end.mu.Unlock()
	}
	n.hub.mu.Unlock()
	for range mostRequests + 1 {
		begin(c, nil)
	}
	<-c.Done()
	eventually(t, "it was let go for too many requests", func() bool { return n.log.count(errFlood.Error()) == 2 })
	for name, body := range map[string]string{"no hello": "x", "another version": `{"version":2}`, "a long one": `{"version":1,"name":"` + strings.Repeat("x", mostHello) + `"}`} {
		c, err := peer.Dial(t.Context(), n.addr, credential.DialAsAgent(r.newToken(), versions, r.newKey(), rand.Reader), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Call(t.Context(), peer.AgentBytes, []byte(body)); !errors.Is(err, peer.ErrClosedByPeer) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
	token := r.newToken()
	r.mu.Lock()
	delete(r.tokens, token.ID())
	r.mu.Unlock()
	gone, err := peer.Dial(t.Context(), n.addr, credential.DialAsAgent(token, versions, r.newKey(), rand.Reader), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if _, err := gone.Call(t.Context(), peer.AgentBytes, (&hello{Version: protocolVersion}).encode()); !errors.Is(err, peer.ErrClosedByPeer) {
		t.Errorf("a link that is gone: %v", err)
	}
	r.awaitAgents(n, 0)
	if _, err := n.hub.Dial(t.Context(), meta.UUID{9}, "a:1"); !errors.Is(err, ErrNoAgent) {
		t.Errorf("another link: %v", err)
	}
}

// TestDialsThatFail proves that a node is told why a broker is not reached, that people are told, too, until one is, and that a dial ends with its context.
func TestDialsThatFail(t *testing.T) {
	r := newRig(t)
	n := r.start(1, "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	echo := r.broker()
	r.agent(r.newToken(), r.newKey(), "a", n, closed, echo)
	r.awaitAgents(n, 1)
	if _, err := n.hub.Dial(t.Context(), north, closed); err == nil || !strings.Contains(err.Error(), "by the agent a: ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens there: %v", err)
	}
	if s := n.hub.Status(north)[0]; !strings.Contains(s.Problem, closed) || s.ProblemAt.IsZero() {
		t.Errorf("people are told of %+v", s)
	}
	if _, err := n.hub.Dial(t.Context(), north, strings.Repeat("x", 400)); !errors.Is(err, ErrRefused) {
		t.Errorf("a long address: %v", err)
	}
	for range 3 {
		r.dial(n, echo)
	}
	if s := n.hub.Status(north)[0]; s.Problem != "" {
		t.Errorf("people are told of %+v", s)
	}
	c := r.connect(n, r.newToken(), r.newKey()) // an agent that does not answer
	defer c.Close()
	r.awaitAgents(n, 2)
	var silent *agentConn
	for _, a := range n.hub.list(north) {
		if a.name == "raw" {
			silent = a
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := silent.dial(ctx, echo); !errors.Is(err, context.Canceled) {
		t.Errorf("an agent that is silent: %v", err)
	}
	r.dial(n, echo) // by the other one, though the silent one has fewer streams
}

// TestDeadEndsAreFound proves that an end which reads and does not answer is given up after the time of a ping, and not before.
func TestDeadEndsAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, b) })
		began := time.Now()
		mux, err := yamux.Client(a, muxConfig())
		if err != nil {
			t.Fatal(err)
		}
		<-mux.CloseChan()
		if d := time.Since(began); d < pingTime || d > pingEvery+pingTime+time.Second {
			t.Errorf("it was found after %v", d)
		}
		mux.Close()
		b.Close()
		reading.Wait()
		time.Sleep(time.Minute) // timers of yamux end
	})
}

// TestReach proves which addresses an agent dials: those that are named, and those that the source names now; that it asks again for one that it does not know, not too often; and that it keeps to what it knows while the source is silent.
func TestReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, list, failed := 0, []string{"one:9092", "Two:9092"}, error(nil)
		r := NewReach([]string{"fixed:1"}, func(context.Context) ([]string, error) {
			asked++
			return list, failed
		}, slog.New(slog.DiscardHandler))
		allows := func(want bool, addresses ...string) {
			t.Helper()
			for _, address := range addresses {
				if err := r.Allow(t.Context(), address); (err == nil) != want {
					t.Errorf("%s: %v", address, err)
				}
			}
		}
		allows(true, "fixed:1")
		if asked != 0 {
			t.Error("the source was asked for an address that is named")
		}
		time.Sleep(time.Minute)
		allows(true, "one:9092", "two:9092", "ONE:9092")
		allows(false, "one:22", "three:9092", "", "one", "127.0.0.1:22")
		if asked != 1 {
			t.Errorf("the source was asked %d times", asked)
		}
		list = []string{"one:9092", "three:9092"}
		time.Sleep(askAgain)
		allows(true, "three:9092")
		allows(false, "two:9092")
		failed = errors.New("it is away")
		time.Sleep(askAgain)
		allows(true, "three:9092")
		allows(false, "two:9092")
		if err := r.Allow(t.Context(), "two:9092"); !strings.Contains(fmt.Sprint(err), "the source names one:9092, three:9092") || !strings.Contains(fmt.Sprint(err), "--allow two:9092") {
			t.Errorf("the refusal says %v", err)
		}
		none := NewReach(nil, nil, slog.New(slog.DiscardHandler))
		if err := none.Allow(t.Context(), "one:9092"); err == nil {
			t.Error("an agent that was told nothing dials")
		}
	})
}

// FuzzStreams proves that no bytes of the other end have an end of a tunnel take more memory than it may, or fail in another way than by an error.
func FuzzStreams(f *testing.F) {
	var nodes bytes.Buffer
	if err := writeNodes(&nodes, []Node{{1, []string{"PLAINTEXT://a:1"}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(nodes.Bytes()[1:])
	f.Add([]byte{0, 3, 'a', ':', '1'})
	f.Add([]byte(`{"version":1,"name":"a"}`))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := readNodes(bytes.NewReader(b)); err == nil {
			var again bytes.Buffer
			if err := writeNodes(&again, list); err != nil {
				t.Error(err)
			}
		}
		if text, err := readText(bytes.NewReader(b), mostAddress); err == nil && len(text) > mostAddress {
			t.Errorf("a text of %d bytes", len(text))
		}
		if h, err := parseHello(b); err == nil && (h.Version != protocolVersion || len(h.Name) > mostName) {
			t.Errorf("a hello is %+v", h)
		}
	})
}
