package bench

import "fmt"

// Step is a part of a run that is measured by itself. What a step has none of is 0.
type Step struct {
	Name      string     `json:"name"`
	Seconds   float64    `json:"seconds"`
	Records   int64      `json:"records,omitempty"`
	Bytes     int64      `json:"bytes,omitempty"` // of record batches
	Requests  int64      `json:"requests,omitempty"`
	ClientCPU float64    `json:"client_cpu_s,omitempty"`
	Server    *Server    `json:"server,omitempty"`
	Ack       *Quantiles `json:"ack,omitempty"`
	EndToEnd  *Quantiles `json:"end_to_end,omitempty"`
}

// Step finds a step by its name; nil where the run has none of that name.
func (r *Result) Step(name string) *Step {
	for i := range r.Steps {
		if r.Steps[i].Name == name {
			return &r.Steps[i]
		}
	}
	return nil
}

// as makes a run a step of another one.
func (r *Result) as(name string) Step {
	return Step{
		Name: name, Seconds: r.Seconds, Records: r.Records, Bytes: r.Bytes, Requests: r.Requests,
		ClientCPU: r.ClientCPU, Server: r.Server, Ack: r.Ack, EndToEnd: r.EndToEnd,
	}
}

// measured times what do does, and what the servers pay for it.
func measured(name string, pids []int, do func(s *Step) error) (Step, error) {
	s := Step{Name: name}
	m, err := startMeter(pids)
	if err != nil {
		return s, err
	}
	m.begin()
	if err := do(&s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	m.stop()
	s.Seconds, s.ClientCPU = m.seconds, (m.clientEnd - m.client).Seconds()
	s.Server, err = m.servers()
	return s, err
}

// sum makes the run's own figures those of its steps together.
func (r *Result) sum() {
	for i := range r.Steps {
		s := &r.Steps[i]
		r.Seconds += s.Seconds
		r.Records += s.Records
		r.Bytes += s.Bytes
		r.Requests += s.Requests
		r.ClientCPU += s.ClientCPU
		if s.Server == nil {
			continue
		}
		if r.Server == nil {
			r.Server = &Server{}
		}
		r.Server.CPU += s.Server.CPU
		r.Server.Written += s.Server.Written
		r.Server.RSS, r.Server.PeakRSS = s.Server.RSS, max(r.Server.PeakRSS, s.Server.PeakRSS)
	}
}

// metrics lists the step's figures that runs are compared by.
func (s *Step) metrics() (all []metric) {
	add := func(name string, value float64, format func(float64) string, better int) {
		all = append(all, metric{s.Name + ": " + name, value, format, better})
	}
	better := 0 // where much is done, less time means less of it
	if s.Bytes == 0 && s.Ack == nil {
		better = -1
	}
	add("time", s.Seconds, millis, better)
	if s.Bytes > 0 && s.Seconds > 0 {
		add("throughput", float64(s.Bytes)/s.Seconds, speedText, 1)
	}
	for _, q := range []struct {
		name string
		q    *Quantiles
	}{{"acknowledged", s.Ack}, {"end to end", s.EndToEnd}} {
		if q.q != nil {
			add(q.name+", p50", q.q.P50, microsText, -1)
			add(q.name+", p99", q.q.P99, microsText, -1)
			add(q.name+", p99.9", q.q.P999, microsText, -1)
		}
	}
	if s.Server == nil {
		return all
	}
	switch {
	case s.Records > 0:
		add("server CPU, us/record", s.Server.CPU*1e6/float64(s.Records), cpuText, -1)
	case s.Requests > 0:
		add("server CPU, us/request", s.Server.CPU*1e6/float64(s.Requests), cpuText, -1)
	}
	return all
}
