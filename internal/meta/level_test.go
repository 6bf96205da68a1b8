package meta

import (
	"bytes"
	"errors"
	"testing"

	"github.com/leatstream/leat/internal/credential"
)

// TestLevelsAreKept proves that a record or a field which an older version does not know is
// refused until the level allows it, that it survives a snapshot from then on, and that a
// cluster of the first level has the bytes that the first release wrote.
func TestLevelsAreKept(t *testing.T) {
	id := UUID{1, 15: 2}
	later := []Record{
		BrokerRegistered{Broker{ID: 1, Epoch: 1, RecordedEpoch: 1}},
		BrokerRegistered{Broker{ID: 1, Epoch: 1, Directory: UUID{3}}},
		BrokerRegistered{Broker{ID: 1, Epoch: 1, Directory: UUID{3}, RaftID: 5}},
		TopicCreated{ID: id, Name: "t", Follows: true},
		TopicChanged{ID: id, Follows: true},
		NodeAdmitted{ID: 1, Key: credential.PublicKey{1}},
		NodeAdmitted{ID: 2, Key: credential.PublicKey{2}},
		NodeRemoved{ID: 2},
		TokenMade{ID: credential.TokenID{1}},
		TokenRevoked{ID: credential.TokenID{1}},
		TokenForgotten{ID: credential.TokenID{1}},
		NodeAdmitted{ID: 3, Key: credential.PublicKey{3}, Ends: 1},
		NodeForgotten{ID: 3},
		ACLSet{acl("User:alice", "orders")},
		ACLSet{acl("User:bob", "orders")},
		ACLUnset{acl("User:alice", "orders")},
		CredentialSet{scramOf("alice", 1)},
		CredentialSet{scramOf("bob", 1)},
		CredentialUnset{CredentialOwner{"alice", ScramSHA256}},
		BrokerRegistered{Broker{ID: 1, Epoch: 1, Directory: UUID{3}, RaftID: 5, Generation: 7}},
		DirectoryWritten{ID: 1, Epoch: 1, Generation: 8},
		QuotaSet{QuotaEntity{User: NamedQuota("alice")}, ProducerByteRate, 10},
		QuotaSet{QuotaEntity{IP: NamedQuota("")}, ConnectionRate, 5},
		QuotaUnset{QuotaEntity{User: NamedQuota("alice")}, ProducerByteRate},
		ACLSet{roleOf("User:alice", "orders", ReaderRole)},
		ACLSet{roleOf("Group:team", "orders", AdminRole)},
		ACLUnset{roleOf("User:alice", "orders", ReaderRole)},
		DelegationTokenMade{delegationToken(1)},
		DelegationTokenMade{delegationToken(2)},
		DelegationTokenExpirySet{ID: UUID{15: 1}, Expires: 150},
		DelegationTokenRemoved{ID: UUID{15: 2}},
		AuthoritySet{Authority{Number: 1, Round: 1, Certificates: [][]byte{{1}}, SealedKey: []byte{2}}},
		SecuringSet{Securing{State: SecuringOpen, KeyID: [8]byte{1}, Super: "admin", Ready: []int32{1}}},
		LinkSet{linkOf(1, "north")},
		LinkSet{linkOf(2, "south")},
		LinkACLSet{linkOf(1, "north").ID, LinkACL{acl("User:alice", "orders"), true}},
		LinkACLSet{linkOf(1, "north").ID, LinkACL{acl("User:bob", "orders"), false}},
		LinkACLUnset{linkOf(1, "north").ID, acl("User:bob", "orders")},
		LinkQuotaSet{linkOf(1, "north").ID, QuotaID{QuotaEntity{User: NamedQuota("alice")}, ProducerByteRate}, 10},
		LinkQuotaSet{linkOf(1, "north").ID, QuotaID{QuotaEntity{User: NamedQuota("bob")}, ProducerByteRate}, 10},
		LinkQuotaUnset{linkOf(1, "north").ID, QuotaID{QuotaEntity{User: NamedQuota("bob")}, ProducerByteRate}},
		LinkRemoved{ID: linkOf(2, "south").ID},
		PartitionsSet{Topic: id, Partitions: []Partition{{Replicas: []int32{1}}}},
		MirrorSet{id, mirrorOf(1)},
		PartitionMirrorSet{id, 0, PartitionMirror{State: PartitionMirrors}},
	}
	made := Append(nil, TopicCreated{ID: UUID{9}, Name: "old"})
	made = Append(made, BrokerRegistered{Broker{ID: 1, Epoch: 1}})
	old, _, err := Apply(Empty(), made)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range later {
		if _, _, err := Apply(old, Append(nil, r)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%T at level %d: %v", r, old.Level(), err)
		}
	}
	first := Append(nil, BrokerEpochGiven{Epoch: 1})
	first = Append(first, BrokerRegistered{Broker{ID: 1, Epoch: 1}})
	first = Append(first, TopicCreated{ID: UUID{9}, Name: "old"})
	if got := Encode(old); !bytes.Equal(got, first) {
		t.Errorf("a snapshot at level %d is % x, and was % x", old.Level(), got, first)
	}

	m, _, err := Apply(old, AppendLevel(nil, LevelFeature, LatestLevel))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range later {
		if m, _, err = Apply(m, Append(nil, r)); err != nil {
			t.Fatalf("%T: %v", r, err)
		}
	}
	again, _, err := Apply(Empty(), Encode(m))
	if err != nil {
		t.Fatal(err)
	}
	if old.Brokers[1].RecordedEpoch != 0 || m.Brokers[1].RecordedEpoch != 0 {
		t.Errorf("a node that was not active since has recorded epochs %d and %d", old.Brokers[1].RecordedEpoch, m.Brokers[1].RecordedEpoch)
	}
	for _, m := range []*Image{m, again} {
		if m.Brokers[1].Directory != (UUID{3}) || m.Brokers[1].RaftID != 5 || m.Brokers[1].Generation != 8 || !m.TopicByID(id).Follows || m.Topic("old").Follows ||
			m.ACLs().Len() != 2 || m.ACLs().Roles() != 1 || !m.ACLs().Has(acl("User:bob", "orders")) || !m.ACLs().Has(roleOf("Group:team", "orders", AdminRole)) || len(m.Credentials().ByOwner) != 1 || len(m.Quotas().ByEntity) != 1 ||
			m.DelegationTokens().Len() != 1 || m.DelegationTokens().Find(UUID{15: 1}).Expires != 150 || m.Authority() == nil || m.Securing() == nil ||
			m.Links().Len() != 1 || !m.TopicByID(id).IsMirror() || !m.TopicByID(id).Partitions[0].IsMirror() {
			t.Errorf("directory %v, raft's id %d, follows %v", m.Brokers[1].Directory, m.Brokers[1].RaftID, m.TopicByID(id).Follows)
		}
	}
	activated := Append(nil, BrokerChanged{ID: 1, Epoch: 1, State: BrokerActive})
	if old, _, err = Apply(old, activated); err != nil || old.Brokers[1].RecordedEpoch != 0 {
		t.Errorf("at level %d: %+v, %v", old.Level(), old.Brokers[1], err)
	}
	if m, _, err = Apply(m, activated); err != nil || m.Brokers[1].RecordedEpoch != 1 {
		t.Errorf("at level %d: %+v, %v", m.Level(), m.Brokers[1], err)
	}
	if m, _, err = Apply(m, Append(nil, TopicChanged{ID: id})); err != nil || m.TopicByID(id).Follows {
		t.Errorf("it still follows: %v", err)
	}
	if _, _, err := Apply(m, AppendLevel(nil, LevelFeature, LevelFirst)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a level that goes back: %v", err)
	}
	if _, _, err = Apply(m, Append(nil, TopicChanged{ID: UUID{8}})); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a topic that is not there: %v", err)
	}
}

