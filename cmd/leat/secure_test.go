//go:build unix

package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/node"
)

// securedRun is a secured cluster of a test, and all that anybody has printed.
type securedRun struct {
	*testing.T

	dir, data string
	said      strings.Builder
}

// say runs a verb in the directory of the test.
func (s *securedRun) say(line string, code int, wants ...string) ran {
	s.Helper()
	r := tryVerb(s.T, s.dir, "k", line)
	r.expect(s.T, code)
	s.said.WriteString(r.stdout + r.stderr)
	for _, want := range wants {
		if !strings.Contains(r.stdout+r.stderr, want) {
			s.Errorf("leat %s says %q, want %q", r.line, r.stdout+r.stderr, want)
		}
	}
	return r
}

// checkCertificateEvents checks that the audit log has each change of certificates that TestSecure makes, once, and those that were refused here.
func (s *securedRun) checkCertificateEvents(login string) {
	s.Helper()
	serial := regexp.MustCompile(`serial=[0-9a-f]+`)
	wants := []string{
		"certificates.renewed  cluster/", "certificate.issued  certificate/CN=alice  allowed  ends=2", "authority.replaced  cluster/", "step=begun", "step=finished", "authority=2",
	}
	shown := ""
	eventually(s.T, "the audit log has the changes of certificates", func() bool {
		shown = tryVerb(s.T, s.dir, "", "audit list "+login).stdout
		return !slices.ContainsFunc(wants, func(want string) bool { return !strings.Contains(shown, want) })
	})
	if n := len(serial.FindAllString(shown, -1)); n != 1 || strings.Count(shown, "authority.replaced") != 2 || strings.Count(shown, "certificates.renewed") != 1 {
		s.Errorf("%d certificates were issued, want one:\n%s", n, shown)
	}
}

// linesFor are the lines that a node has shown for a kind of clients, with the password in its place.
func linesFor(t *testing.T, shown, kind, password string) string {
	t.Helper()
	ok := strings.Contains(shown, "\n"+kind)
	_, rest, ok2 := strings.Cut(shown[strings.LastIndex(shown, "\n"+kind)+1:], ":\n\n")
	block, _, ok3 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("no lines for %s in\n%s", kind, shown)
	}
	return regexp.MustCompile(`\bPASSWORD\b`).ReplaceAllLiteralString(strings.ReplaceAll(block, "    ", ""), password) + "\n"
}

