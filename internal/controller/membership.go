package controller

import (
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/meta"
)

// Registration is a node's request to be registered.
type Registration struct {
	ClusterID string      // that the node belongs to; "": it does not say
	Broker    meta.Broker // without Epoch, State, RecordedEpoch and Generation

	// PreviousEpoch is the epoch of a registration that the node's data directory has
	// recorded last. A node records its epoch before it asks to serve. 0: none.
	PreviousEpoch int64
	// Generation is the number that the data directory has noted last; see Beat.Generation.
	Generation int64
	// Clean tells that the node's last run wrote all logs to disk before it ended.
	Clean bool
	// Unsynced are the topics of which acknowledged records may not have been on disk when
	// the last run ended, whatever their settings are now: they had only just begun to be
	// durable.
	Unsynced []meta.UUID
}

// RegisterBroker decides a registration, and returns its epoch. alive tells that the
// present incarnation of the node is heard from. The broker is fenced until it has applied
// its registration, so it leads nothing. Its replicas keep their places in the in-sync and
// the eligible sets if they have lost nothing.
//
// The registration is the last record. If a controller fails before, the node asks again.
func (r *Rules) RegisterBroker(g *Registration, alive bool) (d Part, epoch int64, err *Error) {
	if err := r.checkRegistration(g, alive); err != nil {
		return Part{}, 0, err
	}
	b, old := g.Broker, r.Image.Brokers[g.Broker.ID]
	b.State, b.Epoch, b.RecordedEpoch = meta.BrokerFenced, r.Image.LastBrokerEpoch()+1, 0
	if r.Image.Level() < meta.LevelCluster {
		b.Directory, b.RaftID = meta.UUID{}, 0
	}
	if b.Generation = 0; r.Image.Level() >= meta.LevelGeneration {
		b.Generation = max(0, g.Generation)
	}
	d = r.newPart()
	switch trusted := isTrusted(old, g); {
	case old != nil && old.Incarnation == b.Incarnation:
		b.State, b.Epoch, b.RecordedEpoch, b.Generation = old.State, old.Epoch, old.RecordedEpoch, old.Generation
	default:
		if trusted {
			b.RecordedEpoch = old.RecordedEpoch
		}
		r.endIncarnation(&d, g, trusted)
	}
	d.addRecord(meta.BrokerRegistered{Broker: b})
	return d, b.Epoch, nil
}

// isTrusted tells whether a node comes with the data directory that its last registration
// had, in the state in which that left it. A directory of another id was replaced, and one
// that has recorded an earlier epoch was restored from a copy. A registration of a level
// that had no directories is believed: there was one node only.
//
// A copy that was made while the run of the last registration went on has recorded the same epoch. It has a lower generation,
// unless it was made since the directory has noted the last one that the metadata have. Such a copy is believed, and its
// leaders and fellow members find it out: see package progress.
func isTrusted(old *meta.Broker, g *Registration) bool {
	if old == nil {
		return false
	}
	if old.Directory == (meta.UUID{}) {
		return true
	}
	return old.Directory == g.Broker.Directory && old.RecordedEpoch <= g.PreviousEpoch && g.PreviousEpoch <= old.Epoch && old.Generation <= g.Generation
}

// endIncarnation ends the part of a node's earlier incarnation in all partitions but those that
// have no other replica: nobody could lead these meanwhile, or know more, and the one record with
// which the node becomes active raises their leader epochs. An unclean election is not made for
// it, since the node is about to come back.
func (r *Rules) endIncarnation(d *Part, g *Registration, trusted bool) {
	id := g.Broker.ID
	keeps := func(t *meta.Topic) bool {
		durable := r.settings(t).FlushMessages == 1 && !slices.Contains(g.Unsynced, t.ID)
		return trusted && (g.Clean || durable)
	}
	isMember := func(p *meta.Partition) bool {
		isAlone := len(p.Replicas) == 1
		return !isAlone && (p.Leader == id || slices.Contains(p.ISR, id) || slices.Contains(p.Eligible, id) ||
			!trusted && slices.Contains(p.LastEligible, id))
	}
	r.changeEach(d, isMember, func(c *change) bool {
		c.unclean = false
		if !keeps(c.topic) {
			c.lose(id, !trusted)
			return true
		}
		c.excluded = id
		return c.old.Leader == id
	})
}

