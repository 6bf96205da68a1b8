package storage

import (
	"errors"
	"io"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
)

// gap is a place in a segment at which a batch begins beyond the offset that was expected there.
type gap struct {
	pos      int64 // -1: there is none
	expected record.Offset
}

// findChangedOffset finds a batch whose base offset has changed since it was written, at one of some places of the i-th segment. No checksum
// covers a base offset. One that is lower ends a walk, as a torn end does, and one that is higher looks like a gap. Either is told from
// that by what is behind the batch: another one, or the next segment, which goes on as if the offset were the expected one. The last batch of a
// log has nothing behind it, so one that is higher there is believed, as is a gap that was made since the last checkpoint.
func findChangedOffset(segs []*segment.Segment, i int, places ...gap) (found gap, err error) {
	for _, at := range places {
		if at.pos < 0 {
			continue
		}
		changed, err := isOffsetChanged(segs, i, at)
		if changed || err != nil {
			return at, err
		}
	}
	return gap{pos: -1}, nil
}

// isOffsetChanged tells whether a whole batch at a place has another base offset than the expected one, by what is behind it.
func isOffsetChanged(segs []*segment.Segment, i int, at gap) (changed bool, err error) {
	g := segs[i]
	w, closeWalk, err := g.Walk(at.pos, 0, false)
	if err != nil {
		return false, err
	}
	defer closeWalk()
	b, err := w.Next()
	if err != nil || b.BaseOffset() == at.expected || hasLostSector(at.pos, b) {
		return false, ignoreTorn(err)
	}
	next, pos := at.expected+record.Offset(b.LastOffsetDelta())+1, w.Pos()
	if pos == g.Size() {
		return i+1 < len(segs) && segs[i+1].Base() == next, nil
	}
	behind, closeBehind, err := g.Walk(pos, next, true)
	if err != nil {
		return false, err
	}
	defer closeBehind()
	_, err = behind.Next()
	return err == nil, ignoreTorn(err)
}

// sector is how many bytes a disk writes as a whole, or a part of that.
const sector = 512

// hasLostSector tells whether a batch at a place of a file may have its base offset from a sector that a power cut has lost: all of it that is
// there is zero. Then nothing behind it was acknowledged.
func hasLostSector(pos int64, b record.Batch) bool {
	n := sector - pos%sector
	return n < record.HeaderLen && !slices.ContainsFunc(b[:n], func(c byte) bool { return c != 0 })
}

// ignoreTorn returns an error of a read, and nil for bytes that are no batch, or for none.
func ignoreTorn(err error) error {
	if errors.Is(err, segment.ErrTorn) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
