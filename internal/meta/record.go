package meta

import (
	"encoding/binary"
	"errors"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
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

// Limits of one record. They are checked before memory is allocated for its contents.
const (
	maxPartitionsInRecord = 1024    // partitions in one PartitionsSet
	maxText               = 1 << 20 // bytes in a string
	maxListeners          = 64      // listeners of a broker
	maxFeatures           = 1024    // features that a broker supports

	minPartitionBytes = 6 // the least that an encoded partition takes, with its length
)

// version is the version of every record. Version 0 belongs to the time before the
// formats were promised.
const version = 1

// Tags of the records. A tag never gets another meaning.
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
	tagTopicChanged       = 15
	tagLevelSet           = 16
	tagNodeAdmitted       = 17
	tagNodeRemoved        = 18
	tagTokenMade          = 19
	tagTokenRevoked       = 20
	tagTokenForgotten     = 21
	tagNodeForgotten      = 22

	lastTag = tagNodeForgotten
)

// Record is one change of the image: one of the types below.
type Record interface {
	recordTag() uint64
	appendBody(b []byte) []byte
}

// ClusterCreated is the first record of a cluster.
type ClusterCreated struct {
	ID  string
	Tag uint32
}

// BrokerRegistered adds a node, or replaces its registration. If the node is not fenced,
// and was fenced or had another incarnation before, the leader epochs of the partitions
// that it leads rise: see step.raiseLeaderEpochs.
type BrokerRegistered struct{ Broker }

// BrokerChanged changes the state of a registered node; Epoch is that of its
// registration. If the node is no longer fenced by it, the leader epochs of the
// partitions that it leads rise: see step.raiseLeaderEpochs.
type BrokerChanged struct {
	ID    int32
	Epoch int64
	State BrokerState
}

// BrokerUnregistered removes a node.
type BrokerUnregistered struct{ ID int32 }

// BrokerEpochGiven keeps the largest epoch that a registration was ever given, also
// when that broker is gone. It is in snapshots.
type BrokerEpochGiven struct{ Epoch int64 }

// TopicCreated adds a topic without partitions. Follows needs LevelCluster.
type TopicCreated struct {
	ID      UUID
	Name    string
	Follows bool // see Topic.Follows
}

// TopicChanged changes a topic's property; see Topic.Follows. It needs LevelCluster.
type TopicChanged struct {
	ID      UUID
	Follows bool
}

// PartitionsSet adds or replaces a topic's partitions from number First on. There must
// be no gap between them and those that the topic has, and a partition that replaces
// another must have a larger partition epoch.
type PartitionsSet struct {
	Topic      UUID
	First      int32
	Partitions []Partition
}

// PartitionChanged sets everything about a partition that changes when its leader or
// its in-sync set does; its replicas stay. PartitionEpoch must be larger than the
// partition's own.
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

// ProducerIDsGiven says that all producer ids below Next, which is without the
// cluster's tag, were given.
type ProducerIDsGiven struct{ Next int64 }

// FeatureSet finalizes a feature's level; 0 removes it.
type FeatureSet struct {
	Name  string
	Level int16
}

// LevelSet finalizes the level of LevelFeature. It is no FeatureSet, so that versions from before
// there were levels refuse it: they would read all that a level has Apply keep as if it had none,
// and write snapshots without it.
type LevelSet struct{ Level int16 }

// FeaturesChanged keeps, in a snapshot, the index of the last entry that set a
// feature.
type FeaturesChanged struct{ Epoch uint64 }

// NodeAdmitted lets the holder of a key be the node of an id for ever. It needs LevelCluster, as
// all records about nodes and tokens.
type NodeAdmitted struct {
	ID        int32
	Key       credential.PublicKey
	Directory UUID
	Ends      int64 // see Node.Ends; it needs LevelAdmission
}

// NodeRemoved ends the membership of a node for good, and revokes all tokens.
type NodeRemoved struct{ ID int32 }

// NodeForgotten takes back the admission of a node that has never registered. It needs LevelAdmission.
type NodeForgotten struct{ ID int32 }

// TokenMade makes a join token.
type TokenMade struct {
	ID       credential.TokenID
	Key      credential.PublicKey
	Acceptor [32]byte
	Expires  int64 // ms since 1970
}

// TokenRevoked has a token let no node in any more.
type TokenRevoked struct{ ID credential.TokenID }

