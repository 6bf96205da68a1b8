package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
)

// issuer makes tokens, and has keys that a test changes.
type issuer struct {
	tb    testing.TB
	keys  jose.JSONWebKeySet
	own   map[string]crypto.Signer // by the id of the key
	reads atomic.Int64
	fail  error
}

func newIssuer(tb testing.TB) *issuer {
	tb.Helper()
	return &issuer{tb: tb, own: map[string]crypto.Signer{}}
}

// addKey adds a key of an algorithm.
func (i *issuer) addKey(id string, algorithm jose.SignatureAlgorithm) {
	i.tb.Helper()
	var key crypto.Signer
	var err error
	if strings.HasPrefix(string(algorithm), "ES") {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		i.tb.Fatal(err)
	}
	i.own[id] = key
	i.keys.Keys = append(i.keys.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: string(algorithm), Use: "sig"})
}

func (i *issuer) fetch(context.Context) ([]byte, error) {
	i.reads.Add(1)
	if i.fail != nil {
		return nil, i.fail
	}
	return json.Marshal(i.keys)
}

// mechanism accepts tokens of the issuer.
func (i *issuer) mechanism() *OAuth {
	i.tb.Helper()
	o, err := NewOAuth(OAuthConfig{
		Fetch: i.fetch, Audience: []string{"leat", "kafka"}, Issuer: "https://issuer.example", SubClaim: "sub", ScopeClaim: "scope", GroupClaim: "groups", ClockSkew: 30 * time.Second,
		Refresh: time.Hour, RetryBackoff: 100 * time.Millisecond, MostRetrying: time.Second,
	})
	if err != nil {
		i.tb.Fatal(err)
	}
	return o
}

// claimsOf are good claims, with changes as name, value, name, value; a nil value takes one out.
func claimsOf(changes ...any) map[string]any {
	c := map[string]any{
		"iss": "https://issuer.example", "aud": "kafka", "sub": "alice", "scope": "read write",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	for n := 0; n < len(changes); n += 2 {
		name, _ := changes[n].(string)
		if c[name] = changes[n+1]; changes[n+1] == nil {
			delete(c, name)
		}
	}
	return c
}

func (i *issuer) sign(id string, algorithm jose.SignatureAlgorithm, claims any) string {
	i.tb.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		opts = opts.WithHeader("kid", id)
	}
	key := any(i.own[id])
	if strings.HasPrefix(string(algorithm), "HS") { // the mistake of old libraries: the public key as a secret
		key = i.keys.Keys[0].Key.(*rsa.PublicKey).N.Bytes()
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, opts)
	if err != nil {
		i.tb.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		i.tb.Fatal(err)
	}
	return token
}

