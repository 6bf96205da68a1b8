package meta

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/leatstream/leat/internal/config"
)

// step builds the next image. What it has copied or made itself in this step it
// may change; everything else is shared with the image before.
type step struct {
	index uint64 // of the entry; 0: it is not in the log
	m     *Image
	d     *Delta
	names [shards]bool
	uuids [shards]bool
	own   map[UUID]*owned
	confs map[config.Resource]*overrides
	flat  struct{ brokers, configs, features bool }
}

// owned is a topic that this step has copied or made, and may change.
type owned struct {
	t      *Topic
	before *Topic // nil: made in this step
	parts  bool   // its partitions are copied too
}

// ApplyAt decodes a batch of records, which is the entry of this index in the
// metadata log, and applies it. It is all or nothing: with an error, which is
// ErrNewer, ErrOlder or ErrCorrupt, the image stays m.
func ApplyAt(m *Image, index uint64, entry []byte) (*Image, *Delta, error) {
	next := *m
	s := step{
		index: index,
		m:     &next,
		d:     &Delta{Topics: map[UUID]TopicChange{}, Configs: map[config.Resource]struct{}{}},
		own:   map[UUID]*owned{},
		confs: map[config.Resource]*overrides{},
	}
	if err := each(entry, s.apply); err != nil {
		return m, nil, err
	}
	return &next, s.d, nil
}

// Apply is ApplyAt for records that are not in the log: a snapshot, or a decision
// that is tried out before it is proposed.
func Apply(m *Image, entry []byte) (*Image, *Delta, error) { return ApplyAt(m, 0, entry) }

func (s *step) apply(rec Record) error {
	switch r := rec.(type) {
	case ClusterCreated:
		return s.createCluster(r)
	case BrokerRegistered:
		return s.registerBroker(r.Broker)
	case BrokerUnregistered:
		return s.unregisterBroker(r.ID)
	case BrokerEpochGiven:
		s.m.brokerTerm = max(s.m.brokerTerm, r.Epoch)
	case BrokerChanged:
		return s.changeBroker(r)
	case TopicCreated:
		return s.createTopic(r)
	case PartitionsSet:
		return s.setPartitions(r)
	case PartitionChanged:
		return s.changePartition(r)
	case TopicDeleted:
		return s.deleteTopic(r.ID)
	case ConfigSet:
		return s.setConfig(r.Resource, r.Key, &r.Value)
	case ConfigUnset:
		return s.setConfig(r.Resource, r.Key, nil)
	case ProducerIDsGiven:
		if r.Next < s.m.producer {
			return fmt.Errorf("producer ids go back from %d to %d", s.m.producer, r.Next)
		}
		s.m.producer = r.Next
	case FeatureSet:
		s.setFeature(r)
	case FeaturesChanged:
		s.m.featuresAt = max(s.m.featuresAt, r.Epoch)
	}
	return nil
}

func (s *step) createCluster(r ClusterCreated) error {
	if s.m.ClusterID != "" {
		return fmt.Errorf("cluster %s is created again as %s", s.m.ClusterID, r.ID)
	}
	if r.ID == "" || r.Tag == 0 || r.Tag > MaxTag {
		return fmt.Errorf("cluster %q with tag %d", r.ID, r.Tag)
	}
	s.m.ClusterID, s.m.Tag = r.ID, r.Tag
	return nil
}

func (s *step) ownBrokers() {
	if !s.flat.brokers {
		s.flat.brokers = true
		s.m.Brokers = cloneMap(s.m.Brokers)
	}
	s.d.Brokers = true
}

func (s *step) registerBroker(b Broker) error {
	if err := b.check(); err != nil {
		return err
	}
	old := s.m.Brokers[b.ID]
	if old != nil && b.Epoch < old.Epoch {
		return fmt.Errorf("broker %d goes back from epoch %d to %d", b.ID, old.Epoch, b.Epoch)
	}
	s.ownBrokers()
	s.m.Brokers[b.ID] = &b
	s.m.brokerTerm = max(s.m.brokerTerm, b.Epoch)
	if b.State == BrokerFenced || old != nil && old.State != BrokerFenced && old.Incarnation == b.Incarnation {
		return nil
	}
	return s.startBroker(b.ID)
}

func (s *step) changeBroker(r BrokerChanged) error {
	old := s.m.Brokers[r.ID]
	if old == nil || old.Epoch != r.Epoch {
		return fmt.Errorf("broker %d is not registered with epoch %d", r.ID, r.Epoch)
	}
	b := *old
	b.State = r.State
	s.ownBrokers()
	s.m.Brokers[r.ID] = &b
	if old.State != BrokerFenced || r.State == BrokerFenced {
		return nil
	}
	return s.startBroker(r.ID)
}

