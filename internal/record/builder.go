package record

import (
	"errors"
	"fmt"
	"math"
)

// Builder makes batches, one after another. Its fields may be set before Build; the
// zero value builds uncompressed batches without a producer id.
type Builder struct {
	Codec         Codec
	Level         int // of the codec, as compression.*.level; 0 means its default
	Transactional bool
	Control       bool
	LeaderEpoch   Epoch

	buf      []byte // header and records
	packed   []byte // the batch compressed
	count    int
	maxTime  int64
	producer struct { // goes into the header if known is true
		known bool
		id    int64
		epoch int16
		seq   int32
	}
}

// ErrEmpty is returned by Build if no record was appended.
var ErrEmpty = errors.New("a batch needs a record")

// SetProducer sets the idempotent producer whose batches are built.
func (bu *Builder) SetProducer(id int64, epoch int16, seq int32) {
	bu.producer.known, bu.producer.id, bu.producer.epoch, bu.producer.seq = true, id, epoch, seq
}

// ForgetProducer has batches built without a producer, as by the zero value.
func (bu *Builder) ForgetProducer() { bu.producer.known = false }

// Reset removes the records; fields, producer and memory stay. The batch that was built
// before is no longer valid.
func (bu *Builder) Reset() { bu.buf, bu.count = bu.buf[:0], 0 }

// Count is the number of records appended.
func (bu *Builder) Count() int { return bu.count }

// Len is the size in bytes that an uncompressed batch of the records would have.
func (bu *Builder) Len() int { return max(HeaderLen, len(bu.buf)) }

// Append adds a record with a timestamp in ms; a nil key or value is null. The
// bytes are copied.
func (bu *Builder) Append(ms int64, key, value []byte, headers ...Header) {
	if bu.count == 0 {
		bu.buf = append(bu.buf[:0], make([]byte, HeaderLen)...)
		be.PutUint64(bu.buf[atBaseTimestamp:], uint64(ms))
		bu.maxTime = ms
	}
	bu.maxTime = max(bu.maxTime, ms)
	delta := ms - Batch(bu.buf).BaseTimestamp()
	size := 1 + varintLen(delta) + varintLen(int64(bu.count)) + fieldLen(key) + fieldLen(value) + varintLen(int64(len(headers)))
	for _, h := range headers {
		size += varintLen(int64(len(h.Key))) + len(h.Key) + fieldLen(h.Value)
	}
	b := appendVarint(bu.buf, int64(size))
	b = append(b, 0) // attributes
	b = appendVarint(b, delta)
	b = appendVarint(b, int64(bu.count))
	b = appendField(b, key)
	b = appendField(b, value)
	b = appendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = append(appendVarint(b, int64(len(h.Key))), h.Key...)
		b = appendField(b, h.Value)
	}
	bu.buf = b
	bu.count++
}

func fieldLen(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLen(int64(len(b))) + len(b)
}

func appendField(dst, b []byte) []byte {
	if b == nil {
		return appendVarint(dst, -1)
	}
	return append(appendVarint(dst, int64(len(b))), b...)
}

// Build makes the batch, with base offset 0. It refers to the Builder's memory and is
// valid until the next Append or Reset.
func (bu *Builder) Build() (Batch, error) {
	if bu.count == 0 {
		return nil, ErrEmpty
	}
	b := Batch(bu.buf)
	attr := uint16(bu.Codec)
	if bu.Transactional {
		attr |= attrTransactional
	}
	if bu.Control {
		attr |= attrControl
	}
	be.PutUint32(b[atLeaderEpoch:], uint32(bu.LeaderEpoch))
	b[atMagic] = byte(Magic)
	be.PutUint16(b[atAttributes:], attr)
	be.PutUint32(b[atLastOffsetDelta:], uint32(bu.count-1))
	be.PutUint64(b[atMaxTimestamp:], uint64(bu.maxTime))
	id, epoch, seq := NoProducer, int16(-1), NoSequence
	if bu.producer.known {
		id, epoch, seq = bu.producer.id, bu.producer.epoch, bu.producer.seq
	}
	be.PutUint64(b[atProducerID:], uint64(id))
	be.PutUint16(b[atProducerEpoch:], uint16(epoch))
	be.PutUint32(b[atBaseSequence:], uint32(seq))
	be.PutUint32(b[atCount:], uint32(bu.count))
	if bu.Codec == None {
		return b.writeLengthAndCRC()
	}
	var err error
	bu.packed = append(bu.packed[:0], b[:HeaderLen]...)
	if bu.packed, err = appendCompressed(bu.packed, b.recordBytes(), bu.Codec, bu.Level); err != nil {
		return nil, err
	}
	return Batch(bu.packed).writeLengthAndCRC()
}

// writeLengthAndCRC writes the length and the checksum into the header.
func (b Batch) writeLengthAndCRC() (Batch, error) {
	if len(b)-prefixLen > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d bytes do not fit the format", ErrTooLarge, len(b))
	}
	be.PutUint32(b[atLength:], uint32(len(b)-prefixLen))
	b.writeCRC()
	return b, nil
}
