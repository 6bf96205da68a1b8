package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

// liveness is the Liveness of the present term.
type liveness struct {
	mu   sync.Mutex // no event takes long
	term uint64     // guarded by mu
	now  *Liveness  // guarded by mu; nil before the first term
}

// update calls do with the Liveness of the term that this node leads, after it has taken the
// newest image. It fails if this node does not lead.
func (c *Controller) update(now time.Duration, do func(l *Liveness)) error {
	term, leads := c.cfg.Leading()
	if !leads {
		return quorum.ErrNotLeader
	}
	m := c.cfg.Image()
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	if c.live.now == nil || c.live.term != term {
		timeout := meta.ServerSettings(m, c.cfg.Static).SessionTimeout
		applied := uint64(0)
		if c.cfg.Applied != nil {
			applied = c.cfg.Applied()
		}
		c.live.term, c.live.now = term, NewLiveness(now, timeout, m, applied)
	}
	c.live.now.Follow(now, m)
	do(c.live.now)
	return nil
}

// PeerClosed takes that the connection to a node was closed by the other end, and PeerRefused
// that its port refuses connections after that: the node is fenced at the next Tick.
func (c *Controller) PeerClosed(now time.Duration, id int32) {
	_ = c.update(now, func(l *Liveness) { l.ConnectionClosed(id) }) // only the active controller has to know
}

// PeerRefused is described at PeerClosed.
func (c *Controller) PeerRefused(now time.Duration, id int32) {
	_ = c.update(now, func(l *Liveness) { l.DialRefused(id) }) // only the active controller has to know
}

// ProcessEnded takes that the process of a node's present registration has ended, so that another
// one need not wait. Only the node itself can know that, by the lock on its data directory.
func (c *Controller) ProcessEnded(now time.Duration, id int32) {
	_ = c.update(now, func(l *Liveness) { // only the active controller has to know
		if b := c.cfg.Image().Brokers[id]; b != nil {
			l.Stopped(id, b.Epoch)
		}
	})
}

// RegisterBroker registers a node, and returns the epoch of its registration. A second living
// incarnation of a node id is refused.
func (c *Controller) RegisterBroker(ctx context.Context, now time.Duration, g *Registration) (epoch int64, refused *Error, err error) {
	old := c.cfg.Image().Brokers[g.Broker.ID]
	alive := false
	err = c.update(now, func(l *Liveness) {
		if old != nil {
			alive = l.IsAlive(now, old.ID, old.Epoch, IsInPlace(old, &g.Broker))
		}
	})
	if err != nil {
		return 0, nil, err
	}
	refused, err = c.runParts(ctx, ofCluster, func(r *Rules) (d Part, err *Error) {
		// Another incarnation may have been registered since; then it is alive.
		b := r.Image.Brokers[g.Broker.ID]
		another := b != nil && (old == nil || b.Epoch != old.Epoch)
		d, epoch, err = r.RegisterBroker(g, alive || another)
		return d, err
	})
	if err != nil || refused != nil {
		return 0, refused, err
	}
	return epoch, nil, c.update(now, func(*Liveness) {})
}

// Beat is a node's heartbeat.
type Beat struct {
	Registered
	Applied    uint64 // the index of the metadata log that the node has applied
	Caught     bool   // the image that it has applied shows this registration, and its directory has recorded the epoch
	WantsFence bool   // it does not want to serve yet
	WantsStop  bool   // it wants to shut down
	NoRoom     bool   // its disk has too little room for replicas that nobody has asked for
	// Generation is a number that the node's data directory has noted durably, and raises from time to time while records are
	// written to it; 0: none. The metadata keep it, so that a copy of the directory that was made before is known by it.
	Generation int64
}

// BeatAnswer is the answer to a heartbeat.
type BeatAnswer struct {
	Fenced  bool
	Leaving bool // its leaders are being moved
	MayStop bool // the node may end now
	// Applied is an index of the metadata log up to which the controller has decided this: a node that was
	// silent knows what it has lost meanwhile when it has applied that.
	Applied uint64
	// Clock is the time at which this was answered by the clock of the controller's node, in ms since 1970. 0: it does not tell.
	Clock int64
	// Unreached says why the node stays fenced, if the controller's node does not reach it.
	Unreached string
}

