package wire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
)

const helloKey, proveKey = 20000, 20001

// peersOf is a configuration of the waiting room and the peers' share.
func peersOf(conns, waiting int) Peers {
	return Peers{
		Handshake: []int16{helloKey, proveKey}, Expected: func() bool { return true },
		Conns: conns, Waiting: waiting, Memory: 1 << 20,
	}
}

// proveOr makes a connection a peer's at the second request of a handshake, which is always
// believed, answers those of the handshake, and leaves others to serve.
func proveOr(serve func(r *Request) error) func(r *Request) error {
	return func(r *Request) error {
		if r.Key == proveKey {
			if err := r.Conn.Prove(); err != nil {
				return err
			}
		}
		if r.Key == helloKey || r.Key == proveKey {
			return echo(r)
		}
		return serve(r)
	}
}

// prove does a handshake.
func (c *client) prove() *client {
	c.tb.Helper()
	c.send(frame(helloKey, 0, 0, "hello"))
	c.receive()
	c.send(frame(proveKey, 0, 1, "proof"))
	c.receive()
	return c
}

// TestWaitingRoom proves that a connection beyond each of the limits can become a peer's by the
// requests of the handshake, in their order, and is closed with the limit as the reason if it
// sends anything else.
func TestWaitingRoom(t *testing.T) {
	home := netip.MustParseAddr("127.0.0.1")
	for name, change := range map[string]func(c *Config){
		"no descriptors":  func(c *Config) { c.MaxConns = 1 },
		"max.connections": func(c *Config) { c.Limits.Conns = 1 },
		"per address":     func(c *Config) { c.Limits.ConnsPerIP = 1 },
		"of the address":  func(c *Config) { c.Limits.IPs = map[netip.Addr]int{home: 1} },
	} {
		t.Run(name, func(t *testing.T) {
			var log logLines
			cfg := Config{Logger: log.logger(), Peers: peersOf(4, 4)}
			change(&cfg)
			s, addr := start(t, cfg, &funcs{serve: proveOr(echo)})
			first := dial(t, addr)
			first.send(frame(3, 0, 0, ""))
			first.receive()
			for i, sent := range [][]byte{
				frame(3, 0, 0, ""),
				frame(proveKey, 0, 0, ""),
				frame(helloKey, 0, 0, strings.Repeat("h", waitingFrame)),
				[]byte("GET / HTTP/1.1\r\n"),
				append([]byte{0, 0, 0, 9}, "123456789"...),
			} {
				c := dial(t, addr)
				c.send(sent)
				c.awaitClosed()
				eventually(t, "it is counted", func() bool { return s.Stats().TurnedAway.Load() == int64(i+1) })
			}
			again := dial(t, addr)
			again.send(frame(helloKey, 0, 0, ""))
			again.receive()
			again.send(frame(helloKey, 0, 0, ""))
			again.awaitClosed()
			if s.Stats().Refused.Load() != 0 {
				t.Error("frames are counted as refused that were not read")
			}
			eventually(t, "the limit is logged", func() bool { return strings.Contains(log.String(), "connection refused") })

			p := dial(t, addr).prove()
			p.send(frame(3, 0, 2, strings.Repeat("x", 2*waitingFrame)))
			if _, body := p.receive(); len(body) != 2*waitingFrame {
				t.Errorf("got %d bytes", len(body))
			}
			if st := s.Stats(); st.Conns.Load() != 1 || st.Peers.Load() != 1 || st.Accepted.Load() != 1 {
				t.Errorf("%d connections of clients, %d of peers, %d accepted", st.Conns.Load(), st.Peers.Load(), st.Accepted.Load())
			}
			p.Close()
			eventually(t, "the peer is gone", func() bool { return s.Stats().Peers.Load() == 0 })
			first.send(frame(3, 0, 3, ""))
			first.receive()
		})
	}
}

// TestWaitingRoomIsClosed proves that connections beyond the limits are closed at once if no peer is
// expected, and if there are no descriptors for a waiting room.
func TestWaitingRoomIsClosed(t *testing.T) {
	none, alone := peersOf(4, 0), peersOf(4, 4)
	alone.Expected = func() bool { return false }
	for _, peers := range []Peers{{}, none, alone} {
		_, addr := start(t, Config{MaxConns: 1, Peers: peers}, &funcs{serve: proveOr(echo)})
		first := dial(t, addr)
		first.send(frame(3, 0, 0, ""))
		first.receive()
		dial(t, addr).awaitClosed()
	}
}

