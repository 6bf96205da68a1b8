package broker

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/wire"
)

// SaslHandshake, key 17, versions 0 to 1. SaslAuthenticate, key 36, versions 0 to 2 (KIP-43, KIP-152, KIP-368).
//
// SaslHandshake 0: the messages of the mechanism follow as tokens without a header. 1: they follow in SaslAuthenticate. SaslAuthenticate
// 1: the lifetime of the session. 2: flexible.
//
// The order of requests is that of loginState. Where a client need not log in, or has done so, both are refused, and the
// connection stays open, as in Kafka.

const (
	saslHandshakeKey    = 17
	saslAuthenticateKey = 36
)

// loginAPIs are the APIs of logins, as they are outside of one.
func loginAPIs() []api {
	return []api{
		{key: saslHandshakeKey, name: "SaslHandshake", min: 0, max: 1, serve: func(_ *session, r *wire.Request, _ kmsg.Request) error {
			resp := kmsg.NewPtrSASLHandshakeResponse()
			resp.ErrorCode = kerr.IllegalSaslState.Code
			r.Reply(resp)
			return nil
		}},
		{key: saslAuthenticateKey, name: "SaslAuthenticate", min: 0, max: 2, serve: func(_ *session, r *wire.Request, _ kmsg.Request) error {
			resp := kmsg.NewPtrSASLAuthenticateResponse()
			resp.ErrorCode = kerr.IllegalSaslState.Code
			resp.ErrorMessage = new("SaslAuthenticate request received after successful authentication")
			r.Reply(resp)
			return nil
		}},
	}
}

// serveHandshake begins a login by the mechanism that the client names.
func (g *clientLogin) serveHandshake(r *wire.Request) error {
	if a := g.s.b.apis[saslHandshakeKey]; r.Version < a.min || r.Version > a.max {
		return fmt.Errorf("%w: versions %d to %d are served", ErrUnsupported, a.min, a.max)
	}
	d := reader{b: r.Body()}
	name := string(d.readName(false))
	if !d.isValid() {
		return wire.ErrMalformed
	}
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.SupportedMechanisms = g.rules.names()
	m := g.rules.mechanism(name)
	if m == nil {
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		const shown = 32
		answer := func() { r.Reply(resp) }
		if g.again {
			answer = nil // as in Kafka
		}
		return g.failLogin(fmt.Errorf("there is no mechanism %.*q here", shown, name), answer)
	}
	if g.again && name != g.mechanism { // the client is told with its next message, as in Kafka
		g.wrongWay = fmt.Errorf("SASL mechanism '%s' requested by client is not supported for re-authentication of mechanism '%s'", name, g.mechanism)
	}
	g.state, g.mechanism, g.exchange, g.byTokens = exchanging, name, m.Start(), r.Version == 0
	r.ExpectTokens(g.byTokens)
	r.Reply(resp)
	return nil
}

// serveMessage takes a message of the mechanism.
func (g *clientLogin) serveMessage(r *wire.Request) error {
	if g.byTokens {
		return g.takeMessage(r, r.Body())
	}
	if r.Key != saslAuthenticateKey {
		return g.failLogin(fmt.Errorf("a request with key %d came in place of SaslAuthenticate", r.Key), g.refuseOrder(r))
	}
	a := g.s.b.apis[saslAuthenticateKey]
	if r.Version < a.min || r.Version > a.max {
		return fmt.Errorf("%w: versions %d to %d are served", ErrUnsupported, a.min, a.max)
	}
	d := reader{b: r.Body()}
	isFlexible := r.Version >= 2
	message := d.readBytes(isFlexible)
	d.readTags(isFlexible, nil)
	if !d.isValid() || message == nil {
		return wire.ErrMalformed
	}
	return g.takeMessage(r, message)
}

// refuseOrder answers a request that comes too early, if it is one of those that clients send before a login; nil: it is not answered.
func (g *clientLogin) refuseOrder(r *wire.Request) func() {
	a := g.s.b.findAPI(r.Key)
	if a == nil || r.Version < a.min || r.Version > a.max {
		return nil
	}
	switch r.Key {
	case saslHandshakeKey:
		return func() { r.Reply(&kmsg.SASLHandshakeResponse{ErrorCode: kerr.IllegalSaslState.Code}) }
	case apiVersionsKey:
		return func() { r.Reply(&kmsg.ApiVersionsResponse{ErrorCode: kerr.IllegalSaslState.Code}) }
	}
	return nil
}

// smallMessage is how long a message of a login is that is copied, so that the request's buffer is not kept while the mechanism waits for its turn:
// the buffer may be half a megabyte, whatever the message is. Messages of PLAIN and SCRAM are no longer.
const smallMessage = 4 << 10

// takeMessage has the mechanism take a message, and answers it.
func (g *clientLogin) takeMessage(r *wire.Request, message []byte) error {
	if len(message) <= smallMessage {
		message = bytes.Clone(message)
		g.s.conn.GiveUpBodies()
	}
	answer, login, err := g.exchange.Step(g.s.conn.Context(), message)
	if err == nil && login != nil && g.again && login.Principal != g.s.principal {
		err = &auth.RefusedError{Text: fmt.Sprintf("Cannot change principals during re-authentication from %s.%s: %s.%s",
			g.s.principal.Type, g.s.principal.Name, login.Principal.Type, login.Principal.Name)}
	}
	if err != nil {
		return g.failLogin(err, g.refuseMessage(r, err))
	}
	lifetime := time.Duration(0)
	if login != nil {
		g.ends = time.Time{}
		if d, ok := g.lifetimeOf(login); ok {
			lifetime, g.ends = d, time.Now().Add(d)
		}
		r.ExpectTokens(false)
		g.endLogin(login)
	}
	if g.byTokens {
		p := r.Begin()
		p.B = append(p.B, answer...)
		r.Send(p)
		return nil
	}
	r.Reply(&kmsg.SASLAuthenticateResponse{SASLAuthBytes: slices.Clip(answer), SessionLifetimeMillis: lifetime.Milliseconds()})
	return nil
}

// refuseMessage answers a message that has ended a login; nil: there is no answer to a token. The client is told no more than the
// mechanism allows.
func (g *clientLogin) refuseMessage(r *wire.Request, err error) func() {
	if g.byTokens {
		return nil
	}
	during := "authentication"
	if g.again {
		during = "re-authentication"
	}
	text := fmt.Sprintf("Authentication failed during %s due to invalid credentials with SASL mechanism %s", during, g.mechanism)
	if refused, ok := errors.AsType[*auth.RefusedError](err); ok {
		text = refused.Text
	}
	return func() {
		r.Reply(&kmsg.SASLAuthenticateResponse{ErrorCode: kerr.SaslAuthenticationFailed.Code, ErrorMessage: &text, SASLAuthBytes: []byte{}})
	}
}
