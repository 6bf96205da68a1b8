package workload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/socket"
	"github.com/leatstream/leat/internal/record"
)

// TransactionsAgain is the step of Transactions that has how many requests were sent again, since the
// broker had not ended the transaction before.
const TransactionsAgain = "sent again"

// The versions of the newer flow of transactions (KIP-890): the first record of a transaction adds its partition,
// and the answer to EndTxn has the epoch of the next one.
const transactionProduce, transactionEnd = 12, 5

// transactionTopic is where both brokers keep the state of transactions.
const transactionTopic = "__transaction_state"

// Transactions has o.Producers producers make transactions, each with one batch of o.Batch records to one partition: one
// after another, or all together o.Rate a second, if that is not 0. Then the times count from when a transaction was due. Result.Requests counts the transactions, Ack has how long the answers to EndTxn took, and EndToEnd
// how long the transactions took, from their first byte to that answer. A request that is to be sent again is sent at
// once. The topic must be new, and the broker a single node. If the topic has flush.messages, the topic of the
// transactions' state gets the same, or else the broker's default. The run is void if not just the committed
// records are there.
func Transactions(ctx context.Context, o Options) (*Result, error) {
	if o.Producers < 1 || o.Batch < 1 || o.Duration <= 0 {
		return nil, errors.New("producers, batch and duration must be more than 0")
	}
	t, err := newTransactors(ctx, &o)
	if err != nil {
		return nil, err
	}
	addrs := slices.Repeat([]string{t.addr}, o.Producers)
	if t.run, err = bench.Connect(ctx, &o.Options, addrs); err != nil {
		return nil, err
	}
	giveUp := time.AfterFunc(o.Duration+bench.LostAfter, func() {
		t.run.Fail(fmt.Errorf("a transaction %w: it has not ended within %s", errNoTime, bench.LostAfter))
	})
	defer giveUp.Stop()
	r := &Result{Result: bench.Result{Kind: KindTransactions, Options: o.Options}}
	jobs := []func() error{t.beginAll}
	if o.Rate > 0 {
		t.interval = time.Second * time.Duration(o.Producers) / time.Duration(o.Rate)
		t.rounds = max(1, int(o.Duration/t.interval))
		jobs = []func() error{t.beginWhenDue, t.serve}
	}
	if err := t.run.Work(ctx, &o.Options, &r.Result, jobs); err != nil {
		return nil, err
	}
	var commits, whole []time.Duration
	again := Step{Name: TransactionsAgain}
	for _, one := range t.all {
		commits, whole = append(commits, one.commits...), append(whole, one.whole...)
		again.Requests += one.again
	}
	r.Requests, r.Steps = int64(len(whole)), []Step{again}
	r.Ack, r.EndToEnd = bench.NewQuantiles(commits), bench.NewQuantiles(whole)
	return r, verifyCommitted(ctx, &o, r.Requests)
}

// transactors are the producers of one run.
type transactors struct {
	all      []*transactor
	addr     string // of the only broker
	run      *bench.Run
	interval time.Duration // between two transactions of a producer; 0: one follows the other
	rounds   int           // transactions of each producer, if there is an interval
}

// newTransactors makes the producers known to the broker.
func newTransactors(ctx context.Context, o *Options) (*transactors, error) {
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	topic, err := c.FindTopic(ctx, o.Topic)
	if err != nil {
		return nil, err
	}
	for key, version := range map[int16]int16{kmsg.Produce.Int16(): transactionProduce, kmsg.EndTxn.Int16(): transactionEnd} {
		if _, err := c.PickVersion(key, version, version); err != nil {
			return nil, err
		}
	}
	batch, err := bench.MakeBatch(record.None, o.Batch, o.Size, time.Now().UnixMilli(), 1)
	if err != nil {
		return nil, err
	}
	if batch, err = makeTransactional(batch); err != nil {
		return nil, err
	}
	t := &transactors{addr: topic.Leaders[0]}
	for i := range o.Producers {
		partition := i % len(topic.Leaders)
		one := newTransactor(fmt.Sprintf("%s-%d", o.Topic, i), o.Topic, int32(partition), batch)
		coordinator, err := one.register(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("producer %s: %w", one.id, err)
		}
		if coordinator != t.addr || topic.Leaders[partition] != t.addr {
			return nil, errors.New("the cluster has several brokers: this run needs a single one")
		}
		t.all = append(t.all, one)
	}
	return t, alterTopic(ctx, c, transactionTopic, "flush.messages", configOf(o, "flush.messages"))
}

