package controller

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// tokenRules are rules with a key, a day until a renewal and a week in all.
func tokenRules(tb testing.TB) DelegationConfig {
	tb.Helper()
	key, err := auth.NewTokenKey("a secret key", "cluster")
	if err != nil {
		tb.Fatal(err)
	}
	return DelegationConfig{Key: key, MaxLifetime: 7 * 24 * time.Hour, ExpiryTime: 24 * time.Hour}
}

// modelToken is a token as Kafka's documentation has it.
type modelToken struct {
	owner, requester string
	renewers         []string
	max, expires     int64
}

// TestDelegationTokensByModel proves that a series of commands at random, by clocks that go back, too, leaves the tokens and the answers of a plain
// model of the rules; that a token is found by its secret alone; that no end is after the last one; and that the tokens
// which have ended, and no others, are removed.
func TestDelegationTokensByModel(t *testing.T) {
	rules := tokenRules(t)
	rnd := rand.New(rand.NewPCG(9, 10))
	r, apply := securedRules(t)
	const day, week = int64(24 * time.Hour / time.Millisecond), int64(7 * 24 * time.Hour / time.Millisecond)
	now := int64(1_800_000_000_000)
	model := map[meta.UUID]*modelToken{}
	var ids []meta.UUID
	var index auth.TokenIndex
	users := []string{"alice", "bob", "carol"}
	user := func() string { return users[rnd.IntN(len(users))] }
	secret := func() (id meta.UUID, b []byte) {
		if len(ids) == 0 || rnd.IntN(8) == 0 {
			return meta.UUID{}, []byte("no secret of a token, of any length")
		}
		id = ids[rnd.IntN(len(ids))]
		return id, rules.Key.HMAC(id)
	}
	periods := []int64{-1, 0, 1, 1000, day / 2, 2 * day, math.MaxInt64}
	for step := range 4000 {
		now += rnd.Int64N(day/4) - day/20 // it goes back, too
		switch kind := rnd.IntN(10); {
		case kind < 3:
			ask := &NewDelegationToken{Owner: auth.User(user()), Requester: auth.User(user()), MaxLifetime: periods[rnd.IntN(len(periods))]}
			if rnd.IntN(2) == 0 {
				ask.Renewers = []auth.Principal{auth.User(user())}
			}
			made, records, err := rules.create(r.Image, now, ask, meta.NewUUID())
			if err != nil {
				t.Fatal(err)
			}
			apply(records)
			m := &modelToken{owner: ask.Owner.String(), requester: ask.Requester.String(), max: now + week}
			for _, p := range ask.Renewers {
				m.renewers = append(m.renewers, p.String())
			}
			if ask.MaxLifetime > 0 && ask.MaxLifetime < week {
				m.max = now + ask.MaxLifetime
			}
			m.expires = min(m.max, now+day)
			model[made.ID] = m
			ids = append(ids, made.ID)
		case kind < 9:
			id, hmac := secret()
			ask := &TokenChange{By: auth.User(user()), HMAC: hmac, Period: periods[rnd.IntN(len(periods))]}
			tok := index.Find(rules.Key, r.Image.DelegationTokens(), hmac)
			m := model[id]
			if (tok == nil) != (m == nil) || tok != nil && tok.ID != id {
				t.Fatalf("step %d: the secret of %s finds %+v", step, id, tok)
			}
			if m == nil {
				continue
			}
			may := m.owner == ask.By.String() || slices.Contains(m.renewers, ask.By.String())
			ended := m.expires < now || m.max < now
			var want Kind
			var got int64
			var records []byte
			var refused *Error
			isRenewal := kind < 6
			if isRenewal {
				records, got, refused = rules.renew(tok, now, ask)
			} else {
				records, got, refused = expireToken(tok, now, ask)
			}
			isRemoval := !isRenewal && ask.Period < 0
			switch {
			case isRenewal && ended, !isRenewal && may && !isRemoval && ended:
				want = EndedDelegationToken
			case !may:
				want = DelegationTokenOfOther
			}
			if (refused != nil) != (want != 0) || refused != nil && refused.Kind != want {
				t.Fatalf("step %d: %+v of %+v at %d: %v", step, ask, m, now, refused)
			}
			apply(records)
			switch {
			case want != 0:
			case isRemoval:
				delete(model, id)
				if got != now {
					t.Fatalf("step %d: it has ended at %d, and not at %d", step, got, now)
				}
			default:
				life := ask.Period
				if isRenewal && (life <= 0 || life > day) {
					life = day
				}
				if m.expires = m.max; life < m.max-now {
					m.expires = now + life
				}
				if got != m.expires {
					t.Fatalf("step %d: %+v of %+v ends at %d", step, ask, m, got)
				}
			}
		default:
			apply(removeEndedTokens(r.Image, now, math.MaxInt))
			for id, m := range model {
				if m.expires < now || m.max < now {
					delete(model, id)
				}
			}
		}
		if r.Image.DelegationTokens().Len() != len(model) {
			t.Fatalf("step %d: there are %d tokens, and not %d", step, r.Image.DelegationTokens().Len(), len(model))
		}
		for tok := range r.Image.DelegationTokens().All() {
			m := model[tok.ID]
			if m == nil || tok.Owner != m.owner || tok.Requester != m.requester || tok.Expires != m.expires || tok.MaxTime != m.max || tok.Expires > tok.MaxTime ||
				!slices.Equal(tok.Renewers, m.renewers) || tok.KeyCheck != rules.Key.Check() {
				t.Fatalf("step %d: %+v, and not %+v", step, tok, m)
			}
		}
	}
	if len(ids) < 500 || len(model) == 0 {
		t.Errorf("%d tokens were made, and %d are left", len(ids), len(model))
	}
}

