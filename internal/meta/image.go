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
	acls            *ACLs  // nil: none
	credentials     *Credentials
	quotas          *Quotas
	delegations     *DelegationTokens
	authority       *Authority           // nil: none
	securing        *Securing            // nil: none
	links           *Links               // nil: none
	access          map[UUID]*LinkAccess // what links have made, by their ids; nil: nothing

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
	Mirror  *Mirror // nil: it has never mirrored another one

	overrides *overrides // nil: none
	settings  *settingsCache
}

// Internal tells whether the topic is the cluster's own (__consumer_offsets and the like).
func (t *Topic) Internal() bool { return InternalTopic(t.Name) }

// AuditTopic is the topic in which nodes record who did what. Kafka has none. Only nodes write to it, and nobody deletes it.
const AuditTopic = "__leat_audit"

// InternalTopic tells whether a topic of this name is the cluster's own: Kafka calls it internal, or it is AuditTopic.
func InternalTopic(name string) bool {
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state", AuditTopic:
		return true
	}
	return false
}

// IsMirror tells whether the topic mirrors another one, so that clients cannot write to it and add no partitions. The partitions of a topic that is being promoted
// end that one by one: see Partition.IsMirror.
func (t *Topic) IsMirror() bool { return t.Mirror != nil && t.Mirror.State != MirrorPromoted }

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

	Mirror *PartitionMirror // nil: it has never mirrored another one
}

// IsMirror tells whether the partition mirrors another one, so that clients cannot write to it.
func (p *Partition) IsMirror() bool { return p.Mirror != nil && p.Mirror.State != PartitionPromoted }

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

// Mirrors iterates over the topics that mirror by a link, or have mirrored by it and were promoted, in no order. It looks at all topics.
func (m *Image) Mirrors(link UUID) iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for t := range m.Topics() {
			if t.Mirror != nil && t.Mirror.Link == link && !yield(t) {
				return
			}
		}
	}
}

