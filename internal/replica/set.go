// Package replica keeps this node's replicas of partitions: Set is all of them,
// built from the cluster's metadata, Topic groups those of a topic, Partition is
// one, and the only door to its log: nobody else imports package storage. It reads for
// those whose epoch it accepts, up to where they may see; it takes what Appends bring,
// moves the high watermark by the rules of package progress, and tells who waits for it,
// a Waiter (an acknowledgement of one partition) or a Poll (a Fetch parked on many).
//
// Everything here may be used by any goroutine, but for Appends; Apply and Close of the
// Set by one at a time. Locks, in order: Partition.fence, the log's own, Partition.mu;
// Set.mu is taken without any other. No lock is held while a Completer or a Waker runs.
package replica

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// Config hands a Set what it needs.
type Config struct {
	NodeID int32
	Store  *storage.Store
	Static *config.Static // the node's own settings, below the topics'
}

// shards bounds what a change of one topic copies: one shard's maps.
const shards = 64

// Set is this node's partitions.
type Set struct {
	cfg    Config
	seed   maphash.Seed
	byName [shards]atomic.Pointer[map[string]*Topic]
	byID   [shards]atomic.Pointer[map[meta.UUID]*Topic]
	made   atomic.Int64 // partitions made so far
	latest *Settings    // those that were made last; Apply's alone
	began  time.Time    // what Now counts from

	kick chan struct{} // size 1: something waits for the background's commit
	stop chan struct{}
	work sync.WaitGroup

	mu      sync.Mutex
	waiting []*Partition // guarded by mu: those that somebody waits for, and some of whom that was so a moment ago
}

// Topic is a topic of which this node has at least one partition.
type Topic struct {
	Name string
	ID   meta.UUID

	settings atomic.Pointer[Settings]
	parts    atomic.Pointer[[]*Partition] // index = number; nil: not on this node
}

// NewSet makes an empty set. It must be closed.
func NewSet(cfg Config) *Set {
	s := &Set{
		cfg: cfg, seed: maphash.MakeSeed(), began: time.Now(),
		kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	for i := range shards {
		s.byName[i].Store(&map[string]*Topic{})
		s.byID[i].Store(&map[meta.UUID]*Topic{})
	}
	s.work.Go(s.commitLoop)
	return s
}

// Now is the Set's clock, which deadlines of Waiters are on: it counts from the Set's
// beginning and knows no steps of the wall clock.
func (s *Set) Now() time.Duration { return time.Since(s.began) }

// Topic finds a topic by name; nil: this node has nothing of it.
func (s *Set) Topic(name []byte) *Topic {
	return (*s.byName[maphash.Bytes(s.seed, name)%shards].Load())[string(name)]
}

// TopicByID finds a topic by id; nil: this node has nothing of it.
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

// Apply follows a step of the metadata: img is what the cluster is after it. It touches
// only the partitions that the step has changed, and opens no log.
//
// Deleted topics go first, their logs included: a topic that the same step makes again
// under that name is not there before the old one's directories have lost theirs.
func (s *Set) Apply(d *meta.Delta, img *meta.Image) {
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
					s.removePartition(p)
				}
			}
		}
	}
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
}

// removePartition ends a replica of this node, and deletes its log.
func (s *Set) removePartition(p *Partition) {
	p.retire()
	s.cfg.Store.Delete(p.id)
}

// followTopic brings one topic's partitions to where the metadata has them; old is the topic
// before the step, nil: it was not there. It returns the topic where it is new to this node.
func (s *Set) followTopic(old, mt *meta.Topic, img *meta.Image) *Topic {
	t, added := s.TopicByID(mt.ID), false
	if t == nil {
		if !slices.ContainsFunc(mt.Partitions, func(p meta.Partition) bool { return slices.Contains(p.Replicas, s.cfg.NodeID) }) {
			return nil
		}
		t, added = &Topic{Name: mt.Name, ID: mt.ID}, true
		t.parts.Store(&[]*Partition{})
		t.settings.Store(s.settings(img, mt))
	}
	known := 0 // partitions of which the step may have changed nothing
	if old != nil && !added {
		known = min(len(old.Partitions), len(mt.Partitions))
	}
	parts := *t.parts.Load()
	own := false // parts is a copy, which nobody reads yet
	for i := range mt.Partitions {
		mp := &mt.Partitions[i]
		if i < known && unchanged(&old.Partitions[i], mp) {
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
		if !own {
			parts, own = append(make([]*Partition, 0, len(mt.Partitions)), parts...), true
		}
		for len(parts) <= i {
			parts = append(parts, nil)
		}
		parts[i] = next
	}
	if own {
		t.parts.Store(&parts)
	}
	if added {
		return t
	}
	return nil
}

// unchanged tells whether a step left a partition alone.
func unchanged(a, b *meta.Partition) bool {
	return a.PartitionEpoch == b.PartitionEpoch && a.LeaderEpoch == b.LeaderEpoch && a.Leader == b.Leader &&
		slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR)
}

