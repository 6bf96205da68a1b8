// Package replica keeps this node's replicas of partitions. A Set has all of them, made from
// the cluster's metadata; a Topic has those of one topic; a Partition is one replica, and the
// only way to its log: the packages above do not import storage. A Partition reads for callers
// whose epoch it accepts, as far as their isolation level allows. It appends the batches that
// an Appends has collected, raises the high watermark by the rules of package progress, and
// tells those who wait for that: a Waiter waits for an acknowledgement of one partition, a
// Poll for bytes in many, as a Fetch does.
//
// A replica leads or follows, by the machines of package progress:
//
//	        follower's node                                  leader's node
//	fetcher, one for each leader node   -- FetchRequest -->  followerSession, one for each follower node
//	  following, one for each partition <-- FetchAnswer --     subscription, one for each partition
//	    progress.Follower                                      leading: progress.Leader
//	  a commit has ended                -- Reports ------>     Set.TakeReports
//	                                                         proposer -- AlterInSync --> controller
//
// A Transport carries these messages; without one this node neither follows nor changes in-sync sets.
//
// Any goroutine may call anything here, with these exceptions: one goroutine at a time uses an
// Appends, and one at a time calls Apply and Close of the Set. Locks, in order: Verifications.mu,
// Partition.fence, the log's own, Partition.mu; no other lock is taken while host.mu, cutQueue.mu, fetcher.mu, followerSession.mu,
// followerSessions.mu, proposer.mu or quota.mu is held. No lock is held while a Completer or a Waker runs.
package replica

import (
	"context"
	"hash/maphash"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/storage"
)

// shards is the number of parts that the maps of topics have. A change of one topic copies
// only the maps of its shards.
const shards = 64

// Set is this node's partitions.
type Set struct {
	host
	seed   maphash.Seed
	byName [shards]atomic.Pointer[map[string]*Topic]
	byID   [shards]atomic.Pointer[map[meta.UUID]*Topic]
	made   int64        // partitions made so far; used by Apply only
	latest *Settings    // the last settings that were made; used by Apply only
	faults atomic.Int64 // of logs, at the last call of lookForFaults

	fetchers fetchers
	sessions followerSessions
	ages     transactionAges

	cancel context.CancelFunc // ends the goroutines
	work   sync.WaitGroup
}

// Topic is a topic of which this node has at least one partition.
type Topic struct {
	Name string
	ID   meta.UUID

	settings atomic.Pointer[Settings]
	parts    atomic.Pointer[[]*Partition] // by number; nil: not on this node
}

