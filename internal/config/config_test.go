package config

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
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var configKinds = map[string]ResourceType{
	"topic": Topic, "broker": Broker, "group": Group, "metrics": ClientMetrics,
}

// ownDefaults are the defaults that differ from Kafka's on purpose, with the reasons.
var ownDefaults = map[string]string{
	"topic flush.messages":               "acknowledged means on disk",
	"broker log.flush.interval.messages": "acknowledged means on disk",
	"broker log.dir":                     "data lies beside where one starts, not in /tmp",
	"broker process.roles":               "every node can be both",
	"broker listeners":                   "nothing is open to a network unless the operator says so",
}

// TestTableIsKafkas proves that every config of Kafka 4.3.1 is in the tables, with its type,
// default, scope and synonyms, except for a few defaults that are better here.
func TestTableIsKafkas(t *testing.T) {
	b, err := os.ReadFile("testdata/kafka-4.3.1-configs.txt")
	if err != nil {
		t.Fatal(err)
	}
	types := map[Type]string{
		Bool: "BOOLEAN", String: "STRING", Int: "INT", Short: "SHORT", Long: "LONG",
		Double: "DOUBLE", List: "LIST", Class: "CLASS", Password: "PASSWORD",
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
		d := Find(typ, name)
		if d == nil {
			t.Errorf("%s %s is missing", f[0], name)
			continue
		}
		got := []string{f[0], name, types[d.Type], d.Default, scopes[d.Scope], ""}
		if d.Null {
			got[3] = "null"
		}
		if typ != Broker {
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

// TestTableIsComplete proves that each config has a sentence, a default that passes its own
// check, and synonyms that exist.
func TestTableIsComplete(t *testing.T) {
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
			if _, err := d.parseValue(d.Default); !d.Null && err != nil && d.Name != "broker.id" {
				t.Errorf("%v %s: its default is refused: %v", typ, d.Name, err)
			}
			for _, s := range d.synonyms {
				if Find(Broker, s.name) == nil {
					t.Errorf("%v %s: there is no broker config %s", typ, d.Name, s.name)
				}
			}
		}
	}
	if n := len(Defs(Topic)); n != 37 {
		t.Errorf("%d topic configs", n)
	}
}

// testBroker is a broker with id 1, in a cluster of one, with a topic "t".
type testBroker struct {
	View
	topic map[string]string
}

// newTestBroker makes a broker whose start sets own, as key, value, and for which the cluster
// has set, as resource, key, value.
func newTestBroker(tb testing.TB, own []string, set ...string) testBroker {
	tb.Helper()
	w := testBroker{View: View{Static: static(tb, own...), Own: map[string]string{}, All: map[string]string{}, Brokers: 1}, topic: map[string]string{}}
	for i := 0; i < len(set); i += 3 {
		switch set[i] {
		case "topic t":
			w.topic[set[i+1]] = set[i+2]
		case "broker 1":
			w.Own[set[i+1]] = set[i+2]
		case "broker ":
			w.All[set[i+1]] = set[i+2]
		default:
			tb.Fatalf("configs are set on %q", set[i])
		}
	}
	return w
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

// TestPrecedence proves which of the places that have a value for a config wins, and that all of
// them are shown.
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
			[]string{"broker ", "log.retention.ms", "3", "broker 1", "log.retention.ms", "2", "topic t", "retention.ms", "1"},
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
		w := newTestBroker(t, c.static, c.set...)
		e := w.makeEntry(Find(Topic, c.key), w.topic, TopicSource)
		got := fmt.Sprintf("%s from %d:", e.Value, e.Source)
		for _, s := range e.Synonyms {
			got += fmt.Sprintf(" %s=%s(%d)", s.Name, s.Value, s.Source)
		}
		if got != c.want {
			t.Errorf("%s with %q and %q:\n got %s\nwant %s", c.key, c.static, c.set, got, c.want)
		}
	}
}

