package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// An entry of the metadata log is a batch of records, one after another:
//
//	entry  = { record }
//	record = tag uvarint | version uvarint | length uvarint | body [length]
//
// Numbers in a body are varints (zigzag where they can be negative), strings and
// lists carry their length, ids are 16 bytes. A tag keeps its meaning for ever.
// A new field goes to the end of a body: who does not know it skips it. Where
// skipping would be wrong, the record's version rises, and an older program
// refuses the entry (ErrNewer) instead of misreading it.
//
// Records say what became of the decision, never what was asked for: applying them
// needs no clock, no random number and no setting, so that every node arrives at
// the same image.

var (
	// ErrNewer is returned for a record that a newer version of the program wrote.
	ErrNewer = errors.New("meta: written by a newer version of leat: start that version or a later one")
	// ErrCorrupt is returned for bytes that are no records, or records that do not
	// fit the image they are applied to.
	ErrCorrupt = errors.New("meta: corrupt metadata")
)

// Limits of what one record may hold; they bound memory before it is taken.
const (
	maxRun  = 1024    // partitions in one PartitionsSet
	maxText = 1 << 20 // bytes in a string

	minPartition = 5 // bytes that a partition takes at least
)

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

// BrokerRegistered adds a node, or replaces its registration.
type BrokerRegistered struct{ Broker }

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
// replace partitions that are there or follow the last one: there are no gaps.
type PartitionsSet struct {
	Topic      UUID
	First      int32
	Partitions []Partition
}

// PartitionChanged gives a partition another leader or another in-sync set; its
// replicas stay. PartitionEpoch must follow the partition's own.
type PartitionChanged struct {
	Topic          UUID
	Partition      int32
	ISR            []int32
	Leader         int32
	LeaderEpoch    int32
	PartitionEpoch int32
}

// TopicDeleted removes a topic, its partitions and its configs.
type TopicDeleted struct{ ID UUID }

// ConfigSet sets one config.
type ConfigSet struct {
	Resource   Resource
	Key, Value string
}

// ConfigUnset removes one config.
type ConfigUnset struct {
	Resource Resource
	Key      string
}

// ProducerIDsGiven moves the first producer id that was not handed out.
type ProducerIDsGiven struct{ Next int64 }

// FeatureSet finalizes a feature's level; 0 removes it.
type FeatureSet struct {
	Name  string
	Level int16
}

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
	entry = binary.AppendUvarint(entry, 0) // every record is at its first version
	at := len(entry)
	entry = r.body(append(entry, 0, 0, 0, 0)) // the length is known afterwards: at most 4 bytes
	n := len(entry) - at - 4
	var size [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(size[:], uint64(n))
	copy(entry[at:], size[:w])
	copy(entry[at+w:], entry[at+4:])
	return entry[:at+w+n]
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

func (r ClusterCreated) body(b []byte) []byte {
	return binary.AppendUvarint(appendText(b, r.ID), uint64(r.Tag))
}

func (r BrokerRegistered) body(b []byte) []byte {
	b = appendText(binary.AppendVarint(b, int64(r.ID)), r.Host)
	b = appendText(binary.AppendVarint(b, int64(r.Port)), r.Rack)
	return binary.AppendVarint(b, r.Epoch)
}

func (r BrokerUnregistered) body(b []byte) []byte { return binary.AppendVarint(b, int64(r.ID)) }

func (r BrokerEpochGiven) body(b []byte) []byte { return binary.AppendVarint(b, r.Epoch) }

func (r TopicCreated) body(b []byte) []byte { return appendText(append(b, r.ID[:]...), r.Name) }

func (r PartitionsSet) body(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.First))
	b = binary.AppendUvarint(b, uint64(len(r.Partitions)))
	for i := range r.Partitions {
		p := &r.Partitions[i]
		b = appendIDs(appendIDs(b, p.Replicas), p.ISR)
		b = appendLeader(b, p.Leader, p.LeaderEpoch, p.PartitionEpoch)
	}
	return b
}

