package classic

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// maxMemberBytes bounds one member's protocols: with more the group could not be
// recorded.
const maxMemberBytes = coord.MaxBatch

// Recordable tells whether a member of these protocols could be recorded.
func Recordable(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return protocolsSize(protocols) <= maxMemberBytes
}

// About what the machine keeps beside the bytes that clients send.
const (
	memberCost   = 512 // a member: its struct, timer and places in the group's tables
	pendingCost  = 256 // an id that was given out
	protocolCost = 128 // a protocol of a member, and its place in the group's count
	topicCost    = 64  // a topic that is consumed
	groupCost    = 512 // a group: its struct and timers
)

// Size is how many bytes an empty group takes.
func Size(id string) int64 { return int64(groupCost + len(id)) }

// charge takes ahead what a member will take with this id and these protocols, or
// says that there is no room; nothing has changed then.
func (g *Group) charge(s *coord.Step, mb *member, id string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	n := mb.sizeWith(id, protocols) - mb.charged
	if !g.host.Memory.Reserve(s.Now, g.id, n) {
		return false
	}
	mb.charged += n
	return true
}

// settle makes the account hold what the member takes now.
func (g *Group) settle(mb *member) {
	n := mb.size()
	g.host.Memory.Add(n - mb.charged)
	mb.charged = n
}

// refund gives back what a member took.
func (g *Group) refund(mb *member) {
	g.host.Memory.Add(-mb.charged)
	mb.charged = 0
}

// size is about how many bytes the member takes.
func (mb *member) size() int64 {
	return mb.sizeWith(mb.id, mb.protocols)
}

// sizeWith is the member's size if it had another id and other protocols.
func (mb *member) sizeWith(id string, protocols []kmsg.JoinGroupRequestProtocol) int64 {
	n := memberCost + len(id) + len(deref(mb.instance)) + len(mb.clientID) + len(mb.clientHost) + len(mb.assignment)
	return int64(n) + protocolsSize(protocols)
}

func protocolsSize(protocols []kmsg.JoinGroupRequestProtocol) (n int64) {
	for i := range protocols {
		n += int64(protocolCost + len(protocols[i].Name) + len(protocols[i].Metadata))
	}
	return n
}

func topicSize(topic string) int64 { return int64(topicCost + len(topic)) }

// own copies protocols: what a request decodes to keeps all of its buffer.
func own(protocols []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	kept := make([]kmsg.JoinGroupRequestProtocol, len(protocols))
	for i, p := range protocols {
		kept[i] = kmsg.JoinGroupRequestProtocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)}
	}
	return kept
}
