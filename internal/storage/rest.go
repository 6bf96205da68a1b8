package storage

import (
	"context"
	"math"
	"time"
)

// rest slows a round down: to the bytes a second that the settings allow, and so that it leaves the disk and
// the processors to others while these append records.
type rest struct {
	c       *cleaner
	bytes   int64     // since the last rest
	written int64     // since the free space was looked at
	since   time.Time // of the last rest, or of the round's beginning
	appends int64     // cleaner.appended at that time
}

func newRest(c *cleaner) *rest {
	return &rest{c: c, since: time.Now(), appends: c.appended.Load()}
}

const (
	workBetweenRests = 1 << 20               // bytes of work from one rest to the next
	timeBetweenRests = 20 * time.Millisecond // time of work from one rest to the next: a few bytes may be decompressed into very many
	maxRest          = 10 * time.Second
)

// hasRoom is errNoRoom unless there is room for more work.
func (p *rest) hasRoom() error {
	if !p.c.s.space.HasRoomFor(workBetweenRests) {
		return errNoRoom
	}
	return nil
}

// take counts n bytes that were written, if there is room for more.
func (p *rest) take(n int64) error {
	p.bytes += n
	if p.written += n; p.written < workBetweenRests {
		return nil
	}
	p.written = 0
	return p.hasRoom()
}

// spend counts n bytes of work, and rests when it is time. While somebody appends, a rest takes as long as the work
// before it.
func (p *rest) spend(ctx context.Context, n int64) error {
	if p.c.s.closing.Load() {
		return ErrClosed
	}
	p.bytes += n
	worked := time.Since(p.since)
	if p.bytes < workBetweenRests && worked < timeBetweenRests {
		return nil
	}
	appends := p.c.appended.Load()
	d := time.Duration(0)
	if appends != p.appends {
		d = min(worked, maxRest)
	}
	if most := p.c.config().BytesPerSecond; most > 0 && most < math.MaxInt64 {
		d = max(d, time.Duration(float64(p.bytes)/most*float64(time.Second))-worked)
	}
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ErrClosed
		case <-timer.C:
		}
	}
	p.bytes, p.since, p.appends = 0, time.Now(), appends
	return nil
}