// configOf is the value of a config that the topic of the options has; "": the broker's default.
func configOf(o *Options, name string) (value string) {
	for _, c := range o.Configs {
		if v, ok := strings.CutPrefix(c, name+"="); ok {
			value = v
		}
	}
	return value
}

// alterTopic sets a topic's config, or lets it have the broker's default ("").
func alterTopic(ctx context.Context, c *client.Conn, topic, name, value string) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	t := kmsg.NewIncrementalAlterConfigsRequestResource()
	t.ResourceType, t.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	one := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	one.Name, one.Op = name, kmsg.IncrementalAlterConfigOpDelete
	if value != "" {
		one.Op, one.Value = kmsg.IncrementalAlterConfigOpSet, &value
	}
	t.Configs = append(t.Configs, one)
	req.Resources = append(req.Resources, t)
	return c.AtController(ctx, func(c *client.Conn) error {
		answer, err := c.Call(ctx, req)
		if err != nil {
			return err
		}
		resp, _ := answer.(*kmsg.IncrementalAlterConfigsResponse)
		for _, r := range resp.Resources {
			if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
				return fmt.Errorf("%s of topic %s: %w", name, topic, err)
			}
		}
		return nil
	})
}

// beginAll has all producers begin, and serves them.
func (t *transactors) beginAll() error {
	for i, one := range t.all {
		if err := one.begin(t.run.Sockets[i], time.Now()); err != nil {
			return err
		}
	}
	return t.serve()
}

