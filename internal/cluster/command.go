package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

// command is a kind of command. It and its answer travel as JSON: they are small and rare, and a node may
// not know all fields that another version has.
type command[Q, A any] struct {
	key  int16
	from peer.Kinds
	// check refuses a command that the peer may not give; nil: it may give any.
	check func(from *peer.Identity, q *Q) error
	// isForClients tells that clients cause the command, which may be any number of them.
	isForClients bool
	// by is what serves the command; nil: what serves the others.
	by func(c *Controller) *worker
	// isLocal tells that the node which an administrator asks does it itself, whoever is the active controller.
	isLocal bool
	// isShown tells that who gives the command looks for its effect on the node that it has asked.
	isShown bool
	// about is what of a command an audit log may have; nil, or empty: it is not recorded.
	about func(q *Q) string
	// hasChanged tells of an answer whether anything was changed, and else perhaps why not. A command that was not refused and has changed nothing, for no such reason, is not
	// recorded. nil: something always is.
	hasChanged func(a *A) (changed bool, whyNot error)
	// decide has the controller of this node decide. isOwn tells that this node has given the command.
	decide func(ctx context.Context, q *Q, isOwn bool) (a A, refused *controller.Error, err error)
}

// none is the answer to a command that has no other than that it was carried out.
type none struct{}

// outcome is the answer to a command.
type outcome[A any] struct {
	Applied uint64            `json:"applied"` // the entry that the controller's node had applied
	Refused *controller.Error `json:"refused,omitempty"`
	Answer  A                 `json:"answer"`
}

// run gives a command to the active controller.
func (k *command[Q, A]) run(ctx context.Context, c *Controller, q *Q) (a A, refused *controller.Error, err error) {
	body, err := k.encode(q)
	if err != nil {
		return a, nil, err
	}
	var o outcome[A]
	here := func(ctx context.Context) (err error) {
		o.Answer, o.Refused, err = k.decide(ctx, q, true)
		return err
	}
	there := func(ctx context.Context, node int32) error {
		answer, err := c.call(ctx, node, k.purpose(), k.key, body)
		if err != nil {
			return err
		}
		o, err = k.decodeOutcome(answer)
		return err
	}
	if err := c.repeat(ctx, here, there); err != nil {
		return a, nil, fmt.Errorf("%s: %w", peer.NameOf(k.key), err)
	}
	if k.isShown {
		c.awaitApplied(ctx, o.Applied)
	}
	return o.Answer, o.Refused, nil
}

// purpose is the purpose of the connection on which the command is sent.
func (k *command[Q, A]) purpose() peer.Purpose {
	if k.isForClients {
		return peer.Clients
	}
	return peer.Commands
}

// worker is what serves the command of another node.
func (k *command[Q, A]) worker(c *Controller) *worker {
	switch {
	case k.by != nil:
		return k.by(c)
	case k.isForClients:
		return c.clients
	}
	return c.work
}

func (k *command[Q, A]) encode(q *Q) ([]byte, error) {
	body, err := json.Marshal(q)
	if err == nil && len(body) > maxCommand {
		err = fmt.Errorf("%w: %d bytes", peer.ErrTooLarge, len(body))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", peer.NameOf(k.key), err)
	}
	return body, nil
}

func (*command[Q, A]) decodeOutcome(answer []byte) (o outcome[A], err error) {
	if err := json.Unmarshal(answer, &o); err != nil {
		return outcome[A]{}, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return o, nil
}

// handler serves the command. This node decides it, or says who leads. An administrator is served by any
// node, which gives the command for it.
func (k *command[Q, A]) handler(c *Controller) peer.Handler {
	return peer.Handler{Key: k.key, From: k.from, Serve: func(from *peer.Identity, r *wire.Request) error {
		q := new(Q)
		if body := r.Body(); len(body) > maxCommand {
			return fmt.Errorf("%w: %d bytes", errRequest, len(body))
		} else if err := json.Unmarshal(body, q); err != nil {
			return fmt.Errorf("%w: %w", errRequest, err)
		}
		if k.check != nil {
			if err := k.check(from, q); err != nil {
				return err
			}
		}
		given := k.describe(c, from, r, q)
		k.worker(c).serve(r, func(ctx context.Context) {
			body, err := k.serve(ctx, c, q, given)
			if err != nil {
				replyError(r, err)
				return
			}
			replyBody(r, body)
		})
		return nil
	}}
}

// describe is a command as it is recorded; nil: a node has given it.
func (k *command[Q, A]) describe(c *Controller, from *peer.Identity, r *wire.Request, q *Q) *Given {
	if from.IsAny(peer.Nodes) {
		return nil
	}
	given := &Given{From: from.NodeID, Key: k.key}
	if k.about == nil || c.cfg.Record == nil {
		return given
	}
	given.About = k.about(q)
	if a := r.Conn.RemoteAddr(); a != nil {
		given.Address = a.String()
	}
	return given
}

// record tells of a command of an administrator, and how it ended.
func (k *command[Q, A]) record(c *Controller, given *Given, o *outcome[A], err error) {
	if given == nil || given.About == "" || c.cfg.Record == nil {
		return
	}
	given.Refused, given.Err = o.Refused, err
	if k.hasChanged != nil && o.Refused == nil && err == nil {
		changed, whyNot := k.hasChanged(&o.Answer)
		if !changed && whyNot == nil {
			return
		}
		given.Err = whyNot
	}
	c.cfg.Record(given)
}

// serve serves a command: one of another node, or, with given, one of somebody who holds a data directory.
func (k *command[Q, A]) serve(ctx context.Context, c *Controller, q *Q, given *Given) (answer []byte, err error) {
	var o outcome[A]
	if given == nil || k.isLocal {
		o.Answer, o.Refused, err = k.decide(ctx, q, false)
		if k.isLocal {
			k.record(c, given, &o, err)
		}
		if errors.Is(err, quorum.ErrNotLeader) {
			err = &notLeaderError{c.cfg.Quorum.Leader()}
		}
	} else {
		o.Answer, o.Refused, err = k.run(ctx, c, q)
		k.record(c, given, &o, err)
	}
	if err != nil && ctx.Err() != nil {
		err = errStopping
	}
	if err != nil {
		return nil, err
	}
	o.Applied = c.applied()
	return json.Marshal(o)
}

// askAny asks the node at the other end of a connection, whichever it is.
func askAny[Q any](ctx context.Context, conn *peer.Conn, k *command[Q, none], q *Q) (*controller.Error, error) {
	_, refused, err := askFor(ctx, conn, k, q)
	return refused, err
}

// askFor is askAny for a command that has an answer.
func askFor[Q, A any](ctx context.Context, conn *peer.Conn, k *command[Q, A], q *Q) (a A, refused *controller.Error, err error) {
	body, err := k.encode(q)
	if err != nil {
		return a, nil, err
	}
	answer, err := callOn(ctx, conn, conn.Session().Peer.NodeID, &request{key: k.key, body: body, most: maxCommand})
	if err != nil {
		return a, nil, err
	}
	o, err := k.decodeOutcome(answer)
	return o.Answer, o.Refused, err
}
