package main

import (
	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/cluster"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Figures of latency in a cluster: p50, p99 and max at the rate, p50 at one a second, and the ratio of both p50.
func clusterLatencyFigures() []figure {
	at := func(name, step string, of func(q *bench.Quantiles) float64) figure {
		return stepFigure(name, step, bench.FormatMicros, stepAck(of))
	}
	p50 := func(q *bench.Quantiles) float64 { return q.P50 }
	often, seldom := at("1,000/s: acknowledged, p50", cluster.LatencyOften, p50), at("1/s: acknowledged, p50", cluster.LatencySeldom, p50)
	return []figure{
		often,
		at("1,000/s: acknowledged, p99", cluster.LatencyOften, func(q *bench.Quantiles) float64 { return q.P99 }),
		at("1,000/s: acknowledged, max", cluster.LatencyOften, func(q *bench.Quantiles) float64 { return q.Max }),
		seldom,
		ratioFigure("p50, 1/s / 1,000/s", true, seldom, often),
	}
}

// Figures of a node that catches up: the rate first.
func catchUpFigures() []figure {
	return []figure{
		stepRate("MB/s", cluster.CatchUpFetch),
		stepCPU("CPU of all brokers, s/GB", cluster.CatchUpFetch, bench.FormatDigits, stepGigabytes),
		stepTime("process start to serving", cluster.CatchUpStart),
		stepTime("serving to in sync", cluster.CatchUpFetch),
	}
}

// Figures of faults: p50, and max.
func faultFigures(step string) []figure {
	return []figure{
		stepFigure(step+", p50", step, bench.FormatMicros, stepAck(func(q *bench.Quantiles) float64 { return q.P50 })),
		stepFigure(step+", max", step, bench.FormatMicros, stepAck(func(q *bench.Quantiles) float64 { return q.Max })),
		{name: "faults", format: bench.FormatNumber, value: func(r *workload.Result) float64 { return float64(r.Requests) }},
	}
}

// Figures of many partitions.
func manyFigures() (all []figure) {
	for _, step := range []string{
		cluster.ManyCreate, cluster.ManyWritable, cluster.ManyFailover, cluster.ManyReturn, cluster.ManyRestart, cluster.ManyRejoin,
	} {
		all = append(all, stepTime(step, step))
	}
	return all
}

// Figures of an idle cluster.
func clusterIdleFigures() []figure {
	return []figure{
		stepCPU("CPU of a node, share of a core", cluster.IdleBusiest, percent, func(s *workload.Step) float64 { return s.Seconds }),
		stepFigure("RSS of a node", cluster.IdleLargest, mib, func(s *workload.Step) float64 { return float64(s.Server.RSS) }),
	}
}
