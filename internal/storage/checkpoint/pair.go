package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"

	"github.com/leatstream/leat/internal/vfs"
)

// room is the space that a file takes from the start, in bytes, so that there is room for
// the next checkpoint on a full disk.
const room = 32 << 10

// maxFile bounds the bytes of a file that is read: points of ten million logs.
const maxFile = 1 << 30

// Disk is where the files are, and how they are made durable.
type Disk struct {
	FS      vfs.FS
	Dir     string
	Log     *slog.Logger
	Sync    func(vfs.File) error
	SyncDir func(dir string) error // it does not succeed after it failed, but for a lack of descriptors
	IsFull  func(error) bool

	generation uint64 // the largest that any file of the directory may have, over all pairs
}

// Pair is two files that are written in turn and in place, so that one of them is always
// whole and a full disk has room for the other.
type Pair struct {
	disk *Disk
	name string
	next int     // which of the two is written next
	made [2]bool // they are there, with room
}

// errUnreadable says that a file is there, but that its bytes cannot be read.
var errUnreadable = errors.New("a checkpoint file cannot be read")

// NewPair names a pair of files.
func NewPair(disk *Disk, name string) *Pair { return &Pair{disk: disk, name: name} }

func (p *Pair) path(i int) string { return path.Join(p.disk.Dir, p.name+"-"+string("ab"[i])) }

// Load reads the two files; nil: there is none, or it is not whole. The newest is durable
// when Load returns: the last bytes that a killed process wrote may not have been. A file
// that cannot be read is an error unless the other one is whole.
func (p *Pair) Load() (newest, older *Sheet, err error) {
	var raw []byte
	var unreadable error
	at := 0
	for i := range 2 {
		b, err := p.read(p.path(i), maxFile)
		if errors.Is(err, errUnreadable) {
			p.disk.Log.Error("a checkpoint file cannot be read", "file", p.path(i), "err", err)
			p.made[i], unreadable = true, errors.Join(unreadable, err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if b == nil {
			continue
		}
		p.made[i] = true
		s, err := Decode(b)
		if errors.Is(err, ErrNewer) || errors.Is(err, ErrOlder) {
			return nil, nil, err
		}
		if err != nil {
			// One of the two is being written when the power goes: that is no damage.
			p.disk.Log.Info("a checkpoint file is not whole", "file", p.path(i), "err", err)
			continue
		}
		p.disk.generation = max(p.disk.generation, s.Generation)
		older = s
		if newest == nil || newest.Generation < s.Generation {
			newest, older, raw, at = s, newest, b, i
		}
	}
	if newest == nil {
		return nil, nil, unreadable
	}
	p.next = 1 - at
	return newest, older, p.writeAgain(at, raw)
}

// WereSaved tells, after Load, whether a save has succeeded at some time: the second file is
// made only then.
func (p *Pair) WereSaved() bool { return p.made[0] && p.made[1] }

// Look returns the newest sheet as Load would, nil where none is whole, and refuses the
// versions that Load would refuse. It changes nothing.
func (p *Pair) Look() (newest *Sheet, err error) {
	for i := range 2 {
		b, err := p.read(p.path(i), maxFile)
		if b == nil && err == nil || errors.Is(err, errUnreadable) {
			continue // Load judges that
		}
		if err != nil {
			return nil, err
		}
		s, err := Decode(b)
		if errors.Is(err, ErrNewer) || errors.Is(err, ErrOlder) {
			return nil, err
		}
		if err == nil && (newest == nil || newest.Generation < s.Generation) {
			newest = s
		}
	}
	return newest, nil
}

// writeAgain writes a file once more and makes it durable, since an earlier sync of it
// may have failed. These are the same bytes, so the file stays whole whatever happens.
func (p *Pair) writeAgain(i int, raw []byte) error {
	f, err := p.disk.FS.Open(p.path(i), vfs.Existing)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(raw, 0); err == nil {
		err = p.disk.Sync(f)
	}
	return errors.Join(err, f.Close(), p.disk.SyncDir(p.disk.Dir))
}

// read reads a file up to a limit in bytes; nil: it is missing.
func (p *Pair) read(name string, limit int64) ([]byte, error) {
	f, err := p.disk.FS.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(n, limit))
	got, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return b[:got], nil
}

// Save writes the sheet into the older one of the two files, durably. A save that fails may
// have written all of it, so its generation is used up.
func (p *Pair) Save(s *Sheet) error {
	p.disk.generation++
	s.Generation = p.disk.generation
	f, err := p.disk.FS.Open(p.path(p.next), vfs.Create)
	if err != nil {
		return err
	}
	if !p.made[p.next] {
		if err := f.Allocate(0, room); err != nil && !p.disk.IsFull(err) {
			return errors.Join(err, f.Close())
		}
	}
	if _, err = f.WriteAt(s.Encode(), 0); err == nil {
		err = p.disk.Sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if !p.made[p.next] {
		if err := p.disk.SyncDir(p.disk.Dir); err != nil {
			return err
		}
		p.made[p.next] = true
	}
	p.next = 1 - p.next
	return nil
}

// MakeNamesDurable has the next saves make the names of the files durable once more.
func (p *Pair) MakeNamesDurable() { p.made = [2]bool{} }
