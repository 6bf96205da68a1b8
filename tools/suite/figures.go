package main

import (
	"math"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/tools/suite/workload"
)

// figure is something that a result says and that contenders are compared by.
type figure struct {
	name   string // in the report; two figures of one workload have different names
	value  func(r *workload.Result) float64
	format func(float64) string
	less   bool // less is better
}

// quotient is NaN where nothing was counted, which is no figure.
func quotient(total, n float64) float64 {
	if n == 0 {
		return math.NaN()
	}
	return total / n
}

// ofServer is a figure about the server's processes.
func ofServer(value func(r *workload.Result, s *process.Usage) float64) func(*workload.Result) float64 {
	return func(r *workload.Result) float64 {
		if r.Server == nil {
			return math.NaN()
		}
		return value(r, r.Server)
	}
}

func gigabytes(r *workload.Result) float64 { return float64(r.Bytes) / 1e9 }
func millions(r *workload.Result) float64  { return float64(r.Records) / 1e6 }

func rateFigure() figure {
	return figure{name: "MB/s", format: bench.FormatDigits, value: func(r *workload.Result) float64 { return gigabytes(r) * 1e3 / r.Seconds }}
}

func recordRateFigure() figure {
	return figure{name: "records/s", format: bench.FormatNumber, value: func(r *workload.Result) float64 { return float64(r.Records) / r.Seconds }}
}

func cpuByteFigure() figure {
	return figure{name: "server CPU, s/GB", format: bench.FormatDigits, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
		return quotient(s.CPU, gigabytes(r))
	})}
}

func cpuRecordFigure() figure {
	return figure{name: "server CPU, s/million records", format: bench.FormatDigits, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
		return quotient(s.CPU, millions(r))
	})}
}

func cpuRequestFigure() figure {
	return figure{name: "server CPU, us/request", format: bench.FormatDigits, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
		return quotient(s.CPU*1e6, float64(r.Requests))
	})}
}

func cpuShareFigure() figure {
	return figure{name: "server CPU, share of a core", format: percent, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
		return quotient(s.CPU, r.Seconds)
	})}
}

func clientByteFigure() figure {
	return figure{name: "client CPU, s/GB", format: bench.FormatDigits, less: true, value: func(r *workload.Result) float64 {
		return quotient(r.ClientCPU, gigabytes(r))
	}}
}

func clientRecordFigure() figure {
	return figure{name: "client CPU, s/million records", format: bench.FormatDigits, less: true, value: func(r *workload.Result) float64 {
		return quotient(r.ClientCPU, millions(r))
	}}
}

func peakFigure() figure {
	return figure{name: "peak RSS", format: mib, less: true, value: ofServer(func(_ *workload.Result, s *process.Usage) float64 { return float64(s.PeakRSS) })}
}

func memoryFigure() figure {
	return figure{name: "RSS", format: mib, less: true, value: ofServer(func(_ *workload.Result, s *process.Usage) float64 { return float64(s.RSS) })}
}

// quantileFigure is a quantile of the acknowledgements or of the arrivals.
func quantileFigure(what, name string, of func(r *workload.Result) *bench.Quantiles, at func(q *bench.Quantiles) float64) figure {
	return figure{name: what + ", " + name, format: bench.FormatMicros, less: true, value: func(r *workload.Result) float64 {
		q := of(r)
		if q == nil {
			return math.NaN()
		}
		return at(q)
	}}
}

// Places in quantileFigures.
const quantileP50, quantileP99, quantileP999 = 0, 2, 3

// quantileFigures are all of one kind: p50, p90, p99, p99.9 and max.
func quantileFigures(what string, of func(r *workload.Result) *bench.Quantiles) []figure {
	return []figure{
		quantileFigure(what, "p50", of, func(q *bench.Quantiles) float64 { return q.P50 }),
		quantileFigure(what, "p90", of, func(q *bench.Quantiles) float64 { return q.P90 }),
		quantileFigure(what, "p99", of, func(q *bench.Quantiles) float64 { return q.P99 }),
		quantileFigure(what, "p99.9", of, func(q *bench.Quantiles) float64 { return q.P999 }),
		quantileFigure(what, "max", of, func(q *bench.Quantiles) float64 { return q.Max }),
	}
}

