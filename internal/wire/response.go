package wire

import (
	"errors"
	"io"
	"math"
)

const (
	// maxResponse is the largest length that can be written in front of a frame.
	maxResponse = math.MaxInt32
	// maxKeptOwn is the largest buffer that a recycled request keeps for its next answer.
	maxKeptOwn = 16 << 10
	// sectionMemory is about how much memory a section takes, without its bytes.
	sectionMemory = 384
	// maxKeptSections is the longest list of sections that a recycled request keeps.
	maxKeptSections = 1 << 10
)

// errResponseTooLarge closes a connection whose answer does not fit in a frame.
var errResponseTooLarge = errors.New("the answer is larger than 2 GiB")

// Section is a part of a file that is sent as it is.
type Section interface {
	io.ReaderAt // offset 0 is the section's start
	Len() int
	// Fd is the file's descriptor and the section's position in it. ok is false for a
	// section that is not in a file, and must be read by ReadAt.
	Fd() (fd uintptr, pos int64, ok bool)
	Release()
}

// Computed is a section whose ReadAt may wait for its turn on a processor. A goroutine that
// completes an answer does not send such a section, but leaves it to a helper.
type Computed interface {
	Section
	Computed()
}

// Response is an answer that is being built: bytes, and between them sections of files, whose
// bytes are not copied into B.
type Response struct {
	B []byte

	sections     []attachedSection
	sectionBytes int  // bytes of the sections
	claimed      bool // B is built behind the bytes of the connection's outbox
	held         *heldAnswer
}

type attachedSection struct {
	at  int
	sec Section
	n   int
}

// Attach puts a section behind the bytes that are in B so far. The response owns it from then
// on, and releases it when it is sent or the connection ends.
func (p *Response) Attach(s Section) {
	n := s.Len()
	if n == 0 {
		s.Release()
		return
	}
	p.sections = append(p.sections, attachedSection{len(p.B), s, n})
	p.sectionBytes += n
}

// size is how many bytes the answer takes on the wire.
func (p *Response) size() int { return len(p.B) + p.sectionBytes }

// Memory is about how many bytes of memory the answer takes until it is sent.
func (p *Response) Memory() int64 { return int64(len(p.B) + len(p.sections)*sectionMemory) }

// releaseHeld releases the work memory that the answer holds.
func (p *Response) releaseHeld() {
	if p.held != nil {
		p.held.release()
		p.held = nil
	}
}

// discard drops the bytes and sections so far.
func (p *Response) discard() {
	p.releaseHeld()
	for _, s := range p.sections {
		s.sec.Release()
	}
	p.forgetSections()
}

// forgetSections empties the response, whose sections and memory have another owner or are
// released.
func (p *Response) forgetSections() {
	clear(p.sections)
	p.B, p.sections, p.sectionBytes, p.held = nil, p.sections[:0], 0, nil
}
