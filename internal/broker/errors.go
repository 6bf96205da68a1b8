package broker

import (
	"errors"

	"github.com/leatstream/leat/internal/errcode"
)

// none is the code of success; notLeader the one that brings the leader's address along.
const (
	none      = 0
	notLeader = 6
)

// ErrUnsupported closes a connection that asks for an API or a version that is not
// served: Kafka does the same, since the answer's shape would be anybody's guess.
var ErrUnsupported = errors.New("API or version is not supported")

// ErrNoAnswer closes a connection whose acks=0 request failed: there is no answer
// to carry the error, and the closed connection makes the client ask for metadata.
var ErrNoAnswer = errors.New("a request without acknowledgement failed")

// codeOf is the code for an error of the floors below.
func codeOf(err error) int16 { return errcode.Of(err) }
