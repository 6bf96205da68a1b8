// Package coord runs state machines on partitions' logs. A Runtime has a shard for
// each partition that this node leads; a shard owns a Machine, and everything that
// happens to it goes
//
//	decide -> append one batch -> apply -> release the replies
//
// A reply is released when the high watermark has passed the last record that it
// saw, also a reply that only reads: it waits behind the writes it has read. So no
// answer rests on what a failover could take back, and no state ever has to be
// rolled back.
//
// Decide, append and apply run under the shard's mutex, on the caller's goroutine;
// replies, and the log's commit, run after it, with no lock held. Timers are a
// heap per shard and one runtime timer.
//
// # The life of a shard
//
//	StartLeading -> loading -> catching up -> active -> stopped
//	                                           |  ^
//	                                           +--+ the next epoch, and nobody else has appended
//
// When a node begins to lead a partition, a background goroutine reads the log, up to
// the end that it has then, through the same Apply. Not all of that is known to be
// committed: a former leader may have acknowledged more than the high watermark that
// this replica knows of. The shard therefore answers ErrLoading until the high
// watermark has reached that end. Nothing of it can be lost then, since a leader never
// truncates its log.
//
// A shard goes on without a load when this node stays the leader: in the epoch that
// follows its own, and if the log ends where the shard has left it. Otherwise another
// leader may have been in between, and the shard is made anew.
//
// Lock order: a shard's mutex, then whatever the Log takes. Runtime.mu guards only the
// table of shards and is held with nothing else. StartLeading and StopLeading are
// called by one goroutine; everything else by any.
package coord

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/record"
)

var (
	// ErrNotLeading is returned for a partition that this node does not lead; replies
	// get it when the node stops leading before they could be released.
	ErrNotLeading = errors.New("coord: this node does not lead the partition")
	// ErrLoading is returned while a shard still reads its log.
	ErrLoading = errors.New("coord: the partition is being loaded")
	// ErrNewer is wrapped by a Machine for a record that a newer version of leat wrote and
	// that cannot be left out: without it the state would be another one. The partition is
	// not served then.
	ErrNewer = errors.New("written by a newer version of leat; start that version, or a newer one")
	// ErrTooLarge fails a step whose records are larger together than MaxBatch.
	ErrTooLarge = errors.New("coord: the records are too large")
)

// Machine is a state machine. It does nothing but compute: time comes with the
// Step, records and replies go into it. The shard's mutex guards it.
type Machine interface {
	// Apply changes the state by one record, at a load and after a step has appended
	// it. It is the only way in which what is recorded changes. An error means that
	// the record was not understood and changed nothing: it is left out, unless the error
	// is ErrNewer.
	Apply(s *Step, r Record) error
	// Loaded tells that the whole log was applied and that time begins.
	Loaded(s *Step)
	// Unload answers everything that waits, since this node leads no longer.
	Unload(s *Step)
}

// Config says how machines are made and kept.
type Config[M Machine] struct {
	Logger *slog.Logger
	// New makes the empty machine of a partition; its timers are t.
	New func(partition int32, t *Timers) M
	// Patience is for how long a reply waits for the high watermark; nil, or 0: for as
	// long as this node leads.
	Patience func() time.Duration
}

// maxLoaders bounds how many shards read their logs at the same time.
const maxLoaders = 4

// Delays between attempts to read a log that failed.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Runtime is the set of shards of this node. Safe for concurrent use.
type Runtime[M Machine] struct {
	cfg     Config[M]
	pool    sync.Pool // of *Step
	loaders sync.WaitGroup
	slots   chan struct{} // one for each loader at work

	mu     sync.Mutex                          // guards changes of shards, and closed
	closed bool                                // no shard is taken any more
	shards atomic.Pointer[map[int32]*shard[M]] // never changes in place
}

// New makes a runtime without shards.
func New[M Machine](cfg Config[M]) *Runtime[M] {
	if cfg.Patience == nil {
		cfg.Patience = func() time.Duration { return 0 }
	}
	r := &Runtime[M]{cfg: cfg, slots: make(chan struct{}, maxLoaders)}
	r.shards.Store(&map[int32]*shard[M]{})
	return r
}

