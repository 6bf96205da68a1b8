package interop

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz drives franz-go. The suite itself looks at what others wrote with it,
// too: it alone shows how a batch was compressed and by which producer.
type franz struct {
	member *kgo.Client
	given  map[int32]*kgo.Record
}

func franzDriver() ops {
	f := &franz{given: map[int32]*kgo.Record{}}
	return ops{
		"create": f.create, "describe": f.describe, "produce": f.produce, "consume": f.consume,
		"time": f.time, "join": f.join, "poll": f.poll, "commit": f.commit,
	}
}

// franzCoded gives an error of the library its protocol code.
func franzCoded(err error) error {
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return &coded{int(ke.Code), err}
	}
	return err
}

// aMinute is how long one request to a client may take.
func aMinute() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

func (*franz) create(q request) (response, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(q.Addr))
	if err != nil {
		return response{}, err
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	configs := map[string]*string{}
	for name, value := range q.Configs {
		configs[name] = &value
	}
	partitions, replication := int32(-1), int16(-1)
	if q.Partitions != 0 {
		partitions = int32(q.Partitions)
	}
	if q.Replication != 0 {
		replication = int16(q.Replication)
	}
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, replication, configs, q.Topic)
	return response{}, franzCoded(err)
}

func (*franz) describe(q request) (response, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(q.Addr))
	if err != nil {
		return response{}, err
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	topics, err := kadm.NewClient(cl).ListTopics(ctx, q.Topic)
	if err != nil {
		return response{}, err
	}
	topic := topics[q.Topic]
	if topic.Err != nil {
		return response{}, franzCoded(topic.Err)
	}
	a := response{Partitions: len(topic.Partitions)}
	for _, p := range topic.Partitions {
		if p.Leader >= 0 {
			a.Leaders++
		}
	}
	return a, nil
}

func (*franz) produce(q request) (response, error) {
	records, err := readRecords(q.File)
	if err != nil {
		return response{}, err
	}
	codec := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[q.Codec]
	acks := map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}[q.Acks]
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(acks),
		kgo.ProducerBatchMaxBytes(8 << 20), kgo.UnknownTopicRetries(0), kgo.ProducerLinger(20 * time.Millisecond),
	}
	if !q.Idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(q.Addr))...)
	if err != nil {
		return response{}, err
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	var all []*kgo.Record
	for _, r := range records {
		k := &kgo.Record{Topic: q.Topic, Partition: q.Partition, Key: r.Key, Value: r.Value}
		if r.Timestamp != 0 {
			k.Timestamp = time.UnixMilli(r.Timestamp)
		}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
		all = append(all, k)
	}
	results := cl.ProduceSync(ctx, all...)
	if err := results.FirstErr(); err != nil {
		return response{}, franzCoded(err)
	}
	var a response
	for _, r := range all {
		if q.Acks != "0" {
			a.Offsets = append(a.Offsets, r.Offset)
		}
	}
	return a, nil
}

// franzRead returns count records of a partition as kgo has them, or fewer
// when they do not come in time.
func franzRead(q request) ([]*kgo.Record, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(q.Addr),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{q.Topic: {q.Partition: kgo.NewOffset().At(q.Offset)}}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(q.WaitMS)*time.Millisecond)
	defer cancel()
	var all []*kgo.Record
	for len(all) < q.Count && ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil && ctx.Err() == nil {
			return nil, franzCoded(err)
		}
		all = append(all, fetches.Records()...)
	}
	return all, nil
}

func (*franz) consume(q request) (response, error) {
	all, err := franzRead(q)
	if err != nil {
		return response{}, err
	}
	var records []record
	for _, r := range all {
		records = append(records, fromFranz(r))
	}
	return saveRecords(q.File, records)
}

func fromFranz(r *kgo.Record) record {
	out := record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli(), Offset: r.Offset}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, header{h.Key, h.Value})
	}
	return out
}

func (*franz) time(q request) (response, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(q.Addr))
	if err != nil {
		return response{}, err
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	offsets, err := kadm.NewClient(cl).ListOffsetsAfterMilli(ctx, q.Timestamp, q.Topic)
	if err != nil {
		return response{}, err
	}
	o, ok := offsets.Lookup(q.Topic, q.Partition)
	if !ok {
		return response{}, fmt.Errorf("no answer for partition %d", q.Partition)
	}
	return response{Offset: o.Offset}, franzCoded(o.Err)
}

func (f *franz) join(q request) (response, error) {
	session := time.Duration(q.SessionMS) * time.Millisecond
	cl, err := kgo.NewClient(kgo.SeedBrokers(q.Addr), kgo.ConsumerGroup(q.Group), kgo.ConsumeTopics(q.Topic),
		kgo.SessionTimeout(session), kgo.HeartbeatInterval(500*time.Millisecond), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	f.member = cl
	return response{}, err
}

func (f *franz) poll(q request) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(q.WaitMS)*time.Millisecond)
	defer cancel()
	var a response
	f.member.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
		a.Records = append(a.Records, groupRecord{r.Partition, r.Offset, string(r.Value)})
		f.given[r.Partition] = r
	})
	return a, nil
}

func (f *franz) commit(q request) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r := f.given[q.Partition]
	return response{Offset: r.Offset + 1}, franzCoded(f.member.CommitRecords(ctx, r))
}