// TestTokens proves which tokens log a client in: those that a key of the issuer has signed by an algorithm with a public key, for this
// service, by this issuer, in their time. The login lasts as long as the token.
func TestTokens(t *testing.T) {
	i := newIssuer(t)
	i.addKey("rsa", jose.RS256)
	i.addKey("ec", jose.ES256)
	o := i.mechanism()
	good := func(token, user string) {
		t.Helper()
		login, err := logIn(oauth.Auth{Token: token, Extensions: map[string]string{"team": "a b"}}.AsMechanism(), o)
		if err != nil || login.Principal != User(user) || login.Lifetime <= 0 || login.Lifetime > 10*time.Minute {
			t.Errorf("%+v, %v", login, err)
		}
	}
	bad := func(why, token string) {
		t.Helper()
		e := o.Start()
		answer, login, err := e.Step(t.Context(), []byte("n,,\x01auth=Bearer "+token+"\x01\x01"))
		if string(answer) != invalidToken || login != nil || err != nil {
			t.Errorf("%s: %s, %+v, %v", why, answer, login, err)
			return
		}
		_, login, err = e.Step(t.Context(), []byte(controlA))
		refused, ok := errors.AsType[*RefusedError](err)
		if login != nil || !ok || refused.Text != invalidToken || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, %v", why, login, err)
		}
	}
	good(i.sign("rsa", jose.RS256, claimsOf()), "alice")
	good(i.sign("ec", jose.ES256, claimsOf("sub", "bob", "aud", []string{"other", "leat"}, "scope", []string{"a", "b"})), "bob")
	good(i.sign("rsa", jose.RS256, claimsOf("scope", nil, "exp", time.Now().Add(-10*time.Second).Unix())), "alice") // within the skew
	i.own[""] = i.own["ec"]
	good(i.sign("", jose.ES256, claimsOf()), "alice")

	bad("audience", i.sign("rsa", jose.RS256, claimsOf("aud", "other")))
	bad("audience", i.sign("rsa", jose.RS256, claimsOf("aud", nil)))
	bad("issuer", i.sign("rsa", jose.RS256, claimsOf("iss", "https://other.example")))
	bad("expired", i.sign("rsa", jose.RS256, claimsOf("exp", time.Now().Add(-time.Minute).Unix())))
	bad("not valid yet", i.sign("rsa", jose.RS256, claimsOf("nbf", time.Now().Add(time.Minute).Unix())))
	bad("in the future", i.sign("rsa", jose.RS256, claimsOf("iat", time.Now().Add(time.Minute).Unix())))
	bad("lacks exp", i.sign("rsa", jose.RS256, claimsOf("exp", nil)))
	bad("lacks exp or iat", i.sign("rsa", jose.RS256, claimsOf("iat", nil)))
	bad("no name of a user", i.sign("rsa", jose.RS256, claimsOf("sub", nil)))
	bad("what it signs", i.sign("rsa", jose.RS256, claimsOf("sub", 7)))
	bad("no name of a user", i.sign("rsa", jose.RS256, claimsOf("sub", " ")))
	bad("scope", i.sign("rsa", jose.RS256, claimsOf("scope", 7)))
	bad("scope", i.sign("rsa", jose.RS256, claimsOf("scope", []any{"a", 7})))
	bad("no such key", i.sign("rsa", jose.RS384, claimsOf())) // the key is one for RS256
	i.own["gone"] = i.own["rsa"]
	bad("no key of the id", i.sign("gone", jose.RS256, claimsOf()))
	other := newIssuer(t)
	other.addKey("rsa", jose.RS256)
	bad("its signature", other.sign("rsa", jose.RS256, claimsOf()))
	bad("signed by a public key", i.sign("rsa", jose.HS256, claimsOf()))
	bad("no JSON Web Token", "x")
	token := i.sign("rsa", jose.RS256, claimsOf())
	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"rsa"}`))
	bad("signed by a public key", none+"."+parts[1]+".")
	bad("signed by a public key", none+"."+parts[1]+"."+parts[2])
	root, err := json.Marshal(claimsOf("sub", "root"))
	if err != nil {
		t.Fatal(err)
	}
	bad("its signature", parts[0]+"."+base64.RawURLEncoding.EncodeToString(root)+"."+parts[2])

	if _, err := logIn(oauth.Auth{Token: token, Zid: "bob"}.AsMechanism(), o); err == nil {
		t.Error("alice logs in as bob")
	}
	for _, m := range []string{
		"", "n,,", "n,,\x01\x01", "y,,\x01auth=Bearer " + token + "\x01\x01", "n,,\x01auth=Basic " + token + "\x01\x01", "n,,\x01auth=Bearer " + token + "\x01",
		"n,,\x01auth=Bearer " + token + "\x01auth=Bearer " + token + "\x01\x01", "n,b=x,\x01auth=Bearer " + token + "\x01\x01", "n,,\x01a1=x\x01auth=Bearer " + token + "\x01\x01",
		"n,,\x01auth=Bearer " + strings.Repeat("x", longestToken+1) + "\x01\x01", "n,,\x01auth=Bearer " + token + "\x7f\x01\x01",
	} {
		e := o.Start()
		if answer, login, err := e.Step(t.Context(), []byte(m)); err == nil || login != nil {
			t.Errorf("%.80q: %q, %v", m, answer, err)
		}
		if _, login, err := e.Step(t.Context(), []byte("n,,\x01auth=Bearer "+token+"\x01\x01")); err == nil || login != nil {
			t.Errorf("the login goes on after %.80q", m)
		}
	}
}

// TestTokensHaveGroups proves which groups a token says that its user is in: those of a list of texts, or one text; and that a token whose
// groups cannot be read, or are too many to be kept, is refused instead of logging its user in without some of them.
func TestTokensHaveGroups(t *testing.T) {
	i := newIssuer(t)
	i.addKey("one", jose.ES256)
	o := i.mechanism()
	many := make([]string, mostGroups+1)
	for n := range many {
		many[n] = fmt.Sprint("g", n)
	}
	f := func(why string, claim any, want ...string) {
		t.Helper()
		login, err := o.check(t.Context(), i.sign("one", jose.ES256, claimsOf("groups", claim)), time.Now())
		if why != "" {
			if err == nil || !strings.Contains(err.Error(), "its claim groups: ") || !strings.Contains(err.Error(), why) {
				t.Errorf("%.80v: %v", claim, err)
			}
			return
		}
		if err != nil || login.Principal != User("alice") || !slices.Equal(login.Groups, want) {
			t.Errorf("%.80v: %+v, %v", claim, login, err)
		}
	}
	f("", nil)
	f("", "")
	f("", []string{})
	f("", "team a", "team a")
	f("", []string{"/team-a", "b"}, "/team-a", "b")
	f("", many[1:], many[1:]...)
	f("a text of 1 to", []string{"a", ""})
	f("a text of 1 to", []any{"a", 7})
	f("a text of 1 to", []string{strings.Repeat("x", LongestName+1)})
	f("neither a text", map[string]any{"a": true})
	f("neither a text", 7)
	f("may be in", many)
	f("may have", slices.Repeat([]string{strings.Repeat("x", LongestName)}, mostGroupBytes/LongestName+1))
}

// TestKeysAreReadAgain proves that an issuer's keys are read once for many logins, again when they are old and when a token names
// another one, but not often, however many tokens name others; and that the old keys count on while they cannot be read.
func TestKeysAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		i.addKey("one", jose.ES256)
		o := i.mechanism()
		f := func(id string, accepted bool, reads int64) {
			t.Helper()
			_, err := o.check(t.Context(), i.sign(id, jose.ES256, claimsOf()), time.Now())
			if (err == nil) != accepted || i.reads.Load() != reads {
				t.Errorf("a token of key %s: %v, after %d reads; want %v, %d", id, err, i.reads.Load(), accepted, reads)
			}
		}
		i.fail = errors.New("the network is down")
		f("one", false, 1)
		f("one", false, 1) // it waits for the back-off
		i.fail = nil
		time.Sleep(100 * time.Millisecond)
		for range 5 {
			f("one", true, 2)
		}
		i.addKey("two", jose.ES256)
		f("two", false, 2) // the keys were read just now
		time.Sleep(unknownPause)
		f("two", true, 3)
		i.own["three"] = i.own["one"]
		for range 5 {
			f("three", false, 3)
		}
		i.fail = errors.New("the network is down")
		time.Sleep(time.Hour)
		f("one", true, 4)
		f("two", true, 4)
		i.fail, i.keys.Keys = nil, i.keys.Keys[1:]
		time.Sleep(time.Second)
		f("one", false, 5) // it was withdrawn
		f("two", true, 5)
	})
}

// FuzzOAuth proves that no message of a client panics, or logs it in without a token that the issuer has signed.
func FuzzOAuth(f *testing.F) {
	i := newIssuer(f)
	i.addKey("one", jose.ES256)
	o := i.mechanism()
	token := i.sign("one", jose.ES256, claimsOf("aud", "other"))
	f.Add([]byte("n,,\x01auth=Bearer "+token+"\x01\x01"), []byte(controlA))
	f.Add([]byte("n,a=alice,\x01auth=bearer  x.y.z\x01a=b\x01\x01"), []byte("x"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		e := o.Start()
		for _, m := range [][]byte{first, second} {
			if _, login, _ := e.Step(t.Context(), m); login != nil {
				t.Fatalf("%q and %q log in", first, second)
			}
		}
	})
}

// FuzzKeys proves that no text of an issuer panics, or has secrets or keys for other uses be taken for public keys.
func FuzzKeys(f *testing.F) {
	i := newIssuer(f)
	i.addKey("one", jose.ES256)
	text, _ := i.fetch(f.Context())
	f.Add(text)
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB","use":"enc"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		for n := range keys {
			if err != nil || !keys[n].IsPublic() || keys[n].Use == "enc" {
				t.Errorf("%q: %+v, %v", text, keys[n], err)
			}
		}
	})
}

// BenchmarkLogin logs a client in, on the server's side only: what a login of each mechanism costs the node.
func BenchmarkLogin(b *testing.B) {
	i := newIssuer(b)
	i.addKey("rsa", jose.RS256)
	i.addKey("ec", jose.ES256)
	o := i.mechanism()
	for name, id := range map[string]string{"OAUTHBEARER, RS256": "rsa", "OAUTHBEARER, ES256": "ec"} {
		message := []byte("n,,\x01auth=Bearer " + i.sign(id, jose.SignatureAlgorithm(name[len("OAUTHBEARER, "):]), claimsOf("exp", time.Now().Add(time.Hour).Unix())) + "\x01\x01")
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, login, err := o.Start().Step(b.Context(), message); login == nil {
					b.Fatal(err)
				}
			}
		})
	}
	benchmarkPasswords(b)
}
