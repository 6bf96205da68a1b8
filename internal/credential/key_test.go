package credential_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/credential"
)

// TestNodeKeyText proves that the text of a key is read as the same key, also after an editor has
// changed line ends.
func TestNodeKeyText(t *testing.T) {
	key := newWorld(t).keys[1]
	text := key.Encode()
	for _, s := range [][]byte{text, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), append(text, "\n# more\n"...)} {
		got, err := credential.ParseNodeKey(s)
		if err != nil || got.Public() != key.Public() || !bytes.Equal(got.Encode(), text) {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
}

// TestWrongNodeKeys proves that each kind of wrong node.key has a sentence, and that none shows a
// part of the file.
func TestWrongNodeKeys(t *testing.T) {
	w := newWorld(t)
	text := string(w.keys[1].Encode())
	replace := func(old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("the text has no %q", old)
		}
		return strings.Replace(text, old, with, 1)
	}
	for name, c := range map[string]struct{ text, sentence string }{
		"empty":          {"", "no version"},
		"zeros":          {strings.Repeat("\x00", 200), "a line is not a setting"},
		"too long":       {text + strings.Repeat("#\n", 4000), "bytes"},
		"newer":          {replace("version=1", "version=2"), "a newer leat wrote"},
		"version 0":      {replace("version=1", "version=0"), "no version"},
		"truncated":      {text[:strings.Index(text, "public=")], "damaged"},
		"short":          {replace("private=", "private=A"), "damaged"},
		"another half":   {replace(w.keys[1].Public().String(), w.keys[2].Public().String()), "not of one key"},
		"a line twice":   {text + "version=1\n", "there twice"},
		"a line more":    {text + "level=1\n", "damaged"},
		"a changed seed": {replace("private="+text[strings.Index(text, "private=")+8:][:4], "private=AAAA"), "not of one key"},
	} {
		_, err := credential.ParseNodeKey([]byte(c.text))
		if !errors.Is(err, credential.ErrKeyFile) || !strings.Contains(err.Error(), c.sentence) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), text[strings.Index(text, "private=")+12:][:10]) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

// TestPublicKeyText proves that a public key has one text, and that nothing else is read as one.
func TestPublicKeyText(t *testing.T) {
	key := newWorld(t).keys[1].Public()
	text := key.String()
	if got, err := credential.ParsePublicKey(text); err != nil || got != key {
		t.Error(got, err)
	}
	for _, s := range []string{"", "ed25519:", text[8:], text[:len(text)-1], text + "A", "rsa:" + text[8:], text[:20] + "\n" + text[20:], text[:20] + "!" + text[21:]} {
		if got, err := credential.ParsePublicKey(s); !errors.Is(err, credential.ErrPublicKey) {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
}

// TestClusterIDText proves that the id of a cluster is read as meta.properties has it.
func TestClusterIDText(t *testing.T) {
	if got, err := credential.ParseClusterID(here.String()); err != nil || got != here || len(here.String()) != 22 {
		t.Error(got, err)
	}
	for _, s := range []string{"", "short", here.String() + "A", here.String()[:21] + "B", here.String()[:21] + "\n"} {
		if got, err := credential.ParseClusterID(s); !errors.Is(err, credential.ErrID) {
			t.Errorf("%q is read as %v, %v", s, got, err)
		}
	}
}

// FuzzNodeKey proves that no bytes make the parser panic, and that a key that is read is written
// and read again as the same one.
func FuzzNodeKey(f *testing.F) {
	key, err := credential.NewNodeKey(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key.Encode())
	f.Add([]byte("version=2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := credential.ParseNodeKey(b)
		if err != nil {
			return
		}
		if again, err := credential.ParseNodeKey(key.Encode()); err != nil || again.Public() != key.Public() {
			t.Error(again, err)
		}
	})
}

// FuzzPublicKey proves that a public key has one text only.
func FuzzPublicKey(f *testing.F) {
	f.Add(credential.PublicKey{1}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := credential.ParsePublicKey(text); err == nil && key.String() != text {
			t.Errorf("%q is read as %v", text, key)
		}
	})
}

// FuzzClusterID proves that the id of a cluster has one text only.
func FuzzClusterID(f *testing.F) {
	f.Add(here.String())
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := credential.ParseClusterID(text); err == nil && id.String() != text {
			t.Errorf("%q is read as %v", text, id)
		}
	})
}
