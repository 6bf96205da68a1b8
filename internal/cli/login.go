package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/config"
)

// identity is how the client verbs log in at brokers, and whether they encrypt what they send. It has a secret, and prints none.
type identity struct { //nolint:recvcheck // Format must hold for values, too
	user, passwordFile string
	mechanism          string // "": the default one
	tls                bool
	ca                 string // a file; "": what the system trusts
	clientConfig       string // a file; "": none
	allowsPlainText    bool   // a password or a token may be sent without TLS
	wrongTLS           string // the value of LEAT_TLS, if it is neither true nor false
	loggedInBy         string // the mechanism of the client that was made last; "": it does not log in

	given                  map[string]bool // the flags of a login that the verb was given
	userFlag, passwordFlag string          // those that say who logs in, as the verb calls them
}

// Format prints the user alone, whatever the verb.
func (i identity) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, i.user) }

// defaultMechanism is the mechanism of a login that names none. It never sends the password.
const defaultMechanism = config.MechanismScramSHA512

// access is what an identity makes a client do.
type access struct {
	tls       *tls.Config // nil: it does not encrypt
	trusted   string      // the certificates that tls trusts, as PEM; "": those that the system trusts
	mechanism sasl.Mechanism
	user      string
	name      string // of the mechanism; "": the client does not log in
	userFlag  string // the verb's flag that names the user
	// isReadable says that the mechanism sends the password, or the token, without TLS, and nobody has allowed it.
	isReadable bool
	file       string // the client.properties that says all this; "": flags and variables do
}

// readAccess reads the files that an identity names.
func (i *identity) readAccess() (c access, err error) {
	switch {
	case i.wrongTLS != "" && !i.given["tls"]:
		return c, usagef("LEAT_TLS=%s: write true or false", i.wrongTLS)
	case i.clientConfig != "":
		c, err = i.readClientConfig()
		c.file = i.clientConfig
	default:
		c, err = i.accessOfFlags()
	}
	c.userFlag = i.userFlag
	c.isReadable = c.tls == nil && !i.allowsPlainText && (c.name == config.MechanismPlain || c.name == config.MechanismOAuth)
	return c, err
}

// accessOfFlags is what flags and variables say, without a client.properties.
func (i *identity) accessOfFlags() (c access, err error) {
	if i.tls || i.ca != "" && (!i.given["tls"] || i.given["ca"]) {
		if c.tls, c.trusted, err = trust(i.ca, "--ca"); err != nil {
			return c, err
		}
	}
	if i.user == "" && i.mechanism != config.MechanismOAuth {
		if i.passwordFile != "" || i.mechanism != "" {
			return c, usagef("name the user who logs in with %s", i.userFlag)
		}
		return c, nil
	}
	password, err := i.readPassword()
	if err != nil {
		return c, err
	}
	name := i.mechanism
	if name == "" {
		name = defaultMechanism
	}
	return c, c.setMechanism(name, i.user, password)
}