// TestSecure proves that one command makes a secured node: its administrator logs in with the lines that it shows; the verbs for certificates work; the next
// start needs no flag; a start that would open it is refused; and no password or key is printed by anybody who does not write to a terminal.
func TestSecure(t *testing.T) {
	t.Parallel()
	s := &securedRun{T: t, dir: t.TempDir(), data: filepath.Join(t.TempDir(), "data")}
	addr := freeAddr(t)
	launchSecured := func(args ...string) *process {
		t.Helper()
		p := launch(t, s.data, addr, append([]string{"--http", "off"}, args...)...)
		eventually(t, "the node says that it is secured", func() bool { return strings.Contains(p.out.String(), "his cluster is secured") })
		return p
	}
	p := launchSecured("--secure", "--set", "delegation.token.secret.key=Pl4nted-key")
	first := filepath.Join(s.data, "first-login.properties")
	login, err := node.ReadFirstLogin(first)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all lines", func() bool { return strings.Contains(p.out.String(), "leat topic list") })
	shown := p.out.String()
	for _, want := range []string{"in " + first, s.data + ".key", filepath.Join(s.data, "ca.pem"), "scram.Auth"} {
		if !strings.Contains(shown, want) {
			t.Errorf("it does not say %q:\n%s", want, shown)
		}
	}
	write(t, filepath.Join(s.dir, "java.properties"), strings.ReplaceAll(linesFor(t, shown, "Java", login.Password), "bootstrap.servers="+addr+"\n", ""))
	java := " --client-config java.properties -b " + addr
	s.say("topic create orders"+java, 0)
	s.say("produce orders"+java, 0)
	s.say("consume orders --from start --exit"+java, 0, "k")
	s.say("topic list --client-config "+first+" -b "+addr, 0, "orders")
	write(t, filepath.Join(s.dir, "password"), login.Password+"\n")
	ca := filepath.Join(s.data, "ca.pem")
	s.say("topic list --user admin --password-file password --ca "+ca+" -b "+addr, 0, "orders")
	s.say("topic list --user admin --password-file password -b "+addr, 4)
	s.say("topic list --ca "+ca+" -b "+addr, 4)
	write(t, filepath.Join(s.dir, "wrong"), "Pl4nted-wrong\n")
	s.say("topic list --user admin --password-file wrong --ca "+ca+" -b "+addr, 1, "refuses the login")
	s.say("health --data "+s.data, 0, "node 1 answers clients")
	s.say("health --ca "+ca+" -b "+addr, 0)
	elsewhere := []string{"LEAT_BOOTSTRAP=127.0.0.1:1", "LEAT_USER=admin", "LEAT_PASSWORD=x"}
	for _, line := range []string{"health --data " + s.data, "cert show --data " + s.data} {
		tryVerbIn(t, elsewhere, s.dir, "", line).expect(t, 0)
	}
	for _, as := range []string{" --client-config java.properties", " --user admin --password-file password --ca " + ca} {
		r := tryVerb(t, s.dir, "", "token create -b "+addr+as)
		r.expect(t, 0)
		elsewhere := t.TempDir()
		write(t, filepath.Join(elsewhere, "job.properties"), r.stdout)
		tryVerb(t, elsewhere, "", "topic list --client-config job.properties").expect(t, 0)
	}
	shell := exec.Command("sh", "-c", strings.ReplaceAll(linesFor(t, shown, "leat", login.Password), "leat topic", leat+" topic"))
	if out, err := shell.CombinedOutput(); err != nil || !strings.Contains(string(out), "orders") {
		t.Errorf("the lines for leat: %v, %s", err, out)
	}

	// Certificates.
	held := " --data " + s.data
	if pem := s.say("cert ca"+held, 0, "BEGIN CERTIFICATE").stdout; pem != readText(t, ca) {
		t.Errorf("leat cert ca prints %s", pem)
	}
	days := func() (list []struct {
		Node     int
		DaysLeft int
		Serial   string
		Problem  string
	},
	) {
		t.Helper()
		var got struct {
			Nodes any
		}
		got.Nodes = &list
		if err := json.Unmarshal([]byte(s.say("cert show -o json"+held, 0).stdout), &got); err != nil || len(list) != 1 {
			t.Fatalf("%v: %+v", err, list)
		}
		return list
	}
	before := days()[0]
	if before.Node != 1 || before.DaysLeft != 89 || before.Problem != "" {
		t.Errorf("cert show: %+v", before)
	}
	s.say("cert show"+held, 0, "trusted", "localhost", "days left")
	s.say("cert renew"+held, 0, "replace their certificates")
	eventually(t, "another certificate", func() bool { return days()[0].Serial != before.Serial })
	s.say("cert client alice --out alice.pem"+held, 0, "User:CN=alice")
	if i, err := os.Stat(filepath.Join(s.dir, "alice.pem")); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i, err)
	}
	s.say("cert client alice --out alice.pem"+held, 2, "not written over another one")
	s.say("cert client alice --days 0"+held, 2, "an hour at least")
	verifyChain(t, ca, filepath.Join(s.dir, "alice.pem"), "sslclient")
	old := filepath.Join(s.dir, "old.pem")
	write(t, old, readText(t, ca))
	s.say("cert rotate --finish"+held, 1, "nothing to finish")
	s.say("cert rotate"+held, 0, "trusted beside it")
	s.say("cert rotate"+held, 1, "--finish")
	eventually(t, "the new authority is trusted", func() bool { return readText(t, ca) != readText(t, old) && days()[0].Problem == "" })
	for _, trusted := range []string{old, ca} {
		s.say("topic list --user admin --password-file password --ca "+trusted+" -b "+addr, 0, "orders")
	}
	s.say("cert rotate --finish"+held, 0, "only the new")
	eventually(t, "the old authority is not trusted", func() bool {
		return tryVerb(t, s.dir, "", "topic list --user admin --password-file password --ca "+old+" -b "+addr+" --timeout 5s").code != 0
	})
	s.say("topic list --user admin --password-file password --ca "+ca+" -b "+addr, 0, "orders")
	s.checkCertificateEvents("--user admin --password-file password --ca " + ca + " -b " + addr)
	p.stop(t)
	s.said.WriteString(p.out.String())

	// The next starts.
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	p = launchSecured()
	if strings.Contains(p.out.String(), "PASSWORD") {
		t.Errorf("the lines are shown again:\n%s", p.out)
	}
	s.say("topic list --user admin --password-file password --ca "+ca+" -b "+addr, 0, "orders")
	p.stop(t)
	s.said.WriteString(p.out.String())
	for want, args := range map[string][]string{
		"encrypts nothing":           {"--listen", "IN=PLAINTEXT://:0"},
		"would open it":              {"--set", "authorizer.class.name="},
		"the sealing key of this se": {"--sealing-key", filepath.Join(s.dir, "none")},
	} {
		p := launch(t, s.data, addr, append([]string{"--http", "off"}, args...)...)
		p.awaitEnd(t)
		if p.exitCode() != 2 || !strings.Contains(p.out.String(), want) {
			t.Errorf("%v: exit code %d\n%s", args, p.exitCode(), p.out)
		}
		s.said.WriteString(p.out.String())
	}
	checkNoSecrets(t, s.said.String(), login.Password, s.data+".key", filepath.Join(s.data, "node.tls.pem"), filepath.Join(s.dir, "alice.pem"), filepath.Join(s.data, "node.key"))
}

