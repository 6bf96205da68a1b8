package node

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quota"
	"github.com/leatstream/leat/internal/wire"
)

// quotas bound how much clients may do on this node.
type quotas struct {
	clients     *quota.Limiter
	connections *quota.ConnectionLimiter
	clock       func() time.Duration
}

// sensorLists is how many lists of sensors there are: one of users and one of client ids for each kind, and one of addresses.
const sensorLists = 2*quota.Kinds + 1

func newQuotas(n *Node) quotas {
	began := time.Now()
	clock := func() time.Duration { return time.Since(began) }
	s := n.serverSettings()
	each := n.sizes.sensors / int64(sensorLists)
	windows := func(w config.Windows) quota.Windows {
		return quota.Windows{Number: w.Number, Millis: w.Length.Milliseconds()}
	}
	q := quotas{
		clients: quota.New(quota.Config{
			Windows: windows(s.Quotas.Windows), MutationWindows: windows(s.Quotas.MutationWindows), SensorBytes: each, Now: clock,
		}),
		connections: quota.NewConnectionLimiter(quota.ConnectionConfig{Windows: windows(s.Quotas.Windows), SensorBytes: each}),
		clock:       clock,
	}
	q.follow(n.image.Load().Quotas())
	return q
}

// follow has the quotas of the metadata count.
func (q *quotas) follow(all *meta.Quotas) {
	t := quota.NewTable(all)
	q.clients.SetTable(t)
	q.connections.SetTable(t)
}

// setConnectionRates has the present settings count.
func setConnectionRates(n *Node) {
	limits := quota.ConnectionLimits{Node: float64(n.serverSettings().Quotas.ConnectionRate), Listeners: map[string]float64{}}
	view := n.image.Load().View(n.static)
	for i := range n.listeners {
		name := n.listeners[i].Name
		if value, isOwn := view.ForListener(name).Value("", "max.connection.creation.rate"); isOwn {
			if rate, err := strconv.Atoi(value); err == nil {
				limits.Listeners[name] = float64(rate)
			}
		}
	}
	n.quotas.connections.SetLimits(limits)
}

// admitConnection is a wire.Config.Admit.
func (q *quotas) admitConnection(listener string, ip netip.Addr) wire.Admission {
	now := q.clock().Milliseconds()
	a := q.connections.Admit(listener, ip, now)
	admission := wire.Admission{Wait: time.Duration(a.WaitMillis) * time.Millisecond}
	if a.Refused {
		admission.Refuse = fmt.Errorf("more connections have come than %s allows", a.Limit)
	}
	return admission
}

// quotaMetrics are the metrics of quotas. None has a label that clients choose.
type quotaMetrics struct {
	quotaUsed, quotaThrottled, quotaThrottle, quotaSensors *prometheus.Desc
	connsMuted, connsDelayed, connsOverRate                *prometheus.Desc
}

func newQuotaMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) quotaMetrics {
	return quotaMetrics{
		quotaUsed:      desc("quota_used_total", "What clients with a quota have used, by quota: bytes, percent of a processor for a second, partitions created or deleted.", "quota"),
		quotaThrottled: desc("quota_throttled_total", "How often clients were throttled, by quota.", "quota"),
		quotaThrottle:  desc("quota_throttle_seconds_total", "For how long clients were throttled, by quota.", "quota"),
		quotaSensors:   desc("quota_sensors", "Users and client ids whose use is measured, by quota.", "quota"),
		connsMuted:     desc("connections_muted", "Client connections that are not read now, because of a quota or of the rate of connections."),
		connsDelayed:   desc("connections_delayed_total", "Client connections that have waited to be served because of max.connection.creation.rate."),
		connsOverRate:  desc("connections_over_rate_total", "Client connections closed because of the quota connection_creation_rate of their address, or since they would have waited too long."),
	}
}

// collectQuotas sends the present values.
func (g *quotaMetrics) collectQuotas(q *quotas, stats *wire.Stats, out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	count, now := prometheus.CounterValue, prometheus.GaugeValue
	for k := range quota.Kinds {
		s, name := q.clients.Stats(quota.Kind(k)), string(quota.Kind(k).Key())
		send(g.quotaUsed, count, s.Used, name)
		send(g.quotaThrottled, count, float64(s.Throttled), name)
		send(g.quotaThrottle, count, s.ThrottleSeconds, name)
		send(g.quotaSensors, now, float64(s.Sensors), name)
	}
	c := q.connections.Stats()
	send(g.connsMuted, now, float64(stats.Muted()))
	send(g.connsDelayed, count, float64(c.Throttled))
	send(g.connsOverRate, count, float64(c.Closed))
	send(g.quotaThrottle, count, c.ThrottleSeconds, string(meta.ConnectionRate))
}
