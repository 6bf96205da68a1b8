package credential_test

import (
	"errors"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/credential"
)

// agent is a world with a token for an agent, which nobody has used.
func agentWorld(t *testing.T) (*world, credential.Token) {
	t.Helper()
	w := newWorld(t)
	token := w.makeToken(here).ForAgent()
	w.agents[token.ID()] = token.Verifier(now.Add(time.Hour))
	return w, token
}

// TestAgentsProveThemselves proves that an agent is let in by its token, and who may use a token: until its end anybody who has it, once, and after that its holder alone, also behind that
// end.
func TestAgentsProveThemselves(t *testing.T) {
	held := func(w *world, token credential.Token, by credential.NodeKey, expires time.Time) {
		v := token.Verifier(expires)
		v.Holder = by.Public()
		w.agents[token.ID()] = v
	}
	for _, c := range []struct {
		name   string
		change func(w *world, token credential.Token, own credential.NodeKey)
		want   error
	}{
		{"a new token", func(*world, credential.Token, credential.NodeKey) {}, nil},
		{"one that has ended", func(w *world, k credential.Token, _ credential.NodeKey) { w.agents[k.ID()] = k.Verifier(now) }, credential.ErrAgentTokenExpired},
		{"its own", func(w *world, k credential.Token, own credential.NodeKey) { held(w, k, own, now.Add(time.Hour)) }, nil},
		{"its own, behind its end", func(w *world, k credential.Token, own credential.NodeKey) { held(w, k, own, now.Add(-time.Hour)) }, nil},
		{"another agent's", func(w *world, k credential.Token, _ credential.NodeKey) { held(w, k, w.makeKey(), now.Add(time.Hour)) }, credential.ErrTokenUsed},
		{"revoked", func(w *world, k credential.Token, _ credential.NodeKey) { delete(w.agents, k.ID()) }, credential.ErrStranger},
		{"among the join tokens", func(w *world, k credential.Token, _ credential.NodeKey) {
			w.tokens[k.ID()] = w.agents[k.ID()]
			delete(w.agents, k.ID())
		}, credential.ErrStranger},
	} {
		w, token := agentWorld(t)
		key := w.makeKey()
		c.change(w, token, key)
		o := shake(credential.DialAsAgent(token, range1, key, w.random), w.accept(2), w, 2, nil)
		if !errors.Is(o.dialError, c.want) || (o.dialError == nil) != (c.want == nil) || (o.acceptError == nil) != (c.want == nil) {
			t.Errorf("%s: %v, %v", c.name, o.dialError, o.acceptError)
		}
		if p := o.acceptor.Peer; c.want == nil && (p.Kind != credential.KindAgent || p.Key != key.Public() || p.Token != token.ID()) {
			t.Errorf("%s: it is %+v", c.name, p)
		}
	}
}

// TestTokensOfAgentsAreNoJoinTokens is an attack by one who has the token of an agent, and joins with it as a node would.
func TestTokensOfAgentsAreNoJoinTokens(t *testing.T) {
	w, token := agentWorld(t)
	j := w.join()
	j.Token = token
	if o := shake(credential.DialAsJoiner(j, w.random), w.accept(2), w, 5, nil); !errors.Is(o.dialError, credential.ErrStranger) || o.succeeded() {
		t.Errorf("it joins: %v, %v", o.dialError, o.acceptError)
	}
	s := newStranger(w)
	s.kind, s.node, s.token, s.tokenSeed = credential.KindJoiner, credential.AnyNode, token.ID(), seedOf(token)
	if err := s.attack(w.accept(2)); !errors.Is(err, credential.ErrUnknownToken) {
		t.Errorf("it joins, and does not look at who answers: %v", err)
	}
	o := shake(credential.DialAsAgent(w.token, range1, w.makeKey(), w.random), w.accept(2), w, 5, nil)
	if !errors.Is(o.dialError, credential.ErrStranger) || o.succeeded() {
		t.Errorf("an agent has a join token: %v, %v", o.dialError, o.acceptError)
	}
}

// TestTextOfAgentTokens proves that the text of a token says that it is for an agent, and whether it needs TLS.
func TestTextOfAgentTokens(t *testing.T) {
	w := newWorld(t)
	for _, token := range []credential.Token{w.token, w.token.WithTLS(), w.token.ForAgent(), w.token.ForAgent().WithTLS()} {
		got, err := credential.ParseToken(token.Text())
		if err != nil || got != token || got.IsForAgent() != token.IsForAgent() || got.NeedsTLS() != token.NeedsTLS() {
			t.Errorf("%v is read as %v, %v", token.Text(), got, err)
		}
	}
}
