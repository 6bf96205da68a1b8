package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// newUsersRig starts a broker whose clients log in with passwords of which the metadata have credentials. alice and bob are super users.
func newUsersRig(t *testing.T) *rig {
	t.Helper()
	g := newRig(t, func(c *Config) {
		users := auth.NewUsers(c.Image)
		c.Logins = []*Login{NewLogin(LoginConfig{Delay: time.Millisecond, Mechanisms: []auth.Mechanism{
			auth.NewPlainOf(users), auth.NewScram(meta.ScramSHA256, users, nil),
		}})}
		var err error
		if c.Authorizer, err = auth.New(auth.Config{Image: c.Image, SuperUsers: []auth.Principal{auth.User(aliceName), auth.User(bobName)}}); err != nil {
			t.Fatal(err)
		}
	})
	g.apply(meta.LevelSet{Level: meta.LatestLevel}, meta.SecretSet([32]byte{1}))
	g.setPassword(aliceName, alicePassword)
	g.setPassword(bobName, bobPassword)
	return g
}

func ownerOf(user string) meta.CredentialOwner {
	return meta.CredentialOwner{User: user, Mechanism: meta.ScramSHA256}
}

// setPassword gives a user a password.
func (g *rig) setPassword(user, password string) {
	g.t.Helper()
	c, err := auth.NewCredential(ownerOf(user), password, auth.MinIterations)
	if err != nil {
		g.t.Fatal(err)
	}
	g.apply(meta.CredentialSet{ScramCredential: c})
}

// logInBy has the client of a connection log in by a mechanism, and returns the outcome of its last message.
func (c *client) logInBy(mechanism, user, password string) (outcome string) {
	c.t.Helper()
	c.outcomeOfLogin(handshake(1, mechanism), nil)
	if mechanism == "PLAIN" {
		return c.outcomeOfLogin(authenticate(2, plainOf(user, password)), nil)
	}
	var challenge []byte
	for _, message := range scramOf(c.t, user, password) {
		next, _ := message.(func([]byte) string)
		outcome = c.outcomeOfLogin(authenticate(2, next(challenge)), &challenge)
	}
	return outcome
}

// TestSessionEndsWithItsPassword proves that whoever has logged in with a password is served no more on an open connection when the user was deleted or the password
// changed, also if there is a user of the name again; that a client may log in again there with the new password; and that a session goes on when others
// are changed, or the node reads the same credential again.
func TestSessionEndsWithItsPassword(t *testing.T) {
	remove := meta.CredentialUnset{CredentialOwner: ownerOf(aliceName)}
	for _, c := range []struct {
		name   string
		change func(g *rig)
		goesOn bool
	}{
		{"deleted", func(g *rig) { g.apply(remove) }, false},
		{"changed", func(g *rig) { g.setPassword(aliceName, "another one") }, false},
		{"deleted and made again", func(g *rig) { g.apply(remove); g.setPassword(aliceName, alicePassword) }, false},
		{"another user is deleted", func(g *rig) { g.apply(meta.CredentialUnset{CredentialOwner: ownerOf(bobName)}) }, true},
		{"read again", func(g *rig) {
			same := *g.image.Load().Credentials().ByOwner[ownerOf(aliceName)]
			g.apply(remove)
			g.apply(meta.CredentialSet{ScramCredential: same})
		}, true},
	} {
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256"} {
			t.Run(c.name+", "+mechanism, func(t *testing.T) {
				g := newUsersRig(t)
				busy, idle := dial(t, g.addr), dial(t, g.addr)
				for _, in := range []*client{busy, idle} {
					in.logInBy(mechanism, aliceName, alicePassword)
				}
				if !busy.isServed() {
					t.Fatal("a client that has logged in is not served")
				}
				c.change(g)
				if busy.isServed() != c.goesOn || idle.isServed() != c.goesOn {
					t.Errorf("the session goes on: %t, want %t", !c.goesOn, c.goesOn)
				}
			})
		}
	}
	g := newUsersRig(t)
	again := dial(t, g.addr)
	again.logInBy("SCRAM-SHA-256", aliceName, alicePassword)
	g.setPassword(aliceName, "another one")
	if got := again.logInBy("SCRAM-SHA-256", aliceName, "another one"); strings.Contains(got, "ErrorCode") || !again.isServed() {
		t.Errorf("a login with the new password on the same connection: %s", got)
	}
}

// TestLoginOfDeletedUserFails proves that a login which was begun before its user was deleted, or got another password, does not succeed after that.
func TestLoginOfDeletedUserFails(t *testing.T) {
	for name, change := range map[string]func(g *rig){
		"deleted": func(g *rig) { g.apply(meta.CredentialUnset{CredentialOwner: ownerOf(aliceName)}) },
		"changed": func(g *rig) { g.setPassword(aliceName, "another one") },
	} {
		g := newUsersRig(t)
		c := dial(t, g.addr)
		c.outcomeOfLogin(handshake(1, "SCRAM-SHA-256"), nil)
		var challenge []byte
		messages := scramOf(t, aliceName, alicePassword)
		first, _ := messages[0].(func([]byte) string)
		final, _ := messages[1].(func([]byte) string)
		c.outcomeOfLogin(authenticate(2, first(nil)), &challenge)
		change(g)
		if got := c.outcomeOfLogin(authenticate(2, final(challenge)), nil); !strings.Contains(got, `"ErrorCode":58`) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestParkedFetchEndsWithItsLogin proves that a fetch which waits for records brings none that were written after its user was deleted.
func TestParkedFetchEndsWithItsLogin(t *testing.T) {
	g := newUsersRig(t)
	g.topic("events", 1)
	reader, writer := dial(t, g.addr), dial(t, g.addr)
	reader.logInBy("SCRAM-SHA-256", aliceName, alicePassword)
	writer.logInBy("PLAIN", bobName, bobPassword)
	req := withMaxWait(get("events", 0, 0), 600_000, 1)
	reader.send(req)
	g.awaitParked(1)
	g.apply(meta.CredentialUnset{CredentialOwner: ownerOf(aliceName)})
	ask[*kmsg.ProduceResponse](writer, put("events", 0, 1, batch(t, "of what happened later")))
	resp, _ := reader.receive(req).(*kmsg.FetchResponse)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != kerr.TopicAuthorizationFailed.Code || len(p.RecordBatches) > 0 {
		t.Errorf("code %d, %d bytes of records", p.ErrorCode, len(p.RecordBatches))
	}
	if reader.isServed() {
		t.Error("the session goes on")
	}
}
