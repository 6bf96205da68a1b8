package meta

import (
	"testing"
	"time"

	"github.com/leatstream/leat/internal/config"
)

// fixture is a cluster of one with a topic "t".
func fixture(tb testing.TB) *Image {
	tb.Helper()
	b := Append(nil, BrokerRegistered{Broker{ID: 1, Epoch: 1}})
	m, _, err := Apply(Empty(), Append(b, TopicCreated{ID: UUID{15: 1}, Name: "t"}))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func static(tb testing.TB, kv ...string) *config.Static {
	tb.Helper()
	values := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		values[kv[i]] = kv[i+1]
	}
	s, err := config.NewStatic(1, values)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// TestSettingsAreCached proves that settings are computed once, and again only when one
// of their sources has changed.
func TestSettingsAreCached(t *testing.T) {
	m, s := fixture(t), static(t)
	first := TopicSettings(m, s, m.Topic("t"))
	step := func(r Record) *config.Settings {
		t.Helper()
		var err error
		if m, _, err = Apply(m, Append(nil, r)); err != nil {
			t.Fatal(err)
		}
		return TopicSettings(m, s, m.Topic("t"))
	}
	if step(TopicCreated{ID: UUID{15: 2}, Name: "u"}) != first || step(ConfigSet{config.Resource{Type: config.Topic, Name: "u"}, "segment.ms", "5"}) != first {
		t.Error("another topic's change drops the settings")
	}
	if step(PartitionsSet{Topic: UUID{15: 1}, Partitions: make([]Partition, 1)}) != first {
		t.Error("a change of partitions drops the settings")
	}
	for _, r := range []Record{
		ConfigSet{config.Resource{Type: config.Broker, Name: ""}, "log.segment.bytes", "2000000"},
		ConfigSet{config.Resource{Type: config.Broker, Name: "1"}, "log.segment.bytes", "3000000"},
		ConfigSet{config.Resource{Type: config.Topic, Name: "t"}, "segment.bytes", "4000000"},
		ConfigUnset{config.Resource{Type: config.Topic, Name: "t"}, "segment.bytes"},
	} {
		before := TopicSettings(m, s, m.Topic("t")).SegmentBytes
		if after := step(r).SegmentBytes; after == before {
			t.Errorf("%+v: segment.bytes is still %d", r, after)
		}
	}
	if n := testing.AllocsPerRun(100, func() { TopicSettings(m, s, m.Topic("t")) }); n != 0 {
		t.Errorf("asking again allocates %v times", n)
	}
}

// TestPlainTopicsShareSettings proves that topics on which nothing is set have their settings
// computed once for all of them: a start does so for each topic of the cluster.
func TestPlainTopicsShareSettings(t *testing.T) {
	m, s := fixture(t), static(t)
	b := Append(nil, TopicCreated{ID: UUID{15: 2}, Name: "u"})
	b = Append(b, TopicCreated{ID: UUID{15: 3}, Name: "own"})
	b = Append(b, ConfigSet{config.Resource{Type: config.Topic, Name: "own"}, "segment.ms", "5"})
	m, _, err := Apply(m, b)
	if err != nil {
		t.Fatal(err)
	}
	plain := TopicSettings(m, s, m.Topic("t"))
	if TopicSettings(m, s, m.Topic("u")) != plain {
		t.Error("two topics without configs have two settings")
	}
	if own := TopicSettings(m, s, m.Topic("own")); own == plain || own.SegmentAge != 5*time.Millisecond {
		t.Errorf("a topic with a config has %+v", own)
	}
	if other := TopicSettings(m, static(t, "log.segment.bytes", "2000000"), m.Topic("t")); other.SegmentBytes != 2_000_000 {
		t.Errorf("on another node segment.bytes is %d", other.SegmentBytes)
	}
}

// TestServerSettingsAreCached proves the same of a broker's settings, some of which
// follow the number of brokers, and that nodes with other files get others.
func TestServerSettingsAreCached(t *testing.T) {
	m, s := fixture(t), static(t)
	first := ServerSettings(m, s)
	step := func(r Record) *config.Server {
		t.Helper()
		var err error
		if m, _, err = Apply(m, Append(nil, r)); err != nil {
			t.Fatal(err)
		}
		return ServerSettings(m, s)
	}
	if step(TopicCreated{ID: UUID{15: 2}, Name: "u"}) != first || step(ConfigSet{config.Resource{Type: config.Group, Name: "g"}, "share.isolation.level", "read_committed"}) != first {
		t.Error("a change that has nothing to do with the broker drops its settings")
	}
	if got := ServerSettings(m, static(t, "fetch.max.bytes", "4000")).FetchMaxBytes; got != 4000 {
		t.Errorf("another node's fetch.max.bytes is %d", got)
	}
	for i, r := range []Record{
		ConfigSet{config.Resource{Type: config.Broker, Name: ""}, "fetch.max.bytes", "2000"},
		ConfigSet{config.Resource{Type: config.Broker, Name: "1"}, "fetch.max.bytes", "3000"},
		ConfigUnset{config.Resource{Type: config.Broker, Name: "1"}, "fetch.max.bytes"},
	} {
		if got, want := step(r).FetchMaxBytes, []int{2000, 3000, 2000}[i]; got != want {
			t.Errorf("%+v: fetch.max.bytes is %d, want %d", r, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ServerSettings(m, s) }); n != 0 {
		t.Errorf("asking again allocates %v times", n)
	}
}

func BenchmarkTopicSettings(b *testing.B) {
	m, s := fixture(b), static(b)
	t := m.Topic("t")
	b.ReportAllocs()
	for b.Loop() {
		TopicSettings(m, s, t)
	}
}

func BenchmarkServerSettings(b *testing.B) {
	m, s := fixture(b), static(b)
	b.ReportAllocs()
	for b.Loop() {
		ServerSettings(m, s)
	}
}
