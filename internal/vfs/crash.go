package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is how many bytes a disk writes as a whole.
const sector = 512

// Crash returns the file system after a power cut at this moment, which is one of many
// outcomes, chosen by rng; m does not change. All synced changes are there. Of the others
// some are lost:
//   - the changes of directories after some point in their order, or after a point for
//     each directory (see chooseSurvivors);
//   - the changes of a file's size after some point in their order;
//   - any sectors of written bytes, so that writes are torn and a later one may be
//     there without an earlier one. Lost bytes that the file has grown by are zeros.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.crashLocked(rng)
}

func (m *Mem) crashLocked(rng *rand.Rand) *Mem {
	entries := map[*node]map[string]*node{} // the entries of directories that differ from durable
	of := func(n *node) map[string]*node {
		if entries[n] == nil {
			entries[n] = maps.Clone(n.durable)
		}
		return entries[n]
	}
	for _, op := range chooseSurvivors(rng, m.ops) {
		for _, e := range op {
			e.applyTo(of)
		}
	}
	after := m.emptyLocked()
	files := map[*node]*node{} // by the node before the crash: a file may have several names
	var grow func(n *node) *node
	grow = func(n *node) *node {
		if f := files[n]; f != nil {
			f.file.links++
			return f
		}
		if n.file != nil {
			img := n.file.crashImage(rng)
			c := &content{live: img, disk: img.clone(), taken: max(min(n.file.taken, img.size), int64(len(img.b))), links: 1}
			after.avail -= c.taken
			files[n] = &node{file: c}
			return files[n]
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

// KillClone returns the file system as the next start finds it after a kill -9 at this
// moment: it has all changes, synced or not, and a later Crash of the clone may lose
// those that are not. Locks and open files are gone. If rng is not nil, and the last
// change was a write, that write is cut at a random byte, as if the process had been
// killed in it. Pass nil if the write has returned to the code under test.
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
				t.file.cutLastWrite(l, rng.IntN(l.n+1))
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

// emptyLocked returns an empty file system of the same size.
func (m *Mem) emptyLocked() *Mem {
	after := NewMem()
	after.avail, after.total = m.total, m.total
	return after
}

// chooseSurvivors chooses which changes of directories survive. In half of the outcomes
// all changes up to some point do, as on a file system that has one journal (ext4, XFS).
// In the other half each directory has a point of its own: after a lost change all later
// changes of the directory are lost, too. A rename is kept or lost as a whole, and is a
// change of both directories.
func chooseSurvivors(rng *rand.Rand, ops []dirOp) []dirOp {
	if rng.IntN(2) == 0 {
		return ops[:choosePrefix(rng, len(ops))]
	}
	loss := [...]float64{0.05, 0.3, 0.7}[rng.IntN(3)]
	frozen := map[*node]bool{}
	var kept []dirOp
	for _, op := range ops {
		lost := rng.Float64() < loss
		for _, n := range op.directories() {
			lost = lost || frozen[n]
		}
		if !lost {
			kept = append(kept, op)
			continue
		}
		for _, n := range op.directories() {
			frozen[n] = true
		}
	}
	return kept
}

// directories are the directories that a change concerns. A directory that is moved or
// made is one of them, since it might end up inside of itself otherwise.
func (op dirOp) directories() []*node {
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

// choosePrefix chooses how many of n changes survive. It often chooses all or none, which
// show most mistakes.
func choosePrefix(rng *rand.Rand, n int) int {
	switch rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return n
	default:
		return rng.IntN(n + 1)
	}
}

// crashImage returns one outcome of a power cut for the file's bytes.
func (c *content) crashImage(rng *rand.Rand) image {
	img := c.disk.clone()
	if len(c.pending) == 0 {
		return img
	}
	sizes := choosePrefix(rng, len(c.pending)) // how many changes of the size survive
	keep := [...]float64{0, 0.5, 0.9, 1}[rng.IntN(4)]
	t := &tornImage{img: &img, frozen: map[int64]bool{}, barrier: unlimited}
	size, live := c.disk.size, c.disk.size
	for i, ch := range c.pending {
		end := ch.off + int64(len(ch.data))
		switch {
		case ch.data != nil:
			live = max(live, end)
			if i < sizes {
				size = max(size, end)
			}
			t.writeSectors(ch, func() bool { return rng.Float64() < keep })
		case i < sizes:
			t.cutTo(ch.off)
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

// tornImage is a file's image to which a crash writes some sectors and not others.
type tornImage struct {
	img     *image
	frozen  map[int64]bool // sectors that later writes do not change, since an earlier one was lost
	barrier int64          // bytes from here on are not written, since an earlier truncation was lost
}

// writeSectors writes a change sector by sector, as far as survives chooses.
func (t *tornImage) writeSectors(c change, survives func() bool) {
	for off, data := c.off, c.data; len(data) > 0 && off < t.barrier; {
		n := min(int64(len(data)), sector-off%sector, t.barrier-off)
		if s := off / sector; !t.frozen[s] {
			if survives() {
				t.img.writeBytes(off, data[:n])
			} else {
				t.frozen[s] = true
			}
		}
		off, data = off+n, data[n:]
	}
}

// cutTo cuts the image, after which lost sectors beyond the size no longer matter.
func (t *tornImage) cutTo(size int64) {
	t.img.resize(size)
	maps.DeleteFunc(t.frozen, func(s int64, _ bool) bool { return s*sector >= size })
}

// cutLastWrite undoes the file's last write except for its first n bytes.
func (c *content) cutLastWrite(l *lastWrite, n int) {
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
