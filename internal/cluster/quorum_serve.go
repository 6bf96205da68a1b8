package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

var (
	errNoQuorum   = errors.New("the metadata quorum of this node does not run")
	errNoLeader   = errors.New("this node does not know a leader of the metadata quorum")
	errOtherRaft  = errors.New("this node has another id of raft")
	errForAnother = errors.New("it speaks for the raft id of another node")
)

// Handlers serve the messages of other nodes' quorums.
func (q *Quorum) Handlers() []peer.Handler {
	return []peer.Handler{
		{Key: peer.QuorumMessages, From: peer.Nodes, Serve: q.takeMessages},
		{Key: peer.PullMetadata, From: peer.Nodes, Serve: q.servePull},
		{Key: peer.MetadataSnapshot, From: peer.Nodes, Serve: q.servePart},
	}
}

// takeMessages passes messages to the quorum. One that it cannot read is dropped and logged there.
func (q *Quorum) takeMessages(from *peer.Identity, r *wire.Request) error {
	n := q.node.Load()
	for b := r.Body(); len(b) > 0; {
		m, rest, err := cutMessage(b)
		if err != nil {
			return err
		}
		b = rest
		if sender, err := quorum.SenderOf(m); err == nil && !q.names.note(sender, from.NodeID) {
			return fmt.Errorf("%w: %016x", errForAnother, sender)
		}
		if n != nil {
			_ = n.Step(m) // it has logged what is wrong
		}
	}
	return nil
}

// cutMessage cuts the first message off a frame.
func cutMessage(b []byte) (m, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%w: it ends within a message", errRequest)
	}
	size := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(size) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: a message of %d bytes, of which %d are there", errRequest, size, len(b))
	}
	return b[:size], b[size:], nil
}

// servePull answers with committed entries when there are any.
func (q *Quorum) servePull(from *peer.Identity, r *wire.Request) error {
	b := r.Body()
	if from.Version < termsVersion && len(b) == pullSizeOld {
		b = append(b[:pullSizeOld:pullSizeOld], make([]byte, 8)...)
	}
	if len(b) != pullSize {
		return fmt.Errorf("%w: a pull of %d bytes", errRequest, len(b))
	}
	p := quorum.Pull{Observer: binary.BigEndian.Uint64(b), From: binary.BigEndian.Uint64(b[8:]), Last: binary.BigEndian.Uint64(b[16:]), LastTerm: binary.BigEndian.Uint64(b[24:])}
	if !q.names.note(p.Observer, from.NodeID) {
		return fmt.Errorf("%w: %016x", errForAnother, p.Observer)
	}
	n := q.node.Load()
	if n == nil {
		replyError(r, errNoQuorum)
		return nil
	}
	q.work.serve(r, func(ctx context.Context) {
		entries, err := awaitEntries(ctx, n, p)
		if err != nil {
			replyError(r, err)
			return
		}
		replyBody(r, entries)
	})
	return nil
}

// awaitEntries waits for committed entries. If none come, the caller asks again, unless this node is
// cut off from the quorum: then another one may have some.
func awaitEntries(ctx context.Context, n *quorum.Node, p quorum.Pull) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTime)
	defer cancel()
	entries, err := n.ReadCommitted(ctx, p)
	switch {
	case err == nil || ctx.Err() == nil:
		return entries, err
	case n.Status().LeaderRaftID == 0:
		return nil, errNoLeader
	}
	return nil, errNothing
}

// servePart answers with a part of a snapshot.
func (q *Quorum) servePart(_ *peer.Identity, r *wire.Request) error {
	b := r.Body()
	if len(b) != partSize {
		return fmt.Errorf("%w: a request of %d bytes for a part of a snapshot", errRequest, len(b))
	}
	p := quorum.Part{Of: binary.BigEndian.Uint64(b), Index: binary.BigEndian.Uint64(b[8:]), Offset: int64(binary.BigEndian.Uint64(b[16:]))}
	n := q.node.Load()
	switch {
	case n == nil:
		replyError(r, errNoQuorum)
		return nil
	case n.Status().RaftID != p.Of:
		replyError(r, errOtherRaft)
		return nil
	}
	q.work.serve(r, func(context.Context) { // which reads a file
		part, err := n.ReadSnapshot(p)
		if err != nil {
			replyError(r, err)
			return
		}
		replyBody(r, part)
	})
	return nil
}
