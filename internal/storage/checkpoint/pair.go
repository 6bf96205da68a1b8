package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"

	"github.com/leatstream/leat/internal/vfs"
)

// room is the number of bytes that are allocated to a file when it is made, so that a full disk
// has room for the next checkpoint.
const room = 32 << 10

// maxFile is the largest size of a file that is read; points of ten million logs fit.
const maxFile = 1 << 30

// Disk is the directory of the files, and the functions that make them durable.
type Disk struct {
	FS      vfs.FS
	Dir     string
	Log     *slog.Logger
	Sync    func(vfs.File) error
	SyncDir func(dir string) error // once it has failed it always fails, unless it lacked descriptors
	IsFull  func(error) bool

	generation uint64 // the highest that a file of any pair in the directory may have
}

// Pair is two files that are written in turn and in place, so that one of them is always
// whole, and a full disk has room for the other. One goroutine at a time may use the pairs of
// a Disk.
type Pair struct {
	disk *Disk
	name string
	next int     // the index of the file that is written next
	made [2]bool // the file exists, with room, and its name is durable
}

// errUnreadable says that a file exists and its bytes cannot be read.
var errUnreadable = errors.New("a checkpoint file cannot be read")

// NewPair makes the pair of the files name-a and name-b.
func NewPair(disk *Disk, name string) *Pair { return &Pair{disk: disk, name: name} }

func (p *Pair) pathOf(i int) string { return path.Join(p.disk.Dir, p.name+"-"+string("ab"[i])) }

// Load reads the two files; nil: there is none, or it is not whole. It makes the newest one
// durable, since the last bytes that a killed process has written may not be. It returns an
// error if no file is whole and one cannot be read.
func (p *Pair) Load() (newest, older *Sheet, err error) {
	var raw []byte
	var unreadable error
	at := 0
	for i := range 2 {
		b, err := p.readFile(p.pathOf(i), maxFile)
		if errors.Is(err, errUnreadable) {
			p.disk.Log.Error("a checkpoint file cannot be read", "file", p.pathOf(i), "err", err)
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
			// A power cut can leave one of the two partly written: that is no damage.
			p.disk.Log.Info("a checkpoint file is not whole", "file", p.pathOf(i), "err", err)
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

// WereSaved tells, after Load, whether a save has ever succeeded: the second file is made only
// after that.
func (p *Pair) WereSaved() bool { return p.made[0] && p.made[1] }

// Look returns the newest sheet, nil if none is whole, and the errors of Load for other
// versions. It changes nothing on disk or in the Pair.
func (p *Pair) Look() (newest *Sheet, err error) {
	for i := range 2 {
		b, err := p.readFile(p.pathOf(i), maxFile)
		if b == nil && err == nil || errors.Is(err, errUnreadable) {
			continue // Load reports an unreadable file
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

// writeAgain writes the same bytes to a file again and makes it durable, since an earlier sync
// of it may have failed. The file is whole at any moment.
func (p *Pair) writeAgain(i int, raw []byte) error {
	f, err := p.disk.FS.Open(p.pathOf(i), vfs.Existing)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(raw, 0); err == nil {
		err = p.disk.Sync(f)
	}
	return errors.Join(err, f.Close(), p.disk.SyncDir(p.disk.Dir))
}

// readFile reads a file up to a limit in bytes; nil: it is missing.
func (p *Pair) readFile(name string, limit int64) ([]byte, error) {
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
// have written all of the file, so its generation is never used again.
func (p *Pair) Save(s *Sheet) error {
	p.disk.generation++
	s.Generation = p.disk.generation
	f, err := p.disk.FS.Open(p.pathOf(p.next), vfs.Create)
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

// MakeNamesDurable has the next saves make the names of the files durable again.
func (p *Pair) MakeNamesDurable() { p.made = [2]bool{} }
