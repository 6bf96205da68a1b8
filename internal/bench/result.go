package bench

import (
	"fmt"
	"strings"
	"time"
)

// Result is the outcome of a run.
type Result struct {
	Kind        string     `json:"kind"` // the name of the command
	Options     Options    `json:"options"`
	Started     time.Time  `json:"started"`
	Seconds     float64    `json:"seconds"`
	Records     int64      `json:"records"`
	Bytes       int64      `json:"bytes"` // of record batches
	Requests    int64      `json:"requests"`
	ClientCPU   float64    `json:"client_cpu_s"`
	Server      *Server    `json:"server,omitempty"` // nil: no --pid
	Ack         *Quantiles `json:"ack,omitempty"`
	EndToEnd    *Quantiles `json:"end_to_end,omitempty"`
	SenderLate  *Quantiles `json:"sender_late,omitempty"` // how late the client itself was
	OpenSeconds float64    `json:"open_s,omitempty"`      // idle: to open the connections
	Syscalls    int64      `json:"syscalls,omitempty"`    // of the servers
	Steps       []Step     `json:"steps,omitempty"`       // of a run that measures several things
}

// Server is what the server's processes used during a run.
type Server struct {
	CPU     float64 `json:"cpu_s"`
	RSS     int64   `json:"rss_bytes"` // at the end
	PeakRSS int64   `json:"peak_rss_bytes"`
	Before  int64   `json:"rss_before_bytes,omitempty"` // idle: without the connections
	Written int64   `json:"written_bytes"`              // handed to the disk, or to the page cache to go there
}

// metric is one figure of a result.
type metric struct {
	name   string
	value  float64
	format func(float64) string
	better int // 1: more is better, -1: less is better, 0: neither
}

// metrics lists the figures that runs are compared by.
func (r *Result) metrics() (all []metric) {
	add := func(name string, value float64, format func(float64) string, better int) {
		all = append(all, metric{name, value, format, better})
	}
	per := func(total, n float64) float64 {
		if n == 0 {
			return 0
		}
		return total / n
	}
	gb, million, requests := float64(r.Bytes)/1e9, float64(r.Records)/1e6, float64(r.Requests)
	switch r.Kind {
	case "produce", "consume":
		add("throughput", per(float64(r.Bytes), r.Seconds), speedText, 1)
		add("records/s", per(float64(r.Records), r.Seconds), countText, 1)
		add("requests/s", per(requests, r.Seconds), countText, 1)
		add("client CPU, s/GB", per(r.ClientCPU, gb), cpuText, -1)
		add("client CPU, s/million records", per(r.ClientCPU, million), cpuText, -1)
		if r.Server != nil {
			add("server CPU, s/GB", per(r.Server.CPU, gb), cpuText, -1)
			add("server CPU, s/million records", per(r.Server.CPU, million), cpuText, -1)
			add("server CPU, us/request", per(r.Server.CPU*1e6, requests), cpuText, -1)
			add("server's disk bytes/byte", per(float64(r.Server.Written), float64(r.Bytes)), cpuText, 0)
		}
	case "latency":
		for _, q := range []struct {
			name string
			q    *Quantiles
		}{{"acknowledged", r.Ack}, {"end to end", r.EndToEnd}} {
			if q.q != nil {
				add(q.name+", p50", q.q.P50, microsText, -1)
				add(q.name+", p90", q.q.P90, microsText, -1)
				add(q.name+", p99", q.q.P99, microsText, -1)
				add(q.name+", p99.9", q.q.P999, microsText, -1)
				add(q.name+", max", q.q.Max, microsText, -1)
			}
		}
		if r.Server != nil {
			add("server CPU, us/record", per(r.Server.CPU*1e6, float64(r.Records)), cpuText, -1)
		}
	case "syscalls":
		add("server's system calls/request", per(float64(r.Syscalls), requests), cpuText, -1)
		add("requests/s", per(requests, r.Seconds), countText, 0)
	case "idle":
		add("time to open", r.OpenSeconds, millis, -1)
		if r.Server != nil {
			add("server memory of a connection", per(float64(r.Server.RSS-r.Server.Before), requests), sizeText, -1)
		}
		if r.Server != nil {
			add("server CPU, share of a core", per(r.Server.CPU, r.Seconds), cpuText, -1)
		}
	}
	for i := range r.Steps {
		all = append(all, r.Steps[i].metrics()...)
	}
	if r.Server != nil {
		add("server RSS", float64(r.Server.RSS), sizeText, -1)
		add("server RSS, peak", float64(r.Server.PeakRSS), sizeText, -1)
	}
	return all
}

