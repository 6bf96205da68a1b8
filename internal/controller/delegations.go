package controller

import (
	"bytes"
	"context"
	"math"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// Limits of the delegation tokens that a cluster keeps.
const (
	maxDelegationTokens         = 100_000
	maxDelegationTokensEach     = maxDelegationTokens / 10 // that one principal has asked for
	maxDelegationTokenBytes     = 64 << 20                 // of all tokens, about
	maxDelegationTokenBytesEach = maxDelegationTokenBytes / 10
	maxRenewers                 = 64 // of one token
	// maxEndedRemoved is how many tokens are removed with one entry of the metadata log.
	maxEndedRemoved = 1_000

	delegationsNeedLevelText = "Delegation tokens need level 6 of leat.metadata: when all nodes run this version, raise it with leat cluster finalize."
)

// DelegationConfig says how delegation tokens are made.
type DelegationConfig struct {
	// Key makes their passwords; nil: there are no tokens.
	Key *auth.TokenKey
	// MaxLifetime is how long a token can be renewed, and ExpiryTime how long it can be used until it must be.
	MaxLifetime, ExpiryTime time.Duration
}

// Delegations decide delegation tokens, as commands of a controller. Its methods may be called concurrently.
type Delegations struct {
	c     *Controller
	cfg   DelegationConfig
	index auth.TokenIndex // belongs to who has the controller's turn
}

// NewDelegations makes the commands of a controller.
func NewDelegations(c *Controller, cfg DelegationConfig) *Delegations {
	return &Delegations{c: c, cfg: cfg}
}

// Key makes the secrets of the tokens; nil: there are none.
func (d *Delegations) Key() *auth.TokenKey { return d.cfg.Key }

// NewDelegationToken asks for a token.
type NewDelegationToken struct {
	Owner, Requester auth.Principal
	Renewers         []auth.Principal
	MaxLifetime      int64 // ms; 0 or less: as long as the settings allow
}

// TokenChange moves the end of a token.
type TokenChange struct {
	By     auth.Principal
	HMAC   []byte
	Period int64 // ms from now on
}

// MadeToken is a new token with its secret.
type MadeToken struct {
	*meta.DelegationToken

	Secret []byte
}

// Create makes a token.
func (d *Delegations) Create(ctx context.Context, now time.Time, ask *NewDelegationToken) (made MadeToken, refused *Error, err error) {
	refused, err = d.c.runParts(ctx, ofClients, func(r *Rules) (p Part, refused *Error) {
		made.DelegationToken, p.Records, refused = d.cfg.create(r.Image, now.UnixMilli(), ask, d.c.cfg.NewID())
		if refused != nil && refused.Kind == PolicyViolation { // those that have ended may leave room
			p.Records = removeEndedTokens(r.Image, now.UnixMilli(), maxEndedRemoved)
			if p.More = len(p.Records) > 0; p.More {
				return p, nil
			}
		}
		return p, refused
	})
	if err != nil || refused != nil {
		return MadeToken{}, refused, err
	}
	made.Secret = d.cfg.Key.HMAC(made.ID)
	return made, nil, nil
}

// Renew has a token end later, and returns when.
func (d *Delegations) Renew(ctx context.Context, now time.Time, ask *TokenChange) (expires int64, refused *Error, err error) {
	return d.change(ctx, ask, func(t *meta.DelegationToken) ([]byte, int64, *Error) {
		return d.cfg.renew(t, now.UnixMilli(), ask)
	})
}

// Expire has a token end, at once with a negative period, and returns when.
func (d *Delegations) Expire(ctx context.Context, now time.Time, ask *TokenChange) (expires int64, refused *Error, err error) {
	return d.change(ctx, ask, func(t *meta.DelegationToken) ([]byte, int64, *Error) {
		return expireToken(t, now.UnixMilli(), ask)
	})
}

// change has a rule decide about the token of a secret.
func (d *Delegations) change(ctx context.Context, ask *TokenChange, decide func(t *meta.DelegationToken) (records []byte, expires int64, refused *Error)) (expires int64, refused *Error, err error) {
	err = d.c.runCommand(ctx, ofClients, func(m *meta.Image) (records []byte) {
		if refused = d.cfg.check(m); refused != nil {
			return nil
		}
		t := d.index.Find(d.cfg.Key, m.DelegationTokens(), ask.HMAC)
		if t == nil {
			refused = refuse(UnknownDelegationToken, "There is no such delegation token.")
			return nil
		}
		records, expires, refused = decide(t)
		return records
	})
	if err != nil || refused != nil {
		return 0, refused, err
	}
	return expires, nil, nil
}

// RemoveEnded removes the tokens that have ended. It is called at intervals, on all nodes, and does nothing on those that are
// not the active controller.
func (d *Delegations) RemoveEnded(ctx context.Context, now time.Time) error {
	if _, leads := d.c.cfg.Leading(); !leads || len(endedTokens(d.c.cfg.Image(), now.UnixMilli())) == 0 {
		return nil
	}
	_, err := d.c.runParts(ctx, ofClients, func(r *Rules) (p Part, _ *Error) {
		p.Records = removeEndedTokens(r.Image, now.UnixMilli(), maxEndedRemoved)
		p.More = len(p.Records) > 0
		return p, nil
	})
	return err
}

// endedTokens are the ids of the tokens that have ended, in order.
func endedTokens(m *meta.Image, nowMillis int64) (ids []meta.UUID) {
	for t := range m.DelegationTokens().All() {
		if t.HasEnded(nowMillis) {
			ids = append(ids, t.ID)
		}
	}
	slices.SortFunc(ids, func(a, b meta.UUID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// removeEndedTokens decides which tokens are removed since they have ended, at most so many.
func removeEndedTokens(m *meta.Image, nowMillis int64, most int) (records []byte) {
	ids := endedTokens(m, nowMillis)
	for _, id := range ids[:min(len(ids), most)] {
		records = meta.Append(records, meta.DelegationTokenRemoved{ID: id})
	}
	return records
}

// check refuses every change where there can be no tokens.
func (d *DelegationConfig) check(m *meta.Image) *Error {
	switch {
	case d.Key == nil:
		return refuse(DelegationTokensOff, "Delegation tokens are off: delegation.token.secret.key is not set on the active controller's node.")
	case m.Level() < meta.LevelIdentity:
		return refuse(UnsupportedFeature, delegationsNeedLevelText)
	}
	return nil
}

// create decides a new token.
func (d *DelegationConfig) create(m *meta.Image, nowMillis int64, ask *NewDelegationToken, id meta.UUID) (*meta.DelegationToken, []byte, *Error) {
	if err := d.check(m); err != nil {
		return nil, nil, err
	}
	if len(ask.Renewers) > maxRenewers {
		return nil, nil, refuse(InvalidRequest, "A delegation token has at most %d renewers.", maxRenewers)
	}
	principals := append([]auth.Principal{ask.Owner, ask.Requester}, ask.Renewers...)
	for _, p := range principals {
		switch {
		case p.Type != auth.UserType:
			return nil, nil, refuse(InvalidPrincipalType, "Delegation tokens are for users, and %q is no type of them.", p.Type)
		case p.Name == "" || len(p.Name) > auth.LongestName:
			return nil, nil, refuse(InvalidRequest, "The name of a user has from 1 to %d bytes.", auth.LongestName)
		}
	}
	life := d.MaxLifetime.Milliseconds()
	if ask.MaxLifetime > 0 {
		life = min(life, ask.MaxLifetime)
	}
	t := &meta.DelegationToken{
		ID: id, Owner: ask.Owner.String(), Requester: ask.Requester.String(),
		Issued: nowMillis, MaxTime: addMillis(nowMillis, life), KeyCheck: d.Key.Check(),
	}
	t.Expires = min(t.MaxTime, addMillis(nowMillis, d.ExpiryTime.Milliseconds()))
	for _, p := range ask.Renewers {
		t.Renewers = append(t.Renewers, p.String())
	}
	if err := checkRoom(m.DelegationTokens(), t); err != nil {
		return nil, nil, err
	}
	return t, meta.Append(nil, meta.DelegationTokenMade{DelegationToken: *t}), nil
}

// checkRoom refuses a token for which there is no room.
func checkRoom(all *meta.DelegationTokens, t *meta.DelegationToken) *Error {
	if all.Len() >= maxDelegationTokens || all.Bytes()+t.Bytes() > maxDelegationTokenBytes {
		return refuse(PolicyViolation, "A cluster has at most %d delegation tokens, of %d bytes in all: expire those that are not used.", maxDelegationTokens, maxDelegationTokenBytes)
	}
	if all.Len() < maxDelegationTokensEach && all.Bytes()+t.Bytes() <= maxDelegationTokenBytesEach {
		return nil
	}
	own, bytes := 0, t.Bytes()
	for other := range all.All() {
		if other.Requester == t.Requester {
			own++
			bytes += other.Bytes()
		}
	}
	if own >= maxDelegationTokensEach || bytes > maxDelegationTokenBytesEach {
		return refuse(PolicyViolation, "A user can have asked for at most %d delegation tokens, of %d bytes in all: expire those that are not used.",
			maxDelegationTokensEach, maxDelegationTokenBytesEach)
	}
	return nil
}

// addMillis adds a duration to a time. The sum is never past the last time.
func addMillis(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

// renew decides a new end of a token, which is not after its last one.
func (d *DelegationConfig) renew(t *meta.DelegationToken, nowMillis int64, ask *TokenChange) (records []byte, expires int64, refused *Error) {
	if t.HasEnded(nowMillis) {
		return nil, 0, refuse(EndedDelegationToken, "The delegation token has ended.")
	}
	if !t.MayRenew(ask.By.String()) {
		return nil, 0, refuse(DelegationTokenOfOther, "Only its owner and its renewers may renew a delegation token.")
	}
	life := d.ExpiryTime.Milliseconds()
	if ask.Period > 0 {
		life = min(life, ask.Period)
	}
	expires = min(t.MaxTime, addMillis(nowMillis, life))
	return moveEnd(t, expires), expires, nil
}

// expireToken decides an end of a token that may be earlier. A negative period removes it, also when it has ended.
func expireToken(t *meta.DelegationToken, nowMillis int64, ask *TokenChange) (records []byte, expires int64, refused *Error) {
	switch {
	case !t.MayRenew(ask.By.String()):
		return nil, 0, refuse(DelegationTokenOfOther, "Only its owner and its renewers may expire a delegation token.")
	case ask.Period < 0:
		return meta.Append(nil, meta.DelegationTokenRemoved{ID: t.ID}), nowMillis, nil
	case t.HasEnded(nowMillis):
		return nil, 0, refuse(EndedDelegationToken, "The delegation token has ended.")
	}
	expires = min(t.MaxTime, addMillis(nowMillis, ask.Period))
	return moveEnd(t, expires), expires, nil
}

// moveEnd is the record of a token's new end; nil: it stays.
func moveEnd(t *meta.DelegationToken, expires int64) []byte {
	if expires == t.Expires {
		return nil
	}
	return meta.Append(nil, meta.DelegationTokenExpirySet{ID: t.ID, Expires: expires})
}
