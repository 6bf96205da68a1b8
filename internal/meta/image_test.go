package meta

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
)

// model is the simplest form of an image: a list of the records that still count.
type model struct {
	topics  map[UUID]*modelTopic
	brokers map[int32]*Broker
	configs map[config.Resource]map[string]string
}

type modelTopic struct {
	name  string
	parts []Partition
}

func newModel() *model {
	return &model{topics: map[UUID]*modelTopic{}, brokers: map[int32]*Broker{}, configs: map[config.Resource]map[string]string{}}
}

// draw makes a record that fits the model and applies it there.
func (md *model) draw(t *rapid.T) Record {
	ids := slices.SortedFunc(maps.Keys(md.topics), func(a, b UUID) int { return bytes.Compare(a[:], b[:]) })
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	switch {
	case kind == 7:
		return md.register(t)
	case kind == 8:
		return md.changeBroker(t)
	case len(ids) == 0 && kind != 5:
		kind = 0
	}
	pick := func() UUID { return ids[rapid.IntRange(0, len(ids)-1).Draw(t, "topic")] }
	switch kind {
	case 0:
		id := UUID{1: rapid.Byte().Draw(t, "id1"), 15: byte(rapid.IntRange(0, 3).Draw(t, "id15")), 6: 4}
		name := fmt.Sprintf("t%d", rapid.IntRange(0, 30).Draw(t, "name"))
		for other, mt := range md.topics {
			if mt.name == name || other == id {
				return ConfigSet{config.Resource{Type: config.Group, Name: "g"}, "k", md.set(config.Resource{Type: config.Group, Name: "g"}, "k", name)}
			}
		}
		md.topics[id] = &modelTopic{name: name}
		return TopicCreated{ID: id, Name: name}
	case 1:
		id := pick()
		mt := md.topics[id]
		first := rapid.IntRange(0, len(mt.parts)).Draw(t, "first")
		run := rapid.SliceOfN(rapid.Custom(drawPartition), 1, 4).Draw(t, "run")
		for i := first; i < min(len(mt.parts), first+len(run)); i++ {
			run[i-first].LeaderEpoch += mt.parts[i].LeaderEpoch
			run[i-first].PartitionEpoch += mt.parts[i].PartitionEpoch + 1
		}
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
			p.Eligible, p.LastEligible = nil, []int32{4}
			mt.parts = slices.Clone(mt.parts)
			mt.parts[i] = p
			return PartitionChanged{id, int32(i), p.ISR, p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.Eligible, p.LastEligible}
		}
		fallthrough
	case 3:
		id := pick()
		delete(md.configs, config.Resource{Type: config.Topic, Name: md.topics[id].name})
		delete(md.topics, id)
		return TopicDeleted{ID: id}
	case 4:
		r := config.Resource{Type: config.Topic, Name: md.topics[pick()].name}
		k := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
		return ConfigSet{r, k, md.set(r, k, rapid.String().Draw(t, "value"))}
	case 5:
		r := config.Resource{Type: config.Broker, Name: rapid.SampledFrom([]string{"", "0"}).Draw(t, "broker")}
		return ConfigSet{r, "c", md.set(r, "c", rapid.String().Draw(t, "value"))}
	default:
		r := config.Resource{Type: config.Topic, Name: md.topics[pick()].name}
		delete(md.configs[r], "a")
		if len(md.configs[r]) == 0 {
			delete(md.configs, r)
		}
		return ConfigUnset{r, "a"}
	}
}

// register registers a broker: the same process again, or another one.
func (md *model) register(t *rapid.T) Record {
	b := Broker{
		ID: rapid.Int32Range(0, 4).Draw(t, "id"), Epoch: 1, State: drawState(t),
		Incarnation: UUID{rapid.Byte().Draw(t, "incarnation") % 3},
		Listeners:   []Listener{{Name: "A", Host: "h", Port: 1, Security: SASLSSL}, {Name: "B", Port: 65535}},
		Features:    []FeatureRange{{Name: "f", Min: 0, Max: 3}},
	}
	old := md.brokers[b.ID]
	if old != nil {
		b.Epoch = old.Epoch + 1
	}
	if old == nil || old.Incarnation != b.Incarnation || old.State == BrokerFenced {
		md.started(&b)
	}
	md.brokers[b.ID] = &b
	return BrokerRegistered{b}
}

