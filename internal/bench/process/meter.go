// Package process measures how much CPU, memory and disk processes of this machine use: this
// process and those of a server. A Meter belongs to one goroutine; the functions may be called
// by any.
package process

import (
	"errors"
	"time"
)

// Usage is how much processes have used in a period.
type Usage struct {
	CPU     float64 `json:"cpu_s"`
	RSS     int64   `json:"rss_bytes"` // at the end
	PeakRSS int64   `json:"peak_rss_bytes"`
	Written int64   `json:"written_bytes"` // to the disk, or to the page cache on the way there
}

// Meter measures one period. Its calls are Start, Begin, End, and then Usage.
type Meter struct {
	Seconds float64 // from Begin to End
	OwnCPU  float64 // seconds that this process has used from Begin to End

	pids    []int
	began   time.Time
	own     time.Duration
	cpu     time.Duration // used up to Start; after End, used from Start to End
	written int64         // bytes, in the same way
	err     error         // of End
}

// Start makes a meter for processes. Without any it measures only this process.
func Start(pids []int) (*Meter, error) {
	cpu, err := CPU(pids)
	if err != nil {
		return nil, err
	}
	return &Meter{pids: pids, cpu: cpu, written: bytesWritten(pids)}, nil
}

// StartAtBirth makes a meter for processes that were started at the time born. It counts all
// that they have used since then.
func StartAtBirth(pids []int, born time.Time) *Meter {
	return &Meter{pids: pids, began: born, own: OwnCPU()}
}

// Begin starts the clock.
func (m *Meter) Begin() { m.began, m.own = time.Now(), OwnCPU() }

// End stops the clock.
func (m *Meter) End() {
	m.Seconds = time.Since(m.began).Seconds()
	m.OwnCPU = (OwnCPU() - m.own).Seconds()
	var cpu time.Duration
	cpu, m.err = CPU(m.pids)
	m.cpu, m.written = cpu-m.cpu, bytesWritten(m.pids)-m.written
}

// Usage is how much the processes have used until End; nil if the meter has none.
func (m *Meter) Usage() (*Usage, error) {
	if len(m.pids) == 0 {
		return nil, nil //nolint:nilnil // a meter without processes is no failure
	}
	now, peak, err := Memory(m.pids)
	if err = errors.Join(m.err, err); err != nil {
		return nil, err
	}
	return &Usage{CPU: m.cpu.Seconds(), RSS: now, PeakRSS: peak, Written: m.written}, nil
}
