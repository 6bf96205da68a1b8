package follow_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/names"
)

// filter makes a filter of patterns that are right.
func filter(include, exclude string) *names.Filter {
	f, err := names.ParseFilter(include, exclude)
	if err != nil {
		panic(err)
	}
	return f
}

func mapping(prefix, renames string) *names.Mapping {
	m, err := names.ParseMapping(prefix, renames)
	if err != nil {
		panic(err)
	}
	return m
}

// source is a cluster of a shop.
var source = []follow.SourceTopic{
	{Name: "__consumer_offsets", Partitions: 50, IsInternal: true},
	{Name: "__transaction_state", Partitions: 50},
	{Name: "_schemas", ID: [16]byte{7}, Partitions: 1},
	{Name: "orders-de", ID: [16]byte{1}, Partitions: 12},
	{Name: "orders-fr", ID: [16]byte{2}, Partitions: 6},
	{Name: "orders-tmp", ID: [16]byte{3}, Partitions: 1},
	{Name: "stock-app-counts-changelog", ID: [16]byte{4}, Partitions: 12},
	{Name: "stock-app-by-shop-repartition", ID: [16]byte{5}, Partitions: 12},
	{Name: "web.clicks", ID: [16]byte{6}, Partitions: 3},
}

const here, there = "cluster-here", "cluster-there"

func mirrorOf(name, topic string, id byte, partitions int32) follow.LocalTopic {
	return follow.LocalTopic{Name: name, Partitions: partitions, Of: &follow.Origin{Link: "shop", IsOurs: true, Topic: topic, ID: [16]byte{id}}}
}

