package missing

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls, key 29, CreateAcls, key 30, and DeleteAcls, key 31, versions 1 to 3.
//
// 1: patterns (KIP-290). 2: flexible. 3: users as resources (KIP-373).
//
// There is no authorizer, so there are no ACLs, and none can be created.

func describeACLs(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrDescribeACLsResponse()
	resp.ErrorCode = kerr.SecurityDisabled.Code
	resp.ErrorMessage = new("No Authorizer is configured on the broker")
	return fixedAnswer(resp)
}

// noAuthorizer is the message for each ACL that is not created or deleted.
const noAuthorizer = "No Authorizer is configured."

func createACLs(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.CreateACLsRequest)
	var size Memory
	size.Add(len(req.Creations), len(noAuthorizer)*len(req.Creations))
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrCreateACLsResponse()
		resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
		message := noAuthorizer
		for i := range resp.Results {
			pass()
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = kerr.SecurityDisabled.Code, &message
		}
		return resp
	}}
}

func deleteACLs(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.DeleteACLsRequest)
	var size Memory
	size.Add(len(req.Filters), len(noAuthorizer)*len(req.Filters))
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrDeleteACLsResponse()
		resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
		message := noAuthorizer
		for i := range resp.Results {
			pass()
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = kerr.SecurityDisabled.Code, &message
		}
		return resp
	}}
}
