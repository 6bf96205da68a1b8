package weblogin

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// TestFormLogin proves that a browser logs in by the form with the right password alone, that a wrong one waits, as does a user that does not exist, with the same
// words; that rights count as by HTTP Basic; that a browser without a login is sent to the form and back; and that logins and denials are recorded.
func TestFormLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		events := s.recordUntil()
		b := s.newBrowser()
		if resp := b.get("/state?a=b"); resp.status != http.StatusSeeOther || resp.head.Get("Location") != "/login?next=%2Fstate%3Fa%3Db" {
			t.Errorf("without a login: %d, %v", resp.status, resp.head)
		}
		if page := b.get("/login?next=%2Fstate%3Fa%3Db").text; !strings.Contains(page, `value="/state?a=b"`) {
			t.Errorf("the form does not lead back: %s", page)
		}
		for _, who := range [][2]string{{"alice", "wrong"}, {"nobody", "wrong"}, {"", ""}, {"alice", ""}, {strings.Repeat("x", 600), "x"}, {"alice", strings.Repeat("x", 2000)}} {
			began := time.Now()
			resp := b.logIn(who[0], who[1])
			if took := time.Since(began); took != failureDelay {
				t.Errorf("%.10q waits %v", who[0], took)
			}
			if text := resp.text; resp.status != http.StatusForbidden || !strings.Contains(text, "The user or the password is wrong.") || strings.Contains(text, "nobody") || resp.head.Get("WWW-Authenticate") != "" {
				t.Errorf("%.10q is answered %d, %s", who[0], resp.status, text)
			}
			if b.cookie("session") != nil {
				t.Errorf("%.10q has a session", who[0])
			}
		}
		if resp := b.logIn("alice", "alices-password"); resp.status != http.StatusSeeOther || resp.head.Get("Location") != "/state" {
			t.Errorf("the right password: %d, %v", resp.status, resp.head)
		}
		if who := b.whoIs(); who != "alice" {
			t.Errorf("the browser is %q", who)
		}
		for user, want := range map[string][3]int{"alice": {403, 403, 403}, "viewer": {200, 200, 403}, "admin": {200, 200, 200}} {
			b := s.newBrowser()
			b.logIn(user, user+"s-password")
			for i, path := range []string{"/state", "/metrics", "/profiles"} {
				if got := b.get(path).status; got != want[i] {
					t.Errorf("%s as %s: %d, want %d", path, user, got, want[i])
				}
				resp := s.newBrowser().ask(request{method: http.MethodGet, url: home + path, head: http.Header{"Authorization": {basic(user, user+"s-password")}}})
				if resp.status != want[i] {
					t.Errorf("%s as %s by Basic: %d, want %d", path, user, resp.status, want[i])
				}
			}
		}
		// A wrong password is not made good by a session.
		if resp := b.ask(request{method: http.MethodGet, url: home + "/", head: http.Header{"Authorization": {basic("alice", "wrong")}}}); resp.status != http.StatusUnauthorized || resp.head.Get("WWW-Authenticate") == "" {
			t.Errorf("a wrong password with a session: %d, %v", resp.status, resp.head)
		}
		s.open = true
		if got := s.newBrowser().get("/metrics").status; got != http.StatusOK {
			t.Errorf("open metrics: %d", got)
		}
		got := events()
		for _, want := range []string{
			"leat.login.failed  alice  FORM the user or the password is wrong", "leat.login.failed  nobody  FORM the user or the password is wrong", "leat.login.succeeded User:alice   FORM",
			"leat.login.succeeded User:viewer   BASIC", "leat.access.denied User:alice kafka-cluster DESCRIBE", "leat.login.failed  alice  BASIC the user or the password is wrong",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("the audit log lacks %q:\n%s", want, strings.Join(got, "\n"))
			}
		}
		stats, open := s.login.Stats()
		if open != 4 || stats[1] != (Stats{Form, 4, 6}) || stats[0].Failed != 1 {
			t.Errorf("counted: %+v, %d sessions", stats, open)
		}
	})
}

