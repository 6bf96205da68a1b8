package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/txn"
)

// runTransaction writes records to all partitions of a topic in one transaction, and commits or aborts it.
func runTransaction(ctx context.Context, cl *kgo.Client, topic string, partitions int32, value string, end kgo.TransactionEndTry) error {
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for p := range partitions {
		records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: []byte(value)})
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return errors.Join(err, cl.EndTransaction(ctx, kgo.TryAbort))
	}
	return cl.EndTransaction(ctx, end)
}

// readValues reads so many values of a topic, and says where a reader has read more than once.
func readValues(t *testing.T, cl *kgo.Client, count int) (values []string) {
	t.Helper()
	for ctx := deadline(t); len(values) < count; {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			t.Fatalf("after %d of %d records (%v): %v", len(values), count, values, err)
		}
		f.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

// wantValues checks that each of the values is there once for each partition, and nothing else.
func wantValues(t *testing.T, values []string, partitions int, want ...string) {
	t.Helper()
	times := map[string]int{}
	for _, v := range values {
		times[v]++
	}
	for _, v := range want {
		if times[v] != partitions {
			t.Errorf("%s is there %d times, want %d: %v", v, times[v], partitions, times)
		}
		delete(times, v)
	}
	if len(times) != 0 {
		t.Errorf("there are other values: %v", times)
	}
}

// flows are the two flows of transactions: that of clients that know transaction.version 2, and the older one.
func flows() map[string][]kgo.Opt {
	older := kversion.V3_7_0()
	return map[string][]kgo.Opt{"newer": nil, "older": {kgo.MaxVersions(older)}}
}

// TestTransactions proves that readers of committed records read exactly what transactions have committed, and all others
// read everything, by clients of the newer and of the older flow; that the state is kept when the node is started
// again; and that a producer which was fenced can do nothing any more.
func TestTransactions(t *testing.T) {
	for flow, opts := range flows() {
		t.Run(flow, func(t *testing.T) {
			const partitions = 3
			cfg := Config{Data: filepath.Join(t.TempDir(), "data")}
			n := start(t, cfg)
			ctx := deadline(t)
			producer := func() *kgo.Client {
				return client(t, n, append(opts, kgo.TransactionalID("mover"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
			}
			cl := producer()
			if made, err := kadm.NewClient(cl).CreateTopics(ctx, partitions, 1, nil, "t"); err != nil || made["t"].Err != nil {
				t.Fatal(made, err)
			}
			for i := range 6 {
				end := kgo.TryCommit
				if i%2 == 1 {
					end = kgo.TryAbort
				}
				if err := runTransaction(ctx, cl, "t", partitions, fmt.Sprint(i), end); err != nil {
					t.Fatalf("transaction %d: %v", i, err)
				}
			}
			second := producer()
			if err := runTransaction(ctx, second, "t", partitions, "second", kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			if err := runTransaction(ctx, cl, "t", partitions, "fenced", kgo.TryCommit); err == nil {
				t.Error("a producer that was fenced has committed a transaction")
			}
			cl.Close()
			second.Close()
			stop(t, n)

			n = start(t, cfg)
			third := producer()
			if err := runTransaction(ctx, third, "t", partitions, "third", kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			read := func(level kgo.IsolationLevel, count int) []string {
				return readValues(t, client(t, n, kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(level), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), count)
			}
			wantValues(t, read(kgo.ReadCommitted(), 5*partitions), partitions, "0", "2", "4", "second", "third")
			wantValues(t, read(kgo.ReadUncommitted(), 8*partitions), partitions, "0", "1", "2", "3", "4", "5", "second", "third")
		})
	}
}

// TestConsumeTransformProduce proves that a group's offsets are committed with the transaction that has its results: of records
// that are moved in transactions, some of which are aborted, each is moved once.
func TestConsumeTransformProduce(t *testing.T) {
	for flow, opts := range flows() {
		t.Run(flow, func(t *testing.T) {
			const records = 50
			n := start(t, Config{Data: filepath.Join(t.TempDir(), "data")})
			ctx := deadline(t)
			cl := client(t, n)
			if made, err := kadm.NewClient(cl).CreateTopics(ctx, 2, 1, nil, "from", "to"); err != nil || made["from"].Err != nil || made["to"].Err != nil {
				t.Fatal(made, err)
			}
			for i := range records {
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "from", Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			mover, err := kgo.NewGroupTransactSession(append(opts, kgo.SeedBrokers(n.Info().Addresses...), kgo.TransactionalID("mover"), kgo.ConsumerGroup("movers"),
				kgo.ConsumeTopics("from"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
			if err != nil {
				t.Fatal(err)
			}
			defer mover.Close()
			for moved, round := 0, 0; moved < records; round++ {
				f := mover.PollRecords(ctx, 7)
				if err := f.Err(); err != nil {
					t.Fatal(err)
				}
				if err := mover.Begin(); err != nil {
					t.Fatal(err)
				}
				f.EachRecord(func(r *kgo.Record) { mover.Produce(ctx, &kgo.Record{Topic: "to", Value: r.Value}, nil) })
				isCommitted, err := mover.End(ctx, kgo.TransactionEndTry(round%3 != 1))
				if err != nil {
					t.Fatal(err)
				}
				if isCommitted {
					moved += f.NumRecords()
				}
			}
			values := readValues(t, client(t, n, kgo.ConsumeTopics("to"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), records)
			slices.Sort(values)
			if got := len(slices.Compact(values)); got != records {
				t.Errorf("%d of %d records were moved", got, records)
			}
		})
	}
}

// TestTransactionsOfACluster proves that transactions go on, and that what is committed is read once, while each node in
// turn is stopped and started again: coordinators and the leaders of partitions are on different nodes.
func TestTransactionsOfACluster(t *testing.T) {
	const partitions = 6
	m := newCluster(t, 3)
	eventually(t, "all nodes vote", func() bool { return len(m.nodes[0].quorum.Status().Members.Voters) == 3 })
	cl := m.client(kgo.TransactionalID("mover"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if made, err := kadm.NewClient(cl).CreateTopics(deadline(t), partitions, 3, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	want, all := []string{}, 0
	run := func() {
		t.Helper()
		for range 6 {
			all++
			value, end := fmt.Sprint(all), kgo.TryCommit
			if all%3 == 0 {
				end = kgo.TryAbort
			} else {
				want = append(want, value)
			}
			if err := runTransaction(deadline(t), cl, "t", partitions, value, end); err != nil {
				t.Fatalf("transaction %d: %v", all, err)
			}
		}
	}
	run()
	for i := range m.nodes {
		m.stop(i)
		run()
		m.start(i, Config{})
		eventually(t, "all replicas are in sync", func() bool {
			img := m.nodes[i].image.Load()
			return inSync(img, "t", 3) && inSync(img, txn.Topic, 3)
		})
		run()
	}
	reader := m.client(kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	wantValues(t, readValues(t, reader, partitions*len(want)), partitions, want...)
}

// TestTransactionFlowIsAdvertised proves that clients of a new cluster are told to use the newer flow of transactions, under a
// feature epoch that rises with each change, and that an administrator can have them use the older one.
func TestTransactionFlowIsAdvertised(t *testing.T) {
	n := start(t, Config{Data: filepath.Join(t.TempDir(), "data")})
	cl, ctx := client(t, n), deadline(t)
	ask := func() (level int16, epoch int64) {
		t.Helper()
		resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, cl)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range resp.FinalizedFeatures {
			if f.Name == meta.TransactionFeature {
				level = f.MaxVersionLevel
			}
		}
		return level, resp.FinalizedFeaturesEpoch
	}
	level, first := ask()
	if level != 2 || first <= 0 {
		t.Errorf("level %d, epoch %d", level, first)
	}
	finalize := func(level int16, kind int8) int16 {
		t.Helper()
		req := kmsg.NewPtrUpdateFeaturesRequest()
		u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		u.Feature, u.MaxVersionLevel, u.UpgradeType = meta.TransactionFeature, level, kind
		req.FeatureUpdates = append(req.FeatureUpdates, u)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			t.Fatal(err)
		}
		return resp.ErrorCode
	}
	if code := finalize(3, 1); code != kerr.InvalidUpdateVersion.Code {
		t.Errorf("level 3: code %d", code)
	}
	if code := finalize(0, 2); code != 0 {
		t.Errorf("level 0: code %d", code)
	}
	if level, epoch := ask(); level != 0 || epoch <= first {
		t.Errorf("then level %d, epoch %d after %d", level, epoch, first)
	}
}

// TestOpenTransactionTimesOut proves that a transaction which nobody ends is aborted at its time, so that readers of committed
// records go on, and that tools are shown it until then.
func TestOpenTransactionTimesOut(t *testing.T) {
	n := start(t, Config{Data: filepath.Join(t.TempDir(), "data")})
	ctx := deadline(t)
	cl := client(t, n, kgo.TransactionalID("slow"), kgo.TransactionTimeout(2*time.Second), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	adm := kadm.NewClient(client(t, n))
	if made, err := adm.CreateTopics(ctx, 1, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	shown, err := adm.DescribeTransactions(ctx, "slow")
	if err != nil || shown["slow"].State != "Ongoing" || len(shown["slow"].Topics["t"]) != 1 {
		t.Errorf("described: %+v, %v", shown, err)
	}
	if listed, err := adm.ListTransactions(ctx, nil, []string{"Ongoing"}); err != nil || len(listed) != 1 {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	if err := client(t, n).ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("plain")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	reader := client(t, n, kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if got := strings.Join(readValues(t, reader, 1), ","); got != "plain" {
		t.Errorf("read %s", got)
	}
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err == nil {
		t.Error("a transaction that was aborted was committed")
	}
}