// TokenForgotten removes a token that has ended or was revoked long ago.
type TokenForgotten struct{ ID credential.TokenID }

// Append appends a record to an entry. A PartitionsSet that is too long for one record
// becomes several.
func Append(entry []byte, r Record) []byte {
	if run, ok := r.(PartitionsSet); ok {
		for len(run.Partitions) > maxPartitionsInRecord {
			entry = appendOne(entry, PartitionsSet{Topic: run.Topic, First: run.First, Partitions: run.Partitions[:maxPartitionsInRecord]})
			run.First, run.Partitions = run.First+maxPartitionsInRecord, run.Partitions[maxPartitionsInRecord:]
		}
		r = run
	}
	return appendOne(entry, r)
}

func appendOne(entry []byte, r Record) []byte {
	entry = binary.AppendUvarint(entry, r.recordTag())
	entry = binary.AppendUvarint(entry, version)
	return appendSized(entry, r.appendBody)
}

// appendSized appends the bytes that body appends, with their length in front.
func appendSized(b []byte, body func(b []byte) []byte) []byte {
	const room = 4 // for the length, which is known afterwards and takes at most 4 bytes
	at := len(b)
	b = body(append(b, 0, 0, 0, 0))
	n := len(b) - at - room
	var size [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(size[:], uint64(n))
	copy(b[at:], size[:w])
	copy(b[at+w:], b[at+room:])
	return b[:at+w+n]
}

func (ClusterCreated) recordTag() uint64     { return tagClusterCreated }
func (BrokerRegistered) recordTag() uint64   { return tagBrokerRegistered }
func (BrokerUnregistered) recordTag() uint64 { return tagBrokerUnregistered }
func (BrokerEpochGiven) recordTag() uint64   { return tagBrokerEpochGiven }
func (TopicCreated) recordTag() uint64       { return tagTopicCreated }
func (TopicChanged) recordTag() uint64       { return tagTopicChanged }
func (PartitionsSet) recordTag() uint64      { return tagPartitionsSet }
func (PartitionChanged) recordTag() uint64   { return tagPartitionChanged }
func (TopicDeleted) recordTag() uint64       { return tagTopicDeleted }
func (ConfigSet) recordTag() uint64          { return tagConfigSet }
func (ConfigUnset) recordTag() uint64        { return tagConfigUnset }
func (ProducerIDsGiven) recordTag() uint64   { return tagProducerIDsGiven }
func (FeatureSet) recordTag() uint64         { return tagFeatureSet }
func (LevelSet) recordTag() uint64           { return tagLevelSet }
func (BrokerChanged) recordTag() uint64      { return tagBrokerChanged }
func (FeaturesChanged) recordTag() uint64    { return tagFeaturesChanged }
func (NodeAdmitted) recordTag() uint64       { return tagNodeAdmitted }
func (NodeForgotten) recordTag() uint64      { return tagNodeForgotten }
func (NodeRemoved) recordTag() uint64        { return tagNodeRemoved }
func (TokenMade) recordTag() uint64          { return tagTokenMade }
func (TokenRevoked) recordTag() uint64       { return tagTokenRevoked }
func (TokenForgotten) recordTag() uint64     { return tagTokenForgotten }

func (r ClusterCreated) appendBody(b []byte) []byte {
	return binary.AppendUvarint(appendText(b, r.ID), uint64(r.Tag))
}

func (r BrokerRegistered) appendBody(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.ID)), r.Epoch)
	b = append(b, r.Incarnation[:]...)
	b = binary.AppendUvarint(b, uint64(r.State))
	b = appendText(b, r.Rack)
	b = binary.AppendUvarint(b, uint64(len(r.Listeners)))
	for i := range r.Listeners {
		b = appendSized(b, r.Listeners[i].appendFields)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Features)))
	for i := range r.Features {
		b = appendSized(b, r.Features[i].appendFields)
	}
	if r.Directory != (UUID{}) || r.RecordedEpoch != 0 || r.RaftID != 0 {
		b = append(b, r.Directory[:]...)
	}
	if r.RecordedEpoch != 0 || r.RaftID != 0 {
		b = binary.AppendVarint(b, r.RecordedEpoch)
	}
	if r.RaftID != 0 {
		b = binary.BigEndian.AppendUint64(b, r.RaftID)
	}
	return b
}