// TestTopics proves which topics are mirrored and under which names, and that what is left out is named in a sentence.
func TestTopics(t *testing.T) {
	for _, c := range []struct {
		name     string
		topics   *names.Filter
		names    *names.Mapping
		source   []follow.SourceTopic
		here     []follow.LocalTopic
		steps    []string
		warnings []string
	}{
		{
			name: "patterns without excluded topics", topics: filter("orders-*,re:^web", "orders-tmp"),
			steps: []string{
				"Make topic orders-de here, with 12 partitions, as a mirror of orders-de.",
				"Make topic orders-fr here, with 6 partitions, as a mirror of orders-fr.",
				"Make topic web.clicks here, with 3 partitions, as a mirror of web.clicks.",
			},
		},
		{
			name: "all", topics: filter("*", ""),
			steps: []string{
				"Make topic _schemas here, with 1 partitions, as a mirror of _schemas.",
				"Make topic orders-de here, with 12 partitions, as a mirror of orders-de.",
				"Make topic orders-fr here, with 6 partitions, as a mirror of orders-fr.",
				"Make topic orders-tmp here, with 1 partitions, as a mirror of orders-tmp.",
				"Make topic web.clicks here, with 3 partitions, as a mirror of web.clicks.",
			},
			warnings: []string{
				"__consumer_offsets, __transaction_state are not mirrored, since the source keeps its own state there.",
				"stock-app-by-shop-repartition, stock-app-counts-changelog are not mirrored, since applications of Kafka Streams keep their own state there; name them to mirror them all the same.",
			},
		},
		{
			name: "topics of Streams by their names, and one that there is not", topics: filter("stock-app-counts-changelog,__consumer_offsets,payments", ""),
			steps: []string{"Make topic stock-app-counts-changelog here, with 12 partitions, as a mirror of stock-app-counts-changelog."},
			warnings: []string{
				"__consumer_offsets is not mirrored, since the source keeps its own state there.",
				"payments is named, and the source has no such topic, or does not let the link see it.",
			},
		},
		{
			name: "topics with two underscores by their names, one of a user and two of clusters", topics: filter("__mine,__transaction_state,__leat_audit", ""),
			source:   []follow.SourceTopic{{Name: "__leat_audit", Partitions: 1}, {Name: "__mine", Partitions: 1}, {Name: "__transaction_state", Partitions: 50}},
			steps:    []string{"Make topic __mine here, with 1 partitions, as a mirror of __mine."},
			warnings: []string{"__leat_audit, __transaction_state are not mirrored, since the source keeps its own state there."},
		},
		{
			name: "a prefix and a rename", topics: filter("orders-de,web.clicks", ""), names: mapping("shop.", "web.clicks=clicks"),
			steps: []string{
				"Make topic shop.orders-de here, with 12 partitions, as a mirror of orders-de.",
				"Make topic clicks here, with 3 partitions, as a mirror of web.clicks.",
			},
		},
		{
			name: "mirrors that are there, one with fewer partitions", topics: filter("orders-*,web.clicks", "orders-tmp"),
			here:  []follow.LocalTopic{mirrorOf("orders-de", "orders-de", 1, 12), mirrorOf("orders-fr", "orders-fr", 2, 4), mirrorOf("web.clicks", "web.clicks", 6, 3)},
			steps: []string{"Give topic orders-fr 6 partitions, as orders-fr has."},
		},
		{
			name: "topics that are no mirrors of it", topics: filter("orders-*,web.clicks,_schemas", ""),
			here: []follow.LocalTopic{
				{Name: "orders-de", Partitions: 1},
				{Name: "orders-fr", Partitions: 6, Of: &follow.Origin{Link: "other", Topic: "orders-fr"}},
				mirrorOf("orders-tmp", "orders-old", 9, 1),
				{Name: "web_clicks", Partitions: 1},
				{Name: "_schemas", Partitions: 1, Of: &follow.Origin{Link: "other", Topic: "_schemas", IsPromoted: true}},
			},
			warnings: []string{
				"Topic _schemas is not mirrored, since there is a topic _schemas here that was promoted.",
				"Topic orders-de is not mirrored, since there is a topic orders-de here that mirrors nothing.",
				"Topic orders-fr is not mirrored, since there is a topic orders-fr here that mirrors orders-fr by link other.",
				"Topic orders-tmp is not mirrored, since there is a topic orders-tmp here that mirrors orders-old.",
				"Topic web.clicks is not mirrored, since there is a topic web_clicks here, and metrics would show web.clicks by the same name.",
				"orders-tmp has no topic at the source any more, and stays as it is.",
			},
		},
		{
			name: "a topic that was promoted, one that was made again, and one that shrank", topics: filter("orders-*", ""),
			here: []follow.LocalTopic{
				{Name: "orders-de", Partitions: 1, Of: &follow.Origin{IsOurs: true, Topic: "orders-de", ID: [16]byte{1}, IsPromoted: true}},
				mirrorOf("orders-fr", "orders-fr", 99, 1), mirrorOf("orders-tmp", "orders-tmp", 3, 2),
			},
			warnings: []string{"Topic orders-tmp has 2 partitions here and only 1 at the source: it may have been made again there."},
		},
		{
			name: "two topics that would have one name", topics: filter("a,a.b,a_b,c", ""), names: mapping("", "c=a"),
			source: []follow.SourceTopic{{Name: "a", Partitions: 1}, {Name: "a.b", Partitions: 1}, {Name: "a_b", Partitions: 1}, {Name: "c", Partitions: 1}},
			here:   []follow.LocalTopic{mirrorOf("a_b", "a_b", 0, 1)},
			warnings: []string{
				"a, c would have one name here, a, or names that metrics cannot tell apart, so no mirror is made of a, c: rename one of them.",
				"a.b, a_b would have one name here, a.b, or names that metrics cannot tell apart, so no mirror is made of a.b: rename one of them.",
			},
		},
		{
			name: "cycles and long ways", topics: filter("*", ""),
			source: []follow.SourceTopic{
				{Name: "back", Partitions: 1, Path: []string{here, "x", there}},
				{Name: "far", Partitions: 1, Path: strings.Split(strings.Repeat("x,", 15)+there, ",")},
				{Name: "of-x", Partitions: 1, Path: []string{"x", there}},
			},
			steps: []string{"Make topic of-x here, with 1 partitions, as a mirror of of-x."},
			warnings: []string{
				"Topic back is not mirrored, since it comes from this cluster: over cluster-here, x, cluster-there.",
				"Topic far is not mirrored, since it comes over 16 clusters already.",
			},
		},
		{
			name: "names that are too long, and topics of which nothing is known", topics: filter("*", ""), names: mapping(strings.Repeat("p", 248), ""),
			source: []follow.SourceTopic{{Name: "ab", Partitions: 1}, {Name: "c", Err: errors.New("TOPIC_AUTHORIZATION_FAILED")}, {Name: "d"}},
			warnings: []string{
				`Topic ab is not mirrored: the name "` + strings.Repeat("p", 40) + `"... has 250 characters, and a topic's name has at most 249.`,
				"Topic d is not mirrored, since the source tells of no partition.",
				"c is not mirrored, since the source tells nothing of it.",
			},
		},
		{
			name: "mirrors that are not chosen any more", topics: filter("orders-de", ""),
			here:     []follow.LocalTopic{mirrorOf("orders-de", "orders-de", 1, 12), mirrorOf("orders-fr", "orders-fr", 2, 6), mirrorOf("w", "web.clicks", 6, 3)},
			warnings: []string{"orders-fr, w are mirrored, and the link's patterns do not choose them any more: promote them (\"leat link promote\"), or delete them."},
		},
	} {
		if c.source == nil {
			c.source = source
		}
		p := follow.Topics(&follow.TopicRules{Topics: c.topics, Names: c.names, Here: here, Source: there}, c.source, c.here)
		if diff := cmp.Diff(append([]string{}, c.steps...), p.Sentences()); diff != "" {
			t.Errorf("%s: steps: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.warnings, p.Warnings); diff != "" {
			t.Errorf("%s: warnings: %s", c.name, diff)
		}
	}
}

// TestPaths proves that a new mirror has the path of its topic, or that of a topic that begins at the source.
func TestPaths(t *testing.T) {
	p := follow.Topics(&follow.TopicRules{Topics: filter("*", ""), Here: here, Source: there}, []follow.SourceTopic{
		{Name: "a", ID: [16]byte{1}, Partitions: 2}, {Name: "b", Partitions: 1, Path: []string{"x", there}},
	}, nil)
	want := []follow.TopicStep{
		{IsNew: true, Source: "a", ID: [16]byte{1}, Here: "a", Partitions: 2, Path: []string{there}},
		{IsNew: true, Source: "b", Here: "b", Partitions: 1, Path: []string{"x", there}},
	}
	if diff := cmp.Diff(want, p.Steps); diff != "" {
		t.Error(diff)
	}
}

// TestLongLists proves that a sentence names ten, and counts the others.
func TestLongLists(t *testing.T) {
	var list []follow.SourceTopic
	for i := range 14 {
		list = append(list, follow.SourceTopic{Name: fmt.Sprintf("app-%02d-changelog", i), Partitions: 1})
	}
	p := follow.Topics(&follow.TopicRules{Topics: filter("app-*", "")}, list, nil)
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "app-09-changelog and 4 more are not mirrored") {
		t.Error(p.Warnings)
	}
}

