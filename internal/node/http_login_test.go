package node

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
)

// httpsIssuer is an issuer of OpenID Connect that is reached with TLS, by a certificate that nobody trusts who is not told to.
type httpsIssuer struct {
	*issuer
	*httptest.Server
	ca string // the file with its certificate

	mu    sync.Mutex
	codes map[string]url.Values // guarded by mu: what was asked for
}

const (
	pagesID     = "leat-pages"
	pagesSecret = "Pl4nted-client-secret"
)

func newHTTPSIssuer(t *testing.T) *httpsIssuer {
	t.Helper()
	i := &httpsIssuer{issuer: newIssuer(t), ca: filepath.Join(t.TempDir(), "issuer.pem"), codes: map[string]url.Values{}}
	i.Server = httptest.NewTLSServer(i)
	i.Config.ErrorLog = nil
	t.Cleanup(i.Close)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})
	if err := os.WriteFile(i.ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// ServeHTTP serves the configuration, the keys, a user who has logged in before, and codes.
func (i *httpsIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	write := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	i.mu.Lock()
	defer i.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		write(map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys"})
	case "/keys":
		http.ServeFile(w, r, i.keys)
	case "/auth":
		q := r.URL.Query()
		code := "code of " + q.Get("state")
		i.codes[code] = q
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusSeeOther)
	case "/token":
		asked := i.codes[r.PostFormValue("code")]
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		id, password, _ := r.BasicAuth()
		if id != pagesID || password != pagesSecret || asked == nil || base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		write(map[string]any{"id_token": i.sign(map[string]any{
			"iss": i.URL, "aud": pagesID, "sub": "carol", "groups": []string{"ops"}, "nonce": asked.Get("nonce"), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})})
	default:
		http.NotFound(w, r)
	}
}

// pageSettings have users log in by the issuer.
func (i *httpsIssuer) pageSettings() map[string]string {
	return map[string]string{
		"leat.http.oidc.issuer.url": i.URL, "leat.http.oidc.client.id": pagesID, "leat.http.oidc.client.secret": pagesSecret, "leat.http.oidc.redirect.url": "https://127.0.0.1:1",
		"leat.sasl.oauthbearer.ca.location": i.ca, "super.users": "User:admin;Group:ops", "leat.audit.destinations": "none",
	}
}

// visitor is a browser at a node: it keeps cookies, and goes on as it is told.
func visitor(t *testing.T, n *Node, i *httpsIssuer) (get func(path string) page) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	conf := trusting(t, n.Info().Secured)
	conf.RootCAs.AddCert(i.Certificate())
	to := n.Info().HTTP
	to = "127.0.0.1" + to[strings.LastIndexByte(to, ':'):]
	cl := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: conf}}
	cl.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "127.0.0.1:1" { // the port was not known when the node was started
			r.URL.Host = to
		}
		return nil
	}
	return func(path string) page {
		t.Helper()
		req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, "https://"+to+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		resp, err := cl.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return page{resp.StatusCode, resp.Header, string(b)}
	}
}

