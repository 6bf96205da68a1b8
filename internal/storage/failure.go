package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/leatstream/leat/internal/storage/producer"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/space"
	"github.com/leatstream/leat/internal/vfs"
)

var (
	// ErrOffsetOutOfRange is returned for a read below the log's start or beyond its end.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrOutOfOrderSequence is returned for a batch whose producer sequence does not follow.
	ErrOutOfOrderSequence = producer.ErrOutOfOrderSequence
	// ErrProducerFenced is returned for a batch with an older producer epoch than one seen before.
	ErrProducerFenced = producer.ErrFenced
	// ErrCoordinatorFenced is returned for a marker of an older transaction coordinator than one seen before.
	ErrCoordinatorFenced = producer.ErrCoordinatorFenced
	// ErrTransactionState is returned for a batch that is not part of its producer's open
	// transaction, and which no Claim says to be verified.
	ErrTransactionState = producer.ErrTransactionState
	// ErrDiskFull is returned for an append that would use the reserved space; nothing was stored.
	ErrDiskFull = space.ErrFull
	// ErrBusy is returned if the system is short of something for a moment, such as file
	// descriptors or memory. Nothing was stored, and the same call may succeed later.
	ErrBusy = errors.New("the system is short of files or memory")
	// ErrUnprepared is an ErrBusy for batches of transactions, until a checkpoint that is under way says that the store has some.
	ErrUnprepared = fmt.Errorf("%w: a checkpoint must note first that the data directory has transactions; try again", ErrBusy)
	// ErrFaulted is returned by a log that is read-only because its files are damaged, or a write
	// or a sync failed. It stays so until the cause is mended and the node is restarted.
	ErrFaulted = errors.New("log is read-only after a fault")
	// ErrClosed is returned by a closed or deleted log.
	ErrClosed = errors.New("log is closed")
)

// errLeaving is returned by a log that has no directory yet, and must not make one while something
// is left of a deleted log of its identity.
var errLeaving = fmt.Errorf("%w: something is left of a deleted log with the same identity", ErrBusy)

// errSync is returned if a sync failed. It never counts as a full disk or a busy system, since
// trying again does not help.
var errSync = errors.New("sync failed")

// failure is the kind of a file system error. It decides what the store does:
//
//	transient  the same call is made again later, and no log becomes read-only
//	full       records are refused with an error after which clients try again, until there is room
//	gone       the log was deleted or closed, so nobody waits for the result
//	tainted    the disk may lack bytes that were written: the log is read-only until a restart
type failure uint8

const (
	none failure = iota
	transient
	full
	gone
	tainted
)

// classify finds the kind of an error. No other function may tell file system errors apart.
func classify(err error) failure {
	switch {
	case err == nil:
		return none
	case errors.Is(err, errSync), errors.Is(err, segment.ErrTainted):
		return tainted
	case errors.Is(err, ErrClosed), errors.Is(err, segment.ErrGone):
		return gone
	case errors.Is(err, vfs.ErrNoSpace), errors.Is(err, ErrDiskFull):
		return full
	case errors.Is(err, ErrBusy), errors.Is(err, segment.ErrManyReaders), errors.Is(err, vfs.ErrNoHandles),
		errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return transient
	default:
		return tainted
	}
}

func isFull(err error) bool { return classify(err) == full }

// IsFull tells whether an error says that there is no room for what was to be written.
func IsFull(err error) bool { return err != nil && isFull(err) }

// nameError wraps an error of the file system in the error that callers can act on.
func nameError(err error) error {
	switch classify(err) {
	case full:
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case transient:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case gone:
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case none, tainted:
	}
	return err
}

// After a failed sync the kernel counts the file's pages as clean although the disk does not have
// them. Reads return these pages, and later syncs report no error, even to the next process. So
// this process does not rely on the file any more. The next process on the same kernel trusts only
// the bytes that a checkpoint had vouched for; it writes all others again before it syncs them. A
// note in the data directory tells it to do so.
const noteFile = "sync-failed"

// syncs makes files and directories durable, and remembers when that fails.
type syncs struct {
	s      *Store
	failed atomic.Bool // a sync failed
	// distrust says that a sync failed in an earlier process on this kernel. It is set before
	// anything else runs.
	distrust bool
	// note is the open file of the note, and has room for it, since after a failed sync there may
	// be neither space nor descriptors. It is nil if the file could not be made.
	note vfs.File

	mu   sync.Mutex
	lost map[string]error // guarded by mu: directories of which a sync failed, with the error
}

func (y *syncs) syncFile(f vfs.File) error {
	if err := f.Sync(); err != nil {
		return y.noteFailure(err)
	}
	return nil
}

