package interop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// authority signs certificates. The root certificate is in the file ca.
type authority struct {
	ca   string
	cert *x509.Certificate
	key  crypto.Signer
}

var serials atomic.Int64 // of the newest certificate

// newAuthority makes an authority, and writes its certificate into the folder.
func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{ca: filepath.Join(dir, name+".pem"), key: newKey(t)}
	plan := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := sign(t, plan, plan, a.key.Public(), a.key)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writeFile(t, a.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// issue writes a new key and its certificate into a file, at once, and returns the certificate's serial number.
func (a *authority) issue(t *testing.T, path string, subject pkix.Name, hosts ...string) int64 {
	t.Helper()
	key := newKey(t)
	plan := &x509.Certificate{
		Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			plan.IPAddresses = append(plan.IPAddresses, ip)
		} else {
			plan.DNSNames = append(plan.DNSNames, h)
		}
	}
	der := sign(t, plan, a.cert, key.Public(), a.key)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, block := range []pem.Block{{Type: "PRIVATE KEY", Bytes: private}, {Type: "CERTIFICATE", Bytes: der}} {
		if err := pem.Encode(&text, &block); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, path+".new", text.Bytes())
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return plan.SerialNumber.Int64()
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign gives a planned certificate its number and its days, and has the issuer sign it.
func sign(t *testing.T, plan, issuer *x509.Certificate, public crypto.PublicKey, key crypto.Signer) []byte {
	t.Helper()
	plan.SerialNumber = big.NewInt(serials.Add(1))
	plan.NotBefore, plan.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, plan, issuer, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The issuer's name in tokens, and that of the cluster, for which they are.
const (
	issuerName = "https://issuer.example"
	audience   = "leat-interop"
	keyID      = "interop"
)

// issuer signs tokens of OAUTHBEARER, JSON Web Tokens (RFC 7519).
type issuer struct{ key *ecdsa.PrivateKey }

func newIssuer(t *testing.T) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{key}
}

// keySet is the set of the issuer's public keys (RFC 7517).
func (i issuer) keySet(t *testing.T) []byte {
	t.Helper()
	point, err := i.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	return asJSON(t, map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": keyID, "x": base64url(point[1:33]), "y": base64url(point[33:]),
	}}})
}

// token is a token that says who its bearer is, for an hour.
func (i issuer) token(t *testing.T, user string) []byte {
	t.Helper()
	now := time.Now().Unix()
	text := base64url(asJSON(t, map[string]any{"alg": "ES256", "typ": "JWT", "kid": keyID})) + "." + base64url(asJSON(t, map[string]any{
		"iss": issuerName, "aud": audience, "sub": user, "iat": now, "exp": now + 3600, "scope": "kafka",
	}))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return []byte(text + "." + base64url(signature))
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
