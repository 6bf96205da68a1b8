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

// Mem is a file system in memory that knows which changes are durable, so that a test can
// get the state after a crash: see Crash and KillClone.
type Mem struct {
	mu    sync.RWMutex
	root  *node
	ops   []dirOp // the changes of directories that are not durable yet, in order
	avail int64   // bytes that can still be taken; see SetFree
	total int64
	locks map[string]bool // the names of files that are locked
	last  *lastWrite      // the last change, if it was a write; else nil

	handles    int  // files, locks and volumes that are open
	maxHandles int  // see LimitHandles
	detached   bool // between Detach and Attach
	mount      int  // rises with each Attach: an open file of an earlier number is dead
}

// node is a file or a directory. Mem.mu guards it.
type node struct {
	live    map[string]*node // a directory's entries; nil for a file
	durable map[string]*node // the entries that a crash leaves
	file    *content
}

// dirOp is one change of directories, which a crash keeps or loses as a whole.
type dirOp [2]entryOp // a rename removes one entry and sets another; otherwise the second is empty

// entryOp sets a directory's entry, or removes it if to is nil.
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
	_ Linker  = (*Mem)(nil)
	_ Volumer = (*Mem)(nil)
)

func newDir() *node { return &node{live: map[string]*node{}, durable: map[string]*node{}} }

// SetFree leaves room for n more bytes.
func (m *Mem) SetFree(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += n - m.avail
	m.avail = n
}

// LimitHandles sets how many files, locks and volumes may be open at a time. While so
// many are open, calls that open a file or a directory fail with ErrNoHandles and change
// nothing. Such calls are also those that open one for a moment, such as SyncDir.
func (m *Mem) LimitHandles(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maxHandles = n
}

// Handles is how many files, locks and volumes are open.
func (m *Mem) Handles() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.handles
}

// Detach removes the volume from a running system: until Attach every call but Close
// fails with EIO. A real file system may still answer Stat, ReadDir, Size and Free from
// its memory, so no code may depend on an error of these.
func (m *Mem) Detach() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.detached = true
}

// Attach brings a detached volume back, without a restart of the system. The page cache
// is lost: the volume has one outcome of Crash, chosen by rng. Calls of files that were
// open before fail with EIO, and the locks are gone.
func (m *Mem) Attach(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := m.crashLocked(rng)
	m.root, m.ops, m.last = after.root, nil, nil
	m.avail, m.total = after.avail, after.total
	m.locks = map[string]bool{}
	m.detached = false
	m.mount++
}

// admitLocked refuses a call while the volume is detached, and names that are too long.
func (m *Mem) admitLocked(op string, names ...string) error {
	for _, name := range names {
		if m.detached {
			return pathError(op, name, syscall.EIO)
		}
		for _, part := range splitParts(name) {
			if len(part) > maxName {
				return pathError(op, name, syscall.ENAMETOOLONG)
			}
		}
	}
	return nil
}

// admitHandleLocked is admitLocked for a call that opens a file or a directory: it also
// refuses the call while as many are open as may be.
func (m *Mem) admitHandleLocked(op, name string) error {
	if err := m.admitLocked(op, name); err != nil {
		return err
	}
	if m.handles >= m.maxHandles {
		return pathError(op, name, ErrNoHandles)
	}
	return nil
}

// Free returns the space that is left.
func (m *Mem) Free(dir string) (avail, total int64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.admitLocked("statfs", dir); err != nil {
		return 0, 0, err
	}
	if m.lookupLocked(dir) == nil {
		return 0, 0, pathError("statfs", dir, ErrNotExist)
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
		return nil, pathError("open", name, err)
	}
	n.file.handles++
	m.handles++
	return &memFile{m: m, c: n.file, mount: m.mount, name: name, readOnly: mode == ReadOnly}, nil
}

