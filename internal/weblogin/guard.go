package weblogin

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// longestTarget is how many bytes the path of a page has at most to which a login returns: it is a part of a cookie.
const longestTarget = 1024

// GuardBrowsers tells browsers to run nothing of what a page has, to show it in no other page, to take it for nothing else than it is, to keep it nowhere,
// and to come back over TLS if they have come so. It takes no changes from pages of other origins. A page may set a policy of its own.
func GuardBrowsers(next http.Handler) http.Handler {
	var origins http.CrossOriginProtection
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusForbidden, "a page of another origin has sent this: nothing was done")
	}))
	guarded := origins.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin") // without any, browsers do not tell of which origin a form is
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", hstsHeader)
		}
		guarded.ServeHTTP(w, r)
	})
}

// IsOwnHost tells whether a request to a loopback address is meant for it, by the Host that it names: one of this machine, or one of others, which the
// operator has named. A web site that has its own name resolve to a loopback address (DNS rebinding) names another one.
func IsOwnHost(host string, others []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	return config.IsLoopbackName(name) || slices.ContainsFunc(others, func(o string) bool { return strings.EqualFold(o, name) || strings.EqualFold(o, host) })
}

// safeTarget is the path of this server to which a browser may be sent after a login: the text, if it is one, or the first page.
func safeTarget(text string) string {
	const home = "/"
	if len(text) > longestTarget || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") {
		return home
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f || r > 0x7e }) {
		return home // browsers take a backslash for a slash, and skip some others
	}
	u, err := url.Parse(text)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Path == "/login" || strings.HasPrefix(u.Path, "/login/") || u.Path == "/logout" {
		return home
	}
	return text
}
