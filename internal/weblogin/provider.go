package weblogin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/auth"
)

const (
	// callbackPath is where the issuer sends browsers back.
	callbackPath = "/login/oidc/callback"
	// mostIssuerBytes bounds an answer of the issuer.
	mostIssuerBytes = 1 << 20
	// issuerTime is how long the issuer may take to answer.
	issuerTime = 5 * time.Second
	// mostExchanges is how many codes are exchanged at a time: everybody can have the node ask the issuer.
	mostExchanges = 8
	// longestCode is how many bytes of a code are taken.
	longestCode = 4096
)

// OIDCConfig says by which issuer of OpenID Connect users log in.
type OIDCConfig struct {
	Issuer, ClientID string
	Secret           string   // "": the client is a public one
	Redirect         *url.URL // the address of these pages: scheme and host
	Scopes           []string
	// Tokens says which ID tokens are accepted; their issuer, audience and keys are those of this configuration.
	Tokens auth.OAuthConfig
	// Client makes a client of HTTP that trusts the issuer's certificate. It is called for each request to the issuer, by any goroutine.
	Client func() (*http.Client, error)
}

// provider is an issuer of OpenID Connect. Its configuration is read by the first login, and again when it is as old as the keys may be; while it cannot be read
// again, the old one counts.
type provider struct {
	cfg       *OIDCConfig
	tokens    *auth.OAuth
	reading   chan struct{} // has an element while a goroutine owns what follows
	known     *discovery    // nil: none was read yet
	readAt    time.Time
	triedAt   time.Time
	err       error         // of the last try
	exchanges chan struct{} // has an element for each code that is exchanged
}

func newProvider(cfg *OIDCConfig) (*provider, error) {
	if cfg.Redirect == nil || cfg.Client == nil || cfg.ClientID == "" {
		return nil, errors.New("weblogin: Redirect, Client and ClientID must be set")
	}
	p := &provider{cfg: cfg, reading: make(chan struct{}, 1), exchanges: make(chan struct{}, mostExchanges)}
	tokens := cfg.Tokens
	tokens.Issuer, tokens.Audience = cfg.Issuer, []string{cfg.ClientID}
	tokens.Fetch = func(ctx context.Context) ([]byte, error) {
		d, err := p.discover(ctx)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Keys, http.NoBody)
		if err != nil {
			return nil, err
		}
		return p.ask(r)
	}
	var err error
	p.tokens, err = auth.NewOAuth(tokens)
	return p, err
}

// discovery is what is needed of an issuer's configuration (OpenID Connect Discovery 1.0, 3; RFC 8414; RFC 9207).
type discovery struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	ClientAuth    []string `json:"token_endpoint_auth_methods_supported"`
	TellsIssuer   bool     `json:"authorization_response_iss_parameter_supported"`
}

// parseDiscovery reads the configuration of an issuer.
func parseDiscovery(text []byte, issuer string) (*discovery, error) {
	var d discovery
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("the issuer's configuration cannot be read: %w", err)
	}
	if d.Issuer != issuer {
		return nil, fmt.Errorf("the issuer's configuration is of %q: leat.http.oidc.issuer.url must be just that", d.Issuer)
	}
	for name, text := range map[string]string{"authorization_endpoint": d.Authorization, "token_endpoint": d.Token, "jwks_uri": d.Keys} {
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return nil, fmt.Errorf("the issuer's configuration has no https:// URL as %s", name)
		}
	}
	if len(d.Challenges) > 0 && !slices.Contains(d.Challenges, "S256") {
		return nil, errors.New("the issuer does not serve PKCE with S256")
	}
	return &d, nil
}

// discover returns the issuer's configuration, and reads it if it is not known, or old.
func (p *provider) discover(ctx context.Context) (*discovery, error) {
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := time.Now()
	isFresh := p.known != nil && now.Sub(p.readAt) < p.cfg.Tokens.Refresh
	mayTry := p.err == nil || now.Sub(p.triedAt) >= max(p.cfg.Tokens.RetryBackoff, time.Second)
	if !isFresh && mayTry {
		p.triedAt = now
		var d *discovery
		if d, p.err = p.readDiscovery(ctx); p.err == nil {
			p.known, p.readAt = d, now
		}
	}
	if p.known != nil {
		return p.known, nil
	}
	return nil, p.err
}

