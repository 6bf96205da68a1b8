package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/storage"
)

// metricsCollector reads the values of a node's metrics when they are asked for.
type metricsCollector struct {
	n *Node
	connectionMetrics

	workLimit, workUsed, workWaiting          *prometheus.Desc
	requests                                  *prometheus.Desc
	appendedBytes, appendedRecords, readBytes *prometheus.Desc
	sessions, topics, partitions              *prometheus.Desc
	logBytes, faulted, journalDamaged, strays *prometheus.Desc
	diskFree, diskTotal, diskFull             *prometheus.Desc
	clockAhead                                *prometheus.Desc
	metadataMetrics
	producerMetrics
	transactionMetrics
	cleanerMetrics
	clusterMetrics
	quotaMetrics
	encryptionMetrics
	tailMetrics
}

// metadataMetrics are the metrics of the metadata log.
type metadataMetrics struct {
	metaFaulted, metaFull, metaApplied, metaRemembered *prometheus.Desc
}

// producerMetrics are the metrics of what logs remember of idempotent producers.
type producerMetrics struct {
	producers, producerBytes, producerLimit, producersEvicted *prometheus.Desc
}

// connectionMetrics are the metrics of clients' connections.
type connectionMetrics struct {
	loginMetrics
	securingMetrics
	auditMetrics
	conns, connsLimit, accepted, connsRefused *prometheus.Desc
	framesRefused, panics                     *prometheus.Desc
	bytesIn, bytesOut, requestMemory          *prometheus.Desc
}

// newRegistry makes the registry of all metrics that /metrics shows.
func (n *Node) newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newMetricsCollector(n), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func newMetricsCollector(n *Node) *metricsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("leat_"+name, help, labels, nil)
	}
	return &metricsCollector{
		n: n, clusterMetrics: newClusterMetrics(desc), cleanerMetrics: newCleanerMetrics(desc), transactionMetrics: newTransactionMetrics(desc), quotaMetrics: newQuotaMetrics(desc), encryptionMetrics: newEncryptionMetrics(desc),
		tailMetrics: newTailMetrics(desc),
		connectionMetrics: connectionMetrics{
			loginMetrics:    newLoginMetrics(desc),
			securingMetrics: newSecuringMetrics(desc),
			auditMetrics:    newAuditMetrics(desc),
			conns:           desc("connections", "Client connections open now."),
			connsLimit:      desc("connections_limit", "Client connections that may be open: the lowest of max.connections and of the numbers that the limit of open files and the available memory allow; 0: no limit."),
			accepted:        desc("connections_accepted_total", "Client connections accepted."),
			connsRefused:    desc("connections_refused_total", "Client connections refused because of max.connections or the limits for one address, or because there was no file descriptor or no memory."),
			framesRefused:   desc("frames_refused_total", "Frames that were malformed or too large; each ended its connection."),
			panics:          desc("handler_panics_total", "Requests whose handler has panicked, which is a bug; each ended its connection."),
			bytesIn:         desc("network_received_bytes_total", "Bytes received from clients."),
			bytesOut:        desc("network_sent_bytes_total", "Bytes sent to clients."),
			requestMemory:   desc("request_memory_bytes", "Memory that requests being received take."),
		},
		metadataMetrics: metadataMetrics{
			metaFaulted:    desc("metadata_log_faulted", "1 after a failed write of the metadata log: metadata is read-only until a restart."),
			metaFull:       desc("metadata_log_full", "1 while the metadata log has no room: changes of metadata are refused."),
			metaApplied:    desc("metadata_applied_index", "Index of the last entry of the metadata log that this node has applied."),
			metaRemembered: desc("metadata_remembered_index", "Index of the metadata log up to which the logs on this node have followed it, according to the newest checkpoint: a start with a shorter metadata log is refused."),
		},
		producerMetrics: producerMetrics{
			producers:        desc("producers", "Idempotent producers that the logs on this node remember; one that writes to several partitions counts in each."),
			producerBytes:    desc("producer_memory_bytes", "Memory that those take, at most."),
			producerLimit:    desc("producer_memory_limit_bytes", "Memory that those may take."),
			producersEvicted: desc("producers_evicted_total", "Producers that were forgotten before producer.id.expiration.ms, since there was no memory for all."),
		},
		workLimit:       desc("work_memory_limit_bytes", "Memory that work on requests may take, by kind of work.", "class"),
		workUsed:        desc("work_memory_bytes", "Memory that work on requests has reserved, by kind of work.", "class"),
		workWaiting:     desc("work_waiting", "Pieces of work that wait for memory, by kind of work.", "class"),
		requests:        desc("requests_total", "Requests by API.", "api"),
		appendedBytes:   desc("produced_bytes_total", "Bytes of record batches appended for producers."),
		appendedRecords: desc("produced_records_total", "Records appended for producers."),
		readBytes:       desc("fetched_bytes_total", "Bytes of record batches sent to readers."),
		sessions:        desc("fetch_sessions", "Incremental fetch sessions."),
		topics:          desc("topics", "Topics of the cluster."),
		partitions:      desc("partitions", "Partitions of the cluster."),
		logBytes:        desc("log_bytes", "Bytes of the logs on this node that are in use."),
		faulted:         desc("logs_faulted", "Logs with a fault, by reason: damage (a batch is not what it was, or a file is missing or too short; read-only), tainted (a write or a sync failed; read-only), refused (files could not be opened, read or written when a client last tried).", "reason"),
		journalDamaged:  desc("journal_damaged", "1 if the journal was damaged at the start (acknowledged records may be missing), or can no longer be written."),
		strays:          desc("directories_set_aside", "Directories of partitions that the metadata do not have; they are kept until you delete them, or as leat.stray.delete.enable allows."),
		clockAhead:      desc("controller_clock_ahead_seconds", "How far the clock of the active controller's node was ahead of this node's at the last heartbeat; below 0: behind it."),
		diskFull:        desc("disk_full", "1 while records are refused because the disk is full."),
		diskFree:        desc("disk_free_bytes", "Bytes free where the data directory is."),
		diskTotal:       desc("disk_total_bytes", "Size of the file system of the data directory."),
	}
}

