package node

import (
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/storage"
)

// returnAfterStart is how long after its start a node returns the memory that only the start
// has needed.
const returnAfterStart = 2 * time.Second

// memoryShare is the percentage of the system's limit that Go's heap, stacks and code may take
// before the collector works harder. The rest is for memory of the kernel that counts too: the
// buffers of sockets, and pages of files that are not written yet.
const memoryShare = 75

// LimitMemory sets Go's memory limit by that of the system (of a container, or MemoryMax of a
// service), unless GOMEMLIMIT is set in the environment.
func LimitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := memoryLimit(os.DirFS("/")); ok {
		debug.SetMemoryLimit(limit / 100 * memoryShare)
	}
}

// machineShare is the percentage of a machine's memory that counts as available at most.
const machineShare = 50

// availableMemory is how much memory the process may use in all: Go's limit, which GOMEMLIMIT
// or LimitMemory has set, but no more than a share of the machine's memory.
func availableMemory(root fs.FS) int64 {
	limit := debug.SetMemoryLimit(-1)
	if total, ok := machineMemory(root); ok {
		limit = min(limit, total/100*machineShare)
	}
	return limit
}

// sizes are how many bytes each use of memory may take.
type sizes struct {
	available    int64 // for the whole process
	requests     int64 // receive buffers
	peers        int64 // receive buffers that clients cannot take
	work         int64 // work on requests, which budget.Budget divides into classes
	parked       int64 // requests that wait for records
	groups       int64 // the state of consumer groups
	transactions int64 // the state of transactional ids
	producers    int64 // what logs remember of idempotent producers
	sessions     int64 // incremental fetch sessions
	mirrors      int64 // answers of other clusters that are mirrored
	cleaner      int64 // the keys of a round of compaction
	sensors      int64 // what is measured of clients that have quotas
	partitions   int   // how many partitions the cluster may have; not bytes

	connections int // how many connections clients may have; not bytes
}

// budgets account for memory while the node runs.
type budgets struct {
	work      *budget.Budget          // of all memory that requests take beyond their own bytes
	producers *storage.ProducerBudget // of what logs remember of idempotent producers
}

// These divide the available memory if no setting does. All uses together fit into it, if the
// container has at least 256 MiB (TestSharesFitIn).
const (
	requestShare = 8 // receive buffers take 1/requestShare of it, with those of other nodes, within the bounds of sizesFor
	minRequests  = 16 << 20
	manyRequests = 64 << 20 // enough for a thousand busy connections without large requests
	groupShare   = 4        // groups take 1/groupShare of it, at most maxGroups
	maxGroups    = 256 << 20

	transactionShare = 32 // transactional ids take 1/transactionShare of it, at most maxTransactions
	maxTransactions  = 256 << 20

	producerShare = 16 // what logs remember of producers takes 1/producerShare of it, at most maxProducers
	maxProducers  = 256 << 20

	peerShare     = 64 // other nodes have 1/peerShare of it for their requests, at most maxPeerMemory
	maxPeerMemory = 4 << 20

	sessionShare = 40 // incremental fetch sessions take 1/sessionShare of it, at most broker.MostFetchSessionBytes

	waitingShare     = 10 // parked requests and answers of other clusters take at most 1/waitingShare of it together,
	leastParkedShare = 20 // but parked requests at least 1/leastParkedShare

	cleanerShare = 32 // the keys of a round of compaction take 1/cleanerShare of it, at most log.cleaner.dedupe.buffer.size
	minCleaner   = 1 << 20

	sensorShare = 32 // what is measured of clients that have quotas takes 1/sensorShare of it, at most maxSensors
	maxSensors  = 64 << 20

	partitionShare = 4       // partitions take 1/partitionShare of it
	partitionBytes = 2 << 10 // a partition without records: its place in the metadata, its replica and its log
	minPartitions  = 10_000  // as many as the largest request makes, however little memory there is

	// Clients' connections may take 1/connectionShare of the memory. Few nodes have so many, and
	// what they do has its own bounds, so this share is not kept from the other uses.
	connectionShare = 4
	connectionBytes = 10 << 10 // a connection with one fetch that waits: its stack, buffers and state
	minConnections  = fewConnections
)

// sizesFor divides the available memory. Settings come before the defaults. Receive buffers
// get no more than is needed to receive the largest request, which may take three quarters of
// them.
func sizesFor(available int64, s *config.Server) sizes {
	z := sizes{available: available, requests: s.RequestMemory, work: s.WorkMemory, groups: s.Groups.Memory}
	z.peers = min(available/peerShare, maxPeerMemory)
	if z.requests <= 0 {
		largest := int64(s.MaxRequestBytes)
		z.requests = max(minRequests, min(available/requestShare-z.peers, max(manyRequests, largest+largest/5*2)))
	}
	if z.work == 0 {
		z.work = budget.DefaultBytes(available, runtime.NumCPU())
	}
	z.mirrors = budget.DefaultMirrorBytes(available)
	z.parked = max(available/leastParkedShare, min(budget.DefaultParkedBytes(available), available/waitingShare-z.mirrors))
	if z.groups == 0 {
		z.groups = min(available/groupShare, maxGroups)
	}
	z.transactions = min(available/transactionShare, maxTransactions)
	z.producers = min(available/producerShare, maxProducers)
	z.sessions = min(max(available/sessionShare-minCleaner, available/sessionShare/2), broker.MostFetchSessionBytes)
	z.sensors = min(available/sensorShare, maxSensors)
	z.partitions = int(max(minPartitions, min(available/partitionShare/partitionBytes, controller.MaxPartitions)))
	z.connections = int(max(minConnections, min(available/connectionShare/connectionBytes, math.MaxInt32)))
	z.shareCleaner()
	return z
}

