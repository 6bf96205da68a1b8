package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/storage/lastrun"
)

// registrar is the active controller as a node sees it: it takes the node's registration and its
// heartbeats.
type registrar interface {
	RegisterBroker(ctx context.Context, g *controller.Registration) (epoch int64, refused *controller.Error, err error)
	Heartbeat(ctx context.Context, beat *controller.Beat) (answer controller.BeatAnswer, refused *controller.Error, err error)
}

// nodeLinks are the connections to other nodes, as upkeep sees them.
type nodeLinks interface {
	followMembers() // ends the connections of nodes that were removed
	keepLinks()     // keeps those by which the active controller notices the end of a node
	// activeController is the node that is the active controller; -1: none is known.
	activeController() int32
}

// membership is the part of this start of the node in the cluster.
type membership struct {
	incarnation meta.UUID      // identifies this start
	began       time.Time      // clock counts from it
	lastRun     *lastrun.Notes // how the run of the node before this one ended, and notes for the next one
	generations generations
	registrar   registrar
	applied     func() uint64 // the index of the metadata log that the image shows, or a lower one
	// lostMetadata tells whether the metadata go on without the node: see hasLostMetadata.
	lostMetadata func() bool
	nodeLinks    nodeLinks
	brokerEpoch  atomic.Int64 // of its registration; 0 before
	sessionEnds  atomic.Int64 // the time of clock until which the session lasts, in ns: see hasSession
	lagging      lagging
	clocks       clockWatch
	room         roomWatch
	isLeaving    atomic.Bool // it has asked to stop: others are given what it leads
	// nodesChanged is of size 1. If it is filled the registered nodes have changed since
	// upkeep looked at them.
	nodesChanged chan struct{}
	votersWanted chan struct{} // the same for the electorate
}

// clock is the time of the controller on this node. It does not follow changes of the wall clock.
func (m *membership) clock() time.Duration { return time.Since(m.began) }

// noteNodes has upkeep and the electorate look at the registered nodes again.
func (m *membership) noteNodes() {
	for _, c := range []chan struct{}{m.nodesChanged, m.votersWanted} {
		select {
		case c <- struct{}{}:
		default: // it has not looked yet
		}
	}
}

// register creates the cluster's metadata at the first start, and registers this node at each
// start, under a new incarnation. The node is fenced: it leads no partition yet. When it returns
// the data directory has the registration's epoch, which the node must not ask to serve before.
func (n *Node) register(ctx context.Context) error {
	if !n.id.joined && n.peers.isAlone() { // it began the cluster, or is all of it
		if err := n.controller.Bootstrap(ctx, n.id.clusterID); err != nil {
			return fmt.Errorf("cannot write the cluster's first metadata: %w", err)
		}
		if err := admitSelf(ctx, n); err != nil {
			return err
		}
		if err := makeAuthority(ctx, n); err != nil {
			return err
		}
		if err := makeFirstUser(ctx, n); err != nil {
			return err
		}
	}
	if err := showCertificate(n); err != nil {
		return err
	}
	last := n.lastRun.Last()
	if n.store.Damage() != nil { // any log may lack something
		last = lastrun.Run{}
	}
	g := controller.Registration{
		ClusterID: n.id.clusterID,
		Broker: meta.Broker{
			ID: n.id.nodeID, Incarnation: n.incarnation, Directory: n.id.directory, Rack: n.cfg.Rack,
			Listeners: registeredListeners(n), Features: broker.SupportedFeatures(), RaftID: n.quorum.Status().RaftID,
		},
		PreviousEpoch: last.Epoch, Generation: last.Generation, Clean: last.Clean,
	}
	for _, topic := range last.Unsynced {
		g.Unsynced = append(g.Unsynced, topic)
	}
	if remark := directoryRemark(n.image.Load().Brokers[n.id.nodeID], &g); remark != "" {
		n.loggers.loggerOf(rootLogger).Warn("the data directory is not as the cluster knows it", "why", remark, "node", n.id.nodeID, "data", n.cfg.Data)
	}
	warning, err := checkListeners(n.image.Load(), n.id.nodeID, g.Broker.Listeners, func(host string) bool { return isThisMachine(ctx, host) })
	if err != nil {
		return err
	}
	if warning != "" {
		n.loggers.loggerOf(rootLogger).Warn("nodes have listeners of other names", "why", warning)
	}
	epoch, err := askToRegister(ctx, n, &g)
	if err != nil {
		return fmt.Errorf("cannot register this node in its cluster: %w", err)
	}
	n.brokerEpoch.Store(epoch)
	return noteRegistration(n, epoch)
}

