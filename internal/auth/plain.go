package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// PLAIN (RFC 4616): the client sends [authorization id] NUL user name NUL password. The password is in clear text, so that
// a listener needs TLS for it.

// NewPlain makes PLAIN; check tells whether a password is the user's. It may be called by any goroutine, and must take as
// long for a user that does not exist.
func NewPlain(check func(ctx context.Context, user, password string) bool) *Plain {
	return &Plain{func(ctx context.Context, user, password string) (*meta.ScramCredential, bool) {
		return nil, check(ctx, user, password)
	}}
}

// NewPlainOf makes PLAIN for users that have credentials.
func NewPlainOf(users *Users) *Plain { return &Plain{users.verifyPassword} }

// Plain is a Mechanism: PLAIN.
type Plain struct {
	// check tells whether a password is the user's, and by which credential; nil: by none.
	check func(ctx context.Context, user, password string) (*meta.ScramCredential, bool)
}

// Name is the mechanism's name.
func (*Plain) Name() string { return "PLAIN" }

// Start begins a login.
func (p *Plain) Start() Exchange { return &plainExchange{Plain: p} } //nolint:ireturn // of Mechanism

// longestPlain bounds a client's message: two names, a password, and what is between them. A longer one is refused before the node
// copies it, since it keeps the message while the password waits to be checked.
const longestPlain = 3*longestName + 2

type plainExchange struct {
	*Plain

	ended bool
	user  string
}

// Step takes the client's only message.
func (e *plainExchange) Step(ctx context.Context, message []byte) ([]byte, *Login, error) {
	if e.ended {
		return nil, nil, &RefusedError{"Authentication failed: the login has ended"}
	}
	e.ended = true
	if len(message) > longestPlain {
		return nil, nil, &RefusedError{"Authentication failed: Invalid username or password"}
	}
	const most = 4 // one more than there should be, which is enough to tell that there are too many
	parts := strings.SplitN(string(message), "\x00", most)
	if len(parts) != most-1 {
		return nil, nil, &RefusedError{fmt.Sprintf("Invalid SASL/PLAIN response: expected 3 tokens, got %d", len(parts))}
	}
	e.user = parts[1][:min(len(parts[1]), longestName)]
	authorization, user, password := parts[0], parts[1], parts[2]
	switch {
	case user == "":
		return nil, nil, &RefusedError{"Authentication failed: username not specified"}
	case password == "":
		return nil, nil, &RefusedError{"Authentication failed: password not specified"}
	}
	var by *meta.ScramCredential
	isRight := len(user) <= longestName && len(password) <= longestName
	if isRight {
		by, isRight = e.check(ctx, user, password)
	}
	switch {
	case !isRight:
		return nil, nil, &RefusedError{"Authentication failed: Invalid username or password"}
	case authorization != "" && authorization != user:
		return nil, nil, &RefusedError{"Authentication failed: Client requested an authorization id that is different from username"}
	default:
		return []byte{}, &Login{Principal: User(user), Credential: by}, nil
	}
}

// FixedPasswords checks passwords against those that an operator has written down.
type FixedPasswords map[string]string

// Check tells whether a password is the user's. Its time depends neither on whether the user exists nor on the password.
func (f FixedPasswords) Check(_ context.Context, user, password string) bool {
	known, exists := f[user]
	a, b := sha256.Sum256([]byte(known)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && exists
}
