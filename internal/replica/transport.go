package replica

import (
	"context"
	"errors"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
)

// PartitionID names a partition for ever: a topic that is created again has another id.
type PartitionID = record.LogID

// Transport carries what the replicas on this node have to say to other nodes. Any goroutine may
// call it. It gives up by itself if a node does not answer.
type Transport interface {
	// Fetch sends a request to the node that leads the partitions in it, which answers with
	// Set.ServeFetch. A request and its answer are not used any more when Fetch returns an error:
	// whether the other node has seen the request is not known then.
	Fetch(ctx context.Context, leader int32, r *FetchRequest) (*FetchAnswer, error)
	// Report tells a leader of durable ends, for Set.TakeReports. It must not wait for an answer to
	// a Fetch, which may be a while. A report may be lost: the next request repeats it.
	Report(ctx context.Context, leader int32, r *Reports) error
	// AlterInSync asks the controller for changes of in-sync sets. The answer is of no interest, since
	// only the metadata change the sets; it ends the attempt, and an error does so, too.
	AlterInSync(ctx context.Context, changes []InSyncChange) error
}

// ErrSessionLost says that the leader does not have the fetch session that a request continues. The
// follower begins another one.
var ErrSessionLost = errors.New("the leader does not have the fetch session")

// FetchRequest is a follower's request to the node that leads some of its partitions. The leader
// keeps a session (KIP-227): a request names only the partitions about which there is news, and the
// leader answers for any of the session.
//
//	first request       Session 0, Number 0: the leader begins a session, in the place of an earlier one
//	each further one    the session of the answer, and the next Number
type FetchRequest struct {
	Replica     int32
	BrokerEpoch int64 // of the follower's registration
	Session     uint64
	Number      uint32

	// IsFull tells that the follower's disk is full: another node had better lead.
	IsFull bool

	MaxWait        time.Duration // how long the leader may wait for records
	MinBytes       int           // that it waits for
	MaxBytes       int           // of all records in the answer
	PartitionBytes int           // of the records of one partition
	// LargestBatch is the largest batch that the settings of the partitions in the session allow. The leader is
	// not told, since it knows: it bounds the answer.
	LargestBatch int

	Forgotten  []PartitionID // they leave the session, before Partitions enter it
	Partitions []PartitionFetch
	// Reports repeats what was reported since the last request, of partitions that Partitions does not
	// have, in case it was lost.
	Reports []PartitionReport

	// Release is called, at most once, by the leader's side when it does not need the lists any more; nil: nobody
	// wants to know. The request may be parked long after that.
	Release func()
}

// release gives the lists up.
func (r *FetchRequest) release() {
	r.Forgotten, r.Partitions, r.Reports = nil, nil, nil
	if done := r.Release; done != nil {
		r.Release = nil
		done()
	}
}

// PartitionFetch is the part of a request for one partition, as in progress.Fetch. It stands until
// it is answered, in this answer or a later one, or another one takes its place.
type PartitionFetch struct {
	ID        PartitionID
	Epoch     record.Epoch  // the leader epoch that the follower knows
	Assigned  int32         // the partition epoch that it knows
	Offset    record.Offset // the end of its log
	LastEpoch record.Epoch  // the epoch of its last record; NoEpoch: unknown
	Start     record.Offset // the start of its log
	Durable   record.Offset // everything below it is on its disk
	// CannotStore says that the follower's log takes no records. Such a fetch is answered at once, without any.
	CannotStore bool
	IsDamaged   bool // the log has lost records that it had; CannotStore is set, too
}

// FetchAnswer is a leader's answer.
type FetchAnswer struct {
	Session    uint64
	Partitions []PartitionAnswer

	// Buffer has the records of all partitions. It belongs to whoever made the answer: who uses it
	// calls Release when it does not need the records any more.
	Buffer []byte
	// Reuse is called by Release; nil: nobody uses the buffer again.
	Reuse func(*FetchAnswer)
}

// Release gives the answer's memory back.
func (a *FetchAnswer) Release() {
	if reuse := a.Reuse; reuse != nil {
		a.Reuse = nil
		reuse(a)
	}
}

// Verdict is a leader's judgement of a fetch.
type Verdict = progress.Verdict

// PartitionAnswer is the part of an answer for one partition, as in progress.Answer.
type PartitionAnswer struct {
	ID             PartitionID
	Verdict        Verdict
	DivergingEpoch record.Epoch  // if the verdict is progress.Diverged
	DivergingEnd   record.Offset // if the verdict is progress.Diverged
	HighWatermark  record.Offset
	Start, End     record.Offset
	// From and To are the place of its records in the answer's buffer. The last batch may be cut
	// short.
	From, To int
}

// Reports are a follower's news that more records of some partitions are on its disk.
type Reports struct {
	Replica     int32
	BrokerEpoch int64
	Partitions  []PartitionReport
}

// PartitionReport is the part of Reports for one partition, as in progress.Report.
type PartitionReport struct {
	ID       PartitionID
	Epoch    record.Epoch
	Assigned int32
	Durable  record.Offset
}

// InSyncMember is a member of a proposed in-sync set.
type InSyncMember = progress.Member

// InSyncChange is a leader's proposal for the in-sync set of one partition.
type InSyncChange struct {
	ID             PartitionID
	Epoch          record.Epoch
	PartitionEpoch int32
	ISR            []InSyncMember
	GivesUp        bool // the leader gives its place to Successor
	Successor      int32
	Damaged        []int32 // replicas that have lost records: they are not eligible
}
