package meta

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/config"
)

// mirrorOf mirrors a topic by the link of a number.
func mirrorOf(link byte) *Mirror {
	return &Mirror{Link: UUID{15: link}, Topic: "s", TopicID: UUID{9}, Path: []string{"origin", fmt.Sprint(link)}, State: MirrorActive}
}

func (r *Mirror) with(change func(r *Mirror)) *Mirror {
	next := *r
	next.Path = slices.Clone(r.Path)
	change(&next)
	return &next
}

// mirrorModel is what links and mirrors should be, in their simplest form.
type mirrorModel struct {
	rnd    *rand.Rand
	links  map[UUID]Link
	topics map[UUID]*mirrorModelTopic
	next   byte
	entry  []byte
}

type mirrorModelTopic struct {
	name   string
	mirror *Mirror
	parts  []Partition
}

func (md *mirrorModel) pick() (UUID, *mirrorModelTopic) {
	ids := slices.SortedFunc(maps.Keys(md.topics), func(a, b UUID) int { return int(a[15]) - int(b[15]) })
	if len(ids) == 0 {
		return UUID{}, &mirrorModelTopic{}
	}
	id := ids[md.rnd.IntN(len(ids))]
	return id, md.topics[id]
}

// follow is what a change of a topic's mirror does to its partitions.
func (mt *mirrorModelTopic) follow() {
	for i := range mt.parts {
		p := mt.parts[i].Mirror
		if p == nil {
			continue
		}
		next := *p
		switch isPromoted := p.State >= PartitionPromoting; {
		case mt.mirror.State == MirrorPromoting && !isPromoted:
			next.State, next.Reason = PartitionPromoting, ""
		case mt.mirror.State < MirrorPromoting && isPromoted:
			next.State, next.Reason, next.IsDecided, next.Decisions, next.Parting = PartitionMirrors, "", false, nil, nil
		}
		mt.parts[i].Mirror = &next
	}
}

func (md *mirrorModel) isUsed(link UUID) bool {
	for _, mt := range md.topics {
		if mt.mirror != nil && mt.mirror.Link == link && mt.mirror.State != MirrorPromoted {
			return true
		}
	}
	return false
}

// step makes a record that fits, and does the same here.
func (md *mirrorModel) step() {
	id, mt := md.pick()
	add := func(r Record) { md.entry = Append(md.entry, r) }
	n := byte(1 + md.rnd.IntN(3))
	link := linkOf(n, fmt.Sprint("l", n))
	_, hasLink := md.links[link.ID]
	i := md.rnd.IntN(max(1, len(mt.parts)))
	switch kind := md.rnd.IntN(10); {
	case kind == 0:
		link.Paused = md.rnd.IntN(2) == 0
		md.links[link.ID] = link
		add(LinkSet{link})
	case kind == 1 && hasLink && !md.isUsed(link.ID):
		delete(md.links, link.ID)
		for _, other := range md.topics {
			if other.mirror != nil && other.mirror.Link == link.ID {
				other.mirror = other.mirror.with(func(r *Mirror) { r.Link = UUID{} })
			}
		}
		add(LinkRemoved{link.ID})
	case kind == 2 && len(md.topics) < 4:
		md.next++
		id, mt := UUID{15: md.next}, &mirrorModelTopic{name: fmt.Sprint("t", md.rnd.IntN(1000), "-", md.next), parts: make([]Partition, 1+md.rnd.IntN(3))}
		md.topics[id] = mt
		add(TopicCreated{ID: id, Name: mt.name})
		add(PartitionsSet{Topic: id, Partitions: slices.Clone(mt.parts)})
	case len(mt.parts) == 0:
	case kind == 3 && md.rnd.IntN(3) == 0:
		delete(md.topics, id)
		add(TopicDeleted{id})
	case kind == 4 && hasLink:
		next := mirrorOf(n).with(func(r *Mirror) { r.State = MirrorActive + MirrorState(md.rnd.IntN(4)) })
		if next.State == MirrorPromoted && slices.ContainsFunc(mt.parts, func(p Partition) bool { return p.IsMirror() }) {
			return
		}
		mt.mirror = next
		mt.follow()
		add(MirrorSet{id, next})
	case kind == 5 && mt.mirror != nil && md.rnd.IntN(4) == 0:
		if slices.ContainsFunc(mt.parts, func(p Partition) bool { return p.Mirror.LastCut() != Cut{} }) {
			return
		}
		mt.mirror = nil
		for i := range mt.parts {
			mt.parts[i].Mirror = nil
		}
		add(MirrorSet{Topic: id})
	case kind == 6:
		p := &mt.parts[i]
		p.PartitionEpoch++
		p.LeaderEpoch += int32(md.rnd.IntN(3))
		p.Replicas = []int32{int32(md.rnd.IntN(3))}
		run := []Partition{*p}
		if i == len(mt.parts)-1 && len(mt.parts) < 5 {
			mt.parts = append(mt.parts, Partition{Leader: 1})
			run = append(run, Partition{Leader: 1})
		}
		add(PartitionsSet{Topic: id, First: int32(i), Partitions: run})
	case kind == 7:
		r := config.Resource{Type: config.Topic, Name: mt.name}
		add(ConfigSet{r, "k", fmt.Sprint(md.rnd.IntN(5))})
	case mt.mirror != nil:
		md.mirrorPartition(id, mt, i)
	}
}

