package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
)

// Request is one request of a connection. It may be used until it is answered.
type Request struct {
	Conn          *Conn
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string
	// Charge is what the request costs its client; nil: nothing that is measured. The Session sets it in Serve.
	Charge Charge
	// Note is told of the response when it is known, before it is sent; nil: nobody is. The Session sets it in Serve, for
	// requests whose answer is a kmsg.Response, and must not change what it is given.
	Note func(resp kmsg.Response)

	seq  uint64 // its place in the order of answers
	resp Response
	own  []byte   // the memory for B of answers that are not built in the outbox
	next *Request // the next one in a list of requests to be recycled

	// from and to are the place of the body in its receive buffer. The request itself has no
	// pointer to that: one that waits for its answer would keep the buffer's memory, which is
	// not counted any more when the connection has given the buffer back.
	from, to int
	kept     *buffer // the buffer, of which it has a reference; nil: the body is not kept

	decoded *decodeMemory // nil: it was not decoded, or needs no work memory
	carried *carriage     // nil: it is its connection's own request
}

// Body is the request after its header. It aliases the receive buffer. It is valid until the
// Session's Flush returns or GiveUpBodies is called, and nil later, and only Serve, Flush and Close
// may call it. If Serve waits for memory (Decode, Reserve), it must call Body again after that. After
// KeepBody it is valid until the request is answered, and any goroutine may call it.
func (r *Request) Body() []byte {
	b := r.kept
	if b == nil {
		b = r.leasedBuffer()
	}
	if b == nil {
		return nil
	}
	return b.bytes[r.from:r.to:r.to]
}

// BodySize is the number of bytes of the body.
func (r *Request) BodySize() int { return r.to - r.from }

// ExpectTokens says whether the next frames of the connection are tokens of a login, without the header of a request: so old clients of
// Kafka log in, after a handshake of version 0. A token comes to the Session as a request with TokenKey whose body is the whole
// frame, and its answer has no header either. Only Serve may call it, before it answers.
func (r *Request) ExpectTokens(expected bool) { r.Conn.tokens = expected }

// IsFirst tells whether no request came before it on its connection.
func (r *Request) IsFirst() bool { return r.seq == 0 }

// KeepBody keeps the body as it is until the request is answered. Only Serve and Flush
// may call it. Kept bodies use up the memory for requests: a body that is much smaller than its receive
// buffer is moved to a smaller one, if there is room, so that it does not keep the whole buffer while it
// waits. What aliases the body of before KeepBody must not be used after it.
func (r *Request) KeepBody() {
	if r.kept != nil {
		return
	}
	b := r.leasedBuffer()
	if own := r.Conn.in.copyMuchSmaller(b, r.from, r.to); own != nil {
		r.kept, r.from, r.to = own, 0, r.BodySize()
		return
	}
	r.kept = b.retain()
}

// Decode checks the body's shape and memory (the guard), then decodes it with
// kmsg. The result aliases nothing. It returns ErrMalformed for a body that does not
// fit. Bytes behind the body are ignored, as Kafka does.
//
// It waits until there is work memory for the result and for serving it (see workMemory). The
// request holds that until Serve returns; a large answer keeps the part that it needs until it
// is sent. Only Serve may call it, once for a request, and not while other goroutines wait for
// the session.
func (r *Request) Decode() (kmsg.Request, error) {
	shape, err := r.checkShape()
	if err == nil {
		r.decoded, err = reserveWork(r, shape)
	}
	if err != nil {
		return nil, fmt.Errorf("%s v%d: %w", kmsg.NameForKey(r.Key), r.Version, err)
	}
	return r.decodeBody(shape)
}

// decodeBody decodes the body when there is memory for the result.
func (r *Request) decodeBody(shape shape) (kmsg.Request, error) {
	leave := r.enterLarge()
	defer leave()
	body := r.Body()[:shape.size]
	if shape.aliases {
		body = slices.Clone(body)
	}
	req := kmsg.RequestForKey(r.Key)
	req.SetVersion(r.Version)
	if err := req.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%w: %s v%d: %w", ErrMalformed, kmsg.NameForKey(r.Key), r.Version, err)
	}
	return req, nil
}

