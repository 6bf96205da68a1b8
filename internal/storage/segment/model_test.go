package segment_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

const dirName = "topic-0"

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 23)) }

// newFiles makes a set of open files which is closed at the test's end.
func newFiles(tb testing.TB, fs vfs.FS, limit int) *segment.Files {
	tb.Helper()
	must(tb, fs.MkdirAll(dirName))
	files := segment.NewFiles(fs, limit, slog.New(slog.DiscardHandler), vfs.File.Sync)
	tb.Cleanup(files.Close)
	return files
}

// clock says how the timestamps of a history go.
type clock uint8

const (
	rising   clock = iota // as of a producer whose clock is right
	anyhow                // in no order
	constant              // the same for all records
	absent                // no record has one
	falling               // the oldest record is the latest in time
	clocks
)

// history makes the batches of a log one after the other and keeps all of them. A segment
// is compared with it.
type history struct {
	rng   *rand.Rand
	clock clock
	gaps  bool
	value int // the most bytes of a record's value

	base    record.Offset
	next    record.Offset
	epoch   record.Epoch
	ms      int64
	batches []record.Batch
	at      []int64           // where each batch begins in the file
	stamps  [][]segment.Stamp // the records of each batch
	bytes   []byte            // that the file must have
}

const firstMS = 1_700_000_000_000

func newHistory(rng *rand.Rand, base record.Offset) *history {
	return &history{
		rng: rng, clock: clock(rng.IntN(int(clocks))), gaps: rng.IntN(2) == 0, value: 1 + rng.IntN(200),
		base: base, next: base, ms: firstMS,
	}
}

// time is the next record's timestamp.
func (h *history) time() int64 {
	switch h.clock {
	case rising:
		h.ms += h.rng.Int64N(5)
		return h.ms
	case anyhow:
		return firstMS + h.rng.Int64N(1000)
	case falling:
		h.ms -= h.rng.Int64N(5)
		return h.ms
	case absent:
		return record.NoTimestamp
	default:
		return firstMS
	}
}

// grow makes some more batches and returns them.
func (h *history) grow(tb testing.TB, n int) [][]byte {
	tb.Helper()
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = h.batch(tb)
	}
	return bufs
}

func (h *history) batch(tb testing.TB) record.Batch {
	tb.Helper()
	if h.gaps && h.rng.IntN(3) == 0 {
		h.next += record.Offset(h.rng.IntN(4))
	}
	h.epoch += record.Epoch(h.rng.IntN(6) / 5)
	var bu record.Builder
	var stamps []segment.Stamp
	for i := range 1 + h.rng.IntN(4) {
		ms := h.time()
		stamps = append(stamps, segment.Stamp{Offset: h.next + record.Offset(i), Time: ms, Epoch: h.epoch})
		bu.Append(ms, nil, bytes.Repeat([]byte{byte(i)}, h.rng.IntN(h.value)))
	}
	b, err := bu.Build()
	must(tb, err)
	b.SetBaseOffset(h.next)
	b.SetLeaderEpoch(h.epoch)
	h.add(b, stamps)
	return b
}

func (h *history) add(b record.Batch, stamps []segment.Stamp) {
	h.batches, h.at, h.stamps = append(h.batches, b), append(h.at, h.size()), append(h.stamps, stamps)
	h.bytes = append(h.bytes, b...)
	h.next = b.NextOffset()
}

// cut forgets all but the first n batches.
func (h *history) cut(n int) {
	h.next, h.bytes = h.base, h.bytes[:h.end(n)]
	if n > 0 {
		h.next, h.epoch = h.batches[n-1].NextOffset(), h.batches[n-1].LeaderEpoch()
	}
	h.batches, h.at, h.stamps = h.batches[:n], h.at[:n], h.stamps[:n]
}

func (h *history) size() int64 { return int64(len(h.bytes)) }

// end is where the first n batches end.
func (h *history) end(n int) int64 {
	if n < len(h.at) {
		return h.at[n]
	}
	return h.size()
}

// holding is the number of the batch that holds an offset, or of the first one after it.
func (h *history) holding(o record.Offset) int {
	i := slices.IndexFunc(h.batches, func(b record.Batch) bool { return b.NextOffset() > o })
	if i < 0 {
		return len(h.batches)
	}
	return i
}

func (h *history) info(i int) segment.BatchInfo {
	b := h.batches[i]
	return segment.BatchInfo{
		Pos: h.at[i], End: h.end(i + 1), Base: b.BaseOffset(), Next: b.NextOffset(),
		Epoch: b.LeaderEpoch(), MaxTime: b.MaxTimestamp(),
	}
}

func (h *history) findTime(ms int64, from record.Offset) (segment.Stamp, bool) {
	for _, s := range slices.Concat(h.stamps...) {
		if s.Offset >= from && s.Time >= ms {
			return s, true
		}
	}
	return segment.Stamp{}, false
}

