package broker

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/wire"
)

const (
	// shortAnswer is the largest number of elements that are encoded before the answer is
	// sent. Those of a longer answer are encoded while it is sent.
	shortAnswer = 16
	// elementMemory is about how much memory the encoding of one element takes.
	elementMemory = 256 << 10
	// maxAnswer bounds an answer, whose length must fit into 31 bits.
	maxAnswer = 1<<31 - 1<<20
)

// errChanged says that the two encodings of an element have different lengths.
var errChanged = errors.New("BUG: an element of an answer changed while it was sent")

// list is the array of an answer that has little else: of topics, or of resources.
type list struct {
	n int // the number of elements
	// answerWith returns the answer with element i alone, or with none for -1. Of the
	// fields before the array it sets none. It is called twice for each element, by one
	// goroutine at a time, and must return the same both times. The second call comes
	// after the handler has returned.
	answerWith func(i int) kmsg.Response
	// memory is how many bytes answerWith keeps until the answer is sent.
	memory int64
}

// replyList answers with whole, whose array is empty, and puts the list's elements into the
// array. All elements of a long list are encoded twice, one at a time: first to add up their
// lengths, and again when they are sent. So it takes the memory of one element.
func (b *Broker) replyList(r *wire.Request, whole kmsg.Response, l list) error {
	whole.SetVersion(r.Version)
	if l.n == 0 {
		r.Reply(whole)
		return nil
	}
	if l.n <= shortAnswer {
		return b.replyListHeld(r, whole, l, new(budget.Reservation))
	}
	held, err := b.reserveAnswer(r, l.memory+8*int64(l.n)+elementMemory)
	if err != nil {
		return err
	}
	return b.replyListHeld(r, whole, l, &held)
}

// replyListHeld is replyList for a list that was made in reserved memory, which is enough for its answer, too. It takes over
// the reservation.
func (b *Broker) replyListHeld(r *wire.Request, whole kmsg.Response, l list, held *budget.Reservation) error {
	whole.SetVersion(r.Version)
	r.SetThrottle(whole)
	if r.Note != nil {
		for i := range l.n {
			r.TellNote(l.answerWith(i))
		}
	}
	if l.n == 0 {
		held.Release()
		r.Reply(whole)
		return nil
	}
	e := newElements(l, whole, r.Version, b.cfg.Work)
	head := whole.AppendTo(nil)
	head, tail := head[:len(head)-e.tail-countLen(e.flexible)], slices.Clone(head[len(head)-e.tail:])
	if l.n <= shortAnswer {
		p := r.Begin()
		p.B = appendLen(append(p.B, head...), e.flexible, l.n)
		p.B = append(e.appendAll(p.B), tail...)
		r.Hold(held)
		r.Send(p)
		return nil
	}
	size := e.measureElements()
	if size > maxAnswer {
		held.Release()
		return fmt.Errorf("the answer would have %d bytes: %w", size, budget.ErrTooLarge)
	}
	p := r.Begin()
	p.B = appendLen(append(p.B, head...), e.flexible, l.n)
	p.Attach(&computed{e, int(size)})
	p.B = append(p.B, tail...)
	r.Hold(held)
	r.Send(p)
	return nil
}

// reserveAnswer reserves memory for an answer. An answer that may need more than the largest
// reservation gets that one, so that it is the only large answer.
func (b *Broker) reserveAnswer(r *wire.Request, n int64) (budget.Reservation, error) {
	return r.Reserve(budget.Data, min(n, b.cfg.Work.Most(budget.Data)))
}

// replyHeld sends an answer that was built in reserved memory. It takes over the caller's
// reservation, and releases it when the answer is sent.
func (b *Broker) replyHeld(r *wire.Request, resp kmsg.Response, from *budget.Reservation) {
	r.TellNote(resp)
	resp.SetVersion(r.Version)
	r.SetThrottle(resp)
	sendHeld(r, b.encodeWhole(resp), from)
}

// sendHeld is replyHeld for an answer that is encoded already.
func sendHeld(r *wire.Request, body []byte, from *budget.Reservation) {
	from.Shrink(int64(cap(body)))
	p := r.Begin()
	p.Attach(&computed{bytesAt(body), len(body)})
	r.Hold(from)
	r.Send(p)
}

func (b *Broker) encodeWhole(resp kmsg.Response) []byte {
	b.cfg.Work.Enter(budget.Command)
	defer b.cfg.Work.Leave()
	return resp.AppendTo(nil)
}

// stretch is the number of partitions, topics or names after which work passes its processor
// on: a few hundred microseconds of work. Work of no more than that does not wait for its turn.
const stretch = 512