// TestOIDCAtPages proves that a user logs in at the pages of a secured node by an issuer, over TLS on all ways, with an authorization by the groups of the token; that an issuer
// whose certificate nobody has told the node to trust logs nobody in; and that the client's secret is shown nowhere.
func TestOIDCAtPages(t *testing.T) {
	i := newHTTPSIssuer(t)
	for name, isTrusted := range map[string]bool{"trusted": true, "untrusted": false} {
		t.Run(name, func(t *testing.T) {
			var log lines
			cfg := securedConfig(filepath.Join(t.TempDir(), "data"))
			cfg.HTTP, cfg.Settings, cfg.Logger = "0.0.0.0:0", i.pageSettings(), slog.New(slog.NewTextHandler(&log, nil))
			if !isTrusted {
				delete(cfg.Settings, "leat.sasl.oauthbearer.ca.location")
			}
			n := startSecured(t, cfg)
			get := visitor(t, n, i)
			if got := get("/debug/pprof/"); got.status != http.StatusOK || !strings.Contains(got.body, "Log in with OIDC") {
				t.Fatalf("without a login: %d, %s", got.status, got.body)
			}
			got := get("/login/oidc?next=/debug/pprof/")
			if !isTrusted {
				if got.status != http.StatusForbidden || !strings.Contains(got.body, "The issuer cannot be asked now.") || !strings.Contains(log.String(), "certificate signed by unknown authority") {
					t.Errorf("an issuer that is not trusted: %d, %s\n%s", got.status, got.body, log.String())
				}
				return
			}
			if got.status != http.StatusOK || !strings.Contains(got.body, "goroutine") {
				t.Errorf("a login: %d, %s\n%s", got.status, got.body, log.String())
			}
			if got := get("/metrics"); got.status != http.StatusOK || !strings.Contains(got.body, `leat_logins_total{listener="http",mechanism="OIDC",result="success"} 1`) || !strings.Contains(got.body, "leat_http_sessions 1") {
				t.Errorf("the metrics: %d", got.status)
			}
			if got := get("/readyz"); got.status != http.StatusOK {
				t.Errorf("the state: %d", got.status)
			}
			if got := get("/login"); !strings.Contains(got.body, "logged in as <strong>carol</strong>") || strings.Contains(got.body, pagesSecret) {
				t.Errorf("the page says %s", got.body)
			}
			if strings.Contains(log.String(), pagesSecret) {
				t.Error("the log has the secret")
			}
		})
	}
}

// TestKeysOverHTTPS proves that OAUTHBEARER reads the issuer's keys over https by a certificate that the operator trusts, that it reads none from an issuer with another
// one, and that the file of certificates is read anew.
func TestKeysOverHTTPS(t *testing.T) {
	i := newHTTPSIssuer(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	copyFile := func(from string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ca, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settings := func() map[string]string {
		return map[string]string{
			"sasl.enabled.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.jwks.endpoint.url": i.URL + "/keys", "sasl.oauthbearer.expected.audience": "leat",
			"sasl.oauthbearer.expected.issuer": "https://issuer.example", "super.users": "User:root", "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms": "100",
			"leat.sasl.oauthbearer.ca.location": ca,
		}
	}
	cfg := Config{Listen: []string{"SASL_PLAINTEXT://127.0.0.1:0"}, HTTP: "off"}
	start := func(change func(m map[string]string)) (*Node, error) {
		cfg.Data, cfg.Settings = filepath.Join(t.TempDir(), "data"), settings()
		if change != nil {
			change(cfg.Settings)
		}
		return Start(t.Context(), cfg)
	}
	ping := func(n *Node) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.Info().Addresses...), kgo.SASL(oauth.Auth{Token: i.token("root")}.AsMechanism()), kgo.RequestRetries(0), kgo.RetryTimeout(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		return cl.Ping(deadline(t))
	}
	if _, err := start(nil); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "leat.sasl.oauthbearer.ca.location") {
		t.Errorf("no such file: %v", err)
	}
	copyFile(i.keys)
	if _, err := start(nil); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "no certificate in PEM form") {
		t.Errorf("a file of something else: %v", err)
	}
	stranger := newStranger(t)
	copyFile(stranger)
	n, err := start(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, n)
	if err := ping(n); err == nil {
		t.Error("keys of an issuer that is not trusted log in")
	}
	copyFile(i.ca)
	eventually(t, "the new certificate is trusted", func() bool { return ping(n) == nil })
	bySystem, err := start(func(m map[string]string) { delete(m, "leat.sasl.oauthbearer.ca.location") })
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, bySystem)
	if err := ping(bySystem); err == nil {
		t.Error("an issuer that the system does not trust logs in")
	}
}

// newStranger is a file with a certificate that is good, and no issuer's.
func newStranger(t *testing.T) string {
	t.Helper()
	n := startSecured(t, securedConfig(filepath.Join(t.TempDir(), "data")))
	return n.Info().Secured.CA
}