func ackFigures() []figure {
	return quantileFigures("acknowledged", func(r *workload.Result) *bench.Quantiles { return r.Ack })
}

func endFigures() []figure {
	return quantileFigures("end to end", func(r *workload.Result) *bench.Quantiles { return r.EndToEnd })
}

func mib(bytes float64) string { return bench.FormatDigits(bytes/(1<<20)) + " MiB" }

func percent(share float64) string { return bench.FormatDigits(share*100) + " %" }

func diskFigure() figure {
	return figure{name: "disk bytes/byte", format: bench.FormatDigits, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
		return quotient(float64(s.Written), float64(r.Bytes))
	})}
}

func connectionFigure() figure {
	return figure{name: "memory of a connection", format: bench.FormatSize, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
		return quotient(float64(s.RSS-r.RSSBefore), float64(r.Options.Connections))
	})}
}

// stepFigure is a figure of a run's step.
func stepFigure(name, step string, format func(float64) string, value func(s *workload.Step) float64) figure {
	return figure{name: name, format: format, less: true, value: func(r *workload.Result) float64 {
		s := r.Step(step)
		if s == nil {
			return math.NaN()
		}
		return value(s)
	}}
}

// stepTime is how long a step took.
func stepTime(name, step string) figure {
	return stepFigure(name, step, millis, func(s *workload.Step) float64 { return s.Seconds })
}

// stepRate is how fast a step was.
func stepRate(name, step string) figure {
	f := stepFigure(name, step, bench.FormatDigits, func(s *workload.Step) float64 { return quotient(float64(s.Bytes)/1e6, s.Seconds) })
	f.less = false
	return f
}

// stepCPU is a step's server CPU divided by the count that per returns.
func stepCPU(name, step string, format func(float64) string, per func(s *workload.Step) float64) figure {
	return stepFigure(name, step, format, func(s *workload.Step) float64 {
		if s.Server == nil {
			return math.NaN()
		}
		return quotient(s.Server.CPU, per(s))
	})
}

func stepRecords(s *workload.Step) float64   { return float64(s.Records) }
func stepRequests(s *workload.Step) float64  { return float64(s.Requests) }
func stepGigabytes(s *workload.Step) float64 { return float64(s.Bytes) / 1e9 }

// ratioFigure is one figure of a run over another one of the same run.
func ratioFigure(name string, less bool, a, b figure) figure {
	return figure{name: name, format: bench.FormatDigits, less: less, value: func(r *workload.Result) float64 { return quotient(a.value(r), b.value(r)) }}
}

// beyondFigure is by how much one figure of a run is more than another one.
func beyondFigure(name string, a, b figure) figure {
	return figure{name: name, format: a.format, less: true, value: func(r *workload.Result) float64 { return a.value(r) - b.value(r) }}
}

func millis(seconds float64) string { return bench.FormatDigits(seconds*1e3) + " ms" }

// micros shows seconds.
func micros(seconds float64) string { return bench.FormatMicros(seconds * 1e6) }

// Figures of spread: the cost of a record to the server.
func spreadFigures() []figure {
	first, later := stepCPU("first pass, CPU/record", workload.SpreadFirst, micros, stepRecords), stepCPU("later passes, CPU/record", workload.SpreadLater, micros, stepRecords)
	many, one := stepCPU("500 a request, CPU/record", workload.SpreadMany, micros, stepRecords), stepCPU("one partition, CPU/record", workload.SpreadOne, micros, stepRecords)
	return []figure{first, later, many, one, beyondFigure("beyond one partition's", later, one)}
}

// Figures of create: times.
func createFigures() []figure {
	first, again := stepTime("all writable", workload.CreateWritable), stepTime("all writable, again", workload.CreateWritable+workload.CreateAgain)
	return []figure{
		stepTime("answer", workload.CreateAnswer), first, stepTime("deleted", workload.CreateDelete),
		stepTime("answer, again", workload.CreateAnswer+workload.CreateAgain), again, stepTime("deleted, again", workload.CreateDelete+workload.CreateAgain),
		ratioFigure("again / first", true, again, first),
		perPartition("writable, a partition", first),
	}
}

