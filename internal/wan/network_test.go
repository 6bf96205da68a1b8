package wan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/wan"
)

// TestMain also is the program that tests start in sites: its job is named by the environment.
func TestMain(m *testing.M) {
	name := os.Getenv("WAN_TEST_JOB")
	if name == "" {
		goleak.VerifyTestMain(m)
	} else if !runJob(name, os.Getenv("WAN_TEST_ADDRESS")) {
		panic("there is no job " + name)
	}
}

// pair is a network of two sites, and the test that has it.
type pair struct {
	t    *testing.T
	n    *wan.Network
	a, b *wan.Site
}

// eachKind runs a test in a network of each kind.
func eachKind(t *testing.T, test func(p pair)) {
	t.Helper()
	for _, kind := range []wan.Kind{wan.Namespaces, wan.Proxies} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			n := makeNetwork(t, wan.Config{Sites: []string{"a", "b"}, Kind: kind})
			test(pair{t, n, n.Site("a"), n.Site("b")})
		})
	}
}

func makeNetwork(tb testing.TB, c wan.Config) *wan.Network {
	tb.Helper()
	n, err := wan.New(tb.Context(), c)
	if errors.Is(err, wan.ErrUnavailable) && (os.Getenv("LEAT_TEST_REQUIRE_ALL") != "1" || os.Geteuid() != 0) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

// listen opens a port of a site and gives each connection to the function, in a goroutine that ends before the network.
func listen(tb testing.TB, s *wan.Site, serve func(net.Conn)) (address string) {
	tb.Helper()
	l, err := s.Listen(tb.Context(), 0)
	if err != nil {
		tb.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(tb.Context(), func() { conn.Close() })
				defer stop()
				serve(conn)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func dial(tb testing.TB, s *wan.Site, address string) net.Conn {
	tb.Helper()
	conn, err := s.Dial(tb.Context(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

func echo(conn net.Conn) { _, _ = io.Copy(conn, conn) }

// await waits until the condition holds; a test that waits in vain ends by its own time limit.
func await(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-tb.Context().Done():
			tb.Fatalf("%s: never", what)
		}
	}
}

// swap sends bytes, and reads as many.
func swap(tb testing.TB, conn net.Conn, text string) string {
	tb.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		tb.Fatal(err)
	}
	return receive(tb, conn, len(text))
}

func receive(tb testing.TB, conn net.Conn, n int) string {
	tb.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// TestRoundTripsTakeTheDelays proves that nothing comes earlier than the delays of both directions allow, also when they change.
func TestRoundTripsTakeTheDelays(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		address := listen(t, b, echo)
		for _, delays := range [][2]time.Duration{{40 * time.Millisecond, 40 * time.Millisecond}, {100 * time.Millisecond, 100 * time.Millisecond}, {0, 30 * time.Millisecond}} {
			n.Set(a, b, wan.Settings{Delay: delays[0]})
			n.Set(b, a, wan.Settings{Delay: delays[1]})
			began := time.Now()
			conn := dial(t, a, address)
			dialled := time.Since(began)
			swap(t, conn, "there and back")
			if both, swapped := delays[0]+delays[1], time.Since(began); dialled < both || swapped < 2*both {
				t.Errorf("a connection took %v, and with an exchange %v: one round trip is %v", dialled, swapped, both)
			}
			for i, c := range []wan.Counters{n.Counters(a, b), n.Counters(b, a)} {
				if c.Delivered == 0 || c.Shortest < delays[i] || c.Longest < c.Shortest {
					t.Errorf("direction %d, with a delay of %v: %+v", i, delays[i], c)
				}
			}
		}
	})
}

// TestRateBoundsTheBytes proves that no more bytes come than the rate allows, and that all of them come.
func TestRateBoundsTheBytes(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		const rate, bytes = 4e6, 2 << 20
		n.Set(a, b, wan.Settings{Rate: rate, Delay: 10 * time.Millisecond})
		conn := dial(t, a, listen(t, b, echo))
		before := n.Counters(a, b).DeliveredBytes
		began := time.Now()
		if got := exchange(t, conn, bytes); got != bytes {
			t.Errorf("%d bytes came back, not %d", got, bytes)
		}
		took, c := time.Since(began), n.Counters(a, b)
		carried := c.DeliveredBytes - before
		if least := time.Duration(carried * int64(time.Second) / rate); took < least {
			t.Errorf("%d bytes took %v, less than %v", carried, took, least)
		}
		if carried < bytes || c.Shortest < 10*time.Millisecond {
			t.Errorf("%d bytes were carried: %+v", carried, c)
		}
	})
}

