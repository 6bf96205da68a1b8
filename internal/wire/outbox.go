package wire

import "sync"

const (
	boxSize  = 4 << 10  // an outbox's buffer at first
	boxKept  = 64 << 10 // the largest one that is used again
	cutsKept = 1 << 10  // and the longest list of cuts: an answer of 500 partitions fits
	tailRoom = 512      // what an answer built in place finds at least
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
	body  []byte   // bytes elsewhere, or
	sec   Section  // a stretch of a file,
	n     int      // so long
	owner *Request // to be recycled when the cut was sent
}

func (c *cut) size() int {
	if c.sec != nil {
		return c.n
	}
	return len(c.body)
}

// outbox is what a connection has to send: the bytes of buf, and between them
// cuts. Its connection's mutex guards it. One goroutine at a time, the writer,
// removes from its front, and reads what waits without the mutex; all others
// append only, so that nothing which the writer reads is ever moved or changed.
type outbox struct {
	box  *box
	buf  []byte // buf[sent:] waits
	sent int
	cuts []cut // cuts[gone:] wait
	gone int
	pos  int   // bytes of cuts[gone] that were sent
	size int64 // bytes that wait, all in all
	// claimed tells that the oldest outstanding answer is being built behind buf.
	claimed bool
}

// open sees to it that there is a buffer, and starts it anew when all was sent.
func (o *outbox) open(boxes *sync.Pool, writing bool) {
	if o.box == nil {
		o.box, _ = boxes.Get().(*box)
		o.buf, o.sent = o.box.b[:0], 0
		if len(o.cuts) == 0 { // else they wait for a buffer that bytes need only now
			o.cuts = o.box.cuts
		}
	}
	if !writing && o.size == 0 {
		o.reset()
	}
}

// tail claims the place behind buf for the answer that comes next.
func (o *outbox) tail(boxes *sync.Pool, writing bool) []byte {
	o.open(boxes, writing)
	if n := len(o.buf); cap(o.buf)-n < tailRoom {
		o.buf = append(make([]byte, 0, 2*cap(o.buf)), o.buf...) // the writer may still read the old one
	}
	o.claimed = true
	return o.buf[len(o.buf):]
}

// add appends the answer of r, which is the oldest outstanding one. It tells
// whether r is not needed any more.
func (o *outbox) add(r *Request, boxes *sync.Pool, writing bool) (done bool) {
	p := &r.resp
	b, at := p.B, len(o.buf)
	o.size += int64(p.size())
	if p.claimed {
		o.claimed = false
	}
	switch {
	case len(b) == 0:
		return true // NoReply
	case p.claimed && o.inPlace(b):
		o.buf = o.buf[:at+len(b)]
	case p.claimed && !writing && o.size == int64(p.size()):
		o.buf, o.sent, at = b, 0, 0 // it outgrew the buffer: it is the buffer now
	case len(b) <= copyMax:
		o.open(boxes, writing)
		at = len(o.buf)
		o.buf = append(o.buf, b...)
	default:
		o.addBody(r)
		return p.claimed
	}
	for _, s := range p.sections {
		o.cuts = append(o.cuts, cut{at: at + s.at, sec: s.sec, n: s.n})
	}
	return true
}

// addBody adds a large answer that was built elsewhere as cuts. Its bytes belong
// to r until they are sent, unless they outgrew the place that they were given.
func (o *outbox) addBody(r *Request) {
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

// inPlace tells whether b still lies where tail put it.
func (o *outbox) inPlace(b []byte) bool {
	n := len(o.buf)
	return len(b) <= cap(o.buf)-n && &b[0] == &o.buf[: n+1 : cap(o.buf)][n]
}

// reset starts anew when all was sent and nobody builds behind buf.
func (o *outbox) reset() {
	if o.claimed {
		return
	}
	o.buf, o.sent = o.buf[:0], 0
	clear(o.cuts)
	o.cuts, o.gone = o.cuts[:0], 0
}

// advance sets the front after the writer sent n bytes, and drops what lies
// before it when that is most of the buffer.
func (o *outbox) advance(sent, gone, pos, n int) {
	o.sent, o.pos = sent, pos
	clear(o.cuts[o.gone : o.gone+gone])
	o.gone += gone
	o.size -= int64(n)
	if o.size == 0 {
		o.reset()
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
	if o.claimed { // the old buffer is left to the one who builds in it
		o.buf = append(make([]byte, 0, max(boxSize, 2*len(rest))), rest...)
	} else {
		o.buf = append(o.buf[:0], rest...)
	}
	o.sent = 0
}

// close gives the buffer back when all was sent, so that an idle connection has none.
func (o *outbox) close(boxes *sync.Pool) {
	if o.size > 0 || o.claimed || o.box == nil {
		return
	}
	o.reset()
	if cap(o.buf) > boxKept {
		o.buf = make([]byte, 0, boxSize)
	}
	if cap(o.cuts) > cutsKept {
		o.cuts = nil
	}
	o.box.b, o.box.cuts = o.buf, o.cuts
	boxes.Put(o.box)
	o.box, o.buf, o.cuts = nil, nil, nil
}

// abandon empties the outbox and returns the cuts that were not sent.
func (o *outbox) abandon() []cut {
	cuts := o.cuts[o.gone:]
	*o = outbox{}
	return cuts
}
