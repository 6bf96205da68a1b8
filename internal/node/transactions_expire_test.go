package node

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// beginTransaction begins a transaction with one record in partition 0 of a topic, and leaves it open.
func beginTransaction(ctx context.Context, t *testing.T, cl *kgo.Client, topic string) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestTransactionalIDsExpire proves that a transactional id without use is forgotten after transactional.id.expiration.ms, also by
// the next start, while one with an open transaction is not; and that its producer, if it comes back, gets another producer id.
func TestTransactionalIDsExpire(t *testing.T) {
	cfg := Config{Data: filepath.Join(t.TempDir(), "data"), Settings: map[string]string{
		"transactional.id.expiration.ms": "1000", "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
	}}
	n := start(t, cfg)
	ctx := deadline(t)
	producer := func(id string) *kgo.Client {
		return client(t, n, kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	if made, err := kadm.NewClient(client(t, n)).CreateTopics(ctx, 1, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	beginTransaction(ctx, t, producer("open"), "t")
	idle := producer("idle")
	if err := runTransaction(ctx, idle, "t", 1, "x", kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	id, epoch, err := idle.ProducerID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	errorOf := func(id string) error {
		described, err := kadm.NewClient(client(t, n)).DescribeTransactions(ctx, id)
		return errors.Join(err, described[id].Err)
	}
	eventually(t, "the id expires", func() bool { return errors.Is(errorOf("idle"), kerr.TransactionalIDNotFound) })
	stop(t, n)
	n = start(t, cfg)
	eventually(t, "the coordinator has loaded", func() bool { return errorOf("open") == nil })
	if err := errorOf("idle"); !errors.Is(err, kerr.TransactionalIDNotFound) {
		t.Errorf("after a start: %v", err)
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch = "idle", id, epoch
	if resp, err := end.RequestWith(ctx, client(t, n)); err != nil || resp.ErrorCode != kerr.InvalidProducerIDMapping.Code {
		t.Errorf("the end of a transaction of an id that has expired: %+v, %v", resp, err)
	}
	again := producer("idle")
	if err := runTransaction(ctx, again, "t", 1, "y", kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if next, _, err := again.ProducerID(ctx); err != nil || next == id {
		t.Errorf("the producer has the id %d again, %v", next, err)
	}
}

// TestIdleProducersExpire proves that a partition forgets a producer after producer.id.expiration.ms, but not one whose transaction
// is open; and that a producer which was forgotten goes on.
func TestIdleProducersExpire(t *testing.T) {
	n := start(t, Config{Data: filepath.Join(t.TempDir(), "data"), Settings: map[string]string{
		"producer.id.expiration.ms": "500", "log.retention.check.interval.ms": "200",
	}})
	ctx := deadline(t)
	plain := client(t, n)
	if made, err := kadm.NewClient(plain).CreateTopics(ctx, 1, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	write := func() {
		t.Helper()
		if err := plain.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("plain")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	write()
	open := client(t, n, kgo.TransactionalID("open"), kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	beginTransaction(ctx, t, open, "t")
	id, _, err := open.ProducerID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	known := func() []kadm.DescribedProducer {
		t.Helper()
		described, err := kadm.NewClient(plain).DescribeProducers(ctx, kadm.TopicsSet{"t": {0: {}}})
		if err != nil {
			t.Fatal(err)
		}
		return described["t"].Partitions[0].ActiveProducers.Sorted()
	}
	eventually(t, "the idle producer is forgotten", func() bool { return len(known()) == 1 })
	if left := known(); left[0].ProducerID != id || left[0].CurrentTxnStartOffset != 1 {
		t.Errorf("left: %+v", left)
	}
	write()
	if err := open.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all producers are forgotten", func() bool { return len(known()) == 0 })
	write()
}
