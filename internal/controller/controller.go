// Package controller decides every change of the cluster's metadata.
//
// A command is decided by a pure function from the newest image to records and
// results (topics.go, placement.go, configs.go, cluster.go); the records are proposed to the
// metadata quorum, which applies them on every node; then the results are
// returned. Controller runs one command at a time, so that each is decided on the
// image that the one before it left.
//
// All methods may be called concurrently. There is no lock: a command waits for its
// turn on a channel, and its caller gives up when the context ends. What was proposed
// by then keeps the turn until it is known what became of it.
package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/meta"
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

// Config hands the controller what it needs.
type Config struct {
	Image func() *meta.Image // the newest image; never nil
	// Propose returns when the records were committed and Image shows them, or when
	// they never will be. Its context does not end: see Controller.do.
	Propose func(ctx context.Context, records []byte) error
	Static  *meta.Static // this node's own settings
}

// Controller decides and proposes.
type Controller struct {
	cfg  Config
	turn chan struct{} // holds one token: whoever has it decides
}

// New makes a controller.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// do runs one command: decide returns the records to propose, none where there is
// nothing to change.
func (c *Controller) do(ctx context.Context, decide func(m *meta.Image) []byte) error {
	if err := ctx.Err(); err != nil { // a select might choose the turn all the same
		return err
	}
	select {
	case <-c.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	records, err := c.decide(decide)
	if err != nil || len(records) == 0 {
		c.turn <- struct{}{}
		return err
	}
	// What is given up may be committed all the same, and what is decided next must
	// know of it: the turn does not end with the caller's patience.
	done := make(chan error, 1)
	go func() { // it ends with the quorum at the latest
		err := c.cfg.Propose(context.WithoutCancel(ctx), records)
		c.turn <- struct{}{}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// decide runs a decision on the newest image. The caller has the turn.
func (c *Controller) decide(decide func(m *meta.Image) []byte) ([]byte, error) {
	m := c.cfg.Image()
	records := decide(m)
	if len(records) == 0 {
		return nil, nil
	}
	// What cannot be applied must never be committed: no node would get past it.
	if _, _, err := meta.Apply(m, records); err != nil {
		return nil, fmt.Errorf("a decision that does not fit its image: %w", err)
	}
	return records, nil
}
