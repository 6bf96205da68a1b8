package journal

import (
	"cmp"
	"hash/crc32"
	"slices"
)

// Round is a round that Scan has found.
type Round struct {
	Number uint64
	Parts  []Part // valid during the visit
	// Broken says that the round cannot be read completely, and Parts are those that can. It
	// was durable once, so acknowledged appends may be missing.
	Broken bool

	flags byte
}

// Begins tells whether the round is the first one of a write.
func (r *Round) Begins() bool { return r.flags&flagNotFirst == 0 }

// Ends tells whether the round is the last one of a write.
func (r *Round) Ends() bool { return r.flags&flagNotLast == 0 }

// maxNumber bounds the numbers of rounds, so that a scan ends with any bytes in the files.
const maxNumber = 1 << 62

// head is the head of a round, and its position.
type head struct {
	file    *ringFile
	pos     int64
	number  uint64
	prev    uint32
	sum     uint32 // the head's own
	parts   uint32 // checksum of the checksums of the parts' heads
	payload int
	flags   byte
}

// blocks is the number of bytes that the round takes in its file.
func (h *head) blocks() int64 {
	return (int64(roundHead+h.payload) + block - 1) / block * block
}

// scanner reads rounds.
type scanner struct {
	j     *Journal
	files []*ringFile
	buf   []byte
	heads []byte // a buffer of blocks that may begin with heads
	parts []Part
	later []*head // heads of the rounds after a missing one, in order; nil: none is missing so far
}

// Scan visits the rounds at a mark and later, and returns the mark after them. If rewrite is
// true it writes each round again, so that the next sync makes it durable even if an earlier
// sync has failed.
func (j *Journal) Scan(from Mark, rewrite bool, visit func(*Round) error) (Mark, error) {
	j.mu.Lock()
	s := &scanner{j: j, files: slices.Clone(j.files)}
	j.mu.Unlock()
	at := from
	for {
		h, r := s.findRound(at)
		if r == nil {
			if h, r = s.findBeyond(at); r == nil {
				return at, nil
			}
		}
		if err := visit(r); err != nil {
			return at, err
		}
		if rewrite && !r.Broken {
			if _, err := h.file.f.WriteAt(s.buf, h.pos); err != nil {
				return at, err
			}
		}
		j.mu.Lock()
		h.file.last = max(h.file.last, h.number)
		j.mu.Unlock()
		at = Mark{File: h.file.number, Pos: h.pos + h.blocks(), Round: h.number + 1, Prev: h.sum}
	}
}

// Adopt gives this Journal the id of the rounds in its files, for a store that has no checkpoint
// left. If rounds have the id prefer, it takes that one. It returns the mark of the first write after
// which no round is missing; ok is false if there is none. Rounds before a gap cannot be played back,
// since notes about their logs may be missing. whole is false if the round before the mark should
// be in the files and is not.
func (j *Journal) Adopt(prefer [16]byte) (from Mark, whole, ok bool) {
	id, ok := j.findID(prefer)
	if !ok {
		return from, true, false
	}
	j.cfg.ID = id
	s := &scanner{j: j, files: j.files}
	heads := s.allHeads(0)
	first := heads[len(heads)-1] // there is one, since findID has found the id in it
	for i := len(heads) - 2; i >= 0 && heads[i].number+1 >= first.number; i-- {
		// An abandoned write may have left another round with the number.
		if h := heads[i]; h.number+1 == first.number && h.sum == first.prev {
			first = h
		}
		if first.flags&flagNotFirst == 0 {
			from = first.mark()
		}
	}
	if from.Round == 0 {
		from = first.mark()
	}
	// A lap writes each file from its beginning. If the first round's file begins with a later
	// round, or with it, the round before it was overwritten, and is not missing.
	begin := s.readHead(first.file, 0)
	return from, first.pos == 0 || begin != nil && begin.number > first.number, true
}

