package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// signer signs certificates for a test.
type signer struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	a := &signer{t: t, dir: t.TempDir(), next: 100}
	a.key, a.cert = a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "signer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	a.write("ca.pem", a.cert)
	return a
}

// issue makes a key and a certificate; without a parent it signs itself.
func (a *signer) issue(c, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent, by = c, key
	}
	a.next++
	c.SerialNumber = big.NewInt(a.next)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(400 * 24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

func (a *signer) path(name string) string { return filepath.Join(a.dir, name) }

// write replaces a file of PEM, as a careful tool does.
func (a *signer) write(name string, parts ...any) {
	a.t.Helper()
	var b bytes.Buffer
	for _, part := range parts {
		block := &pem.Block{Type: "CERTIFICATE"}
		switch part := part.(type) {
		case *x509.Certificate:
			block.Bytes = part.Raw
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalPKCS8PrivateKey(part)
			if err != nil {
				a.t.Fatal(err)
			}
			block = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
		}
		if err := pem.Encode(&b, block); err != nil {
			a.t.Fatal(err)
		}
	}
	tmp := a.path(name + ".new")
	if err := os.WriteFile(tmp, b.Bytes(), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(tmp, a.path(name)); err != nil {
		a.t.Fatal(err)
	}
}

// server writes a key and a certificate for this machine into a file, and returns the certificate.
func (a *signer) server(name string, ends time.Time) *x509.Certificate {
	a.t.Helper()
	key, cert := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, NotAfter: ends,
	}, a.cert, a.key)
	a.write(name, key, cert)
	return cert
}

// serverFor is server for a machine that has this name alone.
func (a *signer) serverFor(name, host string) {
	a.t.Helper()
	key, cert := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{host}}, a.cert, a.key)
	a.write(name, key, cert)
}

