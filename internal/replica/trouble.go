package replica

import (
	"errors"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
	"github.com/leatstream/leat/internal/storage"
)

// The functions in this file have partitions led by nodes whose disks take records: a leader whose log takes none gives up its place, by
// the rules of progress, and a follower tells its leader that it cannot store.

// trouble is the state of a leader's log, and what this node heard from those that may lead in its place.
type trouble struct {
	state progress.LogState
	heard []heardFollower
}

// heardFollower is what this node heard last from another one.
type heardFollower struct {
	node        int32
	brokerEpoch int64
	at          time.Duration
	isFull      bool
}

// findTrouble finds the state of the log, for the leader's machine. No lock may be held.
func findTrouble(p *Partition, log *storage.Log) (t trouble) {
	switch {
	case log.Fault() != nil:
		t.state = progress.LogFaulted
	case log.IsRefused():
		t.state = progress.LogRefuses
	case p.refused.Load():
		if p.host.cfg.Store.IsFull() {
			t.state = progress.LogRefuses
		} else {
			p.refused.Store(false)
		}
	}
	if t.state != progress.LogSound {
		t.heard = p.host.heard()
	}
	return t
}

// noteRefusal has the leader give up if its disk is full, once the appends of a producer have found that out. It is sound again when
// there is room.
func noteRefusal(p *Partition, items []storage.Item) {
	for i := range items {
		if err := items[i].Err; storage.IsFull(err) || errors.Is(err, ErrBusy) && p.host.cfg.Store.IsFull() {
			p.refused.Store(true)
			return
		}
	}
}

// noteTrouble tells a machine of the state of the log. A leader that has given up because its disk was full does not do so again
// soon: otherwise several nodes with little room could pass a partition on and on.
func (d *leading) noteTrouble(m *progress.Leader, now time.Duration, t trouble) {
	if t.state == progress.LogRefuses && now < d.keepsUntil {
		t.state = progress.LogSound
	}
	m.LogChanged(now, t.state)
	for _, h := range t.heard {
		m.Heard(h.node, h.brokerEpoch, h.at, !h.isFull)
	}
}

// end takes that this node does not lead.
func (d *leading) end(now, pause time.Duration) {
	if d.machine != nil && d.machine.LogState() == progress.LogRefuses {
		d.keepsUntil = now + pause
	}
	d.machine, d.unreadable = nil, nil
}

// giveUpUnreadable has another node lead where this one cannot open its log, or make a cut of the metadata.
func giveUpUnreadable(p *Partition, why error) {
	l := p.lead.Load()
	if errors.Is(why, ErrClosed) || p.host.propose == nil || l.Leader != p.host.cfg.NodeID || !l.isReplicated() {
		return
	}
	now, d := p.host.Now(), &p.leading
	t := trouble{progress.LogUnreadable, p.host.heard()}
	minISR, n := minInSync(p.topic.Settings(), l), p.host.nodes.Load()
	p.mu.Lock()
	if p.lead.Load() != l || d.machine != nil {
		p.mu.Unlock()
		return
	}
	switch {
	case d.unreadable == nil || d.unreadable.Epoch() != l.Epoch:
		d.unreadable = progress.NewUnreadable(now, p.host.leaderConfig(), l.Epoch, assignment(l, minISR), n.brokers)
		p.host.cfg.Logger.Warn("a leader cannot open its log, or make a cut; another replica is to lead", "topic", p.topic.Name, "partition", p.id.Partition, "err", why)
	default:
		d.unreadable.BrokersChanged(now, n.brokers)
		d.unreadable.Assigned(now, assignment(l, minISR))
	}
	m := d.unreadable
	d.of = l
	d.noteTrouble(m, now, t)
	next, isProposed := m.Propose(now)
	tick := d.wantsTick(m)
	p.mu.Unlock()
	if tick {
		p.host.addTicking(p)
	}
	if isProposed {
		p.host.propose(p, m, next)
	}
}