// TestOtherHosts proves that the pages on a loopback address are not shown to who names another host, as a web site does whose own name is that address, on a node that is
// secured or not; that an operator can name further hosts; and that probes may name any.
func TestOtherHosts(t *testing.T) {
	for name, cfg := range map[string]Config{
		"open":    {Data: filepath.Join(t.TempDir(), "data"), Listen: []string{"127.0.0.1:0"}, HTTP: "127.0.0.1:0"},
		"secured": securedConfig(filepath.Join(t.TempDir(), "data")),
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Settings = map[string]string{"leat.http.hosts": "proxy.example, other.example:8080"}
			n := startSecured(t, cfg)
			cl := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{}}}
			ask := func(path, host string) int {
				req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, "http://"+n.Info().HTTP+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = host
				resp, err := cl.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			shown := map[string]int{"open": http.StatusOK, "secured": http.StatusUnauthorized}[name]
			for host, want := range map[string]int{
				"": shown, "localhost:9644": shown, "proxy.example:9000": shown, "other.example:8080": shown, "evil.example": http.StatusMisdirectedRequest, "127.0.0.1.evil.example": http.StatusMisdirectedRequest,
			} {
				for _, path := range []string{"/metrics", "/debug/pprof/", "/"} {
					if got := ask(path, host); got != want {
						t.Errorf("%s of %q: %d, want %d", path, host, got, want)
					}
				}
				if a, b := ask("/healthz", host), ask("/readyz", host); a != http.StatusOK || b != http.StatusOK {
					t.Errorf("health of %q: %d, %d", host, a, b)
				}
			}
			if got := ask("/login", "localhost"); got != map[string]int{"open": http.StatusNotFound, "secured": http.StatusOK}[name] {
				t.Errorf("the form: %d", got)
			}
		})
	}
}

// TestHTTPLoginSettings proves that settings of a login which nobody is asked for, or which would not be safe, are refused at the start, with no secret in the error.
func TestHTTPLoginSettings(t *testing.T) {
	good := map[string]string{"leat.http.oidc.issuer.url": "https://issuer.example", "leat.http.oidc.client.id": "x", "leat.http.oidc.client.secret": "Pl4nted", "leat.http.oidc.redirect.url": "https://node.example:8080"}
	for why, c := range map[string]struct {
		secure bool
		set    map[string]string
	}{
		"the pages of this node ask for none":           {false, good},
		"leat.http.session.idle.ms is about logins":     {false, map[string]string{"leat.http.session.idle.ms": "60000"}},
		"leat.http.oidc.client.id is set, and":          {true, map[string]string{"leat.http.oidc.client.id": "x"}},
		"leat.http.oidc.client.id is not":               {true, map[string]string{"leat.http.oidc.issuer.url": "https://issuer.example"}},
		"must be the issuer's https:// URL":             {true, with(good, "leat.http.oidc.issuer.url", "http://issuer.example")},
		"leat.http.oidc.redirect.url is not":            {true, with(good, "leat.http.oidc.redirect.url", "")},
		"or http:// with a loopback address":            {true, with(good, "leat.http.oidc.redirect.url", "http://node.example:8080")},
		"and no path":                                   {true, with(good, "leat.http.oidc.redirect.url", "https://node.example:8080/x")},
		"leat.sasl.oauthbearer.ca.location: open /none": {true, with(good, "leat.sasl.oauthbearer.ca.location", "/none")},
	} {
		cfg := Config{Data: filepath.Join(t.TempDir(), "data"), Listen: []string{"127.0.0.1:0"}, HTTP: "127.0.0.1:0", Settings: c.set, Secure: c.secure}
		n, err := Start(t.Context(), cfg)
		if err == nil {
			stop(t, n)
		}
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "Pl4nted") {
			t.Errorf("%s: %v", why, err)
		}
	}
}

func with(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}