func (r *Rules) checkRegistration(g *Registration, alive bool) *Error {
	m, b := r.Image, &g.Broker
	if g.ClusterID != "" && g.ClusterID != m.ClusterID {
		return refuse(InconsistentClusterID, "Expected cluster ID %s, but got cluster ID %s", m.ClusterID, g.ClusterID)
	}
	if b.ID < 0 {
		return refuse(InvalidRegistration, "A node id is not negative, but this one is %d.", b.ID)
	}
	if n := m.Nodes[b.ID]; n != nil && n.Removed {
		return refuse(InvalidRegistration, "Node %d was removed from the cluster, and its id is not given again.", b.ID)
	}
	if old := m.Brokers[b.ID]; old != nil && alive && old.Incarnation != b.Incarnation {
		return refuse(DuplicateBroker, "Another broker is registered with that broker id. If the broker was recently restarted "+
			"this should self-resolve once the heartbeat manager expires the broker's session.")
	}
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		if other := m.Brokers[id]; id != b.ID && b.Directory != (meta.UUID{}) && other.Directory == b.Directory {
			return refuse(InvalidRegistration, "Broker %d is already registered with directory %v", id, b.Directory)
		}
	}
	if err := checkListeners(b.Listeners); err != nil {
		return err
	}
	return r.checkFeatures(b)
}

const (
	maxListeners    = 64
	maxListenerName = 249
	maxHost         = 253 // of a name in DNS
)

// checkListeners refuses addresses that nobody could reach, and more of them than all nodes should keep.
func checkListeners(listeners []meta.Listener) *Error {
	if len(listeners) > maxListeners {
		return refuse(InvalidRegistration, "A node may have %d listeners, and this one has %d.", maxListeners, len(listeners))
	}
	for _, l := range listeners {
		if len(l.Name) > maxListenerName || len(l.Host) > maxHost {
			return refuse(InvalidRegistration, "The name of a listener has at most %d bytes and its host %d, and one of this node has %d and %d.", maxListenerName, maxHost, len(l.Name), len(l.Host))
		}
	}
	return nil
}

// checkFeatures refuses a node that does not support the finalized levels.
func (r *Rules) checkFeatures(b *meta.Broker) *Error {
	levels := map[string]int16{meta.LevelFeature: r.Image.Level()}
	maps.Insert(levels, r.Image.Features())
	for _, name := range slices.Sorted(maps.Keys(levels)) {
		var have meta.FeatureRange // a feature that it does not name
		for _, f := range b.Features {
			if f.Name == name {
				have = f
			}
		}
		if level := levels[name]; level < have.Min || level > have.Max {
			return refuse(UnsupportedFeature, "Unable to register because the broker does not support finalized version %d of %s. "+
				"The broker wants a version between %d and %d, inclusive.", level, name, have.Min, have.Max)
		}
	}
	return nil
}

// checkEpoch refuses a command about a registration that is not the present one.
func (r *Rules) checkEpoch(id int32, epoch int64) *Error {
	b := r.Image.Brokers[id]
	if b == nil {
		return refuse(BrokerNotRegistered, "Broker ID %d is not currently registered", id)
	}
	if b.Epoch != epoch {
		return refuse(StaleBrokerEpoch, "Expected broker epoch %d for broker %d, but got broker epoch %d", b.Epoch, id, epoch)
	}
	return nil
}

// FenceBroker ends a broker's part in all partitions, and then fences it. The broker that is
// fenced already may be in an in-sync set that it kept when it was registered.
func (r *Rules) FenceBroker(id int32, epoch int64) (d Part, err *Error) {
	if err := r.checkEpoch(id, epoch); err != nil {
		return Part{}, err
	}
	d = r.newPart()
	r.changeEach(&d, leadsOrInSync(id), func(c *change) bool {
		c.remove(id)
		return true
	})
	if r.Image.Brokers[id].State != meta.BrokerFenced {
		d.addRecord(meta.BrokerChanged{ID: id, Epoch: epoch, State: meta.BrokerFenced})
	}
	return d, nil
}

