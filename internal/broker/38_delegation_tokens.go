package broker

import (
	"context"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// CreateDelegationToken, key 38, versions 1 to 3. RenewDelegationToken, key 39, and ExpireDelegationToken, key 40, versions 1 to 2.
// DescribeDelegationToken, key 41, versions 1 to 3 (KIP-48).
//
// 2: flexible. 3: tokens for another user (KIP-373).
//
// A client may ask for tokens if it has logged in, by a certificate or by SASL, and not with a token itself. It may create tokens
// for itself, and for another user with CREATE_TOKENS on that user, but not if it is in groups, in which the token's holder would not be, so that what
// ACLs deny to the groups would be allowed; a token's owner and its renewers may renew and expire it; and they,
// who has asked for it, and who has DESCRIBE on the token or DESCRIBE_TOKENS on its owner may see it with its secret.
//
// The node that the client has asked refuses what it can by itself (api.screen), as Kafka's brokers do, and the active controller
// judges all of it again.

// tokenCommands are what the active controller decides about delegation tokens. A controller.Delegations decides them.
type tokenCommands interface {
	Create(ctx context.Context, now time.Time, ask *controller.NewDelegationToken) (controller.MadeToken, *controller.Error, error)
	Renew(ctx context.Context, now time.Time, ask *controller.TokenChange) (expires int64, refused *controller.Error, err error)
	Expire(ctx context.Context, now time.Time, ask *controller.TokenChange) (expires int64, refused *controller.Error, err error)
}

// failedTokens are tokenCommands that all fail.
type failedTokens struct{ err error }

func (f failedTokens) Create(context.Context, time.Time, *controller.NewDelegationToken) (controller.MadeToken, *controller.Error, error) {
	return controller.MadeToken{}, nil, f.err
}

func (f failedTokens) Renew(context.Context, time.Time, *controller.TokenChange) (int64, *controller.Error, error) {
	return 0, nil, f.err
}

func (f failedTokens) Expire(context.Context, time.Time, *controller.TokenChange) (int64, *controller.Error, error) {
	return 0, nil, f.err
}

// tokenAsker is who asks for delegation tokens.
type tokenAsker struct {
	principal auth.Principal
	isAllowed bool // it has logged in, and not with a token
	isInGroup bool
}

// tokenAskerOf is the client of a connection.
func tokenAskerOf(s *session) tokenAsker {
	a := tokenAsker{principal: s.principal, isAllowed: s.principal != auth.Anonymous(), isInGroup: len(s.groups) > 0}
	if s.gate != nil {
		a.isAllowed = s.gate.state == loggedIn && !s.gate.proof.isToken()
	}
	return a
}

// noTime is in answers without a token.
const noTime = -1

// screenToken refuses a request of this node's client for tokens, or a change of them. The error has a code; nil: it may be decided.
func screenToken(s *session) *kerr.Error {
	b := s.b
	switch {
	case !tokenAskerOf(s).isAllowed:
		return kerr.DelegationTokenRequestNotAllowed
	case b.cfg.Image().Level() >= meta.LevelIdentity:
		return nil
	case b.cfg.Delegations.Key() == nil: // an active controller of an older version knows no tokens, and need not be asked
		return kerr.DelegationTokenAuthDisabled
	}
	return kerr.UnsupportedVersion
}

func screenNewToken(s *session, kreq kmsg.Request) kmsg.Response {
	req, _ := kreq.(*kmsg.CreateDelegationTokenRequest)
	by, asker := s.access(), tokenAskerOf(s)
	refused := refuseNewToken(&by, asker, req)
	if refused == nil {
		refused = screenToken(s)
	}
	if refused == nil {
		return nil
	}
	return answerNoToken(asker.principal, req, refused.Code)
}

// refuseNewToken is the code for a token that the client may not have; nil: it may.
func refuseNewToken(by *access, asker tokenAsker, req *kmsg.CreateDelegationTokenRequest) *kerr.Error {
	owner := ownerOfNewToken(asker.principal, req)
	switch {
	case !asker.isAllowed || asker.isInGroup:
		return kerr.DelegationTokenRequestNotAllowed
	case owner != asker.principal && !by.may(meta.CreateTokens, meta.UserResource, owner.String()):
		return kerr.DelegationTokenAuthorizationFailed
	}
	for i := range req.Renewers {
		if req.Renewers[i].PrincipalType != auth.UserType {
			return kerr.InvalidPrincipalType
		}
	}
	return nil
}

// ownerOfNewToken is the user that a request names, or who asks.
func ownerOfNewToken(asker auth.Principal, req *kmsg.CreateDelegationTokenRequest) auth.Principal {
	if req.OwnerPrincipalName == nil || *req.OwnerPrincipalName == "" {
		return asker
	}
	owner := auth.Principal{Name: *req.OwnerPrincipalName}
	if req.OwnerPrincipalType != nil {
		owner.Type = *req.OwnerPrincipalType
	}
	return owner
}

// answerNoToken is the answer to who gets no token.
func answerNoToken(asker auth.Principal, req *kmsg.CreateDelegationTokenRequest, code int16) *kmsg.CreateDelegationTokenResponse {
	resp := kmsg.NewPtrCreateDelegationTokenResponse()
	owner := ownerOfNewToken(asker, req)
	resp.ErrorCode = code
	resp.PrincipalType, resp.PrincipalName = owner.Type, owner.Name
	resp.TokenRequesterPrincipalType, resp.TokenRequesterPrincipalName = asker.Type, asker.Name
	resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp = noTime, noTime, noTime
	resp.HMAC = []byte{}
	return resp
}

// sizeOfNewToken is the memory of the answer to a request for a token, which names the user of the request.
func sizeOfNewToken(req *kmsg.CreateDelegationTokenRequest) (size missing.Memory) {
	size.Add(1, 2*auth.LongestName)
	for _, text := range []*string{req.OwnerPrincipalName, req.OwnerPrincipalType} {
		if text != nil {
			size.Add(0, len(*text))
		}
	}
	return size
}

func (b *Broker) createToken(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.CreateDelegationTokenRequest)
	ask := controller.NewDelegationToken{
		Owner: ownerOfNewToken(d.asker.principal, req), Requester: d.asker.principal, MaxLifetime: req.MaxLifetimeMillis,
	}
	for i := range req.Renewers {
		ask.Renewers = append(ask.Renewers, auth.Principal{Type: req.Renewers[i].PrincipalType, Name: req.Renewers[i].PrincipalName})
	}
	resp := answerNoToken(d.asker.principal, req, none)
	run := func() error {
		if refused := refuseNewToken(&d.by, d.asker, req); refused != nil {
			resp.ErrorCode = refused.Code
			return nil
		}
		ctx, cancel := d.within(meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout)
		defer cancel()
		made, refused, failed := d.tokens.Create(ctx, time.Now(), &ask)
		if d.isElsewhere(failed) {
			return failed
		}
		if resp.ErrorCode, _ = outcomeOf(refused, failed); resp.ErrorCode != none {
			resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp = 0, 0, 0 // as Kafka's controllers answer
			return nil
		}
		resp.IssueTimestamp, resp.ExpiryTimestamp, resp.MaxTimestamp = made.Issued, made.Expires, made.MaxTime
		resp.TokenID, resp.HMAC = made.ID.String(), made.Secret
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfNewToken(req), Make: func(func()) kmsg.Response { return resp }})
}

