package meta

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var configKinds = map[string]ResourceType{
	"topic": TopicResource, "broker": BrokerResource, "group": GroupResource, "metrics": ClientMetricsResource,
}

// ownDefaults are the defaults in which we differ from Kafka on purpose, and why.
var ownDefaults = map[string]string{
	"topic flush.messages":               "acknowledged means on disk",
	"broker log.flush.interval.messages": "acknowledged means on disk",
	"broker log.dir":                     "data lies beside where one starts, not in /tmp",
	"broker process.roles":               "every node can be both",
}

// TestTableIsKafkas proves that every config of Kafka 4.3.1 is in the table, with its
// type, default, scope and synonyms, but for the few that are better here.
func TestTableIsKafkas(t *testing.T) {
	b, err := os.ReadFile("testdata/kafka-4.3.1-configs.txt")
	if err != nil {
		t.Fatal(err)
	}
	types := map[ConfigType]string{
		BoolConfig: "BOOLEAN", StringConfig: "STRING", IntConfig: "INT", ShortConfig: "SHORT", LongConfig: "LONG",
		DoubleConfig: "DOUBLE", ListConfig: "LIST", ClassConfig: "CLASS", PasswordConfig: "PASSWORD",
	}
	scopes := map[Scope]string{ReadOnly: "read-only", ClusterWide: "cluster-wide", PerBroker: "per-broker"}
	seen := 0
	for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		seen++
		f := strings.Split(line, "|")
		typ, name := configKinds[f[0]], f[1]
		d := Def(typ, name)
		if d == nil {
			t.Errorf("%s %s is missing", f[0], name)
			continue
		}
		got := []string{f[0], name, types[d.Type], d.Default, scopes[d.Scope], ""}
		if d.Null {
			got[3] = "null"
		}
		if typ != BrokerResource {
			got[4] = "-"
		}
		if len(f[5]) > 0 && len(d.synonyms) > 0 {
			got[5] = d.synonyms[0].name
		} else {
			got[5] = f[5] // Kafka does not show synonyms whose first one has no value
		}
		if _, ok := ownDefaults[f[0]+" "+name]; ok {
			if got[3] == f[3] {
				t.Errorf("%s %s has Kafka's default after all", f[0], name)
			}
			got[3] = f[3]
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Error(d)
		}
	}
	if seen < 390 {
		t.Errorf("only %d configs were compared", seen)
	}
}

// TestTableIsWhole proves that each config has a sentence that is ours to show, a
// default that passes its own check, and synonyms that exist.
func TestTableIsWhole(t *testing.T) {
	for _, typ := range configKinds {
		names := map[string]bool{}
		for _, d := range Defs(typ) {
			if names[d.Name] {
				t.Errorf("%v %s stands twice in the table", typ, d.Name)
			}
			names[d.Name] = true
			if len(d.Doc) < 20 || !strings.HasSuffix(d.Doc, ".") || strings.ToUpper(d.Doc[:1]) != d.Doc[:1] {
				t.Errorf("%v %s: not a sentence: %q", typ, d.Name, d.Doc)
			}
			if _, err := d.parse(d.Default); !d.Null && err != nil && d.Name != "broker.id" {
				t.Errorf("%v %s: its default is refused: %v", typ, d.Name, err)
			}
			for _, s := range d.synonyms {
				if Def(BrokerResource, s.name) == nil {
					t.Errorf("%v %s: there is no broker config %s", typ, d.Name, s.name)
				}
			}
		}
	}
	if n := len(Defs(TopicResource)); n != 37 {
		t.Errorf("%d topic configs", n)
	}
}

