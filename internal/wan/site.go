package wan

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sync"
)

// Site is a place of a network. What is in it reaches itself without faults.
type Site struct {
	network *Network
	number  int
	name    string
}

// Name is the name of the site.
func (s *Site) Name() string { return s.name }

// Addr is the address of the site, which all sites of its network know. Ports of other networks are other ports, also if their sites have the same addresses.
func (s *Site) Addr() netip.Addr { return s.network.means.address(s.number) }

// At is the address of a port of the site, as host:port.
func (s *Site) At(port uint16) string { return netip.AddrPortFrom(s.Addr(), port).String() }

// Listen opens a port of the site; 0: a free one.
func (s *Site) Listen(ctx context.Context, port uint16) (net.Listener, error) {
	return s.network.means.listen(ctx, s.number, port)
}

// Dial connects from this site to the address of a port of a site, as host:port with the host's IP address. The network is "tcp". So the method fits the clients that have a field for it.
func (s *Site) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" {
		return nil, fmt.Errorf("wan: %s dials %s: only tcp is possible", s.name, network)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("wan: %s dials: %w", s.name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.network.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return s.network.means.dial(ctx, s.number, to)
}

// Reach returns the address, as host:port, by which processes in this site reach a port of another one. With namespaces it is that of the port. With proxies a process that
// dials the port's own address goes around the settings: it has to be given this address, also as the one that a server advertises.
func (s *Site) Reach(ctx context.Context, other *Site, port uint16) (string, error) {
	to := netip.AddrPortFrom(other.Addr(), port)
	if s == other {
		return to.String(), nil
	}
	at, err := s.network.means.reach(ctx, s.number, to)
	return at.String(), err
}

// Start starts a command in the site, as cmd.Start does. The process is killed when the network is closed, or when this process ends in any way.
func (s *Site) Start(cmd *exec.Cmd) error { return s.network.means.start(s.number, cmd) }

// Publish returns an address of 127.0.0.1, as host:port, by which programs outside of the network reach a port of the site without faults, until the network is closed.
func (s *Site) Publish(ctx context.Context, port uint16) (string, error) {
	if s.network.isClosed() {
		return "", net.ErrClosed
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	n, lasting := s.network, context.WithoutCancel(ctx)
	n.running.Go(func() {
		<-n.closed
		_ = l.Close() // whoever accepts is told
	})
	n.running.Go(func() {
		for {
			outside, err := l.Accept()
			if err != nil {
				return
			}
			n.running.Go(func() { s.join(lasting, outside, port) })
		}
	})
	return l.Addr().String(), nil
}

// join connects a connection from outside with a port of the site.
func (s *Site) join(ctx context.Context, outside net.Conn, port uint16) {
	inside, err := s.Dial(ctx, "tcp", s.At(port))
	if err != nil {
		_ = outside.Close() // all that can be told to the other end
		return
	}
	end := func() { _, _ = inside.Close(), outside.Close() } // an error means that it has ended
	defer end()
	ended := make(chan struct{})
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{outside, inside}, {inside, outside}} {
		both.Go(func() {
			_, err := io.Copy(way[1], way[0])
			if to, ok := way[1].(*net.TCPConn); ok && err == nil {
				_ = to.CloseWrite() // an error means that it has ended
				return
			}
			end()
		})
	}
	go func() {
		both.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-s.network.closed:
		end()
		<-ended
	}
}
