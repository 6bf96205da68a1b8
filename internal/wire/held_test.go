package wire

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
)

// TestUnreadAnswersOfAllConnections proves that many connections whose answers cannot be
// sent do not take as much memory as one of them may: when all together take what they may,
// each is not read any further behind little.
func TestUnreadAnswersOfAllConnections(t *testing.T) {
	const conns, requests, size = 60, 120, 10_000
	var served atomic.Int64
	var mu sync.Mutex
	var first []*Request
	s, addr := start(t, Config{RequestMemory: 8 << 20}, &funcs{serve: func(r *Request) error {
		if r.CorrelationID == 0 {
			mu.Lock()
			defer mu.Unlock()
			first = append(first, r)
			return nil
		}
		served.Add(1)
		answerWith(r, size)
		return nil
	}})
	before := heap()
	var clients []*client
	for range conns {
		c := dial(t, addr)
		clients = append(clients, c)
		for i := range int32(requests) {
			c.send(frame(0, 0, i, ""))
		}
	}
	awaitStill(t, &served)
	most := s.shared.maxUnsent + conns*(pressedUnsent+size+unsentStep)
	if n := served.Load() * size; n > most {
		t.Errorf("%d KiB of answers wait, want at most %d", n>>10, most>>10)
	}
	if grown := heap() - before; grown > 2*most {
		t.Errorf("they take %d KiB", grown>>10)
	}
	mu.Lock()
	for _, r := range first {
		answerWith(r, size)
	}
	mu.Unlock()
	for _, c := range clients {
		for i := range int32(requests) {
			id, body := c.receive()
			if id != i {
				t.Fatalf("answer %d came in place of %d", id, i)
			}
			checkAnswer(t, body, id, size)
		}
	}
	eventually(t, "nothing is counted", func() bool { return s.shared.unsent.Load() < conns*unsentStep })
}

// TestLittleUnreadAnswersOfManyConnections proves that connections are not read behind any unsent
// answer when all together take twice what they may, so that very many connections do not take
// much with little each.
func TestLittleUnreadAnswersOfManyConnections(t *testing.T) {
	const conns, requests, size = 400, 40, 1000
	var served atomic.Int64
	var mu sync.Mutex
	var first []*Request
	s, addr := start(t, Config{RequestMemory: 64 << 20}, &funcs{serve: func(r *Request) error {
		if r.CorrelationID == 0 {
			mu.Lock()
			defer mu.Unlock()
			first = append(first, r)
			return nil
		}
		served.Add(1)
		answerWith(r, size)
		return nil
	}})
	s.shared.maxUnsent = 256 << 10 // no connection is there yet
	var clients []*client
	for range conns {
		c := dial(t, addr)
		clients = append(clients, c)
		for i := range int32(requests) {
			c.send(frame(0, 0, i, ""))
		}
	}
	awaitStill(t, &served)
	most := 2*s.shared.maxUnsent + 2*conns*size
	if n := served.Load() * size; n > most {
		t.Errorf("%d KiB of answers wait, want at most %d", n>>10, most>>10)
	}
	mu.Lock()
	for _, r := range first {
		answerWith(r, size)
	}
	mu.Unlock()
	for _, c := range clients {
		for i := range int32(requests) {
			id, body := c.receive()
			if id != i {
				t.Fatalf("answer %d came in place of %d", id, i)
			}
			checkAnswer(t, body, id, size)
		}
	}
	eventually(t, "nothing is counted", func() bool { return s.shared.unsent.Load() == 0 })
}

// TestUnreadAnswersLoseTheirConnections proves that all connections whose answers were not read
// between two sweeps are closed at the second one while others wait for memory, and not one
// whose answer is not ready.
func TestUnreadAnswersLoseTheirConnections(t *testing.T) {
	const size, conns = 100_000, 10
	work := budget.New(budget.Config{Bytes: 32 << 20})
	held := func() int64 { return work.Usage(budget.Data).Used + work.Usage(budget.Unsent).Used }
	holding := make(chan *Request, conns+1)
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		if r.Key == 0 { // what comes behind it cannot be sent
			return nil
		}
		memory, ok := work.TryReserve(budget.Data, size)
		if !ok {
			t.Error("there is no memory")
		}
		p := r.Begin()
		p.B = append(p.B, make([]byte, size-len(p.B))...)
		r.Hold(&memory)
		if r.CorrelationID == 1 {
			r.Send(p)
		}
		holding <- r
		return nil
	}})
	parked := dial(t, addr)
	parked.send(frame(1, 0, 2, ""))
	never := <-holding
	var unread []*client
	for range conns {
		c := dial(t, addr)
		unread = append(unread, c)
		c.send(append(frame(0, 0, 0, ""), frame(1, 0, 1, "")...))
		<-holding
	}
	if d, u := work.Usage(budget.Data).Used, work.Usage(budget.Unsent).Used; d != size || u != conns*size {
		t.Fatalf("%d bytes are held for work and %d for unsent answers", d, u)
	}
	s.held.closeUnread(0)
	s.held.closeUnread(0)
	if n := held(); n != (conns+1)*size {
		t.Fatalf("%d bytes are held: connections were closed though nobody waited", n)
	}
	s.held.closeUnread(1)
	for _, c := range unread {
		c.awaitClosed()
	}
	eventually(t, "their memory is back", func() bool { return held() == size })
	never.Send(&never.resp)
	if _, body := parked.receive(); len(body) != size-8 {
		t.Errorf("the answer that was not ready came with %d bytes", len(body))
	}
	eventually(t, "the memory of what was sent is back", func() bool { return held() == 0 })
}

