package wire

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	halfSentMax   = 30 * time.Second // how long the rest of a frame may make no progress
	sweepMax      = 2 * time.Second  // between two sweeps, at most
	sweepsPer     = 8                // sweeps in the shortest time-out
	acceptBackOff = time.Second      // the longest wait after an accept that failed
	lightHolder   = 64 << 10         // bytes of an unfinished request for which nobody is closed
	lingerMax     = 200 * time.Millisecond
	lingerRead    = 10 * time.Millisecond // where the client's system has all answers
)

// Server accepts connections and serves them.
type Server struct {
	cfg      Config
	handler  Handler
	guard    *guard
	memory   *memory
	stats    Stats
	lines    lineLimit
	requests sync.Pool // *Request
	writers  sync.Pool // *writer
	boxes    sync.Pool // *box

	tick     atomic.Uint32 // counts sweeps
	stopping atomic.Bool
	stop     chan struct{} // closed when stopping
	parked   atomic.Int64  // answers outstanding, of connections that have many
	vigil    vigil

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	awake     *Conn // a ring of the connections that do not doze
	dozing    *Conn // and one of those that do
	count     int   // of both
	limits    Limits
	perIP     map[netip.Addr]int // connections by address; nil without a limit
	sweeping  bool
	doze      *dozer         // made for the first idle connection
	sleepless bool           // it cannot be made
	running   sync.WaitGroup // connections, the sweeper and the dozer; added to under mu while not stopping
}

// NewServer makes a server that hands requests to h.
func NewServer(cfg Config, h Handler) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:       cfg,
		handler:   h,
		guard:     newGuard(),
		memory:    newMemory(cfg.RequestMemory, cfg.MaxFrame),
		lines:     lineLimit{log: cfg.Logger},
		stop:      make(chan struct{}),
		listeners: map[net.Listener]struct{}{},
	}
	s.SetLimits(cfg.Limits)
	s.stats.memory = s.memory
	s.requests.New = func() any { return new(Request) }
	s.writers.New = func() any { return &writer{pieces: make([][]byte, 0, 16)} }
	s.boxes.New = func() any { return &box{b: make([]byte, 0, boxSize)} }
	return s
}

// SetLimits bounds the connections that are accepted from now on.
func (s *Server) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
	switch {
	case !l.perIP():
		s.perIP = nil
	case s.perIP == nil: // those that are there were not counted
		s.perIP = map[netip.Addr]int{}
		for c := range s.eachLocked(true) {
			s.perIP[remoteIP(c.nc)]++
		}
	}
}

// Stats returns the server's counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Serve accepts connections until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	pause := 5 * time.Millisecond
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			if c := s.admit(nc); c != nil {
				go s.serveConn(c) // admit counts it in running
			}
		case ended(err):
			return nil
		default:
			if log := s.lines.line(); log != nil {
				log.Warn("accept failed; trying again", "listener", l.Addr(), "error", err)
			}
			if !s.sleep(pause) {
				return nil
			}
			pause = min(2*pause, acceptBackOff)
		}
	}
}

// sleep is false when the server stops.
func (s *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// ServeConn serves one connection; any net.Conn will do. It returns when that has
// ended, or is idle and needs no goroutine.
func (s *Server) ServeConn(nc net.Conn) {
	if c := s.admit(nc); c != nil {
		s.serveConn(c)
	}
}

func (s *Server) serveConn(c *Conn) {
	if err := c.tune(); err != nil {
		if log := s.lines.line(); log != nil {
			log.Warn("the congestion control of a connection cannot be set", "client", c.nc.RemoteAddr(), "error", err)
		}
	}
	s.resume(c)
}

// resume serves a connection until it ends or dozes.
func (s *Server) resume(c *Conn) {
	if c.run() {
		c.sock.forget()
		s.leave(c)
		s.running.Done()
	}
}

// dozer is who waits for idle connections; nil where they wait themselves.
func (s *Server) dozer() *dozer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doze != nil || s.sleepless || s.stopping.Load() {
		return s.doze
	}
	d, err := newDozer(s)
	if err != nil {
		s.sleepless = true // idle connections then take some more memory
		return nil
	}
	s.doze = d
	s.running.Go(d.run)
	return d
}

