package wire

import (
	"errors"
	"io"
	"math"
)

const (
	// maxResponse is the largest length that can be written in front of a frame.
	maxResponse = math.MaxInt32
	// ownKept is the largest buffer that a recycled request keeps for its next answer.
	ownKept = 16 << 10
	// sectionMemory is about how much a section takes in memory, wherever its bytes are.
	sectionMemory = 384
	// sectionsKept is the longest list of sections that it keeps.
	sectionsKept = 1 << 10
)

// errResponseTooLarge closes a connection whose answer does not fit in a frame.
var errResponseTooLarge = errors.New("the answer is larger than 2 GiB")

// Section is a stretch of a file that goes out as it is.
type Section interface {
	io.ReaderAt // 0 is the section's start
	Len() int
	// Fd is the file's descriptor and the section's position in it. ok is false for a
	// section that has none and must be read by ReadAt.
	Fd() (fd uintptr, pos int64, ok bool)
	Release()
}

// Computed is a section whose ReadAt waits for its turn on a processor. Who completes
// an answer for others does not send it, but leaves it to a helper.
type Computed interface {
	Section
	Computed()
}

// Response is an answer under construction: bytes, and between them sections of
// files that are sent without passing through B.
type Response struct {
	B []byte

	sections []attached
	attached int  // bytes of the sections
	claimed  bool // B lies behind the connection's outbox
	held     *heldAnswer
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

// Memory is about how many bytes the answer takes in memory until it was sent.
func (p *Response) Memory() int64 { return int64(len(p.B) + len(p.sections)*sectionMemory) }

// releaseHeld gives the work memory back that the answer holds.
func (p *Response) releaseHeld() {
	if p.held != nil {
		p.held.release()
		p.held = nil
	}
}

// discard gives up the bytes and sections so far.
func (p *Response) discard() {
	p.releaseHeld()
	for _, s := range p.sections {
		s.sec.Release()
	}
	p.forgetSections()
}

// forgetSections empties the response; its sections and its memory have another owner, or
// are released.
func (p *Response) forgetSections() {
	clear(p.sections)
	p.B, p.sections, p.attached, p.held = nil, p.sections[:0], 0, nil
}
