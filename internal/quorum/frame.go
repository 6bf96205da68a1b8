package quorum

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A log file is a head, a sequence of frames, each of which is written with one write and one
// sync, and zeros. Numbers are little-endian; every crc is a CRC-32C.
//
//	file   = "leatqlog" | version u8 | zeros (19) | crc u32 of the 28 bytes before it
//	frame  = crc u32 of the 28 bytes after it | size u32 | number u64 | raft id u64 |
//	         crc u32 of the records | zeros (3) | mark
//	         records (size bytes) | zeros | mark
//	record = kind u8 | size u32 | body
//	boot   = node id u32 | members               first record of frame 1
//	state  = term u64 | vote u64 | commit u64    in the first frame of each file, and when term or vote change
//	entry  = term u64 | index u64 | type u8 | content
//	an ordinary entry's content is version u8 | term in which it was decided u64 | the proposal
//
// The offset and the length of a frame are multiples of 32 bytes. Its last byte is a mark,
// and so is the last byte of every sector (512 bytes of the file) in it; the records are
// split around the marks. A disk writes all of a sector or nothing, and a killed process
// leaves the beginning of its write. So a torn write lacks a mark (there is a zero), and a
// frame with all its marks was written completely. This distinguishes a torn write, which
// was never acknowledged, from damage:
//
//	after the last whole frame                      after that              verdict
//	only zeros                                      only zeros              the end
//	a head without its mark                         no head of a frame      torn
//	a sound head, and a later mark is missing       no head of a frame      torn
//	anything else                                   anything                damage
//
// Frames are numbered across all files, and a frame is written only when the one before it
// is on disk. So a later frame proves that the one before it was whole.
const (
	sector     = 512
	fileHead   = 32
	frameHead  = 32
	frameAlign = 32
	recordHead = 5
	entryHead  = recordHead + 17
	stateSize  = 24
	mark       = 0xa5

	fileMagic     = "leatqlog"
	formatVersion = 2

	entryVersion      = 1
	proposalHead      = 9
	maxConfMembers    = 1 << 10 // more than any cluster has, to bound memory
	minMembersEncoded = 4*2 + 1
)

const (
	kindBoot  = 1
	kindState = 2
	kindEntry = 3
)

// boot describes the directory; the first frame has it.
type boot struct {
	nodeID int32
	conf   *pb.ConfState
}

// records is the content of a frame.
type records struct {
	boot    *boot
	state   *pb.HardState
	entries []*pb.Entry
}

// checksum is the CRC-32C of the parts.
func checksum(parts ...[]byte) (sum uint32) {
	table := crc32.MakeTable(crc32.Castagnoli) // returns a table that exists already
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return sum
}

// newFileHead makes the head with which every log file begins.
func newFileHead() []byte {
	b := make([]byte, fileHead)
	b[copy(b, fileMagic)] = formatVersion
	binary.LittleEndian.PutUint32(b[fileHead-4:], checksum(b[:fileHead-4]))
	return b
}

// checkFileHead returns an error for a file that this version does not read.
func checkFileHead(b []byte) error {
	switch {
	case len(b) < fileHead, !bytes.HasPrefix(b, []byte(fileMagic)), checksum(b[:fileHead-4]) != binary.LittleEndian.Uint32(b[fileHead-4:]):
		return fmt.Errorf("%w: the file's head is not as it was written", ErrDamaged)
	case b[len(fileMagic)] > formatVersion:
		return fmt.Errorf("%w: format %d of the metadata log", ErrNewer, b[len(fileMagic)])
	case b[len(fileMagic)] < formatVersion:
		return fmt.Errorf("%w: format %d of the metadata log", ErrOlder, b[len(fileMagic)])
	}
	return nil
}

