package broker

import (
	"encoding/binary"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// An answer to Produce (from version 10 on) or Fetch (16) names the leader of each partition that was asked
// for at another node than that, and the addresses of these leaders (KIP-951). The client need not ask for
// metadata.

// The versions from which on an answer names leaders.
const (
	leadersInProduce = 10
	leadersInFetch   = 16
)

// fencedEpoch is the code for a leader epoch that the client has from a leader before the present one.
var fencedEpoch = kerr.FencedLeaderEpoch.Code

// currentLeader is the leader of a partition; epoch is NoEpoch if the partition is not known.
type currentLeader struct {
	node  int32 // -1: there is none
	epoch record.Epoch
}

// findLeader finds the leader of a partition: part, or, if that is nil, partition n of a topic that this
// node has no replica of. A node that is cut off does not name itself.
func (b *Broker) findLeader(part *replica.Partition, name []byte, id meta.UUID, n int32) currentLeader {
	if part != nil {
		l := part.Leadership()
		if l.Leader == b.cfg.NodeID && b.contact() != InContact {
			return currentLeader{-1, record.NoEpoch}
		}
		return currentLeader{l.Leader, l.Epoch}
	}
	m := b.cfg.Image()
	t := m.TopicByID(id)
	if t == nil && name != nil {
		t = m.TopicBytes(name)
	}
	if t == nil || n < 0 || int(n) >= len(t.Partitions) {
		return currentLeader{-1, record.NoEpoch}
	}
	return currentLeader{t.Partitions[n].Leader, record.Epoch(t.Partitions[n].LeaderEpoch)}
}

// appendField appends the tagged field that names the leader.
func (l currentLeader) appendField(b []byte, tag byte) []byte {
	b = append(b, tag, 9)
	b = be.AppendUint32(b, uint32(l.node))
	b = be.AppendUint32(b, uint32(l.epoch))
	return append(b, 0)
}

// namedLeaders are the nodes that an answer names as leaders.
type namedLeaders []int32

func (n *namedLeaders) add(l currentLeader) {
	if l.node >= 0 && !slices.Contains(*n, l.node) { // a cluster has few nodes
		*n = append(*n, l.node)
	}
}

// appendEndpoints appends the tagged fields that end an answer: the addresses of those leaders that the
// client is sent to.
func (b *Broker) appendEndpoints(dst []byte, r *wire.Request, leaders namedLeaders) []byte {
	if len(leaders) == 0 {
		return append(dst, 0)
	}
	view := b.viewOf(b.cfg.Image(), r.Conn.ListenerName())
	leaders = slices.DeleteFunc(slices.Clone(leaders), func(id int32) bool { return view.shown[id] == nil })
	if len(leaders) == 0 {
		return append(dst, 0)
	}
	var field []byte
	field = appendLen(field, true, len(leaders))
	for _, id := range leaders {
		n := view.shown[id]
		field = be.AppendUint32(field, uint32(id))
		host, port := b.addressOf(n, r.Conn)
		field = appendString(field, true, host)
		field = be.AppendUint32(field, uint32(port))
		field = appendText(field, true, n.Rack)
		field = append(field, 0)
	}
	dst = append(dst, 1, 0)
	dst = binary.AppendUvarint(dst, uint64(len(field)))
	return append(dst, field...)
}
