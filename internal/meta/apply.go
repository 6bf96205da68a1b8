package meta

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/leatstream/leat/internal/config"
)

// step builds the next image by copy on write. It may change only the structures
// that it has copied or made itself; all others are shared with the image before.
type step struct {
	index     uint64 // of the entry; 0 if it is not in the log
	m         *Image // the next image
	delta     *Delta
	topics    map[UUID]*topicCopy            // the step's own copies
	overrides map[config.Resource]*overrides // the step's own copies
	grants    map[string]*Grants             // the step's own copies, by principal
	access    map[UUID]*accessCopy           // the step's own copies, by link

	// copied tells which maps of the image are the step's own copies by now.
	copied struct {
		brokers, nodes, configs, features, credentials, quotas, delegations bool
		names, ids                                                          [shards]bool
		acls                                                                [aclShards]bool
		delegationShards                                                    [delegationShards]bool
	}
}

// topicCopy is a topic that this step has copied or made, and may change.
type topicCopy struct {
	topic            *Topic
	before           *Topic // in the image before; nil if the topic was made in this step
	partitionsCopied bool   // topic.Partitions is the step's own, too
}

// ApplyAt decodes the records of one entry of the metadata log and applies them to
// m; index is the entry's. It applies all of them or none: with an error, which is
// ErrNewer, ErrOlder or ErrCorrupt, it returns m.
func ApplyAt(m *Image, index uint64, entry []byte) (*Image, *Delta, error) {
	next := *m
	s := step{
		index:     index,
		m:         &next,
		delta:     &Delta{Topics: map[UUID]TopicChange{}, Configs: map[config.Resource]struct{}{}},
		topics:    map[UUID]*topicCopy{},
		overrides: map[config.Resource]*overrides{},
	}
	if err := decodeEach(entry, s.applyRecord); err != nil {
		return m, nil, err
	}
	return &next, s.delta, nil
}

// Apply is ApplyAt for records that are not in the log: a snapshot, or a decision
// that is tried out before it is proposed.
func Apply(m *Image, entry []byte) (*Image, *Delta, error) { return ApplyAt(m, 0, entry) }

func (s *step) applyRecord(rec Record) error {
	switch r := rec.(type) {
	case ClusterCreated:
		return s.createCluster(r)
	case BrokerRegistered:
		return s.registerBroker(r.Broker)
	case BrokerUnregistered:
		return s.unregisterBroker(r.ID)
	case BrokerEpochGiven:
		s.m.lastBrokerEpoch = max(s.m.lastBrokerEpoch, r.Epoch)
	case BrokerChanged:
		return s.changeBroker(r)
	case DirectoryWritten:
		return raiseGeneration(s, r)
	case TopicCreated:
		return s.createTopic(r)
	case TopicChanged:
		return s.changeTopic(r)
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
		if r.Next < s.m.nextProducerID {
			return fmt.Errorf("producer ids go back from %d to %d", s.m.nextProducerID, r.Next)
		}
		s.m.nextProducerID = r.Next
	case FeatureSet:
		return s.setFeature(r)
	case LevelSet:
		return s.setFeature(FeatureSet{Name: LevelFeature, Level: r.Level})
	case FeaturesChanged:
		s.m.featuresEpoch = max(s.m.featuresEpoch, r.Epoch)
	default:
		return applyMemberRecord(s, rec)
	}
	return nil
}

// applyMemberRecord applies a record of nodes, tokens, ACLs, credentials, quotas, delegation tokens, the certificate authority and of securing: of who may be
// in the cluster, what for, and how much of it.
func applyMemberRecord(s *step, rec Record) error {
	switch r := rec.(type) {
	case NodeForgotten:
		return s.forgetNode(r.ID)
	case NodeAdmitted:
		return s.admitNode(r)
	case NodeRemoved:
		return s.removeNode(r.ID)
	case TokenMade:
		return s.makeToken(r)
	case TokenRevoked:
		return s.revokeToken(r.ID)
	case TokenForgotten:
		return s.forgetToken(r.ID)
	case ACLSet:
		return s.setACL(r.ACL)
	case ACLUnset:
		return s.unsetACL(r.ACL)
	case CredentialSet:
		return s.setCredential(r.ScramCredential)
	case CredentialUnset:
		return s.unsetCredential(r.CredentialOwner)
	case QuotaSet:
		return setQuota(s, r)
	case QuotaUnset:
		return unsetQuota(s, r)
	case DelegationTokenMade:
		return makeDelegationToken(s, r.DelegationToken)
	case DelegationTokenExpirySet:
		return setDelegationExpiry(s, r)
	case DelegationTokenRemoved:
		return removeDelegationToken(s, r.ID)
	case AuthoritySet:
		return setAuthority(s, r)
	case SecuringSet:
		return setSecuring(s, r)
	default:
		return applyLinkRecord(s, rec)
	}
}