func (md *model) changeBroker(t *rapid.T) Record {
	if len(md.brokers) == 0 {
		return md.register(t)
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(md.brokers))).Draw(t, "id")
	b := *md.brokers[id]
	b.State = drawState(t)
	if md.brokers[id].State == BrokerFenced {
		md.started(&b)
	}
	md.brokers[id] = &b
	return BrokerChanged{id, b.Epoch, b.State}
}

func drawState(t *rapid.T) BrokerState {
	return rapid.SampledFrom([]BrokerState{BrokerFenced, BrokerActive, BrokerLeaving}).Draw(t, "state")
}

func (md *model) started(b *Broker) {
	for _, mt := range md.topics {
		mt.parts = slices.Clone(mt.parts)
		for i := range mt.parts {
			if mt.parts[i].Leader == b.ID && b.State != BrokerFenced {
				mt.parts[i].LeaderEpoch++
				mt.parts[i].PartitionEpoch++
			}
		}
	}
}

func (md *model) set(r config.Resource, k, v string) string {
	if md.configs[r] == nil {
		md.configs[r] = map[string]string{}
	}
	md.configs[r][k] = v
	return v
}

func drawPartition(t *rapid.T) Partition {
	ids := rapid.SliceOfNDistinct(rapid.Int32Range(0, 9), 1, 3, rapid.ID)
	some := rapid.SliceOfN(rapid.Int32Range(0, 9), -1, 2)
	return Partition{
		Adding: orNil(some.Draw(t, "adding")), Removing: orNil(some.Draw(t, "removing")),
		Eligible: orNil(some.Draw(t, "eligible")), LastEligible: orNil(some.Draw(t, "last eligible")),
		Replicas:       ids.Draw(t, "replicas"),
		ISR:            ids.Draw(t, "isr"),
		Leader:         rapid.Int32Range(-1, 9).Draw(t, "leader"),
		LeaderEpoch:    rapid.Int32Range(0, 1<<20).Draw(t, "leader epoch"),
		PartitionEpoch: rapid.Int32Range(0, 1<<20).Draw(t, "partition epoch"),
	}
}

// orNil returns nil for an empty list, as a decoder does.
func orNil(ids []int32) []int32 {
	if len(ids) == 0 {
		return nil
	}
	return ids
}

// check compares an image with the model, by the exported methods of the image.
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
	brokers := map[int32]*Broker{}
	maps.Copy(brokers, m.Brokers)
	if d := cmp.Diff(md.brokers, brokers); d != "" {
		t.Fatal(d)
	}
	configs := map[config.Resource]map[string]string{}
	for _, typ := range []config.ResourceType{config.Topic, config.Broker, config.Group} {
		for name := range m.Configured(typ) {
			configs[config.Resource{Type: typ, Name: name}] = m.Overrides(config.Resource{Type: typ, Name: name})
		}
	}
	if d := cmp.Diff(md.configs, configs); d != "" {
		t.Fatal(d)
	}
	size := 0
	for r, set := range md.configs {
		size += ConfigBytes(r, set)
	}
	if m.ConfigBytes() != size {
		t.Fatalf("the configs count %d bytes, they have %d", m.ConfigBytes(), size)
	}
}

// TestApplyIsTheModel proves, for random histories, that an image holds what its
// records say, that older images do not change when newer ones are made, that
// Encode loses nothing, that the delta of a step is the difference it made, and that
// no partition's leader epoch ever falls.
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
			checkEpochs(t, m, next)
			m = next
		}
	})
}

// checkDelta checks that the delta has every difference. It may have more: changes that
// were undone by later ones.
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

func checkEpochs(t *rapid.T, before, after *Image) {
	for mt := range before.Topics() {
		next := after.TopicByID(mt.ID)
		if next == nil || next.Name != mt.Name || len(next.Partitions) < len(mt.Partitions) { // deleted, and made again
			continue
		}
		for i := range mt.Partitions {
			if was, is := mt.Partitions[i].LeaderEpoch, next.Partitions[i].LeaderEpoch; is < was {
				t.Fatalf("%s-%d goes back from leader epoch %d to %d", mt.Name, i, was, is)
			}
		}
	}
}