// syncDir makes the names in a directory durable. It returns vfs.ErrNotExist if the directory is
// missing. A sync can be tried again only if it did not begin, for want of a descriptor. After any
// other failure a later sync would not report the names that are lost, so the directory cannot be
// synced any more.
func (y *syncs) syncDir(dir string) error {
	if err := y.lostDir(dir); err != nil {
		return err
	}
	err := y.s.fs.SyncDir(dir)
	switch {
	case err == nil:
		return y.lostDir(dir) // another sync may have failed meanwhile
	case errors.Is(err, vfs.ErrNotExist), errors.Is(err, vfs.ErrNoHandles):
		return err
	}
	err = y.noteFailure(err)
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.lost == nil {
		y.lost = map[string]error{}
	}
	y.lost[dir] = err
	return err
}

// lostDir is the error of an earlier sync of the directory. It is nil if none has failed.
func (y *syncs) lostDir(dir string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.lost[dir]
}

// noteFailure remembers that a sync failed, and writes the note for the next process.
func (y *syncs) noteFailure(err error) error {
	if !y.failed.Swap(true) {
		if err := y.writeNote(y.s.cfg.BootID); err != nil {
			y.s.log.Error("a failed sync could not be noted; restart the machine before the next start", "err", err)
		}
	}
	return fmt.Errorf("%w: %v", errSync, err) //nolint:errorlint // it must not be taken for a full disk
}

// allSynced is in the note if no sync has failed.
const allSynced = "none"

// noteLen is the length of the note's file in bytes: a boot id, a newline, and spaces.
const noteLen = 128

func (y *syncs) writeNote(boot string) error {
	if y.note == nil {
		return errors.New("there was no room for the note")
	}
	b := []byte(boot + "\n" + strings.Repeat(" ", max(noteLen-1-len(boot), 0)))
	_, err := y.note.WriteAt(b, 0)
	return err
}

// readNote finds out whether an earlier process on this kernel left the note, and prepares the file
// for this process's note. A note that was cut short counts as one of this kernel, since it does
// not tell which kernel it is from.
func (y *syncs) readNote() error {
	name := y.s.pathOf(noteFile)
	b, err := y.s.readFile(name)
	if err != nil {
		return err
	}
	boot, _, whole := strings.Cut(string(b), "\n")
	y.distrust = len(b) > 0 && (!whole || boot == y.s.cfg.BootID)
	y.failed.Store(y.distrust)
	if y.note, err = y.s.fs.Open(name, vfs.Create); err != nil {
		y.s.log.Warn("a note of failed syncs has no room", "err", err)
		return nil
	}
	boot = allSynced
	if y.distrust {
		boot = y.s.cfg.BootID
	}
	if err := y.writeNote(boot); err != nil {
		y.s.log.Warn("a note of failed syncs has no room", "err", err)
	}
	return nil
}

func (y *syncs) closeNote() {
	if y.note != nil {
		_ = y.note.Close() // the note need not outlive the kernel
	}
}

// faultKind says how much of the log's files can still be trusted.
type faultKind uint8

const (
	faultDamaged    faultKind = iota // a batch has changed; everything else can be relied on, and synced
	faultIncomplete                  // files lack bytes that they had; the log's point stays, so that the next start sees it, too
	faultTainted                     // the disk may lack bytes that were written
)

// fault is the reason why a log is read-only.
type fault struct {
	err  error
	kind faultKind
}

// health says whether a log can be written to. A fault is only replaced by one that says more. It
// is safe for concurrent use.
//
//	sound ----> damaged ----> incomplete ----> tainted
//	  |                           ^              ^
//	  +---------------------------+--------------+
type health struct {
	log     *slog.Logger
	name    string                  // of the log's directory
	count   *atomic.Int64           // of the faults of all logs of the store
	fault   atomic.Pointer[fault]   // nil: sound
	trouble atomic.Pointer[trouble] // nil: none
}

// use is what a caller did with a log's files.
type use string

const (
	useOpen   use = "open"
	useRead   use = "read"
	useAppend use = "append"
)

// trouble is an error of a log's files that lost nothing: a caller was refused, and the next call
// tries again. Examples are a file that the node may not open, and a write that the system refuses.
type trouble struct {
	use use
	err error
}

// IsRefused tells whether the system refused the last append, or the last try to open the log, for a reason that may end, other than a full
// disk or a busy system. Nothing was lost.
func (h *health) IsRefused() bool {
	t := h.trouble.Load()
	return t != nil && t.use != useRead
}

// IsDamaged tells whether the log has a fault because some of its records were changed or are missing, and the disk did not
// fail, so that another log could take its place.
func (h *health) IsDamaged() bool {
	f := h.fault.Load()
	return f != nil && f.kind != faultTainted
}

// noteUse remembers the error with which a use of the log's files failed, if it is one that nothing
// else tells the operator of. A success of the same use ends the trouble. Both are logged once.
func (h *health) noteUse(u use, err error) {
	old := h.trouble.Load()
	if err == nil {
		if old != nil && old.use == u && h.trouble.CompareAndSwap(old, nil) {
			h.log.Info("a log can be used again", "log", h.name)
		}
		return
	}
	if classify(err) != tainted || errors.Is(err, ErrFaulted) || h.isFaulted() {
		return
	}
	next := &trouble{u, err}
	if h.trouble.CompareAndSwap(old, next) && (old == nil || old.err.Error() != err.Error()) {
		h.log.Error("the files of a log cannot be used, and clients are refused until that is mended, which needs no restart",
			"log", h.name, "use", string(u), "err", err)
	}
}