// TestUnknownLevelIsRefused proves that a level which this version does not know is refused as newer, in the
// log and in a snapshot, though all records can be read; and that the record which sets a level is of a
// kind that versions without levels refuse.
func TestUnknownLevelIsRefused(t *testing.T) {
	for _, r := range []Record{LevelSet{Level: LatestLevel + 1}, FeatureSet{Name: LevelFeature, Level: LatestLevel + 1}} {
		if _, _, err := Apply(Empty(), Append(nil, r)); !errors.Is(err, ErrNewer) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%T: %v", r, err)
		}
	}
	m, _, err := Apply(Empty(), Append(nil, FeatureSet{Name: LevelFeature, Level: LevelCluster}))
	if err != nil {
		t.Fatal(err)
	}
	const lastOfFirst = tagFeaturesChanged // the first release knows no later ones
	for name, records := range map[string][]byte{"log": AppendLevel(nil, LevelFeature, LevelCluster), "snapshot": Encode(m)} {
		unknown := false
		for rest := records; len(rest) > 0; {
			head := reader{b: rest}
			tag := head.readUvarint()
			head.readUvarint()
			n := head.readCount()
			unknown = unknown || tag > lastOfFirst
			rest = head.b[n:]
		}
		if !unknown {
			t.Errorf("the %s of a cluster with a level has records of the first release only: % x", name, records)
		}
	}
}