// applyLinkRecord applies a record of links and mirrors.
func applyLinkRecord(s *step, rec Record) error {
	switch r := rec.(type) {
	case LinkSet:
		return setLink(s, r.Link)
	case LinkRemoved:
		return removeLink(s, r.ID)
	case MirrorSet:
		return setMirror(s, r)
	case PartitionMirrorSet:
		return setPartitionMirror(s, r)
	case LinkACLSet:
		return setLinkACL(s, r)
	case LinkACLUnset:
		return unsetLinkACL(s, r)
	case LinkQuotaSet:
		return setLinkQuota(s, r)
	case LinkQuotaUnset:
		return unsetLinkQuota(s, r)
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
	if s.m.links.Len() > 0 || hasMirrors(s.m) { // nobody has looked whether they lead to this cluster
		return fmt.Errorf("cluster %s is created after its links", r.ID)
	}
	s.m.ClusterID, s.m.Tag = r.ID, r.Tag
	return nil
}

// copyBrokers gives the step its own map of brokers, once a step.
func (s *step) copyBrokers() {
	if !s.copied.brokers {
		s.copied.brokers = true
		s.m.Brokers = cloneMap(s.m.Brokers)
	}
}

func (s *step) registerBroker(b Broker) error {
	if err := b.check(); err != nil {
		return err
	}
	if b.Directory != (UUID{}) || b.RecordedEpoch != 0 || b.RaftID != 0 {
		if err := s.requireCluster(); err != nil {
			return err
		}
	}
	if b.Generation != 0 {
		if err := s.requireLevel(LevelGeneration); err != nil {
			return err
		}
	}
	old := s.m.Brokers[b.ID]
	if old != nil && b.Epoch < old.Epoch {
		return fmt.Errorf("broker %d goes back from epoch %d to %d", b.ID, old.Epoch, b.Epoch)
	}
	s.copyBrokers()
	s.delta.Brokers = true
	s.m.Brokers[b.ID] = &b
	s.keepNode(b.ID)
	s.m.lastBrokerEpoch = max(s.m.lastBrokerEpoch, b.Epoch)
	if b.State == BrokerFenced || old != nil && old.State != BrokerFenced && old.Incarnation == b.Incarnation {
		return nil
	}
	return s.raiseLeaderEpochs(b.ID)
}

func (s *step) changeBroker(r BrokerChanged) error {
	old := s.m.Brokers[r.ID]
	if old == nil || old.Epoch != r.Epoch {
		return fmt.Errorf("broker %d is not registered with epoch %d", r.ID, r.Epoch)
	}
	b := *old
	b.State = r.State
	if r.State == BrokerActive && s.m.Level() >= LevelCluster {
		b.RecordedEpoch = b.Epoch
	}
	s.copyBrokers()
	s.delta.Brokers = true
	s.m.Brokers[r.ID] = &b
	if old.State != BrokerFenced || r.State == BrokerFenced {
		return nil
	}
	return s.raiseLeaderEpochs(r.ID)
}

// raiseGeneration is no change of the brokers for who follows the image: see Broker.equal.
func raiseGeneration(s *step, r DirectoryWritten) error {
	if err := s.requireLevel(LevelGeneration); err != nil {
		return err
	}
	old := s.m.Brokers[r.ID]
	if old == nil || old.Epoch != r.Epoch || r.Generation <= old.Generation {
		return fmt.Errorf("the directory of broker %d with epoch %d has generation %d, and its registration is %+v", r.ID, r.Epoch, r.Generation, old)
	}
	b := *old
	b.Generation = r.Generation
	s.copyBrokers()
	s.m.Brokers[r.ID] = &b
	return nil
}

// raiseLeaderEpochs raises the leader epoch of all partitions that a broker leads. It
// is called when the broker begins to serve: an earlier process of it may have
// appended in the present epoch, or the partition may have changed while the broker
// was fenced.
func (s *step) raiseLeaderEpochs(id int32) error {
	led := func(p Partition) bool { return p.Leader == id }
	for t := range s.m.Topics() {
		if !slices.ContainsFunc(t.Partitions, led) {
			continue
		}
		t = s.copyPartitions(t.ID)
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
	s.copyBrokers()
	s.delta.Brokers = true
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
	if r.Follows {
		if err := s.requireCluster(); err != nil {
			return err
		}
	}
	t := &Topic{Name: r.Name, ID: r.ID, Follows: r.Follows, settings: &settingsCache{}}
	s.topics[t.ID] = &topicCopy{topic: t, partitionsCopied: true}
	s.putTopic(t)
	s.m.topics++
	s.noteTopic(t.ID, nil, t)
	return nil
}

func (s *step) changeTopic(r TopicChanged) error {
	if err := s.requireCluster(); err != nil {
		return err
	}
	c := s.copyTopic(r.ID)
	if c == nil {
		return fmt.Errorf("topic %x is not there", r.ID)
	}
	c.topic.Follows = r.Follows
	return nil
}

// putTopic enters a topic into the shards of its name and its id.
func (s *step) putTopic(t *Topic) {
	i, j := s.copyShards(t)
	s.m.byName[i][t.Name] = t
	s.m.byID[j][t.ID] = t
}

// copyShards gives the step its own copies of a topic's shards, once a step, and
// returns which they are.
func (s *step) copyShards(t *Topic) (name, id int) {
	name, id = shardOfName(t.Name), shardOfID(t.ID)
	if !s.copied.names[name] {
		s.copied.names[name] = true
		s.m.byName[name] = cloneMap(s.m.byName[name])
	}
	if !s.copied.ids[id] {
		s.copied.ids[id] = true
		s.m.byID[id] = cloneMap(s.m.byID[id])
	}
	return name, id
}

// noteTopic enters a change into the delta. If the topic has changed in this step
// before, the old state stays that of before the step.
func (s *step) noteTopic(id UUID, before, after *Topic) {
	if c, ok := s.delta.Topics[id]; ok {
		before = c.Old
	}
	s.delta.Topics[id] = TopicChange{Old: before, New: after}
}

// copyTopic returns the step's own copy of a topic, made once a step, or nil if there
// is no such topic. The copy shares its partitions with the original.
func (s *step) copyTopic(id UUID) *topicCopy {
	if o := s.topics[id]; o != nil {
		return o
	}
	t := s.m.TopicByID(id)
	if t == nil {
		return nil
	}
	c := *t
	o := &topicCopy{topic: &c, before: t}
	s.topics[id] = o
	s.putTopic(&c)
	return o
}

// copyPartitions is copyTopic for a change of partitions: it copies those too, once a
// step, and enters the topic into the delta.
func (s *step) copyPartitions(id UUID) *Topic {
	o := s.copyTopic(id)
	if o == nil {
		return nil
	}
	if !o.partitionsCopied {
		o.partitionsCopied = true
		o.topic.Partitions = slices.Clone(o.topic.Partitions)
		s.noteTopic(id, o.before, o.topic)
	}
	return o.topic
}

func (s *step) setPartitions(r PartitionsSet) error {
	t := s.copyPartitions(r.Topic)
	if t == nil {
		return fmt.Errorf("partitions of a topic that is not there: %x", r.Topic)
	}
	first := int(r.First)
	if first > len(t.Partitions) {
		return fmt.Errorf("topic %q: partition %d follows %d", t.Name, first, len(t.Partitions)-1)
	}
	for i := first; i < min(len(t.Partitions), first+len(r.Partitions)); i++ {
		if err := checkEpochsRise(t, i, r.Partitions[i-first].LeaderEpoch, r.Partitions[i-first].PartitionEpoch); err != nil {
			return err
		}
	}
	for i := range r.Partitions {
		if r.Partitions[i].Mirror = nil; first+i < len(t.Partitions) {
			r.Partitions[i].Mirror = t.Partitions[first+i].Mirror
		}
	}
	n := copy(t.Partitions[first:], r.Partitions)
	t.Partitions = append(t.Partitions, r.Partitions[n:]...)
	s.m.partitions += len(r.Partitions) - n
	return nil
}

func (s *step) changePartition(r PartitionChanged) error {
	t := s.copyPartitions(r.Topic)
	if t == nil || int(r.Partition) >= len(t.Partitions) {
		return fmt.Errorf("partition %d of topic %x is not there", r.Partition, r.Topic)
	}
	if err := checkEpochsRise(t, int(r.Partition), r.LeaderEpoch, r.PartitionEpoch); err != nil {
		return err
	}
	p := &t.Partitions[r.Partition]
	p.ISR, p.Leader, p.LeaderEpoch, p.PartitionEpoch = r.ISR, r.Leader, r.LeaderEpoch, r.PartitionEpoch
	p.Eligible, p.LastEligible = r.Eligible, r.LastEligible
	return nil
}

// checkEpochsRise refuses a change of a partition unless its partition epoch is larger
// than the partition's, and its leader epoch is not smaller.
func checkEpochsRise(t *Topic, partition int, leaderEpoch, partitionEpoch int32) error {
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
	i, j := s.copyShards(t)
	delete(s.m.byName[i], t.Name)
	delete(s.m.byID[j], id)
	before := t
	if o := s.topics[id]; o != nil {
		before = o.before
		delete(s.topics, id)
	}
	s.m.topics--
	s.m.partitions -= len(t.Partitions)
	s.delta.Deleted = append(s.delta.Deleted, id)
	if before == nil && s.delta.Topics[id].Old == nil { // made in this very step
		delete(s.delta.Topics, id)
	} else {
		s.noteTopic(id, before, nil)
	}
	if t.overrides != nil {
		r := config.Resource{Type: config.Topic, Name: t.Name}
		s.m.configBytes -= ConfigBytes(r, t.overrides.byKey)
		s.delta.Configs[r] = struct{}{}
		delete(s.overrides, r)
	}
	return nil
}

// setConfig sets a config, or removes it if value is nil.
func (s *step) setConfig(r config.Resource, key string, value *string) error {
	if key == "" {
		return fmt.Errorf("a config without a name on %v %q", r.Type, r.Name)
	}
	o, err := s.copyOverrides(r)
	if err != nil {
		return err
	}
	before := len(o.byKey)
	if old, had := o.byKey[key]; had {
		s.m.configBytes -= oneConfigBytes(r, key, old)
	}
	if value != nil {
		o.byKey[key] = *value
		s.m.configBytes += oneConfigBytes(r, key, *value)
	} else {
		delete(o.byKey, key)
	}
	switch after := len(o.byKey); {
	case before == 0 && after > 0:
		s.m.configBytes += resourceCost
	case before > 0 && after == 0:
		s.m.configBytes -= resourceCost
	}
	if len(o.byKey) == 0 { // an empty set is not kept, so that equal images encode alike
		delete(s.overrides, r)
		o = nil
	}
	s.enterOverrides(r, o)
	s.delta.Configs[r] = struct{}{}
	return nil
}

// copyOverrides returns the step's own copy of a resource's overrides, made once a
// step.
func (s *step) copyOverrides(r config.Resource) (*overrides, error) {
	if o := s.overrides[r]; o != nil {
		return o, nil
	}
	old := s.m.configs[r]
	if r.Type == config.Topic {
		t := s.m.Topic(r.Name)
		if t == nil {
			return nil, fmt.Errorf("configs of a topic that is not there: %q", r.Name)
		}
		old = t.overrides
	}
	o := &overrides{byKey: map[string]string{}}
	if old != nil {
		maps.Copy(o.byKey, old.byKey)
	}
	s.overrides[r] = o
	return o, nil
}

// enterOverrides sets a resource's overrides in the image; nil removes them.
func (s *step) enterOverrides(r config.Resource, o *overrides) {
	if r.Type == config.Topic {
		t := s.copyTopic(s.m.Topic(r.Name).ID).topic
		t.overrides, t.settings = o, &settingsCache{}
		return
	}
	if !s.copied.configs {
		s.copied.configs = true
		s.m.configs = cloneMap(s.m.configs)
	}
	if o == nil {
		delete(s.m.configs, r)
		return
	}
	s.m.configs[r] = o
}

func (s *step) setFeature(r FeatureSet) error {
	if r.Name == LevelFeature {
		if err := s.checkNextLevel(r.Level); err != nil {
			return err
		}
	}
	if !s.copied.features {
		s.copied.features = true
		s.m.features = cloneMap(s.m.features)
	}
	s.m.featuresEpoch = max(s.m.featuresEpoch, s.index)
	if r.Level == 0 {
		delete(s.m.features, r.Name)
		return nil
	}
	s.m.features[r.Name] = r.Level
	return nil
}

// cloneMap copies a map. The copy of nil is an empty map.
func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m)+1)
	maps.Copy(c, m)
	return c
}