// readPassword reads the password of who logs in, or its token.
func (i *identity) readPassword() (string, error) {
	password := os.Getenv("LEAT_PASSWORD")
	if i.passwordFile != "" {
		text, err := readFile(i.passwordFile)
		if err != nil {
			return "", err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		password = strings.TrimSuffix(line, "\r")
	}
	if password == "" {
		return "", usagef("user %s needs a password: give it with %s FILE or LEAT_PASSWORD", i.user, i.passwordFlag)
	}
	return password, nil
}

// setMechanism has the client log in.
func (c *access) setMechanism(name, user, password string) error {
	switch c.user, c.name = user, name; name {
	case config.MechanismPlain:
		c.mechanism = plain.Auth{User: user, Pass: password}.AsMechanism()
	case config.MechanismScramSHA256:
		c.mechanism = boundedScram{scram.Auth{User: user, Pass: password}.AsSha256Mechanism()}
	case config.MechanismScramSHA512:
		c.mechanism = boundedScram{scram.Auth{User: user, Pass: password}.AsSha512Mechanism()}
	case config.MechanismOAuth:
		c.mechanism = oauth.Auth{Token: password}.AsMechanism()
	default:
		return usagef("%s is no mechanism that leat logs in by: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN and OAUTHBEARER are", name)
	}
	return nil
}

// setToken has the client log in with a delegation token.
func (c *access) setToken(name, id, hmac string) error {
	as := scram.Auth{User: id, Pass: hmac, IsToken: true}
	switch c.user, c.name = id, name; name {
	case config.MechanismScramSHA256:
		c.mechanism = boundedScram{as.AsSha256Mechanism()}
	case config.MechanismScramSHA512:
		c.mechanism = boundedScram{as.AsSha512Mechanism()}
	default:
		return usagef("sasl.jaas.config: a delegation token logs in by SCRAM-SHA-256 or SCRAM-SHA-512, not by %s", name)
	}
	return nil
}

// options are those of the client library.
func (c *access) options() (opts []kgo.Opt) {
	if c.tls != nil {
		opts = append(opts, kgo.DialTLSConfig(c.tls))
	}
	switch {
	case c.isReadable:
		opts = append(opts, kgo.SASL(localMechanism{c.mechanism, c}))
	case c.mechanism != nil:
		opts = append(opts, kgo.SASL(c.mechanism))
	}
	return opts
}

// trust makes a configuration of TLS that trusts the certificates of a PEM file, which are returned, too, or those that the system trusts.
func trust(path, flag string) (*tls.Config, string, error) {
	if path == "" {
		return &tls.Config{MinVersion: tls.VersionTLS12}, "", nil
	}
	text, err := readFile(path)
	if err != nil {
		return nil, "", err
	}
	return trustText(text, flag+" "+path)
}

// trustText makes a configuration of TLS that trusts the certificates of a text, and returns them without what else is in it.
func trustText(text []byte, of string) (*tls.Config, string, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !cfg.RootCAs.AppendCertsFromPEM(text) {
		return nil, "", usagef("%s has no certificates in PEM form", of)
	}
	var trusted strings.Builder
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			trusted.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	return cfg, trusted.String(), nil
}

// explainLogin makes a sentence of an error of a login, or of one that a client meets which does not log in; nil: the error is
// about something else.
func (c *access) explainLogin(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	readable, isReadable := errors.AsType[*readableError](err)
	switch {
	case isReadable:
		return usagef("%v", readable)
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Errorf("the broker refuses the login of user %s by %s: a wrong name or password", escapeLine(c.user), c.name)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return fmt.Errorf("the broker does not let clients log in by %s: choose another mechanism with %s", c.name, c.settingOf("--mechanism", "sasl.mechanism"))
	case errors.Is(err, kerr.IllegalSaslState):
		said := "the broker asks for no login on this address"
		if c.tls == nil {
			said += fmt.Sprintf(" without TLS: if it takes clients with TLS there, too, as a cluster does that is being secured, name its certificates with %s",
				c.settingOf("--ca FILE (or LEAT_CA), or use --tls", "security.protocol=SASL_SSL and ssl.truststore.location"))
			return fmt.Errorf("%s; else leave out %s, or choose the address of a listener that asks for a login", said, c.settingOf(c.userFlag, "the login"))
		}
		return fmt.Errorf("%s: leave out %s, or choose the address of a listener that asks for one", said, c.settingOf(c.userFlag, "the login"))
	case errors.As(err, &unknown):
		return fmt.Errorf("the broker's certificate is not signed by anybody whom this program trusts: name the file of the certificates to trust with %s",
			c.settingOf("--ca FILE (or LEAT_CA)", "ssl.truststore.location and ssl.truststore.type=PEM"))
	case errors.As(err, &name):
		return fmt.Errorf("the broker's certificate is one of another name: %w", name)
	case isCertificate:
		return fmt.Errorf("the broker's certificate cannot be trusted: %w", err)
	case errors.As(err, &record):
		return fmt.Errorf("the broker does not speak TLS on this address: leave out %s, or choose the address of a listener that does", c.settingOf("--tls and --ca", "TLS"))
	}
	return nil
}

// settingOf says where a user changes something: by a flag, or by a line of the client.properties.
func (c *access) settingOf(flag, line string) string {
	if c.file == "" {
		return flag
	}
	return line + " in " + c.file
}

// hint says what may be wrong if a broker closes connections; "": nothing is known.
func (c *access) hint() string {
	switch {
	case c.mechanism == nil && c.tls == nil:
		return "; a listener that asks for a login or for TLS closes connections like that, for which there are " + c.settingOf(c.userFlag+", --tls and --client-config", "security.protocol and sasl.jaas.config")
	case c.mechanism == nil:
		return "; a listener that asks for a login closes connections like that, for which there is " + c.settingOf(c.userFlag, "security.protocol")
	case c.tls == nil:
		return "; a listener that asks for TLS closes connections like that, for which there is " + c.settingOf("--tls", "security.protocol")
	}
	return ""
}

// dial opens a connection for those verbs that do not use the client library.
func (c *access) dial(ctx context.Context, addr string) (net.Conn, error) {
	if c.tls == nil {
		return (&net.Dialer{Timeout: maxDial}).DialContext(ctx, "tcp", addr)
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: maxDial}, Config: c.tls}
	return d.DialContext(ctx, "tcp", addr)
}
