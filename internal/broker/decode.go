package broker

import (
	"encoding/binary"
	"math"

	"github.com/leatstream/leat/internal/meta"
)

var be = binary.BigEndian

// reader takes a request's fields off its body. After the first field that does
// not fit, bad is set and everything read is zero, so that a decoder checks once.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.b, r.bad = nil, true
}

// take returns the next n bytes; they alias the body.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (r *reader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(be.Uint16(b))
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(be.Uint32(b))
	}
	return 0
}

func (r *reader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(be.Uint64(b))
	}
	return 0
}

func (r *reader) uuid() (id meta.UUID) {
	if b := r.take(16); b != nil {
		copy(id[:], b)
	}
	return id
}

// uvarint reads an unsigned varint of at most 32 bits.
func (r *reader) uvarint() int {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := int(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b[:min(len(r.b), binary.MaxVarintLen32)])
	if n <= 0 || v > math.MaxUint32 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// length reads how long a string, an array or bytes are; -1 stands for null.
func (r *reader) length(flexible, short bool) int {
	switch {
	case flexible:
		return r.uvarint() - 1
	case short:
		return int(r.int16())
	}
	return int(r.int32())
}

// string reads a string; null is true where it is null.
func (r *reader) string(flexible bool) (s []byte, null bool) {
	n := r.length(flexible, true)
	if n == -1 && !r.bad {
		return nil, true
	}
	return r.take(n), false
}

// name reads a string that must not be null.
func (r *reader) name(flexible bool) []byte {
	s, null := r.string(flexible)
	if null {
		r.fail()
	}
	return s
}

// bytes reads a byte array, nil where it is null.
func (r *reader) bytes(flexible bool) []byte {
	n := r.length(flexible, false)
	if n == -1 {
		return nil
	}
	return r.take(n)
}

// count reads the length of an array whose elements take the least
// number of bytes each or more: a count that the remaining bytes cannot hold is refused here.
func (r *reader) count(flexible bool, least int) int {
	n := r.length(flexible, false)
	if n < 0 || n > len(r.b)/least {
		r.fail()
		return 0
	}
	return n
}

// tags skips tagged fields; known, where not nil, is called with each.
func (r *reader) tags(flexible bool, known func(tag int, field reader)) {
	if !flexible {
		return
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		tag := r.uvarint()
		field := r.take(r.uvarint())
		if known != nil && !r.bad {
			known(tag, reader{b: field})
		}
	}
}

// end tells whether all fitted. Bytes that follow are ignored, as Kafka does.
func (r *reader) end() bool { return !r.bad }

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

// appendText appends a string of which the empty one stands for null.
func appendText(b []byte, flexible bool, s string) []byte {
	if s == "" {
		return appendNull(b, flexible)
	}
	return appendString(b, flexible, s[:min(len(s), math.MaxInt16)])
}

// appendTags appends the end of a flexible structure without tagged fields.
func appendTags(b []byte, flexible bool) []byte {
	if flexible {
		return append(b, 0)
	}
	return b
}