// inTurns calls step for 0 to n-1. If they are many, it does so in turns with all other long
// work, and step must not wait for anything.
func (b *Broker) inTurns(n int, step func(i int)) {
	if n > stretch {
		b.cfg.Work.Enter(budget.Command)
		defer b.cfg.Work.Leave()
	}
	for i := range n {
		if i > 0 && i%stretch == 0 {
			b.cfg.Work.Pass(budget.Command)
		}
		step(i)
	}
}

// elements encodes the elements of a list.
type elements struct {
	list

	version  int16
	flexible bool
	skip     int // bytes before the element in an answer with one
	tail     int // bytes after the array

	work       *budget.Budget
	sinceYield int // bytes that were encoded since the processor was passed on

	ends []int64 // where each element ends, counted from the beginning of the first
	at   int     // the element whose encoding is in buf; -1: none
	buf  []byte
}

// newElements prepares to encode a list for the array of whole.
func newElements(l list, whole kmsg.Response, version int16, work *budget.Budget) *elements {
	whole.SetVersion(version)
	e := &elements{list: l, at: -1, version: version, flexible: whole.IsFlexible(), work: work}
	e.locateArray()
	return e
}

// encodeAlone appends the answer that has element i alone (-1: none).
func (e *elements) encodeAlone(dst []byte, i int) []byte {
	resp := e.answerWith(i)
	resp.SetVersion(e.version)
	return resp.AppendTo(dst)
}

// countLen is the number of bytes of an array's length, if that is below 127.
func countLen(flexible bool) int {
	if flexible {
		return 1
	}
	return 4
}

// locateArray sets skip and tail. An answer with one element and one with none differ for the
// first time in the last byte of the array's length.
func (e *elements) locateArray() {
	none, one := e.encodeAlone(nil, -1), e.encodeAlone(nil, 0)
	same := 0
	for same < len(none) && none[same] == one[same] {
		same++
	}
	e.skip = same + 1
	e.tail = len(none) - e.skip
}

// appendElement appends element i.
func (e *elements) appendElement(dst []byte, i int) []byte {
	start := len(dst)
	dst = e.encodeAlone(dst, i)
	e.sinceYield += len(dst) - start
	n := copy(dst[start:], dst[start+e.skip:len(dst)-e.tail])
	return dst[:start+n]
}

// appendAll appends all elements.
func (e *elements) appendAll(dst []byte) []byte {
	e.work.Enter(budget.Command)
	defer e.work.Leave()
	for i := range e.n {
		e.yieldIfDue()
		dst = e.appendElement(dst, i)
	}
	return dst
}

// yieldEvery is the number of encoded bytes after which the processor is passed on.
const yieldEvery = 32 << 10

// yieldIfDue passes the processor on if yieldEvery bytes were encoded since the last time.
func (e *elements) yieldIfDue() {
	if e.sinceYield >= yieldEvery {
		e.sinceYield = 0
		e.work.Pass(budget.Command)
	}
}

// measureElements sets ends, and returns the length of all elements.
func (e *elements) measureElements() int64 {
	e.ends = make([]int64, e.n)
	sum := int64(0)
	e.work.Enter(budget.Command)
	defer e.work.Leave()
	for i := range e.n {
		e.yieldIfDue()
		e.buf = e.appendElement(e.buf[:0], i)
		sum += int64(len(e.buf))
		e.ends[i] = sum
	}
	return sum
}

// ReadAt encodes the elements to which the bytes from off on belong.
func (e *elements) ReadAt(p []byte, off int64) (n int, err error) {
	e.work.Enter(budget.Command)
	defer e.work.Leave()
	i := sort.Search(e.n, func(i int) bool { return e.ends[i] > off })
	for ; n < len(p) && i < e.n; i++ {
		begin := int64(0)
		if i > 0 {
			begin = e.ends[i-1]
		}
		if e.at != i {
			e.yieldIfDue()
			e.at, e.buf = i, e.appendElement(e.buf[:0], i)
		}
		if int64(len(e.buf)) != e.ends[i]-begin {
			return n, errChanged
		}
		n += copy(p[n:], e.buf[off+int64(n)-begin:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// bytesAt is an io.ReaderAt of bytes in memory.
type bytesAt []byte

// ReadAt copies the bytes from off on.
func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b[min(off, int64(len(b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// computed is a section of an answer that is encoded as it is sent.
type computed struct {
	io.ReaderAt
	size int
}

// Len is the section's length.
func (c *computed) Len() int { return c.size }

// Fd tells that the section is not in a file.
func (*computed) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

// Computed tells that the section is encoded as it is sent.
func (*computed) Computed() {}

// Release drops the reference to the source of the section.
func (c *computed) Release() { c.ReaderAt = nil }
