package controller

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// linksRig is a cluster "here" of three nodes, to which changes of links are applied.
type linksRig struct {
	*testing.T

	m      *meta.Image
	static *config.Static
	ids    byte
}

func newLinksRig(t *testing.T, level int16) *linksRig {
	t.Helper()
	static, err := config.NewStatic(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &linksRig{T: t, m: meta.Empty(), static: static}
	b := meta.AppendLevel(meta.Append(nil, meta.ClusterCreated{ID: "here", Tag: 1}), meta.LevelFeature, level)
	for id := int32(1); id <= 3; id++ {
		r := brokerOfLevel(id, meta.LatestLevel, 0)
		r.State = meta.BrokerActive
		b = meta.Append(b, r)
	}
	s.apply(b)
	return s
}

func (s *linksRig) apply(records []byte) {
	s.Helper()
	var err error
	if s.m, _, err = meta.Apply(s.m, records); err != nil {
		s.Fatal(err)
	}
}

func (s *linksRig) rules() *Rules { return &Rules{Image: s.m, Static: s.static} }

// ask has a change decided and made, and returns in one list why it was refused, or its topics or partitions were.
func (s *linksRig) ask(q *LinksChange) (refused []*Error) {
	s.Helper()
	for {
		d, some, e := Links{Rules: s.rules(), MaxPartitions: 20, NewID: func() meta.UUID {
			s.ids++
			return meta.UUID{1, 15: s.ids}
		}}.Change(q, len(refused))
		if e != nil && (d.Records != nil || some != nil) {
			s.Fatalf("%v is refused, and changes something", q)
		}
		if s.apply(d.Records); e != nil || q.countItems() == 0 {
			return []*Error{e}
		}
		if refused = append(refused, some...); len(refused) == q.countItems() {
			return refused
		}
	}
}

// must is ask for a change that is made, and of which the second time changes nothing.
func (s *linksRig) must(q *LinksChange) {
	s.Helper()
	for i := range 2 {
		before := s.m
		if refused := s.ask(q); slices.ContainsFunc(refused, func(e *Error) bool { return e != nil }) {
			s.Fatalf("%v: %v", q, refused)
		}
		if i == 1 && !bytes.Equal(meta.Encode(before), meta.Encode(s.m)) {
			s.Fatalf("%v: the second time changes something", q)
		}
	}
}

// refuses is ask for a change of one thing that is refused, with a kind and with words.
func (s *linksRig) refuses(what string, q *LinksChange, kind Kind, words string) {
	s.Helper()
	before := meta.Encode(s.m)
	e := s.ask(q)[0]
	if e == nil || e.Kind != kind || !strings.Contains(e.Message, words) {
		s.Errorf("%s: %+v, and not kind %d: %s", what, e, kind, words)
	}
	if !bytes.Equal(before, meta.Encode(s.m)) {
		s.Errorf("%s: it is refused, and changes something", what)
	}
}

func linkTo(number byte, name string) meta.Link {
	return meta.Link{ID: meta.UUID{15: number}, Name: name, Source: fmt.Sprint("c", number), Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: "h:1"}}, Secret: []byte{number}}
}

func creation(l meta.Link) *LinksChange { return &LinksChange{Kind: CreateLink, Link: &l} }

// mirrorOf asks for a mirror of a topic of the same name.
func mirrorOf(link byte, name string, partitions int32) MirrorTopic {
	return MirrorTopic{Name: name, Partitions: partitions, ReplicationFactor: 2, Mirror: &meta.Mirror{
		Link: meta.UUID{15: link}, Topic: name, TopicID: meta.UUID{8}, Path: []string{"origin", fmt.Sprint("c", link)},
	}}
}

// with changes one topic's request.
func (a MirrorTopic) with(change func(a *MirrorTopic)) *LinksChange {
	m := *a.Mirror
	m.Path = slices.Clone(m.Path)
	a.Mirror = &m
	change(&a)
	return &LinksChange{Kind: CreateMirrors, Topics: []MirrorTopic{a}}
}

// newMirrorRig is a cluster with links 1 and 2, and with topics that mirror by the first one.
func newMirrorRig(t *testing.T, topics ...MirrorTopic) *linksRig {
	t.Helper()
	s := newLinksRig(t, meta.LatestLevel)
	s.must(creation(linkTo(1, "north")))
	s.must(creation(linkTo(2, "south")))
	if len(topics) > 0 {
		s.must(&LinksChange{Kind: CreateMirrors, Topics: topics})
	}
	return s
}

func (s *linksRig) topic(name string) *meta.Topic {
	s.Helper()
	t := s.m.Topic(name)
	if t == nil {
		s.Fatalf("there is no topic %s", name)
	}
	return t
}

// of asks for a change of a topic that is there.
func (s *linksRig) of(kind LinksKind, name string) *LinksChange {
	return &LinksChange{Kind: kind, Topics: []MirrorTopic{{ID: s.topic(name).ID}}}
}

// at asks for a change of a partition, as its leader does.
func (s *linksRig) at(kind LinksKind, name string, number int32, change func(a *MirrorPartition)) *LinksChange {
	t := s.topic(name)
	a := MirrorPartition{Topic: t.ID, Number: number, LeaderEpoch: t.Partitions[number].LeaderEpoch}
	change(&a)
	return &LinksChange{Kind: kind, Partitions: []MirrorPartition{a}}
}

