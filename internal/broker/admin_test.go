package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
	"github.com/leatstream/leat/internal/vfs"
)

var recordKafka = flag.Bool("record", false, "write what the Kafka at LEAT_TEST_KAFKA answers into testdata")

const (
	golden        = "testdata/kafka-4.3.1-admin.txt"
	goldenWithout = "testdata/kafka-4.3.1-missing.txt"
)

// newAdminRig makes a rig with a controller; static are the node's own settings.
func newAdminRig(t *testing.T, static map[string]string, change ...func(*Config)) *rig {
	t.Helper()
	return newAdminRigOn(t, vfs.NewMem(), static, change...)
}

// newAdminRigOn is newAdminRig on a file system.
func newAdminRigOn(t *testing.T, fs vfs.FS, static map[string]string, change ...func(*Config)) *rig {
	t.Helper()
	st, err := config.NewStatic(1, static)
	if err != nil {
		t.Fatal(err)
	}
	var g *rig
	levels := map[string]slog.Level{"root": slog.LevelInfo}
	g = newRigOn(t, fs, "data", func(c *Config) {
		c.Static, c.LogDir = st, "/data"
		c.Txns = newTxns(t, c, func(string) int32 { return 0 })
		c.Txns.StartLeading(0, 1, &emptyLog{})
		c.EnsureTopic = func(context.Context, string) error { return nil }
		c.LogLevels = func() map[string]slog.Level { return maps.Clone(levels) }
		c.SetLogLevel = func(name string, l *slog.Level) { levels[name] = *l }
		c.Quorum = func() quorum.Status {
			return quorum.Status{Leader: 1, Term: 1, Voters: []int32{1}, Commit: 7, Applied: 7}
		}
		c.Controller = controller.New(controller.Config{Image: c.Image, Static: st, Leading: alwaysLeads, Propose: func(_ context.Context, _ uint64, b []byte) error {
			img, d, err := meta.Apply(c.Image(), b)
			if err != nil {
				return err
			}
			g.image.Store(img)
			g.set.Apply(d, img)
			return nil
		}})
		for _, f := range change {
			f(c)
		}
	})
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 1, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "127.0.0.1", Port: 9092}}, Rack: "r0", Epoch: 1}})
	return g
}

// alwaysLeads answers for a quorum that this node always leads.
func alwaysLeads() (term uint64, ok bool) { return 1, true }

// step is a request in a series; id returns the id of a topic that an earlier step has created.
type step struct {
	name string
	req  func(id func(topic string) [16]byte) kmsg.Request
}

// TestAdminAnswersAreKafkas proves that a series of requests of the admin APIs gets
// the codes, the messages and the contents that Apache Kafka 4.3.1 gave for it,
// which are kept in testdata. With LEAT_TEST_KAFKA, the address of a fresh Kafka
// with node.id=1 and broker.rack=r0, it proves too that the record is Kafka's.
func TestAdminAnswersAreKafkas(t *testing.T) {
	compareWithKafka(t, golden, newAdminRig(t, nil), adminSteps, betterThanKafka())
}

// TestAnswersForMissingFeaturesAreKafkas proves that a series of requests for features that
// the node does not have gets the answers of Apache Kafka 4.3.1: for security, quotas,
// reassignments, elections and transactions.
func TestAnswersForMissingFeaturesAreKafkas(t *testing.T) {
	if addr := os.Getenv("LEAT_TEST_KAFKA"); addr != "" {
		awaitCoordinators(t, addr)
	}
	g := newAdminRig(t, nil, func(c *Config) { // no offsets come as far as the groups
		groups := group.New(group.Config{Logger: c.Logger, Partitions: func() int32 { return 1 }})
		t.Cleanup(groups.Close)
		c.Groups = groups
	})
	g.apply(meta.LevelSet{Level: meta.LevelQuotas}) // with it there are users and quotas
	g.topic("__consumer_offsets", 1)
	g.topic("__transaction_state", 1)
	compareWithKafka(t, goldenWithout, g, missingFeatureSteps, unlikeKafka())
}

