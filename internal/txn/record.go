package txn

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// A record's key is: version i16 (0), transactional id string. Its value begins with a version:
//
//	0  fixed fields; Kafka before 4.0 writes it
//	1  the same and tagged fields: the producer ids before and after this one, and how the
//	   transaction ends (KIP-890)
//
// Leat reads both and writes version 1. It adds one tagged field of its own, which others skip:
// lastEpochTag, for a producer that asks again at another coordinator whether it got an epoch.
const (
	keyVersion   = 0
	valueVersion = 1
	lastEpochTag = 1000 // i16, only if derivedLast is not right
)

var (
	errUnknownKind = errors.New("it is of a kind that this version does not know")
	errInvalid     = errors.New("it is not valid")
)

// derivedLast is the epoch before that of a state, as far as the state tells.
func derivedLast(st *state) int16 {
	if st.version != bumpEpoch || st.status == empty || st.status == ongoing {
		return noEpoch
	}
	if st.epoch == 0 {
		return exhausted
	}
	return st.epoch - 1
}

// putState adds the record of an id's next state to the step.
func putState(s *coord.Step, id string, st *state) {
	b := appendKey(s.Buffer(), id)
	n := len(b)
	s.PutBuffer(appendValue(b, st), n)
}

// putTombstone adds the record that deletes an id to the step.
func putTombstone(s *coord.Step, id string) {
	b := appendKey(s.Buffer(), id)
	s.PutBuffer(b, len(b))
}

func appendKey(b []byte, id string) []byte {
	k := kmsg.TxnMetadataKey{Version: keyVersion, TransactionalID: id}
	return k.AppendTo(b)
}

func appendValue(b []byte, st *state) []byte {
	v := kmsg.NewTxnMetadataValue()
	v.Version = valueVersion
	v.ProducerID, v.PreviousProducerID, v.NextProducerID = st.producer, st.previous, st.next
	v.ProducerEpoch, v.TimeoutMillis, v.State = st.epoch, st.timeout, kmsg.TransactionState(st.status)
	v.LastUpdateTimestamp, v.StartTimestamp, v.ClientTransactionVersion = st.updated, st.start, st.version
	if st.status != empty {
		v.Topics = make([]kmsg.TxnMetadataValueTopic, len(st.partitions))
		for i, t := range st.partitions {
			v.Topics[i].Topic, v.Topics[i].Partitions = t.Topic, t.Partitions
		}
	}
	if st.last != derivedLast(st) {
		v.UnknownTags.Set(lastEpochTag, binary.BigEndian.AppendUint16(nil, uint16(st.last)))
	}
	return v.AppendTo(b)
}

// decodeKey returns the transactional id of a key.
func decodeKey(b []byte) (string, error) {
	r := kbin.Reader{Src: b}
	if version := r.Int16(); version != keyVersion {
		return "", fmt.Errorf("%w: %d", errUnknownKind, version)
	}
	id := r.String()
	if err := r.Complete(); err != nil {
		return "", fmt.Errorf("the key of a transaction cannot be decoded: %w", err)
	}
	return id, nil
}

// decodeValue decodes a value. The result does not refer to the bytes.
func decodeValue(b []byte) (state, error) {
	r := kbin.Reader{Src: b}
	version := r.Int16()
	if version > valueVersion || version < 0 {
		return state{}, fmt.Errorf("a transaction of version %d: %w", version, coord.ErrNewer)
	}
	st := state{
		producer: r.Int64(), epoch: r.Int16(), timeout: r.Int32(), status: status(r.Int8()),
		previous: noProducer, next: noProducer, last: noEpoch,
	}
	list := readPartitions(&r, version)
	st.updated, st.start = r.Int64(), r.Int64()
	var tags [4][]byte // those that are known: the last one is lastEpochTag
	if version >= 1 {
		readTags(&r, func(tag uint32, value []byte) {
			switch tag {
			case 0, 1, 2:
				tags[tag] = value
			case lastEpochTag:
				tags[3] = value
			}
		})
	}
	if err := r.Complete(); err != nil {
		return state{}, fmt.Errorf("a transaction cannot be decoded: %w", err)
	}
	st.previous, st.next = int64Of(tags[0], noProducer), int64Of(tags[1], noProducer)
	st.version = int16Of(tags[2], sameEpoch)
	if err := st.check(); err != nil {
		return state{}, err
	}
	if st.version != bumpEpoch {
		st.version = sameEpoch
	}
	if !st.isIdle() {
		st.partitions = makeSet(list)
	}
	st.last = int16Of(tags[3], derivedLast(&st))
	return st, nil
}

// check tells whether a state that was read can be one.
func (st *state) check() error {
	switch {
	case int(st.status) >= len(statusNames()) || st.version > bumpEpoch:
		return fmt.Errorf("a transaction in state %d of transaction.version %d: %w", int8(st.status), st.version, coord.ErrNewer)
	case st.status < 0 || st.status > completeAbort:
		return fmt.Errorf("a transaction in state %d: %w", int8(st.status), errInvalid)
	case st.producer < 0 || st.epoch < 0 || st.next < noProducer:
		return fmt.Errorf("a transaction of the producer id %d, and then %d, with the epoch %d: %w", st.producer, st.next, st.epoch, errInvalid)
	}
	return nil
}

// readPartitions reads a list of topics with partitions, which may be null. The partitions of one
// topic may be in several entries.
func readPartitions(r *kbin.Reader, version int16) (list []TopicPartitions) {
	readLength, readString := r.ArrayLen, r.UnsafeString
	if version >= 1 {
		readLength, readString = r.CompactArrayLen, r.UnsafeCompactString
	}
	for n := readLength(); n > 0 && r.Ok(); n-- {
		t := TopicPartitions{Topic: readString()}
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

func int64Of(b []byte, otherwise int64) int64 {
	if len(b) != 8 {
		return otherwise
	}
	return int64(binary.BigEndian.Uint64(b))
}

func int16Of(b []byte, otherwise int16) int16 {
	if len(b) != 2 {
		return otherwise
	}
	return int16(binary.BigEndian.Uint16(b))
}
