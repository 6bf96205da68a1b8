package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// planted is a secret of which no error may have a part.
const planted = "Pl4nted"

// TestJAASIsRead proves that the entry of a login module is read as Java reads it, and that nothing else is, with no secret in the
// error.
func TestJAASIsRead(t *testing.T) {
	f := func(text string, want map[string]string) {
		t.Helper()
		got, err := ParseJAAS(text)
		if err != nil || got.Module != PlainLoginModule || !maps.Equal(got.Options, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	f(PlainLoginModule+` required username="admin" password="a b;\"c\\" user_x-1=word;`, map[string]string{"username": "admin", "password": `a b;"c\`, "user_x-1": "word"})
	f("\n "+PlainLoginModule+" REQUIRED\n user_a='x=\"y\"' // a comment; \"\n /* another; */ ; \n", map[string]string{"user_a": `x="y"`})
	f(PlainLoginModule+` optional;`, map[string]string{})
	for _, text := range []string{
		"", PlainLoginModule, PlainLoginModule + " required", PlainLoginModule + ` required password="Pl4nted"`, PlainLoginModule + ` password="Pl4nted";`,
		PlainLoginModule + ` required password="Pl4nted;`, PlainLoginModule + ` required password=Pl4nted!;`, PlainLoginModule + ` required password Pl4nted;`,
		PlainLoginModule + ` required password="Pl4nted" password="Pl4nted2";`, PlainLoginModule + ` required password="Pl4nted"; x`,
		PlainLoginModule + ` required password="Pl4nted" /* ;`, PlainLoginModule + " required password=\"Pl4nted\nx\";", `KafkaServer { x required password="Pl4nted"; };`,
	} {
		if got, err := ParseJAAS(text); err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// FuzzJAAS proves that no text makes the reader panic or go on for ever.
func FuzzJAAS(f *testing.F) {
	f.Add(PlainLoginModule + ` required username="admin" user_alice='x' ; // end`)
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJAAS(text)
		if err == nil && j.Module == "" {
			t.Errorf("%q has no module", text)
		}
	})
}

// TestPropertiesAreRead proves that a Java properties file is read as Java reads it.
func TestPropertiesAreRead(t *testing.T) {
	got, err := ParseProperties("# c\n! c\n\n a = 1 \nb:2\nc 3\nd\\=\\ e=\\u0041\\n\\\\\nlong = x\\\n   y\\\r\n z\nempty=\nlast=\\\n# no comment")
	want := map[string]string{"a": "1 ", "b": "2", "c": "3", "d= e": "A\n\\", "long": "xyz", "empty": "", "last": "# no comment"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, err := ParseProperties("a=1\npassword=Pl4nted\\u00"); err == nil || strings.Contains(err.Error(), planted) || !strings.HasPrefix(err.Error(), "line 2") {
		t.Error(err)
	}
}

// TestLoginsAreSet proves how the clients of a listener log in: what is set for it and for a mechanism of it wins, and what would let
// anybody in, or has no effect, is refused, with no secret in the error.
func TestLoginsAreSet(t *testing.T) {
	read := func(pairs ...string) (LoginSettings, error) {
		set := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			set[pairs[i]] = pairs[i+1]
		}
		s, err := NewStatic(1, set)
		if err != nil {
			return LoginSettings{}, err
		}
		if err := s.CheckLogins(true); err != nil {
			return LoginSettings{}, err
		}
		return s.Login("OUT")
	}
	got, err := read("sasl.enabled.mechanisms", "SCRAM-SHA-512", "listener.name.out.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256", "connections.max.reauth.ms", "5000",
		"listener.name.out.plain.connections.max.reauth.ms", "7000", "listener.name.out.plain.sasl.jaas.config", PlainLoginModule+` required username="x" password="y" user_alice="a" user_bob="b";`)
	want := LoginSettings{
		Mechanisms: []string{"PLAIN", "SCRAM-SHA-256"}, PlainUsers: map[string]string{"alice": "a", "bob": "b"}, MaxFrame: 512 << 10, Delay: 100 * time.Millisecond,
		MaxLifetime: map[string]time.Duration{"PLAIN": 7 * time.Second, "SCRAM-SHA-256": 5 * time.Second},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if got, err := read(); err != nil || strings.Join(got.Mechanisms, " ") != "SCRAM-SHA-256 SCRAM-SHA-512" || got.PlainUsers != nil {
		t.Errorf("without settings: %+v, %v", got, err)
	}
	oauth := []string{
		"sasl.enabled.mechanisms", "OAUTHBEARER", "sasl.oauthbearer.jwks.endpoint.url", "https://issuer.example/keys", "sasl.oauthbearer.expected.audience", "leat, kafka",
		"listener.name.out.oauthbearer.sasl.oauthbearer.expected.issuer", "https://issuer.example",
	}
	if got, err := read(oauth...); err != nil || got.OAuth.Issuer != "https://issuer.example" || len(got.OAuth.Audience) != 2 || got.OAuth.ClockSkew != 30*time.Second ||
		got.OAuth.Refresh != time.Hour || got.OAuth.SubClaim != "sub" || got.OAuth.GroupClaim != "groups" {
		t.Errorf("OAUTHBEARER: %+v, %v", got, err)
	}
	groups := "leat.sasl.oauthbearer.groups.claim.name"
	if got, err := read(append(slices.Clip(oauth), groups, "teams")...); err != nil || got.OAuth.GroupClaim != "teams" {
		t.Errorf("another claim for groups: %+v, %v", got, err)
	}
	if got, err := read(append(slices.Clip(oauth), groups, "teams", "listener.name.out."+groups, "crews", "listener.name.out.oauthbearer."+groups, "roles")...); err != nil || got.OAuth.GroupClaim != "roles" {
		t.Errorf("another claim for groups of the listener's mechanism: %+v, %v", got, err)
	}
	jaas := "listener.name.out.plain.sasl.jaas.config"
	plain := []string{"sasl.enabled.mechanisms", "PLAIN"}
	for _, c := range []struct {
		want  string
		pairs []string
	}{
		{"is empty: name a mechanism", []string{"sasl.enabled.mechanisms", ""}},
		{"needs Kerberos", []string{"sasl.enabled.mechanisms", "GSSAPI"}},
		{"the mechanisms are PLAIN", []string{"sasl.enabled.mechanisms", "plain"}},
		{"the login module of PLAIN is", append(plain, jaas, ScramLoginModule+` required user_alice="Pl4nted";`)},
		{"not of the form", append(plain, jaas, PlainLoginModule+` user_alice="Pl4nted";`)},
		{"the option serviceName has no effect", append(plain, jaas, PlainLoginModule+` required serviceName="Pl4nted";`)},
		{"a name and a password", append(plain, jaas, PlainLoginModule+` required user_="Pl4nted";`)},
		{"the login module is one of a mechanism", append(plain, "sasl.jaas.config", PlainLoginModule+` required user_a="Pl4nted";`)},
		{"the login module is one of a mechanism", append(plain, "listener.name.out.sasl.jaas.config", PlainLoginModule+` required user_a="Pl4nted";`)},
		{"jwks.endpoint.url is not set", []string{"sasl.enabled.mechanisms", "OAUTHBEARER"}},
		{"https:// or file:/ URL only", append(oauth[:2:2], "sasl.oauthbearer.jwks.endpoint.url", "http://issuer.example/keys")},
		{"expected.audience is not set", oauth[:4]},
		{"expected.issuer is not set", oauth[:6]},
	} {
		if _, err := read(c.pairs...); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), planted) {
			t.Errorf("%v: %v", c.pairs, err)
		}
	}
}