// exchange sends so many bytes to a port that sends them back, and returns how many of those that came back are right.
func exchange(t *testing.T, conn net.Conn, bytes int) (right int) {
	t.Helper()
	draw := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), int64(bytes)) }
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.Copy(conn, draw()); err != nil {
			t.Error(err)
		}
	})
	want, got := make([]byte, 64<<10), make([]byte, 64<<10)
	for from := draw(); right < bytes; {
		n, err := io.ReadFull(conn, got[:min(len(got), bytes-right)])
		if err != nil {
			t.Error(err)
			break
		}
		_, _ = io.ReadFull(from, want[:n])
		if string(want[:n]) != string(got[:n]) {
			t.Errorf("after %d bytes others come than were sent", right)
			break
		}
		right += n
	}
	sending.Wait()
	return right
}

// TestCutIsOneWay proves that a cut holds up what is sent in its direction, and nothing else, and that a connection goes on after it.
func TestCutIsOneWay(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		accepted := make(chan net.Conn)
		address := listen(t, b, func(conn net.Conn) {
			accepted <- conn
			<-t.Context().Done()
		})
		atA := dial(t, a, address)
		atB := <-accepted
		await(t, "the handshake is over", func() bool { return n.Counters(a, b).UnderWay == 0 })
		before, back := n.Counters(a, b), n.Counters(b, a)
		n.Set(a, b, wan.Settings{Cut: true})
		if _, err := io.WriteString(atB, "from b"); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, atA, 6); got != "from b" {
			t.Errorf("%q came against the cut", got)
		}
		if _, err := io.WriteString(atA, "from a"); err != nil {
			t.Fatal(err)
		}
		await(t, "the cut has met something", func() bool { return n.Counters(a, b).Cut > before.Cut })
		if c := n.Counters(a, b); c.Delivered > before.Delivered+1 || n.Counters(b, a).Delivered == back.Delivered { // what was sent before may be that one
			t.Errorf("with a cut: %+v, before %+v", c, before)
		}
		canceled, cancel := context.WithCancel(t.Context())
		var dialling sync.WaitGroup
		dialling.Go(func() {
			if conn, err := b.Dial(canceled, "tcp", listen(t, a, echo)); err == nil {
				conn.Close()
				t.Error("a connection was made, though the answers to it are cut")
			}
		})
		cuts := n.Counters(a, b).Cut
		await(t, "an answer was cut", func() bool { return n.Counters(a, b).Cut > cuts })
		cancel()
		dialling.Wait()
		n.Mend()
		if got := receive(t, atB, 6); got != "from a" {
			t.Errorf("%q came after the cut", got)
		}
	})
}

// TestLossIsRepaired proves that packets are lost, and that a connection brings all its bytes in spite of that.
func TestLossIsRepaired(t *testing.T) {
	for _, kind := range []wan.Kind{wan.Namespaces, wan.Proxies} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			n := makeNetwork(t, wan.Config{Sites: []string{"a", "b"}, Kind: kind, Seed: 1})
			a, b := n.Site("a"), n.Site("b")
			lossy := wan.Settings{Loss: 0.01, Duplicate: 0.01, Reorder: 0.01, Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond}
			n.SetBetween(a, n.Sites(), lossy)
			const bytes = 1 << 20
			if got := exchange(t, dial(t, a, listen(t, b, echo)), bytes); got != bytes {
				t.Errorf("of %d bytes %d came back", bytes, got)
			}
			there, back := n.Counters(a, b), n.Counters(b, a)
			if there.Lost == 0 || back.Lost == 0 {
				t.Errorf("nothing was lost: %+v, %+v", there, back)
			}
			if kind == wan.Namespaces && (there.Duplicated == 0 || there.Overtaking == 0) {
				t.Errorf("no packet came twice, or none overtook others: %+v", there)
			}
			if kind == wan.Namespaces && there.Lost > there.Packets/20 { // those of the kernel's large ones, as one, would be a third
				t.Errorf("packets are not lost one by one: %+v", there)
			}
			if dropped, err := n.Dropped(); dropped != 0 || err != nil {
				t.Errorf("the kernel dropped %d packets: %v", dropped, err)
			}
		})
	}
}

// TestConnectionsOutliveFlapping proves that a path which flaps cuts packets again and again, and that a connection lives through that.
func TestConnectionsOutliveFlapping(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		conn := dial(t, a, listen(t, b, echo))
		n.SetBetween(a, n.Sites(), wan.Settings{Up: 30 * time.Millisecond, Down: 30 * time.Millisecond})
		turns := map[int64]bool{}
		for rounds := 0; len(turns) < 4; rounds++ {
			text := fmt.Sprintf("round %6d", rounds)
			if got := swap(t, conn, text); got != text {
				t.Fatalf("%q came back in place of %q", got, text)
			}
			turns[n.Counters(a, b).Cut] = true
		}
	})
}

// TestResetEndsConnections proves that a path which resets ends connections and refuses others, until it is mended.
func TestResetEndsConnections(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		address := listen(t, b, echo)
		conn := dial(t, a, address)
		swap(t, conn, "before")
		n.Set(a, b, wan.Settings{Reset: true})
		_, err := io.WriteString(conn, "after")
		if err == nil {
			_, err = conn.Read(make([]byte, 5))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection ends with: %v", err)
		}
		if _, err := a.Dial(t.Context(), "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("another connection: %v", err)
		}
		if n.Counters(a, b).Refused == 0 {
			t.Errorf("%+v", n.Counters(a, b))
		}
		n.Mend()
		swap(t, dial(t, a, address), "mended")
	})
}