// TestBrokerEntriesShowOwnName proves that a broker config does not show the value of a synonym
// in another unit.
func TestBrokerEntriesShowOwnName(t *testing.T) {
	w := newTestBroker(t, []string{"log.retention.hours", "2"}, "broker ", "log.retention.ms", "5")
	got := map[string]string{}
	for _, e := range w.BrokerEntries() {
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
	if n := len(w.DefaultBrokerEntries()); n != 1 {
		t.Errorf("%d configs are set for all brokers", n)
	}
}

// TestReplicationFollowsTheCluster proves that defaults which depend on the number of brokers
// grow with it, and that values that are set override them.
func TestReplicationFollowsTheCluster(t *testing.T) {
	for n := range 5 {
		w := newTestBroker(t, nil)
		w.Brokers = n + 1
		v := w.Server()
		want := int16(min(w.Brokers, 3))
		if v.ReplicationFactor != want || v.Offsets.ReplicationFactor != want || v.Transactions.ReplicationFactor != want || v.ShareState.MinISR != int(max(1, want-1)) {
			t.Errorf("%d brokers: %+v", w.Brokers, v)
		}
	}
	if v := newTestBroker(t, []string{"default.replication.factor", "2"}).Server(); v.ReplicationFactor != 2 {
		t.Errorf("set to 2, it is %d", v.ReplicationFactor)
	}
}

// TestTopicSettings proves which Settings the values of a topic's configs become.
func TestTopicSettings(t *testing.T) {
	week := 7 * 24 * time.Hour
	defaults := Settings{
		SegmentBytes: 1 << 30, SegmentAge: week, IndexInterval: 4096, IndexBytes: 10 << 20, RetentionAge: week, RetentionBytes: -1,
		Delete: true, FlushMessages: 1, FileDeleteDelay: time.Minute, MaxMessageBytes: 1048588, MaxDecompressedBytes: 2147483639,
		MinISR: 1, Compression: "producer", GzipLevel: -1, LZ4Level: 9, ZstdLevel: 3, TimestampBefore: math.MaxInt64,
		TimestampAfter: time.Hour, Compaction: Compaction{DeleteRetention: 24 * time.Hour, MaxLag: math.MaxInt64, MinDirtyRatio: 0.5},
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
		{[]string{"log.roll.hours", "1"}, []string{"broker ", "min.insync.replicas", "2"}, func(s *Settings) { s.SegmentAge, s.MinISR, s.MinISRSet = time.Hour, 2, true }},
		// All nodes must count by the same number, so what is set for one node does not count.
		{[]string{"min.insync.replicas", "3"}, []string{"broker 1", "min.insync.replicas", "2"}, func(*Settings) {}},
		{nil, []string{"topic t", "message.timestamp.type", "LogAppendTime", "topic t", "min.cleanable.dirty.ratio", "0.1", "topic t", "preallocate", "TRUE"}, func(s *Settings) {
			s.LogAppendTime, s.Compaction.MinDirtyRatio, s.Preallocate = true, 0.1, true
		}},
		{nil, []string{"topic t", "leader.replication.throttled.replicas", "0:1,3:2, 9999999999:1", "topic t", "follower.replication.throttled.replicas", "*"}, func(s *Settings) {
			s.LeaderThrottled.Replicas = map[ThrottledReplica]bool{{0, 1}: true, {3, 2}: true}
			s.FollowerThrottled.All = true
		}},
		// A value that only a later version accepts counts as not set.
		{nil, []string{"topic t", "segment.bytes", "12x", "topic t", "unheard.of", "1"}, func(*Settings) {}},
	} {
		w := newTestBroker(t, c.static, c.set...)
		want := defaults
		c.change(&want)
		if d := cmp.Diff(want, w.Topic(w.topic)); d != "" {
			t.Errorf("%q, %q: %s", c.static, c.set, d)
		}
	}
}

// TestThrottled proves which replicas a list of throttled ones has.
func TestThrottled(t *testing.T) {
	some := Throttled{Replicas: map[ThrottledReplica]bool{{0, 1}: true}}
	if !some.Has(0, 1) || some.Has(1, 0) || (&Throttled{}).Has(0, 1) || !(&Throttled{All: true}).Has(7, 7) {
		t.Error("not the replicas that are listed")
	}
}

// TestReplicationSettings proves which settings of replication the values of a broker's configs become.
func TestReplicationSettings(t *testing.T) {
	want := Replication{
		FetchBackoff: time.Second, FetchWait: 500 * time.Millisecond, FetchMinBytes: 1, FetchMaxBytes: 10 << 20, PartitionBytes: 1 << 20,
		Lag: 30 * time.Second, LeaderRate: math.MaxInt64, FollowerRate: math.MaxInt64, QuotaWindow: time.Second,
	}
	if got := newTestBroker(t, nil).Server().Replication; got != want {
		t.Errorf("the defaults are %+v", got)
	}
	want.Lag, want.NearestReplica = 2*time.Second, true
	want.LeaderRate, want.FollowerRate = 5, 6
	got := newTestBroker(t, []string{"replica.lag.time.max.ms", "2000", "replica.selector.class", rackAwareSelector},
		"broker ", "leader.replication.throttled.rate", "5", "broker ", "follower.replication.throttled.rate", "6").Server().Replication
	if got != want {
		t.Errorf("%+v", got)
	}
}

// TestCheck proves which sets of configs are refused, and with which messages.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		typ  ResourceType
		set  []string
		want string
		kind error
	}{
		{Topic, nil, "", nil},
		{Topic, []string{"segment.ms", "0", "zzz", "1"}, "Unknown topic config name: zzz", ErrInvalid},
		{Topic, []string{"max.compaction.lag.ms", "5", "min.compaction.lag.ms", "6"}, "conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)", ErrInvalid},
		{Broker, []string{"nonsense", "5"}, "Unknown broker config name: nonsense", ErrInvalid},
		{Broker, []string{"offsets.topic.replication.factor", "99999"}, "Invalid value 99999 for configuration offsets.topic.replication.factor: Not a number of type SHORT", ErrInvalid},
		{Broker, []string{"log.cleaner.io.buffer.load.factor", "NaN"}, "Invalid value NaN for configuration log.cleaner.io.buffer.load.factor: Value must be at least 0", ErrInvalid},
		{Broker, []string{"ssl.key.password", " x "}, "", nil},
		{Broker, []string{"max.connections", "10", "max.connections.per.ip", "0"}, "", nil},
		{Broker, []string{"max.connections", "9"}, "Invalid value 9 for configuration max.connections: Value must be 0, which is no limit, or at least 10: a client needs several connections, so less would lock out administrators, too", ErrInvalid},
		{Broker, []string{"max.connections.per.ip", "1"}, "Invalid value 1 for configuration max.connections.per.ip: Value must be 0, which is no limit, or at least 2: a client needs two connections, so 1 would lock out everybody, administrators too", ErrInvalid},
		{Broker, []string{"max.connections.per.ip.overrides", "10.0.0.1:20, ::1:5,[fe80::1]:0"}, "", nil},
		{Broker, []string{"max.connections.per.ip.overrides", "a.example.org:20"}, `Invalid value a.example.org:20 for configuration max.connections.per.ip.overrides: "a.example.org:20" is not a client's IP address and its number of connections, as in 10.0.0.1:20`, ErrInvalid},
		{Group, []string{"consumer.session.timeout.ms", "45000", "consumer.heartbeat.interval.ms", "15000"}, "", nil},
		{ClientMetrics, []string{"interval.ms", "1"}, "Invalid value 1 for interval.ms, interval must be between 100 and 3600000 (1 hour)", ErrRefused},
	} {
		set := map[string]string{}
		for i := 0; i < len(c.set); i += 2 {
			set[c.set[i]] = c.set[i+1]
		}
		err := newTestBroker(t, nil).Check(c.typ, set)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !errors.Is(err, c.kind)) {
			t.Errorf("%v %q: %v, want %q", c.typ, c.set, err, c.want)
		}
	}
}

