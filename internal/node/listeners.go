package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// listen binds the addresses to serve on before anything else is done: a taken
// port is found out before the data directory is touched.
func (n *Node) listen(ctx context.Context) error {
	if len(n.cfg.Listen) == 0 {
		return n.listenLoopback(ctx)
	}
	var lc net.ListenConfig
	for _, addr := range n.cfg.Listen {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return listenError(addr, err)
		}
		n.listeners = append(n.listeners, l)
	}
	return nil
}

// listenLoopback serves both loopback addresses, since "localhost" means either of
// them to clients; a machine without IPv6 has one.
func (n *Node) listenLoopback(ctx context.Context) error {
	var lc net.ListenConfig
	four := net.JoinHostPort("127.0.0.1", strconv.Itoa(DefaultPort))
	l, err := lc.Listen(ctx, "tcp", four)
	if err != nil {
		return listenError(four, err)
	}
	n.listeners = append(n.listeners, l)
	six := net.JoinHostPort("::1", strconv.Itoa(DefaultPort))
	l, err = lc.Listen(ctx, "tcp", six)
	switch {
	case err == nil:
		n.listeners = append(n.listeners, l)
	case errors.Is(err, syscall.EADDRINUSE):
		return listenError(six, err)
	}
	return nil
}

func listenError(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %s is taken by another program; stop that one, or choose another address with --listen HOST:PORT", ErrConfig, addr)
	}
	return fmt.Errorf("%w: cannot listen on %s: %w; choose another address with --listen HOST:PORT", ErrConfig, addr, err)
}

// advertised is the address that other nodes are told, and clients where ours is
// not the one on which they came: what --advertise says, else the first listener's
// own address, else this machine's name.
func (n *Node) advertised() (host string, port int32) {
	addr := n.cfg.Advertise
	if addr == "" && len(n.listeners) > 0 {
		addr = n.listeners[0].Addr().String()
	}
	host, text, _ := net.SplitHostPort(addr)
	p, _ := strconv.ParseUint(text, 10, 16) // both were checked when they were read
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = hostname()
	}
	return host, int32(p)
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
