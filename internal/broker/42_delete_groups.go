package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// DeleteGroups, key 42, versions 0 to 2. A group that is named twice is answered once.
//
// 2: flexible.

func (b *Broker) deleteGroups(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteGroupsRequest)
	b.cfg.Groups.Delete(dropRepeated(req.Groups), containPanics(r, func(groups []kmsg.DeleteGroupsResponseGroup) {
		resp := kmsg.NewPtrDeleteGroupsResponse()
		resp.Groups = groups
		r.Reply(resp)
	}))
	return nil
}
