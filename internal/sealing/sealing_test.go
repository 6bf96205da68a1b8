package sealing

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goldenKey is the key of the golden bytes.
func goldenKey(first byte) key {
	var secret [keyBytes]byte
	for i := range secret {
		secret[i] = first + byte(i)
	}
	return makeKey(secret)
}

var golden = Purpose{Kind: "authority", Cluster: "AAAAAAAAAAAAAAAAAAAAAA"}

// sealGolden returns the golden bytes of a sealed secret.
func sealGolden(r *Ring) ([]byte, error) {
	return r.sealWith(bytes.NewReader(bytes.Repeat([]byte{7}, nonceBytes)), golden, []byte("a secret"))
}

// TestFormat proves that a ring and a sealed secret have the bytes that they had when their formats were promised, and that these
// are read. What is in testdata never changes.
func TestFormat(t *testing.T) {
	r := &Ring{[]key{goldenKey(0), goldenKey(100)}}
	sealed, err := sealGolden(r)
	if err != nil {
		t.Fatal(err)
	}
	for name, have := range map[string][]byte{"ring-1": r.Encode(), "sealed-1": []byte(hex.EncodeToString(sealed) + "\n")} {
		want, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is\n%s and was\n%s", name, have, want)
		}
	}
	text, err := os.ReadFile(filepath.Join("testdata", "ring-1"))
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseRing(text)
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := read.Open(golden, sealed); err != nil || string(secret) != "a secret" {
		t.Errorf("it is read as %q, %v", secret, err)
	}
}

// TestOnlyItsPurpose proves that a secret is opened by its key, for its purpose and cluster alone, and that no changed byte is borne.
func TestOnlyItsPurpose(t *testing.T) {
	r := NewRing()
	sealed, err := r.Seal(golden, []byte("Pl4nted"))
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len("Pl4nted")+Overhead || bytes.Contains(sealed, []byte("Pl4nted")) {
		t.Errorf("sealed it is %q", sealed)
	}
	for _, p := range []Purpose{{"link", golden.Cluster}, {golden.Kind, "other"}, {golden.Kind + golden.Cluster, ""}, {}} {
		if _, err := r.Open(p, sealed); !errors.Is(err, ErrDamaged) {
			t.Errorf("for %+v: %v", p, err)
		}
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if secret, err := r.Open(golden, changed); err == nil || secret != nil {
			t.Errorf("with another byte %d: %q, %v", i, secret, err)
		}
	}
	for i := range sealed {
		if _, err := r.Open(golden, sealed[:i]); err == nil {
			t.Errorf("%d bytes are opened", i)
		}
	}
	if _, err := NewRing().Open(golden, sealed); !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), r.Newest().String()) {
		t.Errorf("with another ring: %v", err)
	}
}