// admit makes a connection of nc, or closes it and returns nil where a limit is
// reached.
func (s *Server) admit(nc net.Conn) *Conn {
	c := &Conn{srv: s, nc: nc, class: -1, hint: firstClass}
	err := c.attach()
	if err == nil {
		err = s.enter(c)
	}
	if err != nil {
		_ = nc.Close() // it was not served
		if !errors.Is(err, errShutdown) {
			s.stats.Turned.Add(1)
			if log := s.lines.line(); log != nil {
				log.Warn("connection turned away", "client", nc.RemoteAddr(), "reason", err)
			}
		}
		return nil
	}
	s.stats.Accepted.Add(1)
	s.stats.Conns.Add(1)
	return c
}

func (s *Server) enter(c *Conn) error {
	ip := remoteIP(c.nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return errShutdown
	}
	if s.limits.Conns > 0 && s.count >= s.limits.Conns {
		return fmt.Errorf("there are %d connections, as many as max.connections allows", s.count)
	}
	if most, ok := s.limits.forIP(ip); ok && ip.IsValid() && s.perIP[ip] >= most {
		return fmt.Errorf("this address has %d connections, as many as max.connections.per.ip allows", s.perIP[ip])
	}
	if s.perIP != nil {
		s.perIP[ip]++
	}
	c.progress.Store(s.tick.Load())
	link(&s.awake, c)
	s.count++
	s.running.Add(1)
	if !s.sweeping {
		s.sweeping = true
		s.running.Go(s.sweep)
	}
	return nil
}

func (s *Server) leave(c *Conn) {
	ip := remoteIP(c.nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
	s.stats.Conns.Add(-1)
	if s.perIP != nil {
		if s.perIP[ip]--; s.perIP[ip] <= 0 {
			delete(s.perIP, ip)
		}
	}
	unlink(s.ringOf(c), c)
}

// shelve moves a connection to the ring of those that doze, or back.
func (s *Server) shelve(c *Conn, doze bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.shelved != doze {
		unlink(s.ringOf(c), c)
		c.shelved = doze
		link(s.ringOf(c), c)
	}
}

func (s *Server) ringOf(c *Conn) **Conn {
	if c.shelved {
		return &s.dozing
	}
	return &s.awake
}

func link(ring **Conn, c *Conn) {
	if *ring == nil {
		c.prev, c.next = c, c
	} else {
		c.prev, c.next = (*ring).prev, *ring
		c.prev.next, c.next.prev = c, c
	}
	*ring = c
}

func unlink(ring **Conn, c *Conn) {
	if c.next == c {
		*ring = nil
		return
	}
	if *ring == c {
		*ring = c.next
	}
	c.prev.next, c.next.prev = c.next, c.prev
}

// all lists the connections, those that doze only on demand, in the list's memory
// where that suffices.
func (s *Server) all(list []*Conn, dozing bool) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.AppendSeq(list[:0], s.eachLocked(dozing))
}

// eachLocked goes through the connections, those that doze only on demand.
func (s *Server) eachLocked(dozing bool) iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		rings := []*Conn{s.awake, s.dozing}
		if !dozing {
			rings = rings[:1]
		}
		for _, first := range rings {
			for c := first; c != nil; {
				if !yield(c) {
					return
				}
				if c = c.next; c == first {
					break
				}
			}
		}
	}
}

func remoteIP(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Shutdown closes the listeners, lets requests already read be answered until
// ctx ends, then closes the connections and waits for their goroutines.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := s.stopping.CompareAndSwap(false, true)
	listeners := make([]net.Listener, 0, len(s.listeners))
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	d := s.doze
	s.mu.Unlock()
	var err error
	if first {
		close(s.stop)
		for _, l := range listeners {
			if e := l.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
				err = errors.Join(err, e)
			}
		}
	}
	for _, c := range s.all(nil, true) {
		c.interrupt()
	}
	if first && d != nil {
		err = errors.Join(err, d.close())
	}
	done := make(chan struct{})
	go func() { // it ends with the connections, for which Shutdown waits in any case
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
	}
	for _, c := range s.all(nil, true) {
		c.Close(errShutdown)
	}
	<-done
	return errors.Join(err, ctx.Err())
}

// interrupt ends the connection's waiting for requests.
func (c *Conn) interrupt() {
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // of a closed connection: it is not waiting
	c.mu.Lock()
	w := c.waiting
	c.mu.Unlock()
	if w != nil {
		c.srv.memory.cancel(w)
	}
	c.wake()
}
