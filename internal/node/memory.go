package node

import (
	"runtime/debug"
	"time"
)

// settleAfter is how long after its start a node gives back what only that needed.
const settleAfter = 2 * time.Second

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
