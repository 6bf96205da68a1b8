// Package record is Kafka's record batch, format v2 (KIP-98): it views, checks,
// iterates, builds and compresses batches and knows nothing of files or sockets.
package record

import "encoding/binary"

// Offset is the position of a record in its partition.
type Offset int64

// Epoch is a partition leader's epoch (KIP-101). NoEpoch stands for "unknown".
type Epoch int32

// NoEpoch is what the protocol sends where no leader epoch is known.
const NoEpoch Epoch = -1

// HeaderLen is the length of a batch's header, base offset and length included.
const HeaderLen = 61

// Batch is one record batch as it stands on the wire and on disk: a view, not a
// copy. Its accessors may be called only when len(b) >= HeaderLen.
type Batch []byte

var be = binary.BigEndian

// BaseOffset is the offset of the first record.
func (b Batch) BaseOffset() Offset { return Offset(be.Uint64(b)) }

// SetBaseOffset stamps the base offset; it lies outside the checksum.
func (b Batch) SetBaseOffset(o Offset) { be.PutUint64(b, uint64(o)) }

// Size is the length of the whole batch in bytes, as its header states it.
func (b Batch) Size() int { return 12 + int(int32(be.Uint32(b[8:]))) }

// LeaderEpoch is the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() Epoch { return Epoch(int32(be.Uint32(b[12:]))) }

// SetLeaderEpoch stamps the leader epoch; it lies outside the checksum.
func (b Batch) SetLeaderEpoch(e Epoch) { be.PutUint32(b[12:], uint32(e)) }

// Magic is the format version; 2 is the only one that Kafka 4 accepts.
func (b Batch) Magic() int8 { return int8(b[16]) }
