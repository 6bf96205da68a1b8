package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	saslgo "github.com/segmentio/kafka-go/sasl"
	plaingo "github.com/segmentio/kafka-go/sasl/plain"
	scramgo "github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	xdg "github.com/xdg-go/scram"
)

// The mechanisms of SASL that a client can log in by.
const (
	byPlain    = "PLAIN"
	bySHA256   = "SCRAM-SHA-256"
	bySHA512   = "SCRAM-SHA-512"
	byToken    = "OAUTHBEARER"
	unknownWay = "no driver has the mechanism %q"
)

// encryption is how a client in Go makes TLS connections, nil without a login.
func (q request) encryption() (*tls.Config, error) {
	if q.Login == nil {
		return nil, nil //nolint:nilnil // a client takes nil as no TLS
	}
	pem, err := os.ReadFile(q.Login.CA)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	c.RootCAs.AppendCertsFromPEM(pem)
	if q.Login.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(q.Login.Certificate, q.Login.Certificate)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// token reads the token of a login by OAUTHBEARER.
func (l *login) token() (string, error) {
	b, err := os.ReadFile(l.Token)
	return strings.TrimSpace(string(b)), err
}

// franzClient returns a client of franz-go that reaches the broker of a request, as its login says.
func franzClient(q request, opts ...kgo.Opt) (*kgo.Client, error) {
	reach, err := franzReach(q)
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(reach, opts...)...)
}

// franzReach are the options by which franz-go reaches the broker of a request.
func franzReach(q request) ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(q.Addr)}
	conf, err := q.encryption()
	if conf == nil || err != nil {
		return opts, err
	}
	opts = append(opts, kgo.DialTLSConfig(conf))
	l := q.Login
	var m sasl.Mechanism
	switch l.Mechanism {
	case "":
		return opts, nil
	case byPlain:
		m = plain.Auth{User: l.User, Pass: l.Password}.AsMechanism()
	case bySHA256:
		m = scram.Auth{User: l.User, Pass: l.Password}.AsSha256Mechanism()
	case bySHA512:
		m = scram.Auth{User: l.User, Pass: l.Password}.AsSha512Mechanism()
	case byToken:
		m = oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := l.token()
			return oauth.Auth{Token: token}, err
		})
	default:
		return nil, fmt.Errorf(unknownWay, l.Mechanism)
	}
	return append(opts, kgo.SASL(m)), nil
}

// saramaReach sets how Sarama reaches the broker of a request.
func saramaReach(c *sarama.Config, q request) error {
	conf, err := q.encryption()
	if conf == nil || err != nil {
		return err
	}
	c.Net.TLS.Enable, c.Net.TLS.Config = true, conf
	l := q.Login
	if l.Mechanism == "" {
		return nil
	}
	s := &c.Net.SASL
	s.Enable, s.Mechanism, s.User, s.Password = true, sarama.SASLMechanism(l.Mechanism), l.User, l.Password
	switch l.Mechanism {
	case byPlain:
	case bySHA256:
		s.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &saramaScram{hash: xdg.SHA256} }
	case bySHA512:
		s.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &saramaScram{hash: xdg.SHA512} }
	case byToken:
		s.TokenProvider = saramaToken{l}
	default:
		return fmt.Errorf(unknownWay, l.Mechanism)
	}
	return nil
}

// saramaScram is the SCRAM that Sarama leaves to its users, by the library that its examples use.
type saramaScram struct {
	hash xdg.HashGeneratorFcn
	talk *xdg.ClientConversation
}

// Begin starts a login.
func (s *saramaScram) Begin(user, password, as string) error {
	cl, err := s.hash.NewClient(user, password, as)
	if err == nil {
		s.talk = cl.NewConversation()
	}
	return err
}

// Step answers the server.
func (s *saramaScram) Step(challenge string) (string, error) { return s.talk.Step(challenge) }

// Done tells whether the login has ended.
func (s *saramaScram) Done() bool { return s.talk.Done() }

// saramaToken gives Sarama the token of a login.
type saramaToken struct{ l *login }

// Token returns it.
func (s saramaToken) Token() (*sarama.AccessToken, error) {
	token, err := s.l.token()
	return &sarama.AccessToken{Token: token}, err
}

// kafkaGoReach is how kafka-go reaches the broker of a request: the same for its clients and writers, and for its readers.
func kafkaGoReach(q request) (*kafka.Transport, *kafka.Dialer, error) {
	conf, err := q.encryption()
	transport, dialer := &kafka.Transport{TLS: conf}, &kafka.Dialer{TLS: conf, Timeout: 10 * time.Second, DualStack: true}
	if conf == nil || err != nil {
		return transport, dialer, err
	}
	l := q.Login
	var m saslgo.Mechanism
	switch l.Mechanism {
	case "":
		return transport, dialer, nil
	case byPlain:
		m = plaingo.Mechanism{Username: l.User, Password: l.Password}
	case bySHA256:
		m, err = scramgo.Mechanism(scramgo.SHA256, l.User, l.Password)
	case bySHA512:
		m, err = scramgo.Mechanism(scramgo.SHA512, l.User, l.Password)
	default:
		err = fmt.Errorf(unknownWay, l.Mechanism)
	}
	transport.SASL, dialer.SASLMechanism = m, m
	return transport, dialer, err
}

// kcatReach are the arguments by which kcat reaches the broker of a request.
func kcatReach(q request) []string {
	args := []string{"-b", q.Addr}
	l := q.Login
	if l == nil {
		return args
	}
	set := func(name, value string) { args = append(args, "-X", name+"="+value) }
	set("ssl.ca.location", l.CA)
	set("broker.address.family", "v4")
	if l.Certificate != "" {
		set("ssl.certificate.location", l.Certificate)
		set("ssl.key.location", l.Certificate)
	}
	if l.Mechanism == "" {
		set("security.protocol", "ssl")
		return args
	}
	set("security.protocol", "sasl_ssl")
	set("sasl.mechanism", l.Mechanism)
	set("sasl.username", l.User)
	set("sasl.password", l.Password)
	return args
}
