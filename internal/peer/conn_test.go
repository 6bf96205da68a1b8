package peer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// fakeNode is a node 2 that proves itself and then does what serve says with the connection. It
// returns its address.
func fakeNode(w *world, serve func(c *raw)) string {
	w.tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.tb.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer nc.Close()
				c := &raw{w.tb, nc}
				if err := acceptOn(w, c); err != nil {
					w.tb.Error(err)
					return
				}
				serve(c)
			})
		}
	})
	w.tb.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// acceptOn does a handshake by hand, as the end that was dialled.
func acceptOn(w *world, c *raw) error {
	a := credential.NewAcceptor(w.self(2), w, rand.Reader)
	_, hello, err := c.request()
	if err != nil {
		return err
	}
	challenge, err := a.Challenge(hello)
	if err != nil {
		return err
	}
	c.answer(int32(peer.PeerHello), challenge)
	_, proof, err := c.request()
	if err != nil {
		return err
	}
	p, _, err := a.Verify(proof, time.Now())
	if err != nil {
		return err
	}
	verdict, _, err := a.Accept(w.welcome(p.NodeID))
	if err != nil {
		return err
	}
	c.answer(int32(peer.PeerProve), verdict)
	return nil
}

// request reads one request in the oldest form of header, without a client id.
func (c *raw) request() (id int32, body []byte, err error) {
	id, rest, err := c.receiveRequest()
	if err != nil || len(rest) < 2 {
		return 0, nil, errors.Join(err, errors.New("no request"))
	}
	return id, rest[2:], nil
}

func (c *raw) receiveRequest() (id int32, rest []byte, err error) {
	key, b, err := c.receive() // the key and the version are where an answer has its id
	_ = key
	if err != nil || len(b) < 6 {
		return 0, nil, err
	}
	return int32(binary.BigEndian.Uint32(b)), b[4:], nil
}

// answer sends an answer.
func (c *raw) answer(id int32, body []byte) {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	c.Write(append(binary.BigEndian.AppendUint32(b, uint32(id)), body...))
}

// takeMore takes more of what is there, without waiting for it, up to four.
func takeMore(work <-chan *wire.Request, held []*wire.Request) []*wire.Request {
	for len(held) < 4 {
		select {
		case r, ok := <-work:
			if !ok {
				return held
			}
			held = append(held, r)
		default:
			return held
		}
	}
	return held
}

// TestCallsAreAnsweredInOrder proves that calls of many goroutines get their own answers, whatever
// their sizes, though the other end makes them in any order.
func TestCallsAreAnsweredInOrder(t *testing.T) {
	w := newWorld(t)
	work := make(chan *wire.Request, 1000)
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for r := range work {
				held := takeMore(work, []*wire.Request{r})
				mathrand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
				for _, r := range held {
					reply(r, r.Body())
				}
			}
		})
	}
	n := startNode(t, w, func(c *config) {
		c.door.Handlers = []peer.Handler{{Key: peer.Forward, From: peer.Nodes, Serve: func(_ *peer.Identity, r *wire.Request) error {
			if len(r.Body())%3 == 0 {
				reply(r, r.Body())
				return nil
			}
			r.KeepBody()
			work <- r
			return nil
		}}}
	})
	c := dial(t, n.addr, w.dialler(1, 2))
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			rnd := mathrand.New(mathrand.NewPCG(1, uint64(i)))
			for j := range 100 {
				size := rnd.IntN(600)
				if j%20 == 0 {
					size = rnd.IntN(300_000)
				}
				body := bytes.Repeat([]byte{byte(i), byte(j)}, size)
				got, err := c.Call(t.Context(), peer.Forward, body)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes for %d: %v", len(got), len(body), err)
					return
				}
			}
		})
	}
	callers.Wait()
	close(work)
	workers.Wait()
}

