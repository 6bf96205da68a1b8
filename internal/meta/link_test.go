package meta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// linkOf is a link to the cluster whose id is the number.
func linkOf(number byte, name string) Link {
	return Link{ID: UUID{15: number}, Name: name, Source: fmt.Sprint(number), Settings: []LinkSetting{{"bootstrap.servers", "h:1"}, {"topics", "a,b"}}, Secret: []byte{number}}
}

// withAgent is a link that is reached by an agent, and whose source is not known.
func withAgent(l Link) Link {
	l.Source, l.Settings = "", append(slices.Clone(l.Settings), LinkSetting{ViaSetting, ViaAgent})
	l.Agents = []LinkAgent{{Token: [8]byte{1}, Expires: 5}, {Token: [8]byte{2}, Key: [32]byte{1}, Holder: [32]byte{2}}}
	return l
}

// linked is an image of a cluster "here" with links 1, "north", and 2, "south", and with a topic "t" of three partitions.
func linked(t *testing.T) *Image {
	t.Helper()
	b := Append(nil, ClusterCreated{"here", 1})
	b = Append(b, LevelSet{LatestLevel})
	b = Append(Append(b, LinkSet{linkOf(1, "north")}), LinkSet{linkOf(2, "south")})
	b = Append(b, TopicCreated{ID: UUID{15: 1}, Name: "t"})
	m, _, err := Apply(Empty(), Append(b, PartitionsSet{Topic: UUID{15: 1}, Partitions: make([]Partition, 3)}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func changed(l Link, change func(l *Link)) LinkSet {
	l.Settings = slices.Clone(l.Settings)
	change(&l)
	return LinkSet{l}
}

// TestLinks proves that links are found by their ids and names, that a change replaces a link and is told, that a name that was given up can be used again, and that an
// image and its snapshot never change.
func TestLinks(t *testing.T) {
	m := linked(t)
	paused := changed(linkOf(1, "north"), func(l *Link) { l.Paused = true })
	renamed := changed(linkOf(2, "south"), func(l *Link) { l.Name, l.Settings[1].Value = "west", "c" })
	for _, step := range []struct {
		what    string
		records []Record
		want    string // names, in order
		told    string // names before and after
	}{
		{"paused", []Record{paused}, "north south", "north:north"},
		{"renamed", []Record{renamed}, "north west", "south:west"},
		{"the name again", []Record{LinkSet{linkOf(3, "south")}}, "north south west", ":south"},
		{"two changes", []Record{LinkSet{linkOf(1, "a")}, LinkSet{linkOf(1, "b")}}, "b south west", "north:b"},
		{"removed", []Record{LinkRemoved{UUID{15: 1}}}, "south west", "b:"},
		{"made and removed", []Record{LinkSet{linkOf(1, "a")}, LinkRemoved{UUID{15: 1}}}, "south west", ":"},
		{"an exchange", []Record{LinkRemoved{UUID{15: 2}}, LinkRemoved{UUID{15: 3}}, LinkSet{linkOf(2, "south")}}, "south", "west:south south:"},
		{"the last one", []Record{LinkRemoved{UUID{15: 2}}}, "", "south:"},
	} {
		var entry []byte
		for _, r := range step.records {
			entry = Append(entry, r)
		}
		before := m
		var delta *Delta
		m, delta = applyStep(t, m, entry)
		var names, told []string
		for _, l := range m.Links().All() {
			if names = append(names, l.Name); m.Links().Find(l.ID) != l || m.Links().FindName(l.Name) != l {
				t.Errorf("%s: link %q is not found", step.what, l.Name)
			}
		}
		nameOf := func(l *Link) string {
			if l == nil {
				return ""
			}
			return l.Name
		}
		for id, c := range delta.Links {
			if told = append(told, nameOf(c.Old)+":"+nameOf(c.New)); c.Old != before.Links().Find(id) && len(step.records) == 1 || c.New != m.Links().Find(id) {
				t.Errorf("%s: the delta has %+v", step.what, c)
			}
		}
		if got := strings.Join(names, " "); got != step.want || m.Links().Len() != len(names) {
			t.Errorf("%s: there are %q, and not %q", step.what, got, step.want)
		}
		wantTold := strings.Fields(step.told)
		slices.Sort(told)
		slices.Sort(wantTold)
		if !slices.Equal(told, wantTold) {
			t.Errorf("%s: the delta tells of %q, and not of %q", step.what, told, wantTold)
		}
		if d := Diff(before, m); step.what != "made and removed" && len(d.Links) != len(delta.Links) {
			t.Errorf("%s: the difference has %d links, the delta %d", step.what, len(d.Links), len(delta.Links))
		}
	}
	if m.Links().Find(UUID{15: 1}) != nil || m.Links().FindName("north") != nil {
		t.Error("a link is found that was removed")
	}
}

// TestLinkSettings proves that a setting is found by its key.
func TestLinkSettings(t *testing.T) {
	l := linkOf(1, "north")
	for key, want := range map[string]string{"bootstrap.servers": "h:1", "topics": "a,b", "": "", "a": "", "zzz": ""} {
		if got, isSet := l.Setting(key); got != want || isSet != (want != "") {
			t.Errorf("%q is %q, set: %t", key, got, isSet)
		}
	}
}

// TestLinksAreRefused proves that an image never has a link that lacks something or has too much of it, two of one name, one that leads to the cluster itself, or more than
// a cluster may have; and that a link keeps its source.
func TestLinksAreRefused(t *testing.T) {
	m, l := linked(t), linkOf(3, "new")
	checkRefused(
		t, m,
		changed(l, func(l *Link) { l.ID = UUID{} }),
		changed(l, func(l *Link) { l.Name = "" }),
		changed(l, func(l *Link) { l.Name = "north" }),
		changed(l, func(l *Link) { l.Name = ".." }),
		changed(l, func(l *Link) { l.Name = "a/b" }),
		changed(l, func(l *Link) { l.Name = strings.Repeat("x", MaxLinkName+1) }),
		changed(l, func(l *Link) { l.Source = "" }),
		changed(l, func(l *Link) { l.Source = "here" }),
		changed(l, func(l *Link) { l.Source = strings.Repeat("x", maxClusterID+1) }),
		changed(l, func(l *Link) { l.Settings[0].Key = "" }),
		changed(l, func(l *Link) { l.Settings[0].Key = "topics" }),
		changed(l, func(l *Link) { l.Settings[0].Key = "u" }),
		changed(l, func(l *Link) { l.Settings[0].Value = strings.Repeat("x", MaxLinkSettingBytes) }),
		changed(l, func(l *Link) {
			for i := range MaxLinkSettings {
				l.Settings = append(l.Settings, LinkSetting{Key: fmt.Sprintf("u%03d", i)})
			}
		}),
		changed(l, func(l *Link) { l.Secret = make([]byte, maxLinkSecret+1) }),
		changed(linkOf(1, "north"), func(l *Link) { l.Source = "2" }),
		changed(linkOf(1, "north"), func(l *Link) { l.Source = "" }),
		changed(withAgent(l), func(l *Link) { l.Settings = l.Settings[:2] }),
		changed(withAgent(l), func(l *Link) { l.Agents = []LinkAgent{l.Agents[1], l.Agents[0]} }),
		changed(withAgent(l), func(l *Link) { l.Agents = make([]LinkAgent, MaxLinkAgents+1) }),
		LinkSet{linkOf(1, "south")},
		LinkRemoved{UUID{15: 9}},
	)
	for i := byte(10); m.Links().Len() < MaxLinks; i++ {
		m, _ = applyStep(t, m, Append(nil, LinkSet{linkOf(i, fmt.Sprint("l", i))}))
	}
	checkRefused(t, m, LinkSet{l})
	if _, _, err := Apply(m, Append(nil, changed(linkOf(1, "north"), func(l *Link) { l.Paused = true }))); err != nil {
		t.Errorf("a link is changed, and there are as many as there can be: %v", err)
	}
	older, _, err := Apply(Empty(), Append(Append(nil, LevelSet{LevelLinks}), LinkSet{linkOf(1, "north")}))
	if err != nil {
		t.Fatal(err)
	}
	checkRefused(t, older, ClusterCreated{"1", 1})
}

// TestAgentsOfLinks proves that a link that is reached by agents need not know its source at first, and keeps it when it does, that its tokens are found, and that a snapshot has all of them.
func TestAgentsOfLinks(t *testing.T) {
	l := withAgent(linkOf(3, "behind"))
	m, _ := applyStep(t, linked(t), Append(nil, LinkSet{l}))
	if of, a := m.Links().FindAgent([8]byte{2}); of == nil || of.ID != l.ID || !a.IsUsed() || *a != l.Agents[1] {
		t.Errorf("the second token is found as %+v", a)
	}
	if of, a := m.Links().FindAgent([8]byte{3}); of != nil || a != nil || l.FindAgent([8]byte{3}) != nil || l.Agents[0].IsUsed() {
		t.Errorf("a token is found that nobody made: %+v", a)
	}
	if v := l.Agents[1].Verifier(); v.ID != l.Agents[1].Token || v.Key != l.Agents[1].Key || v.Holder != l.Agents[1].Holder || v.Expires.UnixMilli() != l.Agents[1].Expires {
		t.Errorf("its verifier is %+v", v)
	}
	m, _ = applyStep(t, m, Append(nil, changed(l, func(l *Link) { l.Source = "3" })))
	checkRefused(t, m, LinkSet{l}, changed(l, func(l *Link) { l.Source = "4" }))
}

// TestLinksNeedTheirLevel proves that a cluster of a lower level gets no record of links and mirrors, also where the record would fit.
func TestLinksNeedTheirLevel(t *testing.T) {
	id := UUID{15: 1}
	b := Append(Append(nil, LevelSet{LevelLinks - 1}), TopicCreated{ID: id, Name: "t"})
	m, _, err := Apply(Empty(), Append(b, PartitionsSet{Topic: id, Partitions: make([]Partition, 1)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{LinkSet{linkOf(1, "north")}, LinkRemoved{id}, MirrorSet{id, mirrorOf(1)}, PartitionMirrorSet{Topic: id, PartitionMirror: PartitionMirror{State: PartitionMirrors}}} {
		if _, _, err := Apply(m, Append(nil, r)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "needs level 8") {
			t.Errorf("%T: %v", r, err)
		}
	}
}