// TestSecureWithPlain proves that the lines for clients name the mechanism that the node has, which the administrator may have set.
func TestSecureWithPlain(t *testing.T) {
	t.Parallel()
	data, addr := filepath.Join(t.TempDir(), "data"), freeAddr(t)
	p := launch(t, data, addr, "--http", "off", "--secure", "--set", "sasl.enabled.mechanisms=PLAIN")
	eventually(t, "all lines", func() bool { return strings.Contains(p.out.String(), "leat topic list --mechanism PLAIN\n") })
	first := filepath.Join(data, "first-login.properties")
	login, err := node.ReadFirstLogin(first)
	if err != nil {
		t.Fatal(err)
	}
	shown, dir := p.out.String(), t.TempDir()
	write(t, filepath.Join(dir, "java.properties"), linesFor(t, shown, "Java", login.Password))
	for _, file := range []string{first, "java.properties"} {
		tryVerb(t, dir, "", "topic create orders-"+filepath.Base(file)+" --client-config "+file+" -b "+addr).expect(t, 0)
	}
	shell := exec.Command("sh", "-c", strings.ReplaceAll(linesFor(t, shown, "leat", login.Password), "leat topic", leat+" topic"))
	if out, err := shell.CombinedOutput(); err != nil || !strings.Contains(string(out), "orders-java.properties") {
		t.Errorf("the lines for leat: %v, %s", err, out)
	}
	if !strings.Contains(shown, "sasl.mechanism=PLAIN\n") || !strings.Contains(shown, "plain.Auth{") || strings.Contains(shown, "scram") {
		t.Errorf("the lines are\n%s", shown)
	}
}

// checkNoSecrets proves that a text has neither the passwords of a test nor a part of a line of the files, which are secret.
func checkNoSecrets(t *testing.T, said, password string, files ...string) {
	t.Helper()
	secrets := []string{password, "Pl4nted"}
	for _, file := range files {
		text := readText(t, file)
		if private, _, ok := strings.Cut(text, "-----BEGIN CERTIFICATE"); ok {
			text = private
		}
		for _, word := range regexp.MustCompile(`[A-Za-z0-9+/_-]{40,}`).FindAllString(text, -1) {
			secrets = append(secrets, word[:32])
		}
	}
	if len(secrets) < 4 {
		t.Fatalf("only %d secrets are looked for", len(secrets))
	}
	for _, secret := range secrets {
		if at := strings.Index(said, secret); at >= 0 {
			t.Errorf("a secret is printed: %s", said[max(0, at-300):])
		}
	}
}

// verifyChain has OpenSSL verify a certificate.
func verifyChain(t *testing.T, ca, file, purpose string) {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("there is no openssl")
		return
	}
	text := []byte(readText(t, file))
	certs := filepath.Join(t.TempDir(), "certs.pem")
	write(t, certs, string(text[bytes.Index(text, []byte("-----BEGIN CERTIFICATE")):]))
	if out, err := exec.Command(program, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, "-untrusted", certs, certs).CombinedOutput(); err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