// TestRotation proves that the newest key of a ring seals, that all of them open, and that a ring has a bound.
func TestRotation(t *testing.T) {
	first := NewRing()
	old, err := first.Seal(golden, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := first.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := r.Seal(golden, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := KeyOf(fresh); err != nil || id != r.Newest() || id == first.Newest() || !r.Has(first.Newest()) {
		t.Errorf("it was sealed by %v, %v", id, err)
	}
	read, err := ParseRing(append([]byte("\ufeff# of an editor\r\n"[3:]), bytes.ReplaceAll(r.Encode(), []byte("\n"), []byte("\r\n"))...))
	if err != nil {
		t.Fatal(err)
	}
	for sealed, want := range map[string]string{string(old): "old", string(fresh): "new"} {
		if secret, err := read.Open(golden, []byte(sealed)); err != nil || string(secret) != want {
			t.Errorf("%q, %v", secret, err)
		}
	}
	if _, err := first.Open(golden, fresh); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("the old ring: %v", err)
	}
	for range MaxKeys - 2 {
		if r, err = r.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Rotate(); err == nil {
		t.Error("a ring has no bound")
	}
	if text := fmt.Sprintf("%v %+v %#v %s %q %x", r, r, r, r, r, r); strings.Contains(text, fmt.Sprintf("%x", r.keys[0].secret[:4])) {
		t.Error("a ring prints its keys")
	}
}

// TestNextKey proves that a ring which is given the next key goes on to seal by the one that it had, until it is told otherwise, and opens what either has
// sealed; that another ring gets that key, and does as the ring which it is from; and that nothing changes for one that has all keys.
func TestNextKey(t *testing.T) {
	old := NewRing()
	both, next, err := old.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	if both.Newest() != old.Newest() || !slices.Equal(both.IDs(), []ID{next, old.Newest()}) || next == old.Newest() {
		t.Errorf("%v, next %v", both, next)
	}
	seal := func(r *Ring) []byte {
		t.Helper()
		b, err := r.Seal(golden, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	turned := both.SealBy(next)
	if turned.Newest() != next || len(turned.IDs()) != 2 || !slices.Equal(both.SealBy(old.Newest()).IDs(), both.IDs()) {
		t.Errorf("%v", turned)
	}
	for _, sealed := range [][]byte{seal(old), seal(both), seal(turned), seal(turned.Only(next))} {
		for _, r := range []*Ring{both, turned} {
			if _, err := r.Open(golden, sealed); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := turned.Only(next).Open(golden, seal(both)); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("without the old key: %v", err)
	}
	for _, c := range []struct{ own, from, want *Ring }{
		{old, both, both},
		{both, old, both},
		{turned, both, turned}, // it has all
		{old, turned, turned},
		{old, turned.Only(next), turned}, // a copy from before, in a cluster that has gone on
	} {
		got, err := c.own.Merge(c.from)
		if err != nil || !slices.Equal(got.IDs(), c.want.IDs()) {
			t.Errorf("%v with %v is %v, want %v: %v", c.own, c.from, got, c.want, err)
		}
	}
	full := old
	for range MaxKeys - 1 {
		if full, _, err = full.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := full.Prepare(); err == nil {
		t.Error("a ring has no bound")
	}
}

// TestBadRings proves that a damaged file is refused, with the line and without a part of a key.
func TestBadRings(t *testing.T) {
	good := string(NewRing().Encode())
	line := good[strings.Index(good, linePrefix):]
	id, secret := strings.Split(line, ":")[1], strings.TrimSpace(strings.Split(line, ":")[2])
	for text, want := range map[string]string{
		"":                                       "has no line that begins",
		"# nothing\n":                            "has no line that begins",
		"\x00\x01":                               "line 1 does not begin",
		line + line:                              "line 2 has a key again",
		linePrefix + ":" + id + ":" + secret[4:]: "line 1 has no key of 32 bytes",
		linePrefix + ":1234:" + secret:           "line 1 has no id",
		linePrefix + ":0123456789abcdef:" + secret:  "line 1 is damaged",
		"\n" + linePrefix + ":" + secret:            "line 2 does not begin",
		strings.Repeat("#\n", MaxFile):              "more than 65536 bytes",
		linePrefix + ":" + id + ":" + secret + ":x": "line 1 does not begin",
	} {
		_, err := ParseRing([]byte(text))
		if !errors.Is(err, ErrRing) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// FuzzRing proves that any text is either refused, or is a ring that opens what it seals and is written as it was read.
func FuzzRing(f *testing.F) {
	f.Add(NewRing().Encode())
	f.Add([]byte(linePrefix + ":00:AAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRing(text)
		if err != nil {
			return
		}
		again, err := ParseRing(r.Encode())
		if err != nil || !slices.Equal(again.IDs(), r.IDs()) {
			t.Fatalf("%v is written as %v: %v", r, again, err)
		}
		sealed, err := r.Seal(golden, text)
		if err != nil {
			t.Fatal(err)
		}
		if secret, err := again.Open(golden, sealed); err != nil || !bytes.Equal(secret, text) {
			t.Fatal(err)
		}
	})
}

// FuzzOpen proves that no bytes but those that were sealed are opened, and that none of them makes the program panic.
func FuzzOpen(f *testing.F) {
	r := &Ring{[]key{goldenKey(0), goldenKey(100)}}
	sealed, err := sealGolden(r) // Seal would give each of the fuzzer's processes other bytes
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:Overhead])
	f.Fuzz(func(t *testing.T, b []byte) {
		if secret, err := r.Open(golden, b); err == nil && !bytes.Equal(b, sealed) {
			t.Fatalf("%x is opened as %q", b, secret)
		}
	})
}
