package peer

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/wire"
)

// sessionState is how far a Session is. The package doc draws the changes.
type sessionState uint8

const (
	sessionNew        sessionState = iota
	sessionChallenged              // the challenge was sent
	sessionDeciding                // the peer is proven; it is admitted once there is an identity
	sessionFailed                  // for good
)

// Session is the peers' side of a connection that was accepted.
type Session struct {
	door     *Door
	conn     *wire.Conn
	state    sessionState             // belongs to the connection's goroutine
	acceptor *credential.Acceptor     // belongs to the connection's goroutine, and to that of decide from sessionDeciding on
	deciding sync.WaitGroup           // the goroutine of decide
	identity atomic.Pointer[Identity] // set once, before the verdict that says so is sent
}

// Open begins the session of a connection.
func (d *Door) Open(c *wire.Conn) *Session { return &Session{door: d, conn: c} }

// Identity is who the other end has proven to be. It is the zero Identity for a session that is nil,
// before the verdict, and after a refusal.
func (s *Session) Identity() Identity {
	if s != nil {
		if id := s.identity.Load(); id != nil {
			return *id
		}
	}
	return Identity{}
}

// Close ends the session of a connection that is closed. It waits for Admit, whose context has ended.
func (s *Session) Close() {
	s.deciding.Wait()
	s.door.forgetSession(s)
}

// Serve serves a request with a private key. An error ends the connection, when the answers before it
// are sent.
func (s *Session) Serve(r *wire.Request) error {
	key := r.Key // an answered request belongs to others
	if err := s.serveKey(key, r); err != nil {
		return fmt.Errorf("%s: %w", NameOf(key), err)
	}
	return nil
}

func (s *Session) serveKey(key int16, r *wire.Request) error {
	switch key {
	case PeerHello:
		return s.challenge(r)
	case PeerProve:
		return s.verify(r)
	}
	id := s.identity.Load()
	if id == nil {
		return ErrUnproven
	}
	h := s.door.handlers[key-FirstKey]
	switch {
	case h == nil || r.Version != 0:
		return ErrNotServed
	case !id.IsAny(h.From):
		return fmt.Errorf("%w: %v %d", ErrNotAllowed, id.Kind, id.NodeID)
	}
	if err := h.Serve(id, r); err != nil {
		return fmt.Errorf("%v %d: %w", id.Kind, id.NodeID, err)
	}
	if IsOneWay(key) {
		r.NoReply()
	}
	return nil
}

// challenge answers a hello.
func (s *Session) challenge(r *wire.Request) error {
	if s.state != sessionNew || !r.IsFirst() || r.Version != 0 {
		s.state = sessionFailed
		return ErrOutOfTurn
	}
	s.state = sessionFailed // until the hello is accepted
	cfg := &s.door.cfg
	s.acceptor = credential.NewAcceptor(cfg.Self(), cfg.Directory, cfg.Random)
	s.acceptor.UseChannel(channelOf(s.conn.TLS()))
	reply, err := s.acceptor.Challenge(r.Body())
	if reply != nil {
		sendBytes(r, reply)
	}
	if err != nil {
		return err
	}
	s.state = sessionChallenged
	return nil
}

// verify checks the proof, and has the cluster decide whether to admit a peer that is proven.
func (s *Session) verify(r *wire.Request) error {
	if s.state != sessionChallenged || r.Version != 0 {
		s.state = sessionFailed
		return ErrOutOfTurn
	}
	s.state = sessionFailed // until the proof is accepted
	p, reply, err := s.acceptor.Verify(r.Body(), s.door.cfg.Now())
	if reply != nil {
		sendBytes(r, reply)
	}
	if back := (*credential.WentBackError)(nil); errors.As(err, &back) && s.door.cfg.WentBack != nil {
		s.door.cfg.WentBack(back)
	}
	if err != nil {
		return err
	}
	if err := s.conn.Prove(); err != nil {
		return err
	}
	s.state = sessionDeciding
	s.door.noteProven(s, p) // before Admit looks at the metadata, so that Retain misses nobody
	s.deciding.Go(func() {
		defer s.conn.Contain()
		s.decide(r, p)
	})
	return nil
}

// decide has the cluster decide whether a proven peer is admitted, and sends the verdict.
func (s *Session) decide(r *wire.Request, p credential.Peer) {
	welcome, err := s.door.cfg.Admit(s.conn.Context(), p)
	if s.conn.Context().Err() != nil { // Retain may have ended the connection: nobody is let in behind it
		r.NoReply()
		return
	}
	if err != nil {
		reply, encoding := s.acceptor.Refuse(err)
		if encoding != nil {
			s.conn.Close(encoding)
			r.NoReply()
			return
		}
		// Before the verdict, which may make the other end hang up: then that would be the reason.
		s.conn.Finish(fmt.Errorf("%w: %v %d: %w", ErrNotAdmitted, p.Kind, p.NodeID, err))
		sendBytes(r, reply)
		return
	}
	reply, session, err := s.acceptor.Accept(welcome)
	if err != nil {
		s.conn.Close(fmt.Errorf("the verdict for %v %d: %w", p.Kind, p.NodeID, err))
		r.NoReply()
		return
	}
	s.door.noteProven(s, session.Peer) // a joiner has a node id now
	s.identity.Store(&Identity{Peer: session.Peer, SessionID: session.ID, Version: session.Version, IsBound: session.IsBound})
	sendBytes(r, reply)
}

// sendBytes answers a request with a body.
func sendBytes(r *wire.Request, body []byte) {
	p := r.Begin()
	p.B = append(p.B, body...)
	r.Send(p)
}
