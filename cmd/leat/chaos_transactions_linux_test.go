package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// The topics of the transactional clients. They are not in the history of the others: their offsets have gaps for readers
// of what is committed.
const (
	booksTopic   = "ledger" // written by tellers, several partitions in a transaction
	ordersTopic  = "orders" // written by an ordinary idempotent producer
	shippedTopic = "moved"  // has each order once, in transactions with the offsets of the orders
	moversGroup  = "movers"

	tellers = 4
)

func transactionTopics() []*chaosTopic {
	return []*chaosTopic{
		{loadTopic: &loadTopic{name: booksTopic, partitions: 4}},
		{loadTopic: &loadTopic{name: ordersTopic, partitions: 3}},
		{loadTopic: &loadTopic{name: shippedTopic, partitions: 3}},
	}
}

func tellerID(number int) string { return fmt.Sprintf("teller-%d", number) }

// transactionBook has what transactional clients were told, and what readers of committed records saw. It is safe for
// concurrent use.
type transactionBook struct {
	mu       sync.Mutex
	entries  map[string]*transactionEntry // by name; guarded by mu
	commits  [tellers]int                 // guarded by mu
	aborts   int                          // that their client wanted; guarded by mu
	unknown  int                          // transactions whose outcome no client was told; guarded by mu
	orders   map[string]int               // how often a reader of committed records saw each that was acknowledged or moved; guarded by mu
	acked    []string                     // orders; guarded by mu
	moved    int                          // guarded by mu
	showings map[string][]string          // what readers saw, by reader and partition; guarded by mu
	wrong    []error                      // guarded by mu
}

// transactionEntry is a transaction of a teller.
type transactionEntry struct {
	values  int
	outcome transactionOutcome
	seen    map[string]bool // values that the first reader of committed records saw
}

type transactionOutcome uint8

const (
	openOrUnknown transactionOutcome = iota
	toldCommitted
	toldAborted
)

func newTransactionBook() *transactionBook {
	return &transactionBook{entries: map[string]*transactionEntry{}, orders: map[string]int{}, showings: map[string][]string{}}
}

func (b *transactionBook) complainLocked(format string, args ...any) {
	if len(b.wrong) < 100 {
		b.wrong = append(b.wrong, fmt.Errorf("%s %w", time.Now().UTC().Format("15:04:05.000"), fmt.Errorf(format, args...)))
	}
}

// begin notes a transaction and how many values it is to have.
func (b *transactionBook) begin(name string, values int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[name] = &transactionEntry{values: values, seen: map[string]bool{}}
}

// end notes what a teller was told of its transaction.
func (b *transactionBook) end(teller int, name string, outcome transactionOutcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[name]
	e.outcome = outcome
	switch outcome {
	case toldCommitted:
		b.commits[teller]++
	case toldAborted:
		b.aborts++
		if len(e.seen) > 0 {
			b.complainLocked("%s was told that transaction %s is aborted, and a reader of committed records has seen %d values of it", tellerID(teller), name, len(e.seen))
		}
	case openOrUnknown:
		b.unknown++
	}
}

// saw notes a record that a reader of committed records got.
func (b *transactionBook) saw(reader string, isFirst bool, r *kgo.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	place := fmt.Sprintf("%s %s-%d", reader, r.Topic, r.Partition)
	b.showings[place] = append(b.showings[place], fmt.Sprintf("%d=%s", r.Offset, r.Value))
	if !isFirst {
		return
	}
	value := string(r.Value)
	if r.Topic == shippedTopic {
		b.moved++
		if b.orders[value]++; b.orders[value] > 1 {
			b.complainLocked("order %s is moved %d times, now at %s-%d offset %d", value, b.orders[value], r.Topic, r.Partition, r.Offset)
		}
		return
	}
	name, _, _ := strings.Cut(value, "#")
	e := b.entries[name]
	switch {
	case e == nil:
		b.complainLocked("%s-%d offset %d has %q, of no transaction", r.Topic, r.Partition, r.Offset, value)
	case e.seen[value]:
		b.complainLocked("%s-%d offset %d has %q again", r.Topic, r.Partition, r.Offset, value)
	case e.outcome == toldAborted:
		b.complainLocked("%s-%d offset %d has %q, whose transaction its client was told to be aborted", r.Topic, r.Partition, r.Offset, value)
	default:
		e.seen[value] = true
	}
}

