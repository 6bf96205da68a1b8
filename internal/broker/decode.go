package broker

import (
	"encoding/binary"
	"math"

	"github.com/leatstream/leat/internal/meta"
)

var be = binary.BigEndian

// reader reads a request's fields from its body, one after another. After the first field
// that does not fit, bad is set and every later field is zero, so that a decoder need check
// only once, at the end.
type reader struct {
	b   []byte // the bytes that were not read yet
	bad bool
}

func (r *reader) setBad() {
	r.b, r.bad = nil, true
}

// readRaw reads n bytes, which alias the body.
func (r *reader) readRaw(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.setBad()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) readInt8() int8 {
	if b := r.readRaw(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (r *reader) readInt16() int16 {
	if b := r.readRaw(2); b != nil {
		return int16(be.Uint16(b))
	}
	return 0
}

func (r *reader) readInt32() int32 {
	if b := r.readRaw(4); b != nil {
		return int32(be.Uint32(b))
	}
	return 0
}

func (r *reader) readInt64() int64 {
	if b := r.readRaw(8); b != nil {
		return int64(be.Uint64(b))
	}
	return 0
}

func (r *reader) readUUID() (id meta.UUID) {
	if b := r.readRaw(16); b != nil {
		copy(id[:], b)
	}
	return id
}

// readUvarint reads an unsigned varint of at most 32 bits.
func (r *reader) readUvarint() int {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := int(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b[:min(len(r.b), binary.MaxVarintLen32)])
	if n <= 0 || v > math.MaxUint32 {
		r.setBad()
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// readLength reads the length of a string (short), a byte array or an array; -1 stands for
// null.
func (r *reader) readLength(flexible, short bool) int {
	switch {
	case flexible:
		return r.readUvarint() - 1
	case short:
		return int(r.readInt16())
	}
	return int(r.readInt32())
}

// readString reads a string, and returns whether it is null.
func (r *reader) readString(flexible bool) (s []byte, null bool) {
	n := r.readLength(flexible, true)
	if n == -1 && !r.bad {
		return nil, true
	}
	return r.readRaw(n), false
}

// readName reads a string that must not be null.
func (r *reader) readName(flexible bool) []byte {
	s, null := r.readString(flexible)
	if null {
		r.setBad()
	}
	return s
}

// readBytes reads a byte array; nil: it is null.
func (r *reader) readBytes(flexible bool) []byte {
	n := r.readLength(flexible, false)
	if n == -1 {
		return nil
	}
	return r.readRaw(n)
}

// readCount reads the length of an array whose elements have at least so many bytes each. It
// refuses a length for which too few bytes are left.
func (r *reader) readCount(flexible bool, least int) int {
	n := r.readLength(flexible, false)
	if n < 0 || n > len(r.b)/least {
		r.setBad()
		return 0
	}
	return n
}

// readTags reads the tagged fields, and calls known with each unless it is nil.
func (r *reader) readTags(flexible bool, known func(tag int, field reader)) {
	if !flexible {
		return
	}
	for n := r.readUvarint(); n > 0 && !r.bad; n-- {
		tag := r.readUvarint()
		field := r.readRaw(r.readUvarint())
		if known != nil && !r.bad {
			known(tag, reader{b: field})
		}
	}
}

// isValid tells whether all fields that were read have fitted. Bytes after them are ignored,
// as in Kafka.
func (r *reader) isValid() bool { return !r.bad }

// appendLen appends the length of an array.
func appendLen(b []byte, flexible bool, n int) []byte {
	if flexible {
		return binary.AppendUvarint(b, uint64(n+1))
	}
	return be.AppendUint32(b, uint32(n))
}

// appendString appends a string that is not null.
func appendString[S string | []byte](b []byte, flexible bool, s S) []byte {
	if flexible {
		b = binary.AppendUvarint(b, uint64(len(s)+1))
	} else {
		b = be.AppendUint16(b, uint16(len(s)))
	}
	return append(b, s...)
}

// appendNull appends a string that is null.
func appendNull(b []byte, flexible bool) []byte {
	if flexible {
		return append(b, 0)
	}
	return append(b, 0xff, 0xff)
}

// appendText appends a string, and null in place of an empty one.
func appendText(b []byte, flexible bool, s string) []byte {
	if s == "" {
		return appendNull(b, flexible)
	}
	return appendString(b, flexible, s[:min(len(s), math.MaxInt16)])
}

// appendTags ends a flexible structure that has no tagged fields.
func appendTags(b []byte, flexible bool) []byte {
	if flexible {
		return append(b, 0)
	}
	return b
}
