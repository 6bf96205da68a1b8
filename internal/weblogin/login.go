package weblogin

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// Right is what a page asks of who sees it.
type Right uint8

// The rights.
const (
	AnyUser         Right = iota // who has logged in
	DescribeCluster              // who may DESCRIBE the cluster
	SeeMetrics                   // who may DESCRIBE the cluster, and everybody where leat.http.metrics.login is false
	AlterCluster                 // who may ALTER the cluster
)

// operation is what the right needs on the cluster; isAny: nothing but a login.
func (n Right) operation() (op meta.Operation, isAny bool) {
	switch n {
	case AnyUser:
		return 0, true
	case DescribeCluster, SeeMetrics:
		return meta.Describe, false
	case AlterCluster:
	}
	return meta.Alter, false
}

// Mechanism is a way to log in.
type Mechanism string

// The mechanisms.
const (
	Basic Mechanism = "BASIC"
	Form  Mechanism = "FORM"
	OIDC  Mechanism = "OIDC"
)

const (
	// longestPassword is how many bytes of a password are looked at.
	longestPassword = 1024
	// mostFormBytes bounds the body of a form.
	mostFormBytes = 64 << 10
	// hstsSeconds is for how long a browser that has seen the pages over TLS asks for them over TLS alone.
	hstsSeconds = 30 * 24 * 60 * 60
	// Listener is what audit events and metrics have in place of a listener's name.
	Listener = "http"
)

// Config is what a Login works with.
type Config struct {
	Users        *auth.Users
	Authorizer   *auth.Authorizer
	Delay        time.Duration // of the answer to a login that failed
	MetricsLogin func() bool   // whether metrics need a login now
	MustEncrypt  bool          // the address is one that other machines reach
	// Cookies tells the cookies of this node from those of other nodes on the same machine, which browsers mix up.
	Cookies       string
	Idle, Longest time.Duration // of a session
	OIDC          *OIDCConfig   // nil: there is no issuer
	Logger        *slog.Logger
}

// Login is the door of the pages of HTTP of a node that is secured, or may come to be:
//
//	joining --the cluster is not secured--> nil: everybody sees all
//	   '------it is, or the node was-------> secured: users see what ACLs let them
//
// The zero value is joining.
type Login struct {
	cfg      Config
	sealer   cipher.AEAD // of what browsers keep, by a key of this process; nil: joining
	formKey  [32]byte    // of form tokens, random for this process
	sessions *sessions
	provider *provider // nil: there is no issuer
	pages    http.Handler
	spent    spentLogins
	counts   map[Mechanism]*counts
	audit    atomic.Pointer[audit.Recorder] // nil until the audit log is open
}

// counts has how many logins there were by one mechanism.
type counts struct{ succeeded, failed atomic.Int64 }

// New makes the door of a secured node.
func New(cfg Config) (*Login, error) {
	if cfg.Users == nil || cfg.Authorizer == nil || cfg.MetricsLogin == nil || cfg.Idle <= 0 || cfg.Longest <= 0 || cfg.Logger == nil {
		return nil, errors.New("weblogin: Users, Authorizer, MetricsLogin, Idle, Longest and Logger must be set")
	}
	const keyBytes = 32
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // it never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	l := &Login{cfg: cfg, sessions: newSessions(cfg.Idle, cfg.Longest), counts: map[Mechanism]*counts{Basic: {}, Form: {}, OIDC: {}}}
	_, _ = rand.Read(l.formKey[:]) // it never fails
	if l.sealer, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", l.showLogin)
	mux.HandleFunc("POST /login", l.takePassword)
	mux.HandleFunc("POST /logout", l.logOut)
	if cfg.OIDC != nil {
		if l.provider, err = newProvider(cfg.OIDC); err != nil {
			return nil, err
		}
		mux.HandleFunc("GET /login/oidc", l.sendToIssuer)
		mux.HandleFunc("GET "+callbackPath, l.takeCode)
	}
	l.pages = mux
	return l, nil
}

// Record has logins and denials recorded from now on.
func (l *Login) Record(to *audit.Recorder) {
	if l != nil {
		l.audit.Store(to)
	}
}

// Stats counts the logins by one mechanism since the start.
type Stats struct {
	Mechanism         Mechanism
	Succeeded, Failed int64
}

// Stats tells how many logins there were, and how many sessions there are.
func (l *Login) Stats() (list []Stats, open int) {
	if !l.IsSecured() {
		return nil, 0
	}
	for _, m := range []Mechanism{Basic, Form, OIDC} {
		list = append(list, Stats{m, l.counts[m].succeeded.Load(), l.counts[m].failed.Load()})
	}
	return list, l.sessions.count()
}

// IsSecured tells whether pages are shown to users alone.
func (l *Login) IsSecured() bool { return l != nil && l.sealer != nil }

// ServeHTTP serves the pages by which browsers log in and out. A node that asks for no login has none.
func (l *Login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case l == nil:
		http.NotFound(w, r)
	case l.refuses(w, r):
	default:
		l.pages.ServeHTTP(w, r)
	}
}

// refuses answers all requests while it is not known who may see what, and those that came without TLS, and tells whether it has.
func (l *Login) refuses(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case l.sealer == nil:
		writeText(w, http.StatusServiceUnavailable, "starting")
		return true
	case l.cfg.MustEncrypt && r.TLS == nil: // the connection was opened before the node knew
		w.Header().Set("Connection", "close")
		writeText(w, http.StatusForbidden, "this node is secured: use https")
		return true
	}
	return false
}