func (b *transactionBook) commitsOf() [tellers]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.commits
}

func (b *transactionBook) faults() []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clip(b.wrong)
}

// compareReaders proves, when all is over, that all readers of committed records saw the same.
func (b *transactionBook) compareReaders(t *testing.T, readers ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, topic := range []string{booksTopic, shippedTopic} {
		for p := range 4 {
			first := b.showings[fmt.Sprintf("%s %s-%d", readers[0], topic, p)]
			for _, reader := range readers[1:] {
				other := b.showings[fmt.Sprintf("%s %s-%d", reader, topic, p)]
				if n := min(len(first), len(other)); !slices.Equal(first[:n], other[:n]) {
					at := 0
					for first[at] == other[at] {
						at++
					}
					t.Errorf("of %s-%d %s saw %s where %s saw %s", topic, p, readers[0], first[at], reader, other[at])
				}
			}
		}
	}
}

// summary is a sentence on how many transactions there were.
func (b *transactionBook) summary() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	commits := 0
	for _, n := range b.commits {
		commits += n
	}
	return fmt.Sprintf("%d transactions of producers were committed and %d aborted, of %d no client was told the outcome, and %d orders were moved.", commits, b.aborts, b.unknown, b.moved)
}

// The readers of committed records.
const (
	committedReaderName = "the reader of committed records"
	rackReaderName      = "the reader of committed records in rack 2"
)

// addTransactions adds the transactional clients: tellers, which write to several partitions and commit or abort, a clerk,
// which writes orders, and movers, which move each order once.
func (l *chaosLoad) addTransactions(writing, reading context.Context, t *testing.T) {
	t.Helper()
	for number := range tellers {
		rng := rand.New(rand.NewPCG(4, uint64(number)))
		l.writers.Go(func() { l.tell(writing, t, number, rng) })
	}
	l.addClerk(writing, t)
	for number := range 2 {
		l.readers.Go(func() { l.move(reading, number) })
	}
	l.addCommittedReader(reading, t, committedReaderName, true)
	l.addCommittedReader(reading, t, rackReaderName, false, kgo.Rack("rack-2"))
}

// tell runs one transaction of a teller after the other. The second teller uses the older flow, and the third is
// sometimes so slow that its transactions time out. After an error, whose transaction may have ended in either way, the
// teller begins anew, which ends it.
func (l *chaosLoad) tell(ctx context.Context, t *testing.T, number int, rng *rand.Rand) {
	t.Helper()
	opts := []kgo.Opt{
		kgo.TransactionalID(tellerID(number)), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(20 * time.Second),
		kgo.DefaultProduceTopic(booksTopic), kgo.UnknownTopicRetries(-1), kgo.ProduceRequestTimeout(3 * time.Second),
	}
	switch number {
	case 1:
		opts = append(opts, kgo.MaxVersions(kversion.V3_7_0()))
	case 2:
		opts = append(opts, kgo.TransactionTimeout(2*time.Second))
	}
	var cl *kgo.Client
	for n := 1; ctx.Err() == nil; n++ {
		if cl == nil {
			cl = l.client(t, opts...)
		}
		if !l.runTransaction(ctx, cl, number, n, rng) {
			cl.Close()
			cl = nil
		}
		pause(ctx, time.Duration(rng.IntN(40))*time.Millisecond)
	}
	if cl != nil {
		cl.Close()
	}
}