// TestRecordsRoundTrip proves that each record comes back from its bytes as it was.
func TestRecordsRoundTrip(t *testing.T) {
	id := UUID{1, 2, 3, 15: 9}
	long := make([]Partition, maxPartitionsInRecord)
	for i := range long {
		long[i] = Partition{Replicas: []int32{1, 2}, ISR: []int32{1}, Leader: 1, LeaderEpoch: int32(i), PartitionEpoch: 7}
	}
	for _, r := range []Record{
		ClusterCreated{"MkU3OEVBNTcwNTJENDM2Qk", MaxTag},
		BrokerRegistered{Broker{ID: 3, Listeners: []Listener{{Host: "h", Port: 9092}}, Rack: "r", Epoch: 1 << 40}},
		BrokerRegistered{Broker{ID: 7}},
		BrokerChanged{3, 1 << 40, BrokerLeaving},
		FeaturesChanged{1 << 50},
		BrokerUnregistered{4},
		BrokerEpochGiven{99},
		TopicCreated{ID: id, Name: "a.topic"},
		TopicCreated{ID: id, Name: "a.topic", Follows: true},
		TopicChanged{ID: id},
		TopicChanged{ID: id, Follows: true},
		BrokerRegistered{Broker{ID: 7, Directory: UUID{15: 3}}},
		BrokerRegistered{Broker{ID: 7, Directory: UUID{15: 3}, RecordedEpoch: 1 << 33}},
		BrokerRegistered{Broker{ID: 7, Directory: UUID{15: 3}, RaftID: 1 << 63}},
		BrokerRegistered{Broker{ID: 7, Generation: 1 << 40}},
		DirectoryWritten{7, 1 << 40, 1 << 50},
		PartitionsSet{Topic: id, First: 5, Partitions: []Partition{}},
		PartitionsSet{Topic: id, First: 5, Partitions: long},
		PartitionsSet{Topic: id, First: 5, Partitions: []Partition{
			{Replicas: []int32{1, 2, 3}, Adding: []int32{3}, Removing: []int32{1}},
			{Replicas: []int32{1, 2, 3}, LastEligible: []int32{9}},
			{Leader: -1, Eligible: []int32{2}},
		}},
		LinkSet{Link{ID: id, Name: "l", Source: "c"}},
		LinkSet{withAgent(linkOf(1, "l"))},
		LinkSet{Link{ID: id, Name: "l", Source: "c", Settings: []LinkSetting{{"a", strings.Repeat("x", MaxLinkSettingBytes-1)}}, Secret: make([]byte, maxLinkSecret), Paused: true}},
		LinkRemoved{id},
		LinkACLSet{id, LinkACL{acl("User:alice", "orders"), true}},
		LinkACLUnset{id, acl("User:alice", "orders")},
		LinkQuotaSet{id, QuotaID{QuotaEntity{User: NamedQuota("a"), ClientID: NamedQuota("")}, ProducerByteRate}, math.MaxFloat64},
		LinkQuotaUnset{id, QuotaID{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate}},
		MirrorSet{Topic: id},
		MirrorSet{id, &Mirror{Topic: "t", Path: slices.Repeat([]string{strings.Repeat("c", maxClusterID)}, MaxPath), State: MirrorPromoted}},
		PartitionMirrorSet{Topic: id, Partition: math.MaxInt32},
		PartitionMirrorSet{id, 1, PartitionMirror{
			State: PartitionFailed, Reason: strings.Repeat("x", MaxMirrorReason), Lineages: slices.Repeat([]Lineage{{"c", math.MaxInt32, math.MaxInt64}}, MaxLineages),
			Cuts: slices.Repeat([]Cut{{math.MaxInt32, math.MaxInt64}}, MaxCuts),
		}},
		PartitionMirrorSet{id, 1, PartitionMirror{State: PartitionGap, Gap: OffsetRange{-1, math.MaxInt64}}},
		PartitionMirrorSet{id, 1, PartitionMirror{State: PartitionMirrors, Begin: MirrorBegin{true, math.MaxInt64, id}}},
		PartitionMirrorSet{id, 1, PartitionMirror{State: PartitionMirrors, TombstonesSince: math.MaxInt64}},
		PartitionMirrorSet{id, 1, PartitionMirror{State: PartitionPromoted, Parting: &Parting{PartitionFailed, math.MaxInt64, -1, -1, math.MaxInt64, 0, math.MaxInt64}}},
		PartitionChanged{id, 3, []int32{1, 2, 3}, -1, 5, 6, nil, nil},
		PartitionChanged{id, 3, []int32{1, 2, 3}, -1, 5, 6, nil, []int32{2}},
		PartitionChanged{id, 3, []int32{1, 2, 3}, -1, 5, 6, []int32{3}, []int32{2}},
		TopicDeleted{id},
		ConfigSet{config.Resource{Type: config.Broker, Name: ""}, "k", "v"},
		ConfigUnset{config.Resource{Type: config.Topic, Name: "t"}, "k"},
		ProducerIDsGiven{1000},
		FeatureSet{"metadata.version", 30},
		NodeAdmitted{7, credential.PublicKey{1, 31: 2}, UUID{3, 15: 4}, 0},
		NodeAdmitted{7, credential.PublicKey{1, 31: 2}, UUID{3, 15: 4}, 1 << 41},
		NodeForgotten{7},
		NodeRemoved{7},
		TokenMade{credential.TokenID{1, 7: 2}, credential.PublicKey{3, 31: 4}, [32]byte{5, 31: 6}, 1 << 41},
		TokenRevoked{credential.TokenID{1, 7: 2}},
		TokenForgotten{credential.TokenID{1, 7: 2}},
	} {
		var got []Record
		if err := decodeEach(Append(nil, r), func(r Record) error { got = append(got, r); return nil }); err != nil {
			t.Errorf("%T: %v", r, err)
		}
		if d := cmp.Diff([]Record{r}, got); d != "" {
			t.Errorf("%T: %s", r, d)
		}
	}
}