func basic(user, password string) string {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// TestSessionsEnd proves what ends a session: idleness, its longest time, a change of the password, the end of the user, and logging out, after which its id is good
// for nothing; and that a user who was made again is another one.
func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		logIn := func() *browser {
			b := s.newBrowser()
			if b.logIn("alice", "alices-password"); b.whoIs() != "alice" {
				t.Fatal("no login")
			}
			return b
		}
		b := logIn()
		time.Sleep(29 * time.Minute)
		if b.whoIs() != "alice" {
			t.Error("it has ended too early")
		}
		if time.Sleep(30 * time.Minute); b.whoIs() != "" {
			t.Error("an idle session goes on")
		}
		b = logIn()
		for range 11*60/20 + 2 {
			if time.Sleep(20 * time.Minute); b.whoIs() != "alice" {
				t.Fatal("a session that is used has ended")
			}
		}
		if time.Sleep(25 * time.Minute); b.whoIs() != "" {
			t.Error("a session goes on for ever")
		}
		if _, open := s.login.Stats(); open != 0 {
			t.Errorf("%d sessions are kept", open)
		}
		for name, change := range map[string]func(){
			"another password": func() { s.setPassword("alice", "another") },
			"the same password again": func() {
				s.apply(meta.CredentialUnset{CredentialOwner: meta.CredentialOwner{User: "alice", Mechanism: meta.ScramSHA256}})
				s.setPassword("alice", "alices-password")
			},
			"no user": func() {
				s.apply(meta.CredentialUnset{CredentialOwner: meta.CredentialOwner{User: "alice", Mechanism: meta.ScramSHA256}})
			},
		} {
			s.setPassword("alice", "alices-password")
			b := logIn()
			if change(); b.whoIs() != "" {
				t.Errorf("%s: the session goes on", name)
			}
		}
		s.setPassword("alice", "alices-password")
		b = logIn()
		stolen := *b.cookie("session")
		page := b.get("/login").text
		if !strings.Contains(page, "logged in as <strong>alice</strong>") {
			t.Errorf("the page says %s", page)
		}
		if resp := b.ask(request{method: http.MethodPost, url: home + "/logout", form: url.Values{"token": {b.token()}}, from: home}); resp.status != http.StatusSeeOther || b.cookie("session") != nil {
			t.Errorf("logging out: %d", resp.status)
		}
		thief := s.newBrowser()
		if thief.cookies[stolen.Name] = &stolen; thief.whoIs() != "" {
			t.Error("the id is good after its session has ended")
		}
	})
}

// TestNoFixation proves that nobody chooses the id of a session for somebody else: an id that the server does not know is not taken, a login makes a new one, and
// ends the session that the browser had.
func TestNoFixation(t *testing.T) {
	s := newSite(t, nil)
	attacker, victim := s.newBrowser(), s.newBrowser()
	attacker.logIn("alice", "alices-password")
	planted := *attacker.cookie("session")
	victim.cookies[planted.Name] = &planted
	delete(victim.cookies, "__Host-leat-form-1")
	// The page shows who is logged in; the form is sent all the same.
	form := s.newBrowser()
	token := form.token()
	victim.cookies["__Host-leat-form-1"] = form.cookie("form")
	victim.ask(request{method: http.MethodPost, url: home + "/login", form: url.Values{"token": {token}, "user": {"admin"}, "password": {"admins-password"}}, from: home})
	if who := victim.whoIs(); who != "admin" {
		t.Fatalf("the victim is %q", who)
	}
	if victim.cookie("session").Value == planted.Value {
		t.Error("the id from before the login is kept")
	}
	if who := attacker.whoIs(); who != "" {
		t.Errorf("the session from before the login is %q", who)
	}
	invented := s.newBrowser()
	invented.cookies["__Host-leat-session-1"] = &http.Cookie{Name: "__Host-leat-session-1", Value: "chosen", Secure: true}
	invented.logIn("alice", "alices-password")
	if invented.cookie("session").Value == "chosen" {
		t.Error("an id of a browser's choice is taken")
	}
}

