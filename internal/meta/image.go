package meta

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// UUID is a topic id. The zero value stands for "no id".
type UUID [16]byte

// shards is how many maps the topics are spread over; a power of two.
const shards = 256

// Image is the cluster's state after some record. It never changes; a reader may
// keep it as long as it likes.
type Image struct {
	ClusterID string // 22 characters, as Kafka's
	Tag       uint32 // the cluster's tag in producer ids (D16), 20 bits, not zero
	Brokers   map[int32]*Broker

	byName     [shards]map[string]*Topic
	byID       [shards]map[UUID]*Topic
	topics     int
	partitions int

	configs    map[config.Resource]*overrides // of everything but topics, which hold their own
	producer   int64                          // the first producer id not handed out, without the tag
	features   map[string]int16
	featuresAt uint64 // the index of the entry that was the last to change features
	brokerTerm int64  // the largest broker epoch given so far

	server *serverCache
}

// overrides are the configs set on one resource. They never change, so that an
// equal pointer means equal settings (see settings.go).
type overrides struct{ m map[string]string }

func (o *overrides) values() map[string]string {
	if o == nil {
		return nil
	}
	return o.m
}

// Topic is a topic with its partitions, index = partition number.
type Topic struct {
	Name       string
	ID         UUID
	Partitions []Partition

	conf  *overrides // nil: none
	cache *settingsCache
}

// Internal tells whether Kafka calls the topic internal (__consumer_offsets and the like).
func (t *Topic) Internal() bool { return InternalTopic(t.Name) }

// InternalTopic tells whether Kafka calls a topic of this name internal.
func InternalTopic(name string) bool {
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state":
		return true
	}
	return false
}

// Partition says who has a partition and who leads it.
type Partition struct {
	Replicas       []int32 // all of them, those that are being added or removed too
	ISR            []int32
	Leader         int32 // -1: nobody
	LeaderEpoch    int32
	PartitionEpoch int32 // rises with every change
	Adding         []int32
	Removing       []int32
	Eligible       []int32 // not in sync, but with all that was acknowledged (KIP-966's ELR)
	LastEligible   []int32 // those of whom that was last known before an unclean shutdown
}

// Topic finds a topic by name; nil: there is none.
func (m *Image) Topic(name string) *Topic { return m.byName[shardOfName(name)][name] }

// TopicBytes is Topic without making a string of the name.
func (m *Image) TopicBytes(name []byte) *Topic {
	return m.byName[shardOfName(name)][string(name)]
}

// TopicByID finds a topic by id; nil: there is none.
func (m *Image) TopicByID(id UUID) *Topic { return m.byID[shardOfID(id)][id] }

// Colliding finds another topic whose name differs from this one only by dots in
// the place of underscores: names of metrics would not tell them apart. nil: there
// is none.
func (m *Image) Colliding(name string) *Topic {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	for other, t := range m.byName[shardOfName(name)] {
		if other != name && collide(other, name) {
			return t
		}
	}
	return nil
}

func collide(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if unify(a[i]) != unify(b[i]) {
			return false
		}
	}
	return true
}

func unify(c byte) byte {
	if c == '.' {
		return '_'
	}
	return c
}

