package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/node"
)

// ownAuthority is a certificate authority of an operator, who has made it without leat.
type ownAuthority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, as PEM
}

func newOwnAuthority(t *testing.T) *ownAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of our own"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a := &ownAuthority{t: t, cert: c, key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	write(t, a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// makeKeystore makes the key and the certificate of a node, and returns the PEM file with both.
func (a *ownAuthority) makeKeystore(number int64) (file string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1 + number), Subject: pkix.Name{CommonName: fmt.Sprint("broker ", number)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	file = filepath.Join(a.t.TempDir(), "node.pem")
	write(a.t, file, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return file
}

// TestThreeNodesOfSASLSSL proves that three nodes whose one listener is SASL_SSL, for clients and for each other, with an operator's own certificates and without --secure,
// form a cluster by a token; that a user logs in by SCRAM, and produces and consumes what ACLs allow; that all goes on while one node is killed; and that this node
// comes back with the same data, without a token.
func TestThreeNodesOfSASLSSL(t *testing.T) {
	t.Parallel()
	a, dir := newOwnAuthority(t), t.TempDir()
	write(t, filepath.Join(dir, "root"), rootPassword+"\n")
	write(t, filepath.Join(dir, "alice"), alicePassword+"\n")
	var dirs, addrs, keystores []string
	for i := range 3 {
		dirs, addrs, keystores = append(dirs, t.TempDir()), append(addrs, freeAddr(t)), append(keystores, a.makeKeystore(int64(i+1)))
	}
	start := func(i int, more ...string) *process {
		t.Helper()
		p := launchLine(t, append([]string{
			"up", "--data", dirs[i], "--http", "off", "--listen", "OUT=SASL_SSL://" + addrs[i], "--set", "inter.broker.listener.name=OUT", "--set", "super.users=User:root",
			"--set", "ssl.keystore.type=PEM", "--set", "ssl.keystore.location=" + keystores[i], "--set", "ssl.truststore.type=PEM", "--set", "ssl.truststore.location=" + a.file,
		}, more...)...)
		p.addr = addrs[i]
		eventually(t, fmt.Sprintf("node %d answers", i+1), func() bool {
			select {
			case <-p.done:
				t.Fatalf("node %d has ended: %s", i+1, p.out)
			default:
			}
			return tryVerb(t, dir, "", "health --ca "+a.file+" -b "+addrs[i]).code == 0
		})
		return p
	}
	ps := []*process{start(0, "--bootstrap-user", "root", "--bootstrap-password-file", filepath.Join(dir, "root"))}
	token := tryVerb(t, dir, "", "cluster token --data "+dirs[0])
	token.expect(t, 0)
	if !strings.HasPrefix(token.stdout, "leat2.") {
		t.Errorf("the token does not say that nodes talk over TLS")
	}
	for i := 1; i < 3; i++ {
		ps = append(ps, start(i, "--join", addrs[0], "--token", strings.TrimSpace(token.stdout)))
	}
	root := node.BootstrapUser{Name: "root", Password: rootPassword}
	produceAndRead(t, securedClient(t, a.file, root, addrs...), "warm-up", 3)
	as := func(user, line string, code int) string {
		t.Helper()
		r := tryVerb(t, dir, "", line+" --client-config "+user+".properties -b "+addrs[1])
		r.expect(t, code)
		return r.stdout
	}
	for user, password := range map[string]string{"root": rootPassword, "alice": alicePassword, "wrong": wrongPassword} {
		write(t, filepath.Join(dir, user+".properties"), fmt.Sprintf("security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nssl.truststore.type=PEM\nssl.truststore.location=%s\n"+
			"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=%q password=%q;\n", a.file, user, password))
	}
	as("root", "user create alice --password-file alice", 0)
	as("root", "topic create orders --partitions 3 --replication 3 --config min.insync.replicas=2", 0)
	for _, allowed := range []string{"read topic orders", "write topic orders", "read group billing"} {
		as("root", "acl grant alice "+allowed, 0)
	}
	as("alice", "topic create mine", 1)
	as("wrong", "topic list", 1)
	if ping(addrs[0]) == nil {
		t.Error("a client without TLS is served")
	}

	alice := node.BootstrapUser{Name: "alice", Password: alicePassword}
	cl := securedClient(t, a.file, alice, addrs...)
	produced := 0
	produce := func(n int) {
		t.Helper()
		for range n {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: fmt.Append(nil, produced)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			produced++
		}
	}
	produce(30)
	ps[2].kill()
	produce(30)
	ps = append(ps, ps[2]) // for its log
	ps[2] = start(2)
	adm := kadm.NewClient(securedClient(t, a.file, root, addrs[2]))
	eventually(t, "all replicas are in sync again", func() bool {
		topics, err := adm.ListTopics(t.Context(), "orders")
		if err != nil || topics["orders"].Err != nil {
			return false
		}
		for _, p := range topics["orders"].Partitions {
			if len(p.ISR) != 3 {
				return false
			}
		}
		return len(topics["orders"].Partitions) == 3
	})
	produce(30)
	as("root", "cluster --wait 1m", 0) // until the others vote again, the death of the first node is the end of the metadata
	ps[0].kill()                       // the others have all of it
	consumed := strings.Fields(as("alice", "consume orders --group billing --from start --exit", 0))
	for i := range produced {
		if !slices.Contains(consumed, fmt.Sprint(i)) {
			t.Errorf("record %d is missing of %d", i, produced)
		}
	}
	for i, p := range ps {
		if said := p.out.String(); strings.Contains(said, "Pl4nted") || strings.Contains(said, "BEGIN") {
			t.Errorf("the log of process %d has a secret: %s", i+1, said)
		}
	}
}
