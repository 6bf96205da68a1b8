package txn

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/txn/entry"
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

var errInvalid = errors.New("it is not valid")

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
func decodeKey(b []byte) (string, error) { return entry.DecodeKey(b) }

// decodeValue decodes a value. The result does not refer to the bytes.
func decodeValue(b []byte) (state, error) {
	last, hasLast := noEpoch, false
	t, err := entry.Decode(b, func(tag uint32, value []byte) {
		if tag == lastEpochTag && len(value) == 2 {
			last, hasLast = int16(binary.BigEndian.Uint16(value)), true
		}
	})
	if errors.Is(err, entry.ErrNewer) {
		return state{}, fmt.Errorf("%w: %w", err, coord.ErrNewer)
	}
	if err != nil {
		return state{}, err
	}
	st := state{
		producer: t.Producer, epoch: t.Epoch, timeout: t.Timeout, status: status(t.Status), previous: t.Previous, next: t.Next, updated: t.Updated, start: t.Start, version: t.Version, last: noEpoch,
	}
	if err := st.check(); err != nil {
		return state{}, err
	}
	if st.version != bumpEpoch {
		st.version = sameEpoch
	}
	if !st.isIdle() {
		list := make([]TopicPartitions, len(t.Topics))
		for i, one := range t.Topics {
			list[i] = TopicPartitions(one)
		}
		st.partitions = makeSet(list)
	}
	if st.last = derivedLast(&st); hasLast {
		st.last = last
	}
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