// mirrorPartition sets how far a partition mirrors, perhaps with a cut.
func (md *mirrorModel) mirrorPartition(id UUID, mt *mirrorModelTopic, i int) {
	p := &mt.parts[i]
	old := &PartitionMirror{Lineages: []Lineage{{"origin", 0, 0}}}
	if p.Mirror != nil {
		old = p.Mirror
	}
	if md.rnd.IntN(2) == 0 {
		p.LeaderEpoch++
		p.PartitionEpoch++
		md.entry = Append(md.entry, PartitionChanged{Topic: id, Partition: int32(i), Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch})
		old = old.WithCut(int64(md.rnd.IntN(50))).WithLineage(Lineage{"origin", p.LeaderEpoch, int64(md.rnd.IntN(50))})
	}
	next := *old
	switch mt.mirror.State {
	case MirrorPromoting:
		next.State = PartitionPromoting + PartitionMirrorState(md.rnd.IntN(2))
	case MirrorPromoted:
		next.State = PartitionPromoted
	default:
		next.State = PartitionMirrors + PartitionMirrorState(md.rnd.IntN(7))
	}
	if next.State >= PartitionPromoting && !next.IsDecided && md.rnd.IntN(2) == 0 {
		next.IsDecided, next.Decisions = true, []MirrorDecision{{Producer: int64(md.rnd.IntN(50)), MarkerEpoch: 1, First: int64(md.rnd.IntN(3)) - 1, Commit: true}}[:md.rnd.IntN(2)]
	}
	if next.Reason = fmt.Sprint(md.rnd.IntN(5)); next.State == PartitionGap || next.State == PartitionTombstonesLost {
		next.Gap = OffsetRange{3, 5}
	}
	if md.rnd.IntN(3) == 0 {
		next.Begin, next.TombstonesSince = MirrorBegin{true, int64(md.rnd.IntN(9)), UUID{15: byte(md.rnd.IntN(3))}}, int64(md.rnd.IntN(3))
	}
	next.Parting = nil
	if next.State == PartitionPromoted && md.rnd.IntN(2) == 0 {
		next.Parting = &Parting{PartitionMirrors, int64(md.rnd.IntN(9)), int64(md.rnd.IntN(9)), -1, int64(md.rnd.IntN(3)), 0, 1}
	}
	p.Mirror = &next
	md.entry = Append(md.entry, PartitionMirrorSet{id, int32(i), next})
}

