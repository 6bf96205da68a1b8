package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DeleteGroups, key 42, versions 0 to 3. A group that is named twice is answered once.
//
// 2: flexible. 3: an error may have a message; those of classic groups have none, as in Kafka.

func (b *Broker) deleteGroups(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteGroupsRequest)
	by := s.access()
	names, denied := by.splitGroups(meta.DeleteOperation, dropRepeated(req.Groups))
	b.cfg.Groups.Delete(names, containPanics(r, func(groups []kmsg.DeleteGroupsResponseGroup) {
		resp := kmsg.NewPtrDeleteGroupsResponse()
		resp.Groups = groups
		for _, name := range denied {
			resp.Groups = append(resp.Groups, kmsg.DeleteGroupsResponseGroup{Group: name, ErrorCode: kerr.GroupAuthorizationFailed.Code})
		}
		r.Reply(resp)
	}))
	return nil
}