// TestNewerIsRefused proves that a record of a later version, of an unknown kind, or with
// an unknown field in its body or in an element of a list, is refused with a sentence. It
// is neither misread nor skipped, since a snapshot would lose a part that was skipped.
func TestNewerIsRefused(t *testing.T) {
	id := UUID{15: 1}
	grown := func(r Record, lengths ...int) []byte {
		b := append(Append(nil, r), 77)
		for _, at := range lengths {
			b[at]++
		}
		return b
	}
	made := Append(nil, TopicCreated{ID: id, Name: "t"})
	const head = 16 + 2 // bytes of a PartitionsSet before its first element
	for name, b := range map[string][]byte{
		"a kind":               {200, 1, 1, 0},
		"the next kind":        {lastTag + 1, 1, 0},
		"a version":            {tagTopicDeleted, 2, 0},
		"a field":              grown(BrokerUnregistered{1}, 2),
		"a field of a broker":  grown(BrokerRegistered{Broker{ID: 1, Generation: 1}}, 2),
		"a field of a topic":   grown(TopicCreated{ID: id, Name: "t", Follows: true}, 2),
		"a third truth":        {tagTopicChanged, 1, 17, 16: 1, 19: 2},
		"a field of a feature": grown(BrokerRegistered{Broker{ID: 1, Features: []FeatureRange{{}}}}, 2, 2+1+22),
		"a field of a partition": slices.Concat(made, grown(PartitionsSet{Topic: id, Partitions: []Partition{
			{LastEligible: []int32{1}},
		}}, 2, 2+1+head)),
		"a state of a broker":                          grown(BrokerChanged{State: 7})[:6],
		"a field of a link":                            grown(LinkSet{withAgent(linkOf(1, "l"))}, 2),
		"a field of an ACL of a link":                  grown(LinkACLSet{linkOf(1, "l").ID, LinkACL{acl("User:a", "t"), true}}, 2),
		"a field of a quota of a link":                 grown(LinkQuotaSet{linkOf(1, "l").ID, QuotaID{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate}, 1}, 2),
		"a field of a mirror":                          grown(MirrorSet{id, mirrorOf(1)}, 2),
		"a state of a mirror":                          Append(nil, MirrorSet{id, &Mirror{State: MirrorPromoted + 1}}),
		"a field of a partition that mirrors":          grown(PartitionMirrorSet{PartitionMirror: PartitionMirror{Parting: &Parting{}}}, 2),
		"a field of a parting":                         grown(PartitionMirrorSet{PartitionMirror: PartitionMirror{Parting: &Parting{}}}, 2, 47),
		"a state of a parting":                         Append(nil, PartitionMirrorSet{PartitionMirror: PartitionMirror{Parting: &Parting{State: PartitionPromoted + 1}}}),
		"a state of a partition that mirrors":          Append(nil, PartitionMirrorSet{PartitionMirror: PartitionMirror{State: PartitionPromoted + 1}}),
		"a field of a cut of a partition that mirrors": grown(PartitionMirrorSet{PartitionMirror: PartitionMirror{Cuts: []Cut{{}}}}, 2, 2+1+16+5),
	} {
		if _, _, err := Apply(Empty(), b); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: % x: %v, want ErrNewer", name, b, err)
		}
	}
}

