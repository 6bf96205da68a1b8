package audit

import (
	"context"
	"net"
	"sync"
	"time"
)

// Config is what a Recorder works with.
type Config struct {
	Kinds []Kind // that are recorded
	// Excluded are principals of whom only changes are recorded.
	Excluded []string
	// Interval is how long events that repeat are summed up; 0: a minute. UseInterval is the same for reads and writes; 0: an hour.
	Interval, UseInterval time.Duration
	Now                   func() time.Time // nil: time.Now
}

// Recorder takes the events of a node. A nil Recorder records nothing.
type Recorder struct {
	cfg      Config
	kinds    map[Kind]bool
	excluded map[string]bool
	trails   []*Trail

	mu      sync.Mutex
	repeats repeats // guarded by mu

	stop    chan struct{}
	closing sync.Once
	done    sync.WaitGroup
}

// NewRecorder makes a Recorder and starts its trails. Close ends both, and the end of ctx does not.
func NewRecorder(ctx context.Context, cfg Config, trails ...*Trail) *Recorder {
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.UseInterval == 0 {
		cfg.UseInterval = time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Recorder{
		cfg: cfg, kinds: map[Kind]bool{}, excluded: map[string]bool{}, trails: trails, stop: make(chan struct{}),
		repeats: newRepeats(),
	}
	for _, k := range cfg.Kinds {
		r.kinds[k] = true
	}
	for _, p := range cfg.Excluded {
		r.excluded[p] = true
	}
	for _, t := range trails {
		t.begin(ctx)
	}
	r.done.Go(r.sumUp)
	return r
}

// Records tells whether events of a kind are recorded.
func (r *Recorder) Records(k Kind) bool { return r != nil && r.kinds[k] }

// Record records an event, now if it has no time. It never waits. It keeps none of the event's texts that are long.
func (r *Recorder) Record(e Event) {
	if r == nil || !r.kinds[e.Type.Kind()] || e.Type.Kind() != Changes && r.excluded[e.Principal] {
		return
	}
	if e.Time.IsZero() {
		e.Time = r.cfg.Now()
	}
	e.bound()
	if interval := r.intervalOf(&e); interval > 0 {
		host, _, err := net.SplitHostPort(e.Address)
		if err != nil {
			host = e.Address
		}
		r.mu.Lock()
		passes := r.repeats.add(&e, host, interval)
		r.mu.Unlock()
		if !passes {
			return
		}
	}
	r.give(&e)
}

func (r *Recorder) give(e *Event) {
	for _, t := range r.trails {
		t.offer(e)
	}
}

// intervalOf is how long such events are summed up; 0: they are not. Changes that were made are not, but for offsets, which cost their client
// nothing.
func (r *Recorder) intervalOf(e *Event) time.Duration {
	switch e.Type.Kind() {
	case Logins, Denials:
		return r.cfg.Interval
	case Reads, Writes:
		return r.cfg.UseInterval
	case Changes, ofTrails:
	}
	if e.Type == OffsetsSet || e.Result != Allowed {
		return r.cfg.Interval
	}
	return 0
}

// sumUp gives the trails the sums of events that repeat.
func (r *Recorder) sumUp() {
	every := time.NewTicker(min(r.cfg.Interval/4+1, time.Second))
	defer every.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-every.C:
			r.giveSums(false)
		}
	}
}

func (r *Recorder) giveSums(all bool) {
	r.mu.Lock()
	sums := r.repeats.take(r.cfg.Now(), r.intervalOf, all)
	r.mu.Unlock()
	for i := range sums {
		r.give(&sums[i])
	}
}

// Flush gives the trails all sums, and waits until they have written what they have, or the context ends.
func (r *Recorder) Flush(ctx context.Context) {
	if r == nil {
		return
	}
	r.giveSums(true)
	for _, t := range r.trails {
		t.flush(ctx)
	}
}

// Close writes what there is until the context ends, and stops the trails.
func (r *Recorder) Close(ctx context.Context) {
	if r == nil {
		return
	}
	r.closing.Do(func() {
		close(r.stop)
		r.done.Wait()
		r.Flush(ctx)
		for _, t := range r.trails {
			t.close(ctx)
		}
	})
}

// Stats are the counts of all trails.
func (r *Recorder) Stats() (list []Stats) {
	if r == nil {
		return nil
	}
	for _, t := range r.trails {
		list = append(list, t.stats())
	}
	return list
}
