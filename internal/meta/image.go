package meta

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
)

// UUID is a topic id, or a broker's incarnation. The zero value stands for "no id".
type UUID [16]byte

// shards is how many maps the topics are spread over; a power of two.
const shards = 256

// Image is the cluster's metadata after some record. It never changes, so a reader may
// keep it as long as it likes.
type Image struct {
	ClusterID string // 22 characters, as Kafka's
	Tag       uint32 // the cluster's part of producer ids (see ProducerID), 20 bits, not zero
	Brokers   map[int32]*Broker
	Nodes     map[int32]*Node               // admitted nodes, also those that were removed
	Tokens    map[credential.TokenID]*Token // also those that have ended or were revoked not long ago

	byName     [shards]map[string]*Topic
	byID       [shards]map[UUID]*Topic
	topics     int
	partitions int

	configs         map[config.Resource]*overrides // of everything but topics, which have their own
	configBytes     int                            // see ConfigBytes
	nextProducerID  int64                          // without the tag; all below it were given
	features        map[string]int16
	featuresEpoch   uint64 // see FeaturesEpoch
	lastBrokerEpoch int64  // see LastBrokerEpoch

	serverSettings *serverCache
	plainSettings  *settingsCache // of topics on which no configs are set
}

// overrides are the configs set on one resource. They never change once the step that
// made them has ended, so that an equal pointer means equal settings (see settings.go).
type overrides struct{ byKey map[string]string }

func (o *overrides) values() map[string]string {
	if o == nil {
		return nil
	}
	return o.byKey
}

// These are the memory that set configs take besides their text, about.
const (
	resourceCost = 256 // of a resource that has configs
	configCost   = 32  // of one config
)

// ConfigBytes is how many bytes the configs that are set on a resource count: what it takes to
// keep them, and their keys and values, each with the name of the resource, as a snapshot has them.
func ConfigBytes(r config.Resource, set map[string]string) int {
	if len(set) == 0 {
		return 0
	}
	n := resourceCost
	for k, v := range set {
		n += oneConfigBytes(r, k, v)
	}
	return n
}

func oneConfigBytes(r config.Resource, key, value string) int {
	return configCost + len(r.Name) + len(key) + len(value)
}

// Topic is a topic with its partitions, which are indexed by their number.
type Topic struct {
	Name       string
	ID         UUID
	Partitions []Partition
	// Follows tells that the topic was made without a number of replicas, so that it gets
	// more of them as nodes join. A number that was chosen later ends that.
	Follows bool

	overrides *overrides // nil: none
	settings  *settingsCache
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

// Partition says which brokers have a replica of a partition, and which one leads it.
type Partition struct {
	Replicas       []int32 // all of them, with those that are being added or removed
	ISR            []int32
	Leader         int32 // -1 if no broker leads it
	LeaderEpoch    int32
	PartitionEpoch int32 // rises with every change
	Adding         []int32
	Removing       []int32
	Eligible       []int32 // not in sync, but known to have all acknowledged records (KIP-966's ELR)
	LastEligible   []int32 // were eligible until an unclean shutdown (KIP-966's LastKnownELR)
}

// Topic returns the topic of a name, or nil if there is none.
func (m *Image) Topic(name string) *Topic { return m.byName[shardOfName(name)][name] }

// TopicBytes is Topic without making a string of the name.
func (m *Image) TopicBytes(name []byte) *Topic {
	return m.byName[shardOfName(name)][string(name)]
}

// TopicByID returns the topic of an id, or nil if there is none.
func (m *Image) TopicByID(id UUID) *Topic { return m.byID[shardOfID(id)][id] }

// Colliding returns another topic whose name equals this one once dots are replaced by
// underscores, or nil if there is none. The names of their metrics would be the same.
func (m *Image) Colliding(name string) *Topic {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	for other, t := range m.byName[shardOfName(name)] {
		if other != name && namesCollide(other, name) {
			return t
		}
	}
	return nil
}

func namesCollide(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if dotToUnderscore(a[i]) != dotToUnderscore(b[i]) {
			return false
		}
	}
	return true
}