// TestOlderIsRefused proves that the metadata of a development version, whose
// records were of version 0, is refused with a sentence.
func TestOlderIsRefused(t *testing.T) {
	old := append([]byte{tagClusterCreated, 0, 24, 22}, "MkU3OEVBNTcwNTJENDM2Qk\x01"...)
	if _, _, err := Apply(Empty(), old); !errors.Is(err, ErrOlder) {
		t.Errorf("%v, want ErrOlder", err)
	}
}

// TestFieldsAreLeftOut proves that a partition without a value in its later fields
// takes no byte for them, so that a version that does not know them can read it.
func TestFieldsAreLeftOut(t *testing.T) {
	size := func(p Partition) int {
		return len(Append(nil, PartitionsSet{Topic: UUID{15: 1}, Partitions: []Partition{p}}))
	}
	plain := Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}
	if n := size(plain); n != 3+16+2+1+7 {
		t.Errorf("a partition without them: %d bytes", n)
	}
	plain.Adding = []int32{1}
	if n := size(plain); n != 3+16+2+1+7+2 {
		t.Errorf("a partition with the first of them: %d bytes", n)
	}
}

// TestStartRaisesLeaderEpochs proves that a node which has restarted, or whose fencing
// ends, leads its partitions in a new leader epoch, and no other node does; that one
// record is enough for it; and that the epoch is the same after a snapshot, and does not
// fall when the leadership moves.
func TestStartRaisesLeaderEpochs(t *testing.T) {
	id, one, two := UUID{15: 1}, UUID{1}, UUID{2}
	broker := func(id int32, epoch int64, incarnation UUID, s BrokerState) Record {
		return BrokerRegistered{Broker{ID: id, Epoch: epoch, Incarnation: incarnation, State: s}}
	}
	m := Empty()
	for i, step := range []struct {
		what string
		r    Record
		want string // the leader and the leader epoch of each partition
	}{
		{"node 1 registers", broker(1, 1, one, BrokerFenced), ""},
		{"and is active", BrokerChanged{1, 1, BrokerActive}, ""},
		{"node 2 is active at once", broker(2, 2, one, BrokerActive), ""},
		{"a topic", TopicCreated{ID: id, Name: "t"}, ""},
		{"its partitions", PartitionsSet{Topic: id, Partitions: []Partition{{Leader: 1}, {Leader: 2}, {Leader: 1, LeaderEpoch: 5}}}, "1:0 2:0 1:5"},
		{"the same process registers again", broker(1, 3, one, BrokerActive), "1:0 2:0 1:5"},
		{"node 1 shuts down", BrokerChanged{1, 3, BrokerLeaving}, "1:0 2:0 1:5"},
		{"and starts again", broker(1, 4, two, BrokerFenced), "1:0 2:0 1:5"},
		{"and is active", BrokerChanged{1, 4, BrokerActive}, "1:1 2:0 1:6"},
		{"node 1 is fenced", BrokerChanged{1, 4, BrokerFenced}, "1:1 2:0 1:6"},
		{"a partition moves to node 2", PartitionChanged{Topic: id, Partition: 2, Leader: 2, LeaderEpoch: 7, PartitionEpoch: 2}, "1:1 2:0 2:7"},
		{"node 1 is back", BrokerChanged{1, 4, BrokerActive}, "1:2 2:0 2:7"},
		{"node 2 is killed and is back", broker(2, 5, two, BrokerActive), "1:2 2:1 2:8"},
		{"the partition moves back", PartitionChanged{Topic: id, Partition: 2, Leader: 1, LeaderEpoch: 9, PartitionEpoch: 4}, "1:2 2:1 1:9"},
		{"node 2 is unregistered", BrokerUnregistered{2}, "1:2 2:1 1:9"},
		{"and registers again", broker(2, 6, two, BrokerActive), "1:2 2:2 1:9"},
	} {
		var err error
		if m, _, err = ApplyAt(m, uint64(i+1), Append(nil, step.r)); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if m, _, err = Apply(Empty(), Encode(m)); err != nil { // every node may start from a snapshot here
			t.Fatalf("%s: %v", step.what, err)
		}
		var got []string
		if tp := m.Topic("t"); tp != nil {
			for _, p := range tp.Partitions {
				got = append(got, fmt.Sprintf("%d:%d", p.Leader, p.LeaderEpoch))
			}
		}
		if g := strings.Join(got, " "); g != step.want {
			t.Errorf("%s: %s, want %s", step.what, g, step.want)
		}
	}
}

