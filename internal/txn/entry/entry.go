// Package entry is the records by which __transaction_state tells of transactions: Kafka's TransactionLogKey and TransactionLogValue. The coordinator writes its own ones, and links to other clusters read those of the
// source. A Transaction is a value. All functions may be called concurrently.
//
//	key    version i16 (0), transactional id string
//	value  version i16, producer id i64, producer epoch i16, timeout i32 in ms, status i8, topics (name string, partitions i32...), time of the last change i64, time of the begin i64
//	       0  as it is; Kafka before 4.0 writes it
//	       1  with compact strings and lists, and tagged fields: 0 and 1 are the producer ids before and after this one, 2 is the version of the client's transactions (KIP-890)
//
// A record without a value is a tombstone.
package entry

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kbin"
)

// Topic is the topic of these records.
const Topic = "__transaction_state"

// The versions that are read.
const (
	keyVersion  = 0
	lastVersion = 1
)

// NoProducer stands for a producer id that there is none of.
const NoProducer = -1

var (
	// ErrUnknownKind is returned for a key of another kind of record.
	ErrUnknownKind = errors.New("it is of a kind that this version does not know")
	// ErrNewer is returned for a value of a later version.
	ErrNewer = errors.New("its version is a later one")
)

// Status is what a transaction does, in Kafka's numbers. One that is read may be unknown.
type Status int8

// The statuses.
const (
	Empty Status = iota
	Ongoing
	PrepareCommit
	PrepareAbort
	CompleteCommit
	CompleteAbort
)

// Partitions are partitions of a topic.
type Partitions struct {
	Topic      string
	Partitions []int32
}

// Transaction is the present transaction of a transactional id, or its last one. What was read does not refer to the bytes.
type Transaction struct {
	Producer       int64
	Epoch          int16 // of the producer; while it ends, and then, of its markers
	Timeout        int32 // ms
	Status         Status
	Topics         []Partitions // those of one topic may be in several entries
	Updated, Start int64        // ms
	Previous, Next int64        // producer ids; NoProducer
	Version        int16        // 2: each transaction of the client has an epoch of its own
}

// DecodeKey returns the transactional id of a key.
func DecodeKey(b []byte) (string, error) {
	r := kbin.Reader{Src: b}
	if version := r.Int16(); version != keyVersion {
		return "", fmt.Errorf("%w: %d", ErrUnknownKind, version)
	}
	id := r.String()
	if err := r.Complete(); err != nil {
		return "", fmt.Errorf("the key of a transaction cannot be decoded: %w", err)
	}
	return id, nil
}

// Decode decodes a value. other is called with the tagged fields that are not Kafka's; nil: nobody wants them.
func Decode(b []byte, other func(tag uint32, value []byte)) (Transaction, error) {
	r := kbin.Reader{Src: b}
	version := r.Int16()
	if version > lastVersion || version < 0 {
		return Transaction{}, fmt.Errorf("a transaction of version %d: %w", version, ErrNewer)
	}
	t := Transaction{
		Producer: r.Int64(), Epoch: r.Int16(), Timeout: r.Int32(), Status: Status(r.Int8()), Topics: readTopics(&r, version), Previous: NoProducer, Next: NoProducer,
	}
	t.Updated, t.Start = r.Int64(), r.Int64()
	if version >= 1 {
		readTags(&r, func(tag uint32, value []byte) {
			switch {
			case tag == 0 && len(value) == 8:
				t.Previous = int64(binary.BigEndian.Uint64(value))
			case tag == 1 && len(value) == 8:
				t.Next = int64(binary.BigEndian.Uint64(value))
			case tag == 2 && len(value) == 2:
				t.Version = int16(binary.BigEndian.Uint16(value))
			case tag > 2 && other != nil:
				other(tag, value)
			}
		})
	}
	if err := r.Complete(); err != nil {
		return Transaction{}, fmt.Errorf("a transaction cannot be decoded: %w", err)
	}
	return t, nil
}

// readTopics reads a list of topics with partitions, which may be null.
func readTopics(r *kbin.Reader, version int16) (list []Partitions) {
	readLength, readString := r.ArrayLen, r.String
	if version >= 1 {
		readLength, readString = r.CompactArrayLen, r.CompactString
	}
	for n := readLength(); n > 0 && r.Ok(); n-- {
		t := Partitions{Topic: readString()}
		for k := readLength(); k > 0 && r.Ok(); k-- {
			t.Partitions = append(t.Partitions, r.Int32())
		}
		if version >= 1 {
			readTags(r, func(uint32, []byte) {})
		}
		list = append(list, t)
	}
	return list
}

// readTags reads tagged fields. Unlike kmsg it ends when the bytes do, however many they are to be.
func readTags(r *kbin.Reader, take func(tag uint32, value []byte)) {
	for n := r.Uvarint(); n > 0 && r.Ok(); n-- {
		tag, size := r.Uvarint(), r.Uvarint()
		take(tag, r.Span(int(size)))
	}
}