// appendFrame appends the frame with these records for offset off of its file.
func appendFrame(b []byte, off int64, number, raftID uint64, body []byte) []byte {
	from := len(b)
	b = append(b, make([]byte, frameHead)...)
	head := b[from:]
	binary.LittleEndian.PutUint32(head[4:], uint32(len(body)))
	binary.LittleEndian.PutUint64(head[8:], number)
	binary.LittleEndian.PutUint64(head[16:], raftID)
	binary.LittleEndian.PutUint32(head[24:], checksum(body))
	head[frameHead-1] = mark
	binary.LittleEndian.PutUint32(head, checksum(head[4:]))
	end := off + frameLen(off, len(body))
	for at := off + frameHead; at < end; {
		stop := nextMark(at, end)
		n := min(int64(len(body)), stop-at)
		b = append(b, body[:n]...)
		b = append(b, make([]byte, stop-at-n)...)
		b = append(b, mark)
		body, at = body[n:], stop+1
	}
	return b
}

// nextMark is the offset of the next mark at or after at, in a frame that ends at end.
func nextMark(at, end int64) int64 { return min(at|(sector-1), end-1) }

// frameLen is the length in the file of a frame at off with so many bytes of records.
func frameLen(off int64, size int) int64 {
	at := off + frameHead
	left := int64(size)
	room := (at | (sector - 1)) - at // bytes of records before the first sector's mark
	if left > room {
		full := (left - room - 1) / (sector - 1) // further sectors that records fill
		at += room + 1 + full*sector
		left -= room + full*(sector-1)
	}
	return (at+left+1+frameAlign-1)&^(frameAlign-1) - off
}

// frameSpace is the largest length, at any offset, of a frame with so many bytes of records.
func frameSpace(size int64) int64 {
	return frameHead + size + size/(sector-1) + 2 + frameAlign
}

// frameHeader is a decoded frame head whose checksum is right.
type frameHeader struct {
	size    int
	number  uint64
	raftID  uint64
	bodyCRC uint32
}

// headAt decodes the head of a frame at off, a multiple of 32; ok is false if there is no
// sound head.
func headAt(b []byte, off int64) (h frameHeader, ok bool) {
	if int64(len(b))-off < frameHead {
		return h, false
	}
	head := b[off : off+frameHead]
	if head[frameHead-1] != mark || checksum(head[4:]) != binary.LittleEndian.Uint32(head) {
		return h, false
	}
	size := binary.LittleEndian.Uint32(head[4:])
	return frameHeader{
		size: int(size), number: binary.LittleEndian.Uint64(head[8:]),
		raftID: binary.LittleEndian.Uint64(head[16:]), bodyCRC: binary.LittleEndian.Uint32(head[24:]),
	}, true
}

