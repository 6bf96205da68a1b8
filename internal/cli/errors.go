package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// interrupted is the message of a verb that Ctrl-C has ended.
const interrupted = "interrupted"

var (
	// errUsage is the kind of errors about arguments and flags.
	errUsage = errors.New("usage")
	// errNotFound is the kind of errors about something that was named and does not exist.
	errNotFound = errors.New("not found")
	// errUnreachable is the kind of errors of verbs to which no broker answers.
	errUnreachable = errors.New("unreachable")
)

// sentenceError is an error of a kind, for errors.Is, whose text is the sentence alone.
type sentenceError struct {
	kind     error
	sentence string
}

func (t *sentenceError) Error() string { return t.sentence }
func (t *sentenceError) Unwrap() error { return t.kind }

func usagef(format string, args ...any) error {
	return &sentenceError{kind: errUsage, sentence: fmt.Sprintf(format, args...)}
}

func notFoundf(format string, args ...any) error {
	return &sentenceError{kind: errNotFound, sentence: fmt.Sprintf(format, args...)}
}

// reportEnd writes why a verb failed, if it did, and gives the exit code.
func (a *app) reportEnd(cmd *cobra.Command, err error) int {
	err = explainRefusal(dropClosedPipe(err))
	code := a.exitCodeOf(err)
	if err == nil {
		return code
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New(interrupted)
	}
	if !a.running {
		err = explainFlagRule(err)
	}
	// A failure to write to the standard error has nowhere to be told.
	_, _ = fmt.Fprintf(a.err, "leat: %s\n", escapeLines(oneLine(err)))
	if code == exitUsage {
		_, _ = fmt.Fprintf(a.err, "Run '%s --help' for how to use it.\n", cmd.CommandPath())
	}
	return code
}

// explainRefusal makes a sentence of what a broker refused, with what can be done about it.
func explainRefusal(err error) error {
	if r, ok := errors.AsType[*admin.RefusedError](err); ok {
		return answerError(r.Of, r.Err, r.Message)
	}
	return err
}

func (a *app) exitCodeOf(err error) int {
	switch {
	case err == nil:
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

// isClosedPipe tells whether the reader of our output has gone away, as "| head" does. A broken connection to a broker
// is something else, although the system gives it the same number.
func isClosedPipe(err error) bool {
	file, ok := errors.AsType[*fs.PathError](err)
	return ok && errors.Is(file.Err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// dropClosedPipe leaves those parts of an error that are no closed pipe. The reader of our output may go away when it
// has read enough, but what else failed still counts.
func dropClosedPipe(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var left []error
		for _, e := range joined.Unwrap() {
			if dropClosedPipe(e) != nil {
				left = append(left, e)
			}
		}
		if len(left) == len(joined.Unwrap()) {
			return err
		}
		return errors.Join(left...)
	}
	if isClosedPipe(err) {
		return nil
	}
	return err
}

// oneLine writes an error as one line, with joined errors one after another.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// answerError makes a sentence of a broker's error about a topic, group or the like, and says what can
// be done about it where that is known.
func answerError(of string, err error, message string) error {
	var k *kerr.Error
	if !errors.As(err, &k) {
		return fmt.Errorf("%s: %w", of, err)
	}
	sentence := message
	if sentence == "" {
		sentence = k.Description
	}
	switch {
	case errors.Is(k, kerr.UnknownTopicOrPartition), errors.Is(k, kerr.UnknownTopicID):
		sentence = "does not exist: \"leat topic list\" lists all topics"
	case errors.Is(k, kerr.GroupIDNotFound):
		sentence = "does not exist: \"leat group list\" lists all groups"
	case errors.Is(k, kerr.TopicAlreadyExists):
		sentence = "exists already: \"leat topic describe\" shows it; with --if-not-exists this is no error"
	case errors.Is(k, kerr.NonEmptyGroup):
		sentence = "still has members: stop them first"
	}
	return &sentenceError{kind: err, sentence: fmt.Sprintf("%s: %s", of, strings.TrimSuffix(sentence, "."))}
}