// Heartbeat takes a node's heartbeat: it keeps its session, ends its fencing once it has
// applied its registration, and moves its leaders away before it shuts down.
//
// It answers once it is sure that no other controller was active when the heartbeat came. One that has stood still, as
// its own node may have, would keep sessions of nodes from which another one has taken what they lead.
func (c *Controller) Heartbeat(ctx context.Context, now time.Duration, beat *Beat) (answer BeatAnswer, refused *Error, err error) {
	answer, refused, err = c.takeBeat(ctx, now, beat)
	if c.cfg.ConfirmLeading != nil && err == nil && refused == nil {
		err = c.cfg.ConfirmLeading(ctx)
	}
	if err != nil || refused != nil {
		return answer, refused, err
	}
	if c.cfg.Applied != nil {
		answer.Applied = c.cfg.Applied()
	}
	return answer, nil, nil
}

func (c *Controller) takeBeat(ctx context.Context, now time.Duration, beat *Beat) (answer BeatAnswer, refused *Error, err error) {
	var counts Beat
	if err = c.update(now, func(l *Liveness) { counts = l.TakeBeat(now, beat) }); err != nil {
		return answer, nil, err
	}
	beat = &counts
	unfences := false
	refused, err = c.runParts(ctx, ofCluster, func(r *Rules) (d Part, err *Error) {
		if unfences { // the parts after the first
			return r.UnfenceBroker(beat.ID, beat.Epoch)
		}
		d, err = r.Heartbeat(beat)
		unfences = d.More && r.Image.Brokers[beat.ID].State == meta.BrokerFenced
		return d, err
	})
	if err != nil || refused != nil {
		return answer, refused, err
	}
	b := c.cfg.Image().Brokers[beat.ID]
	if b == nil || b.Epoch != beat.Epoch {
		return answer, refuse(StaleBrokerEpoch, ""), nil
	}
	answer.Fenced, answer.Leaving = b.State == meta.BrokerFenced, b.State == meta.BrokerLeaving
	answer.MayStop = beat.WantsStop && answer.Fenced
	if answer.Leaving {
		answer.MayStop, err = c.mayStop(now, beat)
	}
	if err != nil || !answer.MayStop {
		return answer, nil, err
	}
	answer.Fenced, answer.Leaving = true, false
	if refused, err = c.FenceBroker(ctx, beat.ID, beat.Epoch); err != nil || refused != nil {
		return BeatAnswer{}, refused, err
	}
	return answer, nil, c.update(now, func(l *Liveness) { l.Stopped(beat.ID, beat.Epoch) })
}

// Positions are how far the nodes have told that they have applied the metadata. They are empty if this
// node does not lead.
func (c *Controller) Positions(now time.Duration) (all map[int32]Position) {
	_ = c.update(now, func(l *Liveness) { all = l.Positions(now) }) // that it does not lead is no failure
	return all
}

// mayStop tells whether a node that is leaving may end. The image shows that it leads nothing
// that another node could lead.
func (c *Controller) mayStop(now time.Duration, beat *Beat) (may bool, err error) {
	var applied uint64
	if c.cfg.Applied != nil {
		applied = c.cfg.Applied()
	}
	err = c.update(now, func(l *Liveness) {
		l.Moved(beat.ID, beat.Epoch, applied)
		may = l.MayStop(beat.ID, beat.Epoch, c.cfg.Image())
	})
	return may, err
}

// Heartbeat decides what a heartbeat changes.
func (r *Rules) Heartbeat(beat *Beat) (Part, *Error) {
	if err := r.checkEpoch(beat.ID, beat.Epoch); err != nil {
		return Part{}, err
	}
	switch r.Image.Brokers[beat.ID].State {
	case meta.BrokerFenced:
		if beat.Caught && !beat.WantsFence && !beat.WantsStop {
			return r.UnfenceBroker(beat.ID, beat.Epoch)
		}
	case meta.BrokerActive:
		switch {
		case beat.WantsFence:
			return r.FenceBroker(beat.ID, beat.Epoch)
		case beat.WantsStop:
			return r.RetireBroker(beat.ID, beat.Epoch)
		}
		return keepGeneration(r, beat), nil
	case meta.BrokerLeaving:
		return r.RetireBroker(beat.ID, beat.Epoch)
	}
	return Part{}, nil
}

