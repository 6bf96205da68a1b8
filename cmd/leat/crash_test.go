//go:build unix

package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	kills           = 60 // of each crash loop
	crashPartitions = 3
)

// ledger has the answers that a producer was given: which record has which offset. It is safe for
// concurrent use.
type ledger struct {
	mu     sync.Mutex
	acked  [crashPartitions]map[int64]string // value by offset
	sent   [crashPartitions]int
	failed []error
}

// TestCrashLoop proves the meaning of an acknowledgement. A producer with acks=all writes while the
// node is killed again and again, also while it starts. In the end each acknowledged record is
// there once, in order, and at its offset. Without idempotence a retry may store a record again,
// but each acknowledged record is at its offset.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		t.Run(fmt.Sprintf("idempotent=%v", idempotent), func(t *testing.T) {
			t.Parallel()
			crashLoop(t, idempotent)
		})
	}
}

func crashLoop(t *testing.T, idempotent bool) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir, addr := t.TempDir(), freeAddr(t)
	p := upAt(t, dir, addr)
	if _, err := kadm.NewClient(p.client(t)).CreateTopic(t.Context(), crashPartitions, 1, nil, "ledger"); err != nil {
		t.Fatal(err)
	}
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("ledger"), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(300), kgo.UnknownTopicRetries(-1),
		kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }), kgo.RetryTimeout(time.Minute),
		kgo.MetadataMinAge(10 * time.Millisecond), kgo.AlwaysRetryEOF(),
		// Records whose producer the node has forgotten must fail, not pass as new.
		kgo.StopProducerOnDataLossDetected(),
	}
	if !idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	producer := p.client(t, opts...)
	book := &ledger{}
	ctx, stopWriting := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	writers.Go(func() { book.write(ctx, producer) })
	var committed int64
	writers.Go(func() { committed = commitUpwards(ctx, kadm.NewClient(p.client(t, opts...))) })

	for range kills {
		starting := rng.IntN(5) == 0
		if !starting {
			p.awaitReady(t)
		}
		// The test waits for nothing here: the moment of the kill varies.
		time.Sleep(time.Duration(rng.IntN(60_000)) * time.Microsecond)
		p.kill()
		p = launch(t, dir, addr, "--http", "off")
	}
	p.awaitReady(t)
	stopWriting()
	writers.Wait()
	flush, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := producer.Flush(flush); err != nil {
		t.Fatalf("flush after the last start: %v", err)
	}
	book.check(t, p, idempotent)
	offsets, err := kadm.NewClient(p.client(t)).FetchOffsets(t.Context(), "committer")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup("ledger", 0); !ok || o.At < committed || committed == 0 {
		t.Errorf("committed offset %d (%v), want at least %d, which was acknowledged", o.At, ok, committed)
	}
	p.stop(t)
}

// write produces numbered records until ctx ends. Their order in a partition is the order of their
// numbers.
func (l *ledger) write(ctx context.Context, cl *kgo.Client) {
	for i := range l.acked {
		l.acked[i] = map[int64]string{}
	}
	padding := strings.Repeat(".", 100)
	for i := 0; ctx.Err() == nil; i++ {
		p := i % crashPartitions
		value := strconv.Itoa(l.sent[p]) + padding
		l.sent[p]++
		// Buffered records bound how many records are under way. ctx does not cancel records that
		// were sent, so that each gets its answer.
		cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Partition: int32(p), Value: []byte(value)}, func(r *kgo.Record, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				l.failed = append(l.failed, fmt.Errorf("partition %d, record %.20s: %w", r.Partition, r.Value, err))
				return
			}
			if other, ok := l.acked[r.Partition][r.Offset]; ok {
				l.failed = append(l.failed, fmt.Errorf("partition %d: offset %d was acknowledged for %.20s and for %.20s", r.Partition, r.Offset, other, r.Value))
			}
			l.acked[r.Partition][r.Offset] = string(r.Value)
		})
	}
}