// fixture is a cluster of one with a topic "t" and configs set as resource, key, value.
func fixture(tb testing.TB, set ...string) *Image {
	tb.Helper()
	b := Append(nil, BrokerRegistered{Broker{ID: 1, Epoch: 1}})
	b = Append(b, TopicCreated{UUID{15: 1}, "t"})
	for i := 0; i < len(set); i += 3 {
		kind, name, _ := strings.Cut(set[i], " ")
		b = Append(b, ConfigSet{Resource{configKinds[kind], name}, set[i+1], set[i+2]})
	}
	m, _, err := Apply(Empty(), b)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func static(tb testing.TB, kv ...string) *Static {
	tb.Helper()
	values := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		values[kv[i]] = kv[i+1]
	}
	s, err := NewStatic(1, values)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// TestPrecedence proves the order in which the places of a config count, and that
// all of them are shown.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		key    string
		static []string
		set    []string
		want   string
	}{
		{"retention.ms", nil, nil, "604800000 from 5: log.retention.hours=168(5)"},
		{"retention.ms", []string{"log.retention.hours", "2"}, nil, "7200000 from 4: log.retention.hours=2(4) log.retention.hours=168(5)"},
		{
			"retention.ms",
			[]string{"log.retention.minutes", "3", "log.retention.hours", "2"},
			nil,
			"180000 from 4: log.retention.minutes=3(4) log.retention.hours=2(4) log.retention.hours=168(5)",
		},
		{"retention.ms", []string{"log.retention.hours", "-1"}, nil, "-1 from 4: log.retention.hours=-1(4) log.retention.hours=168(5)"},
		{"retention.ms", []string{"log.retention.hours", "2147483647"}, nil, "7730941129200000 from 4: log.retention.hours=2147483647(4) log.retention.hours=168(5)"},
		{
			"retention.ms",
			[]string{"log.retention.ms", "4"},
			[]string{"broker ", "log.retention.ms", "3", "broker 1", "log.retention.ms", "2", "broker 7", "log.retention.ms", "9", "topic t", "retention.ms", "1"},
			"1 from 1: retention.ms=1(1) log.retention.ms=2(2) log.retention.ms=3(3) log.retention.ms=4(4) log.retention.hours=168(5)",
		},
		{
			"retention.ms",
			[]string{"log.retention.ms", "4"},
			[]string{"broker ", "log.retention.ms", "3"},
			"3 from 3: log.retention.ms=3(3) log.retention.ms=4(4) log.retention.hours=168(5)",
		},
		{"remote.storage.enable", nil, nil, "false from 5:"},
		{"flush.ms", nil, nil, "9223372036854775807 from 5: log.flush.scheduler.interval.ms=9223372036854775807(5)"},
		{"segment.jitter.ms", []string{"log.roll.jitter.hours", "1"}, nil, "3600000 from 4: log.roll.jitter.hours=1(4) log.roll.jitter.hours=0(5)"},
	} {
		m := fixture(t, c.set...)
		e := TopicEntry(m, static(t, c.static...), m.Topic("t"), Def(TopicResource, c.key))
		got := fmt.Sprintf("%s from %d:", e.Value, e.Source)
		for _, s := range e.Synonyms {
			got += fmt.Sprintf(" %s=%s(%d)", s.Name, s.Value, s.Source)
		}
		if got != c.want {
			t.Errorf("%s with %q and %q:\n got %s\nwant %s", c.key, c.static, c.set, got, c.want)
		}
	}
}

