package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The configs of logins at the pages of HTTP.
const (
	httpHosts     = "leat.http.hosts"
	sessionPrefix = "leat.http.session."
	oidcPrefix    = "leat.http.oidc."
	issuerURL     = oidcPrefix + "issuer.url"
	redirectURL   = oidcPrefix + "redirect.url"
	clientIDKey   = oidcPrefix + "client.id"
	clientSecret  = oidcPrefix + "client.secret"
	issuerCA      = "leat.sasl.oauthbearer.ca.location"
	openID        = "openid" // the scope without which an issuer makes no ID token
)

// HTTPLogin says how users log in at the pages of HTTP.
type HTTPLogin struct {
	Hosts         []string      // further names by which the pages are asked for on a loopback address
	Idle, Longest time.Duration // how long a session lasts without a request, and in all
	OIDC          *OIDCSettings // nil: users have passwords only
}

// OIDCSettings say how users log in by an issuer of OpenID Connect.
type OIDCSettings struct {
	Issuer, ClientID string
	Secret           Secret   // "": the client is a public one
	Redirect         *url.URL // the address of the pages as browsers have it: scheme and host
	Scopes           []string // openid is one of them
	Tokens           OAuthSettings
}

// Secret is a text that is never printed.
type Secret string

// Format prints nothing of the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "[hidden]") }

// HTTPLogin reads how users log in at the pages of HTTP. isSecured tells that the pages ask for a login at all. The error refuses settings that have no
// effect, and those by which a login would not be safe.
func (s *Static) HTTPLogin(isSecured bool) (HTTPLogin, error) {
	r := newReader(View{Static: s}, brokerTable, nil)
	h := HTTPLogin{Hosts: r.readList(httpHosts), Idle: r.readMillis(sessionPrefix + "idle.ms"), Longest: r.readMillis(sessionPrefix + "max.ms")}
	given := slices.Concat(s.GivenWith(oidcPrefix), s.GivenWith(sessionPrefix))
	if !isSecured && len(given) > 0 {
		return h, refusedConfig("%s is about logins, and the pages of this node ask for none: secure the cluster (leat up --secure), or leave the setting out", given[0])
	}
	issuer := r.readString(issuerURL)
	if of := s.GivenWith(oidcPrefix); issuer == "" {
		if len(of) > 0 && of[0] != issuerURL {
			return h, refusedConfig("%s is set, and %s is not: name the issuer of tokens, as in %s=https://issuer.example/realms/people", of[0], issuerURL, issuerURL)
		}
		return h, nil
	}
	o := &OIDCSettings{
		Issuer: issuer, ClientID: r.readString(clientIDKey), Secret: Secret(s.given[clientSecret]),
		Scopes: r.readList(oidcPrefix + "scopes"), Tokens: s.ForListener("").readOAuth(),
	}
	if !slices.Contains(o.Scopes, openID) {
		o.Scopes = slices.Insert(o.Scopes, 0, openID)
	}
	if o.ClientID == "" {
		return h, refusedConfig("%s is set, and %s is not: it is the name by which the issuer knows these pages", issuerURL, clientIDKey)
	}
	if u, err := url.Parse(issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return h, refusedConfig("%s: it must be the issuer's https:// URL, since whoever could change its keys on the way could log in as anybody", issuerURL)
	}
	var err error
	o.Redirect, err = parseRedirect(r.readString(redirectURL))
	h.OIDC = o
	return h, err
}

// parseRedirect parses the address of the pages as browsers have it.
func parseRedirect(text string) (*url.URL, error) {
	if text == "" {
		return nil, refusedConfig("%s is set, and %s is not: it is the address of these pages in the users' browsers, as in %s=https://broker1.example.com:8080", issuerURL, redirectURL, redirectURL)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, refusedConfig("%s: it has a protocol, a name or address, and a port, and no path, as in https://broker1.example.com:8080", redirectURL)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !IsLoopbackName(u.Hostname())) {
		return nil, refusedConfig("%s: it must be https://, or http:// with a loopback address, since whoever reads the redirection on the way could log in", redirectURL)
	}
	u.Path = ""
	return u, nil
}

// IsLoopbackName tells whether a name or an address is always one of this machine: a loopback address, localhost, or a name below it (RFC 6761).
func IsLoopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