// TestLinksAreChanged proves that a link is made once however often that is asked for, that a change leaves alone what it does not name, and with which sentences others are refused.
func TestLinksAreChanged(t *testing.T) {
	s := newLinksRig(t, meta.LatestLevel)
	l := linkTo(1, "north")
	s.must(creation(l))
	changed := func(change func(l *meta.Link)) *LinksChange {
		next := linkTo(7, "new")
		change(&next)
		return creation(next)
	}
	s.refuses("no link", &LinksChange{Kind: CreateLink}, InvalidRequest, "no link to make")
	s.refuses("its name", changed(func(l *meta.Link) { l.Name = "north" }), DuplicateResource, `There is a link "north" already`)
	s.refuses("its id", changed(func(l *meta.Link) { l.ID = meta.UUID{15: 1} }), DuplicateResource, "of the id AAAAAAAAAAAAAAAAAAAAAQ already")
	s.refuses("a name with a slash", changed(func(l *meta.Link) { l.Name = "a/b" }), InvalidRequest, "1 to 64 characters")
	s.refuses("to itself", changed(func(l *meta.Link) { l.Source = "here" }), PolicyViolation, "The cluster here is this one")
	s.refuses("no source", changed(func(l *meta.Link) { l.Source = "" }), InvalidRequest, "cluster id")
	s.refuses("no id", changed(func(l *meta.Link) { l.ID = meta.UUID{} }), InvalidRequest, "no id")
	s.refuses("an unknown link", &LinksChange{Kind: ChangeLink, LinkID: meta.UUID{9}, Change: &LinkChange{}}, UnknownLink, "There is no link of the id")
	s.refuses("an unknown change", &LinksChange{Kind: "dance"}, InvalidRequest, `no change "dance"`)

	change := func(c LinkChange) *LinksChange { return &LinksChange{Kind: ChangeLink, LinkID: l.ID, Change: &c} }
	paused, running, secret, none := true, false, []byte{5}, []byte{}
	a, b := "a", "b"
	for i, step := range []struct {
		c    LinkChange
		want string
	}{
		{LinkChange{}, "[{bootstrap.servers h:1}] 01 false"},
		{LinkChange{Paused: &paused}, "[{bootstrap.servers h:1}] 01 true"},
		{LinkChange{Settings: map[string]*string{"topics": &a, "exclude": &b}}, "[{bootstrap.servers h:1} {exclude b} {topics a}] 01 true"},
		{LinkChange{Settings: map[string]*string{"topics": &b, "exclude": nil, "never.set": nil}, Secret: &secret}, "[{bootstrap.servers h:1} {topics b}] 05 true"},
		{LinkChange{Paused: &running, Secret: &none}, "[{bootstrap.servers h:1} {topics b}]  false"},
	} {
		s.must(change(step.c))
		now := s.m.Links().Find(l.ID)
		if got := fmt.Sprintf("%v %x %t", now.Settings, now.Secret, now.Paused); got != step.want || now.Name != l.Name || now.Source != l.Source {
			t.Errorf("change %d: %s, and not %s", i, got, step.want)
		}
	}
	s.refuses("a setting without a key", change(LinkChange{Settings: map[string]*string{"": &a}}), InvalidRequest, "It cannot be a link")
	s.must(&LinksChange{Kind: ChangeLink, LinkID: l.ID})
	s.must(change(LinkChange{Source: "another"}))
	if now := s.m.Links().Find(l.ID); now.Source != l.Source {
		t.Errorf("the source is %s", now.Source)
	}

	s.must(&LinksChange{Kind: RemoveLink, LinkID: l.ID})
	if s.m.Links().Len() != 0 {
		t.Error("the link is there")
	}
	for i := range byte(meta.MaxLinks) {
		s.must(creation(linkTo(100+i, fmt.Sprint("l", i))))
	}
	s.refuses("one too many", creation(l), PolicyViolation, "at most 64 links")
}

// TestLinksNeedTheLevel proves that a cluster with an older node, or of a lower level, refuses links with a sentence that says what to do.
func TestLinksNeedTheLevel(t *testing.T) {
	s := newLinksRig(t, meta.LevelLinks-1)
	s.refuses("a lower level", creation(linkTo(1, "north")), UnsupportedFeature, `A link to another cluster needs level 8 of leat.metadata, and this cluster has level 7: all nodes run a version that knows it, so raise the level with "leat cluster finalize".`)
	s.apply(meta.Append(nil, brokerOfLevel(2, meta.LevelLinks-1, 0)))
	for _, q := range []*LinksChange{creation(linkTo(1, "north")), {Kind: CreateMirrors, Topics: []MirrorTopic{mirrorOf(1, "t", 1)}}, {Kind: CutMirrors, Partitions: make([]MirrorPartition, 1)}} {
		s.refuses("an older node", q, UnsupportedFeature, "an earlier version of Leat does not know: upgrade node 2 first")
	}
}

// TestLinkIsKeptWhileItIsUsed proves that a link by which topics mirror is removed only once they were promoted or deleted, and that a promoted topic goes on without its link.
func TestLinkIsKeptWhileItIsUsed(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "b", 1), mirrorOf(1, "a", 1), mirrorOf(2, "other", 1))
	remove := &LinksChange{Kind: RemoveLink, LinkID: meta.UUID{15: 1}}
	s.refuses("two mirrors", remove, PolicyViolation, `2 topics mirror by the link "north", the first of them is a`)
	s.deleteTopic("b")
	s.refuses("one mirror", remove, PolicyViolation, `The topic a mirrors by the link "north": promote it first ("leat link promote"`)
	s.must(s.of(PromoteMirrors, "a"))
	s.refuses("a mirror that is being promoted", remove, PolicyViolation, "The topic a mirrors")
	s.must(s.decide("a", 0, 7))
	s.must(s.at(FinishPromotions, "a", 0, func(a *MirrorPartition) { a.End = 7 }))
	s.must(remove)
	if m := s.topic("a").Mirror; m == nil || m.Link != (meta.UUID{}) || m.State != meta.MirrorPromoted {
		t.Errorf("the promoted topic has %+v", m)
	}
	if s.m.Links().Find(meta.UUID{15: 2}) == nil || !s.topic("other").IsMirror() {
		t.Error("the other link lost something")
	}
}

func (s *linksRig) deleteTopic(name string) {
	s.Helper()
	records, refused := decideDeleteTopics(s.m, []meta.UUID{s.topic(name).ID}, func(meta.UUID, int) *Error { return nil })
	if refused[0] != nil {
		s.Fatal(refused[0])
	}
	s.apply(records)
}

