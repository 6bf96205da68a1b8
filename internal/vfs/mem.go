package vfs

import (
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
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

	handles    int  // files, locks and volumes that are open
	maxHandles int  // see LimitHandles
	away       bool // between Detach and Attach
	mount      int  // rises with each Attach: an open file of an earlier number is dead
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

// maxName is how many bytes the name of a file or directory may have, as on ext4.
const maxName = 255

// NewMem returns an empty file system of unlimited size.
func NewMem() *Mem {
	return &Mem{root: newDir(), avail: unlimited, total: unlimited, locks: map[string]bool{}, maxHandles: math.MaxInt}
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

// LimitHandles lets at most n files, locks and volumes be open at a time from now
// on. While there are as many, calls that open a file or a directory, also for a
// moment as SyncDir does, fail with ErrNoHandles and change nothing.
func (m *Mem) LimitHandles(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maxHandles = n
}

// Handles tells how many files, locks and volumes are open.
func (m *Mem) Handles() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.handles
}

// Detach tears the volume away from a system that runs on: from now on every call
// fails with EIO, until Attach; Close alone succeeds. A real file system may go on to answer
// Stat, ReadDir, Size and Free from its memory, so nothing may rest on those failing.
func (m *Mem) Detach() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = true
}

// Attach brings a volume back that was torn away, to the same run of the system:
// the page cache is lost, and the volume holds one outcome of Crash, chosen by rng.
// All that was open is dead: its calls fail with EIO, and its locks are gone.
func (m *Mem) Attach(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := m.crashLocked(rng)
	m.root, m.ops, m.last = after.root, nil, nil
	m.avail, m.total = after.avail, after.total
	m.locks = map[string]bool{}
	m.away = false
	m.mount++
}

// admitLocked refuses a call while the volume is away, and names that no file
// system takes.
func (m *Mem) admitLocked(op string, names ...string) error {
	for _, name := range names {
		if m.away {
			return fail(op, name, syscall.EIO)
		}
		for _, part := range parts(name) {
			if len(part) > maxName {
				return fail(op, name, syscall.ENAMETOOLONG)
			}
		}
	}
	return nil
}

// admitHandleLocked refuses a call that needs a handle where none is left, too.
func (m *Mem) admitHandleLocked(op, name string) error {
	if err := m.admitLocked(op, name); err != nil {
		return err
	}
	if m.handles >= m.maxHandles {
		return fail(op, name, ErrNoHandles)
	}
	return nil
}

// Free tells the space left.
func (m *Mem) Free(dir string) (avail, total int64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.admitLocked("statfs", dir); err != nil {
		return 0, 0, err
	}
	if m.lookupLocked(dir) == nil {
		return 0, 0, fail("statfs", dir, ErrNotExist)
	}
	return max(m.avail, 0), m.total, nil
}

// Open opens a file.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.openLocked(name, mode)
}

func (m *Mem) openLocked(name string, mode Mode) (*memFile, error) {
	if err := m.admitHandleLocked("open", name); err != nil {
		return nil, err
	}
	n, err := m.findLocked(name, mode)
	if err != nil {
		return nil, fail("open", name, err)
	}
	n.file.handles++
	m.handles++
	return &memFile{m: m, c: n.file, mount: m.mount, name: name, readOnly: mode == ReadOnly}, nil
}

// findLocked finds the file to be opened, or makes it.
func (m *Mem) findLocked(name string, mode Mode) (*node, error) {
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
	if err := m.admitLocked("remove", name); err != nil {
		return err
	}
	dir, base := split(name)
	parent := m.lookupLocked(dir)
	if parent == nil || parent.live[base] == nil {
		return nil
	}
	if len(parent.live[base].live) > 0 { // it has to be opened to be emptied
		if err := m.admitHandleLocked("remove", name); err != nil {
			return err
		}
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
	if err := m.admitLocked("rename", from, to); err != nil {
		return err
	}
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
	if err := m.admitLocked("mkdir", dir); err != nil {
		return err
	}
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
	if err := m.admitHandleLocked("readdir", dir); err != nil {
		return nil, err
	}
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
	if err := m.admitLocked("stat", name); err != nil {
		return Info{}, err
	}
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
	if err := m.admitHandleLocked("fsync", dir); err != nil {
		return err
	}
	n := m.lookupLocked(dir)
	if n == nil {
		return fail("fsync", dir, ErrNotExist)
	}
	if n.live == nil {
		return fail("fsync", dir, syscall.ENOTDIR)
	}
	for _, op := range m.takeOpsLocked(n) {
		for _, e := range op {
			e.apply(func(n *node) map[string]*node { return n.durable })
		}
	}
	return nil
}

// takeOpsLocked takes out the changes of one directory that are not durable, and the earlier
// ones that they rest on.
func (m *Mem) takeOpsLocked(n *node) (taken []dirOp) {
	tied := map[*node]bool{n: true}
	keep := make([]bool, len(m.ops))
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
		} else {
			taken = append(taken, op)
		}
	}
	m.ops = left
	return taken
}

// loseDir is what becomes of a directory whose sync failed: its changes are seen, and no
// later sync makes them durable.
func (m *Mem) loseDir(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.lookupLocked(dir); n != nil {
		m.takeOpsLocked(n)
	}
}

// Volume is all of the file system.
func (m *Mem) Volume(dir string) (*Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.admitHandleLocked("open", dir); err != nil {
		return nil, err
	}
	m.handles++
	mount, closed := m.mount, false
	return &Volume{
		sync: func() error { return m.syncAll(mount) },
		close: func() error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if closed {
				return fail("close", dir, fs.ErrClosed)
			}
			closed = true
			m.handles--
			return nil
		},
	}, nil
}

func (m *Mem) syncAll(mount int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away || m.mount != mount {
		return fail("syncfs", "/", syscall.EIO)
	}
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
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.openLocked(name, Create)
	if err != nil {
		return nil, err
	}
	if m.locks[clean(name)] {
		f.closed.Store(true)
		f.releaseLocked()
		return nil, fail("lock", name, ErrLocked)
	}
	m.locks[clean(name)] = true
	return memLock{f}, nil
}

// memLock is the open file that holds a lock.
type memLock struct{ f *memFile }

func (l memLock) Close() error {
	if l.f.closed.Swap(true) {
		return fail("close", l.f.name, fs.ErrClosed)
	}
	l.f.m.mu.Lock()
	defer l.f.m.mu.Unlock()
	if l.f.mount == l.f.m.mount {
		delete(l.f.m.locks, clean(l.f.name))
	}
	l.f.releaseLocked()
	return nil
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
	return &fs.PathError{Op: op, Path: name, Err: named(err)}
}