func (md *mirrorModel) check(t *testing.T, m *Image) {
	t.Helper()
	links, topics := map[UUID]Link{}, map[UUID]*mirrorModelTopic{}
	for _, l := range m.Links().All() {
		links[l.ID] = *l
	}
	byLink := map[UUID][]string{}
	for mt := range m.Topics() {
		topics[mt.ID] = &mirrorModelTopic{mt.Name, mt.Mirror, mt.Partitions}
		if mt.Mirror != nil {
			byLink[mt.Mirror.Link] = append(byLink[mt.Mirror.Link], mt.Name)
		}
		for i := range mt.Partitions {
			if p := &mt.Partitions[i]; p.IsMirror() && (mt.Mirror == nil || !mt.IsMirror()) {
				t.Fatalf("%s-%d mirrors, and its topic does not", mt.Name, i)
			}
		}
	}
	if d := cmp.Diff(md.links, links); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff(md.topics, topics, cmp.AllowUnexported(mirrorModelTopic{})); d != "" {
		t.Fatal(d)
	}
	for id := range links {
		var got []string
		for mt := range m.Mirrors(id) {
			got = append(got, mt.Name)
		}
		slices.Sort(got)
		want := byLink[id]
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("link %s has the mirrors %v, and not %v", id, got, want)
		}
	}
}

// TestMirrorsAreTheModel proves, for random histories, that an image has the links and mirrors that its records say, that no change of a topic, of its partitions or of its
// configs loses a mirror, that the images before stay as they were, that a snapshot keeps everything, and that the delta has every difference.
func TestMirrorsAreTheModel(t *testing.T) {
	m, _, err := Apply(Empty(), Append(Append(nil, ClusterCreated{"here", 1}), LevelSet{LatestLevel}))
	if err != nil {
		t.Fatal(err)
	}
	md := &mirrorModel{rnd: rand.New(rand.NewPCG(9, 10)), links: map[UUID]Link{}, topics: map[UUID]*mirrorModelTopic{}}
	seen := map[string]int{}
	for range 1500 {
		md.entry = nil
		for range 1 + md.rnd.IntN(3) {
			md.step()
		}
		next, delta := applyStep(t, m, md.entry)
		md.check(t, next)
		want := Diff(m, next)
		for mt := range next.Topics() {
			old := m.TopicByID(mt.ID)
			if _, isTold := want.Topics[mt.ID]; !isTold && (old == nil || !cmp.Equal(old.Mirror, mt.Mirror) || !cmp.Equal(old.Partitions, mt.Partitions)) {
				t.Fatalf("the difference lacks topic %s", mt.Name)
			}
		}
		for id := range want.Topics {
			if got := delta.Topics[id]; got.New != next.TopicByID(id) || (got.Old == nil) != (m.TopicByID(id) == nil) {
				t.Fatalf("the delta has %+v of topic %s", got, id)
			}
		}
		for id, c := range want.Links {
			if got := delta.Links[id]; got != c {
				t.Fatalf("the delta has %+v of link %s, and not %+v", got, id, c)
			}
		}
		m = next
		for mt := range m.Topics() {
			if mt.Mirror == nil {
				continue
			}
			seen[fmt.Sprint("topic ", mt.Mirror.State)]++
			if mt.Mirror.Link == (UUID{}) {
				seen["without its link"]++
			}
			for i := range mt.Partitions {
				if p := mt.Partitions[i].Mirror; p != nil {
					seen[fmt.Sprint("partition ", p.State)]++
					seen[fmt.Sprint("cuts ", len(p.Cuts))]++
					seen[fmt.Sprint("decided ", p.IsDecided, len(p.Decisions))]++
				}
			}
		}
	}
	for _, what := range []string{
		"topic 1", "topic 2", "topic 3", "topic 4", "without its link",
		"partition 1", "partition 2", "partition 3", "partition 4", "partition 5", "partition 6", "partition 7", "cuts 0", "cuts 3",
		"decided true 0", "decided true 1",
	} {
		if seen[what] == 0 {
			t.Errorf("it never happened: %s; %v", what, seen)
		}
	}
}

