package replica

import (
	"errors"

	"github.com/leatstream/leat/internal/storage"
)

// What the door itself refuses.
var (
	// ErrNotLeader is returned where this node does not lead the partition, or has ceased to.
	ErrNotLeader = errors.New("not the leader of the partition")
	// ErrNotEnoughReplicas is returned where fewer replicas are in sync than min.insync.replicas asks for.
	ErrNotEnoughReplicas = errors.New("not enough replicas in sync")
	// ErrFencedEpoch is returned where the asker knows an older leader epoch than this node.
	ErrFencedEpoch = errors.New("leader epoch is older than the current one")
	// ErrUnknownEpoch is returned where the asker knows a newer leader epoch than this node.
	ErrUnknownEpoch = errors.New("leader epoch is newer than the current one")
	// ErrTimedOut ends a wait whose deadline has passed.
	ErrTimedOut = errors.New("timed out waiting for the in-sync replicas")
)

// What the log behind the door refuses. Nobody above needs to know that there is one.
var (
	// ErrOffsetOutOfRange is returned for an offset below the partition's start or beyond its end.
	ErrOffsetOutOfRange = storage.ErrOffsetOutOfRange
	// ErrOutOfOrderSequence is returned for a batch whose producer sequence does not follow.
	ErrOutOfOrderSequence = storage.ErrOutOfOrderSequence
	// ErrProducerFenced is returned for a batch with an older producer epoch than one seen before.
	ErrProducerFenced = storage.ErrProducerFenced
	// ErrDiskFull is returned for an append that finds no room; nothing was stored.
	ErrDiskFull = storage.ErrDiskFull
	// ErrBusy is returned where the system lacks files or memory for a moment; nothing was stored.
	ErrBusy = storage.ErrBusy
	// ErrFaulted is returned by a partition whose log met damage or a failed sync: it can only be read.
	ErrFaulted = storage.ErrFaulted
	// ErrClosed is returned where the partition was deleted, or its node stops.
	ErrClosed = storage.ErrClosed
)
