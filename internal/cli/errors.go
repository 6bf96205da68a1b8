package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/admin"
)

// The exit codes; the help of the root tells people.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnreachable = 4
)

// interrupted is said of a verb that Ctrl-C has ended.
const interrupted = "interrupted"

var (
	// errUsage is wrapped by complaints about arguments and flags.
	errUsage = errors.New("usage")
	// errNotFound is wrapped where something that was named does not exist.
	errNotFound = errors.New("not found")
	// errUnreachable is wrapped where no broker answers.
	errUnreachable = errors.New("unreachable")
)

// told is an error whose sentence stands alone, while kind can be asked for.
type told struct {
	kind     error
	sentence string
}

func (t *told) Error() string { return t.sentence }
func (t *told) Unwrap() error { return t.kind }

func usagef(format string, args ...any) error {
	return &told{kind: errUsage, sentence: fmt.Sprintf(format, args...)}
}

func notFoundf(format string, args ...any) error {
	return &told{kind: errNotFound, sentence: fmt.Sprintf(format, args...)}
}

// finish tells what went wrong, if anything, and gives the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	err = explainRefusal(err)
	code := a.codeOf(err)
	if err == nil {
		return code
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New(interrupted)
	}
	if !a.running {
		err = explainFlagRule(err)
	}
	// Nobody reads a message about a stream that nobody reads.
	_, _ = fmt.Fprintf(a.err, "leat: %s\n", oneLine(err))
	if code == exitUsage {
		_, _ = fmt.Fprintf(a.err, "Run '%s --help' for how to use it.\n", cmd.CommandPath())
	}
	return code
}

// explainRefusal makes a sentence of what a broker refused, with what can be done about it.
func explainRefusal(err error) error {
	if r, ok := errors.AsType[*admin.RefusedError](err); ok {
		return about(r.Of, r.Err, r.Message)
	}
	return err
}

func (a *app) codeOf(err error) int {
	switch {
	case err == nil, closedPipe(err):
		return exitOK
	case errors.Is(err, errUsage), !a.running:
		return exitUsage
	case errors.Is(err, errNotFound), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID),
		errors.Is(err, kerr.GroupIDNotFound):
		return exitNotFound
	case errors.Is(err, errUnreachable):
		return exitUnreachable
	default:
		return exitFailed
	}
}

// closedPipe tells whether the reader of our output went away, as "| head" does.
func closedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// oneLine makes a sentence of an error; joined errors stand behind one another.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// about wraps what a broker said on a topic, group or the like, and says what can
// be done where that is known.
func about(what string, err error, message string) error {
	var k *kerr.Error
	if !errors.As(err, &k) {
		return fmt.Errorf("%s: %w", what, err)
	}
	sentence := message
	if sentence == "" {
		sentence = k.Description
	}
	switch {
	case errors.Is(k, kerr.UnknownTopicOrPartition), errors.Is(k, kerr.UnknownTopicID):
		sentence = "does not exist: \"leat topic list\" shows what there is"
	case errors.Is(k, kerr.GroupIDNotFound):
		sentence = "does not exist: \"leat group list\" shows what there is"
	case errors.Is(k, kerr.TopicAlreadyExists):
		sentence = "exists already: \"leat topic describe\" shows it, --if-not-exists takes it as it is"
	case errors.Is(k, kerr.NonEmptyGroup):
		sentence = "has members that are still running: stop them first"
	}
	return &told{kind: err, sentence: fmt.Sprintf("%s: %s", what, strings.TrimSuffix(sentence, "."))}
}
