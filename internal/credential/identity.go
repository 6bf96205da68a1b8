package credential

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// AnyNode stands for no node in particular, as the node id that a joiner wants, or as the node that
// a dialler wants to reach.
const AnyNode int32 = -1

// ClusterID is the id of a cluster. It is not a secret.
type ClusterID [16]byte

// ParseClusterID reads the 22 characters that String writes.
func ParseClusterID(text string) (ClusterID, error) {
	var id ClusterID
	b, err := decodeText(text)
	if err != nil || len(b) != len(id) {
		return id, ErrID
	}
	return ClusterID(b), nil
}

func (c ClusterID) String() string { return base64.RawURLEncoding.EncodeToString(c[:]) }

// DirectoryID is drawn once for each data directory.
type DirectoryID [16]byte

// Incarnation is drawn at each start of a process that runs a node.
type Incarnation [16]byte

// Range is the versions of the protocol between nodes that an end speaks, from Min to Max. Min is
// at least 1.
type Range struct{ Min, Max uint16 }

// agree returns the highest version that both ends speak.
func (r Range) agree(other Range) (version uint16, ok bool) {
	version = min(r.Max, other.Max)
	return version, r.isValid() && other.isValid() && version >= max(r.Min, other.Min)
}

func (r Range) isValid() bool { return r.Min > 0 && r.Min <= r.Max }

func (r Range) String() string {
	if r.Min == r.Max {
		return fmt.Sprint(r.Min)
	}
	return fmt.Sprintf("%d to %d", r.Min, r.Max)
}

// Kind says how a dialler proves itself, and as what.
type Kind uint8

// The kinds of diallers.
const (
	KindNode          Kind = 1 // a process that runs a node, by the node's key
	KindAdministrator Kind = 2 // a verb that holds the data directory of a node, by the node's key
	KindJoiner        Kind = 3 // a node that is not in the cluster yet, by a token
	KindAgent         Kind = 4 // an agent of a link, by a token for it and a key of its own
)

// hasToken tells whether a dialler of the kind proves itself by a token.
func (k Kind) hasToken() bool { return k == KindJoiner || k == KindAgent }

func (k Kind) String() string {
	switch k {
	case KindNode:
		return "node"
	case KindAdministrator:
		return "administrator"
	case KindJoiner:
		return "joiner"
	case KindAgent:
		return "agent"
	}
	return fmt.Sprintf("kind %d", k)
}

// Member is what the metadata knows of a node.
type Member struct {
	Key     PublicKey
	Removed bool        // its key is kept only to tell it so
	Living  Incarnation // of the process that is known to run as this node now; zero: none is known
}

// Nodes finds nodes by their ids: the metadata, or the list of members that a Welcome brought.
type Nodes interface {
	// FindNode returns a member, or a node that was removed.
	FindNode(id int32) (Member, bool)
}

// Directory is the metadata as an acceptor sees it. It may be behind: a decision that follows a
// handshake (to admit a joiner) must look at the token and the node id again.
type Directory interface {
	Nodes
	// FindToken returns a token, also one that has ended or was revoked, if it is still kept.
	FindToken(id TokenID) (Verifier, bool)
	// FindAgentToken returns a token for an agent of a link. None of them is a join token, nor the other way round.
	FindAgentToken(id TokenID) (Verifier, bool)
}

// Self is the identity of the node at this end.
type Self struct {
	Versions Range
	Cluster  ClusterID
	Epoch    uint32 // of the cluster: a higher one after each recovery from a lost majority
	NodeID   int32
	Key      NodeKey

	Addresses []string                 // PROTOCOL://host:port, at which other nodes reach this one
	Position  func() Position          `json:"-"` // nil: it is not told
	Knows     func(key PublicKey) bool `json:"-"` // whether the metadata have a key, also a removed node's; set with Position
}

// Peer is the other end, proven.
type Peer struct {
	Kind        Kind
	Key         PublicKey
	NodeID      int32       // of a joiner: the one that it wants, or AnyNode; of an agent nobody's
	Incarnation Incarnation // of a node
	Token       TokenID     // of a joiner or an agent
	Directory   DirectoryID // of a joiner
	Note        *Note       // of a node, from version 2 of the protocol on; nil: none
}

// Session is the result of a handshake, the same on both ends but for the peer.
type Session struct {
	ID      [32]byte // only the two ends know it, and no other session has it
	Version uint16
	IsBound bool   // it holds for one connection with TLS, at the ends of which there are only the two that are proven
	Epoch   uint32 // of the cluster; a joiner has it from here
	Peer    Peer
}

// Contact is how to find a member and how to know it again.
type Contact struct {
	NodeID    int32
	Key       PublicKey
	Addresses []string // PROTOCOL://host:port; of a node from before version 3 of the protocol: host:port
}

// Welcome is what an acceptor tells a dialler that it has accepted.
type Welcome struct {
	NodeID  int32 // the dialler's; a joiner has it from here
	Level   int16 // the finalised level of the metadata
	Members []Contact
}

// decodeText decodes base64url, and refuses what the encoder would not write.
func decodeText(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, base64.CorruptInputError(strings.IndexAny(text, "\r\n"))
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}
