package wire

import "sync"

const (
	boxSize  = 4 << 10  // the size of a new outbox's buffer
	boxKept  = 64 << 10 // the largest buffer that is used again
	cutsKept = 1 << 10  // the longest list of cuts that is used again: an answer of 500 partitions fits
	tailRoom = 512      // the least room for an answer that is built in place
	copyMax  = 8 << 10  // answers built elsewhere are copied up to this size
)

// box makes a buffer, and the list of cuts that goes with it, poolable without an
// allocation.
type box struct {
	b    []byte
	cuts []cut // empty
}

// cut is something that goes out before buf[at] of an outbox.
type cut struct {
	at    int
	body  []byte      // bytes elsewhere, or
	sec   Section     // a stretch of a file,
	n     int         // so long
	owner *Request    // to be recycled when the cut was sent
	held  *heldAnswer // the work memory of the answer that ends here
}

func (c *cut) size() int {
	if c.sec != nil {
		return c.n
	}
	return len(c.body)
}

// release ends the cut's use of its section and its request.
func (c *cut) release(requests *requestPool) {
	if c.sec != nil {
		c.sec.Release()
	}
	if c.held != nil {
		c.held.release()
	}
	if c.owner != nil {
		requests.recycle(c.owner)
	}
}

// outbox holds the bytes that a connection has to send: those of buf, and between
// them cuts. The mutex of the connection's output guards it. One goroutine at a time,
// the sender, removes from its front, and reads what waits without the mutex; all
// others append only, so that nothing which the sender reads is ever moved or changed.
type outbox struct {
	box    *box
	buf    []byte // buf[sent:] waits
	sent   int
	cuts   []cut // cuts[gone:] wait
	gone   int
	pos    int   // bytes of cuts[gone] that were sent
	size   int64 // bytes that wait, all in all
	memory int64 // about how many bytes of memory that takes
	// claimed tells that the oldest outstanding answer is being built behind buf.
	claimed bool
}

// sentTo is a position in an outbox, counted from its front.
type sentTo struct {
	sent   int // the new front of buf
	cuts   int // that were sent whole
	pos    int // bytes that were sent of the next cut
	bytes  int // all in all
	memory int // the memory that they took
}

// boxPool keeps the buffers of outboxes that are empty.
type boxPool struct{ pool sync.Pool }

func (p *boxPool) take() *box {
	if b, ok := p.pool.Get().(*box); ok {
		return b
	}
	return &box{b: make([]byte, 0, boxSize)}
}

// ensureBuffer sees to it that there is a buffer, and starts it anew when all was sent.
func (o *outbox) ensureBuffer(boxes *boxPool, sending bool) {
	if o.box == nil {
		o.box = boxes.take()
		o.buf, o.sent = o.box.b[:0], 0
		if len(o.cuts) == 0 { // else they wait for a buffer that bytes need only now
			o.cuts = o.box.cuts
		}
	}
	if !sending && o.size == 0 {
		o.startAnew()
	}
}

// claimTail claims the place behind buf for the answer that comes next.
func (o *outbox) claimTail(boxes *boxPool, sending bool) []byte {
	o.ensureBuffer(boxes, sending)
	if n := len(o.buf); cap(o.buf)-n < tailRoom {
		o.buf = append(make([]byte, 0, 2*cap(o.buf)), o.buf...) // the sender may still read the old one
	}
	o.claimed = true
	return o.buf[len(o.buf):]
}

// appendAnswer appends the answer of r, which is the oldest outstanding one. It tells
// whether r is not needed any more.
func (o *outbox) appendAnswer(r *Request, boxes *boxPool, sending bool) (done bool) {
	p := &r.resp
	held := p.held
	o.size += int64(p.size())
	o.memory += p.Memory()
	done = o.placeAnswer(r, boxes, sending)
	if held != nil {
		o.cuts = append(o.cuts, cut{at: len(o.buf), held: held})
	}
	return done
}

