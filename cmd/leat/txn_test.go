//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatstream/leat/internal/record"
)

// txnClient makes a client with a transactional id that has begun a transaction with a record in partition 0 of a topic.
func txnClient(t *testing.T, addr, id, topic string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return cl
}

// leaveHanging writes a record of a transaction that no coordinator knows, as a late write of a client from before KIP-890 did.
func leaveHanging(t *testing.T, addr, topic string, producer int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MaxVersions(kversion.V3_7_0())) // a later produce request would add the partition
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	b := record.Builder{Transactional: true, LeaderEpoch: record.NoEpoch}
	b.SetProducer(producer, 4, 0)
	b.Append(time.Now().UnixMilli(), nil, []byte("late"))
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the late record is taken", func() bool { // the store admits transactions soon after the start
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 10_000
		req.TransactionID = new("late")
		rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
		rt.Topic, rp.Records = topic, batch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		resp, err := cl.Broker(1).RetriableRequest(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
		if code != 0 && code != kerr.KafkaStorageError.Code {
			t.Fatal(kerr.ErrorForCode(code))
		}
		return code == 0
	})
}

// shownTransactions are what the verbs write of transactions.
type shownTransactions []struct {
	ID         string `json:"transactional_id"`
	State      string
	Producer   int64 `json:"producer_id"`
	Epoch      int16 `json:"producer_epoch"`
	Age        int64 `json:"age_ms"`
	Partitions []struct {
		Topic     string
		Partition int32
		Start     int64
		HoldsBack bool `json:"holds_back"`
		Behind    int64
	}
}

// listTxns runs leat txn list with further arguments.
func listTxns(t *testing.T, addr, args string) (found shownTransactions) {
	t.Helper()
	r := tryVerb(t, t.TempDir(), "", "txn list -o json --bootstrap "+addr+args)
	r.expect(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || r.stderr != "" {
		t.Fatalf("%s: %s, %v", r.stdout, r.stderr, err)
	}
	return found
}

// TestTxnVerbs proves what the verbs tell of open transactions: the oldest one first, and which of them holds the last stable offset
// of which partition back; and that one is aborted by its transactional id, after which its producer is fenced.
func TestTxnVerbs(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir())
	at := " --bootstrap " + p.addr
	tryVerb(t, t.TempDir(), "", "topic create orders --partitions 2"+at).expect(t, 0)
	tryVerb(t, t.TempDir(), "", "txn list"+at).expect(t, 0)
	if r := tryVerb(t, t.TempDir(), "", "txn list"+at); r.stdout != "no open transactions\n" {
		t.Errorf("without any it says %q", r.stdout)
	}
	tryVerb(t, t.TempDir(), "", "txn describe nobody"+at).expect(t, 3)
	if r := tryVerb(t, t.TempDir(), "", "topic list --internal"+at); strings.Contains(r.stdout, "__transaction_state") {
		t.Errorf("to describe a transaction has made a topic:\n%s", r.stdout)
	}
	first := txnClient(t, p.addr, "first", "orders")
	second := txnClient(t, p.addr, "second", "orders")
	if err := second.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("y")}).FirstErr(); err != nil {
		t.Fatal(err)
	}

	all := listTxns(t, p.addr, "")
	if len(all) != 2 || all[0].ID != "first" || all[1].ID != "second" || all[0].State != "Ongoing" || all[0].Age < all[1].Age || len(all[1].Partitions) != 2 {
		t.Fatalf("%+v", all)
	}
	if x := all[0].Partitions[0]; x.Topic != "orders" || x.Start != 0 || !x.HoldsBack || x.Behind != 2 {
		t.Errorf("the first one: %+v", x)
	}
	if x, y := all[1].Partitions[0], all[1].Partitions[1]; x.Start != 1 || x.HoldsBack || !y.HoldsBack || y.Partition != 1 || y.Start != 0 {
		t.Errorf("the second one: %+v, %+v", x, y)
	}
	table := tryVerb(t, t.TempDir(), "", "txn list"+at).stdout
	if !regexp.MustCompile(`(?m)^first +Ongoing +\S+ +\S+ +\d+ +\d+ +1 +1  orders-0 at 0$`).MatchString(table) {
		t.Error(table)
	}
	if found := listTxns(t, p.addr, " --hanging"); len(found) != 0 {
		t.Errorf("they hang: %+v", found)
	}
	if found := listTxns(t, p.addr, " --older-than 1h"); len(found) != 0 {
		t.Errorf("they are old: %+v", found)
	}
	if out := tryVerb(t, t.TempDir(), "", "txn list -q"+at).stdout; out != "first\nsecond\n" {
		t.Errorf("ids: %q", out)
	}

	described := tryVerb(t, t.TempDir(), "", "txn describe second"+at)
	described.expect(t, 0)
	for _, want := range []string{"transactional id second: Ongoing since 20", ", coordinator 1\n", "\norders          0      1  no               -\norders          1      0  yes              1\n"} {
		if !strings.Contains(described.stdout, want) {
			t.Errorf("there is no %q in\n%s", want, described.stdout)
		}
	}
	if r := tryVerb(t, t.TempDir(), "", "txn describe secnd"+at); r.code != 3 || !strings.Contains(r.stderr, "transactional id secnd does not exist: did you mean second?") {
		t.Errorf("%d: %s", r.code, r.stderr)
	}
	if r := tryVerb(t, t.TempDir(), "", "txn abort --topic orders --partition 0 --start-offset 0"+at); r.code != 1 || !strings.Contains(r.stderr, `"leat txn abort first" aborts it in all partitions`) {
		t.Errorf("%d: %s", r.code, r.stderr)
	}
	if r := tryVerb(t, t.TempDir(), "", "txn abort second --dry-run"+at); r.code != 0 || !strings.Contains(r.stdout, "would abort the transaction of second in 2 partitions, and fence producer ") {
		t.Errorf("%d: %s%s", r.code, r.stdout, r.stderr)
	}
	if left := listTxns(t, p.addr, ""); len(left) != 2 {
		t.Errorf("a dry run has aborted one: %+v", left)
	}
	if r := tryVerb(t, t.TempDir(), "", "txn abort second"+at); r.code != 0 || !strings.Contains(r.stdout, "aborted the transaction of second in 2 partitions, and fenced producer ") {
		t.Errorf("%d: %s%s", r.code, r.stdout, r.stderr)
	}
	if left := listTxns(t, p.addr, ""); len(left) != 1 || left[0].ID != "first" {
		t.Errorf("left are %+v", left)
	}
	if err := second.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the producer of an aborted transaction has committed it")
	}
	if r := tryVerb(t, t.TempDir(), "", "txn abort second"+at); r.code != 0 || !strings.Contains(r.stdout, "there is nothing to do") {
		t.Errorf("%d: %s%s", r.code, r.stdout, r.stderr)
	}
	if err := first.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Error(err)
	}
}

