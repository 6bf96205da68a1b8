package classic

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// maxMemberBytes bounds the protocols of one member, so that a group of one member can
// be recorded.
const maxMemberBytes = coord.MaxBatch

// Recordable tells whether a group that has one member with these protocols can be
// recorded.
func Recordable(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return protocolsSize(protocols) <= maxMemberBytes
}

// About how many bytes the machine keeps beside those that clients send.
const (
	memberBytes   = 512 // a member: its struct, timer and places in the group's tables
	pendingBytes  = 256 // an id that was given out
	protocolBytes = 128 // a protocol of a member, and its place in the group's count
	topicBytes    = 64  // a topic that is consumed
	groupBytes    = 512 // a group: its struct and timers
)

// Size is how many bytes an empty group takes.
func Size(id string) int64 { return int64(groupBytes + len(id)) }

// chargeMember charges a member, before it changes, for this id and these protocols. It
// returns false, and charges nothing, if there is no room.
func (g *Group) chargeMember(s *coord.Step, mb *member, id string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	n := mb.sizeWith(id, protocols) - mb.charged
	if !g.host.Memory.Reserve(s.Now, g.id, n) {
		return false
	}
	mb.charged += n
	return true
}

// adjustCharge makes the charge equal to the member's present size.
func (g *Group) adjustCharge(mb *member) {
	n := mb.size()
	g.host.Memory.Add(n - mb.charged)
	mb.charged = n
}

// refund gives back the bytes that the member was charged for.
func (mb *member) refund() {
	mb.group.host.Memory.Add(-mb.charged)
	mb.charged = 0
}

// size is about how many bytes the member takes.
func (mb *member) size() int64 {
	return mb.sizeWith(mb.id, mb.protocols)
}

// sizeWith is the member's size if it had another id and other protocols.
func (mb *member) sizeWith(id string, protocols []kmsg.JoinGroupRequestProtocol) int64 {
	n := memberBytes + len(id) + len(stringOrEmpty(mb.instance)) + len(mb.clientID) + len(mb.clientHost) + len(mb.assignment)
	return int64(n) + protocolsSize(protocols)
}

func protocolsSize(protocols []kmsg.JoinGroupRequestProtocol) (n int64) {
	for i := range protocols {
		n += int64(protocolBytes + len(protocols[i].Name) + len(protocols[i].Metadata))
	}
	return n
}

func topicSize(topic string) int64 { return int64(topicBytes + len(topic)) }

// copyProtocols copies protocols, since those of a request keep all of its buffer in
// memory.
func copyProtocols(protocols []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	kept := make([]kmsg.JoinGroupRequestProtocol, len(protocols))
	for i, p := range protocols {
		kept[i] = kmsg.JoinGroupRequestProtocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)}
	}
	return kept
}
