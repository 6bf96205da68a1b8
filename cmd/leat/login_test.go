//go:build unix

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The passwords of TestLogins. Nothing that anybody prints has one of them.
const (
	rootPassword  = "Pl4nted-root"
	alicePassword = "Pl4nted-alice"
	wrongPassword = "Pl4nted-wrong"
)

// TestLogins proves that a node which asks for a login has a first user, who may do everything, and lets nobody else do what was not granted,
// by each mechanism, on all of its listeners; that all verbs log in by flags or by a client.properties; that a start after which nobody could
// administer the cluster is refused; and that no password is printed by anybody.
func TestLogins(t *testing.T) {
	t.Parallel()
	data, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "root"), rootPassword+"\n")
	write(t, filepath.Join(dir, "alice"), alicePassword+"\n")
	write(t, filepath.Join(dir, "wrong"), wrongPassword+"\n")
	for user, password := range map[string]string{"root": rootPassword, "alice": alicePassword} {
		write(t, filepath.Join(dir, user+".properties"), fmt.Sprintf("# a Java client's\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism: SCRAM-SHA-512\nacks=all\n"+
			"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n  username=\"%s\" password=\"%s\";\n", user, password))
	}
	in, out, open := freeAddr(t), freeAddr(t), freeAddr(t)
	args := []string{
		"up", "--data", data, "--http", "off", "--listen", "IN=SASL_PLAINTEXT://" + in, "--listen", "OUT=SASL_PLAINTEXT://" + out, "--listen", "OPEN=" + open,
		"--set", "listener.name.in.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512", "--set", "listener.name.out.sasl.enabled.mechanisms=PLAIN",
		"--set", `listener.name.out.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_bob="Pl4nted-bob";`,
	}
	first := []string{"--bootstrap-user", "root", "--bootstrap-password-file", filepath.Join(dir, "root")}
	var said strings.Builder
	start := func(more ...string) *process {
		t.Helper()
		p := launchLine(t, append(slices.Clip(args), more...)...)
		p.addr = in
		return p
	}
	say := func(line string, code int, wants ...string) {
		t.Helper()
		r := tryVerb(t, dir, "k", line)
		r.expect(t, code)
		said.WriteString(r.stdout + r.stderr)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s says %q, want %q", r.line, r.stdout+r.stderr, want)
			}
		}
	}
	p := start(first...)
	eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+in).code == 0 })
	root := " --user root --password-file root -b " + in
	say("topic create orders"+root, 0)
	for _, m := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		say("topic list --mechanism "+m+root, 0, "orders")
		say("topic list --user root --password-file wrong -b "+in+" --mechanism "+m, 1, "refuses the login of user root by "+m)
		say("topic list --user nobody --password-file wrong -b "+in+" --mechanism "+m, 1, "refuses the login of user nobody by "+m)
	}
	say("user create alice --password-file alice --client-config root.properties -b "+in, 0, "created user alice")
	as := " --login-user root --login-password-file root -b " + in
	say("user create erin --password-file alice"+as, 0, "created user erin")
	say("user create frank --user root --password-file root -b "+in, 2, "do not go together here")
	say("topic list --user erin --password-file alice -b "+in, 0)
	say("acl list --user erin"+as, 0)
	say("topic list"+as, 0, "orders")
	say("acl grant alice read topic orders"+root, 0, "ALLOW User:alice READ")
	say("acl grant alice read group *"+root, 0)
	say("topic list --client-config alice.properties -b "+in, 0, "orders")
	say("produce orders --client-config alice.properties -b "+in, 1, "uthorization failed")
	say("produce orders"+root, 0)
	say("consume orders --from start --exit --client-config alice.properties -b "+in, 0, "k")
	say("topic delete orders --client-config alice.properties -b "+in, 1, "uthorization failed")
	write(t, filepath.Join(dir, "bob"), "Pl4nted-bob\n")
	say("topic list --user bob --password-file bob --mechanism PLAIN -b "+out, 0)
	say("topic list --user root --password-file root --mechanism PLAIN -b "+out, 1, "refuses the login") // PLAIN has users of its own there
	say("topic list --user root --password-file root -b "+out, 1, "does not let clients log in by SCRAM-SHA-512")
	say("topic create open -b "+open, 1, "uthorization failed")
	say("topic create open --user root --password-file root -b "+open, 1, "asks for no login on this address without TLS", "name its certificates with --ca FILE (or LEAT_CA)", "leave out --user")
	say("topic list -b "+in, 4, "for which there are --user, --tls")
	say("topic list --tls -b "+in, 4, "")
	say("topic list --user root -b "+in, 2, "needs a password")
	say("topic list --mechanism GSSAPI --user root --password-file root -b "+in, 2, "is no mechanism that leat logs in by")
	write(t, filepath.Join(dir, "kerberos.properties"), "security.protocol=SASL_PLAINTEXT\nsasl.jaas.config=x required password=\"Pl4nted\" username=\"x\";")
	say("topic list --client-config kerberos.properties -b "+in, 2, "for which Kafka has GSSAPI")
	write(t, filepath.Join(dir, "broken.properties"), "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=x required password=\"Pl4nted")
	say("topic list --client-config broken.properties -b "+in, 2, "not of the form")
	say("bench produce --duration 1s"+root, 2, "without a login")
	p.stop(t)
	said.WriteString(p.out.String())

	// The flag is needed no longer, nor does it change anything; without any super user, or with one who cannot log in, nobody is let in.
	write(t, filepath.Join(dir, "root"), wrongPassword+"\n")
	p = start(first...)
	eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+in).code == 0 })
	say("topic list --client-config root.properties -b "+in, 0, "orders")
	say("topic list"+root, 1, "refuses the login")
	p.stop(t)
	said.WriteString(p.out.String())
	for want, more := range map[string][]string{
		"super.users is not set":      nil,
		"none of them can log in":     {"--set", "super.users=User:carol"},
		"write User:alice for a user": {"--set", "super.users=User:root;user:alice"},
		"authorizer.class.name is em": {"--set", "authorizer.class.name=", "--set", "allow.everyone.if.no.acl.found=true"},
	} {
		p := start(more...)
		if strings.HasPrefix(want, "authorizer") {
			eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+in).code == 0 })
			say("topic create anybody -b "+open, 0)
			p.stop(t)
		} else if p.awaitEnd(t); p.exitCode() == 0 {
			t.Errorf("%v: the node starts", more)
		}
		if said.WriteString(p.out.String()); !strings.Contains(p.out.String(), want) {
			t.Errorf("%v: %s", more, p.out)
		}
	}
	start("--set", "super.users=User:alice")
	eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+in).code == 0 })
	say("topic delete orders --client-config alice.properties -b "+in, 0)
	if at := strings.Index(said.String(), "Pl4nted"); at >= 0 {
		t.Errorf("a password is printed: %s", said.String()[max(0, at-300):])
	}
}

