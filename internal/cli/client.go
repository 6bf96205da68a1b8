package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cli/phrase"
)

const (
	// defaultTimeout is how long a client verb waits for brokers unless --timeout says otherwise.
	defaultTimeout = 30 * time.Second
	// maxDial is how long one attempt to connect, or to be answered, may take.
	maxDial = 10 * time.Second
	// leastOverhead is the shortest time for it that the client library accepts.
	leastOverhead = 100 * time.Millisecond
	// askHTTP is how long a program that has not answered like a broker may take to answer like a web server.
	askHTTP = 500 * time.Millisecond
	// closeTimeout is how long a verb that has done its work, or was interrupted, may take to tell
	// brokers so.
	closeTimeout = 600 * time.Millisecond
)

// broker is a client of the brokers that --bootstrap names, and what it has seen of them.
type broker struct {
	cl      *kgo.Client
	contact *contact
	access  access
}

// withBroker runs fn with a client, once a broker has answered. The context of fn ends when no
// broker has answered for the time of --timeout. All client verbs reach brokers through it.
func (a *app) withBroker(ctx context.Context, say func(string), opts []kgo.Opt, fn func(ctx context.Context, b *broker) error) error {
	by, err := a.identity.readAccess()
	if err != nil {
		return err
	}
	if seeds, err := splitAddresses(a.bootstrap); err == nil {
		if err := by.checkReadable(seeds); err != nil {
			return err
		}
	}
	b := &broker{contact: newContact(a.bootstrap, a.timeout, say), access: by}
	b.contact.hint, a.identity.loggedInBy = by.hint(), by.name
	whole := ctx
	ctx, stop := b.contact.watchBrokers(ctx)
	defer stop()
	b.cl, err = a.connectClient(ctx, append(append(opts, by.options()...), kgo.WithHooks(b.contact))...)
	switch ping := new(unansweredError); {
	case err == nil:
		defer closeClient(b.cl)
		err = fn(ctx, b)
	case by.explainLogin(err) != nil:
		return by.explainLogin(err)
	case errors.As(err, &ping) && isOwnLimit(ping.err):
		return ownLimitError(ping.err)
	case errors.As(err, &ping):
		return b.contact.unreachableError(ping.err)
	}
	switch lost := context.Cause(ctx); {
	case err == nil:
		return nil
	case by.explainLogin(err) != nil:
		return by.explainLogin(err)
	case errors.Is(lost, errUnreachable):
		if errors.Is(err, errUnreachable) {
			return err // it is more precise
		}
		return lost
	case errors.Is(whole.Err(), context.DeadlineExceeded):
		return b.contact.timeoutError()
	case isNetwork(err) && !errors.Is(err, errUnreachable):
		return b.contact.unreachableError(err)
	default:
		return err
	}
}

// withAdmin runs fn with an administrator's client. All of it takes no longer than --timeout.
func (a *app) withAdmin(ctx context.Context, fn func(ctx context.Context, adm *kadm.Client) error) error {
	return a.withClient(ctx, func(ctx context.Context, cl *kgo.Client) error { return fn(ctx, kadm.NewClient(cl)) })
}

// withClient runs fn with a client for administrators' requests, also for those that have no
// function of their own. All of it takes no longer than --timeout.
func (a *app) withClient(ctx context.Context, fn func(ctx context.Context, cl *kgo.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, orDefault(a.timeout))
	defer cancel()
	return a.withBroker(ctx, a.tellPerson, nil, func(ctx context.Context, b *broker) error { return fn(ctx, b.cl) })
}

// connectClient makes a client and sees to it that a broker answers. The caller closes it.
func (a *app) connectClient(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	seeds, err := splitAddresses(a.bootstrap)
	if err != nil {
		return nil, err
	}
	timeout := orDefault(a.timeout)
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID("leat"), kgo.DialTimeout(min(maxDial, timeout)), kgo.RetryTimeout(timeout),
		kgo.RequestTimeoutOverhead(max(leastOverhead, min(maxDial, timeout))),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, usagef("%s", strings.TrimPrefix(err.Error(), "invalid "))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		closeClient(cl)
		switch ended := ctx.Err(); {
		case errors.Is(ended, context.Canceled) && !errors.Is(context.Cause(ctx), errUnreachable):
			return nil, ended
		case ended != nil, isLate(err):
			err = findHTTP(context.WithoutCancel(ctx), seeds)
		}
		return nil, &unansweredError{addrs: a.bootstrap, err: err}
	}
	return cl, nil
}

// splitAddresses splits the value of --bootstrap.
func splitAddresses(bootstrap string) (addresses []string, err error) {
	for s := range strings.SplitSeq(bootstrap, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if err := checkAddress(s); err != nil {
			return nil, err
		}
		addresses = append(addresses, s)
	}
	if len(addresses) == 0 {
		return nil, usagef("--bootstrap is empty: name a broker as HOST:PORT")
	}
	return addresses, nil
}

// errHTTP is the kind of answers that a web server gives.
var errHTTP = errors.New("this is no broker: it answered HTTP/1.1")

