// Package client is a connection to a broker for requests that are not timed: a
// benchmark creates, finds and deletes its topics with it. A Conn sends kmsg's
// requests one at a time, and belongs to one goroutine.
package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ID is the client id that brokers see.
const ID = "leat-bench"

// A broker must accept a connection within DialWithin, and answer a request within CallWithin.
const (
	DialWithin = 5 * time.Second
	CallWithin = 30 * time.Second
)

// maxAnswer is the largest size of an answer in bytes.
const maxAnswer = 256 << 20

// ErrNoBroker says that none of the given brokers answers.
var ErrNoBroker = errors.New("no broker answers; is it running, and on this address?")

// watchKey is the key of the function in a context of WithWatch.
type watchKey struct{}

// WithWatch makes a context for a caller that decides itself how long it waits for answers:
// answered is called at each answer, and CallWithin does not apply.
func WithWatch(ctx context.Context, answered func()) context.Context {
	return context.WithValue(ctx, watchKey{}, answered)
}

// Watch is the function that WithWatch has put into the context; nil: there is none.
func Watch(ctx context.Context) (answered func()) {
	answered, _ = ctx.Value(watchKey{}).(func())
	return answered
}

// Conn is a connection to one broker.
type Conn struct {
	conn     net.Conn
	versions map[int16][2]int16 // by API key: the lowest and the highest that the broker serves
	sent     int32
}

// DialAny connects to the first broker that answers.
func DialAny(ctx context.Context, addrs []string) (*Conn, error) {
	var errs []error
	for _, a := range addrs {
		c, err := Dial(ctx, a)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w %w", ErrNoBroker, errors.Join(errs...))
}

// Dial connects to a broker and asks which versions it serves.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	conn, err := (&net.Dialer{Timeout: DialWithin}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, err := Over(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return c, nil
}

// Over asks a broker at the other end of a connection, which can be one over TLS, which versions it serves. The connection belongs to the
// Conn, also after an error.
func Over(ctx context.Context, conn net.Conn) (*Conn, error) {
	c := &Conn{conn: conn}
	if err := c.AskVersions(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() { c.conn.Close() } //nolint:errcheck // nothing depends on it

// AskVersions asks which versions the broker serves.
func (c *Conn) AskVersions(ctx context.Context) error {
	req := kmsg.NewPtrApiVersionsRequest() // of version 0, which every broker answers
	answer, err := c.Exchange(ctx, Encode(req), req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	c.versions = make(map[int16][2]int16, len(resp.ApiKeys))
	for _, k := range resp.ApiKeys {
		c.versions[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
	}
	return nil
}

// PickVersion chooses the highest version of an API between low and high that the broker
// serves.
func (c *Conn) PickVersion(key, low, high int16) (int16, error) {
	have, ok := c.versions[key]
	v := min(high, have[1])
	if !ok || v < max(low, have[0]) {
		return 0, fmt.Errorf("the broker does not serve %s in a version between %d and %d", kmsg.NameForKey(key), low, high)
	}
	return v, nil
}

// Encode encodes a request, with its size and header, in the version that is set in it.
func Encode(req kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID(ID)).AppendRequest(nil, req, 0)
}

// Call sends a request in the highest version that both sides know, and waits for its answer.
func (c *Conn) Call(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	v, err := c.PickVersion(req.Key(), 0, req.MaxVersion())
	if err != nil {
		return nil, err
	}
	req.SetVersion(v)
	return c.Exchange(ctx, Encode(req), req)
}

// Exchange sends b, which Encode has made of req, and waits for its answer. It writes the
// request's number into b.
func (c *Conn) Exchange(ctx context.Context, b []byte, req kmsg.Request) (kmsg.Response, error) {
	deadline := time.Now().Add(CallWithin)
	answered := Watch(ctx)
	if answered != nil {
		deadline = time.Time{}
	}
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	body, err := c.sendAndRead(b)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err() // the end of the context has ended the exchange
	case err != nil:
		return nil, err
	}
	if answered != nil {
		answered()
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != kmsg.ApiVersions.Int16() {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("the answer's head has unknown tags")
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

// sendAndRead sends the request b and reads its answer, without the request's number.
func (c *Conn) sendAndRead(b []byte) ([]byte, error) {
	c.sent++
	binary.BigEndian.PutUint32(b[4+2+2:], uint32(c.sent)) // after its size, key and version
	if _, err := c.conn.Write(b); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	size, id := int(binary.BigEndian.Uint32(head[:])), int32(binary.BigEndian.Uint32(head[4:]))
	if size < 4 || size > maxAnswer || id != c.sent {
		return nil, fmt.Errorf("this is no broker: it answered %q", head)
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return body, nil
}
