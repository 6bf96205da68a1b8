package wire

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// openPipe connects a client to a server without a network: in a bubble of synctest.
func openPipe(t *testing.T, s *Server) *client {
	t.Helper()
	near, far := net.Pipe()
	go s.ServeConn(far, new(Listener))
	return &client{t, near}
}

// TestTrickle proves that connections which hold all memory for requests, since each
// has sent a part of one and sends the rest a byte at a time, starve nobody: a client
// with a small request is served, one that sends a request of the same size at an
// honest pace is not the one that is closed, and neither is a client that waits.
func TestTrickle(t *testing.T) {
	for name, trickle := range map[string]int{"a byte now and then": 1, "nothing": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const memory = 8 << 20
				var log logLines
				s := NewServer(Config{MaxFrame: 1 << 20, RequestMemory: memory, IdleTimeout: 10 * time.Minute, Logger: log.logger()}, &funcs{serve: echo})
				var senders sync.WaitGroup
				for range memory / (64 << 10) {
					c := openPipe(t, s)
					c.send(announce(60_000, make([]byte, 33_000)...))
					senders.Go(func() {
						for {
							time.Sleep(time.Second)
							if _, err := c.Write(make([]byte, trickle)); err != nil {
								return
							}
						}
					})
				}
				synctest.Wait()
				if used := s.Stats().RequestMemory(); used != memory {
					t.Fatalf("%d bytes are used, of %d: the test lost its sense", used, memory)
				}
				began := time.Now()
				honest := openPipe(t, s)
				senders.Go(func() { // 60 KB at 10 KB a second
					all := frame(0, 0, 7, strings.Repeat("h", 60_000))
					for len(all) > 0 {
						n := min(len(all), 10_000)
						honest.send(all[:n])
						all = all[n:]
						time.Sleep(time.Second)
					}
				})
				for id := range int32(20) {
					c := openPipe(t, s)
					c.send(frame(0, 0, id, "small"))
					if _, body := c.receive(); body != "small" {
						t.Errorf("got %q", body)
					}
					c.Close()
				}
				if d := time.Since(began); d > 10*time.Second {
					t.Errorf("20 small requests took %v", d)
				}
				if _, body := honest.receive(); len(body) != 60_000 {
					t.Errorf("got %d bytes", len(body))
				}
				if d := time.Since(began); d > 20*time.Second {
					t.Errorf("an honest request took %v", d)
				}
				if !strings.Contains(log.String(), "memory for requests is exhausted") || strings.Contains(log.String(), "idle") {
					t.Errorf("the log says %s", log.String())
				}
				honest.Close()
				shutdown(t, s)
				senders.Wait()
			})
		})
	}
}

// TestWaitingIsNotIdle proves that a connection which waits for memory is not closed
// as idle, however long it waits, and is served when there is memory again.
func TestWaitingIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := NewServer(Config{MaxFrame: 1 << 18, RequestMemory: 1 << 20, IdleTimeout: time.Minute}, &funcs{serve: func(r *Request) error {
			if r.Key == 1 {
				<-hold
			}
			return echo(r)
		}})
		for range 16 { // all buffers are in use by handlers that take long
			openPipe(t, s).send(frame(1, 0, 1, ""))
		}
		synctest.Wait()
		waits := openPipe(t, s)
		waits.send(frame(0, 0, 2, "waits"))
		time.Sleep(time.Hour)
		close(hold)
		if _, body := waits.receive(); body != "waits" {
			t.Errorf("got %q", body)
		}
		waits.Close()
		shutdown(t, s)
	})
}

// TestServingIsNotIdle proves that the time which a handler takes does not count as the
// client's, when no answer says that there was progress.
func TestServingIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{IdleTimeout: time.Minute}, &funcs{serve: func(r *Request) error {
			if r.Key == 1 {
				time.Sleep(time.Hour)
				r.NoReply()
				return nil
			}
			return echo(r)
		}})
		c := openPipe(t, s)
		c.send(frame(1, 0, 1, ""))
		time.Sleep(time.Hour + 30*time.Second)
		c.send(frame(0, 0, 2, "still here"))
		if _, body := c.receive(); body != "still here" {
			t.Errorf("got %q", body)
		}
		c.Close()
		shutdown(t, s)
	})
}

