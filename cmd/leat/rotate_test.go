//go:build unix

package main_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestOwnPasswordIsChanged proves that an administrator changes the own password by each mechanism, although the login ends with the
// credential by which it was done: both mechanisms have the new password then; and that the last user who may do everything is not deleted, after which the node would not
// start, and keeps all passwords and ACLs then.
func TestOwnPasswordIsChanged(t *testing.T) {
	t.Parallel()
	data, dir := t.TempDir(), t.TempDir()
	passwords := []string{"Pl4nted-0", "Pl4nted-1", "Pl4nted-2", "Pl4nted-3"}
	for _, p := range passwords {
		write(t, filepath.Join(dir, p), p+"\n")
		write(t, filepath.Join(dir, p+".properties"), "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n"+
			"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"root\" password=\""+p+"\";\n")
	}
	addr := freeAddr(t)
	p := launchLine(t, "up", "--data", data, "--http", "off", "--listen", "IN=SASL_PLAINTEXT://"+addr, "--set", "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"--bootstrap-user", "root", "--bootstrap-password-file", filepath.Join(dir, passwords[0]))
	defer p.stop(t)
	p.addr = addr
	eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+addr).code == 0 })
	say := func(line string, code int) {
		t.Helper()
		r := tryVerb(t, dir, "", line+" -b "+addr)
		r.expect(t, code)
		if strings.Contains(r.stdout+r.stderr, "Pl4nted") {
			t.Errorf("leat %s prints a password", r.line)
		}
	}
	mechanisms := []string{"SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"}

	for i, m := range mechanisms {
		write(t, filepath.Join(dir, "own.properties"), "security.protocol=SASL_PLAINTEXT\nsasl.mechanism="+m+"\n"+
			"sasl.jaas.config=some.LoginModule required username=\"root\" password=\""+passwords[i]+"\";\n")
		say("user rotate root --password-file "+passwords[i+1]+" --client-config own.properties", 0)
		for _, by := range mechanisms {
			say("user list --user root --password-file "+passwords[i+1]+" --mechanism "+by, 0)
			say("user list --user root --password-file "+passwords[i]+" --mechanism "+by, 1)
		}
	}
	say("user create other --password-file "+passwords[0]+" --client-config "+passwords[3]+".properties", 0)
	say("acl grant root read topic t --client-config "+passwords[3]+".properties", 0)
	for _, flag := range []string{"", " --revoke"} {
		say("user delete root --client-config "+passwords[3]+".properties"+flag, 1)
		for _, by := range mechanisms {
			say("user list --user root --password-file "+passwords[3]+" --mechanism "+by, 0)
		}
	}
	if r := tryVerb(t, dir, "", "acl list --client-config "+passwords[3]+".properties -b "+addr); !strings.Contains(r.stdout, "User:root") {
		t.Errorf("the administrator who was not deleted has lost his ACL: %s%s", r.stdout, r.stderr)
	}
	say("user rotate root --password-file "+passwords[0]+" --client-config "+passwords[3]+".properties", 0)
	for _, by := range mechanisms {
		say("user list --user root --password-file "+passwords[0]+" --mechanism "+by, 0)
	}
}
