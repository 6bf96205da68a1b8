package broker

import (
	"errors"

	"github.com/leatstream/leat/internal/errcode"
)

const (
	none      = 0 // the code of success
	notLeader = 6 // the code with which an answer may name the leader and its address
)

// ErrUnsupported closes a connection on which an API or a version is asked for that is not
// served. Kafka does the same, since the client could not decode an answer.
var ErrUnsupported = errors.New("API or version is not supported")

// ErrNoAnswer closes a connection on which a request with acks=0 has failed. Such a request
// has no answer for the error; the closed connection makes the client ask for metadata.
var ErrNoAnswer = errors.New("a request without acknowledgement failed")

// codeOf is the code for an error of the packages below.
func codeOf(err error) int16 { return errcode.Of(err) }