// TestUnreadAnswersHoldNoRequestMemory proves that clients which send many requests and read no answer do
// not keep the memory for requests from others.
func TestUnreadAnswersHoldNoRequestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 2 << 20
		s := NewServer(Config{MaxFrame: 1 << 18, RequestMemory: memory, IdleTimeout: 10 * time.Minute}, &funcs{serve: func(r *Request) error {
			answerWith(r, 40_000)
			return nil
		}})
		for range memory / (64 << 10) {
			c := openPipe(t, s)
			go func() {
				for {
					if _, err := c.Write(frame(0, 0, 1, strings.Repeat("u", 30_000))); err != nil {
						return
					}
				}
			}()
		}
		synctest.Wait()
		for id := range int32(5) {
			c := openPipe(t, s)
			c.send(frame(0, 0, id, "small"))
			if got, body := c.receive(); got != id || len(body) != 40_004 {
				t.Errorf("answer %d has %d bytes", got, len(body))
			}
			c.Close()
		}
		shutdown(t, s)
	})
}

// TestBlockedConnectionsKeepNoBuffer proves that connections which are not read any further, since
// their clients read no answers, keep no memory for requests if all of their requests were served:
// a thousand small requests would otherwise keep everybody out.
func TestBlockedConnectionsKeepNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 2 << 20
		s := NewServer(Config{MaxFrame: 1 << 18, RequestMemory: memory, IdleTimeout: 10 * time.Minute}, &funcs{serve: func(r *Request) error {
			answerWith(r, 70_000)
			return nil
		}})
		for range 2 * memory / (64 << 10) {
			openPipe(t, s).send(frame(0, 0, 1, "unread"))
		}
		synctest.Wait()
		if n := s.Stats().RequestMemory(); n > 0 {
			t.Errorf("%d of %d bytes are held", n, memory)
		}
		begin := time.Now()
		c := openPipe(t, s)
		c.send(frame(0, 0, 2, "read"))
		if got, body := c.receive(); got != 2 || len(body) != 70_004 || !time.Now().Equal(begin) {
			t.Errorf("answer %d has %d bytes, and came after %v", got, len(body), time.Since(begin))
		}
		shutdown(t, s)
	})
}

// TestQueuedRequestsKeepNoBuffer proves that requests which wait for work memory keep only their own
// bodies, so that many small ones leave the memory for requests to others, and that they are served
// in the end, with their bodies and with the requests behind them.
func TestQueuedRequestsKeepNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 2 << 20
		work := budget.New(budget.Config{})
		all, _ := work.TryReserve(budget.Data, work.Most(budget.Data))
		s := NewServer(Config{MaxFrame: 1 << 18, RequestMemory: memory, IdleTimeout: 10 * time.Minute, Work: work}, &funcs{serve: func(r *Request) error {
			if r.Key == 0 {
				return echo(r)
			}
			held, err := r.Reserve(budget.Data, work.Most(budget.Data))
			defer held.Release()
			if err != nil {
				return err
			}
			return echo(r)
		}})
		var queued []*client
		for range memory / (64 << 10) {
			c := openPipe(t, s)
			c.send(append(append(frame(0, 0, 1, "before"), frame(1, 0, 2, "queued")...), frame(0, 0, 3, "after")...))
			if id, body := c.receive(); id != 1 || body != "before" {
				t.Fatalf("answer %d is %q", id, body)
			}
			queued = append(queued, c)
		}
		synctest.Wait()
		if n := s.Stats().RequestMemory(); n > memory/16 {
			t.Errorf("%d of %d bytes are held", n, memory)
		}
		expectServedWithin(t, s, 0)
		all.Release()
		for _, c := range queued {
			for _, want := range []string{"queued", "after"} {
				if _, body := c.receive(); body != want {
					t.Errorf("got %q, want %q", body, want)
				}
			}
			c.Close()
		}
		shutdown(t, s)
	})
}

// TestQueuedRequestsWithLargeBodies proves that requests which wait for work memory do not keep
// everybody out with their bodies: some of them are closed when nothing else gives memory back.
func TestQueuedRequestsWithLargeBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 2 << 20
		var log logLines
		work := budget.New(budget.Config{})
		all, _ := work.TryReserve(budget.Data, work.Most(budget.Data))
		s := NewServer(Config{MaxFrame: 1 << 18, RequestMemory: memory, IdleTimeout: 10 * time.Minute, Work: work, Logger: log.logger()}, &funcs{serve: func(r *Request) error {
			if r.Key == 0 {
				return echo(r)
			}
			_, err := r.Reserve(budget.Data, work.Most(budget.Data))
			return err
		}})
		for range memory / (64 << 10) {
			c := openPipe(t, s)
			go func() { _, _ = c.Write(frame(1, 0, 1, strings.Repeat("q", 33_000))) }()
		}
		synctest.Wait()
		if used := s.Stats().RequestMemory(); used != memory {
			t.Fatalf("%d bytes are used, of %d: the test lost its sense", used, memory)
		}
		expectServedWithin(t, s, 10*time.Second)
		synctest.Wait() // its memory is given back before the log is written
		if !strings.Contains(log.String(), errQueued.Error()) {
			t.Errorf("the log says %s", log.String())
		}
		shutdown(t, s)
		all.Release()
	})
}