// applyTopics does the steps of a plan.
func applyTopics(list []follow.LocalTopic, steps []follow.TopicStep) []follow.LocalTopic {
	list = slices.Clone(list)
	for _, s := range steps {
		if s.IsNew {
			list = append(list, follow.LocalTopic{Name: s.Here, Partitions: s.Partitions, Of: &follow.Origin{Link: "shop", IsOurs: true, Topic: s.Source, ID: s.ID}})
			continue
		}
		i := slices.IndexFunc(list, func(t follow.LocalTopic) bool { return t.Name == s.Here })
		list[i].Partitions = s.Partitions
	}
	return list
}

// TestTopicsSettle proves for random topics and rules that after the steps there are no more, that no topic here is taken over or gets fewer partitions, that no two mirrors have one name,
// and that the order of the topics does not matter.
func TestTopicsSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "a.b", "a_b", "x.a", "x_a", "app-changelog", "__own", "__consumer_offsets"})
		var there []follow.SourceTopic
		for _, n := range rapid.SliceOfNDistinct(name, 0, 9, rapid.ID).Draw(t, "source") {
			there = append(there, follow.SourceTopic{
				Name: n, ID: [16]byte{rapid.Byte().Draw(t, "id")}, Partitions: rapid.Int32Range(0, 4).Draw(t, "partitions"),
				Path: rapid.SampledFrom([][]string{nil, {"c", "s"}, {"here", "s"}}).Draw(t, "path"),
			})
		}
		var local []follow.LocalTopic
		for _, n := range rapid.SliceOfNDistinct(name, 0, 5, rapid.ID).Draw(t, "here") {
			one := follow.LocalTopic{Name: n, Partitions: rapid.Int32Range(1, 4).Draw(t, "partitions")}
			if rapid.Bool().Draw(t, "mirrors") {
				one.Of = &follow.Origin{
					Link: "shop", IsOurs: rapid.Bool().Draw(t, "ours"), Topic: name.Draw(t, "of"), ID: [16]byte{rapid.Byte().Draw(t, "id")},
					IsPromoted: rapid.Bool().Draw(t, "promoted"),
				}
			}
			local = append(local, one)
		}
		r := &follow.TopicRules{
			Topics: filter(rapid.SampledFrom([]string{"*", "a*", "a,b,app-changelog", ""}).Draw(t, "topics"), rapid.SampledFrom([]string{"", "b"}).Draw(t, "exclude")),
			Names:  mapping(rapid.SampledFrom([]string{"", "x."}).Draw(t, "prefix"), rapid.SampledFrom([]string{"", "b=a", "a=c"}).Draw(t, "renames")),
			Here:   "here", Source: "s",
		}
		p := follow.Topics(r, there, local)
		taken := map[string]bool{}
		for _, one := range local {
			taken[strings.ReplaceAll(one.Name, ".", "_")] = true
		}
		for _, s := range p.Steps {
			as := strings.ReplaceAll(s.Here, ".", "_")
			i := slices.IndexFunc(local, func(l follow.LocalTopic) bool { return l.Name == s.Here })
			switch {
			case s.IsNew && taken[as]:
				t.Fatalf("%v takes a name that there is", s)
			case !s.IsNew && (local[i].Of == nil || !local[i].Of.IsOurs || local[i].Of.IsPromoted || local[i].Partitions >= s.Partitions):
				t.Fatalf("%v of %+v", s, local[i])
			}
			taken[as] = taken[as] || s.IsNew
		}
		slices.Reverse(there)
		if diff := cmp.Diff(p, follow.Topics(r, there, local)); diff != "" {
			t.Fatalf("in another order: %s", diff)
		}
		if again := follow.Topics(r, there, applyTopics(local, p.Steps)); len(again.Steps) > 0 {
			t.Fatalf("then there is more to do: %v", again.Steps)
		}
	})
}

