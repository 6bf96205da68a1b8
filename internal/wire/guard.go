package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrMalformed says that a request's body does not have the shape of its API and version, or
// that it would take more memory than allowed when it is decoded.
var ErrMalformed = errors.New("malformed request")

// errBudget is returned for a body that would decode to too much memory.
var errBudget = errors.New("it would decode to more memory than allowed")

const (
	// tagCost is the memory of an unknown tagged field, which is an entry of a map.
	tagCost = 128
	// maxElements of one array, and maxTags tagged fields of one section, are Kafka's limits.
	maxElements = 1_000_000
	maxTags     = 10_000
)

// guard checks the shape of request bodies before kmsg decodes them. kmsg trusts two numbers
// in a body: the number of tagged fields, with which 13 bytes can keep it busy for a minute,
// and the lengths of arrays, with which it can allocate a hundred bytes for each byte of the
// body. The guard derives the layout of a request from kmsg itself, when it first sees one,
// so there is no second schema. It is safe for concurrent use.
type guard struct {
	keys [kmsg.MaxKey + 1]keyGuard
}

type keyGuard struct {
	flexFrom int16                    // the first flexible version
	layouts  []atomic.Pointer[layout] // by version; nil: not derived yet
}

func newGuard() *guard {
	g := &guard{}
	for key := range g.keys {
		k := &g.keys[key]
		k.flexFrom = math.MaxInt16
		r := kmsg.RequestForKey(int16(key))
		if r == nil {
			continue
		}
		k.layouts = make([]atomic.Pointer[layout], r.MaxVersion()+1)
		for v := range r.MaxVersion() + 1 {
			if r.SetVersion(v); r.IsFlexible() {
				k.flexFrom = v
				break
			}
		}
	}
	return g
}

// isFlexible tells whether this version of the API has tagged fields, also in its headers. A
// version that is not known yet counts as flexible if the last known one is.
func (g *guard) isFlexible(key, version int16) bool {
	return key >= 0 && int(key) < len(g.keys) && version >= g.keys[key].flexFrom && g.keys[key].flexFrom != math.MaxInt16
}

// knowsVersion tells whether kmsg can decode this version of the API.
func (g *guard) knowsVersion(key, version int16) bool {
	return key >= 0 && int(key) < len(g.keys) && version >= 0 && int(version) < len(g.keys[key].layouts)
}

// shape is the guard's result for a body.
type shape struct {
	size    int  // bytes of the body; further ones do not belong to it
	aliases bool // the decoded request will point into the body
	memory  int  // bytes that the decoded request takes at most, including a copy of the body if it points into it
	// elements counts the elements of all arrays, most of which stand for something in the answer.
	elements int
}

// checkBody returns the shape of a body, or an error if kmsg cannot decode it as a request of
// that API and version, or if the result would take more than limit bytes of memory.
func (g *guard) checkBody(key, version int16, body []byte, limit int) (shape, error) {
	if !g.knowsVersion(key, version) {
		return shape{}, fmt.Errorf("%w: there is no such version", ErrMalformed)
	}
	at := &g.keys[key].layouts[version]
	l := at.Load()
	if l == nil {
		l = deriveLayout(key, version)
		at.Store(l) // another goroutine that does this at the same time stores the same
	}
	w := walker{b: body, flexible: l.flexible, left: limit}
	w.spendMemory(l.root.size)
	w.walkNode(l.root)
	size := len(body) - len(w.b)
	if w.aliases {
		w.spendMemory(size)
	}
	if w.err != nil {
		return shape{}, w.err
	}
	return shape{size, w.aliases, limit - w.left, w.elements}, nil
}

// walker walks through a body along its layout.
type walker struct {
	b        []byte
	flexible bool
	aliases  bool
	left     int // bytes of memory that may still be spent
	elements int // of the arrays so far
	err      error
}

func (w *walker) markMalformed() { w.b, w.err = nil, ErrMalformed }

func (w *walker) spendMemory(n int) {
	if w.left -= n; w.left < 0 && w.err == nil {
		w.b, w.err = nil, fmt.Errorf("%w: %w", ErrMalformed, errBudget)
	}
}

func (w *walker) skipBytes(n int) {
	if n < 0 || n > len(w.b) {
		w.markMalformed()
		return
	}
	w.b = w.b[n:]
}

func (w *walker) readUvarint() int {
	v, n := binary.Uvarint(w.b)
	if n <= 0 || n > 5 || v > math.MaxUint32 {
		w.markMalformed()
		return 0
	}
	w.b = w.b[n:]
	return int(v)
}

// readLength reads the length of something nullable, with four bytes or two if the
// version is not flexible; negative is null.
func (w *walker) readLength(wide bool) int {
	switch {
	case w.flexible:
		return w.readUvarint() - 1
	case wide && len(w.b) >= 4:
		n := int(int32(binary.BigEndian.Uint32(w.b)))
		w.b = w.b[4:]
		return n
	case !wide && len(w.b) >= 2:
		n := int(int16(binary.BigEndian.Uint16(w.b)))
		w.b = w.b[2:]
		return n
	default:
		w.markMalformed()
		return 0
	}
}

func (w *walker) walkNode(n *node) {
	if w.err != nil {
		return
	}
	switch n.kind {
	case fixedNode:
		w.skipBytes(n.width)
	case stringNode:
		if l := w.readLength(false); l > 0 {
			w.skipBytes(l)
			w.spendMemory(l) // it is copied
		}
	case bytesNode:
		if l := w.readLength(true); l > 0 {
			w.skipBytes(l)
			w.aliases = true
		}
	case maybeNode:
		w.walkOptional(n)
	case arrayNode:
		w.walkArray(n)
	case structNode:
		for _, f := range n.fields {
			w.walkNode(f)
		}
		if n.tagged {
			w.walkTags(n)
		}
	}
}

func (w *walker) walkOptional(n *node) {
	if len(w.b) == 0 {
		w.markMalformed()
		return
	}
	null := int8(w.b[0]) < 0
	w.b = w.b[1:]
	if !null {
		w.spendMemory(n.elem.size)
		w.walkNode(n.elem)
	}
}

func (w *walker) walkArray(n *node) {
	l := w.readLength(true)
	if l > len(w.b) || l > maxElements {
		w.markMalformed() // an element takes a byte at least
		return
	}
	if l <= 0 {
		return
	}
	if w.spendMemory(l * n.elem.size); w.err != nil {
		return
	}
	w.elements += l
	if n.elem.kind == fixedNode {
		w.skipBytes(l * n.elem.width)
		return
	}
	for ; l > 0 && w.err == nil; l-- {
		w.walkNode(n.elem)
	}
}

func (w *walker) walkTags(n *node) {
	count := w.readUvarint()
	if w.err != nil {
		return
	}
	if count*2 > len(w.b) || count > maxTags {
		w.markMalformed() // a tagged field takes two bytes at least
		return
	}
	for ; count > 0 && w.err == nil; count-- {
		key, l := w.readUvarint(), w.readUvarint()
		if l > len(w.b) {
			w.markMalformed()
		}
		if w.err != nil {
			return
		}
		if f := n.tags[key]; f != nil { // kmsg decodes this one, so its contents are checked too
			in := walker{b: w.b[:l], flexible: w.flexible, left: w.left}
			if in.walkNode(f); in.err != nil {
				w.b, w.err = nil, in.err
				return
			}
			w.left, w.aliases, w.elements = in.left, w.aliases || in.aliases, w.elements+in.elements
		} else {
			w.spendMemory(tagCost)
			w.aliases = true
		}
		w.skipBytes(l)
	}
}