// compareWithKafka plays a series of requests, and compares the answers with those in a file,
// except for those that are better.
func compareWithKafka(t *testing.T, file string, g *rig, steps func() []step, better map[string]string) {
	t.Helper()
	want, err := os.ReadFile(file)
	if err != nil && !*recordKafka {
		t.Fatal(err)
	}
	if addr := os.Getenv("LEAT_TEST_KAFKA"); addr != "" {
		got := transcript(t, addr, steps())
		if *recordKafka {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			want = []byte(got)
		}
		if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
			t.Errorf("Kafka answers otherwise than recorded: %s", d)
		}
	}
	got := transcript(t, g.addr, steps())
	for name, theirs := range sections(string(want)) {
		if b, ok := better[name]; ok {
			theirs = b + "\n\n"
		}
		if ours := sections(got)[name]; ours != theirs {
			t.Errorf("%s: %s", name, cmp.Diff(strings.Split(theirs, "\n"), strings.Split(ours, "\n")))
		}
	}
	if len(sections(got)) != len(steps()) || len(sections(got)) != len(sections(string(want))) {
		t.Error("the series of requests is not the one recorded: record it again")
	}
}

// awaitCoordinators waits until a Kafka that was just started has coordinators of groups
// and of transactions.
func awaitCoordinators(t *testing.T, addr string) {
	t.Helper()
	c := dial(t, addr)
	for kind := range int8(2) {
		for {
			find := at(4, kmsg.NewPtrFindCoordinatorRequest())
			find.CoordinatorType, find.CoordinatorKeys = kind, []string{"a"}
			if ask[*kmsg.FindCoordinatorResponse](c, find).Coordinators[0].ErrorCode == none {
				break
			}
		}
	}
}

func sections(s string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(s, "## ") {
		if name, body, ok := strings.Cut(part, "\n"); ok {
			all[name] = body
		}
	}
	return all
}

func transcript(t *testing.T, addr string, steps []step) string {
	t.Helper()
	c := dial(t, addr)
	dir := ask[*kmsg.DescribeLogDirsResponse](c, at(4, kmsg.NewPtrDescribeLogDirsRequest())).Dirs[0].Dir
	ids := map[string][16]byte{}
	var out strings.Builder
	for _, s := range steps {
		req := s.req(func(topic string) [16]byte { return ids[topic] })
		if move, ok := req.(*kmsg.AlterReplicaLogDirsRequest); ok {
			for i := range move.Dirs {
				move.Dirs[i].Dir = strings.ReplaceAll(move.Dirs[i].Dir, dataDirectory, dir)
			}
		}
		resp := ask[kmsg.Response](c, req)
		if made, ok := resp.(*kmsg.CreateTopicsResponse); ok {
			for _, mt := range made.Topics {
				if mt.ErrorCode == 0 {
					ids[mt.Topic] = mt.TopicID
				}
			}
		}
		fmt.Fprintf(&out, "## %s: %s v%d\n%s\n\n", s.name, kmsg.NameForKey(req.Key()), req.GetVersion(), plain(t, resp))
	}
	return out.String()
}

// plain is an answer as text, without the things that differ from run to run: ids, ports,
// times, and the order of lists that have none.
func plain(t *testing.T, resp kmsg.Response) string {
	t.Helper()
	b, err := json.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(simplify(v)); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(buf.String()), "},{", "},\n{")
}

func simplify(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return simplifyObject(v)
	case []any:
		v = slices.DeleteFunc(slices.Clone(v), ownDefault)
		for i := range v {
			v[i] = simplify(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(sortKey(a), sortKey(b)) })
		return v
	default:
		return v
	}
}

func simplifyObject(v map[string]any) any {
	for k, x := range v {
		switch k {
		case "UnknownTags", "ThrottleMillis", "Version", "Documentation", "HighWatermark", "LastFetchTimestamp",
			"LastCaughtUpTimestamp", "LogEndOffset", "TotalBytes", "UsableBytes", "Dir":
			delete(v, k)
		case "Port", "ClusterID", "LeaderEpoch":
			v[k] = "*"
		case "TopicID", "ReplicaDirectoryID":
			v[k] = "none"
			if list, _ := x.([]any); slices.ContainsFunc(list, func(b any) bool { return b != 0.0 }) {
				v[k] = "an id"
			}
		case "ConfigSynonyms", "Replicas", "ISR": // their order says something
			if list, _ := x.([]any); len(list) == 0 {
				delete(v, k)
			}
		default:
			if v[k] = simplify(x); v[k] == nil || v[k] == 0.0 || v[k] == false {
				delete(v, k)
			}
		}
	}
	return v
}

