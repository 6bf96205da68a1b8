package storage

import (
	"errors"
	"slices"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// sizesOf lists the sizes of segments.
func sizesOf(segs []*segment.Segment) []checkpoint.Size {
	sizes := make([]checkpoint.Size, 0, len(segs))
	for _, g := range segs {
		sizes = append(sizes, checkpoint.Size{Base: g.Base(), Bytes: g.Size()})
	}
	return sizes
}

// checkFiles looks for logs with missing or short files once, after the start, so that the operator
// hears of them before somebody needs a record. It lists the directories of logs that nobody has
// used yet. It opens only logs that lack something, and these report the loss.
func checkFiles(s *Store) {
	for _, l := range s.allLogs() {
		if s.closing.Load() {
			return
		}
		p := s.points.Get(l.id)
		if logState(l.state.Load()) != logUnopened || !p.HadRecords() {
			continue
		}
		segs, err := listSegments(s, l.name)
		if err == nil && p.IsWhole(segs) {
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
func listSegments(s *Store, dir string) (segs []checkpoint.Size, err error) {
	infos, err := s.fs.ReadDir(s.pathOf(dir))
	for _, i := range infos { // all names have as many digits as the largest offset, so they sort by offset
		if base, ok := segment.ParseFileName(i.Name, segment.LogSuffix); ok {
			segs = append(segs, checkpoint.Size{Base: base, Bytes: i.Size})
		}
	}
	return segs, err
}

// reportMissing reports the segments of a log that are missing, or shorter than its point says.
func reportMissing(l *Log, p *checkpoint.Point, segs []*segment.Segment) {
	if p.IsWhole(sizesOf(segs)) {
		return
	}
	i := slices.IndexFunc(segs, func(g *segment.Segment) bool { return g.Base() == p.Base })
	switch {
	case i < 0 && p.Pos > 0:
		l.reportLoss("%s is missing, though it had %d bytes", segmentPath(l, p.Base), p.Pos)
	case i >= 0 && segs[i].Size() < p.Pos:
		l.reportLoss("%s has %d bytes and had %d", segmentPath(l, p.Base), segs[i].Size(), p.Pos)
	default:
		l.reportLoss("the segments from offset %d to %d had %d bytes and have %d: %s is missing or was cut",
			p.Start, p.Base, p.Closed, p.CountClosed(sizesOf(segs)), segmentPath(l, segment.FindHole(segs, p.Start)))
	}
}

// segmentPath is the path of a log's file that begins with an offset, or began with it, for an operator.
func segmentPath(l *Log, base record.Offset) string {
	return l.s.pathOf(l.name, segment.FileName(base, segment.LogSuffix))
}