// copyGrants gives the step its own copy of a principal's ACLs, once a step.
func (s *step) copyGrants(principal string) *Grants {
	if g := s.grants[principal]; g != nil {
		return g
	}
	if s.grants == nil {
		s.grants = map[string]*Grants{}
		next := ACLs{}
		if s.m.acls != nil {
			next = *s.m.acls
		}
		s.m.acls = &next
	}
	shard := shardOfPrincipal(principal)
	if !s.copied.acls[shard] {
		s.copied.acls[shard] = true
		s.m.acls.byPrincipal[shard] = cloneMap(s.m.acls.byPrincipal[shard])
	}
	g := &Grants{}
	if old := s.m.acls.byPrincipal[shard][principal]; old != nil {
		g.ACLs = slices.Clone(old.ACLs)
	}
	s.grants[principal] = g
	s.delta.Security = true
	return g
}

func (s *step) setACL(a ACL) error {
	if err := s.requireLevel(a.leastLevel()); err != nil {
		return err
	}
	if !a.IsComplete() {
		return fmt.Errorf("an ACL lacks a value: %+v", a)
	}
	g := s.copyGrants(a.Principal)
	at, found := slices.BinarySearchFunc(g.ACLs, a, compareACLs)
	if found {
		return fmt.Errorf("an ACL is set again: %+v", a)
	}
	g.ACLs = slices.Insert(g.ACLs, at, a)
	s.m.acls.byPrincipal[shardOfPrincipal(a.Principal)][a.Principal] = g
	s.m.acls.n++
	s.m.acls.bytes += ACLBytes(&a)
	if a.Operation.IsRole() {
		s.m.acls.roles++
	}
	return nil
}

