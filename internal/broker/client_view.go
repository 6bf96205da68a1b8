package broker

import (
	"cmp"
	"maps"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// clientView is the brokers of an image as the clients of a listener see them. They are sent to brokers
// only that serve, and that have a listener of the same name, as in Kafka. This node has it in any case,
// also one that it has not registered.
type clientView struct {
	all   map[int32]*meta.Broker
	shown map[int32]*meta.Broker // the brokers that serve and have the listener
}

// viewOf is how the clients of a listener see an image.
func (b *Broker) viewOf(m *meta.Image, listener string) clientView {
	isShown := func(n *meta.Broker) bool { return n.State != meta.BrokerFenced && b.canReach(n, listener) }
	v := clientView{all: m.Brokers, shown: m.Brokers}
	for _, n := range m.Brokers {
		if !isShown(n) {
			v.shown = maps.Clone(m.Brokers)
			maps.DeleteFunc(v.shown, func(_ int32, n *meta.Broker) bool { return !isShown(n) })
			break
		}
	}
	return v
}

// canReach tells whether the clients of a listener can reach a broker.
func (b *Broker) canReach(n *meta.Broker, listener string) bool {
	return n.ID == b.cfg.NodeID || n.FindListener(listener) != nil
}

// view is how the connection's client sees an image.
func (s *session) view(m *meta.Image) clientView { return s.b.viewOf(m, s.conn.ListenerName()) }

// listenerCodeSince is the version of Metadata from which on a client is told that a leader lacks its listener.
const listenerCodeSince = 6

// leaderCode is the code of a partition whose leader is not shown.
func (v *clientView) leaderCode(leader int32, version int16) int16 {
	if version >= listenerCodeSince && findAlive(v.all, leader) != nil {
		return kerr.ListenerNotFound.Code
	}
	return kerr.LeaderNotAvailable.Code
}

// hidden are those of some replicas that clients are not sent to: they are offline for them.
func (v *clientView) hidden(replicas []int32) []int32 {
	var gone []int32
	for _, id := range replicas {
		if v.shown[id] == nil {
			gone = append(gone, id)
		}
	}
	return gone
}

// controllerOf is the node that clients are told to send changes of the cluster to: the active
// controller's. While that is not known, or is not shown to them, it is another one, since all
// serve them; clients that look for a controller would ask again for it. -1: none is shown.
func (b *Broker) controllerOf(v *clientView) int32 {
	id := b.controllerID()
	switch {
	case v.shown[id] != nil:
		return id
	case v.shown[b.cfg.NodeID] != nil:
		return b.cfg.NodeID
	case len(v.shown) > 0:
		return slices.Min(slices.Collect(maps.Keys(v.shown)))
	}
	return -1
}

// findAlive finds a broker that serves, as far as the metadata tell; nil: it is not registered, or
// fenced.
func findAlive(brokers map[int32]*meta.Broker, id int32) *meta.Broker {
	if b := brokers[id]; b != nil && b.State != meta.BrokerFenced {
		return b
	}
	return nil
}

// addressOf is the address at which the connection's client reaches a node. For this node it
// is the one to which the client has connected, with TLS by its name, unless another one was set for that listener. Java names no
// server in its handshake whose name has no dot, such as localhost.
// For other nodes it is the one that they have registered for the listener of that name.
func (s *session) addressOf(n *meta.Broker) (host string, port int32) {
	return s.b.addressOf(n, s.conn)
}

func (b *Broker) addressOf(n *meta.Broker, conn *wire.Conn) (host string, port int32) {
	name := conn.ListenerName()
	advertised := b.cfg.Naming.Advertised != nil && b.cfg.Naming.Advertised(name)
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok && n.ID == b.cfg.NodeID && !advertised {
		host := ""
		if state := conn.TLS(); state != nil {
			host = state.ServerName // the name that it expects in the certificate
			if host == "" && b.cfg.Naming.Certified != nil {
				host = b.cfg.Naming.Certified(name, a.IP)
			}
		}
		return cmp.Or(host, a.IP.String()), int32(a.Port)
	}
	return n.AddressFor(name)
}
