package broker

import (
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// Rules say what decides what clients may do. They change while a plain cluster is secured as it runs: see meta.SecuringState.
type Rules struct {
	Authorizer *auth.Authorizer // nil: every client may do everything
	Mode       RulesMode
}

// RulesMode says what an authorizer is there for.
type RulesMode uint8

// The modes.
const (
	// Enforced denies what the authorizer does.
	Enforced RulesMode = iota
	// Open denies nothing, but to change ACLs and users: who could do that now would have everything when ACLs decide.
	Open
	// Observed is Open, and what the authorizer would deny is noted.
	Observed
)

// rules are those of now.
func (b *Broker) rules() Rules {
	if b.cfg.Rules != nil {
		return b.cfg.Rules()
	}
	return Rules{Authorizer: b.cfg.Authorizer}
}

// followRules has the session follow the rules, if they have changed.
func followRules(s *session) {
	rules := s.b.rules()
	if rules == s.rules {
		return
	}
	audit, proof := s.login.audit, s.login.proof
	s.rules, s.login = rules, s.b.accessOf(rules, s.principal, s.groups, hostOf(s.conn.RemoteAddr()))
	s.login.audit, s.login.proof = audit, proof
}

// watch looks on at what a client does while nothing is denied. A nil watch sees nothing. It belongs to the goroutine of the request, and another one uses
// what shared returns.
type watch struct {
	by     *auth.Authorizer
	memory *auth.Session // nil: each check is made anew
	client auth.Client
	// note is told of what would be denied; nil: nobody is.
	note func(principal string, op meta.Operation, t meta.ResourceType, name string)
}

func (w *watch) shared() *watch {
	if w == nil {
		return nil
	}
	return &watch{by: w.by, client: w.client, note: w.note}
}

func (w *watch) isNoting() bool { return w != nil && w.note != nil }

// allows tells what the authorizer says.
func (w *watch) allows(op meta.Operation, t meta.ResourceType, name string) bool {
	if w.memory != nil {
		return w.memory.Allows(op, auth.Resource{Type: t, Name: name})
	}
	return w.by.Allows(w.client, op, auth.Resource{Type: t, Name: name})
}

// look notes what the authorizer would deny.
func (w *watch) look(u *auditor, op meta.Operation, t meta.ResourceType, name string) {
	if !w.isNoting() || w.allows(op, t, name) {
		return
	}
	whole, _ := auth.PartOf(op) // which is what an ACL would have to allow
	w.note(w.client.Principal(), whole, t, name)
	u.noteWouldDeny(whole, t, name)
}

// isEnoughOnCluster tells, without a record, whether an operation on the cluster allows what otherwise needs a permission for each thing. While nothing is
// denied and somebody looks on, the answer is that of the authorizer, so that each thing is looked at.
func (a *access) isEnoughOnCluster(op meta.Operation) bool {
	if a.watch.isNoting() {
		return a.watch.allows(op, meta.ClusterResource, meta.ClusterName)
	}
	return a.quietly().mayCluster(op)
}

// allowsAny tells, without a record, whether the client may do something with one resource of a kind at least.
func (a *access) allowsAny(op meta.Operation, t meta.ResourceType) bool {
	by, client, memory := a.by, a.client, a.memory
	if a.watch.isNoting() {
		by, client, memory = a.watch.by, a.watch.client, a.watch.memory
	}
	switch {
	case by == nil:
		return true
	case memory != nil:
		return memory.AllowsAny(op, t)
	}
	return by.AllowsAny(client, op, t)
}

// mayChangeSecurity tells whether the client may use an API by which who could do that now would have everything when ACLs decide. It is asked while
// nothing else is denied.
func (w *watch) mayChangeSecurity(u *auditor, op meta.Operation) bool {
	if w.allows(op, meta.ClusterResource, meta.ClusterName) {
		return true
	}
	if u != nil {
		u.noteDenied(op, meta.ClusterResource, meta.ClusterName)
	}
	return false
}

// guardsSecurity lists the APIs that change ACLs and users.
func guardsSecurity(key int16) bool {
	switch key {
	case 30, 31, 51: // CreateAcls, DeleteAcls, AlterUserScramCredentials
		return true
	}
	return false
}

// notePlainEvery is how often a connection without TLS is noted again.
const notePlainEvery = time.Second

// plainNote is what was noted last of a connection without TLS.
type plainNote struct {
	clientID string
	at       time.Time
}

// notePlain notes that the client comes without TLS, while the cluster is secured.
func notePlain(s *session, clientID string) {
	if s.b.cfg.Rules().Authorizer == nil || s.isPeer() {
		return
	}
	now := time.Now()
	if last := s.plain.Load(); last != nil && last.clientID == clientID && now.Sub(last.at) < notePlainEvery {
		return
	}
	s.plain.Store(&plainNote{clientID, now})
	s.b.cfg.NotePlain(clientID, hostOf(s.conn.RemoteAddr()))
}

// EachPlainClient calls yield for each open connection of a client that has come without TLS to a listener which may be shared, with the
// client's id, as far as it was noted, and its address. Any goroutine may call it; yield must not block.
func EachPlainClient(b *Broker, yield func(clientID, host string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.sessions {
		if !wire.IsPlain(s.conn) || s.conn.IsProven() {
			continue
		}
		clientID := ""
		if last := s.plain.Load(); last != nil {
			clientID = last.clientID
		}
		yield(clientID, hostOf(s.conn.RemoteAddr()))
	}
}
