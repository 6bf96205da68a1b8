package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/keystore"
)

// tlsOptions are the configs ssl.* of a listener. They are compared to find changes.
type tlsOptions struct {
	source         keystore.Source
	clientAuth     string
	protocols      string
	suites         string
	identification string // ssl.endpoint.identification.algorithm: "https", or "" for none
}

// readTLSOptions reads the configs of a listener. As in Kafka, the clients of a listener that asks for a login with SASL are only asked for
// certificates if ssl.client.auth is set for that listener alone (KIP-684).
func readTLSOptions(c config.ListenerConfigs, p config.Protocol) tlsOptions {
	o := tlsOptions{
		source: keystore.Source{
			KeyType: c.Text("ssl.keystore.type"), KeyFile: c.Text("ssl.keystore.location"), KeyStorePW: c.Text("ssl.keystore.password"),
			KeyPW: c.Text("ssl.key.password"), Chain: c.Text("ssl.keystore.certificate.chain"), Key: c.Text("ssl.keystore.key"),
			TrustType: c.Text("ssl.truststore.type"), TrustFile: c.Text("ssl.truststore.location"), TrustPW: c.Text("ssl.truststore.password"),
			TrustedText: c.Text("ssl.truststore.certificates"),
		},
		protocols: c.Text("ssl.enabled.protocols"), suites: c.Text("ssl.cipher.suites"),
		identification: strings.ToLower(c.Text("ssl.endpoint.identification.algorithm")),
	}
	auth, isOwn := c.Value("", "ssl.client.auth")
	if o.clientAuth = auth; p.AsksForLogin() && !isOwn {
		o.clientAuth = "none"
	}
	return o
}

// tlsVersions are the versions of TLS that are served, by Java's names.
var tlsVersions = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

// tlsChoice are the versions and the cipher suites that a listener allows.
type tlsChoice struct {
	lowest, highest uint16
	suites          []uint16 // of TLS 1.2; nil: all that are safe
}

// chooseTLS finds the versions and the suites that the options allow. crypto/tls has all suites of TLS 1.3 or none.
func chooseTLS(o *tlsOptions) (c tlsChoice, err error) {
	for _, name := range splitDistinct(o.protocols) {
		version := tlsVersions[name]
		if version == 0 {
			return c, fmt.Errorf("ssl.enabled.protocols=%s: %q is not served, only TLSv1.2 and TLSv1.3 are: older versions are not safe", o.protocols, name)
		}
		if c.lowest == 0 || version < c.lowest {
			c.lowest = version
		}
		c.highest = max(c.highest, version)
	}
	if o.suites == "" {
		return c, nil
	}
	var modern []string // suites of TLS 1.3
	for _, name := range splitDistinct(o.suites) {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return c, fmt.Errorf("ssl.cipher.suites has %s, which is not served: leave it out; the others are %s", name, strings.Join(suiteNames(), ", "))
		}
		if s := tls.CipherSuites()[i]; slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
			modern = append(modern, name)
		} else {
			c.suites = append(c.suites, s.ID)
		}
	}
	all := countModern()
	switch {
	case len(modern) > 0 && len(modern) < all:
		return c, fmt.Errorf("ssl.cipher.suites has only %s of TLS 1.3: its suites are served together or not at all, so name all %d, or none, which leaves TLS 1.3 out", strings.Join(modern, ", "), all)
	case len(modern) == 0:
		c.highest = tls.VersionTLS12
	case len(c.suites) == 0:
		c.lowest = tls.VersionTLS13
	}
	if c.lowest > c.highest {
		return c, fmt.Errorf("ssl.cipher.suites has no suite of the versions in ssl.enabled.protocols=%s", o.protocols)
	}
	return c, nil
}

func suiteNames() (names []string) {
	for _, s := range tls.CipherSuites() {
		names = append(names, s.Name)
	}
	return names
}

// countModern is the number of the suites of TLS 1.3.
func countModern() (n int) {
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS13) {
			n++
		}
	}
	return n
}

// clientAuths are the values of ssl.client.auth.
var clientAuths = map[string]tls.ClientAuthType{
	"none": tls.NoClientCert, "requested": tls.VerifyClientCertIfGiven, "required": tls.RequireAndVerifyClientCert,
}

// serverTLS is what a listener uses in handshakes.
func serverTLS(o *tlsOptions, m *keystore.Material) (*tls.Config, error) {
	c, err := chooseTLS(o)
	if err != nil {
		return nil, err
	}
	ask := clientAuths[o.clientAuth]
	switch {
	case m.Certificate == nil:
		return nil, fmt.Errorf("there is no key: set ssl.keystore.type=PEM, and ssl.keystore.location to a file that has the private key and its certificates")
	case ask != tls.NoClientCert && m.Trusted == nil:
		return nil, fmt.Errorf("ssl.client.auth=%s needs the certificates of those who sign the clients': set ssl.truststore.type=PEM and ssl.truststore.location", o.clientAuth)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{*m.Certificate},
		MinVersion:   c.lowest, MaxVersion: c.highest, CipherSuites: c.suites,
		ClientAuth: ask, ClientCAs: m.Trusted,
		DynamicRecordSizingDisabled: true, // answers are large, and small records cost more
	}, nil
}

// clientTLS is what this node uses when it connects to another one. The name of the other one's certificate is that of the address, which the
// caller sets. Without trusted certificates no handshake fails, and beginTLS checks.
func clientTLS(o *tlsOptions, m *keystore.Material) (*tls.Config, error) {
	c, err := chooseTLS(o)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: c.lowest, MaxVersion: c.highest, CipherSuites: c.suites, RootCAs: m.Trusted, DynamicRecordSizingDisabled: true}
	if m.Certificate != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.Certificate, nil }
	}
	switch {
	case m.Trusted == nil:
		cfg.InsecureSkipVerify = true //nolint:gosec // see above
	case o.identification == "":
		cfg.InsecureSkipVerify = true // VerifyConnection checks all but the name
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s.PeerCertificates, m.Trusted, "") }
	}
	return cfg, nil
}

// verifyChain verifies the certificates of a server, and its name; "": any. Without trusted ones those of the system are trusted.
func verifyChain(chain []*x509.Certificate, trusted *x509.CertPool, name string) error {
	if len(chain) == 0 {
		return fmt.Errorf("the other node has shown no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: trusted, Intermediates: between})
	return err
}
