package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/leatstream/leat/internal/vfs"
)

var (
	// ErrNotLeader is returned for a proposal of another term than the one in which this node
	// leads. It is also returned if the node stops leading before it knows whether the proposal
	// is committed, which it may be.
	ErrNotLeader = errors.New("quorum: not the leader")
	// ErrTooLarge is returned for a proposal above MaxProposal; it has no effect.
	ErrTooLarge = errors.New("quorum: proposal too large")
	// ErrDiskFull is returned for a proposal for which the log has no room; it has no effect.
	// Later ones succeed when there is room again.
	ErrDiskFull = errors.New("quorum: the disk is full, metadata cannot change until there is room")
	// ErrFaulted is returned for every proposal after a write or sync of the log has failed,
	// and for those under way, which the next start may find committed.
	ErrFaulted = errors.New("quorum: the metadata log cannot be written, restart the node when the disk is repaired")
	// ErrNotApplied is returned by Open if a committed entry cannot be applied, and for every
	// proposal after that has happened. No later entry is applied.
	ErrNotApplied = errors.New("quorum: an entry of the metadata log cannot be applied")
	// ErrMembers is returned for members that a quorum must not have.
	ErrMembers = errors.New("quorum: not possible as the quorum's members")
	// ErrChangeUnderWay is returned for a change of the members while there is another one, or
	// before this leader has committed its first entry.
	ErrChangeUnderWay = errors.New("quorum: another change of the members is under way")
	// ErrNotCaughtUp is returned for a voter that is a learner which has not answered yet, or whose log is far behind.
	ErrNotCaughtUp = errors.New("quorum: the learner has not caught up")
	// ErrNotMoved is returned if leadership could not be transferred.
	ErrNotMoved = errors.New("quorum: no other voter has taken the leadership over")
	// ErrNotMember is returned if a node is asked for entries that has none, and is no member itself or hears of no
	// leader; or that is faulted.
	ErrNotMember = errors.New("quorum: this node is no member that can answer")
	// ErrNoSnapshot is returned for a snapshot that is not there, since there is a newer one.
	ErrNoSnapshot = errors.New("quorum: there is no such snapshot")

	// ErrMessage is returned by Node.Step for bytes that are no message of the quorum.
	ErrMessage       = errors.New("quorum: not a message of the quorum")
	errNotForUs      = fmt.Errorf("%w: it is for another node", ErrMessage)
	errUnknownMember = fmt.Errorf("%w: it is of a node that is no member", ErrMessage)

	// ErrDamaged is returned by Open if the directory's files are not as they were written.
	ErrDamaged = errors.New("quorum: damaged metadata")
	// ErrNewer is returned by Open for a directory that a newer version has written.
	ErrNewer = errors.New("quorum: written by a newer version of leat, start that one")
	// ErrOlder is returned by Open for a directory of a format that is not read any more.
	ErrOlder = errors.New("quorum: written by a version of leat whose format is not read any more, start with an empty data directory")
)

// MaxProposal is the largest proposal, in bytes.
const MaxProposal = 16 << 20

// Config is the input of Open.
type Config struct {
	ID     int32 // of this node; raft's id is another one, random for each directory
	Dir    string
	FS     vfs.FS
	Logger *slog.Logger
	// Apply gets committed updates in order, before the Propose that made them returns. It is
	// called on the applier's goroutine, and during Open on the caller's. An error, which must
	// say what is wrong with which entry, ends the node: no entry of the update counts as
	// applied, no later one is passed to Apply, and no snapshot is made of them.
	Apply func(Update) error
	// Capture keeps the state after the last Apply and returns a function that encodes it.
	// It is called on the applier's goroutine, and encode on another one, while further
	// updates are applied.
	Capture func() (encode func() []byte)
	// SnapshotBytes is the amount of log after which a snapshot is made; 0 means 16 MiB.
	SnapshotBytes int64
	// CheckEnd is called by Open, before it writes into the log, with the index of the last
	// entry there. An error refuses the start. It may be nil.
	CheckEnd func(last uint64) error
	// Transport reaches other nodes. If it is nil, this node must be the only voter.
	Transport Transport
	// Cluster is in each message: messages of another cluster are dropped. It has at most 255 bytes.
	Cluster string
	// Join makes a node with a new directory an observer of a quorum that exists already, instead of the
	// only voter of a new one. It has no effect on a directory that is not new.
	Join bool
}

