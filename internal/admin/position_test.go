package admin

import (
	"math"
	"testing"
	"time"
)

// TestPosition proves how people may name a place in a topic.
func TestPosition(t *testing.T) {
	now := time.Date(2026, 5, 17, 12, 0, 0, 0, time.UTC)
	f := func(s string, want Position) {
		t.Helper()
		if got, err := ParsePosition(s, now); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", s, got, err, want)
		}
	}
	f("start", Position{Kind: AtStart})
	f("Earliest", Position{Kind: AtStart})
	f("end", Position{Kind: AtEnd})
	f("latest", Position{Kind: AtEnd})
	f("0", Position{Kind: AtOffset})
	f("17", Position{Kind: AtOffset, N: 17})
	f("-3", Position{Kind: BackFrom, N: 3})
	f("-0", Position{Kind: BackFrom}) // the last 0 records, and not the first offset
	f("-1h30m", Position{Kind: AtTime, N: now.Add(-90 * time.Minute).UnixMilli()})
	f("-7d", Position{Kind: AtTime, N: now.AddDate(0, 0, -7).UnixMilli()})
	f("-90000d", Position{Kind: AtTime}) // before 1970
	f("1969-12-31T00:00:00Z", Position{Kind: AtTime})
	f("-1w2d1h", Position{Kind: AtTime, N: now.Add(-217 * time.Hour).UnixMilli()})
	f("@1779012303", Position{Kind: AtTime, N: 1779012303000})
	f("@1779012303123", Position{Kind: AtTime, N: 1779012303123})
	f("2026-05-17T10:00:00Z", Position{Kind: AtTime, N: now.Add(-2 * time.Hour).UnixMilli()})
	f("2026-05-17T12:00:00.250+02:00", Position{Kind: AtTime, N: now.Add(-2*time.Hour + 250*time.Millisecond).UnixMilli()})
	f("2026-05-17", Position{Kind: AtTime, N: time.Date(2026, 5, 17, 0, 0, 0, 0, time.Local).UnixMilli()})
	for _, s := range []string{"", "1h", "tomorrow", "1.5", "2026-13-01", "-", "-7dd", "-d", "-1d2", "@", "@-1", "@x"} {
		if _, err := ParsePosition(s, now); err == nil {
			t.Errorf("%q passed: %v", s, err)
		}
	}
}

// TestShift proves that an offset moves by so many records, however many, and stays in the partition.
func TestShift(t *testing.T) {
	s := Span{Start: 10, End: 20}
	f := func(offset, by, want int64) {
		t.Helper()
		if got := s.Shift(offset, by); got != want {
			t.Errorf("%d by %d: %d, want %d", offset, by, got, want)
		}
	}
	f(12, 3, 15)
	f(12, -1, 11)
	f(12, 9, 20)
	f(12, -9, 10)
	f(5, 7, 12)
	f(12, math.MaxInt64, 20)
	f(12, math.MinInt64, 10)
	f(-1, math.MaxInt64, 20)
}
