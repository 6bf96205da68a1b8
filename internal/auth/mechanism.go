package auth

import (
	"context"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// Mechanism is one SASL mechanism. Any goroutine may use it.
type Mechanism interface {
	// Name is what clients call it: "SCRAM-SHA-256".
	Name() string
	// Start begins a login.
	Start() Exchange
}

// Exchange is one login that is under way.
type Exchange interface {
	// Step takes a message of the client and returns the answer to it. When login is not nil, the login has
	// succeeded, and the exchange ends with this answer. After an error it ends, too: the client gets the text
	// of a RefusedError, and no reason for any other error.
	Step(ctx context.Context, message []byte) (answer []byte, login *Login, err error)
}

// Login is who has logged in.
type Login struct {
	Principal Principal
	Groups    []string      // the names of the groups that the client is in, as its token says; bounded by mostGroups and mostGroupBytes
	Lifetime  time.Duration // after which the client must log in again; 0: it need not
	Token     meta.UUID     // the delegation token with which it has logged in; zero: with none
	// Credential is that of the user by which it has logged in; nil: the metadata have none. It never changes.
	Credential *meta.ScramCredential
}

// RefusedError ends a login. Its text is for the client, in Kafka's words, and does not tell whether the user exists.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return e.Text }
