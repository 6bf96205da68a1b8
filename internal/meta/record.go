package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

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
	maxTokenRenewers      = 1024    // principals that may renew a delegation token

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
	tagACLSet             = 23
	tagACLUnset           = 24
	tagCredentialSet      = 25
	tagCredentialUnset    = 26
	tagDirectoryWritten   = 27
	tagQuotaSet           = 28
	tagQuotaUnset         = 29

	tagDelegationTokenMade      = 30
	tagDelegationTokenExpirySet = 31
	tagDelegationTokenRemoved   = 32

	tagAuthoritySet = 33
	tagSecuringSet  = 34

	tagLinkSet            = 35
	tagLinkRemoved        = 36
	tagMirrorSet          = 37
	tagPartitionMirrorSet = 38
	tagLinkACLSet         = 39
	tagLinkACLUnset       = 40
	tagLinkQuotaSet       = 41
	tagLinkQuotaUnset     = 42

	lastTag = tagLinkQuotaUnset
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

// DirectoryWritten raises Broker.Generation of a registered node; Epoch is that of its registration. It needs
// LevelGeneration.
type DirectoryWritten struct {
	ID         int32
	Epoch      int64
	Generation int64
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
// another must have a larger partition epoch. The record has no Partition.Mirror: a partition that
// replaces another keeps that of the other.
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

// ACLSet adds an ACL. It needs LevelSecurity, as all records of ACLs and credentials.
type ACLSet struct{ ACL }

// ACLUnset removes an ACL.
type ACLUnset struct{ ACL }

// CredentialSet gives a user a SCRAM credential, or replaces it.
type CredentialSet struct{ ScramCredential }

// CredentialUnset removes a SCRAM credential.
type CredentialUnset struct{ CredentialOwner }

// SecretSet is the record that sets Credentials.Secret. It has the form of a credential, so that it needs no level of its own.
func SecretSet(secret [32]byte) CredentialSet {
	none := make([]byte, ScramSHA256.KeyBytes())
	return CredentialSet{ScramCredential{CredentialOwner: secretOwner(), Salt: secret[:], StoredKey: none, ServerKey: none, Iterations: 1}}
}

// QuotaSet sets a quota of an entity. It needs LevelQuotas.
type QuotaSet struct {
	Entity QuotaEntity
	Key    QuotaKey
	Value  float64 // more than 0
}

// QuotaUnset removes a quota of an entity. It needs LevelQuotas.
type QuotaUnset struct {
	Entity QuotaEntity
	Key    QuotaKey
}

// DelegationTokenMade makes a delegation token. It needs LevelIdentity, as all records of delegation tokens.
type DelegationTokenMade struct{ DelegationToken }

// DelegationTokenExpirySet moves the end of a delegation token.
type DelegationTokenExpirySet struct {
	ID      UUID
	Expires int64 // ms since 1970
}

// DelegationTokenRemoved removes a delegation token.
type DelegationTokenRemoved struct{ ID UUID }

// Authority is the cluster's own certificate authority: see package authority. It never changes, so that an equal pointer means an equal one. Its
// certificates are public, and its key is sealed by a key that the metadata do not have.
type Authority struct {
	Number       uint32   // of the key; each new key has the next one, from 1 on
	Round        uint32   // rises with each change, from 1 on; nodes have certificates of the present round
	Certificates [][]byte // DER; that of the key first, then those that are trusted beside it
	Cross        []byte   // DER: the key's certificate, signed by an older authority; empty: there is none
	SealedKey    []byte
}

// Limits of an Authority.
const (
	maxAuthorityCertificates = 4
	maxAuthorityBytes        = 8 << 10 // of each of its parts
)

func (a *Authority) equal(o *Authority) bool {
	if a == nil || o == nil {
		return a == o
	}
	return a.Number == o.Number && a.Round == o.Round && slices.EqualFunc(a.Certificates, o.Certificates, bytes.Equal) &&
		bytes.Equal(a.Cross, o.Cross) && bytes.Equal(a.SealedKey, o.SealedKey)
}

func (a *Authority) check() error {
	parts := append(slices.Clone(a.Certificates), a.SealedKey)
	isEmpty := slices.ContainsFunc(parts, func(b []byte) bool { return len(b) == 0 })
	isLong := slices.ContainsFunc(append(parts, a.Cross), func(b []byte) bool { return len(b) > maxAuthorityBytes })
	if a.Number == 0 || a.Round == 0 || len(a.Certificates) == 0 || len(a.Certificates) > maxAuthorityCertificates || isEmpty || isLong {
		return fmt.Errorf("certificate authority %d, round %d, has %d certificates, or lacks a part, or has one that is too long", a.Number, a.Round, len(a.Certificates))
	}
	return nil
}

// AuthoritySet makes or replaces the certificate authority. It needs LevelIdentity.
type AuthoritySet struct{ Authority }

// Securing says how far a cluster that was plain is secured while it runs. It never changes, so that an equal pointer means an equal one.
// A cluster that was secured at its first start has an Authority, and no Securing.
type Securing struct {
	State SecuringState
	KeyID [8]byte // the sealing key by which the key of the authority was sealed at the beginning; another one may have taken its place
	Super string  // the super user, without "User:"
	// HasUser tells that the super user was made by this. Before that nobody can log in.
	HasUser bool
	// Ready are the nodes that have said that they have the sealing key and a certificate, and take connections with TLS, in order.
	// A node that has started since then has also registered its listeners with SASLSSL.
	Ready []int32
}

// SecuringState says which connections nodes take, and what ACLs decide.
//
//	no Securing: plain connections; no ACLs, or what each node's settings say
//	    |
//	    | leat secure, or leat secure --observe
//	    v
//	SecuringOpen <---leat secure, leat secure --observe---> SecuringObserved
//	    |  both: plain connections and those with TLS, whose clients log in; nothing is denied.     |
//	    |  SecuringObserved: what ACLs would deny is noted                                         |
//	    '---------------------------- leat secure --finish ----------------------------------------'
//	                                          |
//	                                          v
//	                                  SecuringFinished: connections with TLS only; ACLs decide
//
// A node that is not in Ready yet takes plain connections only, in both of the states between. The last step needs all nodes to be ready.
type SecuringState uint8

// The states. 0 stands for a cluster without a Securing.
const (
	SecuringOpen SecuringState = iota + 1
	SecuringObserved
	SecuringFinished
)

const (
	maxReadyNodes = 10_000
	maxSuperUser  = 1024 // bytes
)

// SecuringSet replaces the Securing of the cluster. It needs LevelSecuring.
type SecuringSet struct{ Securing }

// isReady tells whether a node has said that it takes connections with TLS.
func (g *Securing) isReady(id int32) bool {
	if g == nil {
		return false
	}
	_, found := slices.BinarySearch(g.Ready, id)
	return found
}

// IsReady tells whether a node has what it needs to be secured.
func (g *Securing) IsReady(b *Broker) bool {
	return g.isReady(b.ID) || len(b.Listeners) > 0 && b.Listeners[0].Security == SASLSSL
}

// WithReady is the same with one more node that is ready.
func (g *Securing) WithReady(id int32) Securing {
	next := *g
	next.Ready = slices.Clone(g.Ready)
	if at, found := slices.BinarySearch(next.Ready, id); !found {
		next.Ready = slices.Insert(next.Ready, at, id)
	}
	return next
}

func (g *Securing) equal(o *Securing) bool {
	if g == nil || o == nil {
		return g == o
	}
	return g.State == o.State && g.KeyID == o.KeyID && g.Super == o.Super && g.HasUser == o.HasUser && slices.Equal(g.Ready, o.Ready)
}

func (g *Securing) check() error {
	switch {
	case g.State < SecuringOpen || g.State > SecuringFinished:
		return fmt.Errorf("state %d of securing", g.State)
	case g.Super == "" || len(g.Super) > maxSuperUser:
		return fmt.Errorf("a super user with a name of %d bytes", len(g.Super))
	case g.State == SecuringFinished && !g.HasUser:
		return errors.New("securing is finished, and there is no user")
	case len(g.Ready) > maxReadyNodes || !slices.IsSorted(g.Ready):
		return fmt.Errorf("%d nodes that are ready, or not in order", len(g.Ready))
	}
	return nil
}

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
func (DirectoryWritten) recordTag() uint64   { return tagDirectoryWritten }
func (FeaturesChanged) recordTag() uint64    { return tagFeaturesChanged }
func (NodeAdmitted) recordTag() uint64       { return tagNodeAdmitted }
func (NodeForgotten) recordTag() uint64      { return tagNodeForgotten }
func (NodeRemoved) recordTag() uint64        { return tagNodeRemoved }
func (TokenMade) recordTag() uint64          { return tagTokenMade }
func (TokenRevoked) recordTag() uint64       { return tagTokenRevoked }
func (TokenForgotten) recordTag() uint64     { return tagTokenForgotten }
func (ACLSet) recordTag() uint64             { return tagACLSet }
func (ACLUnset) recordTag() uint64           { return tagACLUnset }
func (CredentialSet) recordTag() uint64      { return tagCredentialSet }
func (CredentialUnset) recordTag() uint64    { return tagCredentialUnset }
func (QuotaSet) recordTag() uint64           { return tagQuotaSet }
func (QuotaUnset) recordTag() uint64         { return tagQuotaUnset }
func (AuthoritySet) recordTag() uint64       { return tagAuthoritySet }

func (DelegationTokenMade) recordTag() uint64      { return tagDelegationTokenMade }
func (DelegationTokenExpirySet) recordTag() uint64 { return tagDelegationTokenExpirySet }
func (DelegationTokenRemoved) recordTag() uint64   { return tagDelegationTokenRemoved }

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
	if r.Directory != (UUID{}) || r.RecordedEpoch != 0 || r.RaftID != 0 || r.Generation != 0 {
		b = append(b, r.Directory[:]...)
	}
	if r.RecordedEpoch != 0 || r.RaftID != 0 || r.Generation != 0 {
		b = binary.AppendVarint(b, r.RecordedEpoch)
	}
	if r.RaftID != 0 || r.Generation != 0 {
		b = binary.BigEndian.AppendUint64(b, r.RaftID)
	}
	if r.Generation != 0 {
		b = binary.AppendVarint(b, r.Generation)
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

func (r DirectoryWritten) appendBody(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(b, int64(r.ID)), r.Epoch)
	return binary.AppendVarint(b, r.Generation)
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

func (r ACLSet) appendBody(b []byte) []byte   { return r.appendFields(b) }
func (r ACLUnset) appendBody(b []byte) []byte { return r.appendFields(b) }

func (a *ACL) appendFields(b []byte) []byte {
	b = appendText(appendText(b, a.Principal), a.Host)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(a.Resource)), uint64(a.Pattern))
	b = appendText(b, a.Name)
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(a.Operation)), uint64(a.Permission))
}

