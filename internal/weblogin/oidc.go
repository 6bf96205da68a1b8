package weblogin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/auth"
)

const (
	// underWayTime is how long a user may take at the issuer.
	underWayTime = 10 * time.Minute
	// mostSpent is how many logins of that time are known to have ended. When one more ends, it is refused.
	mostSpent = 4096
	// logPause is the shortest time between two lines of the log about logins that have failed: everybody can have one fail.
	logPause = 10 * time.Second
)

// underWay is a login by OpenID Connect that has begun. The browser keeps it, sealed; the issuer brings back the state.
type underWay struct {
	State    string    `json:"state"`    // shows that the browser which comes back is the one that has begun
	Nonce    string    `json:"nonce"`    // shows that the ID token is for this login
	Verifier string    `json:"verifier"` // shows the issuer that who brings the code has asked for it (RFC 7636)
	Next     string    `json:"next"`
	Begun    time.Time `json:"begun"`
}

// challengeOf is what the issuer is told of a verifier before.
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// spentLogins are the states of logins that have ended with a session, so that none of them does so twice.
type spentLogins struct {
	mu     sync.Mutex
	until  map[string]time.Time // guarded by mu
	logged time.Time            // guarded by mu: the last line about a login that has failed
}

// spend notes that a login ends; false: it has ended before, or there are too many.
func (s *spentLogins) spend(state string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for known, end := range s.until {
		if now.After(end) {
			delete(s.until, known)
		}
	}
	if _, isSpent := s.until[state]; isSpent || len(s.until) >= mostSpent {
		return false
	}
	if s.until == nil {
		s.until = map[string]time.Time{}
	}
	s.until[state] = now.Add(underWayTime)
	return true
}

func (s *spentLogins) mayLog(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.logged) < logPause {
		return false
	}
	s.logged = now
	return true
}

// sendToIssuer begins a login by OpenID Connect.
func (l *Login) sendToIssuer(w http.ResponseWriter, r *http.Request) {
	u := underWay{State: randomText(), Nonce: randomText(), Verifier: randomText(), Next: safeTarget(r.URL.Query().Get("next")), Begun: time.Now()}
	d, err := l.provider.discover(r.Context())
	var to string
	if err == nil {
		to, err = l.provider.addressFor(d, &u)
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(u)
	}
	if err != nil {
		l.failOIDC(w, r, err, "The issuer cannot be asked now. Try again later; the log of this node says why.")
		return
	}
	l.setCookie(w, r, oidcCookie, l.seal(oidcCookie, text))
	http.Redirect(w, r, to, http.StatusSeeOther)
}

var (
	errNotBegun = errors.New("this browser has not begun a login, or too long ago")
	errState    = errors.New("the answer is to another login: its state is another one")
	errSpent    = errors.New("the login has ended before")
	errBusy     = errors.New("too many logins come at a time")
)

// takeCode takes the issuer's answer, which the browser brings.
func (l *Login) takeCode(w http.ResponseWriter, r *http.Request) {
	u, err := l.findUnderWay(r)
	if err != nil {
		l.failOIDC(w, r, err, "This browser has not begun a login, or too long ago. Try again.")
		return
	}
	login, err := l.redeem(r, u)
	if err == nil && !l.spent.spend(u.State, time.Now()) {
		err = errSpent
	}
	if err != nil {
		l.failOIDC(w, r, err, "The login has failed; the log of this node says why.")
		return
	}
	l.setCookie(w, r, oidcCookie, "")
	l.noteLogin(r, OIDC, login.Principal, "", nil)
	l.beginSession(w, r, session{principal: login.Principal, groups: login.Groups, how: OIDC}, login.Lifetime)
	http.Redirect(w, r, u.Next, http.StatusSeeOther)
}

// findUnderWay finds the login that the browser has begun.
func (l *Login) findUnderWay(r *http.Request) (*underWay, error) {
	text, err := l.unseal(oidcCookie, l.cookie(r, oidcCookie))
	if err != nil {
		return nil, errNotBegun
	}
	var u underWay
	if err := json.Unmarshal(text, &u); err != nil {
		return nil, err
	}
	if time.Since(u.Begun) > underWayTime {
		return nil, errNotBegun
	}
	return &u, nil
}

// redeem checks the issuer's answer, and has the issuer tell by its code who has logged in.
func (l *Login) redeem(r *http.Request, u *underWay) (*auth.Login, error) {
	q, p := r.URL.Query(), l.provider
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(u.State)) != 1 {
		return nil, errState
	}
	d, err := p.discover(r.Context())
	if err != nil {
		return nil, err
	}
	if issuer := q.Get("iss"); issuer != "" && issuer != p.cfg.Issuer || issuer == "" && d.TellsIssuer {
		return nil, errors.New("the answer is of another issuer") // RFC 9207
	}
	code := q.Get("code")
	switch text := q.Get("error"); {
	case isErrorCode(text):
		return nil, errors.New("the issuer has refused the login: " + text)
	case code == "" || len(code) > longestCode:
		return nil, errors.New("the answer has no code")
	}
	select {
	case p.exchanges <- struct{}{}:
		defer func() { <-p.exchanges }()
	default:
		return nil, errBusy
	}
	return p.exchange(r.Context(), d, code, u)
}

// failOIDC answers a login by OpenID Connect that has failed. The reason is for the log alone.
func (l *Login) failOIDC(w http.ResponseWriter, r *http.Request, err error, text string) {
	l.noteLogin(r, OIDC, auth.Principal{}, "", err)
	if l.spent.mayLog(time.Now()) {
		l.cfg.Logger.Warn("a login by OpenID Connect has failed; others are not logged for some seconds", "address", r.RemoteAddr, "error", err)
	}
	waitFor(r.Context(), l.cfg.Delay)
	l.writeForm(w, r, "/", text)
}