// TestStaticIsChecked proves that a node's settings are refused with a sentence if one of them
// is invalid, or if they contradict each other or the defaults of the others.
func TestStaticIsChecked(t *testing.T) {
	for _, c := range []struct {
		set  map[string]string
		want string
	}{
		{map[string]string{"num.partitions": "0"}, "Invalid value 0 for configuration num.partitions: Value must be at least 1"},
		{map[string]string{"group.min.session.timeout.ms": "60000", "group.max.session.timeout.ms": "30000"}, "group.max.session.timeout.ms must be greater than or equal to group.min.session.timeout.ms"},
		{map[string]string{"group.min.session.timeout.ms": "1800001"}, "group.max.session.timeout.ms must be greater than or equal to group.min.session.timeout.ms"},
		{map[string]string{"group.min.session.timeout.ms": "1800000"}, ""},
		{map[string]string{"group.consumer.session.timeout.ms": "44999"}, "group.consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{map[string]string{"group.share.session.timeout.ms": "60001"}, "group.share.max.session.timeout.ms must be greater than or equal to group.share.session.timeout.ms"},
		{map[string]string{"group.streams.num.standby.replicas": "3"}, "group.streams.max.standby.replicas must be greater than or equal to group.streams.num.standby.replicas"},
		{map[string]string{"group.consumer.heartbeat.interval.ms": "15000", "group.consumer.min.session.timeout.ms": "100", "group.consumer.session.timeout.ms": "10000"}, "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms"},
	} {
		_, err := NewStatic(1, c.set)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !errors.Is(err, ErrInvalid)) {
			t.Errorf("%v: %v, want %q", c.set, err, c.want)
		}
	}
}