func (r CredentialSet) appendBody(b []byte) []byte {
	b = r.appendFields(b)
	b = appendText(b, string(r.Salt))
	b = appendText(appendText(b, string(r.StoredKey)), string(r.ServerKey))
	return binary.AppendUvarint(b, uint64(r.Iterations))
}

func (r CredentialUnset) appendBody(b []byte) []byte { return r.appendFields(b) }

func (o *CredentialOwner) appendFields(b []byte) []byte {
	return binary.AppendUvarint(appendText(b, o.User), uint64(o.Mechanism))
}

func (r QuotaSet) appendBody(b []byte) []byte {
	return binary.BigEndian.AppendUint64(appendText(r.Entity.appendFields(b), string(r.Key)), math.Float64bits(r.Value))
}

func (r QuotaUnset) appendBody(b []byte) []byte {
	return appendText(r.Entity.appendFields(b), string(r.Key))
}

func (e *QuotaEntity) appendFields(b []byte) []byte {
	for _, n := range []QuotaName{e.User, e.ClientID, e.IP} {
		b = appendText(appendBool(b, n.Is), n.Name)
	}
	return b
}

func (r DelegationTokenMade) appendBody(b []byte) []byte {
	b = appendText(appendText(append(b, r.ID[:]...), r.Owner), r.Requester)
	b = binary.AppendUvarint(b, uint64(len(r.Renewers)))
	for _, principal := range r.Renewers {
		b = appendText(b, principal)
	}
	b = binary.AppendVarint(binary.AppendVarint(b, r.Issued), r.MaxTime)
	return binary.AppendUvarint(binary.AppendVarint(b, r.Expires), uint64(r.KeyCheck))
}

