package storage

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/compact"
	"github.com/leatstream/leat/internal/storage/segment"
)

// compacted is what a log knows of its compaction. All but swapping is guarded by Log.pub.
type compacted struct {
	l        *Log       // of which it is a part
	swapping sync.Mutex // held while a swap moves on, and while the log is truncated; before keeper.run
	swap     *swap      // that is decided and not settled; changed with swapping held, too; nil: there is none
	inRound  bool       // a round replaces segments, so that the log's point says nothing of their sizes
	upTo     record.Offset
	isRead   bool  // upTo was read from the file; it is compact.NoRound until then, and if there was no round
	failed   error // why the log is not compacted any more; nil: it is

	tried      error     // why the last round did not end; nil: it did, or there was none since the start
	restsUntil time.Time // no round begins before
	looked     time.Time // when plan was made; zero: never since the start
	plan       compact.Round
	last       RoundReport
}

// RoundReport is what a round of compaction did.
type RoundReport struct {
	At             time.Time // of its end; zero: there was none since the start
	Took           time.Duration
	Before, After  int64 // bytes of the segments that it has read, and of those that have their place
	Records, Kept  int64
	Whole          int64 // batches that keep records which should have gone, since they would have grown
	LeftForAnother bool  // not all keys fitted into memory
}

// swapState is the state of a swap; it never goes back. The first three changes of names are each made durable
// before the next one:
//
//	        the name .swap is    readers see the    old segments'        that is        the files have
//	        durable              new segment        files are removed    durable        their last names
//	decided ---------> durable ----------> published ----------> removed ------> cleared ------------> named
//
// An opening finishes a swap in any of these states. Until its names are durable, no segment of it is cut or removed.
type swapState uint8

const (
	swapDecided swapState = iota
	swapDurable
	swapPublished
	swapRemoved
	swapCleared
	swapNamed
)

// swap replaces neighbouring segments of a log by one.
type swap struct {
	state swapState
	olds  []*segment.Segment
	to    *segment.Segment
}

// isSwapping tells whether a segment, or one before it, is being replaced. pub is held.
func (c *compacted) isSwapping(g *segment.Segment) bool {
	return c.swap != nil && g.Base() >= c.swap.to.Base()
}

// changesSizes tells whether the sizes of segments that checkpoints vouch for may change now. pub is held.
func (c *compacted) changesSizes() bool { return c.inRound || c.swap != nil }

// pendingSwap is the swap that is decided and not settled; nil: there is none.
func (c *compacted) pendingSwap() *swap {
	l := c.l
	l.pub.Lock()
	defer l.pub.Unlock()
	return l.compacted.swap
}

// decideSwap replaces segments by the one that w has written and synced. After an error in which the log has no
// pending swap nothing has changed. The log's swapping is held.
func (c *compacted) decideSwap(w *segment.Swap, olds []*segment.Segment, now int64) error {
	l := c.l
	l.pub.Lock()
	if !l.compacted.hasNeighboursLocked(olds) {
		l.pub.Unlock()
		return errChanged
	}
	l.compacted.swap = &swap{olds: olds, to: w.Segment(now)}
	l.pub.Unlock()
	if err := w.Decide(); err != nil {
		l.pub.Lock()
		l.compacted.swap = nil
		l.pub.Unlock()
		return err
	}
	return l.compacted.advanceSwap()
}

// hasNeighboursLocked tells whether segments are a part of the log, without any other between them. pub is held.
func (c *compacted) hasNeighboursLocked(segs []*segment.Segment) bool {
	l := c.l
	i := slices.Index(l.segs, segs[0])
	return i >= 0 && i+len(segs) <= len(l.segs) && slices.Equal(l.segs[i:i+len(segs)], segs)
}

// advanceSwap settles the swap that is pending, or goes as far as it can. If the disk lacks names that were to be
// durable the log is read-only: only an opening can tell which segments it has. The log's swapping is held.
func (c *compacted) advanceSwap() error {
	l := c.l
	w := l.compacted.pendingSwap()
	if w == nil {
		return nil
	}
	for {
		err := l.compacted.stepSwap(w)
		if classify(err) == gone { // the files are removed with the directory
			l.compacted.endSwap()
			return ErrClosed
		}
		if errors.Is(err, errSync) {
			l.taint(fmt.Errorf("compacting the records from offset %d on: %w", w.to.Base(), err))
		}
		if err != nil {
			return err
		}
		if w.state == swapNamed {
			l.compacted.endSwap()
			return nil
		}
		w.state++
	}
}

