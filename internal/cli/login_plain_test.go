package cli

import (
	"errors"
	"strings"
	"testing"
)

// TestPasswordsAreNotReadable proves that a client without TLS sends no password, and no token, to another machine, neither to a broker that it was
// told first nor to one of which a broker tells, unless that is allowed.
func TestPasswordsAreNotReadable(t *testing.T) {
	t.Setenv("LEAT_PASSWORD", "secret")
	for _, mechanism := range []string{"PLAIN", "OAUTHBEARER", "SCRAM-SHA-256"} {
		for _, isAllowed := range []bool{false, true} {
			i := identity{user: "alice", mechanism: mechanism, allowsPlainText: isAllowed}
			c, err := i.readAccess()
			if err != nil {
				t.Fatal(err)
			}
			mustRefuse := !isAllowed && !strings.HasPrefix(mechanism, "SCRAM")
			for address, isLocal := range map[string]bool{
				"127.0.0.1:9092": true, "localhost:9092": true, "localhost": true, "[::1]:9092": true, "::1": true,
				"192.0.2.1:9092": false, "broker": false, "localhost.example.com:9092": false, "[2001:db8::1]:9092": false, "0.0.0.0:9092": false,
			} {
				if err := c.checkReadable([]string{"127.0.0.1:1", address}); (err != nil) != (mustRefuse && !isLocal) {
					t.Errorf("%s to %s, allowed %v: %v", mechanism, address, isAllowed, err)
				}
				if !c.isReadable {
					continue
				}
				_, message, err := localMechanism{c.mechanism, &c}.Authenticate(t.Context(), address)
				if isLocal && (err != nil || !strings.Contains(string(message), "secret")) || !isLocal && (message != nil || !errors.Is(c.explainLogin(err), errUsage)) {
					t.Errorf("%s, told %s: %q, %v", mechanism, address, message, err)
				}
			}
			if len(c.options()) != 1 || c.isReadable != mustRefuse {
				t.Errorf("%s, allowed %v: %+v", mechanism, isAllowed, c.isReadable)
			}
		}
	}
}