// TestDelegationTokensHaveBounds proves that a cluster keeps no more tokens than it may, of one user and in all, that those which have ended make room, and
// that names, types and renewers that cannot be are refused.
func TestDelegationTokensHaveBounds(t *testing.T) {
	rules := tokenRules(t)
	r, apply := securedRules(t)
	now := int64(1000)
	make1 := func(requester string, n int) {
		t.Helper()
		var records []byte
		for range n {
			records = meta.Append(records, meta.DelegationTokenMade{DelegationToken: meta.DelegationToken{
				ID: meta.NewUUID(), Owner: "User:alice", Requester: "User:" + requester, MaxTime: 2000, Expires: 2000,
			}})
		}
		apply(records)
	}
	create := func(requester string) *Error {
		_, _, err := rules.create(r.Image, now, &NewDelegationToken{Owner: auth.User("alice"), Requester: auth.User(requester)}, meta.NewUUID())
		return err
	}
	make1("greedy", maxDelegationTokensEach)
	if err := create("greedy"); err == nil || err.Kind != PolicyViolation {
		t.Errorf("one more of one user: %v", err)
	}
	if err := create("alice"); err != nil {
		t.Errorf("one of another user: %v", err)
	}
	for i := range 9 {
		make1(fmt.Sprint("user", i), maxDelegationTokensEach)
	}
	if err := create("alice"); err == nil || err.Kind != PolicyViolation {
		t.Errorf("one more in all: %v", err)
	}
	if got := len(endedTokens(r.Image, 2000)); got != 0 {
		t.Errorf("%d tokens have ended at their end", got)
	}
	records := removeEndedTokens(r.Image, 2001, maxEndedRemoved)
	apply(records)
	if left := maxDelegationTokens - r.Image.DelegationTokens().Len(); left != maxEndedRemoved {
		t.Errorf("%d tokens are removed with one entry", left)
	}
	if err := create("alice"); err != nil {
		t.Errorf("one more after some have ended: %v", err)
	}
	large := make([]byte, auth.LongestName+1)
	f := func(kind Kind, ask NewDelegationToken) {
		t.Helper()
		if ask.Owner == (auth.Principal{}) {
			ask.Owner = auth.User("alice")
		}
		ask.Requester = auth.User("alice")
		if _, records, err := rules.create(r.Image, now, &ask, meta.NewUUID()); err == nil || err.Kind != kind || records != nil {
			t.Errorf("%+v: %v", ask, err)
		}
	}
	f(InvalidPrincipalType, NewDelegationToken{Owner: auth.Principal{Type: "Group", Name: "a"}})
	f(InvalidPrincipalType, NewDelegationToken{Renewers: []auth.Principal{{Type: "", Name: "a"}}})
	f(InvalidRequest, NewDelegationToken{Owner: auth.User(string(large))})
	f(InvalidRequest, NewDelegationToken{Renewers: []auth.Principal{auth.User("")}})
	f(InvalidRequest, NewDelegationToken{Renewers: slices.Repeat([]auth.Principal{auth.User("a")}, maxRenewers+1)})
	old := meta.Empty()
	if _, _, err := rules.create(old, now, &NewDelegationToken{Owner: auth.User("a"), Requester: auth.User("a")}, meta.NewUUID()); err == nil || err.Kind != UnsupportedFeature {
		t.Errorf("at an earlier level: %v", err)
	}
	if _, _, err := (&DelegationConfig{}).create(old, now, &NewDelegationToken{}, meta.NewUUID()); err == nil || err.Kind != DelegationTokensOff {
		t.Errorf("without a key: %v", err)
	}
}