// TestMirrorsAreMade proves that a topic mirrors from its first record on, with the partitions, replicas and configs that were asked for, that it is made once however often
// that is asked for, and that each of several topics is made or refused by itself, also because of those before it.
func TestMirrorsAreMade(t *testing.T) {
	s := newMirrorRig(t)
	asked := mirrorOf(1, "orders", 3)
	asked.Configs = map[string]string{"retention.ms": "5"}
	asked.Mirror.State = meta.MirrorPromoted // it is not looked at
	collides := mirrorOf(1, "or.ders", 1)
	refused := s.ask(&LinksChange{Kind: CreateMirrors, Topics: []MirrorTopic{asked, mirrorOf(1, "or_ders", 2), collides, mirrorOf(9, "unknown", 1), asked}})
	if refused[0] != nil || refused[1] != nil || refused[2] == nil || refused[2].Kind != InvalidTopic || refused[3] == nil || refused[3].Kind != UnknownLink || refused[4] != nil || s.m.NumTopics() != 2 {
		t.Fatalf("%v", refused)
	}
	o := s.topic("orders")
	want := *asked.Mirror
	if want.State = meta.MirrorActive; !o.Mirror.Equal(&want) || len(o.Partitions) != 3 || !maps.Equal(s.m.Overrides(config.Resource{Type: config.Topic, Name: "orders"}), asked.Configs) {
		t.Errorf("%+v mirrors %+v", o, o.Mirror)
	}
	for i, p := range o.Partitions {
		if !p.IsMirror() || p.Mirror.State != meta.PartitionMirrors || !slices.Equal(p.Mirror.Lineages, []meta.Lineage{{Cluster: "origin"}}) || len(p.Replicas) != 2 || len(p.ISR) != 2 {
			t.Errorf("partition %d: %+v mirrors %+v", i, p, p.Mirror)
		}
	}
	s.must(&LinksChange{Kind: CreateMirrors, Topics: []MirrorTopic{asked}})

	results := s.createTopic("ordinary")
	if results.Err != nil {
		t.Fatal(results.Err)
	}
	for _, c := range []struct {
		what   string
		change func(a *MirrorTopic)
		kind   Kind
		words  string
	}{
		{"no source", func(a *MirrorTopic) { a.Mirror = nil }, InvalidRequest, "no topic of the source"},
		{"an ordinary topic", func(a *MirrorTopic) { a.Name = "ordinary" }, TopicExists, `There is a topic ordinary already, which does not mirror new by the link "north"`},
		{"a mirror of another topic", func(a *MirrorTopic) { a.Name = "orders" }, TopicExists, "orders already"},
		{"a mirror of an earlier topic of the name", func(a *MirrorTopic) { a.Name, a.Mirror.Topic, a.Mirror.TopicID = "orders", "orders", meta.UUID{7} }, TopicExists, "orders already"},
		{"another link's", func(a *MirrorTopic) {
			a.Name, a.Mirror.Topic, a.Mirror.Link, a.Mirror.Path = "orders", "orders", meta.UUID{15: 2}, []string{"c2"}
		}, TopicExists, `by the link "south"`},
		{"a cycle", func(a *MirrorTopic) { a.Mirror.Path = []string{"here", "c1"} }, PolicyViolation, "comes from this cluster, over here, c1"},
		{"the cluster's own", func(a *MirrorTopic) { a.Name = "__consumer_offsets" }, PolicyViolation, "the cluster's own"},
		{"a name", func(a *MirrorTopic) { a.Name = "a b" }, InvalidTopic, "Topic name is invalid"},
		{"no partitions", func(a *MirrorTopic) { a.Partitions = 0 }, InvalidPartitions, "with 0 partitions"},
		{"the default of partitions", func(a *MirrorTopic) { a.Partitions = -1 }, InvalidPartitions, "with -1 partitions"},
		{"too many partitions", func(a *MirrorTopic) { a.Partitions = 16 }, PolicyViolation, "memory for at most 20 partitions"},
		{"too many for one request", func(a *MirrorTopic) { a.Partitions = MaxNewPartitions + 1 }, PolicyViolation, "Excessively large"},
		{"too many replicas", func(a *MirrorTopic) { a.ReplicationFactor = 4 }, InvalidReplicationFactor, "only 3 broker(s)"},
		{"a config", func(a *MirrorTopic) { a.Configs = map[string]string{"retention.ms": "x"} }, InvalidConfig, "retention.ms"},
		{"a path to another source", func(a *MirrorTopic) { a.Mirror.Path = []string{"c2"} }, InvalidRequest, "whose source is"},
		{"no path", func(a *MirrorTopic) { a.Mirror.Path = nil }, InvalidRequest, "over 0 clusters"},
		{"no topic", func(a *MirrorTopic) { a.Mirror.Topic = "" }, InvalidRequest, "a mirror of the topic"},
	} {
		s.refuses(c.what, mirrorOf(1, "new", 1).with(c.change), c.kind, c.words)
	}
	s.refuses("too many items", &LinksChange{Kind: CreateMirrors, Topics: make([]MirrorTopic, MaxLinkItems+1)}, InvalidRequest, "1001 topics, partitions, ACLs and quotas")
}

func (s *linksRig) createTopic(name string) CreatedTopic {
	s.Helper()
	records, results := s.rules().CreateTopics([]NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, meta.NewUUID, 20)
	s.apply(records)
	return results[0]
}

// TestMirrorsAreExtended proves that a mirror gets the partitions of its source, which mirror, that nobody else adds any, and that the ordinary topic that it becomes
// can be extended by clients.
func TestMirrorsAreExtended(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 2))
	permit := func(string, int) *Error { return nil }
	byClient := func() *Error {
		_, refused := decideCreatePartitions(s.m, 20, []MorePartitions{{Topic: "t", Count: 5}}, permit)
		return refused[0]
	}
	extend := func(count int32) *LinksChange {
		q := s.of(ExtendMirrors, "t")
		q.Topics[0].Partitions = count
		return q
	}
	if e := byClient(); e == nil || e.Kind != PolicyViolation || !strings.Contains(e.Message, "The topic t mirrors one of another cluster") {
		t.Errorf("a client: %v", e)
	}
	s.must(extend(4))
	s.must(extend(2)) // another node has not seen the others yet
	if o := s.topic("t"); len(o.Partitions) != 4 || !o.Partitions[3].IsMirror() || len(o.Partitions[3].Replicas) != 2 {
		t.Errorf("%+v", o.Partitions)
	}
	s.refuses("too many", extend(21), PolicyViolation, "memory for at most 20")
	s.refuses("an unknown topic", &LinksChange{Kind: ExtendMirrors, Topics: make([]MirrorTopic, 1)}, UnknownTopicID, "")
	s.createTopic("ordinary")
	s.refuses("an ordinary topic", s.of(ExtendMirrors, "ordinary"), InvalidRequest, "The topic ordinary mirrors nothing")
	s.must(s.of(PromoteMirrors, "t"))
	s.refuses("one that is promoted", extend(5), PolicyViolation, "is just being promoted")
	if e := byClient(); e == nil || e.Kind != PolicyViolation {
		t.Errorf("a client, while it is promoted: %v", e)
	}
	for i := range int32(4) {
		s.must(s.decide("t", i, 0))
		s.must(s.at(FinishPromotions, "t", i, func(*MirrorPartition) {}))
	}
	if e := byClient(); e != nil {
		t.Errorf("a client, when it was promoted: %v", e)
	}
	s.refuses("a promoted one", extend(5), PolicyViolation, "was promoted")
}

// TestMirrorsPause proves that a topic pauses and goes on, until it is promoted.
func TestMirrorsPause(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 1))
	s.must(s.of(PauseMirrors, "t"))
	if o := s.topic("t"); o.Mirror.State != meta.MirrorPaused || !o.IsMirror() {
		t.Errorf("%+v", o.Mirror)
	}
	s.must(s.of(ResumeMirrors, "t"))
	if o := s.topic("t"); o.Mirror.State != meta.MirrorActive {
		t.Errorf("%+v", o.Mirror)
	}
	s.must(s.of(PromoteMirrors, "t"))
	s.refuses("it is promoted", s.of(PauseMirrors, "t"), PolicyViolation, "promoted")
	s.refuses("it is promoted", s.of(ResumeMirrors, "t"), PolicyViolation, "promoted")
}

