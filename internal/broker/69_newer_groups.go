package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// ConsumerGroupDescribe, key 69, versions 0 to 1 (KIP-848). ShareGroupDescribe, key 77,
// version 1 (KIP-932). StreamsGroupDescribe, key 89, version 0 (KIP-1071).
//
// There are no groups of these kinds yet. Tools ask here first, and for a classic group
// where GROUP_ID_NOT_FOUND is the answer.

// notOfKind is why a group is not described as one of a newer kind.
type notOfKind struct {
	group   string
	code    int16
	message *string
}

// lookForKind finds out why each group is none of a kind: it is not there, it is a classic
// one, or this node cannot tell. Like the answers of other APIs it may come later.
func (b *Broker) lookForKind(r *wire.Request, ids []string, kind string, answer func([]notOfKind) kmsg.Response) error {
	held, err := b.reserveAnswer(b.groupAnswer() + 8*int64(len(r.Body)))
	if err != nil {
		return err
	}
	const withMessages = 6 // the version of DescribeGroups that says that a group is not there
	b.cfg.Groups.Describe(distinct(ids), withMessages, contained(r, func(groups []kmsg.DescribeGroupsResponseGroup) {
		defer held.Release()
		list := make([]notOfKind, len(groups))
		for i := range groups {
			g, n := &groups[i], &list[i]
			switch n.group, n.code, n.message = g.Group, g.ErrorCode, g.ErrorMessage; {
			case g.Group == "":
				n.code, n.message = kerr.InvalidGroupID.Code, nil
			case g.ErrorCode == none:
				n.code, n.message = kerr.GroupIDNotFound.Code, new("Group "+g.Group+" is not a "+kind+" group.")
			}
		}
		b.replyHeld(r, answer(list), &held)
	}))
	return nil
}

func (b *Broker) consumerGroupDescribe(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ConsumerGroupDescribeRequest)
	return b.lookForKind(r, req.Groups, "consumer", func(list []notOfKind) kmsg.Response {
		resp := kmsg.NewPtrConsumerGroupDescribeResponse()
		for _, n := range list {
			g := kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group, g.ErrorCode, g.ErrorMessage = n.group, n.code, n.message
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}

func (b *Broker) shareGroupDescribe(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ShareGroupDescribeRequest)
	return b.lookForKind(r, req.GroupIDs, "share", func(list []notOfKind) kmsg.Response {
		resp := kmsg.NewPtrShareGroupDescribeResponse()
		for _, n := range list {
			g := kmsg.NewShareGroupDescribeResponseGroup()
			g.GroupID, g.ErrorCode, g.ErrorMessage = n.group, n.code, n.message
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}

func (b *Broker) streamsGroupDescribe(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.StreamsGroupDescribeRequest)
	return b.lookForKind(r, req.Groups, "streams", func(list []notOfKind) kmsg.Response {
		resp := kmsg.NewPtrStreamsGroupDescribeResponse()
		for _, n := range list {
			g := kmsg.NewStreamsGroupDescribeResponseGroup()
			g.Group, g.ErrorCode, g.ErrorMessage = n.group, n.code, n.message
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}
