package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
	"github.com/leatstream/leat/internal/vfs"
)

// securedConfig is what a secured node of a test is started with.
func securedConfig(data string) Config {
	return Config{
		Data: data, Secure: true, Listen: []string{"127.0.0.1:0"}, HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"group.initial.rebalance.delay.ms": "0"},
	}
}

// startSecured starts a node until the test ends.
func startSecured(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n
}

// trusting is what a client of a secured node uses.
func trusting(t *testing.T, i *SecuredInfo) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(i.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatal("no certificates to trust")
	}
	return &tls.Config{RootCAs: roots}
}

// loggedIn is a client that has logged in.
func loggedIn(t *testing.T, n *Node, u BootstrapUser) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Info().Addresses...), kgo.DialTLSConfig(trusting(t, n.Info().Secured)),
		kgo.SASL(scram.Auth{User: u.Name, Pass: u.Password}.AsSha512Mechanism()), kgo.RequestRetries(0), kgo.RetryTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// checkServesSecured proves that a node serves nobody but who logs in over TLS, and the administrator.
func checkServesSecured(t *testing.T, n *Node, u BootstrapUser) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := loggedIn(t, n, u).Ping(ctx); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	if _, err := kadm.NewClient(loggedIn(t, n, u)).DescribeUserSCRAMs(ctx); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	if loggedIn(t, n, BootstrapUser{u.Name, "wrong"}).Ping(ctx) == nil {
		t.Error("a wrong password lets a client in")
	}
	plain, err := kgo.NewClient(kgo.SeedBrokers(n.Info().Addresses...), kgo.RequestRetries(0), kgo.RetryTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	short, stopShort := context.WithTimeout(ctx, 2*time.Second)
	defer stopShort()
	if plain.Ping(short) == nil {
		t.Error("a client without TLS is served")
	}
	anonymous, err := kgo.NewClient(kgo.SeedBrokers(n.Info().Addresses...), kgo.DialTLSConfig(trusting(t, n.Info().Secured)), kgo.RequestRetries(0), kgo.RetryTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer anonymous.Close()
	if anonymous.Ping(short) == nil {
		t.Error("a client without a login is served")
	}
}

// TestSecured proves that the first start with --secure makes all that is needed, that only its owner may read what is secret, that a later start without
// the flag serves the same clients, and that settings which would open the node are refused.
func TestSecured(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	cfg := securedConfig(data)
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	info := n.Info().Secured
	if info == nil || info.SealingKey != data+".key" || info.User != "admin" || info.FirstLogin == "" || !strings.HasPrefix(info.Address, "127.0.0.1:") {
		t.Fatalf("it says %+v", info)
	}
	login, err := ReadFirstLogin(info.FirstLogin)
	if err != nil || login.Name != "admin" || len(login.Password) < 20 {
		t.Fatalf("the first login is %v, %v", login, err)
	}
	for file, mode := range map[string]fs.FileMode{
		info.SealingKey: 0o600, info.FirstLogin: 0o600, filepath.Join(data, securedFile): 0o600, filepath.Join(data, certificateFile): 0o600, info.CA: 0o644,
	} {
		if s, err := os.Stat(file); err != nil || s.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v", file, s.Mode(), err)
		}
	}
	checkServesSecured(t, n, login)
	stop(t, n)
	if err := os.Remove(info.FirstLogin); err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		alter func(c *Config)
		want  string
	}{
		"a plain listener":          {func(c *Config) { c.Listen = []string{"PLAINTEXT://0.0.0.0:0"} }, "would have the protocol PLAINTEXT, which encrypts nothing"},
		"another plain listener":    {func(c *Config) { c.Listen = []string{":0", "IN=SASL_PLAINTEXT://:0"} }, "would have the protocol SASL_PLAINTEXT"},
		"only plain listeners":      {func(c *Config) { c.Listen = []string{"PLAINTEXT://127.0.0.1:0"} }, "the listener for other nodes"},
		"no authorizer":             {func(c *Config) { c.Settings = map[string]string{"authorizer.class.name": ""} }, "would open it"},
		"everything is allowed":     {func(c *Config) { c.Settings = map[string]string{"allow.everyone.if.no.acl.found": "true"} }, "would open it"},
		"another certificate":       {func(c *Config) { c.Settings = map[string]string{"ssl.keystore.location": "x.pem"} }, "the cluster's own authority makes its certificate"},
		"a key in the directory":    {func(c *Config) { c.SealingKey = filepath.Join(data, "key") }, "is in the data directory"},
		"no sealing key":            {func(c *Config) { c.SealingKey = filepath.Join(t.TempDir(), "none") }, "is not in "},
		"nobody who can administer": {func(c *Config) { c.Settings = map[string]string{"super.users": "User:nobody"} }, "none of them can log in"},
	} {
		cfg := securedConfig(data)
		cfg.Secure = false
		c.alter(&cfg)
		if n, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				stop(t, n)
			}
		}
	}
	cfg.Secure = false
	n = startSecured(t, cfg)
	if i := n.Info().Secured; i == nil || i.FirstLogin != "" {
		t.Errorf("the second start says %+v", i)
	}
	checkServesSecured(t, n, login)
}

