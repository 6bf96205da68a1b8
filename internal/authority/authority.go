// Package authority is a cluster's own certificate authority: it makes the certificates by which clients know the cluster's nodes,
// and certificates for clients.
//
// The metadata have its record (meta.Authority): its certificate, which is public, and its private key, sealed by the cluster's sealing
// key. Make makes a record, Open makes an Issuer of it where the sealing key is, and the Issuer signs. All of it is pure but for random
// numbers, the caller says what time it is, and any goroutine may use it.
//
// A record changes like this, and each change is one record in the metadata:
//
//	             .--Renew: nodes replace their certificates--.     (Reseal does so, too, and seals the key anew)
//	             v                                           |
//	Make --> one authority --Rotate--> a new one, and the old one still trusted --Finish--> one authority
//
// While the old one is trusted, nodes show the new one's certificate signed by the old one, too, so that clients which know only one of the two
// trust them.
package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
)

const (
	// Life is how long the authority's certificate is valid.
	Life = 10 * 365 * day
	// NodeLife is how long the certificate of a node is valid.
	NodeLife = 90 * day
	// ClientLife is how long the certificate of a client is valid, unless the caller says otherwise.
	ClientLife = 365 * day
	// Skew is how long before it is made a certificate begins, since the clocks of others may be behind.
	Skew = 12 * time.Hour
	// renewalPart is the part of a node's certificate's time, at its end, in which it is replaced.
	renewalPart = 3
	// MaxNames is how many names and addresses a certificate has at most.
	MaxNames = 100
	// maxCommonName is how many bytes a common name has at most (RFC 5280, ub-common-name).
	maxCommonName = 64

	day        = 24 * time.Hour
	roundBytes = 4  // of a serial number: the round of the authority's record
	drawnBytes = 12 // of a serial number: drawn
)

// ErrRotating says that the change of the authority which was begun must be finished first.
var ErrRotating = errors.New("the certificate authority is being replaced already: finish that first")

// purpose is that of the authority's key.
func purpose(cluster string) sealing.Purpose {
	return sealing.Purpose{Kind: "authority", Cluster: cluster}
}

// Issuer is an authority with its key: it signs.
type Issuer struct {
	cluster string
	round   uint32
	cert    *x509.Certificate
	cross   []byte // DER; nil: there is none
	key     *ecdsa.PrivateKey
}

// Format prints the name of the authority alone, whatever the verb.
func (i *Issuer) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, i.cert.Subject) }

// Make makes a new authority for a cluster that has none.
func Make(ring *sealing.Ring, cluster string, now time.Time) (meta.Authority, error) {
	a, _, err := makeAuthority(ring, cluster, 1, now)
	a.Round = 1
	return a, err
}

// makeAuthority makes the authority of a number, without a round.
func makeAuthority(ring *sealing.Ring, cluster string, number uint32, now time.Time) (meta.Authority, *Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return meta.Authority{}, nil, err
	}
	name := pkix.Name{CommonName: fmt.Sprintf("leat authority %d of %s", number, cluster), Organization: []string{"leat"}}
	root := &x509.Certificate{
		SerialNumber: drawSerial(1), Subject: name, NotBefore: now.Add(-Skew), NotAfter: now.Add(Life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, // a later authority, while it takes this one's place
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	i := &Issuer{cluster: cluster, key: key}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return meta.Authority{}, nil, err
	}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		return meta.Authority{}, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return meta.Authority{}, nil, err
	}
	sealed, err := ring.Seal(purpose(cluster), secret)
	return meta.Authority{Number: number, Certificates: [][]byte{der}, SealedKey: sealed}, i, err
}

