package meta

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is an image as plain as it can be: the records that still matter.
type model struct {
	topics  map[UUID]*modelTopic
	configs map[Resource]map[string]string
}

type modelTopic struct {
	name  string
	parts []Partition
}

func newModel() *model {
	return &model{topics: map[UUID]*modelTopic{}, configs: map[Resource]map[string]string{}}
}

// draw makes a record that fits the model and applies it there.
func (md *model) draw(t *rapid.T) Record {
	ids := slices.SortedFunc(maps.Keys(md.topics), func(a, b UUID) int { return bytes.Compare(a[:], b[:]) })
	kind := rapid.IntRange(0, 6).Draw(t, "kind")
	if len(ids) == 0 && kind != 5 {
		kind = 0
	}
	pick := func() UUID { return ids[rapid.IntRange(0, len(ids)-1).Draw(t, "topic")] }
	switch kind {
	case 0:
		id := UUID{1: rapid.Byte().Draw(t, "id1"), 15: byte(rapid.IntRange(0, 3).Draw(t, "id15")), 6: 4}
		name := fmt.Sprintf("t%d", rapid.IntRange(0, 30).Draw(t, "name"))
		for other, mt := range md.topics {
			if mt.name == name || other == id {
				return ConfigSet{Resource{GroupResource, "g"}, "k", md.set(Resource{GroupResource, "g"}, "k", name)}
			}
		}
		md.topics[id] = &modelTopic{name: name}
		return TopicCreated{ID: id, Name: name}
	case 1:
		id := pick()
		mt := md.topics[id]
		first := rapid.IntRange(0, len(mt.parts)).Draw(t, "first")
		run := rapid.SliceOfN(rapid.Custom(drawPartition), 1, 4).Draw(t, "run")
		mt.parts = slices.Concat(mt.parts[:first], run, mt.parts[min(len(mt.parts), first+len(run)):])
		return PartitionsSet{Topic: id, First: int32(first), Partitions: run}
	case 2:
		id := pick()
		if mt := md.topics[id]; len(mt.parts) > 0 {
			i := rapid.IntRange(0, len(mt.parts)-1).Draw(t, "partition")
			p := mt.parts[i]
			p.ISR, p.Leader = []int32{9}, 9
			p.LeaderEpoch++
			p.PartitionEpoch++
			mt.parts = slices.Clone(mt.parts)
			mt.parts[i] = p
			return PartitionChanged{id, int32(i), p.ISR, p.Leader, p.LeaderEpoch, p.PartitionEpoch}
		}
		fallthrough
	case 3:
		id := pick()
		delete(md.configs, Resource{TopicResource, md.topics[id].name})
		delete(md.topics, id)
		return TopicDeleted{ID: id}
	case 4:
		r := Resource{TopicResource, md.topics[pick()].name}
		k := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
		return ConfigSet{r, k, md.set(r, k, rapid.String().Draw(t, "value"))}
	case 5:
		r := Resource{BrokerResource, rapid.SampledFrom([]string{"", "0"}).Draw(t, "broker")}
		return ConfigSet{r, "c", md.set(r, "c", rapid.String().Draw(t, "value"))}
	default:
		r := Resource{TopicResource, md.topics[pick()].name}
		delete(md.configs[r], "a")
		if len(md.configs[r]) == 0 {
			delete(md.configs, r)
		}
		return ConfigUnset{r, "a"}
	}
}

func (md *model) set(r Resource, k, v string) string {
	if md.configs[r] == nil {
		md.configs[r] = map[string]string{}
	}
	md.configs[r][k] = v
	return v
}

func drawPartition(t *rapid.T) Partition {
	ids := rapid.SliceOfNDistinct(rapid.Int32Range(0, 9), 1, 3, rapid.ID)
	return Partition{
		Replicas:       ids.Draw(t, "replicas"),
		ISR:            ids.Draw(t, "isr"),
		Leader:         rapid.Int32Range(-1, 9).Draw(t, "leader"),
		LeaderEpoch:    rapid.Int32Range(0, 1<<20).Draw(t, "leader epoch"),
		PartitionEpoch: rapid.Int32Range(0, 1<<20).Draw(t, "partition epoch"),
	}
}