func (l *Listener) appendFields(b []byte) []byte {
	b = appendText(appendText(b, l.Name), l.Host)
	b = binary.AppendUvarint(b, uint64(l.Port))
	return binary.AppendVarint(b, int64(l.Security))
}

func (f *FeatureRange) appendFields(b []byte) []byte {
	b = appendText(b, f.Name)
	return binary.AppendVarint(binary.AppendVarint(b, int64(f.Min)), int64(f.Max))
}

func (r BrokerChanged) appendBody(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.ID)), r.Epoch)
	return binary.AppendUvarint(b, uint64(r.State))
}

func (r BrokerUnregistered) appendBody(b []byte) []byte { return binary.AppendVarint(b, int64(r.ID)) }

func (r BrokerEpochGiven) appendBody(b []byte) []byte { return binary.AppendVarint(b, r.Epoch) }

func (r TopicCreated) appendBody(b []byte) []byte {
	b = appendText(append(b, r.ID[:]...), r.Name)
	if r.Follows {
		b = appendBool(b, true)
	}
	return b
}

func (r TopicChanged) appendBody(b []byte) []byte {
	return appendBool(append(b, r.ID[:]...), r.Follows)
}

func (r PartitionsSet) appendBody(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.First))
	b = binary.AppendUvarint(b, uint64(len(r.Partitions)))
	for i := range r.Partitions {
		b = appendSized(b, r.Partitions[i].appendFields)
	}
	return b
}

func (p *Partition) appendFields(b []byte) []byte {
	b = appendIDs(appendIDs(b, p.Replicas), p.ISR)
	b = appendLeader(b, p.Leader, p.LeaderEpoch, p.PartitionEpoch)
	return appendOptional(b, p.Adding, p.Removing, p.Eligible, p.LastEligible)
}

func (r PartitionChanged) appendBody(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.Partition))
	b = appendLeader(appendIDs(b, r.ISR), r.Leader, r.LeaderEpoch, r.PartitionEpoch)
	return appendOptional(b, r.Eligible, r.LastEligible)
}

func (r TopicDeleted) appendBody(b []byte) []byte { return append(b, r.ID[:]...) }

func (r ConfigSet) appendBody(b []byte) []byte {
	return appendText(appendText(appendResource(b, r.Resource), r.Key), r.Value)
}

func (r ConfigUnset) appendBody(b []byte) []byte {
	return appendText(appendResource(b, r.Resource), r.Key)
}

func (r ProducerIDsGiven) appendBody(b []byte) []byte { return binary.AppendVarint(b, r.Next) }

func (r FeatureSet) appendBody(b []byte) []byte {
	return binary.AppendVarint(appendText(b, r.Name), int64(r.Level))
}

func (r LevelSet) appendBody(b []byte) []byte { return binary.AppendVarint(b, int64(r.Level)) }

func (r FeaturesChanged) appendBody(b []byte) []byte { return binary.AppendUvarint(b, r.Epoch) }

func (r NodeAdmitted) appendBody(b []byte) []byte {
	b = append(binary.AppendVarint(b, int64(r.ID)), r.Key[:]...)
	b = append(b, r.Directory[:]...)
	if r.Ends == 0 {
		return b
	}
	return binary.AppendVarint(b, r.Ends)
}

func (r NodeRemoved) appendBody(b []byte) []byte { return binary.AppendVarint(b, int64(r.ID)) }

func (r NodeForgotten) appendBody(b []byte) []byte { return binary.AppendVarint(b, int64(r.ID)) }

func (r TokenMade) appendBody(b []byte) []byte {
	b = append(append(append(b, r.ID[:]...), r.Key[:]...), r.Acceptor[:]...)
	return binary.AppendVarint(b, r.Expires)
}

func (r TokenRevoked) appendBody(b []byte) []byte { return append(b, r.ID[:]...) }

func (r TokenForgotten) appendBody(b []byte) []byte { return append(b, r.ID[:]...) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return binary.AppendUvarint(b, 1)
	}
	return binary.AppendUvarint(b, 0)
}

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

// appendOptional appends the lists at the end of a body. The last ones are left out
// if they are empty.
func appendOptional(b []byte, lists ...[]int32) []byte {
	for len(lists) > 0 && len(lists[len(lists)-1]) == 0 {
		lists = lists[:len(lists)-1]
	}
	for _, ids := range lists {
		b = appendIDs(b, ids)
	}
	return b
}
