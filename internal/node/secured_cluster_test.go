package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
)

// securedMachines are places of nodes that are started with listeners and settings of their own.
type securedMachines struct {
	*machines
	protocol string // of their only listeners, where Config names none
}

// newSecuredMachines makes places for nodes, with directories and ports that nobody else takes while a node is away.
func newSecuredMachines(t *testing.T, count int, protocol string) *securedMachines {
	t.Helper()
	m := &securedMachines{&machines{t: t, nodes: make([]*Node, count)}, protocol}
	for len(m.ports) < count {
		// The system gives ports from 32768 on to connections, also while a node of the test is away.
		port := fmt.Sprintf("127.0.0.1:%d", 12_000+mathrand.IntN(20_000))
		if l, err := net.Listen("tcp", port); err == nil {
			l.Close()
			m.dirs, m.ports = append(m.dirs, t.TempDir()), append(m.ports, port)
		}
	}
	return m
}

// start starts one of the nodes.
func (m *securedMachines) start(i int, cfg Config) {
	m.t.Helper()
	if _, err := m.tryStart(i, cfg); err != nil {
		m.t.Fatal(err)
	}
}

// tryStart is that of machines, but for the listeners and the settings.
func (m *securedMachines) tryStart(i int, cfg Config) (*Node, error) {
	m.t.Helper()
	cfg.Data, cfg.HTTP = m.dirs[i], "off"
	cfg.Logger = slog.New(slog.NewTextHandler(m.t.Output(), nil)).With("machine", i)
	if len(cfg.Listen) == 0 {
		cfg.Listen = []string{m.protocol + "://" + m.ports[i]}
	}
	settings := map[string]string{"group.initial.rebalance.delay.ms": "0"}
	maps.Copy(settings, cfg.Settings)
	cfg.Settings = settings
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	n, err := Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m.nodes[i] = n
	m.t.Cleanup(func() { m.stop(i) })
	return n, nil
}

// purposesOfAll are those for which each node has connections to the active controller's node.
var purposesOfAll = []peer.Purpose{peer.Quorum, peer.Commands, peer.Metadata}

// awaitBound waits until each node is connected to another one, and all connections between nodes are bound to TLS.
func (m *securedMachines) awaitBound() {
	m.t.Helper()
	eventually(m.t, "all nodes talk to each other over TLS, bound", func() bool {
		for i, n := range m.nodes {
			if n == nil {
				continue
			}
			open := 0
			for _, id := range n.peers.listOthers() {
				for _, p := range purposesOfAll {
					c, ok := n.peers.links.TryGet(id, p)
					if !ok {
						continue
					}
					if open++; !c.Session().IsBound {
						m.t.Logf("machine %d talks to node %d without being bound", i, id)
						return false
					}
				}
			}
			if open == 0 {
				return false
			}
		}
		return true
	})
}

// awaitVoters waits until so many nodes vote.
func (m *securedMachines) awaitVoters(count int) {
	m.t.Helper()
	eventually(m.t, "all nodes vote", func() bool {
		for _, n := range m.nodes {
			if n != nil && len(n.quorum.Status().Members.Voters) != count {
				return false
			}
		}
		return true
	})
}

// produceAlways produces records until it is stopped, and then returns how many were acknowledged. None may fail.
func produceAlways(t *testing.T, cl *kgo.Client, topic string) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	count, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Value: fmt.Append(nil, count)}).FirstErr(); err != nil {
				t.Errorf("record %d: %v", count, err)
				return
			}
			count++
		}
	}()
	return sync.OnceValue(func() int {
		cancel()
		<-done
		return count
	})
}

// countRecords reads a topic of one partition from the beginning to its end, and fails if a record is missing.
func countRecords(t *testing.T, topic string, want int, opts ...kgo.Opt) {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.ConsumeTopics(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	seen := map[string]bool{}
	for ctx := deadline(t); len(seen) < want; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%d of %d records: %v", len(seen), want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	for i := range want {
		if !seen[fmt.Sprint(i)] {
			t.Errorf("record %d is missing", i)
		}
	}
}

