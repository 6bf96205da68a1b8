//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestTokenVerbs proves that a user makes delegation tokens for itself and, if ACLs allow it, for another user; that the output is a
// client.properties with which a client logs in as the owner; that the HMAC is shown once alone; that renewers renew and nobody else; and that
// nobody logs in with a token that was expired.
func TestTokenVerbs(t *testing.T) {
	t.Parallel()
	data, dir, addr := t.TempDir(), t.TempDir(), freeAddr(t)
	write(t, filepath.Join(dir, "root"), rootPassword+"\n")
	for _, user := range []string{"root", "alice", "bob", "carol"} {
		write(t, filepath.Join(dir, user+".properties"), fmt.Sprintf("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n"+
			"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=%q password=%q;\n", user, rootPassword))
	}
	args := []string{
		"up", "--data", data, "--http", "off", "--listen", "IN=SASL_PLAINTEXT://" + addr,
		"--bootstrap-user", "root", "--bootstrap-password-file", filepath.Join(dir, "root"),
	}
	as := func(user, line string, code int, wants ...string) string {
		t.Helper()
		r := tryVerb(t, dir, "", line+" -b "+addr+" --client-config "+user+".properties")
		r.expect(t, code)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s says %q, want %q", r.line, r.stdout+r.stderr, want)
			}
		}
		return r.stdout
	}
	p := launchLine(t, args...)
	p.addr = addr
	eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+addr).code == 0 })
	as("root", "token create", 1, "set delegation.token.secret.key to the same value on all nodes")
	p.stop(t)
	write(t, filepath.Join(dir, "server.properties"), "delegation.token.secret.key=Pl4nted-key\n")
	p = launchLine(t, append(args, "--config", filepath.Join(dir, "server.properties"))...)
	p.addr = addr
	eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+addr).code == 0 })
	for _, user := range []string{"alice", "bob", "carol"} {
		as("root", "user create "+user+" --password-file root", 0)
	}
	as("root", "topic create orders", 0)
	as("root", "acl grant alice describe topic orders", 0)

	properties := as("alice", "token create --renewer bob --for 48h", 0, "# A delegation token of User:alice.", "bootstrap.servers="+addr, "security.protocol=SASL_PLAINTEXT", "sasl.mechanism=SCRAM-SHA-256", `tokenauth="true"`)
	write(t, filepath.Join(dir, "job.properties"), properties)
	id, hmac := between(t, properties, `username="`, `"`), between(t, properties, `password="`, `"`)
	as("job", "topic list", 0, "orders")
	as("job", "topic delete orders", 1, "uthorization failed") // what alice may not do
	as("job", "token create", 1, "not for those without a login or with a token")
	for _, user := range []string{"alice", "bob"} {
		for _, line := range []string{"token list", "token list --owner alice", "token list -o json"} {
			if said := as(user, line, 0, id, "User:alice", "User:bob"); strings.Contains(said, hmac) {
				t.Errorf("%s of %s shows the HMAC", line, user)
			}
		}
	}
	as("alice", "token list --owner bob -o json", 0, "[]")
	as("carol", "token list -o json", 0, "[]")

	as("carol", "token create --owner alice", 1, "a token of another user needs CREATE_TOKENS on that user")
	as("root", "acl grant carol create-tokens user User:alice", 0)
	var made struct {
		ID        string   `json:"tokenId"`
		HMAC      string   `json:"hmac"`
		Owner     string   `json:"owner"`
		Requester string   `json:"requester"`
		Renewers  []string `json:"renewers"`
	}
	if err := json.Unmarshal([]byte(as("carol", "token create --owner alice -o json", 0)), &made); err != nil {
		t.Fatal(err)
	}
	if made.ID == "" || made.HMAC == "" || made.Owner != "User:alice" || made.Requester != "User:carol" || len(made.Renewers) != 0 {
		t.Errorf("carol has made %+v", made)
	}
	as("carol", "token renew "+made.ID, 1, made.ID+": only its owner and its renewers may renew or expire it")
	as("bob", "token renew "+made.ID, 3, "does not exist, or you may not see it")

	as("bob", "token renew "+id+" --for 1h", 0, "the delegation token "+id+" of User:alice ends on ")
	as("alice", "token expire "+id+" --for 30m -o json", 0, `"ended": false`)
	as("bob", "token expire "+id+" nope", 3, "the delegation token "+id+" of User:alice has ended", "delegation token nope does not exist")
	as("job", "topic list", 1, "refuses the login of user "+id)
	as("alice", "token expire "+id, 3, "does not exist")
	if said := p.out.String(); strings.Contains(said, hmac) || strings.Contains(said, "Pl4nted") {
		t.Errorf("the node's log has a secret: %s", said)
	}
}

// between returns what is between two texts in a longer one.
func between(t *testing.T, text, before, after string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, before)
	found, _, ends := strings.Cut(rest, after)
	if !ok || !ends {
		t.Fatalf("%q has no %q", text, before)
	}
	return found
}
