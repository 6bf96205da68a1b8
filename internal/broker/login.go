package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/wire"
)

// Login says how the clients of a listener log in, by SASL, and counts what they do. Any goroutine may use it.
type Login struct {
	LoginConfig

	counts map[string]*loginCounts // by mechanism; "": a client has named none that there is
}

// LoginConfig is what a Login works with.
type LoginConfig struct {
	Listener   string
	Mechanisms []auth.Mechanism // in the order in which clients are told of them
	// MaxFrame bounds the requests of clients that have not logged in: sasl.server.max.receive.size, bytes; 0: 512 KiB.
	MaxFrame int
	// Delay is how long the answer to a login that has failed waits: connection.failed.authentication.delay.ms.
	Delay time.Duration
	// Patience is how long a client may take to log in; 0: 30 s.
	Patience time.Duration
	// MaxLifetime is how long a login lasts at most, by the mechanism's name: connections.max.reauth.ms; 0: as long as the
	// connection.
	MaxLifetime map[string]time.Duration
}

// The defaults of a LoginConfig.
const (
	defaultLoginFrame = 512 << 10
	defaultPatience   = 30 * time.Second
)

// loginCounts counts the logins of one mechanism.
type loginCounts struct{ succeeded, repeated, failed, ended atomic.Int64 }

// LoginStats counts the logins on one listener by one mechanism since the start.
type LoginStats struct {
	Listener, Mechanism string // Mechanism is "" for those that have named none that there is
	Succeeded           int64  // first logins
	Repeated            int64  // further logins on a connection
	Failed              int64
	Ended               int64 // connections that were closed since their client has not logged in again in time
}

// NewLogin makes a Login.
func NewLogin(cfg LoginConfig) *Login {
	cfg.MaxFrame = cmp.Or(cfg.MaxFrame, defaultLoginFrame)
	cfg.Patience = cmp.Or(cfg.Patience, defaultPatience)
	l := &Login{LoginConfig: cfg, counts: map[string]*loginCounts{"": {}}}
	for _, m := range cfg.Mechanisms {
		l.counts[m.Name()] = &loginCounts{}
	}
	return l
}

// names are the names of the mechanisms.
func (l *Login) names() (names []string) {
	for _, m := range l.Mechanisms {
		names = append(names, m.Name())
	}
	return names
}

// stats returns the counts of all mechanisms.
func (l *Login) stats() (list []LoginStats) {
	for _, name := range append(l.names(), "") {
		c := l.counts[name]
		list = append(list, LoginStats{l.Listener, name, c.succeeded.Load(), c.repeated.Load(), c.failed.Load(), c.ended.Load()})
	}
	return list
}

// mechanism is the one of a name; nil: there is none.
func (l *Login) mechanism(name string) auth.Mechanism { //nolint:ireturn // there are several
	i := slices.IndexFunc(l.Mechanisms, func(m auth.Mechanism) bool { return m.Name() == name })
	if i < 0 {
		return nil
	}
	return l.Mechanisms[i]
}

// loginState is how far a client has logged in, in the order that Kafka has:
//
//	starting --ApiVersions--> introduced --SaslHandshake--> exchanging --SaslAuthenticate, or a token--> loggedIn
//	    '-----------------SaslHandshake-------------------------^  ^ '--the mechanism needs more-'           |
//	                                                               |                                        |
//	             a SaslHandshake begins another login, which must  '--- if the session has an end (KIP-368) -'
//	             be of the same user, by the same mechanism
//
// Anything else, and a failed login, closes the connection. Other nodes of the cluster prove who they are by requests of
// their own (package peer) in any state, and need no login. After a handshake of version 0 the messages of the
// mechanism are tokens without the header of a request.
type loginState uint8

const (
	starting loginState = iota
	introduced
	exchanging
	loggedIn
)

// clientLogin is the login of one connection. It belongs to the connection's goroutine, except for settled.
type clientLogin struct {
	s         *session
	rules     *Login
	state     loginState
	byTokens  bool // the messages have no header
	requests  int  // that came before the first login
	mechanism string
	exchange  auth.Exchange
	wrongWay  error       // another mechanism than before was named: the next message ends the connection
	patience  *time.Timer // closes the connection unless the login is settled
	settled   atomic.Bool // the client has logged in once, or has proven to be a node

	again bool      // another login is under way, or was the last one
	began time.Time // when it began
	ends  time.Time // when the session does; zero: it has no end

	// proof is what the last login was proven with, and proven are the metadata in which it was looked up since; nil: none yet.
	proof  *loginProof
	proven provenBy
}

const (
	// mostBeforeLogin bounds the requests before a login. No client needs more than six.
	mostBeforeLogin = 32
	// leastAgain is the shortest time between the beginnings of two further logins, as in Kafka.
	leastAgain = time.Second
)

// These are reasons to close a connection.
var (
	errNotLoggedIn  = errors.New("the client has not logged in, and the listener asks for that")
	errLoginLate    = errors.New("the client has taken too long to log in")
	errLoginAgain   = errors.New("the session has ended, and the client has not logged in again")
	errLoginFailed  = errors.New("the login has failed")
	errManyRequests = errors.New("too many requests came before a login")
)