// TestKafkasRequests proves that a request of Kafka's protocol is sent in its version and its answer
// decoded, with tagged fields in the headers and without.
func TestKafkasRequests(t *testing.T) {
	w := newWorld(t)
	n := startNode(t, w, nil)
	c := dial(t, n.addr, w.dialler(1, 2))
	for version := range kmsg.NewPtrMetadataRequest().MaxVersion() + 1 {
		req := kmsg.NewPtrMetadataRequest()
		req.SetVersion(version)
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = new("orders")
		req.Topics = append(req.Topics, topic)
		resp, err := c.Request(t.Context(), req)
		if err != nil {
			t.Fatal(version, err)
		}
		if m := resp.(*kmsg.MetadataResponse); m.Version != version || len(m.Topics) != 1 || *m.Topics[0].Topic != "orders" {
			t.Errorf("version %d: %+v", version, m)
		}
		raw, err := c.RequestInto(t.Context(), req, nil, 1000)
		again := kmsg.NewPtrMetadataResponse()
		again.SetVersion(version)
		if err != nil || again.ReadFrom(raw) != nil || *again.Topics[0].Topic != "orders" {
			t.Errorf("version %d: %x, %v", version, raw, err)
		}
	}
	flexible := kmsg.NewPtrApiVersionsRequest()
	flexible.SetVersion(3)
	flexible.ClientSoftwareName, flexible.ClientSoftwareVersion = "leat", "1"
	if _, err := c.Request(t.Context(), flexible); err != nil {
		t.Error(err)
	}
	unknown := kmsg.NewPtrVoteRequest()
	if _, err := c.Request(t.Context(), unknown); !errors.Is(err, peer.ErrClosedByPeer) {
		t.Errorf("an API that is not served: %v", err)
	}
}

// TestAnswersAreReadIntoTheCallersMemory proves that an answer is read into the memory that the caller
// gives, that more is made if it is larger, and that one above the caller's bound ends the
// connection.
func TestAnswersAreReadIntoTheCallersMemory(t *testing.T) {
	w := newWorld(t)
	n := startNode(t, w, nil)
	c := dial(t, n.addr, w.dialler(1, 2))
	memory := make([]byte, 100_000)
	for _, size := range []int{0, 1, 50_000, len(memory)} {
		body := bytes.Repeat([]byte{7}, size)
		got, err := c.CallInto(t.Context(), peer.MetadataSnapshot, body, memory, 1<<20)
		if err != nil || !bytes.Equal(got, body) || &got[:1][0] != &memory[0] {
			t.Fatalf("%d bytes of %d: %v", len(got), size, err)
		}
	}
	got, err := c.CallInto(t.Context(), peer.MetadataSnapshot, make([]byte, 300_000), memory, 300_000)
	if err != nil || len(got) != 300_000 {
		t.Fatal(len(got), err)
	}
	if _, err := c.CallInto(t.Context(), peer.MetadataSnapshot, make([]byte, 300_001), memory, 300_000); !errors.Is(err, peer.ErrTooLarge) {
		t.Error(err)
	}
	<-c.Done()
	if _, err := c.Call(t.Context(), peer.Forward, nil); !errors.Is(err, peer.ErrTooLarge) {
		t.Errorf("a call on the connection that has ended: %v", err)
	}
	if _, err := dial(t, n.addr, w.dialler(1, 2)).Call(t.Context(), peer.Forward, make([]byte, peer.MaxRequest+1)); !errors.Is(err, peer.ErrTooLarge) {
		t.Errorf("a request that no node accepts: %v", err)
	}
	if _, err := dial(t, n.addr, w.dialler(1, 2)).Call(t.Context(), peer.Forward, make([]byte, peer.MaxRequest)); err != nil {
		t.Errorf("the largest request: %v", err)
	}
}