// TestWaitingRoomIsBounded proves that the waiting room has its caps, that a silent connection gives
// its place to one that comes, and that the place of one that ends is free.
func TestWaitingRoomIsBounded(t *testing.T) {
	for _, waiting := range []int{waitingPerIP, 4 * waitingPerIP} { // full because of all, and of the address
		s, addr := start(t, Config{MaxConns: 1, Peers: peersOf(8, waiting)}, &funcs{serve: proveOr(echo)})
		first := dial(t, addr)
		first.send(frame(3, 0, 0, ""))
		first.receive()
		waitingNow := func(n int) {
			t.Helper()
			eventually(t, "the waiting room is as full as it should be", func() bool {
				s.conns.mu.Lock()
				defer s.conns.mu.Unlock()
				return len(s.conns.waiting) == n && s.conns.counts[classWaiting] == n
			})
		}
		silent := []*client{dial(t, addr), dial(t, addr)}
		waitingNow(2)
		greeted := dial(t, addr)
		silent[0].awaitClosed()
		greeted.send(frame(helloKey, 0, 0, ""))
		greeted.receive()
		other := dial(t, addr)
		silent[1].awaitClosed()
		other.send(frame(helloKey, 0, 0, ""))
		other.receive()
		waitingNow(2)
		greeted.Close()
		waitingNow(1)
		third := dial(t, addr).prove()
		other.send(frame(proveKey, 0, 0, ""))
		other.receive()
		waitingNow(0)
		third.send(frame(3, 0, 1, "still here"))
		third.receive()
	}
}

// TestChallengedPlaces proves that connections which have begun a handshake, and do not go on with it, hold a
// full waiting room for a few round trips only: then the one that began first gives its place to one that comes.
func TestChallengedPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{MaxConns: 1, Peers: peersOf(8, 8)}, &funcs{serve: proveOr(echo)})
		kept := openPipe(t, s)
		kept.send(frame(3, 0, 0, ""))
		kept.receive()
		greet := func(c *client) {
			c.send(frame(helloKey, 0, 0, ""))
			c.receive()
			time.Sleep(challengedTime / 4)
		}
		first, second := openPipe(t, s), openPipe(t, s)
		greet(first)
		greet(second)
		openPipe(t, s).awaitClosed()
		time.Sleep(challengedTime / 2)
		third := openPipe(t, s)
		first.awaitClosed()
		third.prove()
		second.send(frame(proveKey, 0, 1, "proof"))
		second.receive()
		third.Close()
		second.Close()
		kept.Close()
		shutdown(t, s)
	})
}

// fromTo is a connection that has addresses, besides what it is made of; nil: only addresses.
type fromTo struct {
	net.Conn
	client, server net.Addr
}

func (c fromTo) RemoteAddr() net.Addr { return c.client }
func (c fromTo) LocalAddr() net.Addr  { return c.server }

// TestPlacesOfMembers proves that connections from addresses of members find a place in a waiting room that is
// full of strangers', also of such as have just begun a handshake; that they have more places for each address;
// and that no stranger takes one of theirs.
func TestPlacesOfMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 12
		p := peersOf(64, places)
		members := netip.MustParsePrefix("10.1.0.0/16")
		p.IsMember = members.Contains
		s := NewServer(Config{MaxConns: 1, Peers: p}, &funcs{serve: proveOr(echo)})
		from := func(ip string) *client {
			near, far := net.Pipe()
			a := &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}
			go s.ServeConn(fromTo{far, a, a}, new(Listener))
			synctest.Wait()
			return &client{t, near}
		}
		greet := func(c *client) *client {
			c.send(frame(helloKey, 0, 0, ""))
			c.receive()
			return c
		}
		kept := from("10.2.0.1")
		kept.send(frame(3, 0, 0, ""))
		kept.receive()
		var strangers, nodes []*client
		for i := range places {
			strangers = append(strangers, greet(from(fmt.Sprint("10.3.0.", i))))
		}
		from("10.3.1.1").awaitClosed() // all have just begun
		for range waitingPerMember {
			nodes = append(nodes, greet(from("10.1.0.1")))
		}
		from("10.1.0.1").awaitClosed() // it has as many as an address may have
		for range places - waitingPerMember {
			nodes = append(nodes, greet(from("10.1.0.2")))
		}
		for _, c := range strangers {
			c.awaitClosed()
		}
		time.Sleep(challengedTime)
		from("10.3.1.1").awaitClosed() // no stranger takes a member's place
		late := greet(from("10.1.0.3"))
		nodes[0].awaitClosed()
		nodes = append(nodes[1:], late)
		for _, c := range nodes {
			c.send(frame(proveKey, 0, 1, "proof"))
			c.receive()
			c.Close()
		}
		kept.Close()
		shutdown(t, s)
	})
}

