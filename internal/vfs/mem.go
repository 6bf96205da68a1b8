package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Mem is a file system in memory that knows what of it is durable, so that a test
// can ask what a crash would leave: see Crash and KillClone.
type Mem struct {
	mu    sync.RWMutex
	root  *node
	ops   []dirOp // not durable yet, in order
	avail int64   // bytes that can still be taken; see SetFree
	total int64
	locks map[string]bool
	last  *lastWrite // nil: the last change was not a write
}

// node is a file or a directory. What it holds is guarded by Mem.mu.
type node struct {
	live    map[string]*node // a directory's entries; nil for a file
	durable map[string]*node // the entries that a crash leaves
	file    *content
}

// dirOp is one change of directories, which happens as a whole or not at all.
type dirOp [2]entryOp // a rename has two halves; else the second is empty

// entryOp sets a directory's entry, or removes it where to is nil.
type entryOp struct {
	dir  *node
	name string
	to   *node
}

const unlimited = math.MaxInt64 / 4

// NewMem returns an empty file system of unlimited size.
func NewMem() *Mem {
	return &Mem{root: newDir(), avail: unlimited, total: unlimited, locks: map[string]bool{}}
}

var (
	_ FS      = (*Mem)(nil)
	_ Locker  = (*Mem)(nil)
	_ Volumer = (*Mem)(nil)
)

func newDir() *node { return &node{live: map[string]*node{}, durable: map[string]*node{}} }

// SetFree leaves n bytes to be written, on top of what is taken now.
func (m *Mem) SetFree(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += n - m.avail
	m.avail = n
}

// Free tells the space left.
func (m *Mem) Free(dir string) (avail, total int64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.lookupLocked(dir) == nil {
		return 0, 0, fail("statfs", dir, ErrNotExist)
	}
	return max(m.avail, 0), m.total, nil
}

// Open opens a file.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.openLocked(name, mode)
	if err != nil {
		return nil, fail("open", name, err)
	}
	n.file.handles++
	return &memFile{m: m, c: n.file, name: name, readOnly: mode == ReadOnly}, nil
}

func (m *Mem) openLocked(name string, mode Mode) (*node, error) {
	n := m.lookupLocked(name)
	switch {
	case n == nil && (mode == Create || mode == Fresh):
		dir, base := split(name)
		parent := m.lookupLocked(dir)
		if parent == nil {
			return nil, ErrNotExist
		}
		if parent.live == nil {
			return nil, syscall.ENOTDIR
		}
		n = &node{file: &content{links: 1}}
		m.doLocked(dirOp{{parent, base, n}})
	case n == nil:
		return nil, ErrNotExist
	case n.file == nil:
		return nil, syscall.EISDIR
	case mode == Fresh:
		m.resizeLocked(n.file, 0)
	}
	return n, nil
}

// Remove deletes a file or a directory tree.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base := split(name)
	parent := m.lookupLocked(dir)
	if parent == nil || parent.live[base] == nil {
		return nil
	}
	m.removeLocked(parent, base)
	return nil
}

func (m *Mem) removeLocked(parent *node, name string) {
	n := parent.live[name]
	for _, child := range slices.Sorted(maps.Keys(n.live)) {
		m.removeLocked(n, child)
	}
	m.doLocked(dirOp{{parent, name, nil}})
}

// Rename moves a file or directory.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fromDir, fromBase := split(from)
	toDir, toBase := split(to)
	src, dst := m.lookupLocked(fromDir), m.lookupLocked(toDir)
	if src == nil || dst == nil || src.live[fromBase] == nil {
		return fail("rename", from, ErrNotExist)
	}
	n, old := src.live[fromBase], dst.live[toBase]
	switch {
	case dst.live == nil:
		return fail("rename", to, syscall.ENOTDIR)
	case old == n:
		return nil
	case n.live != nil && strings.HasPrefix(clean(to)+"/", clean(from)+"/"):
		return fail("rename", to, syscall.EINVAL)
	case old != nil && (old.live == nil) != (n.live == nil):
		return fail("rename", to, fs.ErrExist)
	case old != nil && len(old.live) > 0:
		return fail("rename", to, syscall.ENOTEMPTY)
	}
	m.doLocked(dirOp{{src, fromBase, nil}, {dst, toBase, n}})
	return nil
}

// MkdirAll makes a directory and its missing parents.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.root
	for _, name := range parts(dir) {
		if at.live == nil {
			return fail("mkdir", dir, syscall.ENOTDIR)
		}
		if at.live[name] == nil {
			m.doLocked(dirOp{{at, name, newDir()}})
		}
		at = at.live[name]
	}
	if at.live == nil {
		return fail("mkdir", dir, syscall.ENOTDIR)
	}
	return nil
}

