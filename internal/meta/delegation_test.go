package meta

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// delegationToken is a token whose id ends with a number.
func delegationToken(n byte) DelegationToken {
	return DelegationToken{
		ID: UUID{15: n}, Owner: "User:alice", Requester: "User:admin", Renewers: []string{"User:bob"}, Issued: 1, MaxTime: 200, Expires: 100, KeyCheck: 7,
	}
}

// TestDelegationTokens proves that an image has the tokens that were made and not removed, each with the end that was set last; that
// images before a change stay as they were; that the counts are those of the tokens; and that a snapshot and the
// difference of two images tell the same.
func TestDelegationTokens(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	m, want := secured(t), map[UUID]DelegationToken{}
	for range 500 {
		before, had := m, maps.Clone(want)
		var entry []byte
		for range 1 + rnd.IntN(4) {
			tok := delegationToken(byte(1 + rnd.IntN(200)))
			tok.Renewers = tok.Renewers[:rnd.IntN(2)]
			if len(tok.Renewers) == 0 {
				tok.Renewers = nil
			}
			old, isThere := want[tok.ID]
			switch {
			case !isThere:
				tok.Expires, tok.Issued = rnd.Int64N(tok.MaxTime), rnd.Int64N(5)
				entry = Append(entry, DelegationTokenMade{tok})
				want[tok.ID] = tok
			case rnd.IntN(2) == 0:
				entry = Append(entry, DelegationTokenRemoved{tok.ID})
				delete(want, tok.ID)
			default:
				old.Expires = rnd.Int64N(old.MaxTime + 1)
				entry = Append(entry, DelegationTokenExpirySet{tok.ID, old.Expires})
				want[tok.ID] = old
			}
		}
		next, delta := applyStep(t, m, entry)
		m = next
		got, size := map[UUID]DelegationToken{}, 0
		for tok := range m.DelegationTokens().All() {
			got[tok.ID] = *tok
			size += tok.Bytes()
			if m.DelegationTokens().Find(tok.ID) != tok {
				t.Fatalf("token %s is not found", tok.ID)
			}
		}
		if d := cmp.Diff(want, got); d != "" || m.DelegationTokens().Len() != len(want) || m.DelegationTokens().Bytes() != size {
			t.Fatalf("the image has others, %d of %d bytes, of %d: %s", m.DelegationTokens().Len(), m.DelegationTokens().Bytes(), size, d)
		}
		if !delta.DelegationTokens || !delta.Security || m.DelegationTokens() == before.DelegationTokens() {
			t.Fatal("the change is not seen")
		}
		if before.DelegationTokens().Len() != len(had) {
			t.Fatal("a change has changed the image before")
		}
		isSame := maps.EqualFunc(had, want, func(a, b DelegationToken) bool { return a.equal(&b) })
		if Diff(before, m).DelegationTokens == isSame || Diff(before, m).Security == isSame {
			t.Fatal("the difference of the images is not that of their tokens")
		}
		if sorted := m.DelegationTokens().Sorted(); len(sorted) != len(want) || !slices.IsSortedFunc(sorted, func(a, b *DelegationToken) int { return int(a.Issued - b.Issued) }) {
			t.Fatal("the tokens are not in the order in which they were made")
		}
	}
	if unchanged, delta, err := Apply(m, Append(nil, ProducerIDsGiven{Next: 5})); err != nil || delta.DelegationTokens || unchanged.DelegationTokens() != m.DelegationTokens() {
		t.Errorf("another change makes other tokens: %v", err)
	}
}

// TestDelegationTokensAreComplete proves that no token is kept that lacks a value or has one that cannot be, that none is made twice,
// and that nothing changes about one that is not there.
func TestDelegationTokensAreComplete(t *testing.T) {
	m, _, err := Apply(secured(t), Append(nil, DelegationTokenMade{delegationToken(1)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(tok *DelegationToken){
		func(tok *DelegationToken) { tok.ID = UUID{} },
		func(tok *DelegationToken) { tok.Owner = "alice" },
		func(tok *DelegationToken) { tok.Requester = "" },
		func(tok *DelegationToken) { tok.Expires = tok.MaxTime + 1 },
		func(tok *DelegationToken) { tok.Expires = -1 },
		func(tok *DelegationToken) { tok.Renewers = make([]string, maxTokenRenewers+1) },
		func(tok *DelegationToken) { tok.ID[15] = 1 },
	} {
		tok := delegationToken(2)
		change(&tok)
		checkRefused(t, m, DelegationTokenMade{tok})
	}
	checkRefused(t, m, DelegationTokenExpirySet{UUID{15: 1}, 201}, DelegationTokenExpirySet{UUID{15: 1}, -1}, DelegationTokenExpirySet{UUID{15: 2}, 100},
		DelegationTokenRemoved{UUID{15: 2}})
}
