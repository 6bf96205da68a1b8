package record

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrShort is returned for bytes that end before the batch does.
	ErrShort = errors.New("batch is cut short")
	// ErrCorrupt is returned for a batch whose length or checksum is wrong.
	ErrCorrupt = errors.New("batch is corrupt")
	// ErrMagic is returned for bytes in another format than v2.
	ErrMagic = errors.New("batch format is not version 2")
	// ErrInvalid is returned for a batch that is whole but breaks the rules of the format
	// or of its topic.
	ErrInvalid = errors.New("batch is invalid")
	// ErrTimestamp is returned for timestamps that are out of bounds or of the wrong type.
	ErrTimestamp = errors.New("timestamp is invalid")
	// ErrCodec is returned for a codec that does not exist.
	ErrCodec = errors.New("unknown compression codec")
	// ErrTooLarge is returned for a batch that is larger than its bound, or whose records
	// are when they are decompressed.
	ErrTooLarge = errors.New("batch is too large")
)

// maxRecordErrors bounds the list in a RejectedError.
const maxRecordErrors = 100

// Rejected says what is wrong with one record of a batch.
type Rejected struct {
	Index  int // of the record in its batch
	Reason string
}

// RejectedError is returned for a batch that is well formed but has records that break
// the rules of its topic. It unwraps to ErrInvalid or ErrTimestamp.
type RejectedError struct {
	Kind    error
	Total   int        // number of rejected records
	Records []Rejected // the first maxRecordErrors of them
}

// Error is the sentence with which Kafka answers.
func (e *RejectedError) Error() string {
	if errors.Is(e.Kind, ErrTimestamp) {
		return "One or more records have been rejected due to invalid timestamp"
	}
	var first []string
	for _, r := range e.Records[:min(3, len(e.Records))] {
		first = append(first, fmt.Sprintf("RecordError(batchIndex=%d, message='%s')", r.Index, r.Reason))
	}
	return fmt.Sprintf("One or more records have been rejected due to %d record errors in total, "+
		"and only showing the first three errors at most: [%s]", e.Total, strings.Join(first, ", "))
}

// Unwrap returns the kind.
func (e *RejectedError) Unwrap() error { return e.Kind }

func (e *RejectedError) addRecord(index int, reason string) {
	e.Total++
	if len(e.Records) < maxRecordErrors {
		e.Records = append(e.Records, Rejected{Index: index, Reason: reason})
	}
}
