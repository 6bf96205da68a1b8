package wire

// earlyAnswers keeps answers that are ready before it is their turn, by the order of
// their requests.
type earlyAnswers struct {
	list   []*Request // a ring whose length is a power of two; the low bits of seq are its index
	n      int        // the number of answers
	bytes  int64      // of the answers
	memory int64      // about how many bytes of memory they take
}

// putAnswer adds the answer of r; next is the place whose turn it is. It returns false if r was
// answered before.
func (e *earlyAnswers) putAnswer(r *Request, next uint64) bool {
	if r.seq < next {
		return false
	}
	if d := int(r.seq - next); d >= len(e.list) {
		e.growRing(d)
	}
	i := r.seq & uint64(len(e.list)-1)
	if e.list[i] != nil {
		return false
	}
	e.list[i] = r
	e.n++
	e.bytes += int64(r.resp.size())
	e.memory += r.resp.Memory()
	return true
}

// growRing makes room for an answer at a distance from the place whose turn it is.
func (e *earlyAnswers) growRing(distance int) {
	size := max(16, len(e.list))
	for size <= distance {
		size *= 2
	}
	list := make([]*Request, size)
	for _, r := range e.list {
		if r != nil {
			list[r.seq&uint64(size-1)] = r
		}
	}
	e.list = list
}

// takeReady removes and returns the answer with a place in the order; nil: it is not ready.
func (e *earlyAnswers) takeReady(seq uint64) *Request {
	if e.n == 0 {
		return nil
	}
	i := seq & uint64(len(e.list)-1)
	r := e.list[i]
	if r == nil {
		return nil
	}
	e.list[i] = nil
	e.bytes -= int64(r.resp.size())
	e.memory -= r.resp.Memory()
	if e.n--; e.n == 0 && len(e.list) > 64 {
		e.list = nil
	}
	return r
}