// Describe sends nothing, since Collect sends the descriptions with the values.
func (*metricsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present values of all metrics.
func (g *metricsCollector) Collect(out chan<- prometheus.Metric) {
	value := func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, float64(v), labels...)
	}
	count, now := prometheus.CounterValue, prometheus.GaugeValue
	w := g.n.wire.Stats()
	value(g.conns, now, w.Conns.Load())
	value(g.connsLimit, now, int64(g.n.wire.MaxConns()))
	value(g.accepted, count, w.Accepted.Load())
	value(g.connsRefused, count, w.TurnedAway.Load())
	value(g.framesRefused, count, w.Refused.Load())
	value(g.panics, count, w.Panics.Load())
	value(g.bytesIn, count, w.BytesIn.Load())
	value(g.bytesOut, count, w.BytesOut.Load())
	value(g.requestMemory, now, w.RequestMemory())
	for c := budget.Peer; c <= budget.Unsent; c++ {
		u := g.n.work.Usage(c)
		value(g.workLimit, now, u.Limit, c.String())
		value(g.workUsed, now, u.Used, c.String())
		value(g.workWaiting, now, int64(u.Waiting), c.String())
	}
	b := g.n.broker.Stats()
	for api, n := range b.Requests {
		value(g.requests, count, n, api)
	}
	value(g.appendedBytes, count, b.BytesIn)
	value(g.appendedRecords, count, b.RecordsIn)
	value(g.readBytes, count, b.BytesOut)
	g.collectIdentity(b.Logins, out)
	value(g.sessions, now, int64(b.FetchSessions))
	q := g.n.quorum.Status()
	value(g.metaFaulted, now, oneIf(q.State == quorum.Faulted))
	value(g.metaFull, now, oneIf(q.State == quorum.Full))
	value(g.metaApplied, now, int64(q.Applied))
	value(g.metaRemembered, now, int64(g.n.store.RememberedMetadata()))
	img := g.n.image.Load()
	value(g.topics, now, int64(img.NumTopics()))
	value(g.partitions, now, int64(img.NumPartitions()))
	g.collect(g.n, img, value)
	bytes := int64(0)
	for p := range g.n.set.Partitions() {
		bytes += g.n.set.SizeOf(p)
	}
	value(g.logBytes, now, bytes)
	g.collectProducers(value)
	g.collectTransactions(g.n.set, g.n.txns.Counts(), out)
	g.collectFaults(value)
	g.collectQuotas(&g.n.quotas, w, out)
	g.collectAudit(g.n.audit, out)
	g.collectEncryption(g.n.encryption, g.n.wire.Stats(), out)
	g.collectLinks(g.n.linking.service.Load(), out)
	g.collectCompaction(storage.CompactionStats(g.n.store), out)
	out <- prometheus.MustNewConstMetric(g.clockAhead, now, time.Duration(g.n.clocks.ahead.Load()).Seconds())
}

// collectProducers sends the metrics of idempotent producers.
func (g *metricsCollector) collectProducers(value func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string)) {
	p := g.n.producers.Usage()
	value(g.producers, prometheus.GaugeValue, p.Producers)
	value(g.producerBytes, prometheus.GaugeValue, p.Bytes)
	value(g.producerLimit, prometheus.GaugeValue, p.Limit)
	value(g.producersEvicted, prometheus.CounterValue, p.Evicted)
}

// faultReasons are the reasons of leat_logs_faulted.
var faultReasons = [...]string{storage.LogDamaged: "damage", storage.LogTainted: "tainted", storage.LogRefused: "refused"}

// collectFaults sends the metrics of faults of the disk and the logs, and of cuts.
func (g *metricsCollector) collectFaults(value func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string)) {
	g.collectTails(g.n.set, value)
	var logs [len(faultReasons)]int64
	for _, f := range g.n.store.Faults() {
		logs[f.Kind]++
	}
	for kind, reason := range faultReasons {
		value(g.faulted, prometheus.GaugeValue, logs[kind], reason)
	}
	value(g.journalDamaged, prometheus.GaugeValue, oneIf(g.n.store.Damage() != nil))
	value(g.strays, prometheus.GaugeValue, int64(g.n.store.Strays()))
	value(g.diskFull, prometheus.GaugeValue, oneIf(g.n.store.IsFull()))
	free, total := g.n.store.DiskSpace()
	value(g.diskFree, prometheus.GaugeValue, free)
	value(g.diskTotal, prometheus.GaugeValue, total)
}
