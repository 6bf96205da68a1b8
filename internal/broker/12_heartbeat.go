package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// Heartbeat, key 12, versions 0 to 4.
//
// 3: static members (KIP-345). 4: flexible.

func (b *Broker) heartbeat(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.HeartbeatRequest)
	if by := s.access(); !by.mayGroup(meta.Read, req.Group) {
		resp := kmsg.NewPtrHeartbeatResponse()
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		r.Reply(resp)
		return nil
	}
	b.cfg.Groups.Heartbeat(req, containPanics(r, func(resp *kmsg.HeartbeatResponse) { r.Reply(resp) }))
	return nil
}
