package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaGo drives segmentio's kafka-go.
type kafkaGo struct {
	inbox
	reader *kafka.Reader
}

func kafkaGoDriver() ops {
	k := &kafkaGo{inbox: newInbox()}
	return ops{
		"create": k.create, "describe": k.describe, "produce": k.produce, "consume": k.consume,
		"time": k.time, "join": k.join, "poll": k.poll, "commit": k.commit,
	}
}

func kafkaGoCoded(err error) error {
	if many, ok := errors.AsType[kafka.WriteErrors](err); ok {
		for _, one := range many {
			if one != nil {
				return kafkaGoCoded(one)
			}
		}
	}
	if ke, ok := errors.AsType[kafka.Error](err); ok {
		return &coded{int(ke), err}
	}
	if _, ok := errors.AsType[kafka.MessageTooLargeError](err); ok {
		return &coded{int(kafka.MessageSizeTooLarge), err}
	}
	return err
}

// kafkaGoClient passes a client to use, which lasts a minute.
func kafkaGoClient(q request, use func(context.Context, *kafka.Client) (response, error)) (response, error) {
	transport, _, err := kafkaGoReach(q)
	if err != nil {
		return response{}, err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := aMinute()
	defer cancel()
	a, err := use(ctx, &kafka.Client{Addr: kafka.TCP(q.Addr), Timeout: 30 * time.Second, Transport: transport})
	return a, kafkaGoCoded(err)
}

func (*kafkaGo) create(q request) (response, error) {
	topic := kafka.TopicConfig{Topic: q.Topic, NumPartitions: -1, ReplicationFactor: -1}
	if q.Partitions != 0 {
		topic.NumPartitions = q.Partitions
	}
	if q.Replication != 0 {
		topic.ReplicationFactor = q.Replication
	}
	for name, value := range q.Configs {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	return kafkaGoClient(q, func(ctx context.Context, cl *kafka.Client) (response, error) {
		reply, err := cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
		if err != nil {
			return response{}, err
		}
		return response{}, reply.Errors[q.Topic]
	})
}

func (*kafkaGo) describe(q request) (response, error) {
	return kafkaGoClient(q, func(ctx context.Context, cl *kafka.Client) (response, error) {
		reply, err := cl.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{q.Topic}})
		if err != nil {
			return response{}, err
		}
		for _, topic := range reply.Topics {
			if topic.Name != q.Topic {
				continue
			}
			a := response{Partitions: len(topic.Partitions)}
			for _, p := range topic.Partitions {
				if p.Leader.Host != "" {
					a.Leaders++
				}
			}
			return a, topic.Error
		}
		return response{}, fmt.Errorf("no answer for %s", q.Topic)
	})
}

// fixedPartition is a kafka.Balancer that always chooses the same.
type fixedPartition int

// Balance returns the partition.
func (p fixedPartition) Balance(kafka.Message, ...int) int { return int(p) }

func (*kafkaGo) produce(q request) (response, error) {
	records, err := readRecords(q.File)
	if err != nil {
		return response{}, err
	}
	transport, _, err := kafkaGoReach(q)
	if err != nil {
		return response{}, err
	}
	if q.Acks != "0" {
		// Kafka drops what it has read of a connection that closes, and nobody
		// is told of that with these acks.
		defer transport.CloseIdleConnections()
	}
	w := &kafka.Writer{
		Addr: kafka.TCP(q.Addr), Topic: q.Topic, Balancer: fixedPartition(q.Partition), MaxAttempts: 2, BatchBytes: 8 << 20,
		BatchTimeout: 20 * time.Millisecond, Transport: transport,
		RequiredAcks: map[string]kafka.RequiredAcks{"0": kafka.RequireNone, "1": kafka.RequireOne, "all": kafka.RequireAll}[q.Acks],
		Compression: map[string]kafka.Compression{
			"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
		}[q.Codec],
	}
	defer w.Close()
	batch := 0
	var all []kafka.Message
	for _, r := range records {
		m := kafka.Message{Key: r.Key, Value: r.Value}
		if r.Timestamp != 0 {
			m.Time = time.UnixMilli(r.Timestamp)
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Name, Value: h.Value})
		}
		all = append(all, m)
		// What one call is given becomes one batch: a large record travels alone.
		if size := len(r.Value); size > 100_000 || batch+size > 200_000 {
			if err := w.WriteMessages(context.Background(), all...); err != nil {
				return response{}, kafkaGoCoded(err)
			}
			all, batch = nil, 0
		} else {
			batch += size
		}
	}
	return response{}, kafkaGoCoded(w.WriteMessages(context.Background(), all...))
}

func (*kafkaGo) consume(q request) (response, error) {
	_, dialer, err := kafkaGoReach(q)
	if err != nil {
		return response{}, err
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{q.Addr}, Dialer: dialer, Topic: q.Topic, Partition: int(q.Partition), MaxWait: 200 * time.Millisecond, IsolationLevel: kafkaGoIsolation(q)})
	defer r.Close()
	if err := r.SetOffset(q.Offset); err != nil {
		return response{}, kafkaGoCoded(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(q.WaitMS)*time.Millisecond)
	defer cancel()
	var records []record
	for len(records) < q.Count {
		m, err := r.ReadMessage(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return response{}, kafkaGoCoded(err)
		}
		out := record{Key: m.Key, Value: m.Value, Timestamp: m.Time.UnixMilli(), Offset: m.Offset}
		for _, h := range m.Headers {
			out.Headers = append(out.Headers, header{h.Key, h.Value})
		}
		records = append(records, out)
	}
	return saveRecords(q.File, records)
}

func (*kafkaGo) time(q request) (response, error) {
	return kafkaGoClient(q, func(ctx context.Context, cl *kafka.Client) (response, error) {
		reply, err := cl.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{q.Topic: {kafka.TimeOffsetOf(int(q.Partition), time.UnixMilli(q.Timestamp))}},
		})
		if err != nil {
			return response{}, err
		}
		partitions := reply.Topics[q.Topic]
		if len(partitions) != 1 {
			return response{}, fmt.Errorf("%d answers for %s", len(partitions), q.Topic)
		}
		a := response{Offset: -1}
		for offset := range partitions[0].Offsets {
			a.Offset = offset
		}
		return a, partitions[0].Error
	})
}

func (k *kafkaGo) join(q request) (response, error) {
	_, dialer, err := kafkaGoReach(q)
	if err != nil {
		return response{}, err
	}
	k.reader = kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{q.Addr}, Dialer: dialer, GroupID: q.Group, Topic: q.Topic, StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond,
		SessionTimeout: time.Duration(q.SessionMS) * time.Millisecond, HeartbeatInterval: 500 * time.Millisecond,
	})
	go func() {
		for {
			m, err := k.reader.FetchMessage(context.Background())
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				k.push(groupRecord{int32(m.Partition), m.Offset, string(m.Value)})
			}
		}
	}()
	return response{}, nil
}

func (k *kafkaGo) commit(q request) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	next := k.next(q.Partition)
	m := kafka.Message{Topic: q.Topic, Partition: int(q.Partition), Offset: next - 1}
	return response{Offset: next}, kafkaGoCoded(k.reader.CommitMessages(ctx, m))
}

func kafkaGoIsolation(q request) kafka.IsolationLevel {
	if q.Committed {
		return kafka.ReadCommitted
	}
	return kafka.ReadUncommitted
}
