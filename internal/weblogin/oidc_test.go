package weblogin

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leatstream/leat/internal/auth"
)

const (
	issuerName = "https://issuer.example/realms/people"
	clientID   = "leat pages"
	secret     = "geheim:%&"
)

// issuer is an issuer of OpenID Connect. It is strict: it checks all that a client must send.
type issuer struct {
	t      *testing.T
	user   string // who is logged in there
	groups []string

	isPublic bool                             // the client has no secret
	alter    func(c map[string]any)           // of an ID token
	sign     func(c map[string]any) string    // in place of the issuer's signature
	config   func(d map[string]any)           // alters the configuration
	reply    func(w http.ResponseWriter) bool // of the token endpoint, in place of its own; false: its own

	mu      sync.Mutex
	keyID   string
	key     *ecdsa.PrivateKey
	codes   map[string]*url.URL // what was asked for
	isDown  bool
	reads   map[string]int
	clients []string // how clients have proved who they are
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, user: "carol", groups: []string{"ops"}, codes: map[string]*url.URL{}, reads: map[string]int{}}
	i.rotate("one")
	return i
}

// rotate replaces the key.
func (i *issuer) rotate(id string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keyID, i.key = id, key
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reads[r.URL.Path]++
	at := strings.TrimPrefix(issuerName, "https://issuer.example")
	switch r.URL.Path {
	case at + "/.well-known/openid-configuration":
		d := map[string]any{
			"issuer": issuerName, "authorization_endpoint": issuerName + "/auth?theme=dark", "token_endpoint": issuerName + "/token", "jwks_uri": issuerName + "/keys",
			"code_challenge_methods_supported": []string{"plain", "S256"}, "token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
			"authorization_response_iss_parameter_supported": true,
		}
		if i.config != nil {
			i.config(d)
		}
		_, _ = w.Write(asJSON(i.t, d))
	case at + "/keys":
		_, _ = w.Write(asJSON(i.t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.keyID, Algorithm: string(jose.ES256), Use: "sig"}}}))
	case at + "/token":
		i.serveToken(w, r)
	default:
		http.NotFound(w, r)
	}
}

// authorize has the user, who is logged in at the issuer, agree. It returns where the browser is sent.
func (i *issuer) authorize(to string) *url.URL {
	i.t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		i.t.Fatal(err)
	}
	q := u.Query()
	if !strings.HasPrefix(to, issuerName+"/auth?") || q.Get("theme") != "dark" || q.Get("response_type") != "code" || q.Get("client_id") != clientID || q.Get("redirect_uri") != home+callbackPath ||
		!slices.Contains(strings.Fields(q.Get("scope")), "openid") || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 40 || len(q.Get("nonce")) < 40 {
		i.t.Fatalf("the browser is sent to %s", to)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	code := randomText()
	i.codes[code] = u
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		i.t.Fatal(err)
	}
	back.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {issuerName}}.Encode()
	return back
}

func (i *issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	if i.reply != nil && i.reply(w) {
		return
	}
	refuse := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(asJSON(i.t, map[string]string{"error": code, "error_description": "text of the issuer"}))
	}
	asked := i.codes[r.PostFormValue("code")]
	delete(i.codes, r.PostFormValue("code")) // once
	name, password, isBasic := r.BasicAuth()
	switch {
	case r.Method != http.MethodPost || r.URL.RawQuery != "":
		refuse("invalid_request")
		return
	case isBasic && !i.isPublic && name == url.QueryEscape(clientID) && password == url.QueryEscape(secret) && r.PostFormValue("client_id") == "":
		i.clients = append(i.clients, "basic")
	case !isBasic && !i.isPublic && r.PostFormValue("client_id") == clientID && r.PostFormValue("client_secret") == secret:
		i.clients = append(i.clients, "post")
	case !isBasic && i.isPublic && r.PostFormValue("client_id") == clientID && !r.PostForm.Has("client_secret"):
		i.clients = append(i.clients, "none")
	default:
		refuse("invalid_client")
		return
	}
	if asked == nil || r.PostFormValue("grant_type") != "authorization_code" || r.PostFormValue("redirect_uri") != asked.Query().Get("redirect_uri") ||
		challengeOf(r.PostFormValue("code_verifier")) != asked.Query().Get("code_challenge") {
		refuse("invalid_grant")
		return
	}
	claims := map[string]any{
		"iss": issuerName, "aud": clientID, "azp": clientID, "sub": i.user, "groups": i.groups, "nonce": asked.Query().Get("nonce"),
		"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
	}
	if i.alter != nil {
		i.alter(claims)
	}
	sign := i.sign
	if sign == nil {
		sign = func(c map[string]any) string { return signed(i.t, i.key, i.keyID, c) }
	}
	_, _ = w.Write(asJSON(i.t, map[string]any{"access_token": "opaque", "token_type": "Bearer", "id_token": sign(claims), "expires_in": 300}))
}

