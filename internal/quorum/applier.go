package quorum

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	pb "go.etcd.io/raft/v3/raftpb"
)

// job is committed entries on their way from the loop to the applier. All entries that are
// committed while the applier is busy become one job.
type job struct {
	snapshot []byte        // replaces all state; nil: none
	entries  []*pb.Entry   // ordinary ones, with data
	waiting  []*proposal   // proposals whose entries are in this job or in one before it
	bytes    int           // of entries
	at       position      // of the last entry in the state after the job; index 0: as before
	conf     *pb.ConfState // the members at that position
	capture  bool          // the state is to be captured after the job
}

func (j *job) isEmpty() bool { return j.at.index == 0 && !j.capture }

// capture is the state at a position before it is encoded.
type capture struct {
	at     position
	conf   *pb.ConfState
	encode func() []byte
}

// failedJob is a job that could not be applied. The loop answers its proposals, since the node's
// state must show the failure before it is answered.
type failedJob struct {
	err     error
	waiting []*proposal
}

// applier applies jobs. Its goroutine owns at and conf.
type applier struct {
	apply        func(Update) error
	startCapture func() func() []byte
	logger       *slog.Logger

	jobs     chan job       // from the loop, which closes it when it ends
	captured chan capture   // to the loop; of size 1, and at most one is asked for at a time
	failed   chan failedJob // to the loop; of size 1, and nothing is applied after it
	done     chan struct{}  // closed when the goroutine has ended

	applied atomic.Uint64 // index of the last applied entry
	news    news          // of applied
	at      position
	conf    *pb.ConfState
}

func newApplier(cfg Config) *applier {
	return &applier{
		apply: cfg.Apply, startCapture: cfg.Capture, logger: cfg.Logger,
		jobs: make(chan job), captured: make(chan capture, 1), failed: make(chan failedJob, 1), done: make(chan struct{}),
	}
}

// applyJobs is the applier's goroutine.
func (a *applier) applyJobs() {
	defer close(a.done)
	for j := range a.jobs {
		if err := a.applyJob(&j); err != nil {
			a.failed <- failedJob{err, j.waiting}
			return
		}
	}
}

// applyJob applies a job and answers its proposals. After an error the position is as before,
// and no proposal is answered.
func (a *applier) applyJob(j *job) error {
	u := Update{Snapshot: j.snapshot, Entries: make([]Entry, 0, len(j.entries))}
	stale := map[uint64]bool{} // indexes of the entries that were decided in another term
	var err error
	for _, e := range j.entries {
		term, data, unwrapErr := unwrapProposal(e.GetData())
		if unwrapErr != nil {
			err = fmt.Errorf("entry %d: %w", e.GetIndex(), unwrapErr)
			break
		}
		if term != e.GetTerm() {
			// Every voter skips the entry, since both terms are in the log.
			a.logger.Warn("an entry of the metadata log was decided in another term than it was made in, it changes nothing",
				"entry", e.GetIndex(), "term", e.GetTerm(), "decided", term)
			stale[e.GetIndex()] = true
			continue
		}
		u.Entries = append(u.Entries, Entry{Index: e.GetIndex(), Term: term, Data: data})
	}
	if err == nil && (u.Snapshot != nil || len(u.Entries) > 0) {
		err = a.apply(u)
	}
	if err != nil {
		if !errors.Is(err, ErrNotApplied) {
			err = fmt.Errorf("%w: %w", ErrNotApplied, err)
		}
		return err
	}
	if j.at.index != 0 {
		a.at, a.conf = j.at, j.conf
		a.applied.Store(a.at.index)
		a.news.announce()
	}
	for _, p := range j.waiting {
		if stale[p.index] {
			p.done <- ErrNotLeader
			continue
		}
		p.done <- nil
	}
	if j.capture {
		a.captured <- capture{a.at, a.conf, a.startCapture()}
	}
	return nil
}

func failAll(waiting []*proposal, err error) {
	for _, p := range waiting {
		p.done <- err
	}
}
