package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// The functions in this file are for who wants to see what cuts have kept, and for who discards it. A tail is discarded in these states, of
// which none has a part of it that is taken for all:
//
//	kept ----> renamed ----> renamed, durably ----> gone
//
// A call that comes after a failure, or after a crash, goes on where the one before has ended.

// ErrNoTail says that a log has no tail of that cut.
var ErrNoTail = errors.New("the log has no tail of that cut")

// Tails lists the tails of a log, the oldest cut first. If some cannot be read the others are listed, and the error says why.
func Tails(l *Log) (list []Tail, err error) {
	made, err := l.CutNumber()
	if err != nil {
		return nil, err
	}
	all, err := listTails(l.s, l.id)
	for _, t := range all {
		if t.Number <= made { // else its cut is to be made again
			list = append(list, t)
		}
	}
	return list, err
}

// listTails lists the tails that a log has on disk, also one of a cut that the log has not made.
func listTails(s *Store, id LogID) (list []Tail, err error) {
	dir := s.tails.get(id)
	if dir == "" {
		return nil, nil
	}
	infos, err := s.fs.ReadDir(s.pathOf(dir))
	if errors.Is(err, vfs.ErrNotExist) {
		return nil, nil
	}
	for _, i := range infos {
		if !isTailName(i.Name) {
			continue
		}
		t, failed := readTailOf(s, dir, i.Name)
		if failed == nil {
			list = append(list, t)
		} else if !errors.Is(failed, ErrNoTail) {
			err = failed
		}
	}
	return list, err
}

// TailLogs lists the logs that may have tails, in no order. They may be other ones than the store's: a replica that has gone to another
// node leaves its tails.
func TailLogs(s *Store) []LogID { return s.tails.listLogs() }

// TailsOf is Tails, of a log that need not be in the store. If its number cannot be told all of its tails are listed, and the error says why.
func TailsOf(s *Store, id LogID) ([]Tail, error) {
	var why error
	if l := s.findLog(id); l != nil {
		_, why = l.CutNumber()
		if why == nil {
			return Tails(l)
		}
	}
	list, err := listTails(s, id)
	return list, cmp.Or(err, why)
}

// CountTails counts the tails of all logs, and their bytes. It reads only the directories in which something has changed since the last call.
func CountTails(s *Store) (tails int, bytes int64, err error) {
	for _, id := range s.tails.listLogs() {
		n, size, failed := s.tails.count(s, id)
		tails, bytes, err = tails+n, bytes+size, cmp.Or(failed, err)
	}
	return tails, bytes, err
}

// count counts the tails of a log, and their bytes.
func (d *tailDirs) count(s *Store, id LogID) (tails int, bytes int64, err error) {
	d.mu.Lock()
	dir := d.dirs[id]
	if dir == nil || dir.counted == dir.changes {
		defer d.mu.Unlock()
		if dir == nil {
			return 0, 0, nil
		}
		return dir.tails, dir.bytes, nil
	}
	changes := dir.changes
	d.mu.Unlock()
	list, err := listTails(s, id)
	for i := range list {
		tails, bytes = tails+1, bytes+list[i].Bytes
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		dir.counted, dir.tails, dir.bytes = changes, tails, bytes
	}
	return tails, bytes, err
}

// ReadTail reads bytes of a tail of a log, which need not be in the store, from a position on: batches as they are stored, one after the other. It
// reads as many as dst takes, and fewer only at the end. The caller checks them: a batch may begin before the position or end behind the bytes. The tail
// is one that was listed: ErrNoTail says that it is gone, or that another one has taken its place.
func ReadTail(s *Store, id LogID, listed *Tail, pos int64, dst []byte) (n int, err error) {
	if l := s.findLog(id); l != nil {
		if made, err := l.CutNumber(); err == nil && listed.Number > made {
			return 0, ErrNoTail
		}
	}
	dir := s.tails.get(id)
	if dir == "" || listed.Number < 1 {
		return 0, ErrNoTail
	}
	name := tailName(listed.Number)
	t, err := readTailOf(s, dir, name)
	switch {
	case err != nil:
		return 0, err
	case t.Time != listed.Time || t.Bytes != listed.Bytes:
		return 0, fmt.Errorf("%w: another one has taken its place", ErrNoTail)
	case pos < 0 || pos > t.Bytes:
		return 0, fmt.Errorf("%w: byte %d of a tail of %d", ErrOffsetOutOfRange, pos, t.Bytes)
	}
	for _, f := range t.files {
		if pos >= f.bytes {
			pos -= f.bytes
			continue
		}
		got, err := readTailFile(s, s.pathOf(dir, name, segment.FileName(f.base, segment.LogSuffix)), pos, dst[n:][:min(int64(len(dst)-n), f.bytes-pos)])
		if errors.Is(err, vfs.ErrNotExist) {
			return 0, ErrNoTail
		}
		if err != nil {
			return 0, err
		}
		n, pos = n+got, 0
		if n == len(dst) {
			break
		}
	}
	return n, nil
}

// readTailFile fills dst with the bytes of a file of a tail from a position on.
func readTailFile(s *Store, name string, pos int64, dst []byte) (int, error) {
	f, err := s.fs.Open(name, vfs.ReadOnly)
	if err != nil {
		return 0, nameError(err)
	}
	n, err := vfs.ReadPassing(f, dst, pos)
	_ = f.Close() // it was only read
	if n == len(dst) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errors.New("the file ends early")
	}
	return 0, fmt.Errorf("reading a tail, %s: %w", name, err)
}