func (h *history) maxTime(from record.Offset) int64 {
	latest := record.NoTimestamp
	for _, s := range slices.Concat(h.stamps...) {
		if s.Offset >= from {
			latest = max(latest, s.Time)
		}
	}
	return latest
}

// subject is a segment and the history that it must have.
type subject struct {
	*history
	t        testing.TB
	files    *segment.Files
	dir      *segment.Dir
	g        *segment.Segment
	interval int
	coarse   bool // its index may have been made anew, with an interval of its own choice
}

// newSubject makes an active segment without a record.
func newSubject(tb testing.TB, files *segment.Files, rng *rand.Rand, prealloc int64) *subject {
	tb.Helper()
	s := &subject{
		history: newHistory(rng, record.Offset(rng.IntN(3))*1000), t: tb, files: files, dir: segment.NewDir(dirName),
		interval: 100 + rng.IntN(1000),
	}
	g, err := segment.Create(files, s.dir, s.base, prealloc, 1)
	must(tb, err)
	s.g = g
	s.allowGaps()
	return s
}

func (s *subject) allowGaps() {
	if s.gaps {
		s.g.AllowGaps()
	}
}

// append makes n batches and appends them in writes of a few.
func (s *subject) append(n int) {
	s.t.Helper()
	for n > 0 {
		k := min(n, 1+s.rng.IntN(5))
		must(s.t, s.g.Append(s.grow(s.t, k), s.interval))
		n -= k
	}
}

// reopen attaches the segment's files, as a start does that has walked them.
func (s *subject) reopen() {
	s.g.CloseFile()
	s.coarse = true
	s.g = segment.Attach(s.files, s.dir, s.base, s.size(), 1)
	s.g.SetRecovered(s.size(), s.next, s.size(), true)
	s.allowGaps()
}

// close seals and closes the segment.
func (s *subject) close() {
	s.t.Helper()
	must(s.t, s.g.Seal())
	s.g.Close()
}

// check compares the results of all the segment's methods with the history.
func (s *subject) check(what string, active bool) {
	s.t.Helper()
	if size, next := s.g.End(); size != s.size() || next != s.next {
		s.t.Fatalf("%s: it ends at byte %d, offset %d, not %d, %d", what, size, next, s.size(), s.next)
	}
	s.checkMaxTime(what, active)
	s.checkLocate(what)
	s.checkReads(what)
	s.checkTimes(what)
	s.checkLastBase(what)
}

func (s *subject) checkMaxTime(what string, active bool) {
	s.t.Helper()
	if got, err := s.g.MaxTime(active); err != nil || got != s.maxTime(s.base) {
		s.t.Fatalf("%s: the largest time is %d, %v, want %d", what, got, err, s.maxTime(s.base))
	}
}

func (s *subject) checkLocate(what string) {
	s.t.Helper()
	for range 40 {
		o := max(s.base-2, 0) + record.Offset(s.rng.IntN(int(s.next-s.base)+5))
		got, err := s.g.Locate(o)
		i := s.holding(o)
		if i == len(s.batches) {
			if !errors.Is(err, io.EOF) {
				s.t.Fatalf("%s: offset %d beyond the end: %+v, %v", what, o, got, err)
			}
			continue
		}
		if want := s.info(i); err != nil || got != want {
			s.t.Fatalf("%s: offset %d: %+v, %v, want %+v", what, o, got, err, want)
		}
	}
}

// checkReads reads from some offsets, up to some limits and lengths.
func (s *subject) checkReads(what string) {
	s.t.Helper()
	for range 25 {
		o := max(s.base-1, 0) + record.Offset(s.rng.IntN(int(s.next-s.base)+4))
		for _, maxBytes := range []int{0, 1 + s.rng.IntN(300), 1 + s.rng.IntN(int(s.size())+300), math.MaxInt} {
			limit := s.next
			if s.rng.IntN(2) == 0 {
				limit = s.base + record.Offset(s.rng.IntN(int(s.next-s.base)+3))
			}
			s.read(what, o, limit, maxBytes)
		}
	}
}

// read reads once, compares, and returns the number of whole batches that it got.
func (s *subject) read(what string, from, limit record.Offset, maxBytes int) int {
	s.t.Helper()
	c, err := s.g.Read(from, limit, maxBytes)
	if err != nil {
		s.t.Fatalf("%s: read(%d, %d, %d): %v", what, from, limit, maxBytes, err)
	}
	first, last := s.holding(from), 0 // the batches from first to last, exclusive, may be read
	for last < len(s.batches) && s.batches[last].NextOffset() <= limit {
		last++
	}
	if first >= last {
		if c != nil {
			s.t.Fatalf("%s: read(%d, %d, %d) gave %d bytes, and no batch lies there", what, from, limit, maxBytes, c.Len())
		}
		return 0
	}
	if c == nil {
		s.t.Fatalf("%s: read(%d, %d, %d) gave nothing, not batch %d", what, from, limit, maxBytes, first)
	}
	defer c.Release()
	got := make([]byte, c.Len())
	if n, err := c.ReadAt(got, 0); n != len(got) || err != nil {
		s.t.Fatalf("%s: %d of %d bytes, %v", what, n, len(got), err)
	}
	want := s.bytes[s.at[first]:s.end(last)]
	if !bytes.HasPrefix(want, got) {
		s.t.Fatalf("%s: read(%d, %d, %d) gave other bytes", what, from, limit, maxBytes)
	}
	s.checkLength(what, got, want, first, maxBytes)
	return s.wholeBatches(first, int64(len(got)))
}

