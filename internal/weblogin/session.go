package weblogin

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/auth"
)

const (
	// mostSessions is how many sessions there are at most, mostSessionBytes how many bytes their users and groups have in all, and mostOfUser how
	// many of them one user has. When one more begins, the one that was idle the longest ends.
	mostSessions     = 4096
	mostSessionBytes = 8 << 20
	mostOfUser       = 16
	// sessionOverhead is about how many bytes a session takes besides its texts.
	sessionOverhead = 400
	// idBytes is how many random bytes an id has.
	idBytes = 32
)

// sessions are the sessions of this node.
type sessions struct {
	idle, longest time.Duration

	mu    sync.Mutex
	byKey map[sessionKey]*session // guarded by mu
	bytes int                     // guarded by mu: of all sessions
}

// sessionKey is the hash of an id, so that nobody who sees the memory, or the time of a look-up, learns an id.
type sessionKey [sha256.Size]byte

// session is one browser that has logged in. Only used changes.
type session struct {
	principal auth.Principal
	groups    []string
	how       Mechanism
	mark      [sha256.Size]byte // of the password, if it was one
	ends      time.Time         // whatever is done

	used time.Time // guarded by sessions.mu
}

func newSessions(idle, longest time.Duration) *sessions {
	return &sessions{idle: idle, longest: longest, byKey: map[sessionKey]*session{}}
}

func (s *session) size() int {
	n := sessionOverhead + len(s.principal.Name)
	for _, g := range s.groups {
		n += 16 + len(g)
	}
	return n
}

// begin begins a session, and returns its id, which nobody else knows. lifetime bounds it; 0: it does not.
func (s *sessions) begin(one session, lifetime time.Duration, now time.Time) (id string) {
	random := make([]byte, idBytes)
	_, _ = rand.Read(random) // it never fails
	id = base64.RawURLEncoding.EncodeToString(random)
	one.ends, one.used = now.Add(s.longest), now
	if lifetime > 0 {
		one.ends = now.Add(min(lifetime, s.longest))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoomLocked(&one, now)
	s.byKey[sha256.Sum256([]byte(id))] = &one
	s.bytes += one.size()
	return id
}

// makeRoomLocked ends sessions whose time is over, and those that were idle the longest if there is no room for one more.
func (s *sessions) makeRoomLocked(one *session, now time.Time) {
	for {
		var oldest, oldestOfUser sessionKey
		ofUser := 0
		for key, other := range s.byKey {
			if s.isOver(other, now) {
				s.endLocked(key)
				continue
			}
			if o := s.byKey[oldest]; o == nil || other.used.Before(o.used) {
				oldest = key
			}
			if other.principal != one.principal {
				continue
			}
			ofUser++
			if o := s.byKey[oldestOfUser]; o == nil || other.used.Before(o.used) {
				oldestOfUser = key
			}
		}
		switch {
		case ofUser >= mostOfUser:
			s.endLocked(oldestOfUser)
		case len(s.byKey) >= mostSessions || len(s.byKey) > 0 && s.bytes+one.size() > mostSessionBytes:
			s.endLocked(oldest)
		default:
			return
		}
	}
}

func (s *sessions) isOver(one *session, now time.Time) bool {
	return !now.Before(one.ends) || now.Sub(one.used) >= s.idle
}

func (s *sessions) endLocked(key sessionKey) {
	if one := s.byKey[key]; one != nil {
		s.bytes -= one.size()
		delete(s.byKey, key)
	}
}

// find finds the session of an id, and notes that it is used; nil: there is none, or its time is over.
func (s *sessions) find(id string, now time.Time) *session {
	key := sessionKey(sha256.Sum256([]byte(id)))
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byKey[key]
	if one == nil {
		return nil
	}
	if s.isOver(one, now) {
		s.endLocked(key)
		return nil
	}
	one.used = now
	return one
}

// end ends the session of an id, if there is one.
func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(sha256.Sum256([]byte(id)))
}

// count is how many sessions there are, some of which may be over.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byKey)
}
