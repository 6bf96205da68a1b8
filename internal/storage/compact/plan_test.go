package compact

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/record"
)

// logOf has segments at 0, 100, 200, ... of 1000 bytes, of which the last one is active. The records of
// segment i have the timestamps 1000*i+1 to 1000*i+900.
func logOf(segments int) *Log {
	l := &Log{
		Cleaned: NoRound, End: record.Offset(100*segments - 50),
		Config: Config{MaxLag: math.MaxInt64, DirtyRatio: 0.5, SegmentBytes: 1 << 30, IndexBytes: 10 << 20},
	}
	l.LastStable, l.HighWatermark = l.End, l.End
	for i := range segments {
		l.Segments = append(l.Segments, Segment{
			Base: record.Offset(100 * i), Bytes: 1000, Index: 16, TimeIndex: 24, FirstTime: int64(1000*i + 1), LastTime: int64(1000*i + 900),
		})
	}
	return l
}

func TestPlanRound(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *Log)
		want   Round
	}{
		"a log without rounds is dirty from its start":    {func(*Log) {}, Round{Upper: 400, Dirty: 4000, Due: DueByRatio}},
		"the active segment is never compacted":           {func(l *Log) { l.Segments = l.Segments[4:] }, Round{First: 0, Upper: 400}},
		"clean segments count":                            {func(l *Log) { l.Cleaned = 200 }, Round{First: 200, Upper: 400, Clean: 2000, Dirty: 2000}},
		"the ratio must be exceeded":                      {func(l *Log) { l.Cleaned, l.Config.DirtyRatio = 200, 0.49 }, Round{First: 200, Upper: 400, Clean: 2000, Dirty: 2000, Due: DueByRatio}},
		"a segment of which a part is dirty is dirty":     {func(l *Log) { l.Cleaned = 250 }, Round{First: 250, Upper: 400, Clean: 2000, Dirty: 2000}},
		"nothing is dirty":                                {func(l *Log) { l.Cleaned = 400 }, Round{First: 400, Upper: 400, Clean: 4000}},
		"the last round has ended in the active segment":  {func(l *Log) { l.Cleaned = 420 }, Round{First: 420, Upper: 400, Clean: 4000}},
		"the last stable offset":                          {func(l *Log) { l.LastStable = 399 }, Round{Upper: 300, Dirty: 3000, Due: DueByRatio}},
		"the last stable offset at the end of a segment":  {func(l *Log) { l.LastStable = 300 }, Round{Upper: 300, Dirty: 3000, Due: DueByRatio}},
		"the high watermark":                              {func(l *Log) { l.HighWatermark = 120 }, Round{Upper: 100, Dirty: 1000, Due: DueByRatio}},
		"the high watermark below the last round":         {func(l *Log) { l.Cleaned, l.HighWatermark = 200, 120 }, Round{First: 200, Upper: 200, Clean: 2000}},
		"min.compaction.lag.ms":                           {func(l *Log) { l.Config.MinLag = 10_000 - 1900 + 1 }, Round{Upper: 100, Dirty: 1000, Due: DueByRatio}},
		"min.compaction.lag.ms is over":                   {func(l *Log) { l.Config.MinLag = 10_000 - 3900 }, Round{Upper: 400, Dirty: 4000, Due: DueByRatio}},
		"min.compaction.lag.ms does not count clean ones": {func(l *Log) { l.Cleaned, l.Config.MinLag = 100, 8000; l.Segments[0].LastTime = 9999 }, Round{First: 100, Upper: 200, Clean: 1000, Dirty: 1000}},
		"max.compaction.lag.ms":                           {func(l *Log) { l.Cleaned, l.Config.MaxLag = 300, 10_000-3001-5 }, Round{First: 300, Upper: 400, Clean: 3000, Dirty: 1000, Due: DueByAge, Overdue: 5}},
		"max.compaction.lag.ms is not over":               {func(l *Log) { l.Cleaned, l.Config.MaxLag = 300, 10_000-3001 }, Round{First: 300, Upper: 400, Clean: 3000, Dirty: 1000}},
		"max.compaction.lag.ms without dirty segments":    {func(l *Log) { l.Cleaned, l.HighWatermark, l.Config.MaxLag = 300, 310, 5 }, Round{First: 300, Upper: 300, Clean: 3000, Overdue: 6994}},
		"a first timestamp that is not known":             {func(l *Log) { l.Cleaned, l.Config.MaxLag, l.Segments[3].FirstTime = 300, 5, -1 }, Round{First: 300, Upper: 400, Clean: 3000, Dirty: 1000}},
		"a first timestamp of the future":                 {func(l *Log) { l.Cleaned, l.Segments[3].FirstTime = 300, math.MaxInt64 }, Round{First: 300, Upper: 400, Clean: 3000, Dirty: 1000}},
		"the log was cut below the last round":            {func(l *Log) { l.Cleaned = 451 }, Round{Upper: 400, Reset: true, Dirty: 4000, Due: DueByRatio}},
		"the start has moved beyond the last round":       {func(l *Log) { l.Cleaned, l.Start = 100, 230 }, Round{First: 230, Upper: 400, Reset: true, Clean: 2000, Dirty: 2000}},
		"the start has moved into the active segment":     {func(l *Log) { l.Start, l.Cleaned = 410, 100; l.Segments = l.Segments[4:] }, Round{First: 410, Upper: 400, Reset: true}},
		"the start is beyond 0 and there was no round":    {func(l *Log) { l.Start = 100; l.Segments = l.Segments[1:] }, Round{First: 100, Upper: 400, Dirty: 3000, Due: DueByRatio}},
		"a log without a segment":                         {func(l *Log) { l.Segments, l.End = nil, 0 }, Round{}},
		"empty segments":                                  {func(l *Log) { l.Segments[0].Bytes = 0; l.Segments = l.Segments[:1] }, Round{}},
	} {
		l := logOf(5)
		c.change(l)
		got := l.PlanRound(10_000)
		if got.Bound, got.Held, got.Active = 0, 0, 0; got != c.want { // TestRoundSaysWhyItEnds checks those
			t.Errorf("%s: %+v instead of %+v", name, got, c.want)
		}
	}
}

