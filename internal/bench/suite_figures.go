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
