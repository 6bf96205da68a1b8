package storage

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// recover makes the directory what it was, as far as it was acknowledged: it reads
// the newest checkpoint and plays back the journal from there. Logs are looked at
// when they are used.
func (s *Store) recover() error {
	dir := s.cfg.Dir
	if _, err := s.fs.Stat(dir); errors.Is(err, vfs.ErrNotExist) {
		if err := s.fs.MkdirAll(dir); err != nil {
			return err
		}
		if err := s.fs.SyncDir(path.Dir(dir)); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	s.space.init(s.fs, dir, s.cfg.Reserve, s.log)
	k := &s.keeper
	hot, older, err := k.checkpoint.load(s)
	if err != nil {
		return err
	}
	base, _, err := k.base.load(s)
	if err != nil {
		return err
	}
	boot := s.cfg.BootID
	if s.distrust, err = s.distrusts(); err != nil {
		return err
	}
	if s.distrust {
		s.log.Warn("a sync failed in the last run: nothing that came after the last checkpoint is trusted")
		boot = ""
	}
	s.volume.open(s)
	s.points.init(base, hot, boot)
	buried := s.tombstones()
	if hot == nil {
		return s.begin(base)
	}
	s.journal = newJournal(s, hot.journal)
	s.journal.known.Store(true)
	s.journal.base.Store(hot.at.number)
	k.previous = hot.at
	if err := s.journal.open(); err != nil {
		return err
	}
	keep := hot.at
	if older != nil && older.journal == hot.journal && older.at.number < hot.at.number {
		if _, err := s.journal.scan(older.at, scanHeads, hot.at.number, func(encodedRound) error { return nil }); err != nil {
			return err
		}
		keep = older.at // should the newest checkpoint rot, recovery begins there
	}
	r := newReplay(s)
	r.deleted = buried
	r.alive = boot != "" && hot.boot == boot
	return s.replay(hot.at, keep, r)
}

// begin starts a directory that has no checkpoint: a new one, or one whose
// checkpoints are lost. In the latter the logs are checked whole as they are used.
func (s *Store) begin(base *sheet) error {
	if base != nil {
		s.log.Error("both checkpoint files are damaged; logs are checked whole at their first use, "+
			"and what only the journal has is lost", "dir", s.cfg.Dir)
	}
	s.journal = newJournal(s, randomID())
	s.journal.number, s.journal.at.number, s.keeper.previous.number = 1, 1, 1
	if err := s.journal.open(); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(s.path(journalDir)); err != nil && !full(err) {
		return err
	}
	// The first checkpoint makes the names in the directory durable, too.
	s.keeper.checkpoint.made = [2]bool{}
	h := sheet{boot: s.cfg.BootID, journal: s.journal.id, at: s.keeper.previous, points: s.points.everything()}
	err := s.keeper.checkpoint.save(s, &h)
	if full(err) {
		s.log.Error("the disk is full: nothing can be written until there is room", "dir", s.cfg.Dir)
		s.keeper.again()
		return nil
	}
	s.journal.known.Store(err == nil)
	return err
}

// tombstones are the logs whose directories were renamed because they were deleted
// or belong to no topic: what the journal has of them must not come back. The
// directories go when a checkpoint has left those rounds behind.
func (s *Store) tombstones() map[LogID]bool {
	buried := map[LogID]bool{}
	infos, err := s.fs.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Warn("the data directory could not be listed", "err", err)
	}
	for _, i := range infos {
		if id, ok := parseAside(i.Name, strayDir); ok && i.Dir {
			buried[id] = true
		}
		id, ok := parseAside(i.Name, deletedDir)
		if ok && i.Dir {
			buried[id] = true
			s.keeper.doom(i.Name)
		}
	}
	return buried
}

// replayedFile is a segment that recovery wrote to.
type replayedFile struct {
	dir  string
	base record.Offset
}