// NewSet makes an empty set. It must be closed.
func NewSet(cfg Config) *Set {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Set{
		host: host{cfg: cfg, began: time.Now(), commitWanted: make(chan struct{}, 1), uncut: cutQueue{wanted: make(chan struct{}, 1)}},
		seed: maphash.MakeSeed(),
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // it ends with the Set
	s.cancel = cancel
	s.start = func(run func(ctx context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		s.work.Go(func() { run(ctx) })
		return cancel
	}
	s.find, s.heard, s.host.lookForFaults = s.findPartition, s.sessions.listHeard, s.lookForFaults
	s.nodes.Store(&nodes{})
	s.replication.Store(&config.Replication{})
	s.fetchers.host, s.sessions.host = &s.host, &s.host
	for i := range shards {
		s.byName[i].Store(&map[string]*Topic{})
		s.byID[i].Store(&map[meta.UUID]*Topic{})
	}
	if cfg.Transport != nil {
		r := newProposer(&s.host)
		s.propose = r.add
		s.start(r.run)
	}
	s.start(s.commitLoop)
	s.start(func(ctx context.Context) { s.uncut.run(ctx, &s.host) })
	return s
}

// Topic finds a topic by name; nil: this node has no partition of it.
func (s *Set) Topic(name []byte) *Topic {
	return (*s.byName[maphash.Bytes(s.seed, name)%shards].Load())[string(name)]
}

// TopicByID finds a topic by id; nil: this node has no partition of it.
func (s *Set) TopicByID(id meta.UUID) *Topic {
	return (*s.byID[idShard(id)].Load())[id]
}

// Partition finds a partition; nil: it is not on this node.
func (s *Set) Partition(topic string, n int32) *Partition {
	t := s.Topic([]byte(topic))
	if t == nil {
		return nil
	}
	return t.Partition(n)
}

// Expire ends the waits whose deadline is not after now, a time of Now, and those that cannot
// succeed any more, and lets time pass for the partitions that this node leads. It is to be called
// about once a second. It looks only at partitions that have waiters, or followers that lack something,
// since a look at all of them would be most of the work of an idle node with
// thousands (BenchmarkExpire); only after a log has reported a fault it looks at all.
func (s *Set) Expire(now time.Duration) {
	s.expire(now)
	s.lookForFaults()
}

// EndWaits ends all waits for other replicas that have a deadline, with ErrNotLeader. It is called while others may lead the
// partitions of this node without its knowledge.
func (s *Set) EndWaits() {
	s.mu.Lock()
	ps := slices.Clone(s.waiting)
	s.mu.Unlock()
	for _, p := range ps {
		if p.lead.Load().isReplicated() {
			endLimitedWaits(p)
		}
	}
}

// Partitions iterates over all partitions, in no order.
func (s *Set) Partitions() iter.Seq[*Partition] {
	return func(yield func(*Partition) bool) {
		for i := range shards {
			for _, t := range *s.byID[i].Load() {
				for _, p := range *t.parts.Load() {
					if p != nil && !yield(p) {
						return
					}
				}
			}
		}
	}
}

// findPartition finds a partition by its identity; nil: it is not on this node.
func (s *Set) findPartition(id PartitionID) *Partition {
	t := s.TopicByID(id.Topic)
	if t == nil {
		return nil
	}
	return t.Partition(id.Partition)
}

// Apply follows a change of the metadata; img is the image after it. It touches only the
// partitions that the change has touched, and opens no log.
//
// Deleted topics go first, with their logs: a new topic of the same name in the same change
// is found only after the old one's directories are renamed.
func (s *Set) Apply(d *meta.Delta, img *meta.Image) {
	s.followCluster(d, img)
	var removed, added [shards][]*Topic
	for _, ch := range d.Topics {
		if ch.New != nil || ch.Old == nil {
			continue
		}
		if t := s.TopicByID(ch.Old.ID); t != nil {
			removed[idShard(t.ID)] = append(removed[idShard(t.ID)], t)
		}
	}
	s.hideTopics(&removed)
	for _, ts := range removed {
		for _, t := range ts {
			for _, p := range *t.parts.Load() {
				if p != nil {
					s.removePartition(p, s.cfg.Store.Delete)
				}
			}
		}
	}
	s.discardTails(d)
	for _, ch := range d.Topics {
		if ch.New == nil {
			continue
		}
		if t := s.followTopic(ch.Old, ch.New, img); t != nil {
			added[idShard(t.ID)] = append(added[idShard(t.ID)], t)
		}
	}
	s.showTopics(&added)
	s.configureTopics(d, img)
	if d.Brokers {
		s.applyNodes()
	}
	if s.cfg.Transport != nil {
		s.fetchers.endIdle()
		s.sessions.lookAgain()
	}
}

// applyNodes applies the rules of the partitions that this node leads with others after a change of
// the nodes.
func (s *Set) applyNodes() {
	for p := range s.Partitions() {
		if l := p.lead.Load(); l.Leader == s.cfg.NodeID && l.isReplicated() {
			p.applyLeadership()
		}
	}
}

// removePartition ends a replica of this node, and has its log deleted.
func (s *Set) removePartition(p *Partition, deleteLog func(id PartitionID)) {
	p.endReplica()
	s.fetchers.drop(p)
	deleteLog(p.id)
}

// discardTails discards what replicas of deleted topics have left on this node before they went to other nodes.
func (s *Set) discardTails(d *meta.Delta) {
	for _, ch := range d.Topics {
		if ch.New == nil && ch.Old != nil {
			storage.DiscardTailsOf(s.cfg.Store, ch.Old.ID)
		}
	}
}

// followTopic makes, changes and removes this node's partitions of one topic as the metadata
// says. old is the topic before the change; nil: there was none. The result is the topic if
// it is new to this node, and nil if not.
func (s *Set) followTopic(old, mt *meta.Topic, img *meta.Image) *Topic {
	t, added := s.TopicByID(mt.ID), false
	if t == nil {
		if !slices.ContainsFunc(mt.Partitions, func(p meta.Partition) bool { return slices.Contains(p.Replicas, s.cfg.NodeID) }) {
			return nil
		}
		t, added = &Topic{Name: mt.Name, ID: mt.ID}, true
		t.parts.Store(&[]*Partition{})
		t.settings.Store(s.resolveSettings(img, mt))
	}
	before := 0 // the partitions below it may be as they were
	if old != nil && !added {
		before = min(len(old.Partitions), len(mt.Partitions))
	}
	parts := *t.parts.Load()
	copied := false // parts is a copy, which has no readers yet
	for i := range mt.Partitions {
		mp := &mt.Partitions[i]
		if i < before && equalPartitions(&old.Partitions[i], mp) {
			continue
		}
		var p *Partition
		if i < len(parts) {
			p = parts[i]
		}
		next := s.followPartition(t, int32(i), p, mp)
		if i < len(parts) && next == p {
			continue
		}
		if !copied {
			parts, copied = append(make([]*Partition, 0, len(mt.Partitions)), parts...), true
		}
		for len(parts) <= i {
			parts = append(parts, nil)
		}
		parts[i] = next
	}
	if copied {
		t.parts.Store(&parts)
	}
	if added {
		return t
	}
	return nil
}

// equalPartitions tells whether two states of a partition are equal.
func equalPartitions(a, b *meta.Partition) bool {
	return a.PartitionEpoch == b.PartitionEpoch && a.LeaderEpoch == b.LeaderEpoch && a.Leader == b.Leader &&
		slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) && a.Mirror.Equal(b.Mirror)
}

// followPartition makes, changes or removes this node's replica of one partition as the
// metadata says. p is the replica before, and the result the one after; nil: none.
func (s *Set) followPartition(t *Topic, n int32, p *Partition, mp *meta.Partition) *Partition {
	here := slices.Contains(mp.Replicas, s.cfg.NodeID)
	switch {
	case p != nil && here:
		l := newLeadership(p.lead.Load(), mp)
		p.setLeadership(l)
		s.fetchers.follow(p, l)
		s.uncut.add(p)
		p.applyLeadership()
	case p != nil:
		s.removePartition(p, s.cfg.Store.DeleteRecords) // what cuts have taken may be on this node only
		return nil
	case here:
		s.made++
		p = newPartition(&s.host, t, n, newLeadership(nil, mp), s.made)
		s.fetchers.follow(p, p.lead.Load())
		s.uncut.add(p)
	}
	return p
}

// hideTopics removes topics from the maps by name and by id.
func (s *Set) hideTopics(topics *[shards][]*Topic) {
	s.changeMaps(topics, func(byID map[meta.UUID]*Topic, byName map[string]*Topic, t *Topic) {
		delete(byID, t.ID)
		if byName[t.Name] == t {
			delete(byName, t.Name)
		}
	})
}

// showTopics adds topics to the maps by name and by id.
func (s *Set) showTopics(topics *[shards][]*Topic) {
	s.changeMaps(topics, func(byID map[meta.UUID]*Topic, byName map[string]*Topic, t *Topic) {
		byID[t.ID] = t
		byName[t.Name] = t
	})
}

// changeMaps calls do for each topic with copies of the maps that it is in, and publishes the
// copies. topics are grouped by the shards of their ids; each map is copied at most once.
func (s *Set) changeMaps(topics *[shards][]*Topic, do func(byID map[meta.UUID]*Topic, byName map[string]*Topic, t *Topic)) {
	names := map[uint64]map[string]*Topic{}
	for i := range shards {
		if len(topics[i]) == 0 {
			continue
		}
		byID := maps.Clone(*s.byID[i].Load())
		for _, t := range topics[i] {
			shard := maphash.String(s.seed, t.Name) % shards
			if names[shard] == nil {
				names[shard] = maps.Clone(*s.byName[shard].Load())
			}
			do(byID, names[shard], t)
		}
		s.byID[i].Store(&byID)
	}
	for i, m := range names {
		s.byName[i].Store(&m)
	}
}

// configureTopics gives new settings to the topics whose configs have changed, and to all
// topics if the broker's configs have.
func (s *Set) configureTopics(d *meta.Delta, img *meta.Image) {
	for r := range d.Configs {
		switch r.Type {
		case config.Broker:
			for i := range shards {
				for _, t := range *s.byID[i].Load() {
					s.configureTopic(t, img)
				}
			}
			return
		case config.Topic:
			if t := s.Topic([]byte(r.Name)); t != nil {
				s.configureTopic(t, img)
			}
		default: // of no use to partitions
		}
	}
}

// resolveSettings makes a topic's settings. Topics with equal configs for which it is called
// in a row share them.
func (s *Set) resolveSettings(img *meta.Image, t *meta.Topic) *Settings {
	from, internal := meta.TopicSettings(img, s.cfg.Static, t), meta.InternalTopic(t.Name)
	if l := s.latest; l == nil || l.Settings != from || l.Internal != internal {
		s.latest = newSettings(from, internal)
	}
	return s.latest
}

func (s *Set) configureTopic(t *Topic, img *meta.Image) {
	mt := img.TopicByID(t.ID)
	if mt == nil {
		return
	}
	next := s.resolveSettings(img, mt)
	old := t.settings.Swap(next)
	for _, p := range *t.parts.Load() {
		if p == nil {
			continue
		}
		if old.log != next.log {
			p.log.Load().Configure(logOptions(p))
		}
		if old.MinISR != next.MinISR || old.MinISRSet != next.MinISRSet {
			p.applyLeadership()
		}
	}
}

// DiskSpace is how many bytes of the file system are free, and its size; -1: unknown.
func (s *Set) DiskSpace() (free, total int64) { return s.cfg.Store.DiskSpace() }

// ExpectTransactions has the data directory made ready for transactions. The channel is closed when it is: until then logs
// refuse batches and markers of transactions with ErrBusy.
func (s *Set) ExpectTransactions() <-chan struct{} { return storage.ExpectTransactions(s.cfg.Store) }

// SizeOf is about how many bytes a partition takes on the disk. If its log was not opened yet, the
// log's directory is read.
func (*Set) SizeOf(p *Partition) int64 { return p.log.Load().SizeOnDisk() }

// Close ends all waits with ErrNotLeader, the commits in the background, and what is said to other
// nodes. It does not close the logs: the Store does, and makes durable what was appended before.
func (s *Set) Close() {
	s.cancel()
	s.sessions.endAll()
	s.work.Wait()
	for p := range s.Partitions() {
		p.endReplica()
	}
}

// ServeFetch answers a request of a follower. It waits for records as long as the request says, unless
// ctx ends; so the caller must not have anything wait behind it. It returns ErrSessionLost if the
// request continues a session that is not there.
func (s *Set) ServeFetch(ctx context.Context, r *FetchRequest) (*FetchAnswer, error) {
	return s.sessions.serve(ctx, r)
}

// TakeReports takes a follower's reports of durable ends.
func (s *Set) TakeReports(r *Reports) {
	for i := range r.Partitions {
		s.sessions.takeReport(r.Replica, r.BrokerEpoch, &r.Partitions[i])
	}
}

// Settings are the topic's present settings.
func (t *Topic) Settings() *Settings { return t.settings.Load() }

// Partition finds a partition by number; nil: there is none, or it is not on this node.
func (t *Topic) Partition(n int32) *Partition {
	parts := *t.parts.Load()
	if n < 0 || int(n) >= len(parts) {
		return nil
	}
	return parts[n]
}

// NumPartitions counts the topic's partitions, with those of other nodes.
func (t *Topic) NumPartitions() int { return len(*t.parts.Load()) }

func idShard(id meta.UUID) int { return int(id[15]) % shards }
