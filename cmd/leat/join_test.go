//go:build unix

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// makeToken runs the verb that makes a join token, and checks that nothing else is on its standard output.
func makeToken(t *testing.T, data string, args ...string) string {
	t.Helper()
	r := tryVerb(t, t.TempDir(), "", strings.Join(append([]string{"cluster token --data", data}, args...), " "))
	r.expect(t, 0)
	token := strings.TrimSuffix(r.stdout, "\n")
	if !strings.HasPrefix(token, "leat") || strings.ContainsAny(token, " \n") {
		t.Fatalf("the token is not alone: %q", r.stdout)
	}
	if !strings.Contains(r.stderr, "leat up --join ") || !strings.Contains(r.stderr, " UTC") || strings.Contains(r.stderr, token) {
		t.Errorf("it says of the token: %s", r.stderr)
	}
	return token
}

// shownToken is the output of the verb as JSON.
type shownToken struct {
	Token, ID string
	Expires   time.Time
}

func tokenAsJSON(t *testing.T, data, args string) (made shownToken) {
	t.Helper()
	r := tryVerb(t, t.TempDir(), "", "cluster token -o json --data "+data+" "+args)
	r.expect(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &made); err != nil {
		t.Fatal(err)
	}
	return made
}

// TestJoinByToken proves that the verb makes tokens with which nodes join, by flag, file, standard input and
// environment; that a token that was revoked, or has ended, is refused with a sentence; and that no token is
// in a log.
func TestJoinByToken(t *testing.T) {
	t.Parallel()
	first := t.TempDir()
	p := up(t, first)
	token := makeToken(t, first)
	short := tokenAsJSON(t, first, "--for 1s")
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, token+"\n")

	join := []string{"--http", "off", "--join", p.addr}
	second := launch(t, t.TempDir(), freeAddr(t), append(join, "--token", token)...)
	third := launch(t, t.TempDir(), freeAddr(t), append(join, "--token-file", file)...)
	fourth := &process{addr: freeAddr(t)}
	dir := t.TempDir()
	fourth.cmd = exec.Command(leat, "up", "--data", dir, "--listen", fourth.addr, "--http", "off")
	fourth.cmd.Env = append(os.Environ(), "LEAT_JOIN="+p.addr, "LEAT_TOKEN="+token)
	fourth.start(t, dir)
	fifth := &process{addr: freeAddr(t)}
	dir = t.TempDir()
	fifth.cmd = exec.Command(leat, "up", "--data", dir, "--listen", fifth.addr, "--http", "off", "--join", p.addr, "--token-file", "/dev/stdin")
	fifth.cmd.Stdin = strings.NewReader(token)
	fifth.start(t, dir)
	all := []*process{p, second, third, fourth, fifth}
	for _, one := range all {
		one.awaitReady(t)
	}
	awaitCluster(t, p.addr, "all nodes are active", func(c *clusterSight) bool { return c.countActive() == len(all) })
	other := tokenAsJSON(t, first, "")
	tryVerb(t, t.TempDir(), "", "cluster token --data "+first+" --revoke "+other.ID).expect(t, 0)
	revoked := tryVerb(t, t.TempDir(), "", "cluster token --data "+first+" --revoke "+token)
	revoked.expect(t, 0)
	if strings.Contains(revoked.stdout+revoked.stderr, token) {
		t.Errorf("it tells the token: %s", revoked.stdout)
	}
	time.Sleep(time.Until(short.Expires))
	list := tryVerb(t, t.TempDir(), "", "cluster token --list --data "+first)
	list.expect(t, 0)
	for _, line := range []string{short.ID + " .* ended", other.ID + " .* UTC +revoked"} {
		if !regexp.MustCompile(line).MatchString(list.stdout) {
			t.Errorf("no line %q in the list:\n%s", line, list.stdout)
		}
	}
	if strings.Contains(list.stdout, "leat1.") {
		t.Errorf("the list tells a token: %s", list.stdout)
	}

	for _, bad := range []struct{ token, says string }{{other.Token, "was revoked"}, {token, "was revoked"}, {short.Token, "has ended"}} {
		p := launch(t, t.TempDir(), freeAddr(t), append(join, "--token", bad.token)...)
		p.awaitEnd(t)
		if text := p.out.String(); p.exitCode() == 0 || !strings.Contains(text, bad.says) || strings.Contains(text, bad.token) {
			t.Errorf("a join with a token that %s ends with %d: %s", bad.says, p.exitCode(), text)
		}
	}
	for _, one := range all {
		for _, secret := range []string{token, short.Token, other.Token} {
			if strings.Contains(one.out.String(), secret) {
				t.Errorf("a token is in the log: %s", one.out)
			}
		}
	}
}

