package weblogin

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

const (
	failureDelay = 100 * time.Millisecond
	home         = "https://node.example:8080"
)

// site is the pages of a node: those of a Login, three that need rights, and one that changes something.
type site struct {
	t       *testing.T
	image   *meta.Image
	login   *Login
	handler http.Handler
	open    bool // metrics need no login
	changes int

	mu     sync.Mutex
	events []audit.Line
}

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t, image: meta.Empty()}
	s.apply(meta.LevelSet{Level: meta.LatestLevel})
	image := func() *meta.Image { return s.image }
	rules, err := auth.New(auth.Config{Image: image, SuperUsers: []auth.Principal{auth.User("admin"), {Type: auth.GroupType, Name: "ops"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Users: auth.NewUsers(image), Authorizer: rules, Delay: failureDelay, MetricsLogin: func() bool { return !s.open },
		MustEncrypt: true, Cookies: "1", Idle: 30 * time.Minute, Longest: 12 * time.Hour, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	if s.login, err = New(c); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/login", s.login)
	mux.Handle("/login/", s.login)
	mux.Handle("/logout", s.login)
	show := func(pattern string, needs Right, page func(v *Visitor) string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if v, isAdmitted := s.login.Admit(w, r, needs); isAdmitted {
				writeText(w, http.StatusOK, page(v))
			}
		})
	}
	show("GET /{$}", AnyUser, func(v *Visitor) string { return v.Name() + " " + v.FormToken() })
	show("GET /state", DescribeCluster, func(v *Visitor) string { return v.Name() })
	show("GET /metrics", SeeMetrics, func(*Visitor) string { return "metrics" })
	show("/profiles", AlterCluster, func(v *Visitor) string { return v.Name() })
	show("POST /change", AnyUser, func(v *Visitor) string { s.changes++; return v.Name() })
	s.handler = GuardBrowsers(mux)
	for name, password := range map[string]string{"admin": "admins-password", "alice": "alices-password", "viewer": "viewers-password"} {
		s.setPassword(name, password)
	}
	s.grant("User:viewer", meta.Describe)
	return s
}

func (s *site) apply(records ...meta.Record) {
	s.t.Helper()
	var entry []byte
	for _, r := range records {
		entry = meta.Append(entry, r)
	}
	next, _, err := meta.Apply(s.image, entry)
	if err != nil {
		s.t.Fatal(err)
	}
	s.image = next
}

func (s *site) setPassword(user, password string) {
	s.t.Helper()
	c, err := auth.NewCredential(meta.CredentialOwner{User: user, Mechanism: meta.ScramSHA256}, password, auth.MinIterations)
	if err != nil {
		s.t.Fatal(err)
	}
	s.apply(meta.CredentialSet{ScramCredential: c})
}

func (s *site) grant(principal string, op meta.Operation) {
	s.t.Helper()
	s.apply(meta.ACLSet{ACL: meta.ACL{
		Principal: principal, Host: meta.AnyHost, Resource: meta.ClusterResource, Pattern: meta.LiteralPattern, Name: meta.ClusterName, Operation: op, Permission: meta.Allow,
	}})
}

// Append is of audit.Sink.
func (s *site) Append(_ context.Context, lines [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		line, err := audit.ParseLine(l)
		if err != nil {
			return err
		}
		s.events = append(s.events, *line)
	}
	return nil
}

// Close is of audit.Sink.
func (*site) Close() error { return nil }

// recordUntil begins an audit log, and returns a function that ends it and has all of its events.
func (s *site) recordUntil() func() []string {
	to := audit.NewRecorder(context.Background(), audit.Config{Kinds: []audit.Kind{audit.Logins, audit.Denials}}, audit.NewTrail(audit.TrailConfig{
		Name: "test", Sink: s, Cluster: "c", Node: 1, Start: "s", Logger: slog.New(slog.DiscardHandler),
		Load: func() ([]byte, error) { return nil, nil }, Save: func([]byte) error { return nil },
	}))
	s.login.Record(to)
	return func() (list []string) {
		to.Close(context.Background())
		for i := range s.events {
			if d := &s.events[i].Data; d.Listener == Listener {
				list = append(list, strings.TrimSpace(strings.Join([]string{string(s.events[i].Type), d.Principal, d.Resource, d.Operation, d.Details["mechanism"], d.Reason}, " ")))
			}
		}
		return list
	}
}

// browser is a browser as far as logins need one: it keeps cookies by the rules of their attributes, and tells where a request comes from.
type browser struct {
	site    *site
	cookies map[string]*http.Cookie
	isOld   bool // it sends no Sec-Fetch-Site
	address string
}

func (s *site) newBrowser() *browser {
	return &browser{site: s, cookies: map[string]*http.Cookie{}, address: "192.0.2.7:40000"}
}

// answer is the answer to a request.
type answer struct {
	status  int
	head    http.Header
	cookies []*http.Cookie
	text    string
}

// request is what a browser is made to ask for.
type request struct {
	method, url string
	form        url.Values
	from        string // the origin that has it ask; "": the user himself
	isLink      bool   // it shows another page, as a link does, or a redirection
	head        http.Header
}

// ask sends a request, and keeps the cookies of the answer. It does not follow redirections.
func (b *browser) ask(q request) answer {
	b.site.t.Helper()
	var body io.Reader = http.NoBody
	if q.form != nil {
		body = strings.NewReader(q.form.Encode())
	}
	r := httptest.NewRequestWithContext(b.site.t.Context(), q.method, q.url, body)
	r.RequestURI = r.URL.RequestURI()
	r.RemoteAddr = b.address
	isEncrypted := r.URL.Scheme == "https"
	if r.TLS = nil; isEncrypted {
		r.TLS = &tls.ConnectionState{}
	}
	if q.form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	own := r.URL.Scheme + "://" + r.Host
	isForeign := q.from != "" && q.from != own
	if q.method != http.MethodGet {
		r.Header.Set("Origin", cmp.Or(q.from, own))
	}
	if !b.isOld {
		r.Header.Set("Sec-Fetch-Site", map[bool]string{true: "cross-site", false: "same-origin"}[isForeign])
	}
	maps.Copy(r.Header, q.head)
	for _, c := range b.cookies {
		isSent := !c.Secure || isEncrypted
		if isForeign {
			isSent = isSent && c.SameSite == http.SameSiteLaxMode && q.isLink && q.method == http.MethodGet
		}
		if isSent {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	rec := httptest.NewRecorder()
	b.site.handler.ServeHTTP(rec, r)
	resp := answer{status: rec.Code, head: rec.Header(), text: strings.TrimSpace(rec.Body.String())}
	for _, line := range rec.Header()["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			b.site.t.Fatal(err)
		}
		resp.cookies = append(resp.cookies, c)
	}
	for _, c := range resp.cookies {
		if strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Path != "/" || c.Domain != "" || !isEncrypted) {
			continue // as browsers do
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
			continue
		}
		b.cookies[c.Name] = c
	}
	return resp
}

func (b *browser) get(path string) answer {
	b.site.t.Helper()
	return b.ask(request{method: http.MethodGet, url: home + path})
}

var hiddenToken = regexp.MustCompile(`name="token" value="([^"]+)"`)

// token is the form token on the page of logins.
func (b *browser) token() string {
	b.site.t.Helper()
	found := hiddenToken.FindStringSubmatch(b.get("/login").text)
	if found == nil {
		b.site.t.Fatal("the page has no form")
	}
	return found[1]
}

// logIn fills in the form.
func (b *browser) logIn(user, password string) answer {
	b.site.t.Helper()
	return b.ask(request{method: http.MethodPost, url: home + "/login", form: url.Values{"token": {b.token()}, "next": {"/state"}, "user": {user}, "password": {password}}, from: home})
}

// whoIs is the user whom the site takes the browser for; "": nobody.
func (b *browser) whoIs() string {
	b.site.t.Helper()
	resp := b.get("/")
	if resp.status != http.StatusOK {
		return ""
	}
	name, _, _ := strings.Cut(resp.text, " ")
	return name
}

// cookie is the browser's cookie of a purpose; nil: it has none.
func (b *browser) cookie(what string) *http.Cookie { return b.cookies["__Host-leat-"+what+"-1"] }

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkEvents(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the audit log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
