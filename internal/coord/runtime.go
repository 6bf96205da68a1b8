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
	// ErrNotLeading is returned for a partition that this node does not lead. A reply
	// gets it if the node stops leading before the reply's records are committed.
	ErrNotLeading = errors.New("coord: this node does not lead the partition")
	// ErrLoading is returned while a shard still reads its log.
	ErrLoading = errors.New("coord: the partition is being loaded")
	// ErrNewer is wrapped by a Machine for a record that a newer version of leat wrote and
	// that must not be skipped, since the state would be wrong without it. The partition
	// is not served then.
	ErrNewer = errors.New("written by a newer version of leat; start that version, or a newer one")
	// ErrTooLarge is the error of a step whose records make a batch larger than MaxBatch.
	ErrTooLarge = errors.New("coord: the records are too large")
)

// Machine is a state machine. It only computes: it takes the time from the Step, and
// puts records and replies into it. The shard's mutex guards it.
type Machine interface {
	// Apply changes the state by one record, at a load and after a step has appended
	// it. Nothing else changes the recorded part of the state. An error means that the
	// record was not understood and changed nothing: it is skipped, unless the error is
	// ErrNewer.
	Apply(s *Step, r Record) error
	// Loaded is called once, when the whole log was applied. The machine sets its timers
	// then.
	Loaded(s *Step)
	// Unload answers all requests that wait, since this node no longer leads.
	Unload(s *Step)
}

// Config says how machines are made and kept.
type Config[M Machine] struct {
	Logger *slog.Logger
	// New makes the empty machine of a partition; its timers are t.
	New func(partition int32, t *Timers) M
	// ReplyTimeout is how long a reply waits for the high watermark at most. If it is nil,
	// or returns 0, a reply waits for as long as this node leads.
	ReplyTimeout func() time.Duration
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
	cfg         Config[M]
	steps       sync.Pool // of *Step
	loaders     sync.WaitGroup
	loaderSlots chan struct{} // has one element for each loader that reads

	mu     sync.Mutex                          // guards changes of shards, and closed
	closed bool                                // no shard is added any more
	shards atomic.Pointer[map[int32]*shard[M]] // the map never changes: a new one replaces it
}

// New makes a runtime without shards.
func New[M Machine](cfg Config[M]) *Runtime[M] {
	if cfg.ReplyTimeout == nil {
		cfg.ReplyTimeout = func() time.Duration { return 0 }
	}
	r := &Runtime[M]{cfg: cfg, loaderSlots: make(chan struct{}, maxLoaders)}
	r.shards.Store(&map[int32]*shard[M]{})
	return r
}

// Do runs op on a partition's machine, on the caller's goroutine, appends and applies
// the records that it decides, and commits them. If the partition is not led here, or
// is still loading, it returns an error and op does not run. Otherwise every Reply of
// the step is called, now or later.
func (r *Runtime[M]) Do(partition int32, op func(m M, s *Step)) error {
	sh, s, err := r.decideStep(partition, op)
	if err != nil {
		return err
	}
	sh.commitAndReply(s)
	return nil
}

// Stage is Do without the commit, which it leaves to the caller. One commit is enough
// for all steps that were staged before it, and until then the replies that depend on
// their records are not called.
func (r *Runtime[M]) Stage(partition int32, op func(m M, s *Step)) (pending PendingCommit, err error) {
	sh, s, err := r.decideStep(partition, op)
	if err != nil {
		return PendingCommit{}, err
	}
	if s.appended {
		pending = PendingCommit{sh.log}
	}
	sh.replyWhenCommitted(s)
	return pending, nil
}

// decideStep runs op as a step on a partition's shard, up to apply.
func (r *Runtime[M]) decideStep(partition int32, op func(m M, s *Step)) (*shard[M], *Step, error) {
	sh := (*r.shards.Load())[partition]
	if sh == nil {
		return nil, nil, ErrNotLeading
	}
	s := r.takeStep()
	if err := sh.runStep(s, op); err != nil {
		s.replyAndRecycle(err)
		return nil, nil, err
	}
	return sh, s, nil
}

// StartLeading gives the runtime a partition whose leader this node has become, in
// the given epoch. It may be called again for the same epoch, and changes nothing then.
func (r *Runtime[M]) StartLeading(partition int32, e record.Epoch, log Log) {
	old := (*r.shards.Load())[partition]
	if old != nil && old.log == log && old.continueInEpoch(e) {
		return
	}
	sh := &shard[M]{
		rt: r, partition: partition, log: log, epoch: e, timers: new(Timers), stop: make(chan struct{}),
	}
	sh.machine = r.cfg.New(partition, sh.timers)
	if !r.addShard(sh) {
		return
	}
	if old != nil {
		old.stopServing()
	}
	if end, err := log.End(); err == nil && log.Start() >= end && log.IsCommitted(e, end) {
		sh.activate(end) // nothing to read: the first group of a new cluster does not wait
		r.loaders.Done()
		return
	}
	go func() {
		defer r.loaders.Done()
		r.loadLoop(sh)
	}()
}

// StopLeading takes a partition from the runtime. Replies that wait get ErrNotLeading.
func (r *Runtime[M]) StopLeading(partition int32) {
	if old := r.removeShard(partition); old != nil {
		old.stopServing()
	}
}

// Partitions are the partitions that this node leads, in order.
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

// addShard publishes a shard, replacing the one that the partition has, and counts its
// loader. It returns false if the runtime is closed.
func (r *Runtime[M]) addShard(sh *shard[M]) bool {
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

// removeShard removes a partition's shard and returns it, or nil if there is none.
func (r *Runtime[M]) removeShard(partition int32) (old *shard[M]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.shards.Load())
	old = next[partition]
	delete(next, partition)
	r.shards.Store(&next)
	return old
}

// loadLoop loads a shard and makes it active. It tries again while its log cannot be
// read, until the shard is stopped.
func (r *Runtime[M]) loadLoop(sh *shard[M]) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		select {
		case r.loaderSlots <- struct{}{}:
		case <-sh.stop:
			return
		}
		end, err := sh.replayAll()
		<-r.loaderSlots // the rest only waits
		if err == nil {
			err = sh.catchUp(end)
		}
		if err == nil {
			sh.activate(end)
			return
		}
		retry := time.NewTimer(wait)
		select {
		case <-retry.C:
		case <-sh.stop: // the reason may be that this node leads no longer
			retry.Stop()
			return
		}
		r.cfg.Logger.Error("a coordinator's log cannot be loaded; its groups are unavailable until it can",
			slog.Int("partition", int(sh.partition)), slog.Any("err", err))
		sh.discardLoad()
	}
}

// takeStep takes a step from the pool, or makes one. replyAndRecycle gives it back.
func (r *Runtime[M]) takeStep() *Step {
	if s, ok := r.steps.Get().(*Step); ok {
		return s
	}
	s := NewStep(time.Time{})
	s.recycle = func(s *Step) { r.steps.Put(s) }
	return s
}