// TestHolders proves who may make tokens, and that the verb says in a sentence why it does not make one.
func TestHolders(t *testing.T) {
	t.Parallel()
	first, second := t.TempDir(), t.TempDir()
	p := up(t, first)
	token := makeToken(t, first)
	joined := up(t, second, "--join", p.addr, "--token", token)
	foreign := up(t, t.TempDir())
	stopped := t.TempDir()
	gone := up(t, stopped)
	gone.stop(t)
	web := httptest.NewServer(nil)
	defer web.Close()
	closes, err := net.Listen("tcp", "127.0.0.1:0") // as Apache Kafka does to a request that it does not know
	if err != nil {
		t.Fatal(err)
	}
	defer closes.Close()
	go func() {
		for {
			c, err := closes.Accept()
			if err != nil {
				return
			}
			io.CopyN(io.Discard, c, 8)
			c.Close()
		}
	}()
	for _, c := range []struct {
		name, args string
		code       int
		says       string
	}{
		{"no directory", "--data " + filepath.Join(first, "missing"), 3, "there is no node in "},
		{"default directory", "", 3, "there is no node in leat-data"},
		{"node that is stopped", "--data " + stopped, 4, `connection refused): start the one in ` + stopped + ` with "leat up --data ` + stopped + `"`},
		{"other cluster", "--data " + first + " --bootstrap " + foreign.addr, 1, "belongs to another cluster than " + first},
		{"other node", "--data " + first + " --bootstrap " + joined.addr, 1, "another node answered: node 2 instead of node 1"},
		{"web server", "--data " + first + " --bootstrap " + web.Listener.Addr().String(), 1, "does not answer as a node of Leat"},
		{"other broker", "--data " + first + " --bootstrap " + closes.Addr().String(), 1, "does not answer as a node of Leat"},
		{"bad address", "--data " + first + " --bootstrap localhost:many", 2, "write HOST:PORT"},
		{"no span", "--data " + first + " --for 0s", 2, "--for 0s"},
		{"long span", "--data " + first + " --for 1000h", 1, "A join token can be used for up to "},
		{"no id", "--data " + first + " --revoke 12", 2, "give the id of a token"},
		{"unknown id", "--data " + first + " --revoke 0123456789abcdef", 3, "There is no join token 0123456789abcdef"},
	} {
		r := tryVerb(t, t.TempDir(), "", "cluster token "+c.args)
		r.expect(t, c.code)
		if !strings.Contains(r.stderr, c.says) || r.stdout != "" {
			t.Errorf("%s: it says %s%s", c.name, r.stdout, r.stderr)
		}
	}
	makeToken(t, second) // the holder of any member's directory
	makeToken(t, first, "--bootstrap", "127.0.0.1:1,"+p.addr)
	if os.Getuid() != 0 {
		return
	}
	// A user who may run the program and not read the key.
	dir := t.TempDir()
	program := filepath.Join(dir, "leat")
	b, err := os.ReadFile(leat)
	if err == nil {
		err = os.WriteFile(program, b, 0o755)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		err = errors.Join(err, os.Chmod(d, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "cluster", "token", "--data", first)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), `as the user that runs the node`) {
		t.Errorf("of a user who may not read the key: %v, %s", err, stderr.String())
	}
}

// TestTokenNeedsALevel proves that a cluster whose metadata are of an earlier version says what to do before
// it can have more nodes, and that this is enough.
func TestTokenNeedsALevel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unpack(t, filepath.Join(formats, "v1-stopped.tar.gz"), dir)
	p := up(t, dir, formatSettings...)
	r := tryVerb(t, t.TempDir(), "", "cluster token --data "+dir)
	r.expect(t, 1)
	if want := `have level 0, which knows no keys of nodes and no join tokens: raise it with "leat cluster finalize --bootstrap ` + p.addr; !strings.Contains(r.stderr, want) {
		t.Error(r.stderr)
	}
	tryVerb(t, t.TempDir(), "", "cluster finalize --bootstrap "+p.addr).expect(t, 0)
	until := time.Now().Add(readyLimit)
	for { // the node has its key known soon afterwards
		r := tryVerb(t, t.TempDir(), "", "cluster token --data "+dir)
		if r.code == 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatal(r.stderr)
		}
	}
}