func (s *step) unsetACL(a ACL) error {
	if err := s.requireLevel(a.leastLevel()); err != nil {
		return err
	}
	g := s.copyGrants(a.Principal)
	at, found := slices.BinarySearchFunc(g.ACLs, a, compareACLs)
	if !found {
		return fmt.Errorf("an ACL is unset that is not there: %+v", a)
	}
	g.ACLs = slices.Delete(g.ACLs, at, at+1)
	shard := s.m.acls.byPrincipal[shardOfPrincipal(a.Principal)]
	shard[a.Principal] = g
	s.m.acls.bytes -= ACLBytes(&a)
	if a.Operation.IsRole() {
		s.m.acls.roles--
	}
	if s.m.acls.n--; len(g.ACLs) == 0 { // no empty one is kept
		delete(shard, a.Principal)
		delete(s.grants, a.Principal)
	}
	return nil
}

// copyCredentials gives the step its own map of credentials, once a step.
func (s *step) copyCredentials() map[CredentialOwner]*ScramCredential {
	if !s.copied.credentials {
		s.copied.credentials = true
		s.m.credentials = &Credentials{ByOwner: cloneMap(s.m.credentials.ByOwner), Secret: s.m.credentials.Secret}
	}
	s.delta.Security = true
	return s.m.credentials.ByOwner
}

