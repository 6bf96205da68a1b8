package wire

// earlyAnswers keeps answers that are ready before it is their turn, by the order of
// their requests.
type earlyAnswers struct {
	list   []*Request // a ring, a power of two long; seq's place is its low bits
	n      int
	bytes  int64 // of the answers
	memory int64 // about how many bytes of memory they take
}

// put adds the answer of r, while next is the one whose turn it is. It returns false
// for a request that was answered before.
func (e *earlyAnswers) put(r *Request, next uint64) bool {
	if r.seq < next {
		return false
	}
	if d := int(r.seq - next); d >= len(e.list) {
		e.grow(d)
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

// grow makes room for an answer at a distance from the one whose turn it is.
func (e *earlyAnswers) grow(distance int) {
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

// take removes the answer with that place in the order, if it is ready.
func (e *earlyAnswers) take(seq uint64) *Request {
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