// beginWhenDue has the producers begin, one after another, with equal distance.
func (t *transactors) beginWhenDue() error {
	socket.SharpenTimers()
	begin := time.Now().Add(10 * time.Millisecond)
	for round := range t.rounds {
		for i, one := range t.all {
			due := begin.Add(time.Duration(round)*t.interval + time.Duration(i)*t.interval/time.Duration(len(t.all)))
			socket.SleepUntil(due)
			if err := one.beginOrOwe(t.run.Sockets[i], due); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve takes the answers until each producer has ended its last transaction.
func (t *transactors) serve() error {
	return socket.Watch(t.run.Sockets, len(t.all), func(i int) (bool, error) {
		one := t.all[i]
		ended, err := one.advance(t.run.Sockets[i])
		if err != nil || !ended {
			return false, err
		}
		count := &t.run.Counters[i]
		count.Records.Add(int64(one.batch.Count()))
		count.Bytes.Add(int64(len(one.batch)))
		switch {
		case t.interval > 0:
			return len(one.whole) == t.rounds, one.beginOwed(t.run.Sockets[i])
		case t.run.Stopped():
			return true, nil
		default:
			return false, one.begin(t.run.Sockets[i], time.Now())
		}
	})
}

// transactor is a producer with a transactional id. It sends a batch, waits for the answer, ends the transaction, and
// waits for that answer:
//
//	idle --begin--> producing --answer--> ending --answer--> idle
//
// While it is idle it belongs to the goroutine that begins its transactions, and else to the one that serves it.
type transactor struct {
	id      string
	produce []byte // the request with the batch
	batch   record.Batch
	end     []byte // the request that ends the transaction
	ending  bool

	mu   sync.Mutex
	busy bool        // guarded by mu: it is not idle
	owed []time.Time // guarded by mu: when the transactions were due that are to begin when it is idle

	in            []byte
	have          int
	began, asked  time.Time       // the transaction, and the request that ends it
	commits       []time.Duration // from the request that ends each transaction to its answer
	whole         []time.Duration // of each transaction
	again         int64           // requests that were sent again
	produceAnswer kmsg.ProduceResponse
	endAnswer     kmsg.EndTxnResponse
}

func newTransactor(id, topic string, partition int32, batch record.Batch) *transactor {
	t := &transactor{id: id, in: make([]byte, 4<<10)}
	produce := kmsg.NewPtrProduceRequest()
	produce.SetVersion(transactionProduce)
	produce.TransactionID, produce.Acks, produce.TimeoutMillis = &id, acksAll, 30_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, batch
	rt.Partitions = append(rt.Partitions, rp)
	produce.Topics = append(produce.Topics, rt)
	t.produce = client.Encode(produce)
	at := len(t.produce) - 3 - len(batch) // the tags of the partition, of the topic and of the request follow it
	t.batch = record.Batch(t.produce[at : at+len(batch)])
	end := kmsg.NewPtrEndTxnRequest()
	end.SetVersion(transactionEnd)
	end.TransactionalID, end.Commit = id, true
	t.end = client.Encode(end)
	t.produceAnswer.SetVersion(transactionProduce)
	t.endAnswer.SetVersion(transactionEnd)
	return t
}

// register finds the producer's coordinator and asks it for a producer id.
func (t *transactor) register(ctx context.Context, c *client.Conn) (coordinator string, err error) {
	err = retryUntil(ctx, time.Now().Add(client.CallWithin), func() error {
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorType, find.CoordinatorKeys = 1, []string{t.id}
		answer, err := c.Call(ctx, find)
		if err != nil {
			return err
		}
		found, _ := answer.(*kmsg.FindCoordinatorResponse)
		if len(found.Coordinators) != 1 {
			return errors.New("the broker did not answer for the coordinator")
		}
		at := &found.Coordinators[0]
		if err := kerr.ErrorForCode(at.ErrorCode); err != nil {
			return err
		}
		coordinator = net.JoinHostPort(at.Host, fmt.Sprint(at.Port))
		begin := kmsg.NewPtrInitProducerIDRequest()
		begin.TransactionalID, begin.TransactionTimeoutMillis = &t.id, 60_000
		if answer, err = c.Call(ctx, begin); err != nil {
			return err
		}
		made, _ := answer.(*kmsg.InitProducerIDResponse)
		if err := kerr.ErrorForCode(made.ErrorCode); err != nil {
			return err
		}
		t.setProducer(made.ProducerID, made.ProducerEpoch)
		return nil
	})
	return coordinator, err
}

// Places in a batch's head, and in the request that ends a transaction, from its end.
const (
	batchCRC, batchAttributes, batchProducer, batchEpoch, batchSequence = 17, 21, 43, 51, 53
	endProducer, endEpoch                                               = 8 + 2 + 1 + 1, 2 + 1 + 1

	attributeTransactional = 0x10
)

// makeTransactional returns a batch with the same records that is the first one of a transaction.
func makeTransactional(b record.Batch) (record.Batch, error) {
	b = slices.Clone(b)
	b[batchAttributes+1] |= attributeTransactional
	binary.BigEndian.PutUint32(b[batchSequence:], 0)
	binary.BigEndian.PutUint32(b[batchCRC:], b.Checksum())
	if !b.Transactional() || b.BaseSequence() != 0 {
		return nil, errors.New("BUG: the format of batches is another one")
	}
	return b, b.Verify()
}

// setProducer writes the producer id and the epoch of the next transaction into its requests.
func (t *transactor) setProducer(id int64, epoch int16) {
	be := binary.BigEndian
	be.PutUint64(t.batch[batchProducer:], uint64(id))
	be.PutUint16(t.batch[batchEpoch:], uint16(epoch))
	be.PutUint32(t.batch[batchCRC:], t.batch.Checksum())
	be.PutUint64(t.end[len(t.end)-endProducer:], uint64(id))
	be.PutUint16(t.end[len(t.end)-endEpoch:], uint16(epoch))
}

// begin begins a transaction, which was due at a time.
func (t *transactor) begin(s *socket.Socket, due time.Time) error {
	t.began, t.ending = due, false
	return s.WriteAll(t.produce)
}

// beginOrOwe begins a transaction that is due, or leaves it to beginOwed while the one before has not ended.
func (t *transactor) beginOrOwe(s *socket.Socket, due time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy {
		t.owed = append(t.owed, due)
		return nil
	}
	t.busy = true
	return t.begin(s, due)
}

// beginOwed begins the next transaction that is owed.
func (t *transactor) beginOwed(s *socket.Socket) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy = len(t.owed) > 0; !t.busy {
		return nil
	}
	due := t.owed[0]
	t.owed = t.owed[1:]
	return t.begin(s, due)
}

// advance reads what has come, and does what follows. It tells whether the transaction has ended.
func (t *transactor) advance(s *socket.Socket) (ended bool, err error) {
	n, err := s.ReadAvailable(t.in[t.have:])
	if err != nil {
		return false, err
	}
	if t.have += n; t.have < 4 {
		return false, nil
	}
	const tags = 1 // the head has none
	size := 4 + int(int32(binary.BigEndian.Uint32(t.in)))
	if size < 8+tags || size > len(t.in) || t.have > size { // there is one answer to come
		return false, bench.ErrShort
	}
	if t.have < size {
		return false, nil
	}
	body := t.in[8+tags : size]
	t.have = 0
	if !t.ending {
		return false, t.takeProduced(s, body)
	}
	return t.takeEnded(s, body)
}

// takeProduced takes the answer to the batch, and ends the transaction.
func (t *transactor) takeProduced(s *socket.Socket, body []byte) error {
	if err := t.produceAnswer.ReadFrom(body); err != nil {
		return err
	}
	if _, err := countAccepted(&t.produceAnswer); isAgain(err) {
		t.again++
		return s.WriteAll(t.produce)
	} else if err != nil {
		return fmt.Errorf("the broker refused a batch: %w", err)
	}
	t.asked, t.ending = time.Now(), true
	return s.WriteAll(t.end)
}

// takeEnded takes the answer to the end of the transaction.
func (t *transactor) takeEnded(s *socket.Socket, body []byte) (ended bool, err error) {
	if err := t.endAnswer.ReadFrom(body); err != nil {
		return false, err
	}
	if err := kerr.ErrorForCode(t.endAnswer.ErrorCode); isAgain(err) {
		t.again++
		return false, s.WriteAll(t.end)
	} else if err != nil {
		return false, fmt.Errorf("the broker refused to end a transaction: %w", err)
	}
	now := time.Now()
	t.commits, t.whole = append(t.commits, now.Sub(t.asked)), append(t.whole, now.Sub(t.began))
	t.setProducer(t.endAnswer.ProducerID, t.endAnswer.ProducerEpoch)
	return true, nil
}

// isAgain tells whether an error says that the same request may succeed a moment later.
func isAgain(err error) bool {
	return errors.Is(err, kerr.ConcurrentTransactions) || err != nil && kerr.IsRetriable(err)
}

// verifyCommitted makes a run void unless an ordinary client that reads what is committed finds the records of that
// many transactions, and each has one marker.
func verifyCommitted(ctx context.Context, o *Options, transactions int64) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...), kgo.ConsumeTopics(o.Topic), kgo.FetchMaxBytes(16<<20), kgo.FetchMaxPartitionBytes(4<<20),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	want := transactions * int64(o.Batch)
	for have := int64(0); have < want; {
		wait, cancel := context.WithTimeout(ctx, readWithin)
		fetches := cl.PollFetches(wait)
		cancel()
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("%w: %d of %d committed records were read: %w", ErrVoid, have, want, err)
		}
		if have += int64(fetches.NumRecords()); have > want {
			return fmt.Errorf("%w: %d records were read of %d that were committed", ErrVoid, have, want)
		}
	}
	all := want + transactions
	err = retryUntil(ctx, time.Now().Add(readWithin), func() error { // the last markers may come later
		n, err := CountRecords(ctx, o)
		if err == nil && n < all {
			return kerr.RequestTimedOut
		}
		if err == nil && n > all {
			return fmt.Errorf("%w: offsets tell of %d records and markers, not of %d", ErrVoid, n, all)
		}
		return err
	})
	return err
}