// directoryRemark says that a data directory is not the one, or not in the state, that the node had when it was registered last;
// "": it is, as far as the metadata here tell. The controller does not count its replicas as in sync then: see controller.Rules.
func directoryRemark(last *meta.Broker, g *controller.Registration) string {
	const after = "its replicas count as in sync again when they have fetched what they may lack from other nodes"
	switch {
	case last == nil || last.Directory == (meta.UUID{}):
		return ""
	case last.Directory != g.Broker.Directory:
		return fmt.Sprintf("this data directory has the id %v, and the node had the directory %v when it was registered last: if it was not replaced on purpose, start the node with that one; %s",
			g.Broker.Directory, last.Directory, after)
	case g.PreviousEpoch == 0:
		return "this data directory does not tell how the last run of the node has ended, so it may lack records; " + after
	case g.PreviousEpoch < last.RecordedEpoch:
		return fmt.Sprintf("this data directory is older than what the cluster knows: its last run was the registration of epoch %d, and the node has recorded epoch %d since; it was restored from a copy, or another one is in use; %s",
			g.PreviousEpoch, last.RecordedEpoch, after)
	case g.Generation < last.Generation:
		return fmt.Sprintf("this data directory is older than what the cluster knows: it has generation %d, and has had %d in the same run; it was restored from a copy, or another one is in use; %s",
			g.Generation, last.Generation, after)
	}
	return ""
}

const (
	// registerTime is how long a node that starts waits for the active controller before the log says so, and again
	// every complainEvery.
	registerTime = 5 * time.Second
	// refusedTime is how long a node tries to be registered while another process has its id, beyond the
	// time after which the cluster takes that process for dead.
	refusedTime = 5 * time.Second
)

// askToRegister has the active controller register this node. It waits for the other nodes as long as it
// takes: without most of them nothing can be decided.
func askToRegister(ctx context.Context, n *Node, g *controller.Registration) (epoch int64, err error) {
	began := n.clock()
	for complainAt := began; ; {
		epoch, refused, err := tryToRegister(ctx, n, g)
		switch {
		case err == nil && refused == nil:
			return epoch, nil
		case ctx.Err() != nil:
			return 0, errors.Join(ctx.Err(), err)
		case n.failing.Err() != nil: // the reason is in n.failed
		case refused != nil && refused.Kind == controller.DuplicateBroker && n.clock()-began < n.serverSettings().SessionTimeout+refusedTime:
			if n.clock() >= complainAt { // the cluster may not know yet that the process before this one has ended
				complainAt = n.clock() + complainEvery
				n.loggers.loggerOf(rootLogger).Warn("another process is registered as this node; if it has just ended, this one is registered as soon as the cluster knows that",
					"node", n.id.nodeID, "registered", describeAddress(n.image.Load().Brokers[n.id.nodeID]))
			}
		case refused != nil && refused.Kind == controller.DuplicateBroker:
			return 0, fmt.Errorf("%w: node %d is registered at %s, and is heard from; this one has a copy of its data directory, or the same one under another lock",
				credential.ErrNodeAlive, n.id.nodeID, describeAddress(n.image.Load().Brokers[n.id.nodeID]))
		case refused != nil:
			return 0, refused
		case !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, quorum.ErrNotLeader):
			return 0, err
		case n.clock() >= complainAt:
			complainAt = n.clock() + complainEvery
			n.loggers.loggerOf(rootLogger).Warn("this node waits for its cluster, which cannot decide anything: start more of its nodes, if they do not run; if they have other addresses now, name one of these with --join",
				"nodes", len(n.peers.listOthers())+1, "tried", n.peers.describeTargets(), "err", err)
		}
		select {
		case <-time.After(activateEvery):
		case err := <-n.failed: // the node was removed
			return 0, err
		case <-ctx.Done():
		}
	}
}