// Topics iterates over all topics, in no order.
func (m *Image) Topics() iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for i := range m.byName {
			for _, t := range m.byName[i] {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// NumTopics counts the topics.
func (m *Image) NumTopics() int { return m.topics }

// NumPartitions counts the partitions of all topics.
func (m *Image) NumPartitions() int { return m.partitions }

// NextProducerID is the first producer id not handed out, without the cluster's tag.
func (m *Image) NextProducerID() int64 { return m.producer }

// Feature is a feature's finalized level; 0: not set.
func (m *Image) Feature(name string) int16 { return m.features[name] }

// FeaturesEpoch is the index of the entry of the metadata log that was the last to
// change a feature; 0: none has. It rises with every change.
func (m *Image) FeaturesEpoch() uint64 { return m.featuresAt }

// Features iterates over the finalized feature levels.
func (m *Image) Features() iter.Seq2[string, int16] { return maps.All(m.features) }

// LastBrokerEpoch is the largest epoch that a registration was given so far.
func (m *Image) LastBrokerEpoch() int64 { return m.brokerTerm }

// Overrides are the configs set on a resource. The map never changes.
func (m *Image) Overrides(r config.Resource) map[string]string {
	o := m.configs[r]
	if r.Type == config.Topic {
		if t := m.Topic(r.Name); t != nil {
			o = t.conf
		}
	}
	return o.values()
}

// Configured iterates over the resources of one type that have configs set, in no order.
func (m *Image) Configured(typ config.ResourceType) iter.Seq[string] {
	return func(yield func(string) bool) {
		if typ == config.Topic {
			for t := range m.Topics() {
				if t.conf != nil && !yield(t.Name) {
					return
				}
			}
			return
		}
		for r := range m.configs {
			if r.Type == typ && !yield(r.Name) {
				return
			}
		}
	}
}

// Delta says what a step changed, for whoever reconciles with it. Setting a
// topic's configs shows in Configs only.
type Delta struct {
	Topics  map[UUID]TopicChange // topics made, changed or deleted
	Deleted []UUID               // topics that a record deleted, also those that were made in the same step
	Configs map[config.Resource]struct{}
	Brokers bool
}

// TopicChange holds a topic before and after; nil: it was not there, it is gone.
type TopicChange struct{ Old, New *Topic }

// Diff is the Delta of replacing one image by another, as a snapshot does.
func Diff(from, to *Image) *Delta {
	d := &Delta{Topics: map[UUID]TopicChange{}, Configs: map[config.Resource]struct{}{}}
	for t := range to.Topics() {
		if old := from.TopicByID(t.ID); old == nil || !slices.EqualFunc(old.Partitions, t.Partitions, samePartition) {
			d.Topics[t.ID] = TopicChange{Old: old, New: t}
		}
		d.noteConfigs(from, to, config.Resource{Type: config.Topic, Name: t.Name})
	}
	for t := range from.Topics() {
		if to.TopicByID(t.ID) == nil {
			d.Topics[t.ID] = TopicChange{Old: t}
			d.noteConfigs(from, to, config.Resource{Type: config.Topic, Name: t.Name})
		}
	}
	for r := range from.configs {
		d.noteConfigs(from, to, r)
	}
	for r := range to.configs {
		d.noteConfigs(from, to, r)
	}
	d.Brokers = !maps.EqualFunc(from.Brokers, to.Brokers, (*Broker).equal)
	return d
}

func (d *Delta) noteConfigs(from, to *Image, r config.Resource) {
	if !maps.Equal(from.Overrides(r), to.Overrides(r)) {
		d.Configs[r] = struct{}{}
	}
}

func samePartition(a, b Partition) bool {
	return a.Leader == b.Leader && a.LeaderEpoch == b.LeaderEpoch && a.PartitionEpoch == b.PartitionEpoch &&
		slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) &&
		slices.Equal(a.Adding, b.Adding) && slices.Equal(a.Removing, b.Removing) &&
		slices.Equal(a.Eligible, b.Eligible) && slices.Equal(a.LastEligible, b.LastEligible)
}

// Empty is the image before any record.
func Empty() *Image { return &Image{server: &serverCache{}} }

// Encode encodes the whole image as records; Apply(Empty(), Encode(m)) equals m.
// Equal images encode to equal bytes. Brokers go before topics: a registration then
// finds no partition whose leader epoch it would raise.
func Encode(m *Image) []byte {
	var b []byte
	if m.ClusterID != "" {
		b = Append(b, ClusterCreated{ID: m.ClusterID, Tag: m.Tag})
	}
	for _, name := range slices.Sorted(maps.Keys(m.features)) {
		b = Append(b, FeatureSet{Name: name, Level: m.features[name]})
	}
	if m.featuresAt != 0 {
		b = Append(b, FeaturesChanged{Epoch: m.featuresAt})
	}
	if m.brokerTerm != 0 {
		b = Append(b, BrokerEpochGiven{Epoch: m.brokerTerm})
	}
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		b = Append(b, BrokerRegistered{*m.Brokers[id]})
	}
	topics := slices.SortedFunc(m.Topics(), func(x, y *Topic) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	for _, t := range topics {
		b = Append(b, TopicCreated{ID: t.ID, Name: t.Name})
		if len(t.Partitions) > 0 {
			b = Append(b, PartitionsSet{Topic: t.ID, Partitions: t.Partitions})
		}
		b = appendOverrides(b, config.Resource{Type: config.Topic, Name: t.Name}, t.conf)
	}
	byName := func(x, y config.Resource) int {
		return bytes.Compare(append([]byte{byte(x.Type)}, x.Name...), append([]byte{byte(y.Type)}, y.Name...))
	}
	for _, r := range slices.SortedFunc(maps.Keys(m.configs), byName) {
		b = appendOverrides(b, r, m.configs[r])
	}
	if m.producer != 0 {
		b = Append(b, ProducerIDsGiven{Next: m.producer})
	}
	return b
}

func appendOverrides(b []byte, r config.Resource, o *overrides) []byte {
	if o == nil {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(o.m)) {
		b = Append(b, ConfigSet{Resource: r, Key: k, Value: o.m[k]})
	}
	return b
}

// shardOfName spreads names (FNV-1a), those that collide into the same shard. It
// must not be seeded, since images of one process are built from each other.
func shardOfName[S string | []byte](name S) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(unify(name[i]))) * 16777619
	}
	return int((h ^ h>>16) % shards)
}

// shardOfID takes a byte of the id's random part.
func shardOfID(id UUID) int { return int(id[15]) }
