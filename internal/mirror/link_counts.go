package mirror

import (
	"context"
	"errors"
	"sync/atomic"
)

// linkCounts are what a node counts of a link since it knows of it.
type linkCounts struct {
	bytes, records  atomic.Int64 // that were appended
	connections     atomic.Int64 // that were made with the source
	unconnected     atomic.Int64 // that could not be made
	failedRequests  atomic.Int64
	cuts            atomic.Int64
	putBack         atomic.Int64 // configs of mirrors
	accessChanges   atomic.Int64 // ACLs and quotas
	checkedProblems atomic.Int64 // that the last check has found, and 1 more; 0: there was none
}

// countDial counts a connection, or a try.
func (c *linkCounts) countDial(err error) {
	switch {
	case err == nil:
		c.connections.Add(1)
	case !errors.Is(err, context.Canceled):
		c.unconnected.Add(1)
	}
}

// countRequest counts a request that has failed, but not one that was given up since the session has ended.
func (c *linkCounts) countRequest(session context.Context, err error) {
	if err != nil && session.Err() == nil {
		c.failedRequests.Add(1)
	}
}