// UnfenceBroker makes a fenced broker active, and elects leaders where there were none. Of several parts, the later ones may come when the
// broker is leaving already: then it is elected nowhere.
func (r *Rules) UnfenceBroker(id int32, epoch int64) (d Part, err *Error) {
	if err := r.checkEpoch(id, epoch); err != nil {
		return Part{}, err
	}
	d = r.newPart()
	isFenced := r.Image.Brokers[id].State == meta.BrokerFenced
	if isFenced {
		d.addRecord(meta.BrokerChanged{ID: id, Epoch: epoch, State: meta.BrokerActive})
	}
	r.changeEach(&d, isLeaderless, func(c *change) bool {
		if isFenced {
			c.included = id
		}
		return true
	})
	return d, nil
}

// RetireBroker begins or continues the shutdown of an active broker: leaders move away
// first, then it leaves the in-sync sets of the partitions that it does not lead. It goes
// on leading partitions that nobody else could lead.
func (r *Rules) RetireBroker(id int32, epoch int64) (d Part, err *Error) {
	if err := r.checkEpoch(id, epoch); err != nil {
		return Part{}, err
	}
	d = r.newPart()
	if r.Image.Brokers[id].State == meta.BrokerActive {
		d.addRecord(meta.BrokerChanged{ID: id, Epoch: epoch, State: meta.BrokerLeaving})
	}
	retire := func(c *change) bool {
		c.remove(id)
		c.unclean = false
		trial := *c
		trial.finish()
		return trial.next.Leader >= 0 || c.old.Leader < 0
	}
	leads := func(p *meta.Partition) bool { return p.Leader == id }
	r.changeEach(&d, leads, retire)
	r.changeEach(&d, func(p *meta.Partition) bool { return !leads(p) && slices.Contains(p.ISR, id) }, retire)
	return d, nil
}

// UnregisterBroker removes a broker for good. Its replicas stay assigned to it, as in Kafka, until
// FollowCluster finds others.
func (r *Rules) UnregisterBroker(id int32) (d Part, err *Error) {
	if r.Image.Brokers[id] == nil {
		return Part{}, refuse(BrokerNotRegistered, "Broker ID %d is not currently registered", id)
	}
	d = r.newPart()
	r.unregister(&d, id)
	return d, nil
}

// unregister ends a broker's part in all partitions, and removes it.
func (r *Rules) unregister(d *Part, id int32) {
	isMember := func(p *meta.Partition) bool {
		return p.Leader == id || slices.Contains(p.ISR, id) || slices.Contains(p.Eligible, id) || slices.Contains(p.LastEligible, id)
	}
	r.changeEach(d, isMember, func(c *change) bool {
		c.lose(id, true)
		return true
	})
	d.addRecord(meta.BrokerUnregistered{ID: id})
}

// Finalize raises or lowers the level of a feature, which all registered brokers must
// support.
func (r *Rules) Finalize(name string, level int16) (records []byte, err *Error) {
	if r.Image.Feature(name) == level {
		return nil, nil
	}
	if name == meta.LevelFeature && level < r.Image.Level() {
		return nil, refuse(InvalidRequest, "The level of %s cannot go back from %d to %d: the metadata may have records that it does not know.",
			name, r.Image.Level(), level)
	}
	for _, id := range slices.Sorted(maps.Keys(r.Image.Brokers)) {
		var have meta.FeatureRange
		for _, f := range r.Image.Brokers[id].Features {
			if f.Name == name {
				have = f
			}
		}
		if level < have.Min || level > have.Max {
			return nil, refuse(UnsupportedFeature, "Broker %d does not support version %d of %s, only versions from %d to %d.",
				id, level, name, have.Min, have.Max)
		}
	}
	return meta.AppendLevel(nil, name, level), nil
}
