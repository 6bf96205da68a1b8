package wire

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
)

// Carried is a client's request that the node which the client has asked sends to another one, in the
// body of a request of its own: the carrier.
type Carried struct {
	Key, Version int16
	ClientID     string
	Address      string   // of the client
	Listener     string   // the name of the one that the client has reached
	Principal    string   // of the client, as the node that it has asked knows it
	Groups       []string // the names of the groups that the client is in
	IsPeer       bool     // the client has proven to that node that it is one, or holds the data directory of one
	MayHaveToken bool     // the client may ask for delegation tokens: it has logged in, and not with one of them
	Most         int      // the bytes that the answer may have
	Body         []byte   // at the other node the end of the carrier's body
}

// Carrier is what stands around a carried request on its way back.
type Carrier struct {
	// Head appends to a response what stands before the answer to the client's request. It is called when
	// that answer begins, which is when the request was carried out.
	Head func(b []byte) []byte
	// TooLarge is sent, without a head, in place of an answer that has more bytes than Carried.Most.
	TooLarge []byte
}

// carriage is the state of a request that is served in place of its carrier.
type carriage struct {
	Carrier

	key      int16 // the carrier's
	from     int   // of the carrier's body
	most     int
	reserve  func(class budget.Class, n int64) (budget.Reservation, error)
	answered bool
}

// ServeCarried has serve answer the client's request that r carries, as one of r's connection that has the
// key, the version and the body of the client's. r must have kept its body. serve may be called on any
// goroutine, must answer before it returns, and waits for memory, of the classes for clients, until the
// context ends: only the connection is a peer's, the work is a client's. It calls DecodeCarried in place
// of Decode.
//
// If serve returns an error, or panics, before it has answered, isAnswered is false and r is the carrier
// again, which is to be answered. A panic does not end the connection, which has requests of other clients.
func (r *Request) ServeCarried(ctx context.Context, q *Carried, by Carrier, serve func() error) (isAnswered bool, err error) {
	in := &carriage{Carrier: by, key: r.Key, from: r.from, most: q.Most}
	in.reserve = func(class budget.Class, n int64) (budget.Reservation, error) {
		return r.Conn.srv.cfg.Work.Reserve(ctx, class, n)
	}
	r.Key, r.Version, r.ClientID, r.from, r.carried = q.Key, q.Version, q.ClientID, r.to-len(q.Body), in
	conn := r.Conn // an answered request belongs to others
	err = catchPanic(serve)
	conn.reportCarried(q, err)
	if !in.answered {
		r.dropCarried()
	}
	return in.answered, err
}

// reportCarried logs that serving a carried request has panicked.
func (c *Conn) reportCarried(q *Carried, err error) {
	if p, ok := errors.AsType[*panicError](err); ok {
		c.srv.stats.Panics.Add(1)
		c.srv.cfg.Logger.Error("BUG: a handler of a request that another node has sent on panicked", "node", c.RemoteAddr().String(),
			"client", q.Address, "panic", p.value, "stack", string(p.stack))
	}
}

// dropCarried makes the request the carrier again.
func (r *Request) dropCarried() {
	in := r.carried
	r.Key, r.Version, r.from, r.carried = in.key, 0, in.from, nil
}

// DecodeCarried is Decode for a carried request. The caller releases the memory when it is served.
func (r *Request) DecodeCarried() (req kmsg.Request, memory budget.Reservation, err error) {
	shape, err := r.checkShape()
	if err == nil {
		memory, err = r.Reserve(budget.Command, shape.workMemory(r.Conn.srv.cfg.Work.Most(budget.Command)))
	}
	if err != nil {
		return nil, memory, fmt.Errorf("%s v%d: %w", kmsg.NameForKey(r.Key), r.Version, err)
	}
	if req, err = r.decodeBody(shape); err != nil {
		memory.Release()
	}
	return req, memory, err
}

// fitCarried is called before an answer is sent. It replaces one that is larger than the asking node takes.
func (r *Request) fitCarried(p *Response) {
	in := r.carried
	if in == nil {
		return
	}
	in.answered = true
	if p.size()-responseHead <= in.most {
		return
	}
	r.dropCarried()
	r.Begin()
	p.B = append(p.B, in.TooLarge...)
}
