package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// sentHeader is the header in which a record carries when it was sent, in ns.
const sentHeader = "sent"

// produceEvery is how often the producer sends the records that are due.
const produceEvery = 2 * time.Millisecond

// demoStats counts the records of the demo. The producer and the consumer write it, the view reads it.
type demoStats struct {
	produced, producedBytes atomic.Int64 // acknowledged
	consumed, consumedBytes atomic.Int64
	latency                 latencies // from sending to having read

	sent        atomic.Int64 // handed to the producer
	lastAnswer  atomic.Int64 // when a record was last acknowledged, in ns
	longestWait atomic.Int64 // of a record for its acknowledgement, in ns, since the demo began or a node was killed
	ledger      *ledger      // of a demo of several nodes; nil: of one, which nobody kills
}

// noteAnswer notes that a record was acknowledged that was sent at a time.
func (s *demoStats) noteAnswer(sent time.Time) {
	now := time.Now()
	s.lastAnswer.Store(now.UnixNano())
	for wait := int64(now.Sub(sent)); ; {
		longest := s.longestWait.Load()
		if wait <= longest || s.longestWait.CompareAndSwap(longest, wait) {
			return
		}
	}
}

// currentWait is how long records have waited by now without an acknowledgement of any.
func (s *demoStats) currentWait() time.Duration {
	last := s.lastAnswer.Load()
	if last == 0 || s.sent.Load() == s.produced.Load() {
		return 0
	}
	return time.Duration(time.Now().UnixNano() - last)
}

// load is a producer and a consumer at work on goroutines of their own.
type load struct {
	stats    *demoStats
	producer *kgo.Client
	consumer *kgo.Client
	cancel   context.CancelFunc
	running  sync.WaitGroup
	failed   chan struct{} // closed at the first failure
	failure  struct {
		once sync.Once
		err  error // to be read when failed is closed
	}
}

// startLoad starts the producer and the consumer. They stop when ctx ends or stopLoad is called.
func (a *app) startLoad(ctx context.Context, rate int, lines []accessLine, stats *demoStats) (*load, error) {
	l := &load{stats: stats, failed: make(chan struct{})}
	var err error
	l.producer, err = a.connectClient(ctx, kgo.DefaultProduceTopic(demoTopic), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.MetadataMinAge(demoMetadataAge))
	if err != nil {
		return nil, err
	}
	l.consumer, err = a.connectClient(ctx, kgo.ConsumerGroup(demoGroup), kgo.ConsumeTopics(demoTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(demoMetadataAge))
	if err != nil {
		l.producer.Close()
		return nil, err
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.running.Go(func() { l.consumeLines(ctx) })
	l.running.Go(func() { l.produceLines(ctx, rate, lines) })
	return l, nil
}

// stopLoad stops the producer and the consumer, and returns their first failure.
func (l *load) stopLoad() error {
	l.cancel()
	l.running.Wait()
	closeClient(l.producer)
	closeClient(l.consumer)
	select {
	case <-l.failed:
		return l.failure.err
	default:
		return nil
	}
}

func (l *load) noteFailure(what string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) {
		return // the end of the demo
	}
	if l.stats.ledger != nil && (isNetwork(err) || kerr.IsRetriable(err)) {
		return // the nodes that are needed were killed: the clients go on when these are back
	}
	l.failure.once.Do(func() {
		l.failure.err = answerError(what, err, "")
		close(l.failed)
	})
}

// produceLines sends the log's lines at a steady rate, again and again.
func (l *load) produceLines(ctx context.Context, rate int, lines []accessLine) {
	tick := time.NewTicker(produceEvery)
	defer tick.Stop()
	started := time.Now()
	for sent := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(started).Seconds() * float64(rate)); sent < due && ctx.Err() == nil; sent++ {
			l.sendLine(ctx, lines[sent%len(lines)])
		}
	}
}

func (l *load) sendLine(ctx context.Context, line accessLine) {
	now := time.Now()
	r := &kgo.Record{
		Key: line.client, Value: line.text, Timestamp: now,
		Headers: []kgo.RecordHeader{{Key: sentHeader, Value: binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))}},
	}
	l.stats.sent.Add(1)
	l.producer.Produce(ctx, r, func(r *kgo.Record, err error) {
		if err != nil {
			l.stats.sent.Add(-1) // nobody waits for it any more
			l.noteFailure("producing", err)
			return
		}
		l.stats.noteAnswer(now)
		if l.stats.ledger != nil {
			l.stats.ledger.noteAcknowledged(r.Partition, r.Offset, uint64(now.UnixNano()))
		}
		l.stats.produced.Add(1)
		l.stats.producedBytes.Add(int64(len(r.Key) + len(r.Value)))
	})
}

// consumeLines reads records and measures how long each was on its way.
func (l *load) consumeLines(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := l.consumer.PollFetches(ctx)
		now := time.Now().UnixNano()
		fetches.EachError(func(_ string, _ int32, err error) {
			if _, isLoss := errors.AsType[*kgo.ErrDataLoss](err); isLoss || l.stats.ledger == nil {
				l.noteFailure("consuming", err)
			} // else a node that the group needs was killed, and the client joins it again
		})
		fetches.EachRecord(func(r *kgo.Record) { l.noteRead(r, now) })
	}
}

// noteRead counts a record that was read. One that was read before, by the member that had its partition,
// does not count.
func (l *load) noteRead(r *kgo.Record, now int64) {
	var sent uint64
	for _, h := range r.Headers {
		if h.Key == sentHeader && len(h.Value) == 8 {
			sent = binary.BigEndian.Uint64(h.Value)
		}
	}
	if l.stats.ledger != nil && !l.stats.ledger.noteRead(r.Partition, r.Offset, sent) {
		return
	}
	l.stats.consumed.Add(1)
	l.stats.consumedBytes.Add(int64(len(r.Key) + len(r.Value)))
	if sent > 0 {
		l.stats.latency.addLatency(time.Duration(now - int64(sent)))
	}
}
