package peer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// events collects what Links tell.
type events struct {
	mu   sync.Mutex
	list []peer.Event
}

func (e *events) add(event peer.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

// forget empties the list.
func (e *events) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = nil
}

// kinds are the kinds of the events of a node so far.
func (e *events) kinds(node int32) (kinds []peer.EventKind) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.list {
		if event.Node == node {
			kinds = append(kinds, event.Kind)
		}
	}
	return kinds
}

func (e *events) await(tb testing.TB, node int32, want ...peer.EventKind) {
	tb.Helper()
	eventually(tb, fmt.Sprintf("the events %v come", want), func() bool {
		got := e.kinds(node)
		return len(got) >= len(want) && slices.Equal(got[:len(want)], want)
	})
}

// find returns a function that finds the nodes 2 and 3 at addresses.
func (w *world) find(addresses ...string) func(node int32) (peer.Target, error) {
	return func(node int32) (peer.Target, error) {
		if node != 2 && node != 3 {
			return peer.Target{}, credential.ErrUnknownNode
		}
		return peer.Target{Addresses: addresses, Dialler: func() *credential.Dialler { return w.dialler(1, node) }}, nil
	}
}

// TestLinksNoticeTheEndOfANode proves over sockets that a link whose node is killed tells that it was
// closed and then that nobody listens, and that it is connected again when the node is back.
func TestLinksNoticeTheEndOfANode(t *testing.T) {
	w := newWorld(t)
	first := startNode(t, w, nil)
	var told events
	links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find(first.addr), Notify: told.add})
	defer links.Close()
	c, err := links.Get(t.Context(), 2, peer.Commands)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(t.Context(), peer.Forward, nil); err != nil {
		t.Fatal(err)
	}
	first.kill()
	told.await(t, 2, peer.Connected, peer.PeerClosed, peer.DialRefused)
	if _, err := c.Call(t.Context(), peer.Forward, nil); !errors.Is(err, peer.ErrClosedByPeer) {
		t.Error(err)
	}
	second := newNode(t, w, nil)
	second.listen(first.addr)
	eventually(t, "it is connected again", func() bool {
		c, ok := links.TryGet(2, peer.Commands)
		if !ok {
			return false
		}
		_, err := c.Call(t.Context(), peer.Forward, nil)
		return err == nil
	})
	kinds := told.kinds(2)
	if kinds[len(kinds)-1] != peer.Connected {
		t.Error(kinds)
	}
}

// dials counts and times the dials in a bubble of synctest, and answers them as it is told.
type dials struct {
	mu      sync.Mutex
	times   []time.Time
	refuse  bool
	servers map[string]*node
}

func (d *dials) dial(_ context.Context, _, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times = append(d.times, time.Now())
	n := d.servers[address]
	if d.refuse || n == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	go n.server.ServeConn(far, new(wire.Listener))
	return near, nil
}

func (d *dials) setRefuse(refuse bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = refuse
}

// takeTimes returns when was dialled since the last call.
func (d *dials) takeTimes() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	times := d.times
	d.times = nil
	return times
}

// TestLinksDialOnce proves that many who want a connection to a node for one purpose share one dial,
// that each purpose has a connection of its own, and that TryGet never waits.
func TestLinksDialOnce(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, w, nil)
		d := &dials{servers: map[string]*node{"two": n}}
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find("two"), Dial: d.dial})
		links.TryGet(2, peer.Quorum) // it makes the link, and does not wait
		var users sync.WaitGroup
		conns := make([]*peer.Conn, 20)
		for i := range conns {
			users.Go(func() {
				var err error
				if conns[i], err = links.Get(t.Context(), 2, peer.Quorum); err != nil {
					t.Error(err)
				}
			})
		}
		users.Wait()
		for _, c := range conns {
			if c != conns[0] {
				t.Error("there are two connections for one purpose")
			}
		}
		if c, ok := links.TryGet(2, peer.Quorum); !ok || c != conns[0] {
			t.Error("TryGet finds another one")
		}
		seen := map[*peer.Conn]bool{conns[0]: true}
		for _, p := range []peer.Purpose{peer.Commands, peer.Metadata, peer.Fetcher(0), peer.Fetcher(1)} {
			c, err := links.Get(t.Context(), 2, p)
			if err != nil || seen[c] {
				t.Errorf("%v: %v", p, err)
			}
			seen[c] = true
		}
		if times := d.takeTimes(); len(times) != 5 {
			t.Errorf("%d dials", len(times))
		}
		links.Close()
		for c := range seen {
			if !errors.Is(c.Err(), peer.ErrClosed) {
				t.Error(c.Err())
			}
		}
		if _, err := links.Get(t.Context(), 2, peer.Quorum); !errors.Is(err, peer.ErrClosed) {
			t.Error(err)
		}
		if _, ok := links.TryGet(2, peer.Quorum); ok {
			t.Error("there is a connection of closed links")
		}
		n.kill()
	})
}