func (r DelegationTokenExpirySet) appendBody(b []byte) []byte {
	return binary.AppendVarint(append(b, r.ID[:]...), r.Expires)
}

func (r DelegationTokenRemoved) appendBody(b []byte) []byte { return append(b, r.ID[:]...) }

func (r AuthoritySet) appendBody(b []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.Number)), uint64(r.Round))
	b = binary.AppendUvarint(b, uint64(len(r.Certificates)))
	for _, der := range r.Certificates {
		b = appendText(b, string(der))
	}
	return appendText(appendText(b, string(r.Cross)), string(r.SealedKey))
}

func (SecuringSet) recordTag() uint64 { return tagSecuringSet }

func (r SecuringSet) appendBody(b []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(r.State)), r.KeyID[:]...)
	b = appendBool(appendText(b, r.Super), r.HasUser)
	return appendIDs(b, r.Ready)
}

func (LinkSet) recordTag() uint64            { return tagLinkSet }
func (LinkRemoved) recordTag() uint64        { return tagLinkRemoved }
func (MirrorSet) recordTag() uint64          { return tagMirrorSet }
func (PartitionMirrorSet) recordTag() uint64 { return tagPartitionMirrorSet }
func (LinkACLSet) recordTag() uint64         { return tagLinkACLSet }
func (LinkACLUnset) recordTag() uint64       { return tagLinkACLUnset }
func (LinkQuotaSet) recordTag() uint64       { return tagLinkQuotaSet }
func (LinkQuotaUnset) recordTag() uint64     { return tagLinkQuotaUnset }