// TestMirrorStatesAreSet proves that the leader of a partition says how far it mirrors, that what an earlier leader says is refused, that a person has it leave out the gap that
// the person has seen and no other one, and that one partition's state stops no other one.
func TestMirrorStatesAreSet(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 2))
	set := func(change func(a *MirrorPartition)) *LinksChange { return s.at(SetMirrorStates, "t", 0, change) }
	now := func() meta.PartitionMirror { return *s.topic("t").Partitions[0].Mirror }
	failed := set(func(a *MirrorPartition) {
		a.State, a.Reason = meta.PartitionFailed, strings.Repeat("x", meta.MaxMirrorReason-1)+"é"
	})
	s.must(failed)
	if got := now(); got.State != meta.PartitionFailed || got.Reason != strings.Repeat("x", meta.MaxMirrorReason-1) || len(got.Lineages) != 1 {
		t.Errorf("%+v", got)
	}
	gap := meta.OffsetRange{Start: 5, End: 9}
	s.must(set(func(a *MirrorPartition) { a.State, a.Gap = meta.PartitionGap, gap }))
	s.refuses("a gap of nothing", set(func(a *MirrorPartition) { a.State = meta.PartitionGap }), InvalidRequest, "a gap")
	s.refuses("no state", set(func(*MirrorPartition) {}), InvalidRequest, "state 0")
	s.refuses("a promotion", set(func(a *MirrorPartition) { a.State = meta.PartitionPromoted }), InvalidRequest, "promoted with its topic")
	s.refuses("an earlier leader", set(func(a *MirrorPartition) { a.State, a.LeaderEpoch = meta.PartitionMirrors, -2 }), FencedLeaderEpoch, "")
	s.refuses("a later leader", set(func(a *MirrorPartition) { a.State, a.LeaderEpoch = meta.PartitionMirrors, 7 }), NotController, "")
	skip := func(gap meta.OffsetRange) *LinksChange {
		return set(func(a *MirrorPartition) { a.State, a.Gap, a.LeaderEpoch = meta.PartitionMirrors, gap, NoLeaderEpoch })
	}
	s.refuses("an earlier gap", skip(meta.OffsetRange{Start: 5, End: 8}), InvalidUpdate, "not from offset 5 to 8 any more, but from 5 to 9")
	s.must(skip(gap))
	if got := now(); got.State != meta.PartitionMirrors || got.Gap != gap || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	lost := func(a *MirrorPartition) { a.State, a.Gap = meta.PartitionTombstonesLost, gap }
	s.must(set(lost))
	s.refuses("an earlier loss", skip(meta.OffsetRange{Start: 5, End: 8}), InvalidUpdate, "not from offset 5 to 8 any more, but from 5 to 9")
	was, begin := now(), meta.MirrorBegin{IsDecided: true, Offset: 70, Topic: meta.UUID{15: 7}}
	decide := set(func(a *MirrorPartition) {
		a.State, a.Begin, a.TombstonesSince, a.Was = meta.PartitionMirrors, &begin, 1000, &was
	})
	s.must(decide)
	if got := now(); got.State != meta.PartitionMirrors || got.Begin != begin || got.TombstonesSince != 1000 || got.Gap != (meta.OffsetRange{}) {
		t.Errorf("%+v", got)
	}
	s.must(set(lost))
	if got := now(); got.Begin != begin || got.TombstonesSince != 1000 {
		t.Errorf("%+v", got)
	}
	s.refuses("what was decided before another change", set(func(a *MirrorPartition) { a.State, a.Was = meta.PartitionFailed, &was }), InvalidUpdate, "not in the state any more")
	s.must(set(func(a *MirrorPartition) { a.State, a.LeaderEpoch = meta.PartitionEmptying, NoLeaderEpoch }))
	s.refuses("an unknown topic", &LinksChange{Kind: SetMirrorStates, Partitions: make([]MirrorPartition, 1)}, UnknownTopicID, "")
	for _, number := range []int32{-1, 2} {
		s.refuses("an unknown partition", set(func(a *MirrorPartition) { a.Number = number }), UnknownPartition, "")
	}
	s.createTopic("ordinary")
	s.refuses("an ordinary partition", s.at(SetMirrorStates, "ordinary", 0, func(a *MirrorPartition) { a.State = meta.PartitionMirrors }), InvalidRequest, "mirrors nothing")
	both := set(func(a *MirrorPartition) { a.State, a.LeaderEpoch = meta.PartitionFailed, 9 })
	other := s.at(SetMirrorStates, "t", 1, func(a *MirrorPartition) { a.State = meta.PartitionRecreated }).Partitions[0]
	again := other
	again.State = meta.PartitionDeleted
	both.Partitions = append(both.Partitions, other, again)
	if refused := s.ask(both); refused[0] == nil || refused[1] != nil || refused[2] == nil || refused[2].Kind != InvalidRequest || s.topic("t").Partitions[1].Mirror.State != meta.PartitionRecreated {
		t.Errorf("%v", refused)
	}
	s.must(s.of(PromoteMirrors, "t"))
	s.refuses("it is being promoted", set(func(a *MirrorPartition) { a.State = meta.PartitionFailed }), InvalidUpdate, "just being promoted")
}

// TestCutsRaiseTheLeaderEpoch proves that a cut raises the leader epoch by one in the same entry, that it is made once however often that is asked for, that each has the next
// number, and that an earlier leader makes none.
func TestCutsRaiseTheLeaderEpoch(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 1))
	cut := func(number int32, offset int64) *LinksChange {
		return s.at(CutMirrors, "t", 0, func(a *MirrorPartition) { a.Cut = meta.Cut{Number: number, Offset: offset} })
	}
	now := func() *meta.Partition { return &s.topic("t").Partitions[0] }
	s.must(s.at(SetMirrorStates, "t", 0, func(a *MirrorPartition) {
		a.State, a.Gap, a.Reason = meta.PartitionGap, meta.OffsetRange{Start: 5, End: 9}, "why"
	}))
	old := *now()
	s.must(cut(1, 40))
	p := now()
	if p.LeaderEpoch != old.LeaderEpoch+1 || p.PartitionEpoch != old.PartitionEpoch+1 || p.Leader != old.Leader || !slices.Equal(p.ISR, old.ISR) {
		t.Errorf("%+v becomes %+v", old, *p)
	}
	if p.Mirror.State != meta.PartitionMirrors || p.Mirror.Reason != "" || p.Mirror.Gap != (meta.OffsetRange{}) || !slices.Equal(p.Mirror.Cuts, []meta.Cut{{Number: 1, Offset: 40}}) {
		t.Errorf("%+v", p.Mirror)
	}
	s.refuses("the first one at another offset", cut(1, 41), InvalidUpdate, "was cut 1 times, and cut 1 is not the next one")
	s.refuses("one is left out", cut(3, 20), InvalidUpdate, "cut 3 is not the next one")
	s.refuses("none", cut(0, 0), InvalidUpdate, "cut 0")
	s.refuses("an offset below 0", cut(2, -1), InvalidRequest, "cuts")
	late := cut(2, 30)
	late.Partitions[0].LeaderEpoch--
	s.refuses("an earlier leader", late, FencedLeaderEpoch, "")
	s.must(cut(2, 30))
	if got := now(); !slices.Equal(got.Mirror.Cuts, []meta.Cut{{Number: 2, Offset: 30}}) || got.LeaderEpoch != old.LeaderEpoch+2 {
		t.Errorf("%+v, %+v", got, got.Mirror)
	}
	s.must(s.at(SetMirrorStates, "t", 0, func(a *MirrorPartition) { a.State, a.LeaderEpoch = meta.PartitionEmptying, NoLeaderEpoch }))
	s.must(cut(3, 0))
	if got := now(); got.Mirror.State != meta.PartitionEmptying || got.Mirror.LastCut() != (meta.Cut{Number: 3}) {
		t.Errorf("%+v", got.Mirror)
	}
	s.must(s.of(PromoteMirrors, "t"))
	s.refuses("it is being promoted", cut(4, 20), InvalidUpdate, "just being promoted")
}