// TestDelegationTokensOfOneUserAreSmall proves that a user who asks for tokens with as many long names as they may have takes no more than a tenth of
// the room for all, and that others still get theirs.
func TestDelegationTokensOfOneUserAreSmall(t *testing.T) {
	rules := tokenRules(t)
	r, apply := securedRules(t)
	var renewers []auth.Principal
	for i := range maxRenewers {
		renewers = append(renewers, auth.User(fmt.Sprintf("%0*d", auth.LongestName, i)))
	}
	create := func(requester string) *Error {
		ask := &NewDelegationToken{Owner: auth.User(requester), Requester: auth.User(requester), Renewers: renewers}
		_, records, err := rules.create(r.Image, 1000, ask, meta.NewUUID())
		if err == nil {
			apply(records)
		}
		return err
	}
	for create("greedy") == nil {
	}
	if err := create("greedy"); err.Kind != PolicyViolation {
		t.Error(err)
	}
	if bytes := r.Image.DelegationTokens().Bytes(); bytes > maxDelegationTokenBytesEach || bytes < maxDelegationTokenBytesEach*9/10 {
		t.Errorf("one user has %d bytes of tokens", bytes)
	}
	if err := create("alice"); err != nil {
		t.Errorf("another user: %v", err)
	}
}

// TestDelegationCommands proves that the commands of a controller make, move and remove tokens by their secrets, that a full cluster makes room of tokens
// that have ended, and that a controller which does not lead removes none.
func TestDelegationCommands(t *testing.T) {
	c := newCluster(t, nil)
	c.image = func() *meta.Image {
		m, _, err := meta.Apply(meta.Empty(), meta.Append(nil, meta.LevelSet{Level: meta.LatestLevel}))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}()
	ctl := New(Config{Image: c.Image, Leading: c.leading, Propose: c.propose, Static: c.static})
	tokens := NewDelegations(ctl, tokenRules(t))
	ctx := context.Background()
	begin := time.UnixMilli(1_800_000_000_000)
	ask := &NewDelegationToken{Owner: auth.User("carol"), Requester: auth.User("alice"), Renewers: []auth.Principal{auth.User("bob")}}
	made, refused, err := tokens.Create(ctx, begin, ask)
	if err != nil || refused != nil || c.Image().DelegationTokens().Find(made.ID) == nil || len(made.Secret) != 64 {
		t.Fatalf("%v, %v", refused, err)
	}
	secret := made.Secret
	expires, refused, err := tokens.Renew(ctx, begin.Add(time.Hour), &TokenChange{By: auth.User("bob"), HMAC: secret, Period: int64(time.Hour / time.Millisecond)})
	if want := begin.Add(2 * time.Hour).UnixMilli(); err != nil || refused != nil || expires != want || c.Image().DelegationTokens().Find(made.ID).Expires != want {
		t.Errorf("%d, %v, %v", expires, refused, err)
	}
	if _, refused, err := tokens.Expire(ctx, begin, &TokenChange{By: auth.User("alice"), HMAC: secret, Period: -1}); err != nil || refused == nil || refused.Kind != DelegationTokenOfOther {
		t.Errorf("%v, %v", refused, err)
	}
	if _, refused, err := tokens.Expire(ctx, begin, &TokenChange{By: auth.User("carol"), HMAC: secret[1:], Period: -1}); err != nil || refused == nil || refused.Kind != UnknownDelegationToken {
		t.Errorf("%v, %v", refused, err)
	}
	c.mu.Lock()
	c.away = true
	c.mu.Unlock()
	if err := tokens.RemoveEnded(ctx, begin.Add(3*time.Hour)); err != nil || c.Image().DelegationTokens().Len() != 1 {
		t.Errorf("a controller that does not lead: %v", err)
	}
	c.mu.Lock()
	c.away = false
	c.mu.Unlock()
	if err := tokens.RemoveEnded(ctx, begin.Add(2*time.Hour)); err != nil || c.Image().DelegationTokens().Len() != 1 {
		t.Errorf("a token that has not ended: %v", err)
	}
	if err := tokens.RemoveEnded(ctx, begin.Add(3*time.Hour)); err != nil || c.Image().DelegationTokens().Len() != 0 {
		t.Errorf("a token that has ended: %v", err)
	}
	var records []byte
	for i := range maxDelegationTokens {
		records = meta.Append(records, meta.DelegationTokenMade{DelegationToken: meta.DelegationToken{
			ID: meta.NewUUID(), Owner: "User:alice", Requester: fmt.Sprintf("User:%d", i%20), MaxTime: begin.UnixMilli(), Expires: begin.UnixMilli(),
		}})
	}
	c.mu.Lock()
	c.image, _, err = meta.Apply(c.image, records)
	c.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if _, refused, err := tokens.Create(ctx, begin, ask); err != nil || refused == nil || refused.Kind != PolicyViolation {
		t.Errorf("a full cluster: %v, %v", refused, err)
	}
	made, refused, err = tokens.Create(ctx, begin.Add(time.Second), ask)
	if n := c.Image().DelegationTokens().Len(); err != nil || refused != nil || made.DelegationToken == nil || n != maxDelegationTokens-maxEndedRemoved+1 {
		t.Errorf("a cluster that is full of tokens that have ended: %v, %v, %d tokens", refused, err, n)
	}
}

