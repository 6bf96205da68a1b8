package broker

import (
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// JoinGroup, key 11, versions 0 to 9.
//
// 1: a rebalance timeout of its own (KIP-62). 4: a new member must join again with the
// id that it is given (KIP-394). 5: static members (KIP-345). 6: flexible. 7: the answer
// has the protocol type (KIP-559). 8: a reason (KIP-800). 9: a static leader that comes
// back is told not to compute an assignment (KIP-814).

func (b *Broker) joinGroup(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.JoinGroupRequest)
	if by := s.access(); !by.mayGroup(meta.Read, req.Group) {
		resp := kmsg.NewPtrJoinGroupResponse()
		resp.Generation, resp.ErrorCode = -1, kerr.GroupAuthorizationFailed.Code
		if r.Version < 7 {
			resp.Protocol = new(string)
		}
		r.Reply(resp)
		return nil
	}
	b.cfg.Groups.Join(s.groupClient(r), req, containPanics(r, func(resp *kmsg.JoinGroupResponse) {
		r.ReplyOr(resp, group.JoinPostponed(resp.MemberID), joinAnswerSize(resp))
	}))
	return nil
}

// joinAnswerSize is about how many bytes an answer takes. That to a leader has the subscriptions of
// all members.
func joinAnswerSize(resp *kmsg.JoinGroupResponse) (n int) {
	const fixed = 128 // bytes of a member, and of the answer, without most of their texts
	for i := range resp.Members {
		mb := &resp.Members[i]
		n += fixed + len(mb.MemberID) + len(mb.ProtocolMetadata)
		if mb.InstanceID != nil {
			n += len(*mb.InstanceID)
		}
	}
	return n + fixed + len(resp.LeaderID) + len(resp.MemberID)
}

// groupClient is the client that has sent a request, as a group shows it.
func (s *session) groupClient(r *wire.Request) group.Client {
	host := ""
	if a := s.conn.RemoteAddr(); a != nil {
		host = a.String()
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	return group.Client{ID: r.ClientID, Host: "/" + host}
}
