package weblogin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// hstsHeader is the value of Strict-Transport-Security.
var hstsHeader = fmt.Sprintf("max-age=%d", hstsSeconds)

// The cookies. A browser sends them to no script.
const (
	sessionCookie = "session" // the id of the session
	formCookie    = "form"    // a random text that the form of a login is bound to
	oidcCookie    = "oidc"    // a login by OpenID Connect that is under way, sealed
)

// tokenField is the field of a form, and tokenHeader the header of a request, that has the form token.
const (
	tokenField  = "token"
	tokenHeader = "X-Leat-Token"
)

// cookieName is the name of a cookie. Where the browser has come over TLS, it begins with __Host-, so that no other server of the same domain, and nobody on the
// way, can have set it.
func (l *Login) cookieName(r *http.Request, what string) string {
	name := "leat-" + what + "-" + l.cfg.Cookies
	if l.isEncrypted(r) {
		return "__Host-" + name
	}
	return name
}

// isEncrypted tells whether the browser has come over TLS: to this node, or to a proxy at the address of leat.http.oidc.redirect.url.
func (l *Login) isEncrypted(r *http.Request) bool {
	return r.TLS != nil || l.cfg.OIDC != nil && l.cfg.OIDC.Redirect.Scheme == "https" && strings.EqualFold(r.Host, l.cfg.OIDC.Redirect.Host)
}

// cookie is the value of a cookie; "": there is none.
func (l *Login) cookie(r *http.Request, what string) string {
	c, err := r.Cookie(l.cookieName(r, what))
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie sets a cookie that ends with the browser's session. With an empty value it is deleted.
func (l *Login) setCookie(w http.ResponseWriter, r *http.Request, what, value string) {
	c := &http.Cookie{Name: l.cookieName(r, what), Value: value, Path: "/", HttpOnly: true, Secure: l.isEncrypted(r), SameSite: http.SameSiteLaxMode}
	if what == formCookie { // it is needed by this origin's own form alone; the others also when another site, such as the issuer, sends the browser here
		c.SameSite = http.SameSiteStrictMode
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// randomText is a text that nobody can guess.
func randomText() string {
	b := make([]byte, idBytes)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// tokenFor is the form token of a session, or of a form cookie. Nobody can make one who does not have the key, or learns the session by it.
func (l *Login) tokenFor(id string) string {
	h := hmac.New(sha256.New, l.formKey[:])
	_, _ = h.Write([]byte(id)) // it never fails
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// isToken tells whether a form token is that of an id.
func (l *Login) isToken(token, id string) bool {
	return id != "" && subtle.ConstantTimeCompare([]byte(token), []byte(l.tokenFor(id))) == 1
}

// checkToken tells whether a request may change something: a browser sends the session with whatever another page has it send, so that a change also needs the
// form token. If it may not, the client has been answered.
func (l *Login) checkToken(w http.ResponseWriter, r *http.Request, v *Visitor) bool {
	if v.session == "" || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	token := r.Header.Get(tokenHeader)
	if token == "" {
		r.Body = http.MaxBytesReader(w, r.Body, mostFormBytes)
		token = r.PostFormValue(tokenField)
	}
	if !l.isToken(token, v.session) {
		writeText(w, http.StatusForbidden, "the form is not of this session: open the page again")
		return false
	}
	return true
}

// seal encrypts what a browser keeps for a purpose.
func (l *Login) seal(purpose string, plain []byte) string {
	return base64.RawURLEncoding.EncodeToString(l.sealer.Seal(nil, nil, plain, []byte(purpose)))
}

// unseal decrypts what seal has made in this process.
func (l *Login) unseal(purpose, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return l.sealer.Open(nil, nil, b, []byte(purpose))
}