// client is a client with a certificate of its own.
func (a *signer) client(name pkix.Name) tls.Certificate {
	a.t.Helper()
	key, cert := a.issue(&x509.Certificate{Subject: name, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// config trusts the signer, for a client with these certificates.
func (a *signer) config(own ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots, Certificates: own, ServerName: "localhost"}
}

// settings are those of a listener with the key in node.pem.
func (a *signer) settings(more map[string]string) map[string]string {
	s := map[string]string{
		"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "1",
		"ssl.keystore.type": "PEM", "ssl.keystore.location": a.path("node.pem"),
		"ssl.truststore.type": "PEM", "ssl.truststore.location": a.path("ca.pem"),
	}
	maps.Copy(s, more)
	return s
}

// startTLS starts a node that listens with TLS and, for other nodes, without it. It returns the address with TLS.
func startTLS(t *testing.T, settings map[string]string, log io.Writer) (n *Node, address string) {
	t.Helper()
	n, err := Start(t.Context(), Config{
		Data: t.TempDir(), Listen: []string{"IN=127.0.0.1:0", "OUT=SSL://127.0.0.1:0"}, HTTP: "127.0.0.1:0", Settings: settings,
		Logger: slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n, n.Info().Addresses[1]
}

func tlsClient(t *testing.T, address string, cfg *tls.Config) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DialTLSConfig(cfg), kgo.MetadataMinAge(50*time.Millisecond), kgo.RecordRetries(3), kgo.RetryTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// TestTLS proves that a client can create a topic, produce, and consume with a group, over TLS; that all that it is told is the address of
// that listener; and that the versions and suites are those that the settings allow.
func TestTLS(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	_, address := startTLS(t, a.settings(map[string]string{"listener.name.out.ssl.enabled.protocols": "TLSv1.2", "ssl.cipher.suites": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}), io.Discard)
	ctx := deadline(t)
	cl := tlsClient(t, address, a.config())
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	value := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	for range 20 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	brokers, err := kadm.NewClient(cl).ListBrokers(ctx)
	if err != nil || len(brokers) != 1 || fmt.Sprintf("localhost:%d", brokers[0].Port) != strings.Replace(address, "127.0.0.1", "localhost", 1) || brokers[0].Host != "localhost" {
		t.Errorf("brokers %v (%v), want %s by the name that the client knows", brokers, err, address)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DialTLSConfig(a.config()), kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("g"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for n := 0; n < 20; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !bytes.Equal(r.Value, value) {
				t.Errorf("record %d is another one", r.Offset)
			}
			n++
		})
	}
	if err := reader.CommitUncommittedOffsets(ctx); err != nil {
		t.Error(err)
	}
	conn, err := tls.Dial("tcp", address, a.config())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if s := conn.ConnectionState(); s.Version != tls.VersionTLS12 || s.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		t.Errorf("version %x, suite %x", s.Version, s.CipherSuite)
	}
	newer := a.config()
	newer.MinVersion = tls.VersionTLS13
	if _, err := tls.Dial("tcp", address, newer); err == nil {
		t.Error("TLS 1.3 was served, which ssl.enabled.protocols does not have")
	}
}

// TestClientsWithoutServerName proves that a client which names no server in its handshake, as Java does with names without a dot, is told
// the address to which it has connected if the certificate has that, else a name in the certificate by which it may have come.
func TestClientsWithoutServerName(t *testing.T) {
	local, container, remote := net.IPv4(127, 0, 0, 1), net.IPv4(172, 17, 0, 2), net.IPv4(192, 0, 2, 1)
	for _, tc := range []struct {
		names     []string
		addresses []net.IP
		to        net.IP
		want      string
	}{
		{[]string{"localhost"}, []net.IP{local}, local, ""},
		{[]string{"broker1.example", "localhost"}, []net.IP{remote}, local, "localhost"},
		{[]string{"broker1.example", "localhost"}, []net.IP{remote}, remote, ""},
		{[]string{"broker1.example", "localhost"}, nil, remote, ""},
		{[]string{"broker1.example", "*.example"}, nil, local, ""},
		{[]string{"localhost", "broker1.example", "kafka"}, nil, container, "kafka"},
		{[]string{"broker1.example", "kafka"}, nil, local, "kafka"},
		{nil, nil, local, ""},
	} {
		if got := nameFor(&x509.Certificate{DNSNames: tc.names, IPAddresses: tc.addresses}, tc.to); got != tc.want {
			t.Errorf("names %v, addresses %v: a client of %v is told %q, want %q", tc.names, tc.addresses, tc.to, got, tc.want)
		}
	}
	a := newSigner(t)
	a.serverFor("node.pem", "localhost")
	_, address := startTLS(t, a.settings(nil), io.Discard)
	cfg := a.config()
	cfg.ServerName, cfg.InsecureSkipVerify = "127.0.0.1", true // an address is not sent
	brokers, err := kadm.NewClient(tlsClient(t, address, cfg)).ListBrokers(deadline(t))
	if err != nil || len(brokers) != 1 || brokers[0].Host != "localhost" {
		t.Errorf("brokers %v (%v), want localhost", brokers, err)
	}
}

// TestCertificatesAreReadAgain proves that a new certificate is used as soon as its file has changed, while connections that are open go on; that
// a broken one is not used, and the log and the metrics say so; and that a config which names another file counts at once.
func TestCertificatesAreReadAgain(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	var log lines
	n, address := startTLS(t, a.settings(nil), &log)
	ctx := deadline(t)
	cl := tlsClient(t, address, a.config())
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	old, err := tls.Dial("tcp", address, a.config())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	ask := func() { // on the connection that was there first
		t.Helper()
		req := kmsg.NewPtrApiVersionsRequest()
		b := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
		old.SetDeadline(time.Now().Add(patience))
		if _, err := old.Write(b); err != nil {
			t.Fatal(err)
		}
		var head [4]byte
		if _, err := io.ReadFull(old, head[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, old, int64(head[2])<<8|int64(head[3])); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := context.WithCancel(ctx)
	produced := make(chan int, 1)
	go func() { // records go on all the time
		count := 0
		for ; stop.Err() == nil; count++ {
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("x")}).FirstErr(); err != nil {
				t.Error(err)
			}
		}
		produced <- count
	}()
	serial := func() *big.Int {
		conn, err := tls.Dial("tcp", address, a.config())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	awaitSerial := func(want *x509.Certificate) {
		t.Helper()
		eventually(t, "the new certificate is used", func() bool { return serial().Cmp(want.SerialNumber) == 0 })
		ask()
	}
	ask()
	second := a.server("node.pem", time.Now().Add(5*24*time.Hour))
	awaitSerial(second)
	eventually(t, "it is logged", func() bool {
		return strings.Contains(log.String(), "new keys, certificates or settings of TLS are used") && strings.Contains(log.String(), "ends soon")
	})
	if _, body := get(t, n, "/metrics"); !strings.Contains(body, `leat_tls_certificate_days_left{listener="OUT"} 4.99`) || !strings.Contains(body, `leat_tls_stale{listener="OUT"} 0`) {
		t.Error("the metrics do not have the days left")
	}
	if err := os.WriteFile(a.path("node.pem"), []byte("-----BEGIN CERTIFICATE-----\nbroken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is noticed", func() bool {
		_, body := get(t, n, "/metrics")
		return strings.Contains(body, `leat_tls_stale{listener="OUT"} 1`) && strings.Contains(log.String(), "are not used, and the old ones stay")
	})
	awaitSerial(second)
	third := a.server("node.pem", time.Time{})
	awaitSerial(third)
	fourth := a.server("other.pem", time.Time{})
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, fmt.Sprint(n.id.nodeID)
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = "listener.name.out.ssl.keystore.location", new(a.path("other.pem"))
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil || resp.Resources[0].ErrorCode != 0 {
		t.Fatal(resp, err)
	}
	awaitSerial(fourth)
	done()
	if count := <-produced; count == 0 {
		t.Error("nothing was produced")
	}
}

// TestClientCertificates proves that clients are known by the names that the rules make of their certificates, and may do what those may; and that
// clients without a certificate that is trusted, or to which no rule applies, are refused.
func TestClientCertificates(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	_, address := startTLS(t, a.settings(map[string]string{
		"ssl.client.auth": "required", "ssl.principal.mapping.rules": `RULE:^CN=([^,]+),OU=people$/$1/L`,
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:admin",
	}), io.Discard)
	ctx := deadline(t)
	create := func(cfg *tls.Config, topic string) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_, err := kadm.NewClient(tlsClient(t, address, cfg)).CreateTopic(ctx, 1, 1, nil, topic)
		return err
	}
	of := func(cn, ou string) *tls.Config {
		return a.config(a.client(pkix.Name{CommonName: cn, OrganizationalUnit: []string{ou}}))
	}
	if err := create(of("Admin", "people"), "orders"); err != nil {
		t.Errorf("the super user: %v", err)
	}
	if err := create(of("alice", "people"), "others"); !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Errorf("a user without permissions: %v", err)
	}
	if err := create(of("Admin", "machines"), "others"); err == nil {
		t.Error("a client to whose name no rule applies was served")
	}
	if err := create(a.config(), "others"); err == nil {
		t.Error("a client without a certificate was served")
	}
	stranger := newSigner(t).client(pkix.Name{CommonName: "Admin", OrganizationalUnit: []string{"people"}})
	cfg := a.config()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
	if err := create(cfg, "others"); err == nil {
		t.Error("a client with a certificate of somebody else was served")
	}
}

// TestClusterOverTLS proves that nodes find each other, join and replicate by listeners with TLS that ask for certificates, and that a node whose
// certificate nobody trusts does not get in.
func TestClusterOverTLS(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	m := newClusterWith(t, 3, a.settings(map[string]string{"ssl.client.auth": "required"}))
	ctx := deadline(t)
	cl := m.client(kgo.DialTLSConfig(a.config(a.client(pkix.Name{CommonName: "c"}))))
	eventually(t, "a topic has three replicas", func() bool {
		_, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 3, nil, "orders")
		return err == nil || errors.Is(err, kerr.TopicAlreadyExists)
	})
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all replicas have it", func() bool {
		topics, err := kadm.NewClient(cl).ListTopics(ctx, "orders")
		return err == nil && len(topics["orders"].Partitions) == 1 && len(topics["orders"].Partitions[0].ISR) == 3
	})
	other := newSigner(t)
	other.server("node.pem", time.Time{})
	m.tls = other.settings(nil)
	m.dirs, m.ports, m.nodes = append(m.dirs, t.TempDir()), append(m.ports, "127.0.0.1:0"), append(m.nodes, nil)
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	token := m.makeToken(0)
	_, err := Start(short, Config{Data: m.dirs[3], Listen: []string{"SSL://127.0.0.1:0"}, HTTP: "off", Join: m.ports[:1], Token: token, Settings: m.tls})
	if err == nil || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("a node of another signer: %v", err)
	}
}

