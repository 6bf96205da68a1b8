package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
)

// addUser gives a user a password.
func (w *world) addUser(name, password string, m meta.ScramMechanism) {
	w.tb.Helper()
	c, err := NewCredential(meta.CredentialOwner{User: name, Mechanism: m}, password, MinIterations)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.apply(meta.CredentialSet{ScramCredential: c})
}

func (w *world) users() *Users { return NewUsers(func() *meta.Image { return w.image }) }

// logIn has franz-go's client log in.
func logIn(client sasl.Mechanism, m Mechanism) (*Login, error) {
	session, message, err := client.Authenticate(context.Background(), "host")
	if err != nil {
		return nil, err
	}
	e := m.Start()
	for {
		answer, login, err := e.Step(context.Background(), message)
		if err != nil {
			return nil, err
		}
		done, next, err := session.Challenge(answer)
		if err != nil {
			return nil, fmt.Errorf("the client: %w", err)
		}
		if done != (login != nil) {
			return nil, fmt.Errorf("the client is at its end: %v, and has logged in: %v", done, login)
		}
		if login != nil {
			return login, nil
		}
		message = next
	}
}

// TestLogins proves that franz-go's client logs in with the right password, whatever is in the name, and with no other one,
// by each mechanism.
func TestLogins(t *testing.T) {
	w := newWorld(t)
	names := []string{"alice", "a,b=c", "Zoë", "CN=x,O=y"}
	for _, name := range names {
		w.addUser(name, "pass of "+name, meta.ScramSHA256)
		w.addUser(name, "pass of "+name, meta.ScramSHA512)
	}
	w.addUser("only 256", "pass of only 256", meta.ScramSHA256)
	users := w.users()
	fixed := FixedPasswords{"alice": "pass of alice"}
	type client func(user, password string) sasl.Mechanism
	sha256 := func(user, password string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	}
	sha512 := func(user, password string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	}
	byPlain := func(user, password string) sasl.Mechanism {
		return plain.Auth{User: user, Pass: password}.AsMechanism()
	}
	f := func(m Mechanism, c client, user, password string, want bool) {
		t.Helper()
		if name := c("", "").Name(); name != m.Name() {
			t.Errorf("%s is called %s", name, m.Name())
		}
		login, err := logIn(c(user, password), m)
		if want && (err != nil || login.Principal != User(user) || login.Lifetime != 0) || !want && err == nil {
			t.Errorf("%s: user %q with %q: %+v, %v", m.Name(), user, password, login, err)
		}
	}
	for m, c := range map[Mechanism]client{
		NewScram(meta.ScramSHA256, users, nil): sha256, NewScram(meta.ScramSHA512, users, nil): sha512, NewPlain(users.CheckPassword): byPlain,
	} {
		for _, name := range names {
			f(m, c, name, "pass of "+name, true)
			f(m, c, name, "pass of "+name+" ", false)
		}
		f(m, c, "nobody", "pass of nobody", false)
		f(m, c, "only 256", "pass of only 256", m.Name() != "SCRAM-SHA-512")
	}
	f(NewPlain(fixed.Check), byPlain, "alice", "pass of alice", true)
	f(NewPlain(fixed.Check), byPlain, "alice", "pass", false)
	f(NewPlain(fixed.Check), byPlain, "nobody", "pass", false)
	if _, err := logIn(scram.Auth{User: "alice", Pass: "pass of alice", IsToken: true}.AsSha256Mechanism(), NewScram(meta.ScramSHA256, users, nil)); !errors.Is(err, errTokens) {
		t.Errorf("a user logs in as a delegation token: %v", err)
	}
	if _, err := logIn(scram.Auth{User: "alice", Pass: "pass of alice", Zid: "bob"}.AsSha256Mechanism(), NewScram(meta.ScramSHA256, users, nil)); err == nil {
		t.Error("alice logs in as bob")
	}
	if _, err := logIn(plain.Auth{User: "alice", Pass: "pass of alice", Zid: "bob"}.AsMechanism(), NewPlain(fixed.Check)); err == nil {
		t.Error("alice logs in as bob")
	}
}

