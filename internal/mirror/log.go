package mirror

import (
	"errors"

	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// These are the errors of a Log that its partition's machine tells apart. All others mean that it is tried again.
var (
	// ErrNotLeader says that this node does not lead the partition in that epoch.
	ErrNotLeader = errors.New("this node does not lead the partition in that epoch")
	// ErrEpochAhead says that a batch has a higher epoch than the local leader.
	ErrEpochAhead = errors.New("a batch has a higher epoch than the leader here")
	// ErrNotMirroring says that the partition does not mirror in that epoch.
	ErrNotMirroring = errors.New("the partition does not mirror in that epoch")
	// ErrDoesNotFit says that offsets or epochs would go back.
	ErrDoesNotFit = errors.New("the batches do not follow the log")
)

// Log is the log of a partition that this node leads and that mirrors, as a Service uses it. One goroutine at a time calls its methods.
type Log interface {
	progress.Reader

	// Open opens the log for a leader epoch, in which all cuts up to a number have been made.
	Open(epoch record.Epoch, cut int32) (progress.Log, error)
	// State is how the log is now.
	State() (progress.Log, error)
	// Append appends batches, one behind the other, as they are. They are committed by Config.Commit.
	Append(epoch record.Epoch, batches []byte) error
	// OnCommit calls a function once all that was appended is on disk here, or never will be in this leader epoch. It does not wait.
	OnCommit(done func())
	// Trim moves the start to an offset, or less far while replicas lack what is before it.
	Trim(epoch record.Epoch, to record.Offset) error
	// Skip drops all records, and has the log begin and end at an offset, which is not below its end.
	Skip(epoch record.Epoch, to record.Offset) error
}
