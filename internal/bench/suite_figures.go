package bench

import "math"

// figure is something that a result says and that contenders are compared by.
type figure struct {
	name   string // in the report; two figures of one workload have different names
	value  func(r *Result) float64
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
func ofServer(value func(r *Result, s *Server) float64) func(*Result) float64 {
	return func(r *Result) float64 {
		if r.Server == nil {
			return math.NaN()
		}
		return value(r, r.Server)
	}
}

func gigabytes(r *Result) float64 { return float64(r.Bytes) / 1e9 }
func millions(r *Result) float64  { return float64(r.Records) / 1e6 }

func rateFigure() figure {
	return figure{name: "MB/s", format: digits, value: func(r *Result) float64 { return gigabytes(r) * 1e3 / r.Seconds }}
}

func recordRateFigure() figure {
	return figure{name: "records/s", format: countText, value: func(r *Result) float64 { return float64(r.Records) / r.Seconds }}
}

func cpuByteFigure() figure {
	return figure{name: "server CPU, s/GB", format: digits, less: true, value: ofServer(func(r *Result, s *Server) float64 {
		return quotient(s.CPU, gigabytes(r))
	})}
}

func cpuRecordFigure() figure {
	return figure{name: "server CPU, s/million records", format: digits, less: true, value: ofServer(func(r *Result, s *Server) float64 {
		return quotient(s.CPU, millions(r))
	})}
}

func cpuRequestFigure() figure {
	return figure{name: "server CPU, us/request", format: digits, less: true, value: ofServer(func(r *Result, s *Server) float64 {
		return quotient(s.CPU*1e6, float64(r.Requests))
	})}
}

func cpuShareFigure() figure {
	return figure{name: "server CPU, share of a core", format: percent, less: true, value: ofServer(func(r *Result, s *Server) float64 {
		return quotient(s.CPU, r.Seconds)
	})}
}

func clientByteFigure() figure {
	return figure{name: "client CPU, s/GB", format: digits, less: true, value: func(r *Result) float64 {
		return quotient(r.ClientCPU, gigabytes(r))
	}}
}

func clientRecordFigure() figure {
	return figure{name: "client CPU, s/million records", format: digits, less: true, value: func(r *Result) float64 {
		return quotient(r.ClientCPU, millions(r))
	}}
}

func peakFigure() figure {
	return figure{name: "peak RSS", format: mib, less: true, value: ofServer(func(_ *Result, s *Server) float64 { return float64(s.PeakRSS) })}
}

func memoryFigure() figure {
	return figure{name: "RSS", format: mib, less: true, value: ofServer(func(_ *Result, s *Server) float64 { return float64(s.RSS) })}
}

// quantileFigure is a quantile of the acknowledgements or of the arrivals.
func quantileFigure(what, name string, of func(r *Result) *Quantiles, at func(q *Quantiles) float64) figure {
	return figure{name: what + ", " + name, format: microsText, less: true, value: func(r *Result) float64 {
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
func quantileFigures(what string, of func(r *Result) *Quantiles) []figure {
	return []figure{
		quantileFigure(what, "p50", of, func(q *Quantiles) float64 { return q.P50 }),
		quantileFigure(what, "p90", of, func(q *Quantiles) float64 { return q.P90 }),
		quantileFigure(what, "p99", of, func(q *Quantiles) float64 { return q.P99 }),
		quantileFigure(what, "p99.9", of, func(q *Quantiles) float64 { return q.P999 }),
		quantileFigure(what, "max", of, func(q *Quantiles) float64 { return q.Max }),
	}
}

func ackFigures() []figure {
	return quantileFigures("acknowledged", func(r *Result) *Quantiles { return r.Ack })
}

func endFigures() []figure {
	return quantileFigures("end to end", func(r *Result) *Quantiles { return r.EndToEnd })
}

func mib(bytes float64) string { return digits(bytes/(1<<20)) + " MiB" }

func percent(share float64) string { return digits(share*100) + " %" }

func diskFigure() figure {
	return figure{name: "disk bytes/byte", format: digits, less: true, value: ofServer(func(r *Result, s *Server) float64 {
		return quotient(float64(s.Written), float64(r.Bytes))
	})}
}

func connectionFigure() figure {
	return figure{name: "memory of a connection", format: sizeText, less: true, value: ofServer(func(r *Result, s *Server) float64 {
		return quotient(float64(s.RSS-s.Before), float64(r.Options.Connections))
	})}
}

// stepFigure is a figure of a run's step.
func stepFigure(name, step string, format func(float64) string, value func(s *Step) float64) figure {
	return figure{name: name, format: format, less: true, value: func(r *Result) float64 {
		s := r.Step(step)
		if s == nil {
			return math.NaN()
		}
		return value(s)
	}}
}

// stepTime is how long a step took.
func stepTime(name, step string) figure {
	return stepFigure(name, step, millis, func(s *Step) float64 { return s.Seconds })
}

// stepRate is how fast a step was.
func stepRate(name, step string) figure {
	f := stepFigure(name, step, digits, func(s *Step) float64 { return quotient(float64(s.Bytes)/1e6, s.Seconds) })
	f.less = false
	return f
}

// stepCPU is a step's server CPU by what per counts.
func stepCPU(name, step string, format func(float64) string, per func(s *Step) float64) figure {
	return stepFigure(name, step, format, func(s *Step) float64 {
		if s.Server == nil {
			return math.NaN()
		}
		return quotient(s.Server.CPU, per(s))
	})
}

func stepRecords(s *Step) float64   { return float64(s.Records) }
func stepRequests(s *Step) float64  { return float64(s.Requests) }
func stepGigabytes(s *Step) float64 { return float64(s.Bytes) / 1e9 }

// ratioFigure is one figure of a run over another one of the same run.
func ratioFigure(name string, less bool, a, b figure) figure {
	return figure{name: name, format: digits, less: less, value: func(r *Result) float64 { return quotient(a.value(r), b.value(r)) }}
}

// beyondFigure is by how much one figure of a run is more than another one.
func beyondFigure(name string, a, b figure) figure {
	return figure{name: name, format: a.format, less: true, value: func(r *Result) float64 { return a.value(r) - b.value(r) }}
}

func millis(seconds float64) string { return digits(seconds*1e3) + " ms" }

// micros shows seconds.
func micros(seconds float64) string { return microsText(seconds * 1e6) }

// Figures of spread: what a record costs the server.
func spreadFigures() []figure {
	first, later := stepCPU("first pass, CPU/record", spreadFirst, micros, stepRecords), stepCPU("later passes, CPU/record", spreadLater, micros, stepRecords)
	many, one := stepCPU("500 a request, CPU/record", spreadMany, micros, stepRecords), stepCPU("one partition, CPU/record", spreadOne, micros, stepRecords)
	return []figure{first, later, many, one, beyondFigure("beyond one partition's", later, one)}
}

// Figures of create: times.
func createFigures() []figure {
	first, again := stepTime("all writable", createWritable), stepTime("all writable, again", createWritable+createAgain)
	return []figure{
		stepTime("answer", createAnswer), first, stepTime("deleted", createDelete),
		stepTime("answer, again", createAnswer+createAgain), again, stepTime("deleted, again", createDelete+createAgain),
		ratioFigure("again / first", true, again, first),
		perPartition("writable, a partition", first),
	}
}

// perPartition shares a time among partitions.
func perPartition(name string, f figure) figure {
	return figure{name: name, format: micros, less: true, value: func(r *Result) float64 {
		return quotient(f.value(r), float64(r.Options.Partitions))
	}}
}

// Figures of groups.
func groupFigures() []figure {
	commit := stepCPU("CPU/commit", groupsCommit, micros, stepRequests)
	produce := stepCPU("CPU/small produce", groupsProduce, micros, stepRequests)
	return []figure{
		stepTime("100 members, empty to stable", groupsJoin), stepTime("one leaves", groupsLeave),
		commit, produce, ratioFigure("commit / small produce", true, commit, produce),
		stepFigure("commit, p50", groupsCommit, microsText, stepAck(func(q *Quantiles) float64 { return q.P50 })),
		stepFigure("commit, p99", groupsCommit, microsText, stepAck(func(q *Quantiles) float64 { return q.P99 })),
	}
}

func stepAck(at func(q *Quantiles) float64) func(s *Step) float64 {
	return func(s *Step) float64 {
		if s.Ack == nil {
			return math.NaN()
		}
		return at(s.Ack)
	}
}

// Figures of an ordinary client.
func clientFigures() (all []figure) {
	for _, step := range []string{clientProduce, clientConsume} {
		all = append(all,
			stepRate(step+", MB/s", step),
			stepCPU(step+", server CPU, s/GB", step, digits, stepGigabytes),
			stepFigure(step+", client CPU, s/GB", step, digits, func(s *Step) float64 { return quotient(s.ClientCPU, stepGigabytes(s)) }))
	}
	return all
}

// callsFigure is counted in a run of its own, which the tracer slows down.
func callsFigure() figure {
	return figure{name: "system calls/request", format: digits, less: true, value: func(r *Result) float64 {
		if r.Kind != "syscalls" {
			return math.NaN()
		}
		return quotient(float64(r.Syscalls), float64(r.Requests))
	}}
}

// Figures of cold.
func coldFigures() []figure {
	disk, read := stepRate("the disk's MB/s", coldDisk), stepRate("cold MB/s", coldConsume)
	tail := func(name, step string, at func(q *Quantiles) float64) figure {
		return stepFigure(name, step, microsText, func(s *Step) float64 {
			if s.EndToEnd == nil {
				return math.NaN()
			}
			return at(s.EndToEnd)
		})
	}
	p50, p99 := func(q *Quantiles) float64 { return q.P50 }, func(q *Quantiles) float64 { return q.P99 }
	alone, beside := tail("tail alone, p99", coldAlone, p99), tail("tail beside the reader, p99", coldTail, p99)
	return []figure{
		disk, read, ratioFigure("cold / disk", false, read, disk),
		tail("tail alone, p50", coldAlone, p50), alone, tail("tail beside the reader, p50", coldTail, p50), beside,
		ratioFigure("tail's p99, beside / alone", true, beside, alone),
	}
}

// Figures of load.
func loadFigures() []figure {
	rest := memoryFigure()
	rest.name = "RSS after a rest"
	return []figure{stepRate("produced, MB/s", loadProduce), stepRate("consumed, MB/s", loadConsume), peakFigure(), rest}
}

// Figures of restart: all from the start of the process.
func restartFigures() []figure {
	return []figure{stepTime(restartTopic, restartTopic), stepTime(restartKill, restartKill), stepTime(restartClean, restartClean)}
}