// TestProcessesRunInSites proves that processes of two sites reach each other through their path only, that the test reaches them without it, and that they end with the network.
func TestProcessesRunInSites(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		n.Set(a, b, wan.Settings{Delay: 20 * time.Millisecond})
		server := startJob(t, b, "echo", b.At(7000))
		server.await("ready")
		published, err := b.Publish(t.Context(), 7000)
		if err != nil {
			t.Fatal(err)
		}
		outside, err := net.Dial("tcp", published)
		if err != nil {
			t.Fatal(err)
		}
		defer outside.Close()
		swap(t, outside, "from outside")
		swap(t, dial(t, b, b.At(7000)), "from the site itself")
		if c := n.Counters(a, b); c.Packets > 0 {
			t.Errorf("the path was used: %+v", c)
		}
		reach, err := a.Reach(t.Context(), b, 7000)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := a.Reach(t.Context(), b, 7000); err != nil || again != reach {
			t.Errorf("the port is at %s, and then at %s: %v", reach, again, err)
		}
		startJob(t, a, "ask", reach).await("got hello")
		if c := n.Counters(a, b); c.Delivered == 0 || c.Shortest < 20*time.Millisecond {
			t.Errorf("the path was not used: %+v", c)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if server.out.Scan() {
			t.Errorf("the server says %q after the network was closed", server.out.Text())
		}
		if err := b.Start(exec.Command(os.Args[0])); err == nil {
			t.Error("a command was started in a network that is closed")
		}
	})
}

// TestCloseEndsDials proves that nobody waits for a connection in a network that is closed.
func TestCloseEndsDials(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		n.Set(a, b, wan.Settings{Cut: true})
		var dialling sync.WaitGroup
		dialling.Go(func() {
			if conn, err := a.Dial(context.Background(), "tcp", b.At(7000)); err == nil {
				conn.Close()
				t.Error("a connection was made through a cut")
			}
		})
		await(t, "the dial is under way", func() bool { return n.Counters(a, b).Cut > 0 })
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		dialling.Wait()
	})
}

// TestNetworksDoNotMeet proves that two networks may use the same names and ports at the same time.
func TestNetworksDoNotMeet(t *testing.T) {
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		other := makeNetwork(t, wan.Config{Sites: []string{"a", "b"}, Kind: n.Kind()})
		for text, site := range map[string]*wan.Site{"one": b, "two": other.Site("b")} {
			l, err := site.Listen(t.Context(), 7000)
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, text)
					conn.Close()
				}
			})
			t.Cleanup(func() {
				l.Close()
				serving.Wait()
			})
		}
		other.Set(other.Site("a"), other.Site("b"), wan.Settings{Delay: time.Millisecond})
		if got := receive(t, dial(t, a, b.At(7000)), 3); got != "one" {
			t.Errorf("%q answers", got)
		}
		if got := receive(t, dial(t, other.Site("a"), other.Site("b").At(7000)), 3); got != "two" {
			t.Errorf("%q answers", got)
		}
	})
}

// TestWrongUseIsRefused proves that no network is made, and no connection, of what cannot be.
func TestWrongUseIsRefused(t *testing.T) {
	for name, c := range map[string]wan.Config{
		"no site": {}, "equal names": {Sites: []string{"a", "a"}}, "no name": {Sites: []string{""}}, "too many": {Sites: make([]string, 251)},
		"not there": {Sites: []string{"a"}, Here: "b"}, "a small MTU": {Sites: []string{"a"}, MTU: 500}, "a large MTU": {Sites: []string{"a"}, MTU: 1 << 16},
	} {
		if n, err := wan.New(t.Context(), c); err == nil {
			t.Errorf("%s: %v", name, n)
		}
	}
	eachKind(t, func(p pair) {
		t, n, a, b := p.t, p.n, p.a, p.b
		for _, address := range []string{"192.0.2.1:80", "localhost:80", "no port"} {
			if conn, err := a.Dial(t.Context(), "tcp", address); err == nil {
				conn.Close()
				t.Errorf("%s was reached", address)
			}
		}
		if conn, err := a.Dial(t.Context(), "udp", b.At(7000)); err == nil {
			conn.Close()
			t.Error("udp is possible")
		}
		if conn, err := a.Dial(t.Context(), "tcp", b.At(7000)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port that nobody has opened: %v, %v", conn, err)
		}
		for what, f := range map[string]func(){
			"settings that are impossible": func() { n.Set(a, b, wan.Settings{Loss: 2}) },
			"a site that does not exist":   func() { n.Site("c") },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s are taken", what)
					}
				}()
				f()
			}()
		}
	})
}