// TestWaitingTime proves that a connection which does not prove in time that it is a peer's is closed,
// whatever it has begun, and that one which does stays.
func TestWaitingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logLines
		s := NewServer(Config{MaxConns: 1, Logger: log.logger(), Peers: peersOf(8, 8)}, &funcs{serve: proveOr(echo)})
		client := openPipe(t, s)
		client.send(frame(3, 0, 0, ""))
		client.receive()
		greeted := openPipe(t, s)
		greeted.send(frame(helloKey, 0, 0, ""))
		greeted.receive()
		synctest.Wait()
		proven := openPipe(t, s).prove()
		silent := openPipe(t, s)
		synctest.Wait()
		time.Sleep(waitingTime - time.Millisecond)
		synctest.Wait()
		if n := s.Stats().TurnedAway.Load(); n != 0 {
			t.Errorf("%d were closed too early", n)
		}
		time.Sleep(2 * time.Millisecond)
		silent.awaitClosed()
		greeted.awaitClosed()
		synctest.Wait()
		if n := s.Stats().TurnedAway.Load(); n != 2 || !strings.Contains(log.String(), "LimitNOFILE") {
			t.Errorf("%d were turned away; the log says %s", n, log.String())
		}
		time.Sleep(waitingTime)
		proven.send(frame(3, 0, 2, ""))
		proven.receive()
		proven.Close()
		client.Close()
		shutdown(t, s)
	})
}

// TestPeersAreNoClients proves that a connection which proves that it is a peer's leaves its place
// to a client, as long as there are descriptors for peers; that with none it keeps its place; and
// that one which waits cannot stay then.
func TestPeersAreNoClients(t *testing.T) {
	var log logLines
	s, addr := start(t, Config{Logger: log.logger(), Limits: Limits{Conns: 2, ConnsPerIP: 2}, Peers: peersOf(1, 4)}, &funcs{serve: proveOr(echo)})
	use := func(c *client) *client {
		c.send(frame(3, 0, 9, ""))
		c.receive()
		return c
	}
	counts := func(conns, peers int64) {
		t.Helper()
		eventually(t, "the connections are counted", func() bool { return s.Stats().Conns.Load() == conns && s.Stats().Peers.Load() == peers })
	}
	peer := dial(t, addr).prove()
	counts(0, 1)
	one := use(dial(t, addr))
	two := use(dial(t, addr))
	counts(2, 1)
	three := dial(t, addr)
	three.send(frame(3, 0, 0, ""))
	three.awaitClosed()
	waits := dial(t, addr)
	waits.send(frame(helloKey, 0, 0, ""))
	waits.receive()
	waits.send(frame(proveKey, 0, 0, ""))
	waits.awaitClosed()
	eventually(t, "the reason is logged", func() bool { return strings.Contains(log.String(), errPeersFull.Error()) })
	one.Close()
	counts(1, 1)
	second := use(dial(t, addr).prove())
	counts(2, 1)
	s.SetLimits(Limits{}) // which count by address again
	s.SetLimits(Limits{ConnsPerIP: 2})
	four := dial(t, addr)
	four.send(frame(3, 0, 0, ""))
	four.awaitClosed()
	second.Close()
	counts(1, 1)
	use(dial(t, addr))
	use(two)
	use(peer)
}

// TestNothingBehindAProof proves that a proof behind which more bytes have come is refused, and that
// proving twice does nothing.
func TestNothingBehindAProof(t *testing.T) {
	var log logLines
	_, addr := start(t, Config{Logger: log.logger(), Peers: peersOf(1, 1)}, &funcs{serve: proveOr(echo)})
	c := dial(t, addr)
	c.send(append(frame(proveKey, 0, 0, ""), frame(3, 0, 1, "early")...))
	c.awaitClosed()
	eventually(t, "the reason is logged", func() bool { return strings.Contains(log.String(), errEarly.Error()) })
	dial(t, addr).prove().prove()
}

