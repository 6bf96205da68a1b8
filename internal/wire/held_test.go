package wire

import (
	"sync"
	"sync/atomic"
	"testing"

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

// TestUnreadAnswerLosesItsConnection proves that an answer holds work memory until it was sent, that
// the client which has not read its answer for longest loses its connection when others wait
// for memory, and not one whose answer is not ready.
func TestUnreadAnswerLosesItsConnection(t *testing.T) {
	const size = 100_000
	work := budget.New(budget.Config{Bytes: 32 << 20})
	holding := make(chan *Request, 3)
	s, addr := start(t, Config{Work: work}, &funcs{serve: func(r *Request) error {
		if r.Key == 0 { // what comes behind it cannot be sent
			return nil
		}
		held, ok := work.TryReserve(budget.Data, size)
		if !ok {
			t.Error("there is no memory")
		}
		p := r.Begin()
		p.B = append(p.B, make([]byte, size)...)
		r.Hold(&held)
		if r.CorrelationID == 1 {
			r.Send(p)
		}
		holding <- r
		return nil
	}})
	parked, unread, later := dial(t, addr), dial(t, addr), dial(t, addr)
	parked.send(frame(1, 0, 2, ""))
	never := <-holding
	for _, c := range []*client{unread, later} {
		c.send(append(frame(0, 0, 0, ""), frame(1, 0, 1, "")...))
		<-holding
	}
	if u := work.Usage(budget.Data); u.Used != 3*size {
		t.Fatalf("%+v", u)
	}
	for range unreadFor - 1 {
		s.held.closeOldestUnread(1)
	}
	s.held.closeOldestUnread(0) // nobody waited any more: it begins anew
	for range unreadFor - 1 {
		s.held.closeOldestUnread(1)
	}
	if u := work.Usage(budget.Data); u.Used != 3*size {
		t.Fatalf("%+v: too early", u)
	}
	s.held.closeOldestUnread(1)
	unread.awaitClosed()
	eventually(t, "its memory is back", func() bool { return work.Usage(budget.Data).Used == 2*size })
	never.Send(&never.resp)
	if _, body := parked.receive(); len(body) != size {
		t.Errorf("the answer that was not ready came with %d bytes", len(body))
	}
	eventually(t, "the memory of what was sent is back", func() bool { return work.Usage(budget.Data).Used == size })
	_ = later.Close()
	eventually(t, "the memory of who is gone is back", func() bool { return work.Usage(budget.Data).Used == 0 })
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
		n := work.Usage(budget.Command).Used
		return n >= size && n < 2*size
	})
	_ = c.Close()
	eventually(t, "it is given back", func() bool { return work.Usage(budget.Command).Used == 0 })
}
