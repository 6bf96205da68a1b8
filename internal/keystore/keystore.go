// Package keystore reads the private key, the certificates and the trusted certificates that Kafka's configs ssl.* name: PEM, in files
// or in the configs themselves, and PKCS#12.
//
// A Source says where they are. Read makes Material of it. Both are plain values, which any goroutine may use.
package keystore

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/youmark/pkcs8"
	"software.sslmate.com/src/go-pkcs12"
)

// MaxFile is how many bytes a file may have.
const MaxFile = 4 << 20

// Source says where a key with its certificates, and trusted certificates, are, by the values of Kafka's configs. Its values are
// secrets in part.
type Source struct {
	KeyType     string // ssl.keystore.type
	KeyFile     string // ssl.keystore.location
	KeyStorePW  string // ssl.keystore.password
	KeyPW       string // ssl.key.password
	Chain, Key  string // ssl.keystore.certificate.chain, ssl.keystore.key
	TrustType   string // ssl.truststore.type
	TrustFile   string // ssl.truststore.location
	TrustPW     string // ssl.truststore.password
	TrustedText string // ssl.truststore.certificates
}

// Material is what was read of a Source.
type Material struct {
	Certificate *tls.Certificate    // with its Leaf; nil: the source has no key
	Trusted     *x509.CertPool      // nil: the source has no trusted certificates
	Anchors     []*x509.Certificate // those of Trusted
	Sum         [sha256.Size]byte   // of all bytes that were read: the same for the same material
}

// ErrBad is wrapped by all errors about a source. Their texts name the config, and no secret.
var ErrBad = errors.New("bad key or certificate")

func badf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBad}, args...)...)
}

// Files are the files of the source.
func (s *Source) Files() (paths []string) {
	for _, path := range []string{s.KeyFile, s.TrustFile} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}

// HasKey tells whether the source names a key.
func (s *Source) HasKey() bool { return s.KeyFile != "" || s.Key != "" || s.Chain != "" }

// hasTrust tells whether the source names trusted certificates.
func (s *Source) hasTrust() bool { return s.TrustFile != "" || s.TrustedText != "" }

// Read reads a source; readFile reads a file.
func Read(s *Source, readFile func(path string) ([]byte, error)) (*Material, error) {
	m := &Material{}
	sum := sha256.New()
	if s.HasKey() {
		store := storeConfigs{"ssl.keystore", s.KeyType, s.KeyFile, s.KeyStorePW, readFile}
		text, form, err := store.open(s.Chain+s.Key != "", "ssl.keystore.certificate.chain and ssl.keystore.key")
		if err != nil {
			return nil, err
		}
		if m.Certificate, err = s.readKey(text, form); err != nil {
			return nil, err
		}
		for _, part := range [][]byte{text, []byte(s.Chain), []byte(s.Key)} {
			_, _ = fmt.Fprintf(sum, "%d:%s", len(part), part) // a hash takes all
		}
	}
	if s.hasTrust() {
		store := storeConfigs{"ssl.truststore", s.TrustType, s.TrustFile, s.TrustPW, readFile}
		text, form, err := store.open(s.TrustedText != "", "ssl.truststore.certificates")
		if err != nil {
			return nil, err
		}
		if m.Anchors, err = s.readTrusted(text, form); err != nil {
			return nil, err
		}
		m.Trusted = x509.NewCertPool()
		for _, c := range m.Anchors {
			m.Trusted.AddCert(c)
		}
		_, _ = fmt.Fprintf(sum, "%d:%s%s", len(text), text, s.TrustedText)
	}
	m.Sum = [sha256.Size]byte(sum.Sum(nil))
	return m, nil
}

// form is the form of a store.
type form uint8

const (
	inline form = iota // it is in the configs themselves, as PEM
	pemForm
	pkcs12Form
)

// storeConfigs are the configs of a key store or a trust store.
type storeConfigs struct {
	prefix, typ, file, password string
	readFile                    func(path string) ([]byte, error)
}

// open reads the store's file, and finds its form; inlineNames are the configs that have it in place of a file, if hasInline is set.
func (c *storeConfigs) open(hasInline bool, inlineNames string) ([]byte, form, error) {
	typ := strings.ToUpper(c.typ)
	if (typ == "PEM" || hasInline) && c.password != "" {
		return nil, 0, badf("%s.password cannot be used with PEM, which has a password for the key alone: ssl.key.password", c.prefix)
	}
	switch {
	case typ != "PEM" && typ != "PKCS12" && typ != "JKS":
		return nil, 0, badf("%s.type=%s is not served: write PEM or PKCS12", c.prefix, c.typ)
	case hasInline && c.file != "":
		return nil, 0, badf("%s.location cannot be used with %s: leave one of them out", c.prefix, inlineNames)
	case hasInline && typ != "PEM":
		return nil, 0, badf("%s can only be used with %s.type=PEM", inlineNames, c.prefix)
	case hasInline:
		return nil, inline, nil
	}
	text, err := c.readFile(c.file)
	if err != nil {
		return nil, 0, badf("%s.location: %w", c.prefix, err)
	}
	isPEM := bytes.Contains(text, []byte("-----BEGIN "))
	switch {
	case bytes.HasPrefix(text, []byte{0xfe, 0xed, 0xfe, 0xed}), bytes.HasPrefix(text, []byte{0xce, 0xce, 0xce, 0xce}):
		return nil, 0, badf("%s.location=%s is a Java key store (JKS), which is not served: convert it with keytool -importkeystore -srckeystore %s -destkeystore %s.p12 -deststoretype PKCS12, and set %s.type=PKCS12",
			c.prefix, c.file, c.file, strings.TrimSuffix(c.file, ".jks"), c.prefix)
	case typ == "PEM" && !isPEM:
		return nil, 0, badf("%s.location=%s is not PEM, as %s.type says", c.prefix, c.file, c.prefix)
	case typ != "PEM" && isPEM:
		return nil, 0, badf("%s.location=%s is PEM: set %s.type=PEM", c.prefix, c.file, c.prefix)
	case isPEM:
		return text, pemForm, nil
	}
	return text, pkcs12Form, nil // as Java does with the type JKS, too
}