// stepSwap takes a swap to its next state, or makes the last one durable.
func (c *compacted) stepSwap(w *swap) error {
	l := c.l
	switch w.state {
	case swapDecided, swapRemoved, swapNamed:
		return l.dir.Do(func() error { return l.s.syncs.syncDir(l.dir.Path()) })
	case swapDurable:
		return l.compacted.publishSwap(w)
	case swapPublished:
		return segment.Clear(l.dir, w.olds)
	case swapCleared:
		return segment.Settle(w.to)
	}
	panic("BUG: a swap has an unknown state")
}

// publishSwap has readers use the new segment. Log.mu is held since an append may be reading the log's producers
// from the old ones.
func (c *compacted) publishSwap(w *swap) error {
	l := c.l
	l.mu.Lock()
	defer l.mu.Unlock()
	return segment.Publish(l.dir, w.olds, func() {
		l.pub.Lock()
		defer l.pub.Unlock()
		i, n := slices.Index(l.segs, w.olds[0]), len(w.olds)
		if i < 0 || !l.compacted.hasNeighboursLocked(w.olds) {
			panic("BUG: segments of a log were removed while they were replaced")
		}
		segs := append(slices.Clone(l.segs[:i]), w.to)
		l.segs = append(segs, l.segs[i+n:]...)
		l.oldest = segment.TimeUnknown // the first record may be another one
	})
}

// endSwap forgets the swap. The next checkpoint counts the log's bytes anew, and drops segments below its start
// that the swap has kept.
func (c *compacted) endSwap() {
	l := c.l
	l.pub.Lock()
	defer l.pub.Unlock()
	l.compacted.swap = nil
	l.listLocked()
}

// compactedFile is the name of the file, in a log's directory, that has the offset up to which the log is compacted:
// "0" and the offset, each in a line. It is a hint: without it, or with another offset, the next round reads more
// of the log, or keeps more of it.
const compactedFile = "compacted-offset"

func encodeCompacted(upTo record.Offset) []byte { return fmt.Appendf(nil, "0\n%d\n", int64(upTo)) }

func decodeCompacted(b []byte) (record.Offset, bool) {
	lines := strings.Split(string(b), "\n")
	if len(lines) != 3 || lines[0] != "0" || lines[2] != "" {
		return compact.NoRound, false
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	return record.Offset(n), err == nil && n >= 0
}

// compactedTo is the offset up to which an open log is compacted; compact.NoRound: it never was.
func (c *compacted) compactedTo() (record.Offset, error) {
	l := c.l
	l.pub.Lock()
	upTo, isRead := l.compacted.upTo, l.compacted.isRead
	l.pub.Unlock()
	if isRead {
		return upTo, nil
	}
	c.swapping.Lock() // a truncation removes the file
	defer c.swapping.Unlock()
	return c.readUpTo()
}

// readUpTo is compactedTo. The log's swapping is held.
func (c *compacted) readUpTo() (record.Offset, error) {
	l := c.l
	l.pub.Lock()
	upTo, isRead := c.upTo, c.isRead
	l.pub.Unlock()
	if isRead {
		return upTo, nil
	}
	b, err := l.s.readFile(l.dir.Path(compactedFile))
	if err != nil {
		return compact.NoRound, err
	}
	if upTo, ok := decodeCompacted(b); ok {
		return c.setUpTo(upTo), nil
	}
	return c.setUpTo(compact.NoRound), nil
}

func (c *compacted) setUpTo(upTo record.Offset) record.Offset {
	l := c.l
	l.pub.Lock()
	defer l.pub.Unlock()
	c.upTo, c.isRead = upTo, true
	return upTo
}

// noteCompacted notes up to which offset the log is compacted. The log's swapping is held.
func (c *compacted) noteCompacted(upTo record.Offset) error {
	l := c.l
	c.setUpTo(upTo)
	return l.dir.Do(func() error { return l.s.replaceFile(l.dir.Path(compactedFile), encodeCompacted(upTo), false) })
}
