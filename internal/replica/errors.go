package replica

import (
	"errors"

	"github.com/leatstream/leat/internal/storage"
)

// These are the errors of a Partition itself.
var (
	// ErrNotLeader says that this node does not lead the partition, or that it stopped leading
	// it during the call.
	ErrNotLeader = errors.New("not the leader of the partition")
	// ErrNotEnoughReplicas says that fewer replicas are in sync than min.insync.replicas asks for.
	ErrNotEnoughReplicas = errors.New("not enough replicas in sync")
	// ErrNotEnoughAfterAppend says that records with acks=all are on the disks of all replicas that are
	// in sync, which have become fewer than min.insync.replicas asks for since they were appended.
	ErrNotEnoughAfterAppend = errors.New("not enough replicas in sync since the append")
	// ErrOffsetNotAvailable says that a leader does not know yet what it may tell readers: the high
	// watermark is below the start of its epoch. The same for a follower that has not heard from its
	// leader yet.
	ErrOffsetNotAvailable = errors.New("the high watermark is not known yet")
	// ErrFencedEpoch says that the caller's leader epoch is older than this node's.
	ErrFencedEpoch = errors.New("leader epoch is older than the current one")
	// ErrUnknownEpoch says that the caller's leader epoch is newer than this node's.
	ErrUnknownEpoch = errors.New("leader epoch is newer than the current one")
	// ErrMirrors is returned for what a client writes, a marker of a transaction and a deletion of records while the partition mirrors
	// another cluster's: it has what that one has, and nothing else.
	ErrMirrors = errors.New("the partition mirrors one of another cluster, and clients write there; \"leat link promote\" makes an ordinary topic of it, to which they write here")
	// ErrNotMirroring is returned for what is mirrored, if the partition does not mirror, or not any more.
	ErrNotMirroring = errors.New("the partition does not mirror one of another cluster")
	// ErrEpochAhead is returned for a batch that is mirrored and has an epoch above the partition's leader epoch: clients would take this
	// cluster's metadata for old.
	ErrEpochAhead = errors.New("the epoch of a batch is above the leader epoch")
	// ErrTimedOut ends a wait whose deadline has passed.
	ErrTimedOut = errors.New("timed out waiting for the in-sync replicas")
)

// These are the errors of the partition's log, under names of this package, so that its
// callers need not import package storage.
var (
	// ErrOffsetOutOfRange is returned for an offset below the partition's start or beyond its end.
	ErrOffsetOutOfRange = storage.ErrOffsetOutOfRange
	// ErrOutOfOrderSequence is returned for a batch whose producer sequence does not follow.
	ErrOutOfOrderSequence = storage.ErrOutOfOrderSequence
	// ErrProducerFenced is returned for a batch with an older producer epoch than one seen before.
	ErrProducerFenced = storage.ErrProducerFenced
	// ErrCoordinatorFenced is returned for a marker of an older transaction coordinator than one seen before.
	ErrCoordinatorFenced = storage.ErrCoordinatorFenced
	// ErrTransactionState is returned for a batch that is not part of its producer's open transaction, and
	// whose partition was not verified to be part of it.
	ErrTransactionState = storage.ErrTransactionState
	// ErrDiskFull is returned for an append that finds no room; nothing was stored.
	ErrDiskFull = storage.ErrDiskFull
	// ErrBusy says that the system has too few files or too little memory for a moment; nothing
	// was stored.
	ErrBusy = storage.ErrBusy
	// ErrFaulted says that the partition can only be read, since its log is damaged or a sync of
	// it has failed.
	ErrFaulted = storage.ErrFaulted
	// ErrClosed says that the partition was deleted, or that its node stops.
	ErrClosed = storage.ErrClosed
)