func signed(t *testing.T, key crypto.Signer, id string, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", id))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

var errDown = errors.New("no route to the issuer")

// RoundTrip brings a request to the issuer.
func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	isDown := i.isDown
	i.mu.Unlock()
	if r.URL.Scheme != "https" || isDown {
		return nil, errDown
	}
	w := httptest.NewRecorder()
	own := r.Clone(r.Context())
	own.RequestURI = ""
	if own.Body == nil {
		own.Body = http.NoBody
	}
	i.ServeHTTP(w, own)
	return w.Result(), nil
}

// newSite is a site whose users log in at the issuer.
func (i *issuer) newSite(change ...func(*OIDCConfig)) *site {
	i.t.Helper()
	return newSite(i.t, func(c *Config) {
		at, err := url.Parse(home)
		if err != nil {
			i.t.Fatal(err)
		}
		o := &OIDCConfig{
			Issuer: issuerName, ClientID: clientID, Secret: secret, Redirect: at, Scopes: []string{"openid", "groups"},
			Tokens: auth.OAuthConfig{
				SubClaim: "sub", ScopeClaim: "scope", GroupClaim: "groups", ClockSkew: 30 * time.Second, Refresh: time.Hour, RetryBackoff: 100 * time.Millisecond, MostRetrying: time.Second,
			},
			Client: func() (*http.Client, error) { return &http.Client{Transport: i}, nil },
		}
		if i.isPublic {
			o.Secret = ""
		}
		for _, f := range change {
			f(o)
		}
		c.OIDC = o
	})
}

// begin begins a login, and returns where the issuer sends the browser.
func (b *browser) begin(i *issuer) *url.URL {
	i.t.Helper()
	resp := b.get("/login/oidc?next=/state")
	if resp.status != http.StatusSeeOther {
		i.t.Fatalf("beginning a login: %d, %s", resp.status, resp.text)
	}
	return i.authorize(resp.head.Get("Location"))
}

// finish has the issuer send the browser back.
func (b *browser) finish(back *url.URL) answer {
	b.site.t.Helper()
	return b.ask(request{method: http.MethodGet, url: back.String(), from: "https://issuer.example", isLink: true})
}