// ReadDir lists a directory.
func (m *Mem) ReadDir(dir string) ([]Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.lookupLocked(dir)
	if n == nil {
		return nil, fail("readdir", dir, ErrNotExist)
	}
	if n.live == nil {
		return nil, fail("readdir", dir, syscall.ENOTDIR)
	}
	infos := make([]Info, 0, len(n.live))
	for _, name := range slices.Sorted(maps.Keys(n.live)) {
		infos = append(infos, n.live[name].info(name))
	}
	return infos, nil
}

// Stat describes a file or directory.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.lookupLocked(name)
	if n == nil {
		return Info{}, fail("stat", name, ErrNotExist)
	}
	_, base := split(name)
	return n.info(base), nil
}

// SyncDir makes the changes of one directory durable, and with them the earlier
// ones that they rest on: those of directories that a rename ties to it.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.lookupLocked(dir)
	if n == nil {
		return fail("fsync", dir, ErrNotExist)
	}
	if n.live == nil {
		return fail("fsync", dir, syscall.ENOTDIR)
	}
	tied := map[*node]bool{n: true}
	keep := make([]bool, len(m.ops)) // false: it becomes durable
	for i, op := range slices.Backward(m.ops) {
		keep[i] = !tied[op[0].dir] && (op[1].dir == nil || !tied[op[1].dir])
		if !keep[i] && op[1].dir != nil {
			tied[op[0].dir], tied[op[1].dir] = true, true
		}
	}
	var left []dirOp
	for i, op := range m.ops {
		if keep[i] {
			left = append(left, op)
			continue
		}
		for _, e := range op {
			e.apply(func(n *node) map[string]*node { return n.durable })
		}
	}
	m.ops = left
	return nil
}

// Volume is all of the file system.
func (m *Mem) Volume(string) (*Volume, error) {
	return &Volume{sync: m.syncAll, close: func() error { return nil }}, nil
}

func (m *Mem) syncAll() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.filesLocked(m.root, func(c *content) { c.sync(m) })
	for _, op := range m.ops {
		for _, e := range op {
			e.apply(func(n *node) map[string]*node { return n.durable })
		}
	}
	m.ops = nil
	return nil
}

// filesLocked calls fn for each file.
func (m *Mem) filesLocked(n *node, fn func(c *content)) {
	if n.file != nil {
		fn(n.file)
	}
	for _, child := range n.live {
		m.filesLocked(child, fn)
	}
}

// loseAll is what becomes of files whose changes could not be written when the
// whole of it was synced: they are lost, and the next Sync of such a file says so.
func (m *Mem) loseAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.filesLocked(m.root, func(c *content) {
		if len(c.pending) > 0 {
			c.lose(m)
			c.failed = true
		}
	})
}

// Lock takes the lock that the named file stands for.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.Open(name, Create)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[clean(name)] {
		return nil, fail("lock", name, ErrLocked)
	}
	m.locks[clean(name)] = true
	return &memLock{File: f, m: m, name: clean(name)}, nil
}

type memLock struct {
	File
	m    *Mem
	name string
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	delete(l.m.locks, l.name)
	l.m.mu.Unlock()
	return l.File.Close()
}

// doLocked changes the live directories and notes the change as not durable.
func (m *Mem) doLocked(op dirOp) {
	for i, e := range op {
		if e.dir == nil {
			continue
		}
		if old := e.dir.live[e.name]; old != nil && old.file != nil && (i == 1 || op[1].dir == nil) {
			old.file.links-- // not for a rename's first half: the file goes on under its new name
			m.reclaimLocked(old.file)
		}
		e.apply(func(n *node) map[string]*node { return n.live })
	}
	m.ops = append(m.ops, op)
	m.last = nil
}

// apply does the change in the set of entries that of returns for its directory.
func (e entryOp) apply(of func(*node) map[string]*node) {
	switch {
	case e.dir == nil:
	case e.to == nil:
		delete(of(e.dir), e.name)
	default:
		of(e.dir)[e.name] = e.to
	}
}

func (m *Mem) lookupLocked(name string) *node {
	at := m.root
	for _, p := range parts(name) {
		if at = at.live[p]; at == nil {
			return nil
		}
	}
	return at
}

func (n *node) info(name string) Info {
	if n.file == nil {
		return Info{Name: name, Dir: true}
	}
	return Info{Name: name, Size: n.file.live.size}
}

func clean(name string) string { return strings.Trim(path.Clean("/"+filepath.ToSlash(name)), "/") }

func parts(name string) []string {
	if name = clean(name); name != "" {
		return strings.Split(name, "/")
	}
	return nil
}

func split(name string) (dir, base string) {
	dir, base = path.Split(clean(name))
	return dir, base
}

func fail(op, name string, err error) error {
	if errors.Is(err, ErrNoSpace) {
		err = &spaceError{err}
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