// TestLinksBackOff proves that a node that cannot be reached is dialled again after pauses that grow to
// a bound and differ; that who waits gets the result of the next dial; and that after a steady
// connection the next dial comes at once.
func TestLinksBackOff(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, w, nil)
		d := &dials{servers: map[string]*node{"two": n}, refuse: true}
		var told events
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find("two"), Dial: d.dial, Notify: told.add})
		if _, err := links.Get(t.Context(), 2, peer.Commands); !errors.Is(err, peer.ErrDialRefused) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		times := d.takeTimes()
		pause, differ := 50*time.Millisecond, false
		for i := 1; i < len(times); i++ {
			got := times[i].Sub(times[i-1])
			if got < pause/2 || got >= pause*3/2 {
				t.Errorf("pause %d is %v, want about %v", i, got, pause)
			}
			differ = differ || got != pause
			pause = min(2*pause, 2*time.Second)
		}
		if len(times) < 20 || !differ {
			t.Errorf("%d dials in a minute, at %v", len(times), times)
		}
		for _, k := range told.kinds(2) {
			if k != peer.DialRefused {
				t.Errorf("an event is %v", k)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
		if _, err := links.Get(ctx, 2, peer.Commands); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
		d.setRefuse(false)
		c, err := links.Get(t.Context(), 2, peer.Commands)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // it is steady
		d.setRefuse(true)
		d.takeTimes()
		told.forget()
		ended := time.Now()
		n.kill()
		<-c.Done()
		synctest.Wait()
		if times := d.takeTimes(); len(times) == 0 || !times[0].Equal(ended) {
			t.Errorf("the connection ended at %v, and was dialled again at %v", ended, times)
		}
		if kinds := told.kinds(2); !slices.Equal(kinds, []peer.EventKind{peer.PeerClosed, peer.DialRefused}) {
			t.Error(kinds)
		}
		links.Close()
	})
}

// TestLinksHurry proves that a link whose node is there again dials at once, and that it does so once in
// two seconds, however often it is told.
func TestLinksHurry(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, w, nil)
		d := &dials{servers: map[string]*node{"two": n}, refuse: true}
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find("two"), Dial: d.dial})
		links.TryGet(2, peer.Commands)
		time.Sleep(time.Minute)
		d.takeTimes()
		links.Hurry(3)
		synctest.Wait()
		if times := d.takeTimes(); len(times) != 0 {
			t.Errorf("another node was heard of, and the link has dialled at %v", times)
		}
		links.Hurry(2)
		synctest.Wait()
		if times := d.takeTimes(); len(times) != 1 || !times[0].Equal(time.Now()) {
			t.Errorf("the link has dialled at %v, and not only now", times)
		}
		for range 1000 {
			links.Hurry(2)
			time.Sleep(time.Millisecond)
		}
		if n := len(d.takeTimes()); n == 0 || n > 6 { // the pauses begin anew with the first one
			t.Errorf("%d dials in a second", n)
		}
		d.setRefuse(false)
		if _, err := links.Get(t.Context(), 2, peer.Commands); err != nil {
			t.Error(err)
		}
		links.Close()
		n.kill()
	})
}

// TestUnsteadyConnectionsAreNotDialledAtOnce proves that a node which admits and then closes is not
// dialled in a hot loop.
func TestUnsteadyConnectionsAreNotDialledAtOnce(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		d := &dials{}
		dial := func(context.Context, string, string) (net.Conn, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.times = append(d.times, time.Now())
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				_ = acceptOn(w, &raw{t, far})
			}()
			return near, nil
		}
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find("two"), Dial: dial})
		links.TryGet(2, peer.Quorum)
		time.Sleep(time.Minute)
		if n := len(d.takeTimes()); n < 20 || n > 100 {
			t.Errorf("%d dials in a minute", n)
		}
		links.Close()
	})
}