// TestLoggingInAsWritten proves that what docs/security.md has the reader type works word by word: an authority and a certificate, a node that asks for
// a login, and the first user, who makes another one by the variables of the login alone.
func TestLoggingInAsWritten(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	page := readText(t, filepath.Join("..", "..", "docs", "security.md"))
	block := func(after, first string) string {
		t.Helper()
		at := strings.Index(page, "\n## "+after+"\n")
		_, rest, ok := strings.Cut(page[max(at, 0):], "\n    "+first)
		text, _, ends := strings.Cut("    "+first+rest, "\n\n")
		if at < 0 || !ok || !ends {
			t.Fatalf("%s has no block that begins with %q", after, first)
		}
		return text
	}
	addr := freeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	bin := t.TempDir()
	if err := os.Symlink(leat, filepath.Join(bin, "leat")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(text string) *exec.Cmd {
		cmd := exec.Command("sh", "-ec", text)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LEAT_BOOTSTRAP=localhost:"+port)
		return cmd
	}
	if out, err := run(block("TLS", "openssl req")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	start, ups, ok := strings.Cut(block("Logging in", "openssl rand"), "leat up ")
	if !ok {
		t.Fatal("the block does not start a node")
	}
	node := run(start + "exec leat up --http off " + strings.Replace(ups, ":9092", ":"+port, 1))
	node.Env = append(node.Env, "LEAT_BOOTSTRAP=")
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = node.Process.Kill() // it may have ended
		_ = node.Wait()
	})
	eventually(t, "the node answers", func() bool {
		return tryVerb(t, dir, "", "health --ca ca.pem -b localhost:"+port).code == 0
	})
	out, err := run(block("Logging in", "export LEAT_USER")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "created user alice") || !strings.Contains(string(out), "ALLOW User:alice READ") {
		t.Errorf("%v: %s", err, out)
	}
}