// findLocked finds the file to be opened, or makes it.
func (m *Mem) findLocked(name string, mode Mode) (*node, error) {
	n := m.lookupLocked(name)
	switch {
	case n == nil && (mode == Create || mode == Fresh || mode == Secret):
		dir, base := splitBase(name)
		parent := m.lookupLocked(dir)
		if parent == nil {
			return nil, ErrNotExist
		}
		if parent.live == nil {
			return nil, syscall.ENOTDIR
		}
		n = &node{file: &content{links: 1}}
		m.changeDirsLocked(dirOp{{parent, base, n}})
	case n == nil:
		return nil, ErrNotExist
	case n.file == nil:
		return nil, syscall.EISDIR
	case mode == Fresh || mode == Secret:
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
	dir, base := splitBase(name)
	parent := m.lookupLocked(dir)
	if parent == nil || parent.live[base] == nil {
		return nil
	}
	if len(parent.live[base].live) > 0 { // to empty a directory, it must be opened
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
	m.changeDirsLocked(dirOp{{parent, name, nil}})
}

// Rename moves a file or directory.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.admitLocked("rename", from, to); err != nil {
		return err
	}
	fromDir, fromBase := splitBase(from)
	toDir, toBase := splitBase(to)
	src, dst := m.lookupLocked(fromDir), m.lookupLocked(toDir)
	if src == nil || dst == nil || src.live[fromBase] == nil {
		return pathError("rename", from, ErrNotExist)
	}
	n, old := src.live[fromBase], dst.live[toBase]
	switch {
	case dst.live == nil:
		return pathError("rename", to, syscall.ENOTDIR)
	case old == n:
		return nil
	case n.live != nil && strings.HasPrefix(cleanPath(to)+"/", cleanPath(from)+"/"):
		return pathError("rename", to, syscall.EINVAL)
	case old != nil && (old.live == nil) != (n.live == nil):
		return pathError("rename", to, fs.ErrExist)
	case old != nil && len(old.live) > 0:
		return pathError("rename", to, syscall.ENOTEMPTY)
	}
	m.changeDirsLocked(dirOp{{src, fromBase, nil}, {dst, toBase, n}})
	return nil
}

// Link gives a file another name.
func (m *Mem) Link(name, another string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.admitLocked("link", name, another); err != nil {
		return err
	}
	toDir, toBase := splitBase(another)
	n, dst := m.lookupLocked(name), m.lookupLocked(toDir)
	switch {
	case n == nil || dst == nil:
		return pathError("link", name, ErrNotExist)
	case n.file == nil:
		return pathError("link", name, syscall.EPERM)
	case dst.live == nil:
		return pathError("link", another, syscall.ENOTDIR)
	case dst.live[toBase] != nil:
		return pathError("link", another, fs.ErrExist)
	}
	n.file.links++
	m.changeDirsLocked(dirOp{{dst, toBase, n}})
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
	for _, name := range splitParts(dir) {
		if at.live == nil {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		if at.live[name] == nil {
			m.changeDirsLocked(dirOp{{at, name, newDir()}})
		}
		at = at.live[name]
	}
	if at.live == nil {
		return pathError("mkdir", dir, syscall.ENOTDIR)
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
		return nil, pathError("readdir", dir, ErrNotExist)
	}
	if n.live == nil {
		return nil, pathError("readdir", dir, syscall.ENOTDIR)
	}
	infos := make([]Info, 0, len(n.live))
	for _, name := range slices.Sorted(maps.Keys(n.live)) {
		infos = append(infos, n.live[name].describe(name))
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
		return Info{}, pathError("stat", name, ErrNotExist)
	}
	_, base := splitBase(name)
	return n.describe(base), nil
}

// SyncDir makes the changes of one directory durable. If a rename is among them, the
// earlier changes of the other directory become durable, too.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.admitHandleLocked("fsync", dir); err != nil {
		return err
	}
	n := m.lookupLocked(dir)
	if n == nil {
		return pathError("fsync", dir, ErrNotExist)
	}
	if n.live == nil {
		return pathError("fsync", dir, syscall.ENOTDIR)
	}
	for _, op := range m.takeOpsLocked(n) {
		for _, e := range op {
			e.applyTo(func(n *node) map[string]*node { return n.durable })
		}
	}
	return nil
}

// takeOpsLocked removes the changes of one directory that are not durable from m.ops, and
// returns them. If a rename is among them, the earlier changes of the other directory are,
// too.
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

