package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// Liveness is what the active controller knows of the nodes beyond the metadata: who is heard
// from, how far each has applied the metadata, and who may end. It is rebuilt when a
// controller's term begins, and then gives everybody a whole session timeout. It is a
// machine: it has no clock, and its owner calls it from one goroutine at a time.
//
// A session belongs to one registration of a node:
//
//	state                            event                    next state
//	expected: not heard in this term DialRefused, timeout     gone
//	present: heard                   ConnectionClosed         closed
//	                                 timeout                  gone
//	closed: its connection is closed DialRefused, timeout     gone
//	gone: to be fenced               Fenced                   ended
//	ended: fenced                    active, after timeout    gone
//	any                              Heard                    present
//	any                              Stopped                  ended
//
// The timeout counts from the last time that the node was heard, or from the start of the
// session. A process that was killed has its connections closed and its port refused, so it is
// gone at once; a controller whose term has just begun may have had no connection to it, so there
// the port says enough. A network that is cut does neither. A registration that has ended and is active all the
// same, whoever has done that, is fenced after a timeout. The only registered node is heard all the
// time, since it is the one that has the controller.
type Liveness struct {
	timeout  time.Duration
	begun    uint64 // the index of the metadata log up to which the term's first image has it
	sessions map[int32]*session
}

type sessionState uint8

const (
	expected sessionState = iota // not heard in this term
	present                      // heard
	closed                       // its connection was closed
	gone                         // to be fenced
	ended                        // fenced
)

type session struct {
	epoch   int64 // of the registration
	state   sessionState
	heard   time.Duration
	applied uint64 // the index of the metadata log that the node has applied

	full    bool   // its disk has no room for replicas that nobody has asked for
	stops   bool   // it has wanted to stop, which it does not take back
	moved   bool   // it leads nothing that another node could lead
	movedAt uint64 // the index of the metadata log at which that was so
}

// NewLiveness makes the Liveness of a term that begins now, with an image that has the metadata log up to an index.
func NewLiveness(now, timeout time.Duration, m *meta.Image, applied uint64) *Liveness {
	l := &Liveness{timeout: timeout, begun: applied, sessions: map[int32]*session{}}
	l.Follow(now, m)
	return l
}

// Follow takes an image: a session begins for each new registration, and those of nodes that
// are no longer registered end.
func (l *Liveness) Follow(now time.Duration, m *meta.Image) {
	for id, b := range m.Brokers {
		s := l.sessions[id]
		switch {
		case s == nil || s.epoch < b.Epoch:
			l.sessions[id] = &session{epoch: b.Epoch, heard: now}
		case len(m.Brokers) == 1:
			s.heard = now
		case s.state == ended && b.State == meta.BrokerActive && now-s.heard >= l.timeout:
			s.state = gone
		}
	}
	maps.DeleteFunc(l.sessions, func(id int32, s *session) bool {
		return m.Brokers[id] == nil && s.epoch <= m.LastBrokerEpoch()
	})
}

// session returns the session of a registration, or nil.
func (l *Liveness) session(id int32, epoch int64) *session {
	if s := l.sessions[id]; s != nil && s.epoch == epoch {
		return s
	}
	return nil
}

// TakeBeat takes a heartbeat, and returns it with what counts of it. A node that has wanted to stop does not take that back: one of its
// heartbeats from before may come after it was told that it may end, and must not make it active again. That may have been in an
// earlier term; so a node is active again only by a heartbeat that was sent when it knew all that was decided before this one.
func (l *Liveness) TakeBeat(now time.Duration, b *Beat) Beat {
	l.Heard(now, b.ID, b.Epoch, b.Applied)
	counts := *b
	if s := l.session(b.ID, b.Epoch); s != nil {
		s.full = b.NoRoom
		s.stops = s.stops || b.WantsStop
		counts.WantsStop = s.stops
	}
	counts.Caught = b.Caught && b.Applied >= l.begun
	return counts
}

// Heard takes that a node was heard from.
func (l *Liveness) Heard(now time.Duration, id int32, epoch int64, applied uint64) {
	if s := l.session(id, epoch); s != nil {
		s.state, s.heard, s.applied = present, now, max(s.applied, applied)
	}
}

