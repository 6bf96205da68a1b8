package interop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// saramaClient drives sarama.
type saramaClient struct {
	inbox
	group   sarama.ConsumerGroup
	session sarama.ConsumerGroupSession // of the newest generation; guarded by inbox.mu

	producer  sarama.SyncProducer // of transactions
	groupName string
	topic     string // that the group reads
}

// inbox keeps what a library hands to us until the suite polls. It is safe for
// concurrent use.
type inbox struct {
	mu      sync.Mutex
	records []groupRecord
	given   map[int32]int64 // by partition, the offset after the newest that was polled
	came    chan struct{}   // holds a token when records came since the last poll
}

func newInbox() inbox {
	return inbox{given: map[int32]int64{}, came: make(chan struct{}, 1)}
}

func (in *inbox) push(r groupRecord) {
	in.mu.Lock()
	in.records = append(in.records, r)
	in.mu.Unlock()
	select {
	case in.came <- struct{}{}:
	default:
	}
}

func (in *inbox) poll(q request) (response, error) {
	select {
	case <-in.came:
	case <-time.After(time.Duration(q.WaitMS) * time.Millisecond):
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	a := response{Records: in.records}
	in.records = nil
	for _, r := range a.Records {
		in.given[r.Partition] = r.Offset + 1
	}
	return a, nil
}

func (in *inbox) next(partition int32) int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.given[partition]
}

func saramaDriver() ops {
	s := &saramaClient{inbox: newInbox()}
	return ops{
		"create": s.create, "describe": s.describe, "produce": s.produce, "consume": s.consume,
		"time": s.time, "tail": s.tail, "join": s.join, "poll": s.poll, "commit": s.commit,
		"txn_open": s.openTxn, "txn_begin": s.beginTxn, "txn_send": s.sendInTxn, "txn_offsets": s.sendOffsets,
		"txn_commit": func(request) (response, error) { return response{}, saramaCoded(s.producer.CommitTxn()) },
		"txn_abort":  func(request) (response, error) { return response{}, saramaCoded(s.producer.AbortTxn()) },
	}
}

func saramaCoded(err error) error {
	if ke, ok := errors.AsType[sarama.KError](err); ok {
		return &coded{int(ke), err}
	}
	if te, ok := errors.AsType[*sarama.TopicError](err); ok {
		return &coded{int(te.Err), err}
	}
	if pe, ok := errors.AsType[sarama.ProducerErrors](err); ok && len(pe) > 0 {
		return saramaCoded(pe[0].Err)
	}
	return err
}

func saramaConfig(q request) (*sarama.Config, error) {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Metadata.AllowAutoTopicCreation = false
	c.Metadata.Retry.Max = 1
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.MaxMessageBytes = 8 << 20
	c.Producer.Flush.Frequency = 20 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return c, saramaReach(c, q)
}

func (*saramaClient) create(q request) (response, error) {
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	admin, err := sarama.NewClusterAdmin([]string{q.Addr}, c)
	if err != nil {
		return response{}, err
	}
	defer admin.Close()
	detail := sarama.TopicDetail{NumPartitions: -1, ReplicationFactor: -1, ConfigEntries: map[string]*string{}}
	if q.Partitions != 0 {
		detail.NumPartitions = int32(q.Partitions)
	}
	if q.Replication != 0 {
		detail.ReplicationFactor = int16(q.Replication)
	}
	for name, value := range q.Configs {
		detail.ConfigEntries[name] = &value
	}
	return response{}, saramaCoded(admin.CreateTopic(q.Topic, &detail, false))
}

func (*saramaClient) describe(q request) (response, error) {
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	admin, err := sarama.NewClusterAdmin([]string{q.Addr}, c)
	if err != nil {
		return response{}, err
	}
	defer admin.Close()
	topics, err := admin.DescribeTopics([]string{q.Topic})
	if err != nil {
		return response{}, saramaCoded(err)
	}
	if topics[0].Err != sarama.ErrNoError {
		return response{}, saramaCoded(topics[0].Err)
	}
	a := response{Partitions: len(topics[0].Partitions)}
	for _, p := range topics[0].Partitions {
		if p.Leader >= 0 {
			a.Leaders++
		}
	}
	return a, nil
}

func (*saramaClient) produce(q request) (response, error) {
	records, err := readRecords(q.File)
	if err != nil {
		return response{}, err
	}
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	c.Producer.RequiredAcks = map[string]sarama.RequiredAcks{"0": sarama.NoResponse, "1": sarama.WaitForLocal, "all": sarama.WaitForAll}[q.Acks]
	c.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[q.Codec]
	if c.Producer.Idempotent = q.Idempotent; q.Idempotent {
		c.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer([]string{q.Addr}, c)
	if err != nil {
		return response{}, saramaCoded(err)
	}
	defer producer.Close()
	var all []*sarama.ProducerMessage
	for _, r := range records {
		m := &sarama.ProducerMessage{Topic: q.Topic, Partition: q.Partition}
		if r.Key != nil {
			m.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			m.Value = sarama.ByteEncoder(r.Value)
		}
		if r.Timestamp != 0 {
			m.Timestamp = time.UnixMilli(r.Timestamp)
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Name), Value: h.Value})
		}
		all = append(all, m)
	}
	if err := producer.SendMessages(all); err != nil {
		return response{}, saramaCoded(err)
	}
	var a response
	for _, m := range all {
		if q.Acks != "0" {
			a.Offsets = append(a.Offsets, m.Offset)
		}
	}
	return a, nil
}