// TestProtectionsAreNotFeigned proves that neither a starting node nor a running cluster accepts
// a value that asks for a protection that is not served, and that Kafka's defaults ask for none.
func TestProtectionsAreNotFeigned(t *testing.T) {
	f := func(key, value, want string) {
		t.Helper()
		_, err := NewStatic(1, map[string]string{key: value})
		checked := CheckServed(Broker, key, value)
		if (want == "") != (err == nil) || (err == nil) != (checked == nil) {
			t.Errorf("%s=%s: %v, %v", key, value, err, checked)
			return
		}
		if err != nil && (!errors.Is(err, ErrRefused) || !strings.HasPrefix(err.Error(), key+"=") || !strings.Contains(err.Error(), "asks for "+want+",")) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
	f("authorizer.class.name", "", "")
	f("allow.everyone.if.no.acl.found", "true", "")
	f("ssl.client.auth", "required", "")
	f("sasl.kerberos.service.name", "kafka", "Kerberos")
	f("sasl.oauthbearer.token.endpoint.url", "https://a.example", "authentication")
	f("sasl.enabled.mechanisms", "PLAIN", "")
	f("security.inter.broker.protocol", "SASL_SSL", "")
	f("listener.name.out.sasl.kerberos.service.name", "kafka", "Kerberos")
	f("delegation.token.secret.key", "x", "")
	f("create.topic.policy.class.name", "com.example.Policy", "policies")
	f("num.io.threads", "16", "")
	if err := CheckServed(Broker, "sasl.oauthbearer.client.credentials.client.secret", "geheim"); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a secret: %v", err)
	}
	served := []string{
		authorizerClass, superUsers, allowEveryone, "security.inter.broker.protocol", enabledMechanisms, jaasConfig, "sasl.server.max.receive.size",
		"sasl.oauthbearer.clock.skew.seconds", "sasl.oauthbearer.expected.audience", "sasl.oauthbearer.expected.issuer", "sasl.oauthbearer.jwks.endpoint.refresh.ms",
		"sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", "sasl.oauthbearer.jwks.endpoint.url",
		"sasl.oauthbearer.scope.claim.name", "sasl.oauthbearer.sub.claim.name",
		"delegation.token.expiry.check.interval.ms", "delegation.token.expiry.time.ms", "delegation.token.max.lifetime.ms", "delegation.token.secret.key",
	}
	for i := range securityConfigs {
		if d := Find(Broker, securityConfigs[i].Name); d.supportKind() != Refused && !slices.Contains(served, d.Name) && !strings.HasPrefix(d.Name, "ssl.") && d.supportKind() != Needless {
			t.Errorf("%s is of a kind that is not refused", d.Name)
		}
	}
}