// faults has the faults of logs that were found before the logs were opened. It is safe for
// concurrent use.
type faults struct {
	count atomic.Int64 // of those that logs have reported since the start

	mu   sync.Mutex
	logs map[LogID]*fault // guarded by mu
}

func (f *faults) set(id LogID, why *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logs == nil {
		f.logs = map[LogID]*fault{}
	}
	f.logs[id] = why
}

// get is the fault of a log, or nil if none was found.
func (f *faults) get(id LogID) *fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logs[id]
}

func (f *faults) forget(id LogID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.logs, id)
}

// taint makes the log read-only until a restart, since the disk may lack bytes that were written.
// Its records can still be read.
func (h *health) taint(err error) { h.setFault(newTaint(err)) }

func newTaint(err error) *fault {
	return &fault{fmt.Errorf("%w: %w", ErrFaulted, err), faultTainted}
}

// reportLoss makes the log read-only because its files lack bytes that they had.
func (h *health) reportLoss(format string, args ...any) { h.setFault(newLoss(format, args...)) }

func newLoss(format string, args ...any) *fault {
	return &fault{fmt.Errorf("%w: %w; put back a good copy of what is missing and restart, or copy the records that can be read and delete the topic",
		ErrFaulted, fmt.Errorf(format, args...)), faultIncomplete}
}

// reportDamage makes the log read-only because a batch has changed. It returns an error that tells
// the operator which file to mend. Records that were appended before are still made durable.
func (h *health) reportDamage(g *segment.Segment, err error) error {
	err = fmt.Errorf("%w: %s is damaged: %w; put back a good copy of the file and restart, "+
		"or copy the records that can be read and delete the topic", ErrFaulted, g.Path(segment.LogSuffix), err)
	h.setFault(&fault{err, faultDamaged})
	return err
}

// setFault makes a fault the log's, unless the log has one of the same kind or of one that says more.
func (h *health) setFault(f *fault) {
	for {
		old := h.fault.Load()
		if old != nil && old.kind >= f.kind {
			return
		}
		if h.fault.CompareAndSwap(old, f) {
			h.count.Add(1)
			h.log.Error("a log is read-only from now on; mend the disk and restart, or delete the topic",
				"log", h.name, "err", f.err)
			return
		}
	}
}

// isFaulted tells whether the log is read-only.
func (h *health) isFaulted() bool { return h.fault.Load() != nil }

// isIncomplete tells whether the log's files lack bytes that they had.
func (h *health) isIncomplete() bool {
	f := h.fault.Load()
	return f != nil && f.kind == faultIncomplete
}

// isTainted tells whether the log's files may lack bytes that were written to them. If so, the
// log's point must not change.
func (h *health) isTainted() bool {
	f := h.fault.Load()
	return f != nil && f.kind >= faultIncomplete
}

// LogFault says why a log cannot be used as it should.
type LogFault struct {
	Log  string // the topic and partition, as in the name of the log's directory
	Kind LogFaultKind
	Err  error
}

// LogFaultKind is the kind of a LogFault.
type LogFaultKind uint8

// Kinds of faults. A log is read-only with the first two, until a restart.
const (
	LogDamaged LogFaultKind = iota // a batch has changed or is missing
	LogTainted                     // the disk may lack bytes that were written
	LogRefused                     // its files could not be opened, read or written when a client last tried
)

// CountFaults counts the faults that logs have reported since the start. So their owner learns of one that no
// call of his has met: a sync in the background, or a scrub, has found it.
func CountFaults(s *Store) int64 { return s.faults.count.Load() }

// Faults lists the logs that are known to have a fault. Missing and short files are found soon
// after the start (Sweep), other damage when a log is used or scrubbed, and refusals when a
// client meets them.
func (s *Store) Faults() (found []LogFault) {
	for _, l := range s.allLogs() {
		f := l.fault.Load()
		if f == nil {
			f = s.faults.get(l.id) // of a log that was not opened yet
		}
		t := l.trouble.Load()
		switch {
		case f != nil && f.kind == faultTainted:
			found = append(found, LogFault{l.name, LogTainted, f.err})
		case f != nil:
			found = append(found, LogFault{l.name, LogDamaged, f.err})
		case t != nil:
			found = append(found, LogFault{l.name, LogRefused, t.err})
		}
	}
	return found
}

// Fault is the reason why the log is read-only. It is nil if the log can be written to.
func (h *health) Fault() error {
	if f := h.fault.Load(); f != nil {
		return f.err
	}
	return nil
}
