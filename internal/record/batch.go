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

// NoEpoch means that a leader epoch is not known.
const NoEpoch Epoch = -1

// The values of fields that are not set.
const (
	NoTimestamp int64 = -1 // the timestamp of a record without one
	NoProducer  int64 = -1 // the producer id of a producer that is not idempotent
	NoSequence  int32 = -1 // the base sequence of such a producer's batch
)

// Magic is the only batch format that Kafka 4 accepts.
const Magic int8 = 2

// HeaderLen is the length of a batch's header, base offset and length included.
const HeaderLen = 61

// prefixLen is the length of the fields base offset and length, which the length field
// does not count.
const prefixLen = 12

// The positions of the header's fields.
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

// TimestampType says whether the producer or the broker set the records' timestamps.
type TimestampType int8

// The two types, as in a topic's message.timestamp.type.
const (
	CreateTime    TimestampType = 0 // the producer set each record's timestamp
	LogAppendTime TimestampType = 1 // the broker set one timestamp for all records of the batch
)

// String is the type's name in message.timestamp.type.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// Batch is the bytes of one record batch, as on the wire and on disk. Its methods may
// be called only if len(b) >= HeaderLen, unless they say otherwise.
type Batch []byte

var (
	be         = binary.BigEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// BaseOffset is the offset of the first record.
func (b Batch) BaseOffset() Offset { return Offset(be.Uint64(b)) }

// SetBaseOffset sets the base offset, which the checksum does not cover.
func (b Batch) SetBaseOffset(o Offset) { be.PutUint64(b, uint64(o)) }

// Size is the length of the whole batch in bytes, according to its header.
func (b Batch) Size() int { return prefixLen + int(int32(be.Uint32(b[atLength:]))) }

// LeaderEpoch is the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() Epoch { return Epoch(int32(be.Uint32(b[atLeaderEpoch:]))) }

// SetLeaderEpoch sets the leader epoch, which the checksum does not cover.
func (b Batch) SetLeaderEpoch(e Epoch) { be.PutUint32(b[atLeaderEpoch:], uint32(e)) }

// Magic is the format version; 2 is the only one that Kafka 4 accepts.
func (b Batch) Magic() int8 { return int8(b[atMagic]) }

// CRC is the checksum in the header.
func (b Batch) CRC() uint32 { return be.Uint32(b[atCRC:]) }

// Checksum computes the checksum of the batch, a CRC-32C.
func (b Batch) Checksum() uint32 { return crc32.Checksum(b[atAttributes:], castagnoli) }

// writeCRC computes the checksum and writes it into the header.
func (b Batch) writeCRC() { be.PutUint32(b[atCRC:], b.Checksum()) }

// Attributes are the attribute bits.
func (b Batch) Attributes() uint16 { return be.Uint16(b[atAttributes:]) }

// Codec is how the records are compressed. It may be a codec that does not exist.
func (b Batch) Codec() Codec { return Codec(b[atAttributes+1] & attrCodec) }

// TimestampType says whether the producer or the broker set the records' timestamps.
func (b Batch) TimestampType() TimestampType {
	if b[atAttributes+1]&attrLogAppendTime != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// Transactional tells whether the batch is part of a transaction.
func (b Batch) Transactional() bool { return b[atAttributes+1]&attrTransactional != 0 }

// Control tells whether the batch has a control record (the marker of a transaction).
func (b Batch) Control() bool { return b[atAttributes+1]&attrControl != 0 }

// DeleteHorizon is the time in ms from which on a cleaner may delete the tombstones and
// markers of the batch (KIP-534). It is in the field of the base timestamp; ok is false
// if it is not set.
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

// BaseTimestamp is the timestamp in ms to which the records' timestamp deltas are added.
func (b Batch) BaseTimestamp() int64 { return int64(be.Uint64(b[atBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the records in ms. With LogAppendTime it is
// the timestamp of every record.
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

// Count is the number of records, according to the header.
func (b Batch) Count() int32 { return int32(be.Uint32(b[atCount:])) }

// AddSequence adds n >= 0 to a sequence number; after 2^31-1 comes 0.
func AddSequence(seq, n int32) int32 {
	return int32((int64(seq) + int64(n)) & math.MaxInt32)
}

// recordBytes are the bytes of the records, compressed by Codec.
func (b Batch) recordBytes() []byte { return b[HeaderLen:] }

// SetLogAppendTime gives all records the broker's time ms, and computes the checksum.
func (b Batch) SetLogAppendTime(ms int64) { b.setTime(LogAppendTime, ms) }

// SetMaxTimestamp sets the largest of the producer's timestamps, and computes the
// checksum if that changes the batch.
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
	b.writeCRC()
}
