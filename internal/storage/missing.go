package storage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// sized is a segment's base and its number of bytes.
type sized struct {
	base record.Offset
	size int64
}

func sizesOf(segs []*segment.Segment) []sized {
	sizes := make([]sized, 0, len(segs))
	for _, g := range segs {
		sizes = append(sizes, sized{g.Base(), g.Size()})
	}
	return sizes
}

// countClosed counts the bytes of segments, in their order, as Point.Closed does.
func countClosed(segs []sized, p *checkpoint.Point) (n int64) {
	for i, g := range segs {
		if isBelow := i+1 < len(segs) && segs[i+1].base <= p.Start; !isBelow && g.base < p.Base {
			n += g.size
		}
	}
	return n
}

// hadRecords tells whether a log that is as its point says has a segment with records.
func hadRecords(p *checkpoint.Point) bool {
	return p.Vouched && (p.Pos > 0 || p.Closed > 0) && p.Next > p.Start
}

// isWhole tells whether a log's files have as many bytes as its point says.
func isWhole(segs []sized, p *checkpoint.Point) bool {
	if !hadRecords(p) {
		return true
	}
	hasLast := p.Pos == 0 || slices.ContainsFunc(segs, func(g sized) bool { return g.base == p.Base && g.size >= p.Pos })
	return hasLast && countClosed(segs, p) >= p.Closed
}

// checkFiles looks once, after the start, for logs with files that are missing or short, so that
// the operator hears of them before somebody needs a record. It lists the directories of logs
// that nobody has used yet, and opens only those logs that lack something: they report it.
func checkFiles(s *Store) {
	for _, l := range s.all() {
		if s.closing.Load() {
			return
		}
		p := s.points.Get(l.id)
		if logState(l.state.Load()) != logUnopened || !hadRecords(&p) {
			continue
		}
		segs, err := listSegments(s, l.name)
		if err == nil && isWhole(segs, &p) {
			continue
		}
		if err == nil || errors.Is(err, vfs.ErrNotExist) {
			err = l.makeUsable()
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			s.log.Warn("a log could not be checked for missing files; its first use does that", "log", l.name, "err", err)
		}
	}
}

// listSegments lists the segments in a directory, in their order.
func listSegments(s *Store, dir string) (segs []sized, err error) {
	infos, err := s.fs.ReadDir(s.path(dir))
	for _, i := range infos { // names have as many digits as the largest offset
		if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
			segs = append(segs, sized{base, i.Size})
		}
	}
	return segs, err
}

// reportMissing reports segments that lack bytes that the log's point says they have.
func (o *opening) reportMissing() {
	p := &o.point
	if isWhole(sizesOf(o.segs), p) {
		return
	}
	i := slices.IndexFunc(o.segs, func(g *segment.Segment) bool { return g.Base() == p.Base })
	switch {
	case i < 0 && p.Pos > 0:
		o.l.reportLoss("segment %d is missing, though it had %d bytes", p.Base, p.Pos)
	case i >= 0 && o.segs[i].Size() < p.Pos:
		o.l.reportLoss("segment %d has %d bytes and had %d", p.Base, o.segs[i].Size(), p.Pos)
	default:
		o.l.reportLoss("the segments from offset %d to %d had %d bytes and have %d: %s",
			p.Start, p.Base, p.Closed, countClosed(sizesOf(o.segs), p), o.describeHole())
	}
}

// describeHole tells where segments before the one in which the point lies are missing or cut.
func (o *opening) describeHole() string {
	at := o.point.Start
	for i, g := range o.segs {
		switch {
		case i+1 < len(o.segs) && o.segs[i+1].Base() <= o.point.Start:
			continue
		case g.Base() > at:
			return fmt.Sprintf("the file that begins at offset %d or before it is missing or was cut", at)
		case g.Base() >= o.point.Base:
			return "one is missing or was cut"
		}
		at = endOf(g)
	}
	return fmt.Sprintf("the file that begins at offset %d or before it is missing or was cut", at)
}

// endOf is the offset after the last batch of a segment that can be read.
func endOf(g *segment.Segment) record.Offset {
	next := g.Base()
	w, closeWalk, err := g.Walk(0, next, false)
	if err != nil {
		return next
	}
	defer closeWalk()
	for {
		b, err := w.Next()
		if err != nil {
			return next
		}
		next = b.NextOffset()
	}
}
