package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// entrances are where clients and other nodes come in.
type entrances struct {
	listeners  []listener
	encryption *encryption
}

// openListeners listens on all addresses. The start calls it before it touches the data
// directory, so that a taken port does no harm.
func (n *Node) openListeners(ctx context.Context) error {
	if len(n.addresses.listen) == 0 {
		return n.listenLoopback(ctx)
	}
	for _, e := range n.addresses.listen {
		if err := n.openListener(ctx, e); err != nil {
			return listenError(net.JoinHostPort(e.host, strconv.Itoa(e.port)), err, chooseListen)
		}
	}
	return nil
}

// openListener listens on an address, and notes the port if the system has chosen it.
func (n *Node) openListener(ctx context.Context, e endpoint) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(e.host, strconv.Itoa(e.port)))
	if err != nil {
		return err
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		e.port = a.Port
	}
	n.listeners = append(n.listeners, protectListener(n, l, e))
	return nil
}

// protectListener has an open listener protect its connections as the addresses say. Its keys are those of the moment when it serves.
func protectListener(n *Node, l net.Listener, e endpoint) listener {
	protocol := n.addresses.protected[e.name]
	var configOf func() *tls.Config
	if protocol == config.Plaintext && !n.cfg.Secure {
		return listener{wire.Listener{
			Listener: l, Name: e.name, Protocol: protocol, Sharing: n.securing.sharing,
			TLS: func() *tls.Config { return n.encryption.sharedTLS(e.name) },
		}, e}
	}
	if protocol.UsesTLS() {
		configOf = func() *tls.Config { return n.encryption.find(e.name).now.Load().server }
	}
	return listener{wire.Listener{Listener: l, Name: e.name, Protocol: protocol, TLS: configOf}, e}
}

// listener is an open listener, with the endpoint of the setting. The endpoint's port is the
// one that the listener has.
type listener struct {
	wire.Listener
	endpoint endpoint
}

// listenLoopback listens on both loopback addresses, since clients may resolve "localhost" to
// either. A machine without IPv6 has only one.
func (n *Node) listenLoopback(ctx context.Context) error {
	e := endpoint{unnamed: true, name: n.addresses.names[0], host: "127.0.0.1", port: DefaultPort}
	if err := n.openListener(ctx, e); err != nil {
		return listenError(net.JoinHostPort("127.0.0.1", strconv.Itoa(DefaultPort)), err, chooseListen)
	}
	e.host = "::1"
	if err := n.openListener(ctx, e); errors.Is(err, syscall.EADDRINUSE) {
		return listenError(net.JoinHostPort("::1", strconv.Itoa(DefaultPort)), err, chooseListen)
	}
	return nil
}

// chooseListen says what can be done about an address for clients.
const chooseListen = "choose another address with --listen HOST:PORT"

// listenError says why nobody can listen on an address here, and what can be done about it.
func listenError(addr string, err error, remedy string) error {
	host, _, splitErr := net.SplitHostPort(addr)
	errno, isErrno := errors.AsType[syscall.Errno](err)
	_, isName := errors.AsType[*net.DNSError](err)
	switch {
	case errno == syscall.EADDRINUSE:
		return fmt.Errorf("%w: %s is taken by another program; stop that one, or %s", ErrAddress, addr, remedy)
	case splitErr == nil && errno == syscall.EADDRNOTAVAIL:
		return fmt.Errorf("%w on %s: this machine does not have the address %s; %s", ErrAddress, addr, host, remedy)
	case splitErr == nil && isName:
		return fmt.Errorf("%w on %s: no address of %s is known; %s", ErrAddress, addr, host, remedy)
	case isErrno:
		return fmt.Errorf("%w on %s: %w; %s", ErrAddress, addr, errno, remedy)
	default:
		return fmt.Errorf("%w on %s: %w; %s", ErrAddress, addr, err, remedy)
	}
}

// listenersToRegister are the listeners with which the node is registered, that for other
// nodes first. The address of each is the advertised one; if there is none, the first on which
// it listens, or this machine's name if that stands for all addresses.
func (a *addresses) listenersToRegister(open []listener) (list []meta.Listener) {
	for _, name := range a.names {
		e, ok := a.advertise[name]
		if !ok {
			at := slices.IndexFunc(open, func(l listener) bool { return l.Name == name })
			e = open[at].endpoint
			if isEverywhere(e.host) {
				e.host = machineName()
			}
		}
		list = append(list, meta.Listener{Name: name, Host: e.host, Port: int32(e.port), Security: meta.SecurityProtocol(a.protected[name])})
	}
	return list
}

// registeredListeners are the listeners with which the node is registered. Those that take TLS since the node was secured have a protocol with it.
func registeredListeners(n *Node) []meta.Listener {
	list := n.addresses.listenersToRegister(n.listeners)
	if n.securing.kept.Load() == nil || !n.securing.hadCertificate {
		return list
	}
	list = slices.Clone(list)
	for i := range list {
		if list[i].Security == meta.Plaintext {
			list[i].Security = meta.SASLSSL
		}
	}
	return list
}

// ownConfigs are Kafka's configs for the node's own settings, with the values that they have
// in this run, whatever their source is.
func (n *Node) ownConfigs() map[string]string {
	id := strconv.Itoa(int(n.id.nodeID))
	var listen, advertise []string
	for _, l := range n.listeners {
		listen = append(listen, l.endpoint.kafkaForm())
	}
	for _, name := range n.addresses.names {
		if e, ok := n.addresses.advertise[name]; ok {
			advertise = append(advertise, e.kafkaForm())
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

// nameTime is how long the system may take to look up this machine's name.
const nameTime = 200 * time.Millisecond

// machineName is what other machines may know this one by: its name, unless that stands for the machine
// itself only, as on many systems, or is not known at all. Then it is the address with which the machine
// goes out.
func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	ctx, cancel := context.WithTimeout(context.Background(), nameTime)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, name)
	isOwn := func(text string) bool {
		ip := net.ParseIP(text)
		return ip == nil || ip.IsLoopback()
	}
	if err == nil && !slices.ContainsFunc(addrs, isOwn) {
		return name
	}
	for _, documented := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // nothing is sent: the system only chooses a way
		c, err := net.Dial("udp", documented) //nolint:noctx // it never waits
		if err != nil {
			continue
		}
		host, _, err := net.SplitHostPort(c.LocalAddr().String())
		_ = c.Close() // nothing was sent
		if err == nil {
			return host
		}
	}
	return name
}
