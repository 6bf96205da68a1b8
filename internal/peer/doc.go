// Package peer is how the nodes of a cluster reach each other, on the port that clients use, and how
// they prove who they are before anything is said.
//
// The dialling side: Dial makes a Conn, on which calls are answered in order and some messages are
// not answered at all. Links keeps Conns to nodes, one for each purpose, and dials again when they
// end. The accepting side: a Door has the rules of a node, and a Session is one connection. The
// session of internal/broker hands it the requests with private keys, and asks it for the Identity
// of the other end.
//
// # The protocol
//
// Frames are Kafka's: a length, a header, a body. Private keys have the oldest header, version 0, and
// a body that is opaque to this package, but for the four messages of the handshake, which are those of
// package credential:
//
//	PeerHello   hello -> challenge     the first request of its connection
//	PeerProve   proof -> verdict       the second one; nothing is sent behind it before its answer
//
// A Hello that is not the first request, a private key that comes before the verdict, and one that
// the Identity may not use end the connection as an unknown key does, with a sentence in the log. All
// refusals of the handshake are credential's. A join needs no message of its own: hello and proof of
// a joiner have all that a node needs to be admitted, the verdict is the answer, and the node dials
// anew as what it is now. Whether a key is answered belongs to the key (IsOneWay), since both ends
// must agree.
//
//	Session:  new --hello--> challenged --proof holds--> deciding --Admit--> accepted
//	           '------ a proof that does not hold, a message out of turn, a refusal ----> closed
//
// From the moment in which the proof holds, the connection is a peer's (wire.Conn.Prove). Admit may
// take long, so it has a goroutine of its own; the connection's goroutine reads no other request
// meanwhile. Door.Retain ends the connections of those that are not wanted any more.
//
// # TLS
//
// A connection may have TLS below, which this package does not begin: the DialFunc does, and wire for those that are accepted. Both ends
// give the handshake what it needs to be bound to the connection, so that a handler can ask whether what it sends is read by
// the proven end alone (Identity.IsBound, and Session().IsBound of a Conn).
//
// # A connection that was dialled
//
//	caller --frames--> queue --writer--> socket --reader--> the oldest call
//
// There is one goroutine that writes and one that reads. The queue is bounded: a call waits for room
// in it, and a message that is not answered is dropped. Answers come in the order of the calls, so a
// call that is answered late holds up those behind it. Calls of different kinds therefore have
// connections of their own (Purpose). A call that its caller gives up keeps its place until its
// answer has come.
//
// Err says how a connection has ended: closed by this end, closed by the other one (ErrClosedByPeer,
// which a killed process does), or silent (ErrSilent, which a cut network is). A refused dial is
// ErrDialRefused: nobody listens there. Links tells both as Events.
//
// # Concurrency
//
// The methods of Conn, Links and Door, and Session.Identity, may be called by any goroutine; Serve and
// Close of a Session belong to the connection's. The mutexes of Conn, Door, Links and link are leaves: none
// is held while another one is taken, and no callback, wait or system call happens under one. Each
// goroutine ends with its Conn, Links or Session, whose Close waits for it.
package peer
