package auth

import (
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/leatstream/leat/internal/meta"
)

// TestIDTokens proves which ID tokens log a user in, for one client and one login.
func TestIDTokens(t *testing.T) {
	i := newIssuer(t)
	i.addKey("ec", jose.ES256)
	o, err := NewOAuth(OAuthConfig{
		Fetch: i.fetch, Audience: []string{"pages"}, Issuer: "https://issuer.example", SubClaim: "sub", ScopeClaim: "scope", GroupClaim: "groups",
		Refresh: time.Hour, RetryBackoff: time.Second, MostRetrying: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	for why, changes := range map[string][]any{
		"":                 {},
		"nonce":            {"nonce", "other"},
		"another login: ":  {"nonce", nil},
		"nonce is another": {"nonce", 7},
		"audience":         {"aud", "kafka"},
		"azp":              {"azp", "kafka"},
		"several clients":  {"aud", []string{"pages", "kafka"}},
		"expired":          {"exp", time.Now().Add(-time.Second).Unix()},
	} {
		token := i.sign("ec", jose.ES256, claimsOf(append([]any{"aud", "pages", "nonce", "n", "groups", "ops"}, changes...)...))
		login, err := o.CheckIDToken(t.Context(), token, "n")
		if why == "" && (err != nil || login.Principal != User("alice") || len(login.Groups) != 1) || why != "" && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("%q: %+v, %v", why, login, err)
		}
	}
	token := i.sign("ec", jose.ES256, claimsOf("aud", "pages", "nonce", ""))
	if _, err := o.CheckIDToken(t.Context(), token, ""); err == nil {
		t.Error("a login without a nonce succeeds")
	}
	if _, err := o.CheckIDToken(t.Context(), strings.Repeat("a", longestToken+1), "n"); err == nil {
		t.Error("a token without a bound is read")
	}
	token = i.sign("ec", jose.ES256, claimsOf("aud", []string{"pages", "kafka"}, "azp", "pages", "nonce", "n"))
	if _, err := o.CheckIDToken(t.Context(), token, "n"); err != nil {
		t.Errorf("for two, given to this one: %v", err)
	}
}

// TestCredentialMark proves that the mark of a password is another one after each change of it.
func TestCredentialMark(t *testing.T) {
	w := newWorld(t)
	users := w.users()
	if _, exists := users.CredentialMark("alice"); exists {
		t.Error("nobody has a password")
	}
	seen := map[[32]byte]bool{}
	for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512, meta.ScramSHA256} {
		w.addUser("alice", "the same", m)
		mark, exists := users.CredentialMark("alice")
		again, _ := users.CredentialMark("alice")
		if !exists || seen[mark] || again != mark {
			t.Errorf("mechanism %d: exists %v, seen before %v", m, exists, seen[mark])
		}
		seen[mark] = true
	}
}
