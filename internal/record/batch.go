package record

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Offset is the position of a record in its partition.
type Offset int64

// Epoch is a partition leader's epoch (KIP-101). NoEpoch stands for "unknown".
type Epoch int32

// NoEpoch is what the protocol sends where no leader epoch is known.
const NoEpoch Epoch = -1

// What a field holds that was not set.
const (
	NoTimestamp int64 = -1 // a record without a time
	NoProducer  int64 = -1 // a batch of a producer that is not idempotent
	NoSequence  int32 = -1 // the base sequence of such a batch
)

// Magic is the only batch format that Kafka 4 accepts.
const Magic int8 = 2

// HeaderLen is the length of a batch's header, base offset and length included.
const HeaderLen = 61

// prefixLen is the length of base offset and length, which the length leaves out.
const prefixLen = 12

// Where the fields of the header begin.
const (
	atLength          = 8
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atBaseTimestamp   = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atBaseSequence    = 53
	atCount           = 57
)

// The attribute bits.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
	attrReserved      = 0xff80
)

// TimestampType says who set the records' timestamps.
type TimestampType int8

// The two types, as in a topic's message.timestamp.type.
const (
	CreateTime    TimestampType = 0 // the producer
	LogAppendTime TimestampType = 1 // the broker, the same one for all records of a batch
)

// String is the name that the topic config uses.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// Batch is one record batch as it stands on the wire and on disk: a view, not a
// copy. Its accessors may be called only when len(b) >= HeaderLen.
type Batch []byte

var (
	be         = binary.BigEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// BaseOffset is the offset of the first record.
func (b Batch) BaseOffset() Offset { return Offset(be.Uint64(b)) }

// SetBaseOffset stamps the base offset; it lies outside the checksum.
func (b Batch) SetBaseOffset(o Offset) { be.PutUint64(b, uint64(o)) }

// Size is the length of the whole batch in bytes, as its header states it.
func (b Batch) Size() int { return prefixLen + int(int32(be.Uint32(b[atLength:]))) }

// LeaderEpoch is the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() Epoch { return Epoch(int32(be.Uint32(b[atLeaderEpoch:]))) }

// SetLeaderEpoch stamps the leader epoch; it lies outside the checksum.
func (b Batch) SetLeaderEpoch(e Epoch) { be.PutUint32(b[atLeaderEpoch:], uint32(e)) }

// Magic is the format version; 2 is the only one that Kafka 4 accepts.
func (b Batch) Magic() int8 { return int8(b[atMagic]) }

// CRC is the checksum that the header states.
func (b Batch) CRC() uint32 { return be.Uint32(b[atCRC:]) }

// Checksum computes the CRC-32C of what the checksum covers.
func (b Batch) Checksum() uint32 { return crc32.Checksum(b[atAttributes:], castagnoli) }

// seal writes the checksum after a change to what it covers.
func (b Batch) seal() { be.PutUint32(b[atCRC:], b.Checksum()) }

// Attributes are the attribute bits.
func (b Batch) Attributes() uint16 { return be.Uint16(b[atAttributes:]) }

// Codec is how the records are compressed; it may be one that does not exist.
func (b Batch) Codec() Codec { return Codec(b[atAttributes+1] & attrCodec) }

// TimestampType says who set the records' timestamps.
func (b Batch) TimestampType() TimestampType {
	if b[atAttributes+1]&attrLogAppendTime != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// Transactional tells whether the batch is part of a transaction.
func (b Batch) Transactional() bool { return b[atAttributes+1]&attrTransactional != 0 }

// Control tells whether the batch holds a control record (a transaction's marker).
func (b Batch) Control() bool { return b[atAttributes+1]&attrControl != 0 }

// DeleteHorizon is the time in ms from which the tombstones and markers of a
// cleaned batch may go (KIP-534); ok is false where it is not set. The base
// timestamp's field holds it.
func (b Batch) DeleteHorizon() (ms int64, ok bool) {
	if b[atAttributes+1]&attrDeleteHorizon == 0 {
		return 0, false
	}
	return b.BaseTimestamp(), true
}

// LastOffsetDelta is the last record's offset less the base offset.
func (b Batch) LastOffsetDelta() int32 { return int32(be.Uint32(b[atLastOffsetDelta:])) }

// LastOffset is the offset of the last record.
func (b Batch) LastOffset() Offset { return b.BaseOffset() + Offset(b.LastOffsetDelta()) }

// NextOffset is the offset after the last record.
func (b Batch) NextOffset() Offset { return b.LastOffset() + 1 }

// BaseTimestamp is what the records' timestamp deltas count from, in ms.
func (b Batch) BaseTimestamp() int64 { return int64(be.Uint64(b[atBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the records in ms; with LogAppendTime
// it is every record's timestamp.
func (b Batch) MaxTimestamp() int64 { return int64(be.Uint64(b[atMaxTimestamp:])) }

// ProducerID is the id of an idempotent producer, or NoProducer.
func (b Batch) ProducerID() int64 { return int64(be.Uint64(b[atProducerID:])) }

// ProducerEpoch is that producer's epoch.
func (b Batch) ProducerEpoch() int16 { return int16(be.Uint16(b[atProducerEpoch:])) }

// BaseSequence is the first record's sequence number, or NoSequence.
func (b Batch) BaseSequence() int32 { return int32(be.Uint32(b[atBaseSequence:])) }

// LastSequence is the last record's sequence number, or NoSequence.
func (b Batch) LastSequence() int32 {
	if b.BaseSequence() == NoSequence {
		return NoSequence
	}
	return AddSequence(b.BaseSequence(), b.LastOffsetDelta())
}

// Count is the number of records, as the header states it.
func (b Batch) Count() int32 { return int32(be.Uint32(b[atCount:])) }

// AddSequence adds n >= 0 to a sequence number; after 2^31-1 comes 0.
func AddSequence(seq, n int32) int32 {
	return int32((int64(seq) + int64(n)) & math.MaxInt32)
}

// payload is the records, compressed as Codec says.
func (b Batch) payload() []byte { return b[HeaderLen:] }

// SetLogAppendTime makes the batch one whose records all have the time ms, the
// broker's, and mends the checksum.
func (b Batch) SetLogAppendTime(ms int64) { b.setTime(LogAppendTime, ms) }

// SetMaxTimestamp states the largest of the producer's timestamps and mends the
// checksum where that changes the batch.
func (b Batch) SetMaxTimestamp(ms int64) { b.setTime(CreateTime, ms) }

func (b Batch) setTime(t TimestampType, ms int64) {
	if b.TimestampType() == t && b.MaxTimestamp() == ms {
		return
	}
	b[atAttributes+1] &^= attrLogAppendTime
	if t == LogAppendTime {
		b[atAttributes+1] |= attrLogAppendTime
	}
	be.PutUint64(b[atMaxTimestamp:], uint64(ms))
	b.seal()
}
