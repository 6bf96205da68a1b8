package audit

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Sink is a log to which a trail appends.
type Sink interface {
	// Append appends lines, which have no ends of line, and returns when they are durable. After an error any of them may have been appended.
	Append(ctx context.Context, lines [][]byte) error
	// Close gives up what the sink holds.
	Close() error
}

// TrailConfig is what a Trail works with.
type TrailConfig struct {
	Name    string // of the destination
	Sink    Sink
	Cluster string
	Node    int32
	Start   string // identifies this start of the node
	// Load reads the note of the start before; nil without an error: there is none. Save replaces it, and makes it durable.
	Load   func() ([]byte, error)
	Save   func(note []byte) error
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now
	// AnchorLines and AnchorTime are after how many lines, and how long after a line, there is an anchor; 0: 1000, an hour.
	AnchorLines uint64
	AnchorTime  time.Duration
	// QueueEvents and QueueBytes bound what waits to be written; 0: 8192, 4 MiB.
	QueueEvents int
	QueueBytes  int64
}

const (
	mostBatch      = 256       // events that are written together
	mostBatchBytes = 512 << 10 // bytes of lines that are appended together, if they are more than one
	firstPause     = 100 * time.Millisecond
	longestPause   = 5 * time.Second
	// complainAfter is how long a sink may fail before the log says so: a topic is made in that time.
	complainAfter = 10 * time.Second
	// abandonAfter is how long Close waits for a sink that does not heed its context.
	abandonAfter = 500 * time.Millisecond
)

// Stats are the counts of a trail.
type Stats struct {
	Name     string
	Written  int64 // lines since the start of the node
	Lost     int64 // events for which there was no room
	Queued   int64 // events that wait now
	Sequence uint64
	Failing  bool // the last attempt to write has failed
}

// Trail writes events to one destination. Its goroutine has the chain and the notes; the queue is shared.
//
//	waiting --events, or an anchor is due--> noting --> appending --done--> waiting
//	                                          ^  |fails      |fails
//	                                          '--'<----------'  a pause between; Close ends it
type Trail struct {
	cfg    TrailConfig
	chain  *Chain
	noted  *Head // the last note; nil: there is none
	sealed Place // the last line that is in the log
	anchor struct {
		at   uint64 // its sequence
		time time.Time
	}

	more    chan struct{} // of size 1: the queue has something
	closed  chan struct{} // by close
	ended   chan struct{} // by the goroutine
	cancel  context.CancelFunc
	closing sync.Once

	mu        sync.Mutex
	queue     []item         // guarded by mu
	bytes     int64          // of the events in queue; guarded by mu
	lost      map[Type]int64 // since the last Lost event; guarded by mu
	lostFirst time.Time      // guarded by mu
	counts    Stats          // guarded by mu
}

// item is an event, or, with done, the wish to know when all before it is written.
type item struct {
	event Event
	done  chan struct{}
}

// NewTrail makes a Trail. Its Recorder starts it.
func NewTrail(cfg TrailConfig) *Trail {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.AnchorLines == 0 {
		cfg.AnchorLines = 1000
	}
	if cfg.AnchorTime == 0 {
		cfg.AnchorTime = time.Hour
	}
	if cfg.QueueEvents == 0 {
		cfg.QueueEvents = 8192
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 4 << 20
	}
	return &Trail{
		cfg: cfg, chain: NewChain(cfg.Cluster, cfg.Node, cfg.Start), lost: map[Type]int64{}, counts: Stats{Name: cfg.Name},
		more: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{}),
	}
}

func (t *Trail) begin(ctx context.Context) {
	ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(t.ended)
		t.run(ctx)
	}()
}

// offer puts an event into the queue, or counts it as lost. The last quarter of the queue is for changes, which no flood of other
// events can keep out.
func (t *Trail) offer(e *Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	events, bytes := t.cfg.QueueEvents, t.cfg.QueueBytes
	if e.Type.Kind() != Changes {
		events, bytes = events*3/4, bytes*3/4
	}
	size := e.size()
	if len(t.queue) >= events || t.bytes+size > bytes {
		if len(t.lost) == 0 {
			t.lostFirst = t.cfg.Now()
		}
		n := max(e.Count, 1)
		t.lost[e.Type] += n
		t.counts.Lost += n
		return
	}
	t.bytes += size
	t.queue = append(t.queue, item{event: *e})
	t.noteMore()
}

