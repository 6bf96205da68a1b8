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

// missingGroup is the code and the message for a group that is not there.
func missingGroup(id string) (code int16, message *string) {
	if id == "" {
		return kerr.InvalidGroupID.Code, nil
	}
	return kerr.GroupIDNotFound.Code, new("Group " + id + " not found.")
}

// sizeOfMissing is the size of an answer about groups that are not there.
func sizeOfMissing(ids []string) (size answerSize) {
	const messageText = 32
	for _, id := range ids {
		size.add(1, 2*len(id)+messageText)
	}
	return size
}

func (b *Broker) consumerGroupDescribe(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ConsumerGroupDescribeRequest)
	return b.replySized(r, sizeOfMissing(req.Groups), func() kmsg.Response {
		resp := kmsg.NewPtrConsumerGroupDescribeResponse()
		for _, id := range distinct(req.Groups) {
			g := kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group = id
			g.ErrorCode, g.ErrorMessage = missingGroup(id)
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}

func (b *Broker) shareGroupDescribe(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ShareGroupDescribeRequest)
	return b.replySized(r, sizeOfMissing(req.GroupIDs), func() kmsg.Response {
		resp := kmsg.NewPtrShareGroupDescribeResponse()
		for _, id := range distinct(req.GroupIDs) {
			g := kmsg.NewShareGroupDescribeResponseGroup()
			g.GroupID = id
			g.ErrorCode, g.ErrorMessage = missingGroup(id)
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}

func (b *Broker) streamsGroupDescribe(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.StreamsGroupDescribeRequest)
	return b.replySized(r, sizeOfMissing(req.Groups), func() kmsg.Response {
		resp := kmsg.NewPtrStreamsGroupDescribeResponse()
		for _, id := range distinct(req.Groups) {
			g := kmsg.NewStreamsGroupDescribeResponseGroup()
			g.Group = id
			g.ErrorCode, g.ErrorMessage = missingGroup(id)
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	})
}
