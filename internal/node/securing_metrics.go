package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/broker"
)

// securingMetrics are the metrics of a cluster that is secured while it runs. None of them has the name of a user or a client.
type securingMetrics struct{ wouldDeny, plainClients *prometheus.Desc }

func newSecuringMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) securingMetrics {
	return securingMetrics{
		wouldDeny:    desc("access_would_be_denied_total", "Checks of what clients may do that ACLs would have denied, while leat secure --observe looks on and nothing is denied."),
		plainClients: desc("plain_clients", "Clients that are connected without TLS, or have come so in the last ten minutes, by client id and address, while the cluster is secured as it runs; at most 256 are counted."),
	}
}

// collectIdentity sends the metrics of who clients are.
func (g *metricsCollector) collectIdentity(logins []broker.LoginStats, out chan<- prometheus.Metric) {
	g.collectLogins(logins, g.n.admin, out)
	g.collectSecuring(g.n.securing, out)
}

// collectSecuring sends them. Nothing is counted until somebody has begun to secure the cluster.
func (m *securingMetrics) collectSecuring(s *securing, out chan<- prometheus.Metric) {
	const recently = 10 * time.Minute
	count := 0
	if !s.plain.begun().IsZero() {
		list, _ := s.listPlain()
		for i := range list {
			if list[i].Open > 0 || time.Since(list[i].Last) < recently {
				count++
			}
		}
	}
	out <- prometheus.MustNewConstMetric(m.wouldDeny, prometheus.CounterValue, float64(s.denied.countAll()))
	out <- prometheus.MustNewConstMetric(m.plainClients, prometheus.GaugeValue, float64(count))
}
