package config

import (
	"slices"
	"strings"
	"testing"
)

// TestListenerKeys proves which names of configs are read as those of one listener, and as those of one of its mechanisms.
func TestListenerKeys(t *testing.T) {
	f := func(name string, want ListenerKey) {
		t.Helper()
		got, ok := ParseListenerKey(name)
		if ok != (want != ListenerKey{}) || got != want && ok {
			t.Errorf("%s is %+v, %v", name, got, ok)
		}
		if ok && got.String() != name {
			t.Errorf("%s is written as %s", name, got)
		}
		if d := Find(Broker, name); (d != nil) != ok || ok && d.Name != name {
			t.Errorf("Find(%s) is %v", name, d)
		}
	}
	f("listener.name.out.ssl.client.auth", ListenerKey{"out", "", "ssl.client.auth"})
	f("listener.name.sasl_ssl.sasl.enabled.mechanisms", ListenerKey{"sasl_ssl", "", "sasl.enabled.mechanisms"})
	f("listener.name.a.b.ssl.keystore.type", ListenerKey{"a.b", "", "ssl.keystore.type"})
	f("listener.name.out.scram-sha-256.sasl.jaas.config", ListenerKey{"out", "scram-sha-256", "sasl.jaas.config"})
	f("listener.name.plain.plain.sasl.jaas.config", ListenerKey{"plain", "plain", "sasl.jaas.config"})
	f("listener.name.plain.sasl.jaas.config", ListenerKey{"plain", "", "sasl.jaas.config"})
	f("listener.name.a.plain.ssl.client.auth", ListenerKey{"a.plain", "", "ssl.client.auth"})
	f("listener.name.out.num.partitions", ListenerKey{}) // it is for all listeners
	f("listener.name.out.ssl.nothing", ListenerKey{})
	f("listener.name.ssl.client.auth", ListenerKey{})
	f("listener.name..ssl.client.auth", ListenerKey{})
	f("listener.name.OUT.ssl.client.auth", ListenerKey{}) // Kafka reads small letters only
	f("listener.name.", ListenerKey{})
}

// TestListenerConfigs proves which of the places that have a value for a listener wins.
func TestListenerConfigs(t *testing.T) {
	s := &Static{values: map[string]string{
		"ssl.cipher.suites":                              "ALL",
		"listener.name.out.ssl.cipher.suites":            "A, B",
		"listener.name.out.sasl.server.max.receive.size": "1", "listener.name.out.plain.sasl.server.max.receive.size": "2",
	}}
	s.given = s.values
	v := View{Static: s, Own: map[string]string{"listener.name.in.ssl.cipher.suites": "C"}, All: map[string]string{"listener.name.out.ssl.cipher.suites": "D"}}
	f := func(v View, listener, mechanism, key, want string, wantOwn bool) {
		t.Helper()
		if got, isOwn := v.ForListener(listener).Value(mechanism, key); got != want || isOwn != wantOwn {
			t.Errorf("%s of %s %s is %q, %v", key, listener, mechanism, got, isOwn)
		}
	}
	f(v, "OUT", "", "ssl.cipher.suites", "D", true) // set while the node runs
	f(View{Static: s}, "OUT", "", "ssl.cipher.suites", "A, B", true)
	f(v, "IN", "", "ssl.cipher.suites", "C", true)
	f(v, "ELSE", "", "ssl.cipher.suites", "ALL", false)
	f(v, "ELSE", "", "ssl.client.auth", "none", false)
	f(v, "ELSE", "", "ssl.keystore.location", "", false)
	f(v, "OUT", "PLAIN", "sasl.server.max.receive.size", "2", true)
	f(v, "OUT", "GSSAPI", "sasl.server.max.receive.size", "1", true)
	f(v, "IN", "PLAIN", "sasl.server.max.receive.size", "524288", false)
	if got := s.ForListener("out").Names("ssl.cipher.suites"); !slices.Equal(got, []string{"A", "B"}) {
		t.Errorf("the list is %q", got)
	}
	if got := s.UnknownListeners([]string{"IN", "X"}); len(got) != 3 || !strings.HasPrefix(got[0], "listener.name.out.") {
		t.Errorf("unknown listeners: %q", got)
	}
	if got := s.UnknownListeners([]string{"OUT"}); got != nil {
		t.Errorf("unknown listeners: %q", got)
	}
	shown := map[string]string{}
	for _, e := range v.BrokerEntries() {
		shown[e.Def.Name] = e.Value
	}
	if shown["listener.name.in.ssl.cipher.suites"] != "C" || shown["listener.name.out.ssl.cipher.suites"] != "D" {
		t.Error("configs of listeners are not shown")
	}
}

// TestListenerConfigsAreChecked proves that a config with the prefix of a listener is checked as without it, and may be changed while
// the node runs unless it is a secret.
func TestListenerConfigsAreChecked(t *testing.T) {
	const key = "listener.name.out.ssl.client.auth"
	if err := Validate(Broker, key, "maybe"); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("a wrong value: %v", err)
	}
	if err := Validate(Broker, key, "required"); err != nil {
		t.Error(err)
	}
	if err := CheckDynamic(key, true); err != nil {
		t.Error(err)
	}
	if err := CheckDynamic(key, false); err == nil {
		t.Error("a listener's config was accepted for all brokers")
	}
	if err := CheckDynamic("listener.name.out.ssl.key.password", true); err == nil || !strings.Contains(err.Error(), "is a secret") {
		t.Errorf("a secret: %v", err)
	}
}
