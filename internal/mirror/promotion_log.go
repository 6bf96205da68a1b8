package mirror

import (
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
)

// Transactions are those of the log of a partition that this node leads, or has led. Any goroutine may call the methods.
type Transactions interface {
	// Open lists the transactions that are open in the log, in the order of their first offsets.
	Open() ([]OpenTransaction, error)
	// Ends are those of the log, which this node leads in an epoch.
	Ends(epoch record.Epoch) (LogEnds, error)
	// End ends open transactions by markers in a leader epoch in which it is decided how they end, and returns the end of the log. The markers are committed by Config.Commit.
	End(epoch record.Epoch, list []Ending) (end record.Offset, err error)
	// AwaitCommit calls a function once all below an offset is committed, or cannot be any more in that leader epoch. It does not wait, and may call it at once.
	AwaitCommit(epoch record.Epoch, end record.Offset, done func(err error))
}

// LogEnds are the ends of a log.
type LogEnds struct {
	HighWatermark, End record.Offset
	IsLast             bool // nothing of the source comes into the log any more, in the epoch in question
}

// isCommitted tells whether all of the log is committed.
func (e *LogEnds) isCommitted() bool { return e.HighWatermark >= e.End }

// OpenTransaction is a transaction that is open in a log.
type OpenTransaction = replica.OpenTransaction

// Ending ends an open transaction.
type Ending = replica.Ending

// ReplicaTransactions are the Transactions of a replica of this node.
type ReplicaTransactions struct{ p *replica.Partition }

// NewReplicaTransactions makes the Transactions of a partition of which this node has a replica.
func NewReplicaTransactions(p *replica.Partition) *ReplicaTransactions {
	return &ReplicaTransactions{p}
}

// Open is as Transactions has it.
func (r *ReplicaTransactions) Open() ([]OpenTransaction, error) {
	return replica.ListOpenTransactions(r.p)
}

// Ends is as Transactions has it.
func (r *ReplicaTransactions) Ends(epoch record.Epoch) (LogEnds, error) {
	end, isCommitted, err := replica.EndOfSource(r.p, epoch)
	switch {
	case err == nil && isCommitted:
		return LogEnds{end, end, true}, nil
	case err == nil:
		return LogEnds{min(r.p.HighWatermark(), end-1), end, true}, nil
	}
	if end, err = r.p.End(); err != nil {
		return LogEnds{}, err
	}
	return LogEnds{r.p.HighWatermark(), end, false}, nil
}

// End is as Transactions has it.
func (r *ReplicaTransactions) End(epoch record.Epoch, list []Ending) (record.Offset, error) {
	return replica.EndTransactions(r.p, epoch, list)
}

// AwaitCommit is as Transactions has it.
func (r *ReplicaTransactions) AwaitCommit(epoch record.Epoch, end record.Offset, done func(err error)) {
	r.p.Await(epoch, end, 0, done)
}

// NoTransactions are the Transactions of a partition of which this node has no replica any more.
type NoTransactions struct{}

// Open is as Transactions has it.
func (NoTransactions) Open() ([]OpenTransaction, error) { return nil, ErrNotLeader }

// Ends is as Transactions has it.
func (NoTransactions) Ends(record.Epoch) (LogEnds, error) {
	return LogEnds{}, ErrNotLeader
}

// End is as Transactions has it.
func (NoTransactions) End(record.Epoch, []Ending) (record.Offset, error) { return 0, ErrNotLeader }

// AwaitCommit is as Transactions has it.
func (NoTransactions) AwaitCommit(_ record.Epoch, _ record.Offset, done func(err error)) {
	done(ErrNotLeader)
}
