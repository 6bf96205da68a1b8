package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The user is told that a broker is lost when a request has failed and no answer has come for
// tellTroubleAfter, or when a request has had no answer for tellSilenceAfter. Both are checked each
// checkEvery.
const (
	tellTroubleAfter = 700 * time.Millisecond
	tellSilenceAfter = 5 * time.Second
	checkEvery       = 100 * time.Millisecond
)

// contact tracks whether brokers answer a client. The client's hooks tell it of each request, answer
// and failure, on the client's goroutines.
//
//	answering --no answer for a while--> lost --no answer for the timeout--> given up
//	    ^--------------answer-------------'
//
// Time counts only while an answer is owed, so a client that asks nothing never loses its brokers.
type contact struct {
	addrs         string
	timeout       time.Duration
	say           func(string)
	unansweredAPI int16  // the API whose requests are not answered; -1: all are answered
	hint          string // what may be wrong if brokers close connections
	alwaysOwed    bool   // an answer is owed at all times, since requests are not noted

	mu struct {
		sync.Mutex
		state   contactState
		owed    time.Time // since when an answer is owed; zero: none is
		trouble string    // how the last request since the last answer failed; "": none has failed
		why     string    // why it did, without the address
		// via is the address by which a broker was reached, and astray says where it sends clients and
		// why nobody reaches it there. It is "" while some broker is reached by its own address.
		via, astray string
		reached     map[string]bool // the addresses on which brokers have answered
	}
}

type contactState int8

const (
	answering contactState = iota
	lost
	givenUp
)

func newContact(addrs string, timeout time.Duration, say func(string)) *contact {
	c := &contact{addrs: addrs, timeout: orDefault(timeout), say: say, unansweredAPI: -1}
	c.mu.owed = time.Now() // the first connection is owed
	c.mu.reached = map[string]bool{}
	return c
}

// watchBrokers gives a context that ends when no broker has answered for the timeout; the reason is its
// cause. The function stop ends the watch.
func (c *contact) watchBrokers(ctx context.Context) (watched context.Context, stop func()) {
	watched, end := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case now := <-tick.C:
				if err := c.checkSilence(now); err != nil {
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

// checkSilence moves to the next state when it is time for it, and tells the user. It fails when it gives up.
func (c *contact) checkSilence(now time.Time) error {
	c.mu.Lock()
	var silent time.Duration
	if !c.mu.owed.IsZero() {
		silent = now.Sub(c.mu.owed)
	}
	told, trouble := tellSilenceAfter, c.mu.trouble
	if trouble != "" {
		told = tellTroubleAfter
	}
	sentence := ""
	switch {
	case silent >= c.timeout:
		c.mu.state = givenUp
	case c.mu.state == answering && silent >= told:
		c.mu.state = lost
		sentence = fmt.Sprintf("no answer from %s, trying for %s", c.describeLocked(), formatDuration(c.timeout))
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

// describeLocked names the brokers and the last failure. The caller holds mu.
func (c *contact) describeLocked() string {
	if c.mu.trouble == "" {
		return c.addrs
	}
	return c.mu.trouble
}

// isLost tells whether an answer has been owed for more than half of the timeout, or the user was
// told that the broker is lost.
func (c *contact) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.state != answering || !c.mu.owed.IsZero() && time.Since(c.mu.owed) > c.timeout/2
}

// lostError says that no broker has answered for the timeout.
func (c *contact) lostError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.astray != "" {
		return c.astrayErrorLocked()
	}
	return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("no answer for %s from %s", formatDuration(c.timeout), c.describeLocked())}
}

// unreachableError says why the client cannot go on after a connection has failed with err.
func (c *contact) unreachableError(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.astray != "" {
		return c.astrayErrorLocked()
	}
	why := describeNetwork(err)
	if isLate(err) && c.mu.why != "" {
		why = c.mu.why
	}
	if why == closedText {
		why += c.hint
	}
	return unreachableSentence(c.addrs, why)
}

// astrayErrorLocked says that a broker sends its clients to an address on which nobody reaches it. The
// caller holds mu.
func (c *contact) astrayErrorLocked() error {
	return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("reached %s, which tells clients to go to %s: "+
		"see whether the broker there runs; if it does and the address is wrong, start it with --advertise HOST:PORT, an address that its clients reach", c.mu.via, c.mu.astray)}
}

// timeoutError says why a verb has not ended within the timeout.
func (c *contact) timeoutError() error {
	c.mu.Lock()
	owed := !c.mu.owed.IsZero()
	c.mu.Unlock()
	if owed {
		return c.lostError()
	}
	return fmt.Errorf("not done after %s, although %s answers: allow more time with --timeout", formatDuration(c.timeout), c.addrs)
}