// TestMirrorsAreRefused proves that an image never has a mirror without its link, one that leads back to the cluster, or one that lacks something or has too much of it.
func TestMirrorsAreRefused(t *testing.T) {
	m, id, one := linked(t), UUID{15: 1}, mirrorOf(1)
	checkRefused(
		t, m,
		MirrorSet{UUID{15: 9}, one},
		MirrorSet{Topic: id},
		PartitionMirrorSet{Topic: id, PartitionMirror: PartitionMirror{State: PartitionMirrors}}, // the topic mirrors nothing
		MirrorSet{id, one.with(func(r *Mirror) { r.Link = UUID{15: 3} })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Link = UUID{} })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Link = UUID{15: 2} })}, // whose source is another one
		MirrorSet{id, one.with(func(r *Mirror) { r.Topic = "" })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Topic = strings.Repeat("x", maxSourceTopic+1) })},
		MirrorSet{id, one.with(func(r *Mirror) { r.State = 0 })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Path = nil })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Path[0] = "" })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Path[0] = "1" })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Path[0] = "here" })},
		MirrorSet{id, one.with(func(r *Mirror) { r.Path[0] = strings.Repeat("x", maxClusterID+1) })},
		MirrorSet{id, one.with(func(r *Mirror) {
			r.Path = nil
			for i := range MaxPath {
				r.Path = append(r.Path, fmt.Sprint("c", i))
			}
			r.Path = append(r.Path, "1")
		})},
	)
	m, _ = applyStep(t, m, Append(nil, MirrorSet{id, one}))
	of := func(change func(p *PartitionMirror)) PartitionMirrorSet {
		p := PartitionMirror{State: PartitionMirrors, Lineages: []Lineage{{"a", 3, 0}, {"b", 3, 7}}}
		change(&p)
		return PartitionMirrorSet{id, 0, p}
	}
	var lineages []Lineage
	for i := range int64(MaxLineages + 1) {
		lineages = append(lineages, Lineage{"a", 1, i})
	}
	checkRefused(
		t, m,
		LinkRemoved{UUID{15: 1}},
		PartitionMirrorSet{id, 3, PartitionMirror{State: PartitionMirrors}},
		PartitionMirrorSet{UUID{15: 9}, 0, PartitionMirror{State: PartitionMirrors}},
		of(func(p *PartitionMirror) { p.State = 0 }),
		of(func(p *PartitionMirror) { p.State = PartitionPromoting }),
		of(func(p *PartitionMirror) { p.State = PartitionPromoted }),
		of(func(p *PartitionMirror) { p.State = PartitionGap }),
		of(func(p *PartitionMirror) { p.State = PartitionTombstonesLost }),
		of(func(p *PartitionMirror) { p.Begin = MirrorBegin{true, -1, id} }),
		of(func(p *PartitionMirror) { p.Begin.Offset = 1 }),
		of(func(p *PartitionMirror) { p.Begin.Topic = id }),
		of(func(p *PartitionMirror) { p.TombstonesSince = -1 }),
		of(func(p *PartitionMirror) { p.Reason = strings.Repeat("x", MaxMirrorReason+1) }),
		of(func(p *PartitionMirror) { p.Gap = OffsetRange{-1, 5} }),
		of(func(p *PartitionMirror) { p.Gap = OffsetRange{5, 5} }),
		of(func(p *PartitionMirror) { p.Lineages[0].Cluster = "" }),
		of(func(p *PartitionMirror) { p.Lineages[0].Epoch = -1 }),
		of(func(p *PartitionMirror) { p.Lineages[0].Epoch = 4 }),
		of(func(p *PartitionMirror) { p.Lineages[0].Start = -1 }),
		of(func(p *PartitionMirror) { p.Lineages[0].Start = 7 }),
		of(func(p *PartitionMirror) { p.Lineages = lineages }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{State: PartitionPromoting} }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{End: -1} }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{SourceEnd: -2} }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{Bytes: -2} }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{ContactMs: -1} }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{AsOfMs: -1} }),
		of(func(p *PartitionMirror) { p.Parting = &Parting{BegunMs: -1} }),
	)
	promoting := one.with(func(r *Mirror) { r.State = MirrorPromoting })
	promoted := one.with(func(r *Mirror) { r.State = MirrorPromoted })
	m, _ = applyStep(t, m, Append(Append(nil, of(func(*PartitionMirror) {})), MirrorSet{id, promoting}))
	checkRefused(t, m, of(func(*PartitionMirror) {}), MirrorSet{id, promoted}, LinkRemoved{UUID{15: 1}})
	decided := func(change func(p *PartitionMirror)) PartitionMirrorSet {
		return of(func(p *PartitionMirror) {
			p.State, p.IsDecided, p.Decisions = PartitionPromoting, true, []MirrorDecision{{7, 4, 5, 100, true, 0}}
			change(p)
		})
	}
	checkRefused(
		t, m,
		decided(func(p *PartitionMirror) { p.Decisions = make([]MirrorDecision, MaxDecisions+1) }),
		decided(func(p *PartitionMirror) { p.Decisions[0].Producer = -1 }),
		decided(func(p *PartitionMirror) { p.Decisions[0].MarkerEpoch = 3 }),
		decided(func(p *PartitionMirror) { p.Decisions[0].First = -2 }),
	)
	m, _ = applyStep(t, m, Append(nil, decided(func(*PartitionMirror) {})))
	checkRefused( // what is decided stays
		t, m,
		decided(func(p *PartitionMirror) { p.Decisions[0].Commit = false }),
		decided(func(p *PartitionMirror) { p.Decisions = nil }),
		decided(func(p *PartitionMirror) { p.IsDecided, p.Decisions = false, nil }),
		decided(func(p *PartitionMirror) { p.State, p.IsDecided, p.Decisions = PartitionPromoted, false, nil }),
	)
	again, _ := applyStep(t, m, Append(nil, MirrorSet{id, one}))
	if p := again.TopicByID(id).Partitions[0].Mirror; p.State != PartitionMirrors || p.IsDecided || p.Decisions != nil {
		t.Errorf("it mirrors again, and has %+v", p)
	}
	m, _ = applyStep(t, m, Append(Append(nil, decided(func(p *PartitionMirror) { p.State = PartitionPromoted })), MirrorSet{id, promoted}))
	checkRefused(t, m, decided(func(*PartitionMirror) {}))
}