// startBroker raises the leader epoch of all partitions that a broker leads, since
// it begins to serve: it may have appended in the present epoch in another life, or
// may not know what became of the partition while it was fenced.
func (s *step) startBroker(id int32) error {
	led := func(p Partition) bool { return p.Leader == id }
	for t := range s.m.Topics() {
		if !slices.ContainsFunc(t.Partitions, led) {
			continue
		}
		t = s.partitioned(t.ID)
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if !led(*p) {
				continue
			}
			if p.LeaderEpoch == math.MaxInt32 || p.PartitionEpoch == math.MaxInt32 {
				return fmt.Errorf("topic %q: partition %d has no epoch left", t.Name, i)
			}
			p.LeaderEpoch++
			p.PartitionEpoch++
		}
	}
	return nil
}

func (s *step) unregisterBroker(id int32) error {
	if s.m.Brokers[id] == nil {
		return fmt.Errorf("broker %d is not registered", id)
	}
	s.ownBrokers()
	delete(s.m.Brokers, id)
	return nil
}

func (s *step) createTopic(r TopicCreated) error {
	if r.Name == "" || r.ID == (UUID{}) {
		return fmt.Errorf("topic %q with id %x", r.Name, r.ID)
	}
	if s.m.Topic(r.Name) != nil || s.m.TopicByID(r.ID) != nil {
		return fmt.Errorf("topic %q or id %x is there already", r.Name, r.ID)
	}
	t := &Topic{Name: r.Name, ID: r.ID, cache: &settingsCache{}}
	s.own[t.ID] = &owned{t: t, parts: true}
	s.put(t)
	s.m.topics++
	s.noteTopic(t.ID, nil, t)
	return nil
}

// put enters a topic, copying the shards that it falls into once a step.
func (s *step) put(t *Topic) {
	i, j := s.ownShards(t)
	s.m.byName[i][t.Name] = t
	s.m.byID[j][t.ID] = t
}

func (s *step) ownShards(t *Topic) (name, id int) {
	name, id = shardOfName(t.Name), shardOfID(t.ID)
	if !s.names[name] {
		s.names[name] = true
		s.m.byName[name] = cloneMap(s.m.byName[name])
	}
	if !s.uuids[id] {
		s.uuids[id] = true
		s.m.byID[id] = cloneMap(s.m.byID[id])
	}
	return name, id
}

// noteTopic enters a change into the delta; the earliest state is kept as the old one.
func (s *step) noteTopic(id UUID, before, after *Topic) {
	if c, ok := s.d.Topics[id]; ok {
		before = c.Old
	}
	s.d.Topics[id] = TopicChange{Old: before, New: after}
}

// ownTopic is the topic in a copy that this step may change; nil: there is none.
func (s *step) ownTopic(id UUID) *owned {
	if o := s.own[id]; o != nil {
		return o
	}
	t := s.m.TopicByID(id)
	if t == nil {
		return nil
	}
	c := *t
	o := &owned{t: &c, before: t}
	s.own[id] = o
	s.put(&c)
	return o
}

// partitioned is ownTopic with its partitions copied too, noted as changed.
func (s *step) partitioned(id UUID) *Topic {
	o := s.ownTopic(id)
	if o == nil {
		return nil
	}
	if !o.parts {
		o.parts = true
		o.t.Partitions = slices.Clone(o.t.Partitions)
		s.noteTopic(id, o.before, o.t)
	}
	return o.t
}

func (s *step) setPartitions(r PartitionsSet) error {
	t := s.partitioned(r.Topic)
	if t == nil {
		return fmt.Errorf("partitions of a topic that is not there: %x", r.Topic)
	}
	first := int(r.First)
	if first > len(t.Partitions) {
		return fmt.Errorf("topic %q: partition %d follows %d", t.Name, first, len(t.Partitions)-1)
	}
	for i := first; i < min(len(t.Partitions), first+len(r.Partitions)); i++ {
		if err := follows(t, i, r.Partitions[i-first].LeaderEpoch, r.Partitions[i-first].PartitionEpoch); err != nil {
			return err
		}
	}
	n := copy(t.Partitions[first:], r.Partitions)
	t.Partitions = append(t.Partitions, r.Partitions[n:]...)
	s.m.partitions += len(r.Partitions) - n
	return nil
}

