// Package process measures what processes of this machine use, this one and those of
// a server: CPU, memory and bytes given to the disk. A Meter belongs to one goroutine.
package process

import (
	"errors"
	"time"
)

// Usage is what processes used during a stretch of time.
type Usage struct {
	CPU     float64 `json:"cpu_s"`
	RSS     int64   `json:"rss_bytes"` // at the end
	PeakRSS int64   `json:"peak_rss_bytes"`
	Written int64   `json:"written_bytes"` // handed to the disk, or to the page cache to go there
}

// Meter measures one stretch of time: Start, Begin, End, and then Usage.
type Meter struct {
	Seconds float64 // from Begin to End
	OwnCPU  float64 // seconds that this process used meanwhile

	pids    []int
	began   time.Time
	own     time.Duration
	cpu     time.Duration // at Start, and from End on what was used
	written int64         // as cpu
	err     error         // of End
}

// Start makes a meter for processes; without any it measures this one only.
func Start(pids []int) (*Meter, error) {
	cpu, err := CPU(pids)
	if err != nil {
		return nil, err
	}
	return &Meter{pids: pids, cpu: cpu, written: written(pids)}, nil
}

// StartAtBirth makes a meter for processes that have been there since a time, and
// counts all that they have used.
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
	m.cpu, m.written = cpu-m.cpu, written(m.pids)-m.written
}

// Usage is what the processes used until End, nil where none is measured.
func (m *Meter) Usage() (*Usage, error) {
	if len(m.pids) == 0 {
		return nil, nil //nolint:nilnil // no process is no failure
	}
	now, peak, err := Memory(m.pids)
	if err = errors.Join(m.err, err); err != nil {
		return nil, err
	}
	return &Usage{CPU: m.cpu.Seconds(), RSS: now, PeakRSS: peak, Written: m.written}, nil
}
