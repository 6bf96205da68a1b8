package progress

import "github.com/leatstream/leat/internal/record"

// ActionKind is a kind of work that a Mirror asks its owner for. Behind each kind is the method that tells the Mirror how it ended.
type ActionKind uint8

// These are the kinds.
const (
	NoAction  ActionKind = iota
	FindTopic            // describe the topic at the source (Described)
	Fetch                // read from Broker at Offset, with LeaderEpoch and LastEpoch (Fetched)
	FindEpoch            // ask Broker for the end of Epoch, or of the last one before it (EpochFound)
	Reread               // read the one batch at Offset from Broker, with LeaderEpoch and without a last epoch (Reread)
	FindRange            // ask Broker for the log's start and its high watermark (RangeFound)
	FindBegin            // ask Broker for the offset of the first record at or after Time (BeginFound)
	Append               // append Raw to the local log, as the source has it, or its first batches, and the others are asked for next (LogChanged)
	Trim                 // move the local log's start to Offset, which is not beyond its end; it may be moved less far (LogChanged)
	Skip                 // drop all records of the local log, and have it begin and end at Offset, which is not below its end (LogChanged)
	Raise                // have the controller raise the local leader epoch to at least Epoch (Decided)
	Cut                  // have the controller decide that the log of each replica ends at Offset, and raise the local leader epoch (Decided)
	Declare              // have the controller set the durable state, from Was to Durable (Decided)
)

var kindNames = [...]string{
	NoAction: "nothing", FindTopic: "find topic", Fetch: "fetch", FindEpoch: "find epoch", Reread: "reread", FindRange: "find range", FindBegin: "find begin", Append: "append", Trim: "trim", Skip: "skip",
	Raise: "raise", Cut: "cut", Declare: "declare",
}

// String is a name for people.
func (k ActionKind) String() string { return kindNames[k] }

// Action is one piece of work. ID is that of the answer. A Mirror has one action at a time; a Lead, Resign or Assigned that makes it pointless ends it, so that its answer is not heeded.
//
// The controller refuses Cut, Raise and Declare of a local leader epoch that is not the present one (Local), and Declare if the durable state is not Was any more. So a cut that comes late, or twice, removes
// nothing. A state that comes late may not be true any more; then the Mirror asks for the true one.
type Action struct {
	ID    uint64
	Kind  ActionKind
	Local record.Epoch // the local leader epoch in which it was asked for

	Broker      int32         // who is asked at the source
	Topic       TopicID       // the topic's id, for requests that name topics by ids; zero: the source has none
	LeaderEpoch record.Epoch  // by which the partition is known there; NoEpoch: the source does not tell
	Offset      record.Offset // of Fetch, Reread, Trim, Skip and Cut
	NoRack      bool          // of Fetch: the broker is to answer itself, and not to name a nearer one; the request has no rack
	LastEpoch   record.Epoch  // of Fetch: the epoch of the last record here; NoEpoch: there is none
	Epoch       record.Epoch  // of FindEpoch and Raise
	Time        int64         // of FindBegin, in ms since 1970
	Raw         []byte        // of Append: whole batches, one behind the other
	Durable     Durable       // of Declare
	Was         Durable       // of Declare
}

// TroubleKind says what came of an action.
type TroubleKind uint8

// These are the kinds of trouble.
const (
	NoTrouble     TroubleKind = iota
	Lost                      // nobody has answered, or the connection broke: it may have been done
	LeaderUnknown             // the broker does not lead, or knows another leader epoch
	TopicGone                 // the topic, or the id, is not there
	OutOfRange                // the source's log has no such offset, or cannot compare the epoch
	Refused                   // any other error of the source, of the controller, or of the local log; Reason says which
	NotLeader                 // this node does not lead the partition any more, or in another epoch
	EpochAhead                // a batch has a higher epoch than the local leader
	NotMirroring              // the partition does not mirror in this epoch
	DoesNotFit                // the local log refuses the batches: their offsets or epochs go back
)

// Trouble is why an action has failed; the zero value: it has not.
type Trouble struct {
	Kind   TroubleKind
	Reason string // for people, of Lost and Refused above all
}

// Command is what a person wants of a partition.
type Command uint8

// These are the commands. To pause and to resume are part of the Assignment.
const (
	// Accept accepts the loss of Gap and of TombstonesLost. A partition that has failed tries again.
	Accept Command = iota + 1
	// CopyAnew drops all records here, keeps them aside, and copies those of the source from its start. It is refused while the source is not known to have the topic.
	CopyAnew
)