// runTransaction runs one transaction, and tells whether the client can go on.
func (l *chaosLoad) runTransaction(ctx context.Context, cl *kgo.Client, teller, n int, rng *rand.Rand) bool {
	name := fmt.Sprintf("%s.%d", tellerID(teller), n)
	values := 2 + rng.IntN(6)
	commit, isSlow := rng.IntN(4) > 0, teller == 2 && rng.IntN(4) == 0
	// What was begun is ended, also if the writers are to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	l.money.begin(name, values)
	if err := cl.BeginTransaction(); err != nil {
		l.money.end(teller, name, openOrUnknown)
		return false
	}
	var mu sync.Mutex
	var failed error
	for i := range values {
		cl.Produce(ctx, &kgo.Record{Partition: rng.Int32N(4), Value: fmt.Appendf(nil, "%s#%d", name, i)}, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	err := cl.Flush(ctx)
	if isSlow {
		pause(ctx, 3*time.Second)
	}
	mu.Lock()
	err = errors.Join(err, failed)
	mu.Unlock()
	if err != nil {
		commit = false
		if cl.AbortBufferedRecords(ctx) != nil {
			l.money.end(teller, name, openOrUnknown)
			return false
		}
	}
	if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		l.money.end(teller, name, openOrUnknown)
		return false
	}
	if commit {
		l.money.end(teller, name, toldCommitted)
	} else {
		l.money.end(teller, name, toldAborted)
	}
	return err == nil
}

// addClerk adds the producer of orders.
func (l *chaosLoad) addClerk(ctx context.Context, t *testing.T) {
	t.Helper()
	cl := l.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(ordersTopic), kgo.UnknownTopicRetries(-1),
		kgo.ProduceRequestTimeout(3*time.Second), kgo.StopProducerOnDataLossDetected())
	l.clients = append(l.clients, cl)
	l.writers.Go(func() {
		places := make(chan struct{}, unanswered)
		for n := 1; ctx.Err() == nil; n++ {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			order := fmt.Sprintf("order-%d", n)
			cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Partition: int32(n % 3), Value: []byte(order)}, func(_ *kgo.Record, err error) {
				<-places
				l.money.mu.Lock()
				defer l.money.mu.Unlock()
				if err != nil {
					l.money.complainLocked("order %s failed: %w", order, err)
					return
				}
				l.money.acked = append(l.money.acked, order)
			})
			pause(ctx, 20*time.Millisecond)
		}
	})
}

// move moves orders, each batch in a transaction with its offsets. After an error it begins anew.
func (l *chaosLoad) move(ctx context.Context, number int) {
	for ctx.Err() == nil {
		opts := []kgo.Opt{
			kgo.SeedBrokers(l.seeds...), kgo.TransactionalID(fmt.Sprintf("mover-%d", number)), kgo.ConsumerGroup(moversGroup), kgo.ConsumeTopics(ordersTopic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.SessionTimeout(10 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond), kgo.MetadataMinAge(100 * time.Millisecond), kgo.DialTimeout(time.Second),
			kgo.RequestTimeoutOverhead(2 * time.Second), kgo.FetchMaxWait(100 * time.Millisecond), kgo.DefaultProduceTopic(shippedTopic), kgo.UnknownTopicRetries(-1),
			kgo.TransactionTimeout(20 * time.Second),
		}
		if number == 1 {
			opts = append(opts, kgo.MaxVersions(kversion.V3_7_0()))
		}
		s, err := kgo.NewGroupTransactSession(opts...)
		if err != nil {
			l.money.mu.Lock()
			l.money.complainLocked("mover %d: %w", number, err)
			l.money.mu.Unlock()
			return
		}
		for n := 0; ctx.Err() == nil; n++ {
			if !moveSome(ctx, s, n) {
				break
			}
		}
		s.Close()
		pause(ctx, 50*time.Millisecond)
	}
}

// moveSome moves some orders, and tells whether the session can go on.
func moveSome(ctx context.Context, s *kgo.GroupTransactSession, n int) bool {
	f := s.PollRecords(ctx, 50)
	if ctx.Err() != nil || f.NumRecords() == 0 {
		return ctx.Err() == nil
	}
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if s.Begin() != nil {
		return false
	}
	var mu sync.Mutex
	hasFailed := false
	f.EachRecord(func(r *kgo.Record) {
		s.Produce(working, &kgo.Record{Key: r.Value, Value: r.Value}, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			hasFailed = hasFailed || err != nil
		})
	})
	if s.Client().Flush(working) != nil {
		return false
	}
	mu.Lock()
	commit := !hasFailed && n%5 != 4
	mu.Unlock()
	_, err := s.End(working, kgo.TransactionEndTry(commit))
	return err == nil
}

