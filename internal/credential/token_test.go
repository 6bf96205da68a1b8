package credential_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/credential"
)

// TestTokenText proves that the text of a token is read as the same token, with space around it as
// a file or a shell leaves it.
func TestTokenText(t *testing.T) {
	w := newWorld(t)
	text := w.token.Text()
	if len(text) != 65 || !strings.HasPrefix(text, "leat1.") || w.token.NeedsTLS() {
		t.Errorf("the text is %q", text)
	}
	secure := w.token.WithTLS()
	if text := secure.Text(); len(text) != 66 || !strings.HasPrefix(text, "leat2.") || !secure.NeedsTLS() {
		t.Errorf("the text of one that needs TLS is %q", text)
	}
	if got, err := credential.ParseToken(secure.Text()); err != nil || got != secure || got.Verifier(now) != w.token.Verifier(now) {
		t.Errorf("one that needs TLS is read as %v, %v", got, err)
	}
	for _, s := range []string{text, text + "\n", " " + text + "\r\n"} {
		if got, err := credential.ParseToken(s); err != nil || got != w.token || got.ID() != w.token.ID() || got.Cluster() != here {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
}

// TestWrongTokenTexts proves that each kind of wrong text has an error that says how it is wrong, and that
// no error shows a part of the text.
func TestWrongTokenTexts(t *testing.T) {
	w := newWorld(t)
	text := w.token.Text()
	swap := func(at int) string {
		b := []byte(text)
		b[at], b[at+1] = b[at+1], b[at]
		return string(b)
	}
	for _, c := range []struct {
		name, text string
		want       error
		sentence   string
	}{
		{"nothing", " \n", credential.ErrNotToken, "empty"},
		{"a word", "secret", credential.ErrNotToken, "begins with leat1."},
		{"an address", "leat.example.com:9092", credential.ErrNotToken, "begins with leat1."},
		{"a number with a zero", "leat01." + text[6:], credential.ErrNotToken, "begins with leat1."},
		{"a sign", "leat+1." + text[6:], credential.ErrNotToken, "begins with leat1."},
		{"upper case", strings.ToUpper(text), credential.ErrNotToken, "begins with leat1."},
		{"without the beginning", text[6:], credential.ErrNotToken, "begins with leat1."},
		{"three characters", text[:3], credential.ErrTokenTruncated, "only its first 3 characters"},
		{"the beginning", text[:6], credential.ErrTokenTruncated, "only its first 6 characters"},
		{"half", text[:40], credential.ErrTokenTruncated, "25 of its 65 characters are missing"},
		{"one less", text[:64], credential.ErrTokenTruncated, "1 of its 65 characters are missing"},
		{"one more", text + "A", credential.ErrTokenDamaged, "1 characters too many"},
		{"twice", text + text, credential.ErrTokenDamaged, "characters too many"},
		{"a line break", text[:30] + "\n" + text[30:], credential.ErrTokenDamaged, "a line break"},
		{"a line break instead of a character", text[:30] + "\n" + text[31:], credential.ErrTokenDamaged, "a line break"},
		{"a space", text[:30] + " " + text[30:], credential.ErrTokenDamaged, "a space"},
		{"a strange character", text[:30] + "!" + text[31:], credential.ErrTokenDamaged, "no token has"},
		{"swapped characters", swap(40), credential.ErrTokenDamaged, "was changed"},
		{"of another form", "leat2." + text[6:], credential.ErrTokenTruncated, "1 of its 66 characters are missing"},
		{"of another form, and with another first byte", "leat2.A" + text[6:], credential.ErrTokenDamaged, "was changed"},
		{"newer", "leat3." + text[6:], credential.ErrTokenVersion, "join with the release that the cluster runs"},
		{"newer and longer", "leat12." + text[6:] + "abc", credential.ErrTokenVersion, "its version is 12"},
		{"older", "leat0." + text[6:], credential.ErrTokenVersion, "make a new one"},
	} {
		_, err := credential.ParseToken(c.text)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.sentence) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && strings.Contains(err.Error(), text[10:20]) {
			t.Errorf("%s: the error shows the text: %v", c.name, err)
		}
	}
}

// TestEveryChangedCharacterOfTokenIsFound proves that a token with one wrong character is not taken
// for another token.
func TestEveryChangedCharacterOfTokenIsFound(t *testing.T) {
	token := newWorld(t).token
	for _, text := range []string{token.Text(), token.WithTLS().Text()} {
		for at := range text {
			for _, c := range "Ab012-_." {
				if rune(text[at]) == c {
					continue
				}
				if got, err := credential.ParseToken(text[:at] + string(c) + text[at+1:]); err == nil {
					t.Errorf("character %d became %q: %v", at, c, got)
				}
			}
		}
	}
}

// TestTokenOfAnotherCluster proves that a token that does not fit a directory is refused by name.
func TestTokenOfAnotherCluster(t *testing.T) {
	w := newWorld(t)
	if err := w.token.CheckCluster(here); err != nil {
		t.Error(err)
	}
	other := credential.ClusterID{5}
	err := w.token.CheckCluster(other)
	if !errors.Is(err, credential.ErrForeignCluster) || !strings.Contains(err.Error(), here.String()) || !strings.Contains(err.Error(), other.String()) {
		t.Error(err)
	}
}

// TestVerifiersDiffer proves that the same secret makes other keys under another id or cluster, and
// that a verifier has nothing of the secret.
func TestVerifiersDiffer(t *testing.T) {
	make1 := func(cluster credential.ClusterID, id byte) credential.Verifier {
		token, err := credential.NewToken(cluster, bytes.NewReader(append([]byte{id}, bytes.Repeat([]byte{0x5c}, 23)...)))
		if err != nil {
			t.Fatal(err)
		}
		return token.Verifier(now)
	}
	a, b, c := make1(here, 1), make1(here, 2), make1(credential.ClusterID{5}, 1)
	if a.Key == b.Key || a.Key == c.Key || a.Acceptor == b.Acceptor || a.Acceptor == c.Acceptor || a.Key == credential.PublicKey(a.Acceptor) {
		t.Error("verifiers share keys")
	}
	again := make1(here, 1)
	if a != again || a.Expires != now {
		t.Error("a token has two verifiers")
	}
	if bytes.Contains(fmt.Append(nil, a), []byte("92 92 92")) {
		t.Error("the verifier has a part of the secret")
	}
}

// TestSecretsAreNotPrinted proves that a token and a node's key can be printed and logged, also
// inside of something else, without their secrets.
func TestSecretsAreNotPrinted(t *testing.T) {
	w := newWorld(t)
	raw, err := base64.RawURLEncoding.DecodeString(w.token.Text()[6:])
	if err != nil {
		t.Fatal(err)
	}
	seed := privateOf(w.keys[1]).Seed()
	var out bytes.Buffer
	join := w.join()
	join.Key = w.keys[1]
	for _, v := range []any{w.token, &w.token, w.keys[1], join, &join, w.self(1)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("test", "value", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("test", "value", v)
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	for name, secret := range map[string][]byte{"the token's secret": raw[24:40], "the key's seed": seed} {
		part := secret[4:10]
		decimal := strings.Trim(fmt.Sprintf("%d", part), "[]")
		for _, text := range []string{
			string(part), fmt.Sprintf("%x", part), decimal, strings.ReplaceAll(decimal, " ", ","), base64.StdEncoding.EncodeToString(secret[3:12]),
			strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
		} {
			if bytes.Contains(out.Bytes(), []byte(text)) {
				t.Errorf("%s is printed as %q", name, text)
			}
		}
	}
	if !bytes.Contains(out.Bytes(), []byte(w.token.ID().String())) || !bytes.Contains(out.Bytes(), []byte(w.keys[1].Public().String())) {
		t.Error("the public parts are not printed")
	}
	if got := fmt.Sprint(credential.NodeKey{}); got != "no key" {
		t.Error("a zero key is printed as", got)
	}
}

// FuzzToken proves that no text makes the parser panic, and that a token has one text only.
func FuzzToken(f *testing.F) {
	token, err := credential.NewToken(here, bytes.NewReader(make([]byte, 24)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.Text())
	f.Add(token.WithTLS().Text())
	f.Add("leat2.x")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := credential.ParseToken(text)
		if err != nil {
			return
		}
		if token.Text() != strings.TrimSpace(text) {
			t.Errorf("%q is read as %q", text, token.Text())
		}
		token.Verifier(time.Time{})
	})
}
