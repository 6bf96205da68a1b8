// Package controller decides every change of the cluster's metadata.
//
// Each exported method of a Controller is a command. A pure function makes records and
// results of the newest image and the command (topics.go, placement.go, configs.go,
// cluster.go, and the Rules for what concerns several nodes). The records are proposed to the metadata quorum, which applies them on
// every node, and then the results are returned. Commands are decided one at a time,
// each on the image that the one before it leaves. Those that come while a proposal is
// under way make one batch, which is the next proposal: a single entry of the metadata
// log, which is committed as a whole or not at all.
//
// A decision belongs to a term of the quorum: it is made on an image that has all
// entries of earlier terms, and is proposed for that term only. So it is never applied
// behind an entry of another leader that it did not know.
//
// The active controller also knows who is alive (Liveness). That is not in the metadata; what
// follows from it is: a broker that is gone is fenced. A controller whose term begins gives
// everybody a whole session timeout.
//
// All methods may be called concurrently. No lock is held over a decision: a command waits for
// its turn on a channel, and its caller gives up when the context ends. Records that it
// has decided by then are proposed all the same, and later decisions know of them. Commands that
// keep the cluster alive (heartbeats, registrations, in-sync sets) have their turn before all that
// clients have asked for.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// Kind says why a command, or one item of it, was refused.
type Kind uint8

// Kinds of refusal. Each has one of Kafka's error codes.
const (
	InvalidRequest Kind = iota + 1
	InvalidTopic
	TopicExists
	UnknownTopic
	UnknownTopicID
	InvalidPartitions
	InvalidReplicationFactor
	InvalidAssignment
	InvalidConfig
	PolicyViolation
	UnknownPartition
	InconsistentClusterID
	InvalidRegistration
	DuplicateBroker
	UnsupportedFeature
	BrokerNotRegistered
	StaleBrokerEpoch
	NotController     // the leader knows more than this controller
	FencedLeaderEpoch // the leader has been replaced
	InvalidUpdate     // the partition has changed since the request was made
	IneligibleReplica // a member of a proposed in-sync set may not be in it
	NewLeaderElected  // the change was made, and another replica leads since
	ElectionNotNeeded
	PreferredLeaderNotAvailable
	EligibleLeadersNotAvailable
	NoReassignment
	UnknownToken
	DuplicateResource
	UnacceptableCredential
	UnsupportedMechanism
	UnknownCredential
	TopicDenied // the client may not do that; the broker finds out
	GroupDenied
	ClusterDenied
	ThrottlingQuotaExceeded // the client has changed more partitions than its quota allows
	DelegationTokensOff
	DelegationTokenDenied // the client may not have a token of another owner; the broker finds out
	DelegationTokenNotAllowed
	UnknownDelegationToken
	EndedDelegationToken
	DelegationTokenOfOther // who asks is neither its owner nor one of its renewers
	InvalidPrincipalType
	UnknownLink
)

// Error is a refusal. Its message goes to the client unchanged. If it is empty, the
// client gets the message of the code.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("refused (%d)", e.Kind)
	}
	return e.Message
}

func refuse(kind Kind, format string, args ...any) *Error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}

// ErrNoProducerIDs is returned when the cluster has given out all its producer ids.
var ErrNoProducerIDs = errors.New("controller: there are no producer ids left")

// errNoRoom means that a command must be decided again once the open batch is being
// proposed.
var errNoRoom = errors.New("the batch is full")