// perPartition shares a time among partitions.
func perPartition(name string, f figure) figure {
	return figure{name: name, format: micros, less: true, value: func(r *workload.Result) float64 {
		return quotient(f.value(r), float64(r.Options.Partitions))
	}}
}

// Figures of groups.
func groupFigures() []figure {
	commit := stepCPU("CPU/commit", workload.GroupsCommit, micros, stepRequests)
	produce := stepCPU("CPU/small produce", workload.GroupsProduce, micros, stepRequests)
	return []figure{
		stepTime("100 members, empty to stable", workload.GroupsJoin), stepTime("one leaves", workload.GroupsLeave),
		commit, produce, ratioFigure("commit / small produce", true, commit, produce),
		stepFigure("commit, p50", workload.GroupsCommit, bench.FormatMicros, stepAck(func(q *bench.Quantiles) float64 { return q.P50 })),
		stepFigure("commit, p99", workload.GroupsCommit, bench.FormatMicros, stepAck(func(q *bench.Quantiles) float64 { return q.P99 })),
	}
}

func stepAck(at func(q *bench.Quantiles) float64) func(s *workload.Step) float64 {
	return func(s *workload.Step) float64 {
		if s.Ack == nil {
			return math.NaN()
		}
		return at(s.Ack)
	}
}

// Figures of an ordinary client.
func clientFigures() (all []figure) {
	for _, step := range []string{workload.ClientProduce, workload.ClientConsume} {
		all = append(all,
			stepRate(step+", MB/s", step),
			stepCPU(step+", server CPU, s/GB", step, bench.FormatDigits, stepGigabytes),
			stepFigure(step+", client CPU, s/GB", step, bench.FormatDigits, func(s *workload.Step) float64 { return quotient(s.ClientCPU, stepGigabytes(s)) }))
	}
	return all
}

// callsFigure is counted in a run of its own, which the tracer slows down.
func callsFigure() figure {
	return figure{name: "system calls/request", format: bench.FormatDigits, less: true, value: func(r *workload.Result) float64 {
		if r.Kind != workload.KindSyscalls {
			return math.NaN()
		}
		return quotient(float64(r.Syscalls), float64(r.Requests))
	}}
}

// Figures of cold.
func coldFigures() []figure {
	disk, read := stepRate("the disk's MB/s", workload.ColdDisk), stepRate("cold MB/s", workload.ColdConsume)
	tail := func(name, step string, at func(q *bench.Quantiles) float64) figure {
		return stepFigure(name, step, bench.FormatMicros, func(s *workload.Step) float64 {
			if s.EndToEnd == nil {
				return math.NaN()
			}
			return at(s.EndToEnd)
		})
	}
	p50, p99 := func(q *bench.Quantiles) float64 { return q.P50 }, func(q *bench.Quantiles) float64 { return q.P99 }
	alone, beside := tail("tail alone, p99", workload.ColdAlone, p99), tail("tail beside the reader, p99", workload.ColdTail, p99)
	return []figure{
		disk, read, ratioFigure("cold / disk", false, read, disk),
		tail("tail alone, p50", workload.ColdAlone, p50), alone, tail("tail beside the reader, p50", workload.ColdTail, p50), beside,
		ratioFigure("tail's p99, beside / alone", true, beside, alone),
	}
}

// Figures of load.
func loadFigures() []figure {
	rest := memoryFigure()
	rest.name = "RSS after a rest"
	return []figure{stepRate("produced, MB/s", workload.LoadProduce), stepRate("consumed, MB/s", workload.LoadConsume), peakFigure(), rest}
}

// Figures of restart: all from the start of the process.
func restartFigures() []figure {
	return []figure{stepTime(workload.RestartTopic, workload.RestartTopic), stepTime(workload.RestartKill, workload.RestartKill), stepTime(workload.RestartClean, workload.RestartClean)}
}
