package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/storage"
)

// none is the code of success; notLeader the one that brings the leader's address along.
const (
	none      = 0
	notLeader = 6
)

// ErrUnsupported closes a connection that asks for an API or a version that is not
// served: Kafka does the same, since the answer's shape would be anybody's guess.
var ErrUnsupported = errors.New("API or version is not supported")

// ErrNoAnswer closes a connection whose acks=0 request failed: there is no answer
// to carry the error, and the closed connection makes the client ask for metadata.
var ErrNoAnswer = errors.New("a request without acknowledgement failed")

// codes translates the errors of the engine, the more special one first.
func codes() []struct {
	err  error
	code int16
} {
	return []struct {
		err  error
		code int16
	}{
		{replica.ErrNotLeader, kerr.NotLeaderForPartition.Code},
		{replica.ErrNotEnoughReplicas, kerr.NotEnoughReplicas.Code},
		{replica.ErrFencedEpoch, kerr.FencedLeaderEpoch.Code},
		{replica.ErrUnknownEpoch, kerr.UnknownLeaderEpoch.Code},
		{replica.ErrTimedOut, kerr.RequestTimedOut.Code},
		{storage.ErrOffsetOutOfRange, kerr.OffsetOutOfRange.Code},
		{storage.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber.Code},
		{storage.ErrProducerFenced, kerr.InvalidProducerEpoch.Code},
		{storage.ErrDiskFull, kerr.KafkaStorageError.Code},
		{storage.ErrFaulted, kerr.KafkaStorageError.Code},
		{storage.ErrClosed, kerr.NotLeaderForPartition.Code},
		{record.ErrTimestamp, kerr.InvalidTimestamp.Code},
		{record.ErrTooLarge, kerr.MessageTooLarge.Code},
		{record.ErrCorrupt, kerr.CorruptMessage.Code},
		{record.ErrShort, kerr.CorruptMessage.Code},
		{record.ErrCodec, kerr.UnsupportedCompressionType.Code},
		{record.ErrMagic, kerr.InvalidRecord.Code},
		{record.ErrInvalid, kerr.InvalidRecord.Code},
		{context.DeadlineExceeded, kerr.RequestTimedOut.Code},
		{context.Canceled, kerr.CoordinatorNotAvailable.Code},
	}
}

// codeOf is the code for an error of the floors below. An error that the table
// does not know came from a disk: nothing else down there fails.
func codeOf(err error) int16 {
	if err == nil {
		return none
	}
	for _, c := range codes() {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return e.Code
	}
	return kerr.KafkaStorageError.Code
}
