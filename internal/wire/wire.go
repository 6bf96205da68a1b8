// Package wire is "net/http for Kafka": it listens, cuts frames, guards and
// decodes requests, and sends the answers of a connection in request order.
//
// One goroutine serves a connection. It reads what has come, hands every whole
// request of that read to the Session in order, then calls Flush once, then
// sends all answers that are ready with one write. A request may be answered
// later and by anybody (it is parked): whoever completes the oldest outstanding
// answer sends it, and the ready ones behind it, without ever waiting for the
// client to read. Nor does it wait for the disk: sections that are not in the page
// cache are sent by a goroutine that is started for it.
//
// The types: a Server owns the limits, the memory and the connections; a Handler
// makes a Session for each Conn; a Request is answered with a Response, which is
// bytes and, between them, Sections of files.
//
// A frame, both ways, is a length of four bytes and that many bytes: a header
// (key, version, correlation id, client id and, in flexible versions, tagged
// fields; in answers the correlation id and tagged fields) and the body.
//
// Memory: an idle connection holds no buffers. A receive buffer is taken when
// data have come and grows with what has come, never with what is announced;
// all of them together stay within Config.RequestMemory. Answers that a client
// does not read are bounded too: behind maxUnsent bytes or MaxParked requests,
// no further request of that connection is read.
//
// Concurrency: everything of a Server, a Conn and the methods that answer a
// Request may be called from any goroutine; Uncork and what a Session does with
// Body belong to the connection's own. Server.mu, Conn.mu and memory.mu are
// never held together, and no callback, wait or system call happens under them.
package wire

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"
)

// ErrMalformed is returned where a request's body has not the shape of its API
// and version, or would decode to more memory than allowed.
var ErrMalformed = errors.New("malformed request")

// errForeign closes a connection whose first bytes belong to another protocol.
var errForeign = errors.New("not the Kafka protocol")

// errFrameSize closes a connection that announces a frame of a size that is not
// accepted.
var errFrameSize = errors.New("bad frame size")

// Handler opens a Session for every accepted connection.
type Handler interface {
	Open(c *Conn) Session
}

// Session is what a Handler knows of one connection. Its methods run on the
// connection's goroutine, one at a time.
type Session interface {
	// Serve handles one request. Exactly one of the request's Reply, Send or
	// NoReply must be called, now or later, from any goroutine. Returning an
	// error closes the connection with one log line.
	Serve(r *Request) error
	// Flush ends what one read brought: after it returns, the Body of requests
	// served so far is used for something else.
	Flush()
	// Close tells that the connection is gone.
	Close()
}

// Section is a stretch of a file that goes out as it is.
type Section interface {
	io.ReaderAt // 0 is the section's start
	Len() int
	// Fd is the file's descriptor and the section's position in it, where it has
	// one (false: read it by ReadAt).
	Fd() (fd uintptr, pos int64, ok bool)
	Release()
}

// Config holds a server's limits; the zero value of a field means its default.
type Config struct {
	Logger        *slog.Logger
	MaxFrame      int           // bytes; socket.request.max.bytes, 100 MiB
	Limits        Limits        // at the start; SetLimits changes them
	IdleTimeout   time.Duration // connections.max.idle.ms, 10 minutes; also for a client that does not read its answers
	RequestMemory int64         // bytes that all connections' receive buffers may take, 256 MiB; at least twice MaxFrame
	MaxParked     int           // answers outstanding on one connection, 65,536; four times as many on all of them
	Congestion    string        // TCP_CONGESTION of accepted connections; "" leaves the system's
	DecodeBudget  int           // bytes one request may decode to, 64 MiB

	// LocalCongestion is the TCP_CONGESTION of connections from this machine; "" leaves
	// the system's. bbr, where that is it, takes 1.6 to 2 times the CPU of reno to send
	// answers of 1 MiB to the loopback (leat bench consume).
	LocalCongestion string
	// Quiet is called some seconds after traffic has ceased: a time to give memory
	// back to the system. nil: nothing is done then.
	Quiet func()
}

// Limits bound the connections that are accepted; those that are there stay. The zero
// value is no limit.
type Limits struct {
	Conns      int                // max.connections; 0: no limit
	ConnsPerIP int                // max.connections.per.ip; 0: no limit, or none where IPs has some
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

// withDefaults fills in what was left zero.
func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxFrame <= 0 {
		c.MaxFrame = 100 << 20
	}
	c.MaxFrame = min(c.MaxFrame, 1<<30)
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = 10 * time.Minute
	}
	if c.RequestMemory <= 0 {
		c.RequestMemory = 256 << 20
	}
	c.RequestMemory = max(c.RequestMemory, 2*int64(c.MaxFrame), 1<<20)
	if c.MaxParked <= 0 {
		c.MaxParked = 1 << 16
	}
	if c.DecodeBudget <= 0 {
		c.DecodeBudget = 64 << 20
	}
	return c
}