func (s *step) changePartition(r PartitionChanged) error {
	t := s.partitioned(r.Topic)
	if t == nil || int(r.Partition) >= len(t.Partitions) {
		return fmt.Errorf("partition %d of topic %x is not there", r.Partition, r.Topic)
	}
	if err := follows(t, int(r.Partition), r.LeaderEpoch, r.PartitionEpoch); err != nil {
		return err
	}
	p := &t.Partitions[r.Partition]
	p.ISR, p.Leader, p.LeaderEpoch, p.PartitionEpoch = r.ISR, r.Leader, r.LeaderEpoch, r.PartitionEpoch
	p.Eligible, p.LastEligible = r.Eligible, r.LastEligible
	return nil
}

// follows wants a change of a partition to have a larger partition epoch, and a
// leader epoch that is not smaller.
func follows(t *Topic, partition int, leaderEpoch, partitionEpoch int32) error {
	p := &t.Partitions[partition]
	if partitionEpoch <= p.PartitionEpoch || leaderEpoch < p.LeaderEpoch {
		return fmt.Errorf("topic %q: partition %d goes from leader epoch %d and partition epoch %d to %d and %d",
			t.Name, partition, p.LeaderEpoch, p.PartitionEpoch, leaderEpoch, partitionEpoch)
	}
	return nil
}

func (s *step) deleteTopic(id UUID) error {
	t := s.m.TopicByID(id)
	if t == nil {
		return fmt.Errorf("topic %x is not there", id)
	}
	i, j := s.ownShards(t)
	delete(s.m.byName[i], t.Name)
	delete(s.m.byID[j], id)
	before := t
	if o := s.own[id]; o != nil {
		before = o.before
		delete(s.own, id)
	}
	s.m.topics--
	s.m.partitions -= len(t.Partitions)
	s.d.Deleted = append(s.d.Deleted, id)
	if before == nil && s.d.Topics[id].Old == nil { // made in this very step
		delete(s.d.Topics, id)
	} else {
		s.noteTopic(id, before, nil)
	}
	if t.conf != nil {
		r := config.Resource{Type: config.Topic, Name: t.Name}
		s.d.Configs[r] = struct{}{}
		delete(s.confs, r)
	}
	return nil
}

// setConfig sets a config, or removes it where value is nil.
func (s *step) setConfig(r config.Resource, key string, value *string) error {
	if key == "" {
		return fmt.Errorf("a config without a name on %v %q", r.Type, r.Name)
	}
	o, err := s.ownOverrides(r)
	if err != nil {
		return err
	}
	if value != nil {
		o.m[key] = *value
	} else {
		delete(o.m, key)
	}
	if len(o.m) == 0 { // no overrides are no entry, so that equal images encode alike
		delete(s.confs, r)
		o = nil
	}
	s.enterOverrides(r, o)
	s.d.Configs[r] = struct{}{}
	return nil
}

// ownOverrides are a resource's overrides in a copy that this step may change.
func (s *step) ownOverrides(r config.Resource) (*overrides, error) {
	if o := s.confs[r]; o != nil {
		return o, nil
	}
	old := s.m.configs[r]
	if r.Type == config.Topic {
		t := s.m.Topic(r.Name)
		if t == nil {
			return nil, fmt.Errorf("configs of a topic that is not there: %q", r.Name)
		}
		old = t.conf
	}
	o := &overrides{m: map[string]string{}}
	if old != nil {
		maps.Copy(o.m, old.m)
	}
	s.confs[r] = o
	return o, nil
}

// enterOverrides puts overrides where they are looked up; nil: there are none.
func (s *step) enterOverrides(r config.Resource, o *overrides) {
	if r.Type == config.Topic {
		t := s.ownTopic(s.m.Topic(r.Name).ID).t
		t.conf, t.cache = o, &settingsCache{}
		return
	}
	if !s.flat.configs {
		s.flat.configs = true
		s.m.configs = cloneMap(s.m.configs)
	}
	if o == nil {
		delete(s.m.configs, r)
		return
	}
	s.m.configs[r] = o
}

func (s *step) setFeature(r FeatureSet) {
	if !s.flat.features {
		s.flat.features = true
		s.m.features = cloneMap(s.m.features)
	}
	s.m.featuresAt = max(s.m.featuresAt, s.index)
	if r.Level == 0 {
		delete(s.m.features, r.Name)
		return
	}
	s.m.features[r.Name] = r.Level
}

// cloneMap copies a map; nil becomes an empty one.
func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m)+1)
	maps.Copy(c, m)
	return c
}
