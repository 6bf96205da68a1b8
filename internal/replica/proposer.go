package replica

import (
	"context"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/replica/progress"
)

const (
	// maxProposed is the largest number of proposals in one request to the controller.
	maxProposed = MaxNamed
	// proposalTimeout is the time after which an attempt ends without an answer.
	proposalTimeout = 10 * time.Second
)

// proposal is a proposal for the in-sync set of a partition that this node leads.
type proposal struct {
	p       *Partition
	machine *progress.Leader // that has made it
	progress.Proposal
}

// proposer sends the proposals of all partitions to the controller, one request at a time. A machine
// makes no other proposal before it was told of the end of the attempt.
type proposer struct {
	host *host
	wake chan struct{} // of size 1; filled: there are proposals

	mu      sync.Mutex
	pending []*proposal // guarded by mu
}

func newProposer(h *host) *proposer { return &proposer{host: h, wake: make(chan struct{}, 1)} }

// add has a proposal of a leader's machine sent.
func (r *proposer) add(p *Partition, machine *progress.Leader, next progress.Proposal) {
	r.mu.Lock()
	r.pending = append(r.pending, &proposal{p, machine, next})
	r.mu.Unlock()
	fill(r.wake)
}

// run sends proposals until ctx ends.
func (r *proposer) run(ctx context.Context) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for list := r.takePending(); len(list) > 0; list = r.takePending() {
			r.send(ctx, list)
		}
	}
}

// takePending takes the oldest proposals.
func (r *proposer) takePending() []*proposal {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.pending), maxProposed)
	list := r.pending[:n:n]
	if r.pending = r.pending[n:]; len(r.pending) == 0 {
		r.pending = nil
	}
	return list
}

// send sends proposals, and ends their attempts.
func (r *proposer) send(ctx context.Context, list []*proposal) {
	changes := make([]InSyncChange, len(list))
	for i, next := range list {
		changes[i] = InSyncChange{
			ID: next.p.id, Epoch: next.Epoch, PartitionEpoch: next.PartitionEpoch, ISR: next.ISR, GivesUp: next.GivesUp, Successor: next.Successor,
			Damaged: next.Damaged,
		}
	}
	ctx, cancel := context.WithTimeout(ctx, proposalTimeout)
	defer cancel()
	if err := r.host.cfg.Transport.AlterInSync(ctx, changes); err != nil && ctx.Err() == nil {
		r.host.cfg.Logger.Debug("changes of in-sync sets have no answer; they are proposed again", "partitions", len(list), "err", err)
	}
	for _, next := range list {
		next.end()
	}
}

// end tells the machine that the attempt has ended. The pause after it is a matter of ticks.
func (next *proposal) end() {
	p := next.p
	p.mu.Lock()
	tick := false
	if d := &p.leading; next.machine == d.machine || next.machine == d.unreadable {
		next.machine.Answered(p.host.Now(), next.Attempt)
		tick = d.wantsTick(next.machine)
	}
	p.mu.Unlock()
	if tick {
		p.host.addTicking(p)
	}
}