// TestBrokerEntriesShowOwnName proves that a broker's config does not show the value
// of another one that says the same in another unit.
func TestBrokerEntriesShowOwnName(t *testing.T) {
	m := fixture(t, "broker ", "log.retention.ms", "5")
	got := map[string]string{}
	for _, e := range BrokerEntries(m, static(t, "log.retention.hours", "2", "ssl.key.password", "secret")) {
		if strings.HasPrefix(e.Def.Name, "log.retention.") || e.Def.Name == "default.replication.factor" {
			got[e.Def.Name] = fmt.Sprintf("%s %v from %d, %d synonyms", e.Value, e.Null, e.Source, len(e.Synonyms))
		}
	}
	want := map[string]string{
		"log.retention.ms":                "5 false from 3, 3 synonyms",
		"log.retention.minutes":           " true from 5, 0 synonyms",
		"log.retention.hours":             "2 false from 4, 2 synonyms",
		"log.retention.bytes":             "-1 false from 5, 1 synonyms",
		"log.retention.check.interval.ms": "300000 false from 5, 1 synonyms",
		"default.replication.factor":      "1 false from 5, 1 synonyms",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(DefaultBrokerEntries(m)); n != 1 {
		t.Errorf("%d configs are set for all brokers", n)
	}
}

// TestReplicationFollowsTheCluster proves that defaults which depend on how many
// brokers there are grow with them, and give way to what is set.
func TestReplicationFollowsTheCluster(t *testing.T) {
	m := fixture(t)
	s := static(t)
	for id := int32(1); id <= 5; id++ {
		var err error
		if m, _, err = Apply(m, Append(nil, BrokerRegistered{Broker{ID: id, Epoch: int64(id)}})); err != nil {
			t.Fatal(err)
		}
		v := ServerSettings(m, s)
		want := int16(min(id, 3))
		if v.ReplicationFactor != want || v.Offsets.ReplicationFactor != want || v.Transactions.ReplicationFactor != want || v.ShareState.MinISR != int(max(1, want-1)) {
			t.Errorf("%d brokers: %+v", id, v)
		}
	}
	if v := ServerSettings(m, static(t, "default.replication.factor", "2")); v.ReplicationFactor != 2 {
		t.Errorf("set to 2, it is %d", v.ReplicationFactor)
	}
}

// TestTopicSettings proves what values mean to whoever acts on them.
func TestTopicSettings(t *testing.T) {
	week := 7 * 24 * time.Hour
	defaults := Settings{
		SegmentBytes: 1 << 30, SegmentAge: week, IndexInterval: 4096, IndexBytes: 10 << 20, RetentionAge: week, RetentionBytes: -1,
		Delete: true, FlushMessages: 1, FileDeleteDelay: time.Minute, MaxMessageBytes: 1048588, MaxDecompressedBytes: 2147483639,
		MinISR: 1, Compression: "producer", GzipLevel: -1, LZ4Level: 9, ZstdLevel: 3, TimestampBefore: math.MaxInt64,
		TimestampAfter: time.Hour, DeleteRetention: 24 * time.Hour, MaxCompactionLag: math.MaxInt64, MinDirtyRatio: 0.5,
		ProducerExpiration: 24 * time.Hour,
	}
	for _, c := range []struct {
		static []string
		set    []string
		change func(s *Settings)
	}{
		{nil, nil, func(*Settings) {}},
		{nil, []string{"topic t", "retention.ms", "-1", "topic t", "retention.bytes", "-7"}, func(s *Settings) { s.RetentionAge = -1 }},
		{nil, []string{"topic t", "cleanup.policy", " compact , delete"}, func(s *Settings) { s.Compact = true }},
		{nil, []string{"topic t", "cleanup.policy", ""}, func(s *Settings) { s.Delete = false }},
		{nil, []string{"topic t", "flush.ms", "1000"}, func(s *Settings) { s.FlushAge, s.FlushMessages = time.Second, math.MaxInt64 }},
		{nil, []string{"topic t", "flush.ms", "0"}, func(s *Settings) { s.FlushAge, s.FlushMessages = time.Millisecond, math.MaxInt64 }},
		{nil, []string{"topic t", "flush.ms", noLimit}, func(*Settings) {}},
		{nil, []string{"topic t", "flush.ms", "1000", "topic t", "flush.messages", "1"}, func(s *Settings) { s.FlushAge = time.Second }},
		{[]string{"log.flush.interval.ms", "1000"}, nil, func(s *Settings) { s.FlushAge, s.FlushMessages = time.Second, math.MaxInt64 }},
		{[]string{"log.flush.interval.messages", noLimit}, nil, func(s *Settings) { s.FlushMessages = math.MaxInt64 }},
		{[]string{"log.roll.hours", "1"}, []string{"broker ", "min.insync.replicas", "2"}, func(s *Settings) { s.SegmentAge, s.MinISR = time.Hour, 2 }},
		{nil, []string{"topic t", "message.timestamp.type", "LogAppendTime", "topic t", "min.cleanable.dirty.ratio", "0.1", "topic t", "preallocate", "TRUE"}, func(s *Settings) {
			s.LogAppendTime, s.MinDirtyRatio, s.Preallocate = true, 0.1, true
		}},
		// What a later version may have taken does not stop this one.
		{nil, []string{"topic t", "segment.bytes", "12x", "topic t", "unheard.of", "1"}, func(*Settings) {}},
	} {
		m := fixture(t, c.set...)
		want := defaults
		c.change(&want)
		if d := cmp.Diff(&want, TopicSettings(m, static(t, c.static...), m.Topic("t"))); d != "" {
			t.Errorf("%q, %q: %s", c.static, c.set, d)
		}
	}
	if got := DefaultSettings(fixture(t), static(t)); got != defaults {
		t.Errorf("a topic without configs: %+v", got)
	}
}

// TestSettingsAreCached proves that settings are computed once, and again only when
// something that they rest on has changed.
func TestSettingsAreCached(t *testing.T) {
	m, s := fixture(t), static(t)
	first := TopicSettings(m, s, m.Topic("t"))
	step := func(r Record) *Settings {
		t.Helper()
		var err error
		if m, _, err = Apply(m, Append(nil, r)); err != nil {
			t.Fatal(err)
		}
		return TopicSettings(m, s, m.Topic("t"))
	}
	if step(TopicCreated{UUID{15: 2}, "u"}) != first || step(ConfigSet{Resource{TopicResource, "u"}, "segment.ms", "5"}) != first {
		t.Error("another topic's change drops the settings")
	}
	if step(PartitionsSet{Topic: UUID{15: 1}, Partitions: make([]Partition, 1)}) != first {
		t.Error("a change of partitions drops the settings")
	}
	for _, r := range []Record{
		ConfigSet{Resource{BrokerResource, ""}, "log.segment.bytes", "2000000"},
		ConfigSet{Resource{BrokerResource, "1"}, "log.segment.bytes", "3000000"},
		ConfigSet{Resource{TopicResource, "t"}, "segment.bytes", "4000000"},
		ConfigUnset{Resource{TopicResource, "t"}, "segment.bytes"},
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

// TestServerSettingsAreCached proves the same of a broker's settings, some of which
// follow the number of brokers, and that nodes with other files get others.
func TestServerSettingsAreCached(t *testing.T) {
	m, s := fixture(t), static(t)
	first := ServerSettings(m, s)
	step := func(r Record) *Server {
		t.Helper()
		var err error
		if m, _, err = Apply(m, Append(nil, r)); err != nil {
			t.Fatal(err)
		}
		return ServerSettings(m, s)
	}
	if step(TopicCreated{UUID{15: 2}, "u"}) != first || step(ConfigSet{Resource{GroupResource, "g"}, "share.isolation.level", "read_committed"}) != first {
		t.Error("a change that has nothing to do with the broker drops its settings")
	}
	if got := ServerSettings(m, static(t, "fetch.max.bytes", "4000")).FetchMaxBytes; got != 4000 {
		t.Errorf("another node's fetch.max.bytes is %d", got)
	}
	for i, r := range []Record{
		ConfigSet{Resource{BrokerResource, ""}, "fetch.max.bytes", "2000"},
		ConfigSet{Resource{BrokerResource, "1"}, "fetch.max.bytes", "3000"},
		ConfigUnset{Resource{BrokerResource, "1"}, "fetch.max.bytes"},
	} {
		if got, want := step(r).FetchMaxBytes, []int{2000, 3000, 2000}[i]; got != want {
			t.Errorf("%+v: fetch.max.bytes is %d, want %d", r, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ServerSettings(m, s) }); n != 0 {
		t.Errorf("asking again allocates %v times", n)
	}
}

// TestCheck proves which sets of configs are refused, and in which words.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		typ  ResourceType
		set  []string
		want string
		kind error
	}{
		{TopicResource, nil, "", nil},
		{TopicResource, []string{"segment.ms", "0", "zzz", "1"}, "Unknown topic config name: zzz", ErrInvalidConfig},
		{TopicResource, []string{"max.compaction.lag.ms", "5", "min.compaction.lag.ms", "6"}, "conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)", ErrInvalidConfig},
		{BrokerResource, []string{"nonsense", "5"}, "Unknown broker config name: nonsense", ErrInvalidConfig},
		{BrokerResource, []string{"offsets.topic.replication.factor", "99999"}, "Invalid value 99999 for configuration offsets.topic.replication.factor: Not a number of type SHORT", ErrInvalidConfig},
		{BrokerResource, []string{"log.cleaner.io.buffer.load.factor", "NaN"}, "Invalid value NaN for configuration log.cleaner.io.buffer.load.factor: Value must be at least 0", ErrInvalidConfig},
		{BrokerResource, []string{"ssl.key.password", " x "}, "", nil},
		{BrokerResource, []string{"max.connections.per.ip.overrides", "10.0.0.1:20, ::1:5,[fe80::1]:0"}, "", nil},
		{BrokerResource, []string{"max.connections.per.ip.overrides", "a.example.org:20"}, `Invalid value a.example.org:20 for configuration max.connections.per.ip.overrides: "a.example.org:20" is not a client's IP address and its number of connections, as in 10.0.0.1:20`, ErrInvalidConfig},
		{GroupResource, []string{"consumer.session.timeout.ms", "45000", "consumer.heartbeat.interval.ms", "15000"}, "", nil},
		{ClientMetricsResource, []string{"interval.ms", "1"}, "Invalid value 1 for interval.ms, interval must be between 100 and 3600000 (1 hour)", ErrRefusedConfig},
	} {
		set := map[string]string{}
		for i := 0; i < len(c.set); i += 2 {
			set[c.set[i]] = c.set[i+1]
		}
		err := Check(fixture(t), static(t), c.typ, set)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !errors.Is(err, c.kind)) {
			t.Errorf("%v %q: %v, want %q", c.typ, c.set, err, c.want)
		}
	}
	if _, err := NewStatic(1, map[string]string{"num.partitions": "0"}); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("a bad setting of the node itself: %v", err)
	}
}