func (r *Request) checkShape() (shape, error) {
	leave := r.enterLarge()
	defer leave()
	return r.Conn.srv.guard.checkBody(r.Key, r.Version, r.Body(), r.Conn.srv.decodeLimit())
}

// Reserve reserves work memory for the request. It waits for it until the connection ends. Only
// Serve may call it, before it answers the request. Before it waits, the session is flushed, and the
// large answers to earlier requests of the connection are sent: so no connection takes more than
// one place in the queue, and one whose client does not read stands in none. While it waits, the
// connection keeps no more of its receive buffer than the request's body and the bytes after it. A
// peer's requests take memory of the class budget.Peer instead, and no more of it than one of them
// may have. For a carried request see ServeCarried.
func (r *Request) Reserve(class budget.Class, n int64) (budget.Reservation, error) {
	if r.carried != nil {
		return r.carried.reserve(class, n)
	}
	c := r.Conn
	work := c.srv.cfg.Work
	if c.proven.Load() {
		class = c.workClass(class)
		n = min(n, work.Most(class))
	}
	if held, ok := work.TryReserve(class, n); ok {
		return held, nil
	}
	c.sess.Flush()
	c.out.uncork()
	r.shrinkLease()
	err := c.awaitRoom(bounds{parked: math.MaxUint64, unsent: holdFrom, early: holdFrom, memory: holdFrom})
	if err != nil {
		return budget.Reservation{}, err
	}
	c.life.changeState(connQueued)
	defer c.life.changeState(connServing)
	return work.Reserve(c.Context(), class, n)
}

// shrinkLease gives up the bodies of earlier requests, for which the session was flushed, and moves
// the body of r into a small buffer.
func (r *Request) shrinkLease() {
	c := r.Conn
	if r.leasedBuffer() == nil {
		return
	}
	c.endLease()
	if size := r.BodySize(); r.kept == nil && c.in.keepLast(size) {
		r.from, r.to = 0, size
	}
	c.lease, c.leasedAt = c.in.buf.retain(), r.seq
}

// largeBody is the least size of a body that waits for its turn on a processor. Decoding a
// smaller one takes no longer than other work that does not wait, a few hundred microseconds.
const largeBody = 16 << 10

// enterLarge waits for a turn on a processor if the body is large. The caller must call leave,
// and must wait for nothing before that.
func (r *Request) enterLarge() (leave func()) {
	if r.BodySize() < largeBody {
		return func() {}
	}
	work, class := r.Conn.srv.cfg.Work, budget.Command
	if r.carried == nil {
		class = r.Conn.workClass(class)
	}
	work.Enter(class)
	return work.Leave
}

// responseHead is the size of the oldest header of a response: the length and the correlation id.
const responseHead = 8

// Reply encodes and sends a response; its version is set from the request.
func (r *Request) Reply(resp kmsg.Response) {
	defer r.Conn.Contain()
	r.TellNote(resp)
	resp.SetVersion(r.Version)
	r.SetThrottle(resp)
	p := r.Begin()
	p.B = resp.AppendTo(p.B)
	r.Send(p)
}

// TellNote tells Note of a response, or of a part of it. Reply does so itself.
func (r *Request) TellNote(resp kmsg.Response) {
	if r.Note != nil {
		r.Note(resp)
	}
}

