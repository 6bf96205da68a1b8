package node

import (
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// settleAfter is how long after its start a node gives back what only that needed.
const settleAfter = 2 * time.Second

// memoryShare is how many hundredths of the memory that the system allows Go's heap,
// stacks and code may take before the collector works harder. The rest is for what the
// kernel charges too: the buffers of sockets, and pages of files that wait to be written.
const memoryShare = 75

// LimitMemory sets Go's memory limit by what the system allows (a container's limit,
// MemoryMax of a service), unless GOMEMLIMIT is set in the environment. The collector's
// pace otherwise stays Go's own: no workload of the suite spends 1 % in it.
func LimitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := memoryLimit(os.DirFS("/")); ok {
		debug.SetMemoryLimit(limit / 100 * memoryShare)
	}
}

// machineShare is how many hundredths of a machine's memory count as available where
// nothing limits the process.
const machineShare = 50

// availableMemory is how much memory the process may use in all: Go's limit, which is
// that of GOMEMLIMIT or LimitMemory's, or else a share of the machine's.
func availableMemory(root fs.FS) int64 {
	limit := debug.SetMemoryLimit(-1)
	if total, ok := machineMemory(root); ok {
		limit = min(limit, total/100*machineShare)
	}
	return limit
}

// newBudget makes the budget of all work memory, as the settings have it.
func newBudget(bytes int64) *budget.Budget {
	if bytes == 0 {
		bytes = budget.DefaultBytes(availableMemory(os.DirFS("/")), runtime.NumCPU())
	}
	return budget.New(budget.Config{Bytes: bytes})
}

// settle returns memory to the system that the process does not use: once after the
// start, and whenever the heap has kept much more than it uses.
func (n *Node) settle() {
	var h heap
	start := time.NewTimer(settleAfter)
	defer start.Stop()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-start.C:
			giveBack()
			h.settled(readHeap())
		case <-t.C:
			if h.look(readHeap()) {
				giveBack()
				h.settled(readHeap())
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// How the heap is looked at.
const (
	lookEvery  = 2 * time.Second
	calmLooks  = 3        // looks without a collection until the heap counts as calm
	worthBytes = 16 << 20 // what must have come since memory was last returned, for that to be worth it
)

// heap decides when memory is returned to the system. A heap that is in use is
// collected all the time, and Go's own pace keeps what it holds in proportion to
// what is live; it returns what it does not need. A heap that is not collected any
// more keeps all that the last burst of work took, for minutes. Whether bytes go
// over the network says nothing about either.
//
//	busy --a collection, or little to return--> busy
//	     --calmLooks without a collection, and worthBytes more than after the last return--> return
type heap struct {
	least       int64  // held after memory was last returned
	collections uint64 // at the last look
	calm        int    // looks since the last collection
}

// look tells whether memory is to be returned now.
func (h *heap) look(u heapUse) bool {
	h.least = min(h.least, u.held)
	if u.collections != h.collections {
		h.collections, h.calm = u.collections, 0
		return false
	}
	h.calm++
	return h.calm >= calmLooks && u.held-h.least >= worthBytes
}

// settled takes down what is held when memory was returned.
func (h *heap) settled(u heapUse) {
	h.least, h.collections, h.calm = u.held, u.collections, 0
}

// heapUse is what Go's memory is at one moment.
type heapUse struct {
	held        int64 // bytes of heap and stacks that the system counts as the process's
	collections uint64
}

func readHeap() heapUse {
	s := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
	}
	metrics.Read(s)
	u := heapUse{collections: s[0].Value.Uint64()}
	for i := range s[1:] {
		u.held += int64(s[1+i].Value.Uint64())
	}
	return u
}

// giveBack returns to the system what the process does not use now.
func giveBack() {
	debug.FreeOSMemory()
	dropImage()
}