// WithoutRoom are the nodes that have told that their disks have no such room, and those that were not heard
// in this term or are gone.
func (l *Liveness) WithoutRoom() map[int32]bool {
	all := map[int32]bool{}
	for id, s := range l.sessions {
		if s.full || s.state != present {
			all[id] = true
		}
	}
	return all
}

// Position is how far a node has told that it has applied the metadata log.
type Position struct {
	Applied uint64        // the index
	Ago     time.Duration // how long ago it has told
	// Unreached says why the node is kept fenced; "": it is not. The controller's node knows that, and Liveness does not.
	Unreached string
}

// Positions are the positions of all nodes that were heard in this term.
func (l *Liveness) Positions(now time.Duration) map[int32]Position {
	all := map[int32]Position{}
	for id, s := range l.sessions {
		if s.applied > 0 {
			all[id] = Position{Applied: s.applied, Ago: now - s.heard}
		}
	}
	return all
}

// ConnectionClosed takes that the connection to a node was closed by the other end.
func (l *Liveness) ConnectionClosed(id int32) {
	if s := l.sessions[id]; s != nil && s.state == present {
		s.state = closed
	}
}

// DialRefused takes that a node's port refuses connections.
func (l *Liveness) DialRefused(id int32) {
	if s := l.sessions[id]; s != nil && (s.state == closed || s.state == expected) {
		s.state = gone
	}
}

// IsAlive tells whether the registered incarnation of a node must be believed to be alive,
// so that another one is refused. An incarnation that was not heard in this term, or whose
// connection is closed, gives way to one in its place: see IsInPlace.
func (l *Liveness) IsAlive(now time.Duration, id int32, epoch int64, inPlace bool) bool {
	s := l.session(id, epoch)
	if s == nil || now-s.heard >= l.timeout {
		return false
	}
	switch s.state {
	case present:
		return true
	case expected, closed:
		return !inPlace
	default:
		return false
	}
}

// IsInPlace tells whether a process that wants to be registered has the data directory of the one that is registered, at the
// same address. Then that one has ended, since a directory has a lock, and an address one owner. At another address it may
// be a copy of the directory, beside the process that has the original: whoever is heard next, or the port that
// refuses connections, tells which it is.
func IsInPlace(registered, b *meta.Broker) bool {
	host, port := registered.Address()
	newHost, newPort := b.Address()
	return (registered.Directory == meta.UUID{} || registered.Directory == b.Directory) && host == newHost && port == newPort
}

// Registered names a registration of a node.
type Registered struct {
	ID    int32
	Epoch int64
}

// ToFence lists the registrations that are to be fenced, in the order of the ids.
func (l *Liveness) ToFence(now time.Duration) []Registered {
	var list []Registered
	for _, id := range slices.Sorted(maps.Keys(l.sessions)) {
		s := l.sessions[id]
		if s.state < gone && now-s.heard >= l.timeout {
			s.state = gone
		}
		if s.state == gone {
			list = append(list, Registered{id, s.epoch})
		}
	}
	return list
}

// Fenced takes that a registration was fenced. One that was heard again meanwhile goes on.
func (l *Liveness) Fenced(id int32, epoch int64) {
	if s := l.session(id, epoch); s != nil && s.state == gone {
		s.state = ended
	}
}

// Stopped takes that a node was told that it may end, so that its next incarnation need not
// wait.
func (l *Liveness) Stopped(id int32, epoch int64) {
	if s := l.session(id, epoch); s != nil {
		s.state = ended
	}
}

// Moved takes that a node which is shutting down leads nothing that another one could lead, in
// the metadata up to an index. Only the first time counts.
func (l *Liveness) Moved(id int32, epoch int64, index uint64) {
	if s := l.session(id, epoch); s != nil && !s.moved {
		s.moved, s.movedAt = true, index
	}
}

// MayStop tells whether a node that is shutting down may end: all active nodes have applied
// the metadata in which it leads nothing, so that clients are told of the new leaders.
func (l *Liveness) MayStop(id int32, epoch int64, m *meta.Image) bool {
	s := l.session(id, epoch)
	if s == nil || !s.moved {
		return false
	}
	for other, b := range m.Brokers {
		o := l.session(other, b.Epoch)
		if other != id && b.State == meta.BrokerActive && o != nil && o.state < gone && o.applied < s.movedAt {
			return false
		}
	}
	return true
}