// check compares an image with the model through what users of an image call.
func (md *model) check(t *rapid.T, m *Image) {
	topics, partitions := map[UUID]*modelTopic{}, 0
	for mt := range m.Topics() {
		topics[mt.ID] = &modelTopic{mt.Name, mt.Partitions}
		partitions += len(mt.Partitions)
		if m.Topic(mt.Name) != mt || m.TopicByID(mt.ID) != mt || m.TopicBytes([]byte(mt.Name)) != mt {
			t.Fatalf("topic %q is not found by its name and id", mt.Name)
		}
	}
	if d := cmp.Diff(md.topics, topics, cmp.AllowUnexported(modelTopic{})); d != "" {
		t.Fatal(d)
	}
	if m.NumTopics() != len(topics) || m.NumPartitions() != partitions {
		t.Fatalf("%d topics and %d partitions are counted, there are %d and %d", m.NumTopics(), m.NumPartitions(), len(topics), partitions)
	}
	configs := map[Resource]map[string]string{}
	for _, typ := range []ResourceType{TopicResource, BrokerResource, GroupResource} {
		for name := range m.Configured(typ) {
			configs[Resource{typ, name}] = m.Overrides(Resource{typ, name})
		}
	}
	if d := cmp.Diff(md.configs, configs); d != "" {
		t.Fatal(d)
	}
}

// TestApplyIsTheModel proves, for random histories, that an image holds what its
// records say, that older images do not change when newer ones are made, that
// Encode loses nothing, and that the delta of a step is the difference it made.
func TestApplyIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		md, m := newModel(), Empty()
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			var entry []byte
			for range rapid.IntRange(1, 6).Draw(t, "records") {
				entry = Append(entry, md.draw(t))
			}
			before := Encode(m)
			next, delta, err := Apply(m, entry)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, Encode(m)) {
				t.Fatal("applying a step changed the image before it")
			}
			md.check(t, next)
			again, _, err := Apply(Empty(), Encode(next))
			if err != nil {
				t.Fatalf("an encoded image is refused: %v", err)
			}
			md.check(t, again)
			if !bytes.Equal(Encode(again), Encode(next)) {
				t.Fatal("encoding an image twice gives different bytes")
			}
			checkDelta(t, delta, Diff(m, next))
			m = next
		}
	})
}

// checkDelta wants everything that differs in the delta. The delta may hold more:
// what was changed and changed back.
func checkDelta(t *rapid.T, got, want *Delta) {
	for id, w := range want.Topics {
		g, ok := got.Topics[id]
		if !ok || g.New != w.New || (g.Old == nil) != (w.Old == nil) {
			t.Fatalf("delta of topic %v is %+v, want %+v", id, g, w)
		}
		if w.Old != nil && !slices.EqualFunc(g.Old.Partitions, w.Old.Partitions, samePartition) {
			t.Fatalf("delta's old topic has partitions %v, want %v", g.Old.Partitions, w.Old.Partitions)
		}
	}
	for r := range want.Configs {
		if _, ok := got.Configs[r]; !ok {
			t.Fatalf("delta lacks the configs of %v", r)
		}
	}
}