// TestIneffectiveConfigsAreNamed proves that there is a sentence about each setting that has no
// effect, and none about those that have one or are set to their default.
func TestIneffectiveConfigsAreNamed(t *testing.T) {
	got := Ineffective(Broker, map[string]string{
		"num.partitions": "3", "num.io.threads": "16", "background.threads": "10", "replica.lag.time.max.ms": "6", "log.cleaner.backoff.ms": "5", "log.cleaner.threads": "6",
		"log.cleanup.policy": "delete,compact",
	})
	want := []string{
		"log.cleaner.threads, num.io.threads have no effect here, for the reasons in docs/configs.md",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := Ineffective(Topic, map[string]string{"cleanup.policy": "delete", "retention.ms": "5"}); got != nil {
		t.Errorf("%q", got)
	}
}

// TestInertConfigsAreNotRead proves that no config which is said to have no effect changes a setting that the
// node works with.
func TestInertConfigsAreNotRead(t *testing.T) {
	tried := 0
	nobodys := cmpopts.IgnoreFields(Server{}, "Transactions", "ShareState") // these are read for coordinators that are not there yet
	for _, typ := range []ResourceType{Topic, Broker} {
		for _, d := range Defs(typ) {
			text, ok := anotherValue(typ, d)
			if kind := d.supportKind(); !ok || kind != Pending && kind != Needless {
				continue
			}
			tried++
			was, is := newTestBroker(t, nil), newTestBroker(t, nil)
			set := map[string]string{}
			if typ == Topic {
				set[d.Name] = text
			} else {
				is.All[d.Name] = text
			}
			if diff := cmp.Diff(was.Server(), is.Server(), nobodys) + cmp.Diff(was.Topic(nil), is.Topic(set), nobodys); diff != "" {
				t.Errorf("%s=%s is said to have no effect: %s\n%s", d.Name, text, d.Doc, diff)
			}
		}
	}
	if tried < 40 {
		t.Errorf("only %d configs were tried", tried)
	}
}

// TestNoteIsBounded proves that a note about all configs that a topic or a broker can have names a
// few for each reason and counts the others, and that there is none about configs that act.
func TestNoteIsBounded(t *testing.T) {
	for _, c := range []struct {
		of    ResourceType
		limit int
	}{{Topic, 512}, {Broker, 3072}} {
		all := map[string]string{}
		for _, d := range Defs(c.of) {
			for _, value := range []string{"7", "true", "compact", "x:1"} {
				if d.Default != value && Validate(c.of, d.Name, value) == nil {
					all[d.Name] = value
				}
			}
		}
		note := Note(c.of, all)
		if !strings.Contains(note, " more have no effect yet: they need ") || len(note) > c.limit {
			t.Errorf("%v: %d bytes: %s", c.of, len(note), note)
		}
	}
	if got := Note(Topic, map[string]string{"cleanup.policy": "compact"}); got != "" {
		t.Errorf("%q", got)
	}
	if got := Note(Topic, map[string]string{"cleanup.policy": "delete", "retention.ms": "5"}); got != "" {
		t.Errorf("%q", got)
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
		{"message.max.bytes", true, true},
		{"listeners", true, false}, // Kafka opens them while it runs; a node does so when it starts
		{"listeners", false, false},
		{"ssl.keystore.location", true, false},
		{"nonsense", true, false},
	} {
		if err := CheckDynamic(c.key, c.own); (err == nil) != c.ok {
			t.Errorf("%s, of one broker %v: %v", c.key, c.own, err)
		}
	}
}

// TestJavaDoubles proves that numbers have the form that Kafka's tools expect.
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

// TestAnyValueIsParsedOrRefused proves that no text makes a check panic, and that Settings and
// Server can be made of every accepted value.
func TestAnyValueIsParsedOrRefused(t *testing.T) {
	var all []*Def
	for _, typ := range []ResourceType{Topic, Broker, Group, ClientMetrics} {
		all = append(all, Defs(typ)...)
	}
	slices.SortFunc(all, func(a, b *Def) int { return strings.Compare(a.Name, b.Name) })
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(all).Draw(t, "config")
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`-?[0-9]{1,20}`), rapid.SampledFrom([]string{"", "true", "by_duration:", "*", ","})).Draw(t, "value")
		if _, err := d.parseValue(text); err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	})
}

