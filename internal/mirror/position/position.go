package position

import (
	"cmp"
	"strings"

	"github.com/leatstream/leat/internal/record"
)

// Position is where a group is in a partition.
type Position struct {
	Offset   record.Offset // of the next record that it needs
	Epoch    record.Epoch  // of the record before that; record.NoEpoch: not known
	Metadata string        // what the consumer has added
	// TopicID is the id that the topic has at the source, or zero if it is not known.
	TopicID [16]byte
	// SourceTime is when the source's coordinator took the commit, by its clock; 0: not known. Where positions are polled it is a time by the clock here, before which the commit was not made.
	SourceTime int64
}

// isSame tells whether a consumer would see no difference.
func (p Position) isSame(o Position) bool {
	return p.Offset == o.Offset && p.Epoch == o.Epoch && p.Metadata == o.Metadata
}

// Place is a partition of a topic.
type Place struct {
	Topic     string
	Partition int32
}

func comparePlaces(a, b Place) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// Extent is what a mirror's partition has.
type Extent struct {
	End         record.Offset // its high watermark
	LastEpoch   record.Epoch  // of the last record below that; record.NoEpoch: there is none
	LeaderEpoch record.Epoch  // the one that clients here see
}

// Within is the position that a client is told while the mirror has no more than this, and by how many offsets the group is beyond that. A group that is beyond is given the end, without the metadata,
// which belong to another offset (Kafka Streams would take the records between for late ones). An epoch above the one that clients see is left out: they would ask for newer metadata without end.
func (p Position) Within(e Extent) (given Position, beyond record.Offset) {
	if p.Offset > e.End {
		p.Offset, p.Epoch, p.Metadata, beyond = e.End, e.LastEpoch, "", p.Offset-e.End
	}
	if p.Epoch > e.LeaderEpoch {
		p.Epoch = record.NoEpoch
	}
	return p, beyond
}
