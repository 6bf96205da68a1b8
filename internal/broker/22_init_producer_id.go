package broker

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// InitProducerId, key 22, versions 0 to 5.
//
// 2: flexible. 3: the producer's id and epoch (KIP-360). 4: PRODUCER_FENCED. 5:
// TRANSACTION_ABORTABLE (KIP-890).
//
// A producer without a transactional id always gets a new id with epoch 0: as in Kafka, it
// cannot go on with an id that it had before. A transactional producer is served by the coordinator of its
// transactional id. Two-phase commits (6, KIP-939) are not served.

func (s *session) initProducerID(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.InitProducerIDRequest)
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	by := s.access()
	switch {
	case req.TransactionalID != nil && !by.mayTransaction(meta.Write, *req.TransactionalID):
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
	case req.TransactionalID == nil && !by.mayProduce():
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = kerr.InvalidRequest.Code
	case req.TransactionalID != nil && s.b.cfg.Txns != nil && hasTransactions(s.b.cfg.Image()):
		return s.b.initTransactionalID(r, req)
	case req.TransactionalID != nil && s.b.cfg.Txns != nil:
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
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

// initTransactionalID has the coordinator of a transactional id serve its producer. The coordinator may need a producer
// id, and does not wait for one.
func (b *Broker) initTransactionalID(r *wire.Request, req *kmsg.InitProducerIDRequest) error {
	ctx, cancel := b.withinServerTime(serverTimeShare)
	defer cancel()
	if err := b.ids.ensureBlock(ctx, b.cfg.ProducerIDs); err != nil { // it needs none if the transactional id is known
		b.cfg.Logger.Warn("cannot reserve producer ids; new transactional producers cannot start until that works", "err", err)
	}
	b.cfg.Txns.InitProducerID(req, containPanics(r, func(resp *kmsg.InitProducerIDResponse) { r.Reply(resp) }))
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

// Take returns a producer id that nobody else gets, or false if none is left. Then the next block is being
// reserved. It is for txn.Service, and must not be called once the broker is closed.
func (b *Broker) Take() (int64, bool) {
	id, ok := b.ids.takeFromBlock()
	if !ok && !b.closed.Load() && b.ids.isReserving.CompareAndSwap(false, true) {
		b.done.Go(func() {
			defer b.ids.isReserving.Store(false)
			ctx, cancel := b.withinServerTime(serverTimeShare)
			defer cancel()
			if err := b.ids.ensureBlock(ctx, b.cfg.ProducerIDs); err != nil {
				b.cfg.Logger.Warn("cannot reserve producer ids; transactions of producers whose epochs are exhausted cannot end until that works", "err", err)
			}
		})
	}
	return id, ok
}

// producerIDs hands out ids from a block that the controller reserved for this node.
type producerIDs struct {
	turn        chan struct{} // of size 1; whoever has put a value into it may reserve the next block
	isReserving atomic.Bool   // a goroutine of Take does

	mu      sync.Mutex
	id, end int64 // guarded by mu: the ids id..end-1 are left
}

// takeID returns an id that was not returned before. It reserves a new block if no id is left.
func (p *producerIDs) takeID(ctx context.Context, reserve func(context.Context) (first, count int64, err error)) (int64, error) {
	for {
		if err := p.ensureBlock(ctx, reserve); err != nil {
			return 0, err
		}
		if id, ok := p.takeFromBlock(); ok { // else others were faster
			return id, nil
		}
	}
}

// ensureBlock reserves a new block if no id is left.
func (p *producerIDs) ensureBlock(ctx context.Context, reserve func(context.Context) (first, count int64, err error)) error {
	if p.hasIDs() {
		return nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.hasIDs() {
		return nil // another request has reserved a block meanwhile
	}
	first, count, err := reserve(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id, p.end = first, first+count
	return nil
}

func (p *producerIDs) hasIDs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id != p.end
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