// TestCallsThatAreGivenUp proves that a call whose context ends returns, and that those behind it get
// their own answers; and that if the answer is being read into the caller's memory, the connection
// ends before the caller gets that back.
func TestCallsThatAreGivenUp(t *testing.T) {
	w := newWorld(t)
	asked, release := make(chan int32, 10), make(chan struct{})
	addr := fakeNode(w, func(c *raw) {
		var ids []int32
		for len(ids) < 3 {
			id, _, err := c.request()
			if err != nil {
				return
			}
			ids = append(ids, id)
			asked <- id
		}
		<-release
		for _, id := range ids[:2] {
			c.answer(id, fmt.Append(nil, "answer ", id))
		}
		c.Write(append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 1004), uint32(ids[2])), make([]byte, 500)...))
		c.awaitClosed()
	})
	c := dial(t, addr, w.dialler(1, 2))
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := c.CallInto(ctx, peer.PullMetadata, nil, make([]byte, 10), 100)
		first <- err
	}()
	<-asked
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	second := make(chan string, 1)
	go func() {
		b, err := c.Call(t.Context(), peer.PullMetadata, nil)
		second <- fmt.Sprint(string(b), err)
	}()
	id := <-asked
	ctx, cancel = context.WithCancel(t.Context())
	third := make(chan error, 1)
	memory := make([]byte, 1000)
	go func() {
		_, err := c.CallInto(ctx, peer.PullMetadata, nil, memory, 1000)
		third <- err
	}()
	<-asked
	close(release)
	if got := <-second; got != fmt.Sprint("answer ", id, "<nil>") {
		t.Errorf("the second call got %s", got)
	}
	eventually(t, "the third answer is being read", func() bool { return c.IsReading() })
	cancel()
	if err := <-third; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, peer.ErrClosed) {
		t.Error(err)
	}
}

// TestMessagesAreDropped proves that a message that is not answered never waits: while the other end
// does not read, messages are dropped beyond a bound and the caller is told; calls wait then; and
// those that were taken arrive, whole and in order, when the other end reads again.
func TestMessagesAreDropped(t *testing.T) {
	w := newWorld(t)
	read, got := make(chan struct{}), make(chan []byte, 10_000)
	addr := fakeNode(w, func(c *raw) {
		<-read
		for {
			id, body, err := c.request()
			if err != nil {
				close(got)
				return
			}
			if len(body) == 0 { // the call
				c.answer(id, nil)
				continue
			}
			got <- body[:4]
		}
	})
	c := dial(t, addr, w.dialler(1, 2))
	const size = 100_000
	var sent []uint32
	dropped := 0
	for i := uint32(0); dropped < 100; i++ {
		body := append(binary.BigEndian.AppendUint32(nil, i), make([]byte, size-4)...)
		switch err := c.Send(peer.QuorumMessages, body); {
		case err == nil:
			sent = append(sent, i)
		case errors.Is(err, peer.ErrQueueFull):
			dropped++
		default:
			t.Fatal(err)
		}
		if i > 10_000 {
			t.Fatal("nothing is dropped")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := c.Call(ctx, peer.Forward, make([]byte, size))
		gaveUp <- err
	}()
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), peer.Forward, nil)
		answered <- err
	}()
	close(read)
	for _, i := range sent {
		if b := <-got; binary.BigEndian.Uint32(b) != i {
			t.Fatalf("message %d came in place of %d", binary.BigEndian.Uint32(b), i)
		}
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	eventually(t, "there is room again", func() bool { return c.Send(peer.DurableEnds, []byte("last")) == nil })
	if b := <-got; string(b) != "last" {
		t.Errorf("got %q", b)
	}
	c.Close()
	if err := c.Send(peer.QuorumMessages, nil); !errors.Is(err, peer.ErrClosed) {
		t.Error(err)
	}
}

