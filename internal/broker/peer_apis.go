package broker

import (
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// The requests of other nodes of the cluster: those with private keys, which package peer serves, and
// those of Kafka that its brokers and controllers send to each other. All of them need a proof of who
// sends them. Without it they end the connection as an unknown API does, and ApiVersions lists none.

// interBroker are the APIs that only brokers and controllers send in Kafka, and the identities that
// may send them here. An API of this list needs the proof from the moment in which it is served.
//
// WriteTxnMarkers is none of them: Kafka serves it to administrators, who end transactions that hang.
func interBroker() map[int16]peer.Kinds {
	return map[int16]peer.Kinds{
		4:  peer.Nodes, // LeaderAndIsr
		5:  peer.Nodes, // StopReplica
		6:  peer.Nodes, // UpdateMetadata
		7:  peer.Nodes, // ControlledShutdown
		52: peer.Nodes, // Vote
		53: peer.Nodes, // BeginQuorumEpoch
		54: peer.Nodes, // EndQuorumEpoch
		56: peer.Nodes, // AlterPartition
		58: peer.Nodes, // Envelope
		59: peer.Nodes, // FetchSnapshot
		62: peer.Nodes, // BrokerRegistration
		63: peer.Nodes, // BrokerHeartbeat
		67: peer.Nodes, // AllocateProducerIds
		70: peer.Nodes, // ControllerRegistration
		73: peer.Nodes, // AssignReplicasToDirs
		82: peer.Nodes, // UpdateRaftVoter
		83: peer.Nodes, // InitializeShareGroupState
		84: peer.Nodes, // ReadShareGroupState
		85: peer.Nodes, // WriteShareGroupState
		86: peer.Nodes, // DeleteShareGroupState
		87: peer.Nodes, // ReadShareGroupStateSummary
	}
}

// servePeer serves a request with a private key.
func (s *session) servePeer(r *wire.Request) error {
	if s.b.cfg.Peers == nil {
		return ErrUnsupported
	}
	s.Flush()
	if s.peer == nil {
		s.peer = s.b.cfg.Peers.Open(s.conn)
	}
	err := s.peer.Serve(r)
	if s.gate != nil && (s.isPeer() || s.isAgent()) { // it needs no login
		s.gate.settle()
	}
	return err
}

// mayCall tells whether the other end of the connection may use an API. An agent of a link uses none: its token is for its link alone.
func (s *session) mayCall(a *api) bool {
	id := s.peer.Identity()
	return (a.from == 0 || id.IsAny(a.from)) && !s.isAgent()
}

// isAgent tells whether the other end of the connection has proven to be an agent of a link.
func (s *session) isAgent() bool {
	id := s.peer.Identity()
	return id.IsAny(peer.Agents)
}

// isNode tells whether the other end of the connection has proven to be a node.
func (s *session) isNode(node int32) bool {
	id := s.peer.Identity()
	return id.IsNode(node)
}

// isAnyNode tells whether the other end of the connection has proven to be some node.
func (s *session) isAnyNode() bool {
	id := s.peer.Identity()
	return id.IsAny(peer.Nodes)
}