// ownDefault tells whether an item of an answer is a topic's config whose default is
// ours and not Kafka's, or which only a later Kafka has.
func ownDefault(v any) bool {
	c, _ := v.(map[string]any)
	switch c["Name"] {
	case "flush.messages", "min.insync.replicas", "errors.deadletterqueue.group.enable", "max.decompressed.message.bytes",
		"remote.copy.lag.bytes", "remote.copy.lag.ms":
		return true
	}
	return false
}

func sortKey(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// TestControllerFails proves that a command which the quorum refuses is answered with an
// error for each item, and one that takes too long with a time-out.
func TestControllerFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int16
	}{{quorum.ErrNotLeader, 41}, {context.DeadlineExceeded, 7}, {errors.New("disk"), -1}} {
		g := newRig(t, func(cfg *Config) {
			cfg.Static, _ = config.NewStatic(1, nil)
			cfg.Quorum = func() quorum.Status { return quorum.Status{} }
			cfg.Controller = controller.New(controller.Config{
				Image: cfg.Image, Static: cfg.Static, Leading: alwaysLeads,
				Propose: func(context.Context, uint64, []byte) error { return c.err },
			})
		})
		g.topic("there", 1)
		cl := dial(t, g.addr)
		made := ask[*kmsg.CreateTopicsResponse](cl, createTopics(7, false, topicOf("a", 1, 1)))
		gone := ask[*kmsg.DeleteTopicsResponse](cl, deleteNames(5, "there"))
		set := ask[*kmsg.IncrementalAlterConfigsResponse](cl, alter(2, "there", "segment.ms", "5"))
		more := ask[*kmsg.CreatePartitionsResponse](cl, morePartitionsOf(3, "there", 5))
		for _, code := range []int16{made.Topics[0].ErrorCode, gone.Topics[0].ErrorCode, set.Resources[0].ErrorCode, more.Topics[0].ErrorCode} {
			if code != c.code {
				t.Errorf("%v is answered with %d, want %d", c.err, code, c.code)
			}
		}
	}
}

