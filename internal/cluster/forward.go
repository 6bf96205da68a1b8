package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
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
//	           | client id text | client's address text | listener's name text [ | principal text | what the client is u8 [ | groups u16 | name text for each ] ]
//	what the client is: the sum of 1 for a peer, and 2 for who may ask for delegation tokens; a version from before there were
//	these takes a sum other than 1 for nothing
//	answer     status u8 | entry of the metadata log that shows what was done u64 | the body of the answer
const (
	// maxForwards is how many requests of other nodes' clients are served at a time.
	maxForwards = 256
	// maxForwarded bounds the body of a client's request. Each node, however little memory it has, accepts
	// so much from another one.
	maxForwarded = 8 << 20
	// maxText bounds each text.
	maxText = 1 << 10
	// maxGroups is how many groups a client is in at most, and maxGroupBytes how many bytes their names have. Those of a login are fewer.
	maxGroups     = 1 << 10
	maxGroupBytes = 32 << 10
	// answerHead is the size of what stands before the body of the answer.
	answerHead = 1 + 8

	// These are the parts of the sum that says what a client is.
	carriedPeer, carriedMayHaveToken = 1, 2
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
	all := c.cfg.Local.Positions(c.cfg.Now())
	for id, p := range all {
		p.Unreached = c.reaches.explain(id)
		all[id] = p
	}
	return all
}

// Forward has the active controller decide a client's request, within the time of the context, and
// returns the body of the answer when this node has applied what was done. If this node itself is the
// active controller, it calls here, which is to answer the client, and returns nil; here returns
// quorum.ErrNotLeader, and answers nothing, if another node is.
//
// A request whose answer is lost is sent again, as in Kafka, and may find that it was carried out: the
// topic that it makes exists.
func (c *Controller) Forward(ctx context.Context, q *wire.Carried, here func(ctx context.Context) error) (answer []byte, err error) {
	if len(q.Principal) > maxText { // a part of it would be somebody else
		return nil, fmt.Errorf("%w: a principal of %d bytes", peer.ErrTooLarge, len(q.Principal))
	}
	if bytes := len(strings.Join(q.Groups, "")); bytes > maxGroupBytes || len(q.Groups) > maxGroups || slices.ContainsFunc(q.Groups, isLongText) {
		return nil, fmt.Errorf("%w: %d groups of %d bytes", peer.ErrTooLarge, len(q.Groups), bytes)
	}
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
	texts := []string{q.ClientID, q.Address, q.Listener, q.Principal}
	size := 2 + 2 + 4 + 4 + 1 + 2
	for i, s := range texts {
		texts[i] = s[:min(len(s), maxText)]
		size += 2 + len(texts[i])
	}
	for _, s := range q.Groups {
		size += 2 + len(s)
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
	is := byte(0)
	if q.IsPeer {
		is |= carriedPeer
	}
	if q.MayHaveToken {
		is |= carriedMayHaveToken
	}
	b = binary.BigEndian.AppendUint16(append(b, is), uint16(len(q.Groups)))
	for _, s := range q.Groups {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return append(b, q.Body...)
}

func isLongText(s string) bool { return len(s) > maxText }

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
	if len(head.b) > 0 { // a version from before there were principals does not tell them
		q.Principal = string(head.cut(head.readUint16()))
		is := head.readByte()
		q.IsPeer, q.MayHaveToken = is&carriedPeer != 0, is&carriedMayHaveToken != 0
	}
	if len(head.b) > 0 { // nor does one from before there were groups
		for range head.readUint16() {
			if q.Groups = append(q.Groups, string(head.cut(head.readUint16()))); head.failed {
				break
			}
		}
	}
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