// placeAnswer places the bytes and sections of an answer that is counted.
func (o *outbox) placeAnswer(r *Request, boxes *boxPool, sending bool) (done bool) {
	p := &r.resp
	b, at := p.B, len(o.buf)
	if p.claimed {
		o.claimed = false
	}
	switch {
	case len(b) == 0:
		return true // NoReply
	case p.claimed && o.isInPlace(b):
		o.buf = o.buf[:at+len(b)]
	case p.claimed && !sending && o.size == int64(p.size()):
		o.buf, o.sent, at = b, 0, 0 // it outgrew the buffer: it is the buffer now
	case len(b) <= copyMax:
		o.ensureBuffer(boxes, sending)
		at = len(o.buf)
		o.buf = append(o.buf, b...)
	default:
		o.appendLarge(r)
		return p.claimed
	}
	for _, s := range p.sections {
		o.cuts = append(o.cuts, cut{at: at + s.at, sec: s.sec, n: s.n})
	}
	return true
}

// appendLarge appends a large answer that was built elsewhere as cuts. Its bytes belong
// to r until they are sent, unless they outgrew the place that they were given.
func (o *outbox) appendLarge(r *Request) {
	p := &r.resp
	at, prev := len(o.buf), 0
	for _, s := range p.sections {
		if s.at > prev {
			o.cuts = append(o.cuts, cut{at: at, body: p.B[prev:s.at]})
		}
		o.cuts = append(o.cuts, cut{at: at, sec: s.sec, n: s.n})
		prev = s.at
	}
	if prev < len(p.B) {
		o.cuts = append(o.cuts, cut{at: at, body: p.B[prev:]})
	}
	if !p.claimed {
		o.cuts[len(o.cuts)-1].owner = r
	}
}

// isInPlace tells whether b still lies in the place that claimTail handed out.
func (o *outbox) isInPlace(b []byte) bool {
	n := len(o.buf)
	return len(b) <= cap(o.buf)-n && &b[0] == &o.buf[: n+1 : cap(o.buf)][n]
}

// startAnew starts anew when all was sent and nobody builds behind buf.
func (o *outbox) startAnew() {
	if o.claimed {
		return
	}
	o.buf, o.sent = o.buf[:0], 0
	clear(o.cuts)
	o.cuts, o.gone = o.cuts[:0], 0
}

// dropSent sets the front after the sender sent bytes up to there, and drops the bytes
// before it when they are most of the buffer.
func (o *outbox) dropSent(to sentTo) {
	o.sent, o.pos = to.sent, to.pos
	clear(o.cuts[o.gone : o.gone+to.cuts])
	o.gone += to.cuts
	o.size -= int64(to.bytes)
	o.memory -= int64(to.memory)
	if o.size == 0 {
		o.startAnew()
	}
	if o.gone > 64 && o.gone > len(o.cuts)/2 {
		k := copy(o.cuts, o.cuts[o.gone:])
		clear(o.cuts[k:])
		o.cuts, o.gone = o.cuts[:k], 0
	}
	if o.sent < boxKept/4 || o.sent < len(o.buf)/2 {
		return
	}
	for i := o.gone; i < len(o.cuts); i++ {
		o.cuts[i].at -= o.sent
	}
	rest := o.buf[o.sent:]
	if o.claimed { // the old buffer is left to the answer that is being built in it
		o.buf = append(make([]byte, 0, max(boxSize, 2*len(rest))), rest...)
	} else {
		o.buf = append(o.buf[:0], rest...)
	}
	o.sent = 0
}

// releaseBuffer gives the buffer back when all was sent, so that an idle connection has none.
func (o *outbox) releaseBuffer(boxes *boxPool) {
	if o.size > 0 || o.claimed || o.box == nil {
		return
	}
	o.startAnew()
	if cap(o.buf) > boxKept {
		o.buf = make([]byte, 0, boxSize)
	}
	if cap(o.cuts) > cutsKept {
		o.cuts = nil
	}
	o.box.b, o.box.cuts = o.buf, o.cuts
	boxes.pool.Put(o.box)
	o.box, o.buf, o.cuts = nil, nil, nil
}

// takeUnsent empties the outbox and returns the cuts that were not sent.
func (o *outbox) takeUnsent() []cut {
	cuts := o.cuts[o.gone:]
	*o = outbox{}
	return cuts
}
