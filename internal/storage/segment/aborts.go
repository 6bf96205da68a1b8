package segment

import (
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/transaction"
	"github.com/leatstream/leat/internal/vfs"
)

// ErrNoAborts is returned for a segment whose file of aborted transactions is missing, damaged, or
// not complete. It must be built again.
var ErrNoAborts = errors.New("the index of aborted transactions cannot be used")

// SaveAborts writes the file of a segment's aborted transactions, whose markers lie below the offset
// upTo. stable is the first offset of a transaction that was open there, or upTo. If the file is
// complete up to a later offset it stays. For a segment that is no part of the log any more nothing is
// written, since its offsets may be given again. If sync is true its bytes are durable when SaveAborts
// returns; the caller syncs the directory.
func SaveAborts(g *Segment, list []transaction.Abort, upTo, stable record.Offset, sync bool) error {
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	if has := g.aborts.Load(); g.isDiscarded || has != nil && has.UpTo > upTo {
		return nil
	}
	err := inDir(g, func() error {
		return g.files.replaceFile(g.Path(TxnSuffix), transaction.Encode(list, upTo, stable), sync)
	})
	if err == nil {
		g.aborts.Store(&transaction.Summary{UpTo: upTo, Stable: stable, Count: len(list)})
	}
	return err
}

// FindAborts finds the aborted transactions with markers in the segment that have records from an
// offset on and below another one. The file must be complete up to the offset upTo. The summary says
// where the search may end. The error is ErrNoAborts if the file cannot be used.
func FindAborts(g *Segment, from, upper, upTo record.Offset) (found []transaction.Abort, s transaction.Summary, err error) {
	if has := g.aborts.Load(); has != nil && has.Count == 0 && has.UpTo >= upTo {
		return nil, *has, nil
	}
	var f vfs.File
	err = inDir(g, func() error {
		f, err = g.files.openFile(g.Path(TxnSuffix), vfs.ReadOnly)
		return err
	})
	if errors.Is(err, vfs.ErrNotExist) && !errors.Is(err, ErrReplaced) {
		return nil, s, fmt.Errorf("%w: it is missing", ErrNoAborts)
	}
	if err != nil {
		return nil, s, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if s, err = checkAborts(g, f); err != nil {
		return nil, s, err
	}
	if s.UpTo < upTo {
		return nil, s, fmt.Errorf("%w: it ends at %d of %d", ErrNoAborts, s.UpTo, upTo)
	}
	found, err = transaction.ReadIndex(f, s.Count, from, upper)
	if errors.Is(err, transaction.ErrIndex) { // it was cut since it was checked
		err = fmt.Errorf("%w: %w", ErrNoAborts, err)
	}
	return found, s, err
}

// checkAborts checks the file if it was not checked before, and returns its summary. A file that was
// replaced meanwhile is checked again at the next use.
func checkAborts(g *Segment, f vfs.File) (transaction.Summary, error) {
	size, err := f.Size()
	if err != nil {
		return transaction.Summary{}, err
	}
	has := g.aborts.Load()
	if has != nil && transaction.Size(has.Count) == size {
		return *has, nil
	}
	s, err := transaction.Check(f, size)
	if errors.Is(err, transaction.ErrIndex) {
		return s, fmt.Errorf("%w: %w", ErrNoAborts, err)
	}
	if err == nil {
		g.aborts.CompareAndSwap(nil, &s)
	}
	return s, err
}

// RemoveAborts removes the file.
func RemoveAborts(g *Segment) error {
	g.indexFiles.Lock()
	defer g.indexFiles.Unlock()
	g.aborts.Store(nil)
	return inDir(g, func() error { return g.files.fs.Remove(g.Path(TxnSuffix)) })
}

// syncAborts makes the file durable if there is one. The caller holds indexFiles.
func syncAborts(g *Segment) error {
	f, err := g.files.openFile(g.Path(TxnSuffix), vfs.Existing)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(g.files.syncFile(f), f.Close())
}
