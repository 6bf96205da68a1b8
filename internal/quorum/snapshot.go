package quorum

import (
	"encoding/binary"
	"fmt"
)

// A snapshot file; numbers are little-endian, the crc is CRC-32C of what follows it:
//
//	"leatsnap" | version u8 | crc u32 | index u64 | term u64 | count u16 | voters u64... | data
const snapshotMagic = "leatsnap"

// position is an entry's place in raft's log.
type position struct{ index, term uint64 }

// snapshot is the whole state after the entry at a position.
type snapshot struct {
	at     position
	voters []uint64
	data   []byte
}

// head encodes what stands before data.
func (s *snapshot) head() []byte {
	b := append([]byte(snapshotMagic), formatVersion, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, s.at.index)
	b = binary.LittleEndian.AppendUint64(b, s.at.term)
	b = appendVoters(b, s.voters)
	binary.LittleEndian.PutUint32(b[9:], castagnoli(b[13:], s.data))
	return b
}

// parseSnapshot reads a file.
func parseSnapshot(b []byte) (*snapshot, error) {
	const head = len(snapshotMagic) + 5
	if len(b) < head+16 || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a snapshot", ErrDamaged)
	}
	if v := b[len(snapshotMagic)]; v != formatVersion {
		return nil, fmt.Errorf("%w: snapshot format %d", ErrNewer, v)
	}
	if castagnoli(b[head:]) != binary.LittleEndian.Uint32(b[head-4:]) {
		return nil, fmt.Errorf("%w: the snapshot's checksum is wrong", ErrDamaged)
	}
	s := &snapshot{at: position{
		index: binary.LittleEndian.Uint64(b[head:]),
		term:  binary.LittleEndian.Uint64(b[head+8:]),
	}}
	var ok bool
	if s.voters, s.data, ok = cutVoters(b[head+16:]); !ok {
		return nil, fmt.Errorf("%w: the snapshot's head is cut short", ErrDamaged)
	}
	return s, nil
}
