package meta

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// DelegationToken lets its holder log in as its owner (KIP-48). It never changes: a token that is renewed is another one of
// the same id.
//
// The password of a token is the HMAC of its id under delegation.token.secret.key, which all nodes have in their settings. It is
// not here, so that nobody can log in with what the metadata tell.
type DelegationToken struct {
	ID        UUID
	Owner     string   // the principal as whom its holder logs in: "User:alice"
	Requester string   // the principal that has asked for it, which is mostly the owner
	Renewers  []string // principals that may renew and expire it besides the owner

	// These are times in ms since 1970. Nobody logs in after Expires, which can be moved up to MaxTime.
	Issued, MaxTime, Expires int64

	// KeyCheck tells keys apart: it is derived from the key by which the token's password was made. So few bits show a wrong
	// key to its operator, and are of no use to who guesses keys.
	KeyCheck uint16
}

// HasEnded tells whether the token has ended at a time in ms since 1970.
func (t *DelegationToken) HasEnded(nowMillis int64) bool {
	return min(t.Expires, t.MaxTime) < nowMillis
}

// IsOwnedOrRenewedBy tells whether a principal is the token's owner, has asked for it or may renew it.
func (t *DelegationToken) IsOwnedOrRenewedBy(principal string) bool {
	return t.Requester == principal || t.MayRenew(principal)
}

// MayRenew tells whether a principal may renew and expire the token.
func (t *DelegationToken) MayRenew(principal string) bool {
	return t.Owner == principal || slices.Contains(t.Renewers, principal)
}

// delegationTokenCost is about how much memory a token takes besides its texts, and renewerCost what each renewer takes.
const (
	delegationTokenCost = 256
	renewerCost         = 16
)

// Bytes is about how much memory the token takes.
func (t *DelegationToken) Bytes() int {
	n := delegationTokenCost + len(t.Owner) + len(t.Requester) + renewerCost*len(t.Renewers)
	for _, r := range t.Renewers {
		n += len(r)
	}
	return n
}

func (t *DelegationToken) equal(o *DelegationToken) bool {
	return t.ID == o.ID && t.Owner == o.Owner && t.Requester == o.Requester && slices.Equal(t.Renewers, o.Renewers) &&
		t.Issued == o.Issued && t.MaxTime == o.MaxTime && t.Expires == o.Expires && t.KeyCheck == o.KeyCheck
}

func (t *DelegationToken) check() error {
	switch {
	case t.ID == (UUID{}):
		return fmt.Errorf("a delegation token of %q has no id", t.Owner)
	case !strings.Contains(t.Owner, ":") || !strings.Contains(t.Requester, ":"):
		return fmt.Errorf("delegation token %s is of %q, and %q has asked for it", t.ID, t.Owner, t.Requester)
	case t.Expires < 0 || t.MaxTime < t.Expires:
		return fmt.Errorf("delegation token %s ends at %d, and at %d at the latest", t.ID, t.Expires, t.MaxTime)
	}
	return nil
}

// delegationShards is how many maps the tokens are spread over; a power of two.
const delegationShards = 64

// DelegationTokens are all delegation tokens of an image. They never change, so that an equal pointer means equal tokens.
type DelegationTokens struct {
	shards   [delegationShards]*DelegationShard
	n, bytes int
}

// DelegationShard has some of the tokens, by their ids. It never changes either.
type DelegationShard struct{ ByID map[UUID]*DelegationToken }

func shardOfDelegation(id UUID) int { return int(id[15]) % delegationShards }

// Len counts the tokens.
func (l *DelegationTokens) Len() int { return l.n }

// Bytes is about how much memory the tokens take.
func (l *DelegationTokens) Bytes() int { return l.bytes }

// Find finds a token; nil: there is none of the id.
func (l *DelegationTokens) Find(id UUID) *DelegationToken {
	if s := l.shards[shardOfDelegation(id)]; s != nil {
		return s.ByID[id]
	}
	return nil
}

// Shards iterates over the parts of which the tokens consist. A part that has no tokens may be nil.
func (l *DelegationTokens) Shards() iter.Seq2[int, *DelegationShard] { return slices.All(l.shards[:]) }

// All iterates over all tokens, in no order.
func (l *DelegationTokens) All() iter.Seq[*DelegationToken] {
	return func(yield func(*DelegationToken) bool) {
		for _, s := range l.shards {
			if s == nil {
				continue
			}
			for _, t := range s.ByID {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// Sorted lists the tokens in the order in which they were made.
func (l *DelegationTokens) Sorted() []*DelegationToken {
	return slices.SortedFunc(l.All(), func(a, b *DelegationToken) int {
		return cmp.Or(cmp.Compare(a.Issued, b.Issued), bytes.Compare(a.ID[:], b.ID[:]))
	})
}

func (l *DelegationTokens) equal(o *DelegationTokens) bool {
	return l == o || l.n == o.n && slices.EqualFunc(l.shards[:], o.shards[:], func(a, b *DelegationShard) bool {
		return a == b || maps.EqualFunc(a.tokens(), b.tokens(), (*DelegationToken).equal)
	})
}

func (s *DelegationShard) tokens() map[UUID]*DelegationToken {
	if s == nil {
		return nil
	}
	return s.ByID
}