// replay plays the journal back from a checkpoint's mark on; rounds from keep on
// stay in it. Where the kernel lived, the files have everything that was written, and
// only what the journal alone has is taken from it.
func (s *Store) replay(from, keep mark, r *replay) error {
	at, err := r.play(from)
	if err != nil {
		return err
	}
	s.held = r.held
	s.log.Debug("the journal was read", "from", from.number, "keep", keep.number, "to", at.number, "alive", r.alive, "held", len(r.held))
	if err := s.journal.resume(keep, at); err != nil {
		return err
	}
	for id, start := range r.starts {
		if !r.deleted[id] {
			s.points.raise(id, start)
		}
	}
	k := &s.keeper
	k.mu.Lock()
	k.replayed = r.list()
	k.since = time.Now()
	k.redo = k.redo || len(r.held) > 0
	k.mu.Unlock()
	k.retryAt = time.Time{}
	s.freeze(r.lacking)
	if len(r.lacking) > 0 {
		s.journal.pin()
		k.retryAt = time.Now().Add(thawEvery)
		s.log.Error("the disk is too full to recover; the logs that lack records wait for room", "logs", len(r.lacking))
	} else if len(r.written) > 0 {
		k.hasten.Store(true)
		s.log.Info("the journal was played back", "rounds", at.number-from.number, "files", len(r.written))
	}
	return nil
}

const thawEvery = time.Second

// thaw goes on with a recovery that found the disk full.
func (s *Store) thaw() {
	s.keeper.run.Lock()
	from := s.keeper.previous
	s.keeper.run.Unlock()
	r := newReplay(s)
	r.deleted, r.only = s.tombstones(), s.frozenLogs()
	_, err := r.play(from)
	k := &s.keeper
	k.run.Lock()
	defer k.run.Unlock()
	if err != nil || len(r.lacking) > 0 {
		k.retryAt = time.Now().Add(thawEvery)
		return
	}
	k.retryAt = time.Time{}
	k.mu.Lock()
	k.replayed = append(k.replayed, r.list()...)
	k.mu.Unlock()
	s.freeze(nil)
	s.journal.unpin()
	k.hasten.Store(true)
	s.log.Info("there is room again: recovery is complete")
}

// freeze says which logs lack records that only the journal has.
func (s *Store) freeze(logs map[LogID]bool) {
	s.mu.Lock()
	s.lacking = logs
	s.mu.Unlock()
}

func (s *Store) frozenLogs() map[LogID]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lacking
}

func (s *Store) frozen(id LogID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lacking[id] {
		return fmt.Errorf("%w: this log's last records wait in the journal until there is room", ErrDiskFull)
	}
	return nil
}

