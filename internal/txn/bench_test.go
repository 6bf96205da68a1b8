package txn

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// BenchmarkTransaction measures the machine's part of a transaction with three partitions, from the first
// partition to the last marker, without the log.
func BenchmarkTransaction(b *testing.B) {
	var sent Decision
	m := New(Config{
		IDs: &blockOfIDs{1000, 1 << 40}, Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0), Send: func(d Decision) { sent = d },
	}, new(coord.Timers))
	s, next, id := coord.NewStep(time.UnixMilli(0)), record.Offset(0), "an-application-with-a-usual-name"
	step := func(op func()) {
		s.Now = time.UnixMilli(int64(next))
		op()
		next = s.Run(m, next, nil)
	}
	step(func() { m.Loaded(s) })
	var pe producerEpoch
	step(func() {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
		m.InitProducerID(s, req, func(r *kmsg.InitProducerIDResponse) { pe = producerEpoch{r.ProducerID, r.ProducerEpoch} })
	})
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID = id
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.Commit = 5, id, true
	b.ReportAllocs()
	for b.Loop() {
		for p := range int32(3) {
			x.ProducerID, x.ProducerEpoch = pe.id, pe.epoch
			x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "orders", Partitions: []int32{p}}}
			step(func() { m.AddPartitions(s, 5, &x, func(*kmsg.AddPartitionsToTxnResponseTransaction) {}) })
		}
		end.ProducerID, end.ProducerEpoch = pe.id, pe.epoch
		step(func() {
			m.EndTxn(s, end, func(r *kmsg.EndTxnResponse) {
				if r.ErrorCode != 0 {
					b.Fatal(name(r.ErrorCode))
				}
				pe = producerEpoch{r.ProducerID, r.ProducerEpoch}
			})
		})
		for p := range int32(3) {
			step(func() { m.ReportMarkers(s, id, sent.Offset, []MarkerResult{{"orders", p, MarkerWritten}}) })
		}
	}
}

// BenchmarkIDMemory measures how much memory a transactional id takes, between its transactions and in
// one, and what the account says.
func BenchmarkIDMemory(b *testing.B) {
	const ids = 100_000
	for name, partitions := range map[string]int32{"idle": 0, "one partition": 1, "many partitions": 100} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				m := New(Config{
					IDs: &blockOfIDs{1000, 1 << 40}, Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 1<<40), Send: func(Decision) {},
				}, new(coord.Timers))
				s := coord.NewStep(time.UnixMilli(0))
				m.Loaded(s)
				st := newState(7, 60_000, 0)
				if partitions > 0 {
					set := TopicPartitions{Topic: "orders"}
					for p := range partitions {
						set.Partitions = append(set.Partitions, p)
					}
					st = st.extended(makeSet([]TopicPartitions{set}), bumpEpoch, 1)
				}
				before := heapInUse()
				for i := range ids {
					putState(s, fmt.Sprintf("application-%06d", i), &st)
					s.Run(m, record.Offset(i), nil)
				}
				b.ReportMetric(float64(heapInUse()-before)/ids, "B/id")
				b.ReportMetric(float64(m.memory.Held())/ids, "counted-B/id")
				runtime.KeepAlive(m)
			}
		})
	}
}

// heapInUse is how many bytes are in use.
func heapInUse() uint64 {
	runtime.GC()
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	return st.HeapAlloc
}