// TestManyCallsWaitForTheirTurn proves that calls beyond those that may be outstanding wait until some
// are answered, and that all of them end with the connection.
func TestManyCallsWaitForTheirTurn(t *testing.T) {
	const calls = 3000
	w := newWorld(t)
	hold := make(chan struct{})
	n := startNode(t, w, func(c *config) {
		c.door.Handlers = []peer.Handler{{Key: peer.Forward, From: peer.Nodes, Serve: func(_ *peer.Identity, r *wire.Request) error {
			<-hold
			reply(r, r.Body())
			return nil
		}}}
	})
	c := dial(t, n.addr, w.dialler(1, 2))
	results := make(chan error, calls)
	for i := range calls {
		go func() {
			body := fmt.Append(nil, i)
			got, err := c.Call(t.Context(), peer.Forward, body)
			if err == nil && !bytes.Equal(got, body) {
				err = fmt.Errorf("%s for %s", got, body)
			}
			results <- err
		}()
	}
	close(hold)
	for range calls {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	silent := dial(t, fakeNode(w, func(c *raw) { c.awaitClosed() }), w.dialler(1, 2))
	for range calls {
		go func() {
			_, err := silent.Call(t.Context(), peer.Forward, nil)
			results <- err
		}()
	}
	eventually(t, "calls are outstanding", silent.IsFull)
	silent.Close()
	for range calls {
		if err := <-results; !errors.Is(err, peer.ErrClosed) {
			t.Fatal(err)
		}
	}
}

// TestEndings proves that a connection which the other end has closed, one that this end has closed,
// and a port at which nobody listens are told apart.
func TestEndings(t *testing.T) {
	w := newWorld(t)
	for name, end := range map[string]func(c *raw){
		"it ends":  func(*raw) {},
		"it reset": func(c *raw) { c.Conn.(*net.TCPConn).SetLinger(0) },
		"it ends in an answer": func(c *raw) {
			id, _, _ := c.request()
			c.Write(append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 100), uint32(id)), 1))
		},
	} {
		c := dial(t, fakeNode(w, end), w.dialler(1, 2))
		if _, err := c.Call(t.Context(), peer.Forward, nil); !errors.Is(err, peer.ErrClosedByPeer) {
			t.Errorf("%s: a call gets %v", name, err)
		}
		<-c.Done()
		if err := c.Err(); !errors.Is(err, peer.ErrClosedByPeer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := dial(t, fakeNode(w, func(c *raw) { c.awaitClosed() }), w.dialler(1, 2))
	if c.Err() != nil {
		t.Error(c.Err())
	}
	c.Close()
	c.Close()
	if err := c.Err(); !errors.Is(err, peer.ErrClosed) || errors.Is(err, peer.ErrClosedByPeer) {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	if _, err := peer.Dial(t.Context(), nobody, w.dialler(1, 2), nil); !errors.Is(err, peer.ErrDialRefused) || !strings.Contains(err.Error(), nobody) {
		t.Error(err)
	}
	n := startNode(t, w, func(c *config) { c.wire.MaxConns, c.wire.Peers.Waiting = 1, 0 })
	dialRaw(t, n.addr)
	eventually(t, "the only place is taken", func() bool { return n.server.Stats().Conns.Load() == 1 })
	if _, err := peer.Dial(t.Context(), n.addr, w.dialler(1, 2), nil); !errors.Is(err, peer.ErrHandshake) || errors.Is(err, peer.ErrDialRefused) {
		t.Error(err)
	}
}

// TestADeadEndIsNoticed proves that a connection ends some seconds after its other end has stopped to
// take what is sent.
func TestADeadEndIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the system")
	}
	t.Parallel()
	w := newWorld(t)
	stop := make(chan struct{})
	c := dial(t, fakeNode(w, func(*raw) { <-stop }), w.dialler(1, 2))
	defer close(stop)
	for {
		if err := c.Send(peer.QuorumMessages, make([]byte, 1<<20)); err != nil && !errors.Is(err, peer.ErrQueueFull) {
			break
		}
		select {
		case <-c.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, peer.ErrSilent) {
		t.Error(err)
	}
}

// TestHostileAnswers proves that answers which belong to no call, or cannot be read, end the
// connection with a reason, and that nothing large is made because of a length.
func TestHostileAnswers(t *testing.T) {
	w := newWorld(t)
	head := func(size, id int32, more ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(size))
		return append(binary.BigEndian.AppendUint32(b, uint32(id)), more...)
	}
	for name, answer := range map[string]func(id int32) []byte{
		"another id":         func(id int32) []byte { return head(4, id+1) },
		"no room for an id":  func(id int32) []byte { return head(3, id) },
		"negative":           func(id int32) []byte { return head(-1, id) },
		"large":              func(id int32) []byte { return head(1<<30, id, 0) },
		"tags without end":   func(id int32) []byte { return head(10, id, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) },
		"many tags":          func(id int32) []byte { return head(6, id, 100, 0) },
		"a tag too long":     func(id int32) []byte { return head(8, id, 1, 1, 100, 0) },
		"a header cut short": func(id int32) []byte { return head(4, id) },
		"no response":        func(id int32) []byte { return head(6, id, 0, 1) },
	} {
		c := dial(t, fakeNode(w, func(c *raw) {
			id, _, _ := c.request()
			c.Write(answer(id))
			c.awaitClosed()
		}), w.dialler(1, 2))
		req := kmsg.NewPtrMetadataRequest()
		req.SetVersion(12)
		_, err := c.Request(t.Context(), req)
		if !errors.Is(err, peer.ErrProtocol) && !errors.Is(err, peer.ErrTooLarge) && (name != "tags without end" || err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "no response" {
			<-c.Done()
		}
		c.Close()
	}
	early := dial(t, fakeNode(w, func(c *raw) {
		c.Write(head(4, 0))
		c.awaitClosed()
	}), w.dialler(1, 2))
	<-early.Done()
	if err := early.Err(); !errors.Is(err, peer.ErrProtocol) {
		t.Error(err)
	}
}

// TestHostileAcceptors proves that a dial ends with a reason whatever the other end sends in place of
// the handshake, and reads no more than it must.
func TestHostileAcceptors(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	head := func(size, id int) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(size)), uint32(id))
	}
	for name, c := range map[string]struct {
		sends []byte
		want  error
	}{
		"a challenge of 4 KiB and more": {append(head(credential.MaxMessage-3, int(peer.PeerHello)), make([]byte, 8000)...), peer.ErrTooLarge},
		"another id":                    {head(100, 7), peer.ErrProtocol},
		"HTTP":                          {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), peer.ErrHandshake},
		"garbage":                       {append(head(104, int(peer.PeerHello)), make([]byte, 100)...), credential.ErrMalformed},
		"nothing":                       {nil, peer.ErrHandshake},
	} {
		served := make(chan struct{})
		go func() {
			defer close(served)
			nc, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			r := &raw{t, nc}
			if _, _, err := r.request(); err != nil {
				t.Error(err)
			}
			nc.Write(c.sends)
		}()
		if _, err := peer.Dial(t.Context(), l.Addr().String(), w.dialler(1, 2), nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		<-served
	}
}

