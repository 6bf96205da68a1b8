package cli

import (
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/config"
)

// TestServersCannotKeepClientsBusy proves that a verb hashes its password no more often than its bound, whatever the server says, by a user or
// a delegation token, and that it does what servers ask for usually.
func TestServersCannotKeepClientsBusy(t *testing.T) {
	for _, name := range []string{config.MechanismScramSHA256, config.MechanismScramSHA512} {
		var user, token access
		if err := user.setMechanism(name, "alice", "secret"); err != nil {
			t.Fatal(err)
		}
		if err := token.setToken(name, "id", "hmac"); err != nil {
			t.Fatal(err)
		}
		for as, c := range map[string]access{"user": user, "token": token} {
			for count, isDone := range map[string]bool{"4096": true, "16384": true, "1000001": false, "2147483647": false, "9999999999999999999999": false} {
				s, first, err := c.mechanism.Authenticate(t.Context(), "host")
				if err != nil {
					t.Fatal(err)
				}
				_, nonce, found := strings.Cut(string(first), ",r=")
				if !found {
					t.Fatalf("%s: the first message is %q", as, first)
				}
				nonce, _, _ = strings.Cut(nonce, ",")
				_, answer, err := s.Challenge([]byte("r=" + nonce + "server,s=c2FsdA==,i=" + count))
				if isDone != (err == nil) || isDone != (len(answer) > 0) || err != nil && !strings.Contains(err.Error(), "iterations of SCRAM") {
					t.Errorf("%s of %s, %s iterations: %q, %v", as, name, count, answer, err)
				}
			}
		}
	}
}
