package quota

import "math"

// Windows are the windows over which use is measured.
type Windows struct {
	Number int   // of windows, one or more, with the one that has not ended
	Millis int64 // of a window
}

// span is how long the use of a moment counts, in ms.
func (w *Windows) span() int64 { return int64(w.Number) * w.Millis }

// sample is the use in one window.
type sample struct {
	start, last int64 // ms: when it began, and when something was last added
	value       float64
}

// rate measures the use a second over several windows, as Kafka's Rate of a WindowedSum does.
type rate struct {
	samples []sample // grows to one more than there are windows: the oldest one may lie partly before them
	current int      // the index of the sample of this moment
}

// add adds a use at a moment. It may be negative, which takes back one of before.
func (r *rate) add(w Windows, value float64, now int64) {
	if len(r.samples) == 0 {
		r.samples = append(r.samples, sample{start: now, last: now})
	}
	if s := &r.samples[r.current]; now-s.start >= w.Millis {
		r.advance(w, now)
	}
	s := &r.samples[r.current]
	s.value += value
	s.last = now
}

// advance begins another sample.
func (r *rate) advance(w Windows, now int64) {
	r.current = (r.current + 1) % (w.Number + 1)
	if r.current >= len(r.samples) {
		r.current = len(r.samples)
		r.samples = append(r.samples, sample{})
	}
	r.samples[r.current] = sample{start: now, last: now}
}

// measure returns the use a second, and the time over which it was measured, in ms.
func (r *rate) measure(w Windows, now int64) (perSecond float64, millis int64) {
	sum, oldest := 0.0, now
	for i := range r.samples {
		s := &r.samples[i]
		if now-s.last >= w.span() {
			*s = sample{start: now, last: now}
		}
		sum += s.value
		oldest = min(oldest, s.start)
	}
	millis = now - oldest
	// Not enough windows have passed since the first use: the use of before them is taken for none.
	if missing := int64(w.Number-1) - millis/w.Millis; missing > 0 {
		millis += missing * w.Millis
	}
	millis = max(millis, 1)
	return sum / (float64(millis) / 1000), millis
}

// throttle returns for how many ms nothing may be used, until the use a second is within a limit; 0: it is.
func (r *rate) throttle(w Windows, limit float64, now int64) int64 {
	perSecond, millis := r.measure(w, now)
	if perSecond <= limit {
		return 0
	}
	return roundHalfUp((perSecond - limit) / limit * float64(millis))
}

// bucket has tokens, which a use takes. It is refilled at the rate of the quota, as Kafka's TokenBucket.
type bucket struct {
	used   bool
	tokens float64
	last   int64 // ms: when it was last refilled
}

// refill adds the tokens of the time since it was last called.
func (b *bucket) refill(w Windows, limit float64, now int64) (most float64) {
	most = float64(w.Number) * (float64(w.Millis) / 1000) * limit
	if b.used {
		b.tokens = min(most, b.tokens+limit*(float64(now-b.last)/1000))
	} else {
		b.used, b.tokens = true, most
	}
	b.last = now
	return most
}

// take takes tokens.
func (b *bucket) take(w Windows, limit, tokens float64, now int64) {
	most := b.refill(w, limit, now)
	b.tokens = min(most, b.tokens-tokens)
}

// throttle returns for how many ms nothing may be taken, until the tokens that are missing are there; 0: none is.
func (b *bucket) throttle(w Windows, limit float64, now int64) int64 {
	if b.refill(w, limit, now); b.tokens >= 0 {
		return 0
	}
	return roundHalfUp(-b.tokens / limit * 1000)
}

// untilFull is in how many ms a bucket that is not used will have as many tokens as a new one.
func (b *bucket) untilFull(w Windows, limit float64, now int64) int64 {
	most := b.refill(w, limit, now)
	return roundHalfUp((most-b.tokens)/limit*1000) + 1
}

// roundHalfUp rounds as Java's Math.round does, for what is not negative. It is at most math.MaxInt32, the longest time that
// an answer can tell.
func roundHalfUp(ms float64) int64 {
	return int64(min(math.Floor(ms+0.5), math.MaxInt32))
}
