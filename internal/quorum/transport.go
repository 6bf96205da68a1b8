package quorum

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

const (
	maxQueuedMessages = 512     // of other members that wait for the loop; more are dropped
	maxBatchMessages  = 64      // that the loop takes at once, and writes with one sync
	maxTermStep       = 1 << 20 // by which another node's term may be above this one's
	maxObservers      = 256     // whose progress is remembered
	maxCommands       = 16      // that wait for the loop
	dropsInterval     = 10 * time.Second
)

// pullAnswer is the result of a pull.
type pullAnswer struct {
	data []byte
	err  error
}

// newRequests sends what the loop wants of other nodes by the node's transport. At most one pull
// and one request for a part are under way.
func newRequests(n *Node) requests {
	t, cluster := n.cfg.Transport, n.cfg.Cluster
	if t == nil {
		return requests{send: func([]*pb.Message) {}, pull: func(Pull) {}, fetch: func(Part) {}}
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // it ends with the loop
	var running sync.WaitGroup
	n.endRequests = func() {
		cancel()
		running.Wait()
	}
	return requests{
		send: func(messages []*pb.Message) { t.Send(encodeMessages(cluster, messages)) },
		pull: func(p Pull) {
			running.Go(func() {
				b, err := t.ReadCommitted(ctx, p)
				n.pulled <- pullAnswer{b, err}
			})
		},
		fetch: func(p Part) {
			running.Go(func() {
				b, err := t.ReadSnapshot(ctx, p)
				n.parts <- partAnswer{p, b, err}
			})
		},
	}
}

func encodeMessages(cluster string, messages []*pb.Message) []Message {
	encoded := make([]Message, 0, len(messages))
	for _, m := range messages {
		encoded = append(encoded, Message{To: m.GetTo(), Data: encodeMessage(cluster, m)})
	}
	return encoded
}

// Step takes a message that another member's Transport has sent. It never waits: a message for
// which there is no room is dropped, as the network may do. It returns ErrMessage for one that no
// member of this cluster sends, which is logged at a bounded rate.
func (n *Node) Step(data []byte) error {
	m, err := n.decode(data)
	if err != nil {
		n.drops.report(n.cfg.Logger, m.GetFrom(), err)
		return err
	}
	select {
	case n.messages <- m:
	default:
	}
	return nil
}

// decode decodes a message for this node. Messages of other raft ids than those of the members count for
// nothing, whatever they are: a request in a higher term would end the present leader's. A leader or a
// candidate may be newer than the members that this node knows; a node that hears of no leader asks others
// for the committed entries that name it.
func (n *Node) decode(data []byte) (*pb.Message, error) {
	m, err := decodeMessage(n.cfg.Cluster, data)
	if err != nil {
		return m, err
	}
	if s := n.status.Load(); m.GetTo() != s.RaftID || m.GetFrom() == s.RaftID {
		return m, errNotForUs
	} else if !names(s.conf, m.GetFrom()) {
		return m, errUnknownMember
	} else if err := checkTermStep(s.Term, m.GetTerm()); err != nil {
		return m, err
	}
	return m, nil
}

// checkTermStep refuses a term that is too far above this node's. Each election raises the term by one, and
// there is none above the largest number, so that one message could take all terms away.
func checkTermStep(own, term uint64) error {
	if term > own && term-own > maxTermStep {
		return fmt.Errorf("%w: in term %d, which is too far above this node's term %d", ErrMessage, term, own)
	}
	return nil
}

func names(c *pb.ConfState, id uint64) bool {
	for _, ids := range [][]uint64{c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext()} {
		if slices.Contains(ids, id) {
			return true
		}
	}
	return false
}

// gatherMessages adds to the first message those that wait now.
func gatherMessages(first *pb.Message, more <-chan *pb.Message) []*pb.Message {
	batch, bytes := []*pb.Message{first}, 0
	for len(batch) < maxBatchMessages {
		for _, e := range batch[len(batch)-1].GetEntries() {
			bytes += len(e.GetData())
		}
		if bytes >= maxBatchBytes {
			break
		}
		select {
		case m := <-more:
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

// dropLog logs dropped messages, one line in a while.
type dropLog struct {
	mu    sync.Mutex
	next  time.Time // of the next line
	drops int       // since the last line
}

func (d *dropLog) report(logger *slog.Logger, from uint64, err error) {
	d.mu.Lock()
	d.drops++
	now, drops := time.Now(), d.drops
	isDue := !now.Before(d.next)
	if isDue {
		d.next, d.drops = now.Add(dropsInterval), 0
	}
	d.mu.Unlock()
	if isDue {
		logger.Warn("messages for the metadata quorum were dropped", "messages", drops, "from", from, "last", err)
	}
}

// news wakes those who wait for entries or a snapshot.
type news struct{ next atomic.Pointer[chan struct{}] }

// wait returns a channel that is closed at the next announcement.
func (w *news) wait() <-chan struct{} {
	for {
		if have := w.next.Load(); have != nil {
			return *have
		}
		fresh := make(chan struct{})
		if w.next.CompareAndSwap(nil, &fresh) {
			return fresh
		}
	}
}

func (w *news) announce() {
	if waiting := w.next.Swap(nil); waiting != nil {
		close(*waiting)
	}
}

// lazyTicker is a ticker that exists only while it is needed.
type lazyTicker struct {
	interval time.Duration
	ticker   *time.Ticker
}

func (t *lazyTicker) channel(isNeeded bool) <-chan time.Time {
	if !isNeeded {
		t.stop()
		return nil
	}
	if t.ticker == nil {
		t.ticker = time.NewTicker(t.interval)
	}
	return t.ticker.C
}

func (t *lazyTicker) stop() {
	if t.ticker != nil {
		t.ticker.Stop()
		t.ticker = nil
	}
}

// observerMatch is what is known of an observer that pulls from this node.
type observerMatch struct {
	match uint64
	order uint64 // of its last pull
}

// observers remembers how far observers are.
type observers struct {
	mu    sync.Mutex
	pulls uint64
	known map[uint64]observerMatch
}

// note remembers a pull. If there are too many observers it forgets the one that pulled
// longest ago.
func (o *observers) note(id, match uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil {
		o.known = map[uint64]observerMatch{}
	}
	o.pulls++
	o.known[id] = observerMatch{match, o.pulls}
	if len(o.known) <= maxObservers {
		return
	}
	oldest := id
	for other, m := range o.known {
		if m.order < o.known[oldest].order {
			oldest = other
		}
	}
	delete(o.known, oldest)
}

// matches returns the observers that are not members.
func (o *observers) matches(conf *pb.ConfState) map[uint64]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) == 0 {
		return nil
	}
	m := map[uint64]uint64{}
	for id, at := range o.known {
		if !names(conf, id) {
			m[id] = at.match
		}
	}
	return m
}

// ReadCommitted returns committed entries for another node, in a form that its Transport returns.
// A member that hears of a leader waits until there are any, or ctx ends; others answer only if there are. If the
// entries are not in memory any more, or the other node has no state, the answer names a snapshot
// instead.
func (n *Node) ReadCommitted(ctx context.Context, p Pull) ([]byte, error) {
	for {
		news := n.news.wait()
		s := n.status.Load()
		if s.State == Ended {
			return nil, n.err
		}
		if s.State == Faulted {
			return nil, ErrNotMember
		}
		n.observers.note(p.Observer, p.Last)
		if s.isSole {
			n.noteAhead(s, position{p.Last, p.LastTerm})
		}
		answer, ok, err := n.readCommitted(s, p)
		if err != nil {
			return nil, err
		}
		if ok {
			return encodePulled(n.cfg.Cluster, answer), nil
		}
		if s.Role == Observer || s.LeaderRaftID == 0 {
			return nil, ErrNotMember // it would be asked for ever by others that know as little
		}
		select {
		case <-news:
		case <-n.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readCommitted returns the answer to a pull; ok is false if there is none yet.
func (n *Node) readCommitted(s *loopStatus, p Pull) (answer *pulled, ok bool, err error) {
	answer = &pulled{member: s.RaftID, leader: s.LeaderRaftID, term: s.Term, commit: s.Commit, conf: s.conf}
	first, err := s.memory.FirstIndex()
	if err != nil {
		return nil, false, err
	}
	if p.From < first {
		if s.snapshot > 0 && s.snapshot+1 >= p.From {
			answer.snapshot = s.snapshot
			return answer, true, nil
		}
		select {
		case n.wantSnapshot <- struct{}{}:
		default:
		}
		return nil, false, nil
	}
	if p.From > s.Commit {
		return nil, false, nil
	}
	term, err := s.memory.Term(p.From - 1)
	if err == nil {
		answer.entries, err = s.memory.Entries(p.From, s.Commit+1, maxBatchBytes)
	}
	if err != nil { // it was compacted at this moment: the next look finds that
		return nil, false, nil //nolint:nilerr // as above
	}
	answer.prev = position{p.From - 1, term}
	answer.entries = answer.entries[:min(len(answer.entries), maxMessageEntries)]
	return answer, true, nil
}

// ReadSnapshot returns a part of a snapshot that a message or an answer has named, in a form
// that the asking node's Transport returns. It returns ErrNoSnapshot if there is a newer one.
func (n *Node) ReadSnapshot(p Part) ([]byte, error) {
	part, size, err := readSnapshotPart(n.cfg.FS, n.cfg.Dir, p, n.tune.part)
	if err != nil {
		return nil, err
	}
	return encodePart(n.cfg.Cluster, size, part), nil
}

// command is what a caller wants the loop to do. The loop calls one of its functions.
type command struct {
	run    func(l *loop)
	refuse func(err error)
}

// ReportDead tells that a member is certainly not running, for example since its connection was closed
// and a new one is refused. If it was the leader, another voter begins an election at once.
func (n *Node) ReportDead(id uint64) { n.tell(func(c *core) { c.forget(id) }) }

// ReportUnreachable tells that a message could not be sent to a member, so that raft sends it less until
// it answers again.
func (n *Node) ReportUnreachable(id uint64) { n.tell(func(c *core) { c.raft.ReportUnreachable(id) }) }

// tell has the loop tell the core something, unless too much waits for the loop already.
func (n *Node) tell(what func(c *core)) {
	run := func(l *loop) {
		if l.core != nil {
			what(l.core)
		}
	}
	select {
	case n.commands <- command{run, func(error) {}}:
	default:
	}
}

// ChangeMembers makes these the members of the quorum, in one step, of which a crash leaves all or
// nothing. It returns when the change is complete, and most of the new voters know that, so that they can go on
// without this node. Other members than wanted are removed; they go on as observers. term is that which Leading returned before the change was decided.
//
// A new voter must have been a learner, and have caught up (ErrNotCaughtUp). The number of voters
// must be odd, and the leader must stay one (ErrMembers). One change at a time is possible
// (ErrChangeUnderWay). If ctx ends first, or the node stops leading (ErrNotLeader), the change
// may still be made.
func (n *Node) ChangeMembers(ctx context.Context, term uint64, want Members) error {
	return n.ask(ctx, func(l *loop, w *waiter) error { return l.core.startChange(term, want, w) })
}

// TransferLeadership makes another voter the leader. It returns ErrNotMoved if this node still
// leads after some time.
func (n *Node) TransferLeadership(ctx context.Context, to uint64) error {
	return n.ask(ctx, func(l *loop, w *waiter) error { return l.core.startMove(to, w) })
}

// ConfirmLeading returns nil once most voters have confirmed, since the call, that this node leads. A node that has stood still
// believes that it does until it hears of another leader, or has waited for an election's time.
func (n *Node) ConfirmLeading(ctx context.Context) error {
	return n.ask(ctx, func(l *loop, w *waiter) error { return l.core.startConfirmation(w) })
}

// ask has the loop begin something, and waits for its end.
func (n *Node) ask(ctx context.Context, begin func(*loop, *waiter) error) error {
	w := &waiter{done: make(chan error, 1)}
	c := command{refuse: func(err error) { w.done <- err }}
	c.run = func(l *loop) {
		err := ErrNotLeader
		if l.core != nil {
			err = begin(l, w)
		}
		if err != nil {
			w.done <- err
		}
	}
	select {
	case n.commands <- c:
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-n.done:
		select {
		case err := <-w.done:
			return err
		default:
			return n.err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}