// addCommittedReader adds a reader of committed records.
func (l *chaosLoad) addCommittedReader(ctx context.Context, t *testing.T, name string, isFirst bool, opts ...kgo.Opt) {
	t.Helper()
	cl := l.client(t, append(opts, kgo.ConsumeTopics(booksTopic, shippedTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	l.readers.Go(func() {
		defer cl.CloseAllowingRebalance()
		next := map[string]map[int32]int64{booksTopic: {}, shippedTopic: {}} // the offset after the last record that it was given
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			fetches.EachError(func(topic string, partition int32, err error) {
				// franz-go 1.22 goes on over markers and aborted records without taking their leader epoch. If they alone are of
				// a later epoch, it takes them for lost, and reads them again: nothing that it was given is gone.
				if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok && loss.ResetTo < next[topic][partition] {
					l.money.mu.Lock()
					l.money.complainLocked("%s, %s-%d: %w", name, topic, partition, loss)
					l.money.mu.Unlock()
				}
			})
			fetches.EachRecord(func(r *kgo.Record) {
				next[r.Topic][r.Partition] = r.Offset + 1
				l.money.saw(name, isFirst, r)
			})
		}
	})
}

// awaitTransactions waits until every teller has committed a transaction since the call, and readers of committed records have
// seen all that was committed before and all orders.
func (c *campaign) awaitTransactions(t *testing.T, when string) {
	t.Helper()
	before := c.money.commitsOf()
	for until := time.Now().Add(healLimit); ; pause(t.Context(), 20*time.Millisecond) {
		now := c.money.commitsOf()
		if !slices.ContainsFunc([]int{0, 1, 2, 3}, func(i int) bool { return now[i] <= before[i] }) {
			break
		}
		if time.Now().After(until) {
			t.Errorf("%s not every teller commits within %v: %v before, %v now", when, healLimit, before, now)
			return
		}
	}
	c.awaitCommittedSeen(t, when)
}

// awaitCommittedSeen waits until a moment comes in which readers of committed records have seen all that they are to see.
func (c *campaign) awaitCommittedSeen(t *testing.T, when string) {
	t.Helper()
	c.money.mu.Lock()
	committed := map[string]bool{}
	for name, e := range c.money.entries {
		if e.outcome == toldCommitted || len(e.seen) > 0 {
			committed[name] = true
		}
	}
	orders := slices.Clone(c.money.acked)
	c.money.mu.Unlock()
	for until := time.Now().Add(healLimit); ; pause(t.Context(), 20*time.Millisecond) {
		left, example := 0, ""
		c.money.mu.Lock()
		for name := range committed {
			if e := c.money.entries[name]; len(e.seen) < e.values {
				left++
				example = fmt.Sprintf("transaction %s, of whose %d values %d were seen", name, e.values, len(e.seen))
			}
		}
		for _, order := range orders {
			if c.money.orders[order] == 0 {
				left++
				example = order
			}
		}
		c.money.mu.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(until) {
			t.Errorf("%s no reader of committed records sees %d transactions and orders within %v, such as %s", when, left, healLimit, example)
			return
		}
	}
}

// txnCoordinatorOf asks for the coordinator of a transactional id.
func txnCoordinatorOf(id string) *kmsg.FindCoordinatorRequest {
	req := coordinatorOf(id)
	req.CoordinatorType = 1
	return req
}

func pickTxnCoordinator(t *testing.T, c *campaign) *machine {
	t.Helper()
	return c.awaitCoordinator(t, "a transactional id", func() *kmsg.FindCoordinatorRequest { return txnCoordinatorOf(tellerID(c.rng.IntN(tellers))) })
}