// TestMetadataCreatesTopics proves that asking for a topic creates it if both sides allow
// that, with the default settings or with those of an internal topic of that name, and that
// the same answer has it.
func TestMetadataCreatesTopics(t *testing.T) {
	for _, c := range []struct {
		name       string
		static     map[string]string
		version    int16
		allow      bool
		topic      string
		code       int16
		partitions int
		configs    map[string]string
	}{
		{"allowed", nil, 12, true, "new", 0, 1, nil},
		{"defaults", map[string]string{"num.partitions": "4"}, 12, true, "new", 0, 4, nil},
		{"old versions allow it", nil, 3, false, "new", 0, 1, nil},
		{"the client does not want it", nil, 12, false, "new", 3, 0, nil},
		{"the server does not want it", map[string]string{"auto.create.topics.enable": "false"}, 12, true, "new", 3, 0, nil},
		{"bad name", nil, 12, true, "n w", 17, 0, nil},
		{"colliding name", nil, 12, true, "is_there", 17, 0, nil},
		{"too few brokers", map[string]string{"default.replication.factor": "3"}, 12, true, "new", 38, 0, nil},
		{
			"offsets",
			map[string]string{"offsets.topic.num.partitions": "7"},
			12, true, "__consumer_offsets", 0, 7,
			map[string]string{"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "104857600"},
		},
		{
			"transactions", nil, 12, true, "__transaction_state", 0, 50, map[string]string{
				"cleanup.policy": "compact", "compression.type": "uncompressed", "segment.bytes": "104857600",
				"min.insync.replicas": "1", "unclean.leader.election.enable": "false",
			},
		},
		{
			"share groups", nil, 12, true, "__share_group_state", 0, 50, map[string]string{
				"cleanup.policy": "delete", "compression.type": "producer", "segment.bytes": "104857600", "min.insync.replicas": "1", "retention.ms": "-1",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newAdminRig(t, c.static)
			g.topic("is.there", 1)
			req := kmsg.NewPtrMetadataRequest()
			req.Version, req.AllowAutoTopicCreation = c.version, c.allow
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = &c.topic
			req.Topics = append(req.Topics, rt, rt)
			resp := ask[*kmsg.MetadataResponse](dial(t, g.addr), req)
			if len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != c.code || len(resp.Topics[0].Partitions) != c.partitions {
				t.Fatalf("%+v", resp.Topics)
			}
			made := g.image.Load().Topic(c.topic)
			if (made != nil) != (c.code == 0) {
				t.Fatalf("in the cluster: %v", made)
			}
			if made != nil {
				got := g.image.Load().Overrides(config.Resource{Type: config.Topic, Name: c.topic})
				if d := cmp.Diff(c.configs, got); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// TestClientIsToldTheAddressItUsed proves that a client is told the address to which it has
// connected, unless another one was set for this node.
func TestClientIsToldTheAddressItUsed(t *testing.T) {
	for _, advertised := range []bool{false, true} {
		g := newRig(t, func(c *Config) {
			c.Static, _ = config.NewStatic(1, nil)
			c.Quorum = func() quorum.Status { return quorum.Status{Leader: 1} }
			c.Controller = controller.New(controller.Config{Image: c.Image, Static: c.Static, Leading: alwaysLeads})
			c.Naming.Advertised = func(string) bool { return advertised }
		})
		g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 1, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "public.example", Port: 1234}}, Epoch: 1}},
			meta.BrokerRegistered{Broker: meta.Broker{ID: 2, State: meta.BrokerActive, Listeners: []meta.Listener{{Host: "other.example", Port: 5678}}, Epoch: 2}})
		want := g.addr
		if advertised {
			want = "public.example:1234"
		}
		c := dial(t, g.addr)
		var got []string
		metadata := ask[*kmsg.MetadataResponse](c, metadataOf(12, false))
		for _, n := range metadata.Brokers {
			got = append(got, fmt.Sprintf("%s:%d", n.Host, n.Port))
		}
		req := kmsg.NewPtrDescribeClusterRequest()
		req.Version = 2
		for _, n := range ask[*kmsg.DescribeClusterResponse](c, req).Brokers {
			got = append(got, fmt.Sprintf("%s:%d", n.Host, n.Port))
		}
		if d := cmp.Diff([]string{want, "other.example:5678", want, "other.example:5678"}, got); d != "" {
			t.Errorf("advertised %v: %s", advertised, d)
		}
	}
}

// TestResourceNamedTwiceIsRefused proves that a resource given twice is refused each time (Kafka
// does not answer at all) and that the others are served.
func TestResourceNamedTwiceIsRefused(t *testing.T) {
	g := newAdminRig(t, nil)
	g.topic("a", 1)
	g.topic("b", 1)
	req := kmsg.NewPtrAlterConfigsRequest()
	req.Version = 2
	for _, name := range []string{"a", "b", "a"} {
		r := kmsg.NewAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
		c := kmsg.NewAlterConfigsRequestResourceConfig()
		c.Name, c.Value = "segment.ms", new("5")
		r.Configs = append(r.Configs, c)
		req.Resources = append(req.Resources, r)
	}
	resp := ask[*kmsg.AlterConfigsResponse](dial(t, g.addr), req)
	var got []int16
	for _, r := range resp.Resources {
		got = append(got, r.ErrorCode)
	}
	if d := cmp.Diff([]int16{42, 0, 42}, got); d != "" {
		t.Error(d)
	}
}

// TestDescribeLogDirsHasSizes proves that the answer has the bytes of partitions, and the
// size and the free space of the disk.
func TestDescribeLogDirsHasSizes(t *testing.T) {
	g := newAdminRig(t, nil)
	g.topic("t", 2)
	c := dial(t, g.addr)
	if code := ask[*kmsg.ProduceResponse](c, put("t", 1, -1, batch(t, "value"))).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatal(code)
	}
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.Version = 4
	resp := ask[*kmsg.DescribeLogDirsResponse](c, req)
	if len(resp.Dirs) != 1 || len(resp.Dirs[0].Topics) != 1 {
		t.Fatalf("%+v", resp)
	}
	dir := resp.Dirs[0]
	if p := dir.Topics[0].Partitions; len(p) != 2 || p[0].Size != 0 || p[1].Size < 60 {
		t.Errorf("sizes: %+v", p)
	}
	if dir.Dir != "/data" || dir.UsableBytes <= 0 || dir.TotalBytes < dir.UsableBytes {
		t.Errorf("%s: %d of %d bytes are free", dir.Dir, dir.UsableBytes, dir.TotalBytes)
	}
}