func (p *provider) readDiscovery(ctx context.Context) (*discovery, error) {
	at := strings.TrimSuffix(p.cfg.Issuer, "/") + "/.well-known/openid-configuration"
	r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, at, http.NoBody) // others need it, too
	if err != nil {
		return nil, err
	}
	text, err := p.ask(r)
	if err != nil {
		return nil, err
	}
	return parseDiscovery(text, p.cfg.Issuer)
}

// errIssuer is returned when the issuer cannot be asked.
var errIssuer = errors.New("the issuer cannot be asked")

// statusError is returned with the answer if the issuer does not answer with 200.
type statusError struct{ host, status string }

func (e *statusError) Error() string { return e.host + " answers " + e.status }

// ask sends a request to the issuer. It follows no redirection, which could lead a secret elsewhere.
func (p *provider) ask(r *http.Request) ([]byte, error) {
	cl, err := p.cfg.Client()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIssuer, err)
	}
	own := *cl
	own.Timeout = issuerTime
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := own.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIssuer, err)
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostIssuerBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errIssuer, err)
	case len(text) > mostIssuerBytes:
		return nil, fmt.Errorf("%w: its answer has more than %d bytes", errIssuer, mostIssuerBytes)
	case answer.StatusCode != http.StatusOK:
		return text, &statusError{r.URL.Host, answer.Status}
	}
	return text, nil
}

// addressFor is where a browser is sent to log in.
func (p *provider) addressFor(d *discovery, u *underWay) (string, error) {
	at, err := url.Parse(d.Authorization)
	if err != nil {
		return "", err
	}
	q := at.Query()
	for key, value := range map[string]string{
		"response_type": "code", "client_id": p.cfg.ClientID, "redirect_uri": p.redirect(), "scope": strings.Join(p.cfg.Scopes, " "),
		"state": u.State, "nonce": u.Nonce, "code_challenge": challengeOf(u.Verifier), "code_challenge_method": "S256",
	} {
		q.Set(key, value)
	}
	at.RawQuery = q.Encode()
	return at.String(), nil
}

func (p *provider) redirect() string { return p.cfg.Redirect.String() + callbackPath }

// exchange exchanges a code for an ID token (OpenID Connect Core 1.0, 3.1.3; RFC 7636), and checks that.
func (p *provider) exchange(ctx context.Context, d *discovery, code string, u *underWay) (*auth.Login, error) {
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {p.redirect()}, "code_verifier": {u.Verifier}}
	byForm := p.cfg.Secret != "" && !slices.Contains(d.ClientAuth, "client_secret_basic") && slices.Contains(d.ClientAuth, "client_secret_post")
	if p.cfg.Secret == "" || byForm {
		form.Set("client_id", p.cfg.ClientID)
	}
	if byForm {
		form.Set("client_secret", p.cfg.Secret)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	if p.cfg.Secret != "" && !byForm {
		r.SetBasicAuth(url.QueryEscape(p.cfg.ClientID), url.QueryEscape(p.cfg.Secret)) // RFC 6749, 2.3.1
	}
	text, err := p.ask(r)
	token, err := parseTokenAnswer(text, err)
	if err != nil {
		return nil, err
	}
	login, err := p.tokens.CheckIDToken(ctx, token, u.Nonce)
	if err != nil {
		return nil, fmt.Errorf("the issuer's ID token is not accepted: %w", err)
	}
	return login, nil
}

// parseTokenAnswer reads the ID token of the issuer's answer to a code, or why there is none. failed is the error of the request.
func parseTokenAnswer(text []byte, failed error) (token string, err error) {
	var answer struct {
		Token string `json:"id_token"`
		Error string `json:"error"`
	}
	isRead := json.Unmarshal(text, &answer)
	switch {
	case failed != nil && isRead == nil && isErrorCode(answer.Error):
		return "", fmt.Errorf("the issuer refuses the code: %s", answer.Error)
	case failed != nil:
		return "", failed
	case isRead != nil:
		return "", errors.New("the issuer's answer to the code cannot be read") // the error could have a part of a token
	case answer.Token == "":
		return "", errors.New("the issuer's answer to the code has no ID token: does it know the scope openid?")
	}
	return answer.Token, nil
}

// isErrorCode tells whether a text is an error code of OAuth that may be shown.
func isErrorCode(text string) bool {
	const longest = 64
	return text != "" && len(text) <= longest && !strings.ContainsFunc(text, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' })
}
