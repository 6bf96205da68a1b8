package mirror_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
)

// settingsOf makes settings in the order of their keys.
func settingsOf(set map[string]string) (list []meta.LinkSetting) {
	for _, k := range slices.Sorted(maps.Keys(set)) {
		list = append(list, meta.LinkSetting{Key: k, Value: set[k]})
	}
	return list
}

// TestSettingsAreChecked proves that settings which cannot be are refused with a sentence that names them and has no secret, and that others are read.
func TestSettingsAreChecked(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"bootstrap.servers", "", "bootstrap.servers is missing"},
		{"bootstrap.servers", "host", `"host" is not host:port`},
		{"bootstrap.servers", "host:0", "not host:port"},
		{"bootstrap.servers", " a:1 , b:2,", ""},
		{"topics", "re:(", "the pattern"},
		{"topics", "a,b*,re:^c,d$", ""},
		{"exclude", "a*b", "is not at its end"},
		{"prefix", "é", "the prefix"},
		{"rename", "a", "has to be source=here"},
		{"start", "soon", "neither earliest, latest nor a time"},
		{"start", "2026-12-01T08:00:00Z", ""},
		{"map", "a:1", "is not ADVERTISED=REACHABLE"},
		{"map", "a:1=b", `"b" is not host:port`},
		{"map", "a:1=b:2, c:3=d:4", ""},
		{"throttle.bytes.per.second", "10", "at least 1024"},
		{"throttle.bytes.per.second", "1000000", ""},
		{"accept.loss", "yes", "neither true nor false"},
		{"accept.loss", "true", ""},
		{"client.rack", "r1", ""},
		{"via", "agent", ""},
		{"via", "proxy", `via is "proxy", and not agent`},
		{"security.protocol", "TLS", "none of PLAINTEXT"},
		{"security.protocol", "ssl", ""},
		{"security.protocol", "SASL_SSL", "SASL_SSL needs sasl.username and a password"},
		{"sasl.mechanism", "PLAIN", "which has none"},
		{"ssl.truststore.certificates", "x", "does not encrypt"},
		{"group.id", "g", `no setting "group.id"`},
	} {
		set := map[string]string{"bootstrap.servers": "h:1"}
		set[c.key] = c.value
		_, err := mirror.ParseSettings(settingsOf(set), nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %q", c.key, c.value, err, c.want)
		}
	}
	secrets, err := mirror.EncodeSecrets([]meta.LinkSetting{{Key: "sasl.password", Value: " hunter2 "}})
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{"bootstrap.servers": "h:1", "security.protocol": "SASL_PLAINTEXT", "sasl.username": "u"}
	if _, err := mirror.ParseSettings(settingsOf(set), secrets); err != nil {
		t.Error(err)
	}
	set["sasl.mechanism"] = "GSSAPI"
	if _, err := mirror.ParseSettings(settingsOf(set), secrets); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
	set["security.protocol"], set["sasl.mechanism"], set["ssl.keystore.certificate.chain"] = "SASL_SSL", "", "x"
	if _, err := mirror.ParseSettings(settingsOf(set), secrets); err == nil || !strings.Contains(err.Error(), "go together") {
		t.Error(err)
	}
	if _, err := mirror.ParseSettings(settingsOf(set), []byte("{")); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}
