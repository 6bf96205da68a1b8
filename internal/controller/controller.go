// Package controller decides every change of the cluster's metadata.
//
// A command is decided by a pure function from the newest image to records and
// results (topics.go, placement.go, configs.go, cluster.go); the records are proposed to the
// metadata quorum, which applies them on every node; then the results are
// returned. Commands are decided one at a time, each on the image that the one before
// it leaves; those that come while a proposal is under way are proposed together
// when it has ended, as one entry, which is there wholly or not at all.
//
// A decision belongs to a term of the quorum: it is made on an image that has all
// that was committed in earlier terms, and proposed for that term only. What another
// leader may have committed meanwhile therefore never meets a decision that does not
// know it.
//
// All methods may be called concurrently. There is no lock: a command waits for its
// turn on a channel, and its caller gives up when the context ends. What it has
// decided by then is proposed all the same, and what follows knows of it.
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
)

// Error is a refusal. Its message goes to the client as it is; it may be empty,
// where Kafka gives none but the code's own.
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

// errNoRoom tells that a command is to be decided again when the open batch is under way.
var errNoRoom = errors.New("the batch is full")

// Config hands the controller what it needs.
type Config struct {
	Image func() *meta.Image // the newest image; never nil
	// Leading returns the term in which this node leads the quorum, once Image shows all
	// that was committed in earlier ones; false: it does not lead, and decides nothing.
	Leading func() (term uint64, ok bool)
	// Propose returns when the records were committed in that term and Image shows them,
	// or when they never will be. Its context does not end: see Controller.do.
	Propose func(ctx context.Context, term uint64, records []byte) error
	Static  *config.Static // this node's own settings
}

const (
	// maxBatch is how many bytes of records are proposed together: a command that does
	// not fit is decided when the others are under way. A larger one is proposed alone.
	maxBatch = 1 << 20
	// maxTries is how often a command is decided that rests on what a proposal of
	// others then did not make.
	maxTries = 3
)

// Controller decides and proposes.
type Controller struct {
	cfg Config
	// turn holds one token: whoever has it decides, and owns the fields below. Where
	// the open batch takes no more, full holds it until that is proposed.
	turn, full chan struct{}

	flying *batch      // being proposed; nil: nothing is
	open   *batch      // to be proposed after that; nil: nothing is
	image  *meta.Image // as both leave it; nil: as it is
	term   uint64      // in which both were decided
}

// batch is the records of some commands, in the order in which they were decided.
type batch struct {
	term    uint64
	records []byte
	done    chan struct{} // closed when it is known what became of it:
	err     error         // why it was not made
	void    bool          // it was not proposed, since the one before it was not made
}

// New makes a controller.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg, turn: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// do runs one command: decide returns the records to propose, none where there is
// nothing to change. What decide notes is to be read only where do returns nil.
func (c *Controller) do(ctx context.Context, decide func(m *meta.Image) []byte) error {
	for tries := 1; ; {
		if err := ctx.Err(); err != nil { // a select might choose the turn all the same
			return err
		}
		select {
		case <-c.turn:
		case <-ctx.Done():
			return ctx.Err()
		}
		b, own, err := c.decide(ctx, decide)
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
		if b.err == nil || own && !b.void || tries == maxTries {
			return b.err
		}
		tries++
	}
}

// decide runs a decision on the newest image and returns the batch that it waits
// for: its own, or the newest of others, on which an answer rests that changes
// nothing; nil: none. The caller has the turn, and has it no more.
func (c *Controller) decide(ctx context.Context, decide func(m *meta.Image) []byte) (b *batch, own bool, err error) {
	m, term := c.image, c.term
	if m == nil {
		var leads bool
		if term, leads = c.cfg.Leading(); !leads {
			c.turn <- struct{}{}
			return nil, false, quorum.ErrNotLeader
		}
		m = c.cfg.Image() // after the term: it may know more, never less
	}
	records := decide(m)
	if len(records) == 0 {
		b = cmp.Or(c.open, c.flying)
		c.turn <- struct{}{}
		return b, false, nil
	}
	if c.open != nil && len(c.open.records)+len(records) > maxBatch {
		c.full <- struct{}{}
		return nil, false, errNoRoom
	}
	// What cannot be applied must never be committed: no node would get past it.
	next, _, err := meta.Apply(m, records)
	if err != nil {
		c.turn <- struct{}{}
		return nil, false, fmt.Errorf("a decision that does not fit its image: %w", err)
	}
	c.image, c.term = next, term
	b = c.open
	switch {
	case c.flying == nil:
		b = &batch{term: term, records: records, done: make(chan struct{})}
		c.flying = b
		go c.propose(context.WithoutCancel(ctx), b) // it ends with the quorum at the latest
	case b == nil:
		b = &batch{term: term, records: records, done: make(chan struct{})}
		c.open = b
	default:
		b.records = append(b.records, records...)
	}
	c.turn <- struct{}{}
	return b, true, nil
}

// propose proposes a batch, and then what has come meanwhile. Until it is known what
// became of a batch, however long its commands' callers wait for that, nothing that
// was decided on it is proposed, or answered.
func (c *Controller) propose(ctx context.Context, b *batch) {
	for b != nil {
		b.err = c.cfg.Propose(ctx, b.term, b.records)
		select {
		case <-c.turn:
		case <-c.full:
		}
		next := c.open
		c.open = nil
		if b.err != nil && next != nil {
			next.err, next.void = b.err, true
			close(next.done)
			next = nil
		}
		if next == nil {
			c.image = nil
		}
		c.flying = next
		close(b.done)
		c.turn <- struct{}{}
		b = next
	}
}
