package missing

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateDelegationToken, key 38, versions 1 to 3. RenewDelegationToken, key 39, and
// ExpireDelegationToken, key 40, versions 1 to 2. DescribeDelegationToken, key 41,
// versions 1 to 3 (KIP-48).
//
// 3: tokens for another user (KIP-373). On a listener without security no client has logged
// in, and a client that has not logged in may not ask for tokens.

// The principal of clients that have not logged in.
const (
	anonymousType = "User"
	anonymousName = "ANONYMOUS"
)

func createDelegationToken(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.CreateDelegationTokenRequest)
	resp := kmsg.NewPtrCreateDelegationTokenResponse()
	resp.ErrorCode = kerr.DelegationTokenRequestNotAllowed.Code
	resp.PrincipalType, resp.PrincipalName = anonymousType, anonymousName
	resp.TokenRequesterPrincipalType, resp.TokenRequesterPrincipalName = anonymousType, anonymousName
	if req.OwnerPrincipalName != nil && *req.OwnerPrincipalName != "" {
		resp.PrincipalName = *req.OwnerPrincipalName
		if resp.PrincipalType = ""; req.OwnerPrincipalType != nil {
			resp.PrincipalType = *req.OwnerPrincipalType
		}
	}
	resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp = -1, -1, -1
	resp.HMAC = []byte{}
	var size Memory
	size.Add(1, len(resp.PrincipalName)+len(resp.PrincipalType))
	return Answer{Memory: size, Make: func(func()) kmsg.Response { return resp }}
}

func renewDelegationToken(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrRenewDelegationTokenResponse()
	resp.ErrorCode, resp.ExpiryTimestamp = kerr.DelegationTokenRequestNotAllowed.Code, -1
	return fixedAnswer(resp)
}

func expireDelegationToken(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrExpireDelegationTokenResponse()
	resp.ErrorCode, resp.ExpiryTimestamp = kerr.DelegationTokenRequestNotAllowed.Code, -1
	return fixedAnswer(resp)
}

func describeDelegationToken(Node, kmsg.Request) Answer {
	resp := kmsg.NewPtrDescribeDelegationTokenResponse()
	resp.ErrorCode = kerr.DelegationTokenRequestNotAllowed.Code
	return fixedAnswer(resp)
}
