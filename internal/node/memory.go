package node

import (
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
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

// sizes are how many bytes each kind of work may take, in a process that may use
// available bytes in all.
type sizes struct {
	available int64
	requests  int64 // receive buffers
	work      int64 // see budget
	parked    int64 // requests that wait for records
	groups    int64 // what consumer groups keep
}

// How the memory that is available is shared, where the settings do not say.
const (
	requestShare  = 8 // receive buffers take one part in so many,
	leastRequests = 16 << 20
	manyRequests  = 64 << 20 // enough for a thousand busy connections, where no request is large
	groupShare    = 4        // and groups one in so many,
	mostGroups    = 256 << 20
)

// sizesFor shares the memory that is available, as far as the settings leave it open.
// Receive buffers take no more than the largest request needs: a request may take
// three quarters of them.
func sizesFor(available int64, s *config.Server) sizes {
	z := sizes{available: available, requests: s.RequestMemory, work: s.WorkMemory, groups: s.Groups.Memory}
	if z.requests <= 0 {
		largest := int64(s.MaxRequestBytes)
		z.requests = max(leastRequests, min(available/requestShare, max(manyRequests, largest+largest/5*2)))
	}
	if z.work == 0 {
		z.work = budget.DefaultBytes(available, runtime.NumCPU())
	}
	z.parked = budget.DefaultParkedBytes(available)
	if z.groups == 0 {
		z.groups = min(available/groupShare, mostGroups)
	}
	return z
}

// settle returns memory to the system that the process does not use: once after the
// start, and whenever the heap has kept much more than it uses.
func (n *Node) settle() {
	var h heap
	limit := heapLimit{outer: debug.SetMemoryLimit(-1)}
	limit.set(n)
	defer limit.lift(n)
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
			limit.set(n)
			if h.look(readHeap()) {
				giveBack()
				h.settled(readHeap())
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// heapLimit sets Go's memory limit for as long as a node runs that has the process to
// itself. It never raises the limit of the environment or the container.
type heapLimit struct{ outer int64 }

// The pace of Go's collector, GOGC: how much garbage there may be, in hundredths of what is
// live. Requests that wait for records are live for minutes and make no garbage, so where
// they hold much, as much garbage again would be waste.
const (
	usualPace  = 100
	parkedPace = 33
	muchParked = 4 // one part in so many of what parked requests may hold
)

func (l heapLimit) set(n *Node) {
	if n.cfg.OwnsProcess {
		debug.SetMemoryLimit(min(l.outer, n.sizes.limitHeap(readLive(), n.heldForRequests())))
		if parked := n.work.Usage(budget.Parked); os.Getenv("GOGC") == "" {
			setPace(parked.Used >= parked.Limit/muchParked)
		}
	}
}

// setPace sets the collector's pace, unless it is set already: that would begin a collection.
func setPace(parked bool) {
	pace := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(pace)
	want := uint64(usualPace)
	if parked {
		want = parkedPace
	}
	if pace[0].Value.Uint64() != want {
		debug.SetGCPercent(int(want))
	}
}

func (l heapLimit) lift(n *Node) {
	if n.cfg.OwnsProcess {
		debug.SetMemoryLimit(l.outer)
		if os.Getenv("GOGC") == "" {
			setPace(false)
		}
	}
}

// heldForRequests is how much requests hold now, but for those that are parked: they may for
// minutes, so that the collector counts them as what is live without requests.
func (n *Node) heldForRequests() int64 {
	held := n.wire.Stats().RequestMemory()
	for c := budget.Peer; c <= budget.Codec; c++ {
		held += n.work.Usage(c).Used
	}
	return held
}

// mostSlack is how much garbage there may be beside all that requests may hold, unless
// what is live without them is large.
const mostSlack = 48 << 20

// limitHeap is the memory limit with which Go's collector keeps the garbage of a flood
// of requests within what requests may hold. It allows for all of that, beside what is
// live without them; where requests hold little the collector runs at its own pace,
// long before the limit. It is never less than what is live and the slack, since
// requests cannot hold more than their sizes.
func (z *sizes) limitHeap(live, held int64) int64 {
	base := max(0, live-held)
	return base + z.requests + z.work + max(min(mostSlack, z.available/requestShare), base/2)
}

// readLive is how much memory the last collection found live, with stacks and what
// Go needs beside.
func readLive() int64 {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s)
	live := int64(s[0].Value.Uint64() + s[1].Value.Uint64())
	for i := range s[2:] {
		live -= int64(s[2+i].Value.Uint64())
	}
	return live
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