// Text is the result for people.
func (r *Result) Text() string {
	var b strings.Builder
	fmt.Fprintln(&b, r.title())
	width := 0
	for _, m := range r.metrics() {
		width = max(width, len(m.name))
	}
	for _, m := range r.metrics() {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, m.name, m.format(m.value))
	}
	if l := r.SenderLate; l != nil {
		fmt.Fprintf(&b, "The client itself was late by %s at p50, %s at p99 and %s at p99.9; that is in the figures.\n",
			microsText(l.P50), microsText(l.P99), microsText(l.P999))
	}
	return b.String()
}

func (r *Result) title() string {
	o := &r.Options
	switch r.Kind {
	case "produce":
		return fmt.Sprintf("produce: %s records in %s s to %s; %s, %s, acks %s, batches of %d x %d B, %d in flight each",
			countText(float64(r.Records)), digits(r.Seconds), o.Topic, plural(o.Partitions, "partition"),
			plural(o.Connections, "connection"), o.Acks, o.Batch, o.Size, o.InFlight)
	case "consume":
		return fmt.Sprintf("consume: %s records in %s s from %s; %s, %s, %s a request",
			countText(float64(r.Records)), digits(r.Seconds), o.Topic, plural(o.Partitions, "partition"),
			plural(o.Connections, "connection"), sizeText(float64(o.FetchBytes)))
	case "latency":
		return fmt.Sprintf("latency: %s records at %d/s, %d B each, acks %s", countText(float64(r.Records)), o.Rate, o.Size, o.Acks)
	case "spread":
		return fmt.Sprintf("spread: %s records in %.1f s to %s; %s, %s, acks %s, %d in flight each", countText(float64(r.Records)), r.Seconds,
			o.Topic, plural(o.Partitions, "partition"), plural(o.Connections, "connection"), o.Acks, o.InFlight)
	case "create":
		return fmt.Sprintf("create: %s, twice, in %.1f s", plural(o.Partitions, "partition"), r.Seconds)
	case "groups":
		return fmt.Sprintf("groups: one of %s; %s that commit each %s", plural(o.Members, "member"), plural(o.Groups, "group"), o.Interval)
	case "load":
		return fmt.Sprintf("load: %s to and from %s in %.1f s; acks %s, batches of %d x %d B, %s a fetch", plural(o.Partitions, "partition"),
			o.Topic, r.Seconds, o.Acks, o.Batch, o.Size, sizeText(float64(o.FetchBytes)))
	case "cold":
		return fmt.Sprintf("cold: %s from the disk in %.1f s, beside %d records/s of %d B to another topic", sizeText(float64(r.Bytes)), r.Seconds, o.Rate, tailSize)
	case "syscalls":
		return fmt.Sprintf("syscalls: %s requests in %.1f s to %s; %s, acks %s, batches of %d x %d B, %d in flight each",
			countText(float64(r.Requests)), r.Seconds, o.Topic, plural(o.Connections, "connection"), o.Acks, o.Batch, o.Size, o.InFlight)
	case "restart":
		return fmt.Sprintf("restart: %s with %s, and %s with a record each", plural(o.Partitions, "partition"),
			sizeText(float64(o.Records*int64(o.Size))), plural(o.Extra, "more partition"))
	default:
		return fmt.Sprintf("%s: %s for %.1f s", r.Kind, plural(o.Connections, "connection"), r.Seconds)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sizeText(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1000
		i++
	}
	return digits(n) + " " + units[i]
}

func speedText(n float64) string { return sizeText(n) + "/s" }

func countText(n float64) string {
	switch {
	case n >= 1e9:
		return digits(n/1e9) + " billion"
	case n >= 1e6:
		return digits(n/1e6) + " million"
	case n >= 1e4:
		return digits(n/1e3) + " thousand"
	default:
		return fmt.Sprintf("%.0f", n)
	}
}

func cpuText(n float64) string { return digits(n) }

func microsText(us float64) string {
	if us >= 10_000 {
		return digits(us/1e3) + " ms"
	}
	return digits(us) + " us"
}

// digits shows three digits that count.
func digits(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n >= 10:
		return fmt.Sprintf("%.1f", n)
	case n >= 0.1:
		return fmt.Sprintf("%.2f", n)
	default:
		return fmt.Sprintf("%.2g", n)
	}
}
