package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/internal/storage"
)

// cleanerMetrics are the metrics of compaction.
type cleanerMetrics struct {
	rounds, compactedRead, compactedWritten, saved *prometheus.Desc
	backlog, dirtiest, delay                       *prometheus.Desc
	uncleanable, uncleanableBytes, noRoom          *prometheus.Desc
	sinceLook, sinceRound                          *prometheus.Desc
}

func newCleanerMetrics(desc func(name, help string, labels ...string) *prometheus.Desc) cleanerMetrics {
	return cleanerMetrics{
		rounds:           desc("compaction_rounds_total", "Rounds of compaction that were completed; each is of one log."),
		compactedRead:    desc("compaction_read_bytes_total", "Bytes that compaction has read; those that are new to it count twice."),
		compactedWritten: desc("compaction_written_bytes_total", "Bytes that compaction has written."),
		saved:            desc("compaction_saved_bytes_total", "Bytes by which compaction has made logs smaller."),
		backlog:          desc("compaction_backlog_bytes", "Bytes that are new to compaction in the logs that were due for it at the last look."),
		dirtiest:         desc("compaction_max_dirty_ratio", "The largest part of a compacted log that was new to compaction at the last look; 1: all of one."),
		delay:            desc("compaction_max_delay_seconds", "How much longer than max.compaction.lag.ms the oldest record that is new to compaction had waited at the last look; 0: no log has waited longer."),
		sinceLook:        desc("compaction_since_last_look_seconds", "Seconds since compaction looked at all logs; -1: it has not since the start."),
		sinceRound:       desc("compaction_since_last_round_seconds", "Seconds since a round of compaction was completed; -1: none was since the start."),
		noRoom:           desc("compaction_logs_without_room", "Logs for whose last round the disk had too little room. They keep all records until it has."),
		uncleanableBytes: desc("compaction_failed_bytes", "Bytes of the logs that are not compacted any more until the next start."),
		uncleanable:      desc("compaction_failed_logs", "Logs that are not compacted any more until the next start, since a round of them has failed; the node's log says why. They keep all records."),
	}
}

// collectCompaction sends the metrics of compaction.
func (m *cleanerMetrics) collectCompaction(s storage.CleanerStats, out chan<- prometheus.Metric) {
	for _, c := range []struct {
		desc *prometheus.Desc
		kind prometheus.ValueType
		v    float64
	}{
		{m.rounds, prometheus.CounterValue, float64(s.Rounds)},
		{m.compactedRead, prometheus.CounterValue, float64(s.BytesRead)},
		{m.compactedWritten, prometheus.CounterValue, float64(s.BytesWritten)},
		{m.backlog, prometheus.GaugeValue, float64(s.Backlog)},
		{m.dirtiest, prometheus.GaugeValue, s.MaxDirtyRatio},
		{m.saved, prometheus.CounterValue, float64(s.BytesSaved)},
		{m.delay, prometheus.GaugeValue, s.MaxDelay.Seconds()},
		{m.sinceLook, prometheus.GaugeValue, secondsSince(s.LastLook)},
		{m.sinceRound, prometheus.GaugeValue, secondsSince(s.LastRound)},
		{m.noRoom, prometheus.GaugeValue, float64(s.NoRoom)},
		{m.uncleanableBytes, prometheus.GaugeValue, float64(s.UncleanableBytes)},
		{m.uncleanable, prometheus.GaugeValue, float64(s.Uncleanable)},
	} {
		out <- prometheus.MustNewConstMetric(c.desc, c.kind, c.v)
	}
}

// secondsSince is how long ago a time was; -1: it is zero.
func secondsSince(at time.Time) float64 {
	if at.IsZero() {
		return -1
	}
	return time.Since(at).Seconds()
}
