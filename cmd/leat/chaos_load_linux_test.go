package main_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// chaosLoad is a set of clients that write to a cluster, read from it and commit offsets without pause.
type chaosLoad struct {
	*history
	money   *transactionBook
	seeds   []string
	writing context.CancelFunc // ends the writers
	reading context.CancelFunc // ends everybody else
	clients []*kgo.Client      // the writers'
	writers sync.WaitGroup
	readers sync.WaitGroup
}

const (
	chaosGroup = "group"
	// unanswered is how many records of a writer are under way to a partition at most. A partition that
	// takes no records so keeps nobody from writing to the others.
	unanswered = 15
)

// startChaosLoad starts the clients, those with transactions only if that is asked for. The topics must be there.
func startChaosLoad(t *testing.T, seeds []string, topics []*chaosTopic, withTransactions bool) *chaosLoad {
	t.Helper()
	l := &chaosLoad{history: newHistory(topics), money: newTransactionBook(), seeds: seeds}
	writing, stopWriting := context.WithCancel(t.Context())
	reading, stopReading := context.WithCancel(t.Context())
	l.writing, l.reading = stopWriting, stopReading
	for _, topic := range topics {
		for _, number := range topic.writers {
			l.addWriter(writing, t, topic, number)
		}
	}
	l.addReader(reading, t, "the reader")
	l.addReader(reading, t, "the reader in rack 2", kgo.Rack("rack-2"))
	for i := range 2 {
		l.addMember(reading, t, fmt.Sprintf("member %d", i+1))
	}
	l.addInspector(reading, t)
	if withTransactions {
		l.addTransactions(writing, reading, t)
	}
	t.Cleanup(func() {
		stopWriting()
		stopReading()
		for _, cl := range l.clients {
			cl.Close()
		}
		l.writers.Wait()
		l.readers.Wait()
	})
	return l
}

func (l *chaosLoad) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(l.seeds...), kgo.MetadataMinAge(100 * time.Millisecond), kgo.AlwaysRetryEOF(),
		kgo.DialTimeout(time.Second), kgo.RequestTimeoutOverhead(2 * time.Second), kgo.RetryTimeout(time.Minute),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.FetchMaxWait(100 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// addWriter adds a client that writes to all partitions of a topic, each on its own.
func (l *chaosLoad) addWriter(ctx context.Context, t *testing.T, topic *chaosTopic, number int64) {
	t.Helper()
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(topic.acks), kgo.UnknownTopicRetries(-1),
		kgo.ProduceRequestTimeout(3 * time.Second), kgo.ProducerBatchCompression(kgo.NoCompression()),
	}
	if topic.idempotent {
		opts = append(opts, kgo.StopProducerOnDataLossDetected())
	} else {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl := l.client(t, opts...)
	l.clients = append(l.clients, cl)
	for partition := range topic.partitions {
		places := make(chan struct{}, unanswered)
		l.writers.Go(func() {
			for seq := int64(1); ; seq++ {
				select {
				case places <- struct{}{}:
				case <-ctx.Done():
					return
				}
				id := recordOf(number, partition, seq)
				// ctx does not cancel a record that was sent, so that it gets its answer.
				cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: topic.name, Partition: partition, Value: id.value(topic.loadTopic)},
					func(r *kgo.Record, err error) {
						l.answered(topic, id, r, err)
						<-places
					})
				pause(ctx, 2*time.Millisecond) // the machine has other things to do than to write as fast as it can
			}
		})
	}
}

