package broker

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// InitProducerId, key 22, versions 0 to 5.
//
// 2: flexible. 3: the producer's id and epoch (KIP-360). 4: PRODUCER_FENCED. 5:
// TRANSACTION_ABORTABLE (KIP-890).
//
// A producer without a transactional id always gets a new id with epoch 0: as in Kafka, it
// cannot go on with an id that it had before. There are no transactions yet.

func (s *session) initProducerID(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.InitProducerIDRequest)
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = kerr.InvalidRequest.Code
	case req.TransactionalID != nil:
		// Clients give up at this code; with those of a coordinator they would
		// ask again for ever.
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
	default:
		id, err := s.b.takeProducerID()
		if err != nil {
			s.b.cfg.Logger.Warn("cannot reserve producer ids; producers with enable.idempotence cannot start until that works", "err", err)
			resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
			break
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	}
	r.Reply(resp)
	return nil
}

// takeProducerID returns an id that no other producer has. It waits at most for the time in which the
// active controller is to reserve a new block.
func (b *Broker) takeProducerID() (int64, error) {
	if id, ok := b.ids.takeFromBlock(); ok {
		return id, nil
	}
	ctx, cancel := b.withinServerTime(serverTimeShare)
	defer cancel()
	return b.ids.takeID(ctx, b.cfg.ProducerIDs)
}

// producerIDs hands out ids from a block that the controller reserved for this node.
type producerIDs struct {
	turn chan struct{} // of size 1; whoever has put a value into it may reserve the next block

	mu      sync.Mutex
	id, end int64 // guarded by mu: the ids id..end-1 are left
}

// takeID returns an id that was not returned before. It reserves a new block if no id is left.
func (p *producerIDs) takeID(ctx context.Context, reserve func(context.Context) (first, count int64, err error)) (int64, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if id, ok := p.takeFromBlock(); ok {
		return id, nil // another request has reserved a block meanwhile
	}
	first, count, err := reserve(ctx)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id, p.end = first+1, first+count
	return first, nil
}

func (p *producerIDs) takeFromBlock() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id == p.end {
		return 0, false
	}
	p.id++
	return p.id - 1, true
}
