package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeGroups, key 15, versions 0 to 6.
//
// 3: authorised operations (KIP-430). 4: instance ids (KIP-345). 5: flexible. 6: a group
// that does not exist is GROUP_ID_NOT_FOUND with a message; before, it was "Dead"
// (KIP-1043).
//
// A group that is named many times is described once, so that a small request does not
// have a huge answer.

// groupOperations are all operations on groups, as bits: read, delete, describe, describe
// configs, alter configs.
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

// describedGroupMemory is about how much memory a group takes in an answer besides what the
// node keeps of it: a name that no group has takes that, too.
const describedGroupMemory = 384

func (b *Broker) describeGroups(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeGroupsRequest)
	names := dropRepeated(req.Groups)
	memory := b.groupAnswerMemory()
	for _, name := range names {
		memory += describedGroupMemory + 3*int64(len(name)) // the answer has it in its message, too
	}
	held, err := b.reserveAnswer(r, memory)
	if err != nil {
		return err
	}
	by := s.sharedAccess()
	names, denied := by.splitGroups(meta.Describe, names)
	b.cfg.Groups.Describe(names, r.Version, containPanics(r, func(groups []kmsg.DescribeGroupsResponseGroup) {
		defer held.Release()
		resp := kmsg.NewPtrDescribeGroupsResponse()
		resp.Groups = groups
		if r.Version >= 3 && req.IncludeAuthorizedOperations {
			for i := range groups {
				if groups[i].ErrorCode == none {
					groups[i].AuthorizedOperations = by.operations(groupOperations, meta.GroupResource, groups[i].Group)
				}
			}
		}
		for _, name := range denied {
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group, g.ErrorCode = name, kerr.GroupAuthorizationFailed.Code
			resp.Groups = append(resp.Groups, g)
		}
		b.replyHeld(r, resp, &held)
	}))
	return nil
}
