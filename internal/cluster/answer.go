package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// maxReason is how many bytes of an error's text travel.
const maxReason = 1 << 10

// status is the first byte of the answer to a call between nodes:
//
//	statusDone        the body
//	statusNotLeader   the node that leads, as far as the answering one knows, i32; -1: it does not
//	any other         the error's text
type status byte

// A number never gets another meaning.
const (
	statusDone      status = 0
	statusFailed    status = 1 // in a way that has no status of its own
	statusNotLeader status = 2
)

var (
	// ErrFailed is returned for a call that the other node could not serve, and is wrapped in why.
	ErrFailed = errors.New("the other node has failed")
	// ErrBusy is returned for a call to a node that serves as many of the kind as it may.
	ErrBusy    = errors.New("the other node is busy")
	errNothing = errors.New("there is nothing to tell yet") // the caller asks again
	// errStopping is returned for a call to a node that stops, which may have done what it was asked for.
	errStopping = errors.New("the other node is stopping")
	// errAnswer is returned for an answer that cannot be read.
	errAnswer = errors.New("the answer of the other node cannot be read")
	// errRequest ends the connection of a node that sends what no node sends.
	errRequest = errors.New("the request of the other node cannot be read")
)

// errorStatus is an error that is the same on both ends.
type errorStatus struct {
	status status
	err    error
}

// errorStatuses lists these errors. The first one that an error is counts.
func errorStatuses() []errorStatus {
	return []errorStatus{
		{3, errNothing},
		{4, ErrBusy},
		{5, quorum.ErrNoSnapshot},
		{6, errStopping},
		{7, replica.ErrSessionLost},
		{8, wire.ErrMalformed},
		{9, budget.ErrTooLarge},
		{10, ErrLargeAnswer},
		{16, quorum.ErrTooLarge},
		{17, quorum.ErrDiskFull},
		{18, quorum.ErrFaulted},
		{19, quorum.ErrNotApplied},
		{20, controller.ErrNoProducerIDs},
		{21, context.DeadlineExceeded},
		{32, credential.ErrTokenExpired},
		{33, credential.ErrTokenRevoked},
		{34, credential.ErrUnknownToken},
		{35, credential.ErrNodeRemoved},
		{36, credential.ErrNodeIDTaken},
		{37, credential.ErrUnavailable},
	}
}

// remoteError is an error of another node: its text there, and what it is here.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error { return e.is }

// notLeaderError is the answer of a node that is not the active controller.
type notLeaderError struct {
	leader int32 // as far as the node knows; -1: it does not
}

func (*notLeaderError) Error() string { return "the other node is not the active controller" }

func (*notLeaderError) Unwrap() error { return quorum.ErrNotLeader }

// splitAnswer returns the body of an answer, or the error that it stands for.
func splitAnswer(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errAnswer)
	}
	s, rest := status(b[0]), b[1:]
	switch {
	case s == statusDone:
		return rest, nil
	case s == statusNotLeader && len(rest) == 4:
		return nil, &notLeaderError{int32(binary.BigEndian.Uint32(rest))}
	}
	e := &remoteError{string(rest[:min(len(rest), maxReason)]), ErrFailed}
	for _, known := range errorStatuses() {
		if known.status == s {
			e.is = known.err
		}
	}
	return nil, e
}

// replyBody answers a call with a body.
func replyBody(r *wire.Request, body []byte) {
	p := r.Begin()
	p.B = append(append(p.B, byte(statusDone)), body...)
	r.Send(p)
}

// replyError answers a call with an error.
func replyError(r *wire.Request, err error) {
	p := r.Begin()
	p.B = appendError(p.B, err)
	r.Send(p)
}

func appendError(b []byte, err error) []byte {
	if elsewhere, ok := errors.AsType[*notLeaderError](err); ok {
		return binary.BigEndian.AppendUint32(append(b, byte(statusNotLeader)), uint32(elsewhere.leader))
	}
	found := statusFailed
	for _, known := range errorStatuses() {
		if errors.Is(err, known.err) {
			found = known.status
			break
		}
	}
	text := err.Error()
	return append(append(b, byte(found)), text[:min(len(text), maxReason)]...)
}
