// Package meta is what the cluster *is*: an immutable Image, the records that
// change it, Apply, and the table of all configs.
package meta

import (
	"iter"
)

// UUID is a topic id. The zero value stands for "no id".
type UUID [16]byte

// Image is the cluster's state after some record. It never changes; a reader may
// keep it as long as it likes.
type Image struct {
	ClusterID string // 22 characters, as Kafka's
	Tag       uint32 // the cluster's tag in producer ids (D16), 20 bits, not zero
	Brokers   map[int32]*Broker
	// unexported: topics by name and by id (sharded, so that a change copies little),
	// configs, the next producer id, feature levels
}

// Broker is a registered node.
type Broker struct {
	ID    int32
	Host  string // for other nodes and where the asking client's own address is not ours
	Port  int32
	Rack  string
	Epoch int64
}

// Topic is a topic with its partitions, index = partition number.
type Topic struct {
	Name       string
	ID         UUID
	Partitions []Partition
}

// Internal tells whether Kafka calls the topic internal (__consumer_offsets and the like).
func (t *Topic) Internal() bool { panic("BUG: not built") }

// Partition says who has a partition and who leads it.
type Partition struct {
	Replicas       []int32
	ISR            []int32
	Leader         int32
	LeaderEpoch    int32
	PartitionEpoch int32
}

// Topic finds a topic by name; nil: there is none.
func (m *Image) Topic(name string) *Topic { panic("BUG: not built") }

// TopicBytes is Topic without making a string of the name.
func (m *Image) TopicBytes(name []byte) *Topic { panic("BUG: not built") }

// TopicByID finds a topic by id; nil: there is none.
func (m *Image) TopicByID(id UUID) *Topic { panic("BUG: not built") }

// Topics iterates over all topics, in no order.
func (m *Image) Topics() iter.Seq[*Topic] { panic("BUG: not built") }

// NumTopics counts the topics.
func (m *Image) NumTopics() int { panic("BUG: not built") }

// ResourceType is Kafka's number for what a config belongs to.
type ResourceType int8

// Resource types.
const (
	TopicResource         ResourceType = 2
	BrokerResource        ResourceType = 4
	BrokerLoggerResource  ResourceType = 8
	ClientMetricsResource ResourceType = 16
	GroupResource         ResourceType = 32
)

// Resource is what configs are set on; a broker's name is its id, "" the cluster's default.
type Resource struct {
	Type ResourceType
	Name string
}

// Overrides are the configs set on a resource (a copy is not needed: it never changes).
func (m *Image) Overrides(r Resource) map[string]string { panic("BUG: not built") }

// Delta says what a step changed, for whoever reconciles with it.
type Delta struct {
	Topics  map[UUID]TopicChange // topics made, changed or deleted
	Configs map[Resource]struct{}
	Brokers bool
}

// TopicChange holds a topic before and after; nil: it was not there, it is gone.
type TopicChange struct{ Old, New *Topic }

// Empty is the image before any record.
func Empty() *Image { panic("BUG: not built") }

// Apply decodes a batch of records (one quorum entry) and applies it.
func Apply(m *Image, entry []byte) (*Image, *Delta, error) { panic("BUG: not built") }

// Encode encodes the whole image as records; Apply(Empty(), Encode(m)) equals m.
func Encode(m *Image) []byte { panic("BUG: not built") }
