package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// OffsetDelete, key 47, version 0 (KIP-496).

func (b *Broker) offsetDelete(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.OffsetDeleteRequest)
	b.cfg.Groups.DeleteOffsets(req, func(resp *kmsg.OffsetDeleteResponse) { r.Reply(resp) })
	return nil
}
