package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/txn"
)

// transactionMetrics are the metrics of transactions: of those in partitions that this node leads, and of those that it
// coordinates.
type transactionMetrics struct {
	openTransactions, oldestTransaction *prometheus.Desc
	transactionalIDs, timedOut, fenced  *prometheus.Desc
}

func newTransactionMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) transactionMetrics {
	return transactionMetrics{
		openTransactions:  desc("transactions_open", "Transactions that are open in partitions which this node leads; one in several partitions counts in each."),
		oldestTransaction: desc("transactions_oldest_open_seconds", "For how long the oldest transaction is open in a partition that this node leads, since its metrics were asked for first; 0: none is open."),
		transactionalIDs:  desc("transactional_ids", "Transactional ids that this node coordinates, by Kafka's name of the state.", "state"),
		timedOut:          desc("transactions_timed_out_total", "Transactions that this node has aborted since their time was over."),
		fenced:            desc("transactions_fenced_requests_total", "Requests about transactions that this node has refused since another producer has the transactional id."),
	}
}

// collectTransactions sends the present values.
func (g *transactionMetrics) collectTransactions(set *replica.Set, counts *txn.Counts, out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	open, oldest := replica.OpenTransactions(set)
	send(g.openTransactions, prometheus.GaugeValue, float64(open))
	send(g.oldestTransaction, prometheus.GaugeValue, oldest.Seconds())
	for state, ids := range counts.States() {
		send(g.transactionalIDs, prometheus.GaugeValue, float64(ids), state)
	}
	send(g.timedOut, prometheus.CounterValue, float64(counts.TimedOut()))
	send(g.fenced, prometheus.CounterValue, float64(counts.Fenced()))
}