// mark is the mark of a head's round.
func (h *head) mark() Mark {
	return Mark{File: h.file.number, Pos: h.pos, Round: h.number, Prev: h.prev}
}

// findID finds the id with which most files begin. It looks nowhere else, since clients' bytes
// are never at the beginning of a file.
func (j *Journal) findID(prefer [16]byte) (id [16]byte, ok bool) {
	files := map[[16]byte]int{}
	for _, f := range j.files {
		var b [roundHead]byte
		if !j.readAt(f, b[:], 0) {
			continue
		}
		whose := &Journal{cfg: Config{ID: [16]byte(b[8:24])}}
		if (&scanner{j: whose}).decodeHead(f, 0, b[:]) != nil {
			files[whose.cfg.ID]++
		}
	}
	if files[prefer] > 0 {
		return prefer, true
	}
	for found, n := range files {
		if n > files[id] {
			id = found
		}
	}
	return id, len(files) > 0
}

// findRound reads the round of a mark, at the mark's position or at the beginning of a file; nil:
// there is none. It skips torn rounds with the same number.
func (s *scanner) findRound(at Mark) (*head, *Round) {
	follows := func(h *head) bool { return h.number == at.Round && h.prev == at.Prev }
	if at.File < len(s.files) {
		if h, r := s.readRound(s.files[at.File], at.Pos, follows); r != nil && !r.Broken {
			return h, r
		}
	}
	for _, f := range s.files {
		if h, r := s.readRound(f, 0, follows); r != nil && !r.Broken {
			return h, r
		}
	}
	return nil, nil
}

// readHead reads the head of the round at a position; nil: there is none of this journal.
func (s *scanner) readHead(f *ringFile, pos int64) *head {
	var b [roundHead]byte
	if !s.j.readAt(f, b[:], pos) {
		return nil
	}
	return s.decodeHead(f, pos, b[:])
}

func (s *scanner) decodeHead(f *ringFile, pos int64, b []byte) *head {
	h := &head{
		file: f, pos: pos, number: be.Uint64(b[24:]), prev: be.Uint32(b[32:]), sum: be.Uint32(b[4:]),
		parts: be.Uint32(b[36:]), payload: int(be.Uint32(b[40:])), flags: b[44],
	}
	if be.Uint32(b) != magicAndVersion || h.sum != crc32.Checksum(b[8:roundHead], castagnoli) ||
		[16]byte(b[8:24]) != s.j.cfg.ID || h.number == 0 || h.number > maxNumber || h.payload == 0 || h.payload > 2*maxRound {
		return nil
	}
	return h
}

// readRound reads the round at a position if it has a wanted head; nil: it has none. The round
// is broken if its parts cannot all be read.
func (s *scanner) readRound(f *ringFile, pos int64, wanted func(*head) bool) (*head, *Round) {
	h := s.readHead(f, pos)
	if h == nil || !wanted(h) {
		return nil, nil
	}
	return h, s.readParts(h)
}

// readParts reads the parts of a round.
func (s *scanner) readParts(h *head) *Round {
	n := roundHead + h.payload
	s.buf = slices.Grow(s.buf[:0], n)[:n]
	r := &Round{Number: h.number, flags: h.flags}
	s.parts = s.parts[:0]
	if !s.j.readAt(h.file, s.buf, h.pos) {
		r.Broken = true
		return r
	}
	sum := uint32(0)
	for rest := s.buf[roundHead:]; len(rest) > 0; {
		d, after, err := decodePart(rest)
		if err != nil {
			r.Broken = true
			break
		}
		if d.damaged {
			r.Broken = true
		} else {
			s.parts = append(s.parts, d.part)
		}
		sum, rest = addHeadSum(sum, rest), after
	}
	r.Parts = s.parts
	r.Broken = r.Broken || sum != h.parts
	return r
}

