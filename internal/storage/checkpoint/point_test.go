package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/checkpoint"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 29)) }

func logID(i int) record.LogID {
	return record.LogID{Topic: [16]byte{1, byte(i >> 8), byte(i)}, Partition: int32(i % 7)}
}

func randomPoint(rng *rand.Rand) checkpoint.Point {
	base := record.Offset(rng.Int64N(1000))
	next := base + record.Offset(rng.Int64N(1000))
	return checkpoint.Point{
		Vouched: rng.IntN(2) == 0, Gaps: rng.IntN(2) == 0,
		Base: base, Pos: rng.Int64N(1 << 30), Next: next, Start: record.Offset(rng.Int64N(500)),
		HighWatermark: record.Offset(rng.Int64N(1000)), Snapshot: record.Offset(rng.Int64N(1000)) - 1,
		ProducersAt: record.Offset(rng.Int64N(int64(next)+2)) - 1, Oldest: rng.Int64N(1<<40) - 2,
	}
}

func randomSheet(rng *rand.Rand, points int) *checkpoint.Sheet {
	s := &checkpoint.Sheet{
		Generation: rng.Uint64(), Metadata: rng.Uint64(),
		At:     checkpoint.Mark{File: rng.IntN(1 << 31), Pos: rng.Int64(), Round: rng.Uint64(), Prev: rng.Uint32()},
		Points: map[record.LogID]checkpoint.Point{},
	}
	for i := range s.Journal {
		s.Journal[i] = byte(rng.Uint32())
	}
	s.Transactional = rng.IntN(2) == 0
	for i := range points {
		p := randomPoint(rng)
		if p.Transactional = s.Transactional && rng.IntN(2) == 0; p.Transactional {
			p.TransactionsFrom, p.Stable = record.Offset(rng.Int64N(1000)), record.Offset(rng.Int64N(1000))
		}
		s.Points[logID(i)] = p
	}
	return s
}

func diff(want, got *checkpoint.Sheet) string { return cmp.Diff(want, got, cmpopts.EquateEmpty()) }

// TestSheetRoundTrip proves that a decoded sheet equals the encoded one, with any bytes after it
// in the file, and that equal sheets have equal bytes.
func TestSheetRoundTrip(t *testing.T) {
	for seed := range uint64(50) {
		rng := seeded(seed)
		s := randomSheet(rng, rng.IntN(40))
		b := s.Encode()
		again := *s
		again.Points = maps.Clone(s.Points)
		if !bytes.Equal(b, again.Encode()) {
			t.Fatalf("seed %d: equal sheets have other bytes", seed)
		}
		for _, tail := range [][]byte{nil, make([]byte, 1000), bytes.Repeat([]byte("LEATCKPT"), 9)} {
			got, err := checkpoint.Decode(append(bytes.Clone(b), tail...))
			if err != nil || diff(s, got) != "" {
				t.Fatalf("seed %d, followed by %d bytes: %v\n%s", seed, len(tail), err, diff(s, got))
			}
		}
	}
}

// TestSheetEveryFlip proves that a sheet with any flipped bit is refused, or decoded to the same
// content.
func TestSheetEveryFlip(t *testing.T) {
	s := randomSheet(seeded(1), 3)
	b := s.Encode()
	for bit := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if got, err := checkpoint.Decode(bad); err == nil && diff(s, got) != "" {
			t.Errorf("bit %d of byte %d: %s", bit%8, bit/8, diff(s, got))
		}
	}
}

// TestSheetCutShort proves that a sheet that is cut short at any byte is refused.
func TestSheetCutShort(t *testing.T) {
	b := randomSheet(seeded(2), 3).Encode()
	for n := range b {
		for _, bad := range [][]byte{b[:n], append(bytes.Clone(b[:n]), make([]byte, len(b)-n)...)} {
			if _, err := checkpoint.Decode(bad); !errors.Is(err, checkpoint.ErrNotWhole) && !bytes.Equal(bad, b) {
				t.Errorf("%d of %d bytes, then %d: %v", n, len(b), len(bad)-n, err)
			}
		}
	}
}

