package capped

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"
)

// dialTime is how long a broker is waited for.
const dialTime = 10 * time.Second

// Config says which cluster is behind a proxy, and what it looks like.
type Config struct {
	// Brokers has host:port of some brokers; at least one.
	Brokers []string
	// Versions caps the versions of APIs.
	Versions Versions
	// Listen opens a port for a broker, which clients have to reach by the address of the listener; nil: one of 127.0.0.1.
	Listen func(ctx context.Context) (net.Listener, error)
	// Dial dials a broker; nil: a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Request says what clients have sent.
type Request struct{ Key, Version int16 }

// Proxy is before the brokers of a cluster. Any goroutine may call its methods.
type Proxy struct {
	config  Config
	cancel  context.CancelFunc // ends all connections
	running sync.WaitGroup

	mu      sync.Mutex
	fronts  map[string]*front // guarded by mu; by the addresses of brokers
	closed  bool              // guarded by mu
	seen    map[Request]int   // guarded by mu
	refused int               // guarded by mu
}

// front is the port that is in place of a broker.
type front struct {
	listener net.Listener
	address  address
}

// Start starts a proxy. It lasts until Close.
func Start(ctx context.Context, c Config) (*Proxy, error) {
	if len(c.Brokers) == 0 {
		return nil, errors.New("capped: no brokers")
	}
	if c.Listen == nil {
		c.Listen = func(ctx context.Context) (net.Listener, error) {
			var lc net.ListenConfig
			return lc.Listen(ctx, "tcp", "127.0.0.1:0")
		}
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTime}).DialContext
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &Proxy{config: c, cancel: cancel, fronts: map[string]*front{}, seen: map[Request]int{}}
	for _, broker := range c.Brokers {
		if _, err := p.reach(ctx, broker); err != nil {
			return nil, errors.Join(fmt.Errorf("capped: %w", err), p.Close())
		}
	}
	return p, nil
}

// Addresses has host:port by which clients reach the brokers of the Config.
func (p *Proxy) Addresses() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, broker := range p.config.Brokers {
		a := p.fronts[broker].address
		all = append(all, net.JoinHostPort(a.host, strconv.Itoa(int(a.port))))
	}
	return all
}

// Seen tells how many requests of each kind the brokers got.
func (p *Proxy) Seen() map[Request]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.seen)
}

// Refused tells how many requests were of a version, or an API, that the cluster seems not to have. ApiVersions does not count.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	var errs []error
	for _, f := range p.fronts {
		if err := f.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
	return errors.Join(errs...)
}

// reach returns the address that is in place of a broker's.
func (p *Proxy) reach(ctx context.Context, broker string) (address, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.fronts[broker]; ok {
		return f.address, nil
	}
	if p.closed {
		return address{}, net.ErrClosed
	}
	l, err := p.config.Listen(ctx)
	if err != nil {
		return address{}, err
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	number, bad := strconv.ParseInt(port, 10, 32)
	if err := errors.Join(err, bad); err != nil {
		return address{}, errors.Join(err, l.Close())
	}
	f := &front{l, address{host, int32(number)}}
	p.fronts[broker] = f
	p.running.Go(func() { p.serve(ctx, l, broker) })
	return f.address, nil
}

// serve accepts the clients of a broker, until the listener is closed.
func (p *Proxy) serve(ctx context.Context, l net.Listener, broker string) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.connect(ctx, client, broker) })
	}
}

// connect carries a connection, to its end.
func (p *Proxy) connect(ctx context.Context, client net.Conn, broker string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	upstream, err := p.config.Dial(ctx, "tcp", broker)
	if err != nil {
		_ = client.Close() // all that can be told to the client
		return
	}
	c := &connection{proxy: p, client: client, broker: upstream}
	end := context.AfterFunc(ctx, c.close)
	defer func() {
		if end() {
			c.close()
		}
	}()
	var both sync.WaitGroup
	both.Go(func() {
		defer cancel()
		c.carryRequests()
	})
	both.Go(func() {
		defer cancel()
		c.carryAnswers(func(a address) (address, error) {
			return p.reach(context.WithoutCancel(ctx), net.JoinHostPort(a.host, strconv.Itoa(int(a.port))))
		})
	})
	both.Wait()
}

// note counts a request, and tells whether the cluster seems to have what it asks for.
func (p *Proxy) note(r Request) (isKnown bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	isKnown = p.config.Versions.highest(r.Key, r.Version) == r.Version
	switch {
	case isKnown:
		p.seen[r]++
	case r.Key != apiVersions:
		p.refused++
	}
	return isKnown
}
