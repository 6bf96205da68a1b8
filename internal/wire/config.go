package wire

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
)

// Config holds a server's limits; the zero value of a field means its default.
type Config struct {
	Logger        *slog.Logger
	MaxFrame      int           // bytes of a request; socket.request.max.bytes, 100 MiB
	Limits        Limits        // at the start; SetLimits changes them
	MaxConns      int           // connections for which there are file descriptors; 0: no bound. Limits bound them further
	MemoryConns   int           // connections for which there is memory; 0: no bound
	IdleTimeout   time.Duration // connections.max.idle.ms, 10 minutes; also for a client that does not read its answers
	RequestMemory int64         // bytes that all connections' receive buffers may take, 256 MiB; a request may take three quarters of it
	MaxParked     int           // answers outstanding on one connection, 65,536; four times as many on all of them
	Congestion    string        // TCP_CONGESTION of accepted connections; "": the system's choice
	DecodeBudget  int           // bytes that one decoded request may take, 64 MiB; at most the largest reservation of Work
	Peers         Peers         // other nodes; the zero value: none

	// Admit tells what happens to a client's connection from an address that has come to a listener, and is within all limits;
	// nil: it is served. It may be called by any goroutine.
	Admit func(listener string, ip netip.Addr) Admission

	// Work is the memory that decoded requests take while they are served; nil: no bounds.
	Work *budget.Budget

	// LocalCongestion is the TCP_CONGESTION of connections from this machine; "": the
	// system's choice. With bbr, which many systems choose, large answers to the loopback take
	// much more CPU than with reno (leat bench consume).
	LocalCongestion string
}

// Peers is what a server keeps for the connections of other nodes, beside what clients have. A
// connection becomes one of those when its Session calls Conn.Prove. connClass has the changes.
type Peers struct {
	// Handshake lists the keys of the requests with which a peer proves itself, in order. A
	// connection in the waiting room can send no others. Without it there is no waiting room.
	Handshake []int16
	// Expected tells whether other nodes may connect now. It may be called by any goroutine; nil:
	// none may, so there is no waiting room.
	Expected func() bool
	// IsMember tells whether a member of the cluster may connect from an address. Such a connection takes a
	// stranger's place in the waiting room, if there is no other. It may be called by any goroutine; nil: no
	// addresses are known.
	IsMember func(ip netip.Addr) bool
	Conns    int   // peers' connections for which there are file descriptors, beside MaxConns
	Waiting  int   // connections in the waiting room for which there are file descriptors, beside both
	Memory   int64 // bytes of receive buffers that clients cannot take, 8 MiB; larger requests of peers take RequestMemory
}

// Admission is what a server does with a new connection, besides its limits.
type Admission struct {
	Wait   time.Duration // until it is served
	Refuse error         // why it is closed then; nil: it is served
}

// Listener is an address on which a server accepts connections, and the rules for those
// connections.
type Listener struct {
	net.Listener

	Name     string          // Kafka's name of the listener: "PLAINTEXT"
	Protocol config.Protocol // whether connections are encrypted, and whether their clients must log in
	MaxFrame int             // bytes of a request; 0: Config.MaxFrame, which is also the most

	// TLS returns what the handshake of a new connection uses; nil: connections are not encrypted. Any goroutine may call it.
	TLS func() *tls.Config

	// Sharing says which connections come in, of a listener whose Protocol does not encrypt and that may change while it is open; it needs TLS.
	// nil: those of the Protocol. Any goroutine may call it.
	Sharing func() Sharing
}

// Sharing says which connections a listener without encryption takes.
//
//	PlainOnly --> PlainAndTLS --> TLSOnly
//
// Those with TLS are of the protocol SASL_SSL. A connection stays what it was when it came.
type Sharing uint8

// The kinds of sharing.
const (
	PlainOnly   Sharing = iota // as the listener's protocol says
	PlainAndTLS                // both: the first byte of a connection tells one with TLS
	TLSOnly
)

// Limits bound the connections that are accepted from now on; open ones stay. The zero value
// is no limit.
type Limits struct {
	Conns      int                // max.connections; 0: no limit
	ConnsPerIP int                // max.connections.per.ip, for addresses that are not in IPs; 0: no limit unless IPs has addresses
	IPs        map[netip.Addr]int // max.connections.per.ip.overrides
}

// forIP is how many connections an address may have; ok is false without a limit.
func (l *Limits) forIP(ip netip.Addr) (n int, ok bool) {
	if n, ok = l.IPs[ip]; ok {
		return n, true
	}
	return l.ConnsPerIP, l.perIP()
}

// perIP tells whether connections are counted by address.
func (l *Limits) perIP() bool { return l.ConnsPerIP > 0 || len(l.IPs) > 0 }

// withDefaults replaces zero values.
func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = 10 * time.Minute
	}
	if c.RequestMemory <= 0 {
		c.RequestMemory = 256 << 20
	}
	c.RequestMemory = max(c.RequestMemory, 1<<20)
	if c.MaxFrame <= 0 {
		c.MaxFrame = 100 << 20
	}
	c.MaxFrame = min(c.MaxFrame, 1<<30, largestFrame(c.RequestMemory))
	if c.MaxParked <= 0 {
		c.MaxParked = 1 << 16
	}
	if c.DecodeBudget <= 0 {
		c.DecodeBudget = 64 << 20
	}
	if c.Peers.Memory <= 0 {
		c.Peers.Memory = 8 << 20
	}
	c.Peers.Memory = max(c.Peers.Memory, 1<<20)
	return c
}

// unsentShare bounds the memory of unsent answers, which comes on top of that for requests, to
// RequestMemory/unsentShare.
const unsentShare = 4
