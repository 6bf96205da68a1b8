package cluster

import (
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/wire"
)

// maxReason is how many bytes of an error's text travel.
const maxReason = 1 << 10

// status is the first byte of the answer to a call between nodes. Behind it is the body or, for all but
// statusDone, the reason in words.
type status byte

const (
	statusDone       status = iota
	statusFailed            // in a way that has no status of its own
	statusNothing           // there is nothing to tell yet: the caller asks again
	statusBusy              // the node serves as many such calls as it may
	statusNoSnapshot        // quorum.ErrNoSnapshot
)

var (
	// ErrFailed is returned for a call that the other node could not serve; its reason follows.
	ErrFailed = errors.New("the other node could not do it")
	// ErrBusy is returned for a call to a node that serves as many of the kind as it may.
	ErrBusy    = errors.New("the other node is busy")
	errNothing = errors.New("there is nothing to tell yet")
	// errAnswer is returned for an answer that cannot be read.
	errAnswer = errors.New("the answer of the other node cannot be read")
	// errRequest ends the connection of a node that sends what no node sends.
	errRequest = errors.New("the request of the other node cannot be read")
)

// statusErrors are the errors that have a status.
func statusErrors() map[status]error {
	return map[status]error{
		statusNothing: errNothing, statusBusy: ErrBusy, statusNoSnapshot: quorum.ErrNoSnapshot,
	}
}

// splitAnswer returns the body of an answer, or the error that it stands for.
func splitAnswer(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errAnswer)
	}
	s, rest := status(b[0]), b[1:]
	if s == statusDone {
		return rest, nil
	}
	reason := rest[:min(len(rest), maxReason)]
	if err := statusErrors()[s]; err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s", ErrFailed, reason)
}

// replyBody answers a call with a body.
func replyBody(r *wire.Request, body []byte) {
	p := r.Begin()
	p.B = append(append(p.B, byte(statusDone)), body...)
	r.Send(p)
}

// replyError answers a call with an error.
func replyError(r *wire.Request, err error) {
	found := statusFailed
	for s, known := range statusErrors() {
		if errors.Is(err, known) {
			found = s
		}
	}
	reason := err.Error()
	p := r.Begin()
	p.B = append(append(p.B, byte(found)), reason[:min(len(reason), maxReason)]...)
	r.Send(p)
}
