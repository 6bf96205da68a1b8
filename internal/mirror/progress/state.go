package progress

import (
	"time"

	"github.com/leatstream/leat/internal/record"
)

// State is what a mirrored partition does, or why it does nothing; the package's documentation has the drawing.
type State uint8

// These are the states. From Gap on to Failed a partition has stopped, and its state is durable; the reason is in Status.Reason.
const (
	Idle            State = iota // this node does not lead the partition
	Preparing                    // the leader at the source, or where to begin, is looked for; or it is found out whether the records here are the source's
	Mirroring                    // it reads, and appends
	Waiting                      // the last try failed: there is a reason, and it is tried again at a known time
	Paused                       // by a person
	Cutting                      // the records here are not the source's from an offset on: all replicas are to have the log end there
	Restoring                    // it was written here, and is to mirror who has taken over: the offset is looked for up to which both have the same records
	Gap                          // the source has deleted records that are not here: Status.Range says which
	TombstonesLost               // it was behind for longer than the source keeps tombstones: records in Status.Range may be missing, and deleted keys live on
	SourceDeleted                // the topic is not at the source any more
	SourceRecreated              // the topic at the source is another one of the same name
	Failed                       // what the source sends cannot be appended
	Promoting                    // the partition is about to become an ordinary one: nothing more is appended
	Promoted                     // it is an ordinary one
)

var stateNames = [...]string{
	Idle: "IDLE", Preparing: "PREPARING", Mirroring: "MIRRORING", Waiting: "WAITING", Paused: "PAUSED", Cutting: "CUTTING", Restoring: "RESTORING", Gap: "GAP", TombstonesLost: "TOMBSTONES_LOST",
	SourceDeleted: "SOURCE_DELETED", SourceRecreated: "SOURCE_RECREATED", Failed: "FAILED", Promoting: "PROMOTING", Promoted: "PROMOTED",
}

// String is the name that people see.
func (s State) String() string { return stateNames[s] }

// IsHalt tells whether a partition in the state has stopped until something changes at the source, or a person decides. Such a state is durable.
func (s State) IsHalt() bool { return s >= Gap && s <= Failed }

// TopicID is the id of a topic at the source; all zero: the source has no ids (before Apache Kafka 2.8).
type TopicID [16]byte

// Range is the offsets from From up to, but without, To.
type Range struct{ From, To record.Offset }

// IsEmpty tells whether there is no offset in the range.
func (r Range) IsEmpty() bool { return r.From >= r.To }

// Durable is what the metadata say of the progress of a partition.
type Durable struct {
	// State is Mirroring, a halt, Promoting or Promoted; or Cutting: all records here are to be dropped, and the mirror then begins anew; or Restoring, until all replicas are cut where the logs part.
	State  State
	Reason string // for people
	// Range is what is lost, or may be: with Gap and TombstonesLost it waits to be accepted; with any other state it is accepted, so that the mirror goes on at the source's start if that is not above Range.To.
	Range Range
	// HasBegun tells that it was decided where the mirror begins: at Begin, with the topic that had the id Topic (zero: the source had no ids). All later records are those of this topic.
	HasBegun bool
	Begin    record.Offset
	Topic    TopicID
	// Fork says, with Restoring, from where on the source was written by its own clients.
	Fork Fork
}

// Fork is where a log of the source begins that it has not from here, but from its own clients. What it has below Offset was mirrored from here, and has epochs below Epoch. From Offset on it has epochs from Epoch
// on, of its own: they are no epochs of this cluster, though both may have the same numbers.
type Fork struct {
	Epoch  record.Epoch
	Offset record.Offset
}

// Assignment is what the metadata say of a partition that this node leads.
type Assignment struct {
	Epoch    record.Epoch // the local leader epoch
	IsPaused bool         // by a person: the topic, or the link
	Durable  Durable
	Settings Settings
}

// Settings are those of the mirrored topic, and of its link.
type Settings struct {
	// Start says where a mirror without any record begins: Earliest, Latest, or a time in ms since 1970.
	Start int64
	// AcceptLoss has Gap and TombstonesLost be noted and accepted without a person.
	AcceptLoss bool
	// IsCompacted tells that the source compacts the topic, so that batches which are read a second time may have fewer records.
	IsCompacted bool
	// KeepTombstones is delete.retention.ms of a topic that the source compacts: for so long a tombstone can be read there at least.
	KeepTombstones time.Duration
}

// Places where a mirror begins; any other one is a time in ms.
const (
	Latest   int64 = -1 // the source's high watermark
	Earliest int64 = -2 // the source's log start
)

// Log is the local log of the leader, after what has been done to it.
type Log struct {
	Start     record.Offset
	End       record.Offset
	LastEpoch record.Epoch // of the last record that the log had, also if it is deleted; NoEpoch: it had none since it began at Start
	Last      Batch        // the last one; no batch if it is deleted, or there was none
}

// Age says how old a log is that a node begins to lead with. Negative: nobody knows.
type Age struct {
	Held       time.Duration // how long ago, at most, the log had all that the source had committed: Lag.RPO of an earlier leader, and the time since then
	Tombstones time.Duration // for how long, at most, tombstones may have been missed: Status.Tombstones of an earlier leader, and the time since then
}

// Tail is an epoch of a log, and the offset after its last record.
type Tail struct {
	Epoch record.Epoch // NoEpoch: the log has none that fits
	End   record.Offset
}

// Reader looks at the local log.
type Reader interface {
	// EpochEnd finds the last epoch of the log that is not above e, and its end. Epoch is NoEpoch if there is none. e is not above the last one of the log.
	EpochEnd(e record.Epoch) Tail
	// BatchBefore is the last batch that begins below an offset; the zero value: there is none.
	BatchBefore(o record.Offset) Batch
}

// Batch tells a batch from others. The zero value is no batch.
type Batch struct {
	Base          record.Offset
	Next          record.Offset // the offset after its last record
	Epoch         record.Epoch
	CRC           uint32
	ProducerID    int64
	ProducerEpoch int16
	Sequence      int32 // of its first record
	MaxTimestamp  int64 // ms
}

// BatchOf describes a batch that has its whole header.
func BatchOf(b record.Batch) Batch {
	return Batch{b.BaseOffset(), b.NextOffset(), b.LeaderEpoch(), b.CRC(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.MaxTimestamp()}
}

// IsNone tells whether it is no batch.
func (b *Batch) IsNone() bool { return b.Next == 0 && b.Base == 0 }

// isSame tells whether a batch of the source is the one that is here. Compaction at the source leaves some of its records, and the batch its offsets and its producer; the records that are left are not
// younger than all of them were, while those of another topic, made later, are.
func (b *Batch) isSame(other *Batch, isCompacted bool) bool {
	x, y := *b, *other
	if isCompacted && y.MaxTimestamp <= x.MaxTimestamp {
		x.CRC, x.MaxTimestamp, y.CRC, y.MaxTimestamp = 0, 0, 0, 0
	}
	return x == y
}