// TestTopicDeletionDisabled proves that no topic is deleted if delete.topic.enable is false.
func TestTopicDeletionDisabled(t *testing.T) {
	g := newAdminRig(t, map[string]string{"delete.topic.enable": "false"})
	g.topic("t", 1)
	c := dial(t, g.addr)
	for version, code := range map[int16]int16{1: 42, 2: 42, 3: 73, 6: 73} {
		if resp := ask[*kmsg.DeleteTopicsResponse](c, deleteNames(version, "t")); resp.Topics[0].ErrorCode != code {
			t.Errorf("version %d: %d, want %d", version, resp.Topics[0].ErrorCode, code)
		}
	}
	if g.image.Load().Topic("t") == nil {
		t.Error("it was deleted")
	}
}

// TestPartitionWithoutLeader proves that a partition whose leader is not registered is
// described with its offline replicas, and in Metadata with LEADER_NOT_AVAILABLE, as in Kafka.
func TestPartitionWithoutLeader(t *testing.T) {
	g := newAdminRig(t, nil)
	id := g.topic("t", 1)
	g.apply(meta.PartitionsSet{Topic: id, Partitions: []meta.Partition{{Replicas: []int32{7, 1}, ISR: []int32{7}, Leader: 7, PartitionEpoch: 1}}})
	c := dial(t, g.addr)
	p := ask[*kmsg.MetadataResponse](c, metadataOf(12, false, "t")).Topics[0].Partitions[0]
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 10
	q := ask[*kmsg.DescribeTopicPartitionsResponse](c, req).Topics[0].Partitions[0]
	if got, want := fmt.Sprint(p.ErrorCode, p.Leader, p.Replicas, p.ISR, p.OfflineReplicas), "5 -1 [7 1] [7] [7]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(q.ErrorCode, q.LeaderID, q.Replicas, q.ISR, q.OfflineReplicas), "0 -1 [7 1] [7] [7]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestEveryConfigIsDescribed proves that a topic, this broker and a group show every
// config in the table, with a sentence for each, and secrets without a value.
func TestEveryConfigIsDescribed(t *testing.T) {
	g := newAdminRig(t, map[string]string{"log.retention.hours": "3"})
	g.apply(meta.ConfigSet{Resource: config.Resource{Type: config.Broker, Name: "1"}, Key: "ssl.key.password", Value: "secret"}) // as an earlier version took it
	g.topic("t", 1)
	c := dial(t, g.addr)
	for typ, name := range map[config.ResourceType]string{config.Topic: "t", config.Broker: "1", config.Group: "g", config.ClientMetrics: "m"} {
		req := described(4, true, int8(typ), name)
		req.IncludeDocumentation = true
		resp := ask[*kmsg.DescribeConfigsResponse](c, req)
		if n := len(resp.Resources[0].Configs); n != len(config.Defs(typ)) {
			t.Errorf("%v: %d configs are shown, there are %d", typ, n, len(config.Defs(typ)))
		}
		for _, cfg := range resp.Resources[0].Configs {
			if cfg.Documentation == nil || len(*cfg.Documentation) < 20 || cfg.ConfigType == 0 {
				t.Errorf("%v %s is shown without a sentence or a type", typ, cfg.Name)
			}
			if cfg.Name == "ssl.key.password" && (cfg.Value != nil || cfg.ConfigSynonyms[0].Value != nil || !cfg.IsSensitive) {
				t.Error("a secret is shown")
			}
			if cfg.Name == "retention.ms" && (*cfg.Value != "10800000" || cfg.Source != kmsg.ConfigSourceStaticBrokerConfig) {
				t.Errorf("retention.ms is %s from %v", *cfg.Value, cfg.Source)
			}
		}
	}
}

// TestCoordinatorsTopicsAreDescribed proves that the configs of coordinators' topics are shown as they run:
// without the broker's log.flush configs.
func TestCoordinatorsTopicsAreDescribed(t *testing.T) {
	g := newAdminRig(t, map[string]string{"log.flush.interval.messages": "1000", "log.flush.interval.ms": "5000", "log.retention.hours": "3"})
	c := dial(t, g.addr)
	for name, want := range map[string]string{
		"t":                  "flush.messages=1000 flush.ms=5000 retention.ms=10800000",
		"__consumer_offsets": "flush.messages=1 flush.ms=9223372036854775807 retention.ms=10800000",
	} {
		g.topic(name, 1)
		resp := ask[*kmsg.DescribeConfigsResponse](c, described(4, true, int8(config.Topic), name, "flush.messages", "flush.ms", "retention.ms"))
		var got []string
		for _, cfg := range resp.Resources[0].Configs {
			got = append(got, cfg.Name+"="+*cfg.Value)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
	}
}

// TestDescribedConfigsAreBounded proves that a request which names this broker thousands of
// times gets some hundred descriptions of it.
func TestDescribedConfigsAreBounded(t *testing.T) {
	g := newAdminRig(t, nil)
	req := described(4, true, int8(config.Broker), "1")
	req.IncludeDocumentation = true
	for range 3000 {
		req.Resources = append(req.Resources, req.Resources[0])
	}
	resp := ask[*kmsg.DescribeConfigsResponse](dial(t, g.addr), req)
	told := 0
	for _, r := range resp.Resources {
		if (r.ErrorCode == 0) != (len(r.Configs) > 0) || r.ErrorCode != 0 && r.ErrorCode != kerr.InvalidRequest.Code {
			t.Fatalf("%d configs with code %d", len(r.Configs), r.ErrorCode)
		}
		if r.ErrorCode == 0 {
			told++
		}
	}
	if len(resp.Resources) != 3001 || told != 1+maxRepeated {
		t.Errorf("%d of %d resources are described", told, len(resp.Resources))
	}
}

// lockedBuffer is a log that the broker writes while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestTopicsThatCannotBeCreatedAreOneLine proves that a request for many topics that cannot be
// created writes one line, and not one for each topic.
func TestTopicsThatCannotBeCreatedAreOneLine(t *testing.T) {
	var log lockedBuffer
	g := newAdminRig(t, map[string]string{"default.replication.factor": "3"})
	g.broker.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	req := at(9, kmsg.NewPtrMetadataRequest())
	req.AllowAutoTopicCreation = true
	for i := range 100 {
		q := kmsg.NewMetadataRequestTopic()
		q.Topic = new(fmt.Sprintf("topic-%d", i))
		req.Topics = append(req.Topics, q)
	}
	for _, topic := range ask[*kmsg.MetadataResponse](dial(t, g.addr), req).Topics {
		if topic.ErrorCode != kerr.InvalidReplicationFactor.Code {
			t.Fatalf("%s: code %d", *topic.Topic, topic.ErrorCode)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "topics=100") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// TestCommandsNameTheDisk proves that a command which fails since the metadata log cannot be
// written is answered with the reason, and not with "unexpected error" alone.
func TestCommandsNameTheDisk(t *testing.T) {
	for _, known := range []error{quorum.ErrDiskFull, quorum.ErrFaulted, quorum.ErrNotApplied} {
		code, message := outcomeOf(nil, fmt.Errorf("the proposal: %w", known))
		if code != kerr.UnknownServerError.Code || message == nil || "quorum: "+*message != known.Error() {
			t.Errorf("%v is answered with %d and %v", known, code, message)
		}
	}
	if _, message := outcomeOf(nil, errors.New("another reason")); message == nil || *message != kerr.UnknownServerError.Description {
		t.Errorf("another reason is answered with %v", message)
	}
}