// TestSecureLater proves that a node which is there is not secured by the flag, and is not opened or changed by it.
func TestSecureLater(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	n, err := Start(t.Context(), Config{Data: data, Listen: []string{"127.0.0.1:0"}, HTTP: "off"})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, n)
	if _, err := Start(t.Context(), securedConfig(data)); err == nil || !strings.Contains(err.Error(), "has a node that is not secured") {
		t.Errorf("it says %v", err)
	}
	if _, err := os.Stat(data + ".key"); err == nil {
		t.Error("a sealing key was made all the same")
	}
}

// TestSealingKeyIsNeeded proves that a node does not start without its sealing key or with another one, that it changes no file then, and that a stolen
// data directory alone does not have the authority's key.
func TestSealingKeyIsNeeded(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	n, err := Start(t.Context(), securedConfig(data))
	if err != nil {
		t.Fatal(err)
	}
	record, cluster := n.image.Load().Authority(), n.id.clusterID
	stop(t, n)
	before := snapshotOf(t, data)
	good, err := os.ReadFile(data + ".key")
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string][]byte{
		"is not in " + data + ".key":               nil,
		"is the sealing key of another cluster":    sealing.NewRing().Encode(),
		"is damaged: its key is not":               []byte(damageKey(string(good))),
		"no sealing key: it has no line that begi": []byte("# nothing\n"),
	} {
		_ = os.Remove(data + ".key")
		if text != nil {
			if err := os.WriteFile(data+".key", text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg := securedConfig(data)
		cfg.Secure = false
		if n, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
			if err == nil {
				stop(t, n)
			}
		}
		if after := snapshotOf(t, data); after != before {
			t.Errorf("%s: the data directory has changed", want)
		}
	}
	if _, err := authority.Open(sealing.NewRing(), cluster, record); !errors.Is(err, sealing.ErrUnknownKey) {
		t.Errorf("another sealing key: %v", err)
	}
	// Nothing in the directory is the key: not as text, and not as bytes.
	ring, err := sealing.ParseRing(good)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(good), ring.Newest().String()+":")
	line = strings.TrimSpace(line)
	if strings.Contains(before, line) || len(line) < 40 {
		t.Error("the sealing key is in the data directory")
	}
	if err := os.WriteFile(data+".key", good, 0o600); err != nil {
		t.Fatal(err)
	}
	startSecured(t, securedConfig(data))
}

// damageKey changes a character of the key in a file of sealing keys.
func damageKey(text string) string {
	at := len(strings.TrimSpace(text)) - 10
	c := byte('A')
	if text[at] == c {
		c = 'B'
	}
	return text[:at] + string(c) + text[at+1:]
}

