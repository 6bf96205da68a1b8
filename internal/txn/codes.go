package txn

import (
	"github.com/leatstream/leat/internal/errcode"
)

// Kafka's error codes in a transaction coordinator's answers.
const (
	unknownTopicOrPartition      int16 = 3
	loadInProgress               int16 = 14
	coordinatorNotAvailable      int16 = 15
	notCoordinator               int16 = 16
	invalidRequest               int16 = 42
	invalidProducerEpoch         int16 = 47
	invalidTxnState              int16 = 48
	invalidProducerIDMapping     int16 = 49
	invalidTxnTimeout            int16 = 50
	concurrentTransactions       int16 = 51
	transactionCoordinatorFenced int16 = 52
	operationNotAttempted        int16 = 55
	producerFenced               int16 = 90
	transactionalIDNotFound      int16 = 105
	transactionAbortable         int16 = 120
	invalidRegularExpression     int16 = 128
)

// codeOr is the code of an error of the coordinator's log, or c if the error is nil.
func codeOr(err error, c int16) int16 {
	if err != nil {
		return errcode.OfCoordinator(err)
	}
	return c
}

// codeForVersion is the code for a client that sends this version of a request. PRODUCER_FENCED is
// known from the version since on; clients of versions before have INVALID_PRODUCER_EPOCH for it.
func codeForVersion(code, version, since int16) int16 {
	if code == producerFenced && version < since {
		return invalidProducerEpoch
	}
	return code
}
