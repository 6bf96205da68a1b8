package replica

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// Config is the input of NewSet.
type Config struct {
	NodeID int32
	Store  *storage.Store
	Static *config.Static // the node's own settings, below the topics'
	// Transport reaches the other nodes; nil: there are none.
	Transport Transport
	Logger    *slog.Logger // nil: nothing is logged
}

// leastPause is the shortest pause after an error, whatever replica.fetch.backoff.ms says.
const leastPause = 10 * time.Millisecond

// host is what all replicas of a node share.
type host struct {
	cfg   Config
	began time.Time // Now counts from it

	nodes       atomic.Pointer[nodes]
	replication atomic.Pointer[config.Replication]
	brokerEpoch atomic.Int64 // of this node's registration
	partitions  atomic.Int64 // of the cluster
	asLeader    quota        // leader.replication.throttled.rate
	asFollower  quota        // follower.replication.throttled.rate

	// find finds a partition by its identity; nil: it is not on this node.
	find func(id PartitionID) *Partition
	// heard lists what was heard from the nodes that follow this one.
	heard func() []heardFollower
	// lookForFaults has replicas do what follows from faults of logs that were found since its last call.
	lookForFaults func()
	// propose has a proposal of a leader's machine sent; nil: there is no Transport.
	propose func(p *Partition, m *progress.Leader, next progress.Proposal)
	// start starts a goroutine that ends with the Set, or when the result is called.
	start func(run func(ctx context.Context)) context.CancelFunc

	commitWanted chan struct{} // of size 1; filled: a commit in the background is wanted
	uncut        cutQueue
	cutsMade     atomic.Int64 // cuts that have taken records
	prompt       atomic.Int64 // commits for which producers have waited

	mu sync.Mutex
	// appended, guarded by mu, has what coordinators have appended and no commit has followed yet.
	appended    map[*Partition]arrival
	hasAppended atomic.Bool // appended is not empty; changes with mu held only
	// waiting, guarded by mu, has each partition that has waiters, once, and some whose
	// waiters have gone. Expire holds them for a moment while it looks at them.
	waiting []*Partition
	// ticking, guarded by mu, has each partition that leads and may have something to do when time
	// passes, once. Expire takes them for a moment.
	ticking []*Partition
}

// Now is the time since the Set was made, which the deadlines of Waiters refer to. It does not
// follow changes of the wall clock.
func (h *host) Now() time.Duration { return time.Since(h.began) }

// follows tells whether this node can follow in a leadership.
func (h *host) follows(l *Leadership) bool {
	return h.cfg.Transport != nil && l.Leader >= 0 && l.Leader != h.cfg.NodeID
}

// retryPause is the pause after an error.
func (h *host) retryPause() time.Duration { return max(h.replication.Load().FetchBackoff, leastPause) }

// FindRack is the name of a reader's rack, for Query. It is "" if no node is in that rack, or readers
// are not to be sent to a replica in their rack.
func (h *host) FindRack(name []byte) string {
	if len(name) == 0 || !h.replication.Load().NearestReplica {
		return ""
	}
	return h.nodes.Load().names[string(name)]
}

// followCluster takes what the metadata have of the nodes and of this node's configs. It is taken
// before the partitions that the same change touches.
func (h *host) followCluster(d *meta.Delta, img *meta.Image) {
	h.partitions.Store(int64(img.NumPartitions()))
	if d.Brokers {
		n := newNodes(img)
		h.nodes.Store(n)
		h.brokerEpoch.Store(n.brokers[h.cfg.NodeID].Epoch)
	}
	now := &meta.ServerSettings(img, h.cfg.Static).Replication
	if *now == *h.replication.Load() {
		return
	}
	h.replication.Store(now)
	h.asLeader.setRate(h.Now(), now.LeaderRate, now.QuotaWindow)
	h.asFollower.setRate(h.Now(), now.FollowerRate, now.QuotaWindow)
}

// Commit makes durable all that was appended to any partition so far. If a commit is under
// way it may return at once: another commit, which covers it, follows then. The waits that
// depend on the commit end after it.
func (h *host) Commit() {
	h.cfg.Store.Commit()
	h.advanceAppended()
	h.lookForFaults()
}

// commitInBackground has another goroutine commit all that was appended so far, and does not wait
// for it.
func (h *host) commitInBackground() { fill(h.commitWanted) } // if it is filled, a commit that has not begun yet covers this

// fill fills a channel of size 1.
func fill(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (h *host) commitLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.commitWanted:
			h.Commit()
		}
	}
}

// advanceAtCommit has the next commit count n bytes that go up to end for the partition's polls, and
// advance its ends. The append may have committed earlier records, also if it failed.
func (h *host) advanceAtCommit(p *Partition, a arrival) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.appended == nil {
		h.appended = map[*Partition]arrival{}
	}
	b := h.appended[p]
	h.appended[p] = arrival{a.bytes + b.bytes, max(a.end, b.end)}
	h.hasAppended.Store(true)
}

// advanceAppended advances the partitions to which coordinators have appended. No lock may be
// held.
func (h *host) advanceAppended() {
	if !h.hasAppended.Load() {
		return
	}
	h.mu.Lock()
	appended := h.appended
	h.appended = nil
	h.hasAppended.Store(false)
	h.mu.Unlock()
	for p, a := range appended {
		p.countForPolls(a)
		p.advanceEnds()
	}
}

// expire is Set.Expire for all that the host has in lists.
func (h *host) expire(now time.Duration) {
	h.mu.Lock()
	ps := h.waiting
	h.waiting = nil
	h.mu.Unlock()
	left := slices.DeleteFunc(ps, func(p *Partition) bool { return !expireWaits(p, now) })
	if len(left) > 0 {
		h.mu.Lock()
		h.waiting = append(left, h.waiting...)
		h.mu.Unlock()
	}
	h.tickLeaders()
}

// addWaiting has Expire look at a partition.
func (h *host) addWaiting(p *Partition) {
	h.mu.Lock()
	h.waiting = append(h.waiting, p)
	h.mu.Unlock()
}

// addTicking has Expire look at a partition that this node leads.
func (h *host) addTicking(p *Partition) {
	h.mu.Lock()
	h.ticking = append(h.ticking, p)
	h.mu.Unlock()
}

// tickLeaders lets time pass for the partitions that wait for it: followers that are late leave the
// in-sync set. A partition that goes on to wait enters the list again.
func (h *host) tickLeaders() {
	h.mu.Lock()
	ps := h.ticking
	h.ticking = nil
	h.mu.Unlock()
	for _, p := range ps {
		p.mu.Lock()
		p.leading.ticking = false
		p.mu.Unlock()
		if !p.gone.Load() {
			p.advanceEnds()
		}
	}
}