// TestLeaderEpochsStayAboveTheSource proves that the leader epoch of a partition that mirrors is raised to the next multiple of 1,000, and never near the last one; that it
// never goes down; and that nothing else changes.
func TestLeaderEpochsStayAboveTheSource(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 1))
	raise := func(epoch int32) *LinksChange {
		return s.at(RaiseEpochs, "t", 0, func(a *MirrorPartition) { a.Epoch, a.LeaderEpoch = epoch, 0 })
	}
	old := s.topic("t").Partitions[0]
	for _, step := range []struct{ least, want int32 }{
		{0, 0}, {1, 1000}, {7, 1000}, {1000, 1000}, {1001, 2000}, {5000, 5000}, {1_999_999_999, 2_000_000_000}, {2_147_483_000, 2_147_483_000},
	} {
		s.must(raise(step.least))
		p := s.topic("t").Partitions[0]
		if p.LeaderEpoch != step.want || p.Leader != old.Leader || !slices.Equal(p.ISR, old.ISR) || !p.Mirror.Equal(old.Mirror) {
			t.Errorf("%d: %+v", step.least, p)
		}
	}
	for _, epoch := range []int32{2_147_483_001, 2_147_483_647} {
		s.refuses("no room", raise(epoch), PolicyViolation, "has no leader epochs left")
	}
	s.must(s.of(PromoteMirrors, "t"))
	s.must(s.decide("t", 0, 0))
	s.must(s.at(FinishPromotions, "t", 0, func(*MirrorPartition) {}))
	s.refuses("a promoted one", raise(2_147_483_005), InvalidUpdate, "was promoted")
}

// TestCutsEndWithTheEpochs proves that a partition whose leader epochs have come to an end is not cut or promoted into the last one.
func TestCutsEndWithTheEpochs(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 1))
	p := s.topic("t").Partitions[0]
	for _, epoch := range []int32{2_147_483_645, 2_147_483_647} {
		p.LeaderEpoch = epoch
		p.PartitionEpoch++
		s.apply(meta.Append(nil, meta.PartitionsSet{Topic: s.topic("t").ID, Partitions: []meta.Partition{p}}))
		s.refuses("a cut", s.at(CutMirrors, "t", 0, func(a *MirrorPartition) { a.Cut = meta.Cut{Number: 1} }), PolicyViolation, "has no leader epochs left")
	}
}

// TestMirrorsArePromoted proves that all partitions of a topic are to be promoted at once, that each becomes an ordinary one in a new leader epoch and with a lineage of its own,
// that the topic is promoted with the last of them, and that an earlier leader promotes none.
func TestMirrorsArePromoted(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 3))
	finish := func(number int32, end int64) *LinksChange {
		return s.at(FinishPromotions, "t", number, func(a *MirrorPartition) { a.End = end })
	}
	s.refuses("nobody promotes it", finish(0, 7), InvalidUpdate, "is not being promoted")
	s.must(s.at(RaiseEpochs, "t", 0, func(a *MirrorPartition) { a.Epoch = 5000 }))
	s.must(s.at(SetMirrorStates, "t", 1, func(a *MirrorPartition) { a.State = meta.PartitionFailed }))
	s.must(s.of(PauseMirrors, "t"))
	s.must(s.of(PromoteMirrors, "t"))
	for _, p := range s.topic("t").Partitions {
		if p.Mirror.State != meta.PartitionPromoting || !p.IsMirror() {
			t.Errorf("%+v", p.Mirror)
		}
	}
	s.refuses("nothing is decided", finish(0, 7), InvalidUpdate, "not decided how the transactions")
	s.must(s.decide("t", 0, 7))
	late := finish(0, 7)
	late.Partitions[0].LeaderEpoch--
	s.refuses("an earlier leader", late, FencedLeaderEpoch, "")
	first, parting := finish(0, 8), meta.Parting{State: meta.PartitionMirrors, End: 7, SourceEnd: 9, Bytes: 200, ContactMs: 30, AsOfMs: 20, BegunMs: 40}
	first.Partitions[0].Parting = &meta.Parting{End: -1}
	s.refuses("a parting that cannot be", first, InvalidRequest, "it parts from its source")
	first.Partitions[0].Parting = &parting
	s.must(first)
	if p := s.topic("t").Partitions[0].Mirror.Parting; p == nil || *p != parting {
		t.Errorf("%+v", p)
	}
	if p := s.topic("t").Partitions[0]; p.IsMirror() || p.LeaderEpoch != 5002 || !slices.Equal(p.Mirror.Lineages, []meta.Lineage{{Cluster: "origin"}, {Cluster: "here", Epoch: 5001, Start: 7}}) {
		t.Errorf("%+v, %+v", p, p.Mirror)
	}
	if o := s.topic("t"); o.Mirror.State != meta.MirrorPromoting || !o.IsMirror() {
		t.Errorf("%+v", o.Mirror)
	}
	s.must(s.decide("t", 1, 0))
	s.must(s.decide("t", 2, 3))
	last := finish(1, 0)
	last.Partitions = append(last.Partitions, finish(2, 3).Partitions[0])
	s.must(last)
	o := s.topic("t")
	if p := o.Partitions[1]; p.LeaderEpoch != 2 || !slices.Equal(p.Mirror.Lineages, []meta.Lineage{{Cluster: "here", Epoch: 1, Start: 0}}) {
		t.Errorf("%+v, %+v", p, p.Mirror)
	}
	if o.Mirror.State != meta.MirrorPromoted || o.IsMirror() || o.Mirror.Link != (meta.UUID{15: 1}) {
		t.Errorf("%+v", o.Mirror)
	}
	s.must(s.of(PromoteMirrors, "t"))
	s.createTopic("ordinary")
	s.refuses("an ordinary topic", s.of(PromoteMirrors, "ordinary"), InvalidRequest, "mirrors nothing")
}