// Do runs op on a partition's machine, on the caller's goroutine, and appends and
// applies what it decides. It returns an error, and op has not run, where the
// partition is not led here or still loading. Otherwise every Reply of the step is
// called, now or later.
func (r *Runtime[M]) Do(partition int32, op func(m M, s *Step)) error {
	sh, s, err := r.decide(partition, op)
	if err != nil {
		return err
	}
	sh.release(s)
	return nil
}

// Stage is Do, but leaves the commit of what the step appends to the caller, who is
// handed what he owes. One commit is enough for all
// that he stages. Until then replies that rest on what was appended are not called.
func (r *Runtime[M]) Stage(partition int32, op func(m M, s *Step)) (owed Owed, err error) {
	sh, s, err := r.decide(partition, op)
	if err != nil {
		return Owed{}, err
	}
	if s.appended {
		owed = Owed{sh.log}
	}
	sh.answer(s)
	return owed, nil
}

func (r *Runtime[M]) decide(partition int32, op func(m M, s *Step)) (*shard[M], *Step, error) {
	sh := (*r.shards.Load())[partition]
	if sh == nil {
		return nil, nil, ErrNotLeading
	}
	s := r.step()
	if err := sh.do(s, op); err != nil {
		s.finish(err)
		return nil, nil, err
	}
	return sh, s, nil
}

// StartLeading gives the runtime a partition whose leader this node has become, in
// the given epoch. It may be told again of an epoch that it knows.
func (r *Runtime[M]) StartLeading(partition int32, e record.Epoch, log Log) {
	old := (*r.shards.Load())[partition]
	if old != nil && old.log == log && old.continueIn(e) {
		return
	}
	sh := &shard[M]{
		rt: r, partition: partition, log: log, epoch: e, timers: new(Timers), stop: make(chan struct{}),
	}
	sh.machine = r.cfg.New(partition, sh.timers)
	if !r.enter(sh) {
		return
	}
	if old != nil {
		old.halt()
	}
	if end, err := log.End(); err == nil && log.Start() >= end && log.HighWatermark() >= end {
		sh.open(end) // nothing to read: the first group of a new cluster does not wait
		r.loaders.Done()
		return
	}
	go func() {
		defer r.loaders.Done()
		r.loadLoop(sh)
	}()
}

// StopLeading takes a partition away; its pending answers are told so.
func (r *Runtime[M]) StopLeading(partition int32) {
	if old := r.leave(partition); old != nil {
		old.halt()
	}
}

// Partitions are those that this node leads, in order.
func (r *Runtime[M]) Partitions() []int32 {
	return slices.Sorted(maps.Keys(*r.shards.Load()))
}

// Close stops leading everything and waits for the loaders. A StartLeading that comes
// afterwards does nothing.
func (r *Runtime[M]) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for _, p := range r.Partitions() {
		r.StopLeading(p)
	}
	r.loaders.Wait()
}

// enter publishes a shard, in the place of the one that the partition has, and counts
// its loader; false: the runtime is closed.
func (r *Runtime[M]) enter(sh *shard[M]) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.loaders.Add(1)
	next := maps.Clone(*r.shards.Load())
	next[sh.partition] = sh
	r.shards.Store(&next)
	return true
}

// leave takes a partition's shard out and returns it; nil: there is none.
func (r *Runtime[M]) leave(partition int32) (old *shard[M]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.shards.Load())
	old = next[partition]
	delete(next, partition)
	r.shards.Store(&next)
	return old
}

// loadLoop loads a shard, trying again while its log cannot be read.
func (r *Runtime[M]) loadLoop(sh *shard[M]) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		select {
		case r.slots <- struct{}{}:
		case <-sh.stop:
			return
		}
		end, err := sh.replayAll()
		<-r.slots // what follows only waits
		if err == nil {
			err = sh.catchUp(end)
		}
		if err == nil {
			sh.open(end)
			return
		}
		retry := time.NewTimer(wait)
		select {
		case <-retry.C:
		case <-sh.stop:
			retry.Stop()
			return
		}
		sh.startOver()
	}
}

// step takes a step from the pool.
func (r *Runtime[M]) step() *Step {
	if s, ok := r.pool.Get().(*Step); ok {
		return s
	}
	s := NewStep(time.Time{})
	s.put = func(s *Step) { r.pool.Put(s) }
	return s
}
