package record

import (
	"errors"
	"fmt"
	"math"
)

// Builder makes batches. Its fields may be set before Build; the zero value builds
// uncompressed batches of no producer. One Builder serves many batches.
type Builder struct {
	Codec         Codec
	Level         int // of the codec, as compression.*.level; 0: its default
	Transactional bool
	Control       bool
	LeaderEpoch   Epoch

	buf      []byte // header and records
	packed   []byte // the batch compressed
	count    int
	maxTime  int64
	producer struct { // as in the header where known is true
		known bool
		id    int64
		epoch int16
		seq   int32
	}
}

// ErrEmpty is returned by Build where no record was appended.
var ErrEmpty = errors.New("a batch needs a record")

// SetProducer makes the batches those of an idempotent producer.
func (bu *Builder) SetProducer(id int64, epoch int16, seq int32) {
	bu.producer.known, bu.producer.id, bu.producer.epoch, bu.producer.seq = true, id, epoch, seq
}

// Reset forgets the records and keeps fields, producer and memory. The batch built
// before is not valid any more.
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

// Build makes the batch, with base offset 0. It is in the Builder's memory and
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
		return b.finish()
	}
	var err error
	bu.packed = append(bu.packed[:0], b[:HeaderLen]...)
	if bu.packed, err = compress(bu.packed, b.payload(), bu.Codec, bu.Level); err != nil {
		return nil, err
	}
	return Batch(bu.packed).finish()
}

// finish writes length and checksum.
func (b Batch) finish() (Batch, error) {
	if len(b)-prefixLen > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d bytes do not fit the format", ErrTooLarge, len(b))
	}
	be.PutUint32(b[atLength:], uint32(len(b)-prefixLen))
	b.seal()
	return b, nil
}