// TestTopicsAreRestored proves that an ordinary topic, or one that was promoted, mirrors the one that has taken over from it: in new leader epochs, with the fork as its last lineage, which stays when the partition is cut; that nothing but a cut, or emptying, comes
// next; and that a topic which came from elsewhere, or has fewer partitions, is refused.
func TestTopicsAreRestored(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "promoted", 1))
	s.createTopic("t")
	restore := func(topic string, change func(a *MirrorTopic)) *LinksChange {
		o := s.topic(topic)
		a := MirrorTopic{ID: o.ID, Mirror: &meta.Mirror{Link: meta.UUID{15: 2}, Topic: topic, TopicID: meta.UUID{9}, Path: []string{"c2"}}}
		for i := range o.Partitions {
			a.Forks = append(a.Forks, meta.MirrorFork{From: "here", Topic: o.ID, Epoch: 3000, Offset: int64(10 * i)})
		}
		change(&a)
		return &LinksChange{Kind: RestoreMirrors, Topics: []MirrorTopic{a}}
	}
	as := func(*MirrorTopic) {}
	count := len(s.topic("t").Partitions)
	s.refuses("one from elsewhere", restore("t", func(a *MirrorTopic) { a.Forks[0].From = "c7" }), PolicyViolation, "comes from the cluster \"c7\"")
	s.refuses("another topic of the name", restore("t", func(a *MirrorTopic) { a.Forks[0].Topic = meta.UUID{5} }), PolicyViolation, "from another topic of that name")
	s.refuses("no fork", restore("t", func(a *MirrorTopic) { a.Forks[0] = meta.MirrorFork{} }), PolicyViolation, "and not from this one")
	s.refuses("fewer partitions", restore("t", func(a *MirrorTopic) { a.Forks = a.Forks[:len(a.Forks)-1] }), InvalidPartitions, "at the source")
	s.refuses("epoch 0", restore("t", func(a *MirrorTopic) { a.Forks[0].Epoch = 0 }), InvalidRequest, "which cannot be")
	s.refuses("a topic without an id", restore("t", func(a *MirrorTopic) { a.Mirror.TopicID = meta.UUID{} }), InvalidRequest, "has an id")
	s.refuses("a path over here", restore("t", func(a *MirrorTopic) { a.Mirror.Path = []string{"here", "c2"} }), PolicyViolation, "is not mirrored back")
	s.refuses("no such link", restore("t", func(a *MirrorTopic) { a.Mirror.Link = meta.UUID{15: 9} }), UnknownLink, "")
	s.refuses("a mirror of another topic", restore("promoted", as), PolicyViolation, "mirrors another one")
	before := s.topic("t")
	s.must(restore("t", as))
	for i, p := range s.topic("t").Partitions {
		want := []meta.Lineage{{Cluster: "here"}, {Cluster: "c2", Epoch: 3000, Start: int64(10 * i)}}
		if i == 0 {
			want = want[1:]
		}
		if !p.IsMirror() || p.Mirror.State != meta.PartitionRestoring || p.LeaderEpoch != before.Partitions[i].LeaderEpoch+1 || !slices.Equal(p.Mirror.Lineages, want) || p.Mirror.Begin != (meta.MirrorBegin{IsDecided: true, Topic: meta.UUID{9}}) {
			t.Errorf("partition %d of %d: %+v, %+v", i, count, p, p.Mirror)
		}
	}
	s.refuses("it mirrors at once", s.at(SetMirrorStates, "t", 0, func(a *MirrorPartition) { a.State = meta.PartitionMirrors }), InvalidUpdate, "is to be cut first")
	s.refuses("one that mirrors is restored", s.at(SetMirrorStates, "promoted", 0, func(a *MirrorPartition) { a.State = meta.PartitionRestoring }), InvalidRequest, "restored with its topic")
	s.must(s.at(CutMirrors, "t", 0, func(a *MirrorPartition) { a.Cut = meta.Cut{Number: 1} }))
	if p := s.topic("t").Partitions[0].Mirror; p.State != meta.PartitionMirrors || len(p.Lineages) != 1 || p.LastCut() != (meta.Cut{Number: 1}) {
		t.Errorf("after the cut: %+v", p)
	}

	s.must(s.of(PromoteMirrors, "promoted"))
	s.must(s.decide("promoted", 0, 7, meta.MirrorDecision{Producer: 7, Epoch: 4, MarkerEpoch: 5, First: 3}))
	s.must(s.at(FinishPromotions, "promoted", 0, func(a *MirrorPartition) { a.End = 8 }))
	s.must(restore("promoted", func(a *MirrorTopic) { a.Forks[0].Offset = 50 }))
	s.must(s.at(CutMirrors, "promoted", 0, func(a *MirrorPartition) { a.Cut = meta.Cut{Number: 1, Offset: 40} }))
	if p := s.topic("promoted").Partitions[0].Mirror; !slices.Equal(p.Lineages, []meta.Lineage{{Cluster: "origin"}, {Cluster: "here", Epoch: 1, Start: 7}, {Cluster: "c2", Epoch: 3000, Start: 50}}) || p.IsDecided || p.Decisions != nil {
		t.Errorf("it has %+v", p)
	}
	s.must(s.of(PromoteMirrors, "t"))
	for i, p := range s.topic("t").Partitions {
		if want := []meta.Lineage{{Cluster: "here"}}; p.Mirror.State != meta.PartitionPromoting || i > 0 && !slices.Equal(p.Mirror.Lineages, want) {
			t.Errorf("partition %d of a topic that is promoted while it is restored: %+v", i, p.Mirror)
		}
	}
}

// decide asks for the decision of a partition, as who has seen all others does.
func (s *linksRig) decide(name string, number int32, end int64, list ...meta.MirrorDecision) *LinksChange {
	q := s.at(DecidePromotions, name, number, func(a *MirrorPartition) { a.End, a.Decisions = end, list })
	q.LinkID = s.topic(name).Mirror.Link
	q.Decided = DecidedSum(s.m, q.LinkID)
	return q
}

