package peer

import "github.com/leatstream/leat/internal/credential"

// Identity is the other end of a connection that this node has accepted, after it has proven itself
// and was admitted. The zero value stands for one that has not.
type Identity struct {
	credential.Peer // NodeID of a joiner is the one that it was given

	SessionID [32]byte // of the handshake; only both ends know it
	Version   uint16   // of the protocol between nodes
	IsBound   bool     // the connection has TLS, and nobody is between its two ends, which are both proven: secrets may be sent
}

// Kinds is a set of kinds of identities.
type Kinds uint8

// The kinds of identities.
const (
	Nodes          Kinds = 1 << iota // processes that run a node
	Administrators                   // verbs that hold a node's data directory
	Joiners                          // nodes that were admitted on this connection
	Agents                           // agents of links
)

// IsAny tells whether the identity is of one of the kinds.
func (i *Identity) IsAny(kinds Kinds) bool {
	switch i.Kind {
	case credential.KindNode:
		return kinds&Nodes != 0
	case credential.KindAdministrator:
		return kinds&Administrators != 0
	case credential.KindJoiner:
		return kinds&Joiners != 0
	case credential.KindAgent:
		return kinds&Agents != 0
	}
	return false
}

// IsNode tells whether the identity is the process that runs a node.
func (i *Identity) IsNode(id int32) bool { return i.IsAny(Nodes) && i.NodeID == id }