// TestRecordsRoundTrip proves that each record comes back from its bytes as it was.
func TestRecordsRoundTrip(t *testing.T) {
	id := UUID{1, 2, 3, 15: 9}
	long := make([]Partition, maxRun)
	for i := range long {
		long[i] = Partition{Replicas: []int32{1, 2}, ISR: []int32{1}, Leader: 1, LeaderEpoch: int32(i), PartitionEpoch: 7}
	}
	for _, r := range []Record{
		ClusterCreated{"MkU3OEVBNTcwNTJENDM2Qk", MaxTag},
		BrokerRegistered{Broker{ID: 3, Host: "h", Port: 9092, Rack: "r", Epoch: 1 << 40}},
		BrokerUnregistered{4},
		BrokerEpochGiven{99},
		TopicCreated{id, "a.topic"},
		PartitionsSet{Topic: id, First: 5, Partitions: []Partition{}},
		PartitionsSet{Topic: id, First: 5, Partitions: long},
		PartitionChanged{id, 3, []int32{1, 2, 3}, -1, 5, 6},
		TopicDeleted{id},
		ConfigSet{Resource{BrokerResource, ""}, "k", "v"},
		ConfigUnset{Resource{TopicResource, "t"}, "k"},
		ProducerIDsGiven{1000},
		FeatureSet{"metadata.version", 30},
	} {
		var got []Record
		if err := each(Append(nil, r), func(r Record) error { got = append(got, r); return nil }); err != nil {
			t.Errorf("%T: %v", r, err)
		}
		if d := cmp.Diff([]Record{r}, got); d != "" {
			t.Errorf("%T: %s", r, d)
		}
	}
}

// TestTrailingFieldsAreSkipped proves that a field added later to a record of the
// same version does not disturb this version.
func TestTrailingFieldsAreSkipped(t *testing.T) {
	b := Append(nil, BrokerRegistered{Broker{ID: 1, Host: "h"}})
	b[2] += 2 // its length
	b = append(b, 77, 78)
	b = Append(b, BrokerRegistered{Broker{ID: 2, Host: "g"}})
	m, _, err := Apply(Empty(), b)
	if err != nil || len(m.Brokers) != 2 || m.Brokers[1].Host != "h" {
		t.Fatalf("brokers %v, %v", m.Brokers, err)
	}
}

// TestNewerIsRefused proves that a record of a later version, or of a kind not
// known here, stops the program with a sentence instead of being misread.
func TestNewerIsRefused(t *testing.T) {
	for _, b := range [][]byte{{200, 1, 0, 0}, {tagTopicDeleted, 1, 0}} {
		if _, _, err := Apply(Empty(), b); !errors.Is(err, ErrNewer) {
			t.Errorf("% x: %v, want ErrNewer", b, err)
		}
	}
}

