package node

import (
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/txn"
)

// followState tells whether the node acts on changes of the metadata. Only the goroutine that
// applies them changes it.
//
//	replaying --- everything is built, and in the image this start is active ---> following
//
// While the node is replaying, a change only makes a new image. The step to following brings
// everything on this node to the state of the image, and from then on each change does so.
// Therefore no change is lost, and the node neither leads nor deletes a partition before the
// image has everything that was decided before this start.
type followState uint8

const (
	replaying followState = iota
	following
)

// follower is how the node follows the metadata.
type follower struct {
	built       atomic.Bool // everything that changes act on is there; the applier uses it only then
	followState followState // the applier's
	deleted     deletedTopics
	changes     clusterChanges
}

// apply applies entries of the metadata log, on the quorum's goroutine. If it returns an error,
// the image stays, and the node ends: see Node.watchQuorum.
func (n *Node) apply(u quorum.Update) error {
	before := n.image.Load()
	img, d, err := applyUpdate(before, &u)
	if err != nil {
		return err
	}
	deleted := d.Deleted
	if u.Snapshot != nil {
		d = meta.Diff(before, img)
	}
	if n.followState == replaying {
		n.deleted.addTopics(deleted)
	}
	if n.followState == following {
		log := n.loggers.loggerOf(rootLogger)
		logTopics(log, d)
		logConfigs(log, d, before, img)
		n.changes.logCluster(log, d, before, img)
	}
	n.publish(d, img)
	if n.followState == following && len(u.Entries) > 0 {
		n.store.NoteMetadata(u.Entries[len(u.Entries)-1].Index)
	}
	return nil
}

// maxLoggedTopics is how many topics, and how many resources with configs, of one change have log
// lines of their own.
const maxLoggedTopics = 20

// maxLoggedValue is how much of a config's value a log line has, in bytes.
const maxLoggedValue = 100

// logTopics tells the operator which topics a change has made, given more partitions and deleted.
func logTopics(log *slog.Logger, d *meta.Delta) {
	logged, more := 0, 0
	for _, ch := range d.Topics {
		switch {
		case ch.Old != nil && ch.New != nil && len(ch.Old.Partitions) == len(ch.New.Partitions):
		case logged == maxLoggedTopics:
			more++
		case ch.Old == nil:
			log.Info("a topic was created", "topic", ch.New.Name, "partitions", len(ch.New.Partitions))
			logged++
		case ch.New != nil:
			log.Info("a topic has more partitions", "topic", ch.New.Name, "partitions", len(ch.New.Partitions), "before", len(ch.Old.Partitions))
			logged++
		default:
			log.Info("a topic was deleted", "topic", ch.Old.Name)
			logged++
		}
	}
	if more > 0 {
		log.Info("more topics were created, changed or deleted", "topics", more)
	}
}

// logConfigs tells the operator which configs a change has set and unset, since some of them have
// records deleted. A topic that was deleted or made has no line for its configs.
func logConfigs(log *slog.Logger, d *meta.Delta, before, after *meta.Image) {
	logged, more := 0, 0
	for r := range d.Configs {
		if r.Type == config.Topic && (before.Topic(r.Name) == nil || after.Topic(r.Name) == nil) {
			continue
		}
		set, unset := diffConfigs(r.Type, before.Overrides(r), after.Overrides(r))
		switch {
		case len(set)+len(unset) == 0:
		case logged == maxLoggedTopics:
			more++
		default:
			log.Info("configs were changed", "type", r.Type.String(), "name", r.Name, "set", set, "unset", unset)
			logged++
		}
	}
	if more > 0 {
		log.Info("configs of more resources were changed", "resources", more)
	}
}

// diffConfigs lists the configs that were set, with their values unless these are secret, and the
// names of those that were unset, in order.
func diffConfigs(t config.ResourceType, before, after map[string]string) (set, unset []string) {
	set, unset = []string{}, []string{} // never nil, which JSON shows as null where a program expects a list
	for _, name := range slices.Sorted(maps.Keys(after)) {
		value := after[name]
		if old, ok := before[name]; ok && old == value {
			continue
		}
		if d := config.Find(t, name); d == nil || d.Sensitive() {
			value = "[hidden]"
		}
		if len(value) > maxLoggedValue {
			value = value[:maxLoggedValue] + "..."
		}
		set = append(set, name+"="+value)
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[name]; !ok {
			unset = append(unset, name)
		}
	}
	return set, unset
}

// applyUpdate applies an update to an image. The change that it returns is that of the entries alone.
func applyUpdate(before *meta.Image, u *quorum.Update) (*meta.Image, *meta.Delta, error) {
	if u.Snapshot != nil {
		var err error
		if before, _, err = meta.Apply(meta.Empty(), u.Snapshot); err != nil {
			return nil, nil, fmt.Errorf("the metadata snapshot: %w", err)
		}
	}
	return meta.ApplyAll(before, entryData(u.Entries))
}

