package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/classic"
	"github.com/leatstream/leat/internal/record"
)

// A record's key begins with a version that tells its kind:
//
//	0, 1  an offset:  version i16, group string, topic string, partition i32
//	2     a group:    version i16, group string
//	3...  groups of other kinds; not ours yet
//
// Records of other kinds are left out, as Kafka does. A value begins with a version, i16; one
// that is newer than those known here is not left out (coord.ErrNewer): a group would go on
// from an older offset.
//
// A string is an i16 length and bytes. Offsets are written and read by hand, since
// every commit is one; groups by kmsg.
const (
	offsetKey = 1

	offsetRecord         = 3 // of OffsetCommitValue, without a topic id
	offsetRecordWithID   = 4 // flexible
	offsetRecordExpiring = 1 // for requests that state a retention
)

var be = binary.BigEndian

var (
	errShortRecord = errors.New("it is cut short")
	errUnknownKind = errors.New("it is of a kind that this version does not know")
)

// key is a decoded record key; its slices alias the record.
type key struct {
	kind      int16 // offsetKey or classic.Key
	group     []byte
	topic     []byte
	partition int32
}

// cursor reads fields off a record; after a short one everything is zero.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.short = nil, true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) int16() int16 {
	if v := c.take(2); v != nil {
		return int16(be.Uint16(v))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if v := c.take(4); v != nil {
		return int32(be.Uint32(v))
	}
	return 0
}

func (c *cursor) int64() int64 {
	if v := c.take(8); v != nil {
		return int64(be.Uint64(v))
	}
	return 0
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.b, c.short = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) string() []byte { return c.take(int(c.int16())) }

// compact is a string of a flexible version.
func (c *cursor) compact() []byte {
	n := c.uvarint()
	if n == 0 || n > math.MaxInt32 {
		c.b, c.short = nil, true
		return nil
	}
	return c.take(int(n - 1))
}

func decodeKey(b []byte) (key, error) {
	c := cursor{b: b}
	k := key{kind: c.int16()}
	switch k.kind {
	case 0, offsetKey:
		k.kind = offsetKey
		k.group, k.topic, k.partition = c.string(), c.string(), c.int32()
	case classic.Key:
		k.group = c.string()
	default:
		return key{}, fmt.Errorf("%w: %d", errUnknownKind, k.kind)
	}
	if c.short {
		return key{}, errShortRecord
	}
	return k, nil
}

// offset is what a group has committed for a partition.
type offset struct {
	at       record.Offset // the offset committed
	epoch    record.Epoch  // of the record before it
	time     int64         // ms; of the commit
	expires  int64         // ms; -1: as the settings say
	topic    [16]byte      // its id, as far as it is known
	metadata string
}

const noExpiry = -1

// version is the oldest version of OffsetCommitValue that holds all of it, as in Kafka.
func (o *offset) version() int16 {
	switch {
	case o.expires != noExpiry:
		return offsetRecordExpiring
	case o.topic != [16]byte{}:
		return offsetRecordWithID
	}
	return offsetRecord
}

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(be.AppendUint16(b, uint16(len(s))), s...)
}

func appendOffsetKey(b []byte, group, topic string, partition int32) []byte {
	b = be.AppendUint16(b, offsetKey)
	b = appendString(b, group)
	b = appendString(b, topic)
	return be.AppendUint32(b, uint32(partition))
}

func (o *offset) appendTo(b []byte) []byte {
	v := o.version()
	b = be.AppendUint16(b, uint16(v))
	b = be.AppendUint64(b, uint64(o.at))
	if v >= 3 {
		b = be.AppendUint32(b, uint32(o.epoch))
	}
	if v >= 4 {
		b = binary.AppendUvarint(b, uint64(len(o.metadata)+1))
		b = append(b, o.metadata...)
	} else {
		b = appendString(b, o.metadata)
	}
	b = be.AppendUint64(b, uint64(o.time))
	if v == offsetRecordExpiring {
		b = be.AppendUint64(b, uint64(o.expires))
	}
	if v >= 4 {
		b = append(b, 1, 0, 16) // one tag: number 0, 16 bytes
		b = append(b, o.topic[:]...)
	}
	return b
}

func decodeOffset(b []byte) (offset, error) {
	c := cursor{b: b}
	v := c.int16()
	if v > offsetRecordWithID {
		return offset{}, fmt.Errorf("a committed offset of version %d: %w", v, coord.ErrNewer)
	}
	if v < 0 {
		return offset{}, fmt.Errorf("%w: an offset of version %d", errUnknownKind, v)
	}
	o := offset{at: record.Offset(c.int64()), epoch: record.NoEpoch, expires: noExpiry}
	if v >= 3 {
		o.epoch = record.Epoch(c.int32())
	}
	if v >= 4 {
		o.metadata = string(c.compact())
	} else {
		o.metadata = string(c.string())
	}
	o.time = c.int64()
	if v == offsetRecordExpiring {
		o.expires = c.int64()
	}
	if v >= 4 {
		for n := c.uvarint(); n > 0 && !c.short; n-- {
			tag, size := c.uvarint(), c.uvarint()
			value := c.take(int(min(size, math.MaxInt32)))
			if tag == 0 && len(value) == len(o.topic) {
				o.topic = [16]byte(value)
			}
		}
	}
	if c.short {
		return offset{}, errShortRecord
	}
	return o, nil
}

// putOffset decides that a group's offset is o; nil: that there is none.
func putOffset(s *coord.Step, group, topic string, partition int32, o *offset) {
	b := appendOffsetKey(s.Buffer(), group, topic, partition)
	n := len(b)
	if o != nil {
		b = o.appendTo(b)
	}
	s.PutBuffer(b, n)
}

// applyOffset takes over a committed offset, or its end.
func (m *Machine) applyOffset(s *coord.Step, k key, value []byte) error {
	g := m.groups[string(k.group)]
	if value == nil {
		if g != nil {
			g.last = s.Next()
			g.offsets.drop(k.topic, k.partition)
		}
		return nil
	}
	o, err := decodeOffset(value)
	if err != nil {
		return err
	}
	if g == nil { // whoever commits without being a member makes a simple group
		g = m.obtain(string(k.group))
	}
	g.last = s.Next()
	g.offsets.set(k.topic, k.partition, &o)
	return nil
}
