package txn

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
)

// TestAbortionsAreLogged proves that a transaction which the server aborts is logged with its producer once that is
// committed, and not before, and that many of them make few lines, the next of which has their number.
func TestAbortionsAreLogged(t *testing.T) {
	var text bytes.Buffer
	abortions := NewAbortions(slog.New(slog.NewTextHandler(&text, nil)))
	log := &memLog{room: -1}
	rt := coord.New(coord.Config[*Machine]{
		Logger: slog.New(slog.DiscardHandler),
		New: func(_ int32, tm *coord.Timers) *Machine {
			return New(Config{
				IDs: &blockOfIDs{1000, 2000}, Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0), Send: func(Decision) {}, Abortions: abortions,
			}, tm)
		},
	})
	defer rt.Close()
	rt.StartLeading(0, 1, log)
	do := func(op func(m *Machine, s *coord.Step)) {
		t.Helper()
		if err := rt.Do(0, op); err != nil {
			t.Fatal(err)
		}
	}
	id := "slow"
	do(func(m *Machine, s *coord.Step) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
		m.InitProducerID(s, req, func(*kmsg.InitProducerIDResponse) {})
	})
	do(func(m *Machine, s *coord.Step) {
		x := kmsg.NewAddPartitionsToTxnRequestTransaction()
		x.TransactionalID, x.ProducerID = id, 1000
		x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "t", Partitions: []int32{1}}}
		m.AddPartitions(s, 5, &x, func(*kmsg.AddPartitionsToTxnResponseTransaction) {})
	})
	do(func(m *Machine, s *coord.Step) { m.abortTimedOut(s, m.ids[id]) })
	if text.Len() > 0 {
		t.Error("it is logged before it is committed:", text.String())
	}
	log.commit()
	for _, want := range []string{`why="it has taken longer than its time-out"`, "transactional_id=slow", "producer_id=1000", "timeout=1m0s"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in %s", want, text.String())
		}
	}
	a := abortion{id: "many"}
	start := time.Now().Add(time.Hour)
	for i := range 100 {
		abortions.note(start.Add(time.Duration(i)*time.Millisecond), &a)
	}
	if n := strings.Count(text.String(), "\n"); n != 1+abortionsTogether {
		t.Errorf("%d lines", n)
	}
	abortions.note(start.Add(abortionsTime), &a)
	if want := fmt.Sprintf("others_since_the_last_line=%d", 100-abortionsTogether); !strings.Contains(text.String(), want) {
		t.Errorf("%q is missing in %s", want, text.String())
	}
}