// entryData yields the index and the data of each entry.
func entryData(entries []quorum.Entry) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := range entries {
			if !yield(entries[i].Index, entries[i].Data) {
				return
			}
		}
	}
}

// publish makes img the image that all of the node sees, and reconciles the node with it
// unless it is still replaying. d is the change from the image before.
func (n *Node) publish(d *meta.Delta, img *meta.Image) {
	before := n.image.Swap(img)
	if len(before.Brokers) == 1 && len(img.Brokers) > 1 {
		// Until this moment nobody could take over from this node, and it has sent no heartbeats.
		extendSession(n, n.clock()+n.serverSettings().SessionTimeout*3/4)
	}
	if d.Brokers || d.Nodes || before.Level() != img.Level() || hasLeaving(img) {
		n.noteNodes()
	}
	if n.followState == replaying {
		if !n.built.Load() || !n.isActive(img) {
			return
		}
		n.followState, d = following, meta.Diff(meta.Empty(), img)
	}
	n.reconcile(d, img)
}

// isActive tells whether this start of the node is active in the image, and not an earlier one.
func (n *Node) isActive(img *meta.Image) bool {
	b := img.Brokers[n.id.nodeID]
	return b != nil && b.Incarnation == n.incarnation && b.State != meta.BrokerFenced
}

// reconcile brings everything on this node to the state of the image: first the partitions,
// then the coordinators that run on them. Coordinators of deleted topics end before others
// begin, since one change may delete a topic and create another of the same name.
func (n *Node) reconcile(d *meta.Delta, img *meta.Image) {
	n.set.Apply(d, img)
	for _, ch := range d.Topics {
		switch {
		case ch.New == nil && n.coordinatorOf(ch.Old.Name) != nil:
			for i := range ch.Old.Partitions {
				n.coordinatorOf(ch.Old.Name).StopLeading(int32(i))
			}
		case ch.New == nil:
			n.groups.TopicDeleted(ch.Old.Name, ch.Old.ID)
		}
	}
	for _, ch := range d.Topics {
		if ch.New == nil {
			continue
		}
		if ch.New.Name == txn.Topic {
			storage.ExpectTransactions(n.store)
		}
		if c := n.coordinatorOf(ch.New.Name); c != nil {
			n.changeCoordinators(c, ch)
		}
	}
	n.linking.follow(d, img)
	if d.Quotas {
		n.quotas.follow(img.Quotas())
	}
	if d.DelegationTokens {
		n.delegation.checkKeys(n.loggers.loggerOf(rootLogger), img.DelegationTokens())
	}
	brokersChanged, warned := false, 0
	for r := range d.Configs {
		brokersChanged = brokersChanged || r.Type == config.Broker
		if warned < maxConfigWarnings && warnIneffective(n.loggers.loggerOf(rootLogger), r, img.Overrides(r)) {
			warned++
		}
	}
	if brokersChanged {
		n.wire.SetLimits(n.connectionLimits())
		setConnectionRates(n)
		storage.ConfigureCleaner(n.store, cleanerConfig(n))
	}
}

// maxConfigWarnings is the number of resources for which one change of the metadata logs
// warnings. At a start all resources are one change.
const maxConfigWarnings = 20

// warnIneffective logs the configs of a resource that have no effect, and returns whether there
// are any. The answer to the change has a note about them too (config.NoteTag), but only some clients
// read it. The configs of the coordinators' topics are the node's own, and nobody can do anything about them.
func warnIneffective(logger *slog.Logger, r config.Resource, set map[string]string) bool {
	if r.Type == config.Topic && (r.Name == group.Topic || r.Name == txn.Topic) {
		return false
	}
	sentences := config.Ineffective(r.Type, set)
	for _, w := range sentences {
		logger.Warn("a config has no effect", "of", r.Type.String(), "name", r.Name, "why", w)
	}
	return len(sentences) > 0
}

// changeCoordinators starts and stops a service's coordinators of those partitions of its topic whose leadership has
// changed.
func (n *Node) changeCoordinators(c coordinator, ch meta.TopicChange) {
	for i := range ch.New.Partitions {
		mp := &ch.New.Partitions[i]
		if ch.Old != nil && i < len(ch.Old.Partitions) && ch.Old.Partitions[i].Leader == mp.Leader && ch.Old.Partitions[i].LeaderEpoch == mp.LeaderEpoch {
			continue
		}
		if p := n.set.Partition(ch.New.Name, int32(i)); p != nil && mp.Leader == n.id.nodeID {
			c.StartLeading(int32(i), record.Epoch(mp.LeaderEpoch), p)
		} else {
			c.StopLeading(int32(i))
		}
	}
}

// offsetsPartitions is the number of partitions of the offsets topic, or 0 if there is none.
func (n *Node) offsetsPartitions() int32 {
	t := n.image.Load().Topic(group.Topic)
	if t == nil {
		return 0
	}
	return int32(len(t.Partitions))
}
