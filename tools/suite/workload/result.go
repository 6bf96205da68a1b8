package workload

import (
	"fmt"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
)

// Result is the outcome of a workload.
type Result struct {
	bench.Result
	Steps     []Step // of a workload that measures several things
	RSSBefore int64  // of Idle: the server's memory without the connections
	Syscalls  int64  // of Syscalls: those of the server
}

// Step is a part of a workload that is measured by itself. A figure that a step has not
// is 0.
type Step struct {
	Name      string
	Seconds   float64
	Records   int64
	Bytes     int64 // of record batches
	Requests  int64
	ClientCPU float64
	Server    *process.Usage
	Ack       *bench.Quantiles
	EndToEnd  *bench.Quantiles
}

// Step finds a step by its name; nil where the workload has none of that name.
func (r *Result) Step(name string) *Step {
	for i := range r.Steps {
		if r.Steps[i].Name == name {
			return &r.Steps[i]
		}
	}
	return nil
}

// StepOf makes a run of the generator a step of a workload.
func StepOf(name string, r *bench.Result) Step {
	return Step{
		Name: name, Seconds: r.Seconds, Records: r.Records, Bytes: r.Bytes, Requests: r.Requests,
		ClientCPU: r.ClientCPU, Server: r.Server, Ack: r.Ack, EndToEnd: r.EndToEnd,
	}
}

// MeasureStep times do, and measures the servers meanwhile.
func MeasureStep(name string, pids []int, do func(s *Step) error) (Step, error) {
	s := Step{Name: name}
	m, err := process.Start(pids)
	if err != nil {
		return s, err
	}
	m.Begin()
	if err := do(&s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	m.End()
	s.Seconds, s.ClientCPU = m.Seconds, m.OwnCPU
	s.Server, err = m.Usage()
	return s, err
}

// AddSteps makes the workload's own figures those of its steps together.
func (r *Result) AddSteps() {
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
			r.Server = &process.Usage{}
		}
		r.Server.CPU += s.Server.CPU
		r.Server.Written += s.Server.Written
		r.Server.RSS, r.Server.PeakRSS = s.Server.RSS, max(r.Server.PeakRSS, s.Server.PeakRSS)
	}
}
