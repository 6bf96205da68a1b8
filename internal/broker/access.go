package broker

import (
	"net"
	"time"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// access is what the client of a request may do. The zero value is of a client that may do everything: there is no
// authorizer, or it is another node of the cluster.
//
// It belongs to the goroutine of its request, since it remembers what it has found. Another goroutine uses what shared
// returns.
type access struct {
	by     *auth.Authorizer
	memory *auth.Session // nil: each check is made anew
	client auth.Client
	audit  *auditor    // is told of each check; nil: nobody is
	proof  *loginProof // with which the client has logged in; nil: it need not
	watch  *watch      // looks on while nothing is denied; nil: nobody does
}

// access is what the connection's client may do.
func (s *session) access() access {
	if s.b.cfg.Rules != nil {
		followRules(s)
	}
	if s.login.by == nil && s.login.watch == nil && s.login.audit == nil && s.login.proof == nil || s.isPeer() {
		return access{}
	}
	return s.login
}

// isPeer tells whether the other end has proven to be a node of the cluster, or to hold the data directory of one. It
// knows the cluster's secrets, so it needs no other permission.
func (s *session) isPeer() bool {
	id := s.peer.Identity() // of nobody, without a session
	return id.IsAny(peer.Nodes | peer.Administrators)
}

// logIn has the connection's client be a principal that is in groups from now on.
func (s *session) logIn(p auth.Principal, groups ...string) {
	s.principal, s.groups, s.rules = p, groups, s.b.rules()
	s.login = s.b.accessOf(s.rules, p, groups, hostOf(s.conn.RemoteAddr()))
	if s.audit != nil {
		s.audit.who.Principal, s.login.audit = p.String(), s.audit
	}
}

// accessOf is what a client may do.
func (b *Broker) accessOf(rules Rules, p auth.Principal, groups []string, host string) (a access) {
	if rules.Authorizer == nil {
		return a
	}
	client := auth.NewClient(p, host)
	a.client = client.In(groups)
	memory := rules.Authorizer.NewSession(a.client)
	if rules.Mode != Enforced {
		a.watch = &watch{by: rules.Authorizer, memory: &memory, client: a.client}
		if rules.Mode == Observed {
			a.watch.note = b.cfg.NoteWouldDeny
		}
		return a
	}
	a.by, a.memory = rules.Authorizer, &memory
	return a
}

// hostOf is an address without its port.
func hostOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return hostOfText(addr.String())
}

func hostOfText(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// shared is the same access for any goroutine. Nothing that it finds is recorded.
func (a *access) shared() access { return access{by: a.by, client: a.client, proof: a.proof} }

// isLoggedIn tells whether the client of a request that has waited is still logged in.
func (a *access) isLoggedIn(m *meta.Image) bool {
	return !a.proof.isKept() || a.proof.holds(m, time.Now())
}

// sharedAccess is access for any goroutine.
func (s *session) sharedAccess() access {
	a := s.access()
	a.audit, a.memory, a.watch = a.audit.snapshot(), nil, a.watch.shared()
	return a
}

// isAll tells whether the client may do everything, whatever the ACLs are.
func (a *access) isAll() bool { return a.by == nil || a.by.IsSuper(&a.client) }

// may tells whether the client may do something with a resource. What it may not is recorded, so quietly is for questions whose answer
// refuses nothing.
func (a *access) may(op meta.Operation, t meta.ResourceType, name string) bool {
	isAllowed := a.judge(op, t, name)
	if a.audit != nil {
		a.audit.note(op, t, name, isAllowed)
	}
	return isAllowed
}

// isUnwatched tells whether the client may do everything, and nobody looks on.
func (a *access) isUnwatched() bool { return a.by == nil && a.audit == nil && !a.watch.isNoting() }

// quietly is the same access, of which nothing is recorded: for lists that leave out what the client may not see, and where one of several
// permissions is enough.
func (a *access) quietly() *access {
	if a.audit == nil && a.watch == nil {
		return a
	}
	q := *a
	q.audit, q.watch = nil, nil
	return &q
}

func (a *access) judge(op meta.Operation, t meta.ResourceType, name string) bool {
	switch {
	case a.by == nil:
		a.watch.look(a.audit, op, t, name)
		return true
	case a.memory != nil:
		return a.memory.Allows(op, auth.Resource{Type: t, Name: name})
	}
	return a.by.Allows(a.client, op, auth.Resource{Type: t, Name: name})
}

func (a *access) mayTopic(op meta.Operation, name string) bool {
	return a.may(op, meta.TopicResource, name)
}

// mayTopicBytes is mayTopic for a name that is no string yet, on the goroutine of the request.
func (a *access) mayTopicBytes(op meta.Operation, name []byte) bool {
	isAllowed := a.by == nil || a.memory.AllowsName(op, meta.TopicResource, name)
	if a.by == nil && a.watch.isNoting() {
		a.watch.look(a.audit, op, meta.TopicResource, string(name))
	}
	if a.audit != nil {
		a.audit.noteName(op, name, isAllowed)
	}
	return isAllowed
}

func (a *access) mayGroup(op meta.Operation, name string) bool {
	return a.may(op, meta.GroupResource, name)
}

func (a *access) mayTransaction(op meta.Operation, id string) bool {
	return a.may(op, meta.TransactionalIDResource, id)
}

func (a *access) mayCluster(op meta.Operation) bool {
	return a.may(op, meta.ClusterResource, meta.ClusterName)
}

// mayProduce tells whether the client may have a producer id without a transaction.
func (a *access) mayProduce() bool {
	return a.isEnoughOnCluster(meta.IdempotentWrite) || a.allowsAny(meta.Write, meta.TopicResource) || a.mayCluster(meta.IdempotentWrite)
}

// operations are those of all operations on a kind of resource that the client may do with one of them, as bits.
func (a *access) operations(all int32, t meta.ResourceType, name string) int32 {
	if a.by == nil {
		return all
	}
	return int32(a.by.AllowedOf(a.client, auth.Resource{Type: t, Name: name}, uint32(all)))
}

// clusterOperations are the operations on the cluster, which a client is only told if it may describe it.
func (a *access) clusterOperations() int32 {
	if !a.quietly().mayCluster(meta.Describe) {
		return 0
	}
	return a.operations(clusterOperations, meta.ClusterResource, meta.ClusterName)
}

// accessOfCarried is what the client of another node may do. That node has told who it is; a client of which it has not is
// nobody.
func (b *Broker) accessOfCarried(q *wire.Carried) access {
	rules := b.rules()
	if rules.Authorizer == nil || q.IsPeer {
		return access{}
	}
	p := principalOf(q)
	a := b.accessOf(rules, p, q.Groups, hostOfText(q.Address))
	if b.cfg.Audit != nil {
		a.audit = &auditor{to: b.cfg.Audit, api: b.findAPI(q.Key), who: audit.Who{Principal: p.String(), Address: q.Address, Listener: q.Listener, ClientID: q.ClientID}}
	}
	return a
}

// principalOf is who the client of another node is.
func principalOf(q *wire.Carried) auth.Principal {
	p, err := auth.ParsePrincipal(q.Principal)
	if err != nil {
		p = auth.Anonymous()
	}
	return p
}