// resum gives changed bytes of a sheet a right checksum again.
func resum(b []byte) []byte {
	n := binary.BigEndian.Uint32(b[16:])
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(b[12:], crc32.Update(crc32.Checksum(b[8:12], table), table, b[16:28+n]))
	return b
}

// TestSheetRefused proves that sheets with impossible content are refused although their
// checksum is right, with the right error.
func TestSheetRefused(t *testing.T) {
	const firstPoint = 80
	for _, c := range []struct {
		what   string
		change func(b []byte)
		err    error
	}{
		{"nothing", func([]byte) {}, nil},
		{"a newer version", func(b []byte) { b[9] = 5 }, checkpoint.ErrNewer},
		{"a much newer version", func(b []byte) { b[8] = 9 }, checkpoint.ErrNewer},
		{"a development version", func(b []byte) { copy(b, "LEATCP07") }, checkpoint.ErrOlder},
		{"another file", func(b []byte) { copy(b, "LEATJRNL") }, checkpoint.ErrNotWhole},
		{"a place before the journal's file", func(b []byte) { b[48] = 0x80 }, checkpoint.ErrNotWhole},
		{"more points than there are", func(b []byte) { b[79]++ }, checkpoint.ErrNotWhole},
		{"fewer points than there are", func(b []byte) { b[79]-- }, checkpoint.ErrNotWhole},
		{"a segment below 0", func(b []byte) { b[firstPoint+21] = 0x80 }, checkpoint.ErrNotWhole},
		{"a position below 0", func(b []byte) { b[firstPoint+29] = 0x80 }, checkpoint.ErrNotWhole},
		{"an end below its segment", func(b []byte) { b[firstPoint+37] = 0x80 }, checkpoint.ErrNotWhole},
		{"a start below 0", func(b []byte) { b[firstPoint+45] = 0x80 }, checkpoint.ErrNotWhole},
		{"a high watermark below 0", func(b []byte) { b[firstPoint+53] = 0x80 }, checkpoint.ErrNotWhole},
		{"a snapshot below none", func(b []byte) { b[firstPoint+61] = 0x80 }, checkpoint.ErrNotWhole},
		{"producers below none", func(b []byte) { b[firstPoint+69] = 0x80 }, checkpoint.ErrNotWhole},
		{"fewer bytes than none", func(b []byte) { b[firstPoint+85] = 0x80 }, checkpoint.ErrNotWhole},
	} {
		b := randomSheet(seeded(3), 2).Encode()
		c.change(b)
		if _, err := checkpoint.Decode(resum(b)); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestTable proves what each method of a Table does to points.
func TestTable(t *testing.T) {
	a, b := logID(1), logID(2)
	none := checkpoint.Point{Snapshot: -1, ProducersAt: -1, Oldest: checkpoint.TimeUnknown, Closed: checkpoint.BytesUnknown}
	p := checkpoint.Point{
		Vouched: true, Base: 100, Pos: 5000, Next: 200, Start: 10, HighWatermark: 150, Snapshot: 180, ProducersAt: 190, Oldest: 7, Closed: 900,
		Transactional: true, TransactionsFrom: 120, Stable: 145,
	}
	tb := checkpoint.NewTable(nil, nil)
	expect := func(what string, id record.LogID, want checkpoint.Point) {
		t.Helper()
		if d := cmp.Diff(want, tb.Get(id)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	expect("an unknown log", a, none)
	tb.Set(a, p)
	expect("set", a, p)

	tb.RaiseStart(a, 5)
	expect("a start that is no higher", a, p)
	tb.RaiseStart(a, 20)
	p.Start, p.Closed, p.Oldest = 20, checkpoint.BytesUnknown, checkpoint.TimeUnknown // the records and segments that they are about are others now
	expect("a start that is", a, p)
	p.Closed, p.Oldest = 900, 7
	tb.Set(a, p)
	tb.RaiseStart(b, 30)
	raised := none
	raised.Start = 30
	expect("the start of a log that was unknown", b, raised)

	tb.Lower(a, 100, 9000, 200, 0)
	expect("lowered to its own end", a, p)
	tb.Lower(a, 100, 4000, 195, 0)
	p.Pos, p.Next, p.Closed = 4000, 195, checkpoint.BytesUnknown
	expect("lowered to behind its producers' offset", a, p)
	tb.Lower(a, 50, 10, 60, 0)
	p.Base, p.Pos, p.Next, p.ProducersAt, p.HighWatermark, p.Stable = 50, 10, 60, 60, 60, 60
	expect("lowered below it", a, p)
	tb.Lower(a, 50, 5, 15, 40)
	p.Pos, p.Next, p.ProducersAt, p.HighWatermark, p.Stable = 5, 15, 15, 40, 15
	expect("lowered below a start that it has not yet", a, p)
	tb.Lower(a, 50, 0, 10, 0)
	p.Pos, p.Next, p.ProducersAt, p.HighWatermark, p.Stable = 0, 10, 10, 20, 10
	expect("lowered below its start", a, p)
	tb.Lose(a)
	lost := none
	lost.Lost, lost.Start = true, 20
	expect("lost", a, lost)
	tb.Lower(logID(9), 0, 0, 0, 0)
	if ids := tb.IDs(); len(ids) != 2 {
		t.Errorf("there are points of %v", ids)
	}

	tb.Forget(a)
	expect("forgotten", a, none)
	points, many := tb.Changed()
	if many || len(points) != 2 || points[a] != none || len(tb.All()) != 1 {
		t.Errorf("%v changed", points)
	}
	base := &checkpoint.Sheet{Generation: 1, Points: map[record.LogID]checkpoint.Point{a: p}}
	tb = checkpoint.NewTable(base, &checkpoint.Sheet{Generation: 2, Points: points})
	expect("forgotten, though the file with all points has it", a, none)
	if ids := tb.IDs(); len(ids) != 1 {
		t.Errorf("there are points of %v", ids)
	}
}

// forgotten is the point of a log that has none.
var forgotten = checkpoint.Point{Snapshot: -1, ProducersAt: -1, Oldest: checkpoint.TimeUnknown, Closed: checkpoint.BytesUnknown}

// TestTableChanged proves that a point counts as changed until all points have been written
// twice (before that, the older of the two files with all points lacks it, which is used if the
// newer one is damaged), and that Changed tells when all points are to be written.
func TestTableChanged(t *testing.T) {
	rng := seeded(4)
	tb := checkpoint.NewTable(nil, nil)
	for i := range 256 {
		tb.Set(logID(i), randomPoint(rng))
	}
	if points, many := tb.Changed(); many || cmp.Diff(tb.All(), points) != "" {
		t.Errorf("%d changed, many: %v", len(points), many)
	}
	for i := range 2000 {
		tb.Set(logID(i), randomPoint(rng))
	}
	if _, many := tb.Changed(); !many {
		t.Error("2000 of 2000 are not many")
	}
	all := tb.All()
	late := randomPoint(rng)
	tb.Set(logID(3), late) // while the others are written
	tb.Forget(logID(4))
	tb.RaiseStart(logID(5), all[logID(5)].Start) // not a change
	tb.NoteWritten(all)
	want := tb.All()
	want[logID(4)] = forgotten // the file that was written has it
	if points, many := tb.Changed(); many || cmp.Diff(want, points) != "" || points[logID(3)] != late {
		t.Errorf("after all were written: %d of %d, many: %v", len(points), len(tb.All()), many)
	}
	tb.NoteWritten(tb.All())
	want = map[record.LogID]checkpoint.Point{logID(3): late, logID(4): forgotten}
	if points, many := tb.Changed(); many || cmp.Diff(want, points) != "" {
		t.Errorf("after all were written twice: %d, many: %v", len(points), many)
	}
	tb.NoteWritten(tb.All())
	if points, many := tb.Changed(); many || len(points) > 0 {
		t.Errorf("without a change: %d, many: %v", len(points), many)
	}
	for i := range 499 {
		tb.Set(logID(i), randomPoint(rng))
	}
	if points, many := tb.Changed(); many || len(points) != 499 {
		t.Errorf("a quarter of the points: %d, %v", len(points), many)
	}
	for i := range 505 {
		tb.Set(logID(i), randomPoint(rng))
	}
	if _, many := tb.Changed(); !many {
		t.Error("more than a quarter are not many")
	}
}

// TestTableOfTwoFiles proves that of two points of a log the one in the file that was written
// later counts, which may be either file.
func TestTableOfTwoFiles(t *testing.T) {
	sheet := func(generation uint64, points map[int]record.Offset) *checkpoint.Sheet {
		s := &checkpoint.Sheet{Generation: generation, Points: map[record.LogID]checkpoint.Point{}}
		for i, next := range points {
			s.Points[logID(i)] = checkpoint.Point{Vouched: true, Next: next}
		}
		return s
	}
	for _, c := range []struct {
		what      string
		base, hot *checkpoint.Sheet
		want      map[int]record.Offset
		changed   int
	}{
		{"no files", nil, nil, nil, 0},
		{"points only", sheet(1, map[int]record.Offset{1: 10}), nil, map[int]record.Offset{1: 10}, 0},
		{"a checkpoint only", nil, sheet(1, map[int]record.Offset{1: 10}), map[int]record.Offset{1: 10}, 1},
		{
			"a newer checkpoint",
			sheet(1, map[int]record.Offset{1: 10, 2: 20}), sheet(2, map[int]record.Offset{1: 11, 3: 30}),
			map[int]record.Offset{1: 11, 2: 20, 3: 30},
			2,
		},
		{
			"newer points",
			sheet(3, map[int]record.Offset{1: 10, 2: 20}), sheet(2, map[int]record.Offset{1: 11, 2: 19}),
			map[int]record.Offset{1: 10, 2: 20},
			2,
		},
	} {
		tb := checkpoint.NewTable(c.base, c.hot)
		got := map[int]record.Offset{}
		for id, p := range tb.All() {
			got[int(id.Topic[2])] = p.Next
		}
		if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
		if points, many := tb.Changed(); many || len(points) != c.changed {
			t.Errorf("%s: %d changed", c.what, len(points))
		}
	}
}

// TestTableConcurrently proves, with the race detector, that many goroutines may use a table, and
// that no change is lost that comes while a file is written.
func TestTableConcurrently(t *testing.T) {
	tb := checkpoint.NewTable(nil, nil)
	written := map[record.LogID]checkpoint.Point{}
	var wg sync.WaitGroup
	for w := range 4 {
		rng := seeded(uint64(w))
		wg.Go(func() {
			for range 500 {
				id := logID(w*10 + rng.IntN(10))
				switch rng.IntN(5) {
				case 0:
					tb.RaiseStart(id, record.Offset(rng.IntN(600)))
				case 1:
					tb.Lower(id, 0, 0, record.Offset(rng.IntN(600)), 0)
				case 2:
					tb.Get(id)
				default:
					tb.Set(id, randomPoint(rng))
				}
			}
		})
	}
	for range 50 {
		all := tb.All()
		maps.Copy(written, all)
		tb.NoteWritten(all)
	}
	wg.Wait()
	points, _ := tb.Changed()
	maps.Copy(written, points)
	if d := cmp.Diff(tb.All(), written); d != "" {
		t.Error(d)
	}
}

// TestLowerLostPoint proves that a truncation lowers the high watermark of a lost point, which an
// earlier version may have left in a file.
func TestLowerLostPoint(t *testing.T) {
	tb := checkpoint.NewTable(nil, nil)
	p := checkpoint.Point{Lost: true, HighWatermark: 60}
	tb.Set(logID(1), p)
	tb.Lower(logID(1), 50, 10, 55, 0)
	if p.HighWatermark = 55; tb.Get(logID(1)) != p {
		t.Errorf("%+v, want %+v", tb.Get(logID(1)), p)
	}
}