// noteMore wakes the goroutine.
func (t *Trail) noteMore() {
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// take takes events from the queue, and those who wait for them.
func (t *Trail) take() (events []Event, waiting []chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.queue), mostBatch)
	for i := range t.queue[:n] {
		it := &t.queue[i]
		if it.done != nil {
			waiting = append(waiting, it.done)
			continue
		}
		t.bytes -= it.event.size()
		events = append(events, it.event)
	}
	t.queue = slices.Delete(t.queue, 0, n)
	if len(t.queue) > 0 {
		t.noteMore()
	} else if cap(t.queue) > mostBatch {
		t.queue = nil
	}
	if len(t.lost) > 0 {
		events = append(events, t.lostEventLocked())
	}
	return events, waiting
}

// lostEventLocked says what was lost.
func (t *Trail) lostEventLocked() Event {
	e := Event{Type: Lost, Time: t.cfg.Now(), First: t.lostFirst, Last: t.cfg.Now(), Reason: "there was no room for events, since the log could not be written fast enough"}
	for _, of := range slices.Sorted(maps.Keys(t.lost)) {
		e.Count += t.lost[of]
		e.Details = append(e.Details, Detail{string(of), fmt.Sprint(t.lost[of])})
	}
	e.bound()
	clear(t.lost)
	return e
}

// run is the trail's goroutine.
func (t *Trail) run(ctx context.Context) {
	if !t.writeStarted(ctx) {
		t.noteLeft(0)
		return
	}
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		isClosed := false
		select {
		case <-t.more:
		case <-every.C:
		case <-t.closed:
			isClosed = true
		}
		for {
			events, waiting := t.take()
			left := t.isLeft()
			isWritten := t.writeEvents(ctx, events, isClosed && !left)
			for _, done := range waiting {
				close(done)
			}
			if !isWritten {
				t.noteLeft(len(events))
				return
			}
			if !left {
				break
			}
		}
		if isClosed {
			return
		}
	}
}

// isLeft tells whether the queue has something.
func (t *Trail) isLeft() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue) > 0
}

// writeStarted writes the first line of the start. false: the trail is closed.
func (t *Trail) writeStarted(ctx context.Context) bool {
	reason := ""
	note, err := t.cfg.Load()
	if err == nil && note != nil {
		t.noted, err = ParseHead(note)
	}
	if err != nil {
		reason = "the note about the events before cannot be read, so that a new chain begins: " + err.Error()
		t.cfg.Logger.Warn("the audit log begins a new chain", "destination", t.cfg.Name, "why", err)
	}
	line := t.chain.Begin(t.cfg.Now(), t.noted, reason)
	if !t.append(ctx, [][]byte{line}, nil) {
		return false
	}
	h := &Head{Previous: Previous{Start: t.cfg.Start, Confirmed: t.sealed, Written: t.sealed}}
	t.anchor.time = t.cfg.Now()
	return t.append(ctx, nil, h)
}

// writeEvents writes events, and an anchor if one is due or if these are the last ones.
func (t *Trail) writeEvents(ctx context.Context, events []Event, areLast bool) bool {
	lines := make([][]byte, 0, len(events)+1)
	for i := range events {
		lines = append(lines, t.chain.Append(&events[i]))
	}
	now, since := t.cfg.Now(), t.chain.seq-t.anchor.at
	isAnchored := since >= t.cfg.AnchorLines || since > 1 && (areLast || now.Sub(t.anchor.time) >= t.cfg.AnchorTime)
	if isAnchored {
		lines = append(lines, t.chain.Anchor(now))
	}
	if len(lines) == 0 {
		return true
	}
	h := &Head{Previous: Previous{Start: t.cfg.Start, Confirmed: t.sealed, Written: t.chain.Place()}}
	if !t.append(ctx, lines, h) {
		return false
	}
	if isAnchored {
		t.anchor.at, t.anchor.time = t.chain.seq, now
		t.cfg.Logger.Info("the audit log has an anchor", "destination", t.cfg.Name, "start", t.cfg.Start, "sequence", t.sealed.Sequence, "hash", t.sealed.Hash)
	}
	return true
}