// joinBody joins the records of the frame at off. torn tells whether a mark is missing. An
// error says that all marks are there and the frame is not as it was written.
func joinBody(b []byte, off int64, h frameHeader) (body []byte, torn bool, err error) {
	end := off + frameLen(off, h.size)
	if end > int64(len(b)) {
		return nil, false, fmt.Errorf("%w: a frame of %d bytes ends behind its file", ErrDamaged, h.size)
	}
	sound := true
	body = make([]byte, 0, end-off-frameHead)
	for at := off + frameHead; at < end; {
		stop := nextMark(at, end)
		body = append(body, b[at:stop]...)
		torn = torn || b[stop] == 0
		sound = sound && b[stop] == mark
		at = stop + 1
	}
	if torn {
		return nil, true, nil
	}
	if !sound || !isZero(body[h.size:]) || checksum(body[:h.size]) != h.bodyCRC {
		return nil, false, fmt.Errorf("%w: the frame was written whole, and its checksum is wrong", ErrDamaged)
	}
	return body[:h.size], false, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// extent describes the whole frames of a file.
type extent struct {
	end  int64  // the offset after the last one
	next uint64 // number of the frame after them
	torn int64  // bytes that a torn write has left after them
}

// scanFrames calls each for every frame in b, a file that begins with frame number first.
// raftID is 0 if it is not known yet.
func scanFrames(b []byte, first, raftID uint64, each func(at, size int64, h frameHeader, r *records) error) (extent, error) {
	x := extent{end: fileHead, next: first}
	if err := checkFileHead(b); err != nil {
		return x, err
	}
	for {
		h, ok := headAt(b, x.end)
		if !ok {
			break
		}
		if raftID == 0 {
			raftID = h.raftID
		}
		if h.number != x.next || h.raftID != raftID {
			return x, fmt.Errorf("%w: byte %d has frame %d of directory %016x, and frame %d of directory %016x is due",
				ErrDamaged, x.end, h.number, h.raftID, x.next, raftID)
		}
		size := frameLen(x.end, h.size)
		body, torn, err := joinBody(b, x.end, h)
		if err == nil && torn {
			return checkTorn(b, x, x.end+size, raftID)
		}
		var r *records
		if err == nil {
			r, err = parseRecords(body)
		}
		if err == nil {
			err = each(x.end, size, h, r)
		}
		if err != nil {
			return x, fmt.Errorf("frame %d at byte %d: %w", h.number, x.end, err)
		}
		x.end += size
		x.next++
	}
	if isZero(b[x.end:]) {
		return x, nil
	}
	if int64(len(b))-x.end < frameHead || b[x.end+frameHead-1] != 0 {
		return x, fmt.Errorf("%w: byte %d is neither a frame nor free", ErrDamaged, x.end)
	}
	return checkTorn(b, x, int64(len(b)), raftID)
}

// checkTorn is the result of scanFrames for a write that began at x.end, would have ended at
// limit at most, and seems to be torn. A frame after it proves that it was whole once, and is
// damaged.
func checkTorn(b []byte, x extent, limit int64, raftID uint64) (extent, error) {
	if !isZero(b[limit:]) {
		return x, fmt.Errorf("%w: the frame at byte %d is not whole, and more was written behind it", ErrDamaged, x.end)
	}
	for at := x.end + frameAlign; at < limit; at += frameAlign {
		if h, ok := headAt(b, at); ok && h.raftID == raftID && h.number >= x.next {
			return x, fmt.Errorf("%w: no whole frame is at byte %d, and frame %d at byte %d", ErrDamaged, x.end, h.number, at)
		}
	}
	last := int64(len(b))
	for last > x.end && b[last-1] == 0 {
		last--
	}
	x.torn = last - x.end
	return x, nil
}

func beginRecord(b []byte, kind byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, kind), uint32(size))
}

func appendBoot(b []byte, o *boot) []byte {
	b = beginRecord(b, kindBoot, 4+confSize(o.conf))
	b = binary.LittleEndian.AppendUint32(b, uint32(o.nodeID))
	return appendConf(b, o.conf)
}

// appendConf appends raft's ConfState: the voters and learners, and both of a change that is
// under way.
//
//	members = 4 times (count u16 | ids u64...): voters, learners, outgoing voters, next learners | auto leave u8
func appendConf(b []byte, c *pb.ConfState) []byte {
	for _, ids := range [][]uint64{c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext()} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(ids)))
		for _, id := range ids {
			b = binary.LittleEndian.AppendUint64(b, id)
		}
	}
	if c.GetAutoLeave() {
		return append(b, 1)
	}
	return append(b, 0)
}

func confSize(c *pb.ConfState) int {
	return minMembersEncoded + 8*(len(c.GetVoters())+len(c.GetLearners())+len(c.GetVotersOutgoing())+len(c.GetLearnersNext()))
}

// decodeConf decodes members at the beginning of b, and returns the bytes after them.
func decodeConf(b []byte) (c *pb.ConfState, rest []byte, ok bool) {
	c = &pb.ConfState{}
	for _, ids := range []*[]uint64{&c.Voters, &c.Learners, &c.VotersOutgoing, &c.LearnersNext} {
		if len(b) < 2 {
			return nil, nil, false
		}
		n := int(binary.LittleEndian.Uint16(b))
		if b = b[2:]; n > maxConfMembers || len(b) < 8*n {
			return nil, nil, false
		}
		for ; n > 0; n-- {
			*ids = append(*ids, binary.LittleEndian.Uint64(b))
			b = b[8:]
		}
	}
	if len(b) < 1 || b[0] > 1 {
		return nil, nil, false
	}
	c.AutoLeave = new(b[0] == 1)
	return c, b[1:], true
}

