package cli

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// position is a place in every partition of a topic, as people name it.
type position struct {
	kind positionKind
	n    int64 // offset, number of records, or ms since 1970
}

type positionKind int8

const (
	atStart positionKind = iota
	atEnd
	atOffset // n
	backFrom // n records before the end
	atTime   // the first record from n on
)

// positionHelp is what the flags' help says.
const positionHelp = `"start", "end", an offset, -N for the last N records, a time like 2026-05-17T10:05:03Z, @1779012303 or @1779012303000 for s or ms since 1970, or -1h, -7d for so long ago`

// parsePosition reads what positionHelp says.
func parsePosition(s string, now time.Time) (position, error) {
	switch strings.ToLower(s) {
	case "start", "beginning", "earliest":
		return position{kind: atStart}, nil
	case "end", "latest":
		return position{kind: atEnd}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 {
			return position{kind: backFrom, n: -n}, nil
		}
		return position{kind: atOffset, n: n}, nil
	}
	if d, ok := parseAgo(s); ok {
		return position{kind: atTime, n: now.Add(-d).UnixMilli()}, nil
	}
	if stamp, ok := strings.CutPrefix(s, "@"); ok {
		if n, err := strconv.ParseInt(stamp, 10, 64); err == nil && n >= 0 {
			if n < secondsBelow {
				n *= 1000
			}
			return position{kind: atTime, n: n}, nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return position{kind: atTime, n: t.UnixMilli()}, nil
		}
	}
	return position{}, usagef("%q is not a place in a topic: write %s", s, positionHelp)
}

// secondsBelow is the least number after @ that is in ms: in seconds it would be the year 5138,
// in ms it is March 1973.
const secondsBelow = 100_000_000_000

// agoPattern is a minus, weeks, days, and what Go reads as a duration.
var agoPattern = regexp.MustCompile(`^-(?:(\d{1,4})w)?(?:(\d{1,5})d)?(\d.*)?$`)

// parseAgo reads a time span with a minus before it, such as -7d or -1h30m.
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

// offset is the position as a consumer understands it.
func (p position) offset() kgo.Offset {
	o := kgo.NewOffset()
	switch p.kind {
	case atStart:
		return o.AtStart()
	case atEnd:
		return o.AtEnd()
	case atOffset:
		return o.At(p.n)
	case backFrom:
		return o.AtEnd().Relative(-p.n)
	case atTime:
		return o.AfterMilli(p.n)
	default:
		panic("BUG: position of kind " + strconv.Itoa(int(p.kind)))
	}
}

// span is the first offset and the end of a partition.
type span struct{ start, end int64 }

// spans asks for the offsets that the partitions of topics have.
func spans(ctx context.Context, adm *kadm.Client, topics ...string) (map[string]map[int32]span, error) {
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
	all := map[string]map[int32]span{}
	ends.Each(func(e kadm.ListedOffset) {
		if all[e.Topic] == nil {
			all[e.Topic] = map[int32]span{}
		}
		s, _ := starts.Lookup(e.Topic, e.Partition)
		all[e.Topic][e.Partition] = span{start: s.Offset, end: e.Offset}
	})
	return all, nil
}

// resolve makes an offset of the position in each partition of topics, inside what
// the partition has.
func (p position) resolve(ctx context.Context, adm *kadm.Client, topics ...string) (kadm.Offsets, error) {
	all, err := spans(ctx, adm, topics...)
	if err != nil {
		return nil, err
	}
	var after kadm.ListedOffsets
	if p.kind == atTime {
		after, err = adm.ListOffsetsAfterMilli(ctx, p.n, topics...)
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
			at := s.start
			switch p.kind {
			case atStart:
			case atEnd:
				at = s.end
			case atOffset:
				at = p.n
			case backFrom:
				at = s.end - p.n
			case atTime:
				o, _ := after.Lookup(topic, partition)
				at = o.Offset
				if at < 0 {
					at = s.end
				}
			}
			offsets.AddOffset(topic, partition, min(max(at, s.start), s.end), -1)
		}
	}
	return offsets, nil
}
