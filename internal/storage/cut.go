package storage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/storage/epoch"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/storage/transaction"
)

// cuts is what a log knows of its cuts, and of a truncation that is under way.
type cuts struct {
	number atomic.Int32     // of the last cut that the log has made; 0: it has made none; -1: its file is damaged. Changed with Log.mu held
	from   *segment.Segment // guarded by Log.pub: its file, and those of the segments behind it, may be cut already; nil: none is. It stays if the cut fails
}

// Cut has the log end at an offset, as Truncate does, because the metadata of the cluster say so: each cut has a number, which
// is higher than those before it, and the log makes it once. A cut with a number that is not above CutNumber does nothing. What
// lies beyond the offset, also below the high watermark, is kept as a tail (Tails) before anything is cut. When Cut returns
// without an error the log has the number, and the cut and the tail are durable. A log that ends at the offset or before it only
// gets the number. One that begins beyond the offset keeps all its records as the tail, is empty then, and begins with the offset.
//
// After an error, or where the process ends meanwhile, the log is cut or it is as it was, and it does not have the number: the
// caller makes the same cut again, before anything is appended. A cut goes through these states:
//
//	kept         the tail is on disk, with its name
//	cut          the log ends at the offset: see Truncate, whose states these are
//	numbered     the log has the number
//
// ErrDiskFull says that there is no room for the tail, and ErrBusy that the log is in use for something else: nothing was cut.
func (l *Log) Cut(number int32, to record.Offset) error {
	l.compacted.swapping.Lock() // no segment is replaced meanwhile, and there is one cut at a time
	defer l.compacted.swapping.Unlock()
	if made, err := l.CutNumber(); err != nil || number <= made {
		return err
	}
	if err := l.Fault(); err != nil {
		return err
	}
	if to < 0 {
		return fmt.Errorf("%w: a cut at %d", ErrOffsetOutOfRange, to)
	}
	if err := l.compacted.advanceSwap(); err != nil { // an opening that finishes it would undo the cut
		return fmt.Errorf("%w: the log cannot be cut while a compaction of it is not settled: %w", ErrBusy, err)
	}
	if err := admitCuts(&l.s.keeper); err != nil {
		return err
	}
	for range mostCutTries {
		c, err := keepTail(l, number, to)
		if err != nil {
			return err
		}
		if isMade, err := c.makeCut(); isMade || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: records are appended to the log while it is to be cut", ErrBusy)
}

// mostCutTries is how often the records beyond a cut are kept, in case that others are appended meanwhile. Callers append nothing.
const mostCutTries = 4

// CutNumber is the number of the last cut that the log has made; 0: it has made none.
func (l *Log) CutNumber() (int32, error) {
	if err := l.makeUsable(); err != nil {
		return 0, err
	}
	if n := l.cuts.number.Load(); n >= 0 {
		return n, nil
	}
	return 0, l.Fault()
}

// admitCuts makes sure that a checkpoint is on disk which says that logs may have been cut.
func admitCuts(k *keeper) error {
	if k.cuts.isSaved.Load() {
		return nil
	}
	k.cuts.wanted.Store(true)
	k.checkpointNow()
	if !k.cuts.isSaved.Load() {
		return fmt.Errorf("%w: a checkpoint must note first that logs of the data directory were cut, and could not be saved", ErrBusy)
	}
	return nil
}

// cutting is a cut that is to be made, and the limits of the log when its tail was kept.
type cutting struct {
	l      *Log
	number int32
	to     record.Offset
	start  record.Offset
	end    Position
}

// makeCut cuts the log and gives it the cut's number. It does nothing, and isMade is false, if the log's limits have changed since
// the tail was kept.
func (c *cutting) makeCut() (isMade bool, err error) {
	l := c.l
	l.s.keeper.run.Lock() // no checkpoint may vouch for the bytes that are removed
	defer l.s.keeper.run.Unlock()
	l.mu.Lock() // held to the end, since nothing may be appended meanwhile
	defer l.mu.Unlock()
	if err := l.makeUsableLocked(); err != nil {
		return false, err
	}
	if err := l.Fault(); err != nil {
		return false, err
	}
	start := record.Offset(l.start.Load())
	if l.end != c.end || start != c.start {
		return false, nil
	}
	if c.to < start {
		err = restartLocked(l, c.to)
	} else {
		err = truncateLocked(l, c.to)
	}
	if err == nil {
		err = numberCutLocked(l, c.number)
	}
	return err == nil, err
}

// restartLocked takes all records from a log, and has it begin with an offset, which is below its start. It goes through the
// states of Truncate, with journal.Restart as the announcement. The locks of truncateLocked are held.
func restartLocked(l *Log, to record.Offset) error {
	if err := beginTruncationLocked(l); err != nil {
		return err
	}
	if err := l.s.commit.awaitEntered(); err != nil {
		return err
	}
	note := journal.Part{Kind: journal.Restart, ID: l.id, Dir: l.name, Offset: to}
	if err := announceCutLocked(l, note); err != nil {
		return err
	}
	if err := dropRecordsLocked(l, to); err != nil {
		l.taint(fmt.Errorf("beginning anew at offset %d: %w", to, err))
		return l.Fault()
	}
	return endTruncationLocked(l, note)
}

// dropRecordsLocked removes all records of a log, and what is known of them, from memory and, durably, from the disk. mu is held.
func dropRecordsLocked(l *Log, to record.Offset) error {
	l.pub.Lock()
	dropped := append(l.s.keeper.takeDropped(l), l.segs...)
	if len(l.segs) > 0 {
		l.cuts.from = l.segs[0]
	}
	snapshotsAt := l.snapshots.older
	if l.snapshots.newest >= 0 {
		snapshotsAt = append(snapshotsAt, l.snapshots.newest)
	}
	l.segs, l.end, l.stable = nil, Position{Next: to}, Position{}
	l.start.Store(int64(to))
	l.sureStart.Store(int64(to))
	l.commitTo.Store(int64(to))
	l.highWatermark.Store(min(l.highWatermark.Load(), int64(to)))
	l.owed.Store(0)
	l.epochs, l.due.epochs = epoch.List{}, true
	l.txns.view, l.txns.isLoaded = transaction.View{}, true
	l.txns.first.Store(int64(transaction.None))
	l.compacted.upTo, l.compacted.isRead = compact.NoRound, true
	l.snapshots = snapshots{newest: -1, truthTo: to}
	l.oldest = segment.TimeUnknown
	made := l.dirState != dirMissing
	l.pub.Unlock()
	l.opened = checkpoint.UnknownPoint()
	l.opened.ProducersAt = to
	dropWriterLocked(l)
	l.s.points.Restart(l.id, to)
	for _, g := range dropped {
		if err := l.s.keeper.removeSegment(l, g); err != nil {
			return err
		}
	}
	for _, at := range snapshotsAt {
		if err := l.s.fs.Remove(l.dir.Path(segment.FileName(at, snapshotSuffix))); err != nil {
			return err
		}
	}
	if made {
		for _, name := range []string{compactedFile, epoch.FileName} {
			if err := l.s.fs.Remove(l.dir.Path(name)); err != nil {
				return err
			}
		}
		if err := l.s.syncs.syncDir(l.dir.Path()); err != nil {
			return err
		}
	}
	l.pub.Lock()
	l.cuts.from = nil
	l.pub.Unlock()
	return nil
}

// cutNumberFile is the name of the file, in a log's directory, that has the number of the last cut that the log has made. It has
// the version of the file, the number, and a checksum (CRC-32C, hexadecimal) of both, each in a line. A log that has made none has no
// such file.
const cutNumberFile = "cut-number"

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func encodeCutNumber(n int32) []byte {
	b := fmt.Appendf(nil, "1\n%d\n", n)
	return fmt.Appendf(b, "%08x\n", crc32.Checksum(b, crcTable))
}

// errCutNumber says that a file has no number of a cut.
var errCutNumber = errors.New("it is no number of a cut")

func decodeCutNumber(b []byte) (int32, error) {
	lines := strings.Split(string(b), "\n")
	if len(lines) != 4 || lines[0] != "1" || lines[3] != "" {
		return 0, errCutNumber
	}
	n, err := strconv.ParseInt(lines[1], 10, 32)
	if err != nil || n < 1 || string(encodeCutNumber(int32(n))) != string(b) {
		return 0, errCutNumber
	}
	return int32(n), nil
}

// numberCutLocked gives the log the number of a cut that it has made, durably. A log without a directory gets one, since the
// number must be there before its first record. mu is held.
func numberCutLocked(l *Log, number int32) error {
	l.pub.Lock()
	state := l.dirState
	l.pub.Unlock()
	if state == dirMissing {
		if err := l.s.dirs.makeDir(l.name, l.id); err != nil {
			return nameError(err)
		}
		setDirState(l, dirMade)
	}
	err := l.dir.MarkCut(l.s.fs) // should this process be killed, the page cache may show a number that the disk does not have
	if err == nil {
		err = l.dir.Do(func() error {
			if err := l.s.replaceFile(l.dir.Path(cutNumberFile), encodeCutNumber(number), true); err != nil {
				return err
			}
			return l.s.syncLogDir(l.name, state != dirNamed)
		})
	}
	if errors.Is(err, errSync) {
		l.taint(fmt.Errorf("noting cut %d: %w", number, err))
		return l.Fault()
	}
	if err != nil {
		l.s.noteRefusal(err)
		return nameError(err)
	}
	_ = l.dir.UnmarkCut(l.s.fs) // else the next opening makes sure once more
	setDirState(l, dirNamed)
	l.cuts.number.Store(number)
	return nil
}

func setDirState(l *Log, state dirState) {
	l.pub.Lock()
	defer l.pub.Unlock()
	l.dirState = state
}

// readCutNumber reads the number of the last cut. Without it nobody can tell which cuts are to be made, so that a log whose file is
// damaged is read-only.
func (o *opening) readCutNumber() error {
	if !o.hasCutNumber {
		return nil
	}
	l := o.l
	l.s.keeper.cuts.wanted.Store(true) // the checkpoints may be lost that said so
	b, err := l.s.readFile(l.dir.Path(cutNumberFile))
	if err != nil {
		return err
	}
	n, err := decodeCutNumber(b)
	if err != nil {
		l.setFault(&fault{fmt.Errorf("%w: %s is damaged: %w; put back a good copy of the file and restart, or have another log take the place of this one",
			ErrFaulted, l.dir.Path(cutNumberFile), err), faultDamaged})
		n = -1
	}
	l.cuts.number.Store(n)
	return nil
}