// TestOIDCLogin proves a login by code flow with PKCE: the browser that comes back is the user of the token, with its groups, for as long as the token lasts, whether the
// client has a secret, in either form, or none; that it has a new session; and that the audit log has it.
func TestOIDCLogin(t *testing.T) {
	for name, c := range map[string]struct {
		alter func(i *issuer)
		want  string
	}{
		"a secret in the head": {func(*issuer) {}, "basic"},
		"a secret in the form": {func(i *issuer) {
			i.config = func(d map[string]any) { d["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"} }
		}, "post"},
		"no secret": {func(i *issuer) { i.isPublic = true }, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newIssuer(t)
				c.alter(i)
				s := i.newSite()
				events := s.recordUntil()
				b := s.newBrowser()
				if page := b.get("/login?next=/state").text; !strings.Contains(page, `href="/login/oidc?next=/state"`) && !strings.Contains(page, `href="/login/oidc?next=%2fstate"`) || !strings.Contains(page, "issuer.example") {
					t.Errorf("the page is %s", page)
				}
				b.logIn("alice", "alices-password")
				before := b.cookie("session").Value
				resp := b.finish(b.begin(i))
				if resp.status != http.StatusSeeOther || resp.head.Get("Location") != "/state" {
					t.Fatalf("coming back: %d, %v", resp.status, resp.head)
				}
				if b.cookie("session").Value == before || b.cookie("oidc") != nil {
					t.Error("the session from before, or the login, is kept")
				}
				if who := b.whoIs(); who != "carol" {
					t.Errorf("the browser is %q", who)
				}
				if got := b.get("/profiles").status; got != http.StatusOK { // by the group ops, which is a super user
					t.Errorf("the groups do not count: %d", got)
				}
				if !slices.Equal(i.clients, []string{c.want}) {
					t.Errorf("the client has come by %v", i.clients)
				}
				if time.Sleep(4 * time.Minute); b.whoIs() != "carol" {
					t.Error("the session has ended before the token")
				}
				if time.Sleep(time.Minute); b.whoIs() != "" {
					t.Error("the session goes on after the token")
				}
				checkEvents(t, events(), "leat.login.succeeded User:alice   FORM", "leat.login.succeeded User:carol   OIDC")
			})
		})
	}
}

// TestOIDCGroups proves that what a user may do is by the groups of the token, of this login and no earlier one.
func TestOIDCGroups(t *testing.T) {
	i := newIssuer(t)
	s := i.newSite()
	b := s.newBrowser()
	b.finish(b.begin(i))
	if got := b.get("/profiles").status; got != http.StatusOK {
		t.Errorf("in the group: %d", got)
	}
	i.groups = []string{"others"}
	b.finish(b.begin(i))
	if got := b.get("/profiles").status; got != http.StatusForbidden {
		t.Errorf("not in the group any more: %d", got)
	}
}