// keepGeneration has the metadata keep the generation of a node's directory, if it was raised.
func keepGeneration(r *Rules, beat *Beat) (d Part) {
	if r.Image.Level() < meta.LevelGeneration || beat.Generation <= r.Image.Brokers[beat.ID].Generation {
		return Part{}
	}
	d = r.newPart()
	d.addRecord(meta.DirectoryWritten{ID: beat.ID, Epoch: beat.Epoch, Generation: beat.Generation})
	return d
}

// FenceBroker ends a broker's part in all partitions.
func (c *Controller) FenceBroker(ctx context.Context, id int32, epoch int64) (*Error, error) {
	return c.runParts(ctx, ofCluster, func(r *Rules) (Part, *Error) { return r.FenceBroker(id, epoch) })
}

// UnregisterBroker removes a broker.
func (c *Controller) UnregisterBroker(ctx context.Context, id int32) (*Error, error) {
	return c.runParts(ctx, ofClients, func(r *Rules) (Part, *Error) { return r.UnregisterBroker(id) })
}

// Tick lets time pass: it fences the nodes that are gone. It does nothing if this node does
// not lead. It is called at intervals well below the session timeout.
func (c *Controller) Tick(ctx context.Context, now time.Duration) error {
	var list []Registered
	err := c.update(now, func(l *Liveness) { list = l.ToFence(now) })
	if errors.Is(err, quorum.ErrNotLeader) {
		return nil // the node that leads does it
	}
	if err != nil {
		return err
	}
	for _, b := range list {
		// A refusal means that it was registered again or removed.
		if _, err := c.FenceBroker(ctx, b.ID, b.Epoch); err != nil {
			return err
		}
		if err := c.update(now, func(l *Liveness) { l.Fenced(b.ID, b.Epoch) }); err != nil {
			return err
		}
	}
	return nil
}

// Upkeep says what Maintain does.
type Upkeep struct {
	Elections int // at most so many leaders are moved back to preferred replicas; 0: none
	Moves     int // of so many partitions replicas are on their way at a time, which nobody has asked for
	// Clock is the time of day, at which admissions end; zero: none does.
	Clock time.Time
}

// Maintain makes the changes that nobody asks for: it elects leaders where there are none,
// moves leaders back to the preferred replicas, and gives topics that follow the size of the
// cluster the replicas that they lack, on nodes whose disks have room. It forgets nodes that were admitted and never
// came. It is called at intervals, on the active controller.
func (c *Controller) Maintain(ctx context.Context, now time.Duration, u Upkeep) error {
	full := map[int32]bool{}
	err := c.update(now, func(l *Liveness) { full = l.WithoutRoom() })
	if errors.Is(err, quorum.ErrNotLeader) {
		return nil // the node that leads does it
	}
	if err != nil {
		return err
	}
	moves := ReplicaMoves{Most: u.Moves, Room: func(id int32) bool { return !full[id] }}
	_, err = c.runParts(ctx, ofCluster, func(r *Rules) (Part, *Error) {
		return r.ElectMissing(), nil
	})
	if err != nil {
		return err
	}
	_, err = c.runParts(ctx, ofCluster, func(r *Rules) (Part, *Error) {
		d := r.BalanceLeaders(u.Elections)
		d.More = false // the rest has time
		return d, nil
	})
	if err != nil {
		return err
	}
	_, err = c.runParts(ctx, ofCluster, func(r *Rules) (Part, *Error) {
		return r.FollowCluster(moves), nil
	})
	if err != nil || u.Clock.IsZero() || len((Admissions{c.cfg.Image()}).ForgetNodes(u.Clock)) == 0 {
		return err
	}
	return c.runCommand(ctx, ofCluster, func(m *meta.Image) []byte { return Admissions{m}.ForgetNodes(u.Clock) })
}