// Config connects the controller with the quorum and this node.
type Config struct {
	// Image returns the newest image, never nil.
	Image func() *meta.Image
	// Leading returns the term in which this node leads the quorum, once Image shows all
	// entries that were committed in earlier terms. If ok is false this node does not lead,
	// and decides nothing.
	Leading func() (term uint64, ok bool)
	// Propose returns nil when the records were committed in that term and Image shows
	// them, or an error when they never will be. Its context never ends, since later
	// decisions depend on the outcome.
	Propose func(ctx context.Context, term uint64, records []byte) error
	// Applied is the index of the metadata log that Image shows, or a lower one. It may be nil
	// for a cluster of one node.
	Applied func() uint64
	// ConfirmLeading returns nil once most voters have confirmed, since the call, that this node leads. It may be nil for a
	// cluster of one node.
	ConfirmLeading func(ctx context.Context) error
	// CanAdminister tells whether somebody could log in who may do everything, if an image were the newest. It may be nil: then that is not asked.
	CanAdminister func(m *meta.Image) bool
	// NewID draws the ids of topics. It is nil for random ones; a simulation draws them from its
	// seed.
	NewID func() meta.UUID
	// Static are this node's own settings.
	Static *config.Static
	// MaxPartitions is how many partitions the cluster may have. 0 stands for the constant
	// MaxPartitions. A cluster that has more already keeps them, and gets no new ones.
	MaxPartitions int
}

const (
	// maxBatch bounds the bytes of records that are proposed together. A command that does
	// not fit into the open batch is decided when that is being proposed; the records of a
	// larger command are proposed alone.
	maxBatch = 1 << 20
	// maxTries is how often a command is decided at most. It is decided again if a batch
	// of other commands, on which the decision depended, was not committed.
	maxTries = 3
)

// Controller decides commands and proposes their records. See the package doc.
type Controller struct {
	cfg Config
	// One token goes round in three channels. A goroutine that has received it owns the
	// fields below, until it sends it back (passTurn). The token is in turn while commands can be
	// decided, and in full while the open batch is full: then only the goroutine of
	// proposeBatches takes it. first has no room: by it the token is handed to a command of the
	// cluster, or to proposeBatches, if one of them waits, past all commands of clients.
	first, turn, full chan struct{}

	inFlight *batch      // is being proposed; nil if none is
	open     *batch      // is proposed after that; nil if it has no records yet
	image    *meta.Image // the image after both batches; nil if inFlight is
	term     uint64      // the term in which both were decided

	live liveness
}

// batch has the records of some commands, in the order in which they were decided.
type batch struct {
	term        uint64
	records     []byte
	done        chan struct{} // closed when the outcome is known; err and notProposed are read after that
	err         error         // why it was not committed; nil if it was
	notProposed bool          // it was not proposed, since the batch before it was not committed
}

