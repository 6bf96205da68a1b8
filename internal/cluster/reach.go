package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

const (
	// reachTime is how long an attempt to reach a node may take: names may be slow to resolve.
	reachTime = 10 * time.Second
	// reachWait is how long the answer to a heartbeat waits for an attempt. The next heartbeat finds its result, too.
	reachWait = time.Second
	// reachPause is the pause between two attempts.
	reachPause = time.Second
	// comparedTime is how long the attempts may take to reach others, and comparedNodes how many others are tried.
	comparedTime  = 3 * time.Second
	comparedNodes = 3
	// reachComplainEvery is how often the log tells of a node that cannot be reached.
	reachComplainEvery = time.Minute
)

// reaches know which nodes this one has reached at the addresses that they have registered. While it is the active controller it keeps a
// node fenced that has been registered, until it was reached there: else the node would lead partitions which nobody can read. That
// is asked once for each registration, so that a node which serves is never fenced for it:
//
//	            attempt
//	unknown ------+------> reached     the node may become active
//	   ^          |
//	   |          +------> exempt      it may, too: this node reaches nobody, so the attempt says nothing
//	   |   pause  |
//	   +--------- +------> failed      it stays fenced, and is told why
//
// A node is proven to be the one that is meant: an address may lead to another one.
type reaches struct {
	c      *Controller
	ctx    context.Context //nolint:containedctx // of the attempts, which outlast the heartbeats that begin them
	cancel context.CancelFunc
	trying sync.WaitGroup // of the attempts; added to with mu held, while not closed

	mu     sync.Mutex
	closed bool             // guarded by mu
	of     map[int32]*reach // guarded by mu: by node, of its last registration
	known  map[int32]string // guarded by mu: the address at which a node was reached last
}

// reach is what is known of one registration. Its fields are guarded by reaches.mu.
type reach struct {
	epoch    int64
	address  string
	may      bool          // reached, or exempt
	ended    chan struct{} // closed when the attempt that is under way ends; nil: none is
	err      error         // of the last attempt
	nextAt   time.Time     // no attempt begins before
	toldNext time.Time     // the log does not tell of it before
}

func newReaches(ctx context.Context, c *Controller) *reaches {
	s := &reaches{c: c, of: map[int32]*reach{}, known: map[int32]string{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

func (s *reaches) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.trying.Wait()
}

// mayServe tells whether the node of a heartbeat may become active. why is the failure of the last attempt to reach it; "": there was none yet.
func (s *reaches) mayServe(ctx context.Context, beat *controller.Beat) (may bool, why string) {
	b, address := s.findAsked(beat)
	if b == nil {
		return true, ""
	}
	s.mu.Lock()
	r := s.of[b.ID]
	if r == nil || r.epoch != b.Epoch {
		r = &reach{epoch: b.Epoch, address: address}
		s.of[b.ID] = r
	}
	if !r.may && r.ended == nil && !s.closed && !time.Now().Before(r.nextAt) {
		ended := make(chan struct{})
		r.ended = ended
		s.trying.Go(func() { s.try(b, r, ended) })
	}
	ended := r.ended
	s.mu.Unlock()
	if ended != nil {
		wait := time.NewTimer(reachWait)
		defer wait.Stop()
		select {
		case <-ended:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.may, r.explainLocked(s.c.cfg.Quorum.cfg.NodeID)
}

// findAsked returns the registration that a heartbeat would end the fencing of for the first time, and the address at which other nodes
// are to reach it; nil: it is none.
func (s *reaches) findAsked(beat *controller.Beat) (b *meta.Broker, address string) {
	m := s.c.cfg.Image()
	b = m.Brokers[beat.ID]
	if b == nil || b.Epoch != beat.Epoch || b.State != meta.BrokerFenced || !beat.Caught || beat.WantsFence || beat.WantsStop {
		return nil, ""
	}
	if m.Level() < meta.LevelCluster || b.RecordedEpoch == b.Epoch { // it was active in this registration
		return nil, ""
	}
	if address = addressOf(m, b); address == "" {
		return nil, ""
	}
	return b, address
}

// addressOf is the address at which other nodes reach a registered one, with its protocol; "": it has none.
func addressOf(m *meta.Image, b *meta.Broker) string {
	host, port := b.Address()
	if host == "" {
		return ""
	}
	return peer.FormatAddress(config.Protocol(m.PeerSecurity(b)), host, port)
}

// hostPort is an address as people know it.
func hostPort(address string) string {
	text, _, _ := peer.SplitAddress(address)
	return text
}

// explainLocked says why a node stays fenced; "": it does not, or no attempt has ended yet. mu is held.
func (r *reach) explainLocked(self int32) string {
	if r.may || r.err == nil {
		return ""
	}
	return fmt.Sprintf("node %d, the active controller, cannot reach it at %s, which it has registered: %v", self, hostPort(r.address), r.err)
}

// try makes one attempt.
func (s *reaches) try(b *meta.Broker, r *reach, ended chan struct{}) {
	defer close(ended)
	ctx, cancel := context.WithTimeout(s.ctx, reachTime)
	defer cancel()
	err := s.c.cfg.Links.Reach(ctx, b.ID, r.address)
	exempt := err != nil && s.ctx.Err() == nil && s.isCutOff(b.ID, r.address)
	log := s.c.cfg.Logger.With("node", b.ID, "address", hostPort(r.address))
	s.mu.Lock()
	defer s.mu.Unlock()
	hadFailed := r.err != nil
	r.ended, r.err, r.nextAt = nil, err, time.Now().Add(reachPause)
	r.may = err == nil || exempt
	switch {
	case s.ctx.Err() != nil:
	case err == nil:
		s.known[b.ID] = r.address
		if hadFailed {
			log.Info("the node is reached at the address that it has registered, and may serve")
		}
	case exempt:
		log.Warn("a node cannot be reached at the address that it has registered; it may serve all the same, since this node, the active controller, does not reach those that serve either", "err", err)
	case !time.Now().Before(r.toldNext):
		r.toldNext = time.Now().Add(reachComplainEvery)
		log.Warn("a node stays fenced, since it cannot be reached at the address that it has registered; it is tried again until it can", "err", err)
	}
}

// isCutOff tells whether it is this node that reaches nobody: no other node that serves can be reached anew at its address. If
// there is none, a node's address counts that was good before.
func (s *reaches) isCutOff(but int32, address string) bool {
	ctx, cancel := context.WithTimeout(s.ctx, comparedTime)
	defer cancel()
	m := s.c.cfg.Image()
	brokers := m.Brokers
	var others []int32
	for _, id := range slices.Sorted(maps.Keys(brokers)) {
		if id != but && id != s.c.cfg.Quorum.cfg.NodeID && brokers[id].State == meta.BrokerActive && addressOf(m, brokers[id]) != "" && len(others) < comparedNodes {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.known[but] == address
	}
	results := make(chan error, comparedNodes)
	for _, id := range others {
		address := addressOf(m, brokers[id])
		go func() { results <- s.c.cfg.Links.Reach(ctx, id, address) }()
	}
	reached := false
	for range others { // each ends with the context
		reached = <-results == nil || reached
	}
	return !reached
}

// explain returns why a node is kept fenced here; "": it is not.
func (s *reaches) explain(id int32) string {
	b := s.c.cfg.Image().Brokers[id]
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.of[id]; r != nil && b != nil && r.epoch == b.Epoch && b.State == meta.BrokerFenced {
		return r.explainLocked(s.c.cfg.Quorum.cfg.NodeID)
	}
	return ""
}
