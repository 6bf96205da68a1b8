package capped

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	apiVersions = int16(kmsg.ApiVersions)
	// maxFrame is how many bytes a request, or an answer that has to be changed, may have.
	maxFrame = 256 << 20
	// maxPending is how many requests of a connection may be without answers.
	maxPending = 100_000
)

var (
	errLong       = errors.New("a frame is too long")
	errUnknown    = errors.New("the request is of a version that the cluster does not have")
	errOverloaded = errors.New("too many requests have no answers")
	errNotAsked   = errors.New("an answer is to no request")
)

// connection is that of a client with a broker.
type connection struct {
	proxy          *Proxy
	client, broker net.Conn
	closing        sync.Once

	mu      sync.Mutex
	pending []pending // guarded by mu; the requests that may get an answer, in their order
}

// pending is a request that was sent to the broker.
type pending struct {
	correlation uint32
	request     Request
	isRefused   bool // an ApiVersions whose version the cluster seems not to have: the broker was asked by version 0
}

func (c *connection) close() {
	c.closing.Do(func() { _, _ = c.client.Close(), c.broker.Close() }) // whoever reads or writes them is told
}

// carryRequests carries the client's requests, until the connection ends or one is refused.
func (c *connection) carryRequests() {
	for {
		frame, err := readFrame(c.client)
		if err == nil {
			frame, err = c.checkRequest(frame)
		}
		if err == nil {
			err = writeFrame(c.broker, frame)
		}
		if err != nil {
			return
		}
	}
}

// checkRequest returns what the broker is sent in place of a request.
func (c *connection) checkRequest(frame []byte) ([]byte, error) {
	const header = 8 // key, version and correlation id
	if len(frame) < header {
		return nil, errShort
	}
	p := pending{
		correlation: binary.BigEndian.Uint32(frame[4:]),
		request:     Request{int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))},
	}
	if !c.proxy.note(p.request) {
		if p.request.Key != apiVersions {
			return nil, errUnknown
		}
		p.isRefused, p.request.Version = true, 0
		binary.BigEndian.PutUint16(frame[2:], 0)
		frame = append(frame[:header], 0xff, 0xff) // without a client id
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == maxPending {
		return nil, errOverloaded
	}
	c.pending = append(c.pending, p)
	return frame, nil
}

// carryAnswers carries the broker's answers, until the connection ends.
func (c *connection) carryAnswers(reach func(address) (address, error)) {
	for {
		var head [8]byte // size and correlation id
		if _, err := io.ReadFull(c.broker, head[:]); err != nil {
			return
		}
		p, err := c.findRequest(binary.BigEndian.Uint32(head[4:]))
		if err != nil {
			return
		}
		rest := int64(binary.BigEndian.Uint32(head[:])) - 4
		if !mayChange(p.request) {
			if _, err := c.client.Write(head[:]); err != nil {
				return
			}
			if _, err := io.CopyN(c.client, c.broker, rest); err != nil {
				return
			}
			continue
		}
		if err := c.carryChanged(p, head[4:], rest, reach); err != nil {
			return
		}
	}
}

// carryChanged carries an answer that has to be changed, of which the rest is still to be read.
func (c *connection) carryChanged(p pending, correlation []byte, rest int64, reach func(address) (address, error)) error {
	if rest < 0 || rest > maxFrame {
		return errLong
	}
	answer := append(make([]byte, 0, 4+rest), correlation...)[:4+rest]
	if _, err := io.ReadFull(c.broker, answer[4:]); err != nil {
		return err
	}
	answer, err := rewriteAnswer(p.request, answer, c.proxy.config.Versions, reach)
	if err != nil {
		return err
	}
	if p.isRefused {
		refuseVersions(answer)
	}
	return writeFrame(c.client, answer)
}

// findRequest finds the request of an answer, and forgets those before it: they get none, since they produced with acks=0.
func (c *connection) findRequest(correlation uint32) (pending, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range c.pending {
		if p.correlation == correlation {
			c.pending = append(c.pending[:0], c.pending[i+1:]...)
			return p, nil
		}
	}
	return pending{}, errNotAsked
}

// readFrame reads a request or an answer without its size.
func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return nil, errLong
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func writeFrame(w io.Writer, frame []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame))), frame...))
	return err
}