// New makes a controller.
func New(cfg Config) *Controller {
	cfg.MaxPartitions = cmp.Or(cfg.MaxPartitions, MaxPartitions)
	if cfg.NewID == nil {
		cfg.NewID = meta.NewUUID
	}
	c := &Controller{cfg: cfg, first: make(chan struct{}), turn: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// origin says who has caused a command, and so which commands go before it.
type origin uint8

const (
	ofCluster origin = iota // its nodes, by themselves: without these commands nodes are fenced, and partitions stand still
	ofClients               // clients: any number of these commands may wait
)

// passTurn passes the token on. A command of the cluster that waits comes before all commands of clients.
func (c *Controller) passTurn() {
	select {
	case c.first <- struct{}{}:
	default: // nobody waits there
		c.turn <- struct{}{}
	}
}

// runCommand runs one command: decide returns the records to propose, or none if there
// is nothing to change. It may be called several times. The results that it leaves
// behind are valid only if runCommand returns nil.
func (c *Controller) runCommand(ctx context.Context, by origin, decide func(m *meta.Image) []byte) error {
	first := c.first
	if by == ofClients {
		first = nil
	}
	for tries := 1; ; {
		if err := ctx.Err(); err != nil { // a select might choose the turn all the same
			return err
		}
		select {
		case <-first:
		case <-c.turn:
		case <-ctx.Done():
			return ctx.Err()
		}
		b, own, err := c.decideCommand(ctx, decide)
		if errors.Is(err, errNoRoom) {
			continue
		}
		if err != nil || b == nil {
			return err
		}
		select {
		case <-b.done:
		case <-ctx.Done(): // it may be committed all the same
			return ctx.Err()
		}
		if b.err == nil || own && !b.notProposed || tries == maxTries {
			return b.err
		}
		tries++
	}
}

// runParts runs a command whose records may be too many for one entry: it is decided again
// until there is nothing more to change, each time on the image after the part before.
func (c *Controller) runParts(ctx context.Context, by origin, decide func(r *Rules) (Part, *Error)) (refused *Error, err error) {
	for more := true; more && refused == nil; {
		err := c.runCommand(ctx, by, func(m *meta.Image) []byte {
			d, err := decide(&Rules{Image: m, Static: c.cfg.Static})
			more, refused = d.More, err
			return d.Records
		})
		if err != nil {
			return nil, err
		}
	}
	return refused, nil
}

// runItems runs a command of n items, whose records may be too many for one entry. decide
// decides as many of them as fit, beginning with one of them, and returns which comes next.
// If that is the same one, the command is refused as a whole.
func (c *Controller) runItems(ctx context.Context, by origin, n int, decide func(r *Rules, from int) (records []byte, next int)) error {
	for from := 0; ; {
		var next int
		err := c.runCommand(ctx, by, func(m *meta.Image) (records []byte) {
			records, next = decide(&Rules{Image: m, Static: c.cfg.Static}, from)
			return records
		})
		if err != nil || next == from || next >= n {
			return err
		}
		from = next
	}
}

// decideCommand runs a decision on the newest image and returns the batch whose
// outcome the command must wait for. That is the batch with its own records (own is
// true); or, if there is nothing to change, the newest batch of other commands, since
// the decision has seen their records; or nil. The caller has the token, which
// decideCommand passes on.
func (c *Controller) decideCommand(ctx context.Context, decide func(m *meta.Image) []byte) (b *batch, own bool, err error) {
	m, term := c.image, c.term
	if m == nil {
		var leads bool
		if term, leads = c.cfg.Leading(); !leads {
			c.passTurn()
			return nil, false, quorum.ErrNotLeader
		}
		m = c.cfg.Image() // after the term: it may know more, never less
	}
	records := decide(m)
	if len(records) == 0 {
		b = cmp.Or(c.open, c.inFlight)
		c.passTurn()
		return b, false, nil
	}
	if c.open != nil && len(c.open.records)+len(records) > maxBatch {
		c.full <- struct{}{}
		return nil, false, errNoRoom
	}
	// Records that cannot be applied must never be committed: no node could get past them.
	next, _, err := meta.Apply(m, records)
	if err != nil {
		c.passTurn()
		return nil, false, fmt.Errorf("a decision that does not fit its image: %w", err)
	}
	c.image, c.term = next, term
	b = c.open
	switch {
	case c.inFlight == nil:
		b = &batch{term: term, records: records, done: make(chan struct{})}
		c.inFlight = b
		go c.proposeBatches(context.WithoutCancel(ctx), b) // it ends with the quorum at the latest
	case b == nil:
		b = &batch{term: term, records: records, done: make(chan struct{})}
		c.open = b
	default:
		b.records = append(b.records, records...)
	}
	c.passTurn()
	return b, true, nil
}

// proposeBatches proposes a batch and then, one after another, the batches that were
// filled meanwhile. A batch was decided on top of the one before it. It is proposed only
// if that one was committed; otherwise its commands are decided again.
func (c *Controller) proposeBatches(ctx context.Context, b *batch) {
	for b != nil {
		b.err = c.cfg.Propose(ctx, b.term, b.records)
		select {
		case <-c.first:
		case <-c.turn:
		case <-c.full:
		}
		next := c.open
		c.open = nil
		if b.err != nil && next != nil {
			next.err, next.notProposed = b.err, true
			close(next.done)
			next = nil
		}
		if next == nil {
			c.image = nil
		}
		c.inFlight = next
		close(b.done)
		c.passTurn()
		b = next
	}
}
