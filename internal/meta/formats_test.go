package meta

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
)

// TestRecordsKeepTheirFormat proves that each kind of record has the bytes that it had when
// its format was promised, and that they are read as what they were. A line here never
// changes; a new field or version gets a line of its own.
func TestRecordsKeepTheirFormat(t *testing.T) {
	topic := UUID{1, 2, 3, 15: 16}
	seen := map[uint64]bool{}
	for _, c := range []struct {
		want Record
		hex  string
	}{
		{ClusterCreated{ID: "cluster", Tag: 7}, "01010907636c757374657207"},
		{BrokerRegistered{Broker{
			ID: 1, Epoch: 300, Incarnation: UUID{9}, State: BrokerFenced, Rack: "r",
			Listeners: []Listener{{Name: "PLAINTEXT", Host: "h", Port: 9092, Security: 0}},
			Features:  []FeatureRange{{Name: "f", Min: 1, Max: 25}},
		}}, "02012d02d80409000000000000000000000000000000000172010f09504c41494e544558540168844700010401660232"},
		{BrokerUnregistered{ID: 1}, "03010102"},
		{TopicCreated{ID: topic, Name: "t"}, "040112010203000000000000000000000000100174"},
		{PartitionsSet{Topic: topic, First: 2, Partitions: []Partition{
			{Replicas: []int32{1, 2}, ISR: []int32{1}, Leader: 1, LeaderEpoch: 3, PartitionEpoch: 4},
			{
				Replicas: []int32{1}, ISR: []int32{1}, Leader: -1, LeaderEpoch: 3, PartitionEpoch: 4,
				Adding: []int32{5}, Removing: []int32{6}, Eligible: []int32{7}, LastEligible: []int32{8},
			},
		}}, "05012b0102030000000000000000000000001002020802020401020206080f01020102010608010a010c010e0110"},
		{PartitionChanged{
			Topic: topic, Partition: 1, ISR: []int32{1}, Leader: 1, LeaderEpoch: 5, PartitionEpoch: 6, Eligible: []int32{2}, LastEligible: []int32{3},
		}, "06011a01020300000000000000000000000010010102020a0c01040106"},
		{TopicDeleted{ID: topic}, "07011001020300000000000000000000000010"},
		{ConfigSet{Resource: config.Resource{Type: config.Topic, Name: "t"}, Key: "k", Value: "v"}, "080107020174016b0176"},
		{ConfigUnset{Resource: config.Resource{Type: config.Topic, Name: "t"}, Key: "k"}, "090105020174016b"},
		{ProducerIDsGiven{Next: 1 << 40}, "0a0106808080808040"},
		{FeatureSet{Name: "metadata.version", Level: 25}, "0b0112106d657461646174612e76657273696f6e32"},
		{BrokerEpochGiven{Epoch: 300}, "0c0102d804"},
		{BrokerChanged{ID: 1, Epoch: 300, State: BrokerActive}, "0d010402d80401"},
		{FeaturesChanged{Epoch: 42}, "0e01012a"},
		{BrokerRegistered{Broker{ID: 1, Epoch: 3, Directory: UUID{7, 15: 9}}}, "0201260206000000000000000000000000000000000000000007000000000000000000000000000009"},
		{BrokerRegistered{Broker{ID: 1, Epoch: 3, RecordedEpoch: 2}}, "020127020600000000000000000000000000000000000000000000000000000000000000000000000004"},
		{BrokerRegistered{Broker{ID: 1, Epoch: 3, RaftID: 1 << 63}}, "02012f0206000000000000000000000000000000000000000000000000000000000000000000000000008000000000000000"},
		{BrokerRegistered{Broker{ID: 1, Epoch: 3, Generation: 300}}, "0201310206000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000d804"},
		{DirectoryWritten{ID: 1, Epoch: 300, Generation: 7}, "1b010402d8040e"},
		{TopicCreated{ID: topic, Name: "t", Follows: true}, "04011301020300000000000000000000000010017401"},
		{TopicChanged{ID: topic}, "0f01110102030000000000000000000000001000"},
		{LevelSet{Level: 1}, "10010102"},
		{TopicChanged{ID: topic, Follows: true}, "0f01110102030000000000000000000000001001"},
		{NodeAdmitted{ID: 300, Key: credential.PublicKey{1, 31: 2}, Directory: UUID{3, 15: 4}}, "110132d804010000000000000000000000000000000000000000000000000000000000000203000000000000000000000000000004"},
		{NodeRemoved{ID: 300}, "120102d804"},
		{TokenMade{ID: credential.TokenID{1, 7: 2}, Key: credential.PublicKey{3, 31: 4}, Acceptor: [32]byte{5, 31: 6}, Expires: 1_800_000_000_000}, "13014e01000000000000020300000000000000000000000000000000000000000000000000000000000004050000000000000000000000000000000000000000000000000000000000000680c0e285e368"},
		{TokenRevoked{ID: credential.TokenID{1, 7: 2}}, "1401080100000000000002"},
		{NodeForgotten{7}, "1601010e"},
		{TokenForgotten{ID: credential.TokenID{1, 7: 2}}, "1501080100000000000002"},
		{ACLSet{ACL{Principal: "User:a", Host: "*", Resource: TopicResource, Pattern: LiteralPattern, Name: "t", Operation: Read, Permission: Allow}}, "17010f06557365723a61012a020301740303"},
		{ACLUnset{ACL{Principal: "User:a", Host: "h", Resource: GroupResource, Pattern: PrefixedPattern, Name: "g", Operation: TwoPhaseCommit, Permission: Deny}}, "18010f06557365723a610168030401670f02"},
		{ACLSet{ACL{Principal: "Group:g", Host: "*", Resource: TopicResource, Pattern: PrefixedPattern, Name: "t", Operation: WriterRole, Permission: Allow}}, "1701100747726f75703a67012a020401746603"},
		{CredentialSet{ScramCredential{CredentialOwner{"a", ScramSHA256}, []byte{1}, []byte{2}, []byte{3}, 4096}}, "19010b0161010101010201038020"},
		{CredentialUnset{CredentialOwner{"a", ScramSHA512}}, "1a0103016102"},
		{QuotaSet{QuotaEntity{User: NamedQuota("a"), ClientID: NamedQuota("")}, ProducerByteRate, 1.5}, "1c0122010161010000001270726f64756365725f627974655f726174653ff8000000000000"},
		{AuthoritySet{Authority{Number: 1, Round: 300, Certificates: [][]byte{{1, 2}, {3}}, Cross: []byte{4}, SealedKey: []byte{5, 6}}}, "21010e01ac0202" + "020102" + "0103" + "0104" + "020506"},
		{AuthoritySet{Authority{Number: 2, Round: 3, Certificates: [][]byte{{1}}, SealedKey: []byte{5}}}, "210108" + "0203010101000105"},
		{SecuringSet{Securing{State: SecuringObserved, KeyID: [8]byte{1, 7: 2}, Super: "a", HasUser: true, Ready: []int32{1, 300}}}, "220110" + "02" + "0100000000000002" + "0161" + "01" + "02" + "02d804"},
		{SecuringSet{Securing{State: SecuringOpen, KeyID: [8]byte{9}, Super: "b"}}, "22010d" + "01" + "0900000000000000" + "0162" + "00" + "00"},
		{QuotaUnset{QuotaEntity{IP: NamedQuota("::1")}, ConnectionRate}, "1d0122000000000103" + "3a3a31" + "18636f6e6e656374696f6e5f6372656174696f6e5f72617465"},
		{DelegationTokenMade{DelegationToken{
			ID: UUID{1, 15: 2}, Owner: "User:a", Requester: "User:b", Renewers: []string{"User:c", "User:d"}, Issued: 1000, MaxTime: 3000, Expires: 2000, KeyCheck: 0xbeef,
		}}, "1e01360100000000000000000000000000000206557365723a6106557365723a620206557365723a6306557365723a64d00ff02ea01feffd02"},
		{DelegationTokenExpirySet{ID: UUID{1, 15: 2}, Expires: 2500}, "1f0112010000000000000000000000000000028827"},
		{DelegationTokenRemoved{ID: UUID{1, 15: 2}}, "20011001000000000000000000000000000002"},
		{LinkSet{Link{ID: UUID{1, 15: 2}, Name: "l", Source: "c", Settings: []LinkSetting{{"a", "b"}, {Key: "k"}}, Secret: []byte{5, 6}, Paused: true}}, "23012201000000000000000000000000000002016c016302040161016203016b0002050601"},
		{LinkSet{Link{
			ID: UUID{1, 15: 2}, Name: "l", Settings: []LinkSetting{{"via", "agent"}},
			Agents: []LinkAgent{{Token: [8]byte{1, 7: 2}, Key: [32]byte{3, 31: 4}, Acceptor: [32]byte{5, 31: 6}, Expires: 1000, Holder: [32]byte{7, 31: 8}}},
		}}, "23018d0101000000000000000000000000000002016c00010a03766961056167656e740000016a010000000000000203000000000000000000000000000000000000000000000000000000000000040500000000000000000000000000000000000000000000000000000000000006d00f0700000000000000000000000000000000000000000000000000000000000008"},
		{LinkSet{Link{ID: UUID{1, 15: 2}, Name: "l", Source: "c"}}, "23011701000000000000000000000000000002016c0163000000"},
		{LinkRemoved{UUID{1, 15: 2}}, "24011001000000000000000000000000000002"},
		{MirrorSet{topic, &Mirror{Link: UUID{1, 15: 2}, Topic: "s", TopicID: UUID{3, 15: 4}, Path: []string{"a", "c"}, State: MirrorPaused}}, "2501380102030000000000000000000000001001000000000000000000000000000002017303000000000000000000000000000004020161016302"},
		{MirrorSet{Topic: topic}, "25011001020300000000000000000000000010"},
		{PartitionMirrorSet{topic, 300, PartitionMirror{
			State: PartitionGap, Reason: "why", Gap: OffsetRange{100, 900}, Lineages: []Lineage{{"a", 3, 0}, {"c", 5, 100}}, Cuts: []Cut{{7, 100}},
		}}, "26012c01020300000000000000000000000010ac0202037768790204016106000501630ac80101030ec801c801880e"},
		{PartitionMirrorSet{topic, 300, PartitionMirror{
			State: PartitionTombstonesLost, Gap: OffsetRange{100, 900}, Begin: MirrorBegin{true, 70, UUID{3, 15: 4}}, TombstonesSince: 1000,
		}}, "26012f01020300000000000000000000000010ac0203000000c801880e018c0103000000000000000000000000000004d00f"},
		{PartitionMirrorSet{topic, 300, PartitionMirror{
			State: PartitionPromoting, IsDecided: true, Decisions: []MirrorDecision{{7000, 4, 5, 100, true, 2}, {Producer: 9, Epoch: 1, MarkerEpoch: 2, First: -1, Outcome: 5}},
		}}, "26013d01020300000000000000000000000010ac0209000000000000000000000000000000000000000000000000010208b06d080ac801010206120204010005"},
		{PartitionMirrorSet{topic, 300, PartitionMirror{State: PartitionPromoted, IsDecided: true}}, "26012d01020300000000000000000000000010ac020a0000000000000000000000000000000000000000000000000100"},
		{LinkACLSet{UUID{1, 15: 2}, LinkACL{ACL{Principal: "User:a", Host: "*", Resource: TopicResource, Pattern: LiteralPattern, Name: "t", Operation: Read, Permission: Allow}, true}}, "2701200100000000000000000000000000000206557365723a61012a02030174030301"},
		{LinkACLUnset{UUID{1, 15: 2}, ACL{Principal: "User:a", Host: "*", Resource: TopicResource, Pattern: LiteralPattern, Name: "t", Operation: Read, Permission: Allow}}, "28011f0100000000000000000000000000000206557365723a61012a020301740303"},
		{LinkQuotaSet{UUID{1, 15: 2}, QuotaID{QuotaEntity{User: NamedQuota("a"), ClientID: NamedQuota("")}, ProducerByteRate}, 1.5}, "29013201000000000000000000000000000002010161010000001270726f64756365725f627974655f726174653ff8000000000000"},
		{LinkQuotaUnset{UUID{1, 15: 2}, QuotaID{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate}}, "2a012a01000000000000000000000000000002010161000000001270726f64756365725f627974655f72617465"},
		{PartitionMirrorSet{topic, 300, PartitionMirror{State: PartitionPromoted, Parting: &Parting{PartitionGap, 100, 900, 5000, 1000, 700, 1100}}}, "26013b01020300000000000000000000000010ac020a00000000000000000000000000000000000000000000000000000d02c801880e904ed00ff80a9811"},
		{PartitionMirrorSet{topic, 300, PartitionMirror{State: PartitionPromoted, Parting: &Parting{SourceEnd: -1, Bytes: -1}}}, "26013501020300000000000000000000000010ac020a00000000000000000000000000000000000000000000000000000700000101000000"},
		{PartitionMirrorSet{Topic: topic, PartitionMirror: PartitionMirror{State: PartitionMirrors}}, "260115010203000000000000000000000000100001000000"},
	} {
		seen[c.want.recordTag()] = true
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(Append(nil, c.want)); got != c.hex {
			t.Errorf("%T is written as %s, and was %s", c.want, got, c.hex)
		}
		err = decodeEach(b, func(got Record) error {
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%T is read otherwise: (-was +is)\n%s", c.want, diff)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%T: %v", c.want, err)
		}
	}
	for tag := uint64(1); tag <= lastTag; tag++ {
		if !seen[tag] {
			t.Errorf("no line for records with tag %d", tag)
		}
	}
}
