package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// ConsumerGroupDescribe, key 69, versions 0 to 1 (KIP-848). ShareGroupDescribe, key 77,
// version 1 (KIP-932). StreamsGroupDescribe, key 89, versions 0 to 1 (KIP-1071).
//
// There are no groups of these kinds yet. Tools ask for a group of these kinds first, and
// for a classic one if the answer is GROUP_ID_NOT_FOUND.

// notOfKind is the answer for a group that is not of a newer kind.
type notOfKind struct {
	group   string
	code    int16
	message *string
}

// answerNotOfKind answers for each group why it is not of the kind: it does not exist, it is
// a classic group, or this node does not know. The answer may be sent after it returns.
func (b *Broker) answerNotOfKind(s *session, r *wire.Request, ids []string, kind string, answer func([]notOfKind) kmsg.Response) error {
	held, err := b.reserveAnswer(r, b.groupAnswerMemory()+8*int64(r.BodySize()))
	if err != nil {
		return err
	}
	const withMessages = 6 // the version of DescribeGroups with an error for a group that does not exist
	by := s.access()
	names, denied := by.splitGroups(meta.Describe, dropRepeated(ids))
	b.cfg.Groups.Describe(names, withMessages, containPanics(r, func(groups []kmsg.DescribeGroupsResponseGroup) {
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
		var refused []notOfKind
		for _, name := range denied {
			refused = append(refused, notOfKind{group: name, code: kerr.GroupAuthorizationFailed.Code})
		}
		b.replyHeld(r, answer(slices.Concat(list, refused)), &held)
	}))
	return nil
}

func (b *Broker) consumerGroupDescribe(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ConsumerGroupDescribeRequest)
	return b.answerNotOfKind(s, r, req.Groups, "consumer", func(list []notOfKind) kmsg.Response {
		resp := kmsg.NewPtrConsumerGroupDescribeResponse()
		for _, n := range list {
			g := kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group, g.ErrorCode, g.ErrorMessage = n.group, n.code, n.message
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}

func (b *Broker) shareGroupDescribe(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ShareGroupDescribeRequest)
	return b.answerNotOfKind(s, r, req.GroupIDs, "share", func(list []notOfKind) kmsg.Response {
		resp := kmsg.NewPtrShareGroupDescribeResponse()
		for _, n := range list {
			g := kmsg.NewShareGroupDescribeResponseGroup()
			g.GroupID, g.ErrorCode, g.ErrorMessage = n.group, n.code, n.message
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}

func (b *Broker) streamsGroupDescribe(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.StreamsGroupDescribeRequest)
	return b.answerNotOfKind(s, r, req.Groups, "streams", func(list []notOfKind) kmsg.Response {
		resp := kmsg.NewPtrStreamsGroupDescribeResponse()
		for _, n := range list {
			g := kmsg.NewStreamsGroupDescribeResponseGroup()
			g.Group, g.ErrorCode, g.ErrorMessage = n.group, n.code, n.message
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}