// TestScramIsTheStandards proves that the server signs what RFC 7677's example signs.
func TestScramIsTheStandards(t *testing.T) {
	w := newWorld(t)
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	salted, err := SaltPassword(meta.ScramSHA256, "pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	w.apply(meta.CredentialSet{ScramCredential: CredentialOf(meta.CredentialOwner{User: "user", Mechanism: meta.ScramSHA256}, salt, salted, 4096)})
	e, _ := NewScram(meta.ScramSHA256, w.users(), nil).Start().(*scramExchange)
	if _, _, err := e.Step(t.Context(), []byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")); err != nil {
		t.Fatal(err)
	}
	const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	e.first = strings.ReplaceAll(e.first, e.nonce, nonce)
	e.nonce = nonce
	answer, login, err := e.Step(t.Context(), []byte("c=biws,r="+nonce+",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if err != nil || login == nil || string(answer) != "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("%s, %v, %v", answer, login, err)
	}
}

// TestUnknownUsersLookLikeOthers proves that the answers do not tell whether a user exists: an unknown one has the same salt
// at each try and on each node, in the form of the others' salts, and the end is the same.
func TestUnknownUsersLookLikeOthers(t *testing.T) {
	w := newWorld(t)
	first := func(u *Users, name string) (salt []byte, iterations int) {
		t.Helper()
		answer, _, err := NewScram(meta.ScramSHA256, u, nil).Start().Step(t.Context(), []byte("n,,n="+name+",r=nonce"))
		parts := strings.Split(string(answer), ",")
		if err != nil || len(parts) != 3 || !strings.HasPrefix(parts[0], "r=nonce") {
			t.Fatalf("%s, %v", answer, err)
		}
		if salt, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(parts[1], "s=")); err != nil {
			t.Fatal(err)
		}
		iterations, err = strconv.Atoi(strings.TrimPrefix(parts[2], "i="))
		if err != nil {
			t.Fatal(err)
		}
		return salt, iterations
	}
	w.apply(meta.SecretSet([32]byte{1}))
	if salt, n := first(w.users(), "nobody"); len(salt) == 0 || n != DefaultIterations {
		t.Errorf("without users: salt %x, %d iterations", salt, n)
	}
	w.apply(meta.CredentialSet{ScramCredential: CredentialOf(meta.CredentialOwner{User: "old", Mechanism: meta.ScramSHA256}, []byte{200, 1, 2}, nil, 5000)})
	if users := w.users(); users.mechanismOf("nobody") != meta.ScramSHA256 {
		t.Error("passwords of unknown users are checked by a mechanism that nobody has")
	}
	binary, n := first(w.users(), "nobody")
	if len(binary) != 3 || n != 5000 {
		t.Errorf("salt %x, %d iterations", binary, n)
	}
	w.apply(meta.CredentialUnset{CredentialOwner: meta.CredentialOwner{User: "old", Mechanism: meta.ScramSHA256}})
	w.addUser("alice", "secret", meta.ScramSHA256)
	one, again := w.users(), w.users()
	salt, n := first(one, "nobody")
	if same, _ := first(again, "nobody"); !bytes.Equal(salt, same) || !isBase36(salt) || n != MinIterations {
		t.Errorf("salts %q and %q, %d iterations", salt, same, n)
	}
	if other, _ := first(one, "nobody2"); bytes.Equal(salt, other) {
		t.Errorf("two unknown users have the same salt")
	}
	w.apply(meta.SecretSet([32]byte{2}))
	if other, _ := first(one, "nobody"); bytes.Equal(salt, other) {
		t.Error("the salt can be computed without the secret")
	}
	wrong := func(user string) error {
		_, err := logIn(scram.Auth{User: user, Pass: "wrong"}.AsSha256Mechanism(), NewScram(meta.ScramSHA256, one, nil))
		return err
	}
	if a, b := wrong("alice"), wrong("nobody"); a == nil || b == nil || a.Error() != b.Error() {
		t.Errorf("a wrong password: %v; an unknown user: %v", a, b)
	}
}

// TestStandInsCannotLogIn proves that not even a client that has the keys of a credential that stands in for a user
// who does not exist logs in as that user.
func TestStandInsCannotLogIn(t *testing.T) {
	w := newWorld(t)
	e, _ := NewScram(meta.ScramSHA256, w.users(), nil).Start().(*scramExchange)
	if _, _, err := e.Step(t.Context(), []byte("n,,n=nobody,r=nonce")); err != nil {
		t.Fatal(err)
	}
	salted := []byte("a salted password")
	stored, _ := deriveKeys(meta.ScramSHA256, salted)
	e.credential.StoredKey = stored
	covered := "c=biws,r=" + e.nonce
	proof := sign(meta.ScramSHA256, stored, e.first+","+covered)
	for i, b := range sign(meta.ScramSHA256, salted, "Client Key") {
		proof[i] ^= b
	}
	if !hmac.Equal(digest(meta.ScramSHA256, sign(meta.ScramSHA256, salted, "Client Key")), stored) {
		t.Fatal("the proof is not that of the keys")
	}
	if _, login, err := e.Step(t.Context(), []byte(covered+",p="+base64.StdEncoding.EncodeToString(proof))); err == nil || login != nil {
		t.Errorf("%v, %v", login, err)
	}
}

// TestNonceOfOlderClients proves that a client is let in whose last message has its own nonce twice, as librdkafka's had before 2.2, if the proof covers that; and that
// one with a nonce that does not end with that of the exchange is not.
func TestNonceOfOlderClients(t *testing.T) {
	w := newWorld(t)
	w.addUser("alice", "secret", meta.ScramSHA256)
	for again, want := range map[string]bool{"EXCHANGE": true, "nonceEXCHANGE": true, "EXCHANGEx": false, "nonce": false, "": false} {
		e, _ := NewScram(meta.ScramSHA256, w.users(), nil).Start().(*scramExchange)
		if _, _, err := e.Step(t.Context(), []byte("n,,n=alice,r=nonce")); err != nil {
			t.Fatal(err)
		}
		salted, err := SaltPassword(meta.ScramSHA256, "secret", e.credential.Salt, e.credential.Iterations)
		if err != nil {
			t.Fatal(err)
		}
		covered := "c=biws,r=" + strings.Replace(again, "EXCHANGE", e.nonce, 1)
		proof := sign(meta.ScramSHA256, e.credential.StoredKey, e.first+","+covered)
		for i, b := range sign(meta.ScramSHA256, salted, "Client Key") {
			proof[i] ^= b
		}
		if _, login, err := e.Step(t.Context(), []byte(covered+",p="+base64.StdEncoding.EncodeToString(proof))); (login != nil) != want || (err == nil) != want {
			t.Errorf("nonce %q: %v, %v", again, login, err)
		}
	}
}

// TestBrokenMessagesEndLogins proves that messages which are not as they should be end a login, and that nothing comes
// after its end.
func TestBrokenMessagesEndLogins(t *testing.T) {
	w := newWorld(t)
	w.addUser("alice", "secret", meta.ScramSHA256)
	m := NewScram(meta.ScramSHA256, w.users(), nil)
	for _, first := range []string{
		"", "n", "n,", "n,,", "n,,n=alice", "n,,n=alice,r=", "y,,n=alice,r=x", "p=tls,,n=alice,r=x", "n,,n=,r=x", "n,,r=x,n=alice", "n,,n=al=2Dice,r=x",
		"n,,n=al=,r=x", "n,a,n=alice,r=x", "n,a=,n=alice,r=x", "n,,n=alice,r=\x01", "n,,n=alice,r=x,tokenauth", "n,,n=alice,r=x,=1", "n,,n=alice,r=x,a=",
		"n,,n=" + strings.Repeat("a", longestName+1) + ",r=x", "n,,n=alice,r=" + strings.Repeat("a", longestNonce+1), "n,,n=a\x00,r=x",
	} {
		e := m.Start()
		if answer, login, err := e.Step(t.Context(), []byte(first)); err == nil || login != nil {
			t.Errorf("first message %q: %q, %v", first, answer, login)
		}
		if _, _, err := e.Step(t.Context(), []byte("n,,n=alice,r=x")); err == nil {
			t.Errorf("the login goes on after %q", first)
		}
	}
	for _, final := range []string{"", "p=", "c=biws", "c=biws,p=AAAA", "c=biws,r=NONCE", "c=biws,r=NONCE,p=AAAA", "c=biws,r=NONCE,p=*", "c=biwt,r=NONCE,p=PROOF", "c=biws,r=x,p=PROOF", "r=NONCE,c=biws,p=PROOF"} {
		e, _ := m.Start().(*scramExchange)
		if _, _, err := e.Step(t.Context(), []byte("n,,m=1,n=alice,r=x,ext=1")); err != nil {
			t.Fatal(err)
		}
		final = strings.NewReplacer("NONCE", e.nonce, "PROOF", base64.StdEncoding.EncodeToString(make([]byte, 32))).Replace(final)
		if answer, login, err := e.Step(t.Context(), []byte(final)); err == nil || login != nil {
			t.Errorf("final message %q: %q, %v", final, answer, login)
		}
	}
	p := NewPlain(FixedPasswords{"alice": "secret", "": "secret", "bob": ""}.Check)
	for message, want := range map[string]string{
		"":                        "Invalid SASL/PLAIN response: expected 3 tokens, got 1",
		"\x00alice":               "Invalid SASL/PLAIN response: expected 3 tokens, got 2",
		"\x00alice\x00secret\x00": "Invalid SASL/PLAIN response: expected 3 tokens, got 4",
		"\x00\x00secret":          "Authentication failed: username not specified",
		"\x00bob\x00":             "Authentication failed: password not specified",
		"\x00alice\x00Secret":     "Authentication failed: Invalid username or password",
		"\x00carol\x00secret":     "Authentication failed: Invalid username or password",
	} {
		e := p.Start()
		_, login, err := e.Step(t.Context(), []byte(message))
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Text != want || login != nil {
			t.Errorf("%q: %v, %v", message, login, err)
		}
		if _, login, err := e.Step(t.Context(), []byte("\x00alice\x00secret")); err == nil || login != nil {
			t.Errorf("the login goes on after %q", message)
		}
	}
}

// FuzzScram proves that no messages of a client panic, or log it in without the password.
func FuzzScram(f *testing.F) {
	w := newWorld(f)
	w.addUser("alice", "secret", meta.ScramSHA512)
	m := NewScram(meta.ScramSHA512, w.users(), nil)
	f.Add([]byte("n,,n=alice,r=x"), []byte("c=biws,r=x,p=AAAA"))
	f.Add([]byte("n,a=alice,m=1,n=alice,r=x,tokenauth=true"), []byte(",p="))
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

// benchmarkPasswords logs in by the mechanisms with passwords. A login by SCRAM derives no key: the client does.
func benchmarkPasswords(b *testing.B) {
	b.Helper()
	w := newWorld(b)
	w.apply(meta.SecretSet([32]byte{1}))
	w.addUser("alice", "secret", meta.ScramSHA256)
	w.addUser("alice", "secret", meta.ScramSHA512)
	users := w.users()
	for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		s := NewScram(m, users, nil)
		c, _ := users.find("alice", m)
		salted, err := SaltPassword(m, "secret", c.Salt, c.Iterations)
		if err != nil {
			b.Fatal(err)
		}
		clientKey := sign(m, salted, "Client Key")
		b.Run(s.Name(), func(b *testing.B) {
			for b.Loop() {
				e, _ := s.Start().(*scramExchange)
				if _, _, err := e.Step(b.Context(), []byte("n,,n=alice,r=nonce")); err != nil {
					b.Fatal(err)
				}
				final := "c=biws,r=" + e.nonce
				proof := sign(m, c.StoredKey, e.first+","+final)
				for i := range proof {
					proof[i] ^= clientKey[i]
				}
				if _, login, err := e.Step(b.Context(), []byte(final+",p="+base64.StdEncoding.EncodeToString(proof))); login == nil {
					b.Fatal(err)
				}
			}
		})
	}
	logInPlain := func(b *testing.B, password string, want bool) {
		b.Helper()
		for b.Loop() {
			if _, login, err := NewPlain(users.CheckPassword).Start().Step(b.Context(), []byte("\x00alice\x00"+password)); (login != nil) != want {
				b.Fatal(err)
			}
		}
	}
	b.Run("PLAIN", func(b *testing.B) { logInPlain(b, "secret", true) })
	b.Run("PLAIN, wrong", func(b *testing.B) { logInPlain(b, "wrong", false) })
}

// takeTurns takes all turns in which keys are derived.
func takeTurns(users *Users) (giveBack func()) {
	gone, n := make(chan struct{}), 0
	close(gone)
	for users.checks.turns.Take(gone, netip.Addr{}) {
		n++
	}
	return func() {
		for range n {
			users.checks.turns.Give()
		}
	}
}

// TestScramKeepsLittle proves that half a SCRAM login keeps no more of a client's message than it needs, that the longest names and nonce
// are served, and that a longer message is refused.
func TestScramKeepsLittle(t *testing.T) {
	w := newWorld(t)
	w.addUser("alice", "secret", meta.ScramSHA256)
	m := NewScram(meta.ScramSHA256, w.users(), nil)
	name, nonce := strings.Repeat("n", LongestName), strings.Repeat("r", longestNonce)
	message := []byte("n,a=" + name + ",n=" + name + ",r=" + nonce)
	begin := func(message []byte) (*scramExchange, error) {
		e, _ := m.Start().(*scramExchange)
		_, _, err := e.Step(t.Context(), message)
		return e, err
	}
	if _, err := begin(message); err != nil || len(message) > longestMessage*3/4 {
		t.Errorf("the longest names and nonce, %d bytes: %v", len(message), err)
	}
	message = append(message, ",x="...)
	message = append(message, strings.Repeat("x", longestMessage-len(message))...)
	if _, err := begin(append(message, 'x')); err == nil {
		t.Error("a longer message is served")
	}
	const many = 2000
	kept := make([]*scramExchange, many)
	before := heapInUse()
	for i := range kept {
		e, err := begin(message)
		if err != nil {
			t.Fatal(err)
		}
		kept[i] = e
	}
	if each := (heapInUse() - before) / many; each > 10<<10 {
		t.Errorf("half a login keeps %d bytes", each)
	}
	runtime.KeepAlive(kept)
}

func heapInUse() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// TestLongPlainMessages proves that PLAIN refuses a message that is longer than all that can be right, and does not keep it while it waits.
func TestLongPlainMessages(t *testing.T) {
	long := strings.Repeat("n", LongestName)
	asked := 0
	p := NewPlain(func(context.Context, string, string) bool {
		asked++
		return true
	})
	if _, login, err := p.Start().Step(t.Context(), []byte(long+"\x00"+long+"\x00"+long)); login == nil {
		t.Errorf("the longest message: %v", err)
	}
	if _, login, _ := p.Start().Step(t.Context(), []byte(long+"x\x00"+long+"\x00"+long)); login != nil || asked != 1 {
		t.Errorf("a longer message: %v, and %d passwords were checked", login, asked)
	}
}

// TestPasswordsAreCheckedInTurns proves that many clients of one network that send wrong passwords keep no client of another network out: its
// password is checked before most of theirs, though it has come last.
func TestPasswordsAreCheckedInTurns(t *testing.T) {
	w := newWorld(t)
	w.addUser("alice", "secret", meta.ScramSHA256)
	users := w.users()
	giveBack := takeTurns(users)
	const crowd = 50
	type result struct{ from, isRight string }
	results := make(chan result, crowd+1)
	check := func(from, password string) {
		before := users.checks.turns.Waiting()
		go func() {
			isRight := users.CheckPassword(budget.WithOrigin(t.Context(), netip.MustParseAddr(from)), "alice", password)
			results <- result{from, strconv.FormatBool(isRight)}
		}()
		for users.checks.turns.Waiting() == before {
			runtime.Gosched()
		}
	}
	for range crowd {
		check("192.0.2.1", "wrong")
	}
	check("192.0.2.2", "secret")
	giveBack()
	for i := range crowd + 1 {
		r := <-results
		if r.from != "192.0.2.1" {
			if i >= crowd/2 || r.isRight != "true" {
				t.Errorf("the client of another network was served after %d others: %s", i, r.isRight)
			}
			return
		}
	}
}

// TestPasswordsAreRemembered proves that a right password is checked once, that a wrong one never becomes right by that, and that a
// password is worth nothing any more when it was changed or the user deleted.
func TestPasswordsAreRemembered(t *testing.T) {
	w := newWorld(t)
	w.addUser("alice", "secret", meta.ScramSHA512)
	users := w.users()
	f := func(user, password string, want bool, remembered int) {
		t.Helper()
		if got := users.CheckPassword(t.Context(), user, password); got != want || len(users.checks.known) != remembered {
			t.Errorf("user %s, %s: %v, %d are remembered", user, password, got, len(users.checks.known))
		}
	}
	f("alice", "wrong", false, 0)
	f("alice", "secret", true, 1)
	ended, end := context.WithCancel(t.Context())
	end()
	giveBack := takeTurns(users) // nobody can derive a key now
	if !users.CheckPassword(ended, "alice", "secret") || users.CheckPassword(ended, "alice", "wrong") || users.CheckPassword(ended, "bob", "secret") {
		t.Error("what was remembered does not count alone")
	}
	giveBack()
	w.addUser("alice", "other", meta.ScramSHA512)
	f("alice", "secret", false, 1)
	f("alice", "other", true, 2)
	w.apply(meta.CredentialUnset{CredentialOwner: meta.CredentialOwner{User: "alice", Mechanism: meta.ScramSHA512}})
	f("alice", "other", false, 2)
}