// TestCookies proves the flags of all cookies: no script reads them, none is sent without TLS or to another host, none with what another site sends; and that a
// loopback address without TLS, where such cookies are not kept, has them without these.
func TestCookies(t *testing.T) {
	s := newSite(t, nil)
	b := s.newBrowser()
	b.logIn("alice", "alices-password")
	c := b.cookie("session")
	if c == nil || !c.HttpOnly || !c.Secure || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 0 || !c.Expires.IsZero() || len(c.Value) != 43 {
		t.Errorf("the cookie of the session: %v", c)
	}
	b = s.newBrowser()
	if b.get("/login"); b.cookie("form") == nil || b.cookie("form").SameSite != http.SameSiteStrictMode || !b.cookie("form").HttpOnly || !b.cookie("form").Secure {
		t.Errorf("the cookie of the form: %v", b.cookie("form"))
	}
	other := s.newBrowser()
	if other.get("/login"); other.cookie("form").Value == b.cookie("form").Value {
		t.Error("two browsers have the same form")
	}
	plain := newSite(t, func(c *Config) { c.MustEncrypt = false })
	resp := plain.newBrowser().ask(request{method: http.MethodGet, url: "http://127.0.0.1:9644/login"})
	if got := resp.cookies; len(got) != 1 || got[0].Name != "leat-form-1" || got[0].Secure || !got[0].HttpOnly || got[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("without TLS: %v", got)
	}
	if resp := s.newBrowser().ask(request{method: http.MethodGet, url: "http://node.example:8080/login"}); resp.status != http.StatusForbidden || len(resp.cookies) > 0 {
		t.Errorf("without TLS where it must be: %d", resp.status)
	}
}

// TestForgedForms proves that no page of another site changes anything with a user's session, whatever the browser tells: a form without the token, with that of
// another session, with one of no session, from another origin with the right token, and a log-in with the attacker's password.
func TestForgedForms(t *testing.T) {
	s := newSite(t, nil)
	for _, isOld := range []bool{false, true} {
		victim, attacker := s.newBrowser(), s.newBrowser()
		victim.isOld = isOld
		victim.logIn("admin", "admins-password")
		attacker.logIn("alice", "alices-password")
		_, token, _ := strings.Cut(victim.get("/").text, " ")
		_, others, _ := strings.Cut(attacker.get("/").text, " ")
		anonymous := s.newBrowser().token()
		change := func(what, token, from string, isLaw bool) {
			t.Helper()
			before := s.changes
			resp := victim.ask(request{method: http.MethodPost, url: home + "/change", form: url.Values{"token": {token}}, from: from})
			if isDone := s.changes > before; isDone != isLaw {
				t.Errorf("old browser %v, %s: done: %v, %d", isOld, what, isDone, resp.status)
			}
			resp = victim.ask(request{method: http.MethodPost, url: home + "/logout", form: url.Values{"token": {token}}, from: from})
			if isOut := victim.whoIs() == ""; isOut != isLaw {
				t.Errorf("old browser %v, %s: logged out: %v, %d", isOld, what, isOut, resp.status)
			}
		}
		for _, from := range []string{home, "https://evil.example", "https://node.example:8081", "null"} {
			change("no token", "", from, false)
			change("another session's", others, from, false)
			change("the form's", anonymous, from, false)
			if from != home {
				change("the right one", token, from, false)
			}
		}
		// Lax cookies are not sent with such forms, but even if they were.
		victim.cookies["__Host-leat-session-1"].SameSite = http.SameSiteLaxMode
		for _, head := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}, "Sec-Fetch-Site": nil}, {"Origin": {"null"}, "Sec-Fetch-Site": nil}} {
			before := s.changes
			victim.ask(request{method: http.MethodPost, url: home + "/change", form: url.Values{"token": {token}}, head: head})
			if s.changes > before {
				t.Errorf("%v: it was done", head)
			}
		}
		before := s.changes
		victim.ask(request{method: http.MethodPost, url: home + "/change", head: http.Header{tokenHeader: {token}}})
		if s.changes != before+1 {
			t.Error("the right token in the header is refused")
		}
		change("the right one", token, home, true)
		// To log the victim in as the attacker.
		fresh := s.newBrowser()
		fresh.isOld = isOld
		fresh.ask(request{method: http.MethodPost, url: home + "/login", form: url.Values{"token": {anonymous}, "user": {"alice"}, "password": {"alices-password"}}, from: "https://evil.example"})
		fresh.ask(request{method: http.MethodPost, url: home + "/login", form: url.Values{"token": {anonymous}, "user": {"alice"}, "password": {"alices-password"}}, from: home})
		if who := fresh.whoIs(); who != "" {
			t.Errorf("old browser %v: it is logged in as %s", isOld, who)
		}
	}
	// By HTTP Basic no token is needed, and a browser that knows the password sends it with whatever another site has it send.
	for from, want := range map[string]int{"": http.StatusOK, "https://evil.example": http.StatusForbidden} {
		resp := s.newBrowser().ask(request{method: http.MethodPost, url: home + "/change", form: url.Values{}, from: from, head: http.Header{"Authorization": {basic("alice", "alices-password")}}})
		if resp.status != want {
			t.Errorf("by Basic from %q: %d", from, resp.status)
		}
	}
}

