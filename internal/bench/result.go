package bench

import (
	"fmt"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench/process"
)

// Result is the outcome of a run.
type Result struct {
	Kind       Kind           `json:"kind"`
	Options    Options        `json:"options"`
	Started    time.Time      `json:"started"`
	Seconds    float64        `json:"seconds"`
	Records    int64          `json:"records"`
	Bytes      int64          `json:"bytes"` // of record batches
	Requests   int64          `json:"requests"`
	ClientCPU  float64        `json:"client_cpu_s"`
	Server     *process.Usage `json:"server,omitempty"` // nil: no --pid
	Ack        *Quantiles     `json:"ack,omitempty"`
	EndToEnd   *Quantiles     `json:"end_to_end,omitempty"`
	SenderLate *Quantiles     `json:"sender_late,omitempty"` // how late the client itself sent
}

// judgement says which of two values of a metric is the better one.
type judgement int

const (
	neither judgement = iota
	more
	less
)

// metric is one number of a result.
type metric struct {
	name   string
	value  float64
	format func(float64) string
	better judgement
}

// listMetrics lists the metrics that runs are compared by.
func (r *Result) listMetrics() (all []metric) {
	add := func(name string, value float64, format func(float64) string, better judgement) {
		all = append(all, metric{name, value, format, better})
	}
	per := func(total, n float64) float64 {
		if n == 0 {
			return 0
		}
		return total / n
	}
	if r.Kind == KindLatency {
		for _, q := range []struct {
			name string
			q    *Quantiles
		}{{"acknowledged", r.Ack}, {"end to end", r.EndToEnd}} {
			if q.q != nil {
				add(q.name+", p50", q.q.P50, FormatMicros, less)
				add(q.name+", p90", q.q.P90, FormatMicros, less)
				add(q.name+", p99", q.q.P99, FormatMicros, less)
				add(q.name+", p99.9", q.q.P999, FormatMicros, less)
				add(q.name+", max", q.q.Max, FormatMicros, less)
			}
		}
		if r.Server != nil {
			add("server CPU, us/record", per(r.Server.CPU*1e6, float64(r.Records)), FormatDigits, less)
		}
	} else {
		gb, million, requests := float64(r.Bytes)/1e9, float64(r.Records)/1e6, float64(r.Requests)
		add("throughput", per(float64(r.Bytes), r.Seconds), func(n float64) string { return FormatSize(n) + "/s" }, more)
		add("records/s", per(float64(r.Records), r.Seconds), FormatNumber, more)
		add("requests/s", per(requests, r.Seconds), FormatNumber, more)
		add("client CPU, s/GB", per(r.ClientCPU, gb), FormatDigits, less)
		add("client CPU, s/million records", per(r.ClientCPU, million), FormatDigits, less)
		if r.Server != nil {
			add("server CPU, s/GB", per(r.Server.CPU, gb), FormatDigits, less)
			add("server CPU, s/million records", per(r.Server.CPU, million), FormatDigits, less)
			add("server CPU, us/request", per(r.Server.CPU*1e6, requests), FormatDigits, less)
			add("server's disk bytes/byte", per(float64(r.Server.Written), float64(r.Bytes)), FormatDigits, neither)
		}
	}
	if r.Server != nil {
		add("server RSS", float64(r.Server.RSS), FormatSize, less)
		add("server RSS, peak", float64(r.Server.PeakRSS), FormatSize, less)
	}
	return all
}

// Text formats the result for people.
func (r *Result) Text() string {
	var b strings.Builder
	fmt.Fprintln(&b, r.formatTitle())
	width := 0
	for _, m := range r.listMetrics() {
		width = max(width, len(m.name))
	}
	for _, m := range r.listMetrics() {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, m.name, m.format(m.value))
	}
	if l := r.SenderLate; l != nil {
		fmt.Fprintf(&b, "The client itself was late by %s at p50, %s at p99 and %s at p99.9; that is in the figures.\n",
			FormatMicros(l.P50), FormatMicros(l.P99), FormatMicros(l.P999))
	}
	return b.String()
}

func (r *Result) formatTitle() string {
	o, records, seconds := &r.Options, FormatNumber(float64(r.Records)), FormatDigits(r.Seconds)
	switch r.Kind {
	case KindProduce:
		return fmt.Sprintf("produce: %s records in %s s to %s; %s, %s, acks %s, batches of %d x %d B, %d in flight each",
			records, seconds, o.Topic, FormatCounted(o.Partitions, "partition"),
			FormatCounted(o.Connections, "connection"), o.Acks, o.Batch, o.Size, o.InFlight)
	case KindConsume:
		return fmt.Sprintf("consume: %s records in %s s from %s; %s, %s, %s a request", records, seconds, o.Topic,
			FormatCounted(o.Partitions, "partition"), FormatCounted(o.Connections, "connection"), FormatSize(float64(o.FetchBytes)))
	default:
		return fmt.Sprintf("%s: %s records at %d/s, %d B each, acks %s", r.Kind, records, o.Rate, o.Size, o.Acks)
	}
}