// TestDecisionsAreMadeOnce proves that it is decided once how the transactions of a partition end, in a leader epoch of its own, by its present leader's word, and by somebody who has seen what is decided for
// the other partitions of the link; and that nothing changes it then.
func TestDecisionsAreMadeOnce(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 3), mirrorOf(1, "u", 1), mirrorOf(2, "v", 1))
	one := meta.MirrorDecision{Producer: 7, Epoch: 4, MarkerEpoch: 5, First: 100, Commit: true}
	s.refuses("nobody promotes it", s.decide("t", 0, 7, one), InvalidUpdate, "is not being promoted")
	for _, name := range []string{"t", "u", "v"} {
		s.must(s.of(PromoteMirrors, name))
	}
	late := s.decide("t", 0, 7, one)
	late.Partitions[0].LeaderEpoch--
	s.refuses("an earlier leader", late, FencedLeaderEpoch, "")
	s.refuses("an end below 0", s.decide("t", 0, -1, one), InvalidRequest, "lineages")
	s.refuses("a decision that cannot be", s.decide("t", 0, 7, meta.MirrorDecision{Producer: -1}), InvalidRequest, "transaction")
	unseen := s.decide("u", 0, 9, one)
	other := s.decide("v", 0, 9)
	q := s.decide("t", 0, 7, one)
	q.Partitions = append(q.Partitions, s.decide("t", 1, 8).Partitions...)
	s.must(q)
	p := s.topic("t").Partitions
	if !p[0].Mirror.IsDecided || !slices.Equal(p[0].Mirror.Decisions, []meta.MirrorDecision{one}) || p[0].LeaderEpoch != 1 || p[0].Mirror.State != meta.PartitionPromoting ||
		!slices.Equal(p[0].Mirror.Lineages, []meta.Lineage{{Cluster: "origin"}, {Cluster: "here", Epoch: 1, Start: 7}}) {
		t.Errorf("%+v, %+v", p[0], p[0].Mirror)
	}
	if !p[1].Mirror.IsDecided || p[1].Mirror.Decisions != nil || p[2].Mirror.IsDecided {
		t.Errorf("%+v, %+v", p[1].Mirror, p[2].Mirror)
	}
	s.refuses("who has not seen the others", unseen, InvalidUpdate, "for other partitions by now")
	differs := s.at(DecidePromotions, "t", 0, func(a *MirrorPartition) { a.End = 7 })
	differs.LinkID, differs.Decided = q.LinkID, q.Decided
	s.refuses("who decides otherwise, and has not seen it", differs, InvalidUpdate, "for other partitions by now")
	strange := s.decide("u", 0, 9)
	strange.LinkID, strange.Decided = meta.UUID{15: 2}, DecidedSum(s.m, meta.UUID{15: 2})
	s.refuses("another link", strange, InvalidRequest, "does not mirror by the link")
	s.must(other) // of another link
	before := meta.Encode(s.m)
	if refused := s.ask(s.decide("t", 0, 9, meta.MirrorDecision{Producer: 8, MarkerEpoch: 1})); refused[0] != nil || !bytes.Equal(before, meta.Encode(s.m)) {
		t.Errorf("a second decision: %v, %+v", refused, s.topic("t").Partitions[0].Mirror)
	}
	for kind, change := range map[LinksKind]func(a *MirrorPartition){
		SetMirrorStates: func(a *MirrorPartition) { a.State = meta.PartitionMirrors },
		CutMirrors:      func(a *MirrorPartition) { a.Cut = meta.Cut{Number: 1, Offset: 3} },
	} {
		s.refuses(string(kind), s.at(kind, "t", 0, change), InvalidUpdate, "was promoted, or is just being promoted")
	}
	s.must(s.at(FinishPromotions, "t", 0, func(a *MirrorPartition) { a.End = 8 }))
	if p := s.topic("t").Partitions[0]; !slices.Equal(p.Mirror.Decisions, []meta.MirrorDecision{one}) || p.LeaderEpoch != 2 {
		t.Errorf("%+v, %+v", p, p.Mirror)
	}
	s.must(s.decide("u", 0, 9, one))
}

// TestMirrorEndsWithItsTopic proves that nothing of a mirror is left when its topic is deleted: a topic that is made under the same name is an ordinary one, and a new mirror of
// the name counts its cuts anew.
func TestMirrorEndsWithItsTopic(t *testing.T) {
	s := newMirrorRig(t, mirrorOf(1, "t", 1))
	cut := func(number int32) *LinksChange {
		return s.at(CutMirrors, "t", 0, func(a *MirrorPartition) { a.Cut = meta.Cut{Number: number, Offset: 4} })
	}
	s.must(cut(1))
	gone := cut(2)
	s.deleteTopic("t")
	s.refuses("a cut of the deleted one", gone, UnknownTopicID, "")
	if made := s.createTopic("t"); made.Err != nil || s.topic("t").Mirror != nil || s.topic("t").Partitions[0].Mirror != nil {
		t.Errorf("%v: %+v", made.Err, s.topic("t"))
	}
	s.refuses("a cut of the deleted one", gone, UnknownTopicID, "")
	s.deleteTopic("t")
	s.must(&LinksChange{Kind: CreateMirrors, Topics: []MirrorTopic{mirrorOf(1, "t", 1)}})
	if got := s.topic("t").Partitions[0].Mirror; len(got.Cuts) != 0 {
		t.Errorf("%+v", got)
	}
	s.must(cut(1))
}

// TestChangeLinksIsOneEntry proves that a controller proposes the topics of one change as one entry, that it needs more of them for what is larger, each topic or partition whole,
// and that the results are those of the whole change.
func TestChangeLinksIsOneEntry(t *testing.T) {
	c := newCluster(t, nil)
	ctl := c.controller()
	if err := ctl.Bootstrap(t.Context(), "AAAAAAAAAAAAAAAAAAAAAA"); err != nil {
		t.Fatal(err)
	}
	b := brokerOfLevel(0, meta.LatestLevel, 0)
	b.State = meta.BrokerActive
	if err := c.propose(t.Context(), 0, meta.Append(nil, b)); err != nil {
		t.Fatal(err)
	}
	ask := func(q *LinksChange) []*Error {
		t.Helper()
		results, refused, err := ChangeLinks(t.Context(), ctl, q)
		if refused != nil || err != nil {
			t.Fatal(refused, err)
		}
		return results
	}
	if results := ask(creation(linkTo(1, "north"))); results != nil {
		t.Errorf("a link has %d results", len(results))
	}
	if _, refused, err := ChangeLinks(t.Context(), ctl, creation(linkTo(2, "north"))); refused == nil || err != nil {
		t.Errorf("two of one name: %v, %v", refused, err)
	}
	var topics []MirrorTopic
	for i := range 20 {
		topics = append(topics, mirrorOf(1, fmt.Sprint("t", i), 450))
		topics[i].ReplicationFactor = 1
	}
	topics[7].Mirror.Link = meta.UUID{}
	before := c.applied()
	results := ask(&LinksChange{Kind: CreateMirrors, Topics: topics})
	if got := c.applied() - before; got != 1 || len(results) != 20 || results[7] == nil || results[6] != nil || results[19] != nil {
		t.Errorf("%d entries: %v", got, results)
	}
	var parts []MirrorPartition
	for _, topic := range topics[:2] {
		for i := range int32(450) {
			parts = append(parts, MirrorPartition{Topic: c.Image().Topic(topic.Name).ID, Number: i, Cut: meta.Cut{Number: 1, Offset: 5}})
		}
	}
	parts[3].LeaderEpoch = 9
	before = c.applied()
	results = ask(&LinksChange{Kind: CutMirrors, Partitions: parts})
	if got := c.applied() - before; got != 1 || len(results) != 900 || results[3] == nil || results[899] != nil {
		t.Errorf("%d entries, %d results", got, len(results))
	}
	for i, want := range map[int32]int{2: 1, 3: 0, 4: 1} {
		if got := c.Image().Topic("t0").Partitions[i]; len(got.Mirror.Cuts) != want || int(got.LeaderEpoch) != want {
			t.Errorf("partition %d: %+v", i, got)
		}
	}
}

