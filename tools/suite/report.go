package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/tools/suite/workload"
)

// report is the outcome of a suite: figures, not text. It is kept beside the
// document, so that single workloads can be measured again.
type report struct {
	takenOn                                 // of the last run of all workloads
	Command   string                        `json:"command"`
	Programs  []about                       `json:"programs"`
	NoCalls   string                        `json:"no_calls,omitempty"` // why system calls were not counted
	Workloads map[string]map[string]*series `json:"workloads"`          // by the workload's name and the contender's
	Taken     map[string]takenOn            `json:"taken"`              // by the workload's name
}

// takenOn says when, where and how something was measured.
type takenOn struct {
	Date      string  `json:"date"` // to the second, when the run began: it names the run
	Machine   string  `json:"machine"`
	Rounds    int     `json:"rounds"`
	Run       string  `json:"run"`
	MostBytes int64   `json:"most_bytes"`
	Seconds   float64 `json:"seconds,omitempty"` // that a workload took
}

// like tells whether both were measured in the same way.
func (t *takenOn) like(o *takenOn) bool {
	return t.Machine == o.Machine && t.Rounds == o.Rounds && t.Run == o.Run && t.MostBytes == o.MostBytes
}

// about is how a program was run, or why it was not.
type about struct {
	Name    string `json:"name"`
	Command string `json:"command,omitempty"`
	Missing string `json:"missing,omitempty"`
}

// series is how one contender did in one workload: of each figure its value in
// each round.
type series struct {
	Figures map[string][]float64 `json:"figures"`
	Behind  int                  `json:"behind,omitempty"` // rounds in which it could not keep up
	Why     string               `json:"why,omitempty"`    // it has no figures
}

// unmeasured stands in a series for a round without a figure: no figure is
// negative, and JSON has no NaN.
const unmeasured = -1

// add appends a round; a nil result is one that has no figures.
func (s *series) add(figures []figure, r *workload.Result) {
	if s.Figures == nil {
		s.Figures = map[string][]float64{}
	}
	for _, f := range figures {
		v := float64(unmeasured)
		if r != nil {
			if x := f.value(r); !math.IsNaN(x) && !math.IsInf(x, 0) {
				v = max(0, x)
			}
		}
		s.Figures[f.name] = append(s.Figures[f.name], v)
	}
}

// values is a contender's rounds of a figure, nil where there are none.
func (r *report) values(workload, contender, figure string) []float64 {
	s := r.Workloads[workload][contender]
	if s == nil {
		return nil
	}
	return s.Figures[figure]
}

func (r *report) set(workload, contender string, s *series) {
	if r.Workloads == nil {
		r.Workloads = map[string]map[string]*series{}
	}
	if r.Workloads[workload] == nil {
		r.Workloads[workload] = map[string]*series{}
	}
	r.Workloads[workload][contender] = s
}

func (r *report) save(name string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

// write writes the document, its plots and the figures. Text that people have
// written below the document's last line stays.
func (r *report) write(document, beside string) error {
	for name, svg := range r.plots() {
		if err := os.WriteFile(filepath.Join(beside, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	text := r.document(filepath.Base(beside))
	old, err := os.ReadFile(document)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, notes, ok := strings.Cut(string(old), kept+"\n"); ok {
		text += notes
	}
	return os.WriteFile(document, []byte(text), 0o644)
}

// loadReport reads the report of an earlier suite.
func loadReport(name string) (*report, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s is no report of a suite: %w", name, err)
	}
	if r.Taken == nil {
		r.Taken = map[string]takenOn{}
	}
	for w := range r.Workloads { // older reports tell of the run only
		if _, ok := r.Taken[w]; !ok {
			r.Taken[w] = r.takenOn
		}
	}
	return r, nil
}

// machine describes the processor and the system.
func machine() string {
	cpu := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimSpace(strings.TrimLeft(name, " \t:"))
				break
			}
		}
	}
	parts := []string{cpu, fmt.Sprintf("%d cores", runtime.NumCPU())}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib float64
		if n, _ := fmt.Sscanf(string(info), "MemTotal: %f kB", &kib); n == 1 {
			parts = append(parts, bench.FormatDigits(kib/(1<<20))+" GiB")
		}
	}
	system := runtime.GOOS
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system += " " + strings.TrimSpace(string(release))
	}
	parts = append(parts, system)
	if cc, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		parts = append(parts, "TCP "+strings.TrimSpace(string(cc)))
	}
	return strings.Join(append(parts, runtime.Version()), ", ")
}

func now() string { return time.Now().Format(time.DateTime) }