// TestSessionsAreBounded proves that neither one user nor all have more sessions, or more memory for them, than there may be, and that the one which was idle the longest
// gives way.
func TestSessionsAreBounded(t *testing.T) {
	now := time.Now()
	s := newSessions(time.Hour, 24*time.Hour)
	var ids []string
	begin := func(user string, groups ...string) string {
		now = now.Add(time.Millisecond)
		ids = append(ids, s.begin(session{principal: auth.User(user), groups: groups}, 0, now))
		return ids[len(ids)-1]
	}
	kept := begin("other")
	first := begin("alice")
	second := begin("alice")
	for range mostOfUser - 2 {
		begin("alice")
	}
	now = now.Add(time.Second)
	if s.find(first, now) == nil || s.count() != mostOfUser+1 {
		t.Fatalf("%d sessions", s.count())
	}
	begin("alice")
	if s.find(second, now) != nil || s.find(first, now) == nil || s.find(kept, now) == nil || s.count() != mostOfUser+1 {
		t.Errorf("not the one that was idle the longest has ended; %d sessions", s.count())
	}
	for i := range mostSessions + 100 {
		begin(fmt.Sprintf("user %d", i))
	}
	if s.count() != mostSessions {
		t.Errorf("%d sessions", s.count())
	}
	groups := make([]string, 256)
	for i := range groups {
		groups[i] = strings.Repeat("g", 64)
	}
	for i := range 1000 {
		begin(fmt.Sprintf("member %d", i), groups...)
		if s.bytes > mostSessionBytes {
			t.Fatalf("sessions take %d bytes", s.bytes)
		}
	}
	for _, id := range ids {
		s.end(id)
	}
	if s.bytes != 0 || s.count() != 0 {
		t.Errorf("%d bytes of %d sessions are left", s.bytes, s.count())
	}
}

var styleElement = regexp.MustCompile(`(?s)<style>(.*)</style>`)

