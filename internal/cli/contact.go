package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A person is told that a broker is lost when something has gone wrong and nothing was heard for
// troubleTold, or when a request has had no answer for silenceTold.
const (
	troubleTold = 700 * time.Millisecond
	silenceTold = 5 * time.Second
	lookEvery   = 100 * time.Millisecond
)

// contact is what a client has seen of its brokers. It is told of each request, answer and
// failure by the client's hooks, on the client's goroutines.
//
//	answering --no answer for a while--> lost --no answer for the timeout--> given up
//	    ^--------------answer-------------'
//
// Time counts only while an answer is owed: a client that asks nothing loses nobody.
type contact struct {
	addrs    string
	timeout  time.Duration
	say      func(string)
	noAnswer int16 // the API whose requests have no answer; -1: none
	always   bool  // an answer is always owed: nobody notes requests

	mu struct {
		sync.Mutex
		state   contactState
		owed    time.Time // since when an answer is owed; zero: none is
		trouble string    // how the last request failed since the last answer; "": not known
	}
}

type contactState int8

const (
	answering contactState = iota
	lost
	givenUp
)

func newContact(addrs string, timeout time.Duration, say func(string)) *contact {
	c := &contact{addrs: addrs, timeout: orDefault(timeout), say: say, noAnswer: -1}
	c.mu.owed = time.Now() // the first connection is owed
	return c
}

// watch gives a context that ends, with the reason as its cause, when no broker has answered for
// the timeout. Stop ends the watch.
func (c *contact) watch(ctx context.Context) (watched context.Context, stop func()) {
	watched, end := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case now := <-tick.C:
				if err := c.look(now); err != nil {
					end(err)
					return
				}
			}
		}
	})
	return watched, func() {
		end(context.Canceled)
		looking.Wait()
	}
}

// look moves the state on as time passes, and says so. It fails when it is time to give up.
func (c *contact) look(now time.Time) error {
	c.mu.Lock()
	var silent time.Duration
	if !c.mu.owed.IsZero() {
		silent = now.Sub(c.mu.owed)
	}
	told, trouble := silenceTold, c.mu.trouble
	if trouble != "" {
		told = troubleTold
	}
	sentence := ""
	switch {
	case silent >= c.timeout:
		c.mu.state = givenUp
	case c.mu.state == answering && silent >= told:
		c.mu.state = lost
		sentence = fmt.Sprintf("no answer from %s, trying for %s", c.seenLocked(), duration(c.timeout))
	case c.mu.state == lost && silent < told && trouble == "":
		c.mu.state = answering
		sentence = "there is an answer from " + c.addrs + " again"
	}
	gaveUp := c.mu.state == givenUp
	c.mu.Unlock()
	if gaveUp {
		return c.lostError()
	}
	if sentence != "" {
		c.say(sentence)
	}
	return nil
}

// seenLocked names the brokers and the last failure. mu is held.
func (c *contact) seenLocked() string {
	if c.mu.trouble == "" {
		return c.addrs
	}
	return c.mu.trouble
}

// isLost tells whether an answer is owed for most of the timeout, or a person knows that it is.
func (c *contact) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.state != answering || !c.mu.owed.IsZero() && time.Since(c.mu.owed) > c.timeout/2
}

// lostError says that no broker has answered for the timeout.
func (c *contact) lostError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &told{kind: errUnreachable, sentence: fmt.Sprintf("no answer for %s from %s", duration(c.timeout), c.seenLocked())}
}

// timeoutError says why a verb has not ended within the timeout.
func (c *contact) timeoutError() error {
	c.mu.Lock()
	owed := !c.mu.owed.IsZero()
	c.mu.Unlock()
	if owed {
		return c.lostError()
	}
	return fmt.Errorf("this takes longer than %s, while %s answers: --timeout gives it more time", duration(c.timeout), c.addrs)
}

// noteAnswer notes that a broker has answered.
func (c *contact) noteAnswer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.owed, c.mu.trouble = time.Time{}, ""
	if c.always {
		c.mu.owed = time.Now()
	}
}

// noteRequest notes that an answer is owed from now on, if none was.
func (c *contact) noteRequest(trouble string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.owed.IsZero() {
		c.mu.owed = time.Now()
	}
	if trouble != "" {
		c.mu.trouble = trouble
	}
}

// noteFailure notes how a request failed, unless we ended it.
func (c *contact) noteFailure(meta kgo.BrokerMetadata, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	c.noteRequest(fmt.Sprintf("%s (%s)", net.JoinHostPort(meta.Host, fmt.Sprint(meta.Port)), describeNetwork(err)))
}

// OnBrokerConnect is called when a connection is open, or cannot be opened.
func (c *contact) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		c.noteFailure(meta, err)
	}
}

// OnBrokerWrite is called when a request was sent, or could not be. A group answers JoinGroup and
// SyncGroup when its other members have asked: these are not owed.
func (c *contact) OnBrokerWrite(meta kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	switch {
	case err != nil:
		c.noteFailure(meta, err)
	case key == c.noAnswer:
		c.noteAnswer()
	case key != kmsg.JoinGroup.Int16() && key != kmsg.SyncGroup.Int16():
		c.noteRequest("")
	}
}

// OnBrokerRead is called when an answer has come, or cannot come any more.
func (c *contact) OnBrokerRead(meta kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	if err != nil {
		c.noteFailure(meta, err)
	} else {
		c.noteAnswer()
	}
}

// isNetwork tells whether an error is of the connection, after which the client tries again. A
// pipe or file that we write to is none.
func isNetwork(err error) bool {
	var file *fs.PathError
	var ne net.Error
	return !errors.As(err, &file) && !errors.Is(err, context.DeadlineExceeded) &&
		(errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed))
}

// describeNetwork says in a few words how a connection failed.
func describeNetwork(err error) string {
	var dns *net.DNSError
	var ne net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &dns):
		return "no such host " + dns.Name
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection closed"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "no answer in time"
	case err == nil:
		return "no answer"
	default:
		return oneLine(err)
	}
}

// unreachable says who cannot be reached, why, and what to do.
func unreachable(addrs string, err error) error {
	return &told{kind: errUnreachable, sentence: fmt.Sprintf("cannot reach a broker on %s (%s): "+
		"start one with \"leat up\", or name another with --bootstrap HOST:PORT", addrs, describeNetwork(err))}
}
