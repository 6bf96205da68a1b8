package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/storage"
)

// health is the state of a node's health. A node that is not ready can serve no client, and
// an orchestrator should send it none. A degraded node serves a part of the requests, often
// reads and deletions, which its operator needs then: so it is ready, and must neither lose
// its clients nor be restarted.
type health struct {
	unready  error    // nil: it is ready
	degraded []string // sentences for the operator, one for each thing that does not work
}

// maxFaultsNamed is how many of the logs with a fault /readyz names.
const maxFaultsNamed = 10

// checkHealth returns the present health.
func (n *Node) checkHealth() (h health) {
	degraded := func(format string, args ...any) { h.degraded = append(h.degraded, fmt.Sprintf(format, args...)) }
	switch n.quorum.Status().State {
	case quorum.Faulted:
		h.unready = quorum.ErrFaulted
	case quorum.Ended:
		h.unready = n.quorum.Err()
	case quorum.Full:
		degraded("the metadata log has no room: topics and configs cannot be changed until there is room on the disk")
	default:
	}
	if contactOf(n) != broker.InContact {
		silence := n.clock() - time.Duration(n.sessionEnds.Load()) + n.serverSettings().SessionTimeout*3/4
		degraded("the active controller has not been heard from for %v: other nodes may lead the partitions of this one, so it refuses records for those that have other replicas", silence.Truncate(time.Second))
	}
	if remark := n.clocks.describeDifference(); remark != "" {
		degraded("%s", remark)
	}
	if n.store.IsFull() {
		degraded("the disk is full: records are refused until there is room; free some space or delete topics")
	}
	faults := n.store.Faults()
	isRefused := func(f storage.LogFault) bool { return f.Kind == storage.LogRefused }
	if refused := slices.DeleteFunc(slices.Clone(faults), func(f storage.LogFault) bool { return !isRefused(f) }); len(refused) > 0 {
		degraded("the files of %s could not be used when a client last tried: %s", formatCount(len(refused), "log", "logs"), describeFaults(refused))
	}
	if faults = slices.DeleteFunc(faults, isRefused); len(faults) > 0 {
		degraded("%s read-only: %s", formatCount(len(faults), "log is", "logs are"), describeFaults(faults))
	}
	if uncut := describeUncut(n.set); uncut != "" {
		degraded("%s", uncut)
	}
	if err := n.store.Damage(); err != nil {
		degraded("%v", err)
	}
	switch strays := n.store.Strays(); {
	case strays == 1:
		degraded("1 directory of a topic that the metadata do not know was set aside; its name ends with -stray")
	case strays > 1:
		degraded("%d directories of topics that the metadata do not know were set aside; their names end with -stray", strays)
	}
	return h
}

// formatCount writes a number and what it counts.
func formatCount(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func describeFaults(faults []storage.LogFault) string {
	var b strings.Builder
	for i, f := range faults {
		switch {
		case i == maxFaultsNamed:
			fmt.Fprintf(&b, "; and %d more", len(faults)-i)
			return b.String()
		case i > 0:
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s (%v)", f.Log, f.Err)
	}
	return b.String()
}
