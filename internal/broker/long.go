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
	// shortAnswer elements are encoded at once; a longer answer is encoded as it is sent.
	shortAnswer = 16
	// elementMemory is about how much the encoding of one element takes.
	elementMemory = 256 << 10
	// maxAnswer bounds an answer: its length has to fit a frame.
	maxAnswer = 1<<31 - 1<<20
)

// errChanged would mean that an element was encoded in two lengths.
var errChanged = errors.New("BUG: an element of an answer changed while it was sent")

// list is an answer that is one array and little else: of topics, or of resources.
type list struct {
	n int
	// with returns the answer with element i alone, and with none for -1, without the
	// fields before the array. It is called twice for each element, by one goroutine
	// at a time, and must give the same both times. The second time comes when the
	// request is not the caller's any more.
	with func(i int) kmsg.Response
	// memory is what with keeps for as long as the answer is not sent, in bytes.
	memory int64
}

// replyList answers with the fields of whole, whose array is empty, and the list's
// elements in its array. A long list takes the memory of one element at a time: the
// first pass adds up the lengths, the second encodes what is sent next.
func (b *Broker) replyList(r *wire.Request, whole kmsg.Response, l list) error {
	whole.SetVersion(r.Version)
	if l.n == 0 {
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
		r.Send(p)
		return nil
	}
	held, err := b.reserveAnswer(l.memory + 8*int64(l.n) + elementMemory)
	if err != nil {
		return err
	}
	size := e.measure()
	if size > maxAnswer {
		held.Release()
		return fmt.Errorf("the answer would have %d bytes: %w", size, budget.ErrTooLarge)
	}
	p := r.Begin()
	p.B = appendLen(append(p.B, head...), e.flexible, l.n)
	p.Attach(&computed{e, int(size)})
	p.B = append(p.B, tail...)
	r.Hold(&held)
	r.Send(p)
	return nil
}

// reserveAnswer reserves memory for an answer. One that might take more than any
// reservation takes the largest, and so is the only large one.
func (b *Broker) reserveAnswer(n int64) (budget.Reservation, error) {
	return b.cfg.Work.Reserve(b.cfg.Context(), budget.Data, min(n, b.cfg.Work.Most(budget.Data)))
}

// replyHeld sends an answer that was built whole in reserved memory, which goes back
// when it was sent. The caller's reservation is empty afterwards.
func (b *Broker) replyHeld(r *wire.Request, resp kmsg.Response, from *budget.Reservation) {
	resp.SetVersion(r.Version)
	body := b.encodeWhole(resp)
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

// stretch is how many partitions, topics or names are worked on until others have the
// processor: a few hundred microseconds of work. Work of no more than that does not wait
// for a processor.
const stretch = 512

// inTurns takes n steps of work. Many are taken on a processor that all long work shares,
// in turns with it: step must not wait for anything.
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

// elements are a list's elements as they are encoded.
type elements struct {
	list

	version  int16
	flexible bool
	skip     int // bytes before the first element in an answer with one
	tail     int // bytes after the last one

	work  *budget.Budget
	stint int // bytes encoded since others had the processor

	ends []int64 // where each element ends, counted from the first one's begin
	at   int     // the element in buf; -1: none
	buf  []byte
}

// newElements begins to encode a list of answers like whole.
func newElements(l list, whole kmsg.Response, version int16, work *budget.Budget) *elements {
	whole.SetVersion(version)
	e := &elements{list: l, at: -1, version: version, flexible: whole.IsFlexible(), work: work}
	e.learn()
	return e
}

func (e *elements) encode(dst []byte, i int) []byte {
	resp := e.with(i)
	resp.SetVersion(e.version)
	return resp.AppendTo(dst)
}

// countLen is the length of an array's count below 127.
func countLen(flexible bool) int {
	if flexible {
		return 1
	}
	return 4
}

// learn finds out where the array is: an answer with one element and one with none
// differ from the last byte of its count on.
func (e *elements) learn() {
	none, one := e.encode(nil, -1), e.encode(nil, 0)
	same := 0
	for same < len(none) && none[same] == one[same] {
		same++
	}
	e.skip = same + 1
	e.tail = len(none) - e.skip
}

// appendTo appends element i alone.
func (e *elements) appendTo(dst []byte, i int) []byte {
	start := len(dst)
	dst = e.encode(dst, i)
	e.stint += len(dst) - start
	n := copy(dst[start:], dst[start+e.skip:len(dst)-e.tail])
	return dst[:start+n]
}

// appendAll appends all elements.
func (e *elements) appendAll(dst []byte) []byte {
	e.work.Enter(budget.Command)
	defer e.work.Leave()
	for i := range e.n {
		e.passOn()
		dst = e.appendTo(dst, i)
	}
	return dst
}

// encodeEvery is how many bytes are encoded until others have the processor.
const encodeEvery = 32 << 10

// passOn lets others have the processor after each stretch.
func (e *elements) passOn() {
	if e.stint >= encodeEvery {
		e.stint = 0
		e.work.Pass(budget.Command)
	}
}

// measure adds up the lengths of all elements.
func (e *elements) measure() int64 {
	e.ends = make([]int64, e.n)
	sum := int64(0)
	e.work.Enter(budget.Command)
	defer e.work.Leave()
	for i := range e.n {
		e.passOn()
		e.buf = e.appendTo(e.buf[:0], i)
		sum += int64(len(e.buf))
		e.ends[i] = sum
	}
	return sum
}

// ReadAt encodes the elements that the bytes from off on are of.
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
			e.passOn()
			e.at, e.buf = i, e.appendTo(e.buf[:0], i)
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

// bytesAt reads from memory.
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

// Release lets go of what the section is encoded from.
func (c *computed) Release() { c.ReaderAt = nil }