func screenRenewal(s *session, _ kmsg.Request) kmsg.Response {
	if refused := screenToken(s); refused != nil {
		return &kmsg.RenewDelegationTokenResponse{ErrorCode: refused.Code, ExpiryTimestamp: noTime}
	}
	return nil
}

func (b *Broker) renewToken(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.RenewDelegationTokenRequest)
	code, expires, err := b.changeToken(d, func(ctx context.Context) (int64, *controller.Error, error) {
		return d.tokens.Renew(ctx, time.Now(), &controller.TokenChange{By: d.asker.principal, HMAC: req.HMAC, Period: req.RenewTimeMillis})
	})
	if err == nil {
		r.Reply(&kmsg.RenewDelegationTokenResponse{ErrorCode: code, ExpiryTimestamp: expires})
	}
	return err
}

func screenExpiry(s *session, _ kmsg.Request) kmsg.Response {
	if refused := screenToken(s); refused != nil {
		return &kmsg.ExpireDelegationTokenResponse{ErrorCode: refused.Code, ExpiryTimestamp: noTime}
	}
	return nil
}

func (b *Broker) expireToken(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ExpireDelegationTokenRequest)
	code, expires, err := b.changeToken(d, func(ctx context.Context) (int64, *controller.Error, error) {
		return d.tokens.Expire(ctx, time.Now(), &controller.TokenChange{By: d.asker.principal, HMAC: req.HMAC, Period: req.ExpiryPeriodMillis})
	})
	if err == nil {
		r.Reply(&kmsg.ExpireDelegationTokenResponse{ErrorCode: code, ExpiryTimestamp: expires})
	}
	return err
}