// append notes a head and appends lines, again and again until both have succeeded. false: the trail is closed.
func (t *Trail) append(ctx context.Context, lines [][]byte, h *Head) bool {
	pause, began, complained := firstPause, t.cfg.Now(), false
	for {
		err := t.tryAppend(ctx, lines, h)
		t.noteFailing(err != nil)
		if err == nil {
			if complained {
				t.cfg.Logger.Info("the audit log is written again", "destination", t.cfg.Name)
			}
			break
		}
		if !complained && t.cfg.Now().Sub(began) >= complainAfter {
			complained = true
			t.cfg.Logger.Warn("the audit log cannot be written; events for which there is no room are counted and lost", "destination", t.cfg.Name, "err", err)
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return false
		case <-wait.C:
		}
		pause = min(2*pause, longestPause)
	}
	t.sealed = t.chain.Place()
	t.mu.Lock()
	t.counts.Written += int64(len(lines))
	t.counts.Sequence = t.sealed.Sequence
	t.mu.Unlock()
	return true
}

func (t *Trail) tryAppend(ctx context.Context, lines [][]byte, h *Head) error {
	if h != nil && (t.noted == nil || *t.noted != *h) {
		if err := t.cfg.Save(h.Encode()); err != nil {
			return fmt.Errorf("noting the last event: %w", err)
		}
		t.noted = h
	}
	for len(lines) > 0 {
		n, bytes := 0, 0
		for n < len(lines) && (n == 0 || bytes+len(lines[n]) <= mostBatchBytes) {
			bytes += len(lines[n])
			n++
		}
		if err := t.cfg.Sink.Append(ctx, lines[:n]); err != nil {
			return err
		}
		lines = lines[n:]
	}
	return nil
}

func (t *Trail) noteFailing(isFailing bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Failing = isFailing
}

// noteLeft notes how many events are lost since the trail is closed before they were written, if it can.
func (t *Trail) noteLeft(taken int) {
	t.mu.Lock()
	left := int64(taken)
	for i := range t.queue {
		if t.queue[i].done != nil {
			close(t.queue[i].done)
		} else {
			left++
		}
	}
	for _, n := range t.lost {
		left += n
	}
	t.queue = nil
	t.mu.Unlock()
	if left == 0 || t.noted == nil {
		return
	}
	t.cfg.Logger.Warn("events were not written into the audit log before the node has stopped", "destination", t.cfg.Name, "events", left)
	h := *t.noted
	h.Left += left
	if err := t.cfg.Save(h.Encode()); err != nil {
		t.cfg.Logger.Warn("the number of lost events could not be noted", "destination", t.cfg.Name, "err", err)
	}
}

// flush waits until what is in the queue is written, or the context ends. It does not wait for a sink that fails.
func (t *Trail) flush(ctx context.Context) {
	done := make(chan struct{})
	t.mu.Lock()
	isFailing := t.counts.Failing
	if !isFailing {
		t.queue = append(t.queue, item{done: done})
		t.noteMore()
	}
	t.mu.Unlock()
	if isFailing {
		return
	}
	select {
	case <-done:
	case <-t.ended:
	case <-ctx.Done():
	}
}

// close ends the trail: it has until the end of the context to write what it has.
func (t *Trail) close(ctx context.Context) {
	t.closing.Do(func() {
		close(t.closed)
		select {
		case <-t.ended:
		case <-ctx.Done():
		}
		t.cancel()
		select {
		case <-t.ended:
		case <-time.After(abandonAfter):
			t.cfg.Logger.Warn("the audit log does not answer, and the node stops without it", "destination", t.cfg.Name)
			return
		}
		if err := t.cfg.Sink.Close(); err != nil {
			t.cfg.Logger.Warn("the audit log could not be closed", "destination", t.cfg.Name, "err", err)
		}
	})
}

func (t *Trail) stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.counts
	s.Queued = int64(len(t.queue))
	return s
}