// check compares the ledger with the records of the node.
func (l *ledger) check(t *testing.T, p *process, idempotent bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.failed[:min(5, len(l.failed))] {
		t.Errorf("a record failed: %v", err)
	}
	ends, err := kadm.NewClient(p.client(t)).ListEndOffsets(t.Context(), "ledger")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	ends.Each(func(o kadm.ListedOffset) { total += int(o.Offset) })
	var stored [crashPartitions]map[int64]string
	for i := range stored {
		stored[i] = map[int64]string{}
	}
	for _, r := range readAll(t, p, "ledger", total) {
		stored[r.Partition][r.Offset] = string(r.Value)
	}
	acked := 0
	for i := range l.acked {
		acked += len(l.acked[i])
		for offset, value := range l.acked[i] {
			if got := stored[i][offset]; got != value {
				t.Fatalf("partition %d, offset %d: %.20q was acknowledged, %.20q is there", i, offset, value, got)
			}
		}
		checkOrder(t, i, stored[i], l.sent[i], idempotent)
	}
	t.Logf("%d records acknowledged, %d stored, %d kills", acked, total, kills)
	if acked < kills {
		t.Errorf("only %d records were acknowledged: the loop proves nothing", acked)
	}
}

// checkOrder proves that the numbers in a partition rise without a gap. A number may come again
// only without idempotence.
func checkOrder(t *testing.T, partition int, stored map[int64]string, sent int, idempotent bool) {
	t.Helper()
	next := 0
	for offset := range int64(len(stored)) {
		value, ok := stored[offset]
		if !ok {
			t.Fatalf("partition %d: nothing at offset %d", partition, offset)
		}
		n, err := strconv.Atoi(strings.TrimRight(value, "."))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n == next:
			next++
		case idempotent || n > next:
			t.Fatalf("partition %d: record %d at offset %d, want record %d", partition, n, offset, next)
		case n < next:
			next = n + 1 // a batch that was sent again
		}
	}
	if next != sent {
		t.Errorf("partition %d: the last record is %d, want %d", partition, next-1, sent-1)
	}
}

// commitUpwards commits rising offsets until ctx ends, and returns the last
// that was acknowledged.
func commitUpwards(ctx context.Context, adm *kadm.Client) int64 {
	var acked int64
	for at := int64(1); ctx.Err() == nil; at++ {
		offsets := kadm.Offsets{}
		offsets.AddOffset("ledger", 0, at, -1)
		if err := adm.CommitAllOffsets(ctx, "committer", offsets); err == nil {
			acked = at
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return acked
}

// TestCrashNewPartitions proves that the first records of hundreds of new partitions are there
// after a kill, after another one while the node starts, and after a stop, in both modes. The files
// of these partitions are made only after the records were acknowledged.
func TestCrashNewPartitions(t *testing.T) {
	t.Parallel()
	const partitions = 300
	dir, addr := t.TempDir(), freeAddr(t)
	p := upAt(t, dir, addr)
	pageCache := "1000000"
	topics := map[string]map[string]*string{"durable": nil, "cached": {"flush.messages": &pageCache}}
	cl := p.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()))
	for topic, configs := range topics {
		if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, configs, topic); err != nil {
			t.Fatal(err)
		}
	}
	var records []*kgo.Record
	for topic := range topics {
		for i := range partitions {
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(i), Value: []byte(strconv.Itoa(i))})
		}
	}
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []bool{false, false, true} {
		if stop {
			p.stop(t)
		} else {
			p.kill()
			launch(t, dir, addr, "--http", "off").kill() // the kill comes at some moment of the start
		}
		p = upAt(t, dir, addr)
		for topic := range topics {
			for _, r := range readAll(t, p, topic, partitions) {
				if r.Offset != 0 || string(r.Value) != strconv.Itoa(int(r.Partition)) {
					t.Errorf("%s-%d has %q at %d", topic, r.Partition, r.Value, r.Offset)
				}
			}
		}
	}
	p.stop(t)
}