// describeAddress says where other nodes reach a registered one.
func describeAddress(b *meta.Broker) string {
	if b == nil {
		return "an unknown address"
	}
	host, port := b.Address()
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func tryToRegister(ctx context.Context, n *Node, g *controller.Registration) (epoch int64, refused *controller.Error, err error) {
	ctx, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	stopWaiting := context.AfterFunc(n.failing, cancel)
	defer stopWaiting()
	return n.registrar.RegisterBroker(ctx, g)
}

// noteRegistration notes in the data directory under which registration it is used. A full disk does
// not keep the node from starting, since room is made by deleting topics: the note of the run before
// stays, which has another epoch than the metadata, so at the next start the logs count as if they had
// lost something.
func noteRegistration(n *Node, epoch int64) error {
	err := n.lastRun.Begin(epoch)
	if storage.IsFull(err) {
		n.loggers.loggerOf("storage").Warn("the disk is full: nothing will tell how this run has ended, so the next start takes the logs for logs that may have lost something", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot note the registration in %s: %w", n.cfg.Data, err)
	}
	return nil
}

// admitSelf has the cluster know the key of this node, if its metadata can have keys by now.
func admitSelf(ctx context.Context, n *Node) error {
	self := meta.NodeAdmitted{ID: n.id.nodeID, Key: n.id.public, Directory: n.id.directory}
	refused, err := n.controller.AdmitSelf(ctx, self)
	if refused != nil {
		return fmt.Errorf("%w %s: %w; restore it from a backup, or choose another directory with --data", ErrDirectory, n.cfg.Data, refused)
	}
	if err != nil {
		return fmt.Errorf("cannot write this node's key into the metadata: %w", err)
	}
	return nil
}

// activateEvery is how often a node asks to serve until it may.
const activateEvery = 100 * time.Millisecond

// activate ends the fencing, which gives the partitions that this node leads a new leader
// epoch. It is called when everything is built and no client is served yet. When it returns,
// everything on this node follows the image.
func (n *Node) activate(ctx context.Context) error {
	n.built.Store(true)
	for complainAt := time.Duration(0); ; {
		answer, err := sendHeartbeat(ctx, n, false)
		if err == nil && answer.Unreached != "" && n.clock() >= complainAt {
			complainAt = n.clock() + complainEvery
			n.loggers.loggerOf(rootLogger).Warn("this node stays fenced and serves no clients until the others can reach it: "+
				"tell them another address with --advertise HOST:PORT, or have names and firewalls let them in", "why", answer.Unreached)
		}
		switch {
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded), errors.Is(err, quorum.ErrNotLeader): // another controller will take it
		case err != nil:
			return fmt.Errorf("cannot become active in the cluster: %w", err)
		case !answer.Fenced && n.isActive(n.image.Load()) && contactOf(n) == broker.InContact: // else it has not applied all yet
			return nil
		}
		select {
		case <-time.After(activateEvery):
		case err := <-n.failed: // the node was removed
			return err
		case <-ctx.Done():
			return fmt.Errorf("cannot become active in the cluster: %w", ctx.Err())
		}
	}
}

// beatTime is how long a heartbeat may take. The next one is as good.
const beatTime = 2 * time.Second

// sendHeartbeat tells the active controller that this node is alive, and whether it wants to stop. Once one
// has said so all do: another one would make the node active again that was told that it may end. A refusal is
// an error.
func sendHeartbeat(ctx context.Context, n *Node, stops bool) (controller.BeatAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	applied := n.applied()
	b := n.image.Load().Brokers[n.id.nodeID] // it has at least those entries
	began, sent := n.clock(), time.Now()
	if stops {
		n.isLeaving.Store(true)
	}
	answer, refused, err := n.registrar.Heartbeat(ctx, &controller.Beat{
		Registered: controller.Registered{ID: n.id.nodeID, Epoch: n.brokerEpoch.Load()}, Applied: applied,
		Caught: b != nil && b.Incarnation == n.incarnation, WantsStop: n.isLeaving.Load(), Generation: n.lastRun.Generation(),
		NoRoom: n.room.look(n.loggers.loggerOf(rootLogger), func() (avail, total int64, err error) { return n.fs.Free(n.cfg.Data) }),
	})
	if err == nil && refused != nil {
		err = refused
	}
	if err == nil {
		n.clocks.noteClock(n.loggers.loggerOf(rootLogger), sent, time.Now(), answer.Clock)
	}
	if err == nil && !answer.Fenced {
		renewSession(n, began, answer.Applied)
	}
	return answer, err
}

// lagging is an answer to a heartbeat that was decided by entries of the metadata log which the node has not applied yet.
type lagging struct {
	mu      sync.Mutex
	began   time.Duration // guarded by mu: when the heartbeat was sent
	applied uint64        // guarded by mu: the last of those entries; 0: there is no such answer
}

// renewSession lets the session last for a time from when a heartbeat was sent that was answered, as soon as the node has
// applied what the controller had applied by then: a node that does not know what was decided so long ago may lead
// nothing any more. A quarter of the session timeout is left for clocks that differ, and for a controller that
// goes on to answer for a moment after another one has begun.
func renewSession(n *Node, began time.Duration, applied uint64) {
	last, have := n.serverSettings().SessionTimeout*3/4, n.applied()
	l := &n.lagging
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.applied != 0 && have >= l.applied {
		extendSession(n, l.began+last)
		l.applied = 0
	}
	if have >= applied {
		extendSession(n, began+last)
		l.applied = 0
	} else if l.applied == 0 {
		l.began, l.applied = began, applied
	}
}

// extendSession lets the session last until a time of clock, if it would end before.
func extendSession(n *Node, until time.Duration) {
	for {
		ends := n.sessionEnds.Load()
		if int64(until) <= ends || n.sessionEnds.CompareAndSwap(ends, int64(until)) {
			return
		}
	}
}

// sendAwayTime is how long a node without a session sends all clients to other nodes. Those that have found none by
// then may read what was committed: most of the cluster may be lost.
const sendAwayTime = time.Minute

// contactOf tells whether a controller can have taken from this node what it leads, for its silence. Nobody takes anything
// from the only node.
func contactOf(n *Node) broker.Contact {
	over := int64(n.clock()) - n.sessionEnds.Load()
	switch {
	case over < 0 || len(n.image.Load().Brokers) <= 1:
		return broker.InContact
	case over < int64(sendAwayTime):
		return broker.CutOff
	default:
		return broker.CutOffForLong
	}
}

// hasSession tells whether no controller can have taken from this node what it leads, for its silence
// or since it wants to stop.
func hasSession(n *Node) bool {
	return contactOf(n) == broker.InContact && (!n.isLeaving.Load() || len(n.image.Load().Brokers) <= 1)
}

const (
	// tickEvery is how often the controller looks for nodes that are gone.
	tickEvery = 250 * time.Millisecond
	// maintainEvery is how often it makes the changes that nobody asks for.
	maintainEvery = 5 * time.Second
	// electionsEach is how many leaders it moves back at a time to the replicas that are to lead.
	electionsEach = 100
	// movesAtOnce is how many partitions get replicas of their own accord at the same time.
	movesAtOnce = 8
	// electionGrace is how long no controller is known before that is logged: an election takes less.
	electionGrace = 3 * time.Second
	// complainEvery is how often the log tells that all this fails.
	complainEvery = time.Minute
)

// askToLeave sends a heartbeat of a node that wants to stop.
func askToLeave(ctx context.Context, n *Node) (controller.BeatAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	return sendHeartbeat(ctx, n, true)
}

// leaveTime is how long a node that stops tries to reach the active controller.
const leaveTime = time.Second

// leaveCluster has the other nodes take over what this one leads, before it stops. A node that fails, or that
// nobody can take over from, just stops.
func leaveCluster(ctx context.Context, n *Node) {
	if n.quorum == nil || !n.peers.gate.isOpen() || n.peers.isAlone() || n.peers.isRemoved.Load() {
		return
	}
	for answered := n.clock(); ; {
		answer, err := askToLeave(ctx, n)
		if err == nil && answer.MayStop {
			break
		}
		if err == nil {
			answered = n.clock()
		} else if n.clock()-answered > leaveTime {
			n.loggers.loggerOf(rootLogger).Warn("the cluster cannot take over what this node leads, since too few of its nodes run; it stops all the same", "err", err)
			return
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, quorum.ErrNotLeader) {
			n.loggers.loggerOf(rootLogger).Warn("the cluster does not take over what this node leads; it stops all the same", "err", err)
			break
		}
		select {
		case <-time.After(activateEvery / 4):
		case <-ctx.Done():
			n.loggers.loggerOf(rootLogger).Warn("the cluster has not taken over what this node leads in time; it stops all the same")
			return
		}
	}
	handQuorumOver(ctx, n)
}

// upkeep is the work of a node for its membership and, if it is the controller, for the cluster.
// It belongs to one goroutine. All times are of Node.clock.
type upkeep struct {
	n                             *Node
	beatAt, maintainAt, balanceAt time.Duration // when each is due
	complainAt                    time.Duration // before it no failure is logged
	controller                    int32         // the active controller as it was logged last; -1: none was known
	lackingFrom                   time.Duration // since when none is known; 0: one is
}

// beginUpkeep begins what a node does over time for its membership and its cluster.
func beginUpkeep(n *Node) {
	n.serving.Go((&upkeep{n: n, controller: -1}).run)
	n.serving.Go(func() {
		n.generations.run(n.ctx, n.lastRun.RaiseGeneration, func(err error) {
			n.loggers.loggerOf("storage").Warn("the data directory cannot note that it was written to, so a copy of it that lacks records may be believed; it is tried again each minute", "err", err)
		})
	})
	n.serving.Go((&electorate{n: n, away: map[int32]time.Duration{}}).run)
	n.serving.Go(func() { removeEndedTokens(n) })
	n.serving.Go(func() { n.keys.catchUp(n.ctx) })
}

// hasLostMetadata tells whether the metadata go on without the node of a quorum, since its log of them cannot be written: it would tell
// clients for ever who led what when that failed, and nobody would take over from it, since it lives. While it is the only voter
// nothing is decided without it.
func hasLostMetadata(q *quorum.Node) bool {
	st := q.Status()
	return st.State == quorum.Faulted && !slices.Equal(st.Members.Voters, []uint64{st.RaftID})
}

// run keeps this node's registration alive, and has the controller on this node do its work over
// time, until the node stops. A node that is the only one wakes up only when the
// registered nodes change: nobody could take over from it, and nobody has to hear from it.
func (u *upkeep) run() {
	n := u.n
	tick := time.NewTicker(tickEvery)
	tick.Stop()
	defer tick.Stop()
	for ticks := false; ; {
		select {
		case <-n.ctx.Done():
			return
		case <-n.nodesChanged:
			n.nodeLinks.followMembers()
			u.maintainAt, u.beatAt = 0, 0
		case <-tick.C:
		}
		img := n.image.Load()
		if b := img.Brokers[n.id.nodeID]; b == nil || b.Epoch != n.brokerEpoch.Load() {
			n.noteFailure(fmt.Errorf("this process is not node %d of its cluster any more: the node was removed, or another process has its number", n.id.nodeID))
			return
		}
		others := len(img.Brokers) > 1
		if others && n.lostMetadata() {
			n.noteFailure(fmt.Errorf("the node cannot follow the metadata any more: %w", quorum.ErrFaulted))
			return
		}
		switch {
		case others && !ticks:
			u.beatAt = 0 // before the first tick, since nobody has heard from this node for long
			tick.Reset(tickEvery)
		case !others:
			tick.Stop()
		}
		ticks = others
		u.doDue(others)
	}
}

// doDue does what is due.
func (u *upkeep) doDue(others bool) {
	n, s, now := u.n, u.n.serverSettings(), u.n.clock()
	if others && now >= u.beatAt && !n.isLeaving.Load() { // leaveCluster sends those of a node that stops
		u.beatAt = now + s.HeartbeatInterval
		if n.image.Load().Level() >= meta.LevelGeneration {
			n.generations.want(now, storage.CountRounds(n.store))
		}
		_, err := sendHeartbeat(n.ctx, n, false)
		if err == nil && !hasSession(n) || hasLeaving(n.image.Load()) {
			u.beatAt = now // the next tick tries again; or a node that stops waits until the others have applied that it leads nothing
		}
		u.noteFailure("to tell the cluster that this node is alive", err)
	}
	if others {
		u.tellController()
		n.nodeLinks.keepLinks()
		u.noteFailure("to fence the nodes that are gone", n.controller.Tick(n.ctx, n.clock()))
	}
	if now < u.maintainAt {
		return
	}
	u.maintainAt = now + maintainEvery
	if img := n.image.Load(); !n.id.joined && img.Nodes[n.id.nodeID] == nil && img.Level() >= meta.LevelCluster { // the level was raised since the start
		u.noteFailure("to have the cluster know the key of this node", admitSelf(n.ctx, n))
	}
	plan := controller.Upkeep{Moves: movesAtOnce, Clock: time.Now()}
	if s.BalanceLeaders && now >= u.balanceAt {
		u.balanceAt, plan.Elections = now+s.BalanceInterval, electionsEach
	}
	u.noteFailure("to keep leaders and replicas in order", n.controller.Maintain(n.ctx, n.clock(), plan))
}

// tellController logs when another node has become the active controller, and when none is known for longer than an
// election takes.
func (u *upkeep) tellController() {
	now := u.n.nodeLinks.activeController()
	if now >= 0 {
		u.lackingFrom = 0
	} else if u.lackingFrom == 0 {
		u.lackingFrom = max(u.n.clock(), 1)
	}
	if now == u.controller || now < 0 && u.n.clock() < u.lackingFrom+electionGrace {
		return
	}
	u.controller = now
	log := u.n.loggers.loggerOf(rootLogger)
	if now < 0 {
		log.Warn("no active controller is known: the metadata cannot change until most of the nodes that vote on it reach each other")
		return
	}
	log.Info("there is an active controller", "node", now)
}

// hasLeaving tells whether a broker is shutting down. It waits until the others say what they have applied.
func hasLeaving(img *meta.Image) bool {
	for _, b := range img.Brokers {
		if b.State == meta.BrokerLeaving {
			return true
		}
	}
	return false
}

// noteFailure logs that an attempt has failed. It will be made again.
func (u *upkeep) noteFailure(attempt string, err error) {
	now := u.n.clock()
	if err == nil || errors.Is(err, quorum.ErrNotLeader) || u.n.ctx.Err() != nil || now < u.complainAt {
		return
	}
	u.complainAt = now + complainEvery
	u.n.loggers.loggerOf(rootLogger).Warn("an attempt failed; it is made again, and this line comes again after a minute", "attempt", attempt, "err", err)
}