// TestTLSSettings proves that settings with which nothing would be protected, or nobody could connect, are refused with a sentence that says
// what to do.
func TestTLSSettings(t *testing.T) {
	a := newSigner(t)
	a.server("node.pem", time.Time{})
	key, _ := a.issue(&x509.Certificate{}, nil, nil)
	a.write("key.pem", key)
	a.write("nobody.pem")
	if err := os.WriteFile(a.path("store.jks"), []byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(want string, pairs ...string) {
		t.Helper()
		s := a.settings(nil)
		for i := 0; i < len(pairs); i += 2 {
			if s[pairs[i]] = pairs[i+1]; pairs[i+1] == "" {
				delete(s, pairs[i])
			}
		}
		dir := t.TempDir()
		n, err := Start(t.Context(), Config{Data: dir, Listen: []string{"SSL://127.0.0.1:0"}, HTTP: "off", Settings: s})
		if err == nil {
			stop(t, n)
		}
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%q: %v, want %q", pairs, err, want)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("%q: the data directory was touched", pairs)
		}
	}
	f("there is no key: set ssl.keystore.type=PEM", "ssl.keystore.location", "")
	f("no such file", "ssl.keystore.location", a.path("none.pem"))
	f("has no certificate", "ssl.keystore.location", a.path("key.pem"))
	f("has no private key", "ssl.keystore.location", a.path("ca.pem"))
	f("is PEM: set ssl.keystore.type=PEM", "ssl.keystore.type", "")
	f("keytool -importkeystore", "ssl.keystore.type", "JKS", "ssl.keystore.location", a.path("store.jks"))
	f("ssl.client.auth=required needs", "ssl.client.auth", "required", "ssl.truststore.location", "")
	f("Only TLSv1.2 and TLSv1.3", "ssl.enabled.protocols", "TLSv1.1,TLSv1.2")
	f("which is not served", "ssl.cipher.suites", "TLS_RSA_WITH_RC4_128_SHA")
	f("served together or not at all", "ssl.cipher.suites", "TLS_AES_256_GCM_SHA384")
	f("no suite of the versions", "ssl.cipher.suites", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ssl.enabled.protocols", "TLSv1.3")
	f("is no rule", "ssl.principal.mapping.rules", "RULE:CN=(.*)")
	f("ssl.keystore.password cannot be used with PEM", "ssl.keystore.password", "x")
	f("has no certificate", "ssl.truststore.location", a.path("key.pem"))
}