// TestRemoveNode proves that a node that is removed ends, that its key and all tokens are worth nothing
// then, also after a restart, and that neither the only node nor the only voter is removed.
func TestRemoveNode(t *testing.T) {
	t.Parallel()
	first, second := t.TempDir(), t.TempDir()
	p := up(t, first)
	alone := tryVerb(t, t.TempDir(), "", "cluster remove 1 --data "+first)
	alone.expect(t, 1)
	if !strings.Contains(alone.stderr, "the only one of the cluster") {
		t.Error(alone.stderr)
	}
	token := makeToken(t, first)
	joined := up(t, second, "--join", p.addr, "--token", token)
	voter := tryVerb(t, t.TempDir(), "", "cluster remove 1 --data "+second)
	voter.expect(t, 1)
	if !strings.Contains(voter.stderr, "alone votes on the metadata") || strings.Contains(voter.stderr, "--force") {
		t.Error(voter.stderr)
	}
	tryVerb(t, t.TempDir(), "", "cluster remove 7 --data "+first).expect(t, 3)
	tryVerb(t, t.TempDir(), "", "cluster remove two --data "+first).expect(t, 2)

	for range 2 { // a second time it finds it done
		r := tryVerb(t, t.TempDir(), "", "cluster remove 2 -o json --data "+first)
		r.expect(t, 0)
		if !strings.Contains(r.stdout, `"node": 2`) {
			t.Error(r.stdout)
		}
	}
	joined.awaitEnd(t)
	if text := joined.out.String(); joined.exitCode() == 0 || !strings.Contains(text, "removed") {
		t.Errorf("the removed node ends with %d: %s", joined.exitCode(), text)
	}
	awaitCluster(t, p.addr, "the node is gone", func(c *clusterSight) bool { return len(c.Brokers) == 1 })
	again := launch(t, second, freeAddr(t), "--http", "off")
	again.awaitEnd(t)
	if text := again.out.String(); again.exitCode() == 0 || !strings.Contains(text, "removed from the cluster") {
		t.Errorf("the removed node, started again, ends with %d: %s", again.exitCode(), text)
	}
	late := launch(t, t.TempDir(), freeAddr(t), "--http", "off", "--join", p.addr, "--token", token)
	late.awaitEnd(t)
	if text := late.out.String(); late.exitCode() == 0 || !strings.Contains(text, "was revoked") {
		t.Errorf("a join with a token from before ends with %d: %s", late.exitCode(), text)
	}
}

// TestMembershipIsRecorded proves that the audit log has each join token that was made, revoked or could not be, each node that was admitted, by which token,
// and each that was removed or could not be, and who did it; and that it has no token.
func TestMembershipIsRecorded(t *testing.T) {
	t.Parallel()
	first, dir := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "audit.log")
	p := up(t, first, "--set", "leat.audit.destinations=file", "--set", "leat.audit.file="+file)
	holding := func(line string, code int) {
		t.Helper()
		tryVerb(t, dir, "", line+" --data "+first).expect(t, code)
	}
	token := tokenAsJSON(t, first, "")
	joined := up(t, t.TempDir(), "--join", p.addr, "--token", token.Token)
	holding("cluster token --for 1000h", 1)
	other := tokenAsJSON(t, first, "")
	holding("cluster token --revoke "+other.ID, 0)
	holding("cluster token --revoke 0123456789abcdef", 3)
	holding("cluster token --list", 0)
	holding("cluster remove 7", 3)
	holding("cluster remove 2", 0)
	joined.awaitEnd(t)
	p.stop(t)
	listed := tryVerb(t, dir, "", "audit list -o json --file audit.log")
	listed.expect(t, 0)
	var got []string
	for line := range strings.Lines(listed.stdout) {
		var e struct {
			Type string
			Data struct {
				Principal, Resource, Result string
				Details                     map[string]string
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(e.Type, "leat.join.") || strings.HasPrefix(e.Type, "leat.node.") {
			got = append(got, strings.Join(strings.Fields(strings.Join([]string{e.Type, e.Data.Resource, e.Data.Result, e.Data.Principal, e.Data.Details["joinToken"]}, " ")), " "))
		}
	}
	const by = " Directory:node 1"
	want := []string{
		"leat.join.token.made " + token.ID + " allowed" + by,
		"leat.node.admitted 2 allowed " + token.ID,
		"",
		"leat.join.token.made " + other.ID + " allowed" + by,
		"leat.join.token.revoked " + other.ID + " allowed" + by,
		"leat.join.token.revoked 0123456789abcdef failed" + by,
		"leat.node.removed 7 failed" + by,
		"leat.node.removed 2 allowed" + by,
	}
	if len(got) == len(want) { // the id of the token that was refused is told nobody else
		want[2] = got[2]
		if !regexp.MustCompile("^leat.join.token.made [0-9a-f]{16} failed" + by + "$").MatchString(got[2]) {
			t.Errorf("the token that was refused: %s", got[2])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, secret := range []string{token.Token, other.Token} {
		if strings.Contains(readText(t, file), secret) {
			t.Error("an event has a join token")
		}
	}
}