// TestPeersHaveMemory proves that clients which hold all memory for requests, and wait for more, do
// not keep a peer's requests from being read, and that a peer gives back what it took.
func TestPeersHaveMemory(t *testing.T) {
	const memory = 2 << 20
	s, addr := start(t, Config{MaxFrame: 1 << 20, RequestMemory: memory, Peers: peersOf(2, 1)}, &funcs{serve: proveOr(echo)})
	peer := dial(t, addr).prove()
	for range 2 * memory / (64 << 10) {
		dial(t, addr).send(announce(60_000, make([]byte, 33_000)...))
	}
	eventually(t, "clients have all memory", func() bool { return s.buffers.inUse() == memory && s.buffers.sweepUnused().wanted > 0 })
	for i, size := range []int{10, 50_000, 300_000} { // the last one takes a buffer above firstClass
		peer.send(frame(3, 0, int32(i), strings.Repeat("p", size)))
		if _, body := peer.receive(); len(body) != size {
			t.Errorf("got %d bytes, want %d", len(body), size)
		}
	}
	eventually(t, "the reserve has all its memory", func() bool { return s.reserve.inUse() == 0 })
	if n := s.Stats().RequestMemory(); n < memory {
		t.Errorf("the counters say that %d bytes are used", n)
	}
	peer.send(announce(60_000, make([]byte, 33_000)...))
	eventually(t, "the counters have the reserve", func() bool { return s.Stats().RequestMemory() > memory })
}

// TestPeersSendLargeRequests proves that a peer's requests may be larger than those of clients, and
// take what clients have where the reserve is too small.
func TestPeersSendLargeRequests(t *testing.T) {
	s, addr := start(t, Config{MaxFrame: 1 << 20, RequestMemory: 64 << 20, Peers: peersOf(1, 1)}, &funcs{serve: proveOr(echo)})
	c := dial(t, addr)
	c.send(announce(1<<20 + 1))
	c.awaitClosed()
	peer := dial(t, addr).prove()
	peer.send(frame(3, 0, 0, strings.Repeat("p", 20<<20)))
	if _, body := peer.receive(); len(body) != 20<<20 {
		t.Errorf("got %d bytes", len(body))
	}
	eventually(t, "the memory is given back", func() bool { return s.Stats().RequestMemory() == 0 })
	peer.send(announce(LargestPeerFrame + 1))
	peer.awaitClosed()
}

// TestPeersUnderPressure proves that a peer's answers are sent, and its connection stays, when
// clients have all memory of unsent answers, and that its requests do not wait for the work memory
// of clients' commands, nor for clients' requests to be answered.
func TestPeersUnderPressure(t *testing.T) {
	const size = 300_000
	work := budget.New(budget.Config{Bytes: budget.MinBytes})
	parked := make(chan *Request, 3*parkedStep)
	s, addr := start(t, Config{Work: work, RequestMemory: 8 << 20, Peers: peersOf(1, 1)}, &funcs{serve: proveOr(func(r *Request) error {
		if r.Key == 1 {
			parked <- r
			return nil
		}
		if _, err := r.Decode(); err != nil {
			return err
		}
		answerWith(r, size)
		return nil
	})})
	peer := dial(t, addr).prove()
	for _, class := range []budget.Class{budget.Command, budget.Unsent} {
		for ok := true; ok; {
			_, ok = work.TryReserve(class, 16<<10)
		}
	}
	s.shared.unsent.Add(10 * s.shared.maxUnsent) // as if clients did not read
	s.shared.parked.Add(int64(10 * s.shared.maxParked))
	request := kmsg.NewRequestFormatter().AppendRequest(nil, kmsg.NewPtrMetadataRequest(), 5)
	const requests = 40 // more than its answers may take under pressure
	for range requests {
		peer.send(request)
	}
	for range requests {
		if id, body := peer.receive(); id != 5 || len(body) != 4+size {
			t.Fatalf("answer %d has %d bytes", id, len(body))
		}
	}
	for id := range int32(cap(parked)) { // a client's are not read beyond parkedStep
		peer.send(frame(1, 0, id, ""))
	}
	var all []*Request
	for range cap(parked) {
		all = append(all, <-parked)
	}
	for _, r := range all {
		answerWith(r, 0)
	}
	for id := range int32(cap(parked)) {
		if got, _ := peer.receive(); got != id {
			t.Fatalf("answer %d came in place of %d", got, id)
		}
	}
	if unsent, parked := s.shared.unsent.Load(), s.shared.parked.Load(); unsent != 10*s.shared.maxUnsent || parked != int64(10*s.shared.maxParked) {
		t.Errorf("%d and %d are counted for all connections", unsent, parked)
	}
	s.shared.unsent.Store(0)
	s.shared.parked.Store(0)
}

