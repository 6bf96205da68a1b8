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
// A producer without a transactional id always gets a new id with epoch 0: what it
// had before cannot be continued, as in Kafka. There are no transactions yet.

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
		// The clients take this one for final; any code of the coordinator's
		// would have them ask again for ever.
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
	default:
		id, err := s.b.ids.next(s.b.cfg.Context(), s.b.cfg.ProducerIDs)
		if err != nil {
			s.b.cfg.Logger.Warn("no producer id could be reserved", "error", err)
			resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
			break
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	}
	r.Reply(resp)
	return nil
}

// producerIDs hands out ids from a block that the controller reserved for this node.
type producerIDs struct {
	turn chan struct{} // size 1: held by who reserves the next block

	mu      sync.Mutex
	id, end int64 // guarded by mu: the ids id..end-1 are left
}

// next hands out an id, reserving a new block where none is left.
func (p *producerIDs) next(ctx context.Context, reserve func(context.Context) (first, count int64, err error)) (int64, error) {
	if id, ok := p.take(); ok {
		return id, nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if id, ok := p.take(); ok {
		return id, nil // somebody else has reserved meanwhile
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

func (p *producerIDs) take() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.id == p.end {
		return 0, false
	}
	p.id++
	return p.id - 1, true
}
