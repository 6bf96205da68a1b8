package record

import "fmt"

// Rules are the requirements of a topic and its broker for a batch that a client sends.
type Rules struct {
	MaxBytes        int   // bound of the batch as it was sent (max.message.bytes); 0: no bound
	MaxDecompressed int64 // bound of its decompressed records (max.decompressed.message.bytes); 0: no bound

	Internal bool // it is a batch of the broker itself, which may have control records and a base offset

	TimestampType TimestampType // of the topic
	Now           int64         // ms
	Before, After int64         // how many ms a timestamp may lie before and after Now; negative: no bound
	NeedKey       bool          // every record must have a key, since the topic is compacted
}

// Next cuts the first batch off b. It checks only the batch's length and format. The
// errors are ErrShort if b ends before the batch does, ErrMagic, and ErrCorrupt for a
// length that no batch has.
func Next(b []byte) (batch Batch, rest []byte, err error) {
	if len(b) <= atMagic {
		return nil, b, ErrShort
	}
	if m := Batch(b).Magic(); m != Magic {
		return nil, b, fmt.Errorf("%w: it is %d", ErrMagic, m)
	}
	size := Batch(b).Size()
	if size < HeaderLen {
		return nil, b, fmt.Errorf("%w: a size of %d bytes is less than a header", ErrCorrupt, size)
	}
	if size > len(b) {
		return nil, b, ErrShort
	}
	return Batch(b[:size:size]), b[size:], nil
}

// Verify checks that b is exactly one batch with a right checksum. It is for batches
// that were read from disk; b may have any length.
func (b Batch) Verify() error {
	if err := b.checkSize(); err != nil {
		return err
	}
	return b.checkCRC()
}

// Check checks everything but the records: b must be exactly one batch of format v2,
// not longer than the rules allow, with a right checksum, and with a header that a
// client may send. b may have any length. The errors are ErrCorrupt, ErrMagic,
// ErrTooLarge, ErrCodec and ErrInvalid.
func (b Batch) Check(r *Rules) error {
	if err := b.checkSize(); err != nil {
		return err
	}
	if o := b.BaseOffset(); o != 0 && !r.Internal {
		return fmt.Errorf("%w: the base offset of the record batch should be 0, but it is %d", ErrInvalid, o)
	}
	if r.MaxBytes > 0 && len(b) > r.MaxBytes {
		return fmt.Errorf("%w: its size is %d bytes, which exceeds the maximum configured value of %d",
			ErrTooLarge, len(b), r.MaxBytes)
	}
	if err := b.checkCRC(); err != nil {
		return err
	}
	if c := b.Codec(); !c.Known() {
		return fmt.Errorf("%w: it is %d", ErrCodec, c)
	}
	if err := b.checkCount(); err != nil {
		return err
	}
	return b.checkProducer(r)
}

func (b Batch) checkSize() error {
	if len(b) > atMagic && b.Magic() != Magic {
		return fmt.Errorf("%w: it is %d", ErrMagic, b.Magic())
	}
	if len(b) < HeaderLen {
		return fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, len(b))
	}
	if b.Size() != len(b) {
		return fmt.Errorf("%w: it says it has %d bytes and has %d", ErrCorrupt, b.Size(), len(b))
	}
	return nil
}

func (b Batch) checkCRC() error {
	if b.CRC() != b.Checksum() {
		return fmt.Errorf("%w: stored crc = %d, computed crc = %d", ErrCorrupt, b.CRC(), b.Checksum())
	}
	return nil
}

// checkCount checks the offsets and the number of records. Records that are not
// compressed must have room in the batch.
func (b Batch) checkCount() error {
	n, last := b.Count(), b.LastOffsetDelta()
	if last < 0 {
		return fmt.Errorf("%w: it has an invalid offset range [%d, %d]", ErrInvalid, b.BaseOffset(), b.LastOffset())
	}
	if n <= 0 {
		return fmt.Errorf("%w: invalid reported count for record batch: %d", ErrInvalid, n)
	}
	if int64(n) != int64(last)+1 {
		return fmt.Errorf("%w: inconsistent batch offset range [%d, %d] and count of records %d",
			ErrInvalid, b.BaseOffset(), b.LastOffset(), n)
	}
	if b.Codec() == None && int64(n)*minRecordLen > int64(len(b.recordBytes())) {
		return fmt.Errorf("%w: %d records do not fit into %d bytes", ErrInvalid, n, len(b.recordBytes()))
	}
	return nil
}

func (b Batch) checkProducer(r *Rules) error {
	attr := b.Attributes()
	if attr&attrReserved != 0 || attr&attrDeleteHorizon != 0 && !r.Internal {
		return fmt.Errorf("%w: attributes 0x%04x have bits set that a client may not set", ErrInvalid, attr)
	}
	if b.Control() && !r.Internal {
		return fmt.Errorf("%w: clients are not allowed to write control records", ErrInvalid)
	}
	switch id := b.ProducerID(); {
	case id < NoProducer, id >= 0 && b.ProducerEpoch() < 0:
		return fmt.Errorf("%w: invalid producer id %d and epoch %d", ErrInvalid, id, b.ProducerEpoch())
	case id >= 0 && b.BaseSequence() < 0 && !b.Control():
		return fmt.Errorf("%w: invalid sequence number %d in record batch with producerId %d",
			ErrInvalid, b.BaseSequence(), id)
	case id == NoProducer && b.Transactional():
		return fmt.Errorf("%w: a transactional batch needs a producer id", ErrInvalid)
	}
	return nil
}
