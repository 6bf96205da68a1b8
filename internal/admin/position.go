package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Position is a place in every partition of a topic, in the form in which people name it.
type Position struct {
	Kind PositionKind
	N    int64 // offset, number of records, or ms since 1970
}

// PositionKind is how a place is named.
type PositionKind int8

// The ways to name a place.
const (
	AtStart PositionKind = iota
	AtEnd
	AtOffset // N
	BackFrom // N records before the end
	AtTime   // the first record from N on
)

// PositionHelp explains the forms of a position in help texts.
const PositionHelp = `"start", "end", an offset, -N for the last N records of each partition, a time like 2026-05-17T10:05:03Z (local without a zone), @1779012303 or @1779012303000 for seconds or milliseconds since 1970, or an age like -1h or -7d`

// ParsePosition parses a position in one of the forms of PositionHelp.
func ParsePosition(s string, now time.Time) (Position, error) {
	switch strings.ToLower(s) {
	case "start", "beginning", "earliest":
		return Position{Kind: AtStart}, nil
	case "end", "latest":
		return Position{Kind: AtEnd}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if strings.HasPrefix(s, "-") { // -0 too: the last 0 records
			return Position{Kind: BackFrom, N: -n}, nil
		}
		return Position{Kind: AtOffset, N: n}, nil
	}
	if d, ok := parseAgo(s); ok {
		return atTime(now.Add(-d)), nil
	}
	if stamp, ok := strings.CutPrefix(s, "@"); ok {
		if n, err := strconv.ParseInt(stamp, 10, 64); err == nil && n >= 0 {
			if n < secondsBelow {
				n *= 1000
			}
			return Position{Kind: AtTime, N: n}, nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return atTime(t), nil
		}
	}
	return Position{}, fmt.Errorf("%q is not a place in a topic: write %s", s, PositionHelp)
}

// atTime is the place of a time. Earlier ones than 1970 stand for the beginning, since brokers
// give negative times meanings of their own.
func atTime(t time.Time) Position { return Position{Kind: AtTime, N: max(t.UnixMilli(), 0)} }

// secondsBelow is the least number after @ that is in ms: in seconds it would be the year 5138,
// in ms it is March 1973.
const secondsBelow = 100_000_000_000

// agoPattern matches a minus, weeks, days, and a duration as Go writes it.
var agoPattern = regexp.MustCompile(`^-(?:(\d{1,4})w)?(?:(\d{1,5})d)?(\d.*)?$`)

// parseAgo parses an age: a time span with a minus before it, such as -7d or -1h30m.
func parseAgo(s string) (ago time.Duration, ok bool) {
	m := agoPattern.FindStringSubmatch(s)
	if m == nil || m[1]+m[2]+m[3] == "" {
		return 0, false
	}
	const day = 24 * time.Hour
	for i, unit := range []time.Duration{7 * day, day} {
		if n, err := strconv.Atoi(m[1+i]); err == nil {
			ago += time.Duration(n) * unit
		}
	}
	if m[3] == "" {
		return ago, true
	}
	d, err := time.ParseDuration(m[3])
	return ago + d, err == nil
}

// Offset is the position in the form that the client library's consumer takes.
func (p Position) Offset() kgo.Offset {
	o := kgo.NewOffset()
	switch p.Kind {
	case AtStart:
		return o.AtStart()
	case AtEnd:
		return o.AtEnd()
	case AtOffset:
		return o.At(p.N)
	case BackFrom:
		return o.AtEnd().Relative(-p.N)
	case AtTime:
		return o.AfterMilli(p.N)
	default:
		panic("BUG: position of kind " + strconv.Itoa(int(p.Kind)))
	}
}

// Span is the first offset and the end of a partition.
type Span struct{ Start, End int64 }

// Clamp moves an offset into the partition: to its start, to its end, or nowhere.
func (s Span) Clamp(offset int64) int64 { return min(max(offset, s.Start), s.End) }

// Shift moves an offset by so many records, forward or back, and then into the partition.
func (s Span) Shift(offset, by int64) int64 {
	return s.Clamp(offset + min(by, math.MaxInt64-max(offset, 0)))
}

// Spans asks for the first offsets and the ends of the partitions of topics.
func Spans(ctx context.Context, adm *kadm.Client, topics ...string) (map[string]map[int32]Span, error) {
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking for first offsets: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking for last offsets: %w", err)
	}
	return joinSpans(starts, ends), nil
}

// joinSpans makes the spans of the partitions whose starts and ends are both known.
func joinSpans(starts, ends kadm.ListedOffsets) map[string]map[int32]Span {
	known := map[string]map[int32]Span{}
	ends.Each(func(e kadm.ListedOffset) {
		s, ok := starts.Lookup(e.Topic, e.Partition)
		if !ok || s.Err != nil || e.Err != nil {
			return
		}
		if known[e.Topic] == nil {
			known[e.Topic] = map[int32]Span{}
		}
		known[e.Topic][e.Partition] = Span{Start: s.Offset, End: e.Offset}
	})
	return known
}

// KnownSpans is Spans for those partitions that tell their offsets. A partition without a leader, or
// whose leader does not answer, is left out. failed says why, for one of them; it is nil if none is left out. If nobody has
// answered at all it returns that error.
func KnownSpans(ctx context.Context, adm *kadm.Client, topics ...string) (known map[string]map[int32]Span, failed, err error) {
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if failed, err = splitFailure(starts, err); err != nil {
		return nil, nil, fmt.Errorf("asking for first offsets: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	failedEnds, err := splitFailure(ends, err)
	if err != nil {
		return nil, nil, fmt.Errorf("asking for last offsets: %w", err)
	}
	return joinSpans(starts, ends), cmp.Or(failed, failedEnds), nil
}

// splitFailure tells the error of some of the partitions from one of the whole request.
func splitFailure(listed kadm.ListedOffsets, err error) (some, all error) {
	if shards, ok := errors.AsType[*kadm.ShardErrors](err); ok && len(shards.Errs) > 0 {
		return shards.Errs[0].Err, nil
	}
	if err == nil {
		some = listed.Error()
	}
	return some, err
}

// Resolve finds the offset of the position in each partition of topics. It lies between the partition's
// start and its end.
func (p Position) Resolve(ctx context.Context, adm *kadm.Client, topics ...string) (kadm.Offsets, error) {
	all, err := Spans(ctx, adm, topics...)
	if err != nil {
		return nil, err
	}
	var after kadm.ListedOffsets
	if p.Kind == AtTime {
		after, err = adm.ListOffsetsAfterMilli(ctx, p.N, topics...)
		if err == nil {
			err = after.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("asking for offsets by time: %w", err)
		}
	}
	var offsets kadm.Offsets
	for topic, parts := range all {
		for partition, s := range parts {
			at := s.Start
			switch p.Kind {
			case AtStart:
			case AtEnd:
				at = s.End
			case AtOffset:
				at = p.N
			case BackFrom:
				at = s.End - p.N
			case AtTime:
				o, _ := after.Lookup(topic, partition)
				at = o.Offset
				if at < 0 {
					at = s.End
				}
			}
			offsets.AddOffset(topic, partition, s.Clamp(at), -1)
		}
	}
	return offsets, nil
}
