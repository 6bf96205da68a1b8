package storage

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/journal"
	"github.com/leatstream/leat/internal/storage/segment"
)

const (
	// syncEach is the least number of bytes for each log of a round for which a sync of the
	// logs' files is cheaper than a second write of the bytes, into the journal.
	syncEach = 1 << 20
	// syncAlone is the same number for a round with one log. With fewer bytes the journal is
	// faster: the file system has to commit the new size and blocks of a file that grew, which
	// costs as much as the bytes do (BenchmarkCommit/logs=1).
	syncAlone = 192 << 10
	// maxImage is the largest number of bytes that a round keeps in memory for the journal; a
	// round with more is made durable by syncs of the files.
	maxImage = 16 << 20
)

// committer makes appends durable, in rounds: all appends that come during one round are part
// of the next. There are no timers. A round writes the new bytes of all logs into the journal
// and syncs it, or, if few files have many bytes, syncs these files.
//
// The next round begins when the bytes of the present one are durable, while its callbacks
// run: so the disk works while answers are written (BenchmarkCommitConcurrent).
type committer struct {
	s    *Store
	kick chan struct{} // size 1: a loop has a round to run
	// end is closed when the loops are to end. They run until every log is closed: who holds a
	// log, as Truncate does, may wait for a round that only a loop runs.
	end   chan struct{}
	loops sync.WaitGroup

	mu          sync.Mutex
	ended       sync.Cond // a round has ended
	coming      *round    // guarded by mu: the next round, which appends enter
	spare       []*round  // guarded by mu: rounds to be used again
	peak        int       // guarded by mu: the largest image since relax
	notes       []*note   // guarded by mu: notes for the coming round
	running     bool      // guarded by mu: a round is under way or handed to a loop
	again       bool      // guarded by mu: another one must follow it
	callingBack int       // guarded by mu: rounds that have ended and still call back
	begun       int64     // guarded by mu: the number of rounds that began
	done        int64     // guarded by mu: the number of rounds that ended
	stopped     bool      // guarded by mu: the store is closing

	journalLost atomic.Bool // the loss of the journal was logged
}

// committers is the number of goroutines that run rounds: one may run the callbacks of a round
// while the other one runs the next round.
const committers = 2

// round is one group commit. Its slices are used again and again.
type round struct {
	number int64         // guarded by committer.mu until the round begins
	shares []share       // guarded by committer.mu until the round begins
	image  journal.Image // guarded by committer.mu until the round begins
	files  bool          // guarded by committer.mu until the round begins: the image is not complete
	notes  []*note       // guarded by committer.mu until the round begins, and when it ends
}

// note is a part of the journal that records a change of a log, and the note's state:
//
//	pending ----> written    it is durable
//	   |--------> refused    the journal had no room for all of its write: no recovery acts on it
//	   +--------> unknown    the journal was lost: a recovery may find it or not
type note struct {
	part  journal.Part
	state noteState // guarded by committer.mu
}

type noteState uint8

const (
	notePending noteState = iota
	noteWritten
	noteRefused
	noteUnknown
)

// entered is the round that a log has entered last, and its index in round.shares.
type entered struct {
	round int64
	slot  int
}

// share is the part of a round that belongs to one log.
type share struct {
	l     *Log
	first *segment.Segment // that was written to
	to    record.Offset    // what the round makes durable; -1: it failed to
	bytes int64
}

func (c *committer) init(s *Store) {
	c.s = s
	c.kick, c.end = make(chan struct{}, 1), make(chan struct{})
	c.ended.L = &c.mu
	c.coming = &round{number: 1}
}

// enterRound adds bytes to the coming round that were appended to a log's segment at pos, up to
// the log's end. The log's pub is held.
func (c *committer) enterRound(l *Log, g *segment.Segment, pos int64, bufs [][]byte, n int64, end record.Offset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.coming
	if l.entered.round != r.number {
		l.entered = entered{r.number, len(r.shares)}
		r.shares = append(r.shares, share{l: l, first: g})
	}
	e := &r.shares[l.entered.slot]
	e.to = end
	e.bytes += n
	switch {
	case r.files:
	case r.image.Bytes()+n > maxImage:
		r.files = true
		r.image.Reset()
	default:
		p := journal.Part{Kind: journal.Bytes, ID: l.id, Dir: l.name, Base: g.Base(), Pos: pos}
		r.image.Add(p, bufs, c.s.journal.RoundSize)
	}
}

// commitEntered runs a round with everything that has entered, or has another goroutine run it.
func (c *committer) commitEntered() {
	c.mu.Lock()
	switch {
	case c.running:
		c.again = true
	case c.stopped || len(c.coming.shares) == 0 && len(c.notes) == 0:
	case c.callingBack > 0: // the caller may be what is called back: its stack must not grow
		c.running = true
		c.kick <- struct{}{} // it has room: nothing runs
	default:
		c.running = true
		r := c.beginRoundLocked()
		c.mu.Unlock()
		c.finishRound(r, c.makeRoundDurable(r))
		return
	}
	c.mu.Unlock()
}