// TestDecodedRequestsKeepNoBuffer proves that requests whose bodies the session has given up keep
// no memory for requests while they are served, whatever they wait for.
func TestDecodedRequestsKeepNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 2 << 20
		hold := make(chan struct{})
		s := NewServer(Config{MaxFrame: 1 << 18, RequestMemory: memory, IdleTimeout: 10 * time.Minute}, &funcs{serve: func(r *Request) error {
			if r.Key == 0 {
				return echo(r)
			}
			r.Conn.GiveUpBodies()
			<-hold
			answerWith(r, 4)
			return nil
		}})
		var waiting []*client
		for range memory / (64 << 10) {
			c := openPipe(t, s)
			c.send(append(frame(1, 0, 2, "waits"), frame(0, 0, 3, "after")...))
			waiting = append(waiting, c)
		}
		synctest.Wait()
		if n := s.Stats().RequestMemory(); n > memory/16 {
			t.Errorf("%d of %d bytes are held", n, memory)
		}
		expectServedWithin(t, s, 0)
		close(hold)
		for _, c := range waiting {
			if id, _ := c.receive(); id != 2 {
				t.Errorf("answer %d comes first", id)
			}
			if id, body := c.receive(); id != 3 || body != "after" {
				t.Errorf("answer %d is %q", id, body)
			}
			c.Close()
		}
		shutdown(t, s)
	})
}

// expectServedWithin has a new client send a small request, which must be answered in time.
func expectServedWithin(t *testing.T, s *Server, most time.Duration) {
	t.Helper()
	began := time.Now()
	c := openPipe(t, s)
	defer c.Close()
	_ = c.SetDeadline(began.Add(most + time.Minute)) // a pipe has deadlines
	go func() { _, _ = c.Write(frame(0, 0, 9, "small")) }()
	_, err := c.Read(make([]byte, 4))
	if d := time.Since(began); err != nil || d > most {
		t.Errorf("a small request took %v: %v", d, err)
	}
}

// TestChooseVictims proves which connections are closed when memory for requests is short: the
// slowest, no more than needed, and none that makes progress unless all wait for each other.
func TestChooseVictims(t *testing.T) {
	const slow = 15
	byAge := map[uint32]string{10: "trickles", 11: "trickles more", 12: "stalled", 3: "quick", 4: "queued", 2: "queued later", 1: "new"}
	trickles := holder{bytes: 64, age: 10, pace: 500}
	more := holder{bytes: 64, age: 11, pace: 700}
	stalled := holder{bytes: 64, age: 12, pace: never + 12}
	quick := holder{bytes: 64, age: 3, pace: 5}
	queued := holder{bytes: 512, age: 4, pace: never, queued: true}
	later := holder{bytes: 256, age: 2, pace: never, queued: true}
	fresh := holder{bytes: 64, age: 1, pace: never}
	f := func(want string, need int64, stuck bool, holders ...holder) {
		t.Helper()
		var got []string
		for _, h := range chooseVictims(holders, need, slow, stuck) {
			got = append(got, byAge[h.age])
		}
		if list := strings.Join(got, ", "); list != want {
			t.Errorf("%q, want %q", list, want)
		}
	}
	f("stalled", 64, false, quick, trickles, stalled, queued)
	f("stalled, trickles more", 65, false, quick, more, trickles, stalled, queued)
	f("stalled, trickles more, trickles", 1<<20, true, quick, trickles, stalled, queued, more)
	f("", 1<<20, false, quick, queued, fresh)
	f("quick", 64, true, quick, queued)
	f("queued later", 1<<20, true, queued, later)
	f("queued later", 0, true, queued, later)
	f("", 64, true)
}

// TestSlowHoldersAreClosedEarly proves that connections which hold more than three quarters of the memory
// for requests, and are slow, are closed before any connection has to wait.
func TestSlowHoldersAreClosedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 4 << 20
		s := NewServer(Config{MaxFrame: 1 << 20, RequestMemory: memory, IdleTimeout: 10 * time.Minute}, &funcs{serve: echo})
		for range memory/(64<<10) - 1 {
			openPipe(t, s).send(announce(60_000, make([]byte, 33_000)...))
		}
		time.Sleep(3 * sweepMax)
		if used := s.Stats().RequestMemory(); used != bulkShare(memory) {
			t.Errorf("%d bytes are used, want %d", used, bulkShare(memory))
		}
		shutdown(t, s)
	})
}

// shutdown ends a server that has connections which would not end by themselves.
func shutdown(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Shutdown(ctx) // it has closed what was left
}
