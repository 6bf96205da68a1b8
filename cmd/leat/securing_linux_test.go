package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/node"
)

// plainCluster is a plain cluster of three processes, which is secured while it runs.
type plainCluster struct {
	*testing.T

	dirs []string
	ps   []*process
	said strings.Builder // all that anybody has printed
}

func startPlain(t *testing.T) *plainCluster {
	t.Helper()
	c := &plainCluster{T: t}
	first := filepath.Join(t.TempDir(), "data")
	c.dirs, c.ps = []string{first}, []*process{launch(t, first, freeAddr(t), "--http", freeAddr(t))}
	c.ps[0].awaitReady(t)
	token := makeToken(t, first)
	for range 2 {
		dir := filepath.Join(t.TempDir(), "data")
		c.dirs = append(c.dirs, dir)
		p := launch(t, dir, freeAddr(t), "--http", "off", "--join", c.ps[0].addr, "--token", token)
		p.awaitReady(t) // so that it gets the next id
		c.ps = append(c.ps, p)
	}
	awaitCluster(t, c.ps[0].addr, "all nodes are active", func(s *clusterSight) bool { return s.countActive() == 3 })
	return c
}

// restart starts a node again, after its end.
func (c *plainCluster) restart(i int) {
	c.Helper()
	c.said.WriteString(c.ps[i].out.String())
	http := "off"
	if i == 0 {
		http = httpOf(c.ps[0])
	}
	c.ps[i] = launch(c.T, c.dirs[i], c.ps[i].addr, "--http", http)
}

// httpOf is the address of HTTP with which a node was started.
func httpOf(p *process) string {
	for i, arg := range p.cmd.Args {
		if arg == "--http" {
			return p.cmd.Args[i+1]
		}
	}
	return "off"
}

// say runs a verb for a node, and returns what it has printed.
func (c *plainCluster) say(i int, line string, want int, wants ...string) string {
	c.Helper()
	code, text := runSecure(c.T, line+" --data "+c.dirs[i])
	c.said.WriteString(text)
	if code != want {
		c.Errorf("leat %s ends with %d, want %d: %s", line, code, want, text)
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			c.Errorf("leat %s says %q, want %q", line, text, want)
		}
	}
	return text
}

// runSecure runs a verb whose output has lines of Go to paste, which tryVerb would not let pass.
func runSecure(t *testing.T, line string) (code int, text string) {
	t.Helper()
	cmd := exec.Command(leat, strings.Fields(line)...)
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// securingSight is what leat secure --status -o json says.
type securingSight struct {
	State      string
	FirstLogin string
	Encrypted  bool
	Nodes      []struct {
		Node    int
		Ready   bool
		Problem string
		Plain   []struct{ ClientID string }
	}
}

func (c *plainCluster) status(i int) (s securingSight) {
	c.Helper()
	if err := json.Unmarshal([]byte(c.say(i, "secure --status -o json", 0)), &s); err != nil {
		c.Fatal(err)
	}
	return s
}

// awaitEncrypted waits until all nodes take TLS.
func (c *plainCluster) awaitEncrypted(i int) {
	c.Helper()
	eventually(c.T, "all nodes take TLS", func() bool { return c.status(i).Encrypted })
}

// traffic is a client that writes and reads all the time, and must never fail.
type traffic struct {
	cl      *kgo.Client
	stop    context.CancelFunc
	running sync.WaitGroup
	written atomic.Int64
	read    atomic.Int64
	failed  atomic.Pointer[error]
}

// runTraffic begins to write to a topic and to read it in a group.
func runTraffic(t *testing.T, id, topic string, addrs []string, opts ...kgo.Opt) *traffic {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addrs...), kgo.ClientID(id), kgo.ConsumeTopics(topic), kgo.ConsumerGroup("group-"+id),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	f := &traffic{cl: cl}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	fail := func(err error) {
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			f.failed.CompareAndSwap(nil, &err)
		}
	}
	f.running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Append(nil, id, i)}).FirstErr()
			if err == nil {
				f.written.Add(1)
			}
			fail(err)
			time.Sleep(10 * time.Millisecond)
		}
	})
	f.running.Go(func() {
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			for _, e := range fetches.Errors() {
				var rejoins *kgo.ErrGroupSession // the coordinator was killed: the client joins again by itself, unless it may not
				if !errors.As(e.Err, &rejoins) || isRefusal(e.Err) {
					fail(e.Err)
				}
			}
			f.read.Add(int64(fetches.NumRecords()))
		}
	})
	t.Cleanup(f.end)
	return f
}

