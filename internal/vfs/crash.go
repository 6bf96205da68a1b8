package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes as a whole.
const sector = 512

// Crash returns what a power cut at this moment may leave, chosen by rng; m itself
// goes on undisturbed. What was synced is there. Of what was not, changes of
// directories survive up to some point in their order, or those of each directory
// up to a point of its own (see surviving); sizes of files up to some point in
// theirs, and written bytes sector by sector, each as some write since the last
// sync left it: lost, torn, or on disk before what was written earlier. A file
// that grew without its bytes reads as zeros there.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.crashLocked(rng)
}

func (m *Mem) crashLocked(rng *rand.Rand) *Mem {
	entries := map[*node]map[string]*node{} // of directories that differ from durable
	of := func(n *node) map[string]*node {
		if entries[n] == nil {
			entries[n] = maps.Clone(n.durable)
		}
		return entries[n]
	}
	for _, op := range surviving(rng, m.ops) {
		for _, e := range op {
			e.apply(of)
		}
	}
	after := m.emptyLocked()
	var grow func(n *node) *node
	grow = func(n *node) *node {
		if n.file != nil {
			img := n.file.crash(rng)
			c := &content{live: img, disk: img.clone(), taken: max(min(n.file.taken, img.size), int64(len(img.b))), links: 1}
			after.avail -= c.taken
			return &node{file: c}
		}
		have := n.durable
		if changed, ok := entries[n]; ok {
			have = changed
		}
		d := newDir()
		for _, name := range slices.Sorted(maps.Keys(have)) { // sorted: one seed, one outcome
			d.live[name] = grow(have[name])
			d.durable[name] = d.live[name]
		}
		return d
	}
	after.root = grow(m.root)
	return after
}

// KillClone returns what the next start finds when the process dies now by kill
// -9: everything written, synced or not, and what was not synced can still be
// lost by a later Crash of the clone. With an rng the last write, where nothing
// followed it, is cut at a random byte, as when the process died inside of it:
// pass nil where the write was already relied on. Locks and open files are gone.
func (m *Mem) KillClone(rng *rand.Rand) *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	after := m.emptyLocked()
	twins := map[*node]*node{}
	var twin func(n *node) *node
	twin = func(n *node) *node {
		if n == nil || twins[n] != nil {
			return twins[n]
		}
		t := &node{}
		twins[n] = t
		if n.file != nil {
			c := n.file
			t.file = &content{
				live: c.live.clone(), disk: c.disk.clone(), pending: slices.Clone(c.pending),
				taken: c.taken, links: c.links,
			}
			if l := m.last; rng != nil && l != nil && l.c == c {
				t.file.cut(l, rng.IntN(l.n+1))
			}
			if t.file.links > 0 {
				after.avail -= t.file.taken
			}
			return t
		}
		t.live, t.durable = map[string]*node{}, map[string]*node{}
		for name, child := range n.live {
			t.live[name] = twin(child)
		}
		for name, child := range n.durable {
			t.durable[name] = twin(child)
		}
		return t
	}
	after.root = twin(m.root)
	for _, op := range m.ops {
		for i, e := range op {
			op[i] = entryOp{twin(e.dir), e.name, twin(e.to)}
		}
		after.ops = append(after.ops, op)
	}
	return after
}

// emptyLocked is a file system of the same size with nothing in it.
func (m *Mem) emptyLocked() *Mem {
	after := NewMem()
	after.avail, after.total = m.total, m.total
	return after
}

// surviving chooses which changes of directories survive. A file system with one
// journal keeps their order (ext4, XFS), and so does half of the outcomes. In the other
// half each directory keeps a part of its own: where a change was lost, all later
// ones of its directory are, and those of directories that a lost rename ties to it. A
// rename is kept or lost as a whole.
func surviving(rng *rand.Rand, ops []dirOp) []dirOp {
	if rng.IntN(2) == 0 {
		return ops[:prefix(rng, len(ops))]
	}
	loss := [...]float64{0.05, 0.3, 0.7}[rng.IntN(3)]
	frozen := map[*node]bool{}
	var kept []dirOp
	for _, op := range ops {
		lost := rng.Float64() < loss
		for _, n := range op.touched() {
			lost = lost || frozen[n]
		}
		if !lost {
			kept = append(kept, op)
			continue
		}
		for _, n := range op.touched() {
			frozen[n] = true
		}
	}
	return kept
}

// touched is the directories that a change concerns, also one that is moved or made:
// else it might end up inside of itself.
func (op dirOp) touched() []*node {
	var dirs []*node
	for _, e := range op {
		if e.dir != nil {
			dirs = append(dirs, e.dir)
		}
		if e.to != nil && e.to.live != nil {
			dirs = append(dirs, e.to)
		}
	}
	return dirs
}

// prefix chooses how many of n changes survive: often all or none, the two ends
// at which most mistakes show.
func prefix(rng *rand.Rand, n int) int {
	switch rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return n
	default:
		return rng.IntN(n + 1)
	}
}

// crash is one outcome of a power cut for the file's bytes.
func (c *content) crash(rng *rand.Rand) image {
	img := c.disk.clone()
	if len(c.pending) == 0 {
		return img
	}
	sizes := prefix(rng, len(c.pending)) // changes of the size up to here survive
	keep := [...]float64{0, 0.5, 0.9, 1}[rng.IntN(4)]
	t := &tearing{img: &img, frozen: map[int64]bool{}, barrier: unlimited}
	size, live := c.disk.size, c.disk.size
	for i, ch := range c.pending {
		end := ch.off + int64(len(ch.data))
		switch {
		case ch.data != nil:
			live = max(live, end)
			if i < sizes {
				size = max(size, end)
			}
			t.write(ch, func() bool { return rng.Float64() < keep })
		case i < sizes:
			t.shrink(ch.off)
			size, live = ch.off, ch.off
		default:
			if ch.off < live {
				t.barrier = min(t.barrier, ch.off)
			}
			live = ch.off
		}
	}
	img.resize(size)
	return img
}

// tearing is a file's image while a crash writes some sectors and not others.
type tearing struct {
	img     *image
	frozen  map[int64]bool // sectors that no later write reaches
	barrier int64          // no byte from here on is written: a cut of the file before that was lost
}

func (t *tearing) write(c change, survives func() bool) {
	for off, data := c.off, c.data; len(data) > 0 && off < t.barrier; {
		n := min(int64(len(data)), sector-off%sector, t.barrier-off)
		if s := off / sector; !t.frozen[s] {
			if survives() {
				t.img.write(off, data[:n])
			} else {
				t.frozen[s] = true
			}
		}
		off, data = off+n, data[n:]
	}
}

func (t *tearing) shrink(size int64) {
	t.img.resize(size)
	maps.DeleteFunc(t.frozen, func(s int64, _ bool) bool { return s*sector >= size })
}

// cut takes back all but the first n bytes of the file's last write.
func (c *content) cut(l *lastWrite, n int) {
	if n == l.n {
		return
	}
	p := &c.pending[len(c.pending)-1]
	from := l.off + int64(n)
	if n < len(l.old) {
		copy(c.live.b[from:], l.old[n:])
	}
	if end := l.off + int64(len(l.old)); end < l.off+int64(l.n) {
		clear(c.live.b[max(from, end):])
	}
	c.live.resize(max(l.size, from))
	if n == 0 {
		c.pending = c.pending[:len(c.pending)-1]
		c.live.resize(l.size)
	} else {
		p.data = p.data[:n]
	}
}
