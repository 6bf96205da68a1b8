package group

import (
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/commit"
)

// The records of offsets are those of package commit, and those of groups of package classic. Records of unknown kinds are skipped, as in Kafka. A record with an
// unknown version is not skipped (see coord.ErrNewer), since the group would go on from an older offset.

// offset is a committed offset of a group for a partition.
type offset = commit.Offset

// noExpiry means that the settings say when an offset expires.
const noExpiry = commit.NoExpiry

// decodeOffset decodes the value of an offset's record.
func decodeOffset(b []byte) (offset, error) {
	o, err := commit.Decode(b)
	if errors.Is(err, commit.ErrNewer) {
		return offset{}, fmt.Errorf("%w: %w", err, coord.ErrNewer)
	}
	return o, err
}

// putOffset adds a record to the step that sets a group's offset, or deletes it if o is
// nil.
func putOffset(s *coord.Step, group, topic string, partition int32, o *offset) {
	b := commit.AppendKey(s.Buffer(), group, topic, partition)
	n := len(b)
	if o != nil {
		b = o.AppendTo(b)
	}
	s.PutBuffer(b, n)
}

// applyOffset applies the record of a committed offset, or of one that is committed with a transaction; a nil
// value deletes the offset.
func (m *Machine) applyOffset(s *coord.Step, k commit.Key, value []byte) error {
	g := m.groups[string(k.Group)]
	if value == nil {
		if g != nil {
			g.last = s.Next()
			g.offsets.deleteOffset(k.Topic, k.Partition)
			m.dropPendingAt(g, topicPartition{string(k.Topic), k.Partition})
		}
		return nil
	}
	o, err := decodeOffset(value)
	if err != nil {
		return err
	}
	if g == nil { // a commit without a member makes a simple group
		g = m.findOrAddGroup(string(k.Group))
	}
	g.last = s.Next()
	if p, ok := s.Producer(); ok {
		m.addPending(g, p, topicPartition{string(k.Topic), k.Partition}, pendingOffset{producer: p.ID, written: s.Next(), offset: o})
		return nil
	}
	g.offsets.setOffset(k.Topic, k.Partition, &o)
	g.outdatePending(topicPartition{string(k.Topic), k.Partition}, s.Next())
	return nil
}
