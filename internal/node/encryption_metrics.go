package node

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/wire"
)

// encryptionMetrics are the metrics of TLS.
type encryptionMetrics struct {
	daysLeft, stale, handshakes *prometheus.Desc
}

func newEncryptionMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) encryptionMetrics {
	return encryptionMetrics{
		daysLeft:   desc("tls_certificate_days_left", "Days until the certificate of a listener ends; below 0: it has ended.", "listener"),
		stale:      desc("tls_stale", "1 while new keys, certificates or settings of a listener cannot be used, and the old ones are.", "listener"),
		handshakes: desc("tls_handshakes_total", "Handshakes of TLS, by their result.", "result"),
	}
}

// collectEncryption sends the metrics of TLS.
func (g *encryptionMetrics) collectEncryption(e *encryption, w *wire.Stats, out chan<- prometheus.Metric) {
	listeners := e.listeners
	if e.later.Load() != nil {
		listeners = slices.Concat(listeners, e.shared)
	}
	for _, s := range listeners {
		if c := s.certificate(); c != nil {
			out <- prometheus.MustNewConstMetric(g.daysLeft, prometheus.GaugeValue, daysLeft(c, time.Now()), s.name)
		}
		out <- prometheus.MustNewConstMetric(g.stale, prometheus.GaugeValue, float64(oneIf(s.problem.Load() != nil)), s.name)
	}
	out <- prometheus.MustNewConstMetric(g.handshakes, prometheus.CounterValue, float64(w.Handshakes.Load()), "success")
	out <- prometheus.MustNewConstMetric(g.handshakes, prometheus.CounterValue, float64(w.HandshakesFailed.Load()), "failure")
}
