package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/progress"
)

// linkMetrics are the metrics of links to other clusters, each by the name of the link: of the partitions that this node leads, and of what it has done since it knows of the link.
type linkMetrics struct {
	linkPartitions                                        *prometheus.Desc
	linkLagRecords, linkLagBytes, linkLagSeconds, linkRPO *prometheus.Desc
	linkLagUnknown                                        *prometheus.Desc
	linkBytes, linkRecords                                *prometheus.Desc
	linkConnections, linkUnconnected, linkFailedRequests  *prometheus.Desc
	linkCuts, linkPutBack, linkAccess                     *prometheus.Desc
	linkUnusable, linkTaskFailing, linkProblems           *prometheus.Desc
}

func newLinkMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) linkMetrics {
	return linkMetrics{
		linkPartitions:     desc("link_partitions", "Partitions that mirror by a link and that this node leads, by state.", "link", "state"),
		linkLagRecords:     desc("link_lag_records", "Records that the source of a link is known to have committed and that are not in the partitions that this node leads.", "link"),
		linkLagBytes:       desc("link_lag_bytes", "Bytes of those, about.", "link"),
		linkLagSeconds:     desc("link_lag_seconds", "How far the last of the partitions is behind the source of a link; 0 while all have all that the source is known to have.", "link"),
		linkRPO:            desc("link_rpo_seconds", "How long ago, at most, the partitions had all that the source of a link had committed, for the last of them: what a failover now would lose was written since.", "link"),
		linkLagUnknown:     desc("link_lag_unknown_partitions", "Partitions of which the lag is not, or not wholly, known.", "link"),
		linkBytes:          desc("link_mirrored_bytes_total", "Bytes of record batches appended from the source of a link.", "link"),
		linkRecords:        desc("link_mirrored_records_total", "Records appended from the source of a link, with the markers of transactions.", "link"),
		linkConnections:    desc("link_connections_total", "Connections made with brokers of the source of a link.", "link"),
		linkUnconnected:    desc("link_connection_failures_total", "Connections with brokers of the source of a link that could not be made.", "link"),
		linkFailedRequests: desc("link_failed_requests_total", "Requests to the source of a link that have failed, each for one partition or many.", "link"),
		linkCuts:           desc("link_cuts_total", "Cuts of partitions that this node led: the source of a link had lost records in an unclean election, which were dropped here, too, and kept aside.", "link"),
		linkPutBack:        desc("link_configs_put_back_total", "Configs of mirrors that somebody has changed here, and that were set as at the source of a link again.", "link"),
		linkAccess:         desc("link_access_changes_total", "ACLs and quotas that were made, removed or forgotten to follow the source of a link.", "link"),
		linkUnusable:       desc("link_unusable", "1 while the settings or the secret of a link cannot be used on this node.", "link"),
		linkTaskFailing:    desc("link_task_failing", "1 while the last round of a task of a link has failed, on the node of the active controller, which runs them.", "link", "task"),
		linkProblems:       desc("link_check_problems", "Problems that the last check of a link on this node has found, as by leat link doctor; none is sent before there was a check.", "link"),
	}
}

// collectLinks sends the present values.
func (g *linkMetrics) collectLinks(s *mirror.Service, out chan<- prometheus.Metric) {
	if s == nil {
		return
	}
	for _, m := range s.Metrics() {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, kind, v, append([]string{m.Link}, labels...)...)
		}
		const now, count = prometheus.GaugeValue, prometheus.CounterValue
		for state := progress.Preparing; state < progress.Promoted; state++ {
			send(g.linkPartitions, now, float64(m.States[state]), state.String())
		}
		send(g.linkLagRecords, now, float64(m.LagRecords))
		send(g.linkLagBytes, now, float64(m.LagBytes))
		send(g.linkLagSeconds, now, m.Behind.Seconds())
		send(g.linkRPO, now, m.RPO.Seconds())
		send(g.linkLagUnknown, now, float64(m.Unknown))
		send(g.linkBytes, count, float64(m.Bytes))
		send(g.linkRecords, count, float64(m.Records))
		send(g.linkConnections, count, float64(m.Connections))
		send(g.linkUnconnected, count, float64(m.Unconnected))
		send(g.linkFailedRequests, count, float64(m.FailedRequests))
		send(g.linkCuts, count, float64(m.Cuts))
		send(g.linkPutBack, count, float64(m.PutBack))
		send(g.linkAccess, count, float64(m.AccessChanges))
		send(g.linkUnusable, now, float64(oneIf(m.IsUnusable)))
		for _, t := range m.Tasks {
			send(g.linkTaskFailing, now, float64(oneIf(t.State == mirror.TaskWaiting)), t.Task)
		}
		if m.Problems >= 0 {
			send(g.linkProblems, now, float64(m.Problems))
		}
	}
}