// checkLength proves that a read got its whole first batch, no more than it asked for, and
// not much less.
func (s *subject) checkLength(what string, got, want []byte, first, maxBytes int) {
	s.t.Helper()
	one := len(s.batches[first])
	if len(got) < one || len(got) > max(one, maxBytes) {
		s.t.Fatalf("%s: %d bytes where the first batch has %d and %d were asked for", what, len(got), one, maxBytes)
	}
	largest := 0
	for _, b := range s.batches {
		largest = max(largest, len(b))
	}
	interval := s.interval
	if s.coarse {
		interval = max(interval, 4096)
	}
	if least := min(len(want), maxBytes-interval-2*largest); len(got) < least {
		s.t.Fatalf("%s: only %d bytes of %d, of which %d were asked for", what, len(got), len(want), maxBytes)
	}
}

// wholeBatches is how many batches lie within n bytes from the first one's beginning.
func (s *subject) wholeBatches(first int, n int64) int {
	last := first
	for last < len(s.batches) && s.end(last+1) <= s.at[first]+n {
		last++
	}
	return last - first
}

func (s *subject) checkTimes(what string) {
	s.t.Helper()
	work := segment.Work{Ctx: s.t.Context()}
	for range 30 {
		from := s.base + record.Offset(s.rng.IntN(int(s.next-s.base)+2))
		ms := firstMS + s.rng.Int64N(1200) - 600
		if all := slices.Concat(s.stamps...); len(all) > 0 && s.rng.IntN(2) == 0 {
			ms = all[s.rng.IntN(len(all))].Time + s.rng.Int64N(3) - 1
		}
		ms = max(ms, 0)
		got, ok, err := s.g.FindTime(work, ms, from)
		if want, found := s.findTime(ms, from); err != nil || ok != found || ok && got != want {
			s.t.Fatalf("%s: time %d from %d: %+v, %v, %v, want %+v, %v", what, ms, from, got, ok, err, want, found)
		}
		latest, err := s.g.MaxTimeFrom(work, from, s.maxTime(s.base))
		if want := s.maxTime(from); err != nil || latest != want {
			s.t.Fatalf("%s: the largest time from %d is %d, %v, want %d", what, from, latest, err, want)
		}
	}
}

func (s *subject) checkLastBase(what string) {
	s.t.Helper()
	for range 40 {
		pos := s.rng.Int64N(s.size()+10) - 2
		if len(s.at) > 0 && s.rng.IntN(2) == 0 {
			pos = s.at[s.rng.IntN(len(s.at))] + s.rng.Int64N(3) - 1
		}
		want := record.Offset(-1)
		for i, at := range s.at {
			if at <= pos {
				want = s.batches[i].BaseOffset()
			}
		}
		if got, err := s.g.LastBaseAt(pos); err != nil || got != want {
			s.t.Fatalf("%s: at byte %d begins %d, %v, want %d", what, pos, got, err, want)
		}
	}
}

// contents reads a file whole; nil: it is missing.
func contents(tb testing.TB, fs vfs.FS, name string) []byte {
	tb.Helper()
	f, err := fs.Open(name, vfs.ReadOnly)
	if errors.Is(err, vfs.ErrNotExist) {
		return nil
	}
	must(tb, err)
	defer func() { must(tb, f.Close()) }()
	n, err := f.Size()
	must(tb, err)
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		tb.Fatal(err)
	}
	return b
}

// put gives a file new contents; nil: it is removed.
func put(tb testing.TB, fs vfs.FS, name string, b []byte) {
	tb.Helper()
	if b == nil {
		must(tb, fs.Remove(name))
		return
	}
	f, err := fs.Open(name, vfs.Fresh)
	must(tb, err)
	_, err = f.WriteAt(b, 0)
	must(tb, errors.Join(err, f.Close()))
}

// truncate keeps the first n batches.
func (s *subject) truncate(n int) error {
	s.t.Helper()
	at, next := s.end(n), s.base
	if n > 0 {
		next = s.batches[n-1].NextOffset()
	}
	g, err := s.g.Truncate(at, next, 1)
	if err == nil {
		s.g = g
		s.cut(n)
	}
	return err
}
