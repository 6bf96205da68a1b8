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
		if m.Brokers[1].Directory != (UUID{3}) || m.Brokers[1].RaftID != 5 || !m.TopicByID(id).Follows || m.Topic("old").Follows {
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