// TestCheckDynamic proves which configs can be set on running brokers.
func TestCheckDynamic(t *testing.T) {
	for _, c := range []struct {
		key string
		own bool
		ok  bool
	}{
		{"log.retention.ms", false, true},
		{"log.retention.ms", true, true},
		{"log.retention.hours", true, false},
		{"listeners", true, true},
		{"listeners", false, false},
		{"ssl.keystore.location", true, false},
		{"nonsense", true, false},
	} {
		if err := CheckDynamic(c.key, c.own); (err == nil) != c.ok {
			t.Errorf("%s, of one broker %v: %v", c.key, c.own, err)
		}
	}
}

// TestJavaDoubles proves that numbers are written as Kafka's tools expect them.
func TestJavaDoubles(t *testing.T) {
	for text, want := range map[string]string{
		"2": "2.0", "-1": "-1.0", "0.5": "0.5", "1e7": "1.0E7", "0.0001": "1.0E-4", "1.7976931348623157E308": "1.7976931348623157E308", "123456.25": "123456.25",
		"1e10": "1.0E10", "-1.5e-7": "-1.5E-7", "NaN": "NaN", "-Inf": "-Infinity",
	} {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := javaDouble(f); got != want {
			t.Errorf("%s is written %s, want %s", text, got, want)
		}
	}
}