func (r LinkACLSet) appendBody(b []byte) []byte {
	return appendBool(r.appendFields(append(b, r.Link[:]...)), r.IsShared)
}

func (r LinkACLUnset) appendBody(b []byte) []byte { return r.appendFields(append(b, r.Link[:]...)) }

func (r LinkQuotaSet) appendBody(b []byte) []byte {
	b = appendText(r.Entity.appendFields(append(b, r.Link[:]...)), string(r.Key))
	return binary.BigEndian.AppendUint64(b, math.Float64bits(r.Value))
}

func (r LinkQuotaUnset) appendBody(b []byte) []byte {
	return appendText(r.Entity.appendFields(append(b, r.Link[:]...)), string(r.Key))
}

func (r LinkSet) appendBody(b []byte) []byte {
	b = appendText(appendText(append(b, r.ID[:]...), r.Name), r.Source)
	b = binary.AppendUvarint(b, uint64(len(r.Settings)))
	for i := range r.Settings {
		b = appendSized(b, r.Settings[i].appendFields)
	}
	b = appendBool(appendText(b, string(r.Secret)), r.Paused)
	if len(r.Agents) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(r.Agents)))
	for i := range r.Agents {
		b = appendSized(b, r.Agents[i].appendFields)
	}
	return b
}

func (a *LinkAgent) appendFields(b []byte) []byte {
	b = append(append(append(b, a.Token[:]...), a.Key[:]...), a.Acceptor[:]...)
	return append(binary.AppendVarint(b, a.Expires), a.Holder[:]...)
}

func (s *LinkSetting) appendFields(b []byte) []byte { return appendText(appendText(b, s.Key), s.Value) }

func (r LinkRemoved) appendBody(b []byte) []byte { return append(b, r.ID[:]...) }

func (r MirrorSet) appendBody(b []byte) []byte {
	b = append(b, r.Topic[:]...)
	if r.Mirror == nil {
		return b
	}
	b = append(b, r.Mirror.Link[:]...)
	b = append(appendText(b, r.Mirror.Topic), r.Mirror.TopicID[:]...)
	b = binary.AppendUvarint(b, uint64(len(r.Mirror.Path)))
	for _, id := range r.Mirror.Path {
		b = appendText(b, id)
	}
	return binary.AppendUvarint(b, uint64(r.Mirror.State))
}

func (r PartitionMirrorSet) appendBody(b []byte) []byte {
	b = binary.AppendUvarint(append(b, r.Topic[:]...), uint64(r.Partition))
	b = appendText(binary.AppendUvarint(b, uint64(r.State)), r.Reason)
	b = binary.AppendUvarint(b, uint64(len(r.Lineages)))
	for i := range r.Lineages {
		b = appendSized(b, r.Lineages[i].appendFields)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Cuts)))
	for i := range r.Cuts {
		b = appendSized(b, r.Cuts[i].appendFields)
	}
	hasMore := r.Begin != MirrorBegin{} || r.TombstonesSince != 0 || r.IsDecided || r.Parting != nil
	if r.Gap != (OffsetRange{}) || hasMore {
		b = binary.AppendVarint(binary.AppendVarint(b, r.Gap.Start), r.Gap.End)
	}
	if hasMore {
		b = binary.AppendVarint(appendBool(b, r.Begin.IsDecided), r.Begin.Offset)
		b = binary.AppendVarint(append(b, r.Begin.Topic[:]...), r.TombstonesSince)
	}
	if r.IsDecided || r.Parting != nil {
		b = binary.AppendUvarint(appendBool(b, r.IsDecided), uint64(len(r.Decisions)))
		for i := range r.Decisions {
			b = appendSized(b, r.Decisions[i].appendFields)
		}
	}
	if r.Parting != nil {
		b = appendSized(b, r.Parting.appendFields)
	}
	return b
}

func (p *Parting) appendFields(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(binary.AppendUvarint(b, uint64(p.State)), p.End), p.SourceEnd)
	return binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, p.Bytes), p.ContactMs), p.AsOfMs), p.BegunMs)
}

func (d *MirrorDecision) appendFields(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, d.Producer), int64(d.Epoch)), int64(d.MarkerEpoch))
	return binary.AppendUvarint(appendBool(binary.AppendVarint(b, d.First), d.Commit), uint64(d.Outcome))
}

func (l *Lineage) appendFields(b []byte) []byte {
	return binary.AppendVarint(binary.AppendVarint(appendText(b, l.Cluster), int64(l.Epoch)), l.Start)
}

func (c *Cut) appendFields(b []byte) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, int64(c.Number)), c.Offset)
}
