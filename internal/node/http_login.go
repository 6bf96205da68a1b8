package node

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/weblogin"
)

// prepareHTTPLogin has the pages of HTTP be shown to whom they may be shown to, now that it is known whether the node is secured. It refuses settings
// of a login that nobody is asked for.
func prepareHTTPLogin(n *Node) error {
	isKept := n.securing.kept.Load() != nil
	s, err := n.static.HTTPLogin(n.secured != nil || isKept)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if n.admin == nil {
		return nil
	}
	hosts := s.Hosts
	if s.OIDC != nil {
		hosts = append(slices.Clip(hosts), s.OIDC.Redirect.Host)
	}
	n.admin.hosts.Store(&hosts)
	switch {
	case isKept: // the metadata say how far it is secured, and are not there yet: see securing
		return nil
	case n.secured == nil:
		n.admin.login.Store(nil)
		return nil
	}
	login, err := newHTTPLogin(n, &s, n.authorizer)
	if err == nil {
		n.admin.login.Store(login)
	}
	return err
}

// newHTTPLogin has users see what ACLs let them.
func newHTTPLogin(n *Node, s *config.HTTPLogin, by *auth.Authorizer) (*weblogin.Login, error) {
	c := weblogin.Config{
		Users: n.users, Authorizer: by, MetricsLogin: func() bool { return n.serverSettings().MetricsLogin },
		MustEncrypt: n.admin.isExposed, Cookies: strconv.Itoa(int(n.id.nodeID)), Idle: s.Idle, Longest: s.Longest, Logger: n.loggers.loggerOf(rootLogger),
	}
	for _, l := range n.settings {
		c.Delay = max(c.Delay, l.Delay)
	}
	if s.OIDC != nil {
		var err error
		if c.OIDC, err = oidcOf(s.OIDC); err != nil {
			return nil, err
		}
	}
	return weblogin.New(c)
}

// oidcOf is how users log in by an issuer of OpenID Connect.
func oidcOf(s *config.OIDCSettings) (*weblogin.OIDCConfig, error) {
	if _, err := clientTrusting(s.Tokens.CA); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return &weblogin.OIDCConfig{
		Issuer: s.Issuer, ClientID: s.ClientID, Secret: string(s.Secret), Redirect: s.Redirect, Scopes: s.Scopes,
		Tokens: auth.OAuthConfig{
			SubClaim: s.Tokens.SubClaim, ScopeClaim: s.Tokens.ScopeClaim, GroupClaim: s.Tokens.GroupClaim, ClockSkew: s.Tokens.ClockSkew,
			Refresh: s.Tokens.Refresh, RetryBackoff: s.Tokens.RetryBackoff, MostRetrying: s.Tokens.MostRetrying,
		},
		Client: func() (*http.Client, error) { return clientTrusting(s.Tokens.CA) },
	}, nil
}

// maybeTLS accepts connections that have TLS where the node is secured.
type maybeTLS struct {
	net.Listener

	login  *atomic.Pointer[weblogin.Login]
	config *tls.Config
}

// Accept accepts a connection. The server does the handshake.
func (l *maybeTLS) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil && l.login.Load().IsSecured() {
		nc = tls.Server(nc, l.config)
	}
	return nc, err
}

func isLoopbackAddr(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// writeReadiness tells whether a node serves clients, and no more.
func writeReadiness(w http.ResponseWriter, ready bool) {
	if ready {
		writeText(w, http.StatusOK, "ready")
		return
	}
	writeText(w, http.StatusServiceUnavailable, "not ready")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // fails only if the client is gone
}
