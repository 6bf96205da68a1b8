package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// Heartbeat, key 12, versions 0 to 4.
//
// 3: static members (KIP-345). 4: flexible.

func (b *Broker) heartbeat(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.HeartbeatRequest)
	b.cfg.Groups.Heartbeat(req, containPanics(r, func(resp *kmsg.HeartbeatResponse) { r.Reply(resp) }))
	return nil
}