// Visitor is who asks for a page, and has logged in.
type Visitor struct {
	client  auth.Client
	name    string
	session string // its id; "": the visitor has come by HTTP Basic
	login   *Login
}

// Name is the name of the user.
func (v *Visitor) Name() string { return v.name }

// May tells whether the visitor may do something with a resource.
func (v *Visitor) May(op meta.Operation, on auth.Resource) bool {
	return v.login.cfg.Authorizer.Allows(v.client, op, on)
}

// FormToken is what a form must have as its field "token" that changes something; "": the visitor has no session, and needs none.
func (v *Visitor) FormToken() string {
	if v.session == "" {
		return ""
	}
	return v.login.tokenFor(v.session)
}

// HasLogin tells whether a request tries to tell who asks: by a password, or by a session that is open.
func (l *Login) HasLogin(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || l.IsSecured() && l.findVisitor(r) != nil
}

// Admit finds who asks for a page that needs a right, and tells whether it may be shown; if it may not, the client has been answered. The visitor is nil
// where nobody needs a login.
func (l *Login) Admit(w http.ResponseWriter, r *http.Request, needs Right) (*Visitor, bool) {
	switch {
	case l == nil:
		return nil, true
	case l.refuses(w, r):
		return nil, false
	case needs == SeeMetrics && !l.cfg.MetricsLogin():
		return nil, true
	}
	v := l.identify(w, r)
	if v == nil || !l.checkToken(w, r, v) {
		return nil, false
	}
	op, isAny := needs.operation()
	if !isAny && !v.May(op, auth.Cluster()) {
		l.record(r, audit.Event{Type: audit.Denied, Operation: auth.OperationName(op), ResourceType: "cluster", Resource: meta.ClusterName, Result: audit.Refused}, v.client.Principal())
		writeText(w, http.StatusForbidden, fmt.Sprintf("user %q may not see this: that needs %s on the cluster", v.name, auth.OperationName(op)))
		return nil, false
	}
	return v, true
}

// identify finds who asks. If nobody has logged in, it answers and returns nil.
func (l *Login) identify(w http.ResponseWriter, r *http.Request) *Visitor {
	if r.Header.Get("Authorization") == "" {
		if v := l.findVisitor(r); v != nil {
			return v
		}
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") { // a browser
			http.Redirect(w, r, "/login?next="+url.QueryEscape(safeTarget(r.URL.RequestURI())), http.StatusSeeOther)
			return nil
		}
	} else if name, password, isGiven := r.BasicAuth(); isGiven {
		if _, isRight := l.checkPassword(r, Basic, name, password); isRight {
			return &Visitor{client: auth.NewClient(auth.User(name), hostOf(r)), name: name, login: l}
		}
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="leat", charset="UTF-8"`)
	writeText(w, http.StatusUnauthorized, "log in as a user of the cluster")
	return nil
}

// findVisitor finds the visitor of the request's session; nil: there is none.
func (l *Login) findVisitor(r *http.Request) *Visitor {
	id := l.cookie(r, sessionCookie)
	if id == "" {
		return nil
	}
	s := l.sessions.find(id, time.Now())
	if s == nil {
		return nil
	}
	if s.how == Form {
		if mark, exists := l.cfg.Users.CredentialMark(s.principal.Name); !exists || mark != s.mark {
			l.sessions.end(id)
			return nil
		}
	}
	c := auth.NewClient(s.principal, hostOf(r))
	return &Visitor{client: c.In(s.groups), name: s.principal.Name, session: id, login: l}
}

// checkPassword tells whether a password is that of a user, and waits if it is not. It takes as long for a user that does not exist. The mark is that of
// the password from before it was checked, so that a session cannot outlive a change that comes meanwhile.
func (l *Login) checkPassword(r *http.Request, how Mechanism, name, password string) (mark [32]byte, isRight bool) {
	mark, _ = l.cfg.Users.CredentialMark(name)
	if name != "" && len(name) <= auth.LongestName && len(password) <= longestPassword && l.cfg.Users.CheckPassword(r.Context(), name, password) {
		l.noteLogin(r, how, auth.User(name), "", nil)
		return mark, true
	}
	l.noteLogin(r, how, auth.Principal{}, name, errors.New("the user or the password is wrong"))
	waitFor(r.Context(), l.cfg.Delay)
	return mark, false
}

// noteLogin counts and records a login that has succeeded, or has failed for a reason.
func (l *Login) noteLogin(r *http.Request, how Mechanism, who auth.Principal, claimed string, failed error) {
	e := audit.Event{Type: audit.LoginSucceeded, Result: audit.Allowed, Details: []audit.Detail{{Key: "mechanism", Value: string(how)}}}
	if failed == nil {
		l.counts[how].succeeded.Add(1)
		l.record(r, e, who.String())
		return
	}
	l.counts[how].failed.Add(1)
	e.Type, e.Result, e.Reason = audit.LoginFailed, audit.Refused, failed.Error()
	if claimed != "" {
		e.ResourceType, e.Resource = "user", claimed
	}
	l.record(r, e, "")
}

func (l *Login) record(r *http.Request, e audit.Event, principal string) {
	e.Who = audit.Who{Principal: principal, Address: r.RemoteAddr, Listener: Listener}
	e.API = "HTTP"
	l.audit.Load().Record(e)
}

// hostOf is the address of the client, without its port.
func hostOf(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr) // the server has made it
	return host
}

func waitFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // fails only if the client is gone
}
