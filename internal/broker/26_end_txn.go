package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// EndTxn, key 26, versions 0 to 5 (KIP-98).
//
// 2: PRODUCER_FENCED. 3: flexible. 4: TRANSACTION_ABORTABLE (KIP-890). 5: the epoch rises with each transaction, and the
// answer has the next one (KIP-890).
//
// The answer does not wait for the markers, as in Kafka.

func (b *Broker) endTxn(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.EndTxnRequest)
	if by := s.access(); !by.mayTransaction(meta.Write, req.TransactionalID) {
		resp := kmsg.NewPtrEndTxnResponse()
		resp.ProducerID, resp.ProducerEpoch = -1, -1
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		r.Reply(resp)
		return nil
	}
	b.cfg.Txns.EndTxn(req, containPanics(r, func(resp *kmsg.EndTxnResponse) { r.Reply(resp) }))
	return nil
}
