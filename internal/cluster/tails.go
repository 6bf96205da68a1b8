package cluster

import (
	"strings"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// TailVerb is what the holder of a data directory asks a node for, of what cuts have taken from partitions of its cluster.
type TailVerb string

// The verbs. Only TailDiscard changes anything. All are served by this package, with what the nodes answer that have the tails.
const (
	// TailList lists the tails of all nodes, by pages.
	TailList TailVerb = "list"
	// TailRead reads bytes of one tail of one node: whole batches as they were stored, one after the other. A page may begin and end within one.
	TailRead TailVerb = "read"
	// TailDiscard removes the tails of one cut from all nodes.
	TailDiscard TailVerb = "discard"
)

// MostTailBytes is how many bytes a page of a tail has at most.
const MostTailBytes = 256 << 10

// TailRequest asks a node for something about tails.
type TailRequest struct {
	Verb      TailVerb   `json:"verb"`
	Topic     string     `json:"topic,omitempty"`     // of TailList: "": all topics
	TopicID   meta.UUID  `json:"topicId,omitzero"`    // of TailRead and TailDiscard: that of the tail that was listed, since a topic may be made again
	Partition *int32     `json:"partition,omitempty"` // of TailList: nil: all partitions
	Cut       int32      `json:"cut,omitempty"`       // of TailRead and TailDiscard
	After     *TailPlace `json:"after,omitempty"`     // of TailList: where the list goes on; nil: from the first one on
	// Into is, of TailList, the topic into which somebody is to write what was kept: it is refused if nobody can.
	Into string `json:"into,omitempty"`

	// These are, of TailRead, which tail was listed, and from which of its bytes on it is read.
	Node   int32 `json:"node,omitempty"`
	KeptMs int64 `json:"keptMs,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
	From   int64 `json:"from,omitempty"`
}

// TailPlace is the place of the tails of a cut in a list in the order of topics, partitions and cuts.
type TailPlace struct {
	PartitionPlace
	Cut int32 `json:"cut"`
}

// compare compares two places in their order.
func (p *TailPlace) compare(o *TailPlace) int {
	if by := strings.Compare(p.Topic, o.Topic); by != 0 {
		return by
	}
	if by := int64(p.Partition) - int64(o.Partition); by != 0 {
		return int(by)
	}
	return int(int64(p.Cut) - int64(o.Cut))
}

// TailStatus is what one node has kept of what a cut has taken.
type TailStatus struct {
	TailPlace
	TopicID    meta.UUID `json:"topicId"`
	Node       int32     `json:"node"`
	First      int64     `json:"first"` // offset of the first record; there may be gaps behind it
	Last       int64     `json:"last"`
	End        int64     `json:"end"` // of the log after the cut
	FirstEpoch int32     `json:"firstEpoch"`
	LastEpoch  int32     `json:"lastEpoch"`
	KeptMs     int64     `json:"keptMs"` // when, since 1970
	Bytes      int64     `json:"bytes"`
	HasMoved   bool      `json:"hasMoved,omitempty"` // the partition is on other nodes by now
}

// Kept is when the tail was kept.
func (t *TailStatus) Kept() time.Time { return time.UnixMilli(t.KeptMs).UTC() }

// TailProblem says what a node cannot tell, or do.
type TailProblem struct {
	Node int32  `json:"node"`
	Text string `json:"text"`
}

// TailAnswer is the answer to a TailRequest.
type TailAnswer struct {
	Tails    []TailStatus   `json:"tails,omitempty"`    // of TailList, in the order of TailPlace and of nodes
	HasMore  bool           `json:"hasMore,omitempty"`  // of TailList: there are more behind the last one
	Problems []TailProblem  `json:"problems,omitempty"` // tails that cannot be read, or could not be discarded
	Silent   []SilentNode   `json:"silent,omitempty"`   // of TailList and TailDiscard: nodes that have not answered
	Uncut    []UncutReplica `json:"uncut,omitempty"`    // of TailList

	Data []byte `json:"data,omitempty"` // of TailRead: none at the end

	Discarded []int32 `json:"discarded,omitempty"` // of TailDiscard: nodes that had a tail, and have it no more
	HadNone   []int32 `json:"hadNone,omitempty"`   // of TailDiscard: nodes that had none
}

// TailServer has what cuts have taken from the replicas of a node. Package node implements it. All methods may be called concurrently.
type TailServer interface {
	// ListTails lists tails of topics of the cluster in the order of their places: those that a TailList asks for, and at most so many. hasMore tells
	// that there are more behind the last one. Tails that cannot be read are missing, and problems says why.
	ListTails(q *TailRequest, most int) (list []TailStatus, hasMore bool, problems []string)
	// ReadTail reads bytes of a tail of this node into dst. It reads fewer than dst takes only at the end of the tail.
	ReadTail(q *TailRequest, dst []byte) (int, error)
	// DiscardTail removes a tail of this node. wasThere tells that there was one.
	DiscardTail(q *TailRequest) (wasThere bool, err error)
	// ListUncut lists the replicas of this node that cannot make a cut, in no order.
	ListUncut() []UncutReplica
}
