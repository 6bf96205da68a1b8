package wire

import "math"

// maxResponse is what the length in front of a frame can say.
const maxResponse = math.MaxInt32

// ownKept is the largest buffer that a recycled request keeps for its next answer.
const ownKept = 16 << 10

// Response is an answer under construction: bytes, and between them sections of
// files that are sent without passing through B.
type Response struct {
	B []byte

	sections []attached
	attached int  // bytes of the sections
	claimed  bool // B lies behind the connection's outbox
}

type attached struct {
	at  int
	sec Section
	n   int
}

// Attach puts a section behind the bytes appended to B so far. The response owns
// it from now on and releases it when it was sent or the connection is gone.
func (p *Response) Attach(s Section) {
	n := s.Len()
	if n == 0 {
		s.Release()
		return
	}
	p.sections = append(p.sections, attached{len(p.B), s, n})
	p.attached += n
}

// size is how many bytes the answer takes on the wire.
func (p *Response) size() int { return len(p.B) + p.attached }

// discard gives up what was built so far.
func (p *Response) discard() {
	for _, s := range p.sections {
		s.sec.Release()
	}
	p.forget()
}

// forget empties the response; its sections have another owner, or are released.
func (p *Response) forget() {
	clear(p.sections)
	p.B, p.sections, p.attached = nil, p.sections[:0], 0
}
