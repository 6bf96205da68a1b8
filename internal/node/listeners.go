package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// listen binds the addresses to serve on before anything else is done: a taken
// port is found out before the data directory is touched.
func (n *Node) listen(ctx context.Context) error {
	if len(n.addresses.listen) == 0 {
		return n.listenLoopback(ctx)
	}
	for _, e := range n.addresses.listen {
		if err := n.bind(ctx, e); err != nil {
			return listenError(net.JoinHostPort(e.host, strconv.Itoa(e.port)), err)
		}
	}
	return nil
}

// bind listens on an address, and notes the port that it got.
func (n *Node) bind(ctx context.Context, e endpoint) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(e.host, strconv.Itoa(e.port)))
	if err != nil {
		return err
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		e.port = a.Port
	}
	n.listeners = append(n.listeners, listener{wire.Listener{Listener: l, Name: e.name}, e})
	return nil
}

// listener is an open listener, with the endpoint that was asked for; its port is the one
// that it has.
type listener struct {
	wire.Listener
	endpoint endpoint
}

// listenLoopback serves both loopback addresses, since "localhost" means either of
// them to clients; a machine without IPv6 has one.
func (n *Node) listenLoopback(ctx context.Context) error {
	if err := n.bind(ctx, endpoint{name: plaintext, host: "127.0.0.1", port: DefaultPort}); err != nil {
		return listenError(net.JoinHostPort("127.0.0.1", strconv.Itoa(DefaultPort)), err)
	}
	if err := n.bind(ctx, endpoint{name: plaintext, host: "::1", port: DefaultPort}); errors.Is(err, syscall.EADDRINUSE) {
		return listenError(net.JoinHostPort("::1", strconv.Itoa(DefaultPort)), err)
	}
	return nil
}

func listenError(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %s is taken by another program; stop that one, or choose another address with --listen HOST:PORT", ErrConfig, addr)
	}
	return fmt.Errorf("%w: cannot listen on %s: %w; choose another address with --listen HOST:PORT", ErrConfig, addr, err)
}

// registration is what this node registers of its listeners, that for other nodes first:
// what --advertise says of one, else its first address, or this machine's name where that
// stands for all addresses.
func (a *addresses) registration(open []listener) (list []meta.Listener) {
	for _, name := range a.names {
		e, ok := a.advertise[name]
		if !ok {
			at := slices.IndexFunc(open, func(l listener) bool { return l.Name == name })
			e = open[at].endpoint
			if isEverywhere(e.host) {
				e.host = hostname()
			}
		}
		list = append(list, meta.Listener{Name: name, Host: e.host, Port: int32(e.port), Security: meta.Plaintext})
	}
	return list
}

// ownConfigs are the configs that Kafka has for the node's own settings, with the values that
// they have in this run, whatever place they come from.
func (n *Node) ownConfigs() map[string]string {
	id := strconv.Itoa(int(n.id.nodeID))
	var listen, advertise []string
	for _, l := range n.listeners {
		listen = append(listen, l.endpoint.kafka())
	}
	for _, name := range n.addresses.names {
		if e, ok := n.addresses.advertise[name]; ok {
			advertise = append(advertise, e.kafka())
		}
	}
	own := map[string]string{
		"node.id": id, "broker.id": id, "log.dirs": filepath.FromSlash(n.cfg.Data), "listeners": strings.Join(listen, ","),
	}
	for name, value := range map[string]string{
		"advertised.listeners": strings.Join(advertise, ","), "broker.rack": n.cfg.Rack, protocolMap: n.addresses.protocols,
	} {
		if value != "" {
			own[name] = value
		}
	}
	return own
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