// TestClusterOfSASLSSL proves that nodes whose only listener asks for TLS and a login form a cluster by a token alone, without a truststore, and
// with certificates that nobody has signed: each connection between them is bound to TLS. Records go on while certificates are replaced and the
// nodes are restarted one at a time. A node that was removed does not come back, nor does a token that was used before.
func TestClusterOfSASLSSL(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster is restarted under load")
	}
	authorities := make([]*signer, 4) // each node has one of its own
	cfg := func(i int, more Config) Config {
		a := authorities[i]
		more.Settings = a.settings(map[string]string{"super.users": "User:admin"})
		delete(more.Settings, "ssl.truststore.type")
		delete(more.Settings, "ssl.truststore.location")
		more.BootstrapUser = BootstrapUser{"admin", "secret of admin"}
		return more
	}
	m := newSecuredMachines(t, 4, "SASL_SSL")
	for i := range authorities {
		authorities[i] = newSigner(t)
		authorities[i].server("node.pem", time.Time{})
	}
	m.start(0, cfg(0, Config{}))
	plain := m.makeToken(0)
	secure := withTLS(t, plain)
	for i := 1; i < 3; i++ {
		m.start(i, cfg(i, Config{Join: m.ports[:1], Token: secure}))
	}
	m.awaitVoters(3)
	m.awaitBound()
	logIn := []kgo.Opt{
		kgo.SeedBrokers(m.ports[:3]...), kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.SASL(scram.Auth{User: "admin", Pass: "secret of admin"}.AsSha512Mechanism()),
	}
	cl := m.client(logIn...)
	if made, err := kadm.NewClient(cl).CreateTopic(deadline(t), 1, 3, nil, "orders"); err != nil || made.Err != nil {
		t.Fatal(made, err)
	}
	produced := produceAlways(t, cl, "orders")
	for i, a := range authorities[:3] { // a certificate of another authority, even: it makes nobody a member
		before := m.serial(i)
		fresh := newSigner(t)
		fresh.dir = a.dir
		fresh.server("node.pem", time.Time{})
		authorities[i] = fresh
		eventually(t, "the new certificate is used", func() bool { return m.serial(i) != before })
	}
	for i := range 3 {
		m.stop(i)
		m.start(i, cfg(i, Config{}))
		m.awaitBound()
	}
	countRecords(t, "orders", produced(), logIn...)

	h, err := ReadHolder(m.dirs[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{m.ports[1], "SASL_SSL://" + m.ports[1]} { // the holder's way, when all listeners have TLS
		conn, err := h.Dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if w := conn.Welcome(); !conn.Session().IsBound || !h.IsReachedWithTLS(&w) {
			t.Errorf("%+v, %+v", conn.Session(), w)
		}
		conn.Close()
	}

	eventually(t, "a node is removed", func() bool {
		refused, err := m.nodes[0].peers.commands.RemoveNode(t.Context(), 3, true)
		return err == nil && refused == nil
	})
	select {
	case err := <-m.nodes[2].Failed():
		if !strings.Contains(err.Error(), "removed") { // another node has said so, or a metadata record
			t.Errorf("the removed node ends with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the removed node goes on")
	}
	m.stop(2)
	for _, c := range []Config{{}, {Join: m.ports[:1], Token: secure}} {
		n, err := m.tryStart(2, cfg(2, c))
		if err == nil {
			select {
			case err = <-n.Failed():
			case <-time.After(time.Minute):
			}
			m.stop(2)
		}
		if !errors.Is(err, credential.ErrNodeRemoved) {
			t.Errorf("a removed node that comes back: %v", err)
		}
	}
	for _, token := range []string{plain, secure} { // all tokens end with the removal
		if _, err := m.tryStart(3, cfg(3, Config{Join: m.ports[:1], Token: token})); !errors.Is(err, credential.ErrTokenRevoked) {
			t.Errorf("a token that was used before: %v", err)
		}
	}
}

// withTLS is the form of a token that needs TLS.
func withTLS(t *testing.T, text string) string {
	t.Helper()
	token, err := credential.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token.WithTLS().Text()
}

// serial is the number of the certificate that a node shows.
func (m *securedMachines) serial(i int) string {
	m.t.Helper()
	conn, err := tls.Dial("tcp", m.ports[i], &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	c := conn.ConnectionState().PeerCertificates[0]
	return c.SerialNumber.String() + fmt.Sprint(c.PublicKey)
}

// relayTLS is somebody between a node and those that dial it, who ends TLS with a certificate of his own and reads all.
func relayTLS(t *testing.T, a *signer, to string) (address string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(a.path("node.pem"), a.path("node.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				next, err := tls.Dial("tcp", to, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					return
				}
				running.Go(func() { defer nc.Close(); _, _ = io.Copy(nc, next) })
				_, _ = io.Copy(next, nc)
				next.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// TestJoinByTokenOverTLS proves which joins there are over a listener with TLS, and that nobody on the way can bring about one that he can read: a
// relay that ends TLS is refused, and a token that needs TLS is of no use without it.
func TestJoinByTokenOverTLS(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	bare := a.settings(nil)
	delete(bare, "ssl.truststore.type")
	delete(bare, "ssl.truststore.location")
	m := newSecuredMachines(t, 2, "SSL")
	m.start(0, Config{Settings: bare})
	plainToken := m.makeToken(0)
	secure := withTLS(t, plainToken)
	between := relayTLS(t, a, m.ports[0])
	closed, err := net.Listen("tcp", "127.0.0.1:0") // somebody who lets no TLS through, and wants a plain dial
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	heard := make(chan []byte, 100)
	go func() {
		for {
			nc, err := closed.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 8)
			_, _ = io.ReadFull(nc, b)
			heard <- b
			nc.Close()
		}
	}()
	short := func(cfg Config, protocol string) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		cfg.Data, cfg.HTTP, cfg.Listen, cfg.Settings = t.TempDir(), "off", []string{protocol + "://127.0.0.1:0"}, bare
		n, err := Start(ctx, cfg)
		if err == nil {
			stop(t, n)
		}
		return err
	}
	var joining sync.WaitGroup
	for _, c := range []struct {
		name, address, token, protocol string
		want                           error
		says                           string
	}{
		{"a relay, and a token that needs TLS", between, secure, "SSL", credential.ErrStranger, "something on the way ends TLS"},
		{"a relay, and a token of the older form", between, plainToken, "SSL", credential.ErrStranger, "something on the way ends TLS"},
		{"a relay, from a node without TLS", between, plainToken, "PLAINTEXT", credential.ErrStranger, "something on the way ends TLS"},
		{"a relay, named without TLS", "PLAINTEXT://" + between, secure, "SSL", credential.ErrStranger, ""},
		{"no TLS gets through", closed.Addr().String(), secure, "SSL", nil, "TLS handshake"},
		{"no TLS gets through, named without TLS", "PLAINTEXT://" + closed.Addr().String(), secure, "SASL_SSL", nil, ""},
		{"the node would be reached without TLS", m.ports[0], secure, "PLAINTEXT", ErrConfig, "the nodes of the cluster talk to each other with TLS"},
	} {
		cfg := Config{Join: []string{c.address}, Token: c.token}
		if c.protocol == "SASL_SSL" {
			cfg.BootstrapUser = BootstrapUser{"admin", "secret of admin"}
		}
		joining.Go(func() {
			err := short(cfg, c.protocol)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	joining.Wait()
	for len(heard) > 0 {
		if b := <-heard; b[0] != 22 {
			t.Errorf("something else than a handshake of TLS was sent: %x", b)
		}
	}
	if n := len(m.nodes[0].image.Load().Brokers); n != 1 { // one that is refused as the last of these was admitted, until its admission ends
		t.Errorf("the cluster has %d nodes", n)
	}
	m.start(1, Config{Join: m.ports[:1], Token: secure, Settings: bare})
	m.awaitBound()
}

// TestJoinFindsTLS proves that a node whose own listener has no TLS joins by a token of the older form over a listener that has it, and that the
// addresses which it keeps have their protocols, in a form that the version before reads.
func TestJoinFindsTLS(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	m := newSecuredMachines(t, 2, "PLAINTEXT")
	m.start(0, Config{Listen: []string{m.ports[0], "OUT=SSL://127.0.0.1:0"}, Settings: a.settings(nil)})
	out := m.nodes[0].Info().Addresses[1]
	m.start(1, Config{Join: []string{out}, Token: m.makeToken(0), Settings: a.settings(nil)})
	members, err := readMembers(m.nodes[1].fs, m.dirs[1])
	if err != nil || len(members) != 1 || !slices.Equal(members[0].Addresses, []string{"PLAINTEXT://" + m.ports[0], "SSL://" + out}) {
		t.Errorf("%v, %v", members, err)
	}
	text, err := os.ReadFile(m.dirs[1] + "/" + membersFile)
	if err != nil || !strings.Contains(string(text), fmt.Sprintf(`"addresses":["%s","%s"],"protocols":["PLAINTEXT","SSL"]`, m.ports[0], out)) {
		t.Errorf("%s: %v", text, err)
	}
}

// TestChangeToTLS proves that a cluster is changed from PLAINTEXT to SSL while it serves: each node gets another listener, then nodes talk to each
// other by that, then the first one goes, each step one node after the other. No record is lost.
func TestChangeToTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster is restarted many times under load")
	}
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	m, out := newSecuredMachines(t, 3, "PLAINTEXT"), newSecuredMachines(t, 3, "SSL")
	in := func(i int) string { return "IN=PLAINTEXT://" + m.ports[i] }
	secured := func(i int) string { return "OUT=SSL://" + out.ports[i] }
	m.start(0, Config{Listen: []string{in(0)}})
	for i := 1; i < 3; i++ {
		m.start(i, Config{Listen: []string{in(i)}, Join: m.ports[:1], Token: m.makeToken(0)})
	}
	m.awaitVoters(3)
	if made, err := kadm.NewClient(m.client()).CreateTopic(deadline(t), 1, 3, nil, "orders"); err != nil || made.Err != nil {
		t.Fatal(made, err)
	}
	change := func(cfg func(i int) Config) {
		t.Helper()
		for i := range m.nodes {
			m.stop(i)
			next := cfg(i)
			next.Settings = a.settings(next.Settings)
			m.start(i, next)
		}
	}
	change(func(i int) Config { return Config{Listen: []string{in(i), secured(i)}} })
	trusting := []kgo.Opt{kgo.SeedBrokers(out.ports...), kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), kgo.MetadataMinAge(50 * time.Millisecond)}
	produced := produceAlways(t, out.client(trusting...), "orders")
	inter := func() map[string]string { return map[string]string{"inter.broker.listener.name": "OUT"} }
	change(func(i int) Config { return Config{Listen: []string{in(i), secured(i)}, Settings: inter()} })
	change(func(i int) Config { return Config{Listen: []string{secured(i)}, Settings: inter()} })
	m.awaitBound()
	countRecords(t, "orders", produced(), trusting...)
}

// TestChangeToTLSInPlace proves that the nodes of a cluster find each other when their only listeners get TLS at the ports that they had, one node
// after the other, and if all were stopped and changed at once.
func TestChangeToTLSInPlace(t *testing.T) {
	if testing.Short() {
		t.Skip("clusters are restarted")
	}
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	for _, atOnce := range []bool{false, true} {
		m := newSecuredMachines(t, 3, "PLAINTEXT")
		m.start(0, Config{Listen: []string{"IN=PLAINTEXT://" + m.ports[0]}})
		for i := 1; i < 3; i++ {
			m.start(i, Config{Listen: []string{"IN=PLAINTEXT://" + m.ports[i]}, Join: m.ports[:1], Token: m.makeToken(0)})
		}
		m.awaitVoters(3)
		var starting sync.WaitGroup
		for i := range m.nodes {
			if m.stop(i); !atOnce {
				m.start(i, Config{Listen: []string{"IN=SSL://" + m.ports[i]}, Settings: a.settings(nil)})
			}
		}
		for i := range m.nodes {
			if m.nodes[i] == nil {
				starting.Go(func() {
					if _, err := m.tryStart(i, Config{Listen: []string{"IN=SSL://" + m.ports[i]}, Settings: a.settings(nil)}); err != nil {
						t.Error(err)
					}
				})
			}
		}
		starting.Wait()
		m.awaitBound()
	}
}
