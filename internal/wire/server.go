package wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

const (
	acceptPause   = 5 * time.Millisecond // the pause after a failed accept; it doubles each time
	acceptBackOff = time.Second          // the longest such pause
)

// Server accepts connections and serves them.
type Server struct {
	cfg        Config
	handler    Handler
	guard      *guard
	buffers    *bufferPool
	reserve    *bufferPool // for small receive buffers of peers only
	shared     outputShared
	held       heldAnswers
	records    sync.Pool // buffers for encrypted bytes: see tlsSocket
	handshakes *handshakes
	stats      Stats
	lines      *lineLimit

	// scarcity is for lines about connections for which there is no file descriptor, or no memory.
	// They are few, since that goes on until the limit is raised.
	scarcity *lineLimit
	conns    registry

	muted     *mutedList
	peerFrame int           // bytes of a peer's largest request
	sweeps    atomic.Uint32 // the number of sweeps so far
	stopping  chan struct{} // closed by Shutdown

	mu        sync.Mutex // guards the fields below
	listeners map[net.Listener]struct{}
	stopped   bool           // stopping is closed
	sweeping  bool           // the sweeper runs
	poller    *idlePoller    // made for the first idle connection
	noPoller  bool           // it cannot be made
	running   sync.WaitGroup // connections, the sweeper and the poller; added to under mu while not stopped
}

// NewServer makes a server that hands requests to h.
func NewServer(cfg Config, h Handler) *Server {
	cfg = cfg.withDefaults()
	peerFrame := max(cfg.MaxFrame, min(LargestPeerFrame, largestFrame(cfg.RequestMemory)))
	s := &Server{
		cfg:        cfg,
		handler:    h,
		guard:      newGuard(),
		handshakes: newHandshakes(cfg.RequestMemory),
		buffers:    newBufferPool(cfg.RequestMemory, peerFrame),
		reserve:    newBufferPool(cfg.Peers.Memory, peerFrame), // its classes have the same sizes
		peerFrame:  peerFrame,
		muted:      newMutedList(),
		lines:      newLineLimit(cfg.Logger, logBurst, time.Second),
		scarcity:   newLineLimit(cfg.Logger, 1, scarcityPause),
		stopping:   make(chan struct{}),
		listeners:  map[net.Listener]struct{}{},
	}
	s.conns.setLimits(cfg.Limits)
	// Without its lock: no other goroutine has the server yet.
	s.conns.most, s.conns.memory, s.conns.mostPeers, s.conns.mostWaiting = cfg.MaxConns, cfg.MemoryConns, cfg.Peers.Conns, cfg.Peers.Waiting
	s.stats.buffers, s.stats.reserve, s.stats.muted = s.buffers, s.reserve, s.muted
	s.shared.buffers, s.shared.sent, s.shared.maxParked = s.buffers, &s.stats.BytesOut, cfg.MaxParked
	s.shared.maxUnsent = cfg.RequestMemory / unsentShare
	return s
}

// SetLimits bounds the connections that are accepted from now on.
func (s *Server) SetLimits(l Limits) { s.conns.setLimits(l) }

// MaxConns is the number of connections that there may be now; 0: it is not bounded.
func (s *Server) MaxConns() int { return s.conns.maxConns() }

// Stats returns the server's counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Serve accepts connections until the listener is closed.
func (s *Server) Serve(l *Listener) error {
	if !s.addListener(l) {
		return l.Close()
	}
	defer s.removeListener(l)
	pause := acceptPause
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = acceptPause
			if c := s.admitConn(nc, l); c != nil {
				go s.serveNew(c) // admitConn counts it in running
			}
		case isClosed(err):
			return nil
		default:
			if log := s.lines.nextLine(); log != nil {
				log.Warn("accept failed; trying again", "listener", l.Addr().String(), "err", err)
			}
			if !s.sleepUnlessStopped(pause) {
				return nil
			}
			pause = min(2*pause, acceptBackOff)
		}
	}
}

// addListener returns false if the server stops.
func (s *Server) addListener(l *Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.listeners[l.Listener] = struct{}{}
	return true
}

func (s *Server) removeListener(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l.Listener)
}

// decodeLimit is how many bytes of memory one decoded request may take.
func (s *Server) decodeLimit() int {
	return int(min(int64(s.cfg.DecodeBudget), s.cfg.Work.Most(budget.Command)))
}

// sleepUnlessStopped returns false when the server stops.
func (s *Server) sleepUnlessStopped(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stopping:
		return false
	}
}

// isStopping tells whether Shutdown was called.
func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// ServeConn serves one connection, which may be any net.Conn, by the rules of a listener. It
// returns when the connection has ended, or is suspended and needs no goroutine.
func (s *Server) ServeConn(nc net.Conn, l *Listener) {
	if c := s.admitConn(nc, l); c != nil {
		s.serveNew(c)
	}
}