// TestCheckClusters proves which clusters cannot be linked: a cluster with itself, and two that give the same producer ids.
func TestCheckClusters(t *testing.T) {
	us := follow.Cluster{ID: "here", Tag: 5}
	for _, c := range []struct {
		name     string
		source   follow.Cluster
		others   []follow.Cluster
		warnings int
		want     error
	}{
		{"a Kafka", follow.Cluster{ID: "there"}, nil, 0, nil},
		{"a Leat", follow.Cluster{ID: "there", Tag: 6}, nil, 0, nil},
		{"itself", follow.Cluster{ID: "here", Tag: 5}, nil, 0, follow.ErrSameCluster},
		{"the same tag", follow.Cluster{ID: "there", Tag: 5}, nil, 0, follow.ErrSameTag},
		{"the tag of another source", follow.Cluster{ID: "there", Tag: 6}, []follow.Cluster{{Name: "b", ID: "b", Tag: 7}, {Name: "c", ID: "c", Tag: 6}}, 0, follow.ErrSameTag},
		{"the same source again", follow.Cluster{ID: "there", Tag: 6}, []follow.Cluster{{Name: "b", ID: "there", Tag: 6}}, 0, nil},
		{"a second Kafka", follow.Cluster{ID: "there"}, []follow.Cluster{{Name: "b", ID: "b"}, {Name: "c", ID: "c", Tag: 7}}, 1, nil},
	} {
		warnings, err := follow.CheckClusters(us, c.source, c.others)
		if !errors.Is(err, c.want) || len(warnings) != c.warnings {
			t.Errorf("%s: %v, %q", c.name, err, warnings)
		}
	}
}
