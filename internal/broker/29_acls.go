package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// DescribeAcls, key 29, CreateAcls, key 30, and DeleteAcls, key 31, versions 1 to 3.
//
// 1: patterns (KIP-290). 2: flexible. 3: users as resources (KIP-373).
//
// There is no authorizer, so that there are no ACLs, and none can be made.

func (*Broker) describeACLs(_ *session, r *wire.Request, _ kmsg.Request) error {
	resp := kmsg.NewPtrDescribeACLsResponse()
	resp.ErrorCode = kerr.SecurityDisabled.Code
	resp.ErrorMessage = new("No Authorizer is configured on the broker")
	r.Reply(resp)
	return nil
}

// noAuthorizer is the message of each ACL that is not made or deleted.
const noAuthorizer = "No Authorizer is configured."

func (b *Broker) createACLs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.CreateACLsRequest)
	var size answerSize
	size.add(len(req.Creations), len(noAuthorizer)*len(req.Creations))
	return b.replySized(r, size, func() kmsg.Response {
		resp := kmsg.NewPtrCreateACLsResponse()
		resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
		message := noAuthorizer
		for i := range resp.Results {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = kerr.SecurityDisabled.Code, &message
		}
		return resp
	})
}

func (b *Broker) deleteACLs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteACLsRequest)
	var size answerSize
	size.add(len(req.Filters), len(noAuthorizer)*len(req.Filters))
	return b.replySized(r, size, func() kmsg.Response {
		resp := kmsg.NewPtrDeleteACLsResponse()
		resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
		message := noAuthorizer
		for i := range resp.Results {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = kerr.SecurityDisabled.Code, &message
		}
		return resp
	})
}