// TestAnyValueIsParsedOrRefused proves that no text makes a check panic, and that
// what is accepted can be used by the typed views.
func TestAnyValueIsParsedOrRefused(t *testing.T) {
	var all []*ConfigDef
	for _, typ := range []ResourceType{TopicResource, BrokerResource, GroupResource, ClientMetricsResource} {
		all = append(all, Defs(typ)...)
	}
	slices.SortFunc(all, func(a, b *ConfigDef) int { return strings.Compare(a.Name, b.Name) })
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(all).Draw(t, "config")
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`-?[0-9]{1,20}`), rapid.SampledFrom([]string{"", "true", "by_duration:", "*", ","})).Draw(t, "value")
		if _, err := d.parse(text); err != nil && !errors.Is(err, ErrInvalidConfig) && !errors.Is(err, ErrRefusedConfig) {
			t.Fatal(err)
		}
	})
}

func BenchmarkTopicSettings(b *testing.B) {
	m, s := fixture(b), static(b)
	t := m.Topic("t")
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			TopicSettings(m, s, t)
		}
	})
	b.Run("computed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			DefaultSettings(m, s)
		}
	})
}

func BenchmarkServerSettings(b *testing.B) {
	m, s := fixture(b), static(b)
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ServerSettings(m, s)
		}
	})
	b.Run("computed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			newServer(m, s)
		}
	})
}
