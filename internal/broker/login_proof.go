package broker

import (
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// loginProof is what a client has logged in with, as far as the metadata keep it: who loses that is logged in no more. The zero value is of
// a login with something else, such as a certificate or a token of an issuer. It never changes.
type loginProof struct {
	token      meta.UUID             // a delegation token; zero: none
	credential *meta.ScramCredential // of the user's password; nil: none
}

// provenBy are the metadata in which a proof is looked up. While they are the same, so is the outcome.
type provenBy struct {
	credentials *meta.Credentials
	tokens      *meta.DelegationTokens
}

// isToken tells whether it is a delegation token.
func (p *loginProof) isToken() bool { return p.token != (meta.UUID{}) }

// isKept tells whether the metadata keep the proof. They keep none of a client that need not log in, which is nil.
func (p *loginProof) isKept() bool { return p != nil && (p.credential != nil || p.isToken()) }

// endIn is when the proof ends, or has ended; lasts tells that it has no end.
func (p *loginProof) endIn(m *meta.Image, now time.Time) (ends time.Time, lasts bool) {
	gone := now.Add(-1)
	if p.isToken() {
		t := m.DelegationTokens().Find(p.token)
		if t == nil {
			return gone, false
		}
		return now.Add(time.UnixMilli(min(t.Expires, t.MaxTime)).Sub(now)), false // by the clock that nobody sets
	}
	if p.credential != nil && !m.HasCredential(p.credential) {
		return gone, false
	}
	return time.Time{}, true
}

// holds tells whether the proof has not ended.
func (p *loginProof) holds(m *meta.Image, now time.Time) bool {
	ends, lasts := p.endIn(m, now)
	return lasts || now.Before(ends)
}