func BenchmarkTopicSettings(b *testing.B) {
	w := newTestBroker(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		w.Topic(nil)
	}
}

func BenchmarkServerSettings(b *testing.B) {
	w := newTestBroker(b, nil)
	b.ReportAllocs()
	for b.Loop() {
		w.Server()
	}
}

// TestAuthorizationIsSet proves which settings have clients authorised, that those by which an operator would believe in a protection
// that there is not are refused, and that those which leave the cluster open are told.
func TestAuthorizationIsSet(t *testing.T) {
	f := func(want Authorization, refused, danger string, pairs ...string) {
		t.Helper()
		set := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			set[pairs[i]] = pairs[i+1]
		}
		s, err := NewStatic(1, set)
		var got Authorization
		if err == nil {
			got, err = s.Authorization(want.ForLogins, "")
		}
		if refused != "" {
			if err == nil || !strings.Contains(err.Error(), refused) {
				t.Errorf("%v: %v", set, err)
			}
			return
		}
		if err != nil || got != want {
			t.Errorf("%v: %+v, %v", set, got, err)
			return
		}
		if got := strings.Join(s.Dangers(got), "; "); (got == "") != (danger == "") || !strings.Contains(got, danger) {
			t.Errorf("%v: dangers %q", set, got)
		}
	}
	f(Authorization{}, "", "")
	f(Authorization{}, "", "every client may do everything", authorizerClass, "")
	f(Authorization{On: true, SuperUsers: "User:admin;User:b"}, "", "", authorizerClass, StandardAuthorizer, superUsers, " User:admin;User:b ")
	f(Authorization{On: true, AllowUnruled: true}, "", "no ACLs", authorizerClass, StandardAuthorizer, allowEveryone, "TRUE")
	f(Authorization{}, "needs super.users", "", authorizerClass, StandardAuthorizer)
	f(Authorization{}, "String must be one of", "", authorizerClass, "com.example.Authorizer", superUsers, "User:a")
	f(Authorization{On: true, ForLogins: true, SuperUsers: "User:admin"}, "", "", superUsers, "User:admin")
	f(Authorization{On: true, ForLogins: true, AllowUnruled: true}, "", "no ACLs", allowEveryone, "true")
	f(Authorization{ForLogins: true}, "a listener asks for a login", "")
	f(Authorization{}, "nothing would be protected", "", superUsers, "User:admin")
	f(Authorization{}, "nothing would be protected", "", superUsers, "User:admin", authorizerClass, "")
	f(Authorization{}, "nothing would be protected", "", allowEveryone, "false")
	f(Authorization{}, "principalType:principalName but got admin", "", authorizerClass, StandardAuthorizer, superUsers, "admin")
}
