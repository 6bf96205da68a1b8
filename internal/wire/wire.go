// Package wire is "net/http for Kafka": it listens, cuts frames, guards and
// decodes requests, and sends the answers of a connection in request order.
//
// One goroutine serves a connection. It reads what has come, hands every whole
// request of that read to the Session in order, then calls Flush once, then
// sends all answers that are ready with one write. A request may be answered
// later and by anybody (it is parked): whoever completes the oldest outstanding
// answer sends it, and the ready ones behind it, without ever waiting for the
// client to read.
package wire

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrMalformed is returned where a request's body has not the shape of its API
// and version, or would decode to more memory than allowed.
var ErrMalformed = errors.New("malformed request")

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

// Config holds a server's limits; the zero value of a field means its default.
type Config struct {
	Logger        *slog.Logger
	MaxFrame      int           // bytes; socket.request.max.bytes, 100 MiB
	MaxConns      int           // max.connections, no limit
	MaxConnsPerIP int           // max.connections.per.ip, no limit
	IdleTimeout   time.Duration // connections.max.idle.ms, 10 minutes; also for a frame that does not go on
	RequestMemory int64         // bytes that all connections' receive buffers may take, 256 MiB
	MaxParked     int           // answers outstanding on one connection, 65,536
	TCPCongestion string        // TCP_CONGESTION for accepted loopback connections; "" leaves the system's
	DecodeBudget  int           // bytes one request may decode to, 64 MiB
}

// Server accepts connections and serves them.
type Server struct{}

// NewServer makes a server that hands requests to h.
func NewServer(cfg Config, h Handler) *Server { panic("BUG: not built") }

// Serve accepts connections until the listener is closed.
func (s *Server) Serve(l net.Listener) error { panic("BUG: not built") }

// ServeConn serves one connection until it ends; any net.Conn will do.
func (s *Server) ServeConn(c net.Conn) { panic("BUG: not built") }

// Shutdown closes the listeners, lets requests already read be answered until
// ctx ends, then closes the connections and waits for their goroutines.
func (s *Server) Shutdown(ctx context.Context) error { panic("BUG: not built") }

// Conn is one client's connection.
type Conn struct{}

// LocalAddr is the address on which the client reached us.
func (c *Conn) LocalAddr() net.Addr { panic("BUG: not built") }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { panic("BUG: not built") }

// Uncork sends what is ready now, in order, before a handler that may take long.
// Only the Session may call it.
func (c *Conn) Uncork() { panic("BUG: not built") }

// Close ends the connection, with a reason for the log.
func (c *Conn) Close(reason error) { panic("BUG: not built") }

// Request is one request of a connection. It may be used until it is answered.
type Request struct {
	Conn          *Conn
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string
	// Body is the request after its header. It aliases the receive buffer and is
	// valid until the Session's Flush returns.
	Body []byte
}

// Decode checks the body's shape and memory (the guard), then decodes it with
// kmsg. The result aliases nothing. It returns ErrMalformed for what does not fit.
func (r *Request) Decode() (kmsg.Request, error) { panic("BUG: not built") }

// Reply encodes and sends a response; its version is set from the request.
func (r *Request) Reply(resp kmsg.Response) { panic("BUG: not built") }

// NoReply completes a request that has no answer (Produce with acks=0).
func (r *Request) NoReply() { panic("BUG: not built") }

// Begin starts a hand-coded response: B holds the frame's header already, the
// body is to be appended to it. The response goes back to a pool when sent.
func (r *Request) Begin() *Response { panic("BUG: not built") }

// Send sends a response that Begin started.
func (r *Request) Send(resp *Response) { panic("BUG: not built") }

// Response is an answer under construction: bytes, and between them sections of
// files that are sent without passing through B.
type Response struct {
	B []byte
}

// Attach puts a section behind the bytes appended to B so far. The response owns
// it from now on and releases it when it was sent or the connection is gone.
func (p *Response) Attach(s Section) { panic("BUG: not built") }

// Section is a stretch of a file that goes out as it is.
type Section interface {
	io.ReaderAt // 0 is the section's start
	Len() int
	// Fd is the file's descriptor and the section's position in it, where it has
	// one (false: read it by ReadAt).
	Fd() (fd uintptr, pos int64, ok bool)
	Release()
}