func (r PartitionChanged) body(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.Partition))
	return appendLeader(appendIDs(b, r.ISR), r.Leader, r.LeaderEpoch, r.PartitionEpoch)
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

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendResource(b []byte, r Resource) []byte {
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

// reader takes fields off a record's body. After the first field that is not
// there it is bad, and every further field is zero.
type reader struct {
	b   []byte
	bad bool
	ids []int32 // one piece of memory for many short lists
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint(lo, hi int64) int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || v < lo || v > hi {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 { return int32(r.varint(math.MinInt32, math.MaxInt32)) }

func (r *reader) int64() int64 { return r.varint(math.MinInt64, math.MaxInt64) }

// index is a number that counts something: not negative.
func (r *reader) index() int32 {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.bad = true
		return 0
	}
	return int32(v)
}

// count is how many things follow, each of which takes a byte or more.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count()
	if n > maxText {
		r.b, r.bad = nil, true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) uuid() (id UUID) {
	if len(r.b) < len(id) {
		r.b, r.bad = nil, true
		return UUID{}
	}
	r.b = r.b[copy(id[:], r.b):]
	return id
}

func (r *reader) resource() Resource {
	t := r.uvarint()
	if t > math.MaxInt8 {
		r.bad = true
	}
	return Resource{ResourceType(t), r.text()}
}

func (r *reader) list() []int32 {
	n := r.count()
	if n == 0 {
		return nil
	}
	if n > cap(r.ids)-len(r.ids) {
		r.ids = make([]int32, 0, max(n, 64))
	}
	from := len(r.ids)
	for range n {
		r.ids = append(r.ids, r.int32())
	}
	return r.ids[from:len(r.ids):len(r.ids)]
}

func (r *reader) partition() Partition {
	p := Partition{Replicas: r.list(), ISR: r.list()}
	p.Leader, p.LeaderEpoch, p.PartitionEpoch = r.int32(), r.int32(), r.int32()
	return p
}

// each hands the records of an entry to do, one after another, until one fails.
func each(entry []byte, do func(Record) error) error {
	var ids []int32 // memory for the lists of replicas
	for len(entry) > 0 {
		head := reader{b: entry}
		tag, version := head.uvarint(), head.uvarint()
		n := head.count()
		if head.bad {
			return fmt.Errorf("%w: an entry is cut short", ErrCorrupt)
		}
		if tag == 0 {
			return fmt.Errorf("%w: a record without a tag", ErrCorrupt)
		}
		if tag > tagBrokerEpochGiven || version > 0 {
			return fmt.Errorf("%w (record %d, version %d)", ErrNewer, tag, version)
		}
		r := reader{b: head.b[:n], ids: ids}
		if err := r.record(tag, do); err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrCorrupt, tag, err)
		}
		ids, entry = r.ids, head.b[n:]
	}
	return nil
}

// errCut says that a record's body ends too early or has a number out of range.
var errCut = errors.New("cut short or out of range")

// record reads a record's body and hands it on.
func (r *reader) record(tag uint64, do func(Record) error) error {
	var rec Record
	switch tag {
	case tagClusterCreated:
		rec = ClusterCreated{ID: r.text(), Tag: uint32(r.index())}
	case tagBrokerRegistered:
		rec = BrokerRegistered{Broker{ID: r.int32(), Host: r.text(), Port: r.int32(), Rack: r.text(), Epoch: r.int64()}}
	case tagBrokerUnregistered:
		rec = BrokerUnregistered{ID: r.int32()}
	case tagBrokerEpochGiven:
		rec = BrokerEpochGiven{Epoch: r.int64()}
	case tagTopicCreated:
		rec = TopicCreated{ID: r.uuid(), Name: r.text()}
	case tagPartitionsSet:
		rec = r.partitionsSet()
	case tagPartitionChanged:
		c := PartitionChanged{Topic: r.uuid(), Partition: r.index(), ISR: r.list()}
		c.Leader, c.LeaderEpoch, c.PartitionEpoch = r.int32(), r.int32(), r.int32()
		rec = c
	case tagTopicDeleted:
		rec = TopicDeleted{ID: r.uuid()}
	case tagConfigSet:
		rec = ConfigSet{Resource: r.resource(), Key: r.text(), Value: r.text()}
	case tagConfigUnset:
		rec = ConfigUnset{Resource: r.resource(), Key: r.text()}
	case tagProducerIDsGiven:
		rec = ProducerIDsGiven{Next: r.int64()}
	case tagFeatureSet:
		rec = FeatureSet{Name: r.text(), Level: int16(r.varint(0, math.MaxInt16))}
	}
	if r.bad {
		return errCut
	}
	return do(rec)
}

func (r *reader) partitionsSet() PartitionsSet {
	s := PartitionsSet{Topic: r.uuid(), First: r.index()}
	n := r.count()
	if n > maxRun || n > len(r.b)/minPartition {
		r.bad = true
		return s
	}
	s.Partitions = make([]Partition, n)
	for i := range s.Partitions {
		s.Partitions[i] = r.partition()
	}
	return s
}
