package broker

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

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
	// unreadFor is for how many looks (expireEvery) others wait for work memory until
	// the oldest unread answer that holds some is given up with its connection.
	unreadFor = 5
)

// errUnread ends the connection of a client that does not read a long answer while
// others wait for the memory.
var errUnread = errors.New("a long answer was not read while others waited for memory")

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
	e := elements{list: l, at: -1, version: r.Version, flexible: whole.IsFlexible(), work: b.cfg.Work}
	e.learn()
	head := whole.AppendTo(nil)
	head, tail := head[:len(head)-e.tail-e.countLen()], slices.Clone(head[len(head)-e.tail:])
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
	p.Attach(b.unsent.enter(r.Conn, &e, size, held))
	p.B = append(p.B, tail...)
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
	held := *from
	*from = budget.Reservation{}
	resp.SetVersion(r.Version)
	body := b.encodeWhole(resp)
	held.Shrink(int64(cap(body)))
	p := r.Begin()
	p.Attach(b.unsent.enter(r.Conn, bytesAt(body), int64(len(body)), held))
	r.Send(p)
}

func (b *Broker) encodeWhole(resp kmsg.Response) []byte {
	b.cfg.Work.Enter(budget.Command)
	defer b.cfg.Work.Leave()
	return resp.AppendTo(nil)
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

func (e *elements) encode(dst []byte, i int) []byte {
	resp := e.with(i)
	resp.SetVersion(e.version)
	return resp.AppendTo(dst)
}

// countLen is the length of an array's count below 127.
func (e *elements) countLen() int {
	if e.flexible {
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

// unsent are the answers that hold work memory and were not sent yet, the oldest
// first.
type unsent struct {
	mu      sync.Mutex // guards what follows
	list    []*longAnswer
	waiting int // looks in a row at which others waited for memory
}

// longAnswer is a section of an answer that holds work memory until it was sent.
type longAnswer struct {
	io.ReaderAt

	of   *unsent
	conn *wire.Conn
	size int
	held budget.Reservation
}

func (u *unsent) enter(c *wire.Conn, from io.ReaderAt, size int64, held budget.Reservation) *longAnswer {
	a := &longAnswer{ReaderAt: from, of: u, conn: c, size: int(size), held: held}
	u.mu.Lock()
	u.list = append(u.list, a)
	u.mu.Unlock()
	return a
}

// Len is the section's length.
func (a *longAnswer) Len() int { return a.size }

// Fd tells that the section is not in a file.
func (*longAnswer) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

// Computed tells that the section is encoded as it is sent.
func (*longAnswer) Computed() {}

// Release gives the memory back.
func (a *longAnswer) Release() {
	u := a.of
	u.mu.Lock()
	if i := slices.Index(u.list, a); i >= 0 {
		u.list = slices.Delete(u.list, i, i+1)
	}
	u.mu.Unlock()
	a.ReaderAt = nil
	a.held.Release()
}

// relieve is called now and then. Where others have waited for the memory of answers
// for some time, it closes the connection whose answer has been unread for longest.
func (u *unsent) relieve(waiting int) {
	u.mu.Lock()
	var oldest *longAnswer
	if u.waiting++; waiting == 0 {
		u.waiting = 0
	}
	if u.waiting >= unreadFor && len(u.list) > 0 {
		oldest = u.list[0]
		u.waiting = 0
	}
	u.mu.Unlock()
	if oldest != nil {
		oldest.conn.Close(errUnread)
	}
}
