package workload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/record"
)

const (
	keySize = 12 // bytes of a key: a number in decimal digits
	// recordOverhead is the bytes of a record beside its key and value: its length, attributes, differences of time and
	// offset, three lengths; those of a batch are shared by all of its records.
	recordOverhead = 10
	// storedRecord is the bytes of a record as it is stored.
	storedRecord = 100
	// answerWithin is how long a broker may take for one request.
	answerWithin = 30 * time.Second
)

// keyedTopic is a topic of one partition whose record with offset i has the key keyOf(i). It is for one goroutine.
type keyedTopic struct {
	o      Options
	filled Step
	closed int64 // the offset at which the last segment begins, which is not compacted
}

// keyOf is the key of the record with an offset: always the same, with o.Keys of them any of these.
func (t *keyedTopic) keyOf(offset int64) int64 {
	if t.o.Keys == 0 {
		return offset
	}
	return int64(scatter(uint64(offset)) % uint64(t.o.Keys))
}

// scatter is a hash of a number (the finalizer of SplitMix64).
func scatter(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// fill produces all records on one connection, several requests at a time.
func (t *keyedTopic) fill(ctx context.Context) error {
	conn, err := client.DialAny(ctx, t.o.Brokers)
	if err != nil {
		return err
	}
	defer conn.Close()
	topic, err := conn.FindTopic(ctx, t.o.Topic)
	if err != nil {
		return err
	}
	version, err := conn.PickVersion(kmsg.Produce.Int16(), bench.ProduceLow, bench.ProduceHigh)
	if err != nil {
		return err
	}
	run, err := bench.Connect(ctx, &t.o.Options, topic.Leaders[:1])
	if err != nil {
		return err
	}
	r := &bench.Result{Kind: KindCompaction, Options: t.o.Options}
	untimed := t.o.Options
	untimed.Duration = 0
	giveUp := time.AfterFunc(cleanedWithin, func() { run.Fail(fmt.Errorf("fill: %w", errNoTime)) })
	defer giveUp.Stop()
	err = run.Work(ctx, &untimed, r, []func() error{func() error { return t.sendAll(run, version) }})
	t.filled = StepOf(CompactionFill, r)
	return err
}

// sendAll sends as many requests as may be in flight, and another one for each answer.
func (t *keyedTopic) sendAll(run *bench.Run, version int16) error {
	s, count := run.Sockets[0], &run.Counters[0]
	b := keyedBuilder{t: t, value: make([]byte, t.o.Size), ms: time.Now().UnixMilli()}
	in, have, pending := make([]byte, 64<<10), 0, 0
	for b.next < t.o.Records || pending > 0 {
		for ; b.next < t.o.Records && pending < t.o.InFlight; pending++ {
			batch, err := b.build()
			if err != nil {
				return err
			}
			if err := s.WriteAll(bench.EncodeProduce(version, acksAll, t.o.Topic, []int32{0}, []record.Batch{batch})); err != nil {
				return err
			}
			count.Records.Add(int64(batch.Count()))
			count.Bytes.Add(int64(len(batch)))
			count.Requests.Add(1)
		}
		n, err := s.Read(in[have:])
		if err != nil {
			return err
		}
		have += n
		at := 0
		for have-at >= 4 {
			size := int(int32(binary.BigEndian.Uint32(in[at:])))
			if size < 4 || size > len(in)-4 {
				return bench.ErrShort
			}
			if have-at < 4+size {
				break
			}
			if err := bench.ProduceError(version, in[at+4:at+4+size]); err != nil {
				return err
			}
			at += 4 + size
			pending--
		}
		have = copy(in, in[at:have])
	}
	return nil
}

// keyedBuilder builds the batches of a keyedTopic, one after another.
type keyedBuilder struct {
	t     *keyedTopic
	bu    record.Builder
	key   []byte
	value []byte
	ms    int64
	next  int64 // the offset of the next record
}

// build makes the next batch, which is valid until the next call. The values do not compress.
func (b *keyedBuilder) build() (record.Batch, error) {
	b.bu.Reset()
	for range min(int64(b.t.o.Batch), b.t.o.Records-b.next) {
		b.key = fmt.Appendf(b.key[:0], "%0*d", keySize, b.t.keyOf(b.next))
		random := scatter(uint64(b.next) | 1<<63)
		for i := range b.value {
			random ^= random << 13
			random ^= random >> 7
			random ^= random << 17
			b.value[i] = byte(random)
		}
		b.bu.Append(b.ms, b.key, b.value)
		b.next++
	}
	return b.bu.Build()
}

// verify makes a run void unless just these records are there: the last one of each key among those below closed, and all
// from there on.
func (t *keyedTopic) verify(ctx context.Context) error {
	last := make([]int64, t.o.Keys)
	for i := int64(0); i < t.closed && t.o.Keys > 0; i++ {
		last[t.keyOf(i)] = i
	}
	next := int64(0) // the offset of the record that must be there next
	skip := func() {
		for t.o.Keys > 0 && next < t.closed && last[t.keyOf(next)] != next {
			next++
		}
	}
	skip()
	err := t.readAll(ctx, func(r *record.Record) error {
		offset := int64(r.Offset)
		if offset != next {
			return fmt.Errorf("%w: after compaction offset %d follows where %d should", ErrVoid, offset, next)
		}
		if key, err := strconv.ParseInt(string(r.Key), 10, 64); err != nil || key != t.keyOf(offset) {
			return fmt.Errorf("%w: after compaction the record with offset %d has the key %q, not %d", ErrVoid, offset, r.Key, t.keyOf(offset))
		}
		next++
		skip()
		return nil
	})
	if err == nil && next != t.o.Records {
		err = fmt.Errorf("%w: after compaction records end at %d, not at %d", ErrVoid, next, t.o.Records)
	}
	return err
}

// readAll reads the topic to its end.
func (t *keyedTopic) readAll(ctx context.Context, use func(r *record.Record) error) error {
	c, err := client.DialAny(ctx, t.o.Brokers)
	if err != nil {
		return err
	}
	defer c.Close()
	const atOnce = 8 << 20
	for at := record.Offset(0); int64(at) < t.o.Records; {
		batches, err := fetchBatches(ctx, c, t.o.Topic, int64(at), atOnce)
		if err != nil {
			return err
		}
		next, err := readBatches(batches, at, use)
		if err == nil && next == at {
			err = fmt.Errorf("%w: nothing can be read at offset %d", ErrVoid, at)
		}
		if err != nil {
			return err
		}
		at = next
	}
	return nil
}

// readBatches reads the records from an offset on that whole batches have, and returns the offset after them.
func readBatches(batches []byte, from record.Offset, use func(r *record.Record) error) (next record.Offset, err error) {
	var in record.Reader
	defer in.Close()
	for len(batches) > 0 {
		b, rest, err := record.Next(batches)
		if errors.Is(err, record.ErrShort) { // the rest is in the next answer
			break
		}
		if err == nil {
			err = b.Verify()
		}
		if err != nil {
			return from, err
		}
		for in.Reset(b, 0); in.Next(); {
			if in.Record.Offset < from { // the batch begins before the offset that was asked for
				continue
			}
			if err := use(&in.Record); err != nil {
				return from, err
			}
		}
		if err := in.Err(); err != nil {
			return from, err
		}
		from, batches = b.NextOffset(), rest
	}
	return from, nil
}

// fetchBatches fetches from the only partition of a topic.
func fetchBatches(ctx context.Context, c *client.Conn, topic string, from int64, most int32) ([]byte, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(answerWithin.Milliseconds())/10, 1, most
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes = from, most
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	version, err := c.PickVersion(req.Key(), 4, 11) // later ones have topic ids
	if err != nil {
		return nil, err
	}
	req.SetVersion(version)
	answer, err := c.Exchange(ctx, client.Encode(req), req)
	if err != nil {
		return nil, err
	}
	resp, _ := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, io.ErrUnexpectedEOF
	}
	return resp.Topics[0].Partitions[0].RecordBatches, kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

// remove deletes the topic.
func (t *keyedTopic) remove(ctx context.Context) error {
	return bench.DeleteTopic(ctx, &t.o.Options)
}
