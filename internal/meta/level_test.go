package meta

import (
	"bytes"
	"errors"
	"testing"
)

// TestLevelsAreKept proves that a record or a field which an older version does not know is
// refused until the level allows it, that it survives a snapshot from then on, and that a
// cluster of the first level has the bytes that the first release wrote.
func TestLevelsAreKept(t *testing.T) {
	id := UUID{1, 15: 2}
	later := []Record{
		BrokerRegistered{Broker{ID: 1, Epoch: 1, Directory: UUID{3}}},
		TopicCreated{ID: id, Name: "t", Follows: true},
		TopicChanged{ID: id, Follows: true},
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

	m, _, err := Apply(old, Append(nil, FeatureSet{Name: LevelFeature, Level: LatestLevel}))
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
	for _, m := range []*Image{m, again} {
		if m.Brokers[1].Directory != (UUID{3}) || !m.TopicByID(id).Follows || m.Topic("old").Follows {
			t.Errorf("directory %v, follows %v", m.Brokers[1].Directory, m.TopicByID(id).Follows)
		}
	}
	if m, _, err = Apply(m, Append(nil, TopicChanged{ID: id})); err != nil || m.TopicByID(id).Follows {
		t.Errorf("it still follows: %v", err)
	}
	if _, _, err = Apply(m, Append(nil, TopicChanged{ID: UUID{8}})); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a topic that is not there: %v", err)
	}
}
