// Package errcode has the one table of the engine's errors and of what Kafka's clients
// are told of them. There are two columns: what is answered to a request for a partition,
// and what is answered by a coordinator that keeps its records in it, whose clients look
// for another coordinator, or ask the same again.
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

// row is an error with its codes; nil: the column's answer to an error that it does not know.
type row struct {
	err                error
	partition, service *kerr.Error
}

// table has the more special errors first.
func table() []row {
	return []row{
		{replica.ErrNotLeader, kerr.NotLeaderForPartition, kerr.NotCoordinator},
		{replica.ErrNotEnoughReplicas, kerr.NotEnoughReplicas, kerr.CoordinatorNotAvailable},
		{replica.ErrFencedEpoch, kerr.FencedLeaderEpoch, kerr.NotCoordinator},
		{replica.ErrUnknownEpoch, kerr.UnknownLeaderEpoch, nil},
		{replica.ErrTimedOut, kerr.RequestTimedOut, kerr.CoordinatorNotAvailable},
		{replica.ErrOffsetOutOfRange, kerr.OffsetOutOfRange, nil},
		{replica.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber, nil},
		{replica.ErrProducerFenced, kerr.InvalidProducerEpoch, nil},
		{replica.ErrDiskFull, kerr.KafkaStorageError, kerr.CoordinatorNotAvailable}, // there may be room later
		{replica.ErrBusy, kerr.KafkaStorageError, kerr.CoordinatorNotAvailable},     // it may pass
		{replica.ErrFaulted, kerr.KafkaStorageError, kerr.NotCoordinator},           // it will not be better here
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

// Of is the code for an error of a partition, 0 for nil. An error that the table does
// not know came from a disk: nothing else down there fails.
func Of(err error) int16 {
	if err == nil {
		return 0
	}
	for _, r := range table() {
		if errors.Is(err, r.err) {
			return r.partition.Code
		}
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Code
	}
	return kerr.KafkaStorageError.Code
}

// OfCoordinator is the code that a coordinator's client is told where its partition
// failed with an error, 0 for nil.
func OfCoordinator(err error) int16 {
	if err == nil {
		return 0
	}
	for _, r := range table() {
		if errors.Is(err, r.err) && r.service != nil {
			return r.service.Code
		}
	}
	return kerr.UnknownServerError.Code
}
