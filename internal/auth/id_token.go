package auth

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"
)

// errNonce is returned for an ID token that was made for another login.
var errNonce = errors.New("it was made for another login: its claim nonce is another one")

// CheckIDToken checks an ID token (OpenID Connect Core 1.0, 3.1.3.7), which the issuer has given for a login that was begun with a nonce. The
// mechanism's only audience is the client for which it must be. Everything else is as for tokens of OAUTHBEARER.
func (o *OAuth) CheckIDToken(ctx context.Context, token, nonce string) (*Login, error) {
	if len(token) > longestToken {
		return nil, errOAuthForm
	}
	now := time.Now()
	claims, all, err := o.verify(ctx, token, now)
	if err != nil {
		return nil, err
	}
	own, _ := all["nonce"].(string)
	if nonce == "" || subtle.ConstantTimeCompare([]byte(own), []byte(nonce)) != 1 {
		return nil, errNonce
	}
	party, hasParty := all["azp"]
	if hasParty && party != o.cfg.Audience[0] || !hasParty && len(claims.Audience) > 1 {
		return nil, errors.New("it is for several clients, or was given to another one: its claim azp does not name this client")
	}
	return o.checkClaims(&claims, all, now)
}
