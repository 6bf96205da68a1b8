package quorum

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A log file is a row of frames, each the work of one write and one sync, then
// zeros. Numbers are little-endian.
//
//	frame  = crc u32 | size u32 | number u64 | records (size bytes) | zeros to a multiple of 8
//	record = kind u8 | size u32 | body
//	head   = version u8 | raft id u64 | count u16 | voters u64...    first record of a file
//	state  = term u64 | vote u64 | commit u64                        second record of a file
//	entry  = term u64 | index u64 | type u8 | data
//
// The crc is CRC-32C of what follows it in the frame's head, and of the records.
// Frames are numbered through all files, and a frame is written when the one
// before it is on disk. So a frame that is not whole, with a whole one somewhere
// after it, is damage; with none it is the write that a crash has cut.
const (
	frameHead  = 16
	frameAlign = 8
	recordHead = 5
	entryHead  = recordHead + 17
	stateSize  = 24

	formatVersion = 1
)

const (
	kindHead  = 1
	kindState = 2
	kindEntry = 3
)

// fileHead is what the first record of a file says.
type fileHead struct {
	id     uint64
	voters []uint64
}

// records is what a frame holds.
type records struct {
	head    *fileHead
	state   *pb.HardState
	entries []*pb.Entry
}

func castagnoli(parts ...[]byte) (sum uint32) {
	table := crc32.MakeTable(crc32.Castagnoli) // the package's own one: nothing is made
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return sum
}

// beginFrame starts a frame in an empty buffer; endFrame ends it.
func beginFrame(b []byte) []byte { return append(b[:0], make([]byte, frameHead)...) }

func endFrame(b []byte, number uint64) []byte {
	size := len(b) - frameHead
	binary.LittleEndian.PutUint32(b[4:], uint32(size))
	binary.LittleEndian.PutUint64(b[8:], number)
	binary.LittleEndian.PutUint32(b, castagnoli(b[4:]))
	return append(b, make([]byte, frameLen(size)-len(b))...)
}

// frameLen is the length in the file of a frame with so many bytes of records.
func frameLen(size int) int { return (frameHead + size + frameAlign - 1) &^ (frameAlign - 1) }

func beginRecord(b []byte, kind byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, kind), uint32(size))
}

func (h *fileHead) append(b []byte) []byte {
	b = beginRecord(b, kindHead, 11+8*len(h.voters))
	b = append(b, formatVersion)
	b = binary.LittleEndian.AppendUint64(b, h.id)
	return appendVoters(b, h.voters)
}

func appendVoters(b []byte, voters []uint64) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(voters)))
	for _, v := range voters {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func cutVoters(b []byte) (voters []uint64, rest []byte, ok bool) {
	if len(b) < 2 || len(b) < 2+8*int(binary.LittleEndian.Uint16(b)) {
		return nil, nil, false
	}
	n := int(binary.LittleEndian.Uint16(b))
	for b = b[2:]; n > 0; n-- {
		voters = append(voters, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	return voters, b, true
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

// frameAt returns the records of the frame at off, which is a multiple of 8, and
// its number; ok is false where no whole frame is.
func frameAt(b []byte, off int) (body []byte, number uint64, ok bool) {
	if len(b)-off < frameHead {
		return nil, 0, false
	}
	b = b[off:]
	size := binary.LittleEndian.Uint32(b[4:])
	if size == 0 || uint64(size) > uint64(len(b)-frameHead) {
		return nil, 0, false
	}
	end := frameHead + int(size)
	if castagnoli(b[4:end]) != binary.LittleEndian.Uint32(b) {
		return nil, 0, false
	}
	return b[frameHead:end], binary.LittleEndian.Uint64(b[8:]), true
}

// scan calls each for every frame of a file's bytes, which begin with frame
// number first, and returns where they end and the number that follows.
func scan(b []byte, first uint64, each func(at, size int, r *records) error) (end int, next uint64, err error) {
	next = first
	for {
		body, number, ok := frameAt(b, end)
		if !ok || number != next {
			break
		}
		r, err := parse(body)
		if err == nil {
			err = each(end, frameLen(len(body)), r)
		}
		if err != nil {
			return end, next, fmt.Errorf("frame %d at byte %d: %w", number, end, err)
		}
		end += frameLen(len(body))
		next++
	}
	for off := end; len(b)-off >= frameHead; off += frameAlign {
		// Looking at the number first keeps this from checksumming at every place.
		number := binary.LittleEndian.Uint64(b[off+8:])
		if number < next || number-next > uint64(len(b)) {
			continue
		}
		if _, _, ok := frameAt(b, off); ok {
			return end, next, fmt.Errorf("%w: no whole frame at byte %d, but one at byte %d", ErrDamaged, end, off)
		}
	}
	return end, next, nil
}

// parse reads the records of a frame. The checksum was right, so what is wrong
// here was written so.
func parse(b []byte) (*records, error) {
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
		case kindHead:
			if len(body) > 0 && body[0] != formatVersion {
				return nil, fmt.Errorf("%w: format %d", ErrNewer, body[0])
			}
			if ok = len(body) >= 9; ok {
				r.head = &fileHead{id: binary.LittleEndian.Uint64(body[1:])}
				r.head.voters, _, ok = cutVoters(body[9:])
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
		e.Data = slices.Clone(b[17:]) // else one small entry would keep a whole file in memory
	}
	return e
}
