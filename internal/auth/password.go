package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"runtime"
	"sync"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
)

const (
	// checkShare is the part of the processors that may check passwords at a time: a check takes one for some milliseconds, and
	// anybody can ask for one.
	checkShare = 4
	// mostKnownPasswords bounds the passwords that are remembered. When one more comes, all are forgotten.
	mostKnownPasswords = 10_000
)

// passwordChecks lets few passwords be checked at a time, and remembers those that were right, so that a client which logs in
// again costs no key derivation (BenchmarkLogin). A password that is wrong, or of a user that does not exist, is
// never remembered, and always costs one.
type passwordChecks struct {
	key   [32]byte      // random, for this process
	turns *budget.Turns // of the checks that run; networks take turns, so that a flood of wrong passwords keeps nobody of others out

	mu    sync.Mutex
	known map[*meta.ScramCredential][sha256.Size]byte // guarded by mu: a keyed digest of the password
}

func (p *passwordChecks) init() {
	_, _ = rand.Read(p.key[:]) // it never fails
	p.turns = budget.NewTurns(runtime.GOMAXPROCS(0) / checkShare)
	p.known = map[*meta.ScramCredential][sha256.Size]byte{}
}

func (p *passwordChecks) digestOf(password string) (digest [sha256.Size]byte) {
	h := hmac.New(sha256.New, p.key[:])
	_, _ = h.Write([]byte(password)) // it never fails
	h.Sum(digest[:0])
	return digest
}

// isKnown tells whether a password was right for a credential before.
func (p *passwordChecks) isKnown(c *meta.ScramCredential, digest [sha256.Size]byte) bool {
	p.mu.Lock()
	known, ok := p.known[c]
	p.mu.Unlock()
	return subtle.ConstantTimeCompare(known[:], digest[:]) == 1 && ok
}

func (p *passwordChecks) remember(c *meta.ScramCredential, digest [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= mostKnownPasswords {
		clear(p.known)
	}
	p.known[c] = digest
}

// CheckPassword tells whether it is the user's. It takes as long for a user that does not exist as for a wrong password: some
// milliseconds of a processor, for which it waits until there is one or the context ends. The context has the client's address
// (budget.OriginOf), by which clients take turns.
func (u *Users) CheckPassword(ctx context.Context, name, password string) bool {
	_, isRight := u.verifyPassword(ctx, name, password)
	return isRight
}

// verifyPassword is CheckPassword, and tells by which credential the password is right.
func (u *Users) verifyPassword(ctx context.Context, name, password string) (by *meta.ScramCredential, isRight bool) {
	mechanism := u.mechanismOf(name)
	c, exists := u.find(name, mechanism)
	digest := u.checks.digestOf(password)
	if u.checks.isKnown(c, digest) {
		return c, exists
	}
	if !u.checks.turns.Take(ctx.Done(), budget.OriginOf(ctx)) {
		return nil, false
	}
	salted, err := SaltPassword(mechanism, password, c.Salt, c.Iterations)
	u.checks.turns.Give()
	if err != nil {
		return nil, false
	}
	stored, _ := deriveKeys(mechanism, salted)
	isRight = subtle.ConstantTimeCompare(stored, c.StoredKey) == 1 && exists
	if isRight {
		u.checks.remember(c, digest)
	}
	return c, isRight
}