// TestCutsNeedAnEpoch proves that a cut is refused unless its entry has raised the partition's leader epoch before, that numbers of cuts never go back, and that a topic with
// cuts does not forget them.
func TestCutsNeedAnEpoch(t *testing.T) {
	m, id := linked(t), UUID{15: 1}
	m, _ = applyStep(t, m, Append(nil, MirrorSet{id, mirrorOf(1)}))
	raise := func(b []byte, epoch int32) []byte {
		return Append(b, PartitionChanged{Topic: id, LeaderEpoch: epoch, PartitionEpoch: epoch})
	}
	none := &PartitionMirror{State: PartitionMirrors}
	first := none.WithCut(40)
	set := func(b []byte, p *PartitionMirror) []byte { return Append(b, PartitionMirrorSet{id, 0, *p}) }
	refused := func(what string, m *Image, entry []byte) {
		t.Helper()
		if _, _, err := Apply(m, entry); err == nil {
			t.Errorf("it is not refused: %s", what)
		}
	}
	refused("no epoch", m, set(nil, first))
	refused("an epoch that comes later", m, raise(set(nil, first), 1))
	raised, _ := applyStep(t, m, raise(nil, 1))
	refused("the epoch of another entry", raised, set(nil, first))
	m, _ = applyStep(t, m, set(raise(nil, 1), first))
	refused("a second one without an epoch", m, set(nil, first.WithCut(30)))
	refused("no cut any more", m, set(raise(nil, 2), none))
	refused("another cut of the number", m, set(raise(nil, 2), &PartitionMirror{State: PartitionMirrors, Cuts: []Cut{{1, 39}}}))
	refused("an ordinary topic", m, Append(nil, MirrorSet{Topic: id}))
	for what, cuts := range map[string][]Cut{
		"number 0": {{0, 1}}, "a negative offset": {{2, -1}}, "numbers that fall": {{3, 1}, {2, 2}}, "offsets that fall": {{2, 2}, {3, 2}},
		"too many": {{2, 1}, {3, 2}, {4, 3}, {5, 4}, {6, 5}, {7, 6}, {8, 7}, {9, 8}, {10, 9}},
	} {
		refused(what, m, set(raise(nil, 2), &PartitionMirror{State: PartitionMirrors, Cuts: cuts}))
	}
	m, _ = applyStep(t, m, set(raise(nil, 2), first.WithCut(50)))
	if got := m.TopicByID(id).Partitions[0].Mirror.Cuts; !slices.Equal(got, []Cut{{1, 40}, {2, 50}}) {
		t.Errorf("the cuts are %v", got)
	}
	// Many entries that are applied in one step are as good as one after another.
	second := first.WithCut(50)
	third := second.WithCut(45)
	fourth := third.WithCut(70)
	all, _, err := ApplyAll(m, func(yield func(uint64, []byte) bool) {
		_ = yield(1, set(raise(nil, 3), third)) && yield(2, set(raise(nil, 4), fourth))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := all.TopicByID(id).Partitions[0].Mirror.Cuts; !slices.Equal(got, []Cut{{1, 40}, {3, 45}, {4, 70}}) {
		t.Errorf("the cuts are %v", got)
	}
}

// TestPendingCuts proves, for random cuts, that a replica which was away for any number of them ends where it would have ended had it obeyed each one, or below that if it
// was away for more cuts than a partition keeps; and that who has obeyed all cuts has none to obey.
func TestPendingCuts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		p := &PartitionMirror{State: PartitionMirrors}
		offsets := []int64{0} // of all cuts, by their numbers
		isMerged := false
		for range 1 + rnd.IntN(2*MaxCuts) {
			offset := max(0, offsets[len(offsets)-1]+int64(rnd.IntN(10)-2)) // mostly above the one before, so that many are kept
			before := len(p.Cuts)
			p = p.WithCut(offset)
			isMerged = isMerged || before == MaxCuts && offset > offsets[len(offsets)-1]
			offsets = append(offsets, offset)
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
		}
		last := int32(len(offsets) - 1)
		if p.LastCut() != (Cut{last, offsets[last]}) {
			t.Fatalf("the last cut is %+v of %v", p.LastCut(), offsets)
		}
		if c, ok := p.PendingCut(last); ok {
			t.Fatalf("%+v is to be obeyed again", c)
		}
		for done := range last {
			c, ok := p.PendingCut(done)
			want := slices.Min(offsets[done+1:])
			isKept := !isMerged || done >= p.Cuts[0].Number
			if !ok || c.Number != last || c.Offset > want || isKept && c.Offset != want {
				t.Fatalf("who has obeyed %d of the cuts %v ends at %+v, and not at %d", done, offsets, c, want)
			}
		}
	}
	var none *PartitionMirror
	if _, ok := none.PendingCut(0); ok || none.LastCut() != (Cut{}) {
		t.Error("an ordinary partition has a cut")
	}
}

