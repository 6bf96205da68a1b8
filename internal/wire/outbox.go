package wire

import "sync"

const (
	boxSize     = 4 << 10  // the size of a new outbox's buffer
	maxKeptBox  = 64 << 10 // the largest buffer that is used again
	maxKeptCuts = 1 << 10  // the longest list of cuts that is used again: an answer of 500 partitions fits
	minTailRoom = 512      // the least room for an answer that is built in place
	maxCopied   = 8 << 10  // answers built elsewhere are copied up to this size
)

// box makes a buffer, and the list of cuts that goes with it, poolable without an
// allocation.
type box struct {
	b    []byte
	cuts []cut // empty
}

// cut is something that is sent before buf[at] of an outbox: bytes that are elsewhere, or a
// section of a file, or nothing, if it only marks the end of an answer that holds memory.
type cut struct {
	at    int
	body  []byte
	sec   Section
	n     int         // the length of sec
	owner *Request    // to be recycled when the cut is sent
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

// outbox holds the bytes that a connection has to send: those of buf, and between them cuts.
// The mutex of the connection's output guards it. One goroutine at a time, the sender, removes
// from its front, and reads the unsent bytes without the mutex. All others only append, so
// that nothing which the sender reads is ever moved or changed.
type outbox struct {
	box    *box
	buf    []byte // buf[sent:] is unsent
	sent   int
	cuts   []cut // cuts[gone:] are unsent
	gone   int
	pos    int   // bytes of cuts[gone] that were sent
	size   int64 // all unsent bytes
	memory int64 // about how many bytes of memory the unsent answers take
	// claimed is set while the oldest outstanding answer is built behind buf.
	claimed bool
}

// sentTo is a position in an outbox, counted from its front.
type sentTo struct {
	sent   int // the new front of buf
	cuts   int // how many were sent whole
	pos    int // how many bytes of the next cut were sent
	bytes  int // how many bytes were sent in all
	memory int // how much memory those took
}

// boxPool keeps the buffers of outboxes that are empty.
type boxPool struct{ pool sync.Pool }

func (p *boxPool) takeBox() *box {
	if b, ok := p.pool.Get().(*box); ok {
		return b
	}
	return &box{b: make([]byte, 0, boxSize)}
}

// ensureBuffer takes a buffer if there is none, and empties it if everything was sent.
func (o *outbox) ensureBuffer(boxes *boxPool, sending bool) {
	if o.box == nil {
		o.box = boxes.takeBox()
		o.buf, o.sent = o.box.b[:0], 0
		if len(o.cuts) == 0 { // cuts may be there before any bytes need a buffer
			o.cuts = o.box.cuts
		}
	}
	if !sending && o.size == 0 {
		o.startAnew()
	}
}

// claimTail claims the place behind buf for the oldest outstanding answer.
func (o *outbox) claimTail(boxes *boxPool, sending bool) []byte {
	o.ensureBuffer(boxes, sending)
	if n := len(o.buf); cap(o.buf)-n < minTailRoom {
		o.buf = append(make([]byte, 0, 2*cap(o.buf)), o.buf...) // the sender may still read the old one
	}
	o.claimed = true
	return o.buf[len(o.buf):]
}

// appendAnswer appends the answer of r, which is the oldest outstanding one. It returns whether
// r is not needed any more.
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

// placeAnswer appends the bytes and sections of an answer whose size is counted already.
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
		o.buf, o.sent, at = b, 0, 0 // the answer has outgrown the buffer, and is the new one
	case len(b) <= maxCopied:
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

// appendLarge appends a large answer that was built elsewhere as cuts. Its bytes belong to r
// until they are sent, unless they have outgrown the place that was claimed for them.
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

// isInPlace tells whether b is still in the place that claimTail has returned.
func (o *outbox) isInPlace(b []byte) bool {
	n := len(o.buf)
	return len(b) <= cap(o.buf)-n && &b[0] == &o.buf[: n+1 : cap(o.buf)][n]
}

// startAnew empties the lists after everything was sent, unless an answer is built behind buf.
func (o *outbox) startAnew() {
	if o.claimed {
		return
	}
	o.buf, o.sent = o.buf[:0], 0
	clear(o.cuts)
	o.cuts, o.gone = o.cuts[:0], 0
}

// dropSent moves the front to the position up to which the sender has sent. It drops the bytes
// before that if they are most of the buffer.
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
	if o.sent < maxKeptBox/4 || o.sent < len(o.buf)/2 {
		return
	}
	for i := o.gone; i < len(o.cuts); i++ {
		o.cuts[i].at -= o.sent
	}
	rest := o.buf[o.sent:]
	if o.claimed { // the old buffer stays with the answer that is built in it
		o.buf = append(make([]byte, 0, max(boxSize, 2*len(rest))), rest...)
	} else {
		o.buf = append(o.buf[:0], rest...)
	}
	o.sent = 0
}

// releaseBuffer gives the buffer back if everything was sent, so that an idle connection has
// none.
func (o *outbox) releaseBuffer(boxes *boxPool) {
	if o.size > 0 || o.claimed || o.box == nil {
		return
	}
	o.startAnew()
	if cap(o.buf) > maxKeptBox {
		o.buf = make([]byte, 0, boxSize)
	}
	if cap(o.cuts) > maxKeptCuts {
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