// followPartition brings one partition to where the metadata has it, and returns this
// node's replica of it, nil: there is none any more. p is the one that it has.
func (s *Set) followPartition(t *Topic, n int32, p *Partition, mp *meta.Partition) *Partition {
	here := slices.Contains(mp.Replicas, s.cfg.NodeID)
	l := &Leadership{Leader: mp.Leader, Epoch: record.Epoch(mp.LeaderEpoch), Replicas: mp.Replicas, ISR: mp.ISR}
	switch {
	case p != nil && here:
		p.setLeadership(l)
	case p != nil:
		s.removePartition(p)
		return nil
	case here:
		return newPartition(s, t, n, l)
	}
	return p
}

// hideTopics takes topics out of the maps in which they are found.
func (s *Set) hideTopics(topics *[shards][]*Topic) {
	s.changeMaps(topics, func(byID map[meta.UUID]*Topic, byName map[string]*Topic, t *Topic) {
		delete(byID, t.ID)
		if byName[t.Name] == t {
			delete(byName, t.Name)
		}
	})
}

// showTopics puts topics into the maps in which they are found.
func (s *Set) showTopics(topics *[shards][]*Topic) {
	s.changeMaps(topics, func(byID map[meta.UUID]*Topic, byName map[string]*Topic, t *Topic) {
		byID[t.ID] = t
		byName[t.Name] = t
	})
}

// changeMaps changes the maps for some topics, which are sorted by their ids' shards, copying
// each shard's maps once at most.
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

// configureTopics resolves again the settings of the topics whose configs, or the
// broker's that they fall back to, have changed.
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
		default: // nothing that a partition knows
		}
	}
}

// settings are what the topic's configs mean here. Topics with equal configs that follow
// each other share them.
func (s *Set) settings(img *meta.Image, t *meta.Topic) *Settings {
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
	set := s.settings(img, mt)
	old := t.settings.Swap(set)
	for _, p := range *t.parts.Load() {
		if p == nil {
			continue
		}
		if old.log != set.log {
			p.log.Configure(set.log)
		}
		if old.MinISR != set.MinISR {
			p.reapplyRules()
		}
	}
}

// Expire ends the waits whose deadline is not after now, which is Now's, and those whose
// log has failed. It is to be called about once a second. It looks only at partitions that
// somebody waits for: to look at all of them is the most that an idle node with
// thousands would do (BenchmarkExpire: 10,000 of them took 110 us, now 20 ns).
func (s *Set) Expire(now time.Duration) {
	s.mu.Lock()
	ps := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	left := slices.DeleteFunc(ps, func(p *Partition) bool { return !p.expireWaits(now) })
	if len(left) == 0 {
		return
	}
	s.mu.Lock()
	s.waiting = append(left, s.waiting...)
	s.mu.Unlock()
}

// watch has Expire look at a partition.
func (s *Set) watch(p *Partition) {
	s.mu.Lock()
	s.waiting = append(s.waiting, p)
	s.mu.Unlock()
}

// Commit makes durable what was appended to any partition so far, or sees to it that a
// commit which covers it follows the one under way. Waits that rest on it end then.
func (s *Set) Commit() { s.cfg.Store.Commit() }

// commitSoon has what was appended committed in the background: nobody waits for it,
// so the caller goes on. What comes while a commit runs is taken by the next one.
func (s *Set) commitSoon() {
	select {
	case s.kick <- struct{}{}:
	default: // one that has not begun yet covers it
	}
}

func (s *Set) commitLoop() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.kick:
			s.Commit()
		}
	}
}

// Usage is what the partitions of this node take on its disk.
type Usage struct {
	logs map[storage.LogID]int64

	Bytes       int64 // all partitions together
	Free, Total int64 // of the file system; -1: unknown
}

// Usage tells what is used and what is free.
func (s *Set) Usage() Usage {
	var u Usage
	u.logs, u.Free, u.Total = s.cfg.Store.Usage()
	for _, n := range u.logs {
		u.Bytes += n
	}
	return u
}

// Of is the size in bytes of one partition.
func (u *Usage) Of(topic meta.UUID, n int32) int64 {
	return u.logs[storage.LogID{Topic: topic, Partition: n}]
}

// Close fails whoever still waits and ends the background's commits; the logs are the
// store's to close, which makes durable what is left.
func (s *Set) Close() {
	close(s.stop)
	s.work.Wait()
	for p := range s.Partitions() {
		p.retire()
	}
}

// Settings are the topic's settings as they are now.
func (t *Topic) Settings() *Settings { return t.settings.Load() }

// Partition finds a partition by number; nil: there is none, or not on this node.
func (t *Topic) Partition(n int32) *Partition {
	parts := *t.parts.Load()
	if n < 0 || int(n) >= len(parts) {
		return nil
	}
	return parts[n]
}

// NumPartitions counts the topic's partitions, those of other nodes too.
func (t *Topic) NumPartitions() int { return len(*t.parts.Load()) }

func idShard(id meta.UUID) int { return int(id[15]) % shards }