// noteAnswer notes that a broker has answered.
func (c *contact) noteAnswer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.owed, c.mu.trouble = time.Time{}, ""
	if c.alwaysOwed {
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

// noteFailure notes how a request failed, unless we ended it ourselves.
func (c *contact) noteFailure(meta kgo.BrokerMetadata, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	c.mu.Lock()
	known := c.mu.trouble != ""
	if !known || !isLate(err) {
		c.mu.why = describeNetwork(err)
	}
	c.mu.Unlock()
	if isLate(err) && known {
		c.noteRequest("") // that time ran out says less than the failure before it
		return
	}
	c.noteRequest(fmt.Sprintf("%s (%s)", addressOf(meta), describeNetwork(err)))
}

func addressOf(meta kgo.BrokerMetadata) string {
	return net.JoinHostPort(meta.Host, fmt.Sprint(meta.Port))
}

// noteConnection notes whether a broker is reached by the address that brokers tell clients. The client
// gives ids below 0 to the addresses that it was started with.
func (c *contact) noteConnection(meta kgo.BrokerMetadata, err error) {
	addr := addressOf(meta)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case meta.NodeID < 0 || errors.Is(err, context.Canceled):
	case err == nil:
		c.mu.astray = ""
		c.mu.reached[addr] = true
	case c.mu.via != "" && !c.mu.reached[addr]:
		c.mu.astray = fmt.Sprintf("%s, and nobody can be reached there (%s)", addr, describeNetwork(err))
	}
}

// OnBrokerConnect is called when a connection is open, or cannot be opened.
func (c *contact) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	c.noteConnection(meta, err)
	if err != nil {
		c.noteFailure(meta, err)
	}
}

// OnBrokerWrite is called when a request was sent, or could not be. The answers to
// JoinGroup and SyncGroup are not owed: the group gives them when its other members have joined.
func (c *contact) OnBrokerWrite(meta kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	switch {
	case err != nil:
		c.noteFailure(meta, err)
	case key == c.unansweredAPI:
		c.noteAnswer()
	case key != kmsg.JoinGroup.Int16() && key != kmsg.SyncGroup.Int16():
		c.noteRequest("")
	}
}

// OnBrokerRead is called when an answer has come, or cannot come any more.
func (c *contact) OnBrokerRead(meta kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	if err != nil {
		c.noteFailure(meta, err)
		return
	}
	c.noteAnswer()
	if meta.NodeID < 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.via = addressOf(meta)
		c.mu.reached[c.mu.via] = true
	}
}

// isNetwork tells whether an error is one of the connection to a broker, after which the client tries
// again. An error of a pipe or file that we write to is not, and neither is a limit of this program.
func isNetwork(err error) bool {
	var file *fs.PathError
	var ne net.Error
	if errors.As(err, &file) || errors.Is(err, context.DeadlineExceeded) || isOwnLimit(err) {
		return false
	}
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

// isOwnLimit tells whether a connection could not be made since this program may have no more of them.
func isOwnLimit(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// ownLimitError says that this program, not the broker, is at a limit, and what to do.
func ownLimitError(err error) error {
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return errors.New("this machine has no port left for another connection to that address: close others or wait a minute, or use fewer connections")
	}
	return errors.New("this program may have no more files or connections open, which is no fault of the broker: raise the limit with \"ulimit -n\", or use fewer connections")
}

// isLate tells whether an error says only that the time was over. It may come from looking up a host's name.
func isLate(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// httpAnswer is in the client library's error about an answer that begins like one of HTTP.
const httpAnswer = "the four size bytes are 'HTTP' in ascii"

// closedText says that a broker has closed a connection.
const closedText = "connection closed"

// describeNetwork says in a few words how a connection failed.
func describeNetwork(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ENETUNREACH):
		return "there is no network to it"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host " + dns.Name
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return closedText
	case isLate(err):
		return "no answer in time"
	case err == nil:
		return "no answer"
	case strings.Contains(err.Error(), httpAnswer):
		return errHTTP.Error()
	default:
		return oneLine(err)
	}
}

// unreachableError says which brokers cannot be reached, why, and what to do.
func unreachableError(addrs string, err error) error {
	return unreachableSentence(addrs, describeNetwork(err))
}

func unreachableSentence(addrs, why string) error {
	return &sentenceError{kind: errUnreachable, sentence: fmt.Sprintf("cannot reach a broker on %s (%s): "+
		"start one with \"leat up\", or name another one with --bootstrap HOST:PORT", addrs, why)}
}
