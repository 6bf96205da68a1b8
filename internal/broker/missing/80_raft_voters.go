package missing

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AddRaftVoter, key 80, versions 0 to 1. RemoveRaftVoter, key 81, version 0 (KIP-853).
//
// The cluster chooses the voters of its metadata by itself, so nobody else can. Clients are told the code that
// Kafka has for a quorum whose voters cannot be changed by requests (kraft.version 0), and the reason here.

// ownVoters says so.
const ownVoters = "The cluster itself chooses the nodes that vote on its metadata: 1 of up to two nodes, and 3 of more."

func addRaftVoter(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrAddRaftVoterResponse()
	resp.ErrorCode, resp.ErrorMessage = kerr.UnsupportedVersion.Code, new(ownVoters)
	return fixedAnswer(resp)
}

func removeRaftVoter(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrRemoveRaftVoterResponse()
	resp.ErrorCode, resp.ErrorMessage = kerr.UnsupportedVersion.Code, new(ownVoters)
	return fixedAnswer(resp)
}
