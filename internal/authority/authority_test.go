package authority

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
)

const cluster = "AAAAAAAAAAAAAAAAAAAAAA"

var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// rig is an authority that a test has made.
type rig struct {
	*testing.T

	ring   *sealing.Ring
	record meta.Authority
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, ring: sealing.NewRing()}
	var err error
	if r.record, err = Make(r.ring, cluster, start); err != nil {
		t.Fatal(err)
	}
	return r
}

// node is a node's certificate that was made at a time, and its text.
func (r *rig) node(now time.Time, hosts ...string) (*x509.Certificate, []byte) {
	r.Helper()
	i, err := Open(r.ring, cluster, &r.record)
	if err != nil {
		r.Fatal(err)
	}
	text, err := i.IssueNode(7, MakeNames(hosts...), now)
	if err != nil {
		r.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		r.Fatal(err)
	}
	return pair.Leaf, text
}

// trusts tells whether a client that trusts some certificates trusts what a node shows.
func trusts(t *testing.T, trusted, shown []byte, host string, now time.Time) error {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(trusted) {
		t.Fatal("no certificates")
	}
	pair, err := tls.X509KeyPair(shown, shown)
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(c)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, CurrentTime: now})
	return err
}

// TestIssues proves that clients which trust the authority trust its nodes by each of their names, from half a day before the certificate was
// made until its end, and nobody else; and that a client's certificate is good for a client alone.
func TestIssues(t *testing.T) {
	r := newRig(t)
	leaf, text := r.node(start, "Broker1.example.com", "localhost", "127.0.0.1", "::1", "10.0.0.7", "127.0.0.1", "::", "fe80::1%eth0", "bad name", "")
	ca := Bundle(&r.record)
	for _, host := range []string{"broker1.example.com", "localhost", "127.0.0.1", "::1", "10.0.0.7", "fe80::1"} {
		if err := trusts(t, ca, text, host, start); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := len(leaf.DNSNames) + len(leaf.IPAddresses); n != 6 {
		t.Errorf("it has %v and %v", leaf.DNSNames, leaf.IPAddresses)
	}
	for at, want := range map[time.Duration]bool{-Skew + time.Minute: true, -Skew - time.Minute: false, NodeLife - time.Minute: true, NodeLife + time.Minute: false} {
		if err := trusts(t, ca, text, "localhost", start.Add(at)); (err == nil) != want {
			t.Errorf("after %v: %v", at, err)
		}
	}
	if trusts(t, ca, text, "other", start) == nil || trusts(t, Bundle(&newRig(t).record), text, "localhost", start) == nil {
		t.Error("another name, or another authority, is trusted")
	}
	i, err := Open(r.ring, cluster, &r.record)
	if err != nil {
		t.Fatal(err)
	}
	client, err := i.IssueClient("alice", ClientLife, start)
	if err != nil {
		t.Fatal(err)
	}
	if err := trusts(t, ca, client, "", start); err == nil {
		t.Error("a client's certificate is good for a server")
	}
	pair, err := tls.X509KeyPair(client, client)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: start}); err != nil || pair.Leaf.Subject.String() != "CN=alice" {
		t.Errorf("%v: %v", pair.Leaf.Subject, err)
	}
	for _, bad := range []string{"", strings.Repeat("x", 65), "a\nb", "a\x00"} {
		if _, err := i.IssueClient(bad, ClientLife, start); err == nil {
			t.Errorf("%q gets a certificate", bad)
		}
	}
	if _, err := i.IssueNode(1, Names{}, start.Add(Life)); err == nil {
		t.Error("an authority that has ended issues")
	}
	if many := MakeNames(slices.Repeat([]string{"a", "b"}, 1000)...); len(many.DNS) != 2 {
		t.Errorf("%d names", len(many.DNS))
	}
	var hosts []string
	for n := range 2 * MaxNames {
		hosts = append(hosts, fmt.Sprintf("h%d", n))
	}
	if many := MakeNames(hosts...); len(many.DNS) != MaxNames {
		t.Errorf("%d names", len(many.DNS))
	}
}

// TestSealed proves that the metadata alone do not have the authority's key, that another sealing key does not open it, nor the right one
// for another cluster, and that the key of another certificate is refused.
func TestSealed(t *testing.T) {
	r, other := newRig(t), newRig(t)
	if bytes.Contains(r.record.SealedKey, []byte("PRIVATE")) {
		t.Error("the key is not sealed")
	}
	if _, err := Open(other.ring, cluster, &r.record); !errors.Is(err, sealing.ErrUnknownKey) {
		t.Errorf("another sealing key: %v", err)
	}
	if _, err := Open(r.ring, "other", &r.record); !errors.Is(err, sealing.ErrDamaged) {
		t.Errorf("another cluster: %v", err)
	}
	mixed, err := Make(r.ring, cluster, start)
	if err != nil {
		t.Fatal(err)
	}
	mixed.Certificates = r.record.Certificates
	if _, err := Open(r.ring, cluster, &mixed); err == nil || !strings.Contains(err.Error(), "not that of its certificate") {
		t.Errorf("another certificate: %v", err)
	}
	i, err := Open(r.ring, cluster, &r.record)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", i, i, i); strings.Contains(text, "D:") || strings.Contains(text, i.key.D.String()) { //nolint:staticcheck // the number is looked for
		t.Errorf("an issuer prints its key: %s", text)
	}
}