// loseDirOps changes a directory as Linux does after a sync of it that failed: its changes
// are seen, but no later sync makes them durable.
func (m *Mem) loseDirOps(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.lookupLocked(dir); n != nil {
		m.takeOpsLocked(n)
	}
}

// Volume returns the whole file system as one volume.
func (m *Mem) Volume(dir string) (*Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.admitHandleLocked("open", dir); err != nil {
		return nil, err
	}
	m.handles++
	mount, closed := m.mount, false
	return &Volume{
		sync: func() error { return m.syncVolume(mount) },
		close: func() error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if closed {
				return pathError("close", dir, fs.ErrClosed)
			}
			closed = true
			m.handles--
			return nil
		},
	}, nil
}

// syncVolume makes all changes durable; mount is the value of m.mount when the volume
// was opened.
func (m *Mem) syncVolume(mount int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.detached || m.mount != mount {
		return pathError("syncfs", "/", syscall.EIO)
	}
	m.eachFileLocked(m.root, func(c *content) { c.makeDurable(m) })
	for _, op := range m.ops {
		for _, e := range op {
			e.applyTo(func(n *node) map[string]*node { return n.durable })
		}
	}
	m.ops = nil
	return nil
}

// eachFileLocked calls fn for each file.
func (m *Mem) eachFileLocked(n *node, fn func(c *content)) {
	if n.file != nil {
		fn(n.file)
	}
	for _, child := range n.live {
		m.eachFileLocked(child, fn)
	}
}

// loseAllPending loses the changes of all files, as after a sync of the whole file system
// that failed. The next Sync of each such file fails, too.
func (m *Mem) loseAllPending() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eachFileLocked(m.root, func(c *content) {
		if len(c.pending) > 0 {
			c.losePending(m)
			c.unreportedFailure = true
		}
	})
}

// Lock takes the lock on the named file.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.openLocked(name, Create)
	if err != nil {
		return nil, err
	}
	if m.locks[cleanPath(name)] {
		f.closed.Store(true)
		f.releaseLocked()
		return nil, pathError("lock", name, ErrLocked)
	}
	m.locks[cleanPath(name)] = true
	return memLock{f}, nil
}

// memLock is the open file that holds a lock.
type memLock struct{ f *memFile }

func (l memLock) Close() error {
	if l.f.closed.Swap(true) {
		return pathError("close", l.f.name, fs.ErrClosed)
	}
	l.f.m.mu.Lock()
	defer l.f.m.mu.Unlock()
	if l.f.mount == l.f.m.mount {
		delete(l.f.m.locks, cleanPath(l.f.name))
	}
	l.f.releaseLocked()
	return nil
}

// changeDirsLocked changes the live directories, and adds the change to those that are
// not durable.
func (m *Mem) changeDirsLocked(op dirOp) {
	for i, e := range op {
		if e.dir == nil {
			continue
		}
		if old := e.dir.live[e.name]; old != nil && old.file != nil && (i == 1 || op[1].dir == nil) {
			old.file.links-- // not for the first half of a rename, which keeps the file under its new name
			m.reclaimLocked(old.file)
		}
		e.applyTo(func(n *node) map[string]*node { return n.live })
	}
	m.ops = append(m.ops, op)
	m.last = nil
}

// applyTo makes the change in the entries that of returns for its directory.
func (e entryOp) applyTo(of func(*node) map[string]*node) {
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
	for _, p := range splitParts(name) {
		if at = at.live[p]; at == nil {
			return nil
		}
	}
	return at
}

func (n *node) describe(name string) Info {
	if n.file == nil {
		return Info{Name: name, Dir: true}
	}
	return Info{Name: name, Size: n.file.live.size}
}

func cleanPath(name string) string { return strings.Trim(path.Clean("/"+filepath.ToSlash(name)), "/") }

func splitParts(name string) []string {
	if name = cleanPath(name); name != "" {
		return strings.Split(name, "/")
	}
	return nil
}

func splitBase(name string) (dir, base string) {
	dir, base = path.Split(cleanPath(name))
	return dir, base
}

// pathError makes the error of a call for a path, as the os package does.
func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: translateError(err)}
}