// isRefusal tells whether a client was told that it may not do something.
func isRefusal(err error) bool {
	for _, e := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// end ends the client.
func (f *traffic) end() {
	f.stop()
	short, cancel := context.WithTimeout(context.Background(), time.Second) // after a failure nobody may answer
	defer cancel()
	_ = f.cl.LeaveGroupContext(short)
	f.cl.Close() // without it a record that was sent is waited for
	f.running.Wait()
}

// expectProgress proves that the client has not failed, and goes on to write and to read.
func (f *traffic) expectProgress(t *testing.T, when string) {
	t.Helper()
	w, r := f.written.Load(), f.read.Load()
	eventually(t, "the client goes on "+when, func() bool {
		if err := f.failed.Load(); err != nil {
			t.Fatalf("%s the client has failed: %v", when, *err)
		}
		return f.written.Load() > w+5 && f.read.Load() > r+5
	})
}

// loginOptions are those of a client that was moved as the shown lines say.
func loginOptions(t *testing.T, ca, user, password string) []kgo.Opt {
	t.Helper()
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(readText(t, ca)))
	return []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: trusted}), kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism())}
}

// TestSecureRunningCluster proves that a plain cluster of three nodes is secured while it runs, and locks nobody out: a plain client goes on until the end, a
// client that was moved with the lines shown never fails, what it needs is granted by what leat acl suggest prints, and in the end plain clients are refused
// and the pages ask for a login. A node that is killed between the steps goes on with them, and so does each node at its next start.
func TestSecureRunningCluster(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	addrs := []string{c.ps[0].addr, c.ps[1].addr, c.ps[2].addr}
	c.say(0, "secure --status", 0, "this cluster is plain")
	c.say(0, "secure --finish", 1, "leat secure")
	plain := runTraffic(t, "old-client", "orders", addrs)
	plain.expectProgress(t, "before anything")

	c.ps[2].kill() // it is down when the cluster begins to be secured
	shown := c.say(0, "secure --observe", 0, "Java, in client.properties", "is noted", "old-client")
	first := filepath.Join(c.dirs[0], "first-login.properties")
	login, err := node.ReadFirstLogin(first)
	if err != nil {
		t.Fatal(err)
	}
	plain.expectProgress(t, "after leat secure")
	c.say(0, "secure --finish --force", 1, "node 3")
	c.restart(2)
	c.awaitEncrypted(1)
	c.say(1, "secure --observe", 0) // again, on another node: nothing is left to do
	if s := c.status(1); s.State != "observed" || s.FirstLogin != "" {
		t.Errorf("node 2 says %+v", s)
	}
	for i := range 3 {
		if readText(t, c.dirs[i]+".key") != readText(t, c.dirs[0]+".key") {
			t.Errorf("node %d has another sealing key", i+1)
		}
	}
	c.ps[1].kill() // between the steps
	c.restart(1)
	c.ps[1].awaitReady(t)
	plain.expectProgress(t, "after a kill")

	// The lines shown are those of the administrator, who makes a user for the client.
	java := filepath.Join(t.TempDir(), "java.properties")
	write(t, java, strings.ReplaceAll(linesFor(t, shown, "Java", login.Password), "bootstrap.servers="+c.ps[0].addr+"\n", ""))
	admin := " --client-config " + java + " -b " + c.ps[0].addr
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "Pl4nted-secret\n")
	run := func(line string, code int) string {
		t.Helper()
		r := tryVerb(t, t.TempDir(), "", line)
		r.expect(t, code)
		return r.stdout + r.stderr
	}
	if text := run("user create mallory --password-file "+secret+" -b "+c.ps[0].addr, 1); !strings.Contains(strings.ToLower(text), "authoriz") && !strings.Contains(text, "may not") {
		t.Errorf("a plain client that makes a user is told %s", text)
	}
	run("user create billing --password-file "+secret+admin, 0)
	for _, addr := range addrs { // all know the user
		eventually(t, "the user logs in", func() bool {
			return tryVerb(t, t.TempDir(), "", "topic list --user billing --password-file "+secret+" --ca "+filepath.Join(c.dirs[0], "ca.pem")+" -b "+addr).code == 0
		})
	}
	moved := runTraffic(t, "new-client", "orders", addrs, loginOptions(t, filepath.Join(c.dirs[1], "ca.pem"), "billing", "Pl4nted-secret")...)
	moved.expectProgress(t, "with a login")
	plain.expectProgress(t, "beside one with a login")

	// What it does is suggested, and granted.
	script := ""
	eventually(t, "all is observed", func() bool {
		script = c.say(0, "acl suggest", 0)
		return strings.Contains(script, "billing read group group-new-client") && strings.Contains(script, "billing read topic orders") && strings.Contains(script, "billing write topic orders")
	})
	if !strings.Contains(script, "# User:ANONYMOUS write topic orders") || strings.Contains(script, "\nleat acl grant ANONYMOUS") {
		t.Errorf("it suggests\n%s", script)
	}
	shell := exec.Command("sh", "-e", "-c", "leat() { "+leat+" \"$@\""+admin+"; }\n"+script)
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	// The end is refused while somebody comes plain.
	c.say(2, "secure --finish", 1, "old-client", "--force")
	plain.expectProgress(t, "after a refused end")
	c.ps[2].kill()
	c.restart(2)
	c.ps[2].awaitReady(t)
	plain.expectProgress(t, "until the end")
	plain.end()
	page := "http://" + httpOf(c.ps[0]) + "/metrics"
	if code := statusOf(t, page); code != http.StatusOK {
		t.Errorf("%s answers %d before the end", page, code)
	}
	c.say(0, "secure --finish", 1, "missing: try again at", "--quiet-for") // the nodes have just begun to note
	c.say(0, "secure --finish --force", 0, "ACLs decide")
	c.say(0, "secure --finish", 0, "ACLs decide")
	c.say(1, "secure --observe", 1, "ACLs decide")
	moved.expectProgress(t, "after the end")
	for i, p := range c.ps {
		eventually(t, "plain clients are refused", func() bool { return ping(p.addr) != nil })
		eventually(t, "the log says why", func() bool { return strings.Contains(p.out.String(), "security.protocol=SASL_SSL") })
		if i == 0 {
			eventually(t, "the pages ask for a login", func() bool { return statusOf(t, page) == http.StatusUnauthorized })
		}
	}
	for i := range c.ps { // one after the other
		c.ps[i].stop(t)
		c.restart(i)
		moved.expectProgress(t, "after a restart")
		eventually(t, "the node serves", func() bool {
			return tryVerb(t, t.TempDir(), "", "topic list --client-config "+java+" -b "+c.ps[i].addr).code == 0
		})
		if ping(c.ps[i].addr) == nil {
			t.Errorf("node %d serves plain clients after a restart", i+1)
		}
	}
	if strings.Contains(run("topic list"+admin, 0), "orders") == false {
		t.Error("the administrator does not see the topic")
	}
	// Another node joins, with the token that is made now.
	dir := filepath.Join(t.TempDir(), "data")
	joined := launch(t, dir, freeAddr(t), "--http", "off", "--join", c.ps[0].addr, "--token", makeToken(t, c.dirs[0]))
	eventually(t, "the new node serves", func() bool {
		return tryVerb(t, t.TempDir(), "", "topic list --client-config "+java+" -b "+joined.addr).code == 0
	})
	moved.expectProgress(t, "at the very end")
	for i, p := range c.ps {
		c.said.WriteString(p.out.String())
		checkNoSecrets(t, c.said.String(), login.Password, c.dirs[i]+".key", filepath.Join(c.dirs[i], "node.tls.pem"), filepath.Join(c.dirs[i], "node.key"))
	}
}

