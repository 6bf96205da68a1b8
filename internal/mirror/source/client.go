package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"
)

// ErrOld is returned by New for a cluster that cannot be mirrored, since it is older than Apache Kafka 2.1.
var ErrOld = errors.New("the source is too old to be mirrored: it has to be Apache Kafka 2.1 or a later one")

// oldestFetch is the Fetch of Apache Kafka 2.1: the first one whose request has the epoch of the leader, and whose batches may be compressed by zstd.
const oldestFetch = 10

const (
	fetchKey     int16 = 1
	dialTime           = 10 * time.Second
	answerTime         = 30 * time.Second
	maxAnswer          = 1 << 30 // bytes of an answer that is not one to a fetch
	idleTime           = 5 * time.Minute
	metadataTime       = time.Second // how old the addresses of brokers may be
)

// Config says how a source is reached.
type Config struct {
	Brokers  []string    // host:port of some brokers; at least one
	ClientID string      // of all requests
	Rack     string      // of who reads, so that a replica near it is told (KIP-392); "": the leader serves
	TLS      *tls.Config // nil: connections are not encrypted
	SASL     sasl.Mechanism
	// Reach has host:port by which a broker is dialled in place of the one that it advertises; others are dialled as they are.
	Reach map[string]string
	// Dial dials; nil: a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Dialled is told of each connection that was made, or why it was not; nil: nobody is.
	Dialled func(err error)
	// MaxVersions caps the versions of requests; nil: those that this package knows.
	MaxVersions *kversion.Versions
}

// Client asks the brokers of a source. Any goroutine may call its methods.
type Client struct {
	cl   *kgo.Client
	rack string
}

// New makes a client, and finds out whether the cluster can be mirrored. Close it.
func New(ctx context.Context, c *Config) (*Client, error) {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID(c.ClientID), kgo.WithLogger(nil), kgo.DisableClientMetrics(),
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialAt(ctx, c, dial, network, address)
			if c.Dialled != nil {
				c.Dialled(err)
			}
			return conn, err
		}),
		kgo.RequestTimeoutOverhead(answerTime), kgo.ConnIdleTimeout(idleTime), kgo.BrokerMaxReadBytes(maxAnswer),
		kgo.MetadataMinAge(metadataTime), kgo.RequestRetries(2), kgo.RetryTimeout(answerTime),
	}
	if c.SASL != nil {
		opts = append(opts, kgo.SASL(c.SASL))
	}
	if c.MaxVersions != nil {
		opts = append(opts, kgo.MaxVersions(c.MaxVersions))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	s := &Client{cl, c.Rack}
	if err := s.checkAge(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return s, nil
}

// dialAt dials a broker by the address at which it can be reached. A certificate must be of the host that is dialled, or of TLS.ServerName.
func dialAt(ctx context.Context, c *Config, dial func(context.Context, string, string) (net.Conn, error), network, address string) (net.Conn, error) {
	if to, ok := c.Reach[address]; ok {
		address = to
	}
	conn, err := dial(ctx, network, address)
	if err != nil || c.TLS == nil {
		return conn, err
	}
	t := c.TLS.Clone()
	if t.ServerName == "" {
		if t.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	secured := tls.Client(conn, t)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", address, err), conn.Close())
	}
	return secured, nil
}

// Close ends all connections.
func (s *Client) Close() { s.cl.Close() }

// checkAge refuses a cluster that is too old. All brokers that a link reads from must be of such an age; a cluster that is being upgraded is asked again where it matters.
func (s *Client) checkAge(ctx context.Context) error {
	resp, err := ask[*kmsg.ApiVersionsResponse](ctx, s, anyBroker, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return fmt.Errorf("asking the source for its versions: %w", err)
	}
	return checkVersions(resp)
}

func checkVersions(r *kmsg.ApiVersionsResponse) error {
	if i := slices.IndexFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == fetchKey }); i < 0 || r.ApiKeys[i].MaxVersion < oldestFetch {
		return ErrOld
	}
	return nil
}

// anyBroker is in place of a broker's id.
const anyBroker int32 = -1

// ask asks a broker, which is tried again while its connection fails.
func ask[R kmsg.Response](ctx context.Context, s *Client, broker int32, q kmsg.Request) (r R, err error) {
	var resp kmsg.Response
	if broker == anyBroker {
		resp, err = s.cl.Request(ctx, q)
	} else {
		resp, err = s.cl.Broker(int(broker)).RetriableRequest(ctx, q)
	}
	if err != nil {
		return r, err
	}
	r, ok := resp.(R)
	if !ok {
		return r, fmt.Errorf("source: the answer to %s is a %T", kmsg.NameForKey(q.Key()), resp)
	}
	return r, nil
}

// errorOf is the error of a code of Kafka; nil: there is none.
func errorOf(code int16) error { return kerr.ErrorForCode(code) }