// ReplyOr is Reply for an answer of about size bytes that may be large and was made without reserved
// memory. If there is no memory to keep it until it is sent, it is not encoded, and instead is sent in
// its place, which must be small.
func (r *Request) ReplyOr(resp, instead kmsg.Response, size int) {
	defer r.Conn.Contain()
	p := r.Begin()
	if size >= holdFrom && !r.Conn.IsProven() {
		memory, ok := r.reserveUnsent(int64(size))
		if !ok {
			r.Reply(instead)
			return
		}
		r.Hold(&memory)
		p.B = slices.Grow(p.B, size) // it would otherwise be copied again and again as it grows
	}
	resp.SetVersion(r.Version)
	r.SetThrottle(resp)
	p.B = resp.AppendTo(p.B)
	if r.resp.held != nil {
		r.resp.held.noteReady()
		r.sendCharged(p)
		return
	}
	r.Send(p)
}

// NoReply completes a request that has no answer (Produce with acks=0). A response
// that Begin started is dropped.
func (r *Request) NoReply() {
	r.resp.discard()
	r.Conn.out.completeAnswer(r)
}

// Begin starts a hand-coded response: B holds the frame's header already, the
// body is to be appended to it. The response goes back to a pool when sent.
// Calling it again starts over.
func (r *Request) Begin() *Response {
	p := &r.resp
	p.discard()
	if p.B = r.Conn.out.claimPlace(r); p.B == nil {
		p.B = r.own[:0]
	}
	p.B = append(p.B, 0, 0, 0, 0)
	if r.Key == TokenKey {
		return p // it has no header
	}
	p.B = binary.BigEndian.AppendUint32(p.B, uint32(r.CorrelationID))
	if r.carried != nil {
		p.B = r.carried.Head(p.B)
	} else if r.Key != apiVersions && r.Conn.srv.guard.isFlexible(r.Key, r.Version) {
		p.B = append(p.B, 0) // no tagged fields
	}
	return p
}

// Send sends a response that Begin started.
func (r *Request) Send(p *Response) {
	if p != &r.resp || len(p.B) < lengthSize {
		panic("BUG: Send of a response that this request did not begin")
	}
	r.fitCarried(p)
	if !r.chargeAnswer() {
		r.Conn.Close(errUnsentFull)
		r.NoReply()
		return
	}
	r.sendCharged(p)
}

// sendCharged sends an answer for whose memory chargeAnswer has seen to.
func (r *Request) sendCharged(p *Response) {
	n := p.size() - lengthSize
	if n > maxResponse {
		r.Conn.Close(errResponseTooLarge)
		r.NoReply()
		return
	}
	binary.BigEndian.PutUint32(p.B, uint32(n))
	if !p.claimed && cap(p.B) <= maxKeptOwn {
		r.own = p.B
	}
	r.Conn.out.completeAnswer(r)
}

// Charge is what a request costs its client.
type Charge interface {
	// Settle charges the request, at the first call, and returns for how many ms its client is throttled. Any goroutine may
	// call it.
	Settle() int32
}

// SetThrottle settles the request's charge, and has the answer tell the client for how long it is throttled.
func (r *Request) SetThrottle(resp kmsg.Response) {
	if r.Charge == nil {
		return
	}
	millis := r.Charge.Settle()
	if millis <= 0 {
		return
	}
	if t, ok := resp.(kmsg.ThrottleResponse); ok {
		if before, _ := t.Throttle(); before >= millis {
			return
		}
	}
	if t, ok := resp.(kmsg.SetThrottleResponse); ok {
		t.SetThrottle(millis)
	}
}

// requestPool keeps the memory of answered requests for new ones.
type requestPool struct{ pool sync.Pool }

func (p *requestPool) takeRequest() *Request {
	if r, ok := p.pool.Get().(*Request); ok {
		return r
	}
	return new(Request)
}

// recycle puts answered requests, a list linked by next, into the pool.
func (p *requestPool) recycle(r *Request) {
	for r != nil {
		next := r.next
		if r.kept != nil {
			r.kept.release()
		}
		r.resp.forgetSections()
		sections := r.resp.sections
		if cap(sections) > maxKeptSections {
			sections = nil
		}
		*r = Request{own: r.own[:0], resp: Response{sections: sections}}
		p.pool.Put(r)
		r = next
	}
}
