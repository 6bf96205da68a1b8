package record

import (
	"bytes"
	"cmp"
)

// LogID identifies a partition's log. No two logs ever have the same one, since a topic
// that is deleted and made again has another topic id.
type LogID struct {
	Topic     [16]byte
	Partition int32
}

// Compare orders ids by topic, then by partition.
func (id LogID) Compare(other LogID) int {
	return cmp.Or(bytes.Compare(id.Topic[:], other.Topic[:]), cmp.Compare(id.Partition, other.Partition))
}