func (s *Server) serveNew(c *Conn) {
	name := s.cfg.Congestion
	if isLocal(c.nc) {
		name = s.cfg.LocalCongestion
	}
	if err := setCongestion(c.nc, name); err != nil {
		if log := s.lines.nextLine(); log != nil {
			log.Warn("the congestion control of a connection cannot be set", "client", c.nc.RemoteAddr().String(), "err", err)
		}
	}
	s.serveConn(c)
}

// serveConn serves a connection until it ends or is suspended.
func (s *Server) serveConn(c *Conn) {
	if !c.serveRequests() {
		return
	}
	s.mu.Lock()
	p := s.poller
	s.mu.Unlock()
	if p != nil {
		p.removeSocket(c.sock)
	}
	class := s.conns.removeConn(c)
	s.stats.countClass(class, -1)
	if class == classWaiting {
		s.stats.TurnedAway.Add(1)
	}
	s.running.Done()
}

// idlePoller returns the poller of suspended connections. It is nil if there can be none; then
// idle connections keep their goroutines.
func (s *Server) idlePoller() *idlePoller {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poller != nil || s.noPoller || s.stopped {
		return s.poller
	}
	p, err := newIdlePoller()
	if err != nil {
		s.noPoller = true // idle connections then take some more memory
		return nil
	}
	s.poller = p
	s.running.Go(p.wakeReady)
	return p
}

// admitConn makes a connection of nc. If a limit is reached and there is no waiting room, it closes
// nc and returns nil.
func (s *Server) admitConn(nc net.Conn, l *Listener) *Conn {
	c, err := newConn(s, l, nc)
	if err == nil {
		err = s.registerConn(c)
	}
	if err != nil {
		_ = nc.Close() // nothing was written to it
		if !errors.Is(err, errShutdown) {
			s.stats.TurnedAway.Add(1)
			s.reportTurnedAway(nc, err)
		}
		return nil
	}
	return c
}

// reportTurnedAway logs that a limit has refused a connection.
func (s *Server) reportTurnedAway(nc net.Conn, limit error) {
	lines := s.lines
	if errors.Is(limit, errNoDescriptors) || errors.Is(limit, errNoConnMemory) {
		lines = s.scarcity
	}
	if log := lines.nextLine(); log != nil {
		log.Warn("connection refused", "client", nc.RemoteAddr().String(), "reason", limit)
	}
}

// registerConn registers a connection, and starts the sweeper with the first one.
func (s *Server) registerConn(c *Conn) error {
	c.activity.last.Store(s.sweeps.Load())
	if err := s.startWork(); err != nil {
		return err
	}
	evicted, err := s.conns.addConn(c)
	if evicted != nil {
		s.stats.countClass(classClient, -1)
		s.stats.TurnedAway.Add(1)
		evicted.Close(&turnedAwayError{fmt.Errorf("%w; %w", errNewcomer, err)})
		err = nil
	}
	if err == nil {
		s.stats.Accepted.Add(1)
		s.stats.countClass(classClient, 1)
		s.delayConn(c)
		return nil
	}
	if err = s.beginWaiting(c, err); err != nil {
		s.running.Done()
	}
	return err
}

// delayConn mutes a new connection of a client if it comes too soon after others.
func (s *Server) delayConn(c *Conn) {
	ip := remoteIP(c.nc)
	if s.cfg.Admit == nil || s.cfg.Peers.IsMember != nil && s.cfg.Peers.IsMember(ip) {
		return
	}
	a := s.cfg.Admit(c.listener.Name, ip)
	c.Mute(a.Wait)
	if a.Refuse != nil {
		c.refusal = &turnedAwayError{a.Refuse}
		s.stats.TurnedAway.Add(1)
	}
}

// startWork counts a connection in running.
func (s *Server) startWork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errShutdown
	}
	s.running.Add(1)
	if !s.sweeping {
		s.sweeping = true
		s.running.Go(s.runSweeper)
	}
	return nil
}

// Shutdown closes the listeners, lets requests that were read be answered until ctx ends, then
// closes the connections and waits for their goroutines.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stopAccepting()
	for _, c := range s.conns.listConns(nil, true) {
		c.stopReading()
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
	for _, c := range s.conns.listConns(nil, true) {
		c.Close(errShutdown)
	}
	<-done
	return errors.Join(err, ctx.Err())
}

// stopAccepting ends listening, accepting and suspending.
func (s *Server) stopAccepting() (err error) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return nil
	}
	s.stopped = true
	close(s.stopping)
	listeners := slices.Collect(maps.Keys(s.listeners))
	p := s.poller
	s.mu.Unlock()
	for _, l := range listeners {
		if e := l.Close(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	if p != nil {
		err = errors.Join(err, p.close())
	}
	s.muted.stop()
	return err
}