// findBeyond looks for rounds that were written after the one of a mark, which is missing or
// cannot be read. If it finds the first round of a later write, the missing round was durable
// once and is damaged. It returns that round, broken, with the parts that can be read, and a
// head with which the scan goes on at the next head that was found.
func (s *scanner) findBeyond(at Mark) (*head, *Round) {
	if s.later == nil {
		if len(s.likelyHeads(at)) == 0 {
			return nil, nil
		}
		s.later = s.allHeads(at.Round) // the round of a later write may be at another position
	}
	for len(s.later) > 0 && s.later[0].number <= at.Round {
		s.later = s.later[1:]
	}
	if !slices.ContainsFunc(s.later, func(h *head) bool { return h.flags&flagNotFirst == 0 }) {
		return nil, nil // the write was never complete: the journal ends before it
	}
	next := s.later[0]
	// The scan goes on as if the broken round had ended where the next one begins.
	before := &head{file: next.file, pos: next.pos, number: next.number - 1, sum: next.prev, payload: -roundHead}
	broken := &Round{Number: at.Round, Broken: true}
	if h := s.headOf(at); h != nil {
		if r := s.readParts(h); h.number == at.Round {
			broken.Parts = r.Parts
		}
	}
	return before, broken
}

// headOf finds the head of the round of a mark, whose parts may be unreadable.
func (s *scanner) headOf(at Mark) *head {
	follows := func(h *head) bool { return h != nil && h.number == at.Round && h.prev == at.Prev }
	if at.File < len(s.files) {
		if h := s.readHead(s.files[at.File], at.Pos); follows(h) {
			return h
		}
	}
	for _, f := range s.files {
		if h := s.readHead(f, 0); follows(h) {
			return h
		}
	}
	return nil
}

// likelyHeads finds heads of rounds with higher numbers than a mark's. It reads only positions
// at which there is a head if there are any such rounds. If the mark's file has room for any
// round, these are the positions after the mark and the beginnings of other files. If not, the
// mark's round may be in a file whose beginning cannot be read, and all positions are read. A
// file that is smaller than now usual may be full, with the settings of an earlier run.
func (s *scanner) likelyHeads(at Mark) []*head {
	fits := false
	if at.Pos > 0 && at.File < len(s.files) { // if not, it is the mark of an empty journal
		fits = at.Pos+int64(s.j.RoundSize+roundHead+2*block) <= min(s.j.fileSize, s.j.sizeOf(s.files[at.File]))
	}
	var found []*head
	for _, f := range s.files {
		switch {
		case f.number == at.File:
			found = s.headsFrom(f, at.Pos, at.Round, found)
		case !fits:
			found = s.headsFrom(f, 0, at.Round, found)
		default:
			if h := s.readHead(f, 0); h != nil && h.number > at.Round {
				found = append(found, h)
			}
		}
	}
	return found
}

// allHeads finds all heads of rounds with numbers above a number, sorted by number.
func (s *scanner) allHeads(above uint64) []*head {
	found := []*head{}
	for _, f := range s.files {
		found = s.headsFrom(f, 0, above, found)
	}
	slices.SortStableFunc(found, func(a, b *head) int { return cmp.Compare(a.number, b.number) })
	return found
}

// headsFrom appends to found the heads in a file, at any block from a position on, of rounds
// with numbers above after.
func (s *scanner) headsFrom(f *ringFile, pos int64, after uint64, found []*head) []*head {
	if s.heads == nil {
		s.heads = make([]byte, 64*block)
	}
	b := s.heads
	for size := s.j.sizeOf(f); pos < size+block; {
		n := min(int64(len(b)), size-pos)
		for n > 0 && !s.j.readAt(f, b[:n], pos) {
			n = n / 2 / block * block // some of the bytes cannot be read
		}
		if n <= 0 { // the file may end within this block
			if h := s.readHead(f, pos); h != nil && h.number > after {
				found = append(found, h)
			}
			pos += block
			continue
		}
		for k := int64(0); k < n; k += block {
			if h := s.decodeHead(f, pos+k, b[k:k+roundHead]); h != nil && h.number > after {
				found = append(found, h)
			}
		}
		pos += n
	}
	return found
}
