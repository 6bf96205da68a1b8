package node

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTransactionMetrics proves what the metrics tell of a transaction that is open, of one whose producer was fenced, and of one whose
// time is over.
func TestTransactionMetrics(t *testing.T) {
	n := start(t, Config{Data: filepath.Join(t.TempDir(), "data"), HTTP: "127.0.0.1:0"})
	ctx := deadline(t)
	if made, err := kadm.NewClient(client(t, n)).CreateTopics(ctx, 2, 1, nil, "t"); err != nil || made["t"].Err != nil {
		t.Fatal(made, err)
	}
	await := func(what string, lines ...string) {
		t.Helper()
		eventually(t, what, func() bool {
			_, body := get(t, n, "/metrics")
			for _, l := range lines {
				if !strings.Contains(body, "\n"+l) {
					return false
				}
			}
			return true
		})
	}
	begin := func(timeout time.Duration) *kgo.Client {
		t.Helper()
		cl := client(t, n, kgo.TransactionalID("app"), kgo.TransactionTimeout(timeout), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t"}, &kgo.Record{Topic: "t", Partition: 1}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return cl
	}
	await("there is none", "leat_transactions_open 0\n", "leat_transactions_oldest_open_seconds 0\n", `leat_transactional_ids{state="Ongoing"} 0`)
	first := begin(time.Minute)
	await("one is open", "leat_transactions_open 2\n", `leat_transactional_ids{state="Ongoing"} 1`, "leat_transactions_timed_out_total 0\n", "leat_transactions_fenced_requests_total 0\n")
	begin(time.Second)
	if err := first.EndTransaction(ctx, kgo.TryCommit); err == nil {
		t.Error("a fenced producer has committed")
	}
	await("the first was fenced, and the second has timed out", "leat_transactions_open 0\n", "leat_transactions_oldest_open_seconds 0\n", `leat_transactional_ids{state="Ongoing"} 0`,
		`leat_transactional_ids{state="CompleteAbort"} 1`, "leat_transactions_timed_out_total 1\n")
	_, body := get(t, n, "/metrics")
	if strings.Contains(body, "\nleat_transactions_fenced_requests_total 0\n") {
		t.Error("no request of a fenced producer is counted")
	}
}