// TestUnreadAnswerThatMovesIsGivenTime proves that a client which reads an answer slowly keeps its
// connection for some sweeps though others wait, but not for ever.
func TestUnreadAnswerThatMovesIsGivenTime(t *testing.T) {
	c := new(Conn)
	l := new(heldAnswers)
	l.addAnswer(c, new(budget.Reservation)).noteReady()
	for i := range readWithin {
		c.out.progress.Add(1)
		if unread := l.listUnread(1); len(unread) != 0 {
			t.Fatalf("it is closed at sweep %d", i)
		}
	}
	c.out.progress.Add(1)
	if unread := l.listUnread(1); len(unread) != 1 {
		t.Error("it is never closed")
	}
}

// TestUnreadAnswersLeaveRoomForWork proves that answers which a hundred clients do not read take
// none of the memory of work while the class Unsent has room, and that work which waits since
// that is full, too, goes on at the second sweep.
func TestUnreadAnswersLeaveRoomForWork(t *testing.T) {
	const size, conns = 256 << 10, 100
	work := budget.New(budget.Config{})
	var served atomic.Int64
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		if r.Key == 0 {
			return nil
		}
		memory, err := r.Reserve(budget.Data, size)
		if err != nil {
			return err
		}
		p := r.Begin()
		p.B = append(p.B, make([]byte, size-len(p.B))...)
		r.Hold(&memory)
		r.Send(p)
		served.Add(1)
		return nil
	}})
	attack := append(frame(0, 0, 0, ""), frame(1, 0, 1, "")...)
	room := work.Most(budget.Unsent) / size // a quarter is left to answers that have no memory of their own
	var unread []*client
	sendTo := func(n int64) {
		for range n {
			c := dial(t, addr)
			unread = append(unread, c)
			c.send(attack)
		}
	}
	sendTo(room)
	eventually(t, "all answers wait", func() bool { return served.Load() == room })
	if n := work.Usage(budget.Data).Used; n != 0 {
		t.Errorf("they take %d bytes of the memory of work", n)
	}
	sendTo(conns - room)
	eventually(t, "work waits", func() bool { return work.Usage(budget.Data).Waiting > 0 })
	honest := dial(t, addr)
	honest.send(frame(1, 0, 7, ""))
	eventually(t, "the honest client waits", func() bool {
		return work.Usage(budget.Data).Waiting >= conns+1-int(served.Load())
	})
	s.held.closeUnread(1)
	s.held.closeUnread(1)
	if id, body := honest.receive(); id != 7 || len(body) != size-8 {
		t.Errorf("answer %d of %d bytes", id, len(body))
	}
	for _, c := range append(unread, honest) {
		_ = c.Close()
	}
	eventually(t, "all are gone", func() bool { return s.Stats().Conns.Load() == 0 })
}

// TestRepeatedLargeReply proves that large answers to small requests, built without reserved
// memory, are kept only as far as there is memory for unsent answers: the connections of the
// others are closed.
func TestRepeatedLargeReply(t *testing.T) {
	const size, conns = 12 << 20, 20
	work := budget.New(budget.Config{})
	assigned := make([]byte, size)
	var served atomic.Int64
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		if r.Key == 0 {
			return nil
		}
		resp := kmsg.NewPtrSyncGroupResponse()
		resp.MemberAssignment = assigned
		r.Reply(resp)
		served.Add(1)
		return nil
	}})
	before := heap()
	for range conns {
		dial(t, addr).send(append(frame(0, 0, 0, ""), frame(14, 0, 1, "")...))
	}
	eventually(t, "all were served", func() bool { return served.Load() == conns })
	eventually(t, "those for which there is no memory are closed", func() bool { return s.Stats().Conns.Load() == 1 })
	if grown := heap() - before; grown > 2*size {
		t.Errorf("%d MiB of answers wait", grown>>20)
	}
	if n := work.Usage(budget.Unsent).Used; n != work.Most(budget.Unsent) {
		t.Errorf("%d bytes are held", n)
	}
	s.held.closeUnread(1)
	s.held.closeUnread(1)
	eventually(t, "the last one is closed, too", func() bool { return work.Usage(budget.Unsent).Used == 0 })
}

