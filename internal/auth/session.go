package auth

import "github.com/leatstream/leat/internal/meta"

const (
	// mostRemembered is how many resources a session remembers at most, and mostNameBytes how many bytes their
	// names have in all. When one more comes, it forgets all of them.
	mostRemembered = 256
	mostNameBytes  = 16 << 10
)

// Session is what one connection's client may do. It remembers what was found for as long as the ACLs are the same.
// One goroutine at a time may use it.
type Session struct {
	by     *Authorizer
	client Client

	acls  *meta.ACLs          // for which known and rules were found
	known map[Resource]uint32 // the operations that are allowed, one bit for each
	any   map[anyOf]bool      // what AllowsAny has found; nil: nothing
	bytes int                 // of the names in known

	// rules are those of all principals that are about the client, found when a resource is first asked for, and isSuper tells that the
	// client needs none.
	rules    []*rules
	hasRules bool
	isSuper  bool
}

// NewSession begins the session of a client.
func (a *Authorizer) NewSession(c Client) Session { return Session{by: a, client: c} }

// Client is the session's client.
func (s *Session) Client() *Client { return &s.client }

// Allows tells whether the client may do something with a resource.
func (s *Session) Allows(op meta.Operation, r Resource) bool {
	s.forgetOld()
	ops, known := s.known[r]
	if !known {
		ops = s.find(r)
	}
	return ops&bitOf(op) != 0
}

// anyOf is a question of AllowsAny.
type anyOf struct {
	op meta.Operation
	t  meta.ResourceType
}

// AllowsAny is Authorizer.AllowsAny. That looks at all ACLs of the client, so it is asked once.
func (s *Session) AllowsAny(op meta.Operation, t meta.ResourceType) bool {
	s.forgetOld()
	of := anyOf{op, t}
	allowed, known := s.any[of]
	if !known {
		allowed = s.by.AllowsAny(s.client, op, t)
		if s.any == nil {
			s.any = map[anyOf]bool{}
		}
		s.any[of] = allowed
	}
	return allowed
}

// AllowsName is Allows for a resource whose name is not a string yet. It makes one only if it does not know the name.
func (s *Session) AllowsName(op meta.Operation, t meta.ResourceType, name []byte) bool {
	s.forgetOld()
	ops, known := s.known[Resource{t, string(name)}]
	if !known {
		ops = s.find(Resource{t, string(name)})
	}
	return ops&bitOf(op) != 0
}

// forgetOld forgets what was found for other ACLs.
func (s *Session) forgetOld() {
	if acls := s.by.cfg.Image().ACLs(); acls != s.acls {
		s.acls, s.known, s.bytes, s.any = acls, nil, 0, nil
		s.rules, s.hasRules = nil, false
	}
}

// find finds what the client may do with a resource, and remembers it.
func (s *Session) find(r Resource) uint32 {
	ops := s.judge(r)
	if len(s.known) >= mostRemembered || s.bytes+len(r.Name) > mostNameBytes {
		s.known, s.bytes = nil, 0
	}
	if s.known == nil {
		s.known = map[Resource]uint32{}
	}
	s.known[r] = ops
	s.bytes += len(r.Name)
	return ops
}

// judge finds what the client may do with a resource. All resources of a connection are judged by the same rules, so that these are looked up
// once for all.
func (s *Session) judge(r Resource) uint32 {
	if !s.hasRules {
		s.isSuper, s.hasRules = s.by.IsSuper(&s.client), true
		if !s.isSuper {
			s.rules = s.by.appendRules(nil, s.acls, &s.client)
		}
	}
	if s.isSuper {
		return allBits
	}
	return s.by.judge(s.acls, s.rules, &query{r, s.client.host}, allBits)
}
