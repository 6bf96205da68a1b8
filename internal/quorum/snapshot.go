package quorum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"

	"github.com/leatstream/leat/internal/vfs"
)

// This is the format of a snapshot file. Numbers are little-endian; the crc is the CRC-32C of
// all bytes before and after it.
//
//	"leatsnap" | version u8 | crc u32 | index u64 | term u64 | raft id u64 | node id u32 | members | data
const (
	snapshotMagic = "leatsnap"
	snapshotHead  = len(snapshotMagic) + 5
	snapshotFixed = 28 // bytes from the index to the node id
)

// position is an entry's place in raft's log.
type position struct{ index, term uint64 }

// snapshot is the whole state after the entry at a position, with the members at that entry.
type snapshot struct {
	at     position
	raftID uint64
	boot
	data []byte
}

// encodeHead encodes the bytes before data.
func (s *snapshot) encodeHead() []byte {
	b := append([]byte(snapshotMagic), formatVersion, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, s.at.index)
	b = binary.LittleEndian.AppendUint64(b, s.at.term)
	b = binary.LittleEndian.AppendUint64(b, s.raftID)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.nodeID))
	b = appendConf(b, s.conf)
	binary.LittleEndian.PutUint32(b[snapshotHead-4:], checksum(b[:snapshotHead-4], b[snapshotHead:], s.data))
	return b
}

// parseSnapshot decodes a snapshot file.
func parseSnapshot(b []byte) (*snapshot, error) {
	if len(b) < snapshotHead+snapshotFixed || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a snapshot", ErrDamaged)
	}
	if checksum(b[:snapshotHead-4], b[snapshotHead:]) != binary.LittleEndian.Uint32(b[snapshotHead-4:]) {
		return nil, fmt.Errorf("%w: the snapshot's checksum is wrong", ErrDamaged)
	}
	switch v := b[len(snapshotMagic)]; {
	case v > formatVersion:
		return nil, fmt.Errorf("%w: format %d of a snapshot", ErrNewer, v)
	case v < formatVersion:
		return nil, fmt.Errorf("%w: format %d of a snapshot", ErrOlder, v)
	}
	b = b[snapshotHead:]
	s := &snapshot{
		at:     position{index: binary.LittleEndian.Uint64(b), term: binary.LittleEndian.Uint64(b[8:])},
		raftID: binary.LittleEndian.Uint64(b[16:]),
		boot:   boot{nodeID: int32(binary.LittleEndian.Uint32(b[24:]))},
	}
	var ok bool
	if s.conf, s.data, ok = decodeConf(b[snapshotFixed:]); !ok {
		return nil, fmt.Errorf("%w: the snapshot's head is cut short", ErrDamaged)
	}
	return s, nil
}

// readSnapshot reads the file of the snapshot at an index.
func readSnapshot(fs vfs.FS, dir string, index uint64) (*snapshot, error) {
	name := fileName(index, snapshotSuffix)
	f, err := fs.Open(path.Join(dir, name), vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	b, err := readAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	s, err := parseSnapshot(b)
	if err == nil && s.at.index != index {
		err = fmt.Errorf("%w: it is the snapshot of another entry", ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// writeSnapshot writes a snapshot and makes its bytes durable. Its name is durable when the
// loop has synced the directory (diskLog.syncDir). It uses no file of the log. Two that are
// written at the same time must have other suffixes, which their names have until they are whole.
func writeSnapshot(fs vfs.FS, dir string, s *snapshot, suffix string) error {
	name := path.Join(dir, fileName(s.at.index, snapshotSuffix))
	tmp := name + suffix
	f, err := fs.Open(tmp, vfs.Fresh)
	if err != nil {
		return err
	}
	_, err = f.WriteVAt([][]byte{s.encodeHead(), s.data}, 0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fs.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, fs.Remove(tmp))
	}
	return nil
}
