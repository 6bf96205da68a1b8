package node

import (
	"os"
	"runtime/debug"
	"time"
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

// settle gives back, once, what the start has taken and an idle node does not need.
func (n *Node) settle() {
	t := time.NewTimer(settleAfter)
	defer t.Stop()
	select {
	case <-t.C:
		giveBack()
	case <-n.ctx.Done():
	}
}

// giveBack returns to the system what the process does not use now. It is called
// when traffic has ceased: free memory stays with the process until a garbage
// collection otherwise, which an idle heap never asks for.
func giveBack() {
	debug.FreeOSMemory()
	dropImage()
}