// changeToken runs a change of a token, and returns its code and the token's new end. With an error nothing is answered.
func (b *Broker) changeToken(d *decision, run func(ctx context.Context) (int64, *controller.Error, error)) (code int16, expires int64, err error) {
	if !d.asker.isAllowed {
		return kerr.DelegationTokenRequestNotAllowed.Code, noTime, nil
	}
	ctx, cancel := d.within(meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout)
	defer cancel()
	expires, refused, failed := run(ctx)
	if d.isElsewhere(failed) {
		return 0, 0, failed
	}
	code, _ = outcomeOf(refused, failed)
	return code, expires, nil
}

func (b *Broker) describeTokens(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeDelegationTokenRequest)
	resp := kmsg.NewPtrDescribeDelegationTokenResponse()
	asker := tokenAskerOf(s)
	switch {
	case !asker.isAllowed:
		resp.ErrorCode = kerr.DelegationTokenRequestNotAllowed.Code
	case b.cfg.Delegations.Key() == nil:
		resp.ErrorCode = kerr.DelegationTokenAuthDisabled.Code
	case req.Owners == nil || len(req.Owners) > 0:
		return b.replyTokens(s, r, req)
	}
	r.Reply(resp)
	return nil
}

// describedTokenMemory is about how much memory a token takes in an answer besides its texts and its renewers.
const describedTokenMemory = 512

// replyTokens answers with the tokens that the client may see of those of some owners, with their secrets. A token that was made with
// another key than this node's is shown without one.
func (b *Broker) replyTokens(s *session, r *wire.Request, req *kmsg.DescribeDelegationTokenRequest) error {
	all := b.cfg.Image().DelegationTokens()
	held, err := b.reserveAnswer(r, elementMemory+describedTokenMemory*int64(all.Len())+4*int64(all.Bytes()))
	if err != nil {
		return err
	}
	defer held.Release()
	owners := make(map[string]bool, len(req.Owners))
	for i := range req.Owners {
		owners[req.Owners[i].PrincipalType+":"+req.Owners[i].PrincipalName] = true
	}
	client, asker := s.access(), s.principal.String()
	by := client.quietly()
	resp := kmsg.NewPtrDescribeDelegationTokenResponse()
	list := all.Sorted()
	b.inTurns(len(list), func(i int) {
		t := list[i]
		switch {
		case req.Owners != nil && !isTokenOfAny(t, owners):
		case t.IsOwnedOrRenewedBy(asker), by.may(meta.Describe, meta.DelegationTokenResource, t.ID.String()), by.may(meta.DescribeTokens, meta.UserResource, t.Owner):
			resp.TokenDetails = append(resp.TokenDetails, b.describeToken(t))
		}
	})
	b.replyHeld(r, resp, &held)
	return nil
}

// isTokenOfAny tells whether one of some principals is the token's owner, has asked for it or may renew it.
func isTokenOfAny(t *meta.DelegationToken, principals map[string]bool) bool {
	if principals[t.Owner] || principals[t.Requester] {
		return true
	}
	for _, renewer := range t.Renewers {
		if principals[renewer] {
			return true
		}
	}
	return false
}

func (b *Broker) describeToken(t *meta.DelegationToken) kmsg.DescribeDelegationTokenResponseTokenDetail {
	d := kmsg.NewDescribeDelegationTokenResponseTokenDetail()
	d.PrincipalType, d.PrincipalName, _ = strings.Cut(t.Owner, ":")
	d.TokenRequesterPrincipalType, d.TokenRequesterPrincipalName, _ = strings.Cut(t.Requester, ":")
	d.IssueTimestamp, d.ExpiryTimestamp, d.MaxTimestamp, d.TokenID, d.HMAC = t.Issued, t.Expires, t.MaxTime, t.ID.String(), []byte{}
	if b.cfg.Delegations.Key().Made(t) {
		d.HMAC = b.cfg.Delegations.Key().HMAC(t.ID)
	}
	for _, renewer := range t.Renewers {
		var rr kmsg.DescribeDelegationTokenResponseTokenDetailRenewer
		rr.PrincipalType, rr.PrincipalName, _ = strings.Cut(renewer, ":")
		d.Renewers = append(d.Renewers, rr)
	}
	return d
}