// hasMirrors tells whether a topic mirrors, or has mirrored.
func hasMirrors(m *Image) bool {
	for t := range m.Topics() {
		if t.Mirror != nil {
			return true
		}
	}
	return false
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

// ACLs are the ACLs of the image; nil: there are none.
func (m *Image) ACLs() *ACLs { return m.acls }

// Credentials are the SCRAM credentials of the image; never nil.
func (m *Image) Credentials() *Credentials { return m.credentials }

// DelegationTokens are the delegation tokens of the image; never nil.
func (m *Image) DelegationTokens() *DelegationTokens { return m.delegations }

// Authority is the certificate authority; nil: the cluster has none, since it is not secured.
func (m *Image) Authority() *Authority { return m.authority }

// Securing says how far the cluster is secured while it runs; nil: nobody has begun that.
func (m *Image) Securing() *Securing { return m.securing }

// PeerSecurity is how other nodes talk to a node: as it has registered, or with TLS if it has become ready for that since.
func (m *Image) PeerSecurity(b *Broker) SecurityProtocol {
	registered := b.Listeners[0].Security
	if registered == Plaintext && m.securing.isReady(b.ID) {
		return SASLSSL
	}
	return registered
}

// Links are the links of the image; nil: there are none.
func (m *Image) Links() *Links { return m.links }

// Quotas are the quotas of the image; never nil.
func (m *Image) Quotas() *Quotas { return m.quotas }

// Delta is the difference between two images. A change of a topic's configs is in
// Configs only. A change of what a topic or a partition mirrors is in Topics.
type Delta struct {
	Topics   map[UUID]TopicChange         // topics that were made, changed or deleted
	Deleted  []UUID                       // topics that a record deleted, also those that were made in the same step
	Configs  map[config.Resource]struct{} // resources whose configs changed
	Brokers  bool                         // a broker changed
	Nodes    bool                         // a node was admitted or removed, or a token changed
	Security bool                         // an ACL, a credential, a delegation token, the certificate authority or Securing changed
	Quotas   bool                         // a quota changed

	DelegationTokens bool // a delegation token changed

	Links map[UUID]LinkChange // links that were made, changed or removed; nil: none
}

// TopicChange is a topic before and after a change. Old is nil if the topic was made,
// New is nil if it was deleted.
type TopicChange struct{ Old, New *Topic }

// Diff returns the Delta between two images. It is for a snapshot, which replaces an
// image as a whole.
func Diff(from, to *Image) *Delta {
	d := &Delta{Topics: map[UUID]TopicChange{}, Configs: map[config.Resource]struct{}{}}
	for t := range to.Topics() {
		if old := from.TopicByID(t.ID); old == nil || !slices.EqualFunc(old.Partitions, t.Partitions, samePartition) || !old.Mirror.Equal(t.Mirror) {
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
	d.Security = !slices.Equal(from.acls.sorted(), to.acls.sorted()) || !from.credentials.equal(to.credentials) || !from.authority.equal(to.authority) || !from.securing.equal(to.securing)
	d.DelegationTokens = !from.delegations.equal(to.delegations)
	d.Security = d.Security || d.DelegationTokens
	d.Quotas = !from.quotas.equal(to.quotas)
	d.noteLinks(from.links, to.links)
	return d
}

// noteLink enters a change into the delta. If the link has changed in this step before, the old one stays that of before the step.
func (d *Delta) noteLink(id UUID, before, after *Link) {
	if d.Links == nil {
		d.Links = map[UUID]LinkChange{}
	}
	if c, ok := d.Links[id]; ok {
		before = c.Old
	}
	d.Links[id] = LinkChange{Old: before, New: after}
}

// noteLinks enters the differences between the links of two images.
func (d *Delta) noteLinks(from, to *Links) {
	for _, k := range to.All() {
		if old := from.Find(k.ID); !old.Equal(k) {
			d.noteLink(k.ID, old, k)
		}
	}
	for _, k := range from.All() {
		if to.Find(k.ID) == nil {
			d.noteLink(k.ID, k, nil)
		}
	}
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
		slices.Equal(a.Eligible, b.Eligible) && slices.Equal(a.LastEligible, b.LastEligible) && a.Mirror.Equal(b.Mirror)
}

// Empty returns the image before the first record.
func Empty() *Image {
	return &Image{serverSettings: &serverCache{}, plainSettings: &settingsCache{}, credentials: &Credentials{}, quotas: &Quotas{}, delegations: &DelegationTokens{}}
}

// Encode encodes the whole image as records: Apply(Empty(), Encode(m)) equals m.
// Equal images encode to equal bytes. Brokers come before topics, so that a
// registration finds no partition whose leader epoch it would raise, nodes before tokens,
// so that the removal of one revokes none, and links before the topics that mirror by them.
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
	for _, l := range m.links.All() {
		b = appendAccess(Append(b, LinkSet{*l}), l.ID, m.access[l.ID])
	}
	topics := slices.SortedFunc(m.Topics(), func(x, y *Topic) int { return bytes.Compare(x.ID[:], y.ID[:]) })
	for _, t := range topics {
		b = Append(b, TopicCreated{ID: t.ID, Name: t.Name, Follows: t.Follows})
		if len(t.Partitions) > 0 {
			b = Append(b, PartitionsSet{Topic: t.ID, Partitions: t.Partitions})
		}
		b = appendMirror(b, t)
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
	for _, a := range m.acls.sorted() {
		b = Append(b, ACLSet{a})
	}
	if m.credentials.Secret != ([32]byte{}) {
		b = Append(b, SecretSet(m.credentials.Secret))
	}
	for _, c := range m.credentials.sorted() {
		b = Append(b, CredentialSet{*c})
	}
	if b = appendDelegations(appendQuotas(b, m.quotas), m.delegations); m.authority != nil {
		b = Append(b, AuthoritySet{*m.authority})
	}
	if m.securing != nil {
		b = Append(b, SecuringSet{*m.securing})
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

// appendMirror appends the records of what a topic and its partitions mirror.
func appendMirror(b []byte, t *Topic) []byte {
	if t.Mirror == nil {
		return b
	}
	b = Append(b, MirrorSet{Topic: t.ID, Mirror: t.Mirror})
	for i := range t.Partitions {
		if p := t.Partitions[i].Mirror; p != nil {
			b = Append(b, PartitionMirrorSet{Topic: t.ID, Partition: int32(i), PartitionMirror: *p})
		}
	}
	return b
}

// appendQuotas appends the records of all quotas.
func appendQuotas(b []byte, q *Quotas) []byte {
	for _, e := range q.Sorted() {
		set := q.ByEntity[e]
		for _, key := range slices.Sorted(maps.Keys(set)) {
			b = Append(b, QuotaSet{Entity: e, Key: key, Value: set[key]})
		}
	}
	return b
}

// appendDelegations appends the records of all delegation tokens.
func appendDelegations(b []byte, l *DelegationTokens) []byte {
	for _, t := range l.Sorted() {
		b = Append(b, DelegationTokenMade{*t})
	}
	return b
}

// shardOfID spreads ids over the shards by a byte of their random part.
func shardOfID(id UUID) int { return int(id[15]) }
