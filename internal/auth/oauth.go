package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// OAUTHBEARER, as Kafka serves it (RFC 7628; KIP-255, KIP-768): the client sends
//
//	n,[a=authorization id],0x01 auth=Bearer token 0x01 {extension=value 0x01} 0x01
//
// with a JSON Web Token that its issuer has signed. A token that is not accepted is answered with a status in JSON; the client then
// sends 0x01, and the login ends. Extensions are skipped.

// OAuthConfig says which tokens are accepted.
type OAuthConfig struct {
	// Fetch reads the issuer's keys, a JSON Web Key Set. It may be called by any goroutine.
	Fetch      func(ctx context.Context) ([]byte, error)
	Audience   []string      // one of which a token must be for
	Issuer     string        // that a token must be of
	SubClaim   string        // the claim with the user's name
	ScopeClaim string        // the claim with the scope, which is a text or a list of texts if there is one
	GroupClaim string        // the claim with the groups that the user is in, which is a text or a list of texts if there is one
	ClockSkew  time.Duration // how far the issuer's clock may be off

	Refresh                    time.Duration // between two times at which the keys are read
	RetryBackoff, MostRetrying time.Duration // the first and the longest pause after a failure
}

// OAuth is a Mechanism: OAUTHBEARER.
type OAuth struct {
	cfg  OAuthConfig
	keys keyCache
}

// NewOAuth makes OAUTHBEARER.
func NewOAuth(cfg OAuthConfig) (*OAuth, error) {
	if cfg.Fetch == nil || len(cfg.Audience) == 0 || cfg.Issuer == "" || cfg.SubClaim == "" || cfg.ScopeClaim == "" || cfg.GroupClaim == "" || cfg.Refresh <= 0 {
		return nil, errors.New("auth: Fetch, Audience, Issuer, SubClaim, ScopeClaim, GroupClaim and Refresh must be set")
	}
	o := &OAuth{cfg: cfg}
	o.keys.cfg = &o.cfg
	return o, nil
}

// Name is the mechanism's name.
func (*OAuth) Name() string { return "OAUTHBEARER" }

// Start begins a login.
func (o *OAuth) Start() Exchange { return &oauthExchange{OAuth: o} } //nolint:ireturn // of Mechanism

const (
	// longestToken bounds the token of a client.
	longestToken = 64 << 10
	// controlA separates the parts of the client's message, and is its answer to a refusal.
	controlA = "\x01"
	// invalidToken is the answer to a token that is not accepted.
	invalidToken = `{"status":"invalid_token"}`
)

// signatures are the algorithms with which a token may be signed. None of them is one with a secret that the node would share with the
// issuer, and "none" is not among them.
var signatures = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

var (
	errOAuthForm  = errors.New("the message has not the form of OAUTHBEARER")
	errOAuthEnded = errors.New("the exchange has ended")
)

// oauthState is how far an exchange is.
type oauthState uint8

const (
	awaitToken oauthState = iota
	awaitRefused
	oauthEnded
)

type oauthExchange struct {
	*OAuth

	state oauthState
	why   error // the token was not accepted
}

// Step takes the client's token, or its answer to a refusal.
func (e *oauthExchange) Step(ctx context.Context, message []byte) ([]byte, *Login, error) {
	state := e.state
	e.state = oauthEnded
	switch state {
	case awaitToken:
		m, err := parseOAuthMessage(string(message))
		if err != nil {
			return nil, nil, err
		}
		login, err := e.check(ctx, m.token, time.Now())
		if err != nil {
			e.state, e.why = awaitRefused, err
			return []byte(invalidToken), nil, nil //nolint:nilerr // the client is told, and answers before the login fails
		}
		if m.authorization != "" && m.authorization != login.Principal.Name {
			return nil, nil, &RefusedError{"Authentication failed: Client requested an authorization id that is different from the token's principal name"}
		}
		return []byte{}, login, nil
	case awaitRefused:
		return nil, nil, &tokenError{RefusedError{invalidToken}, e.why}
	case oauthEnded:
	}
	return nil, nil, errOAuthEnded
}

// tokenError ends a login by a token that was not accepted. The client is told no reason; the log is.
type tokenError struct {
	RefusedError

	why error
}

func (e *tokenError) Error() string { return "the token is not accepted: " + e.why.Error() }

func (e *tokenError) Unwrap() error { return &e.RefusedError }

// oauthMessage is a client's first message.
type oauthMessage struct{ authorization, token string }

func parseOAuthMessage(message string) (m oauthMessage, err error) {
	rest, ok := strings.CutPrefix(message, "n,")
	if !ok {
		return m, errOAuthForm
	}
	who, rest, ok := strings.Cut(rest, ",")
	if !ok {
		return m, errOAuthForm
	}
	if who != "" {
		name, ok := strings.CutPrefix(who, "a=")
		if m.authorization, err = unescapeName(name); err != nil || !ok {
			return m, errOAuthForm
		}
	}
	pairs, ok := strings.CutPrefix(rest, controlA)
	if ok {
		pairs, ok = strings.CutSuffix(pairs, controlA+controlA)
	}
	if !ok {
		return m, errOAuthForm
	}
	for pair := range strings.SplitSeq(pairs, controlA) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || value == "" || strings.ContainsFunc(key, isNoLetter) || strings.ContainsFunc(value, isNoText) {
			return m, errOAuthForm
		}
		if key != "auth" {
			continue
		}
		scheme, token, ok := strings.Cut(value, " ")
		if m.token != "" || !ok || !strings.EqualFold(scheme, "bearer") {
			return m, errOAuthForm
		}
		m.token = strings.TrimLeft(token, " ")
	}
	if m.token == "" || len(m.token) > longestToken {
		return m, errOAuthForm
	}
	return m, nil
}

func isNoLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }

// isNoText tells whether a character may not be in a value: RFC 7628 has printable ASCII and white space.
func isNoText(r rune) bool {
	return (r < 0x20 || r > 0x7e) && r != '\t' && r != '\r' && r != '\n'
}

// check checks a token.
func (o *OAuth) check(ctx context.Context, token string, now time.Time) (*Login, error) {
	claims, all, err := o.verify(ctx, token, now)
	if err != nil {
		return nil, err
	}
	return o.checkClaims(&claims, all, now)
}

// verify checks the signature of a token, and returns what it says.
func (o *OAuth) verify(ctx context.Context, token string, now time.Time) (claims jwt.Claims, all map[string]any, err error) {
	parsed, err := jwt.ParseSigned(token, signatures)
	if err != nil {
		return claims, nil, fmt.Errorf("it is no JSON Web Token that is signed by a public key: %w", err)
	}
	if len(parsed.Headers) != 1 {
		return claims, nil, errors.New("it has not one signature")
	}
	head := parsed.Headers[0]
	keys, err := o.keys.find(ctx, head.KeyID, now)
	if err != nil {
		return claims, nil, err
	}
	err = errors.New("the issuer has no such key")
	for i := range keys {
		if own := keys[i].Algorithm; own != "" && own != head.Algorithm {
			continue
		}
		claims, all = jwt.Claims{}, nil
		if err = parsed.Claims(keys[i].Key, &claims, &all); err == nil {
			break
		}
	}
	if err != nil {
		return claims, nil, fmt.Errorf("its signature, or what it signs: %w", err)
	}
	return claims, all, nil
}

// checkClaims checks what a token with a good signature says.
func (o *OAuth) checkClaims(claims *jwt.Claims, all map[string]any, now time.Time) (*Login, error) {
	if claims.Expiry == nil || claims.IssuedAt == nil {
		return nil, errors.New("it lacks exp or iat")
	}
	err := claims.ValidateWithLeeway(jwt.Expected{Issuer: o.cfg.Issuer, AnyAudience: o.cfg.Audience, Time: now}, o.cfg.ClockSkew)
	if err != nil {
		return nil, err
	}
	if err := checkScope(all[o.cfg.ScopeClaim]); err != nil {
		return nil, err
	}
	name, _ := all[o.cfg.SubClaim].(string)
	if name = strings.TrimSpace(name); name == "" || len(name) > LongestName {
		return nil, fmt.Errorf("its claim %s is no name of a user", o.cfg.SubClaim)
	}
	groups, err := readGroups(all[o.cfg.GroupClaim])
	if err != nil {
		return nil, fmt.Errorf("its claim %s: %w", o.cfg.GroupClaim, err)
	}
	return &Login{Principal: User(name), Groups: groups, Lifetime: max(claims.Expiry.Time().Sub(now), time.Millisecond)}, nil
}

const (
	// mostGroups is how many groups a client is in at most, and mostGroupBytes how many bytes their names have in all.
	mostGroups     = 256
	mostGroupBytes = 16 << 10
)

// readGroups reads the names of the groups in a token: a text, or a list of texts. A token with more groups than a login may have is
// refused, since a group that was left out could be one to which something is denied.
func readGroups(claim any) (groups []string, err error) {
	var list []any
	switch v := claim.(type) {
	case nil:
		return nil, nil
	case string:
		if v == "" {
			return nil, nil
		}
		list = []any{v}
	case []any:
		list = v
	default:
		return nil, errors.New("it is neither a text nor a list of texts")
	}
	if len(list) > mostGroups {
		return nil, fmt.Errorf("it has %d groups, and a user may be in %d", len(list), mostGroups)
	}
	bytes := 0
	for _, one := range list {
		name, ok := one.(string)
		if bytes += len(name); !ok || name == "" || len(name) > LongestName {
			return nil, fmt.Errorf("each group must be a text of 1 to %d bytes", LongestName)
		}
		groups = append(groups, strings.Clone(name))
	}
	if bytes > mostGroupBytes {
		return nil, fmt.Errorf("the names of its groups have %d bytes, and may have %d", bytes, mostGroupBytes)
	}
	return groups, nil
}

// checkScope refuses a scope that is no text and no list of texts.
func checkScope(scope any) error {
	switch v := scope.(type) {
	case nil, string:
		return nil
	case []any:
		for _, one := range v {
			if _, ok := one.(string); !ok {
				return errors.New("its scope is no list of texts")
			}
		}
		return nil
	}
	return errors.New("its scope is no text")
}
