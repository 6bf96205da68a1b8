package record

import (
	"bytes"
	"cmp"
)

// LogID names a partition's log for ever: a topic that is deleted and made again has
// another id.
type LogID struct {
	Topic     [16]byte
	Partition int32
}

// Compare orders ids by topic, then by partition.
func (id LogID) Compare(other LogID) int {
	return cmp.Or(bytes.Compare(id.Topic[:], other.Topic[:]), cmp.Compare(id.Partition, other.Partition))
}
