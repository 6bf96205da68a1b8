package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ListGroups, key 16, versions 0 to 5. It lists the groups that this node coordinates.
//
// 3: flexible. 4: states, and a filter by state (KIP-518). 5: types, and a filter by type
// (KIP-848).

func (b *Broker) listGroups(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListGroupsRequest)
	held, err := b.reserveAnswer(r, b.groupAnswerMemory())
	if err != nil {
		return err
	}
	by := s.sharedAccess()
	b.cfg.Groups.List(req, containPanics(r, func(resp *kmsg.ListGroupsResponse) {
		defer held.Release()
		if quiet := by.quietly(); !quiet.mayCluster(auth.InsteadOf(16)) {
			resp.Groups = slices.DeleteFunc(resp.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return !quiet.mayGroup(meta.Describe, g.Group) })
		}
		b.replyHeld(r, resp, &held)
	}))
	return nil
}
