package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// AddOffsetsToTxn, key 25, versions 0 to 4 (KIP-98).
//
// 2: PRODUCER_FENCED. 3: flexible. 4: TRANSACTION_ABORTABLE (KIP-890).

func (b *Broker) addOffsetsToTxn(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AddOffsetsToTxnRequest)
	by := s.access()
	denied := int16(none)
	if !by.mayTransaction(meta.Write, req.TransactionalID) {
		denied = kerr.TransactionalIDAuthorizationFailed.Code
	} else if !by.mayGroup(meta.Read, req.Group) {
		denied = kerr.GroupAuthorizationFailed.Code
	}
	if denied != none {
		resp := kmsg.NewPtrAddOffsetsToTxnResponse()
		resp.ErrorCode = denied
		r.Reply(resp)
		return nil
	}
	b.ensureTopic(group.Topic)
	topic := b.cfg.Image().Topic(group.Topic)
	if topic == nil || len(topic.Partitions) == 0 {
		resp := kmsg.NewPtrAddOffsetsToTxnResponse()
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
		r.Reply(resp)
		return nil
	}
	partition := coord.PartitionOf(req.Group, int32(len(topic.Partitions)))
	b.cfg.Txns.AddOffsets(req, partition, containPanics(r, func(resp *kmsg.AddOffsetsToTxnResponse) { r.Reply(resp) }))
	return nil
}
