package progress

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// Description is what a broker of the source says of the partition.
type Description struct {
	Trouble     Trouble // TopicGone: the topic or the partition is not there; LeaderUnknown: it has no leader now
	Topic       TopicID // zero: the source has no ids
	Leader      int32
	LeaderEpoch record.Epoch // NoEpoch: the source does not tell

	Broker int32 // who says so
	// IsOnly tells that the source has no other broker.
	IsOnly bool
	Asked  time.Duration // when it was asked, by the clock of the Mirror
}

// Answer is the answer to a Fetch.
type Answer struct {
	Trouble       Trouble
	Compared      bool // the broker has compared the last epoch (Fetch from version 12 on)
	Start         record.Offset
	HighWatermark record.Offset
	Stable        record.Offset // the last stable offset
	// Diverged is the source's answer for the last epoch: an epoch that is lower, or ends before the fetch's offset. Nil: it has found no difference, or has not compared.
	Diverged *Tail
	Nearer   int32  // the broker that should be asked instead (KIP-392); -1: this one
	Raw      []byte // batches, one behind the other; the last one may be cut. The Mirror hands it out again with Append
}

// SourceRange is the source's answer to FindRange.
type SourceRange struct{ Start, HighWatermark record.Offset }

// Source is what is known of the partition at the source.
type Source struct {
	Topic         TopicID
	Leader        int32        // -1: not known
	LeaderEpoch   record.Epoch // NoEpoch: not known
	Start         record.Offset
	HighWatermark record.Offset // the highest that was heard of since a cut; -1: none
	Stable        record.Offset
	End           record.Offset // the highest end that was heard of since a cut: records may lie there that are not committed
	Contact       time.Duration // when the source last answered for the partition; Never: it has not
}

// Never is a time that has not been.
const Never time.Duration = -1 << 63
