package meta

import (
	"encoding/binary"
	"errors"

	"github.com/leatstream/leat/internal/config"
)

var (
	// ErrNewer is returned for a record that a newer version of the program wrote: its
	// kind, its version or one of its fields is not known here.
	ErrNewer = errors.New("meta: written by a newer version of leat: start that version or a later one")
	// ErrOlder is returned for a record from before the formats were promised.
	ErrOlder = errors.New("meta: written by a development version of leat, from before its formats were promised: " +
		"this version cannot read it; keep the directory for the version that wrote it, and start this one on a new directory")
	// ErrCorrupt is returned for bytes that are no records, or records that do not
	// fit the image they are applied to.
	ErrCorrupt = errors.New("meta: corrupt metadata")
)

// Limits of what one record may hold; they bound memory before it is taken.
const (
	maxRun       = 1024    // partitions in one PartitionsSet
	maxText      = 1 << 20 // bytes in a string
	maxListeners = 64      // listeners of a broker
	maxFeatures  = 1024    // features that a broker supports

	minPartition = 6 // bytes that a partition takes at least, its length among them
)

// version is the version of every record. Version 0 belongs to the time before the
// formats were promised.
const version = 1

// Tags of the records, for ever.
const (
	tagClusterCreated     = 1
	tagBrokerRegistered   = 2
	tagBrokerUnregistered = 3
	tagTopicCreated       = 4
	tagPartitionsSet      = 5
	tagPartitionChanged   = 6
	tagTopicDeleted       = 7
	tagConfigSet          = 8
	tagConfigUnset        = 9
	tagProducerIDsGiven   = 10
	tagFeatureSet         = 11
	tagBrokerEpochGiven   = 12
	tagBrokerChanged      = 13
	tagFeaturesChanged    = 14

	lastTag = tagFeaturesChanged
)

// Record is one change of the image: one of the types below.
type Record interface {
	tag() uint64
	body(b []byte) []byte
}

// ClusterCreated is the first record of a cluster.
type ClusterCreated struct {
	ID  string
	Tag uint32
}

// BrokerRegistered adds a node, or replaces its registration. A node that becomes
// active by it leads its partitions in a new leader epoch: see step.startBroker.
type BrokerRegistered struct{ Broker }

// BrokerChanged fences a registered node or lets it serve. Epoch is that of the
// registration that it is about. A node that becomes active by it leads its
// partitions in a new leader epoch: see step.startBroker.
type BrokerChanged struct {
	ID    int32
	Epoch int64
	State BrokerState
}

// BrokerUnregistered removes a node.
type BrokerUnregistered struct{ ID int32 }

// BrokerEpochGiven keeps the largest epoch given where its broker is gone.
type BrokerEpochGiven struct{ Epoch int64 }

// TopicCreated adds a topic without partitions.
type TopicCreated struct {
	ID   UUID
	Name string
}

// PartitionsSet sets a run of a topic's partitions from number First on. They
// follow the last one or replace partitions that are there, whose partition epoch
// they must follow: there are no gaps.
type PartitionsSet struct {
	Topic      UUID
	First      int32
	Partitions []Partition
}

// PartitionChanged gives a partition another leader or another in-sync set, and
// sets both lists of eligible replicas; its replicas stay. PartitionEpoch must
// follow the partition's own.
type PartitionChanged struct {
	Topic          UUID
	Partition      int32
	ISR            []int32
	Leader         int32
	LeaderEpoch    int32
	PartitionEpoch int32
	Eligible       []int32
	LastEligible   []int32
}

// TopicDeleted removes a topic, its partitions and its configs.
type TopicDeleted struct{ ID UUID }

// ConfigSet sets one config.
type ConfigSet struct {
	Resource   config.Resource
	Key, Value string
}

// ConfigUnset removes one config.
type ConfigUnset struct {
	Resource config.Resource
	Key      string
}

// ProducerIDsGiven moves the first producer id that was not handed out.
type ProducerIDsGiven struct{ Next int64 }

// FeatureSet finalizes a feature's level; 0 removes it.
type FeatureSet struct {
	Name  string
	Level int16
}

// FeaturesChanged keeps, in a snapshot, the index of the entry that was the last to
// set a feature.
type FeaturesChanged struct{ Epoch uint64 }

// Append appends one record to an entry (a long run of partitions as several).
func Append(entry []byte, r Record) []byte {
	if run, ok := r.(PartitionsSet); ok {
		for len(run.Partitions) > maxRun {
			entry = appendOne(entry, PartitionsSet{Topic: run.Topic, First: run.First, Partitions: run.Partitions[:maxRun]})
			run.First, run.Partitions = run.First+maxRun, run.Partitions[maxRun:]
		}
		r = run
	}
	return appendOne(entry, r)
}

func appendOne(entry []byte, r Record) []byte {
	entry = binary.AppendUvarint(entry, r.tag())
	entry = binary.AppendUvarint(entry, version)
	return appendSized(entry, r.body)
}

