package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

// These are the forms of a forwarded request and of its answer. Numbers are big-endian, and a text is its
// length, u16, and its bytes. Later versions may add fields at the end of the head.
//
//	Forward    head size u16 | head | the body of the client's request, as it is in Kafka's protocol
//	head       key i16 | version i16 | time that is left in ms u32 | bytes that the answer may have u32
//	           | client id text | client's address text | listener's name text
//	answer     status u8 | entry of the metadata log that shows what was done u64 | the body of the answer
const (
	// maxForwards is how many requests of other nodes' clients are served at a time.
	maxForwards = 256
	// maxForwarded bounds the body of a client's request. Each node, however little memory it has, accepts
	// so much from another one.
	maxForwarded = 8 << 20
	// maxText bounds each text.
	maxText = 1 << 10
	// answerHead is the size of what stands before the body of the answer.
	answerHead = 1 + 8
)

var (
	// ErrLargeAnswer is returned for a client's request that was carried out, whose answer is larger than
	// the node that the client has asked takes.
	ErrLargeAnswer = errors.New("the request was carried out, and its answer is larger than this node has memory for")
	// ErrOverdue is returned for a client's request that was not answered within its time.
	ErrOverdue = fmt.Errorf("the time of the request is over: %w", context.DeadlineExceeded)
)

// Leader is the node of the active controller, as far as this one knows; -1: it does not.
func (c *Controller) Leader() int32 { return c.cfg.Quorum.Leader() }

// Positions are how far the nodes have told the active controller that they have the metadata. They are
// empty unless this node is it.
func (c *Controller) Positions() map[int32]controller.Position {
	return c.cfg.Local.Positions(c.cfg.Now())
}

// Forward has the active controller decide a client's request, within the time of the context, and
// returns the body of the answer when this node has applied what was done. If this node itself is the
// active controller, it calls here, which is to answer the client, and returns nil; here returns
// quorum.ErrNotLeader, and answers nothing, if another node is.
//
// A request whose answer is lost is sent again, as in Kafka, and may find that it was carried out: the
// topic that it makes exists.
func (c *Controller) Forward(ctx context.Context, q *wire.Carried, here func(ctx context.Context) error) (answer []byte, err error) {
	if len(q.Body) > maxForwarded {
		return nil, fmt.Errorf("%w: a client's request of %d bytes", peer.ErrTooLarge, len(q.Body))
	}
	var applied uint64
	own := func(ctx context.Context) error {
		answer, applied = nil, 0
		return here(ctx)
	}
	there := func(ctx context.Context, node int32) error {
		left, ok := timeLeft(ctx)
		if !ok {
			return ErrOverdue
		}
		b, err := c.callFor(ctx, node, &request{purpose: peer.Clients, key: peer.Forward, body: appendForward(q, left), most: answerHead + max(q.Most, maxReason)})
		if err == nil {
			answer, applied, err = cutForwarded(b)
		}
		return err
	}
	if err := c.repeat(ctx, own, there); err != nil {
		return nil, fmt.Errorf("%s: %w", peer.NameOf(peer.Forward), err)
	}
	c.awaitApplied(ctx, applied)
	return answer, nil
}

// timeLeft is how much time of the context is left.
func timeLeft(ctx context.Context) (left time.Duration, ok bool) {
	deadline, isSet := ctx.Deadline()
	if !isSet {
		return math.MaxUint32 * time.Millisecond, true
	}
	left = time.Until(deadline)
	return left, left > 0
}

func appendForward(q *wire.Carried, left time.Duration) []byte {
	texts := []string{q.ClientID, q.Address, q.Listener}
	size := 2 + 2 + 4 + 4
	for i, s := range texts {
		texts[i] = s[:min(len(s), maxText)]
		size += 2 + len(texts[i])
	}
	b := make([]byte, 0, 2+size+len(q.Body))
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = binary.BigEndian.AppendUint16(b, uint16(q.Key))
	b = binary.BigEndian.AppendUint16(b, uint16(q.Version))
	b = binary.BigEndian.AppendUint32(b, uint32(min(left.Milliseconds()+1, math.MaxUint32)))
	b = binary.BigEndian.AppendUint32(b, uint32(min(q.Most, math.MaxUint32)))
	for _, s := range texts {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return append(b, q.Body...)
}

// readForward reads a forwarded request, whose Body aliases b.
func readForward(b []byte) (q *wire.Carried, left time.Duration, err error) {
	r := reader{b: b}
	head := reader{b: r.cut(r.readUint16())}
	q = &wire.Carried{Body: r.b, Key: int16(head.readUint16()), Version: int16(head.readUint16())}
	left = time.Duration(head.readUint32()) * time.Millisecond
	q.Most = int(head.readUint32())
	q.ClientID = string(head.cut(head.readUint16()))
	q.Address = string(head.cut(head.readUint16()))
	q.Listener = string(head.cut(head.readUint16()))
	if r.failed || head.failed {
		return nil, 0, fmt.Errorf("%w: a forwarded request of %d bytes", errRequest, len(b))
	}
	return q, left, nil
}

func cutForwarded(b []byte) (answer []byte, applied uint64, err error) {
	r := reader{b: b}
	applied = r.readUint64()
	if r.failed {
		return nil, 0, fmt.Errorf("%w: %d bytes for a forwarded request", errAnswer, len(b))
	}
	return r.b, applied, nil
}

// forward serves the requests of other nodes' clients.
func (c *Controller) forward() peer.Handler {
	return peer.Handler{Key: peer.Forward, From: peer.Nodes, Serve: func(_ *peer.Identity, r *wire.Request) error {
		q, left, err := readForward(r.Body())
		switch leader := c.Leader(); {
		case err != nil:
			return err
		case leader != c.cfg.Quorum.cfg.NodeID: // the request takes no memory here
			replyError(r, &notLeaderError{leader})
			return nil
		case c.cfg.ServeClient == nil:
			replyError(r, ErrBusy)
			return nil
		}
		r.KeepBody()
		q.Body = r.Body()[r.BodySize()-len(q.Body):] // where the body is from now on
		c.forwards.serve(r, func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			isAnswered, err := r.ServeCarried(ctx, q, c.carrier(), func() error { return c.cfg.ServeClient(ctx, q, r) })
			if !isAnswered {
				replyError(r, c.explainUnserved(ctx, err))
			}
		})
		return nil
	}}
}

// carrier is what stands around the answer to a client's request.
func (c *Controller) carrier() wire.Carrier {
	return wire.Carrier{
		Head: func(b []byte) []byte {
			return binary.BigEndian.AppendUint64(append(b, byte(statusDone)), c.applied())
		},
		TooLarge: appendError(nil, ErrLargeAnswer),
	}
}

// explainUnserved is the error that the other node is told of for a client's request that was not answered.
func (c *Controller) explainUnserved(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, quorum.ErrNotLeader):
		return &notLeaderError{c.Leader()}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ErrOverdue
	case ctx.Err() != nil:
		return errStopping
	case err == nil:
		return errors.New("BUG: the request was not answered")
	}
	return err
}