// TestOIDCIsRefused proves that no login succeeds but by the browser that has begun it, once, in time, with an ID token of the issuer for this client and this login; and
// that the browser is not told why, after the delay of a failed login, while the audit log has it.
func TestOIDCIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		alter  func(i *issuer)              // of the issuer
		back   func(u *url.URL, b *browser) // of what comes back
		reason string
	}{
		"another state":    {nil, func(u *url.URL, _ *browser) { set(u, "state", "x") }, "its state is another one"},
		"no state":         {nil, func(u *url.URL, _ *browser) { set(u, "state", "") }, "its state is another one"},
		"another login's":  {nil, func(_ *url.URL, b *browser) { b.get("/login/oidc") }, "its state is another one"},
		"another browser":  {nil, func(_ *url.URL, b *browser) { clear(b.cookies) }, "has not begun a login"},
		"a cookie made up": {nil, func(_ *url.URL, b *browser) { b.cookie("oidc").Value = "AAAA" }, "has not begun a login"},
		"a changed cookie": {nil, func(_ *url.URL, b *browser) { b.cookie("oidc").Value = "AAAA" + b.cookie("oidc").Value[4:] }, "has not begun a login"},
		"another issuer":   {nil, func(u *url.URL, _ *browser) { set(u, "iss", "https://evil.example") }, "of another issuer"},
		"no issuer":        {nil, func(u *url.URL, _ *browser) { set(u, "iss", "") }, "of another issuer"},
		"no code":          {nil, func(u *url.URL, _ *browser) { set(u, "code", "") }, "has no code"},
		"a long code":      {nil, func(u *url.URL, _ *browser) { set(u, "code", strings.Repeat("x", 5000)) }, "has no code"},
		"an unknown code":  {nil, func(u *url.URL, _ *browser) { set(u, "code", "x") }, "refuses the code: invalid_grant"},
		"refused there":    {nil, func(u *url.URL, _ *browser) { set(u, "error", "access_denied") }, "refused the login: access_denied"},
		"too late":         {nil, func(*url.URL, *browser) { time.Sleep(11 * time.Minute) }, "too long ago"},
		"another verifier": {func(i *issuer) { i.alterCodes("code_challenge", challengeOf("x")) }, nil, "refuses the code: invalid_grant"},
		"another nonce":    {func(i *issuer) { i.alter = func(c map[string]any) { c["nonce"] = "x" } }, nil, "claim nonce is another one"},
		"no nonce":         {func(i *issuer) { i.alter = func(c map[string]any) { delete(c, "nonce") } }, nil, "claim nonce is another one"},
		"another audience": {func(i *issuer) { i.alter = func(c map[string]any) { c["aud"] = "other" } }, nil, "audience"},
		"two audiences": {func(i *issuer) {
			i.alter = func(c map[string]any) { c["aud"] = []string{clientID, "other"}; delete(c, "azp") }
		}, nil, "claim azp"},
		"another party":     {func(i *issuer) { i.alter = func(c map[string]any) { c["azp"] = "other" } }, nil, "claim azp"},
		"of another issuer": {func(i *issuer) { i.alter = func(c map[string]any) { c["iss"] = "https://evil.example" } }, nil, "issuer"},
		"an old token":      {func(i *issuer) { i.alter = func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() } }, nil, "expired"},
		"no end":            {func(i *issuer) { i.alter = func(c map[string]any) { delete(c, "exp") } }, nil, "lacks exp"},
		"no user":           {func(i *issuer) { i.alter = func(c map[string]any) { delete(c, "sub") } }, nil, "no name of a user"},
		"too many groups":   {func(i *issuer) { i.alter = func(c map[string]any) { c["groups"] = make([]string, 300) } }, nil, "groups"},
		"no signature": {func(i *issuer) {
			i.sign = func(c map[string]any) string {
				return encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + encode(asJSON(i.t, c)) + "."
			}
		}, nil, "it is no JSON Web Token that is signed"},
		"a shared secret": {func(i *issuer) {
			i.sign = func(c map[string]any) string {
				signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat(secret, 5))}, nil)
				if err != nil {
					i.t.Fatal(err)
				}
				token, err := jwt.Signed(signer).Claims(c).Serialize()
				if err != nil {
					i.t.Fatal(err)
				}
				return token
			}
		}, nil, "it is no JSON Web Token that is signed"},
		"another key": {func(i *issuer) {
			other := newIssuer(i.t)
			i.sign = func(c map[string]any) string { return signed(i.t, other.key, "one", c) }
		}, nil, "its signature"},
		"no ID token":  {func(i *issuer) { i.reply = says(http.StatusOK, `{"access_token":"geheim"}`) }, nil, "has no ID token"},
		"no JSON":      {func(i *issuer) { i.reply = says(http.StatusOK, `geheim`) }, nil, "cannot be read"},
		"much":         {func(i *issuer) { i.reply = says(http.StatusOK, strings.Repeat("geheim", 1<<18)) }, nil, "more than 1048576 bytes"},
		"an odd error": {func(i *issuer) { i.reply = says(http.StatusBadRequest, `{"error":"<b>geheim</b>"}`) }, nil, "issuer.example answers 400"},
		"a redirection": {func(i *issuer) {
			i.reply = func(w http.ResponseWriter) bool {
				w.Header().Set("Location", "https://evil.example/token")
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			}
		}, nil, "issuer.example answers 307"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newIssuer(t)
				s := i.newSite()
				events := s.recordUntil()
				b := s.newBrowser()
				back := b.begin(i)
				if c.alter != nil {
					c.alter(i)
				}
				if c.back != nil {
					c.back(back, b)
				}
				began := time.Now()
				resp := b.finish(back)
				if took := time.Since(began); took != failureDelay {
					t.Errorf("it waits %v", took)
				}
				text := resp.text
				if resp.status != http.StatusForbidden || b.cookie("session") != nil || strings.Contains(text, "geheim") || strings.Contains(text, "access_denied") {
					t.Errorf("it is answered %d, %s", resp.status, text)
				}
				got := events()
				if len(got) != 1 || !strings.HasPrefix(got[0], "leat.login.failed    OIDC ") || !strings.Contains(got[0], c.reason) || strings.Contains(got[0], "geheim") {
					t.Errorf("the audit log has %q, want %s", got, c.reason)
				}
			})
		})
	}
}

