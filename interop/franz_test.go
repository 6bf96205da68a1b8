package interop

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz drives franz-go. The suite itself looks at what others wrote with it,
// too: it alone shows how a batch was compressed and by which producer.
type franz struct {
	member   *kgo.Client
	given    map[int32]*kgo.Record
	producer *kgo.Client               // of transactions
	session  *kgo.GroupTransactSession // a producer of transactions that is a member of a group, too
	id       request                   // what the producer of transactions was opened with
}

func franzDriver() ops {
	f := &franz{given: map[int32]*kgo.Record{}}
	return ops{
		"create": f.create, "describe": f.describe, "produce": f.produce, "consume": f.consume,
		"time": f.time, "join": f.join, "poll": f.poll, "commit": f.commit, "flow": f.flow,
		"txn_open": f.openTxn, "txn_begin": f.beginTxn, "txn_send": f.sendInTxn, "txn_offsets": f.sendOffsets,
		"txn_commit": func(request) (response, error) { return f.endTxn(kgo.TryCommit) },
		"txn_abort":  func(request) (response, error) { return f.endTxn(kgo.TryAbort) },
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
	cl, err := franzClient(q)
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
	cl, err := franzClient(q)
	if err != nil {
		return response{}, err
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	topics, err := kadm.NewClient(cl).ListTopics(ctx, q.Topic)
	if err != nil {
		return response{}, franzCoded(err)
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
	var wait franzThrottle
	cl, err := franzClient(q, append(opts, kgo.WithHooks(&wait))...)
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
	a := response{ThrottleMS: int(wait.longestMS.Load())}
	for _, r := range all {
		if q.Acks != "0" {
			a.Offsets = append(a.Offsets, r.Offset)
		}
	}
	return a, nil
}

// franzThrottle notes the longest time for which the broker had the client wait. It is safe for concurrent use.
type franzThrottle struct{ longestMS atomic.Int64 }

// OnBrokerThrottle is called by the library.
func (f *franzThrottle) OnBrokerThrottle(_ kgo.BrokerMetadata, wait time.Duration, _ bool) {
	f.longestMS.Store(max(f.longestMS.Load(), wait.Milliseconds()))
}

// flow sends records one after the other for a while, by one client.
func (*franz) flow(q request) (response, error) {
	cl, err := franzClient(q, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return response{}, err
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	var a response
	for until := time.Now().Add(time.Minute); time.Now().Before(until); a.Count++ {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: q.Topic, Partition: q.Partition, Value: []byte(strconv.Itoa(a.Count))}).FirstErr(); err != nil {
			return response{}, franzCoded(err)
		}
		if a.Count == 0 { // the time begins when it is connected
			until = time.Now().Add(time.Duration(q.WaitMS) * time.Millisecond)
		}
		time.Sleep(flowPause)
	}
	return a, nil
}

// franzRead returns count records of a partition as kgo has them, or fewer
// when they do not come in time.
func franzRead(q request) ([]*kgo.Record, error) {
	cl, err := franzClient(q, kgo.FetchIsolationLevel(franzIsolation(q)),
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
	cl, err := franzClient(q)
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

func franzIsolation(q request) kgo.IsolationLevel {
	if q.Committed {
		return kgo.ReadCommitted()
	}
	return kgo.ReadUncommitted()
}

func (f *franz) join(q request) (response, error) {
	if f.producer != nil {
		return response{}, f.joinWithTxn(q)
	}
	session := time.Duration(q.SessionMS) * time.Millisecond
	cl, err := franzClient(q, kgo.ConsumerGroup(q.Group), kgo.ConsumeTopics(q.Topic),
		kgo.SessionTimeout(session), kgo.HeartbeatInterval(500*time.Millisecond), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	f.member = cl
	return response{}, err
}

func (f *franz) poll(q request) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(q.WaitMS)*time.Millisecond)
	defer cancel()
	var a response
	poll := f.session.PollFetches
	if f.session == nil {
		poll = f.member.PollFetches
	}
	poll(ctx).EachRecord(func(r *kgo.Record) {
		a.Records = append(a.Records, groupRecord{r.Partition, r.Offset, string(r.Value)})
		f.given[r.Partition] = r
	})
	return a, nil
}

func (f *franz) commit(q request) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := f.given[q.Partition]
	return response{Offset: r.Offset + 1}, franzCoded(f.member.CommitRecords(ctx, r))
}

// openTxn starts a producer of transactions, which ends what a former one with its transactional id has left open.
func (f *franz) openTxn(q request) (response, error) {
	if f.producer != nil {
		f.producer.Close()
	}
	f.id = q
	cl, err := franzClient(q, f.txnOpts()...)
	if err != nil {
		return response{}, err
	}
	f.producer = cl
	ctx, cancel := aMinute()
	defer cancel()
	_, _, err = cl.ProducerID(ctx)
	return response{}, franzCoded(err)
}

func (f *franz) txnOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.TransactionalID(f.id.Txn), kgo.TransactionTimeout(time.Duration(f.id.TxnMS) * time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}
}

// joinWithTxn has the producer of transactions be a member of a group, too: the library commits offsets in
// transactions only so.
func (f *franz) joinWithTxn(q request) error {
	f.producer.Close()
	reach, err := franzReach(q)
	if err != nil {
		return err
	}
	f.session, err = kgo.NewGroupTransactSession(append(append(reach, f.txnOpts()...), kgo.ConsumerGroup(q.Group), kgo.ConsumeTopics(q.Topic),
		kgo.SessionTimeout(time.Duration(q.SessionMS)*time.Millisecond), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(franzIsolation(q)))...)
	if err == nil {
		f.producer = f.session.Client()
	}
	return err
}

func (f *franz) beginTxn(request) (response, error) {
	if f.session != nil {
		return response{}, f.session.Begin()
	}
	return response{}, f.producer.BeginTransaction()
}

func (f *franz) sendInTxn(q request) (response, error) {
	ctx, cancel := aMinute()
	defer cancel()
	var all []*kgo.Record
	for _, v := range q.Values {
		all = append(all, &kgo.Record{Topic: q.Topic, Partition: q.Partition, Value: []byte(v)})
	}
	return response{}, franzCoded(f.producer.ProduceSync(ctx, all...).FirstErr())
}

// sendOffsets does nothing: a session puts its offsets into a transaction when it ends that.
func (*franz) sendOffsets(request) (response, error) { return response{}, nil }

func (f *franz) endTxn(how kgo.TransactionEndTry) (response, error) {
	ctx, cancel := aMinute()
	defer cancel()
	if f.session == nil {
		return response{}, franzCoded(f.producer.EndTransaction(ctx, how))
	}
	committed, err := f.session.End(ctx, how)
	if err == nil && committed != bool(how) {
		err = errors.New("the transaction has ended otherwise than it should")
	}
	return response{}, franzCoded(err)
}
