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