// addReader adds a client that reads all partitions from their start on. It must get every offset once.
func (l *chaosLoad) addReader(ctx context.Context, t *testing.T, name string, opts ...kgo.Opt) {
	t.Helper()
	cl := l.client(t, append(opts, kgo.ConsumeTopics(l.names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	l.readers.Go(func() {
		defer cl.CloseAllowingRebalance()
		next := map[string]map[int32]int64{}
		for topic := range l.topics {
			next[topic] = map[int32]int64{}
		}
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			l.noteLoss(name, fetches)
			fetches.EachRecord(func(r *kgo.Record) {
				if want := next[r.Topic][r.Partition]; r.Offset != want {
					l.mu.Lock()
					l.complain(r.Topic, r.Partition, "%s got offset %d instead of %d", name, r.Offset, want)
					l.mu.Unlock()
				}
				next[r.Topic][r.Partition] = r.Offset + 1
				l.saw(name, r)
			})
		}
	})
}

// noteLoss complains if a client was told that records which it has read are gone.
func (l *chaosLoad) noteLoss(name string, fetches kgo.Fetches) {
	fetches.EachError(func(topic string, partition int32, err error) {
		if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
			l.mu.Lock()
			l.complain(topic, partition, "%s: %w", name, loss)
			l.mu.Unlock()
		}
	})
}

// addMember adds a member of the group, which commits what it has read.
func (l *chaosLoad) addMember(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	var mu sync.Mutex
	fresh := map[string]map[int32]int64{} // what ackedCommit said of partitions that were assigned; guarded by mu
	for topic := range l.topics {
		fresh[topic] = map[int32]int64{}
	}
	assigned := func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
		mu.Lock()
		defer mu.Unlock()
		for topic, partitions := range parts {
			for _, p := range partitions {
				fresh[topic][p] = l.ackedCommit(topic, p)
			}
		}
	}
	cl := l.client(t, kgo.ConsumerGroup(chaosGroup), kgo.ConsumeTopics(l.names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(assigned), kgo.SessionTimeout(10*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond))
	l.readers.Go(func() {
		defer cl.CloseAllowingRebalance()
		for ctx.Err() == nil {
			fetches := cl.PollRecords(ctx, 2000)
			l.noteLoss(name, fetches)
			mu.Lock()
			fetches.EachPartition(func(p kgo.FetchTopicPartition) {
				least, isFresh := fresh[p.Topic][p.Partition]
				if isFresh && len(p.Records) > 0 {
					delete(fresh[p.Topic], p.Partition)
					l.sawCommitted(name, p.Topic, p.Partition, p.Records[0].Offset, least)
				}
			})
			mu.Unlock()
			fetches.EachRecord(func(r *kgo.Record) { l.tryCommit(r.Topic, r.Partition, r.Offset+1) })
			l.commit(ctx, cl)
			cl.AllowRebalance()
		}
	})
}

// commit commits what a member has read, and notes what was acknowledged.
func (l *chaosLoad) commit(ctx context.Context, cl *kgo.Client) {
	heads := cl.UncommittedOffsets()
	if len(heads) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	done := make(chan struct{})
	cl.CommitOffsetsSync(ctx, heads, func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		defer close(done)
		if err != nil {
			return
		}
		asked := map[string]map[int32]int64{}
		for _, topic := range req.Topics {
			asked[topic.Topic] = map[int32]int64{}
			for _, p := range topic.Partitions {
				asked[topic.Topic][p.Partition] = p.Offset
			}
		}
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				if p.ErrorCode == 0 {
					l.ackCommit(topic.Topic, p.Partition, asked[topic.Topic][p.Partition])
				}
			}
		}
	})
	<-done
}

// addInspector adds a client that asks for the committed offsets of the group without pause.
func (l *chaosLoad) addInspector(ctx context.Context, t *testing.T) {
	t.Helper()
	cl := l.client(t)
	l.readers.Go(func() {
		defer cl.Close()
		adm := kadm.NewClient(cl)
		for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
			least := map[string][]int64{}
			for name, topic := range l.topics {
				for p := range topic.partitions {
					least[name] = append(least[name], l.ackedCommit(name, p))
				}
			}
			asking, cancel := context.WithTimeout(ctx, 5*time.Second)
			told, err := adm.FetchOffsets(asking, chaosGroup)
			cancel()
			if err != nil {
				continue
			}
			for name, all := range least {
				for p, acked := range all {
					o, ok := told.Lookup(name, int32(p))
					if ok && o.Err != nil {
						continue
					}
					l.sawCommitted("the inspector", name, int32(p), max(0, o.At), acked)
				}
			}
		}
	})
}

// stopWriters ends the writers when all their records have an answer. It returns an error if they do not
// get one in time.
func (l *chaosLoad) stopWriters(ctx context.Context) error {
	l.writing()
	l.writers.Wait()
	for _, cl := range l.clients {
		if err := cl.Flush(ctx); err != nil {
			return fmt.Errorf("records have no answer: %w", err)
		}
	}
	return nil
}
