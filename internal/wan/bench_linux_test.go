package wan_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/wan"
)

// BenchmarkStream sends bytes from a process in one site to a process in another one, by 1 and by 16 connections with the socket buffers that the kernel
// gives them, after a round that has warmed them up. "within a site" has no emulator between the ends. It reports the CPU seconds for each GB: those of this process, which are the emulator's
// and of the kernel when it takes packets from it, and those of the two ends.
func BenchmarkStream(b *testing.B) {
	for _, kind := range []wan.Kind{wan.Namespaces, wan.Proxies} {
		for _, c := range []struct {
			name     string
			settings wan.Settings
			isWithin bool
		}{
			{name: "within a site", isWithin: true},
			{name: "no delay"},
			{name: "80 ms", settings: wan.Settings{Delay: 40 * time.Millisecond}},
			{name: "200 ms", settings: wan.Settings{Delay: 100 * time.Millisecond}},
			{name: "80 ms, 100 MB a second", settings: wan.Settings{Delay: 40 * time.Millisecond, Rate: 100e6, Queue: 8 << 20}},
		} {
			for _, connections := range []int{1, 16} {
				b.Run(fmt.Sprintf("%v/%s/%d", kind, c.name, connections), func(b *testing.B) {
					n := makeNetwork(b, wan.Config{Sites: []string{"a", "b"}, Kind: kind})
					from, to := n.Site("a"), n.Site("b")
					if c.isWithin {
						from = to
					}
					n.Set(n.Site("a"), n.Site("b"), c.settings)
					n.Set(n.Site("b"), n.Site("a"), wan.Settings{Delay: c.settings.Delay})
					measureStream(b, from, to, connections)
					if k := n.Counters(n.Site("a"), n.Site("b")); k.Overflowed > 0 {
						b.ReportMetric(float64(k.Overflowed)/float64(b.N), "overflowed/op")
					}
				})
			}
		}
	}
}

func measureStream(b *testing.B, from, to *wan.Site, connections int) {
	b.Helper()
	sink := startJob(b, to, "sink", to.At(7000))
	sink.await("ready")
	reach, err := from.Reach(b.Context(), to, 7000)
	if err != nil {
		b.Fatal(err)
	}
	source := startJob(b, from, "source "+strconv.Itoa(connections), reach)
	source.await("ready")
	source.ask("send")
	source.await("sent")
	meter, err := process.Start([]int{sink.cmd.Process.Pid, source.cmd.Process.Pid})
	if err != nil {
		b.Fatal(err)
	}
	meter.Begin()
	b.SetBytes(transferBytes)
	for b.Loop() {
		source.ask("send")
		source.await("sent")
	}
	meter.End()
	ends, err := meter.Usage()
	if err != nil {
		b.Fatal(err)
	}
	gigabytes := float64(b.N) * transferBytes / 1e9
	b.ReportMetric(meter.OwnCPU/gigabytes, "emulator-cpu-s/GB")
	b.ReportMetric(ends.CPU/gigabytes, "ends-cpu-s/GB")
}