func (*saramaClient) consume(q request) (response, error) {
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	c.Consumer.IsolationLevel = saramaIsolation(q)
	consumer, err := sarama.NewConsumer([]string{q.Addr}, c)
	if err != nil {
		return response{}, saramaCoded(err)
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(q.Topic, q.Partition, q.Offset)
	if err != nil {
		return response{}, saramaCoded(err)
	}
	defer partition.Close()
	var records []record
	until := time.After(time.Duration(q.WaitMS) * time.Millisecond)
	for len(records) < q.Count {
		select {
		case m := <-partition.Messages():
			r := record{Key: m.Key, Value: m.Value, Timestamp: m.Timestamp.UnixMilli(), Offset: m.Offset}
			for _, h := range m.Headers {
				r.Headers = append(r.Headers, header{string(h.Key), h.Value})
			}
			records = append(records, r)
		case <-until:
			return saveRecords(q.File, records)
		}
	}
	return saveRecords(q.File, records)
}

func (*saramaClient) time(q request) (response, error) {
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	cl, err := sarama.NewClient([]string{q.Addr}, c)
	if err != nil {
		return response{}, saramaCoded(err)
	}
	defer cl.Close()
	offset, err := cl.GetOffset(q.Topic, q.Partition, q.Timestamp)
	return response{Offset: offset}, saramaCoded(err)
}

// tail counts how often a partition's end did not cover a record that was acknowledged
// just before.
func (*saramaClient) tail(q request) (response, error) {
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	c.Producer.RequiredAcks = sarama.WaitForLocal // its default
	producer, err := sarama.NewSyncProducer([]string{q.Addr}, c)
	if err != nil {
		return response{}, saramaCoded(err)
	}
	defer producer.Close()
	reader, err := sarama.NewClient([]string{q.Addr}, c)
	if err != nil {
		return response{}, saramaCoded(err)
	}
	defer reader.Close()
	var a response
	for range q.Count {
		_, stored, err := producer.SendMessage(&sarama.ProducerMessage{Topic: q.Topic, Partition: q.Partition, Value: sarama.StringEncoder("v")})
		if err != nil {
			return response{}, saramaCoded(err)
		}
		end, err := reader.GetOffset(q.Topic, q.Partition, sarama.OffsetNewest)
		if err != nil {
			return response{}, saramaCoded(err)
		}
		if end <= stored {
			a.Count++
		}
	}
	return a, nil
}

func (s *saramaClient) join(q request) (response, error) {
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	c.Consumer.Group.Session.Timeout = time.Duration(q.SessionMS) * time.Millisecond
	c.Consumer.IsolationLevel = saramaIsolation(q)
	s.groupName, s.topic = q.Group, q.Topic
	if s.group, err = sarama.NewConsumerGroup([]string{q.Addr}, q.Group, c); err != nil {
		return response{}, saramaCoded(err)
	}
	go func() {
		for s.group.Consume(context.Background(), []string{q.Topic}, s) == nil {
		}
	}()
	return response{}, nil
}

// Setup and Cleanup frame a generation; sarama calls them.
func (*saramaClient) Setup(sarama.ConsumerGroupSession) error { return nil }

func (*saramaClient) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim hands a partition's records to the inbox until the generation ends.
func (s *saramaClient) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
	for m := range claim.Messages() {
		s.push(groupRecord{m.Partition, m.Offset, string(m.Value)})
	}
	return nil
}

func (s *saramaClient) commit(q request) (response, error) {
	next := s.next(q.Partition)
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session == nil {
		return response{}, fmt.Errorf("no partition of %s was assigned", q.Topic)
	}
	session.MarkOffset(q.Topic, q.Partition, next, "")
	session.Commit()
	return response{Offset: next}, nil
}

func saramaIsolation(q request) sarama.IsolationLevel {
	if q.Committed {
		return sarama.ReadCommitted
	}
	return sarama.ReadUncommitted
}

// openTxn starts a producer of transactions, which ends what a former one with its transactional id has left open.
func (s *saramaClient) openTxn(q request) (response, error) {
	if s.producer != nil {
		_ = s.producer.Close() // one that is fenced cannot end what it has begun
	}
	c, err := saramaConfig(q)
	if err != nil {
		return response{}, err
	}
	c.Net.MaxOpenRequests = 1
	c.Producer.Idempotent, c.Producer.RequiredAcks = true, sarama.WaitForAll
	c.Producer.Transaction.ID, c.Producer.Transaction.Timeout = q.Txn, time.Duration(q.TxnMS)*time.Millisecond
	s.producer, err = sarama.NewSyncProducer([]string{q.Addr}, c)
	return response{}, saramaCoded(err)
}

func (s *saramaClient) beginTxn(request) (response, error) {
	return response{}, saramaCoded(s.producer.BeginTxn())
}

func (s *saramaClient) sendInTxn(q request) (response, error) {
	var all []*sarama.ProducerMessage
	for _, v := range q.Values {
		all = append(all, &sarama.ProducerMessage{Topic: q.Topic, Partition: q.Partition, Value: sarama.StringEncoder(v)})
	}
	return response{}, saramaCoded(s.producer.SendMessages(all))
}

func (s *saramaClient) sendOffsets(request) (response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*sarama.PartitionOffsetMetadata
	for p, next := range s.given {
		all = append(all, &sarama.PartitionOffsetMetadata{Partition: p, Offset: next})
	}
	return response{}, saramaCoded(s.producer.AddOffsetsToTxn(map[string][]*sarama.PartitionOffsetMetadata{s.topic: all}, s.groupName))
}
