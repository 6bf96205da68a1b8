package auth

import (
	"crypto/hmac"

	"github.com/leatstream/leat/internal/meta"
)

// TokenIndex finds tokens by their secrets, which are not in the metadata. One goroutine at a time may use it; the zero value is one.
type TokenIndex struct{ shards map[int]indexedShard }

// indexedShard has the ids of a shard's tokens by the first bytes of their secrets.
type indexedShard struct {
	of       *meta.DelegationShard
	bySecret map[secretPrefix]meta.UUID
}

type secretPrefix [16]byte

// Find finds the token of a secret; nil: there is none. Only shards that have changed since the last time are indexed again, and only
// of their new tokens a secret is computed.
func (x *TokenIndex) Find(key *TokenKey, all *meta.DelegationTokens, secret []byte) (found *meta.DelegationToken) {
	if x.shards == nil {
		x.shards = map[int]indexedShard{}
	}
	var prefix secretPrefix
	copy(prefix[:], secret)
	for i, s := range all.Shards() {
		if s == nil {
			delete(x.shards, i)
			continue
		}
		known := x.shards[i]
		if known.of != s {
			known = known.follow(key, s)
			x.shards[i] = known
		}
		if id, ok := known.bySecret[prefix]; ok && hmac.Equal(key.HMAC(id), secret) {
			found = s.ByID[id]
		}
	}
	return found
}

// follow is the index of a later state of a shard.
func (x indexedShard) follow(key *TokenKey, s *meta.DelegationShard) indexedShard {
	next := indexedShard{of: s, bySecret: make(map[secretPrefix]meta.UUID, len(s.ByID))}
	for prefix, id := range x.bySecret {
		if s.ByID[id] != nil {
			next.bySecret[prefix] = id
		}
	}
	for id, t := range s.ByID {
		isIndexed := x.of != nil && x.of.ByID[id] != nil
		if !isIndexed && key.Made(t) {
			next.bySecret[secretPrefix(key.HMAC(id))] = id
		}
	}
	return next
}