// TestHeaders proves what all pages tell browsers: to run nothing, to load nothing, to be shown in no frame, and to come back over TLS; that the policy of the form has
// the hash of just its style; and that the form needs no script and nothing of elsewhere.
func TestHeaders(t *testing.T) {
	s := newSite(t, nil)
	b := s.newBrowser()
	for _, path := range []string{"/", "/login", "/metrics", "/none"} {
		resp := b.get(path)
		h := resp.head
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: %q lacks %s", path, policy, want)
			}
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "same-origin" || h.Get("Cache-Control") != "no-store" ||
			h.Get("Strict-Transport-Security") != "max-age=2592000" {
			t.Errorf("%s: %v", path, h)
		}
	}
	resp := b.get("/login?next=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
	page := resp.text
	found := styleElement.FindStringSubmatch(page)
	if found == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(found[1]))
	policy := resp.head.Get("Content-Security-Policy")
	if !strings.Contains(policy, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || !strings.Contains(policy, "form-action 'self'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %s", policy)
	}
	for _, bad := range []string{"<script", "http://", "https://", "src=", "@import", "url(", "onclick"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	plain := newSite(t, func(c *Config) { c.MustEncrypt = false })
	if got := plain.newBrowser().ask(request{method: http.MethodGet, url: "http://localhost/login"}).head.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("without TLS: %s", got)
	}
}

// TestWithoutLogin proves that a node which is not secured shows all, and has no form, and that one which does not know it yet shows nothing.
func TestWithoutLogin(t *testing.T) {
	ask := func(l *Login, path string) int {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		if path != "/" {
			l.ServeHTTP(w, r)
		} else if v, isAdmitted := l.Admit(w, r, AlterCluster); isAdmitted && v == nil {
			w.WriteHeader(http.StatusOK)
		}
		return w.Code
	}
	var joining Login
	if a, b, c, d := ask(nil, "/"), ask(nil, "/login"), ask(&joining, "/"), ask(&joining, "/login"); a != 200 || b != 404 || c != 503 || d != 503 {
		t.Errorf("%d, %d, %d, %d", a, b, c, d)
	}
	if joining.IsSecured() || (*Login)(nil).IsSecured() || joining.HasLogin(httptest.NewRequest(http.MethodGet, "/", nil)) {
		t.Error("it says that it is secured")
	}
	joining.Record(nil)
	(*Login)(nil).Record(nil)
}

// TestOwnHosts proves which hosts a request to a loopback address may name.
func TestOwnHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:9644": true, "127.0.0.1:9644": true, "127.9.9.9": true, "[::1]:9644": true, "[::1]": true, "::1": true, "a.localhost:1": true, "localhost.": true,
		"proxy.example": true, "proxy.example:8080": true, "console.example:9000": true, "console.example": false, "console.example:9001": false,
		"": false, "evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example:80": false, "10.0.0.1": false, "[::2]:1": false, "0.0.0.0": false, "evil.example@localhost": false, "notlocalhost": false, "[": false, ":": false,
		"[::ffff:127.0.0.1]:80": true,
	} {
		if got := IsOwnHost(host, []string{"proxy.example", "console.example:9000"}); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// FuzzTarget proves that a login sends a browser to a path of this server alone, whatever it is told.
func FuzzTarget(f *testing.F) {
	for _, text := range []string{
		"/", "/metrics?x=1", "//evil.example", `/\evil.example`, "/\t/evil.example", "https://evil.example", "javascript:alert(1)", "/%0d%0aSet-Cookie:a=b", "/..//evil.example", "/login?next=/", "/logout", "/a\x00", "/%", "///x", "/ü",
	} {
		f.Add(text)
	}
	base, err := url.Parse(home + "/login/oidc/callback")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := safeTarget(text)
		u, err := base.Parse(got)
		if err != nil || u.Scheme != base.Scheme || u.Host != base.Host || len(got) > longestTarget || !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\r\n\t\x00") {
			t.Errorf("%q leads to %q", text, got)
		}
		if safeTarget(got) != got {
			t.Errorf("%q is not safe itself", got)
		}
	})
}