// TestFeaturesEpochIsTheIndex proves that the epoch of the features is the index of the
// last entry that changed them, also after a snapshot, and that neither another entry
// nor a decision that is only tried changes it.
func TestFeaturesEpochIsTheIndex(t *testing.T) {
	set := Append(nil, FeatureSet{"f", 1})
	m := Empty()
	for _, step := range []struct {
		index uint64
		entry []byte
		want  uint64
	}{
		{3, Append(nil, TopicCreated{ID: UUID{15: 1}, Name: "t"}), 0},
		{5, set, 5},
		{6, Append(nil, TopicCreated{ID: UUID{15: 2}, Name: "u"}), 5},
		{0, set, 5},
		{9, Append(set, FeatureSet{"g", 2}), 9},
		{12, Append(nil, FeatureSet{"g", 0}), 12},
	} {
		var err error
		if m, _, err = ApplyAt(m, step.index, step.entry); err != nil {
			t.Fatal(err)
		}
		if m, _, err = Apply(Empty(), Encode(m)); err != nil {
			t.Fatal(err)
		}
		if got := m.FeaturesEpoch(); got != step.want {
			t.Errorf("after entry %d: epoch %d, want %d", step.index, got, step.want)
		}
	}
}

// TestApplyRefuses proves that records which do not fit the image are an error, and do
// not change it.
func TestApplyRefuses(t *testing.T) {
	id := UUID{15: 1}
	entry := Append(nil, TopicCreated{ID: id, Name: "t"})
	entry = Append(entry, BrokerRegistered{Broker{ID: 1, Epoch: 4}})
	m, _, err := Apply(Empty(), Append(entry, PartitionsSet{Topic: id, Partitions: []Partition{{LeaderEpoch: 4, PartitionEpoch: 4}}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{
		TopicCreated{ID: UUID{15: 2}, Name: "t"},
		TopicCreated{ID: id, Name: "u"},
		TopicCreated{ID: UUID{}, Name: "u"},
		TopicCreated{ID: UUID{15: 2}, Name: ""},
		TopicDeleted{UUID{15: 2}},
		PartitionsSet{Topic: id, First: 2, Partitions: make([]Partition, 1)},
		PartitionsSet{Topic: UUID{15: 2}, Partitions: make([]Partition, 1)},
		PartitionChanged{Topic: id, Partition: 1, PartitionEpoch: 9},
		PartitionChanged{Topic: id, PartitionEpoch: 4, LeaderEpoch: 4},
		PartitionChanged{Topic: id, PartitionEpoch: 5, LeaderEpoch: 3},
		ConfigSet{config.Resource{Type: config.Topic, Name: "u"}, "k", "v"},
		ConfigSet{config.Resource{Type: config.Group, Name: "u"}, "", "v"},
		ConfigUnset{config.Resource{Type: config.Topic, Name: "u"}, "k"},
		BrokerUnregistered{7},
		BrokerRegistered{Broker{ID: -1}},
		BrokerRegistered{Broker{ID: 1, Epoch: 3}},
		BrokerRegistered{Broker{ID: 2, Listeners: []Listener{{Port: 65536}}}},
		BrokerRegistered{Broker{ID: 2, Listeners: make([]Listener, maxListeners+1)}},
		BrokerRegistered{Broker{ID: 2, Features: []FeatureRange{{"f", 2, 1}}}},
		BrokerChanged{ID: 1, Epoch: 3},
		BrokerChanged{ID: 2, Epoch: 4},
		PartitionsSet{Topic: id, Partitions: []Partition{{LeaderEpoch: 4, PartitionEpoch: 4}}},
		PartitionsSet{Topic: id, Partitions: []Partition{{LeaderEpoch: 3, PartitionEpoch: 5}}},
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
	b = Append(b, TopicCreated{ID: id, Name: "t"})
	b = Append(b, PartitionsSet{Topic: id, Partitions: []Partition{{Replicas: []int32{0}, ISR: []int32{0}}}})
	b = Append(b, PartitionChanged{Topic: id, ISR: []int32{0}, PartitionEpoch: 1})
	b = Append(b, ConfigSet{config.Resource{Type: config.Topic, Name: "t"}, "k", "v"})
	f.Add(b)
	b = Append(b, ConfigUnset{config.Resource{Type: config.Topic, Name: "t"}, "k"})
	b = Append(b, TopicDeleted{id})
	b = Append(b, BrokerRegistered{Broker{ID: 1, Listeners: []Listener{{Host: "h", Port: 1}}, Epoch: 3}})
	b = Append(b, BrokerChanged{1, 3, BrokerActive})
	b = Append(b, BrokerUnregistered{1})
	b = Append(b, ProducerIDsGiven{5})
	f.Add(Append(b, FeatureSet{"f", 1}))
	b = Append(nil, LevelSet{LevelCluster})
	b = Append(b, NodeAdmitted{1, credential.PublicKey{1}, UUID{1}, 0})
	b = Append(b, NodeAdmitted{2, credential.PublicKey{2}, UUID{2}, 0})
	b = Append(b, TokenMade{credential.TokenID{1}, credential.PublicKey{3}, [32]byte{4}, 5})
	b = Append(b, TokenMade{credential.TokenID{2}, credential.PublicKey{3}, [32]byte{4}, 5})
	b = Append(b, TokenMade{credential.TokenID{3}, credential.PublicKey{3}, [32]byte{4}, 5})
	b = Append(b, TokenRevoked{credential.TokenID{1}})
	b = Append(b, TokenForgotten{credential.TokenID{2}})
	f.Add(Append(b, NodeRemoved{2}))
	b = Append(nil, ClusterCreated{"here", 1})
	b = Append(b, LevelSet{LevelLinks})
	b = Append(b, LinkSet{linkOf(1, "north")})
	b = Append(b, LinkACLSet{UUID{15: 1}, LinkACL{acl("User:a", "t"), false}})
	b = Append(b, LinkQuotaSet{UUID{15: 1}, QuotaID{QuotaEntity{User: NamedQuota("a")}, ProducerByteRate}, 5})
	b = Append(b, TopicCreated{ID: id, Name: "t"})
	b = Append(b, PartitionsSet{Topic: id, Partitions: []Partition{{Replicas: []int32{0}, ISR: []int32{0}}}})
	b = Append(b, MirrorSet{id, mirrorOf(1)})
	mirrors := &PartitionMirror{State: PartitionMirrors, Lineages: []Lineage{{"1", 0, 0}}}
	b = Append(b, PartitionMirrorSet{id, 0, *mirrors})
	b = Append(b, PartitionChanged{Topic: id, LeaderEpoch: 1, PartitionEpoch: 1})
	b = Append(b, PartitionMirrorSet{id, 0, *mirrors.WithCut(7)})
	f.Add(b)
	promoted := *mirrorOf(1)
	promoted.State = MirrorPromoting
	b = Append(b, MirrorSet{id, &promoted})
	mirrors = mirrors.WithCut(7)
	mirrors.State, promoted.State = PartitionPromoted, MirrorPromoted
	b = Append(b, PartitionMirrorSet{id, 0, *mirrors.WithLineage(Lineage{"here", 1, 7})})
	b = Append(b, MirrorSet{id, &promoted})
	f.Add(Append(b, LinkRemoved{UUID{15: 1}}))
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

// TestIDs proves the form of ids: cluster and topic ids are as Kafka's, tags have 20
// bits, and producer ids are positive and differ between clusters.
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
	m, _, err := Apply(Empty(), Append(nil, TopicCreated{ID: UUID{15: 1}, Name: "topic"}))
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
		id := UUID{0: byte(i), 1: byte(i >> 8), 2: byte(i >> 16), 3: 1, 15: byte(i * 7)}
		entry = Append(entry, TopicCreated{ID: id, Name: fmt.Sprintf("topic-%d", i)})
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
	entry := Append(nil, TopicCreated{ID: id, Name: "new"})
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

// BenchmarkStartBroker lets the only node of a cluster start again: the leader epoch
// of all its partitions rises.
func BenchmarkStartBroker(b *testing.B) {
	for _, c := range []struct{ topics, partitions int }{{80_000, 1}, {20, 10_000}} {
		b.Run(fmt.Sprintf("%dx%d", c.topics, c.partitions), func(b *testing.B) {
			m := manyTopics(b, c.topics, c.partitions)
			entry := Append(nil, BrokerRegistered{Broker{ID: 0, State: BrokerActive}})
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Apply(m, entry); err != nil {
					b.Fatal(err)
				}
			}
		})
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