// appendSized appends what body appends, with its length in front.
func appendSized(b []byte, body func(b []byte) []byte) []byte {
	const room = 4 // the length is known afterwards and takes 4 bytes at most
	at := len(b)
	b = body(append(b, 0, 0, 0, 0))
	n := len(b) - at - room
	var size [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(size[:], uint64(n))
	copy(b[at:], size[:w])
	copy(b[at+w:], b[at+room:])
	return b[:at+w+n]
}

func (ClusterCreated) tag() uint64     { return tagClusterCreated }
func (BrokerRegistered) tag() uint64   { return tagBrokerRegistered }
func (BrokerUnregistered) tag() uint64 { return tagBrokerUnregistered }
func (BrokerEpochGiven) tag() uint64   { return tagBrokerEpochGiven }
func (TopicCreated) tag() uint64       { return tagTopicCreated }
func (PartitionsSet) tag() uint64      { return tagPartitionsSet }
func (PartitionChanged) tag() uint64   { return tagPartitionChanged }
func (TopicDeleted) tag() uint64       { return tagTopicDeleted }
func (ConfigSet) tag() uint64          { return tagConfigSet }
func (ConfigUnset) tag() uint64        { return tagConfigUnset }
func (ProducerIDsGiven) tag() uint64   { return tagProducerIDsGiven }
func (FeatureSet) tag() uint64         { return tagFeatureSet }
func (BrokerChanged) tag() uint64      { return tagBrokerChanged }
func (FeaturesChanged) tag() uint64    { return tagFeaturesChanged }

func (r ClusterCreated) body(b []byte) []byte {
	return binary.AppendUvarint(appendText(b, r.ID), uint64(r.Tag))
}

func (r BrokerRegistered) body(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.ID)), r.Epoch)
	b = append(b, r.Incarnation[:]...)
	b = binary.AppendUvarint(b, uint64(r.State))
	b = appendText(b, r.Rack)
	b = binary.AppendUvarint(b, uint64(len(r.Listeners)))
	for i := range r.Listeners {
		b = appendSized(b, r.Listeners[i].body)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Features)))
	for i := range r.Features {
		b = appendSized(b, r.Features[i].body)
	}
	return b
}

func (l *Listener) body(b []byte) []byte {
	b = appendText(appendText(b, l.Name), l.Host)
	b = binary.AppendUvarint(b, uint64(l.Port))
	return binary.AppendVarint(b, int64(l.Security))
}

func (f *FeatureRange) body(b []byte) []byte {
	b = appendText(b, f.Name)
	return binary.AppendVarint(binary.AppendVarint(b, int64(f.Min)), int64(f.Max))
}

func (r BrokerChanged) body(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.ID)), r.Epoch)
	return binary.AppendUvarint(b, uint64(r.State))
}

func (r BrokerUnregistered) body(b []byte) []byte { return binary.AppendVarint(b, int64(r.ID)) }

func (r BrokerEpochGiven) body(b []byte) []byte { return binary.AppendVarint(b, r.Epoch) }

func (r TopicCreated) body(b []byte) []byte { return appendText(append(b, r.ID[:]...), r.Name) }

func (r PartitionsSet) body(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.First))
	b = binary.AppendUvarint(b, uint64(len(r.Partitions)))
	for i := range r.Partitions {
		b = appendSized(b, r.Partitions[i].body)
	}
	return b
}

func (p *Partition) body(b []byte) []byte {
	b = appendIDs(appendIDs(b, p.Replicas), p.ISR)
	b = appendLeader(b, p.Leader, p.LeaderEpoch, p.PartitionEpoch)
	return appendOptional(b, p.Adding, p.Removing, p.Eligible, p.LastEligible)
}

func (r PartitionChanged) body(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.Partition))
	b = appendLeader(appendIDs(b, r.ISR), r.Leader, r.LeaderEpoch, r.PartitionEpoch)
	return appendOptional(b, r.Eligible, r.LastEligible)
}

func (r TopicDeleted) body(b []byte) []byte { return append(b, r.ID[:]...) }

func (r ConfigSet) body(b []byte) []byte {
	return appendText(appendText(appendResource(b, r.Resource), r.Key), r.Value)
}

func (r ConfigUnset) body(b []byte) []byte { return appendText(appendResource(b, r.Resource), r.Key) }

func (r ProducerIDsGiven) body(b []byte) []byte { return binary.AppendVarint(b, r.Next) }

func (r FeatureSet) body(b []byte) []byte {
	return binary.AppendVarint(appendText(b, r.Name), int64(r.Level))
}

func (r FeaturesChanged) body(b []byte) []byte { return binary.AppendUvarint(b, r.Epoch) }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendResource(b []byte, r config.Resource) []byte {
	return appendText(binary.AppendUvarint(b, uint64(r.Type)), r.Name)
}

func appendIDs(b []byte, ids []int32) []byte {
	b = binary.AppendUvarint(b, uint64(len(ids)))
	for _, id := range ids {
		b = binary.AppendVarint(b, int64(id))
	}
	return b
}

func appendLeader(b []byte, leader, leaderEpoch, partitionEpoch int32) []byte {
	b = binary.AppendVarint(b, int64(leader))
	b = binary.AppendVarint(b, int64(leaderEpoch))
	return binary.AppendVarint(b, int64(partitionEpoch))
}

// appendOptional ends a body with lists that are left out, from the last one on,
// while they are empty.
func appendOptional(b []byte, lists ...[]int32) []byte {
	for len(lists) > 0 && len(lists[len(lists)-1]) == 0 {
		lists = lists[:len(lists)-1]
	}
	for _, ids := range lists {
		b = appendIDs(b, ids)
	}
	return b
}