// shareCleaner gives the keys of a round of compaction what the other uses leave.
func (z *sizes) shareCleaner() {
	unsent := budget.New(budget.Config{Bytes: z.work}).Usage(budget.Unsent).Limit
	others := z.requests + z.peers + z.work + unsent + z.parked + z.groups + z.producers + z.sessions + z.sensors + z.mirrors + int64(z.partitions)*partitionBytes
	z.cleaner = max(minCleaner, min(z.available/cleanerShare, z.available-others))
}

// manageMemory returns unused memory to the system, once after the start and whenever the heap
// holds much more than it uses, and keeps Go's memory limit up to date.
func (n *Node) manageMemory() {
	var h heapWatch
	limit := heapLimit{original: debug.SetMemoryLimit(-1)}
	limit.apply(n)
	defer limit.restore(n)
	start := time.NewTimer(returnAfterStart)
	defer start.Stop()
	t := time.NewTicker(heapCheckEvery)
	defer t.Stop()
	for {
		select {
		case <-start.C:
			returnMemory()
			h.noteReturn(readHeap())
		case <-t.C:
			limit.apply(n)
			if h.noteUse(readHeap()) {
				returnMemory()
				h.noteReturn(readHeap())
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// heapLimit sets Go's memory limit, and the collector's pace, while a node runs that owns the
// process. It never raises the limit above the original one.
type heapLimit struct{ original int64 }

// The pace of Go's collector (GOGC) is how much garbage there may be, in percent of the live
// memory. Requests that wait for records are live for minutes and make no garbage, and nor do groups
// and answers that nobody reads, so while these hold much, as much garbage again would be a waste.
const (
	usualPace   = 100
	parkedPace  = 20
	parkedShare = 4        // parked requests hold much from 1/parkedShare of their limit on
	longHeld    = 48 << 20 // groups and unsent answers hold much from here on
)

// apply sets the limit and the pace for the present use of memory.
func (l heapLimit) apply(n *Node) {
	if n.cfg.OwnsProcess {
		debug.SetMemoryLimit(min(l.original, n.sizes.heapLimit(readLive(), n.heldForRequests())+n.linking.memory()))
		if parked := n.work.Usage(budget.Parked); os.Getenv("GOGC") == "" {
			setPace(parked.Used >= parked.Limit/parkedShare || n.groups.MemoryUsed()+n.txns.MemoryUsed()+n.work.Usage(budget.Unsent).Used >= longHeld)
		}
	}
}

// setPace sets the collector's pace unless it is set already: setting it begins a collection.
func setPace(holdsMuch bool) {
	pace := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(pace)
	want := uint64(usualPace)
	if holdsMuch {
		want = parkedPace
	}
	if pace[0].Value.Uint64() != want {
		debug.SetGCPercent(int(want))
	}
}

// restore sets the original limit and the usual pace.
func (l heapLimit) restore(n *Node) {
	if n.cfg.OwnsProcess {
		debug.SetMemoryLimit(l.original)
		if os.Getenv("GOGC") == "" {
			setPace(false)
		}
	}
}

// heldForRequests is how much memory requests hold now. Parked requests and unsent answers do
// not count: they come on top of sizes.work, so the collector must see them as part of the base.
func (n *Node) heldForRequests() int64 {
	held := n.wire.Stats().RequestMemory()
	for c := budget.Peer; c <= budget.Codec; c++ {
		held += n.work.Usage(c).Used
	}
	return held
}

// maxSlack bounds the garbage that there may be above all memory that requests may hold,
// unless the live memory without requests is large.
const maxSlack = 48 << 20

// heapLimit is the memory limit for Go's collector. It is the live memory without requests,
// and all that requests may hold, and some slack. So a flood of requests cannot leave much
// garbage, while with few requests the collector runs at its own pace, far below the limit.
// Since requests hold no more than their sizes, the limit is above the live memory by the slack
// whenever it is set. Parked requests and unsent answers that have come since then use up the
// slack, so that the collector works harder until it is set again.
func (z *sizes) heapLimit(live, held int64) int64 {
	base := max(0, live-held)
	return base + z.requests + z.peers + z.work + max(min(maxSlack, z.available/requestShare), base/2)
}

// readLive is how much memory the last collection has found live, with stacks and the memory
// of Go's runtime.
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

// These decide when memory is returned.
const (
	heapCheckEvery = 2 * time.Second
	calmChecks     = 3        // checks in a row without a collection after which the heap counts as calm
	minReturnBytes = 16 << 20 // the least growth since memory was last returned for which it is returned again
)

// heapWatch decides when memory is returned to the system. A heap in use is collected all the
// time, and Go itself returns memory that it does not need. A heap that is no longer collected
// keeps all memory of the last burst of work for minutes. So memory is returned when calmChecks
// in a row have seen no collection, if the heap holds minReturnBytes more than after the last
// return.
type heapWatch struct {
	least       int64  // the least that was held since memory was last returned
	collections uint64 // their number at the last check
	calm        int    // checks since the last collection
}

// noteUse notes the heap's present use, and returns whether memory is to be returned now.
func (h *heapWatch) noteUse(u heapUse) bool {
	h.least = min(h.least, u.held)
	if u.collections != h.collections {
		h.collections, h.calm = u.collections, 0
		return false
	}
	h.calm++
	return h.calm >= calmChecks && u.held-h.least >= minReturnBytes
}

// noteReturn notes the heap's use after memory was returned.
func (h *heapWatch) noteReturn(u heapUse) {
	h.least, h.collections, h.calm = u.held, u.collections, 0
}

// heapUse is the use of Go's memory at one moment.
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

// returnMemory returns to the system all memory that the process does not use now.
func returnMemory() {
	debug.FreeOSMemory()
	unmapProgram()
}