// TestChangesOfLinksAreParted proves that a change that is larger than an entry is made in parts, none of which has half of a topic's or a partition's records, and that a topic
// is promoted with its last partition, in whichever part.
func TestChangesOfLinksAreParted(t *testing.T) {
	for _, limit := range []int{1, 100, 300, 1000} {
		s := newMirrorRig(t)
		q := &LinksChange{Kind: CreateMirrors, Topics: []MirrorTopic{mirrorOf(1, "a", 2), mirrorOf(1, "b", 3), mirrorOf(1, "c", 1)}}
		run := func(q *LinksChange) (parts int) {
			t.Helper()
			n := len(q.Topics) + len(q.Partitions)
			for from := 0; from < n; parts++ {
				r := s.rules()
				r.Limit = limit
				d, some, refused := Links{Rules: r, NewID: meta.NewUUID, MaxPartitions: 20}.Change(q, from)
				if refused != nil || len(some) == 0 || d.More != (from+len(some) < n) {
					t.Fatalf("%v: %v, %d results from %d on", q, refused, len(some), from)
				}
				for _, e := range some {
					if e != nil {
						t.Fatal(e)
					}
				}
				s.apply(d.Records)
				from += len(some)
			}
			return parts
		}
		made := run(q)
		promote := &LinksChange{Kind: PromoteMirrors}
		decide, finish := &LinksChange{Kind: DecidePromotions, LinkID: meta.UUID{15: 1}}, &LinksChange{Kind: FinishPromotions}
		for _, name := range []string{"a", "b", "c"} {
			promote.Topics = append(promote.Topics, s.of(PromoteMirrors, name).Topics...)
			for i := range s.topic(name).Partitions {
				decide.Partitions = append(decide.Partitions, s.at(DecidePromotions, name, int32(i), func(a *MirrorPartition) { a.End = 5 }).Partitions...)
				finish.Partitions = append(finish.Partitions, s.at(FinishPromotions, name, int32(i), func(a *MirrorPartition) { a.End, a.LeaderEpoch = 5, a.LeaderEpoch+1 }).Partitions...)
			}
		}
		run(promote)
		decided, finished := run(decide), run(finish)
		if limit == 1 && (made != 3 || decided != 6 || finished != 6) || limit == 1000 && (made != 1 || decided != 1 || finished != 1) {
			t.Errorf("with a limit of %d there are %d, %d and %d parts", limit, made, decided, finished)
		}
		for _, name := range []string{"a", "b", "c"} {
			if o := s.topic(name); o.Mirror.State != meta.MirrorPromoted {
				t.Errorf("%s is %+v", name, o.Mirror)
			}
		}
	}
}

// TestAgentsOfLinks proves that a link that is reached by agents learns its source once, that the first agent which uses a token keeps it, that tokens are revoked, that each change may be
// asked for twice, and that tokens which have ended unused make room for others.
func TestAgentsOfLinks(t *testing.T) {
	s := newLinksRig(t, meta.LatestLevel)
	l := linkTo(1, "north")
	l.Source, l.Settings = "", append(l.Settings, meta.LinkSetting{Key: meta.ViaSetting, Value: meta.ViaAgent})
	s.must(creation(l))
	change := func(c LinkChange) *LinksChange { return &LinksChange{Kind: ChangeLink, LinkID: l.ID, Change: &c} }
	agent := func(c AgentChange) *LinksChange { return change(LinkChange{Agent: &c}) }
	now := func() *meta.Link { return s.m.Links().Find(l.ID) }
	s.refuses("its own cluster", change(LinkChange{Source: "here"}), PolicyViolation, "The cluster here is this one")
	s.must(change(LinkChange{Source: "s"}))
	s.must(change(LinkChange{Source: "another"}))
	if now().Source != "s" {
		t.Errorf("the source is %q", now().Source)
	}
	token := func(n byte, expires int64) *meta.LinkAgent {
		return &meta.LinkAgent{Token: credential.TokenID{n}, Expires: expires}
	}
	use := func(n, holder byte) *LinksChange {
		return agent(AgentChange{Used: &AgentUse{Token: credential.TokenID{n}, Holder: credential.PublicKey{holder}}})
	}
	for range 2 {
		s.must(agent(AgentChange{Made: token(2, 100), Now: 50}))
		s.must(agent(AgentChange{Made: token(1, 100), Now: 50}))
	}
	s.refuses("a long life", agent(AgentChange{Made: token(5, 51+maxTokenLife.Milliseconds()), Now: 50}), InvalidRequest, "within")
	s.refuses("an unknown token", use(3, 7), UnknownToken, "has no token 0300000000000000 for an agent")
	for range 2 {
		s.must(use(2, 7))
	}
	s.refuses("another agent", use(2, 8), DuplicateResource, "was used by another agent")
	s.must(agent(AgentChange{Made: token(4, 300), Now: 200}))
	if a := now().Agents; len(a) != 2 || a[0].Token[0] != 2 || a[0].Holder[0] != 7 || a[1].Token[0] != 4 {
		t.Errorf("the agents are %+v: the token that has ended unused is forgotten, and the one that was used is not", a)
	}
	gone := credential.TokenID{4}
	s.must(agent(AgentChange{Revoked: &gone}))
	s.refuses("a token that was revoked", use(4, 7), UnknownToken, "has no token")
	for n := byte(10); len(now().Agents) < meta.MaxLinkAgents; n++ {
		s.must(agent(AgentChange{Made: token(n, 300), Now: 200}))
	}
	s.refuses("one too many", agent(AgentChange{Made: token(99, 300), Now: 200}), PolicyViolation, "cannot have more")
}
