package process

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestProcess proves that this process's own figures are read from the system.
func TestProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	pids := []int{os.Getpid()}
	now, peak, err := Memory(pids)
	if err != nil || now < 1<<20 || peak < now/2 {
		t.Errorf("%d, %d, %v", now, peak, err)
	}
	before := OwnCPU()
	for OwnCPU()-before < 50*time.Millisecond {
		now++
	}
	if cpu, err := CPU(pids); err != nil || cpu < 40*time.Millisecond || cpu > OwnCPU()+time.Second {
		t.Errorf("%v, %v", cpu, err)
	}
	if _, err := CPU([]int{1 << 30}); err == nil || !strings.Contains(err.Error(), "no process") {
		t.Error(err)
	}
}

// TestMeter proves that a meter counts the use between Begin and End, and that a meter from a
// process's start counts all that the process has used.
func TestMeter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	born := time.Now()
	pids := []int{os.Getpid()}
	burn := func(d time.Duration) {
		for before := OwnCPU(); OwnCPU()-before < d; {
			continue
		}
	}
	burn(30 * time.Millisecond)
	m, err := Start(pids)
	if err != nil {
		t.Fatal(err)
	}
	m.Begin()
	burn(20 * time.Millisecond)
	m.End()
	u, err := m.Usage()
	if err != nil || m.OwnCPU < 0.02 || u.CPU < 0.015 || m.Seconds <= 0 || u.RSS == 0 {
		t.Errorf("%+v, %+v, %v", m, u, err)
	}
	all := StartAtBirth(pids, born)
	all.End()
	if whole, err := all.Usage(); err != nil || whole.CPU < u.CPU+0.02 || all.Seconds < m.Seconds {
		t.Errorf("%+v, %+v, %v", all, whole, err)
	}
	if none, err := Start(nil); err != nil {
		t.Error(err)
	} else if u, err := none.Usage(); u != nil || err != nil {
		t.Error("a meter without processes has measured something:", u, err)
	}
}
