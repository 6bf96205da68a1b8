package auth

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
)

// TokenKey is the key of a cluster's delegation tokens: delegation.token.secret.key, which all its nodes must have. The
// password of a token is the base64 form of the HMAC of its id under the key, as in Kafka. It never changes, and prints nothing
// of the key.
type TokenKey struct {
	secret []byte
	check  uint16
}

// checkIterations is how often the key is hashed for its check, so that who reads the metadata guesses slowly. A start takes some
// tens of milliseconds for it.
const checkIterations = 50_000

// NewTokenKey makes the key of a cluster. The secret must not be empty.
func NewTokenKey(secret, clusterID string) (*TokenKey, error) {
	if secret == "" {
		return nil, errors.New("auth: the key of delegation tokens is empty")
	}
	b, err := pbkdf2.Key(sha512.New, secret, []byte("check of delegation.token.secret.key of "+clusterID), checkIterations, 2)
	if err != nil {
		return nil, err
	}
	return &TokenKey{[]byte(secret), binary.BigEndian.Uint16(b)}, nil
}

// Format prints nothing of the key, whatever the verb.
func (*TokenKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "[hidden]") }

// Check is the meta.DelegationToken.KeyCheck of the tokens that the key makes.
func (k *TokenKey) Check() uint16 { return k.check }

// Made tells whether the key has made a token, as far as its check tells.
func (k *TokenKey) Made(t *meta.DelegationToken) bool { return t.KeyCheck == k.check }

// HMAC is the secret of a token: its password before it is text.
func (k *TokenKey) HMAC(id meta.UUID) []byte { return k.sign(id.String()) }

func (k *TokenKey) sign(text string) []byte {
	h := hmac.New(sha512.New, k.secret)
	_, _ = h.Write([]byte(text)) // it never fails
	return h.Sum(nil)
}

// saltOf is the salt of a login by a token, which there need not be. It is the same on all nodes, and can be derived by nobody
// without the key.
func (k *TokenKey) saltOf(name string, m meta.ScramMechanism) []byte {
	h := hmac.New(sha256.New, k.sign("\x00salt"))
	_, _ = h.Write(append([]byte{byte(m)}, name...)) // it never fails
	return h.Sum(nil)[:saltBytes]
}

// Tokens are those who log in with delegation tokens, by SCRAM. Any goroutine may use them.
type Tokens struct {
	image func() *meta.Image
	key   *TokenKey
	turns *budget.Turns // that of passwordChecks: a derivation of keys takes a processor for some milliseconds

	mu    sync.Mutex
	known map[meta.CredentialOwner]*meta.ScramCredential // guarded by mu: of tokens that have logged in, by their ids
}

// NewTokens makes the tokens of the newest image. Their keys are derived in the turns of the users' passwords.
func NewTokens(image func() *meta.Image, key *TokenKey, users *Users) *Tokens {
	return &Tokens{image: image, key: key, turns: users.checks.turns, known: map[meta.CredentialOwner]*meta.ScramCredential{}}
}

var (
	errTokenUnknown = errors.New("the proof is wrong, or there is no such delegation token")
	errTokenEnded   = errors.New("the delegation token has ended")
	errTokenKey     = errors.New("the delegation token was made with another delegation.token.secret.key than that of this node")
	errTokenBusy    = errors.New("the connection has ended before the keys of the delegation token were derived")
)

// begin returns what a client is told of a token's credential. It is made of the name alone, so that it does not tell whether there
// is such a token.
func (k *Tokens) begin(name string, m meta.ScramMechanism) *meta.ScramCredential {
	return &meta.ScramCredential{
		CredentialOwner: meta.CredentialOwner{User: name, Mechanism: m}, Salt: k.key.saltOf(name, m), Iterations: MinIterations,
	}
}

// verify tells who has logged in with a token, and the credential by which the server proves itself. c is what begin has
// returned, and proves tells whether the client's proof is that of a credential.
//
// A login that fails has always derived the keys of the name once, whether there is such a token or not, so that its time does not
// tell. The keys of a token whose holder has logged in are remembered.
func (k *Tokens) verify(ctx context.Context, c *meta.ScramCredential, now time.Time, proves func(*meta.ScramCredential) bool) (*meta.ScramCredential, *Login, error) {
	login, why := k.find(c.User, now)
	if why == nil {
		k.mu.Lock()
		known := k.known[c.CredentialOwner]
		k.mu.Unlock()
		if known != nil && proves(known) {
			return known, login, nil
		}
	}
	derived, err := k.derive(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	switch proven := proves(derived); {
	case why != nil && !errors.Is(why, errTokenUnknown):
		return nil, nil, why
	case !proven || why != nil:
		return nil, nil, errTokenUnknown
	}
	k.remember(derived)
	return derived, login, nil
}

// find finds the token of a name, and who its holder is, or why nobody can log in with it.
func (k *Tokens) find(name string, now time.Time) (*Login, error) {
	id, ok := meta.ParseUUID(name)
	if !ok || id.String() != name {
		return nil, errTokenUnknown
	}
	t := k.image().DelegationTokens().Find(id)
	switch {
	case t == nil:
		return nil, errTokenUnknown
	case t.HasEnded(now.UnixMilli()):
		return nil, errTokenEnded
	case !k.key.Made(t):
		return nil, errTokenKey
	}
	owner, err := ParsePrincipal(t.Owner)
	if err != nil {
		return nil, err
	}
	return &Login{Principal: owner, Token: id, Lifetime: max(time.UnixMilli(t.Expires).Sub(now), time.Millisecond)}, nil
}

// derive derives the keys of a name's password, with the salt that the client was told. It waits for its turn.
func (k *Tokens) derive(ctx context.Context, c *meta.ScramCredential) (*meta.ScramCredential, error) {
	if !k.turns.Take(ctx.Done(), budget.OriginOf(ctx)) {
		return nil, errTokenBusy
	}
	defer k.turns.Give()
	salted, err := SaltPassword(c.Mechanism, base64.StdEncoding.EncodeToString(k.key.sign(c.User)), c.Salt, c.Iterations)
	if err != nil {
		return nil, err
	}
	derived := CredentialOf(c.CredentialOwner, c.Salt, salted, c.Iterations)
	return &derived, nil
}

// mostKnownTokens bounds the credentials that are remembered. When one more comes, all are forgotten.
const mostKnownTokens = 10_000

func (k *Tokens) remember(c *meta.ScramCredential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) >= mostKnownTokens {
		clear(k.known)
	}
	k.known[c.CredentialOwner] = c
}