// start starts the loops.
func (c *committer) start() {
	for range committers {
		c.loops.Go(c.runRounds)
	}
}

// runRounds runs the rounds that follow others.
func (c *committer) runRounds() {
	for {
		select {
		case <-c.kick:
		case <-c.end:
			return
		}
		c.mu.Lock()
		r := c.beginRoundLocked()
		c.mu.Unlock()
		c.finishRound(r, c.makeRoundDurable(r))
	}
}

// stop ends the loops when every log is closed, and runs a last round.
func (c *committer) stop() {
	c.mu.Lock()
	c.stopped = true // nothing is handed to a loop from here on
	c.mu.Unlock()
	close(c.end)
	c.loops.Wait()
	c.mu.Lock()
	for c.running && len(c.kick) == 0 || c.callingBack > 0 { // an inline round may still be under way
		c.ended.Wait()
	}
	c.running = true
	r := c.beginRoundLocked()
	c.mu.Unlock()
	c.finishRound(r, c.makeRoundDurable(r))
}

// beginRoundLocked takes the coming round and makes the one after it. mu is held.
func (c *committer) beginRoundLocked() *round {
	c.again = false
	c.begun++
	r, next := c.coming, new(round)
	if n := len(c.spare); n > 0 {
		next, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	next.number = r.number + 1
	// If this round syncs files the next one probably will, too: its bytes are not copied.
	next.files = r.prefersFiles(c.s.cfg.SyncAlone)
	r.files = r.files || next.files || r.hasDebts()
	if r.files {
		r.image.Reset()
	}
	c.peak = max(c.peak, r.image.FirstRound())
	c.coming = next
	r.notes = append(r.notes, c.notes...)
	for _, n := range c.notes {
		r.image.Add(n.part, nil, c.s.journal.RoundSize)
	}
	clear(c.notes)
	c.notes = c.notes[:0]
	return r
}

// shrinkImages frees the memory of images that are much larger than the recent ones.
func (c *committer) shrinkImages() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.spare {
		r.image.Shrink(c.peak)
	}
	c.peak = 0
}

// prefersFiles tells whether syncs of the files are cheaper than the journal.
func (r *round) prefersFiles(alone int64) bool {
	n, bytes := int64(len(r.shares)), int64(0)
	for i := range r.shares {
		bytes += r.shares[i].bytes
	}
	return n == 1 && bytes >= alone || n > 0 && bytes/n >= syncEach
}

// hasDebts tells whether an earlier round has failed to make bytes of one of the logs durable.
// The journal must not have later bytes of a log whose earlier ones a power cut may lose.
func (r *round) hasDebts() bool {
	for i := range r.shares {
		if r.shares[i].l.owed.Load() != 0 {
			return true
		}
	}
	return false
}

// makeRoundDurable makes a round durable, and returns the state of its notes.
func (c *committer) makeRoundDurable(r *round) noteState {
	state := notePending
	if !r.image.Empty() {
		state = c.writeImage(&r.image)
	}
	if r.files || state != noteWritten {
		r.syncShares()
	}
	return state
}

// writeImage writes a round into the journal.
func (c *committer) writeImage(m *journal.Image) noteState {
	err := c.s.journal.Write(m)
	switch {
	case err == nil:
		return noteWritten
	case !errors.Is(err, journal.ErrLost):
		return noteRefused
	}
	if c.journalLost.CompareAndSwap(false, true) {
		c.s.log.Error("the journal cannot be written any more: each commit syncs its files; restart when the disk is mended", "err", err)
	}
	return noteUnknown
}

// finishRound ends the round, has a loop run the next one if there is to be one, and calls back
// the logs whose committed ends have moved.
func (c *committer) finishRound(r *round, noted noteState) {
	for i := range r.shares {
		if e := &r.shares[i]; e.to < 0 || !e.l.moveCommitted(e.to) {
			e.l = nil // nothing moved
		}
	}
	c.mu.Lock()
	c.done++
	c.callingBack++
	for _, n := range r.notes {
		n.state = noted
	}
	if c.again && !c.stopped {
		c.kick <- struct{}{} // it has room: only this round could fill it
	} else {
		c.running = false
	}
	c.ended.Broadcast()
	c.mu.Unlock()
	for i := range r.shares {
		if l := r.shares[i].l; l != nil {
			l.committed(l)
		}
	}
	clear(r.shares)
	clear(r.notes)
	r.shares, r.notes, r.files = r.shares[:0], r.notes[:0], false
	r.image.Reset()
	c.mu.Lock()
	c.callingBack--
	c.spare = append(c.spare, r)
	c.ended.Broadcast()
	c.mu.Unlock()
}

// moveCommitted notes that the log is durable up to an offset, and tells whether that has moved
// the committed end. It never moves that of a tainted log.
func (l *Log) moveCommitted(to record.Offset) bool {
	l.pub.Lock()
	defer l.pub.Unlock()
	return !l.isTainted() && to <= l.end.Next && l.moveCommittedLocked(to)
}

