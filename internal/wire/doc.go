// Package wire is "net/http for Kafka": it listens, cuts frames, guards and
// decodes requests, and sends the answers of a connection in request order.
//
// One goroutine serves a connection. It reads what has come, hands every whole
// request of that read to the Session in order, then calls Flush once, then
// sends all answers that are ready with one write. A request may be answered
// later and by anybody (it is parked): the one who completes the oldest outstanding
// answer sends it, and the ready ones behind it, without ever waiting for the
// client to read. Nor does it wait for the disk: sections that are not in the page
// cache are sent by a goroutine that is started for it.
//
// The types: a Server owns the limits, the memory and the connections, which come by
// its Listeners; a Handler makes a Session for each Conn; a Request is answered with a
// Response, which is bytes and, between them, Sections of files. A Conn is an input
// (receive buffer, frames), an output (the order of answers, who sends them) and a
// lifecycle (reading, serving, blocked, suspended, draining, closed); each draws its
// states. Under them a socket reads and sends; beside them a sweeper closes connections
// whose time is up and an idle poller watches those that have no goroutine.
//
// A frame, both ways, is a length of four bytes and that many bytes: a header
// (key, version, correlation id, client id and, in flexible versions, tagged
// fields; in answers the correlation id and tagged fields) and the body. Requests with
// keys that kmsg does not know have the oldest header, and reach the Session undecoded.
//
// Memory: an idle connection holds no buffers. A receive buffer is taken when
// data have come and grows with what has come, never with what is announced;
// all of them together stay within Config.RequestMemory, and connections that hold
// some of it and are slow to complete their requests are closed when others wait for it.
// A buffer belongs to all who hold a reference to it: the input, the connection from
// Serve until Flush returns or the Session is closed, and each Request that keeps its
// body. Answers that a client does not read are bounded too: behind maxUnsent bytes or
// MaxParked requests, no further request of that connection is read, and where the answers
// of all connections take more than a share of RequestMemory, behind pressedUnsent bytes of
// memory. A large answer holds work memory until it was sent (Request.Hold, heldAnswers).
//
// A panic of a Session, of an answer's encoding, of a Section, or of somebody who works
// for a connection and defers Conn.Contain ends that connection, not the process.
//
// Concurrency: everything of a Server, a Conn and the methods that answer a
// Request may be called from any goroutine; Uncork, SetMaxFrame and what a Session does
// with Body belong to the connection's own. The mutexes of Server, registry, lifecycle,
// output, heldAnswers and bufferPool are never held together, and no callback, wait or system call
// happens under them.
package wire
