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

// A record's key begins with a version, which tells the kind of the record:
//
//	0, 1  an offset:  version i16, group string, topic string, partition i32
//	2     a group:    version i16, group string
//	3...  groups of kinds that this version does not have
//
// Records of unknown kinds are skipped, as in Kafka. A value begins with a version, i16.
// A record with an unknown version is not skipped (see coord.ErrNewer), since the group
// would go on from an older offset.
//
// A string is an i16 length and bytes. Offsets are encoded and decoded by the functions
// below, since every commit has some; groups by kmsg.
const (
	offsetKey = 1

	// Versions of OffsetCommitValue.
	offsetRecord         = 3 // without a topic id
	offsetRecordWithID   = 4 // flexible, with a topic id
	offsetRecordExpiring = 1 // for requests with a retention of their own
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

// fieldReader reads the fields of a record in their order. It returns zero for a field
// that is cut short, and for all that follow; short tells of it at the end.
type fieldReader struct {
	b     []byte
	short bool
}

func (c *fieldReader) readBytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.short = nil, true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *fieldReader) readInt16() int16 {
	if v := c.readBytes(2); v != nil {
		return int16(be.Uint16(v))
	}
	return 0
}

func (c *fieldReader) readInt32() int32 {
	if v := c.readBytes(4); v != nil {
		return int32(be.Uint32(v))
	}
	return 0
}

func (c *fieldReader) readInt64() int64 {
	if v := c.readBytes(8); v != nil {
		return int64(be.Uint64(v))
	}
	return 0
}

func (c *fieldReader) readUvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.b, c.short = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *fieldReader) readString() []byte { return c.readBytes(int(c.readInt16())) }

// readCompactString reads a string of a flexible version.
func (c *fieldReader) readCompactString() []byte {
	n := c.readUvarint()
	if n == 0 || n > math.MaxInt32 {
		c.b, c.short = nil, true
		return nil
	}
	return c.readBytes(int(n - 1))
}

func decodeKey(b []byte) (key, error) {
	c := fieldReader{b: b}
	k := key{kind: c.readInt16()}
	switch k.kind {
	case 0, offsetKey:
		k.kind = offsetKey
		k.group, k.topic, k.partition = c.readString(), c.readString(), c.readInt32()
	case classic.Key:
		k.group = c.readString()
	default:
		return key{}, fmt.Errorf("%w: %d", errUnknownKind, k.kind)
	}
	if c.short {
		return key{}, errShortRecord
	}
	return k, nil
}

// offset is a committed offset of a group for a partition.
type offset struct {
	at       record.Offset
	epoch    record.Epoch // of the record before it
	time     int64        // of the commit, ms
	expires  int64        // ms, or noExpiry
	topic    [16]byte     // the topic's id; zero if it is not known
	metadata string
}

// noExpiry means that the settings say when an offset expires.
const noExpiry = -1

// valueVersion is the oldest version of OffsetCommitValue that has all fields of the
// offset, as in Kafka.
func (o *offset) valueVersion() int16 {
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
	v := o.valueVersion()
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
	c := fieldReader{b: b}
	v := c.readInt16()
	if v > offsetRecordWithID {
		return offset{}, fmt.Errorf("a committed offset of version %d: %w", v, coord.ErrNewer)
	}
	if v < 0 {
		return offset{}, fmt.Errorf("%w: an offset of version %d", errUnknownKind, v)
	}
	o := offset{at: record.Offset(c.readInt64()), epoch: record.NoEpoch, expires: noExpiry}
	if v >= 3 {
		o.epoch = record.Epoch(c.readInt32())
	}
	if v >= 4 {
		o.metadata = string(c.readCompactString())
	} else {
		o.metadata = string(c.readString())
	}
	o.time = c.readInt64()
	if v == offsetRecordExpiring {
		o.expires = c.readInt64()
	}
	if v >= 4 {
		for n := c.readUvarint(); n > 0 && !c.short; n-- {
			tag, size := c.readUvarint(), c.readUvarint()
			value := c.readBytes(int(min(size, math.MaxInt32)))
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

// putOffset adds a record to the step that sets a group's offset, or deletes it if o is
// nil.
func putOffset(s *coord.Step, group, topic string, partition int32, o *offset) {
	b := appendOffsetKey(s.Buffer(), group, topic, partition)
	n := len(b)
	if o != nil {
		b = o.appendTo(b)
	}
	s.PutBuffer(b, n)
}

// applyOffset applies the record of a committed offset, or of one that is committed with a transaction; a nil
// value deletes the offset.
func (m *Machine) applyOffset(s *coord.Step, k key, value []byte) error {
	g := m.groups[string(k.group)]
	if value == nil {
		if g != nil {
			g.last = s.Next()
			g.offsets.deleteOffset(k.topic, k.partition)
			m.dropPendingAt(g, topicPartition{string(k.topic), k.partition})
		}
		return nil
	}
	o, err := decodeOffset(value)
	if err != nil {
		return err
	}
	if g == nil { // a commit without a member makes a simple group
		g = m.findOrAddGroup(string(k.group))
	}
	g.last = s.Next()
	if p, ok := s.Producer(); ok {
		m.addPending(g, p, topicPartition{string(k.topic), k.partition}, pendingOffset{producer: p.ID, written: s.Next(), offset: o})
		return nil
	}
	g.offsets.setOffset(k.topic, k.partition, &o)
	g.outdatePending(topicPartition{string(k.topic), k.partition}, s.Next())
	return nil
}