func set(u *url.URL, key, value string) {
	q := u.Query()
	if q.Set(key, value); value == "" {
		q.Del(key)
	}
	u.RawQuery = q.Encode()
}

func says(status int, text string) func(http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
		return true
	}
}

// alterCodes alters what was asked for.
func (i *issuer) alterCodes(key, value string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, u := range i.codes {
		set(u, key, value)
	}
}

// TestOIDCReplay proves that what a browser has brought once logs in nobody again: not the same browser, nor another one that has its cookies, even if the issuer would take
// the code again.
func TestOIDCReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		s := i.newSite()
		b, thief := s.newBrowser(), s.newBrowser()
		back := b.begin(i)
		stolen := *b.cookie("oidc")
		code, asked := back.Query().Get("code"), i.codes[back.Query().Get("code")]
		if resp := b.finish(back); resp.status != http.StatusSeeOther {
			t.Fatalf("the first time: %d", resp.status)
		}
		if resp := b.finish(back); resp.status != http.StatusForbidden {
			t.Errorf("the same browser again: %d", resp.status)
		}
		thief.cookies[stolen.Name] = &stolen
		if resp := thief.finish(back); resp.status != http.StatusForbidden || thief.cookie("session") != nil {
			t.Errorf("a thief: %d", resp.status)
		}
		i.codes[code] = asked // an issuer that is not strict
		thief.cookies[stolen.Name] = &stolen
		if resp := thief.finish(back); resp.status != http.StatusForbidden || thief.cookie("session") != nil {
			t.Errorf("a thief, and the issuer takes the code again: %d", resp.status)
		}
		var l spentLogins
		now := time.Now()
		for n := range mostSpent {
			if !l.spend(fmt.Sprint(n), now) {
				t.Fatal("too few logins may end")
			}
		}
		if l.spend("one more", now) || !l.spend("later", now.Add(underWayTime+time.Second)) || len(l.until) != 1 {
			t.Errorf("%d logins are remembered", len(l.until))
		}
	})
}

// TestOIDCKeysRotate proves that a token which is signed by a new key of the issuer logs in, and one by a key that the issuer has taken back does not once the keys were
// read again.
func TestOIDCKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		s := i.newSite()
		logIn := func() bool {
			b := s.newBrowser()
			return b.finish(b.begin(i)).status == http.StatusSeeOther
		}
		for range 2 {
			if !logIn() {
				t.Fatal("no login")
			}
		}
		at := strings.TrimPrefix(issuerName, "https://issuer.example")
		if i.reads[at+"/keys"] != 1 || i.reads[at+"/.well-known/openid-configuration"] != 1 {
			t.Errorf("the issuer was asked %v", i.reads)
		}
		old, oldID := i.key, i.keyID
		i.rotate("two")
		if time.Sleep(11 * time.Second); !logIn() {
			t.Error("the new key is not known")
		}
		i.sign = func(c map[string]any) string { return signed(t, old, oldID, c) }
		if logIn() {
			t.Error("the old key counts")
		}
	})
}

// TestOIDCIssuerIsDown proves that logins by a password go on while the issuer cannot be asked; that the issuer is asked at most once a second then; that a configuration
// which was read goes on to count; and that logins by the issuer work again when it is back.
func TestOIDCIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		i.isDown = true
		s := i.newSite()
		b := s.newBrowser()
		for range 3 {
			if resp := b.get("/login/oidc"); resp.status != http.StatusForbidden || !strings.Contains(resp.text, "The issuer cannot be asked now.") {
				t.Errorf("the issuer is down: %d", resp.status)
			}
		}
		if b.logIn("alice", "alices-password"); b.whoIs() != "alice" {
			t.Error("a password does not log in")
		}
		i.isDown = false
		time.Sleep(time.Second)
		back := b.begin(i)
		if b.finish(back); b.whoIs() != "carol" {
			t.Error("the issuer is back, and logs nobody in")
		}
		i.isDown = true
		time.Sleep(2 * time.Hour)
		if resp := b.get("/login/oidc"); resp.status != http.StatusSeeOther {
			t.Errorf("an old configuration: %d", resp.status)
		}
	})
}