// TestApplyRefuses proves that records which do not fit the image are an error and
// leave it alone.
func TestApplyRefuses(t *testing.T) {
	id := UUID{15: 1}
	m, _, err := Apply(Empty(), Append(Append(nil, TopicCreated{id, "t"}),
		PartitionsSet{Topic: id, Partitions: []Partition{{LeaderEpoch: 4, PartitionEpoch: 4}}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{
		TopicCreated{UUID{15: 2}, "t"},
		TopicCreated{id, "u"},
		TopicCreated{UUID{}, "u"},
		TopicCreated{UUID{15: 2}, ""},
		TopicDeleted{UUID{15: 2}},
		PartitionsSet{Topic: id, First: 2, Partitions: make([]Partition, 1)},
		PartitionsSet{Topic: UUID{15: 2}, Partitions: make([]Partition, 1)},
		PartitionChanged{Topic: id, Partition: 1, PartitionEpoch: 9},
		PartitionChanged{Topic: id, PartitionEpoch: 4, LeaderEpoch: 4},
		PartitionChanged{Topic: id, PartitionEpoch: 5, LeaderEpoch: 3},
		ConfigSet{Resource{TopicResource, "u"}, "k", "v"},
		ConfigSet{Resource{GroupResource, "u"}, "", "v"},
		ConfigUnset{Resource{TopicResource, "u"}, "k"},
		BrokerUnregistered{7},
		BrokerRegistered{Broker{ID: -1}},
		ClusterCreated{"", 1},
		ClusterCreated{"x", 0},
		ClusterCreated{"x", MaxTag + 1},
		ProducerIDsGiven{-1},
	} {
		got, d, err := Apply(m, Append(nil, r))
		if !errors.Is(err, ErrCorrupt) || got != m || d != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// FuzzApply proves that no bytes make Apply panic, and that what it accepts it can
// encode and read back.
func FuzzApply(f *testing.F) {
	id := UUID{15: 1}
	b := Append(nil, ClusterCreated{"MkU3OEVBNTcwNTJENDM2Qk", 1})
	b = Append(b, TopicCreated{id, "t"})
	b = Append(b, PartitionsSet{Topic: id, Partitions: []Partition{{Replicas: []int32{0}, ISR: []int32{0}}}})
	b = Append(b, PartitionChanged{Topic: id, ISR: []int32{0}, PartitionEpoch: 1})
	b = Append(b, ConfigSet{Resource{TopicResource, "t"}, "k", "v"})
	f.Add(b)
	b = Append(b, ConfigUnset{Resource{TopicResource, "t"}, "k"})
	b = Append(b, TopicDeleted{id})
	b = Append(b, BrokerRegistered{Broker{ID: 1, Host: "h", Port: 1, Epoch: 3}})
	b = Append(b, BrokerUnregistered{1})
	b = Append(b, ProducerIDsGiven{5})
	f.Add(Append(b, FeatureSet{"f", 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := Apply(Empty(), b)
		if err != nil {
			return
		}
		again, _, err := Apply(Empty(), Encode(m))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(Encode(m), Encode(again)) {
			t.Fatal("the image changes when it is encoded")
		}
	})
}

// TestIDs proves the form of what is drawn: ids as Kafka's, tags within 20 bits,
// producer ids positive and apart for different clusters.
func TestIDs(t *testing.T) {
	for range 200 {
		id, tag := NewClusterID()
		if len(id) != 22 || id[0] == '-' || tag == 0 || tag > MaxTag {
			t.Fatalf("cluster %q with tag %d", id, tag)
		}
		u := NewUUID()
		if got, ok := ParseUUID(u.String()); !ok || got != u {
			t.Fatalf("%v is read back as %v", u, got)
		}
	}
	if _, ok := ParseUUID("short"); ok {
		t.Error("a short id is accepted")
	}
	last, first := ProducerID(1, MaxProducers-1), ProducerID(2, 0)
	if last+1 != first || ProducerID(MaxTag, MaxProducers-1) < 0 {
		t.Errorf("cluster 1 ends at %d, cluster 2 begins at %d", last, first)
	}
}

// TestLookupsDoNotAllocate guards the path of every Produce and Fetch.
func TestLookupsDoNotAllocate(t *testing.T) {
	m, _, err := Apply(Empty(), Append(nil, TopicCreated{UUID{15: 1}, "topic"}))
	if err != nil {
		t.Fatal(err)
	}
	name := []byte("topic")
	if n := testing.AllocsPerRun(100, func() {
		if m.TopicBytes(name) == nil || m.TopicByID(UUID{15: 1}) == nil {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func manyTopics(b *testing.B, n, partitions int) *Image {
	b.Helper()
	var entry []byte
	for i := range n {
		id := UUID{0: byte(i), 1: byte(i >> 8), 2: 1, 15: byte(i * 7)}
		entry = Append(entry, TopicCreated{id, fmt.Sprintf("topic-%d", i)})
		entry = Append(entry, PartitionsSet{Topic: id, Partitions: slices.Repeat([]Partition{{Replicas: []int32{0}, ISR: []int32{0}}}, partitions)})
	}
	m, _, err := Apply(Empty(), entry)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkCreateTopic makes one topic in a cluster of ten thousand.
func BenchmarkCreateTopic(b *testing.B) {
	m := manyTopics(b, 10_000, 1)
	id := NewUUID()
	entry := Append(nil, TopicCreated{id, "new"})
	entry = Append(entry, PartitionsSet{Topic: id, Partitions: []Partition{{Replicas: []int32{0}, ISR: []int32{0}}}})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Apply(m, entry); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreatePartitions makes a topic of ten thousand partitions.
func BenchmarkCreatePartitions(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		manyTopics(b, 1, 10_000)
	}
}

func BenchmarkTopicBytes(b *testing.B) {
	m := manyTopics(b, 10_000, 1)
	name := []byte("topic-77")
	b.ReportAllocs()
	for b.Loop() {
		if m.TopicBytes(name) == nil {
			b.Fatal("not found")
		}
	}
}
