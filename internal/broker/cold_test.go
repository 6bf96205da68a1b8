package broker

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/vfs"
)

// watchedFS calls a function before it lists a directory, which opening a log does.
type watchedFS struct {
	*vfs.Mem

	listing func(dir string)
}

func (f *watchedFS) ReadDir(dir string) ([]vfs.Info, error) {
	f.listing(dir)
	return f.Mem.ReadDir(dir)
}

// TestColdLogsAreOpenedWithoutATurn proves that a request for many partitions holds no processor
// while it opens their logs, which may wait for the disk.
func TestColdLogsAreOpenedWithoutATurn(t *testing.T) {
	const partitions = 2 * stretch
	var g *rig
	var opened, held atomic.Int32
	fs := &watchedFS{Mem: vfs.NewMem(), listing: func(dir string) {
		if !strings.Contains(dir, "cold-") {
			return
		}
		opened.Add(1)
		var done atomic.Bool
		var entering sync.WaitGroup
		entering.Go(func() {
			g.work.Enter(budget.Codec)
			g.work.Leave()
			done.Store(true)
		})
		for !done.Load() {
			if g.work.WaitingTurns() > 0 { // nobody else uses a processor here
				held.Add(1)
				return
			}
			runtime.Gosched()
		}
		entering.Wait()
	}}
	g = newRigOn(t, fs, "data")
	c := dial(t, g.addr)
	g.topic("cold-fetch", partitions)
	fetch := get("cold-fetch", 0, 0)
	g.topic("cold-describe", partitions)
	describe := kmsg.NewPtrDescribeProducersRequest()
	described := kmsg.DescribeProducersRequestTopic{Topic: "cold-describe", Partitions: []int32{0}}
	for i := int32(1); i < partitions; i++ {
		wantPart(fetch, "cold-fetch", i, 0)
		described.Partitions = append(described.Partitions, i)
	}
	describe.Topics = append(describe.Topics, described)
	ask[*kmsg.FetchResponse](c, fetch)
	ask[*kmsg.DescribeProducersResponse](c, describe)
	if opened.Load() < 2*partitions || held.Load() > 0 {
		t.Errorf("of %d logs, %d were opened by work that held a processor", opened.Load(), held.Load())
	}
}
