package meta

import (
	"slices"
	"testing"
)

// TestForks proves that what is told of the forks of a promoted topic is read back, that only promoted ones have forks, and that nonsense is refused.
func TestForks(t *testing.T) {
	m := &Image{ClusterID: "here"}
	id := UUID{7, 15: 8}
	topic := &Topic{Mirror: &Mirror{State: MirrorPromoted, TopicID: id, Path: []string{"origin", "near"}}, Partitions: []Partition{
		{Mirror: &PartitionMirror{Lineages: []Lineage{{Cluster: "origin"}, {Cluster: "here", Epoch: 7, Start: 100}}}},
		{Mirror: &PartitionMirror{Lineages: []Lineage{{Cluster: "here", Epoch: 8}}}}, // nothing was mirrored before
		{}, // it was added later
		{Mirror: &PartitionMirror{Lineages: []Lineage{{Cluster: "origin"}, {Cluster: "other", Epoch: 9, Start: 3}}}},
		{Mirror: &PartitionMirror{Lineages: []Lineage{{Cluster: "here"}, {Cluster: "here", Epoch: 9, Start: 3}}}}, // it was to mirror, and was promoted before it did
	}}
	text := FormatForks(m, topic)
	forks, err := ParseForks(text)
	if want := []MirrorFork{{"near", id, 7, 100}, {"near", id, 8, 0}, {}, {}, {}}; err != nil || !slices.Equal(forks, want) {
		t.Errorf("%q: %v, %v", text, forks, err)
	}
	img := &Image{ClusterID: "here"}
	topic.Name = "t"
	img.byName[shardOfName("t")] = map[string]*Topic{"t": topic}
	for i := range topic.Partitions {
		if r := topic.Partitions[i].Mirror; r != nil {
			r.State = PartitionPromoted
		}
	}
	for p, want := range map[int32]int64{0: 100, 1: 0, 2: -1, 3: -1, 4: 3, 5: -1} {
		if begin, ok := ForkOf(img, "t", p); ok != (want >= 0) || ok && begin != want {
			t.Errorf("partition %d: %d, %v", p, begin, ok)
		}
	}
	if _, ok := ForkOf(img, "u", 0); ok {
		t.Error("a topic that is not there has a fork")
	}
	for _, state := range []MirrorState{MirrorActive, MirrorPaused, MirrorPromoting} {
		topic.Mirror = &Mirror{State: state, Path: []string{"origin"}}
		if text := FormatForks(m, topic); text != "" {
			t.Errorf("in state %d: %q", state, text)
		}
	}
	if text := FormatForks(m, &Topic{}); text != "" {
		t.Errorf("an ordinary topic: %q", text)
	}
	for _, text := range []string{"", "a@1", "a@1@1", "a@" + id.String() + "@1@-1", "a@" + id.String() + "@-1@1", "@" + id.String() + "@1@1", "a@x@1@1", "a@" + id.String() + "@1@1,", "a@" + id.String() + "@9999999999@1", "a@" + id.String() + "@1@1@1"} {
		if forks, err := ParseForks(text); err == nil {
			t.Errorf("%q is read as %v", text, forks)
		}
	}
}
