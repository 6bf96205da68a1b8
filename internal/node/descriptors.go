package node

import (
	"fmt"

	"github.com/leatstream/leat/internal/vfs"
)

// descriptors says how many file descriptors each part of a node may have. What is left of
// the limit is a reserve that clients cannot take: for the metadata log, the journal,
// checkpoints, indexes, and whatever the process had open before.
type descriptors struct {
	limit       int // of the process
	logs        int // segment files that stay open
	connections int // of clients
	http        int // connections to the HTTP port
}

const (
	// leastDescriptors is the limit below which a node does not start.
	leastDescriptors = 48

	leastReserve, mostReserve = 32, 128 // a node without clients has about 32 open: half of them the journal's
	leastLogs, mostLogs       = 8, 8192
	leastHTTP, mostHTTP       = 4, 64

	// fewConnections is the number of connections below which the operator is told at the
	// start how few there are.
	fewConnections = 1000
)

// shareDescriptors divides a process's limit of open files.
func shareDescriptors(limit int) (descriptors, error) {
	if limit < leastDescriptors {
		return descriptors{}, fmt.Errorf("%w: this process may have %d open files, and needs at least %d to run; %s",
			ErrConfig, limit, leastDescriptors, raiseDescriptors)
	}
	d := descriptors{limit: limit, http: clamp(limit/32, leastHTTP, mostHTTP)}
	left := limit - clamp(limit/4, leastReserve, mostReserve) - d.http
	d.logs = clamp(left/3, leastLogs, mostLogs)
	d.connections = left - d.logs
	return d, nil
}

// raiseDescriptors says how a process gets more of them.
const raiseDescriptors = "raise the limit of open files (ulimit -n, or LimitNOFILE= in a systemd unit)"

func clamp(n, least, most int) int { return max(least, min(n, most)) }

// planDescriptors shares out what the system lets this process have: Go's runtime has raised
// the soft limit to the hard one. Where the system has no limit, all shares are 0.
func (n *Node) planDescriptors() error {
	limit, ok := vfs.OpenFileLimit()
	if !ok {
		return nil
	}
	var err error
	if n.descriptors, err = shareDescriptors(limit); err != nil {
		return err
	}
	if d := n.descriptors; d.connections < fewConnections {
		n.loggers.logger("wire").Warn("few files may be open, so that few clients can connect; "+raiseDescriptors,
			"limit", d.limit, "connections", d.connections, "segment_files", d.logs)
	}
	return nil
}