// beginLogin has the connection's client log in before anything else.
func beginLogin(s *session, rules *Login) {
	g := &clientLogin{s: s, rules: rules}
	g.patience = time.AfterFunc(rules.Patience, func() {
		if !g.settled.Load() {
			s.conn.Close(errLoginLate)
		}
	})
	s.gate = g
	s.conn.SetMaxFrame(rules.MaxFrame)
}

// settle ends what is only for clients that have not logged in.
func (g *clientLogin) settle() {
	g.settled.Store(true)
	g.patience.Stop()
	g.s.conn.Settle()
}

// serveLogin serves a request of a login. isServed is false if the request is one of a client that may send it now.
func (g *clientLogin) serveLogin(r *wire.Request) (isServed bool, err error) {
	s := g.s
	s.audit.begin(nil, r)
	if g.state == loggedIn {
		return g.continueSession(r)
	}
	if s.isPeer() {
		return false, nil
	}
	if g.requests++; g.requests > mostBeforeLogin && !g.again {
		return true, errManyRequests
	}
	if r.Key >= 0 && int(r.Key) < len(s.b.stats.requests) {
		s.b.stats.requests[r.Key].Add(1)
	}
	s.Flush() // of what came before another login
	s.conn.Uncork()
	switch {
	case g.wrongWay != nil:
		return true, g.failLogin(g.wrongWay, nil)
	case g.state == exchanging:
		return true, g.serveMessage(r)
	case r.Key == saslHandshakeKey:
		return true, g.serveHandshake(r)
	case r.Key == apiVersionsKey && g.state == starting:
		isDone, err := answerAPIVersions(s, r)
		if isDone {
			g.state = introduced
		}
		return true, err
	}
	return true, errNotLoggedIn
}

// continueSession is serveLogin for a client that has logged in.
func (g *clientLogin) continueSession(r *wire.Request) (isServed bool, err error) {
	g.followProof()
	if g.ends.IsZero() {
		return false, nil
	}
	now := time.Now()
	switch {
	case r.Key == saslHandshakeKey && now.Sub(g.began) >= leastAgain:
		g.again, g.began = true, now
		g.s.Flush() // of what came before
		g.s.conn.Uncork()
		return true, g.serveHandshake(r)
	case now.After(g.ends):
		g.rules.counts[g.mechanism].ended.Add(1)
		return true, errLoginAgain
	}
	return false, nil
}

// followProof has the session end when what it was proven with does. A later end of a token counts from the next login on.
func (g *clientLogin) followProof() {
	if !g.proof.isKept() {
		return
	}
	m := g.s.b.cfg.Image()
	by := provenBy{m.Credentials(), m.DelegationTokens()}
	if by == g.proven {
		return
	}
	g.proven = by
	now := time.Now()
	if ends, lasts := g.proof.endIn(m, now); !lasts && (g.ends.IsZero() || ends.Before(g.ends)) {
		g.ends = ends
	}
}

// failLogin answers a login that has failed, after the delay for that, and returns the reason to close the connection. While it
// waits, nothing is read from the connection.
func (g *clientLogin) failLogin(why error, answer func()) error {
	s := g.s
	g.rules.counts[g.mechanism].failed.Add(1)
	s.audit.noteLogin(g.mechanism, g.again, auth.ClaimedUser(g.exchange), why)
	s.conn.GiveUpBodies()
	wait := time.NewTimer(g.rules.Delay)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-s.conn.Context().Done():
	case <-s.b.cfg.Context().Done():
	}
	if answer != nil {
		answer()
	}
	return fmt.Errorf("%w (listener %s, mechanism %q): %w", errLoginFailed, g.rules.Listener, g.mechanism, why)
}

// endLogin has the client be logged in.
func (g *clientLogin) endLogin(l *auth.Login) {
	s := g.s
	if g.again {
		g.rules.counts[g.mechanism].repeated.Add(1)
	} else {
		g.rules.counts[g.mechanism].succeeded.Add(1)
	}
	if !g.again || !slices.Equal(s.groups, l.Groups) { // the same user may be in other groups by now
		s.logIn(l.Principal, l.Groups...)
	}
	proof := &loginProof{token: l.Token, credential: l.Credential}
	s.login.proof = proof
	s.audit.noteLogin(g.mechanism, g.again, "", nil)
	g.state, g.exchange, g.proof, g.proven = loggedIn, nil, proof, provenBy{}
	g.settle()
	s.conn.SetMaxFrame(s.conn.Listener().MaxFrame)
}

// lifetimeOf is how long a login lasts; ok is false if it lasts as long as the connection.
func (g *clientLogin) lifetimeOf(l *auth.Login) (d time.Duration, ok bool) {
	most := g.rules.MaxLifetime[g.mechanism]
	switch {
	case most <= 0:
		return l.Lifetime, l.Lifetime > 0
	case l.Lifetime <= 0:
		return most, true
	}
	return min(most, l.Lifetime), true
}