func appendState(b []byte, s *pb.HardState) []byte {
	b = beginRecord(b, kindState, stateSize)
	b = binary.LittleEndian.AppendUint64(b, s.GetTerm())
	b = binary.LittleEndian.AppendUint64(b, s.GetVote())
	return binary.LittleEndian.AppendUint64(b, s.GetCommit())
}

func appendEntry(b []byte, e *pb.Entry) []byte {
	b = beginRecord(b, kindEntry, entryHead-recordHead+len(e.GetData()))
	b = binary.LittleEndian.AppendUint64(b, e.GetTerm())
	b = binary.LittleEndian.AppendUint64(b, e.GetIndex())
	b = append(b, byte(e.GetType()))
	return append(b, e.GetData()...)
}

// parseRecords decodes the records of a frame whose checksum is right. So an unknown kind of
// record was written by a newer version.
func parseRecords(b []byte) (*records, error) {
	r := &records{}
	for len(b) > 0 {
		if len(b) < recordHead || uint64(binary.LittleEndian.Uint32(b[1:])) > uint64(len(b)-recordHead) {
			return nil, fmt.Errorf("%w: a record is cut short", ErrDamaged)
		}
		kind, end := b[0], recordHead+int(binary.LittleEndian.Uint32(b[1:]))
		body := b[recordHead:end]
		b = b[end:]
		var ok bool
		switch kind {
		case kindBoot:
			if ok = len(body) >= 4; ok {
				r.boot = &boot{nodeID: int32(binary.LittleEndian.Uint32(body))}
				var rest []byte
				r.boot.conf, rest, ok = decodeConf(body[4:])
				ok = ok && len(rest) == 0
			}
		case kindState:
			if ok = len(body) == stateSize; ok {
				r.state = parseState(body)
			}
		case kindEntry:
			if ok = len(body) >= entryHead-recordHead; ok {
				r.entries = append(r.entries, parseEntry(body))
			}
		default:
			return nil, fmt.Errorf("%w: record kind %d", ErrNewer, kind)
		}
		if !ok {
			return nil, fmt.Errorf("%w: a record of kind %d has %d bytes", ErrDamaged, kind, len(body))
		}
	}
	return r, nil
}

func parseState(b []byte) *pb.HardState {
	return &pb.HardState{
		Term:   new(binary.LittleEndian.Uint64(b)),
		Vote:   new(binary.LittleEndian.Uint64(b[8:])),
		Commit: new(binary.LittleEndian.Uint64(b[16:])),
	}
}

func parseEntry(b []byte) *pb.Entry {
	e := &pb.Entry{
		Term:  new(binary.LittleEndian.Uint64(b)),
		Index: new(binary.LittleEndian.Uint64(b[8:])),
		Type:  pb.EntryType(b[16]).Enum(),
	}
	if len(b) > 17 {
		e.Data = slices.Clone(b[17:]) // b is part of a whole file, which the entry must not keep in memory
	}
	return e
}

// wrapProposal puts the term in which a proposal was decided in front of it. By that term
// every voter decides whether the entry counts.
func wrapProposal(term uint64, data []byte) []byte {
	b := append(make([]byte, 0, proposalHead+len(data)), entryVersion)
	return append(binary.LittleEndian.AppendUint64(b, term), data...)
}

// unwrapProposal is the inverse of wrapProposal.
func unwrapProposal(b []byte) (term uint64, data []byte, err error) {
	switch {
	case len(b) <= proposalHead:
		return 0, nil, fmt.Errorf("%w: an entry of %d bytes", ErrDamaged, len(b))
	case b[0] != entryVersion:
		return 0, nil, fmt.Errorf("%w: format %d of an entry", ErrNewer, b[0])
	}
	return binary.LittleEndian.Uint64(b[1:]), b[proposalHead:], nil
}
