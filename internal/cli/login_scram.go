package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/sasl"
)

// mostIterations is how often a server can have a verb hash the password, which takes about a second. Credentials of Leat and of Apache
// Kafka have 16,384 iterations at most.
const mostIterations = 1_000_000

// boundedScram is SCRAM with a server that need not be honest. The server says how often the password is hashed, and the library of the client
// does so without an end, before it knows who the server is.
type boundedScram struct{ sasl.Mechanism }

// Authenticate begins a login.
func (b boundedScram) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) { //nolint:ireturn // of sasl.Mechanism
	s, first, err := b.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	return boundedScramSession{s}, first, nil
}

type boundedScramSession struct{ sasl.Session }

// Challenge takes a message of the server.
func (s boundedScramSession) Challenge(message []byte) (done bool, answer []byte, err error) {
	for part := range strings.SplitSeq(string(message), ",") {
		text, isCount := strings.CutPrefix(part, "i=")
		if n, err := strconv.Atoi(text); isCount && (err != nil || n > mostIterations) {
			return false, nil, fmt.Errorf("the server asks for %.20s iterations of SCRAM, and at most %d are done", text, mostIterations)
		}
	}
	return s.Session.Challenge(message)
}