// syncShares makes a round durable by syncs of its files. Many are synced at the same time, so
// that they share the file system's commits.
func (r *round) syncShares() {
	runParallel(len(r.shares), func(i int) {
		e := &r.shares[i]
		var err error
		if e.l.owed.Load() != 0 {
			err = e.l.syncFiles()
		} else {
			err = e.l.syncFrom(e.first)
		}
		if err != nil {
			e.l.owed.Store(int64(e.to))
			e.to = -1
			e.l.s.handleSyncError(e.l, err)
			return
		}
		e.l.clearDebt(e.to)
	})
}

// syncFiles makes everything durable in the log's own files that was written before, also below a
// start that is in memory only: a power cut may take that start back. A recovery then begins with
// the segments that wait for their removal, and would end the log at the first torn one.
func (l *Log) syncFiles() error {
	segs := l.segments()
	if len(segs) == 0 {
		return nil
	}
	if err := l.syncFrom(segs[0]); err != nil {
		return err
	}
	for _, g := range findDropped(l) {
		if synced, _ := g.Synced(); synced == g.Size() {
			continue
		}
		if err := g.Sync(); err != nil && slices.Contains(findDropped(l), g) { // else it was removed meanwhile, since its start is durable
			return err
		}
	}
	return nil
}

// findDropped finds the segments of a log that wait for their removal.
func findDropped(l *Log) (segs []*segment.Segment) {
	k := &l.s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.dropped {
		if d.l == l {
			segs = append(segs, d.g)
		}
	}
	return segs
}

// syncFrom makes a segment and those after it durable, and their names.
func (l *Log) syncFrom(first *segment.Segment) error {
	l.pub.Lock()
	segs, isNew := l.segs, l.dirState != dirNamed
	l.pub.Unlock()
	i := max(slices.Index(segs, first), 0)
	names := isNew
	for _, g := range segs[i:] {
		synced, named := g.Synced()
		if synced < g.Size() {
			if err := g.Sync(); err != nil && l.hasSegment(g) { // else retention took it meanwhile
				return err
			}
		}
		names = names || !named
	}
	if !names {
		return nil
	}
	if err := l.dir.Do(func() error { return l.s.syncLogDir(l.name, isNew) }); err != nil {
		return err
	}
	for _, g := range segs[i:] {
		g.SetNamed()
	}
	if isNew {
		l.pub.Lock()
		l.dirState = dirNamed
		l.pub.Unlock()
	}
	return nil
}

// clearDebt notes that the log is durable up to an offset.
func (l *Log) clearDebt(to record.Offset) {
	if owed := l.owed.Load(); owed != 0 && owed <= int64(to) {
		l.owed.CompareAndSwap(owed, 0)
	}
}

// handleSyncError handles a log that a commit could not make durable. If another try can help,
// a checkpoint syncs the files again, and commits them.
func (s *Store) handleSyncError(l *Log, err error) {
	switch classify(err) {
	case none, gone:
	case full, transient:
		s.keeper.checkpointSoon()
	case tainted:
		if logState(l.state.Load()) != logDeleted {
			l.taint(err)
		}
	}
}

const (
	fewFiles = 8 // so many files are synced one after the other
	syncers  = 8 // so many goroutines sync more files
)

// runParallel calls fn with 0 to n-1, on several goroutines if n is large.
func runParallel(n int, fn func(i int)) {
	if n <= fewFiles {
		for i := range n {
			fn(i)
		}
		return
	}
	runParallelOn(syncers, n, fn)
}

// runParallelOn calls fn with 0 to n-1 on a number of goroutines.
func runParallelOn(goroutines, n int, fn func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(goroutines, n) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				fn(int(i))
			}
		})
	}
	all.Wait()
}

var (
	// errNoteRefused says that the journal does not have a note.
	errNoteRefused = errors.New("the journal has no room for a note")
	// errNoteUnknown says that it is unknown whether the journal has a note.
	errNoteUnknown = errors.New("the journal was lost with a note")
)

// putNote makes a note durable before it returns.
func (c *committer) putNote(p journal.Part) error { return c.awaitNote(c.addNote(p)) }

// addNote puts a note into the coming round, whose number it returns. A log's pub may be held.
func (c *committer) addNote(p journal.Part) (n *note, round int64) {
	n = &note{part: p}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, n)
	return n, c.begun + 1
}

// awaitNote waits until the round with a note has ended.
func (c *committer) awaitNote(n *note, round int64) error {
	if err := c.awaitRound(round); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n.state {
	case notePending, noteWritten:
		return nil
	case noteRefused:
		return errNoteRefused
	case noteUnknown:
	}
	return errNoteUnknown
}

// awaitEntered waits until all rounds that have begun have ended, and the coming one if anything
// has entered it.
func (c *committer) awaitEntered() error {
	c.mu.Lock()
	need := c.begun
	if len(c.coming.shares) > 0 || len(c.notes) > 0 {
		need++
	}
	c.mu.Unlock()
	return c.awaitRound(need)
}

// awaitRound waits until the round with a number has ended.
func (c *committer) awaitRound(need int64) error {
	c.commitEntered()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.done < need && !c.stopped {
		c.ended.Wait()
	}
	if c.done < need {
		return ErrClosed
	}
	return nil
}
