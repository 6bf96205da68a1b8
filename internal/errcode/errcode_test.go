package errcode

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/replica"
)

// TestCodes proves the codes of errors, also of wrapped ones, for partitions and coordinators:
// a client asks a coordinator with a full disk again, and leaves one with a broken disk.
func TestCodes(t *testing.T) {
	for _, tc := range []struct {
		name                   string
		err                    error
		partition, coordinator *kerr.Error
	}{
		{"not the leader", replica.ErrNotLeader, kerr.NotLeaderForPartition, kerr.NotCoordinator},
		{"too few in sync", replica.ErrNotEnoughReplicas, kerr.NotEnoughReplicas, kerr.CoordinatorNotAvailable},
		{"too few in sync after the append", replica.ErrNotEnoughAfterAppend, kerr.NotEnoughReplicasAfterAppend, kerr.CoordinatorNotAvailable},
		{"a high watermark that is not known", replica.ErrOffsetNotAvailable, kerr.OffsetNotAvailable, kerr.CoordinatorNotAvailable},
		{"a full disk", fmt.Errorf("append: %w", replica.ErrDiskFull), kerr.KafkaStorageError, kerr.CoordinatorNotAvailable},
		{"a system short of files", fmt.Errorf("append: %w", replica.ErrBusy), kerr.KafkaStorageError, kerr.CoordinatorNotAvailable},
		{"a broken disk", fmt.Errorf("append: %w", replica.ErrFaulted), kerr.KafkaStorageError, kerr.NotCoordinator},
		{"a deleted partition", replica.ErrClosed, kerr.NotLeaderForPartition, kerr.NotCoordinator},
		{"out of range", fmt.Errorf("%w: 7", replica.ErrOffsetOutOfRange), kerr.OffsetOutOfRange, kerr.UnknownServerError},
		{"still loading", coord.ErrLoading, kerr.CoordinatorLoadInProgress, kerr.CoordinatorLoadInProgress},
		{"a code", kerr.PolicyViolation, kerr.PolicyViolation, kerr.UnknownServerError},
		{"an error of a disk", errors.New("input/output error"), kerr.KafkaStorageError, kerr.UnknownServerError},
	} {
		if got := Of(tc.err); got != tc.partition.Code {
			t.Errorf("%s: a partition's client is told %v", tc.name, kerr.ErrorForCode(got))
		}
		if got := OfCoordinator(tc.err); got != tc.coordinator.Code {
			t.Errorf("%s: a coordinator's client is told %v", tc.name, kerr.ErrorForCode(got))
		}
	}
	if Of(nil) != 0 || OfCoordinator(nil) != 0 {
		t.Error("no error has a code")
	}
}
