package interop

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestKeylessInCompactedTopic proves that a compacted topic refuses records without a key from idempotent producers and
// within transactions, and that the producer goes on after that: a refused batch uses up no sequence, and its
// transaction can be aborted.
func TestKeylessInCompactedTopic(t *testing.T) {
	t.Parallel()
	b := shared(t, quick)
	topic, compact := "keyless", "compact"
	createTopic(t, b, topic, 1, map[string]*string{"cleanup.policy": &compact})
	idempotent := produceClient(t, b)
	mustRefuse(t, idempotent, topic)
	mustAccept(t, idempotent, topic, "idempotent")

	cl := produceClient(t, b, kgo.TransactionalID(topic))
	for _, value := range []string{"first", "second"} {
		begin(t, cl)
		mustRefuse(t, cl, topic)
		end(t, cl, kgo.TryAbort)
		begin(t, cl)
		mustAccept(t, cl, topic, value)
		end(t, cl, kgo.TryCommit)
	}

	w := watch(t, b.addr, topic, 1)
	w.await(t, 3)
	w.mustBeAll(t, b.addr, topic)
	var got []string
	for _, r := range w.records() {
		got = append(got, string(r.Value))
	}
	eachOnce(t, []string{"idempotent", "first", "second"}, got)
}

func produceClient(t *testing.T, b *broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.addr))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func mustRefuse(t *testing.T, cl *kgo.Client, topic string) {
	t.Helper()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("keyless")}).FirstErr(); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("a record without a key: %v", err)
	}
}

func mustAccept(t *testing.T, cl *kgo.Client, topic, value string) {
	t.Helper()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte("key"), Value: []byte(value)}).FirstErr(); err != nil {
		t.Errorf("a record with a key: %v", err)
	}
}

func begin(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, cl *kgo.Client, commit kgo.TransactionEndTry) {
	t.Helper()
	if err := cl.EndTransaction(t.Context(), commit); err != nil {
		t.Fatal(err)
	}
}