// readKey reads the key and its chain.
func (s *Source) readKey(text []byte, f form) (*tls.Certificate, error) {
	const where = "ssl.keystore.location="
	switch f {
	case inline:
		if s.Chain == "" || s.Key == "" {
			return nil, badf("ssl.keystore.certificate.chain and ssl.keystore.key are needed together")
		}
		return s.joinPEM("ssl.keystore.certificate.chain", "ssl.keystore.key", breakLines(s.Chain), breakLines(s.Key))
	case pemForm:
		return s.joinPEM(where+s.KeyFile, where+s.KeyFile, text, text)
	default:
	}
	if s.KeyPW != "" && s.KeyPW != s.KeyStorePW {
		return nil, badf("ssl.key.password is not ssl.keystore.password: a PKCS#12 file has one password")
	}
	key, leaf, chain, err := pkcs12.DecodeChain(text, s.KeyStorePW)
	if err != nil {
		return nil, badf("%s%s cannot be read as PKCS#12: %w", where, s.KeyFile, err)
	}
	c := &tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	for _, issuer := range orderChain(leaf, chain) {
		c.Certificate = append(c.Certificate, issuer.Raw)
	}
	return c, checkPair(c, where+s.KeyFile)
}

// orderChain orders certificates so that each has signed the one before, the first one leaf. Others are left out.
func orderChain(leaf *x509.Certificate, certs []*x509.Certificate) (chain []*x509.Certificate) {
	for last := leaf; len(chain) < len(certs) && !bytes.Equal(last.RawSubject, last.RawIssuer); {
		next := last
		for _, c := range certs {
			if bytes.Equal(c.RawSubject, last.RawIssuer) && c != last {
				next = c
			}
		}
		if next == last {
			break
		}
		chain, last = append(chain, next), next
	}
	return chain
}

// joinPEM joins a chain and a key, which may be in one text. The names say where they are.
func (s *Source) joinPEM(chainName, keyName string, chain, key []byte) (*tls.Certificate, error) {
	certs, err := readCertificates(chainName, chain)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, badf("%s has no certificate: it needs that of the key, and behind it those of its issuers", chainName)
	}
	c := &tls.Certificate{Leaf: certs[0]}
	for _, cert := range certs {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	if c.PrivateKey, err = s.readPrivateKey(keyName, key); err != nil {
		return nil, err
	}
	return c, checkPair(c, keyName)
}

// boundary is a line that begins or ends a part of PEM.
var boundary = regexp.MustCompile(`\s*(-----(?:BEGIN|END) [A-Z0-9 ]+-----)\s*`)

// breakLines puts lines where a config has blanks in their place: many have PEM on one line.
func breakLines(text string) []byte {
	text = boundary.ReplaceAllString(text, "\n$1\n")
	if strings.Contains(text, ":") { // there is a head between the lines, which is not served
		return []byte(text)
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		if !strings.HasPrefix(lines[i], "-----") {
			lines[i] = strings.Join(strings.Fields(lines[i]), "\n")
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

// checkPair checks that the key is that of the certificate, and can be used.
func checkPair(c *tls.Certificate, name string) error {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return badf("%s: the key is of a kind that is not served: %w", name, err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	if _, err := tls.X509KeyPair(leaf, block); err != nil {
		return badf("%s: the key is not that of the first certificate (%s): %w", name, c.Leaf.Subject, err)
	}
	return nil
}

// readPrivateKey reads the first private key of a text.
func (s *Source) readPrivateKey(name string, text []byte) (key any, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY" && block.Headers["DEK-Info"] == "":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY" && block.Headers["DEK-Info"] == "":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case block.Type == "ENCRYPTED PRIVATE KEY" && s.KeyPW == "":
			return nil, badf("%s: the key is encrypted, and there is no ssl.key.password", name)
		case block.Type == "ENCRYPTED PRIVATE KEY":
			if key, _, err = pkcs8.ParsePrivateKey(block.Bytes, []byte(s.KeyPW)); err != nil {
				return nil, badf("%s: the key cannot be decrypted: is ssl.key.password right?", name)
			}
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, badf("%s: the key is encrypted in an old form, or of a kind that is not served (%s): convert it with openssl pkcs8 -topk8", name, block.Type)
		default:
			continue
		}
		if err != nil {
			return nil, badf("%s: the private key cannot be read: %w", name, err)
		}
		return key, nil
	}
	return nil, badf("%s has no private key", name)
}

// readCertificates reads all certificates of a text.
func readCertificates(name string, text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, badf("%s: certificate %d cannot be read: %w", name, len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// readTrusted reads trusted certificates.
func (s *Source) readTrusted(text []byte, f form) (certs []*x509.Certificate, err error) {
	name := "ssl.truststore.location=" + s.TrustFile
	switch f {
	case inline:
		name = "ssl.truststore.certificates"
		certs, err = readCertificates(name, breakLines(s.TrustedText))
	case pemForm:
		certs, err = readCertificates(name, text)
	default:
		if certs, err = pkcs12.DecodeTrustStore(text, s.TrustPW); err != nil {
			return nil, badf("%s cannot be read as a trust store of PKCS#12: %w; make it with keytool -importcert -storetype PKCS12, or use PEM", name, err)
		}
	}
	if err == nil && len(certs) == 0 {
		return nil, badf("%s has no certificate", name)
	}
	return certs, err
}
