package node

import (
	"fmt"
	"log/slog"

	"github.com/leatstream/leat/internal/vfs"
)

// descriptors divides the file descriptors of the process between the parts of a node. The
// rest of the limit is a reserve that clients cannot take: for the metadata log, the journal,
// checkpoints, indexes, and files that the process had open before.
type descriptors struct {
	limit       int // of the process
	logs        int // segment files that stay open
	connections int // of clients
	peers       int // connections of other nodes that have proven to be ones
	waiting     int // connections beyond those of clients that may prove it
	http        int // connections to the HTTP port
}

const (
	// A node does not start if the process may have fewer than minDescriptors.
	minDescriptors = 48

	minReserve, maxReserve = 32, 128 // a node without clients has about 32 open: half of them the journal's
	minLogs, maxLogs       = 8, 8192
	minHTTP, maxHTTP       = 4, 64
	maxPeers, maxWaiting   = 64, 16 // with few descriptors there are fewer of them, or none

	// A start logs a warning if the node may have fewer than fewConnections connections.
	fewConnections = 1000
)

// shareDescriptors divides a process's limit of open files.
func shareDescriptors(limit int) (descriptors, error) {
	if limit < minDescriptors {
		return descriptors{}, fmt.Errorf("%w: this process may have %d open files, and needs at least %d to run; %s",
			ErrConfig, limit, minDescriptors, raiseDescriptors)
	}
	d := descriptors{limit: limit, http: clamp(limit/32, minHTTP, maxHTTP)}
	left := limit - clamp(limit/4, minReserve, maxReserve) - d.http
	d.peers, d.waiting = min(left/16, maxPeers), min(left/32, maxWaiting)
	left -= d.peers + d.waiting
	d.logs = clamp(left/3, minLogs, maxLogs)
	d.connections = left - d.logs
	return d, nil
}

// raiseDescriptors tells the operator how a process gets more descriptors.
const raiseDescriptors = "raise the limit of open files (ulimit -n, or LimitNOFILE= in a systemd unit)"

func clamp(n, least, most int) int { return max(least, min(n, most)) }

// planDescriptors divides the descriptors that this process may have; Go's runtime has raised
// the soft limit to the hard one. If the system has no limit, the shares are 0, which stands for none,
// but those of other nodes.
func planDescriptors(log *slog.Logger) (descriptors, error) {
	limit, ok := vfs.OpenFileLimit()
	if !ok {
		return descriptors{peers: maxPeers, waiting: maxWaiting}, nil
	}
	d, err := shareDescriptors(limit)
	if err == nil && d.connections < fewConnections {
		log.Warn("this process may have few files open, so only few clients can connect; "+raiseDescriptors,
			"limit", d.limit, "connections", d.connections, "segment_files", d.logs)
	}
	return d, err
}
