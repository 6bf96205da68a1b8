package broker

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// allTopics are the topics of Metadata answers in encoded form, for clients that ask for all
// of them: thousands do at once when a node comes back. Each form is encoded by the first
// client that asks, in memory that is reserved once; the others wait for it and share it.
//
//	building --encoded--> listed --the image changes, or nobody asks--> unlisted --sent--> gone
//
// It is gone when the last answer that has it was sent.
type allTopics struct {
	b *Broker

	bound atomic.Pointer[imageBound]

	mu    sync.Mutex                    // guards what follows, and the users of all
	forms map[topicsForm]*encodedTopics // the newest one of each form that is in use
	asked map[topicsForm]bool           // since the last look
}

// topicsForm is all that the topics' encoding depends on beside the image.
type topicsForm struct {
	version    int16
	operations bool
}

// encodedTopics are all topics of an image as they stand in an answer's array.
type encodedTopics struct {
	of    *allTopics
	image *meta.Image
	users int // those who wait for it, answers that have it, and one for the list

	ready  chan struct{} // closed when what follows is final
	body   []byte
	tail   int // bytes of an answer after the array
	err    error
	memory budget.Reservation
}

// errNotEncoded is what those get who share a form whose encoding met a bug.
var errNotEncoded = errors.New("BUG: the topics were not encoded")

func newAllTopics(b *Broker) *allTopics {
	return &allTopics{b: b, forms: map[topicsForm]*encodedTopics{}, asked: map[topicsForm]bool{}}
}

// share returns the topics of an image in a form. The caller must release them.
func (a *allTopics) share(image *meta.Image, f topicsForm) (*encodedTopics, error) {
	a.mu.Lock()
	a.asked[f] = true
	e, old := a.forms[f], (*encodedTopics)(nil)
	missing := e == nil || e.image != image
	if missing {
		old = e
		e = &encodedTopics{of: a, image: image, users: 1, ready: make(chan struct{}), err: errNotEncoded}
		a.forms[f] = e
	}
	e.users++
	a.mu.Unlock()
	if old != nil {
		old.Release()
	}
	if missing {
		e.build(f)
	}
	select {
	case <-e.ready:
	case <-a.b.cfg.Context().Done():
		e.Release()
		return nil, a.b.cfg.Context().Err()
	}
	if e.err != nil {
		a.drop(f, e)
		e.Release()
		return nil, e.err
	}
	return e, nil
}

// build encodes the topics, in turns with other long work.
func (e *encodedTopics) build(f topicsForm) {
	defer close(e.ready)
	b := e.of.b
	most := e.of.boundOf(e.image)
	memory, err := b.reserveAnswer(most)
	if err != nil {
		e.err = err
		return
	}
	e.memory = memory
	d := topicDescriber{m: e.image, operations: f.operations, list: listTopics(e.image)}
	all := newElements(list{n: len(d.list), with: d.answer}, kmsg.NewPtrMetadataResponse(), f.version, b.cfg.Work)
	e.body, e.tail, e.err = all.appendAll(make([]byte, 0, most)), all.tail, nil
}

// drop takes a form off the list, unless another one has its place already.
func (a *allTopics) drop(f topicsForm, e *encodedTopics) {
	a.mu.Lock()
	listed := a.forms[f] == e
	if listed {
		delete(a.forms, f)
	}
	a.mu.Unlock()
	if listed {
		e.Release()
	}
}

// forget is called now and then. It drops the forms of an image that is not the newest any
// more, and those for which nobody has asked since the last call.
func (a *allTopics) forget(newest *meta.Image) {
	var old []*encodedTopics
	a.mu.Lock()
	for f, e := range a.forms {
		if e.image != newest || !a.asked[f] {
			delete(a.forms, f)
			old = append(old, e)
		}
	}
	clear(a.asked)
	a.mu.Unlock()
	for _, e := range old {
		e.Release()
	}
}

// Release ends one use. The last one gives the memory back.
func (e *encodedTopics) Release() {
	e.of.mu.Lock()
	e.users--
	last := e.users == 0
	e.of.mu.Unlock()
	if last {
		e.memory.Release()
	}
}

// replyAll answers with the fields of whole, whose array is empty, and all topics.
func (a *allTopics) replyAll(r *wire.Request, whole kmsg.Response, image *meta.Image, operations bool) error {
	e, err := a.share(image, topicsForm{r.Version, operations})
	if err != nil {
		return err
	}
	whole.SetVersion(r.Version)
	p := r.Begin()
	head := len(p.B)
	p.B = whole.AppendTo(p.B)
	tail := append([]byte(nil), p.B[len(p.B)-e.tail:]...)
	p.B = p.B[:len(p.B)-e.tail-countLen(whole.IsFlexible())]
	if len(p.B) < head {
		panic("BUG: the array is not where it should be")
	}
	p.B = appendLen(p.B, whole.IsFlexible(), image.NumTopics())
	p.Attach(sharedBytes(e.body))
	p.B = append(p.B, tail...)
	r.HoldShared(e)
	r.Send(p)
	return nil
}

// isShared tells whether the topics of an image are shared: where they are few it is not worth
// it, and where they are very many they are encoded as they are sent.
func (a *allTopics) isShared(image *meta.Image) bool {
	return image.NumTopics() > shortAnswer && a.boundOf(image) <= a.b.cfg.Work.Most(budget.Data)/sharedPart
}

// sharedPart says how much of the memory for answers the topics of one form may take: one
// part in so many.
const sharedPart = 3

// imageBound is what boundTopics gave for an image.
type imageBound struct {
	image *meta.Image
	bytes int64
}

// boundOf is boundTopics, which is known for the image that was asked for last.
func (a *allTopics) boundOf(image *meta.Image) int64 {
	if b := a.bound.Load(); b != nil && b.image == image {
		return b.bytes
	}
	n := boundTopics(image)
	a.bound.Store(&imageBound{image, n})
	return n
}

// boundTopics is how many bytes the encoding of all topics takes at most.
func boundTopics(image *meta.Image) int64 {
	n := 256 // an answer with one topic is longer than the topic
	for t := range image.Topics() {
		n += 40 + len(t.Name)
		for i := range t.Partitions {
			n += 36 + 4*(2*len(t.Partitions[i].Replicas)+len(t.Partitions[i].ISR))
		}
	}
	return int64(n)
}

// listTopics lists all topics of an image.
func listTopics(image *meta.Image) []describedTopic {
	all := make([]describedTopic, 0, image.NumTopics())
	for t := range image.Topics() {
		all = append(all, describedTopic{topic: t})
	}
	return all
}

// sharedBytes are a section in memory that others keep until it was sent.
type sharedBytes []byte

// Len is the section's length.
func (b sharedBytes) Len() int { return len(b) }

// ReadAt copies the bytes from off on.
func (b sharedBytes) ReadAt(p []byte, off int64) (int, error) { return bytesAt(b).ReadAt(p, off) }

// Fd tells that the section is not in a file.
func (sharedBytes) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

// Release does nothing: the answer holds what keeps the bytes.
func (sharedBytes) Release() {}