// TestLinksTryAllAddresses proves that the addresses of a node are tried in order, that a link is
// refused only if all of them are, and that a node without one, and one that is not a member, are
// not dialled.
func TestLinksTryAllAddresses(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, w, nil)
		d := &dials{servers: map[string]*node{"second": n}}
		var told events
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find("first", "second", "third"), Dial: d.dial, Notify: told.add})
		if _, err := links.Get(t.Context(), 2, peer.Commands); err != nil {
			t.Error(err)
		}
		if times := d.takeTimes(); len(times) != 2 {
			t.Errorf("%d dials", len(times))
		}
		if _, err := links.Get(t.Context(), 3, peer.Commands); !errors.Is(err, credential.ErrWrongNode) {
			t.Error("node 2 answers for node 3:", err)
		}
		if _, err := links.Get(t.Context(), 7, peer.Commands); !errors.Is(err, credential.ErrUnknownNode) {
			t.Error(err)
		}
		synctest.Wait()
		// It may have been dialled again meanwhile.
		if kinds := told.kinds(3); len(kinds) == 0 || slices.ContainsFunc(kinds, func(k peer.EventKind) bool { return k != peer.DialFailed }) {
			t.Error(kinds)
		}
		if kinds := told.kinds(7); len(kinds) > 0 {
			t.Error(kinds)
		}
		links.Close()
		lost := peer.NewLinks(t.Context(), peer.LinksConfig{Find: w.find(), Dial: d.dial})
		if _, err := lost.Get(t.Context(), 2, peer.Commands); err == nil {
			t.Error("a node without an address is reached")
		}
		lost.Close()
		n.kill()
	})
}

// TestLinksAreDropped proves that links to nodes that are not wanted end with their connections and
// dials, that others stay, that no event tells of it, and that a link which is wanted again is made
// anew.
func TestLinksAreDropped(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		two := newNode(t, w, nil)
		three := newNode(t, w, func(c *config) { c.door.Self = func() credential.Self { return w.self(3) } })
		d := &dials{servers: map[string]*node{"two": two, "three": three}}
		find := func(node int32) (peer.Target, error) {
			target, err := w.find(map[int32]string{2: "two", 3: "three"}[node])(node)
			return target, err
		}
		var told events
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Find: find, Dial: d.dial, Notify: told.add})
		get := func(node int32) *peer.Conn {
			t.Helper()
			c, err := links.Get(t.Context(), node, peer.Quorum)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		stays, goes := get(2), get(3)
		links.Retain(func(node int32) bool { return node == 2 })
		<-goes.Done()
		synctest.Wait()
		if stays.Err() != nil || !errors.Is(goes.Err(), peer.ErrClosed) {
			t.Errorf("%v, %v", stays.Err(), goes.Err())
		}
		if kinds := told.kinds(3); !slices.Equal(kinds, []peer.EventKind{peer.Connected}) {
			t.Error(kinds)
		}
		d.takeTimes()
		time.Sleep(time.Hour)
		if times := d.takeTimes(); len(times) > 0 {
			t.Errorf("%d dials to a node that was dropped", len(times))
		}
		if get(3) == goes || get(2) != stays {
			t.Error("the links are not what they should be")
		}
		d.setRefuse(true)
		links.Retain(func(int32) bool { return false })
		if _, err := links.Get(t.Context(), 3, peer.Quorum); !errors.Is(err, peer.ErrDialRefused) {
			t.Error(err)
		}
		waits := make(chan error, 1)
		go func() {
			_, err := links.Get(t.Context(), 3, peer.Quorum)
			waits <- err
		}()
		synctest.Wait() // the link pauses
		links.Retain(func(int32) bool { return false })
		if err := <-waits; !errors.Is(err, peer.ErrClosed) {
			t.Error(err)
		}
		links.Close()
		two.kill()
		three.kill()
	})
}

// TestLinksOfANodeThatIsNowhere proves that who wants a connection to a node that has no address, and is at none of those of other nodes, gets an error.
func TestLinksOfANodeThatIsNowhere(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, w, nil)
		d := &dials{servers: map[string]*node{"two": n}}
		links := peer.NewLinks(t.Context(), peer.LinksConfig{Dial: d.dial, Find: func(id int32) (peer.Target, error) {
			return peer.Target{Others: []string{"two"}, Dialler: func() *credential.Dialler { return w.dialler(1, id) }}, nil
		}})
		if c, err := links.Get(t.Context(), 3, peer.Commands); c != nil || err == nil {
			t.Errorf("%v, %v", c, err)
		}
		links.Close()
		n.kill()
	})
}