// leaderConfig is what the machines of leaders keep to.
func (h *host) leaderConfig() progress.Config {
	return progress.Config{ID: h.cfg.NodeID, Lag: h.replication.Load().Lag, Retry: retryProposal}
}

// listHeard lists what was heard from the followers' nodes.
func (c *followerSessions) listHeard() (list []heardFollower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.byFollower {
		if h := s.heard.Load(); h != nil {
			list = append(list, *h)
		}
	}
	return list
}

// lookForFaults has replicas do what follows from faults of logs that were found since the last call, also by those whose faults nobody has
// met: leaders give up, and followers tell their leaders.
func (s *Set) lookForFaults() {
	n := storage.CountFaults(s.cfg.Store)
	if s.faults.Load() == n || s.faults.Swap(n) == n {
		return
	}
	for p := range s.Partitions() {
		l := p.lead.Load()
		if !l.isReplicated() || p.Fault() == nil {
			continue
		}
		if l.Leader == s.cfg.NodeID {
			p.advanceEnds()
		} else {
			tellFault(p)
		}
	}
}

// tellFault has a follower tell its leader that its log has a fault.
func tellFault(p *Partition) {
	p.mu.Lock()
	var at *slot
	if fo := p.following; fo != nil && fo.machine != nil {
		fo.machine.LogFailed(p.host.Now())
		at = fo.slot
	}
	p.mu.Unlock()
	if at != nil {
		at.f.addDue(at)
	}
}

// tryStoring has a follower's machine ask for records again where the log may take some. No lock may be held.
func (fo *following) tryStoring() {
	p := fo.p
	p.mu.Lock()
	cannot := false
	if fo.machine != nil {
		cannot, _ = fo.machine.CannotStore()
	}
	p.mu.Unlock()
	if !cannot || p.log.Load().Fault() != nil || p.host.cfg.Store.IsFull() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.following == fo && fo.machine != nil {
		fo.machine.TryStoring()
	}
}

// tellUnusable returns a fetch which tells the leader that the log cannot be opened, or has a fault. It is repeated after a pause.
func (fo *following) tellUnusable(sl *slot, now time.Duration) (q progress.Fetch, retry time.Duration, ok bool) {
	p := fo.p
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lead.Load()
	switch {
	case !fo.isCurrentLocked(sl) || !p.host.follows(l):
		return q, -1, false
	case fo.toldIn == l && now < fo.tellAt:
		return q, fo.tellAt, false
	}
	fo.toldIn, fo.tellAt = l, now+p.host.retryPause()
	if fo.machine != nil {
		fo.machine.LogFailed(now) // it reports nothing from here on
	}
	return progress.Fetch{
		Epoch: l.Epoch, Assigned: l.PartitionEpoch, LastEpoch: record.NoEpoch, CannotStore: true, IsDamaged: p.log.Load().IsDamaged(),
	}, -1, true
}

// rebuild deletes the damaged log of a follower, which then fetches all records again. The leader has said that it has them; and neither it nor the
// controller counts on this replica, so that the log is not the last one that has a committed record.
func (fo *following) rebuild(sl *slot) {
	p := fo.p
	self := p.host.cfg.NodeID
	p.fence.Lock()
	defer p.fence.Unlock()
	l, log := p.lead.Load(), p.log.Load()
	p.mu.Lock()
	isCurrent := fo.isCurrentLocked(sl)
	p.mu.Unlock()
	if !isCurrent || !fo.mayWrite() || l.Epoch != sl.epoch || !log.IsDamaged() || slices.Contains(l.ISR, self) || slices.Contains(l.Eligible, self) {
		return
	}
	p.host.cfg.Logger.Warn("a damaged replica is deleted, and rebuilt from its leader",
		"topic", p.topic.Name, "partition", p.id.Partition, "leader", l.Leader, "damage", log.Fault())
	fo.replaceLog()
}