// TestWhenToRenew proves that a node replaces its certificate a third of its time before the end, when it lacks a name, when all are asked to, and
// when there is another authority; else it keeps it.
func TestWhenToRenew(t *testing.T) {
	r := newRig(t)
	leaf, _ := r.node(start, "a", "10.0.0.1")
	third := (NodeLife + Skew) / 3
	for name, c := range map[string]struct {
		at    time.Duration
		hosts []string
		alter func(a *meta.Authority)
		want  string
	}{
		"new":                 {0, []string{"a"}, nil, ""},
		"before the third":    {NodeLife - third - time.Minute, []string{"A", "10.0.0.1"}, nil, ""},
		"in the third":        {NodeLife - third + time.Minute, []string{"a"}, nil, "it ends on 2027-02-28"},
		"after the end":       {NodeLife + day, []string{"a"}, nil, "it ends on 2027-02-28"},
		"another name":        {0, []string{"a", "b"}, nil, "it does not have b"},
		"another address":     {0, []string{"a", "10.0.0.2"}, nil, "it does not have 10.0.0.2"},
		"when asked to":       {0, []string{"a"}, func(a *meta.Authority) { *a = Renew(a) }, "all nodes were asked to"},
		"by a new authority":  {0, []string{"a"}, func(a *meta.Authority) { a.Certificates = newRig(t).record.Certificates }, "there is another certificate authority"},
		"a clock that is off": {-day, []string{"a"}, nil, ""},
	} {
		a := r.record
		if c.alter != nil {
			c.alter(&a)
		}
		names := MakeNames(c.hosts...)
		if got := FindRenewal(leaf, &a, &names, start.Add(c.at)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// One that was made while the clock was ahead is refused by all clients.
	early, _ := r.node(start.Add(300*day), "a")
	ahead := MakeNames("a")
	if got := FindRenewal(early, &r.record, &ahead, start.Add(day)); got != "it begins on "+early.NotBefore.UTC().Format(time.DateOnly) {
		t.Errorf("after the clock went back: %q", got)
	}
	// Near the end of the authority nothing is gained by a certificate that ends with it, too.
	late, _ := r.node(start.Add(Life-day), "a")
	names := MakeNames("a")
	if got := FindRenewal(late, &r.record, &names, start.Add(Life-time.Hour)); got != "" {
		t.Errorf("at the end of the authority: %q", got)
	}
}

// TestRotation proves that clients which trust either authority trust all nodes while one takes the place of the other, whatever nodes have their new
// certificates, and that the old authority is trusted no longer at the end.
func TestRotation(t *testing.T) {
	r := newRig(t)
	_, before := r.node(start, "a")
	oldCA := Bundle(&r.record)
	next, err := Rotate(r.ring, cluster, &r.record, start.Add(day))
	if err != nil {
		t.Fatal(err)
	}
	r.record = next
	both := Bundle(&r.record)
	leaf, during := r.node(start.Add(day), "a")
	newCA := both[:bytes.Index(both[1:], []byte("-----BEGIN"))+1]
	for name, c := range map[string]struct {
		ca, shown []byte
		want      bool
	}{
		"old client, old node": {oldCA, before, true}, "old client, new node": {oldCA, during, true},
		"both, old node": {both, before, true}, "both, new node": {both, during, true}, "new client, new node": {newCA, during, true},
		"new client, old node": {newCA, before, false},
	} {
		if err := trusts(t, c.ca, c.shown, "a", start.Add(2*day)); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Rotate(r.ring, cluster, &r.record, start); !errors.Is(err, ErrRotating) {
		t.Errorf("a second rotation: %v", err)
	}
	r.record = Finish(&r.record)
	names := MakeNames("a")
	if FindRenewal(leaf, &r.record, &names, start.Add(day)) == "" {
		t.Error("nodes keep showing the old authority's signature")
	}
	_, after := r.node(start.Add(day), "a")
	if trusts(t, oldCA, after, "a", start.Add(2*day)) == nil || trusts(t, Bundle(&r.record), after, "a", start.Add(2*day)) != nil || trusts(t, Bundle(&r.record), before, "a", start.Add(2*day)) == nil {
		t.Error("after the end the old authority is trusted, or the new one is not")
	}
	if r.record.Number != 2 || IsRotating(&r.record) {
		t.Errorf("authority %d, rotating %v", r.record.Number, IsRotating(&r.record))
	}
}

// TestOpenSSL proves that OpenSSL, with all its checks, trusts what nodes show, before, during and after a change of the authority.
func TestOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	r := newRig(t)
	r.record, err = Make(r.ring, cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, ca []byte) {
		t.Helper()
		dir := t.TempDir()
		_, shown := r.node(time.Now(), "broker.example.com", "10.0.0.1")
		certs := shown[bytes.Index(shown, []byte("-----BEGIN CERTIFICATE")):]
		for file, text := range map[string][]byte{"ca.pem": ca, "node.pem": certs} {
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, host := range [][]string{{"-verify_hostname", "broker.example.com"}, {"-verify_ip", "10.0.0.1"}} {
			args := append([]string{"verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", filepath.Join(dir, "ca.pem"), "-untrusted", filepath.Join(dir, "node.pem")}, host...)
			if out, err := exec.CommandContext(t.Context(), program, append(args, filepath.Join(dir, "node.pem"))...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
	}
	old := Bundle(&r.record)
	check("one authority", old)
	if r.record, err = Rotate(r.ring, cluster, &r.record, time.Now()); err != nil {
		t.Fatal(err)
	}
	check("the old one", old)
	check("both", Bundle(&r.record))
	r.record = Finish(&r.record)
	check("the new one", Bundle(&r.record))
	block, _ := pem.Decode(Bundle(&r.record))
	if block == nil {
		t.Fatal("no certificate")
	}
}