// snapshotOf is all files of a directory, with their names, modes and contents.
func snapshotOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(p)
		b.WriteString(p + "\n" + string(text) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// errKilled is what a file system says after the moment of a kill.
var errKilled = errors.New("killed")

// TestSecuredFirstStartIsKilled proves that wherever the first start of a secured node is killed, the next one finishes it: also without the flag as
// soon as node.secured is there; nothing is ever served in the open, and the administrator can log in.
func TestSecuredFirstStartIsKilled(t *testing.T) {
	dir := t.TempDir()
	var changes atomic.Int64
	runUntil := func(data string, last int64) bool { // tells whether the start was killed
		changes.Store(0)
		fsys := vfs.NewFaulty(vfs.OS{}, func(op vfs.Op, _ string) error {
			if op.Changes() && op != vfs.OpLock && changes.Add(1) > last {
				return errKilled
			}
			return nil
		})
		n, err := startOn(t.Context(), securedConfig(data), fsys, "before")
		if err != nil {
			return true
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Stop(ctx) // the disk may fail
		return false
	}
	runUntil(filepath.Join(dir, "whole"), 1<<40)
	all := changes.Load()
	if all < 30 {
		t.Fatalf("only %d changes of the disk", all)
	}
	step := int64(4) // each start syncs much; another run begins elsewhere
	if testing.Short() {
		step = 7
	}
	for last, killed := mathrand.Int64N(step), true; killed && last < all; last += step {
		data := filepath.Join(dir, "killed", string(rune('a'+last%26))+time.Duration(last).String())
		killed = runUntil(data, last)
		cfg := securedConfig(data)
		if _, err := os.Stat(filepath.Join(data, securedFile)); err == nil {
			cfg.Secure = false
		}
		n, err := Start(t.Context(), cfg)
		if err != nil {
			t.Errorf("after %d of %d changes: %v", last, all, err)
			continue
		}
		info := n.Info().Secured
		if info == nil {
			t.Fatalf("after %d of %d changes the node is open", last, all)
		}
		login, err := ReadFirstLogin(info.FirstLogin)
		if err != nil {
			t.Errorf("after %d of %d changes nobody knows the password: %v", last, all, err)
		} else if err := loggedIn(t, n, login).Ping(deadline(t)); err != nil {
			t.Errorf("after %d of %d changes: %v", last, all, err)
		}
		stop(t, n)
	}
}

// TestCertificateIsRenewed proves that a node makes its certificate anew a third of its time before the end, when all are asked to, when its machine gets
// another address, and when the authority is replaced; that it keeps the old one when it cannot, says so once and tries again; and that the file of certificates to trust
// follows the metadata.
func TestCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	keyFile := filepath.Join(t.TempDir(), "key")
	ring := sealing.NewRing()
	if err := os.WriteFile(keyFile, ring.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const cluster = "AAAAAAAAAAAAAAAAAAAAAA"
	made, err := authority.Make(ring, cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	record := &made
	var log lines
	ip := net.IPv4(10, 0, 0, 1)
	c := &certificates{
		fs: vfs.OS{}, dir: filepath.ToSlash(dir), secured: &secured{keyFile: filepath.ToSlash(keyFile), keyID: ring.Newest()}, cluster: cluster, node: 3, hosts: []string{"localhost"}, isOpen: true,
		log: slog.New(slog.NewTextHandler(&log, nil)), networks: func() ([]net.Addr, error) { return []net.Addr{&net.IPNet{IP: ip, Mask: net.CIDRMask(8, 32)}}, nil },
	}
	renews := func(what string, want bool) {
		t.Helper()
		before := c.leaf
		now = now.Add(lookAtNames)
		c.keep(record, now)
		if (c.leaf != before) != want {
			t.Errorf("%s: renewed %v, want %v\n%s", what, c.leaf != before, want, log.String())
		}
		text, err := os.ReadFile(filepath.Join(dir, certificateFile))
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(text, text)
		if err != nil || !pair.Leaf.Equal(c.leaf) {
			t.Errorf("%s: the file has another certificate: %v", what, err)
		}
		trusted, err := os.ReadFile(filepath.Join(dir, trustedFile))
		if err != nil || string(trusted) != string(authority.Bundle(record)) {
			t.Errorf("%s: the certificates to trust are others: %v", what, err)
		}
	}
	first := now
	renews("the first", true)
	if err := c.leaf.VerifyHostname("10.0.0.1"); err != nil || c.leaf.NotBefore.After(first.Add(-11*time.Hour)) {
		t.Errorf("%v; it begins at %v", err, c.leaf.NotBefore)
	}
	renews("a minute later", false)
	now = first.Add(59 * 24 * time.Hour)
	renews("after 59 days", false)
	now = first.Add(60 * 24 * time.Hour)
	renews("after 60 days", true)
	ip = net.IPv4(10, 0, 0, 2)
	renews("with another address", true)
	next := authority.Renew(record)
	record = &next
	renews("when asked to", true)
	renews("a minute later", false)
	rotated, err := authority.Rotate(ring, cluster, record, now)
	if err != nil {
		t.Fatal(err)
	}
	record = &rotated
	renews("with another authority", true)

	// Without the sealing key the old one stays.
	if err := os.Rename(keyFile, keyFile+".away"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(80 * 24 * time.Hour)
	renews("without the sealing key", false)
	renews("a minute later", false)
	if said := strings.Count(log.String(), "could not"); said != 1 {
		t.Errorf("the failure is told %d times:\n%s", said, log.String())
	}
	if err := os.Rename(keyFile+".away", keyFile); err != nil {
		t.Fatal(err)
	}
	renews("when the sealing key is back", true)
	if err := os.WriteFile(filepath.Join(dir, certificateFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.readLeaf()
	renews("when the file is damaged", true)
	if text := log.String(); strings.Contains(text, "PRIVATE") {
		t.Error("a key is in the log")
	}
}

// TestRunningNodeRenews proves that a node which serves shows a new certificate as soon as all are asked to, and drops no connection.
func TestRunningNodeRenews(t *testing.T) {
	n := startSecured(t, securedConfig(filepath.Join(t.TempDir(), "data")))
	info := n.Info()
	login, err := ReadFirstLogin(info.Secured.FirstLogin)
	if err != nil {
		t.Fatal(err)
	}
	cfg := trusting(t, info.Secured)
	serial := func() string {
		conn, err := tls.Dial("tcp", info.Addresses[0], cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	open, err := tls.Dial("tcp", info.Addresses[0], cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	cl := loggedIn(t, n, login)
	if err := cl.Ping(deadline(t)); err != nil {
		t.Fatal(err)
	}
	before := serial()
	now := n.image.Load().Authority()
	next := authority.Renew(now)
	if refused, err := controller.SetAuthority(deadline(t), n.controller, now, &next); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	for until := time.Now().Add(patience); serial() == before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it shows the old certificate")
		}
	}
	if err := cl.Ping(deadline(t)); err != nil {
		t.Errorf("a client that was there: %v", err)
	}
	_ = open.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an open connection: %v", err)
	}
}

// page is an answer to a request.
type page struct {
	status int
	head   http.Header
	body   string
}

// getAs asks for a page, with a login if there is a user.
func getAs(t *testing.T, cl *http.Client, url string, u BootstrapUser) page {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if u.IsSet() {
		req.SetBasicAuth(u.Name, u.Password)
	}
	resp, err := cl.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{resp.StatusCode, resp.Header, string(b)}
}

// TestHTTPLogin proves that the pages of a secured node are shown to nobody without a login but for health; that a user sees what ACLs let him, and profiles
// only who may ALTER the cluster; that metrics can be opened by a config; that an address which other machines reach has TLS; and that all answers tell browsers to
// be careful.
func TestHTTPLogin(t *testing.T) {
	for name, address := range map[string]string{"loopback": "127.0.0.1:0", "everywhere": "0.0.0.0:0"} {
		t.Run(name, func(t *testing.T) {
			cfg := securedConfig(filepath.Join(t.TempDir(), "data"))
			cfg.HTTP = address
			n := startSecured(t, cfg)
			admin, err := ReadFirstLogin(n.Info().Secured.FirstLogin)
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: trusting(t, n.Info().Secured)}
			cl := &http.Client{Transport: transport}
			_, port, _ := net.SplitHostPort(n.Info().HTTP)
			url := "http://127.0.0.1:" + port
			if isOpen := name == "everywhere"; isOpen != n.Info().HTTPEncrypted {
				t.Errorf("encrypted: %v", n.Info().HTTPEncrypted)
			} else if isOpen {
				if resp := getAs(t, cl, url+"/healthz", BootstrapUser{}); resp.status != http.StatusBadRequest {
					t.Errorf("without TLS: %d", resp.status)
				}
				url = "https://127.0.0.1:" + port
			}
			adm := kadm.NewClient(loggedIn(t, n, admin))
			viewer, stranger := BootstrapUser{"viewer", "viewers-password"}, BootstrapUser{"stranger", "strangers-password"}
			for _, u := range []BootstrapUser{viewer, stranger} {
				if _, err := adm.AlterUserSCRAMs(deadline(t), nil, []kadm.UpsertSCRAM{{User: u.Name, Mechanism: kadm.ScramSha256, Iterations: 4096, Password: u.Password}}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := adm.CreateACLs(deadline(t), kadm.NewACLs().Allow("User:viewer").AllowHosts("*").Clusters().Operations(kadm.OpDescribe).ResourcePatternType(kadm.ACLPatternLiteral)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the viewer is known", func() bool { return getAs(t, cl, url+"/metrics", viewer).status == http.StatusOK })
			const ok, no, denied = http.StatusOK, http.StatusUnauthorized, http.StatusForbidden
			for path, want := range map[string][5]int{ // nobody, a wrong password, a user, who may DESCRIBE the cluster, the administrator
				"/healthz": {ok, ok, ok, ok, ok}, "/readyz": {ok, no, denied, ok, ok}, "/": {no, no, ok, ok, ok},
				"/metrics": {no, no, denied, ok, ok}, "/compaction": {no, no, denied, ok, ok},
				"/debug/pprof/": {no, no, denied, denied, ok}, "/debug/pprof/goroutine": {no, no, denied, denied, ok}, "/debug/pprof/symbol": {no, no, denied, denied, ok},
			} {
				for i, u := range []BootstrapUser{{}, {"admin", "wrong"}, stranger, viewer, admin} {
					got := getAs(t, cl, url+path, u)
					if got.status != want[i] {
						t.Errorf("%s as %q: %d, want %d", path, u.Name, got.status, want[i])
					}
					if h := got.head; h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || (got.status == no) != (h.Get("WWW-Authenticate") != "") {
						t.Errorf("%s: the head is %v", path, h)
					}
					if strings.Contains(got.body, admin.Password) {
						t.Errorf("%s has a password: %s", path, got.body)
					}
				}
			}
			if got := getAs(t, cl, url+"/readyz", BootstrapUser{}); strings.TrimSpace(got.body) != "ready" {
				t.Errorf("a probe is told %q", got.body)
			}
			if _, err := adm.AlterBrokerConfigs(deadline(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "leat.http.metrics.login", Value: new("false")}}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the metrics are open", func() bool { return getAs(t, cl, url+"/metrics", BootstrapUser{}).status == http.StatusOK })
		})
	}
}

// TestHTTPWhileJoining proves that a node which does not know yet whether its cluster is secured shows health alone.
func TestHTTPWhileJoining(t *testing.T) {
	a, err := openAdmin(t.Context(), adminConfig{addr: "127.0.0.1:0", isClosed: true, health: func() health { return health{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	cl := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/": http.StatusServiceUnavailable, "/debug/pprof/heap": http.StatusServiceUnavailable, "/metrics": http.StatusServiceUnavailable} {
		if got := getAs(t, cl, "http://"+a.addr+path, BootstrapUser{"a", "b"}); got.status != want {
			t.Errorf("%s: %d, want %d", path, got.status, want)
		}
	}
}

// TestSecuredFile proves that node.secured is read as it was written, and that a damaged one, or one of a newer version, is refused.
func TestSecuredFile(t *testing.T) {
	s := &secured{keyFile: "/etc/leat/a=b.key", keyID: sealing.ID{1, 2}, super: "admin"}
	const golden = "# This node is secured: see docs/security.md. Without this file it does not start.\nversion=1\nsealing.key.file=/etc/leat/a=b.key\nsealing.key.id=0102000000000000\nsuper.user=admin\n"
	if text := string(s.encode()); text != golden {
		t.Errorf("it is written as %q", text)
	}
	if read, err := parseSecured([]byte(golden)); err != nil || string(read.encode()) != golden || read.keys() != s.keys() {
		t.Errorf("it is read as %+v, %v", read, err)
	}
	next := keyIDs{sealing.ID{1, 2}, sealing.ID{3}}
	if read, err := parseSecured([]byte(golden + "sealing.key.next=0300000000000000\n")); err != nil || string(read.encode()) != golden || read.keys() != next {
		t.Errorf("while the key is replaced it is read as %+v, %v", read, err)
	}
	for _, bad := range []string{"", "version=2\n", golden[:len(golden)-20], strings.Replace(golden, "0102", "01", 1), golden + "sealing.key.next=03\n", strings.Replace(golden, "/etc/leat/a=b.key", "", 1)} {
		if _, err := parseSecured([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	disk := vfs.NewMem()
	if s, err := readSecured(disk, "/none"); s != nil || err != nil {
		t.Errorf("no file: %v, %v", s, err)
	}
	if err := disk.MkdirAll("/data"); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(disk, path.Join("/data", securedFile), []byte("version=9"), vfs.Secret); err != nil {
		t.Fatal(err)
	}
	if _, err := startOn(t.Context(), Config{Data: "/data", Listen: []string{"127.0.0.1:0"}, HTTP: "off"}, disk, "boot"); err == nil || !strings.Contains(err.Error(), "a newer leat wrote it") {
		t.Errorf("a newer version: %v", err)
	}
}

// TestUnsecuredNodeOfSecuredCluster proves that a node without node.secured serves no clients of a cluster that is secured.
func TestUnsecuredNodeOfSecuredCluster(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	n, err := Start(t.Context(), securedConfig(data))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, n)
	if err := os.Remove(filepath.Join(data, securedFile)); err != nil {
		t.Fatal(err)
	}
	cfg := securedConfig(data)
	cfg.Secure = false
	if n, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "this cluster is secured, and this node is not") {
		t.Errorf("it says %v", err)
		if err == nil {
			stop(t, n)
		}
	}
	var none *meta.Authority
	(*certificates)(nil).keep(none, time.Now()) // a node that is not secured makes no certificate
}
