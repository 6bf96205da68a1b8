package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/audit"
)

// auditMetrics are the metrics of the audit log, by destination.
type auditMetrics struct{ auditWritten, auditLost, auditQueued, auditSequence, auditFailing *prometheus.Desc }

func newAuditMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) auditMetrics {
	return auditMetrics{
		auditWritten:  desc("audit_events_total", "Events written into the audit log since the start, by destination.", "destination"),
		auditLost:     desc("audit_events_lost_total", "Events for which there was no room, since the destination could not be written fast enough.", "destination"),
		auditQueued:   desc("audit_events_queued", "Events that wait to be written.", "destination"),
		auditSequence: desc("audit_sequence", "Sequence of the last event of this start that is in the audit log.", "destination"),
		auditFailing:  desc("audit_failing", "1 while the audit log cannot be written.", "destination"),
	}
}

// collectAudit sends the metrics of the audit log.
func (m *auditMetrics) collectAudit(r *audit.Recorder, out chan<- prometheus.Metric) {
	for _, s := range r.Stats() {
		value := func(d *prometheus.Desc, kind prometheus.ValueType, v int64) {
			out <- prometheus.MustNewConstMetric(d, kind, float64(v), s.Name)
		}
		value(m.auditWritten, prometheus.CounterValue, s.Written)
		value(m.auditLost, prometheus.CounterValue, s.Lost)
		value(m.auditQueued, prometheus.GaugeValue, s.Queued)
		value(m.auditSequence, prometheus.GaugeValue, int64(s.Sequence))
		value(m.auditFailing, prometheus.GaugeValue, oneIf(s.Failing))
	}
}
