package wan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"time"
)

const (
	// blockPort is the port by which a network of proxies claims its block of addresses.
	blockPort = 7678
	// connectTime is how long a proxy tries to reach a port for a process that has connected to it.
	connectTime = time.Minute
	// handshakePacket is how many bytes of IP a packet has that opens a connection.
	handshakePacket = 60
)

// proxies are the means of networks without namespaces. Each site has an address of 127.0.0.0/8, and a connection to another site is two, with a link between them.
type proxies struct {
	network *Network
	block   byte         // the third byte of the addresses of all sites
	claim   net.Listener // nobody else has the block while it is open
	thread  *thread      // starts commands

	mu        sync.Mutex
	links     map[*link]bool // guarded by mu; those that have not ended
	listeners []net.Listener // guarded by mu; of this means
	commands  []*exec.Cmd    // guarded by mu
	reached   map[route]netip.AddrPort
}

// route is a way from a site to a port of another one.
type route struct {
	from int
	to   netip.AddrPort
}

func newProxies(ctx context.Context, n *Network) (*proxies, error) {
	x := &proxies{network: n, links: map[*link]bool{}, reached: map[route]netip.AddrPort{}}
	var lc net.ListenConfig
	for x.block = 1; ; x.block++ {
		var err error
		if x.claim, err = lc.Listen(ctx, "tcp4", netip.AddrPortFrom(x.address(maxSites), blockPort).String()); err == nil {
			break
		}
		if x.block == 254 {
			return nil, fmt.Errorf("%w: no block of 127.78.0.0/16 is free: %w", ErrUnavailable, err)
		}
	}
	var err error
	if x.thread, err = startThread(false); err != nil {
		return nil, errors.Join(err, x.claim.Close())
	}
	return x, nil
}

func (x *proxies) address(site int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 78, x.block, byte(site + 1)})
}

// prepare leaves out what has no effect on the bytes of a connection.
func (*proxies) prepare(_, _ int, s Settings) Settings {
	s.Duplicate, s.Reorder = 0, 0
	return s
}

func (x *proxies) listen(ctx context.Context, site int, port uint16) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp4", netip.AddrPortFrom(x.address(site), port).String())
}

func (x *proxies) dial(ctx context.Context, from int, to netip.AddrPort) (net.Conn, error) {
	if to.Addr() == x.address(from) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp4", to.String())
	}
	far, err := x.connect(ctx, route{from, to})
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	near, mine, err := x.makePair(ctx, from)
	if err != nil {
		return nil, errors.Join(err, far.Close())
	}
	x.join(route{from, to}, near, far)
	return mine, nil
}

// makePair makes a connection of a site with itself.
func (x *proxies) makePair(ctx context.Context, site int) (near, mine *net.TCPConn, err error) {
	l, err := x.listen(ctx, site, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var d net.Dialer
	dialled, err := d.DialContext(ctx, "tcp4", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	mine = dialled.(*net.TCPConn) //nolint:errcheck // "tcp4" makes no other ones
	for {
		accepted, err := l.Accept()
		if err != nil {
			return nil, nil, errors.Join(err, mine.Close())
		}
		if accepted.RemoteAddr().String() == mine.LocalAddr().String() {
			return accepted.(*net.TCPConn), mine, nil //nolint:errcheck // as above
		}
		_ = accepted.Close() // of a stranger
	}
}

// connect connects a site with a port of another one: a packet has to get there, and one back.
func (x *proxies) connect(ctx context.Context, r route) (*net.TCPConn, error) {
	site := x.network.siteOf(r.to.Addr())
	if site == nil {
		return nil, fmt.Errorf("no site has the address: %w", errUnreachable)
	}
	if err := x.exchange(ctx, x.network.paths[r.from][site.number]); err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(x.address(r.from), 0))}
	conn, refused := d.DialContext(ctx, "tcp4", r.to.String())
	if err := x.exchange(ctx, x.network.paths[site.number][r.from]); err != nil {
		if conn != nil {
			err = errors.Join(err, conn.Close())
		}
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	return conn.(*net.TCPConn), nil //nolint:errcheck // "tcp4" makes no other ones
}

// exchange sends one packet of a handshake, and waits until it has arrived.
func (x *proxies) exchange(ctx context.Context, p *path) error {
	arrived := make(chan struct{})
	pack := func(late time.Duration) cargo { return &greeting{late, arrived} }
	if err := sendPatiently(p, size{1, handshakePacket}, pack, ctx.Done(), x.network.closed); err != nil {
		if errors.Is(err, errStopped) && ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-x.network.closed:
		return net.ErrClosed
	}
}

// greeting is a packet of a handshake.
type greeting struct {
	late    time.Duration
	arrived chan struct{}
}

func (g *greeting) arrive(int) (delivered int) {
	if g.late == 0 {
		close(g.arrived)
	} else {
		time.AfterFunc(g.late, func() { close(g.arrived) })
	}
	return 1
}

func (x *proxies) reach(ctx context.Context, from int, to netip.AddrPort) (netip.AddrPort, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := route{from, to}
	if at, ok := x.reached[r]; ok {
		return at, nil
	}
	l, err := x.listen(ctx, from, 0)
	if err != nil {
		return netip.AddrPort{}, err
	}
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil || x.network.isClosed() {
		return netip.AddrPort{}, errors.Join(err, l.Close(), net.ErrClosed)
	}
	x.listeners, x.reached[r] = append(x.listeners, l), at
	lasting := context.WithoutCancel(ctx)
	x.network.running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			x.network.running.Go(func() { x.forward(lasting, r, near.(*net.TCPConn)) }) //nolint:errcheck // "tcp4" makes no other ones
		}
	})
	return at, nil
}

// forward carries a connection that a process has made.
func (x *proxies) forward(ctx context.Context, r route, near *net.TCPConn) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	far, err := x.connect(ctx, r)
	if err != nil {
		resetConn(near)
		return
	}
	x.join(r, near, far)
}

// join carries bytes between two connections, that of a site and that of a port of another one.
func (x *proxies) join(r route, near, far *net.TCPConn) {
	to := x.network.siteOf(r.to.Addr()).number
	l := &link{near: near, far: far, ended: make(chan struct{})}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.network.isClosed() {
		l.reset()
		return
	}
	x.links[l] = true
	there := newPump(l, near, far, x.network.paths[r.from][to])
	back := newPump(l, far, near, x.network.paths[to][r.from])
	x.network.running.Go(func() {
		l.carry(there, back)
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.links, l)
	})
}

func (x *proxies) start(_ int, cmd *exec.Cmd) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.network.isClosed() {
		return net.ErrClosed
	}
	if err := x.thread.start(cmd); err != nil {
		return err
	}
	x.commands = append(x.commands, cmd)
	return nil
}

func (*proxies) dropped(int) (int64, error) { return 0, nil }

func (x *proxies) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, cmd := range x.commands {
		_ = cmd.Process.Kill() // an error means that it has ended
	}
	for l := range x.links {
		l.reset()
	}
	errs := []error{x.claim.Close()}
	for _, l := range x.listeners {
		errs = append(errs, l.Close())
	}
	x.thread.end()
	return errors.Join(errs...)
}
