package producer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/leatstream/leat/internal/record"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// The snapshot file has Kafka's format (ProducerStateManager): a version, a checksum of
// the bytes after it, the number of entries, the entries. Kafka's file has only the last
// batch of a producer. This one has up to five entries for a producer, the oldest first,
// so that a reader which keeps one entry for a producer keeps the newest.
const (
	snapshotVersion = 1
	snapshotHead    = 2 + 4 + 4
	snapshotEntry   = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8

	noCoordinatorEpoch = -1
	noTransaction      = -1
)

// ErrSnapshot is returned for bytes that are not a producer snapshot.
var ErrSnapshot = errors.New("not a producer snapshot")

// Encode returns the contents of the snapshot file.
func (s *State) Encode() []byte {
	b := make([]byte, snapshotHead, snapshotHead+len(s.list)*2*snapshotEntry)
	n := uint32(0)
	for i := range s.list {
		p := &s.list[i]
		for k := range max(p.kept, 1) {
			batch := Batch{LastOffset: -1, Time: p.lastSeen, lastSeq: record.NoSequence}
			if p.kept > 0 {
				batch = p.batches[k]
			}
			b = be.AppendUint64(b, uint64(p.id))
			b = be.AppendUint16(b, uint16(p.epoch))
			b = be.AppendUint32(b, uint32(batch.lastSeq))
			b = be.AppendUint64(b, uint64(batch.LastOffset))
			b = be.AppendUint32(b, uint32(batch.delta))
			b = be.AppendUint64(b, uint64(batch.Time))
			coordinator, transaction := int32(noCoordinatorEpoch), int64(noTransaction)
			b = be.AppendUint32(b, uint32(coordinator))
			b = be.AppendUint64(b, uint64(transaction))
			n++
		}
	}
	be.PutUint16(b, snapshotVersion)
	be.PutUint32(b[6:], n)
	be.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
	return b
}

// Decode replaces the State by the contents of a snapshot file. The producers count as
// active at now, in ms.
func (s *State) Decode(b []byte, now int64) error {
	*s = State{}
	switch {
	case len(b) < snapshotHead || be.Uint16(b) != snapshotVersion:
		return fmt.Errorf("%w: unknown version", ErrSnapshot)
	case be.Uint32(b[2:]) != crc32.Checksum(b[6:], castagnoli):
		return fmt.Errorf("%w: its checksum is wrong", ErrSnapshot)
	case int64(len(b)-snapshotHead) != int64(be.Uint32(b[6:]))*snapshotEntry:
		return fmt.Errorf("%w: its length is wrong", ErrSnapshot)
	}
	for b = b[snapshotHead:]; len(b) > 0; b = b[snapshotEntry:] {
		id, epoch := int64(be.Uint64(b)), int16(be.Uint16(b[8:]))
		at, ok := s.index[id]
		if !ok {
			at = s.addEntry(entry{id: id, epoch: epoch, lastSeen: now})
		}
		p := &s.list[at]
		if p.epoch != epoch {
			p.epoch, p.kept = epoch, 0
		}
		batch := Batch{
			lastSeq: int32(be.Uint32(b[10:])), LastOffset: record.Offset(be.Uint64(b[14:])),
			delta: int32(be.Uint32(b[22:])), Time: int64(be.Uint64(b[26:])),
		}
		if batch.lastSeq >= 0 && batch.delta >= 0 {
			p.pushBatch(batch)
		}
	}
	return nil
}