// pipes dials nodes without a network, in a bubble of synctest.
func pipes(serve func(far net.Conn)) peer.DialFunc {
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go serve(far)
		return near, nil
	}
}

// TestSilentAcceptors proves that a dial gives up an end that does not prove itself within some
// seconds, one that does not decide within half a minute, and both at once when its context ends.
func TestSilentAcceptors(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(w *world, far net.Conn)
		want  time.Duration
	}{
		"no challenge": {func(_ *world, far net.Conn) { (&raw{nil, far}).request() }, 5 * time.Second},
		"nobody reads": {func(*world, net.Conn) {}, 5 * time.Second},
		"no verdict": {func(w *world, far net.Conn) {
			c := &raw{nil, far}
			a := credential.NewAcceptor(w.self(2), w, rand.Reader)
			_, hello, _ := c.request()
			challenge, _ := a.Challenge(hello)
			c.answer(int32(peer.PeerHello), challenge)
			c.request()
		}, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				dial := pipes(func(far net.Conn) {
					c.serve(w, far)
					(&raw{nil, far}).receive() // until it is closed
				})
				began := time.Now()
				_, err := peer.Dial(t.Context(), "two:9092", w.dialler(1, 2), dial)
				if took := time.Since(began); took != c.want || !errors.Is(err, peer.ErrHandshake) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after %v: %v", took, err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				result := make(chan error, 1)
				go func() {
					_, err := peer.Dial(ctx, "two:9092", w.dialler(1, 2), dial)
					result <- err
				}()
				synctest.Wait()
				cancel()
				if err := <-result; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

// TestAnnouncedAnswersTakeLittle proves that an answer which is announced takes no more memory than has come,
// about, and that a large answer which does come is whole, whatever memory its caller has for it.
func TestAnnouncedAnswersTakeLittle(t *testing.T) {
	w := newWorld(t)
	body := make([]byte, 5<<20+7)
	for i := range body {
		body[i] = byte(i * i >> 8)
	}
	addr := fakeNode(w, func(c *raw) {
		for {
			id, asked, err := c.request()
			switch {
			case err != nil:
				return
			case len(asked) == 0:
				c.answer(id, body)
			default:
				c.Write(append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 1<<30), uint32(id)), make([]byte, 500)...))
			}
		}
	})
	c := dial(t, addr, w.dialler(1, 2))
	for _, into := range [][]byte{nil, make([]byte, 10), make([]byte, 2<<20), make([]byte, 5<<20+7), make([]byte, 6<<20)} {
		if got, err := c.CallInto(t.Context(), peer.PullMetadata, nil, into, len(body)); err != nil || !bytes.Equal(got, body) {
			t.Errorf("into %d bytes: %d bytes, %v", len(into), len(got), err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ended := make(chan error, 1)
	go func() {
		_, err := c.CallInto(t.Context(), peer.PullMetadata, []byte("announce"), nil, 1<<30)
		ended <- err
	}()
	eventually(t, "the answer is being read", func() bool { return c.IsReading() })
	c.Close()
	if err := <-ended; !errors.Is(err, peer.ErrClosed) {
		t.Error(err)
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 16<<20 {
		t.Errorf("%d bytes were taken", after.TotalAlloc-before.TotalAlloc)
	}
}

// TestAnswersThatStop proves that an answer which has begun and does not go on ends the connection, and that
// one which does not begin may be waited for.
func TestAnswersThatStop(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		c, err := peer.Dial(t.Context(), "two:9092", w.dialler(1, 2), pipes(func(far net.Conn) {
			c := &raw{t, far}
			if err := acceptOn(w, c); err != nil {
				t.Error(err)
				return
			}
			for range 2 {
				id, _, err := c.request()
				if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Hour)
				c.answer(id, make([]byte, 1<<20))
			}
			id, _, _ := c.request()
			c.Write(append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 1<<20), uint32(id)), make([]byte, 500)...))
			c.awaitClosed()
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 2 {
			if b, err := c.Call(t.Context(), peer.PullMetadata, nil); len(b) != 1<<20 || err != nil {
				t.Fatal(len(b), err)
			}
		}
		if _, err := c.Call(t.Context(), peer.PullMetadata, nil); !errors.Is(err, peer.ErrSilent) {
			t.Error(err)
		}
	})
}

// TestKeys proves that the keys have names and that those that are not answered are known.
func TestKeys(t *testing.T) {
	if got := []string{peer.NameOf(peer.PeerHello), peer.NameOf(peer.Finalize), peer.NameOf(peer.LastKey), peer.NameOf(3)}; !slices.Equal(got, []string{"PeerHello", "Finalize", "private key 20063", "private key 3"}) {
		t.Error(got)
	}
	for key := peer.FirstKey - 1; key <= peer.LastKey+1; key++ {
		if peer.IsPrivate(key) != (key >= 20000 && key <= 20063) || peer.IsOneWay(key) != (key == peer.QuorumMessages || key == peer.DurableEnds) {
			t.Errorf("%d is told wrongly", key)
		}
	}
}