// syncReplayed makes durable what recovery wrote.
func (s *Store) syncReplayed(files []replayedFile) error {
	if len(files) >= s.cfg.atOnce && s.volume.usable() {
		if err := s.syncVolume(); err == nil {
			return nil
		}
	}
	var dirs []string
	for _, r := range files {
		f, err := s.fs.Open(s.path(r.dir, fileName(r.base, logSuffix)), vfs.Existing)
		if errors.Is(err, vfs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		err = s.sync(f)
		if err != nil {
			s.spoil(r.dir, err)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if n := len(dirs); n == 0 || dirs[n-1] != r.dir {
			dirs = append(dirs, r.dir)
		}
	}
	for _, dir := range dirs {
		if err := s.syncNames(dir, true); err != nil && !errors.Is(err, vfs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// replay is the journal on its way back into the segments.
type replay struct {
	s       *Store
	alive   bool           // the kernel did not stop: bytes that were in files need not be written again
	only    map[LogID]bool // nil: all logs
	deleted map[LogID]bool
	starts  map[LogID]record.Offset
	dirs    map[string]verdict
	files   map[replayedFile]vfs.File
	written map[replayedFile]bool
	lacking map[LogID]bool
	halves  map[uint64]bool // first rounds of writes that have no last one
	began   uint64          // the first round of the write that has no last one yet; 0: there is none
	half    bool            // the round belongs to a write that has none
	needed  bool            // there are bytes in the journal that the files may lack

	held      map[LogID]*heldLog // to be written later
	heldBytes int
	owners    map[string]LogID // of directories in held
	late      bool             // this is later
	eager     bool             // nothing is held any more
}

func newReplay(s *Store) *replay {
	return &replay{
		s: s, dirs: map[string]verdict{}, files: map[replayedFile]vfs.File{}, written: map[replayedFile]bool{},
		lacking: map[LogID]bool{}, halves: map[uint64]bool{}, held: map[LogID]*heldLog{}, owners: map[string]LogID{},
	}
}

// play brings the rounds from a mark on back, and returns where the next one goes.
// After a kill the files have nearly always all of it: then one pass is enough.
func (r *replay) play(from mark) (mark, error) {
	at, err := r.s.journal.scan(from, scanAnew, noRound, r.note)
	if err != nil {
		return at, err
	}
	r.abandon()
	if !r.needed {
		return at, nil
	}
	_, err = r.s.journal.scan(from, scanWhole, noRound, r.apply)
	return at, errors.Join(err, r.close())
}

// fromJournal tells whether a part has bytes that the files may lack.
func (r *replay) fromJournal(h partHead) bool {
	switch h.kind {
	case partBytes:
		return !r.alive
	case partLate:
		return true
	case partLazy:
		return r.s.late.cached && h.start == r.s.late.boot
	case partDelete, partStart, partNone:
	}
	return false
}

// abandon notes that the write that has no last round will never have one.
func (r *replay) abandon() {
	if r.began != 0 {
		r.halves[r.began] = true
	}
	r.began = 0
}

// list are the files written to, in order.
func (r *replay) list() []replayedFile {
	return slices.SortedFunc(maps.Keys(r.written), func(a, b replayedFile) int {
		return cmp.Or(strings.Compare(a.dir, b.dir), cmp.Compare(a.base, b.base))
	})
}

// verdict is whose a directory is.
type verdict struct {
	topic [16]byte
	skip  bool // it is missing though it was there, so it is gone for good
}

// encodedRound is a round that a scan found.
type encodedRound struct {
	number  uint64
	flags   byte
	payload []byte
}

// parts calls fn for each part of a round.
func (e encodedRound) parts(fn func(p encodedPart) error) error {
	for payload := e.payload; len(payload) > 0; {
		p, rest, err := cutPart(payload)
		if err != nil {
			return err
		}
		if err := fn(p); err != nil {
			return err
		}
		payload = rest
	}
	return nil
}

// note is the first pass: it finds out what was deleted later, and which writes
// were never completed. Deletions and starts count in those, too: they happened.
func (r *replay) note(e encodedRound) error {
	if e.flags&flagGoesOn == 0 {
		r.abandon()
		r.began = e.number
	}
	if e.flags&flagFollows == 0 {
		r.began = 0
	}
	return e.parts(func(h encodedPart) error {
		switch h.kind {
		case partDelete:
			r.deleted[h.id] = true
		case partStart:
			if r.starts == nil {
				r.starts = map[LogID]record.Offset{}
			}
			r.starts[h.id] = max(r.starts[h.id], h.start)
		case partBytes, partLate, partLazy, partNone:
			if h.kind == partBytes && r.alive {
				if _, ok := parseDirName(h.dir); !ok {
					return errRound
				}
				r.written[replayedFile{h.dir, h.base}] = true // it may not be on disk
			}
			r.needed = r.needed || r.fromJournal(h.partHead)
		}
		return nil
	})
}

// apply is the second pass.
func (r *replay) apply(e encodedRound) error {
	if e.flags&flagGoesOn == 0 {
		r.half = r.halves[e.number]
	}
	if r.half {
		return nil
	}
	return e.parts(func(h encodedPart) error {
		if !r.fromJournal(h.partHead) || r.deleted[h.id] || r.lacking[h.id] || r.only != nil && !r.only[h.id] {
			return nil
		}
		if _, ok := parseDirName(h.dir); !ok {
			return errRound
		}
		switch {
		case !r.alive:
			return r.bring(h)
		case !r.eager && r.hold(h):
			return nil
		}
		if err := r.release(); err != nil {
			return err
		}
		return r.bring(h)
	})
}

// bring writes a part, unless there is no room.
func (r *replay) bring(h encodedPart) error {
	err := r.write(replayedFile{h.dir, h.base}, h)
	if full(err) {
		r.lacking[h.id] = true
		return nil
	}
	return err
}

func (r *replay) write(key replayedFile, h encodedPart) error {
	ok, err := r.claim(h.partHead)
	if err != nil || !ok {
		return err
	}
	mode := vfs.Create
	if h.pos > 0 {
		mode = vfs.Existing
	}
	f, err := r.open(key, mode)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil // it went with the log's start
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size < h.pos {
		r.s.log.Warn("the journal has bytes of a file that lacks those before them", "log", h.dir,
			"segment", int64(h.base), "at", h.pos, "size", size)
		return nil // what is missing was not acknowledged as durable, or it was deleted
	}
	_, err = f.WriteAt(h.data, h.pos)
	r.written[key] = true
	return err
}

// claim sees to it that the directory is there and the log's own. In the journal
// the order of things is right: a directory of another topic is an older one.
func (r *replay) claim(h partHead) (bool, error) {
	s := r.s
	if v, ok := r.dirs[h.dir]; ok && v.topic == h.id.Topic {
		return !v.skip, nil
	}
	v := verdict{topic: h.id.Topic}
	_, known := s.points.get(h.id)
	_, err := s.fs.Stat(s.path(h.dir))
	switch {
	case errors.Is(err, vfs.ErrNotExist):
		v.skip = known || h.pos > 0
	case err != nil:
		return false, err
	default:
		topic, ok, err := s.owner(h.dir)
		if err != nil {
			return false, err
		}
		if ok && topic == h.id.Topic {
			r.dirs[h.dir] = v
			return true, nil
		}
		switch {
		case known:
		case ok && r.late: // the log was deleted: another one of its name was made since
			v.skip = true
		default:
			if err := r.close(); err != nil { // the files of that name will be others
				return false, err
			}
			if !ok {
				topic = randomID()
			}
			if err := s.stray(h.dir, topic, "the journal has it as another topic's"); err != nil {
				return false, err
			}
		}
	}
	if !v.skip {
		if err := s.makeDir(h.dir, h.id.Topic); err != nil {
			return false, err
		}
	}
	r.dirs[h.dir] = v
	return !v.skip, nil
}

// maxReplayFiles are open during recovery.
const maxReplayFiles = 512

func (r *replay) open(key replayedFile, mode vfs.Mode) (vfs.File, error) {
	if f := r.files[key]; f != nil {
		return f, nil
	}
	if len(r.files) >= maxReplayFiles {
		if err := r.close(); err != nil {
			return nil, err
		}
	}
	f, err := r.s.fs.Open(r.s.path(key.dir, fileName(key.base, logSuffix)), mode)
	if err == nil {
		r.files[key] = f
	}
	return f, err
}

func (r *replay) close() error {
	var err error
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	clear(r.files)
	return err
}

// scanning is what a scan does with the rounds.
type scanning int

const (
	scanHeads scanning = iota // finds out where they are
	scanWhole                 // reads them
	// scanAnew writes them once more, too, so that the next sync makes them durable even
	// if one failed before. These are the same bytes: a round stays whole.
	scanAnew
)

const noRound = math.MaxUint64 // a scan goes on to the last one

// scanner reads rounds.
type scanner struct {
	j     *journal
	how   scanning
	files []*ringFile
	buf   []byte // the round found last
	flags byte   // of its head
	sum   uint32 // the checksum of its head
	size  int64  // of the round
}

// scan calls fn with the rounds from a mark on, up to the last one or before a given
// number, and returns the mark of the next one.
func (j *journal) scan(at mark, how scanning, before uint64, fn func(encodedRound) error) (mark, error) {
	j.mu.Lock()
	sc := &scanner{j: j, how: how, files: slices.Clone(j.files)}
	j.mu.Unlock()
	for at.number < before {
		f, err := sc.find(&at)
		if f == nil || err != nil {
			return at, err
		}
		if err := fn(encodedRound{at.number, sc.flags, sc.buf[roundHead:]}); err != nil {
			return at, err
		}
		j.mu.Lock()
		f.last = max(f.last, at.number)
		j.mu.Unlock()
		at.pos += (sc.size + journalBlock - 1) / journalBlock * journalBlock
		at.number, at.prev = at.number+1, sc.sum
	}
	return at, nil
}

// find reads the round of a mark: where the mark says, or at the beginning of a
// file, which the mark then says. There may be a torn one with the same number,
// too. nil: there is none.
func (sc *scanner) find(at *mark) (*ringFile, error) {
	if at.file < len(sc.files) {
		if ok, err := sc.read(sc.files[at.file], at.pos, at); ok || err != nil {
			return sc.files[at.file], err
		}
	}
	for _, f := range sc.files {
		ok, err := sc.read(f, 0, at)
		if err != nil {
			return nil, err
		}
		if ok {
			at.file, at.pos = f.number, 0
			return f, nil
		}
	}
	return nil, nil
}

// read reads the round at a place; ok is false where it is not the one that at
// names, or not whole, as far as it was read.
func (sc *scanner) read(f *ringFile, pos int64, at *mark) (ok bool, err error) {
	sc.j.mu.Lock()
	file := f.f
	sc.j.mu.Unlock()
	if cap(sc.buf) < roundHead {
		sc.buf = make([]byte, roundHead, 256<<10)
	}
	b := sc.buf[:roundHead]
	if _, err := file.ReadAt(b, pos); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return false, err
	}
	n := int(be.Uint32(b[40:]))
	sc.sum, sc.flags, sc.size = be.Uint32(b[4:]), b[44], int64(roundHead+n)
	if be.Uint32(b[:]) != roundMagic || sc.sum != crc32.Checksum(b[8:], castagnoli) ||
		[16]byte(b[8:24]) != sc.j.id || be.Uint64(b[24:]) != at.number || be.Uint32(b[32:]) != at.prev ||
		n == 0 || n > 2*maxRound {
		return false, nil
	}
	if sc.buf = b; sc.how == scanHeads {
		return true, nil
	}
	sc.buf = slices.Grow(sc.buf, n)[:roundHead+n]
	payload := sc.buf[roundHead:]
	got, err := file.ReadAt(payload, pos+roundHead)
	if got < n && err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if got < n || crc32.Checksum(payload, castagnoli) != be.Uint32(sc.buf[36:]) {
		return false, nil // torn: it was never acknowledged
	}
	if sc.how == scanAnew {
		if _, err := file.WriteAt(sc.buf, pos); err != nil {
			return false, err
		}
	}
	return true, nil
}

// resume readies the journal for the round at a mark. The last rounds that a scan
// found may not be on disk yet, and what follows must not rest on them before. The
// files with rounds from keep on stay as they are.
func (j *journal) resume(keep, at mark) error {
	j.number, j.prev, j.at = at.number, at.prev, at
	for _, f := range j.files {
		if f.last < keep.number || f.last == 0 {
			continue
		}
		f.state = ringUsed
		if err := j.s.sync(f.f); err != nil {
			return fmt.Errorf("syncing the journal: %w", err)
		}
		if f.number == at.file && at.pos < j.fileSize && f.last+1 == at.number {
			j.current, j.pos = f, at.pos
		}
	}
	return nil
}