// TestHangingTransaction proves that a transaction which no coordinator is going to end is found, beside one that is open, and aborted
// in its partition, after which readers of committed records go on.
func TestHangingTransaction(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--set", "transaction.partition.verification.enable=false")
	at := " --bootstrap " + p.addr
	tryVerb(t, t.TempDir(), "", "topic create orders --partitions 1"+at).expect(t, 0)
	known := txnClient(t, p.addr, "known", "orders")
	leaveHanging(t, p.addr, "orders", 900)
	leaveHanging(t, p.addr, "orders", 901)
	if err := known.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	found := listTxns(t, p.addr, " --hanging")
	if len(found) != 2 || found[0].State != "Hanging" || found[0].ID != "" || found[0].Producer != 900 || found[0].Epoch != 4 ||
		!found[0].Partitions[0].HoldsBack || found[0].Partitions[0].Start != 1 || found[1].Partitions[0].Start != 2 {
		t.Fatalf("%+v", found)
	}
	held := "an open transaction holds readers of committed records back in partition 0 of topic orders, from offset 1 on; \"leat txn list --topic orders\" shows it"
	if r := tryVerb(t, t.TempDir(), "", "consume orders --from start --read-committed --exit --timeout 2s"+at); r.code == 0 || r.stdout != "x\n" || strings.Count(r.stderr, held) != 2 {
		t.Errorf("%d: %s%s", r.code, r.stdout, r.stderr)
	}
	which := "txn abort --topic orders --partition 0" + at
	if r := tryVerb(t, t.TempDir(), "", which); r.code != 1 || !strings.Contains(r.stderr, "several transactions hang there: choose one by --start-offset 1 or 2") {
		t.Errorf("%d: %s", r.code, r.stderr)
	}
	if r := tryVerb(t, t.TempDir(), "", which+" --start-offset 1 --dry-run"); r.code != 0 || !strings.Contains(r.stdout, "would abort the transaction of producer 900 with epoch 4 that hangs in orders, partition 0, from offset 1 on") {
		t.Errorf("%d: %s%s", r.code, r.stdout, r.stderr)
	}
	for i, start := range []int{1, 2} {
		tryVerb(t, t.TempDir(), "", fmt.Sprintf("%s --start-offset %d", which, start)).expect(t, 0)
		if left := listTxns(t, p.addr, ""); len(left) != 1-i {
			t.Errorf("after %d: %+v", i+1, left)
		}
	}
	if r := tryVerb(t, t.TempDir(), "", which+" --start-offset 1"); r.code != 3 || !strings.Contains(r.stderr, "no transaction hangs in orders, partition 0") {
		t.Errorf("%d: %s", r.code, r.stderr)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.addr), kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	tryVerb(t, t.TempDir(), "after\n", "produce orders"+at).expect(t, 0)
	var values []string
	for len(values) < 2 {
		f := cl.PollFetches(t.Context())
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		f.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	if got := strings.Join(values, " "); got != "x after" {
		t.Errorf("committed records are %q", got)
	}
}