// TestPeersMayBeIdle proves that a peer's connection is not closed because nothing was sent for long,
// and that half a request of a peer ends it as it ends a client's.
func TestPeersMayBeIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{IdleTimeout: time.Hour, Peers: peersOf(2, 2)}, &funcs{serve: proveOr(echo)})
		idle := openPipe(t, s).prove()
		half := openPipe(t, s).prove()
		half.send(frame(3, 0, 0, "some body")[:9])
		time.Sleep(3 * time.Hour)
		half.awaitClosed()
		idle.send(frame(3, 0, 7, "still here"))
		if _, body := idle.receive(); body != "still here" {
			t.Errorf("got %q", body)
		}
		idle.Close()
		shutdown(t, s)
	})
}

// TestSlowPeersAreVictimsOfEachOtherOnly proves whom the sweeper chooses where memory is short: a
// peer only if all that hold memory wait for more.
func TestSlowPeersAreVictimsOfEachOtherOnly(t *testing.T) {
	slow := holder{bytes: 100, pace: never, age: 9}
	queued := holder{bytes: 100, pace: never, age: 5, queued: true}
	exempt := func(h holder) holder {
		h.exempt = true
		return h
	}
	for name, c := range map[string]struct {
		holders []holder
		want    int
	}{
		"a client before a peer":         {[]holder{exempt(slow), slow}, 1},
		"no peer for a client":           {[]holder{exempt(slow)}, 0},
		"a peer for peers that all wait": {[]holder{exempt(queued), exempt(queued)}, 1},
	} {
		got := chooseVictims(c.holders, 1, 3, true)
		if len(got) != c.want || len(got) == 1 && got[0].exempt != c.holders[len(c.holders)-1].exempt {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestFinish proves that a connection which is to end reads no more requests, sends the answers that
// are outstanding and is closed with the reason, also if it was suspended.
func TestFinish(t *testing.T) {
	for _, idle := range []bool{false, runtime.GOOS == "linux"} { // elsewhere no connection is suspended
		var log logLines
		parked := make(chan *Request, 1)
		var conn atomic.Pointer[Conn]
		s, addr := start(t, Config{Logger: log.logger()}, &funcs{
			open: func(c *Conn) { conn.Store(c) },
			serve: func(r *Request) error {
				if r.Key == 1 {
					t.Error("a request was read after Finish")
				}
				parked <- r
				return nil
			},
		})
		c := dial(t, addr)
		c.send(frame(0, 0, 1, ""))
		r := <-parked
		if idle {
			answerWith(r, 10)
			c.receive()
			if conn.Load().sock.isNonblocking() {
				suspendAll(t, s)
			}
			conn.Load().Finish(errors.New("that was all"))
		} else {
			conn.Load().Finish(errors.New("that was all"))
			conn.Load().Finish(errors.New("again"))
			eventually(t, "it drains", func() bool { return conn.Load().life.currentState() == connDraining })
			c.send(frame(1, 0, 2, ""))
			answerWith(r, 10)
			if _, body := c.receive(); len(body) != 14 {
				t.Errorf("got %d bytes", len(body))
			}
		}
		c.awaitClosed()
		eventually(t, "the reason is logged", func() bool { return strings.Contains(log.String(), "that was all") })
	}
}

// TestProveRace proves that a connection which proves itself while its time ends, and while others
// come, either stays or is closed, and that the counts are right in the end.
func TestProveRace(t *testing.T) {
	s, addr := start(t, Config{MaxConns: 1, Peers: peersOf(1000, waitingPerIP)}, &funcs{serve: proveOr(echo)})
	first := dial(t, addr)
	first.send(frame(3, 0, 0, ""))
	first.receive()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				nc.SetDeadline(time.Now().Add(time.Minute))
				c := &client{t, nc}
				nc.Write(frame(helloKey, 0, 0, "")) // it may be closed already
				if _, _, err := c.tryReceive(); err == nil {
					nc.Write(frame(proveKey, 0, 1, ""))
					_, _, _ = c.tryReceive()
				}
				nc.Close()
			}
		})
	}
	all.Wait()
	eventually(t, "all are gone", func() bool {
		s.conns.mu.Lock()
		defer s.conns.mu.Unlock()
		return s.conns.counts == [classes]int{classClient: 1} && len(s.conns.waiting) == 0 && s.Stats().Peers.Load() == 0
	})
}

// suspendAll does what the sweeper does, and waits until all connections are suspended.
func suspendAll(tb testing.TB, s *Server) {
	tb.Helper()
	for _, c := range s.conns.listConns(nil, true) {
		if c.isIdle() {
			c.interruptRead()
		}
	}
	eventually(tb, "all connections are suspended", func() bool {
		for _, c := range s.conns.listConns(nil, true) {
			if c.life.currentState() != connSuspended {
				return false
			}
		}
		return true
	})
}
