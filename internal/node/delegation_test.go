package node

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/meta"
)

// logText is the log of a node, which a test reads.
type logText struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// askAs asks one node as a user.
func (m *machines) askAs(i int, as sasl.Mechanism, req kmsg.Request) (kmsg.Response, error) {
	m.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(m.ports[i]), kgo.SASL(as))
	if err != nil {
		m.t.Fatal(err)
	}
	defer cl.Close()
	return cl.SeedBrokers()[0].Request(deadline(m.t), req)
}

// startChanged starts one of the nodes with a configuration that a test has changed.
func (m *machines) startChanged(i int, cfg Config, change func(i int, cfg *Config)) error {
	m.t.Helper()
	cfg.Data, cfg.HTTP, cfg.Settings = m.dirs[i], "off", map[string]string{}
	change(i, &cfg)
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	n, err := Start(ctx, cfg)
	if err == nil {
		m.nodes[i] = n
		m.t.Cleanup(func() { m.stop(i) })
	}
	return err
}

// TestDelegationTokensOfACluster proves that a token which was asked for at one node is decided by another one, and is good on all that have the same
// key, also after all of them were started again; that a node with another key, or none, refuses it, says so in its log, and is right after it was
// started with the key; that who has logged in with a token gets none, whichever node is asked; that tokens which have ended are removed
// everywhere; and that neither the key nor a secret is in a log.
func TestDelegationTokensOfACluster(t *testing.T) {
	const planted, otherKey, password = "Pl4nted-key-of-all-nodes", "Pl4nted-key-of-one-node", "Pl4nted-password"
	keys := []string{planted, planted, otherKey}
	var logs [3]logText
	m := &machines{t: t, nodes: make([]*Node, 3)}
	for len(m.ports) < len(m.nodes) {
		// The system gives ports from 32768 on to connections, also while a node of the test is away.
		port := fmt.Sprintf("127.0.0.1:%d", 12_000+mathrand.IntN(20_000))
		if l, err := net.Listen("tcp", port); err == nil {
			l.Close()
			m.dirs, m.ports = append(m.dirs, t.TempDir()), append(m.ports, port)
		}
	}
	change := func(i int, cfg *Config) {
		cfg.Listen = []string{"SASL_PLAINTEXT://" + m.ports[i]}
		cfg.Settings["super.users"] = "User:admin"
		cfg.Settings["delegation.token.expiry.check.interval.ms"] = "50"
		if keys[i] != "" {
			cfg.Settings["delegation.token.secret.key"] = keys[i]
		}
		if i == 0 {
			cfg.BootstrapUser = BootstrapUser{"admin", password}
		}
		cfg.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), &logs[i]), &slog.HandlerOptions{Level: slog.LevelDebug})).With("machine", i)
	}
	start := func(i int, cfg Config) {
		t.Helper()
		if err := m.startChanged(i, cfg, change); err != nil {
			t.Fatal(err)
		}
	}
	start(0, Config{})
	token := m.makeToken(0)
	start(1, Config{Join: m.ports[:1], Token: token})
	start(2, Config{Join: m.ports[:1], Token: token})
	admin := scram.Auth{User: "admin", Pass: password}.AsSha512Mechanism()
	create := func(i int, as sasl.Mechanism, life int64) *kmsg.CreateDelegationTokenResponse {
		t.Helper()
		req := kmsg.NewPtrCreateDelegationTokenRequest()
		req.MaxLifetimeMillis = life
		resp, err := m.askAs(i, as, req)
		if err != nil {
			t.Fatal(err)
		}
		made, _ := resp.(*kmsg.CreateDelegationTokenResponse)
		return made
	}
	made := create(1, admin, -1)
	if made.ErrorCode != 0 || m.nodes[1].image.Load().DelegationTokens().Len() != 1 {
		t.Fatalf("code %d", made.ErrorCode)
	}
	secret := base64.StdEncoding.EncodeToString(made.HMAC)
	by := scram.Auth{User: made.TokenID, Pass: secret, IsToken: true}.AsSha256Mechanism()
	isGood := func(i int) bool {
		t.Helper()
		resp, err := m.askAs(i, by, kmsg.NewPtrDescribeClusterRequest())
		if err != nil && !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") {
			t.Fatal(err)
		}
		return err == nil && resp != nil
	}
	follow := func() {
		t.Helper()
		for i := range m.nodes {
			eventually(t, fmt.Sprint("node ", i, " knows the token"), func() bool { return m.nodes[i].image.Load().DelegationTokens().Len() == 1 })
		}
	}
	follow()
	const complaint = "made with another delegation.token.secret.key"
	if !isGood(0) || !isGood(1) || isGood(2) || !logs[2].has(complaint) || logs[0].has(complaint) || logs[1].has(complaint) {
		t.Error("a token is good on another node than those with its key, or the log does not say why")
	}
	for i := range 2 {
		if got := create(i, by, -1); got.ErrorCode != 64 || got.PrincipalName != "admin" {
			t.Errorf("node %d: a token for a token: code %d for %s", i, got.ErrorCode, got.PrincipalName)
		}
	}
	keys[2] = ""
	m.stop(2)
	start(2, Config{})
	follow()
	if isGood(2) || !logs[2].has("it has no delegation.token.secret.key") {
		t.Error("a token is good on a node without a key, or the log does not say why")
	}
	keys[2] = planted
	for i := range m.nodes {
		m.stop(i)
	}
	var starting sync.WaitGroup
	for i := range m.nodes {
		starting.Go(func() {
			if err := m.startChanged(i, Config{}, change); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	follow()
	for i := range m.nodes {
		if !isGood(i) {
			t.Errorf("the token is lost on node %d", i)
		}
	}
	if short := create(2, admin, 200); short.ErrorCode != 0 {
		t.Fatalf("code %d", short.ErrorCode)
	}
	eventually(t, "a token that has ended is removed", func() bool { return m.nodes[2].image.Load().DelegationTokens().Len() == 1 })
	for i, n := range m.nodes {
		removed := m.nodes[2].applied()
		eventually(t, "all nodes follow", func() bool { return n.applied() >= removed })
		if left := n.image.Load().DelegationTokens().Len(); left != 1 {
			t.Errorf("node %d has %d tokens", i, left)
		}
		if id, _ := meta.ParseUUID(made.TokenID); n.image.Load().DelegationTokens().Find(id) == nil {
			t.Errorf("node %d has removed a token that has not ended", i)
		}
		for _, s := range []string{"Pl4nted", secret, secret[:16]} {
			if logs[i].has(s) {
				t.Errorf("the log of node %d has a secret: %s", i, s)
			}
		}
	}
}
