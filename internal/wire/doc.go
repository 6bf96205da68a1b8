// Package wire is a server for Kafka's protocol, as net/http is one for HTTP: it accepts
// connections, cuts frames, checks and decodes requests, and sends the answers of a
// connection in the order of its requests.
//
// One goroutine serves a connection. It reads the bytes that have come, hands every whole
// request of that read to the Session in order, then calls Flush once, then sends all
// answers that are ready with one write. A request may be answered later, by any goroutine
// (it is parked). The goroutine that completes the oldest outstanding answer sends it, and
// the ready ones behind it, without waiting for the client to read. It does not wait for
// the disk either: another goroutine is started to send sections that are not in the page
// cache.
//
// A Server owns the limits, the memory and the connections, which it accepts from its
// Listeners. A Handler makes a Session for each Conn. A Request is answered with a
// Response, which is bytes and, between them, Sections of files. A Conn consists of an
// input (receive buffer, frames), an output (the order of answers, and which goroutine
// sends them) and a lifecycle (handshaking, reading, serving, blocked, suspended, muted, draining, closed).
// They use a socket to read and send, which encrypts if its listener asks for it. A sweeper closes connections whose time-outs are
// over, and an idle poller watches those that have no goroutine.
//
// TLS: a connection of a listener with TLS begins with the handshake, which is bounded in time, bytes and number
// (handshakes). Its Session is opened after it. The socket is then a tlsSocket, which encrypts for a socket without waiting.
//
// A frame, both ways, is a length of four bytes and that many bytes: a header
// (key, version, correlation id, client id and, in flexible versions, tagged
// fields; in answers the correlation id and tagged fields) and the body. Requests with
// keys that kmsg does not know have the oldest header, and reach the Session undecoded.
//
// Memory: an idle connection holds no buffers. A receive buffer is taken when bytes have
// come, and grows with the bytes that have come, never with the size that a frame
// announces. All of them together stay within Config.RequestMemory; when connections wait
// for it, others that hold some of it and are slow to complete their requests are closed.
// A buffer has several owners, each with a reference: the input, the connection from
// Serve until Flush returns or the Session is closed, and each Request that keeps its
// body. Answers that a client does not read are bounded too: a connection with maxUnsent
// bytes of unsent answers, or MaxParked unanswered requests, reads no further request. If
// the answers of all connections take more than a share of RequestMemory, those with
// pressedUnsent bytes of memory do not either. A large answer holds memory
// of the class Unsent until it is sent, so that a client which does not read takes none from
// the work of others (heldAnswers).
//
// Principals: a connection is a client's until its Session calls Prove. Then it is another node's,
// and what clients take does not concern it: connClass draws the changes and lists what a peer has
// for itself. If a limit refuses a connection and Config.Peers says that nodes are expected, it is
// admitted to a small waiting room, in which it can do nothing but prove in time that it is a peer's.
//
// A peer's request may carry one of a client, which its node has sent on (Request.ServeCarried): that is
// served as if it were the connection's own, and takes a client's memory.
//
// A panic of a Session, of an answer's encoding, of a Section, or of work that defers
// Conn.Contain closes its connection and does not end the process.
//
// Concurrency: the methods of a Server and a Conn, and those that answer a Request, may
// be called by any goroutine. Uncork, SetMaxFrame, Request.ExpectTokens, Prove and a Session's use of Body belong to
// the connection's goroutine. The mutexes of Server, registry, lifecycle, output,
// heldAnswers, handshakes, tlsSocket and bufferPool are never held together, and no callback, wait or system
// call happens while one is held.
package wire