func (s *step) setCredential(c ScramCredential) error {
	if err := s.requireLevel(LevelSecurity); err != nil {
		return err
	}
	n := c.Mechanism.KeyBytes()
	if c.User == "" || n == 0 || len(c.Salt) == 0 || len(c.StoredKey) != n || len(c.ServerKey) != n || c.Iterations <= 0 {
		return fmt.Errorf("a credential of user %q for mechanism %d lacks a value", c.User, c.Mechanism)
	}
	if c.CredentialOwner == secretOwner() {
		if len(c.Salt) != len(Credentials{}.Secret) {
			return fmt.Errorf("the secret of the credentials has %d bytes", len(c.Salt))
		}
		s.copyCredentials()
		s.m.credentials.Secret = [32]byte(c.Salt)
		return nil
	}
	s.copyCredentials()[c.CredentialOwner] = &c
	return nil
}

func (s *step) unsetCredential(o CredentialOwner) error {
	if err := s.requireLevel(LevelSecurity); err != nil {
		return err
	}
	if s.m.credentials.ByOwner[o] == nil {
		return fmt.Errorf("a credential of user %q for mechanism %d is unset, and is not there", o.User, o.Mechanism)
	}
	delete(s.copyCredentials(), o)
	return nil
}

// copyQuotas gives the step its own map of entities, once a step.
func copyQuotas(s *step) map[QuotaEntity]map[QuotaKey]float64 {
	if !s.copied.quotas {
		s.copied.quotas = true
		s.m.quotas = &Quotas{ByEntity: cloneMap(s.m.quotas.ByEntity)}
	}
	s.delta.Quotas = true
	return s.m.quotas.ByEntity
}

