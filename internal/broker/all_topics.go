package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// allTopics shares the encoded topics of Metadata answers between the clients that ask for all
// topics: when a node comes back, thousands do so at once. The first client that asks for a
// form encodes it, in memory that is reserved once; the others wait for it and share it.
//
//	encoding --done--> listed --the image changes, or no client asks--> unlisted --sent--> released
//
// Its memory is released when the last answer that has it is sent. It has its image only as long
// as it is listed, so that a client that does not read keeps no old image.
type allTopics struct {
	b *Broker

	bound atomic.Pointer[imageBound]

	mu    sync.Mutex                    // guards the fields below, and encodedTopics.users
	forms map[topicsForm]*encodedTopics // the newest one of each form, if it is listed
	asked map[topicsForm]bool           // the forms that were asked for since the last dropUnused
}

// topicsForm is all on which the topics' encoding depends, besides the image.
type topicsForm struct {
	version    int16
	operations bool
	listener   string // by which the clients ask
}

// encodedTopics are all topics of an image as they stand in an answer's array.
type encodedTopics struct {
	of    *allTopics
	image *meta.Image // nil: it is unlisted; guarded by allTopics.mu
	users int         // the requests that wait for it, the answers that have it, and 1 while it is listed

	ready  chan struct{} // closed when the fields below are set
	body   []byte
	tail   int // bytes of an answer after the array
	err    error
	memory budget.Reservation
}

// errNotEncoded is the error of the clients that share a form whose encoding has panicked.
var errNotEncoded = errors.New("BUG: the topics were not encoded")

func newAllTopics(b *Broker) *allTopics {
	return &allTopics{b: b, forms: map[topicsForm]*encodedTopics{}, asked: map[topicsForm]bool{}}
}

// shareTopics returns the topics of an image in a form, when they are encoded. The caller
// must release them. The context ends the wait for another client that encodes them.
func (a *allTopics) shareTopics(ctx context.Context, image *meta.Image, f topicsForm) (*encodedTopics, error) {
	a.mu.Lock()
	a.asked[f] = true
	e, old := a.forms[f], (*encodedTopics)(nil)
	missing := e == nil || e.image != image
	if missing {
		old = a.unlistLocked(f)
		e = &encodedTopics{of: a, image: image, users: 1, ready: make(chan struct{}), err: errNotEncoded}
		a.forms[f] = e
	}
	e.users++
	a.mu.Unlock()
	if old != nil {
		old.Release()
	}
	if missing {
		e.encodeTopics(image, f)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		e.Release()
		return nil, ctx.Err()
	}
	if e.err != nil {
		a.unlist(f, e)
		e.Release()
		return nil, e.err
	}
	return e, nil
}

// encodeTopics encodes the topics, in turns with other long work, and closes ready.
func (e *encodedTopics) encodeTopics(image *meta.Image, f topicsForm) {
	defer close(e.ready)
	b := e.of.b
	most := e.of.boundOf(image)
	memory, err := b.cfg.Work.Reserve(b.cfg.Context(), budget.Data, min(most, b.cfg.Work.Most(budget.Data)))
	if err != nil {
		e.err = err
		return
	}
	e.memory = memory
	d := topicDescriber{view: b.viewOf(image, f.listener), version: f.version, operations: f.operations, list: listTopics(image)}
	all := newElements(list{n: len(d.list), answerWith: d.answerWith}, kmsg.NewPtrMetadataResponse(), f.version, b.cfg.Work)
	e.body, e.tail, e.err = all.appendAll(make([]byte, 0, most)), all.tail, nil
}

// unlist removes an encoding from the list, unless a newer one has replaced it.
func (a *allTopics) unlist(f topicsForm, e *encodedTopics) {
	a.mu.Lock()
	listed := a.forms[f] == e
	if listed {
		a.unlistLocked(f)
	}
	a.mu.Unlock()
	if listed {
		e.Release()
	}
}

// unlistLocked removes the encoding of a form from the list, and returns it, or nil if there is
// none. The caller must release it.
func (a *allTopics) unlistLocked(f topicsForm) *encodedTopics {
	e := a.forms[f]
	if e != nil {
		delete(a.forms, f)
		e.image = nil
	}
	return e
}

// dropUnused is called now and then. It unlists the forms of an image that is no longer the
// newest, and those that no client has asked for since the last call.
func (a *allTopics) dropUnused(newest *meta.Image) {
	var old []*encodedTopics
	a.mu.Lock()
	for f, e := range a.forms {
		if e.image != newest || !a.asked[f] {
			old = append(old, a.unlistLocked(f))
		}
	}
	clear(a.asked)
	a.mu.Unlock()
	if b := a.bound.Load(); b != nil && b.image != newest {
		a.bound.CompareAndSwap(b, nil)
	}
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

// replyAll answers with whole, whose array is empty, and puts all topics into the array.
func (a *allTopics) replyAll(r *wire.Request, whole kmsg.Response, image *meta.Image, f topicsForm) error {
	e, err := a.shareTopics(r.Conn.Context(), image, f)
	if err != nil {
		return err
	}
	whole.SetVersion(r.Version)
	r.SetThrottle(whole)
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

// isShared tells whether the topics of an image are shared. It does not pay for a few topics,
// and very many are encoded as they are sent.
func (a *allTopics) isShared(image *meta.Image) bool {
	return image.NumTopics() > shortAnswer && a.boundOf(image) <= a.b.cfg.Work.Most(budget.Data)/sharedPart
}

// sharedPart bounds the topics of one form to this fraction (1/sharedPart) of the memory for
// answers.
const sharedPart = 3

// imageBound is the result of boundTopics for an image.
type imageBound struct {
	image *meta.Image
	bytes int64
}

// boundOf is boundTopics with a cache of one image.
func (a *allTopics) boundOf(image *meta.Image) int64 {
	if b := a.bound.Load(); b != nil && b.image == image {
		return b.bytes
	}
	n := boundTopics(image)
	a.bound.Store(&imageBound{image, n})
	return n
}

// boundTopics is an upper bound of the bytes of all topics' encoding.
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

// sharedBytes is a section of an answer, in memory that the answer shares with others.
type sharedBytes []byte

// Len is the section's length.
func (b sharedBytes) Len() int { return len(b) }

// ReadAt copies the bytes from off on.
func (b sharedBytes) ReadAt(p []byte, off int64) (int, error) { return bytesAt(b).ReadAt(p, off) }

// Fd tells that the section is not in a file.
func (sharedBytes) Fd() (fd uintptr, pos int64, ok bool) { return 0, 0, false }

// Release does nothing: the answer itself releases its use of the bytes.
func (sharedBytes) Release() {}
