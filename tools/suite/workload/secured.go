package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/leatstream/leat/internal/bench/client"
)

// Secured is how a secured broker can be reached. The program that starts it writes it beside the data directory, and workloads read it there.
type Secured struct {
	Login, TLS, Certificate string // addresses: SASL_PLAINTEXT, SSL, and SSL with a certificate of the client
	User, Password          string
	TokenID, TokenHMAC      string // a delegation token of the user
	JWT                     string // a token of OAUTHBEARER
}

// The files in the folder of a Secured.
const (
	SecuredCA     = "ca.pem"
	SecuredServer = "server.pem" // a key and its certificate
	SecuredClient = "client.pem"
	SecuredKeys   = "jwks.json"
	securedFile   = "secured.json"
)

// SecuredFolder is the folder with the files of a secured broker that has a data directory.
func SecuredFolder(data string) string { return filepath.Clean(data) + "-secured" }

// Write writes it for the broker of a data directory.
func (s *Secured) Write(data string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(SecuredFolder(data), securedFile), text, 0o600)
}

// ReadSecured reads how the broker of a data directory can be reached.
func ReadSecured(data string) (*Secured, error) {
	text, err := os.ReadFile(filepath.Join(SecuredFolder(data), securedFile))
	if err != nil {
		return nil, err
	}
	s := &Secured{}
	return s, json.Unmarshal(text, s)
}

// Entry is the listener by which a workload comes.
type Entry int

// The listeners of a secured broker.
const (
	EntryOpen        Entry = iota // without a login and TLS
	EntryLogin                    // with a login by Options.Mechanism
	EntryTLS                      // over TLS
	EntryCertificate              // over TLS, with a certificate of the client
)

// caller makes connections as Options say. Several goroutines may use it.
type caller struct {
	addr  string
	tls   *tls.Config // nil: without TLS
	login *loginer    // nil: without a login
}

// newCaller reads how the broker can be reached. No session of TLS is remembered unless the options say so.
func newCaller(o *Options) (*caller, error) {
	if o.Entry == EntryOpen {
		return &caller{addr: o.Brokers[0]}, nil
	}
	s, err := ReadSecured(o.Data)
	if err != nil {
		return nil, err
	}
	c := &caller{}
	if o.Entry == EntryLogin {
		c.addr = s.Login
		c.login, err = newLoginer(o.Mechanism, s)
		return c, err
	}
	folder := SecuredFolder(o.Data)
	authority, err := os.ReadFile(filepath.Join(folder, SecuredCA))
	if err != nil {
		return nil, err
	}
	c.addr, c.tls = s.TLS, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	if !c.tls.RootCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s has no certificate", SecuredCA)
	}
	if o.Resumes {
		c.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	if o.Entry == EntryCertificate {
		c.addr = s.Certificate
		path := filepath.Join(folder, SecuredClient)
		own, err := tls.LoadX509KeyPair(path, path)
		if err != nil {
			return nil, err
		}
		c.tls.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

// connect makes a connection, as an ordinary client does: it asks for the versions, and logs in. resumed tells that a session of TLS was resumed.
func (c *caller) connect(ctx context.Context) (conn *client.Conn, resumed bool, err error) {
	raw, err := (&net.Dialer{Timeout: client.DialWithin}).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, false, err
	}
	tcp, _ := raw.(*net.TCPConn)
	// Its end leaves no port that waits: thousands of them a second would leave none for others.
	if err := tcp.SetLinger(0); err != nil {
		return nil, false, errors.Join(err, raw.Close())
	}
	over := raw
	if c.tls != nil {
		secured := tls.Client(raw, c.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, false, errors.Join(err, raw.Close())
		}
		resumed, over = secured.ConnectionState().DidResume, &abruptConn{secured, tcp}
	}
	conn, err = client.Over(ctx, over)
	if err != nil {
		return nil, false, err
	}
	if c.login != nil {
		if err := c.login.logIn(ctx, conn); err != nil {
			conn.Close()
			return nil, false, err
		}
	}
	return conn, resumed, nil
}

// abruptConn is a connection over TLS that ends as its socket does, without the message by which TLS ends: the server could answer it to
// a port that is closed.
type abruptConn struct {
	*tls.Conn

	tcp *net.TCPConn
}

// Close ends the connection.
func (c *abruptConn) Close() error { return c.tcp.Close() }
