// Package commit is the records by which __consumer_offsets tells of committed offsets: Kafka's OffsetCommitKey and OffsetCommitValue. Groups write and read their own ones, and
// links to other clusters read those of the source. An Offset is a value, and a Key is the one of a record. All functions may be called concurrently.
//
// A record's key begins with a version, which tells the kind of the record. Its value begins with a version, too; a record without a value is a tombstone:
//
//	key    0, 1  an offset: version i16, group string, topic string, partition i32
//	       2     a classic group: version i16, group string
//	       3...  groups of other kinds, with records of several kinds for each of them
//	value  0     version i16, offset i64, metadata string, time i64
//	of an  1     as 0, and: expires i64
//	offset 2     as 0
//	       3     version i16, offset i64, leader epoch i32, metadata string, time i64
//	       4     as 3, with a compact string, and tagged fields: 0 is the id of the topic, of 16 bytes; 1000 is Leat's own,
//	             and has the id of the link that has made the commit, of 16 bytes
//
// A string is an i16 length and bytes; a compact one has its length and one more as an uvarint. Apache Kafka 2.1 to 4.0 writes versions 1 and 3, and 4.1 and later ones write 1 and 4.
// Those that read version 4 skip tagged fields which they do not know (KIP-915).
package commit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/leatstream/leat/internal/record"
)

// The kinds of keys that this package reads. A key of version 0 is one of OffsetKind, too.
const (
	OffsetKind int16 = 1
	GroupKind  int16 = 2 // a classic group
)

// The versions of an offset's value that are written.
const (
	versionExpiring = 1 // for requests with a retention of their own
	version         = 3 // without a topic id
	versionFlexible = 4 // with a topic id, or the id of a link
)

// The tags of a flexible value.
const (
	topicTag = 0
	linkTag  = 1000
)

// NoExpiry means that the coordinator's settings say when an offset expires.
const NoExpiry = -1

var be = binary.BigEndian

var (
	// ErrShort is returned for a record that is cut short.
	ErrShort = errors.New("it is cut short")
	// ErrUnknownKind is returned for a key of another kind of record, which is to be skipped, and for a value whose version is negative.
	ErrUnknownKind = errors.New("it is of a kind that this version does not know")
	// ErrNewer is returned for a value of a later version. Who skips it goes on from an older offset.
	ErrNewer = errors.New("its version is a later one")
)

// Key is a record's key. Its slices are those of the record.
type Key struct {
	Kind      int16 // OffsetKind or GroupKind
	Group     []byte
	Topic     []byte // of an offset
	Partition int32  // of an offset
}

// Offset is a committed offset of a group for a partition.
type Offset struct {
	At       record.Offset
	Epoch    record.Epoch // of the record before it
	Time     int64        // of the commit, ms
	Expires  int64        // ms, or NoExpiry
	Topic    [16]byte     // the topic's id; zero if it is not known
	Link     [16]byte     // the link to another cluster that has made the commit; zero: none has. It has no Expires then
	Metadata string
}

// DecodeKey decodes a record's key. The errors are ErrShort and ErrUnknownKind.
func DecodeKey(b []byte) (Key, error) {
	c := fieldReader{b: b}
	k := Key{Kind: c.readInt16()}
	switch k.Kind {
	case 0, OffsetKind:
		k.Kind = OffsetKind
		k.Group, k.Topic, k.Partition = c.readString(), c.readString(), c.readInt32()
	case GroupKind:
		k.Group = c.readString()
	default:
		return Key{}, fmt.Errorf("%w: %d", ErrUnknownKind, k.Kind)
	}
	if c.short {
		return Key{}, ErrShort
	}
	return k, nil
}

// AppendKey appends the key of an offset to b.
func AppendKey(b []byte, group, topic string, partition int32) []byte {
	b = be.AppendUint16(b, uint16(OffsetKind))
	b = appendString(b, group)
	b = appendString(b, topic)
	return be.AppendUint32(b, uint32(partition))
}

func appendString(b []byte, s string) []byte { return append(be.AppendUint16(b, uint16(len(s))), s...) }

// Version is the oldest version of the value that has all fields of the offset, as in Kafka.
func (o *Offset) Version() int16 {
	switch {
	case o.Expires != NoExpiry:
		return versionExpiring
	case o.Topic != [16]byte{} || o.Link != [16]byte{}:
		return versionFlexible
	}
	return version
}

// AppendTo appends the value of the offset's record to b.
func (o *Offset) AppendTo(b []byte) []byte {
	v := o.Version()
	b = be.AppendUint16(b, uint16(v))
	b = be.AppendUint64(b, uint64(o.At))
	if v >= 3 {
		b = be.AppendUint32(b, uint32(o.Epoch))
	}
	if v >= 4 {
		b = binary.AppendUvarint(b, uint64(len(o.Metadata)+1))
		b = append(b, o.Metadata...)
	} else {
		b = appendString(b, o.Metadata)
	}
	b = be.AppendUint64(b, uint64(o.Time))
	if v == versionExpiring {
		b = be.AppendUint64(b, uint64(o.Expires))
	}
	if v >= 4 {
		b = o.appendTags(b)
	}
	return b
}

// appendTags appends the tagged fields of a flexible version, those that are set.
func (o *Offset) appendTags(b []byte) []byte {
	count := len(b)
	b = append(b, 0)
	for _, f := range []struct {
		tag uint64
		id  [16]byte
	}{{topicTag, o.Topic}, {linkTag, o.Link}} {
		if f.id == [16]byte{} {
			continue
		}
		b[count]++
		b = append(binary.AppendUvarint(b, f.tag), byte(len(f.id)))
		b = append(b, f.id[:]...)
	}
	return b
}

// Decode decodes the value of an offset's record. The errors are ErrShort, ErrUnknownKind and ErrNewer.
func Decode(b []byte) (Offset, error) {
	c := fieldReader{b: b}
	v := c.readInt16()
	if v > versionFlexible {
		return Offset{}, fmt.Errorf("%w: a committed offset of version %d", ErrNewer, v)
	}
	if v < 0 {
		return Offset{}, fmt.Errorf("%w: an offset of version %d", ErrUnknownKind, v)
	}
	o := Offset{At: record.Offset(c.readInt64()), Epoch: record.NoEpoch, Expires: NoExpiry}
	if v >= 3 {
		o.Epoch = record.Epoch(c.readInt32())
	}
	if v >= 4 {
		o.Metadata = string(c.readCompactString())
	} else {
		o.Metadata = string(c.readString())
	}
	o.Time = c.readInt64()
	if v == versionExpiring {
		o.Expires = c.readInt64()
	}
	if v >= 4 {
		for n := c.readUvarint(); n > 0 && !c.short; n-- {
			tag, size := c.readUvarint(), c.readUvarint()
			value := c.readBytes(int(min(size, math.MaxInt32)))
			switch {
			case len(value) != len(o.Topic):
			case tag == topicTag:
				o.Topic = [16]byte(value)
			case tag == linkTag:
				o.Link = [16]byte(value)
			}
		}
	}
	if c.short {
		return Offset{}, ErrShort
	}
	return o, nil
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