// DiscardTail removes the tail of a cut, durably. Who reads it may meet its end early.
func DiscardTail(l *Log, number int32) error {
	l.compacted.swapping.Lock() // no tail is written meanwhile
	defer l.compacted.swapping.Unlock()
	if made, err := l.CutNumber(); err != nil || number > made {
		return cmp.Or(err, ErrNoTail)
	}
	return discardTail(l.s, l.id, number, l.dir.Do)
}

// DiscardTailOf is DiscardTail, of a log that need not be in the store.
func DiscardTailOf(s *Store, id LogID, number int32) error {
	if l := s.findLog(id); l != nil {
		return DiscardTail(l, number)
	}
	s.tails.alone.Lock()
	defer s.tails.alone.Unlock()
	return discardTail(s, id, number, func(fn func() error) error { return fn() })
}

// discardTail removes a tail, or goes on with that. Nobody else changes the tail meanwhile; do runs what changes the directory.
func discardTail(s *Store, id LogID, number int32, do func(func() error) error) error {
	dir := s.tails.get(id)
	if dir == "" || number < 1 {
		return ErrNoTail
	}
	name := s.pathOf(dir, tailName(number))
	_, err := s.fs.Stat(name)
	if err == nil {
		return removeTail(s, id, number, do)
	}
	if !errors.Is(err, vfs.ErrNotExist) {
		return nameError(err)
	}
	switch _, err := s.fs.Stat(name + tailTmp); {
	case errors.Is(err, vfs.ErrNotExist):
		return ErrNoTail
	case err != nil:
		return nameError(err)
	case s.syncs.distrust:
		return fmt.Errorf("%w in an earlier run, so a power cut may bring the tail of cut %d back: restart the machine, and discard it again", errSync, number)
	}
	return nameError(removeRenamed(s, dir, name+tailTmp, do))
}

// removeTail removes a tail, durably. It has another name first, so that no part of it is taken for all. Nobody else changes it meanwhile; do
// runs what changes the directory.
func removeTail(s *Store, id LogID, number int32, do func(func() error) error) error {
	dir := s.tails.get(id)
	name := s.pathOf(dir, tailName(number))
	err := do(func() error {
		if err := s.fs.Remove(name + tailTmp); err != nil {
			return err
		}
		return s.fs.Rename(name, name+tailTmp)
	})
	s.tails.noteChange(id)
	if err == nil {
		err = removeRenamed(s, dir, name+tailTmp, do)
	}
	return nameError(err)
}

// removeRenamed removes a tail that was renamed, once a crash cannot bring its name back.
func removeRenamed(s *Store, dir, name string, do func(func() error) error) error {
	if err := s.syncs.syncDir(s.pathOf(dir)); err != nil {
		return err
	}
	return do(func() error { return s.fs.Remove(name) })
}

// DiscardTailsOf removes the tails of a deleted topic whose logs are not in the store, in the background. Those that cannot be taken away go after the
// next start (Sweep).
func DiscardTailsOf(s *Store, topic [16]byte) {
	for _, id := range s.tails.listLogs() {
		if id.Topic == topic && s.findLog(id) == nil {
			discardTails(s, id)
		}
	}
}

// TailReader reads the batches of a tail, one after the other. It is for one goroutine.
type TailReader struct {
	l     *Log
	dir   string // the path of the tail
	files []tailFile
	in    *segment.Batches // nil: no file is open
}

// OpenTail begins to read the tail of a cut. The caller must close the result.
func OpenTail(l *Log, number int32) (*TailReader, error) {
	list, err := Tails(l)
	i := slices.IndexFunc(list, func(t Tail) bool { return t.Number == number })
	if i < 0 {
		return nil, cmp.Or(err, ErrNoTail)
	}
	return &TailReader{l: l, dir: l.s.pathOf(l.s.tails.get(l.id), tailName(number)), files: list[i].files}, nil
}

// Next returns the next batch, which is verified, and valid until the next call. The error is io.EOF at the end. It may wait for
// work memory; the context ends that.
func (r *TailReader) Next(ctx context.Context) (record.Batch, error) {
	for {
		if r.in == nil {
			if len(r.files) == 0 {
				return nil, io.EOF
			}
			f, err := r.l.s.fs.Open(path.Join(r.dir, segment.FileName(r.files[0].base, segment.LogSuffix)), vfs.ReadOnly)
			if err != nil {
				return nil, nameError(err)
			}
			r.in = segment.ReadBatches(f, r.files[0].bytes)
			r.files = r.files[1:]
		}
		b, err := r.in.Next(ctx, r.l.s.cfg.Work)
		if errors.Is(err, io.EOF) {
			r.Close()
			continue
		}
		if err == nil {
			err = b.Verify()
		}
		if err != nil {
			return nil, fmt.Errorf("reading a tail, %s: %w", r.dir, err)
		}
		return b, nil
	}
}

// Close ends the reading. It may be called twice.
func (r *TailReader) Close() {
	if r.in != nil {
		r.in.Close()
		r.in = nil
	}
}
