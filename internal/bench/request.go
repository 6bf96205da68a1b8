package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/record"
)

// These are the versions of the timed requests. They are before the flexible versions, so
// that the fields of their answers are at fixed places. Every broker of the last years serves
// some of them; records are of magic 2 in all of them.
const (
	ProduceLow  = 3
	ProduceHigh = 7
	fetchLow    = 4
	fetchHigh   = 11
)

var be = binary.BigEndian

// ErrShort says that an answer is shorter than its fields need.
var ErrShort = errors.New("the broker's answer is cut short")

// EncodeProduce encodes a request with one batch for each partition.
func EncodeProduce(version, acks int16, topic string, partitions []int32, batches []record.Batch) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	req.Acks, req.TimeoutMillis = acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	for i, partition := range partitions {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = partition, batches[i]
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	return client.Encode(req)
}

// produceEntryLen is the length of a partition's part of an answer.
func produceEntryLen(version int16) int {
	if version >= 5 {
		return 4 + 2 + 8 + 8 + 8 // with the log's start
	}
	return 4 + 2 + 8 + 8
}

// produceAnswerLen is the length of the answer to EncodeProduce, with its size field.
func produceAnswerLen(version int16, topic string, partitions int) int {
	return 4 + 4 + 4 + 2 + len(topic) + 4 + partitions*produceEntryLen(version) + 4
}

// ProduceError returns the first error in an answer, which is given without its size field.
func ProduceError(version int16, b []byte) error {
	const topic = 4 + 4
	if len(b) < topic+2 {
		return ErrShort
	}
	p := topic + 2 + int(be.Uint16(b[topic:]))
	if len(b) < p+4 {
		return ErrShort
	}
	n := int(int32(be.Uint32(b[p:])))
	entry := produceEntryLen(version)
	if p += 4; n < 0 || n > (len(b)-p)/entry {
		return ErrShort
	}
	for range n {
		if code := int16(be.Uint16(b[p+4:])); code != 0 {
			return fmt.Errorf("the broker refused a request: %w", kerr.ErrorForCode(code))
		}
		p += entry
	}
	return nil
}

// fetchTemplate is a Fetch request of which only the offset changes.
type fetchTemplate struct {
	b      []byte
	offset int // its place in b
}

func newFetchTemplate(version int16, topic string, partition int32, maxBytes int) *fetchTemplate {
	const mark = 0x5ca1ab1e_0ff5e700
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = -1, 500, 1, int32(maxBytes)
	req.SessionEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, mark, int32(maxBytes)
	p.CurrentLeaderEpoch, p.LogStartOffset = -1, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	b := client.Encode(req)
	return &fetchTemplate{b: b, offset: bytes.LastIndex(b, be.AppendUint64(nil, mark))}
}

// at is the request for the records at an offset, valid until the next call.
func (t *fetchTemplate) at(offset int64) []byte {
	be.PutUint64(t.b[t.offset:], uint64(offset))
	return t.b
}

// fetchHead is the part of a Fetch answer, for one partition, before the records.
type fetchHead struct {
	size    int   // of the answer, with its size field
	end     int64 // the partition's high watermark
	records int   // bytes
}

// fetchHeadLen is the length of a fetchHead, with the answer's size field.
func fetchHeadLen(version int16, topic string) int {
	n := 4 + 4 + 4 + 4 + 2 + len(topic) + 4 + 4 + 2 + 8 + 8 + 4 + 4
	if version >= 5 {
		n += 8 // the log's start
	}
	if version >= 7 {
		n += 2 + 4 // error and session
	}
	if version >= 11 {
		n += 4 // preferred replica
	}
	return n
}

// parseFetchHead decodes the head in b, which has all of it, or a whole answer that is shorter.
func parseFetchHead(version int16, b []byte) (h fetchHead, err error) {
	h.size = 4 + int(int32(be.Uint32(b)))
	p := 4 + 4 + 4
	if version >= 7 {
		if len(b) < p+6 {
			return h, ErrShort
		}
		if code := int16(be.Uint16(b[p:])); code != 0 {
			return h, fmt.Errorf("the broker refused a fetch: %w", kerr.ErrorForCode(code))
		}
		p += 6
	}
	p += 4
	if len(b) < p+2 {
		return h, ErrShort
	}
	p += 2 + int(be.Uint16(b[p:])) + 4 + 4
	if len(b) < p+2+8+8 {
		return h, ErrShort
	}
	if code := int16(be.Uint16(b[p:])); code != 0 {
		return h, fmt.Errorf("the broker refused a fetch: %w", kerr.ErrorForCode(code))
	}
	h.end = int64(be.Uint64(b[p+2:]))
	p += 2 + 8 + 8
	if version >= 5 {
		p += 8
	}
	if len(b) < p+8 {
		return h, ErrShort
	}
	if aborted := int32(be.Uint32(b[p:])); aborted > 0 {
		return h, errors.New("the topic has aborted transactions: measure with another one")
	}
	p += 4
	if version >= 11 {
		p += 4
	}
	if len(b) < p+4 {
		return h, ErrShort
	}
	h.records = max(0, int(int32(be.Uint32(b[p:]))))
	if h.size < p+4+h.records {
		return h, ErrShort
	}
	return h, nil
}

// MakeBatch builds a batch of n records. Their values are random and do not compress, except
// that with a codec the second half of each value is the same text.
func MakeBatch(codec record.Codec, n, size int, ms int64, seed uint64) (record.Batch, error) {
	b := record.Builder{Codec: codec}
	value := make([]byte, size)
	random := seed*0x9e3779b97f4a7c15 | 1
	for range n {
		for i := range value {
			random ^= random << 13
			random ^= random >> 7
			random ^= random << 17
			if value[i] = byte(random); codec != record.None && i >= size/2 {
				value[i] = 'a' + byte(i%26)
			}
		}
		b.Append(ms, nil, value)
	}
	return b.Build()
}