// TestRoundSaysWhyItEnds proves that a plan names what keeps a round from going on, and how much waits for that.
func TestRoundSaysWhyItEnds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *Log)
		by     Bound
		held   int64
	}{
		"the active segment":                           {func(*Log) {}, ByActive, 0},
		"an open transaction in the active one":        {func(l *Log) { l.LastStable = 410 }, ByActive, 0},
		"an open transaction":                          {func(l *Log) { l.LastStable = 250 }, ByStable, 2000},
		"an open transaction below the high watermark": {func(l *Log) { l.LastStable, l.HighWatermark = 150, 350 }, ByStable, 3000},
		"the high watermark":                           {func(l *Log) { l.LastStable, l.HighWatermark = 120, 120 }, ByWatermark, 3000},
		"min.compaction.lag.ms":                        {func(l *Log) { l.Config.MinLag = 10_000 - 1900 + 1 }, ByLag, 3000},
		"all is clean":                                 {func(l *Log) { l.Cleaned = 420 }, ByActive, 0},
	} {
		l := logOf(5)
		c.change(l)
		if r := l.PlanRound(10_000); r.Bound != c.by || r.Held != c.held || r.Active != 1000 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestCompareRounds(t *testing.T) {
	rounds := []Round{
		{Clean: 50, Dirty: 50, Due: DueByRatio},
		{Clean: 99, Dirty: 1, Due: DueByAge},
		{Clean: 40, Dirty: 60, Due: DueByRatio},
	}
	slices.SortFunc(rounds, CompareRounds)
	if rounds[0].Dirty != 60 || rounds[2].Dirty != 1 {
		t.Errorf("%+v", rounds)
	}
}

func TestGroupSegments(t *testing.T) {
	groups := func(l *Log, end record.Offset) string {
		text := ""
		for _, g := range l.GroupSegments(end) {
			for i, s := range g {
				if i > 0 {
					text += "+"
				}
				text += fmt.Sprint(s.Base / 100)
			}
			text += " "
		}
		return text
	}
	for name, c := range map[string]struct {
		change func(l *Log)
		end    record.Offset
		want   string
	}{
		"all fit into one":               {func(*Log) {}, 500, "0+1+2+3+4 "},
		"only those below the map's end": {func(*Log) {}, 201, "0+1+2 "},
		"none":                           {func(*Log) {}, 0, ""},
		"never the active one":           {func(*Log) {}, 9999, "0+1+2+3+4 "},
		"bytes":                          {func(l *Log) { l.Config.SegmentBytes = 2000 }, 500, "0+1 2+3 4 "},
		"a segment that is too large":    {func(l *Log) { l.Config.SegmentBytes = 10 }, 300, "0 1 2 "},
		"the index":                      {func(l *Log) { l.Config.IndexBytes, l.Segments[0].TimeIndex = 48, 0; l.Segments[3].Index = 33 }, 500, "0+1+2 3 4 "},
		"the index of timestamps":        {func(l *Log) { l.Config.IndexBytes = 71 }, 500, "0+1 2+3 4 "},
		"as many offsets as fit":         {func(l *Log) { l.Segments[3].Base = 1 << 31 }, 300, "0+1+2 "},
		"more offsets than fit":          {func(l *Log) { l.Segments[3].Base = 1<<31 + 1 }, 300, "0+1 2 "},
		"an empty one has no offsets":    {func(l *Log) { l.Segments[3].Base = 1<<31 + 1; l.Segments[2].Bytes = 0 }, 300, "0+1+2 "},
	} {
		l := logOf(6)
		c.change(l)
		if name == "the index" {
			for i := range l.Segments {
				l.Segments[i].TimeIndex = 0
			}
		}
		if got := groups(l, c.end); got != c.want {
			t.Errorf("%s: %q instead of %q", name, got, c.want)
		}
	}
}

// TestPlansAreSound proves of any log that its plan stays within bounds, and that the groups have each segment
// once and keep their bounds.
func TestPlansAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, n int64) int64 { return rapid.Int64Range(0, n).Draw(t, name) }
		l := &Log{Cleaned: record.Offset(draw("cleaned", 3000) - 1), Config: Config{
			MinLag: draw("min lag", 2000), MaxLag: draw("max lag", 2000), DirtyRatio: rapid.Float64Range(0, 1).Draw(t, "ratio"),
			SegmentBytes: draw("segment bytes", 3000), IndexBytes: draw("index bytes", 300),
		}}
		at := record.Offset(draw("base", 100))
		for range rapid.IntRange(1, 8).Draw(t, "segments") {
			l.Segments = append(l.Segments, Segment{at, draw("bytes", 1000), draw("index", 100), draw("times", 100), draw("first", 3000), draw("last", 3000)})
			at += record.Offset(draw("offsets", 300) + 1)
		}
		l.End = at
		l.Start = l.Segments[0].Base + record.Offset(draw("start", int64(at-l.Segments[0].Base)))
		l.HighWatermark = min(l.End, l.Start+record.Offset(draw("high watermark", 2000)))
		l.LastStable = min(l.HighWatermark, l.Start+record.Offset(draw("stable", 2000)))
		r := l.PlanRound(3000)
		if r.First < l.Start || r.First > l.End || r.Reset != (l.Cleaned != NoRound && r.First != l.Cleaned) {
			t.Fatalf("first %d", r.First)
		}
		if r.Dirty > 0 && r.Upper > l.LastStable && r.Upper > r.First || r.Upper > l.Segments[len(l.Segments)-1].Base {
			t.Fatalf("upper %d", r.Upper)
		}
		if r.Ratio() < 0 || r.Ratio() > 1 || r.Due != NotDue && r.Dirty == 0 {
			t.Fatalf("%+v", r)
		}
		n := 0
		for _, g := range l.GroupSegments(r.Upper) {
			bytes, index, times := int64(0), int64(0), int64(0)
			for _, s := range g {
				if s != l.Segments[n] || s.Base >= r.Upper {
					t.Fatalf("segment %d is %+v", n, s)
				}
				bytes, index, times, n = bytes+s.Bytes, index+s.Index, times+s.TimeIndex, n+1
			}
			if len(g) > 1 && (bytes > l.Config.SegmentBytes || max(index, times) > l.Config.IndexBytes) {
				t.Fatalf("a group of %d bytes, %d and %d of the indexes", bytes, index, times)
			}
		}
		if l.Segments[n].Base < r.Upper {
			t.Fatal("a segment is in no group")
		}
	})
}