// Update is committed state: first a snapshot that replaces all state (nil: none), then
// entries.
type Update struct {
	Snapshot []byte
	Entries  []Entry
}

// Entry is one committed proposal.
type Entry struct {
	Index uint64
	Term  uint64
	Data  []byte
}

// State says how a node treats proposals.
//
//	           the disk is full
//	Serving  <------------------>  Full
//	   |      there is room again    |
//	   | a write or a sync fails     |
//	   +----------> Faulted <--------+
//	   |               |
//	   | Close, an entry cannot be applied, or entries that were there are lost
//	   +----------> Ended
type State uint8

// These are the states of a node.
const (
	Serving State = iota // it accepts proposals
	Full                 // it refuses them with ErrDiskFull until there is room
	Faulted              // it refuses them with ErrFaulted until a restart
	Ended                // its loop has ended, or is about to: see Node.Err
)

// String is the state's name in messages.
func (s State) String() string {
	return [...]string{"serving", "full", "faulted", "ended"}[s]
}

// Role is a node's part in the quorum.
type Role uint8

// These are the roles.
const (
	Observer Role = iota // no member: it pulls the committed log
	Learner              // it gets all entries and has no vote
	Voter
)

// String is the role's name in messages.
func (r Role) String() string { return [...]string{"observer", "learner", "voter"}[r] }

// Status is the part of a node's state that DescribeQuorum and the node's health show.
type Status struct {
	State   State
	Leader  int32 // -1: not this node, see LeaderRaftID
	Term    uint64
	Voters  []int32 // this node, if it is a voter; see Members for all
	Wanted  int     // how many voters there are to be; 0: the quorum does not know it, since others choose its members
	Commit  uint64  // the last entry that is known to be committed; it is on the disk, with all before it
	Last    uint64  // the last entry on the disk
	Applied uint64

	Role         Role
	RaftID       uint64 // raft's id of this node's directory
	LeaderRaftID uint64 // 0: none known
	Members      Members
	IsChanging   bool              // a change of the voters is under way
	Match        map[uint64]uint64 // the leader's: up to which entry each member has its log
	Observers    map[uint64]uint64 // that pull from this node: up to which entry each has the log
}

// Bounds of what nodes send each other, and write at once.
const (
	snapshotPart     = 1 << 20 // bytes of a snapshot that are asked for at a time
	maxSnapshotBytes = 1 << 30
	maxBatchBytes    = 4 << 20 // in one frame of the log, unless a single proposal is larger
)

// Members are the members that have a part in the quorum, by raft's ids.
type Members struct {
	Voters   []uint64
	Learners []uint64 // they get all entries and have no vote
}

// Transport reaches other nodes. They pass what comes to the methods of their Node. Messages may be
// lost, delayed, doubled and reordered. Raft's ids are those of Status.
type Transport interface {
	// Send sends messages, each to Node.Step of its receiver. It must not wait.
	Send(messages []Message)
	// ReadCommitted calls Node.ReadCommitted of any other node; of a member, if one is known. After a
	// failure it should try another one. The answer may be long in coming, since the other node waits
	// for entries; the transport must give up when the connection is dead.
	ReadCommitted(ctx context.Context, p Pull) ([]byte, error)
	// ReadSnapshot calls Node.ReadSnapshot of the member p.Of.
	ReadSnapshot(ctx context.Context, p Part) ([]byte, error)
}

// Pull is a request for committed entries.
type Pull struct {
	Observer uint64 // raft's id of who asks
	From     uint64 // index of the first entry; 0: a snapshot, since the observer has no state yet
	Last     uint64 // the newest entry that the observer has on disk; it is committed
	LastTerm uint64 // its term; 0: it is not told
}

// Part is a request for a part of a snapshot's file.
type Part struct {
	Of     uint64 // raft's id of the member that has it
	Index  uint64 // the snapshot's
	Offset int64
}

// proposal is one call of Propose.
type proposal struct {
	term  uint64
	data  []byte
	index uint64     // of its entry; 0: not known yet
	done  chan error // of size 1; gets the result
}
