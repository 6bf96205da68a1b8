package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/wire"
)

// AddOffsetsToTxn, key 25, versions 0 to 4 (KIP-98).
//
// 2: PRODUCER_FENCED. 3: flexible. 4: TRANSACTION_ABORTABLE (KIP-890).

func (b *Broker) addOffsetsToTxn(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AddOffsetsToTxnRequest)
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