// findHTTP gives the reason for which none of the addresses has answered in time: one of them is a web
// server, or none that we know. A web server waits for a whole line, which a broker's client never
// sends.
func findHTTP(ctx context.Context, addrs []string) error {
	dialer := net.Dialer{Timeout: askHTTP}
	for _, addr := range addrs {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		var answer [5]byte
		err = conn.SetDeadline(time.Now().Add(askHTTP))
		if err == nil {
			_, err = io.WriteString(conn, "HEAD / HTTP/1.0\r\n\r\n")
		}
		if err == nil {
			_, err = io.ReadFull(conn, answer[:])
		}
		_ = conn.Close() // nothing is lost
		if err == nil && string(answer[:]) == "HTTP/" {
			return errHTTP
		}
	}
	return context.DeadlineExceeded
}

// unansweredError says that no broker has answered a client's first request.
type unansweredError struct {
	addrs string
	err   error // of the last attempt
}

func (e *unansweredError) Error() string { return unreachableError(e.addrs, e.err).Error() }
func (e *unansweredError) Unwrap() []error {
	return []error{errUnreachable, e.err}
}

// checkAddress refuses an address that cannot be a broker's. The port may be left out.
func checkAddress(s string) error {
	if net.ParseIP(s) != nil || !strings.Contains(s, ":") {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n == 0 || host == "" {
		return usagef("--bootstrap %s: write HOST:PORT", s)
	}
	return nil
}

// closeClient closes a client. It waits no longer than closeTimeout: a member leaves its group by a
// request, and the broker that it goes to may be gone.
func closeClient(cl *kgo.Client) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		cl.CloseAllowingRebalance()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}

// orDefault is a timeout, or the default one if none is set, as for a verb without --timeout.
func orDefault(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return defaultTimeout
	}
	return timeout
}

// tellPerson writes a line to the standard error about what goes on.
func (a *app) tellPerson(sentence string) {
	_, _ = fmt.Fprintf(a.err, "leat: %s\n", escapeLines(sentence))
}

// writeNote writes a broker's note about the configs that a verb has set for a topic or broker.
func (a *app) writeNote(of, note string) {
	if note != "" {
		_, _ = fmt.Fprintf(a.err, "note: %s: %s\n", of, escapeLines(note))
	}
}

// topicDetails looks up topics. It fails with errNotFound if one of them does not exist.
func topicDetails(ctx context.Context, adm *kadm.Client, topics ...string) (kadm.TopicDetails, error) {
	details, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("asking for topics: %w", err)
	}
	for _, t := range topics {
		d, ok := details[t]
		if !ok {
			return nil, noSuchTopicError(ctx, adm, t)
		}
		if d.Err != nil {
			return nil, topicError(ctx, adm, t, d.Err, "")
		}
	}
	return details, nil
}

// findTopics looks up those topics that exist. The error missing names the others; err ends the verb.
// Without names it looks up all topics.
func findTopics(ctx context.Context, adm *kadm.Client, topics ...string) (found kadm.TopicDetails, missing, err error) {
	found, err = adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, nil, fmt.Errorf("asking for topics: %w", err)
	}
	var failed []error
	for _, t := range topics {
		switch d, ok := found[t]; {
		case !ok:
			failed = append(failed, noSuchTopicError(ctx, adm, t))
		case d.Err != nil:
			failed = append(failed, topicError(ctx, adm, t, d.Err, ""))
		default:
			continue
		}
		delete(found, t)
	}
	missing = errors.Join(failed...)
	if len(topics) > 0 && len(found) == 0 {
		return nil, nil, missing // there is nothing else to do
	}
	return found, missing, nil
}

// topicError makes a sentence of a broker's error about a topic. If the topic does not exist, the
// sentence names the topics that may have been meant.
func topicError(ctx context.Context, adm *kadm.Client, topic string, err error, message string) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return noSuchTopicError(ctx, adm, topic)
	}
	if errors.Is(err, kerr.InvalidTopicException) && isPattern(topic) {
		return patternError(topic)
	}
	return answerError("topic "+topic, err, message)
}

// isPattern tells whether a topic's name has characters of a shell's patterns, which no name can have.
func isPattern(topic string) bool { return strings.ContainsAny(topic, "*?[") }

// patternError says how to list topics by a pattern, after one was given as a name.
func patternError(topic string) error {
	return usagef("no topic can have the name %s: \"leat topic list --match REGEX\" lists the topics whose names match a regular expression", topic)
}

// noSuchTopicError says that a topic does not exist, and which ones may have been meant.
func noSuchTopicError(ctx context.Context, adm *kadm.Client, topic string) error {
	if isPattern(topic) {
		return patternError(topic)
	}
	list, err := adm.ListTopicsWithInternal(ctx)
	if hint := phrase.DidYouMean(topic, list.Names()); err == nil && hint != "" {
		return notFoundf("topic %s does not exist%s", topic, hint)
	}
	return notFoundf("topic %s does not exist: \"leat topic list\" lists all topics", topic)
}

// noSuchPartitionError says that a topic has no such partition among its partitions, which count from 0.
func noSuchPartitionError(topic string, partition int32, partitions int) error {
	return notFoundf("topic %s has no partition %d: its partitions are 0 to %d", topic, partition, partitions-1)
}

// parsePairs parses name=value arguments. The error names the flag. A name may be given again with the same value only.
func parsePairs(flag string, args []string) (map[string]*string, error) {
	m := make(map[string]*string, len(args))
	for _, kv := range args {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, usagef("%s%q: write it as name=value", flag, kv)
		}
		if before, twice := m[name]; twice && *before != value {
			return nil, usagef("%s%s is given twice, with different values: leave one of them out", flag, name)
		}
		m[name] = &value
	}
	return m, nil
}
