package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// LeaveGroup, key 13, versions 0 to 5.
//
// 3: many members, also by their instance ids (KIP-345). 4: flexible. 5: a reason
// (KIP-800).

func (b *Broker) leaveGroup(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.LeaveGroupRequest)
	if by := s.access(); !by.mayGroup(meta.Read, req.Group) {
		resp := kmsg.NewPtrLeaveGroupResponse()
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		r.Reply(resp)
		return nil
	}
	b.cfg.Groups.Leave(req, containPanics(r, func(resp *kmsg.LeaveGroupResponse) { r.Reply(resp) }))
	return nil
}
