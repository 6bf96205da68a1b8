// Package errcode translates the engine's errors into Kafka's error codes, with one table.
// Of has the codes for a request to a partition. OfCoordinator has those for a request to a
// coordinator whose records are in the partition; they have its client look for another
// coordinator, or ask the same one again. Both may be called by any goroutine.
package errcode

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// row is an error with its codes. coordinator is nil if OfCoordinator treats the error as an
// unknown one.
type row struct {
	err                    error
	partition, coordinator *kerr.Error
}

// errorTable is the table. The first row that matches an error counts.
func errorTable() []row {
	return []row{
		{replica.ErrNotLeader, kerr.NotLeaderForPartition, kerr.NotCoordinator},
		{replica.ErrNotEnoughReplicas, kerr.NotEnoughReplicas, kerr.CoordinatorNotAvailable},
		{replica.ErrNotEnoughAfterAppend, kerr.NotEnoughReplicasAfterAppend, kerr.CoordinatorNotAvailable},
		{replica.ErrOffsetNotAvailable, kerr.OffsetNotAvailable, kerr.CoordinatorNotAvailable},
		{replica.ErrFencedEpoch, kerr.FencedLeaderEpoch, kerr.NotCoordinator},
		{replica.ErrUnknownEpoch, kerr.UnknownLeaderEpoch, nil},
		{replica.ErrMirrors, kerr.PolicyViolation, nil},
		{replica.ErrTimedOut, kerr.RequestTimedOut, kerr.CoordinatorNotAvailable},
		{replica.ErrOffsetOutOfRange, kerr.OffsetOutOfRange, nil},
		{replica.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber, nil},
		{replica.ErrProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerEpoch},
		{replica.ErrCoordinatorFenced, kerr.TransactionCoordinatorFenced, kerr.TransactionCoordinatorFenced},
		{replica.ErrTransactionState, kerr.InvalidTxnState, kerr.InvalidTxnState},
		{replica.ErrDiskFull, kerr.KafkaStorageError, kerr.CoordinatorNotAvailable}, // the client asks again: there may be room later
		{replica.ErrBusy, kerr.KafkaStorageError, kerr.CoordinatorNotAvailable},     // the client asks again: the shortage may end
		{replica.ErrFaulted, kerr.KafkaStorageError, kerr.NotCoordinator},           // the client looks for another coordinator
		{replica.ErrClosed, kerr.NotLeaderForPartition, kerr.NotCoordinator},
		{coord.ErrLoading, kerr.CoordinatorLoadInProgress, kerr.CoordinatorLoadInProgress},
		{coord.ErrNotLeading, kerr.NotCoordinator, kerr.NotCoordinator},
		{budget.ErrTooLarge, kerr.MessageTooLarge, kerr.PolicyViolation},
		{record.ErrTimestamp, kerr.InvalidTimestamp, nil},
		{record.ErrTooLarge, kerr.MessageTooLarge, nil},
		{record.ErrCorrupt, kerr.CorruptMessage, nil},
		{record.ErrShort, kerr.CorruptMessage, nil},
		{record.ErrCodec, kerr.UnsupportedCompressionType, nil},
		{record.ErrMagic, kerr.InvalidRecord, nil},
		{record.ErrInvalid, kerr.InvalidRecord, nil},
		{context.DeadlineExceeded, kerr.RequestTimedOut, nil},
		{context.Canceled, kerr.CoordinatorNotAvailable, nil},
	}
}

// Of is the code for an error of a partition, 0 for nil. An error that is not in the table
// counts as one of the disk, since no other part of a log returns unknown errors.
func Of(err error) int16 {
	if err == nil {
		return 0
	}
	for _, r := range errorTable() {
		if errors.Is(err, r.err) {
			return r.partition.Code
		}
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Code
	}
	return kerr.KafkaStorageError.Code
}

// OfCoordinator is the code with which a coordinator answers if its partition returns an error,
// 0 for nil.
func OfCoordinator(err error) int16 {
	if err == nil {
		return 0
	}
	for _, r := range errorTable() {
		if errors.Is(err, r.err) && r.coordinator != nil {
			return r.coordinator.Code
		}
	}
	return kerr.UnknownServerError.Code
}
