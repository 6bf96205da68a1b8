package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/meta"
)

// tokenKey is the key of the tests.
func tokenKey(tb testing.TB, secret string) *TokenKey {
	tb.Helper()
	k, err := NewTokenKey(secret, "MkU3OEVBNTcwNTJENDM2Qk")
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// addToken makes a token of alice that ends after a time.
func (w *world) addToken(k *TokenKey, life time.Duration) (id meta.UUID, password string) {
	w.tb.Helper()
	id = meta.NewUUID()
	ends := time.Now().Add(life).UnixMilli()
	w.apply(meta.DelegationTokenMade{DelegationToken: meta.DelegationToken{
		ID: id, Owner: "User:alice", Requester: "User:bob", MaxTime: ends, Expires: ends, KeyCheck: k.Check(),
	}})
	return id, base64.StdEncoding.EncodeToString(k.HMAC(id))
}

// TestTokenSecretsAreKafkas proves that the secret of a token is the one that Kafka computes: openssl has made this one of the key and the id.
func TestTokenSecretsAreKafkas(t *testing.T) {
	id, ok := meta.ParseUUID("dGVzdC10b2tlbi0xMjM0NQ")
	if !ok {
		t.Fatal("the id cannot be parsed")
	}
	const want = "79065f183bf5a577477652badb174f4c1b35cbaa4edf5d83ba4463f79f2ddee0daba11c6fadb0a6a2fe20a6a9ff2d5bce4e28461e5fc3b85cb52d7b02a61d453"
	if got := hex.EncodeToString(tokenKey(t, "a secret key").HMAC(id)); got != want {
		t.Errorf("the secret is %s", got)
	}
}

// TestTokenKeysAreToldApart proves that the same key of the same cluster has the same check, that another key or cluster has another one,
// that an empty key is none, and that no key is printed.
func TestTokenKeysAreToldApart(t *testing.T) {
	one, same := tokenKey(t, "one"), tokenKey(t, "one")
	elsewhere, err := NewTokenKey("one", "another cluster")
	if err != nil {
		t.Fatal(err)
	}
	if one.Check() != same.Check() || one.Check() == tokenKey(t, "two").Check() || one.Check() == elsewhere.Check() {
		t.Errorf("the checks are %d, %d, %d and %d", one.Check(), same.Check(), tokenKey(t, "two").Check(), elsewhere.Check())
	}
	if _, err := NewTokenKey("", "cluster"); err == nil {
		t.Error("there is an empty key")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, one); got != "[hidden]" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

// TestTokenLogins proves that franz-go's client logs in with a token as its owner until the token ends, by both mechanisms, and that nobody does
// with another secret, a token that has ended, was removed or was made with another key, an id in another form, or a user's name.
func TestTokenLogins(t *testing.T) {
	w := newWorld(t)
	w.apply(meta.SecretSet([32]byte{1}))
	w.addUser("alice", "secret", meta.ScramSHA256)
	w.addUser("alice", "secret", meta.ScramSHA512)
	key := tokenKey(t, "a secret key")
	users := w.users()
	tokens := NewTokens(func() *meta.Image { return w.image }, key, users)
	good, password := w.addToken(key, time.Hour)
	old, oldPassword := w.addToken(key, -time.Second)
	gone, gonePassword := w.addToken(key, time.Hour)
	w.apply(meta.DelegationTokenRemoved{ID: gone})
	other := tokenKey(t, "another key")
	foreign, foreignPassword := w.addToken(other, time.Hour)
	for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		f := func(user, pass string, want error) {
			t.Helper()
			for range 2 { // the second login finds what the first one has left
				c := scram.Auth{User: user, Pass: pass, IsToken: true}
				client := c.AsSha256Mechanism()
				if m == meta.ScramSHA512 {
					client = c.AsSha512Mechanism()
				}
				login, err := logIn(client, NewScram(m, users, tokens))
				if !errors.Is(err, want) || (login != nil) != (want == nil) {
					t.Errorf("mechanism %d: token %s: %+v, %v", m, user, login, err)
				}
				if login == nil {
					continue
				}
				if login.Principal != User("alice") || login.Token != good || login.Lifetime > time.Hour || login.Lifetime < 50*time.Minute {
					t.Errorf("mechanism %d: %+v", m, login)
				}
			}
		}
		f(good.String(), password, nil)
		f(good.String(), oldPassword, errTokenUnknown)
		f(old.String(), oldPassword, errTokenEnded)
		f(gone.String(), gonePassword, errTokenUnknown)
		f(foreign.String(), foreignPassword, errTokenKey)
		f(foreign.String(), base64.StdEncoding.EncodeToString(key.HMAC(foreign)), errTokenKey)
		f(meta.NewUUID().String(), password, errTokenUnknown)
		f("alice", "secret", errTokenUnknown)
		f(good.String()[:21]+string(rune(good.String()[21]+1)), password, errTokenUnknown)
		f("a,b=c", password, errTokenUnknown)
	}
	user := scram.Auth{User: good.String(), Pass: password}.AsSha256Mechanism()
	if _, err := logIn(user, NewScram(meta.ScramSHA256, users, tokens)); !errors.Is(err, errScramProof) {
		t.Errorf("a token logs in as a user: %v", err)
	}
	if login, err := logIn(scram.Auth{User: "alice", Pass: "secret"}.AsSha256Mechanism(), NewScram(meta.ScramSHA256, users, tokens)); err != nil || login.Token != (meta.UUID{}) {
		t.Errorf("a user beside tokens: %+v, %v", login, err)
	}
	w.apply(meta.DelegationTokenRemoved{ID: good})
	if _, err := logIn(scram.Auth{User: good.String(), Pass: password, IsToken: true}.AsSha256Mechanism(), NewScram(meta.ScramSHA256, users, tokens)); !errors.Is(err, errTokenUnknown) {
		t.Errorf("a token that was removed after a login: %v", err)
	}
}

// TestUnknownTokensLookLikeOthers proves that the first answer is of the same form whether there is a token or not, the same at each try and on
// each node with the key, and another one for each name, mechanism and key; and that a login which fails derives keys
// once in any case, while one with a token that has logged in before needs no turn.
func TestUnknownTokensLookLikeOthers(t *testing.T) {
	w := newWorld(t)
	key := tokenKey(t, "a secret key")
	users := w.users()
	tokens := NewTokens(func() *meta.Image { return w.image }, key, users)
	id, password := w.addToken(key, time.Hour)
	first := func(k *Tokens, m meta.ScramMechanism, name string) string {
		t.Helper()
		answer, _, err := NewScram(m, users, k).Start().Step(t.Context(), []byte("n,,n="+name+",r=nonce,tokenauth=true"))
		_, rest, ok := strings.Cut(string(answer), ",s=")
		if err != nil || !ok || !strings.HasSuffix(rest, fmt.Sprintf(",i=%d", MinIterations)) {
			t.Fatalf("%s, %v", answer, err)
		}
		return rest
	}
	again := NewTokens(func() *meta.Image { return w.image }, tokenKey(t, "a secret key"), w.users())
	other := NewTokens(func() *meta.Image { return w.image }, tokenKey(t, "another key"), w.users())
	seen := map[string]bool{}
	for _, name := range []string{id.String(), meta.NewUUID().String(), "nobody"} {
		salt := first(tokens, meta.ScramSHA256, name)
		if len(salt) != len(first(tokens, meta.ScramSHA256, id.String())) || salt != first(again, meta.ScramSHA256, name) {
			t.Errorf("%s: the salt is %s", name, salt)
		}
		for _, s := range []string{salt, first(tokens, meta.ScramSHA512, name), first(other, meta.ScramSHA256, name)} {
			if seen[s] {
				t.Errorf("%s: another one has the salt %s", name, s)
			}
			seen[s] = true
		}
	}
	login := func(ctx context.Context, name, pass string) error {
		session, message, err := scram.Auth{User: name, Pass: pass, IsToken: true}.AsSha256Mechanism().Authenticate(ctx, "host")
		if err != nil {
			t.Fatal(err)
		}
		e := NewScram(meta.ScramSHA256, users, tokens).Start()
		answer, _, err := e.Step(ctx, message)
		if err != nil {
			t.Fatal(err)
		}
		if _, message, err = session.Challenge(answer); err != nil {
			t.Fatal(err)
		}
		_, _, err = e.Step(ctx, message)
		return err
	}
	if err := login(t.Context(), id.String(), password); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	giveBack := takeTurns(users) // nobody can derive a key now
	if err := login(ended, id.String(), password); err != nil {
		t.Errorf("a token that is known waits for its turn: %v", err)
	}
	for _, name := range []string{id.String(), meta.NewUUID().String(), "nobody"} {
		if err := login(ended, name, "wrong"); !errors.Is(err, errTokenBusy) {
			t.Errorf("%s: a login that fails derives no keys: %v", name, err)
		}
	}
	giveBack()
}

// FuzzTokenLogin proves that no messages of a client that does not know a token's secret panic, or log it in with a token.
func FuzzTokenLogin(f *testing.F) {
	w := newWorld(f)
	key := tokenKey(f, "a secret key")
	tokens := NewTokens(func() *meta.Image { return w.image }, key, w.users())
	id, _ := w.addToken(key, 24*time.Hour)
	m := NewScram(meta.ScramSHA256, w.users(), tokens)
	f.Add([]byte("n,,n="+id.String()+",r=x,tokenauth=true"), []byte("c=biws,r=x,p="+base64.StdEncoding.EncodeToString(make([]byte, 32))))
	f.Add([]byte("n,a=alice,m=1,n=alice,r=x,tokenauth=TRUE,tokenauth=false"), []byte(",p="))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		e, _ := m.Start().(*scramExchange)
		if _, _, err := e.Step(t.Context(), first); err != nil {
			return
		}
		final = bytes.ReplaceAll(final, []byte("r=x"), []byte("r="+e.nonce))
		if _, login, err := e.Step(t.Context(), final); err == nil || login != nil {
			t.Fatalf("%q and %q log in", first, final)
		}
	})
}