// TestOIDCBusy proves that only few codes are exchanged at a time.
func TestOIDCBusy(t *testing.T) {
	i := newIssuer(t)
	s := i.newSite()
	b := s.newBrowser()
	back := b.begin(i)
	for range mostExchanges {
		s.login.provider.exchanges <- struct{}{}
	}
	if resp := b.finish(back); resp.status != http.StatusForbidden {
		t.Errorf("one more: %d", resp.status)
	}
	<-s.login.provider.exchanges
	if resp := b.finish(back); resp.status != http.StatusSeeOther {
		t.Errorf("when there is room: %d", resp.status)
	}
}

// TestOIDCCookie proves that the cookie of a login that is under way tells nothing to who reads it, and is kept by the browser alone.
func TestOIDCCookie(t *testing.T) {
	i := newIssuer(t)
	s := i.newSite()
	b := s.newBrowser()
	back := b.begin(i)
	c := b.cookie("oidc")
	if c == nil || !c.HttpOnly || !c.Secure || c.Path != "/" || c.SameSite != http.SameSiteLaxMode || len(c.Value) > 3000 {
		t.Fatalf("the cookie is %v", c)
	}
	if strings.Contains(c.Value, back.Query().Get("state")) {
		t.Error("the cookie shows the state")
	}
	longest := "/" + strings.Repeat("x", longestTarget-1)
	if resp := b.get("/login/oidc?next=" + longest); resp.status != http.StatusSeeOther || len(b.cookie("oidc").String()) > 4096 {
		t.Errorf("with a long path: %d bytes", len(b.cookie("oidc").String()))
	}
}

// TestDiscovery proves which configurations of an issuer are used.
func TestDiscovery(t *testing.T) {
	good := map[string]any{"issuer": issuerName, "authorization_endpoint": "https://a.example/auth", "token_endpoint": "https://b.example/token", "jwks_uri": "https://c.example/keys"}
	for why, change := range map[string][2]any{
		"": {"x", 1}, "is of": {"issuer", issuerName + "/"}, "authorization_endpoint": {"authorization_endpoint", "http://a.example"}, "token_endpoint": {"token_endpoint", nil},
		"jwks_uri": {"jwks_uri", "https://user@c.example/keys"}, "PKCE": {"code_challenge_methods_supported", []string{"plain"}}, "cannot be read": {"issuer", 7},
	} {
		d := map[string]any{}
		maps.Copy(d, good)
		key, _ := change[0].(string)
		d[key] = change[1]
		_, err := parseDiscovery(asJSON(t, d), issuerName)
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for _, bad := range []*OIDCConfig{{}, {ClientID: "x"}} {
		if _, err := newProvider(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an empty Config is taken")
	}
}

// FuzzIssuer proves that no answer of an issuer leads anywhere but to https, or shows a browser or the log more than a code.
func FuzzIssuer(f *testing.F) {
	f.Add([]byte(`{"issuer":"` + issuerName + `","authorization_endpoint":"https://a/","token_endpoint":"https://b/","jwks_uri":"https://c/"}`))
	f.Add([]byte(`{"id_token":"a.b.c"}`))
	f.Add([]byte(`{"error":"invalid_grant"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if d, err := parseDiscovery(text, issuerName); err == nil {
			for _, at := range []string{d.Authorization, d.Token, d.Keys} {
				if u, err := url.Parse(at); err != nil || u.Scheme != "https" || u.Host == "" {
					t.Errorf("%q is used", at)
				}
			}
		}
		for _, failed := range []error{nil, errDown} {
			token, err := parseTokenAnswer(text, failed)
			if (token == "") == (err == nil) || failed != nil && err == nil {
				t.Errorf("%q, %v", token, err)
			}
			if err != nil && failed == nil && json.Valid(text) && len(err.Error()) > 200 {
				t.Errorf("the error is %q", err)
			}
		}
	})
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