// TestPartingsAreCompared proves that two partitions are equal only if what was known of their sources is.
func TestPartingsAreCompared(t *testing.T) {
	with := func(p *Parting) *PartitionMirror { return &PartitionMirror{State: PartitionPromoted, Parting: p} }
	one := Parting{PartitionMirrors, 1, 2, 3, 4, 5, 6}
	same, other := one, one
	other.BegunMs++
	if !with(&one).Equal(with(&same)) || !with(nil).Equal(with(nil)) {
		t.Error("equal ones are not")
	}
	for _, p := range []*Parting{nil, {}, &other} {
		if with(&one).Equal(with(p)) || with(p).Equal(with(&one)) {
			t.Errorf("%+v is equal to %+v", one, p)
		}
	}
}

// TestLineages proves that a lineage takes the place of those that do not begin before it, that a cut takes away those beyond it, and that the oldest one takes over what
// there is no room for.
func TestLineages(t *testing.T) {
	p := (&PartitionMirror{State: PartitionMirrors}).WithLineage(Lineage{"a", 0, 0}).WithLineage(Lineage{"b", 5, 10}).WithLineage(Lineage{"a", 9, 20})
	for _, c := range []struct {
		what string
		got  *PartitionMirror
		want []Lineage
	}{
		{"all", p, []Lineage{{"a", 0, 0}, {"b", 5, 10}, {"a", 9, 20}}},
		{"one more", p.WithLineage(Lineage{"c", 12, 25}), []Lineage{{"a", 0, 0}, {"b", 5, 10}, {"a", 9, 20}, {"c", 12, 25}}},
		{"at the start of the last", p.WithLineage(Lineage{"c", 12, 20}), []Lineage{{"a", 0, 0}, {"b", 5, 10}, {"c", 12, 20}}},
		{"at the beginning", p.WithLineage(Lineage{"c", 12, 0}), []Lineage{{"c", 12, 0}}},
		{"a cut in the last", p.WithCut(21), []Lineage{{"a", 0, 0}, {"b", 5, 10}, {"a", 9, 20}}},
		{"a cut at its start", p.WithCut(20), []Lineage{{"a", 0, 0}, {"b", 5, 10}, {"a", 9, 20}}},
		{"a cut below", p.WithCut(19), []Lineage{{"a", 0, 0}, {"b", 5, 10}}},
	} {
		if !slices.Equal(c.got.Lineages, c.want) {
			t.Errorf("%s: %v, and not %v", c.what, c.got.Lineages, c.want)
		}
	}
	if !slices.Equal(p.Lineages, []Lineage{{"a", 0, 0}, {"b", 5, 10}, {"a", 9, 20}}) {
		t.Errorf("the one before has changed: %v", p.Lineages)
	}
	for i := range int32(MaxLineages) {
		p = p.WithLineage(Lineage{"d", 20 + i, 100 + int64(i)})
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.Lineages) != MaxLineages || p.Lineages[0] != (Lineage{"a", 0, 0}) || p.Lineages[1] != (Lineage{"d", 21, 101}) {
		t.Errorf("%v", p.Lineages)
	}
}