// statusOf is the status with which a page answers.
func statusOf(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestSecureIsResumed proves that leat secure, and the nodes, go on where a kill has stopped them, whenever that was: the cluster is secured in the end, by
// the same key, and the administrator logs in.
func TestSecureIsResumed(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	for round := range 6 {
		ended := make(chan string, 1)
		go func() {
			_, text := runSecure(t, "secure --timeout 20s --data "+c.dirs[0])
			ended <- text
		}()
		time.Sleep(time.Duration(round*round) * 20 * time.Millisecond) // somewhere in the steps
		for i := range c.ps {
			if (round+i)%3 != 2 || round%2 == 0 {
				c.ps[i].kill()
			}
		}
		c.said.WriteString(<-ended)
		for i := range c.ps {
			select {
			case <-c.ps[i].done:
				c.restart(i)
			default:
			}
		}
		for _, p := range c.ps {
			p.awaitReady(t)
		}
	}
	c.say(0, "secure", 0, "Java, in client.properties")
	c.awaitEncrypted(0)
	login, err := node.ReadFirstLogin(filepath.Join(c.dirs[0], "first-login.properties"))
	if err != nil {
		t.Fatal(err)
	}
	c.say(0, "secure --finish --force", 0)
	for i, p := range c.ps {
		if info, err := os.Stat(c.dirs[i] + ".key"); err != nil || info.Mode().Perm() != 0o600 || readText(t, c.dirs[i]+".key") != readText(t, c.dirs[0]+".key") {
			t.Errorf("the sealing key of node %d: %v, %v", i+1, info, err)
		}
		eventually(t, "the administrator logs in", func() bool {
			return tryVerb(t, t.TempDir(), "", "topic list --client-config "+filepath.Join(c.dirs[0], "first-login.properties")+" -b "+p.addr).code == 0
		})
		eventually(t, "plain clients are refused", func() bool { return ping(p.addr) != nil })
	}
	if login.Name != "admin" {
		t.Errorf("the administrator is %q", login.Name)
	}
}