func dotToUnderscore(c byte) byte {
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

// NextProducerID is the first producer id that was not given yet, without the
// cluster's tag.
func (m *Image) NextProducerID() int64 { return m.nextProducerID }

// Feature is a feature's finalized level; it is 0 for one that is not set.
func (m *Image) Feature(name string) int16 { return m.features[name] }

// FeaturesEpoch is the index of the last entry of the metadata log that changed a
// feature; it is 0 before there is one. It rises with every change.
func (m *Image) FeaturesEpoch() uint64 { return m.featuresEpoch }

// Features iterates over the finalized feature levels.
func (m *Image) Features() iter.Seq2[string, int16] { return maps.All(m.features) }

// LastBrokerEpoch is the largest epoch that a registration was ever given.
func (m *Image) LastBrokerEpoch() int64 { return m.lastBrokerEpoch }

// Overrides are the configs set on a resource. The map never changes.
func (m *Image) Overrides(r config.Resource) map[string]string {
	o := m.configs[r]
	if r.Type == config.Topic {
		if t := m.Topic(r.Name); t != nil {
			o = t.overrides
		}
	}
	return o.values()
}

// ConfigBytes is the sum of the ConfigBytes of all resources.
func (m *Image) ConfigBytes() int { return m.configBytes }

// Configured iterates over the resources of one type that have configs set, in no order.
func (m *Image) Configured(typ config.ResourceType) iter.Seq[string] {
	return func(yield func(string) bool) {
		if typ == config.Topic {
			for t := range m.Topics() {
				if t.overrides != nil && !yield(t.Name) {
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

// Delta is the difference between two images. A change of a topic's configs is in
// Configs only.
type Delta struct {
	Topics  map[UUID]TopicChange         // topics that were made, changed or deleted
	Deleted []UUID                       // topics that a record deleted, also those that were made in the same step
	Configs map[config.Resource]struct{} // resources whose configs changed
	Brokers bool                         // a broker changed
	Nodes   bool                         // a node was admitted or removed, or a token changed
}

// TopicChange is a topic before and after a change. Old is nil if the topic was made,
// New is nil if it was deleted.
type TopicChange struct{ Old, New *Topic }

// Diff returns the Delta between two images. It is for a snapshot, which replaces an
// image as a whole.
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
	d.Nodes = !maps.EqualFunc(from.Nodes, to.Nodes, func(a, b *Node) bool { return *a == *b }) ||
		!maps.EqualFunc(from.Tokens, to.Tokens, func(a, b *Token) bool { return *a == *b })
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

// Empty returns the image before the first record.
func Empty() *Image { return &Image{serverSettings: &serverCache{}, plainSettings: &settingsCache{}} }

// Encode encodes the whole image as records: Apply(Empty(), Encode(m)) equals m.
// Equal images encode to equal bytes. Brokers come before topics, so that a
// registration finds no partition whose leader epoch it would raise, and nodes before tokens,
// so that the removal of one revokes none.
func Encode(m *Image) []byte {
	var b []byte
	if m.ClusterID != "" {
		b = Append(b, ClusterCreated{ID: m.ClusterID, Tag: m.Tag})
	}
	for _, name := range slices.Sorted(maps.Keys(m.features)) {
		b = AppendLevel(b, name, m.features[name])
	}
	if m.featuresEpoch != 0 {
		b = Append(b, FeaturesChanged{Epoch: m.featuresEpoch})
	}
	if m.lastBrokerEpoch != 0 {
		b = Append(b, BrokerEpochGiven{Epoch: m.lastBrokerEpoch})
	}
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		b = Append(b, BrokerRegistered{*m.Brokers[id]})
	}
	b = appendNodes(b, m)
	topics := slices.SortedFunc(m.Topics(), func(x, y *Topic) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	for _, t := range topics {
		b = Append(b, TopicCreated{ID: t.ID, Name: t.Name, Follows: t.Follows})
		if len(t.Partitions) > 0 {
			b = Append(b, PartitionsSet{Topic: t.ID, Partitions: t.Partitions})
		}
		b = appendOverrides(b, config.Resource{Type: config.Topic, Name: t.Name}, t.overrides)
	}
	byName := func(x, y config.Resource) int {
		return bytes.Compare(append([]byte{byte(x.Type)}, x.Name...), append([]byte{byte(y.Type)}, y.Name...))
	}
	for _, r := range slices.SortedFunc(maps.Keys(m.configs), byName) {
		b = appendOverrides(b, r, m.configs[r])
	}
	if m.nextProducerID != 0 {
		b = Append(b, ProducerIDsGiven{Next: m.nextProducerID})
	}
	return b
}

// appendNodes appends the records of nodes and tokens.
func appendNodes(b []byte, m *Image) []byte {
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		n := m.Nodes[id]
		b = Append(b, NodeAdmitted{ID: n.ID, Key: n.Key, Directory: n.Directory, Ends: n.Ends})
		if n.Removed {
			b = Append(b, NodeRemoved{ID: n.ID})
		}
	}
	byID := func(x, y credential.TokenID) int { return bytes.Compare(x[:], y[:]) }
	for _, id := range slices.SortedFunc(maps.Keys(m.Tokens), byID) {
		t := m.Tokens[id]
		b = Append(b, TokenMade{ID: t.ID, Key: t.Key, Acceptor: t.Acceptor, Expires: t.Expires})
		if t.Revoked {
			b = Append(b, TokenRevoked{ID: t.ID})
		}
	}
	return b
}

func appendOverrides(b []byte, r config.Resource, o *overrides) []byte {
	if o == nil {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(o.byKey)) {
		b = Append(b, ConfigSet{Resource: r, Key: k, Value: o.byKey[k]})
	}
	return b
}

// shardOfName spreads names over the shards by their FNV-1a hash. Names that collide
// (see Colliding) are in the same shard. The hash has no random seed, since an image
// shares its shards with the next one.
func shardOfName[S string | []byte](name S) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(dotToUnderscore(name[i]))) * 16777619
	}
	return int((h ^ h>>16) % shards)
}

// shardOfID spreads ids over the shards by a byte of their random part.
func shardOfID(id UUID) int { return int(id[15]) }