// TestPromotionIsOneRecord proves that all partitions of a topic that mirror are to be promoted as soon as the topic is, whatever their states, and that they mirror again if
// the topic does; cuts and lineages stay.
func TestPromotionIsOneRecord(t *testing.T) {
	m, id := linked(t), UUID{15: 1}
	b := Append(nil, MirrorSet{id, mirrorOf(1)})
	b = Append(b, PartitionMirrorSet{id, 0, PartitionMirror{State: PartitionFailed, Reason: "why", Lineages: []Lineage{{"a", 0, 0}}}})
	m, _ = applyStep(t, m, Append(b, PartitionMirrorSet{id, 1, PartitionMirror{State: PartitionMirrors}}))
	states := func(m *Image) string {
		s := ""
		for _, p := range m.TopicByID(id).Partitions {
			if p.Mirror == nil {
				s += " -"
				continue
			}
			s += fmt.Sprintf(" %d%s%d", p.Mirror.State, p.Mirror.Reason, len(p.Mirror.Lineages))
		}
		return s
	}
	for _, step := range []struct {
		r    Record
		want string
	}{
		{MirrorSet{id, mirrorOf(1).with(func(r *Mirror) { r.State = MirrorPaused })}, " 6why1 10 -"},
		{MirrorSet{id, mirrorOf(1).with(func(r *Mirror) { r.State = MirrorPromoting })}, " 91 90 -"},
		{PartitionMirrorSet{id, 1, PartitionMirror{State: PartitionPromoted}}, " 91 100 -"},
		{MirrorSet{id, mirrorOf(1)}, " 11 10 -"},
	} {
		var delta *Delta
		if m, delta = applyStep(t, m, Append(nil, step.r)); states(m) != step.want || delta.Topics[id].New != m.TopicByID(id) {
			t.Errorf("after %+v the states are %q, and not %q", step.r, states(m), step.want)
		}
	}
}