// TestTokensGoWithTheirUser proves that the tokens which a user owns or has asked for go with the last credential of the user, however many they are, and no others;
// so a user who is made with the same name later has none of them, and who had them cannot be that user.
func TestTokensGoWithTheirUser(t *testing.T) {
	c := newCluster(t, nil)
	c.mu.Lock()
	level, _, err := meta.Apply(c.image, meta.AppendLevel(nil, meta.LevelFeature, meta.LatestLevel))
	c.image = level
	c.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	ctl := c.controller()
	d := NewDelegations(ctl, tokenRules(t))
	ctx, now := t.Context(), time.UnixMilli(1_800_000_000_000)
	owner := func(user string, m meta.ScramMechanism) meta.CredentialOwner {
		return meta.CredentialOwner{User: user, Mechanism: m}
	}
	remove := func(user string, m meta.ScramMechanism) {
		t.Helper()
		if outcomes, err := ctl.AlterCredentials(ctx, []meta.CredentialOwner{owner(user, m)}, nil); err != nil || outcomes[0].Err != nil {
			t.Fatal(outcomes, err)
		}
	}
	for _, user := range []string{"alice", "bob"} {
		for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
			set := NewCredential{Owner: owner(user, m), Salt: []byte("salt"), Salted: []byte("salted"), Iterations: 4096}
			if outcomes, err := ctl.AlterCredentials(ctx, nil, []NewCredential{set}); err != nil || outcomes[0].Err != nil {
				t.Fatal(outcomes, err)
			}
		}
	}
	create := func(owner, requester string, times int) {
		t.Helper()
		for range times {
			if _, refused, err := d.Create(ctx, now, &NewDelegationToken{Owner: auth.User(owner), Requester: auth.User(requester)}); refused != nil || err != nil {
				t.Fatal(refused, err)
			}
		}
	}
	create("alice", "alice", maxEndedRemoved)
	create("alice", "carol", 2)
	create("admin", "alice", 3) // whose secrets she knows
	create("bob", "bob", 4)
	left := func() int { return c.Image().DelegationTokens().Len() }
	all := left()
	remove("alice", meta.ScramSHA256)
	if left() != all {
		t.Errorf("%d of %d tokens are left to a user who can still log in with a password", left(), all)
	}
	if outcomes, err := ctl.AlterCredentials(ctx, []meta.CredentialOwner{owner("alice", meta.ScramSHA256)}, nil); err != nil || outcomes[0].Err == nil || left() != all {
		t.Errorf("a change that was refused: %+v, %v, and %d of %d tokens", outcomes, err, left(), all)
	}
	remove("alice", meta.ScramSHA512)
	for token := range c.Image().DelegationTokens().All() {
		if token.Owner != "User:bob" {
			t.Errorf("there is a token of %s, for which %s has asked", token.Owner, token.Requester)
		}
	}
	if left() != 4 || countCredentials(c.Image(), "alice") != 0 {
		t.Errorf("%d tokens are left", left())
	}
}
