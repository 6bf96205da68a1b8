package config

import (
	"strings"
	"testing"
)

// TestClientsCannotSetHowOthersLogIn proves that a client who may alter configs cannot set, while nodes run, a login module, a class, an address
// from which a node reads keys, or a file that it reads for a value, but for names that have no effect here; and that a node starts with no login module but those that it has
// itself, of which none loads anything.
func TestClientsCannotSetHowOthersLogIn(t *testing.T) {
	for _, name := range []string{
		"sasl.jaas.config", "sasl.oauthbearer.jwks.endpoint.url", "sasl.oauthbearer.token.endpoint.url", "sasl.server.callback.handler.class", "sasl.login.callback.handler.class",
		"sasl.login.class", "principal.builder.class", "authorizer.class.name", "super.users", "sasl.enabled.mechanisms", "ssl.engine.factory.class", "config.providers",
	} {
		for _, key := range []string{name, "listener.name.out." + name, "listener.name.out.scram-sha-256." + name, "listener.name.out.oauthbearer." + name} {
			if err := CheckDynamic(key, true); err == nil {
				if d := Find(Broker, key); d == nil || !d.Needless && d.Needs == "" {
					t.Errorf("%s can be set while a node runs, and has an effect", key)
				}
			}
		}
	}
	for _, module := range []string{
		"com.sun.security.auth.module.JndiLoginModule", "com.sun.security.auth.module.LdapLoginModule", "com.example." + PlainLoginModule, ScramLoginModule,
	} {
		s, err := NewStatic(1, map[string]string{
			"listener.name.out.sasl.enabled.mechanisms":         MechanismPlain,
			"listener.name.out.plain.sasl.jaas.config":          module + ` required user_alice="Pl4nted" user.provider.url="ldap://127.0.0.1:1/x";`,
			"listener.name.out.plain.connections.max.reauth.ms": "7000",
		})
		if err == nil {
			if err = s.CheckLogins(true); err == nil {
				_, err = s.Login("OUT")
			}
		}
		if err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("%s: %v", module, err)
		}
	}
	const reference = "${file:/etc/hostname:x}"
	s, err := NewStatic(1, map[string]string{
		"listener.name.out.sasl.enabled.mechanisms": MechanismPlain, "listener.name.out.plain.sasl.jaas.config": PlainLoginModule + ` required user_alice="` + reference + `";`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := s.Login("OUT"); err != nil || l.PlainUsers["alice"] != reference {
		t.Errorf("%+v, %v", l.PlainUsers, err)
	}
}