// Open opens the authority of a record. Its errors wrap those of package sealing if the ring does not have the key.
func Open(ring *sealing.Ring, cluster string, a *meta.Authority) (*Issuer, error) {
	secret, err := ring.Open(purpose(cluster), a.SealedKey)
	if err != nil {
		return nil, fmt.Errorf("the key of the certificate authority: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("the key of the certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(a.Certificates[0])
	if err != nil {
		return nil, fmt.Errorf("the certificate of the certificate authority: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the key of the certificate authority is not that of its certificate")
	}
	return &Issuer{cluster: cluster, round: a.Round, cert: cert, cross: a.Cross, key: key}, nil
}

// Renew is the record by which all nodes replace their certificates.
func Renew(a *meta.Authority) meta.Authority {
	next := *a
	next.Round++
	return next
}

// Reseal is the record whose key is sealed by the key of the ring that seals. Nodes replace their certificates, too: so each of them shows that it can open it.
func Reseal(ring *sealing.Ring, cluster string, a *meta.Authority) (meta.Authority, error) {
	secret, err := ring.Open(purpose(cluster), a.SealedKey)
	if err != nil {
		return meta.Authority{}, fmt.Errorf("the key of the certificate authority: %w", err)
	}
	next := Renew(a)
	next.SealedKey, err = ring.Seal(purpose(cluster), secret)
	return next, err
}

// Rotate is the record with a new authority in the place of the present one, which stays trusted.
func Rotate(ring *sealing.Ring, cluster string, a *meta.Authority, now time.Time) (meta.Authority, error) {
	if IsRotating(a) {
		return meta.Authority{}, ErrRotating
	}
	old, err := Open(ring, cluster, a)
	if err != nil {
		return meta.Authority{}, err
	}
	next, issuer, err := makeAuthority(ring, cluster, a.Number+1, now)
	if err != nil {
		return meta.Authority{}, err
	}
	c := issuer.cert
	cross := &x509.Certificate{
		SerialNumber: drawSerial(a.Round), Subject: c.Subject, NotBefore: now.Add(-Skew), NotAfter: earlier(c.NotAfter, old.cert.NotAfter),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: c.KeyUsage, SubjectKeyId: c.SubjectKeyId,
	}
	if next.Cross, err = x509.CreateCertificate(rand.Reader, cross, old.cert, c.PublicKey, old.key); err != nil {
		return meta.Authority{}, err
	}
	next.Round = a.Round + 1
	next.Certificates = append(next.Certificates, a.Certificates...)
	return next, nil
}

// Finish is the record in which only the present authority is trusted.
func Finish(a *meta.Authority) meta.Authority {
	next := *a
	next.Certificates, next.Cross = a.Certificates[:1:1], nil
	next.Round++
	return next
}

// IsRotating tells whether an older authority is trusted beside the present one.
func IsRotating(a *meta.Authority) bool { return len(a.Certificates) > 1 }

// Bundle is the certificates to trust, as PEM.
func Bundle(a *meta.Authority) (text []byte) {
	for _, der := range a.Certificates {
		text = append(text, encodeCertificate(der)...)
	}
	return text
}

// Names are the names and addresses of a node's certificate.
type Names struct {
	DNS []string
	IPs []net.IP
}

// MakeNames makes the names of hosts, each a name or an address. What no certificate can have is left out, and so is what is over MaxNames.
func MakeNames(hosts ...string) (n Names) {
	for _, host := range hosts {
		host, _, _ = strings.Cut(host, "%") // the zone of an IPv6 address
		ip := net.ParseIP(host)
		switch {
		case len(n.DNS)+len(n.IPs) >= MaxNames:
			return n
		case ip != nil && !ip.IsUnspecified() && !slices.ContainsFunc(n.IPs, ip.Equal):
			n.IPs = append(n.IPs, ip)
		case ip == nil && isHostName(host) && !slices.Contains(n.DNS, strings.ToLower(host)):
			n.DNS = append(n.DNS, strings.ToLower(host))
		}
	}
	return n
}

// isHostName tells whether a certificate can have a name.
func isHostName(host string) bool {
	const longest = 253
	return host != "" && len(host) <= longest && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == "" &&
		!strings.HasPrefix(host, ".") && !strings.Contains(host, "..")
}

// FindMissing finds a name that a certificate does not have; "": it has all.
func (n *Names) FindMissing(c *x509.Certificate) string {
	for _, name := range n.DNS {
		if !slices.ContainsFunc(c.DNSNames, func(has string) bool { return strings.EqualFold(has, name) }) {
			return name
		}
	}
	for _, ip := range n.IPs {
		if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
			return ip.String()
		}
	}
	return ""
}

// IssueNode makes a certificate for a node, with a new key. It is the text of a PEM file: the key, the certificate, and those between it
// and the authorities that clients trust.
func (i *Issuer) IssueNode(id int32, names Names, now time.Time) ([]byte, error) {
	return i.issue(&x509.Certificate{
		Subject:  pkix.Name{CommonName: fmt.Sprintf("leat node %d", id), Organization: []string{i.cluster}},
		DNSNames: names.DNS, IPAddresses: names.IPs, NotAfter: now.Add(NodeLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // nodes show it to each other
	}, now)
}

// IssueClient makes a certificate by which a client is the user CN=name, as IssueNode does.
func (i *Issuer) IssueClient(name string, life time.Duration, now time.Time) ([]byte, error) {
	switch {
	case name == "" || len(name) > maxCommonName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return nil, fmt.Errorf("%q is no name of a client: it has from 1 to %d bytes, and no control characters", name, maxCommonName)
	case life < time.Hour || life > Life:
		return nil, fmt.Errorf("the certificate of a client is valid for an hour at least, and for %d days at most", Life/day)
	}
	return i.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: now.Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
}

// issue completes and signs a certificate.
func (i *Issuer) issue(c *x509.Certificate, now time.Time) ([]byte, error) {
	if !now.Before(i.cert.NotAfter) {
		return nil, fmt.Errorf("the certificate authority has ended, on %s: replace it", i.cert.NotAfter.Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = drawSerial(i.round), now.Add(-Skew), earlier(c.NotAfter, i.cert.NotAfter)
	c.KeyUsage, c.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	der, err := x509.CreateCertificate(rand.Reader, c, i.cert, key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), encodeCertificate(der)...)
	if i.cross != nil {
		text = append(text, encodeCertificate(i.cross)...)
	}
	return text, nil
}

// FindRenewal says why a node is to replace its certificate now; "": it need not.
func FindRenewal(c *x509.Certificate, a *meta.Authority, names *Names, now time.Time) string {
	authority, err := x509.ParseCertificate(a.Certificates[0])
	if err != nil {
		return "" // it cannot be made anew either
	}
	missing := names.FindMissing(c)
	switch {
	case c.CheckSignatureFrom(authority) != nil:
		return "there is another certificate authority"
	case roundOf(c) != a.Round:
		return "all nodes were asked to"
	case now.Before(c.NotBefore) && !now.Before(authority.NotBefore): // the clock was ahead when it was made
		return "it begins on " + c.NotBefore.UTC().Format(time.DateOnly)
	case c.NotAfter.Sub(now) <= c.NotAfter.Sub(c.NotBefore)/renewalPart && c.NotAfter.Before(authority.NotAfter):
		return "it ends on " + c.NotAfter.UTC().Format(time.DateOnly)
	case missing != "":
		return "it does not have " + missing
	}
	return ""
}

// drawSerial draws a serial number, which begins with a round.
func drawSerial(round uint32) *big.Int {
	b := binary.BigEndian.AppendUint32(nil, round)
	drawn := make([]byte, drawnBytes)
	_, _ = rand.Read(drawn) // it never fails
	return new(big.Int).SetBytes(append(b, drawn...))
}

// roundOf is the round in which a certificate was made; 0: that is not known.
func roundOf(c *x509.Certificate) uint32 {
	b := c.SerialNumber.Bytes()
	if len(b) > roundBytes+drawnBytes || len(b) <= drawnBytes {
		return 0
	}
	padded := append(bytes.Repeat([]byte{0}, roundBytes+drawnBytes-len(b)), b...)
	return binary.BigEndian.Uint32(padded)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
