package producer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/transaction"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// The snapshot file has Kafka's format (ProducerStateManager): a version, a checksum of
// the bytes after it, the number of entries, the entries. Kafka's file has only the last
// batch of a producer. This one has up to five entries for a producer, the oldest first,
// so that a reader which keeps one entry for a producer keeps the newest. All of them have the
// producer's coordinator epoch and the first offset of its open transaction.
const (
	snapshotVersion = 1
	snapshotHead    = 2 + 4 + 4
	snapshotEntry   = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8
)

// ErrSnapshot is returned for bytes that are not a producer snapshot.
var ErrSnapshot = errors.New("not a producer snapshot")

// Encode returns the contents of the snapshot file.
func (s *State) Encode() []byte {
	n := 0
	for i := range s.known.n {
		n += int(max(s.known.at(i).kept, 1))
	}
	b := make([]byte, snapshotHead, snapshotHead+n*snapshotEntry)
	for i := range s.known.n {
		p := s.known.at(i)
		if p.kept == 0 {
			b = p.appendBatch(b, &keptBatch{lastOffset: -1, time: p.lastSeen, lastSeq: record.NoSequence})
		}
		for k := range p.kept {
			b = p.appendBatch(b, &p.batches[k])
		}
	}
	be.PutUint16(b, snapshotVersion)
	be.PutUint32(b[6:], uint32(n))
	be.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
	return b
}

// appendBatch appends the entry of the file for one batch of a producer.
func (p *entry) appendBatch(b []byte, k *keptBatch) []byte {
	b = be.AppendUint64(b, uint64(p.id))
	b = be.AppendUint16(b, uint16(p.epoch))
	b = be.AppendUint32(b, uint32(k.lastSeq))
	b = be.AppendUint64(b, uint64(k.lastOffset))
	b = be.AppendUint32(b, uint32(k.delta))
	b = be.AppendUint64(b, uint64(k.time))
	b = be.AppendUint32(b, uint32(p.coordinator))
	return be.AppendUint64(b, uint64(p.txnFirst))
}

// decodedAtOnce is how many entries of a file are read at a time.
const decodedAtOnce = 1000

// Decode replaces the State by the contents of a snapshot file. The producers count as
// active at now, in ms. A file of more producers than the Budget has room for takes no more
// memory than others: the longest unused ones are forgotten while it is read.
func (s *State) Decode(r io.Reader, now int64) error {
	s.Release()
	err := s.decodeAll(r, now)
	if err != nil {
		s.Release()
	}
	return err
}

func (s *State) decodeAll(r io.Reader, now int64) error {
	var head [snapshotHead]byte
	if err := readWhole(r, head[:]); err != nil {
		return err
	}
	if be.Uint16(head[:]) != snapshotVersion {
		return fmt.Errorf("%w: unknown version", ErrSnapshot)
	}
	want, left := be.Uint32(head[2:]), int64(be.Uint32(head[6:]))
	sum := crc32.Checksum(head[6:], castagnoli)
	buf := make([]byte, min(left, decodedAtOnce)*snapshotEntry)
	for left > 0 {
		b := buf[:min(left, decodedAtOnce)*snapshotEntry]
		if err := readWhole(r, b); err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, b)
		left -= int64(len(b) / snapshotEntry)
		for ; len(b) > 0; b = b[snapshotEntry:] {
			s.decodeEntry(b, now)
		}
	}
	switch n, err := io.ReadFull(r, head[:1]); {
	case n > 0:
		return fmt.Errorf("%w: it is too long", ErrSnapshot)
	case !errors.Is(err, io.EOF):
		return err
	case sum != want:
		return fmt.Errorf("%w: its checksum is wrong", ErrSnapshot)
	}
	return nil
}

// readWhole fills b.
func readWhole(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is too short", ErrSnapshot)
	}
	return err
}

// decodeEntry adds a batch of an entry of the file.
func (s *State) decodeEntry(b []byte, now int64) {
	id, epoch := int64(be.Uint64(b)), int16(be.Uint16(b[8:]))
	p := s.known.find(id)
	if p == nil {
		s.Evict()
		p = s.addEntry(newEntry(id, epoch, now))
	}
	if p.epoch != epoch {
		p.epoch, p.kept = epoch, 0
	}
	k := keptBatch{
		lastSeq: int32(be.Uint32(b[10:])), lastOffset: record.Offset(be.Uint64(b[14:])),
		delta: int32(be.Uint32(b[22:])), time: int64(be.Uint64(b[26:])),
	}
	if k.lastSeq >= 0 && k.delta >= 0 {
		p.pushBatch(k, false)
	}
	was := openIn(p)
	p.coordinator, p.txnFirst = int32(be.Uint32(b[34:])), max(record.Offset(be.Uint64(b[38:])), transaction.None)
	s.countOpen(openIn(p) - was)
}
