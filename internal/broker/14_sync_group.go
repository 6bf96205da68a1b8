package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// SyncGroup, key 14, versions 0 to 5.
//
// 3: static members (KIP-345). 4: flexible. 5: the protocol's type and name (KIP-559).

func (b *Broker) syncGroup(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.SyncGroupRequest)
	if by := s.access(); !by.mayGroup(meta.Read, req.Group) {
		resp := kmsg.NewPtrSyncGroupResponse()
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		r.Reply(resp)
		return nil
	}
	b.cfg.Groups.Sync(req, containPanics(r, func(resp *kmsg.SyncGroupResponse) {
		r.ReplyOr(resp, group.SyncPostponed(), len(resp.MemberAssignment))
	}))
	return nil
}
