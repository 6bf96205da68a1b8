//go:build unix

package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditLog proves, with a node that asks for a login, that the verbs show who did what, in the topic and in the file; that only its readers read the topic; that the
// check passes over kill -9 and restarts; that it finds what was changed in the file; and that no secret is in any of it.
func TestAuditLog(t *testing.T) {
	t.Parallel()
	data, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "root"), rootPassword+"\n")
	write(t, filepath.Join(dir, "alice"), alicePassword+"\n")
	write(t, filepath.Join(dir, "wrong"), wrongPassword+"\n")
	file, addr := filepath.Join(dir, "audit.log"), freeAddr(t)
	args := []string{
		"up", "--data", data, "--http", "off", "--listen", "SASL_PLAINTEXT://" + addr, "--set", "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512", "--set", "connection.failed.authentication.delay.ms=1",
		"--set", "leat.audit.destinations=topic,file", "--set", "leat.audit.file=" + file, "--set", "leat.audit.events=login,denied,change,read,write",
		"--bootstrap-user", "root", "--bootstrap-password-file", filepath.Join(dir, "root"),
	}
	var said strings.Builder
	start := func() *process {
		t.Helper()
		p := launchLine(t, args...)
		p.addr = addr
		eventually(t, "the node answers", func() bool { return tryVerb(t, dir, "", "health -b "+addr).code == 0 })
		return p
	}
	say := func(line string, code int, wants ...string) string {
		t.Helper()
		r := tryVerb(t, dir, "k", line)
		r.expect(t, code)
		said.WriteString(r.stdout + r.stderr)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s says %q, want %q", r.line, r.stdout+r.stderr, want)
			}
		}
		return r.stdout
	}
	p := start()
	const root, alice = " --user root --password-file root", " --user alice --password-file alice"
	on := " -b " + addr
	say("topic create orders"+root+on, 0)
	say("user create alice --password-file alice --client-config root.properties"+on, 3) // there is no such file
	write(t, filepath.Join(dir, "root.properties"), "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\n"+
		"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"root\" password=\""+rootPassword+"\";\n")
	say("user create alice --password-file alice --client-config root.properties"+on, 0)
	say("topic list --user root --password-file wrong"+on, 1)
	say("topic list --user root --mechanism PLAIN --password-file wrong"+on, 1)
	say("topic delete orders"+alice+on, 1)
	say("config set --topic orders retention.ms=7000"+root+on, 0)
	say("acl grant alice read topic orders"+root+on, 0)
	say("acl grant alice read group *"+root+on, 0)
	say("produce orders"+root+on, 0)
	say("consume orders --group g --from start --exit"+alice+on, 0)
	say("group reset g --to start"+root+on, 0)
	say("audit list"+alice+on, 1)

	eventually(t, "the events are in the file", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && bytes.Contains(b, []byte(`"resource":"__leat_audit","result":"denied"`))
	})
	eventually(t, "the events are in the topic", func() bool {
		return strings.Contains(tryVerb(t, dir, "", "audit list --by alice"+root+on).stdout, "access.denied  topic/__leat_audit")
	})
	p.kill()
	p = start()
	say("topic create after"+root+on, 0)
	p.stop(t)
	p = start()
	events := func(line string, wants ...string) {
		t.Helper()
		for _, from := range []string{line + root + on, line + " --file audit.log"} {
			eventually(t, line+" shows "+strings.Join(wants, ", "), func() bool {
				r := tryVerb(t, dir, "", from)
				said.WriteString(r.stdout + r.stderr)
				for _, want := range wants {
					if !strings.Contains(r.stdout, want) {
						return false
					}
				}
				return r.code == 0
			})
		}
	}
	events("audit list --by root", "topic.created  topic/orders", "user.created  user/alice", "config.retention.ms=7000", "acl.created  topic/orders", "login.succeeded", "offsets.set  group/g", "topic.written  topic/orders",
		"topic.created  topic/after", "login.failed  user/root", "partitions.0=0 to 0")
	events("audit list --by alice", "access.denied  topic/orders  denied  operation=DESCRIBE", "topic.read  topic/orders", "access.denied  topic/__leat_audit")
	if shown := say("audit list --by alice --file audit.log", 0); strings.Contains(shown, "user/alice") {
		t.Errorf("%s, want only what alice did", shown)
	}
	say("audit list --type topic.explode --file audit.log", 2, "the types are access.denied", "role.granted", "user.created")
	say("audit list --by robot:x --file audit.log", 2, "nothing is done by a robot")
	events("audit list --type login.failed -o json", `"mechanism":"SCRAM-SHA-512"`, `"resource":"root"`, `"result":"denied"`)
	events("audit list --resource topic/after", "topic.created")
	if shown := say("audit list --type topic.deleted --since 1h --file audit.log", 0); shown != "" {
		t.Errorf("%s, want no events", shown)
	}
	say("audit verify"+root+on, 0, "node 1", "without a fault", "last: event")
	say("audit verify --file audit.log", 0, "node 1", "without a fault")
	say("topic delete __leat_audit"+root+on, 1)
	say("produce __leat_audit"+root+on, 1)
	say("topic describe __leat_audit"+root+on, 0, "retention.ms")
	p.stop(t)
	said.WriteString(p.out.String())

	// Somebody who can write the file hides what alice was allowed to do.
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	said.Write(b)
	lines := bytes.SplitAfter(b, []byte("\n"))
	var kept []byte
	for _, l := range lines {
		if !bytes.Contains(l, []byte(`"leat.acl.created"`)) {
			kept = append(kept, l...)
		}
	}
	write(t, file, string(kept))
	say("audit verify --file audit.log", 1, "missing before this one", "is not as the nodes have written it")
	write(t, file, strings.Replace(string(b), "User:alice", "User:mallo", 1))
	say("audit verify --file audit.log", 1, "was changed")
	write(t, file, string(b)+"{\"half")
	say("audit verify --file audit.log -o json", 0, `"faultCount": 0`)
	say("audit verify --file no-such-file", 3, "there is no file")
	say("audit verify --anchor 5", 2, "write the sequence and the hash")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v, %v", info.Mode(), err)
	}
	if at := strings.Index(said.String(), "Pl4nted"); at >= 0 {
		t.Errorf("a password is printed: %s", said.String()[max(0, at-300):])
	}
}