// TestLargeReplyHoldsItsMemory proves that a request takes more work memory than its
// structures while it is served, that a large answer holds as much of that as it needs until
// it was sent, and a small one nothing.
func TestLargeReplyHoldsItsMemory(t *testing.T) {
	const size = 100_000
	work := budget.New(budget.Config{Bytes: 32 << 20})
	served := make(chan int64, 2)
	_, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		if r.Key == 0 {
			return nil
		}
		if _, err := r.Decode(); err != nil {
			return err
		}
		while := work.Usage(budget.Command).Used
		n := 100
		if r.CorrelationID == 2 {
			n = size
		}
		answerWith(r, n)
		served <- while
		return nil
	}})
	body := string(append([]byte{0, 0, 0x40, 0}, make([]byte, 2*0x4000)...)) // 16,384 topics without a name
	c := dial(t, addr)
	c.send(append(frame(0, 0, 0, ""), frame(3, 1, 1, body)...)) // behind one that is parked
	if while := <-served; while < 16384*24*workGrowth {
		t.Errorf("%d bytes while it is served", while)
	}
	eventually(t, "a small answer holds nothing", func() bool { return work.Usage(budget.Command).Used == 0 })
	c.send(frame(3, 1, 2, body))
	<-served
	eventually(t, "a large one holds its size", func() bool {
		n := work.Usage(budget.Unsent).Used
		return work.Usage(budget.Command).Used == 0 && n >= size && n < 2*size
	})
	_ = c.Close()
	eventually(t, "it is given back", func() bool { return work.Usage(budget.Unsent).Used == 0 })
}

// largeAnswer is an answer to a JoinGroup that tells when it is encoded.
type largeAnswer struct {
	kmsg.JoinGroupResponse

	encoded func(room int)
}

// AppendTo notes how much room there is for the answer.
func (a *largeAnswer) AppendTo(b []byte) []byte {
	a.encoded(cap(b) - len(b))
	return a.JoinGroupResponse.AppendTo(b)
}

// TestLargeAnswersHaveMemoryBefore proves that a large answer that was made without reserved memory
// is encoded only if there is memory to keep it, in a buffer that does not grow, and that a small one
// is sent in its place otherwise.
func TestLargeAnswersHaveMemoryBefore(t *testing.T) {
	const size = 100 << 10
	work := budget.New(budget.Config{})
	var encoded atomic.Int64
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		resp := &largeAnswer{encoded: func(room int) {
			encoded.Add(1)
			if room < size {
				t.Errorf("there is room for %d bytes of %d", room, size)
			}
			if used := work.Usage(budget.Unsent).Used; used < size {
				t.Errorf("it is encoded with %d bytes", used)
			}
		}}
		resp.Members = []kmsg.JoinGroupResponseMember{{ProtocolMetadata: make([]byte, size)}}
		r.ReplyOr(resp, kmsg.NewPtrJoinGroupResponse(), size+100)
		return nil
	}})
	c := dial(t, addr)
	var taken []budget.Reservation
	for ok := true; ok; {
		var r budget.Reservation
		r, ok = work.TryReserve(budget.Unsent, 64<<10)
		taken = append(taken, r)
	}
	c.send(frame(11, 3, 1, ""))
	if id, body := c.receive(); id != 1 || len(body) > 100 || encoded.Load() != 0 {
		t.Errorf("answer %d has %d bytes, and %d were encoded", id, len(body), encoded.Load())
	}
	for i := range taken {
		taken[i].Release()
	}
	s.held.closeUnread(0) // the note that Unsent was full is forgotten
	c.send(frame(11, 3, 2, ""))
	if id, body := c.receive(); id != 2 || len(body) < size || encoded.Load() != 1 {
		t.Errorf("answer %d has %d bytes, and %d were encoded", id, len(body), encoded.Load())
	}
	eventually(t, "the memory is given back", func() bool { return work.Usage(budget.Unsent).Used == 0 })
	c.Close()
}