func setQuota(s *step, r QuotaSet) error {
	if err := s.requireLevel(LevelQuotas); err != nil {
		return err
	}
	if !r.Entity.HasKey(r.Key) || !(r.Value > 0) || math.IsInf(r.Value, 1) {
		return fmt.Errorf("a quota %s of %v for %+v", r.Key, r.Value, r.Entity)
	}
	all := copyQuotas(s)
	set := maps.Clone(all[r.Entity]) // that of the image before stays as it is
	if set == nil {
		set = map[QuotaKey]float64{}
	}
	set[r.Key] = r.Value
	all[r.Entity] = set
	return nil
}

func unsetQuota(s *step, r QuotaUnset) error {
	if err := s.requireLevel(LevelQuotas); err != nil {
		return err
	}
	if _, ok := s.m.quotas.ByEntity[r.Entity][r.Key]; !ok {
		return fmt.Errorf("a quota %s for %+v is unset, and is not there", r.Key, r.Entity)
	}
	all := copyQuotas(s)
	set := maps.Clone(all[r.Entity])
	if delete(set, r.Key); len(set) == 0 {
		delete(all, r.Entity)
	} else {
		all[r.Entity] = set
	}
	return nil
}

// copyDelegations gives the step its own copy of the map with a token, once a step.
func copyDelegations(s *step, id UUID) map[UUID]*DelegationToken {
	if !s.copied.delegations {
		s.copied.delegations = true
		next := *s.m.delegations
		s.m.delegations = &next
	}
	at := shardOfDelegation(id)
	if !s.copied.delegationShards[at] {
		s.copied.delegationShards[at] = true
		s.m.delegations.shards[at] = &DelegationShard{ByID: cloneMap(s.m.delegations.shards[at].tokens())}
	}
	s.delta.Security, s.delta.DelegationTokens = true, true
	return s.m.delegations.shards[at].ByID
}

func makeDelegationToken(s *step, t DelegationToken) error {
	if err := s.requireLevel(LevelIdentity); err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	if s.m.delegations.Find(t.ID) != nil {
		return fmt.Errorf("delegation token %s is made again", t.ID)
	}
	copyDelegations(s, t.ID)[t.ID] = &t
	s.m.delegations.n++
	s.m.delegations.bytes += t.Bytes()
	return nil
}

func setDelegationExpiry(s *step, r DelegationTokenExpirySet) error {
	if err := s.requireLevel(LevelIdentity); err != nil {
		return err
	}
	old := s.m.delegations.Find(r.ID)
	if old == nil {
		return fmt.Errorf("delegation token %s gets another end, and is not there", r.ID)
	}
	t := *old
	t.Expires = r.Expires
	if err := t.check(); err != nil {
		return err
	}
	copyDelegations(s, t.ID)[t.ID] = &t
	return nil
}

func removeDelegationToken(s *step, id UUID) error {
	if err := s.requireLevel(LevelIdentity); err != nil {
		return err
	}
	old := s.m.delegations.Find(id)
	if old == nil {
		return fmt.Errorf("delegation token %s is removed, and is not there", id)
	}
	delete(copyDelegations(s, id), id)
	s.m.delegations.n--
	s.m.delegations.bytes -= old.Bytes()
	return nil
}

// setAuthority makes the authority of a record the present one.
func setAuthority(s *step, r AuthoritySet) error {
	if err := s.requireLevel(LevelIdentity); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if old := s.m.authority; old != nil && (r.Number < old.Number || r.Round <= old.Round) {
		return fmt.Errorf("the certificate authority goes back from %d, round %d, to %d, round %d", old.Number, old.Round, r.Number, r.Round)
	}
	s.m.authority = &r.Authority
	s.delta.Security = true
	return nil
}

// setSecuring makes the Securing of a record the present one. It never goes back from the last state.
func setSecuring(s *step, r SecuringSet) error {
	if err := s.requireLevel(LevelSecuring); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if s.m.authority == nil {
		return errors.New("securing without a certificate authority")
	}
	if old := s.m.securing; old != nil && (old.State == SecuringFinished && r.State != SecuringFinished || old.HasUser && !r.HasUser || old.KeyID != r.KeyID) {
		return fmt.Errorf("securing goes back from %+v to %+v", *old, r.Securing)
	}
	s.m.securing = &r.Securing
	s.delta.Security = true
	return nil
}
