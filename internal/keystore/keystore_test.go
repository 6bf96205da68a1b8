package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"
)

// files are the files of a test.
type files map[string][]byte

func (f files) read(path string) ([]byte, error) {
	b, ok := f[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return b, nil
}

// pair is a key and its certificate.
type pair struct {
	key  any
	cert *x509.Certificate
}

func issue(tb testing.TB, name string, key any, by *pair) *pair {
	tb.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	var public any
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		public = key.Public()
	case *rsa.PrivateKey:
		public = key.Public()
	}
	p := &pair{key: key}
	if by == nil {
		by = &pair{key, c}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, public, by.key)
	if err == nil {
		p.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func ecKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func encode(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func (p *pair) certPEM() []byte { return encode("CERTIFICATE", p.cert.Raw) }

func (p *pair) keyPEM(tb testing.TB) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		tb.Fatal(err)
	}
	return encode("PRIVATE KEY", der)
}

// TestRead proves that keys, chains and trusted certificates are read in all forms that are served.
func TestRead(t *testing.T) {
	root := issue(t, "root", ecKey(t), nil)
	between := issue(t, "between", ecKey(t), root)
	leaf := issue(t, "leaf", ecKey(t), between)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old := issue(t, "old", rsaKey, root)
	encrypted, err := pkcs8.MarshalPrivateKey(leaf.key, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := pkcs12.Modern.Encode(leaf.key, leaf.cert, []*x509.Certificate{root.cert, between.cert}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := pkcs12.Legacy.Encode(leaf.key, leaf.cert, nil, "secret")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{root.cert, between.cert}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	chain := append(leaf.certPEM(), between.certPEM()...)
	disk := files{
		"all.pem": append(leaf.keyPEM(t), chain...), "behind.pem": append(bytes.Clone(chain), leaf.keyPEM(t)...),
		"encrypted.pem": append(encode("ENCRYPTED PRIVATE KEY", encrypted), chain...),
		"rsa.pem":       append(encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), old.certPEM()...),
		"ca.pem":        append(append([]byte("a comment\n"), root.certPEM()...), between.certPEM()...),
		"store.p12":     store, "legacy.p12": legacy, "trust.p12": trust,
	}
	f := func(s Source, wantName string, wantChain, wantTrusted int) {
		t.Helper()
		m, err := Read(&s, disk.read)
		if err != nil {
			t.Errorf("%s%s: %v", s.KeyFile, s.TrustFile, err)
			return
		}
		if wantName != "" && (m.Certificate == nil || m.Certificate.Leaf.Subject.CommonName != wantName || len(m.Certificate.Certificate) != wantChain) {
			t.Errorf("%s: %+v, want %s with %d certificates", s.KeyFile, m.Certificate, wantName, wantChain)
		}
		if len(m.Anchors) != wantTrusted || (m.Trusted != nil) != (wantTrusted > 0) {
			t.Errorf("%s: %d trusted certificates, want %d", s.TrustFile, len(m.Anchors), wantTrusted)
		}
		again, err := Read(&s, disk.read)
		if err != nil || again.Sum != m.Sum {
			t.Errorf("%s%s: the sum changes (%v)", s.KeyFile, s.TrustFile, err)
		}
	}
	f(Source{KeyType: "PEM", KeyFile: "all.pem"}, "leaf", 2, 0)
	f(Source{KeyType: "PEM", KeyFile: "behind.pem"}, "leaf", 2, 0)
	f(Source{KeyType: "PEM", KeyFile: "encrypted.pem", KeyPW: "secret"}, "leaf", 2, 0)
	f(Source{KeyType: "PEM", KeyFile: "rsa.pem"}, "old", 1, 0)
	f(Source{KeyType: "PEM", Chain: string(chain), Key: string(leaf.keyPEM(t))}, "leaf", 2, 0)
	oneLine := func(b []byte) string { return strings.ReplaceAll(string(b), "\n", " ") }
	f(Source{KeyType: "PEM", Chain: oneLine(chain), Key: oneLine(leaf.keyPEM(t)), TrustType: "PEM", TrustedText: oneLine(disk["ca.pem"])}, "leaf", 2, 2)
	f(Source{KeyType: "PKCS12", KeyFile: "store.p12", KeyStorePW: "secret"}, "leaf", 3, 0)
	f(Source{KeyType: "jks", KeyFile: "store.p12", KeyStorePW: "secret", KeyPW: "secret"}, "leaf", 3, 0) // as Java reads it
	f(Source{KeyType: "PKCS12", KeyFile: "legacy.p12", KeyStorePW: "secret"}, "leaf", 1, 0)
	f(Source{TrustType: "PKCS12", TrustFile: "trust.p12", TrustPW: "secret"}, "", 0, 2)
	f(Source{TrustType: "PEM", TrustFile: "ca.pem"}, "", 0, 2)
	f(Source{}, "", 0, 0)

	g := func(want string, s Source) {
		t.Helper()
		_, err := Read(&s, disk.read)
		if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	disk["mixed.pem"] = append(leaf.keyPEM(t), old.certPEM()...)
	disk["jks"] = []byte{0xfe, 0xed, 0xfe, 0xed}
	disk["cut.p12"] = store[:len(store)/2]
	disk["oldform.pem"] = append([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"), chain...)
	g("is not that of the first certificate", Source{KeyType: "PEM", KeyFile: "mixed.pem"})
	g("keytool -importkeystore", Source{KeyType: "JKS", KeyFile: "jks"})
	g("keytool -importkeystore", Source{TrustType: "JKS", TrustFile: "jks"})
	g("there is no ssl.key.password", Source{KeyType: "PEM", KeyFile: "encrypted.pem"})
	g("is ssl.key.password right?", Source{KeyType: "PEM", KeyFile: "encrypted.pem", KeyPW: "wrong-secret"})
	g("cannot be read as PKCS#12", Source{KeyType: "PKCS12", KeyFile: "store.p12", KeyStorePW: "wrong-secret"})
	g("cannot be read as PKCS#12", Source{KeyType: "PKCS12", KeyFile: "cut.p12", KeyStorePW: "secret"})
	g("cannot be read as a trust store", Source{TrustType: "PKCS12", TrustFile: "store.p12", TrustPW: "secret"})
	g("has one password", Source{KeyType: "PKCS12", KeyFile: "store.p12", KeyStorePW: "secret", KeyPW: "wrong-secret"})
	g("ssl.keystore.type=BKS is not served", Source{KeyType: "BKS", KeyFile: "all.pem"})
	g("is PEM: set ssl.keystore.type=PEM", Source{KeyType: "PKCS12", KeyFile: "all.pem"})
	g("is not PEM", Source{KeyType: "PEM", KeyFile: "store.p12"})
	g("leave one of them out", Source{KeyType: "PEM", KeyFile: "all.pem", Key: "x", Chain: "x"})
	g("are needed together", Source{KeyType: "PEM", Chain: string(chain)})
	g("can only be used with ssl.keystore.type=PEM", Source{KeyType: "JKS", Chain: "x", Key: "x"})
	g("openssl pkcs8 -topk8", Source{KeyType: "PEM", KeyFile: "oldform.pem"})
	g("file does not exist", Source{KeyType: "PEM", KeyFile: "none.pem"})
}

// FuzzRead proves that no file does harm, whatever is in it.
func FuzzRead(f *testing.F) {
	p := issue(f, "leaf", ecKey(f), nil)
	store, err := pkcs12.Modern.WithIterations(1).Encode(p.key, p.cert, nil, "secret")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(store)
	f.Add(append(p.keyPEM(f), p.certPEM()...))
	f.Add([]byte{0xfe, 0xed, 0xfe, 0xed})
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) > 16<<10 {
			return
		}
		disk := files{"x": b}
		for _, typ := range []string{"PEM", "PKCS12", "JKS"} {
			for _, s := range []Source{{KeyType: typ, KeyFile: "x", KeyPW: "secret"}, {KeyType: typ, KeyFile: "x", KeyStorePW: "secret"}, {TrustType: typ, TrustFile: "x", TrustPW: "secret"}} {
				_, _ = Read(&s, disk.read)
			}
		}
	})
}
