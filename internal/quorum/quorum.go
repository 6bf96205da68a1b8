// Package quorum hosts the metadata quorum on etcd's raft library: log on disk,
// snapshots, membership; it proposes entries and hands on what was committed.
package quorum

import (
	"context"
	"errors"
	"log/slog"

	"github.com/leatstream/leat/internal/vfs"
)

// ErrNotLeader is returned for a proposal that this node cannot make, or that was
// lost with leadership; it may or may not have been committed.
var ErrNotLeader = errors.New("quorum: not the leader")

// Config says how a node takes part.
type Config struct {
	ID     int32 // of this node; raft's id is ID+1, since raft reserves 0
	Dir    string
	FS     vfs.FS
	Logger *slog.Logger
	// Apply gets committed updates in order, on the node's own goroutine, before
	// the Propose that made them returns.
	Apply func(Update)
	// Snapshot returns the whole state after the last Apply, encoded. It is called
	// on the node's own goroutine when the log has grown enough.
	Snapshot func() []byte
	// SnapshotBytes is how much log triggers a snapshot; 0 means 16 MiB.
	SnapshotBytes int64
}

// Update is what was committed: first a snapshot that replaces all state (nil
// where there is none), then entries.
type Update struct {
	Snapshot []byte
	Entries  []Entry
}

// Entry is one committed proposal.
type Entry struct {
	Index uint64
	Term  uint64
	Data  []byte
}

// Status is what DescribeQuorum shows.
type Status struct {
	Leader  int32 // -1: none known
	Term    uint64
	Voters  []int32
	Commit  uint64
	Applied uint64
}

// Node is one voter.
type Node struct{}

// Open recovers or bootstraps the node. When it returns, everything committed
// earlier has been applied, and a sole voter is the leader.
func Open(cfg Config) (*Node, error) { panic("BUG: not built") }

// Propose returns when data was committed, is on disk, and has been applied.
func (n *Node) Propose(ctx context.Context, data []byte) error { panic("BUG: not built") }

// Status describes the quorum as this node sees it.
func (n *Node) Status() Status { panic("BUG: not built") }

// Close stops the node; proposals under way fail with ErrNotLeader.
func (n *Node) Close() error { panic("BUG: not built") }
